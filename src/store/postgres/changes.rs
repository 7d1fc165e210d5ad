//! What `chat_change`, `chat_mention` and `chat_role` are asked, and what they answer.
//!
//! Invariant: they are told the least roles by the table of [`access`], and decide by nothing else.

use super::row::{ChangedRow, Failure, get, uint};
use crate::chat::access::{self, Action};
use crate::chat::port::files::{SentFile, SentFiles, another_kind, no_upload};
use crate::chat::port::{MessageChange, Op, OpKind, OpOutcome};
use crate::limits;
use crate::protocol::reply::MessageChanged;
use crate::protocol::view::{Mention, Role, RoomKind};
use crate::protocol::{Seq, UnixMs};
use crate::store::blocks;
use crate::store::changes::{self, KeptChange, KeptReaction, event_name};
use crate::store::common::{from_json, int, to_json};
use serde_json::{Value, json};
use tokio_postgres::Row;

/// A role as `chat_rank` counts it.
fn rank(role: Option<Role>) -> u8 {
    match role {
        Some(Role::Member) => 1,
        Some(Role::Admin) => 2,
        Some(Role::Owner) => 3,
        None => 9,
    }
}

/// The least ranks for this, by kind of room.
fn ranks(action: Action) -> Value {
    let least = |kind| rank(access::least_role(kind, action));
    json!({
        RoomKind::Direct.name(): least(RoomKind::Direct),
        RoomKind::Group.name(): least(RoomKind::Group),
    })
}

/// What `chat_change` is asked.
pub(super) fn change_json(seq: Seq, change: &MessageChange) -> String {
    let mut asked = match change {
        MessageChange::Edit {
            text,
            expected_revision,
        } => json!({"what": "edit", "text": text, "expected_revision": expected_revision}),
        MessageChange::Delete { expected_revision } => {
            json!({"what": "delete", "expected_revision": expected_revision})
        }
        MessageChange::AddReaction { emoji } => json!({
            "what": "react", "emoji": emoji,
            "user_max": limits::REACTIONS_PER_USER_MAX, "max": limits::REACTION_EMOJIS_MAX,
        }),
        MessageChange::RemoveReaction { emoji } => json!({"what": "unreact", "emoji": emoji}),
        MessageChange::Pin => json!({"what": "pin", "max": limits::PINS_MAX}),
        MessageChange::Unpin => json!({"what": "unpin"}),
        MessageChange::Report => json!({"what": "report"}),
        MessageChange::Moderate(entry) => json!({"what": "delete", "service": entry}),
    };
    asked["seq"] = int(seq).into();
    asked["type"] = event_name(change).into();
    asked["severed"] = access::may_change_severed(change).into();
    asked["own"] = ranks(Action::of(change, true));
    asked["other"] = ranks(Action::of(change, false));
    asked.to_string()
}

/// What `chat_mention` is asked.
pub(super) fn mention_json(text: &str, mentions: &[Mention], files: Option<&SentFiles>) -> String {
    let mut asked = json!({"text": text, "mentions": mentions, "all": ranks(Action::MentionAll)});
    if let Some(SentFiles { kind, files }) = files {
        asked["kind"] = kind.name().into();
        asked["files"] = files.iter().map(file_json).collect();
    }
    asked.to_string()
}

/// What the message keeps of a file by what its sender says.
fn file_json(file: &SentFile) -> Value {
    let mut json = json!({"upload_id": file.upload});
    if let (Some(width), Some(height)) = (file.width, file.height) {
        json["width"] = width.into();
        json["height"] = height.into();
    }
    if let Some(duration_ms) = file.duration_ms {
        json["duration_ms"] = duration_ms.into();
    }
    if let Some(placeholder) = &file.placeholder {
        json["placeholder"] = placeholder.as_str().into();
    }
    json
}

/// What `chat_role` is asked, beside whom.
pub(super) fn role_json(role: Role) -> String {
    json!({"role": role, "least": ranks(Action::SetRole)}).to_string()
}

/// What `chat_update` is asked; `None`: it stays.
pub(super) fn update_json(title: Option<Option<&str>>, picture: Option<Option<&str>>) -> String {
    let mut asked = json!({"least": ranks(Action::UpdateRoom)});
    for (name, value) in [("title", title), ("picture", picture)] {
        if let Some(value) = value {
            asked[name] = value.into();
        }
    }
    asked.to_string()
}

/// The outcome of a change, or of a send that mentions and was refused for it.
pub(super) fn decode(op: &Op, row: &Row, code: i32) -> Result<OpOutcome, Failure> {
    let (seq, change) = match (&op.kind, code) {
        (_, 24) => return Ok(Err(changes::not_all())),
        (OpKind::SetBlock { user, blocked }, 27) => {
            return super::blocks::decode(op.actor, *user, *blocked, row);
        }
        (_, 28) => return Ok(Err(blocks::too_many())),
        (_, 26) => return Ok(Err(changes::no_member())),
        (_, 25) => return Ok(Err(changes::mentions_a_stranger())),
        (OpKind::Send { .. }, 40) => return Ok(Err(no_upload())),
        (OpKind::Send { .. }, 41) => return Ok(Err(another_kind())),
        (OpKind::Send { .. }, 42 | 43) => return Ok(Err(super::uploads::refusal(row, code)?)),
        (OpKind::ChangeMessage { seq, change }, _) => (*seq, change),
        _ => return Err(Failure::Data(format!("outcome {code} of no change"))),
    };
    Ok(match code {
        16 => Err(changes::no_message()),
        17 => Err(changes::not_allowed()),
        18 => Err(changes::gone()),
        19 => Err(changes::revision_conflict()),
        20 => Err(changes::too_many(change)),
        21..=23 => {
            let told: ChangedRow = from_json(get(row, 4)?).map_err(Failure::Data)?;
            let changed = MessageChanged {
                room_id: op.room,
                message_seq: seq,
                changed: code != 22,
                seq: told.changed_seq,
                revision: told.revision,
            };
            let event = match event_name(change).filter(|_| code == 21) {
                Some(name) => {
                    let data = reaction_json(change, told.count)?;
                    let kept = KeptChange {
                        seq: uint(row, 2)?,
                        ts: UnixMs(uint(row, 3)?),
                        name,
                        message_seq: seq,
                        actor: op.actor,
                        data: data.as_deref(),
                        message: told.message.map(|message| message.into_message()),
                    };
                    Some(kept.event(op.room).map_err(Failure::Data)?)
                }
                None => None,
            };
            Ok(changes::done(changed, event))
        }
        _ => return Err(Failure::Data(format!("outcome {code} is unknown"))),
    })
}

/// What the event of a reaction keeps.
fn reaction_json(change: &MessageChange, count: Option<u32>) -> Result<Option<String>, Failure> {
    let (emoji, added) = match change {
        MessageChange::AddReaction { emoji } => (emoji, true),
        MessageChange::RemoveReaction { emoji } => (emoji, false),
        _ => return Ok(None),
    };
    let kept = KeptReaction {
        emoji: emoji.clone(),
        added,
        count: count.unwrap_or(0),
    };
    to_json(&kept).map(Some).map_err(Failure::Data)
}
