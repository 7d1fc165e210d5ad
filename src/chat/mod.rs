//! The rules of chat as a pure state machine: [`core::ShardCore::step`] reads no clock, does no
//! I/O, never fails and never waits. The very same code runs in production and in the simulator.

pub mod access;
pub mod blocks;
pub mod budgets;
pub mod bus;
pub mod commands;
pub mod commits;
pub mod core;
pub mod crowd;
#[cfg(feature = "echo")]
pub mod echo;
pub mod elsewhere;
pub mod fanout;
pub mod files;
#[cfg(test)]
mod files_tests;
#[cfg(test)]
mod floor_tests;
pub mod frame;
pub mod gate;
#[cfg(test)]
mod guest_tests;
pub mod guests;
pub mod home;
mod home_floor;
pub mod home_reads;
pub mod home_receipts;
pub mod home_relay;
pub mod home_typing;
mod home_windows;
pub mod load;
pub mod map;
pub mod memberships;
pub mod outbox;
pub mod own;
pub mod port;
pub mod presence;
pub mod presence_relay;
pub mod profiles;
pub mod push;
pub mod rate;
pub mod receipts;
pub mod refresh;
pub mod replay;
pub mod sabotage;
pub mod service;
#[cfg(test)]
mod service_tests;
pub mod session;
pub mod sessions;
pub mod sign_in;
pub mod stats;
pub mod timers;
pub mod typing;
pub mod watches;
#[cfg(test)]
mod watches_tests;
pub mod window;
pub mod window_page;

use crate::limits;
use crate::protocol::{CloseCode, Epoch, UnixMs, UserId};
use port::files::{FilesAnswer, FilesAsk, FilesAskId};
use port::{
    Answer, Ask, AskId, Identity, IdentityError, RelayCall, RelayNews, ServiceAnswer, ServiceAsk,
    StoreCall, StoreReply, Ticket,
};
use sabotage::Sabotaged;

/// A socket, as the driver and the core both name it: a place in the driver's slab, and how often
/// the place was used before, so that a late input cannot reach its successor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct ConnId {
    /// Place in the slab; small numbers are reused first.
    pub index: u32,
    /// How often the place was used before.
    pub generation: u32,
}

/// One of this node's shards, from 0.
pub type ShardIx = u16;

/// The time, as the driver tells it with every step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// µs since the node started; the same clock on all its shards. Never goes back.
    pub mono_us: u64,
    /// The wall clock, for what clients and tokens call time.
    pub unix: UnixMs,
}

/// What one shard is told. `Text` and `Closed` may come for connections that the core has closed
/// already; they are ignored.
#[derive(Debug)]
pub enum Input<'a> {
    /// The upgrade was answered; messages may follow.
    Opened(ConnId),
    /// One whole text message.
    Text(ConnId, &'a str),
    /// One whole binary message: against the protocol.
    Binary(ConnId, &'a [u8]),
    /// Anything else that proves life: a WebSocket ping or pong.
    Heard(ConnId),
    /// The socket is gone; the last input of this connection, and always given.
    Closed(ConnId),
    /// Answer to [`Effect::Verify`].
    Verified(ConnId, Result<Identity, IdentityError>),
    /// Answer to [`Effect::Store`].
    Store(StoreReply),
    /// Answer to [`Effect::Files`].
    Files(FilesAskId, FilesAnswer),
    /// Of the relay.
    Relay(RelayNews),
    /// A request of a client without a socket; answered exactly once with [`Effect::Answer`]. Of one user
    /// always given to the same shard, [`home_of_user`].
    Ask(Box<Ask>),
    /// The service itself wants something; answered with [`Effect::Served`], a write with [`Effect::Answer`].
    Serve(AskId, Box<ServiceAsk>),
    /// From another shard of this node.
    Mesh(ShardIx, MeshMessage),
    /// Time has passed; given at least every [`TICK_MS`] while there are connections.
    Tick,
    /// It is the time that [`ShardCore::due_us`] named, or later.
    Due,
    /// Close everybody, spread over this many ms, and say [`Effect::Drained`] when done.
    Drain {
        /// Over how long, ms.
        spread_ms: u64,
    },
}

/// How often [`Input::Tick`] is wanted, ms.
pub const TICK_MS: u64 = 256;

/// What the driver is to do.
#[derive(Debug)]
pub enum Effect {
    /// Check this token; answer with [`Input::Verified`].
    Verify(ConnId, String),
    /// Ask the store; answer with [`Input::Store`]. When the store's queue is full, the answer
    /// is [`port::StoreError::Overloaded`].
    Store(Ticket, StoreCall),
    /// Ask about files; answer with [`Input::Files`].
    Files(FilesAskId, FilesAsk),
    /// Ask the relay; never done without one.
    Relay(RelayCall),
    /// Answer to [`Input::Ask`].
    Answer(AskId, Answer),
    /// Answer to [`Input::Serve`].
    Served(AskId, ServiceAnswer),
    /// The connection's outbox is no longer empty: write it at the end of this turn, and go on
    /// until it is empty. Said once, until it was empty again.
    Flush(ConnId),
    /// After what is in the outbox, send a close frame with this code and end the socket. Nothing
    /// is taken from it any more.
    Close(ConnId, CloseCode),
    /// Draining is done: no connection and no write under way is left.
    Drained,
}

/// The shard that counts a user's connections and takes their requests over HTTP.
pub fn home_of_user(user: UserId, shards: ShardIx) -> ShardIx {
    user.bucket() % shards
}

pub use self::bus::MeshMessage;
pub use self::core::ShardCore;

/// Whether other nodes use the same store, and how they are heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Peers {
    /// There are none.
    #[default]
    None,
    /// There may be some: what they do is seen by comparing with the store.
    Store,
    /// There may be some, and a relay tells what they do.
    Relay,
}

/// How a node is set, the same on all its shards.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// This node, as clients and operators see it.
    pub node: String,
    /// How many shards it has, 1 to [`limits::SHARDS_MAX`].
    pub shards: ShardIx,
    /// What the store promises, for `ready.limits.durability`: `commit` or `relaxed`.
    pub durability: &'static str,
    /// The epoch of the store when the node started.
    pub epoch: Epoch,
    /// Whether there are other nodes.
    pub peers: Peers,
    /// This run of the node: random, so that it knows its own messages when the relay brings them.
    pub run: u64,
    /// See [`limits::SPACED_WRITES_PER_S`].
    pub spaced_writes_per_s: u64,
    /// See [`limits::BATCH_SPACING_US`]; 0: batches are never spaced.
    pub batch_spacing_us: u64,
    /// See [`limits::SENDS_PER_10S`].
    pub sends_per_10s: u32,
    /// See [`limits::COMMANDS_PER_10S`].
    pub commands_per_10s: u32,
    /// See [`limits::CONNECTIONS_PER_USER`]; 0: as many as they like.
    pub connections_per_user: usize,
    /// See [`limits::OUTBOX_BYTES_MAX`].
    pub outbox_bytes_max: usize,
    /// This shard's share of [`limits::OUTBOX_NODE_BYTES_MAX`].
    pub outbox_shard_bytes_max: usize,
    /// This shard's share of [`limits::WINDOWS_NODE_BYTES_MAX`].
    pub windows_bytes_max: usize,
    /// See [`limits::MESH_DELIVER_MAX`].
    pub mesh_deliver_max: usize,
    /// See [`limits::PING_INTERVAL_MS`].
    pub ping_interval_ms: u64,
    /// See [`limits::PING_TIMEOUT_MS`].
    pub ping_timeout_ms: u64,
    /// The fault that is on, in test builds.
    pub sabotage: Sabotaged,
}

impl CoreConfig {
    /// Bytes of one stretch of a replay: small against the outbox it goes into.
    pub fn replay_pull_bytes(&self) -> usize {
        limits::REPLAY_PULL_BYTES.min(self.outbox_bytes_max / 4)
    }

    /// The defaults, for a node of this many shards.
    pub fn new(node: &str, shards: ShardIx, epoch: Epoch) -> CoreConfig {
        assert!(
            (1..=limits::SHARDS_MAX).contains(&usize::from(shards)),
            "shards out of range"
        );
        CoreConfig {
            node: node.to_owned(),
            shards,
            durability: "commit",
            epoch,
            peers: Peers::None,
            run: 0,
            spaced_writes_per_s: limits::SPACED_WRITES_PER_S,
            batch_spacing_us: limits::BATCH_SPACING_US,
            sends_per_10s: limits::SENDS_PER_10S,
            commands_per_10s: limits::COMMANDS_PER_10S,
            connections_per_user: limits::CONNECTIONS_PER_USER,
            outbox_bytes_max: limits::OUTBOX_BYTES_MAX,
            outbox_shard_bytes_max: limits::OUTBOX_NODE_BYTES_MAX / usize::from(shards),
            windows_bytes_max: limits::WINDOWS_NODE_BYTES_MAX / usize::from(shards),
            mesh_deliver_max: limits::MESH_DELIVER_MAX,
            ping_interval_ms: limits::PING_INTERVAL_MS,
            ping_timeout_ms: limits::PING_TIMEOUT_MS,
            sabotage: Sabotaged::default(),
        }
    }
}
