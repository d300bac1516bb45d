use http_body_util::BodyExt;

use super::super::pki::{Authority, CertificateSpec};
use super::super::server::{Body, Server};
use super::super::upstream::Upstream;
use super::*;

async fn upstream() -> (Upstream, Endpoint) {
    let upstream = Upstream::start().await.unwrap();
    let endpoint = Endpoint::plain(upstream.address());
    (upstream, endpoint)
}

async fn hello(_: Request<Incoming>) -> Response<Body> {
    Response::new(Full::new(Bytes::from_static(b"hello")).boxed())
}

async fn tls_server(authority: &Authority, spec: &CertificateSpec) -> Server {
    let credential = authority.issue(spec).unwrap();
    Server::start(Some(tls::server(&credential).unwrap()), hello).await.unwrap()
}

fn loopback() -> CertificateSpec {
    CertificateSpec { addresses: vec![[127, 0, 0, 1].into()], ..CertificateSpec::default() }
}

#[tokio::test]
async fn speaks_both_versions_of_http() {
    let (upstream, endpoint) = upstream().await;
    for (protocol, version) in [(Protocol::Http1, "HTTP/1.1"), (Protocol::Http2, "HTTP/2.0")] {
        let call = Call::new(Method::PUT, "/v1/orders/7?dry=1")
            .authority("orders.sales.example")
            .header("x-twice", "a")
            .header("x-twice", b"\xff")
            .body("12345");
        let answer = endpoint.call(protocol, call).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        let said = answer.json().unwrap();
        assert_eq!(said["version"], version);
        assert_eq!(said["method"], "PUT");
        assert_eq!(said["path"], "/v1/orders/7?dry=1");
        assert_eq!(said["body_bytes"], 5);
        let headers = said["headers"].to_string();
        assert!(headers.contains(r#"["x-twice","a"],["x-twice","�"]"#), "{headers}");
        let authority = if protocol == Protocol::Http1 { &headers } else { &said["authority"].to_string() };
        assert!(authority.contains("orders.sales.example"), "{said}");
        assert_eq!(answer.grpc_status(), None);
    }
    assert_eq!(upstream.requests(), 2);
}

#[tokio::test]
async fn a_connection_serves_more_than_one_call() {
    let (_upstream, endpoint) = upstream().await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut connection = endpoint.connect(protocol).await.unwrap();
        for path in ["/a", "/b"] {
            let answer = connection.call(Call::new(Method::GET, path)).await.unwrap();
            assert_eq!(answer.json().unwrap()["path"], path);
        }
    }
}

#[tokio::test]
async fn a_grpc_call_returns_its_status_and_message() {
    let (_upstream, endpoint) = upstream().await;
    let call = Call::grpc("/sales.v1.Orders/Get", b"\x08\x07");
    let answer = endpoint.call(Protocol::Http2, call).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.grpc_status()), (200, Some(0)), "{answer:?}");
    let said = answer.json().unwrap();
    assert_eq!((&said["path"], &said["body_bytes"]), (&json_string("/sales.v1.Orders/Get"), &Value::from(7)));
}

fn json_string(text: &str) -> Value {
    Value::from(text)
}

#[tokio::test]
async fn streams_arrive_in_pieces_and_end_in_order() {
    let (_upstream, endpoint) = upstream().await;
    let answer = endpoint
        .call(Protocol::Http1, Call::new(Method::GET, "/v1/orders/stream?count=3&interval_ms=1"))
        .await
        .unwrap();
    assert_eq!(answer.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count(), 3);
    let call = Call::grpc("/sales.v1.Orders/Watch?count=2&interval_ms=1", b"");
    let answer = endpoint.call(Protocol::Http2, call).await.unwrap();
    assert_eq!(answer.grpc_status(), Some(0), "{answer:?}");
}

#[tokio::test]
async fn an_endless_stream_can_be_read_piece_by_piece() {
    let (_upstream, endpoint) = upstream().await;
    let mut connection = endpoint.connect(Protocol::Http2).await.unwrap();
    let mut response = connection.start(Call::new(Method::GET, "/stream?interval_ms=1")).await.unwrap();
    for _ in 0..3 {
        assert!(response.body_mut().frame().await.unwrap().unwrap().is_data());
    }
}

#[tokio::test]
async fn tls_demands_the_authority_and_the_name() {
    let (authority, other) = (Authority::new("mesh").unwrap(), Authority::new("other").unwrap());
    let server = tls_server(&authority, &loopback()).await;
    let get = || Call::new(Method::GET, "/");
    let address = server.address();

    let good = Endpoint::tls(address, authority.pem(), "127.0.0.1");
    for protocol in [Protocol::Http1, Protocol::Http2] {
        assert_eq!(good.call(protocol, get()).await.unwrap().body.as_ref(), b"hello");
    }
    for (endpoint, why) in [
        (Endpoint::tls(address, other.pem(), "127.0.0.1"), "UnknownIssuer"),
        (Endpoint::tls(address, authority.pem(), "localhost"), "not valid for name"),
        (Endpoint::mesh(address, other.pem()), "UnknownIssuer"),
    ] {
        let error = endpoint.call(Protocol::Http1, get()).await.unwrap_err();
        assert!(matches!(error, CallError::Handshake { .. }), "{error:?}");
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[tokio::test]
async fn a_mesh_endpoint_takes_a_workload_without_a_host_name_but_not_an_expired_one() {
    let authority = Authority::new("mesh").unwrap();
    let spec = CertificateSpec {
        uris: vec!["spiffe://prod.example/ns/a/sa/b".into()],
        ..CertificateSpec::default()
    };
    let server = tls_server(&authority, &spec).await;
    let endpoint = Endpoint::mesh(server.address(), authority.pem());
    assert_eq!(endpoint.call(Protocol::Http2, Call::new(Method::GET, "/")).await.unwrap().status, 200);

    let server = tls_server(&authority, &CertificateSpec { expired: true, ..spec }).await;
    let endpoint = Endpoint::mesh(server.address(), authority.pem());
    let error = endpoint.call(Protocol::Http2, Call::new(Method::GET, "/")).await.unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
}

#[tokio::test]
async fn failures_say_what_and_where() {
    let (upstream, endpoint) = upstream().await;
    let address = upstream.address();
    let invalid = Call::new(Method::GET, "/").header("x-bad", "a\nb");
    let error = endpoint.call(Protocol::Http1, invalid).await.unwrap_err();
    assert_eq!(error.to_string(), "invalid request: `value of header` `x-bad`: failed to parse header value");

    let slow = Call::new(Method::GET, "/stream").timeout(Duration::from_millis(50));
    let error = endpoint.call(Protocol::Http1, slow).await.unwrap_err();
    assert_eq!(error.to_string(), format!("{address} did not answer within 0.05 s"));

    drop(upstream);
    let error = endpoint.call(Protocol::Http1, Call::new(Method::GET, "/")).await.unwrap_err();
    assert!(matches!(error, CallError::Connect { .. }), "{error:?}");
}
