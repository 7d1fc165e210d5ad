//! The Admin API: what those who run the service ask by HTTP with a service token, and what they are told.
//!
//! To add an endpoint: its type and one line in the table of [`AdminRequest`], and who answers it in
//! `api::admin`. The routes and the OpenAPI document follow.

pub use super::admin_hooks::{
    AdminHook, AdminHookDone, AdminHookReplay, AdminHookState, AdminHooks, AdminHooksEnable,
    AdminHooksList,
};
use super::error::ErrorCode;
use super::export::AdminArchive;
use super::http::{Endpoint, Method, endpoint};
use super::ids::{RoomId, Seq, UserId};
use super::presence::PresenceState;
use super::request::{self, Refused};
use super::text::Text;
use super::time::UnixMs;
use super::view::{Role, RoomKind};
use super::webhook::WebhookSource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The user in whose name the service itself acts: nobody, the nil UUID. `actor_id` of what a moderator did.
pub const SERVICE: UserId = UserId(Uuid::nil());

macro_rules! admin_requests {
    ($( $(#[doc = $doc:literal])* $method:ident $path:literal $name:literal => $variant:ident($data:ty) answer $answer:ty, )*) => {
        /// What is asked with a service token.
        #[derive(Debug)]
        pub enum AdminRequest { $( $(#[doc = $doc])* $variant($data), )* }

        /// All endpoints of the Admin API. Those of one path stand together.
        pub const ENDPOINTS: &[Endpoint] = &[ $( endpoint(Method::$method, $path, $name), )* ];

        impl AdminRequest {
            /// Reads the data of the request of this name.
            ///
            /// # Errors
            /// Why it is none.
            pub fn read(name: &str, data: &str) -> Result<AdminRequest, Refused> {
                match name {
                    $( $name => request::read_data::<$data>(data).map(AdminRequest::$variant), )*
                    _ => Err(Refused {
                        code: ErrorCode::UnknownType,
                        message: "no such request".to_owned(),
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

            /// The schema of each request's fields, by name.
            pub fn schemas(generator: &mut schemars::SchemaGenerator)
                -> Vec<(&'static str, schemars::Schema)>
            {
                vec![ $( ($name, generator.subschema_for::<$data>()), )* ]
            }

            /// The schema of each answer, by the request's name.
            pub fn answers(generator: &mut schemars::SchemaGenerator)
                -> Vec<(&'static str, schemars::Schema)>
            {
                vec![ $( ($name, generator.subschema_for::<$answer>()), )* ]
            }
        }
    };
}

admin_requests! {
    /// Users by id, those whose id, or a part of whose name, is asked for. A page may have fewer than
    /// `limit`, or none, and go on all the same: only without `next_cursor` it is the last.
    Get "/v1/admin/users" "admin.users.list" => UsersList(AdminList) answer AdminUsers,
    /// One user: profile, rooms, blocks, reports, and, as the node that answers knows, connections and last seen.
    Get "/v1/admin/users/{user_id}" "admin.users.get" => UserGet(AdminUserNamed) answer AdminUser,
    /// Closes every connection that the user has, on all nodes: within a second, or some seconds later if
    /// Redis is away. They are told `server.closing` with 4102 and may come back.
    Post "/v1/admin/users/{user_id}/disconnect" "admin.users.disconnect"
        => UserDisconnect(AdminUserDisconnect) answer AdminUserDisconnected,
    /// Erases a user for good: the account at once, on all nodes, and then room by room whatever they wrote. Their
    /// connections are closed with 4011, their tokens are refused from then on, and nobody is that user again.
    Post "/v1/admin/users/{user_id}/erase" "admin.users.erase"
        => UserErase(AdminUserErase) answer AdminErasure,
    /// How far an erasure is.
    Get "/v1/admin/users/{user_id}/erase" "admin.users.erasure"
        => UserErasure(AdminUserNamed) answer AdminErasure,
    /// Everything that is held of a user, as one zip archive, written while it is read: profile, sessions, rooms,
    /// messages, reactions, mentions, blocks, reports and files as JSON, the bytes of these files, and a README that says
    /// what they are. Nothing of others
    /// is in it. Noted in the audit trail. One at a time on a node; another is `overloaded`. One that cannot be
    /// ended is broken off, so that it is no archive.
    Get "/v1/admin/users/{user_id}/export" "admin.users.export"
        => UserExport(AdminUserNamed) answer AdminArchive,
    /// Rooms by id, those whose id, or a part of whose title, is asked for; paged as users are.
    Get "/v1/admin/rooms" "admin.rooms.list" => RoomsList(AdminList) answer AdminRooms,
    /// One room: members and counts.
    Get "/v1/admin/rooms/{room_id}" "admin.rooms.get" => RoomGet(AdminRoomNamed) answer AdminRoom,
    /// Says for how many days a room keeps its messages: 0 for ever, null as all rooms do. What is older is dropped
    /// within an hour or so, for good.
    Put "/v1/admin/rooms/{room_id}/retention" "admin.rooms.retention"
        => RoomRetention(AdminRoomRetentionSet) answer AdminRoomRetention,
    /// Messages of a room in their current state, to judge what was reported. Noted in the audit trail.
    Get "/v1/admin/rooms/{room_id}/messages" "admin.rooms.messages"
        => RoomMessages(AdminRoomMessages) answer super::reply::History,
    /// Connections of the node that answers.
    Get "/v1/admin/connections" "admin.connections.list"
        => ConnectionsList(AdminConnectionsList) answer AdminConnections,
    /// Closes one connection of the node that answers. It is told `server.closing` with 4102 and may come back.
    Post "/v1/admin/connections/{connection_id}/disconnect" "admin.connections.disconnect"
        => ConnectionDisconnect(AdminConnectionDisconnect) answer AdminConnectionClosed,
    /// Messages that users reported, the oldest report first.
    Get "/v1/admin/reports" "admin.reports.list" => ReportsList(AdminReportsList) answer AdminReports,
    /// Settles a report: `dismiss` it alone, or `delete_message`, which makes the message a tombstone for
    /// everybody and settles all reports of it.
    Post "/v1/admin/reports/{report_id}/resolve" "admin.reports.resolve"
        => ReportResolve(AdminReportResolve) answer AdminReportResolved,
    /// What was done with service tokens, the newest first.
    Get "/v1/admin/audit" "admin.audit.list" => AuditList(AdminAuditList) answer AdminAudit,
    /// Webhooks that came, the newest first: what was sent is kept for 30 days after it was answered.
    Get "/v1/admin/webhooks" "admin.webhooks.list" => WebhooksList(AdminWebhooksList) answer AdminWebhooks,
    /// Does again what a webhook says, which changes nothing that stands already. Its new answer is kept.
    Post "/v1/admin/webhooks/{source}/{webhook_id}/replay" "admin.webhooks.replay"
        => WebhookReplay(AdminWebhookReplay) answer AdminWebhookReplayed,
    /// Webhooks of ours that wait, were given up, or were delivered (of these, pushes are not kept), the newest
    /// first; and whether the receiver answered 410, so that nothing is sent.
    Get "/v1/admin/webhooks-out" "admin.webhooks_out.list" => HooksList(AdminHooksList) answer AdminHooks,
    /// Sends a webhook of ours again that was given up or delivered, with the same id and body.
    Post "/v1/admin/webhooks-out/{webhook_id}/replay" "admin.webhooks_out.replay"
        => HookReplay(AdminHookReplay) answer AdminHookDone,
    /// Sends webhooks again to a receiver that had answered 410. Messages written meanwhile are not pushed.
    Post "/v1/admin/webhooks-out/enable" "admin.webhooks_out.enable"
        => HooksEnable(AdminHooksEnable) answer AdminHookDone,
    /// Stops the node that answers, as SIGTERM does: it takes nobody new, asks everybody to leave, and ends.
    Post "/v1/admin/drain" "admin.drain" => Drain(AdminDrain) answer AdminDraining,
}

/// A page of webhooks.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct AdminWebhooksList {
    /// Only those for which nothing was done yet.
    #[serde(default)]
    pub open: Option<bool>,
    /// Received before then.
    #[serde(default)]
    pub before: Option<UnixMs>,
    /// At most so many, up to [`crate::limits::ADMIN_PAGE_MAX`].
    #[serde(default)]
    pub limit: Option<u32>,
}

/// A webhook that is to be done again.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct AdminWebhookReplay {
    /// Who sent it.
    pub source: WebhookSource,
    /// Its `webhook-id`.
    pub webhook_id: Text,
    /// Why, for the audit trail. At most [`crate::limits::ADMIN_NOTE_CHARS_MAX`] characters.
    #[serde(default)]
    pub reason: Option<Text>,
}

/// A page of webhooks.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AdminWebhooks {
    /// The newest first.
    pub webhooks: Vec<AdminWebhook>,
}

/// A webhook that came.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AdminWebhook {
    /// Who sent it.
    pub source: WebhookSource,
    /// Its `webhook-id`.
    pub webhook_id: String,
    /// Its `webhook-timestamp`.
    pub signed_at: UnixMs,
    /// When it came.
    pub received_at: UnixMs,
    /// The body, as text.
    pub body: String,
    /// What it was answered; null: nothing was done for it yet.
    pub status: Option<u16>,
    /// The body of the answer.
    pub answer: Option<String>,
    /// How often it was done again.
    pub replays: u32,
}

/// What came of a webhook that was done again.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AdminWebhookReplayed {
    /// The status that its sender would be answered.
    pub status: u16,
    /// The body of that answer.
    pub answer: String,
}

/// A page of users, or of rooms.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct AdminList {
    /// An id, or a part of the name or title; the case of ASCII letters does not matter.
    #[serde(default)]
    pub query: Option<Text>,
    /// `next_cursor` of the page before.
    #[serde(default)]
    pub cursor: Option<Text>,
    /// At most so many, up to [`crate::limits::ADMIN_PAGE_MAX`].
    #[serde(default)]
    pub limit: Option<u32>,
}

/// One user.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct AdminUserNamed {
    /// Whom.
    pub user_id: UserId,
}

/// A user whose connections are to be closed.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct AdminUserDisconnect {
    /// Whose.
    pub user_id: UserId,
    /// Why, for the audit trail; the user is not told. At most [`crate::limits::ADMIN_NOTE_CHARS_MAX`] characters.
    #[serde(default)]
    pub reason: Option<Text>,
}

/// A user to be erased.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct AdminUserErase {
    /// Whom.
    pub user_id: UserId,
    /// Why, for the audit trail. At most [`crate::limits::ADMIN_NOTE_CHARS_MAX`] characters.
    #[serde(default)]
    pub reason: Option<Text>,
}

/// How far an erasure is.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AdminErasure {
    /// Whose.
    pub user_id: UserId,
    /// Whether something is left to do. It is done by itself, also after a restart.
    pub state: AdminErasureState,
    /// When it was asked for, while it is running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested_at: Option<UnixMs>,
}

/// Whether an erasure is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdminErasureState {
    /// Some of the user's rooms are not done.
    Running,
    /// Nothing is left.
    Done,
}

/// One room.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct AdminRoomNamed {
    /// Which.
    pub room_id: RoomId,
}

/// A page of a room's messages: at most one of the positions; none: the newest page.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct AdminRoomMessages {
    /// The room.
    pub room_id: RoomId,
    /// Those before this one.
    #[serde(default)]
    pub before_seq: Option<Seq>,
    /// Those created or changed after this event.
    #[serde(default)]
    pub after_seq: Option<Seq>,
    /// Those around this one.
    #[serde(default)]
    pub around_seq: Option<Seq>,
    /// At most so many.
    #[serde(default)]
    pub limit: Option<u32>,
}

/// A page of connections.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct AdminConnectionsList {
    /// Only those of this user.
    #[serde(default)]
    pub user_id: Option<UserId>,
    /// `next_cursor` of the page before.
    #[serde(default)]
    pub cursor: Option<Text>,
    /// At most so many, up to [`crate::limits::ADMIN_PAGE_MAX`].
    #[serde(default)]
    pub limit: Option<u32>,
}

/// A connection to be closed.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct AdminConnectionDisconnect {
    /// Which, as `ready` told it.
    pub connection_id: Text,
    /// Why, for the audit trail. At most [`crate::limits::ADMIN_NOTE_CHARS_MAX`] characters.
    #[serde(default)]
    pub reason: Option<Text>,
}

/// A page of reports.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct AdminReportsList {
    /// Open ones, unless said otherwise.
    #[serde(default)]
    pub state: Option<AdminReportFilter>,
    /// `next_cursor` of the page before.
    #[serde(default)]
    pub cursor: Option<Text>,
    /// At most so many, up to [`crate::limits::ADMIN_PAGE_MAX`].
    #[serde(default)]
    pub limit: Option<u32>,
}

/// Which reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdminReportFilter {
    /// Those that wait for somebody.
    #[default]
    Open,
    /// Those that were settled.
    Resolved,
}

/// How a report is to be settled.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct AdminReportResolve {
    /// Which.
    pub report_id: Text,
    /// How.
    pub action: AdminReportAction,
    /// Why, for those who look later. At most [`crate::limits::ADMIN_NOTE_CHARS_MAX`] characters.
    #[serde(default)]
    pub note: Option<Text>,
}

/// How a report is settled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdminReportAction {
    /// Nothing is to be done about the message.
    Dismiss,
    /// The message is deleted, as its sender could.
    DeleteMessage,
}

/// A page of the audit trail.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct AdminAuditList {
    /// `next_cursor` of the page before.
    #[serde(default)]
    pub cursor: Option<Text>,
    /// At most so many, up to [`crate::limits::ADMIN_PAGE_MAX`].
    #[serde(default)]
    pub limit: Option<u32>,
}

/// A node that is to stop.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct AdminDrain {
    /// Why, for the audit trail. At most [`crate::limits::ADMIN_NOTE_CHARS_MAX`] characters.
    #[serde(default)]
    pub reason: Option<Text>,
}

/// Users.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct AdminUsers {
    /// By id.
    pub users: Vec<AdminUserSummary>,
    /// For the next page, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A user in short.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct AdminUserSummary {
    /// The account.
    pub user_id: UserId,
    /// What they are called.
    pub name: String,
    /// Their picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub picture: Option<String>,
    /// When they were first seen.
    pub created_at: UnixMs,
    /// Rooms they are a member of.
    pub room_count: u32,
    /// Rises with every change of their rooms, blocks or sessions.
    pub version: u64,
}

/// What there is of a user, as the store has it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct AdminUserKept {
    /// In short.
    #[serde(flatten)]
    pub user: AdminUserSummary,
    /// When their sessions were last ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions_ended_at: Option<UnixMs>,
    /// Their rooms, by id, at most [`crate::limits::ADMIN_SHOWN_MAX`].
    pub rooms: Vec<AdminUserRoom>,
    /// Whom they block, at most [`crate::limits::ADMIN_SHOWN_MAX`].
    pub blocks: Vec<UserId>,
    /// Reports by them among the newest, newest first, at most [`crate::limits::ADMIN_SHOWN_MAX`].
    pub reports_by: Vec<AdminReport>,
    /// Reports of their messages, likewise.
    pub reports_about: Vec<AdminReport>,
}

/// A user.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct AdminUser {
    /// What the store has.
    #[serde(flatten)]
    pub kept: AdminUserKept,
    /// The node whose connections these are.
    pub node: String,
    /// How others who share a room with them see them, as far as this node knows.
    pub state: PresenceState,
    /// Of one who is offline: when they could last be seen; absent if this node does not know, as after a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen_at: Option<UnixMs>,
    /// Their connections on this node, at most [`crate::limits::ADMIN_SHOWN_MAX`].
    pub connections: Vec<AdminConnection>,
}

/// A room of a user.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct AdminUserRoom {
    /// The room.
    pub room_id: RoomId,
    /// Direct or group.
    pub kind: RoomKind,
    /// The title of a group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What they are there.
    pub role: Role,
    /// Since when.
    pub joined_at: UnixMs,
}

/// Rooms.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct AdminRooms {
    /// By id.
    pub rooms: Vec<AdminRoomSummary>,
    /// For the next page, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A room in short.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct AdminRoomSummary {
    /// The room.
    pub room_id: RoomId,
    /// Direct or group.
    pub kind: RoomKind,
    /// The title of a group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Who opened it.
    pub created_by: UserId,
    /// When.
    pub created_at: UnixMs,
    /// Members now.
    pub member_count: u32,
    /// Its newest event.
    pub last_seq: Seq,
    /// When that was.
    pub last_at: UnixMs,
}

/// For how many days a room is to keep its messages.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct AdminRoomRetentionSet {
    /// The room.
    pub room_id: RoomId,
    /// Days, up to 36,500; 0: for ever; null: as all rooms do.
    pub days: Option<u32>,
    /// Why, for the audit trail. At most [`crate::limits::ADMIN_NOTE_CHARS_MAX`] characters.
    #[serde(default)]
    pub reason: Option<Text>,
}

/// For how long a room keeps its messages.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct AdminRoomRetention {
    /// The room.
    pub room_id: RoomId,
    /// Its own age in days; 0: for ever; null: that of all rooms.
    pub days: Option<u32>,
    /// The age of all rooms, in days, as this node is told; 0: for ever.
    pub default_days: u32,
    /// Whether it was otherwise.
    pub changed: bool,
}

/// A room.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct AdminRoom {
    /// In short.
    #[serde(flatten)]
    pub room: AdminRoomSummary,
    /// The longest-serving members, at most [`crate::limits::ADMIN_SHOWN_MAX`].
    pub members: Vec<AdminMember>,
    /// Messages of persons, deleted ones included, counted up to [`crate::limits::ADMIN_COUNTED_MAX`].
    pub messages: u32,
    /// Pinned messages.
    pub pins: u32,
    /// Reports of its messages that are open.
    pub reports_open: u32,
    /// For how many days it keeps its messages; 0: for ever; null: as all rooms do.
    pub retention_days: Option<u32>,
    /// Events up to this one were dropped, as they were older; 0: none.
    pub floor_seq: Seq,
}

/// A member of a room.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct AdminMember {
    /// The account.
    pub user_id: UserId,
    /// What they are called.
    pub name: String,
    /// What they are there.
    pub role: Role,
    /// Since when.
    pub joined_at: UnixMs,
}

/// Connections.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct AdminConnections {
    /// The node whose they are.
    pub node: String,
    /// By shard and place.
    pub connections: Vec<AdminConnection>,
    /// For the next page, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A connection that is signed in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct AdminConnection {
    /// As `ready` told it.
    pub connection_id: String,
    /// Whose.
    pub user_id: UserId,
    /// Where from; of a client behind a trusted proxy its own address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The client program and its version, as it said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Since when.
    pub connected_at: UnixMs,
    /// When its token ends.
    pub token_expires_at: UnixMs,
    /// Bytes that wait to be sent to it.
    pub outbox_bytes: u64,
    /// The shard of the node.
    pub shard: u16,
}

/// That a user's connections are being closed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct AdminUserDisconnected {
    /// Whose.
    pub user_id: UserId,
    /// The user's version by it: sessions that began before it end.
    pub version: u64,
    /// The close code.
    pub code: u16,
}

/// That a connection is being closed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct AdminConnectionClosed {
    /// Which.
    pub connection_id: String,
    /// The close code.
    pub code: u16,
}

/// Reports.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct AdminReports {
    /// The oldest first.
    pub reports: Vec<AdminReport>,
    /// For the next page, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A message that a user reported. What it says is read with the room's messages, which is noted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct AdminReport {
    /// The report.
    pub report_id: String,
    /// The room.
    pub room_id: RoomId,
    /// The message.
    pub message_seq: Seq,
    /// Who wrote it, unless the message is no longer kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_id: Option<UserId>,
    /// Who reported it.
    pub reporter_id: UserId,
    /// The revision that they saw.
    pub revision: u32,
    /// When.
    pub created_at: UnixMs,
    /// Whether it is settled, and how.
    pub state: AdminReportState,
    /// When it was settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<UnixMs>,
    /// By which token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved_by: Option<String>,
    /// What was noted with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Whether a report is settled, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdminReportState {
    /// It waits for somebody.
    Open,
    /// Nothing was to be done.
    Dismissed,
    /// The message was deleted.
    Deleted,
}

impl AdminReportState {
    /// As the store keeps it; `None` is open.
    pub fn from_resolution(resolution: Option<&str>) -> Option<AdminReportState> {
        match resolution {
            None => Some(AdminReportState::Open),
            Some("dismissed") => Some(AdminReportState::Dismissed),
            Some("deleted") => Some(AdminReportState::Deleted),
            Some(_) => None,
        }
    }
}

/// That a report is settled.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct AdminReportResolved {
    /// As it is now.
    pub report: AdminReport,
    /// Whether it was otherwise: of the report, or with `delete_message` of the message.
    pub changed: bool,
}

/// The audit trail.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct AdminAudit {
    /// The newest first.
    pub acts: Vec<AdminActDone>,
    /// For the next page, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Something that was done with a service token.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct AdminActDone {
    /// When.
    pub at: UnixMs,
    /// By which token: the first eight hexadecimal digits of its BLAKE3 hash.
    pub who: String,
    /// By way of which node.
    pub node: String,
    /// By which request: `X-Request-Id`.
    pub request_id: String,
    /// What, by the name of the operation.
    pub act: String,
    /// To whom or what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// What was said with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// `done`; `unchanged`: it was so already; `begun`: noted before it was done.
    pub outcome: String,
}

/// That a node stops.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct AdminDraining {
    /// Which.
    pub node: String,
    /// Over which time its connections are asked to leave, ms.
    pub drain_ms: u64,
}

/// A report as it is named: the room, the message and who reported it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ReportKey {
    /// The room.
    pub room: RoomId,
    /// The message.
    pub message_seq: Seq,
    /// Who reported it.
    pub reporter: UserId,
}

impl ReportKey {
    /// As clients see it.
    pub fn to_id(self) -> String {
        let (room, reporter) = (self.room.0.simple(), self.reporter.0.simple());
        format!("{room}-{}-{reporter}", self.message_seq)
    }

    /// The inverse of [`ReportKey::to_id`]; `None` for what it did not make.
    pub fn from_id(id: &str) -> Option<ReportKey> {
        let mut parts = id.splitn(3, '-');
        let key = ReportKey {
            room: RoomId(simple(parts.next()?)?),
            message_seq: parts.next()?.parse().ok().filter(|seq| *seq < 1 << 53)?,
            reporter: UserId(simple(parts.next()?)?),
        };
        (key.to_id() == id).then_some(key)
    }
}

fn simple(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_found_again_by_its_name_and_by_no_other() {
        let key = ReportKey {
            room: RoomId(Uuid::from_u128(0xab << 100)),
            message_seq: 42,
            reporter: UserId(Uuid::from_u128(7)),
        };
        let id = key.to_id();
        assert_eq!(ReportKey::from_id(&id), Some(key));
        for wrong in [
            "",
            "-",
            "1-2-3",
            &id[1..],
            &id.to_uppercase(),
            &format!("{id}0"),
        ] {
            assert_eq!(ReportKey::from_id(wrong), None, "{wrong:?}");
        }
        assert_eq!(ReportKey::from_id(&id.replace("-42-", "-042-")), None);
        assert_eq!(ReportKey::from_id(&id.replace("-42-", "-+42-")), None);
    }

    #[test]
    fn every_endpoint_is_described_and_has_a_name_of_its_own() {
        let mut names: Vec<&str> = ENDPOINTS.iter().map(|it| it.request).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ENDPOINTS.len());
        for endpoint in ENDPOINTS {
            assert!(endpoint.path.starts_with("/v1/admin/"), "{}", endpoint.path);
            assert!(!AdminRequest::description(endpoint.request).is_empty());
            let refused = AdminRequest::read(endpoint.request, "[]").expect_err("no object");
            assert_eq!(refused.code, ErrorCode::BadRequest);
        }
    }
}
