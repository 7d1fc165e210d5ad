//! Reads of rooms: for their home shard, for those who look at one, and as they were opened.

use super::marks::Marks;
use super::row::{
    Failure, created_columns, event, int, message_columns, role, room_id, room_kind, uint,
    uint_or_null, user_id,
};
use crate::chat::port::admin::{AdminAnswer, AdminCall};
use crate::chat::port::{
    EventsPage, EventsRead, OpenedRoom, Refusal, RoomForUser, StoreAnswer, StoreCall,
};
use crate::limits;
use crate::protocol::event::RoomEventBody;
use crate::protocol::view::{Member, Pin, Room};
use crate::protocol::{ErrorCode, RoomId, Seq, UnixMs, UserId};
use rusqlite::{Connection, params};
use std::collections::BTreeSet;

/// One snapshot, from the first read to the drop.
struct Snapshot<'a>(&'a Connection);

impl Snapshot<'_> {
    fn begin(connection: &Connection) -> Result<Snapshot<'_>, Failure> {
        connection.prepare_cached("BEGIN")?.execute([])?;
        Ok(Snapshot(connection))
    }
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        let ended = self
            .0
            .prepare_cached("COMMIT")
            .and_then(|mut commit| commit.execute([]));
        if let Err(error) = ended {
            // An open snapshot would hold back the log for ever.
            tracing::warn!(%error, "ending a read failed");
            if let Err(error) = self.0.execute_batch("ROLLBACK") {
                tracing::error!(%error, "ending a read failed twice");
            }
        }
    }
}

/// Answers a call that writes nothing, on one snapshot. `None`: the call is a write, or a sign-in
/// of a user who is unknown or is called differently by now, unless that `is_written` already.
pub(super) fn answer(
    connection: &Connection,
    marks: &mut Marks,
    call: &StoreCall,
    is_written: bool,
) -> Result<Option<StoreAnswer>, Failure> {
    let _snapshot = Snapshot::begin(connection)?;
    let answer = match call {
        StoreCall::Admin(call) if call.writes() => return Ok(None),
        StoreCall::Intake(call) if call.writes() => return Ok(None),
        StoreCall::Uploads(call) if call.writes() => return Ok(None),
        StoreCall::Uploads(call) => {
            StoreAnswer::Uploads(Box::new(super::uploads::read(connection, call)?))
        }
        StoreCall::Hooks(call) if call.writes() => return Ok(None),
        StoreCall::Hooks(call) => {
            marks.refresh(connection)?;
            StoreAnswer::Hooks(Box::new(super::hooks::read(connection, marks, call)?))
        }
        StoreCall::Intake(call) => {
            StoreAnswer::Intake(Box::new(super::intake::read(connection, call)?))
        }
        StoreCall::Admin(call) => StoreAnswer::Admin(Box::new(match &**call {
            AdminCall::Export(read) => {
                marks.refresh(connection)?;
                AdminAnswer::Export(super::export::read(connection, marks, read)?)
            }
            call => super::admin::read(connection, call)?,
        })),
        StoreCall::Commit(_)
        | StoreCall::TryCommit(_)
        | StoreCall::WriteReceipts(_)
        | StoreCall::SampleTyping(_)
        | StoreCall::SetOwn(_)
        | StoreCall::Upkeep(_)
        | StoreCall::RenewEpoch(_) => return Ok(None),
        StoreCall::SignIn(users) => {
            for sign_in in users {
                if !is_written && super::rooms::must_write(connection, sign_in)? {
                    return Ok(None);
                }
            }
            marks.refresh(connection)?;
            let signed_in = users
                .iter()
                .map(|sign_in| super::rooms::sign_in(connection, marks, sign_in));
            StoreAnswer::SignIn(signed_in.collect::<Result<_, Failure>>()?)
        }
        StoreCall::OpenRooms(rooms) => {
            let opened = rooms.iter().map(|room| open_room(connection, *room));
            StoreAnswer::OpenRooms(opened.collect::<Result<_, Failure>>()?)
        }
        StoreCall::Heads { rooms, users } => StoreAnswer::Heads {
            rooms: {
                let found = rooms
                    .iter()
                    .map(|room| Ok((*room, newest(connection, *room)?.0)));
                let mut found = found.collect::<Result<Vec<_>, Failure>>()?;
                found.retain(|(_, last_seq)| *last_seq > 0);
                found
            },
            users: versions(connection, users)?,
            severed: super::blocks::severed_rooms(connection, rooms)?,
            floors: super::retain::floors(connection, rooms)?,
        },
        StoreCall::Events(read) => StoreAnswer::Events(events(connection, read)?),
        StoreCall::History(read) => {
            StoreAnswer::History(super::history::history(connection, read)?)
        }
        StoreCall::ListRooms(read) => {
            marks.refresh(connection)?;
            StoreAnswer::ListRooms(super::rooms::list(connection, marks, read)?)
        }
        StoreCall::GetRooms(questions) => {
            marks.refresh(connection)?;
            let rooms = questions
                .iter()
                .map(|(room, user)| room_for_user(connection, marks, *room, *user));
            StoreAnswer::GetRooms(rooms.collect::<Result<_, Failure>>()?)
        }
        StoreCall::ListMembers(read) => {
            marks.refresh(connection)?;
            StoreAnswer::ListMembers(super::own::list_members(connection, marks, read)?)
        }
        StoreCall::OwnStates(questions) => {
            marks.refresh(connection)?;
            let states = questions
                .iter()
                .map(|(room, user)| super::own::own_state(connection, marks, *room, *user));
            StoreAnswer::OwnStates(states.collect::<Result<_, Failure>>()?)
        }
        StoreCall::WhoShares { user, others } => {
            StoreAnswer::WhoShares(who_shares(connection, *user, others)?)
        }
        StoreCall::Search(read) => StoreAnswer::Search(super::search::search(connection, read)?),
        StoreCall::Blocks(read) => StoreAnswer::Blocks(super::blocks::list(connection, read)?),
    };
    Ok(Some(answer))
}

fn versions(connection: &Connection, users: &[UserId]) -> Result<Vec<(UserId, u64)>, Failure> {
    let mut statement =
        connection.prepare_cached("SELECT version FROM chat_users WHERE user_id = ?1")?;
    let mut found = Vec::with_capacity(users.len());
    for user in users {
        let mut rows = statement.query([user.0.as_bytes()])?;
        if let Some(row) = rows.next()? {
            found.push((*user, uint(row, 0)?));
        }
    }
    Ok(found)
}

/// Those of `others` who are in a room with this user, without a block between the two. The user's rooms are read once; each other one's up
/// to the first in common.
fn who_shares(
    connection: &Connection,
    user: UserId,
    others: &[UserId],
) -> Result<Vec<UserId>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT room_id FROM room_participants WHERE user_id = ?1 AND left_seq IS NULL",
    )?;
    let mut own = BTreeSet::new();
    let mut rows = statement.query([user.0.as_bytes()])?;
    while let Some(row) = rows.next()? {
        own.insert(room_id(row, 0)?);
    }
    drop(rows);
    let mut found = Vec::with_capacity(others.len());
    for other in others {
        let mut rows = statement.query([other.0.as_bytes()])?;
        while let Some(row) = rows.next()? {
            if own.contains(&room_id(row, 0)?) {
                if !super::blocks::is_severed(connection, user, &[*other])? {
                    found.push(*other);
                }
                break;
            }
        }
    }
    Ok(found)
}

fn open_room(connection: &Connection, room: RoomId) -> Result<Option<OpenedRoom>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT kind, member_count, severed, floor_seq FROM chat_rooms WHERE room_id = ?1",
    )?;
    let mut rows = statement.query([room.0.as_bytes()])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let mut opened = OpenedRoom {
        kind: room_kind(row, 0)?,
        severed: row.get(2)?,
        floor: uint(row, 3)?,
        last_seq: newest(connection, room)?.0,
        members: Vec::with_capacity((uint(row, 1)? as usize).min(limits::MEMBERS_MAX)),
    };
    let mut statement = connection.prepare_cached(
        "SELECT user_id, role FROM room_participants WHERE room_id = ?1 AND left_seq IS NULL",
    )?;
    let mut rows = statement.query([room.0.as_bytes()])?;
    while let Some(row) = rows.next()? {
        opened.members.push((user_id(row, 0)?, role(row, 1)?));
    }
    Ok(Some(opened))
}

/// `seq` and time of the newest event of a room; zeros if there is no such room. Every durable event
/// is a row of `messages` or of `room_events`, so the room's row need not be written by a send.
pub(super) fn newest(connection: &Connection, room: RoomId) -> Result<(Seq, UnixMs), Failure> {
    let last = |sql: &str| -> Result<(Seq, UnixMs), Failure> {
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query([room.0.as_bytes()])?;
        match rows.next()? {
            Some(row) => Ok((uint(row, 0)?, UnixMs(uint(row, 1)?))),
            None => Ok((0, UnixMs(0))),
        }
    };
    let created =
        last("SELECT seq, created_at FROM messages WHERE room_id = ?1 ORDER BY seq DESC LIMIT 1")?;
    let changed =
        last("SELECT seq, ts FROM room_events WHERE room_id = ?1 ORDER BY seq DESC LIMIT 1")?;
    Ok(created.max(changed))
}

/// The events of a stretch: two stretches, each in order by its primary key, merged. Of the messages
/// that were changed only edits show one, in its current state.
macro_rules! events {
    ($order:literal) => {
        concat!(
            "SELECT ",
            created_columns!(),
            " FROM messages WHERE room_id = ?1 AND seq > ?2 AND seq <= ?3
             UNION ALL
             SELECT m.seq, m.sender_id, m.kind, m.changed_seq, m.revision, m.created_at, m.edited_at,
                 m.deleted_at, m.reply_to_seq, m.client_msg_id, m.event, m.text, m.mentions, m.reactions,
                 m.attachments, e.seq AS at, e.ts, e.type, e.message_seq, e.actor_id, e.data
             FROM room_events e
             LEFT JOIN messages m ON e.type = 'message.updated' AND m.room_id = e.room_id
                 AND m.seq = e.message_seq
             WHERE e.room_id = ?1 AND e.seq > ?2 AND e.seq <= ?3
             ORDER BY at ",
            $order
        )
    };
}

/// The durable events of a stretch, rebuilt from the messages they created and what is kept of
/// changes.
fn events(connection: &Connection, read: &EventsRead) -> Result<EventsPage, Failure> {
    let floor = super::retain::floor(connection, read.room)?;
    events_above(connection, read, floor)
}

/// The same where the floor is known, or does not matter.
fn events_above(
    connection: &Connection,
    read: &EventsRead,
    floor: Seq,
) -> Result<EventsPage, Failure> {
    let mut page = EventsPage {
        events: Vec::new(),
        last_seq: newest(connection, read.room)?.0,
        floor,
    };
    let mut statement = connection.prepare_cached(if read.newest {
        events!("DESC")
    } else {
        events!("ASC")
    })?;
    let mut rows = statement.query(params![
        read.room.0.as_bytes(),
        int(read.after.max(floor)),
        int(read.to)
    ])?;
    let mut bytes = 0;
    while page.events.len() < read.events_max {
        let Some(row) = rows.next()? else {
            break;
        };
        let event = event(read.room, row)?;
        let text = event
            .body
            .message()
            .and_then(|message| message.text.as_ref());
        bytes += text.map_or(0, String::len);
        if bytes > read.bytes_max && !page.events.is_empty() {
            break;
        }
        page.events.push(event);
    }
    if read.newest {
        page.events.reverse();
    }
    Ok(page)
}

/// Whether this user is a member.
pub(super) fn is_member(
    connection: &Connection,
    room: RoomId,
    user: UserId,
) -> Result<bool, Failure> {
    Ok(connection
        .prepare_cached(
            "SELECT 1 FROM room_participants
             WHERE room_id = ?1 AND user_id = ?2 AND left_seq IS NULL",
        )?
        .exists([room.0.as_bytes(), user.0.as_bytes()])?)
}

fn room_for_user(
    connection: &Connection,
    marks: &Marks,
    room: RoomId,
    user: UserId,
) -> Result<Result<RoomForUser, Refusal>, Failure> {
    let Some(own) = super::own::own_state(connection, marks, room, user)? else {
        return Ok(super::row::refuse(
            ErrorCode::Forbidden,
            "not a member of this room",
        ));
    };
    match whole_room(connection, marks, room)? {
        Some(room) => Ok(Ok(RoomForUser { room, own })),
        None => Err(Failure::Data("a room is gone".to_owned())),
    }
}

/// The pinned messages of a room, the last pinned first.
fn pins(connection: &Connection, room: RoomId) -> Result<Vec<Pin>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT message_seq, pinned_by, pinned_at FROM room_pins WHERE room_id = ?1
         ORDER BY pinned_seq DESC",
    )?;
    let mut rows = statement.query([room.0.as_bytes()])?;
    let mut pins = Vec::new();
    while let Some(row) = rows.next()? {
        pins.push(Pin {
            message_seq: uint(row, 0)?,
            pinned_by: user_id(row, 1)?,
            pinned_at: UnixMs(uint(row, 2)?),
        });
    }
    Ok(pins)
}

/// A room with all that is shown of one.
pub(super) fn whole_room(
    connection: &Connection,
    marks: &Marks,
    room: RoomId,
) -> Result<Option<Room>, Failure> {
    let view = room_view(connection, marks, room, limits::ROOM_MEMBERS_SHOWN_MAX)?;
    let Some(mut view) = view else {
        return Ok(None);
    };
    view.pins = Some(pins(connection, room)?);
    Ok(Some(view))
}

/// A room with its longest-serving members.
pub(super) fn room_view(
    connection: &Connection,
    marks: &Marks,
    room: RoomId,
    members_max: usize,
) -> Result<Option<Room>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT kind, title, created_at, member_count, picture FROM chat_rooms
         WHERE room_id = ?1",
    )?;
    let mut rows = statement.query([room.0.as_bytes()])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let mut view = Room {
        room_id: room,
        kind: room_kind(row, 0)?,
        title: row.get(1)?,
        picture: row.get(4)?,
        created_at: UnixMs(uint(row, 2)?),
        last_seq: newest(connection, room)?.0,
        member_count: row.get(3)?,
        members: Vec::new(),
        pins: None,
    };
    each_member(connection, marks, room, None, members_max, |_, member| {
        view.members.push(member);
    })?;
    Ok(Some(view))
}

/// The members of a room after this place, longest-serving first, each with the event by which they joined.
pub(super) fn each_member(
    connection: &Connection,
    marks: &Marks,
    room: RoomId,
    after: Option<(Seq, UserId)>,
    members_max: usize,
    mut each: impl FnMut(Seq, Member),
) -> Result<(), Failure> {
    let (after_seq, after_user) = after.unwrap_or((0, UserId(uuid::Uuid::nil())));
    let mut statement = connection.prepare_cached(
        "SELECT p.user_id, u.name, p.role, coalesce(s.read_seq, 0), coalesce(s.delivered_seq, 0),
             p.joined_seq, s.shown_read_seq, s.shown_delivered_seq
         FROM room_participants p
         CROSS JOIN chat_users u ON u.user_id = p.user_id
         LEFT JOIN message_read_status s ON s.room_id = p.room_id AND s.user_id = p.user_id
         WHERE p.room_id = ?1 AND p.left_seq IS NULL AND (p.joined_seq, p.user_id) > (?3, ?4)
         ORDER BY p.joined_seq, p.user_id LIMIT ?2",
    )?;
    let mut rows = statement.query(params![
        room.0.as_bytes(),
        int(members_max as u64),
        int(after_seq),
        after_user.0.as_bytes()
    ])?;
    while let Some(row) = rows.next()? {
        let user_id = user_id(row, 0)?;
        let member = Member {
            user_id,
            name: row.get(1)?,
            role: role(row, 2)?,
            read_seq: match uint_or_null(row, 6)? {
                Some(shown) => shown,
                None => marks.mark(room, user_id, uint(row, 3)?),
            },
            delivered_seq: match uint_or_null(row, 7)? {
                Some(shown) => shown,
                None => marks.mark(room, user_id, uint(row, 4)?),
            },
        };
        each(uint(row, 5)?, member);
    }
    Ok(())
}

/// A room as its first event told it.
pub(super) fn room_as_opened(
    connection: &Connection,
    room: RoomId,
) -> Result<Option<Room>, Failure> {
    let read = EventsRead {
        room,
        after: 0,
        to: crate::store::common::OPENED_SEQ,
        events_max: 1,
        bytes_max: 0,
        newest: false,
    };
    // It stays, whatever is dropped.
    let first = events_above(connection, &read, 0)?;
    Ok(first.events.into_iter().find_map(|event| match event.body {
        RoomEventBody::RoomCreated { room } => Some(*room),
        _ => None,
    }))
}
