//! Private networks that keys may be fetched from.
//!
//! INVARIANT: a [`Network`] lies within one private range. What is not private needs no permission, and what is neither
//! private nor global can have none.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A private network in CIDR notation (RFC 4632, RFC 4291 §2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why something is not a network that can be allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNetwork {
    /// Not in CIDR notation.
    #[error("not a network in CIDR notation, such as `10.20.0.0/16` or `fd12:3456::/32`")]
    Notation,
    /// More bits than the address has.
    #[error("the prefix has at most {most} bits")]
    Prefix {
        /// How many it may have.
        most: u8,
    },
    /// Bits after the prefix.
    #[error("has bits after the prefix; did you mean `{meant}`?")]
    HostBits {
        /// The network that the address is in.
        meant: Network,
    },
    /// Not within a private range.
    #[error(
        "is not within a private network ({}); global addresses need no permission, and link-local, metadata and other \
         special addresses get none",
        RANGES.map(|range| range.to_string()).join(", ")
    )]
    NotPrivate,
}

/// RFC 1918, RFC 6598 and RFC 4193.
const RANGES: [Network; 5] = [
    Network { address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), prefix: 8 },
    Network { address: IpAddr::V4(Ipv4Addr::new(172, 16, 0, 0)), prefix: 12 },
    Network { address: IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), prefix: 16 },
    Network { address: IpAddr::V4(Ipv4Addr::new(100, 64, 0, 0)), prefix: 10 },
    Network { address: IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), prefix: 7 },
];

// === impl Network ===

impl Network {
    /// Whether the address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        masked(address, self.prefix) == Some(self.address)
    }

    /// The network that somebody who wants to let in this private address probably means: 256 addresses, or one IPv6
    /// subnet.
    pub(super) fn around(address: IpAddr) -> Self {
        let prefix = if address.is_ipv4() { 24 } else { 64 };
        Self { address: masked(address, prefix).unwrap_or(address), prefix }
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let (address, prefix) = text.split_once('/').ok_or(InvalidNetwork::Notation)?;
        let address: IpAddr = address.parse().map_err(|_| InvalidNetwork::Notation)?;
        let prefix: u8 = prefix.parse().map_err(|_| InvalidNetwork::Notation)?;
        let most = bits(address);
        let network = masked(address, prefix).ok_or(InvalidNetwork::Prefix { most })?;
        if network != address {
            return Err(InvalidNetwork::HostBits { meant: Self { address: network, prefix } });
        }
        let is_within = |range: &Self| range.prefix <= prefix && range.contains(address);
        if !RANGES.iter().any(is_within) {
            return Err(InvalidNetwork::NotPrivate);
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with every bit after the prefix cleared; `None` when it has fewer bits than the prefix.
fn masked(address: IpAddr, prefix: u8) -> Option<IpAddr> {
    let rest = u32::from(bits(address).checked_sub(prefix)?);
    Some(match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(rest).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(rest).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Network, InvalidNetwork> {
        text.parse()
    }

    #[test]
    fn a_network_contains_its_addresses_and_no_others() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("10.20.0.0/16", "10.20.255.1", "10.21.0.0"),
            ("192.168.7.9/32", "192.168.7.9", "192.168.7.8"),
            ("100.64.0.0/10", "100.127.255.255", "100.128.0.0"),
            ("fd12:3456::/32", "fd12:3456:ffff::1", "fd12:3457::1"),
            ("fc00::/7", "fdff::1", "10.0.0.1"),
        ] {
            let network = parse(network).unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{network} {inside}");
            assert!(!network.contains(outside.parse().unwrap()), "{network} {outside}");
        }
    }

    #[test]
    fn what_is_not_private_cannot_be_allowed() {
        for text in [
            "0.0.0.0/0",
            "10.0.0.0/7",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "169.254.169.254/32",
            "168.63.129.16/32",
            "8.8.8.0/24",
            "224.0.0.0/4",
            "::/0",
            "::1/128",
            "fe80::/10",
            "f800::/5",
            "::ffff:10.0.0.0/104",
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                matches!(error, InvalidNetwork::NotPrivate | InvalidNetwork::HostBits { .. }),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn notation_is_strict_and_says_what_is_meant() {
        for text in ["", "10.0.0.0", "10.0.0.0/", "/8", "10.0.0/8", "10.0.0.0/-1", "10.0.0.0/8 ", "ten/8"] {
            assert_eq!(parse(text).unwrap_err(), InvalidNetwork::Notation, "{text}");
        }
        assert_eq!(parse("10.0.0.0/33").unwrap_err(), InvalidNetwork::Prefix { most: 32 });
        assert_eq!(parse("fd00::/129").unwrap_err(), InvalidNetwork::Prefix { most: 128 });
        let error = parse("10.20.30.40/16").unwrap_err().to_string();
        assert!(error.contains("did you mean `10.20.0.0/16`"), "{error}");
    }
}
