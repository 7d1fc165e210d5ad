//! The rooms of a user: for signing in, and as a list. Many users sign in by one statement.

use super::options::LISTED_MEMBERS_MAX;
use super::own::own_state;
use super::row::{
    Failure, archived, get, message_columns, message_for_user, own_reactions, room_id, room_kind,
    room_view, uint, watermarks,
};
use super::session::Session;
use crate::chat::port::{
    ListRead, Refusal, RoomDescription, RoomForSignIn, RoomsPage, SignIn, SignedIn,
};
use crate::limits;
use crate::protocol::ending::SessionsEnd;
use crate::protocol::view::ListedRoom;
use crate::protocol::{ErrorCode, RoomId, UnixMs, UserId};
use crate::store::common::{Place, cursor, int, parse_cursor, refuse};
use crate::store::erase::mark_of;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Messages after a watermark, of others, not deleted, up to `$max`.
macro_rules! unread {
    ($room:literal, $read_seq:literal, $user:literal, $max:literal) => {
        concat!(
            "(SELECT count(*) FROM (SELECT FROM messages m
                WHERE m.room_id = ",
            $room,
            " AND m.seq > ",
            $read_seq,
            " AND m.kind <> 'system' AND m.sender_id <> ",
            $user,
            " AND m.deleted_at IS NULL LIMIT ",
            $max,
            ") counted)"
        )
    };
}

pub(super) use unread;

/// Per user, in their order: what is known of them, and a row for each of their rooms. `$1`–`$4`: user,
/// name, picture, rooms to describe; `$5` and `$6`: rooms of `resume`, and whose; `$7`: rooms per user;
/// `$8`: members up to which watermarks are told; `$9`: unread counted up to;
/// `$10`: marks by which they were erased.
pub(super) const SIGN_IN: &str = concat!(
    "WITH resume AS MATERIALIZED (
         SELECT r.n, r.room_id, min(r.place) AS place
         FROM unnest($5::integer[], $6::uuid[]) WITH ORDINALITY AS r (n, room_id, place)
         GROUP BY r.n, r.room_id
     ), asked AS MATERIALIZED (
         SELECT a.*, u.version, u.block_version,
             EXISTS (SELECT FROM erased_users e WHERE e.mark = a.mark) AS is_erased, u.user_id IS NULL
             OR u.profile_version = 0 AND (a.name IS NOT NULL AND a.name <> u.name
                 OR a.picture IS NOT NULL AND a.picture IS DISTINCT FROM u.picture) AS must_write,
             chat_ends_json(a.user_id) AS ends
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::integer[], $10::bytea[])
             WITH ORDINALITY AS a (user_id, name, picture, describe_max, mark, n)
         LEFT JOIN chat_users u ON u.user_id = a.user_id
     ), rooms AS MATERIALIZED (
         SELECT a.n, a.user_id, a.describe_max, r.room_id, r.kind, r.last_seq, r.last_ts,
             r.member_count, coalesce(s.read_seq, 0) AS read_seq, s.muted_until, s.archived_seq,
             r.floor_seq, row_number() OVER (
                 PARTITION BY a.n ORDER BY z.place NULLS LAST, r.last_ts DESC, r.room_id) AS place
         FROM asked a
         CROSS JOIN LATERAL (SELECT q.room_id FROM room_participants q
             WHERE q.user_id = a.user_id AND q.left_seq IS NULL LIMIT $7) p
         JOIN chat_rooms r ON r.room_id = p.room_id
         LEFT JOIN message_read_status s ON s.room_id = p.room_id AND s.user_id = a.user_id
         LEFT JOIN resume z ON z.n = a.n AND z.room_id = p.room_id
     )
     SELECT a.n, a.must_write, a.version, r.room_id, r.kind, r.last_seq, r.last_ts, r.read_seq,
         r.place, r.place <= r.describe_max AS described,
         CASE WHEN r.place <= r.describe_max AND r.read_seq < r.last_seq THEN ",
    unread!("r.room_id", "greatest(r.read_seq, r.floor_seq)", "r.user_id", "$9"),
    " ELSE 0 END AS unread,
         CASE WHEN r.place <= r.describe_max AND r.member_count <= $8 THEN (
             SELECT string_agg(uuid_send(p.user_id)
                     || int8send(coalesce(s.shown_read_seq, s.read_seq, 0))
                     || int8send(coalesce(s.shown_delivered_seq, s.delivered_seq, 0)), ''::bytea
                     ORDER BY p.joined_seq, p.user_id)
             FROM room_participants p
             LEFT JOIN message_read_status s ON s.room_id = p.room_id AND s.user_id = p.user_id
             WHERE p.room_id = r.room_id AND p.left_seq IS NULL) END AS watermarks,
         r.muted_until, CASE WHEN r.place <= r.describe_max AND r.archived_seq IS NOT NULL
             THEN chat_archived(r.room_id, r.archived_seq) ELSE 0 END AS archived, a.block_version,
         a.ends, a.is_erased
     FROM asked a LEFT JOIN rooms r ON r.n = a.n
     ORDER BY a.n"
);

/// A room of a user, with what it is sorted by.
struct Found {
    room: RoomForSignIn,
    last_ts: UnixMs,
    place: i64,
}

/// What is known of a user beside the rooms.
#[derive(Clone)]
struct Versions {
    own: u64,
    blocks: u64,
    ends: Vec<SessionsEnd>,
}

/// What connecting users have; `None` if one of them is unknown or is called differently by now, and
/// that is not written yet.
pub(super) async fn sign_in(
    session: &Session,
    users: &[SignIn],
    is_written: bool,
) -> Result<Option<Vec<Option<SignedIn>>>, Failure> {
    let ids: Vec<Uuid> = users.iter().map(|user| user.user.0).collect();
    let names: Vec<Option<String>> = users.iter().map(|user| clean(&user.name)).collect();
    let pictures: Vec<Option<String>> = users.iter().map(|user| clean(&user.picture)).collect();
    let describe: Vec<i32> = users
        .iter()
        .map(|user| i32::try_from(user.describe_max).unwrap_or(i32::MAX))
        .collect();
    let marks: Vec<Vec<u8>> = users
        .iter()
        .map(|user| mark_of(session.hash_key(), user.user).to_vec())
        .collect();
    let (mut whose, mut resume) = (Vec::new(), Vec::new());
    for (n, user) in (1i32..).zip(users) {
        whose.resize(whose.len() + user.resume.len(), n);
        resume.extend(user.resume.iter().map(|room| room.0));
    }
    let rows = session
        .query(
            SIGN_IN,
            &[
                &ids,
                &names,
                &pictures,
                &describe,
                &whose,
                &resume,
                &(limits::ROOMS_PER_USER_MAX as i64),
                &(limits::READY_WATERMARK_MEMBERS_MAX as i32),
                &i64::from(limits::UNREAD_MAX),
                &marks,
            ],
        )
        .await?;
    let mut versions: Vec<Option<Versions>> = vec![None; users.len()];
    let mut erased = vec![false; users.len()];
    let mut rooms: Vec<Vec<Found>> = users.iter().map(|_| Vec::new()).collect();
    for row in &rows {
        let at = usize::try_from(get::<i64>(row, 0)? - 1).unwrap_or(usize::MAX);
        if get::<bool>(row, 16)? {
            if let Some(erased) = erased.get_mut(at) {
                *erased = true;
            }
            continue;
        }
        if !is_written && get::<bool>(row, 1)? {
            return Ok(None);
        }
        let (Some(version), Some(rooms)) = (versions.get_mut(at), rooms.get_mut(at)) else {
            return Err(Failure::Data("an answer to nobody".to_owned()));
        };
        if version.is_none() {
            *version = Some(Versions {
                own: uint(row, 2)?,
                blocks: uint(row, 14)?,
                ends: super::admin::ends_of(users[at].user, get(row, 15)?)?,
            });
        }
        if get::<Option<Uuid>>(row, 3)?.is_none() {
            continue;
        }
        let described = if get::<bool>(row, 9)? {
            let marks: Option<&[u8]> = get(row, 11)?;
            Some(RoomDescription {
                unread: u32::try_from(uint(row, 10)?).unwrap_or(limits::UNREAD_MAX),
                muted_until: get::<Option<i64>>(row, 12)?.map(|it| UnixMs(it.unsigned_abs())),
                archived: archived(get(row, 13)?)?,
                watermarks: watermarks(marks.unwrap_or_default())?,
            })
        } else {
            None
        };
        rooms.push(Found {
            room: RoomForSignIn {
                room: room_id(row, 3)?,
                kind: room_kind(row, 4)?,
                last_seq: uint(row, 5)?,
                read_seq: uint(row, 7)?,
                described,
            },
            last_ts: UnixMs(uint(row, 6)?),
            place: get(row, 8)?,
        });
    }
    let mut signed_in = Vec::with_capacity(users.len());
    for ((version, mut rooms), erased) in versions.into_iter().zip(rooms).zip(erased) {
        if erased {
            signed_in.push(None);
            continue;
        }
        let Some(versions) = version else {
            return Err(Failure::Data("a user is gone".to_owned()));
        };
        // The described ones in their order, then the rest by activity.
        rooms.sort_unstable_by_key(|found| match found.room.described {
            Some(_) => (found.place, Reverse(UnixMs(0)), found.room.room),
            None => (i64::MAX, Reverse(found.last_ts), found.room.room),
        });
        let rooms = rooms.into_iter().map(|found| found.room).collect();
        signed_in.push(Some(SignedIn {
            version: versions.own,
            block_version: versions.blocks,
            ends: versions.ends,
            rooms,
        }));
    }
    Ok(Some(signed_in))
}

/// A name without what the database cannot keep; an empty one says nothing.
fn clean(text: &Option<String>) -> Option<String> {
    let text = text.as_ref().map(|text| text.replace('\0', ""));
    text.filter(|text| !text.is_empty())
}

/// Makes users known, and refreshes what known ones are called.
pub(super) const KNOW: &str = "INSERT INTO chat_users AS u
         (user_id, name, picture, version, room_count, created_at)
     SELECT a.user_id, coalesce(a.name, ''), a.picture, 1, 0,
         coalesce($4, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)
     FROM unnest($1::uuid[], $2::text[], $3::text[], $5::bytea[]) AS a (user_id, name, picture, mark)
     WHERE NOT EXISTS (SELECT FROM erased_users e WHERE e.mark = a.mark)
     ORDER BY a.user_id
     ON CONFLICT (user_id) DO UPDATE SET
         name = CASE WHEN excluded.name = '' THEN u.name ELSE excluded.name END,
         picture = coalesce(excluded.picture, u.picture)
     WHERE u.profile_version = 0";

/// Writes what the tokens of these users say; of a user who is there twice, the last.
pub(super) async fn know<'a>(
    session: &Session,
    now: Option<UnixMs>,
    users: impl Iterator<Item = &'a SignIn>,
) -> Result<(), Failure> {
    let by_id: BTreeMap<UserId, &SignIn> = users.map(|user| (user.user, user)).collect();
    let ids: Vec<Uuid> = by_id.keys().map(|user| user.0).collect();
    let names: Vec<Option<String>> = by_id.values().map(|user| clean(&user.name)).collect();
    let pictures: Vec<Option<String>> = by_id.values().map(|user| clean(&user.picture)).collect();
    let now = now.map(|now| int(now.0));
    let marks: Vec<Vec<u8>> = by_id
        .keys()
        .map(|user| mark_of(session.hash_key(), *user).to_vec())
        .collect();
    session
        .query(KNOW, &[&ids, &names, &pictures, &now, &marks])
        .await?;
    Ok(())
}

/// A page of a user's rooms. `$1`: user; `$2` and `$3`: after this time and room; `$4`: at most;
/// `$5`: members shown; `$6`: unread counted up to; `$7`: archived ones, or the others; `$8`: the time.
pub(super) const LIST: &str = concat!(
    "SELECT r.room_id, r.last_ts, chat_room_view(r.room_id, $5), r.read_seq,
         CASE WHEN r.read_seq < r.last_seq THEN ",
    unread!("r.room_id", "greatest(r.read_seq, r.floor_seq)", "$1", "$6"),
    " ELSE 0 END, r.muted_until, r.archived, ",
    own_reactions!("$1"),
    ", ",
    message_columns!(),
    " FROM (
         SELECT r.room_id, r.last_ts, r.last_seq, r.floor_seq, coalesce(s.read_seq, 0) AS read_seq,
             s.muted_until,
             CASE WHEN s.archived_seq IS NULL THEN 0
                 ELSE chat_archived(r.room_id, s.archived_seq) END AS archived
         FROM room_participants p
         JOIN chat_rooms r ON r.room_id = p.room_id
         LEFT JOIN message_read_status s ON s.room_id = p.room_id AND s.user_id = p.user_id
         WHERE p.user_id = $1 AND p.left_seq IS NULL
             AND (r.last_ts < $2 OR r.last_ts = $2 AND r.room_id > $3)
             AND $7 = CASE WHEN s.archived_seq IS NULL THEN false
                 WHEN coalesce(s.muted_until > $8, false) THEN true
                 ELSE chat_archived(r.room_id, s.archived_seq) = 1 END
         ORDER BY r.last_ts DESC, r.room_id LIMIT $4
     ) r
     LEFT JOIN LATERAL (
         SELECT * FROM messages n
         WHERE n.room_id = r.room_id AND n.seq > r.floor_seq AND n.kind <> 'system'
         ORDER BY n.seq DESC LIMIT 1
     ) m ON true
     ORDER BY r.last_ts DESC, r.room_id"
);

/// A page of a user's rooms, or `bad_request` for a cursor that we did not make.
pub(super) async fn list(
    session: &Session,
    read: &ListRead,
) -> Result<Result<RoomsPage, Refusal>, Failure> {
    // Before every room: later than any time.
    let first: Place = (Reverse(UnixMs(u64::MAX)), RoomId(Uuid::nil()));
    let (Reverse(after_ts), after_room) = match read.cursor.as_deref().map(parse_cursor) {
        None => first,
        Some(Some(place)) => place,
        Some(None) => return Ok(refuse(ErrorCode::BadRequest, "no such cursor")),
    };
    let mut page = RoomsPage {
        rooms: Vec::new(),
        next_cursor: None,
    };
    let rows = session
        .query(
            LIST,
            &[
                &read.user.0,
                &int(after_ts.0),
                &after_room.0,
                &int((read.limit as u64).saturating_add(1)),
                &(LISTED_MEMBERS_MAX as i64),
                &i64::from(limits::UNREAD_MAX),
                &read.archived,
                &int(read.now.0),
            ],
        )
        .await?;
    let mut last: Option<Place> = None;
    for row in rows.iter().take(read.limit) {
        let room = room_id(row, 0)?;
        last = Some((Reverse(UnixMs(uint(row, 1)?)), room));
        let last_message = match get::<Option<i64>>(row, 8)? {
            Some(_) => Some(message_for_user(row, 7)?),
            None => None,
        };
        page.rooms.push(ListedRoom {
            room: room_view(room, get(row, 2)?)?,
            own: own_state(row, 3)?.view(read.now),
            last_message,
        });
    }
    if rows.len() > read.limit {
        page.next_cursor = last.as_ref().map(cursor);
    }
    Ok(Ok(page))
}
