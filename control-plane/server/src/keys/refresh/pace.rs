//! How often issuers are asked.

use std::time::Duration;

/// Where neither the issuer nor its bundle says how often.
const EVERY: Duration = Duration::from_secs(5 * 60);
/// Whatever the issuer says. Keys count for longer than a day, so that one that is asked daily keeps them.
const AT_LEAST: Duration = Duration::from_secs(60);
const AT_MOST: Duration = Duration::from_secs(24 * 3600);
/// After the first failure; doubles up to [`EVERY`].
const FIRST_RETRY: Duration = Duration::from_secs(2);

/// When one issuer is asked again.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    retry: Duration,
}

// === impl Pace ===

impl Pace {
    pub(super) fn new() -> Self {
        Self { retry: FIRST_RETRY }
    }

    /// How long to wait after a success. `wished`: what the issuer says.
    pub(super) fn after_success(&mut self, wished: Option<Duration>) -> Duration {
        self.retry = FIRST_RETRY;
        scattered(wished.unwrap_or(EVERY).clamp(AT_LEAST, AT_MOST), random())
    }

    /// How long to wait after a failure.
    pub(super) fn after_failure(&mut self) -> Duration {
        let wait = self.retry;
        self.retry = (wait * 2).min(EVERY);
        scattered(wait, random())
    }
}

/// Up to a tenth sooner, so that replicas do not ask all at once.
fn scattered(wait: Duration, random: u8) -> Duration {
    wait - wait / 10 * u32::from(random) / 255
}

/// Without randomness everybody asks at once, and that is all.
fn random() -> u8 {
    let mut byte = [0];
    let _ = aws_lc_rs::rand::fill(&mut byte);
    byte[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(range: std::ops::RangeInclusive<u64>, wait: Duration) {
        let range = Duration::from_secs(*range.start())..=Duration::from_secs(*range.end());
        assert!(range.contains(&wait), "{wait:?} {range:?}");
    }

    #[test]
    fn the_issuer_says_how_often_within_bounds() {
        let mut pace = Pace::new();
        let mut after = |wished: Option<u64>| pace.after_success(wished.map(Duration::from_secs));
        seconds(270..=300, after(None));
        seconds(54..=60, after(Some(0)));
        seconds(54..=60, after(Some(59)));
        seconds(900..=1_000, after(Some(1_000)));
        seconds(77_760..=86_400, after(Some(5_184_000)));
    }

    #[test]
    fn retries_slow_down_to_the_usual_pace_and_start_anew_after_a_success() {
        let mut pace = Pace::new();
        let mut most = [2, 4, 8, 16, 32, 64, 128, 256, 300, 300];
        for most in &mut most {
            seconds((*most * 9 / 10)..=*most, pace.after_failure());
        }
        pace.after_success(Some(Duration::from_secs(86_400)));
        seconds(1..=2, pace.after_failure());
    }

    #[test]
    fn waits_are_scattered_over_a_tenth() {
        let wait = Duration::from_secs(1_000);
        assert_eq!(scattered(wait, 0), wait);
        assert_eq!(scattered(wait, 255), Duration::from_secs(900));
        assert!((1..255).all(|random| scattered(wait, random) < scattered(wait, random - 1)));
    }
}
