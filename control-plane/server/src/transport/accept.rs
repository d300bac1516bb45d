//! Accepts connections, and shakes hands where TLS is spoken.
//!
//! INVARIANT: handshakes are bounded in number and in time, and so are connections of callers that prove nothing; who comes
//! while there are too many gets a place of the address that has most ([`Places`]). Who comes with a certificate is counted
//! among its principal's ([`crate::transport::Quotas`]), and is gone when the authorities change and its certificate is
//! worth nothing any more. No task outlives the acceptor.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::Stream as FuturesStream;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Notify, oneshot};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use super::options::{Security, TransportOptions};
use super::places::{Entered, PlaceId, Places};
use super::reload::{Certificates, Trusted};
use super::socket::{Arrival, Guard, Socket, Stream};
use super::spiffe::Identity;
use super::tls;
use crate::metrics::{Metrics, ReasonLabel};
use crate::push::{Hub, stopped};

/// How long accepting pauses when the system has no more file descriptors.
const PAUSE: Duration = Duration::from_millis(50);
/// How long connections may go on after the server was stopped.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long a connection of a caller that proves nothing may last.
const UNPROVEN_AGE: Duration = Duration::from_secs(60);

/// A port that is listened on.
pub(crate) struct Acceptor {
    listener: TcpListener,
    /// Besides the port.
    socket: Option<UnixListener>,
    /// Whether the port is a loopback address.
    local: bool,
    certificates: Option<Certificates>,
    role: Role,
    /// Where connections must come from; empty: from anywhere.
    only_from: Vec<IpAddr>,
    options: Arc<TransportOptions>,
    hub: Arc<Hub>,
    handshakes: JoinSet<Option<Socket>>,
    shaking: Places<Aborted>,
    by_task: HashMap<Id, PlaceId>,
    /// Connections that are not counted by principals.
    open: Arc<Open>,
}

/// Who is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Filters,
    Admin,
    /// Whoever comes.
    Anybody,
}

/// Ends a handshake when it is dropped.
#[derive(Debug)]
struct Aborted(AbortHandle);

/// Open connections.
struct Open {
    places: Mutex<Places<oneshot::Sender<()>>>,
    /// Announces that one has ended.
    freed: Notify,
}

/// A place among the open connections, until it is dropped.
pub(super) struct OpenPlace {
    open: Arc<Open>,
    id: PlaceId,
}

/// The connections that an acceptor accepts, for a server.
pub(crate) type Incoming = std::pin::Pin<Box<dyn FuturesStream<Item = io::Result<Socket>> + Send>>;

// === impl Acceptor ===

impl Acceptor {
    /// For filters.
    pub(crate) fn filters(
        listener: TcpListener,
        options: &Arc<TransportOptions>,
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
        options: &Arc<TransportOptions>,
        certificates: Option<Certificates>,
        hub: Arc<Hub>,
    ) -> io::Result<Self> {
        let mut acceptor = Self::new(listener, options, certificates, Role::Admin, hub)?;
        if acceptor.local {
            acceptor.certificates = None;
        }
        Ok(acceptor)
    }

    /// For whoever comes, in plain text: what is there is for everybody.
    pub(crate) fn anybody(
        listener: TcpListener,
        options: &Arc<TransportOptions>,
        hub: Arc<Hub>,
    ) -> io::Result<Self> {
        Self::new(listener, options, None, Role::Anybody, hub)
    }

    fn new(
        listener: TcpListener,
        options: &Arc<TransportOptions>,
        certificates: Option<Certificates>,
        role: Role,
        hub: Arc<Hub>,
    ) -> io::Result<Self> {
        Ok(Self {
            local: listener.local_addr()?.ip().is_loopback(),
            listener,
            socket: None,
            certificates,
            role,
            only_from: Vec::new(),
            options: options.clone(),
            hub,
            handshakes: JoinSet::new(),
            shaking: Places::new(options.max_handshakes),
            by_task: HashMap::new(),
            open: Arc::new(Open {
                places: Mutex::new(Places::new(options.max_unproven_connections)),
                freed: Notify::new(),
            }),
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
            // While there is no place, callers wait where the system keeps them.
            let room_at = self.room_at(Instant::now());
            let open = self.open.clone();
            let socket = async {
                match &self.socket {
                    Some(socket) => socket.accept().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                accepted = self.listener.accept(), if room_at.is_none() => match accepted {
                    Ok((stream, from)) => if let Some(socket) = self.take(stream, from.ip().to_canonical()) {
                        return socket;
                    },
                    Err(error) => pause(&error).await,
                },
                accepted = socket => match accepted {
                    Ok((stream, _)) => {
                        let arrival = Arrival { remote: None, peer: None, local: false };
                        if let Some(socket) = self.plain(Stream::Unix(stream), arrival) {
                            return socket;
                        }
                    }
                    Err(error) => pause(&error).await,
                },
                Some(ended) = self.handshakes.join_next_with_id() => {
                    let (task, socket) = match ended {
                        Ok((task, socket)) => (task, socket),
                        Err(error) => {
                            if !error.is_cancelled() {
                                warn!("a handshake ended unexpectedly: {error}");
                            }
                            (error.id(), None)
                        }
                    };
                    if let Some(place) = self.by_task.remove(&task) {
                        self.shaking.leave(place);
                    }
                    if let Some(socket) = socket {
                        return socket;
                    }
                }
                () = sleep_until(room_at.unwrap_or_else(Instant::now)), if room_at.is_some() => {}
                () = open.freed.notified(), if room_at.is_some() => {}
            }
        }
    }

    /// When the next caller may come; `None`: now.
    fn room_at(&self, now: Instant) -> Option<Instant> {
        if self.certificates.is_some() {
            self.shaking.room_at(now)
        } else if self.role == Role::Filters {
            None
        } else {
            self.open.lock().room_at(now)
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
        let is_plain = self.certificates.is_none();
        let arrival = Arrival { remote: Some(from), peer: None, local: local && is_plain };
        let Some(certificates) = &self.certificates else {
            return self.plain(Stream::Tcp(stream), arrival);
        };
        let trusted = certificates.trusted();
        let config = if self.role == Role::Filters { trusted.grpc() } else { trusted.admin() };
        let handshake = Handshake {
            arrival,
            from,
            config,
            trusted,
            options: self.options.clone(),
            hub: self.hub.clone(),
            role: self.role,
            open: self.open.clone(),
        };
        let task = self.handshakes.spawn(handshake.shake(stream));
        let id = task.id();
        let crowded = match self.shaking.enter(from, Instant::now(), Aborted(task)) {
            Entered::In(place, evicted) => {
                self.by_task.insert(id, place);
                evicted
            }
            // It is given up with its handle.
            Entered::Full => Some(from),
        };
        if let Some(crowded) = crowded {
            let why = format!("{crowded} has most handshakes under way, and others come");
            refuse(&self.hub.metrics, "too_many_handshakes", &why);
        }
        None
    }

    fn plain(&self, stream: Stream, arrival: Arrival) -> Option<Socket> {
        let mut bounds = Bounds { age: Some(self.options.max_connection_age), ..Bounds::default() };
        let guard = match self.role {
            Role::Filters => {
                if matches!(self.options.security, Security::Insecure) {
                    bounds.age = None;
                }
                match self.hub.quotas.connect(None) {
                    Ok(pass) => Guard::Principal(pass),
                    Err(exceeded) => {
                        refuse(&self.hub.metrics, "too_many_connections", exceeded.words());
                        return None;
                    }
                }
            }
            Role::Admin | Role::Anybody => {
                if self.role == Role::Anybody {
                    bounds.age = Some(UNPROVEN_AGE);
                }
                let (place, evicted) = self.open.enter(arrival.remote, &self.hub.metrics)?;
                bounds.evicted = Some(evicted);
                Guard::Open(place)
            }
        };
        Some(Socket { stream, arrival, end: Box::pin(bounds.end(self.hub.clone())), _guard: guard })
    }
}

impl Drop for Aborted {
    fn drop(&mut self) {
        // Nothing happens to one that has ended.
        self.0.abort();
    }
}

// === impl Open ===

impl Open {
    fn lock(&self) -> MutexGuard<'_, Places<oneshot::Sender<()>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place, if there is one. Who has it is told when it has to go.
    fn enter(
        self: &Arc<Self>,
        from: Option<IpAddr>,
        metrics: &Metrics,
    ) -> Option<(OpenPlace, oneshot::Receiver<()>)> {
        let (sender, receiver) = oneshot::channel();
        // Over a unix socket only a sidecar comes.
        let from = from.unwrap_or(IpAddr::from([127, 0, 0, 1]));
        let (place, crowded) = match self.lock().enter(from, Instant::now(), sender) {
            Entered::In(id, evicted) => (Some(OpenPlace { open: self.clone(), id }), evicted),
            Entered::Full => (None, Some(from)),
        };
        if let Some(crowded) = crowded {
            let why = format!("{crowded} has most connections, and others come");
            refuse(metrics, "too_many_connections", &why);
        }
        Some((place?, receiver))
    }
}

impl Drop for OpenPlace {
    fn drop(&mut self) {
        self.open.lock().leave(self.id);
        self.open.freed.notify_one();
    }
}

/// A handshake that begins.
struct Handshake {
    arrival: Arrival,
    from: IpAddr,
    config: Arc<ServerConfig>,
    trusted: Trusted,
    options: Arc<TransportOptions>,
    hub: Arc<Hub>,
    role: Role,
    open: Arc<Open>,
}

// === impl Handshake ===

impl Handshake {
    async fn shake(mut self, stream: TcpStream) -> Option<Socket> {
        let (from, metrics) = (self.from, &self.hub.metrics);
        let handshake = TlsAcceptor::from(self.config.clone()).accept(stream);
        let stream = match tokio::time::timeout(self.options.handshake_timeout, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                let (reason, why) = tls::why(&error);
                refuse(metrics, reason, &format!("{from}: {why}"));
                return None;
            }
            Err(_) => {
                let why = format!("{from} did not finish its handshake in time");
                refuse(metrics, "handshake_timeout", &why);
                return None;
            }
        };
        let mut bounds = Bounds { age: Some(self.options.max_connection_age), ..Bounds::default() };
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
        if let Some(leaf) = chain.first() {
            // It was read in the handshake already, and it is the same one.
            let identity = match Identity::read(leaf, &self.options.trust_domains) {
                Ok(identity) => identity,
                Err(invalid) => {
                    refuse(metrics, invalid.word(), &format!("{from}: {invalid}"));
                    return None;
                }
            };
            bounds.until = Some(identity.not_after);
            self.arrival.peer = Some(Arc::new(identity.peer));
            bounds.trusted = Some((self.trusted, chain));
        } else if self.role == Role::Filters {
            refuse(metrics, "no_certificate", &format!("{from} has no certificate"));
            return None;
        } else {
            bounds.age = Some(UNPROVEN_AGE.min(self.options.max_connection_age));
        }
        let guard = match (&self.arrival.peer, self.role) {
            (Some(peer), Role::Filters) => match self.hub.quotas.connect(Some(peer)) {
                Ok(pass) => Guard::Principal(pass),
                Err(exceeded) => {
                    refuse(metrics, "too_many_connections", &format!("{peer}: {}", exceeded.words()));
                    return None;
                }
            },
            _ => {
                let (place, evicted) = self.open.enter(Some(from), metrics)?;
                bounds.evicted = Some(evicted);
                Guard::Open(place)
            }
        };
        if let Some(peer) = &self.arrival.peer {
            debug!(%peer, "connection accepted");
        }
        let end = Box::pin(bounds.end(self.hub.clone()));
        Some(Socket { stream: Stream::Tls(Box::new(stream)), arrival: self.arrival, end, _guard: guard })
    }
}

/// What ends a connection besides its two ends.
#[derive(Default)]
struct Bounds {
    age: Option<Duration>,
    /// The end of its certificate, since 1970.
    until: Option<Duration>,
    /// Its certificate and those between it and the authority, and who trusts them.
    trusted: Option<(Trusted, Vec<CertificateDer<'static>>)>,
    evicted: Option<oneshot::Receiver<()>>,
}

// === impl Bounds ===

impl Bounds {
    /// Resolves when the connection must end: at its age, when its certificate ends or is not trusted any more, when
    /// somebody else needs its place, or when it had its time after the server was stopped.
    async fn end(self, hub: Arc<Hub>) {
        let left = self.until.map(|until| {
            let end = SystemTime::UNIX_EPOCH.checked_add(until);
            end.and_then(|end| end.duration_since(SystemTime::now()).ok()).unwrap_or_default()
        });
        let age = self.age.map(scattered).into_iter().chain(left).min();
        let mut stop = hub.stopping();
        tokio::select! {
            () = maybe(age.map(tokio::time::sleep)) => {}
            () = maybe(self.evicted.map(async |evicted| { let _ = evicted.await; })) => {}
            () = maybe(self.trusted.as_ref().map(|(trusted, chain)| trusted.ends(chain))) => {
                let reason = ReasonLabel::new("authority_removed");
                hub.metrics.ended_connections.get_or_create(&reason).inc();
                info!("a connection is ended: its certificate is of no authority any more");
            }
            () = async { stopped(&mut stop).await; tokio::time::sleep(LAST_WORDS).await } => {}
        }
    }
}

async fn maybe(future: Option<impl Future<Output = ()>>) {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
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
pub(crate) fn scattered(age: Duration) -> Duration {
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
