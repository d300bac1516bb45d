//! How the server is reached, and by whom.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::VerifiedPeer;
use super::quota::QuotaOptions;

/// Who may connect, and how much of the server they may use.
#[derive(Debug, Clone)]
pub struct TransportOptions {
    /// How peers prove who they are.
    pub security: Security,
    /// Trust domains of the mesh: its own and its aliases.
    pub trust_domains: Vec<String>,
    /// Who may use the admin interface from elsewhere.
    pub admin_principals: Vec<VerifiedPeer>,
    /// Who may revoke, suspend and roll back by the admin interface.
    pub admin_writers: Vec<VerifiedPeer>,
    /// Where probes and metrics are served besides, in plain text and to anybody.
    pub probes: Option<SocketAddr>,
    /// After this time a filter has to connect anew, with the certificate that it has then.
    pub max_connection_age: Duration,
    /// How often it is asked again whose workload a filter is, while nothing is pushed to it.
    pub identify_every: Duration,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How many may be under way.
    pub max_handshakes: usize,
    /// Open connections to the admin interface, and as many to each port that is for anybody.
    pub max_unproven_connections: usize,
    /// How much one principal may use.
    pub quotas: QuotaOptions,
}

/// How peers prove who they are.
#[derive(Debug, Clone)]
pub enum Security {
    /// Not at all: plain text, and everybody on this machine may have everything. Loopback only.
    Insecure,
    /// By mutual TLS of our own.
    Mutual(TlsOptions),
    /// The sidecar next to us says it.
    Sidecar(SidecarOptions),
}

/// Files in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsOptions {
    /// Our certificate, and those between it and the authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The mesh's certificate authorities.
    pub authorities: PathBuf,
}

/// A sidecar next to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SidecarOptions {
    /// Where its connections come from.
    pub from: Vec<IpAddr>,
    /// A unix socket on which filters are served as well.
    pub socket: Option<PathBuf>,
}

/// Options that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTransport {
    /// Without authentication, and reachable from elsewhere.
    #[error(
        "{purpose} would listen on {address} without asking who calls; without authentication only loopback is possible: \
         use certificates (`--tls-cert`, `--tls-key`, `--tls-ca`) or a sidecar (`--behind-sidecar`), or listen on 127.0.0.1"
    )]
    Exposed {
        /// What listens.
        purpose: &'static str,
        /// Where.
        address: SocketAddr,
    },
    /// A trust domain is missing or is none.
    #[error("`--trust-domain {0}`: use lower-case letters, digits, `.`, `-` and `_`, e.g. `cluster.local`")]
    TrustDomain(String),
    /// Nobody knows whom to believe.
    #[error("no trust domain is given: name the mesh's with `--trust-domain`")]
    NoTrustDomain,
    /// Nobody knows where the sidecar is.
    #[error("no address of the sidecar is given: name it with `--sidecar-address`")]
    NoSidecar,
}

// === impl TransportOptions ===

impl TransportOptions {
    /// With the usual limits, for Istio's usual trust domain.
    pub fn new(security: Security) -> Self {
        Self {
            security,
            trust_domains: vec!["cluster.local".to_owned()],
            admin_principals: Vec::new(),
            admin_writers: Vec::new(),
            probes: None,
            max_connection_age: Duration::from_secs(3_600),
            identify_every: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(10),
            max_handshakes: 256,
            max_unproven_connections: 128,
            quotas: QuotaOptions::default(),
        }
    }

    /// Nobody is asked who they are; on loopback only.
    pub fn insecure() -> Self {
        Self::new(Security::Insecure)
    }

    /// By mutual TLS, for this trust domain.
    pub fn mutual(files: TlsOptions, trust_domain: &str) -> Self {
        Self { trust_domains: vec![trust_domain.to_owned()], ..Self::new(Security::Mutual(files)) }
    }

    /// Checks what can be checked before anything listens.
    pub(crate) fn check(&self, listen: SocketAddr, admin: SocketAddr) -> Result<(), InvalidTransport> {
        if matches!(self.security, Security::Insecure) {
            for (purpose, address) in [("the port for filters", listen), ("the admin interface", admin)] {
                if !address.ip().is_loopback() {
                    return Err(InvalidTransport::Exposed { purpose, address });
                }
            }
            return Ok(());
        }
        if self.trust_domains.is_empty() {
            return Err(InvalidTransport::NoTrustDomain);
        }
        for domain in &self.trust_domains {
            format!("spiffe://{domain}/ns/a/sa/a")
                .parse::<VerifiedPeer>()
                .map_err(|_| InvalidTransport::TrustDomain(domain.clone()))?;
        }
        match &self.security {
            Security::Sidecar(sidecar) if sidecar.from.is_empty() => Err(InvalidTransport::NoSidecar),
            _ => Ok(()),
        }
    }
}

// === impl SidecarOptions ===

impl Default for SidecarOptions {
    /// Istio's inbound source addresses.
    fn default() -> Self {
        Self { from: vec![Ipv4Addr::new(127, 0, 0, 6).into(), Ipv6Addr::from(6).into()], socket: None }
    }
}
