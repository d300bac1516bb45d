//! What brings filters: written before the first Guard, corrected, left to others, taken away, and in step with the Fence.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use serde_json::{Value, json};
use tidegate::istio::Attach;
use tidegate_compiler::fence::IstioVersion;
use tidegate_proto::v1 as pb;

use crate::cluster::{Cluster, PATIENCE, condition, guard, on_every_tier, pod, rule, until};
use crate::filter::Filter;

fn extension(namespace: &str, workload: &str) -> Value {
    json!({
        "apiVersion": "extensions.istio.io/v1alpha1",
        "kind": "TrafficExtension",
        "metadata": {"namespace": namespace, "name": format!("tidegate-{workload}")},
    })
}

fn plugin(namespace: &str, workload: &str) -> Value {
    let mut plugin = extension(namespace, workload);
    plugin["kind"] = json!("WasmPlugin");
    plugin
}

fn policy(namespace: &str, workload: &str) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"namespace": namespace, "name": format!("tidegate-{workload}")},
    })
}

fn config(object: &Value) -> &Value {
    &object["spec"]["wasm"]["pluginConfig"]
}

fn bundle(object: &Value) -> Option<pb::Bundle> {
    let bundle = STANDARD.decode(config(object)["bundle"].as_str()?).unwrap();
    Some(pb::Bundle::decode(bundle.as_slice()).unwrap())
}

/// Whether the warm start has this text in it.
fn mentions(object: &Value, text: &str) -> bool {
    let contains =
        |section: &pb::Section| section.content.windows(text.len()).any(|window| window == text.as_bytes());
    bundle(object).is_some_and(|bundle| bundle.sections.iter().any(contains))
}

fn coverage(object: &Value) -> Option<pb::Coverage> {
    let manifest = bundle(object)?.manifest?.manifest;
    Some(pb::Manifest::decode(manifest.as_slice()).unwrap().coverage())
}

async fn filters_are_brought_before_the_first_guard_and_begin_with_what_is_right(cluster: Cluster) {
    cluster.apply(pod("sales", "orders-abc-1", "orders")).await;
    cluster.apply(pod("etl", "worker-abc-1", "worker")).await;
    let options = cluster.options_with_plugins("one", IstioVersion::V1_30, Attach::Dormant);
    let running = cluster.serve_with(options).await;
    let object = extension("sales", "orders");
    let (dormant, took) =
        cluster.until(&object, |object| coverage(object) == Some(pb::Coverage::Unguarded)).await;
    println!("before any Guard, the object that brings a filter is there after {took:?}");
    cluster.until(&extension("etl", "worker"), |object| bundle(object).is_some()).await;
    let config = config(&dormant);
    assert_eq!(config["workload"], "sales/orders");
    assert_eq!(config["keys"], serde_json::to_value(&running.trusted_keys).unwrap());
    assert_eq!(config["interlock"], Value::Null, "nothing demands it");
    assert_eq!(dormant["spec"]["wasm"]["failStrategy"], "FAIL_RELOAD");
    assert_eq!(dormant["metadata"]["labels"]["app.kubernetes.io/managed-by"], "tidegate");

    let guard = cluster.apply(guard("sales")).await;
    let (_, took) = cluster.until(&object, |object| coverage(object) == Some(pb::Coverage::Guarded)).await;
    println!("a Guard: new pods begin with it after {took:?}");
    let (attached, _) = cluster.condition(&guard, "Attached", "True", "Attached").await;
    assert_eq!(attached["message"], "every workload that it reaches has what brings its filter");

    // What lets more pass can wait, what lets less pass cannot.
    let filter = Filter::start(running.grpc_addr, "sales/orders", "orders-abc-1");
    let wider = cluster.apply(rule("sales", "wider", "orders", "/v1/wider")).await;
    cluster.condition(&wider, "Enforced", "True", "Enforced").await;
    assert!(filter.mentions("owner-of-/v1/wider"));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let unchanged = cluster.get(&object).await.unwrap();
    assert!(!mentions(&unchanged, "owner-of-/v1/wider"), "it was written at once");
    let mut narrower = rule("sales", "narrower", "orders", "/v1/narrower");
    narrower["spec"]["effect"] = json!("Deny");
    cluster.apply(narrower).await;
    let (both, took) = cluster.until(&object, |object| mentions(object, "owner-of-/v1/narrower")).await;
    println!("a Deny: new pods begin with it after {took:?}");
    assert!(mentions(&both, "owner-of-/v1/wider"));

    // A restart writes nothing anew.
    running.shutdown().await.unwrap();
    let options = cluster.options_with_plugins("one", IstioVersion::V1_30, Attach::Dormant);
    let running = cluster.serve_with(options).await;
    cluster.condition(&guard, "Attached", "True", "Attached").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let again = cluster.get(&object).await.unwrap();
    assert_eq!(again["metadata"]["resourceVersion"], both["metadata"]["resourceVersion"]);
    running.shutdown().await.unwrap();
}

async fn what_brings_filters_is_set_right_and_left_to_others_and_taken_away(cluster: Cluster) {
    cluster.apply(pod("sales", "orders-abc-1", "orders")).await;
    let guard = cluster.apply(guard("sales")).await;
    let options = cluster.options_with_plugins("one", IstioVersion::V1_30, Attach::Guarded);
    let running = cluster.serve_with(options).await;
    let object = extension("sales", "orders");
    let (before, _) = cluster.until(&object, |object| bundle(object).is_some()).await;
    cluster.condition(&guard, "Attached", "True", "Attached").await;
    for (what, change) in [
        ("the failure strategy", json!({"spec": {"wasm": {"failStrategy": "FAIL_OPEN"}}})),
        ("the module", json!({"spec": {"wasm": {"sha256": "0".repeat(64)}}})),
        ("a trusted key", json!({"spec": {"wasm": {"pluginConfig": {"keys": []}}}})),
        (
            "something added inside",
            json!({"spec": {"wasm": {"vmConfig": {"env": [{"name": "A", "value": "b"}]}}}}),
        ),
        (
            "a label added to the selector",
            json!({"spec": {"selector": {"matchLabels": {"nobody": "has-this"}}}}),
        ),
        ("our label", json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": null}}})),
    ] {
        cluster.edit(&object, change).await;
        let is_right = |object: &Value| {
            object["spec"] == before["spec"] && object["metadata"]["labels"] == before["metadata"]["labels"]
        };
        let (_, took) = cluster.until(&object, is_right).await;
        println!("{what} edited by hand: right again after {took:?}");
    }
    cluster.delete(&object).await;
    let (_, took) = cluster.until(&object, |object| object["spec"] == before["spec"]).await;
    println!("deleted by hand: there again after {took:?}");

    // Another controller takes a part of it.
    let mut theirs = extension("sales", "orders");
    theirs["spec"] = json!({"wasm": {"failStrategy": "FAIL_OPEN"}, "phase": "AUTHN"});
    cluster.apply(theirs.clone()).await;
    let (conflict, took) = cluster.condition(&guard, "Attached", "False", "Conflict").await;
    println!("another controller: reported after {took:?}: {}", conflict["message"]);
    assert!(conflict["message"].as_str().unwrap().contains("kubectl"), "{conflict}");
    assert_eq!(cluster.get(&object).await.unwrap()["spec"]["phase"], "AUTHN", "it is theirs");
    // It lets go.
    theirs.as_object_mut().unwrap().remove("spec");
    cluster.apply(theirs).await;
    cluster.until(&object, |object| object["spec"] == before["spec"]).await;
    cluster.condition(&guard, "Attached", "True", "Attached").await;

    cluster.delete(&guard).await;
    let took = until("it is gone", async || cluster.get(&object).await.is_none()).await;
    println!("no Guard any more: taken away after {took:?}");
    running.shutdown().await.unwrap();
}

async fn a_workload_that_no_object_can_reach_alone_is_told(cluster: Cluster) {
    let mut bare = pod("sales", "orders-abc-1", "orders");
    bare["metadata"]["labels"] = json!({"pod-template-hash": "abc"});
    cluster.apply(bare).await;
    let guard = cluster.apply(guard("sales")).await;
    let options = cluster.options_with_plugins("one", IstioVersion::V1_30, Attach::Dormant);
    let running = cluster.serve_with(options).await;
    let (told, _) = cluster.condition(&guard, "Attached", "False", "NoFilter").await;
    let message = told["message"].as_str().unwrap();
    assert!(message.contains("sales/orders") && message.contains("no labels"), "{message}");
    running.shutdown().await.unwrap();
}

async fn an_upgrade_of_istio_replaces_the_plugin_by_an_extension(cluster: Cluster) {
    cluster.apply(pod("sales", "orders-abc-1", "orders")).await;
    let guard = cluster.apply(guard("sales")).await;
    let options = cluster.options_with_plugins("one", IstioVersion::V1_29, Attach::Dormant);
    let running = cluster.serve_with(options).await;
    cluster
        .until(&plugin("sales", "orders"), |object| object["spec"]["pluginConfig"]["bundle"].is_string())
        .await;
    cluster.condition(&guard, "Attached", "True", "Attached").await;
    running.shutdown().await.unwrap();
    let options = cluster.options_with_plugins("one", IstioVersion::V1_30, Attach::Dormant);
    let running = cluster.serve_with(options).await;
    cluster.until(&extension("sales", "orders"), |object| bundle(object).is_some()).await;
    until("the other one is gone", async || cluster.get(&plugin("sales", "orders")).await.is_none()).await;
    running.shutdown().await.unwrap();
}

async fn an_interlock_is_told_to_filters_first_and_demanded_then(cluster: Cluster) {
    cluster.apply(pod("sales", "orders-abc-1", "orders")).await;
    let mut gateway = pod("ingress", "in-abc-1", "in");
    gateway["metadata"]["labels"]["istio"] = json!("ingressgateway");
    cluster.apply(gateway).await;
    cluster.apply(guard("sales")).await;
    cluster.apply(guard("ingress")).await;
    let issuer = json!({
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "TrustedIssuer",
        "metadata": {"name": "google"},
        "spec": {"issuer": "https://accounts.google.com", "pack": "google", "keys": {"jwksUri": "https://127.0.0.1:9/keys"}},
    });
    cluster.apply(issuer).await;
    let options = cluster.options_with_plugins("one", IstioVersion::V1_30, Attach::Dormant);
    let running = cluster.serve_with(options).await;
    let object = extension("ingress", "in");
    cluster.until(&object, |object| bundle(object).is_some()).await;
    let _filters = [
        Filter::start(running.grpc_addr, "ingress/in", "in-abc-1"),
        Filter::start(running.grpc_addr, "sales/orders", "orders-abc-1"),
    ];
    let rule = json!({
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "AccessRule",
        "metadata": {"namespace": "ingress", "name": "workers"},
        "spec": {
            "owner": "team",
            "target": {"gateway": "ingress/in"},
            "effect": "Allow",
            "mode": "Enforce",
            "from": [{
                "tokenOnly": {"via": ["ingress/in"]},
                "tokens": [{"issuer": "google", "google": {"serviceAccount": "etl@acme.iam.gserviceaccount.com"}}],
            }],
            "to": [{"http": {"methods": ["POST"], "paths": ["/v1/orders"]}}],
        },
    });
    let demands = |policy: &Value| policy["spec"]["rules"].to_string().contains("x-tidegate-interlock");
    let applied = cluster.apply(rule.clone()).await;
    let since = std::time::Instant::now();
    let told = loop {
        // In this order: what demands is read before what was told.
        let (policy, told) = (
            cluster.get(&policy("ingress", "in")).await.unwrap_or_default(),
            cluster.get(&object).await.unwrap(),
        );
        let interlock = config(&told)["interlock"].clone();
        assert!(!demands(&policy) || interlock.is_string(), "it is demanded before it is told");
        if demands(&policy) {
            break interlock;
        }
        assert!(since.elapsed() < PATIENCE, "{}", cluster.get(&applied).await.unwrap());
    };
    println!("told and demanded after {:?}", since.elapsed());
    let policy_now = cluster.get(&policy("ingress", "in")).await.unwrap();
    assert!(policy_now["spec"]["rules"].to_string().contains(told.as_str().unwrap()), "the same value");
    let other = cluster.get(&extension("sales", "orders")).await.unwrap();
    assert_eq!(config(&other)["interlock"], Value::Null, "nothing demands it there");
    cluster.until(&applied, |rule| condition(rule, "Fenced")["status"] == "True").await;

    cluster.delete(&applied).await;
    loop {
        let (told, policy) = (
            cluster.get(&object).await.unwrap(),
            cluster.get(&policy("ingress", "in")).await.unwrap_or_default(),
        );
        let is_told = config(&told)["interlock"].is_string();
        assert!(is_told || !demands(&policy), "it is demanded of filters that no longer have it");
        if !is_told {
            break;
        }
        assert!(since.elapsed() < 2 * PATIENCE, "{told:#}");
    }
    running.shutdown().await.unwrap();
}

mod on {
    use super::*;
    on_every_tier!(filters_are_brought_before_the_first_guard_and_begin_with_what_is_right);
    on_every_tier!(what_brings_filters_is_set_right_and_left_to_others_and_taken_away);
    on_every_tier!(a_workload_that_no_object_can_reach_alone_is_told);
    on_every_tier!(an_upgrade_of_istio_replaces_the_plugin_by_an_extension);
    on_every_tier!(an_interlock_is_told_to_filters_first_and_demanded_then);
}
