//! The Admin API's words for webhooks of ours.

use super::hooks::HookKind;
use super::ids::RoomId;
use super::text::Text;
use super::time::UnixMs;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Webhooks of ours.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct AdminHooksList {
    /// Which; without it those that were given up.
    #[serde(default)]
    pub state: Option<AdminHookState>,
    /// At most so many, up to [`crate::limits::ADMIN_PAGE_MAX`].
    #[serde(default)]
    pub limit: Option<u32>,
}

/// How far a webhook of ours is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdminHookState {
    /// It is tried, again and again.
    Waiting,
    /// The receiver took it.
    Delivered,
    /// It was tried too often.
    GivenUp,
}

/// A webhook of ours that is to be sent again.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct AdminHookReplay {
    /// Its `webhook-id`.
    pub webhook_id: Text,
    /// Why, for the audit trail. At most [`crate::limits::ADMIN_NOTE_CHARS_MAX`] characters.
    #[serde(default)]
    pub reason: Option<Text>,
}

/// The receiver of our webhooks is there again.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct AdminHooksEnable {
    /// Why, for the audit trail. At most [`crate::limits::ADMIN_NOTE_CHARS_MAX`] characters.
    #[serde(default)]
    pub reason: Option<Text>,
}

/// Webhooks of ours.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AdminHooks {
    /// Since when the receiver answered 410.
    pub disabled_at: Option<UnixMs>,
    /// Since when the oldest of those that wait does.
    pub oldest_waiting: Option<UnixMs>,
    /// The newest first.
    pub webhooks: Vec<AdminHook>,
}

/// A webhook of ours.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AdminHook {
    /// Its `webhook-id`.
    pub webhook_id: String,
    /// What it tells.
    pub r#type: HookKind,
    /// Of which room.
    pub room_id: RoomId,
    /// Since when it is to be told.
    pub created_at: UnixMs,
    /// How far it is told.
    pub state: AdminHookState,
    /// Attempts so far.
    pub attempts: u32,
    /// What the last one was answered.
    pub status: Option<u16>,
    /// Why the last one failed.
    pub error: Option<String>,
}

/// What came of it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AdminHookDone {
    /// Whether it was otherwise before.
    pub changed: bool,
}
