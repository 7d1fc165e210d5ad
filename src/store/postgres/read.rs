//! Reads of rooms: for their home shard and for those who look at one. Each call is one statement, so
//! it sees one snapshot and costs one round trip.

use super::own;
use super::rooms::unread;
use super::row::{
    Failure, MESSAGE_COLUMNS, event_json, get, message, message_columns, role, room_id, room_kind,
    room_view, uint, user_id,
};
use super::session::Session;
use crate::chat::port::{
    EventsPage, EventsRead, OpenedRoom, Refusal, RoomForUser, StoreAnswer, StoreCall,
};
use crate::limits;
use crate::protocol::event::RoomEvent;
use crate::protocol::{ErrorCode, RoomId, UnixMs, UserId};
use crate::store::changes::KeptChange;
use crate::store::common::{event_of, int, refuse};
use std::collections::BTreeMap;
use tokio_postgres::Row;
use uuid::Uuid;

/// All statements that read, and those that write and may be repeated as if they did not.
pub(super) const READS: &[&str] = &[
    super::rooms::SIGN_IN,
    super::rooms::LIST,
    super::history::OLDER,
    super::history::CHANGED,
    super::history::AROUND,
    OPEN_ROOMS,
    HEADS,
    EVENTS,
    EVENTS_NEWEST,
    GET_ROOMS,
    WHO_SHARES,
    own::WRITE_RECEIPTS,
    own::SAMPLE_TYPING,
    own::SET_OWN,
    own::OWN_STATES,
    own::LIST_MEMBERS,
    super::blocks::LIST,
];

/// What became of a read.
pub(super) enum Read {
    Answer(StoreAnswer),
    /// A sign-in of a user who is unknown or is called differently by now.
    MustWrite,
}

/// Answers a call that writes nothing, or nothing that may not be written twice. `is_written`: the users of a sign-in are known.
pub(super) async fn answer(
    session: &Session,
    now: Option<UnixMs>,
    call: &StoreCall,
    is_written: bool,
) -> Result<Read, Failure> {
    Ok(Read::Answer(match call {
        StoreCall::SignIn(users) => {
            match super::rooms::sign_in(session, users, is_written).await? {
                Some(signed_in) => StoreAnswer::SignIn(signed_in),
                None => return Ok(Read::MustWrite),
            }
        }
        StoreCall::OpenRooms(rooms) => StoreAnswer::OpenRooms(open_rooms(session, rooms).await?),
        StoreCall::Heads { rooms, users } => heads(session, rooms, users).await?,
        StoreCall::Events(read) => StoreAnswer::Events(events(session, read).await?),
        StoreCall::History(read) => {
            StoreAnswer::History(super::history::history(session, read).await?)
        }
        StoreCall::ListRooms(read) => {
            StoreAnswer::ListRooms(super::rooms::list(session, read).await?)
        }
        StoreCall::GetRooms(questions) => {
            StoreAnswer::GetRooms(get_rooms(session, questions).await?)
        }
        StoreCall::ListMembers(read) => {
            StoreAnswer::ListMembers(own::list_members(session, read).await?)
        }
        StoreCall::SampleTyping(sample) => {
            own::sample_typing(session, sample).await?;
            StoreAnswer::SampleTyping
        }
        StoreCall::WriteReceipts(receipts) => {
            StoreAnswer::WriteReceipts(own::write_receipts(session, receipts).await?)
        }
        StoreCall::SetOwn(set) => StoreAnswer::SetOwn(own::set_own(session, set).await?),
        StoreCall::OwnStates(questions) => {
            StoreAnswer::OwnStates(own::own_states(session, questions).await?)
        }
        StoreCall::WhoShares { user, others } => {
            StoreAnswer::WhoShares(who_shares(session, *user, others).await?)
        }
        StoreCall::Search(read) => StoreAnswer::Search(super::search::search(session, read).await?),
        StoreCall::Blocks(read) => StoreAnswer::Blocks(super::blocks::list(session, read).await?),
        StoreCall::Upkeep(step) => {
            StoreAnswer::Upkeep(super::erase::step(session, now, step).await?)
        }
        StoreCall::Intake(call) => {
            let answer = super::intake::answer(session, now, call).await?;
            StoreAnswer::Intake(Box::new(answer))
        }
        StoreCall::Uploads(call) => {
            let answer = super::uploads::answer(session, now, call).await?;
            StoreAnswer::Uploads(Box::new(answer))
        }
        StoreCall::Hooks(call) => {
            let answer = super::hooks::answer(session, now, call).await?;
            StoreAnswer::Hooks(Box::new(answer))
        }
        StoreCall::Admin(call) => {
            let answer = super::admin::answer(session, now, call).await?;
            StoreAnswer::Admin(Box::new(answer))
        }
        StoreCall::Commit(_) | StoreCall::TryCommit(_) | StoreCall::RenewEpoch(_) => {
            return Err(Failure::Data("not a read".to_owned()));
        }
    }))
}

/// With the epoch, so that one that was renewed on another node is noticed here too.
const HEADS: &str = "SELECT 0, room_id, last_seq, severed, floor_seq FROM chat_rooms
         WHERE room_id = ANY ($1)
     UNION ALL SELECT 1, user_id, version, false, 0 FROM chat_users WHERE user_id = ANY ($2)
     UNION ALL SELECT 2, NULL, epoch, false, 0 FROM meta";

async fn heads(
    session: &Session,
    rooms: &[RoomId],
    users: &[UserId],
) -> Result<StoreAnswer, Failure> {
    let asked_rooms: Vec<Uuid> = rooms.iter().map(|room| room.0).collect();
    let asked_users: Vec<Uuid> = users.iter().map(|user| user.0).collect();
    let (mut rooms, mut users) = (Vec::new(), Vec::new());
    let (mut severed, mut floors) = (Vec::new(), Vec::new());
    for row in session.query(HEADS, &[&asked_rooms, &asked_users]).await? {
        match get::<i32>(&row, 0)? {
            0 => {
                let room = room_id(&row, 1)?;
                rooms.push((room, uint(&row, 2)?));
                if get(&row, 3)? {
                    severed.push(room);
                }
                match uint(&row, 4)? {
                    0 => (),
                    floor => floors.push((room, floor)),
                }
            }
            1 => users.push((user_id(&row, 1)?, uint(&row, 2)?)),
            _ => {
                session.epoch_is(get(&row, 2)?);
            }
        }
    }
    Ok(StoreAnswer::Heads {
        rooms,
        users,
        severed,
        floors,
    })
}

const WHO_SHARES: &str = "SELECT a.user_id FROM unnest($2::uuid[]) AS a (user_id)
     WHERE EXISTS (
         SELECT 1 FROM room_participants o
         JOIN room_participants p
             ON p.room_id = o.room_id AND p.user_id = $1 AND p.left_seq IS NULL
         WHERE o.user_id = a.user_id AND o.left_seq IS NULL)
     AND NOT chat_severed($1, ARRAY[a.user_id])";

/// Those of `others` who are in a room with this user, without a block between the two.
async fn who_shares(
    session: &Session,
    user: UserId,
    others: &[UserId],
) -> Result<Vec<UserId>, Failure> {
    let others: Vec<Uuid> = others.iter().map(|other| other.0).collect();
    let rows = session.query(WHO_SHARES, &[&user.0, &others]).await?;
    rows.iter().map(|row| user_id(row, 0)).collect()
}

const OPEN_ROOMS: &str = "SELECT r.room_id, r.kind, r.last_seq, p.user_id, p.role, r.severed,
         r.floor_seq
     FROM unnest($1::uuid[]) AS a (room_id)
     JOIN chat_rooms r ON r.room_id = a.room_id
     LEFT JOIN room_participants p ON p.room_id = r.room_id AND p.left_seq IS NULL";

async fn open_rooms(
    session: &Session,
    rooms: &[RoomId],
) -> Result<Vec<Option<OpenedRoom>>, Failure> {
    let mut asked: Vec<Uuid> = rooms.iter().map(|room| room.0).collect();
    asked.sort_unstable();
    asked.dedup();
    let mut found: BTreeMap<RoomId, OpenedRoom> = BTreeMap::new();
    for row in session.query(OPEN_ROOMS, &[&asked]).await? {
        let (kind, last_seq) = (room_kind(&row, 1)?, uint(&row, 2)?);
        let opened = found.entry(room_id(&row, 0)?).or_insert(OpenedRoom {
            last_seq,
            kind,
            members: Vec::new(),
            severed: get(&row, 5)?,
            floor: uint(&row, 6)?,
        });
        if let Some(user) = get::<Option<Uuid>>(&row, 3)? {
            opened.members.push((UserId(user), role(&row, 4)?));
        }
    }
    Ok(rooms.iter().map(|room| found.get(room).cloned()).collect())
}

/// The events of a stretch: two stretches, each in order by its primary key, merged. Of the messages
/// that were changed only edits show one, in its current state.
macro_rules! events {
    ($order:literal) => {
        concat!(
            "SELECT h.last_seq, m.at, m.ts, m.type, m.message_seq, m.actor_id, m.data, ",
            message_columns!(),
            ", h.floor_seq
             FROM (SELECT coalesce(max(last_seq), 0) AS last_seq,
                     coalesce(max(floor_seq), 0) AS floor_seq, greatest(max(floor_seq), $2) AS after
                 FROM chat_rooms WHERE room_id = $1) h
             LEFT JOIN LATERAL (
                 SELECT w.* FROM (
                     SELECT t.*,
                         sum(coalesce(octet_length(t.text), 0)) OVER (ORDER BY t.at ",
            $order,
            ") AS bytes, row_number() OVER (ORDER BY t.at ",
            $order,
            ") AS n
                     FROM (SELECT * FROM (
                         (SELECT c.seq AS at, NULL::bigint AS ts, NULL::text AS type,
                             NULL::bigint AS message_seq, NULL::uuid AS actor_id, NULL::text AS data,
                             c.*
                         FROM messages c WHERE c.room_id = $1 AND c.seq > h.after AND c.seq <= $3
                         ORDER BY c.seq ",
            $order,
            " LIMIT $4)
                         UNION ALL
                         (SELECT e.seq, e.ts, e.type, e.message_seq, e.actor_id, e.data::text, c.*
                         FROM room_events e
                         LEFT JOIN messages c ON e.type = 'message.updated'
                             AND c.room_id = e.room_id AND c.seq = e.message_seq
                         WHERE e.room_id = $1 AND e.seq > h.after AND e.seq <= $3
                         ORDER BY e.seq ",
            $order,
            " LIMIT $4)) b ORDER BY b.at ",
            $order,
            " LIMIT $4) t
                 ) w WHERE w.bytes <= $5 OR w.n = 1
             ) m ON true ORDER BY m.at"
        )
    };
}

const EVENTS: &str = events!("ASC");
const EVENTS_NEWEST: &str = events!("DESC");

/// The durable events of a stretch, rebuilt from the messages they created and what is kept of
/// changes.
async fn events(session: &Session, read: &EventsRead) -> Result<EventsPage, Failure> {
    let sql = if read.newest { EVENTS_NEWEST } else { EVENTS };
    let rows = session
        .query(
            sql,
            &[
                &read.room.0,
                &int(read.after),
                &int(read.to),
                &int(read.events_max as u64),
                &int(read.bytes_max as u64),
            ],
        )
        .await?;
    let mut page = EventsPage {
        events: Vec::with_capacity(rows.len()),
        last_seq: 0,
        floor: 0,
    };
    for row in &rows {
        page.last_seq = uint(row, 0)?;
        page.floor = uint(row, MESSAGE + MESSAGE_COLUMNS)?;
        if get::<Option<i64>>(row, 1)?.is_some() {
            page.events.push(event(read.room, row)?);
        }
    }
    Ok(page)
}

/// Where the message stands in a row of [`events`]; after it, the floor.
const MESSAGE: usize = 7;

/// The event of a row of [`events`].
fn event(room: RoomId, row: &Row) -> Result<RoomEvent, Failure> {
    let Some(name) = get::<Option<&str>>(row, 3)? else {
        let json = event_json(row, MESSAGE)?.unwrap_or_default();
        return event_of(room, message(row, MESSAGE)?, json).map_err(Failure::Data);
    };
    let change = KeptChange {
        seq: uint(row, 1)?,
        ts: UnixMs(uint(row, 2)?),
        name,
        message_seq: uint(row, 4)?,
        actor: user_id(row, 5)?,
        data: get(row, 6)?,
        message: match get::<Option<i64>>(row, MESSAGE)? {
            Some(_) => Some(message(row, MESSAGE)?),
            None => None,
        },
    };
    change.event(room).map_err(Failure::Data)
}

const GET_ROOMS: &str = concat!(
    "SELECT a.room_id, p.user_id IS NOT NULL,
         CASE WHEN p.user_id IS NOT NULL THEN chat_whole_room(a.room_id, $3) END,
         coalesce(s.read_seq, 0),
         CASE WHEN p.user_id IS NOT NULL AND coalesce(s.read_seq, 0) < r.last_seq THEN ",
    unread!(
        "a.room_id",
        "greatest(s.read_seq, r.floor_seq)",
        "a.user_id",
        "$4"
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

async fn get_rooms(
    session: &Session,
    questions: &[(RoomId, UserId)],
) -> Result<Vec<Result<RoomForUser, Refusal>>, Failure> {
    let rooms: Vec<Uuid> = questions.iter().map(|(room, _)| room.0).collect();
    let users: Vec<Uuid> = questions.iter().map(|(_, user)| user.0).collect();
    let shown_max = limits::ROOM_MEMBERS_SHOWN_MAX as i64;
    let unread_max = i64::from(limits::UNREAD_MAX);
    let rows = session
        .query(GET_ROOMS, &[&rooms, &users, &shown_max, &unread_max])
        .await?;
    let answer = |row| {
        if !get::<bool>(row, 1)? {
            return Ok(refuse(ErrorCode::Forbidden, "not a member of this room"));
        }
        let room = room_view(room_id(row, 0)?, get(row, 2)?)?;
        let own = own::own_state(row, 3)?;
        Ok(Ok(RoomForUser { room, own }))
    };
    rows.iter().map(answer).collect()
}
