//! Fetches key sets over HTTPS.
//!
//! INVARIANT: HTTPS only, redirects only within the same host and port, no proxies, only addresses that [`AddressGuard`]
//! allows, a bounded time and a bounded number of bytes.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Client, Response, StatusCode, redirect};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tidegate_identity::keys::MAX_JWKS_BYTES;
use url::Url;

use super::guard::AddressRefused;
use super::{AddressGuard, KeySource};

mod discovery;
mod freshness;

pub use discovery::ProviderMetadata;

/// From the first connection to the last byte of the last document.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many redirects are followed.
const MAX_REDIRECTS: usize = 3;
/// Longest entity tag that is sent back, in bytes.
const MAX_ETAG: usize = 256;
/// How much of a URL, or of an issuer's name, is shown, in characters.
const MAX_SHOWN: usize = 256;
/// How much of a reason is shown, in characters.
const MAX_WHY: usize = 1024;

/// Fetches documents of issuers.
#[derive(Debug, Clone)]
pub struct Fetcher {
    client: Client,
    guard: AddressGuard,
    patience: Duration,
}

/// Names a document that is known already, so that it need not come again (RFC 9110 §13.1.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Where it came from.
    pub url: String,
    /// Its entity tag.
    pub etag: String,
}

/// What an issuer answers when it is asked for its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySet {
    /// Where it is.
    pub url: String,
    /// Its text; `None` when it is the one that was known.
    pub document: Option<String>,
    /// Its entity tag.
    pub etag: Option<String>,
    /// For how long the issuer says that it need not be asked again.
    pub fresh_for: Option<Duration>,
}

/// Why a document could not be fetched. Issuers have a say in the URLs and reasons: what is shown of them is bounded, and fits
/// on a line.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not a URL to fetch keys from.
    #[error("`{}`: {}", cut(url, MAX_SHOWN), cut(why, MAX_WHY))]
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
    #[error("`{}`: {}", cut(url, MAX_SHOWN), cut(why, MAX_WHY))]
    Transport {
        /// The URL.
        url: String,
        /// Every cause.
        why: String,
    },
    /// An answer other than 200.
    #[error("`{}`: answered {status}", cut(url, MAX_SHOWN))]
    Status {
        /// The URL.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// A redirect that is not followed.
    #[error("`{}`: redirects to `{}`, {why}", cut(url, MAX_SHOWN), cut(to, MAX_SHOWN))]
    Redirect {
        /// The URL.
        url: String,
        /// The `Location`.
        to: String,
        /// Why it is not followed.
        why: &'static str,
    },
    /// More bytes than are read.
    #[error("`{}`: more than {MAX_JWKS_BYTES} bytes", cut(url, MAX_SHOWN))]
    TooLarge {
        /// The URL.
        url: String,
    },
    /// Not the document that was asked for.
    #[error("`{}`: {}", cut(url, MAX_SHOWN), cut(why, MAX_WHY))]
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
            // They are followed by hand, judged one by one.
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .dns_resolver(Arc::new(guard.clone()))
            .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(FetcherError::Http)?;
        Ok(Self { client, guard, patience: PATIENCE })
    }

    /// Gives up sooner.
    #[cfg(test)]
    pub(super) fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The keys of an issuer, unless they are the `known` ones.
    ///
    /// # Errors
    /// When they cannot be fetched. Whether they are fit is not looked at.
    pub async fn keys(&self, source: &KeySource, known: Option<&Known>) -> Result<KeySet, FetchError> {
        match source {
            KeySource::Inline(document) => Ok(KeySet {
                url: String::new(),
                document: Some(document.clone()),
                etag: None,
                fresh_for: None,
            }),
            KeySource::Url(url) => self.in_time(url, self.key_set(url, known)).await,
            KeySource::Discovery(issuer) => {
                let both = async {
                    let metadata = self.metadata(issuer).await?;
                    metadata.check(issuer)?;
                    self.key_set(&metadata.jwks_uri, known).await
                };
                self.in_time(issuer, both).await
            }
        }
    }

    /// What an issuer says of itself, whatever it calls itself.
    ///
    /// # Errors
    /// When there is no such document.
    pub async fn discover(&self, issuer: &str) -> Result<ProviderMetadata, FetchError> {
        self.in_time(issuer, self.metadata(issuer)).await
    }

    async fn in_time<T>(
        &self,
        url: &str,
        task: impl Future<Output = Result<T, FetchError>>,
    ) -> Result<T, FetchError> {
        tokio::time::timeout(self.patience, task).await.unwrap_or_else(|_| {
            let why = format!("no complete answer within {} s", self.patience.as_secs_f32());
            Err(FetchError::Transport { url: url.to_owned(), why })
        })
    }

    async fn metadata(&self, issuer: &str) -> Result<ProviderMetadata, FetchError> {
        let url = parse(&discovery::document_url(issuer))?;
        let response = self.get(&url, &HeaderMap::new()).await?;
        let text = read(response).await?;
        ProviderMetadata::read(url.as_str(), &text)
    }

    async fn key_set(&self, url: &str, known: Option<&Known>) -> Result<KeySet, FetchError> {
        let known = known.filter(|known| known.url == url);
        let mut headers = HeaderMap::new();
        if let Some(etag) = known.and_then(|known| HeaderValue::from_str(&known.etag).ok()) {
            headers.insert(header::IF_NONE_MATCH, etag);
        }
        let response = self.get(&parse(url)?, &headers).await?;
        let fresh_for = freshness::of(response.headers());
        let is_known = response.status() == StatusCode::NOT_MODIFIED;
        let etag = response.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok());
        let etag = etag.filter(|etag| etag.len() <= MAX_ETAG).map(str::to_owned);
        let etag = if is_known { known.map(|known| known.etag.clone()) } else { etag };
        let document = if is_known { None } else { Some(read(response).await?) };
        Ok(KeySet { url: url.to_owned(), document, etag, fresh_for })
    }

    /// An answer with a document, or one that says that it is the known one.
    async fn get(&self, url: &Url, headers: &HeaderMap) -> Result<Response, FetchError> {
        let is_conditional = headers.contains_key(header::IF_NONE_MATCH);
        let mut at = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            if let Some(host) = at.host() {
                self.guard.check_literal(&host)?;
            }
            let request = self.client.get(at.clone()).headers(headers.clone());
            let response = request.send().await.map_err(|error| transport(&at, &error))?;
            let status = response.status();
            if status == StatusCode::OK || (status == StatusCode::NOT_MODIFIED && is_conditional) {
                return Ok(response);
            }
            let is_redirect = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
            let Some(to) = response.headers().get(header::LOCATION).filter(|_| is_redirect) else {
                return Err(FetchError::Status { url: at.to_string(), status: status.as_u16() });
            };
            at = redirected(&at, &String::from_utf8_lossy(to.as_bytes()))?;
        }
        let why = "after as many redirects as are followed";
        Err(FetchError::Redirect { url: url.to_string(), to: at.to_string(), why })
    }
}

/// Where a redirect leads, if it is followed.
fn redirected(from: &Url, to: &str) -> Result<Url, FetchError> {
    let refused = |why| FetchError::Redirect { url: from.to_string(), to: to.to_owned(), why };
    let target = from.join(to).map_err(|_| refused("which is not a URL"))?;
    // RFC 6454 §4: the same scheme, host and port.
    if target.origin() != from.origin() {
        return Err(refused("which is another host; only redirects on the same host are followed"));
    }
    parse(target.as_str())
}

async fn read(mut response: Response) -> Result<String, FetchError> {
    let url = response.url().clone();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| transport(&url, &error))? {
        if body.len() + chunk.len() > MAX_JWKS_BYTES {
            return Err(FetchError::TooLarge { url: url.to_string() });
        }
        body.extend_from_slice(&chunk);
    }
    String::from_utf8(body)
        .map_err(|error| FetchError::Document { url: url.to_string(), why: format!("not UTF-8: {error}") })
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
        .timeout(PATIENCE)
        .build()
        .map_err(FetcherError::Http)
}

/// What others have written, as a line that is not endless.
fn cut(text: &str, max: usize) -> String {
    let mut line = text.chars().filter(|c| !c.is_control());
    let mut shown: String = line.by_ref().take(max).collect();
    if line.next().is_some() {
        shown.push('…');
    }
    shown
}

/// A reason in which others have a say, as a line that is not endless.
pub(super) fn reason(text: &str) -> String {
    cut(text, MAX_WHY)
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

/// The guard's word is passed on as it is.
fn transport(url: &Url, error: &reqwest::Error) -> FetchError {
    match chain(error).find_map(|cause| cause.downcast_ref::<AddressRefused>()) {
        Some(refused) => refused.clone().into(),
        None => FetchError::Transport { url: url.to_string(), why: causes(error) },
    }
}

/// What the network and TLS say; that a request failed, and which, is known.
fn causes(error: &reqwest::Error) -> String {
    let mut told = String::new();
    for cause in chain(error).skip(1) {
        let message = cause.to_string();
        let says_something = !message.starts_with("client error") && message != "error resolving DNS";
        if says_something && !told.contains(&message) {
            told.push_str(if told.is_empty() { "" } else { ": " });
            told.push_str(&message);
        }
    }
    if told.is_empty() { error.to_string() } else { told }
}

fn chain(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let first: &(dyn Error + 'static) = error;
    std::iter::successors(Some(first), |error: &&(dyn Error + 'static)| (*error).source())
}

#[cfg(test)]
mod tests;
