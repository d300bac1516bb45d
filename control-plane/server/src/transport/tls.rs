//! TLS that demands a certificate of the mesh's authority.
//!
//! INVARIANT: no session is resumed, because resuming would skip the checks of the certificate; every connection is
//! judged by the authorities and the clock of its own beginning.

use std::io;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    ServerConfig, SignatureScheme,
};

use super::spiffe::{Identity, InvalidIdentity};

/// Certificate, key and authorities, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pem {
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
    pub authorities: Vec<u8>,
}

/// Both servers' configurations.
#[derive(Debug, Clone)]
pub(crate) struct ServerConfigs {
    /// For filters: a certificate is demanded.
    pub(super) grpc: Arc<ServerConfig>,
    /// For people and probes: a certificate may be missing; what is there is checked all the same.
    pub(super) admin: Arc<ServerConfig>,
    /// Who may have issued a peer's certificate.
    pub(super) authorities: Authorities,
    /// When our own certificate ends. Unix seconds.
    pub(super) not_after: i64,
}

/// The mesh's authorities. Equal when they were read from the same bytes.
#[derive(Debug, Clone)]
pub(super) struct Authorities {
    pem: Arc<[u8]>,
    verifier: Arc<dyn ClientCertVerifier>,
}

// === impl ServerConfigs ===

impl ServerConfigs {
    pub(super) fn new(pem: &Pem, trust_domains: &[String]) -> Result<Self, String> {
        let chain = certificates(&pem.certificate).map_err(|why| format!("certificate: {why}"))?;
        let authorities = certificates(&pem.authorities).map_err(|why| format!("authorities: {why}"))?;
        let key = PrivateKeyDer::from_pem_slice(&pem.key).map_err(|error| format!("private key: {error}"))?;
        let leaf = chain.first().ok_or("certificate: there is none")?;
        let not_after = not_after(leaf)?;
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority).map_err(|error| format!("authorities: {error}"))?;
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = |is_demanded: bool, alpn: &[&[u8]]| -> Result<Arc<ServerConfig>, String> {
            let builder = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
            let builder = if is_demanded { builder } else { builder.allow_unauthenticated() };
            let inner = builder.build().map_err(|error| format!("authorities: {error}"))?;
            let verifier = PeerVerifier { inner, trust_domains: trust_domains.to_vec() };
            let mut config = ServerConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()
                .map_err(|error| error.to_string())?
                .with_client_cert_verifier(Arc::new(verifier))
                .with_single_cert(chain.clone(), key.clone_key())
                .map_err(|error| format!("certificate and private key: {error}"))?;
            config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            Ok(Arc::new(config))
        };
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
        let verifier = verifier.build().map_err(|error| format!("authorities: {error}"))?;
        let authorities = Authorities { pem: pem.authorities.as_slice().into(), verifier };
        Ok(Self {
            grpc: config(true, &[b"h2"])?,
            admin: config(false, &[b"http/1.1"])?,
            authorities,
            not_after,
        })
    }
}

// === impl Authorities ===

impl Authorities {
    /// Whether a certificate (the first one) is of one of them, by way of the others.
    pub(super) fn trust(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some((leaf, intermediates)) = chain.split_first() else { return false };
        self.verifier.verify_client_cert(leaf, intermediates, UnixTime::now()).is_ok()
    }
}

impl PartialEq for Authorities {
    fn eq(&self, other: &Self) -> bool {
        self.pem == other.pem
    }
}

pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| format!("not PEM: {error}"))?;
    if all.is_empty() { Err("there is none (`-----BEGIN CERTIFICATE-----`)".to_owned()) } else { Ok(all) }
}

fn not_after(leaf: &CertificateDer<'_>) -> Result<i64, String> {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let (_, parsed) =
        X509Certificate::from_der(leaf).map_err(|error| format!("certificate: cannot be read: {error}"))?;
    Ok(parsed.validity().not_after.timestamp())
}

/// Why a handshake failed, for metrics and for the log.
pub(super) fn why(error: &io::Error) -> (&'static str, String) {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
    let word = match cause {
        Some(Error::NoCertificatesPresented) => "no_certificate",
        Some(Error::InvalidCertificate(invalid)) => match invalid {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "expired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "not_yet_valid",
            CertificateError::UnknownIssuer | CertificateError::BadSignature => "unknown_authority",
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                "wrong_purpose"
            }
            CertificateError::Other(OtherError(inner)) => {
                inner.downcast_ref().map_or("invalid_certificate", InvalidIdentity::word)
            }
            _ => "invalid_certificate",
        },
        Some(Error::AlertReceived(_)) => "refused_by_peer",
        _ => "handshake",
    };
    let why = match cause {
        // Its own words, which rustls would show as data.
        Some(Error::InvalidCertificate(CertificateError::Other(OtherError(inner)))) => inner.to_string(),
        Some(cause) => cause.to_string(),
        None => error.to_string(),
    };
    (word, why)
}

/// The usual checks (chain, time, purpose, possession of the key), then the SPIFFE id.
#[derive(Debug)]
struct PeerVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    trust_domains: Vec<String>,
}

impl ClientCertVerifier for PeerVerifier {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        Identity::read(end_entity, &self.trust_domains)
            .map_err(|invalid| CertificateError::Other(OtherError(Arc::new(invalid))))?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
