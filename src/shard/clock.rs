//! The clock of a node: the same for all its shards.

use crate::chat::Now;
use crate::protocol::UnixMs;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Counts from the start of the node.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts at zero.
    pub fn start() -> Clock {
        Clock {
            start: Instant::now(),
        }
    }

    /// The time now.
    pub fn now(&self) -> Now {
        // A clock set before 1970 is taken as 1970: tokens are then refused as not yet valid.
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            mono_us: self.start.elapsed().as_micros() as u64,
            unix: UnixMs(unix.as_millis() as u64),
        }
    }
}
