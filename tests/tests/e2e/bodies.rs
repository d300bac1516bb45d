//! Bodies that decide, on a real Envoy: the server never gets the whole of what is refused.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use http::Method;
use tidegate::bundle::{Contents, Publisher, SectionStore};
use tidegate::demo::client::{Call, Endpoint, Protocol};
use tidegate::demo::envoy::{Envoy, EnvoyOptions, EnvoyRelease, find_envoy};
use tidegate::demo::mesh::{Cluster, HttpListener, Listener, Node, ProxyConfig, WasmFilter};
use tidegate::demo::upstream::Upstream;
use tidegate::plugin_config::PluginConfig;
use tidegate::state::StateDir;
use tidegate_engine::model::*;
use tidegate_proto::v1 as pb;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const WORKLOAD: &str = "sales/orders-api";
const HOST: &str = "orders.sales.example";

/// Anybody may POST where the message's field 1, or the member `topic`, begins with `orders-`.
fn model() -> PolicyModel {
    let is_orders = |field| Condition::Text(Operand::Body(field), TextTest::Prefix("orders-".into()));
    let operation = |grpc, condition| OperationModel {
        methods: Some(vec!["POST".into()]),
        grpc,
        condition,
        ..OperationModel::default()
    };
    PolicyModel {
        issuers: vec![],
        guards: vec![GuardModel { id: "sales/g".into(), mode: Mode::Enforce, ports: None, audiences: None }],
        directories: vec![],
        rules: vec![
            RuleModel {
                id: "sales/publish".into(),
                effect: Effect::Allow,
                mode: Mode::Enforce,
                owner: "team".into(),
                contact: String::new(),
                disclosure: Disclosure::Full,
                audit: Default::default(),
                lease: Lease::default(),
                revokes: false,
                from: vec![FromModel {
                    peer: PeerModel::Anyone,
                    issuers: vec![],
                    condition: Condition::True,
                }],
                to: Some(vec![
                    operation(true, is_orders(BodyField::Protobuf(vec![1]))),
                    operation(false, is_orders(BodyField::Json(vec![vec!["topic".into()]]))),
                ]),
            }
            .into(),
        ],
    }
}

/// A server of HTTP/1.1 that keeps every byte it gets, and answers a request once it is whole.
struct Recorder {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Recorder {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, seen) = (listener.local_addr()?, Arc::new(Mutex::new(Vec::new())));
        let recorded = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let recorded = Arc::clone(&recorded);
                tokio::spawn(async move {
                    let (mut request, mut buffer) = (Vec::new(), [0; 16384]);
                    while let Ok(length @ 1..) = connection.read(&mut buffer).await {
                        request.extend_from_slice(&buffer[..length]);
                        recorded.lock().unwrap().extend_from_slice(&buffer[..length]);
                        if is_whole(&request) {
                            request.clear();
                            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                            if connection.write_all(answer).await.is_err() {
                                return;
                            }
                        }
                    }
                });
            }
        });
        Ok(Self { address, seen })
    }

    /// What came since the last time.
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

fn is_whole(request: &[u8]) -> bool {
    // Heads are short; bodies need not be.
    let beginning = &request[..request.len().min(8192)];
    let Some(end) = beginning.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&beginning[..end]).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    match length.and_then(|length| length.parse::<usize>().ok()) {
        Some(length) => request.len() >= end + 4 + length,
        None => request.ends_with(b"0\r\n\r\n"),
    }
}

/// Sends a request of HTTP/1.1 in pieces, each a moment after the other; the answer's status.
async fn in_pieces(address: SocketAddr, content_type: &str, pieces: &[&[u8]]) -> Result<u16> {
    let mut connection = TcpStream::connect(address).await?;
    let head = format!(
        "POST /v1/publish HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await?;
    for piece in pieces {
        tokio::time::sleep(Duration::from_millis(30)).await;
        let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
        // What is refused may be cut off.
        if connection.write_all(&chunk).await.is_err() {
            break;
        }
    }
    tokio::time::sleep(Duration::from_millis(30)).await;
    let _ = connection.write_all(b"0\r\n\r\n").await;
    let mut answer = vec![0; 4096];
    let length = tokio::time::timeout(Duration::from_secs(10), connection.read(&mut answer)).await??;
    let text = String::from_utf8_lossy(&answer[..length]).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.with_context(|| format!("no answer: {text:?}"))
}

async fn proxy(folder: &std::path::Path, module: &[u8], upstream: SocketAddr) -> Result<Envoy> {
    proxy_of(folder, module, upstream, EnvoyRelease::Current).await
}

async fn proxy_of(
    folder: &std::path::Path,
    module: &[u8],
    upstream: SocketAddr,
    release: EnvoyRelease,
) -> Result<Envoy> {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    let mut publisher = Publisher::open(Arc::new(StateDir::open(&folder.join("state"))?), now)?;
    let mut store = SectionStore::default();
    let rules = store.section(pb::SectionKind::Rules, &tidegate_engine::encode(&model())?);
    let contents = Contents {
        coverage: pb::Coverage::Guarded,
        sections: vec![rules],
        candidate: Vec::new(),
        required_capabilities: Vec::new(),
        used_capabilities: Vec::new(),
        suspended_until: 0,
    };
    let releases = publisher.publish(BTreeMap::from([(WORKLOAD.to_owned(), contents)]), now)?;
    let bundle = releases.get(WORKLOAD).context("there is a Bundle")?.bundle();
    let config = PluginConfig::new(WORKLOAD, publisher.keys().trusted()).with_bundle(&bundle);
    let path = folder.join("filter.wasm");
    std::fs::write(&path, module)?;
    let filter = WasmFilter::tidegate(&path, &serde_json::to_value(config)?);
    let proxy = ProxyConfig::new(Node::new("sales", "orders-api", "orders-api"))
        .listener(Listener::http("plain", HttpListener::forward_to("upstream").filter(filter)))
        .cluster(Cluster::new("upstream", upstream));
    let binary = find_envoy(release, None).await?;
    let options = EnvoyOptions { concurrency: 1, ..EnvoyOptions::default() };
    Ok(Envoy::start(&binary, "bodies", &proxy.to_json(), &options).await?)
}

/// A message with this text as field 1, behind another field of this many bytes.
fn message(topic: &str, before: usize) -> Vec<u8> {
    let varint = |mut value: usize| {
        let mut bytes = Vec::new();
        while value >= 128 {
            bytes.push(u8::try_from(value % 128).unwrap() | 128);
            value /= 128;
        }
        bytes.push(u8::try_from(value).unwrap());
        bytes
    };
    let field = |key: u8, content: &[u8]| [&[key][..], &varint(content.len()), content].concat();
    [field(0x12, &vec![b'x'; before]), field(0x0a, topic.as_bytes())].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_never_gets_the_whole_of_what_its_body_refuses() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let recorder = Recorder::start().await?;
    let envoy = proxy(folder.path(), tidegate::FILTER_BODIES_WASM, recorder.address).await?;
    let address = envoy.address("plain")?;

    // Pieces that end within names, escapes and values.
    let cases: [(&str, &[&[u8]], u16); 9] = [
        ("application/json", &[br#"{"data":"x","to"#, br#"pic":"ord"#, br#"ers-1"#, br#""}"#], 200),
        ("application/json", &[br#"{"data":"x","to"#, br#"pic":"bil"#, br#"ling"#, br#""}"#], 403),
        ("application/json", &[br#"{"topic":"orders-1","topic""#, br#":"billing"}"#], 403),
        ("application/json", &[br#"{"t\u00"#, br#"6fpic":"billing"}"#], 403),
        ("application/json", &[br#"{"t\u00"#, br#"6fpic":"orders-1"}"#], 200),
        ("application/json", &[br#"{"topic":"orders-1""#], 403),
        ("application/json", &[br#"{"data":1}"#], 403),
        ("application/json", &[b"\x1f\x8b\x08\x00", b"compressed"], 403),
        ("text/plain", &[br#"{"topic":"orders-1"}"#], 403),
    ];
    let (mut allowed, mut refused) = (0, 0);
    for (content_type, pieces, expected) in cases {
        let status = in_pieces(address, content_type, pieces).await?;
        let shown = String::from_utf8_lossy(&pieces.concat()).into_owned();
        ensure!(status == expected, "{content_type} {shown}: {status}, expected {expected}");
        // What was refused is cut off; the last piece never got through.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let seen = recorder.take();
        let last = pieces.last().copied().unwrap_or_default();
        let through = seen.windows(last.len()).any(|window| window == last);
        if expected == 200 {
            ensure!(through, "{shown}: did not arrive");
            allowed += 1;
        } else {
            ensure!(!is_whole(&seen), "{shown}: the server got {}", String::from_utf8_lossy(&seen));
            refused += 1;
        }
    }

    // gRPC over HTTP/2, and messages that are larger than what the proxy keeps of a body.
    let folder = tempfile::tempdir()?;
    let upstream = Upstream::start().await?;
    let envoy = proxy(folder.path(), tidegate::FILTER_BODIES_WASM, upstream.address()).await?;
    let endpoint = Endpoint::plain(envoy.address("plain")?);
    for (topic, before, expected) in [
        ("orders-1", 10, 0),
        ("orders-1", 3_000_000, 0),
        ("billing", 10, 7),
        ("billing", 3_000_000, 7),
        ("", 10, 7),
    ] {
        let message = message(topic, before);
        let call = Call::grpc("/google.pubsub.v1.Publisher/Publish", &message).authority(HOST);
        let answer = endpoint.call(Protocol::Http2, call).await?;
        ensure!(answer.grpc_status() == Some(expected), "{topic:?} {before}: {:?}", answer.grpc_status());
        if expected == 0 {
            let said = String::from_utf8_lossy(&answer.body).into_owned();
            ensure!(said.contains(&format!("\"body_bytes\":{}", message.len() + 5)), "{said}");
            allowed += 1;
        } else {
            refused += 1;
        }
    }
    println!("bodies: {allowed} allowed, {refused} refused");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_build_that_reads_no_bodies_refuses_what_depends_on_them() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let recorder = Recorder::start().await?;
    let envoy = proxy(folder.path(), tidegate::FILTER_WASM, recorder.address).await?;
    let endpoint = Endpoint::plain(envoy.address("plain")?);
    let call =
        Call::new(Method::POST, "/v1/publish").authority(HOST).header("content-type", "application/json");
    let answer = endpoint.call(Protocol::Http1, call.body(r#"{"topic":"orders-1"}"#)).await?;
    let reason = answer.json().and_then(|body| body["reason"].as_str().map(str::to_owned));
    ensure!((answer.status.as_u16(), reason.as_deref()) == (403, Some("body_unread")), "{reason:?}");
    ensure!(recorder.take().is_empty(), "nothing reaches the server");
    Ok(())
}

/// A server that answers as soon as it has the head of a request, and keeps what follows.
async fn hasty(answer: &'static str) -> Result<Recorder> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (address, seen) = (listener.local_addr()?, Arc::new(Mutex::new(Vec::new())));
    let recorded = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let recorded = Arc::clone(&recorded);
            tokio::spawn(async move {
                let (mut head, mut buffer) = (Vec::new(), [0; 16384]);
                while let Ok(length @ 1..) = connection.read(&mut buffer).await {
                    recorded.lock().unwrap().extend_from_slice(&buffer[..length]);
                    let had_head = head.windows(4).any(|window| window == b"\r\n\r\n");
                    head.extend_from_slice(&buffer[..length]);
                    let has_head = head.windows(4).any(|window| window == b"\r\n\r\n");
                    if has_head && !had_head && connection.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(Recorder { address, seen })
}

/// Sends the head and the beginning of a message, looks whether an answer comes, and sends the rest. What came before the
/// rest, and what came altogether.
async fn hesitant(address: SocketAddr, content_type: &str, body: &[u8]) -> Result<(String, String)> {
    let (end, body) = body.split_last().context("a body")?;
    let mut connection = TcpStream::connect(address).await?;
    let chunk = |piece: &[u8]| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
    let head = format!(
        "POST /v1/publish HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    connection.write_all(&[head.as_bytes(), &chunk(body)].concat()).await?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    let mut early = None;
    let begun = tokio::time::Instant::now();
    loop {
        let patience = Duration::from_millis(if early.is_none() { 300 } else { 600 });
        match tokio::time::timeout(patience, connection.read(&mut buffer)).await {
            Ok(Ok(length @ 1..)) => answer.extend_from_slice(&buffer[..length]),
            Ok(_) => break,
            Err(_) if early.is_none() => {
                early = Some(String::from_utf8_lossy(&answer).into_owned());
                // What is refused or answered may be cut off.
                let _ = connection.write_all(&[chunk(&[*end]), b"0\r\n\r\n".to_vec()].concat()).await;
            }
            Err(_) => break,
        }
        ensure!(begun.elapsed() < Duration::from_secs(20), "the answer does not end");
    }
    let all = String::from_utf8_lossy(&answer).into_owned();
    Ok((early.unwrap_or_else(|| all.clone()), all))
}

/// "An answer may come before the decision": errors and redirects pass, headers of a stream wait, other successes do not get
/// out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_before_the_decision_gets_out_only_if_it_is_no_success() -> Result<()> {
    let (good, bad) = (message("orders-1", 10), message("billing", 10));
    let framed =
        |message: &[u8]| [&[0, 0, 0, 0][..], &[u8::try_from(message.len()).unwrap()], message].concat();
    let (good, bad) = (framed(&good), framed(&bad));
    const STREAM: &str =
        "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
    for release in [EnvoyRelease::Current, EnvoyRelease::Oldest] {
        let mut passed = 0;
        for (answer, expected) in [
            ("HTTP/1.1 401 Unauthorized\r\ncontent-length: 5\r\n\r\nlogin", "401"),
            ("HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", "413"),
            ("HTTP/1.1 307 Elsewhere\r\nlocation: https://a.example/\r\ncontent-length: 0\r\n\r\n", "307"),
            (
                "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: 16\r\ncontent-length: 0\r\n\r\n",
                "grpc-status: 16",
            ),
        ] {
            let folder = tempfile::tempdir()?;
            let server = hasty(answer).await?;
            let envoy =
                proxy_of(folder.path(), tidegate::FILTER_BODIES_WASM, server.address, release).await?;
            for body in [&good, &bad] {
                let (early, _) = hesitant(envoy.address("plain")?, "application/grpc", body).await?;
                ensure!(early.contains(expected), "{release:?} {expected}: {early:?}");
                ensure!(!early.contains("x-tidegate-decision"), "{release:?} {expected}: {early:?}");
                passed += 1;
            }
        }
        // A success of which nobody knows what it is for.
        let folder = tempfile::tempdir()?;
        let server = hasty("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret").await?;
        let envoy = proxy_of(folder.path(), tidegate::FILTER_BODIES_WASM, server.address, release).await?;
        for body in [&good, &bad] {
            let (early, all) = hesitant(envoy.address("plain")?, "application/grpc", body).await?;
            ensure!(early.contains("body_unread") && !all.contains("secret"), "{release:?}: {all:?}");
        }
        // Headers of a stream, and what follows them.
        let folder = tempfile::tempdir()?;
        let server = hasty(STREAM).await?;
        let envoy = proxy_of(folder.path(), tidegate::FILTER_BODIES_WASM, server.address, release).await?;
        let (early, all) = hesitant(envoy.address("plain")?, "application/grpc", &good).await?;
        ensure!(early.is_empty(), "{release:?}: before the decision came {early:?}");
        ensure!(all.starts_with("HTTP/1.1 200") && all.contains("abc"), "{release:?}: {all:?}");
        server.take();
        let (early, all) = hesitant(envoy.address("plain")?, "application/grpc", &bad).await?;
        ensure!(early.is_empty() && !all.contains("abc"), "{release:?}: {early:?} {all:?}");
        ensure!(all.contains("grpc-status: 7"), "{release:?}: {all:?}");
        ensure!(!server.take().ends_with(b"0\r\n\r\n"), "{release:?}: the server got the whole message");
        ensure!(envoy.stats("wasm.*vm_reload").await?.values().sum::<u64>() == 0, "a VM failed");
        println!(
            "early answers, {release:?}: {passed} errors passed, 2 successes refused, a stream's headers waited"
        );
    }
    Ok(())
}
