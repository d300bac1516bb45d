//! Reads a request: headers, peer, port.
//!
//! What was sent is read once, at the request headers, into [`Received`], so that a request that had to wait, or that is
//! looked at again, is decided on exactly that. What does not change during a connection, and few decisions depend on,
//! is asked for when it is needed.

use std::cell::OnceCell;

use tidegate_engine::body::FieldValue;
use tidegate_engine::model::BodyField;
use tidegate_engine::{Peer, normal};
use tidegate_identity::SpiffeId;

use crate::config::Peers;
use crate::host::Host;

/// The first URI SAN of the client's certificate. Absent without TLS or without a certificate.
const PEER_URI: &[u8] = b"connection\0uri_san_peer_certificate";

/// The SPIFFE id of the client whose tunnel a waypoint ended; Istio sets it from the client certificate that was verified
/// there (istio `pilot/pkg/xds/filters/filters.go`). No header or metadata of a request becomes filter state.
const WAYPOINT_PEER: &[u8] = b"filter_state\0io.istio.peer_principal";

/// The port that accepted the connection, a little-endian `i64`.
const PORT: &[u8] = b"destination\0port";

/// SHA-256 of the client certificate's DER form, as 64 lower-case hexadecimal digits.
const CERTIFICATE_SHA256: &[u8] = b"connection\0sha256_peer_certificate_digest";

/// Bytes of a field of a body beside its values, roughly.
const FIELD_BYTES: usize = 96;

/// What was read of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Received {
    /// Headers in Envoy's serialised form.
    block: Vec<u8>,
    /// The client certificate's URI SAN, where the listener knows mesh peers.
    peer: Option<Vec<u8>>,
    /// What is known of its body.
    body: Content,
    /// What the proxy said, once it was asked.
    port: OnceCell<Option<u16>>,
    /// What the proxy said, once it was asked.
    certificate_sha256: OnceCell<Option<Box<[u8; 32]>>>,
}

/// What is known of a request's body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Content {
    /// Nothing yet.
    #[default]
    Unread,
    /// There is none.
    Empty,
    /// These fields, as far as it was read.
    Fields(Vec<(BodyField, FieldValue)>),
}

/// Why a request could not be decided. It is refused with 503: that is not the caller's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The proxy gave no headers.
    #[error("the proxy gave no request headers")]
    NoHeaders,
    /// The proxy's serialised form could not be parsed.
    #[error("the proxy's request headers are malformed")]
    Malformed,
    /// A header that must not reach the server could not be removed.
    #[error("a header could not be removed or set")]
    NotRemoved,
    /// There is nothing to decide by.
    #[error("there is no Bundle")]
    NotReady,
    /// So many live that this one could not be kept, and so not be ended.
    #[error("too many requests live")]
    TooMany,
    /// The proxy gave no port, and the decision depends on it.
    #[error("the proxy gave no port")]
    NoPort,
}

/// A name and a value.
pub type Header<'r> = (&'r [u8], &'r [u8]);

// === impl Received ===

impl Received {
    /// Asks the proxy for a request. `is_whole`: nothing follows its headers.
    ///
    /// # Errors
    /// When the proxy gives no headers.
    pub fn read(host: &dyn Host, peers: Peers, is_whole: bool) -> Result<Self, Unreadable> {
        let block = host.request_headers().ok_or(Unreadable::NoHeaders)?;
        let peer = match peers {
            Peers::Mesh => host.property(PEER_URI),
            Peers::Waypoint => host.property(WAYPOINT_PEER),
            Peers::None => None,
        };
        let body = if is_whole { Content::Empty } else { Content::Unread };
        Ok(Self { block, peer, body, port: OnceCell::new(), certificate_sha256: OnceCell::new() })
    }

    /// The headers in Envoy's serialised form.
    pub(crate) fn block(&self) -> &[u8] {
        &self.block
    }

    /// The client certificate's URI, where the listener knows mesh peers.
    pub(crate) fn peer_uri(&self) -> Option<&[u8]> {
        self.peer.as_deref()
    }

    /// Whether the proxy was asked about the connection, besides for its peer.
    pub(crate) fn asked_connection(&self) -> bool {
        self.port.get().is_some() || self.certificate_sha256.get().is_some()
    }

    /// What is known of its body.
    pub fn body(&self) -> &Content {
        &self.body
    }

    /// Its body says this, as far as it was read.
    pub fn set_body(&mut self, fields: Vec<(BodyField, FieldValue)>) {
        self.body = Content::Fields(fields);
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

    /// The port that accepted the connection; `None` where the proxy gives none. `host` is asked the first time, and must
    /// answer for this request then.
    pub fn port(&self, host: &dyn Host) -> Option<u16> {
        *self.port.get_or_init(|| {
            let bytes = <[u8; 8]>::try_from(host.property(PORT)?.as_slice()).ok()?;
            u16::try_from(i64::from_le_bytes(bytes)).ok()
        })
    }

    /// The port, if the proxy was asked for it.
    pub fn known_port(&self) -> Option<u16> {
        self.port.get().copied().flatten()
    }

    /// SHA-256 of the client certificate of the TLS connection, whoever has issued it: that its key was used is all that
    /// this says. `host` is asked the first time, and must answer for this request then.
    pub fn certificate_sha256(&self, host: &dyn Host) -> Option<[u8; 32]> {
        self.certificate_sha256
            .get_or_init(|| hex(&host.property(CERTIFICATE_SHA256)?).map(Box::new))
            .as_deref()
            .copied()
    }

    /// About how many bytes are kept of it.
    pub fn bytes(&self) -> usize {
        let body = match &self.body {
            Content::Unread | Content::Empty => 0,
            Content::Fields(fields) => fields.iter().fold(0, |sum: usize, (_, value)| {
                let texts = match value {
                    FieldValue::Texts(texts) => {
                        texts.iter().fold(0, |sum: usize, text| sum.saturating_add(text.len()))
                    }
                    FieldValue::Absent | FieldValue::Unknown => 0,
                };
                sum.saturating_add(texts).saturating_add(FIELD_BYTES)
            }),
        };
        let peer = self.peer.as_ref().map_or(0, Vec::capacity);
        self.block.capacity().saturating_add(peer).saturating_add(body)
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

/// Reads exactly so many bytes as lower-case hexadecimal digits.
pub fn hex<const BYTES: usize>(digits: &[u8]) -> Option<[u8; BYTES]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let bytes = pairs.iter().map(|[high, low]| Some((digit(*high)? << 4) | digit(*low)?));
    bytes.collect::<Option<Vec<_>>>()?.try_into().ok()
}

/// The first value of a header.
pub fn header<'r>(headers: &[Header<'r>], name: &[u8]) -> &'r [u8] {
    headers.iter().find(|(known, _)| *known == name).map_or(&[], |(_, value)| value)
}

/// Parses Envoy's serialised pairs: count, then lengths, then names and values, each followed by a zero byte. Lengths
/// are little-endian `u32`.
pub(crate) fn parse(block: &[u8]) -> Result<Vec<Header<'_>>, Unreadable> {
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
    fn a_digest_is_64_lower_case_hexadecimal_digits_and_nothing_else() {
        let hex = "00ff0123456789abcdef0123456789abcdef0123456789abcdef0123456789ab";
        let bytes: [u8; 32] = super::hex(hex.as_bytes()).unwrap();
        assert_eq!(bytes.map(|byte| format!("{byte:02x}")).concat(), hex);
        let upper = hex.to_uppercase();
        let (wrong, longer) = (hex.replace('0', "g"), format!("{hex}00"));
        let (_, shorter) = hex.split_at(2);
        let (_, odd) = hex.split_at(1);
        for bad in ["", shorter, &longer, odd, &upper, &wrong] {
            assert_eq!(super::hex::<32>(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn the_proxy_is_asked_once_for_the_certificate_and_only_then() {
        let host = crate::host::fake::Fake::with_headers(&[(":path", "/")]);
        let received = Received::read(&host, Peers::Mesh, true).unwrap();
        let asked = || host.asked.borrow().iter().filter(|path| **path == CERTIFICATE_SHA256).count();
        assert_eq!(asked(), 0);
        host.properties.borrow_mut().insert(CERTIFICATE_SHA256.to_vec(), b"ab".repeat(32));
        assert_eq!(received.certificate_sha256(&host), Some([0xAB; 32]));
        host.properties.borrow_mut().clear();
        assert_eq!(received.certificate_sha256(&host), Some([0xAB; 32]));
        assert_eq!(asked(), 1);
        assert_eq!(Received::read(&host, Peers::Mesh, true).unwrap().certificate_sha256(&host), None);
    }

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
