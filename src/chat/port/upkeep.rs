//! What the store does for those who run the service, in steps: each is a transaction of bounded work, and may
//! be asked for again, whatever became of it.
//!
//! **To erase a user.** [`Upkeep::EraseBegin`] takes the account away: from then on nobody is that user, and no
//! room takes them in. What is left to do stands in the store. One node at a time goes on with it
//! ([`Upkeep::EraseNext`], whose word holds for [`ERASE_LEASE_MS`]): room by room, by
//! [`super::OpKind::Erase`], until none is left, and then [`Upkeep::EraseEnd`]. A place among the members
//! of a room, former ones too, is what says that the room is not done.
//!
//! **To drop what is older than rooms keep it.** One node at a time does ([`Upkeep::RetainNext`], whose word holds
//! for [`RETAIN_LEASE_MS`], renewed by every step): room by room, by [`Upkeep::Retain`], each step a stretch from
//! the oldest event on. A step raises the room's floor over what it drops, in one transaction: there is nothing
//! between, so any node goes on from any point. What is left below a floor: of a message of a person its key,
//! author and hash, as of any deleted message; the room's first event, and its newest.

use crate::protocol::{RoomId, UnixMs, UserId};

/// For how long an erasure is a node's, ms.
pub const ERASE_LEASE_MS: u64 = 5_000;
/// Rooms told at a time.
pub const ERASE_ROOMS: usize = 32;
/// Events of a room that are looked through in one step.
pub const ERASE_STRETCH: u64 = 1_000;

/// For how long it is one node that drops, ms.
pub const RETAIN_LEASE_MS: u64 = 5_000;
/// Rooms told at a time of each kind: with the age of all rooms, and with one of their own.
pub const RETAIN_ROOMS: usize = 32;
/// Events of a room that are dropped in one step.
pub const RETAIN_STRETCH: u64 = 500;
/// A room is looked at only when its oldest message is older by this than it is kept, ms: so a room in which
/// much is written is not looked at for every message.
pub const RETAIN_SLACK_MS: u64 = 60 * 60 * 1_000;
/// A day, ms.
pub const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// A step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Upkeep {
    /// Takes an account away for good, also one that never was there, and notes what is left to do.
    EraseBegin(UserId),
    /// An erasure to go on with: this one, which the caller has, or any that nobody has.
    EraseNext(Option<UserId>),
    /// All rooms are done: nothing of the user is left to do.
    EraseEnd(UserId),
    /// How far it is with this user.
    EraseState(UserId),
    /// Rooms that have something to drop.
    RetainNext {
        /// The caller is the one who drops.
        held: bool,
        /// For how many days rooms keep messages that have no age of their own; 0: for ever.
        days: u32,
    },
    /// Drops the next stretch of a room.
    Retain {
        /// Which.
        room: RoomId,
        /// As with [`Upkeep::RetainNext`].
        days: u32,
    },
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UpkeepDone {
    /// To [`Upkeep::EraseBegin`] and [`Upkeep::EraseState`].
    EraseState(EraseState),
    /// To [`Upkeep::EraseNext`]; `None`: there is none.
    EraseNext(Option<Erasure>),
    /// To [`Upkeep::EraseEnd`]: whether that was all; `false` if there are rooms or uploads.
    EraseEnd(bool),
    /// To [`Upkeep::RetainNext`]: those that have had something for the longest; `None`: there are some, and another
    /// node drops.
    RetainNext(Option<Vec<RoomId>>),
    /// To [`Upkeep::Retain`]: whether that was all, which it also is where there is no such room.
    Retained(bool),
}

/// How far an erasure is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EraseState {
    /// This user is not erased.
    None,
    /// It was asked for then, and is not done.
    Running(UnixMs),
    /// Nothing is left.
    Done,
}

/// What is to be done for an erasure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Erasure {
    /// Who.
    pub user: UserId,
    /// When it was asked for.
    pub requested_at: UnixMs,
    /// Rooms that are not done, at most [`ERASE_ROOMS`]; none: only [`Upkeep::EraseEnd`] is left.
    pub rooms: Vec<RoomId>,
}
