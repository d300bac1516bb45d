use super::*;
use crate::cli::fleet::tests::{control, set, workload};
use crate::control::Pin;

const D: &str = "4be210c1aa";

fn fleet(proxies: &[(&str, Standing, &str)]) -> FleetReport {
    FleetReport { workloads: [("a/a".to_owned(), workload(proxies))].into() }
}

fn progress(control: ControlState, proxies: &[(&str, Standing, &str)], wanted: Option<&str>) -> Progress {
    judge(control, fleet(proxies), wanted).progress
}

#[test]
fn it_is_enforced_when_every_proxy_that_is_not_gone_enforces_what_is_on_offer() {
    use Standing::*;
    for (proxies, expected) in [
        (&[("p", Enforcing, ""), ("q", Gone, "")][..], Progress::Enforced),
        (&[("p", Enforcing, ""), ("q", Lagging, "")], Progress::Pending),
        (&[("p", Enforcing, ""), ("q", Silent, "")], Progress::Pending),
        (&[("p", Lagging, ""), ("q", Refusing, "")], Progress::RefusedByFilters),
        (&[], Progress::Enforced),
    ] {
        for wanted in [None, Some(D)] {
            assert_eq!(progress(control(), proxies, wanted), expected, "{proxies:?}");
        }
    }
}

#[test]
fn what_is_not_on_offer_is_not_enforced_whatever_filters_say() {
    let all = [("p", Standing::Enforcing, "")];
    assert_eq!(progress(control(), &all, Some("other")), Progress::Pending);
    let newer = || ControlState { accepted: Some(set(13, "77")), ..control() };
    assert_eq!(progress(newer(), &all, None), Progress::Pending, "accepted, and not on offer yet");
    assert_eq!(progress(ControlState { offered: None, ..control() }, &all, None), Progress::Pending);
    let broken = ControlState { up_to_date: false, errors: 1, ..control() };
    assert_eq!(progress(broken.clone(), &all, Some("other")), Progress::RulesRefused);
    assert_eq!(
        progress(broken, &all, Some(D)),
        Progress::Enforced,
        "that something newer is broken is another matter"
    );
}

#[test]
fn waiting_for_rules_while_others_are_pinned_is_of_no_use() {
    let pin = Pin { number: 12, digest: D.into(), reason: "x".into(), by: "me".into(), at: 0 };
    let pinned = || ControlState { pin: Some(pin.clone()), accepted: Some(set(13, "77")), ..control() };
    let all = [("p", Standing::Enforcing, "")];
    assert_eq!(progress(pinned(), &all, Some("77")), Progress::Pinned);
    assert_eq!(progress(pinned(), &all, Some(D)), Progress::Enforced);
    assert_eq!(progress(pinned(), &all, None), Progress::Enforced, "a rollback is a rollout");
}

#[test]
fn who_holds_it_up_is_told() {
    let proxies = [("p", Standing::Enforcing, ""), ("q", Standing::Lagging, "enforces revision 3 still")];
    let status = judge(control(), fleet(&proxies), Some("ffffffffff"));
    let told = describe(&status, Some("ffffffffff"), 1_800_000_000, Style::Plain);
    for line in [
        "  enforced  1 of 2 proxies",
        "  rules     those of --rules are ffffffff; on offer is 12 (4be210c1)",
        "  lagging   a/a q: enforces revision 3 still",
        "Not enforced everywhere yet.",
    ] {
        assert!(told.contains(line), "{line}\n---\n{told}");
    }
}
