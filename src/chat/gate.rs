//! The in-order gate of a room: events leave strictly by `seq`, each once, whatever the order in
//! which they arrive and however often.
//!
//! Invariants: `released` only rises, by one with each event; nothing at or below it is held.
//!
//! Next: [`super::home`] fans out what is released.

use crate::limits;
use crate::protocol::Seq;
use crate::protocol::event::EncodedEvent;
use std::collections::BTreeMap;

/// The gate of one room.
#[derive(Debug)]
pub struct Gate {
    released: Seq,
    parked: BTreeMap<Seq, (EncodedEvent, Passed)>,
}

/// When an event passed the stages before the gate, µs of the shard's clock; 0 where it came by
/// another way than from our own commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Passed {
    /// Its command was received.
    pub received_us: u64,
    /// The shard learned that it is committed.
    pub committed_us: u64,
}

impl Gate {
    /// A gate that has released everything up to and including `released`.
    pub fn new(released: Seq) -> Gate {
        Gate {
            released,
            parked: BTreeMap::new(),
        }
    }

    /// The last event released.
    pub fn released(&self) -> Seq {
        self.released
    }

    /// Whether later events wait for an earlier one.
    pub fn waits(&self) -> bool {
        !self.parked.is_empty()
    }

    /// Takes an event. Those released already are ignored; of those far ahead only
    /// [`limits::GATE_EVENTS_MAX`] are kept, since the store has them all.
    pub fn offer(&mut self, event: EncodedEvent, passed: Passed) {
        if event.seq <= self.released {
            return;
        }
        self.parked.insert(event.seq, (event, passed));
        if self.parked.len() > limits::GATE_EVENTS_MAX {
            self.parked.pop_last();
        }
    }

    /// The next event in order, if it is here.
    pub fn release(&mut self) -> Option<(EncodedEvent, Passed)> {
        let (event, passed) = self.parked.remove(&(self.released + 1))?;
        self.released = event.seq;
        Some((event, passed))
    }

    /// What a gate must never do: lets the next event pass, whatever is missing before it.
    #[cfg(feature = "sabotage")]
    pub fn release_unordered(&mut self) -> Option<(EncodedEvent, Passed)> {
        let (_, (event, passed)) = self.parked.pop_first()?;
        self.released = event.seq;
        Some((event, passed))
    }

    /// Starts from `released`, as read from the store: forgets what it already holds of that.
    pub fn open(&mut self, released: Seq) {
        self.released = self.released.max(released);
        self.parked = self.parked.split_off(&(self.released + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: Seq) -> EncodedEvent {
        EncodedEvent {
            seq,
            membership: None,
            frame: Box::default(),
        }
    }

    fn check(from: Seq, offered: &[Seq], expected: &[Seq]) {
        let mut gate = Gate::new(from);
        let mut released = Vec::new();
        for seq in offered {
            gate.offer(event(*seq), Passed::default());
            while let Some((event, _)) = gate.release() {
                released.push(event.seq);
            }
        }
        assert_eq!(released, expected, "offered {offered:?} from {from}");
    }

    #[test]
    fn events_leave_in_order_and_once() {
        check(0, &[1, 2, 3], &[1, 2, 3]);
        check(0, &[3, 1, 2, 2, 1, 3, 4], &[1, 2, 3, 4]);
        check(5, &[4, 5, 7, 8], &[]);
        check(5, &[7, 6, 6, 8], &[6, 7, 8]);
    }

    #[test]
    fn what_is_far_ahead_is_bounded_and_the_nearest_is_kept() {
        let mut gate = Gate::new(0);
        for seq in (2..2_000).rev() {
            gate.offer(event(seq), Passed::default());
        }
        gate.offer(event(1), Passed::default());
        let released = std::iter::from_fn(|| gate.release()).count();
        assert_eq!(released, limits::GATE_EVENTS_MAX);
    }

    #[test]
    fn opening_forgets_what_the_store_had() {
        let mut gate = Gate::new(0);
        for seq in [3, 4, 5, 6] {
            gate.offer(event(seq), Passed::default());
        }
        gate.open(4);
        assert_eq!(gate.release().map(|(event, _)| event.seq), Some(5));
        gate.open(2);
        assert_eq!(gate.released(), 5);
    }
}
