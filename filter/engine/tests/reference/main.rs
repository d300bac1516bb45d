//! The engine against the naive reference interpreter: any policy, any request, the same decision.
//!
//! `TIDEGATE_CASES` sets the number of cases (default 1 024).

#![cfg(not(target_arch = "wasm32"))]

use proptest::prelude::*;
use tidegate_engine::directory::{DirectoryModel, encode_directories};
use tidegate_engine::model::*;
use tidegate_engine::{
    Body, Decision, Directories, Outcome, Peer, PolicySet, Request, TokenFault, TokenState, decide, encode,
    normal, reference,
};

mod again;
mod bodies;
mod candidates;
mod crowded;
mod directories;
mod examples;
mod generate;
mod leases;
mod suspended;
mod until;
mod values;

use generate::{Sent, Token, policy, rule, sent};

fn cases() -> ProptestConfig {
    let cases = std::env::var("TIDEGATE_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(1024);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// `missing`, the third directory that policies name, is not there.
fn directories() -> Directories {
    Directories::decode(&encode_directories(&[
        DirectoryModel { name: "fresh".into(), ids: vec!["4711".into()], fresh_until: 2000 },
        DirectoryModel { name: "stale".into(), ids: vec!["4711".into()], fresh_until: 999 },
    ]))
    .expect("directories decode")
}

/// Calls `with` with the request.
fn with_request<T>(sent: &Sent, with: impl FnOnce(&Request<'_>) -> T) -> T {
    with_directories(&directories(), sent, with)
}

fn with_directories<T>(directories: &Directories, sent: &Sent, with: impl FnOnce(&Request<'_>) -> T) -> T {
    let path = normal::path(sent.path.as_bytes());
    let tokens: Vec<TokenState<'_>> = sent
        .tokens
        .iter()
        .map(|token| match token {
            Token::Absent => TokenState::Absent,
            Token::Invalid => TokenState::Invalid(TokenFault::BadSignature),
            Token::Verified(token) => TokenState::Verified(token),
        })
        .collect();
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
        headers: sent.headers,
        fields: &fields,
        body: Body::Unread,
        peer: match &sent.peer {
            None => Peer::Absent,
            Some((trust_domain, namespace, service_account)) => {
                Peer::Mesh { trust_domain, namespace, service_account }
            }
        },
        tokens: &tokens,
        directories,
    })
}

fn decoded(model: &PolicyModel) -> PolicySet {
    PolicySet::decode(&encode(model).expect("the model encodes")).expect("what was encoded decodes")
}

fn outcome(model: &PolicyModel, sent: &Sent) -> Decision {
    let policy = decoded(model);
    with_request(sent, |request| decide(&policy, request))
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn the_engine_decides_as_the_reference_does(model in policy(), all in proptest::collection::vec(sent(), 1..12)) {
        let policy = decoded(&model);
        for sent in &all {
            let (engine, expected) =
                with_request(sent, |request| (decide(&policy, request), reference::decide(&model, request)));
            prop_assert_eq!(engine, expected, "request {:?}", sent);
        }
    }

    #[test]
    fn the_order_of_rules_never_matters(model in policy(), sent in sent(), seed in any::<usize>()) {
        let mut shuffled = model.clone();
        let length = shuffled.rules.len().max(1);
        shuffled.rules.rotate_left(seed % length);
        shuffled.rules.reverse();
        prop_assert_eq!(encode(&model), encode(&shuffled));
        prop_assert_eq!(outcome(&model, &sent), outcome(&shuffled, &sent));
    }

    #[test]
    fn another_deny_never_allows_and_a_removed_allow_never_allows_more(model in policy(), sent in sent(), extra in rule()) {
        let before = outcome(&model, &sent);
        let mut more = model.clone();
        more.rules.push(RuleModel {
            id: "zz/extra".into(),
            effect: Effect::Deny,
            lease: Lease::default(),
            revokes: false,
            ..extra
        }.into());
        if before.outcome == Outcome::Deny {
            prop_assert_eq!(outcome(&more, &sent).outcome, Outcome::Deny);
            for position in 0..model.rules.len() {
                if model.rules[position].effect == Effect::Allow {
                    let mut fewer = model.clone();
                    fewer.rules.remove(position);
                    prop_assert_eq!(outcome(&fewer, &sent).outcome, Outcome::Deny, "without rule {}", position);
                }
            }
        }
    }

    #[test]
    fn shadow_rules_never_change_what_is_enforced(model in policy(), sent in sent()) {
        let mut enforced_only = model.clone();
        enforced_only.rules.retain(|rule| rule.mode == Mode::Enforce);
        prop_assert_eq!(outcome(&model, &sent).outcome, outcome(&enforced_only, &sent).outcome);
    }

    #[test]
    fn a_damaged_section_is_refused_or_still_decides(model in policy(), sent in sent(), at in any::<usize>(), bit in 0u8..8, cut in any::<usize>()) {
        let mut bytes = encode(&model).expect("the model encodes");
        let position = at % bytes.len();
        prop_assert!(PolicySet::decode(&bytes[..cut % bytes.len()]).is_err(), "truncated");
        bytes[position] ^= 1 << bit;
        if let Ok(policy) = PolicySet::decode(&bytes) {
            // Whatever it says now, deciding ends and does not panic.
            let _ = with_request(&sent, |request| decide(&policy, request));
        }
    }

    #[test]
    fn reading_a_path_twice_changes_nothing(raw in "/[ -~]{0,24}") {
        let once = normal::path(raw.as_bytes());
        if !once.ambiguous() {
            let shown = once.display().to_string();
            let twice = normal::path(shown.as_bytes());
            prop_assert!(!twice.ambiguous(), "{} became ambiguous", shown);
            prop_assert_eq!(twice.display().to_string(), shown);
        }
    }

    #[test]
    fn no_bytes_make_normalisation_panic(raw in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = normal::path(&raw).display().to_string();
        let _ = normal::host(&raw);
        let _ = normal::is_method(&raw);
        let _ = PolicySet::decode(&raw);
        let _ = Directories::decode(&raw);
    }
}
