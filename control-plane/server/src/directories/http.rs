//! HTTP for sources of directories.
//!
//! INVARIANT: credentials go only to the configured address: over https, or to this machine; no redirects, no proxies. A
//! bounded time and a bounded number of bytes. Headers never become part of a message.

use std::error::Error;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Client, Response, StatusCode, redirect};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::{Host, Url};

/// For a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Largest page of an answer, in bytes.
const MAX_PAGE: usize = 8 << 20;
/// Longest text of a server that is shown, in characters.
const MAX_TEXT: usize = 300;

/// Why a source cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Not an address of a source.
    #[error("`{url}`: {why}")]
    Url {
        /// The address.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// A certificate file.
    #[error("`{path}`: {why}")]
    Certificates {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The server does not run in a cluster.
    #[error(
        "the Kubernetes API of issuer `{issuer}`: this is not a pod (KUBERNETES_SERVICE_HOST is not set); give its address: \
         `{issuer}=https://HOST:PORT,token=FILE,ca=FILE`"
    )]
    NotInCluster {
        /// The TrustedIssuer.
        issuer: String,
    },
    /// The same issuer twice.
    #[error("the Kubernetes API of issuer `{issuer}` is given twice; a TrustedIssuer stands for one cluster")]
    Twice {
        /// The TrustedIssuer.
        issuer: String,
    },
    /// Readings would not count until the next ones.
    #[error(
        "directories that are read every {every} s and count for {fresh_for} s would be stale between two readings; let \
         them count for at least four times the interval"
    )]
    Stale {
        /// Seconds.
        every: u64,
        /// Seconds.
        fresh_for: u64,
    },
    /// The TLS library refuses.
    #[error("TLS cannot be set up: {0}")]
    Tls(rustls::Error),
    /// The HTTP library refuses.
    #[error("HTTP cannot be set up: {0}")]
    Http(reqwest::Error),
}

/// Why a directory could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// No connection, no TLS, no answer in time.
    #[error("{url}: {why}")]
    Transport { url: String, why: String },
    /// An answer other than 200.
    #[error("{url}: answered {status}{message}{hint}", message = said(message), hint = hint(*status))]
    Status { url: String, status: StatusCode, message: String },
    /// Not what was asked for.
    #[error("{url}: {why}")]
    Answer { url: String, why: String },
    /// No credentials.
    #[error("no credentials: {0}")]
    Credentials(String),
    /// The server forgot what a watch wants to go on from.
    #[error("{url}: what changed since the last answer is no longer known there")]
    Gone { url: String },
    /// Nobody can be asked.
    #[error("{0}")]
    NoSource(String),
    /// Not in time.
    #[error("no whole answer within {} s", .0.as_secs())]
    Slow(Duration),
}

/// A server's word about a failure, as Google and Kubernetes write it.
#[derive(Deserialize)]
struct Failure {
    error: Option<Inner>,
    message: Option<String>,
}

#[derive(Deserialize)]
struct Inner {
    message: String,
}

// === impl ReadError ===

impl ReadError {
    pub(super) fn transport(url: &Url, error: &reqwest::Error) -> Self {
        Self::Transport { url: place(url), why: brief(&causes(error)) }
    }

    pub(super) fn gone(url: &Url) -> Self {
        Self::Gone { url: place(url) }
    }

    pub(super) fn answer(url: &Url, why: impl Display) -> Self {
        Self::Answer { url: place(url), why: brief(&why.to_string()) }
    }

    /// Reads what the server says about a failure.
    pub(super) async fn status(url: &Url, response: Response) -> Self {
        let status = response.status();
        let body = bytes(url, response).await.unwrap_or_default();
        let failure = serde_json::from_slice(&body).unwrap_or(Failure { error: None, message: None });
        let message = failure.error.map(|inner| inner.message).or(failure.message).unwrap_or_default();
        Self::Status { url: place(url), status, message: brief(&message) }
    }
}

/// Trusts these authorities only.
pub(super) fn client(roots: RootCertStore) -> Result<Client, SourceError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(SourceError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(SourceError::Http)
}

pub(super) fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

pub(super) fn roots_of(file: &Path) -> Result<RootCertStore, SourceError> {
    let failed = |why: String| SourceError::Certificates { path: file.display().to_string(), why };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| failed(error.to_string()))? {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(failed("holds no certificate (`-----BEGIN CERTIFICATE-----`)".to_owned()));
    }
    Ok(roots)
}

/// An address that credentials may be sent to.
pub(super) fn base(text: &str) -> Result<Url, SourceError> {
    let url = plain_base(text)?;
    let is_here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if url.scheme() != "https" && !is_here {
        let why = "credentials are sent over https only; plain http is for this machine".to_owned();
        return Err(SourceError::Url { url: text.to_owned(), why });
    }
    Ok(url)
}

/// An address without anything secret.
pub(super) fn plain_base(text: &str) -> Result<Url, SourceError> {
    let failed = |why: &str| SourceError::Url { url: text.to_owned(), why: why.to_owned() };
    let url = Url::parse(text).map_err(|error| failed(&format!("not a URL: {error}")))?;
    if !matches!(url.scheme(), "https" | "http") || url.cannot_be_a_base() {
        return Err(failed("not an http or https URL"));
    }
    let is_bare = url.username().is_empty() && url.password().is_none();
    if !is_bare || url.query().is_some() || url.fragment().is_some() {
        return Err(failed("no user, password, query or fragment may be in it"));
    }
    Ok(url)
}

/// An address below a base. Every segment is one segment, whatever it holds.
pub(super) fn below(base: &Url, segments: &[&str], query: &[(&str, &str)]) -> Url {
    let mut url = base.clone();
    // A base can be one; see `plain_base`.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    url
}

/// Asks; any status is an answer.
pub(super) async fn get(
    client: &Client,
    url: &Url,
    headers: HeaderMap,
    within: Duration,
) -> Result<Response, ReadError> {
    let request = client.get(url.clone()).headers(headers).timeout(within);
    request.send().await.map_err(|error| ReadError::transport(url, &error))
}

/// The body of a 200 as JSON.
pub(super) async fn json<T: DeserializeOwned>(url: &Url, response: Response) -> Result<T, ReadError> {
    if response.status() != StatusCode::OK {
        return Err(ReadError::status(url, response).await);
    }
    let body = bytes(url, response).await?;
    serde_json::from_slice(&body).map_err(|error| ReadError::answer(url, error))
}

pub(super) async fn bytes(url: &Url, mut response: Response) -> Result<Vec<u8>, ReadError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| ReadError::transport(url, &error))? {
        if body.len() + chunk.len() > MAX_PAGE {
            return Err(ReadError::answer(url, format_args!("more than {MAX_PAGE} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Without the query, which is long and says nothing to people.
fn place(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}

/// What a server says, fit to be shown.
fn brief(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

fn hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::FORBIDDEN => "; let the control plane's account read it",
        StatusCode::UNAUTHORIZED => "; its credentials are not accepted",
        _ => "",
    }
}

/// All causes; reqwest's own message is only "error sending request".
fn causes(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&message);
        }
        cause = error.source();
    }
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    if text.is_empty() { error.to_string() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_over_https_or_stay_on_this_machine() {
        for good in [
            "https://dataflow.googleapis.com",
            "https://10.0.0.1:6443/prefix/",
            "http://127.0.0.1:80",
            "http://[::1]:80",
            "http://localhost:80",
        ] {
            assert!(base(good).is_ok(), "{good}");
        }
        for bad in [
            "http://dataflow.googleapis.com",
            "http://10.0.0.1",
            "http://localhost.example",
            "http://127.0.0.1.example",
            "ftp://127.0.0.1",
            "data:text/plain,x",
            "https://user@host",
            "https://:secret@host",
            "https://host/?q=1",
            "https://host/#f",
            "host",
            "",
        ] {
            assert!(base(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_never_leaves_its_place_in_the_path() {
        let base = base("https://host/prefix/").unwrap();
        let url = below(&base, &["v1", "a/b?c#d", "e f"], &[("filter", "x=y&z")]);
        assert_eq!(url.as_str(), "https://host/prefix/v1/a%2Fb%3Fc%23d/e%20f?filter=x%3Dy%26z");
        assert_eq!(place(&url), "https://host/prefix/v1/a%2Fb%3Fc%23d/e%20f");
    }

    #[test]
    fn what_a_server_says_is_cut_and_holds_no_control_characters() {
        let said = brief(&format!("a\u{1b}[31m\n{}", "x".repeat(1_000)));
        assert_eq!(said.chars().count(), MAX_TEXT);
        assert!(said.starts_with("a[31mxxx"), "{said}");
    }
}
