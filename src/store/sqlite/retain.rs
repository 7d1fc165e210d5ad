//! Drops what is older than rooms keep it, room by room.
//!
//! Invariants: a step is one transaction of bounded work, and doing it again changes nothing more; the floor of a
//! room and what is dropped up to it are written together.

use super::read::newest;
use super::row::{Failure, int, room_id, uint};
use super::search_index::overwriting;
use crate::chat::port::upkeep::{
    DAY_MS, RETAIN_LEASE_MS, RETAIN_ROOMS, RETAIN_SLACK_MS, RETAIN_STRETCH,
};
use crate::protocol::{RoomId, Seq, UnixMs};
use rusqlite::{Connection, OptionalExtension, params};

/// Events of this room up to this one are dropped; 0 also where there is no such room.
pub(super) fn floor(connection: &Connection, room: RoomId) -> Result<Seq, Failure> {
    let floor: Option<i64> = connection
        .prepare_cached("SELECT floor_seq FROM chat_rooms WHERE room_id = ?1")?
        .query_row([room.0.as_bytes()], |row| row.get(0))
        .optional()?;
    Ok(floor.map_or(0, i64::unsigned_abs))
}

/// The floors of these rooms that have one.
pub(super) fn floors(
    connection: &Connection,
    rooms: &[RoomId],
) -> Result<Vec<(RoomId, Seq)>, Failure> {
    let mut found = Vec::new();
    for room in rooms {
        match floor(connection, *room)? {
            0 => (),
            floor => found.push((*room, floor)),
        }
    }
    Ok(found)
}

/// Rooms that have something to drop; `None`: somebody else drops.
pub(super) fn next(
    connection: &Connection,
    now: UnixMs,
    held: bool,
    days: u32,
) -> Result<Option<Vec<RoomId>>, Failure> {
    let before = now.0.saturating_sub(RETAIN_SLACK_MS);
    let mut rooms = Vec::new();
    for (sql, before) in [
        (
            "SELECT room_id FROM chat_rooms WHERE retention_days > 0
                 AND coalesce(oldest_at, created_at) + retention_days * 86400000 < ?1
             ORDER BY coalesce(oldest_at, created_at) + retention_days * 86400000 LIMIT ?2",
            Some(before),
        ),
        (
            "SELECT room_id FROM chat_rooms WHERE retention_days IS NULL
                 AND coalesce(oldest_at, created_at) < ?1
             ORDER BY coalesce(oldest_at, created_at) LIMIT ?2",
            (days > 0).then(|| before.saturating_sub(u64::from(days) * DAY_MS)),
        ),
    ] {
        let Some(before) = before else { continue };
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![int(before), int(RETAIN_ROOMS as u64)])?;
        while let Some(row) = rows.next()? {
            rooms.push(room_id(row, 0)?);
        }
    }
    // Where there is nothing to drop nothing is written.
    if !rooms.is_empty() {
        let taken = connection
            .prepare_cached(
                "UPDATE retention_lease SET lease_until = ?1 WHERE ?2 OR lease_until <= ?3",
            )?
            .execute(params![int(now.0 + RETAIN_LEASE_MS), held, int(now.0)])?;
        if taken == 0 {
            return Ok(None);
        }
    }
    Ok(Some(rooms))
}

/// Drops the next stretch of a room; whether that was all.
pub(super) fn step(
    connection: &Connection,
    now: UnixMs,
    room: RoomId,
    days: u32,
) -> Result<bool, Failure> {
    let found: Option<(Option<u32>, i64, Option<i64>)> = connection
        .prepare_cached(
            "SELECT retention_days, floor_seq, oldest_at FROM chat_rooms WHERE room_id = ?1",
        )?
        .query_row([room.0.as_bytes()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let Some((own_days, floor, oldest_at)) = found else {
        return Ok(true);
    };
    let kept_ms = u64::from(own_days.unwrap_or(days)) * DAY_MS;
    if kept_ms == 0 {
        return Ok(true);
    }
    let before = now.0.saturating_sub(kept_ms);
    let from = floor.unsigned_abs();
    let (last_seq, _) = newest(connection, room)?;
    let top = last_seq.min(from + RETAIN_STRETCH);
    // Time never decreases from an event of a room to the next.
    let to: i64 = connection
        .prepare_cached(
            "SELECT max(
                 coalesce((SELECT max(seq) FROM messages
                     WHERE room_id = ?1 AND seq > ?2 AND seq <= ?3 AND created_at < ?4), ?2),
                 coalesce((SELECT max(seq) FROM room_events
                     WHERE room_id = ?1 AND seq > ?2 AND seq <= ?3 AND ts < ?4), ?2))",
        )?
        .query_row(
            params![room.0.as_bytes(), int(from), int(top), int(before)],
            |row| row.get(0),
        )?;
    let to = to.unsigned_abs();
    let is_done = to < top || to == last_seq;
    if to > from {
        overwriting(connection, || {
            drop_events(connection, now, room, (from, to), last_seq)
        })?;
    }
    let oldest_at = match is_done {
        // Without any: what comes next is not older than now.
        true => Some(time_of(connection, room, to + 1)?.unwrap_or(now.0)),
        false => oldest_at.map(i64::unsigned_abs),
    };
    connection
        .prepare_cached("UPDATE chat_rooms SET floor_seq = ?2, oldest_at = ?3 WHERE room_id = ?1")?
        .execute(params![room.0.as_bytes(), int(to), oldest_at.map(int)])?;
    connection
        .prepare_cached("UPDATE retention_lease SET lease_until = max(lease_until, ?1)")?
        .execute([int(now.0 + RETAIN_LEASE_MS)])?;
    Ok(is_done)
}

/// Drops the events after `from` and up to `to`.
fn drop_events(
    connection: &Connection,
    now: UnixMs,
    room: RoomId,
    (from, to): (Seq, Seq),
    last_seq: Seq,
) -> Result<(), Failure> {
    for sql in [
        "UPDATE uploads SET state = 'removed', remove_at = ?4 WHERE state = 'used' AND upload_id IN
             (SELECT unhex(f.value ->> 'upload_id', '-')
              FROM messages m, json_each(m.attachments, '$.files') f
              WHERE m.room_id = ?1 AND m.seq > ?2 AND m.seq <= ?3 AND m.attachments IS NOT NULL)",
        "UPDATE messages SET text = NULL, mentions = NULL, reactions = NULL, deleted_at = ?4,
             attachments = json_set(attachments, '$.files', json('[]'))
         WHERE room_id = ?1 AND seq > ?2 AND seq <= ?3 AND kind <> 'system' AND deleted_at IS NULL",
    ] {
        connection.prepare_cached(sql)?.execute(params![
            room.0.as_bytes(),
            int(from),
            int(to),
            int(now.0)
        ])?;
    }
    // The newest of the last time may be here still, though it is the newest no longer.
    for sql in [
        "DELETE FROM messages WHERE room_id = ?1 AND seq >= ?2 AND seq <= ?3 AND kind = 'system'
             AND seq > 1 AND seq < ?4",
        "DELETE FROM room_events WHERE room_id = ?1 AND seq >= ?2 AND seq <= ?3 AND seq < ?4",
    ] {
        connection.prepare_cached(sql)?.execute(params![
            room.0.as_bytes(),
            int(from),
            int(to),
            int(last_seq)
        ])?;
    }
    for sql in [
        "DELETE FROM message_reactions WHERE room_id = ?1 AND message_seq > ?2 AND message_seq <= ?3",
        "DELETE FROM room_pins WHERE room_id = ?1 AND message_seq > ?2 AND message_seq <= ?3",
        "DELETE FROM message_words WHERE rowid IN
             (SELECT place FROM message_places WHERE room_id = ?1 AND seq > ?2 AND seq <= ?3)",
        "DELETE FROM message_places WHERE room_id = ?1 AND seq > ?2 AND seq <= ?3",
    ] {
        connection
            .prepare_cached(sql)?
            .execute(params![room.0.as_bytes(), int(from), int(to)])?;
    }
    Ok(())
}

/// When this event was, if it is there.
fn time_of(connection: &Connection, room: RoomId, seq: Seq) -> Result<Option<u64>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT created_at FROM messages WHERE room_id = ?1 AND seq = ?2
         UNION ALL SELECT ts FROM room_events WHERE room_id = ?1 AND seq = ?2",
    )?;
    let mut rows = statement.query(params![room.0.as_bytes(), int(seq)])?;
    rows.next()?.map(|row| uint(row, 0)).transpose()
}
