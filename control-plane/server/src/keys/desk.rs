//! Filters ask for keys that they do not know; the refresh of keys answers.
//!
//! A filter that asks holds a request meanwhile. What an issuer is asked because of it is bounded by a bucket per issuer,
//! so that tokens with invented key ids are no way to make us flood an issuer.
//!
//! INVARIANT: of the bucket and of the places for questions every workload has a share and no more, so that one whose filters
//! ask without end leaves some to the others.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::timeout;

/// How long a question waits for its answer: as long as a filter holds a request.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many questions are open.
pub(super) const MAX_WAITING: usize = 16_384;
/// How many of them are of one workload: every filter of a large one may ask at once.
const MAX_WORKLOAD_WAITING: usize = MAX_WAITING / 4;

/// Where questions are asked and answered.
#[derive(Debug)]
pub struct KeyDesk {
    ask: mpsc::Sender<KeyQuestion>,
    asked: Mutex<mpsc::Receiver<KeyQuestion>>,
    /// The version of the key ring that is on offer.
    offered: watch::Sender<u64>,
    /// Open questions, by workload.
    open: std::sync::Mutex<HashMap<String, usize>>,
}

/// Counts an open question of a workload.
struct Open<'d> {
    desk: &'d KeyDesk,
    workload: String,
}

/// Whether an issuer has a key by now.
#[derive(Debug)]
pub(super) struct KeyQuestion {
    /// Whose rules name the issuer: `namespace/name`.
    pub workload: String,
    /// Name of the TrustedIssuer.
    pub issuer: String,
    /// The `kid`; empty for a token that has none.
    pub key_id: String,
    /// The version of the key ring that has it; `None`: none has.
    pub answer: oneshot::Sender<Option<u64>>,
}

// === impl KeyDesk ===

impl KeyDesk {
    /// Whether the issuer has a key of this id by now, and what is on offer says so. At most a second later. That the
    /// workload's rules name the issuer is known.
    pub async fn has_key(&self, workload: String, issuer: String, key_id: String) -> bool {
        timeout(PATIENCE, self.look(workload, issuer, key_id)).await.ok().flatten().is_some()
    }

    async fn look(&self, workload: String, issuer: String, key_id: String) -> Option<()> {
        let _open = Open::enter(self, &workload)?;
        let (answer, answered) = oneshot::channel();
        self.ask.try_send(KeyQuestion { workload, issuer, key_id, answer }).ok()?;
        let version = answered.await.ok()??;
        self.offered.subscribe().wait_for(|offered| *offered >= version).await.ok()?;
        Some(())
    }

    /// What this version of the key ring says is on offer.
    pub fn offers(&self, version: u64) {
        self.offered.send_replace(version);
    }

    /// The next question.
    pub(super) async fn next(&self) -> KeyQuestion {
        match self.asked.lock().await.recv().await {
            Some(question) => question,
            // The other end lives as long as this one.
            None => std::future::pending().await,
        }
    }
}

impl Default for KeyDesk {
    fn default() -> Self {
        let (ask, asked) = mpsc::channel(MAX_WAITING);
        let open = std::sync::Mutex::default();
        Self { ask, asked: Mutex::new(asked), offered: watch::Sender::new(0), open }
    }
}

// === impl Open ===

impl<'d> Open<'d> {
    fn enter(desk: &'d KeyDesk, workload: &str) -> Option<Self> {
        let mut open = desk.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(workload.to_owned()).or_default();
        if *count >= MAX_WORKLOAD_WAITING {
            return None;
        }
        *count += 1;
        Some(Self { desk, workload: workload.to_owned() })
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut open = self.desk.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.workload) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.remove(&self.workload);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn asked(desk: &Arc<KeyDesk>) -> tokio::task::JoinHandle<bool> {
        let desk = desk.clone();
        tokio::spawn(
            async move { desk.has_key("a/a".to_owned(), "google".to_owned(), "k1".to_owned()).await },
        )
    }

    #[tokio::test(start_paused = true)]
    async fn one_workload_s_questions_leave_places_to_others() {
        let desk = Arc::new(KeyDesk::default());
        let ask = |workload: &str, number: usize| {
            let (desk, workload) = (desk.clone(), workload.to_owned());
            tokio::spawn(async move { desk.has_key(workload, "google".to_owned(), number.to_string()).await })
        };
        let flood: Vec<_> = (0..2 * MAX_WAITING).map(|number| ask("a/greedy", number)).collect();
        tokio::task::yield_now().await;
        let other = ask("a/other", 0);
        let mut answered = 0;
        while !other.is_finished() {
            let question = desk.next().await;
            answered += usize::from(question.workload == "a/greedy");
            question.answer.send((question.workload == "a/other").then_some(0)).ok();
            tokio::task::yield_now().await;
        }
        assert!(other.await.unwrap());
        assert!(answered <= MAX_WORKLOAD_WAITING, "{answered}");
        for asked in flood {
            assert!(!asked.await.unwrap());
        }
        assert!(desk.open.lock().unwrap().is_empty(), "nothing is counted for ever");
    }

    #[tokio::test(start_paused = true)]
    async fn yes_is_said_when_what_is_on_offer_has_the_key_and_not_before() {
        let desk = Arc::new(KeyDesk::default());
        desk.offers(1);
        let answer = asked(&desk);
        let question = desk.next().await;
        assert_eq!((question.issuer.as_str(), question.key_id.as_str()), ("google", "k1"));
        question.answer.send(Some(2)).unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!answer.is_finished());
        desk.offers(2);
        assert!(answer.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn no_is_said_at_once_and_silence_is_no_after_a_second() {
        let desk = Arc::new(KeyDesk::default());
        let answer = asked(&desk);
        desk.next().await.answer.send(None).unwrap();
        assert!(!answer.await.unwrap());

        let begin = tokio::time::Instant::now();
        let answer = asked(&desk);
        let question = desk.next().await;
        assert!(!answer.await.unwrap());
        assert_eq!(begin.elapsed(), PATIENCE);
        assert!(question.answer.is_closed());

        // Known, and never on offer.
        let answer = asked(&desk);
        desk.next().await.answer.send(Some(2)).unwrap();
        assert!(!answer.await.unwrap());
    }
}
