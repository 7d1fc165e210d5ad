//! Where requests of ours may go: to the public internet, and to networks that the operator named.
//!
//! A URL that an operator set may lead into the own network by mistake, or by a name whose owner changed where it
//! leads. So addresses are looked at, not names, and one that is refused makes all of a name's refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Allows addresses, or not.
#[derive(Clone)]
pub struct Guard {
    also: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
}

impl Guard {
    /// Public addresses, and those that are also allowed.
    pub fn new(also: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Guard {
        Guard {
            also: Arc::new(also),
        }
    }

    /// Whether this address may be connected to. An IPv4 address in IPv6 is that address.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let is_public = match address {
            IpAddr::V4(address) => is_public_v4(address),
            IpAddr::V6(address) => is_public_v6(address),
        };
        is_public || (self.also)(address)
    }
}

/// Not of the IANA IPv4 Special-Purpose Address Registry, multicast or reserved.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, _, _)
            // Shared by carriers (CGNAT), RFC 6598.
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            // Of protocols, documentation, and relays of 6to4.
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            // Benchmarks, documentation.
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    )
}

/// Of global unicast (2000::/3), without what is special in it, or leads to IPv4 by itself.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let is_global = a & 0xe000 == 0x2000;
    let is_special = match (a, b) {
        // Protocols (2001::/23: Teredo, ORCHID and others), documentation, 6to4, documentation again.
        (0x2001, 0..=0x01ff | 0x0db8) | (0x2002, _) => true,
        (0x3fff, b) => b < 0x1000,
        _ => false,
    };
    is_global && !is_special
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(guard: &Guard, address: &str) -> bool {
        guard.allows(address.parse().expect("an address"))
    }

    #[test]
    fn only_public_addresses_are_allowed() {
        let guard = Guard::new(|_| false);
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "169.253.1.1",
            "192.0.1.1",
            "192.167.1.1",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "11.0.0.1",
            "2606:4700:4700::1111",
            "2a00:1450::1",
            "2001:4860::1",
            "::ffff:8.8.8.8",
            "2001:200::1",
        ] {
            assert!(allows(&guard, address), "{address}");
        }
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:10::1",
            "2001:1ff::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff:fff::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "5f00::1",
        ] {
            assert!(!allows(&guard, address), "{address}");
        }
    }

    #[test]
    fn what_the_operator_names_is_allowed_too() {
        let own: IpAddr = "10.1.2.3".parse().expect("an address");
        let guard = Guard::new(move |address| address == own);
        assert!(allows(&guard, "10.1.2.3") && allows(&guard, "::ffff:10.1.2.3"));
        assert!(!allows(&guard, "10.1.2.4"));
    }
}
