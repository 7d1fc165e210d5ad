//! What the store does for those who run the service, in steps: each is a transaction of bounded work, and may
//! be asked for again, whatever became of it.
//!
//! **To erase a user.** [`Upkeep::EraseBegin`] takes the account away: from then on nobody is that user, and no
//! room takes them in. What is left to do stands in the store. One node at a time goes on with it
//! ([`Upkeep::EraseNext`], whose word holds for [`ERASE_LEASE_MS`]): room by room, by
//! [`super::OpKind::Erase`], until none is left, and then [`Upkeep::EraseEnd`]. A place among the members
//! of a room, former ones too, is what says that the room is not done.

use crate::protocol::{RoomId, UnixMs, UserId};

/// For how long an erasure is a node's, ms.
pub const ERASE_LEASE_MS: u64 = 5_000;
/// Rooms told at a time.
pub const ERASE_ROOMS: usize = 32;
/// Events of a room that are looked through in one step.
pub const ERASE_STRETCH: u64 = 1_000;

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
