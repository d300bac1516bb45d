//! While the Guards are suspended: what they refuse passes, but for what is revoked.

use proptest::prelude::*;
use tidegate_engine::model::*;
use tidegate_engine::{
    EncodeError, Outcome, PolicySet, Reason, Request, RuleIx, TokenFault, TokenState, decide,
    decide_suspended, encode, reference,
};

use crate::examples::{closed, plain};
use crate::generate::{Sent, Token, policy, sent};
use crate::{cases, decoded, with_request};

/// Many of the Denies take something back.
fn revoking() -> impl Strategy<Value = PolicyModel> {
    (policy(), proptest::collection::vec(any::<bool>(), 12)).prop_map(|(mut model, chosen)| {
        for (rule, chosen) in model.rules.iter_mut().zip(chosen) {
            if chosen && rule.effect == Effect::Deny && rule.mode == Mode::Enforce {
                rule.to = None;
                rule.revokes = true;
            }
        }
        model
    })
}

/// Calls with the request; what is wrong with its tokens is `fault`.
fn with_fault<T>(sent: &Sent, fault: TokenFault, with: impl FnOnce(&Request<'_>) -> T) -> T {
    with_request(sent, |request| {
        let tokens: Vec<TokenState<'_>> = request
            .tokens
            .iter()
            .map(|token| match token {
                TokenState::Invalid(_) => TokenState::Invalid(fault),
                other => *other,
            })
            .collect();
        with(&Request { tokens: &tokens, ..*request })
    })
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_suspended_engine_decides_as_the_reference_does(
        model in revoking(),
        all in proptest::collection::vec((sent(), any::<bool>()), 1..12),
        revoking in proptest::collection::vec(any::<bool>(), 0..4),
    ) {
        let policy = decoded(&model);
        for (sent, is_revoked) in &all {
            let fault = if *is_revoked { TokenFault::Revoked } else { TokenFault::Expired };
            let (engine, expected, usual) = with_fault(sent, fault, |request| {
                (
                    decide_suspended(&policy, request, &revoking),
                    reference::decide_suspended(&model, request, &revoking),
                    decide(&policy, request),
                )
            });
            prop_assert_eq!(engine, expected, "request {:?}", sent);
            if usual.outcome == Outcome::Allow {
                prop_assert!(
                    engine == usual || engine.outcome == Outcome::Deny,
                    "what is allowed stays as it is, {:?}", sent
                );
            }
            // Whatever a Deny that takes something back decides usually, it decides now.
            let by = usual.rule.and_then(|rule| policy.rule(rule));
            if by.is_some_and(|rule| rule.revokes) {
                prop_assert_eq!(engine.outcome, Outcome::Deny, "request {:?}", sent);
            }
        }
    }
}

fn deny(id: &str, issuers: Vec<u16>) -> RuleModel {
    RuleModel {
        id: id.into(),
        effect: Effect::Deny,
        mode: Mode::Enforce,
        owner: String::new(),
        contact: String::new(),
        disclosure: Disclosure::Full,
        audit: Audit::Sampled,
        lease: Lease::default(),
        revokes: true,
        from: vec![FromModel { peer: PeerModel::Anyone, issuers, condition: Condition::True }],
        to: None,
    }
}

fn with_rule(rule: RuleModel) -> PolicyModel {
    PolicyModel {
        issuers: vec![IssuerModel { name: "a".into(), slots: vec![] }],
        rules: vec![RuleModel { id: "a/first".into(), revokes: false, ..rule.clone() }.into(), rule.into()],
        ..closed()
    }
}

#[test]
fn what_takes_something_back_is_an_enforced_deny_of_any_operation() {
    let refused = |change: fn(&mut RuleModel)| {
        let mut rule = deny("b/rule", vec![]);
        change(&mut rule);
        let error = encode(&PolicyModel { rules: vec![rule.into()], ..closed() }).unwrap_err();
        assert!(matches!(error, EncodeError::Rule { .. }), "{error}");
        error.to_string()
    };
    let expected = "`rule b/rule`: what takes something back is an enforced Deny of any operation";
    assert_eq!(refused(|rule| rule.effect = Effect::Allow), expected);
    assert_eq!(refused(|rule| rule.mode = Mode::Shadow), expected);
    assert_eq!(refused(|rule| rule.to = Some(vec![OperationModel::default()])), expected);
    let lease = refused(|rule| rule.lease.grace_s = 1);
    assert_eq!(lease, "`rule b/rule`: a Deny lets no stream in that could go on");
}

#[test]
fn who_is_revoked_is_refused_whatever_else_is_wrong() {
    let told = |policy: &PolicySet, sent: &Sent, fault| {
        with_fault(sent, fault, |request| {
            let decision = decide_suspended(policy, request, &[]);
            (decision.outcome, decision.reason, decision.rule)
        })
    };
    let bad = TokenFault::BadSignature;
    let with = |token: Token, path: &str| Sent { tokens: vec![token], path: path.into(), ..plain() };
    let anybody = decoded(&with_rule(deny("b/rule", vec![])));
    let by_rule = (Outcome::Deny, Reason::DeniedBy, Some(RuleIx(1)));
    // Another Deny that matches comes first, the path is ambiguous, the token is not good.
    for sent in [with(Token::Absent, "/a"), with(Token::Absent, "/a//%2e%2e/b"), with(Token::Invalid, "/a")] {
        assert_eq!(told(&anybody, &sent, bad), by_rule, "{sent:?}");
    }
    let bearer = decoded(&with_rule(deny("b/rule", vec![0])));
    let passes = (Outcome::Allow, Reason::GuardInShadow, None);
    assert_eq!(told(&bearer, &with(Token::Absent, "/a"), bad), passes);
    assert_eq!(told(&bearer, &with(Token::Invalid, "/a"), bad), by_rule, "it may be anybody's");
    let revoked = (Outcome::Deny, Reason::TokenInvalid(TokenFault::Revoked), None);
    assert_eq!(told(&bearer, &with(Token::Invalid, "/a"), TokenFault::Revoked), revoked);
    let mut none = with_rule(deny("b/rule", vec![]));
    none.rules.truncate(1);
    assert_eq!(told(&decoded(&none), &with(Token::Invalid, "/a"), bad), passes);
}
