use tidegate_proto::v1 as pb;
use tidegate_proto::v1::subscribe_request::Message as Up;
use tidegate_proto::v1::subscribe_response::Message as Down;
use tonic::Code;

use crate::fixture::*;

fn place() -> Place {
    Place::new(&[("mesh.yaml", MESH), ("rule.yaml", &rule("a", "Allow", "/v1/first"))])
}

#[tokio::test]
async fn a_filter_gets_the_signed_bundle_of_its_workload() {
    let place = place();
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    let received = filter.install().await;
    assert_eq!(received.manifest.audience, WORKLOAD);
    assert_eq!(received.manifest.coverage(), pb::Coverage::Guarded);
    assert!(received.rules_mention("sales/a"));
    assert_ne!(received.push.nonce, 0);
    assert_eq!(received.sections.keys().cloned().collect::<Vec<_>>(), received.named());
    let signed = received.push.manifest.as_ref().unwrap();
    assert!(running.trusted_keys.iter().any(|key| key.id == signed.signatures[0].key_id));
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_edit_on_disk_reaches_the_filter_with_a_later_revision() {
    let place = place();
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    let first = filter.install().await;
    place.write("rule.yaml", &rule("b", "Allow", "/v1/second"));
    let second = filter.install().await;
    assert!(second.revision() > first.revision());
    assert!(second.rules_mention("sales/b") && !second.rules_mention("sales/a"));
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_workload_that_an_edit_does_not_concern_hears_nothing() {
    let place = place();
    let running = place.start().await;
    let mut orders = Filter::connect(&running, hello(WORKLOAD)).await;
    let mut ledger = Filter::connect(&running, hello("sales/ledger")).await;
    orders.install().await;
    ledger.install().await;
    place.write("rule.yaml", &rule("b", "Allow", "/v1/second"));
    orders.install().await;
    ledger.expect_silence().await;
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn only_sections_that_the_filter_lacks_travel() {
    let place = place();
    place.write("dataflow.yaml", DATAFLOW_RULE);
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    let first = filter.install().await;
    let kinds: Vec<_> = first.manifest.sections.iter().map(|section| section.kind()).collect();
    assert_eq!(kinds, [pb::SectionKind::Rules, pb::SectionKind::Keys, pb::SectionKind::Directory]);
    assert_eq!(first.sections.len(), 3);
    place.write("rule.yaml", &rule("b", "Allow", "/v1/second"));
    let second = filter.install().await;
    assert_eq!(second.sections.len(), 1, "only the rules changed");
    assert!(second.rules_mention("sales/b"));

    // The same at a new connection, by what the filter says that it holds.
    let held = pb::Hello { held_sections: second.named()[..2].to_vec(), ..hello(WORKLOAD) };
    let mut filter = Filter::connect(&running, held).await;
    let third = filter.install().await;
    assert_eq!(third.sections.keys().cloned().collect::<Vec<_>>(), second.named()[2..]);
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_filter_that_enforces_the_current_manifest_resumes_in_silence() {
    let place = place();
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    let first = filter.install().await;
    drop(filter);
    let resumed =
        pb::Hello { enforced_manifest: first.digest(), held_sections: first.named(), ..hello(WORKLOAD) };
    let mut filter = Filter::connect(&running, resumed).await;
    filter.expect_silence().await;
    let fleet = get_until(&running, "/fleet", |fleet| fleet["workloads"][WORKLOAD]["enforcing"] == 1).await;
    assert_eq!(fleet["workloads"][WORKLOAD]["vms"][0]["revision"]["counter"], first.revision().1);
    place.write("rule.yaml", &rule("b", "Allow", "/v1/second"));
    assert!(filter.install().await.rules_mention("sales/b"));
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn filters_resume_after_a_restart_and_get_the_next_edit() {
    let place = place();
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    let first = filter.install().await;
    running.shutdown().await.unwrap();
    let (code, _) = filter.end().await;
    assert_eq!(code, Code::Unavailable);

    let running = place.start().await;
    let resumed =
        pb::Hello { enforced_manifest: first.digest(), held_sections: first.named(), ..hello(WORKLOAD) };
    let mut filter = Filter::connect(&running, resumed).await;
    filter.expect_silence().await;
    place.write("rule.yaml", &rule("b", "Allow", "/v1/second"));
    let second = filter.install().await;
    assert!(second.revision() > first.revision());
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_refused_push_is_shown_and_not_repeated_and_the_next_one_comes() {
    let place = place();
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    let first = filter.receive().await;
    filter.nack(&first, pb::NackReason::BadSignature, "no key\u{7} of this id").await;
    let refused = |fleet: &serde_json::Value| {
        fleet["workloads"][WORKLOAD]["vms"][0]["refusal"]["reason"] == "bad_signature"
    };
    let fleet = get_until(&running, "/fleet", refused).await;
    assert_eq!(fleet["workloads"][WORKLOAD]["vms"][0]["refusal"]["detail"], "no key of this id");
    assert_eq!(fleet["workloads"][WORKLOAD]["enforcing"], 0);
    filter.expect_silence().await;
    place.write("rule.yaml", &rule("b", "Allow", "/v1/second"));
    let second = filter.install().await;
    assert_eq!(second.sections.len(), 1, "nothing was installed, everything travels");
    get_until(&running, "/fleet", |fleet| fleet["workloads"][WORKLOAD]["enforcing"] == 1).await;
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_filter_that_lacks_what_it_was_thought_to_hold_is_asked_anew() {
    let place = place();
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    let held = filter.receive().await.named();
    let mut filter = Filter::connect(&running, pb::Hello { held_sections: held, ..hello(WORKLOAD) }).await;
    let partial = filter.receive().await;
    assert!(partial.sections.is_empty());
    filter.nack(&partial, pb::NackReason::MissingSection, "").await;
    assert_eq!(filter.end().await.0, Code::Aborted);
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_slow_filter_skips_the_releases_between() {
    let place = place();
    let running = place.start().await;
    let mut slow = Filter::connect(&running, hello(WORKLOAD)).await;
    let mut quick = Filter::connect(&running, hello(WORKLOAD)).await;
    let first = slow.receive().await;
    quick.install().await;
    for name in ["b", "c", "d"] {
        place.write("rule.yaml", &rule(name, "Allow", "/v1/second"));
        quick.install().await;
    }
    slow.expect_silence().await;
    slow.ack(&first).await;
    assert!(slow.install().await.rules_mention("sales/d"));
    slow.expect_silence().await;
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_unknown_workload_is_refused_with_what_to_do() {
    let place = place();
    let running = place.start().await;
    for workload in ["sales/unknown", "", "../etc"] {
        let mut filter = Filter::connect(&running, hello(workload)).await;
        let (code, message) = filter.end().await;
        assert_eq!(code, Code::NotFound, "{workload}");
        assert!(message.contains(&format!("`{workload}`")) && message.contains("Mesh"), "{message}");
    }
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_workload_that_leaves_the_mesh_loses_its_stream() {
    let place = place();
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello("sales/ledger")).await;
    filter.install().await;
    let without = MESH.lines().filter(|line| !line.contains("name: ledger")).collect::<Vec<_>>().join("\n");
    place.write("mesh.yaml", &without);
    assert_eq!(filter.end().await.0, Code::NotFound);
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn greetings_that_are_wrong_are_refused() {
    let place = place();
    let running = place.start().await;
    let good = hello(WORKLOAD);
    let vm = |instance: String| Some(pb::VmId { instance, generation: 1 });
    for (wrong, expected) in [
        (pb::Hello { protocol_version: 0, ..good.clone() }, Code::FailedPrecondition),
        (pb::Hello { protocol_version: 2, ..good.clone() }, Code::FailedPrecondition),
        (pb::Hello { vm: vm("x".repeat(254)), ..good.clone() }, Code::InvalidArgument),
        (pb::Hello { vm: vm("a\nb".into()), ..good.clone() }, Code::InvalidArgument),
        (pb::Hello { filter_version: "v".repeat(65), ..good.clone() }, Code::InvalidArgument),
        (hello("a\nb/c"), Code::InvalidArgument),
        (hello(&"w".repeat(318)), Code::InvalidArgument),
        (pb::Hello { held_sections: vec![vec![0; 31]], ..good.clone() }, Code::InvalidArgument),
        (pb::Hello { held_sections: vec![vec![0; 32]; 65], ..good.clone() }, Code::InvalidArgument),
        (pb::Hello { enforced_manifest: vec![0; 33], ..good.clone() }, Code::InvalidArgument),
        (pb::Hello { capabilities: vec!["c".repeat(65)], ..good.clone() }, Code::InvalidArgument),
    ] {
        let mut filter = Filter::connect(&running, wrong.clone()).await;
        assert_eq!(filter.end().await.0, expected, "{wrong:?}");
    }
    let (_, metrics) = get(&running, "/metrics").await;
    assert!(metrics.contains(r#"tidegate_refused_streams_total{reason="invalid_hello"} 9"#), "{metrics}");
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn answers_to_no_push_and_unknown_messages_are_ignored() {
    let place = place();
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    let first = filter.receive().await;
    filter.send(Up::Ack(pb::Ack { nonce: first.push.nonce + 1, manifest_sha256: first.digest() })).await;
    filter.send(Up::Nack(pb::Nack { nonce: 0, ..Default::default() })).await;
    filter.send(Up::Hello(hello("sales/ledger"))).await;
    filter.ack(&first).await;
    get_until(&running, "/fleet", |fleet| fleet["workloads"][WORKLOAD]["enforcing"] == 1).await;
    let (_, metrics) = get(&running, "/metrics").await;
    assert!(metrics.contains("tidegate_acks_total 1"), "{metrics}");
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn acknowledging_another_manifest_than_was_pushed_ends_the_stream() {
    let place = place();
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    let first = filter.receive().await;
    filter.send(Up::Ack(pb::Ack { nonce: first.push.nonce, manifest_sha256: vec![9; 32] })).await;
    assert_eq!(filter.end().await.0, Code::Aborted);
    let fleet = get_until(&running, "/fleet", |fleet| fleet["workloads"][WORKLOAD]["connected"] == 0).await;
    assert_eq!(fleet["workloads"][WORKLOAD]["vms"][0]["upToDate"], false);
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn lookups_are_answered_and_new_ids_follow_as_a_push() {
    let place = place();
    place.write("dataflow.yaml", DATAFLOW_RULE);
    let directory = place.folder.path().join("jobs.json");
    let name = "dataflow/acme/europe-west4/orders-etl";
    std::fs::write(&directory, format!(r#"{{"{name}": ["4570"]}}"#)).unwrap();
    let options = tidegate::serve::Options { directory: Some(directory.clone()), ..place.options() };
    let mut running = tidegate::serve::start(options).await.unwrap();
    running.ready().await.unwrap();
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    let first = filter.install().await;
    let ask = async |filter: &mut Filter, nonce, id: &str| {
        let lookup = pb::Lookup { nonce, directory: name.into(), id: id.into() };
        filter.send(Up::Lookup(lookup)).await;
        match filter.message().await.unwrap() {
            Some(Down::LookupResult(result)) => (result.nonce, result.listed),
            message => panic!("{message:?}"),
        }
    };
    assert_eq!(ask(&mut filter, 1, "4570").await, (1, true));
    assert_eq!(ask(&mut filter, 2, "4571").await, (2, false));
    let staged = place.folder.path().join("jobs.new");
    std::fs::write(&staged, format!(r#"{{"{name}": ["4570", "4571"]}}"#)).unwrap();
    std::fs::rename(staged, &directory).unwrap();
    let second = filter.install().await;
    assert_eq!(second.sections.len(), 1, "only the directory");
    assert_eq!(second.named()[..2], first.named()[..2]);
    assert_eq!(ask(&mut filter, 3, "4571").await, (3, true));
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn decision_reports_are_acknowledged_and_counted() {
    use pb::decision_sink_client::DecisionSinkClient;
    let place = place();
    let running = place.start().await;
    let mut client = DecisionSinkClient::new(channel(&running.grpc_addr.to_string()).await);
    let record = |outcome: pb::Outcome| pb::DecisionRecord { outcome: outcome.into(), ..Default::default() };
    let batches = [
        pb::ReportRequest {
            sequence: 1,
            records: vec![record(pb::Outcome::Allow)],
            workload: hello(WORKLOAD).workload,
            ..Default::default()
        },
        pb::ReportRequest {
            sequence: 2,
            records: vec![record(pb::Outcome::Deny); 2],
            dropped: 5,
            ..Default::default()
        },
    ];
    let mut acknowledged = client.report(tokio_stream::iter(batches)).await.unwrap().into_inner();
    assert_eq!(acknowledged.message().await.unwrap().unwrap().sequence, 1);
    assert_eq!(acknowledged.message().await.unwrap().unwrap().sequence, 2);
    assert!(acknowledged.message().await.unwrap().is_none());
    let (_, metrics) = get(&running, "/metrics").await;
    for line in [
        r#"tidegate_decisions_total{workload="sales/orders",outcome="allow"} 1"#,
        r#"tidegate_decisions_total{workload="sales/orders",outcome="deny"} 2"#,
        r#"tidegate_decisions_dropped_total{workload="sales/orders"} 5"#,
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    running.shutdown().await.unwrap();
}

/// A filter gives up a stream on which it hears nothing.
#[tokio::test]
async fn every_receipt_is_answered() {
    let place = place();
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    filter.install().await;
    for _ in 0..3 {
        filter.send(Up::Receipt(pb::Receipt::default())).await;
        let answer = filter.any_message().await.unwrap();
        assert_eq!(answer, Some(pb::SubscribeResponse { message: None }));
    }
    filter.expect_silence().await;
    running.shutdown().await.unwrap();
}

/// "Never withheld; shown as skew."
#[tokio::test]
async fn a_filter_that_reads_no_bodies_gets_rules_that_do_and_is_shown() {
    const GATEWAY: &str = "ingress/dataflow-in";
    let publishes = |names: &str| {
        format!(
            r#"
apiVersion: tidegate.dev/v1alpha1
kind: Guard
metadata: {{name: edge, namespace: ingress}}
spec: {{mode: Enforce, audience: "https://edge.example"}}
---
apiVersion: tidegate.dev/v1alpha1
kind: AccessRule
metadata: {{name: publishes, namespace: ingress}}
spec:
  owner: billing
  target: {{gateway: ingress/dataflow-in}}
  effect: Allow
  mode: Enforce
  from: [{{peer: {{namespace: etl}}}}]
  to: [{{resources: {{service: pubsub, actions: [publish], names: ["{names}"]}}}}]
"#
        )
    };
    let place = Place::new(&[("mesh.yaml", MESH), ("rule.yaml", &publishes("projects/acme/topics/orders"))]);
    let running = place.start().await;
    let able = pb::Hello { capabilities: vec![tidegate_proto::BODIES.into()], ..hello(GATEWAY) };
    let vm = pb::VmId { instance: "pod-2".into(), generation: 8 };
    let mut without = Filter::connect(&running, hello(GATEWAY)).await;
    let mut with = Filter::connect(&running, pb::Hello { vm: Some(vm), ..able }).await;
    let received = without.install().await;
    assert_eq!(received.manifest.used_capabilities, [tidegate_proto::BODIES]);
    assert!(received.manifest.required_capabilities.is_empty(), "no filter refuses it");
    with.install().await;
    let fleet = get_until(&running, "/fleet", |fleet| fleet["workloads"][GATEWAY]["enforcing"] == 2).await;
    let workload = &fleet["workloads"][GATEWAY];
    assert_eq!((&workload["lacking"], &workload["uses"]), (&1.into(), &serde_json::json!(["bodies/1"])));
    assert_eq!(workload["vms"][0]["lacks"], serde_json::json!(["bodies/1"]));
    assert!(workload["vms"][1].get("lacks").is_none(), "{workload}");
    let lacking = |count: u8| format!("tidegate_streams_lacking{{capability=\"bodies/1\"}} {count}\n");
    let (_, metrics) = get(&running, "/metrics").await;
    assert!(metrics.contains(&lacking(1)), "{metrics}");

    // A filter that enforces it already is looked at, too.
    let resumed =
        pb::Hello { enforced_manifest: received.digest(), held_sections: received.named(), ..hello(GATEWAY) };
    drop(without);
    let mut without = Filter::connect(&running, resumed).await;
    without.expect_silence().await;
    assert!(get(&running, "/metrics").await.1.contains(&lacking(1)));

    // Rules that read no bodies lack nothing.
    place.write("rule.yaml", &publishes("projects/*/topics/*"));
    assert!(without.install().await.manifest.used_capabilities.is_empty());
    let fleet = get_until(&running, "/fleet", |fleet| fleet["workloads"][GATEWAY]["lacking"] == 0).await;
    assert!(fleet["workloads"][GATEWAY].get("uses").is_none(), "{fleet}");
    assert!(get(&running, "/metrics").await.1.contains(&lacking(0)));
    running.shutdown().await.unwrap();
}
