//! The only place that reads the wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix seconds.
pub fn now() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX),
    }
}

/// Unix microseconds.
pub fn now_us() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
    }
}

/// An end that lies half a day to a day after `at` and changes only twice a day, so that what is signed with it does not
/// change whenever it is refreshed, and is the same after a restart and on every replica. Unix seconds.
pub fn half_a_day_to_a_day_after(at: i64) -> i64 {
    const HALF_A_DAY_S: i64 = 12 * 3600;
    at.div_euclid(HALF_A_DAY_S).saturating_add(2).saturating_mul(HALF_A_DAY_S)
}

/// A moment as RFC 3339 writes it, to the minute and in UTC. `at`: Unix seconds.
pub fn rfc3339(at: i64) -> String {
    let (days, seconds) = (at.div_euclid(86_400), at.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}Z", seconds / 3_600, seconds / 60 % 60)
}

/// Year, month and day of a day since 1970.
pub fn civil(days: i64) -> (i64, i64, i64) {
    // The calendar repeats every 400 years, which have 146 097 days; counted from 0000-03-01, so that a leap day is the
    // last of its year.
    let day = days + 719_468;
    let (era, day) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, after) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (400 * era + year + after, month, day)
}

/// A duration in the largest unit of which there are at least two.
pub fn span(seconds: i64) -> String {
    const UNITS: [(i64, &str); 3] = [(24 * 3_600, "days"), (3_600, "h"), (60, "min")];
    match UNITS.into_iter().find(|(unit, _)| seconds >= 2 * unit) {
        Some((unit, name)) => format!("{} {name}", seconds / unit),
        None => format!("{} s", seconds.max(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_the_calendar_has_them() {
        for (at, expected) in [
            (0, "1970-01-01T00:00Z"),
            (951_782_400, "2000-02-29T00:00Z"),
            (951_868_799, "2000-02-29T23:59Z"),
            (951_868_800, "2000-03-01T00:00Z"),
            (1_795_203_600, "2026-11-20T19:40Z"),
            (4_107_542_400, "2100-03-01T00:00Z"),
            (253_402_300_799, "9999-12-31T23:59Z"),
            (-1, "1969-12-31T23:59Z"),
        ] {
            assert_eq!(rfc3339(at), expected, "{at}");
        }
    }

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

    #[test]
    fn spans_are_told_in_the_largest_unit_that_says_enough() {
        for (seconds, expected) in [
            (-5, "0 s"),
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (7_199, "119 min"),
            (7_200, "2 h"),
            (172_799, "47 h"),
            (172_800, "2 days"),
            (7_776_000, "90 days"),
        ] {
            assert_eq!(span(seconds), expected, "{seconds}");
        }
    }
}
