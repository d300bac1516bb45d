//! Reads a request: headers, peer, port.
//!
//! Everything that depends on the proxy is read once, at the request headers, into [`Received`]; deciding needs nothing
//! else, so that a request that had to wait is decided on exactly what was sent.

use tidegate_engine::{Peer, normal};
use tidegate_identity::SpiffeId;

use crate::config::Peers;
use crate::host::Host;

/// The first URI SAN of the client's certificate. Absent without TLS or without a certificate.
const PEER_URI: &[u8] = b"connection\0uri_san_peer_certificate";

/// The port that accepted the connection, a little-endian `i64`.
const PORT: &[u8] = b"destination\0port";

/// What was read of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Received {
    /// Headers in Envoy's serialised form.
    block: Vec<u8>,
    /// The client certificate's URI SAN, where the listener knows mesh peers.
    peer: Option<Vec<u8>>,
    /// The port; `None` where it was not asked for or the proxy gave none.
    pub port: Option<u16>,
}

/// Why a request could not be read. It is refused with 503: that is the proxy's fault, not the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The proxy gave no headers.
    #[error("the proxy gave no request headers")]
    NoHeaders,
    /// The proxy's serialised form could not be parsed.
    #[error("the proxy's request headers are malformed")]
    Malformed,
    /// A header that must not reach the server could not be removed.
    #[error("a header could not be removed")]
    NotRemoved,
    /// The proxy gave no port, and the decision depends on it.
    #[error("the proxy gave no port")]
    NoPort,
}

/// A name and a value.
pub type Header<'r> = (&'r [u8], &'r [u8]);

// === impl Received ===

impl Received {
    /// Asks the proxy for a request.
    ///
    /// # Errors
    /// When the proxy gives no headers.
    pub fn read(host: &dyn Host, peers: Peers, ask_port: bool) -> Result<Self, Unreadable> {
        let block = host.request_headers().ok_or(Unreadable::NoHeaders)?;
        let peer = match peers {
            Peers::Mesh => host.property(PEER_URI),
            Peers::None => None,
        };
        let port = || {
            let bytes = <[u8; 8]>::try_from(host.property(PORT)?.as_slice()).ok()?;
            u16::try_from(i64::from_le_bytes(bytes)).ok()
        };
        let port = if ask_port { port() } else { None };
        Ok(Self { block, peer, port })
    }

    /// The headers, without those that only Tidegate sets: these are removed from the request as well, if `remove_from` is
    /// given, which must be so before anything is decided or held.
    ///
    /// # Errors
    /// When the proxy's form is malformed, or a header cannot be removed.
    pub fn headers(&self, remove_from: Option<&dyn Host>) -> Result<Vec<Header<'_>>, Unreadable> {
        let mut headers = parse(&self.block)?;
        if headers.iter().any(|(name, _)| normal::is_own_header(name)) {
            for (name, _) in headers.extract_if(.., |(name, _)| normal::is_own_header(name)) {
                if remove_from.is_some_and(|host| !host.remove_request_header(name)) {
                    return Err(Unreadable::NotRemoved);
                }
            }
        }
        Ok(headers)
    }

    /// The mesh peer. A certificate without an id of a mesh workload is no peer.
    pub fn peer(&self) -> Peer<'_> {
        match self.peer.as_deref().map(SpiffeId::parse) {
            Some(Ok(SpiffeId { trust_domain, namespace, service_account })) => {
                Peer::Mesh { trust_domain, namespace, service_account }
            }
            _ => Peer::Absent,
        }
    }
}

/// The first value of a header.
pub fn header<'r>(headers: &[Header<'r>], name: &[u8]) -> &'r [u8] {
    headers.iter().find(|(known, _)| *known == name).map_or(&[], |(_, value)| value)
}

/// Parses Envoy's serialised pairs: count, then lengths, then names and values, each followed by a zero byte. Lengths
/// are little-endian `u32`.
fn parse(block: &[u8]) -> Result<Vec<Header<'_>>, Unreadable> {
    let (count, rest) = block.split_first_chunk::<4>().ok_or(Unreadable::Malformed)?;
    let count = usize::try_from(u32::from_le_bytes(*count)).map_err(|_| Unreadable::Malformed)?;
    let (lengths, mut content) =
        count.checked_mul(8).and_then(|size| rest.split_at_checked(size)).ok_or(Unreadable::Malformed)?;
    let (lengths, _) = lengths.as_chunks::<4>();
    let (lengths, _) = lengths.as_chunks::<2>();
    let mut next = |length: [u8; 4]| {
        let length = usize::try_from(u32::from_le_bytes(length)).ok()?;
        let (text, rest) = content.split_at_checked(length)?;
        content = rest.strip_prefix(&[0])?;
        Some(text)
    };
    let mut headers = Vec::with_capacity(lengths.len());
    for [name, value] in lengths {
        let name = next(*name).ok_or(Unreadable::Malformed)?;
        let value = next(*value).ok_or(Unreadable::Malformed)?;
        headers.push((name, value));
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_header_blocks_are_refused() {
        let block = crate::host::fake::block(&[("a", "1"), ("", ""), ("b", "\u{e9}")]);
        let parsed = parse(&block).unwrap();
        assert_eq!(parsed, [(&b"a"[..], &b"1"[..]), (b"", b""), (b"b", "\u{e9}".as_bytes())]);
        for length in 0..block.len() {
            assert_eq!(parse(&block[..length]), Err(Unreadable::Malformed), "cut to {length}");
        }
        let mut lying = block.clone();
        lying[0] = 0xFF;
        lying[3] = 0xFF;
        assert_eq!(parse(&lying), Err(Unreadable::Malformed));
    }
}
