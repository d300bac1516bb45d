//! The only place that reads the wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix seconds.
pub fn now() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX),
    }
}

/// An end that lies half a day to a day after `at` and changes only twice a day, so that what is signed with it does not
/// change whenever it is refreshed, and is the same after a restart and on every replica. Unix seconds.
pub fn half_a_day_to_a_day_after(at: i64) -> i64 {
    const HALF_A_DAY_S: i64 = 12 * 3600;
    at.div_euclid(HALF_A_DAY_S).saturating_add(2).saturating_mul(HALF_A_DAY_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_lies_half_a_day_to_a_day_ahead_and_changes_twice_a_day() {
        let mut ends = std::collections::BTreeSet::new();
        for at in (1_800_000_000..1_800_000_000 + 48 * 3_600).step_by(300) {
            let end = half_a_day_to_a_day_after(at);
            assert!((12 * 3_600 + 1..=24 * 3_600).contains(&(end - at)), "{at}");
            ends.insert(end);
        }
        assert!((4..=5).contains(&ends.len()), "{ends:?}");
    }
}
