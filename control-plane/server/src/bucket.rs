//! Token buckets: how often something may be done that costs others.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// Lets `burst` through at once, then one every so often.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    every: Duration,
    /// How far ahead `full_at` may lie.
    depth: Duration,
    /// When all tokens will be back.
    full_at: Option<Instant>,
}

/// A bucket of which everybody has a share.
///
/// INVARIANT: nobody takes more than their share, so that several have to do their worst together before others get nothing.
#[derive(Debug)]
pub struct SharedBucket {
    all: TokenBucket,
    share: TokenBucket,
    by_name: HashMap<String, TokenBucket>,
}

/// How many shares are remembered before those that are full again are forgotten.
const MAX_REMEMBERED: usize = 1_024;

// === impl SharedBucket ===

impl SharedBucket {
    /// Full ones: for all together, and for each.
    pub fn new(all: TokenBucket, share: TokenBucket) -> Self {
        Self { all, share, by_name: HashMap::new() }
    }

    /// Takes a token for somebody, if there is one of their share and one at all.
    pub fn take(&mut self, name: &str, now: Instant) -> bool {
        let mut own = self.by_name.get(name).unwrap_or(&self.share).clone();
        if !own.take(now) || !self.all.take(now) {
            return false;
        }
        if self.by_name.len() >= MAX_REMEMBERED {
            self.by_name.retain(|_, share| !share.is_full(now));
        }
        self.by_name.insert(name.to_owned(), own);
        true
    }
}

// === impl TokenBucket ===

impl TokenBucket {
    /// A full bucket.
    pub fn new(burst: u32, every: Duration) -> Self {
        Self { every, depth: every * burst.saturating_sub(1), full_at: None }
    }

    /// Whether nothing was taken that is not back.
    pub fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|full_at| full_at <= now)
    }

    /// Takes a token if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        self.take_many(1, now)
    }

    /// Takes so many tokens if all of them are there.
    pub fn take_many(&mut self, tokens: u32, now: Instant) -> bool {
        let Some(others) = tokens.checked_sub(1) else { return true };
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now));
        let has_tokens = full_at.duration_since(now).saturating_add(self.every * others) <= self.depth;
        if has_tokens {
            self.full_at = Some(full_at + self.every * tokens);
        }
        has_tokens
    }

    /// Takes so many tokens, those too that will only come, and says how long that takes. `None`: it would owe more than
    /// `most` tokens; none is taken then.
    pub fn owe(&mut self, tokens: u32, most: u32, now: Instant) -> Option<Duration> {
        let Some(others) = tokens.checked_sub(1) else { return Some(Duration::ZERO) };
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now));
        let missing = full_at.duration_since(now).saturating_add(self.every * others);
        let wait = missing.saturating_sub(self.depth);
        (wait <= self.every * most).then(|| {
            self.full_at = Some(full_at + self.every * tokens);
            wait
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_every_so_often() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(3, Duration::from_secs(10));
        let mut passed = |seconds: u64| bucket.take(start + Duration::from_secs(seconds));
        assert_eq!([0, 0, 0, 0].map(&mut passed), [true, true, true, false]);
        assert_eq!([9, 10, 10, 19, 20].map(&mut passed), [false, true, false, false, true]);
        assert_eq!(
            [500, 500, 500, 500].map(&mut passed),
            [true, true, true, false],
            "no more than a burst is saved"
        );
    }

    #[test]
    fn many_are_taken_together_or_not_at_all() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(10, Duration::from_secs(1));
        let mut take = |tokens, seconds: u64| bucket.take_many(tokens, start + Duration::from_secs(seconds));
        assert!(!take(11, 0));
        assert!(take(7, 0));
        assert!(!take(4, 0));
        assert!(take(0, 0) && take(3, 0));
        assert!(!take(1, 0) && !take(3, 2));
        assert!(take(2, 2));
        assert!(!take(u32::MAX, 100));
    }

    #[test]
    fn what_is_owed_is_waited_for_in_turn_and_bounded() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut bucket = TokenBucket::new(10, second);
        let mut owe = |tokens, seconds: u32| bucket.owe(tokens, 20, start + second * seconds);
        assert_eq!([owe(0, 0), owe(7, 0), owe(3, 0)], [Some(Duration::ZERO); 3]);
        assert_eq!([owe(1, 0), owe(5, 0)], [Some(second), Some(6 * second)]);
        assert_eq!([owe(15, 0), owe(14, 0)], [None, Some(20 * second)]);
        assert_eq!([owe(1, 0), owe(1, 1)], [None, Some(20 * second)]);
        assert_eq!(owe(10, 100), Some(Duration::ZERO));
        assert_eq!(owe(u32::MAX, 100), None);
    }

    #[test]
    fn who_takes_everything_takes_a_share() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut bucket = SharedBucket::new(TokenBucket::new(6, second), TokenBucket::new(2, 10 * second));
        let mut taken = |name: &str, seconds: u32| {
            (0..100).filter(|_| bucket.take(name, start + second * seconds)).count()
        };
        assert_eq!((taken("greedy", 0), taken("other", 0)), (2, 2));
        assert_eq!((taken("third", 0), taken("fourth", 0)), (2, 0), "all together");
        assert_eq!((taken("greedy", 1), taken("fourth", 2)), (0, 2), "what is refused costs nothing");
        assert_eq!((taken("greedy", 9), taken("greedy", 10)), (0, 1));
    }

    #[test]
    fn shares_that_are_full_again_are_forgotten() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut bucket =
            SharedBucket::new(TokenBucket::new(u32::MAX, Duration::ZERO), TokenBucket::new(1, second));
        for name in 0..2 * MAX_REMEMBERED {
            assert!(bucket.take(&name.to_string(), start));
        }
        assert_eq!(bucket.by_name.len(), 2 * MAX_REMEMBERED, "none is full");
        assert!(bucket.take("0", start + second));
        assert_eq!(bucket.by_name.len(), 1);
    }
}
