//! The connection to the leader.
//!
//! INVARIANT: nothing is said before it is known who is at the other end: by its certificate, where connections are ours; by the
//! sidecar, where it makes them; not at all on one machine where nobody is asked.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower::Service;

use super::RelayOptions;
use crate::transport::{ClientTls, Security, TlsOptions};

/// How long it may take until the leader can be spoken with.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// A leader that is gone without a word is noticed after both.
const ALIVE_EVERY: Duration = Duration::from_secs(5);
const ALIVE_WITHIN: Duration = Duration::from_secs(5);
/// What the leader may send ahead, in bytes.
const WINDOW: u32 = 4 << 20;

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

type Connected = TokioIo<Box<dyn Io>>;

/// Connects to one address, whatever is called there.
#[derive(Clone)]
struct Dialer {
    address: Arc<str>,
    tls: Option<TlsConnector>,
}

/// Connects to the leader at this address (`HOST:PORT`).
///
/// # Errors
/// In words.
pub(super) async fn dial(
    address: &str,
    options: &RelayOptions,
    security: &Security,
) -> Result<Channel, String> {
    let tls = match security {
        Security::Mutual(files) => Some(mutual(files, options)?),
        // The sidecar of this pod makes it mutual TLS, and knows whom it may speak to.
        Security::Sidecar(_) | Security::Insecure => None,
    };
    let authority = options.authority.as_deref().map_or_else(
        || address.to_owned(),
        |host| format!("{host}:{}", address.rsplit_once(':').map_or("", |(_, port)| port)),
    );
    let uri = Uri::builder().scheme("http").authority(authority.as_str()).path_and_query("/").build();
    let uri = uri.map_err(|error| format!("`{authority}` is no authority: {error}"))?;
    let endpoint = Endpoint::from(uri)
        .http2_keep_alive_interval(ALIVE_EVERY)
        .keep_alive_timeout(ALIVE_WITHIN)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    let dialer = Dialer { address: address.into(), tls };
    match timeout(CONNECT, endpoint.connect_with_connector(dialer)).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(words(&error)),
        Err(_) => Err(format!("it does not answer within {} s", CONNECT.as_secs())),
    }
}

/// With the files as they are now.
fn mutual(files: &TlsOptions, options: &RelayOptions) -> Result<TlsConnector, String> {
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))
    };
    let tls = ClientTls {
        authorities: read(&files.authorities)?,
        credential: Some((read(&files.certificate)?, read(&files.key)?)),
        server: Some(options.account.clone()),
    };
    let mut config = tls.config()?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// An error with its causes: the first one of a connection says next to nothing.
pub(super) fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        cause = error.source();
    }
    words
}

// === impl Dialer ===

impl Dialer {
    async fn connect(self) -> std::io::Result<Connected> {
        let stream = TcpStream::connect(&*self.address).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = self.tls else { return Ok(TokioIo::new(Box::new(stream))) };
        // It is known by its id, not by where it is.
        let name = ServerName::IpAddress(stream.peer_addr()?.ip().into());
        Ok(TokioIo::new(Box::new(tls.connect(name, stream).await?)))
    }
}

impl Service<Uri> for Dialer {
    type Response = Connected;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Connected>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}
