//! The whole load: clients, rooms, timers and the checker, around one engine.
//!
//! Invariants: a client behaves as the wire protocol asks of one: it answers pings, resumes with its
//! positions, pages what was not recovered, and repeats what has no answer with the same id. Every
//! frame that concerns a room goes through the checker.
//!
//! Next: [`session`] (connections), [`frames`] (what arrives), [`sending`], [`mixing`], [`more`] and [`heard`] (the
//! mixed load), [`rooms`], [`readers`].

mod balance;
mod frames;
mod heard;
mod mixing;
mod more;
mod readers;
mod rooms;
mod sending;
mod session;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use uuid::Uuid;

use crate::checker::Checker;
use crate::clock::{Clock, us};
use crate::engine::{ConnId, ConnectOptions, Engine, Handler, Incoming};
use crate::identity::{Issuer, MessageIds};
use crate::ids::{ChangeNumber, ClientIndex, MessageNumber, NodeIndex, RoomIndex, Slot};
use crate::layout::Layout;
use crate::limits::{BACKOFF_CAP, CONNECTS_IN_FLIGHT_MAX, HISTORY_PAGE};
use crate::progress::Progress;
use crate::random::Random;
use crate::stats::{NodeStats, Stats};

pub use balance::Node;
pub use mixing::{Mix, Receipts};
use readers::Reader;
pub use sending::Load;
pub use session::DropBy;

/// How the clients of a run behave.
#[derive(Clone, Debug)]
pub struct Settings {
    pub jwt_secret: String,
    pub jwt_issuer: String,
    pub jwt_audience: String,
    pub seed: u64,
    pub payload_bytes: u32,
    /// Repeat every so-many-th acked message, to see that it stays one; 0 for never.
    pub probe_every: u32,
    /// The first reconnect pause is drawn below this, later ones below twice as much.
    pub backoff_first: Duration,
    pub backoff_cap: Duration,
    pub connects_in_flight_max: usize,
    pub history_page: u64,
    /// Everything else that clients do, in shares; `None`: they only send.
    pub mix: Option<crate::mix::Shares>,
}

impl Settings {
    pub fn new(jwt_secret: &str, seed: u64) -> Self {
        Self {
            jwt_secret: jwt_secret.to_owned(),
            jwt_issuer: "caffis".to_owned(),
            jwt_audience: "caffis-chat".to_owned(),
            seed,
            payload_bytes: 150,
            probe_every: 0,
            backoff_first: Duration::from_secs(1),
            backoff_cap: BACKOFF_CAP,
            connects_in_flight_max: CONNECTS_IN_FLIGHT_MAX,
            history_page: HISTORY_PAGE,
            mix: None,
        }
    }
}

/// Why a run cannot go on: the setting, not the server's promises.
#[derive(Clone, Debug)]
pub struct SetupError(pub String);

impl std::fmt::Display for SetupError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for SetupError {}

impl From<io::Error> for SetupError {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not connected and not wanted, or waiting for its turn or its backoff.
    Away,
    Connecting,
    Authenticating,
    Ready,
    /// Told to stop by the server.
    Stopped,
}

pub struct Client {
    pub phase: Phase,
    pub conn: Option<ConnId>,
    /// Of its connection, or of the last one.
    pub node: NodeIndex,
    is_wanted: bool,
    /// It left by itself, and comes back soon.
    is_roaming: bool,
    /// It does not read for the time being.
    is_stalled: bool,
    pub options: ConnectOptions,
    /// Counts its connections.
    connection: u32,
    failures: u32,
    began_us: u64,
    pub ready_us: u64,
    /// When its connection broke; 0 if it was not lost, or is back.
    left_us: u64,
    heard_us: u64,
    retry_after_ms: Option<u64>,
    was_ever_ready: bool,
    memberships: Vec<(RoomIndex, Slot)>,
    /// Rooms whose position this connection's `auth` named.
    resumed: Vec<RoomIndex>,
    unacked: VecDeque<MessageNumber>,
    /// Changes that have no final answer.
    open_changes: VecDeque<ChangeNumber>,
    /// Rooms to page, the front one is being asked for.
    catching_up: VecDeque<RoomIndex>,
    is_page_asked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RoomPhase {
    Waiting,
    Asked,
    /// Named, and all members were added; some may not have heard of it.
    Named,
    Complete,
}

struct Room {
    id: Option<Uuid>,
    phase: RoomPhase,
    members: Vec<ClientIndex>,
    senders: u32,
    joined: usize,
    /// Members named in requests so far.
    named: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Reconnect(ClientIndex),
    Resend(MessageNumber, u32),
    ResendChange(ChangeNumber, u32),
    History(ClientIndex, u32),
    CreateRoom(RoomIndex),
    ReaderRetry(u32),
    Sweep,
}

/// What came for a room before its name was known.
enum Early {
    Joined(u64),
    Event(u64, u64),
}

/// UUIDv5 are random already: their bytes are their hash.
#[derive(Default)]
struct UuidHasher(u64);

impl Hasher for UuidHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }
}

type UuidMap<V> = HashMap<Uuid, V, BuildHasherDefault<UuidHasher>>;

/// Owners of connections: clients by index, readers above.
const READER_OWNER: u64 = 1 << 32;

pub struct State {
    pub clock: Clock,
    pub settings: Settings,
    issuer: Issuer,
    ids: MessageIds,
    layout_name: String,
    pub clients: Vec<Client>,
    pub nodes: Vec<Node>,
    /// Their addresses.
    targets: Vec<SocketAddr>,
    node_turn: usize,
    /// The node that each message was last sent to, by its number.
    sent_to: Vec<NodeIndex>,
    rooms: Vec<Room>,
    room_by_id: UuidMap<RoomIndex>,
    client_by_user: UuidMap<ClientIndex>,
    early: UuidMap<Vec<(ClientIndex, Early)>>,
    pub checker: Checker,
    pub stats: Stats,
    timers: BinaryHeap<Reverse<(u64, Timer)>>,
    connect_queue: VecDeque<ClientIndex>,
    in_flight: usize,
    room_queue: VecDeque<RoomIndex>,
    rooms_in_flight: usize,
    rooms_complete: usize,
    pub ready: usize,
    pub unacked: usize,
    /// Changes that have no final answer.
    pub open_changes: usize,
    pub mix: Option<Box<Mix>>,
    load: Option<Load>,
    readers: Vec<Reader>,
    epoch: Option<String>,
    random: Random,
    setup_error: Option<String>,
}

pub struct World {
    pub engine: Engine,
    pub state: State,
    pub progress: Progress,
}

impl World {
    /// All clients on one server.
    ///
    /// # Errors
    /// As [`World::over`].
    pub fn new(
        target: SocketAddr,
        path: &str,
        layout: &Layout,
        settings: Settings,
        progress: Progress,
    ) -> Result<Self, SetupError> {
        Self::over(&[target], path, layout, settings, progress)
    }

    /// Clients spread over the nodes of a cluster, as a balancer would spread them.
    ///
    /// # Errors
    /// When the layout needs more descriptors than the process may open, or the system has no
    /// epoll, or there is no node.
    pub fn over(
        targets: &[SocketAddr],
        path: &str,
        layout: &Layout,
        settings: Settings,
        progress: Progress,
    ) -> Result<Self, SetupError> {
        if targets.is_empty() {
            return Err(SetupError("no node to connect to".to_owned()));
        }
        crate::measure::check_descriptors(layout.clients + crate::limits::READERS_MAX + 64)
            .map_err(SetupError)?;
        let mut random = Random::new(settings.seed);
        let ids = MessageIds::new(random.next_u64() ^ crate::random::Random::seed_from_clock());
        let members: Vec<Vec<ClientIndex>> = layout
            .rooms
            .iter()
            .map(|room| room.members.clone())
            .collect();
        let clients = layout
            .memberships()
            .into_iter()
            .map(|memberships| Client {
                phase: Phase::Away,
                conn: None,
                node: NodeIndex::default(),
                is_wanted: false,
                is_roaming: false,
                is_stalled: false,
                options: ConnectOptions::default(),
                connection: 0,
                failures: 0,
                began_us: 0,
                ready_us: 0,
                left_us: 0,
                heard_us: 0,
                retry_after_ms: None,
                was_ever_ready: false,
                memberships,
                resumed: Vec::new(),
                unacked: VecDeque::new(),
                open_changes: VecDeque::new(),
                catching_up: VecDeque::new(),
                is_page_asked: false,
            })
            .collect();
        let rooms = layout
            .rooms
            .iter()
            .map(|room| Room {
                id: None,
                phase: RoomPhase::Waiting,
                members: room.members.clone(),
                senders: room.senders,
                joined: 0,
                named: 0,
            })
            .collect();
        let clock = Clock::new();
        let mut state = State {
            issuer: Issuer::new(
                &settings.jwt_secret,
                &settings.jwt_issuer,
                &settings.jwt_audience,
            ),
            ids,
            layout_name: layout.name.clone(),
            clients,
            nodes: vec![Node::default(); targets.len()],
            targets: targets.to_vec(),
            node_turn: 0,
            sent_to: Vec::new(),
            rooms,
            room_by_id: UuidMap::default(),
            client_by_user: (0..layout.clients as u32)
                .map(|client| {
                    (
                        crate::identity::user_id(ClientIndex(client)),
                        ClientIndex(client),
                    )
                })
                .collect(),
            early: UuidMap::default(),
            checker: Checker::new(ids, layout.clients, &members),
            stats: Stats {
                nodes: vec![NodeStats::default(); targets.len()],
                ..Stats::default()
            },
            timers: BinaryHeap::new(),
            connect_queue: VecDeque::new(),
            in_flight: 0,
            room_queue: VecDeque::new(),
            rooms_in_flight: 0,
            rooms_complete: 0,
            ready: 0,
            unacked: 0,
            open_changes: 0,
            mix: None,
            load: None,
            readers: Vec::new(),
            epoch: None,
            random,
            setup_error: None,
            clock,
            settings,
        };
        state.timer(1_000_000, Timer::Sweep);
        Ok(Self {
            engine: Engine::new(targets, path, state.settings.seed)?,
            state,
            progress,
        })
    }

    /// Does what is due, then waits for sockets until the next thing is.
    ///
    /// # Errors
    /// When the run cannot go on: epoll failed, no descriptor is left, a room cannot be made.
    pub fn turn(&mut self) -> Result<(), SetupError> {
        let Self { engine, state, .. } = self;
        let now_us = state.clock.now_us();
        state.fire_timers(engine, now_us);
        state.start_connects(engine);
        state.start_rooms(engine);
        state.send_due(engine, now_us);
        state.inspect_more(engine, now_us);
        state.take_web(engine);
        engine.flush();
        if let Some(error) = state.setup_error.take() {
            return Err(SetupError(error));
        }
        let wait_us = state.next_due_us().saturating_sub(state.clock.now_us());
        engine.turn(Duration::from_micros(wait_us.min(20_000)), state)?;
        Ok(())
    }

    /// Turns until `done` or the deadline. Returns whether it was done. `done` is asked at most
    /// every 2 ms, so it may look at all clients.
    ///
    /// # Errors
    /// As [`World::turn`].
    pub fn run_until(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&mut State) -> bool,
    ) -> Result<bool, SetupError> {
        let deadline_us = self.state.clock.now_us() + us(limit);
        let mut next_look_us = 0;
        loop {
            let now_us = self.state.clock.now_us();
            if now_us >= next_look_us {
                if done(&mut self.state) {
                    return Ok(true);
                }
                next_look_us = self.state.clock.now_us() + 2_000;
                let state = &self.state;
                self.progress.tick(|| state.line());
            }
            if now_us >= deadline_us {
                return Ok(false);
            }
            self.turn()?;
        }
    }

    /// Goes on for so long.
    ///
    /// # Errors
    /// As [`World::turn`].
    pub fn run_for(&mut self, time: Duration) -> Result<(), SetupError> {
        self.run_until(time, |_| false).map(|_| ())
    }

    /// Goes on while something slow is done aside: the clients must not stand still for it, or their
    /// latencies would be ours.
    ///
    /// # Errors
    /// As [`World::turn`], or when the work panicked.
    pub fn aside<T: Send>(&mut self, work: impl FnOnce() -> T + Send) -> Result<T, SetupError> {
        std::thread::scope(|scope| {
            let worker = scope.spawn(work);
            while !worker.is_finished() {
                self.turn()?;
                let state = &self.state;
                self.progress.tick(|| state.line());
            }
            worker
                .join()
                .map_err(|_| SetupError("what was done aside panicked".to_owned()))
        })
    }

    /// Waits until nothing is open: every send answered, every member at the end of its rooms.
    /// Returns whether it came to that.
    ///
    /// # Errors
    /// As [`World::turn`].
    pub fn drain(&mut self, limit: Duration) -> Result<bool, SetupError> {
        self.state.load = None;
        let mut next_look_us = 0;
        self.run_until(limit, |state| {
            let now_us = state.clock.now_us();
            if state.is_open() || now_us < next_look_us {
                return false;
            }
            next_look_us = now_us + 20_000;
            state.ready + state.stopped() == state.wanted() && state.behind() == 0
        })
    }
}

impl State {
    fn timer(&mut self, after_us: u64, timer: Timer) {
        let due_us = self.clock.now_us() + after_us;
        self.timers.push(Reverse((due_us, timer)));
    }

    fn next_due_us(&self) -> u64 {
        let timer_us = self.timers.peek().map_or(u64::MAX, |next| next.0.0);
        timer_us.min(self.load.as_ref().map_or(u64::MAX, Load::next_due_us))
    }

    fn fire_timers(&mut self, engine: &mut Engine, now_us: u64) {
        while let Some(Reverse((due_us, timer))) = self.timers.peek().copied() {
            if due_us > now_us {
                break;
            }
            self.timers.pop();
            match timer {
                Timer::Reconnect(client) => self.connect_queue.push_back(client),
                Timer::Resend(number, connection) => self.resend(engine, number, connection),
                Timer::ResendChange(change, connection) => {
                    self.resend_change(engine, change, connection);
                }
                Timer::History(client, connection) => {
                    if self.clients[client.index()].connection == connection {
                        self.clients[client.index()].is_page_asked = false;
                        self.ask_page(engine, client);
                    }
                }
                Timer::CreateRoom(room) => self.room_queue.push_back(room),
                Timer::ReaderRetry(reader) => self.resume_reader(engine, reader),
                Timer::Sweep => {
                    self.sweep(engine, now_us);
                    self.sweep_readers(engine, now_us);
                    self.sweep_typing(now_us);
                    self.timer(1_000_000, Timer::Sweep);
                }
            }
        }
    }

    /// Whether something has no answer yet of which a message may come, or a change.
    fn is_open(&self) -> bool {
        let mix = self.mix.as_ref();
        let is_bringing = mix.is_some_and(|mix| {
            let mut asks = mix.asks.values();
            asks.any(|ask| crate::mix::OpKind::OF_FILES.contains(&ask.kind))
        });
        self.unacked + self.open_changes > 0 || is_bringing || self.is_asking_web()
    }

    /// Members that lack something, over all rooms, with clients that were told to stop left out.
    pub fn behind(&self) -> usize {
        let mut behind = 0;
        for (room, plan) in self.rooms.iter().enumerate() {
            let room = RoomIndex(room as u32);
            for (slot, client) in plan.members.iter().enumerate() {
                let client = &self.clients[client.index()];
                if client.is_wanted
                    && client.phase != Phase::Stopped
                    && self.checker.is_behind(room, Slot(slot as u32))
                {
                    behind += 1;
                }
            }
        }
        behind
    }

    /// When the oldest message that has no answer yet was due; `None` if all have one.
    pub fn oldest_open_us(&self) -> Option<u64> {
        let oldest = |client: &Client| {
            let open = client.unacked.iter();
            let due = open.filter_map(|number| self.checker.message(*number));
            due.map(|sent| sent.due_us).min()
        };
        self.clients.iter().filter_map(oldest).min()
    }

    pub fn wanted(&self) -> usize {
        self.clients
            .iter()
            .filter(|client| client.is_wanted)
            .count()
    }

    /// Clients that should be ready and are not, with those left out who went by themselves.
    pub fn missing(&self) -> usize {
        let is_missing = |client: &&Client| {
            let is_there = matches!(client.phase, Phase::Ready | Phase::Stopped);
            client.is_wanted && !client.is_roaming && !is_there
        };
        self.clients.iter().filter(is_missing).count()
    }

    pub fn stopped(&self) -> usize {
        self.clients
            .iter()
            .filter(|client| client.phase == Phase::Stopped)
            .count()
    }

    /// One line for people who watch.
    pub fn line(&self) -> String {
        let acked = self.stats.acks;
        let open = self.unacked + self.open_changes;
        let findings = self.checker.findings.total();
        format!(
            "{} ready, {acked} acked, {open} open, {} deliveries, {findings} findings",
            self.ready, self.stats.deliveries
        )
    }
}

impl Handler for State {
    fn incoming(&mut self, engine: &mut Engine, id: ConnId, owner: u64, incoming: Incoming<'_>) {
        if owner >= READER_OWNER {
            self.reader_incoming(engine, id, (owner - READER_OWNER) as u32, incoming);
        } else {
            self.client_incoming(engine, id, ClientIndex(owner as u32), incoming);
        }
    }
}
