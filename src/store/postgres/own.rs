//! What rooms are to their members alone: receipts, muted, archived, unread. And who the members are, page by
//! page. Each call is one statement.

use super::rooms::unread;
use super::row::{Failure, archived, get, role, uint, user_id};
use super::session::Session;
use crate::chat::port::{
    MembersPage, MembersRead, OwnChange, OwnState, Receipt, ReceiptOutcome, Refusal, SetOwn,
    TypingSample,
};
use crate::limits;
use crate::protocol::view::Member;
use crate::protocol::{ErrorCode, RoomId, UnixMs, UserId};
use crate::store::changes;
use crate::store::common::{int, member_cursor, parse_member_cursor, refuse};
use uuid::Uuid;

/// Advances watermarks. Rows that somebody else has locked are passed over, so it waits for nobody, and
/// nobody in a circle. Per receipt of a member: whether it was locked, and what it advanced.
pub(super) const WRITE_RECEIPTS: &str = "WITH asked AS MATERIALIZED (
         SELECT a.n, a.room_id, a.user_id, least(a.read_seq, r.last_seq) AS read_seq,
             least(greatest(a.delivered_seq, a.read_seq), r.last_seq) AS delivered_seq
         FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[])
             WITH ORDINALITY AS a (room_id, user_id, read_seq, delivered_seq, n)
         JOIN room_participants p
             ON p.room_id = a.room_id AND p.user_id = a.user_id AND p.left_seq IS NULL
         JOIN chat_rooms r ON r.room_id = a.room_id
     ), locked AS MATERIALIZED (
         SELECT a.n, s.read_seq FROM asked a
         JOIN message_read_status s ON s.room_id = a.room_id AND s.user_id = a.user_id
         ORDER BY a.n FOR NO KEY UPDATE OF s SKIP LOCKED
     ), written AS (
         UPDATE message_read_status s SET read_seq = greatest(s.read_seq, a.read_seq),
             delivered_seq = greatest(s.delivered_seq, a.delivered_seq)
         FROM asked a JOIN locked l ON l.n = a.n
         WHERE s.room_id = a.room_id AND s.user_id = a.user_id
             AND (s.read_seq < a.read_seq OR s.delivered_seq < a.delivered_seq)
         RETURNING a.n, s.read_seq, s.delivered_seq, s.read_seq > l.read_seq AS is_read
     )
     SELECT a.n, l.n IS NULL, w.read_seq, w.delivered_seq, w.is_read
     FROM asked a LEFT JOIN locked l ON l.n = a.n LEFT JOIN written w ON w.n = a.n";

/// Writes a batch of receipts.
pub(super) async fn write_receipts(
    session: &Session,
    receipts: &[Receipt],
) -> Result<Vec<ReceiptOutcome>, Failure> {
    let rooms: Vec<Uuid> = receipts.iter().map(|receipt| receipt.room.0).collect();
    let users: Vec<Uuid> = receipts.iter().map(|receipt| receipt.user.0).collect();
    let read: Vec<i64> = receipts.iter().map(|it| int(it.read_seq)).collect();
    let delivered: Vec<i64> = receipts.iter().map(|it| int(it.delivered_seq)).collect();
    let rows = session
        .query(WRITE_RECEIPTS, &[&rooms, &users, &read, &delivered])
        .await?;
    let mut outcomes = vec![ReceiptOutcome::NotAMember; receipts.len()];
    for row in &rows {
        let at = usize::try_from(get::<i64>(row, 0)? - 1).unwrap_or(usize::MAX);
        let Some(outcome) = outcomes.get_mut(at) else {
            return Err(Failure::Data("an answer to no receipt".to_owned()));
        };
        *outcome = if get(row, 1)? {
            ReceiptOutcome::Busy
        } else if get::<Option<i64>>(row, 2)?.is_none() {
            ReceiptOutcome::Known
        } else {
            ReceiptOutcome::Advanced {
                read_seq: uint(row, 2)?,
                delivered_seq: uint(row, 3)?,
                is_read: get(row, 4)?,
            }
        };
    }
    Ok(outcomes)
}

/// Notes who is typing, and forgets up to a thousand who were. Rows that somebody else has locked are passed
/// over where they are forgotten, and locked in their order where they are written.
pub(super) const SAMPLE_TYPING: &str = "WITH gone AS (
         DELETE FROM typing_indicators t USING (
             SELECT o.room_id, o.user_id FROM typing_indicators o
             WHERE o.expires_at <= $4 AND NOT (o.room_id = ANY ($1::uuid[]))
             LIMIT 1000 FOR UPDATE SKIP LOCKED
         ) o
         WHERE t.room_id = o.room_id AND t.user_id = o.user_id
     )
     INSERT INTO typing_indicators AS t (room_id, user_id, expires_at)
     SELECT a.room_id, a.user_id, a.expires_at
     FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS a (room_id, user_id, expires_at)
     ORDER BY a.room_id, a.user_id
     ON CONFLICT (room_id, user_id) DO UPDATE
     SET expires_at = greatest(t.expires_at, excluded.expires_at)";

/// Notes who is typing.
pub(super) async fn sample_typing(
    session: &Session,
    sample: &[TypingSample],
) -> Result<(), Failure> {
    let rooms: Vec<Uuid> = sample.iter().map(|one| one.room.0).collect();
    let users: Vec<Uuid> = sample.iter().map(|one| one.user.0).collect();
    let until: Vec<i64> = sample.iter().map(|one| int(one.expires_at.0)).collect();
    let first = until.iter().min().copied().unwrap_or_default();
    let over = first - limits::TYPING_EXPIRES_MS as i64;
    session
        .query(SAMPLE_TYPING, &[&rooms, &users, &until, &over])
        .await?;
    Ok(())
}

pub(super) const SET_OWN: &str = "SELECT chat_set_own($1, $2, $3, $4, $5)";

/// Changes what a room is to one of its members.
pub(super) async fn set_own(
    session: &Session,
    set: &SetOwn,
) -> Result<Result<bool, Refusal>, Failure> {
    let (archive, until) = match set.change {
        OwnChange::Mute(until) => (None, until.map(|until| int(until.0))),
        OwnChange::Archive(archive) => (Some(archive), None),
    };
    let now = int(set.now.0);
    let rows = session
        .query(SET_OWN, &[&now, &set.room.0, &set.user.0, &archive, &until])
        .await?;
    let Some(row) = rows.first() else {
        return Err(Failure::Data("no outcome".to_owned()));
    };
    match get::<i32>(row, 0)? {
        0 => Ok(Ok(false)),
        1 => Ok(Ok(true)),
        15 => Ok(Err(changes::not_a_member())),
        _ => Err(Failure::Data("an unknown outcome".to_owned())),
    }
}

pub(super) const OWN_STATES: &str = concat!(
    "SELECT p.user_id IS NOT NULL, coalesce(s.read_seq, 0),
         CASE WHEN p.user_id IS NOT NULL AND coalesce(s.read_seq, 0) < r.last_seq THEN ",
    unread!(
        "a.room_id",
        "greatest(s.read_seq, r.floor_seq)",
        "a.user_id",
        "$3"
    ),
    " ELSE 0 END, s.muted_until, CASE WHEN s.archived_seq IS NULL THEN 0
         ELSE chat_archived(a.room_id, s.archived_seq) END
     FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS a (room_id, user_id, n)
     LEFT JOIN chat_rooms r ON r.room_id = a.room_id
     LEFT JOIN room_participants p
         ON p.room_id = a.room_id AND p.user_id = a.user_id AND p.left_seq IS NULL
     LEFT JOIN message_read_status s ON s.room_id = a.room_id AND s.user_id = a.user_id
     ORDER BY a.n"
);

/// What rooms are to members.
pub(super) async fn own_states(
    session: &Session,
    questions: &[(RoomId, UserId)],
) -> Result<Vec<Option<OwnState>>, Failure> {
    let rooms: Vec<Uuid> = questions.iter().map(|(room, _)| room.0).collect();
    let users: Vec<Uuid> = questions.iter().map(|(_, user)| user.0).collect();
    let unread_max = i64::from(limits::UNREAD_MAX);
    let rows = session
        .query(OWN_STATES, &[&rooms, &users, &unread_max])
        .await?;
    let state = |row| match get::<bool>(row, 0)? {
        true => own_state(row, 1).map(Some),
        false => Ok(None),
    };
    rows.iter().map(state).collect()
}

/// What a room is to a member, from this column on: what is read, unread, muted until, archived.
pub(super) fn own_state(row: &tokio_postgres::Row, first: usize) -> Result<OwnState, Failure> {
    let muted_until: Option<i64> = get(row, first + 2)?;
    Ok(OwnState {
        read_seq: uint(row, first)?,
        unread: u32::try_from(uint(row, first + 1)?).unwrap_or(limits::UNREAD_MAX),
        muted_until: muted_until.map(|until| UnixMs(until.unsigned_abs())),
        archived: archived(get(row, first + 3)?)?,
    })
}

/// A page of members after a place. Nothing: who asks is none; one row without a member: the page is empty.
pub(super) const LIST_MEMBERS: &str =
    "SELECT m.user_id, u.name, m.role, coalesce(s.shown_read_seq, s.read_seq, 0),
         coalesce(s.shown_delivered_seq, s.delivered_seq, 0), m.joined_seq
     FROM room_participants o
     LEFT JOIN LATERAL (
         SELECT q.user_id, q.role, q.joined_seq FROM room_participants q
         WHERE q.room_id = $1 AND q.left_seq IS NULL AND (q.joined_seq, q.user_id) > ($3, $4)
         ORDER BY q.joined_seq, q.user_id LIMIT $5
     ) m ON true
     LEFT JOIN chat_users u ON u.user_id = m.user_id
     LEFT JOIN message_read_status s ON s.room_id = $1 AND s.user_id = m.user_id
     WHERE o.room_id = $1 AND o.user_id = $2 AND o.left_seq IS NULL
     ORDER BY m.joined_seq, m.user_id";

/// A page of a room's members.
pub(super) async fn list_members(
    session: &Session,
    read: &MembersRead,
) -> Result<Result<MembersPage, Refusal>, Failure> {
    let (after_seq, after_user) = match read.cursor.as_deref().map(parse_member_cursor) {
        None => (0, UserId(Uuid::nil())),
        Some(Some(place)) => place,
        Some(None) => return Ok(refuse(ErrorCode::BadRequest, "no such cursor")),
    };
    let limit = int((read.limit as u64).saturating_add(1));
    let rows = session
        .query(
            LIST_MEMBERS,
            &[
                &read.room.0,
                &read.user.0,
                &int(after_seq),
                &after_user.0,
                &limit,
            ],
        )
        .await?;
    if rows.is_empty() {
        return Ok(Err(changes::not_a_member()));
    }
    let mut page = MembersPage {
        members: Vec::new(),
        next_cursor: None,
    };
    for row in rows.iter().take(read.limit) {
        if get::<Option<Uuid>>(row, 0)?.is_none() {
            break;
        }
        page.members.push(Member {
            user_id: user_id(row, 0)?,
            name: get(row, 1)?,
            role: role(row, 2)?,
            read_seq: uint(row, 3)?,
            delivered_seq: uint(row, 4)?,
        });
        if page.members.len() == read.limit && rows.len() > read.limit {
            page.next_cursor = Some(member_cursor(uint(row, 5)?, user_id(row, 0)?));
        }
    }
    Ok(Ok(page))
}
