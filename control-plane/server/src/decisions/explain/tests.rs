use std::collections::BTreeMap;

use tidegate_compiler::Compiled;

use super::super::record::{Claim, RuleRef};
use super::super::testing::recorded;
use super::*;
use crate::serve::compile_files;

const RULES: &str = r#"
apiVersion: tidegate.dev/v1alpha1
kind: Mesh
metadata: {name: prod}
spec:
  trustDomain: prod.example
  rootNamespace: mesh-config
  workloads:
  - {namespace: sales, name: orders, labels: {app: orders}, serviceAccount: orders}
---
apiVersion: tidegate.dev/v1alpha1
kind: Guard
metadata: {name: sales, namespace: sales}
spec: {mode: Enforce, audience: "https://orders.sales.example"}
---
apiVersion: tidegate.dev/v1alpha1
kind: TrustedIssuer
metadata: {name: gitlab}
spec: {issuer: "https://gitlab.example", pack: gitlab, keys: {jwksUri: "https://keys.invalid/certs"}}
---
apiVersion: tidegate.dev/v1alpha1
kind: AccessRule
metadata: {name: writers, namespace: sales}
spec:
  owner: team-billing
  target: {selector: {matchLabels: {app: orders}}}
  effect: Allow
  mode: Enforce
  from:
  - peer: {namespace: etl, serviceAccounts: [orders-worker]}
    tokens: [{issuer: gitlab, claims: {project_id: "4711", ref_protected: "true"}}]
  to: [{http: {methods: [POST], paths: ["/v1/orders/{**}"]}}]
"#;

fn compiled() -> Compiled {
    let files = [("rules.yaml".to_owned(), RULES.to_owned())].into();
    let compilation = compile_files(&files, &BTreeMap::new());
    compilation.output.unwrap_or_else(|| panic!("{:?}", compilation.diagnostics))
}

/// A refusal of a request whose token said this.
fn refusal(claims: &[(&str, &str)]) -> Recorded {
    let claims = claims.iter().map(|(claim, value)| Claim {
        issuer: "gitlab".into(),
        claim: (*claim).into(),
        values: vec![(*value).into()],
    });
    Recorded { claims: claims.collect(), ..recorded("7Q4K-M2XD-0001", Outcome::Deny, 1_795_203_600_000_000) }
}

fn answer(decision: Recorded) -> Explained {
    let mut answer = Explained {
        decision,
        rules: RulesUsed::Deciding,
        rule: None,
        nearest: None,
        nearest_source: None,
        notes: Vec::new(),
    };
    by_rules(&mut answer, &compiled());
    answer
}

fn holds(answer: &Explained, word: &str) -> String {
    let nearest = answer.nearest.as_ref().unwrap();
    let found = nearest.conditions.iter().find(|one| one.demand.contains(word));
    found.unwrap_or_else(|| panic!("{word}: {nearest:#?}")).holds.to_owned()
}

#[test]
fn the_demand_that_did_not_hold_is_named() {
    let answer = answer(refusal(&[("project_id", "4711"), ("ref_protected", "false")]));
    assert_eq!(answer.nearest.as_ref().unwrap().rule, "sales/writers");
    assert_eq!(holds(&answer, "ref_protected"), "no");
    assert_eq!(holds(&answer, "project_id"), "yes");
    let json = serde_json::to_string(&answer).unwrap();
    assert_eq!(serde_json::from_str::<Explained>(&json).unwrap(), answer);
}

#[test]
fn a_claim_that_is_not_recorded_is_neither_held_nor_failed() {
    let answer = answer(refusal(&[("project_id", "4711")]));
    assert_eq!(holds(&answer, "ref_protected"), "unknown");
    assert_eq!(holds(&answer, "project_id"), "yes");
    assert!(answer.notes.iter().any(|note| note.contains("not marked safe")), "{:?}", answer.notes);
}

#[test]
fn without_a_verified_token_the_token_is_what_is_missing() {
    let mut one = refusal(&[]);
    one.issuers.clear();
    one.reason = "token_required".into();
    assert_eq!(holds(&answer(one), "token of `gitlab`"), "no");
}

#[test]
fn what_rests_on_no_rule_is_compared_with_none() {
    for reason in ["token_expired", "a_code_of_tomorrow", "not_ready"] {
        let answer = answer(Recorded { reason: reason.into(), ..refusal(&[]) });
        assert_eq!((answer.nearest, answer.rule), (None, None), "{reason}");
    }
}

#[test]
fn the_rule_that_allowed_is_shown_with_its_demands() {
    let mut one = refusal(&[("project_id", "4711"), ("ref_protected", "true")]);
    one.outcome = Outcome::Allow;
    one.reason = "allowed_by_rule".into();
    one.rule = Some(RuleRef { name: "sales/writers".into(), source: None });
    let answer = answer(one);
    let rule = answer.rule.unwrap();
    assert!(rule.conditions.iter().all(|one| one.holds == "yes"), "{rule:#?}");
    assert_eq!(answer.nearest, None);
}

#[test]
fn an_unknown_workload_is_told() {
    let answer = answer(Recorded { workload: "sales/gone".into(), ..refusal(&[]) });
    assert!(answer.nearest.is_none() && answer.notes[0].contains("do not know the workload"), "{answer:?}");
}

#[test]
fn why_a_record_stands_for_others_is_told() {
    for (outcome, why) in [(Outcome::Allow, "samples"), (Outcome::Deny, "proven nothing")] {
        let answer = explained(Recorded { outcome, stands_for: 64, ..refusal(&[]) }, None, &Known::default());
        assert!(answer.notes[0].contains("63 more") && answer.notes[0].contains(why), "{:?}", answer.notes);
    }
}
