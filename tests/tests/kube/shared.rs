//! What people revoke and pin is one object of the cluster: every replica sees it, and whoever leads next goes on with it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate::serve::Running;

use crate::cluster::{Cluster, admin, guard, on_every_tier, pod, rule, tell, until};
use crate::filter::Filter;

const REVOKED: &str = "tidegate-revoked-r-1";

fn caller(namespace: &str) -> Value {
    json!({
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "Caller",
        "metadata": {"namespace": "data", "name": "etl"},
        "spec": {"anyOf": [{"peer": {"namespace": namespace}}]},
    })
}

fn kept() -> Value {
    json!({
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "Intervention",
        "metadata": {"namespace": "tidegate-system", "name": "tidegate"},
    })
}

async fn prepared(cluster: &Cluster) -> Value {
    cluster.apply(pod("sales", "orders-abc-1", "orders")).await;
    cluster.apply(guard("sales")).await;
    cluster.apply(caller("batch")).await;
    cluster.apply(rule("sales", "etl", "orders", "/v1/first")).await
}

async fn revoke(running: &Running) -> (u16, String) {
    let asked =
        json!({"target": {"kind": "caller", "name": "data/etl"}, "seconds": 3600, "reason": "leaked"});
    tell(running, "POST", "/control/revocations", &asked).await
}

async fn control(running: &Running) -> Value {
    serde_json::from_str(&admin(running, "/control").await.1).unwrap()
}

/// The ids of what is revoked.
async fn revoked(running: &Running) -> BTreeSet<String> {
    let state = control(running).await;
    let all = state["revocations"].as_array().unwrap();
    all.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

/// An export of the last hour: what began in this second is in the next one's.
async fn evidence(running: &Running) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let time = |seconds: u64| tidegate::decisions::time::write(i64::try_from(seconds).unwrap() * 1_000_000);
    admin(running, &format!("/evidence?from={}&to={}", time(now - 3_600), time(now))).await.1
}

fn filter(running: &Running) -> Filter {
    Filter::start(running.grpc_addr, "sales/orders", "orders-abc-1")
}

/// Starts a second replica, and waits until it waits.
async fn standby(cluster: &Cluster, replica: &str, leader: &str) -> Running {
    let running = tidegate::serve::start(cluster.options(replica)).await.unwrap();
    until("it waits", async || running.leadership().other.as_deref() == Some(leader)).await;
    until("it has judged", async || !control(&running).await["accepted"].is_null()).await;
    running
}

async fn whoever_leads_next_has_what_was_revoked_in_its_first_bundle(cluster: Cluster) {
    prepared(&cluster).await;
    let one = cluster.serve_as("one").await;
    let two = standby(&cluster, "two", "one").await;
    let of_one = filter(&one);
    until("rules", async || of_one.mentions("owner-of-/v1/first")).await;
    let (status, told) = revoke(&one).await;
    assert_eq!(status, 200, "{told}");
    let stored = cluster.get(&kept()).await.expect("it is in the cluster when it is said to be done");
    assert_eq!(stored["spec"]["revocations"][0]["reason"], "leaked");
    until("it is enforced", async || of_one.mentions(REVOKED)).await;

    // Without a word.
    let of_two = filter(&two);
    drop(one);
    until("the second one leads", async || two.leadership().epoch.is_some()).await;
    until("rules", async || of_two.mentions("owner-of-/v1/first")).await;
    assert!(of_two.always_mentioned(REVOKED), "from the first Bundle on");
    assert_eq!(revoked(&two).await, BTreeSet::from(["r-1".to_owned()]));

    // Another name does not help the Caller, and does not free the old one.
    cluster.apply(caller("elsewhere")).await;
    until("both", async || of_two.mentions("elsewhere") && of_two.mentions("batch")).await;
    cluster.delete(&caller("elsewhere")).await;
    until("what it was", async || !of_two.mentions("elsewhere") && of_two.mentions("batch")).await;
    assert_eq!(tell(&two, "DELETE", "/control/entries/r-1", &Value::Null).await.0, 200);
    until("it is lifted", async || !of_two.mentions(REVOKED)).await;
    two.shutdown().await.unwrap();
}

async fn what_is_told_to_a_replica_that_waits_reaches_filters(cluster: Cluster) {
    prepared(&cluster).await;
    let one = cluster.serve_as("one").await;
    let two = standby(&cluster, "two", "one").await;
    let of_one = filter(&one);
    until("rules", async || of_one.mentions("owner-of-/v1/first")).await;
    let (status, told) = revoke(&two).await;
    assert_eq!(status, 200, "{told}");
    until("it is enforced", async || of_one.mentions(REVOKED)).await;
    assert_eq!(revoked(&one).await, revoked(&two).await);

    // Which rules a number means is the leader's to say; and what cannot end by itself is not begun.
    let pin = json!({"rules": "1", "reason": "x"});
    let (status, told) = tell(&two, "POST", "/control/pin", &pin).await;
    assert!(status == 409 && told.contains("`one` leads"), "{status} {told}");
    let suspension = json!({"workload": "sales/orders", "seconds": 60, "reason": "x", "ticket": "x"});
    let (status, told) = tell(&one, "POST", "/control/suspensions", &suspension).await;
    assert!(status == 422 && told.contains("could not end by themselves"), "{status} {told}");

    // How it ended is known to both, and to whoever comes later.
    assert_eq!(tell(&one, "DELETE", "/control/entries/r-1", &Value::Null).await.0, 200);
    let stored = cluster.get(&kept()).await.unwrap();
    let past = &stored["spec"]["past"]["ended"];
    assert_eq!(
        (past.as_array().map(Vec::len), &past[0]["end"]["how"]),
        (Some(1), &json!("lifted")),
        "{stored:#}"
    );
    until("both have no revocation", async || {
        revoked(&one).await.is_empty() && revoked(&two).await.is_empty()
    })
    .await;
    for running in [&one, &two] {
        until("it is evidence", async || {
            let told = evidence(running).await;
            told.contains("revoked,r-1,Caller data/etl,") && told.contains(",lifted,")
        })
        .await;
    }
    one.shutdown().await.unwrap();
    two.shutdown().await.unwrap();
}

async fn of_many_changes_by_two_replicas_none_is_lost(cluster: Cluster) {
    prepared(&cluster).await;
    let one = cluster.serve_as("one").await;
    let two = standby(&cluster, "two", "one").await;
    let many = async |running: &Running| {
        for _ in 0..6 {
            // Who is beaten again and again says so, and nothing has changed.
            while revoke(running).await.0 != 200 {}
        }
    };
    tokio::join!(many(&one), many(&two));
    let all: BTreeSet<String> = (1..=12).map(|number| format!("r-{number}")).collect();
    until("both know all", async || revoked(&one).await == all && revoked(&two).await == all).await;
    one.shutdown().await.unwrap();
    two.shutdown().await.unwrap();
}

async fn pinned_rules_stay_pinned_under_another_leader(cluster: Cluster) {
    let first = prepared(&cluster).await;
    let one = cluster.serve_as("one").await;
    let two = standby(&cluster, "two", "one").await;
    let before = control(&one).await["accepted"]["digest"].as_str().unwrap().to_owned();
    until("both have it", async || control(&two).await["accepted"]["digest"] == before.as_str()).await;
    cluster.edit(&first, json!({"spec": {"owner": "owner-of-/v1/second"}})).await;
    for running in [&one, &two] {
        until("it is accepted", async || control(running).await["accepted"]["digest"] != before.as_str())
            .await;
    }
    let (status, told) =
        tell(&one, "POST", "/control/pin", &json!({"rules": before, "reason": "month-end"})).await;
    assert_eq!(status, 200, "{told}");
    until("the other one knows", async || control(&two).await["pin"]["digest"] == before.as_str()).await;
    let of_two = filter(&two);
    drop(one);
    until("rules", async || of_two.mentions("owner-of-/v1/")).await;
    assert!(of_two.always_mentioned("owner-of-/v1/first"), "the pinned ones");
    // Who has never seen them puts nothing newer in force.
    let three = standby(&cluster, "three", "two").await;
    let of_three = filter(&three);
    drop(two);
    until("the third one leads", async || three.leadership().epoch.is_some()).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(of_three.revision(), None);
    assert_eq!(admin(&three, "/readyz").await.0, 503);
    // What is revoked then is written down, and not said to be in force.
    let (status, told) = revoke(&three).await;
    assert!(status == 200 && told.contains("not in force: the pinned rules are not here"), "{status} {told}");
    let state = control(&three).await;
    assert_eq!((&state["broken"][0]["id"], &state["broken"][0]["inForce"]), (&json!("r-1"), &json!(false)));
    let metrics = admin(&three, "/metrics").await.1;
    assert!(metrics.contains("tidegate_revocations_broken 1\n"), "{metrics}");
    assert_eq!(tell(&three, "DELETE", "/control/pin", &Value::Null).await.0, 200);
    until("the newest", async || of_three.mentions("owner-of-/v1/second")).await;
    assert!(of_three.always_mentioned(REVOKED), "from the first Bundle on");
    assert_eq!(control(&three).await["broken"], Value::Null);
    three.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_written_is_not_said_to_be_done_and_changes_nothing() {
    let mut cluster = Cluster::fake().await;
    prepared(&cluster).await;
    let one = cluster.serve_as("one").await;
    let of_one = filter(&one);
    until("rules", async || of_one.mentions("owner-of-/v1/first")).await;
    let fake = cluster.fake.as_mut().unwrap();
    fake.fail("POST", "interventions", 403);
    let (status, told) = revoke(&one).await;
    assert!(status == 503 && told.contains("tidegate-system/tidegate`"), "{status} {told}");
    assert!(told.contains("nothing has changed"), "{told}");
    fake.mend();
    fake.cut_off().await;
    let (status, told) = revoke(&one).await;
    assert!(status == 503 && told.contains("nothing has changed"), "{status} {told}");
    assert_eq!(revoked(&one).await, BTreeSet::new());
    assert!(!of_one.mentions("tidegate-revoked"));
    cluster.fake.as_mut().unwrap().come_back().await.unwrap();
    until("it works again", async || revoke(&one).await.0 == 200).await;
    until("it is enforced", async || of_one.mentions(REVOKED)).await;

    // Deleted by hand, it is written again.
    cluster.delete(&kept()).await;
    cluster.until(&kept(), |kept| kept["spec"]["revocations"][0]["id"] == "r-1").await;
    assert_eq!(revoked(&one).await, BTreeSet::from(["r-1".to_owned()]));

    // What makes no sense is not taken for nothing.
    cluster.edit(&kept(), json!({"spec": {"given": "many"}})).await;
    let (status, told) = revoke(&one).await;
    assert!(status == 503 && told.contains("is not what was written there"), "{status} {told}");
    assert!(of_one.mentions(REVOKED));
    one.shutdown().await.unwrap();
}

/// Whoever leads next knows `r-1` and `r-2`, from the cluster alone.
async fn is_known_to_the_next_leader(cluster: &Cluster, leader: Running) {
    let next = standby(cluster, "next", "one").await;
    drop(leader);
    until("the next one leads", async || next.leadership().epoch.is_some()).await;
    assert_eq!(revoked(&next).await, BTreeSet::from(["r-1".to_owned(), "r-2".to_owned()]));
    next.shutdown().await.unwrap();
}

async fn with_two_revoked(cluster: &Cluster) -> Running {
    prepared(cluster).await;
    let one = cluster.serve_as("one").await;
    for _ in 0..2 {
        assert_eq!(revoke(&one).await.0, 200);
    }
    one
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_while_nobody_watches_is_written_again() {
    let mut cluster = Cluster::fake().await;
    let one = with_two_revoked(&cluster).await;
    let epoch = one.leadership().epoch;
    let fake = cluster.fake.as_mut().unwrap();
    fake.cut_off().await;
    fake.delete(&kept()).unwrap();
    // The watch begins with a new list, and nobody is told of the deletion.
    fake.compact();
    fake.come_back().await.unwrap();
    cluster.until(&kept(), |kept| kept["spec"]["revision"] == 2).await;
    assert_eq!(one.leadership().epoch, epoch, "it was not elected anew");
    is_known_to_the_next_leader(&cluster, one).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_object_that_is_restored_is_written_over() {
    let cluster = Cluster::fake().await;
    prepared(&cluster).await;
    let one = cluster.serve_as("one").await;
    assert_eq!(revoke(&one).await.0, 200);
    let mut older = kept();
    older["spec"] = cluster.get(&kept()).await.unwrap()["spec"].clone();
    assert_eq!(revoke(&one).await.0, 200);
    let applied = cluster.fake.as_ref().unwrap().apply(&older).unwrap();
    assert_eq!(applied["spec"]["revocations"].as_array().unwrap().len(), 1);
    cluster.until(&kept(), |kept| kept["spec"]["revocations"][1]["id"] == "r-2").await;
    assert_eq!(revoked(&one).await.len(), 2, "it was not forgotten meanwhile");
    is_known_to_the_next_leader(&cluster, one).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspension_that_nobody_could_ask_for_does_not_count() {
    let cluster = Cluster::fake().await;
    let one = with_two_revoked(&cluster).await;
    let mut forged = kept();
    forged["spec"] = cluster.get(&kept()).await.unwrap()["spec"].clone();
    let until_2100 = json!({"id": "s-9", "workload": "sales/orders", "reason": "x", "ticket": "x", "by": "me", "at": 0, "until": 4_102_444_800_i64});
    forged["spec"]["suspensions"] = json!([until_2100]);
    forged["spec"]["revision"] = 3.into();
    cluster.fake.as_ref().unwrap().apply(&forged).unwrap();
    until("it is told", async || control(&one).await["broken"][0]["id"] == "s-9").await;
    assert_eq!(control(&one).await["suspensions"], json!([]));
    let metrics = admin(&one, "/metrics").await.1;
    assert!(metrics.contains("tidegate_revocations_broken 1\n"), "{metrics}");
    assert_eq!(revoke(&one).await.0, 200);
    assert_eq!(cluster.get(&kept()).await.unwrap()["spec"]["suspensions"], json!([]), "it is gone");
    until("it is not told any more", async || control(&one).await["broken"].is_null()).await;
    assert_eq!(revoked(&one).await.len(), 3);
    one.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_written_again_at_once_is_later() {
    let cluster = Cluster::fake().await;
    let one = with_two_revoked(&cluster).await;
    let fake = cluster.fake.as_ref().unwrap();
    // The watch goes on.
    fake.fail("POST", "interventions", 500);
    fake.take_calls();
    fake.delete(&kept()).unwrap();
    let refused = std::cell::Cell::new(0);
    until("it is refused, and tried again", async || {
        let calls = fake.take_calls();
        let posts = calls.iter().filter(|call| call.method == "POST" && call.path.ends_with("interventions"));
        refused.set(refused.get() + posts.count());
        refused.get() > 1
    })
    .await;
    assert_eq!(cluster.get(&kept()).await, None);
    fake.mend();
    cluster.until(&kept(), |kept| kept["spec"]["revision"] == 2).await;
    is_known_to_the_next_leader(&cluster, one).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_read_what_is_revoked_does_not_lead() {
    let cluster = Cluster::fake().await;
    prepared(&cluster).await;
    let one = cluster.serve_as("one").await;
    assert_eq!(revoke(&one).await.0, 200);
    let fake = cluster.fake.as_ref().unwrap();
    fake.fail("GET", "interventions", 403);
    let two = standby(&cluster, "two", "one").await;
    assert_eq!(revoked(&two).await, BTreeSet::new());
    let of_two = filter(&two);
    drop(one);
    until("it says so", async || admin(&two, "/readyz").await.1.contains("cannot read what is revoked"))
        .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!((two.leadership().epoch, of_two.revision()), (None, None), "nothing is put in force");
    fake.mend();
    until("it leads", async || two.leadership().epoch.is_some()).await;
    until("rules", async || of_two.mentions("owner-of-/v1/first")).await;
    assert!(of_two.always_mentioned(REVOKED));
    two.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_the_api_server_goes_by_what_was_known_last() {
    let mut cluster = Cluster::fake().await;
    prepared(&cluster).await;
    let running = cluster.serve().await;
    until("it is revoked", async || revoke(&running).await.0 == 200).await;
    running.shutdown().await.unwrap();
    cluster.fake.as_mut().unwrap().cut_off().await;
    let running = cluster.serve().await;
    let filter = filter(&running);
    until("rules", async || filter.mentions("owner-of-/v1/first")).await;
    assert!(filter.always_mentioned(REVOKED));
    cluster.fake.as_mut().unwrap().come_back().await.unwrap();
    until("it leads", async || running.leadership().epoch.is_some()).await;
    assert_eq!(tell(&running, "DELETE", "/control/entries/r-1", &Value::Null).await.0, 200);
    until("it is lifted", async || !filter.mentions(REVOKED)).await;
    running.shutdown().await.unwrap();
}

mod on {
    use super::*;
    on_every_tier!(whoever_leads_next_has_what_was_revoked_in_its_first_bundle);
    on_every_tier!(what_is_told_to_a_replica_that_waits_reaches_filters);
    on_every_tier!(of_many_changes_by_two_replicas_none_is_lost);
    on_every_tier!(pinned_rules_stay_pinned_under_another_leader);
}
