//! Microseconds since 1970, on the monotonic clock: latencies never jump with the wall clock, and
//! two processes on one host can still compare the times that stand in the messages.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    started_unix_us: u64,
}

impl Clock {
    pub fn new() -> Self {
        let started_unix_us = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_micros() as u64);
        Self {
            started: Instant::now(),
            started_unix_us,
        }
    }

    pub fn now_us(&self) -> u64 {
        self.started_unix_us + self.started.elapsed().as_micros() as u64
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

pub fn us(duration: Duration) -> u64 {
    duration.as_micros() as u64
}
