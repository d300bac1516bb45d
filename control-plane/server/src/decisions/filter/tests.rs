use super::super::record::{GapCause, Operation, RuleRef};
use super::super::testing::recorded;
use super::*;

fn full() -> Recorded {
    let mut one = recorded("7Q4K-M2XD-0001", Outcome::Deny, 1_000_000);
    one.rule = Some(RuleRef { name: "sales/a".into(), source: None });
    one.operation = Some(Operation {
        service: "pubsub".into(),
        method: "publish".into(),
        action: "write".into(),
        permissions: vec![],
    });
    one.resource = Some("projects/acme/topics/orders".into());
    one.trace_id = Some("ab".repeat(16));
    one
}

fn filters() -> Vec<Filter> {
    let base = Filter::default;
    let text = |text: &str| Some(text.to_owned());
    vec![
        Filter { id: text("7q4k-m2xd-ooo1"), ..base() }.normalized(),
        Filter { denied: true, ..base() },
        Filter { identity: text("etl/orders-worker"), ..base() },
        Filter { identity: text("spiffe://prod.example/ns/etl/sa/orders-worker"), ..base() },
        Filter { identity: text("gitlab:project_path=acme/etl"), ..base() },
        Filter { identity: text("acme/etl"), ..base() },
        Filter { from: text("etl"), ..base() },
        Filter { from: text("etl/orders-worker"), ..base() },
        Filter { run: text("91"), ..base() },
        Filter { resource: text("projects/acme/topics/orders"), ..base() },
        Filter { resource: text("projects/acme/*"), ..base() },
        Filter { resource: text("https://orders.sales.example/v1/*"), ..base() },
        Filter { workload: text("sales/orders"), ..base() },
        Filter { rule: text("sales/a"), ..base() },
        Filter { reason: text("no_allow_matched"), ..base() },
        Filter { trace: text(&"AB".repeat(16)), ..base() }.normalized(),
        Filter { since: Some(Moment(1_000_000)), until: Some(Moment(1_000_001)), ..base() },
    ]
}

#[test]
fn every_filter_takes_what_it_is_about_and_its_terms_are_in_the_index() {
    let entry = Entry::Decision(full().into());
    let rare: BTreeSet<Term> = rare_terms(&entry).collect();
    let index: BTreeSet<Term> = terms(&entry).union(&rare).copied().collect();
    for filter in filters() {
        assert!(filter.rare_terms().is_subset(&rare), "{filter:?}");
        assert!(filter.rare_terms().is_subset(&filter.terms()), "{filter:?}");
        assert!(filter.takes(&entry), "{filter:?}");
        assert!(filter.terms().is_subset(&index), "{filter:?}");
    }
}

#[test]
fn no_filter_takes_something_else() {
    let mut other = recorded("0000-0000-0000", Outcome::Allow, 5);
    other.peer = Some("spiffe://prod.example/ns/web/sa/shop".into());
    other.identities = other.peer.iter().cloned().collect();
    other.run = None;
    other.host = "other.example".into();
    other.workload = "sales/other".into();
    other.reason = "allowed_by_rule".into();
    let entry = Entry::Decision(other.into());
    for filter in filters() {
        assert!(!filter.takes(&entry), "{filter:?}");
    }
    assert!(Filter::default().takes(&entry));
    assert!(!Filter { differing: true, ..Filter::default() }.takes(&entry));
}

#[test]
fn gaps_are_shown_where_what_is_asked_for_may_be_missing() {
    let gap = Entry::Gap(Gap {
        time: Moment(10),
        workload: "sales/orders".into(),
        instance: String::new(),
        cause: GapCause::FilterDropped,
        lost: Some(1),
        lost_in_full: 0,
    });
    let of = |workload: &str| Filter { workload: Some(workload.into()), ..Filter::default() };
    assert!(Filter { denied: true, ..of("sales/orders") }.takes(&gap));
    assert!(!of("sales/other").takes(&gap));
    assert!(!Filter { since: Some(Moment(11)), ..Filter::default() }.takes(&gap));
    assert!(!Filter { id: Some("7Q4K-M2XD-0001".into()), ..Filter::default() }.takes(&gap));
}
