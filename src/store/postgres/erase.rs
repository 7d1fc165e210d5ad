//! Erases users: what `chat_erase_begin` and `chat_erase` are asked, and what stands around them. Each call is
//! one statement, and may be repeated.

use super::retain;
use super::row::{Failure, get, room_id, uint, user_id};
use super::session::Session;
use crate::chat::port::upkeep::{
    ERASE_LEASE_MS, ERASE_ROOMS, ERASE_STRETCH, EraseState, Erasure, Upkeep, UpkeepDone,
};
use crate::chat::port::{Op, OpDone, OpKind, OpOutcome, OpReply};
use crate::limits;
use crate::protocol::reply::Sent;
use crate::protocol::{ErrorCode, UnixMs, UserId};
use crate::store::common::{int, refuse, send_hash};
use crate::store::erase::{self, erased_as, mark_of};
use uuid::Uuid;

/// A stretch of a room.
pub(super) const ERASE: &str =
    "SELECT done, seq, ts, event FROM chat_erase($1, $2, $3, $4, $5, $6, $7, $8)";

/// Messages that authors who were erased had sent by these ids.
pub(super) const SENT_BEFORE: &str = "SELECT a.n, m.seq, m.created_at, m.body_hash
     FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) WITH ORDINALITY AS a (id, sender_id, room_id, n)
     JOIN messages m ON m.client_msg_id = a.id AND m.sender_id = a.sender_id AND m.room_id = a.room_id";

const BEGIN: &str = "SELECT chat_erase_begin($1, $2, $3)::text";

const STATE: &str = "SELECT (SELECT requested_at FROM erasures WHERE user_id = $1),
     EXISTS (SELECT FROM erased_users WHERE mark = $2)";

const NEXT: &str = "WITH taken AS (
         UPDATE erasures SET lease_until = chat_now($2) + $3 WHERE user_id = (
             SELECT e.user_id FROM erasures e
             WHERE e.user_id = $1 OR $1 IS NULL AND e.lease_until <= chat_now($2)
             ORDER BY e.requested_at, e.user_id LIMIT 1 FOR UPDATE SKIP LOCKED)
         RETURNING user_id, requested_at)
     SELECT t.user_id, t.requested_at, p.room_id FROM taken t LEFT JOIN LATERAL (
         (SELECT q.room_id FROM room_participants q
             WHERE q.user_id = t.user_id AND q.left_seq IS NULL LIMIT $4)
         UNION ALL
         (SELECT q.room_id FROM room_participants q
             WHERE q.user_id = t.user_id AND q.left_seq IS NOT NULL LIMIT $4)) p ON true LIMIT $4";

const END: &str = "WITH gone AS (
         DELETE FROM erasures e WHERE e.user_id = $1 AND NOT EXISTS (
             SELECT FROM room_participants p WHERE p.user_id = $1 AND p.left_seq IS NULL)
             AND NOT EXISTS (
                 SELECT FROM room_participants p WHERE p.user_id = $1 AND p.left_seq IS NOT NULL)
             AND NOT EXISTS (SELECT FROM uploads f WHERE f.owner_id = $1)
         RETURNING e.user_id
     ), account AS (DELETE FROM chat_users u USING gone g WHERE u.user_id = g.user_id
     ), ends AS (DELETE FROM user_ends x USING gone g WHERE x.user_id = g.user_id
     ), sessions AS (DELETE FROM revoked_sessions x USING gone g WHERE x.user_id = g.user_id
     ), told AS (DELETE FROM webhook_inbox w USING gone g
         WHERE position(convert_to(g.user_id::text, 'UTF8') IN w.body) > 0
             OR position(convert_to(upper(g.user_id::text), 'UTF8') IN w.body) > 0
     ), tells AS (DELETE FROM hook_outbox o USING gone g
         -- What waits that is no push is still to be told.
         WHERE (o.state <> 0 OR o.type = 'push.required') AND position(g.user_id::text IN o.data) > 0)
     SELECT EXISTS (SELECT FROM gone) OR NOT EXISTS (SELECT FROM erasures WHERE user_id = $1)";

/// All of them.
pub(super) const STEPS: &[&str] = &[BEGIN, STATE, NEXT, END, retain::NEXT, retain::STEP];

/// Whether nobody is this user again.
pub(super) async fn is_erased(session: &Session, user: UserId) -> Result<bool, Failure> {
    Ok(state(session, user).await? != EraseState::None)
}

/// Does a step; each may be repeated.
pub(super) async fn step(
    session: &Session,
    now: Option<UnixMs>,
    step: &Upkeep,
) -> Result<UpkeepDone, Failure> {
    let clock = now.map(|now| int(now.0));
    Ok(match step {
        Upkeep::EraseBegin(user) => {
            let mark = mark_of(session.hash_key(), *user).to_vec();
            session.query(BEGIN, &[&clock, &user.0, &mark]).await?;
            UpkeepDone::EraseState(state(session, *user).await?)
        }
        Upkeep::EraseState(user) => UpkeepDone::EraseState(state(session, *user).await?),
        Upkeep::EraseNext(held) => {
            let held = held.map(|user| user.0);
            let (lease, rooms_max) = (int(ERASE_LEASE_MS), ERASE_ROOMS as i64);
            let rows = session
                .query(NEXT, &[&held, &clock, &lease, &rooms_max])
                .await?;
            let mut next: Option<Erasure> = None;
            for row in &rows {
                let (user, requested_at) = (user_id(row, 0)?, UnixMs(uint(row, 1)?));
                let next = next.get_or_insert(Erasure {
                    user,
                    requested_at,
                    rooms: Vec::new(),
                });
                if get::<Option<Uuid>>(row, 2)?.is_some() {
                    next.rooms.push(room_id(row, 2)?);
                }
            }
            UpkeepDone::EraseNext(next)
        }
        Upkeep::EraseEnd(user) => {
            let rows = session.query(END, &[&user.0]).await?;
            let row = rows.first().ok_or_else(|| nothing("end"))?;
            UpkeepDone::EraseEnd(get(row, 0)?)
        }
        Upkeep::RetainNext { held, days } => retain::next(session, now, *held, *days).await?,
        Upkeep::Retain { room, days } => retain::step(session, now, *room, *days).await?,
    })
}

fn nothing(of: &str) -> Failure {
    Failure::Data(format!("an {of} without an answer"))
}

async fn state(session: &Session, user: UserId) -> Result<EraseState, Failure> {
    let mark = mark_of(session.hash_key(), user).to_vec();
    let rows = session.query(STATE, &[&user.0, &mark]).await?;
    let row = rows.first().ok_or_else(|| nothing("erasure"))?;
    let requested_at: Option<i64> = get(row, 0)?;
    Ok(match (requested_at, get(row, 1)?) {
        (Some(at), _) => EraseState::Running(UnixMs(at.unsigned_abs())),
        (None, true) => EraseState::Done,
        (None, false) => EraseState::None,
    })
}

/// Erases a user from a room, by a transaction of its own.
pub(super) async fn erase(
    session: &Session,
    now: Option<UnixMs>,
    op: &Op,
    requested_at: UnixMs,
) -> Result<OpOutcome, Failure> {
    let stood_as = erased_as(session.hash_key(), op.room, op.actor);
    let rows = session
        .query(
            ERASE,
            &[
                &now.map(|now| int(now.0)),
                &op.room.0,
                &op.actor.0,
                &stood_as.0,
                &int(requested_at.0),
                &requested_at.to_string(),
                &int(ERASE_STRETCH),
                &(limits::REACTIONS_LEFT_MAX as i32),
            ],
        )
        .await?;
    let row = rows.first().ok_or_else(|| nothing("erasure"))?;
    let event = match get::<Option<i64>>(row, 1)? {
        Some(_) => Some(super::commit::decode_event_at(op.room, row, 1)?),
        None => None,
    };
    Ok(Ok(erase::done(get(row, 0)?, event)))
}

/// Looks again at sends that were refused because their author is no member: of one who was erased the message
/// has another author, and is a duplicate all the same.
pub(super) async fn look_again(
    session: &Session,
    ops: &[&Op],
    outcomes: &mut [OpOutcome],
) -> Result<(), Failure> {
    let (mut ids, mut senders, mut rooms, mut places) = (vec![], vec![], vec![], vec![]);
    for (place, (op, outcome)) in ops.iter().zip(outcomes.iter()).enumerate() {
        let refused = outcome.as_ref().err();
        if let OpKind::Send { client_msg_id, .. } = &op.kind
            && refused.is_some_and(|refusal| refusal.code == ErrorCode::Forbidden)
        {
            ids.push(client_msg_id.0);
            senders.push(erased_as(session.hash_key(), op.room, op.actor).0);
            rooms.push(op.room.0);
            places.push(place);
        }
    }
    if places.is_empty() {
        return Ok(());
    }
    for row in session
        .query(SENT_BEFORE, &[&ids, &senders, &rooms])
        .await?
    {
        let at = usize::try_from(get::<i64>(&row, 0)? - 1).unwrap_or(usize::MAX);
        let Some(place) = places.get(at).copied() else {
            return Err(Failure::Data("an answer to no send".to_owned()));
        };
        let OpKind::Send {
            client_msg_id,
            text,
            reply_to_seq,
            mentions,
            files,
        } = &ops[place].kind
        else {
            continue;
        };
        let hash = send_hash(
            session.hash_key(),
            text,
            *reply_to_seq,
            mentions,
            files.as_deref(),
        );
        outcomes[place] = if get::<Option<&[u8]>>(&row, 3)? == Some(&hash[..]) {
            Ok(OpDone {
                reply: OpReply::Sent(Sent {
                    client_msg_id: *client_msg_id,
                    room_id: ops[place].room,
                    seq: uint(&row, 1)?,
                    ts: UnixMs(uint(&row, 2)?),
                    duplicate: true,
                }),
                events: Vec::new(),
            })
        } else {
            refuse(
                ErrorCode::IdempotencyConflict,
                "this client_msg_id was used for another message",
            )
        };
    }
    Ok(())
}
