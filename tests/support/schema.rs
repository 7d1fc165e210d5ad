//! Validates frames against the AsyncAPI document. Every test that sends or receives frames runs
//! them through here, so that the document, the code and the clients cannot drift apart.
//!
//! Stricter than the document in one respect: a field that the document does not know is refused,
//! while a receiver in the field ignores it.
#![allow(dead_code, reason = "each test binary uses its part")]

use caffis_chat::protocol::asyncapi;
use caffis_chat::protocol::request::Command;
use jsonschema::{Draft, Validator};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The message that a frame is, as the document calls it: `request.message.send`, `reply.Sent`.
pub type MessageKey = &'static str;

static VALIDATORS: LazyLock<BTreeMap<String, Validator>> = LazyLock::new(compile);

/// Checks a frame that a client sends.
///
/// # Errors
/// What is wrong with it.
pub fn validate_client_frame(frame: &str) -> Result<MessageKey, String> {
    let value = parse(frame)?;
    let kind = value["type"].as_str().unwrap_or_default();
    validate_as(&format!("request.{kind}"), &value)
}

/// Checks a frame that the server sends: it must be exactly one message of the document.
///
/// # Errors
/// What is wrong with it.
pub fn validate_server_frame(frame: &str) -> Result<MessageKey, String> {
    let value = parse(frame)?;
    match value["type"].as_str().unwrap_or_default() {
        "error" => validate_as("reply.error", &value),
        "ready" => validate_as("reply.Ready", &value),
        "ack" => {
            let fitting: Vec<_> = VALIDATORS
                .iter()
                .filter(|(key, validator)| key.starts_with("reply.") && validator.is_valid(&value))
                .map(|(key, _)| key.as_str())
                .collect();
            match fitting[..] {
                [key] => Ok(key),
                _ => Err(format!("is {fitting:?} instead of one reply: {value}")),
            }
        }
        kind => validate_as(&format!("event.{kind}"), &value),
    }
}

/// Checks a frame that answers a request of this type: its own reply, or an error.
///
/// # Errors
/// What is wrong with it.
pub fn validate_reply(request_type: &str, frame: &str) -> Result<MessageKey, String> {
    let value = parse(frame)?;
    if value["type"] == "error" {
        return validate_as("reply.error", &value);
    }
    let reply = Command::NAMES
        .iter()
        .find(|(name, _)| *name == request_type)
        .map(|(_, reply)| *reply);
    match reply {
        None => Err(format!("there is no request {request_type:?}")),
        Some("") => Err(format!("{request_type} has no reply, but got {value}")),
        Some(reply) => validate_as(&format!("reply.{reply}"), &value),
    }
}

/// All messages of the document that a frame is, whoever sends it.
pub fn all_fitting(frame: &str) -> Vec<MessageKey> {
    let value = parse(frame).expect("JSON");
    VALIDATORS
        .iter()
        .filter(|(_, validator)| validator.is_valid(&value))
        .map(|(key, _)| key.as_str())
        .collect()
}

/// The keys of all messages of the document.
pub fn all_keys() -> Vec<MessageKey> {
    VALIDATORS.keys().map(String::as_str).collect()
}

fn parse(frame: &str) -> Result<Value, String> {
    serde_json::from_str(frame).map_err(|error| format!("not JSON: {error}: {frame}"))
}

fn validate_as(key: &str, value: &Value) -> Result<MessageKey, String> {
    let Some((key, validator)) = VALIDATORS.get_key_value(key) else {
        return Err(format!("the document has no message {key:?}: {value}"));
    };
    let problems: Vec<_> = validator
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    if problems.is_empty() {
        Ok(key)
    } else {
        Err(format!("no {key}: {}: {value}", problems.join("; ")))
    }
}

fn compile() -> BTreeMap<String, Validator> {
    let document = asyncapi::document();
    let mut schemas = document["components"]["schemas"].clone();
    let definitions = schemas.clone();
    for schema in schemas.as_object_mut().expect("an object").values_mut() {
        close(schema, &definitions);
    }
    let compile = |payload: &Value| {
        let mut payload = payload.clone();
        close(&mut payload, &definitions);
        payload["components"] = serde_json::json!({ "schemas": schemas });
        jsonschema::options()
            .with_draft(Draft::Draft7)
            .should_validate_formats(true)
            .with_format("uuid", |text| uuid::Uuid::try_parse(text).is_ok())
            .build(&payload)
            .expect("the document's own schema")
    };
    document["components"]["messages"]
        .as_object()
        .expect("an object")
        .iter()
        .map(|(key, message)| (key.clone(), compile(&message["payload"])))
        .collect()
}

/// Refuses unknown fields in every object that names its fields.
pub fn close(schema: &mut Value, definitions: &Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(|item| close(item, definitions)),
        Value::Object(object) => {
            if object.get("properties").is_some_and(is_properties) {
                inline_base(object, definitions);
                object
                    .entry("additionalProperties")
                    .or_insert(Value::Bool(false));
            }
            for (_, inner) in object.iter_mut() {
                close(inner, definitions);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
    }
}

/// A keyword, and not a field that happens to be called so: its values are schemas.
fn is_properties(value: &Value) -> bool {
    value.as_object().is_some_and(|fields| {
        fields
            .values()
            .all(|field| field.is_object() || field.is_boolean())
    })
}

/// An object that has the fields of another one and its own (`allOf` or `$ref`, and `properties`): becomes
/// one object, because each half alone would refuse the fields of the other.
fn inline_base(object: &mut Map<String, Value>, definitions: &Value) {
    let bases = match (object.remove("allOf"), object.remove("$ref")) {
        (Some(Value::Array(bases)), None) => bases,
        (None, Some(base)) => vec![serde_json::json!({"$ref": base})],
        _ => return,
    };
    for base in bases {
        let path = base["$ref"].as_str().expect("a base is a reference");
        let name = path.rsplit('/').next().expect("a path has an end");
        let base = &definitions[name];
        let fields = base["properties"].as_object().expect("a base is an object");
        let own = object["properties"].as_object_mut().expect("an object");
        for (field, schema) in fields {
            own.insert(field.clone(), schema.clone());
        }
        let mut required: Vec<_> = object["required"].as_array().cloned().unwrap_or_default();
        required.extend(base["required"].as_array().cloned().unwrap_or_default());
        object.insert("required".to_owned(), Value::Array(required));
    }
}
