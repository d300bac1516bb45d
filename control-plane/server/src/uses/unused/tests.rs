use super::super::ledger::Enforced;
use super::super::testing::{DAY, NOW, ORDERS, enforce, fleet, look, rule};
use super::*;

const COUNTING: [(&str, bool); 2] = [("pod-1", true), ("pod-2", true)];

fn report(ledger: &Ledger, vms: &[(&str, bool)], days: i64) -> UnusedReport {
    unused(ledger, &fleet(vms), &BTreeMap::new(), (NOW - days * DAY, NOW), true)
}

fn verdicts(report: &UnusedReport) -> Vec<(&str, Verdict)> {
    report.rules.iter().map(|rule| (rule.rule.as_str(), rule.verdict)).collect()
}

/// Two grants for so many days, with everything counted.
fn counted(days: i64) -> Ledger {
    let ledger = Ledger::default();
    enforce(&ledger, &["sales/a", "sales/b"], NOW - days * DAY);
    look(&ledger, &fleet(&COUNTING), NOW - days * DAY, NOW);
    ledger
}

#[test]
fn a_grant_is_unused_when_it_decided_nothing_in_all_of_the_time() {
    let ledger = counted(40);
    ledger.told(ORDERS, &rule("sales/a", 3, NOW - DAY), NOW);
    ledger.told(ORDERS, &rule("sales/a", 2, NOW - 2 * DAY), NOW);
    let found = report(&ledger, &COUNTING, 30);
    assert_eq!(verdicts(&found), [("sales/b", Verdict::Unused), ("sales/a", Verdict::Used)]);
    assert_eq!((found.used, found.rules[0].counted_since), (1, Some(NOW - 40 * DAY)));
    assert_eq!((found.rules[1].count, found.rules[1].last_used), (5, Some(NOW - DAY)));
    assert_eq!((found.rules[0].counting, found.rules[0].proxies), (2, 2));
    // Used, but not lately.
    let lately = unused(&ledger, &fleet(&COUNTING), &BTreeMap::new(), (NOW - 1000, NOW), false);
    assert_eq!(verdicts(&lately), [("sales/a", Verdict::Unused), ("sales/b", Verdict::Unused)]);
}

#[test]
fn nothing_is_said_of_a_time_that_was_not_counted() {
    let ledger = counted(10);
    assert_eq!(verdicts(&report(&ledger, &COUNTING, 30))[0].1, Verdict::TooEarly);
    assert_eq!(verdicts(&report(&ledger, &COUNTING, 9))[0].1, Verdict::Unused);
    // A rule that is newer than the counting.
    enforce(&ledger, &["sales/a", "sales/c"], NOW - DAY);
    let found = report(&ledger, &COUNTING, 9);
    assert_eq!(verdicts(&found), [("sales/a", Verdict::Unused), ("sales/c", Verdict::TooEarly)]);
    assert_eq!(found.rules[1].counted_since, Some(NOW - DAY));
}

#[test]
fn nothing_is_said_where_some_proxy_does_not_count_or_did_not() {
    let mixed = [("pod-1", true), ("pod-2", false)];
    let ledger = counted(40);
    let found = report(&ledger, &mixed, 30);
    assert_eq!(found.rules[0].verdict, Verdict::Unknown);
    assert!(found.rules[0].why[0].starts_with("1 of 2 proxies"), "{:?}", found.rules[0].why);
    assert_eq!(found.rules[0].counted_since, None);
    // One worker of a proxy that counts is not all of them.
    let half = [("pod-1", true), ("pod-1", false)];
    assert_eq!(report(&ledger, &half, 30).rules[0].verdict, Verdict::Unknown);
    // It was replaced meanwhile: what it decided is not known.
    let ledger = counted(40);
    ledger.observe(&fleet(&mixed), NOW - 3600);
    let found = report(&ledger, &COUNTING, 30);
    assert_eq!((found.rules[0].verdict, found.rules[0].counted_since), (Verdict::TooEarly, Some(NOW - 3600)));
    // A use is one, whoever else does not count.
    ledger.told(ORDERS, &rule("sales/a", 1, NOW), NOW);
    assert_eq!(verdicts(&report(&ledger, &mixed, 30)).last(), Some(&("sales/a", Verdict::Used)));
}

#[test]
fn nothing_is_said_where_no_proxy_ever_told() {
    let ledger = Ledger::default();
    enforce(&ledger, &["sales/a"], NOW - 40 * DAY);
    look(&ledger, &FleetReport::default(), NOW - 40 * DAY, NOW);
    let found = report(&ledger, &[], 30);
    assert_eq!(found.rules[0].verdict, Verdict::Unknown);
    assert!(found.rules[0].why[0].starts_with("no proxy"), "{:?}", found.rules[0].why);
    assert_eq!(report(&Ledger::default(), &[], 30).began, None);
}

#[test]
fn nothing_is_said_of_rules_that_nobody_asks_or_whose_verdict_nobody_tells() {
    for (is_covered, is_shadowed) in [(false, false), (true, true)] {
        let ledger = counted(40);
        let orders =
            Enforced { rules: vec![("sales/a".to_owned(), true)], is_covered, is_shadowed, issuers: vec![] };
        ledger.enforced([(ORDERS.to_owned(), orders)].into(), NOW - DAY);
        look(&ledger, &fleet(&COUNTING), NOW - DAY, NOW - DAY);
        let found = report(&ledger, &COUNTING, 30);
        assert_eq!(found.rules[0].verdict, Verdict::Unknown, "{:?}", found.rules[0]);
        // Nor of that time, once it is over.
        enforce(&ledger, &["sales/a"], NOW);
        assert_eq!(report(&ledger, &COUNTING, 30).rules[0].verdict, Verdict::TooEarly);
    }
}

#[test]
fn denies_and_rules_in_shadow_are_no_grants_and_begin_anew_when_they_become_one() {
    let ledger = Ledger::default();
    let orders = |is_grant| {
        let rules = vec![("sales/a".to_owned(), is_grant)];
        [(ORDERS.to_owned(), Enforced { rules, is_covered: true, is_shadowed: false, issuers: vec![] })]
            .into()
    };
    ledger.enforced(orders(false), NOW - 40 * DAY);
    look(&ledger, &fleet(&COUNTING), NOW - 40 * DAY, NOW);
    assert_eq!(report(&ledger, &COUNTING, 30).rules, []);
    ledger.enforced(orders(true), NOW - DAY);
    let found = report(&ledger, &COUNTING, 30);
    assert_eq!((found.rules[0].verdict, found.rules[0].first_seen), (Verdict::TooEarly, NOW - DAY));
}

#[test]
fn what_a_control_plane_did_not_hear_is_said_and_too_much_of_it_forbids_a_verdict() {
    let ledger = Ledger::default();
    enforce(&ledger, &["sales/a"], NOW - 40 * DAY);
    look(&ledger, &fleet(&COUNTING), NOW - 40 * DAY, NOW - 2 * DAY);
    look(&ledger, &fleet(&COUNTING), NOW - 2 * DAY + 1_200, NOW - DAY);
    let found = report(&ledger, &COUNTING, 30);
    assert_eq!(found.rules[0].verdict, Verdict::Unused);
    assert_eq!(found.away, [Away { from: NOW - 2 * DAY, until: NOW - 2 * DAY + 1_200 }]);
    look(&ledger, &fleet(&COUNTING), NOW - 3_600, NOW);
    let found = report(&ledger, &COUNTING, 30);
    assert_eq!((found.rules[0].verdict, found.away.len()), (Verdict::Unknown, 2));
    assert!(found.rules[0].why[0].contains("heard of no proxy"), "{:?}", found.rules[0].why);
}
