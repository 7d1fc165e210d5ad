//! What other services tell: their webhooks, and what the Main App says of accounts.

use super::row::{Failure, int, room_id, uint, user_id};
use super::search_index::overwriting;
use crate::chat::port::intake::{
    IntakeAnswer, IntakeCall, ProfileTold, Webhook, WebhookAnswer, WebhookKept, WebhookTaken,
};
use crate::limits;
use crate::protocol::ending::{EndsWhich, SessionsEnd, sid_hash};
use crate::protocol::webhook::{AccountChange, AccountEvent, WebhookSource};
use crate::protocol::{CloseCode, UnixMs, UserId};
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

/// Answers a call that changes nothing.
pub(super) fn read(connection: &Connection, call: &IntakeCall) -> Result<IntakeAnswer, Failure> {
    Ok(match call {
        IntakeCall::Take(_) | IntakeCall::Answered { .. } | IntakeCall::Sync { .. } => {
            return Err(Failure::Data("not a read".to_owned()));
        }
        IntakeCall::Profiles { after: None, .. } => {
            let mut statement =
                connection.prepare_cached("SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)")?;
            let now: i64 = statement.query_row([], |row| row.get(0))?;
            IntakeAnswer::Profiles {
                profiles: Vec::new(),
                now: Some(UnixMs(now.unsigned_abs())),
            }
        }
        IntakeCall::Profiles {
            after: Some((after, user)),
            limit,
        } => profiles(connection, *after, *user, *limit)?,
        IntakeCall::Webhook(source, id) => {
            let mut statement = connection.prepare_cached(
                "SELECT source, webhook_id, signed_at, received_at, body, status, answer, replays
                 FROM webhook_inbox WHERE source = ?1 AND webhook_id = ?2",
            )?;
            let mut rows = statement.query(params![source.name(), id])?;
            let kept = rows.next()?.map(kept).transpose()?;
            IntakeAnswer::Webhook(kept.map(Box::new))
        }
        IntakeCall::Webhooks {
            is_open,
            before,
            limit,
        } => {
            let mut statement = connection.prepare_cached(
                "SELECT source, webhook_id, signed_at, received_at, body, status, answer, replays
                 FROM webhook_inbox WHERE received_at < ?1 AND (NOT ?2 OR status IS NULL)
                 ORDER BY received_at DESC, source DESC, webhook_id DESC LIMIT ?3",
            )?;
            let before = before.map_or(i64::MAX, |before| int(before.0));
            let mut rows = statement.query(params![before, is_open, int(*limit as u64)])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(kept(row)?);
            }
            IntakeAnswer::Webhooks(found)
        }
    })
}

/// Does what changes something, inside a transaction.
pub(super) fn write(
    connection: &Connection,
    now: UnixMs,
    call: &IntakeCall,
) -> Result<IntakeAnswer, Failure> {
    Ok(match call {
        IntakeCall::Take(webhook) => IntakeAnswer::Taken(take(connection, now, webhook)?),
        IntakeCall::Answered {
            source,
            id,
            answer,
            is_replay,
        } => {
            connection
                .prepare_cached(
                    "UPDATE webhook_inbox SET status = ?3, answer = ?4, answered_at = ?5,
                         replays = replays + ?6
                     WHERE source = ?1 AND webhook_id = ?2 AND (status IS NULL OR ?6 > 0)",
                )?
                .execute(params![
                    source.name(),
                    id,
                    answer.status,
                    answer.body,
                    int(now.0),
                    is_replay,
                ])?;
            IntakeAnswer::Answered
        }
        IntakeCall::Sync { event, at } => {
            let is_changed = sync(connection, now, event, *at)?;
            IntakeAnswer::Synced {
                is_changed,
                ends: ends_of(connection, event.user)?,
            }
        }
        IntakeCall::Profiles { .. } | IntakeCall::Webhook(..) | IntakeCall::Webhooks { .. } => {
            return read(connection, call);
        }
    })
}

fn take(connection: &Connection, now: UnixMs, webhook: &Webhook) -> Result<WebhookTaken, Failure> {
    let added = connection
        .prepare_cached(
            "INSERT INTO webhook_inbox (source, webhook_id, signed_at, received_at, body)
             VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            webhook.source.name(),
            webhook.id,
            int(webhook.signed_at.0),
            int(now.0),
            webhook.body,
        ])?;
    if added > 0 {
        // Two go for each that comes, so old ones get fewer.
        overwriting(connection, || {
            connection
                .prepare_cached(
                    "DELETE FROM webhook_inbox WHERE (source, webhook_id) IN (
                         SELECT source, webhook_id FROM webhook_inbox
                         WHERE received_at < ?1 AND status IS NOT NULL
                         ORDER BY received_at LIMIT 2)",
                )?
                .execute([int(now.0.saturating_sub(limits::WEBHOOK_KEPT_MS))])?;
            Ok(())
        })?;
    }
    let mut statement = connection.prepare_cached(
        "SELECT body = ?3, status, answer FROM webhook_inbox
         WHERE source = ?1 AND webhook_id = ?2",
    )?;
    let mut rows = statement.query(params![webhook.source.name(), webhook.id, webhook.body])?;
    match rows.next()? {
        Some(row) => Ok(WebhookTaken {
            is_same: row.get(0)?,
            answer: webhook_answer(row, 1)?,
        }),
        None => Err(Failure::Data("a webhook was not kept".to_owned())),
    }
}

fn webhook_answer(row: &Row<'_>, first: usize) -> Result<Option<WebhookAnswer>, Failure> {
    let status: Option<u16> = row.get(first)?;
    let body: Option<String> = row.get(first + 1)?;
    Ok(status.map(|status| WebhookAnswer {
        status,
        body: body.unwrap_or_default(),
    }))
}

fn kept(row: &Row<'_>) -> Result<WebhookKept, Failure> {
    let source: String = row.get(0)?;
    Ok(WebhookKept {
        webhook: Webhook {
            source: WebhookSource::of_name(&source)
                .ok_or_else(|| Failure::Data("an unknown sender".to_owned()))?,
            id: row.get(1)?,
            signed_at: UnixMs(uint(row, 2)?),
            body: row.get(4)?,
        },
        received_at: UnixMs(uint(row, 3)?),
        answer: webhook_answer(row, 5)?,
        replays: row.get(7)?,
    })
}

/// What is kept of an account, before something is said of it.
struct Account {
    profile_version: u64,
    standing_version: u64,
    is_suspended: bool,
    is_gone: bool,
    revoked_until: Option<i64>,
}

fn sync(
    connection: &Connection,
    now: UnixMs,
    event: &AccountEvent,
    at: UnixMs,
) -> Result<bool, Failure> {
    if super::erase::is_erased(connection, event.user)? {
        return Ok(false);
    }
    let user = event.user.0.as_bytes();
    connection
        .prepare_cached(
            "INSERT INTO chat_users (user_id, name, version, room_count, created_at)
             VALUES (?1, '', 1, 0, ?2) ON CONFLICT DO NOTHING",
        )?
        .execute(params![user, int(now.0)])?;
    let old = account(connection, event.user)?;
    if old.is_gone {
        return Ok(false);
    }
    let (mut is_changed, mut ends) = (false, false);
    let mut suspended = None;
    match &event.change {
        AccountChange::Profile {
            name,
            picture,
            suspended: is_suspended,
        } => {
            suspended = *is_suspended;
            if event.version > old.profile_version {
                connection
                    .prepare_cached(
                        "UPDATE chat_users SET name = coalesce(?2, name), picture = ?3,
                             profile_version = ?4, profile_at = ?5 WHERE user_id = ?1",
                    )?
                    .execute(params![user, name, picture, int(event.version), int(now.0)])?;
                is_changed = true;
            }
        }
        AccountChange::Suspended => suspended = Some(true),
        AccountChange::Deleted => {
            connection
                .prepare_cached("UPDATE chat_users SET gone = 1 WHERE user_id = ?1")?
                .execute([user])?;
            ends = true;
        }
        AccountChange::SessionRevoked {
            sid: Some(sid),
            expires_at,
        } => {
            let until = expires_at.map_or(at.0 + limits::SESSION_REVOKED_MS, |it| it.0);
            connection
                .prepare_cached(
                    "DELETE FROM revoked_sessions WHERE (user_id, sid) IN (
                         SELECT user_id, sid FROM revoked_sessions WHERE kept_until < ?1
                         ORDER BY kept_until LIMIT 2)",
                )?
                .execute([int(now.0)])?;
            let written = connection
                .prepare_cached(
                    "INSERT INTO revoked_sessions (user_id, sid, kept_until) VALUES (?1, ?2, ?3)
                     ON CONFLICT DO UPDATE SET kept_until = excluded.kept_until
                     WHERE kept_until < excluded.kept_until",
                )?
                .execute(params![user, sid_hash(sid).as_bytes(), int(until)])?;
            ends = written > 0;
        }
        AccountChange::SessionRevoked { sid: None, .. } => {
            if int(at.0) > old.revoked_until.unwrap_or(0) {
                connection
                    .prepare_cached(
                        "UPDATE chat_users SET revoked_until = ?2, revoked_version = version + 1
                         WHERE user_id = ?1",
                    )?
                    .execute(params![user, int(at.0)])?;
                ends = true;
            }
        }
    }
    if let Some(suspended) = suspended
        && event.version > old.standing_version
    {
        connection
            .prepare_cached(
                "UPDATE chat_users SET suspended = ?2, standing_version = ?3 WHERE user_id = ?1",
            )?
            .execute(params![user, suspended, int(event.version)])?;
        is_changed |= suspended != old.is_suspended;
        ends |= suspended && !old.is_suspended;
    }
    if ends {
        connection
            .prepare_cached("UPDATE chat_users SET version = version + 1 WHERE user_id = ?1")?
            .execute([user])?;
    }
    Ok(is_changed || ends)
}

fn account(connection: &Connection, user: UserId) -> Result<Account, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT profile_version, standing_version, suspended, gone, revoked_until
         FROM chat_users WHERE user_id = ?1",
    )?;
    let mut rows = statement.query([user.0.as_bytes()])?;
    match rows.next()? {
        Some(row) => Ok(Account {
            profile_version: uint(row, 0)?,
            standing_version: uint(row, 1)?,
            is_suspended: row.get(2)?,
            is_gone: row.get(3)?,
            revoked_until: row.get(4)?,
        }),
        None => Err(Failure::Data("a user is gone".to_owned())),
    }
}

/// What ends sessions of a user, also such as are yet to begin.
pub(super) fn ends_of(connection: &Connection, user: UserId) -> Result<Vec<SessionsEnd>, Failure> {
    let mut ends = super::admin::ended_by(connection, user)?;
    let id = user.0.as_bytes();
    let account: Option<(bool, bool, Option<i64>, Option<i64>)> = connection
        .prepare_cached(
            "SELECT suspended, gone, revoked_until, revoked_version FROM chat_users
             WHERE user_id = ?1",
        )?
        .query_row([id], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .optional()?;
    let (is_suspended, is_gone, revoked_until, version) = account.unwrap_or_default();
    if is_suspended || is_gone {
        ends.push(SessionsEnd {
            user,
            version: SessionsEnd::FOR_GOOD,
            code: match is_gone {
                true => CloseCode::UserDeleted,
                false => CloseCode::Forbidden,
            },
            which: EndsWhich::BeganBefore,
        });
    }
    if let Some(until) = revoked_until {
        ends.push(SessionsEnd {
            user,
            version: version.unwrap_or_default().unsigned_abs(),
            code: CloseCode::Unauthenticated,
            which: EndsWhich::IssuedUntil(UnixMs(until.unsigned_abs())),
        });
    }
    // Those that are kept for longer than they need be are of tokens that have ended.
    let mut statement =
        connection.prepare_cached("SELECT sid FROM revoked_sessions WHERE user_id = ?1")?;
    let mut rows = statement.query([id])?;
    while let Some(row) = rows.next()? {
        let sid: [u8; 16] = row.get(0)?;
        ends.push(SessionsEnd {
            user,
            version: SessionsEnd::FOR_GOOD,
            code: CloseCode::Unauthenticated,
            which: EndsWhich::OfSession(Uuid::from_bytes(sid)),
        });
    }
    Ok(ends)
}

fn profiles(
    connection: &Connection,
    after: UnixMs,
    user: UserId,
    limit: usize,
) -> Result<IntakeAnswer, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT user_id, profile_version, name, picture, profile_at FROM chat_users
         WHERE profile_at IS NOT NULL AND (profile_at, user_id) > (?1, ?2)
         ORDER BY profile_at, user_id LIMIT ?3",
    )?;
    let mut in_rooms = connection.prepare_cached(
        "SELECT room_id FROM room_participants WHERE user_id = ?1 AND left_seq IS NULL",
    )?;
    let mut rows = statement.query(params![int(after.0), user.0.as_bytes(), int(limit as u64)])?;
    let mut profiles = Vec::new();
    while let Some(row) = rows.next()? {
        let user = user_id(row, 0)?;
        let mut own = Vec::new();
        let mut rooms = in_rooms.query([user.0.as_bytes()])?;
        while let Some(room) = rooms.next()? {
            own.push(room_id(room, 0)?);
        }
        profiles.push(ProfileTold {
            user,
            version: uint(row, 1)?,
            name: row.get(2)?,
            picture: row.get(3)?,
            at: UnixMs(uint(row, 4)?),
            rooms: own,
        });
    }
    Ok(IntakeAnswer::Profiles {
        profiles,
        now: None,
    })
}
