//! Export by OTLP to a receiver that OpenTelemetry's own generated code serves.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use tidegate::decisions::Batches;
use tidegate::decisions::record::Moment;
use tidegate::directories::Index;
use tidegate::export::client::Client;
use tidegate::export::queue::Limits;
use tidegate::export::{Flags, Options, Pace, Protocol, Signal, Target};
use tidegate::push::Hub;
use tidegate_proto::v1 as pb;
use tokio::task::JoinHandle;

use crate::fixture::PATIENCE;
use crate::otlp::{Mood, Receiver, text};

const ALLOW: pb::Outcome = pb::Outcome::Allow;
const DENY: pb::Outcome = pb::Outcome::Deny;

/// Short waits, and queues that are full soon.
const PACE: Pace = Pace {
    batch: 8,
    batch_bytes: 1 << 20,
    linger: Duration::from_millis(20),
    first_wait: Duration::from_millis(20),
    longest_wait: Duration::from_millis(100),
    patience: Duration::from_secs(60),
};

fn record(number: u64, outcome: pb::Outcome) -> pb::DecisionRecord {
    let is_refused = outcome == pb::Outcome::Deny;
    pb::DecisionRecord {
        decision_id: format!("7Q4K-M2XD-{number:04}"),
        time_ns: Moment::now().0 * 1_000,
        outcome: outcome.into(),
        reason: if is_refused { "no_allow_matched" } else { "allowed_by_rule" }.to_owned(),
        method: "POST".to_owned(),
        host: "orders.sales.example".to_owned(),
        path: "/v1/orders".to_owned(),
        trace_id: vec![0x4b; 16],
        span_id: vec![0x07; 8],
        decided_in_ns: 41_000,
        stands_for: 1,
        ..pb::DecisionRecord::default()
    }
}

fn target(signal: Signal, protocol: Protocol, at: SocketAddr) -> Target {
    let path = match (protocol, signal) {
        (Protocol::Grpc, _) => "",
        (Protocol::Http, Signal::Logs) => "v1/logs",
        (Protocol::Http, Signal::Metrics) => "v1/metrics",
        (Protocol::Http, Signal::Traces) => "v1/traces",
    };
    Target::new(signal, protocol, format!("http://{at}/{path}").parse().unwrap())
}

/// Only logs.
fn options(protocol: Protocol, at: SocketAddr) -> Options {
    Options {
        logs: Some(target(Signal::Logs, protocol, at)),
        metrics: None,
        traces: None,
        resource: Vec::new(),
        interval: Duration::from_millis(50),
        queue: Limits { entries: 64, bytes: 1 << 20 },
        pace: PACE,
    }
}

struct Exporting {
    hub: Arc<Hub>,
    batches: Mutex<(u64, Batches)>,
    task: JoinHandle<()>,
}

impl Exporting {
    fn start(options: Options) -> Self {
        let hub = Arc::new(Hub::new(Index::new(Duration::from_secs(300))));
        let exporter = tidegate::export::start(options, &hub).unwrap();
        let task = tokio::spawn(async move {
            exporter.run().await.unwrap();
        });
        let batches = Mutex::new((0, hub.decisions.batches("sales/orders")));
        Self { hub, batches, task }
    }

    /// As a filter reports it.
    fn send(&self, number: u64, outcome: pb::Outcome) {
        let mut batches = self.batches.lock().unwrap();
        batches.0 += 1;
        let request = pb::ReportRequest {
            sequence: batches.0,
            records: vec![record(number, outcome)],
            ..pb::ReportRequest::default()
        };
        self.hub.decisions.take(&mut batches.1, None, &request);
    }

    /// A figure of `/metrics`; 0 where there is none.
    fn figure(&self, series: &str) -> u64 {
        let text = self.hub.scrape();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or(0)
    }

    fn lost(&self, cause: &str) -> u64 {
        self.figure(&format!(r#"tidegate_export_lost_total{{signal="logs",cause="{cause}"}}"#))
    }

    fn of_logs(&self, what: &str) -> u64 {
        self.figure(&format!(r#"tidegate_export_{what}{{signal="logs"}}"#))
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        assert!(waited.await.is_ok(), "{what}: {}", self.hub.scrape());
    }

    /// Stops it, and looks whether every record was counted once.
    async fn stop(self) -> Arc<Hub> {
        self.hub.stop();
        self.task.await.unwrap();
        self.hub
    }
}

#[tokio::test]
async fn logs_spans_and_figures_arrive_by_both_protocols() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let receiver = Receiver::start().await.unwrap();
        let at = if protocol == Protocol::Grpc { receiver.grpc } else { receiver.http };
        let mut options = options(protocol, at);
        options.metrics = Some(target(Signal::Metrics, protocol, at));
        options.traces = Some(target(Signal::Traces, protocol, at));
        options.resource = vec![("service.name".to_owned(), "gate".to_owned())];
        let exporting = Exporting::start(options);
        for number in 0..20 {
            let outcome = if number % 4 == 0 { DENY } else { ALLOW };
            exporting.send(number, outcome);
        }
        let arrived = receiver
            .until(PATIENCE, |taken| {
                taken.logs.len() == 20
                    && taken.spans.len() == 20
                    && taken.figure("tidegate.rule_decisions", &[]) == Some(20.0)
            })
            .await;
        assert!(
            arrived,
            "{protocol:?}: {} logs, {} spans",
            receiver.taken().logs.len(),
            receiver.taken().spans.len()
        );
        {
            let taken = receiver.taken();
            let refused = taken.logs.iter().filter(|(_, record)| record.severity_text == "WARN").count();
            assert_eq!(refused, 5, "{protocol:?}");
            let denied = [("tidegate.outcome", "deny"), ("tidegate.reason", "no_allow_matched")];
            assert_eq!(taken.figure("tidegate.rule_decisions", &denied), Some(5.0), "{protocol:?}");
            let (resource, log) = &taken.logs[0];
            assert_eq!(text(&resource.attributes, "service.name"), Some("gate"));
            assert_eq!(text(&resource.attributes, "service.version"), Some(env!("CARGO_PKG_VERSION")));
            assert_eq!(text(&log.attributes, "http.request.method"), Some("POST"));
            assert_eq!(text(&log.attributes, "server.address"), Some("orders.sales.example"));
            assert_eq!(text(&log.attributes, "tidegate.workload"), Some("sales/orders"));
            assert!(log.time_unix_nano > 0 && log.time_unix_nano <= log.observed_time_unix_nano);
            assert_eq!(log.event_name, "tidegate.decision");
            let Some(Value::StringValue(body)) = log.body.clone().and_then(|body| body.value) else {
                panic!()
            };
            assert!(body.contains("POST orders.sales.example/v1/orders: "), "{body}");
            let span = &taken.spans[0];
            assert_eq!(span.name, "tidegate.decide");
            assert_eq!(span.trace_id, log.trace_id);
            assert_eq!(span.parent_span_id, log.span_id);
            assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 41_000);
        }
        let hub = exporting.stop().await;
        let text = hub.metrics.text();
        assert!(text.contains(r#"tidegate_export_delivered_total{signal="logs"} 20"#), "{text}");
        assert!(text.contains(r#"tidegate_export_delivered_total{signal="traces"} 20"#), "{text}");
        let mut lost = text.lines().filter(|line| line.starts_with("tidegate_export_lost_total{"));
        assert!(lost.all(|line| line.ends_with("} 0")), "{text}");
    }
}

#[tokio::test]
async fn a_receiver_that_is_down_costs_only_what_is_counted() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let receiver = Receiver::start().await.unwrap();
        receiver.set(Mood::Unavailable);
        let at = if protocol == Protocol::Grpc { receiver.grpc } else { receiver.http };
        let exporting = Exporting::start(options(protocol, at));
        // 300 allowed and 20 refused; the queue has room for 64, besides the batch of 8 that is under way.
        let began = std::time::Instant::now();
        for number in 0..320 {
            exporting.send(number, if number % 16 == 15 { DENY } else { ALLOW });
        }
        assert!(began.elapsed() < Duration::from_secs(5), "nobody waits for a receiver");
        exporting.until("all are looked at", |exporting| exporting.of_logs("taken_total") == 320).await;
        exporting.until("it is tried again", |_| receiver.taken().requests >= 3).await;
        let lost = exporting.lost("queue_full");
        assert!((320 - 72..=320 - 64).contains(&lost), "{lost}");
        assert_eq!(exporting.of_logs("delivered_total"), 0);
        assert_eq!(exporting.of_logs("waiting"), 320 - lost, "what is on its way has not arrived");
        receiver.set(Mood::Takes);
        exporting
            .until("what waits is delivered", |exporting| exporting.of_logs("delivered_total") == 320 - lost)
            .await;
        let refused =
            receiver.taken().logs.iter().filter(|(_, record)| record.severity_text == "WARN").count();
        assert_eq!(refused, 20, "no refusal is lost while there is something else to drop");
        let hub = exporting.stop().await;
        let text = hub.metrics.text();
        assert!(text.contains(r#"tidegate_export_waiting{signal="logs"} 0"#), "{text}");
        assert!(text.contains(r#"tidegate_export_requests_total{signal="logs",result="failed"}"#), "{text}");
    }
}

#[tokio::test]
async fn a_receiver_that_nobody_can_reach_or_that_sleeps_stops_nothing() {
    let receiver = Receiver::start().await.unwrap();
    receiver.set(Mood::Sleeps);
    // Nobody listens at port 1.
    for at in ["127.0.0.1:1".parse().unwrap(), receiver.grpc, receiver.http] {
        let protocol = if at == receiver.http { Protocol::Http } else { Protocol::Grpc };
        let mut options = options(protocol, at);
        options.pace.patience = Duration::from_millis(300);
        if let Some(logs) = &mut options.logs {
            logs.timeout = Duration::from_millis(200);
        }
        let exporting = Exporting::start(options);
        for number in 0..5 {
            exporting.send(number, DENY);
        }
        exporting.until("they are given up", |exporting| exporting.lost("gave_up") == 5).await;
        exporting.send(6, DENY);
        exporting.until("the next is looked at", |exporting| exporting.of_logs("taken_total") == 6).await;
        let began = std::time::Instant::now();
        let hub = exporting.stop().await;
        assert!(began.elapsed() < Duration::from_secs(10), "{at}: {:?}", began.elapsed());
        let text = hub.metrics.text();
        let count = |cause: &str| {
            let series = format!(r#"tidegate_export_lost_total{{signal="logs",cause="{cause}"}} "#);
            text.lines().find_map(|line| line.strip_prefix(&series)?.parse::<u64>().ok()).unwrap_or(0)
        };
        assert_eq!(count("gave_up") + count("stopped"), 6, "{at}: {text}");
    }
}

#[tokio::test]
async fn who_mistakes_the_protocol_is_told_which_one_it_is() {
    let receiver = Receiver::start().await.unwrap();
    for (protocol, scheme, at, hint) in [
        (Protocol::Http, "http", receiver.grpc, "`--otlp-protocol grpc`"),
        (Protocol::Grpc, "https", receiver.grpc, "`http://`"),
        (Protocol::Http, "https", receiver.http, "`http://`"),
    ] {
        let url = format!("{scheme}://{at}");
        let client = Client::new(&Target::new(Signal::Logs, protocol, url.parse().unwrap())).unwrap();
        let error = client.send(Signal::Logs, b"").await.unwrap_err().to_string();
        assert!(error.contains(hint) && error.starts_with(&url), "{error}");
    }
}

#[tokio::test]
async fn figures_of_what_is_exported_are_there_before_anything_is() {
    let receiver = Receiver::start().await.unwrap();
    let exporting = Exporting::start(options(Protocol::Http, receiver.http));
    let text = exporting.stop().await.metrics.text();
    for figure in ["taken_total", "delivered_total", "waiting"] {
        assert!(
            text.contains(&format!("tidegate_export_{figure}{{signal=\"logs\"}} 0\n")),
            "{figure}: {text}"
        );
    }
    for cause in ["queue_full", "gave_up", "refused", "rejected", "stopped"] {
        let series = format!("tidegate_export_lost_total{{signal=\"logs\",cause=\"{cause}\"}} 0\n");
        assert!(text.contains(&series), "{series}{text}");
    }
}

#[tokio::test]
async fn what_a_receiver_refuses_is_counted_and_what_is_too_large_is_split() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let receiver = Receiver::start().await.unwrap();
        let at = if protocol == Protocol::Grpc { receiver.grpc } else { receiver.http };
        let exporting = Exporting::start(options(protocol, at));
        receiver.set(Mood::Refuses);
        exporting.send(1, DENY);
        exporting.until("refused", |exporting| exporting.lost("refused") == 1).await;
        assert_eq!(receiver.taken().requests, 1, "{protocol:?}: what is refused is not tried again");
        receiver.set(Mood::AllBut(1));
        for number in 0..4 {
            exporting.send(number, DENY);
        }
        exporting
            .until("taken but for some", |exporting| {
                let (taken, rejected) = (exporting.of_logs("delivered_total"), exporting.lost("rejected"));
                taken + rejected == 4 && rejected >= 1
            })
            .await;
        let before = exporting.of_logs("delivered_total");
        receiver.set(Mood::AtMost(3));
        for number in 0..8 {
            exporting.send(number, DENY);
        }
        exporting.until("split", |exporting| exporting.of_logs("delivered_total") == before + 8).await;
        receiver.set(Mood::AtMost(0));
        exporting.send(9, DENY);
        exporting.until("one alone is too large", |exporting| exporting.lost("refused") == 2).await;
        exporting.stop().await;
    }
}

#[tokio::test]
async fn what_waits_at_the_end_is_delivered() {
    let receiver = Receiver::start().await.unwrap();
    let mut options = options(Protocol::Http, receiver.http);
    options.pace.linger = Duration::from_secs(3_600);
    options.metrics = Some(target(Signal::Metrics, Protocol::Http, receiver.http));
    options.interval = Duration::from_secs(3_600);
    let exporting = Exporting::start(options);
    for number in 0..3 {
        exporting.send(number, DENY);
    }
    exporting.stop().await;
    let taken = receiver.taken();
    assert_eq!(taken.logs.len(), 3);
    assert!(!taken.metrics.is_empty(), "the last figures are sent");
}

#[tokio::test]
async fn headers_come_from_a_file_that_is_read_again_and_bodies_are_compressed() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let receiver = Receiver::start().await.unwrap();
        let at = if protocol == Protocol::Grpc { receiver.grpc } else { receiver.http };
        let folder = tempfile::tempdir().unwrap();
        let file: PathBuf = folder.path().join("headers");
        std::fs::write(&file, "authorization: Bearer one\n").unwrap();
        let mut options = options(protocol, at);
        if let Some(logs) = &mut options.logs {
            (logs.headers_file, logs.gzip) = (Some(file.clone()), true);
        }
        let exporting = Exporting::start(options);
        exporting.send(1, DENY);
        assert!(receiver.until(PATIENCE, |taken| taken.logs.len() == 1).await, "{protocol:?}");
        std::fs::write(&file, "authorization: Bearer two\n").unwrap();
        exporting.send(2, DENY);
        assert!(receiver.until(PATIENCE, |taken| taken.logs.len() == 2).await, "{protocol:?}");
        // A file that is gone for a moment changes nothing.
        std::fs::remove_file(&file).unwrap();
        exporting.send(3, DENY);
        assert!(receiver.until(PATIENCE, |taken| taken.logs.len() == 3).await, "{protocol:?}");
        exporting.stop().await;
        let taken = receiver.taken();
        let sent: Vec<&str> =
            taken.headers.iter().map(|headers| headers["authorization"].to_str().unwrap()).collect();
        assert_eq!(sent, ["Bearer one", "Bearer two", "Bearer two"], "{protocol:?}");
        let encoding = if protocol == Protocol::Grpc { "grpc-encoding" } else { "content-encoding" };
        assert!(taken.headers.iter().all(|headers| headers[encoding] == "gzip"), "{:?}", taken.headers);
    }
}

#[tokio::test]
async fn tls_needs_an_authority_that_issued_the_receivers_certificate() {
    let receiver = Receiver::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let issue = |name: &str| {
        let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(path(name), issued.cert.pem()).unwrap();
        issued
    };
    let (own, _) = (issue("own.pem"), issue("foreign.pem"));
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let at = if protocol == Protocol::Grpc { receiver.grpc } else { receiver.http };
        let tls = crate::otlp_tls::front(&own, at).await;
        let to = |ca: &str| {
            let mut options = options(protocol, at);
            if let Some(logs) = &mut options.logs {
                logs.endpoint.set_scheme("https").unwrap();
                logs.endpoint.set_host(Some("localhost")).unwrap();
                logs.endpoint.set_port(Some(tls.port())).unwrap();
                logs.authorities = Some(path(ca));
            }
            options
        };
        let before = receiver.taken().logs.len();
        let exporting = Exporting::start(to("own.pem"));
        exporting.send(1, DENY);
        assert!(receiver.until(PATIENCE, |taken| taken.logs.len() == before + 1).await, "{protocol:?}");
        exporting.stop().await;
        let mut foreign = to("foreign.pem");
        foreign.pace.patience = Duration::from_millis(100);
        let exporting = Exporting::start(foreign);
        exporting.send(2, DENY);
        exporting.until("nothing is sent", |exporting| exporting.lost("gave_up") == 1).await;
        assert_eq!(receiver.taken().logs.len(), before + 1, "{protocol:?}");
        exporting.stop().await;
        let error = tidegate::export::start(
            to("missing.pem"),
            &Arc::new(Hub::new(Index::new(Duration::from_secs(300)))),
        );
        assert!(error.unwrap_err().to_string().contains("missing.pem"));
    }
}

#[tokio::test]
async fn a_flood_waits_for_the_receiver_and_none_of_it_is_lost_as_long_as_there_is_room() {
    let receiver = Receiver::start().await.unwrap();
    let mut options = options(Protocol::Http, receiver.http);
    (options.queue, options.pace.batch) = (Limits::default(), 2_048);
    let exporting = Exporting::start(options);
    // Nothing else runs meanwhile: this test has one thread.
    for number in 0..5_000 {
        exporting.send(number, DENY);
    }
    assert_eq!(exporting.of_logs("taken_total"), 5_000);
    assert!(receiver.until(PATIENCE, |taken| taken.logs.len() == 5_000).await);
    exporting.stop().await;
}

#[test]
fn nothing_is_exported_by_default() {
    assert_eq!(Options::read(Flags::default(), &|_| None).unwrap(), None);
}
