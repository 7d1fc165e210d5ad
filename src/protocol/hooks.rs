//! What other services are told by webhooks of ours.
//!
//! To add one: its line in [`HookKind`], its data here, and who writes it to the outbox.

use super::ids::{RoomId, Seq, UserId};
use super::time::UnixMs;
use super::view::{MessageKind, RoomKind};
use schemars::JsonSchema;
use serde::Serialize;

/// What is told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, JsonSchema)]
pub enum HookKind {
    /// A user who has no connection is to hear of a message.
    #[serde(rename = "push.required")]
    PushRequired,
    /// What was pushed of a room is read by now, or is gone.
    #[serde(rename = "push.cancelled")]
    PushCancelled,
    /// There is a new room.
    #[serde(rename = "room.created")]
    RoomCreated,
    /// A user reported a message.
    #[serde(rename = "message.reported")]
    MessageReported,
}

impl HookKind {
    /// All of them.
    pub const ALL: &[HookKind] = &[
        HookKind::PushRequired,
        HookKind::PushCancelled,
        HookKind::RoomCreated,
        HookKind::MessageReported,
    ];

    /// As `type` says it.
    pub fn name(self) -> &'static str {
        match self {
            HookKind::PushRequired => "push.required",
            HookKind::PushCancelled => "push.cancelled",
            HookKind::RoomCreated => "room.created",
            HookKind::MessageReported => "message.reported",
        }
    }

    /// The one of this name.
    pub fn of_name(name: &str) -> Option<HookKind> {
        HookKind::ALL
            .iter()
            .find(|kind| kind.name() == name)
            .copied()
    }
}

/// `data` of `push.required`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PushRequired<'a> {
    /// Who is to hear of it.
    pub user_id: UserId,
    /// Where: a push of the same room may take the place of the one before.
    pub room_id: RoomId,
    /// Direct or group.
    pub room_kind: RoomKind,
    /// What the room is called; null: by its members.
    pub room_title: Option<&'a str>,
    /// Which message.
    pub message_seq: Seq,
    /// When it was written.
    pub sent_at: UnixMs,
    /// Who wrote it.
    pub sender_id: UserId,
    /// What they are called.
    pub sender_name: &'a str,
    /// Text, image, file or voice.
    pub message_kind: MessageKind,
    /// The beginning of the text; null: there is none, or previews are switched off.
    pub preview: Option<String>,
    /// Whether it names the user.
    pub mentioned: bool,
    /// What the user has not read in this room, up to [`crate::limits::UNREAD_MAX`].
    pub unread: u32,
    /// The same in all rooms that they did not mute: for the app's icon.
    pub badge: u32,
}

/// `data` of `push.cancelled`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PushCancelled {
    /// Whose.
    pub user_id: UserId,
    /// Where.
    pub room_id: RoomId,
    /// What was pushed of messages up to this one is to be taken away.
    pub up_to_seq: Seq,
    /// What the user has not read in this room now.
    pub unread: u32,
    /// The same in all rooms that they did not mute: for the app's icon.
    pub badge: u32,
}

/// `data` of `room.created`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RoomCreated<'a> {
    /// The room.
    pub room_id: RoomId,
    /// Direct or group.
    pub kind: RoomKind,
    /// What it is called.
    pub title: Option<&'a str>,
    /// Who made it.
    pub created_by: UserId,
    /// How many members it has.
    pub member_count: u32,
    /// The first of them, at most [`crate::limits::ROOM_MEMBERS_SHOWN_MAX`].
    pub member_ids: Vec<UserId>,
}

/// `data` of `message.reported`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct MessageReported {
    /// The Admin API's name for the report.
    pub report_id: String,
    /// Where.
    pub room_id: RoomId,
    /// Which message.
    pub message_seq: Seq,
    /// As the reporter saw it.
    pub revision: u32,
    /// Who reported it.
    pub reporter_id: UserId,
    /// Who wrote it.
    pub sender_id: UserId,
}

/// The body of a webhook: `data` as it was written when it came about, so that it is the same with every attempt.
pub fn body(kind: HookKind, at: UnixMs, data: &str) -> String {
    format!(
        r#"{{"type":"{}","timestamp":"{at}","data":{data}}}"#,
        kind.name()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_json_of_three_parts() {
        let body = body(
            HookKind::RoomCreated,
            UnixMs(1_700_000_000_123),
            r#"{"a":1}"#,
        );
        let value: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(
            value,
            serde_json::json!({
                "type": "room.created", "timestamp": "2023-11-14T22:13:20.123Z", "data": {"a": 1},
            })
        );
        for kind in HookKind::ALL {
            assert_eq!(HookKind::of_name(kind.name()), Some(*kind));
            assert_eq!(serde_json::to_value(kind).expect("JSON"), kind.name());
        }
    }
}
