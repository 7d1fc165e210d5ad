//! Keeps `message_search` behind what is written: a send writes nothing for it.
//!
//! Which rooms have something new is noted in memory with this node's own commits; how far each is indexed
//! stands in `indexed_rooms`, and from time to time all rooms are compared with it, so that what a node that
//! died had noted is found. Nodes may index the same room at once: of two states of a message the newer one
//! stands.
//!
//! Invariants: no lock is taken that a send waits for; a round is bounded work, and takes no more than a fifth of
//! the time, so that a database with too much to do falls behind with this and not with messages; what fails is
//! done again.

use super::lanes::{Io, Link};
use super::row::{Failure, get, message, message_columns, room_id, uint};
use super::session::Session;
use crate::protocol::view::MessageKind;
use crate::protocol::{RoomId, Seq};
use crate::search::{place_of, tsvector};
use crate::store::common::int;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Rounds begin no sooner after one another: messages of a busy room are then indexed together.
const ROUND_EVERY: Duration = Duration::from_millis(250);
/// They begin no sooner than after so many times the last one's time either.
const ROUND_SHARE: u32 = 5;
/// Longest time of a round's statements, together.
const ROUND_MAX: Duration = Duration::from_secs(4);
/// Rooms of one round.
const ROUND_ROOMS: usize = 128;
/// Messages of one room in a round; the rest comes in the next.
const ROOM_MESSAGES: i64 = 64;
/// Rooms compared by one statement.
const COMPARED_ROOMS: i64 = 1_000;
/// Between two such statements.
const COMPARE_EVERY: Duration = Duration::from_millis(100);
/// Between the end of one comparison of all rooms and the next.
const COMPARE_AGAIN: Duration = Duration::from_secs(600);

/// What is to be done for the index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum ToIndex {
    /// Something was committed to this room.
    Room(RoomId),
    /// Rooms after this one are to be compared, and all again after a while.
    Compare(RoomId),
    /// Rooms after this one are to be compared once: a node may have died with what it had noted.
    CompareOnce(RoomId),
}

/// What the rooms have that is not indexed: those created, or changed, after what is. `$1`: rooms; `$2`: at
/// most for each.
const UNINDEXED: &str = concat!(
    "SELECT r.room_id, r.last_seq, ",
    message_columns!(),
    " FROM (
         SELECT c.room_id, c.last_seq, coalesce(i.indexed_seq, 0) AS indexed_seq
         FROM chat_rooms c LEFT JOIN indexed_rooms i ON i.room_id = c.room_id
         WHERE c.room_id = ANY ($1)
     ) r LEFT JOIN LATERAL (
         SELECT * FROM (
             (SELECT * FROM messages a WHERE a.room_id = r.room_id AND a.seq > r.indexed_seq
                 AND a.changed_seq = a.seq ORDER BY a.seq LIMIT $2)
             UNION ALL
             (SELECT * FROM messages b WHERE b.room_id = r.room_id
                 AND b.changed_seq > r.indexed_seq AND b.changed_seq <> b.seq
              ORDER BY b.changed_seq LIMIT $2)
         ) both_of_them ORDER BY changed_seq LIMIT $2
     ) m ON true
     ORDER BY r.room_id, m.changed_seq"
);

const INDEX: &str = "SELECT chat_index($1, $2, $3, $4, $5, $6, $7, $8)::text";

/// `$1`: after which room; `$2`: at most.
const COMPARE: &str = "SELECT c.room_id, c.last_seq > coalesce(i.indexed_seq, 0)
     FROM (SELECT room_id, last_seq FROM chat_rooms WHERE room_id > $1 ORDER BY room_id LIMIT $2) c
     LEFT JOIN indexed_rooms i ON i.room_id = c.room_id ORDER BY c.room_id";

/// For ever: a round, and a pause.
pub(super) async fn run(io: Rc<Io>) {
    let mut link = Link::new(&io, &[UNINDEXED, INDEX, COMPARE]);
    io.to_index(ToIndex::Compare(RoomId(Uuid::nil())));
    loop {
        link.ready(&io.unindexed).await;
        let begun = Instant::now();
        round(&io, &mut link).await;
        let pause = ROUND_EVERY.max(ROUND_SHARE * begun.elapsed());
        tokio::time::sleep_until((begun + pause).into()).await;
    }
}

async fn round(io: &Rc<Io>, link: &mut Link) {
    let (mut rooms, mut compare) = (Vec::new(), None);
    while rooms.len() < ROUND_ROOMS
        && let Some(next) = io.take_to_index()
    {
        match next {
            ToIndex::Room(room) => rooms.push(room),
            ToIndex::Compare(_) | ToIndex::CompareOnce(_) if compare.is_some() => {
                io.to_index(next);
                break;
            }
            ToIndex::Compare(after) => compare = Some((after, true)),
            ToIndex::CompareOnce(after) => compare = Some((after, false)),
        }
    }
    let due = Instant::now() + ROUND_MAX;
    let done = link
        .run(due, async |session| {
            let more = index_all(session, &rooms).await?;
            let found = match compare {
                Some((after, _)) => Some(compared(session, after).await?),
                None => None,
            };
            Ok((more, found))
        })
        .await;
    match done {
        Ok((more, found)) => {
            more.into_iter()
                .for_each(|room| io.to_index(ToIndex::Room(room)));
            if let Some(Compared { behind, last }) = found {
                behind
                    .into_iter()
                    .for_each(|room| io.to_index(ToIndex::Room(room)));
                let is_regular = compare.is_none_or(|(_, is_regular)| is_regular);
                match last {
                    Some(last) => compare_later(io, COMPARE_EVERY, to_compare(last, is_regular)),
                    None if is_regular => {
                        let first = RoomId(Uuid::nil());
                        compare_later(io, COMPARE_AGAIN, ToIndex::Compare(first));
                    }
                    None => (),
                }
            }
        }
        // Whatever it was is logged where it is noticed; it is done again.
        Err(_) => {
            let rooms = rooms.into_iter().map(ToIndex::Room);
            let again =
                rooms.chain(compare.map(|(after, is_regular)| to_compare(after, is_regular)));
            again.for_each(|again| io.to_index(again));
        }
    }
}

fn to_compare(after: RoomId, is_regular: bool) -> ToIndex {
    match is_regular {
        true => ToIndex::Compare(after),
        false => ToIndex::CompareOnce(after),
    }
}

fn compare_later(io: &Rc<Io>, pause: Duration, next: ToIndex) {
    let io = Rc::clone(io);
    tokio::task::spawn_local(async move {
        tokio::time::sleep(pause).await;
        io.to_index(next);
    });
}

/// Indexes what these rooms have, each alone if something of one of them cannot be.
async fn index_all(session: &Session, rooms: &[RoomId]) -> Result<Vec<RoomId>, Failure> {
    match index(session, rooms).await {
        Err(Failure::Data(_)) => (),
        other => return other,
    }
    let mut more = Vec::new();
    for room in rooms {
        match index(session, &[*room]).await {
            // Passed over until rooms are compared again.
            Err(Failure::Data(text)) => {
                tracing::error!(error = text, %room, "a room was not indexed");
            }
            other => more.append(&mut other?),
        }
    }
    Ok(more)
}

/// Entries to write, column by column.
#[derive(Default)]
struct Entries {
    rooms: Vec<Uuid>,
    seqs: Vec<i64>,
    places: Vec<i64>,
    senders: Vec<Uuid>,
    changed: Vec<i64>,
    documents: Vec<String>,
}

/// Indexes what these rooms have. Those that have more.
async fn index(session: &Session, rooms: &[RoomId]) -> Result<Vec<RoomId>, Failure> {
    if rooms.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = rooms.iter().map(|room| room.0).collect();
    let rows = session.query(UNINDEXED, &[&ids, &ROOM_MESSAGES]).await?;
    let mut entries = Entries::default();
    // Per room: how many messages, the last one's change, and the room's newest event.
    let mut read: BTreeMap<RoomId, (i64, Seq, Seq)> = BTreeMap::new();
    for row in &rows {
        let (room, last_seq) = (room_id(row, 0)?, uint(row, 1)?);
        let (count, last, _) = read.entry(room).or_insert((0, 0, last_seq));
        if get::<Option<i64>>(row, 2)?.is_none() {
            continue;
        }
        let message = message(row, 2)?;
        (*count, *last) = (*count + 1, message.changed_seq);
        if message.kind == MessageKind::System {
            continue;
        }
        entries.rooms.push(room.0);
        entries.seqs.push(int(message.seq));
        let place = place_of(room, message.seq, message.created_at);
        entries.places.push(int(place));
        entries.senders.push(message.sender_id.0);
        entries.changed.push(int(message.changed_seq));
        let text = message.text.as_deref().unwrap_or_default();
        entries.documents.push(tsvector(room, text));
    }
    let (mut done_rooms, mut done_seqs, mut more) = (Vec::new(), Vec::new(), Vec::new());
    for (room, (count, last, last_seq)) in read {
        done_rooms.push(room.0);
        done_seqs.push(int(if count < ROOM_MESSAGES {
            last_seq
        } else {
            last
        }));
        if count == ROOM_MESSAGES {
            more.push(room);
        }
    }
    session
        .query(
            INDEX,
            &[
                &entries.rooms,
                &entries.seqs,
                &entries.places,
                &entries.senders,
                &entries.changed,
                &entries.documents,
                &done_rooms,
                &done_seqs,
            ],
        )
        .await?;
    Ok(more)
}

/// What a comparison found.
struct Compared {
    behind: Vec<RoomId>,
    /// Where to go on; `None`: these were the last.
    last: Option<RoomId>,
}

async fn compared(session: &Session, after: RoomId) -> Result<Compared, Failure> {
    let rows = session.query(COMPARE, &[&after.0, &COMPARED_ROOMS]).await?;
    let mut found = Compared {
        behind: Vec::new(),
        last: None,
    };
    for row in &rows {
        let room = room_id(row, 0)?;
        if get(row, 1)? {
            found.behind.push(room);
        }
        found.last = Some(room);
    }
    found.last = found.last.filter(|_| rows.len() as i64 == COMPARED_ROOMS);
    Ok(found)
}
