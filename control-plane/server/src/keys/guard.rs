//! Which addresses keys may be fetched from.
//!
//! The addresses that a name resolves to are judged, and exactly those are connected to, so that a name cannot answer
//! one thing when it is judged and another when it is used.
//!
//! INVARIANT: only globally routable addresses, unless loopback was allowed explicitly.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Host;

/// Judges addresses, and resolves names to those that pass.
#[derive(Debug, Clone, Copy, Default)]
pub struct AddressGuard {
    /// Lets loopback addresses pass, for issuers on the same machine in tests and demonstrations.
    pub allow_loopback: bool,
}

/// No address of a host may be connected to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "host `{host}` has no address that keys may be fetched from ({addresses}): loopback, private, link-local and other \
     special addresses are refused"
)]
pub struct AddressRefused {
    host: String,
    addresses: String,
}

// === impl AddressGuard ===

impl AddressGuard {
    /// Refuses a URL whose host is an address that may not be connected to. Names are judged when they are resolved.
    pub fn check_literal(self, host: &Host<&str>) -> Result<(), AddressRefused> {
        let address = match host {
            Host::Domain(_) => return Ok(()),
            Host::Ipv4(address) => IpAddr::V4(*address),
            Host::Ipv6(address) => IpAddr::V6(*address),
        };
        if self.allows(address) {
            return Ok(());
        }
        Err(AddressRefused { host: address.to_string(), addresses: address.to_string() })
    }

    /// Whether this address may be connected to.
    pub fn allows(self, address: IpAddr) -> bool {
        let address = match address {
            IpAddr::V4(address) => address,
            IpAddr::V6(address) if address.is_loopback() => return self.allow_loopback,
            IpAddr::V6(address) => match embedded(address) {
                Some(embedded) => embedded,
                None => return is_global_v6(address),
            },
        };
        if address.is_loopback() { self.allow_loopback } else { is_global_v4(address) }
    }
}

impl Resolve for AddressGuard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = *self;
        Box::pin(async move {
            let host = name.as_str();
            let resolved: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            let (allowed, refused): (Vec<_>, Vec<_>) =
                resolved.into_iter().partition(|address| guard.allows(address.ip()));
            if allowed.is_empty() {
                let addresses: Vec<String> = refused.iter().map(|address| address.ip().to_string()).collect();
                let refused = AddressRefused { host: host.to_owned(), addresses: addresses.join(", ") };
                return Err(refused.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// The IPv4 address that traffic to this IPv6 address may end at.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = address.octets();
    let v4 = |at: usize| match octets.get(at..at + 4) {
        Some(&[a, b, c, d]) => Some(Ipv4Addr::new(a, b, c, d)),
        _ => None,
    };
    match address.segments() {
        // ::ffff:0:0/96 mapped, ::/96 compatible, ::ffff:0:0:0/96 translated (RFC 4291, RFC 2765).
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => v4(12),
        // 64:ff9b::/96 NAT64 (RFC 6052); 64:ff9b:1::/48 is local use and refused below.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => v4(12),
        // 2002::/16 6to4 (RFC 3056).
        [0x2002, ..] => v4(2),
        _ => None,
    }
}

/// IANA IPv4 Special-Purpose Address Registry: what is not globally reachable.
fn is_global_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0
        || address.is_private()
        || address.is_loopback()
        // 169.254.0.0/16, cloud metadata services included.
        || address.is_link_local()
        // 100.64.0.0/10 carrier-grade NAT; some clouds' metadata services too.
        || (a == 100 && b & 0xc0 == 64)
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && b & 0xfe == 18)
        || address.is_documentation()
        || address.is_multicast()
        // 240.0.0.0/4 reserved, broadcast included.
        || a >= 240
        // Azure's wire server, the one metadata address outside the special ranges.
        || address == Ipv4Addr::new(168, 63, 129, 16))
}

/// Only 2000::/3 is assigned as global unicast; in it some ranges are special.
fn is_global_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    first & 0xe000 == 0x2000
        // 2001::/23 protocol assignments (Teredo, ORCHID, …), 2001:db8::/32 and 3fff::/20 documentation.
        && !(first == 0x2001 && second < 0x200)
        && !(first == 0x2001 && second == 0xdb8)
        && !(first == 0x3fff && second < 0x1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOSED: AddressGuard = AddressGuard { allow_loopback: false };
    const LOOPBACK: AddressGuard = AddressGuard { allow_loopback: true };

    #[test]
    fn special_addresses_are_refused_in_every_spelling() {
        for address in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:0:a9fe:a9fe",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:a9fe:a9fe::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
        ] {
            assert!(!CLOSED.allows(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn public_addresses_pass() {
        for address in [
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "198.17.0.1",
            "198.20.0.1",
            "168.63.129.15",
            "2001:4860:4860::8888",
            "2606:4700::1111",
            "64:ff9b::808:808",
        ] {
            assert!(CLOSED.allows(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn allowing_loopback_allows_nothing_else() {
        for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(LOOPBACK.allows(address.parse().unwrap()), "{address}");
        }
        for address in ["10.0.0.1", "169.254.169.254", "fe80::1", "0.0.0.0", "::"] {
            assert!(!LOOPBACK.allows(address.parse().unwrap()), "{address}");
        }
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_loopback_only_is_refused() {
        let resolve = |guard: AddressGuard| guard.resolve("localhost".parse().unwrap());
        let error = resolve(CLOSED).await.err().unwrap().to_string();
        assert!(error.contains("`localhost`") && error.contains("loopback"), "{error}");
        assert!(resolve(LOOPBACK).await.unwrap().all(|address| address.ip().is_loopback()));
    }
}
