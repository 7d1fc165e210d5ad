//! What other services are told, as the store keeps it, and what one worker asks of it.
//!
//! A message is its own row of the outbox: the store notes behind the commits which rooms have something new
//! ([`HookCall::Rooms`]), the worker reads what decides ([`HookCall::Room`]), and [`HookCall::Decided`] moves its
//! place in the room and writes whom to tell, as one. So whatever is killed in between, each message is decided once
//! in effect. All calls may be repeated.

use crate::protocol::hooks::HookKind;
use crate::protocol::view::{Mention, MessageKind, RoomKind};
use crate::protocol::{RoomId, Seq, UnixMs, UserId};
use uuid::Uuid;

/// For how long the work is a worker's, ms.
pub const HOOK_LEASE_MS: u64 = 6_000;
/// For how long causes are noted after the last worker was there, ms.
pub const HOOKS_WANTED_MS: u64 = 3 * 24 * 3_600_000;
/// For how long what was told is kept, ms.
pub const HOOKS_KEPT_MS: u64 = 7 * 24 * 3_600_000;
/// Messages of a room that are decided at a time.
pub const HOOK_MESSAGES: usize = 32;

/// How things stand for a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HookLease {
    /// Whether the work is the caller's.
    pub is_held: bool,
    /// Whether it was another's before, who did not give it back.
    pub is_taken_over: bool,
    /// The store's time.
    pub now: UnixMs,
    /// Messages written before are not told.
    pub since: UnixMs,
    /// Since when the receiver is gone.
    pub disabled_at: Option<UnixMs>,
    /// Since when the oldest of those that wait does.
    pub oldest: Option<UnixMs>,
}

/// A message, as far as it matters for who is told of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PushMessage {
    /// Which.
    pub seq: Seq,
    /// Who wrote it.
    pub sender: UserId,
    /// What they are called.
    pub sender_name: String,
    /// Its kind.
    pub kind: MessageKind,
    /// Its text now.
    pub text: Option<String>,
    /// Who is named in it.
    pub mentions: Vec<Mention>,
    /// It is a tombstone by now.
    pub is_deleted: bool,
    /// When it was written.
    pub created_at: UnixMs,
}

/// A member of a room, likewise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PushMember {
    /// Who.
    pub user: UserId,
    /// Since which event.
    pub joined_seq: Seq,
    /// Read up to here.
    pub read_seq: Seq,
    /// Muted until then.
    pub muted_until: Option<UnixMs>,
}

/// What decides about the next messages of a room, on one snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PushRoom {
    /// Direct or group.
    pub kind: RoomKind,
    /// What it is called.
    pub title: Option<String>,
    /// Its members; of a room of more than [`crate::limits::PUSH_MEMBERS_MAX`] only those who are mentioned.
    pub members: Vec<PushMember>,
    /// How many members it has.
    pub member_count: u32,
    /// The messages, by `seq`.
    pub messages: Vec<PushMessage>,
    /// Who blocks whom of authors and members.
    pub blocks: Vec<(UserId, UserId)>,
    /// Everything up to here is among them, or is nothing to be told.
    pub to: Seq,
}

/// Something to be told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewHook {
    /// `webhook-id`, for good.
    pub id: Uuid,
    /// What.
    pub kind: HookKind,
    /// Of a push: whose.
    pub user: UserId,
    /// Of a push: of which message.
    pub seq: Seq,
    /// `data`, as JSON.
    pub data: String,
}

/// Something that is to be told, or was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HookKept {
    /// `webhook-id`.
    pub id: Uuid,
    /// What.
    pub kind: HookKind,
    /// Where.
    pub room: RoomId,
    /// Since when.
    pub created_at: UnixMs,
    /// `data`, as JSON.
    pub data: String,
    /// Attempts so far.
    pub attempts: u32,
    /// Whether it waits, was delivered or was given up.
    pub state: HookState,
    /// The status of the last answer.
    pub status: Option<u16>,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// Of a push: whether it is still to be made.
    pub is_wanted: bool,
}

/// How far something is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HookState {
    /// It waits.
    Waiting,
    /// It was delivered.
    Delivered,
    /// It was given up.
    GivenUp,
}

impl HookState {
    /// As it stands in the store.
    pub fn number(self) -> i16 {
        match self {
            HookState::Waiting => 0,
            HookState::Delivered => 1,
            HookState::GivenUp => 2,
        }
    }

    /// The one of this number.
    pub fn from_number(number: i64) -> Option<HookState> {
        match number {
            0 => Some(HookState::Waiting),
            1 => Some(HookState::Delivered),
            2 => Some(HookState::GivenUp),
            _ => None,
        }
    }
}

/// What came of an attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Attempted {
    /// It was taken.
    Delivered {
        /// The status.
        status: u16,
    },
    /// It was not, or that is not known.
    Failed {
        /// The status, if there was an answer.
        status: Option<u16>,
        /// Why.
        error: String,
        /// When it is tried again; `None`: it is given up.
        again_at: Option<UnixMs>,
    },
    /// A push that nobody wants any more.
    NotWanted,
}

/// A push that was made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Pushed {
    /// Where.
    pub room: RoomId,
    /// Whose.
    pub user: UserId,
    /// Of which message, the newest.
    pub seq: Seq,
}

/// What a member has not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PushUnread {
    /// Who.
    pub user: UserId,
    /// In the room, up to [`crate::limits::UNREAD_MAX`].
    pub unread: u32,
    /// In all rooms that are not muted, up to [`crate::limits::UNREAD_MAX`].
    pub badge: u32,
}

/// What is asked.
#[derive(Clone, Debug)]
pub enum HookCall {
    /// Takes the work, keeps it, or gives it back.
    Lease {
        /// The worker, for as long as it runs.
        holder: Uuid,
        /// Whether it wants it.
        takes: bool,
    },
    /// Rooms with something new, by id.
    Rooms {
        /// After this one.
        after: RoomId,
        /// Noted, or looked at, not later.
        until: UnixMs,
        /// At most so many.
        limit: usize,
    },
    /// What decides about a room's next messages.
    Room {
        /// The room.
        room: RoomId,
        /// After this event.
        from: Seq,
        /// Not those written later.
        until: UnixMs,
    },
    /// What members have not read.
    Unread {
        /// The room.
        room: RoomId,
        /// Who.
        users: Vec<UserId>,
        /// The time, by which a room is muted or not.
        now: UnixMs,
    },
    /// Moves the place in a room, if it is where it was, and writes whom to tell.
    Decided {
        /// The room.
        room: RoomId,
        /// Where it was.
        from: Seq,
        /// Where it is now.
        to: Seq,
        /// When it counts as looked at.
        looked_at: UnixMs,
        /// By `seq`.
        hooks: Vec<NewHook>,
    },
    /// What is to be told now, by room: of each the first that waits, if its time has come.
    Due {
        /// The store's time.
        now: UnixMs,
        /// Of rooms after this one.
        after: RoomId,
        /// At most so many.
        limit: usize,
    },
    /// Moves the place in rooms where nobody is to be told, each if it is where it was.
    Passed {
        /// Where it was, and is now, which may be the same.
        rooms: Vec<(RoomId, Seq, Seq)>,
        /// When they count as looked at.
        looked_at: UnixMs,
    },
    /// Takes note of an attempt.
    Attempted {
        /// Which.
        id: Uuid,
        /// What came of it.
        outcome: Attempted,
    },
    /// Pushes that were made, by room and user.
    Pushed {
        /// After this one.
        after: Option<(RoomId, UserId)>,
        /// At most so many are looked at.
        limit: usize,
    },
    /// Takes a push back, once.
    TakeBack {
        /// Which.
        pushed: Pushed,
        /// What is told then.
        hook: NewHook,
    },
    /// The receiver is gone, or is there again.
    Disable(bool),
    /// What is to be told, or was; the newest first.
    Kept {
        /// In this state.
        state: HookState,
        /// At most so many.
        limit: usize,
    },
    /// Tells it again, with the same id and body; not if it waits.
    Replay(Uuid),
}

impl HookCall {
    /// Whether it may change something.
    pub fn writes(&self) -> bool {
        match self {
            HookCall::Lease { .. }
            | HookCall::Decided { .. }
            | HookCall::Passed { .. }
            | HookCall::Attempted { .. }
            | HookCall::TakeBack { .. }
            | HookCall::Disable(_)
            | HookCall::Replay(_) => true,
            HookCall::Rooms { .. }
            | HookCall::Room { .. }
            | HookCall::Unread { .. }
            | HookCall::Due { .. }
            | HookCall::Pushed { .. }
            | HookCall::Kept { .. } => false,
        }
    }
}

/// The answer to a [`HookCall`].
#[derive(Debug)]
pub enum HookAnswer {
    /// To [`HookCall::Lease`].
    Lease(HookLease),
    /// To [`HookCall::Rooms`]: the rooms, and how far each is decided.
    Rooms(Vec<(RoomId, Seq)>),
    /// To [`HookCall::Room`]; `None`: there is no such room.
    Room(Option<Box<PushRoom>>),
    /// To [`HookCall::Unread`]: those who are members.
    Unread(Vec<PushUnread>),
    /// To [`HookCall::Due`] and [`HookCall::Kept`].
    Hooks(Vec<HookKept>),
    /// To [`HookCall::Pushed`].
    Pushed {
        /// Those that are to be taken back: read, deleted, or of a room that its user left.
        over: Vec<Pushed>,
        /// The last that was looked at; `None`: there are no more.
        last: Option<(RoomId, UserId)>,
    },
    /// To those that change something: whether it changed anything.
    Done(bool),
}
