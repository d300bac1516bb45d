use prost::Message;
use tidegate_proto::v1 as pb;

use crate::fixture::*;

#[tokio::test]
async fn probes_metrics_and_reports_are_there() {
    let place = Place::new(&[("mesh.yaml", MESH), ("a.yaml", &rule("one", "Allow", "/v1/one"))]);
    let running = place.start().await;
    assert_eq!(get(&running, "/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(get(&running, "/readyz").await, (200, "ready\n".to_owned()));
    assert_eq!(get(&running, "/nothing").await.0, 404);
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    let received = filter.install().await;
    let fleet = get_until(&running, "/fleet", |fleet| fleet["workloads"][WORKLOAD]["enforcing"] == 1).await;
    let workload = &fleet["workloads"][WORKLOAD];
    assert_eq!(workload["manifest"], tidegate::bundle::hex(&received.digest()));
    assert_eq!(workload["vms"][0]["instance"], "pod-1");
    assert_eq!(workload["vms"][0]["generation"], "0000000000000007");
    assert_eq!(fleet["workloads"]["sales/ledger"]["connected"], 0);
    let (_, metrics) = get(&running, "/metrics").await;
    for line in ["tidegate_streams 1", "tidegate_workloads 3", "tidegate_pushes_total 1", "# EOF"] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn receipts_are_shown() {
    use tidegate_proto::v1::subscribe_request::Message as Up;
    let place = Place::new(&[("mesh.yaml", MESH), ("a.yaml", &rule("one", "Allow", "/v1/one"))]);
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    let received = filter.install().await;
    let receipt = pb::Receipt {
        state: pb::FilterState::Ready.into(),
        manifest_sha256: received.digest(),
        revision: received.manifest.revision,
        counters: Some(pb::Counters { allowed: 5, denied: 3, ..Default::default() }),
        ..Default::default()
    };
    filter.send(Up::Receipt(receipt)).await;
    let vm = |fleet: &serde_json::Value| fleet["workloads"][WORKLOAD]["vms"][0].clone();
    let fleet = get_until(&running, "/fleet", |fleet| vm(fleet)["counters"]["denied"] == 3).await;
    assert_eq!((vm(&fleet)["state"].as_str(), vm(&fleet)["upToDate"].as_bool()), (Some("ready"), Some(true)));
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_whole_bundle_is_there_for_a_warm_start() {
    let place = Place::new(&[("mesh.yaml", MESH), ("a.yaml", &rule("one", "Allow", "/v1/one"))]);
    let running = place.start().await;
    let bundle = running.bundle(WORKLOAD).unwrap();
    let decoded = pb::Bundle::decode(bundle.as_slice()).unwrap();
    let manifest = pb::Manifest::decode(decoded.manifest.unwrap().manifest.as_slice()).unwrap();
    assert_eq!(manifest.audience, WORKLOAD);
    assert_eq!(decoded.sections.len(), manifest.sections.len());
    assert_eq!(get(&running, "/bundle/sales/orders").await.0, 200);
    assert_eq!(get(&running, "/bundle/sales/unknown").await.0, 404);
    assert!(running.bundle("sales/unknown").is_none());
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_issuer_that_cannot_be_reached_is_shown_and_blocks_nothing() {
    let place = Place::new(&[("mesh.yaml", MESH), ("dataflow.yaml", DATAFLOW_RULE)]);
    let running = place.start().await;
    let issuers = get_until(&running, "/issuers", |issuers| issuers[0]["error"].is_string()).await;
    assert_eq!((&issuers[0]["name"], &issuers[0]["keys"]), (&"google".into(), &serde_json::json!([])));
    assert_eq!(issuers[0]["alerts"][0]["alert"], "no_keys");
    assert!(issuers[0]["error"].as_str().unwrap().contains("keys.invalid"), "{issuers}");
    assert_eq!(get(&running, "/readyz").await.0, 200);
    running.shutdown().await.unwrap();
}
