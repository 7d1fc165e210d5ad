//! Blocks: who wants to hear nothing of whom. Only who blocked is ever told.

use super::ids::UserId;
use super::text::Text;
use super::time::UnixMs;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whom to block, or to block no longer.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct UserBlock {
    /// Another user.
    pub user_id: UserId,
}

/// A page of the users whom one blocks.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct UserBlocks {
    /// `next_cursor` of the page before.
    #[serde(default)]
    pub cursor: Option<Text>,
    /// At most so many, up to [`crate::limits::BLOCKS_PAGE_MAX`].
    #[serde(default)]
    pub limit: Option<u32>,
}

/// `data` of the ack of `user.block` and `user.unblock`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct BlockSet {
    /// Whom.
    pub user_id: UserId,
    /// Whether they are blocked now, by the one who asked.
    pub blocked: bool,
    /// Whether there was anything to change.
    pub changed: bool,
}

/// `data` of the ack of `user.blocks`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct BlocksListed {
    /// By id.
    pub users: Vec<BlockedUser>,
    /// For the next page, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Somebody who is blocked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct BlockedUser {
    /// Who.
    pub user_id: UserId,
    /// What they are called.
    pub name: String,
    /// Since when.
    pub blocked_at: UnixMs,
}

/// `data` of `user.blocks.updated`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct BlocksUpdated {
    /// Whom the reader blocks by now, or no longer. Absent: any of them, as `user.blocks` tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// Whether they are blocked now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked: Option<bool>,
}

/// That a user blocked another, or no longer does: what nodes and shards tell each other of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockChange {
    /// Who did it.
    pub by: UserId,
    /// Whom.
    pub user: UserId,
    /// Blocked, or no longer.
    pub blocked: bool,
    /// Whether one of the two blocks the other now.
    pub severed: bool,
    /// How often `by` changed their blocks so far.
    pub version: u64,
}
