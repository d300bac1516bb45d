//! The leader's end of a stream between replicas: rounds down, and what the follower tells.
//!
//! Like a filter's session a state machine behind a response body: a slow follower makes no queue, but misses rounds between
//! and gets what is newest.
//!
//! INVARIANT: "listed" is answered only when everything was sent that was on offer when it became known. The VMs of a follower
//! are lost sight of with its stream. A replica that does not lead any more ends it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http_body::Frame;
use http_body_util::StreamBody;
use pb::follow_request::Message as Up;
use pb::follow_response::Message as Down;
use pb::relayed_question::Question;
use prost::Message as _;
use tidegate_identity::keys::MAX_KEY_ID_BYTES;
use tidegate_proto::v1 as pb;
use tokio::sync::watch;
use tonic::Status;
use tracing::info;

use super::round::Sent;
use super::uplink::{MAX_BATCHES, MAX_QUESTIONS};
use crate::bundle::Sha256;
use crate::clock;
use crate::push::fleet::Mirrored;
use crate::push::frames::framed;
use crate::push::hello::{MAX_INSTANCE, MAX_WORKLOAD};
use crate::push::inbound::{Inbound, Measured};
use crate::push::questions::Questions;
use crate::push::session::{MAX_DIRECTORY, MAX_ID, stopping, trailers};
use crate::push::sink::until_written;
use crate::push::{Hub, stopped};

/// Largest message of a follower: what it has is 34 bytes per section.
pub(in crate::push) const MAX_MESSAGE: usize = 1 << 20;
/// How long a follower may take to say who it is.
const GREETING: Duration = Duration::from_secs(10);

/// Runs the leader's end as the body of a response.
pub(in crate::push) fn body(
    hub: Arc<Hub>,
    inbound: Inbound<pb::FollowRequest>,
) -> impl http_body::Body<Data = Bytes, Error = Infallible> {
    let leading = Leading {
        stop: hub.stopping(),
        serves: hub.relay.serves.subscribe(),
        hub,
        inbound,
        outbox: VecDeque::new(),
        phase: Phase::Greeting,
    };
    StreamBody::new(futures_util::stream::unfold(leading, |mut leading| async move {
        let frame = leading.next().await?;
        Some((Ok(frame), leading))
    }))
}

struct Leading {
    hub: Arc<Hub>,
    inbound: Inbound<pb::FollowRequest>,
    stop: watch::Receiver<bool>,
    serves: watch::Receiver<bool>,
    outbox: VecDeque<Bytes>,
    phase: Phase,
}

enum Phase {
    Greeting,
    Serving(Box<Serving>),
    Ended,
}

/// A follower that is known.
struct Serving {
    hub: Arc<Hub>,
    replica: String,
    rounds: watch::Receiver<()>,
    /// Whether what is on offer was not looked at yet.
    fresh: bool,
    sent: Sent,
    mirrored: Mirrored,
    questions: Questions,
    batches: FuturesUnordered<BoxFuture<'static, (u64, Result<(), Status>)>>,
}

// === impl Leading ===

impl Leading {
    /// The next piece of the body; `None` at its end.
    async fn next(&mut self) -> Option<Frame<Bytes>> {
        loop {
            if let Some(data) = self.outbox.pop_front() {
                return Some(Frame::data(data));
            }
            let step = tokio::select! {
                // First: whoever does not lead says nothing else.
                biased;
                // An error means that the server is gone.
                _ = self.serves.wait_for(|serves| !serves), if !self.phase.is_over() => {
                    Err(Status::unavailable("this replica does not lead"))
                }
                () = stopped(&mut self.stop), if !self.phase.is_over() => Err(stopping()),
                step = self.phase.step(&self.hub, &mut self.inbound, &mut self.outbox) => step,
            };
            match step {
                Ok(Some(())) => {}
                Ok(None) => return None,
                Err(status) => {
                    // Dropping the phase loses sight of the follower's VMs.
                    self.phase = Phase::Ended;
                    return Some(Frame::trailers(trailers(&status)));
                }
            }
        }
    }
}

// === impl Phase ===

impl Phase {
    fn is_over(&self) -> bool {
        matches!(self, Self::Ended)
    }

    async fn step(
        &mut self,
        hub: &Arc<Hub>,
        inbound: &mut Inbound<pb::FollowRequest>,
        outbox: &mut VecDeque<Bytes>,
    ) -> Result<Option<()>, Status> {
        match self {
            Self::Greeting => {
                let first = tokio::time::timeout(GREETING, inbound.message()).await;
                let first = first.map_err(|_| Status::deadline_exceeded("no `follower` within 10 s"))??;
                let Some(Measured {
                    message: pb::FollowRequest { message: Some(Up::Follower(follower)) },
                    ..
                }) = first
                else {
                    return Err(Status::invalid_argument("the first message must be `follower`"));
                };
                *self = Self::Serving(Box::new(Serving::begin(hub, follower)?));
                Ok(Some(()))
            }
            Self::Serving(serving) => serving.step(inbound, outbox).await.map(Some),
            Self::Ended => Ok(None),
        }
    }
}

// === impl Serving ===

impl Serving {
    fn begin(hub: &Arc<Hub>, follower: pb::Follower) -> Result<Self, Status> {
        if follower.protocol_version != tidegate_proto::VERSION {
            return Err(Status::failed_precondition(format!(
                "`follower.protocol_version` is {}, and this replica speaks {}; install matching versions",
                follower.protocol_version,
                tidegate_proto::VERSION
            )));
        }
        if follower.replica.len() > MAX_INSTANCE || follower.replica.chars().any(char::is_control) {
            return Err(Status::invalid_argument(
                "`follower.replica`: at most 253 bytes without control characters",
            ));
        }
        let digests = follower.held_sections.iter().map(|digest| Sha256::try_from(digest.as_slice()));
        let held: Vec<Sha256> = digests.collect::<Result<_, _>>().map_err(|_| {
            Status::invalid_argument("`follower.held_sections`: a SHA-256 digest has 32 bytes")
        })?;
        info!(replica = follower.replica, "a replica follows");
        hub.relay.ask(follower.highest_epoch, clock::now());
        hub.metrics.followers.inc();
        Ok(Self {
            rounds: hub.distributor.rounds(),
            hub: hub.clone(),
            replica: follower.replica,
            fresh: true,
            sent: Sent::new(held),
            mirrored: Mirrored::default(),
            questions: Questions::new(MAX_QUESTIONS),
            batches: FuturesUnordered::new(),
        })
    }

    async fn step(
        &mut self,
        inbound: &mut Inbound<pb::FollowRequest>,
        outbox: &mut VecDeque<Bytes>,
    ) -> Result<(), Status> {
        if std::mem::take(&mut self.fresh) {
            self.rounds.mark_unchanged();
            // In this order: whoever loses a workload must not get what is offered to it now.
            let offered = self.hub.distributor.releases();
            if self.hub.distributor.is_ready()
                && let Some(members) = self.hub.relay.members()
            {
                let round = self.sent.round(&offered, members);
                outbox.extend(round.iter().flat_map(|round| round.iter().cloned()));
            }
            return Ok(());
        }
        if !self.rounds.has_changed().unwrap_or(false) {
            outbox.extend(self.questions.take_listed().into_iter().map(|nonce| answer(nonce, true)));
            if !outbox.is_empty() {
                return Ok(());
            }
        }
        tokio::select! {
            message = inbound.message() => match message? {
                Some(Measured { message, .. }) => self.take(message, outbox)?,
                None => return Err(Status::ok("the replica ended the stream")),
            },
            // The sender lives as long as the hub.
            _ = self.rounds.changed() => self.fresh = true,
            unlisted = self.questions.unlisted() => outbox.extend(unlisted.map(|nonce| answer(nonce, false))),
            Some((nonce, taken)) = self.batches.next() => outbox.push_back(records(nonce, taken.is_err())),
        }
        Ok(())
    }

    fn take(&mut self, request: pb::FollowRequest, outbox: &mut VecDeque<Bytes>) -> Result<(), Status> {
        match request.message {
            Some(Up::Filters(filters)) => {
                let now = clock::now();
                for report in filters.reports {
                    if !self.mirrored.take(&self.hub.fleet, report, now) {
                        return Err(Status::invalid_argument(
                            "`filters.reports`: not what a replica tells of a filter",
                        ));
                    }
                }
            }
            Some(Up::Question(question)) => {
                let nonce = question.nonce;
                let is_asked = self.answer(question).is_some_and(|answer| self.questions.ask(nonce, answer));
                if !is_asked {
                    outbox.push_back(answer(nonce, false));
                }
            }
            Some(Up::Uses(uses)) => {
                if uses.workload.len() <= MAX_WORKLOAD {
                    self.hub.uses.told(&uses.workload, &uses.uses.unwrap_or_default(), clock::now());
                }
            }
            Some(Up::Records(batch)) => {
                let nonce = batch.nonce;
                if !self.record(batch) {
                    outbox.push_back(records(nonce, true));
                }
            }
            // "Unknown message kinds are ignored by the receiver."
            Some(Up::Follower(_)) | None => {}
        }
        Ok(())
    }

    /// The answer to a question that may be one.
    fn answer(&self, asked: pb::RelayedQuestion) -> Option<BoxFuture<'static, bool>> {
        let (hub, workload) = (self.hub.clone(), asked.workload);
        if workload.len() > MAX_WORKLOAD {
            return None;
        }
        match asked.question? {
            Question::Lookup(lookup) => {
                let is_bounded = lookup.directory.len() <= MAX_DIRECTORY && lookup.id.len() <= MAX_ID;
                is_bounded.then(|| -> BoxFuture<'static, bool> {
                    Box::pin(async move { hub.look_up(&workload, &lookup.directory, &lookup.id).await })
                })
            }
            Question::KeyLookup(lookup) => {
                let is_bounded =
                    lookup.issuer.len() <= MAX_WORKLOAD && lookup.key_id.len() <= MAX_KEY_ID_BYTES;
                is_bounded.then(|| -> BoxFuture<'static, bool> {
                    Box::pin(async move { hub.has_key(workload, lookup.issuer, lookup.key_id).await })
                })
            }
        }
    }

    /// Takes a batch as one of a filter that is connected here. What is wrong with it is no fault of others at that replica.
    fn record(&mut self, records: pb::RelayedRecords) -> bool {
        let pb::RelayedRecords { nonce, workload, after, batch } = records;
        if self.batches.len() >= 2 * MAX_BATCHES || self.hub.distributor.release(&workload).is_none() {
            return false;
        }
        let raw = Bytes::from(batch);
        let Ok(message) = pb::ReportRequest::decode(raw.clone()) else { return false };
        let mut batches = self.hub.decisions.batches_after(&workload, after);
        let written = self.hub.decided(&mut batches, &message);
        let hub = self.hub.clone();
        self.batches.push(Box::pin(async move {
            let taken = match written {
                Some(written) => until_written(&hub, &workload, &raw, written).await,
                None => Ok(()),
            };
            (nonce, taken)
        }));
        true
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.mirrored.lose(&self.hub.fleet, clock::now());
        self.hub.metrics.followers.dec();
        info!(replica = self.replica, "a replica does not follow any more");
    }
}

fn records(nonce: u64, refused: bool) -> Bytes {
    let taken = pb::RecordsTaken { nonce, refused };
    framed(&pb::FollowResponse { message: Some(Down::RecordsTaken(taken)) })
}

fn answer(nonce: u64, listed: bool) -> Bytes {
    framed(&pb::FollowResponse { message: Some(Down::Answer(pb::LookupResult { nonce, listed })) })
}
