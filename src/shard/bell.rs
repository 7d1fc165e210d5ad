//! Wakes a shard that sleeps, from any thread, and costs a load when it does not.
//!
//! Invariant: whoever puts something into a queue of the shard and then rings is heard: either
//! the shard, having said that it will sleep, sees the queue filled, or the ringer sees that it
//! said so. The two fences make one of them true.

use crate::sys::EventFd;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// One shard's bell.
#[derive(Debug)]
pub struct Bell {
    sleeping: AtomicBool,
    event: EventFd,
}

impl Bell {
    /// A bell for a shard that is awake.
    ///
    /// # Errors
    /// EMFILE.
    pub fn new() -> io::Result<Bell> {
        Ok(Bell {
            sleeping: AtomicBool::new(false),
            event: EventFd::new()?,
        })
    }

    /// Wakes the shard if it sleeps. After something was put into one of its queues.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed) {
            self.event.ring();
        }
    }

    /// The shard is about to sleep. It must look into its queues once more after this.
    pub fn sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The shard is awake and will look into its queues.
    pub fn wake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// What the shard's ring watches.
    pub fn event(&self) -> &EventFd {
        &self.event
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{Event, Ring, RingSizes};
    use crossbeam_queue::ArrayQueue;
    use std::sync::Arc;
    use std::time::Duration;

    /// Two ringers and a sleeper that only a bell wakes: a lost ring would stop it for a minute.
    #[test]
    fn no_ring_is_lost() {
        const EACH: u64 = 50_000;
        let mut ring = Ring::new(RingSizes {
            submissions: 8,
            completions: 16,
            buffers: 1,
            buffer_bytes: 16,
        })
        .expect("a ring");
        let bell = Arc::new(Bell::new().expect("a bell"));
        let queue = Arc::new(ArrayQueue::new(64));
        ring.watch(bell.event());
        let ringers: Vec<_> = (0..2)
            .map(|_| {
                let (bell, queue) = (bell.clone(), queue.clone());
                std::thread::spawn(move || {
                    for number in 0..EACH {
                        while queue.push(number).is_err() {
                            std::thread::yield_now();
                        }
                        bell.ring();
                    }
                })
            })
            .collect();
        let (mut taken, mut waits) = (0, 0);
        while taken < 2 * EACH {
            while queue.pop().is_some() {
                taken += 1;
            }
            bell.sleep();
            if queue.is_empty() && taken < 2 * EACH {
                waits += 1;
                let before = std::time::Instant::now();
                ring.wait(1, Duration::from_secs(60)).expect("a wait");
                assert!(
                    before.elapsed() < Duration::from_secs(30),
                    "a ring was lost"
                );
            }
            bell.wake();
            while let Some(event) = ring.next_event() {
                assert!(matches!(event, Event::Rung { more: true }));
            }
        }
        assert!(waits > 0, "it never slept");
        for ringer in ringers {
            ringer.join().expect("a ringer");
        }
    }
}
