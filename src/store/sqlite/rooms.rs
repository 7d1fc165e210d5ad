//! The rooms of a user: for signing in, and as a list.

use super::erase::{is_erased, refuses};
use super::history::own_reactions;
use super::marks::Marks;
use super::options::LISTED_MEMBERS_MAX;
use super::own::archived;
use super::read::{each_member, newest, room_view};
use super::row::{Failure, int, message, message_columns, refuse, room_id, room_kind, uint};
use crate::chat::port::{
    ListRead, OwnState, Refusal, RoomDescription, RoomForSignIn, RoomsPage, SignIn, SignedIn,
};
use crate::limits;
use crate::protocol::view::{ListedRoom, Message, RoomKind, Watermark};
use crate::protocol::{ErrorCode, RoomId, Seq, UnixMs, UserId};
use crate::store::common::{Place, cursor, parse_cursor};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::{BTreeMap, BTreeSet};

/// Whether this user is unknown, or the token says another name or picture than is kept and the Main App has not
/// told them.
pub(super) fn must_write(connection: &Connection, sign_in: &SignIn) -> Result<bool, Failure> {
    let known: Option<(String, Option<String>, bool)> = connection
        .prepare_cached(
            "SELECT name, picture, profile_version > 0 FROM chat_users WHERE user_id = ?1",
        )?
        .query_row([sign_in.user.0.as_bytes()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    Ok(match known {
        Some((name, picture, is_told)) => {
            !is_told
                && (sign_in.name.as_ref().is_some_and(|new| *new != name)
                    || sign_in.picture.is_some() && sign_in.picture != picture)
        }
        None => !is_erased(connection, sign_in.user)?,
    })
}

/// Creates an unknown user, and refreshes what a known one is called, unless the Main App has told it.
pub(super) fn write_user(
    connection: &Connection,
    now: UnixMs,
    sign_in: &SignIn,
) -> Result<(), Failure> {
    if refuses(connection, sign_in)? {
        return Ok(());
    }
    connection
        .prepare_cached(
            "INSERT INTO chat_users (user_id, name, picture, version, room_count, created_at)
             VALUES (?1, coalesce(?2, ''), ?3, 1, 0, ?4)
             ON CONFLICT DO UPDATE SET name = coalesce(?2, name), picture = coalesce(?3, picture)
             WHERE profile_version = 0",
        )?
        .execute(params![
            sign_in.user.0.as_bytes(),
            sign_in.name,
            sign_in.picture,
            int(now.0)
        ])?;
    Ok(())
}

/// What a connecting user, who is known by now, has; `None`: they were erased.
pub(super) fn sign_in(
    connection: &Connection,
    marks: &Marks,
    sign_in: &SignIn,
) -> Result<Option<SignedIn>, Failure> {
    let mut statement = connection
        .prepare_cached("SELECT version, block_version FROM chat_users WHERE user_id = ?1")?;
    let mut rows = statement.query([sign_in.user.0.as_bytes()])?;
    let (version, block_version) = match rows.next()? {
        Some(row) => (uint(row, 0)?, uint(row, 1)?),
        None if is_erased(connection, sign_in.user)? => return Ok(None),
        None => return Err(Failure::Data("a user is gone".to_owned())),
    };
    let by_activity = rooms_by_activity(connection, marks, sign_in.user)?;
    let index: BTreeMap<RoomId, usize> = by_activity
        .iter()
        .enumerate()
        .map(|(at, room)| (room.room, at))
        .collect();
    let mut described = BTreeSet::new();
    let resume = sign_in.resume.iter().filter_map(|room| index.get(room));
    let mut order: Vec<usize> = Vec::with_capacity(by_activity.len());
    for at in resume.copied().chain(0..by_activity.len()) {
        if described.len() >= sign_in.describe_max {
            break;
        }
        if described.insert(at) {
            order.push(at);
        }
    }
    let described_count = order.len();
    order.extend((0..by_activity.len()).filter(|at| !described.contains(at)));
    let mut rooms = Vec::with_capacity(order.len());
    for (place, at) in order.into_iter().enumerate() {
        let room = &by_activity[at];
        let described = if place < described_count {
            Some(describe(connection, marks, sign_in.user, room)?)
        } else {
            None
        };
        rooms.push(RoomForSignIn {
            room: room.room,
            kind: room.kind,
            last_seq: room.last_seq,
            read_seq: room.read_seq,
            described,
        });
    }
    Ok(Some(SignedIn {
        version,
        block_version,
        ends: super::intake::ends_of(connection, sign_in.user)?,
        rooms,
    }))
}

/// A room of a user, as they are sorted by.
struct UserRoom {
    room: RoomId,
    kind: RoomKind,
    last_seq: Seq,
    last_ts: UnixMs,
    member_count: usize,
    read_seq: Seq,
    muted_until: Option<UnixMs>,
    archived_seq: Option<Seq>,
    floor: Seq,
}

/// All rooms of a user, last activity first. Sorted here: an index by activity would have to be
/// written by every send, once per member.
fn rooms_by_activity(
    connection: &Connection,
    marks: &Marks,
    user: UserId,
) -> Result<Vec<UserRoom>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT r.room_id, r.kind, r.member_count, coalesce(s.read_seq, 0), s.muted_until,
             s.archived_seq, r.floor_seq
         FROM room_participants p
         CROSS JOIN chat_rooms r ON r.room_id = p.room_id
         LEFT JOIN message_read_status s ON s.room_id = p.room_id AND s.user_id = p.user_id
         WHERE p.user_id = ?1 AND p.left_seq IS NULL LIMIT ?2",
    )?;
    let mut rows = statement.query(params![
        user.0.as_bytes(),
        int(limits::ROOMS_PER_USER_MAX as u64)
    ])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let room = room_id(row, 0)?;
        let (last_seq, last_ts) = newest(connection, room)?;
        found.push(UserRoom {
            room,
            kind: room_kind(row, 1)?,
            last_seq,
            last_ts,
            member_count: uint(row, 2)? as usize,
            read_seq: marks.mark(room, user, uint(row, 3)?),
            muted_until: row
                .get::<_, Option<i64>>(4)?
                .map(|it| UnixMs(it.unsigned_abs())),
            archived_seq: row.get::<_, Option<i64>>(5)?.map(i64::unsigned_abs),
            floor: uint(row, 6)?,
        });
    }
    found.sort_unstable_by_key(UserRoom::place);
    Ok(found)
}

impl UserRoom {
    fn place(&self) -> Place {
        (std::cmp::Reverse(self.last_ts), self.room)
    }

    /// Nothing up to here is unread: it was read, or dropped.
    fn not_unread(&self) -> Seq {
        self.read_seq.max(self.floor)
    }
}

fn describe(
    connection: &Connection,
    marks: &Marks,
    user: UserId,
    room: &UserRoom,
) -> Result<RoomDescription, Failure> {
    let mut watermarks = Vec::new();
    if room.member_count <= limits::READY_WATERMARK_MEMBERS_MAX {
        watermarks.reserve_exact(room.member_count);
        each_member(
            connection,
            marks,
            room.room,
            None,
            room.member_count,
            |_, member| {
                watermarks.push(Watermark {
                    user_id: member.user_id,
                    read_seq: member.read_seq,
                    delivered_seq: member.delivered_seq,
                });
            },
        )?;
    }
    Ok(RoomDescription {
        unread: unread(
            connection,
            user,
            room.room,
            room.not_unread(),
            room.last_seq,
        )?,
        muted_until: room.muted_until,
        archived: archived(connection, room.room, room.archived_seq)?,
        watermarks,
    })
}

/// Messages after a watermark, of others, not deleted.
pub(super) fn unread(
    connection: &Connection,
    user: UserId,
    room: RoomId,
    read_seq: Seq,
    last_seq: Seq,
) -> Result<u32, Failure> {
    if read_seq >= last_seq {
        return Ok(0);
    }
    Ok(connection
        .prepare_cached(
            "SELECT count(*) FROM (
                 SELECT 1 FROM messages
                 WHERE room_id = ?1 AND seq > ?2 AND kind <> 'system' AND sender_id <> ?3
                     AND deleted_at IS NULL
                 LIMIT ?4)",
        )?
        .query_row(
            params![
                room.0.as_bytes(),
                int(read_seq),
                user.0.as_bytes(),
                limits::UNREAD_MAX
            ],
            |row| row.get(0),
        )?)
}

/// A page of a user's rooms, or `bad_request` for a cursor that we did not make.
pub(super) fn list(
    connection: &Connection,
    marks: &Marks,
    read: &ListRead,
) -> Result<Result<RoomsPage, Refusal>, Failure> {
    let after = match read.cursor.as_deref().map(parse_cursor) {
        None => None,
        Some(Some(place)) => Some(place),
        Some(None) => return Ok(refuse(ErrorCode::BadRequest, "no such cursor")),
    };
    let mut page = RoomsPage {
        rooms: Vec::new(),
        next_cursor: None,
    };
    let rooms = rooms_by_activity(connection, marks, read.user)?;
    let begin = after.map_or(0, |after| {
        rooms.partition_point(|room| room.place() <= after)
    });
    let mut last: Option<&UserRoom> = None;
    for room in &rooms[begin..] {
        let archived = archived(connection, room.room, room.archived_seq)?;
        if archived.is_now(room.muted_until, read.now) != read.archived {
            continue;
        }
        if page.rooms.len() >= read.limit {
            page.next_cursor = last.map(|last| cursor(&last.place()));
            break;
        }
        last = Some(room);
        let own = OwnState {
            read_seq: room.read_seq,
            unread: unread(
                connection,
                read.user,
                room.room,
                room.not_unread(),
                room.last_seq,
            )?,
            muted_until: room.muted_until,
            archived,
        };
        let Some(view) = room_view(connection, marks, room.room, LISTED_MEMBERS_MAX)? else {
            return Err(Failure::Data("a room is gone".to_owned()));
        };
        page.rooms.push(ListedRoom {
            room: view,
            own: own.view(read.now),
            last_message: last_message(connection, room, read.user)?,
        });
    }
    Ok(Ok(page))
}

/// The newest message that a person wrote, if it was not dropped.
fn last_message(
    connection: &Connection,
    room: &UserRoom,
    user: UserId,
) -> Result<Option<Message>, Failure> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        message_columns!(),
        " FROM messages WHERE room_id = ?1 AND seq > ?2 AND kind <> 'system'
         ORDER BY seq DESC LIMIT 1"
    ))?;
    let mut rows = statement.query(params![room.room.0.as_bytes(), int(room.floor)])?;
    match rows.next()? {
        Some(row) => {
            let mut message = message(row)?;
            own_reactions(connection, room.room, user, &mut message)?;
            Ok(Some(message))
        }
        None => Ok(None),
    }
}
