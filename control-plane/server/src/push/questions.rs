//! Questions of one filter, or of all that are connected to another replica, that wait for their answer.
//!
//! A filter that asks holds a request meanwhile, and decides again when the answer comes. So it must have by then what it
//! asked for.
//!
//! INVARIANT: "listed" is said only after the filter answered the push of everything that was on offer when it became
//! known.

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};

/// Most questions that one filter may have open; it holds no more requests than that.
const MAX_OPEN: usize = 256;

/// What was asked and not answered yet, by nonce.
pub(super) struct Questions {
    most: usize,
    open: FuturesUnordered<BoxFuture<'static, (u64, bool)>>,
    /// Known to be listed; the filter may not have installed the section yet.
    listed: Vec<u64>,
}

impl Default for Questions {
    /// Of one filter.
    fn default() -> Self {
        Self::new(MAX_OPEN)
    }
}

// === impl Questions ===

impl Questions {
    /// At most so many at once.
    pub(super) fn new(most: usize) -> Self {
        Self { most, open: FuturesUnordered::new(), listed: Vec::new() }
    }

    /// Takes a question up; false when there are too many.
    pub(super) fn ask(&mut self, nonce: u64, answer: impl Future<Output = bool> + Send + 'static) -> bool {
        let has_room = self.open.len() + self.listed.len() < self.most;
        if has_room {
            self.open.push(async move { (nonce, answer.await) }.boxed());
        }
        has_room
    }

    /// The nonce of the next question that is to be answered with no. Those to be answered with yes wait for
    /// [`Self::take_listed`].
    pub(super) async fn unlisted(&mut self) -> Option<u64> {
        match self.open.next().await {
            Some((nonce, true)) => {
                self.listed.push(nonce);
                None
            }
            Some((nonce, false)) => Some(nonce),
            None => std::future::pending().await,
        }
    }

    /// The questions to be answered with yes, for when the filter has installed what is on offer.
    pub(super) fn take_listed(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.listed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_is_said_at_once_and_yes_when_it_is_asked_for() {
        let mut questions = Questions::default();
        assert!(questions.ask(1, async { true }));
        assert!(questions.ask(2, async { false }));
        let mut refused = Vec::new();
        for _ in 0..2 {
            refused.extend(questions.unlisted().await);
        }
        assert_eq!(refused, [2]);
        assert_eq!(questions.take_listed(), [1]);
        assert_eq!(questions.take_listed(), [0; 0]);
    }

    #[tokio::test]
    async fn open_questions_are_bounded_also_those_that_wait_for_a_push() {
        let mut questions = Questions::default();
        for nonce in 0..MAX_OPEN as u64 {
            assert!(questions.ask(nonce, async { true }), "{nonce}");
        }
        assert!(!questions.ask(256, async { true }));
        assert_eq!(questions.unlisted().await, None);
        assert!(!questions.ask(256, async { true }), "one waits for its push");
        assert_eq!(questions.take_listed().len(), 1);
        assert!(questions.ask(256, async { true }));
    }
}
