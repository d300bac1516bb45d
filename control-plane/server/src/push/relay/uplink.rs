//! What streams at a replica that follows have to do with the leader: questions, uses and records go there.
//!
//! INVARIANT: a question that is not answered is answered with no; a batch that the leader did not take is not acknowledged.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use pb::follow_request::Message as Up;
use pb::relayed_question::Question;
use tidegate_proto::v1 as pb;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tonic::Status;
use tracing::warn;

/// Messages that wait to be sent.
pub(super) const WAITING: usize = 1_024;
/// Questions that are open at once, of all filters here.
pub(super) const MAX_QUESTIONS: usize = 4_096;
/// Batches of records that the leader has not taken yet, of all filters here.
pub(super) const MAX_BATCHES: usize = 64;

/// The way to a leader that can be reached.
#[derive(Debug)]
pub(crate) struct Link {
    up: mpsc::Sender<pb::FollowRequest>,
    open: Mutex<Open>,
    batches: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Open {
    last: u64,
    questions: BTreeMap<u64, oneshot::Sender<bool>>,
    batches: BTreeMap<u64, oneshot::Sender<()>>,
}

/// Forgets a question when nobody waits any more.
struct Asked<'l> {
    link: &'l Link,
    nonce: u64,
}

// === impl Link ===

impl Link {
    pub(super) fn new(up: mpsc::Sender<pb::FollowRequest>) -> Self {
        Self { up, open: Mutex::default(), batches: Arc::new(Semaphore::new(MAX_BATCHES)) }
    }

    /// What the leader says to a question of this workload's filter.
    pub(crate) async fn ask(&self, workload: &str, question: Question) -> bool {
        let (sender, answer) = oneshot::channel();
        let nonce = {
            let mut open = self.lock();
            if open.questions.len() >= MAX_QUESTIONS {
                return false;
            }
            let nonce = open.next();
            open.questions.insert(nonce, sender);
            nonce
        };
        let _asked = Asked { link: self, nonce };
        let question = pb::RelayedQuestion { nonce, workload: workload.to_owned(), question: Some(question) };
        self.send(Up::Question(question)).await.is_ok() && answer.await.unwrap_or(false)
    }

    /// Tells which rules and keys a filter of this workload used.
    pub(crate) fn told(&self, workload: &str, uses: pb::Uses) {
        let uses = pb::RelayedUses { workload: workload.to_owned(), uses: Some(uses) };
        if self.up.try_send(request(Up::Uses(uses))).is_err() {
            warn!(workload, "uses are lost that a filter told: the replica that leads takes nothing");
        }
    }

    /// Resolves when the leader has taken a batch as safely as it takes those of its own filters.
    pub(crate) async fn record(&self, workload: &str, after: u64, batch: Bytes) -> Result<(), Status> {
        let again = || {
            Status::unavailable(
                "the replica that leads could not be told; the batch is not taken, send it again",
            )
        };
        // It is never closed.
        let _permit = self.batches.clone().acquire_owned().await.map_err(|_| again())?;
        let (sender, taken) = oneshot::channel();
        let nonce = {
            let mut open = self.lock();
            let nonce = open.next();
            open.batches.insert(nonce, sender);
            nonce
        };
        let _asked = Asked { link: self, nonce };
        let records =
            pb::RelayedRecords { nonce, workload: workload.to_owned(), after, batch: batch.to_vec() };
        self.send(Up::Records(records)).await.map_err(|()| again())?;
        taken.await.map_err(|_| again())
    }

    pub(super) fn answered(&self, answer: &pb::LookupResult) {
        if let Some(waits) = self.lock().questions.remove(&answer.nonce) {
            // An error means that nobody waits any more.
            let _ = waits.send(answer.listed);
        }
    }

    pub(super) fn taken(&self, nonce: u64) {
        if let Some(waits) = self.lock().batches.remove(&nonce) {
            let _ = waits.send(());
        }
    }

    /// The stream has ended: whoever waits is told so.
    pub(super) fn end(&self) {
        let mut open = self.lock();
        open.questions.clear();
        open.batches.clear();
    }

    async fn send(&self, message: Up) -> Result<(), ()> {
        self.up.send(request(message)).await.map_err(|_| ())
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Open ===

impl Open {
    fn next(&mut self) -> u64 {
        self.last = self.last.wrapping_add(1);
        self.last
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let mut open = self.link.lock();
        open.questions.remove(&self.nonce);
        open.batches.remove(&self.nonce);
    }
}

pub(super) fn request(message: Up) -> pb::FollowRequest {
    pb::FollowRequest { message: Some(message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(id: &str) -> Question {
        Question::Lookup(pb::Lookup { nonce: 0, directory: "jobs".into(), id: id.into() })
    }

    #[tokio::test]
    async fn questions_are_answered_each_with_its_own_answer_and_with_no_when_the_stream_ends() {
        let (up, mut sent) = mpsc::channel(4);
        let link = Arc::new(Link::new(up));
        let ask = |id: &'static str| {
            let link = link.clone();
            tokio::spawn(async move { link.ask("a/a", lookup(id)).await })
        };
        let asked = [ask("1"), ask("2"), ask("3")];
        let mut nonces = BTreeMap::new();
        for _ in 0..3 {
            let Some(Up::Question(question)) = sent.recv().await.unwrap().message else { panic!() };
            let Some(Question::Lookup(lookup)) = question.question else { panic!() };
            nonces.insert(lookup.id, question.nonce);
        }
        link.answered(&pb::LookupResult { nonce: nonces["1"], listed: true });
        link.answered(&pb::LookupResult { nonce: nonces["2"], listed: false });
        link.answered(&pb::LookupResult { nonce: 99, listed: true });
        let [one, two, three] = asked;
        assert!(one.await.unwrap());
        assert!(!two.await.unwrap());
        link.end();
        assert!(!three.await.unwrap());
        assert!(link.lock().questions.is_empty());
    }

    #[tokio::test]
    async fn who_gives_up_is_forgotten_and_too_many_questions_are_answered_with_no() {
        let (up, _sent) = mpsc::channel(2 * MAX_QUESTIONS);
        let link = Arc::new(Link::new(up));
        let asked: Vec<_> = (0..MAX_QUESTIONS)
            .map(|_| {
                let link = link.clone();
                tokio::spawn(async move { link.ask("a/a", lookup("1")).await })
            })
            .collect();
        while link.lock().questions.len() < MAX_QUESTIONS {
            tokio::task::yield_now().await;
        }
        assert!(!link.ask("a/a", lookup("1")).await);
        for one in asked {
            one.abort();
            let _ = one.await;
        }
        assert!(link.lock().questions.is_empty());
    }

    #[tokio::test]
    async fn a_batch_counts_as_taken_only_when_the_leader_says_so() {
        let (up, mut sent) = mpsc::channel(4);
        let link = Arc::new(Link::new(up));
        let record = || {
            let link = link.clone();
            tokio::spawn(async move { link.record("a/a", 6, Bytes::from_static(b"batch")).await })
        };
        let (first, second) = (record(), record());
        let mut nonces = Vec::new();
        for _ in 0..2 {
            let Some(Up::Records(records)) = sent.recv().await.unwrap().message else { panic!() };
            assert_eq!(
                (records.workload.as_str(), records.after, &records.batch[..]),
                ("a/a", 6, &b"batch"[..])
            );
            nonces.push(records.nonce);
        }
        link.taken(nonces[0]);
        link.end();
        let results = [first.await.unwrap(), second.await.unwrap()];
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        let refused = results.into_iter().find_map(Result::err).unwrap();
        assert_eq!(refused.code(), tonic::Code::Unavailable);
        drop(sent);
        assert!(record().await.unwrap().is_err(), "nobody is there");
    }
}
