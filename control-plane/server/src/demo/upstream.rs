//! The application behind the service's Envoy: tells what reached it.
//!
//! Every request is answered with what was received, as JSON; a gRPC call is answered with status 0 and the same JSON
//! as the bytes of its message. Where the path's last segment is `stream`, or `Watch` in a gRPC call, the answer is a
//! stream: the query may say `count` (else it goes on until the caller leaves) and `interval_ms` (else 100). `delay_ms` in
//! the query of any request puts the whole answer off.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, Request, Response, request};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::{Value, json};

use super::server::{Body, Server};

/// A running upstream; dropping it stops it.
#[derive(Debug)]
pub struct Upstream {
    server: Server,
    requests: Arc<AtomicU64>,
}

impl Upstream {
    /// Starts it on a free loopback port, for HTTP/1.1 and HTTP/2 in plain text.
    pub async fn start() -> io::Result<Self> {
        let requests = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&requests);
        let server = Server::start(None, move |request| {
            counter.fetch_add(1, Ordering::Relaxed);
            answer(request)
        });
        Ok(Self { server: server.await?, requests })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// How many requests have reached it.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

async fn answer(request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    if let Some(delay) = number(&head, "delay_ms") {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let is_grpc = is_grpc(&head);
    let last_segment = head.uri.path().rsplit('/').next().unwrap_or_default();
    let streams = last_segment == if is_grpc { "Watch" } else { "stream" };
    let body_bytes = if streams { None } else { body.collect().await.ok().map(|body| body.to_bytes().len()) };
    let said = Bytes::from(describe(&head, body_bytes).to_string());
    let piece = if is_grpc { grpc_frame(&said) } else { said };
    let body = match (streams, is_grpc) {
        (false, false) => Full::new(piece).boxed(),
        (false, true) => Full::new(piece).with_trailers(async { Some(Ok(grpc_ok())) }).boxed(),
        (true, _) => stream(&head, piece, is_grpc),
    };
    let mut response = Response::new(body);
    let content_type = if is_grpc { "application/grpc" } else { "application/json" };
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn describe(head: &request::Parts, body_bytes: Option<usize>) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers: Vec<_> =
        head.headers.iter().map(|(name, value)| json!([name.as_str(), text(value.as_bytes())])).collect();
    json!({
        "method": head.method.as_str(),
        "path": head.uri.path_and_query().map_or_else(|| head.uri.to_string(), ToString::to_string),
        "authority": head.uri.authority().map(ToString::to_string),
        "version": format!("{:?}", head.version),
        "headers": headers,
        "body_bytes": body_bytes,
    })
}

fn stream(head: &request::Parts, piece: Bytes, is_grpc: bool) -> Body {
    let count = number(head, "count").and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    let interval = Duration::from_millis(number(head, "interval_ms").unwrap_or(100));
    let piece = if is_grpc { piece } else { Bytes::from([piece.as_ref(), b"\n"].concat()) };
    let pieces = futures_util::stream::iter(0..count).then(move |index| {
        let piece = piece.clone();
        async move {
            if index > 0 {
                tokio::time::sleep(interval).await;
            }
            Ok::<_, Infallible>(Frame::data(piece))
        }
    });
    let end = futures_util::stream::iter(is_grpc.then(|| Ok(Frame::trailers(grpc_ok()))));
    BodyExt::boxed(StreamBody::new(pieces.chain(end)))
}

/// A number in the query.
fn number(head: &request::Parts, name: &str) -> Option<u64> {
    let mut query = url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
    query.find(|(known, _)| known == name)?.1.parse().ok()
}

fn is_grpc(head: &request::Parts) -> bool {
    head.headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

fn grpc_frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

fn grpc_ok() -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))])
}
