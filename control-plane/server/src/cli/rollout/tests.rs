use super::*;
use crate::cli::fleet::tests::{control, set, workload};
use crate::control::Pin;
use crate::rollout::RolloutReport;

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

fn held_back(workload: &str, state: RolloutState) -> RolloutReport {
    RolloutReport {
        workload: workload.into(),
        state,
        rules: 12,
        digest: "4be210c1aa4be210c1aa".into(),
        before: 11,
        before_digest: "00ff00ff00ff00ff00ff".into(),
        since: 1_799_999_900,
        canaries: ["p".to_owned(), "q".to_owned()].into(),
        proxies: 20,
        hold_s: 300,
        held_s: 120,
        requests: 340,
        new_refusals: 2,
        most_new_refusals: Some("1%".into()),
        min_requests: Some(100),
        why: None,
        by: None,
        at: None,
    }
}

#[test]
fn what_canaries_try_is_waited_for_and_what_was_given_up_is_not() {
    let all = [("p", Standing::Enforcing, "")];
    let with = |rollouts| ControlState { rollouts, ..control() };
    let tried = held_back("a/a", RolloutState::Canary);
    assert_eq!(progress(with(vec![tried.clone()]), &all, None), Progress::Canary);
    assert_eq!(progress(with(vec![tried.clone()]), &all, Some(D)), Progress::Canary);
    assert_eq!(progress(with(vec![tried.clone()]), &all, Some("other")), Progress::Pending);
    let refusing = [("p", Standing::Refusing, "")];
    assert_eq!(progress(with(vec![tried.clone()]), &refusing, None), Progress::RefusedByFilters);
    let aborted = RolloutReport {
        why: Some("the filter of `p` refuses the rules".into()),
        at: Some(1_799_999_940),
        ..held_back("a/a", RolloutState::Aborted)
    };
    assert_eq!(progress(with(vec![tried.clone(), aborted.clone()]), &all, None), Progress::Aborted);
    let elsewhere = vec![held_back("b/b", RolloutState::Canary), held_back("b/c", RolloutState::Aborted)];
    assert_eq!(
        progress(with(elsewhere), &all, None),
        Progress::Enforced,
        "of workloads that nobody asked for"
    );

    let told = |rollout: RolloutReport| {
        describe(&judge(with(vec![rollout]), fleet(&all), None), None, 1_800_000_000, Style::Plain)
            .replace("\n            ", " ")
    };
    let unchosen = RolloutReport { canaries: Default::default(), requests: 0, ..tried.clone() };
    for (rollout, line) in [
        (
            tried,
            "CANARY      a/a: rules 12 (4be210c1aa4be210) on 2 of 20 proxies, 3 min left, the others keep rules 11 (00ff00ff00ff00ff); 2 of 340 requests \
             are refused anew, at most 1% may be\n",
        ),
        (
            unchosen,
            "on 0 of 20 proxies, 3 min when a proxy is there, the others keep rules 11 (00ff00ff00ff00ff); no request was compared\n",
        ),
        (
            aborted,
            "ABORTED     a/a: rules 12 (4be210c1aa4be210) were given up 60 s ago, all proxies keep rules 11 (00ff00ff00ff00ff): the filter of `p` refuses \
             the rules; 2 of 340 requests are refused anew, at most 1% may be\n",
        ),
    ] {
        let told = told(rollout);
        assert!(told.contains(line), "{line}\n---\n{told}");
    }
}
