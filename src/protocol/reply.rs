//! Replies: what answers a request.

use super::error::ErrorCode;
use super::ids::{ClientMsgId, Epoch, RequestId, RoomId, Seq, UserId};
use super::time::UnixMs;
use super::view::{ListedRoom, Member, Message, OwnView, Room, RoomKind, Watermark};
use schemars::JsonSchema;
use serde::Serialize;

/// JSON of one of our own types. It cannot fail: none of them has a map with keys that are not
/// strings, or a `Serialize` of its own that refuses.
pub(crate) fn json<T: Serialize>(value: &T) -> String {
    sonic_rs::to_string(value).expect("our own types are serialisable")
}

#[derive(Serialize)]
struct ReplyFrame<'a, T: Serialize> {
    id: RequestId,
    r#type: &'static str,
    data: &'a T,
}

/// `ack` with data.
pub fn ack<T: Serialize>(id: RequestId, data: &T) -> String {
    json(&ReplyFrame {
        id,
        r#type: "ack",
        data,
    })
}

/// `ready`: the reply to `auth`. Without an `id` in the request it comes as id 0.
pub fn ready(id: RequestId, data: &Ready) -> String {
    json(&ReplyFrame {
        id,
        r#type: "ready",
        data,
    })
}

/// `error`. Without an `id` (the frame was no request) `id` is null.
pub fn error(
    id: Option<RequestId>,
    code: ErrorCode,
    message: &str,
    retry_after_ms: Option<u64>,
) -> String {
    let error = ErrorBody {
        code,
        message,
        temporary: code.temporary(),
        retry_after_ms,
    };
    json(&ErrorFrame {
        id,
        r#type: "error",
        error,
    })
}

#[derive(Serialize)]
struct ErrorFrame<'a> {
    id: Option<RequestId>,
    r#type: &'static str,
    error: ErrorBody<'a>,
}

/// What an error reply says.
#[derive(Serialize, JsonSchema)]
pub struct ErrorBody<'a> {
    /// Why.
    pub code: ErrorCode,
    /// For the developer of the client.
    pub message: &'a str,
    /// Whether the same request can succeed later.
    pub temporary: bool,
    /// When to try again, ms from now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// `data` of `ready`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Ready {
    /// Whom the token names.
    pub user_id: UserId,
    /// This connection, for support.
    pub connection_id: String,
    /// This node.
    pub node: String,
    /// The history that positions belong to.
    pub epoch: Epoch,
    /// The server's clock.
    pub server_time: UnixMs,
    /// When the token ends.
    pub token_expires_at: UnixMs,
    /// The limits in force.
    pub limits: Limits,
    /// At most [`crate::limits::READY_ROOMS_MAX`] rooms: those of `resume` first, then by activity.
    pub rooms: Vec<ReadyRoom>,
    /// Whether there are more, which `rooms.list` gives.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rooms_more: bool,
    /// What the node does not do for now, because it has too much to do: `typing`, `presence`, `receipts`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paused: Vec<&'static str>,
}

/// The limits in force.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct Limits {
    /// Largest frame taken, bytes.
    pub frame_bytes: usize,
    /// Rooms of one user.
    pub rooms_per_user: usize,
    /// Characters of one message.
    pub text_chars: usize,
    /// Sends of one user in 10 s, over all connections of a node and HTTP together.
    pub sends_per_10s: u32,
    /// Commands of one user in 10 s, sends included, counted the same way.
    pub commands_per_10s: u32,
    /// How often to say `typing.start` while it lasts, ms; more often tells nobody anything.
    pub typing_interval_ms: u64,
    /// A ping is sent after this silence, ms.
    pub ping_interval_ms: u64,
    /// And must be answered in this time, ms.
    pub ping_timeout_ms: u64,
    /// Events replayed per room.
    pub replay_max: usize,
    /// Messages of one history page.
    pub history_page_max: usize,
    /// `commit`: an ack means that the message is on disk; `relaxed` where the store is set to
    /// promise less.
    pub durability: &'static str,
}

/// A room as `ready` tells it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ReadyRoom {
    /// The room.
    pub room_id: RoomId,
    /// Direct or group; absent for a room that the user is not a member of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<RoomKind>,
    /// What live events continue from.
    pub last_seq: Seq,
    /// Read up to here.
    pub read_seq: Seq,
    /// Messages after it, of others, not deleted, counted up to [`crate::limits::UNREAD_MAX`].
    pub unread: u32,
    /// Whether every missed event is replayed.
    pub recovered: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<NotRecovered>,
    /// First event replayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_seq: Option<Seq>,
    /// Last event replayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_seq: Option<Seq>,
    /// The room is muted until then; `9999-12-31T23:59:59.999Z`: for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub muted_until: Option<UnixMs>,
    /// The room is archived, until the next message of a person; while it is muted, also after it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub archived: bool,
    /// The members' watermarks, in rooms of up to
    /// [`crate::limits::READY_WATERMARK_MEMBERS_MAX`] members.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub watermarks: Vec<Watermark>,
}

/// Why a room was not recovered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NotRecovered {
    /// The missed events are no longer kept.
    PositionExpired,
    /// More than is replayed; `history.get` has it.
    TooMuch,
    /// The history was replaced: discard and reload.
    EpochChanged,
    /// The user is not a member of the room.
    NotAMember,
    /// The client named no position in it.
    NotRequested,
    /// The client is ahead of the store: discard and reload.
    AheadOfServer,
}

/// `data` of the ack of `auth.refresh`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Refreshed {
    /// When the new token ends.
    pub token_expires_at: UnixMs,
}

/// `data` of the ack of `message.send`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Sent {
    /// As sent.
    pub client_msg_id: ClientMsgId,
    /// The room.
    pub room_id: RoomId,
    /// The message's identity.
    pub seq: Seq,
    /// When it was committed.
    pub ts: UnixMs,
    /// Whether it had been committed before.
    pub duplicate: bool,
}

/// `data` of the ack of a change.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Changed {
    /// The room.
    pub room_id: RoomId,
    /// Whether there was anything to change.
    pub changed: bool,
    /// The last event of the change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<Seq>,
}

/// `data` of the ack of a change of one message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct MessageChanged {
    /// The room.
    pub room_id: RoomId,
    /// The message.
    pub message_seq: Seq,
    /// Whether there was anything to change.
    pub changed: bool,
    /// The last event that changed the message: that of this change, or an earlier one.
    pub seq: Seq,
    /// The message's revision after it.
    pub revision: u32,
}

/// `data` of the ack of `room.create`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RoomCreated {
    /// The room.
    pub room: Room,
    /// Whether it is new.
    pub created: bool,
}

/// `data` of the ack of `room.get`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RoomGot {
    /// The room.
    pub room: Room,
    /// What it is to the user who asks.
    #[serde(flatten)]
    pub own: OwnView,
}

/// `data` of the ack of `room.members.list`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct MembersListed {
    /// Longest-serving first.
    pub members: Vec<Member>,
    /// For the next page, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// `data` of the ack of `rooms.list`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RoomsListed {
    /// By last activity, newest first.
    pub rooms: Vec<ListedRoom>,
    /// For the next page, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// `data` of the ack of `history.get`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct History {
    /// The messages: by `seq`, with `after_seq` by `changed_seq`.
    pub messages: Vec<Message>,
    /// Whether the page ends before the end.
    pub has_more: bool,
    /// The room's newest event, read in the same snapshot.
    pub last_seq: Seq,
    /// With `after_seq`: where to go on; `last_seq` on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_after_seq: Option<Seq>,
    /// Messages with `seq` ≤ this are no longer kept: who holds any of them discards them. Not there: all are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor_seq: Option<Seq>,
}
