//! rustls configurations from PEM, for the loopback servers and clients of the demo.
//!
//! INVARIANT: a client configuration always checks the server's certificate chain against the authority that it was
//! given; there is no way to skip that.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
};

use super::pki::Credential;

/// A TLS configuration cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up TLS with {what}: {reason}")]
pub struct TlsError {
    what: &'static str,
    reason: String,
}

/// What a client demands of the server's certificate, besides that the authority issued it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerCheck {
    /// It is for the name or address that was called.
    Name,
    /// Nothing: certificates of workloads carry a SPIFFE id and no host name.
    AuthorityOnly,
}

/// For a server that anyone may call. Offers HTTP/2 and HTTP/1.1.
pub(crate) fn server(credential: &Credential) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(failed("the protocol versions"))?
        .with_no_client_auth()
        .with_single_cert(chain(credential)?, key(credential)?)
        .map_err(failed("the server's certificate"))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// For a client that trusts `authority` and offers one protocol.
pub(crate) fn client(
    authority: &str,
    check: ServerCheck,
    credential: Option<&Credential>,
    alpn: &[u8],
) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate.map_err(failed("the authority"))?).map_err(failed("the authority"))?;
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(failed("the authority"))?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(failed("the protocol versions"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { inner: verifier, check }));
    let mut config = match credential {
        None => builder.with_no_client_auth(),
        Some(credential) => builder
            .with_client_auth_cert(chain(credential)?, key(credential)?)
            .map_err(failed("the client's certificate"))?,
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn chain(credential: &Credential) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(credential.chain_pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(failed("a certificate"))
}

fn key(credential: &Credential) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(credential.key_pem.as_bytes()).map_err(failed("a private key"))
}

fn failed<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> TlsError {
    move |reason| TlsError { what, reason: reason.to_string() }
}

/// The usual verifier, whose last step, the name, may be left out.
#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    check: ServerCheck,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verdict =
            self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verdict {
            // The name is compared after everything else has held.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.check == ServerCheck::AuthorityOnly => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
