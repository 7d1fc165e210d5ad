//! The relay between the nodes, at its worst: each message is lost, late, doubled or overtaken, for
//! each node that follows by itself; it goes away for one node or for all, or stalls without a word.
//!
//! A [`Link`] says to its shards what the adapter for Redis says, and when: `Up` first; `Following`
//! after the subscription, for all that is wanted again after every loss of the connection; `Down`
//! when the connection is lost; `Lost` when a shard's queue is full. What changes the state
//! overtakes messages, as it does there. As on a cluster of three masters, one of them may be lost alone: then
//! it is `Down` too, but the messages of the others come all the while, and `Following` is told again for
//! all after `Up`; and a bucket may move to another master, which is `Lost` and `Following` for it alone.

use crate::node::At;
use crate::world::World;
use caffis_chat::chat::Input;
use caffis_chat::chat::port::{RelayCall, RelayNews};
use std::collections::{BTreeSet, VecDeque};

/// A node's end of the relay.
pub struct Link {
    up: bool,
    /// The next try to connect.
    connect_at_us: u64,
    /// The master that is lost alone, and until when.
    master_away: Option<(u16, u64)>,
    /// Everything is lost until then, and nobody is told.
    stalled_until_us: u64,
    /// Which connection it is: what is under way to another one is lost.
    connection: u64,
    pub wanted: BTreeSet<u16>,
    /// Buckets of which that may have changed, each at most once.
    changed: VecDeque<u16>,
    subscribed: BTreeSet<u16>,
    /// Subscribed to, of which the shard was not told yet.
    confirming: VecDeque<u16>,
    outgoing: VecDeque<(u16, Box<[u8]>)>,
}

impl Link {
    pub fn new(connect_at_us: u64) -> Link {
        Link {
            up: false,
            connect_at_us,
            master_away: None,
            stalled_until_us: 0,
            connection: 0,
            wanted: BTreeSet::new(),
            changed: VecDeque::new(),
            subscribed: BTreeSet::new(),
            confirming: VecDeque::new(),
            outgoing: VecDeque::new(),
        }
    }

    /// Takes a call of a shard.
    pub fn submit(&mut self, call: RelayCall) {
        match call {
            RelayCall::Publish(bucket, bytes) => self.outgoing.push_back((bucket, bytes)),
            RelayCall::Follow(bucket) => {
                self.wanted.insert(bucket);
                self.note(bucket);
            }
            RelayCall::Unfollow(bucket) => {
                self.wanted.remove(&bucket);
                self.note(bucket);
            }
        }
    }

    fn note(&mut self, bucket: u16) {
        if !self.changed.contains(&bucket) {
            self.changed.push_back(bucket);
        }
    }

    fn connect(&mut self) {
        self.up = true;
        // What waited for a connection was found in the store by now.
        self.outgoing.clear();
        for bucket in self.wanted.clone() {
            self.note(bucket);
        }
    }

    fn lose(&mut self, connect_at_us: u64) {
        self.up = false;
        self.master_away = None;
        self.connection += 1;
        self.stalled_until_us = 0;
        self.connect_at_us = connect_at_us;
        self.subscribed.clear();
        self.confirming.clear();
    }

    pub fn is_calm(&self) -> bool {
        self.up
            && self.master_away.is_none()
            && self.changed.is_empty()
            && self.confirming.is_empty()
    }

    /// Whether nothing of this bucket passes, because its master is lost.
    fn is_away(&self, bucket: u16) -> bool {
        self.master_away
            .is_some_and(|(master, _)| master == bucket % MASTERS)
    }
}

/// Masters of the cluster.
const MASTERS: u16 = 3;

/// A message on its way to one node.
pub struct Flight {
    due_us: u64,
    host: usize,
    connection: u64,
    bucket: u16,
    bytes: Box<[u8]>,
}

/// What waits for a shard.
#[derive(Default)]
pub struct News {
    state: VecDeque<RelayNews>,
    messages: VecDeque<RelayNews>,
    lost: bool,
}

impl News {
    fn take(&mut self) -> Option<RelayNews> {
        let news = self.state.pop_front().or_else(|| self.messages.pop_front());
        news.or_else(|| std::mem::take(&mut self.lost).then_some(RelayNews::Lost))
    }
}

impl World {
    /// The relay works for one node.
    pub fn move_relay(&mut self, host: usize) -> Result<(), String> {
        if self.hosts[host].node.is_none() {
            return Ok(());
        }
        self.connect_relay(host);
        self.subscribe(host);
        self.publish(host);
        self.arrive();
        self.take_news(host)
    }

    fn connect_relay(&mut self, host: usize) {
        let now_us = self.now_us;
        if self.calm {
            self.relay_away_until_us = 0;
            self.hosts[host].link.stalled_until_us = 0;
        }
        let away = self.relay_away_until_us > now_us;
        let link = &mut self.hosts[host].link;
        if !link.up {
            if self.calm || now_us >= link.connect_at_us && !away {
                link.connect();
                self.tell_all(host, &RelayNews::Up);
            }
            return;
        }
        if link.stalled_until_us != 0 && now_us >= link.stalled_until_us {
            link.stalled_until_us = 0;
            if self.rng.permille(700) {
                return self.lose_relay(host);
            }
        }
        if let Some((_, until_us)) = link.master_away
            && (self.calm || now_us >= until_us)
        {
            self.master_is_back(host);
        }
        if self.calm || !self.rng.permille(self.scenario.relay_down_permille) {
            return;
        }
        match self.rng.below(6) {
            0 => {
                self.relay_away_until_us = now_us + self.rng.below(10_000_000) as u64;
                for host in 0..self.hosts.len() {
                    if self.hosts[host].link.up {
                        self.lose_relay(host);
                    }
                }
            }
            1 => self.lose_relay(host),
            2 => self.lose_master(host),
            3 => self.move_bucket(host),
            _ => {
                self.report.relay_stalls += 1;
                let stall_us = 1 + self.rng.below(8_000_000) as u64;
                self.hosts[host].link.stalled_until_us = now_us + stall_us;
            }
        }
    }

    /// One of the masters is lost; the others go on.
    fn lose_master(&mut self, host: usize) {
        let master = self.rng.below(usize::from(MASTERS)) as u16;
        let until_us = self.now_us + self.rng.below(15_000_000) as u64;
        let link = &mut self.hosts[host].link;
        if link.master_away.is_some() {
            return;
        }
        link.master_away = Some((master, until_us));
        link.subscribed.retain(|bucket| bucket % MASTERS != master);
        link.confirming.retain(|bucket| bucket % MASTERS != master);
        self.report.relay_downs += 1;
        self.tell_all(host, &RelayNews::Down);
    }

    fn master_is_back(&mut self, host: usize) {
        let link = &mut self.hosts[host].link;
        link.master_away = None;
        link.confirming.clear();
        let subscribed = link.subscribed.clone();
        for bucket in link.wanted.clone() {
            if !subscribed.contains(&bucket) {
                link.note(bucket);
            }
        }
        self.tell_all(host, &RelayNews::Up);
        for bucket in subscribed {
            self.tell(host, bucket, RelayNews::Following(bucket));
        }
    }

    /// A bucket goes to another master: what is published before it is followed there is lost.
    fn move_bucket(&mut self, host: usize) {
        let link = &self.hosts[host].link;
        let count = link.subscribed.len();
        if count == 0 {
            return;
        }
        let place = self.rng.below(count);
        let link = &mut self.hosts[host].link;
        let Some(bucket) = link.subscribed.iter().nth(place).copied() else {
            return;
        };
        link.subscribed.remove(&bucket);
        link.confirming.retain(|other| *other != bucket);
        if link.wanted.contains(&bucket) {
            link.note(bucket);
            self.tell(host, bucket, RelayNews::Lost);
        }
    }

    fn lose_relay(&mut self, host: usize) {
        self.report.relay_downs += 1;
        let wait_us = match self.rng.below(3) {
            0 => 50_000,
            1 => 1_000_000,
            _ => self.rng.below(15_000_000) as u64,
        };
        let told = self.hosts[host].link.master_away.is_some();
        self.hosts[host].link.lose(self.now_us + wait_us);
        if !told {
            self.tell_all(host, &RelayNews::Down);
        }
    }

    fn works(&self, host: usize) -> bool {
        let link = &self.hosts[host].link;
        link.up && link.stalled_until_us == 0 && self.hosts[host].node.is_some()
    }

    /// So many of this many are done now.
    fn some(&mut self, of: usize) -> usize {
        match self.calm {
            true => of,
            false => self.rng.below(of + 1),
        }
    }

    /// Confirms what was subscribed to before, then subscribes.
    fn subscribe(&mut self, host: usize) {
        if !self.works(host) {
            return;
        }
        for _ in 0..self.some(self.hosts[host].link.confirming.len()) {
            // While it is down this is kept for `Up`.
            if let Some(bucket) = self.hosts[host].link.confirming.pop_front()
                && self.hosts[host].link.master_away.is_none()
            {
                self.tell(host, bucket, RelayNews::Following(bucket));
            }
        }
        for _ in 0..self.some(self.hosts[host].link.changed.len()) {
            let link = &mut self.hosts[host].link;
            let Some(bucket) = link.changed.pop_front() else {
                return;
            };
            match link.wanted.contains(&bucket) {
                // It is noted again when its master is back.
                true if link.is_away(bucket) => (),
                true => {
                    link.subscribed.insert(bucket);
                    link.confirming.push_back(bucket);
                }
                false => drop(link.subscribed.remove(&bucket)),
            }
        }
    }

    fn publish(&mut self, host: usize) {
        let link = &mut self.hosts[host].link;
        if !link.up {
            return;
        }
        if link.stalled_until_us != 0 {
            self.report.relay_lost += link.outgoing.len() as u64;
            return link.outgoing.clear();
        }
        for _ in 0..self.some(self.hosts[host].link.outgoing.len()) {
            let Some((bucket, bytes)) = self.hosts[host].link.outgoing.pop_front() else {
                return;
            };
            if self.hosts[host].link.is_away(bucket) {
                self.report.relay_lost += 1;
                continue;
            }
            for to in 0..self.hosts.len() {
                if self.works(to) && self.hosts[to].link.subscribed.contains(&bucket) {
                    self.relay_to(to, bucket, &bytes);
                } else if self.hosts[to].link.stalled_until_us != 0 {
                    self.report.relay_lost += 1;
                }
            }
        }
    }

    fn relay_to(&mut self, host: usize, bucket: u16, bytes: &[u8]) {
        self.report.relay_sent += 1;
        let fault = !self.calm && self.rng.permille(self.scenario.relay_fault_permille);
        let mut copies = 1;
        let mut wait_us = 0;
        if fault {
            match self.rng.below(4) {
                0 => {
                    self.report.relay_doubled += 1;
                    copies = 2;
                }
                1 => {
                    self.report.relay_delayed += 1;
                    wait_us = self.rng.below(3_000_000);
                }
                2 => wait_us = self.rng.below(1_000),
                _ => {
                    self.report.relay_lost += 1;
                    copies = 0;
                }
            }
        }
        for copy in 0..copies {
            let late_us = if copy > 0 { self.rng.below(500_000) } else { 0 };
            self.flights.push(Flight {
                due_us: self.now_us + (wait_us + late_us) as u64,
                host,
                connection: self.hosts[host].link.connection,
                bucket,
                bytes: bytes.into(),
            });
        }
    }

    fn arrive(&mut self) {
        let now_us = self.now_us;
        let calm = self.calm;
        for flight in self
            .flights
            .extract_if(.., |it| calm || it.due_us <= now_us)
            .collect::<Vec<_>>()
        {
            let host = flight.host;
            let link = &self.hosts[host].link;
            let comes = link.connection == flight.connection && !link.is_away(flight.bucket);
            if self.works(host) && comes {
                self.tell(host, flight.bucket, RelayNews::Message(flight.bytes));
            } else {
                self.report.relay_lost += 1;
            }
        }
    }

    fn tell(&mut self, host: usize, bucket: u16, news: RelayNews) {
        let Some(node) = &mut self.hosts[host].node else {
            return;
        };
        let shard = usize::from(bucket) % node.news.len();
        let waiting = &mut node.news[shard];
        match news {
            RelayNews::Message(_) if waiting.messages.len() >= self.scenario.relay_news_max => {
                self.report.relay_overflows += 1;
                waiting.lost = true;
            }
            RelayNews::Message(_) => waiting.messages.push_back(news),
            RelayNews::Up | RelayNews::Down | RelayNews::Following(_) | RelayNews::Lost => {
                waiting.state.push_back(news);
            }
        }
    }

    fn tell_all(&mut self, host: usize, news: &RelayNews) {
        for waiting in self.hosts[host]
            .node
            .iter_mut()
            .flat_map(|node| &mut node.news)
        {
            waiting.state.push_back(news.clone());
        }
    }

    fn take_news(&mut self, host: usize) -> Result<(), String> {
        let only = self.rng.below(self.hosts[host].shards);
        for shard in 0..self.hosts[host].shards {
            if shard != only && !self.calm {
                continue;
            }
            let mut left = match self.calm {
                true => usize::MAX,
                false => 1 + self.rng.below(8),
            };
            while left > 0
                && let Some(node) = &mut self.hosts[host].node
                && let Some(news) = node.news[shard].take()
            {
                left -= 1;
                self.input(At { host, shard }, Input::Relay(news))?;
            }
        }
        Ok(())
    }
}
