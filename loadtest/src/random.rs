//! A small seeded generator (SplitMix64), so that a run can be repeated from its seed.

#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A seed for runs that were given none.
    pub fn seed_from_clock() -> u64 {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_nanos() as u64);
        Self::new(now ^ u64::from(std::process::id()) << 32).next_u64() % 1_000_000_000
    }

    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// Uniform in `0..bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Uniform in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A 64-bit fingerprint of a frame, eight bytes a step: members of a room must get the same bytes,
/// so equal fingerprints spare the parsing of all copies but the first.
pub fn fingerprint(bytes: &[u8]) -> u64 {
    let mut hash = 0x51_7c_c1_b7_27_22_0a_95_u64 ^ (bytes.len() as u64);
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        hash = fold(hash ^ u64::from_le_bytes(word));
    }
    let mut word = [0; 8];
    word[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    mix(fold(hash ^ u64::from_le_bytes(word)))
}

/// A number for a pair, to be summed over a set of pairs.
pub fn pair_mark(one: u64, other: u64) -> u64 {
    mix(mix(one.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ other)
}

fn fold(value: u64) -> u64 {
    let product = u128::from(value) * 0xf39c_c060_5ced_c835;
    (product as u64) ^ ((product >> 64) as u64) ^ value.rotate_left(23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_stays_within_its_bounds_and_reaches_both() {
        let mut random = Random::new(7);
        let drawn: Vec<u64> = (0..1000).map(|_| random.between(3, 6)).collect();
        assert_eq!(drawn.iter().min(), Some(&3));
        assert_eq!(drawn.iter().max(), Some(&6));
    }

    #[test]
    fn the_same_seed_repeats() {
        let (mut one, mut two) = (Random::new(42), Random::new(42));
        assert!((0..100).all(|_| one.next_u64() == two.next_u64()));
    }

    #[test]
    fn fingerprints_differ_for_every_single_byte_change() {
        let frame: Vec<u8> = (0..=255).collect();
        let original = fingerprint(&frame);
        for position in 0..frame.len() {
            for bit in 0..8 {
                let mut changed = frame.clone();
                changed[position] ^= 1 << bit;
                assert_ne!(fingerprint(&changed), original);
            }
        }
        assert_ne!(fingerprint(&frame[..255]), original);
        assert_ne!(fingerprint(&[0; 8]), fingerprint(&[0; 9]));
    }
}
