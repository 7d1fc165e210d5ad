//! Networks of addresses, and the address of a client that comes by way of proxies.

use std::net::IpAddr;

/// A network, as `address/prefix`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Reads `10.0.0.0/8`, `fd00::/8`, or a single address. `None` if it is neither.
    pub fn parse(text: &str) -> Option<Network> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let address = address.parse::<IpAddr>().ok()?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(bits);
        (prefix <= bits).then_some(Network { address, prefix })
    }

    /// Whether it is of this machine only.
    pub fn is_loopback(&self) -> bool {
        self.address.is_loopback() && (self.prefix >= 8)
    }

    /// Whether the address is one of its. An IPv4 address in IPv6 is an IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differ = own.to_bits() ^ other.to_bits();
                u32::from(self.prefix) <= differ.leading_zeros()
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differ = own.to_bits() ^ other.to_bits();
                u32::from(self.prefix) <= differ.leading_zeros()
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// Who the client is behind trusted proxies: of all `X-Forwarded-For` lines, in their order, the
/// right-most address that is not itself trusted. What stands left of it anybody may have written. `None` if
/// all are trusted, or the right-most untrusted entry is no address.
pub fn forwarded_for<'a>(
    lines: impl DoubleEndedIterator<Item = &'a str>,
    trusted: &[Network],
) -> Option<IpAddr> {
    let entries = lines.rev().flat_map(|line| line.rsplit(','));
    for entry in entries.map(str::trim).filter(|entry| !entry.is_empty()) {
        let address = address_in(entry)?;
        if !trusted.iter().any(|network| network.contains(address)) {
            return Some(address);
        }
    }
    None
}

/// An address, with a port or without.
fn address_in(entry: &str) -> Option<IpAddr> {
    let bare = entry.parse::<IpAddr>().ok();
    let with_port = || Some(entry.parse::<std::net::SocketAddr>().ok()?.ip());
    let bracketed = || entry.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    Some(bare.or_else(with_port).or_else(bracketed)?.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        Network::parse(text).expect("a network")
    }

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        for (text, address, held) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::1", "::1", true),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(network(text).contains(address), held, "{text} {address}");
        }
        for nonsense in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "x", "10.0.0.0/-1"] {
            assert_eq!(Network::parse(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn the_client_is_the_right_most_address_that_is_not_trusted() {
        let trusted = [network("10.0.0.0/8"), network("::1")];
        let client = |lines: &[&str]| {
            forwarded_for(lines.iter().copied(), &trusted).map(|address| address.to_string())
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(client(&["203.0.113.9"]), some("203.0.113.9"));
        // Whatever a client writes itself stands on the left.
        assert_eq!(
            client(&["1.2.3.4, 203.0.113.9, 10.0.0.1"]),
            some("203.0.113.9")
        );
        assert_eq!(
            client(&["1.2.3.4", "203.0.113.9,10.0.0.1,"]),
            some("203.0.113.9")
        );
        assert_eq!(client(&["203.0.113.9:4711, [::1]:80"]), some("203.0.113.9"));
        assert_eq!(client(&["::ffff:203.0.113.9"]), some("203.0.113.9"));
        assert_eq!(client(&["[2001:db8::1]"]), some("2001:db8::1"));
        assert_eq!(client(&["10.0.0.1, ::1"]), None);
        assert_eq!(client(&["203.0.113.9, unknown"]), None);
        assert_eq!(client(&[]), None);
    }
}
