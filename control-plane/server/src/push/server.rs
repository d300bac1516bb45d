//! The gRPC server.
//!
//! `Subscribe` is served by hand rather than by the generated trait, because that one encodes every message anew for
//! every stream; see [`super::frames`].

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Buf;
use http::{HeaderValue, Request, Response, header};
use prost::Message;
use tidegate_proto::v1 as pb;
use tidegate_proto::v1::decision_sink_server::DecisionSinkServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::body::Body;
use tonic::codec::{BufferSettings, DecodeBuf, Decoder};
use tonic::server::NamedService;
use tonic::service::InterceptorLayer;
use tonic::{Status, Streaming};
use tower::Service;
use tracing::info;

use super::sink::Sink;
use super::{Distributor, Fleet, session};
use crate::directories::{Index, Looked};
use crate::keys::KeyDesk;
use crate::metrics::{Metrics, ReasonLabel};
use crate::transport::{
    Acceptor, Authenticate, Caller, Exceeded, Incoming, QuotaOptions, Quotas, Roster, StreamPass,
    TransportOptions, WhoIs,
};

const SERVICE: &str = "tidegate.v1.PolicyDistribution";
const SUBSCRIBE: &str = "/tidegate.v1.PolicyDistribution/Subscribe";

/// Largest message of a filter on a Subscribe stream, in bytes.
const MAX_REQUEST: usize = 64 << 10;
/// Largest batch of decision records, in bytes. So much may wait on every stream for the rest of its batch.
const MAX_BATCH: usize = 64 << 10;
/// What a filter may send ahead on one stream, in bytes.
const STREAM_WINDOW: u32 = 64 << 10;
/// What a filter may send ahead on one connection, in bytes.
const CONNECTION_WINDOW: u32 = 256 << 10;
/// Envoy workers of one proxy may share a connection.
const MAX_STREAMS_PER_CONNECTION: u32 = 1_024;
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
    /// What is counted.
    pub metrics: Metrics,
    /// Which workload a verified peer is.
    pub who_is: Arc<dyn WhoIs>,
    pub(crate) quotas: Quotas,
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
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(16 << 10)
        .layer(InterceptorLayer::new(authenticate))
        .add_service(Subscribe { hub: hub.clone() })
        .add_service(DecisionSinkServer::new(Sink::new(hub)).max_decoding_message_size(MAX_BATCH))
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
    let incoming = Acceptor::filters(listener, &options, None, hub.clone())?.into_incoming();
    let authenticate = Authenticate::new(hub.clone(), Arc::new(options));
    Ok(serve(hub, incoming, authenticate).await?)
}

// === impl Hub ===

impl Hub {
    /// Nothing is on offer yet, and nobody is anything.
    pub fn new(directories: Index) -> Self {
        Self::with(directories, Arc::<Roster>::default(), QuotaOptions::default())
    }

    /// The same, with somebody who knows whose workloads are whose, and limits.
    pub fn with(directories: Index, who_is: Arc<dyn WhoIs>, quotas: QuotaOptions) -> Self {
        Self {
            distributor: Distributor::default(),
            fleet: Fleet::default(),
            key_desk: KeyDesk::default(),
            directories,
            metrics: Metrics::default(),
            who_is,
            quotas: Quotas::new(quotas),
            stop: watch::Sender::new(false),
        }
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
        let distributor = &self.distributor;
        if distributor.lists(workload, directory, id) {
            return Looked::Listed;
        }
        if !distributor.is_read(workload, directory) {
            return Looked::Unknown;
        }
        let looked = self.directories.refreshed(directory, id).await;
        if looked == Looked::Listed {
            distributor.until(|distributor| distributor.lists(workload, directory, id)).await;
        }
        looked
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

/// The service `PolicyDistribution`.
#[derive(Clone)]
struct Subscribe {
    hub: Arc<Hub>,
}

// === impl Subscribe ===

impl NamedService for Subscribe {
    const NAME: &'static str = SERVICE;
}

impl Service<Request<Body>> for Subscribe {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path() != SUBSCRIBE {
            return ready(Ok(Status::unimplemented("no such method").into_http()));
        }
        let caller = request.extensions().get::<Caller>().cloned();
        let pass = match self.hub.admit(caller.as_ref()) {
            Ok(pass) => pass,
            Err(status) => return ready(Ok(status.into_http())),
        };
        let sender = Sender { caller, pass };
        let inbound = Streaming::new_request(RequestDecoder, request.into_body(), None, Some(MAX_REQUEST));
        let mut response = Response::new(Body::new(session::body(self.hub.clone(), sender, inbound)));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        ready(Ok(response))
    }
}

/// Reads `SubscribeRequest`s with buffers that fit them: most are acknowledgements of under 100 bytes.
struct RequestDecoder;

/// A message, and how many bytes it was sent in: what is not known of it is dropped, and must be paid for all the same.
#[derive(Debug)]
pub(super) struct Measured {
    pub request: pb::SubscribeRequest,
    pub bytes: usize,
}

// === impl RequestDecoder ===

impl Decoder for RequestDecoder {
    type Item = Measured;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let bytes = buffer.remaining();
        pb::SubscribeRequest::decode(buffer)
            .map(|request| Some(Measured { request, bytes }))
            .map_err(|error| Status::invalid_argument(format!("malformed message: {error}")))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(512, 4 << 10)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;

    use super::*;

    #[tokio::test]
    async fn what_is_not_known_of_a_message_counts_as_sent() {
        // Field 1000, which there is none of: 1000 bytes.
        let mut message = vec![0xc2, 0x3e, 0xe8, 0x07];
        message.extend([b'x'; 1000]);
        let mut sent = vec![0, 0, 0, 0x03, 0xec];
        sent.extend(&message);
        let mut stream =
            Streaming::new_request(RequestDecoder, Full::new(Bytes::from(sent)), None, Some(MAX_REQUEST));
        let Measured { request, bytes } = stream.message().await.unwrap().unwrap();
        assert_eq!((request.encoded_len(), bytes), (0, 1004));
    }
}
