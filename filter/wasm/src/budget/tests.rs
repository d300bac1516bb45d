use super::*;

const RS256_US: u32 = 30;

/// How many checks of bad tokens a connection gets at once.
fn bad(budget: &mut Budget, connection: u64, at_ms: u64, tries: u32) -> u32 {
    (0..tries).filter(|_| budget.charge(connection, RS256_US, at_ms).is_some()).count().try_into().unwrap()
}

fn good(budget: &mut Budget, connection: u64, at_ms: u64) -> bool {
    match budget.charge(connection, RS256_US, at_ms) {
        Some(charge) => {
            budget.accept(connection, &[charge], at_ms);
            true
        }
        None => false,
    }
}

#[test]
fn good_tokens_are_free_however_many_come_over_one_connection() {
    let mut budget = Budget::new(0);
    assert!((0..100_000).all(|_| good(&mut budget, 1, 0)));
    assert!(!budget.is_strained(0));
}

#[test]
fn bad_tokens_of_one_connection_stop_at_its_own_limit_and_harm_nobody_else() {
    let mut budget = Budget::new(0);
    assert_eq!(bad(&mut budget, 1, 0, 10_000), 67, "2 ms, and one check that exceeds them");
    assert_eq!(bad(&mut budget, 1, 0, 1), 0);
    assert!(good(&mut budget, 2, 0), "another connection");
    assert!(!good(&mut budget, 1, 0), "a good one over the same connection has to wait");
    // 33 a second afterwards, whatever is tried in between.
    let passed: u32 = (1..=10_000).map(|ms| bad(&mut budget, 1, ms, 1)).sum();
    assert!((320..=340).contains(&passed), "{passed} in ten seconds");
}

#[test]
fn many_connections_together_cannot_take_more_than_the_common_purse() {
    let mut budget = Budget::new(0);
    let passed: u32 = (0..1_000).map(|connection| bad(&mut budget, connection, 0, 100)).sum();
    assert_eq!(passed, 100_000 / RS256_US + 1);
    // A second of flood: a tenth of it, and what was there before.
    let mut budget = Budget::new(0);
    let mut passed = 0;
    for ms in 0..1_000 {
        for connection in 0..200 {
            passed += bad(&mut budget, 1_000 * ms + connection, ms, 1);
        }
    }
    let spent = u64::from(passed * RS256_US);
    assert!((190_000..=210_000).contains(&spent), "{spent} µs of 1 000 000");
}

#[test]
fn a_flood_leaves_the_reserve_to_connections_that_have_proven_themselves() {
    let mut budget = Budget::new(0);
    assert!(good(&mut budget, 1, 0));
    for connection in 100..1_100 {
        bad(&mut budget, connection, 0, 100);
    }
    assert!(!good(&mut budget, 2, 0), "a newcomer has to wait");
    assert!((0..10_000).all(|_| good(&mut budget, 1, 0)), "the proven one goes on");
    // It cannot use the reserve up with bad ones.
    assert!(bad(&mut budget, 1, 0, 10_000) < 700);
    assert!(budget.reserve.balance_us > 0);
}

#[test]
fn a_connection_whose_tokens_are_known_proves_itself_without_any_check() {
    let mut budget = Budget::new(0);
    for connection in 100..1_100 {
        bad(&mut budget, connection, 0, 100);
    }
    assert!(budget.is_strained(0));
    assert!(!good(&mut budget, 1, 0));
    budget.accept(1, &[], 0);
    assert!(good(&mut budget, 1, 0));
}

#[test]
fn a_connection_that_many_share_may_bring_more_bad_ones_once_it_has_proven_itself() {
    let mut budget = Budget::new(0);
    assert!(good(&mut budget, 1, 0));
    let passed: u32 = (1..=10_000).map(|ms| bad(&mut budget, 1, ms, 1)).sum();
    assert!((3_300..=3_500).contains(&passed), "{passed}: 10 ms a second, after 2 ms at first");
}

#[test]
fn dear_checks_cost_more_and_a_purse_is_exceeded_by_one_check_at_most() {
    let mut budget = Budget::new(0);
    assert!(budget.charge(1, 1_999, 0).is_some());
    assert!(budget.charge(1, 5_000, 0).is_some(), "1 µs is left");
    assert!(budget.charge(1, 1, 4_999).is_none(), "the debt is paid first");
    assert!(budget.charge(1, 1, 5_001).is_some());
}

#[test]
fn clocks_that_leap_neither_fill_twice_nor_stop_anything() {
    let mut budget = Budget::new(1_000_000);
    bad(&mut budget, 1, 1_000_000, 100);
    assert_eq!(bad(&mut budget, 1, 0, 1), 0, "back: nothing is gained");
    assert_eq!(bad(&mut budget, 1, u64::MAX, 1_000), 67, "ahead: full, once");
    assert_eq!(bad(&mut budget, 1, 0, 1), 0);
    assert_eq!(bad(&mut budget, 1, 100, 1), 1, "and time goes on from there");
}

#[test]
fn memory_is_bounded_and_those_heard_of_last_are_kept() {
    let mut budget = Budget::new(0);
    bad(&mut budget, 7, 0, 100);
    for connection in 1_000..1_000_000 {
        let _ = budget.charge(connection, 0, 0);
        // Heard of again and again, and still without means.
        assert_eq!(bad(&mut budget, 7, 0, 1), 0, "after {connection}");
    }
    let Connections { recent, older } = &budget.connections;
    assert!(recent.len() <= MAX_CONNECTIONS && older.len() <= MAX_CONNECTIONS);
}
