//! `diff` over any two policies: every example is decided differently, and what is decided differently is shown or said to be
//! undecided.
//!
//! `TIDEGATE_CASES` sets the number of cases (default 256).

mod common;
#[allow(dead_code, missing_docs, reason = "the engine's tests use all of it")]
#[path = "../../../filter/engine/tests/reference/generate.rs"]
mod generate;

use std::cell::Cell;

use common::{GUARD, ISSUERS, MESH, compile_files, files};
use generate::{Sent, Token, policy, rule, sent};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tidegate_compiler::diff::{Difference, diff, diff_models};
use tidegate_compiler::{Compiled, WorkloadId};
use tidegate_engine::model::{Condition, GuardModel, Mode, PolicyModel, Test};
use tidegate_engine::{
    ClaimValue, Directories, HeaderFacts, Outcome, Peer, Request, TokenFault, TokenState, normal, reference,
};

fn cases() -> ProptestConfig {
    let cases = std::env::var("TIDEGATE_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(256);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn outcome(model: &PolicyModel, sent: &Sent) -> Outcome {
    let path = normal::path(sent.path.as_bytes());
    let state = |token| match token {
        &Token::Absent => TokenState::Absent,
        Token::Invalid => TokenState::Invalid(TokenFault::BadSignature),
        Token::Verified(token) => TokenState::Verified(token),
    };
    let tokens: Vec<TokenState<'_>> = sent.tokens.iter().map(state).collect();
    let fields: Vec<(&[u8], &[u8])> =
        sent.fields.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())).collect();
    let request = Request {
        now: sent.now,
        expiry_grace_s: sent.expiry_grace_s,
        port: sent.port,
        method: sent.method.as_bytes(),
        host: sent.host.as_deref(),
        path: &path,
        query: sent.query.as_bytes(),
        fields: &fields,
        headers: HeaderFacts { grpc: sent.headers.grpc, ..HeaderFacts::default() },
        peer: match &sent.peer {
            None => Peer::Absent,
            Some((trust_domain, namespace, service_account)) => {
                Peer::Mesh { trust_domain, namespace, service_account }
            }
        },
        tokens: &tokens,
        body: tidegate_engine::Body::Empty,
        directories: &Directories::default(),
    };
    reference::decide(model, &request).outcome
}

/// Without what is said to be undecided anyway.
fn plain(condition: &Condition) -> bool {
    match condition {
        Condition::True => true,
        Condition::All(parts) | Condition::Any(parts) => parts.iter().all(plain),
        Condition::Not(part) => plain(part),
        Condition::Claim(_, test) => !matches!(test, Test::Listed(_) | Test::ListedOrStale(_)),
        _ => false,
    }
}

fn enforced(mut model: PolicyModel, most: usize) -> PolicyModel {
    model.guards =
        vec![GuardModel { id: "sales/g".into(), mode: Mode::Enforce, ports: None, audiences: None }];
    model.rules.retain(|rule| {
        rule.from.iter().all(|from| plain(&from.condition))
            && rule.to.iter().flatten().all(|to| plain(&to.condition))
    });
    model.rules.truncate(most);
    model
}

#[test]
fn what_is_decided_differently_is_shown() {
    let id = WorkloadId { namespace: "sales".into(), name: "orders-api".into() };
    let (differ, shown, undecided) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let inputs = (policy(), rule(), any::<prop::sample::Index>(), proptest::collection::vec(sent(), 40));
    TestRunner::new(cases())
        .run(&inputs, |(model, other, at, all)| {
            let before = enforced(model, 4);
            let mut after = before.clone();
            match after.rules.is_empty() {
                true => after.rules.push(other.into()),
                false => {
                    let at = at.index(after.rules.len());
                    after.rules[at] =
                        tidegate_engine::model::RuleModel { id: after.rules[at].id.clone(), ..other }.into();
                }
            }
            let after = enforced(after, 4);
            let difference = diff_models(&id, &before, &after);
            undecided.set(undecided.get() + usize::from(!difference.undecided.is_empty()));
            shown.set(shown.get() + usize::from(!difference.changes.is_empty()));
            for mut sent in all {
                // Tokens that must not be accepted refuse both; audiences and times are the Guard's and the filter's.
                for token in &mut sent.tokens {
                    if let Token::Verified(token) = token {
                        token.audiences = sent.host.iter().cloned().collect();
                        token.expires_at = i64::MAX;
                        token
                            .slots
                            .iter_mut()
                            .filter(|slot| **slot == ClaimValue::Other)
                            .for_each(|slot| *slot = ClaimValue::Unknown);
                    }
                }
                let decided = (outcome(&before, &sent), outcome(&after, &sent));
                if decided.0 != decided.1 {
                    differ.set(differ.get() + 1);
                    let wider = decided.1 == Outcome::Allow;
                    let known = difference.changes.iter().any(|change| change.wider == wider);
                    prop_assert!(
                        known || !difference.undecided.is_empty(),
                        "{:?} by {:?}: {:?}",
                        decided,
                        sent,
                        difference
                    );
                }
            }
            Ok(())
        })
        .unwrap();
    println!(
        "{} requests differ, {} pairs show it, {} undecided",
        differ.get(),
        shown.get(),
        undecided.get()
    );
    assert!(differ.get() > 0 && shown.get() > undecided.get(), "the cases test something");
}

fn compiled(rules: &str) -> Compiled {
    let sources = files(&[
        ("mesh.yaml", MESH),
        ("issuers.yaml", ISSUERS),
        ("guard.yaml", GUARD),
        ("rules.yaml", rules),
    ]);
    let compilation = compile_files(&sources);
    compilation.output.unwrap_or_else(|| panic!("{:#?}", compilation.diagnostics))
}

fn allow(name: &str, from: &str, to: &str) -> String {
    format!(
        "kind: AccessRule\nmetadata: {{name: {name}, namespace: sales}}\nspec: {{owner: x, effect: Allow, mode: Enforce, target: {{selector: {{matchLabels: {{app: orders-api}}}}}}, from: [{from}], to: [{{http: {{{to}}}}}]}}\n---\n"
    )
}

fn told(difference: &Difference) -> Vec<String> {
    let change = |change: &tidegate_compiler::diff::Change| {
        let example = &change.example;
        let peer = example
            .peer
            .as_ref()
            .map_or("nobody".to_owned(), |(_, namespace, account)| format!("{namespace}/{account}"));
        let tokens: Vec<String> =
            example.tokens.iter().map(|token| format!("{} {:?}", token.issuer, token.claims)).collect();
        let word = if change.wider { "wider" } else { "narrower" };
        format!("{word} {}: {peer} {} {} {}", change.rule, example.method, example.path, tokens.join(" "))
    };
    difference.changes.iter().map(change).collect()
}

#[test]
fn a_change_is_told_with_an_example() {
    let etl = "{peer: {namespace: etl, serviceAccounts: [orders-worker]}}";
    let job = "{peer: {namespace: ci}, tokens: [{issuer: gitlab, claims: {project_id: '7'}}]}";
    let jobs = "{peer: {namespace: ci}, tokens: [{issuer: gitlab, claims: {project_id: ['7', '8']}}]}";
    let post = "methods: [POST], paths: ['/v1/orders/{id}']";
    let both = "methods: [POST, GET], paths: ['/v1/orders/{id}']";
    let before = compiled(&(allow("a", etl, post) + &allow("b", job, post)));
    for (after, expected) in [
        (allow("a", etl, post) + &allow("b", job, post), vec![]),
        // Renamed, reordered, split: the same requests pass.
        (allow("z", etl, post) + &allow("b", job, post), vec![]),
        (
            allow("a", etl, both) + &allow("b", job, post),
            vec!["wider sales/a: etl/orders-worker GET /v1/orders/other "],
        ),
        (allow("b", job, post), vec!["narrower sales/a: etl/orders-worker POST /v1/orders/other "]),
        (
            allow("a", etl, post) + &allow("b", jobs, post),
            vec!["wider sales/b: ci/other POST /v1/orders/other gitlab [(\"project_id\", \"\\\"8\\\"\")]"],
        ),
    ] {
        let difference = diff(&before, &compiled(&after));
        assert_eq!(told(&difference), expected, "{after}");
        assert_eq!(difference.undecided, []);
    }
}

#[test]
fn a_removed_guard_is_told() {
    let rules = allow("a", "{anyMesh: true}", "paths: ['/{**}']");
    let without = files(&[("mesh.yaml", MESH), ("issuers.yaml", ISSUERS), ("rules.yaml", &rules)]);
    let after = compile_files(&without).output.expect("it compiles");
    let difference = diff(&compiled(&rules), &after);
    assert_eq!(difference.guards.len(), 2, "{difference:?}");
    assert_eq!(difference.guards[0].after, "not guarded");
}
