//! How many sockets an address has on this node, all its shards together.
//!
//! A table of counters of fixed size, shared by the shards: each address has a place in two rows, by two
//! hashes, and what it has is taken to be the smaller of the two counts; others that fall into the same place
//! can only make it larger, and hardly ever in both rows. Invariants: what is added is taken away exactly
//! once, when the socket is closed or given to the control plane; shards that add at the same moment may each
//! take one more; no lock, nothing to clean up, no memory that grows.

use crate::limits;
use crate::protocol::network::Network;
use foldhash::fast::FixedState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

/// Places of a row: so many that 10,000 addresses seldom share both of theirs.
const PLACES: usize = 1 << 15;

/// How addresses are counted.
#[derive(Clone, Debug, Default)]
pub struct PeerLimits {
    /// Sockets of one address; 0: as many as it likes, and nothing is counted.
    pub per_address_max: u32,
    /// Proxies of ours: not counted themselves, and believed when they tell for whom they connect.
    pub trusted: Vec<Network>,
}

impl PeerLimits {
    /// Sockets of one address that have not signed in.
    pub fn unauthenticated_max(&self) -> u32 {
        (self.per_address_max / limits::UNAUTHENTICATED_PER_IP_PART)
            .max(limits::UNAUTHENTICATED_PER_IP_MIN)
    }
}

/// The counters.
pub struct Peers {
    limits: PeerLimits,
    rows: Box<[Count]>,
    hashers: [FixedState; 2],
}

#[derive(Default)]
struct Count {
    sockets: AtomicU32,
    unauthenticated: AtomicU32,
}

/// A socket's places in the table; the default is that of one that is not counted.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// One more than the place in each row; 0: none.
    places: [u16; 2],
    authenticated: bool,
}

const _: () = assert!(PLACES < u16::MAX as usize);

/// Why a socket is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooMany;

impl std::fmt::Debug for Peers {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let limits = &self.limits;
        formatter
            .debug_struct("Peers")
            .field("limits", limits)
            .finish_non_exhaustive()
    }
}

impl Peers {
    /// Counts nothing yet. The seed keeps strangers from choosing addresses that share a place.
    pub fn new(limits: PeerLimits, seed: u64) -> Peers {
        let places = if limits.per_address_max > 0 {
            2 * PLACES
        } else {
            0
        };
        Peers {
            limits,
            rows: (0..places).map(|_| Count::default()).collect(),
            hashers: [FixedState::with_seed(seed), FixedState::with_seed(!seed)],
        }
    }

    /// How they are counted.
    pub fn limits(&self) -> &PeerLimits {
        &self.limits
    }

    /// Whether anything is counted.
    pub fn counts(&self) -> bool {
        !self.rows.is_empty()
    }

    /// Whether this is a proxy of ours.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.limits
            .trusted
            .iter()
            .any(|network| network.contains(address))
    }

    /// Counts a socket of this address, which has not signed in.
    ///
    /// # Errors
    /// [`TooMany`], and nothing is counted: it has `sockets_max` already, or too many that have not signed in.
    pub fn add(&self, address: IpAddr, sockets_max: u32) -> Result<Counted, TooMany> {
        let counted = Counted {
            places: self.places(address),
            authenticated: false,
        };
        let least = |of: fn(&Count) -> &AtomicU32| {
            let counts = self
                .of(counted)
                .map(|count| of(count).load(Ordering::Relaxed));
            counts.min().unwrap_or(0)
        };
        if least(|count| &count.sockets) >= sockets_max
            || least(|count| &count.unauthenticated) >= self.limits.unauthenticated_max()
        {
            return Err(TooMany);
        }
        for count in self.of(counted) {
            count.sockets.fetch_add(1, Ordering::Relaxed);
            count.unauthenticated.fetch_add(1, Ordering::Relaxed);
        }
        Ok(counted)
    }

    /// Whether the address of this socket has more than it may, this one included.
    pub fn is_crowded(&self, counted: Counted) -> bool {
        let counts = self
            .of(counted)
            .map(|count| count.sockets.load(Ordering::Relaxed));
        counts.min().unwrap_or(0) > self.limits.per_address_max
    }

    /// It has signed in.
    pub fn authenticated(&self, counted: &mut Counted) {
        if !std::mem::replace(&mut counted.authenticated, true) {
            for count in self.of(*counted) {
                count.unauthenticated.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// It is gone.
    pub fn remove(&self, mut counted: Counted) {
        self.authenticated(&mut counted);
        for count in self.of(counted) {
            count.sockets.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn places(&self, address: IpAddr) -> [u16; 2] {
        let key = key(address);
        let place = |row: usize| (self.hashers[row].hash_one(key) as usize % PLACES) as u16 + 1;
        [place(0), place(1)]
    }

    fn of(&self, counted: Counted) -> impl Iterator<Item = &Count> {
        let places = counted.places.into_iter().zip([0, PLACES]);
        places.filter_map(|(place, row)| {
            let place = usize::from(place).checked_sub(1)?;
            self.rows.get(row + place)
        })
    }
}

/// What counts as one address: an IPv4 address, or the 64 bits of an IPv6 network, as one customer has them.
fn key(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64 | 1 << 63,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(per_address_max: u32) -> Peers {
        let trusted = vec![Network::parse("10.0.0.0/8").expect("a network")];
        Peers::new(
            PeerLimits {
                per_address_max,
                trusted,
            },
            7,
        )
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn what_is_added_is_taken_away_once() {
        let peers = peers(1_000);
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        let unauthenticated_max = peers.limits().unauthenticated_max();
        assert_eq!(unauthenticated_max, 250);
        for _ in 0..3 {
            let mut added = Vec::new();
            while let Ok(counted) = peers.add(one, 1_000) {
                added.push(counted);
            }
            assert_eq!(added.len(), 250, "as many as may not have signed in");
            assert!(peers.add(other, 1_000).map(|it| peers.remove(it)).is_ok());
            for counted in &mut added {
                peers.authenticated(counted);
                peers.authenticated(counted);
            }
            for _ in 0..750 {
                let mut counted = peers.add(one, 1_000).expect("a place");
                peers.authenticated(&mut counted);
                added.push(counted);
            }
            assert_eq!(peers.add(one, 1_000).err(), Some(TooMany));
            assert!(!peers.is_crowded(added[0]));
            let above = peers.add(one, 1_001).expect("a place");
            assert!(peers.is_crowded(above));
            peers.remove(above);
            added.into_iter().for_each(|counted| peers.remove(counted));
        }
        let left = peers
            .rows
            .iter()
            .map(|it| it.sockets.load(Ordering::Relaxed));
        assert_eq!(left.sum::<u32>(), 0);
        let left = peers
            .rows
            .iter()
            .map(|it| it.unauthenticated.load(Ordering::Relaxed));
        assert_eq!(left.sum::<u32>(), 0);
    }

    #[test]
    fn a_customer_of_ipv6_is_one_address_and_ipv4_in_ipv6_is_ipv4() {
        assert_eq!(
            key(address("2001:db8:1:2::1")),
            key(address("2001:db8:1:2:ffff::9"))
        );
        assert_ne!(
            key(address("2001:db8:1:2::1")),
            key(address("2001:db8:1:3::1"))
        );
        assert_eq!(key(address("::ffff:192.0.2.1")), key(address("192.0.2.1")));
        assert_ne!(key(address("::c000:201")), key(address("192.0.2.1")));
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let peers = peers(0);
        assert!(!peers.counts());
        assert!(peers.rows.is_empty());
        assert!(peers.trusts(address("10.1.2.3")));
        assert!(!peers.trusts(address("11.1.2.3")));
    }
}
