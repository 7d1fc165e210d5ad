//! Maps with a seed that we choose: seeded at random in production, so that nobody can choose ids
//! that collide, and from the scenario's seed in a simulation, so that it repeats.

use hashbrown::HashMap;

/// Builds hashers of one seed.
pub type Seeded = foldhash::fast::FixedState;

/// A hash map of one seed.
pub type Map<K, V> = HashMap<K, V, Seeded>;

/// A hash set of one seed.
pub type Set<K> = hashbrown::HashSet<K, Seeded>;
