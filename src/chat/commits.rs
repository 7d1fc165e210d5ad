//! The home shard's writes: whatever arrives while a batch is in flight is the next batch.
//!
//! A commit costs the same for one write and for twenty, so a shard that is busy spaces its batches:
//! they begin at multiples of [`limits::BATCH_SPACING_US`] or what is set, at which the batches of all shards meet.
//! A quiet shard never waits.
//!
//! **Two lines.** A batch of the *free* line waits for nobody: of a room that another node is writing to, or
//! that is held by whoever maintains the database, the store says so instead ([`OpReply::Held`]). Such a room
//! goes over to the *held* line, whose batches wait, and stays there until it has been quiet or a while has
//! passed. So a room never waits for another one that is held.
//!
//! Invariants: one batch of each line is in flight at a time, and all writes to a room wait or are in flight in
//! one of the lines, so a room is in one batch at a time and a sender's order holds; a write is answered once;
//! an ack follows its commit; a write whose outcome is unknown is answered `unavailable`, which says nothing
//! about it.
//!
//! Next: committed events go to the gate in [`super::home`].

use super::bus::{Context, MeshMessage, Write};
use super::port::{Op, OpDone, OpKind, OpOutcome, OpReply, Refusal, StoreCall, StoreError, Ticket};
use super::sabotage::Sabotage;
use crate::limits;
use crate::protocol::block::{BlockChange, BlockSet};
use crate::protocol::event::RoomEvent;
use crate::protocol::reply::{self, Changed, RoomCreated, Sent};
use crate::protocol::view::RoomKind;
use crate::protocol::{ErrorCode, RoomId, Seq, UserId, websocket};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Writes of one home shard.
#[derive(Debug, Default)]
pub struct Commits {
    free: Line,
    held: Line,
    /// The rooms of the held line.
    held_rooms: BTreeMap<RoomId, HeldRoom>,
    /// When the last batch of the free line was sent, µs.
    submitted_us: u64,
    /// The free line is not sent before, µs; `None` while it is empty or a batch of it is in flight.
    due_us: Option<u64>,
    busy: Busy,
}

/// Writes that wait, in their order, and the batch that was made of those before them.
#[derive(Debug, Default)]
struct Line {
    queue: VecDeque<Write>,
    flight: Option<Flight>,
}

impl Line {
    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.flight.is_none()
    }

    fn is_flight(&self, ticket: Ticket) -> bool {
        let flight = self.flight.as_ref();
        flight.is_some_and(|flight| flight.ticket == ticket)
    }

    /// Sends what waits, by this kind of call.
    fn send(&mut self, call: fn(Vec<Op>) -> StoreCall, ctx: &mut Context<'_>) {
        let count = self.queue.len().min(limits::BATCH_OPS_MAX);
        let writes: Vec<Receipt> = self
            .queue
            .drain(..count)
            .map(|write| Receipt {
                write,
                given_up: false,
            })
            .collect();
        let ops = writes
            .iter()
            .map(|receipt| receipt.write.op.clone())
            .collect();
        let ticket = ctx.call(call(ops));
        self.flight = Some(Flight { ticket, writes });
    }

    /// All that are not decided yet.
    fn undecided(&self) -> impl Iterator<Item = &Write> {
        let flight = self.flight.iter().flat_map(|flight| &flight.writes);
        self.queue
            .iter()
            .chain(flight.map(|receipt| &receipt.write))
    }
}

/// A room of the held line.
#[derive(Debug)]
struct HeldRoom {
    /// Its writes that wait or are in flight there.
    writes: usize,
    /// Further writes go there too until then, µs.
    until_us: u64,
}

/// Over how long writes are counted, µs.
const BUSY_WINDOW_US: u64 = 100_000;

/// How many writes there are: those of this window of [`BUSY_WINDOW_US`] and of the last.
#[derive(Debug, Default)]
struct Busy {
    window: u64,
    count: u64,
    last: u64,
}

impl Busy {
    fn took_one(&mut self, now_us: u64) {
        self.roll(now_us);
        self.count += 1;
    }

    /// Whether there are so many writes a second.
    fn is_at(&mut self, per_s: u64, now_us: u64) -> bool {
        self.roll(now_us);
        self.count.max(self.last) * 1_000_000 >= per_s * BUSY_WINDOW_US
    }

    fn roll(&mut self, now_us: u64) {
        let window = now_us / BUSY_WINDOW_US;
        if window != self.window {
            let follows = window == self.window + 1;
            self.last = if follows { self.count } else { 0 };
            self.count = 0;
            self.window = window;
        }
    }
}

/// The batch under way.
#[derive(Debug)]
struct Flight {
    ticket: Ticket,
    writes: Vec<Receipt>,
}

/// What is kept of a write while the store has its `Op`.
#[derive(Debug)]
struct Receipt {
    write: Write,
    /// It took too long and was answered `unavailable`.
    given_up: bool,
}

/// What a batch brought.
#[derive(Debug, Default)]
pub struct Committed {
    /// Durable events, in the order of the batch.
    pub events: Vec<(RoomEvent, u64)>,
    /// Rooms that were opened, with their members.
    pub created: Vec<(RoomId, Arc<[UserId]>)>,
    /// Who blocked whom, or no longer does.
    pub blocks: Vec<BlockChange>,
    /// Rooms of which the outcome is unknown: the store must be asked.
    pub suspect: Vec<RoomId>,
}

impl Commits {
    /// Whether nothing waits and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.free.is_idle() && self.held.is_idle()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.free.queue.len() + self.held.queue.len()
    }

    /// Takes a write, or answers it `overloaded`.
    pub fn take(&mut self, write: Write, ctx: &mut Context<'_>) {
        if self.waiting() >= limits::COMMIT_QUEUE_MAX {
            answer_error(
                &write,
                ErrorCode::Overloaded,
                "too many writes are waiting",
                ctx,
            );
            return;
        }
        self.busy.took_one(ctx.now.mono_us);
        match self.held_rooms.get_mut(&write.op.room) {
            Some(room) if room.writes > 0 || room.until_us > ctx.now.mono_us => {
                room.writes += 1;
                self.held.queue.push_back(write);
            }
            _ => self.free.queue.push_back(write),
        }
        self.submit(ctx);
    }

    /// When [`Commits::due`] is to be called, µs.
    pub fn due_us(&self) -> Option<u64> {
        self.due_us
    }

    /// Sends what was held back, if its time has come.
    pub fn due(&mut self, ctx: &mut Context<'_>) {
        self.submit(ctx);
    }

    /// What a server that lies would say, before it knows: the sequence number that the message
    /// will most likely get.
    pub fn acknowledge_too_early(&self, write: &Write, released: Seq, ctx: &mut Context<'_>) {
        let OpKind::Send { client_msg_id, .. } = &write.op.kind else {
            return;
        };
        let ahead = self.free.undecided().chain(self.held.undecided());
        let ahead = ahead.filter(|other| other.op.room == write.op.room).count();
        let sent = Sent {
            client_msg_id: *client_msg_id,
            room_id: write.op.room,
            seq: released + ahead as Seq + 1,
            ts: ctx.now.unix,
            duplicate: false,
        };
        acknowledge(write, OpReply::Sent(sent), ctx);
    }

    /// Sends the next batch of each line, unless one of it is in flight or it is not yet its time.
    fn submit(&mut self, ctx: &mut Context<'_>) {
        if self.held.flight.is_none() && !self.held.queue.is_empty() {
            self.held.send(StoreCall::Commit, ctx);
        }
        self.due_us = None;
        if self.free.flight.is_some() || self.free.queue.is_empty() {
            return;
        }
        let now_us = ctx.now.mono_us;
        let spacing_us = ctx.config.batch_spacing_us;
        // Not spaced: the next may begin at once.
        let multiple = self.submitted_us.checked_div(spacing_us);
        let next_us = multiple.map_or(0, |multiple| (multiple + 1) * spacing_us);
        if now_us < next_us
            && self.free.queue.len() < limits::BATCH_OPS_MAX
            && self.busy.is_at(ctx.config.spaced_writes_per_s, now_us)
        {
            self.due_us = Some(next_us);
            return;
        }
        self.submitted_us = now_us;
        self.free.send(StoreCall::TryCommit, ctx);
    }

    /// Whether this call is a batch in flight.
    pub fn is_flight(&self, ticket: Ticket) -> bool {
        self.free.is_flight(ticket) || self.held.is_flight(ticket)
    }

    /// Takes the answer to a batch in flight, tells the authors, and sends the next one.
    pub fn answered(
        &mut self,
        ticket: Ticket,
        result: Result<Vec<OpOutcome>, StoreError>,
        ctx: &mut Context<'_>,
    ) -> Committed {
        let mut committed = Committed::default();
        let is_held = self.held.is_flight(ticket);
        let line = if is_held {
            &mut self.held
        } else {
            &mut self.free
        };
        let Some(flight) = line.flight.take() else {
            return committed;
        };
        if is_held {
            for receipt in &flight.writes {
                self.left(receipt.write.op.room);
            }
        }
        match result {
            Ok(outcomes) => {
                assert_eq!(outcomes.len(), flight.writes.len(), "one outcome per write");
                ctx.stats.batches_committed += 1;
                let mut held = Vec::new();
                for (receipt, outcome) in flight.writes.into_iter().zip(outcomes) {
                    match outcome {
                        Ok(OpDone {
                            reply: OpReply::Held,
                            ..
                        }) => held.push(receipt),
                        outcome => outcome_of(&receipt, outcome, &mut committed, ctx),
                    }
                }
                self.hold(held, ctx);
            }
            Err(error) => {
                ctx.stats.batches_failed += 1;
                let (code, message) = match error {
                    StoreError::Overloaded => (ErrorCode::Overloaded, "the store is busy"),
                    StoreError::Unavailable(_) => (
                        ErrorCode::Unavailable,
                        "the store did not answer; retry with the same id",
                    ),
                };
                for receipt in flight.writes {
                    committed.suspect.push(receipt.write.op.room);
                    if !receipt.given_up {
                        answer_error(&receipt.write, code, message, ctx);
                    }
                }
                committed.suspect.sort_unstable();
                committed.suspect.dedup();
            }
        }
        self.submit(ctx);
        committed
    }

    /// Takes writes whose rooms are held, in their order, and those to the same rooms that wait behind them, over
    /// to the held line.
    fn hold(&mut self, receipts: Vec<Receipt>, ctx: &mut Context<'_>) {
        if receipts.is_empty() {
            return;
        }
        ctx.stats.writes_held += receipts.len() as u64;
        let until_us = ctx.now.mono_us + limits::ROOM_HELD_MS * 1_000;
        for Receipt { write, given_up } in receipts {
            let room = self.held_rooms.entry(write.op.room);
            let room = room.or_insert(HeldRoom {
                writes: 0,
                until_us,
            });
            room.until_us = until_us;
            if !given_up {
                room.writes += 1;
                self.held.queue.push_back(write);
            }
        }
        let (held_rooms, held) = (&mut self.held_rooms, &mut self.held);
        for write in std::mem::take(&mut self.free.queue) {
            match held_rooms.get_mut(&write.op.room) {
                Some(room) if room.until_us == until_us => {
                    room.writes += 1;
                    held.queue.push_back(write);
                }
                _ => self.free.queue.push_back(write),
            }
        }
    }

    /// A write to this room has left the held line.
    fn left(&mut self, room: RoomId) {
        if let Some(room) = self.held_rooms.get_mut(&room) {
            room.writes = room.writes.saturating_sub(1);
        }
    }

    /// Answers what has waited too long: those in the queue are withdrawn, of those in flight the
    /// outcome stays open.
    pub fn tick(&mut self, ctx: &mut Context<'_>) {
        let now_us = ctx.now.mono_us;
        let late_us = now_us.saturating_sub(limits::COMMIT_MS_MAX * 1_000);
        let is_late = |write: &mut Write| write.received_us < late_us;
        let message = "the store does not answer";
        while let Some(write) = self.free.queue.pop_front_if(is_late) {
            answer_error(&write, ErrorCode::Unavailable, message, ctx);
        }
        while let Some(write) = self.held.queue.pop_front_if(is_late) {
            self.left(write.op.room);
            answer_error(&write, ErrorCode::Unavailable, message, ctx);
        }
        let flights = self.free.flight.iter_mut().chain(&mut self.held.flight);
        for receipt in flights.flat_map(|flight| &mut flight.writes) {
            if !receipt.given_up && receipt.write.received_us < late_us {
                receipt.given_up = true;
                let message = "the store does not answer; retry with the same id";
                answer_error(&receipt.write, ErrorCode::Unavailable, message, ctx);
            }
        }
        self.held_rooms
            .retain(|_, room| room.writes > 0 || room.until_us > now_us);
    }
}

fn outcome_of(
    receipt: &Receipt,
    outcome: OpOutcome,
    committed: &mut Committed,
    ctx: &mut Context<'_>,
) {
    let Receipt { write, given_up } = receipt;
    match outcome {
        Err(Refusal { code, message }) => {
            if !given_up {
                answer_error(write, code, message, ctx);
            }
        }
        Ok(OpDone { reply, events }) => {
            if let OpKind::CreateRoom { members, .. } = &write.op.kind
                && matches!(reply, OpReply::Room { created: true, .. })
            {
                let users = members.iter().copied().chain([write.op.actor]).collect();
                committed.created.push((write.op.room, users));
            }
            if let OpReply::Block {
                block,
                changed: true,
            } = &reply
            {
                committed.blocks.push(*block);
            }
            if let OpReply::Sent(sent) = &reply {
                ctx.stats.messages_committed += u64::from(!sent.duplicate);
                ctx.stats.messages_duplicate += u64::from(sent.duplicate);
            }
            let elapsed_us = ctx.now.mono_us.saturating_sub(write.received_us);
            ctx.stats.received_to_committed.record(elapsed_us);
            let early = ctx.config.sabotage.is(Sabotage::AckBeforeCommit)
                && matches!(write.op.kind, OpKind::Send { .. });
            if !given_up && !early {
                acknowledge(write, reply, ctx);
            }
            committed
                .events
                .extend(events.into_iter().map(|event| (event, write.received_us)));
        }
    }
}

/// What who erases a user from a room is told: nobody of the wire's side.
#[derive(Serialize)]
struct Erased {
    done: bool,
}

fn acknowledge(write: &Write, done: OpReply, ctx: &mut Context<'_>) {
    let Some(id) = write.request else { return };
    let json = match done {
        OpReply::Sent(sent) => reply::ack(id, &sent),
        OpReply::Room { room, created } => reply::ack(id, &RoomCreated { room, created }),
        OpReply::Message(changed) => reply::ack(id, &changed),
        OpReply::Block { block, changed } => {
            let set = BlockSet {
                user_id: block.user,
                blocked: block.blocked,
                changed,
            };
            reply::ack(id, &set)
        }
        OpReply::Erased(done) => reply::ack(id, &Erased { done }),
        OpReply::Held => unreachable!("a write that was not decided is not acknowledged"),
        OpReply::Changed(seq) => {
            let changed = Changed {
                room_id: write.op.room,
                changed: seq.is_some(),
                seq,
            };
            reply::ack(id, &changed)
        }
    };
    ctx.tell(
        write.shard,
        MeshMessage::Reply(write.conn, websocket::encode_text(&json)),
    );
}

fn answer_error(write: &Write, code: ErrorCode, message: &str, ctx: &mut Context<'_>) {
    ctx.stats.commands_refused += 1;
    if write.request.is_none() {
        return;
    }
    let retry_after_ms = code.temporary().then_some(limits::RETRY_AFTER_MS);
    let json = reply::error(write.request, code, message, retry_after_ms);
    ctx.tell(
        write.shard,
        MeshMessage::Reply(write.conn, websocket::encode_text(&json)),
    );
}

/// The id of the room that a `room.create` is about.
pub fn room_to_create(
    actor: UserId,
    kind: RoomKind,
    members: &[UserId],
    client_room_id: uuid::Uuid,
) -> RoomId {
    match (kind, members) {
        (RoomKind::Direct, [other]) => RoomId::direct(actor, *other),
        (RoomKind::Direct | RoomKind::Group, _) => RoomId::group(actor, client_room_id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_busy_by_what_came_in_the_last_tenths_of_a_second() {
        let mut busy = Busy::default();
        let at = |ms: u64| ms * 1_000;
        for n in 0..25 {
            assert!(!busy.is_at(250, at(n)), "{n} writes");
            busy.took_one(at(n));
        }
        assert!(busy.is_at(250, at(30)));
        assert!(busy.is_at(250, at(199)), "the window before counts too");
        assert!(!busy.is_at(250, at(200)), "one without writes");
        busy.took_one(at(200));
        assert!(!busy.is_at(250, at(1_000)));
    }
}
