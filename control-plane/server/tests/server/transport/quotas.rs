use tidegate::transport::QuotaOptions;
use tidegate_proto::v1::decision_sink_client::DecisionSinkClient;
use tidegate_proto::v1::subscribe_request::Message as Up;
use tokio::io::AsyncReadExt;
use tonic::Code;

use super::*;

fn quotas(guarded: &Guarded, quotas: QuotaOptions) -> TransportOptions {
    TransportOptions { quotas, ..guarded.transport() }
}

#[tokio::test]
async fn one_principal_s_streams_leave_room_for_others() {
    let guarded = Guarded::new();
    let limits = QuotaOptions { streams: 2, ..QuotaOptions::default() };
    let running = guarded.start_with(quotas(&guarded, limits)).await;
    let channel = guarded.channel(&running, &named(ORDERS)).await.unwrap();
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut filter = Filter::over(channel.clone(), hello(WORKLOAD)).await.unwrap();
        filter.install().await;
        open.push(filter);
    }
    let refused = Filter::over(channel.clone(), hello(WORKLOAD)).await;
    assert_eq!(outcome(refused).await, Err(Code::ResourceExhausted));
    assert_eq!(metric(&running, "tidegate_quota_exceeded_total{reason=\"streams\"}").await, 1);
    assert_eq!(
        outcome(guarded.filter(&running, LEDGER, "sales/ledger").await).await.as_deref(),
        Ok("sales/ledger")
    );
    // A stream that ends makes room.
    open.pop();
    for _ in 0..500 {
        if metric(&running, "tidegate_streams ").await == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(outcome(Filter::over(channel, hello(WORKLOAD)).await).await.as_deref(), Ok(WORKLOAD));
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn one_principal_s_connections_leave_room_for_others() {
    let guarded = Guarded::new();
    let limits = QuotaOptions { connections: 2, ..QuotaOptions::default() };
    let running = guarded.start_with(quotas(&guarded, limits)).await;
    let credential = guarded.authority.issue(&named(ORDERS)).unwrap();
    let config = client(guarded.authority.pem(), Some(&credential));
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(tls(running.grpc_addr, &config).await.unwrap());
    }
    until_metric(&running, "tidegate_refused_connections_total{reason=\"too_many_connections\"}", 1).await;
    let other = guarded.filter(&running, LEDGER, "sales/ledger").await;
    assert_eq!(outcome(other).await.as_deref(), Ok("sales/ledger"));
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_filter_that_talks_too_much_is_ended_and_others_are_not() {
    let guarded = Guarded::new();
    let limits = QuotaOptions { messages_per_second: 8, ..QuotaOptions::default() };
    let running = guarded.start_with(quotas(&guarded, limits)).await;
    let mut quiet = guarded.filter(&running, ORDERS, WORKLOAD).await.unwrap();
    quiet.install().await;
    let mut other = guarded.filter(&running, LEDGER, "sales/ledger").await.unwrap();
    other.install().await;
    let mut loud = guarded.filter(&running, ORDERS, WORKLOAD).await.unwrap();
    loud.install().await;
    for _ in 0..40 {
        loud.try_send(Up::Receipt(pb::Receipt::default())).await;
    }
    assert_eq!(loud.end().await.0, Code::ResourceExhausted);
    assert_eq!(metric(&running, "tidegate_quota_exceeded_total{reason=\"stream_messages\"}").await, 1);
    guarded.place.write("rule.yaml", &rule("b", "Allow", "/v1/second"));
    assert!(quiet.install().await.rules_mention("sales/b"), "of the same principal");
    other.expect_silence().await;
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn bytes_are_metered() {
    let guarded = Guarded::new();
    let limits = QuotaOptions { bytes_per_second: 10_000, ..QuotaOptions::default() };
    let running = guarded.start_with(quotas(&guarded, limits)).await;
    let mut loud = guarded.filter(&running, ORDERS, WORKLOAD).await.unwrap();
    loud.install().await;
    for _ in 0..4 {
        let nack = pb::Nack { nonce: 1, detail: "x".repeat(20_000), ..Default::default() };
        loud.try_send(Up::Nack(nack)).await;
    }
    assert_eq!(loud.end().await.0, Code::ResourceExhausted);
    assert_eq!(metric(&running, "tidegate_quota_exceeded_total{reason=\"bytes\"}").await, 1);
    running.shutdown().await.unwrap();
}

/// A stream of records of this principal, with its first batch acknowledged.
struct Records {
    up: tokio::sync::mpsc::Sender<pb::ReportRequest>,
    down: tonic::Streaming<pb::ReportResponse>,
}

impl Records {
    async fn open(guarded: &Guarded, running: &Running, id: &str, workload: &str) -> Self {
        let channel = guarded.channel(running, &named(id)).await.unwrap();
        let (up, sent) = tokio::sync::mpsc::channel(64);
        let workload = Some(pb::WorkloadHint { workload: workload.into(), instance: "pod-1".into() });
        up.send(pb::ReportRequest { sequence: 1, workload, ..Default::default() }).await.unwrap();
        let sent = tokio_stream::wrappers::ReceiverStream::new(sent);
        let mut down = DecisionSinkClient::new(channel).report(sent).await.unwrap().into_inner();
        assert_eq!(down.message().await.unwrap().unwrap().sequence, 1);
        Self { up, down }
    }

    async fn send(&self, sequence: u64, records: Vec<pb::DecisionRecord>) {
        self.up.send(pb::ReportRequest { sequence, records, ..Default::default() }).await.unwrap();
    }

    async fn taken(&mut self) -> Result<u64, Code> {
        let taken = timeout(PATIENCE, self.down.message()).await.unwrap();
        taken.map(|taken| taken.unwrap().sequence).map_err(|status| status.code())
    }
}

/// Batches of a thousand empty records take two bytes each: a pod that sends them is made to wait, and its own siblings, but
/// nobody else, and no stream is ended.
#[tokio::test]
async fn a_pod_that_floods_empty_records_is_slowed_down_and_others_are_not() {
    let guarded = Guarded::new();
    let limits = QuotaOptions { records_per_second: 1_000, ..QuotaOptions::default() };
    let running = guarded.start_with(quotas(&guarded, limits)).await;
    let mut loud = Records::open(&guarded, &running, ORDERS, WORKLOAD).await;
    let mut other = Records::open(&guarded, &running, LEDGER, "sales/ledger").await;
    let begun = std::time::Instant::now();
    for sequence in 2..=7 {
        loud.send(sequence, vec![pb::DecisionRecord::default(); 1_024]).await;
    }
    let refusal = pb::DecisionRecord { outcome: pb::Outcome::Deny.into(), ..Default::default() };
    for sequence in 2..=20 {
        other.send(sequence, vec![refusal.clone(); 10]).await;
        assert_eq!(other.taken().await, Ok(sequence));
    }
    let empty = "tidegate_decisions_total{workload=\"sales/orders\",outcome=\"unspecified\"}";
    assert!(metric(&running, empty).await < 6 * 1_024, "the flood is over before the others were heard");
    for sequence in 2..=7 {
        assert_eq!(loud.taken().await, Ok(sequence));
    }
    // 6 * 1 032, of which 2 000 are there at once.
    assert!(begun.elapsed() >= Duration::from_secs(4), "{:?}", begun.elapsed());
    let delayed = |workload| format!("tidegate_reports_delayed_total{{workload=\"{workload}\"}}");
    assert!(metric(&running, &delayed(WORKLOAD)).await >= 4);
    assert_eq!(metric(&running, &delayed("sales/ledger")).await, 0);
    assert_eq!(metric(&running, "tidegate_quota_exceeded_total{reason=\"records\"}").await, 0);
    running.shutdown().await.unwrap();
}

/// Above its bytes per second too.
#[tokio::test]
async fn a_filter_with_more_records_than_its_share_is_slowed_down_and_not_ended() {
    let guarded = Guarded::new();
    let limits = QuotaOptions { bytes_per_second: 20_000, ..QuotaOptions::default() };
    let running = guarded.start_with(quotas(&guarded, limits)).await;
    let mut loud = Records::open(&guarded, &running, ORDERS, WORKLOAD).await;
    let record = pb::DecisionRecord { path: "/x".repeat(500), ..Default::default() };
    let begun = std::time::Instant::now();
    for sequence in 2..=5 {
        loud.send(sequence, vec![record.clone(); 40]).await;
    }
    for sequence in 2..=5 {
        assert_eq!(loud.taken().await, Ok(sequence));
    }
    assert!(begun.elapsed() >= Duration::from_secs(4), "{:?}", begun.elapsed());
    // What is said otherwise is not held up by it.
    let filter = guarded.filter(&running, ORDERS, WORKLOAD).await;
    assert_eq!(outcome(filter).await.as_deref(), Ok(WORKLOAD));
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn connections_are_bounded_altogether() {
    let guarded = Guarded::new();
    let limits = QuotaOptions { all_connections: 3, ..QuotaOptions::default() };
    let running = guarded.start_with(quotas(&guarded, limits)).await;
    let credential = guarded.authority.issue(&named(ORDERS)).unwrap();
    let config = client(guarded.authority.pem(), Some(&credential));
    let mut open = Vec::new();
    for _ in 0..5 {
        open.push(tls(running.grpc_addr, &config).await.unwrap());
    }
    until_metric(&running, "tidegate_refused_connections_total{reason=\"too_many_connections\"}", 2).await;
    drop(open);
    let mut filter = loop {
        if let Ok(filter) = guarded.filter(&running, LEDGER, "sales/ledger").await {
            break filter;
        }
    };
    filter.install().await;
    running.shutdown().await.unwrap();
}

/// A message of which everything but the end was sent, on many streams.
#[tokio::test]
async fn messages_that_are_begun_and_not_finished_are_bounded() {
    let guarded = Guarded::new();
    let running = guarded.start().await;
    let credential = guarded.authority.issue(&named(ORDERS)).unwrap();
    let config = client(guarded.authority.pem(), Some(&credential));
    let stream = tls(running.grpc_addr, &config).await.unwrap();
    let (executor, io) = (hyper_util::rt::TokioExecutor::new(), hyper_util::rt::TokioIo::new(stream));
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    // The largest message there may be, but its last byte.
    let mut message = vec![0, 0, 1, 0, 0];
    message.resize(5 + (64 << 10) - 1, 0);
    let mut begun = Vec::new();
    for _ in 0..100 {
        let (body, sent) = tokio::sync::mpsc::channel(1);
        let sent = tokio_stream::wrappers::ReceiverStream::new(sent);
        let request = hyper::Request::post("http://tidegate/tidegate.v1.PolicyDistribution/Subscribe")
            .header("content-type", "application/grpc")
            .body(http_body_util::StreamBody::new(sent))
            .unwrap();
        let data = hyper::body::Frame::data(bytes::Bytes::from(message.clone()));
        body.send(Ok::<_, std::convert::Infallible>(data)).await.unwrap();
        begun.push((sender.send_request(request).await.unwrap(), body));
    }
    // 64 KiB each, and 4 MiB for everything.
    let exceeded = "tidegate_quota_exceeded_total{reason=\"unfinished_bytes\"}";
    until_metric(&running, exceeded, 36).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let count = metric(&running, exceeded).await;
    assert!(count <= 50, "{count}: what is less than the limit is held");
    // Whole messages of the same principal and of others are taken.
    for (id, workload) in [(ORDERS, WORKLOAD), (LEDGER, "sales/ledger")] {
        let filter = guarded.filter(&running, id, workload).await;
        assert_eq!(outcome(filter).await.as_deref(), Ok(workload));
    }
    let mut refused = 0;
    for (answer, _) in &mut begun {
        let end = http_body_util::BodyExt::frame(answer.body_mut());
        if let Ok(frame) = timeout(Duration::from_millis(5), end).await {
            let trailers = frame.unwrap().unwrap().into_trailers().unwrap();
            assert_eq!(trailers["grpc-status"], "8");
            refused += 1;
        }
    }
    assert_eq!(refused, count);
    running.shutdown().await.unwrap();
}

async fn silent(from: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    socket.connect(SocketAddr::from(([127, 0, 0, 1], to.port()))).await.unwrap()
}

/// How many of them are ended by now.
async fn ended(streams: &mut Vec<TcpStream>) -> usize {
    let mut ended = 0;
    for stream in streams {
        let read = timeout(Duration::from_millis(5), stream.read(&mut [0; 16])).await;
        ended += usize::from(matches!(read, Ok(Ok(0) | Err(_))));
    }
    ended
}

/// Callers that connect and say nothing keep nobody out, and are ended.
#[tokio::test]
async fn handshakes_that_are_not_finished_keep_nobody_out() {
    let guarded = Guarded::new();
    let transport = TransportOptions {
        max_handshakes: 16,
        handshake_timeout: Duration::from_secs(5),
        ..guarded.transport()
    };
    let running = guarded.start_with(transport).await;
    let mut streams = Vec::new();
    // Four addresses, which have all places.
    for number in 0..40 {
        streams.push(silent(&format!("127.0.0.{}", 2 + number % 4), running.grpc_addr).await);
    }
    let crowded = "tidegate_refused_connections_total{reason=\"too_many_handshakes\"}";
    until_metric(&running, crowded, 24).await;
    let begin = std::time::Instant::now();
    for _ in 0..3 {
        let filter = guarded.filter(&running, ORDERS, WORKLOAD).await;
        assert_eq!(outcome(filter).await.as_deref(), Ok(WORKLOAD));
    }
    assert!(begin.elapsed() < Duration::from_secs(4), "others waited for the silent ones");
    until_metric(&running, "tidegate_refused_connections_total{reason=\"handshake_timeout\"}", 13).await;
    assert_eq!(ended(&mut streams).await, 40);
    running.shutdown().await.unwrap();
}

/// Callers without a certificate that hold their connections keep nobody from probes and from the admin interface.
#[tokio::test]
async fn connections_that_prove_nothing_are_bounded_and_keep_nobody_out() {
    let guarded = Guarded::new();
    let transport = TransportOptions {
        max_unproven_connections: 16,
        probes: Some("127.0.0.1:0".parse().unwrap()),
        ..guarded.transport()
    };
    let admin = "0.0.0.0:0".parse().unwrap();
    let running = ready(Options {
        admin,
        transport,
        modules: Some("127.0.0.1:0".parse().unwrap()),
        ..guarded.place.options()
    })
    .await;
    let probes = running.probes_addr.unwrap();
    let mut streams = Vec::new();
    for number in 0..40 {
        streams.push(silent(&format!("127.0.0.{}", 2 + number % 4), probes).await);
    }
    let probe = async |to| {
        let mut stream = TcpStream::connect(to).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(
            &mut stream,
            b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        )
        .await
        .unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    };
    for _ in 0..3 {
        assert!(probe(probes).await.starts_with("HTTP/1.1 200"));
    }
    assert!((24..=25).contains(&ended(&mut streams).await), "{}", ended(&mut streams).await);
    // The same of the module's port.
    let modules = running.module_addr.unwrap();
    let mut streams = Vec::new();
    for _ in 0..40 {
        streams.push(silent("127.0.0.2", modules).await);
    }
    assert!(probe(modules).await.starts_with("HTTP/1.1 404"));
    assert!((24..=25).contains(&ended(&mut streams).await));
    // With a handshake, and without a certificate.
    let mut config = client(guarded.authority.pem(), None);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut open = Vec::new();
    for _ in 0..40 {
        open.push(tls(running.admin_addr, &config).await.unwrap());
    }
    let mut ended = 0;
    for stream in &mut open {
        let read = timeout(Duration::from_millis(20), stream.read(&mut [0; 16])).await;
        ended += usize::from(matches!(read, Ok(Ok(0) | Err(_))));
    }
    assert_eq!(ended, 24);
    running.shutdown().await.unwrap();
}
