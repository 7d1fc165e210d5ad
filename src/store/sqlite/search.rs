//! Finds messages by their words: entries of the index from the newest on, each looked at until the page is
//! full.
//!
//! Invariants: a hit is a message of a room that the user is a member of, with the words that it has
//! now; a page looks at no more than [`ENTRIES_MAX`] entries, and then says where to go on.

use super::history::own_reactions;
use super::read::is_member;
use super::row::{Failure, int, message, message_columns, refuse, room_id, uint, user_id};
use crate::chat::port::{Refusal, SearchRead};
use crate::protocol::search::{SearchHit, SearchHits};
use crate::protocol::{ErrorCode, RoomId, Seq, UserId};
use crate::search::{Before, Query, ROOMS_NAMED_MAX};
use rusqlite::{Connection, params};
use std::collections::BTreeSet;

/// Entries that one page looks at: some 50 ms.
const ENTRIES_MAX: usize = 10_000;

/// A page, or why there is none.
pub(super) fn search(
    connection: &Connection,
    read: &SearchRead,
) -> Result<Result<SearchHits, Refusal>, Failure> {
    let (query, before) = match (
        Query::parse(&read.query),
        Before::parse(read.before.as_deref()),
    ) {
        (Ok(query), Ok(before)) => (query, before),
        (Err(refusal), _) | (_, Err(refusal)) => return Ok(Err(refusal)),
    };
    let rooms = match read.room {
        None => own_rooms(connection, read.user)?,
        Some(room) if is_member(connection, room, read.user)? => BTreeSet::from([room]),
        Some(_) => return Ok(refuse(ErrorCode::Forbidden, "not a member of this room")),
    };
    let mut page = SearchHits {
        hits: Vec::new(),
        has_more: false,
        next_before: None,
    };
    if query.is_empty() || rooms.is_empty() {
        return Ok(Ok(page));
    }
    let named: Vec<RoomId> = match rooms.len() <= ROOMS_NAMED_MAX {
        true => rooms.iter().copied().collect(),
        false => Vec::new(),
    };
    let blocked = blocked_by(connection, read.user)?;
    let mut statement = connection.prepare_cached(
        "SELECT w.rowid, p.room_id, p.seq FROM message_words w
         CROSS JOIN message_places p ON p.place = w.rowid
         WHERE w.message_words MATCH ?1 AND w.rowid < ?2 ORDER BY w.rowid DESC",
    )?;
    let mut rows = statement.query(params![query.fts(&named), int(before.place)])?;
    let (mut looked, mut bytes) = (0, 0);
    // The last entry that was dealt with.
    let mut last = None;
    while let Some(row) = rows.next()? {
        let at = Before {
            place: uint(row, 0)?,
            room: room_id(row, 1)?,
            seq: uint(row, 2)?,
        };
        looked += 1;
        let hit = match rooms.contains(&at.room) {
            true => hit(connection, read, &query, &blocked, at.room, at.seq)?,
            false => None,
        };
        if let Some(hit) = hit {
            bytes += hit.message.text.as_ref().map_or(0, String::len);
            let is_full = page.hits.len() >= read.limit || bytes > read.bytes_max;
            if is_full && !page.hits.is_empty() {
                page.has_more = true;
                break;
            }
            page.hits.push(hit);
        }
        last = Some(at);
        if looked == ENTRIES_MAX {
            page.has_more = true;
            break;
        }
    }
    let last = last.filter(|_| page.has_more);
    page.next_before = last.map(Before::to_text);
    Ok(Ok(page))
}

/// The message, if it is to be found.
fn hit(
    connection: &Connection,
    read: &SearchRead,
    query: &Query,
    blocked: &BTreeSet<UserId>,
    room_id: RoomId,
    seq: Seq,
) -> Result<Option<SearchHit>, Failure> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        message_columns!(),
        " FROM messages WHERE room_id = ?1 AND seq = ?2"
    ))?;
    let mut rows = statement.query(params![room_id.0.as_bytes(), int(seq)])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let mut message = message(row)?;
    // It may have changed since it was indexed.
    let text = message.text.as_deref().filter(|text| query.finds(text));
    if text.is_none() || blocked.contains(&message.sender_id) {
        return Ok(None);
    }
    own_reactions(connection, room_id, read.user, &mut message)?;
    Ok(Some(SearchHit { room_id, message }))
}

fn own_rooms(connection: &Connection, user: UserId) -> Result<BTreeSet<RoomId>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT room_id FROM room_participants WHERE user_id = ?1 AND left_seq IS NULL",
    )?;
    let mut rows = statement.query([user.0.as_bytes()])?;
    let mut rooms = BTreeSet::new();
    while let Some(row) = rows.next()? {
        rooms.insert(room_id(row, 0)?);
    }
    Ok(rooms)
}

fn blocked_by(connection: &Connection, user: UserId) -> Result<BTreeSet<UserId>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT other_id FROM user_relationships WHERE user_id = ?1 AND kind = 'block'",
    )?;
    let mut rows = statement.query([user.0.as_bytes()])?;
    let mut blocked = BTreeSet::new();
    while let Some(row) = rows.next()? {
        blocked.insert(user_id(row, 0)?);
    }
    Ok(blocked)
}
