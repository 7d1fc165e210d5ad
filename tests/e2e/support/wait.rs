//! Waiting for a condition, never for a time.

use std::thread;
use std::time::{Duration, Instant};

/// Everything that is waited for comes within milliseconds, or never. A busy machine, and one that
/// runs several tests, gets more.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks at a condition that nothing announces.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Looks until there is something.
///
/// # Panics
/// When there is nothing within [`DEADLINE`].
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::park_timeout(LOOK_EVERY);
    }
}

/// Looks until it is so.
///
/// # Panics
/// When it is not so within [`DEADLINE`].
pub fn wait_until(what: &str, mut look: impl FnMut() -> bool) {
    wait_for(what, || look().then_some(()));
}
