//! What other services tell: their webhooks, and what the Main App says of accounts. Each call is a few
//! statements of their own, and may be repeated.

use super::row::{Failure, get, room_id, uint, user_id};
use super::session::Session;
use crate::chat::port::intake::{
    IntakeAnswer, IntakeCall, ProfileTold, Webhook, WebhookAnswer, WebhookKept, WebhookTaken,
};
use crate::limits;
use crate::protocol::ending::sid_hash;
use crate::protocol::webhook::{AccountChange, AccountEvent, WebhookSource};
use crate::protocol::{RoomId, UnixMs, UserId};
use crate::store::common::int;
use std::collections::BTreeMap;
use tokio_postgres::Row;
use uuid::Uuid;

const TAKE: &str = "SELECT is_same, status, answer FROM webhook_take($1, $2, $3, $4, $5, $6)";
const ANSWERED: &str = "UPDATE webhook_inbox SET status = $3, answer = $4,
         answered_at = coalesce($6, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint),
         replays = replays + $5
     WHERE source = $1 AND webhook_id = $2 AND (status IS NULL OR $5 > 0)";
const SYNC: &str = "SELECT chat_sync_account($1, $2, $3, $4, $5, $6, $7, $8, $9)";
const ENDS: &str = "SELECT chat_ends_json($1)";
const NOW: &str = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";
const PROFILES: &str = "SELECT user_id, profile_version, name, picture, profile_at FROM chat_users
     WHERE profile_at IS NOT NULL AND (profile_at, user_id) > ($1, $2)
     ORDER BY profile_at, user_id LIMIT $3";
const ROOMS: &str = "SELECT user_id, room_id FROM room_participants
     WHERE user_id = ANY ($1) AND left_seq IS NULL";
macro_rules! kept {
    () => {
        "SELECT source, webhook_id, signed_at, received_at, body, status, answer, replays
         FROM webhook_inbox "
    };
}
const WEBHOOK: &str = concat!(kept!(), "WHERE source = $1 AND webhook_id = $2");
const WEBHOOKS: &str = concat!(
    kept!(),
    "WHERE received_at < $1 AND (NOT $2 OR status IS NULL)
     ORDER BY received_at DESC, source DESC, webhook_id DESC LIMIT $3"
);

/// Answers a call.
pub(super) async fn answer(
    session: &Session,
    now: Option<UnixMs>,
    call: &IntakeCall,
) -> Result<IntakeAnswer, Failure> {
    let clock = now.map(|now| int(now.0));
    Ok(match call {
        IntakeCall::Take(webhook) => IntakeAnswer::Taken(take(session, clock, webhook).await?),
        IntakeCall::Answered {
            source,
            id,
            answer,
            is_replay,
        } => {
            let WebhookAnswer { status, body } = answer;
            let status = i32::from(*status);
            let replay = i32::from(*is_replay);
            session
                .query(
                    ANSWERED,
                    &[&source.name(), id, &status, body, &replay, &clock],
                )
                .await?;
            IntakeAnswer::Answered
        }
        IntakeCall::Sync { event, at } => {
            let is_changed = sync(session, clock, event, *at).await?;
            let rows = session.query(ENDS, &[&event.user.0]).await?;
            let ends = rows.first().map(|row| get(row, 0)).transpose()?.flatten();
            IntakeAnswer::Synced {
                is_changed,
                ends: super::admin::ends_of(event.user, ends)?,
            }
        }
        IntakeCall::Profiles { after, limit } => profiles(session, clock, *after, *limit).await?,
        IntakeCall::Webhook(source, id) => {
            let rows = session.query(WEBHOOK, &[&source.name(), id]).await?;
            let kept = rows.first().map(kept).transpose()?;
            IntakeAnswer::Webhook(kept.map(Box::new))
        }
        IntakeCall::Webhooks {
            is_open,
            before,
            limit,
        } => {
            let before = before.map_or(i64::MAX, |before| int(before.0));
            let rows = session
                .query(WEBHOOKS, &[&before, is_open, &int(*limit as u64)])
                .await?;
            let kept: Result<_, Failure> = rows.iter().map(kept).collect();
            IntakeAnswer::Webhooks(kept?)
        }
    })
}

async fn take(
    session: &Session,
    clock: Option<i64>,
    webhook: &Webhook,
) -> Result<WebhookTaken, Failure> {
    let rows = session
        .query(
            TAKE,
            &[
                &clock,
                &webhook.source.name(),
                &webhook.id,
                &int(webhook.signed_at.0),
                &webhook.body,
                &int(limits::WEBHOOK_KEPT_MS),
            ],
        )
        .await?;
    let Some(row) = rows.first() else {
        return Err(Failure::Data("a webhook was not kept".to_owned()));
    };
    Ok(WebhookTaken {
        is_same: get(row, 0)?,
        answer: webhook_answer(row, 1)?,
    })
}

fn webhook_answer(row: &Row, first: usize) -> Result<Option<WebhookAnswer>, Failure> {
    let status: Option<i32> = get(row, first)?;
    let Some(status) = status else {
        return Ok(None);
    };
    let body: Option<String> = get(row, first + 1)?;
    Ok(Some(WebhookAnswer {
        status: u16::try_from(status).unwrap_or(500),
        body: body.unwrap_or_default(),
    }))
}

fn kept(row: &Row) -> Result<WebhookKept, Failure> {
    let source: &str = get(row, 0)?;
    let replays: i32 = get(row, 7)?;
    Ok(WebhookKept {
        webhook: Webhook {
            source: WebhookSource::of_name(source)
                .ok_or_else(|| Failure::Data("an unknown sender".to_owned()))?,
            id: get(row, 1)?,
            signed_at: UnixMs(uint(row, 2)?),
            body: get(row, 4)?,
        },
        received_at: UnixMs(uint(row, 3)?),
        answer: webhook_answer(row, 5)?,
        replays: replays.unsigned_abs(),
    })
}

async fn sync(
    session: &Session,
    clock: Option<i64>,
    event: &AccountEvent,
    at: UnixMs,
) -> Result<bool, Failure> {
    if super::erase::is_erased(session, event.user).await? {
        return Ok(false);
    }
    let (mut name, mut picture, mut suspended) = (None, None, None);
    let (mut sid, mut until) = (None, None);
    let what = match &event.change {
        AccountChange::Profile {
            name: new_name,
            picture: new_picture,
            suspended: is_suspended,
        } => {
            name = new_name.clone();
            picture = new_picture.clone();
            suspended = *is_suspended;
            "profile"
        }
        AccountChange::Suspended => {
            suspended = Some(true);
            "suspended"
        }
        AccountChange::Deleted => "deleted",
        AccountChange::SessionRevoked {
            sid: Some(name),
            expires_at,
        } => {
            sid = Some(sid_hash(name));
            until = Some(expires_at.map_or(at.0 + limits::SESSION_REVOKED_MS, |it| it.0));
            "revoked"
        }
        AccountChange::SessionRevoked { sid: None, .. } => {
            until = Some(at.0);
            "revoked"
        }
    };
    let rows = session
        .query(
            SYNC,
            &[
                &clock,
                &event.user.0,
                &int(event.version),
                &what,
                &name,
                &picture,
                &suspended,
                &sid,
                &until.map(int),
            ],
        )
        .await?;
    match rows.first() {
        Some(row) => get(row, 0),
        None => Err(Failure::Data("no outcome".to_owned())),
    }
}

async fn profiles(
    session: &Session,
    clock: Option<i64>,
    after: Option<(UnixMs, UserId)>,
    limit: usize,
) -> Result<IntakeAnswer, Failure> {
    let Some((after, user)) = after else {
        let now = match clock {
            Some(now) => now.unsigned_abs(),
            None => match session.query(NOW, &[]).await?.first() {
                Some(row) => uint(row, 0)?,
                None => return Err(Failure::Data("no time".to_owned())),
            },
        };
        return Ok(IntakeAnswer::Profiles {
            profiles: Vec::new(),
            now: Some(UnixMs(now)),
        });
    };
    let rows = session
        .query(PROFILES, &[&int(after.0), &user.0, &int(limit as u64)])
        .await?;
    let mut profiles = Vec::with_capacity(rows.len());
    for row in &rows {
        profiles.push(ProfileTold {
            user: user_id(row, 0)?,
            version: uint(row, 1)?,
            name: get(row, 2)?,
            picture: get(row, 3)?,
            at: UnixMs(uint(row, 4)?),
            rooms: Vec::new(),
        });
    }
    let ids: Vec<Uuid> = profiles.iter().map(|profile| profile.user.0).collect();
    let mut rooms: BTreeMap<UserId, Vec<RoomId>> = BTreeMap::new();
    if !ids.is_empty() {
        for row in session.query(ROOMS, &[&ids]).await? {
            let rooms = rooms.entry(user_id(&row, 0)?).or_default();
            rooms.push(room_id(&row, 1)?);
        }
    }
    for profile in &mut profiles {
        profile.rooms = rooms.remove(&profile.user).unwrap_or_default();
    }
    Ok(IntakeAnswer::Profiles {
        profiles,
        now: None,
    })
}
