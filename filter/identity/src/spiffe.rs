//! SPIFFE ids of mesh workloads: exactly `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`.
//!
//! Stricter than the SPIFFE-ID standard where Istio never makes such an id: exactly these four path segments, names
//! as Kubernetes allows them. Nothing is decoded, folded or normalised, so that an id has one spelling.

use core::fmt;

/// The identity in a peer's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpiffeId<'a> {
    /// The trust domain.
    pub trust_domain: &'a str,
    /// The Kubernetes namespace.
    pub namespace: &'a str,
    /// The Kubernetes service account.
    pub service_account: &'a str,
}

/// Not the id of a mesh workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a SPIFFE id of the form `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`")]
pub struct InvalidSpiffeId;

// === impl SpiffeId ===

impl<'a> SpiffeId<'a> {
    /// Reads an id.
    ///
    /// # Errors
    ///
    /// For every other text, percent-encoded and upper-case spellings included.
    pub fn parse(id: &'a [u8]) -> Result<Self, InvalidSpiffeId> {
        let id = str::from_utf8(id).map_err(|_| InvalidSpiffeId)?;
        let rest = id.strip_prefix("spiffe://").ok_or(InvalidSpiffeId)?;
        let mut parts = rest.split('/');
        let mut next = || parts.next().ok_or(InvalidSpiffeId);
        let (trust_domain, ns, namespace, sa, service_account) =
            (next()?, next()?, next()?, next()?, next()?);
        let exact = parts.next().is_none() && ns == "ns" && sa == "sa";
        if exact && is_trust_domain(trust_domain) && is_label(namespace) && is_subdomain(service_account) {
            Ok(Self { trust_domain, namespace, service_account })
        } else {
            Err(InvalidSpiffeId)
        }
    }
}

impl fmt::Display for SpiffeId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

/// SPIFFE-ID §2.1: lower-case letters, digits, dots, dashes and underscores; at most 255 bytes.
fn is_trust_domain(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_'))
}

/// A DNS label (RFC 1123), as namespaces are.
fn is_label(name: &str) -> bool {
    name.len() <= 63 && is_alphanumeric_with_dashes(name)
}

/// A DNS subdomain (RFC 1123), as service accounts are. Kubernetes bounds the whole, not each label.
fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_alphanumeric_with_dashes)
}

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?`
fn is_alphanumeric_with_dashes(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !name.is_empty() && !name.starts_with('-') && !name.ends_with('-') && name.bytes().all(inner)
}

#[cfg(test)]
mod tests {
    use super::SpiffeId;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn reads_ids_of_mesh_workloads() {
        for (id, parts) in [
            ("spiffe://prod.example/ns/etl/sa/orders-worker", ("prod.example", "etl", "orders-worker")),
            ("spiffe://cluster.local/ns/a/sa/b", ("cluster.local", "a", "b")),
            ("spiffe://td_1-x/ns/0/sa/v1.robot", ("td_1-x", "0", "v1.robot")),
        ] {
            let parsed = SpiffeId::parse(id.as_bytes()).unwrap();
            assert_eq!((parsed.trust_domain, parsed.namespace, parsed.service_account), parts);
            assert_eq!(parsed.to_string(), id);
        }
    }

    #[test]
    fn refuses_everything_else() {
        let long = format!("spiffe://td/ns/{}/sa/b", "a".repeat(64));
        for id in [
            "",
            "spiffe://",
            "spiffe:///ns/a/sa/b",
            "spiffe://td",
            "spiffe://td/ns/a/sa",
            "spiffe://td/ns/a/sa/",
            "spiffe://td/ns//sa/b",
            "spiffe://td/ns/a/sa/b/",
            "spiffe://td/ns/a/sa/b/c",
            "spiffe://td//ns/a/sa/b",
            "spiffe://td/sa/b/ns/a",
            "spiffe://td/ns/a/sb/b",
            "spiffe://td/NS/a/sa/b",
            "SPIFFE://td/ns/a/sa/b",
            "spiffe://TD/ns/a/sa/b",
            "spiffe://td:443/ns/a/sa/b",
            "spiffe://user@td/ns/a/sa/b",
            "spiffe://td/ns/A/sa/b",
            "spiffe://td/ns/../sa/b",
            "spiffe://td/ns/a/sa/..",
            "spiffe://td/ns/a%2Fb/sa/b",
            "spiffe://td/ns/a/sa/b?x",
            "spiffe://td/ns/a/sa/b#x",
            "spiffe://td/ns/a/sa/b,spiffe://td/ns/a/sa/c",
            "spiffe://td/ns/-a/sa/b",
            "spiffe://td/ns/a/sa/b-",
            "spiffe://td/ns/a.b/sa/b",
            " spiffe://td/ns/a/sa/b",
            "spiffe://td/ns/a/sa/b\n",
            "spiffe://td/ns/a/sa/b\0",
            "spiffe://t\u{e4}/ns/a/sa/b",
            "https://td/ns/a/sa/b",
            &long,
        ] {
            assert!(SpiffeId::parse(id.as_bytes()).is_err(), "{id:?}");
        }
        assert!(SpiffeId::parse(b"spiffe://td/ns/a/sa/\xff").is_err());
    }
}
