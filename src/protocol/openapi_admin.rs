//! The Admin API's part of the OpenAPI document.

use super::admin::{AdminRequest, ENDPOINTS};
use super::asyncapi::simplify;
use super::export::AdminArchive;
use super::http::{Endpoint, Fields};
use super::openapi::{operation_id, parameters, problem_refs, request_body};
use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The name of the scheme: another token than those of users.
pub(super) const SCHEME: &str = "admin";

/// What the scheme is.
pub(super) fn scheme() -> Value {
    json!({
        "type": "http",
        "scheme": "bearer",
        "description": "A service token of `CAFFIS_ADMIN_TOKEN`. Without that setting there is no Admin API (404).",
    })
}

/// Adds the operations.
pub(super) fn add(
    paths: &mut Map<String, Value>,
    fields: &BTreeMap<&'static str, Fields>,
    answers: &mut SchemaGenerator,
) {
    let replies: BTreeMap<&str, Value> = AdminRequest::answers(answers)
        .into_iter()
        .map(|(name, schema)| (name, schema.to_value()))
        .collect();
    for endpoint in ENDPOINTS {
        let mut reply = replies[endpoint.request].clone();
        simplify(&mut reply);
        let operation = operation(endpoint, &fields[endpoint.request], &reply);
        let path = paths
            .entry(endpoint.path.to_owned())
            .or_insert_with(|| json!({}));
        path[endpoint.method.name().to_lowercase()] = operation;
    }
}

fn operation(endpoint: &Endpoint, fields: &Fields, reply: &Value) -> Value {
    let mut responses = problem_refs();
    let media_type = match reply["contentMediaType"].as_str() {
        Some(AdminArchive::MEDIA_TYPE) => AdminArchive::MEDIA_TYPE,
        _ => "application/json",
    };
    responses.insert(
        "200".to_owned(),
        json!({
            "description": "Done.",
            "content": {media_type: {"schema": reply}},
        }),
    );
    let description = AdminRequest::description(endpoint.request);
    let summary = description.split(['.', ':']).next().unwrap_or_default();
    let mut operation = json!({
        "operationId": operation_id(endpoint),
        "summary": format!("{summary}."),
        "description": description,
        "tags": ["admin"],
        "security": [{SCHEME: []}],
        "parameters": parameters(endpoint, fields),
        "responses": responses,
    });
    if let Some(body) = request_body(endpoint, fields) {
        operation["requestBody"] = body;
    }
    operation
}
