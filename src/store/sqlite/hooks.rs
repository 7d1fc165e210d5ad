//! What other services are told, and what is noted for it.
//!
//! Causes write their rows in the transaction of the batch that they are in; a send writes none. What is new in a
//! room is noted with the index of messages ([`note_room`]).

use super::blocks::blocks_between;
use super::marks::Marks;
use super::read::{is_member, newest};
use super::rooms::unread;
use super::row::{Failure, int, message_kind, room_id, room_kind, uint, user_id};
use super::search_index::overwriting;
use crate::chat::port::hooks::{
    Attempted, HOOK_MESSAGES, HOOKS_KEPT_MS, HOOKS_WANTED_MS, HookAnswer, HookCall, HookKept,
    HookLease, HookState, NewHook, PushMember, PushMessage, PushRoom, PushUnread, Pushed,
};
use crate::limits;
use crate::protocol::hooks::HookKind;
use crate::protocol::view::Mention;
use crate::protocol::{RoomId, Seq, UnixMs, UserId};
use crate::store::changes::mentions;
use crate::store::common::to_json;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use uuid::Uuid;

/// Answers a call that changes nothing.
pub(super) fn read(
    connection: &Connection,
    marks: &Marks,
    call: &HookCall,
) -> Result<HookAnswer, Failure> {
    Ok(match call {
        HookCall::Rooms {
            after,
            until,
            limit,
        } => {
            let mut statement = connection.prepare_cached(
                "SELECT room_id, done_seq FROM hook_rooms
                 WHERE noted_seq > done_seq AND room_id > ?1 AND noted_at <= ?3 ORDER BY room_id LIMIT ?2",
            )?;
            let mut rows = statement.query(params![
                after.0.as_bytes(),
                int(*limit as u64),
                int(until.0)
            ])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push((room_id(row, 0)?, uint(row, 1)?));
            }
            HookAnswer::Rooms(found)
        }
        HookCall::Room { room, from, until } => {
            HookAnswer::Room(read_room(connection, marks, *room, *from, *until)?.map(Box::new))
        }
        HookCall::Unread { room, users, now } => {
            let own = |user: &UserId| {
                Ok(PushUnread {
                    user: *user,
                    unread: unread_in(connection, marks, *room, *user)?,
                    badge: badge(connection, marks, *user, *now)?,
                })
            };
            HookAnswer::Unread(users.iter().map(own).collect::<Result<_, Failure>>()?)
        }
        HookCall::Due { now, after, limit } => {
            let mut statement = connection.prepare_cached(
                "WITH RECURSIVE rooms (id) AS (
                     SELECT (SELECT w.room_id FROM hook_outbox w WHERE w.state = 0 AND w.room_id > ?3
                         ORDER BY w.room_id LIMIT 1)
                     UNION ALL
                     SELECT (SELECT w.room_id FROM hook_outbox w
                         WHERE w.state = 0 AND w.room_id > rooms.id ORDER BY w.room_id LIMIT 1)
                     FROM rooms WHERE rooms.id IS NOT NULL
                 )
                 SELECT o.webhook_id, o.type, o.room_id, o.created_at, o.data, o.attempts, o.state,
                     o.status, o.error, o.user_id, o.seq
                 FROM rooms CROSS JOIN hook_outbox o ON o.n = (
                     SELECT e.n FROM hook_outbox e
                     WHERE e.room_id = rooms.id AND e.state = 0 ORDER BY e.n LIMIT 1)
                 WHERE rooms.id IS NOT NULL AND o.next_at <= ?1 LIMIT ?2",
            )?;
            let mut rows =
                statement.query(params![int(now.0), int(*limit as u64), after.0.as_bytes()])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let mut hook = kept(row)?;
                if hook.kind == HookKind::PushRequired {
                    let (user, seq) = (user_id(row, 9)?, uint(row, 10)?);
                    hook.is_wanted = is_wanted(connection, marks, hook.room, user, seq - 1, seq)?;
                }
                found.push(hook);
            }
            HookAnswer::Hooks(found)
        }
        HookCall::Kept { state, limit } => {
            let mut statement = connection.prepare_cached(
                "SELECT webhook_id, type, room_id, created_at, data, attempts, state, status, error
                 FROM hook_outbox WHERE state = ?1 ORDER BY n DESC LIMIT ?2",
            )?;
            let mut rows = statement.query(params![state.number(), int(*limit as u64)])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(kept(row)?);
            }
            HookAnswer::Hooks(found)
        }
        HookCall::Pushed { after, limit } => pushed(connection, marks, *after, *limit)?,
        HookCall::Lease { .. }
        | HookCall::Decided { .. }
        | HookCall::Passed { .. }
        | HookCall::Attempted { .. }
        | HookCall::TakeBack { .. }
        | HookCall::Disable(_)
        | HookCall::Replay(_) => return Err(Failure::Data("not a read".to_owned())),
    })
}

/// Does what changes something, inside a transaction.
pub(super) fn write(
    connection: &Connection,
    now: UnixMs,
    call: &HookCall,
) -> Result<HookAnswer, Failure> {
    Ok(match call {
        HookCall::Lease { holder, takes } => lease(connection, now, *holder, *takes)?,
        HookCall::Decided {
            room,
            from,
            to,
            looked_at,
            hooks,
        } => {
            let moved = connection
                .prepare_cached(
                    "UPDATE hook_rooms SET done_seq = ?3, noted_at = ?4
                     WHERE room_id = ?1 AND done_seq = ?2",
                )?
                .execute(params![
                    room.0.as_bytes(),
                    int(*from),
                    int(*to),
                    int(looked_at.0)
                ])?;
            if moved > 0 {
                for hook in hooks {
                    add(connection, now, *room, hook)?;
                }
            }
            HookAnswer::Done(moved > 0)
        }
        HookCall::Passed { rooms, looked_at } => {
            let mut statement = connection.prepare_cached(
                "UPDATE hook_rooms SET done_seq = ?3, noted_at = ?4
                 WHERE room_id = ?1 AND done_seq = ?2",
            )?;
            for (room, from, to) in rooms {
                statement.execute(params![
                    room.0.as_bytes(),
                    int(*from),
                    int(*to),
                    int(looked_at.0)
                ])?;
            }
            HookAnswer::Done(true)
        }
        HookCall::Attempted { id, outcome } => {
            attempted(connection, now, *id, outcome)?;
            HookAnswer::Done(true)
        }
        HookCall::TakeBack { pushed, hook } => {
            let Pushed { room, user, seq } = *pushed;
            let gone = connection
                .prepare_cached(
                    "DELETE FROM hook_pushed WHERE room_id = ?1 AND user_id = ?2 AND seq = ?3",
                )?
                .execute(params![room.0.as_bytes(), user.0.as_bytes(), int(seq)])?;
            if gone > 0 {
                add(connection, now, room, hook)?;
            }
            HookAnswer::Done(gone > 0)
        }
        HookCall::Disable(is_gone) => {
            let sql = match is_gone {
                true => "UPDATE hook_state SET disabled_at = ?1 WHERE disabled_at IS NULL",
                false => {
                    "UPDATE hook_state SET disabled_at = NULL, since = ?1
                     WHERE disabled_at IS NOT NULL"
                }
            };
            HookAnswer::Done(connection.prepare_cached(sql)?.execute([int(now.0)])? > 0)
        }
        HookCall::Replay(id) => {
            let again = connection
                .prepare_cached(
                    "UPDATE hook_outbox SET state = 0, attempts = 0, next_at = 0, ended_at = NULL
                     WHERE webhook_id = ?1 AND state <> 0",
                )?
                .execute([id.as_bytes()])?;
            HookAnswer::Done(again > 0)
        }
        HookCall::Rooms { .. }
        | HookCall::Room { .. }
        | HookCall::Unread { .. }
        | HookCall::Due { .. }
        | HookCall::Pushed { .. }
        | HookCall::Kept { .. } => return Err(Failure::Data("not a write".to_owned())),
    })
}

/// The folder is one process's, so there is no lease to wait for.
fn lease(
    connection: &Connection,
    now: UnixMs,
    holder: Uuid,
    takes: bool,
) -> Result<HookAnswer, Failure> {
    let (wanted_until, mut since, disabled_at): (i64, i64, Option<i64>) = connection
        .prepare_cached("SELECT wanted_until, since, disabled_at FROM hook_state")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    if takes {
        if wanted_until < int(now.0) {
            // Nobody wanted to be told for long: what was noted before that is not told any more.
            for sql in [
                "DELETE FROM hook_rooms",
                "DELETE FROM hook_pushed",
                "DELETE FROM hook_outbox WHERE state = 0",
            ] {
                connection.prepare_cached(sql)?.execute([])?;
            }
            since = int(now.0);
        }
        let until = match disabled_at {
            None => int(now.0 + HOOKS_WANTED_MS),
            Some(at) => wanted_until.max(at + int(HOOKS_WANTED_MS)),
        };
        connection
            .prepare_cached("UPDATE hook_state SET holder = ?1, wanted_until = ?2, since = ?3")?
            .execute(params![holder.as_bytes(), until, since])?;
        connection
            .prepare_cached(
                "DELETE FROM hook_outbox WHERE n IN (SELECT n FROM hook_outbox
                     WHERE state <> 0 AND ended_at < ?1 ORDER BY ended_at LIMIT 200)",
            )?
            .execute([int(now.0.saturating_sub(HOOKS_KEPT_MS))])?;
    }
    let oldest: Option<i64> = connection
        .prepare_cached(
            "SELECT min(created_at) FROM (SELECT created_at FROM hook_outbox
                 WHERE state = 0 ORDER BY next_at, n LIMIT 100)",
        )?
        .query_row([], |row| row.get(0))?;
    let time = |ms: i64| UnixMs(ms.unsigned_abs());
    Ok(HookAnswer::Lease(HookLease {
        is_held: takes,
        is_taken_over: false,
        now,
        since: time(since),
        disabled_at: disabled_at.map(time),
        oldest: oldest.map(time),
    }))
}

/// Whether anybody wants to be told.
fn is_wanted_at(connection: &Connection, now: UnixMs) -> Result<bool, Failure> {
    let mut statement =
        connection.prepare_cached("SELECT 1 FROM hook_state WHERE wanted_until > ?1")?;
    Ok(statement.exists([int(now.0)])?)
}

/// Something came about in this room that is told to other services, in the transaction of what caused it.
pub(super) fn tell<T: Serialize>(
    connection: &Connection,
    now: UnixMs,
    room: RoomId,
    kind: HookKind,
    data: &T,
) -> Result<(), Failure> {
    if !is_wanted_at(connection, now)? {
        return Ok(());
    }
    connection
        .prepare_cached(
            "INSERT INTO hook_outbox (webhook_id, type, room_id, created_at, data)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            Uuid::new_v4().as_bytes(),
            kind.name(),
            room.0.as_bytes(),
            int(now.0),
            to_json(data).map_err(Failure::Data)?,
        ])?;
    Ok(())
}

fn add(connection: &Connection, now: UnixMs, room: RoomId, hook: &NewHook) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "INSERT INTO hook_outbox (webhook_id, type, room_id, user_id, seq, created_at, data)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            hook.id.as_bytes(),
            hook.kind.name(),
            room.0.as_bytes(),
            hook.user.0.as_bytes(),
            int(hook.seq),
            int(now.0),
            hook.data,
        ])?;
    Ok(())
}

/// The index saw this room up to here, having seen it up to there before.
pub(super) fn note_room(
    connection: &Connection,
    room: RoomId,
    before: Seq,
    seq: Seq,
) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "INSERT INTO hook_rooms (room_id, noted_seq, done_seq, noted_at)
             SELECT ?1, ?2, ?3, CAST(unixepoch('subsec') * 1000 AS INTEGER)
             FROM hook_state WHERE wanted_until > 0
             ON CONFLICT DO UPDATE SET noted_seq = max(noted_seq, excluded.noted_seq),
                 noted_at = iif(noted_seq > done_seq, noted_at, excluded.noted_at)",
        )?
        .execute(params![room.0.as_bytes(), int(seq), int(before)])?;
    Ok(())
}

fn read_room(
    connection: &Connection,
    marks: &Marks,
    room: RoomId,
    from: Seq,
    until: UnixMs,
) -> Result<Option<PushRoom>, Failure> {
    let mut heads = connection
        .prepare_cached("SELECT kind, title, member_count FROM chat_rooms WHERE room_id = ?1")?;
    let mut heads = heads.query([room.0.as_bytes()])?;
    let Some(head) = heads.next()? else {
        return Ok(None);
    };
    let mut found = PushRoom {
        kind: room_kind(head, 0)?,
        title: head.get(1)?,
        members: Vec::new(),
        member_count: head.get(2)?,
        messages: Vec::new(),
        blocks: Vec::new(),
        to: newest(connection, room)?.0,
    };
    let mut statement = connection.prepare_cached(
        "SELECT m.seq, m.sender_id, coalesce(u.name, ''), m.kind, substr(m.text, 1, ?4), m.mentions,
             m.deleted_at IS NOT NULL, m.created_at
         FROM messages m LEFT JOIN chat_users u ON u.user_id = m.sender_id
         WHERE m.room_id = ?1 AND m.seq > ?2 ORDER BY m.seq LIMIT ?3",
    )?;
    let mut rows = statement.query(params![
        room.0.as_bytes(),
        int(from),
        int(HOOK_MESSAGES as u64),
        int(limits::PUSH_PREVIEW_CHARS as u64 + 1),
    ])?;
    while let Some(row) = rows.next()? {
        let seq = uint(row, 0)?;
        let created_at = UnixMs(uint(row, 7)?);
        if created_at > until {
            found.to = seq - 1;
            break;
        }
        let named: Option<String> = row.get(5)?;
        found.messages.push(PushMessage {
            seq,
            sender: user_id(row, 1)?,
            sender_name: row.get(2)?,
            kind: message_kind(row, 3)?,
            text: row.get(4)?,
            mentions: mentions(named.as_deref()).map_err(Failure::Data)?,
            is_deleted: row.get(6)?,
            created_at,
        });
        if found.messages.len() == HOOK_MESSAGES {
            found.to = seq;
        }
    }
    if !found.messages.is_empty() {
        read_members(connection, marks, room, &mut found)?;
    }
    Ok(Some(found))
}

fn read_members(
    connection: &Connection,
    marks: &Marks,
    room: RoomId,
    found: &mut PushRoom,
) -> Result<(), Failure> {
    let takes_all = found.member_count as usize <= limits::PUSH_MEMBERS_MAX;
    let mut statement = connection.prepare_cached(
        "SELECT p.user_id, p.joined_seq, coalesce(s.read_seq, 0), s.muted_until
         FROM room_participants p
         LEFT JOIN message_read_status s ON s.room_id = p.room_id AND s.user_id = p.user_id
         WHERE p.room_id = ?1 AND p.left_seq IS NULL ORDER BY p.user_id",
    )?;
    let mut rows = statement.query([room.0.as_bytes()])?;
    while let Some(row) = rows.next()? {
        let user = user_id(row, 0)?;
        let mut messages = found.messages.iter();
        if !takes_all && !messages.any(|it| it.mentions.contains(&Mention::User(user))) {
            continue;
        }
        let read_seq = marks.mark(room, user, uint(row, 2)?);
        if read_seq >= found.to {
            continue;
        }
        let muted_until: Option<i64> = row.get(3)?;
        found.members.push(PushMember {
            user,
            joined_seq: uint(row, 1)?,
            read_seq,
            muted_until: muted_until.map(|until| UnixMs(until.unsigned_abs())),
        });
    }
    let mut senders: Vec<UserId> = found.messages.iter().map(|it| it.sender).collect();
    senders.sort_unstable();
    senders.dedup();
    for sender in senders {
        for member in &found.members {
            blocks_between(connection, sender, member.user, &mut found.blocks)?;
        }
    }
    Ok(())
}

fn read_seq(
    connection: &Connection,
    marks: &Marks,
    room: RoomId,
    user: UserId,
) -> Result<Seq, Failure> {
    let kept: Option<i64> = connection
        .prepare_cached(
            "SELECT read_seq FROM message_read_status WHERE room_id = ?1 AND user_id = ?2",
        )?
        .query_row([room.0.as_bytes(), user.0.as_bytes()], |row| row.get(0))
        .optional()?;
    Ok(marks.mark(room, user, kept.map_or(0, i64::unsigned_abs)))
}

fn unread_in(
    connection: &Connection,
    marks: &Marks,
    room: RoomId,
    user: UserId,
) -> Result<u32, Failure> {
    if !is_member(connection, room, user)? {
        return Ok(0);
    }
    let read_seq = read_seq(connection, marks, room, user)?;
    unread(
        connection,
        user,
        room,
        read_seq,
        newest(connection, room)?.0,
    )
}

fn badge(
    connection: &Connection,
    marks: &Marks,
    user: UserId,
    now: UnixMs,
) -> Result<u32, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT p.room_id, coalesce(s.read_seq, 0) FROM room_participants p
         LEFT JOIN message_read_status s ON s.room_id = p.room_id AND s.user_id = p.user_id
         WHERE p.user_id = ?1 AND p.left_seq IS NULL AND coalesce(s.muted_until, 0) <= ?2",
    )?;
    let mut rows = statement.query(params![user.0.as_bytes(), int(now.0)])?;
    let mut badge = 0;
    while let Some(row) = rows.next()?
        && badge < limits::UNREAD_MAX
    {
        let room = room_id(row, 0)?;
        let read_seq = marks.mark(room, user, uint(row, 1)?);
        badge += unread(
            connection,
            user,
            room,
            read_seq,
            newest(connection, room)?.0,
        )?;
    }
    Ok(badge.min(limits::UNREAD_MAX))
}

/// Whether something of this stretch is still unread by a member.
fn is_wanted(
    connection: &Connection,
    marks: &Marks,
    room: RoomId,
    user: UserId,
    after: Seq,
    to: Seq,
) -> Result<bool, Failure> {
    if !is_member(connection, room, user)? {
        return Ok(false);
    }
    let after = read_seq(connection, marks, room, user)?.max(after);
    let mut statement = connection.prepare_cached(
        "SELECT 1 FROM messages WHERE room_id = ?1 AND seq > ?2 AND seq <= ?3
             AND deleted_at IS NULL AND kind <> 'system' AND sender_id <> ?4 LIMIT 1",
    )?;
    Ok(statement.exists(params![
        room.0.as_bytes(),
        int(after),
        int(to),
        user.0.as_bytes()
    ])?)
}

fn pushed(
    connection: &Connection,
    marks: &Marks,
    after: Option<(RoomId, UserId)>,
    limit: usize,
) -> Result<HookAnswer, Failure> {
    let nil = Uuid::nil();
    let (room, user) = after.map_or((nil, nil), |it| (it.0.0, it.1.0));
    let mut statement = connection.prepare_cached(
        "SELECT room_id, user_id, seq FROM hook_pushed WHERE (room_id, user_id) > (?1, ?2)
         ORDER BY room_id, user_id LIMIT ?3",
    )?;
    let mut rows = statement.query(params![room.as_bytes(), user.as_bytes(), int(limit as u64)])?;
    let (mut over, mut last, mut count) = (Vec::new(), None, 0);
    while let Some(row) = rows.next()? {
        let (room, user, seq) = (room_id(row, 0)?, user_id(row, 1)?, uint(row, 2)?);
        if !is_wanted(connection, marks, room, user, 0, seq)? {
            over.push(Pushed { room, user, seq });
        }
        last = Some((room, user));
        count += 1;
    }
    Ok(HookAnswer::Pushed {
        over,
        last: last.filter(|_| count == limit),
    })
}

fn kept(row: &Row<'_>) -> Result<HookKept, Failure> {
    let (id, kind): ([u8; 16], String) = (row.get(0)?, row.get(1)?);
    Ok(HookKept {
        id: Uuid::from_bytes(id),
        kind: HookKind::of_name(&kind)
            .ok_or_else(|| Failure::Data("an unknown webhook".to_owned()))?,
        room: room_id(row, 2)?,
        created_at: UnixMs(uint(row, 3)?),
        data: row.get(4)?,
        attempts: row.get(5)?,
        state: HookState::from_number(row.get(6)?)
            .ok_or_else(|| Failure::Data("an unknown state".to_owned()))?,
        status: row.get(7)?,
        error: row.get(8)?,
        is_wanted: true,
    })
}

fn attempted(
    connection: &Connection,
    now: UnixMs,
    id: Uuid,
    outcome: &Attempted,
) -> Result<(), Failure> {
    type Old = (i64, String, [u8; 16], Option<[u8; 16]>, Option<i64>, u32);
    let old: Option<Old> = connection
        .prepare_cached(
            "SELECT n, type, room_id, user_id, seq, attempts FROM hook_outbox
             WHERE webhook_id = ?1 AND state = 0",
        )?
        .query_row([id.as_bytes()], |row| {
            Ok((
                row.get(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
                row.get(5)?,
            ))
        })
        .optional()?;
    let Some((n, kind, room, user, seq, attempts)) = old else {
        return Ok(());
    };
    let is_push = kind == HookKind::PushRequired.name();
    let may_have_come = match outcome {
        Attempted::Delivered { .. } => true,
        Attempted::NotWanted => attempts > 0,
        Attempted::Failed { .. } => false,
    };
    if is_push && may_have_come {
        // It is remembered, so that it is taken back when it is read.
        connection
            .prepare_cached(
                "INSERT INTO hook_pushed (room_id, user_id, seq) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET seq = max(seq, excluded.seq)",
            )?
            .execute(params![room, user, seq])?;
    }
    let (state, status, error, again_at) = match outcome {
        Attempted::Delivered { status } if user.is_none() => (1, Some(*status), None, None),
        // What holds text of messages is not kept.
        Attempted::Delivered { .. } | Attempted::NotWanted => {
            return overwriting(connection, || {
                connection
                    .prepare_cached("DELETE FROM hook_outbox WHERE n = ?1")?
                    .execute([n])?;
                Ok(())
            });
        }
        Attempted::Failed {
            status,
            error,
            again_at,
        } => {
            let state = if again_at.is_some() { 0 } else { 2 };
            (state, *status, Some(error), *again_at)
        }
    };
    connection
        .prepare_cached(
            "UPDATE hook_outbox SET attempts = attempts + 1, state = ?2, status = ?3, error = ?4,
                 next_at = ?5, ended_at = CASE WHEN ?2 > 0 THEN ?6 END
             WHERE n = ?1",
        )?
        .execute(params![
            n,
            state,
            status,
            error,
            int(again_at.unwrap_or_default().0),
            int(now.0)
        ])?;
    Ok(())
}
