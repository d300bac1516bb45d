use std::collections::BTreeMap;

use super::*;
use crate::bundle::Revision;
use crate::control::{Broken, Pin, Revocation, Suspension, Target};
use crate::push::ProxyReport;

const NOW: i64 = 1_800_000_000;

pub(in crate::cli) fn set(number: u64, digest: &str) -> RuleSet {
    RuleSet { number, digest: digest.to_owned(), at: NOW - 180, files: 2, bytes: 100 }
}

pub(in crate::cli) fn control() -> ControlState {
    ControlState {
        offered: Some(set(12, "4be210c1aa")),
        accepted: Some(set(12, "4be210c1aa")),
        up_to_date: true,
        errors: 0,
        pin: None,
        revocations: Vec::new(),
        broken: Vec::new(),
        suspensions: Vec::new(),
        history: Vec::new(),
        rollouts: Vec::new(),
    }
}

pub(in crate::cli) fn workload(proxies: &[(&str, Standing, &str)]) -> WorkloadReport {
    let proxies = proxies.iter().map(|(instance, standing, detail)| ProxyReport {
        instance: (*instance).to_owned(),
        canary: false,
        standing: *standing,
        vms: 3,
        enforcing: if *standing == Standing::Enforcing { 3 } else { 1 },
        seen_at: NOW - 4,
        detail: (*detail).to_owned(),
    });
    WorkloadReport {
        manifest: Some("9f3c1e00ffff".into()),
        revision: Some(Revision { epoch: 1, counter: 418 }),
        proxies: proxies.collect(),
        ..Default::default()
    }
}

fn fleet() -> FleetReport {
    let orders = workload(&[
        ("orders-1", Standing::Enforcing, ""),
        ("orders-2", Standing::Lagging, "enforces revision 417 still"),
        ("orders-3", Standing::Refusing, "refused revision 418: bad_signature"),
        ("orders-4", Standing::Silent, "its stream ended"),
        ("orders-5", Standing::Gone, "its stream ended"),
    ]);
    let ledger = workload(&[("ledger-1", Standing::Enforcing, "")]);
    let workloads = [("sales/orders", orders), ("sales/ledger", ledger), ("sales/idle", workload(&[]))];
    FleetReport { workloads: workloads.into_iter().map(|(name, one)| (name.to_owned(), one)).collect() }
}

#[test]
fn what_is_not_enforced_is_told_and_what_is_enforced_is_counted() {
    let told = describe(&fleet(), &control(), false, NOW, Style::Plain);
    for line in [
        "rules 12 (4be210c1), accepted 3 min ago, on offer",
        "WORKLOAD      ENFORCING  REVISION  DIGEST    STATE",
        "sales/idle    -          418       9f3c1e00  no filter connected",
        "sales/ledger  1 of 1     418       9f3c1e00  enforced",
        "sales/orders  1 of 4     418       9f3c1e00  1 refusing, 1 lagging, 1 silent, 1 gone",
        "  lagging   orders-2  1 of 3 VMs, heard of 4 s ago; enforces revision 417 still",
        "  refusing  orders-3  1 of 3 VMs, heard of 4 s ago; refused revision 418: bad_signature",
        "  silent    orders-4  1 of 3 VMs, heard of 4 s ago; its stream ended",
        "Enforced on 2 of 5 proxies.",
    ] {
        assert!(told.contains(&format!("{line}\n")), "{line}\n---\n{told}");
    }
    for absent in ["orders-1", "orders-5", "ledger-1", "PINNED", "SUSPENDED", "refused     what"] {
        assert!(!told.contains(absent), "{absent}: {told}");
    }
    assert!(describe(&fleet(), &control(), true, NOW, Style::Plain).contains("enforcing ledger-1"));
}

#[test]
fn what_was_done_to_what_is_in_force_comes_first() {
    let who = || "spiffe://td/ns/ops/sa/oncall".to_owned();
    let state = ControlState {
        accepted: Some(set(13, "77aa77aa77")),
        up_to_date: false,
        errors: 2,
        pin: Some(Pin {
            number: 12,
            digest: "4be210c1aa".into(),
            reason: "month-end".into(),
            by: who(),
            at: NOW - 600,
        }),
        revocations: vec![Revocation {
            id: "r-1".into(),
            target: Target::Key { issuer: "gitlab".into(), id: "k\u{1b}[2J".into() },
            reason: "leaked".into(),
            by: who(),
            at: NOW,
            until: NOW + 3_600 * 24,
            frozen: None,
        }],
        broken: vec![Broken { id: "r-1".into(), why: "no such thing".into(), in_force: false }],
        suspensions: vec![Suspension {
            id: "s-2".into(),
            workload: "sales/orders".into(),
            reason: "close".into(),
            ticket: "INC-42".into(),
            by: who(),
            at: NOW,
            until: NOW + 1_800,
        }],
        ..control()
    };
    let told = describe(&fleet(), &state, false, NOW, Style::Plain).replace("\n            ", " ");
    for part in [
        "what is there now has 2 errors",
        "PINNED      to rules 12 (4be210c1) for 10 min: month-end (by spiffe://td/ns/ops/sa/oncall); 13 (77aa77aa) are accepted",
        "SUSPENDED   sales/orders for another 30 min: close, INC-42",
        "NOT REVOKED key k\\u{1b}[2J of gitlab for another 24 h: leaked",
        "no such thing",
    ] {
        assert!(told.contains(part), "{part}\n---\n{told}");
    }
    let mut waiting = state.clone();
    waiting.broken[0] = Broken { id: "r-1".into(), why: "rules 12 stay".into(), in_force: true };
    let told = describe(&fleet(), &waiting, false, NOW, Style::Plain).replace("\n            ", " ");
    assert!(
        told.contains("HOLDS BACK  key k\\u{1b}[2J of gitlab") && told.contains("rules 12 stay"),
        "{told}"
    );
}

#[test]
fn a_workload_that_nobody_knows_is_an_error_with_those_that_there_are() {
    let error = chosen(fleet(), &["sales/other".to_owned()]).unwrap_err().to_string();
    assert!(error.contains("`sales/other`") && error.contains("sales/ledger, sales/orders"), "{error}");
    assert_eq!(chosen(fleet(), &["sales/ledger".to_owned()]).unwrap().workloads.len(), 1);
    assert_eq!(chosen(fleet(), &[]).unwrap().workloads.len(), 3);
}

#[test]
fn nothing_connected_and_everything_enforced_are_told_apart() {
    let of = |one| FleetReport { workloads: BTreeMap::from([("a/a".to_owned(), one)]) };
    let told = |one| describe(&of(one), &control(), false, NOW, Style::Plain);
    assert!(told(workload(&[])).contains("No filter is connected."));
    assert!(told(workload(&[("p", Standing::Enforcing, "")])).contains("Enforced on 1 proxy."));
    let two = workload(&[("p", Standing::Enforcing, ""), ("q", Standing::Enforcing, "")]);
    assert!(told(two).contains("Enforced on 2 proxies."));
}
