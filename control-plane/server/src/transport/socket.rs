//! An accepted connection.
//!
//! INVARIANT: it ends at its deadline, and soon after the server was stopped, whatever is under way, so that no stream
//! outlives the certificate that it was opened with. (A stream that is ended over a connection that stays would be opened
//! again over the same one.)

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::VerifiedPeer;
use super::accept::OpenPlace;
use super::quota::ConnectionPass;

/// What is known of a connection before a request is read.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    /// Where it came from; `None` for a unix socket.
    pub remote: Option<IpAddr>,
    /// From its certificate, where there is one.
    pub peer: Option<Arc<VerifiedPeer>>,
    /// Whether it came to a loopback address, without TLS, which may be another's that is passed through.
    pub local: bool,
}

/// A connection.
pub(crate) struct Socket {
    pub(super) stream: Stream,
    pub(super) arrival: Arrival,
    pub(super) end: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Counts it until it is dropped.
    pub(super) _guard: Guard,
}

/// What counts a connection.
#[allow(dead_code, reason = "they are kept for their end")]
pub(super) enum Guard {
    /// Among its principal's, and among all.
    Principal(ConnectionPass),
    /// Among those of one port.
    Open(OpenPlace),
}

pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

// === impl Socket ===

impl Socket {
    pub(crate) fn arrival(&self) -> &Arrival {
        &self.arrival
    }

    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        self.end.as_mut().poll(context).is_ready()
    }
}

impl Connected for Socket {
    type ConnectInfo = Arrival;

    fn connect_info(&self) -> Arrival {
        self.arrival.clone()
    }
}

/// Does something with the stream, whatever its kind.
macro_rules! each {
    ($socket:expr, $stream:ident => $act:expr) => {
        match &mut $socket.get_mut().stream {
            Stream::Tcp(inner) => {
                let $stream = Pin::new(inner);
                $act
            }
            Stream::Unix(inner) => {
                let $stream = Pin::new(inner);
                $act
            }
            Stream::Tls(inner) => {
                let $stream = Pin::new(inner.as_mut());
                $act
            }
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_over(context) {
            // Nothing read: the end.
            return Poll::Ready(Ok(()));
        }
        each!(self, stream => stream.poll_read(context, buffer))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => stream.poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_shutdown(context))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => stream.poll_write_vectored(context, buffers))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tcp(inner) => inner.is_write_vectored(),
            Stream::Unix(inner) => inner.is_write_vectored(),
            Stream::Tls(inner) => inner.is_write_vectored(),
        }
    }
}
