//! Directories: what is degraded, and which id is missing.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::TestRunner;
use tidegate_engine::body::FieldValue;
use tidegate_engine::directory::{DirectoryModel, encode_directories};
use tidegate_engine::model::*;
use tidegate_engine::{
    Body, ClaimValue, Decision, Directories, Outcome, Reason, Request, Unlisted, VerifiedToken, decide,
    reference, unlisted,
};

use crate::examples::{closed, plain};
use crate::generate::{Sent, TEXTS, Token};
use crate::{cases, decoded, with_directories};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// When requests come, and so the second after which a directory of this age is stale.
const NOW: i64 = 1000;

fn listed_or_not() -> impl Strategy<Value = Test> {
    prop_oneof![
        3 => (0u16..3).prop_map(Test::Listed),
        3 => (0u16..3).prop_map(Test::ListedOrStale),
        1 => select(&TEXTS[..]).prop_map(|text| Test::OneOf(vec![text.to_owned()])),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    let leaf = (0u16..2, listed_or_not())
        .prop_map(|(slot, test)| Condition::Claim(ClaimRef { issuer: 0, slot }, test));
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            3 => proptest::collection::vec(inner.clone(), 0..3).prop_map(Condition::All),
            2 => proptest::collection::vec(inner.clone(), 0..3).prop_map(Condition::Any),
            1 => inner.prop_map(|inner| Condition::Not(Box::new(inner))),
        ]
    })
}

fn rules(effect: impl Strategy<Value = Effect> + Clone) -> impl Strategy<Value = Vec<RuleModel>> {
    let from =
        condition().prop_map(|condition| FromModel { peer: PeerModel::Anyone, issuers: vec![0], condition });
    let methods = || subsequence(&["GET", "POST"][..], 1..=2);
    let operation = methods().prop_map(|methods| OperationModel {
        methods: Some(methods.into_iter().map(str::to_owned).collect()),
        ..OperationModel::default()
    });
    let rule = (
        effect,
        prop_oneof![4 => Just(Mode::Enforce), 1 => Just(Mode::Shadow)],
        proptest::collection::vec(from, 1..3),
        proptest::option::of(proptest::collection::vec(operation, 1..3)),
    )
        .prop_map(|(effect, mode, from, to)| RuleModel {
            effect,
            mode,
            from,
            to,
            ..allow("", Condition::True)
        });
    proptest::collection::vec(rule, 0..5).prop_map(|mut rules| {
        for (position, rule) in rules.iter_mut().enumerate() {
            rule.id = format!("sales/rule-{position}");
        }
        rules
    })
}

fn known_directories() -> impl Strategy<Value = Vec<DirectoryModel>> {
    let one = (subsequence(&TEXTS[..], 0..3), select(vec![NOW - 1, NOW, NOW + 1000]));
    proptest::collection::vec(proptest::option::weighted(0.8, one), 3).prop_map(|all| {
        NAMES
            .iter()
            .zip(all)
            .filter_map(|(name, one)| Some((name, one?)))
            .map(|(name, (ids, fresh_until))| directory(name, &ids, fresh_until))
            .collect()
    })
}

fn caller() -> impl Strategy<Value = Sent> {
    let claim = prop_oneof![
        8 => select(&TEXTS[..]).prop_map(|text| ClaimValue::String(text.to_owned())),
        1 => Just(ClaimValue::Absent),
        1 => Just(ClaimValue::Unknown),
        1 => Just(ClaimValue::Integer(4711)),
    ];
    proptest::collection::vec(claim, 2).prop_map(with_claims)
}

fn with_claims(slots: Vec<ClaimValue>) -> Sent {
    let token = VerifiedToken { audiences: vec!["orders.example".into()], expires_at: NOW + 1000, slots };
    Sent { tokens: vec![Token::Verified(token)], ..plain() }
}

fn directory(name: &str, ids: &[&str], fresh_until: i64) -> DirectoryModel {
    DirectoryModel {
        name: name.to_owned(),
        ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        fresh_until,
    }
}

fn allow(id: &str, condition: Condition) -> RuleModel {
    RuleModel {
        id: id.to_owned(),
        effect: Effect::Allow,
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

fn with_rules(rules: Vec<RuleModel>) -> PolicyModel {
    PolicyModel {
        issuers: vec![IssuerModel { name: "a".into(), slots: vec![vec!["x".into()], vec!["y".into()]] }],
        directories: NAMES.iter().map(|name| (*name).to_owned()).collect(),
        rules: rules.into_iter().map(Into::into).collect(),
        ..closed()
    }
}

fn all_effects() -> impl Strategy<Value = Effect> + Clone {
    prop_oneof![4 => Just(Effect::Allow), 1 => Just(Effect::Deny)]
}

fn decoded_directories(models: &[DirectoryModel]) -> Directories {
    Directories::decode(&encode_directories(models)).expect("directories decode")
}

fn decision(model: &PolicyModel, directories: &[DirectoryModel], sent: &Sent) -> Decision {
    let policy = decoded(model);
    with_directories(&decoded_directories(directories), sent, |request| decide(&policy, request))
}

/// Directory and id.
fn missing(model: &PolicyModel, directories: &[DirectoryModel], sent: &Sent) -> Option<(String, String)> {
    let policy = decoded(model);
    with_directories(&decoded_directories(directories), sent, |request| {
        unlisted(&policy, request).map(|Unlisted { directory, id }| (directory.to_owned(), id.to_owned()))
    })
}

/// The directories with one more id, and the directory that has it fresh.
fn listing(directories: &[DirectoryModel], name: &str, id: &str) -> Vec<DirectoryModel> {
    let mut directories = directories.to_vec();
    match directories.iter_mut().find(|directory| directory.name == name) {
        Some(directory) => {
            directory.ids.push(id.to_owned());
            directory.fresh_until = directory.fresh_until.max(NOW);
        }
        None => directories.push(directory(name, &[id], NOW)),
    }
    directories
}

/// Every `ListedOrStale` as `Listed`.
fn strict(model: &PolicyModel) -> PolicyModel {
    fn condition(from: &Condition) -> Condition {
        match from {
            Condition::True => Condition::True,
            Condition::All(parts) => Condition::All(parts.iter().map(condition).collect()),
            Condition::Any(parts) => Condition::Any(parts.iter().map(condition).collect()),
            Condition::Not(part) => Condition::Not(Box::new(condition(part))),
            Condition::Claim(claim, Test::ListedOrStale(directory)) => {
                Condition::Claim(*claim, Test::Listed(*directory))
            }
            other => other.clone(),
        }
    }
    let mut model = model.clone();
    for from in model.rules.iter_mut().flat_map(|rule| &mut rule.from) {
        from.condition = condition(&from.condition);
    }
    model
}

#[test]
fn the_engine_degrades_and_misses_ids_as_the_reference_does() {
    let (degraded, missed, of_later_rules) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let inputs = (
        rules(all_effects()).prop_map(with_rules),
        known_directories(),
        proptest::collection::vec(caller(), 1..6),
    );
    TestRunner::new(cases())
        .run(&inputs, |(model, directories, all)| {
            let policy = decoded(&model);
            let directories = decoded_directories(&directories);
            for sent in &all {
                let (engine, expected) = with_directories(&directories, sent, |request| {
                    prop_assert_eq!(unlisted(&policy, request), reference::unlisted(&model, request));
                    missed.set(missed.get() + usize::from(unlisted(&policy, request).is_some()));
                    Ok((decide(&policy, request), reference::decide(&model, request)))
                })?;
                prop_assert_eq!(engine, expected, "request {:?}", sent);
                degraded.set(degraded.get() + usize::from(engine.degraded));
                of_later_rules.set(
                    of_later_rules.get()
                        + usize::from(engine.degraded && engine.rule.is_some_and(|ix| ix.0 > 0)),
                );
            }
            Ok(())
        })
        .unwrap();
    println!(
        "{} decisions degraded, {} of later rules; {} ids missed",
        degraded.get(),
        of_later_rules.get(),
        missed.get()
    );
    assert!(degraded.get() > 0 && missed.get() > 0 && of_later_rules.get() > 0, "the cases test something");
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn fresh_directories_degrade_nothing(
        model in rules(all_effects()).prop_map(with_rules),
        ids in proptest::collection::vec(subsequence(&TEXTS[..], 0..3), 3),
        sent in caller(),
    ) {
        let fresh: Vec<DirectoryModel> =
            NAMES.iter().zip(&ids).map(|(name, ids)| directory(name, ids, NOW)).collect();
        let lenient = decision(&model, &fresh, &sent);
        prop_assert!(!lenient.degraded);
        prop_assert_eq!(lenient, decision(&strict(&model), &fresh, &sent));
    }

    #[test]
    fn a_degraded_decision_is_an_allow_of_a_rule_that_fails_when_taken_strictly(
        model in rules(Just(Effect::Allow)).prop_map(with_rules),
        directories in known_directories(),
        sent in caller(),
    ) {
        let lenient = decision(&model, &directories, &sent);
        if let Some(rule) = lenient.rule {
            let mut alone = strict(&model);
            let mut rules = std::mem::take(&mut alone.rules);
            rules.retain(|one| one.id == model.rules[usize::try_from(rule.0).unwrap()].id);
            alone.rules = rules;
            let strictly = decision(&alone, &directories, &sent);
            prop_assert_eq!(lenient.degraded, strictly.outcome == Outcome::Deny);
        } else {
            prop_assert!(!lenient.degraded);
        }
    }

    /// Where each test appears in one form only: a directory that becomes fresh may end what was degraded.
    #[test]
    fn a_missing_id_is_allowed_once_it_is_listed(
        model in rules(all_effects()).prop_map(with_rules).prop_map(|model| strict(&model)),
        directories in known_directories(),
        sent in caller(),
    ) {
        if let Some((name, id)) = missing(&model, &directories, &sent) {
            prop_assert_eq!(decision(&model, &directories, &sent).reason, Reason::NoAllowMatched);
            let listed = listing(&directories, &name, &id);
            prop_assert_eq!(decision(&model, &listed, &sent).reason, Reason::AllowedBy);
            prop_assert_eq!(missing(&model, &listed, &sent), None);
        }
    }

    #[test]
    fn an_id_that_would_help_is_never_overlooked(
        model in rules(Just(Effect::Allow)).prop_map(with_rules),
        ids in proptest::collection::vec(subsequence(&TEXTS[..], 0..3), 3),
        sent in caller(),
    ) {
        let fresh: Vec<DirectoryModel> =
            NAMES.iter().zip(&ids).map(|(name, ids)| directory(name, ids, NOW)).collect();
        let refused = decision(&model, &fresh, &sent).reason == Reason::NoAllowMatched;
        let helps = NAMES.iter().any(|name| {
            TEXTS.iter().any(|id| decision(&model, &listing(&fresh, name, id), &sent).outcome == Outcome::Allow)
        });
        prop_assert_eq!(missing(&model, &fresh, &sent).is_some(), refused && helps);
    }
}

fn claim(slot: u16, test: Test) -> Condition {
    Condition::Claim(ClaimRef { issuer: 0, slot }, test)
}

fn texts(all: [&str; 2]) -> Sent {
    with_claims(all.into_iter().map(|text| ClaimValue::String(text.to_owned())).collect())
}

#[test]
fn a_stale_directory_refuses_unless_the_rule_does_without_it() {
    let account = || claim(1, Test::OneOf(vec!["worker".into()]));
    let model = |test| with_rules(vec![allow("sales/one", Condition::All(vec![account(), claim(0, test)]))]);
    let (demanding, lenient) = (model(Test::Listed(0)), model(Test::ListedOrStale(0)));
    let fresh = [directory("a", &["7"], NOW)];
    let stale = [directory("a", &["7"], NOW - 1)];
    let listed = texts(["7", "worker"]);
    let outcome = |model: &PolicyModel, directories: &[DirectoryModel], sent: &Sent| {
        let decision = decision(model, directories, sent);
        (decision.outcome, decision.degraded)
    };
    for (directories, demanded, done_without) in [
        (&fresh[..], (Outcome::Allow, false), (Outcome::Allow, false)),
        (&stale[..], (Outcome::Deny, false), (Outcome::Allow, true)),
        (&[][..], (Outcome::Deny, false), (Outcome::Allow, true)),
    ] {
        assert_eq!(outcome(&demanding, directories, &listed), demanded, "{directories:?}");
        assert_eq!(outcome(&lenient, directories, &listed), done_without, "{directories:?}");
    }
    // A fresh "no" is a no, and a stale directory replaces neither the account nor the claim that it would list.
    assert_eq!(outcome(&lenient, &fresh, &texts(["8", "worker"])), (Outcome::Deny, false));
    assert_eq!(outcome(&lenient, &stale, &texts(["7", "other"])), (Outcome::Deny, false));
    let unknown = |claim| with_claims(vec![claim, ClaimValue::String("worker".into())]);
    for claim in [ClaimValue::Absent, ClaimValue::Unknown, ClaimValue::Integer(7)] {
        assert_eq!(outcome(&lenient, &stale, &unknown(claim)), (Outcome::Deny, false));
    }
}

#[test]
fn a_rule_that_allows_without_the_directory_is_not_degraded() {
    let model = with_rules(vec![allow(
        "sales/either",
        Condition::Any(vec![claim(0, Test::ListedOrStale(0)), claim(1, Test::OneOf(vec!["worker".into()]))]),
    )]);
    assert!(!decision(&model, &[], &texts(["7", "worker"])).degraded);
    assert!(decision(&model, &[], &texts(["7", "other"])).degraded);
}

#[test]
fn a_guard_in_shadow_mode_degrades_nothing() {
    let mut model = with_rules(vec![allow("sales/one", claim(0, Test::ListedOrStale(0)))]);
    assert!(decision(&model, &[], &texts(["7", ""])).degraded);
    model.guards[0].mode = Mode::Shadow;
    assert!(!decision(&model, &[], &texts(["7", ""])).degraded);
}

#[test]
fn only_the_id_may_be_missing() {
    let worker = || claim(1, Test::OneOf(vec!["worker".into()]));
    let one = |condition| with_rules(vec![allow("sales/one", condition)]);
    let model = one(Condition::All(vec![worker(), claim(0, Test::Listed(0))]));
    let fresh = [directory("a", &["7"], NOW)];
    let answer = |id: &str| Some(("a".to_owned(), id.to_owned()));
    assert_eq!(missing(&model, &fresh, &texts(["8", "worker"])), answer("8"));
    assert_eq!(
        missing(&model, &[directory("a", &["7"], NOW - 1)], &texts(["7", "worker"])),
        answer("7"),
        "stale"
    );
    assert_eq!(missing(&model, &fresh, &texts(["7", "worker"])), None, "it is allowed");
    assert_eq!(missing(&model, &fresh, &texts(["8", "other"])), None, "the account is wrong as well");
    let elsewhere = Sent { path: "/a/../b".into(), ..texts(["8", "worker"]) };
    assert_eq!(missing(&model, &fresh, &elsewhere), None, "the path is ambiguous");
    let absent = with_claims(vec![ClaimValue::Absent, ClaimValue::String("worker".into())]);
    assert_eq!(missing(&model, &fresh, &absent), None, "there is no id");
    // Two ids are more than one question.
    let two = one(Condition::All(vec![claim(0, Test::Listed(0)), claim(1, Test::Listed(1))]));
    assert_eq!(missing(&two, &[], &texts(["8", "9"])), None);
    // Whoever may not be listed needs no answer.
    let not = one(Condition::Not(Box::new(claim(0, Test::Listed(0)))));
    assert_eq!(missing(&not, &[directory("a", &["7"], NOW)], &texts(["7", ""])), None);
}

/// What the body says is seen when it has been read, which is only begun for a request that may be allowed.
#[test]
fn an_id_is_missing_whatever_the_body_will_say() {
    let field = BodyField::Protobuf(vec![1]);
    let topic = Condition::Text(Operand::Body(field.clone()), TextTest::Prefix("orders-".into()));
    let mut rule = allow("sales/one", claim(0, Test::Listed(0)));
    rule.to = Some(vec![OperationModel { condition: topic.clone(), ..OperationModel::default() }]);
    let mut model = with_rules(vec![rule.clone()]);
    let (fresh, worker) = ([directory("a", &["7"], NOW)], texts(["8", ""]));
    assert_eq!(missing(&model, &fresh, &worker), Some(("a".to_owned(), "8".to_owned())));
    assert_eq!(decision(&model, &listing(&fresh, "a", "8"), &worker).reason, Reason::BodyUnread);
    // Once it has been read it counts as it is.
    let policy = decoded(&model);
    let directories = decoded_directories(&fresh);
    for (value, lacks) in [("orders-1", true), ("billing", false)] {
        let values = [FieldValue::Texts(vec![value.to_owned()])];
        let body = Body::Read { fields: policy.body_fields(), values: &values };
        with_directories(&directories, &worker, |request| {
            let request = Request { body, ..*request };
            assert_eq!(unlisted(&policy, &request).is_some(), lacks, "{value}");
            assert_eq!(unlisted(&policy, &request), reference::unlisted(&model, &request));
        });
    }
    // A Deny may match with a body, and then again it may not.
    model.rules.push(RuleModel { id: "sales/two".into(), effect: Effect::Deny, ..rule }.into());
    assert!(missing(&model, &fresh, &worker).is_some());
    model.rules[1].to = None;
    assert_eq!(missing(&model, &fresh, &worker), None);
}

#[test]
fn nothing_is_missing_where_being_listed_would_deny() {
    let mut model = with_rules(vec![allow("sales/one", claim(0, Test::Listed(0)))]);
    let fresh = [directory("a", &[], NOW)];
    assert!(missing(&model, &fresh, &texts(["8", ""])).is_some());
    model
        .rules
        .push(RuleModel { effect: Effect::Deny, ..allow("sales/two", claim(0, Test::Listed(0))) }.into());
    assert_eq!(missing(&model, &fresh, &texts(["8", ""])), None);
}

#[test]
fn rules_that_only_observe_miss_nothing() {
    let mut model = with_rules(vec![allow("sales/one", claim(0, Test::Listed(0)))]);
    assert!(missing(&model, &[], &texts(["8", ""])).is_some());
    model.rules[0].mode = Mode::Shadow;
    assert_eq!(missing(&model, &[], &texts(["8", ""])), None);
}

#[test]
fn the_first_rule_says_which_id_is_missing() {
    let rule = |id, slot, directory| allow(id, claim(slot, Test::Listed(directory)));
    let model = with_rules(vec![rule("sales/b", 0, 0), rule("sales/a", 1, 2)]);
    assert_eq!(missing(&model, &[], &texts(["8", "9"])), Some(("c".to_owned(), "9".to_owned())));
    let either =
        Condition::Any(vec![claim(1, Test::Listed(1)), claim(0, Test::Listed(2)), claim(0, Test::Listed(1))]);
    let model = with_rules(vec![allow("sales/a", either)]);
    assert_eq!(missing(&model, &[], &texts(["8", "9"])), Some(("b".to_owned(), "8".to_owned())));
}
