//! Fetches key sets over HTTPS.
//!
//! INVARIANT: HTTPS only, no redirects, no proxies, only addresses that [`AddressGuard`] allows, a bounded time and a
//! bounded number of bytes.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, redirect};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use tidegate_identity::keys::MAX_JWKS_BYTES;
use url::Url;

use super::AddressGuard;
use super::guard::AddressRefused;

/// From connecting to the last byte.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Fetches documents of issuers.
#[derive(Debug, Clone)]
pub struct Fetcher {
    client: Client,
    guard: AddressGuard,
}

/// Why a document could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not a URL to fetch keys from.
    #[error("`{url}`: {why}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The host is an address that may not be connected to.
    #[error(transparent)]
    Address(#[from] AddressRefused),
    /// No connection, no TLS, no answer in time.
    #[error("`{url}`: {why}")]
    Transport {
        /// The URL.
        url: String,
        /// Every cause.
        why: String,
    },
    /// An answer other than 200, redirects included.
    #[error("`{url}`: answered {status}; redirects are not followed")]
    Status {
        /// The URL.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// More bytes than are read.
    #[error("`{url}`: more than {MAX_JWKS_BYTES} bytes")]
    TooLarge {
        /// The URL.
        url: String,
    },
    /// Not the document that was asked for.
    #[error("`{url}`: {why}")]
    Document {
        /// The URL.
        url: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Why no fetcher can be made.
#[derive(Debug, thiserror::Error)]
pub enum FetcherError {
    /// A certificate that is not one.
    #[error("a certificate of the issuers' CA cannot be used: {0}")]
    Certificate(rustls::Error),
    /// The TLS library refuses.
    #[error("TLS cannot be set up: {0}")]
    Tls(rustls::Error),
    /// The HTTP library refuses.
    #[error("HTTP cannot be set up: {0}")]
    Http(reqwest::Error),
}

/// OpenID Connect Discovery 1.0 section 3, the part that is used.
#[derive(Deserialize)]
struct ProviderMetadata {
    issuer: String,
    jwks_uri: String,
}

// === impl Fetcher ===

impl Fetcher {
    /// Trusts the system's certificate authorities and `authorities` besides.
    pub fn new(authorities: &[CertificateDer<'static>], guard: AddressGuard) -> Result<Self, FetcherError> {
        let mut roots = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        for error in &system.errors {
            tracing::warn!("a certificate authority of the system cannot be used: {error}");
        }
        roots.add_parsable_certificates(system.certs);
        for authority in authorities {
            roots.add(authority.clone()).map_err(FetcherError::Certificate)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(FetcherError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .dns_resolver(Arc::new(guard))
            .timeout(TOTAL_TIMEOUT)
            .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(FetcherError::Http)?;
        Ok(Self { client, guard })
    }

    /// The text of a key set.
    pub async fn key_set(&self, url: &str) -> Result<String, FetchError> {
        self.get(&parse(url)?).await
    }

    /// Where an issuer says its key set is. OpenID Connect Discovery 1.0 section 4: the document is at
    /// `/.well-known/openid-configuration` below the issuer, and "the issuer value returned MUST be identical".
    pub async fn discover(&self, issuer: &str) -> Result<String, FetchError> {
        let url = parse(&format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')))?;
        let text = self.get(&url).await?;
        let failed = |why: String| FetchError::Document { url: url.to_string(), why };
        let metadata: ProviderMetadata =
            serde_json::from_str(&text).map_err(|error| failed(format!("not provider metadata: {error}")))?;
        if metadata.issuer != issuer {
            return Err(failed(format!(
                "says that the issuer is `{}`, and `{issuer}` was asked; write the issuer exactly as it does",
                metadata.issuer
            )));
        }
        parse(&metadata.jwks_uri)?;
        Ok(metadata.jwks_uri)
    }

    async fn get(&self, url: &Url) -> Result<String, FetchError> {
        if let Some(host) = url.host() {
            self.guard.check_literal(&host)?;
        }
        let transport =
            |error: reqwest::Error| FetchError::Transport { url: url.to_string(), why: causes(&error) };
        let mut response = self.client.get(url.clone()).send().await.map_err(transport)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(FetchError::Status { url: url.to_string(), status: response.status().as_u16() });
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(transport)? {
            if body.len() + chunk.len() > MAX_JWKS_BYTES {
                return Err(FetchError::TooLarge { url: url.to_string() });
            }
            body.extend_from_slice(&chunk);
        }
        String::from_utf8(body).map_err(|error| FetchError::Document {
            url: url.to_string(),
            why: format!("not UTF-8: {error}"),
        })
    }
}

/// A client for the control plane's own admin interface, which is plain HTTP.
pub fn plain_client() -> Result<Client, FetcherError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(FetcherError::Tls)?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .timeout(TOTAL_TIMEOUT)
        .build()
        .map_err(FetcherError::Http)
}

fn parse(url: &str) -> Result<Url, FetchError> {
    let failed = |why: &str| FetchError::Url { url: url.to_owned(), why: why.to_owned() };
    let parsed = Url::parse(url).map_err(|error| failed(&format!("not a URL: {error}")))?;
    if parsed.scheme() != "https" {
        return Err(failed("keys are fetched over https only"));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() || parsed.fragment().is_some() {
        return Err(failed("no user, password or fragment may be in it"));
    }
    Ok(parsed)
}

/// All causes; reqwest's own message is only "error sending request".
fn causes(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut cause: Option<&dyn Error> = Some(error);
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&message);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
