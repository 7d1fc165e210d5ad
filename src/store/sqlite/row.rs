//! Rows as values: ids, enums, messages, and the events that stand for them.

use crate::chat::port::{Refusal, StoreError};
use crate::protocol::event::{RoomEvent, RoomEventBody};
use crate::protocol::view::{Member, Message, MessageKind, Role, Room, RoomKind, SystemEvent};
use crate::protocol::{ClientMsgId, ErrorCode, RoomId, Seq, UnixMs, UserId};
use rusqlite::Row;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Why a statement failed. A refusal is none of these.
#[derive(Debug)]
pub(super) enum Failure {
    /// The world's fault: disk, memory, locks. Everything in the transaction failed.
    World(String),
    /// Something in one write, or our own fault: the others of its batch are not to suffer.
    Data(String),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        use rusqlite::ErrorCode as Code;
        let world = matches!(
            error.sqlite_error_code(),
            Some(
                Code::DiskFull
                    | Code::SystemIoFailure
                    | Code::DatabaseBusy
                    | Code::DatabaseLocked
                    | Code::CannotOpen
                    | Code::ReadOnly
                    | Code::OutOfMemory
                    | Code::NotADatabase
                    | Code::DatabaseCorrupt
                    | Code::PermissionDenied
                    | Code::OperationInterrupted
                    | Code::OperationAborted
                    | Code::FileLockingProtocolFailed
            )
        );
        if world {
            Failure::World(error.to_string())
        } else {
            Failure::Data(error.to_string())
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> StoreError {
        match failure {
            Failure::World(text) | Failure::Data(text) => StoreError::Unavailable(text),
        }
    }
}

/// A refusal.
pub(super) fn refuse<T>(code: ErrorCode, message: &'static str) -> Result<T, Refusal> {
    Err(Refusal { code, message })
}

/// A number as SQLite keeps it. Ours stay far below 2^63; a client's `seq` may be anything, and is
/// then simply after every event.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number that is never negative.
pub(super) fn uint(row: &Row<'_>, column: usize) -> Result<u64, Failure> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| Failure::Data(format!("column {column} is negative")))
}

/// A number that is never negative, if there is one.
fn uint_or_null(row: &Row<'_>, column: usize) -> Result<Option<u64>, Failure> {
    let number: Option<i64> = row.get(column)?;
    Ok(number.and_then(|number| u64::try_from(number).ok()))
}

fn uuid(row: &Row<'_>, column: usize) -> Result<Uuid, Failure> {
    let bytes: [u8; 16] = row.get(column)?;
    Ok(Uuid::from_bytes(bytes))
}

/// A user.
pub(super) fn user_id(row: &Row<'_>, column: usize) -> Result<UserId, Failure> {
    uuid(row, column).map(UserId)
}

/// A room.
pub(super) fn room_id(row: &Row<'_>, column: usize) -> Result<RoomId, Failure> {
    uuid(row, column).map(RoomId)
}

/// The kind of a room.
pub(super) fn room_kind(row: &Row<'_>, column: usize) -> Result<RoomKind, Failure> {
    named(row, column, RoomKind::from_name)
}

/// The role of a member.
pub(super) fn role(row: &Row<'_>, column: usize) -> Result<Role, Failure> {
    named(row, column, Role::from_name)
}

fn named<T>(
    row: &Row<'_>,
    column: usize,
    from_name: impl Fn(&str) -> Option<T>,
) -> Result<T, Failure> {
    let name = row.get_ref(column)?;
    name.as_str()
        .ok()
        .and_then(from_name)
        .ok_or_else(|| Failure::Data(format!("column {column} holds an unknown name")))
}

/// What [`message`] reads, in its order.
macro_rules! message_columns {
    () => {
        "seq, sender_id, kind, changed_seq, revision, created_at, edited_at, deleted_at, \
         reply_to_seq, client_msg_id, event, text"
    };
}
pub(super) use message_columns;

/// A message in its current state.
pub(super) fn message(row: &Row<'_>) -> Result<Message, Failure> {
    let event: Option<SystemEvent> = match row.get_ref(10)?.as_str_or_null() {
        Ok(Some(json)) => Some(from_json(json)?),
        Ok(None) => None,
        Err(error) => return Err(Failure::Data(error.to_string())),
    };
    let client_msg_id: Option<[u8; 16]> = row.get(9)?;
    Ok(Message {
        seq: uint(row, 0)?,
        sender_id: user_id(row, 1)?,
        client_msg_id: client_msg_id.map(|bytes| ClientMsgId(Uuid::from_bytes(bytes))),
        kind: named(row, 2, MessageKind::from_name)?,
        text: row.get(11)?,
        event,
        attachments: Vec::new(),
        reply_to_seq: uint_or_null(row, 8)?,
        mentions: Vec::new(),
        reactions: BTreeMap::new(),
        changed_seq: uint(row, 3)?,
        revision: row.get(4)?,
        edited_at: uint_or_null(row, 6)?.map(UnixMs),
        deleted_at: uint_or_null(row, 7)?.map(UnixMs),
        created_at: UnixMs(uint(row, 5)?),
    })
}

/// The durable event that created the message of this row.
pub(super) fn event(room_id: RoomId, row: &Row<'_>) -> Result<RoomEvent, Failure> {
    let mut message = message(row)?;
    let (seq, ts) = (message.seq, message.created_at);
    let body = match message.event.take() {
        None => RoomEventBody::MessageCreated {
            message: Box::new(message),
        },
        Some(SystemEvent::RoomCreated { .. }) => {
            let json = row.get_ref(10)?.as_str().unwrap_or_default();
            let opened: Opened = from_json(json)?;
            RoomEventBody::RoomCreated {
                room: Box::new(opened.room.into_room(room_id, ts)),
            }
        }
        Some(SystemEvent::MemberJoined(joined)) => RoomEventBody::MemberJoined(joined),
        Some(SystemEvent::MemberLeft(left)) => RoomEventBody::MemberLeft(left),
        Some(SystemEvent::MemberRoleChanged(changed)) => RoomEventBody::MemberRoleChanged(changed),
    };
    Ok(RoomEvent {
        room_id,
        seq,
        ts,
        body,
    })
}

/// `event` of the row of `room.created`: what every system message has, and beside it the room as
/// it was opened, so that the event can be told again after the room has changed.
#[derive(Serialize, Deserialize)]
pub(super) struct Opened {
    r#type: String,
    actor_id: UserId,
    pub room: OpenedAs,
}

/// A room as it was opened.
#[derive(Serialize, Deserialize)]
pub(super) struct OpenedAs {
    kind: RoomKind,
    title: Option<String>,
    member_count: u32,
    members: Vec<OpenedMember>,
}

#[derive(Serialize, Deserialize)]
struct OpenedMember {
    user_id: UserId,
    name: String,
    role: Role,
}

impl Opened {
    /// What is kept of a room that was opened just now.
    pub fn new(actor_id: UserId, room: &Room) -> Opened {
        let member = |member: &Member| OpenedMember {
            user_id: member.user_id,
            name: member.name.clone(),
            role: member.role,
        };
        Opened {
            r#type: "room.created".to_owned(),
            actor_id,
            room: OpenedAs {
                kind: room.kind,
                title: room.title.clone(),
                member_count: room.member_count,
                members: room.members.iter().map(member).collect(),
            },
        }
    }
}

/// `seq` of `room.created`, which the first members have read.
pub(super) const OPENED_SEQ: Seq = 1;

impl OpenedAs {
    /// The room as it was then.
    pub fn into_room(self, room_id: RoomId, created_at: UnixMs) -> Room {
        let member = |member: OpenedMember| Member {
            user_id: member.user_id,
            name: member.name,
            role: member.role,
            read_seq: OPENED_SEQ,
            delivered_seq: OPENED_SEQ,
        };
        Room {
            room_id,
            kind: self.kind,
            title: self.title,
            created_at,
            last_seq: OPENED_SEQ,
            member_count: self.member_count,
            members: self.members.into_iter().map(member).collect(),
        }
    }
}

/// JSON of one of our own types.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String, Failure> {
    sonic_rs::to_string(value).map_err(|error| Failure::Data(error.to_string()))
}

fn from_json<T: for<'de> Deserialize<'de>>(json: &str) -> Result<T, Failure> {
    sonic_rs::from_str(json).map_err(|error| Failure::Data(error.to_string()))
}
