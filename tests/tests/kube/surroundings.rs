//! What others do around rules: take tokens away, keep proxies out, delete namespaces.

use serde_json::json;

use crate::cluster::{Cluster, condition, guard, on_every_tier, pod, rule};

async fn a_token_that_istio_takes_away_is_told_to_whoever_needs_it(cluster: Cluster) {
    cluster.apply(pod("sales", "orders-abc-1", "orders")).await;
    let issuer = json!({
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "TrustedIssuer",
        "metadata": {"name": "gitlab"},
        "spec": {"issuer": "https://gitlab.example", "pack": "gitlab", "keys": {"jwksUri": "https://127.0.0.1:9/keys"}},
    });
    cluster.apply(issuer).await;
    let guard = cluster.apply(guard("sales")).await;
    let mut needing = rule("sales", "job", "orders", "/v1/job");
    needing["spec"]["from"] = json!([
        {"peer": {"namespace": "etl"}, "tokens": [{"issuer": "gitlab", "gitlab": {"project": 7}}]}
    ]);
    cluster.apply(needing.clone()).await;
    let other = cluster.apply(rule("sales", "etl", "orders", "/v1/other")).await;
    let running = cluster.serve().await;
    cluster.condition(&needing, "Compiled", "True", "Compiled").await;
    let theirs = json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"namespace": "sales", "name": "theirs"},
        "spec": {"jwtRules": [{"issuer": "https://gitlab.example", "jwksUri": "https://gitlab.example/keys"}]},
    });
    cluster.apply(theirs.clone()).await;
    let (hidden, took) = cluster.condition(&needing, "TokenHidden", "True", "TokenStripped").await;
    println!("a RequestAuthentication that takes tokens away: told after {took:?}");
    let message = hidden["message"].as_str().unwrap();
    assert!(message.contains("`sales/theirs`") && message.contains("forwardOriginalToken"), "{message}");
    cluster.condition(&guard, "TokenHidden", "True", "TokenStripped").await;
    assert!(condition(&cluster.get(&other).await.unwrap(), "TokenHidden").is_null(), "it needs no token");

    let jwt = |issuer: &str| json!([{"issuer": issuer, "forwardOriginalToken": true, "jwksUri": "https://a.example/k"}]);
    cluster.edit(&theirs, json!({"spec": {"jwtRules": jwt("https://other.example")}})).await;
    let (refused, _) = cluster.condition(&needing, "TokenHidden", "True", "TokenRefused").await;
    assert!(refused["message"].as_str().unwrap().contains("401"), "{refused}");
    cluster.edit(&theirs, json!({"spec": {"jwtRules": jwt("https://gitlab.example")}})).await;
    let (_, took) = cluster.until(&needing, |rule| condition(rule, "TokenHidden").is_null()).await;
    println!("mended: no longer told after {took:?}");
    running.shutdown().await.unwrap();
}

async fn a_namespace_that_keeps_proxies_out_is_named(cluster: Cluster) {
    let namespace = |labels| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "out", "labels": labels}});
    cluster.apply(namespace(json!({"istio-injection": "disabled"}))).await;
    let mut bare = pod("out", "orders-abc-1", "orders");
    bare["spec"]["containers"] = json!([{"name": "app", "image": "app"}]);
    cluster.apply(bare).await;
    let guard = cluster.apply(guard("out")).await;
    let running = cluster.serve().await;
    let (bypassed, _) = cluster.condition(&guard, "Bypassed", "True", "InjectionDisabled").await;
    assert!(bypassed["message"].as_str().unwrap().ends_with("on the namespace `out`"), "{bypassed}");
    cluster.edit(&namespace(json!({})), json!({"metadata": {"labels": {"istio-injection": null}}})).await;
    cluster.condition(&guard, "Bypassed", "True", "NoProxy").await;
    running.shutdown().await.unwrap();
}

async fn a_namespace_that_ends_holds_up_nobody(cluster: Cluster) {
    let leaving = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "leaving"}});
    cluster.apply(leaving.clone()).await;
    cluster.apply(pod("leaving", "old-abc-1", "old")).await;
    cluster.apply(pod("sales", "orders-abc-1", "orders")).await;
    cluster.apply(guard("leaving")).await;
    cluster.apply(guard("sales")).await;
    let running = cluster.serve().await;
    let policy = json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"namespace": "leaving", "name": "tidegate-old"},
    });
    cluster.until(&policy, |policy| policy["spec"]["action"] == "ALLOW").await;
    cluster.delete(&leaving).await;
    cluster.delete(&policy).await;
    // It cannot be written again, and what others need does not wait for it.
    let next = cluster.apply(rule("sales", "etl", "orders", "/v1/next")).await;
    let (_, took) = cluster.until(&next, |rule| condition(rule, "Fenced")["status"] == "True").await;
    println!("a rule elsewhere is fenced after {took:?}");
    assert!(took < std::time::Duration::from_secs(5), "it waited for what cannot be written");
    assert!(cluster.get(&policy).await.is_none());
    running.shutdown().await.unwrap();
}

mod on {
    use super::*;
    on_every_tier!(a_token_that_istio_takes_away_is_told_to_whoever_needs_it);
    on_every_tier!(a_namespace_that_keeps_proxies_out_is_named);
    on_every_tier!(a_namespace_that_ends_holds_up_nobody);
}
