//! Changes of messages as every backend decides and keeps them: the words of refusals, and the rows
//! of `room_events`, from which an event is told again.
//!
//! Such a row holds no text: an edit that is told again shows the message in its current state, whose
//! `changed_seq` is then newer than the event (docs/decisions/0013).

use super::common::from_json;
use crate::chat::port::{MessageChange, OpDone, OpReply, Refusal};
use crate::protocol::event::{
    MessageDeleted, MessagePinned, MessageUnpinned, ReactionUpdated, RoomEvent, RoomEventBody,
};
use crate::protocol::reply::MessageChanged;
use crate::protocol::view::{Mention, Message, Reaction};
use crate::protocol::{ErrorCode, RoomId, Seq, UnixMs, UserId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The same words whatever the reason: whether there is such a room is told to its members only, and
/// whether there is a block to nobody.
pub(super) fn not_a_member() -> Refusal {
    let message = "not a member of this room, or not allowed to write in it";
    refusal(ErrorCode::Forbidden, message)
}

/// There is nothing of this `seq`, or an event that is no message.
pub(super) fn no_message() -> Refusal {
    let message = "message_seq names no message of this room";
    refusal(ErrorCode::NotFound, message)
}

/// By the table of [`crate::chat::access`].
pub(super) fn not_allowed() -> Refusal {
    refusal(ErrorCode::Forbidden, "not allowed with this message")
}

/// Who is to have another role is none of them.
pub(super) fn no_member() -> Refusal {
    refusal(ErrorCode::NotFound, "no such member of this room")
}

/// The message is a tombstone.
pub(super) fn gone() -> Refusal {
    refusal(ErrorCode::Gone, "the message was deleted")
}

/// Somebody was faster.
pub(super) fn revision_conflict() -> Refusal {
    let message = "the message has another revision";
    refusal(ErrorCode::RevisionConflict, message)
}

/// One more than may be.
pub(super) fn too_many(change: &MessageChange) -> Refusal {
    let message = match change {
        MessageChange::Pin => "too many pinned messages in this room",
        _ => "too many reactions on this message",
    };
    refusal(ErrorCode::TooLarge, message)
}

/// By the table of [`crate::chat::access`].
pub(super) fn not_all() -> Refusal {
    let message = "only an owner or admin of a group mentions everybody";
    refusal(ErrorCode::Forbidden, message)
}

/// A mention of one who is no member.
pub(super) fn mentions_a_stranger() -> Refusal {
    let message = "who is mentioned is no member of this room";
    refusal(ErrorCode::NotFound, message)
}

fn refusal(code: ErrorCode, message: &'static str) -> Refusal {
    Refusal { code, message }
}

/// A change that stands, or stood before.
pub(super) fn done(changed: MessageChanged, event: Option<RoomEvent>) -> OpDone {
    OpDone {
        reply: OpReply::Message(changed),
        events: event.into_iter().collect(),
    }
}

/// The type under which a change is kept; `None`: it is no event.
pub(super) fn event_name(change: &MessageChange) -> Option<&'static str> {
    match change {
        MessageChange::Edit { .. } => Some("message.updated"),
        MessageChange::Delete { .. } | MessageChange::Moderate(_) => Some("message.deleted"),
        MessageChange::AddReaction { .. } | MessageChange::RemoveReaction { .. } => {
            Some("reaction.updated")
        }
        MessageChange::Pin => Some("message.pinned"),
        MessageChange::Unpin => Some("message.unpinned"),
        MessageChange::Report => None,
    }
}

/// What a `reaction.updated` keeps beside its row's columns.
#[derive(Serialize, Deserialize)]
pub(super) struct KeptReaction {
    pub emoji: String,
    pub added: bool,
    pub count: u32,
}

/// A row of `room_events`.
pub(super) struct KeptChange<'a> {
    pub seq: Seq,
    pub ts: UnixMs,
    pub name: &'a str,
    pub message_seq: Seq,
    pub actor: UserId,
    /// A [`KeptReaction`] as JSON, for a reaction.
    pub data: Option<&'a str>,
    /// The message in its current state, for an edit.
    pub message: Option<Message>,
}

impl KeptChange<'_> {
    /// The event that the row stands for.
    pub fn event(self, room_id: RoomId) -> Result<RoomEvent, String> {
        let (message_seq, actor_id) = (self.message_seq, self.actor);
        let body = match self.name {
            "message.updated" => RoomEventBody::MessageUpdated {
                message_seq,
                message: Box::new(self.message.ok_or("an edit of no message")?),
            },
            "message.deleted" => RoomEventBody::MessageDeleted(MessageDeleted {
                message_seq,
                actor_id,
                deleted_at: self.ts,
            }),
            "reaction.updated" => {
                let kept: KeptReaction = from_json(self.data.unwrap_or_default())?;
                RoomEventBody::ReactionUpdated(ReactionUpdated {
                    message_seq,
                    user_id: actor_id,
                    emoji: kept.emoji,
                    added: kept.added,
                    count: kept.count,
                })
            }
            "message.pinned" => RoomEventBody::MessagePinned(MessagePinned {
                message_seq,
                actor_id,
            }),
            "message.unpinned" => RoomEventBody::MessageUnpinned(MessageUnpinned {
                message_seq,
                actor_id,
            }),
            other => return Err(format!("an event of the unknown type {other}")),
        };
        Ok(RoomEvent {
            room_id,
            seq: self.seq,
            ts: self.ts,
            body,
        })
    }
}

/// `mentions` as a message's row keeps them.
pub(super) fn mentions(json: Option<&str>) -> Result<Vec<Mention>, String> {
    json.map_or(Ok(Vec::new()), from_json)
}

/// `reactions` as a message's row keeps them: counts by emoji.
pub(super) fn reactions(json: Option<&str>) -> Result<BTreeMap<String, Reaction>, String> {
    let counts: BTreeMap<String, u32> = json.map_or(Ok(BTreeMap::new()), from_json)?;
    let reaction = |(emoji, count)| (emoji, Reaction { count, mine: None });
    Ok(counts.into_iter().map(reaction).collect())
}

/// Marks which reactions are those of who asks.
pub(super) fn mark_mine(message: &mut Message, mine: &[String]) {
    for (emoji, reaction) in &mut message.reactions {
        reaction.mine = Some(mine.contains(emoji));
    }
}
