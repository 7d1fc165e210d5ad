//! Search: messages by their words.

use super::ids::RoomId;
use super::text::Text;
use super::view::Message;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Words to look for in the rooms of the user.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Search {
    /// Words that must all be there, whatever their case and accents; the last one, and each with `*` behind
    /// it, as a beginning; `"…"` one after the other. At most [`crate::limits::SEARCH_CHARS_MAX`] characters and
    /// [`crate::limits::SEARCH_TERMS_MAX`] words.
    pub query: Text,
    /// Only in this room.
    #[serde(default)]
    pub room_id: Option<RoomId>,
    /// `next_before` of the page before.
    #[serde(default)]
    pub before: Option<Text>,
    /// At most so many, up to [`crate::limits::SEARCH_PAGE_MAX`].
    #[serde(default)]
    pub limit: Option<u32>,
}

/// `data` of the ack of `search`.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct SearchHits {
    /// Newest first.
    pub hits: Vec<SearchHit>,
    /// Whether there may be more, older ones.
    pub has_more: bool,
    /// Where to go on, if there may be more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_before: Option<String>,
}

/// A message that was found.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct SearchHit {
    /// Its room.
    pub room_id: RoomId,
    /// The message in its current state.
    pub message: Message,
}
