//! One shard per core: starts them, wires them together, stops them.
//!
//! Invariants: all listeners and rings are there before any connection is accepted, or none; a
//! shard that panics takes the process with it, because a node that has lost a shard would go on
//! without a part of its rooms.
//!
//! Next: [`run`] is the loop.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros
)]

pub mod asks;
pub mod bell;
pub mod clock;
pub mod mesh;
pub mod perform;
mod run;

use crate::chat::port::files::Files;
use crate::chat::port::{Asked, Identify, Relay, RelaySink, ServiceAsked, Store};
use crate::chat::stats::Stats;
use crate::chat::{CoreConfig, ShardCore, ShardIx, home_of_user};
use crate::edge::handshake::AllowedOrigins;
use crate::edge::peers::{PeerLimits, Peers};
use crate::edge::stats::DriverStats;
use crate::edge::{Chat, Edge, EdgeConfig, Handoff, LOCKED_BYTES_MAX};
use crate::limits;
use crate::sys::{self, Limit, ListenOptions};
use asks::{AskQueue, ServiceQueue};
use bell::Bell;
use clock::Clock;
use crossbeam_queue::ArrayQueue;
use mesh::Mesh;
use perform::{News, Performer, Relayed};
use run::{Shard, Timing};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

/// Connections that may wait to be accepted: the system's usual cap; a storm overflows less.
pub const BACKLOG: i32 = 4_096;
/// How often an address in use is tried: the kernel takes the rings of a process that was killed
/// apart in its own time, and with them the sockets, which may outlive the process for a moment.
const LISTEN_TRIES: u32 = 40;
/// The time between two tries.
const LISTEN_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Send buffer of a connection, bytes. The kernel doubles it; what a slow client may hold there
/// is bounded by it instead of growing to megabytes.
const SEND_BUFFER_BYTES: i32 = 64 << 10;
/// Memory of the executor for files, which the shards do not use: the least it takes. It locks
/// three times as much, once for each of its rings.
const EXECUTOR_IO_BYTES: usize = 64 << 10;
/// Below this limit of locked memory the executor refuses to start, bytes, whoever asks.
const EXECUTOR_LOCKED_BYTES_MIN: u64 = 512 << 10;
/// Requests of each of the executor's rings: it waits for one descriptor.
const EXECUTOR_RING_DEPTH: usize = 32;
/// How long the executor lets a task run: for ever. It has one task, so there is nobody to run
/// instead, and when the timer fires between the executor's look at its rings and at its tasks
/// (on a busy machine a thread may stand still for that long) glommio-ng 0.12 takes the runnable
/// task for none and sleeps until something else wakes it: seen as shards that hung, with 500 µs.
const PREEMPT: Duration = Duration::from_secs(365 * 24 * 3600);

/// How the shards of a node are started.
pub struct ShardsConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Whether shard `n` runs on core `n` only.
    pub pinned: bool,
    /// The core of each; says how many there are.
    pub core: CoreConfig,
    /// Drives everything that is random in them.
    pub seed: u64,
    /// Whose pages may connect.
    pub origins: AllowedOrigins,
    /// WebSockets of the node; further upgrades are answered 503.
    pub connections_max: usize,
    /// How many sockets of one address it takes.
    pub peers: PeerLimits,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The way to other nodes, if `core.peers` says that there is one.
    pub relay: Option<Arc<dyn Relay>>,
    /// Who checks tokens.
    pub identify: Arc<dyn Identify>,
    /// Who knows where files are.
    pub files: Arc<dyn Files>,
    /// The control plane.
    pub handoff: Arc<Handoff>,
}

/// Why the shards could not be started, or went on no longer.
#[derive(Debug)]
pub enum ShardError {
    /// The address cannot be listened on.
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The kernel refuses to lock the memory that the rings need.
    LockedMemory {
        /// What the process may lock, bytes.
        limit_bytes: u64,
        /// How many shards there are to be.
        shards: ShardIx,
    },
    /// The kernel refuses io_uring.
    NoIoUring {
        /// Its answer.
        error: io::Error,
        /// `kernel.io_uring_disabled`, if it can be read: 1 is for the unprivileged, 2 for all.
        disabled: Option<String>,
    },
    /// Something else that the operating system refused.
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        error: io::Error,
    },
}

impl fmt::Display for ShardError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ShardError::Listen { address, error } => {
                write!(formatter, "cannot listen on {address}: {error}")
            }
            ShardError::LockedMemory {
                limit_bytes,
                shards,
            } => write!(
                formatter,
                "cannot lock memory for io_uring: raise RLIMIT_MEMLOCK (ulimit -l, systemd \
                 LimitMEMLOCK=) to at least {} KiB for {shards} shards; it is {} KiB, for all \
                 processes of the user together",
                (LOCKED_BYTES_MAX >> 10) * usize::from(*shards),
                limit_bytes >> 10,
            ),
            ShardError::NoIoUring { error, disabled } => {
                write!(formatter, "io_uring is not to be had: {error}; ")?;
                match disabled.as_deref() {
                    None | Some("0") => write!(
                        formatter,
                        "the kernel is older than 6.0 or a seccomp filter forbids it (containers: \
                         allow io_uring_setup, io_uring_enter, io_uring_register)"
                    ),
                    Some(disabled) => write!(
                        formatter,
                        "the system setting kernel.io_uring_disabled is {disabled}"
                    ),
                }
            }
            ShardError::System { what, error } => write!(formatter, "cannot {what}: {error}"),
        }
    }
}

impl std::error::Error for ShardError {}

/// Counters of one shard, about a second old.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Of the core.
    pub core: Stats,
    /// Of the driver.
    pub driver: DriverStats,
}

/// Connections that may wait to join a shard, and that it takes in one turn.
const JOINING_MAX: usize = 256;

/// What other threads tell a shard, and it them.
#[derive(Debug)]
struct Control {
    stop: AtomicBool,
    /// Connections that were the control plane's, each with what was read of it.
    joining: ArrayQueue<(TcpStream, Vec<u8>)>,
    /// Requests over HTTP.
    asks: AskQueue,
    /// What the service itself wants.
    service: ServiceQueue,
    /// Zero, or one more than the ms over which to drain.
    drain: AtomicU64,
    snapshot: Mutex<Snapshot>,
}

impl Default for Control {
    fn default() -> Control {
        Control {
            stop: AtomicBool::default(),
            joining: ArrayQueue::new(JOINING_MAX),
            asks: AskQueue::default(),
            service: ServiceQueue::default(),
            drain: AtomicU64::default(),
            snapshot: Mutex::default(),
        }
    }
}

impl Control {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn drain(&self) -> Option<u64> {
        self.drain.load(Ordering::Acquire).checked_sub(1)
    }

    fn is_new(&self, drain_began: bool) -> bool {
        self.is_stopped()
            || !self.joining.is_empty()
            || !self.asks.is_empty()
            || !self.service.is_empty()
            || (!drain_began && self.drain().is_some())
    }
}

/// The running shards.
#[derive(Debug)]
pub struct Shards {
    address: SocketAddr,
    remotes: Remotes,
    threads: Vec<JoinHandle<Result<(), ShardError>>>,
}

/// The ends of the shards that other threads hold.
#[derive(Clone, Debug)]
struct Remotes(Vec<(Arc<Control>, Arc<Bell>)>);

impl Remotes {
    fn stop(&self) {
        for (control, bell) in &self.0 {
            control.stop.store(true, Ordering::Release);
            bell.ring();
        }
    }
}

/// Starts the shards: listens, builds the rings, and returns when all of them accept.
///
/// # Errors
/// [`ShardError`]; then nothing is left running.
pub fn start(config: ShardsConfig) -> Result<Shards, ShardError> {
    let shards = usize::from(config.core.shards);
    let (address, listeners) = listen(config.listen, shards)?;
    let bells = (0..shards)
        .map(|_| Bell::new().map(Arc::new))
        .collect::<io::Result<Vec<_>>>()
        .map_err(|error| ShardError::System {
            what: "make event descriptors",
            error,
        })?;
    let remotes = Remotes(
        bells
            .iter()
            .map(|bell| (Arc::new(Control::default()), bell.clone()))
            .collect(),
    );
    let meshes = mesh::wire(&bells);
    let news: Vec<Arc<News>> = bells
        .iter()
        .map(|bell| Arc::new(News::new(bell.clone())))
        .collect();
    if let Some(relay) = &config.relay {
        let sinks = news
            .iter()
            .map(|news| Arc::clone(news) as Arc<dyn RelaySink>);
        relay.attach(sinks.collect());
    }
    let config = Arc::new(config);
    let connections = Arc::new(AtomicUsize::new(0));
    let peers = Arc::new(Peers::new(config.peers.clone(), config.seed));
    let clock = Clock::start();
    let (ready, readies) = mpsc::channel();
    let mut running = Shards {
        address,
        remotes: remotes.clone(),
        threads: Vec::with_capacity(shards),
    };
    for (index, ((listener, mesh), news)) in listeners.into_iter().zip(meshes).zip(news).enumerate()
    {
        let seat = Seat {
            index: index as ShardIx,
            config: config.clone(),
            clock,
            listener,
            mesh,
            news,
            remotes: remotes.clone(),
            connections: connections.clone(),
            peers: peers.clone(),
        };
        let ready = ready.clone();
        let thread = std::thread::Builder::new()
            .name(format!("shard-{index}"))
            .spawn(move || seat.run(ready));
        match thread {
            Ok(thread) => running.threads.push(thread),
            Err(error) => {
                remotes.stop();
                let what = "start a thread";
                return Err(running
                    .join()
                    .err()
                    .unwrap_or(ShardError::System { what, error }));
            }
        }
    }
    drop(ready);
    // Each thread says once that it is ready, or drops its end and returns why it is not.
    if readies.iter().count() < shards {
        remotes.stop();
        running.join()?;
        return Err(ShardError::System {
            what: "start the shards",
            error: io::Error::other("one ended at once"),
        });
    }
    Ok(running)
}

fn listen(
    address: SocketAddr,
    shards: usize,
) -> Result<(SocketAddr, Vec<TcpListener>), ShardError> {
    let options = |shared| ListenOptions {
        backlog: BACKLOG,
        send_buffer_bytes: SEND_BUFFER_BYTES,
        shared,
    };
    let failed = |error| ShardError::Listen { address, error };
    // Sockets that share an address would also share it with another server of the same user,
    // unnoticed; one that does not share it finds that out.
    let mut tries = LISTEN_TRIES;
    loop {
        match sys::listen(address, options(false)) {
            Ok(_closed_at_once) => break,
            Err(error) if tries > 1 && error.kind() == io::ErrorKind::AddrInUse => {
                tries -= 1;
                std::thread::sleep(LISTEN_AGAIN_AFTER);
            }
            Err(error) => return Err(failed(error)),
        }
    }
    let first = sys::listen(address, options(true)).map_err(failed)?;
    let bound = first.local_addr().map_err(failed)?;
    let mut listeners = vec![first];
    while listeners.len() < shards {
        listeners.push(sys::listen(bound, options(true)).map_err(failed)?);
    }
    Ok((bound, listeners))
}

/// What one shard's thread is given.
struct Seat {
    index: ShardIx,
    config: Arc<ShardsConfig>,
    clock: Clock,
    listener: TcpListener,
    mesh: Mesh,
    news: Arc<News>,
    remotes: Remotes,
    connections: Arc<AtomicUsize>,
    peers: Arc<Peers>,
}

impl Seat {
    fn run(self, ready: mpsc::Sender<()>) -> Result<(), ShardError> {
        let _abort = AbortOnPanic;
        let remotes = self.remotes.clone();
        let result = self.run_shard(ready);
        if let Err(error) = &result {
            tracing::error!(%error, "shard failed");
            remotes.stop();
        }
        result
    }

    fn run_shard(self, ready: mpsc::Sender<()>) -> Result<(), ShardError> {
        let shards = self.config.core.shards;
        let placement = if self.config.pinned {
            glommio::Placement::Fixed(usize::from(self.index))
        } else {
            glommio::Placement::Unbound
        };
        let executor = glommio::LocalExecutorBuilder::new(placement)
            .io_memory(EXECUTOR_IO_BYTES)
            .ring_depth(EXECUTOR_RING_DEPTH)
            .preempt_timer(PREEMPT)
            .make()
            .map_err(|error| explain(io::Error::from(error), shards))?;
        let shard = self.shard().map_err(|error| explain(error, shards))?;
        // Nobody waits for it any more if another shard could not start.
        let _unheard = ready.send(());
        drop(ready);
        executor
            .run(shard.run())
            .map_err(|error| ShardError::System {
                what: "run the shard's ring",
                error,
            })
    }

    fn shard(self) -> io::Result<Shard> {
        let config = &self.config;
        let (control, bell) = self.remotes.0[usize::from(self.index)].clone();
        let edge = EdgeConfig {
            origins: config.origins.clone(),
            connections_max: config.connections_max,
            connections: self.connections,
            peers: self.peers,
            handoff: config.handoff.clone(),
        };
        let edge = Edge::new(edge, self.listener)?;
        Ok(Shard {
            index: self.index,
            clock: self.clock,
            chat: Chat {
                core: ShardCore::new(config.core.clone(), self.index, config.seed),
                now: self.clock.now(),
                effects: Vec::new(),
            },
            edge,
            mesh: self.mesh,
            performer: Performer::new(
                config.store.clone(),
                config.relay.clone().map(|relay| Relayed {
                    relay,
                    news: self.news,
                }),
                config.identify.clone(),
                config.files.clone(),
                bell.clone(),
            ),
            bell,
            control,
            timing: Timing::default(),
        })
    }
}

/// Says what an operator can do about a ring that could not be built.
fn explain(error: io::Error, shards: ShardIx) -> ShardError {
    let limit_bytes = sys::limit(Limit::LockedBytes).map_or(0, |(soft, _)| soft);
    if limit_bytes < EXECUTOR_LOCKED_BYTES_MIN {
        return ShardError::LockedMemory {
            limit_bytes,
            shards,
        };
    }
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        .ok()
        .map(|text| text.trim().to_owned());
    match error.raw_os_error() {
        Some(libc::ENOMEM) => ShardError::LockedMemory {
            limit_bytes,
            shards,
        },
        Some(libc::ENOSYS | libc::EPERM | libc::EACCES | libc::EINVAL) => {
            ShardError::NoIoUring { error, disabled }
        }
        _ => ShardError::System {
            what: "build the shard's executor",
            error,
        },
    }
}

/// A shard that is gone cannot be done without, and its rooms cannot move.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The panic's message is on stderr already.
            std::process::abort();
        }
    }
}

impl Shards {
    /// Where they listen, the port included if any would do.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What other threads may ask of them, also while one waits for their end.
    pub fn handle(&self) -> Handle {
        Handle(self.remotes.clone())
    }

    /// Waits until all have ended.
    ///
    /// # Errors
    /// The first of theirs.
    pub fn join(self) -> Result<(), ShardError> {
        let mut result = Ok(());
        for thread in self.threads {
            let ended = thread.join().unwrap_or_else(|_| {
                unreachable!("a shard that panics takes the process with it");
            });
            result = result.and(ended);
        }
        result
    }
}

/// What other threads may ask of running shards.
#[derive(Clone, Debug)]
pub struct Handle(Remotes);

impl Handle {
    /// The counters of each.
    pub fn stats(&self) -> Vec<Snapshot> {
        let remotes = self.0.0.iter();
        remotes
            .map(|(control, _)| {
                let snapshot = control.snapshot.lock();
                snapshot.unwrap_or_else(PoisonError::into_inner).clone()
            })
            .collect()
    }

    /// Takes a connection that is to become a WebSocket after all, with the bytes that were read of
    /// it. The shards are chosen by turns.
    ///
    /// # Errors
    /// Gives it back when too many wait.
    pub fn join(&self, stream: TcpStream, read: Vec<u8>) -> Result<(), TcpStream> {
        static TURN: AtomicUsize = AtomicUsize::new(0);
        let turn = TURN.fetch_add(1, Ordering::Relaxed);
        let (control, bell) = &self.0.0[turn % self.0.0.len()];
        control
            .joining
            .push((stream, read))
            .map_err(|(stream, _)| stream)?;
        bell.ring();
        Ok(())
    }

    /// Gives a request over HTTP to the shard that its user belongs to; whether there was room for it.
    #[must_use]
    pub fn ask(&self, asked: Asked) -> bool {
        let shards = self.0.0.len() as ShardIx;
        let home = home_of_user(asked.identity.user, shards);
        let (control, bell) = &self.0.0[usize::from(home)];
        let is_taken = control.asks.push(asked);
        if is_taken {
            bell.ring();
        }
        is_taken
    }

    /// Gives a shard what the service wants of it; whether there is such a shard, and it had room.
    #[must_use]
    pub fn serve(&self, shard: ShardIx, asked: ServiceAsked) -> bool {
        let Some((control, bell)) = self.0.0.get(usize::from(shard)) else {
            return false;
        };
        let is_taken = control.service.push(asked);
        if is_taken {
            bell.ring();
        }
        is_taken
    }

    /// Accept nobody any more and close everybody, spread over this time; then they end.
    pub fn drain(&self, spread_ms: u64) {
        for (control, bell) in &self.0.0 {
            control.drain.store(spread_ms + 1, Ordering::Release);
            bell.ring();
        }
    }

    /// End at once, without a word to anybody.
    pub fn stop(&self) {
        self.0.stop();
    }
}

const _: () = assert!(limits::SHARDS_MAX <= ShardIx::MAX as usize);
