//! Which requests are recorded although their rule asks for no record of each: some, by chance.
//!
//! One of 100, so that what is rare is seen soon; where more come than that makes [`A_SECOND`] records of, about so many a second,
//! since a record costs the proxy and the control plane more than a request that is known.
//!
//! INVARIANT: a sample stands for as many requests as there was one chance in when it was drawn, whatever comes of the request:
//! counts by samples are right on average, however the load changes.

/// Never more often than one of so many.
pub const SAMPLE: u32 = 100;

/// Samples in a second that are enough.
const A_SECOND: u64 = 50;

/// Never more seldom than one of so many.
const SELDOM: u64 = 10_000;

/// How often samples are drawn.
#[derive(Debug)]
pub struct Samples {
    /// One of so many.
    one_of: u32,
    /// Requests that were not recorded, since then.
    passed: u64,
    since_ms: u64,
}

// === impl Samples ===

impl Samples {
    /// From this wall clock on.
    pub fn new(now_ms: u64) -> Self {
        Self { one_of: SAMPLE, passed: 0, since_ms: now_ms }
    }

    /// For how many requests the next one stands if it is recorded as one of many; `None`: it is not.
    pub fn draw(&self, random: u64) -> Option<u32> {
        random.is_multiple_of(u64::from(self.one_of)).then_some(self.one_of)
    }

    /// One that might have been drawn was not.
    pub fn pass(&mut self) {
        self.passed = self.passed.saturating_add(1);
    }

    /// Time passes. From a second's load follows how often samples are drawn in the next.
    pub fn on_tick(&mut self, now_ms: u64) {
        match now_ms.checked_sub(self.since_ms) {
            Some(..1_000) => return,
            Some(elapsed_ms) => {
                let in_a_second = self.passed.saturating_mul(1_000) / elapsed_ms.max(1);
                let one_of = (in_a_second / A_SECOND).clamp(u64::from(SAMPLE), SELDOM);
                self.one_of = u32::try_from(one_of).unwrap_or(SAMPLE);
            }
            // A clock that was set back says nothing of the load.
            None => {}
        }
        (self.passed, self.since_ms) = (0, now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    /// So many seconds with so many requests each, with ticks as often as this: samples of each second, and what they stand for.
    fn seconds(samples: &mut Samples, begin: u64, count: u64, requests: u64, ticks: u64) -> Vec<(u64, u64)> {
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        let second = |second| {
            let (mut drawn, mut stand_for) = (0, 0);
            for request in 0..requests {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                match samples.draw(random) {
                    Some(times) => {
                        drawn += 1;
                        stand_for += u64::from(times);
                    }
                    None => samples.pass(),
                }
                if (request + 1) % (requests / ticks).max(1) == 0 {
                    samples.on_tick(NOW_MS + (begin + second) * 1_000 + (request + 1) * 1_000 / requests);
                }
            }
            (drawn, stand_for)
        };
        (0..count).map(second).collect()
    }

    #[test]
    fn samples_are_about_as_many_whatever_the_load_and_stand_for_all() {
        for ticks in [1, 10] {
            let mut samples = Samples::new(NOW_MS);
            for (begin, requests) in [(0, 1_000), (20, 40_000), (40, 200_000), (60, 4_000)] {
                let told = seconds(&mut samples, begin, 20, requests, ticks);
                let drawn: u64 = told.iter().skip(2).map(|(drawn, _)| drawn).sum();
                let enough = (requests / 100).min(50) * 18;
                assert!(drawn.abs_diff(enough) < enough / 4, "{requests} with {ticks} ticks: {told:?}");
                let stood_for: u64 = told.iter().map(|(_, times)| times).sum();
                let all = requests * 20;
                assert!(
                    stood_for.abs_diff(all) < all / 5,
                    "{requests} with {ticks} ticks: {stood_for} of {all}"
                );
            }
        }
    }

    #[test]
    fn a_clock_that_jumps_keeps_no_load_for_ever() {
        let mut samples = Samples::new(NOW_MS);
        (0..40_000).for_each(|_| samples.pass());
        samples.on_tick(NOW_MS + 1_000);
        assert_eq!(samples.one_of, 800);
        samples.on_tick(NOW_MS - 3_600_000);
        assert_eq!(samples.one_of, 800, "nothing is known of that second");
        samples.on_tick(NOW_MS - 3_599_000);
        assert_eq!(samples.one_of, SAMPLE);
        (0..5_000_000).for_each(|_| samples.pass());
        samples.on_tick(NOW_MS);
        assert_eq!(samples.one_of, SAMPLE, "they came within an hour");
        (0..5_000_000).for_each(|_| samples.pass());
        samples.on_tick(NOW_MS + 1_000);
        assert_eq!(u64::from(samples.one_of), SELDOM);
    }
}
