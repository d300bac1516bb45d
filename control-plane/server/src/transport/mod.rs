//! Who is at the other end of a connection, and how much of the server it may use.
//!
//! One of three ways, chosen at the start: mutual TLS of our own, with certificates of the mesh's authority; behind a
//! sidecar, which states the peer in `x-forwarded-client-cert`; or nothing at all, which has to be asked for by name and
//! works on loopback only.
//!
//! INVARIANT: a request has a `Caller` or it is refused. A [`VerifiedPeer`] comes from a certificate that the mesh's
//! authority issued, never from what a request says about itself.

mod accept;
mod authenticate;
mod client;
mod options;
mod places;
mod quota;
mod reload;
mod roster;
mod socket;
mod spiffe;
mod tls;
mod xfcc;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use tidegate_compiler::WorkloadId;
use tidegate_identity::SpiffeId;

pub(crate) use accept::{Acceptor, Incoming, scattered};
pub(crate) use authenticate::{Authenticate, Caller};
pub(crate) use client::ClientTls;
pub use options::{InvalidTransport, Security, SidecarOptions, TlsOptions, TransportOptions};
pub use quota::QuotaOptions;
pub(crate) use quota::{
    CONNECTION_WINDOW, Exceeded, MAX_MESSAGE, MAX_RECORDS, Quotas, STREAM_WINDOW, STREAMS_PER_CONNECTION,
    StreamPass, Unfinished,
};
pub use reload::CertificateError;
pub(crate) use reload::Certificates;
pub(crate) use roster::Members;
pub use roster::Roster;
pub(crate) use socket::{Arrival, Socket};
pub use xfcc::InvalidXfcc;

/// A workload of the mesh, as its certificate names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VerifiedPeer {
    /// The mesh's, or one of its aliases.
    pub trust_domain: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes service account.
    pub service_account: String,
}

/// What a filter says about where it runs. Only the address is more than its word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeHint {
    /// Name of the pod.
    pub pod_name: String,
    /// Where the connection came from, if no proxy is between.
    pub pod_ip: Option<IpAddr>,
    /// `namespace/name`.
    pub workload: String,
}

/// Tells which workload a verified peer is.
pub trait WhoIs: fmt::Debug + Send + Sync {
    /// The workload whose Bundle this peer may have.
    ///
    /// # Errors
    /// When it is none, or another than it says.
    fn workload(&self, peer: &VerifiedPeer, hint: &NodeHint) -> Result<WorkloadId, Refused>;
}

/// Why a peer gets no Bundle. For the log; the peer itself is told less.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It cannot be said yet.
    #[error("{0}")]
    NotReady(String),
    /// The workload is not the peer's own, or there is none.
    #[error("{0}")]
    NotItsOwn(String),
}

/// Not the SPIFFE id of a workload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{id}` is not a SPIFFE id of the form `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`")]
pub struct InvalidPeer {
    id: String,
}

// === impl VerifiedPeer ===

impl FromStr for VerifiedPeer {
    type Err = InvalidPeer;

    fn from_str(id: &str) -> Result<Self, InvalidPeer> {
        let spiffe = SpiffeId::parse(id.as_bytes()).map_err(|_| {
            let shown = id.chars().filter(|c| !c.is_control()).take(300).collect();
            InvalidPeer { id: shown }
        })?;
        Ok(Self {
            trust_domain: spiffe.trust_domain.to_owned(),
            namespace: spiffe.namespace.to_owned(),
            service_account: spiffe.service_account.to_owned(),
        })
    }
}

impl fmt::Display for VerifiedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

#[cfg(test)]
mod tests;
