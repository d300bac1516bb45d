//! How long what was allowed may go on.

use proptest::prelude::*;
use tidegate_engine::model::*;
use tidegate_engine::{EncodeError, Outcome, Reason, RuleIx, TokenFault, VerifiedToken, encode};

use crate::examples::{closed, plain};
use crate::generate::{Sent, Token, policy};
use crate::{cases, decoded, outcome};

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn rules_keep_what_they_say_about_themselves(model in policy()) {
        let policy = decoded(&model);
        let mut rules = model.rules.clone();
        rules.sort_by(|a, b| a.id.cmp(&b.id));
        prop_assert_eq!(policy.rule_count(), rules.len());
        for (position, rule) in (0..).zip(&rules) {
            let view = policy.rule(RuleIx(position)).expect("the rule is there");
            prop_assert_eq!(
                (view.id, view.owner, view.contact, view.effect, view.mode, view.disclosure, view.audit, view.lease, view.revokes),
                (
                    rule.id.as_str(),
                    rule.owner.as_str(),
                    rule.contact.as_str(),
                    rule.effect,
                    rule.mode,
                    rule.disclosure,
                    rule.audit,
                    rule.lease,
                    rule.revokes
                )
            );
        }
    }
}

fn with_lease(lease: Lease) -> PolicyModel {
    PolicyModel {
        issuers: vec![IssuerModel { name: "a".into(), slots: vec![] }],
        rules: vec![
            RuleModel {
                id: "sales/stream".into(),
                effect: Effect::Allow,
                mode: Mode::Enforce,
                owner: String::new(),
                contact: String::new(),
                disclosure: Disclosure::Full,
                audit: Default::default(),
                lease,
                revokes: false,
                from: vec![FromModel {
                    peer: PeerModel::Anyone,
                    issuers: vec![0],
                    condition: Condition::True,
                }],
                to: None,
            }
            .into(),
        ],
        ..closed()
    }
}

#[test]
fn a_grace_that_cannot_be_written_is_refused() {
    let with_grace = |grace_s| encode(&with_lease(Lease { on_expiry: OnExpiry::Reset, grace_s }));
    assert!(with_grace(Lease::MAX_GRACE_S).is_ok());
    let error = with_grace(Lease::MAX_GRACE_S + 1).unwrap_err();
    assert!(matches!(error, EncodeError::Grace(_)), "{error}");
    assert_eq!(
        error.to_string(),
        "`rule sales/stream`: the grace after expiry is longer than 16777215 seconds"
    );
}

#[test]
fn a_token_counts_for_as_long_as_the_lease_says() {
    const EXPIRES_AT: i64 = 2_000;
    // No issuer's skew is larger.
    const SKEW: i64 = 120;
    let token = VerifiedToken {
        audiences: vec!["orders.example".into()],
        expires_at: EXPIRES_AT,
        ..VerifiedToken::default()
    };
    let at = |now, lease: Lease| Sent {
        now,
        expiry_grace_s: lease.expiry_grace_s(),
        tokens: vec![Token::Verified(token.clone())],
        ..plain()
    };
    let expired = Reason::TokenInvalid(TokenFault::Expired);
    let model = with_lease(Lease::default());
    let none = Lease::default();
    let half_a_minute = Lease { on_expiry: OnExpiry::Reset, grace_s: 30 };
    let keep = Lease { on_expiry: OnExpiry::Keep, grace_s: 0 };
    for (now, lease, expected) in [
        (EXPIRES_AT + SKEW - 1, none, Reason::AllowedBy),
        (EXPIRES_AT + SKEW, none, expired),
        (EXPIRES_AT + SKEW + 29, half_a_minute, Reason::AllowedBy),
        (EXPIRES_AT + SKEW + 30, half_a_minute, expired),
        (EXPIRES_AT + 366 * 24 * 3600, keep, Reason::AllowedBy),
    ] {
        let decision = outcome(&model, &at(now, lease));
        assert_eq!(decision.reason, expected, "{now} {lease:?}");
        assert_eq!(decision.outcome == Outcome::Allow, expected == Reason::AllowedBy);
    }
}
