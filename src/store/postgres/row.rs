//! Rows as values, and failures as what follows from them.

use crate::chat::port::{Archived, StoreError};
use crate::protocol::view::{
    Member, Mention, Message, MessageKind, Pin, Reaction, Role, Room, RoomKind, Watermark,
};
use crate::protocol::{ClientMsgId, RoomId, Seq, UnixMs, UserId};
use crate::store::changes::{mark_mine, mentions, reactions};
use crate::store::common::from_json;
use crate::store::files::{self, Kept};
use serde::Deserialize;
use std::collections::BTreeMap;
use tokio_postgres::Row;
use tokio_postgres::error::{Error, SqlState};
use uuid::Uuid;

/// Why a statement failed. A refusal is none of these.
#[derive(Debug)]
pub(super) enum Failure {
    /// The world's fault: the connection, the server, its disk. The outcome may be unknown.
    World(String),
    /// The transaction was ended for the sake of another one: nothing of it stands, and it may be tried
    /// again.
    Conflict(String),
    /// A unique index refused a row: nothing of it stands.
    Twice(String),
    /// Something in one write, or our own fault: the others of its batch are not to suffer.
    Data(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let text = told(&error);
        let Some(code) = error.code() else {
            // No error of the server: either the connection is gone, or a value does not fit.
            return if error.is_closed() || std::error::Error::source(&error).is_some_and(is_io) {
                Failure::World(text)
            } else {
                Failure::Data(text)
            };
        };
        if *code == SqlState::T_R_DEADLOCK_DETECTED || *code == SqlState::T_R_SERIALIZATION_FAILURE
        {
            return Failure::Conflict(text);
        }
        if *code == SqlState::UNIQUE_VIOLATION {
            return Failure::Twice(text);
        }
        // Classes: connection, invalid or read-only transaction, insufficient resources, object in
        // use (lock timeout), operator intervention (statement timeout, shutdown), system error,
        // snapshot too old, configuration, internal (a corrupt page).
        let world = ["08", "25", "53", "55", "57", "58", "72", "F0", "XX"];
        // A function or table that is missing or not ours to use is no write's fault either.
        let world = world.contains(&code.code().get(..2).unwrap_or_default())
            || [
                SqlState::INSUFFICIENT_PRIVILEGE,
                SqlState::UNDEFINED_TABLE,
                SqlState::UNDEFINED_FUNCTION,
            ]
            .contains(code);
        if world {
            Failure::World(text)
        } else {
            Failure::Data(text)
        }
    }
}

fn is_io(error: &(dyn std::error::Error + 'static)) -> bool {
    error.is::<std::io::Error>()
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> StoreError {
        match failure {
            Failure::World(text)
            | Failure::Conflict(text)
            | Failure::Twice(text)
            | Failure::Data(text) => StoreError::Unavailable(text),
        }
    }
}

/// An error in words, without the values of rows that its detail may quote.
pub(super) fn told(error: &Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

/// A column of this type.
pub(super) fn get<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    column: usize,
) -> Result<T, Failure> {
    row.try_get(column)
        .map_err(|error| Failure::Data(error.to_string()))
}

/// A number that is never negative.
pub(super) fn uint(row: &Row, column: usize) -> Result<u64, Failure> {
    let number: i64 = get(row, column)?;
    u64::try_from(number).map_err(|_| Failure::Data(format!("column {column} is negative")))
}

pub(super) fn uint_or_null(row: &Row, column: usize) -> Result<Option<u64>, Failure> {
    let number: Option<i64> = get(row, column)?;
    Ok(number.and_then(|number| u64::try_from(number).ok()))
}

/// A user.
pub(super) fn user_id(row: &Row, column: usize) -> Result<UserId, Failure> {
    get(row, column).map(UserId)
}

/// A room.
pub(super) fn room_id(row: &Row, column: usize) -> Result<RoomId, Failure> {
    get(row, column).map(RoomId)
}

/// The kind of a room.
pub(super) fn room_kind(row: &Row, column: usize) -> Result<RoomKind, Failure> {
    named(row, column, RoomKind::from_name)
}

/// The role of a member.
pub(super) fn role(row: &Row, column: usize) -> Result<Role, Failure> {
    named(row, column, Role::from_name)
}

/// The kind of a message.
pub(super) fn message_kind(row: &Row, column: usize) -> Result<MessageKind, Failure> {
    named(row, column, MessageKind::from_name)
}

/// Whether a room is archived, as `chat_archived` says it.
pub(super) fn archived(code: i32) -> Result<Archived, Failure> {
    match code {
        0 => Ok(Archived::No),
        1 => Ok(Archived::Yes),
        2 => Ok(Archived::WhileMuted),
        _ => Err(Failure::Data("not archived and not otherwise".to_owned())),
    }
}

fn named<T>(row: &Row, column: usize, from_name: impl Fn(&str) -> Option<T>) -> Result<T, Failure> {
    let name: &str = get(row, column)?;
    from_name(name).ok_or_else(|| Failure::Data(format!("column {column} holds an unknown name")))
}

/// What [`message`] reads, in its order, of a row called `m`.
macro_rules! message_columns {
    () => {
        "m.seq, m.sender_id, m.kind, m.changed_seq, m.revision, m.created_at, m.edited_at, \
         m.deleted_at, m.reply_to_seq, m.client_msg_id, m.event::text, m.text, m.mentions::text, \
         m.reactions::text, m.attachments::text"
    };
}
pub(super) use message_columns;

/// How many columns [`message_columns`] has.
pub(super) const MESSAGE_COLUMNS: usize = 15;

/// Where in [`message_columns`] the event stands.
const EVENT_COLUMN: usize = 10;

/// The emojis that this user put on the message called `m`; NULL if nobody put any.
macro_rules! own_reactions {
    ($user:literal) => {
        concat!(
            "CASE WHEN m.reactions IS NOT NULL THEN (SELECT array_agg(x.emoji)
                 FROM message_reactions x WHERE x.room_id = m.room_id AND x.message_seq = m.seq
                     AND x.user_id = ",
            $user,
            ") END"
        )
    };
}
pub(super) use own_reactions;

/// A message in its current state, after a column of [`own_reactions`].
pub(super) fn message_for_user(row: &Row, first: usize) -> Result<Message, Failure> {
    let mine: Option<Vec<String>> = get(row, first)?;
    let mut message = message(row, first + 1)?;
    mark_mine(&mut message, &mine.unwrap_or_default());
    Ok(message)
}

/// A message in its current state, from this column on.
pub(super) fn message(row: &Row, first: usize) -> Result<Message, Failure> {
    let event = match event_json(row, first)? {
        Some(json) => Some(from_json(json).map_err(Failure::Data)?),
        None => None,
    };
    let client_msg_id: Option<Uuid> = get(row, first + 9)?;
    let revision: i32 = get(row, first + 4)?;
    let kind = named(row, first + 2, MessageKind::from_name)?;
    let kept = files::kept(kind, get(row, first + 14)?);
    let (kind, attachments) = kept.map_err(Failure::Data)?;
    Ok(Message {
        seq: uint(row, first)?,
        sender_id: user_id(row, first + 1)?,
        client_msg_id: client_msg_id.map(ClientMsgId),
        kind,
        text: get(row, first + 11)?,
        event,
        attachments,
        reply_to_seq: uint_or_null(row, first + 8)?,
        mentions: mentions(get(row, first + 12)?).map_err(Failure::Data)?,
        reactions: reactions(get(row, first + 13)?).map_err(Failure::Data)?,
        changed_seq: uint(row, first + 3)?,
        revision: revision.unsigned_abs(),
        edited_at: uint_or_null(row, first + 6)?.map(UnixMs),
        deleted_at: uint_or_null(row, first + 7)?.map(UnixMs),
        created_at: UnixMs(uint(row, first + 5)?),
    })
}

/// The event of a system message, as it is kept.
pub(super) fn event_json(row: &Row, first: usize) -> Result<Option<&str>, Failure> {
    get(row, first + EVENT_COLUMN)
}

/// Bytes of a watermark: the user, what was read, what was delivered.
const WATERMARK_BYTES: usize = 16 + 8 + 8;

/// Watermarks, as the database strings them together.
pub(super) fn watermarks(bytes: &[u8]) -> Result<Vec<Watermark>, Failure> {
    let mark = |mark: &[u8]| {
        let (user, rest) = mark.split_at(16);
        let (read, delivered) = rest.split_at(8);
        let number = |bytes: &[u8]| Some(Seq::from_be_bytes(bytes.try_into().ok()?));
        Some(Watermark {
            user_id: UserId(Uuid::from_slice(user).ok()?),
            read_seq: number(read)?,
            delivered_seq: number(delivered)?,
        })
    };
    let marks = bytes.chunks_exact(WATERMARK_BYTES).map(mark);
    marks
        .collect::<Option<_>>()
        .ok_or_else(|| Failure::Data("a watermark is cut".to_owned()))
}

/// A room as `chat_room_view` or `chat_whole_room` tells it.
#[derive(Deserialize)]
struct RoomView {
    kind: RoomKind,
    title: Option<String>,
    picture: Option<String>,
    created_at: u64,
    last_seq: Seq,
    member_count: u32,
    members: Vec<MemberView>,
    /// Of `chat_whole_room`.
    #[serde(default)]
    pins: Option<Vec<PinView>>,
}

#[derive(Deserialize)]
struct PinView {
    message_seq: Seq,
    pinned_by: UserId,
    pinned_at: u64,
}

#[derive(Deserialize)]
struct MemberView {
    user_id: UserId,
    name: String,
    role: Role,
    read_seq: Seq,
    delivered_seq: Seq,
}

/// A room, from such JSON.
pub(super) fn room_view(room_id: RoomId, json: &str) -> Result<Room, Failure> {
    let view: RoomView = from_json(json).map_err(Failure::Data)?;
    let member = |member: MemberView| Member {
        user_id: member.user_id,
        name: member.name,
        role: member.role,
        read_seq: member.read_seq,
        delivered_seq: member.delivered_seq,
    };
    let pin = |pin: PinView| Pin {
        message_seq: pin.message_seq,
        pinned_by: pin.pinned_by,
        pinned_at: UnixMs(pin.pinned_at),
    };
    Ok(Room {
        room_id,
        kind: view.kind,
        title: view.title,
        picture: view.picture,
        created_at: UnixMs(view.created_at),
        last_seq: view.last_seq,
        member_count: view.member_count,
        members: view.members.into_iter().map(member).collect(),
        pins: view.pins.map(|pins| pins.into_iter().map(pin).collect()),
    })
}

/// What `chat_change` tells of a message.
#[derive(Deserialize)]
pub(super) struct ChangedRow {
    pub changed_seq: Seq,
    pub revision: u32,
    /// How often the emoji of a reaction is there now.
    pub count: Option<u32>,
    /// After an edit.
    pub message: Option<MessageRow>,
}

/// A message of a person, as its row is told as JSON.
#[derive(Deserialize)]
pub(super) struct MessageRow {
    seq: Seq,
    sender_id: UserId,
    client_msg_id: Option<Uuid>,
    text: Option<String>,
    reply_to_seq: Option<Seq>,
    mentions: Option<Vec<Mention>>,
    reactions: Option<BTreeMap<String, u32>>,
    attachments: Option<Kept>,
    changed_seq: Seq,
    revision: u32,
    edited_at: Option<u64>,
    deleted_at: Option<u64>,
    created_at: u64,
}

impl MessageRow {
    /// The message.
    pub fn into_message(self) -> Message {
        let reaction = |(emoji, count)| (emoji, Reaction { count, mine: None });
        let reactions = self.reactions.unwrap_or_default();
        let (kind, attachments) = match self.attachments {
            None => (MessageKind::Text, Vec::new()),
            Some(kept) => (kept.kind.into(), kept.files),
        };
        Message {
            seq: self.seq,
            sender_id: self.sender_id,
            client_msg_id: self.client_msg_id.map(ClientMsgId),
            kind,
            text: self.text,
            event: None,
            attachments,
            reply_to_seq: self.reply_to_seq,
            mentions: self.mentions.unwrap_or_default(),
            reactions: reactions.into_iter().map(reaction).collect(),
            changed_seq: self.changed_seq,
            revision: self.revision,
            edited_at: self.edited_at.map(UnixMs),
            deleted_at: self.deleted_at.map(UnixMs),
            created_at: UnixMs(self.created_at),
        }
    }
}
