//! The API server is cut off and comes back; replicas come and go.

use std::time::{Duration, Instant};

use serde_json::json;
use tidegate::istio::Attach;
use tidegate::serve::Options;
use tidegate_compiler::fence::IstioVersion;

use crate::cluster::{Cluster, admin, condition, guard, on_every_tier, pod, rule, until};
use crate::filter::Filter;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_stays_while_the_api_server_is_gone_and_all_recovers_alone() {
    let mut cluster = Cluster::fake().await;
    cluster.apply(pod("sales", "orders-abc-1", "orders")).await;
    cluster.apply(guard("sales")).await;
    let first = cluster.apply(rule("sales", "etl", "orders", "/v1/first")).await;
    let running = cluster.serve().await;
    let filter = Filter::start(running.grpc_addr, "sales/orders", "orders-abc-1");
    cluster.condition(&first, "Enforced", "True", "Enforced").await;
    assert_eq!(admin(&running, "/readyz").await, (200, "ready\n".into()));
    let installed = filter.revision();

    cluster.fake.as_mut().unwrap().cut_off().await;
    let took =
        until("it says that it is cut off", async || admin(&running, "/readyz").await.1.contains("degraded"))
            .await;
    println!("cut off: reported after {took:?}");
    let took = until("it stops writing", async || running.leadership().epoch.is_none()).await;
    println!("the lease is given up {took:?} later");
    assert_eq!(admin(&running, "/readyz").await.0, 200, "it serves what it has");
    let late = Filter::start(running.grpc_addr, "sales/orders", "orders-abc-2");
    until("a new filter gets what was accepted", async || late.mentions("owner-of-/v1/first")).await;
    assert_eq!(filter.revision(), installed, "nothing is signed anew");

    // Its history is lost, and something changed meanwhile.
    let api = cluster.fake.as_mut().unwrap();
    api.compact();
    api.come_back().await.unwrap();
    cluster.edit(&first, json!({"spec": {"owner": "owner-of-/v1/second"}})).await;
    let took = until("the change arrives", async || filter.mentions("owner-of-/v1/second")).await;
    println!("back: a change is enforced after {took:?}");
    until("it leads again", async || running.leadership().epoch.is_some()).await;
    cluster.condition(&first, "Enforced", "True", "Enforced").await;
    assert_eq!(admin(&running, "/readyz").await, (200, "ready\n".into()));
    running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_the_api_server_serves_what_was_accepted_last() {
    let mut cluster = Cluster::fake().await;
    cluster.apply(pod("sales", "orders-abc-1", "orders")).await;
    cluster.apply(guard("sales")).await;
    let first = cluster.apply(rule("sales", "etl", "orders", "/v1/first")).await;
    let running = cluster.serve().await;
    cluster.condition(&first, "Compiled", "True", "Compiled").await;
    running.shutdown().await.unwrap();

    cluster.fake.as_mut().unwrap().cut_off().await;
    let since = Instant::now();
    let running = cluster.serve().await;
    println!("ready without the API server after {:?}", since.elapsed());
    let filter = Filter::start(running.grpc_addr, "sales/orders", "orders-abc-1");
    until("the filter gets it", async || filter.mentions("owner-of-/v1/first")).await;
    cluster.fake.as_mut().unwrap().come_back().await.unwrap();
    cluster.edit(&first, json!({"spec": {"owner": "owner-of-/v1/second"}})).await;
    until("the change arrives", async || filter.mentions("owner-of-/v1/second")).await;
    running.shutdown().await.unwrap();
}

/// The same of a real one, which is ended and started again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_api_server_is_restarted_and_all_recovers_alone() {
    let Some(mut cluster) =
        crate::cluster::tiers("a restart").await.into_iter().find(|one| one.fake.is_none())
    else {
        return;
    };
    cluster.apply(pod("sales", "orders-abc-1", "orders")).await;
    cluster.apply(guard("sales")).await;
    let first = cluster.apply(rule("sales", "etl", "orders", "/v1/first")).await;
    let running = cluster.serve().await;
    let filter = Filter::start(running.grpc_addr, "sales/orders", "orders-abc-1");
    cluster.condition(&first, "Enforced", "True", "Enforced").await;
    let installed = filter.revision();
    cluster.tell("stop");
    let took =
        until("it says that it is cut off", async || admin(&running, "/readyz").await.1.contains("degraded"))
            .await;
    println!("kube-apiserver ended: reported after {took:?}");
    until("it stops writing", async || running.leadership().epoch.is_none()).await;
    assert_eq!(admin(&running, "/readyz").await.0, 200, "it serves what it has");
    assert_eq!(filter.revision(), installed, "nothing is signed anew");
    cluster.tell("restart");
    let took = until("it leads again", async || running.leadership().epoch.is_some()).await;
    println!("kube-apiserver started again: leads again after {took:?}");
    let since = Instant::now();
    cluster.edit(&first, json!({"spec": {"owner": "owner-of-/v1/second"}})).await;
    until("the change arrives", async || filter.mentions("owner-of-/v1/second")).await;
    cluster.condition(&first, "Enforced", "True", "Enforced").await;
    println!("a change is enforced and told after {:?}", since.elapsed());
    assert_eq!(admin(&running, "/readyz").await, (200, "ready\n".into()));
    running.shutdown().await.unwrap();
}

async fn of_two_replicas_one_writes_and_the_other_takes_over(cluster: Cluster) {
    cluster.apply(pod("sales", "orders-abc-1", "orders")).await;
    cluster.apply(guard("sales")).await;
    let first = cluster.apply(rule("sales", "etl", "orders", "/v1/first")).await;
    let one = cluster.serve_as("one").await;
    let two = tidegate::serve::start(cluster.options("two")).await.unwrap();
    until("the second one waits", async || two.leadership().other.as_deref() == Some("one")).await;
    cluster.condition(&first, "Compiled", "True", "Compiled").await;
    let filter = Filter::start(one.grpc_addr, "sales/orders", "orders-abc-1");
    until("the filter has the rule", async || filter.mentions("owner-of-/v1/first")).await;
    let (epoch, _) = filter.revision().unwrap();
    // Nothing flaps while both are there.
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(3) {
        assert!(one.leadership().epoch.is_some() && two.leadership().epoch.is_none());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(filter);

    // Without a word.
    let since = Instant::now();
    drop(one);
    until("the second one leads", async || two.leadership().epoch.is_some()).await;
    println!("took over {:?} after the other one was gone, with a lease of 2 s", since.elapsed());
    let filter = Filter::start(two.grpc_addr, "sales/orders", "orders-abc-1");
    until("the filter has the rule", async || filter.mentions("owner-of-/v1/first")).await;
    assert!(filter.revision().unwrap().0 > epoch, "filters take its Bundles for newer");
    cluster.edit(&first, json!({"spec": {"owner": "owner-of-/v1/second"}})).await;
    until("the change arrives", async || filter.mentions("owner-of-/v1/second")).await;
    cluster.until(&first, |rule| condition(rule, "Enforced")["status"] == "True").await;

    // With one.
    let three = tidegate::serve::start(cluster.options("three")).await.unwrap();
    until("the third one waits", async || three.leadership().other.as_deref() == Some("two")).await;
    let since = Instant::now();
    two.shutdown().await.unwrap();
    until("the third one leads", async || three.leadership().epoch.is_some()).await;
    println!("took over {:?} after the other one ended in good order", since.elapsed());
    three.shutdown().await.unwrap();
}

/// "Whichever replica leads, filters trust its signature and set the interlock that its Fence demands."
async fn replicas_with_the_same_secrets_take_over_without_a_change_to_filters(cluster: Cluster) {
    cluster.apply(pod("sales", "orders-abc-1", "orders")).await;
    let guard = cluster.apply(guard("sales")).await;
    let first = cluster.apply(rule("sales", "etl", "orders", "/v1/first")).await;
    let of = |replica: &str, secrets: Option<std::path::PathBuf>| {
        let options = cluster.options_with_plugins(replica, IstioVersion::V1_30, Attach::Dormant);
        Options { secrets, ..options }
    };
    // What a Secret is made of.
    let made = cluster.folder.path().join("made");
    let empty = cluster.folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let error = tidegate::serve::start(of("none", Some(empty))).await.unwrap_err();
    assert!(error.to_string().contains("next-signing-key.p8"), "{error}");
    let once = tidegate::serve::start(Options { state: made.clone(), ..of("once", None) }).await.unwrap();
    once.shutdown().await.unwrap();

    let one = cluster.serve_with(of("one", Some(made.clone()))).await;
    let two = tidegate::serve::start(of("two", Some(made.clone()))).await.unwrap();
    let stranger = tidegate::serve::start(of("stranger", None)).await.unwrap();
    assert_eq!(one.trusted_keys, two.trusted_keys);
    until("the second one waits", async || two.leadership().other.as_deref() == Some("one")).await;
    let told = (200, "ready: `one` leads, and what it has on offer is on offer here\n".to_owned());
    until("it follows", async || admin(&two, "/readyz").await == told).await;
    until("the stranger waits", async || stranger.leadership().other.is_some()).await;
    let (status, told) = admin(&stranger, "/readyz").await;
    assert!(status == 503 && told.contains("--secrets"), "{status} {told}");
    stranger.shutdown().await.unwrap();

    let object = json!({
        "apiVersion": "extensions.istio.io/v1alpha1",
        "kind": "TrafficExtension",
        "metadata": {"namespace": "sales", "name": "tidegate-orders"},
    });
    cluster.condition(&guard, "Attached", "True", "Attached").await;
    cluster.condition(&first, "Compiled", "True", "Compiled").await;
    let (before, _) =
        cluster.until(&object, |object| object["spec"]["wasm"]["pluginConfig"]["bundle"].is_string()).await;
    one.shutdown().await.unwrap();
    until("the second one leads", async || two.leadership().epoch.is_some()).await;
    let filter = Filter::start(two.grpc_addr, "sales/orders", "orders-abc-1");
    until("the filter has the rule", async || filter.mentions("owner-of-/v1/first")).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let after = cluster.get(&object).await.unwrap();
    assert_eq!(before["spec"], after["spec"], "what filters are configured with");
    two.shutdown().await.unwrap();
}

mod on {
    use super::*;
    on_every_tier!(of_two_replicas_one_writes_and_the_other_takes_over);
    on_every_tier!(replicas_with_the_same_secrets_take_over_without_a_change_to_filters);
}
