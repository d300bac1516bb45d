//! Sends OTLP: one request per batch, by gRPC or by HTTP with protobuf.
//!
//! A unary gRPC call is an HTTP/2 request with a message in its body and the status in its trailers; so both protocols
//! share one HTTP client, and with it TLS and its limits. See OTLP 1.x, "OTLP/gRPC" and "OTLP/HTTP".
//!
//! INVARIANT: a request takes bounded time, an answer bounded memory; redirects are not followed; headers, which may hold
//! credentials, are never shown.

use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::HeaderMap;
use http_body_util::BodyExt as _;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, TE, USER_AGENT};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use url::Url;

use super::options::{Protocol, Signal, Target, headers_of_file};

/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 << 10;
/// How much of a receiver's words is shown, in characters.
const MAX_WORDS: usize = 256;
/// The longest that a receiver may have us wait.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Sends one signal to one receiver.
pub struct Client {
    http: reqwest::Client,
    url: Url,
    protocol: Protocol,
    gzip: bool,
    timeout: Duration,
    headers: HeaderMap,
    headers_file: Option<PathBuf>,
    /// What the file said when it could be read last.
    file_headers: Mutex<HeaderMap>,
}

/// What a receiver took.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accepted {
    /// How many of the batch it did not take for good.
    pub rejected: u64,
    /// What it says about that.
    pub words: String,
}

/// Why a batch was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Worth another attempt.
    #[error("{why}")]
    Later {
        /// What happened.
        why: String,
        /// When, if the receiver says so.
        after: Option<Duration>,
    },
    /// Too large for the receiver.
    #[error("{0}")]
    TooLarge(String),
    /// It will never take this.
    #[error("{0}")]
    Never(String),
}

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A file cannot be used.
    #[error("`{}`: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The TLS library refuses.
    #[error("TLS to the OTLP receiver cannot be set up: {0}")]
    Tls(rustls::Error),
    /// The HTTP library refuses.
    #[error("HTTP to the OTLP receiver cannot be set up: {0}")]
    Http(reqwest::Error),
}

// === impl SendError ===

impl SendError {
    /// The same, with where it happened.
    fn at(self, url: &Url) -> Self {
        let at = |why: String| format!("{}: {why}", url.origin().ascii_serialization());
        match self {
            Self::Later { why, after } => Self::Later { why: at(why), after },
            Self::TooLarge(why) => Self::TooLarge(at(why)),
            Self::Never(why) => Self::Never(at(why)),
        }
    }
}

// === impl Client ===

impl Client {
    /// Nothing is connected to yet.
    ///
    /// # Errors
    /// When a file cannot be read or used.
    pub fn new(target: &Target) -> Result<Self, ClientError> {
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(target)?)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .pool_max_idle_per_host(1)
            .connect_timeout(target.timeout);
        if target.protocol == Protocol::Grpc {
            builder = builder.http2_prior_knowledge();
        }
        let file_headers = match &target.headers_file {
            Some(path) => {
                headers_of_file(path).map_err(|why| ClientError::File { path: path.clone(), why })?
            }
            None => HeaderMap::new(),
        };
        Ok(Self {
            http: builder.build().map_err(ClientError::Http)?,
            url: target.url(),
            protocol: target.protocol,
            gzip: target.gzip,
            timeout: target.timeout,
            headers: target.headers.clone(),
            headers_file: target.headers_file.clone(),
            file_headers: Mutex::new(file_headers),
        })
    }

    /// Sends an `Export…ServiceRequest`.
    ///
    /// # Errors
    /// When it was not taken, and whether another attempt makes sense.
    pub async fn send(&self, signal: Signal, message: &[u8]) -> Result<Accepted, SendError> {
        let (kind, body) = match self.protocol {
            Protocol::Http => ("application/x-protobuf", self.compress(message)),
            Protocol::Grpc => {
                let message = self.compress(message);
                let length = u32::try_from(message.len())
                    .map_err(|_| SendError::TooLarge("the batch is longer than gRPC allows".to_owned()))?;
                let mut framed = BytesMut::with_capacity(message.len().saturating_add(5));
                framed.put_u8(u8::from(self.gzip));
                framed.put_u32(length);
                framed.put_slice(&message);
                ("application/grpc", framed.freeze())
            }
        };
        let mut request = self
            .http
            .post(self.url.clone())
            .timeout(self.timeout)
            .headers(self.headers.clone())
            .headers(self.headers_of_file())
            .header(CONTENT_TYPE, HeaderValue::from_static(kind))
            .header(USER_AGENT, concat!("tidegate/", env!("CARGO_PKG_VERSION")));
        if self.protocol == Protocol::Grpc {
            request = request.header(TE, HeaderValue::from_static("trailers"));
        }
        if self.gzip {
            let name = match self.protocol {
                Protocol::Http => CONTENT_ENCODING,
                Protocol::Grpc => HeaderName::from_static("grpc-encoding"),
            };
            request = request.header(name, HeaderValue::from_static("gzip"));
        }
        let answer = tokio::time::timeout(self.timeout, async {
            let response =
                request.body(body).send().await.map_err(|error| later(self.hinted(causes(&error))))?;
            read(response.into()).await
        });
        let answer = answer.await.map_err(|_| later(format!("no answer within {:?}", self.timeout)));
        let message = answer.flatten().and_then(|answer| match self.protocol {
            Protocol::Http => answer.http(),
            Protocol::Grpc => answer.grpc(),
        });
        let message = message.map_err(|error| error.at(&self.url))?;
        Ok(accepted(signal, &message))
    }

    /// Adds to an error what is usually wrong where it comes.
    fn hinted(&self, why: String) -> String {
        let is_other =
            why.contains("invalid HTTP version") || why.contains("unexpected message from connection");
        let hint = if is_other && self.protocol == Protocol::Http {
            ": is it a gRPC receiver? say `--otlp-protocol grpc`"
        } else if why.contains("InvalidContentType") && self.url.scheme() == "https" {
            ": does it speak TLS? if not, say `http://`"
        } else {
            ""
        };
        why + hint
    }

    /// The file is read anew for every batch: tokens in it may change. A file that cannot be read changes nothing.
    fn headers_of_file(&self) -> HeaderMap {
        let mut known = self.file_headers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Ok(read)) = self.headers_file.as_deref().map(headers_of_file) {
            *known = read;
        }
        known.clone()
    }

    fn compress(&self, message: &[u8]) -> Bytes {
        if !self.gzip {
            return Bytes::copy_from_slice(message);
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        // Writing to a Vec cannot fail.
        let _ = encoder.write_all(message);
        Bytes::from(encoder.finish().unwrap_or_default())
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

/// An answer: status, headers and trailers together, body.
struct Answer {
    status: u16,
    headers: HeaderMap,
    trailers: HeaderMap,
    body: Bytes,
}

async fn read(response: http::Response<reqwest::Body>) -> Result<Answer, SendError> {
    let (parts, mut body) = response.into_parts();
    let (mut bytes, mut trailers) = (BytesMut::new(), HeaderMap::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| later(causes(&error)))?;
        match frame.into_data() {
            Ok(data) if bytes.len().saturating_add(data.len()) > MAX_ANSWER => {
                return Err(later(format!("the answer has more than {MAX_ANSWER} bytes")));
            }
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, trailers, body: bytes.freeze() })
}

// === impl Answer ===

impl Answer {
    /// OTLP/HTTP: 429, 502, 503 and 504 are worth another attempt; everything else that is no success is not.
    fn http(self) -> Result<Bytes, SendError> {
        let status = self.status;
        match status {
            200..=299 => Ok(self.body),
            413 => Err(SendError::TooLarge(self.answered())),
            429 | 502..=504 => {
                let after = self.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
                let after = after.map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
                Err(SendError::Later { why: self.answered(), after })
            }
            _ => Err(SendError::Never(self.answered())),
        }
    }

    fn answered(&self) -> String {
        // The body is a `google.rpc.Status` whose text is wanted, or no protobuf at all.
        let text = match String::from_utf8(self.body.to_vec()) {
            Ok(text) if !text.chars().any(char::is_control) => text,
            _ => String::new(),
        };
        format!("HTTP {} {}", self.status, shown(&text)).trim_end().to_owned()
    }

    /// OTLP/gRPC: cancelled, deadline exceeded, aborted, out of range, unavailable and data loss are worth another
    /// attempt; resource exhausted where the receiver says when, else the batch may be too large.
    fn grpc(self) -> Result<Bytes, SendError> {
        let value = |name: &str| self.trailers.get(name).or_else(|| self.headers.get(name));
        let Some(status) = value("grpc-status") else {
            // A proxy or a server that is not gRPC.
            let why = format!("HTTP {} without a gRPC status: not a gRPC receiver?", self.status);
            return match self.status {
                429 | 502..=504 => Err(later(why)),
                _ => Err(SendError::Never(why)),
            };
        };
        let message =
            value("grpc-message").map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let status = status.to_str().unwrap_or_default();
        let why =
            format!("gRPC status {status} {}", shown(&message.unwrap_or_default())).trim_end().to_owned();
        match status {
            "0" => {
                // Flag and length, then the message; an answer without a message says nothing.
                let message = if self.body.len() > 5 { self.body.slice(5..) } else { Bytes::new() };
                Ok(message)
            }
            "1" | "4" | "10" | "11" | "14" | "15" => Err(later(why)),
            "8" if value("grpc-status-details-bin").is_some() => Err(later(why)),
            "8" => Err(SendError::TooLarge(why)),
            _ => Err(SendError::Never(why)),
        }
    }
}

/// What an answer says was not taken. One that cannot be read says nothing.
fn accepted(signal: Signal, message: &[u8]) -> Accepted {
    let partial = match signal {
        Signal::Logs => ExportLogsServiceResponse::decode(message)
            .ok()
            .and_then(|answer| answer.partial_success)
            .map(|partial| (partial.rejected_log_records, partial.error_message)),
        Signal::Metrics => ExportMetricsServiceResponse::decode(message)
            .ok()
            .and_then(|answer| answer.partial_success)
            .map(|partial| (partial.rejected_data_points, partial.error_message)),
        Signal::Traces => ExportTraceServiceResponse::decode(message)
            .ok()
            .and_then(|answer| answer.partial_success)
            .map(|partial| (partial.rejected_spans, partial.error_message)),
    };
    let (rejected, words) = partial.unwrap_or_default();
    Accepted { rejected: u64::try_from(rejected).unwrap_or(0), words: shown(&words) }
}

fn later(why: String) -> SendError {
    SendError::Later { why, after: None }
}

/// Another system's words, bounded and on one line.
fn shown(words: &str) -> String {
    words.chars().filter(|c| !c.is_control()).take(MAX_WORDS).collect()
}

fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    shown(&text)
}

fn tls(target: &Target) -> Result<ClientConfig, ClientError> {
    let mut roots = RootCertStore::empty();
    match &target.authorities {
        // Only these: whoever names a CA means it.
        Some(path) => {
            for certificate in certificates(path)? {
                let refused = |error: rustls::Error| unusable(path, error);
                roots.add(certificate).map_err(refused)?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(ClientError::Tls)?
        .with_root_certificates(roots);
    let mut config = match &target.identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, error))?;
            builder.with_client_auth_cert(certificates(chain)?, private).map_err(ClientError::Tls)?
        }
    };
    if target.protocol == Protocol::Grpc {
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let pem = std::fs::read(path).map_err(|error| unusable(path, error))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|error| unusable(path, error))?;
    if certificates.is_empty() {
        return Err(unusable(path, "holds no certificate (`-----BEGIN CERTIFICATE-----`)"));
    }
    Ok(certificates)
}

fn unusable(path: &Path, why: impl std::fmt::Display) -> ClientError {
    ClientError::File { path: path.to_owned(), why: why.to_string() }
}
