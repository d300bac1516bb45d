use super::*;

const NOW: i64 = 1_000_000;

fn key(id: &str, seconds: u32) -> AskedRevocation {
    let target = Target::Key { issuer: "gitlab".into(), id: id.into() };
    AskedRevocation { target, seconds, reason: "leaked".into() }
}

#[test]
fn what_is_revoked_ends_and_twice_ends_with_the_later_one() {
    let mut kept = Kept::default();
    kept.revoke(key("a", 20), None, "me", NOW).unwrap();
    kept.revoke(key("a", 40), None, "me", NOW).unwrap();
    kept.revoke(key("b", 30), None, "me", NOW).unwrap();
    let revoked = |kept: &Kept, now| {
        kept.revoked("gitlab", Vec::new(), now)
            .into_iter()
            .map(|one| (one.value, one.until))
            .collect::<Vec<_>>()
    };
    assert_eq!(revoked(&kept, NOW), [("a".into(), NOW + 40), ("b".into(), NOW + 30)]);
    assert_eq!(kept.revoked("google", Vec::new(), NOW), []);
    assert_eq!(kept.next_end(), Some(NOW + 20));
    assert_eq!(kept.clone().at(NOW + 19), kept);
    let ids = |kept: Kept| kept.revocations.into_iter().map(|one| one.id).collect::<Vec<_>>();
    assert_eq!(ids(kept.clone().at(NOW + 20)), ["r-2", "r-3"]);
    let mut written = kept.clone();
    written.forget(NOW + 20 + GRACE_S - 1);
    assert_eq!(written, kept, "by a clock that is ahead nothing is forgotten");
    written.forget(NOW + 20 + GRACE_S);
    assert_eq!(ids(written.clone()), ["r-2", "r-3"]);
    kept = written;
    assert_eq!(revoked(&kept, NOW + 35), [("a".into(), NOW + 40)]);
    let ids: Vec<_> = kept.revocations.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(ids, ["r-2", "r-3"], "no id comes twice");
}

#[test]
fn what_rules_revoke_stays_revoked_whatever_is_revoked_besides() {
    let mut kept = Kept::default();
    let of = |value: &str, until| Revoked { kind: RevokedKind::Key, value: value.into(), until };
    let rules = || vec![of("z", 0), of("a", NOW + 30)];
    assert_eq!(kept.revoked("gitlab", rules(), NOW), rules());
    for (id, seconds) in [("z", 20), ("a", 20), ("b", 20)] {
        kept.revoke(key(id, seconds), None, "me", NOW).unwrap();
    }
    let with_b = [rules(), vec![of("b", NOW + 20)]].concat();
    assert_eq!(kept.revoked("gitlab", rules(), NOW), with_b);
    kept.revoke(key("a", 60), None, "me", NOW).unwrap();
    assert_eq!(kept.revoked("gitlab", rules(), NOW)[1], of("a", NOW + 60));
    let many: Vec<_> = (0..MAX_OF_ISSUER - 1).map(|n| of(&n.to_string(), 0)).collect();
    let full = kept.revoked("gitlab", many.clone(), NOW);
    assert_eq!(
        kept.without_room("gitlab", many, NOW),
        ["r-1", "r-3"],
        "the earlier ends are told to stay out"
    );
    assert_eq!(kept.without_room("gitlab", rules(), NOW), [] as [&str; 0]);
    assert_eq!(
        (full.len(), full.last()),
        (MAX_OF_ISSUER, Some(&of("a", NOW + 60))),
        "the latest end fits in"
    );
}

#[test]
fn a_suspension_is_never_longer_than_filters_believe() {
    let mut kept = Kept::default();
    let asked = |seconds| AskedSuspension {
        workload: "a/a".into(),
        seconds,
        reason: "deploy".into(),
        ticket: "OPS-1".into(),
    };
    kept.suspend(asked(8 * 3600), "me", NOW).unwrap();
    assert_eq!(kept.suspended_until("a/a", NOW), Some(NOW + 8 * 3600));
    assert_eq!(kept.suspended_until("a/a", NOW - 3600), Some(NOW + 7 * 3600), "the clock was set back");
    assert_eq!(kept.suspended_until("a/a", NOW + 8 * 3600), None);
    assert_eq!(kept.suspended_until("a/b", NOW), None);
    kept.suspend(asked(60), "me", NOW).unwrap();
    assert_eq!((kept.suspensions.len(), kept.suspended_until("a/a", NOW)), (1, Some(NOW + 60)));
}

#[test]
fn what_has_no_reason_or_no_sensible_end_is_refused() {
    let mut kept = Kept::default();
    for (seconds, reason, said) in [
        (9, "leaked", "`seconds` is 9"),
        (MAX_REVOCATION_S + 1, "leaked", "90 days"),
        (60, "  ", "`reason`"),
        (60, "a\nb", "`reason`"),
    ] {
        let asked = AskedRevocation { reason: reason.into(), ..key("a", seconds) };
        let refused = kept.revoke(asked, None, "me", NOW).unwrap_err();
        assert!(refused.contains(said), "{refused}");
    }
    assert!(kept.revoke(key("", 60), None, "me", NOW).is_err());
    let asked = AskedSuspension {
        workload: "a/a".into(),
        seconds: 8 * 3600 + 1,
        reason: "x".into(),
        ticket: "x".into(),
    };
    assert!(kept.suspend(asked.clone(), "me", NOW).unwrap_err().contains("8 h"));
    let untracked = AskedSuspension { ticket: String::new(), seconds: 60, ..asked };
    assert!(kept.suspend(untracked, "me", NOW).unwrap_err().contains("`ticket`"));
    assert_eq!((kept.revocations.len(), kept.suspensions.len()), (0, 0));
}

#[test]
fn there_is_a_limit_to_rules_that_revoke() {
    let mut kept = Kept::default();
    let asked = |n: usize| AskedRevocation {
        target: Target::Caller { name: format!("data/{n}") },
        seconds: 60,
        reason: "x".into(),
    };
    for n in 0..MAX_RULES {
        kept.revoke(asked(n), None, "me", NOW).unwrap();
    }
    assert!(kept.revoke(asked(0), None, "me", NOW).unwrap_err().contains("256 such"));
    kept.revoke(key("a", 60), None, "me", NOW).unwrap();
}

/// Nobody who writes Callers takes the room that others' revocations need.
#[test]
fn dozens_of_the_largest_callers_are_revoked_at_the_same_time() {
    let largest = |at: usize, accounts: usize| {
        let accounts: Vec<String> = (0..accounts).map(|account| format!("w{account:0>62}")).collect();
        format!(
            "kind: Caller\nmetadata: {{name: large-{at}, namespace: data}}\nspec:\n  anyOf:\n  - peer: {{namespace: etl, \
             serviceAccounts: [{}]}}\n",
            accounts.join(", ")
        )
    };
    let compile = |text: String| {
        let mesh = "kind: Mesh\nmetadata: {name: prod}\nspec:\n  trustDomain: prod.example\n  rootNamespace: root\n  workloads: \
                    [{namespace: sales, name: orders}]\n";
        let files: crate::rules::Files =
            [("mesh.yaml".to_owned(), mesh.to_owned()), ("a.yaml".to_owned(), text)].into();
        let compiled = crate::serve::compile_files(&files, &Default::default()).output.is_some();
        compiled.then(|| crate::rules::AcceptedRules { files, environment: Default::default() })
    };
    let most = (1..=256).rev().find(|accounts| compile(largest(0, *accounts)).is_some()).unwrap();
    assert!((100..256).contains(&most), "the limit is one of bytes: {most}");
    let mut kept = Kept::default();
    for at in 0..44 {
        let rules = compile(largest(at, most)).unwrap();
        let frozen = super::super::overlay::freeze(&format!("data/large-{at}"), &rules).unwrap();
        let asked = AskedRevocation {
            target: Target::Caller { name: format!("data/large-{at}") },
            seconds: 60,
            reason: "\u{fffd}".repeat(MAX_TEXT),
        };
        kept.revoke(asked, Some(frozen.unwrap()), &"somebody".repeat(30), NOW).unwrap();
    }
    let bytes = serde_json::to_vec(&kept).unwrap().len();
    assert!((700_000..=crate::kube::MAX_SHARED).contains(&bytes), "{bytes}");
}
