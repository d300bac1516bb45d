use super::*;

const REVISION: Revision = Revision { epoch: 1, counter: 7 };

fn key(generation: u64) -> VmKey {
    VmKey { workload: "a/a".into(), instance: "pod-1".into(), generation }
}

fn wanted() -> Wanted {
    Wanted {
        sha256: [9; 32],
        revision: REVISION,
        uses: vec!["bodies/1".to_owned()],
        suspended_until: 0,
        canary: None,
    }
}

fn report(fleet: &Fleet) -> WorkloadReport {
    fleet.report([("a/a".to_owned(), wanted())], 10).workloads.remove("a/a").unwrap()
}

#[test]
fn a_vm_counts_when_it_enforces_what_it_is_to_enforce() {
    let fleet = Fleet::default();
    fleet.connect(&key(1), &pb::Hello::default(), 10);
    fleet.connect(&key(2), &pb::Hello::default(), 10);
    assert_eq!((report(&fleet).connected, report(&fleet).enforcing), (2, 0));
    fleet.enforces(&key(1), &[9; 32], Some(REVISION), 11);
    fleet.enforces(&key(2), &[8; 32], None, 11);
    assert_eq!((report(&fleet).connected, report(&fleet).enforcing), (2, 1));
}

#[test]
fn a_vm_that_lacks_what_its_rules_use_is_told_from_others() {
    let fleet = Fleet::default();
    let able = |capabilities: &[&str]| pb::Hello {
        capabilities: capabilities.iter().map(|&one| one.to_owned()).collect(),
        ..Default::default()
    };
    fleet.connect(&key(1), &able(&["rules/1"]), 10);
    let stream = fleet.connect(&key(2), &able(&["rules/1", "bodies/2"]), 10);
    fleet.connect(&key(3), &able(&["rules/1", "bodies/1"]), 10);
    let found = report(&fleet);
    assert_eq!((found.connected, found.lacking), (3, 2));
    assert_eq!(found.vms.iter().map(|vm| vm.lacks.len()).collect::<Vec<_>>(), [1, 1, 0]);
    assert_eq!(found.vms[0].lacks, ["bodies/1"]);
    fleet.disconnect(&key(2), stream, 11);
    assert_eq!(report(&fleet).lacking, 1);
}

#[test]
fn the_end_of_an_old_stream_does_not_end_the_new_one() {
    let fleet = Fleet::default();
    let old = fleet.connect(&key(1), &pb::Hello::default(), 10);
    let new = fleet.connect(&key(1), &pb::Hello::default(), 11);
    fleet.disconnect(&key(1), old, 12);
    assert_eq!(report(&fleet).connected, 1);
    fleet.disconnect(&key(1), new, 13);
    assert_eq!(report(&fleet).connected, 0);
}

#[test]
fn a_vm_that_went_away_is_shown_for_a_while() {
    let fleet = Fleet::default();
    let stream = fleet.connect(&key(1), &pb::Hello::default(), 10);
    fleet.connect(&key(2), &pb::Hello::default(), 10);
    fleet.disconnect(&key(1), stream, 20);
    fleet.prune(20 + SHOWN_AFTER_DISCONNECT_S - 1);
    assert_eq!(report(&fleet).vms.len(), 2);
    fleet.prune(20 + SHOWN_AFTER_DISCONNECT_S);
    assert_eq!(report(&fleet).vms.len(), 1, "the connected one stays however long it is silent");
}

#[test]
fn a_refusal_is_shown_until_the_next_push_is_enforced() {
    let fleet = Fleet::default();
    fleet.connect(&key(1), &pb::Hello::default(), 10);
    let refusal =
        Refusal { revision: REVISION, reason: "bad_signature".into(), detail: String::new(), at: 11 };
    fleet.refused(&key(1), refusal.clone());
    assert_eq!(report(&fleet).vms[0].refusal, Some(refusal));
    fleet.enforces(&key(1), &[9; 32], Some(REVISION), 12);
    assert_eq!(report(&fleet).vms[0].refusal, None);
}

#[test]
fn a_receipt_replaces_what_was_known() {
    let fleet = Fleet::default();
    fleet.connect(&key(1), &pb::Hello::default(), 10);
    fleet.enforces(&key(1), &[9; 32], Some(REVISION), 11);
    let receipt = pb::Receipt {
        state: pb::FilterState::Invalid.into(),
        counters: Some(pb::Counters { denied: 3, ..Default::default() }),
        ..Default::default()
    };
    fleet.receipt(&key(1), &receipt, 12);
    let vm = report(&fleet).vms.remove(0);
    assert_eq!((vm.state, vm.manifest, vm.up_to_date), ("invalid".to_owned(), None, false));
    assert_eq!(vm.counters.unwrap().denied, 3);
}

#[test]
fn the_use_of_issuers_is_summed_over_vms_and_outlives_them() {
    let fleet = Fleet::default();
    let issuer = |name: &str, verified, refused, last_verified_at| pb::IssuerUse {
        issuer: name.into(),
        verified,
        refused,
        last_verified_at,
        ..Default::default()
    };
    let receipt = |issuers: Vec<pb::IssuerUse>| pb::Receipt { issuers, ..Default::default() };
    let stream = fleet.connect(&key(1), &pb::Hello::default(), 10);
    fleet.connect(&key(2), &pb::Hello::default(), 10);
    fleet.receipt(&key(1), &receipt(vec![issuer("old", 5, 1, 30), issuer("new", 0, 0, 0)]), 40);
    fleet.receipt(&key(2), &receipt(vec![issuer("old", 2, 0, 99)]), 50);
    let use_of = |fleet: &Fleet, name: &str| {
        let report = fleet.usage().into_iter().find(|report| report.issuer == name).unwrap();
        (report.verified, report.refused, report.last_verified_at)
    };
    assert_eq!(use_of(&fleet, "old"), (7, 1, Some(50)), "a filter whose clock is ahead is not believed");
    assert_eq!(use_of(&fleet, "new"), (0, 0, None));
    // An older statement does not make it earlier, a VM that went away not never.
    fleet.receipt(&key(2), &receipt(vec![issuer("old", 2, 0, 20)]), 60);
    fleet.disconnect(&key(1), stream, 60);
    fleet.prune(60 + SHOWN_AFTER_DISCONNECT_S);
    assert_eq!(use_of(&fleet, "old"), (2, 0, Some(50)));
}

#[test]
fn what_filters_say_of_issuers_is_bounded() {
    let fleet = Fleet::default();
    fleet.connect(&key(1), &pb::Hello::default(), 10);
    let issuer = |name: String| pb::IssuerUse { issuer: name, verified: 1, ..Default::default() };
    let names = ["a\nb".to_owned(), "x".repeat(254)].into_iter();
    let many = names.chain((0..200).map(|number| format!("issuer-{number}"))).map(issuer).collect();
    fleet.receipt(&key(1), &pb::Receipt { issuers: many, ..Default::default() }, 11);
    let usage = fleet.usage();
    assert_eq!(usage.len(), MAX_ISSUERS);
    assert!(usage.iter().all(|report| report.issuer.starts_with("issuer-")));
}

/// Of issuers that are not in it, people read that nobody uses them.
#[test]
fn a_workload_that_invents_issuers_takes_no_room_from_others_and_writes_to_no_terminal() {
    let fleet = Fleet::default();
    fleet.connect(&key(1), &pb::Hello::default(), 10);
    let receipt = |names: &mut dyn Iterator<Item = String>| pb::Receipt {
        issuers: names
            .map(|issuer| pb::IssuerUse { issuer, last_verified_at: 9, ..Default::default() })
            .collect(),
        ..Default::default()
    };
    for round in 0..10 {
        fleet.receipt(&key(1), &receipt(&mut (0..64).map(|number| format!("x{round}-{number}"))), 10);
    }
    fleet.receipt(&key(1), &receipt(&mut ["\u{1b}[31m".to_owned()].into_iter()), 10);
    assert_eq!(fleet.usage().len(), MAX_WORKLOAD_USES);
    let other = VmKey { workload: "b/b".into(), ..key(2) };
    fleet.connect(&other, &pb::Hello::default(), 10);
    fleet.receipt(&other, &receipt(&mut ["google".to_owned()].into_iter()), 10);
    let usage = fleet.usage();
    let found = usage.iter().find(|use_| use_.workload == "b/b").unwrap();
    assert_eq!((found.issuer.as_str(), found.last_verified_at), ("google", Some(9)));
    assert!(usage.iter().all(|use_| !use_.issuer.contains('\u{1b}')), "{usage:?}");
}

/// A filter with a stolen certificate that opens stream after stream, each as another VM.
#[test]
fn a_workload_whose_filters_come_and_go_is_bounded_and_pushes_out_nobody() {
    let fleet = Fleet::default();
    let other = VmKey { workload: "b/b".into(), ..key(1) };
    let stream = fleet.connect(&other, &pb::Hello::default(), 1);
    fleet.disconnect(&other, stream, 2);
    fleet.connect(&key(0), &pb::Hello::default(), 1);
    for generation in 1..50_000 {
        let stream = fleet.connect(&key(generation), &pb::Hello::default(), 10);
        fleet.disconnect(&key(generation), stream, 10 + i64::try_from(generation).unwrap());
    }
    let shown = report(&fleet);
    assert!(shown.vms.len() <= 1 + MAX_WORKLOAD_DISCONNECTED, "{}", shown.vms.len());
    assert_eq!(shown.connected, 1, "who is there stays");
    let newest = format!("{:016x}", 49_999);
    assert!(shown.vms.iter().any(|vm| vm.generation == newest), "and who was there last");
    assert_eq!(fleet.report([], 10).workloads["b/b"].vms.len(), 1);
    // One that comes back is not counted as gone.
    for now in 100_000..150_000 {
        let stream = fleet.connect(&key(49_999), &pb::Hello::default(), now);
        fleet.disconnect(&key(49_999), stream, now);
    }
    assert!(report(&fleet).vms.len() > MAX_WORKLOAD_DISCONNECTED / 2);
}

fn proxies(fleet: &Fleet, now: i64) -> Vec<(String, Standing, usize, usize)> {
    let report = fleet.report([("a/a".to_owned(), wanted())], now).workloads.remove("a/a").unwrap();
    report.proxies.into_iter().map(|one| (one.instance, one.standing, one.vms, one.enforcing)).collect()
}

#[test]
fn a_proxy_counts_when_every_live_vm_of_it_does() {
    let fleet = Fleet::default();
    let streams: Vec<_> = (1..=3).map(|one| fleet.connect(&key(one), &pb::Hello::default(), 10)).collect();
    let one = |standing, vms, enforcing| [("pod-1".to_owned(), standing, vms, enforcing)];
    assert_eq!(proxies(&fleet, 10), one(Standing::Lagging, 3, 0));
    fleet.enforces(&key(1), &[9; 32], Some(REVISION), 11);
    fleet.enforces(&key(2), &[9; 32], Some(REVISION), 11);
    assert_eq!(proxies(&fleet, 11), one(Standing::Lagging, 3, 2));
    let refusal = Refusal { revision: REVISION, reason: "too_large".into(), detail: String::new(), at: 11 };
    fleet.refused(&key(3), refusal);
    assert_eq!(proxies(&fleet, 11), one(Standing::Refusing, 3, 2));
    fleet.disconnect(&key(3), streams[2], 12);
    assert_eq!(proxies(&fleet, 12), one(Standing::Enforcing, 2, 2), "what is not live does not count");
    fleet.disconnect(&key(1), streams[0], 12);
    fleet.disconnect(&key(2), streams[1], 12);
    assert_eq!(proxies(&fleet, 72), one(Standing::Silent, 0, 0));
    assert_eq!(proxies(&fleet, 73), one(Standing::Gone, 0, 0));
}

#[test]
fn a_proxy_that_says_nothing_for_long_is_silent_although_it_is_connected() {
    let fleet = Fleet::default();
    fleet.connect(&key(1), &pb::Hello::default(), 10);
    fleet.connect(&key(2), &pb::Hello::default(), 10);
    fleet.enforces(&key(1), &[9; 32], Some(REVISION), 11);
    fleet.enforces(&key(2), &[9; 32], Some(REVISION), 60);
    assert_eq!(proxies(&fleet, 11 + 95)[0].1, Standing::Enforcing);
    assert_eq!(proxies(&fleet, 11 + 96)[0].1, Standing::Silent);
}

#[test]
fn key_ages_and_suspensions_are_shown() {
    let fleet = Fleet::default();
    fleet.connect(&key(1), &pb::Hello::default(), 10);
    let issuer = pb::IssuerUse { issuer: "gitlab".into(), keys_valid_until: 500, ..Default::default() };
    let counters = pb::Counters { suspended: 4, ..Default::default() };
    let receipt = pb::Receipt { issuers: vec![issuer], counters: Some(counters), ..Default::default() };
    fleet.receipt(&key(1), &receipt, 11);
    let wanted = |until| [("a/a".to_owned(), Wanted { suspended_until: until, ..wanted() })];
    let report = |until, now| fleet.report(wanted(until), now).workloads.remove("a/a").unwrap();
    let shown = report(100, 99);
    assert_eq!(shown.suspended_until, Some(100));
    assert_eq!(shown.vms[0].keys_valid_until, [("gitlab".to_owned(), 500)].into());
    assert_eq!(shown.vms[0].counters.unwrap().suspended, 4);
    assert_eq!((report(100, 100).suspended_until, report(0, 5).suspended_until), (None, None));
}
