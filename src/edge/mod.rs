//! The sockets of one shard: accepted, upgraded, read, written and closed on the shard's ring.
//!
//! Invariants: the core hears `Opened` once and then `Closed` once of every connection, `Closed`
//! last; a descriptor is closed, and its place in the slab used again, only when no request names
//! it; nothing a peer does or leaves undone trips an assertion, holds a connection that is being
//! closed for more than [`CLOSE_MS_MAX`], or a buffer while it is idle.
//!
//! Next: [`accept`] → [`handshake`] → [`read`] → the core → [`write`].

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros
)]

pub mod accept;
pub mod handshake;
pub mod peers;
pub mod read;
mod slab;
pub mod stats;
pub mod write;

use crate::chat::{ConnId, Effect, Input, Now, ShardCore};
use crate::limits;
use crate::sys::{Ring, RingSizes};
use handshake::AllowedOrigins;
use peers::{Counted, Peers};
use slab::Slab;
use stats::DriverStats;
use std::io;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// Requests of a ring that may wait for one system call.
const SUBMISSIONS: u32 = 1024;
/// Completions that fit into a ring: two for each buffer, and the accepts and wakes beside them.
const COMPLETIONS: u32 = 4096;
/// Receive buffers of a shard. When a burst takes them all, the receives that found none are
/// asked again after the turn.
const BUFFERS: u16 = 1024;
/// Bytes of each: a chat message fits, with its neighbours.
const BUFFER_BYTES: u32 = 2048;
/// The ring of every shard.
pub const RING: RingSizes = RingSizes {
    submissions: SUBMISSIONS,
    completions: COMPLETIONS,
    buffers: BUFFERS,
    buffer_bytes: BUFFER_BYTES,
};
/// Memory that one shard may lock, bytes, the rings of its executor included: other users than
/// root have 8 MiB in all by default.
pub const LOCKED_BYTES_MAX: usize = 1 << 20;
const _: () = assert!(RING.locked_bytes() < LOCKED_BYTES_MAX / 2);
const _: () = assert!(COMPLETIONS >= 2 * BUFFERS as u32);

/// Connections of a shard that have not sent their request yet. Each may take up to
/// [`limits::HANDSHAKE_MS_MAX`]; when there are so many, those older than [`HANDSHAKE_MS_HURRIED`]
/// are given up first, and a new one is refused only if there are none: whoever holds many
/// half-open does not keep out those who ask at once.
pub const HANDSHAKES_MAX: usize = 4096;
/// How long a request may take while there are too many, ms.
pub const HANDSHAKE_MS_HURRIED: u64 = 1_000;
/// Connections of a shard that are being closed in good order; further ones are cut off.
pub const CLOSING_MAX: usize = 16_384;
/// How long a connection that is being closed may take, ms: once to write what is left and once
/// for the peer to end its side.
pub const CLOSE_MS_MAX: u64 = 3_000;
/// No connection is accepted for this long after descriptors ran out, ms.
pub const ACCEPT_PAUSE_MS: u64 = 100;
/// Pongs that may wait for room in a socket, bytes. Above it only the newest is kept, as RFC 6455
/// allows (section 5.5.3).
pub const CONTROL_BYTES_MAX: usize = 4096;
/// One send takes at most this much from an outbox, bytes.
pub const SEND_BYTES_MAX: usize = 64 << 10;
/// One connection is sent at most this many times in a turn, so that it cannot hold up others.
pub const SENDS_PER_FLUSH: usize = 4;
const _: () = assert!(limits::HANDSHAKE_BYTES_MAX > BUFFER_BYTES as usize);

/// Takes a connection that is not a WebSocket, with the bytes that were read from it, in
/// non-blocking mode. Gives it back when it has no room. Must not block.
pub type Handoff = dyn Fn(TcpStream, Vec<u8>) -> Result<(), TcpStream> + Send + Sync;

/// How the sockets of a shard are treated.
#[derive(Clone)]
pub struct EdgeConfig {
    /// Whose pages may connect.
    pub origins: AllowedOrigins,
    /// WebSockets of the node; further upgrades are answered 503. Shards that upgrade at the same
    /// moment may each take one more.
    pub connections_max: usize,
    /// How many the node has: the one number that its shards share, because the kernel spreads
    /// connections over them unevenly.
    pub connections: Arc<AtomicUsize>,
    /// How many each address has, on all shards together.
    pub peers: Arc<Peers>,
    /// The control plane.
    pub handoff: Arc<Handoff>,
}

/// The shard's core, with the time it is told and what it wants done.
#[derive(Debug)]
pub struct Chat {
    /// The core.
    pub core: ShardCore,
    /// The time of this part of the turn.
    pub now: Now,
    /// What is to be done, oldest first.
    pub effects: Vec<Effect>,
}

impl Chat {
    /// Gives the core one input.
    pub fn tell(&mut self, input: Input<'_>) {
        self.core.step(self.now, input, &mut self.effects);
    }
}

/// The sockets of one shard.
pub struct Edge {
    config: EdgeConfig,
    /// The ring; the shard waits in it.
    pub ring: Ring,
    /// Counters of the driver.
    pub stats: DriverStats,
    slab: Slab,
    /// By place in the slab: how the socket is counted for its address.
    counted: Vec<Counted>,
    /// By place in the slab: where its WebSocket comes from.
    addresses: Vec<Option<IpAddr>>,
    accepting: accept::Accepting,
    /// Connections to be written at the end of the turn, each once.
    dirty: Vec<u32>,
    /// Where several frames are put together for one send.
    scratch: Vec<u8>,
}

impl std::fmt::Debug for Edge {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Edge").finish_non_exhaustive()
    }
}

impl Edge {
    /// The sockets that this listener will accept. On the thread of the shard.
    ///
    /// # Errors
    /// See [`Ring::new`].
    pub fn new(config: EdgeConfig, listener: TcpListener) -> io::Result<Edge> {
        Ok(Edge {
            config,
            ring: Ring::new(RING)?,
            stats: DriverStats::default(),
            slab: Slab::default(),
            counted: Vec::new(),
            addresses: Vec::new(),
            accepting: accept::Accepting::new(listener),
            dirty: Vec::new(),
            scratch: Vec::with_capacity(SEND_BYTES_MAX),
        })
    }

    /// Whether connections wait to be written.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Whether no socket is left.
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty() && self.accepting.is_over()
    }

    /// What time brings: requests that did not come, closes that took too long.
    pub fn tick(&mut self, chat: &mut Chat) {
        if self.slab.has_deadlines() {
            for index in self.slab.overdue(chat.now.mono_us) {
                self.overdue(chat, index);
            }
        }
        self.stats.open = self.slab.open() as u64;
        self.stats.sockets = self.slab.len() as u64;
    }

    fn conn(&self, index: u32) -> ConnId {
        ConnId {
            index,
            generation: self.slab[index].generation,
        }
    }

    fn mark_dirty(&mut self, index: u32) {
        let connection = &mut self.slab[index];
        if !connection.dirty && !connection.polling {
            connection.dirty = true;
            self.dirty.push(index);
        }
    }
}

/// A time after this one, µs.
fn after_ms(now: Now, ms: u64) -> u64 {
    now.mono_us + ms * 1_000
}
