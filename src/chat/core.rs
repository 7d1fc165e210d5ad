//! One shard's state, and the step that changes it.

use super::frame::{Class, Frame};
use super::outbox::{Outbox, Pushed};
use super::stats::Stats;
use super::{ConnId, CoreConfig, Effect, Input, Now, ShardIx};
use crate::protocol::{CloseCode, websocket};
use std::collections::VecDeque;

/// What one shard tells another of the same node.
#[derive(Debug)]
pub enum MeshMessage {}

/// One shard's state.
#[derive(Debug)]
pub struct ShardCore {
    config: CoreConfig,
    mesh: Vec<VecDeque<MeshMessage>>,
    sessions: Vec<Option<(u32, Outbox)>>,
    stats: Stats,
}

impl ShardCore {
    /// A shard without connections. `seed` drives everything that is random in it.
    pub fn new(config: CoreConfig, _shard: ShardIx, _seed: u64) -> ShardCore {
        let mesh = (0..config.shards).map(|_| VecDeque::new()).collect();
        ShardCore {
            config,
            mesh,
            sessions: Vec::new(),
            stats: Stats::default(),
        }
    }

    /// Takes one input and appends what is to be done. Reads no clock, does no I/O, never fails,
    /// never waits.
    pub fn step(&mut self, _now: Now, input: Input<'_>, effects: &mut Vec<Effect>) {
        match input {
            Input::Opened(conn) => {
                let index = conn.index as usize;
                if self.sessions.len() <= index {
                    self.sessions.resize_with(index + 1, || None);
                }
                self.sessions[index] = Some((conn.generation, Outbox::default()));
            }
            Input::Text(conn, text) => {
                self.push(conn, &Frame::text(text, Class::Durable), effects);
            }
            Input::Binary(conn, bytes) => {
                use tungstenite::protocol::frame::coding::{Data, OpCode};
                let bytes = websocket::encode(OpCode::Data(Data::Binary), bytes);
                let frame = Frame::encoded(bytes, Class::Durable, Default::default());
                self.push(conn, &frame, effects);
            }
            Input::Closed(conn) => {
                if let Some(slot) = self.sessions.get_mut(conn.index as usize) {
                    *slot = None;
                }
            }
            _ => (),
        }
    }

    fn push(&mut self, conn: ConnId, frame: &Frame, effects: &mut Vec<Effect>) {
        let max = self.config.outbox_bytes_max;
        let Some(Some((_, outbox))) = self.sessions.get_mut(conn.index as usize) else {
            return;
        };
        let was_empty = outbox.is_empty();
        match outbox.push(frame, max) {
            Pushed::Queued if was_empty => effects.push(Effect::Flush(conn)),
            Pushed::Queued | Pushed::Dropped => (),
            Pushed::Full => effects.push(Effect::Close(conn, CloseCode::SlowConsumer)),
        }
    }

    /// What waits to be written to a connection; `None` once it is closed.
    pub fn outbox(&self, conn: ConnId) -> Option<&Outbox> {
        match self.sessions.get(conn.index as usize) {
            Some(Some((generation, outbox))) if *generation == conn.generation => Some(outbox),
            _ => None,
        }
    }

    /// Takes note that this many bytes of the outbox went out.
    pub fn written(&mut self, _now: Now, conn: ConnId, bytes: usize, _effects: &mut Vec<Effect>) {
        if let Some(Some((_, outbox))) = self.sessions.get_mut(conn.index as usize) {
            outbox.written(bytes, |_| ());
        }
    }

    /// The messages that wait to be put into the ring towards another shard, oldest first. The
    /// driver takes as many as fit; what it leaves is what the core sees as "full".
    pub fn mesh_out(&mut self, to: ShardIx) -> &mut VecDeque<MeshMessage> {
        &mut self.mesh[usize::from(to)]
    }

    /// The counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}
