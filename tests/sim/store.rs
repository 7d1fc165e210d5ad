//! The one store of all nodes: the real transactions, and in front of them a queue that is slow,
//! fails, forgets answers, and does what was asked by those who are dead.

use crate::node::At;
use crate::truth::Truth;
use crate::world::World;
use caffis_chat::chat::Input;
use caffis_chat::chat::port::{
    EventsRead, Op, OpDone, OpReply, StoreAnswer, StoreCall, StoreError, StoreReply, Ticket,
};
use caffis_chat::protocol::event::{RoomEvent, RoomEventBody};
use caffis_chat::protocol::{Epoch, RoomId, Seq, UnixMs};
use caffis_chat::store::sqlite::{Db, DbOptions};
use std::collections::{BTreeSet, VecDeque};

/// The database, and all writes that were made to it: a loss of history is a new database with
/// fewer of them.
pub struct SimStore {
    db: Db,
    options: DbOptions,
    /// Kept only where the history is going to be lost.
    log: Option<Vec<(UnixMs, StoreCall)>>,
}

/// A write of a node that has crashed.
pub struct Orphan {
    due_us: u64,
    host: usize,
    call: StoreCall,
}

impl SimStore {
    pub fn new(options: DbOptions, keeps_log: bool) -> SimStore {
        SimStore {
            db: Db::in_memory(&options).expect("an empty database in memory"),
            options,
            log: keeps_log.then(Vec::new),
        }
    }

    /// From the beginning on.
    pub fn keep_log(&mut self) {
        self.log.get_or_insert_default();
    }

    pub fn epoch(&self) -> Epoch {
        self.db.epoch()
    }

    pub fn restart(&mut self) {
        self.db.restart();
    }

    pub fn read(&mut self, now: UnixMs, call: &StoreCall) -> Result<StoreAnswer, StoreError> {
        self.db.call(now, call)
    }

    fn call(&mut self, now: UnixMs, call: StoreCall) -> Result<StoreAnswer, StoreError> {
        let result = self.db.call(now, &call);
        let writes = is_write(&call)
            || matches!(
                call,
                StoreCall::RenewEpoch(_)
                    | StoreCall::WriteReceipts(_)
                    | StoreCall::SetOwn(_)
                    | StoreCall::Uploads(_)
            );
        if let (true, Some(log)) = (writes, &mut self.log) {
            log.push((now, call));
        }
        result
    }

    /// Goes back by some writes, and keeps no log from now on. Whether there was one.
    pub fn lose(&mut self, writes: usize) -> bool {
        let Some(mut log) = self.log.take() else {
            return false;
        };
        // Receipts alone are nothing that could be noticed.
        let mut events = (0..log.len()).filter(|place| is_write(&log[*place].1));
        let lost_from = events.nth_back(writes.saturating_sub(1)).unwrap_or(0);
        log.truncate(lost_from);
        let mut db = Db::in_memory(&self.options).expect("an empty database in memory");
        for (now, call) in &log {
            let _ = db.call(*now, call);
        }
        self.db = db;
        true
    }
}

/// Decided in the order in which they were given.
fn is_write(call: &StoreCall) -> bool {
    is_commit(call) || matches!(call, StoreCall::SignIn(_))
}

fn is_commit(call: &StoreCall) -> bool {
    matches!(call, StoreCall::Commit(_) | StoreCall::TryCommit(_))
}

impl World {
    /// The store is asked, and it is noted on whose behalf an event was written.
    fn ask(&mut self, host: usize, call: StoreCall) -> Result<StoreAnswer, StoreError> {
        let (call, held) = match call {
            StoreCall::TryCommit(ops) => self.hold(ops),
            call => (call, Vec::new()),
        };
        let mut result = self.store.call(self.unix(), call);
        if let Ok(StoreAnswer::Commit(outcomes)) = &mut result {
            for place in held {
                let nothing = OpDone {
                    reply: OpReply::Held,
                    events: Vec::new(),
                };
                outcomes.insert(place, Ok(nothing));
            }
        }
        if let Ok(StoreAnswer::Commit(outcomes)) = &result {
            for event in outcomes.iter().flatten().flat_map(|done| &done.events) {
                self.truth.origin.insert((event.room_id, event.seq), host);
                if let RoomEventBody::UserErased(it) = &event.body {
                    (self.truth).user_erased(event.room_id, it.user_id, it.erased_as);
                }
            }
        }
        result
    }

    /// A write that is on behalf of no shard.
    pub fn write(&mut self, call: StoreCall) -> Result<StoreAnswer, StoreError> {
        self.write_at(self.unix(), call)
    }

    /// The same at another time.
    pub fn write_at(&mut self, at: UnixMs, call: StoreCall) -> Result<StoreAnswer, StoreError> {
        self.store.call(at, call)
    }

    /// Others hold some of the rooms: the writes to the others, and where those stand that are not done.
    fn hold(&mut self, ops: Vec<Op>) -> (StoreCall, Vec<usize>) {
        let mut rooms: BTreeSet<RoomId> = ops.iter().map(|op| op.room).collect();
        let permille = self.scenario.held_rooms_permille;
        rooms.retain(|_| !self.calm && self.rng.permille(permille));
        let held: Vec<usize> = (0..ops.len())
            .filter(|place| rooms.contains(&ops[*place].room))
            .collect();
        self.report.writes_held += held.len() as u64;
        let free = ops.into_iter().filter(|op| !rooms.contains(&op.room));
        (StoreCall::Commit(free.collect()), held)
    }

    /// A node has crashed while the store had this of it.
    pub fn orphan(&mut self, host: usize, queue: VecDeque<(Ticket, StoreCall, u64)>) {
        let mut due_us = self.now_us;
        for (_, call, _) in queue {
            if !self.rng.permille(500) {
                return;
            }
            // With one node the store is in its process, and gone with it.
            if self.hosts.len() == 1 {
                let _ = self.ask(host, call);
                continue;
            }
            due_us += self.rng.below(2_000_000) as u64;
            self.orphans.push_back(Orphan { due_us, host, call });
        }
    }

    fn run_orphans(&mut self) {
        for _ in 0..self.orphans.len() {
            let Some(orphan) = self.orphans.pop_front() else {
                return;
            };
            if self.calm || orphan.due_us <= self.now_us {
                self.report.late_writes += u64::from(is_write(&orphan.call));
                let _ = self.ask(orphan.host, orphan.call);
            } else {
                self.orphans.push_back(orphan);
            }
        }
    }

    /// The store works: commits in order, reads in any order, some calls late, some in vain.
    pub fn run_store(&mut self, host: usize) -> Result<(), String> {
        self.run_orphans();
        let count = self.hosts[host].shards;
        let only = self.rng.below(count);
        for shard in 0..count {
            if shard == only || self.calm {
                self.run_call(At { host, shard });
            }
        }
        Ok(())
    }

    fn run_call(&mut self, at: At) {
        let (now_us, calm) = (self.now_us, self.calm);
        let Some(node) = &mut self.hosts[at.host].node else {
            return;
        };
        let queue = &mut node.store[at.shard];
        let due: Vec<usize> = (0..queue.len())
            .filter(|place| calm || queue[*place].2 <= now_us)
            .collect();
        if due.is_empty() {
            return;
        }
        let mut place = due[self.rng.below(due.len())];
        // Two batches of a shard have no room in common.
        if is_write(&queue[place].1) && !is_commit(&queue[place].1) {
            let first = (0..queue.len()).find(|place| is_write(&queue[*place].1));
            place = first.unwrap_or(place);
        }
        let Some((ticket, call, _)) = queue.remove(place) else {
            return;
        };
        let fault = !calm && self.rng.permille(self.scenario.store_fault_permille);
        let result = if fault {
            self.report.store_faults += 1;
            match self.rng.below(3) {
                0 => Err(StoreError::Overloaded),
                1 => Err(StoreError::Unavailable("not done".to_owned())),
                _ => {
                    // It happened, but the answer was lost.
                    self.report.unknown_outcomes += 1;
                    let _ = self.ask(at.host, call);
                    Err(StoreError::Unavailable("done, perhaps".to_owned()))
                }
            }
        } else {
            self.ask(at.host, call)
        };
        let epoch = self.store.epoch();
        if let Some(node) = &mut self.hosts[at.host].node {
            node.replies[at.shard].push_back(StoreReply {
                ticket,
                epoch,
                result,
            });
        }
    }

    pub fn answer_store(&mut self, host: usize) -> Result<(), String> {
        for shard in 0..self.hosts[host].shards {
            while let Some(node) = &mut self.hosts[host].node
                && let Some(reply) = node.replies[shard].pop_front()
            {
                self.input(At { host, shard }, Input::Store(reply))?;
            }
        }
        Ok(())
    }

    /// A backup was restored, or a replica took over that had not heard the end.
    pub fn lose_history(&mut self) {
        let writes = 1 + self.rng.below(12);
        let epoch = self.store.epoch();
        if !self.store.lose(writes) {
            return;
        }
        self.report.histories_lost += 1;
        self.lost_epoch = Some(epoch);
        self.truth = Truth {
            crossed: self.truth.crossed,
            added_across: self.truth.added_across,
            gaps_told: self.truth.gaps_told,
            ..Truth::default()
        };
        for client in &mut self.clients {
            client.may_be_ahead = true;
        }
    }

    /// Whether a client hears this of a history that was lost, or may have been.
    pub fn is_of_a_lost_history(&self, place: usize, text: &str) -> bool {
        let Some(lost) = self.lost_epoch.map(|epoch| epoch.to_string()) else {
            return false;
        };
        let client = &self.clients[place];
        match client.is_ready() {
            true => client.epoch == lost,
            false => text.contains(&lost),
        }
    }

    pub fn events(&mut self, room: RoomId, after: Seq, to: Seq) -> Result<Vec<RoomEvent>, String> {
        let read = EventsRead {
            room,
            after,
            to,
            events_max: 1_000_000,
            bytes_max: usize::MAX >> 1,
            newest: false,
        };
        match self.store.read(self.unix(), &StoreCall::Events(read)) {
            Ok(StoreAnswer::Events(page)) => Ok(page.events),
            other => Err(format!("{other:?}")),
        }
    }
}
