//! A candidate beside the rules in force.

use tidegate_proto::v1 as pb;
use tidegate_proto::v1::subscribe_request::Message as Up;

use crate::fixture::*;

fn knows(generation: u64) -> pb::Hello {
    pb::Hello {
        capabilities: vec![tidegate_proto::CANDIDATE.into()],
        vm: Some(pb::VmId { instance: "pod-1".into(), generation }),
        ..hello(WORKLOAD)
    }
}

/// A place with rules, and a candidate that has one more.
fn place(candidate: &str) -> Place {
    let place = Place::new(&[("mesh.yaml", MESH), ("a.yaml", &rule("one", "Allow", "/v1/one"))]);
    std::fs::create_dir(place.candidate()).unwrap();
    place.write_candidate("mesh.yaml", MESH);
    place.write_candidate("a.yaml", candidate);
    place
}

async fn start(place: &Place) -> tidegate::serve::Running {
    let options = tidegate::serve::Options { candidate: Some(place.candidate()), ..place.options() };
    let mut running = tidegate::serve::start(options).await.unwrap();
    tokio::time::timeout(PATIENCE, running.ready()).await.expect("ready in time").unwrap();
    running
}

async fn until_compared(running: &tidegate::serve::Running) -> serde_json::Value {
    get_until(running, "/candidate", |found| {
        found["state"] == "compared" && !found["workloads"].as_object().unwrap().is_empty()
    })
    .await
}

fn mentions(received: &Received, text: &str) -> bool {
    received.sections.values().any(|content| content.windows(text.len()).any(|at| at == text.as_bytes()))
}

#[tokio::test]
async fn a_candidate_travels_to_filters_that_know_what_it_is_and_to_no_others() {
    let place = place(&rule("next", "Deny", "/v1/one"));
    let running = start(&place).await;
    until_compared(&running).await;
    let mut new = Filter::connect(&running, knows(1)).await;
    let mut old = Filter::connect(&running, hello(WORKLOAD)).await;
    let (first, plain) = (new.install().await, old.install().await);
    assert_eq!(first.digest(), plain.digest(), "one manifest for all");
    assert_eq!(first.manifest.candidate.len(), 1);
    assert!(mentions(&first, "sales/one") && mentions(&first, "sales/next"));
    assert!(mentions(&plain, "sales/one") && !mentions(&plain, "sales/next"));
    assert_eq!(first.manifest.used_capabilities, [""; 0], "nobody lacks anything");

    place.write_candidate("a.yaml", &rule("other", "Deny", "/v1/one"));
    let (second, plain) = (new.install().await, old.install().await);
    assert!(second.revision() > first.revision());
    assert!(!mentions(&second, "sales/one") && mentions(&second, "sales/other"), "only what is new travels");
    assert_eq!(plain.push.chunk_bytes, 0);

    // Put in force: it is there already, and there is nothing left to compare.
    place.write("a.yaml", &rule("other", "Deny", "/v1/one"));
    let (third, plain) = (new.install().await, old.install().await);
    assert_eq!(third.manifest.sections, second.manifest.candidate);
    assert_eq!((third.push.chunk_bytes, third.manifest.candidate.len()), (0, 0));
    assert!(mentions(&plain, "sales/other"));
    get_until(&running, "/candidate", |found| found["workloads"].as_object().unwrap().is_empty()).await;
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_broken_candidate_is_left_out_and_touches_nothing() {
    let place = place(&rule("next", "Deny", "/v1/one"));
    let running = start(&place).await;
    until_compared(&running).await;
    let mut filter = Filter::connect(&running, knows(1)).await;
    let first = filter.install().await;
    place.write_candidate("b.yaml", "kind: AccessRule\n  bad: [indentation\n");
    let without = filter.install().await;
    assert_eq!((without.manifest.candidate.len(), without.push.chunk_bytes), (0, 0));
    assert_eq!(without.manifest.sections, first.manifest.sections);
    let report = get_until(&running, "/candidate", |found| found["state"] == "leftOut").await;
    assert_eq!(report["findings"][0]["file"], "b.yaml");
    let diagnosis = get_until(&running, "/diagnostics", |found| found["upToDate"] == true).await;
    assert_eq!(diagnosis["findings"].as_array().unwrap().len(), 0, "{diagnosis}");
    let (_, metrics) = get(&running, "/metrics").await;
    assert!(metrics.contains("tidegate_candidate_diagnostics{reason=\"error\"} 1"), "{metrics}");
    assert!(metrics.contains("tidegate_candidate_workloads 0"), "{metrics}");

    // What is in force changes as ever, and breaks as ever.
    place.write("a.yaml", &rule("two", "Allow", "/v1/two"));
    assert!(mentions(&filter.install().await, "sales/two"));
    std::fs::remove_dir_all(place.candidate()).unwrap();
    get_until(&running, "/candidate", |found| found["error"].as_str().is_some_and(|error| !error.is_empty()))
        .await;
    filter.expect_silence().await;
    assert!(running.is_ready());

    std::fs::create_dir(place.candidate()).unwrap();
    place.write_candidate("mesh.yaml", MESH);
    place.write_candidate("a.yaml", &rule("next", "Deny", "/v1/one"));
    let mut back = filter.install().await;
    while back.manifest.candidate.is_empty() || !mentions(&back, "sales/next") {
        // The folder was looked at before all of it was there.
        back = filter.install().await;
    }
    assert_eq!(back.manifest.sections.len(), 1);
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn without_its_candidate_the_server_starts_and_is_ready() {
    let place = Place::new(&[("mesh.yaml", MESH), ("a.yaml", &rule("one", "Allow", "/v1/one"))]);
    let running = start(&place).await;
    let report = get_until(&running, "/candidate", |found| {
        found["error"].as_str().is_some_and(|error| error.contains("No such file"))
    })
    .await;
    assert_eq!(report["state"], "leftOut");
    let mut filter = Filter::connect(&running, knows(1)).await;
    assert!(filter.install().await.manifest.candidate.is_empty());
    running.shutdown().await.unwrap();
    let running = place.start().await;
    assert_eq!(get_until(&running, "/candidate", |_| true).await["state"], "none");
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_warm_start_has_no_candidate_and_its_filter_gets_it() {
    let place = place(&rule("next", "Deny", "/v1/one"));
    let running = start(&place).await;
    until_compared(&running).await;
    let bundle: pb::Bundle = prost::Message::decode(running.bundle(WORKLOAD).unwrap().as_slice()).unwrap();
    assert_eq!(bundle.sections.len(), 1);
    let held = bundle.sections.iter().map(|section| tidegate::bundle::sha256(&section.content).to_vec());
    let held: Vec<Vec<u8>> = held.collect();
    let digest = tidegate::bundle::sha256(&bundle.manifest.unwrap().manifest).to_vec();
    let warm = |hello| pb::Hello { held_sections: held.clone(), enforced_manifest: digest.clone(), ..hello };
    let mut old = Filter::connect(&running, warm(hello(WORKLOAD))).await;
    old.expect_silence().await;
    let mut new = Filter::connect(&running, warm(knows(1))).await;
    let received = new.install().await;
    assert_eq!(received.digest(), digest);
    assert!(mentions(&received, "sales/next") && !mentions(&received, "sales/one"));
    new.expect_silence().await;
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_filters_say_of_it_is_shown_by_workload() {
    let place = place(&rule("next", "Deny", "/v1/one"));
    let running = start(&place).await;
    until_compared(&running).await;
    for generation in [1, 2] {
        let mut filter = Filter::connect(&running, knows(generation)).await;
        let received = filter.install().await;
        let counters = pb::Counters {
            candidate_compared: 10,
            candidate_would_allow: 1,
            candidate_would_deny: 2,
            candidate_unknown: 3,
            ..Default::default()
        };
        let receipt = pb::Receipt {
            state: pb::FilterState::Ready.into(),
            manifest_sha256: received.digest(),
            revision: received.manifest.revision,
            counters: Some(counters),
            ..Default::default()
        };
        filter.send(Up::Receipt(receipt)).await;
        let report = get_until(&running, "/candidate", |found| {
            found["workloads"][WORKLOAD]["compared"] == 10 * generation
        })
        .await;
        let expected = serde_json::json!({
            "connected": 1, "comparing": 1, "compared": 10 * generation, "wouldAllow": generation,
            "wouldDeny": 2 * generation, "unknown": 3 * generation,
        });
        assert_eq!(report["workloads"][WORKLOAD], expected, "{report:#}");
    }
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_compared_is_said_and_nothing_is_fetched_for_it() {
    let place = place(&rule("one", "Allow", "/v1/one"));
    let elsewhere = MESH.replace("name: ledger", "name: books");
    place.write_candidate("mesh.yaml", &elsewhere);
    place.write_candidate("dataflow.yaml", DATAFLOW_RULE);
    let running = start(&place).await;
    let report = until_compared(&running).await;
    let limits = report["limits"].to_string();
    for expected in [
        "`sales/ledger` is not in the candidate's Mesh",
        "`sales/books` is in the candidate's Mesh only",
        "issuer `google`",
        "directory `dataflow/acme/europe-west4/orders-etl`",
    ] {
        assert!(limits.contains(expected), "{expected}: {report:#}");
    }
    assert!(running.issuers().is_empty() && running.directories().is_empty());
    let mut filter = Filter::connect(&running, knows(1)).await;
    let received = filter.install().await;
    let kinds: Vec<i32> = received.manifest.candidate.iter().map(|section| section.kind).collect();
    let expected = [pb::SectionKind::Rules, pb::SectionKind::Keys, pb::SectionKind::Directory];
    assert_eq!(kinds, expected.map(i32::from));
    assert_eq!(received.manifest.sections.len(), 1);
    running.shutdown().await.unwrap();
}
