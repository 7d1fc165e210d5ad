//! What other services are told. Each call is a few statements of their own, and may be repeated; what changes more
//! than one row is one function of the database.
//!
//! Nothing here waits for a lock that a send holds, or holds one that a send waits for.

use super::row::{Failure, get, message_kind, room_id, room_kind, uint, user_id};
use super::session::Session;
use crate::chat::port::hooks::{
    Attempted, HOOK_LEASE_MS, HOOK_MESSAGES, HOOKS_KEPT_MS, HOOKS_WANTED_MS, HookAnswer, HookCall,
    HookKept, HookLease, HookState, NewHook, PushMember, PushMessage, PushRoom, PushUnread, Pushed,
};
use crate::limits;
use crate::protocol::hooks::HookKind;
use crate::protocol::view::Mention;
use crate::protocol::{RoomId, Seq, UnixMs, UserId};
use crate::store::changes::mentions;
use crate::store::common::int;
use tokio_postgres::Row;
use uuid::Uuid;

const LEASE: &str = "SELECT is_held, now, since, disabled_at, oldest, is_taken_over
     FROM hook_lease($1, $2, $3, $4, $5, $6)";
const ROOMS: &str = "SELECT room_id, done_seq FROM hook_rooms
     WHERE noted_seq > done_seq AND room_id > $1 AND noted_at <= $3 ORDER BY room_id LIMIT $2";
const HEAD: &str = "SELECT kind, title, member_count, last_seq FROM chat_rooms WHERE room_id = $1 AND last_seq > 0";
const MESSAGES: &str = "SELECT m.seq, m.sender_id, coalesce(u.name, ''), m.kind, left(m.text, $5),
         m.mentions::text, m.deleted_at IS NOT NULL, m.created_at
     FROM messages m LEFT JOIN chat_users u ON u.user_id = m.sender_id
     WHERE m.room_id = $1 AND m.seq > $2 AND m.seq <= $3 ORDER BY m.seq LIMIT $4";
const MEMBERS: &str = "SELECT p.user_id, p.joined_seq, coalesce(s.read_seq, 0), s.muted_until
     FROM room_participants p
     LEFT JOIN message_read_status s ON s.room_id = p.room_id AND s.user_id = p.user_id
     WHERE p.room_id = $1 AND p.left_seq IS NULL AND ($2 OR p.user_id = ANY ($3))
         AND coalesce(s.read_seq, 0) < $4
     ORDER BY p.user_id";
const BLOCKS: &str = "SELECT x.user_id, x.other_id FROM user_relationships x
     WHERE x.user_id = ANY ($1) AND x.other_id = ANY ($2)
     UNION SELECT x.user_id, x.other_id FROM user_relationships x
     WHERE x.user_id = ANY ($2) AND x.other_id = ANY ($1)";
const UNREAD: &str = concat!(
    "SELECT a.user_id, CASE WHEN p.user_id IS NULL THEN 0 ELSE ",
    super::rooms::unread!("p.room_id", "coalesce(s.read_seq, 0)", "a.user_id", "$4"),
    " END, (SELECT count(*) FROM (
             SELECT FROM room_participants q
             JOIN chat_rooms r ON r.room_id = q.room_id
             LEFT JOIN message_read_status t ON t.room_id = q.room_id AND t.user_id = q.user_id
             CROSS JOIN LATERAL (
                 SELECT FROM messages m WHERE m.room_id = q.room_id
                     AND m.seq > coalesce(t.read_seq, 0) AND m.kind <> 'system'
                     AND m.sender_id <> q.user_id AND m.deleted_at IS NULL LIMIT $4
             ) c
             WHERE q.user_id = a.user_id AND q.left_seq IS NULL
                 AND r.last_seq > coalesce(t.read_seq, 0) AND coalesce(t.muted_until <= $3, true)
             LIMIT $4) counted)
     FROM unnest($2::uuid[]) AS a (user_id)
     LEFT JOIN room_participants p ON p.room_id = $1 AND p.user_id = a.user_id AND p.left_seq IS NULL
     LEFT JOIN message_read_status s ON s.room_id = $1 AND s.user_id = a.user_id"
);
const DECIDED: &str = "SELECT hook_decided($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
/// Whether something of a stretch that was pushed is still unread.
macro_rules! is_wanted {
    ($from:literal) => {
        concat!(
            "EXISTS (SELECT FROM room_participants p
                 LEFT JOIN message_read_status s ON s.room_id = p.room_id AND s.user_id = p.user_id
                 JOIN messages m ON m.room_id = p.room_id AND m.seq > ",
            $from,
            " AND m.seq <= o.seq AND m.seq > coalesce(s.read_seq, 0) AND m.deleted_at IS NULL
                     AND m.kind <> 'system' AND m.sender_id <> o.user_id
                 WHERE p.room_id = o.room_id AND p.user_id = o.user_id AND p.left_seq IS NULL)"
        )
    };
}
const DUE: &str = concat!(
    "WITH RECURSIVE rooms (id) AS (
         SELECT (SELECT w.room_id FROM hook_outbox w WHERE w.state = 0 AND w.room_id > $3
             ORDER BY w.room_id LIMIT 1)
         UNION ALL
         SELECT (SELECT w.room_id FROM hook_outbox w WHERE w.state = 0 AND w.room_id > rooms.id
             ORDER BY w.room_id LIMIT 1)
         FROM rooms WHERE rooms.id IS NOT NULL
     )
     SELECT o.webhook_id, o.type, o.room_id, o.created_at, o.data, o.attempts, o.state, o.status, o.error,
         o.type <> 'push.required' OR ",
    is_wanted!("o.seq - 1"),
    " FROM rooms
     JOIN LATERAL (
         SELECT * FROM hook_outbox e WHERE e.room_id = rooms.id AND e.state = 0 ORDER BY e.n LIMIT 1
     ) o ON true
     WHERE rooms.id IS NOT NULL AND o.next_at <= $1 LIMIT $2"
);
const PASSED: &str = "UPDATE hook_rooms h SET done_seq = a.until, noted_at = $4
     FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS a (room_id, since, until)
     WHERE h.room_id = a.room_id AND h.done_seq = a.since";
const KEPT: &str =
    "SELECT o.webhook_id, o.type, o.room_id, o.created_at, o.data, o.attempts, o.state, o.status,
         o.error, true
     FROM hook_outbox o WHERE o.state = $1 ORDER BY o.n DESC LIMIT $2";
const ATTEMPTED: &str = "SELECT hook_attempted($1, $2, $3, $4, $5, $6)::text";
const PUSHED: &str = concat!(
    "SELECT o.room_id, o.user_id, o.seq, ",
    is_wanted!("0"),
    " FROM hook_pushed o WHERE (o.room_id, o.user_id) > ($1, $2)
     ORDER BY o.room_id, o.user_id LIMIT $3"
);
const TAKE_BACK: &str = "SELECT hook_take_back($1, $2, $3, $4, $5, $6, $7)";
const DISABLE: &str = "UPDATE hook_state
     SET disabled_at = CASE WHEN $2 THEN chat_now($1) END,
         since = CASE WHEN $2 THEN since ELSE chat_now($1) END
     WHERE (disabled_at IS NOT NULL) <> $2 RETURNING one";
const REPLAY: &str = "UPDATE hook_outbox SET state = 0, attempts = 0, next_at = 0, ended_at = NULL
     WHERE webhook_id = $1 AND state <> 0 RETURNING n";

/// Answers a call.
pub(super) async fn answer(
    session: &Session,
    now: Option<UnixMs>,
    call: &HookCall,
) -> Result<HookAnswer, Failure> {
    let clock = now.map(|now| int(now.0));
    Ok(match call {
        HookCall::Lease { holder, takes } => lease(session, clock, *holder, *takes).await?,
        HookCall::Rooms {
            after,
            until,
            limit,
        } => {
            let (limit, until) = (int(*limit as u64), int(until.0));
            let rows = session.query(ROOMS, &[&after.0, &limit, &until]).await?;
            let room = |row: &Row| Ok((room_id(row, 0)?, uint(row, 1)?));
            HookAnswer::Rooms(rows.iter().map(room).collect::<Result<_, Failure>>()?)
        }
        HookCall::Room { room, from, until } => HookAnswer::Room(
            read_room(session, *room, *from, *until)
                .await?
                .map(Box::new),
        ),
        HookCall::Unread { room, users, now } => {
            let users: Vec<Uuid> = users.iter().map(|user| user.0).collect();
            let (now, max) = (int(now.0), i64::from(limits::UNREAD_MAX));
            let rows = session
                .query(UNREAD, &[&room.0, &users, &now, &max])
                .await?;
            HookAnswer::Unread(rows.iter().map(unread).collect::<Result<_, Failure>>()?)
        }
        HookCall::Decided {
            room,
            from,
            to,
            looked_at,
            hooks,
        } => {
            let place = (*room, *from, *to);
            HookAnswer::Done(decided(session, clock, place, *looked_at, hooks).await?)
        }
        HookCall::Due { now, after, limit } => {
            let (now, limit) = (int(now.0), int(*limit as u64));
            let rows = session.query(DUE, &[&now, &limit, &after.0]).await?;
            HookAnswer::Hooks(rows.iter().map(kept).collect::<Result<_, Failure>>()?)
        }
        HookCall::Passed { rooms, looked_at } => {
            let ids: Vec<Uuid> = rooms.iter().map(|it| it.0.0).collect();
            let from: Vec<i64> = rooms.iter().map(|it| int(it.1)).collect();
            let to: Vec<i64> = rooms.iter().map(|it| int(it.2)).collect();
            session
                .query(PASSED, &[&ids, &from, &to, &int(looked_at.0)])
                .await?;
            HookAnswer::Done(true)
        }
        HookCall::Kept { state, limit } => {
            let limit = int(*limit as u64);
            let rows = session.query(KEPT, &[&state.number(), &limit]).await?;
            HookAnswer::Hooks(rows.iter().map(kept).collect::<Result<_, Failure>>()?)
        }
        HookCall::Attempted { id, outcome } => {
            attempted(session, clock, *id, outcome).await?;
            HookAnswer::Done(true)
        }
        HookCall::Pushed { after, limit } => pushed(session, *after, *limit).await?,
        HookCall::TakeBack { pushed, hook } => {
            let Pushed { room, user, seq } = *pushed;
            let kind = hook.kind.name();
            let rows = session
                .query(
                    TAKE_BACK,
                    &[
                        &clock,
                        &room.0,
                        &user.0,
                        &int(seq),
                        &hook.id,
                        &kind,
                        &hook.data,
                    ],
                )
                .await?;
            HookAnswer::Done(first(&rows)?)
        }
        HookCall::Disable(is_gone) => {
            let rows = session.query(DISABLE, &[&clock, is_gone]).await?;
            HookAnswer::Done(!rows.is_empty())
        }
        HookCall::Replay(id) => HookAnswer::Done(!session.query(REPLAY, &[id]).await?.is_empty()),
    })
}

fn first(rows: &[Row]) -> Result<bool, Failure> {
    match rows.first() {
        Some(row) => get(row, 0),
        None => Err(Failure::Data("no outcome".to_owned())),
    }
}

async fn lease(
    session: &Session,
    clock: Option<i64>,
    holder: Uuid,
    takes: bool,
) -> Result<HookAnswer, Failure> {
    let (lease, wanted) = (int(HOOK_LEASE_MS), int(HOOKS_WANTED_MS));
    let kept = int(HOOKS_KEPT_MS);
    let rows = session
        .query(LEASE, &[&clock, &holder, &lease, &wanted, &kept, &takes])
        .await?;
    let Some(row) = rows.first() else {
        return Err(Failure::Data("no lease".to_owned()));
    };
    let time = |column| -> Result<Option<UnixMs>, Failure> {
        let ms: Option<i64> = get(row, column)?;
        Ok(ms.map(|ms| UnixMs(ms.unsigned_abs())))
    };
    Ok(HookAnswer::Lease(HookLease {
        is_held: get(row, 0)?,
        is_taken_over: get(row, 5)?,
        now: UnixMs(uint(row, 1)?),
        since: UnixMs(uint(row, 2)?),
        disabled_at: time(3)?,
        oldest: time(4)?,
    }))
}

/// In this order: what is read later may be newer, never older.
async fn read_room(
    session: &Session,
    room: RoomId,
    from: Seq,
    until: UnixMs,
) -> Result<Option<PushRoom>, Failure> {
    let heads = session.query(HEAD, &[&room.0]).await?;
    let Some(head) = heads.first() else {
        return Ok(None);
    };
    let last_seq = uint(head, 3)?;
    let member_count: i32 = get(head, 2)?;
    let (limit, chars) = (HOOK_MESSAGES as i64, limits::PUSH_PREVIEW_CHARS as i32 + 1);
    let rows = session
        .query(
            MESSAGES,
            &[&room.0, &int(from), &int(last_seq), &limit, &chars],
        )
        .await?;
    let mut found = PushRoom {
        kind: room_kind(head, 0)?,
        title: get(head, 1)?,
        members: Vec::new(),
        member_count: member_count.unsigned_abs(),
        messages: Vec::with_capacity(rows.len()),
        blocks: Vec::new(),
        to: last_seq,
    };
    let is_cut = rows.len() == HOOK_MESSAGES;
    for row in &rows {
        let seq = uint(row, 0)?;
        let created_at = UnixMs(uint(row, 7)?);
        if created_at > until {
            found.to = seq - 1;
            break;
        }
        if is_cut {
            found.to = seq;
        }
        found.messages.push(PushMessage {
            seq,
            sender: user_id(row, 1)?,
            sender_name: get(row, 2)?,
            kind: message_kind(row, 3)?,
            text: get(row, 4)?,
            mentions: mentions(get(row, 5)?).map_err(Failure::Data)?,
            is_deleted: get(row, 6)?,
            created_at,
        });
    }
    if found.messages.is_empty() {
        return Ok(Some(found));
    }
    let takes_all = found.member_count as usize <= limits::PUSH_MEMBERS_MAX;
    let named = found.messages.iter().flat_map(|message| &message.mentions);
    let named: Vec<Uuid> = named
        .filter_map(|mention| match mention {
            Mention::User(user) => Some(user.0),
            Mention::All(_) => None,
        })
        .collect();
    for row in session
        .query(MEMBERS, &[&room.0, &takes_all, &named, &int(found.to)])
        .await?
    {
        let muted_until: Option<i64> = get(&row, 3)?;
        found.members.push(PushMember {
            user: user_id(&row, 0)?,
            joined_seq: uint(&row, 1)?,
            read_seq: uint(&row, 2)?,
            muted_until: muted_until.map(|until| UnixMs(until.unsigned_abs())),
        });
    }
    if !found.members.is_empty() {
        let mut senders: Vec<Uuid> = (found.messages.iter()).map(|it| it.sender.0).collect();
        senders.sort_unstable();
        senders.dedup();
        let members: Vec<Uuid> = found.members.iter().map(|it| it.user.0).collect();
        for row in session.query(BLOCKS, &[&senders, &members]).await? {
            found.blocks.push((user_id(&row, 0)?, user_id(&row, 1)?));
        }
    }
    Ok(Some(found))
}

fn unread(row: &Row) -> Result<PushUnread, Failure> {
    let number = |column| -> Result<u32, Failure> {
        Ok(u32::try_from(uint(row, column)?).unwrap_or(limits::UNREAD_MAX))
    };
    Ok(PushUnread {
        user: user_id(row, 0)?,
        unread: number(1)?,
        badge: number(2)?,
    })
}

async fn decided(
    session: &Session,
    clock: Option<i64>,
    (room, from, to): (RoomId, Seq, Seq),
    looked_at: UnixMs,
    hooks: &[NewHook],
) -> Result<bool, Failure> {
    let ids: Vec<Uuid> = hooks.iter().map(|hook| hook.id).collect();
    let kinds: Vec<&str> = hooks.iter().map(|hook| hook.kind.name()).collect();
    let users: Vec<Uuid> = hooks.iter().map(|hook| hook.user.0).collect();
    let seqs: Vec<i64> = hooks.iter().map(|hook| int(hook.seq)).collect();
    let datas: Vec<&str> = hooks.iter().map(|hook| &*hook.data).collect();
    let (from, to) = (int(from), int(to));
    let rows = session
        .query(
            DECIDED,
            &[
                &clock,
                &room.0,
                &from,
                &to,
                &ids,
                &kinds,
                &users,
                &seqs,
                &datas,
                &int(looked_at.0),
            ],
        )
        .await?;
    first(&rows)
}

fn kept(row: &Row) -> Result<HookKept, Failure> {
    let (kind, attempts): (&str, i32) = (get(row, 1)?, get(row, 5)?);
    let (state, status): (i16, Option<i32>) = (get(row, 6)?, get(row, 7)?);
    Ok(HookKept {
        id: get(row, 0)?,
        kind: HookKind::of_name(kind)
            .ok_or_else(|| Failure::Data("an unknown webhook".to_owned()))?,
        room: room_id(row, 2)?,
        created_at: UnixMs(uint(row, 3)?),
        data: get(row, 4)?,
        attempts: attempts.unsigned_abs(),
        state: HookState::from_number(state.into())
            .ok_or_else(|| Failure::Data("an unknown state".to_owned()))?,
        status: status.and_then(|status| u16::try_from(status).ok()),
        error: get(row, 8)?,
        is_wanted: get(row, 9)?,
    })
}

async fn attempted(
    session: &Session,
    clock: Option<i64>,
    id: Uuid,
    outcome: &Attempted,
) -> Result<(), Failure> {
    let (number, status, error, again_at) = match outcome {
        Attempted::Delivered { status } => (1, Some(i32::from(*status)), None, None),
        Attempted::Failed {
            status,
            error,
            again_at,
        } => {
            let number = if again_at.is_some() { 0 } else { 2 };
            (number, status.map(i32::from), Some(error), *again_at)
        }
        Attempted::NotWanted => (3, None, None, None),
    };
    let next_at = int(again_at.unwrap_or_default().0);
    session
        .query(
            ATTEMPTED,
            &[&clock, &id, &number, &status, &error, &next_at],
        )
        .await?;
    Ok(())
}

async fn pushed(
    session: &Session,
    after: Option<(RoomId, UserId)>,
    limit: usize,
) -> Result<HookAnswer, Failure> {
    let (room, user) = after.map_or((Uuid::nil(), Uuid::nil()), |it| (it.0.0, it.1.0));
    let rows = session
        .query(PUSHED, &[&room, &user, &int(limit as u64)])
        .await?;
    let (mut over, mut last) = (Vec::new(), None);
    for row in &rows {
        let (room, user) = (room_id(row, 0)?, user_id(row, 1)?);
        if !get::<bool>(row, 3)? {
            let seq = uint(row, 2)?;
            over.push(Pushed { room, user, seq });
        }
        last = Some((room, user));
    }
    let last = last.filter(|_| rows.len() == limit);
    Ok(HookAnswer::Pushed { over, last })
}
