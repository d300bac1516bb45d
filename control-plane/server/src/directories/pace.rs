//! When to read again.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// After the first failure; doubles up to the regular interval.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The time between two readings of one directory.
#[derive(Debug)]
pub(super) struct Pace {
    every: Duration,
    retry: Duration,
}

// === impl Pace ===

impl Pace {
    pub(super) fn new(every: Duration) -> Self {
        Self { every, retry: FIRST_RETRY.min(every) }
    }

    /// How long to wait after a good reading.
    pub(super) fn after_success(&mut self) -> Duration {
        self.retry = FIRST_RETRY.min(self.every);
        jittered(self.every)
    }

    /// How long to wait after a failure: at first shorter than after a success, for a directory runs out meanwhile.
    pub(super) fn after_failure(&mut self) -> Duration {
        let retry = self.retry;
        self.retry = (retry * 2).min(self.every);
        jittered(retry)
    }
}

/// Nine to eleven tenths of it, so that what began together does not stay together.
pub(super) fn jittered(interval: Duration) -> Duration {
    // Each state hashes differently.
    let random = u32::try_from(RandomState::new().hash_one(()) % 2_001).unwrap_or(1_000);
    interval * (9_000 + random) / 10_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_differ_and_stay_near_what_was_said() {
        let every = Duration::from_secs(15);
        let seen: std::collections::BTreeSet<_> = (0..1_000).map(|_| jittered(every)).collect();
        assert!(seen.len() > 100, "{}", seen.len());
        assert!(seen.iter().all(|pause| (13_500..=16_500).contains(&pause.as_millis())), "{seen:?}");
    }

    #[test]
    fn failures_are_retried_soon_and_then_as_often_as_readings() {
        let mut pace = Pace::new(Duration::from_secs(15));
        let pauses: Vec<_> = (0..6).map(|_| pace.after_failure().as_secs_f64().round()).collect();
        assert!(pauses[0] <= 2.0 && pauses[5] >= 13.0, "{pauses:?}");
        assert!(pauses.is_sorted_by(|a, b| *a <= b + 3.0), "{pauses:?}");
        pace.after_success();
        assert!(pace.after_failure() < Duration::from_secs(2));
    }
}
