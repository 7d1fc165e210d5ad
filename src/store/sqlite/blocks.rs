//! Blocks: who wants to hear nothing of whom, and between whom there is one.
//!
//! Invariants: a direct room is `severed` exactly while one of its two blocks the other; the `version` of
//! both rises with each change.

use super::own::row_of;
use super::row::{Failure, int, refuse, room_id, uint, user_id};
use super::write::Batch;
use crate::chat::port::{BlocksRead, OpDone, OpOutcome, OpReply, Refusal};
use crate::limits;
use crate::protocol::block::{BlockChange, BlockedUser, BlocksListed};
use crate::protocol::{ErrorCode, RoomId, UnixMs, UserId};
use crate::store::blocks::{self, page_of, parse_cursor};
use rusqlite::{Connection, params};

impl Batch<'_> {
    pub(super) fn set_block(
        &mut self,
        room: RoomId,
        actor: UserId,
        user: UserId,
        blocked: bool,
    ) -> Result<OpOutcome, Failure> {
        if !blocks::is_well_formed(room, actor, user) {
            return Ok(Err(blocks::malformed()));
        }
        if self.user(user)?.is_none() || self.user(actor)?.is_none() {
            return Ok(refuse(ErrorCode::NotFound, "no such user"));
        }
        if blocked && self.blocks_beside(actor, user)? >= limits::BLOCKS_MAX {
            return Ok(Err(blocks::too_many()));
        }
        let changed = match blocked {
            true => self
                .connection
                .prepare_cached(
                    "INSERT INTO user_relationships (user_id, other_id, kind, created_at)
                     VALUES (?1, ?2, 'block', ?3) ON CONFLICT DO NOTHING",
                )?
                .execute(params![
                    actor.0.as_bytes(),
                    user.0.as_bytes(),
                    int(self.now.0)
                ])?,
            false => self
                .connection
                .prepare_cached(
                    "DELETE FROM user_relationships
                     WHERE user_id = ?1 AND other_id = ?2 AND kind = 'block'",
                )?
                .execute([actor.0.as_bytes(), user.0.as_bytes()])?,
        } > 0;
        let severed = is_severed(self.connection, actor, &[user])?;
        if changed {
            for (whose, own) in [(actor, 1), (user, 0)] {
                self.connection
                    .prepare_cached(
                        "UPDATE chat_users SET version = version + 1,
                             block_version = block_version + ?2
                         WHERE user_id = ?1",
                    )?
                    .execute(params![whose.0.as_bytes(), own])?;
            }
            if let Some(head) = self.head(room)?
                && std::mem::replace(&mut head.severed, severed) != severed
            {
                self.connection
                    .prepare_cached("UPDATE chat_rooms SET severed = ?2 WHERE room_id = ?1")?
                    .execute(params![room.0.as_bytes(), severed])?;
                self.show_marks(room, [actor, user], severed)?;
            }
        }
        let version = self
            .connection
            .prepare_cached("SELECT block_version FROM chat_users WHERE user_id = ?1")?
            .query_row([actor.0.as_bytes()], |row| row.get::<_, i64>(0))?;
        Ok(Ok(OpDone {
            reply: OpReply::Block {
                block: BlockChange {
                    by: actor,
                    user,
                    blocked,
                    severed,
                    version: version.cast_unsigned(),
                },
                changed,
            },
            events: Vec::new(),
        }))
    }

    /// The watermarks of the pair stand for both as they are, from now on, or no longer. No send advances them while
    /// they do; receipts advance the others.
    fn show_marks(
        &mut self,
        room: RoomId,
        pair: [UserId; 2],
        severed: bool,
    ) -> Result<(), Failure> {
        if severed {
            // What sends of this transaction advanced, too.
            self.finish()?;
            self.seen.refresh(self.connection)?;
        }
        for user in pair {
            let shown = match severed {
                true => {
                    let row = row_of(self.connection, &self.seen, room, user)?;
                    Some((int(row.read_seq), int(row.delivered_seq)))
                }
                false => None,
            };
            self.connection
                .prepare_cached(
                    "UPDATE message_read_status SET shown_read_seq = ?3, shown_delivered_seq = ?4
                     WHERE room_id = ?1 AND user_id = ?2",
                )?
                .execute(params![
                    room.0.as_bytes(),
                    user.0.as_bytes(),
                    shown.map(|(read, _)| read),
                    shown.map(|(_, delivered)| delivered)
                ])?;
        }
        Ok(())
    }

    /// How many others the user blocks.
    fn blocks_beside(&self, user: UserId, other: UserId) -> Result<usize, Failure> {
        Ok(self
            .connection
            .prepare_cached(
                "SELECT count(*) FROM user_relationships
                 WHERE user_id = ?1 AND other_id <> ?2 AND kind = 'block'",
            )?
            .query_row([user.0.as_bytes(), other.0.as_bytes()], |row| {
                row.get::<_, u32>(0)
            })? as usize)
    }
}

/// Whether one of these blocked the user, or the user one of them.
pub(super) fn is_severed(
    connection: &Connection,
    user: UserId,
    others: &[UserId],
) -> Result<bool, Failure> {
    if others.is_empty() {
        return Ok(false);
    }
    let mut statement = connection.prepare_cached(
        "SELECT 1 FROM user_relationships
         WHERE user_id = ?1 AND other_id = ?2 AND kind = 'block'",
    )?;
    for other in others {
        let (user, other) = (user.0.as_bytes(), other.0.as_bytes());
        if statement.exists([user, other])? || statement.exists([other, user])? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Those of the rooms that are severed.
pub(super) fn severed_rooms(
    connection: &Connection,
    rooms: &[RoomId],
) -> Result<Vec<RoomId>, Failure> {
    let mut statement = connection
        .prepare_cached("SELECT room_id FROM chat_rooms WHERE room_id = ?1 AND severed <> 0")?;
    let mut found = Vec::new();
    for room in rooms {
        let mut rows = statement.query([room.0.as_bytes()])?;
        if let Some(row) = rows.next()? {
            found.push(room_id(row, 0)?);
        }
    }
    Ok(found)
}

/// A page of the users whom one blocks, or `bad_request` for a cursor that we did not make.
pub(super) fn list(
    connection: &Connection,
    read: &BlocksRead,
) -> Result<Result<BlocksListed, Refusal>, Failure> {
    let after = match parse_cursor(read.cursor.as_deref()) {
        Ok(after) => after,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let mut statement = connection.prepare_cached(
        "SELECT x.other_id, u.name, x.created_at FROM user_relationships x
         CROSS JOIN chat_users u ON u.user_id = x.other_id
         WHERE x.user_id = ?1 AND x.other_id > ?2 AND x.kind = 'block'
         ORDER BY x.other_id LIMIT ?3",
    )?;
    let mut rows = statement.query(params![
        read.user.0.as_bytes(),
        after.0.as_bytes(),
        int(read.limit as u64 + 1)
    ])?;
    let mut users = Vec::new();
    while let Some(row) = rows.next()? {
        users.push(BlockedUser {
            user_id: user_id(row, 0)?,
            name: row.get(1)?,
            blocked_at: UnixMs(uint(row, 2)?),
        });
    }
    Ok(Ok(page_of(users, read.limit)))
}

/// Who of these two blocks the other.
pub(super) fn blocks_between(
    connection: &Connection,
    one: UserId,
    other: UserId,
    found: &mut Vec<(UserId, UserId)>,
) -> Result<(), Failure> {
    let mut statement = connection
        .prepare_cached("SELECT 1 FROM user_relationships WHERE user_id = ?1 AND other_id = ?2")?;
    for (who, whom) in [(one, other), (other, one)] {
        if statement.exists([who.0.as_bytes(), whom.0.as_bytes()])? {
            found.push((who, whom));
        }
    }
    Ok(())
}
