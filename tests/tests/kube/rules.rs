//! Rules come, change, break, are mended and go.

use serde_json::{Value, json};

use crate::cluster::{Cluster, admin, condition, guard, on_every_tier, pod, rule, until};
use crate::filter::Filter;

async fn a_rule_is_created_edited_broken_mended_and_deleted(cluster: Cluster) {
    cluster.apply(pod("sales", "orders-abc-1", "orders")).await;
    let guard = cluster.apply(guard("sales")).await;
    let running = cluster.serve().await;
    let filter = Filter::start(running.grpc_addr, "sales/orders", "orders-abc-1");
    let (_, took) = cluster.condition(&guard, "Enforced", "True", "Enforced").await;
    println!("a Guard is enforced by the only proxy {took:?} after its filter started");

    let first = rule("sales", "etl", "orders", "/v1/first");
    cluster.apply(first.clone()).await;
    let (_, accepted) = cluster.condition(&first, "Compiled", "True", "Compiled").await;
    let (enforced, took) = cluster.condition(&first, "Enforced", "True", "Enforced").await;
    println!("created: accepted after {accepted:?}, enforced after {:?}", accepted + took);
    assert_eq!(enforced["message"], "1 of 1 proxies enforce it");
    assert!(filter.mentions("owner-of-/v1/first"));

    cluster.edit(&first, json!({"spec": {"owner": "owner-of-/v1/second"}})).await;
    let (_, took) = cluster.condition(&first, "Enforced", "True", "Enforced").await;
    println!("edited: enforced after {took:?}");
    assert!(filter.mentions("owner-of-/v1/second") && !filter.mentions("owner-of-/v1/first"));

    cluster.edit(&first, json!({"spec": {"form": [{"anyMesh": true}]}})).await;
    let (refused, took) = cluster.condition(&first, "Accepted", "False", "RefusedLastGoodStays").await;
    println!("broken: reported after {took:?}");
    assert_eq!(
        refused["message"],
        "error[TG0201]: AccessRule `sales/etl`: `spec.form`: unknown field `form`; a field that nobody reads would be a \
         condition that nobody checks; did you mean `from`?"
    );
    cluster.condition(&first, "Compiled", "False", "Refused").await;
    cluster.condition(&first, "Enforced", "False", "NotCompiled").await;
    assert!(filter.mentions("owner-of-/v1/second"), "the last good form stays");
    if let Some(api) = &cluster.fake {
        // It is written when the status is.
        until("an event says it too", async || !api.objects("events.events.k8s.io").is_empty()).await;
        let events = api.objects("events.events.k8s.io");
        assert_eq!(events.len(), 1, "{events:#?}");
        assert_eq!(
            (&events[0]["reason"], &events[0]["regarding"]["name"]),
            (&json!("Refused"), &json!("etl"))
        );
    }

    cluster.edit(&first, json!({"spec": {"form": null}})).await;
    let (_, took) = cluster.condition(&first, "Enforced", "True", "Enforced").await;
    println!("mended: enforced after {took:?}");
    let mended = cluster.get(&first).await.unwrap();
    assert_eq!(condition(&mended, "Accepted")["status"], "True", "{mended:#}");
    assert_eq!(mended["status"]["enforced"], "1/1");

    cluster.delete(&first).await;
    let took = until("the rule is gone", async || !filter.mentions("owner-of-/v1/second")).await;
    println!("deleted: gone from the filter after {took:?}");
    running.shutdown().await.unwrap();
}

async fn a_broken_new_rule_of_one_namespace_holds_back_no_other(cluster: Cluster) {
    cluster.apply(pod("sales", "orders-abc-1", "orders")).await;
    cluster.apply(pod("data", "lake-abc-1", "lake")).await;
    cluster.apply(guard("sales")).await;
    cluster.apply(guard("data")).await;
    let running = cluster.serve().await;
    let mut broken = rule("sales", "broken", "orders", "/v1/broken");
    broken["spec"]["effect"] = json!("Alow");
    cluster.apply(broken.clone()).await;
    let (refused, _) = cluster.condition(&broken, "Accepted", "False", "Refused").await;
    assert!(refused["message"].as_str().unwrap().contains("did you mean `Allow`?"), "{refused}");
    // Its neighbour waits, because a broken Deny could be about it; others do not.
    let neighbour = rule("sales", "neighbour", "orders", "/v1/neighbour");
    let other = rule("data", "other", "lake", "/v1/other");
    cluster.apply(neighbour.clone()).await;
    cluster.apply(other.clone()).await;
    cluster.condition(&other, "Compiled", "True", "Compiled").await;
    let (held, _) = cluster.condition(&neighbour, "Compiled", "False", "HeldBack").await;
    assert_eq!(
        held["message"],
        "held back by errors of AccessRule `sales/broken`; nothing of it is in force"
    );
    cluster.delete(&broken).await;
    cluster.condition(&neighbour, "Compiled", "True", "Compiled").await;
    running.shutdown().await.unwrap();
}

async fn a_guard_that_wants_changed_rules_tried_first_is_refused(cluster: Cluster) {
    cluster.apply(pod("sales", "orders-abc-1", "orders")).await;
    let guard = cluster.apply(guard("sales")).await;
    let running = cluster.serve().await;
    cluster.condition(&guard, "Accepted", "True", "Accepted").await;
    cluster.edit(&guard, json!({"spec": {"rollout": {"canary": "10%", "hold": "5m"}}})).await;
    let (refused, _) = cluster.condition(&guard, "Accepted", "False", "RefusedLastGoodStays").await;
    let message = refused["message"].as_str().unwrap();
    let said = "error[TG0501]: Guard `sales/all`: `spec.rollout`: rollouts are not supported where the control plane reads rules from a \
                cluster; Istio's policies would have to allow";
    assert!(message.starts_with(said), "{message}");
    cluster.edit(&guard, json!({"spec": {"rollout": null}})).await;
    cluster.condition(&guard, "Accepted", "True", "Accepted").await;
    running.shutdown().await.unwrap();
}

async fn who_wrote_a_rule_is_what_its_object_says(cluster: Cluster) {
    cluster.apply(pod("sales", "orders-abc-1", "orders")).await;
    cluster.apply(guard("sales")).await;
    let by =
        |commit: &str, author: &str| json!({"tidegate.dev/commit": commit, "tidegate.dev/author": author});
    let mut said = rule("sales", "said", "orders", "/v1/said");
    said["metadata"]["annotations"] = by("3f2a9c", "Dana");
    cluster.apply(said.clone()).await;
    cluster.apply(rule("sales", "unsaid", "orders", "/v1/unsaid")).await;
    let running = cluster.serve().await;
    let source = async |rule: &str| -> Option<Value> {
        let report: Value = serde_json::from_str(&admin(&running, "/unused?all=true").await.1).unwrap();
        let found = report["rules"].as_array().unwrap().iter().find(|one| one["rule"] == rule)?;
        Some(found["source"].clone())
    };
    let told = |commit: &str, author: &str| {
        let file = "kube/AccessRule/sales/said.yaml";
        Some(json!({"file": file, "line": 1, "commit": commit, "author": author, "byAnnotations": true}))
    };
    until("it is told", async || source("sales/said").await == told("3f2a9c", "Dana")).await;
    assert_eq!(source("sales/unsaid").await, Some(Value::Null));
    let changed = json!({"metadata": {"annotations": by("77e1b0", "Eve")}, "spec": {"owner": "other"}});
    cluster.edit(&said, changed).await;
    until("the next is told", async || source("sales/said").await == told("77e1b0", "Eve")).await;
    running.shutdown().await.unwrap();
}

async fn a_guard_tells_of_pods_without_proxies_and_of_proxies_without_filters(cluster: Cluster) {
    cluster.apply(pod("sales", "orders-abc-1", "orders")).await;
    let mut bare = pod("sales", "orders-abc-2", "orders");
    bare["spec"]["containers"] = json!([{"name": "app", "image": "app"}]);
    cluster.apply(bare).await;
    let guard = cluster.apply(guard("sales")).await;
    let running = cluster.serve().await;
    let (bypassed, _) = cluster.condition(&guard, "Bypassed", "True", "NoProxy").await;
    assert_eq!(bypassed["message"], "1 pods have no proxy that could refuse anything: sales/orders-abc-2");
    let (silent, _) = cluster.condition(&guard, "Enforced", "False", "ProxiesNotConnected").await;
    assert_eq!(silent["message"], "0 of 1 proxies enforce it; not connected: sales/orders-abc-1");
    running.shutdown().await.unwrap();
}

async fn nothing_is_written_while_nothing_changes(cluster: Cluster) {
    cluster.apply(pod("sales", "orders-abc-1", "orders")).await;
    let guard = cluster.apply(guard("sales")).await;
    let running = cluster.serve().await;
    cluster.condition(&guard, "Enforced", "False", "ProxiesNotConnected").await;
    cluster.until(&guard, |guard| condition(guard, "Fenced")["status"] == "True").await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let Some(api) = &cluster.fake else { return };
    api.take_calls();
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let calls: Vec<_> = api.take_calls().into_iter().filter(|call| !call.path.contains("/leases")).collect();
    assert_eq!(calls, []);
    running.shutdown().await.unwrap();
}

mod on {
    use super::*;
    on_every_tier!(a_rule_is_created_edited_broken_mended_and_deleted);
    on_every_tier!(a_broken_new_rule_of_one_namespace_holds_back_no_other);
    on_every_tier!(a_guard_that_wants_changed_rules_tried_first_is_refused);
    on_every_tier!(who_wrote_a_rule_is_what_its_object_says);
    on_every_tier!(a_guard_tells_of_pods_without_proxies_and_of_proxies_without_filters);
    on_every_tier!(nothing_is_written_while_nothing_changes);
}
