//! A shard as the home of rooms: it alone orders their events on this node and says who hears
//! them.
//!
//! Invariants: a room's events leave by `seq` ([`super::gate`]), each encoded once; every shard
//! that listens gets each event after the one it began with, in order, once: `cursor` is the next
//! one it is owed; who is subscribed changes when the gate releases the event that says so.
//!
//! Continued in [`super::home_reads`], what it asks of the store, [`super::home_windows`], what it keeps of
//! that, [`super::home_floor`], what is no longer kept, [`super::home_relay`], what it tells other nodes and hears from them, [`super::home_typing`] and
//! [`super::home_receipts`].
//!
//! Next: [`super::fanout`] on each shard that listens.

use super::bus::{Context, MeshMessage, Replayable, Subscribe, SubscribeRoom, Subscribed, Write};
use super::commits::{Commits, Committed};
use super::frame::{Frame, Stamps};
use super::gate::{Gate, Passed};
use super::home_relay::Follows;
use super::map::{Map, Seeded};
use super::port::{EventsRead, StoreCall, Ticket};
use super::receipts::Receipts;
use super::sabotage::Sabotage;
use super::typing::Typing;
use super::window::Window;
use super::{ConnId, Peers, ShardIx};
use crate::limits;
use crate::protocol::event::{EncodedEvent, Membership, RoomEvent};
use crate::protocol::{RoomId, Seq, UserId};
use slab::Slab;
use std::collections::VecDeque;
use std::sync::Arc;

/// The rooms that a shard is home to.
#[derive(Debug)]
pub struct Home {
    pub(super) rooms: Slab<HomeRoom>,
    pub(super) index: Map<RoomId, usize>,
    /// This shard's writes.
    pub commits: Commits,
    pub(super) calls: Map<Ticket, Call>,
    pub(super) to_open: Vec<RoomId>,
    pub(super) opening: bool,
    /// Rooms to compare with the store in this round.
    pub(super) heads_queue: VecDeque<RoomId>,
    pub(super) heads_under_way: bool,
    pub(super) heads_round_ms: u64,
    /// Listeners that are owed events because the mesh was full.
    pub(super) lagging: Vec<(RoomId, ShardIx)>,
    /// Where the search for a window to give up goes on.
    pub(super) clock_hand: usize,
    pub(super) window_bytes: usize,
    pub(super) fetches: usize,
    pub(super) follows: Follows,
    /// The store was asked for a new epoch.
    pub(super) renewing: bool,
    pub(super) typing: Typing,
    pub(super) receipts: Receipts,
}

#[derive(Debug)]
pub(super) struct HomeRoom {
    pub(super) id: RoomId,
    pub(super) open: bool,
    pub(super) gate: Gate,
    pub(super) window: Window,
    /// Sorted.
    pub(super) members: Vec<UserId>,
    /// A direct room of two of whom one blocks the other: neither hears what the other does here beside
    /// events, such as typing.
    pub(super) severed: bool,
    pub(super) listeners: Vec<Listener>,
    pub(super) waiting: Vec<Waiting>,
    /// The newest event that the store is known to have.
    pub(super) head: Seq,
    /// Events with `seq` ≤ this are no longer kept by the store.
    pub(super) floor: Seq,
    /// The last event by which somebody was erased: what was read of the store before may hold what they wrote.
    pub(super) erased: Seq,
    pub(super) fetching: bool,
    pub(super) filling: bool,
    /// It is noted when the missing event is fetched.
    pub(super) gap_noted: bool,
    /// The window was looked at since the clock hand last passed.
    pub(super) touched: bool,
    /// Since when nobody listens, ms.
    pub(super) idle_since_ms: u64,
}

/// A shard that listens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listener {
    pub(super) shard: ShardIx,
    /// The next event it is owed.
    pub(super) cursor: Seq,
    /// What it is owed is being read, since the window has it no longer.
    pub(super) fetching: bool,
}

/// A connection that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) shard: ShardIx,
    pub(super) conn: ConnId,
    pub(super) user: UserId,
    pub(super) asked: SubscribeRoom,
    pub(super) since_ms: u64,
    /// The window was filled for it: what it does not cover now is too much.
    pub(super) filled: bool,
}

#[derive(Debug)]
pub(super) enum Call {
    Open(Vec<RoomId>),
    /// Of these rooms, each with what its gate had released when the store was asked.
    Heads(Vec<(RoomId, Seq)>),
    Renew,
    Receipts,
    Fetch(RoomId),
    Fill(RoomId),
    Pull {
        shard: ShardIx,
        conn: ConnId,
        room: RoomId,
        after: Seq,
    },
    CatchUp {
        shard: ShardIx,
        room: RoomId,
    },
}

impl Home {
    /// No rooms.
    pub fn new(seed: u64) -> Home {
        Home {
            rooms: Slab::new(),
            index: Map::with_hasher(Seeded::with_seed(seed)),
            commits: Commits::default(),
            calls: Map::with_hasher(Seeded::with_seed(seed)),
            to_open: Vec::new(),
            opening: false,
            heads_queue: VecDeque::new(),
            heads_under_way: false,
            heads_round_ms: 0,
            lagging: Vec::new(),
            clock_hand: 0,
            window_bytes: 0,
            fetches: 0,
            follows: Follows::default(),
            renewing: false,
            typing: Typing::new(seed),
            receipts: Receipts::new(seed),
        }
    }

    /// How many rooms are held.
    pub fn rooms(&self) -> usize {
        self.rooms.len()
    }

    /// Bytes of all windows.
    pub fn window_bytes(&self) -> usize {
        self.window_bytes
    }

    /// Forgets every room: the history was replaced. Answers still under way find nothing.
    pub fn forget(&mut self, ctx: &mut Context<'_>) {
        let rooms: Vec<RoomId> = self.index.keys().copied().collect();
        for room in rooms {
            self.unfollow(room, ctx);
        }
        self.follows.gaps.clear();
        self.typing.clear();
        self.receipts.clear();
        self.rooms.clear();
        self.index.clear();
        self.to_open.clear();
        self.heads_queue.clear();
        self.lagging.clear();
        self.window_bytes = 0;
        self.clock_hand = 0;
        self.calls
            .retain(|_, call| matches!(call, Call::Open(_) | Call::Heads(_) | Call::Renew));
        for call in self.calls.values_mut() {
            if let Call::Heads(asked) = call {
                // What was released before proves nothing about the new history.
                asked.clear();
            }
        }
        self.fetches = 0;
    }

    /// A connection wants to hear rooms.
    pub fn subscribe(&mut self, request: &Subscribe, ctx: &mut Context<'_>) {
        for asked in &request.rooms {
            let index = self.room_at(asked.room, ctx);
            let Some(room) = self.rooms.get_mut(index) else {
                continue;
            };
            room.head = room.head.max(asked.head);
            room.waiting.push(Waiting {
                shard: request.shard,
                conn: request.conn,
                user: request.user,
                asked: *asked,
                since_ms: ctx.now_ms(),
                filled: false,
            });
            self.answer_waiting(index, ctx);
        }
        self.open_rooms(ctx);
    }

    /// Nobody on this shard listens any more.
    pub fn unsubscribe(&mut self, room: RoomId, shard: ShardIx, ctx: &mut Context<'_>) {
        let Some(room) = self
            .index
            .get(&room)
            .and_then(|index| self.rooms.get_mut(*index))
        else {
            return;
        };
        room.listeners.retain(|listener| listener.shard != shard);
        if room.listeners.is_empty() {
            room.idle_since_ms = ctx.now_ms();
        }
    }

    /// Takes a write.
    pub fn write(&mut self, write: Write, ctx: &mut Context<'_>) {
        self.typed(&write, ctx);
        if ctx.config.sabotage.is(Sabotage::AckBeforeCommit) {
            let room = self
                .index
                .get(&write.op.room)
                .and_then(|index| self.rooms.get(*index));
            let released = room.map_or(0, |room| room.gate.released());
            self.commits.acknowledge_too_early(&write, released, ctx);
        }
        self.commits.take(write, ctx);
    }

    /// Takes what a batch brought.
    pub fn committed(&mut self, committed: Committed, ctx: &mut Context<'_>) {
        let Committed {
            events,
            created,
            blocks,
            suspect,
        } = committed;
        let relays = ctx.config.peers == Peers::Relay;
        let joined = Self::joined_by(&events);
        for (event, received_us) in events {
            // Nobody here has asked for a room that is not held: whoever does will read it.
            let held = self.index.get(&event.room_id).copied();
            if held.is_none() && !relays {
                continue;
            }
            let encoded = EncodedEvent::of(&event);
            if relays {
                self.publish(event.room_id, &encoded, ctx);
            }
            if let Some(index) = held {
                let passed = Passed {
                    received_us,
                    committed_us: ctx.now.mono_us,
                };
                self.offer(index, encoded, passed, ctx);
            }
        }
        for (room, users) in joined {
            Self::publish_added(room, &users, ctx);
            // Of a room that is held its gate tells, in its turn.
            if !self.index.contains_key(&room) {
                self.tell_added(room, users, ctx);
            }
        }
        for (room, users) in created {
            Self::publish_added(room, &users, ctx);
            self.tell_added(room, users, ctx);
        }
        for block in blocks {
            Self::publish_block(block, ctx);
            Self::tell_block(block, ctx);
        }
        for room in suspect {
            if self.index.contains_key(&room) && !self.heads_queue.contains(&room) {
                self.heads_queue.push_front(room);
            }
        }
        self.compare_heads(ctx);
    }

    /// Time has passed.
    pub fn tick(&mut self, ctx: &mut Context<'_>) {
        self.commits.tick(ctx);
        self.tick_relay(ctx);
        self.tick_typing(ctx);
        self.tick_receipts(ctx);
        let now_ms = ctx.now_ms();
        let mut idle = Vec::new();
        let mut late = Vec::new();
        let mut behind = Vec::new();
        let asked = self.follows.compare_at_ms.is_some_and(|at| at <= now_ms);
        let round = asked || now_ms >= self.heads_round_ms + ctx.heads_poll_ms();
        for (index, room) in &self.rooms {
            if round && !room.listeners.is_empty() {
                self.heads_queue.push_back(room.id);
            }
            if room.open && room.head > room.gate.released() && !room.fetching {
                behind.push(index);
            }
            let late_ms = now_ms.saturating_sub(limits::SIGN_IN_MS_MAX);
            if room
                .waiting
                .iter()
                .any(|waiting| waiting.since_ms < late_ms)
            {
                late.push(index);
            }
            let unused = room.listeners.is_empty() && room.waiting.is_empty() && room.open;
            if unused && now_ms >= room.idle_since_ms + limits::ROOM_IDLE_MS {
                idle.push(index);
            }
        }
        if round {
            self.heads_round_ms = now_ms;
            self.follows.compare_at_ms = None;
        }
        for index in behind {
            self.fetch(index, ctx);
        }
        for index in late {
            self.give_up_waiting(index, ctx);
        }
        for index in idle {
            let room = self.rooms.remove(index);
            self.window_bytes -= room.window.bytes();
            self.index.remove(&room.id);
            self.typing.forget(room.id);
            self.receipts.forget(room.id);
            self.unfollow(room.id, ctx);
        }
        self.open_rooms(ctx);
        self.compare_heads(ctx);
    }

    /// Gives lagging listeners what they are owed, as far as the mesh has room.
    pub fn catch_up(&mut self, ctx: &mut Context<'_>) {
        if self.lagging.is_empty() {
            return;
        }
        for (room, shard) in std::mem::take(&mut self.lagging) {
            if let Some(index) = self.index.get(&room).copied() {
                self.advance(index, shard, ctx);
            }
        }
    }

    pub(super) fn room_mut(&mut self, room: RoomId) -> Option<&mut HomeRoom> {
        self.index
            .get(&room)
            .and_then(|index| self.rooms.get_mut(*index))
    }

    /// The place of a room, which is opened if it is not held yet.
    pub(super) fn room_at(&mut self, room: RoomId, ctx: &mut Context<'_>) -> usize {
        if let Some(index) = self.index.get(&room) {
            return *index;
        }
        let index = self.rooms.insert(HomeRoom {
            id: room,
            open: false,
            gate: Gate::new(0),
            window: Window::default(),
            members: Vec::new(),
            severed: false,
            listeners: Vec::new(),
            waiting: Vec::new(),
            head: 0,
            floor: 0,
            erased: 0,
            fetching: false,
            filling: false,
            gap_noted: false,
            touched: false,
            idle_since_ms: ctx.now_ms(),
        });
        self.index.insert(room, index);
        self.follow(room, ctx);
        index
    }

    pub(super) fn offer(
        &mut self,
        index: usize,
        event: EncodedEvent,
        passed: Passed,
        ctx: &mut Context<'_>,
    ) {
        let room = &mut self.rooms[index];
        room.head = room.head.max(event.seq);
        room.gate.offer(event, passed);
        if room.open {
            self.release(index, ctx);
            if self.rooms[index].gate.waits() {
                self.mind_the_gap(index, ctx);
            }
        }
    }

    /// Lets every event pass whose turn it is.
    pub(super) fn release(&mut self, index: usize, ctx: &mut Context<'_>) {
        let now_us = ctx.now.mono_us;
        let mut joined: Vec<UserId> = Vec::new();
        let mut released = false;
        loop {
            let room = &mut self.rooms[index];
            #[cfg(feature = "sabotage")]
            let event = match ctx.config.sabotage.is(Sabotage::GateSkipped) {
                true => room.gate.release_unordered(),
                false => room.gate.release(),
            };
            #[cfg(not(feature = "sabotage"))]
            let event = room.gate.release();
            let Some((event, passed)) = event else { break };
            if passed.committed_us > 0 {
                let elapsed_us = now_us.saturating_sub(passed.committed_us);
                ctx.stats.committed_to_published.record(elapsed_us);
            }
            released = true;
            ctx.stats.events_released += 1;
            match event.membership {
                Some(Membership::Joined(user)) => {
                    if let Err(place) = room.members.binary_search(&user) {
                        room.members.insert(place, user);
                    }
                    joined.push(user);
                }
                Some(Membership::Left(user) | Membership::Erased(user)) => {
                    if let Ok(place) = room.members.binary_search(&user) {
                        room.members.remove(place);
                    }
                    joined.retain(|other| *other != user);
                    self.typing.left(room.id, user);
                    self.receipts.left(room.id, user);
                }
                None => (),
            }
            let seq = event.seq;
            if let Some(Membership::Erased(_)) = event.membership {
                // What they wrote is in its frames; the store tells it again without.
                self.window_bytes -= room.window.bytes();
                room.window.clear();
                room.erased = seq;
            }
            let stamps = Stamps {
                received_us: passed.received_us,
                published_us: now_us,
            };
            let frame = Frame::of(event, stamps);
            if ctx.config.sabotage.is(Sabotage::GateSkipped) {
                self.window_bytes -= room.window.bytes();
                room.window.clear();
            }
            let bytes_before = room.window.bytes();
            room.window.push(seq, frame.clone());
            room.touched = true;
            self.window_bytes = self.window_bytes + room.window.bytes() - bytes_before;
            let id = room.id;
            for listener in &mut room.listeners {
                if ctx.config.sabotage.is(Sabotage::GateSkipped) {
                    listener.cursor = seq;
                }
                if listener.cursor == seq && ctx.takes_events(listener.shard) {
                    listener.cursor += 1;
                    ctx.deliver(listener.shard, id, seq, &frame);
                } else if listener.cursor == seq {
                    self.lagging.push((id, listener.shard));
                }
            }
        }
        if !joined.is_empty() {
            let room = self.rooms[index].id;
            self.tell_added(room, joined.into(), ctx);
        }
        if released {
            self.answer_waiting(index, ctx);
            self.bound_windows(ctx);
        }
    }

    /// Gives one listener what it is owed, from the window or else from the store.
    fn advance(&mut self, index: usize, shard: ShardIx, ctx: &mut Context<'_>) {
        let room = &mut self.rooms[index];
        let (id, released) = (room.id, room.gate.released());
        let Some(listener) = room.listener_mut(shard) else {
            return;
        };
        let mut cursor = listener.cursor;
        if listener.fetching {
            return;
        }
        while cursor <= released && ctx.takes_events(shard) {
            let Some(frame) = room.window.get(cursor) else {
                break;
            };
            ctx.deliver(shard, id, cursor, frame);
            cursor += 1;
        }
        let missing = cursor <= released && !room.window.holds(cursor);
        let fetch = missing && ctx.takes_events(shard) && self.fetches < limits::FETCHES_MAX;
        if let Some(listener) = room.listener_mut(shard) {
            listener.cursor = cursor;
            listener.fetching = fetch;
        }
        if fetch {
            self.fetches += 1;
            let ticket = ctx.call(StoreCall::Events(EventsRead {
                room: id,
                after: cursor - 1,
                to: released,
                events_max: limits::REPLAY_EVENTS_MAX,
                bytes_max: limits::REPLAY_BYTES_MAX,
                newest: false,
            }));
            self.calls.insert(ticket, Call::CatchUp { shard, room: id });
        } else if cursor <= released {
            self.lagging.push((id, shard));
        }
    }

    pub(super) fn tell_added(&mut self, room: RoomId, users: Arc<[UserId]>, ctx: &mut Context<'_>) {
        for shard in 0..ctx.config.shards {
            if ctx.takes_events(shard) {
                ctx.tell(
                    shard,
                    MeshMessage::Added {
                        room,
                        users: users.clone(),
                    },
                );
            }
        }
    }

    /// Answers everybody whose answer is known.
    pub(super) fn answer_waiting(&mut self, index: usize, ctx: &mut Context<'_>) {
        let room = &mut self.rooms[index];
        if !room.open || room.waiting.is_empty() {
            return;
        }
        let (mut fetch, mut fill) = (false, false);
        let mut still = Vec::new();
        for waiting in std::mem::take(&mut room.waiting) {
            match room.answer(&waiting) {
                Answer::Say(outcome) => {
                    if let Subscribed::From { .. } = outcome {
                        room.listen(waiting.shard);
                        self.receipts.tell_again(room.id, ctx.now_ms());
                    }
                    ctx.tell(
                        waiting.shard,
                        MeshMessage::Subscribed {
                            conn: waiting.conn,
                            room: room.id,
                            epoch: ctx.config.epoch,
                            outcome,
                        },
                    );
                }
                Answer::Behind => {
                    fetch = true;
                    still.push(waiting);
                }
                Answer::Fill => {
                    fill = true;
                    still.push(waiting);
                }
            }
        }
        room.waiting = still;
        if fetch {
            self.fetch(index, ctx);
        }
        if fill {
            self.fill(index, ctx);
        }
    }

    fn give_up_waiting(&mut self, index: usize, ctx: &mut Context<'_>) {
        let room = &mut self.rooms[index];
        for waiting in room.waiting.drain(..) {
            let outcome = Subscribed::Unavailable;
            let message = MeshMessage::Subscribed {
                conn: waiting.conn,
                room: room.id,
                epoch: ctx.config.epoch,
                outcome,
            };
            ctx.tell(waiting.shard, message);
        }
    }
}

enum Answer {
    Say(Subscribed),
    /// The gate must catch up with the store first.
    Behind,
    /// The window must be filled first.
    Fill,
}

impl HomeRoom {
    fn answer(&self, waiting: &Waiting) -> Answer {
        let released = self.gate.released();
        let wanted = waiting.asked.after.unwrap_or(0).max(waiting.asked.head);
        if wanted > released {
            return Answer::Behind;
        }
        if self.members.binary_search(&waiting.user).is_err() {
            return Answer::Say(Subscribed::NotAMember);
        }
        // Live events begin where this shard is, which may lag behind the gate.
        let position = self
            .listeners
            .iter()
            .find(|listener| listener.shard == waiting.shard)
            .map_or(released, |listener| listener.cursor - 1);
        let replay = match waiting.asked.after {
            None => Replayable::NotAsked,
            Some(after) if after >= released => Replayable::Bytes(0),
            Some(after) if after < self.floor => Replayable::Expired,
            Some(after) if released - after > limits::REPLAY_EVENTS_MAX as Seq => {
                Replayable::TooMuch
            }
            Some(after) if self.window.covers(after) => {
                Replayable::Bytes(self.window.after(after).map(|(_, frame)| frame.len()).sum())
            }
            Some(_) if waiting.filled => Replayable::TooMuch,
            Some(_) => return Answer::Fill,
        };
        Answer::Say(Subscribed::From { position, replay })
    }

    pub(super) fn listen(&mut self, shard: ShardIx) {
        if self
            .listeners
            .iter()
            .all(|listener| listener.shard != shard)
        {
            let cursor = self.gate.released() + 1;
            self.listeners.push(Listener {
                shard,
                cursor,
                fetching: false,
            });
        }
    }

    pub(super) fn listener_mut(&mut self, shard: ShardIx) -> Option<&mut Listener> {
        self.listeners
            .iter_mut()
            .find(|listener| listener.shard == shard)
    }
}

/// The frame of an event that was read, of which no stage is measured.
pub(super) fn encode(event: &RoomEvent) -> Frame {
    Frame::of(EncodedEvent::of(event), Stamps::default())
}

#[cfg(test)]
mod tests {
    use super::super::bus::{Bus, Local};
    use super::super::port::{EventsPage, OpenedRoom};
    use super::super::stats::Stats;
    use super::super::{CoreConfig, Now};
    use super::*;
    use crate::protocol::event::RoomEventBody;
    use crate::protocol::view::{MemberJoined, Role, RoomKind, UserErased};
    use crate::protocol::{Epoch, UnixMs};
    use uuid::Uuid;

    /// Right after a room was made nobody may have asked for it yet.
    #[test]
    fn a_new_member_of_a_room_that_nobody_holds_is_told_at_once() {
        let user = |n| UserId(Uuid::from_u128(n));
        let room = RoomId(Uuid::from_u128(7));
        let event = RoomEvent {
            room_id: room,
            seq: 2,
            ts: UnixMs(1),
            body: RoomEventBody::MemberJoined(MemberJoined {
                user_id: user(2),
                name: "Bob".to_owned(),
                actor_id: user(1),
                role: Role::Member,
            }),
        };
        let config = CoreConfig::new("test", 1, Epoch(1));
        let (mut bus, mut stats, mut effects) = (Bus::new(1, 1), Stats::default(), Vec::new());
        let mut ctx = Context {
            now: Now::default(),
            config: &config,
            shard: 0,
            bus: &mut bus,
            stats: &mut stats,
            effects: &mut effects,
        };
        let committed = Committed {
            events: vec![(event, 0)],
            ..Committed::default()
        };
        Home::new(1).committed(committed, &mut ctx);
        let told = bus.local.pop_front();
        let Some(Local::Message(MeshMessage::Added { room: of, users })) = told else {
            panic!("{told:?}");
        };
        assert_eq!((of, &*users), (room, &[user(2)][..]));
    }

    /// What a window held of an erased user may not be told again, nor what was read before the store had
    /// erased them.
    #[test]
    fn a_window_is_given_up_when_a_user_is_erased() {
        let user = |n| UserId(Uuid::from_u128(n));
        let room = RoomId(Uuid::from_u128(7));
        let event = |seq, body| RoomEvent {
            room_id: room,
            seq,
            ts: UnixMs(1),
            body,
        };
        let joined = || {
            event(
                1,
                RoomEventBody::MemberJoined(MemberJoined {
                    user_id: user(2),
                    name: "Bob".to_owned(),
                    actor_id: user(1),
                    role: Role::Member,
                }),
            )
        };
        let erased = event(
            2,
            RoomEventBody::UserErased(UserErased {
                user_id: user(2),
                erased_as: user(9),
                deleted_at: UnixMs(1),
                owner_id: None,
                reactions: Vec::new(),
                reactions_more: false,
            }),
        );
        let config = CoreConfig::new("test", 1, Epoch(1));
        let (mut bus, mut stats, mut effects) = (Bus::new(1, 1), Stats::default(), Vec::new());
        let mut ctx = Context {
            now: Now::default(),
            config: &config,
            shard: 0,
            bus: &mut bus,
            stats: &mut stats,
            effects: &mut effects,
        };
        let mut home = Home::new(1);
        let index = home.room_at(room, &mut ctx);
        let opened = OpenedRoom {
            last_seq: 0,
            kind: RoomKind::Group,
            members: vec![(user(1), Role::Owner)],
            severed: false,
            floor: 0,
        };
        home.opened(room, Some(opened), &mut ctx);
        for event in [joined(), erased] {
            home.offer(index, EncodedEvent::of(&event), Passed::default(), &mut ctx);
        }
        assert_eq!(home.rooms[index].members, [user(1)]);
        assert_eq!(home.rooms[index].window.first(), Some(2));
        assert_eq!(home.window_bytes, home.rooms[index].window.bytes());
        for (last_seq, is_kept) in [(1, false), (2, true)] {
            let page = EventsPage {
                events: vec![joined()],
                last_seq,
                floor: 0,
            };
            home.filled(room, Some(page), &mut ctx);
            assert_eq!(home.rooms[index].window.holds(1), is_kept);
        }
    }
}
