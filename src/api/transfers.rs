//! Uploads and downloads of one connection, which may take longer than a connection may live otherwise.
//!
//! Invariant: a connection on which nothing moves has an end, whatever is under way on it.

use crate::limits;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often it is looked whether they are done.
const LOOK: Duration = Duration::from_secs(1);

/// What is under way on one connection.
#[derive(Clone)]
pub struct Transfers(Arc<Mutex<State>>);

struct State {
    /// The connection.
    began: Instant,
    under_way: usize,
    moved: Option<Instant>,
}

/// One of them; over when dropped.
pub struct Transfer(Transfers);

impl Default for Transfers {
    /// Of a connection that begins now.
    fn default() -> Transfers {
        Transfers(Arc::new(Mutex::new(State {
            began: Instant::now(),
            under_way: 0,
            moved: None,
        })))
    }
}

impl Transfers {
    /// Begins one.
    pub fn begin(&self) -> Transfer {
        self.change(|state| state.under_way += 1);
        Transfer(self.clone())
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.moved = Some(Instant::now());
        change(&mut state);
    }

    fn moves(&self) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stall = Duration::from_millis(limits::FOLDER_STALL_MS_MAX);
        state.under_way > 0 && state.moved.is_some_and(|moved| moved.elapsed() < stall)
    }

    /// When the connection ends, whatever moves on it.
    pub fn ends_at(&self) -> Instant {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.began + Duration::from_millis(limits::FOLDER_TRANSFER_MS_MAX)
    }

    /// Waits until the connection is to end: after `usual`, unless something moves on it then.
    pub async fn end(&self, usual: Duration) {
        tokio::time::sleep(usual).await;
        let last = self.ends_at();
        while self.moves() && Instant::now() < last {
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Transfer {
    /// Something came or went.
    pub fn moved(&self) {
        self.0.change(|_| ());
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.0.change(|state| state.under_way -= 1);
    }
}
