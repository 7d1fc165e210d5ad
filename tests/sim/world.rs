//! The simulated world: one to three nodes of several shards each, their one store, the relay
//! between them, the network, and the clients, all moved by one seeded scheduler in virtual time.
//!
//! Real here: the shards' `step`, the outboxes, the store's transactions (SQLite in memory).
//! Simulated: time, sockets, the mesh's rings, the queue in front of the store, the relay, faults.
//!
//! Continued in [`crate::node`], [`crate::store`], [`crate::relay`], [`crate::network`],
//! [`crate::people`], [`crate::files`], [`crate::upkeep`], [`crate::receipts`], [`crate::hints`] and
//! [`crate::verdict`].

use crate::client::Client;
use crate::files::SimFile;
use crate::node::Host;
use crate::relay::{Flight, Link};
use crate::report::Report;
use crate::rng::Rng;
use crate::store::{Orphan, SimStore};
use crate::truth::Truth;
use caffis_chat::chat::sabotage::Sabotaged;
use caffis_chat::chat::{Effect, Peers, TICK_MS};
use caffis_chat::protocol::{Epoch, RoomId, UnixMs, UserId};
use caffis_chat::store::sqlite::DbOptions;
use std::collections::VecDeque;

/// The wall clock at the start: any time will do.
const START_UNIX_MS: u64 = 1_750_000_000_000;

/// Steps of calm in which everything must have settled.
const SETTLE_STEPS_MAX: usize = 20_000;

/// What a scenario is made of, drawn from its seed.
pub struct Scenario {
    pub peers: Peers,
    clients: usize,
    steps: usize,
    /// Small outboxes, so that slow clients are closed.
    pub outbox_bytes: usize,
    pub mesh_deliver_max: usize,
    /// Places in a ring between two shards.
    pub ring: usize,
    /// What a person does at once, at most.
    pub busy: usize,
    crash_permille: u32,
    pub cut_permille: u32,
    pub stall_permille: u32,
    pub store_fault_permille: u32,
    pub store_slow_permille: u32,
    /// Of the rooms of a batch, those that others hold.
    pub held_rooms_permille: u32,
    pub member_permille: u32,
    /// Of the chances to block somebody, those that are taken.
    pub block_permille: u32,
    erase_permille: u32,
    drop_permille: u32,
    /// Of the messages of the relay, for each node.
    pub relay_fault_permille: u32,
    pub relay_down_permille: u32,
    /// Messages of the relay that wait for a shard.
    pub relay_news_max: usize,
    /// The step in which the store loses the end of its history.
    lose_at_step: Option<usize>,
}

impl Scenario {
    /// What was erased or dropped is not to come back with an earlier state of the store.
    fn end_no_histories(&mut self) {
        (self.erase_permille, self.drop_permille) = (0, 0);
    }
}

pub struct World {
    pub rng: Rng,
    pub scenario: Scenario,
    pub sabotage: Sabotaged,
    pub store: SimStore,
    pub orphans: VecDeque<Orphan>,
    pub hosts: Vec<Host>,
    /// On their way through the relay, oldest first.
    pub flights: Vec<Flight>,
    pub relay_away_until_us: u64,
    pub clients: Vec<Client>,
    pub rooms: Vec<RoomId>,
    /// What users may bring, or have brought.
    pub files: Vec<SimFile>,
    /// Users of whom something is left to erase.
    pub erasing: Vec<UserId>,
    pub truth: Truth,
    /// The epoch of a history of which the store has lost the end.
    pub lost_epoch: Option<Epoch>,
    pub now_us: u64,
    next_retry_us: u64,
    pub effects: Vec<Effect>,
    pub calm: bool,
    pub validate: bool,
    /// Tells what every client says and hears.
    pub trace: bool,
    pub report: Report,
}

impl World {
    pub fn new(seed: u64, sabotage: Sabotaged) -> World {
        let mut rng = Rng::new(seed);
        let mut pick = |choices: &[u32]| choices[rng.below(choices.len())];
        let nodes = pick(&[1, 1, 1, 2, 2, 3]) as usize;
        let peers = match (nodes, pick(&[0, 1, 2, 3, 4, 5, 6, 7])) {
            (1, 0..=5) => Peers::None,
            (_, 7) => Peers::Store,
            (_, _) => Peers::Relay,
        };
        let mut scenario = Scenario {
            peers,
            clients: pick(&[3, 5, 8, 12]) as usize,
            steps: pick(&[1_500, 3_000]) as usize,
            outbox_bytes: pick(&[12 << 10, 24 << 10, 64 << 10, 1 << 20]) as usize,
            mesh_deliver_max: pick(&[2, 8, 4_096]) as usize,
            ring: pick(&[1, 4, 1_000]) as usize,
            busy: pick(&[1, 1, 5]) as usize,
            crash_permille: pick(&[0, 1, 3]),
            cut_permille: pick(&[0, 3, 10]),
            stall_permille: pick(&[0, 2, 10]),
            held_rooms_permille: pick(&[0, 20, 300]),
            store_fault_permille: pick(&[0, 10, 100]),
            store_slow_permille: pick(&[0, 5, 30]),
            member_permille: pick(&[0, 5, 20]),
            block_permille: pick(&[0, 100, 300]),
            erase_permille: pick(&[0, 0, 1]),
            drop_permille: pick(&[0, 0, 0, 10]),
            relay_fault_permille: pick(&[0, 100, 500, 1_000]),
            relay_down_permille: pick(&[0, 2, 10]),
            relay_news_max: pick(&[2, 1_000]) as usize,
            lose_at_step: match pick(&[0, 0, 0, 0, 0, 0, 0, 1]) {
                0 => None,
                _ => Some(pick(&[500, 800, 1_200]) as usize),
            },
        };
        if scenario.lose_at_step.is_some() {
            scenario.end_no_histories();
        }
        let hosts: Vec<Host> = (0..nodes)
            .map(|host| Host {
                shards: pick(&[1, 2, 2, 3, 4]) as usize,
                skew_ms: if host == 0 {
                    0
                } else {
                    pick(&[0, 20, 2_000]).into()
                },
                node: None,
                restart_at_us: if host == 0 {
                    0
                } else {
                    pick(&[0, 1_000_000, 30_000_000]).into()
                },
                link: Link::new(0),
            })
            .collect();
        let users: Vec<UserId> = (0..scenario.clients).map(|_| UserId(rng.uuid())).collect();
        let options = DbOptions {
            epoch: Some(Epoch(rng.next())),
            hash_key: Some([7; 32]),
            sabotage,
        };
        let mut clients: Vec<Client> = users.iter().map(|user| Client::new(*user)).collect();
        // Some users have two devices.
        for user in &users {
            if rng.permille(300) {
                clients.push(Client::new(*user));
            }
        }
        let report = Report {
            nodes: nodes as u64,
            ..Report::default()
        };
        World {
            rng,
            store: SimStore::new(options, scenario.lose_at_step.is_some()),
            scenario,
            sabotage,
            orphans: VecDeque::new(),
            hosts,
            flights: Vec::new(),
            relay_away_until_us: 0,
            clients,
            rooms: Vec::new(),
            files: Vec::new(),
            erasing: Vec::new(),
            truth: Truth::default(),
            lost_epoch: None,
            now_us: 0,
            next_retry_us: 0,
            effects: Vec::new(),
            calm: false,
            validate: seed.is_multiple_of(16),
            trace: std::env::var_os("CAFFIS_SIM_TRACE").is_some(),
            report,
        }
    }

    /// The same, but the store certainly loses the end of its history.
    pub fn that_loses_history(seed: u64) -> World {
        let mut world = World::new(seed, Sabotaged::default());
        world.scenario.lose_at_step = Some(world.scenario.steps / 2);
        world.scenario.end_no_histories();
        world.store.keep_log();
        world
    }

    /// Runs the scenario, then lets everything settle, then compares everything.
    pub fn run(&mut self) -> Result<(), String> {
        for step in 0..self.scenario.steps {
            if self.scenario.lose_at_step == Some(step) {
                self.lose_history();
            }
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
        self.read_everything()?;
        self.compare_own()?;
        self.compare_hints()?;
        self.settle_until(World::is_settled, World::unsettled)?;
        self.come_back()?;
        self.compare_sent_again()?;
        self.compare()?;
        self.compare_blocks()?;
        self.compare_files()?;
        self.compare_erased()?;
        for host in 0..self.hosts.len() {
            self.count_node(host);
        }
        let renewed = self
            .lost_epoch
            .is_some_and(|lost| lost != self.store.epoch());
        self.report.epochs_renewed = u64::from(renewed);
        self.report.simulated_us = self.now_us;
        self.report.acked = self.truth.acked.len() as u64;
        self.report.events = self.truth.events.len() as u64;
        self.report.crossed = self.truth.crossed;
        self.report.added_across = self.truth.added_across;
        self.report.gaps_told = self.truth.gaps_told;
        let receipts = self.clients.iter().map(|client| &client.receipts);
        self.report.receipts_told = receipts.clone().map(|it| it.receipts).sum();
        self.report.unread_told = receipts.map(|it| it.unread).sum();
        Ok(())
    }

    /// The wall clock of the store.
    pub fn unix(&self) -> UnixMs {
        UnixMs(START_UNIX_MS + self.now_us / 1_000)
    }

    /// One thing happens, on each node.
    pub fn step(&mut self) -> Result<(), String> {
        self.report.steps += 1;
        self.now_us += match self.rng.below(100) {
            0..2 if !self.calm => self.rng.below(5_000_000) as u64,
            0..10 => self.rng.below(20_000) as u64,
            _ => self.rng.below(300) as u64,
        };
        self.revive();
        if self.now_us >= self.next_retry_us {
            self.next_retry_us = self.now_us + TICK_MS * 1_000;
            for client in &mut self.clients {
                client.retry();
            }
        }
        for host in 0..self.hosts.len() {
            self.tick(host)?;
            self.due(host)?;
        }
        if !self.calm && self.rng.permille(self.scenario.crash_permille) {
            return self.crash_or_drain();
        }
        self.run_service()?;
        if self.rng.permille(300) {
            self.on_each(World::run_files)?;
        }
        match self.rng.below(14) {
            0..2 => self.on_each(World::move_mesh)?,
            2 => self.on_each(World::run_store)?,
            3 => self.on_each(World::answer_store)?,
            4..6 => self.flush()?,
            6..8 => self.read()?,
            8..10 => self.hear()?,
            10..12 => self.act()?,
            _ if self.scenario.peers == Peers::Relay => self.on_each(World::move_relay)?,
            _ => (),
        }
        // Under calm everything moves at once, so that settling takes few steps.
        if self.calm {
            self.on_each(World::run_store)?;
            self.on_each(World::answer_store)?;
            self.on_each(World::run_files)?;
            self.on_each(World::move_mesh)?;
            if self.scenario.peers == Peers::Relay {
                self.on_each(World::move_relay)?;
            }
            self.flush()?;
            self.read()?;
            self.hear()?;
        }
        self.check_bounds()
    }

    /// What is done for those who run the service, beside what people do.
    fn run_service(&mut self) -> Result<(), String> {
        if !self.calm && self.rng.permille(self.scenario.erase_permille) {
            self.begin_erasure()?;
        }
        if !self.calm && self.rng.permille(self.scenario.drop_permille) {
            self.drop_old()?;
        }
        match !self.erasing.is_empty() && self.rng.permille(50) {
            true => self.go_on_erasing(),
            false => Ok(()),
        }
    }

    fn on_each(
        &mut self,
        act: impl Fn(&mut World, usize) -> Result<(), String>,
    ) -> Result<(), String> {
        for host in 0..self.hosts.len() {
            act(self, host)?;
        }
        Ok(())
    }
}
