//! Erases users: the account, then room by room, then what notes that it is to be done.
//!
//! Invariants: a step is one transaction of bounded work, and doing it again changes nothing; a room is done
//! exactly when the user has no row among its members; before the event of a room is there, everything that it
//! says is so.

use super::row::{Failure, int, message, message_columns, room_id, text, uint, user_id};
use super::search_index::overwriting;
use super::write::{Batch, Seat};
use crate::chat::port::upkeep::{ERASE_LEASE_MS, ERASE_ROOMS, ERASE_STRETCH, EraseState, Erasure};
use crate::chat::port::{OpOutcome, SignIn};
use crate::limits;
use crate::protocol::event::{RoomEvent, RoomEventBody};
use crate::protocol::view::{MessageKind, ReactionLeft, Role, RoomKind, SystemEvent, UserErased};
use crate::protocol::{RoomId, Seq, UnixMs, UserId};
use crate::store::common::to_json;
use crate::store::erase::{self, erased_as, mark_of, mentions_without};
use crate::store::files::to_keep;
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::BTreeMap;

/// Whether this user was erased. For users who are not known only: nobody is known and erased.
pub(super) fn is_erased(connection: &Connection, user: UserId) -> Result<bool, Failure> {
    let key: [u8; 32] = connection
        .prepare_cached("SELECT hash_key FROM meta")?
        .query_row([], |row| row.get(0))?;
    Ok(connection
        .prepare_cached("SELECT 1 FROM erased_users WHERE mark = ?1")?
        .exists([mark_of(&key, user)])?)
}

/// Whether this is a sign-in of an erased user.
pub(super) fn refuses(connection: &Connection, sign_in: &SignIn) -> Result<bool, Failure> {
    let known = connection
        .prepare_cached("SELECT 1 FROM chat_users WHERE user_id = ?1")?
        .exists([sign_in.user.0.as_bytes()])?;
    Ok(!known && is_erased(connection, sign_in.user)?)
}

/// Takes the account away.
pub(super) fn begin(
    connection: &Connection,
    hash_key: &[u8; 32],
    now: UnixMs,
    user: UserId,
) -> Result<EraseState, Failure> {
    let id = user.0.as_bytes();
    let is_new = connection
        .prepare_cached(
            "INSERT INTO erased_users (mark, erased_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        )?
        .execute(params![mark_of(hash_key, user), int(now.0)])?
        > 0;
    if is_new {
        connection
            .prepare_cached("INSERT INTO erasures (user_id, requested_at) VALUES (?1, ?2)")?
            .execute(params![id, int(now.0)])?;
        // Who blocked them has one block less.
        for sql in [
            "UPDATE chat_users SET version = version + 1, block_version = block_version + 1
             WHERE user_id IN (SELECT user_id FROM user_relationships WHERE other_id = ?1)",
            "DELETE FROM user_relationships WHERE user_id = ?1 OR other_id = ?1",
            "DELETE FROM chat_users WHERE user_id = ?1",
        ] {
            connection.prepare_cached(sql)?.execute([id])?;
        }
    }
    state(connection, hash_key, user)
}

/// How far it is.
pub(super) fn state(
    connection: &Connection,
    hash_key: &[u8; 32],
    user: UserId,
) -> Result<EraseState, Failure> {
    let requested_at: Option<i64> = connection
        .prepare_cached("SELECT requested_at FROM erasures WHERE user_id = ?1")?
        .query_row([user.0.as_bytes()], |row| row.get(0))
        .optional()?;
    if let Some(at) = requested_at {
        return Ok(EraseState::Running(UnixMs(at.unsigned_abs())));
    }
    let was = connection
        .prepare_cached("SELECT 1 FROM erased_users WHERE mark = ?1")?
        .exists([mark_of(hash_key, user)])?;
    Ok(if was {
        EraseState::Done
    } else {
        EraseState::None
    })
}

/// An erasure to go on with.
pub(super) fn next(
    connection: &Connection,
    now: UnixMs,
    held: Option<UserId>,
) -> Result<Option<Erasure>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT user_id, requested_at FROM erasures
         WHERE user_id = ?1 OR ?1 IS NULL AND lease_until <= ?2
         ORDER BY requested_at, user_id LIMIT 1",
    )?;
    let held = held.map(|user| *user.0.as_bytes());
    let mut rows = statement.query(params![held, int(now.0)])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let (user, requested_at) = (user_id(row, 0)?, UnixMs(uint(row, 1)?));
    connection
        .prepare_cached("UPDATE erasures SET lease_until = ?2 WHERE user_id = ?1")?
        .execute(params![user.0.as_bytes(), int(now.0 + ERASE_LEASE_MS)])?;
    let mut rooms = Vec::new();
    for sql in [
        "SELECT room_id FROM room_participants WHERE user_id = ?1 AND left_seq IS NULL LIMIT ?2",
        "SELECT room_id FROM room_participants WHERE user_id = ?1 AND left_seq IS NOT NULL LIMIT ?2",
    ] {
        let mut statement = connection.prepare_cached(sql)?;
        let limit = (ERASE_ROOMS - rooms.len()) as u64;
        let mut rows = statement.query(params![user.0.as_bytes(), int(limit)])?;
        while let Some(row) = rows.next()? {
            rooms.push(room_id(row, 0)?);
        }
    }
    Ok(Some(Erasure {
        user,
        requested_at,
        rooms,
    }))
}

/// Forgets that it was to be done, if it is.
pub(super) fn end(connection: &Connection, user: UserId) -> Result<bool, Failure> {
    overwriting(connection, || end_overwriting(connection, user))
}

fn end_overwriting(connection: &Connection, user: UserId) -> Result<bool, Failure> {
    let left = connection
        .prepare_cached("SELECT 1 FROM room_participants WHERE user_id = ?1")?
        .exists([user.0.as_bytes()])?
        || super::uploads::has_any(connection, user)?;
    if !left {
        for sql in [
            "DELETE FROM user_ends WHERE user_id = ?1",
            "DELETE FROM revoked_sessions WHERE user_id = ?1",
            "DELETE FROM erasures WHERE user_id = ?1",
        ] {
            connection
                .prepare_cached(sql)?
                .execute([user.0.as_bytes()])?;
        }
        let id = user.0.to_string();
        connection
            .prepare_cached(
                "DELETE FROM webhook_inbox WHERE instr(body, ?1) > 0 OR instr(body, ?2) > 0",
            )?
            .execute(params![id.as_bytes(), id.to_uppercase().as_bytes()])?;
        // What waits that is no push is still to be told.
        connection
            .prepare_cached(
                "DELETE FROM hook_outbox
                 WHERE (state <> 0 OR type = 'push.required') AND instr(data, ?1) > 0",
            )?
            .execute([&id])?;
    }
    Ok(!left)
}

impl Batch<'_> {
    /// Does a stretch of a room, or what is left of it with the event.
    pub(super) fn erase(
        &mut self,
        room: RoomId,
        user: UserId,
        requested_at: UnixMs,
    ) -> Result<OpOutcome, Failure> {
        let found: Option<(Option<i64>, bool)> = self
            .connection
            .prepare_cached(
                "SELECT erased_seq, left_seq IS NULL FROM room_participants
                 WHERE room_id = ?1 AND user_id = ?2",
            )?
            .query_row([room.0.as_bytes(), user.0.as_bytes()], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        let head = self.head(room)?.copied();
        let (Some((erased_seq, is_member)), Some(head)) = (found, head) else {
            return Ok(Ok(erase::done(true, None)));
        };
        let stood_as = erased_as(self.hash_key, room, user);
        let from = erased_seq.map_or(0, i64::unsigned_abs);
        let to = head.last_seq.min(from + ERASE_STRETCH);
        overwriting(self.connection, || {
            self.erase_stretch(room, user, stood_as, (from, to), requested_at)
        })?;
        if to < head.last_seq {
            self.connection
                .prepare_cached(
                    "UPDATE room_participants SET erased_seq = ?3
                     WHERE room_id = ?1 AND user_id = ?2",
                )?
                .execute(params![room.0.as_bytes(), user.0.as_bytes(), int(to)])?;
            return Ok(Ok(erase::done(false, None)));
        }
        let event = self.erase_member(room, user, stood_as, is_member, requested_at)?;
        Ok(Ok(erase::done(true, Some(event))))
    }

    /// Takes the user out of the events after `from` and up to `to`.
    fn erase_stretch(
        &mut self,
        room: RoomId,
        user: UserId,
        stood_as: UserId,
        (from, to): (Seq, Seq),
        requested_at: UnixMs,
    ) -> Result<(), Failure> {
        let connection = self.connection;
        let mut statement = connection.prepare_cached(concat!(
            "SELECT ",
            message_columns!(),
            " FROM messages WHERE room_id = ?1 AND seq > ?2 AND seq <= ?3
                 AND (sender_id = ?4 OR instr(event, ?5) > 0 OR instr(mentions, ?5) > 0)"
        ))?;
        let mut rows = statement.query(params![
            room.0.as_bytes(),
            int(from),
            int(to),
            user.0.as_bytes(),
            user.to_string()
        ])?;
        let (mut own, mut events, mut mentions) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(row) = rows.next()? {
            let message = message(row)?;
            let is_own = message.sender_id == user;
            if message.kind == MessageKind::System {
                let json = text(row, 10)?.unwrap_or_default();
                let without = erase::without(json, user, stood_as).map_err(Failure::Data)?;
                events.push((message.seq, is_own, without));
            } else if is_own {
                self.drop_files(&message.attachments)?;
                let kept = to_keep(message.kind, &[]).map_err(Failure::Data)?;
                own.push((message.seq, kept));
            } else {
                mentions.push((message.seq, mentions_without(message.mentions, user)));
            }
        }
        drop(rows);
        for (seq, files) in own {
            connection
                .prepare_cached(
                    "UPDATE messages SET sender_id = ?3, text = NULL, mentions = NULL,
                         reactions = NULL, deleted_at = coalesce(deleted_at, ?4),
                         attachments = ?5
                     WHERE room_id = ?1 AND seq = ?2",
                )?
                .execute(params![
                    room.0.as_bytes(),
                    int(seq),
                    stood_as.0.as_bytes(),
                    int(requested_at.0),
                    files
                ])?;
            self.forget_beside(room, seq)?;
        }
        for (seq, is_own, event) in events {
            connection
                .prepare_cached(
                    "UPDATE messages SET event = coalesce(?3, event),
                         sender_id = iif(?4, ?5, sender_id)
                     WHERE room_id = ?1 AND seq = ?2",
                )?
                .execute(params![
                    room.0.as_bytes(),
                    int(seq),
                    event,
                    is_own,
                    stood_as.0.as_bytes()
                ])?;
        }
        for (seq, left) in mentions {
            let left = match left.is_empty() {
                true => None,
                false => Some(to_json(&left).map_err(Failure::Data)?),
            };
            connection
                .prepare_cached(
                    "UPDATE messages SET mentions = ?3 WHERE room_id = ?1 AND seq = ?2",
                )?
                .execute(params![room.0.as_bytes(), int(seq), left])?;
        }
        connection
            .prepare_cached(
                "UPDATE room_events SET actor_id = ?5
                 WHERE room_id = ?1 AND seq > ?2 AND seq <= ?3 AND actor_id = ?4",
            )?
            .execute(params![
                room.0.as_bytes(),
                int(from),
                int(to),
                user.0.as_bytes(),
                stood_as.0.as_bytes()
            ])?;
        Ok(())
    }

    /// Takes away what stands beside a message: reactions, its pin, its words.
    pub(super) fn forget_beside(&self, room: RoomId, seq: Seq) -> Result<(), Failure> {
        let key = params![room.0.as_bytes(), int(seq)];
        for sql in [
            "DELETE FROM message_reactions WHERE room_id = ?1 AND message_seq = ?2",
            "DELETE FROM room_pins WHERE room_id = ?1 AND message_seq = ?2",
            "DELETE FROM message_words WHERE rowid IN
                 (SELECT place FROM message_places WHERE room_id = ?1 AND seq = ?2)",
            "DELETE FROM message_places WHERE room_id = ?1 AND seq = ?2",
        ] {
            self.connection.prepare_cached(sql)?.execute(key)?;
        }
        Ok(())
    }

    /// Ends the membership, takes back the reactions, and says so.
    fn erase_member(
        &mut self,
        room: RoomId,
        user: UserId,
        stood_as: UserId,
        is_member: bool,
        requested_at: UnixMs,
    ) -> Result<RoomEvent, Failure> {
        let role = self.seat(room, user)?.role;
        // Marks that the user's sends left are no longer to be written.
        *self.seat(room, user)? = Seat::default();
        self.marks.fold(self.connection)?;
        self.overwrite(room)?;
        let (event_seq, _) = self.next(room)?;
        let (reactions, reactions_more) = self.take_back(room, user, event_seq)?;
        for sql in [
            "DELETE FROM room_participants WHERE room_id = ?1 AND user_id = ?2",
            "DELETE FROM message_read_status WHERE room_id = ?1 AND user_id = ?2",
        ] {
            self.connection
                .prepare_cached(sql)?
                .execute([room.0.as_bytes(), user.0.as_bytes()])?;
        }
        for sql in [
            "UPDATE room_pins SET pinned_by = ?3 WHERE room_id = ?1 AND pinned_by = ?2",
            "UPDATE message_reports SET reporter_id = ?3 WHERE room_id = ?1 AND reporter_id = ?2",
            "UPDATE chat_rooms SET created_by = ?3 WHERE room_id = ?1 AND created_by = ?2",
        ] {
            self.connection.prepare_cached(sql)?.execute([
                room.0.as_bytes(),
                user.0.as_bytes(),
                stood_as.0.as_bytes(),
            ])?;
        }
        let mut is_direct = false;
        if let Some(head) = self.head(room)? {
            if is_member {
                head.member_count = head.member_count.saturating_sub(1);
                head.members_changed = true;
            }
            is_direct = head.kind == RoomKind::Direct;
            head.severed |= is_direct;
        }
        if is_direct {
            // Nobody is there to read what the other one would write.
            self.connection
                .prepare_cached("UPDATE chat_rooms SET severed = 1 WHERE room_id = ?1")?
                .execute([room.0.as_bytes()])?;
        }
        let owner_id = match role {
            Some(Role::Owner) => self.heir(room)?,
            _ => None,
        };
        if let Some(heir) = owner_id {
            self.write_role(room, heir, Role::Owner)?;
        }
        let erased = UserErased {
            user_id: user,
            erased_as: stood_as,
            deleted_at: requested_at,
            owner_id,
            reactions,
            reactions_more,
        };
        self.system(
            room,
            stood_as,
            &SystemEvent::UserErased(erased.clone()),
            RoomEventBody::UserErased(erased),
        )
    }

    /// Takes all reactions of the user back, by this event: what is left of the newest, and whether there are
    /// more.
    fn take_back(
        &self,
        room: RoomId,
        user: UserId,
        event_seq: Seq,
    ) -> Result<(Vec<ReactionLeft>, bool), Failure> {
        let mut statement = self.connection.prepare_cached(
            "SELECT x.message_seq, x.emoji, m.reactions FROM message_reactions x
             CROSS JOIN messages m ON m.room_id = x.room_id AND m.seq = x.message_seq
             WHERE x.room_id = ?1 AND x.user_id = ?2 ORDER BY x.message_seq DESC, x.emoji",
        )?;
        let mut rows = statement.query([room.0.as_bytes(), user.0.as_bytes()])?;
        let mut counts: BTreeMap<Seq, BTreeMap<String, u32>> = BTreeMap::new();
        let mut left = Vec::new();
        while let Some(row) = rows.next()? {
            let seq = uint(row, 0)?;
            let emoji: String = row.get(1)?;
            let counts = match counts.entry(seq) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    let kept = crate::store::changes::reactions(text(row, 2)?);
                    let kept = kept.map_err(Failure::Data)?.into_iter();
                    entry.insert(kept.map(|(emoji, it)| (emoji, it.count)).collect())
                }
            };
            let count = counts
                .get(&emoji)
                .map_or(0, |count| count.saturating_sub(1));
            match count {
                0 => counts.remove(&emoji),
                _ => counts.insert(emoji.clone(), count),
            };
            left.push(ReactionLeft {
                message_seq: seq,
                emoji,
                count,
            });
        }
        drop(rows);
        for (seq, counts) in counts {
            let counts = match counts.is_empty() {
                true => None,
                false => Some(to_json(&counts).map_err(Failure::Data)?),
            };
            self.connection
                .prepare_cached(
                    "UPDATE messages SET reactions = ?3, changed_seq = ?4
                     WHERE room_id = ?1 AND seq = ?2",
                )?
                .execute(params![room.0.as_bytes(), int(seq), counts, int(event_seq)])?;
        }
        self.connection
            .prepare_cached("DELETE FROM message_reactions WHERE room_id = ?1 AND user_id = ?2")?
            .execute([room.0.as_bytes(), user.0.as_bytes()])?;
        let more = left.len() > limits::REACTIONS_LEFT_MAX;
        left.truncate(limits::REACTIONS_LEFT_MAX);
        Ok((left, more))
    }
}
