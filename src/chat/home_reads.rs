//! What the home of rooms asks of the store: their state when they are opened, events that the gate
//! misses, events that a window, a replay or a lagging shard no longer finds, and now and then
//! whether anything happened that no event told.
//!
//! Invariants: a room has at most one read of each kind under way; all of a shard's reads together
//! are bounded ([`limits::FETCHES_MAX`]); a read that fails is tried again by the next tick or by
//! whoever still wants it.

use super::ShardIx;
use super::bus::{Context, MeshMessage, Packed, Stretch};
use super::gate::Passed;
use super::home::{Call, Home, encode};
use super::port::{EventsPage, EventsRead, OpenedRoom, StoreAnswer, StoreCall, StoreError, Ticket};
use crate::limits;
use crate::protocol::event::{EncodedEvent, RoomEvent};
use crate::protocol::{RoomId, Seq};
use std::collections::BTreeMap;

impl Home {
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
            (
                Call::Heads(asked),
                Ok(StoreAnswer::Heads {
                    rooms,
                    severed,
                    floors,
                    ..
                }),
            ) => {
                self.heads_under_way = false;
                self.severed_are(&asked, &severed, ctx);
                self.notice_a_lost_history(asked, &rooms, ctx);
                self.floors_are(&floors, ctx);
                for (room, last_seq) in rooms {
                    self.heard_of(room, last_seq, ctx);
                }
                self.compare_heads(ctx);
            }
            (Call::Heads(_), _) => self.heads_under_way = false,
            (Call::Renew, _) => self.renewing = false,
            (Call::Receipts, result) => self.receipts_written(result, ctx),
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
            (
                Call::Pull {
                    shard,
                    conn,
                    room,
                    after,
                },
                result,
            ) => {
                self.fetches -= 1;
                let frames = match result {
                    Ok(StoreAnswer::Events(page)) if page.floor > after => {
                        Stretch::Expired(page.floor)
                    }
                    Ok(StoreAnswer::Events(page)) => Stretch::Frames(
                        page.events
                            .iter()
                            .map(|event| (event.seq, Packed::of(&encode(event))))
                            .collect(),
                    ),
                    _ => Stretch::Later,
                };
                ctx.tell(shard, MeshMessage::Pulled { conn, room, frames });
            }
            (Call::CatchUp { shard, room }, result) => {
                self.fetches -= 1;
                let (events, floor) = match result {
                    Ok(StoreAnswer::Events(page)) => (page.events, page.floor),
                    _ => (Vec::new(), 0),
                };
                self.caught_up(room, shard, &events, ctx);
                self.floors_are(&[(room, floor)], ctx);
            }
        }
    }

    /// Asks for the state of rooms that are wanted; one call for all of them at a time.
    pub(super) fn open_rooms(&mut self, ctx: &mut Context<'_>) {
        if self.opening || self.to_open.is_empty() {
            return;
        }
        self.opening = true;
        let count = self.to_open.len().min(limits::HEADS_MAX);
        let rooms: Vec<RoomId> = self.to_open.drain(..count).collect();
        let ticket = ctx.call(StoreCall::OpenRooms(rooms.clone()));
        self.calls.insert(ticket, Call::Open(rooms));
    }

    pub(super) fn opened(
        &mut self,
        room: RoomId,
        opened: Option<OpenedRoom>,
        ctx: &mut Context<'_>,
    ) {
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
            severed,
            floor,
        }) = opened
        {
            room.floor = floor;
            room.members = members.into_iter().map(|(user, _)| user).collect();
            room.members.sort_unstable();
            room.severed = severed;
            room.gate.open(last_seq);
            room.head = room.head.max(last_seq);
        }
        self.release(index, ctx);
        self.answer_waiting(index, ctx);
    }

    /// Gives a lagging listener what was read for it.
    pub(super) fn caught_up(
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
                ctx.deliver(shard, room_id, event.seq, &encode(event));
            }
        }
        self.lagging.push((room_id, shard));
    }

    /// The store has this event: if the gate has not, it is fetched.
    pub(super) fn heard_of(&mut self, room: RoomId, last_seq: Seq, ctx: &mut Context<'_>) {
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
    pub(super) fn fetch(&mut self, index: usize, ctx: &mut Context<'_>) {
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

    pub(super) fn fetched(&mut self, room: RoomId, page: EventsPage, ctx: &mut Context<'_>) {
        let Some(index) = self.index.get(&room).copied() else {
            return;
        };
        let room = &mut self.rooms[index];
        room.fetching = false;
        room.head = room.head.max(page.last_seq);
        if page.floor < room.floor {
            // It was read before some of it was dropped.
            return self.fetch(index, ctx);
        }
        self.raise_floor(index, page.floor);
        self.expire(index, ctx);
        let room = &mut self.rooms[index];
        let progress = !page.events.is_empty();
        for event in page.events {
            room.gate.offer(EncodedEvent::of(&event), Passed::default());
        }
        self.release(index, ctx);
        let room = &self.rooms[index];
        if progress && room.head > room.gate.released() {
            self.fetch(index, ctx);
        }
    }

    /// Compares the next rooms with the store; one call at a time.
    pub(super) fn compare_heads(&mut self, ctx: &mut Context<'_>) {
        if self.heads_under_way || self.heads_queue.is_empty() {
            return;
        }
        self.heads_under_way = true;
        let count = self.heads_queue.len().min(limits::HEADS_MAX);
        let rooms: Vec<RoomId> = self.heads_queue.drain(..count).collect();
        let released_of = |room: &RoomId| {
            let index = self.index.get(room)?;
            let room = self.rooms.get(*index)?;
            Some((room.id, room.gate.released()))
        };
        let asked = rooms.iter().filter_map(released_of).collect();
        let ticket = ctx.call(StoreCall::Heads {
            rooms,
            users: Vec::new(),
        });
        self.calls.insert(ticket, Call::Heads(asked));
    }

    /// A store that has less than was released before it was asked has lost some of its history: a
    /// restored backup, or a replica that was promoted too early. Then everybody must start anew.
    fn notice_a_lost_history(
        &mut self,
        asked: Vec<(RoomId, Seq)>,
        found: &[(RoomId, Seq)],
        ctx: &mut Context<'_>,
    ) {
        let found: BTreeMap<RoomId, Seq> = found.iter().copied().collect();
        let has_less =
            |(room, released): &(RoomId, Seq)| found.get(room).copied().unwrap_or(0) < *released;
        if !self.renewing && asked.iter().any(has_less) {
            ctx.stats.anomalies += 1;
            self.renewing = true;
            let ticket = ctx.call(StoreCall::RenewEpoch(ctx.config.epoch));
            self.calls.insert(ticket, Call::Renew);
        }
    }
}
