//! A receiver of OTLP that keeps what it gets: gRPC with the service traits that OpenTelemetry generates, HTTP with
//! protobuf as its specification says.

use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, number_data_point};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Status};

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mood {
    /// It takes everything.
    #[default]
    Takes,
    /// Try again later.
    Unavailable,
    /// Never.
    Refuses,
    /// It takes all but so many of each batch.
    AllBut(i64),
    /// Batches of so many at most.
    AtMost(usize),
    /// It takes a batch, and says so only after a long time.
    Sleeps,
}

/// What it got.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    /// Records, each with what sent it.
    pub logs: Vec<(Resource, LogRecord)>,
    /// Spans.
    pub spans: Vec<Span>,
    /// The figures of the last request.
    pub metrics: Vec<Metric>,
    /// Headers of every request.
    pub headers: Vec<HeaderMap>,
    /// Requests, those that were not taken too.
    pub requests: usize,
}

/// A receiver that runs. Dropping it stops it.
#[derive(Debug)]
pub struct Receiver {
    /// Where it serves gRPC.
    pub grpc: SocketAddr,
    /// Where it serves HTTP.
    pub http: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Shared {
    taken: Mutex<Taken>,
    mood: Mutex<Mood>,
}

#[derive(Debug, Clone)]
struct Service(Arc<Shared>);

/// Why a request is not taken.
enum Not {
    Unavailable,
    Refused,
    TooLarge,
}

// === impl Receiver ===

impl Receiver {
    /// Serves both protocols on free ports.
    ///
    /// # Errors
    /// Where no port can be had.
    pub async fn start() -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let grpc = TcpListener::bind("127.0.0.1:0").await?;
        let http = TcpListener::bind("127.0.0.1:0").await?;
        let (grpc_addr, http_addr) = (grpc.local_addr()?, http.local_addr()?);
        let mut tasks = JoinSet::new();
        let service = || Service(shared.clone());
        let gzip = CompressionEncoding::Gzip;
        let server = tonic::transport::Server::builder()
            .add_service(LogsServiceServer::new(service()).accept_compressed(gzip))
            .add_service(MetricsServiceServer::new(service()).accept_compressed(gzip))
            .add_service(TraceServiceServer::new(service()).accept_compressed(gzip));
        tasks.spawn(async move {
            let _ = server.serve_with_incoming(TcpListenerStream::new(grpc)).await;
        });
        let router = Router::new()
            .route("/v1/logs", post(logs))
            .route("/v1/metrics", post(metrics))
            .route("/v1/traces", post(traces))
            .with_state(service());
        tasks.spawn(async move {
            let _ = axum::serve(http, router).await;
        });
        Ok(Self { grpc: grpc_addr, http: http_addr, shared, _tasks: tasks })
    }

    /// Answers so from now on.
    pub fn set(&self, mood: Mood) {
        *self.shared.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }

    /// What it got so far.
    pub fn taken(&self) -> MutexGuard<'_, Taken> {
        self.shared.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it has got what holds; whether that came within `patience`.
    pub async fn until(&self, patience: Duration, holds: impl Fn(&Taken) -> bool) -> bool {
        let end = Instant::now() + patience;
        while !holds(&self.taken()) {
            if Instant::now() > end {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }
}

// === impl Taken ===

impl Taken {
    /// The value of a counter or gauge, summed over the points whose attributes have all of `labels`.
    pub fn figure(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let metric = self.metrics.iter().find(|metric| metric.name == name)?;
        let points = match metric.data.as_ref()? {
            Data::Sum(sum) => &sum.data_points,
            Data::Gauge(gauge) => &gauge.data_points,
            _ => return None,
        };
        let has =
            |attributes: &[KeyValue], (name, value): &(&str, &str)| text(attributes, name) == Some(*value);
        let points: Vec<f64> = points
            .iter()
            .filter(|point| labels.iter().all(|label| has(&point.attributes, label)))
            .filter_map(|point| match point.value? {
                number_data_point::Value::AsDouble(value) => Some(value),
                #[allow(clippy::cast_precision_loss)]
                number_data_point::Value::AsInt(value) => Some(value as f64),
            })
            .collect();
        (!points.is_empty()).then(|| points.iter().sum())
    }
}

/// A text among attributes.
pub fn text<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a str> {
    let attribute = attributes.iter().find(|attribute| attribute.key == name)?;
    match attribute.value.as_ref()? {
        AnyValue { value: Some(Value::StringValue(value)) } => Some(value),
        _ => None,
    }
}

// === impl Service ===

impl Service {
    async fn admit(&self, headers: HeaderMap, size: usize) -> Result<i64, Not> {
        let mood = *self.0.mood.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut taken = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
            taken.requests += 1;
            taken.headers.push(headers);
        }
        match mood {
            Mood::Takes => Ok(0),
            Mood::Unavailable => Err(Not::Unavailable),
            Mood::Refuses => Err(Not::Refused),
            Mood::AllBut(rejected) => Ok(rejected),
            Mood::AtMost(most) if size > most => Err(Not::TooLarge),
            Mood::AtMost(_) => Ok(0),
            Mood::Sleeps => {
                tokio::time::sleep(Duration::from_secs(3_600)).await;
                Ok(0)
            }
        }
    }

    async fn logs(
        &self,
        headers: HeaderMap,
        request: ExportLogsServiceRequest,
    ) -> Result<ExportLogsServiceResponse, Not> {
        let records: Vec<(Resource, LogRecord)> = request
            .resource_logs
            .into_iter()
            .flat_map(|logs| {
                let resource = logs.resource.unwrap_or_default();
                let records = logs.scope_logs.into_iter().flat_map(|logs| logs.log_records);
                records.map(move |record| (resource.clone(), record)).collect::<Vec<_>>()
            })
            .collect();
        let rejected = self.admit(headers, records.len()).await?;
        let taken = records.len().saturating_sub(usize::try_from(rejected).unwrap_or(0));
        let mut all = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        all.logs.extend(records.into_iter().take(taken));
        let partial = (rejected > 0).then(|| ExportLogsPartialSuccess {
            rejected_log_records: rejected,
            error_message: "too many\nof them".to_owned(),
        });
        Ok(ExportLogsServiceResponse { partial_success: partial })
    }

    async fn metrics(
        &self,
        headers: HeaderMap,
        request: ExportMetricsServiceRequest,
    ) -> Result<ExportMetricsServiceResponse, Not> {
        self.admit(headers, 0).await?;
        let metrics = request.resource_metrics.into_iter().flat_map(|metrics| metrics.scope_metrics);
        let metrics = metrics.flat_map(|metrics| metrics.metrics).collect();
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner).metrics = metrics;
        Ok(ExportMetricsServiceResponse::default())
    }

    async fn traces(
        &self,
        headers: HeaderMap,
        request: ExportTraceServiceRequest,
    ) -> Result<ExportTraceServiceResponse, Not> {
        self.admit(headers, 0).await?;
        let spans = request.resource_spans.into_iter().flat_map(|spans| spans.scope_spans);
        let spans = spans.flat_map(|spans| spans.spans);
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner).spans.extend(spans);
        Ok(ExportTraceServiceResponse::default())
    }
}

// === impl Not ===

impl From<Not> for Status {
    fn from(not: Not) -> Self {
        match not {
            Not::Unavailable => Self::unavailable("come later"),
            Not::Refused => Self::invalid_argument("not this"),
            Not::TooLarge => Self::resource_exhausted("message too large"),
        }
    }
}

impl IntoResponse for Not {
    fn into_response(self) -> Response {
        match self {
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "come later").into_response(),
            Self::Refused => (StatusCode::BAD_REQUEST, "not this").into_response(),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too large").into_response(),
        }
    }
}

#[tonic::async_trait]
impl LogsService for Service {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        Ok(tonic::Response::new(self.logs(metadata.into_headers(), message).await?))
    }
}

#[tonic::async_trait]
impl MetricsService for Service {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        Ok(tonic::Response::new(self.metrics(metadata.into_headers(), message).await?))
    }
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        Ok(tonic::Response::new(self.traces(metadata.into_headers(), message).await?))
    }
}

async fn logs(State(service): State<Service>, headers: HeaderMap, body: Bytes) -> Response {
    match decode(&headers, &body) {
        Ok(message) => answer(service.logs(headers, message).await),
        Err(not) => not.into_response(),
    }
}

async fn metrics(State(service): State<Service>, headers: HeaderMap, body: Bytes) -> Response {
    match decode(&headers, &body) {
        Ok(message) => answer(service.metrics(headers, message).await),
        Err(not) => not.into_response(),
    }
}

async fn traces(State(service): State<Service>, headers: HeaderMap, body: Bytes) -> Response {
    match decode(&headers, &body) {
        Ok(message) => answer(service.traces(headers, message).await),
        Err(not) => not.into_response(),
    }
}

fn decode<M: Message + Default>(headers: &HeaderMap, body: &[u8]) -> Result<M, Not> {
    if headers.get("content-type").is_none_or(|kind| kind != "application/x-protobuf") {
        return Err(Not::Refused);
    }
    let mut plain = Vec::new();
    if headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip") {
        flate2::read::GzDecoder::new(body).read_to_end(&mut plain).map_err(|_| Not::Refused)?;
    } else {
        plain.extend_from_slice(body);
    }
    M::decode(&*plain).map_err(|_| Not::Refused)
}

fn answer<M: Message>(answer: Result<M, Not>) -> Response {
    match answer {
        Ok(message) => {
            ([("content-type", "application/x-protobuf")], message.encode_to_vec()).into_response()
        }
        Err(not) => not.into_response(),
    }
}
