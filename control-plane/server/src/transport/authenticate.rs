//! Who sends a request.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use tonic::service::Interceptor;
use tonic::{Request, Status};
use tracing::info;

use super::options::{Security, TransportOptions};
use super::socket::Arrival;
use super::xfcc;
use super::{InvalidXfcc, VerifiedPeer};
use crate::metrics::ReasonLabel;
use crate::push::Hub;

const XFCC: &str = "x-forwarded-client-cert";

/// Who sends a request.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// Nobody was asked: everything is on this machine, and it was asked for so.
    Unasked,
    /// A workload of the mesh.
    Peer {
        peer: Arc<VerifiedPeer>,
        /// The peer's address, where nothing is between.
        address: Option<IpAddr>,
    },
}

/// Why it is not known who sends a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("no client certificate was presented")]
    NoCertificate,
    #[error("the connection does not come from the sidecar, so nothing says who is calling")]
    NotFromSidecar,
    #[error("{0}")]
    Xfcc(#[from] InvalidXfcc),
    #[error("the caller is of trust domain `{0}`")]
    OtherTrustDomain(String),
}

/// Puts a [`Caller`], and a [`VerifiedPeer`] where there is one, into every gRPC request.
#[derive(Clone)]
pub(crate) struct Authenticate {
    hub: Arc<Hub>,
    options: Arc<TransportOptions>,
}

// === impl Caller ===

impl Caller {
    /// Judges a request by its connection and its headers.
    pub(crate) fn of(
        options: &TransportOptions,
        arrival: &Arrival,
        headers: &HeaderMap,
    ) -> Result<Self, Refusal> {
        match &options.security {
            Security::Insecure => Ok(Self::Unasked),
            Security::Mutual(_) => {
                let peer = arrival.peer.clone().ok_or(Refusal::NoCertificate)?;
                Ok(Self::Peer { peer, address: arrival.remote })
            }
            Security::Sidecar(sidecar) => {
                let is_sidecar = arrival
                    .remote
                    .is_none_or(|remote| sidecar.from.iter().any(|from| from.to_canonical() == remote));
                if !is_sidecar {
                    return Err(Refusal::NotFromSidecar);
                }
                let peer = xfcc::peer(headers.get_all(XFCC).iter().map(|value| value.as_bytes()))?;
                if !options.trust_domains.contains(&peer.trust_domain) {
                    return Err(Refusal::OtherTrustDomain(peer.trust_domain));
                }
                Ok(Self::Peer { peer: Arc::new(peer), address: None })
            }
        }
    }
}

// === impl Refusal ===

impl Refusal {
    /// For metrics.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::NotFromSidecar => "not_from_sidecar",
            Self::Xfcc(InvalidXfcc::Missing) => "no_xfcc",
            Self::Xfcc(_) => "invalid_xfcc",
            Self::OtherTrustDomain(_) => "other_trust_domain",
        }
    }
}

// === impl Authenticate ===

impl Authenticate {
    pub(crate) fn new(hub: Arc<Hub>, options: Arc<TransportOptions>) -> Self {
        Self { hub, options }
    }
}

impl Interceptor for Authenticate {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let arrival = request
            .extensions()
            .get::<Arrival>()
            .cloned()
            .ok_or_else(|| Status::internal("nothing is known of the connection"))?;
        let headers = request.metadata().clone().into_headers();
        match Caller::of(&self.options, &arrival, &headers) {
            Ok(caller) => {
                if let Caller::Peer { peer, .. } = &caller {
                    request.extensions_mut().insert(VerifiedPeer::clone(peer));
                }
                request.extensions_mut().insert(caller);
                Ok(request)
            }
            Err(refusal) => {
                let reason = refusal.word();
                self.hub.metrics.refused_streams.get_or_create(&ReasonLabel::new(reason)).inc();
                info!(reason, "request refused: {refusal}");
                Err(Status::unauthenticated(refusal.to_string()))
            }
        }
    }
}
