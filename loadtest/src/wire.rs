//! The wire protocol as a client sees it: what is read first of a frame, the replies' fields, and the
//! requests' text.
//!
//! Invariants: [`head`] reads only the outermost names and stops as soon as it knows where a frame
//! belongs; the rest is parsed only when somebody needs it. A request's `id` says what it was, so
//! that no table of outstanding requests is kept.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Deserialize;
use uuid::Uuid;

use crate::ids::{ChangeNumber, MessageNumber, RoomIndex};

/// What a request's `id` says. Below 2^53 for all numbers of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestId {
    Auth,
    Send(MessageNumber),
    History(RoomIndex),
    RoomCreate(RoomIndex),
    MembersAdd(RoomIndex),
    /// A change of a message.
    Change(ChangeNumber),
    /// A read or a choice of the mixed load, by its number there.
    Ask(u32),
}

impl RequestId {
    pub fn number(self) -> u64 {
        let (argument, kind) = match self {
            Self::Auth => (0, 1),
            Self::Send(number) => (number.0, 2),
            Self::History(room) => (room.0, 3),
            Self::RoomCreate(room) => (room.0, 4),
            Self::MembersAdd(room) => (room.0, 5),
            Self::Change(number) => (number.0, 6),
            Self::Ask(number) => (number, 7),
        };
        u64::from(argument) << 3 | kind
    }

    pub fn from_number(number: u64) -> Option<Self> {
        let argument = u32::try_from(number >> 3).ok()?;
        match number & 7 {
            1 => Some(Self::Auth),
            2 => Some(Self::Send(MessageNumber(argument))),
            3 => Some(Self::History(RoomIndex(argument))),
            4 => Some(Self::RoomCreate(RoomIndex(argument))),
            5 => Some(Self::MembersAdd(RoomIndex(argument))),
            6 => Some(Self::Change(ChangeNumber(argument))),
            7 => Some(Self::Ask(argument)),
            _ => None,
        }
    }
}

/// The outermost names of a frame from the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head<'a> {
    pub kind: &'a str,
    pub id: Option<u64>,
    pub room_id: Option<&'a str>,
    pub seq: Option<u64>,
}

/// Reads the head of a frame. `None` if it is no JSON object with a `type`.
pub fn head(frame: &[u8]) -> Option<Head<'_>> {
    let mut scan = Scan {
        bytes: frame,
        at: 0,
    };
    let mut head = Head::default();
    scan.expect(b'{')?;
    if scan.peek()? == b'}' {
        return None;
    }
    loop {
        let name = scan.string()?;
        scan.expect(b':')?;
        match name {
            b"type" => {
                scan.peek()?;
                head.kind = std::str::from_utf8(scan.string()?).ok()?;
            }
            b"id" => head.id = scan.number(),
            b"seq" => head.seq = scan.number(),
            b"room_id" => {
                scan.peek()?;
                head.room_id = std::str::from_utf8(scan.string()?).ok();
            }
            _ => scan.skip()?,
        }
        let is_placed = head.id.is_some() || head.seq.is_some() && head.room_id.is_some();
        if is_placed && !head.kind.is_empty() {
            return Some(head);
        }
        match scan.peek()? {
            b',' => scan.at += 1,
            b'}' => break,
            _ => return None,
        }
        scan.peek()?;
    }
    (!head.kind.is_empty()).then_some(head)
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.bytes.get(self.at) {
            if !byte.is_ascii_whitespace() {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// A string's bytes, escapes left as they are.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            match *self.bytes.get(self.at)? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        let end = self.at;
        self.at += 1;
        Some(&self.bytes[start..end])
    }

    /// A number of digits only; anything else is skipped and counts as absent.
    fn number(&mut self) -> Option<u64> {
        self.peek()?;
        let start = self.at;
        let mut value = Some(0_u64);
        while let Some(digit @ b'0'..=b'9') = self.bytes.get(self.at).copied() {
            value = value
                .and_then(|value| value.checked_mul(10))
                .and_then(|value| value.checked_add(u64::from(digit - b'0')));
            self.at += 1;
        }
        if self.at == start {
            self.skip()?;
            return None;
        }
        value
    }

    fn skip(&mut self) -> Option<()> {
        let mut depth = 0_u32;
        loop {
            match self.peek()? {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                    continue;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                b',' | b':' => {
                    if depth == 0 {
                        return None;
                    }
                    self.at += 1;
                    continue;
                }
                _ => {
                    while let Some(byte) = self.bytes.get(self.at) {
                        if matches!(byte, b',' | b'}' | b']' | b':') || byte.is_ascii_whitespace() {
                            break;
                        }
                        self.at += 1;
                    }
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }
}

/// `{"data": T}` of a reply or event.
#[derive(Deserialize)]
pub struct Data<T> {
    pub data: T,
}

#[derive(Deserialize)]
pub struct ErrorReply {
    pub error: ErrorBody,
}

#[derive(Deserialize)]
pub struct ErrorBody {
    pub code: String,
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub temporary: bool,
    pub retry_after_ms: Option<u64>,
}

#[derive(Deserialize)]
pub struct Ready {
    pub epoch: String,
    #[serde(default)]
    pub rooms: Vec<ReadyRoom>,
}

#[derive(Deserialize)]
pub struct ReadyRoom {
    pub room_id: Uuid,
    pub last_seq: u64,
    #[serde(default)]
    pub recovered: bool,
    pub from_seq: Option<u64>,
    pub to_seq: Option<u64>,
    pub reason: Option<String>,
    pub read_seq: Option<u64>,
    pub unread: Option<u64>,
    #[serde(default)]
    pub watermarks: Vec<Watermark>,
}

/// How far a member is, in `ready`, in a room, and as `data` of `receipt.updated`.
#[derive(Clone, Copy, Deserialize)]
pub struct Watermark {
    pub user_id: Uuid,
    pub read_seq: u64,
    pub delivered_seq: u64,
}

#[derive(Deserialize)]
pub struct SendAck {
    pub client_msg_id: Uuid,
    pub room_id: Uuid,
    pub seq: u64,
    #[serde(default)]
    pub duplicate: bool,
}

#[derive(Deserialize)]
pub struct RoomAck {
    pub room: RoomName,
    #[serde(default)]
    pub created: bool,
}

#[derive(Deserialize)]
pub struct RoomName {
    pub room_id: Uuid,
}

#[derive(Deserialize)]
pub struct RoomAdded {
    pub room: RoomName,
    pub last_seq: u64,
}

/// `message.created`, with the parts that the checker compares.
#[derive(Deserialize)]
pub struct Created {
    #[serde(default)]
    pub ts: String,
    pub data: CreatedData,
}

#[derive(Deserialize)]
pub struct CreatedData {
    pub message: Message,
}

#[derive(Deserialize)]
pub struct Message {
    pub seq: u64,
    pub sender_id: Option<Uuid>,
    pub client_msg_id: Option<Uuid>,
    #[serde(default)]
    pub kind: String,
    pub text: Option<String>,
    pub reply_to_seq: Option<u64>,
    #[serde(default)]
    pub mentions: Vec<String>,
    #[serde(default)]
    pub reactions: BTreeMap<String, Reaction>,
    pub changed_seq: Option<u64>,
    pub revision: Option<u32>,
    pub deleted_at: Option<String>,
    #[serde(default)]
    pub attachments: Vec<Attachment>,
    /// Of a system message: what it stands for.
    pub event: Option<SystemEvent>,
}

/// A system message; also `data` of `user.erased`.
#[derive(Deserialize)]
pub struct SystemEvent {
    #[serde(default, rename = "type")]
    pub kind: String,
    pub user_id: Option<Uuid>,
    pub erased_as: Option<Uuid>,
}

/// `user.erased`.
#[derive(Deserialize)]
pub struct ErasedEvent {
    #[serde(default)]
    pub ts: String,
    pub data: SystemEvent,
}

#[derive(Deserialize)]
pub struct Attachment {
    pub upload_id: Uuid,
}

#[derive(Deserialize)]
pub struct Reaction {
    pub count: u64,
    pub mine: Option<bool>,
}

/// An event that changes a message; which of the fields there are depends on its `type`.
#[derive(Deserialize)]
pub struct Changed {
    #[serde(default)]
    pub ts: String,
    pub data: ChangedData,
}

#[derive(Deserialize)]
pub struct ChangedData {
    pub message_seq: u64,
    pub message: Option<Message>,
    pub actor_id: Option<Uuid>,
    pub user_id: Option<Uuid>,
    pub emoji: Option<String>,
    pub added: Option<bool>,
    pub count: Option<u64>,
}

/// The ack of a change of a message.
#[derive(Deserialize)]
pub struct ChangeAck {
    pub room_id: Uuid,
    pub message_seq: u64,
    pub changed: bool,
    pub seq: u64,
    pub revision: u32,
}

#[derive(Deserialize)]
pub struct RoomsListed {
    pub rooms: Vec<ListedRoom>,
    pub next_cursor: Option<String>,
}

#[derive(Deserialize)]
pub struct ListedRoom {
    pub room_id: Uuid,
    pub last_seq: u64,
    pub read_seq: u64,
    pub unread: u64,
}

#[derive(Deserialize)]
pub struct RoomGot {
    pub room: GotRoom,
    pub read_seq: Option<u64>,
    pub unread: Option<u64>,
}

#[derive(Deserialize)]
pub struct GotRoom {
    pub room_id: Uuid,
    pub last_seq: u64,
    pub members: Vec<Watermark>,
}

#[derive(Deserialize)]
pub struct UserIds {
    pub user_ids: Vec<Uuid>,
}

#[derive(Deserialize)]
pub struct Users {
    pub users: Vec<UserPresence>,
}

#[derive(Deserialize)]
pub struct UserPresence {
    pub user_id: Uuid,
    pub state: String,
}

#[derive(Deserialize)]
pub struct HistoryPage {
    pub messages: Vec<Message>,
    #[serde(default)]
    pub has_more: bool,
    pub last_seq: u64,
    pub next_after_seq: Option<u64>,
}

#[derive(Deserialize)]
pub struct RetryAfter {
    pub retry_after_ms: Option<u64>,
    pub reconnect_after_ms: Option<u64>,
}

#[derive(Deserialize)]
pub struct Gap {
    pub last_seq: u64,
}

/// Parses a frame into `T`.
///
/// # Errors
/// The parser's words, cut to one line.
pub fn parse<'a, T: Deserialize<'a>>(frame: &'a [u8]) -> Result<T, String> {
    sonic_rs::from_slice(frame).map_err(|error| {
        let text = error.to_string();
        text.lines().next().unwrap_or("not JSON").to_owned()
    })
}

/// The `auth` frame. `resume` names rooms and positions.
pub fn auth(
    token: &str,
    device_id: Uuid,
    resume: Option<(&str, impl Iterator<Item = (Uuid, u64)>)>,
) -> String {
    let mut frame = String::with_capacity(token.len() + 256);
    let _ = write!(
        frame,
        r#"{{"id":1,"type":"auth","data":{{"token":"{token}","device_id":"{device_id}","client":{{"name":"loadtest","version":"1.0.0"}}"#
    );
    if let Some((epoch, rooms)) = resume {
        let _ = write!(frame, r#","resume":{{"epoch":"{epoch}","rooms":{{"#);
        for (place, (room, position)) in rooms.enumerate() {
            let comma = if place == 0 { "" } else { "," };
            let _ = write!(frame, r#"{comma}"{room}":{position}"#);
        }
        frame.push_str("}}");
    }
    frame.push_str("}}");
    frame
}

/// `text` must be JSON-escaped already.
pub fn message_send(
    number: MessageNumber,
    room_id: Uuid,
    client_msg_id: Uuid,
    text: &str,
    reply_to_seq: u64,
    mention: Option<Uuid>,
    upload: Option<Uuid>,
) -> String {
    let id = RequestId::Send(number).number();
    let kind = if upload.is_some() { "file" } else { "text" };
    let mut frame = format!(
        r#"{{"id":{id},"type":"message.send","data":{{"room_id":"{room_id}","client_msg_id":"{client_msg_id}","kind":"{kind}","text":"{text}""#
    );
    if let Some(upload) = upload {
        let _ = write!(frame, r#","attachments":[{{"upload_id":"{upload}"}}]"#);
    }
    if reply_to_seq > 0 {
        let _ = write!(frame, r#","reply_to_seq":{reply_to_seq}"#);
    }
    if let Some(user) = mention {
        let _ = write!(frame, r#","mentions":["{user}"]"#);
    }
    frame.push_str("}}");
    frame
}

/// A request with its data, which must be JSON without the brackets around it; without an id no
/// reply is wanted.
pub fn request(id: Option<RequestId>, kind: &str, data: &str) -> String {
    match id {
        Some(id) => {
            let id = id.number();
            format!(r#"{{"id":{id},"type":"{kind}","data":{{{data}}}}}"#)
        }
        None => format!(r#"{{"type":"{kind}","data":{{{data}}}}}"#),
    }
}

pub fn room_create(
    room: RoomIndex,
    client_room_id: Uuid,
    title: &str,
    members: impl Iterator<Item = Uuid>,
) -> String {
    let id = RequestId::RoomCreate(room).number();
    let members = uuid_list(members);
    format!(
        r#"{{"id":{id},"type":"room.create","data":{{"kind":"group","title":"{title}","client_room_id":"{client_room_id}","member_ids":[{members}]}}}}"#
    )
}

pub fn members_add(room: RoomIndex, room_id: Uuid, members: impl Iterator<Item = Uuid>) -> String {
    let id = RequestId::MembersAdd(room).number();
    let members = uuid_list(members);
    format!(
        r#"{{"id":{id},"type":"room.members.add","data":{{"room_id":"{room_id}","user_ids":[{members}]}}}}"#
    )
}

pub fn history_get(room: RoomIndex, room_id: Uuid, after_seq: u64, limit: u64) -> String {
    let id = RequestId::History(room).number();
    format!(
        r#"{{"id":{id},"type":"history.get","data":{{"room_id":"{room_id}","after_seq":{after_seq},"limit":{limit}}}}}"#
    )
}

pub fn uuid_list(ids: impl Iterator<Item = Uuid>) -> String {
    let mut list = String::new();
    for (place, id) in ids.enumerate() {
        let comma = if place == 0 { "" } else { "," };
        let _ = write!(list, r#"{comma}"{id}""#);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_read_back() {
        for id in [
            RequestId::Auth,
            RequestId::Send(MessageNumber(u32::MAX)),
            RequestId::History(RoomIndex(7)),
            RequestId::RoomCreate(RoomIndex(0)),
            RequestId::MembersAdd(RoomIndex(9)),
            RequestId::Change(ChangeNumber(u32::MAX)),
            RequestId::Ask(12),
        ] {
            assert!(id.number() < 1 << 53);
            assert_eq!(RequestId::from_number(id.number()), Some(id));
        }
        assert_eq!(RequestId::from_number(0), None);
    }

    #[test]
    fn the_head_of_an_event_ends_before_its_data() {
        let frame = br#"{"type":"message.created","room_id":"r-1","seq":105,"ts":"x","data":{{{"#;
        let head = head(frame).unwrap();
        assert_eq!(head.kind, "message.created");
        assert_eq!((head.room_id, head.seq), (Some("r-1"), Some(105)));
    }

    #[test]
    fn the_head_is_found_in_any_order_and_with_white_space() {
        let frame = br#" { "data" : {"a":[1,{"type":"no"},"}\"]"],"seq":9} , "x":null,
            "seq": 7 , "room_id":"r", "type" : "t" }"#;
        let head = head(frame).unwrap();
        assert_eq!((head.kind, head.room_id), ("t", Some("r")));
        assert_eq!(head.seq, Some(7));
    }

    #[test]
    fn frames_without_a_type_are_refused() {
        for frame in [
            &b"{}"[..],
            b"",
            b"[]",
            b"{\"id\":1}",
            b"{\"type\"",
            b"{\"type\":3}",
        ] {
            assert_eq!(head(frame), None, "{}", String::from_utf8_lossy(frame));
        }
        assert_eq!(head(br#"{"type":"ping"}"#).unwrap().kind, "ping");
    }

    #[test]
    fn requests_are_json() {
        let id = Uuid::nil();
        let frames = [
            auth("t", id, None::<(&str, std::iter::Empty<(Uuid, u64)>)>),
            auth("t", id, Some(("e1", [(id, 3), (id, 4)].into_iter()))),
            message_send(MessageNumber(1), id, id, "a\\n", 3, Some(id), None),
            request(Some(RequestId::Ask(2)), "room.get", r#""room_id":"x""#),
            request(Some(RequestId::Ask(3)), "presence.set", ""),
            room_create(RoomIndex(1), id, "title", [id, id].into_iter()),
            members_add(RoomIndex(1), id, [id].into_iter()),
            history_get(RoomIndex(1), id, 5, 100),
        ];
        for frame in frames {
            let value: serde_json::Value = serde_json::from_str(&frame).unwrap();
            assert!(value["id"].is_u64() && value["type"].is_string(), "{frame}");
        }
    }
}
