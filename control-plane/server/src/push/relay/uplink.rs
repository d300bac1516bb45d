//! What streams at a replica that follows have to do with the leader: questions, uses and records go there.
//!
//! INVARIANT: a question that is not answered is answered with no; a batch that the leader did not take is not acknowledged.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use pb::follow_request::Message as Up;
use pb::relayed_question::Question;
use tidegate_proto::v1 as pb;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tonic::Status;
use tracing::warn;

/// Messages that wait to be sent.
pub(super) const WAITING: usize = 1_024;
/// Questions that are open at once, of all filters here.
pub(super) const MAX_QUESTIONS: usize = 4_096;
/// Batches of records that the leader has not taken yet, of all filters here, and of one workload's.
pub(super) const MAX_BATCHES: usize = 64;
const MAX_OWN_BATCHES: usize = 16;
/// How many workloads' shares are remembered before those that nobody uses are forgotten.
const MAX_SHARES: usize = 1_024;

/// The way to a leader that can be reached.
#[derive(Debug)]
pub(crate) struct Link {
    up: mpsc::Sender<pb::FollowRequest>,
    /// Batches of records, for which nothing else waits.
    bulk: mpsc::Sender<pb::FollowRequest>,
    open: Mutex<Open>,
    batches: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Open {
    /// The stream is over: nobody will answer.
    is_ended: bool,
    last: u64,
    questions: BTreeMap<u64, oneshot::Sender<bool>>,
    batches: BTreeMap<u64, Sent>,
    /// Of each workload, leave to have batches on their way.
    shares: BTreeMap<String, Arc<Semaphore>>,
}

/// A batch that the leader has not answered. Whether or not anybody waits, it counts among those that are on their way.
#[derive(Debug)]
struct Sent {
    taken: oneshot::Sender<bool>,
    _leave: [OwnedSemaphorePermit; 2],
}

/// Forgets a question when nobody waits any more.
struct Asked<'l> {
    link: &'l Link,
    nonce: u64,
}

/// What travels to the leader: batches of records only where nothing else waits.
pub(super) fn in_turn(
    up: mpsc::Receiver<pb::FollowRequest>,
    bulk: mpsc::Receiver<pb::FollowRequest>,
) -> impl Stream<Item = pb::FollowRequest> {
    stream::unfold((up, bulk), |(mut up, mut bulk)| async move {
        let next = tokio::select! {
            biased;
            next = up.recv() => next?,
            Some(next) = bulk.recv() => next,
        };
        Some((next, (up, bulk)))
    })
}

// === impl Link ===

impl Link {
    pub(super) fn new(up: mpsc::Sender<pb::FollowRequest>, bulk: mpsc::Sender<pb::FollowRequest>) -> Self {
        Self { up, bulk, open: Mutex::default(), batches: Arc::new(Semaphore::new(MAX_BATCHES)) }
    }

    /// What the leader says to a question of this workload's filter.
    pub(crate) async fn ask(&self, workload: &str, question: Question) -> bool {
        let (sender, answer) = oneshot::channel();
        let nonce = {
            let mut open = self.lock();
            if open.is_ended || open.questions.len() >= MAX_QUESTIONS {
                return false;
            }
            let nonce = open.next();
            open.questions.insert(nonce, sender);
            nonce
        };
        let _asked = Asked { link: self, nonce };
        let question = pb::RelayedQuestion { nonce, workload: workload.to_owned(), question: Some(question) };
        self.up.send(request(Up::Question(question))).await.is_ok() && answer.await.unwrap_or(false)
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
        let share = self.lock().share(workload);
        // They are never closed. The workload's own first: its batches wait for each other, and not for those of others.
        let own = share.acquire_owned().await.map_err(|_| again())?;
        let all = self.batches.clone().acquire_owned().await.map_err(|_| again())?;
        let (sender, taken) = oneshot::channel();
        let nonce = {
            let mut open = self.lock();
            if open.is_ended {
                return Err(again());
            }
            let nonce = open.next();
            open.batches.insert(nonce, Sent { taken: sender, _leave: [own, all] });
            nonce
        };
        let records =
            pb::RelayedRecords { nonce, workload: workload.to_owned(), after, batch: batch.to_vec() };
        self.bulk.send(request(Up::Records(records))).await.map_err(|_| again())?;
        match taken.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Status::unavailable(
                "the replica that leads does not take this batch; its log says why, send it again",
            )),
            Err(_) => Err(again()),
        }
    }

    pub(super) fn answered(&self, answer: &pb::LookupResult) {
        if let Some(waits) = self.lock().questions.remove(&answer.nonce) {
            // An error means that nobody waits any more.
            let _ = waits.send(answer.listed);
        }
    }

    pub(super) fn taken(&self, answer: &pb::RecordsTaken) {
        if let Some(sent) = self.lock().batches.remove(&answer.nonce) {
            let _ = sent.taken.send(!answer.refused);
        }
    }

    /// The stream has ended: whoever waits is told so, and whoever comes later.
    pub(super) fn end(&self) {
        let mut open = self.lock();
        open.is_ended = true;
        open.questions.clear();
        open.batches.clear();
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

    fn share(&mut self, workload: &str) -> Arc<Semaphore> {
        if self.shares.len() >= MAX_SHARES {
            self.shares.retain(|_, share| Arc::strong_count(share) > 1);
        }
        let share = self.shares.entry(workload.to_owned());
        share.or_insert_with(|| Arc::new(Semaphore::new(MAX_OWN_BATCHES))).clone()
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.link.lock().questions.remove(&self.nonce);
    }
}

pub(super) fn request(message: Up) -> pb::FollowRequest {
    pb::FollowRequest { message: Some(message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Requests = mpsc::Receiver<pb::FollowRequest>;

    fn link(waiting: usize) -> (Arc<Link>, Requests, Requests) {
        let ((up, requests), (bulk, batches)) = (mpsc::channel(waiting), mpsc::channel(MAX_BATCHES));
        (Arc::new(Link::new(up, bulk)), requests, batches)
    }

    fn lookup(id: &str) -> Question {
        Question::Lookup(pb::Lookup { nonce: 0, directory: "jobs".into(), id: id.into() })
    }

    fn record(link: &Arc<Link>, workload: &'static str) -> tokio::task::JoinHandle<Result<(), Status>> {
        let link = link.clone();
        tokio::spawn(async move { link.record(workload, 6, Bytes::from_static(b"batch")).await })
    }

    #[tokio::test]
    async fn questions_are_answered_each_with_its_own_answer_and_with_no_when_the_stream_ends() {
        let (link, mut sent, _batches) = link(4);
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
        let (link, _sent, _batches) = link(2 * MAX_QUESTIONS);
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
        let (link, _up, mut sent) = link(4);
        let all = [record(&link, "a/a"), record(&link, "a/a"), record(&link, "a/a")];
        let mut nonces = Vec::new();
        for _ in 0..3 {
            let Some(Up::Records(records)) = sent.recv().await.unwrap().message else { panic!() };
            let told = (records.workload.as_str(), records.after, &records.batch[..]);
            assert_eq!(told, ("a/a", 6, &b"batch"[..]));
            nonces.push(records.nonce);
        }
        link.taken(&pb::RecordsTaken { nonce: nonces[0], refused: false });
        link.taken(&pb::RecordsTaken { nonce: nonces[1], refused: true });
        link.end();
        let mut taken = 0;
        for one in all {
            match one.await.unwrap() {
                Ok(()) => taken += 1,
                Err(refused) => assert_eq!(refused.code(), tonic::Code::Unavailable),
            }
        }
        assert_eq!(taken, 1);
        drop(sent);
        assert!(record(&link, "a/a").await.unwrap().is_err(), "nobody is there");
    }

    /// Nobody would ever answer.
    #[tokio::test(start_paused = true)]
    async fn what_comes_after_the_end_does_not_wait() {
        let (link, _up, _sent) = link(4);
        let waiting: Vec<_> = (0..MAX_OWN_BATCHES + 3).map(|_| record(&link, "a/a")).collect();
        while link.lock().batches.len() < MAX_OWN_BATCHES {
            tokio::task::yield_now().await;
        }
        link.end();
        let within = async |one| tokio::time::timeout(std::time::Duration::from_secs(60), one).await;
        for one in waiting {
            assert!(within(one).await.expect("it waits for ever").unwrap().is_err());
        }
        assert!(within(record(&link, "a/a")).await.expect("it waits for ever").unwrap().is_err());
        let asked = tokio::time::timeout(std::time::Duration::from_secs(60), link.ask("a/a", lookup("1")));
        assert!(!asked.await.expect("it waits for ever"));
    }

    #[tokio::test]
    async fn one_workload_has_no_more_than_its_share_on_its_way_also_of_what_nobody_waits_for() {
        let (link, _up, mut sent) = link(4);
        let many: Vec<_> = (0..2 * MAX_BATCHES).map(|_| record(&link, "a/a")).collect();
        while link.lock().batches.len() < MAX_OWN_BATCHES {
            tokio::task::yield_now().await;
        }
        for one in many {
            one.abort();
            let _ = one.await;
        }
        let late = record(&link, "a/a");
        let other = record(&link, "b/b");
        let mut workloads = Vec::new();
        for _ in 0..=MAX_OWN_BATCHES {
            let Some(Up::Records(records)) = sent.recv().await.unwrap().message else { panic!() };
            workloads.push(records.workload);
        }
        assert_eq!(workloads.iter().filter(|workload| *workload == "b/b").count(), 1);
        assert!(!late.is_finished() && link.lock().batches.len() == MAX_OWN_BATCHES + 1);
        other.abort();
        late.abort();
    }

    #[tokio::test]
    async fn nothing_waits_for_batches() {
        let (link, up, batches) = link(4);
        let many: Vec<_> = (0..3).map(|_| record(&link, "a/a")).collect();
        while link.lock().batches.len() < 3 {
            tokio::task::yield_now().await;
        }
        link.told("a/a", pb::Uses::default());
        let mut requests = std::pin::pin!(in_turn(up, batches));
        let first = futures_util::StreamExt::next(&mut requests).await.unwrap();
        assert!(matches!(first.message, Some(Up::Uses(_))), "{first:?}");
        let second = futures_util::StreamExt::next(&mut requests).await.unwrap();
        assert!(matches!(second.message, Some(Up::Records(_))), "{second:?}");
        many.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
