//! The AsyncAPI 3 document of the WebSocket protocol, made from the types that are parsed and
//! written, so that it cannot tell anything else than the code does.
//!
//! Served at `/v1/asyncapi.json`, committed as docs/asyncapi.json, and what every frame of every
//! test is validated against (tests/support/schema.rs).

use super::block::{BlockSet, BlocksListed};
use super::error::{CloseCode, ErrorCode};
use super::event::{DURABLE_NAMES, Notice, RoomEventBody, RoomNotice};
use super::ids::{JSON_INTEGER_MAX, RoomId, Seq};
use super::presence::{PresenceIs, PresenceSnapshot};
use super::reply::{
    Changed, ErrorBody, History, MembersListed, MessageChanged, Ready, Refreshed, RoomCreated,
    RoomGot, RoomsListed, Sent,
};
use super::request::Command;
use super::search::SearchHits;
use super::time::UnixMs;
use super::upload::{AttachmentUrlsTold, UploadTicket};
use crate::limits;
use schemars::generate::{Contract, SchemaGenerator, SchemaSettings};
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

const SCHEMAS: &str = "#/components/schemas/";

/// The whole document. Its keys are sorted, so that it is the same text every time.
pub fn document() -> Value {
    let mut requests = generator(Contract::Deserialize);
    let mut answers = generator(Contract::Serialize);
    let mut messages = Map::new();
    let mut operations = Map::new();
    for (name, data) in Command::schemas(&mut requests) {
        let data_required = requires_anything(&data, &requests);
        let payload = request_payload(name, data.to_value(), data_required);
        add_message(&mut messages, &request_key(name), name, payload);
        operations.insert(name.to_owned(), operation("receive", &request_key(name)));
    }
    for (name, reply) in Command::NAMES {
        if reply.is_empty() {
            continue;
        }
        let payload = reply_payload(reply, reply_schema(reply, &mut answers).to_value());
        add_message(&mut messages, &reply_key(reply), reply, payload);
        let replies = [reference(&reply_key(reply)), reference(ERROR_KEY)];
        operations[*name]["reply"] = json!({"channel": CHANNEL_REF.clone(), "messages": replies});
    }
    add_message(
        &mut messages,
        ERROR_KEY,
        "error",
        error_payload(&mut answers),
    );
    for (name, payload) in event_payloads(&mut answers) {
        add_message(&mut messages, &event_key(&name), &name, payload);
        operations.insert(
            format!("event.{name}"),
            operation("send", &event_key(&name)),
        );
    }
    let channel_messages: Map<String, Value> = messages
        .keys()
        .map(|key| {
            (
                key.clone(),
                json!({"$ref": format!("#/components/messages/{key}")}),
            )
        })
        .collect();
    let mut schemas = requests.take_definitions(true);
    for (name, schema) in answers.take_definitions(true) {
        let other = schemas.insert(name.clone(), schema.clone());
        assert!(
            other.is_none_or(|other| other == schema),
            "{name} is read and written differently, so it needs two names"
        );
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Caffis Chat",
            "version": "1.0.0",
            "description": DESCRIPTION,
            "license": {"name": "MIT OR Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "development": {"host": "127.0.0.1:8080", "protocol": "ws"},
        },
        "channels": {
            "chat": {
                "address": "/v1/ws",
                "description": "WebSocket with the subprotocol caffis.chat.v1. Who offers only other versions of it is closed with 4009, who offers none is answered 400.",
                "messages": channel_messages,
                "bindings": {"ws": {"method": "GET", "bindingVersion": "0.1.0"}},
            },
        },
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas},
        "x-close-codes": close_codes(),
        "x-error-codes": error_codes(),
    })
}

/// The document as text, with a line's end.
pub fn document_text() -> String {
    format!("{:#}\n", document())
}

const DESCRIPTION: &str = "\
The WebSocket protocol of Caffis Chat. The first frame of a client is `auth`; its answer `ready` \
tells the limits in force and the rooms of the user. A request with an `id` is answered by exactly \
one `ack`, `ready` or `error` with that `id`. Every durable event of a room has the room's next \
`seq`, without a gap. Receivers ignore fields that they do not know; an unknown `type` from a \
client is the error `unknown_type`, one from the server is to be ignored. How a connection ends \
is told by its close code, listed in `x-close-codes`.";

const ERROR_KEY: &str = "reply.error";

fn request_key(name: &str) -> String {
    format!("request.{name}")
}

fn reply_key(schema: &str) -> String {
    format!("reply.{schema}")
}

fn event_key(name: &str) -> String {
    format!("event.{name}")
}

static CHANNEL_REF: std::sync::LazyLock<Value> =
    std::sync::LazyLock::new(|| json!({"$ref": "#/channels/chat"}));

fn reference(key: &str) -> Value {
    json!({"$ref": format!("#/channels/chat/messages/{key}")})
}

fn operation(action: &str, key: &str) -> Value {
    json!({"action": action, "channel": CHANNEL_REF.clone(), "messages": [reference(key)]})
}

fn add_message(messages: &mut Map<String, Value>, key: &str, name: &str, mut payload: Value) {
    simplify(&mut payload);
    messages.insert(key.to_owned(), json!({"name": name, "payload": payload}));
}

fn generator(contract: Contract) -> SchemaGenerator {
    generator_of(SchemaSettings::draft07(), contract)
}

/// Schemas of what is read, as OpenAPI 3.1 wants them.
pub(super) fn requests_generator() -> SchemaGenerator {
    generator_of(SchemaSettings::draft2020_12(), Contract::Deserialize)
}

/// Schemas of what is written, as OpenAPI 3.1 wants them.
pub(super) fn answers_generator() -> SchemaGenerator {
    generator_of(SchemaSettings::draft2020_12(), Contract::Serialize)
}

fn generator_of(settings: SchemaSettings, contract: Contract) -> SchemaGenerator {
    let mut settings = settings
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .with_transform(Tidy);
    settings.contract = contract;
    settings.into_generator()
}

/// `id` of a request: null is the same as none.
fn optional_id() -> Value {
    json!({"type": ["integer", "null"], "minimum": 0, "maximum": JSON_INTEGER_MAX})
}

fn id() -> Value {
    json!({"type": "integer", "minimum": 0, "maximum": JSON_INTEGER_MAX})
}

fn request_payload(name: &str, data: Value, data_required: bool) -> Value {
    let required: &[&str] = if data_required {
        &["type", "data"]
    } else {
        &["type"]
    };
    json!({
        "type": "object",
        "properties": {"id": optional_id(), "type": {"const": name}, "data": data},
        "required": required,
    })
}

fn reply_payload(schema: &str, data: Value) -> Value {
    let kind = if schema == "Ready" { "ready" } else { "ack" };
    json!({
        "type": "object",
        "properties": {"id": id(), "type": {"const": kind}, "data": data},
        "required": ["id", "type", "data"],
    })
}

fn error_payload(generator: &mut SchemaGenerator) -> Value {
    let error = generator.subschema_for::<ErrorBody<'static>>();
    json!({
        "type": "object",
        "properties": {"id": optional_id(), "type": {"const": "error"}, "error": error},
        "required": ["id", "type", "error"],
    })
}

/// The schema of a reply's data, by the name that [`Command::NAMES`] gives it.
pub(super) fn reply_schema(name: &str, generator: &mut SchemaGenerator) -> Schema {
    match name {
        "Ready" => generator.subschema_for::<Ready>(),
        "Refreshed" => generator.subschema_for::<Refreshed>(),
        "RoomsListed" => generator.subschema_for::<RoomsListed>(),
        "RoomCreated" => generator.subschema_for::<RoomCreated>(),
        "RoomGot" => generator.subschema_for::<RoomGot>(),
        "MembersListed" => generator.subschema_for::<MembersListed>(),
        "Changed" => generator.subschema_for::<Changed>(),
        "MessageChanged" => generator.subschema_for::<MessageChanged>(),
        "Sent" => generator.subschema_for::<Sent>(),
        "History" => generator.subschema_for::<History>(),
        "UploadTicket" => generator.subschema_for::<UploadTicket>(),
        "AttachmentUrlsTold" => generator.subschema_for::<AttachmentUrlsTold>(),
        "SearchHits" => generator.subschema_for::<SearchHits>(),
        "BlockSet" => generator.subschema_for::<BlockSet>(),
        "BlocksListed" => generator.subschema_for::<BlocksListed>(),
        "PresenceIs" => generator.subschema_for::<PresenceIs>(),
        "PresenceSnapshot" => generator.subschema_for::<PresenceSnapshot>(),
        unknown => panic!("the reply {unknown} has no schema here"),
    }
}

/// Name and payload of everything that a client is told unasked.
fn event_payloads(generator: &mut SchemaGenerator) -> Vec<(String, Value)> {
    let mut payloads = Vec::new();
    // An untagged enum's schema lists its variants in their order, which is that of the names.
    let body = RoomEventBody::json_schema(generator);
    let data = body.get("anyOf").and_then(Value::as_array).cloned();
    let data = data.expect("an untagged enum is anyOf");
    assert_eq!(data.len(), DURABLE_NAMES.len(), "a name for each event");
    for (name, data) in DURABLE_NAMES.iter().zip(data) {
        let payload = json!({
            "type": "object",
            "properties": {
                "type": {"const": name},
                "room_id": generator.subschema_for::<RoomId>(),
                "seq": generator.subschema_for::<Seq>(),
                "ts": generator.subschema_for::<UnixMs>(),
                "data": data,
            },
            "required": ["type", "room_id", "seq", "ts", "data"],
        });
        payloads.push(((*name).to_owned(), payload));
    }
    let notices = [
        Notice::json_schema(generator),
        RoomNotice::json_schema(generator),
    ];
    let variants = |schema: &Schema| schema.get("oneOf").and_then(Value::as_array).cloned();
    let notices = notices
        .iter()
        .flat_map(|schema| variants(schema).expect("a tagged enum is oneOf"));
    for payload in notices {
        let name = payload["properties"]["type"]["const"].as_str();
        let name = name.expect("a tag").to_owned();
        payloads.push((name, payload));
    }
    let ping = json!({
        "type": "object",
        "properties": {"type": {"const": "ping"}},
        "required": ["type"],
        "description": "Asks for a `pong`; only received frames prove life.",
    });
    payloads.push(("ping".to_owned(), ping));
    payloads
}

/// Whether data of this schema can be left out, which reads as `{}`.
fn requires_anything(schema: &Schema, generator: &SchemaGenerator) -> bool {
    let definition = schema
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|path| path.strip_prefix(SCHEMAS))
        .and_then(|name| generator.definitions().get(name));
    definition
        .unwrap_or_else(|| schema.as_value())
        .get("required")
        .is_some()
}

/// What all schemas have in common: integers are exact everywhere, and the text is for readers
/// who do not have the source.
#[derive(Clone)]
struct Tidy;

impl Transform for Tidy {
    fn transform(&mut self, schema: &mut Schema) {
        if let Some(object) = schema.as_object_mut() {
            tidy(object);
        }
        transform_subschemas(self, schema);
    }
}

pub(super) fn simplify(payload: &mut Value) {
    if let Ok(schema) = <&mut Schema>::try_from(payload) {
        Tidy.transform(schema);
    }
}

fn tidy(object: &mut Map<String, Value>) {
    // The width of an integer in Rust means nothing to a reader; what JSON carries does.
    let wide = object
        .get("format")
        .and_then(Value::as_str)
        .is_some_and(|format| matches!(format, "uint64" | "uint"));
    if wide {
        object.insert("maximum".to_owned(), JSON_INTEGER_MAX.into());
    }
    if object.get("format").and_then(Value::as_str) == Some("uint32") {
        object.insert("maximum".to_owned(), u32::MAX.into());
    }
    let rust_only = object
        .get("format")
        .and_then(Value::as_str)
        .is_some_and(|format| format.starts_with("uint"));
    if rust_only {
        object.remove("format");
    }
    if let Some(Value::String(text)) = object.get_mut("description") {
        for (name, value) in LIMITS_IN_TEXT {
            *text = text.replace(&format!("[`crate::limits::{name}`]"), &value.to_string());
        }
    }
}

/// The bounds that descriptions name.
const LIMITS_IN_TEXT: &[(&str, usize)] = &[
    ("ADMIN_COUNTED_MAX", limits::ADMIN_COUNTED_MAX),
    ("ADMIN_NOTE_CHARS_MAX", limits::ADMIN_NOTE_CHARS_MAX),
    ("ADMIN_PAGE_MAX", limits::ADMIN_PAGE_MAX),
    ("ADMIN_SHOWN_MAX", limits::ADMIN_SHOWN_MAX),
    ("ATTACHMENTS_MAX", limits::ATTACHMENTS_MAX),
    ("BLOCKS_PAGE_MAX", limits::BLOCKS_PAGE_MAX),
    ("DURATION_MS_MAX", limits::DURATION_MS_MAX as usize),
    ("FILE_NAME_CHARS_MAX", limits::FILE_NAME_CHARS_MAX),
    ("FILE_URLS_MAX", limits::FILE_URLS_MAX),
    ("IMAGE_SIDE_MAX", limits::IMAGE_SIDE_MAX as usize),
    ("MENTIONS_MAX", limits::MENTIONS_MAX),
    ("PICTURE_BYTES_MAX", limits::PICTURE_BYTES_MAX),
    ("PLACEHOLDER_BYTES_MAX", limits::PLACEHOLDER_BYTES_MAX),
    ("READY_ROOMS_MAX", limits::READY_ROOMS_MAX),
    (
        "READY_WATERMARK_MEMBERS_MAX",
        limits::READY_WATERMARK_MEMBERS_MAX,
    ),
    ("RECEIPT_ROOMS_MAX", limits::RECEIPT_ROOMS_MAX),
    ("ROOM_MEMBERS_SHOWN_MAX", limits::ROOM_MEMBERS_SHOWN_MAX),
    ("SEARCH_CHARS_MAX", limits::SEARCH_CHARS_MAX),
    ("SEARCH_PAGE_MAX", limits::SEARCH_PAGE_MAX),
    ("SEARCH_TERMS_MAX", limits::SEARCH_TERMS_MAX),
    ("UNREAD_MAX", limits::UNREAD_MAX as usize),
    ("USERS_PER_REQUEST_MAX", limits::USERS_PER_REQUEST_MAX),
];

/// The codes of the protocol, and those of RFC 6455 that the server uses.
fn close_codes() -> Value {
    let code = |code: &CloseCode| {
        let client = match *code as u16 {
            4000..4100 => "stops",
            4100..4200 => "reconnects after a while, with full jitter",
            4200..4300 => "reconnects at once, with `resume`",
            _ => "decides for itself (RFC 6455)",
        };
        json!({
            "code": *code as u16,
            "reason": code.reason(),
            "client": client,
            "announced_by_server_closing": code.announced(),
        })
    };
    CloseCode::ALL.iter().map(code).collect()
}

fn error_codes() -> Value {
    ErrorCode::ALL
        .iter()
        .map(|code| json!({"code": code.name(), "temporary": code.temporary()}))
        .collect()
}
