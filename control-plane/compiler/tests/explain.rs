//! `explain` says what the engine decides: over any policy and any request the same outcome, reason, rule and Shadow
//! difference. Policies and requests are those of the engine's own comparison with its reference.
//!
//! `TIDEGATE_CASES` sets the number of cases (default 1 024).

#[allow(dead_code, missing_docs, reason = "the engine's tests use all of it")]
#[path = "../../../filter/engine/tests/reference/generate.rs"]
mod generate;

use std::cell::Cell;

use generate::{Sent, Token, policy, sent};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tidegate_compiler::explain::{Explanation, Verdict, explain, nearest};
use tidegate_engine::directory::{DirectoryModel, encode_directories};
use tidegate_engine::model::{Effect, Mode, PolicyModel};
use tidegate_engine::{
    Decision, Directories, Outcome, Peer, PolicySet, Reason, Request, TokenFault, TokenState, Truth, decide,
    encode, normal,
};

fn cases() -> ProptestConfig {
    let cases = std::env::var("TIDEGATE_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(1024);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn with_request<T>(sent: &Sent, with: impl FnOnce(&Request<'_>) -> T) -> T {
    let directories = Directories::decode(&encode_directories(&[
        DirectoryModel { name: "fresh".into(), ids: vec!["4711".into()], fresh_until: 2000 },
        DirectoryModel { name: "stale".into(), ids: vec!["4711".into()], fresh_until: 999 },
    ]))
    .expect("directories decode");
    let path = normal::path(sent.path.as_bytes());
    let state = |token| match token {
        &Token::Absent => TokenState::Absent,
        Token::Invalid => TokenState::Invalid(TokenFault::BadSignature),
        Token::Verified(token) => TokenState::Verified(token),
    };
    let tokens: Vec<TokenState<'_>> = sent.tokens.iter().map(state).collect();
    let fields: Vec<(&[u8], &[u8])> =
        sent.fields.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())).collect();
    with(&Request {
        now: sent.now,
        expiry_grace_s: sent.expiry_grace_s,
        port: sent.port,
        method: sent.method.as_bytes(),
        host: sent.host.as_deref(),
        path: &path,
        query: sent.query.as_bytes(),
        fields: &fields,
        body: tidegate_engine::Body::Unread,
        headers: sent.headers,
        peer: match &sent.peer {
            None => Peer::Absent,
            Some((trust_domain, namespace, service_account)) => {
                Peer::Mesh { trust_domain, namespace, service_account }
            }
        },
        tokens: &tokens,
        directories: &directories,
    })
}

fn both(model: &PolicyModel, sent: &Sent) -> (Decision, Explanation) {
    let policy = PolicySet::decode(&encode(model).expect("the model encodes")).expect("it decodes");
    with_request(sent, |request| (decide(&policy, request), explain(model, request)))
}

fn rule(model: &PolicyModel, decision: Option<tidegate_engine::RuleIx>) -> Option<String> {
    let mut ids: Vec<&String> = model.rules.iter().map(|rule| &rule.id).collect();
    ids.sort();
    decision.map(|at| ids[usize::try_from(at.0).unwrap()].clone())
}

#[test]
fn explain_says_what_decide_decides() {
    let (refused, nearly, by_rule, shadow) = (Cell::new(0), Cell::new(0), Cell::new(0), Cell::new(0));
    let inputs = (policy(), proptest::collection::vec(sent(), 1..12));
    TestRunner::new(cases())
        .run(&inputs, |(model, all)| {
            for sent in &all {
                let (decision, explanation) = both(&model, sent);
                let Decision { outcome, reason, .. } = decision;
                let expected = Verdict { outcome, reason, rule: rule(&model, decision.rule) };
                prop_assert_eq!(&explanation.enforced, &expected, "request {:?}", sent);
                let expected = decision.shadow.map(|shadow| Verdict {
                    outcome: shadow.outcome,
                    reason: shadow.reason,
                    rule: rule(&model, shadow.rule),
                });
                prop_assert_eq!(&explanation.shadow, &expected, "request {:?}", sent);
                // What is said of the nearest rule: something of it does not hold.
                let found = nearest(&explanation);
                let is_missing = matches!(reason, Reason::NoAllowMatched | Reason::TokenRequired);
                refused.set(refused.get() + usize::from(is_missing));
                by_rule.set(by_rule.get() + usize::from(decision.rule.is_some()));
                shadow.set(shadow.get() + usize::from(decision.shadow.is_some()));
                if is_missing && let Some(found) = found.filter(|found| found.rule.mode == Mode::Enforce) {
                    nearly.set(nearly.get() + 1);
                    prop_assert_eq!(found.rule.effect, Effect::Allow);
                    let (held, all) = found.held();
                    prop_assert!(held < all, "{:?}", found);
                    prop_assert!(found.checks().any(|check| check.reached && check.holds != Truth::True));
                }
            }
            Ok(())
        })
        .unwrap();
    println!(
        "{} by a rule, {} by none, {} with a nearest, {} differ in Shadow",
        by_rule.get(),
        refused.get(),
        nearly.get(),
        shadow.get()
    );
    assert!(by_rule.get() > 0 && nearly.get() > 0 && shadow.get() > 0, "the cases test something");
}

#[test]
fn a_request_that_passes_has_no_nearest_rule() {
    let inputs = (policy(), sent());
    TestRunner::new(cases())
        .run(&inputs, |(model, sent)| {
            let (decision, explanation) = both(&model, &sent);
            if decision.outcome == Outcome::Allow {
                prop_assert_eq!(nearest(&explanation), None);
            }
            Ok(())
        })
        .unwrap();
}
