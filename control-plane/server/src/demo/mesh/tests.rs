use http::Method;

use super::super::client::{Call, CallError, Endpoint, Protocol};
use super::super::envoy::{Envoy, EnvoyOptions, EnvoyRelease, find_envoy};
use super::super::pki::Authority;
use super::super::upstream::Upstream;
use super::*;

const SERVICE_ID: &str = "spiffe://prod.example/ns/sales/sa/orders";
const WORKER_ID: &str = "spiffe://prod.example/ns/etl/sa/orders-worker";

struct Mesh {
    authority: Authority,
    foreign: Authority,
    upstream: Upstream,
    service: Envoy,
}

fn node() -> Node {
    Node::new("sales", "orders-api", "orders")
}

async fn start(name: &str, config: &ProxyConfig) -> Envoy {
    let binary = find_envoy(EnvoyRelease::Current, None).await.unwrap();
    Envoy::start(&binary, name, &config.to_json(), &EnvoyOptions::default()).await.unwrap()
}

impl Mesh {
    async fn start(configure: impl FnOnce(HttpListener) -> HttpListener) -> Self {
        let (authority, foreign) = (Authority::new("mesh").unwrap(), Authority::new("foreign").unwrap());
        let upstream = Upstream::start().await.unwrap();
        let credential = authority.workload(SERVICE_ID).unwrap();
        let config = service_side(node(), &credential, authority.pem(), upstream.address(), configure);
        Self { service: start("service", &config).await, authority, foreign, upstream }
    }

    fn inbound(&self) -> SocketAddr {
        self.service.address(INBOUND).unwrap()
    }

    fn worker<'a>(&self, listener: &'a str, credential: &'a Credential) -> Worker<'a> {
        Worker { listener, credential, service: self.inbound() }
    }

    /// Straight to the service's proxy, as a workload of the mesh.
    fn direct(&self) -> Endpoint {
        let credential = self.authority.workload(WORKER_ID).unwrap();
        Endpoint::mesh(self.inbound(), self.authority.pem()).with_credential(&credential)
    }
}

fn header(said: &Value, name: &str) -> Vec<String> {
    let headers = said["headers"].as_array().unwrap().iter();
    headers.filter(|pair| pair[0] == name).map(|pair| pair[1].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_worker_s_request_reaches_the_application_with_its_spiffe_id() {
    let mesh = Mesh::start(|http| http).await;
    let worker = mesh.authority.workload(WORKER_ID).unwrap();
    let gateway_id = "spiffe://prod.example/ns/ingress/sa/dataflow-in";
    let other = mesh.authority.workload(gateway_id).unwrap();
    let workers = [mesh.worker("worker", &worker), mesh.worker("other", &other)];
    let config = worker_side(node(), &workers, mesh.authority.pem(), SERVICE_ID);
    let proxy = start("worker", &config).await;
    for (listener, id) in [("worker", WORKER_ID), ("other", gateway_id)] {
        let endpoint = Endpoint::plain(proxy.address(listener).unwrap());
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let call = Call::new(Method::POST, "/v1/orders/7").authority("orders.sales.example").body("{}");
            let answer = endpoint.call(protocol, call).await.unwrap();
            assert_eq!(answer.status, 200, "{answer:?}");
            let said = answer.json().unwrap();
            let expected = if protocol == Protocol::Http1 { "HTTP/1.1" } else { "HTTP/2.0" };
            assert_eq!(said["version"], expected, "the version is kept all the way");
            let certificate = header(&said, "x-forwarded-client-cert").join(",");
            assert!(certificate.contains(&format!("URI={id}")), "{certificate}");
        }
        let answer = endpoint.call(Protocol::Http2, Call::grpc("/sales.v1.Orders/Get", b"")).await.unwrap();
        assert_eq!(answer.grpc_status(), Some(0), "{answer:?}");
    }
    assert_eq!(mesh.upstream.requests(), 6);
}

#[tokio::test]
async fn the_guarded_listener_refuses_everybody_without_a_certificate_of_the_mesh() {
    let mesh = Mesh::start(|http| http).await;
    let get = || Call::new(Method::GET, "/");
    assert_eq!(mesh.direct().call(Protocol::Http1, get()).await.unwrap().status, 200);
    let foreign = mesh.foreign.workload(WORKER_ID).unwrap();
    for (name, endpoint) in [
        ("none", Endpoint::mesh(mesh.inbound(), mesh.authority.pem())),
        ("foreign", Endpoint::mesh(mesh.inbound(), mesh.authority.pem()).with_credential(&foreign)),
        ("plain text", Endpoint::plain(mesh.inbound())),
    ] {
        let error = endpoint.call(Protocol::Http1, get()).await.unwrap_err();
        assert!(matches!(error, CallError::Broken { .. } | CallError::Handshake { .. }), "{name}: {error:?}");
    }
    assert_eq!(mesh.upstream.requests(), 1);
}

#[tokio::test]
async fn the_raw_listener_lets_bytes_pass_to_the_application() {
    let mesh = Mesh::start(|http| http).await;
    let endpoint = Endpoint::plain(mesh.service.address(RAW).unwrap());
    let said = endpoint.call(Protocol::Http1, Call::new(Method::GET, "/raw")).await.unwrap().json().unwrap();
    assert_eq!(said["path"], "/raw");
    assert_eq!(
        header(&said, "x-envoy-expected-rq-timeout-ms").len() + header(&said, "x-request-id").len(),
        0
    );
}

#[tokio::test]
async fn the_gateway_takes_callers_without_a_certificate_and_forwards_as_itself() {
    let mesh = Mesh::start(|http| http).await;
    let gateway_id = "spiffe://prod.example/ns/ingress/sa/dataflow-in";
    let server = mesh.foreign.loopback_server(&["dataflow-in.example"]).unwrap();
    let workload = mesh.authority.workload(gateway_id).unwrap();
    let authority = mesh.authority.pem();
    let config = gateway(node(), &server, &workload, authority, mesh.inbound(), SERVICE_ID, |http| http);
    let proxy = start("gateway", &config).await;
    let address = proxy.address(GATEWAY).unwrap();
    let endpoint = Endpoint::tls(address, mesh.foreign.pem(), "dataflow-in.example");
    let answer = endpoint.call(Protocol::Http2, Call::new(Method::GET, "/")).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let certificate = header(&answer.json().unwrap(), "x-forwarded-client-cert").join(",");
    assert!(certificate.contains(&format!("URI={gateway_id}")), "{certificate}");
}

#[tokio::test]
async fn a_proxy_refuses_a_service_with_another_identity() {
    let mesh = Mesh::start(|http| http).await;
    let worker = mesh.authority.workload(WORKER_ID).unwrap();
    let expected = "spiffe://prod.example/ns/sales/sa/somebody-else";
    let config = worker_side(node(), &[mesh.worker("worker", &worker)], mesh.authority.pem(), expected);
    let proxy = start("worker", &config).await;
    let endpoint = Endpoint::plain(proxy.address("worker").unwrap());
    let answer = endpoint.call(Protocol::Http1, Call::new(Method::GET, "/")).await.unwrap();
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(mesh.upstream.requests(), 0);
}

#[tokio::test]
async fn paths_are_normalised_as_istio_does_by_default() {
    let mesh = Mesh::start(|http| http).await;
    for (sent, seen) in [
        ("/a/../b", "/b"),
        ("/a/%2e%2e/b", "/b"),
        ("/a//b", "/a//b"),
        ("/a%2Fb", "/a%2Fb"),
        ("/%61", "/a"),
        (r"/a?x=../", "/a?x=../"),
    ] {
        let answer = mesh.direct().call(Protocol::Http1, Call::new(Method::GET, sent)).await.unwrap();
        assert_eq!(answer.json().unwrap()["path"], seen, "{sent}");
    }
    let mesh = Mesh::start(|http| http.normalization(Normalization::Off)).await;
    let answer = mesh.direct().call(Protocol::Http1, Call::new(Method::GET, "/a/../b")).await.unwrap();
    assert_eq!(answer.json().unwrap()["path"], "/a/../b");
}

#[tokio::test]
async fn the_highest_limits_take_what_the_usual_ones_refuse() {
    let many =
        || (0..500).fold(Call::new(Method::GET, "/"), |call, index| call.header(&format!("x-{index}"), "v"));
    let long = || Call::new(Method::GET, "/").header("x-long", vec![b'a'; 64 << 10]);
    let usual = Mesh::start(|http| http).await;
    let highest = Mesh::start(|http| http.limits(Limits::HIGHEST)).await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for (name, call) in [("many", many()), ("long", long())] {
            let refused = usual.direct().call(protocol, call.clone()).await;
            assert!(
                refused.as_ref().map_or(true, |answer| answer.status == 431),
                "{name} {protocol:?}: {refused:?}"
            );
            let taken = highest.direct().call(protocol, call).await.unwrap();
            assert_eq!(taken.status, 200, "{name} {protocol:?}: {taken:?}");
        }
    }
    assert_eq!((usual.upstream.requests(), highest.upstream.requests()), (0, 4));
}

#[tokio::test]
async fn writes_an_access_log_of_the_fields_that_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.jsonl");
    let fields = vec![
        ("path".to_owned(), "%REQ(:PATH)%".to_owned()),
        ("code".to_owned(), "%RESPONSE_CODE%".to_owned()),
    ];
    let mesh = Mesh::start(|http| http.access_log(AccessLog { path: path.clone(), fields })).await;
    mesh.direct().call(Protocol::Http1, Call::new(Method::GET, "/seen")).await.unwrap();
    let mut log = String::new();
    for _ in 0..100 {
        log = std::fs::read_to_string(&path).unwrap();
        if !log.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(serde_json::from_str::<Value>(&log).unwrap(), json!({"path": "/seen", "code": 200}));
}

#[tokio::test]
async fn other_filters_go_in_front_of_the_router() {
    let rbac = json!({
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            "rules": {"action": "ALLOW", "policies": {}},
        },
    });
    let mesh = Mesh::start(|http| http.filter(HttpFilter::Other(rbac))).await;
    let answer = mesh.direct().call(Protocol::Http1, Call::new(Method::GET, "/")).await.unwrap();
    assert_eq!(answer.status, 403);
    assert_eq!(mesh.upstream.requests(), 0);
}

#[test]
fn the_filter_is_configured_as_istio_does() {
    let filter = WasmFilter::tidegate("/modules/filter.wasm", &json!({"workload": "sales/orders-api"}));
    let config = &HttpFilter::from(filter).to_json()["typed_config"]["config"];
    assert_eq!(config["failure_policy"], "FAIL_RELOAD");
    assert_eq!(config["vm_config"]["runtime"], "envoy.wasm.runtime.v8");
    assert_eq!(config["vm_config"]["code"]["local"]["filename"], "/modules/filter.wasm");
    assert_eq!(config["configuration"]["value"], r#"{"workload":"sales/orders-api"}"#);
}

#[tokio::test]
async fn a_module_that_is_no_wasm_is_refused_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let module = folder.path().join("filter.wasm");
    std::fs::write(&module, "not wasm").unwrap();
    let authority = Authority::new("mesh").unwrap();
    let credential = authority.workload(SERVICE_ID).unwrap();
    let upstream = "127.0.0.1:9".parse().unwrap();
    let config = service_side(node(), &credential, authority.pem(), upstream, |http| {
        http.filter(WasmFilter::tidegate(&module, &json!({})))
    });
    let binary = find_envoy(EnvoyRelease::Current, None).await.unwrap();
    let error = Envoy::start(&binary, "service", &config.to_json(), &EnvoyOptions::default())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("before it was ready") && error.contains("Wasm"), "{error}");
}
