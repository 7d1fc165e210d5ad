//! Service tokens: who may use the Admin API, and how often one may be wrong.
//!
//! Invariants: a token is kept and compared only as its hash, all of them every time, in a time that tells nothing; it is
//! logged only as its fingerprint. An address that gave too many wrong ones is not listened to for the rest of the
//! minute, so guessing is bounded; what is kept of addresses is bounded.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Hexadecimal digits of a fingerprint.
const FINGERPRINT_CHARS: usize = 8;
/// Addresses with wrong tokens that are remembered. With more, all further ones share what is left.
const ADDRESSES_MAX: usize = 4_096;
/// For how long they are.
const WINDOW: Duration = Duration::from_secs(60);

/// The tokens that are accepted.
#[derive(Clone)]
pub struct Tokens(Vec<blake3::Hash>);

impl fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} tokens", self.0.len())
    }
}

impl Tokens {
    /// These.
    pub fn new<'a>(tokens: impl IntoIterator<Item = &'a [u8]>) -> Tokens {
        Tokens(tokens.into_iter().map(blake3::hash).collect())
    }

    /// The fingerprint of a token, if it is one of them.
    pub fn check(&self, token: &str) -> Option<String> {
        let given = blake3::hash(token.as_bytes());
        // Hashes compare in constant time.
        let known = self
            .0
            .iter()
            .fold(false, |known, own| known | (*own == given));
        known.then(|| given.to_hex()[..FINGERPRINT_CHARS].to_owned())
    }
}

/// Wrong tokens, by address.
#[derive(Debug)]
pub struct Failures {
    per_min: u32,
    addresses: Mutex<BTreeMap<u128, Window>>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    since: Instant,
    count: u32,
}

impl Failures {
    /// So many of one address in a minute.
    pub fn new(per_min: u32) -> Failures {
        Failures {
            per_min,
            addresses: Mutex::default(),
        }
    }

    /// For how long an address is not listened to; `None`: it is.
    pub fn wait(&self, address: Option<IpAddr>, now: Instant) -> Option<Duration> {
        let addresses = self.addresses.lock();
        let addresses = addresses.unwrap_or_else(PoisonError::into_inner);
        let window = addresses.get(&key(address)).or_else(|| {
            let is_full = addresses.len() > ADDRESSES_MAX;
            is_full.then(|| addresses.get(&OTHERS))?
        })?;
        let left = (window.since + WINDOW).saturating_duration_since(now);
        (window.count >= self.per_min && !left.is_zero()).then_some(left)
    }

    /// An address gave a wrong one.
    pub fn count(&self, address: Option<IpAddr>, now: Instant) {
        let addresses = self.addresses.lock();
        let mut addresses = addresses.unwrap_or_else(PoisonError::into_inner);
        let mut key = key(address);
        if addresses.len() >= ADDRESSES_MAX && !addresses.contains_key(&key) {
            addresses.retain(|_, window| window.since + WINDOW > now);
            if addresses.len() >= ADDRESSES_MAX {
                key = OTHERS;
            }
        }
        let fresh = Window {
            since: now,
            count: 0,
        };
        let window = addresses.entry(key).or_insert(fresh);
        if window.since + WINDOW <= now {
            *window = fresh;
        }
        window.count += 1;
    }
}

/// All addresses for which there is no room; no address is this one.
const OTHERS: u128 = u128::MAX;

/// What counts as one address: an IPv4 address, or the 64 bits of an IPv6 network.
fn key(address: Option<IpAddr>) -> u128 {
    match address.map(|address| address.to_canonical()) {
        Some(IpAddr::V4(address)) => u128::from(address.to_bits()),
        Some(IpAddr::V6(address)) => address.to_bits() >> 64 << 64 | 1 << 63,
        None => OTHERS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn a_token_is_known_by_its_hash_and_named_by_its_fingerprint() {
        let (old, new) = ("o".repeat(32), "n".repeat(32));
        let tokens = Tokens::new([old.as_bytes(), new.as_bytes()]);
        let one = tokens.check(&old).expect("one of them");
        let other = tokens.check(&new).expect("one of them");
        assert_ne!(one, other);
        assert!(blake3::hash(old.as_bytes()).to_hex().starts_with(&one));
        assert_eq!(one.len(), 8);
        for wrong in ["", &old[1..], &format!("{old} "), &"O".repeat(32)] {
            assert_eq!(tokens.check(wrong), None, "{wrong:?}");
        }
        assert_eq!(format!("{tokens:?}"), "2 tokens");
        assert_eq!(Tokens::new([]).check(""), None);
    }

    #[test]
    fn who_is_wrong_too_often_waits_and_nobody_else() {
        let failures = Failures::new(3);
        let begin = Instant::now();
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        for second in 0..3 {
            let now = begin + Duration::from_secs(second);
            assert_eq!(failures.wait(one, now), None);
            failures.count(one, now);
        }
        let later = begin + Duration::from_secs(10);
        assert_eq!(failures.wait(one, later), Some(Duration::from_secs(50)));
        assert_eq!(failures.wait(other, later), None);
        assert_eq!(failures.wait(one, begin + WINDOW), None);
        failures.count(one, begin + WINDOW);
        assert_eq!(failures.wait(one, begin + WINDOW), None);
        // A customer of IPv6 has many addresses and is one.
        for n in 0..3 {
            failures.count(address(&format!("2001:db8::{n}")), later);
        }
        assert!(failures.wait(address("2001:db8::ffff"), later).is_some());
        assert_eq!(failures.wait(address("2001:db8:1::1"), later), None);
    }

    #[test]
    fn what_is_kept_of_addresses_is_bounded() {
        let failures = Failures::new(1);
        let now = Instant::now();
        for n in 0..2 * ADDRESSES_MAX as u32 {
            let address = IpAddr::from(n.to_be_bytes());
            failures.count(Some(address), now);
            assert!(failures.wait(Some(address), now).is_some());
        }
        let count = || failures.addresses.lock().expect("not poisoned").len();
        assert_eq!(count(), ADDRESSES_MAX + 1);
        failures.count(address("203.0.113.1"), now + WINDOW);
        assert_eq!(count(), 1);
    }
}
