//! Who has a connection to another node: what other nodes said when they were asked lately.
//!
//! Invariants: nothing is kept that was not asked for, and nothing for longer than [`limits::CONNECTED_MS`]. Who is
//! not here may be connected all the same: a node that does not answer in time says nothing.

use super::map::{Map, Seeded};
use crate::limits;
use crate::protocol::UserId;

/// What other nodes said.
#[derive(Debug)]
pub struct Elsewhere {
    asked_until_ms: u64,
    /// Until when it holds, ms.
    users: Map<UserId, u64>,
}

impl Elsewhere {
    /// Nothing.
    pub fn new(seed: u64) -> Elsewhere {
        Elsewhere {
            asked_until_ms: 0,
            users: Map::with_hasher(Seeded::with_seed(seed)),
        }
    }

    /// They are asked now.
    pub fn asks(&mut self, now_ms: u64) {
        self.asked_until_ms = now_ms + limits::CONNECTED_MS;
        self.users.retain(|_, until_ms| *until_ms > now_ms);
    }

    /// One of them said that these users are connected.
    pub fn heard(&mut self, users: &[UserId], now_ms: u64) {
        if self.asked_until_ms <= now_ms {
            return;
        }
        for user in users.iter().take(limits::CONNECTED_USERS_MAX) {
            self.users.insert(*user, now_ms + limits::CONNECTED_MS);
        }
    }

    /// Whether one of them said so lately.
    pub fn has(&self, user: UserId, now_ms: u64) -> bool {
        self.users
            .get(&user)
            .is_some_and(|until_ms| *until_ms > now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn what_was_asked_for_is_kept_for_a_while() {
        let (ada, bob) = (UserId(Uuid::from_u128(1)), UserId(Uuid::from_u128(2)));
        let mut elsewhere = Elsewhere::new(1);
        elsewhere.heard(&[ada], 0);
        assert!(!elsewhere.has(ada, 0), "nobody asked");
        elsewhere.asks(1_000);
        elsewhere.heard(&[ada], 1_200);
        assert!(elsewhere.has(ada, 1_200) && !elsewhere.has(bob, 1_200));
        assert!(elsewhere.has(ada, 1_199 + limits::CONNECTED_MS));
        assert!(!elsewhere.has(ada, 1_200 + limits::CONNECTED_MS));
        elsewhere.heard(&[bob], 1_000 + limits::CONNECTED_MS);
        assert!(
            !elsewhere.has(bob, 1_000 + limits::CONNECTED_MS),
            "too late"
        );
        elsewhere.asks(1_200 + limits::CONNECTED_MS);
        assert!(elsewhere.users.is_empty());
    }
}
