//! Which addresses keys may be fetched from.
//!
//! The addresses that a name resolves to are judged, and exactly those are connected to, so that a name cannot answer
//! one thing when it is judged and another when it is used.
//!
//! INVARIANT: only globally routable addresses, and those of private networks that were allowed explicitly. Link-local
//! addresses and those of metadata services are never among them, whatever was allowed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Host;

mod network;

pub use network::{InvalidNetwork, Network};

/// Judges addresses, and resolves names to those that pass.
#[derive(Debug, Clone, Default)]
pub struct AddressGuard {
    allow_loopback: bool,
    networks: Arc<[Network]>,
}

/// No address of a host may be connected to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("host `{host}` has no address that keys may be fetched from: {why}")]
pub struct AddressRefused {
    host: String,
    why: String,
}

/// What an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Global,
    Loopback,
    /// Of a private network: RFC 1918, RFC 6598, RFC 4193.
    Private,
    /// Link-local, or of a cloud's metadata service.
    Metadata,
    /// Unassigned, reserved, multicast, documentation.
    Special,
}

// === impl AddressGuard ===

impl AddressGuard {
    /// Lets global addresses pass, those of `networks`, and, for issuers on the same machine, those of loopback.
    pub fn new(allow_loopback: bool, networks: impl IntoIterator<Item = Network>) -> Self {
        Self { allow_loopback, networks: networks.into_iter().collect() }
    }

    /// Refuses a URL whose host is an address that may not be connected to. Names are judged when they are resolved.
    pub fn check_literal(&self, host: &Host<&str>) -> Result<(), AddressRefused> {
        let address = match host {
            Host::Domain(_) => return Ok(()),
            Host::Ipv4(address) => IpAddr::V4(*address),
            Host::Ipv6(address) => IpAddr::V6(*address),
        };
        if self.allows(address) {
            return Ok(());
        }
        Err(AddressRefused::new(&address.to_string(), &[address]))
    }

    /// Whether this address may be connected to.
    pub fn allows(&self, address: IpAddr) -> bool {
        let effective = effective(address);
        match class(effective) {
            Class::Global => true,
            Class::Loopback => self.allow_loopback,
            Class::Private => self.networks.iter().any(|network| network.contains(effective)),
            Class::Metadata | Class::Special => false,
        }
    }
}

impl Resolve for AddressGuard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let host = name.as_str();
            let resolved: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            let (allowed, refused): (Vec<_>, Vec<_>) =
                resolved.into_iter().partition(|address| guard.allows(address.ip()));
            if allowed.is_empty() {
                let refused: Vec<IpAddr> = refused.iter().map(SocketAddr::ip).collect();
                return Err(AddressRefused::new(host, &refused).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

// === impl AddressRefused ===

impl AddressRefused {
    /// Says of every address why it is refused, and what would let it in.
    fn new(host: &str, addresses: &[IpAddr]) -> Self {
        if addresses.is_empty() {
            return Self { host: host.to_owned(), why: "the name resolves to no address".to_owned() };
        }
        let told = addresses.iter().map(|address| {
            let why = match class(effective(*address)) {
                Class::Loopback => "is loopback; `--allow-issuer-loopback` lets it in".to_owned(),
                Class::Private => {
                    format!("is private; `--allow-issuer-network {}` lets it in", Network::around(*address))
                }
                Class::Metadata => "is link-local or of a metadata service, which is never asked".to_owned(),
                Class::Global | Class::Special => "is a special address, which is never asked".to_owned(),
            };
            format!("{address} {why}")
        });
        Self { host: host.to_owned(), why: told.collect::<Vec<_>>().join(", ") }
    }
}

/// The address that traffic to this one ends at.
fn effective(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) if !v6.is_loopback() => embedded(v6).map_or(address, IpAddr::V4),
        _ => address,
    }
}

fn class(address: IpAddr) -> Class {
    match address {
        IpAddr::V4(address) => class_v4(address),
        IpAddr::V6(address) => class_v6(address),
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

/// IANA IPv4 Special-Purpose Address Registry.
fn class_v4(address: Ipv4Addr) -> Class {
    let [a, b, c, _] = address.octets();
    // Metadata services outside 169.254.0.0/16: Azure's wire server, Alibaba Cloud, Oracle Cloud.
    const METADATA: [Ipv4Addr; 3] =
        [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];
    if address.is_link_local() || METADATA.contains(&address) {
        Class::Metadata
    } else if address.is_loopback() {
        Class::Loopback
    } else if address.is_private() || (a == 100 && b & 0xc0 == 64) {
        // 100.64.0.0/10 is for carriers (RFC 6598); clouds and meshes of tunnels use it as a private network.
        Class::Private
    } else if a == 0
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && b & 0xfe == 18)
        || address.is_documentation()
        || address.is_multicast()
        // 240.0.0.0/4 reserved, broadcast included.
        || a >= 240
    {
        Class::Special
    } else {
        Class::Global
    }
}

/// Only 2000::/3 is assigned as global unicast; in it some ranges are special.
fn class_v6(address: Ipv6Addr) -> Class {
    let [first, second, ..] = address.segments();
    // Metadata services in unique local addresses: AWS (also its credentials of pods, time and names), Google Cloud,
    // Oracle Cloud, Scaleway.
    const METADATA: [(u16, u16); 4] = [(0xfd00, 0xec2), (0xfd20, 0xce), (0xfd00, 0xc1), (0xfd00, 0x42)];
    if address.is_loopback() {
        Class::Loopback
    } else if first & 0xffc0 == 0xfe80 || METADATA.contains(&(first, second)) {
        Class::Metadata
    } else if first & 0xfe00 == 0xfc00 {
        Class::Private
    } else if first & 0xe000 == 0x2000
        // 2001::/23 protocol assignments (Teredo, ORCHID, …), 2001:db8::/32 and 3fff::/20 documentation.
        && !(first == 0x2001 && (second < 0x200 || second == 0xdb8))
        && !(first == 0x3fff && second < 0x1000)
    {
        Class::Global
    } else {
        Class::Special
    }
}

#[cfg(test)]
mod tests;
