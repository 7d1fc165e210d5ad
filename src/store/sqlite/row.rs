//! Rows as values: ids, enums, messages, and the events that stand for them.

use crate::chat::port::StoreError;
use crate::protocol::event::RoomEvent;
use crate::protocol::view::{Message, MessageKind, Role, RoomKind, SystemEvent};
use crate::protocol::{ClientMsgId, RoomId, UnixMs, UserId};
use crate::store::changes::{KeptChange, mentions, reactions};
use crate::store::common::{event_of, from_json};
pub(super) use crate::store::common::{int, refuse};
use crate::store::files;
use rusqlite::Row;
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

/// A number that is never negative.
pub(super) fn uint(row: &Row<'_>, column: usize) -> Result<u64, Failure> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| Failure::Data(format!("column {column} is negative")))
}

/// A number that is never negative, if there is one.
pub(super) fn uint_or_null(row: &Row<'_>, column: usize) -> Result<Option<u64>, Failure> {
    let number: Option<i64> = row.get(column)?;
    Ok(number.and_then(|number| u64::try_from(number).ok()))
}

/// An id.
pub(super) fn uuid(row: &Row<'_>, column: usize) -> Result<Uuid, Failure> {
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

/// The kind of a message.
pub(super) fn message_kind(row: &Row<'_>, column: usize) -> Result<MessageKind, Failure> {
    named(row, column, MessageKind::from_name)
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
         reply_to_seq, client_msg_id, event, text, mentions, reactions, attachments"
    };
}
pub(super) use message_columns;

/// How many columns [`message_columns`] has.
pub(super) const MESSAGE_COLUMNS: usize = 15;

/// A text, if there is one.
pub(super) fn text<'a>(row: &'a Row<'_>, column: usize) -> Result<Option<&'a str>, Failure> {
    let value = row.get_ref(column)?;
    value
        .as_str_or_null()
        .map_err(|error| Failure::Data(error.to_string()))
}

/// A message in its current state.
pub(super) fn message(row: &Row<'_>) -> Result<Message, Failure> {
    let event: Option<SystemEvent> = match text(row, 10)? {
        Some(json) => Some(from_json(json).map_err(Failure::Data)?),
        None => None,
    };
    let client_msg_id: Option<[u8; 16]> = row.get(9)?;
    let kind = named(row, 2, MessageKind::from_name)?;
    let (kind, attachments) = files::kept(kind, text(row, 14)?).map_err(Failure::Data)?;
    Ok(Message {
        seq: uint(row, 0)?,
        sender_id: user_id(row, 1)?,
        client_msg_id: client_msg_id.map(|bytes| ClientMsgId(Uuid::from_bytes(bytes))),
        kind,
        text: row.get(11)?,
        event,
        attachments,
        reply_to_seq: uint_or_null(row, 8)?,
        mentions: mentions(text(row, 12)?).map_err(Failure::Data)?,
        reactions: reactions(text(row, 13)?).map_err(Failure::Data)?,
        changed_seq: uint(row, 3)?,
        revision: row.get(4)?,
        edited_at: uint_or_null(row, 6)?.map(UnixMs),
        deleted_at: uint_or_null(row, 7)?.map(UnixMs),
        created_at: UnixMs(uint(row, 5)?),
    })
}

/// What [`event`] reads of a message that was created.
macro_rules! created_columns {
    () => {
        concat!(
            message_columns!(),
            ", seq AS at, NULL AS ts, NULL AS type, NULL AS message_seq, NULL AS actor_id, NULL AS data"
        )
    };
}
pub(super) use created_columns;

/// The durable event of this row: [`created_columns`], or the same of a change.
pub(super) fn event(room_id: RoomId, row: &Row<'_>) -> Result<RoomEvent, Failure> {
    const FIRST: usize = MESSAGE_COLUMNS;
    let Some(name) = text(row, FIRST + 2)? else {
        let json = text(row, 10)?.unwrap_or_default();
        return event_of(room_id, message(row)?, json).map_err(Failure::Data);
    };
    let change = KeptChange {
        seq: uint(row, FIRST)?,
        ts: UnixMs(uint(row, FIRST + 1)?),
        name,
        message_seq: uint(row, FIRST + 3)?,
        actor: user_id(row, FIRST + 4)?,
        data: text(row, FIRST + 5)?,
        message: match uint_or_null(row, 0)? {
            Some(_) => Some(message(row)?),
            None => None,
        },
    };
    change.event(room_id).map_err(Failure::Data)
}
