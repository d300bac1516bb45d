//! Accepts connections, and shakes hands where TLS is spoken.
//!
//! INVARIANT: handshakes are bounded in number, per address too, and in time; callers that do not finish theirs keep
//! nobody else from being accepted. No task outlives the acceptor.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::Stream as FuturesStream;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use super::options::{Security, TransportOptions};
use super::reload::Certificates;
use super::socket::{Arrival, Socket, Stream};
use super::spiffe::Identity;
use super::tls;
use crate::metrics::{Metrics, ReasonLabel};
use crate::push::{Hub, stopped};

/// How long accepting pauses when the system has no more file descriptors.
const PAUSE: Duration = Duration::from_millis(50);
/// How long connections may go on after the server was stopped.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A port that is listened on.
pub(crate) struct Acceptor {
    listener: TcpListener,
    /// Besides the port.
    socket: Option<UnixListener>,
    /// Whether the port is a loopback address.
    local: bool,
    tls: Option<(Certificates, Role)>,
    /// Where connections must come from; empty: from anywhere.
    only_from: Vec<IpAddr>,
    options: TransportOptions,
    hub: Arc<Hub>,
    handshakes: JoinSet<Shaken>,
    /// By address; never empty for long.
    under_way: HashMap<IpAddr, usize>,
}

/// Who is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Filters,
    Admin,
}

struct Shaken {
    from: IpAddr,
    socket: Option<Socket>,
}

/// The connections that an acceptor accepts, for a server.
pub(crate) type Incoming = std::pin::Pin<Box<dyn FuturesStream<Item = io::Result<Socket>> + Send>>;

// === impl Acceptor ===

impl Acceptor {
    /// For filters.
    pub(crate) fn filters(
        listener: TcpListener,
        options: &TransportOptions,
        certificates: Option<Certificates>,
        hub: Arc<Hub>,
    ) -> io::Result<Self> {
        let mut acceptor = Self::new(listener, options, certificates, Role::Filters, hub)?;
        if let Security::Sidecar(sidecar) = &options.security {
            acceptor.only_from.clone_from(&sidecar.from);
            acceptor.socket = sidecar.socket.as_deref().map(unix_socket).transpose()?;
        }
        Ok(acceptor)
    }

    /// For people and probes. On loopback in plain text.
    pub(crate) fn admin(
        listener: TcpListener,
        options: &TransportOptions,
        certificates: Option<Certificates>,
        hub: Arc<Hub>,
    ) -> io::Result<Self> {
        let mut acceptor = Self::new(listener, options, certificates, Role::Admin, hub)?;
        if acceptor.local {
            acceptor.tls = None;
        }
        Ok(acceptor)
    }

    fn new(
        listener: TcpListener,
        options: &TransportOptions,
        certificates: Option<Certificates>,
        role: Role,
        hub: Arc<Hub>,
    ) -> io::Result<Self> {
        Ok(Self {
            local: listener.local_addr()?.ip().is_loopback(),
            listener,
            socket: None,
            tls: certificates.map(|certificates| (certificates, role)),
            only_from: Vec::new(),
            options: options.clone(),
            hub,
            handshakes: JoinSet::new(),
            under_way: HashMap::new(),
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> io::Result<std::net::SocketAddr> {
        self.listener.local_addr()
    }

    /// The connections, for as long as somebody asks.
    pub(crate) fn into_incoming(self) -> Incoming {
        Box::pin(futures_util::stream::unfold(self, |mut acceptor| async {
            let socket = acceptor.accept().await;
            Some((Ok(socket), acceptor))
        }))
    }

    /// The next connection that may be spoken with.
    pub(crate) async fn accept(&mut self) -> Socket {
        loop {
            let has_room = self.handshakes.len() < self.options.max_handshakes.max(1);
            let socket = async {
                match &self.socket {
                    Some(socket) => socket.accept().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                accepted = self.listener.accept(), if has_room => match accepted {
                    Ok((stream, from)) => if let Some(socket) = self.take(stream, from.ip().to_canonical()) {
                        return socket;
                    },
                    Err(error) => pause(&error).await,
                },
                accepted = socket => match accepted {
                    Ok((stream, _)) => {
                        let arrival = Arrival { remote: None, peer: None, local: false };
                        return self.plain(Stream::Unix(stream), arrival);
                    }
                    Err(error) => pause(&error).await,
                },
                Some(shaken) = self.handshakes.join_next() => match shaken {
                    Ok(Shaken { from, socket }) => {
                        if let Some(count) = self.under_way.get_mut(&from) {
                            *count = count.saturating_sub(1);
                            if *count == 0 {
                                self.under_way.remove(&from);
                            }
                        }
                        if let Some(socket) = socket {
                            return socket;
                        }
                    }
                    // It panicked, and with it went one caller; its address keeps one place less.
                    Err(error) => warn!("a handshake ended unexpectedly: {error}"),
                },
            }
        }
    }

    /// A connection that needs no handshake, or the beginning of one.
    fn take(&mut self, stream: TcpStream, from: IpAddr) -> Option<Socket> {
        if !self.only_from.is_empty() && !self.only_from.iter().any(|address| address.to_canonical() == from)
        {
            refuse(&self.hub.metrics, "not_from_sidecar", &format!("{from} is not the sidecar"));
            return None;
        }
        // A failure costs latency at most.
        let _ = stream.set_nodelay(true);
        // The address that was called, of those that are listened on.
        let local = stream.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
        let arrival = Arrival { remote: Some(from), peer: None, local: local && self.tls.is_none() };
        let Some((certificates, role)) = &self.tls else {
            return Some(self.plain(Stream::Tcp(stream), arrival));
        };
        let config = if *role == Role::Filters { certificates.grpc() } else { certificates.admin() };
        let under_way = self.under_way.entry(from).or_default();
        // One address alone cannot take all places.
        if *under_way >= (self.options.max_handshakes / 4).max(1) {
            refuse(
                &self.hub.metrics,
                "too_many_handshakes",
                &format!("{from} has {under_way} handshakes under way"),
            );
            return None;
        }
        *under_way += 1;
        let (options, hub) = (self.options.clone(), self.hub.clone());
        let role = *role;
        self.handshakes.spawn(async move {
            let socket = shake_hands(stream, arrival, config, &options, &hub, role).await;
            Shaken { from, socket }
        });
        None
    }

    fn plain(&self, stream: Stream, arrival: Arrival) -> Socket {
        let age = match self.options.security {
            Security::Insecure => None,
            _ => Some(scattered(self.options.max_connection_age)),
        };
        Socket { stream, arrival, end: Box::pin(end(age, self.hub.stopping())), _pass: None }
    }
}

async fn shake_hands(
    stream: TcpStream,
    mut arrival: Arrival,
    config: Arc<ServerConfig>,
    options: &TransportOptions,
    hub: &Hub,
    role: Role,
) -> Option<Socket> {
    let from = arrival.remote;
    let from = from.as_ref().map_or(&"a unix socket" as &(dyn std::fmt::Display + Sync), |from| from);
    let handshake = TlsAcceptor::from(config).accept(stream);
    let stream = match tokio::time::timeout(options.handshake_timeout, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let (reason, why) = tls::why(&error);
            refuse(&hub.metrics, reason, &format!("{from}: {why}"));
            return None;
        }
        Err(_) => {
            refuse(
                &hub.metrics,
                "handshake_timeout",
                &format!("{from} did not finish its handshake in time"),
            );
            return None;
        }
    };
    let age = scattered(options.max_connection_age);
    let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let Some(leaf) = leaf else {
        if role == Role::Filters {
            refuse(&hub.metrics, "no_certificate", &format!("{from} has no certificate"));
            return None;
        }
        let end = Box::pin(end(Some(age), hub.stopping()));
        return Some(Socket { stream: Stream::Tls(Box::new(stream)), arrival, end, _pass: None });
    };
    // It was read in the handshake already, and it is the same one.
    let identity = match Identity::read(leaf, &options.trust_domains) {
        Ok(identity) => identity,
        Err(invalid) => {
            refuse(&hub.metrics, invalid.word(), &format!("{from}: {invalid}"));
            return None;
        }
    };
    let Some(pass) = hub.quotas.connect(&identity.peer) else {
        refuse(&hub.metrics, "too_many_connections", &format!("{} has too many connections", identity.peer));
        return None;
    };
    let left = SystemTime::UNIX_EPOCH
        .checked_add(identity.not_after)
        .and_then(|end| end.duration_since(SystemTime::now()).ok())
        .unwrap_or_default();
    debug!(peer = %identity.peer, "connection accepted");
    let end = Box::pin(end(Some(age.min(left)), hub.stopping()));
    arrival.peer = Some(Arc::new(identity.peer));
    Some(Socket { stream: Stream::Tls(Box::new(stream)), arrival, end, _pass: Some(pass) })
}

/// Resolves when a connection must end: at its age, or when it had its time after the server was stopped.
async fn end(age: Option<Duration>, mut stop: watch::Receiver<bool>) {
    let aged = async {
        match age {
            Some(age) => tokio::time::sleep(age).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = aged => {}
        () = async { stopped(&mut stop).await; tokio::time::sleep(LAST_WORDS).await } => {}
    }
}

fn refuse(metrics: &Metrics, reason: &'static str, why: &str) {
    metrics.refused_connections.get_or_create(&ReasonLabel::new(reason)).inc();
    info!(reason, "connection refused: {why}");
}

async fn pause(error: &io::Error) {
    warn!("cannot accept connections: {error}");
    tokio::time::sleep(PAUSE).await;
}

/// Up to a tenth shorter, so that what began together does not come back together.
fn scattered(age: Duration) -> Duration {
    let mut byte = [0_u8; 1];
    // Without randomness everybody comes back at once, and that is all.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    age - age / 10 * u32::from(byte[0]) / 255
}

/// Listens on a unix socket. One that nobody listens on any more is replaced.
fn unix_socket(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    // Sidecars run as another user of the same group at best.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}
