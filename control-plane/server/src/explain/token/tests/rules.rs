use serde_json::{Value, json};
use tidegate_engine::{
    Directories, HeaderFacts, Outcome as Decided, Peer, PolicySet, Request, TokenState, VerifiedToken,
    decide, normal,
};
use tidegate_identity::{PackKind, explain};

use super::super::{Explanation, Holds, Outcome, RuleReport};
use super::explained;
use super::tokens::{AUDIENCE, NOW, gitlab, google, kubernetes, rules, unsigned, with, with_header};

fn rule(explanation: &Explanation, name: &str) -> RuleReport {
    let rules = explanation.rules.as_ref().unwrap();
    rules.iter().find(|rule| rule.rule == name).unwrap().clone()
}

#[test]
fn conditions_hold_exactly_where_the_engine_says() {
    let rules = rules();
    let workload = rules.workloads.iter().find(|(id, _)| id.to_string() == "sales/orders-api").unwrap().1;
    let policy = PolicySet::decode(&workload.rules).unwrap();
    let issuers: Vec<_> = policy.issuers().map(|(name, slots)| (name.to_owned(), slots)).collect();
    let variants = [
        ("project_id", [json!("4711"), json!("9")]),
        ("job_project_id", [json!("4711"), json!(null)]),
        ("ref_protected", [json!("true"), json!("false")]),
        ("pipeline_source", [json!("push"), json!("merge_request_event")]),
        ("environment", [json!("production"), json!(null)]),
        ("ref_type", [json!("branch"), json!("tag")]),
        ("namespace_id", [json!("72"), json!("73")]),
    ];
    let mut allowed = 0;
    for choice in 0..1_usize << variants.len() {
        let mut members = serde_json::Map::new();
        for (at, (name, values)) in variants.iter().enumerate() {
            members.insert((*name).to_owned(), values[(choice >> at) & 1].clone());
        }
        let text = unsigned(&with(&gitlab(), members.into()));
        let explanation = explained(&text, Some(&rules), None);

        let tokens: Vec<_> = issuers
            .iter()
            .map(|(name, slots)| VerifiedToken {
                audiences: vec![AUDIENCE.to_owned()],
                expires_at: NOW + 100,
                slots: match name.as_str() {
                    "gitlab" => explain::slots(text.as_bytes(), PackKind::Gitlab, slots),
                    _ => Vec::new(),
                },
            })
            .collect();
        let states: Vec<_> = issuers
            .iter()
            .zip(&tokens)
            .map(
                |((name, _), token)| {
                    if name == "gitlab" { TokenState::Verified(token) } else { TokenState::Absent }
                },
            )
            .collect();
        let path = normal::path(b"/");
        let decision = decide(
            &policy,
            &Request {
                now: NOW,
                expiry_grace_s: 0,
                port: 8080,
                method: b"PUT",
                host: Some("orders.sales.example"),
                path: &path,
                query: &[],
                headers: HeaderFacts::default(),
                fields: &[],
                body: tidegate_engine::Body::Unread,
                peer: Peer::Mesh { trust_domain: "prod.example", namespace: "ci", service_account: "runner" },
                tokens: &states,
                directories: &Directories::default(),
            },
        );
        let allow = rule(&explanation, "sales/release").holds == Holds::Yes;
        let deny = rule(&explanation, "sales/no-tags").holds == Holds::Yes;
        assert_eq!(decision.outcome == Decided::Allow, allow && !deny, "{:#?}", explanation.rules);
        assert_eq!(explanation.would_do(), allow);
        assert_eq!(explanation.denying().count(), usize::from(deny));
        allowed += usize::from(allow && !deny);
    }
    assert_eq!(allowed, 3, "of 128: all is right, and the Deny is of another namespace or for tags only");
}

#[test]
fn a_rule_says_what_it_demands_and_what_the_token_has() {
    let rules = rules();
    let of = |claims: &Value| {
        let explanation =
            explained(&with_header(json!({"alg": "RS256", "kid": "k"}), claims), Some(&rules), None);
        assert_eq!(explanation.verdict.outcome, Outcome::Plausible, "{:#?}", explanation.checks);
        explanation
    };
    let lines = |rule: &RuleReport| -> Vec<(Holds, String, Option<String>)> {
        let conditions = rule.entries.iter().flat_map(|entry| &entry.conditions);
        conditions.map(|line| (line.holds, line.demand.clone(), line.actual.clone())).collect()
    };

    let worker = rule(&of(&google()), "sales/etl");
    assert_eq!((worker.holds, worker.entries.len()), (Holds::Depends, 1));
    assert_eq!(worker.workloads, ["sales/orders-api"]);
    assert_eq!(worker.entries[0].peer, "mesh peer ingress/in");
    assert!(lines(&worker).contains(&(
        Holds::Depends,
        "google.compute_engine.instance_id is listed in `dataflow/acme/europe-west4/etl`".to_owned(),
        Some("\"4570000000000000001\"".to_owned()),
    )));
    let standard = of(&with(&google(), json!({"google": null})));
    // A Deny on the machine would match it, and an Allow does not.
    assert_eq!(rule(&standard, "sales/etl").holds, Holds::Unknown);
    assert!(!standard.would_do());

    for (namespace, account, holds) in [
        ("ci", "runner", Holds::Yes),
        ("ci", "release", Holds::Yes),
        ("ci", "other", Holds::No),
        ("etl", "runner", Holds::No),
    ] {
        let pod = of(&kubernetes(namespace, account));
        let rule = self::rule(&pod, "sales/etl");
        assert_eq!(rule.holds, holds, "{namespace}/{account}: {rule:#?}");
        assert_eq!(rule.entries[0].peer, "mesh peer ci/release or ci/runner");
    }

    let job = of(&with(&gitlab(), json!({"environment": null, "namespace_id": "73", "ref_type": "tag"})));
    let release = rule(&job, "sales/release");
    assert_eq!(release.holds, Holds::No);
    assert!(lines(&release).contains(&(
        Holds::No,
        "environment is \"production\"".to_owned(),
        Some("missing".to_owned())
    )));
    assert!(lines(&release).iter().any(|(holds, demand, _)| {
        *holds == Holds::Yes && demand == "not: pipeline_source is \"merge_request_event\""
    }));
    // Only reported, so it lets nobody in.
    let shadow = rule(&job, "sales/later");
    assert_eq!((shadow.holds, shadow.enforced, job.would_do()), (Holds::Yes, false, false));
    assert_eq!(job.denying().count(), 0, "the Deny is for another namespace");
}
