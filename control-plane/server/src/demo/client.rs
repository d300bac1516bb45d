//! A caller: one request over HTTP/1.1, HTTP/2 or gRPC, in plain text or TLS, with or without a client certificate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::pki::Credential;
use super::tls::{self, ServerCheck, TlsError};

/// How long a call may take unless it says otherwise.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The version of HTTP that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2; in plain text with prior knowledge.
    Http2,
}

/// Where to call, and as whom.
#[derive(Debug, Clone)]
pub struct Endpoint {
    address: SocketAddr,
    tls: Option<ClientTls>,
}

#[derive(Debug, Clone)]
struct ClientTls {
    authority: Arc<str>,
    check: ServerCheck,
    name: String,
    credential: Option<Credential>,
    /// What is offered in ALPN; absent: the protocol that is spoken.
    alpn: Option<Vec<Vec<u8>>>,
}

/// A request.
#[derive(Debug, Clone)]
pub struct Call {
    method: Method,
    authority: Option<String>,
    path: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Bytes,
    timeout: Duration,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Response headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// Trailers; empty when there were none.
    pub trailers: HeaderMap,
    /// From sending the request to the last byte of the answer, without opening the connection.
    pub latency: Duration,
}

/// No answer came.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no connection.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// What came of it.
        source: std::io::Error,
    },
    /// The TLS settings are unusable.
    #[error(transparent)]
    Settings(#[from] TlsError),
    /// The TLS handshake failed.
    #[error("TLS handshake with {address}: {source}")]
    Handshake {
        /// Where to.
        address: SocketAddr,
        /// What came of it.
        source: std::io::Error,
    },
    /// The request cannot be written down.
    #[error("invalid request: `{part}` `{value}`: {reason}")]
    Invalid {
        /// Which part of it.
        part: &'static str,
        /// That part.
        value: String,
        /// What is wrong.
        reason: String,
    },
    /// The connection broke, or the other side does not speak HTTP.
    #[error("{address} did not answer: {reason}")]
    Broken {
        /// Where to.
        address: SocketAddr,
        /// The error and its causes.
        reason: String,
    },
    /// It took too long.
    #[error("{address} did not answer within {} s", after.as_secs_f32())]
    Timeout {
        /// Where to.
        address: SocketAddr,
        /// How long was waited.
        after: Duration,
    },
}

/// An open connection, for more than one call. Dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    scheme: &'static str,
    sender: Sender,
    // Moves the bytes; ends with us.
    _driver: JoinSet<()>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

// === impl Endpoint ===

impl Endpoint {
    /// In plain text.
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }

    /// TLS to a server whose certificate `authority` (PEM) issued for `name`.
    pub fn tls(address: SocketAddr, authority: &str, name: &str) -> Self {
        let tls = ClientTls {
            authority: authority.into(),
            check: ServerCheck::Name,
            name: name.to_owned(),
            credential: None,
            alpn: None,
        };
        Self { address, tls: Some(tls) }
    }

    /// TLS to any workload of the mesh whose authority (PEM) is `authority`; its SPIFFE id is not looked at.
    pub fn mesh(address: SocketAddr, authority: &str) -> Self {
        let tls = ClientTls {
            authority: authority.into(),
            check: ServerCheck::AuthorityOnly,
            name: "workload.invalid".into(),
            credential: None,
            alpn: None,
        };
        Self { address, tls: Some(tls) }
    }

    /// The same, offering this in ALPN instead of the protocol that is spoken. Without TLS it has no effect.
    pub fn with_alpn(mut self, alpn: &[&str]) -> Self {
        if let Some(tls) = &mut self.tls {
            tls.alpn = Some(alpn.iter().map(|name| name.as_bytes().to_vec()).collect());
        }
        self
    }

    /// The same with this client certificate. Without TLS it has no effect.
    pub fn with_credential(mut self, credential: &Credential) -> Self {
        if let Some(tls) = &mut self.tls {
            tls.credential = Some(credential.clone());
        }
        self
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// One call over a connection of its own.
    pub async fn call(&self, protocol: Protocol, call: Call) -> Result<Answer, CallError> {
        let (address, after) = (self.address, call.timeout);
        let whole = async { self.connect(protocol).await?.call(call).await };
        tokio::time::timeout(after, whole).await.map_err(|_| CallError::Timeout { address, after })?
    }

    /// Opens a connection for more than one call.
    pub async fn connect(&self, protocol: Protocol) -> Result<Connection, CallError> {
        let address = self.address;
        let stream =
            TcpStream::connect(address).await.map_err(|source| CallError::Connect { address, source })?;
        // A failure costs latency at most.
        let _ = stream.set_nodelay(true);
        let Some(settings) = &self.tls else {
            return Connection::over(stream, address, "http", protocol).await;
        };
        let alpn: &[u8] = match protocol {
            Protocol::Http1 => b"http/1.1",
            Protocol::Http2 => b"h2",
        };
        let mut config =
            tls::client(&settings.authority, settings.check, settings.credential.as_ref(), alpn)?;
        if let Some(alpn) = &settings.alpn {
            config.alpn_protocols.clone_from(alpn);
        }
        let name = ServerName::try_from(settings.name.clone()).map_err(|error| CallError::Invalid {
            part: "server name",
            value: settings.name.clone(),
            reason: error.to_string(),
        })?;
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .map_err(|source| CallError::Handshake { address, source })?;
        Connection::over(stream, address, "https", protocol).await
    }
}

// === impl Connection ===

impl Connection {
    async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        address: SocketAddr,
        scheme: &'static str,
        protocol: Protocol,
    ) -> Result<Self, CallError> {
        let mut driver = JoinSet::new();
        let stream = TokioIo::new(stream);
        // How the connection ends is told to the call that is under way.
        let sender = match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(stream).await.map_err(broken(address))?;
                driver.spawn(async { drop(connection.await) });
                Sender::Http1(sender)
            }
            Protocol::Http2 => {
                let executor = TokioExecutor::new();
                let (sender, connection) =
                    http2::handshake(executor, stream).await.map_err(broken(address))?;
                driver.spawn(async { drop(connection.await) });
                Sender::Http2(sender)
            }
        };
        Ok(Self { address, scheme, sender, _driver: driver })
    }

    /// Sends a request and reads the whole answer.
    pub async fn call(&mut self, call: Call) -> Result<Answer, CallError> {
        let (address, after) = (self.address, call.timeout);
        let whole = async {
            let begun = Instant::now();
            let (head, body) = self.start(call).await?.into_parts();
            let body = body.collect().await.map_err(broken(address))?;
            let latency = begun.elapsed();
            let trailers = body.trailers().cloned().unwrap_or_default();
            Ok(Answer {
                status: head.status,
                headers: head.headers,
                body: body.to_bytes(),
                trailers,
                latency,
            })
        };
        tokio::time::timeout(after, whole).await.map_err(|_| CallError::Timeout { address, after })?
    }

    /// Sends a request and returns as soon as the response headers are here. The body is read by the caller, without
    /// a time limit.
    pub async fn start(&mut self, call: Call) -> Result<Response<Incoming>, CallError> {
        let address = self.address;
        match &mut self.sender {
            Sender::Http1(sender) => {
                let request = call.into_request(None, &address)?;
                sender.ready().await.map_err(broken(address))?;
                sender.send_request(request).await.map_err(broken(address))
            }
            Sender::Http2(sender) => {
                let request = call.into_request(Some(self.scheme), &address)?;
                sender.ready().await.map_err(broken(address))?;
                sender.send_request(request).await.map_err(broken(address))
            }
        }
    }
}

fn broken(address: SocketAddr) -> impl FnOnce(hyper::Error) -> CallError {
    move |error| {
        let mut reason = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            reason = format!("{reason}: {error}");
            cause = error.source();
        }
        CallError::Broken { address, reason }
    }
}

// === impl Call ===

impl Call {
    /// A request without a body, for the host that is connected to.
    pub fn new(method: Method, path: &str) -> Self {
        Self {
            method,
            authority: None,
            path: path.to_owned(),
            headers: Vec::new(),
            body: Bytes::new(),
            timeout: TIMEOUT,
        }
    }

    /// A unary gRPC call of `/package.Service/Method`. Needs [`Protocol::Http2`].
    pub fn grpc(path: &str, message: &[u8]) -> Self {
        let mut framed = BytesMut::with_capacity(5 + message.len());
        framed.put_u8(0);
        // Messages of 4 GiB do not occur here; a length that does not fit is refused by the receiver.
        framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
        framed.put_slice(message);
        Self::new(Method::POST, path)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(framed.freeze())
    }

    /// The host (and port) that the request is for.
    pub fn authority(mut self, authority: &str) -> Self {
        self.authority = Some(authority.to_owned());
        self
    }

    /// One more header; the same name may come more than once. What HTTP cannot carry is an error of the call.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// `Authorization: Bearer …`.
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// The body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// How long it may take; 15 s unless said.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The path, with the query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The headers that were added.
    pub(super) fn headers(&self) -> &[(String, Vec<u8>)] {
        &self.headers
    }

    /// The host, if it was said.
    pub(super) fn host(&self) -> Option<&str> {
        self.authority.as_deref()
    }

    /// `scheme` for HTTP/2, whose requests carry scheme and authority in the target.
    fn into_request(
        self,
        scheme: Option<&str>,
        address: &SocketAddr,
    ) -> Result<Request<Full<Bytes>>, CallError> {
        let authority = self.authority.unwrap_or_else(|| address.to_string());
        let target = match scheme {
            None => self.path,
            Some(scheme) => format!("{scheme}://{authority}{}", self.path),
        };
        let invalid = |part, value: &str, reason: &dyn std::fmt::Display| CallError::Invalid {
            part,
            value: value.to_owned(),
            reason: reason.to_string(),
        };
        let uri: Uri = target.parse().map_err(|error| invalid("path", &target, &error))?;
        let mut request = Request::new(Full::new(self.body));
        *request.method_mut() = self.method;
        *request.uri_mut() = uri;
        if scheme.is_none() {
            let host = HeaderValue::from_str(&authority)
                .map_err(|error| invalid("authority", &authority, &error))?;
            request.headers_mut().insert(http::header::HOST, host);
        } else {
            *request.version_mut() = http::Version::HTTP_2;
        }
        for (name, value) in self.headers {
            let parsed =
                HeaderName::from_bytes(name.as_bytes()).map_err(|error| invalid("header", &name, &error))?;
            // The value may be a token: it is not repeated in the message.
            let value =
                HeaderValue::from_bytes(&value).map_err(|error| invalid("value of header", &name, &error))?;
            request.headers_mut().append(parsed, value);
        }
        Ok(request)
    }
}

// === impl Answer ===

impl Answer {
    /// `grpc-status`, from the trailers or, where nothing else was sent, from the headers.
    pub fn grpc_status(&self) -> Option<u32> {
        self.grpc_header("grpc-status")?.parse().ok()
    }

    /// `grpc-message`, percent-encoded as it came.
    pub fn grpc_message(&self) -> Option<&str> {
        self.grpc_header("grpc-message")
    }

    /// The body as JSON; `None` when it is none. A gRPC frame's header is skipped.
    pub fn json(&self) -> Option<Value> {
        let is_grpc = self
            .headers
            .get(http::header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        let body = if is_grpc { self.body.get(5..)? } else { &self.body };
        serde_json::from_slice(body).ok()
    }

    /// A response header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn grpc_header(&self, name: &str) -> Option<&str> {
        self.trailers.get(name).or_else(|| self.headers.get(name))?.to_str().ok()
    }
}

#[cfg(test)]
mod tests;
