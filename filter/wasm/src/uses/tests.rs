use tidegate_engine::encode;
use tidegate_engine::model::RuleModel;

use super::*;
use crate::testing::{NOW, model};

/// Rules of these names, in their order.
fn policy(names: &[&str]) -> PolicySet {
    let mut model = model();
    let rule = model.rules.remove(0);
    model.rules =
        names.iter().map(|name| RuleModel { id: (*name).to_owned(), ..(*rule).clone() }.into()).collect();
    PolicySet::decode(&encode(&model).unwrap()).unwrap()
}

fn told(uses: &mut Uses, policy: &PolicySet, now_ms: u64) -> Vec<(String, u64, i64)> {
    let told = uses.tell(Some(policy), now_ms).map(|told| told.rules).unwrap_or_default();
    told.into_iter().map(|one| (one.rule, one.count, one.last_used_at)).collect()
}

fn of(rule: &str, count: u64, last: i64) -> (String, u64, i64) {
    (rule.to_owned(), count, last)
}

#[test]
fn what_was_used_is_told_once_a_minute_and_all_of_it_to_who_is_new() {
    let policy = policy(&["sales/a", "sales/b", "sales/c"]);
    let mut uses = Uses::default();
    uses.replace(None, Some(&policy));
    uses.add(RuleIx(1), NOW);
    uses.add(RuleIx(1), NOW + 1);
    uses.add(RuleIx(99), NOW);
    uses.listened();
    assert_eq!(told(&mut uses, &policy, 0), [of("sales/b", 2, NOW + 1)]);
    uses.add(RuleIx(2), NOW + 2);
    assert_eq!(told(&mut uses, &policy, PERIOD_MS - 1), []);
    assert_eq!(told(&mut uses, &policy, PERIOD_MS), [of("sales/c", 1, NOW + 2)], "only what is new");
    assert_eq!(told(&mut uses, &policy, 2 * PERIOD_MS), []);
    // Nobody knows whether the last of it had arrived when the stream broke.
    uses.listened();
    let again = [of("sales/b", 0, NOW + 1), of("sales/c", 0, NOW + 2)];
    assert_eq!(told(&mut uses, &policy, 2 * PERIOD_MS + 1), again);
    assert_eq!(told(&mut uses, &policy, 3 * PERIOD_MS + 1), []);
}

#[test]
fn rules_that_stay_keep_what_was_counted_wherever_they_stand_now() {
    let before = policy(&["sales/a", "sales/b", "sales/d"]);
    let after = policy(&["sales/0", "sales/b", "sales/c", "sales/d", "sales/e"]);
    let mut uses = Uses::default();
    uses.replace(None, Some(&before));
    for rule in 0..3 {
        uses.add(RuleIx(rule), NOW + i64::from(rule));
    }
    uses.replace(Some(&before), Some(&after));
    assert_eq!(told(&mut uses, &after, 0), [of("sales/b", 1, NOW + 1), of("sales/d", 1, NOW + 2)]);
    uses.replace(Some(&after), None);
    assert_eq!(uses.rules, []);
}

#[test]
fn much_is_told_in_parts_and_every_part_once() {
    let names: Vec<String> = (0..500).map(|at| format!("sales/{at:05}")).collect();
    let policy = policy(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut uses = Uses::default();
    uses.replace(None, Some(&policy));
    for at in 0..names.len() {
        uses.add(RuleIx(u32::try_from(at).unwrap()), NOW);
    }
    uses.listened();
    let mut all = Vec::new();
    let mut begun = Vec::new();
    for now_ms in (0..PERIOD_MS).step_by(1_000) {
        let Some(told) = uses.tell(Some(&policy), now_ms) else { continue };
        let bytes: usize = told.rules.iter().map(prost::Message::encoded_len).sum();
        assert!(bytes < 2 * MOST_BYTES, "{bytes}");
        begun.push(told.begins);
        all.extend(told.rules.into_iter().map(|one| one.rule));
    }
    assert_eq!(all, names);
    assert!((4..=8).contains(&begun.len()), "one every {PART_MS} ms: {begun:?}");
    assert_eq!(begun.first(), Some(&Some(true)));
    assert!(begun.iter().skip(1).all(Option::is_none), "keys are told with the first: {begun:?}");
}

#[test]
fn counts_do_not_wrap() {
    let policy = policy(&["sales/a"]);
    let mut uses = Uses::default();
    uses.replace(None, Some(&policy));
    uses.rules[0].count = u32::MAX;
    uses.add(RuleIx(0), i64::MAX);
    assert_eq!(uses.rules[0], Use { count: u32::MAX, last: 0 });
}
