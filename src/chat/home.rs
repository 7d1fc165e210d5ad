//! A shard as the home of rooms: it alone orders their events on this node and says who hears
//! them.
//!
//! Invariants: a room's events leave by `seq` ([`super::gate`]), each encoded once; every shard
//! that listens gets each event after the one it began with, in order, once: `cursor` is the next
//! one it is owed; who is subscribed changes when the gate releases the event that says so.
//!
//! Next: [`super::fanout`] on each shard that listens.

use super::bus::{Context, MeshMessage, Packed, Replayable, Subscribe, SubscribeRoom, Subscribed};
use super::commits::{Commits, Committed};
use super::frame::{Frame, Stamps};
use super::gate::Gate;
use super::map::{Map, Seeded};
use super::port::{EventsPage, EventsRead, OpenedRoom, StoreAnswer, StoreCall, StoreError, Ticket};
use super::sabotage::Sabotage;
use super::window::Window;
use super::{ConnId, ShardIx};
use crate::limits;
use crate::protocol::event::{Membership, RoomEvent};
use crate::protocol::{RoomId, Seq, UserId, websocket};
use slab::Slab;
use std::collections::VecDeque;
use std::sync::Arc;

/// The rooms that a shard is home to.
#[derive(Debug)]
pub struct Home {
    rooms: Slab<HomeRoom>,
    index: Map<RoomId, usize>,
    /// This shard's writes.
    pub commits: Commits,
    calls: Map<Ticket, Call>,
    to_open: Vec<RoomId>,
    opening: bool,
    /// Rooms to compare with the store in this round.
    heads_queue: VecDeque<RoomId>,
    heads_under_way: bool,
    heads_round_ms: u64,
    /// Listeners that are owed events because the mesh was full.
    lagging: Vec<(RoomId, ShardIx)>,
    /// Where the search for a window to give up goes on.
    clock_hand: usize,
    window_bytes: usize,
    fetches: usize,
}

#[derive(Debug)]
struct HomeRoom {
    id: RoomId,
    open: bool,
    gate: Gate,
    window: Window,
    /// Sorted.
    members: Vec<UserId>,
    listeners: Vec<Listener>,
    waiting: Vec<Waiting>,
    /// The newest event that the store is known to have.
    head: Seq,
    /// Events with `seq` ≤ this are no longer kept by the store.
    floor: Seq,
    fetching: bool,
    filling: bool,
    /// The window was looked at since the clock hand last passed.
    touched: bool,
    /// Since when nobody listens, ms.
    idle_since_ms: u64,
}

/// A shard that listens.
#[derive(Clone, Copy, Debug)]
struct Listener {
    shard: ShardIx,
    /// The next event it is owed.
    cursor: Seq,
    /// What it is owed is being read, since the window has it no longer.
    fetching: bool,
}

/// A connection that waits for its answer.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    shard: ShardIx,
    conn: ConnId,
    user: UserId,
    asked: SubscribeRoom,
    since_ms: u64,
    /// The window was filled for it: what it does not cover now is too much.
    filled: bool,
}

#[derive(Debug)]
enum Call {
    Open(Vec<RoomId>),
    Heads,
    Fetch(RoomId),
    Fill(RoomId),
    Pull {
        shard: ShardIx,
        conn: ConnId,
        room: RoomId,
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
    pub fn forget(&mut self) {
        self.rooms.clear();
        self.index.clear();
        self.to_open.clear();
        self.heads_queue.clear();
        self.lagging.clear();
        self.window_bytes = 0;
        self.clock_hand = 0;
        self.calls
            .retain(|_, call| matches!(call, Call::Open(_) | Call::Heads));
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

    /// The next stretch of a replay.
    pub fn pull(
        &mut self,
        shard: ShardIx,
        conn: ConnId,
        room_id: RoomId,
        after: Seq,
        ctx: &mut Context<'_>,
    ) {
        let pulled = |frames| MeshMessage::Pulled {
            conn,
            room: room_id,
            frames,
        };
        let Some(room) = self
            .index
            .get(&room_id)
            .and_then(|index| self.rooms.get_mut(*index))
        else {
            return ctx.tell(shard, pulled(None));
        };
        // Never beyond what the shard was delivered, or the connection would hear it twice.
        let Some(listener) = room
            .listeners
            .iter()
            .find(|listener| listener.shard == shard)
        else {
            return ctx.tell(shard, pulled(None));
        };
        let to = listener.cursor - 1;
        if after >= to {
            return ctx.tell(shard, pulled(Some(Vec::new())));
        }
        if room.window.covers(after) {
            room.touched = true;
            let mut bytes = 0;
            let frames = room
                .window
                .after(after)
                .take_while(|(seq, frame)| {
                    bytes += frame.len();
                    *seq <= to && (bytes <= ctx.config.replay_pull_bytes() || bytes == frame.len())
                })
                .map(|(seq, frame)| (seq, Packed::of(frame)))
                .collect();
            return ctx.tell(shard, pulled(Some(frames)));
        }
        if self.fetches >= limits::FETCHES_MAX {
            return ctx.tell(shard, pulled(None));
        }
        self.fetches += 1;
        let ticket = ctx.call(StoreCall::Events(EventsRead {
            room: room_id,
            after,
            to,
            events_max: limits::REPLAY_EVENTS_MAX,
            bytes_max: ctx.config.replay_pull_bytes(),
            newest: false,
        }));
        self.calls.insert(
            ticket,
            Call::Pull {
                shard,
                conn,
                room: room_id,
            },
        );
    }

    /// Takes what a batch brought.
    pub fn committed(&mut self, committed: Committed, ctx: &mut Context<'_>) {
        let Committed {
            events,
            created,
            suspect,
        } = committed;
        for (event, received_us) in events {
            // Nobody here has asked for a room that is not held: whoever does will read it.
            if let Some(index) = self.index.get(&event.room_id).copied() {
                self.offer(index, event, received_us, ctx);
            }
        }
        for (room, users) in created {
            self.tell_added(room, users, ctx);
        }
        for room in suspect {
            if self.index.contains_key(&room) && !self.heads_queue.contains(&room) {
                self.heads_queue.push_front(room);
            }
        }
        self.compare_heads(ctx);
    }

    /// Whether this call is one of ours.
    pub fn awaits(&self, ticket: Ticket) -> bool {
        self.calls.contains_key(&ticket)
    }

    /// Takes an answer of the store.
    pub fn answered(
        &mut self,
        ticket: Ticket,
        result: Result<StoreAnswer, StoreError>,
        ctx: &mut Context<'_>,
    ) {
        let Some(call) = self.calls.remove(&ticket) else {
            return;
        };
        match (call, result) {
            (Call::Open(rooms), Ok(StoreAnswer::OpenRooms(opened))) => {
                self.opening = false;
                for (room, opened) in rooms.into_iter().zip(opened) {
                    self.opened(room, opened, ctx);
                }
                self.open_rooms(ctx);
            }
            (Call::Open(rooms), _) => {
                self.opening = false;
                self.to_open.extend(rooms);
            }
            (Call::Heads, Ok(StoreAnswer::Heads { rooms, .. })) => {
                self.heads_under_way = false;
                for (room, last_seq) in rooms {
                    self.heard_of(room, last_seq, ctx);
                }
                self.compare_heads(ctx);
            }
            (Call::Heads, _) => self.heads_under_way = false,
            (Call::Fetch(room), Ok(StoreAnswer::Events(page))) => {
                self.fetches -= 1;
                self.fetched(room, page, ctx);
            }
            (Call::Fetch(room), _) => {
                self.fetches -= 1;
                if let Some(room) = self.room_mut(room) {
                    room.fetching = false;
                }
            }
            (Call::Fill(room), result) => {
                self.fetches -= 1;
                let page = match result {
                    Ok(StoreAnswer::Events(page)) => Some(page),
                    _ => None,
                };
                self.filled(room, page, ctx);
            }
            (Call::Pull { shard, conn, room }, result) => {
                self.fetches -= 1;
                let frames = match result {
                    Ok(StoreAnswer::Events(page)) => Some(
                        page.events
                            .iter()
                            .map(|event| (event.seq, Packed::of(&encode(event, Stamps::default()))))
                            .collect(),
                    ),
                    _ => None,
                };
                ctx.tell(shard, MeshMessage::Pulled { conn, room, frames });
            }
            (Call::CatchUp { shard, room }, result) => {
                self.fetches -= 1;
                let events = match result {
                    Ok(StoreAnswer::Events(page)) => page.events,
                    _ => Vec::new(),
                };
                self.caught_up(room, shard, &events, ctx);
            }
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, ctx: &mut Context<'_>) {
        self.commits.tick(ctx);
        let now_ms = ctx.now_ms();
        let mut idle = Vec::new();
        let mut late = Vec::new();
        let mut behind = Vec::new();
        let round = now_ms >= self.heads_round_ms + limits::HEADS_POLL_MS;
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

    fn room_mut(&mut self, room: RoomId) -> Option<&mut HomeRoom> {
        self.index
            .get(&room)
            .and_then(|index| self.rooms.get_mut(*index))
    }

    /// The place of a room, which is opened if it is not held yet.
    fn room_at(&mut self, room: RoomId, ctx: &mut Context<'_>) -> usize {
        if let Some(index) = self.index.get(&room) {
            return *index;
        }
        let index = self.rooms.insert(HomeRoom {
            id: room,
            open: false,
            gate: Gate::new(0),
            window: Window::default(),
            members: Vec::new(),
            listeners: Vec::new(),
            waiting: Vec::new(),
            head: 0,
            floor: 0,
            fetching: false,
            filling: false,
            touched: false,
            idle_since_ms: ctx.now_ms(),
        });
        self.index.insert(room, index);
        self.to_open.push(room);
        index
    }

    /// Asks for the state of rooms that are wanted; one call for all of them at a time.
    fn open_rooms(&mut self, ctx: &mut Context<'_>) {
        if self.opening || self.to_open.is_empty() {
            return;
        }
        self.opening = true;
        let count = self.to_open.len().min(limits::HEADS_MAX);
        let rooms: Vec<RoomId> = self.to_open.drain(..count).collect();
        let ticket = ctx.call(StoreCall::OpenRooms(rooms.clone()));
        self.calls.insert(ticket, Call::Open(rooms));
    }

    fn opened(&mut self, room: RoomId, opened: Option<OpenedRoom>, ctx: &mut Context<'_>) {
        let Some(index) = self.index.get(&room).copied() else {
            return;
        };
        let room = &mut self.rooms[index];
        if room.open {
            return;
        }
        room.open = true;
        if let Some(OpenedRoom {
            last_seq,
            kind: _,
            members,
        }) = opened
        {
            room.members = members.into_iter().map(|(user, _)| user).collect();
            room.members.sort_unstable();
            room.gate.open(last_seq);
            room.head = room.head.max(last_seq);
        }
        self.release(index, 0, ctx);
        self.answer_waiting(index, ctx);
    }

    fn offer(&mut self, index: usize, event: RoomEvent, received_us: u64, ctx: &mut Context<'_>) {
        let room = &mut self.rooms[index];
        room.head = room.head.max(event.seq);
        room.gate.offer(event);
        if room.open {
            self.release(index, received_us, ctx);
            if self.rooms[index].gate.waits() {
                self.fetch(index, ctx);
            }
        }
    }

    /// Lets every event pass whose turn it is.
    fn release(&mut self, index: usize, received_us: u64, ctx: &mut Context<'_>) {
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
            let Some(event) = event else { break };
            released = true;
            ctx.stats.events_released += 1;
            match event.membership() {
                Some(Membership::Joined(user)) => {
                    if let Err(place) = room.members.binary_search(&user) {
                        room.members.insert(place, user);
                    }
                    joined.push(user);
                }
                Some(Membership::Left(user)) => {
                    if let Ok(place) = room.members.binary_search(&user) {
                        room.members.remove(place);
                    }
                    joined.retain(|other| *other != user);
                }
                None => (),
            }
            let frame = encode(
                &event,
                Stamps {
                    received_us,
                    published_us: now_us,
                },
            );
            if ctx.config.sabotage.is(Sabotage::GateSkipped) {
                self.window_bytes -= room.window.bytes();
                room.window.clear();
            }
            let bytes_before = room.window.bytes();
            room.window.push(event.seq, frame.clone());
            room.touched = true;
            self.window_bytes = self.window_bytes + room.window.bytes() - bytes_before;
            let id = room.id;
            for listener in &mut room.listeners {
                if ctx.config.sabotage.is(Sabotage::GateSkipped) {
                    listener.cursor = event.seq;
                }
                if listener.cursor == event.seq && ctx.takes_events(listener.shard) {
                    listener.cursor += 1;
                    ctx.deliver(listener.shard, id, event.seq, &frame);
                } else if listener.cursor == event.seq {
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

    /// Gives a lagging listener what was read for it.
    fn caught_up(
        &mut self,
        room_id: RoomId,
        shard: ShardIx,
        events: &[RoomEvent],
        ctx: &mut Context<'_>,
    ) {
        let Some(listener) = self
            .room_mut(room_id)
            .and_then(|room| room.listener_mut(shard))
        else {
            return;
        };
        listener.fetching = false;
        for event in events {
            if listener.cursor == event.seq && ctx.takes_events(shard) {
                listener.cursor += 1;
                ctx.deliver(shard, room_id, event.seq, &encode(event, Stamps::default()));
            }
        }
        self.lagging.push((room_id, shard));
    }

    fn tell_added(&mut self, room: RoomId, users: Arc<[UserId]>, ctx: &mut Context<'_>) {
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

    /// The store has this event: if the gate has not, it is fetched.
    fn heard_of(&mut self, room: RoomId, last_seq: Seq, ctx: &mut Context<'_>) {
        let Some(index) = self.index.get(&room).copied() else {
            return;
        };
        let room = &mut self.rooms[index];
        room.head = room.head.max(last_seq);
        if room.open && room.head > room.gate.released() {
            self.fetch(index, ctx);
        }
    }

    /// Reads the events after the last one released.
    fn fetch(&mut self, index: usize, ctx: &mut Context<'_>) {
        let room = &mut self.rooms[index];
        if room.fetching || self.fetches >= limits::FETCHES_MAX {
            return;
        }
        room.fetching = true;
        self.fetches += 1;
        ctx.stats.gate_fetches += 1;
        let ticket = ctx.call(StoreCall::Events(EventsRead {
            room: room.id,
            after: room.gate.released(),
            to: Seq::MAX,
            events_max: limits::REPLAY_EVENTS_MAX,
            bytes_max: limits::REPLAY_BYTES_MAX,
            newest: false,
        }));
        self.calls.insert(ticket, Call::Fetch(room.id));
    }

    fn fetched(&mut self, room: RoomId, page: EventsPage, ctx: &mut Context<'_>) {
        let Some(index) = self.index.get(&room).copied() else {
            return;
        };
        let room = &mut self.rooms[index];
        room.fetching = false;
        room.floor = page.floor;
        room.head = room.head.max(page.last_seq);
        let progress = !page.events.is_empty();
        for event in page.events {
            room.gate.offer(event);
        }
        self.release(index, 0, ctx);
        let room = &self.rooms[index];
        if progress && room.head > room.gate.released() {
            self.fetch(index, ctx);
        }
    }

    /// Reads what stands before the window, for those who resume.
    fn fill(&mut self, index: usize, ctx: &mut Context<'_>) {
        let room = &mut self.rooms[index];
        if room.filling || self.fetches >= limits::FETCHES_MAX {
            return;
        }
        room.filling = true;
        self.fetches += 1;
        let released = room.gate.released();
        let ticket = ctx.call(StoreCall::Events(EventsRead {
            room: room.id,
            after: released.saturating_sub(limits::REPLAY_EVENTS_MAX as Seq),
            to: released,
            events_max: limits::REPLAY_EVENTS_MAX,
            bytes_max: limits::REPLAY_BYTES_MAX,
            newest: true,
        }));
        self.calls.insert(ticket, Call::Fill(room.id));
    }

    fn filled(&mut self, room: RoomId, page: Option<EventsPage>, ctx: &mut Context<'_>) {
        let Some(index) = self.index.get(&room).copied() else {
            return;
        };
        let room = &mut self.rooms[index];
        room.filling = false;
        let Some(page) = page else { return };
        room.floor = page.floor;
        room.touched = true;
        let bytes_before = room.window.bytes();
        let last = page.events.last().map_or(0, |event| event.seq);
        if room.window.is_empty() && last == room.gate.released() {
            for event in &page.events {
                room.window
                    .push(event.seq, encode(event, Stamps::default()));
            }
        } else {
            for event in page.events.iter().rev() {
                if !room.window.holds(event.seq)
                    && !room
                        .window
                        .push_front(event.seq, encode(event, Stamps::default()))
                {
                    break;
                }
            }
        }
        self.window_bytes = self.window_bytes + room.window.bytes() - bytes_before;
        for waiting in &mut room.waiting {
            waiting.filled = true;
        }
        self.answer_waiting(index, ctx);
        self.bound_windows(ctx);
    }

    /// Answers everybody whose answer is known.
    fn answer_waiting(&mut self, index: usize, ctx: &mut Context<'_>) {
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
                    }
                    ctx.tell(
                        waiting.shard,
                        MeshMessage::Subscribed {
                            conn: waiting.conn,
                            room: room.id,
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
                outcome,
            };
            ctx.tell(waiting.shard, message);
        }
    }

    /// Compares the next rooms with the store; one call at a time.
    fn compare_heads(&mut self, ctx: &mut Context<'_>) {
        if self.heads_under_way || self.heads_queue.is_empty() {
            return;
        }
        self.heads_under_way = true;
        let count = self.heads_queue.len().min(limits::HEADS_MAX);
        let rooms = self.heads_queue.drain(..count).collect();
        let ticket = ctx.call(StoreCall::Heads {
            rooms,
            users: Vec::new(),
        });
        self.calls.insert(ticket, Call::Heads);
    }

    /// Gives up windows that were not looked at for a while, when all of them are too much (the
    /// clock algorithm).
    fn bound_windows(&mut self, ctx: &Context<'_>) {
        let mut steps = 2 * self.rooms.capacity();
        while self.window_bytes > ctx.config.windows_bytes_max && steps > 0 {
            steps -= 1;
            self.clock_hand = (self.clock_hand + 1) % self.rooms.capacity().max(1);
            let Some(room) = self.rooms.get_mut(self.clock_hand) else {
                continue;
            };
            if room.touched {
                room.touched = false;
            } else {
                self.window_bytes -= room.window.bytes();
                room.window.clear();
            }
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

    fn listen(&mut self, shard: ShardIx) {
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

    fn listener_mut(&mut self, shard: ShardIx) -> Option<&mut Listener> {
        self.listeners
            .iter_mut()
            .find(|listener| listener.shard == shard)
    }
}

/// The one encoding of an event.
fn encode(event: &RoomEvent, stamps: Stamps) -> Frame {
    Frame::event(
        websocket::encode_text(&event.to_json()),
        stamps,
        event.membership(),
    )
}
