use std::collections::BTreeMap;

use tidegate_compiler::{Inputs, SourceFile, check_tests, compile};

use super::*;

/// A mesh with a Guard, an issuer and a few rules.
pub(crate) const RULES: &str = "\
kind: Mesh
metadata: {name: mesh}
spec:
  trustDomain: prod.example
  rootNamespace: mesh-config
  workloads:
  - {namespace: sales, name: orders-api, labels: {app: orders-api}, serviceAccount: orders-api}
  - {namespace: bi, name: reports, labels: {app: reports}, serviceAccount: reports}
---
kind: TrustedIssuer
metadata: {name: gitlab}
spec: {issuer: 'https://gitlab.com', pack: gitlab, keys: {discovery: true}, headers: [{name: X-Job-Token}]}
---
kind: Guard
metadata: {name: sales, namespace: sales}
spec: {mode: Enforce, audience: 'https://orders.sales.example'}
---
kind: AccessRule
metadata: {name: archive-is-closed, namespace: sales}
spec: {owner: team-compliance, contact: '#compliance', effect: Deny, mode: Enforce, from: [{anyMesh: true}], to: [{http: {paths: ['/v1/orders/archive-*']}}]}
---
kind: AccessRule
metadata: {name: orders-etl-writes-orders, namespace: sales}
spec: {owner: team-billing, effect: Allow, mode: Enforce, from: [{peer: {namespace: etl, serviceAccounts: [orders-worker]}}], to: [{http: {methods: [POST], paths: ['/v1/orders/{id}']}}]}
---
kind: AccessRule
metadata: {name: readers, namespace: sales}
spec: {owner: team-billing, effect: Allow, mode: Shadow, from: [{peer: {namespace: bi}}], to: [{http: {methods: [GET], paths: ['/v1/orders/{id}']}}]}
---
kind: AccessRule
metadata: {name: release-migrates, namespace: sales}
spec:
  owner: team-release
  effect: Allow
  mode: Enforce
  from:
  - peer: {namespace: ci, serviceAccounts: [runner]}
    tokens: [{issuer: gitlab, gitlab: {project: 4711, protectedRef: true}}]
  to: [{http: {methods: [POST], paths: [/v1/migrations]}}]
";

/// When tests run.
pub(crate) const NOW: i64 = 1_795_203_600;

/// Rules and tests of a folder with two files.
pub(crate) fn folder(tests: &str) -> (Compiled, RuleTests) {
    let sources = [("rules.yaml", RULES), ("sales.test.yaml", tests)]
        .map(|(path, text)| SourceFile { path: path.into(), text: text.into() });
    let inputs = Inputs { sources: &sources, env: BTreeMap::new(), now: None };
    let compilation = compile(&inputs);
    let compiled = compilation.output.unwrap_or_else(|| panic!("{:#?}", compilation.diagnostics));
    let tests = check_tests(&inputs, &compiled);
    assert!(tests.diagnostics.is_empty(), "{:#?}", tests.diagnostics);
    (compiled, tests)
}

/// Runs tests that are written as a list.
pub(crate) fn report(tests: &str) -> Report {
    let document = format!(
        "kind: RuleTest\nmetadata: {{name: sales}}\nspec:\n  workload: sales/orders-api\n  tokens:\n    release: \
         {{issuer: gitlab, claims: {{project_id: \"4711\", job_project_id: \"4711\", ref_protected: \"true\", \
         pipeline_source: push}}}}\n  tests:\n{tests}"
    );
    let (compiled, tests) = folder(&document);
    run(&compiled, &tests, NOW)
}

fn passes(test: &str) -> bool {
    let report = report(test);
    assert_eq!(report.tests.len(), 1, "{test}");
    assert_eq!(report.tests[0].error, None, "{test}");
    report.failed == 0
}

#[test]
fn a_test_passes_where_all_that_it_expects_is_so() {
    let etl = "peer: etl/orders-worker, method: POST, path: /v1/orders/7";
    let bi = "peer: bi/reports, path: /v1/orders/7";
    for (request, expect, expected) in [
        (etl, "Allow", true),
        (etl, "Deny", false),
        (etl, "{decision: Allow, rule: sales/orders-etl-writes-orders}", true),
        (etl, "{decision: Allow, rule: sales/release-migrates}", false),
        (etl, "{decision: Allow, reason: not_guarded}", false),
        (etl, "{decision: Allow, shadow: {decision: Allow}}", true),
        (bi, "Deny", true),
        (bi, "{decision: Deny, shadow: {decision: Allow, rule: sales/readers}}", true),
        (bi, "{decision: Deny, shadow: {decision: Allow, rule: sales/release-migrates}}", false),
        (bi, "{decision: Deny, shadow: {decision: Deny}}", false),
        (
            "peer: ci/runner, method: POST, path: /v1/migrations",
            "{decision: Deny, reason: token_required}",
            true,
        ),
        ("peer: ci/runner, method: POST, path: /v1/migrations, tokens: [release]", "Allow", true),
        ("workload: bi/reports", "{decision: Allow, reason: not_guarded}", true),
        ("peer: etl/orders-worker, path: /v1/../x", "{decision: Deny, reason: ambiguous_path}", true),
    ] {
        let test = format!("  - {{name: a, request: {{{request}}}, expect: {expect}}}\n");
        assert_eq!(passes(&test), expected, "{test}");
    }
}

#[test]
fn a_token_that_the_workload_does_not_look_at_is_noted() {
    let report = report(
        "  - {name: a, request: {workload: bi/reports, tokens: [release]}, expect: Allow}\n\
         \x20 - {name: b, request: {tokens: [release, release]}, expect: Deny}\n",
    );
    assert_eq!(report.tests[0].ignored_tokens, ["gitlab"]);
    let error = report.tests[1].error.as_deref().unwrap_or_default();
    assert!(error.contains("token_several"), "{error}");
    assert_eq!((report.passed, report.failed), (1, 1));
}

#[test]
fn a_condition_counts_as_seen_only_where_it_mattered() {
    let of = |tests: &str| {
        let coverage = report(tests).coverage;
        let rule = coverage.by_rule.into_iter().find(|rule| rule.rule == "sales/release-migrates").unwrap();
        assert_eq!((rule.file.as_str(), rule.line), ("rules.yaml", 30));
        let seen = |kind: ConditionKind, part: &str| {
            let found = rule.conditions.iter().find(|one| one.kind == kind && one.demand.contains(part));
            let point = found.unwrap_or_else(|| panic!("{part} in {:#?}", rule.conditions));
            (point.seen_true, point.seen_false)
        };
        (
            rule.matched,
            seen(ConditionKind::From, "peer ci/runner"),
            seen(ConditionKind::When, "ref_protected"),
            seen(ConditionKind::To, "POST /v1/migrations"),
        )
    };
    let migrates = "  - {name: a, request: {peer: ci/runner, method: POST, path: /v1/migrations, tokens: [release]}, expect: Allow}\n";
    assert_eq!(of(migrates), (true, (true, false), (true, false), (true, false)));
    // Another branch at another path says nothing about branches.
    let elsewhere = "  - {name: b, request: {peer: ci/runner, path: /x, tokens: [{like: release, claims: {ref_protected: \"false\"}}]}, expect: Deny}\n";
    assert_eq!(of(elsewhere), (false, (false, false), (false, false), (false, false)));
    let branch = "  - {name: c, request: {peer: ci/runner, method: POST, path: /v1/migrations, tokens: [{like: release, claims: {ref_protected: \"false\"}}]}, expect: Deny}\n";
    assert_eq!(of(branch), (false, (false, true), (false, true), (false, false)));
    let path = "  - {name: d, request: {peer: ci/runner, path: /x, tokens: [release]}, expect: Deny}\n";
    assert_eq!(of(path), (false, (false, false), (false, false), (false, true)));
    let all = report(&[migrates, elsewhere, branch, path].concat()).coverage;
    assert_eq!((all.rules.covered, all.rules.total), (1, 4));
    assert!(all.conditions.covered < all.conditions.total);
}

#[test]
fn a_candidate_is_asked_the_same_and_fails_nothing() {
    let tests = "  - {name: writes, request: {peer: etl/orders-worker, method: POST, path: /v1/orders/7}, expect: Allow}\n  \
                 - {name: archive, request: {peer: etl/orders-worker, method: POST, path: /v1/orders/archive-7}, expect: Deny}\n  \
                 - {name: reads, request: {peer: bi/reports, path: /v1/orders/7}, expect: Deny}\n";
    let document = format!(
        "kind: RuleTest\nmetadata: {{name: sales}}\nspec:\n  workload: sales/orders-api\n  tests:\n{tests}"
    );
    let (compiled, tests) = folder(&document);
    let candidate = |from: &str, to: &str| {
        assert!(RULES.contains(from), "{from}");
        let text = RULES.replace(from, to);
        let sources = [SourceFile { path: "rules.yaml".into(), text }];
        compile(&Inputs { sources: &sources, env: BTreeMap::new(), now: None }).output.unwrap()
    };
    let mut report = run(&compiled, &tests, NOW);
    for (from, to, expected) in [
        ("team-billing", "team-other", vec![]),
        // Refused all the same, for another reason.
        ("effect: Deny", "effect: Allow", vec![("archive", Some(Outcome::Allow))]),
        (
            "methods: [POST], paths: ['/v1/orders/{id}']",
            "methods: [PUT], paths: ['/v1/orders/{id}']",
            vec![("writes", Some(Outcome::Deny))],
        ),
        (
            "effect: Allow, mode: Shadow",
            "effect: Allow, mode: Enforce",
            vec![("reads", Some(Outcome::Allow))],
        ),
        (
            "name: orders-api, labels: {app: orders-api}",
            "name: other, labels: {app: orders-api}",
            vec![("writes", None), ("archive", None), ("reads", None)],
        ),
    ] {
        compare(&mut report, &candidate(from, to), &tests, NOW);
        assert_eq!((report.passed, report.failed), (3, 0));
        let told = report.candidate.iter().flatten();
        let told: Vec<_> = told
            .map(|one| (one.name.as_str(), one.candidate.as_ref().map(|decided| decided.decision)))
            .collect();
        assert_eq!(told, expected, "{to}");
        let unasked = report.candidate.iter().flatten().filter(|one| one.error.is_some()).count();
        assert_eq!(unasked, expected.iter().filter(|(_, decided)| decided.is_none()).count());
    }
}

/// Its template, its region and its account are lines of their own, and say what was seen of each.
#[test]
fn each_part_of_a_launch_is_told_by_itself() {
    let rules = "\
kind: Mesh
metadata: {name: mesh}
spec:
  trustDomain: prod.example
  rootNamespace: mesh-config
  workloads: [{namespace: sales, name: orders, labels: {app: orders}, serviceAccount: orders}]
  gateways: [{namespace: egress, name: external, labels: {gateway: external}, serviceAccount: external}]
---
kind: Guard
metadata: {name: egress, namespace: egress}
spec: {mode: Enforce, audience: 'https://egress.example'}
---
kind: AccessRule
metadata: {name: launches, namespace: egress}
spec:
  owner: team-release
  target: {gateway: egress/external}
  effect: Allow
  mode: Enforce
  from: [{peer: {namespace: ci, serviceAccounts: [runner]}}]
  to:
  - launch: {service: dataflow, project: acme, region: europe-west4, template: 'gs://acme-templates/orders/*', runAs: etl@acme.iam.gserviceaccount.com, unchecked: [parameters]}
";
    let tests = "\
kind: RuleTest
metadata: {name: launches}
spec:
  workload: egress/external
  tests:
  - name: another account
    request:
      peer: ci/runner
      method: POST
      url: https://dataflow.googleapis.com/v1b3/projects/acme/locations/europe-west4/templates:launch?gcsPath=gs://acme-templates/orders/v1
      body: {environment.serviceAccountEmail: admin@acme.iam.gserviceaccount.com}
    expect: Deny
";
    let sources = [("rules.yaml", rules), ("launches.test.yaml", tests)]
        .map(|(path, text)| SourceFile { path: path.into(), text: text.into() });
    let inputs = Inputs { sources: &sources, env: BTreeMap::new(), now: None };
    let compilation = compile(&inputs);
    let compiled = compilation.output.unwrap_or_else(|| panic!("{:#?}", compilation.diagnostics));
    let report = run(&compiled, &check_tests(&inputs, &compiled), NOW);
    let [rule] = report.coverage.by_rule.as_slice() else { panic!("{report:#?}") };
    let gaps = rule.gaps();
    let launch = gaps.iter().find(|gap| gap.text.contains("templates:launch")).unwrap();
    insta::assert_snapshot!(format!("{}\n{}", launch.text, launch.parts.join("\n")));
}
