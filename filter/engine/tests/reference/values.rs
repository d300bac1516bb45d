//! What conditions on requests and on the time mean, told by example: the engine's answer, and the reference's.

use tidegate_engine::model::*;
use tidegate_engine::{Decision, Reason, decide, encode, reference};

use crate::examples::{closed, plain};
use crate::generate::Sent;
use crate::{decoded, with_request};

/// A rule of this effect with this condition on its operation, beside one that allows everything if it is a Deny.
fn with_condition(effect: Effect, condition: Condition) -> PolicyModel {
    let rule = |id: &str, effect, condition| RuleModel {
        id: id.to_owned(),
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
    let mut model = closed();
    model.rules.push(rule("sales/it", effect, condition).into());
    if effect == Effect::Deny {
        model.rules.push(rule("sales/rest", Effect::Allow, Condition::True).into());
    }
    model
}

fn both(model: &PolicyModel, sent: &Sent) -> Decision {
    let policy = decoded(model);
    let (engine, expected) =
        with_request(sent, |request| (decide(&policy, request), reference::decide(model, request)));
    assert_eq!(engine, expected, "{sent:?}");
    engine
}

/// Whether it holds: as an Allow and as a Deny see it.
fn truth(condition: &Condition, sent: &Sent) -> Option<bool> {
    let allowed = both(&with_condition(Effect::Allow, condition.clone()), sent).reason == Reason::AllowedBy;
    let denied = both(&with_condition(Effect::Deny, condition.clone()), sent).reason == Reason::DeniedBy;
    match (allowed, denied) {
        (true, true) => Some(true),
        (false, false) => Some(false),
        // It cannot be told: a Deny matches, an Allow does not.
        (false, true) => None,
        (true, false) => panic!("allowed and not denied: {condition:?} {sent:?}"),
    }
}

fn is(operand: Operand, text: &str) -> Condition {
    Condition::Text(operand, TextTest::OneOf(vec![text.to_owned()]))
}

#[test]
fn a_query_parameter_has_one_reading_or_none() {
    let alt = || Operand::Query("alt".into());
    let cases = [
        ("alt=media", Some(true)),
        ("alt=json", Some(false)),
        ("alt=", Some(false)),
        ("alt", Some(false)),
        ("", Some(false)),
        ("ALT=media", Some(false)),
        ("x=alt=media", Some(false)),
        ("&&alt=media&", Some(true)),
        ("%61l%74=m%65dia", Some(true)),
        ("alt=media&alt=media", None),
        ("alt=json&%61lt=media", None),
        ("alt=json;alt=media", None),
        ("x=1;2&alt=media", None),
        ("alt=media#", None),
        ("alt=m%zzdia", None),
        ("alt=%FF", None),
        ("alt=med+ia", None),
        ("%=1&alt=media", None),
        ("al%74=media%", None),
    ];
    for (query, expected) in cases {
        let sent = Sent { query: query.into(), ..plain() };
        assert_eq!(truth(&is(alt(), "media"), &sent), expected, "{query}");
        let not = Condition::Not(Box::new(is(alt(), "media")));
        assert_eq!(truth(&not, &sent), expected.map(|holds| !holds), "not, {query}");
    }
    // A value that cannot be read is there all the same; one that is there twice cannot be told.
    let present = Condition::Text(alt(), TextTest::Present);
    for (query, expected) in
        [("alt=%FF", Some(true)), ("alt", Some(true)), ("", Some(false)), ("alt&alt", None), ("a%", None)]
    {
        let sent = Sent { query: query.into(), ..plain() };
        assert_eq!(truth(&present, &sent), expected, "{query}");
    }
    let long = |length: usize| Sent { query: format!("alt=%6d{}", "a".repeat(length)), ..plain() };
    let prefix = Condition::Text(alt(), TextTest::Prefix("ma".into()));
    assert_eq!(truth(&prefix, &long(8189)), Some(true));
    assert_eq!(truth(&prefix, &long(8190)), None);
}

#[test]
fn a_header_has_one_reading_or_none() {
    let sent = |fields: &[(&str, &[u8])]| Sent {
        fields: fields.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect(),
        ..plain()
    };
    let env = || is(Operand::Header("x-env".into()), "prod");
    assert_eq!(truth(&env(), &sent(&[("x-env", b"prod")])), Some(true));
    assert_eq!(truth(&env(), &sent(&[("x-env", b"dev")])), Some(false));
    assert_eq!(truth(&env(), &sent(&[("x-other", b"prod")])), Some(false));
    assert_eq!(truth(&env(), &sent(&[("x-env", b"prod"), ("x-env", b"prod")])), None);
    // Servers that fold the other spelling see the header.
    assert_eq!(truth(&env(), &sent(&[("x_env", b"prod")])), None);
    assert_eq!(truth(&env(), &sent(&[("x-env", b"dev"), ("x_env", b"prod")])), None);
    assert_eq!(truth(&env(), &sent(&[("x-env", b"\xFF")])), None);
}

#[test]
fn comparisons_are_of_one_type() {
    let compare = |left, relation, right| Condition::Compare(left, relation, right);
    use Operand::{Boolean, Integer, Length, Method, Now, PeerNamespace, Plus, Port, Text};
    use Relation::{Equal, Less, LessOrEqual};
    let plus = |operand, more| Plus(Box::new(operand), more);
    let cases = [
        (compare(Now, Less, Integer(1001)), Some(true)),
        (compare(Now, Less, Integer(1000)), Some(false)),
        (compare(Now, LessOrEqual, Integer(1000)), Some(true)),
        (compare(plus(Now, 5), Equal, Integer(1005)), Some(true)),
        (compare(plus(Now, i64::MAX), Less, Integer(0)), None),
        (compare(Port, Equal, Integer(8080)), Some(true)),
        (compare(Method, Equal, Text("GET".into())), Some(true)),
        (compare(Method, Less, Text("POST".into())), None),
        (compare(Method, Equal, Integer(1)), None),
        (compare(Boolean(true), Equal, Boolean(true)), Some(true)),
        (compare(Boolean(false), LessOrEqual, Boolean(true)), None),
        (compare(PeerNamespace, Equal, Text("etl".into())), Some(false)),
        (compare(Length(Box::new(Text("\u{e9}\u{1F600}".into()))), Equal, Integer(2)), Some(true)),
        (compare(Length(Box::new(Port)), Equal, Integer(2)), None),
        (compare(Length(Box::new(PeerNamespace)), Less, Integer(2)), Some(false)),
    ];
    for (condition, expected) in cases {
        assert_eq!(truth(&condition, &plain()), expected, "{condition:?}");
    }
}

#[test]
fn windows_are_told_on_the_clock_of_their_zone() {
    // 2026-03-29, a Sunday: at 01:00 UTC clocks in Berlin go from 02:00 to 03:00.
    let switch = 1_774_746_000;
    let zone = Zone {
        name: "Europe/Berlin".into(),
        offsets: vec![
            Offset { since: switch - 86_400, seconds: 3600 },
            Offset { since: switch, seconds: 7200 },
        ],
        until: switch + 7 * 86_400,
    };
    let within = |days, from, to| {
        Condition::Within(Schedule { zone: zone.clone(), windows: vec![Window { days, from, to }] })
    };
    let sunday = 64;
    let cases = [
        (within(sunday, 60, 120), -1, Some(true)),
        (within(sunday, 120, 180), -1, Some(false)),
        (within(sunday, 120, 180), 0, Some(false)),
        (within(sunday, 180, 181), 0, Some(true)),
        (within(sunday, 180, 181), 59, Some(true)),
        (within(sunday, 180, 181), 60, Some(false)),
        (within(1, 0, 1440), 21 * 3600 - 1, Some(false)),
        (within(1, 0, 1440), 21 * 3600, Some(true)),
        (within(1, 0, 1440), 45 * 3600, Some(false)),
        (within(127, 0, 1440), -86_401, None),
        (within(127, 0, 1440), 7 * 86_400 - 1, Some(true)),
        (within(127, 0, 1440), 7 * 86_400, None),
    ];
    for (condition, after, expected) in cases {
        let sent = Sent { now: switch + after, ..plain() };
        assert_eq!(truth(&condition, &sent), expected, "{after}: {condition:?}");
    }
}

#[test]
fn an_operation_that_reads_a_claim_is_not_encoded() {
    let claim = Operand::Claim(ClaimRef { issuer: 0, slot: 0 });
    let mut model = with_condition(Effect::Allow, is(claim, "a"));
    model.issuers.push(IssuerModel { name: "a".into(), slots: vec![vec!["sub".into()]] });
    assert!(encode(&model).unwrap_err().to_string().contains("a token that the policy does not have"));
}
