//! A small HTTP server on a free loopback port, for the demo's issuers and upstream.
//!
//! INVARIANT: when a [`Server`] is dropped its port is closed and its connections end; no task of it goes on.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// A response body of any kind.
pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// Takes what Envoy can be told to let through: 8 MiB of headers, and their number.
const MAX_HEADER_BYTES: usize = 16 << 20;
const MAX_HEADERS: usize = 32_768;

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Serves HTTP/1.1 and HTTP/2 on a free loopback port: over TLS where `tls` is given, else in plain text.
    pub async fn start<F, R>(tls: Option<rustls::ServerConfig>, handler: F) -> io::Result<Self>
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, tls, handler));
        Ok(Self { address, _tasks: tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn accept<F, R>(listener: TcpListener, tls: Option<TlsAcceptor>, handler: F)
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve_one(stream, tls.clone(), handler.clone()));
                }
                // Out of file descriptors, or the caller has gone already: the next attempt may do.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_one<F, R>(stream: TcpStream, tls: Option<TlsAcceptor>, handler: F)
where
    F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    // A failure costs latency at most.
    let _ = stream.set_nodelay(true);
    match tls {
        None => speak(stream, handler).await,
        Some(tls) => {
            // Callers that fail the handshake see that themselves.
            if let Ok(stream) = tls.accept(stream).await {
                speak(stream, handler).await;
            }
        }
    }
}

async fn speak<F, R>(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, handler: F)
where
    F: Fn(Request<Incoming>) -> R,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(|request| {
        let response = handler(request);
        async { Ok::<_, Infallible>(response.await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().max_buf_size(MAX_HEADER_BYTES).max_headers(MAX_HEADERS);
    builder.http2().max_header_list_size(u32::try_from(MAX_HEADER_BYTES).unwrap_or(u32::MAX));
    // A connection that breaks is its caller's to report.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}
