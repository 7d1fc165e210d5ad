//! The requests over HTTP, for clients without a socket: which method and path is which request.
//!
//! Nothing here knows what a request does. Its data is put together from the path, the query and the
//! body, and read by the very code that reads a frame's; so it is the same request under the same rules.
//!
//! To add one: a line in [`ENDPOINTS`]. What its fields are, which of them are asked for in the query and
//! which in the body, and the OpenAPI document follow from the types of [`super::request`].

use super::admin::{self, AdminRequest};
use super::asyncapi::requests_generator;
use super::error::ErrorCode;
use super::ids::{JSON_INTEGER_MAX, UserId};
use super::request::{Command, Refused};
use schemars::Schema;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use uuid::Uuid;

/// How an endpoint is asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Method {
    /// Reads.
    Get,
    /// Makes, or does something once.
    Post,
    /// Makes it so.
    Put,
    /// Changes.
    Patch,
    /// Takes away.
    Delete,
}

impl Method {
    /// As it stands in a request.
    pub fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
        }
    }

    /// Whether the fields that are not in the path come as JSON; otherwise they come in the query.
    pub fn has_body(self) -> bool {
        matches!(self, Method::Post | Method::Put | Method::Patch)
    }
}

/// One way to ask one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// The method.
    pub method: Method,
    /// The path; names in braces are fields of the request.
    pub path: &'static str,
    /// The request, as in [`Command::NAMES`].
    pub request: &'static str,
    /// The field of the reply that says by this value that something new was made: 201 instead of 200.
    pub made_if: Option<(&'static str, bool)>,
    /// The field that makes a retry the same request: filled from `Idempotency-Key` if it is not given.
    pub key: Option<&'static str>,
}

pub(super) const fn endpoint(
    method: Method,
    path: &'static str,
    request: &'static str,
) -> Endpoint {
    Endpoint {
        method,
        path,
        request,
        made_if: None,
        key: None,
    }
}

impl Endpoint {
    /// The name of what the request is answered with; empty if it has no reply: then it is 202, without content.
    pub fn reply(&self) -> &'static str {
        Command::NAMES
            .iter()
            .find(|(name, _)| *name == self.request)
            .map_or("", |(_, reply)| *reply)
    }

    const fn makes(mut self, field: &'static str, value: bool) -> Endpoint {
        self.made_if = Some((field, value));
        self
    }

    const fn keyed(mut self, field: &'static str) -> Endpoint {
        self.key = Some(field);
        self
    }
}

const ROOM: &str = "/v1/rooms/{room_id}";
const MEMBERS: &str = "/v1/rooms/{room_id}/members";
const MEMBER: &str = "/v1/rooms/{room_id}/members/{user_id}";
const MESSAGES: &str = "/v1/rooms/{room_id}/messages";
const MESSAGE: &str = "/v1/rooms/{room_id}/messages/{message_seq}";
const REACTION: &str = "/v1/rooms/{room_id}/messages/{message_seq}/reactions/{emoji}";
const PIN: &str = "/v1/rooms/{room_id}/messages/{message_seq}/pin";

const BLOCK: &str = "/v1/users/me/blocks/{user_id}";

/// All of them. Those of one path stand together.
pub const ENDPOINTS: &[Endpoint] = &[
    endpoint(Method::Get, "/v1/rooms", "rooms.list"),
    endpoint(Method::Post, "/v1/rooms", "room.create")
        .keyed("client_room_id")
        .makes("created", true),
    endpoint(Method::Get, ROOM, "room.get"),
    endpoint(Method::Patch, ROOM, "room.update"),
    endpoint(Method::Post, "/v1/rooms/{room_id}/leave", "room.leave"),
    endpoint(Method::Put, "/v1/rooms/{room_id}/archive", "room.archive"),
    endpoint(Method::Put, "/v1/rooms/{room_id}/mute", "room.mute"),
    endpoint(Method::Get, MEMBERS, "room.members.list"),
    endpoint(Method::Post, MEMBERS, "room.members.add"),
    endpoint(Method::Delete, MEMBER, "room.members.remove"),
    endpoint(
        Method::Put,
        "/v1/rooms/{room_id}/members/{user_id}/role",
        "room.role.set",
    ),
    endpoint(Method::Get, MESSAGES, "history.get"),
    endpoint(Method::Post, MESSAGES, "message.send")
        .keyed("client_msg_id")
        .makes("duplicate", false),
    endpoint(Method::Patch, MESSAGE, "message.edit"),
    endpoint(Method::Delete, MESSAGE, "message.delete"),
    endpoint(Method::Put, REACTION, "reaction.add"),
    endpoint(Method::Delete, REACTION, "reaction.remove"),
    endpoint(Method::Put, PIN, "message.pin"),
    endpoint(Method::Delete, PIN, "message.unpin"),
    endpoint(
        Method::Post,
        "/v1/rooms/{room_id}/messages/{message_seq}/report",
        "message.report",
    ),
    endpoint(Method::Post, "/v1/uploads", "upload.create"),
    endpoint(
        Method::Post,
        "/v1/rooms/{room_id}/attachments/urls",
        "attachment.urls",
    ),
    endpoint(Method::Get, "/v1/search", "search"),
    endpoint(
        Method::Post,
        "/v1/users/me/receipts/delivered",
        "receipt.delivered",
    ),
    endpoint(Method::Post, "/v1/users/me/receipts/read", "receipt.read"),
    endpoint(Method::Get, "/v1/users/me/blocks", "user.blocks"),
    endpoint(Method::Put, BLOCK, "user.block"),
    endpoint(Method::Delete, BLOCK, "user.unblock"),
];

/// The largest body, bytes: that of a frame.
pub const BODY_BYTES_MAX: usize = 65_536;
/// The longest idempotency key, bytes.
pub const KEY_BYTES_MAX: usize = 255;

/// The status of an answer that is this error.
pub fn status(code: ErrorCode) -> u16 {
    match code {
        ErrorCode::BadRequest | ErrorCode::UnknownType => 400,
        ErrorCode::Unauthenticated => 401,
        ErrorCode::Forbidden => 403,
        ErrorCode::NotFound => 404,
        ErrorCode::IdempotencyConflict | ErrorCode::RevisionConflict => 409,
        ErrorCode::Gone => 410,
        ErrorCode::TooLarge => 413,
        ErrorCode::UnsupportedMedia => 415,
        ErrorCode::RateLimited => 429,
        ErrorCode::Internal => 500,
        ErrorCode::Overloaded | ErrorCode::Unavailable => 503,
    }
}

/// Namespace of ids made from idempotency keys (UUIDv5, RFC 9562 section 5.5).
const KEY_NAMESPACE: Uuid = Uuid::from_u128(0x35c1_93b5_2f0e_4c1d_8a57_0f9f_60be_ca11);

/// The id that a key stands for: itself if it is a UUID, else one made of it and its user. A structured
/// string (RFC 9651), in quotes, is the same as the bare one.
///
/// # Errors
/// What a key must be.
pub fn id_of_key(key: &str, user: UserId) -> Result<Uuid, Refused> {
    let bare = key
        .strip_prefix('"')
        .and_then(|key| key.strip_suffix('"'))
        .unwrap_or(key);
    let is_plain = bare.bytes().all(|byte| matches!(byte, b'!'..=b'~'));
    if bare.is_empty() || bare.len() > KEY_BYTES_MAX || !is_plain || bare.contains(['"', '\\']) {
        return Err(bad_request(
            "`Idempotency-Key` must have 1 to 255 visible ASCII characters without quotes and backslashes",
        ));
    }
    Ok(Uuid::try_parse(bare).unwrap_or_else(|_| {
        let mut name = user.0.as_bytes().to_vec();
        name.extend_from_slice(bare.as_bytes());
        Uuid::new_v5(&KEY_NAMESPACE, &name)
    }))
}

fn bad_request(message: impl Into<String>) -> Refused {
    Refused {
        code: ErrorCode::BadRequest,
        message: message.into(),
    }
}

/// The fields of a request's data, as they may come in a path or a query.
#[derive(Clone, Debug)]
pub struct Fields {
    /// The schema of each.
    pub schemas: Map<String, Value>,
    /// Those that must be given.
    pub required: Vec<String>,
}

/// The fields of all requests, by the request's name, and the definitions that their schemas refer to.
pub fn fields() -> (BTreeMap<&'static str, Fields>, Map<String, Value>) {
    let mut generator = requests_generator();
    let mut schemas = Command::schemas(&mut generator);
    schemas.extend(AdminRequest::schemas(&mut generator));
    let definitions = generator.take_definitions(true);
    let fields_of = |schema: &Schema| {
        let named = schema
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|path| path.rsplit('/').next())
            .and_then(|name| definitions.get(name));
        let schema = named.unwrap_or_else(|| schema.as_value());
        let properties = schema["properties"].as_object().cloned();
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        Fields {
            schemas: properties.unwrap_or_default(),
            required: required
                .iter()
                .filter_map(|name| name.as_str().map(str::to_owned))
                .collect(),
        }
    };
    let fields = schemas
        .iter()
        .map(|(name, schema)| (*name, fields_of(schema)))
        .collect();
    (fields, definitions)
}

/// The names in braces of a path.
pub fn path_names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

/// What text stands for in the data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Text,
    Integer,
    Boolean,
    /// A list, of which a path names one.
    ListOfOne,
}

/// An endpoint with what its request is made of.
#[derive(Clone, Debug)]
pub struct Bound {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Field and kind of each name in the path.
    path: Vec<(&'static str, &'static str, Kind)>,
    /// The kind of each field that may be in the query.
    query: BTreeMap<String, Kind>,
}

/// What a client gave.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given<'a> {
    /// Names in the path and their decoded values.
    pub path: &'a [(String, String)],
    /// Decoded names and values of the query.
    pub query: &'a [(String, String)],
    /// The body; empty: none.
    pub body: &'a [u8],
    /// `Idempotency-Key`.
    pub key: Option<&'a str>,
}

/// All endpoints of users, with what their requests are made of.
pub fn bound() -> Vec<Bound> {
    bound_of(ENDPOINTS)
}

/// All endpoints of the Admin API.
pub fn bound_admin() -> Vec<Bound> {
    bound_of(admin::ENDPOINTS)
}

fn bound_of(endpoints: &[Endpoint]) -> Vec<Bound> {
    let (fields, _) = fields();
    endpoints
        .iter()
        .map(|endpoint| Bound::new(*endpoint, &fields[endpoint.request]))
        .collect()
}

/// The field that a name in a path fills: its own, or the list of it.
pub fn field_of_path<'a>(name: &'a str, fields: &Fields) -> Option<(&'a str, bool)> {
    match name {
        name if fields.schemas.contains_key(name) => Some((name, false)),
        "user_id" => Some(("user_ids", true)),
        _ => None,
    }
}

fn kind_of(schema: &Value) -> Kind {
    let is = |name: &str| match &schema["type"] {
        Value::String(own) => own == name,
        Value::Array(all) => all.iter().any(|own| own == name),
        _ => false,
    };
    match () {
        () if is("integer") => Kind::Integer,
        () if is("boolean") => Kind::Boolean,
        () => Kind::Text,
    }
}

impl Bound {
    fn new(endpoint: Endpoint, fields: &Fields) -> Bound {
        let path: Vec<_> = path_names(endpoint.path)
            .map(|name| {
                let (field, is_list) = field_of_path(name, fields)
                    .unwrap_or_else(|| panic!("{} has no field for {name}", endpoint.request));
                let kind = match is_list {
                    true => Kind::ListOfOne,
                    false => kind_of(&fields.schemas[field]),
                };
                (name, field, kind)
            })
            .collect();
        let query = match endpoint.method.has_body() {
            true => BTreeMap::new(),
            false => (fields.schemas.iter())
                .filter(|(name, _)| !path.iter().any(|(_, field, _)| field == name))
                .map(|(name, schema)| (name.clone(), kind_of(schema)))
                .collect(),
        };
        Bound {
            endpoint,
            path,
            query,
        }
    }

    /// Whether a body means anything.
    pub fn takes_body(&self) -> bool {
        self.endpoint.method.has_body()
    }

    /// The request that was asked, read as a frame's would be. `fresh` names it if the client did not.
    ///
    /// # Errors
    /// Why it is none.
    pub fn command(
        &self,
        given: &Given<'_>,
        user: UserId,
        fresh: Uuid,
    ) -> Result<Command, Refused> {
        let key = given.key.map(|key| id_of_key(key, user)).transpose()?;
        let data = self.data(given, key.unwrap_or(fresh))?;
        Command::read(self.endpoint.request, &data)
    }

    /// What is asked of the service itself.
    ///
    /// # Errors
    /// Why it is nothing.
    pub fn admin_request(&self, given: &Given<'_>) -> Result<AdminRequest, Refused> {
        let data = self.data(given, Uuid::nil())?;
        AdminRequest::read(self.endpoint.request, &data)
    }

    /// The data of the request, as a frame would have it. `id` names it if the client did not.
    fn data(&self, given: &Given<'_>, id: Uuid) -> Result<String, Refused> {
        let mut data = self.body(given.body)?;
        if let Some(field) = self.endpoint.key
            && !data.contains_key(field)
        {
            data.insert(field.to_owned(), Value::String(id.to_string()));
        }
        for (name, value) in given.query {
            let Some(kind) = self.query.get(name) else {
                continue;
            };
            let value = value_of(*kind, value);
            if data.insert(name.clone(), value).is_some() {
                return Err(bad_request(format!("`{name}` is given twice")));
            }
        }
        for (name, field, kind) in &self.path {
            let found = given.path.iter().find(|(own, _)| own == name);
            let value = found.map_or(Value::Null, |(_, value)| value_of(*kind, value));
            data.insert((*field).to_owned(), value);
        }
        Ok(Value::Object(data).to_string())
    }

    fn body(&self, body: &[u8]) -> Result<Map<String, Value>, Refused> {
        if !self.takes_body() || body.is_empty() {
            return Ok(Map::new());
        }
        let text = str::from_utf8(body).map_err(|_| bad_request("the body is not UTF-8"))?;
        match serde_json::from_str(text) {
            Ok(Value::Object(data)) if data.values().all(is_exact) => Ok(data),
            Ok(Value::Object(_)) => Err(bad_request("a number of the body is above 2^53")),
            Ok(_) => Err(bad_request("the body must be a JSON object")),
            Err(error) => Err(bad_request(format!("the body is not JSON: {error}"))),
        }
    }
}

/// Whether its numbers are such as JSON carries exactly everywhere.
fn is_exact(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_u64().is_none_or(|n| n <= JSON_INTEGER_MAX),
        Value::Array(items) => items.iter().all(is_exact),
        Value::Object(fields) => fields.values().all(is_exact),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

/// What is no integer stays text, so that the reader of the request refuses it in its own words.
fn value_of(kind: Kind, text: &str) -> Value {
    let as_text = || Value::String(text.to_owned());
    match kind {
        Kind::Text => as_text(),
        Kind::ListOfOne => Value::Array(vec![as_text()]),
        Kind::Boolean => match text {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => as_text(),
        },
        Kind::Integer if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            match text.parse::<u64>() {
                Ok(number) if number <= JSON_INTEGER_MAX => Value::from(number),
                Ok(_) | Err(_) => as_text(),
            }
        }
        Kind::Integer => as_text(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM_ID: &str = "00000000-0000-0000-0000-000000000001";

    fn user(n: u128) -> UserId {
        UserId(Uuid::from_u128(n))
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    fn ask(
        method: Method,
        path: &str,
        names: &[(&str, &str)],
        query: &[(&str, &str)],
        body: &str,
        key: Option<&str>,
    ) -> Result<Command, Refused> {
        let bound = bound();
        let endpoint = bound
            .iter()
            .find(|bound| bound.endpoint.method == method && bound.endpoint.path == path);
        let given = Given {
            path: &pairs(names),
            query: &pairs(query),
            body: body.as_bytes(),
            key,
        };
        let fresh = Uuid::from_u128(99);
        endpoint
            .expect("an endpoint")
            .command(&given, user(7), fresh)
    }

    #[test]
    fn every_endpoint_is_one_request_of_the_protocol() {
        let bound = bound();
        assert_eq!(bound.len(), ENDPOINTS.len());
        let mut ways: Vec<_> = ENDPOINTS
            .iter()
            .map(|endpoint| (endpoint.path, endpoint.method))
            .collect();
        ways.sort_unstable();
        ways.dedup();
        assert_eq!(ways.len(), ENDPOINTS.len(), "one endpoint per way");
    }

    #[test]
    fn a_request_is_put_together_from_path_query_and_body() {
        let room = [("room_id", ROOM_ID)];
        let query = [("after_seq", "12"), ("limit", "5"), ("unknown", "x")];
        match ask(Method::Get, MESSAGES, &room, &query, "", None) {
            Ok(Command::HistoryGet(get)) => {
                assert_eq!(get.room_id.to_string(), ROOM_ID);
                assert_eq!((get.after_seq, get.limit), (Some(12), Some(5)));
            }
            other => panic!("{other:?}"),
        }
        let member = [("room_id", ROOM_ID), ("user_id", ROOM_ID)];
        match ask(Method::Delete, MEMBER, &member, &[], "", None) {
            Ok(Command::RoomMembersRemove(members)) => assert_eq!(members.user_ids.len(), 1),
            other => panic!("{other:?}"),
        }
        // The path says which room, whatever the body says.
        let body = r#"{"room_id":"x","kind":"text","text":"hi","extra":[1]}"#;
        match ask(Method::Post, MESSAGES, &room, &[], body, Some("order 7")) {
            Err(refused) => assert_eq!(refused.code, ErrorCode::BadRequest),
            other => panic!("{other:?}"),
        }
        match ask(Method::Post, MESSAGES, &room, &[], body, Some("order-7")) {
            Ok(Command::MessageSend(send)) => {
                assert_eq!(send.room_id.to_string(), ROOM_ID);
                assert_eq!(Ok(send.client_msg_id.0), id_of_key("\"order-7\"", user(7)));
            }
            other => panic!("{other:?}"),
        }
        match ask(Method::Post, MESSAGES, &room, &[], body, None) {
            Ok(Command::MessageSend(send)) => {
                assert_eq!(send.client_msg_id.0, Uuid::from_u128(99));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_no_request_is_refused_as_on_a_connection() {
        let room = [("room_id", ROOM_ID)];
        let send = |body: &str| ask(Method::Post, MESSAGES, &room, &[], body, None);
        let deep = format!("{{\"x\":{}{}}}", "[".repeat(70), "]".repeat(70));
        for body in [
            "",
            "[]",
            "{",
            "{\"kind\":\"text\",\"text\":\"a\\u0000\"}",
            "{\"kind\":\"text\",\"reply_to_seq\":-1}",
            "{\"kind\":\"text\",\"text\":\"a\",\"reply_to_seq\":9007199254740993}",
            "{\"kind\":\"text\",\"text\":1}",
            "{\"kind\":\"text\",\"text\":\"a\",\"client_msg_id\":null}",
            &deep,
        ] {
            let refused = send(body).expect_err(body);
            assert_eq!(refused.code, ErrorCode::BadRequest, "{body}");
        }
        let list = |query: &[(&str, &str)]| ask(Method::Get, "/v1/rooms", &[], query, "", None);
        for (name, value) in [
            ("limit", "-1"),
            ("limit", ""),
            ("limit", "1.5"),
            ("limit", "99999999999999999999"),
            ("limit", "9007199254740993"),
            ("archived", "1"),
            ("cursor", "a\0b"),
        ] {
            assert!(list(&[(name, value)]).is_err(), "{name}={value:?}");
        }
        assert!(list(&[("limit", "1"), ("limit", "1")]).is_err());
        assert!(list(&[("limit", "1"), ("archived", "true")]).is_ok());
        let other = [("room_id", "not-a-uuid")];
        assert!(ask(Method::Get, ROOM, &other, &[], "", None).is_err());
    }

    #[test]
    fn a_key_is_an_id_of_its_user() {
        let key = id_of_key("k1", user(1));
        assert_eq!(key, id_of_key("k1", user(1)));
        assert_eq!(key, id_of_key("\"k1\"", user(1)));
        assert_ne!(key, id_of_key("k1", user(2)));
        assert_ne!(key, id_of_key("k2", user(1)));
        let uuid = "018f3a1e-0000-7000-8000-000000000001";
        assert_eq!(
            id_of_key(uuid, user(1)).map(|id| id.to_string()),
            Ok(uuid.to_owned())
        );
        let long = "x".repeat(KEY_BYTES_MAX + 1);
        for bad in ["", "\"\"", "a b", "ä", "\"a", "a\\b", "\u{7f}", &long] {
            assert!(id_of_key(bad, user(1)).is_err(), "{bad:?}");
        }
        assert!(id_of_key(&long[1..], user(1)).is_ok());
    }
}
