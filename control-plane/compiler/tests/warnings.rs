//! Warnings about rules that compile and may not be what was meant; each with a neighbour that is fine.

mod common;

use common::{compile_rules, shown};

fn rule(name: &str, effect: &str, from: &str, to: &str) -> String {
    let to = if to.is_empty() { String::new() } else { format!(", to: [{to}]") };
    format!(
        "kind: AccessRule\nmetadata: {{name: {name}, namespace: sales}}\nspec: {{owner: x, effect: {effect}, mode: Enforce, \
         target: {{selector: {{matchLabels: {{app: orders-api}}}}}}, from: [{from}]{to}}}\n---\n"
    )
}

fn said(rules: &[String]) -> String {
    shown(&compile_rules(&rules.concat()))
}

const WORKER: &str = "{peer: {namespace: etl, serviceAccounts: [orders-worker]}}";
const ANY: &str = "{anyMesh: true}";
const ORDER: &str = "{http: {methods: [POST], paths: ['/v1/orders/{id}']}}";

#[test]
fn an_allow_that_a_deny_refuses_wholly() {
    insta::assert_snapshot!(said(&[
        rule("writes", "Allow", WORKER, ORDER),
        rule("nobody", "Deny", ANY, "{http: {paths: ['/v1/{**}']}}"),
    ]));
    // A Deny of a part of it, or of others, is what Denies are for.
    for (from, to) in [
        (ANY, "{http: {paths: ['/v1/orders/archive-*']}}"),
        (ANY, "{http: {methods: [GET], paths: ['/v1/{**}']}}"),
        ("{peer: {namespace: ci}}", "{http: {paths: ['/v1/{**}']}}"),
        (
            "{anyMesh: true, tokens: [{issuer: prod-cluster, kubernetes: {namespace: etl}}]}",
            "{http: {paths: ['/v1/{**}']}}",
        ),
    ] {
        let text = said(&[rule("writes", "Allow", WORKER, ORDER), rule("nobody", "Deny", from, to)]);
        assert!(!text.contains("TG0920"), "{from} {to}: {text}");
    }
}

#[test]
fn a_rule_that_another_one_makes_superfluous() {
    insta::assert_snapshot!(said(&[
        rule("a", "Allow", WORKER, ORDER),
        rule("b", "Allow", WORKER, ORDER),
        rule("c", "Allow", "{peer: {namespace: etl}}", "{http: {paths: ['/v1/orders/{**}']}}"),
        rule("d", "Allow", WORKER, "{http: {methods: [GET], paths: ['/v2/{id}']}}"),
    ]));
}

#[test]
fn demands_that_contradict_each_other() {
    let caller = |claims: &str| {
        format!(
            "kind: Caller\nmetadata: {{name: job, namespace: sales}}\nspec: {{anyOf: [{{anyMesh: true, tokens: [{{issuer: gitlab, claims: {{{claims}}}}}]}}]}}\n---\n"
        )
    };
    let narrowed = "{caller: sales/job, tokens: [{issuer: gitlab, claims: {project_id: '2'}}]}";
    insta::assert_snapshot!(said(&[caller("project_id: '1'"), rule("never", "Allow", narrowed, ORDER)]));
    for claims in ["project_id: ['1', '2']", "namespace_id: '1'"] {
        let text = said(&[caller(claims), rule("may", "Allow", narrowed, ORDER)]);
        assert!(!text.contains("TG0922"), "{claims}: {text}");
    }
    // Where the issuer does not tell, a Deny matches.
    let text = said(&[caller("project_id: '1'"), rule("deny", "Deny", narrowed, ORDER)]);
    assert!(!text.contains("TG0922"), "{text}");
}

#[test]
fn an_allow_of_everything() {
    insta::assert_snapshot!(said(&[
        rule("all", "Allow", WORKER, ""),
        rule("none", "Deny", "{peer: {namespace: ci}}", "")
    ]));
}

#[test]
fn a_deny_that_is_evaded_by_leaving_a_token_out() {
    let unprotected = "{anyMesh: true, tokens: [{issuer: gitlab, gitlab: {protectedRef: false}}]}";
    insta::assert_snapshot!(said(&[
        rule("runner", "Allow", "{peer: {namespace: ci}}", ORDER),
        rule("no-unprotected-ref", "Deny", unprotected, ""),
    ]));
    // One Allow that demands the token is what the Deny is for, and without any there is nothing to evade.
    let job = "{peer: {namespace: ci}, tokens: [{issuer: gitlab, gitlab: {project: 7}}]}";
    for rules in [
        vec![rule("job", "Allow", job, ORDER), rule("deny", "Deny", unprotected, "")],
        vec![
            rule("job", "Allow", job, ORDER),
            rule("etl", "Allow", WORKER, ORDER),
            rule("deny", "Deny", unprotected, ""),
        ],
        vec![rule("deny", "Deny", unprotected, "")],
        vec![
            rule("etl", "Allow", WORKER, ORDER),
            rule("deny", "Deny", unprotected, "{http: {methods: [GET], paths: ['/{**}']}}"),
        ],
    ] {
        let text = said(&rules);
        assert!(!text.contains("TG0923"), "{text}");
    }
}
