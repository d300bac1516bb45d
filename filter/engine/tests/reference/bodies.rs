//! Decisions before and after the body is read.

use proptest::prelude::*;
use tidegate_engine::body::FieldValue;
use tidegate_engine::model::*;
use tidegate_engine::{
    Body, Decision, Outcome, PolicySet, Reason, Request, decide, encode, reference, unlisted, wanted_fields,
};

use crate::examples::{closed, plain};
use crate::generate::{Sent, body_fields, policy, sent};
use crate::{cases, decoded, with_request};

/// Calls `with` with the request and its body, of which only these fields are known.
pub fn with_body<T>(
    policy: &PolicySet,
    sent: &Sent,
    known: Option<&[u16]>,
    with: impl FnOnce(&Request<'_>) -> T,
) -> T {
    let all = body_fields();
    let values: Vec<FieldValue> = (0u16..)
        .zip(policy.body_fields())
        .map(|(at, field)| {
            let value = all.iter().position(|known| known == field).and_then(|at| sent.body.get(at));
            let is_known = known.is_none_or(|known| known.contains(&at));
            value.filter(|_| is_known).cloned().unwrap_or(FieldValue::Unknown)
        })
        .collect();
    with_request(sent, |request| {
        with(&Request { body: Body::Read { fields: policy.body_fields(), values: &values }, ..*request })
    })
}

/// Both engines; they agree.
fn both(model: &PolicyModel, policy: &PolicySet, request: &Request<'_>) -> Decision {
    let engine = decide(policy, request);
    assert_eq!(engine, reference::decide(model, request), "{request:?}");
    engine
}

fn enforced(decision: &Decision) -> (Outcome, Option<Outcome>) {
    (decision.outcome, decision.shadow.map(|shadow| shadow.outcome))
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn what_does_not_await_the_body_is_decided_the_same_with_any(model in policy(), all in proptest::collection::vec(sent(), 1..8)) {
        let policy = decoded(&model);
        for sent in &all {
            let unread = with_request(sent, |request| both(&model, &policy, request));
            with_request(sent, |request| {
                prop_assert_eq!(unlisted(&policy, request), reference::unlisted(&model, request));
                Ok(())
            })?;
            let empty = with_request(sent, |request| both(&model, &policy, &Request { body: Body::Empty, ..*request }));
            let read = with_body(&policy, sent, None, |request| both(&model, &policy, request));
            prop_assert!(!read.awaits_body && !empty.awaits_body);
            if unread.awaits_body {
                // Only what might be allowed is waited for, and never let through meanwhile.
                prop_assert!(unread.outcome == Outcome::Deny || unread.shadow != read.shadow || unread.outcome == read.outcome);
            } else {
                prop_assert_eq!(enforced(&unread), enforced(&read), "{:?}", sent);
                prop_assert_eq!(enforced(&unread), enforced(&empty), "{:?}", sent);
            }
            if unread.outcome == Outcome::Allow {
                prop_assert_eq!(read.outcome, Outcome::Allow);
                prop_assert_eq!(empty.outcome, Outcome::Allow);
            }
            // The fields that are not wanted make no difference.
            let wanted = with_request(sent, |request| wanted_fields(&policy, request));
            let partly = with_body(&policy, sent, Some(&wanted), |request| decide(&policy, request));
            prop_assert_eq!(enforced(&partly), enforced(&read), "{:?}", sent);
        }
    }
}

fn publish(effect: Effect) -> PolicyModel {
    let [topic, ..] = body_fields();
    let mut model = closed();
    let rule = |id: &str, effect, condition| RuleModel {
        id: id.into(),
        effect,
        mode: Mode::Enforce,
        owner: String::new(),
        contact: String::new(),
        disclosure: Disclosure::Full,
        audit: Default::default(),
        lease: Lease::default(),
        revokes: false,
        from: vec![FromModel { peer: PeerModel::Anyone, issuers: vec![], condition: Condition::True }],
        to: Some(vec![OperationModel { condition, ..OperationModel::default() }]),
    };
    let is_orders = Condition::Text(Operand::Body(topic), TextTest::Glob("orders-*".into()));
    model.rules.push(rule("sales/topic", effect, is_orders).into());
    if effect == Effect::Deny {
        model.rules.push(rule("sales/rest", Effect::Allow, Condition::True).into());
    }
    model
}

#[test]
fn a_body_decides_by_all_that_it_says() {
    let texts = |texts: &[&str]| FieldValue::Texts(texts.iter().map(|&text| text.to_owned()).collect());
    for (value, allowed, denied) in [
        (texts(&["orders-1"]), true, true),
        (texts(&["orders-1", "orders-2"]), true, true),
        (texts(&["orders-1", "billing"]), false, true),
        (texts(&["billing"]), false, false),
        (FieldValue::Absent, false, false),
        (FieldValue::Unknown, false, true),
    ] {
        let sent = Sent { body: vec![value.clone()], ..plain() };
        let reason = |effect| {
            let model = publish(effect);
            let policy = decoded(&model);
            with_body(&policy, &sent, None, |request| both(&model, &policy, request)).reason
        };
        assert_eq!(reason(Effect::Allow) == Reason::AllowedBy, allowed, "{value:?}");
        assert_eq!(reason(Effect::Deny) == Reason::DeniedBy, denied, "{value:?}");
    }
}

#[test]
fn until_the_body_is_read_nothing_is_allowed_that_depends_on_it() {
    for effect in [Effect::Allow, Effect::Deny] {
        let model = publish(effect);
        let policy = decoded(&model);
        let decision = with_request(&plain(), |request| both(&model, &policy, request));
        assert_eq!((decision.outcome, decision.reason), (Outcome::Deny, Reason::BodyUnread));
        assert!(decision.awaits_body);
        assert_eq!(with_request(&plain(), |request| wanted_fields(&policy, request)), [0]);
    }
}

#[test]
fn a_caller_that_reads_the_body_is_not_encoded() {
    let mut model = publish(Effect::Allow);
    let [topic, ..] = body_fields();
    model.rules[0].from[0].condition = Condition::Text(Operand::Body(topic), TextTest::Present);
    assert!(encode(&model).unwrap_err().to_string().contains("only operations read bodies"));
}
