//! Events: what a client is told without having asked.
//!
//! A durable event has `room_id`, `seq` and `ts`; an ephemeral one has none of them, or only
//! `room_id`. None holds anything that depends on who receives it, so one encoded frame serves
//! everybody; the few that are meant for one connection say so in their name.

use super::block::BlocksUpdated;
use super::ids::{RoomId, Seq, UserId};
use super::presence::PresenceUpdated;
use super::reply::NotRecovered;
use super::time::UnixMs;
use super::view::{
    MemberJoined, MemberLeft, MemberRoleChanged, Message, OwnView, Room, RoomUpdated, UserErased,
    Watermark,
};
use super::websocket;
use schemars::JsonSchema;
use serde::Serialize;

/// A durable event of a room: it has the room's next `seq`.
#[derive(Clone, PartialEq, Debug)]
pub struct RoomEvent {
    /// The room.
    pub room_id: RoomId,
    /// Its place in the room.
    pub seq: Seq,
    /// When it was committed, by the store's clock; never decreases within a room.
    pub ts: UnixMs,
    /// What happened.
    pub body: RoomEventBody,
}

/// `data` of a durable event.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RoomEventBody {
    /// `message.created`.
    MessageCreated {
        /// Which message: the event's own `seq`.
        message_seq: Seq,
        /// The message.
        message: Box<Message>,
    },
    /// `room.created`.
    RoomCreated {
        /// The room as it was opened.
        room: Box<Room>,
    },
    /// `member.joined`.
    MemberJoined(MemberJoined),
    /// `member.left`.
    MemberLeft(MemberLeft),
    /// `member.role_changed`.
    MemberRoleChanged(MemberRoleChanged),
    /// `room.updated`.
    RoomUpdated(RoomUpdated),
    /// `message.updated`: an edit.
    MessageUpdated {
        /// Which message.
        message_seq: Seq,
        /// The message in its current state: told again later, it may be newer than the event.
        message: Box<Message>,
    },
    /// `message.deleted`.
    MessageDeleted(MessageDeleted),
    /// `reaction.updated`.
    ReactionUpdated(ReactionUpdated),
    /// `message.pinned`.
    MessagePinned(MessagePinned),
    /// `message.unpinned`.
    MessageUnpinned(MessageUnpinned),
    /// A user was erased, with all they wrote here.
    UserErased(UserErased),
}

/// A message became a tombstone: its text, mentions, reactions and pin are gone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct MessageDeleted {
    /// Which message.
    pub message_seq: Seq,
    /// Who did it.
    pub actor_id: UserId,
    /// When; `deleted_at` of the message.
    pub deleted_at: UnixMs,
}

/// An emoji was put on a message, or taken back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct ReactionUpdated {
    /// Which message.
    pub message_seq: Seq,
    /// Who did it.
    pub user_id: UserId,
    /// The emoji, spelt in full.
    pub emoji: String,
    /// Put, or taken back.
    pub added: bool,
    /// How many users put it, as of this event.
    pub count: u32,
}

/// A message was pinned.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct MessagePinned {
    /// Which message.
    pub message_seq: Seq,
    /// Who did it.
    pub actor_id: UserId,
}

/// A message is no longer pinned.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct MessageUnpinned {
    /// Which message.
    pub message_seq: Seq,
    /// Who did it.
    pub actor_id: UserId,
}

impl RoomEventBody {
    /// The `type` of the event.
    pub fn name(&self) -> &'static str {
        match self {
            RoomEventBody::MessageCreated { .. } => "message.created",
            RoomEventBody::RoomCreated { .. } => "room.created",
            RoomEventBody::MemberJoined(_) => "member.joined",
            RoomEventBody::MemberLeft(_) => "member.left",
            RoomEventBody::MemberRoleChanged(_) => "member.role_changed",
            RoomEventBody::RoomUpdated(_) => "room.updated",
            RoomEventBody::MessageUpdated { .. } => "message.updated",
            RoomEventBody::MessageDeleted(_) => "message.deleted",
            RoomEventBody::ReactionUpdated(_) => "reaction.updated",
            RoomEventBody::MessagePinned(_) => "message.pinned",
            RoomEventBody::MessageUnpinned(_) => "message.unpinned",
            RoomEventBody::UserErased(_) => "user.erased",
        }
    }

    /// The message that it creates or shows anew.
    pub fn message(&self) -> Option<&Message> {
        match self {
            RoomEventBody::MessageCreated { message, .. }
            | RoomEventBody::MessageUpdated { message, .. } => Some(message),
            RoomEventBody::RoomCreated { .. }
            | RoomEventBody::MemberJoined(_)
            | RoomEventBody::MemberLeft(_)
            | RoomEventBody::MemberRoleChanged(_)
            | RoomEventBody::RoomUpdated(_)
            | RoomEventBody::MessageDeleted(_)
            | RoomEventBody::ReactionUpdated(_)
            | RoomEventBody::MessagePinned(_)
            | RoomEventBody::MessageUnpinned(_)
            | RoomEventBody::UserErased(_) => None,
        }
    }
}

#[derive(Serialize)]
struct DurableFrame<'a> {
    r#type: &'static str,
    room_id: RoomId,
    seq: Seq,
    ts: UnixMs,
    data: &'a RoomEventBody,
}

impl RoomEvent {
    /// The event as JSON, the same for every recipient.
    pub fn to_json(&self) -> String {
        let RoomEvent {
            room_id,
            seq,
            ts,
            body,
        } = self;
        let frame = DurableFrame {
            r#type: body.name(),
            room_id: *room_id,
            seq: *seq,
            ts: *ts,
            data: body,
        };
        super::reply::json(&frame)
    }
}

/// An event without `seq`.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
#[serde(tag = "type", content = "data")]
pub enum Notice {
    /// To one connection: it receives this room's events from now on.
    #[serde(rename = "room.added")]
    RoomAdded(RoomAdded),
    /// To one connection: it receives nothing more of this room.
    #[serde(rename = "room.removed")]
    RoomRemoved(RoomRemoved),
    /// To one connection: users it asked for are seen otherwise.
    #[serde(rename = "presence.updated")]
    PresenceUpdated(PresenceUpdated),
    /// To a user's own other connections: what a room is to the user has changed.
    #[serde(rename = "unread.updated")]
    UnreadUpdated(UnreadUpdated),
    /// To the connections of one user: whom they block has changed.
    #[serde(rename = "user.blocks.updated")]
    BlocksUpdated(BlocksUpdated),
    /// To everybody who shares a room with a user, and the user: they are called otherwise, or look so.
    #[serde(rename = "user.updated")]
    UserUpdated(UserUpdated),
    /// The node stops soon.
    #[serde(rename = "server.draining")]
    ServerDraining(ServerDraining),
    /// To one connection: the last event before a 41xx close.
    #[serde(rename = "server.closing")]
    ServerClosing(ServerClosing),
}

impl Notice {
    /// The event as JSON.
    pub fn to_json(&self) -> String {
        super::reply::json(self)
    }
}

/// An event of a room without `seq`.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
#[serde(tag = "type")]
pub enum RoomNotice {
    /// Who is typing: all of them.
    #[serde(rename = "typing.updated")]
    TypingUpdated {
        /// The room.
        room_id: RoomId,
        /// Who.
        data: TypingUpdated,
    },
    /// What somebody has received and read by now. Watermarks only advance: of two the greater holds.
    #[serde(rename = "receipt.updated")]
    ReceiptUpdated {
        /// The room.
        room_id: RoomId,
        /// Whose, and how far.
        data: Watermark,
    },
    /// To one connection: events up to a `seq` will not come; `history.get after_seq` has what there is of them.
    #[serde(rename = "room.gap")]
    RoomGap {
        /// The room.
        room_id: RoomId,
        /// How far, and why.
        data: RoomGap,
    },
}

impl RoomNotice {
    /// The event as JSON.
    pub fn to_json(&self) -> String {
        super::reply::json(self)
    }
}

/// `data` of `typing.updated`.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct TypingUpdated {
    /// Everybody who is typing, the reader included.
    pub user_ids: Vec<UserId>,
}

/// `data` of `unread.updated`.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct UnreadUpdated {
    /// The room.
    pub room_id: RoomId,
    /// What it is to the user by now.
    #[serde(flatten)]
    pub own: OwnView,
}

/// `data` of `room.added`.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct RoomAdded {
    /// The room.
    pub room: Room,
    /// The connection's events begin after it.
    pub last_seq: Seq,
    /// Read up to here, by this user.
    pub read_seq: Seq,
}

/// `data` of `room.removed`.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct RoomRemoved {
    /// The room.
    pub room_id: RoomId,
}

/// `data` of `room.gap`.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct RoomGap {
    /// Events go on after it.
    pub last_seq: Seq,
    /// Why.
    pub reason: NotRecovered,
}

/// `data` of `user.updated`.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct UserUpdated {
    /// Who.
    pub user_id: UserId,
    /// What they are called.
    pub name: String,
    /// What they look like; null: there is no picture.
    pub picture: Option<String>,
    /// Of two the greater holds.
    #[schemars(range(max = 9_007_199_254_740_992_u64))]
    pub version: u64,
}

/// `data` of `server.draining`.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct ServerDraining {
    /// When this connection should reconnect, spread over all of them, ms from now.
    pub reconnect_after_ms: u64,
}

/// `data` of `server.closing`.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct ServerClosing {
    /// The close code that follows.
    pub code: u16,
    /// When to come back, ms from now.
    pub retry_after_ms: u64,
}

/// The server's ping. The client answers `{"type":"pong"}`.
pub const PING_JSON: &str = "{\"type\":\"ping\"}";

/// Names of the durable events and whose schema their data has, for the AsyncAPI document.
pub const DURABLE_NAMES: &[&str] = &[
    "message.created",
    "room.created",
    "member.joined",
    "member.left",
    "member.role_changed",
    "room.updated",
    "message.updated",
    "message.deleted",
    "reaction.updated",
    "message.pinned",
    "message.unpinned",
    "user.erased",
];

/// Whether this event changes who is subscribed, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Membership {
    /// From this event on the user is a member.
    Joined(UserId),
    /// This is the last event for this user.
    Left(UserId),
    /// The same, and of what this user wrote before nothing may be told again.
    Erased(UserId),
}

/// A durable event as everybody gets it, encoded once: what the gate orders, what is fanned out, and
/// what other nodes are told.
#[derive(Clone, PartialEq, Debug)]
pub struct EncodedEvent {
    /// Its place in the room.
    pub seq: Seq,
    /// How it changes who listens.
    pub membership: Option<Membership>,
    /// A whole text frame, header and payload.
    pub frame: Box<[u8]>,
}

impl EncodedEvent {
    /// The one encoding of an event.
    pub fn of(event: &RoomEvent) -> EncodedEvent {
        EncodedEvent {
            seq: event.seq,
            membership: event.membership(),
            frame: websocket::encode_text(&event.to_json()),
        }
    }
}

impl RoomEvent {
    /// The change of membership that this event makes, if any.
    pub fn membership(&self) -> Option<Membership> {
        match &self.body {
            RoomEventBody::MemberJoined(joined) => Some(Membership::Joined(joined.user_id)),
            RoomEventBody::MemberLeft(left) => Some(Membership::Left(left.user_id)),
            RoomEventBody::UserErased(erased) => Some(Membership::Erased(erased.user_id)),
            RoomEventBody::MessageCreated { .. }
            | RoomEventBody::RoomCreated { .. }
            | RoomEventBody::MemberRoleChanged(_)
            | RoomEventBody::RoomUpdated(_)
            | RoomEventBody::MessageUpdated { .. }
            | RoomEventBody::MessageDeleted(_)
            | RoomEventBody::ReactionUpdated(_)
            | RoomEventBody::MessagePinned(_)
            | RoomEventBody::MessageUnpinned(_) => None,
        }
    }
}
