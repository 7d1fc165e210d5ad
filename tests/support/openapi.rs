//! Validates answers of the HTTP API against the OpenAPI document, as frames are against the AsyncAPI document.
//!
//! Stricter than the document in one respect: a field that the document does not know is refused.
#![allow(dead_code, reason = "each test binary uses its part")]

use crate::schema::close;
use caffis_chat::protocol::openapi;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};

static DOCUMENT: LazyLock<Value> = LazyLock::new(openapi::document);
/// Method, path and status of every answer that was validated.
static SEEN: Mutex<BTreeMap<(String, String, u16), usize>> = Mutex::new(BTreeMap::new());

/// The operations of the document: method and path, as they stand there.
pub fn operations() -> Vec<(String, String)> {
    let paths = DOCUMENT["paths"].as_object().expect("paths");
    let of = |(path, methods): (&String, &Value)| {
        let methods = methods.as_object().expect("methods").keys();
        let methods: Vec<_> = methods
            .map(|method| (method.clone(), path.clone()))
            .collect();
        methods
    };
    paths.iter().flat_map(of).collect()
}

/// Checks an answer to a request that the document knows.
///
/// # Errors
/// What is wrong with it.
pub fn validate(
    method: &str,
    target: &str,
    status: u16,
    content_type: &str,
    body: &str,
) -> Result<(), String> {
    let path = target.split('?').next().unwrap_or_default();
    let method = method.to_lowercase();
    let (template, operation) =
        operation(&method, path).ok_or_else(|| format!("the document has no {method} {path}"))?;
    let mut response = &operation["responses"][status.to_string()];
    if let Some(reference) = response["$ref"].as_str() {
        response = DOCUMENT.pointer(&reference[1..]).ok_or("a reference")?;
    }
    let note = || {
        let mut seen = SEEN.lock().expect("not poisoned");
        *seen
            .entry((method.clone(), template.clone(), status))
            .or_default() += 1;
    };
    if body.is_empty() && response.is_object() && response["content"].is_null() {
        note();
        return Ok(());
    }
    let content = &response["content"][content_type];
    if content.is_null() {
        return Err(format!(
            "{method} {template} has no answer {status} of type {content_type}: {body}"
        ));
    }
    let value: Value =
        serde_json::from_str(body).map_err(|error| format!("not JSON: {error}: {body}"))?;
    let validator = validator(&content["schema"]);
    let problems: Vec<_> = validator
        .iter_errors(&value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    if !problems.is_empty() {
        let problems = problems.join("; ");
        return Err(format!("{method} {template} {status}: {problems}: {body}"));
    }
    note();
    Ok(())
}

/// Checks the body of a webhook of ours.
///
/// # Errors
/// What is wrong with it.
pub fn validate_told(body: &Value) -> Result<(), String> {
    let kind = body["type"].as_str().ok_or("no type")?;
    let schema =
        &DOCUMENT["webhooks"][kind]["post"]["requestBody"]["content"]["application/json"]["schema"];
    if schema.is_null() {
        return Err(format!("the document has no webhook {kind}"));
    }
    let problems: Vec<_> = validator(schema)
        .iter_errors(body)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    match problems.is_empty() {
        true => Ok(()),
        false => Err(format!("{kind}: {}", problems.join("; "))),
    }
}

/// Checks an error of what the document does not know: of another path, or before there is one.
///
/// # Errors
/// What is wrong with it.
pub fn validate_problem(body: &str) -> Result<(), String> {
    let value: Value = serde_json::from_str(body).map_err(|error| format!("{error}: {body}"))?;
    let problem = validator(&DOCUMENT["components"]["schemas"]["Problem"]);
    match problem.iter_errors(&value).next() {
        None => Ok(()),
        Some(error) => Err(format!("{}: {error}: {body}", error.instance_path())),
    }
}

/// Statuses that were seen of an operation.
pub fn seen(method: &str, template: &str) -> Vec<u16> {
    let seen = SEEN.lock().expect("not poisoned");
    seen.keys()
        .filter(|(own, path, _)| own == method && path == template)
        .map(|(_, _, status)| *status)
        .collect()
}

fn operation(method: &str, path: &str) -> Option<(String, Value)> {
    let paths = DOCUMENT["paths"].as_object().expect("paths");
    let fits = |template: &str| {
        let (mut own, mut given) = (template.split('/'), path.split('/'));
        loop {
            match (own.next(), given.next()) {
                (None, None) => return true,
                (Some(own), Some(given)) if own == given || own.starts_with('{') => (),
                _ => return false,
            }
        }
    };
    // A path without names in it is the better fit.
    let mut templates: Vec<&String> = paths.keys().filter(|template| fits(template)).collect();
    templates.sort_by_key(|template| template.matches('{').count());
    let template = templates.first()?;
    let operation = paths[*template].get(method)?;
    Some(((*template).clone(), operation.clone()))
}

fn validator(schema: &Value) -> jsonschema::Validator {
    let mut schemas = DOCUMENT["components"]["schemas"].clone();
    let definitions = schemas.clone();
    for schema in schemas.as_object_mut().expect("an object").values_mut() {
        close(schema, &definitions);
    }
    let mut schema = schema.clone();
    close(&mut schema, &definitions);
    schema["components"] = json!({ "schemas": schemas });
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .should_validate_formats(true)
        .with_format("uuid", |text| uuid::Uuid::try_parse(text).is_ok())
        .build(&schema)
        .expect("the document's own schema")
}
