//! Istio's policies: written, corrected, left to others, taken away, and in step with filters.

use serde_json::{Value, json};

use crate::cluster::{Cluster, condition, guard, on_every_tier, pod, rule, until};
use crate::filter::Filter;

fn policy() -> Value {
    json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"namespace": "sales", "name": "tidegate-orders"},
    })
}

fn has_path(policy: &Value, path: &str) -> bool {
    policy["spec"]["rules"].to_string().contains(path)
}

async fn policies_follow_rules_and_hand_edits_are_set_right(cluster: Cluster) {
    cluster.apply(pod("sales", "orders-abc-1", "orders")).await;
    let guard = cluster.apply(guard("sales")).await;
    let rule = cluster.apply(rule("sales", "etl", "orders", "/v1/first")).await;
    let running = cluster.serve().await;
    let (written, took) = cluster.until(&policy(), |policy| has_path(policy, "/v1/first")).await;
    println!("the policy is there {took:?} after the server was ready");
    assert_eq!(written["metadata"]["labels"]["app.kubernetes.io/managed-by"], "tidegate", "{written:#}");
    cluster.until(&rule, |rule| condition(rule, "Fenced")["status"] == "True").await;
    cluster.until(&guard, |guard| condition(guard, "Fenced")["status"] == "True").await;

    cluster
        .edit(&rule, json!({"spec": {"to": [{"http": {"methods": ["POST"], "paths": ["/v1/second"]}}]}}))
        .await;
    let both = |policy: &Value| has_path(policy, "/v1/second") && !has_path(policy, "/v1/first");
    let (_, took) = cluster.until(&policy(), both).await;
    println!("edited: the policy is right after {took:?}");

    for (what, change) in [
        ("rules", json!({"spec": {"rules": [{}]}})),
        ("a label", json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": null}}})),
        ("the action", json!({"spec": {"action": "DENY"}})),
        ("the selector", json!({"spec": {"selector": {"matchLabels": {"app": "nobody"}}}})),
    ] {
        let before = cluster.get(&policy()).await.unwrap();
        cluster.edit(&policy(), change).await;
        let is_right = |policy: &Value| {
            policy["spec"] == before["spec"] && policy["metadata"]["labels"] == before["metadata"]["labels"]
        };
        let (_, took) = cluster.until(&policy(), is_right).await;
        println!("{what} edited by hand: right again after {took:?}");
    }
    cluster.delete(&policy()).await;
    let (_, took) = cluster.until(&policy(), both).await;
    println!("deleted by hand: there again after {took:?}");

    // What others made is left alone, whatever it is called and labelled.
    let mut copy = cluster.get(&policy()).await.unwrap();
    let spec = copy["spec"].take();
    let copy = json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"namespace": "sales", "name": "my-copy", "labels": copy["metadata"]["labels"]},
        "spec": spec,
    });
    cluster.apply(copy.clone()).await;
    cluster.delete(&rule).await;
    cluster.delete(&guard).await;
    let took = until("the policy is gone", async || cluster.get(&policy()).await.is_none()).await;
    println!("no Guard any more: the policy is gone after {took:?}");
    assert!(cluster.get(&copy).await.is_some());
    running.shutdown().await.unwrap();
}

async fn what_another_controller_applies_is_a_conflict_and_not_overwritten(cluster: Cluster) {
    cluster.apply(pod("sales", "orders-abc-1", "orders")).await;
    cluster.apply(guard("sales")).await;
    let rule = cluster.apply(rule("sales", "etl", "orders", "/v1/first")).await;
    let mut theirs = policy();
    theirs["spec"] = json!({"action": "ALLOW", "rules": [{"to": [{"operation": {"paths": ["/theirs"]}}]}]});
    cluster.apply(theirs.clone()).await;
    let running = cluster.serve().await;
    let (conflict, took) = cluster.condition(&rule, "Fenced", "False", "Conflict").await;
    println!("the conflict is reported after {took:?}: {}", conflict["message"]);
    assert!(has_path(&cluster.get(&policy()).await.unwrap(), "/theirs"));
    cluster.delete(&theirs).await;
    let (_, took) = cluster.until(&policy(), |policy| has_path(policy, "/v1/first")).await;
    println!("after they let go, it is there after {took:?}");
    cluster.until(&rule, |rule| condition(rule, "Fenced")["status"] == "True").await;
    // One that takes it over later is a conflict as well.
    cluster.apply(theirs).await;
    let (conflict, _) = cluster.condition(&rule, "Fenced", "False", "Conflict").await;
    assert!(conflict["message"].as_str().unwrap().contains("kubectl"), "{conflict}");
    assert!(has_path(&cluster.get(&policy()).await.unwrap(), "/theirs"));
    running.shutdown().await.unwrap();
}

async fn filters_get_a_wider_rule_after_the_policy_and_a_narrower_one_before(cluster: Cluster) {
    let Some(api) = &cluster.fake else {
        return eprintln!(
            "SKIPPED: the order of policies and filters on a real API server: it cannot be told to fail"
        );
    };
    cluster.apply(pod("sales", "orders-abc-1", "orders")).await;
    cluster.apply(guard("sales")).await;
    let running = cluster.serve().await;
    let filter = Filter::start(running.grpc_addr, "sales/orders", "orders-abc-1");
    until("the filter has something", async || filter.mentions("sales/all")).await;
    cluster.until(&policy(), |policy| policy["spec"]["action"] == "ALLOW").await;
    api.fail("PATCH", "authorizationpolicies", 500);
    let wider = cluster.apply(rule("sales", "etl", "orders", "/v1/first")).await;
    cluster.condition(&wider, "Fenced", "False", "NotWritten").await;
    assert!(!filter.mentions("owner-of-/v1/first"), "nothing would let it through yet");
    api.mend();
    until("the filter has the rule", async || filter.mentions("owner-of-/v1/first")).await;
    assert!(has_path(&cluster.get(&policy()).await.unwrap(), "/v1/first"));

    api.fail("PATCH", "authorizationpolicies", 500);
    cluster.edit(&wider, json!({"spec": {"effect": "Deny"}})).await;
    let took = until("the filter refuses", async || {
        let policy = cluster.get(&policy()).await.unwrap();
        filter.mentions("owner-of-/v1/first")
            && has_path(&policy, "/v1/first")
            && !running.fleet().workloads.is_empty()
    })
    .await;
    println!("a narrowing waits for no policy: {took:?}");
    api.mend();
    cluster.until(&policy(), |policy| !has_path(policy, "/v1/first")).await;
    running.shutdown().await.unwrap();
}

mod on {
    use super::*;
    on_every_tier!(policies_follow_rules_and_hand_edits_are_set_right);
    on_every_tier!(what_another_controller_applies_is_a_conflict_and_not_overwritten);
    on_every_tier!(filters_get_a_wider_rule_after_the_policy_and_a_narrower_one_before);
}
