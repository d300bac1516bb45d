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
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now));
        let has_token = full_at.duration_since(now) <= self.depth;
        if has_token {
            self.full_at = Some(full_at + self.every);
        }
        has_token
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
}
