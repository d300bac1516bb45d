//! TLS of a program that calls the admin interface.
//!
//! INVARIANT: the server's certificate is of an authority that was given, and either for the host that is called or has the
//! SPIFFE id that is expected. Nothing lets one skip that.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::VerifiedPeer;
use super::spiffe::Identity;
use super::tls::certificates;

/// Whom a program believes, and who it is. PEM.
#[derive(Debug, Default)]
pub(crate) struct ClientTls {
    /// Who may have issued the server's certificate.
    pub authorities: Vec<u8>,
    /// Our certificate and its key.
    pub credential: Option<(Vec<u8>, Vec<u8>)>,
    /// Who the server has to be, where its certificate is of the mesh; absent: the host that is called.
    pub server: Option<VerifiedPeer>,
}

// === impl ClientTls ===

impl ClientTls {
    pub(crate) fn config(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        for authority in certificates(&self.authorities).map_err(|why| format!("authorities: {why}"))? {
            roots.add(authority).map_err(|error| format!("authorities: {error}"))?;
        }
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|error| format!("authorities: {error}"))?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier { inner, server: self.server.clone() }));
        let Some((certificate, key)) = &self.credential else { return Ok(builder.with_no_client_auth()) };
        let chain = certificates(certificate).map_err(|why| format!("certificate: {why}"))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("private key: {error}"))?;
        builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| format!("certificate and private key: {error}"))
    }
}

#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    server: Option<VerifiedPeer>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict =
            self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let Some(server) = &self.server else { return verdict };
        match verdict {
            // The name is compared after everything else has held, and here the id takes its place.
            Ok(_)
            | Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => {}
            Err(error) => return Err(error),
        }
        let domains = std::slice::from_ref(&server.trust_domain);
        let identity =
            Identity::read(end_entity, domains).map_err(|invalid| Error::General(invalid.to_string()))?;
        if identity.peer != *server {
            return Err(Error::General(format!("the server is {}", identity.peer)));
        }
        Ok(ServerCertVerified::assertion())
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
