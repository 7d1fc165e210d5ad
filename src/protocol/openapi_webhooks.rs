//! The webhooks' part of the OpenAPI document.

use super::hooks::{HookKind, MessageReported, PushCancelled, PushRequired, RoomCreated};
use super::http::BODY_BYTES_MAX;
use super::openapi::problem_refs;
use super::webhook::{MAIN_APP_EVENTS, MAP_EVENTS, WebhookApplied, WebhookInvited, WebhookSource};
use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

/// Where webhooks are taken, and whose.
pub const WEBHOOKS: &[(&str, WebhookSource)] = &[
    ("/v1/webhooks/map", WebhookSource::Map),
    ("/v1/webhooks/main-app", WebhookSource::MainApp),
];

/// The name of the scheme: a signature instead of a token.
pub(super) const SCHEME: &str = "webhook";

/// What the scheme is.
pub(super) fn scheme() -> Value {
    json!({
        "type": "apiKey",
        "in": "header",
        "name": "webhook-signature",
        "description": "Standard Webhooks 1.0: `v1,` and the base64 of the HMAC-SHA256 of `id.timestamp.body`, with a \
                        secret of `CAFFIS_WEBHOOK_SECRETS_MAP` or `CAFFIS_WEBHOOK_SECRETS_MAIN_APP`; several, \
                        space-separated.",
    })
}

/// What we tell others: each with its body, by the type's name.
pub(super) fn told(answers: &mut SchemaGenerator) -> Value {
    let mut told = Map::new();
    for kind in HookKind::ALL {
        let (data, summary) = match kind {
            HookKind::PushRequired => (
                answers.subschema_for::<PushRequired<'_>>().to_value(),
                "A user who has no connection is to hear of a message.",
            ),
            HookKind::PushCancelled => (
                answers.subschema_for::<PushCancelled>().to_value(),
                "What was pushed of a room is read by now, or is gone.",
            ),
            HookKind::RoomCreated => (
                answers.subschema_for::<RoomCreated<'_>>().to_value(),
                "There is a new room.",
            ),
            HookKind::MessageReported => (
                answers.subschema_for::<MessageReported>().to_value(),
                "A user reported a message.",
            ),
        };
        let body = json!({
            "type": "object",
            "properties": {
                "type": {"const": kind.name()},
                "timestamp": {
                    "type": "string", "format": "date-time",
                    "description": "When it came about; the same with every attempt.",
                },
                "data": data,
            },
            "required": ["type", "timestamp", "data"],
        });
        let operation = json!({
            "operationId": format!("told_{}", kind.name().replace('.', "_")),
            "summary": summary,
            "description": "Posted to `CAFFIS_WEBHOOK_OUT_URL`, signed as Standard Webhooks 1.0 say, again and \
                            again until it is answered 2xx. See docs/integrating.md.",
            "tags": ["webhooks"],
            "security": [{SCHEME: []}],
            "requestBody": {
                "required": true,
                "content": {"application/json": {"schema": body}},
            },
            "responses": {
                "2XX": {"description": "It is taken."},
                "410": {"description": "Nothing is sent any more, until an operator says so."},
                "default": {"description": "It is sent again."},
            },
        });
        told.insert(kind.name().to_owned(), json!({"post": operation}));
    }
    Value::Object(told)
}

/// Adds the operations.
pub(super) fn add(paths: &mut Map<String, Value>, answers: &mut SchemaGenerator) {
    for (path, source) in WEBHOOKS {
        let (answer, events, description) = match source {
            WebhookSource::Map => (
                answers.subschema_for::<WebhookInvited>().to_value(),
                MAP_EVENTS,
                "Takes an event of the Map Service. An invite that was accepted makes one room for each `invite_id`, \
                 and tells both users. Events of other types do nothing.",
            ),
            WebhookSource::MainApp => (
                answers.subschema_for::<WebhookApplied>().to_value(),
                MAIN_APP_EVENTS,
                "Takes an event of the Main App about an account. `data` has `user_id` and a `version` that rises with \
                 each event of the user; an older one changes nothing. Events of other types do nothing.",
            ),
        };
        paths.insert(
            (*path).to_owned(),
            json!({"post": operation(*source, &answer, events, description)}),
        );
    }
}

fn operation(source: WebhookSource, answer: &Value, events: &[&str], description: &str) -> Value {
    let mut responses = problem_refs();
    responses.insert(
        "200".to_owned(),
        json!({
            "description": "It is done, or was before.",
            "content": {"application/json": {"schema": answer}},
        }),
    );
    let header = |name: &str, description: &str, schema: Value| {
        json!({
            "in": "header", "name": name, "required": true, "description": description,
            "schema": schema,
        })
    };
    let text = |max: usize| json!({"type": "string", "minLength": 1, "maxLength": max});
    let body = json!({
        "type": "object",
        "properties": {
            "type": {"type": "string", "description": format!("One of {}.", events.join(", "))},
            "timestamp": {"type": "string", "description": "When it happened, RFC 3339 in UTC."},
            "data": {"type": "object", "description": "See docs/integrating.md."},
        },
        "required": ["type", "data"],
    });
    json!({
        "operationId": format!("webhooks_{}", source.name().replace('-', "_")),
        "summary": "Takes an event.",
        "description": description,
        "tags": ["webhooks"],
        "security": [{SCHEME: []}],
        "parameters": [
            header("webhook-id", "The event's id, the same for every attempt.", text(256)),
            header("webhook-timestamp", "When this attempt was signed, s since 1970.", text(12)),
        ],
        "requestBody": {
            "required": true,
            "description": format!("At most {BODY_BYTES_MAX} bytes."),
            "content": {"application/json": {"schema": body}},
        },
        "responses": responses,
    })
}
