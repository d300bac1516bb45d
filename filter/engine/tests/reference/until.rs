//! Until when a decision holds, as far as time alone can change it.

use proptest::prelude::*;
use proptest::sample::select;
use tidegate_engine::model::*;
use tidegate_engine::{ClaimValue, Outcome, VerifiedToken, decide, until};

use crate::examples::{closed, plain};
use crate::generate::{Sent, Token};
use crate::{cases, decoded, with_request};

/// Conditions that come out otherwise at moments around 1000.
fn timed() -> impl Strategy<Value = Condition> {
    let clock = prop_oneof![Just(Operand::Now), Just(Operand::TokenClock)];
    let clock = (clock, -3i64..4).prop_map(|(clock, more)| match more {
        0 => clock,
        more => Operand::Plus(Box::new(clock), more),
    });
    let other = prop_oneof![
        (970i64..1130).prop_map(Operand::Integer),
        (-3i64..130)
            .prop_map(|more| Operand::Plus(Box::new(Operand::Claim(ClaimRef { issuer: 0, slot: 0 })), more)),
        Just(Operand::Now),
    ];
    let relation = select(vec![Relation::Equal, Relation::Less, Relation::LessOrEqual]);
    let compare = (clock, relation, other, any::<bool>()).prop_map(|(left, relation, right, swap)| {
        if swap {
            Condition::Compare(right, relation, left)
        } else {
            Condition::Compare(left, relation, right)
        }
    });
    // 1000 is in the seventeenth minute of a Thursday.
    let window = (select(vec![4u8, 8, 12]), 15u16..20, 1u16..4).prop_map(|(days, from, more)| Window {
        days,
        from,
        to: from + more,
    });
    let within = (
        proptest::collection::vec(window, 1..3),
        1000i64..1100,
        1101i64..1200,
        select(vec![0, 60, -60, 86_000]),
    )
        .prop_map(|(windows, since, until, seconds)| {
            let offsets = vec![Offset { since: 0, seconds: 0 }, Offset { since, seconds }];
            Condition::Within(Schedule { zone: Zone { name: String::new(), offsets, until }, windows })
        });
    prop_oneof![compare, within].prop_recursive(2, 4, 2, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 1..3).prop_map(Condition::All),
            proptest::collection::vec(inner.clone(), 1..3).prop_map(Condition::Any),
            inner.prop_map(|inner| Condition::Not(Box::new(inner))),
        ]
    })
}

fn rule(id: &str, effect: Effect, condition: Condition) -> RuleModel {
    RuleModel {
        id: id.to_owned(),
        effect,
        mode: Mode::Enforce,
        owner: String::new(),
        contact: String::new(),
        disclosure: Disclosure::Full,
        audit: Default::default(),
        lease: Lease::default(),
        revokes: false,
        from: vec![FromModel { peer: PeerModel::Anyone, issuers: vec![0], condition }],
        to: None,
    }
}

fn model(allow: Condition, deny: Condition) -> PolicyModel {
    let mut model = closed();
    model.issuers.push(IssuerModel { name: "a".into(), slots: vec![vec!["iat".into()]] });
    model.rules =
        vec![rule("a/allow", Effect::Allow, allow).into(), rule("a/deny", Effect::Deny, deny).into()];
    model
}

fn sent(now: i64, expiry_grace_s: u32) -> Sent {
    let token = Token::Verified(VerifiedToken {
        audiences: vec!["orders.example".into()],
        expires_at: 5000,
        slots: vec![ClaimValue::Integer(990)],
    });
    Sent { now, expiry_grace_s, tokens: vec![token], ..plain() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn what_is_allowed_stays_so_until_it_is_said_to_change(
        allow in timed(), deny in timed(), now in 990i64..1010, grace in select(vec![0, 20]),
    ) {
        let model = model(allow, Condition::All(vec![deny, Condition::Compare(Operand::Now, Relation::Less, Operand::Integer(1100))]));
        let policy = decoded(&model);
        let (decision, until) = with_request(&sent(now, grace), |request| {
            let decision = decide(&policy, request);
            (decision, until(&policy, request, &decision))
        });
        prop_assert!(until > now, "{}", until);
        if decision.outcome == Outcome::Allow {
            for at in now..until.min(1200) {
                let later = with_request(&sent(at, grace), |request| decide(&policy, request));
                prop_assert_eq!(later.outcome, Outcome::Allow, "at {} before {}", at, until);
            }
        }
    }
}

#[test]
fn only_what_may_end_the_request_counts() {
    let before = |moment| Condition::Compare(Operand::Now, Relation::Less, Operand::Integer(moment));
    let never = || before(0);
    let told = |model: &PolicyModel| {
        let policy = decoded(model);
        with_request(&sent(1000, 0), |request| until(&policy, request, &decide(&policy, request)))
    };
    assert_eq!(told(&model(Condition::True, Condition::Not(Box::new(Condition::True)))), i64::MAX);
    assert_eq!(told(&model(before(1010), never())), 1010);
    assert_eq!(told(&model(Condition::True, Condition::Not(Box::new(before(1020))))), 1020);
    // Another Allow does not matter, nor what only a Shadow rule says.
    let mut two = model(before(1010), never());
    two.rules.push(rule("a/zz", Effect::Allow, before(1005)).into());
    two.rules.push(RuleModel { mode: Mode::Shadow, ..rule("a/shadow", Effect::Deny, before(1004)) }.into());
    assert_eq!(told(&two), 1010);
    // A token becomes too old; a stream's grace is added.
    let iat = Operand::Plus(Box::new(Operand::Claim(ClaimRef { issuer: 0, slot: 0 })), 60);
    let fresh = model(Condition::Compare(Operand::TokenClock, Relation::LessOrEqual, iat), never());
    assert_eq!(told(&fresh), 1050);
    let policy = decoded(&fresh);
    let at = |now, grace| {
        with_request(&sent(now, grace), |request| {
            let decision = decide(&policy, request);
            (decision.outcome, until(&policy, request, &decision))
        })
    };
    assert_eq!(at(1050, 0), (Outcome::Allow, 1051));
    assert_eq!(at(1051, 0).0, Outcome::Deny);
    assert_eq!(at(1051, 30), (Outcome::Allow, 1080));
    assert_eq!(at(1081, 30).0, Outcome::Deny);
    assert_eq!(at(4000, u32::MAX).0, Outcome::Allow);
}
