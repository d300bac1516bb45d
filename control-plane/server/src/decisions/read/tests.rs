use super::*;
use crate::decisions::lanes::Worth;

const NOW: Moment = Moment(1_795_203_600_000_000);
const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.Y2FuYXJ5LXNpZ25hdHVyZQ";

fn read(raw: &pb::DecisionRecord, known: &Known) -> Read {
    record(raw, &From { workload: "sales/orders", instance: "pod-1", manifest: Some([0xab; 32]) }, known, NOW)
}

fn full() -> pb::DecisionRecord {
    pb::DecisionRecord {
        decision_id: "7Q4K-M2XD-0001".into(),
        time_ns: (NOW.0 - 1_000_000) * 1_000 + 999,
        outcome: pb::Outcome::Deny.into(),
        reason: "no_allow_matched".into(),
        peer: "spiffe://prod.example/ns/etl/sa/orders-worker".into(),
        issuers: vec!["gitlab".into()],
        method: "POST".into(),
        host: "pubsub.googleapis.com".into(),
        path: "/v1/projects/acme/topics/orders:publish".into(),
        revision: Some(pb::Revision { epoch: 1, counter: 418 }),
        manifest_sha256: vec![0xab; 32],
        claims: vec![
            pb::RecordedClaim {
                issuer: "gitlab".into(),
                claim: "pipeline_id".into(),
                values: vec!["91".into()],
            },
            pb::RecordedClaim {
                issuer: "gitlab".into(),
                claim: "project_path".into(),
                values: vec!["acme/etl".into()],
            },
        ],
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        trace_flags: Some(1),
        decided_in_ns: 1_900,
        stands_for: 1,
        port: 8080,
        ..Default::default()
    }
}

fn known() -> Known {
    let source = RuleSource {
        file: "a.yaml".into(),
        line: 3,
        commit: None,
        author: None,
        committed: None,
        by_annotations: false,
    };
    Known {
        packs: [("gitlab".to_owned(), PackKind::Gitlab)].into(),
        rules: [("sales/a".to_owned(), Arc::new(source))].into(),
        until: Some(Revision { epoch: 1, counter: 400 }),
    }
}

#[test]
fn a_whole_record_is_read_and_completed() {
    let recorded = read(&full(), &known()).recorded;
    assert_eq!(recorded.time, Moment(NOW.0 - 1_000_000));
    assert!(!recorded.time_refused && recorded.worth() == Worth::Precious);
    assert_eq!(recorded.run.as_ref().map(|run| run.id.as_str()), Some("91"));
    assert_eq!(
        recorded.identities,
        ["spiffe://prod.example/ns/etl/sa/orders-worker", "gitlab:project_path=acme/etl"]
    );
    assert_eq!(recorded.operation.as_ref().unwrap().permissions, ["pubsub.topics.publish"]);
    assert_eq!(recorded.resource.as_deref(), Some("projects/acme/topics/orders"));
    assert_eq!(recorded.digest.as_deref(), Some("ab".repeat(32).as_str()));
    assert_eq!(recorded.trace_id.as_deref(), Some("01".repeat(16).as_str()));
    let json = serde_json::to_string(&recorded).unwrap();
    assert_eq!(serde_json::from_str::<Recorded>(&json).unwrap(), recorded);
}

#[test]
fn a_token_is_removed_from_every_text_and_counted() {
    let token = || TOKEN.to_owned();
    let difference =
        || pb::ShadowDifference { outcome: pb::Outcome::Allow.into(), reason: token(), rule: token() };
    let raw = pb::DecisionRecord {
        decision_id: token(),
        reason: token(),
        rule: token(),
        peer: format!("spiffe://a/{TOKEN}"),
        issuers: vec![token()],
        method: token(),
        host: token(),
        path: format!("/v1/{}/x", TOKEN.replace('.', "%2e")),
        claims: vec![pb::RecordedClaim { issuer: token(), claim: token(), values: vec![token(), token()] }],
        shadow: Some(difference()),
        candidate: Some(difference()),
        ..full()
    };
    let Read { recorded, tokens_removed } = read(&raw, &known());
    let json = serde_json::to_string(&recorded).unwrap();
    for part in TOKEN.split('.') {
        assert!(!json.contains(part), "{part}: {json}");
    }
    assert!(tokens_removed >= 10, "{tokens_removed}");
    let instance = instance(TOKEN);
    assert!(!instance.contains("eyJ"), "{instance}");
}

#[test]
fn a_token_in_an_objects_encoded_name_is_removed_too() {
    // `eyJ` itself is encoded: only the decoded name shows it.
    let name = TOKEN.replace("eyJ", "%65yJ");
    let raw = pb::DecisionRecord {
        method: "GET".into(),
        host: "storage.googleapis.com".into(),
        path: format!("/storage/v1/b/lake/o/{name}"),
        ..full()
    };
    let recorded = read(&raw, &known()).recorded;
    let resource = recorded.resource.unwrap();
    assert!(resource.ends_with(clean::REMOVED), "{resource}");
}

#[test]
fn absurd_times_are_refused_and_the_record_stays() {
    for time_ns in
        [0, -1, i64::MIN, i64::MAX, (NOW.0 + NEWEST_US + 1) * 1_000, (NOW.0 - OLDEST_US - 1) * 1_000]
    {
        let recorded = read(&pb::DecisionRecord { time_ns, ..full() }, &known()).recorded;
        assert_eq!((recorded.time, recorded.time_refused), (NOW, true), "{time_ns}");
    }
}

#[test]
fn everything_is_bounded() {
    let long = || "ü\u{1b}".repeat(2_000);
    let claim = |_| pb::RecordedClaim { issuer: long(), claim: long(), values: vec![long(); 40] };
    let raw = pb::DecisionRecord {
        decision_id: long(),
        outcome: 77,
        reason: long(),
        rule: long(),
        peer: long(),
        issuers: vec![long(); 1_000],
        method: long(),
        host: long(),
        path: long(),
        claims: (0..100).map(claim).collect(),
        manifest_sha256: vec![1; 1_000],
        trace_id: vec![0; 16],
        span_id: vec![1; 7],
        trace_flags: Some(0x100),
        port: 70_000,
        stands_for: 0,
        ..full()
    };
    let recorded = read(&raw, &known()).recorded;
    let json = serde_json::to_string(&recorded).unwrap();
    assert!(json.len() < 64 << 10, "{}", json.len());
    assert!(recorded.weight() < 64 << 10);
    assert!(!json.chars().any(char::is_control));
    assert_eq!((recorded.outcome, recorded.port, recorded.stands_for), (Outcome::Unknown, None, 1));
    assert_eq!((recorded.digest, recorded.trace_id, recorded.span_id), (None, None, None));
    assert_eq!(recorded.trace_flags, None);
}

#[test]
fn a_rule_is_attributed_only_to_the_rules_that_decided() {
    let raw = |counter, digest| pb::DecisionRecord {
        rule: "sales/a".into(),
        revision: Some(pb::Revision { epoch: 1, counter }),
        manifest_sha256: vec![digest; 32],
        ..full()
    };
    for (counter, digest, is_known) in
        [(400, 0xab, true), (7, 0xab, true), (401, 0xab, false), (400, 0xac, false)]
    {
        let rule = read(&raw(counter, digest), &known()).recorded.rule.unwrap();
        assert_eq!(rule.source.is_some(), is_known, "{counter} {digest}");
    }
    let unknown = Known { until: None, ..known() };
    assert!(read(&raw(400, 0xab), &unknown).recorded.rule.unwrap().source.is_none());
}

#[test]
fn ids_are_found_as_people_type_them() {
    assert_eq!(id(" 7q4k-m2xd-oil1 "), "7Q4K-M2XD-0111");
    for (text, expected) in [
        ("7Q4K-M2XD-0001", true),
        ("7q4k-m2xd-0001", true),
        ("7Q4K-M2XD", false),
        ("no_allow_matched", false),
        ("rules/a.yaml:14", false),
        ("7Q4K-M2XD-00é", false),
    ] {
        assert_eq!(is_id(text), expected, "{text}");
    }
}
