//! The identity in a certificate.
//!
//! Called for certificates whose chain and signature already hold. SPIFFE X.509-SVID, and stricter: exactly one URI
//! name, which names a workload of a trust domain that we know. Names of other kinds are not looked at, the subject
//! neither: there is nothing to fall back to.

use std::time::Duration;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::VerifiedPeer;

/// Whose certificate it is, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub peer: VerifiedPeer,
    /// Since 1970.
    pub not_after: Duration,
}

/// A certificate of the right authority that names no workload of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidIdentity {
    #[error("the certificate cannot be read")]
    Malformed,
    #[error("the certificate has {0} URI names; a workload's has exactly one")]
    UriCount(usize),
    #[error("the certificate's URI name is no SPIFFE id of a workload")]
    NotSpiffe,
    #[error("the certificate is for trust domain `{0}`")]
    OtherTrustDomain(String),
    #[error("the certificate may sign others")]
    Authority,
}

// === impl Identity ===

impl Identity {
    /// Reads the leaf certificate (DER).
    pub(super) fn read(leaf: &[u8], trust_domains: &[String]) -> Result<Self, InvalidIdentity> {
        let (rest, certificate) = X509Certificate::from_der(leaf).map_err(|_| InvalidIdentity::Malformed)?;
        if !rest.is_empty() {
            return Err(InvalidIdentity::Malformed);
        }
        let usage = certificate.key_usage().map_err(|_| InvalidIdentity::Malformed)?;
        // X.509-SVID 4.3: "Leaf SVIDs MUST NOT set keyCertSign or cRLSign".
        if certificate.is_ca()
            || usage.is_some_and(|usage| usage.value.key_cert_sign() || usage.value.crl_sign())
        {
            return Err(InvalidIdentity::Authority);
        }
        // An error: the extension is there twice.
        let names = certificate.subject_alternative_name().map_err(|_| InvalidIdentity::Malformed)?;
        let mut uris = Vec::new();
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::URI(uri) => uris.push(*uri),
                GeneralName::Invalid(..) => return Err(InvalidIdentity::Malformed),
                _ => {}
            }
        }
        let [uri] = uris.as_slice() else { return Err(InvalidIdentity::UriCount(uris.len())) };
        let peer: VerifiedPeer = uri.parse().map_err(|_| InvalidIdentity::NotSpiffe)?;
        if !trust_domains.contains(&peer.trust_domain) {
            return Err(InvalidIdentity::OtherTrustDomain(peer.trust_domain));
        }
        let not_after = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
        Ok(Self { peer, not_after: Duration::from_secs(not_after) })
    }
}

impl InvalidIdentity {
    /// For metrics.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Malformed => "malformed_certificate",
            Self::UriCount(_) | Self::NotSpiffe => "not_spiffe",
            Self::OtherTrustDomain(_) => "other_trust_domain",
            Self::Authority => "authority_certificate",
        }
    }
}
