//! Open-loop load: every message has a due time from the beginning, and latencies count from it, so
//! that a stall of the server (or of this process) shows instead of slowing the load.

use super::{Phase, State, Timer, World};
use crate::engine::Engine;
use crate::identity;
use crate::ids::{ChangeNumber, ClientIndex, MessageNumber, NodeIndex, RoomIndex, Slot};
use crate::limits::{SEND_ATTEMPTS_MAX, UNACKED_PER_CLIENT_MAX};
use crate::mix::OpKind;
use crate::wire;

/// Messages sent in one turn at most: after a long stall the sockets get their turn in between.
const SENDS_PER_TURN_MAX: u32 = 4096;

/// A stream of messages at a constant rate, over all rooms in turn and, within a room, over its
/// senders in turn.
pub struct Load {
    rate_per_s: f64,
    began_us: u64,
    until_us: u64,
    sent: u64,
    /// Rooms in the order in which they are due.
    order: Vec<RoomIndex>,
}

impl Load {
    pub(super) fn next_due_us(&self) -> u64 {
        let due_us = self.due_us(self.sent);
        if due_us < self.until_us {
            due_us
        } else {
            u64::MAX
        }
    }

    fn due_us(&self, place: u64) -> u64 {
        self.began_us + (place as f64 * 1e6 / self.rate_per_s) as u64
    }
}

impl World {
    /// Begins to send `rate_per_s` messages a second over all rooms, for at most `limit`.
    pub fn begin_load(&mut self, rate_per_s: f64, limit: std::time::Duration) {
        let rooms = self.state.rooms.len() as u32;
        let mut order: Vec<RoomIndex> = (0..rooms).map(RoomIndex).collect();
        self.state.random.shuffle(&mut order);
        let began_us = self.state.clock.now_us();
        self.state.load = (rate_per_s > 0.0 && rooms > 0).then(|| Load {
            rate_per_s,
            began_us,
            until_us: began_us + crate::clock::us(limit),
            sent: 0,
            order,
        });
    }

    pub fn end_load(&mut self) {
        self.state.load = None;
    }

    /// Sends one message from a room's so-many-th member now.
    pub fn send_now(&mut self, room: RoomIndex, slot: Slot) {
        let now_us = self.state.clock.now_us();
        let engine = &mut self.engine;
        self.state.send_new(engine, room, slot, now_us, (0, None));
    }

    pub fn rooms(&self) -> u32 {
        self.state.rooms.len() as u32
    }

    pub fn members(&self, room: RoomIndex) -> &[ClientIndex] {
        &self.state.rooms[room.index()].members
    }

    /// Takes the witness back to a snapshot of the checker (see `Checker::restore`): what was sent
    /// since then is dropped, what was open then will be sent again.
    pub fn restore(&mut self, snapshot: crate::checker::Checker) {
        let state = &mut self.state;
        state.load = None;
        for client in &mut state.clients {
            client.unacked.clear();
            client.open_changes.clear();
        }
        state.unacked = 0;
        state.open_changes = 0;
        let known = snapshot.messages().len();
        state.checker.restore(snapshot);
        for number in 0..known as u32 {
            let number = MessageNumber(number);
            let Some(sent) = state.checker.message(number) else {
                continue;
            };
            if sent.outcome == crate::checker::Outcome::Open {
                let client = state.rooms[sent.room.index()].members[sent.slot.index()];
                state.clients[client.index()].unacked.push_back(number);
                state.unacked += 1;
            }
        }
        for (place, asked) in state.checker.changes().iter().enumerate() {
            if asked.outcome == crate::checker::Outcome::Open {
                let client = state.rooms[asked.room.index()].members[asked.slot.index()];
                let open = &mut state.clients[client.index()].open_changes;
                open.push_back(ChangeNumber(place as u32));
                state.open_changes += 1;
            }
        }
    }
}

impl State {
    pub(super) fn send_due(&mut self, engine: &mut Engine, now_us: u64) {
        for _ in 0..SENDS_PER_TURN_MAX {
            let Some(load) = &mut self.load else { return };
            let due_us = load.next_due_us();
            if due_us > now_us {
                return;
            }
            let rooms = load.order.len() as u64;
            let room = load.order[(load.sent % rooms) as usize];
            let round = load.sent / rooms;
            load.sent += 1;
            if self.mix.is_some() {
                self.mix_due(engine, room, due_us);
                continue;
            }
            let senders = u64::from(self.rooms[room.index()].senders.max(1));
            // Rooms begin with different members, so that not all first members write at once.
            let slot = Slot(((round + u64::from(room.0)) % senders) as u32);
            self.send_new(engine, room, slot, due_us, (0, None));
        }
    }

    /// A new message, perhaps an answer to another and with a member's name in it. Returns whether it
    /// was taken on.
    pub(super) fn send_new(
        &mut self,
        engine: &mut Engine,
        room: RoomIndex,
        slot: Slot,
        due_us: u64,
        (reply_to_seq, mention): (u64, Option<Slot>),
    ) -> bool {
        let client = self.rooms[room.index()].members[slot.index()];
        let it = &mut self.clients[client.index()];
        if it.unacked.len() >= UNACKED_PER_CLIENT_MAX || it.phase == Phase::Stopped {
            self.stats.not_sent += 1;
            return false;
        }
        let payload_bytes = self.settings.payload_bytes;
        let number = self.checker.add_message(room, slot, due_us, payload_bytes);
        self.checker.adorn(number, reply_to_seq, mention);
        self.clients[client.index()].unacked.push_back(number);
        self.unacked += 1;
        self.stats.sends += 1;
        if self.clients[client.index()].phase == Phase::Ready {
            self.transmit(engine, client, number);
            if self.stats.is_in_window(due_us) {
                let late_us = self.clock.now_us().saturating_sub(due_us);
                self.stats.lateness.record(late_us);
            }
        }
        true
    }

    /// Sends a message on the client's present connection, for the first time or again.
    pub(super) fn transmit(
        &mut self,
        engine: &mut Engine,
        client: ClientIndex,
        number: MessageNumber,
    ) {
        let it = &self.clients[client.index()];
        let (Phase::Ready, Some(id)) = (it.phase, it.conn) else {
            return;
        };
        let Some(sent) = self.checker.message(number) else {
            return;
        };
        let Some(room_id) = self.rooms[sent.room.index()].id else {
            return;
        };
        if self
            .mix
            .as_ref()
            .is_some_and(|mix| mix.more.sends.contains(&number))
        {
            // It is under way over HTTP.
            return;
        }
        if sent.attempts > 0 {
            self.stats.retries += 1;
        }
        let client_msg_id = self.ids.id(number, sent.due_us);
        let reply_to_seq = sent.reply_to_seq;
        let members = &self.rooms[sent.room.index()].members;
        let mention = sent
            .mention
            .map(|slot| identity::user_id(members[slot.index()]));
        let text = identity::json_escaped(&self.checker.text(number));
        let (upload, node) = (sent.upload, it.node);
        self.checker.attempted(number, it.connection);
        if self.sent_to.len() <= number.index() {
            self.sent_to
                .resize(number.index() + 1, NodeIndex::default());
        }
        self.sent_to[number.index()] = node;
        let frame = wire::message_send(
            number,
            room_id,
            client_msg_id,
            &text,
            reply_to_seq,
            mention,
            upload,
        );
        engine.send_text(id, frame.as_bytes());
    }

    pub(super) fn resend(&mut self, engine: &mut Engine, number: MessageNumber, connection: u32) {
        let Some(sent) = self.checker.message(number) else {
            return;
        };
        let client = self.rooms[sent.room.index()].members[sent.slot.index()];
        let it = &self.clients[client.index()];
        // A connection made since has sent it again already.
        if it.connection == connection && it.unacked.contains(&number) {
            self.transmit(engine, client, number);
        }
    }

    pub(super) fn send_refused(
        &mut self,
        client: ClientIndex,
        number: MessageNumber,
        error: &wire::ErrorBody,
        pause_us: u64,
    ) {
        let it = &self.clients[client.index()];
        if !it.unacked.contains(&number) {
            // A probe: the message itself has its answer.
            return;
        }
        let attempts = self.checker.message(number).map_or(0, |sent| sent.attempts);
        let kind = self.kind_sent(number);
        if let Some(counts) = self.mix_kind(kind) {
            counts.refused(&error.code);
        }
        let it = &self.clients[client.index()];
        if super::frames::is_temporary(&error.code) && attempts < SEND_ATTEMPTS_MAX {
            // Only `rate_limited` says that nothing was stored.
            if error.code != "rate_limited" {
                self.checker.uncertain(number);
            }
            let connection = it.connection;
            self.timer(pause_us, Timer::Resend(number, connection));
            return;
        }
        self.checker.refused(number, &error.code);
        self.settle(client, number);
    }

    /// As what a message was asked for.
    pub(super) fn kind_sent(&self, number: MessageNumber) -> OpKind {
        let mix = self.mix.as_ref();
        let kind = mix.and_then(|mix| mix.more.sent_as.get(&number).copied());
        kind.unwrap_or(OpKind::Send)
    }

    /// The message needs no more attempts.
    pub(super) fn settle(&mut self, client: ClientIndex, number: MessageNumber) {
        let unacked = &mut self.clients[client.index()].unacked;
        if let Some(place) = unacked.iter().position(|open| *open == number) {
            unacked.remove(place);
            self.unacked -= 1;
        }
    }
}
