//! Replicas that do not lead push what the leader signed, and the leader knows what their filters do.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate::demo::pki::Authority;
use tidegate::serve::{Options, RuleSource, Running};
use tidegate::transport::{TlsOptions, TransportOptions};
use tidegate_proto::v1 as pb;
use tidegate_proto::v1::decision_sink_client::DecisionSinkClient;
use tidegate_proto::v1::policy_distribution_client::PolicyDistributionClient;
use tidegate_proto::v1::relay_client::RelayClient;
use tidegate_proto::v1::subscribe_request::Message as Up;
use tidegate_proto::v1::subscribe_response::Message as Down;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tonic::Code;
use tonic::transport::Endpoint;

use crate::cluster::{Cluster, PATIENCE, admin, guard, on_every_tier, pod, rule, tell, until};
use crate::filter::Filter;

const OFFERED: &str = "what it has on offer is on offer here";

/// What all replicas share, as a Secret is made.
async fn secrets(cluster: &Cluster) -> PathBuf {
    let made = cluster.folder.path().join("made");
    let options = Options { state: made.clone(), ..cluster.options("once") };
    tidegate::serve::start(options).await.unwrap().shutdown().await.unwrap();
    made
}

fn replica(cluster: &Cluster, name: &str, secrets: &Path) -> Options {
    let decisions = tidegate::decisions::Options {
        folder: Some(cluster.folder.path().join(name).join("decisions")),
        ..Default::default()
    };
    Options { secrets: Some(secrets.to_owned()), decisions, ..cluster.options(name) }
}

/// Two pods of one workload, and a rule.
async fn prepared(cluster: &Cluster) -> Value {
    for name in ["orders-abc-1", "orders-abc-2"] {
        cluster.apply(pod("sales", name, "orders")).await;
    }
    cluster.apply(guard("sales")).await;
    let caller = json!({
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "Caller",
        "metadata": {"namespace": "data", "name": "etl"},
        "spec": {"anyOf": [{"peer": {"namespace": "batch"}}]},
    });
    cluster.apply(caller).await;
    cluster.apply(rule("sales", "etl", "orders", "/v1/first")).await
}

async fn follows(running: &Running) {
    until("it follows", async || {
        let (status, told) = admin(running, "/readyz").await;
        status == 200 && told.contains(OFFERED) && told.starts_with("ready: ")
    })
    .await;
}

fn counts(running: &Running) -> (usize, usize, usize) {
    let fleet = running.fleet();
    let orders = &fleet.workloads["sales/orders"];
    (orders.connected, orders.enforcing, orders.lost)
}

async fn enforced(cluster: &Cluster, object: &Value, wanted: &str) -> Duration {
    cluster
        .until(object, |object| {
            object["status"]["enforced"] == wanted
                && object["status"]["observedGeneration"] == object["metadata"]["generation"]
        })
        .await
        .1
}

async fn filters_at_every_replica_get_the_same_bytes_and_are_counted(cluster: Cluster) {
    let first = prepared(&cluster).await;
    let secrets = secrets(&cluster).await;
    let one = cluster.serve_with(replica(&cluster, "one", &secrets)).await;
    let two = cluster.serve_with(replica(&cluster, "two", &secrets)).await;
    assert_eq!(two.leadership().other.as_deref(), Some("one"), "it is ready, and does not lead");
    follows(&two).await;
    let of_one = Filter::start(one.grpc_addr, "sales/orders", "orders-abc-1");
    let of_two = Filter::start(two.grpc_addr, "sales/orders", "orders-abc-2");
    let both = async |text: &str| {
        until(text, async || of_one.mentions(text) && of_two.mentions(text)).await;
        until("the same", async || of_one.enforced() == of_two.enforced()).await;
    };
    both("owner-of-/v1/first").await;
    until("both are counted", async || counts(&one) == (2, 2, 0)).await;
    let took = enforced(&cluster, &first, "2/2").await;
    println!("a filter at the replica that does not lead is told of in the status after {took:?}");

    let since = Instant::now();
    cluster.edit(&first, json!({"spec": {"owner": "owner-of-/v1/second"}})).await;
    both("owner-of-/v1/second").await;
    println!("an edit is enforced at both after {:?}", since.elapsed());
    enforced(&cluster, &first, "2/2").await;

    let asked =
        json!({"target": {"kind": "caller", "name": "data/etl"}, "seconds": 3600, "reason": "leaked"});
    let (status, told) = tell(&one, "POST", "/control/revocations", &asked).await;
    assert_eq!(status, 200, "{told}");
    both("tidegate-revoked-r-1").await;
    let [first_at, other_at] =
        [&of_one, &of_two].map(|filter| filter.mentions_since("tidegate-revoked-r-1").unwrap());
    println!(
        "what is revoked is enforced at the other replica {:?} after the leader's own filter",
        other_at.saturating_duration_since(first_at)
    );
    assert_eq!((of_one.streams(), of_two.streams()), (1, 1));

    // Half an answer would look like a whole one.
    assert_eq!(admin(&one, "/fleet").await.0, 200);
    for path in ["/fleet", "/usage", "/unused", "/candidate", "/keys/forecast"] {
        let (status, told) = admin(&two, path).await;
        let is_told = told.contains("`one` leads") && told.contains("port-forward pod/one ");
        assert!(status == 409 && is_told, "{path}: {status} {told}");
    }
    drop(of_two);
    until("it is gone", async || counts(&one) == (1, 1, 0)).await;
    let metrics = admin(&one, "/metrics").await.1;
    assert!(metrics.contains("tidegate_relay_followers 1\n"), "{metrics}");
    let metrics = admin(&two, "/metrics").await.1;
    assert!(metrics.contains("tidegate_relay_follows 1\n"), "{metrics}");
    one.shutdown().await.unwrap();
    two.shutdown().await.unwrap();
}

async fn filters_stay_where_they_are_when_another_replica_leads(cluster: Cluster) {
    let first = prepared(&cluster).await;
    let secrets = secrets(&cluster).await;
    let one = cluster.serve_with(replica(&cluster, "one", &secrets)).await;
    let two = cluster.serve_with(replica(&cluster, "two", &secrets)).await;
    follows(&two).await;
    let three = tidegate::serve::start(replica(&cluster, "three", &secrets)).await.unwrap();
    follows(&three).await;
    let filters = [(&two, "orders-abc-1"), (&three, "orders-abc-2")]
        .map(|(running, pod)| Filter::start(running.grpc_addr, "sales/orders", pod));
    let all = async |text: &str| until(text, async || filters.iter().all(|one| one.mentions(text))).await;
    all("owner-of-/v1/first").await;
    let before = filters[0].revision().unwrap();
    assert_eq!(filters[1].revision(), Some(before));

    // Without a word.
    let since = Instant::now();
    let gone_at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    drop(one);
    let leads = |running: &Running| running.leadership().epoch.is_some();
    until("another one leads", async || leads(&two) || leads(&three)).await;
    let (leader, other) = if leads(&two) { (two, three) } else { (three, two) };
    follows(&other).await;
    println!(
        "another replica leads and is followed {:?} after the first one was gone, with a lease of 2 s",
        since.elapsed()
    );
    cluster.edit(&first, json!({"spec": {"owner": "owner-of-/v1/second"}})).await;
    all("owner-of-/v1/second").await;
    enforced(&cluster, &first, "2/2").await;
    assert_eq!(counts(&leader), (2, 2, 0));
    let usage: Value = serde_json::from_str(&admin(&leader, "/usage").await.1).unwrap();
    let heard_since = usage["since"].as_u64().unwrap();
    assert!(heard_since > gone_at, "before, others heard of filters: {usage}");
    for filter in &filters {
        assert!(filter.revision().unwrap() > before, "it is newer");
        assert_eq!(filter.streams(), 1, "it goes on as it was");
    }
    leader.shutdown().await.unwrap();
    other.shutdown().await.unwrap();
}

/// Hands connections on, until it is cut.
struct Wire {
    at: SocketAddr,
    to: Arc<Mutex<Option<SocketAddr>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Wire {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (at, to) = (listener.local_addr().unwrap(), Arc::<Mutex<Option<SocketAddr>>>::default());
        let current = to.clone();
        let task = tokio::spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let look = tokio::time::sleep(Duration::from_millis(10));
                let target = *current.lock().unwrap();
                if target.is_none() {
                    open.shutdown().await;
                }
                tokio::select! {
                    accepted = listener.accept() => {
                        let (mut from, _) = accepted.unwrap();
                        if let Some(target) = target {
                            open.spawn(async move {
                                let mut to = TcpStream::connect(target).await?;
                                tokio::io::copy_bidirectional(&mut from, &mut to).await
                            });
                        }
                    }
                    () = look => {}
                }
            }
        });
        Self { at, to, task }
    }

    fn lead_to(&self, target: Option<SocketAddr>) {
        *self.to.lock().unwrap() = target;
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn relay(options: &mut Options) -> &mut tidegate::push::RelayOptions {
    let RuleSource::Cluster(cluster) = &mut options.rules else { panic!() };
    cluster.relay.as_mut().unwrap()
}

async fn a_replica_that_loses_the_leader_serves_what_it_has_for_a_while_and_its_filters_do_not_count(
    cluster: Cluster,
) {
    let first = prepared(&cluster).await;
    let secrets = secrets(&cluster).await;
    let wire = Wire::new().await;
    let mut options = replica(&cluster, "one", &secrets);
    relay(&mut options).address = Some(wire.at.to_string());
    let one = cluster.serve_with(options).await;
    // Nothing came yet.
    let mut two = tidegate::serve::start(replica(&cluster, "two", &secrets)).await.unwrap();
    until("it says why", async || {
        let (status, told) = admin(&two, "/readyz").await;
        status == 503 && told.starts_with("not ready: `one` leads, and nothing has come from it yet: ")
    })
    .await;
    wire.lead_to(Some(one.grpc_addr));
    two.ready().await.unwrap();
    follows(&two).await;
    let of_one = Filter::start(one.grpc_addr, "sales/orders", "orders-abc-1");
    let of_two = Filter::start(two.grpc_addr, "sales/orders", "orders-abc-2");
    enforced(&cluster, &first, "2/2").await;
    assert_eq!(counts(&one), (2, 2, 0));

    wire.lead_to(None);
    let took = until("it is not known what the filter does", async || counts(&one) == (1, 1, 1)).await;
    println!("a stream between replicas broken: its filters do not count any more after {took:?}");
    enforced(&cluster, &first, "1/2").await;
    let (status, told) = admin(&two, "/readyz").await;
    assert!(
        status == 200 && told.starts_with("ready, degraded: `one` leads and cannot be followed"),
        "{told}"
    );
    let late = Filter::start(two.grpc_addr, "sales/orders", "orders-abc-1");
    until("it serves what it has", async || late.mentions("owner-of-/v1/first")).await;
    drop(late);
    let took = until("it stops", async || admin(&two, "/readyz").await.0 == 503).await;
    println!("the replica stops serving {took:?} later, with a lease of 2 s");
    assert!(admin(&two, "/readyz").await.1.contains("has not been followed for too long"));
    cluster.edit(&first, json!({"spec": {"owner": "owner-of-/v1/second"}})).await;
    until("the leader's filter", async || of_one.mentions("owner-of-/v1/second")).await;
    assert!(!of_two.mentions("owner-of-/v1/second"));

    wire.lead_to(Some(one.grpc_addr));
    follows(&two).await;
    until("the other filter", async || of_two.mentions("owner-of-/v1/second")).await;
    until("it counts again", async || counts(&one) == (2, 2, 0)).await;
    enforced(&cluster, &first, "2/2").await;
    one.shutdown().await.unwrap();
    two.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_revoked_does_not_wait_for_a_replica_that_lost_the_leader() {
    let cluster = Cluster::fake().await;
    prepared(&cluster).await;
    let secrets = secrets(&cluster).await;
    let wire = Wire::new().await;
    let of = |name: &str| {
        let mut options = replica(&cluster, name, &secrets);
        let RuleSource::Cluster(cluster) = &mut options.rules else { panic!() };
        // Nobody gives up for this alone before the test does.
        cluster.lease.duration = Duration::from_secs(60);
        options
    };
    let mut options = of("one");
    relay(&mut options).address = Some(wire.at.to_string());
    let one = cluster.serve_with(options).await;
    wire.lead_to(Some(one.grpc_addr));
    let two = cluster.serve_with(of("two")).await;
    follows(&two).await;
    let filter = Filter::start(two.grpc_addr, "sales/orders", "orders-abc-2");
    until("rules", async || filter.mentions("owner-of-/v1/first")).await;
    wire.lead_to(None);
    until("it is cut", async || admin(&two, "/readyz").await.1.contains("degraded")).await;
    assert_eq!(admin(&two, "/readyz").await.0, 200);

    let asked =
        json!({"target": {"kind": "caller", "name": "data/etl"}, "seconds": 3600, "reason": "leaked"});
    let (status, told) = tell(&one, "POST", "/control/revocations", &asked).await;
    assert_eq!(status, 200, "{told}");
    let took = until("it stops", async || admin(&two, "/readyz").await.0 == 503).await;
    println!("a replica that lost the leader stops serving {took:?} after something was revoked");
    let told = admin(&two, "/readyz").await.1;
    assert!(told.contains("something is revoked that never came"), "{told}");
    wire.lead_to(Some(one.grpc_addr));
    until("it is enforced", async || filter.mentions("tidegate-revoked-r-1")).await;
    follows(&two).await;
    one.shutdown().await.unwrap();
    two.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_could_not_read_the_lease_yet_signs_nothing_of_its_own() {
    let mut cluster = Cluster::fake().await;
    let first = prepared(&cluster).await;
    let secrets = secrets(&cluster).await;
    let one = cluster.serve_with(replica(&cluster, "one", &secrets)).await;
    // The leader knows what it wrote last, and reads nothing.
    cluster.fake.as_mut().unwrap().fail("GET", "leases", 503);
    let two = tidegate::serve::start(replica(&cluster, "two", &secrets)).await.unwrap();
    let filter = Filter::start(two.grpc_addr, "sales/orders", "orders-abc-2");
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(2) {
        assert!(!two.is_ready() && filter.revision().is_none(), "it is not known who leads");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cluster.fake.as_mut().unwrap().mend();
    follows(&two).await;
    until("rules", async || filter.mentions("owner-of-/v1/first")).await;
    assert_eq!(filter.revision().map(|(epoch, _)| epoch), one.leadership().epoch);
    cluster.edit(&first, json!({"spec": {"owner": "owner-of-/v1/second"}})).await;
    until("an edit", async || filter.mentions("owner-of-/v1/second")).await;
    one.shutdown().await.unwrap();
    two.shutdown().await.unwrap();
}

/// A filter refuses what is older than what it has, so what the leader has must become later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replica_signed_while_it_was_alone_is_replaced_by_something_later() {
    let mut cluster = Cluster::fake().await;
    let first = prepared(&cluster).await;
    let secrets = secrets(&cluster).await;
    let one = cluster.serve_with(replica(&cluster, "one", &secrets)).await;
    let before = one.leadership().epoch.unwrap();
    // State that is made later has an epoch that is later than the leader's.
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    cluster.fake.as_mut().unwrap().fail("GET", "leases", 503);
    let two = cluster.serve_with(replica(&cluster, "two", &secrets)).await;
    let filter = Filter::start(two.grpc_addr, "sales/orders", "orders-abc-2");
    until("it has what is signed here", async || filter.mentions("owner-of-/v1/first")).await;
    let alone = filter.revision().unwrap();
    let own = filter.enforced().unwrap();
    assert!(alone.0 > before, "{alone:?} {before}");
    cluster.fake.as_mut().unwrap().mend();
    follows(&two).await;
    until("what the leader has is later", async || filter.revision().unwrap().0 > alone.0).await;
    assert_ne!(filter.enforced().unwrap(), own);
    assert_eq!(filter.revision().map(|(epoch, _)| epoch), one.leadership().epoch);
    cluster.edit(&first, json!({"spec": {"owner": "owner-of-/v1/second"}})).await;
    until("an edit", async || filter.mentions("owner-of-/v1/second")).await;
    one.shutdown().await.unwrap();
    two.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_api_server_and_leader_a_replica_goes_on_with_what_it_has() {
    let mut cluster = Cluster::fake().await;
    prepared(&cluster).await;
    let secrets = secrets(&cluster).await;
    let one = cluster.serve_with(replica(&cluster, "one", &secrets)).await;
    let two = cluster.serve_with(replica(&cluster, "two", &secrets)).await;
    follows(&two).await;
    let filter = Filter::start(two.grpc_addr, "sales/orders", "orders-abc-2");
    until("rules", async || filter.mentions("owner-of-/v1/first")).await;
    cluster.fake.as_mut().unwrap().cut_off().await;
    until("it knows", async || !two.leadership().reached).await;
    drop(one);
    until("it is cut", async || admin(&two, "/readyz").await.1.contains("degraded")).await;
    // Longer than it would wait for an election.
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(7) {
        let (status, told) = admin(&two, "/readyz").await;
        assert_eq!(status, 200, "{told}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let late = Filter::start(two.grpc_addr, "sales/orders", "orders-abc-1");
    until("a new filter", async || late.mentions("owner-of-/v1/first")).await;
    assert_eq!(filter.streams(), 1);
    cluster.fake.as_mut().unwrap().come_back().await.unwrap();
    until("it leads", async || two.leadership().epoch.is_some()).await;
    two.shutdown().await.unwrap();
}

/// A record of a request that was refused.
async fn report(running: &Running, id: &str) -> Result<u64, tonic::Status> {
    let batch = pb::ReportRequest {
        sequence: 1,
        vm: Some(pb::VmId { instance: "orders-abc-2".into(), generation: 7 }),
        records: vec![pb::DecisionRecord {
            decision_id: id.into(),
            outcome: pb::Outcome::Deny.into(),
            reason: "no_allow_matched".into(),
            audit: pb::Audit::Full.into(),
            time_ns: 1_795_300_000_000_000_000,
            ..Default::default()
        }],
        workload: Some(pb::WorkloadHint { workload: "sales/orders".into(), instance: "orders-abc-2".into() }),
        ..Default::default()
    };
    let channel =
        Endpoint::from_shared(format!("http://{}", running.grpc_addr)).unwrap().connect().await.unwrap();
    let batches = futures_util::StreamExt::chain(tokio_stream::iter([batch]), tokio_stream::pending());
    let mut answers = DecisionSinkClient::new(channel).report(batches).await?.into_inner();
    Ok(answers.message().await?.unwrap().sequence)
}

async fn the_leader_keeps_records_of_filters_elsewhere_and_nobody_acknowledges_what_it_has_not(
    cluster: Cluster,
) {
    prepared(&cluster).await;
    let secrets = secrets(&cluster).await;
    let wire = Wire::new().await;
    let mut options = replica(&cluster, "one", &secrets);
    relay(&mut options).address = Some(wire.at.to_string());
    let one = cluster.serve_with(options).await;
    wire.lead_to(Some(one.grpc_addr));
    let two = cluster.serve_with(replica(&cluster, "two", &secrets)).await;
    follows(&two).await;
    assert_eq!(report(&two, "0123456789abcdef0123456789abcdef").await.unwrap(), 1);
    until("the leader explains it", async || {
        let (status, told) = admin(&one, "/decisions/0123456789abcdef0123456789abcdef").await;
        status == 200 && told.contains("no_allow_matched")
    })
    .await;
    let gaps = admin(&one, "/metrics").await.1;
    assert!(!gaps.contains("batches_missing"), "{gaps}");

    wire.lead_to(None);
    until("it is cut", async || admin(&two, "/readyz").await.1.contains("degraded")).await;
    let refused = report(&two, "1123456789abcdef0123456789abcdef").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(refused.message().contains("send them again"), "{refused}");
    one.shutdown().await.unwrap();
    two.shutdown().await.unwrap();
}

const JOB: &str = "dataflow/acme/europe-west4/orders-etl";

/// What a filter is answered whether its directory lists these ids: after it has acknowledged what it was pushed before.
async fn ask(running: &Running, questions: &[(&str, &str)]) -> Vec<bool> {
    let channel =
        Endpoint::from_shared(format!("http://{}", running.grpc_addr)).unwrap().connect().await.unwrap();
    let (up, requests) = tokio::sync::mpsc::channel(16);
    let send = async |message| up.send(pb::SubscribeRequest { message: Some(message) }).await.unwrap();
    let hello = pb::Hello {
        protocol_version: 1,
        workload: Some(pb::WorkloadHint { workload: "sales/orders".into(), instance: "orders-abc-2".into() }),
        vm: Some(pb::VmId { instance: "orders-abc-2".into(), generation: 8 }),
        ..Default::default()
    };
    send(Up::Hello(hello)).await;
    for (nonce, (directory, id)) in (1..).zip(questions) {
        let (directory, id) = ((*directory).into(), (*id).into());
        send(Up::Lookup(pb::Lookup { nonce, directory, id })).await;
    }
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut down = PolicyDistributionClient::new(channel).subscribe(requests).await.unwrap().into_inner();
    let mut answers = std::collections::BTreeMap::new();
    while answers.len() < questions.len() {
        let message =
            tokio::time::timeout(PATIENCE, down.message()).await.expect("an answer").unwrap().unwrap();
        match message.message {
            Some(Down::Push(push)) => {
                let manifest_sha256 = tidegate::bundle::sha256(&push.manifest.unwrap().manifest).to_vec();
                send(Up::Ack(pb::Ack { nonce: push.nonce, manifest_sha256 })).await;
            }
            Some(Down::LookupResult(result)) => {
                answers.insert(result.nonce, result.listed);
            }
            _ => {}
        }
    }
    answers.into_values().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_are_answered_by_the_leader_and_with_no_while_it_cannot_be_reached() {
    let cluster = Cluster::fake().await;
    let first = prepared(&cluster).await;
    let issuer = json!({
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "TrustedIssuer",
        "metadata": {"name": "google"},
        "spec": {"issuer": "https://accounts.google.com", "pack": "google", "keys": {"jwksUri": "https://127.0.0.1:9/keys"}},
    });
    cluster.apply(issuer).await;
    let job = json!({"name": "orders-etl", "project": "acme", "region": "europe-west4"});
    let from = json!([{"peer": {"namespace": "etl"}, "tokens": [{"issuer": "google", "dataflowJob": job}]}]);
    cluster.edit(&first, json!({"spec": {"from": from}})).await;
    let secrets = secrets(&cluster).await;
    let directory = cluster.folder.path().join("directory.json");
    let list = |ids: &[&str]| std::fs::write(&directory, json!({JOB: ids}).to_string()).unwrap();
    list(&["4570"]);
    let wire = Wire::new().await;
    let mut options = replica(&cluster, "one", &secrets);
    relay(&mut options).address = Some(wire.at.to_string());
    // The other one does not have it.
    options.directory = Some(directory.clone());
    let one = cluster.serve_with(options).await;
    wire.lead_to(Some(one.grpc_addr));
    let two = cluster.serve_with(replica(&cluster, "two", &secrets)).await;
    follows(&two).await;
    let filter = Filter::start(two.grpc_addr, "sales/orders", "orders-abc-1");
    until("the list travels", async || filter.mentions("4570")).await;
    let asked = [(JOB, "4570"), (JOB, "4571"), ("dataflow/acme/europe-west4/another", "4570")];
    assert_eq!(ask(&two, &asked).await, [true, false, false]);
    list(&["4570", "45713"]);
    until("what is new travels", async || filter.mentions("45713")).await;
    assert_eq!(ask(&two, &[(JOB, "45713")]).await, [true]);

    wire.lead_to(None);
    until("it is cut", async || admin(&two, "/readyz").await.1.contains("degraded")).await;
    assert_eq!(ask(&two, &[(JOB, "4570")]).await, [false], "nobody is there to say so");
    one.shutdown().await.unwrap();
    two.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_not_taken_is_no_fault_of_others() {
    use pb::follow_request::Message as Told;
    let cluster = Cluster::fake().await;
    prepared(&cluster).await;
    let secrets = secrets(&cluster).await;
    let one = cluster.serve_with(replica(&cluster, "one", &secrets)).await;
    let channel =
        Endpoint::from_shared(format!("http://{}", one.grpc_addr)).unwrap().connect().await.unwrap();
    let (up, requests) = tokio::sync::mpsc::channel(16);
    let send = async |message| up.send(pb::FollowRequest { message: Some(message) }).await.unwrap();
    let follower = pb::Follower { protocol_version: 1, replica: "test".into(), ..Default::default() };
    send(Told::Follower(follower)).await;
    let batch = |nonce, workload: &str, batch: &[u8]| {
        Told::Records(pb::RelayedRecords { nonce, workload: workload.into(), after: 0, batch: batch.into() })
    };
    send(batch(1, "sales/unknown", &[])).await;
    send(batch(2, "sales/orders", &[0xff])).await;
    send(batch(3, "sales/orders", &[])).await;
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut down = RelayClient::new(channel).follow(requests).await.unwrap().into_inner();
    let mut answers = std::collections::BTreeMap::new();
    while answers.len() < 3 {
        let message = tokio::time::timeout(PATIENCE, down.message()).await.expect("an answer").unwrap();
        if let Some(pb::follow_response::Message::RecordsTaken(taken)) = message.unwrap().message {
            answers.insert(taken.nonce, taken.refused);
        }
    }
    assert_eq!(answers.into_values().collect::<Vec<_>>(), [true, true, false]);
    one.shutdown().await.unwrap();
}

/// Files for mutual TLS of a replica with this id, by one authority, that trusts another one.
fn files(
    cluster: &Cluster,
    (authority, trusted): (&Authority, &Authority),
    name: &str,
    id: &str,
) -> TransportOptions {
    let credential = authority.workload(id).unwrap();
    let at = |file: &str| cluster.folder.path().join(format!("{name}-{file}"));
    let files = TlsOptions { certificate: at("cert.pem"), key: at("key.pem"), authorities: at("ca.pem") };
    std::fs::write(&files.certificate, &credential.chain_pem).unwrap();
    std::fs::write(&files.key, &credential.key_pem).unwrap();
    std::fs::write(&files.authorities, trusted.pem()).unwrap();
    TransportOptions::mutual(files, "prod.example")
}

const OWN: &str = "spiffe://prod.example/ns/tidegate-system/sa/tidegate";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_follow_each_other_and_nobody_else_follows_or_is_followed() {
    let cluster = Cluster::fake().await;
    prepared(&cluster).await;
    let secrets = secrets(&cluster).await;
    let authority = Authority::new("mesh").unwrap();
    let of = |name: &str, issuer: &Authority, id: &str| Options {
        transport: files(&cluster, (issuer, &authority), name, id),
        ..replica(&cluster, name, &secrets)
    };
    let one = cluster.serve_with(of("one", &authority, OWN)).await;
    let two = cluster.serve_with(of("two", &authority, OWN)).await;
    follows(&two).await;

    // Of the same mesh, and of another one that says the same.
    let foreign = Authority::new("mesh").unwrap();
    for (name, authority, id) in [
        ("account", &authority, "spiffe://prod.example/ns/tidegate-system/sa/other"),
        ("namespace", &authority, "spiffe://prod.example/ns/sales/sa/tidegate"),
        ("filter", &authority, "spiffe://prod.example/ns/sales/sa/orders"),
        ("mesh", &foreign, OWN),
    ] {
        let running = tidegate::serve::start(of(name, authority, id)).await.unwrap();
        until("it is refused", async || {
            let (status, told) = admin(&running, "/readyz").await;
            assert_eq!(status, 503, "{name}: {told}");
            told.contains("nothing has come from it yet: ")
        })
        .await;
        assert!(!running.is_ready());
        running.shutdown().await.unwrap();
    }
    let refused = admin(&one, "/metrics").await.1;
    let count = |reason: &str| {
        let line = format!("tidegate_refused_streams_total{{reason=\"{reason}\"}} ");
        refused.lines().find_map(|found| found.strip_prefix(&line)).map_or(0, |count| count.parse().unwrap())
    };
    assert!(count("not_a_replica") >= 3, "{refused}");
    let unknown = "tidegate_refused_connections_total{reason=\"unknown_authority\"} ";
    assert!(refused.contains(unknown), "a certificate of another authority: {refused}");

    // Whoever leads under a foreign name is not followed.
    one.shutdown().await.unwrap();
    until("the other one leads", async || two.leadership().epoch.is_some()).await;
    two.shutdown().await.unwrap();
    let forged = "spiffe://prod.example/ns/tidegate-system/sa/other";
    let leader = cluster.serve_with(of("forged", &authority, forged)).await;
    let three = tidegate::serve::start(of("three", &authority, OWN)).await.unwrap();
    until("it says why", async || {
        admin(&three, "/readyz").await.1.contains(&format!("the server is {forged}"))
    })
    .await;
    assert!(!three.is_ready());
    three.shutdown().await.unwrap();
    leader.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_does_not_lead_is_not_followed_and_a_stream_says_first_who_it_is() {
    let cluster = Cluster::fake().await;
    prepared(&cluster).await;
    let secrets = secrets(&cluster).await;
    let one = cluster.serve_with(replica(&cluster, "one", &secrets)).await;
    let two = cluster.serve_with(replica(&cluster, "two", &secrets)).await;
    follows(&two).await;
    let open = async |running: &Running, first: pb::follow_request::Message| {
        let endpoint = Endpoint::from_shared(format!("http://{}", running.grpc_addr)).unwrap();
        let first = pb::FollowRequest { message: Some(first) };
        let requests = futures_util::StreamExt::chain(tokio_stream::iter([first]), tokio_stream::pending());
        let mut client = RelayClient::new(endpoint.connect().await.unwrap());
        let mut down = client.follow(requests).await.unwrap().into_inner();
        down.message().await.map(|message| message.unwrap().message.unwrap())
    };
    let follower = |protocol_version| {
        let follower = pb::Follower { protocol_version, replica: "test".into(), ..Default::default() };
        pb::follow_request::Message::Follower(follower)
    };
    let begun = open(&one, follower(1)).await.unwrap();
    assert!(matches!(begun, pb::follow_response::Message::Round(_)), "{begun:?}");
    let refused = open(&two, follower(1)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert_eq!(open(&one, follower(2)).await.unwrap_err().code(), Code::FailedPrecondition);
    let filters = pb::follow_request::Message::Filters(pb::FilterReports::default());
    assert_eq!(open(&one, filters).await.unwrap_err().code(), Code::InvalidArgument);
    one.shutdown().await.unwrap();
    two.shutdown().await.unwrap();
}

mod on {
    use super::*;
    on_every_tier!(filters_at_every_replica_get_the_same_bytes_and_are_counted);
    on_every_tier!(filters_stay_where_they_are_when_another_replica_leads);
    on_every_tier!(
        a_replica_that_loses_the_leader_serves_what_it_has_for_a_while_and_its_filters_do_not_count
    );
    on_every_tier!(the_leader_keeps_records_of_filters_elsewhere_and_nobody_acknowledges_what_it_has_not);
}
