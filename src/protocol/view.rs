//! What is shown of rooms, members and messages, the same to everybody who may see it.

use super::request::present;
use super::upload::UploadKind;
use super::{ClientMsgId, RoomId, Seq, UnixMs, UploadId, UserId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The kind of a room.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RoomKind {
    /// Exactly two users; unique per pair; cannot be left.
    Direct,
    /// Any number of users, with an owner.
    Group,
}

impl RoomKind {
    /// As it stands on the wire and in the store.
    pub fn name(self) -> &'static str {
        match self {
            RoomKind::Direct => "direct",
            RoomKind::Group => "group",
        }
    }

    /// The inverse of [`RoomKind::name`].
    pub fn from_name(name: &str) -> Option<RoomKind> {
        [RoomKind::Direct, RoomKind::Group]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

/// What a member may do.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads and writes.
    Member,
    /// Also adds and removes members.
    Admin,
    /// Also removes admins; there is one.
    Owner,
}

impl Role {
    /// As it stands on the wire and in the store.
    pub fn name(self) -> &'static str {
        match self {
            Role::Member => "member",
            Role::Admin => "admin",
            Role::Owner => "owner",
        }
    }

    /// The inverse of [`Role::name`].
    pub fn from_name(name: &str) -> Option<Role> {
        [Role::Member, Role::Admin, Role::Owner]
            .into_iter()
            .find(|role| role.name() == name)
    }
}

/// The kind of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    /// Written by a person.
    Text,
    /// One image or several, maybe with a text.
    Image,
    /// One file or several, maybe with a text.
    File,
    /// A voice note, maybe with a text.
    Voice,
    /// A change of the room or its members, which stands in the history by its own `seq`.
    System,
}

impl MessageKind {
    /// As it stands on the wire and in the store.
    pub fn name(self) -> &'static str {
        match self {
            MessageKind::Text => "text",
            MessageKind::Image => "image",
            MessageKind::File => "file",
            MessageKind::Voice => "voice",
            MessageKind::System => "system",
        }
    }

    /// The inverse of [`MessageKind::name`].
    pub fn from_name(name: &str) -> Option<MessageKind> {
        [
            MessageKind::Text,
            MessageKind::Image,
            MessageKind::File,
            MessageKind::Voice,
            MessageKind::System,
        ]
        .into_iter()
        .find(|kind| kind.name() == name)
    }
}

impl From<UploadKind> for MessageKind {
    fn from(kind: UploadKind) -> MessageKind {
        match kind {
            UploadKind::Image => MessageKind::Image,
            UploadKind::File => MessageKind::File,
            UploadKind::Voice => MessageKind::Voice,
        }
    }
}

/// A message, named by its room and the `seq` it was created with, in its current state.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct Message {
    /// The event that created it: its identity.
    pub seq: Seq,
    /// Who wrote it, or caused what a system message tells.
    pub sender_id: UserId,
    /// The sender's name for it; null for system messages.
    pub client_msg_id: Option<ClientMsgId>,
    /// What it is.
    pub kind: MessageKind,
    /// The text; null when there is none.
    pub text: Option<String>,
    /// For `system`: the event it stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<SystemEvent>,
    /// Files.
    pub attachments: Vec<Attachment>,
    /// The message this one answers.
    pub reply_to_seq: Option<Seq>,
    /// Who is named in it.
    pub mentions: Vec<Mention>,
    /// How often each emoji was put.
    pub reactions: BTreeMap<String, Reaction>,
    /// The last event that changed it.
    pub changed_seq: Seq,
    /// 1 when created, one more with each edit.
    pub revision: u32,
    /// When its text was last changed.
    pub edited_at: Option<UnixMs>,
    /// When it became a tombstone.
    pub deleted_at: Option<UnixMs>,
    /// When it was committed, by the store's clock.
    pub created_at: UnixMs,
}

/// What a system message stands for: the type and the data of its event.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type")]
pub enum SystemEvent {
    /// The room was opened.
    #[serde(rename = "room.created")]
    RoomCreated {
        /// Who opened it.
        actor_id: UserId,
    },
    /// A user became a member.
    #[serde(rename = "member.joined")]
    MemberJoined(MemberJoined),
    /// A user is no longer a member.
    #[serde(rename = "member.left")]
    MemberLeft(MemberLeft),
    /// A member's role changed.
    #[serde(rename = "member.role_changed")]
    MemberRoleChanged(MemberRoleChanged),
    /// The room has another title.
    #[serde(rename = "room.updated")]
    RoomUpdated(RoomUpdated),
    /// A user was erased.
    #[serde(rename = "user.erased")]
    UserErased(UserErased),
}

/// A user was erased: whatever they wrote in this room is a tombstone without an author, and they are a member
/// no longer. One event says so of all their messages: none of these gets a new `changed_seq`.
///
/// Of `user_id` and of `erased_as` alike: their messages have no text, mentions, attachments and reactions, and are
/// unpinned; `deleted_at` is that of this event where they had none; the author is `erased_as`, who is nobody.
/// Mentions of the user are gone from others' messages, and of the user's reactions the event says what is left.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct UserErased {
    /// Who was.
    pub user_id: UserId,
    /// Who stands in this room where they stood: an id of nobody, another one in each room.
    pub erased_as: UserId,
    /// When it was asked for: the `deleted_at` of their messages.
    pub deleted_at: UnixMs,
    /// The new owner of a group whose owner they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_id: Option<UserId>,
    /// What is left where they had put an emoji; this event's `seq` is the `changed_seq` of these messages. The
    /// newest messages, at most 200 of these.
    pub reactions: Vec<ReactionLeft>,
    /// There are more such messages: `history.get` with `after_seq` one below this event's `seq` has them.
    pub reactions_more: bool,
}

/// How often an emoji is on a message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ReactionLeft {
    /// The message.
    pub message_seq: Seq,
    /// The emoji.
    pub emoji: String,
    /// How often it is there now; 0: no longer.
    pub count: u32,
}

/// A room has another title, or another picture.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RoomUpdated {
    /// The title from now on; null: none; absent: as before.
    #[serde(default, deserialize_with = "present")]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub title: Option<Option<String>>,
    /// Where the picture is from now on; null: there is none; absent: as before.
    #[serde(default, deserialize_with = "present")]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub picture: Option<Option<String>>,
    /// Who did it.
    pub actor_id: UserId,
}

/// A user became a member.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MemberJoined {
    /// The new member.
    pub user_id: UserId,
    /// The new member's name at the time.
    pub name: String,
    /// The new member's role.
    pub role: Role,
    /// Who added them.
    pub actor_id: UserId,
}

/// A user is no longer a member: left, or was removed by `actor_id`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MemberLeft {
    /// Who is gone.
    pub user_id: UserId,
    /// Who did it: the same user for a leave.
    pub actor_id: UserId,
}

/// A member's role changed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MemberRoleChanged {
    /// Whose.
    pub user_id: UserId,
    /// The role from now on.
    pub role: Role,
    /// Who did it.
    pub actor_id: UserId,
}

/// A file of a message; where it can be fetched from `attachment.urls` says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Attachment {
    /// The upload.
    pub upload_id: UploadId,
    /// What its owner calls it.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// What it is, as far as its first bytes say.
    pub content_type: String,
    /// Pixels from left to right, as its sender says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Pixels from top to bottom, as its sender says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// How long it lasts, ms, as its sender says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// What to show until it is there, as its sender says: a blur hash or the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placeholder: Option<String>,
}

/// How often an emoji was put on a message.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, JsonSchema)]
pub struct Reaction {
    /// How many users put it.
    pub count: u32,
    /// Whether the user who asks is one of them; only in replies, since an event holds nothing that
    /// depends on who receives it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mine: Option<bool>,
}

/// Who is named in a message: a member's id, or `"all"`.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema,
)]
#[serde(untagged)]
pub enum Mention {
    /// Every member.
    All(All),
    /// One of them.
    User(UserId),
}

/// The word for every member.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema,
)]
pub enum All {
    /// `"all"`.
    #[serde(rename = "all")]
    All,
}

/// A message that the room keeps in sight.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Pin {
    /// The message.
    pub message_seq: Seq,
    /// Who pinned it.
    pub pinned_by: UserId,
    /// When.
    pub pinned_at: UnixMs,
}

/// A member as shown in a room.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct Member {
    /// The user.
    pub user_id: UserId,
    /// The user's name.
    pub name: String,
    /// The user's role in the room.
    pub role: Role,
    /// Read up to here.
    pub read_seq: Seq,
    /// Received up to here.
    pub delivered_seq: Seq,
}

/// A room.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct Room {
    /// The room.
    pub room_id: RoomId,
    /// Direct or group.
    pub kind: RoomKind,
    /// The title of a group.
    pub title: Option<String>,
    /// Where the picture of a group is: a URL.
    pub picture: Option<String>,
    /// When it was opened.
    pub created_at: UnixMs,
    /// Its newest event.
    pub last_seq: Seq,
    /// How many members it has.
    pub member_count: u32,
    /// The longest-serving of them, at most [`crate::limits::ROOM_MEMBERS_SHOWN_MAX`].
    pub members: Vec<Member>,
    /// Its pinned messages, the last pinned first; not in `rooms.list`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pins: Option<Vec<Pin>>,
}

/// What a room is to one of its members alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct OwnView {
    /// Read up to here, by this user.
    pub read_seq: Seq,
    /// Messages after it, of others, not deleted, counted up to [`crate::limits::UNREAD_MAX`].
    pub unread: u32,
    /// The room is muted until then; `9999-12-31T23:59:59.999Z`: for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub muted_until: Option<UnixMs>,
    /// The room is archived, until the next message of a person; while it is muted, also after it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub archived: bool,
}

/// A room in the list of a user.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct ListedRoom {
    /// The room, with a preview of its members.
    #[serde(flatten)]
    pub room: Room,
    /// What it is to the user who asks.
    #[serde(flatten)]
    pub own: OwnView,
    /// The newest message; null in an empty room.
    pub last_message: Option<Message>,
}

/// A member's watermarks, as `ready` brings them for small rooms.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Watermark {
    /// The member.
    pub user_id: UserId,
    /// Read up to here.
    pub read_seq: Seq,
    /// Received up to here.
    pub delivered_seq: Seq,
}
