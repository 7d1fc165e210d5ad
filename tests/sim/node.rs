//! The nodes: their shards, the mesh between them, their clocks, their ends and new beginnings.

use crate::files::Question;
use crate::relay::{Link, News};
use crate::world::World;
use caffis_chat::chat::port::{StoreCall, StoreReply, Ticket};
use caffis_chat::chat::{
    ConnId, CoreConfig, Effect, Input, MeshMessage, Now, Peers, ShardCore, TICK_MS,
};
use caffis_chat::protocol::{CloseCode, UnixMs};
use std::collections::VecDeque;

/// A shard of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct At {
    pub host: usize,
    pub shard: usize,
}

/// A machine on which a node runs, again and again.
pub struct Host {
    pub shards: usize,
    /// Its wall clock is ahead by so much, ms.
    pub skew_ms: u64,
    pub node: Option<Node>,
    pub restart_at_us: u64,
    pub link: Link,
}

/// A node from its start to its end.
pub struct Node {
    pub shards: Vec<ShardCore>,
    /// By from, by to.
    rings: Vec<Vec<VecDeque<MeshMessage>>>,
    /// Calls under way, by shard, each with the time before which it is not done.
    pub store: Vec<VecDeque<(Ticket, StoreCall, u64)>>,
    pub replies: Vec<VecDeque<StoreReply>>,
    pub news: Vec<News>,
    /// Questions about files, by shard.
    pub files: Vec<Vec<Question>>,
    pub free: Vec<Vec<ConnId>>,
    pub places: Vec<u32>,
    started_us: u64,
    next_tick_us: u64,
    pub draining: bool,
    drained: usize,
}

impl World {
    /// The time as a node tells it.
    pub fn now(&self, host: usize) -> Now {
        let host = &self.hosts[host];
        let started_us = host.node.as_ref().map_or(0, |node| node.started_us);
        Now {
            mono_us: self.now_us - started_us + 1,
            unix: UnixMs(self.unix().0 + host.skew_ms),
        }
    }

    /// Starts the nodes whose time has come.
    pub fn revive(&mut self) {
        for host in 0..self.hosts.len() {
            let Host {
                node,
                restart_at_us,
                ..
            } = &self.hosts[host];
            if node.is_none() && (self.now_us >= *restart_at_us || self.calm) {
                self.start(host);
            }
        }
    }

    fn start(&mut self, host: usize) {
        let count = self.hosts[host].shards;
        let scenario = &self.scenario;
        let mut config = CoreConfig::new(&format!("sim-{host}"), count as u16, self.store.epoch());
        config.peers = scenario.peers;
        config.run = self.rng.next();
        config.outbox_bytes_max = scenario.outbox_bytes;
        config.outbox_shard_bytes_max = 20 * scenario.outbox_bytes;
        config.mesh_deliver_max = scenario.mesh_deliver_max;
        config.windows_bytes_max = match self.rng.permille(500) {
            true => 8 << 10,
            false => 1 << 20,
        };
        config.sabotage = self.sabotage;
        if self.rng.permille(500) {
            config.spaced_writes_per_s = 20;
        }
        config.sends_per_10s = 1_000;
        config.commands_per_10s = 10_000;
        let seed = self.rng.next();
        self.store.restart();
        self.hosts[host].link = Link::new(self.now_us + self.rng.below(200_000) as u64);
        self.hosts[host].node = Some(Node {
            shards: (0..count as u16)
                .map(|shard| ShardCore::new(config.clone(), shard, seed ^ u64::from(shard)))
                .collect(),
            rings: (0..count)
                .map(|_| (0..count).map(|_| VecDeque::new()).collect())
                .collect(),
            store: (0..count).map(|_| VecDeque::new()).collect(),
            replies: (0..count).map(|_| VecDeque::new()).collect(),
            news: (0..count).map(|_| News::default()).collect(),
            files: (0..count).map(|_| Vec::new()).collect(),
            free: vec![Vec::new(); count],
            places: vec![0; count],
            started_us: self.now_us,
            next_tick_us: self.now_us,
            draining: false,
            drained: 0,
        });
    }

    /// A node that runs, if one does.
    pub fn pick_running(&mut self, wanted: impl Fn(&Node) -> bool) -> Option<usize> {
        let running: Vec<usize> = (0..self.hosts.len())
            .filter(|host| self.hosts[*host].node.as_ref().is_some_and(&wanted))
            .collect();
        (!running.is_empty()).then(|| running[self.rng.below(running.len())])
    }

    pub fn crash_or_drain(&mut self) -> Result<(), String> {
        let Some(host) = self.pick_running(|_| true) else {
            return Ok(());
        };
        if self.rng.permille(300) {
            let spread_ms = self.rng.below(3_000) as u64;
            let Some(node) = &mut self.hosts[host].node else {
                return Ok(());
            };
            if !node.draining {
                node.draining = true;
                self.report.drains += 1;
                for shard in 0..self.hosts[host].shards {
                    self.input(At { host, shard }, Input::Drain { spread_ms })?;
                }
            }
            return Ok(());
        }
        self.report.crashes += 1;
        // What the store was asked may still happen, but nobody hears of it.
        let queues = self.hosts[host]
            .node
            .as_mut()
            .map(|node| std::mem::take(&mut node.store));
        for queue in queues.into_iter().flatten() {
            self.orphan(host, queue);
        }
        self.forget_node(host);
        Ok(())
    }

    /// The process is gone: every connection with it.
    fn forget_node(&mut self, host: usize) {
        self.count_node(host);
        self.hosts[host].node = None;
        self.hosts[host].restart_at_us = self.now_us + self.rng.below(2_000_000) as u64;
        for client in &mut self.clients {
            if client.wire.take_if(|wire| wire.at.host == host).is_some() {
                client.connect_at_us = self.now_us + self.rng.below(1_000_000) as u64;
            }
        }
    }

    /// Adds what a node has counted.
    pub fn count_node(&mut self, host: usize) {
        for shard in self.hosts[host].node.iter().flat_map(|node| &node.shards) {
            self.report.replayed += shard.stats().replayed;
            self.report.gate_fetches += shard.stats().gate_fetches;
        }
    }

    pub fn input(&mut self, at: At, input: Input<'_>) -> Result<(), String> {
        let now = self.now(at.host);
        let Some(node) = &mut self.hosts[at.host].node else {
            return Ok(());
        };
        let mut effects = std::mem::take(&mut self.effects);
        node.shards[at.shard].step(now, input, &mut effects);
        self.perform(at, effects)
    }

    pub fn perform(&mut self, at: At, mut effects: Vec<Effect>) -> Result<(), String> {
        let mut verified = Vec::new();
        for effect in effects.drain(..) {
            match effect {
                Effect::Verify(conn, token) => verified.push((conn, token)),
                Effect::Store(ticket, call) => {
                    let slow = !self.calm && self.rng.permille(self.scenario.store_slow_permille);
                    let wait_us = if slow { self.rng.below(8_000_000) } else { 0 } as u64;
                    if let Some(node) = &mut self.hosts[at.host].node {
                        node.store[at.shard].push_back((ticket, call, self.now_us + wait_us));
                    }
                }
                Effect::Flush(conn) => {
                    if let Some(wire) = self.wire_mut(at, conn) {
                        wire.dirty = true;
                    }
                }
                Effect::Close(conn, code) => {
                    if code == CloseCode::SlowConsumer {
                        self.report.slow_closes += 1;
                    }
                    if let Some(wire) = self.wire_mut(at, conn) {
                        wire.close = Some(code as u16);
                    }
                }
                Effect::Relay(call) => {
                    if self.scenario.peers != Peers::Relay {
                        return Err(format!("asks a relay that it does not have: {call:?}"));
                    }
                    self.hosts[at.host].link.submit(call);
                }
                Effect::Files(id, ask) => self.ask_files(at, id, ask),
                // Whoever erases asks again; what came of it stands in the store.
                Effect::Answer(..) | Effect::Served(..) => (),
                Effect::Drained => {
                    if let Some(node) = &mut self.hosts[at.host].node {
                        node.drained += 1;
                    }
                }
            }
        }
        self.effects = effects;
        for (conn, token) in verified {
            let result = crate::network::identify(&token, self.now(at.host).unix);
            self.input(at, Input::Verified(conn, result))?;
        }
        Ok(())
    }

    pub fn tick(&mut self, host: usize) -> Result<(), String> {
        let Some(node) = &mut self.hosts[host].node else {
            return Ok(());
        };
        if self.now_us < node.next_tick_us {
            return Ok(());
        }
        node.next_tick_us = self.now_us + TICK_MS * 1_000;
        for shard in 0..self.hosts[host].shards {
            self.input(At { host, shard }, Input::Tick)?;
        }
        let node = &self.hosts[host].node;
        if node
            .as_ref()
            .is_some_and(|node| node.drained == node.shards.len())
        {
            // A drained node has told everybody, and has nothing under way.
            self.forget_node(host);
        }
        Ok(())
    }

    /// The timers of batches that were held back, and of missing events; sometimes late.
    pub fn due(&mut self, host: usize) -> Result<(), String> {
        let now_us = self.now(host).mono_us;
        for shard in 0..self.hosts[host].shards {
            let node = self.hosts[host].node.as_ref();
            let due_us = node.and_then(|node| node.shards[shard].due_us());
            if due_us.is_some_and(|due_us| due_us <= now_us)
                && (self.calm || self.rng.permille(800))
            {
                self.input(At { host, shard }, Input::Due)?;
            }
        }
        Ok(())
    }

    /// The driver's part: from the cores' queues into the rings, and out of them.
    pub fn move_mesh(&mut self, host: usize) -> Result<(), String> {
        let count = self.hosts[host].shards;
        let ring = self.scenario.ring;
        let pair = (self.rng.below(count), self.rng.below(count));
        let pairs: Vec<(usize, usize)> = match self.calm {
            true => (0..count * count)
                .map(|pair| (pair / count, pair % count))
                .collect(),
            false => vec![pair],
        };
        for (from, to) in pairs {
            let Some(node) = &mut self.hosts[host].node else {
                return Ok(());
            };
            let out = node.shards[from].mesh_out(to as u16);
            while node.rings[from][to].len() < ring {
                let Some(message) = out.pop_front() else {
                    break;
                };
                node.rings[from][to].push_back(message);
            }
            let take = match self.calm {
                true => ring,
                false => 1 + self.rng.below(4),
            };
            for _ in 0..take {
                let node = self.hosts[host].node.as_mut();
                let Some(message) = node.and_then(|node| node.rings[from][to].pop_front()) else {
                    break;
                };
                let at = At { host, shard: to };
                self.input(at, Input::Mesh(from as u16, message))?;
            }
        }
        Ok(())
    }
}
