use tidegate::transport::QuotaOptions;
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
    let limits = QuotaOptions { streams: 2, ..QuotaOptions::default() };
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

/// Callers that connect and say nothing keep nobody out, and are ended.
#[tokio::test]
async fn handshakes_that_are_not_finished_keep_nobody_out() {
    let guarded = Guarded::new();
    let transport = TransportOptions {
        max_handshakes: 8,
        handshake_timeout: Duration::from_secs(1),
        ..guarded.transport()
    };
    let running = guarded.start_with(transport).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        silent.push(socket.connect(running.grpc_addr).await.unwrap());
    }
    until_metric(&running, "tidegate_refused_connections_total{reason=\"too_many_handshakes\"}", 18).await;
    let filter = guarded.filter(&running, ORDERS, WORKLOAD).await;
    assert_eq!(outcome(filter).await.as_deref(), Ok(WORKLOAD));
    until_metric(&running, "tidegate_refused_connections_total{reason=\"handshake_timeout\"}", 2).await;
    for mut stream in silent {
        let read = timeout(PATIENCE, stream.read(&mut [0; 16])).await.expect("it is ended");
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
    running.shutdown().await.unwrap();
}
