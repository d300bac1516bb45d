use super::super::testing::{DAY, NOW, ORDERS, enforce, fleet, key, look, rule};
use super::*;

fn used(ledger: &Ledger, rule: &str) -> Option<Used> {
    ledger.read(|kept, _| kept.rules.get(rule).copied())
}

/// An earlier version wrote only that something did not count: it may have been a filter that says nothing of keys.
#[test]
fn who_did_not_count_before_this_was_told_apart_may_have_been_silent() {
    let read = |text: &str| serde_json::from_str::<Heard>(text).unwrap();
    assert_eq!(
        read(r#"{"counting": 5, "notCounting": 7}"#),
        Heard { counting: 5, not_counting: 7, silent: 7 }
    );
    let told = Heard { counting: 5, not_counting: 7, silent: 0 };
    assert_eq!(read(&serde_json::to_string(&told).unwrap()), told);
}

#[test]
fn what_was_written_down_is_known_after_a_restart() {
    let ledger = Ledger::default();
    enforce(&ledger, &["sales/a"], NOW);
    look(&ledger, &fleet(&[("pod-1", true)]), NOW, NOW);
    ledger.told(ORDERS, &rule("sales/a", 2, NOW), NOW);
    ledger.told(ORDERS, &key("gitlab", "k1", NOW), NOW);
    let kept = ledger.take_changed().unwrap();
    assert_eq!(ledger.take_changed(), None, "nothing new");
    let text = serde_json::to_string(&kept).unwrap();
    let again = Ledger::default();
    again.restore(serde_json::from_str(&text).unwrap());
    enforce(&again, &["sales/a"], NOW + 60);
    assert_eq!(again.take_changed(), Some(kept));
    // Filters tell all of it again, and it says the same.
    again.told(ORDERS, &rule("sales/a", 0, NOW), NOW + 60);
    assert_eq!(used(&again, "sales/a").unwrap(), Used { first_seen: NOW, last_used: NOW, count: 2, gone: 0 });
    // The time between was not heard.
    again.observe(&fleet(&[]), NOW + 3_600);
    assert_eq!(again.read(|kept, _| kept.away.clone()), [Away { from: NOW, until: NOW + 3_600 }]);
}

#[test]
fn a_filter_speaks_for_rules_of_its_own_workload_only_and_not_of_the_future() {
    let ledger = Ledger::default();
    let of = |rule: &str| Enforced {
        rules: vec![(rule.to_owned(), true)],
        is_covered: true,
        is_shadowed: false,
        issuers: vec![],
    };
    let workloads = [(ORDERS.to_owned(), of("sales/a")), ("sales/ledger".to_owned(), of("sales/b"))];
    ledger.enforced(workloads.into(), NOW);
    ledger.told(ORDERS, &rule("sales/b", 1, NOW), NOW);
    ledger.told("sales/unknown", &rule("sales/b", 1, NOW), NOW);
    ledger.told("sales/unknown", &key("gitlab", "k1", NOW), NOW);
    ledger.told(ORDERS, &rule("sales/invented", 1, NOW), NOW);
    assert_eq!(used(&ledger, "sales/b").unwrap().last_used, 0);
    assert_eq!(ledger.read(|kept, _| (kept.rules.len(), kept.keys.len())), (2, 0));
    ledger.told(ORDERS, &rule("sales/a", u64::MAX, i64::MAX), NOW + 5);
    ledger.told(ORDERS, &rule("sales/a", u64::MAX, -7), NOW + 6);
    assert_eq!(used(&ledger, "sales/a").unwrap().last_used, NOW + 5);
}

#[test]
fn a_filter_that_invents_keys_fills_only_its_own_room() {
    let ledger = Ledger::default();
    enforce(&ledger, &["sales/a"], NOW);
    for at in 0..2 * MAX_KEYS {
        ledger.told(ORDERS, &key("gitlab", &format!("k{at}"), NOW), NOW);
    }
    ledger.told(ORDERS, &key("gitlab", "k0", NOW + 1), NOW + 1);
    for unfit in ["\u{1b}[2J", &"x".repeat(MAX_KEY_ID_BYTES + 1)] {
        ledger.told(ORDERS, &key("google", unfit, NOW), NOW);
    }
    let (count, first, google) = ledger.read(|kept, _| {
        let of = &kept.keys[ORDERS];
        (of["gitlab"].len(), of["gitlab"]["k0"].last, of.contains_key("google"))
    });
    assert_eq!((count, first, google), (MAX_KEYS, NOW + 1, false));
    look(&ledger, &fleet(&[]), NOW + KEYS_FOR_S, NOW + KEYS_FOR_S);
    assert_eq!(
        ledger.read(|kept, _| kept.keys[ORDERS]["gitlab"].len()),
        1,
        "the others were not used for long"
    );
}

#[test]
fn a_rule_that_was_gone_only_for_a_moment_is_the_same() {
    let ledger = Ledger::default();
    enforce(&ledger, &["sales/a"], NOW);
    ledger.told(ORDERS, &rule("sales/a", 1, NOW), NOW);
    enforce(&ledger, &["sales/b"], NOW + 10);
    assert_eq!(used(&ledger, "sales/a").unwrap().gone, NOW + 10);
    enforce(&ledger, &["sales/a", "sales/b"], NOW + 20);
    assert_eq!(
        used(&ledger, "sales/a").unwrap(),
        Used { first_seen: NOW, last_used: NOW, count: 1, gone: 0 }
    );
    enforce(&ledger, &["sales/b"], NOW + 30);
    enforce(&ledger, &["sales/a", "sales/b"], NOW + DAY);
    assert_eq!(used(&ledger, "sales/a").unwrap().first_seen, NOW + DAY, "somebody wrote it anew");
    enforce(&ledger, &["sales/b"], NOW + DAY);
    enforce(&ledger, &["sales/b", "sales/c"], NOW + 32 * DAY);
    assert_eq!(used(&ledger, "sales/a"), None);
}

#[test]
fn rules_that_come_and_go_do_not_fill_the_memory() {
    let ledger = Ledger::default();
    for at in 0..20 {
        let names: Vec<String> = (0..1_000).map(|rule| format!("sales/{at:03}-{rule:04}")).collect();
        enforce(&ledger, &names.iter().map(String::as_str).collect::<Vec<_>>(), NOW + at);
    }
    let count = ledger.read(|kept, _| kept.rules.len());
    assert!((1_000..=MAX_GONE + 1_000).contains(&count), "{count}");
}

#[test]
fn of_very_many_times_that_nothing_was_heard_none_is_forgotten() {
    let ledger = Ledger::default();
    for at in 0..i64::try_from(MAX_AWAY).unwrap() + 20 {
        ledger.observe(&fleet(&[]), NOW + at * 1_000);
    }
    let away = ledger.read(|kept, _| kept.away.clone());
    assert_eq!(away.len(), MAX_AWAY);
    assert_eq!(away[0].from, NOW, "all of the oldest together");
    assert!(away.windows(2).all(|pair| pair[0].until <= pair[1].from), "{away:?}");
}
