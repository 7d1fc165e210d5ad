//! The loop of one shard: everything that has arrived goes into the core, what the core wants is
//! done, every connection that has something to write is written once, and then the shard waits.
//!
//! Invariants: one turn takes a bounded number of inputs from each source, so none starves
//! another; no effect is left over when the shard waits; the shard waits only in its own ring, or
//! for that ring's descriptor in the executor, so one thing wakes it for everything.

use super::bell::Bell;
use super::clock::Clock;
use super::mesh::Mesh;
use super::perform::Performer;
use super::{Control, JOINING_MAX, Snapshot};
use crate::chat::{Input, ShardIx, TICK_MS};
use crate::edge::{Chat, Edge};
use crate::sys::Event;
use glommio::io::PollableFd;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// Events of the ring that one turn takes.
const EVENTS_PER_TURN: usize = 1024;
/// Messages of one other shard that one turn takes.
const MESH_PER_TURN: usize = 1024;
/// What is written may ask for more to be written (a replay); so often within a turn.
const FLUSHES_PER_TURN: usize = 2;
/// After work the shard waits in its own ring for this long, µs: 3 µs a wait, against 16 to 27 for
/// one through the executor. After that it is idle, and the executor waits.
const ACTIVE_US: u64 = 20_000;
/// A flush that took longer than this is followed by a pause as long as it took, µs. What comes
/// meanwhile goes out together: a frame that shares a send with others costs a fraction of one
/// that is sent alone, so a shard that spends half its time flushing is better off flushing less.
/// Below it a pause would cost a neighbour latency and gain nothing.
const HOT_FLUSH_US: u64 = 1_000;
/// No pause is longer, µs.
const FLUSH_PAUSE_US_MAX: u64 = 20_000;
/// Counters are published this often, µs.
const PUBLISH_US: u64 = 1_000_000;
/// Sockets that are still closing when a drain is done are waited for this long, µs.
const LAST_CLOSES_US: u64 = 4_000_000;

/// One shard.
pub(super) struct Shard {
    pub(super) index: ShardIx,
    pub(super) clock: Clock,
    pub(super) chat: Chat,
    pub(super) edge: Edge,
    pub(super) mesh: Mesh,
    pub(super) performer: Performer,
    pub(super) bell: Arc<Bell>,
    pub(super) control: Arc<Control>,
    pub(super) timing: Timing,
}

/// When what is due, µs.
#[derive(Debug, Default)]
pub(super) struct Timing {
    next_tick: u64,
    next_publish: u64,
    last_work: u64,
    /// Nothing is flushed before, while the shard is hot.
    next_flush: u64,
    drain_began: bool,
    end_at: Option<u64>,
}

/// What a turn found.
struct Turn {
    inputs: usize,
    /// There is more to do at once.
    more: bool,
}

impl Shard {
    /// Runs until it is drained or stopped.
    ///
    /// # Errors
    /// When the ring fails, which nothing that a peer does can cause.
    pub(super) async fn run(mut self) -> io::Result<()> {
        let ring = PollableFd::new(self.edge.ring.descriptor()?).map_err(io::Error::other)?;
        self.edge.ring.watch(self.bell.event());
        while !self.is_over() {
            let turn = self.turn();
            self.wait(&turn, &ring).await?;
        }
        self.control.asks.clear();
        self.control.service.clear();
        self.publish();
        Ok(())
    }

    fn is_over(&self) -> bool {
        let late = |end_at| self.edge.is_empty() || end_at <= self.chat.now.mono_us;
        self.control.is_stopped() || self.timing.end_at.is_some_and(late)
    }

    fn turn(&mut self) -> Turn {
        self.chat.now = self.clock.now();
        self.edge.stats.turns += 1;
        self.begin_drain();
        let mut inputs = self.take_events();
        inputs += self.take_joining();
        inputs += self.performer.take_asks(&self.control.asks, &mut self.chat);
        inputs += (self.performer).take_service(&self.control.service, &mut self.chat);
        inputs += self.take_mesh();
        inputs += self.performer.take_replies(&mut self.chat);
        inputs += (self.performer).take_verdicts(&mut self.chat, &mut self.edge);
        inputs += self.performer.take_files(&mut self.chat);
        inputs += self.performer.take_news(&mut self.chat);
        self.tick();
        self.edge.keep_accepting(&self.chat);
        for _ in 0..FLUSHES_PER_TURN {
            self.perform();
            self.chat.now = self.clock.now();
            if !self.edge.is_dirty() || self.timing.next_flush > self.chat.now.mono_us {
                break;
            }
            self.flush();
        }
        self.perform();
        let mesh_full = self.mesh.send(&mut self.chat.core);
        let paused = self.timing.next_flush > self.chat.now.mono_us;
        Turn {
            inputs,
            more: mesh_full || (self.edge.is_dirty() && !paused),
        }
    }

    fn flush(&mut self) {
        let began = self.chat.now.mono_us;
        self.edge.flush(&mut self.chat);
        self.chat.now = self.clock.now();
        let took = self.chat.now.mono_us - began;
        if took > HOT_FLUSH_US {
            self.edge.stats.flush_pauses += 1;
            self.timing.next_flush = self.chat.now.mono_us + took.min(FLUSH_PAUSE_US_MAX);
        }
    }

    fn take_events(&mut self) -> usize {
        for taken in 0..EVENTS_PER_TURN {
            match self.edge.ring.next_event() {
                None => return taken,
                Some(Event::Rung { more: false }) => self.edge.ring.watch(self.bell.event()),
                Some(event) => self.edge.take(&mut self.chat, event),
            }
        }
        EVENTS_PER_TURN
    }

    fn take_joining(&mut self) -> usize {
        for taken in 0..JOINING_MAX {
            let Some((stream, read)) = self.control.joining.pop() else {
                return taken;
            };
            self.edge.joined(&mut self.chat, stream, read);
        }
        JOINING_MAX
    }

    fn take_mesh(&mut self) -> usize {
        let mut taken = 0;
        for from in 0..self.mesh.shards() {
            for _ in 0..MESH_PER_TURN {
                let Some(message) = self.mesh.take(from) else {
                    break;
                };
                taken += 1;
                self.chat.tell(Input::Mesh(from as ShardIx, message));
            }
        }
        taken
    }

    fn tick(&mut self) {
        let now = self.chat.now.mono_us;
        if self.timing.next_tick <= now {
            self.timing.next_tick = now + TICK_MS * 1_000;
            self.chat.tell(Input::Tick);
            self.edge.tick(&mut self.chat);
        }
        if self.chat.core.due_us().is_some_and(|due| due <= now) {
            self.chat.tell(Input::Due);
        }
        if self.timing.next_publish <= now {
            self.timing.next_publish = now + PUBLISH_US;
            self.publish();
        }
    }

    fn perform(&mut self) {
        let drained = self.performer.perform(&mut self.chat, &mut self.edge);
        if drained && self.timing.end_at.is_none() {
            self.timing.end_at = Some(self.chat.now.mono_us + LAST_CLOSES_US);
        }
    }

    fn begin_drain(&mut self) {
        if let Some(spread_ms) = self.control.drain()
            && !self.timing.drain_began
        {
            self.timing.drain_began = true;
            tracing::info!(shard = self.index, spread_ms, "draining");
            self.edge.stop_accepting(&mut self.chat);
            self.chat.tell(Input::Drain { spread_ms });
        }
    }

    fn publish(&self) {
        // Whoever reads it holds it for a moment only; then the next one will do.
        if let Ok(mut snapshot) = self.control.snapshot.try_lock() {
            *snapshot = Snapshot {
                core: self.chat.core.stats().clone(),
                driver: self.edge.stats.clone(),
            };
        }
    }

    async fn wait(&mut self, turn: &Turn, ring: &PollableFd<OwnedFd>) -> io::Result<()> {
        let now = self.chat.now.mono_us;
        if turn.inputs > 0 {
            self.timing.last_work = now;
        }
        if turn.more {
            return self.edge.ring.submit();
        }
        self.bell.sleep();
        let awake = self.mesh.has_messages()
            || self.performer.has_replies()
            || self.control.is_new(self.timing.drain_began);
        if awake {
            self.bell.wake();
            return self.edge.ring.submit();
        }
        let next = self.chat.core.due_us().unwrap_or(u64::MAX);
        let until_next = self.timing.next_tick.min(next).saturating_sub(now);
        if self.edge.is_dirty() {
            // A flush is paused: the shard takes what comes until it is due.
            let until_flush = self.timing.next_flush.saturating_sub(now);
            let timeout = Duration::from_micros(until_flush.min(until_next));
            self.edge.ring.wait(1, timeout)?;
            self.bell.wake();
        } else if now < self.timing.last_work + ACTIVE_US {
            let timeout = Duration::from_micros(until_next.min(ACTIVE_US));
            self.edge.ring.wait(1, timeout)?;
            self.bell.wake();
        } else {
            self.edge.stats.idles += 1;
            self.edge
                .ring
                .timer(Duration::from_micros(until_next.max(1)));
            self.edge.ring.submit()?;
            if !self.edge.ring.has_events() {
                // Ends with the next tick at the latest, so it is never cancelled.
                ring.readable().await.map_err(io::Error::other)?;
            }
            self.bell.wake();
        }
        Ok(())
    }
}
