//! Which requests are recorded although their rule asks for no record of each: some, by chance.
//!
//! One of 100; where more come of a rule than that makes 50 records of in a second, about so many, since a record costs the proxy
//! and the control plane more than a request that is known. Each rule has its own rate: whatever comes of one makes no other's
//! samples rarer.
//!
//! INVARIANT: a sample stands for as many requests as there was one chance in when it was drawn, whatever comes of the request:
//! counts by samples are right on average, however the load changes.

use std::collections::HashMap;

use tidegate_engine::RuleIx;

/// Never more often than one of so many.
pub const SAMPLE: u32 = 100;

/// Samples of a rule in a second that are enough.
const ENOUGH: u64 = 50;

/// Never more seldom than one of so many of those.
const SELDOM: u64 = 100;

/// How often samples are drawn, by rule.
#[derive(Debug, Default)]
pub struct Samples {
    /// Of rules of which some were drawn lately.
    rates: HashMap<Option<RuleIx>, Rate>,
    /// Milliseconds of wall clock.
    since_ms: u64,
}

/// A request was drawn, and may be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drawn {
    /// What is left of chance.
    random: u64,
}

#[derive(Debug)]
struct Rate {
    /// Since then.
    drawn: u64,
    /// Of those that are drawn, one of so many is kept.
    one_of: u32,
}

// === impl Drawn ===

impl Drawn {
    /// Whether the next request is drawn, by these random bits. It is decided like one of which nothing is known.
    pub fn new(random: u64) -> Option<Self> {
        let each = u64::from(SAMPLE);
        random.is_multiple_of(each).then_some(Self { random: random / each })
    }
}

// === impl Samples ===

impl Samples {
    /// For how many requests one that was drawn and that this rule decided stands; `None`: it is not recorded.
    pub fn keep(&mut self, drawn: Drawn, rule: Option<RuleIx>) -> Option<u32> {
        let rate = self.rates.entry(rule).or_insert(Rate { drawn: 0, one_of: 1 });
        rate.drawn = rate.drawn.saturating_add(1);
        drawn.random.is_multiple_of(u64::from(rate.one_of)).then(|| SAMPLE.saturating_mul(rate.one_of))
    }

    /// Time passes. From a second's load follows how often samples are kept in the next.
    pub fn on_tick(&mut self, now_ms: u64) {
        match now_ms.checked_sub(self.since_ms) {
            Some(..1_000) => return,
            Some(elapsed_ms) => self.rates.retain(|_, rate| {
                let in_a_second = rate.drawn.saturating_mul(1_000) / elapsed_ms;
                rate.drawn = 0;
                rate.one_of = u32::try_from((in_a_second / ENOUGH).clamp(1, SELDOM)).unwrap_or(1);
                // Others begin like this.
                rate.one_of > 1
            }),
            // A clock that was set back says nothing of the load.
            None => self.rates.values_mut().for_each(|rate| rate.drawn = 0),
        }
        self.since_ms = now_ms;
    }

    /// Rules have other positions from now on.
    pub fn forget(&mut self) {
        self.rates.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;
    const RULE: Option<RuleIx> = Some(RuleIx(3));

    /// The rate of the next second, after one with so many drawn.
    fn after(samples: &mut Samples, drawn: u64, now_ms: u64) -> u32 {
        for _ in 0..drawn {
            samples.keep(Drawn { random: 0 }, RULE);
        }
        samples.on_tick(now_ms);
        let kept = samples.keep(Drawn { random: 0 }, RULE);
        samples.rates.get_mut(&RULE).unwrap().drawn = 0;
        kept.unwrap()
    }

    #[test]
    fn samples_are_about_as_many_whatever_the_load_and_stand_for_all() {
        for ticks in [1, 10] {
            let (mut samples, mut random) = (Samples::default(), 0x9E37_79B9_7F4A_7C15_u64);
            samples.on_tick(NOW_MS);
            for (begin, requests) in [(0, 1_000_u64), (20, 40_000), (40, 200_000), (60, 4_000)] {
                let (mut kept, mut stood_for) = (0_u64, 0);
                for second in begin..begin + 20 {
                    for request in 1..=requests {
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        if let Some(times) = Drawn::new(random).and_then(|drawn| samples.keep(drawn, RULE)) {
                            kept += u64::from(second >= begin + 2);
                            stood_for += u64::from(times);
                        }
                        if request.is_multiple_of(requests / ticks) {
                            samples.on_tick(NOW_MS + second * 1_000 + request * 1_000 / requests);
                        }
                    }
                }
                let enough = (requests / 100).min(ENOUGH) * 18;
                assert!(kept.abs_diff(enough) < enough / 4, "{requests} with {ticks} ticks: {kept}");
                let all = requests * 20;
                assert!(
                    stood_for.abs_diff(all) < all / 5,
                    "{requests} with {ticks} ticks: {stood_for} of {all}"
                );
            }
        }
    }

    #[test]
    fn a_rule_of_which_much_comes_makes_no_other_s_samples_rarer() {
        let mut samples = Samples::default();
        assert_eq!(after(&mut samples, 0, NOW_MS), 100);
        assert_eq!(after(&mut samples, 400, NOW_MS + 1_000), 800);
        for other in [None, Some(RuleIx(4))] {
            assert_eq!(samples.keep(Drawn { random: 1 }, other), Some(100));
        }
        assert_eq!(samples.keep(Drawn { random: 1 }, RULE), None);
        samples.forget();
        assert_eq!(samples.keep(Drawn { random: 1 }, RULE), Some(100));
    }

    #[test]
    fn a_clock_that_jumps_keeps_no_load_for_ever() {
        let mut samples = Samples::default();
        samples.on_tick(NOW_MS);
        assert_eq!(after(&mut samples, 400, NOW_MS + 1_000), 800);
        assert_eq!(after(&mut samples, 99, NOW_MS + 1_999), 800, "not yet");
        assert_eq!(after(&mut samples, 400, NOW_MS - 3_600_000), 800, "nothing is known of that second");
        assert_eq!(after(&mut samples, 0, NOW_MS - 3_599_000), 100);
        assert_eq!(after(&mut samples, 50_000, NOW_MS), 100, "they came within an hour");
        assert_eq!(after(&mut samples, 50_000, NOW_MS + 1_000), 10_000, "never more seldom");
        assert_eq!(after(&mut samples, 50_000, NOW_MS + 1_000), 10_000, "no time has passed");
    }
}
