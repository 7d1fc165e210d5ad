//! One connection's state, from the upgrade to its end.
//!
//! Ten thousand of these idle in a shard, so what is not always there is boxed.

use super::bus::Subscribed;
use super::map::Map;
use super::outbox::Outbox;
use super::port::{OwnChange, RoomForSignIn, RoomForUser};
use super::rate::Budget;
use super::watches::Watching;
use crate::protocol::block::UserBlocks;
use crate::protocol::ending::{Began, SessionsEnd};
use crate::protocol::presence::PresenceChoice;
use crate::protocol::request::{HistoryGet, RoomGet, RoomMembersList, RoomsList};
use crate::protocol::search::Search;
use crate::protocol::view::Watermark;
use crate::protocol::{CloseCode, RequestId, RoomId, Seq, UnixMs, UserId};
use std::collections::{BTreeMap, VecDeque};
use uuid::Uuid;

/// One connection.
#[derive(Debug)]
pub struct Session {
    /// How often its place was used before.
    pub generation: u32,
    /// What it is told next.
    pub outbox: Outbox,
    /// How far it is.
    pub state: State,
    /// When it was upgraded, ms of the shard's clock.
    pub opened_ms: u64,
    /// When it was last heard, ms of the shard's clock.
    pub heard_ms: u64,
    /// When it was last sent something, ms of the shard's clock.
    pub sent_ms: u64,
    /// When it was last sent a ping, ms of the shard's clock.
    pub pinged_ms: u64,
    /// When it is closed because the node stops, ms of the shard's clock.
    pub drain_at_ms: Option<u64>,
    /// What the user has taken here and, as far as known, elsewhere.
    pub budget: Budget,
    /// The user has another place on this node, so what is taken here is told.
    pub shared: bool,
}

/// How far a connection is.
#[derive(Debug)]
pub enum State {
    /// Upgraded, silent so far.
    Fresh {
        /// Since when, ms.
        since_ms: u64,
    },
    /// Between `auth` and `ready`.
    Joining(Box<Joining>),
    /// It receives events and may give commands.
    Ready(Box<Ready>),
    /// Being closed: nothing is taken from it, nothing is added.
    Closing,
}

/// A connection between `auth` and `ready`.
#[derive(Debug)]
pub struct Joining {
    /// The request to answer.
    pub request: Option<RequestId>,
    /// When `auth` came, ms.
    pub since_ms: u64,
    /// Whom the token names, once it is verified.
    pub user: Option<UserId>,
    /// When the token ends.
    pub expires_at: UnixMs,
    /// The `name` of the token.
    pub name: Option<String>,
    /// The `picture` of the token.
    pub picture: Option<String>,
    /// What the client calls itself.
    pub client: Option<Box<str>>,
    /// The epoch of the client's positions, if it has any.
    pub resume_epoch: Option<String>,
    /// The client's positions.
    pub resume: BTreeMap<RoomId, Seq>,
    /// Frames that came too early.
    pub early: Vec<String>,
    /// The user's version when the rooms were loaded.
    pub version: u64,
    /// How often the user had changed their blocks by then.
    pub block_version: u64,
    /// `sid` of the token, by its hash.
    pub sid: Option<Uuid>,
    /// `iat` of the token.
    pub issued_at: Option<UnixMs>,
    /// What ended sessions of the user while the rooms were being loaded.
    pub ends: Vec<SessionsEnd>,
    /// The user's rooms, the described ones first.
    pub rooms: Vec<RoomForSignIn>,
    /// How many of `rooms` were subscribed to, or are being.
    pub asked: usize,
    /// Answers of their homes.
    pub answers: Map<RoomId, Subscribed>,
    /// Rooms of which the user became a member meanwhile.
    pub added: Vec<RoomId>,
    /// How far members are by now of rooms that were subscribed to.
    pub receipts: Vec<(RoomId, Watermark)>,
}

impl Joining {
    /// What is to be known of it to say whether it ends, once its user's rooms are loaded.
    pub fn began(&self) -> Began {
        Began {
            version: self.version,
            sid: self.sid,
            issued_at: self.issued_at,
        }
    }
}

/// A connection that is ready.
#[derive(Debug)]
pub struct Ready {
    /// Whose it is.
    pub user: UserId,
    /// When the token ends.
    pub expires_at: UnixMs,
    /// The last part of its name, which nobody guesses.
    pub random: u32,
    /// What the client calls itself.
    pub client: Option<Box<str>>,
    /// The user's version at the sign-in, and what its token says of its session.
    pub began: Began,
    /// The user's version that `rooms` is as of; 0 when a change may have been missed, so that
    /// the next comparison with the store reads them again.
    pub version: u64,
    /// The changes of the user's own blocks that it was told of, or began with.
    pub block_version: u64,
    /// Its rooms: places in the shard's table.
    pub rooms: Vec<u32>,
    /// `auth.refresh` requests whose token is being verified.
    pub refreshing: Option<Option<RequestId>>,
    /// Refusals for rate so far.
    pub refusals: u16,
    /// A read is under way.
    pub reading: bool,
    /// Reads that wait.
    pub reads: VecDeque<(Option<RequestId>, Read)>,
    /// Rooms to replay, in this order.
    pub replay: VecDeque<Replay>,
    /// A stretch was asked for.
    pub pulling: bool,
    /// Rooms the user was added to, being subscribed to.
    pub adding: Vec<RoomForUser>,
    /// How it wants to be seen.
    pub presence: PresenceChoice,
    /// Whose presence it watches.
    pub watching: Option<Box<Watching>>,
}

/// What a connection asks of the store, one after the other.
#[derive(Debug)]
pub enum Read {
    /// `history.get`.
    History(HistoryGet),
    /// `rooms.list`.
    List(RoomsList),
    /// `room.get`.
    Room(RoomGet),
    /// `room.members.list`.
    Members(RoomMembersList),
    /// `room.mute` and `room.archive`.
    SetOwn(RoomId, OwnChange),
    /// `search`.
    Search(Search),
    /// `user.blocks`.
    Blocks(UserBlocks),
    /// `presence.subscribe`: of these users, sorted, without repeats.
    Presence(Vec<UserId>),
}

/// A room being replayed to a connection.
#[derive(Clone, Copy, Debug)]
pub struct Replay {
    /// The room.
    pub room: RoomId,
    /// The last event the client has.
    pub cursor: Seq,
}

impl Session {
    /// A connection that was just upgraded.
    pub fn new(generation: u32, now_ms: u64) -> Session {
        Session {
            generation,
            outbox: Outbox::default(),
            state: State::Fresh { since_ms: now_ms },
            opened_ms: now_ms,
            heard_ms: now_ms,
            sent_ms: now_ms,
            pinged_ms: 0,
            drain_at_ms: None,
            budget: Budget::default(),
            shared: false,
        }
    }

    /// Whether it receives events.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready(_))
    }

    /// Whose it is, once that is known.
    pub fn user(&self) -> Option<UserId> {
        match &self.state {
            State::Joining(joining) => joining.user,
            State::Ready(ready) => Some(ready.user),
            State::Fresh { .. } | State::Closing => None,
        }
    }
}

/// What time has brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// Nothing; look again then, ms.
    Nothing(u64),
    /// A ping.
    Ping,
    /// The end.
    Close(CloseCode),
}
