//! The rooms that a shard's connections listen to, and how an event reaches their outboxes.
//!
//! Invariants: a room's events arrive here by `seq`, each once, the first one after `position`;
//! a connection that still replays the room is passed over: its replay goes on until it reaches
//! `position`, so that what is live comes after what was missed, and nothing comes twice.
//!
//! Next: the outbox ([`super::outbox`]) and the driver, which writes it.

use super::ConnId;
use crate::protocol::{RoomId, Seq};

/// A room that connections of this shard listen to.
#[derive(Debug)]
pub struct LocalRoom {
    /// The room.
    pub id: RoomId,
    /// The last event delivered to this shard; `None` until the home answered.
    pub position: Option<Seq>,
    /// Who listens.
    pub subscribers: Vec<Subscriber>,
    /// Answers of the home that are still to come.
    pub asked: u32,
    /// Somebody was told that somebody types, and nobody yet that it is over.
    pub shows_typing: bool,
}

/// A connection that listens to a room: its index, and in the top bit whether it is passed over
/// (not ready yet, or replaying).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subscriber(u32);

/// The top bit.
const PASSED_OVER: u32 = 1 << 31;

impl Subscriber {
    /// A connection that is passed over for now.
    pub fn waiting(conn: ConnId) -> Subscriber {
        assert!(conn.index < PASSED_OVER, "fewer connections than 2^31");
        Subscriber(conn.index | PASSED_OVER)
    }

    /// The place of the connection.
    pub fn index(self) -> u32 {
        self.0 & !PASSED_OVER
    }

    /// Whether it gets live events.
    pub fn is_live(self) -> bool {
        self.0 & PASSED_OVER == 0
    }
}

impl LocalRoom {
    /// A room that nobody listens to yet.
    pub fn new(id: RoomId) -> LocalRoom {
        LocalRoom {
            id,
            position: None,
            subscribers: Vec::new(),
            asked: 0,
            shows_typing: false,
        }
    }

    /// From now on the connection gets live events.
    pub fn go_live(&mut self, conn: ConnId) {
        let live = Subscriber(conn.index);
        if let Some(own) = self
            .subscribers
            .iter_mut()
            .find(|own| own.index() == conn.index)
        {
            *own = live;
        }
    }

    /// The connection no longer listens. Whether it did.
    pub fn remove(&mut self, index: u32) -> bool {
        let place = self.subscribers.iter().position(|own| own.index() == index);
        if let Some(place) = place {
            self.subscribers.swap_remove(place);
        }
        place.is_some()
    }
}
