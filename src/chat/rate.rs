//! Rate limits by the generic cell rate algorithm (ITU-T I.371): one number per limit.

/// A limit of so many per 10 s, which may come all at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rate {
    /// When the bucket is full again, µs of the shard's clock.
    full_at_us: u64,
}

/// The span that limits are stated for, µs.
const SPAN_US: u64 = 10_000_000;
/// A budget that is overdrawn, because the same user took elsewhere, is there again after this at the latest,
/// µs: a client that kept to what it knew is not shut out for longer.
const DEBT_US_MAX: u64 = 3 * SPAN_US;

impl Rate {
    /// Takes one, or says after how many ms there is one again.
    pub fn take(&mut self, now_us: u64, per_10s: u32) -> Result<(), u64> {
        let cost_us = SPAN_US / u64::from(per_10s.max(1));
        let full_at_us = self.full_at_us.max(now_us) + cost_us;
        let wait_us = full_at_us.saturating_sub(now_us + SPAN_US);
        if wait_us > 0 {
            return Err(wait_us.div_ceil(1_000));
        }
        self.full_at_us = full_at_us;
        Ok(())
    }

    /// Counts what was taken elsewhere of the same budget, however much that is: what is owed is waited for,
    /// up to [`DEBT_US_MAX`].
    pub fn debit(&mut self, now_us: u64, per_10s: u32, count: u32) {
        let cost_us = SPAN_US / u64::from(per_10s.max(1));
        let full_at_us = self.full_at_us.max(now_us) + cost_us * u64::from(count);
        self.full_at_us = full_at_us.min(now_us + DEBT_US_MAX).max(self.full_at_us);
    }

    /// How many were taken that have not come back yet.
    pub fn taken(&self, now_us: u64, per_10s: u32) -> u32 {
        let cost_us = SPAN_US / u64::from(per_10s.max(1));
        // A limit of more than one per µs is none: nothing is ever taken.
        let taken = match cost_us {
            0 => 0,
            cost_us => self.full_at_us.saturating_sub(now_us).div_ceil(cost_us),
        };
        u32::try_from(taken).unwrap_or(u32::MAX)
    }

    /// How much of the budget is left.
    pub fn left(&self, now_us: u64, per_10s: u32) -> Left {
        Left {
            limit: per_10s,
            remaining: per_10s.saturating_sub(self.taken(now_us, per_10s)),
            full_in_ms: self.full_at_us.saturating_sub(now_us).div_ceil(1_000),
        }
    }
}

/// How much of a budget is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Left {
    /// How many there may be in 10 s.
    pub limit: u32,
    /// How many more may be taken now.
    pub remaining: u32,
    /// When all of it is there again, ms from now.
    pub full_in_ms: u64,
}

/// What a user has taken in one place and the user's other places do not know yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Spent {
    /// Commands, sends included.
    pub commands: u32,
    /// Sends.
    pub sends: u32,
}

impl Spent {
    /// Nothing.
    pub fn is_nothing(self) -> bool {
        self == Spent::default()
    }
}

/// The budget of a user in one place: a connection, or the requests over HTTP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Budget {
    /// Commands, sends included.
    pub commands: Rate,
    /// Sends.
    pub sends: Rate,
    /// Taken here since it was last told.
    pub untold: Spent,
}

/// How much there may be of what, in 10 s.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Commands, sends included.
    pub commands: u32,
    /// Sends.
    pub sends: u32,
}

impl Budget {
    /// Takes a command, a send as both, or says after how many ms there is one again.
    pub fn take(&mut self, now_us: u64, limits: Limits, is_send: bool) -> Result<(), u64> {
        self.commands.take(now_us, limits.commands)?;
        match is_send {
            true => self.sends.take(now_us, limits.sends),
            false => Ok(()),
        }
    }

    /// Takes note of a command that other places are to be told of; whether it is the first one.
    pub fn add_untold(&mut self, is_send: bool) -> bool {
        let is_first = self.untold.is_nothing();
        self.untold.commands = self.untold.commands.saturating_add(1);
        self.untold.sends = self.untold.sends.saturating_add(u32::from(is_send));
        is_first
    }

    /// Counts what the user has taken in another place.
    pub fn debit(&mut self, now_us: u64, limits: Limits, spent: Spent) {
        self.commands.debit(now_us, limits.commands, spent.commands);
        self.sends.debit(now_us, limits.sends, spent.sends);
    }

    /// All that was taken here and has not come back yet: what a new place of the same user is told first.
    pub fn taken(&self, now_us: u64, limits: Limits) -> Spent {
        Spent {
            commands: self.commands.taken(now_us, limits.commands),
            sends: self.sends.taken(now_us, limits.sends),
        }
    }

    /// What is left for one more of this kind: of the limit that is nearer.
    pub fn left(&self, now_us: u64, limits: Limits, is_send: bool) -> Left {
        let commands = self.commands.left(now_us, limits.commands);
        let sends = self.sends.left(now_us, limits.sends);
        match is_send && sends.remaining <= commands.remaining {
            true => sends,
            false => commands,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_taken_then_one_per_interval() {
        let mut rate = Rate::default();
        for _ in 0..50 {
            assert_eq!(rate.take(1_000, 50), Ok(()));
        }
        assert_eq!(rate.take(1_000, 50), Err(200));
        assert_eq!(rate.take(200_999, 50), Err(1));
        assert_eq!(rate.take(201_000, 50), Ok(()));
        assert_eq!(rate.take(201_000, 50), Err(200));
    }

    #[test]
    fn what_was_taken_elsewhere_is_waited_for_but_not_for_ever() {
        let mut rate = Rate::default();
        let now = 1_000;
        assert_eq!(rate.take(now, 50), Ok(()));
        rate.debit(now, 50, 48);
        assert_eq!(rate.left(now, 50).remaining, 1);
        assert_eq!(rate.taken(now, 50), 49);
        assert_eq!(rate.take(now, 50), Ok(()));
        rate.debit(now, 50, 5);
        assert_eq!(rate.take(now, 50), Err(1_200), "six times 200 ms");
        rate.debit(now, 50, 1_000_000);
        assert_eq!(rate.take(now, 50), Err(20_200), "three spans, less one");
        assert_eq!(rate.left(now, 50).remaining, 0);
        assert_eq!(rate.left(now, 50).full_in_ms, 30_000);
        assert_eq!(rate.take(now + 30_000_000, 50), Ok(()));
    }

    #[test]
    fn a_limit_beyond_the_clock_is_none() {
        let mut rate = Rate::default();
        for _ in 0..1_000 {
            assert_eq!(rate.take(7, 100_000_000), Ok(()));
        }
        rate.debit(7, 100_000_000, 1_000);
        assert_eq!(rate.taken(7, 100_000_000), 0);
        assert_eq!(rate.left(7, 100_000_000).remaining, 100_000_000);
    }

    #[test]
    fn a_send_counts_as_both_and_the_nearer_limit_is_told() {
        let limits = Limits {
            commands: 20,
            sends: 5,
        };
        let mut budget = Budget::default();
        for n in 0..5 {
            assert_eq!(budget.left(0, limits, true).remaining, 5 - n);
            assert_eq!(budget.take(0, limits, true), Ok(()));
        }
        assert_eq!(budget.take(0, limits, true), Err(2_000));
        assert_eq!(budget.left(0, limits, true).limit, 5);
        // The send that was refused was a command all the same.
        assert_eq!(budget.left(0, limits, false).remaining, 14);
        let taken = budget.taken(0, limits);
        assert_eq!((taken.commands, taken.sends), (6, 5));
    }
}
