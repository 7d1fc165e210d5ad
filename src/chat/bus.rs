//! What the parts of a shard share while one input is handled, and what shards tell each other.
//!
//! The two parts, [`super::sessions`] and [`super::home`], know nothing of each other: they talk
//! by [`MeshMessage`], also on the same shard. Nothing is ever awaited, and a full queue is a case
//! that each message answers for itself.

use super::elsewhere::Elsewhere;
use super::frame::{Frame, Stamps};
use super::load::Load;
use super::port::{HistoryRead, Op, StoreCall, Ticket};
use super::presence::PresenceMessage;
use super::rate::{Limits, Spent};
use super::receipts::Device;
use super::stats::Stats;
use super::{ConnId, CoreConfig, Effect, Now, Peers, ShardIx};
use crate::limits;
use crate::protocol::block::BlockChange;
use crate::protocol::ending::SessionsEnd;
use crate::protocol::event::Membership;
use crate::protocol::view::Watermark;
use crate::protocol::{Epoch, RequestId, RoomId, Seq, UserId};
use std::collections::VecDeque;
use std::sync::Arc;

/// What one shard tells another of the same node. Between two shards messages keep their order.
#[derive(Debug)]
pub enum MeshMessage {
    /// To the room's home: a write. Not sent when the queue is full: the client is told
    /// `overloaded`.
    Write(Box<Write>),
    /// From the room's home: the encoded reply to a write. As many as there are writes.
    Reply(ConnId, Box<[u8]>),
    /// To the home of these rooms: a connection wants their events. As many as there are sessions
    /// signing in.
    Subscribe(Box<Subscribe>),
    /// From the home: whether it gets them; one per room that was asked for.
    Subscribed {
        /// Who asked.
        conn: ConnId,
        /// Which room.
        room: RoomId,
        /// The history that the answer is about.
        epoch: Epoch,
        /// The answer.
        outcome: Subscribed,
    },
    /// To the home: nobody on this shard listens any more.
    Unsubscribe(RoomId),
    /// From the home: the room's next event. Not sent when the queue is full: the home keeps where
    /// this shard is, and goes on from there when there is room.
    Deliver {
        /// The room.
        room: RoomId,
        /// The event.
        seq: Seq,
        /// The frame, copied once per shard.
        frame: Packed,
    },
    /// To the home: the next stretch of a replay. One per connection at a time.
    Pull {
        /// Who replays.
        conn: ConnId,
        /// Which room.
        room: RoomId,
        /// Only later ones.
        after: Seq,
    },
    /// From the home: the stretch, ascending, ending at or before what this shard was delivered;
    /// empty when there is nothing more.
    Pulled {
        /// Who replays.
        conn: ConnId,
        /// Which room.
        room: RoomId,
        /// The events.
        frames: Stretch,
    },
    /// From the home: what this shard is owed of the room is no longer kept. The home counts it as not listening any
    /// more; who listens has to come again.
    Expired(RoomId),
    /// To the home: a page, while the store is away. One per connection at a time.
    Page(PageWanted),
    /// From the home: the reply as JSON, if the window holds the page.
    Paged(PageWanted, Option<String>),
    /// From the home of the room to all shards: these users became members. If it is lost, the
    /// users' versions tell, later.
    Added {
        /// The room.
        room: RoomId,
        /// The new members.
        users: Arc<[UserId]>,
    },
    /// From the home of the room of the two to all shards: a user blocked another, or no longer does. If
    /// it is lost, the users' versions tell, later.
    Block(BlockChange),
    /// To all shards: sessions of a user end. If it is lost, the user's version tells, later.
    Ended(SessionsEnd),
    /// To the room's home: a user with a connection to the sender types there, or stops. A hint: not sent
    /// when the queue is full.
    Typing {
        /// The room.
        room: RoomId,
        /// Who.
        user: UserId,
        /// Whether they type.
        is_typing: bool,
    },
    /// From the room's home: who types, as an encoded frame. A hint: not sent when the queue is full.
    Notice {
        /// The room.
        room: RoomId,
        /// The frame.
        frame: Box<[u8]>,
        /// Whether it says that nobody does.
        nobody: bool,
    },
    /// To the home of these rooms: how far a user is there. A hint: not sent when the queue is full.
    Receipts(Box<GivenReceipts>),
    /// To the room's home: by this connection of the sender's its user changed what the room is to them alone.
    /// A hint: not sent when the queue is full.
    OwnChanged(RoomId, UserId, ConnId),
    /// From the room's home: how far members are by now. A hint: it waits while the queue is full.
    ToldReceipts(Box<ToldReceipts>),
    /// To the user's home: this connection of the sender's was signed in. One for each.
    Came(UserId, ConnId),
    /// To the user's home: it is gone. One for each that came.
    Went(UserId, ConnId),
    /// From the user's home: this connection has to go, as newer ones came. At most one for each that
    /// came.
    Crowded(ConnId),
    /// About what a user may still take, over all connections and HTTP.
    Budget(BudgetMessage),
    /// About presence; each says to whom.
    Presence(Box<PresenceMessage>),
    /// To all shards, by the first that learns it: the history was replaced, this is the new one.
    /// Before anything else that is said of it.
    Epoch(Epoch),
}

/// The next stretch of a replay.
#[derive(Debug)]
pub enum Stretch {
    /// These events.
    Frames(Vec<(Seq, Packed)>),
    /// To be asked for again later.
    Later,
    /// It is no longer kept, up to this event, the room's floor.
    Expired(Seq),
}

/// What places of a user tell each other through the user's home of what they took. A place is a connection;
/// the home itself is one, for requests over HTTP. Nothing is told for a user who has one place only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BudgetMessage {
    /// From the home: this connection is the user's only place no longer, or again. One for each change.
    Shared(ConnId, bool),
    /// To the home: what was taken on this connection. At most one a connection and tick.
    Spent(UserId, ConnId, Spent),
    /// From the home: what was taken elsewhere.
    Debit(ConnId, Spent),
}

/// A write on its way to the store.
#[derive(Debug)]
pub struct Write {
    /// The shard of the connection.
    pub shard: ShardIx,
    /// Who is told.
    pub conn: ConnId,
    /// The request to answer, if an answer is wanted.
    pub request: Option<RequestId>,
    /// When it was received, µs.
    pub received_us: u64,
    /// What to do.
    pub op: Op,
}

/// How far a user is in rooms of one home.
#[derive(Debug)]
pub struct GivenReceipts {
    /// Who.
    pub user: UserId,
    /// By which connection.
    pub by: Device,
    /// Whether the user has read so far, or only received.
    pub is_read: bool,
    /// The rooms.
    pub rooms: Vec<(RoomId, Seq)>,
}

/// How far members of a room are by now.
#[derive(Debug)]
pub struct ToldReceipts {
    /// The room.
    pub room: RoomId,
    /// The members.
    pub told: Vec<ToldReceipt>,
}

/// How far a member is by now.
#[derive(Clone, Debug)]
pub struct ToldReceipt {
    /// The member, and how far.
    pub mark: Watermark,
    /// `receipt.updated`, where others are told.
    pub frame: Option<Box<[u8]>>,
    /// Whether the member's own devices are to be told what the room is to them.
    pub is_own_changed: bool,
    /// All but this one.
    pub by: Option<Device>,
}

/// A page that may be in a window.
#[derive(Clone, Copy, Debug)]
pub struct PageWanted {
    /// Who reads.
    pub conn: ConnId,
    /// The request to answer.
    pub request: RequestId,
    /// What is read.
    pub read: HistoryRead,
    /// The store was asked for it, in vain.
    pub is_last_try: bool,
}

/// Rooms a connection wants to hear.
#[derive(Debug)]
pub struct Subscribe {
    /// Its shard.
    pub shard: ShardIx,
    /// The connection.
    pub conn: ConnId,
    /// Whose it is.
    pub user: UserId,
    /// The rooms, all of one home.
    pub rooms: Vec<SubscribeRoom>,
}

/// A room a connection wants to hear.
#[derive(Clone, Copy, Debug)]
pub struct SubscribeRoom {
    /// The room.
    pub room: RoomId,
    /// The newest event that the store had when it was asked: the home has it too before it
    /// answers.
    pub head: Seq,
    /// The client's position, if it wants to resume from there.
    pub after: Option<Seq>,
}

/// Whether a connection gets a room's events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subscribed {
    /// From the next one after `position` on, which is what this shard was delivered so far.
    From {
        /// Where live events begin.
        position: Seq,
        /// What there is to replay.
        replay: Replayable,
    },
    /// The user is not a member.
    NotAMember,
    /// The store does not answer.
    Unavailable,
}

/// What a home can replay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replayable {
    /// Nothing was asked for.
    NotAsked,
    /// Everything after the client's position: so many bytes.
    Bytes(usize),
    /// More than is replayed.
    TooMuch,
    /// No longer kept.
    Expired,
}

/// A frame on its way to another shard.
#[derive(Clone, Debug)]
pub struct Packed {
    /// Header and payload.
    pub bytes: Box<[u8]>,
    /// When it passed the stages before.
    pub stamps: Stamps,
    /// How it changes who listens.
    pub membership: Option<Membership>,
}

impl Packed {
    /// A copy of a frame.
    pub fn of(frame: &Frame) -> Packed {
        let (stamps, membership) = (frame.stamps(), frame.membership());
        Packed {
            bytes: frame.bytes().into(),
            stamps,
            membership,
        }
    }

    /// The frame again.
    pub fn unpack(self) -> Frame {
        Frame::event(self.bytes, self.stamps, self.membership)
    }
}

/// What this shard tells itself: the same, but for frames, which need no copy.
#[derive(Debug)]
pub enum Local {
    /// As for other shards.
    Message(MeshMessage),
    /// [`MeshMessage::Deliver`].
    Deliver(RoomId, Seq, Frame),
}

/// The ways out of a shard.
#[derive(Debug)]
pub struct Bus {
    /// Messages to other shards, by shard; the own place stays empty.
    pub mesh: Vec<VecDeque<MeshMessage>>,
    /// Messages to this shard.
    pub local: VecDeque<Local>,
    /// The name of the next call.
    pub next_ticket: Ticket,
    /// Calls under way in the store.
    pub calls: usize,
    /// The relay works.
    pub relay_up: bool,
    /// The last call that was answered found the store out of reach.
    pub store_away: bool,
    /// What is given up for now.
    pub load: Load,
    /// Who has a connection to another node.
    pub elsewhere: Elsewhere,
    random: u64,
}

impl Bus {
    /// Empty queues.
    pub fn new(shards: ShardIx, seed: u64) -> Bus {
        let mesh = (0..shards).map(|_| VecDeque::new()).collect();
        Bus {
            mesh,
            local: VecDeque::new(),
            next_ticket: 1,
            calls: 0,
            relay_up: false,
            store_away: false,
            load: Load::Calm,
            elsewhere: Elsewhere::new(seed),
            random: seed,
        }
    }
}

/// One input's surroundings.
#[derive(Debug)]
pub struct Context<'a> {
    /// The time.
    pub now: Now,
    /// How the node is set.
    pub config: &'a CoreConfig,
    /// This shard.
    pub shard: ShardIx,
    /// The ways out.
    pub bus: &'a mut Bus,
    /// The counters.
    pub stats: &'a mut Stats,
    /// What is to be done.
    pub effects: &'a mut Vec<Effect>,
}

impl Context<'_> {
    /// The time, ms.
    pub fn now_ms(&self) -> u64 {
        self.now.mono_us / 1_000
    }

    /// The shard that orders a room on this node.
    pub fn home_of(&self, room: RoomId) -> ShardIx {
        room.bucket() % self.config.shards
    }

    /// The shard that counts a user's connections.
    pub fn home_of_user(&self, user: UserId) -> ShardIx {
        super::home_of_user(user, self.config.shards)
    }

    /// What one user may take in 10 s.
    pub fn rate_limits(&self) -> Limits {
        Limits {
            commands: self.config.commands_per_10s,
            sends: self.config.sends_per_10s,
        }
    }

    /// Tells a shard something.
    pub fn tell(&mut self, shard: ShardIx, message: MeshMessage) {
        match shard == self.shard {
            true => self.bus.local.push_back(Local::Message(message)),
            false => self.bus.mesh[usize::from(shard)].push_back(message),
        }
    }

    /// Whether a write may go to this shard.
    pub fn takes_writes(&self, shard: ShardIx) -> bool {
        self.bus.mesh[usize::from(shard)].len() < limits::MESH_COMMAND_MAX
    }

    /// Whether an event may go to this shard.
    pub fn takes_events(&self, shard: ShardIx) -> bool {
        self.bus.mesh[usize::from(shard)].len() < self.config.mesh_deliver_max
    }

    /// Gives a shard a room's next event.
    pub fn deliver(&mut self, shard: ShardIx, room: RoomId, seq: Seq, frame: &Frame) {
        if shard == self.shard {
            self.bus
                .local
                .push_back(Local::Deliver(room, seq, frame.clone()));
        } else {
            let message = MeshMessage::Deliver {
                room,
                seq,
                frame: Packed::of(frame),
            };
            self.bus.mesh[usize::from(shard)].push_back(message);
        }
    }

    /// Asks the store.
    pub fn call(&mut self, call: StoreCall) -> Ticket {
        let ticket = self.bus.next_ticket;
        self.bus.next_ticket += 1;
        self.bus.calls += 1;
        self.effects.push(Effect::Store(ticket, call));
        ticket
    }

    /// Whether the store may be asked for something a client can do without for a while.
    pub fn may_read(&self) -> bool {
        self.bus.calls < limits::STORE_CALLS_MAX / 2
    }

    /// How often what is held is compared with the store, ms.
    pub fn heads_poll_ms(&self) -> u64 {
        match self.config.peers {
            Peers::None => limits::HEADS_POLL_MS,
            Peers::Relay if self.bus.relay_up => limits::HEADS_POLL_MS,
            Peers::Relay | Peers::Store => limits::HEADS_POLL_ALONE_MS,
        }
    }

    /// A random number (SplitMix64; Steele, Lea, Flood, OOPSLA 2014). For spreading, not for
    /// secrets.
    pub fn random(&mut self) -> u64 {
        self.bus.random = self.bus.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.bus.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
