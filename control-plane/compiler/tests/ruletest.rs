//! RuleTests: what is read, and what is said about tests that would not test what they say.

mod common;

use common::{GUARD, ISSUERS, MESH, env, files};
use tidegate_compiler::explain::Prepared;
use tidegate_compiler::{Inputs, RuleTests, check_tests, compile};
use tidegate_engine::{Outcome, decide};

const RULES: &str = "\
kind: AccessRule
metadata: {name: release-migrates, namespace: sales}
spec:
  owner: team-release
  effect: Allow
  mode: Enforce
  from:
  - peer: {namespace: ci, serviceAccounts: [runner]}
    tokens: [{issuer: gitlab, gitlab: {project: 4711, protectedRef: true}}]
  to: [{http: {methods: [POST], paths: [/v1/migrations]}}, {grpc: {services: [sales.v1.Migrations], methods: [Run]}}]
---
kind: AccessRule
metadata: {name: readers, namespace: sales}
spec:
  owner: team-billing
  effect: Allow
  mode: Shadow
  from: [{peer: {namespace: bi}}]
  to: [{http: {methods: [GET], paths: ['/v1/orders/{id}']}}]
";

/// The tests, and what is said about them.
fn tests(document: &str) -> (RuleTests, String) {
    let sources = files(&[
        ("mesh.yaml", MESH),
        ("issuers.yaml", ISSUERS),
        ("guard.yaml", GUARD),
        ("rules.yaml", RULES),
        ("sales.test.yaml", document),
    ]);
    let inputs = Inputs { sources: &sources, env: env(), now: None };
    let compilation = compile(&inputs);
    let said = |diagnostics: &[tidegate_compiler::Diagnostic]| {
        diagnostics.iter().map(|diagnostic| format!("{diagnostic}\n")).collect::<String>()
    };
    let Some(compiled) = &compilation.output else {
        return (RuleTests::default(), said(&compilation.diagnostics));
    };
    let tests = check_tests(&inputs, compiled);
    let mut text = said(&tests.diagnostics);
    for test in &tests.tests {
        let prepared = Prepared::new(compiled, &test.question, 1_800_000_000).expect("it can be asked");
        let policy = prepared.decoded().expect("it decodes");
        let decision = prepared.with(|request| decide(&policy, request));
        let holds = decision.outcome == test.expected.outcome
            && test.expected.reason.is_none_or(|reason| reason == decision.reason);
        text.push_str(&format!(
            "{}:{} {}: {:?} {} {}\n",
            test.file,
            test.line,
            test.name,
            decision.outcome,
            decision.reason,
            if holds { "as expected" } else { "NOT as expected" }
        ));
    }
    (tests, text)
}

const SUITE: &str = "\
apiVersion: tidegate.dev/v1alpha1
kind: RuleTest
metadata: {name: sales}
spec:
  workload: sales/orders-api
  defaults: {peer: ci/runner, method: POST, path: /v1/migrations}
  tokens:
    branch: {like: release, claims: {ref_protected: \"false\"}}
    release:
      issuer: gitlab
      claims: {project_id: \"4711\", job_project_id: \"4711\", ref_protected: \"true\", pipeline_source: push}
  tests:
  - name: a release on a protected ref migrates
    request: {tokens: [release]}
    expect: Allow
  - name: over gRPC as well
    request: {tokens: [release], grpc: sales.v1.Migrations/Run}
    expect: {decision: Allow, reason: allowed_by_rule, rule: sales/release-migrates}
  - name: a branch that is not protected
    request: {tokens: [branch]}
    expect: {decision: Deny, reason: no_allow_matched}
  - name: another project
    request: {tokens: [{like: release, claims: {project_id: \"9\"}}]}
    expect: Deny
  - name: nothing is known of the project
    request: {tokens: [{like: release, without: [project_id]}]}
    expect: Deny
  - name: a token that has expired
    request: {tokens: [{like: release, refused: token_expired}]}
    expect: {decision: Deny, reason: token_expired}
  - name: a token for somebody else
    request: {tokens: [{like: release, audience: 'https://other.example'}]}
    expect: {decision: Deny, reason: token_wrong_audience}
  - name: no token
    expect: {decision: Deny, reason: token_required}
  - name: a reader would be let in
    request: {peer: bi/reader, url: 'https://orders.sales.example/v1/orders/7?x=1', method: GET}
    expect: {decision: Deny, shadow: {decision: Allow, rule: sales/readers}}
  - name: two hosts
    request: {tokens: [release], headers: {X-Original-URL: /admin}}
    expect: {decision: Deny, reason: override_header}
";

#[test]
fn tests_are_decided_as_requests_are() {
    let (_, text) = tests(SUITE);
    insta::assert_snapshot!(text);
}

#[test]
fn the_decision_is_read_with_everything_that_was_expected() {
    let (tests, _) = tests(SUITE);
    let shadow = &tests.tests[8].expected;
    assert_eq!(shadow.outcome, Outcome::Deny);
    assert_eq!(shadow.shadow, Some((Outcome::Allow, Some("sales/readers".to_owned()))));
}

#[test]
fn says_what_would_not_be_tested() {
    let (_, text) = tests(
        "\
kind: RuleTest
metadata: {name: wrong}
spec:
  tokens:
    a: {issuer: gitlap, claims: {}}
    b: {like: c}
    c: {like: b}
    d: {claims: {}}
  tests:
  - {name: a, expect: Allow}
---
kind: RuleTest
metadata: {name: more}
spec:
  workload: sales/order-api
  tokens: {release: {issuer: gitlab, claims: {ref_protected: true, projectid: \"1\"}}}
  tests:
  - {name: a, expect: Allow}
---
kind: RuleTest
metadata: {name: again}
spec:
  tokens: {release: {issuer: gitlab, claims: {ref_protected: \"true\"}}}
  defaults: {workload: sales/orders-api}
  tests:
  - {name: a, request: {peer: nobody, tokens: [relaese]}, expect: Allow}
  - {name: a, request: {time: yesterday, url: /v1}, expect: {decision: Deny, reason: no_alow_matched, rule: sales/reader}}
  - {name: b, request: {tokens: [{like: release, without: [sub], refused: token_required}]}, expect: Allow}
",
    );
    insta::assert_snapshot!(text);
}

#[test]
fn says_what_is_wrong_with_the_shape() {
    let (_, text) = tests(
        "\
kind: RuleTest
metadata: {name: shape, namespace: sales}
spec:
  worklaod: sales/orders-api
  tests:
  - {name: a, request: {pear: a/b, tokens: [{isuer: gitlab}, 7]}, expect: allow}
  - {request: {}, expect: {decison: Allow}}
",
    );
    insta::assert_snapshot!(text);
}
