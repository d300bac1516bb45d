//! What was written before never changes what is written.

use proptest::prelude::*;
use proptest::sample::Index;
use tidegate_engine::model::*;
use tidegate_engine::{Encoder, encode};

use crate::{cases, crowded, policy, rule};

/// What happens to rules.
#[derive(Debug, Clone)]
enum Change {
    /// One says something else.
    Says(Index, Box<RuleModel>),
    /// It says the same as another one.
    Copies(Index, Index),
    Comes(Box<RuleModel>),
    /// With the name of one that there is.
    ComesTwice(Index),
    Goes(Index),
    /// Many go at once.
    Half(bool),
    /// They are told in another order.
    Turned(Index),
    /// It demands nothing of tokens any more.
    Plain(Index),
    Guard,
    /// Issuers have other names.
    Issuer(u8),
    /// The same again, elsewhere in memory.
    Moves(Index),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    let some = || prop_oneof![rule(), crowded::rule()].prop_map(Box::new);
    prop_oneof![
        4 => (at(), some()).prop_map(|(at, rule)| Change::Says(at, rule)),
        3 => (at(), at()).prop_map(|(at, of)| Change::Copies(at, of)),
        3 => some().prop_map(Change::Comes),
        1 => at().prop_map(Change::ComesTwice),
        3 => at().prop_map(Change::Goes),
        1 => any::<bool>().prop_map(Change::Half),
        1 => at().prop_map(Change::Turned),
        2 => at().prop_map(Change::Plain),
        1 => Just(Change::Guard),
        1 => (0u8..2).prop_map(Change::Issuer),
        1 => at().prop_map(Change::Moves),
    ]
}

fn apply(model: &mut PolicyModel, change: Change, number: usize) {
    let rules = &mut model.rules;
    match change {
        Change::Comes(rule) => {
            // In the middle of the others.
            rules.insert(
                rules.len() / 2,
                RuleModel { id: format!("sales/rule-{number:02}-new"), ..*rule }.into(),
            )
        }
        Change::Guard => model.guards.push(GuardModel {
            id: format!("sales/guard-{number}"),
            mode: Mode::Enforce,
            ports: Some(vec![443, 80]),
            audiences: Some(vec!["t1".into(), format!("https://{number}.example")]),
        }),
        Change::Issuer(number) => {
            model
                .issuers
                .iter_mut()
                .for_each(|issuer| issuer.name = format!("issuer-{number}-{}", issuer.name.len()));
        }
        Change::Half(first) => {
            let half = rules.len() / 2;
            let mut at = 0;
            rules.retain(|_| {
                at += 1;
                (at <= half) == first
            });
        }
        _ if rules.is_empty() => {}
        Change::Says(at, rule) => {
            let known = at.get_mut(rules);
            *known = RuleModel { id: known.id.clone(), ..*rule }.into();
        }
        Change::Copies(at, of) => {
            let of = of.get(rules).clone();
            let known = at.get_mut(rules);
            *known = RuleModel { id: known.id.clone(), ..(*of).clone() }.into();
        }
        Change::ComesTwice(at) => rules.push(at.get(rules).clone()),
        Change::Goes(at) => drop(rules.remove(at.index(rules.len()))),
        Change::Turned(at) => {
            let by = at.index(rules.len());
            rules.rotate_left(by);
        }
        Change::Plain(at) => {
            at.get_mut(rules).from.iter_mut().for_each(|from| from.condition = Condition::True)
        }
        Change::Moves(at) => {
            let known = at.get_mut(rules);
            *known = SharedRule::from((**known).clone());
        }
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_policy_is_written_alike_whatever_was_written_before(
        first in prop_oneof![policy(), crowded::policy()],
        changes in proptest::collection::vec(change(), 1..16),
    ) {
        let mut model = first;
        let mut encoder = Encoder::default();
        prop_assert_eq!(encoder.encode(&model), encode(&model));
        for (number, change) in changes.into_iter().enumerate() {
            let said = format!("{change:?}");
            apply(&mut model, change, number);
            prop_assert_eq!(encoder.encode(&model), encode(&model), "{}", said);
        }
    }
}

/// What was read once and is read no more takes nobody's place.
#[test]
fn fields_of_bodies_are_counted_of_the_policy_as_it_is() {
    let reads = |id: &str, fields: std::ops::Range<u32>| -> SharedRule {
        let read = fields.map(|field| Operand::Body(BodyField::Protobuf(vec![field])));
        let condition = Condition::Any(read.map(|read| Condition::Text(read, TextTest::Present)).collect());
        rule_of(id, vec![OperationModel { condition, ..OperationModel::default() }]).into()
    };
    let rules = vec![reads("a/a", 1..2), reads("a/b", 1..2)];
    let mut model = PolicyModel { rules, ..PolicyModel::default() };
    let mut encoder = Encoder::default();
    for step in 0..8 {
        model.rules[1] = reads("a/b", 500 * step + 1..500 * step + 501);
        let written = encoder.encode(&model);
        assert!(written.is_ok(), "{step}: {written:?}");
        assert_eq!(written, encode(&model), "{step}");
    }
    // Of too many there is nothing, again and again, and what comes then is as good as new.
    let good = model.clone();
    model.rules[1] = reads("a/b", 1..1_100);
    for _ in 0..2 {
        assert_eq!(encoder.encode(&model), encode(&model));
        assert!(encoder.encode(&model).is_err_and(|error| error.to_string().contains("too many fields")));
        assert_eq!(encoder.encode(&good), encode(&good));
    }
}

fn rule_of(id: &str, to: Vec<OperationModel>) -> RuleModel {
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
        from: vec![FromModel { peer: PeerModel::Anyone, issuers: vec![], condition: Condition::True }],
        to: Some(to),
    }
}
