//! Presence: who is there, as clients say it and are told it.

use super::ids::UserId;
use super::time::UnixMs;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a connection wants to be seen; the more present is the greater.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum PresenceChoice {
    /// Seen as offline.
    Invisible,
    /// There, but not looking.
    Away,
    /// There; what a new connection is.
    #[default]
    Online,
}

/// How a user is seen by others; the more present is the greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PresenceState {
    /// Not there, invisible, or nobody whom the asker may see.
    #[default]
    Offline,
    /// There, but not looking.
    Away,
    /// There.
    Online,
}

impl PresenceChoice {
    /// How others see it.
    pub fn seen(self) -> PresenceState {
        match self {
            PresenceChoice::Invisible => PresenceState::Offline,
            PresenceChoice::Away => PresenceState::Away,
            PresenceChoice::Online => PresenceState::Online,
        }
    }
}

/// How this connection is to be seen.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct PresenceSet {
    /// The most present of a user's connections decides.
    pub state: PresenceChoice,
}

/// Users whose presence is wanted, in addition to those wanted before.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct PresenceSubscribe {
    /// Who, at most [`crate::limits::USERS_PER_REQUEST_MAX`]. Who shares no room with the asker is told as
    /// offline, and nothing more.
    pub user_ids: Vec<UserId>,
}

/// `data` of the ack of `presence.set`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PresenceIs {
    /// How this connection is seen from now on.
    pub state: PresenceChoice,
    /// Whether it was seen otherwise before.
    pub changed: bool,
}

/// `data` of the ack of `presence.subscribe`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PresenceSnapshot {
    /// One for each user that was named, in the order of their ids.
    pub users: Vec<UserPresence>,
    /// Until then changes are told; subscribe again before.
    pub until: UnixMs,
}

/// `data` of `presence.updated`.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct PresenceUpdated {
    /// Whose presence changed; each takes the place of what was told before.
    pub users: Vec<UserPresence>,
}

/// A user as seen by others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct UserPresence {
    /// Who.
    pub user_id: UserId,
    /// How.
    pub state: PresenceState,
    /// Of a user who is offline: when they could last be seen; absent if that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen_at: Option<UnixMs>,
}
