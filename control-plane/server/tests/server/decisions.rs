//! Decision records on their way: a filter reports, people ask by the admin interface and the command line.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tidegate::decisions::store::Limits;
use tidegate::export::{Protocol, Signal, Target};
use tidegate::serve::{Options, Running};
use tidegate_proto::v1 as pb;
use tidegate_proto::v1::decision_sink_client::DecisionSinkClient;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::commands::{json, run};
use crate::fixture::*;
use crate::otlp::{Mood, Receiver};

pub(crate) fn place() -> Place {
    Place::new(&[("mesh.yaml", MESH), ("rule.yaml", &rule("writers", "Allow", "/v1/orders"))])
}

pub(crate) async fn start(place: &Place) -> Running {
    let decisions = tidegate::decisions::Options {
        folder: Some(place.state().join("decisions")),
        limits: Limits::default(),
    };
    let mut running = tidegate::serve::start(Options { decisions, ..place.options() }).await.unwrap();
    timeout(PATIENCE, running.ready()).await.expect("ready in time").unwrap();
    running
}

/// A filter that reports.
pub(crate) struct Reporter {
    up: mpsc::Sender<pb::ReportRequest>,
    down: Streaming<pb::ReportResponse>,
    sequence: u64,
}

impl Reporter {
    pub(crate) async fn connect(running: &Running) -> Self {
        let mut client = DecisionSinkClient::new(channel(&running.grpc_addr.to_string()).await);
        let (up, batches) = mpsc::channel(16);
        // The server answers with the first acknowledgement.
        up.send(batch(1, vec![])).await.unwrap();
        let mut down = client.report(ReceiverStream::new(batches)).await.unwrap().into_inner();
        assert_eq!(down.message().await.unwrap().unwrap().sequence, 1);
        Self { up, down, sequence: 1 }
    }

    pub(crate) async fn report(&mut self, records: Vec<pb::DecisionRecord>) {
        self.sequence += 1;
        self.up.send(batch(self.sequence, records)).await.unwrap();
        let taken = timeout(PATIENCE, self.down.message()).await.unwrap().unwrap().unwrap();
        assert_eq!(taken.sequence, self.sequence);
    }
}

fn batch(sequence: u64, records: Vec<pb::DecisionRecord>) -> pb::ReportRequest {
    pb::ReportRequest {
        sequence,
        vm: Some(pb::VmId { instance: "pod-1".into(), generation: 7 }),
        workload: Some(pb::WorkloadHint { workload: WORKLOAD.into(), instance: "pod-1".into() }),
        records,
        ..Default::default()
    }
}

fn now_ns() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

pub(crate) fn refused(id: &str) -> pb::DecisionRecord {
    pb::DecisionRecord {
        decision_id: id.into(),
        time_ns: now_ns(),
        outcome: pb::Outcome::Deny.into(),
        reason: "no_allow_matched".into(),
        peer: "spiffe://prod.example/ns/web/sa/shop".into(),
        method: "POST".into(),
        host: "orders.sales.example".into(),
        path: "/v1/orders".into(),
        decided_in_ns: 1_900,
        stands_for: 1,
        ..Default::default()
    }
}

pub(crate) fn allowed(id: &str) -> pb::DecisionRecord {
    pb::DecisionRecord {
        outcome: pb::Outcome::Allow.into(),
        reason: "allowed_by_rule".into(),
        rule: "sales/writers".into(),
        peer: "spiffe://prod.example/ns/etl/sa/worker".into(),
        ..refused(id)
    }
}

/// Asks until something is there: records are written within a moment.
pub(crate) async fn until(running: &Running, path: &str, is_wanted: impl Fn(u16, &str) -> bool) -> String {
    let ask = async {
        loop {
            let (status, body) = get(running, path).await;
            if is_wanted(status, &body) {
                return body;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, ask).await.unwrap_or_else(|_| panic!("{path}"))
}

#[tokio::test]
async fn a_decision_is_found_by_its_id_with_the_nearest_rule_and_survives_a_restart() {
    let place = place();
    let running = start(&place).await;
    let mut reporter = Reporter::connect(&running).await;
    reporter.report(vec![refused("7Q4K-M2XD-0001"), allowed("7Q4K-M2XD-0002")]).await;
    let body = until(&running, "/decisions/7q4k-m2xd-oool", |status, _| status == 200).await;
    let found = json(&body);
    assert_eq!(found[0]["decision"]["workload"], WORKLOAD);
    assert_eq!(found[0]["decision"]["selfReported"], true);
    assert_eq!(found[0]["nearest"]["rule"], "sales/writers");
    assert_eq!(get(&running, "/decisions/0000-0000-0000").await.0, 404);
    drop(reporter);
    running.shutdown().await.unwrap();

    let running = start(&place).await;
    until(&running, "/decisions/7Q4K-M2XD-0001", |status, _| status == 200).await;
    let page = json(&get(&running, "/decisions").await.1);
    assert_eq!(page["entries"].as_array().unwrap().len(), 2, "{page}");
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_was_decided_is_explained_by_the_rules_that_decided_even_if_they_were_signed_before_a_restart() {
    let place = place();
    let running = start(&place).await;
    let mut proxy = Filter::connect(&running, hello(WORKLOAD)).await;
    let enforced = proxy.install().await;
    drop(proxy);
    running.shutdown().await.unwrap();

    // Nothing is signed anew: what proxies have is what this process offers.
    let running = start(&place).await;
    let mut proxy = Filter::connect(&running, hello(WORKLOAD)).await;
    assert_eq!(proxy.install().await.digest(), enforced.digest());
    place.write("rule.yaml", &rule("writers", "Allow", "/v2/orders"));
    let changed = proxy.install().await;
    assert_ne!(changed.digest(), enforced.digest());

    let mut reporter = Reporter::connect(&running).await;
    for (id, by, path) in
        [("ABAB-0000-0001", &enforced, "/v1/orders"), ("ABAB-0000-0002", &changed, "/v2/orders")]
    {
        let (epoch, counter) = by.revision();
        let revision = Some(pb::Revision { epoch, counter });
        reporter
            .report(vec![pb::DecisionRecord { revision, manifest_sha256: by.digest(), ..refused(id) }])
            .await;
        let body = until(&running, &format!("/decisions/{id}"), |status, _| status == 200).await;
        let found = &json(&body)[0];
        assert_eq!(found["rules"], "deciding", "{body}");
        let demands = found["nearest"]["conditions"].to_string();
        assert!(demands.contains(path), "{body}");
    }
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn decisions_are_listed_by_what_they_are_about_and_gaps_are_shown() {
    let place = place();
    let running = start(&place).await;
    let mut reporter = Reporter::connect(&running).await;
    let many = (0..30).map(|number| allowed(&format!("AAAA-0000-{number:04}"))).collect();
    reporter.report(many).await;
    reporter.report(vec![refused("BBBB-0000-0001")]).await;
    // Two batches are missing, and the filter dropped some.
    reporter.sequence += 2;
    reporter.report(vec![refused("BBBB-0000-0002")]).await;
    let listed = async |query: &str| json(&get(&running, &format!("/decisions?{query}")).await.1);
    until(&running, "/decisions?denied=true", |_, body| body.contains("BBBB-0000-0002")).await;
    let denied = listed("denied=true").await;
    let entries = denied["entries"].as_array().unwrap();
    assert_eq!(entries.iter().filter(|entry| entry["decision"].is_object()).count(), 2, "{denied}");
    let gaps: Vec<&Value> = entries.iter().filter_map(|entry| entry.get("gap")).collect();
    assert!(matches!(gaps.as_slice(), [gap] if gap["cause"] == "batchesMissing"), "{denied}");
    for (query, count) in [
        ("from=etl&limit=1000", 30),
        ("identity=etl/worker&limit=8", 7),
        ("rule=sales/writers&reason=allowed_by_rule&limit=1000", 30),
        ("workload=sales/ledger", 0),
        ("resource=https://orders.sales.example/v1/*&denied=true", 2),
    ] {
        let page = listed(query).await;
        let decisions =
            page["entries"].as_array().unwrap().iter().filter(|entry| entry["decision"].is_object());
        assert_eq!(decisions.count(), count, "{query}: {page}");
    }
    let first = listed("from=etl&limit=20").await;
    let rest = listed(&format!("from=etl&limit=20&before={}", first["more"])).await;
    assert_eq!(
        rest["entries"].as_array().unwrap().iter().filter(|one| one["decision"].is_object()).count(),
        11
    );
    for (query, word) in
        [("nothing=1", "nothing"), ("limit=0", "limit"), ("since=yesterday", "since"), ("denied=1", "denied")]
    {
        let (status, body) = get(&running, &format!("/decisions?{query}")).await;
        assert!(status == 400 && body.contains(word), "{query}: {status} {body}");
    }
    let (_, metrics) = get(&running, "/metrics").await;
    assert!(metrics.contains(r#"tidegate_decision_gaps_total{reason="batches_missing"} 1"#), "{metrics}");
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn no_token_and_nothing_that_a_terminal_obeys_gets_into_the_store() {
    const CANARY: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.Y2FuYXJ5LXNpZ25hdHVyZQ";
    let place = place();
    let running = start(&place).await;
    let mut reporter = Reporter::connect(&running).await;
    let mut record = refused("CCCC-0000-0001");
    record.path = format!("/v1/{CANARY}/\u{1b}[2J");
    record.claims =
        vec![pb::RecordedClaim { issuer: "gitlab".into(), claim: "sub".into(), values: vec![CANARY.into()] }];
    reporter.report(vec![record]).await;
    let body = until(&running, "/decisions/CCCC-0000-0001", |status, _| status == 200).await;
    assert!(body.contains("[token removed]") && !body.contains("eyJ") && !body.contains("\\u001b"), "{body}");
    running.shutdown().await.unwrap();
    for entry in std::fs::read_dir(place.state().join("decisions")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        for part in CANARY.split('.') {
            assert!(!bytes.windows(part.len()).any(|window| window == part.as_bytes()));
        }
    }
}

#[tokio::test]
async fn followers_hear_what_they_asked_for_and_why_even_where_nothing_is_kept() {
    let place = place();
    let running = place.start().await;
    let mut stream = TcpStream::connect(running.admin_addr).await.unwrap();
    let request = "GET /decisions/tail?denied=true&why=true HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    while !lines.next_line().await.unwrap().unwrap().is_empty() {}
    let mut reporter = Reporter::connect(&running).await;
    reporter.report(vec![allowed("DDDD-0000-0001"), refused("DDDD-0000-0002")]).await;
    let line = timeout(PATIENCE, async {
        loop {
            let line = lines.next_line().await.unwrap().unwrap();
            if line.starts_with('{') {
                return line;
            }
        }
    });
    let line = json(&line.await.unwrap());
    assert_eq!(line["explained"]["decision"]["id"], "DDDD-0000-0002");
    assert_eq!(line["explained"]["nearest"]["rule"], "sales/writers");
    let (status, body) = get(&running, "/decisions").await;
    assert!(status == 409 && body.contains("--decisions off"), "{status} {body}");
    assert_eq!(get(&running, "/decisions/tail?nothing=1").await.0, 400);
    running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_explains_and_lists() {
    let place = place();
    let running = start(&place).await;
    let mut reporter = Reporter::connect(&running).await;
    reporter.report(vec![refused("EEEE-0000-0001"), allowed("EEEE-0000-0002")]).await;
    until(&running, "/decisions/EEEE-0000-0002", |status, _| status == 200).await;
    let admin = running.admin_addr.to_string();
    let at = place.folder.path().to_owned();
    let command = async |arguments: &[&str]| {
        let arguments: Vec<String> = arguments
            .iter()
            .map(|one| (*one).to_owned())
            .chain(["--admin".to_owned(), admin.clone()])
            .collect();
        let at = at.clone();
        tokio::task::spawn_blocking(move || {
            run(&at, &arguments.iter().map(String::as_str).collect::<Vec<_>>(), "")
        })
        .await
        .unwrap()
    };
    let ran = command(&["explain", "eeee-0000-0001"]).await;
    assert_eq!(ran.code, 1, "{}", ran.err);
    for word in
        ["REFUSED", "no_allow_matched", "sales/writers", "peer", "✗", "owned by billing", "turn", "next: "]
    {
        assert!(ran.out.contains(word), "{word}: {}", ran.out);
    }
    let ran = command(&["explain", "EEEE-0000-0002", "-o", "json"]).await;
    assert_eq!(
        (ran.code, json(&ran.out)[0]["decision"]["outcome"].as_str()),
        (0, Some("Allow")),
        "{}",
        ran.err
    );
    let ran = command(&["explain", "0000-0000-0000"]).await;
    assert!(ran.code == 3 && ran.err.contains("no decision with this id"), "{} {}", ran.code, ran.err);
    let ran = command(&["decisions", "--denied", "--since", "1h"]).await;
    assert!(
        ran.code == 0 && ran.out.contains("EEEE-0000-0001") && !ran.out.contains("EEEE-0000-0002"),
        "{}",
        ran.out
    );
    let ran = command(&["decisions", "--identity", "etl/worker", "-o", "json", "--limit", "0"]).await;
    assert_eq!(json(&ran.out)[0]["decision"]["id"], "EEEE-0000-0002");
    let ran = command(&["decisions", "-o", "csv"]).await;
    assert_eq!(ran.out.lines().count(), 3, "{}", ran.out);
    let ran = command(&["decisions", "--run", "no-such-run"]).await;
    assert_eq!(ran.code, 1, "{}", ran.out);
    let ran = command(&["decisions", "--since", "yesterday"]).await;
    assert!(ran.code == 3 && ran.err.contains("how long ago"), "{} {}", ran.code, ran.err);
    running.shutdown().await.unwrap();
    let ran = command(&["explain", "EEEE-0000-0001"]).await;
    assert!(ran.code == 3 && ran.err.contains("tidegate explain -"), "{} {}", ran.code, ran.err);
}

/// By the time that it is acknowledged it can be asked for.
#[tokio::test]
async fn what_a_rule_requires_is_acknowledged_when_it_is_written() {
    let place = place();
    let running = start(&place).await;
    let mut reporter = Reporter::connect(&running).await;
    for number in 0..20 {
        let id = format!("GGGG-0000-{number:04}");
        let required = pb::DecisionRecord { audit: pb::Audit::Required.into(), ..allowed(&id) };
        reporter.report(vec![required]).await;
        let (status, body) = get(&running, &format!("/decisions/{id}")).await;
        assert_eq!(status, 200, "{id}: {body}");
        assert_eq!(json(&body)[0]["decision"]["audit"], "required");
    }
    // Batches are read while earlier ones are written, and acknowledged in order.
    for number in 20..23 {
        let id = format!("GGGG-0000-{number:04}");
        let required = pb::DecisionRecord { audit: pb::Audit::Required.into(), ..allowed(&id) };
        reporter.sequence += 1;
        reporter.up.send(batch(reporter.sequence, vec![required])).await.unwrap();
    }
    reporter.sequence += 1;
    reporter.up.send(batch(reporter.sequence, vec![allowed("GGGG-0000-0023")])).await.unwrap();
    let Reporter { up, mut down, sequence } = reporter;
    drop(up);
    let mut taken = Vec::new();
    while let Some(one) = timeout(PATIENCE, down.message()).await.unwrap().unwrap() {
        taken.push(one.sequence);
    }
    assert_eq!(taken, (sequence - 3..=sequence).collect::<Vec<_>>());
    running.shutdown().await.unwrap();
}

/// It is not acknowledged, and comes again: a stream that the filter has ended does not go on for it.
#[tokio::test]
async fn a_stream_that_is_ended_waits_only_so_long_for_what_cannot_be_written() {
    let place = place();
    let running = start(&place).await;
    // Where the first file would be.
    std::fs::create_dir(place.state().join("decisions/000000000001.redb")).unwrap();
    let Reporter { up, mut down, .. } = Reporter::connect(&running).await;
    let required = pb::DecisionRecord { audit: pb::Audit::Required.into(), ..allowed("HHHH-0000-0001") };
    up.send(batch(2, vec![required])).await.unwrap();
    assert!(timeout(Duration::from_secs(1), down.message()).await.is_err(), "it is tried again");
    drop(up);
    let end = timeout(Duration::from_secs(25), down.message()).await.expect("it ends").unwrap();
    assert_eq!(end, None, "nothing is acknowledged");
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_class_of_records_that_nobody_knows_is_refused() {
    let place = place();
    let running = start(&place).await;
    let Reporter { up, mut down, .. } = Reporter::connect(&running).await;
    up.send(batch(2, vec![pb::DecisionRecord { audit: 9, ..allowed("HHHH-0000-0001") }])).await.unwrap();
    let refused = timeout(PATIENCE, down.message()).await.unwrap().unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
    assert!(refused.message().contains("records.audit"), "{refused}");
    let (_, metrics) = get(&running, "/metrics").await;
    assert!(metrics.contains(r#"tidegate_refused_reports_total{reason="unknown_audit"} 1"#), "{metrics}");
    assert!(!metrics.contains("tidegate_decisions_total{"), "{metrics}");
    running.shutdown().await.unwrap();
}

/// What a rule is attributed to, with the commit that changed its file last.
#[tokio::test]
async fn a_rule_is_shown_with_its_file_and_commit() {
    let place = place();
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git")
            .arg("-C")
            .arg(place.rules())
            .args([
                "-c",
                "user.name=Dana",
                "-c",
                "user.email=dana@sales.example",
                "-c",
                "commit.gpgSign=false",
            ])
            .args(arguments)
            .output();
        output.ok().filter(|output| output.status.success())
    };
    if git(&["init", "-q"]).is_none() {
        println!("SKIPPED: there is no git");
        return;
    }
    git(&["add", "."]).unwrap();
    git(&["commit", "-qm", "rules"]).unwrap();
    let commit = String::from_utf8(git(&["rev-parse", "HEAD"]).unwrap().stdout).unwrap();
    let running = start(&place).await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    let received = filter.install().await;
    let mut reporter = Reporter::connect(&running).await;
    let source = async {
        for number in 0.. {
            let mut record = allowed(&format!("FFFF-0000-{number:04}"));
            record.manifest_sha256 = received.digest();
            record.revision = received.manifest.revision;
            reporter.report(vec![record]).await;
            let path = format!("/decisions/FFFF-0000-{number:04}");
            let body = until(&running, &path, |status, _| status == 200).await;
            let source = json(&body)[0]["decision"]["rule"]["source"].clone();
            // Git is asked in the background.
            if source["commit"].is_string() {
                return source;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Value::Null
    };
    let source = timeout(PATIENCE, source).await.expect("the commit in time");
    assert_eq!(
        (source["file"].as_str(), source["commit"].as_str()),
        (Some("rule.yaml"), Some(commit.trim()))
    );
    assert_eq!(source["author"], "Dana");
    running.shutdown().await.unwrap();
}

/// 10 000 decisions a second for a minute with `TIDEGATE_LONG=1`, else for two seconds as fast as they are taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_loses_no_refusal_and_what_is_lost_is_counted() {
    flood(&place(), None).await;
}

/// The same while an OTLP receiver is down: nobody waits for it, and all is delivered later or counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_waits_for_no_receiver_that_is_down() {
    let receiver = Receiver::start().await.unwrap();
    receiver.set(Mood::Unavailable);
    flood(&place(), Some(&receiver)).await;
}

async fn flood(place: &Place, receiver: Option<&Receiver>) {
    let export = receiver.map(|receiver| {
        let endpoint = format!("http://{}/v1/logs", receiver.http).parse().unwrap();
        tidegate::export::Options {
            logs: Some(Target::new(Signal::Logs, Protocol::Http, endpoint)),
            metrics: None,
            traces: None,
            resource: Vec::new(),
            interval: Duration::from_secs(60),
            queue: Default::default(),
            pace: Default::default(),
        }
    });
    let decisions = tidegate::decisions::Options {
        folder: Some(place.state().join("decisions")),
        limits: Limits::default(),
    };
    let options = Options { decisions, export, ..place.options() };
    let mut running = tidegate::serve::start(options).await.unwrap();
    timeout(PATIENCE, running.ready()).await.expect("ready in time").unwrap();
    let is_long = std::env::var_os("TIDEGATE_LONG").is_some();
    let (seconds, per_second) = if is_long { (60, 10_000_u64) } else { (2, 2_000) };
    let mut reporter = Reporter::connect(&running).await;
    let mut refusals = 0_u64;
    let mut sent = 0_u64;
    let (begun, was_busy) = (tokio::time::Instant::now(), busy());
    let (mut memory, mut slowest) = (Vec::new(), Duration::ZERO);
    for second in 0..seconds {
        for part in 0..per_second / 100 {
            let record = |number: u64| {
                let id = format!("{:04}-{:04}-{number:04}", second, part);
                // One in ten is refused.
                if number.is_multiple_of(10) { refused(&id) } else { allowed(&id) }
            };
            let records: Vec<_> = (0..100).map(record).collect();
            refusals += 10;
            sent += 100;
            let asked = std::time::Instant::now();
            reporter.report(records).await;
            slowest = slowest.max(asked.elapsed());
        }
        memory.push(resident_kib());
        if is_long {
            tokio::time::sleep_until(begun + Duration::from_secs(second + 1)).await;
        }
    }
    let (took, busy) = (begun.elapsed(), busy().saturating_sub(was_busy));
    let metric = async |name: &str| -> u64 {
        let (_, text) = get(&running, "/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        line.unwrap_or_default()
    };
    let lost_other = r#"tidegate_decisions_lost_total{reason="other"}"#;
    let lost_in_full = r#"tidegate_decisions_lost_total{reason="in_full"}"#;
    let settled = async {
        while metric("tidegate_decisions_stored_total").await + metric(lost_other).await < sent {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(120), settled).await.expect("everything is stored or counted");
    let lost = metric(lost_other).await;
    println!(
        "{sent} decisions in {took:?} and {busy:?} of processors with what made them, {lost} of those allowed dropped and \
         counted, slowest acknowledgement {slowest:?}, resident KiB {memory:?}"
    );
    assert_eq!(metric(lost_in_full).await, 0);
    // Without optimisation two cores do not keep up.
    assert!(lost == 0 || cfg!(debug_assertions), "{lost}");
    if let Some(receiver) = receiver {
        let exported = async |what: &str| metric(&format!("tidegate_export_{what}")).await;
        let (logs, full) = (r#"{signal="logs"}"#, r#"{signal="logs",cause="queue_full"}"#);
        assert_eq!(exported(&format!("delivered_total{logs}")).await, 0);
        receiver.set(Mood::Takes);
        let delivered = async {
            while exported(&format!("waiting{logs}")).await > 0
                || exported(&format!("delivered_total{logs}")).await
                    + exported(&format!("lost_total{full}")).await
                    < sent
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(Duration::from_secs(120), delivered).await.expect("everything is delivered or counted");
        let (taken, lost) =
            (exported(&format!("taken_total{logs}")).await, exported(&format!("lost_total{full}")).await);
        let delivered = receiver.taken().logs.len() as u64;
        println!("exported {delivered} of {taken}, {lost} dropped and counted while the receiver was down");
        assert_eq!(taken, delivered + lost);
        assert!(taken >= sent);
    }
    let (mut found, mut before) = (0_u64, String::new());
    loop {
        let page = json(&get(&running, &format!("/decisions?denied=true&limit=1000{before}")).await.1);
        let entries = page["entries"].as_array().unwrap();
        found += entries.iter().filter(|entry| entry["decision"].is_object()).count() as u64;
        match page["more"].as_u64() {
            Some(more) => before = format!("&before={more}"),
            None => break,
        }
    }
    assert_eq!(found, refusals, "no refusal is lost");
    if let (true, Some(early), Some(late)) = (is_long, memory.get(10), memory.last()) {
        assert!(late.saturating_sub(*early) < 64 << 10, "memory grows: {memory:?} KiB");
    }
    running.shutdown().await.unwrap();
}

/// Time of processors that this process used; nothing where the system does not say.
fn busy() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_whitespace());
    // In user and system mode, in hundredths of a second (proc_pid_stat(5)).
    let ticks = fields.into_iter().flatten().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
    Duration::from_millis(10 * ticks.sum::<u64>())
}

/// Resident memory of this process; 0 where the system does not say.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}
