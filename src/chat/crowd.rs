//! How many connections a user has on this node: kept by the user's home shard, because they are spread over
//! all shards.
//!
//! Invariants: a connection is here from the moment its token was verified until it is closed, and once;
//! each user's stand in the order in which they came. When there are too many the oldest goes: it is the one
//! that is most likely a phone that is out of reach and not noticed yet, and who opens a new
//! window expects that window to work.

use super::map::{Map, Seeded};
use super::{ConnId, ShardIx};
use crate::protocol::UserId;

/// The connections of the users that this shard is home to.
#[derive(Debug)]
pub struct Crowd {
    users: Map<UserId, Vec<(ShardIx, ConnId)>>,
}

impl Crowd {
    /// Nobody.
    pub fn new(seed: u64) -> Crowd {
        Crowd {
            users: Map::with_hasher(Seeded::with_seed(seed)),
        }
    }

    /// A connection of this user came; the one that has to go for it, if there are more than `max` now.
    pub fn came(
        &mut self,
        user: UserId,
        connection: (ShardIx, ConnId),
        max: usize,
    ) -> Option<(ShardIx, ConnId)> {
        let own = self
            .users
            .entry(user)
            .or_insert_with(|| Vec::with_capacity(1));
        own.push(connection);
        (own.len() > max).then(|| own.remove(0))
    }

    /// The connections of a user, the oldest first.
    pub fn places(&self, user: UserId) -> &[(ShardIx, ConnId)] {
        self.users.get(&user).map_or(&[], Vec::as_slice)
    }

    /// It is gone.
    pub fn went(&mut self, user: UserId, connection: (ShardIx, ConnId)) {
        let Some(own) = self.users.get_mut(&user) else {
            return;
        };
        own.retain(|other| *other != connection);
        if own.is_empty() {
            self.users.remove(&user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn connection(index: u32) -> (ShardIx, ConnId) {
        let generation = 0;
        (0, ConnId { index, generation })
    }

    #[test]
    fn the_oldest_goes_and_a_place_that_is_free_is_used() {
        let mut crowd = Crowd::new(1);
        let (ada, bob) = (UserId(Uuid::from_u128(1)), UserId(Uuid::from_u128(2)));
        assert_eq!(crowd.came(ada, connection(0), 2), None);
        assert_eq!(crowd.came(ada, connection(1), 2), None);
        assert_eq!(crowd.came(bob, connection(2), 2), None);
        assert_eq!(crowd.came(ada, connection(3), 2), Some(connection(0)));
        // Its end is told too, and changes nothing.
        crowd.went(ada, connection(0));
        assert_eq!(crowd.came(ada, connection(4), 2), Some(connection(1)));
        crowd.went(ada, connection(3));
        assert_eq!(crowd.came(ada, connection(5), 2), None);
        for index in [2, 4, 5] {
            crowd.went(ada, connection(index));
            crowd.went(bob, connection(index));
        }
        assert!(crowd.users.is_empty());
    }
}
