//! A token bucket: how often something may be done that costs others.

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

// === impl TokenBucket ===

impl TokenBucket {
    /// A full bucket.
    pub fn new(burst: u32, every: Duration) -> Self {
        Self { every, depth: every * burst.saturating_sub(1), full_at: None }
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
}
