//! The simulated world: one node of several shards, its store, the mesh between the shards, the
//! network, and the clients, all moved by one seeded scheduler in virtual time.
//!
//! Real here: the shards' `step`, the outboxes, the store's transactions (SQLite in memory).
//! Simulated: time, sockets, the mesh's rings, the queue in front of the store, faults.

use crate::client::{Client, Pending, Truth, Wire};
use crate::rng::Rng;
use caffis_chat::chat::port::{
    EventsRead, Identity, IdentityError, StoreAnswer, StoreCall, StoreError, StoreReply, Ticket,
};
use caffis_chat::chat::sabotage::Sabotaged;
use caffis_chat::chat::{ConnId, CoreConfig, Effect, Input, MeshMessage, Now, ShardCore, TICK_MS};
use caffis_chat::limits;
use caffis_chat::protocol::{CloseCode, Epoch, RoomId, Seq, UnixMs, UserId};
use caffis_chat::store::sqlite::{Db, DbOptions};
use serde_json::json;
use std::collections::{BTreeMap, VecDeque};

/// The wall clock at the start: any time will do.
const START_UNIX_MS: u64 = 1_750_000_000_000;

/// Steps of calm in which everything must have settled.
const SETTLE_STEPS_MAX: usize = 20_000;

/// What a scenario is made of, drawn from its seed.
struct Scenario {
    shards: u16,
    clients: usize,
    steps: usize,
    /// Small outboxes, so that slow clients are closed.
    outbox_bytes: usize,
    mesh_deliver_max: usize,
    /// Places in a ring between two shards.
    ring: usize,
    crash_permille: u32,
    cut_permille: u32,
    stall_permille: u32,
    store_fault_permille: u32,
    store_slow_permille: u32,
    member_permille: u32,
}

struct Node {
    shards: Vec<ShardCore>,
    /// By from, by to.
    rings: Vec<Vec<VecDeque<MeshMessage>>>,
    store: Vec<VecDeque<(Ticket, StoreCall, u64)>>,
    replies: Vec<VecDeque<StoreReply>>,
    free: Vec<Vec<ConnId>>,
    places: Vec<u32>,
    started_us: u64,
    next_tick_us: u64,
    draining: bool,
    drained: usize,
}

pub struct World {
    rng: Rng,
    scenario: Scenario,
    sabotage: Sabotaged,
    db: Db,
    node: Option<Node>,
    clients: Vec<Client>,
    rooms: Vec<RoomId>,
    truth: Truth,
    now_us: u64,
    restart_at_us: u64,
    effects: Vec<Effect>,
    calm: bool,
    validate: bool,
    /// Tells what every client says and hears.
    trace: bool,
    pub report: Report,
}

/// What happened, to see that a campaign reaches what it is meant to reach.
#[derive(Default, Debug, Clone)]
pub struct Report {
    pub steps: u64,
    pub simulated_us: u64,
    pub acked: u64,
    pub events: u64,
    pub crashes: u64,
    pub drains: u64,
    pub cuts: u64,
    pub store_faults: u64,
    pub unknown_outcomes: u64,
    pub slow_closes: u64,
    pub replayed: u64,
    pub gate_fetches: u64,
    pub duplicates: u64,
}

impl Report {
    pub fn add(&mut self, other: &Report) {
        self.steps += other.steps;
        self.simulated_us += other.simulated_us;
        self.acked += other.acked;
        self.events += other.events;
        self.crashes += other.crashes;
        self.drains += other.drains;
        self.cuts += other.cuts;
        self.store_faults += other.store_faults;
        self.unknown_outcomes += other.unknown_outcomes;
        self.slow_closes += other.slow_closes;
        self.replayed += other.replayed;
        self.gate_fetches += other.gate_fetches;
        self.duplicates += other.duplicates;
    }
}

impl World {
    pub fn new(seed: u64, sabotage: Sabotaged) -> World {
        let mut rng = Rng::new(seed);
        let mut pick = |choices: &[u32]| choices[rng.below(choices.len())];
        let scenario = Scenario {
            shards: pick(&[1, 2, 2, 3, 4]) as u16,
            clients: pick(&[3, 5, 8, 12]) as usize,
            steps: pick(&[1_500, 3_000]) as usize,
            outbox_bytes: pick(&[32 << 10, 64 << 10, 1 << 20]) as usize,
            mesh_deliver_max: pick(&[2, 8, 4_096]) as usize,
            ring: pick(&[1, 4, 1_000]) as usize,
            crash_permille: pick(&[0, 1, 3]),
            cut_permille: pick(&[0, 3, 10]),
            stall_permille: pick(&[0, 2, 10]),
            store_fault_permille: pick(&[0, 10, 100]),
            store_slow_permille: pick(&[0, 5, 30]),
            member_permille: pick(&[0, 5, 20]),
        };
        let users: Vec<UserId> = (0..scenario.clients).map(|_| UserId(rng.uuid())).collect();
        let epoch = Epoch(rng.next());
        let options = DbOptions {
            epoch: Some(epoch),
            hash_key: Some([7; 32]),
            sabotage,
        };
        let db = Db::in_memory(&options).expect("an empty database in memory");
        let mut clients: Vec<Client> = users.iter().map(|user| Client::new(*user)).collect();
        // Some users have two devices.
        for user in &users {
            if rng.permille(300) {
                clients.push(Client::new(*user));
            }
        }
        World {
            rng,
            scenario,
            sabotage,
            db,
            node: None,
            clients,
            rooms: Vec::new(),
            truth: Truth::default(),
            now_us: 0,
            restart_at_us: 0,
            effects: Vec::new(),
            calm: false,
            validate: seed.is_multiple_of(16),
            trace: std::env::var_os("CAFFIS_SIM_TRACE").is_some(),
            report: Report::default(),
        }
    }

    /// Runs the scenario, then lets everything settle, then compares everything.
    pub fn run(&mut self) -> Result<(), String> {
        for _ in 0..self.scenario.steps {
            self.step()?;
        }
        self.calm = true;
        let mut quiet = 0;
        for step in 0..SETTLE_STEPS_MAX {
            self.step()?;
            if step % 50 == 0 {
                quiet = if self.is_settled() { quiet + 1 } else { 0 };
            }
            if quiet > 2 {
                break;
            }
        }
        if quiet == 0 {
            return Err(format!("does not settle: {}", self.unsettled()));
        }
        self.compare()?;
        self.report.simulated_us = self.now_us;
        self.report.acked = self.truth.acked.len() as u64;
        self.report.events = self.truth.events.len() as u64;
        Ok(())
    }

    fn now(&self) -> Now {
        let started_us = self.node.as_ref().map_or(0, |node| node.started_us);
        Now {
            mono_us: self.now_us - started_us + 1,
            unix: UnixMs(START_UNIX_MS + self.now_us / 1_000),
        }
    }

    /// One thing happens.
    fn step(&mut self) -> Result<(), String> {
        self.report.steps += 1;
        self.now_us += match self.rng.below(100) {
            0..2 if !self.calm => self.rng.below(5_000_000) as u64,
            0..10 => self.rng.below(20_000) as u64,
            _ => self.rng.below(300) as u64,
        };
        if self.node.is_none() {
            if self.now_us >= self.restart_at_us || self.calm {
                self.start();
            }
            return Ok(());
        }
        self.tick()?;
        self.due()?;
        if !self.calm && self.rng.permille(self.scenario.crash_permille) {
            return self.crash_or_drain();
        }
        match self.rng.below(12) {
            0..2 => self.move_mesh()?,
            2 => self.run_store()?,
            3 => self.answer_store()?,
            4..6 => self.flush()?,
            6..8 => self.read()?,
            8..10 => self.hear()?,
            _ => self.act()?,
        }
        // Under calm everything moves at once, so that settling takes few steps.
        if self.calm {
            self.run_store()?;
            self.answer_store()?;
            self.move_mesh()?;
            self.flush()?;
            self.read()?;
            self.hear()?;
        }
        self.check_bounds()
    }

    fn start(&mut self) {
        let Scenario {
            shards,
            outbox_bytes,
            mesh_deliver_max,
            ..
        } = self.scenario;
        let mut config = CoreConfig::new("sim", shards, self.db.epoch());
        config.outbox_bytes_max = outbox_bytes;
        config.outbox_shard_bytes_max = 20 * outbox_bytes;
        config.mesh_deliver_max = mesh_deliver_max;
        config.windows_bytes_max = if self.rng.permille(500) {
            8 << 10
        } else {
            1 << 20
        };
        config.sabotage = self.sabotage;
        if self.rng.permille(500) {
            config.spaced_writes_per_s = 20;
        }
        config.sends_per_10s = 1_000;
        config.commands_per_10s = 10_000;
        let count = usize::from(shards);
        let seed = self.rng.next();
        self.db.restart();
        self.node = Some(Node {
            shards: (0..shards)
                .map(|shard| ShardCore::new(config.clone(), shard, seed ^ u64::from(shard)))
                .collect(),
            rings: (0..count)
                .map(|_| (0..count).map(|_| VecDeque::new()).collect())
                .collect(),
            store: (0..count).map(|_| VecDeque::new()).collect(),
            replies: (0..count).map(|_| VecDeque::new()).collect(),
            free: vec![Vec::new(); count],
            places: vec![0; count],
            started_us: self.now_us,
            next_tick_us: self.now_us,
            draining: false,
            drained: 0,
        });
    }

    fn crash_or_drain(&mut self) -> Result<(), String> {
        if self.rng.permille(300) {
            let spread_ms = self.rng.below(3_000) as u64;
            let Some(node) = &mut self.node else {
                return Ok(());
            };
            if !node.draining {
                node.draining = true;
                self.report.drains += 1;
                for shard in 0..usize::from(self.scenario.shards) {
                    self.input(shard, Input::Drain { spread_ms })?;
                }
            }
            return Ok(());
        }
        self.report.crashes += 1;
        // What the store was asked may still happen, but nobody hears of it.
        if let Some(mut node) = self.node.take() {
            for queue in &mut node.store {
                while let Some((_, call, _)) = queue.pop_front() {
                    if !self.rng.permille(500) {
                        break;
                    }
                    let _ = self.db.call(self.unix(), &call);
                }
            }
        }
        self.forget_node();
        Ok(())
    }

    /// The process is gone: every connection with it.
    fn forget_node(&mut self) {
        self.node = None;
        self.restart_at_us = self.now_us + self.rng.below(2_000_000) as u64;
        for client in &mut self.clients {
            if client.wire.take().is_some() {
                client.connect_at_us = self.now_us + self.rng.below(1_000_000) as u64;
            }
        }
    }

    fn unix(&self) -> UnixMs {
        UnixMs(START_UNIX_MS + self.now_us / 1_000)
    }

    fn input(&mut self, shard: usize, input: Input<'_>) -> Result<(), String> {
        let now = self.now();
        let Some(node) = &mut self.node else {
            return Ok(());
        };
        let mut effects = std::mem::take(&mut self.effects);
        node.shards[shard].step(now, input, &mut effects);
        self.perform(shard, effects)
    }

    fn perform(&mut self, shard: usize, mut effects: Vec<Effect>) -> Result<(), String> {
        let mut verified = Vec::new();
        for effect in effects.drain(..) {
            match effect {
                Effect::Verify(conn, token) => verified.push((conn, token)),
                Effect::Store(ticket, call) => {
                    let slow = !self.calm && self.rng.permille(self.scenario.store_slow_permille);
                    let wait_us = if slow { self.rng.below(8_000_000) } else { 0 } as u64;
                    if let Some(node) = &mut self.node {
                        node.store[shard].push_back((ticket, call, self.now_us + wait_us));
                    }
                }
                Effect::Flush(conn) => {
                    if let Some(wire) = self.wire_mut(shard, conn) {
                        wire.dirty = true;
                    }
                }
                Effect::Close(conn, code) => {
                    if code == CloseCode::SlowConsumer {
                        self.report.slow_closes += 1;
                    }
                    if let Some(wire) = self.wire_mut(shard, conn) {
                        wire.close = Some(code as u16);
                    }
                }
                Effect::Relay(call) => {
                    return Err(format!("asks a relay that it does not have: {call:?}"));
                }
                Effect::Drained => {
                    if let Some(node) = &mut self.node {
                        node.drained += 1;
                    }
                }
            }
        }
        self.effects = effects;
        for (conn, token) in verified {
            let result = identify(&token, self.unix());
            self.input(shard, Input::Verified(conn, result))?;
        }
        Ok(())
    }

    fn wire_mut(&mut self, shard: usize, conn: ConnId) -> Option<&mut Wire> {
        self.clients
            .iter_mut()
            .filter_map(|client| client.wire.as_mut())
            .find(|wire| wire.shard == shard && wire.conn == conn)
    }

    fn tick(&mut self) -> Result<(), String> {
        let Some(node) = &mut self.node else {
            return Ok(());
        };
        if self.now_us < node.next_tick_us {
            return Ok(());
        }
        node.next_tick_us = self.now_us + TICK_MS * 1_000;
        for shard in 0..usize::from(self.scenario.shards) {
            self.input(shard, Input::Tick)?;
        }
        for client in &mut self.clients {
            client.retry();
        }
        let done = self
            .node
            .as_ref()
            .is_some_and(|node| node.drained == node.shards.len());
        if done {
            // A drained node has told everybody, and has nothing under way.
            self.forget_node();
        }
        Ok(())
    }

    /// The timers of batches that were held back; sometimes late.
    fn due(&mut self) -> Result<(), String> {
        for shard in 0..usize::from(self.scenario.shards) {
            let now_us = self.now().mono_us;
            let due_us = self
                .node
                .as_ref()
                .and_then(|node| node.shards[shard].due_us());
            if due_us.is_some_and(|due_us| due_us <= now_us)
                && (self.calm || self.rng.permille(800))
            {
                self.input(shard, Input::Due)?;
            }
        }
        Ok(())
    }

    /// The driver's part: from the cores' queues into the rings, and out of them.
    fn move_mesh(&mut self) -> Result<(), String> {
        let count = usize::from(self.scenario.shards);
        let ring = self.scenario.ring;
        let (from, to) = (self.rng.below(count), self.rng.below(count));
        let pairs: Vec<(usize, usize)> = match self.calm {
            true => (0..count * count)
                .map(|pair| (pair / count, pair % count))
                .collect(),
            false => vec![(from, to)],
        };
        for (from, to) in pairs {
            let Some(node) = &mut self.node else {
                return Ok(());
            };
            let out = node.shards[from].mesh_out(to as u16);
            while node.rings[from][to].len() < ring {
                let Some(message) = out.pop_front() else {
                    break;
                };
                node.rings[from][to].push_back(message);
            }
            let take = if self.calm {
                ring
            } else {
                1 + self.rng.below(4)
            };
            for _ in 0..take {
                let Some(node) = &mut self.node else {
                    return Ok(());
                };
                let Some(message) = node.rings[from][to].pop_front() else {
                    break;
                };
                self.input(to, Input::Mesh(from as u16, message))?;
            }
        }
        Ok(())
    }

    /// The store works: commits in order, reads in any order, some calls late, some in vain.
    fn run_store(&mut self) -> Result<(), String> {
        let count = usize::from(self.scenario.shards);
        let shard = self.rng.below(count);
        let shards: Vec<usize> = if self.calm {
            (0..count).collect()
        } else {
            vec![shard]
        };
        for shard in shards {
            let (now_us, calm) = (self.now_us, self.calm);
            let Some(node) = &mut self.node else {
                return Ok(());
            };
            let queue = &mut node.store[shard];
            let due: Vec<usize> = (0..queue.len())
                .filter(|place| calm || queue[*place].2 <= now_us)
                .collect();
            if due.is_empty() {
                continue;
            }
            let mut place = due[self.rng.below(due.len())];
            if matches!(queue[place].1, StoreCall::Commit(_) | StoreCall::SignIn(_)) {
                // Writes are decided in the order they were given.
                let first = (0..queue.len()).find(|place| {
                    matches!(queue[*place].1, StoreCall::Commit(_) | StoreCall::SignIn(_))
                });
                place = first.unwrap_or(place);
            }
            let Some((ticket, call, _)) = queue.remove(place) else {
                continue;
            };
            let unix = self.unix();
            let fault = !calm && self.rng.permille(self.scenario.store_fault_permille);
            let result = if fault {
                self.report.store_faults += 1;
                match self.rng.below(3) {
                    0 => Err(StoreError::Overloaded),
                    1 => Err(StoreError::Unavailable("not done".to_owned())),
                    _ => {
                        // It happened, but the answer was lost.
                        self.report.unknown_outcomes += 1;
                        let _ = self.db.call(unix, &call);
                        Err(StoreError::Unavailable("done, perhaps".to_owned()))
                    }
                }
            } else {
                self.db.call(unix, &call)
            };
            let epoch = self.db.epoch();
            if let Some(node) = &mut self.node {
                node.replies[shard].push_back(StoreReply {
                    ticket,
                    epoch,
                    result,
                });
            }
        }
        Ok(())
    }

    fn answer_store(&mut self) -> Result<(), String> {
        for shard in 0..usize::from(self.scenario.shards) {
            while let Some(reply) = self
                .node
                .as_mut()
                .and_then(|node| node.replies[shard].pop_front())
            {
                self.input(shard, Input::Store(reply))?;
            }
        }
        Ok(())
    }

    fn pick_client(&mut self) -> usize {
        self.rng.below(self.clients.len())
    }

    fn each(&mut self) -> Vec<usize> {
        match self.calm {
            true => (0..self.clients.len()).collect(),
            false => vec![self.pick_client()],
        }
    }

    /// Bytes go from an outbox into the socket, as far as the client reads.
    fn flush(&mut self) -> Result<(), String> {
        for place in self.each() {
            let stalled = self.clients[place].stalled_until_us > self.now_us && !self.calm;
            let part = self.rng.below(2_000) + 1;
            let now = self.now();
            let Some(wire) = &mut self.clients[place].wire else {
                continue;
            };
            let Some(node) = &mut self.node else {
                return Ok(());
            };
            let (shard, conn) = (wire.shard, wire.conn);
            let room = if stalled {
                1_024usize.saturating_sub(wire.to_client.len())
            } else {
                1 << 20
            };
            let mut buffer = Vec::new();
            if let Some(outbox) = node.shards[shard].outbox(conn) {
                outbox.fill(
                    &mut buffer,
                    if self.calm { 1 << 20 } else { part.min(room) },
                );
                assert!(
                    wire.dirty || outbox.is_empty(),
                    "an outbox that nobody flushes"
                );
            }
            let written = buffer.len();
            wire.to_client.append(&mut buffer);
            let mut effects = std::mem::take(&mut self.effects);
            if written > 0 {
                node.shards[shard].written(now, conn, written, &mut effects);
            }
            let empty = node.shards[shard]
                .outbox(conn)
                .is_none_or(|outbox| outbox.is_empty());
            if let Some(wire) = &mut self.clients[place].wire {
                // Said once, until it was empty again.
                wire.dirty = !empty;
            }
            // What the step asked for may make it dirty again.
            self.perform(shard, effects)?;
            let Some(wire) = &self.clients[place].wire else {
                continue;
            };
            if let Some(code) = wire.close
                && (empty || stalled)
            {
                self.read_all(place)?;
                self.hang_up(place, Some(code))?;
            }
        }
        Ok(())
    }

    /// A client reads.
    fn read(&mut self) -> Result<(), String> {
        for place in self.each() {
            if self.clients[place].stalled_until_us <= self.now_us || self.calm {
                self.read_all(place)?;
            }
        }
        Ok(())
    }

    fn read_all(&mut self, place: usize) -> Result<(), String> {
        loop {
            let Some(wire) = &mut self.clients[place].wire else {
                return Ok(());
            };
            let Some((text, length)) = frame_of(&wire.to_client)? else {
                return Ok(());
            };
            wire.to_client.drain(..length);
            if self.trace {
                let (shard, conn) = (wire.shard, wire.conn);
                eprintln!(
                    "{} client {place} at {shard} {conn:?} hears {text}",
                    self.now_us
                );
            }
            if self.validate {
                crate::schema::validate_server_frame(&text)?;
            }
            let client = &mut self.clients[place];
            let acked_before = self.truth.acked.len();
            client.frame(&text, &mut self.truth)?;
            if self.truth.acked.len() > acked_before {
                self.check_newest_ack(place, &text)?;
            }
        }
    }

    /// Promise 1, in the very step in which a client learns of it.
    fn check_newest_ack(&mut self, place: usize, text: &str) -> Result<(), String> {
        let user = self.clients[place].user;
        let ack: serde_json::Value =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        let room = ack["data"]["room_id"]
            .as_str()
            .and_then(|room| room.parse().ok());
        let (Some(room), Some(seq)) = (room, ack["data"]["seq"].as_u64()) else {
            return Err(format!("an ack without room or seq: {text}"));
        };
        let events = self.events(RoomId(room), seq - 1, seq)?;
        let stored = events
            .first()
            .map(|event| event.to_json())
            .unwrap_or_default();
        let id = ack["data"]["client_msg_id"].as_str().unwrap_or_default();
        match stored.contains(id) && stored.contains(&user.to_string()) {
            true => Ok(()),
            false => Err(format!(
                "acknowledged but not committed: {text}; at its place: {stored}"
            )),
        }
    }

    fn events(
        &mut self,
        room: RoomId,
        after: Seq,
        to: Seq,
    ) -> Result<Vec<caffis_chat::protocol::event::RoomEvent>, String> {
        let read = EventsRead {
            room,
            after,
            to,
            events_max: 1_000_000,
            bytes_max: usize::MAX >> 1,
            newest: false,
        };
        match self.db.call(self.unix(), &StoreCall::Events(read)) {
            Ok(StoreAnswer::Events(page)) => Ok(page.events),
            other => Err(format!("{other:?}")),
        }
    }

    /// A frame of a client arrives.
    fn hear(&mut self) -> Result<(), String> {
        for place in self.each() {
            let Some(wire) = &mut self.clients[place].wire else {
                continue;
            };
            let count = if self.calm {
                wire.to_server.len()
            } else {
                wire.to_server.len().min(2)
            };
            let (shard, conn) = (wire.shard, wire.conn);
            let texts: Vec<String> = wire.to_server.drain(..count).collect();
            for text in texts {
                if self.trace {
                    eprintln!(
                        "{} client {place} at {shard} {conn:?} says {text}",
                        self.now_us
                    );
                }
                if self.validate {
                    crate::schema::validate_client_frame(&text)?;
                }
                self.input(shard, Input::Text(conn, &text))?;
            }
        }
        Ok(())
    }

    /// A connection ends, from either side.
    fn hang_up(&mut self, place: usize, code: Option<u16>) -> Result<(), String> {
        let client = &mut self.clients[place];
        let Some(wire) = client.wire.take() else {
            return Ok(());
        };
        *client.closes.entry(code.unwrap_or(0)).or_default() += 1;
        client.connect_at_us = self.now_us + self.rng.below(500_000) as u64;
        let (shard, conn) = (wire.shard, wire.conn);
        self.input(shard, Input::Closed(conn))?;
        if let Some(node) = &mut self.node {
            let next = ConnId {
                index: conn.index,
                generation: conn.generation + 1,
            };
            node.free[shard].push(next);
        }
        Ok(())
    }

    fn connect(&mut self, place: usize) -> Result<(), String> {
        let shard = self.rng.below(usize::from(self.scenario.shards));
        let Some(node) = &mut self.node else {
            return Ok(());
        };
        if node.draining {
            return Ok(());
        }
        let conn = match node.free[shard].pop() {
            Some(conn) => conn,
            None => {
                node.places[shard] += 1;
                ConnId {
                    index: node.places[shard] - 1,
                    generation: 0,
                }
            }
        };
        let lives_ms = if self.rng.permille(50) && !self.calm {
            20_000
        } else {
            100_000_000
        };
        let expires_at = self.unix().0 + lives_ms;
        let client = &mut self.clients[place];
        client.wire = Some(Wire::new(conn, shard));
        client.auth(expires_at);
        self.input(shard, Input::Opened(conn))
    }

    /// A client does something.
    fn act(&mut self) -> Result<(), String> {
        for place in self.each() {
            if self.clients[place].wire.is_none() {
                if self.clients[place].connect_at_us <= self.now_us || self.calm {
                    self.connect(place)?;
                }
                continue;
            }
            if self.calm {
                continue;
            }
            if self.rng.permille(self.scenario.cut_permille) {
                self.report.cuts += 1;
                self.hang_up(place, None)?;
                continue;
            }
            if self.rng.permille(self.scenario.stall_permille) {
                let stall_us = self.rng.below(60_000_000) as u64;
                self.clients[place].stalled_until_us = self.now_us + stall_us;
            }
            if self.clients[place].is_ready() {
                self.use_room(place)?;
            }
        }
        Ok(())
    }

    fn use_room(&mut self, place: usize) -> Result<(), String> {
        let user = self.clients[place].user;
        if self.clients[place].rooms.is_empty() || self.rng.permille(10) {
            let members: Vec<UserId> = (0..3)
                .map(|_| {
                    let other = self.pick_client();
                    self.clients[other].user
                })
                .filter(|other| *other != user)
                .collect();
            let direct = self.rng.permille(300) && members.len() == 1;
            let kind = if direct { "direct" } else { "group" };
            let id = uuid::Uuid::from_u128(self.rng.below(3) as u128);
            let data = json!({"kind": kind, "member_ids": members, "client_room_id": id});
            let idempotent = direct || !self.rooms.contains(&RoomId::group(user, id));
            if idempotent {
                if !direct {
                    self.rooms.push(RoomId::group(user, id));
                }
                self.clients[place].request("room.create", data);
            }
            return Ok(());
        }
        let rooms: Vec<RoomId> = self.clients[place].rooms.keys().copied().collect();
        if rooms.is_empty() {
            return Ok(());
        }
        let room = rooms[self.rng.below(rooms.len())];
        if self.rng.permille(self.scenario.member_permille) {
            let other = self.pick_client();
            let users = [self.clients[other].user];
            let (kind, data) = match self.rng.below(3) {
                0 => (
                    "room.members.remove",
                    json!({"room_id": room, "user_ids": users}),
                ),
                1 => ("room.leave", json!({"room_id": room})),
                _ => (
                    "room.members.add",
                    json!({"room_id": room, "user_ids": users}),
                ),
            };
            self.clients[place].request(kind, data);
        } else if self.rng.permille(50) && !self.clients[place].done.is_empty() {
            // A retry of what was acknowledged long ago.
            self.report.duplicates += 1;
            let client = &mut self.clients[place];
            let again = client.done[self.rng.below(client.done.len())].clone();
            if client.rooms.contains_key(&again.room) {
                client.send(&again);
            }
        } else if self.clients[place].pending.len() < 8 {
            let length = self.rng.below(400);
            let id = self.rng.uuid();
            let text = format!("{id} {}", "x".repeat(length));
            let pending = Pending { room, id, text };
            let client = &mut self.clients[place];
            client.send(&pending);
            client.pending.push(pending);
        }
        Ok(())
    }

    /// Promise 5: what waits anywhere is bounded.
    fn check_bounds(&mut self) -> Result<(), String> {
        let Some(node) = &mut self.node else {
            return Ok(());
        };
        for (index, shard) in node.shards.iter_mut().enumerate() {
            let stats = shard.stats();
            let window_max = 1 << 20;
            if stats.window_bytes > window_max + limits::REPLAY_BYTES_MAX as u64 {
                return Err(format!("windows of {} bytes", stats.window_bytes));
            }
            if stats.anomalies > 0 {
                return Err(format!(
                    "shard {index} counted {} anomalies",
                    stats.anomalies
                ));
            }
            let outboxes = 21 * self.scenario.outbox_bytes as u64 + 4_096 * 64;
            if stats.outbox_bytes > outboxes {
                return Err(format!("outboxes of {} bytes", stats.outbox_bytes));
            }
            for to in 0..self.scenario.shards {
                let waiting = shard.mesh_out(to).len();
                if waiting > self.scenario.mesh_deliver_max + 2_000 {
                    return Err(format!(
                        "{waiting} messages wait from shard {index} to {to}"
                    ));
                }
            }
        }
        Ok(())
    }

    fn is_settled(&mut self) -> bool {
        let last: BTreeMap<RoomId, Seq> = self.last_seqs();
        let node_idle = self.node.as_ref().is_some_and(|node| !node.draining);
        node_idle
            && self.clients.iter().all(|client| {
                client.is_ready()
                    && client.pending.is_empty()
                    && client.rooms.iter().all(|(room, view)| {
                        view.catching_up.is_none() && last.get(room) == Some(&view.position)
                    })
            })
            && self.has_all_rooms()
    }

    fn has_all_rooms(&mut self) -> bool {
        for place in 0..self.clients.len() {
            let expected = self.rooms_of(self.clients[place].user);
            if !expected.iter().eq(self.clients[place].rooms.keys()) {
                return false;
            }
        }
        true
    }

    fn unsettled(&mut self) -> String {
        let last = self.last_seqs();
        let mut lines = Vec::new();
        for place in 0..self.clients.len() {
            let expected = self.rooms_of(self.clients[place].user);
            let client = &self.clients[place];
            let rooms: Vec<RoomId> = client.rooms.keys().copied().collect();
            let behind: Vec<_> = client
                .rooms
                .iter()
                .filter(|(room, view)| last.get(room) != Some(&view.position))
                .map(|(room, view)| (room, view, last.get(room)))
                .collect();
            if !client.is_ready()
                || !client.pending.is_empty()
                || !behind.is_empty()
                || rooms != expected
            {
                lines.push(format!(
                    "client {place} {}: connected {}, ready {}, pending {:?}, behind {behind:?}, \
                     rooms {rooms:?} of {expected:?}",
                    client.user,
                    client.wire.is_some(),
                    client.is_ready(),
                    client.pending,
                ));
            }
        }
        lines.join("\n")
    }

    fn known_rooms(&mut self) -> Vec<RoomId> {
        let mut rooms: Vec<RoomId> = self.truth.events.keys().map(|(room, _)| *room).collect();
        rooms.extend(self.truth.placed.keys().map(|(room, ..)| *room));
        rooms.extend(
            self.clients
                .iter()
                .flat_map(|client| client.rooms.keys().copied()),
        );
        rooms.extend(&self.rooms);
        rooms.sort_unstable();
        rooms.dedup();
        rooms
    }

    fn last_seqs(&mut self) -> BTreeMap<RoomId, Seq> {
        let rooms = self.known_rooms();
        match self.db.call(
            self.unix(),
            &StoreCall::Heads {
                rooms,
                users: Vec::new(),
            },
        ) {
            Ok(StoreAnswer::Heads { rooms, .. }) => rooms.into_iter().collect(),
            other => panic!("heads: {other:?}"),
        }
    }

    fn rooms_of(&mut self, user: UserId) -> Vec<RoomId> {
        let rooms = self.known_rooms();
        let asked: Vec<(RoomId, UserId)> = rooms.iter().map(|room| (*room, user)).collect();
        match self.db.call(self.unix(), &StoreCall::GetRooms(asked)) {
            Ok(StoreAnswer::GetRooms(answers)) => rooms
                .into_iter()
                .zip(answers)
                .filter(|(_, answer)| answer.is_ok())
                .map(|(room, _)| room)
                .collect(),
            other => panic!("rooms: {other:?}"),
        }
    }

    /// At the end the store is read whole and compared with all that anybody was told.
    fn compare(&mut self) -> Result<(), String> {
        let mut stored: BTreeMap<(RoomId, UserId, uuid::Uuid), Seq> = BTreeMap::new();
        for (room, last_seq) in self.last_seqs() {
            let events = self.events(room, 0, Seq::MAX)?;
            if events.len() as u64 != last_seq {
                return Err(format!(
                    "{} events up to {last_seq} in {room}",
                    events.len()
                ));
            }
            let mut ts = UnixMs(0);
            for (event, seq) in events.iter().zip(1..) {
                if event.seq != seq || event.ts < ts {
                    return Err(format!("{} stands at {seq} of {room}", event.seq));
                }
                ts = event.ts;
                let json: serde_json::Value =
                    serde_json::from_str(&event.to_json()).map_err(|error| error.to_string())?;
                let text = json.to_string();
                if let Some(shown) = self.truth.events.get(&(room, seq))
                    && *shown != text
                {
                    return Err(format!(
                        "stored at {room}/{seq}:\n  {json}\n  shown: {shown}"
                    ));
                }
                let message = &json["data"]["message"];
                let id = message["client_msg_id"]
                    .as_str()
                    .and_then(|id| id.parse().ok());
                let sender = message["sender_id"].as_str().and_then(|id| id.parse().ok());
                if let (Some(id), Some(sender)) = (id, sender)
                    && let Some(other) = stored.insert((room, UserId(sender), id), seq)
                {
                    return Err(format!(
                        "message {id} is stored at {other} and {seq} of {room}"
                    ));
                }
            }
        }
        for (key, seq) in &self.truth.acked {
            if stored.get(key) != Some(seq) {
                return Err(format!(
                    "acknowledged {key:?} at {seq}, stored {:?}",
                    stored.get(key)
                ));
            }
        }
        for (key, seq) in &self.truth.placed {
            if stored.get(key) != Some(seq) {
                return Err(format!(
                    "shown {key:?} at {seq}, stored {:?}",
                    stored.get(key)
                ));
            }
        }
        if let Some(node) = &self.node {
            for shard in &node.shards {
                self.report.replayed += shard.stats().replayed;
                self.report.gate_fetches += shard.stats().gate_fetches;
            }
        }
        Ok(())
    }
}

/// The simulated identity: a token is `user:expiry`.
fn identify(token: &str, now: UnixMs) -> Result<Identity, IdentityError> {
    let (user, expires_at) = token.split_once(':').ok_or(IdentityError::Invalid)?;
    let user = user.parse().map_err(|_| IdentityError::Invalid)?;
    let expires_at = UnixMs(expires_at.parse().map_err(|_| IdentityError::Invalid)?);
    if expires_at <= now {
        return Err(IdentityError::Expired);
    }
    Ok(Identity {
        user,
        expires_at,
        name: Some(format!("{user}")),
        picture: None,
    })
}

/// The first whole text frame in these bytes, and its length.
fn frame_of(bytes: &[u8]) -> Result<Option<(String, usize)>, String> {
    let [first, second, ..] = bytes else {
        return Ok(None);
    };
    if *first != 0x81 {
        return Err(format!("not a text frame: {first:#x}"));
    }
    let (header, length) = match second {
        126 if bytes.len() >= 4 => (4, usize::from(bytes[2]) << 8 | usize::from(bytes[3])),
        127 if bytes.len() >= 10 => {
            let length = bytes[2..10]
                .iter()
                .fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
            (10, length as usize)
        }
        126 | 127 => return Ok(None),
        short => (2, usize::from(*short)),
    };
    match bytes.get(header..header + length) {
        Some(payload) => {
            let text = String::from_utf8(payload.to_vec()).map_err(|error| error.to_string())?;
            Ok(Some((text, header + length)))
        }
        None => Ok(None),
    }
}
