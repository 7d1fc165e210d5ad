//! Rate limits by the generic cell rate algorithm (ITU-T I.371): one number per limit.

/// A limit of so many per 10 s, which may come all at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rate {
    /// When the bucket is full again, µs of the shard's clock.
    full_at_us: u64,
}

/// The span that limits are stated for, µs.
const SPAN_US: u64 = 10_000_000;

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
}
