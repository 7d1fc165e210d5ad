//! Requests: what a client sends.
//!
//! A frame is `{"id":7,"type":"…","data":{…}}`. The envelope is read first and keeps `data` as
//! it stands; then `data` is read once, straight into the one type that `type` names.

use super::block::{UserBlock, UserBlocks};
use super::error::ErrorCode;
use super::ids::{ClientMsgId, JSON_INTEGER_MAX, RequestId, RoomId, Seq, UserId};
use super::ids::{whole, whole_by_room, whole_or_none};
use super::presence::{PresenceSet, PresenceSubscribe};
use super::search::Search;
use super::text::Text;
use super::time::UnixMs;
use super::upload::{AttachmentUrls, SendAttachment, UploadCreate, UploadKind};
use super::view::{Mention, Role, RoomKind};
use crate::limits;
use schemars::JsonSchema;
use serde::Deserialize;
use sonic_rs::{JsonValueTrait, LazyValue};
use std::borrow::Cow;
use std::collections::BTreeMap;
use uuid::Uuid;

/// One request, its data still unread.
#[derive(Debug)]
pub struct Request {
    /// Present if a reply is wanted.
    pub id: Option<RequestId>,
    /// The request, or why it cannot be one.
    pub command: Result<Command, Refused>,
}

/// Why a frame is no request.
#[derive(Clone, PartialEq, Debug)]
pub struct Refused {
    /// `bad_request`, `unknown_type` or `too_large`.
    pub code: ErrorCode,
    /// For the developer of the client; holds nothing secret.
    pub message: String,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    id: Option<LazyValue<'a>>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<LazyValue<'a>>,
}

impl Request {
    /// Reads one frame. Never fails: a frame that is no request is a [`Refused`] with the `id`
    /// where one could be read.
    pub fn parse(text: &str) -> Request {
        let refused = |code, message: String| Refused { code, message };
        if !is_shallow(text) {
            return Request {
                id: None,
                command: Err(too_deep()),
            };
        }
        let envelope: Envelope<'_> = match sonic_rs::from_str(text) {
            Ok(envelope) => envelope,
            Err(error) => {
                let message = format!("not a request: {}", first_line(&error));
                return Request {
                    id: None,
                    command: Err(refused(ErrorCode::BadRequest, message)),
                };
            }
        };
        let id = match envelope.id {
            None => None,
            Some(id) if id.is_null() => None,
            Some(id) => match id.as_u64().filter(|id| *id <= JSON_INTEGER_MAX) {
                Some(id) => Some(id),
                None => {
                    let message = "`id` must be an integer from 0 to 2^53".to_owned();
                    let command = Err(refused(ErrorCode::BadRequest, message));
                    return Request { id: None, command };
                }
            },
        };
        let data = envelope
            .data
            .as_ref()
            .map_or("{}", |data| data.as_raw_str());
        Request {
            id,
            command: Command::parse(&envelope.kind, data),
        }
    }
}

/// Reads data of another table of requests, under the same rules.
pub(super) fn read_data<'a, T: Deserialize<'a>>(data: &'a str) -> Result<T, Refused> {
    match is_shallow(data) {
        true => read(data),
        false => Err(too_deep()),
    }
}

fn too_deep() -> Refused {
    Refused {
        code: ErrorCode::BadRequest,
        message: "not a request: nested too deeply".to_owned(),
    }
}

/// Whether brackets are nested no deeper than [`limits::JSON_DEPTH_MAX`]. What the parser skips it
/// skips by recursion without a limit, so this is known before it sees the text.
fn is_shallow(text: &str) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_u32, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > limits::JSON_DEPTH_MAX {
                    return false;
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => (),
        }
    }
    true
}

/// The beginning of the first line of a parser's error: the other lines quote the input, and so may the
/// first, of which a character that is not printed becomes six.
fn first_line(error: &sonic_rs::Error) -> String {
    let error = error.to_string();
    shortened(error.lines().next().unwrap_or_default(), 200).to_owned()
}

macro_rules! requests {
    ($( $(#[doc = $doc:literal])* $name:literal => $variant:ident($data:ty) reply $reply:literal, )*) => {
        /// What a client asks.
        #[derive(Debug)]
        pub enum Command { $( $(#[doc = $doc])* $variant($data), )* }

        impl Command {
            /// The names of all requests and of the schema of the `data` of their replies.
            pub const NAMES: &[(&str, &str)] = &[ $( ($name, $reply), )* ];

            /// Reads the data of one request, under the same rules for every way it can come.
            ///
            /// # Errors
            /// Why it is none.
            pub fn read(name: &str, data: &str) -> Result<Command, Refused> {
                match is_shallow(data) {
                    true => Command::parse(name, data),
                    false => Err(too_deep()),
                }
            }

            fn parse(name: &str, data: &str) -> Result<Command, Refused> {
                match name {
                    $( $name => read::<$data>(data).map(Command::$variant), )*
                    unknown => Err(Refused {
                        code: ErrorCode::UnknownType,
                        message: format!("unknown type {:?}", shortened(unknown, 40)),
                    }),
                }
            }

            /// What the request of this name does, in a sentence or two.
            pub fn description(name: &str) -> &'static str {
                match name {
                    $( $name => concat!($($doc),*).trim_ascii(), )*
                    _ => "",
                }
            }

            /// As it stands on the wire.
            pub fn name(&self) -> &'static str {
                match self { $( Command::$variant(_) => $name, )* }
            }

            /// The schema of each request's `data`, by name.
            pub fn schemas(generator: &mut schemars::SchemaGenerator)
                -> Vec<(&'static str, schemars::Schema)>
            {
                vec![ $( ($name, generator.subschema_for::<$data>()), )* ]
            }
        }
    };
}

requests! {
    /// First frame of a connection.
    "auth" => Auth(Auth) reply "Ready",
    /// Keeps the connection past its token's `exp`.
    "auth.refresh" => AuthRefresh(AuthRefresh) reply "Refreshed",
    /// Answer to a ping; no reply.
    "pong" => Pong(Nothing) reply "",
    /// The user's rooms by last activity.
    "rooms.list" => RoomsList(RoomsList) reply "RoomsListed",
    /// Opens a room, or finds the one there is.
    "room.create" => RoomCreate(RoomCreate) reply "RoomCreated",
    /// One room.
    "room.get" => RoomGet(RoomGet) reply "RoomGot",
    /// Leaves a group.
    "room.leave" => RoomLeave(RoomLeave) reply "Changed",
    /// What the room is to the user alone: muted until some time, for good, or not.
    "room.mute" => RoomMute(RoomMute) reply "Changed",
    /// What the room is to the user alone: archived, or not.
    "room.archive" => RoomArchive(RoomArchive) reply "Changed",
    /// A page of a room's members, the longest-serving first.
    "room.members.list" => RoomMembersList(RoomMembersList) reply "MembersListed",
    /// Adds members to a group.
    "room.members.add" => RoomMembersAdd(RoomMembers) reply "Changed",
    /// Removes members from a group.
    "room.members.remove" => RoomMembersRemove(RoomMembers) reply "Changed",
    /// Gives members of a group another role.
    "room.role.set" => RoomRoleSet(RoomRoleSet) reply "Changed",
    /// Gives a group another title.
    "room.update" => RoomUpdate(RoomUpdate) reply "Changed",
    /// Sends a message.
    "message.send" => MessageSend(MessageSend) reply "Sent",
    /// Gives one's own message another text.
    "message.edit" => MessageEdit(MessageEdit) reply "MessageChanged",
    /// Makes a message a tombstone: its author, or an owner or admin of the group.
    "message.delete" => MessageDelete(MessageDelete) reply "MessageChanged",
    /// Puts an emoji on a message.
    "reaction.add" => ReactionAdd(ReactionChange) reply "MessageChanged",
    /// Takes it back.
    "reaction.remove" => ReactionRemove(ReactionChange) reply "MessageChanged",
    /// Pins a message: in a group its owner or an admin.
    "message.pin" => MessagePin(MessageNamed) reply "MessageChanged",
    /// Pins it no longer.
    "message.unpin" => MessageUnpin(MessageNamed) reply "MessageChanged",
    /// Tells those who run the service of a message, once.
    "message.report" => MessageReport(MessageNamed) reply "MessageChanged",
    /// The user is typing; no reply. To be said again every `typing_interval_ms` while it lasts.
    "typing.start" => TypingStart(TypingIn) reply "",
    /// The user types no more; no reply.
    "typing.stop" => TypingStop(TypingIn) reply "",
    /// The client has received all up to here; no reply. It only ever advances.
    "receipt.delivered" => ReceiptDelivered(ReceiptMarks) reply "",
    /// The user has read all up to here; no reply. It only ever advances.
    "receipt.read" => ReceiptRead(ReceiptMarks) reply "",
    /// Gives a ticket to bring a file with, for one message of this room.
    "upload.create" => UploadCreate(UploadCreate) reply "UploadTicket",
    /// Where files of messages can be fetched from, for a while.
    "attachment.urls" => AttachmentUrls(AttachmentUrls) reply "AttachmentUrlsTold",
    /// A page of a room's messages in their current state.
    "history.get" => HistoryGet(HistoryGet) reply "History",
    /// Messages by their words, in the rooms of the user.
    "search" => Search(Search) reply "SearchHits",
    /// How this connection is to be seen.
    "presence.set" => PresenceSet(PresenceSet) reply "PresenceIs",
    /// How these users are seen, and for 15 minutes how that changes.
    "presence.subscribe" => PresenceSubscribe(PresenceSubscribe) reply "PresenceSnapshot",
    /// Wants to hear nothing of a user, who is not told.
    "user.block" => UserBlock(UserBlock) reply "BlockSet",
    /// Wants no block of a user any more.
    "user.unblock" => UserUnblock(UserBlock) reply "BlockSet",
    /// Whom one blocks.
    "user.blocks" => UserBlocks(UserBlocks) reply "BlocksListed",
}

fn read<'a, T: Deserialize<'a>>(data: &'a str) -> Result<T, Refused> {
    // A derived `Deserialize` would take an array for the fields in their order.
    if !data.trim_start().starts_with('{') {
        let message = "`data` must be an object".to_owned();
        return Err(Refused {
            code: ErrorCode::BadRequest,
            message,
        });
    }
    sonic_rs::from_str(data).map_err(|error| Refused {
        code: ErrorCode::BadRequest,
        message: format!("data: {}", first_line(&error)),
    })
}

/// At most so many characters of it.
fn shortened(text: &str, chars: usize) -> &str {
    let mut indices = text.char_indices();
    let end = indices.nth(chars).map_or(text.len(), |(at, _)| at);
    &text[..end]
}

/// Who connects, and from which position on.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Auth {
    /// A JSON Web Token (RFC 7519).
    pub token: Text,
    /// The client's name for its device.
    #[serde(default)]
    pub device_id: Option<Text>,
    /// The client program.
    #[serde(default)]
    pub client: Option<ClientInfo>,
    /// The positions it has.
    #[serde(default)]
    pub resume: Option<Resume>,
}

/// The client program.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ClientInfo {
    /// Its name.
    pub name: Text,
    /// Its version.
    #[serde(default)]
    pub version: Option<Text>,
}

/// The positions of a client: per room, up to where it has every event.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Resume {
    /// The history that the positions belong to.
    pub epoch: Text,
    /// The position in each room, at most [`crate::limits::READY_ROOMS_MAX`] of them.
    #[serde(deserialize_with = "whole_by_room")]
    pub rooms: BTreeMap<RoomId, Seq>,
}

/// A new token for the same user.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct AuthRefresh {
    /// A JSON Web Token (RFC 7519).
    pub token: Text,
}

/// No data.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Nothing {}

/// A page of the user's rooms.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct RoomsList {
    /// `next_cursor` of the page before.
    #[serde(default)]
    pub cursor: Option<Text>,
    /// At most so many.
    #[serde(default)]
    pub limit: Option<u32>,
    /// Archived rooms instead.
    #[serde(default)]
    pub archived: Option<bool>,
}

/// A room to open.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct RoomCreate {
    /// Direct or group.
    pub kind: RoomKind,
    /// The other members: exactly one for a direct room.
    pub member_ids: Vec<UserId>,
    /// The title of a group.
    #[serde(default)]
    pub title: Option<Text>,
    /// The creator's name for it, which makes a retry the same room.
    pub client_room_id: Uuid,
}

/// A room to show.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct RoomGet {
    /// The room.
    pub room_id: RoomId,
}

/// A room to leave.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct RoomLeave {
    /// The room.
    pub room_id: RoomId,
}

/// A room to mute.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct RoomMute {
    /// The room.
    pub room_id: RoomId,
    /// Until when; absent: for good; null, or a time that has passed: not muted any more.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Option<UnixMs>")]
    pub until: Option<Option<UnixMs>>,
}

/// A value that is there, be it null.
pub(super) fn present<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A room to archive.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct RoomArchive {
    /// The room.
    pub room_id: RoomId,
    /// Absent: true.
    #[serde(default)]
    pub archived: Option<bool>,
}

/// A page of a room's members.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct RoomMembersList {
    /// The room.
    pub room_id: RoomId,
    /// `next_cursor` of the page before.
    #[serde(default)]
    pub cursor: Option<Text>,
    /// At most so many.
    #[serde(default)]
    pub limit: Option<u32>,
}

/// How far the user, or the client, is in rooms.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ReceiptMarks {
    /// Up to which `seq`, by room: at most [`crate::limits::RECEIPT_ROOMS_MAX`] rooms. A `seq` that the room
    /// does not have yet counts as its newest; rooms that the user is not a member of are passed over.
    #[serde(deserialize_with = "whole_by_room")]
    pub rooms: BTreeMap<RoomId, Seq>,
}

/// Members to add or to remove.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct RoomMembers {
    /// The room.
    pub room_id: RoomId,
    /// Who, at most [`crate::limits::USERS_PER_REQUEST_MAX`].
    pub user_ids: Vec<UserId>,
}

/// Members to give another role.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct RoomRoleSet {
    /// The room.
    pub room_id: RoomId,
    /// Who, at most [`crate::limits::USERS_PER_REQUEST_MAX`]; one if it is to be the owner.
    pub user_ids: Vec<UserId>,
    /// The role. Who makes another the owner becomes admin.
    pub role: Role,
}

/// Where somebody types.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct TypingIn {
    /// The room.
    pub room_id: RoomId,
}

/// What of a group is to be otherwise; at least one of the two is given.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct RoomUpdate {
    /// The room.
    pub room_id: RoomId,
    /// The title; null or empty: it has none from now on; absent: it stays.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Option<Text>")]
    pub title: Option<Option<Text>>,
    /// Where its picture is: a URL of `https:` or `http:`, at most [`crate::limits::PICTURE_BYTES_MAX`] bytes; null or
    /// empty: it has none from now on; absent: it stays.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Option<Text>")]
    pub picture: Option<Option<Text>>,
}

/// A message to send.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct MessageSend {
    /// The room.
    pub room_id: RoomId,
    /// The sender's name for it, unique in the room for good.
    pub client_msg_id: ClientMsgId,
    /// What it is.
    pub kind: SendKind,
    /// The text; without files there is one.
    #[serde(default)]
    pub text: Option<Text>,
    /// Its files, for every kind but `text`: at most [`crate::limits::ATTACHMENTS_MAX`], one for `voice`.
    #[serde(default)]
    pub attachments: Vec<SendAttachment>,
    /// The message it answers.
    #[serde(default, deserialize_with = "whole_or_none")]
    pub reply_to_seq: Option<Seq>,
    /// Members named in it, at most [`crate::limits::MENTIONS_MAX`]; `"all"` only by an owner or admin.
    #[serde(default)]
    pub mentions: Vec<Mention>,
}

/// A message's new text.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct MessageEdit {
    /// The room.
    pub room_id: RoomId,
    /// The message.
    #[serde(deserialize_with = "whole")]
    pub message_seq: Seq,
    /// The text.
    pub text: Text,
    /// Only if the message has this revision; otherwise `revision_conflict`.
    #[serde(default)]
    pub expected_revision: Option<u32>,
}

/// A message to delete.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct MessageDelete {
    /// The room.
    pub room_id: RoomId,
    /// The message.
    #[serde(deserialize_with = "whole")]
    pub message_seq: Seq,
    /// Only if the message has this revision; otherwise `revision_conflict`.
    #[serde(default)]
    pub expected_revision: Option<u32>,
}

/// An emoji to put on a message, or to take back.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ReactionChange {
    /// The room.
    pub room_id: RoomId,
    /// The message.
    #[serde(deserialize_with = "whole")]
    pub message_seq: Seq,
    /// One emoji; a spelling without its variation selector is taken for the full one.
    pub emoji: Text,
}

/// A message.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct MessageNamed {
    /// The room.
    pub room_id: RoomId,
    /// The message.
    #[serde(deserialize_with = "whole")]
    pub message_seq: Seq,
}

/// What can be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SendKind {
    /// Text.
    Text,
    /// Images.
    Image,
    /// Files.
    File,
    /// A voice note.
    Voice,
}

impl SendKind {
    /// Of what kind its files are; `None`: it has none.
    pub fn of_files(self) -> Option<UploadKind> {
        match self {
            SendKind::Text => None,
            SendKind::Image => Some(UploadKind::Image),
            SendKind::File => Some(UploadKind::File),
            SendKind::Voice => Some(UploadKind::Voice),
        }
    }
}

/// A page of messages: at most one of the three positions; none asks for the newest page.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct HistoryGet {
    /// The room.
    pub room_id: RoomId,
    /// Messages before this one.
    #[serde(default, deserialize_with = "whole_or_none")]
    pub before_seq: Option<Seq>,
    /// Messages created or changed after this event.
    #[serde(default, deserialize_with = "whole_or_none")]
    pub after_seq: Option<Seq>,
    /// Messages around this one.
    #[serde(default, deserialize_with = "whole_or_none")]
    pub around_seq: Option<Seq>,
    /// At most so many.
    #[serde(default)]
    pub limit: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (Option<RequestId>, &'static str) {
        let request = Request::parse(text);
        match request.command {
            Ok(command) => panic!("taken as {command:?}"),
            Err(refused) => (request.id, refused.code.name()),
        }
    }

    #[test]
    fn what_is_no_request_is_refused_with_its_id() {
        assert_eq!(refused(""), (None, "bad_request"));
        assert_eq!(refused("{\"id\":1"), (None, "bad_request"));
        assert_eq!(refused("[1]"), (None, "bad_request"));
        assert_eq!(refused("{\"id\":1}"), (None, "bad_request"));
        assert_eq!(
            refused("{\"id\":-1,\"type\":\"pong\"}"),
            (None, "bad_request")
        );
        assert_eq!(
            refused("{\"id\":9007199254740993,\"type\":\"pong\"}"),
            (None, "bad_request")
        );
        assert_eq!(
            refused("{\"id\":2,\"type\":\"nope\",\"data\":{}}"),
            (Some(2), "unknown_type")
        );
        assert_eq!(
            refused("{\"id\":3,\"type\":\"room.get\"}"),
            (Some(3), "bad_request")
        );
        assert_eq!(
            refused("{\"id\":3,\"type\":\"room.get\",\"data\":[]}"),
            (Some(3), "bad_request")
        );
        let by_position = "{\"id\":3,\"type\":\"rooms.list\",\"data\":[]}";
        assert_eq!(refused(by_position), (Some(3), "bad_request"));
        let not_a_uuid = "{\"id\":4,\"type\":\"room.get\",\"data\":{\"room_id\":\"x\"}}";
        assert_eq!(refused(not_a_uuid), (Some(4), "bad_request"));
        let broken_data = "{\"id\":4,\"type\":\"room.get\",\"data\":{\"room_id\":nul}}";
        assert_eq!(refused(broken_data).1, "bad_request");
        let nul = "{\"id\":5,\"type\":\"auth\",\"data\":{\"token\":\"a\\u0000b\"}}";
        assert_eq!(refused(nul), (Some(5), "bad_request"));
        let trailing = "{\"id\":6,\"type\":\"pong\"} x";
        assert_eq!(refused(trailing), (None, "bad_request"));
    }

    /// Found by fuzzing: a frame of 64 KiB was answered with one of six times the size.
    #[test]
    fn an_error_is_short_however_long_the_input_is() {
        let long = "\u{7f}".repeat(60_000);
        let inputs = [
            format!("\"{long}\""),
            format!("{{\"type\":\"{long}\"}}"),
            format!("{{\"type\":\"rooms.list\",\"data\":\"{long}\"}}"),
            format!("{{\"type\":\"room.get\",\"data\":{{\"room_id\":\"{long}\"}}}}"),
        ];
        for input in inputs {
            let refused = Request::parse(&input).command.expect_err("refused");
            assert!(refused.message.len() < 1_000, "{}", refused.message.len());
        }
    }

    #[test]
    fn nesting_has_a_limit_and_brackets_in_strings_do_not_count() {
        for open in ["[", "{\"a\":"] {
            let unclosed = open.repeat(60_000);
            assert_eq!(refused(&unclosed), (None, "bad_request"));
            let in_data = format!("{{\"type\":\"rooms.list\",\"data\":{unclosed}");
            assert_eq!(refused(&in_data), (None, "bad_request"));
        }
        let text = "\\\"[{".repeat(1_000);
        let request = format!("{{\"x\":\"{text}\",\"type\":\"pong\"}}");
        assert!(Request::parse(&request).command.is_ok());
        let levels = limits::JSON_DEPTH_MAX as usize;
        let nested = |levels: usize| {
            let (open, close) = ("[".repeat(levels), "]".repeat(levels));
            format!("{{\"x\":{open}{close},\"type\":\"pong\"}}")
        };
        assert!(Request::parse(&nested(levels - 1)).command.is_ok());
        assert_eq!(refused(&nested(levels)), (None, "bad_request"));
    }

    #[test]
    fn numbers_are_taken_up_to_those_that_json_carries_whole() {
        const ID: &str = "00000000-0000-0000-0000-000000000001";
        let on = |name: &str, field: &str| (name.to_owned(), format!("\"{field}\":"), "");
        let mut places = vec![
            ("receipt.read".to_owned(), format!("\"rooms\":{{\"{ID}\":"), "}"),
            ("receipt.delivered".to_owned(), format!("\"rooms\":{{\"{ID}\":"), "}"),
            (
                "auth".to_owned(),
                format!("\"token\":\"x\",\"resume\":{{\"epoch\":\"e\",\"rooms\":{{\"{ID}\":"),
                "}}",
            ),
            (
                "message.send".to_owned(),
                "\"attachments\":[{\"upload_id\":\"00000000-0000-0000-0000-000000000001\",\"duration_ms\":"
                    .to_owned(),
                "}]",
            ),
            on("upload.create", "size"),
            on("message.send", "reply_to_seq"),
            on("history.get", "before_seq"),
            on("history.get", "after_seq"),
            on("history.get", "around_seq"),
        ];
        for name in ["edit", "delete", "pin", "unpin", "report"] {
            places.push(on(&format!("message.{name}"), "message_seq"));
        }
        for name in ["reaction.add", "reaction.remove"] {
            places.push(on(name, "message_seq"));
        }
        for (name, open, close) in places {
            let parsed = |number: u64| {
                let data = format!(
                    "{{\"room_id\":\"{ID}\",\"client_msg_id\":\"{ID}\",\"kind\":\"file\",\"name\":\"a\",\
                     \"content_type\":\"a/b\",\"text\":\"a\",\"emoji\":\"x\",{open}{number}{close}}}"
                );
                Command::read(&name, &data)
            };
            parsed(JSON_INTEGER_MAX).unwrap_or_else(|refused| panic!("{name} {open} {refused:?}"));
            for number in [JSON_INTEGER_MAX + 1, u64::MAX] {
                let refused = parsed(number).expect_err("too large");
                assert_eq!(refused.code, ErrorCode::BadRequest, "{name} {open}");
                assert!(
                    refused.message.contains("above 2^53"),
                    "{}",
                    refused.message
                );
            }
        }
    }

    #[test]
    fn unknown_fields_are_ignored_and_order_does_not_matter() {
        let request =
            Request::parse("{\"x\":[{}],\"data\":{\"y\":1},\"type\":\"pong\",\"id\":null}");
        assert_eq!(request.id, None);
        assert!(matches!(request.command, Ok(Command::Pong(_))));
    }

    #[test]
    fn escapes_in_text_are_read() {
        let request = Request::parse(
            "{\"id\":1,\"type\":\"message.send\",\"data\":{\"room_id\":\"00000000-0000-0000-0000-000000000001\",\
             \"client_msg_id\":\"00000000-0000-0000-0000-000000000002\",\"kind\":\"text\",\
             \"text\":\"a\\\"\\u00e9\\ud83d\\ude00\\\\u0000\"}}",
        );
        match request.command {
            Ok(Command::MessageSend(send)) => {
                assert_eq!(send.text.as_deref(), Some("a\"é😀\\u0000"));
            }
            other => panic!("{other:?}"),
        }
    }
}
