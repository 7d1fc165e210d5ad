//! The OpenAPI 3.1 document of the HTTP API, made from the same types as the AsyncAPI document and from
//! the table that the routes are made of.
//!
//! Served at `/v1/openapi.json`, committed as docs/openapi.json, and what every answer of the HTTP tests is
//! validated against.

use super::asyncapi::{answers_generator, reply_schema, simplify};
use super::error::ErrorCode;
use super::http::{
    self, BODY_BYTES_MAX, ENDPOINTS, Endpoint, Fields, KEY_BYTES_MAX, field_of_path, path_names,
};
use super::ids::{JSON_INTEGER_MAX, UserId};
use super::request::Command;
use super::time::UnixMs;
use super::{openapi_admin, openapi_webhooks};
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The body of an error (RFC 9457).
#[derive(Debug, Serialize, JsonSchema)]
pub struct Problem {
    /// "about:blank": the code says which problem it is.
    pub r#type: &'static str,
    /// The status in words.
    pub title: String,
    /// The status.
    pub status: u16,
    /// For the developer of the client.
    pub detail: String,
    /// Why, as on a connection.
    pub code: ErrorCode,
    /// Whether the same request can succeed later.
    pub temporary: bool,
    /// When to try again, ms from now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// Who a token names.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Me {
    /// The account.
    pub user_id: UserId,
    /// The name that the token tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The picture that the token tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub picture: Option<String>,
    /// When the token ends.
    pub token_expires_at: UnixMs,
}

/// Where [`Me`] is told: the one answer that says nothing but what the token does.
pub const ME_PATH: &str = "/v1/users/me";

const DESCRIPTION: &str = "\
The requests of Caffis Chat for clients without a socket: the same requests, rules, limits and codes as over \
the WebSocket protocol, which docs/asyncapi.json describes. What is done here is told to everybody there. \
Every request carries `Authorization: Bearer <token>`. Errors are problem+json (RFC 9457) with the \
protocol's `code`. Receivers ignore fields that they do not know.";

/// The whole document. Its keys are sorted, so that it is the same text every time.
pub fn document() -> Value {
    let (fields, mut schemas) = http::fields();
    let mut answers = answers_generator();
    let mut paths: Map<String, Value> = Map::new();
    for endpoint in ENDPOINTS {
        let operation = operation(endpoint, &fields, &mut answers);
        let path = paths
            .entry(endpoint.path.to_owned())
            .or_insert_with(|| json!({}));
        path[endpoint.method.name().to_lowercase()] = operation;
    }
    openapi_admin::add(&mut paths, &fields, &mut answers);
    openapi_webhooks::add(&mut paths, &mut answers);
    let told = openapi_webhooks::told(&mut answers);
    let me = answers.subschema_for::<Me>().to_value();
    paths.insert(ME_PATH.to_owned(), json!({"get": me_operation(&me)}));
    answers.subschema_for::<Problem>();
    for (name, schema) in answers.take_definitions(true) {
        let other = schemas.insert(name.clone(), schema.clone());
        assert!(
            other.is_none_or(|other| other == schema),
            "{name} is read and written differently, so it needs two names"
        );
    }
    // What no endpoint refers to is of the other protocol.
    let paths = Value::Object(paths);
    let schemas = referred_to(&json!([paths, told]), &schemas);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Caffis Chat",
            "version": "1.0.0",
            "description": DESCRIPTION,
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "The server that gave this document."}],
        "security": [{"bearer": []}],
        "tags": [
            {"name": "rooms", "description": "Rooms and their members."},
            {"name": "messages", "description": "What is said in a room."},
            {"name": "users", "description": "The user's own account."},
            {"name": "admin", "description": "For those who run the service, with a service token."},
            {"name": "webhooks", "description": "What other services tell, signed."},
        ],
        "paths": paths,
        "webhooks": told,
        "components": {
            "schemas": schemas,
            "responses": problem_responses(),
            "headers": rate_headers(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                (openapi_admin::SCHEME): openapi_admin::scheme(),
                (openapi_webhooks::SCHEME): openapi_webhooks::scheme(),
            },
        },
        "x-error-codes": ErrorCode::ALL
            .iter()
            .map(|code| json!({
                "code": code.name(),
                "status": http::status(*code),
                "temporary": code.temporary(),
            }))
            .collect::<Vec<_>>(),
    })
}

/// The document as text, with a line's end.
pub fn document_text() -> String {
    format!("{:#}\n", document())
}

fn operation(
    endpoint: &Endpoint,
    fields: &BTreeMap<&'static str, Fields>,
    answers: &mut SchemaGenerator,
) -> Value {
    let fields = &fields[endpoint.request];
    let mut reply = match endpoint.reply() {
        "" => Value::Null,
        name => reply_schema(name, answers).to_value(),
    };
    simplify(&mut reply);
    let answer = |text: &str| {
        json!({
            "description": text,
            "headers": rate_header_refs(),
            "content": {"application/json": {"schema": reply}},
        })
    };
    let mut responses = problem_refs();
    if reply.is_null() {
        let taken = "Taken, and soon so. What is lost on the way is said again with the next one.";
        responses.insert(
            "202".to_owned(),
            json!({"description": taken, "headers": rate_header_refs()}),
        );
    } else if endpoint.made_if.is_some() {
        responses.insert("201".to_owned(), answer("Made."));
        responses.insert("200".to_owned(), answer("It was there already."));
    } else {
        responses.insert("200".to_owned(), answer("Done."));
    }
    let mut operation = json!({
        "operationId": operation_id(endpoint),
        "summary": Command::description(endpoint.request),
        "description": format!("The request `{}`.", endpoint.request),
        "tags": [tag(endpoint.path)],
        "parameters": parameters(endpoint, fields),
        "responses": responses,
    });
    if let Some(body) = request_body(endpoint, fields) {
        operation["requestBody"] = body;
    }
    operation
}

fn tag(path: &str) -> &'static str {
    match path {
        path if path.contains("/messages") || path.contains("/search") => "messages",
        path if path.contains("/users/me") => "users",
        _ => "rooms",
    }
}

pub(super) fn operation_id(endpoint: &Endpoint) -> String {
    endpoint.request.replace('.', "_")
}

/// Fields that are in the path.
fn in_path(endpoint: &Endpoint, fields: &Fields) -> Vec<&'static str> {
    path_names(endpoint.path)
        .filter_map(|name| field_of_path(name, fields))
        .map(|(field, _)| field)
        .collect()
}

pub(super) fn parameters(endpoint: &Endpoint, fields: &Fields) -> Value {
    let mut parameters = Vec::new();
    for name in path_names(endpoint.path) {
        let Some((field, is_list)) = field_of_path(name, fields) else {
            continue;
        };
        let mut schema = match is_list {
            true => fields.schemas[field]["items"].clone(),
            false => fields.schemas[field].clone(),
        };
        let description = describe(&mut schema);
        if name == "emoji" {
            // An empty one would be another path.
            schema["minLength"] = 1.into();
        }
        parameters.push(parameter("path", name, &description, true, &schema));
    }
    if !endpoint.method.has_body() {
        let path = in_path(endpoint, fields);
        let others = (fields.schemas.iter()).filter(|(name, _)| !path.contains(&name.as_str()));
        for (name, schema) in others {
            let mut schema = without_null(schema);
            let description = describe(&mut schema);
            let required = fields.required.contains(name);
            parameters.push(parameter("query", name, &description, required, &schema));
        }
    }
    if let Some(field) = endpoint.key {
        let schema = json!({
            "type": "string", "minLength": 1, "maxLength": KEY_BYTES_MAX,
            "pattern": "^[!#-\\[\\]-~]+$",
        });
        let description = format!(
            "Stands for `{field}` where the body has none: a retry with the same key is the same request, \
             for good and on every node. A UUID is taken as it is."
        );
        let name = "Idempotency-Key";
        parameters.push(parameter("header", name, &description, false, &schema));
    }
    Value::Array(parameters)
}

fn parameter(place: &str, name: &str, description: &str, required: bool, schema: &Value) -> Value {
    json!({
        "in": place, "name": name, "description": description,
        "required": required, "schema": schema,
    })
}

/// Takes the description out of a schema.
fn describe(schema: &mut Value) -> String {
    let description = schema
        .as_object_mut()
        .and_then(|object| object.remove("description"));
    match description {
        Some(Value::String(text)) => text,
        _ => String::new(),
    }
}

/// A query has no null: what is not given is left out.
fn without_null(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(object) = schema.as_object_mut() {
        object.remove("default");
        if let Some(Value::Array(types)) = object.get_mut("type") {
            types.retain(|name| name != "null");
            if let [only] = types.as_slice() {
                let only = only.clone();
                object.insert("type".to_owned(), only);
            }
        }
        if let Some(Value::Array(any)) = object.get_mut("anyOf") {
            any.retain(|one| one["type"] != "null");
            if let [Value::Object(only)] = any.as_slice() {
                let only = only.clone();
                object.remove("anyOf");
                object.extend(only);
            }
        }
    }
    schema
}

pub(super) fn request_body(endpoint: &Endpoint, fields: &Fields) -> Option<Value> {
    if !endpoint.method.has_body() {
        return None;
    }
    let path = in_path(endpoint, fields);
    let properties: Map<String, Value> = (fields.schemas.iter())
        .filter(|(name, _)| !path.contains(&name.as_str()))
        .map(|(name, schema)| (name.clone(), schema.clone()))
        .collect();
    if properties.is_empty() {
        return None;
    }
    let required: Vec<&String> = (fields.required.iter())
        .filter(|name| !path.contains(&name.as_str()))
        .filter(|name| endpoint.key != Some(name.as_str()))
        .collect();
    let mut schema = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    Some(json!({
        "required": !required.is_empty(),
        "description": format!("At most {BODY_BYTES_MAX} bytes."),
        "content": {"application/json": {"schema": schema}},
    }))
}

fn me_operation(me: &Value) -> Value {
    let mut responses = problem_refs();
    responses.insert(
        "200".to_owned(),
        json!({
            "description": "Whom the token names.",
            "content": {"application/json": {"schema": me}},
        }),
    );
    json!({
        "operationId": "users_me",
        "summary": "Whom the token names.",
        "tags": ["users"],
        "parameters": [],
        "responses": responses,
    })
}

/// The statuses of errors, each with the codes it goes with.
const PROBLEMS: &[(u16, &str)] = &[
    (400, "Not of the request's shape, or a value out of range."),
    (401, "No valid token."),
    (403, "Known, but not allowed to this user."),
    (404, "Nothing has this id, or nothing is here."),
    (405, "Not with this method."),
    (406, "Answers are JSON."),
    (408, "The request did not end in time."),
    (
        409,
        "The same key with another body, or another revision than expected.",
    ),
    (410, "It was there and was removed."),
    (413, "Above a limit."),
    (415, "The body is not JSON."),
    (429, "More often than the limits allow."),
    (500, "Our own fault; says nothing about the outcome."),
    (
        503,
        "Too much to do, or the store does not answer; says nothing about the outcome.",
    ),
];

fn problem_key(status: u16) -> String {
    format!("problem{status}")
}

pub(super) fn problem_refs() -> Map<String, Value> {
    PROBLEMS
        .iter()
        .map(|(status, _)| {
            let path = format!("#/components/responses/{}", problem_key(*status));
            (status.to_string(), json!({"$ref": path}))
        })
        .collect()
}

fn problem_responses() -> Map<String, Value> {
    let retry = json!({
        "description": "When to try again, s from now.",
        "schema": {"type": "integer", "minimum": 1},
    });
    PROBLEMS
        .iter()
        .map(|(status, text)| {
            let content = json!({"application/problem+json": {
                "schema": {"$ref": "#/components/schemas/Problem"},
            }});
            let mut response = json!({"description": text, "content": content});
            match status {
                401 => {
                    response["headers"] = json!({"WWW-Authenticate": {
                        "required": true,
                        "description": "`Bearer` (RFC 6750).",
                        "schema": {"type": "string"},
                    }});
                }
                429 | 503 => response["headers"] = json!({"Retry-After": retry}),
                _ => (),
            }
            (problem_key(*status), response)
        })
        .collect()
}

const RATE_HEADERS: &[(&str, &str)] = &[
    (
        "RateLimit-Limit",
        "How many such requests the user may make in 10 s, over all connections and HTTP together.",
    ),
    ("RateLimit-Remaining", "How many more now."),
    ("RateLimit-Reset", "When all are there again, s from now."),
];

fn rate_headers() -> Map<String, Value> {
    RATE_HEADERS
        .iter()
        .map(|(name, text)| {
            let schema = json!({"type": "integer", "minimum": 0, "maximum": JSON_INTEGER_MAX});
            (
                (*name).to_owned(),
                json!({"description": text, "schema": schema}),
            )
        })
        .collect()
}

fn rate_header_refs() -> Map<String, Value> {
    RATE_HEADERS
        .iter()
        .map(|(name, _)| {
            let path = format!("#/components/headers/{name}");
            ((*name).to_owned(), json!({"$ref": path}))
        })
        .collect()
}

/// The schemas that this refers to, directly or through others.
fn referred_to(from: &Value, schemas: &Map<String, Value>) -> Map<String, Value> {
    let mut found = Map::new();
    let mut queue = vec![
        from.clone(),
        json!({"$ref": "#/components/schemas/Problem"}),
    ];
    while let Some(value) = queue.pop() {
        match value {
            Value::Object(object) => {
                let name = object
                    .get("$ref")
                    .and_then(Value::as_str)
                    .and_then(|path| path.strip_prefix("#/components/schemas/"));
                if let Some(name) = name
                    && let Some(schema) = schemas.get(name)
                    && found.insert(name.to_owned(), schema.clone()).is_none()
                {
                    queue.push(schema.clone());
                }
                queue.extend(object.into_iter().map(|(_, value)| value));
            }
            Value::Array(items) => queue.extend(items),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_referred_to_is_there_and_nothing_else() {
        let document = document();
        let text = document.to_string();
        let schemas = document["components"]["schemas"].as_object();
        for name in schemas.expect("schemas").keys() {
            let path = format!("\"#/components/schemas/{name}\"");
            assert!(text.contains(&path), "{name} is not used");
        }
        let mut found = 0;
        for part in text.split("\"$ref\":\"#/").skip(1) {
            let path = part.split('"').next().expect("an end");
            let pointer = format!("/{path}");
            assert!(document.pointer(&pointer).is_some(), "{path}");
            found += 1;
        }
        assert!(found > 50, "{found}");
    }

    #[test]
    fn every_status_of_a_code_is_described() {
        for code in ErrorCode::ALL {
            let status = http::status(*code);
            assert!(PROBLEMS.iter().any(|(own, _)| *own == status), "{code:?}");
        }
    }
}
