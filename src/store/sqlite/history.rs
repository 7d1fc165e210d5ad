//! Pages of a room's history for its members: messages in their current state.

use super::read::{is_member, newest};
use super::retain::floor;
use super::row::{Failure, int, message, message_columns, refuse};
use crate::chat::port::{HistoryPage, HistoryRead, Refusal};
use crate::protocol::reply::History;
use crate::protocol::view::Message;
use crate::protocol::{ErrorCode, RoomId, Seq, UserId};
use crate::store::changes::mark_mine;
use crate::store::common::{Taken, middle_out};
use rusqlite::{Connection, ToSql, params};

/// A page, or `forbidden`, also where there is no such room.
pub(super) fn history(
    connection: &Connection,
    read: &HistoryRead,
) -> Result<Result<History, Refusal>, Failure> {
    if !is_member(connection, read.room, read.user)? {
        return Ok(refuse(ErrorCode::Forbidden, "not a member of this room"));
    }
    for_service(connection, read).map(Ok)
}

/// A page, whoever asks for it.
pub(super) fn for_service(connection: &Connection, read: &HistoryRead) -> Result<History, Failure> {
    let (last_seq, _) = newest(connection, read.room)?;
    let floor = floor(connection, read.room)?;
    let mut history = match read.page {
        HistoryPage::Newest => before(connection, read, Seq::MAX, last_seq, floor)?,
        HistoryPage::Before(seq) => before(connection, read, seq, last_seq, floor)?,
        HistoryPage::After(seq) => after(connection, read, seq, last_seq, floor)?,
        HistoryPage::Around(seq) => around(connection, read, seq, last_seq, floor)?,
    };
    history.floor_seq = (floor > 0).then_some(floor);
    Ok(history)
}

/// Messages below a `seq` and above the floor, newest first.
const OLDER: &str = concat!(
    "SELECT ",
    message_columns!(),
    " FROM messages WHERE room_id = ?1 AND seq < ?2 AND seq > ?3 ORDER BY seq DESC"
);

/// Messages above a `seq` and above the floor, oldest first.
const NEWER: &str = concat!(
    "SELECT ",
    message_columns!(),
    " FROM messages WHERE room_id = ?1 AND seq > max(?2, ?3) ORDER BY seq"
);

/// Messages above the floor created or changed after a `seq`, by their last change: two stretches, each in order
/// by an index of its own, merged.
pub(super) const CHANGED: &str = concat!(
    "SELECT ",
    message_columns!(),
    " FROM messages WHERE room_id = ?1 AND seq > max(?2, ?3) AND changed_seq = seq
      UNION ALL
      SELECT ",
    message_columns!(),
    " FROM messages WHERE room_id = ?1 AND changed_seq > ?2 AND changed_seq <> seq AND seq > ?3
      ORDER BY changed_seq"
);

fn before(
    connection: &Connection,
    read: &HistoryRead,
    seq: Seq,
    last_seq: Seq,
    floor: Seq,
) -> Result<History, Failure> {
    let (mut messages, has_more) = page(connection, OLDER, read, (seq, floor))?;
    messages.reverse();
    Ok(History {
        messages,
        has_more,
        last_seq,
        next_after_seq: None,
        floor_seq: None,
    })
}

fn after(
    connection: &Connection,
    read: &HistoryRead,
    seq: Seq,
    last_seq: Seq,
    floor: Seq,
) -> Result<History, Failure> {
    let (messages, has_more) = page(connection, CHANGED, read, (seq, floor))?;
    // What has a `changed_seq` up to that of the last message here was told; on the last page,
    // everything in this snapshot was.
    let next_after_seq = match messages.last() {
        Some(message) if has_more => message.changed_seq,
        _ => last_seq,
    };
    Ok(History {
        messages,
        has_more,
        last_seq,
        next_after_seq: Some(next_after_seq),
        floor_seq: None,
    })
}

/// From the middle outwards, one older and one newer in turn, so that the page stays without a gap
/// and its middle in the middle when the limit, the bytes or one side end early.
fn around(
    connection: &Connection,
    read: &HistoryRead,
    seq: Seq,
    last_seq: Seq,
    floor: Seq,
) -> Result<History, Failure> {
    let (older, older_cut) = page(connection, OLDER, read, (seq.saturating_add(1), floor))?;
    let (newer, newer_cut) = page(connection, NEWER, read, (seq, floor))?;
    let (messages, has_more) = middle_out(read, (older, older_cut), (newer, newer_cut));
    Ok(History {
        messages,
        has_more,
        last_seq,
        next_after_seq: None,
        floor_seq: None,
    })
}

/// The first messages of a query that fit into the page, and whether there are more.
fn page(
    connection: &Connection,
    sql: &str,
    read: &HistoryRead,
    (seq, floor): (Seq, Seq),
) -> Result<(Vec<Message>, bool), Failure> {
    let mut statement = connection.prepare_cached(sql)?;
    let room_id: &dyn ToSql = &read.room.0.as_bytes();
    let mut rows = statement.query(params![room_id, int(seq), int(floor)])?;
    let mut taken = Taken::none();
    let mut messages = Vec::new();
    while let Some(row) = rows.next()? {
        let mut message = message(row)?;
        own_reactions(connection, read.room, read.user, &mut message)?;
        if !taken.takes(&message, read) {
            return Ok((messages, true));
        }
        messages.push(message);
    }
    Ok((messages, false))
}

/// Marks which reactions on a message are those of this user.
pub(super) fn own_reactions(
    connection: &Connection,
    room: RoomId,
    user: UserId,
    message: &mut Message,
) -> Result<(), Failure> {
    if message.reactions.is_empty() {
        return Ok(());
    }
    let mut statement = connection.prepare_cached(
        "SELECT emoji FROM message_reactions
         WHERE room_id = ?1 AND message_seq = ?2 AND user_id = ?3",
    )?;
    let rows = statement.query_map(
        params![room.0.as_bytes(), int(message.seq), user.0.as_bytes()],
        |row| row.get(0),
    )?;
    mark_mine(message, &rows.collect::<Result<Vec<String>, _>>()?);
    Ok(())
}
