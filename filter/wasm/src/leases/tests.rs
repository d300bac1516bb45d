use super::*;

const NONE: [u32; 0] = [];

fn lease(context: u32, expires_at: i64) -> Lease {
    let terms = Terms { expires_at, ..Terms::UNBOUNDED };
    Lease { context, received: Received::default(), terms, told: 0 }
}

/// Looks at everything that is to be looked at, renewing what `allowed` says; the contexts in order.
fn look(leases: &mut Leases, now: i64, allowed: impl Fn(u32) -> Option<Terms>) -> Vec<u32> {
    let mut seen = Vec::new();
    while let Some(position) = leases.next(now) {
        let context = leases.get(position).unwrap().context;
        seen.push(context);
        match allowed(context) {
            Some(terms) => leases.renew(position, terms, now),
            None => leases.forget(context),
        }
        assert!(seen.len() <= 10_000, "it does not end");
    }
    consistent(leases);
    seen
}

fn consistent(leases: &Leases) {
    assert_eq!(leases.index.len(), leases.entries.len());
    for (position, entry) in leases.entries.iter().enumerate() {
        assert_eq!(leases.index[&entry.lease.context], position);
    }
    assert_eq!(leases.bytes, leases.entries.iter().map(|entry| weight(&entry.lease)).sum::<usize>());
}

#[test]
fn what_expires_is_looked_at_then_and_not_before() {
    let mut leases = Leases::default();
    for (context, expires_at) in [(1, 100), (2, 50), (3, i64::MAX), (4, 100)] {
        assert!(leases.admit(lease(context, expires_at)));
    }
    assert_eq!(look(&mut leases, 49, |_| None), NONE);
    assert_eq!(look(&mut leases, 50, |_| None), [2]);
    assert_eq!(look(&mut leases, 99, |_| None), NONE);
    assert_eq!(look(&mut leases, 100, |_| None), [4, 1]);
    assert_eq!(look(&mut leases, i64::MAX - 1, |_| None), NONE);
    assert_eq!(leases.entries.len(), 1);
}

#[test]
fn grace_is_added_and_without_end_nothing_is_ever_due() {
    let mut leases = Leases::default();
    for (context, grace_s) in [(1, 0), (2, 30), (3, u32::MAX)] {
        assert!(leases.admit(Lease {
            terms: Terms { expires_at: 100, grace_s, ..Terms::UNBOUNDED },
            ..lease(context, 0)
        }));
    }
    assert_eq!(look(&mut leases, 100, |_| None), [1]);
    assert_eq!(look(&mut leases, 129, |_| None), NONE);
    assert_eq!(look(&mut leases, 130, |_| None), [2]);
    assert_eq!(look(&mut leases, i64::MAX - 1, |_| None), NONE);
    leases.question_all();
    assert_eq!(look(&mut leases, 131, |_| None), [3], "a changed rule does not ask for the grace");
}

#[test]
fn everything_is_looked_at_once_after_something_else_is_enforced() {
    let mut leases = Leases::default();
    for context in 0..100 {
        assert!(leases.admit(lease(context, i64::MAX)));
    }
    assert_eq!(look(&mut leases, 0, |_| None), NONE);
    leases.question_all();
    assert!(leases.has_remaining());
    let keep = |context: u32| context.is_multiple_of(3).then_some(Terms::UNBOUNDED);
    let mut seen = look(&mut leases, 0, keep);
    seen.sort();
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
    assert!(!leases.has_remaining());
    assert_eq!(leases.entries.len(), 34);
    assert_eq!(look(&mut leases, 0, keep), NONE);
    leases.question_all();
    assert_eq!(look(&mut leases, 0, keep).len(), 34);
}

#[test]
fn requests_that_come_and_go_meanwhile_are_neither_missed_nor_confused() {
    let mut leases = Leases::default();
    for context in 0..100 {
        assert!(leases.admit(lease(context, i64::MAX)));
    }
    leases.question_all();
    let (mut seen, mut next) = (Vec::new(), 100);
    while let Some(position) = leases.next(0) {
        let context = leases.get(position).unwrap().context;
        seen.push(context);
        leases.renew(position, Terms::UNBOUNDED, 0);
        // One leaves, in some order, and one that is decided by the new rules comes.
        leases.forget((context * 37 + 11) % 100);
        assert!(leases.admit(lease(next, i64::MAX)));
        next += 1;
        consistent(&leases);
    }
    assert!(seen.iter().all(|context| *context < 100), "new ones need not be looked at: {seen:?}");
    let mut once = seen.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), seen.len(), "each once");
    for entry in &leases.entries {
        assert_eq!(entry.enforced, leases.enforced, "{} was missed", entry.lease.context);
    }
}

#[test]
fn what_is_still_allowed_although_it_is_due_is_asked_again_in_a_second() {
    let mut leases = Leases::default();
    assert!(leases.admit(lease(1, 100)));
    let still = |_| Some(Terms { expires_at: 100, ..Terms::UNBOUNDED });
    assert_eq!(look(&mut leases, 100, still), [1]);
    assert_eq!(look(&mut leases, 100, still), NONE);
    assert_eq!(look(&mut leases, 101, still), [1]);
    assert_eq!(look(&mut leases, 102, |_| None), [1]);
}

#[test]
fn what_was_looked_at_before_another_change_is_looked_at_again() {
    let mut leases = Leases::default();
    for context in 0..10 {
        assert!(leases.admit(lease(context, i64::MAX)));
    }
    leases.question_all();
    for _ in 0..4 {
        let position = leases.next(0).unwrap();
        leases.renew(position, Terms::UNBOUNDED, 0);
    }
    leases.question_all();
    assert_eq!(look(&mut leases, 0, |_| Some(Terms::UNBOUNDED)), [5, 4, 3, 2, 1, 0, 9, 8, 7, 6]);
    assert!(!leases.has_remaining());
}

#[test]
fn changes_that_come_faster_than_entries_can_be_looked_at_leave_none_out() {
    let mut leases = Leases::default();
    for context in 0..10 {
        assert!(leases.admit(lease(context, i64::MAX)));
    }
    let mut seen = Vec::new();
    for _ in 0..20 {
        leases.question_all();
        let position = leases.next(0).unwrap();
        seen.push(leases.get(position).unwrap().context);
        leases.renew(position, Terms::UNBOUNDED, 0);
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen, (0..10).collect::<Vec<_>>());
}

#[test]
fn a_context_has_one_lease_and_unknown_ones_are_ignored() {
    let mut leases = Leases::default();
    assert!(leases.admit(lease(1, 5)) && leases.admit(lease(1, 9)));
    assert_eq!(leases.entries.len(), 1);
    leases.forget(2);
    leases.forget(1);
    leases.forget(1);
    assert!(leases.entries.is_empty());
    consistent(&leases);
}

#[test]
fn what_there_is_no_room_for_is_not_admitted() {
    let mut leases = Leases { bytes: MAX_BYTES - ENTRY_BYTES, ..Leases::default() };
    assert!(leases.admit(lease(1, 5)));
    assert!(!leases.admit(lease(2, 5)));
    leases.forget(1);
    assert!(leases.admit(lease(2, 5)));
}
