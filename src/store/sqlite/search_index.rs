//! Keeps the index of messages behind what is written: a send writes nothing for it.
//!
//! Which rooms have something new is noted with their commits, in memory; how far each is indexed stands in
//! `indexed_rooms`, and at every start all rooms are compared with it. So what a crash forgot is found.
//!
//! An entry that is deleted stays in the index's pages until these are merged. After an erasure they are, whatever the
//! index itself would think of it, with secure deletion, so that no page of the file holds a word of it.
//!
//! Invariants: a step is one transaction of bounded work; an entry is there exactly for each message of a
//! person that is not deleted, up to `indexed_seq` of its room.

use super::history::CHANGED;
use super::options::BUSY_MS_MAX;
use super::read::newest;
use super::row::{Failure, int, message, room_id, uint};
use crate::protocol::view::{Message, MessageKind};
use crate::protocol::{RoomId, Seq};
use crate::search::{place_of, words};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::BTreeSet;
use std::time::Duration;
use uuid::Uuid;

/// Messages of one step: some ms of work.
const STEP_MESSAGES: usize = 256;
/// Rooms compared in one step at the start.
const STEP_ROOMS: usize = 500;
/// Pages of about 4,000 bytes that one step of a merge writes.
const STEP_PAGES: i64 = 64;
/// What a page's number is multiplied by the segment for: the low bits say where in the segment it is
/// (`fts5_index.c`, "%_data table").
const SEGMENT_BITS: u32 = 37;
/// Added to a segment for the pages that list what was deleted of it (`FTS5_TOMBSTONE_ROWID`).
const TOMBSTONES: i64 = 1 << 16;

/// What the index does not have yet.
#[derive(Debug)]
pub(super) struct Unindexed {
    rooms: BTreeSet<RoomId>,
    /// Rooms after this one are to be compared; `None`: all were.
    compare_after: Option<RoomId>,
    erased: Erased,
}

/// What was erased and still stands in the pages of the index.
#[derive(Debug, PartialEq, Eq)]
enum Erased {
    /// Nothing.
    None,
    /// Something, perhaps.
    Somewhere,
    /// Something in these segments. Messages deleted since do not count: or it had no end.
    In(BTreeSet<i64>),
    /// Nothing, but the write-ahead log and what it has not yet overwritten do.
    Logged,
}

impl Default for Unindexed {
    fn default() -> Unindexed {
        Unindexed {
            rooms: BTreeSet::new(),
            compare_after: Some(RoomId(Uuid::nil())),
            // By who wrote here before.
            erased: Erased::Somewhere,
        }
    }
}

impl Unindexed {
    /// Something was committed to this room.
    pub fn add(&mut self, room: RoomId) {
        self.rooms.insert(room);
    }

    /// Entries were deleted for good.
    pub fn erased(&mut self) {
        self.erased = Erased::Somewhere;
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.is_indexed() && self.erased == Erased::None
    }

    /// Whether the index has all that there is.
    fn is_indexed(&self) -> bool {
        self.rooms.is_empty() && self.compare_after.is_none()
    }
}

/// Does some of it, in a transaction; whether there is more.
pub(super) fn step(connection: &Connection, unindexed: &mut Unindexed) -> Result<bool, Failure> {
    if unindexed.is_empty() {
        return Ok(false);
    }
    if unindexed.is_indexed() {
        unindexed.erased = if unindexed.erased == Erased::Logged {
            empty_log(connection)?
        } else {
            secure_delete(connection, true)?;
            let merged = merge(connection, &unindexed.erased);
            secure_delete(connection, false)?;
            merged?
        };
        return Ok(!unindexed.is_empty());
    }
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    compare(connection, unindexed)?;
    let (mut left, mut done) = (STEP_MESSAGES, Vec::new());
    for room in &unindexed.rooms {
        let (taken, is_done) = match index_room(connection, *room, left) {
            Ok(taken) => taken,
            // Passed over until the next start, so that the others are not held up by it.
            Err(Failure::Data(text)) => {
                tracing::error!(error = text, %room, "a room was not indexed");
                (0, true)
            }
            Err(failure) => return Err(failure),
        };
        if is_done {
            done.push(*room);
        }
        left -= taken;
        if left == 0 {
            break;
        }
    }
    connection.prepare_cached("COMMIT")?.execute([])?;
    for room in done {
        unindexed.rooms.remove(&room);
    }
    Ok(!unindexed.is_empty())
}

/// Whether pages that are no longer used are overwritten from now on. What is deleted within a page always is.
pub(super) fn secure_delete(connection: &Connection, pages_too: bool) -> Result<(), Failure> {
    let to = if pages_too { "ON" } else { "FAST" };
    connection.query_row(&format!("PRAGMA secure_delete = {to}"), [], |_| Ok(()))?;
    Ok(())
}

/// Does this with pages that are no longer used overwritten: for what is deleted for good, or replaced, and may be
/// longer than a page.
pub(super) fn overwriting<T>(
    connection: &Connection,
    work: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    secure_delete(connection, true)?;
    let done = work();
    secure_delete(connection, false)?;
    done
}

/// Merges some pages of the index; what is left to merge.
fn merge(connection: &Connection, erased: &Erased) -> Result<Erased, Failure> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let mut segments = match erased {
        Erased::In(segments) => segments.clone(),
        Erased::None | Erased::Logged | Erased::Somewhere => connection
            .prepare_cached(
                "SELECT DISTINCT (id >> ?1) - ?2 FROM message_words_data WHERE id >= ?2 << ?1",
            )?
            .query_map(params![SEGMENT_BITS, TOMBSTONES], |row| row.get(0))?
            .collect::<Result<_, _>>()?,
    };
    if !segments.is_empty() {
        let before = connection.total_changes();
        connection
            .prepare_cached("INSERT INTO message_words (message_words, rank) VALUES ('merge', ?1)")?
            // Negative: towards one segment.
            .execute([-STEP_PAGES])?;
        // "If the difference is less than 2, then the 'merge' command was a no-op": the FTS5 documentation.
        let is_over = connection.total_changes() - before < 2;
        let mut is_there = connection.prepare_cached(
            "SELECT 1 FROM message_words_data WHERE id >= ?1 << ?2 AND id < (?1 + 1) << ?2",
        )?;
        let mut left = BTreeSet::new();
        for segment in segments {
            // Asked in the transaction that merges: the number of a segment that is gone is given again.
            if !is_over && is_there.exists(params![segment, SEGMENT_BITS])? {
                left.insert(segment);
            }
        }
        segments = left;
    }
    connection.prepare_cached("COMMIT")?.execute([])?;
    Ok(match segments.is_empty() {
        true => Erased::Logged,
        false => Erased::In(segments),
    })
}

/// Brings all of the log into the file and cuts it to nothing, unless somebody reads from it just now.
fn empty_log(connection: &Connection) -> Result<Erased, Failure> {
    connection.busy_timeout(Duration::ZERO)?;
    let busy = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
    connection.busy_timeout(Duration::from_millis(BUSY_MS_MAX))?;
    Ok(if busy? { Erased::Logged } else { Erased::None })
}

/// Looks through the next rooms, after a start.
fn compare(connection: &Connection, unindexed: &mut Unindexed) -> Result<(), Failure> {
    let Some(after) = unindexed.compare_after else {
        return Ok(());
    };
    let mut statement = connection.prepare_cached(
        "SELECT r.room_id, coalesce(i.indexed_seq, 0) FROM chat_rooms r
         LEFT JOIN indexed_rooms i ON i.room_id = r.room_id
         WHERE r.room_id > ?1 ORDER BY r.room_id LIMIT ?2",
    )?;
    let mut rows = statement.query(params![after.0.as_bytes(), int(STEP_ROOMS as u64)])?;
    let (mut last, mut count) = (after, 0);
    while let Some(row) = rows.next()? {
        let room = room_id(row, 0)?;
        if newest(connection, room)?.0 > uint(row, 1)? {
            unindexed.rooms.insert(room);
        }
        last = room;
        count += 1;
    }
    unindexed.compare_after = (count == STEP_ROOMS).then_some(last);
    Ok(())
}

/// Indexes what changed in a room: how many messages, and whether that was all.
fn index_room(connection: &Connection, room: RoomId, max: usize) -> Result<(usize, bool), Failure> {
    let indexed: Option<i64> = connection
        .prepare_cached("SELECT indexed_seq FROM indexed_rooms WHERE room_id = ?1")?
        .query_row([room.0.as_bytes()], |row| row.get(0))
        .optional()?;
    let before: Seq = indexed.map_or(0, i64::cast_unsigned);
    let mut indexed = before;
    let (last_seq, _) = newest(connection, room)?;
    let mut statement = connection.prepare_cached(CHANGED)?;
    let mut rows = statement.query(params![room.0.as_bytes(), int(indexed), 0])?;
    let (mut taken, mut is_done) = (0, false);
    while taken < max {
        let Some(row) = rows.next()? else {
            is_done = true;
            break;
        };
        let message = message(row)?;
        indexed = message.changed_seq;
        taken += 1;
        index_message(connection, room, &message)?;
    }
    drop(rows);
    connection
        .prepare_cached(
            "INSERT INTO indexed_rooms (room_id, indexed_seq) VALUES (?1, ?2)
             ON CONFLICT DO UPDATE SET indexed_seq = excluded.indexed_seq",
        )?
        .execute(params![
            room.0.as_bytes(),
            int(if is_done { last_seq } else { indexed })
        ])?;
    // Whom to tell of it is decided behind the commits too.
    let seen = if is_done { last_seq } else { indexed };
    super::hooks::note_room(connection, room, before, seen)?;
    Ok((taken, is_done))
}

fn index_message(connection: &Connection, room: RoomId, message: &Message) -> Result<(), Failure> {
    let seq = message.seq;
    if message.kind == MessageKind::System {
        return Ok(());
    }
    let mut place: Option<i64> = None;
    // A message that never changed has no entry, but for one after a crash of the disk's making.
    if message.changed_seq != seq {
        place = connection
            .prepare_cached("SELECT place FROM message_places WHERE room_id = ?1 AND seq = ?2")?
            .query_row(params![room.0.as_bytes(), int(seq)], |row| row.get(0))
            .optional()?;
    }
    if let Some(place) = place {
        connection
            .prepare_cached("DELETE FROM message_words WHERE rowid = ?1")?
            .execute([place])?;
    }
    let words = words(message.text.as_deref().unwrap_or_default());
    if words.is_empty() {
        if let Some(place) = place {
            connection
                .prepare_cached("DELETE FROM message_places WHERE place = ?1")?
                .execute([place])?;
        }
        return Ok(());
    }
    let place = match place {
        Some(place) => place,
        None => take_place(connection, room, message)?,
    };
    connection
        .prepare_cached("INSERT INTO message_words (rowid, room, document) VALUES (?1, ?2, ?3)")?
        .execute(params![place, room.0.simple().to_string(), words.join(" ")])?;
    Ok(())
}

/// The message's place, or the next one that is free.
fn take_place(connection: &Connection, room: RoomId, message: &Message) -> Result<i64, Failure> {
    let mut place = int(place_of(room, message.seq, message.created_at));
    let mut insert = connection.prepare_cached(
        "INSERT INTO message_places (place, room_id, seq) VALUES (?1, ?2, ?3)
         ON CONFLICT (place) DO NOTHING",
    )?;
    while insert.execute(params![place, room.0.as_bytes(), int(message.seq)])? == 0 {
        place += 1;
    }
    Ok(place)
}
