//! Watermarks that sends advanced: kept in a list for a while, then folded into
//! `message_read_status` many at a time.
//!
//! One's own send advances one's `read_seq`. Written at once to its row, that is a page of its own
//! per send, as many bytes as the message costs; here the marks of a commit are one row at the end
//! of a small table, and thousands of them are folded together, so that a page that holds the marks
//! of many is written once for all (figures: docs/decisions/0010).
//!
//! Invariants: a watermark is the greater of its row and of the list, in every snapshot; the list
//! holds at most [`MARKS_PENDING_MAX`] marks and those of one commit; its numbers grow and are
//! never reused while the process lives, so that a reader sees by the first of them whether it was
//! folded.

use super::row::{Failure, int, uint};
use crate::limits;
use crate::protocol::{RoomId, Seq, UserId};
use rusqlite::{Connection, params};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Marks after which the list is folded: about 15 ms of work for the commit that reaches it, and
/// in the same time saved by the commits before.
const MARKS_PENDING_MAX: usize = 4 * limits::BATCH_OPS_MAX;

/// Bytes of a mark: the room, the user, the `seq` (big-endian).
const MARK_BYTES: usize = 16 + 16 + 8;

/// Marks by room and user.
type MarkMap = BTreeMap<(RoomId, UserId), Seq>;

/// What the writer knows of the list.
#[derive(Clone, Copy, Debug)]
pub(super) struct MarksWriter {
    next: u64,
    pending: usize,
}

impl MarksWriter {
    /// For this database.
    pub fn new(connection: &Connection) -> Result<MarksWriter, rusqlite::Error> {
        let sql = "SELECT coalesce(max(n), 0) + 1, coalesce(sum(length(marks)), 0)
                   FROM read_marks_pending";
        connection.query_row(sql, [], |row| {
            let (next, bytes): (i64, i64) = (row.get(0)?, row.get(1)?);
            Ok(MarksWriter {
                next: next.cast_unsigned(),
                pending: bytes as usize / MARK_BYTES,
            })
        })
    }

    /// After a transaction that failed: what it had numbered is never numbered so again.
    pub fn after_failure(self, failed: MarksWriter) -> MarksWriter {
        MarksWriter {
            next: self.next.max(failed.next),
            pending: self.pending,
        }
    }

    /// Appends the marks of a commit, and folds the list when it has grown long.
    pub fn append(
        &mut self,
        connection: &Connection,
        marks: impl Iterator<Item = (RoomId, UserId, Seq)>,
    ) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        for (room, user, seq) in marks {
            bytes.extend_from_slice(room.0.as_bytes());
            bytes.extend_from_slice(user.0.as_bytes());
            bytes.extend_from_slice(&seq.to_be_bytes());
        }
        if bytes.is_empty() {
            return Ok(());
        }
        connection
            .prepare_cached("INSERT INTO read_marks_pending (n, marks) VALUES (?1, ?2)")?
            .execute(params![int(self.next), bytes])?;
        self.next += 1;
        self.pending += bytes.len() / MARK_BYTES;
        if self.pending >= MARKS_PENDING_MAX {
            self.fold(connection)?;
        }
        Ok(())
    }

    /// Writes them all to their rows.
    pub fn fold(&mut self, connection: &Connection) -> Result<(), Failure> {
        let mut marks = MarkMap::new();
        load(connection, 0, &mut marks)?;
        // In the order of the table, page after page.
        for ((room, user), seq) in marks {
            write(connection, room, user, seq)?;
        }
        connection
            .prepare_cached("DELETE FROM read_marks_pending")?
            .execute([])?;
        self.pending = 0;
        Ok(())
    }
}

/// Advances a watermark in its row.
pub(super) fn write(
    connection: &Connection,
    room: RoomId,
    user: UserId,
    seq: Seq,
) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "INSERT INTO message_read_status (room_id, user_id, read_seq, delivered_seq)
             VALUES (?1, ?2, ?3, ?3)
             ON CONFLICT DO UPDATE SET
                 read_seq = max(read_seq, excluded.read_seq),
                 delivered_seq = max(delivered_seq, excluded.delivered_seq)",
        )?
        .execute(params![room.0.as_bytes(), user.0.as_bytes(), int(seq)])?;
    Ok(())
}

/// What a reader knows of the list, brought up to its snapshot before it is asked.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// First and last row that it holds; 0: none.
    first: u64,
    last: u64,
    marks: MarkMap,
}

impl Marks {
    /// Brings it up to the snapshot that this connection reads: mostly the rows of the commits
    /// since the last time, and all of them after a fold.
    pub fn refresh(&mut self, connection: &Connection) -> Result<(), Failure> {
        let mut statement = connection.prepare_cached(
            "SELECT (SELECT coalesce(min(n), 0) FROM read_marks_pending),
                 (SELECT coalesce(max(n), 0) FROM read_marks_pending)",
        )?;
        let mut rows = statement.query([])?;
        let (first, last) = match rows.next()? {
            Some(row) => (uint(row, 0)?, uint(row, 1)?),
            None => (0, 0),
        };
        if first != self.first {
            self.marks.clear();
            self.last = 0;
        }
        if last > self.last {
            load(connection, self.last, &mut self.marks)?;
        }
        (self.first, self.last) = (first, last);
        Ok(())
    }

    /// The watermark whose row says `kept`.
    pub fn mark(&self, room: RoomId, user: UserId, kept: Seq) -> Seq {
        let pending = self.marks.get(&(room, user));
        pending.map_or(kept, |pending| kept.max(*pending))
    }
}

/// Adds the rows after this one.
fn load(connection: &Connection, after: u64, marks: &mut MarkMap) -> Result<(), Failure> {
    let mut statement =
        connection.prepare_cached("SELECT marks FROM read_marks_pending WHERE n > ?1")?;
    let mut rows = statement.query([int(after)])?;
    while let Some(row) = rows.next()? {
        let bytes = row.get_ref(0)?.as_blob().unwrap_or_default();
        for mark in bytes.chunks_exact(MARK_BYTES) {
            let (room, rest) = mark.split_at(16);
            let (user, seq) = rest.split_at(16);
            let (Ok(room), Ok(user), Ok(seq)) = (room.try_into(), user.try_into(), seq.try_into())
            else {
                return Err(Failure::Data("a mark is cut".to_owned()));
            };
            let place = (
                RoomId(Uuid::from_bytes(room)),
                UserId(Uuid::from_bytes(user)),
            );
            let seq = Seq::from_be_bytes(seq);
            marks
                .entry(place)
                .and_modify(|mark| *mark = seq.max(*mark))
                .or_insert(seq);
        }
    }
    Ok(())
}
