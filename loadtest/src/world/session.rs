//! Connections of the clients: connect, `auth` with `resume`, `ready`, reconnect by the class of the
//! close code.

use clap::ValueEnum;
use uuid::Uuid;

use super::{Client, Early, Phase, SetupError, State, Timer, World};
use crate::checker::{AfterReady, Kind, Mark, ReadyRoom};
use crate::clock::us;
use crate::engine::{Closed, ConnId, ConnectOptions, Engine, Incoming};
use crate::identity;
use crate::ids::{ClientIndex, RoomIndex, Slot};
use crate::limits::{CONNECT_DEADLINE, LIVED_LONG, RESUME_ROOMS_MAX, SILENCE_MAX};
use crate::wire;

/// How a client's connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DropBy {
    /// A reset, as a cut cable or a crashed client.
    Reset,
    /// The end of the stream, as an exiting process.
    Fin,
    /// Without a word, as a phone that loses its network: the server has to notice by itself.
    BlackHole,
}

/// What the class of a close code asks of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AfterClose {
    Stop,
    Backoff,
    AtOnceIfLived,
}

fn after_close(closed: &Closed) -> AfterClose {
    match closed {
        Closed::Code(4000..=4099) => AfterClose::Stop,
        Closed::Code(4200..=4299) => AfterClose::AtOnceIfLived,
        Closed::Code(_)
        | Closed::NoCode
        | Closed::Http(_)
        | Closed::Lost(_)
        | Closed::Violation(_)
        | Closed::BadHandshake(_) => AfterClose::Backoff,
    }
}

fn close_name(closed: &Closed) -> String {
    match closed {
        Closed::Code(code) => code.to_string(),
        Closed::NoCode => "no_code".to_owned(),
        Closed::Http(status) => format!("http_{status}"),
        Closed::Lost(kind) => format!("{kind:?}"),
        Closed::Violation(error) => format!("violation: {}", error.as_str()),
        Closed::BadHandshake(what) => format!("bad handshake: {what}"),
    }
}

impl World {
    /// Wants these clients connected from now on.
    pub fn want(&mut self, clients: impl Iterator<Item = ClientIndex>) {
        for client in clients {
            let it = &mut self.state.clients[client.index()];
            if !it.is_wanted && it.phase != Phase::Stopped {
                it.is_wanted = true;
                it.failures = 0;
                self.state.connect_queue.push_back(client);
            }
        }
    }

    pub fn want_all(&mut self) {
        let clients = self.state.clients.len() as u32;
        self.want((0..clients).map(ClientIndex));
    }

    /// Drops these clients' connections and lets them stay away.
    pub fn drop_clients(&mut self, clients: impl Iterator<Item = ClientIndex>, by: DropBy) {
        for client in clients {
            let it = &mut self.state.clients[client.index()];
            it.is_wanted = false;
            it.is_roaming = false;
            if let Some(id) = it.conn {
                match by {
                    DropBy::Reset => self.engine.abort(id),
                    DropBy::Fin => self.engine.drop_silently(id),
                    DropBy::BlackHole => self.engine.abandon(id),
                }
                self.state.left(client);
            }
        }
    }

    /// How many connections were left without a word and are still held by the server.
    pub fn abandoned(&mut self) -> usize {
        self.engine.abandoned()
    }

    /// Nobody comes back any more once its connection ends.
    pub fn let_go(&mut self) {
        for client in &mut self.state.clients {
            client.is_wanted = false;
        }
    }

    /// Lets these clients stop reading, or read again: what comes meanwhile stays in their sockets.
    pub fn stall(&mut self, clients: impl Iterator<Item = ClientIndex>, is_stalled: bool) {
        for client in clients {
            let it = &mut self.state.clients[client.index()];
            it.is_stalled = is_stalled;
            it.heard_us = self.state.clock.now_us();
            if let Some(id) = it.conn {
                self.engine.set_paused(id, is_stalled);
            }
        }
    }

    /// Lets every client forget the last `count` events of each room, as if its connection had
    /// broken before they came.
    pub fn forget_newest(&mut self, count: u64) {
        let State { rooms, checker, .. } = &mut self.state;
        for (room, plan) in rooms.iter().enumerate() {
            let room = RoomIndex(room as u32);
            let floor = checker.base_seq(room);
            for slot in 0..plan.members.len() as u32 {
                checker.cursor_mut(room, Slot(slot)).rewind(count, floor);
            }
        }
    }

    /// Sets how a client connects from its next connection on.
    pub fn set_options(&mut self, client: ClientIndex, options: ConnectOptions) {
        self.state.clients[client.index()].options = options;
    }

    /// Connects all wanted clients. Tells the time in µs until the last was ready.
    ///
    /// # Errors
    /// When some are not ready within the limit, with the reasons counted so far.
    pub fn connect_wanted(&mut self, limit: std::time::Duration) -> Result<u64, SetupError> {
        let started_us = self.state.clock.now_us();
        let is_done = self.run_until(limit, |state| state.missing() == 0)?;
        let State {
            ready,
            stats,
            checker,
            ..
        } = &self.state;
        if !is_done || self.state.stopped() > 0 {
            return Err(SetupError(format!(
                "{ready} of {} clients are ready; closes: {:?}, errors: {:?}, findings: {:?}",
                self.state.wanted(),
                stats.closes,
                stats.errors,
                checker.findings.examples(),
            )));
        }
        Ok(self.state.clock.now_us() - started_us)
    }
}

impl State {
    /// Starts connections as long as few enough are on their way.
    pub(super) fn start_connects(&mut self, engine: &mut Engine) {
        while self.in_flight < self.settings.connects_in_flight_max {
            let Some(client) = self.connect_queue.pop_front() else {
                return;
            };
            let now_us = self.clock.now_us();
            let it = &self.clients[client.index()];
            if !it.is_wanted || it.phase != Phase::Away {
                continue;
            }
            let options = it.options;
            let node = self.take_node();
            let it = &mut self.clients[client.index()];
            match engine.connect(u64::from(client.0), node, options) {
                Ok(id) => {
                    it.node = node;
                    it.phase = Phase::Connecting;
                    it.conn = Some(id);
                    it.connection += 1;
                    it.began_us = now_us;
                    it.heard_us = now_us;
                    self.in_flight += 1;
                }
                Err(error) => {
                    self.setup_error = Some(format!("cannot open a connection: {error}"));
                    return;
                }
            }
        }
    }

    pub(super) fn client_incoming(
        &mut self,
        engine: &mut Engine,
        id: ConnId,
        client: ClientIndex,
        incoming: Incoming<'_>,
    ) {
        if self.clients[client.index()].conn != Some(id) {
            return;
        }
        match incoming {
            Incoming::Open => self.authenticate(engine, id, client),
            Incoming::Text(frame) => self.frame(engine, id, client, frame),
            Incoming::Closed(closed) => self.closed(client, &closed),
        }
    }

    fn authenticate(&mut self, engine: &mut Engine, id: ConnId, client: ClientIndex) {
        let token = match self.issuer.token(client) {
            Ok(token) => token,
            Err(error) => {
                self.setup_error = Some(format!("cannot sign a token: {error}"));
                return;
            }
        };
        let it = &mut self.clients[client.index()];
        it.phase = Phase::Authenticating;
        let device_id = identity::device_id(client);
        let mut positions: Vec<(Uuid, u64)> = Vec::new();
        it.resumed.clear();
        for (room, slot) in &it.memberships {
            let cursor = self.checker.cursor(*room, *slot);
            if let Some(room_id) = self.rooms[room.index()].id
                && cursor.is_joined
                && positions.len() < RESUME_ROOMS_MAX
            {
                positions.push((room_id, cursor.position));
                it.resumed.push(*room);
            }
        }
        let resume = match &self.epoch {
            Some(epoch) if !positions.is_empty() => Some((epoch.as_str(), positions.into_iter())),
            _ => None,
        };
        let frame = wire::auth(&token, device_id, resume);
        engine.send_text(id, frame.as_bytes());
    }

    pub(super) fn ready(&mut self, engine: &mut Engine, client: ClientIndex, ready: wire::Ready) {
        let now_us = self.clock.now_us();
        let it = &mut self.clients[client.index()];
        if it.phase != Phase::Authenticating {
            self.checker.findings.found(Kind::BadFrame, || {
                format!("client {}: ready in phase {:?}", client.0, it.phase)
            });
            return;
        }
        it.phase = Phase::Ready;
        it.ready_us = now_us;
        it.retry_after_ms = None;
        it.was_ever_ready = true;
        let was_roaming = std::mem::take(&mut it.is_roaming);
        let began_us = it.began_us;
        let left_us = std::mem::take(&mut it.left_us);
        if left_us > 0 {
            self.stats.came_back(now_us.saturating_sub(left_us));
        }
        self.in_flight -= 1;
        self.ready += 1;
        self.stats.connects += 1;
        self.stats.connect.record(now_us - began_us);
        if was_roaming {
            self.answered(crate::mix::OpKind::Connect, began_us);
        }
        let resumed = std::mem::take(&mut self.clients[client.index()].resumed);
        match &self.epoch {
            None => self.epoch = Some(ready.epoch.clone()),
            Some(epoch) if *epoch == ready.epoch => {}
            Some(epoch) => {
                self.checker.findings.found(Kind::EpochChanged, || {
                    format!("from {epoch} to {}", ready.epoch)
                });
                self.epoch = Some(ready.epoch.clone());
            }
        }
        let mut named: Vec<RoomIndex> = Vec::new();
        for room in &ready.rooms {
            if let Some((index, slot)) = self.membership(client, room.room_id) {
                named.push(index);
                self.ready_room(client, index, slot, room, resumed.contains(&index));
                self.ready_marks(client, index, &room.watermarks);
            } else if !self.room_by_id.contains_key(&room.room_id) {
                self.early(client, room.room_id, Early::Joined(room.last_seq));
            }
        }
        for room in resumed {
            if !named.contains(&room) {
                self.checker.findings.found(Kind::WrongResume, || {
                    format!("client {}: ready does not name room {}", client.0, room.0)
                });
            }
        }
        self.after_ready(engine, client);
    }

    fn ready_room(
        &mut self,
        client: ClientIndex,
        room: RoomIndex,
        slot: Slot,
        ready: &wire::ReadyRoom,
        was_asked: bool,
    ) {
        let was_joined = self.checker.cursor(room, slot).is_joined;
        if was_asked {
            if ready.recovered {
                self.stats.rooms_recovered += 1;
            } else {
                let reason = ready.reason.clone().unwrap_or_default();
                *self.stats.rooms_not_recovered.entry(reason).or_default() += 1;
            }
        }
        let after = self.checker.ready(
            room,
            slot,
            ReadyRoom {
                last_seq: ready.last_seq,
                recovered: ready.recovered,
                from_seq: ready.from_seq,
                to_seq: ready.to_seq,
                reason: ready.reason.as_deref(),
                was_asked,
            },
        );
        if !was_joined {
            self.count_joined(room);
        }
        if after == AfterReady::CatchUp {
            self.clients[client.index()].catching_up.push_back(room);
        }
    }

    fn after_ready(&mut self, engine: &mut Engine, client: ClientIndex) {
        self.ask_page(engine, client);
        self.ask_rooms_again(client);
        for number in self.clients[client.index()].unacked.clone() {
            self.transmit(engine, client, number);
        }
        for change in self.clients[client.index()].open_changes.clone() {
            self.transmit_change(engine, client, change);
        }
        self.say_again(engine, client);
    }

    fn ready_marks(&mut self, client: ClientIndex, room: RoomIndex, marks: &[wire::Watermark]) {
        for told in marks.iter().filter(|_| self.mix.is_some()) {
            let mark = Mark {
                read: told.read_seq,
                delivered: told.delivered_seq,
            };
            match self.slot_of(room, told.user_id) {
                Some(slot) => self.checker.ready_mark(client, room, slot, mark),
                None => self.checker.findings.found(Kind::BadFrame, || {
                    format!("ready: {} is no member of room {}", told.user_id, room.0)
                }),
            }
        }
    }

    /// The room and place of a client by the room's id.
    pub(super) fn membership(
        &self,
        client: ClientIndex,
        room_id: Uuid,
    ) -> Option<(RoomIndex, Slot)> {
        let room = *self.room_by_id.get(&room_id)?;
        let memberships = &self.clients[client.index()].memberships;
        let place = memberships
            .binary_search_by_key(&room, |(room, _)| *room)
            .ok()?;
        memberships.get(place).copied()
    }

    fn closed(&mut self, client: ClientIndex, closed: &Closed) {
        self.stats.count_close(&close_name(closed));
        let now_us = self.clock.now_us();
        let it = &mut self.clients[client.index()];
        let has_lived =
            it.phase == Phase::Ready && now_us.saturating_sub(it.ready_us) >= us(LIVED_LONG);
        let retry_after_ms = it.retry_after_ms.take();
        if it.phase == Phase::Ready {
            it.left_us = now_us;
            *self.stats.broken.entry(close_name(closed)).or_default() += 1;
        }
        let node = it.node;
        self.left(client);
        self.suspect(node, closed);
        let it = &mut self.clients[client.index()];
        let after = after_close(closed);
        match closed {
            Closed::Violation(_) | Closed::BadHandshake(_) => {
                self.checker.findings.found(Kind::BadFrame, || {
                    format!("client {}: {}", client.0, close_name(closed))
                });
            }
            Closed::Code(_) if after == AfterClose::Stop => {
                it.phase = Phase::Stopped;
                self.checker.findings.found(Kind::ClientStopped, || {
                    format!("client {}: closed {}", client.0, close_name(closed))
                });
                return;
            }
            Closed::Code(_) | Closed::NoCode | Closed::Http(_) | Closed::Lost(_) => {}
        }
        if !it.is_wanted {
            return;
        }
        if has_lived {
            it.failures = 0;
        }
        if after == AfterClose::AtOnceIfLived && has_lived {
            self.connect_queue.push_back(client);
            return;
        }
        it.failures = (it.failures + 1).min(16);
        let doubled = us(self.settings.backoff_first) << (it.failures - 1);
        let cap_us = doubled.min(us(self.settings.backoff_cap));
        let pause_us = match retry_after_ms {
            // Not all in one instant, and never before the time asked for.
            Some(ms) => self.random.between(ms * 1000, ms * 1250),
            None => self.random.below(cap_us),
        };
        self.timer(pause_us, Timer::Reconnect(client));
    }

    /// The client has no connection any more; what it had open is uncertain.
    pub(super) fn left(&mut self, client: ClientIndex) {
        let Client { node, conn, .. } = self.clients[client.index()];
        if conn.is_some() {
            self.give_back(node);
        }
        let it = &mut self.clients[client.index()];
        match it.phase {
            Phase::Connecting | Phase::Authenticating => self.in_flight -= 1,
            Phase::Ready => self.ready -= 1,
            Phase::Away | Phase::Stopped => {}
        }
        it.phase = Phase::Away;
        it.conn = None;
        it.catching_up.clear();
        it.is_page_asked = false;
        if let Some(mix) = &mut self.mix {
            mix.forget_connection(client);
        }
        for change in self.clients[client.index()].open_changes.clone() {
            if self
                .checker
                .change(change)
                .is_some_and(|asked| asked.attempts > 0)
            {
                self.change_uncertain(change);
            }
        }
        let it = &self.clients[client.index()];
        for number in &it.unacked {
            if self
                .checker
                .message(*number)
                .is_some_and(|sent| sent.attempts > 0)
            {
                self.checker.uncertain(*number);
            }
        }
    }

    /// Ends connections that never became ready, and those that heard nothing for too long.
    pub(super) fn sweep(&mut self, engine: &mut Engine, now_us: u64) {
        for index in 0..self.clients.len() as u32 {
            let client = ClientIndex(index);
            let Client {
                phase,
                conn,
                began_us,
                heard_us,
                is_stalled,
                ..
            } = self.clients[client.index()];
            let limit = match phase {
                Phase::Connecting | Phase::Authenticating => began_us + us(CONNECT_DEADLINE),
                Phase::Ready => heard_us + us(SILENCE_MAX),
                Phase::Away | Phase::Stopped => continue,
            };
            let Some(id) = conn else { continue };
            if now_us > limit && !is_stalled {
                engine.abort(id);
                self.closed(client, &Closed::Lost(std::io::ErrorKind::TimedOut));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_codes_are_obeyed_by_class() {
        let after = |code| after_close(&Closed::Code(code));
        for code in [4001, 4003, 4008, 4009, 4011, 4099] {
            assert_eq!(after(code), AfterClose::Stop);
        }
        for code in [4100, 4101, 4102, 4103, 1000, 1001, 1006, 4300] {
            assert_eq!(after(code), AfterClose::Backoff);
        }
        for code in [4200, 4201, 4202, 4203] {
            assert_eq!(after(code), AfterClose::AtOnceIfLived);
        }
    }
}
