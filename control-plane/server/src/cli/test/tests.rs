use std::path::Path;

use super::*;
use crate::ruletest::tests::report;

const TESTS: &str = "\
\x20 - name: the ETL job writes an order
    request: {peer: etl/orders-worker, method: POST, path: /v1/orders/7}
    expect: Allow
  - name: nobody deletes
    request: {peer: etl/orders-worker, method: DELETE, path: /v1/orders/7}
    expect: {decision: Allow, rule: sales/orders-etl-writes-orders}
  - name: a branch that is not protected
    request: {peer: ci/runner, method: POST, path: /v1/migrations, tokens: [{like: release, claims: {ref_protected: \"false\"}}]}
    expect: Allow
  - name: no token
    request: {peer: ci/runner, method: POST, path: /v1/migrations}
    expect: Allow
  - name: readers are not let in yet
    request: {peer: bi/reports, path: /v1/orders/7}
    expect: {decision: Deny, shadow: {decision: Deny}}
  - name: the archive
    request: {peer: etl/orders-worker, method: POST, path: /v1/orders/archive-7}
    expect: Allow
";

fn text(tests: &str, verbose: bool, fail_under: Option<u8>) -> String {
    let view = render::View { folder: Path::new("rules"), verbose, fail_under, is_partial: false };
    render::text(&report(tests), &view, Style::Plain)
}

#[test]
fn failures_say_what_was_expected_what_was_decided_and_what_lacked() {
    insta::assert_snapshot!(text(TESTS, false, Some(90)));
}

#[test]
fn everything_is_told_on_demand() {
    let two = TESTS.split("  - name: nobody").next().unwrap_or_default();
    insta::assert_snapshot!(text(two, true, None));
}

#[test]
fn ci_systems_get_a_suite_per_rule_test() {
    insta::assert_snapshot!(junit::report(&suites(&report(TESTS), Path::new("rules"))));
}

#[test]
fn programs_get_the_same() {
    let report = serde_json::to_value(report(TESTS)).expect("it serialises");
    let test = &report["tests"][1];
    assert_eq!(test["passed"], false);
    assert_eq!(test["expected"]["decision"], "Allow");
    assert_eq!(test["actual"]["reason"], "no_allow_matched");
    assert_eq!(test["nearest"]["rule"], "sales/orders-etl-writes-orders");
    assert_eq!(test["nearest"]["conditions"][1]["actual"], "DELETE");
    assert_eq!(report["coverage"]["rules"]["total"], 4);
}

#[test]
fn what_a_candidate_would_do_is_told_behind_the_results() {
    let mut told = report(TESTS.split("  - name: nobody").next().unwrap_or_default());
    let other = crate::ruletest::CandidateReport {
        suite: "sales".into(),
        name: "the ETL job writes an order".into(),
        file: "sales.test.yaml".into(),
        line: 7,
        rules: told.tests[0].actual.clone().expect("it was asked"),
        candidate: None,
        error: Some("there is no workload `sales/orders-api`".into()),
    };
    let view =
        render::View { folder: Path::new("rules"), verbose: false, fail_under: None, is_partial: true };
    told.candidate = Some(vec![other]);
    let some = render::text(&told, &view, Style::Plain);
    told.candidate = Some(vec![]);
    let none = render::text(&told, &view, Style::Plain);
    insta::assert_snapshot!(format!("{some}\n{none}"));
}
