//! A batch of writes: encoded into the arrays of `chat_commit`, one round trip, and its rows as
//! outcomes.
//!
//! Sends are stored without looking whether one of them is a retry: the unique index finds it, refuses
//! the batch, and it comes again, *careful*. Retries come in storms, so the batches after it are careful
//! at once, until [`CAREFUL_BATCHES`] in a row had none.
//!
//! A batch that locks rooms only does not wait for those that others hold: the writes to them are told to be
//! *held*, and the others go again without them.
//!
//! Invariants: outcomes stand in the order of the writes, one each; a batch that the database refuses
//! for its data is halved until the write that is to blame is alone.

use super::row::{Failure, get, room_view, uint};
use super::session::Session;
use super::{changes, erase};
use crate::chat::port::{MessageChange, Op, OpDone, OpKind, OpOutcome, OpReply, StoreError};
use crate::limits;
use crate::protocol::event::{RoomEvent, RoomEventBody};
use crate::protocol::reply::Sent;
use crate::protocol::view::{RoomKind, SystemEvent};
use crate::protocol::{ClientMsgId, ErrorCode, RoomId, UnixMs, UserId};
use crate::store::blocks;
use crate::store::changes::not_a_member;
use crate::store::common::{
    Written, from_json, int, is_well_formed, kind_of, new_message, refuse, room_hash, send_hash,
    sent, system_body,
};
use crate::store::files::Kept;
use std::borrow::Cow;
use std::collections::BTreeSet;
use tokio_postgres::Row;
use uuid::Uuid;

/// The batch.
pub(super) const COMMIT: &str = "SELECT ix, outcome, seq, ts, event
     FROM chat_commit($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";

/// The batch, if nobody holds one of its rooms; else which writes are to those.
pub(super) const TRY_COMMIT: &str = "SELECT ix, outcome, seq, ts, event
     FROM chat_try_commit($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";

/// The outcome of a write whose room others hold.
const HELD: i32 = 29;
/// The outcome of a message that answers one that was dropped.
const ANSWERS_DROPPED: i32 = 30;
/// Times that the others are tried when more rooms are held each time; then they wait as well.
const HELD_TRIES_MAX: usize = 3;

/// What is done about a room that others hold.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Locks {
    /// It is waited for.
    Wait,
    /// Its writes are held.
    Try,
}

/// Batches without a retry, after which none is expected.
pub(super) const CAREFUL_BATCHES: u32 = 32;

/// Decides these writes one after the other and commits them together.
///
/// # Errors
/// [`StoreError::Unavailable`]: of these writes none, some or all may stand.
pub(super) async fn commit(
    session: &Session,
    locks: Locks,
    now: Option<UnixMs>,
    ops: &[&Op],
) -> Result<Vec<OpOutcome>, StoreError> {
    let mut outcomes = Vec::with_capacity(ops.len());
    // What is not decided yet, the first of it last. An erasure is a transaction of its own.
    let is_erasure = |op: &Op| matches!(op.kind, OpKind::Erase { .. });
    let parts = ops.chunk_by(|left, right| !is_erasure(left) && !is_erasure(right));
    let mut waiting: Vec<&[&Op]> = parts.rev().collect();
    // What follows in these rooms is held as well, though they be free by then: the order is kept.
    let mut held = BTreeSet::new();
    while let Some(part) = waiting.pop() {
        match tried(session, locks, &mut held, now, part).await {
            Ok(mut done) => outcomes.append(&mut done),
            Err(Failure::Data(text) | Failure::Twice(text)) => match part {
                [op] => {
                    tracing::error!(error = text, room = %op.room, "write failed");
                    outcomes.push(refuse(ErrorCode::Internal, "the write failed"));
                }
                _ => {
                    let (first, second) = part.split_at(part.len() / 2);
                    waiting.push(second);
                    waiting.push(first);
                }
            },
            Err(failure) => return Err(failure.into()),
        }
    }
    assert_eq!(outcomes.len(), ops.len(), "one outcome per write");
    Ok(outcomes)
}

/// One transaction, tried again while the database ends it for the sake of another.
async fn tried(
    session: &Session,
    locks: Locks,
    held: &mut BTreeSet<RoomId>,
    now: Option<UnixMs>,
    ops: &[&Op],
) -> Result<Vec<OpOutcome>, Failure> {
    let mut tries = 1;
    loop {
        let careful = session.careful.get();
        match once(session, locks, held, careful > 0, now, ops).await {
            Err(Failure::Conflict(text)) if tries < super::options::TRIES_MAX => {
                tracing::warn!(error = text, "commit is tried again");
                tries += 1;
            }
            Err(Failure::Twice(_)) if careful == 0 => session.careful.set(CAREFUL_BATCHES),
            Ok(outcomes) => {
                let again = outcomes.iter().any(is_retry);
                session.careful.set(if again {
                    CAREFUL_BATCHES
                } else {
                    careful.saturating_sub(1)
                });
                return Ok(outcomes);
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// Whether the write's id was in the store before.
fn is_retry(outcome: &OpOutcome) -> bool {
    match outcome {
        Ok(done) => matches!(&done.reply, OpReply::Sent(sent) if sent.duplicate),
        Err(refusal) => refusal.code == ErrorCode::IdempotencyConflict,
    }
}

async fn once(
    session: &Session,
    locks: Locks,
    held: &mut BTreeSet<RoomId>,
    careful: bool,
    now: Option<UnixMs>,
    ops: &[&Op],
) -> Result<Vec<OpOutcome>, Failure> {
    if let [op] = ops
        && let OpKind::Erase { requested_at } = op.kind
        && !held.contains(&op.room)
    {
        return Ok(vec![erase::erase(session, now, op, requested_at).await?]);
    }
    let mut outcomes: Vec<Option<OpOutcome>> = Vec::with_capacity(ops.len());
    // Where the writes stand that the database is asked about.
    let mut places = Vec::with_capacity(ops.len());
    for (place, op) in ops.iter().enumerate() {
        if held.contains(&op.room) {
            outcomes.push(Some(Ok(held_by_others())));
        } else if has_zero(op) {
            // Parsing refuses it, so this is our own fault; the database takes no such text.
            tracing::error!(room = %op.room, "a text with U+0000 came to the store");
            outcomes.push(Some(refuse(ErrorCode::Internal, "the write failed")));
        } else if let OpKind::SetBlock { user, .. } = &op.kind
            && !blocks::is_well_formed(op.room, op.actor, *user)
        {
            outcomes.push(Some(Err(blocks::malformed())));
        } else {
            outcomes.push(None);
            places.push(place);
        }
    }
    let mut tries = 0;
    while !places.is_empty() {
        let mut arrays = Arrays::default();
        for place in &places {
            arrays.push(session.hash_key(), ops[*place]);
        }
        arrays.end_run();
        // What makes rooms or locks users waits for others in a fixed order, and cannot but wait.
        let may_try = locks == Locks::Try && arrays.locked_users.is_empty();
        let statement = if may_try { TRY_COMMIT } else { COMMIT };
        let before = held.len();
        for row in arrays.query(session, statement, careful, now).await? {
            let ix: i32 = get(&row, 0)?;
            let place = usize::try_from(ix - 1).ok().and_then(|ix| places.get(ix));
            let Some(place) = place.copied() else {
                return Err(Failure::Data("an outcome of no write".to_owned()));
            };
            if get::<i32>(&row, 1)? == HELD {
                held.insert(ops[place].room);
            }
            decode(ops[place], &row, &mut outcomes[place])?;
        }
        if held.len() == before {
            break;
        }
        places.retain(|place| outcomes[*place].is_none());
        tries += 1;
        if tries == HELD_TRIES_MAX {
            for place in places.drain(..) {
                held.insert(ops[place].room);
                outcomes[place] = Some(Ok(held_by_others()));
            }
        }
    }
    let mut outcomes = outcomes
        .into_iter()
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| Failure::Data("a write without an outcome".to_owned()))?;
    erase::look_again(session, ops, &mut outcomes).await?;
    Ok(outcomes)
}

fn has_zero_in(text: Option<&String>) -> bool {
    text.is_some_and(|text| text.as_bytes().contains(&0))
}

fn has_zero(op: &Op) -> bool {
    match &op.kind {
        OpKind::Send { text, .. }
        | OpKind::ChangeMessage {
            change: MessageChange::Edit { text, .. },
            ..
        } => text.as_bytes().contains(&0),
        OpKind::CreateRoom { title, .. } => has_zero_in(title.as_ref()),
        OpKind::UpdateRoom { title, picture } => [title, picture]
            .into_iter()
            .any(|given| has_zero_in(given.iter().flatten().next())),
        OpKind::ChangeMessage { .. }
        | OpKind::AddMembers { .. }
        | OpKind::RemoveMembers { .. }
        | OpKind::SetRole { .. }
        | OpKind::SetBlock { .. }
        | OpKind::Erase { .. }
        | OpKind::Leave => false,
    }
}

/// The writes, column by column.
#[derive(Default)]
struct Arrays<'a> {
    kinds: Vec<i32>,
    run_ends: Vec<i32>,
    rooms: Vec<Uuid>,
    actors: Vec<Uuid>,
    ids: Vec<Option<Uuid>>,
    hashes: Vec<Option<Vec<u8>>>,
    replies: Vec<Option<i64>>,
    texts: Vec<Option<Cow<'a, str>>>,
    user_ends: Vec<i32>,
    users: Vec<Uuid>,
    locked_users: BTreeSet<Uuid>,
    /// The sends of the stretch that is not ended, none of which repeats another.
    run: BTreeSet<(RoomId, UserId, ClientMsgId)>,
}

impl<'a> Arrays<'a> {
    fn push(&mut self, hash_key: &[u8; 32], op: &'a Op) {
        let (mut id, mut hash, mut reply, mut body) = (None, None, None, None);
        let kind = match &op.kind {
            OpKind::Send {
                client_msg_id,
                text,
                reply_to_seq,
                mentions,
                files: None,
            } if mentions.is_empty() => {
                let key = (op.room, op.actor, *client_msg_id);
                if !self.run.insert(key) {
                    self.end_run();
                    self.run.insert(key);
                }
                id = Some(client_msg_id.0);
                hash = Some(send_hash(hash_key, text, *reply_to_seq, &[], None).to_vec());
                reply = reply_to_seq.map(int);
                body = Some(Cow::Borrowed(text.as_str()));
                0
            }
            OpKind::Send {
                client_msg_id,
                text,
                reply_to_seq,
                mentions,
                files,
            } => {
                let files = files.as_deref();
                id = Some(client_msg_id.0);
                let sent = send_hash(hash_key, text, *reply_to_seq, mentions, files);
                hash = Some(sent.to_vec());
                reply = reply_to_seq.map(int);
                body = Some(Cow::Owned(changes::mention_json(text, mentions, files)));
                8
            }
            OpKind::ChangeMessage { seq, change } => {
                body = Some(Cow::Owned(changes::change_json(*seq, change)));
                7
            }
            OpKind::CreateRoom {
                kind,
                title,
                members,
            } => {
                hash = Some(room_hash(hash_key, *kind, title.as_deref(), members).to_vec());
                body = title.as_deref().map(Cow::Borrowed);
                self.name(op.actor, members);
                let malformed = !is_well_formed(op.room, op.actor, *kind, members);
                match kind {
                    RoomKind::Direct => 1 + 4 * i32::from(malformed),
                    RoomKind::Group => 2 + 4 * i32::from(malformed),
                }
            }
            OpKind::AddMembers { users } => {
                self.name(op.actor, users);
                3
            }
            OpKind::RemoveMembers { users } => {
                self.name(op.actor, users);
                4
            }
            OpKind::SetRole { users, role } => {
                // Nothing of the users themselves changes, so none is locked.
                self.users.extend(users.iter().map(|user| user.0));
                body = Some(Cow::Owned(changes::role_json(*role)));
                9
            }
            OpKind::UpdateRoom { title, picture } => {
                let given = |it: &'a Option<Option<String>>| it.as_ref().map(Option::as_deref);
                body = Some(Cow::Owned(changes::update_json(
                    given(title),
                    given(picture),
                )));
                10
            }
            OpKind::Leave => {
                self.name(op.actor, &[op.actor]);
                4
            }
            OpKind::Erase { .. } => unreachable!("an erasure is no part of a batch"),
            OpKind::SetBlock { user, blocked } => {
                self.name(op.actor, &[*user]);
                body = Some(Cow::Owned(limits::BLOCKS_MAX.to_string()));
                11 + i32::from(!blocked)
            }
        };
        if kind != 0 {
            self.end_run();
        }
        self.kinds.push(kind);
        self.rooms.push(op.room.0);
        self.actors.push(op.actor.0);
        self.ids.push(id);
        self.hashes.push(hash);
        self.replies.push(reply);
        self.texts.push(body);
        self.user_ends.push(self.users.len() as i32);
        if kind != 0 {
            self.run_ends.push(self.kinds.len() as i32);
        }
    }

    fn name(&mut self, actor: UserId, users: &[UserId]) {
        self.users.extend(users.iter().map(|user| user.0));
        self.locked_users.extend(users.iter().map(|user| user.0));
        self.locked_users.insert(actor.0);
    }

    /// Ends the stretch of sends: the next write is decided after it.
    fn end_run(&mut self) {
        let end = self.kinds.len();
        self.run_ends.resize(end, end as i32);
        self.run.clear();
    }

    async fn query(
        &self,
        session: &Session,
        statement: &'static str,
        careful: bool,
        now: Option<UnixMs>,
    ) -> Result<Vec<Row>, Failure> {
        let locked_users: Vec<Uuid> = self.locked_users.iter().copied().collect();
        let rows = session
            .query(
                statement,
                &[
                    &careful,
                    &now.map(|now| int(now.0)),
                    &self.kinds,
                    &self.run_ends,
                    &self.rooms,
                    &self.actors,
                    &self.ids,
                    &self.hashes,
                    &self.replies,
                    &self.texts,
                    &self.user_ends,
                    &self.users,
                    &locked_users,
                    &(limits::MEMBERS_MAX as i32),
                    &(limits::ROOMS_PER_USER_MAX as i32),
                    &(limits::ROOM_MEMBERS_SHOWN_MAX as i32),
                ],
            )
            .await?;
        Ok(rows)
    }
}

/// Adds what a row tells to the outcome of its write.
fn decode(op: &Op, row: &Row, outcome: &mut Option<OpOutcome>) -> Result<(), Failure> {
    let code: i32 = get(row, 1)?;
    *outcome = Some(match code {
        0 | 1 => Ok(decode_send(op, row, code == 1)?),
        2 => refuse(
            ErrorCode::IdempotencyConflict,
            "this client_msg_id was used for another message",
        ),
        3 => Err(not_a_member()),
        4 => refuse(
            ErrorCode::NotFound,
            "reply_to_seq names no message of this room",
        ),
        5 => {
            let event = decode_event(op.room, row)?;
            let mut done = match outcome.take() {
                Some(Ok(done)) => done,
                Some(Err(_)) | None => changed_nothing(),
            };
            done.reply = OpReply::Changed(Some(event.seq));
            done.events.push(event);
            Ok(done)
        }
        6 => Ok(changed_nothing()),
        7 => Ok(OpDone {
            reply: OpReply::Room {
                room: room_view(op.room, get(row, 4)?)?,
                created: false,
            },
            events: Vec::new(),
        }),
        8 | 9 => {
            let event = decode_event(op.room, row)?;
            let RoomEventBody::RoomCreated { room } = &event.body else {
                return Err(Failure::Data("a room's first event is another".to_owned()));
            };
            let (room, created) = (Box::clone(room), code == 9);
            Ok(OpDone {
                reply: OpReply::Room {
                    room: *room,
                    created,
                },
                events: if created { vec![event] } else { Vec::new() },
            })
        }
        10 => refuse(
            ErrorCode::IdempotencyConflict,
            "this client_room_id was used for another room",
        ),
        11 => refuse(ErrorCode::BadRequest, "not the members of such a room"),
        12 => refuse(ErrorCode::NotFound, "no such user"),
        13 => refuse(ErrorCode::TooLarge, "too many members"),
        14 => refuse(ErrorCode::TooLarge, "a user is in too many rooms"),
        // The same words whatever the reason: whether there is such a room is told to its members
        // only.
        15 => refuse(ErrorCode::Forbidden, "not allowed in this room"),
        HELD => Ok(held_by_others()),
        ANSWERS_DROPPED => Err(crate::store::changes::gone()),
        16.. => changes::decode(op, row, code)?,
        _ => return Err(Failure::Data(format!("outcome {code} is unknown"))),
    });
    Ok(())
}

fn decode_send(op: &Op, row: &Row, duplicate: bool) -> Result<OpDone, Failure> {
    let OpKind::Send {
        client_msg_id,
        text,
        reply_to_seq,
        mentions,
        files,
    } = &op.kind
    else {
        return Err(Failure::Data("sent, without a send".to_owned()));
    };
    let (seq, ts) = (uint(row, 2)?, UnixMs(uint(row, 3)?));
    if duplicate {
        return Ok(OpDone {
            reply: OpReply::Sent(Sent {
                client_msg_id: *client_msg_id,
                room_id: op.room,
                seq,
                ts,
                duplicate,
            }),
            events: Vec::new(),
        });
    }
    let attachments = match files {
        None => Vec::new(),
        Some(_) => {
            let kept: Kept = from_json(get(row, 4)?).map_err(Failure::Data)?;
            kept.files
        }
    };
    let written = Written {
        text,
        reply_to_seq: *reply_to_seq,
        mentions,
        kind: kind_of(files.as_deref()),
        attachments,
    };
    let message = new_message(op.actor, *client_msg_id, written, seq, ts);
    Ok(sent(op.room, *client_msg_id, message))
}

fn decode_event(room_id: RoomId, row: &Row) -> Result<RoomEvent, Failure> {
    decode_event_at(room_id, row, 2)
}

/// The event of a system message whose `seq`, time and event begin at this column.
pub(super) fn decode_event_at(
    room_id: RoomId,
    row: &Row,
    first: usize,
) -> Result<RoomEvent, Failure> {
    let (seq, ts) = (uint(row, first)?, UnixMs(uint(row, first + 1)?));
    let json: &str = get(row, first + 2)?;
    let event: SystemEvent = from_json(json).map_err(Failure::Data)?;
    Ok(RoomEvent {
        room_id,
        seq,
        ts,
        body: system_body(room_id, ts, event, json).map_err(Failure::Data)?,
    })
}

fn held_by_others() -> OpDone {
    OpDone {
        reply: OpReply::Held,
        events: Vec::new(),
    }
}

fn changed_nothing() -> OpDone {
    OpDone {
        reply: OpReply::Changed(None),
        events: Vec::new(),
    }
}
