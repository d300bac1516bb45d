//! The gRPC server.
//!
//! All services are served by hand rather than by the generated traits, because those encode every message anew for every
//! stream ([`super::frames`]), and make room for what was not sent ([`super::inbound`]).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Request, Response, header};
use pb::relayed_question::Question;
use prost::Message;
use tidegate_proto::v1 as pb;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::InterceptorLayer;
use tower::Service;
use tracing::info;

use super::inbound::Inbound;
use super::relay::{self, Relay, Role};
use super::{Distributor, Fleet, FleetReport, session, sink};
use crate::clock;
use crate::decisions::{Batches, Decisions, Written};
use crate::directories::{Index, Looked};
use crate::keys::KeyDesk;
use crate::metrics::{Metrics, ReasonLabel};
use crate::transport::{
    Acceptor, Authenticate, CONNECTION_WINDOW, Caller, Exceeded, Incoming, Quotas, Roster, STREAM_WINDOW,
    STREAMS_PER_CONNECTION, StreamPass, TransportOptions, WhoIs, scattered,
};
use crate::uses::Ledger;

/// A filter that is gone without a word is noticed after the interval and the timeout.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a question waits for its answer: as long as a filter holds a request.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);

/// What all streams share.
#[derive(Debug)]
pub struct Hub {
    /// What is on offer.
    pub distributor: Distributor,
    /// Who enforces what.
    pub fleet: Fleet,
    /// Where keys are asked for.
    pub key_desk: KeyDesk,
    /// What is known of directories, and where ids are asked for.
    pub directories: Index,
    /// Pods without a proxy by workload, as the cluster has them; `None`: no cluster is watched.
    bypassed: Mutex<Option<BTreeMap<String, Vec<String>>>>,
    /// Which rules and keys are used.
    pub uses: Ledger,
    /// What is counted.
    pub metrics: Metrics,
    /// What filters decided.
    pub decisions: Decisions,
    /// Which workload a verified peer is.
    pub who_is: Arc<dyn WhoIs>,
    pub(crate) quotas: Quotas,
    /// Who else there is.
    pub(crate) relay: Relay,
    /// How long it counts who a peer is, without anything new on offer.
    identified_for: Duration,
    stop: watch::Sender<bool>,
}

/// Serves gRPC until `stop` says so and every stream has ended.
pub(crate) async fn serve(
    hub: Arc<Hub>,
    incoming: Incoming,
    authenticate: Authenticate,
) -> Result<(), tonic::transport::Error> {
    let mut stop = hub.stopping();
    tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(16 << 10)
        .layer(InterceptorLayer::new(authenticate))
        .add_service(Served::<Subscribe>::new(hub.clone()))
        .add_service(Served::<Report>::new(hub.clone()))
        .add_service(Served::<Follow>::new(hub))
        .serve_with_incoming_shutdown(incoming, async move { stopped(&mut stop).await })
        .await
}

/// Serves gRPC in plain text to everybody on this machine, for measurements.
///
/// # Errors
/// Where the listener is not at a loopback address, or the server fails.
pub async fn serve_insecure(
    hub: Arc<Hub>,
    listener: TcpListener,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let options = TransportOptions::insecure();
    let address = listener.local_addr()?;
    options.check(address, address)?;
    let options = Arc::new(options);
    let incoming = Acceptor::filters(listener, &options, None, hub.clone())?.into_incoming();
    let authenticate = Authenticate::new(hub.clone(), options);
    Ok(serve(hub, incoming, authenticate).await?)
}

// === impl Hub ===

impl Hub {
    /// Nothing is on offer yet, and nobody is anything.
    pub fn new(directories: Index) -> Self {
        Self::with(directories, Arc::<Roster>::default(), &TransportOptions::insecure())
    }

    /// The same, with somebody who knows whose workloads are whose, and limits.
    pub fn with(directories: Index, who_is: Arc<dyn WhoIs>, transport: &TransportOptions) -> Self {
        let metrics = Metrics::default();
        Self {
            distributor: Distributor::default(),
            fleet: Fleet::default(),
            key_desk: KeyDesk::default(),
            directories,
            bypassed: Mutex::default(),
            uses: Ledger::default(),
            decisions: Decisions::new(metrics.decision_records.clone()),
            metrics,
            who_is,
            quotas: Quotas::new(transport.quotas),
            relay: Relay::default(),
            identified_for: transport.identify_every,
            stop: watch::Sender::new(false),
        }
    }

    /// Pods without a proxy, by workload; `None`: no cluster is watched.
    pub fn bypassed(&self) -> Option<BTreeMap<String, Vec<String>>> {
        self.bypassed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// These pods have no proxy.
    pub(crate) fn set_bypassed(&self, pods: BTreeMap<String, Vec<String>>) {
        *self.bypassed.lock().unwrap_or_else(PoisonError::into_inner) = Some(pods);
    }

    /// Whether a directory that the workload's rules read lists the id on offer, after the directory was read again if it
    /// does not. At most a second later.
    pub async fn look_up(&self, workload: &str, directory: &str, id: &str) -> bool {
        let looked = tokio::time::timeout(LOOKUP_TIMEOUT, self.find(workload, directory, id)).await;
        let label = match &looked {
            Ok(Looked::Listed) => "listed",
            Ok(Looked::Unlisted) => "unlisted",
            Ok(Looked::Throttled) => "throttled",
            Ok(Looked::Unknown) => "unknown",
            Err(_) => "timed_out",
        };
        self.metrics.directory_lookups.get_or_create(&ReasonLabel::new(label)).inc();
        looked == Ok(Looked::Listed)
    }

    async fn find(&self, workload: &str, directory: &str, id: &str) -> Looked {
        if let Role::Follower(leader) = self.relay.role() {
            let Some(leader) = leader else { return Looked::Unknown };
            let lookup = pb::Lookup { nonce: 0, directory: directory.to_owned(), id: id.to_owned() };
            let is_listed = leader.ask(workload, Question::Lookup(lookup)).await;
            return if is_listed { Looked::Listed } else { Looked::Unlisted };
        }
        let distributor = &self.distributor;
        if distributor.lists(workload, directory, id) {
            return Looked::Listed;
        }
        if !distributor.is_read(workload, directory) {
            return Looked::Unknown;
        }
        let looked = self.directories.refreshed(workload, directory, id).await;
        if looked == Looked::Listed {
            distributor.until(|distributor| distributor.lists(workload, directory, id)).await;
        }
        looked
    }

    /// Whether an issuer that the workload's rules name has a key of this id by now, and what is on offer says so. At most a
    /// second later.
    pub async fn has_key(&self, workload: String, issuer: String, key_id: String) -> bool {
        if let Role::Follower(leader) = self.relay.role() {
            let Some(leader) = leader else { return false };
            let lookup = pb::KeyLookup { nonce: 0, issuer, key_id };
            let asked = leader.ask(&workload, Question::KeyLookup(lookup));
            return tokio::time::timeout(LOOKUP_TIMEOUT, asked).await.unwrap_or(false);
        }
        if !self.distributor.uses(&workload, &issuer) {
            self.metrics.key_lookups.get_or_create(&ReasonLabel::new("not_its_own")).inc();
            return false;
        }
        self.key_desk.has_key(workload, issuer, key_id).await
    }

    /// The latest epoch under which filters of replicas that follow may have something.
    pub(crate) fn asked_epoch(&self) -> u64 {
        self.relay.asked()
    }

    /// This replica has put something on offer that it signed under this epoch.
    pub(crate) fn signed_under(&self, epoch: u64) {
        self.relay.signed_under(epoch);
    }

    /// A verified workload's filter tells which rules and keys it used.
    pub(super) fn used(&self, workload: &str, uses: pb::Uses) {
        match self.relay.role() {
            Role::Own => self.uses.told(workload, &uses, clock::now()),
            Role::Follower(Some(leader)) => leader.told(workload, uses),
            // It tells everything again on its next stream.
            Role::Follower(None) => {}
        }
    }

    /// Takes what a verified workload's filter decided.
    pub(super) fn decided(&self, batches: &mut Batches, batch: &pb::ReportRequest) -> Option<Written> {
        let manifest = self.manifest_of(batches.workload());
        self.decisions.take(batches, manifest, batch)
    }

    /// Takes those of a batch again that were not written.
    pub(super) fn decided_again(
        &self,
        workload: &str,
        batch: &pb::ReportRequest,
        unwritten: &[usize],
    ) -> Option<Written> {
        self.decisions.take_again(workload, self.manifest_of(workload), batch, unwritten)
    }

    /// SHA-256 of what is to be enforced now as the newest rules say; `None`: nothing is.
    fn manifest_of(&self, workload: &str) -> Option<[u8; 32]> {
        if self.decisions.history().is_aborted(workload) {
            return None;
        }
        let canary = self.distributor.canary(workload).map(|canary| canary.release);
        canary.or_else(|| self.distributor.release(workload)).map(|release| *release.sha256())
    }

    /// What a stream of this caller may use; nothing is metered where nobody was asked.
    pub(super) fn admit(&self, caller: Option<&Caller>) -> Result<Option<StreamPass>, Status> {
        match caller {
            // It would be a mistake of ours, and nobody gets anything by it.
            None => Err(Status::unauthenticated("nobody said who is calling")),
            Some(Caller::Unasked) => Ok(None),
            Some(Caller::Peer { peer, .. }) => self
                .quotas
                .open(peer)
                .map(Some)
                .map_err(|exceeded| self.exceeded(exceeded, &peer.to_string())),
        }
    }

    /// Counts and says that somebody used too much.
    pub(super) fn exceeded(&self, exceeded: Exceeded, who: &str) -> Status {
        self.metrics.quota_exceeded.get_or_create(&ReasonLabel::new(exceeded.word())).inc();
        info!(reason = exceeded.word(), "{who}: {}", exceeded.words());
        Status::resource_exhausted(exceeded.words())
    }

    /// When it is to be asked again who a peer is that was asked now: at a time of its own, so that streams that began
    /// together are not all judged together.
    pub(super) fn identified_until(&self) -> Instant {
        Instant::now() + scattered(self.identified_for)
    }

    /// The text that Prometheus scrapes (OpenMetrics), with what the fleet looks like now.
    pub fn scrape(&self) -> String {
        // Where canaries try something it is the newest that counts.
        let newest = |workload: &str| self.distributor.canary(workload).map(|canary| canary.release);
        let issued = self.distributor.releases().into_iter().map(|(workload, release)| {
            let newest = newest(&workload).unwrap_or(release);
            (workload, newest.manifest().issued_at)
        });
        let issued = issued.collect();
        let now = clock::now();
        match self.relay.role() {
            Role::Own => {
                let report = self.fleet.report(self.distributor.wanted(), now);
                self.metrics.fleet.observe(&report, &issued, now);
            }
            // The leader counts these filters among its own.
            Role::Follower(_) => self.metrics.fleet.observe(&FleetReport::default(), &BTreeMap::new(), now),
        }
        self.metrics.text()
    }

    /// Ends every stream and the server.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Becomes true when the server stops.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }
}

/// Resolves when the server stops.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it the server.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Who sends on a stream, and what it may use.
pub(super) struct Sender {
    pub caller: Option<Caller>,
    pub pass: Option<StreamPass>,
}

/// A service with one method, which is a stream both ways.
pub(super) trait Streaming: Send + Sync + 'static {
    /// Its full name.
    const SERVICE: &'static str;
    /// Path of its method.
    const METHOD: &'static str;
    /// What filters send.
    type Up: Message + Default;

    /// What a stream of this caller may use, if it may have one.
    fn admit(hub: &Hub, caller: Option<&Caller>) -> Result<Option<StreamPass>, Status> {
        hub.admit(caller)
    }

    /// Runs a stream as the body of its response.
    fn body(hub: Arc<Hub>, sender: Sender, inbound: Inbound<Self::Up>) -> Body;
}

/// `PolicyDistribution`.
struct Subscribe;

/// `DecisionSink`.
struct Report;

/// `Relay`.
struct Follow;

/// Serves a [`Streaming`].
struct Served<S> {
    hub: Arc<Hub>,
    streaming: PhantomData<fn() -> S>,
}

// === impl Streaming ===

impl Streaming for Subscribe {
    const SERVICE: &'static str = pb::policy_distribution_server::SERVICE_NAME;
    const METHOD: &'static str = "/tidegate.v1.PolicyDistribution/Subscribe";
    type Up = pb::SubscribeRequest;

    fn body(hub: Arc<Hub>, sender: Sender, inbound: Inbound<Self::Up>) -> Body {
        Body::new(session::body(hub, sender, inbound))
    }
}

impl Streaming for Report {
    const SERVICE: &'static str = pb::decision_sink_server::SERVICE_NAME;
    const METHOD: &'static str = "/tidegate.v1.DecisionSink/Report";
    type Up = pb::ReportRequest;

    fn body(hub: Arc<Hub>, sender: Sender, inbound: Inbound<Self::Up>) -> Body {
        Body::new(sink::body(hub, sender, inbound))
    }
}

impl Streaming for Follow {
    const SERVICE: &'static str = pb::relay_server::SERVICE_NAME;
    const METHOD: &'static str = "/tidegate.v1.Relay/Follow";
    type Up = pb::FollowRequest;

    /// It is read only as fast as it is served, and so is not metered.
    fn admit(hub: &Hub, caller: Option<&Caller>) -> Result<Option<StreamPass>, Status> {
        relay::admit(hub, caller).map(|()| None)
    }

    fn body(hub: Arc<Hub>, _: Sender, inbound: Inbound<Self::Up>) -> Body {
        Body::new(relay::body(hub, inbound.with_largest(relay::MAX_MESSAGE)))
    }
}

// === impl Served ===

impl<S> Served<S> {
    fn new(hub: Arc<Hub>) -> Self {
        Self { hub, streaming: PhantomData }
    }
}

impl<S> Clone for Served<S> {
    fn clone(&self) -> Self {
        Self::new(self.hub.clone())
    }
}

impl<S: Streaming> NamedService for Served<S> {
    const NAME: &'static str = S::SERVICE;
}

impl<S: Streaming> Service<Request<Body>> for Served<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path() != S::METHOD {
            return ready(Ok(Status::unimplemented("no such method").into_http()));
        }
        let caller = request.extensions().get::<Caller>().cloned();
        let pass = match S::admit(&self.hub, caller.as_ref()) {
            Ok(pass) => pass,
            Err(status) => return ready(Ok(status.into_http())),
        };
        let unfinished = pass.as_ref().map(StreamPass::unfinished);
        let inbound = Inbound::new(self.hub.clone(), request.into_body(), unfinished);
        let mut response = Response::new(S::body(self.hub.clone(), Sender { caller, pass }, inbound));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        ready(Ok(response))
    }
}
