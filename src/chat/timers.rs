//! When to look at a connection again: a wheel of coarse slots, one entry per connection.
//!
//! An entry is only a reminder: whoever is reminded looks what is really due and reminds itself
//! again, so a deadline that moves later costs nothing.

use super::{ConnId, TICK_MS};

/// Slots: the furthest reminder is one turn ahead.
const SLOTS: usize = 256;

/// The wheel.
#[derive(Debug)]
pub struct Timers {
    slots: Vec<Vec<ConnId>>,
    /// The last tick that was handed out.
    tick: u64,
}

/// The tick that a time, ms, falls into.
fn tick_of(ms: u64) -> u64 {
    ms / TICK_MS
}

impl Timers {
    /// A wheel that starts now.
    pub fn new(now_ms: u64) -> Timers {
        Timers {
            slots: vec![Vec::new(); SLOTS],
            tick: tick_of(now_ms),
        }
    }

    /// Reminds of a connection at this time, or at the end of the turn if it is further away.
    pub fn remind(&mut self, conn: ConnId, at_ms: u64) {
        let ahead = tick_of(at_ms)
            .saturating_sub(self.tick)
            .clamp(1, SLOTS as u64 - 1);
        let slot = (self.tick + ahead) % SLOTS as u64;
        self.slots[slot as usize].push(conn);
    }

    /// Everybody to be reminded by now.
    pub fn due(&mut self, now_ms: u64) -> Vec<ConnId> {
        let mut due = Vec::new();
        let now = tick_of(now_ms);
        // After a long stop every slot is visited once, not once per missed turn.
        self.tick = self.tick.max(now.saturating_sub(SLOTS as u64));
        while self.tick < now {
            self.tick += 1;
            due.append(&mut self.slots[(self.tick % SLOTS as u64) as usize]);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reminders_come_once_and_in_time() {
        let conn = |index| ConnId {
            index,
            generation: 0,
        };
        let mut timers = Timers::new(1_000);
        timers.remind(conn(1), 1_000);
        timers.remind(conn(2), 11_000);
        timers.remind(conn(3), 1 << 40);
        assert_eq!(timers.due(1_000), []);
        assert_eq!(timers.due(1_000 + TICK_MS), [conn(1)]);
        assert_eq!(timers.due(10_000), []);
        assert_eq!(timers.due(11_000 + TICK_MS), [conn(2)]);
        assert_eq!(timers.due(1 << 30), [conn(3)]);
        assert_eq!(timers.due(1 << 31), []);
    }
}
