//! That sessions of a user end: what the store keeps of it, and nodes and shards tell each other.

use super::error::CloseCode;
use super::ids::UserId;

/// The sessions of a user that began before a version of theirs end.
///
/// A session began with the version that its sign-in read; what ends sessions raises the version in the same
/// transaction. So which session came before and which after is decided by the store, and by no clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionsEnd {
    /// Whose.
    pub user: UserId,
    /// The version that was made by it.
    pub version: u64,
    /// How they are closed.
    pub code: CloseCode,
}

impl SessionsEnd {
    /// Whether a session is meant that began with this version.
    pub fn ends(&self, began: u64) -> bool {
        began < self.version
    }
}
