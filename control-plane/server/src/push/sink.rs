//! Takes decision records from filters.
//!
//! INVARIANT: records are those of the workload that their peer is, whatever they say. Nothing else a record says is trusted,
//! and no label comes from it.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message as _;
use tidegate_proto::v1 as pb;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tonic::Status;
use tracing::warn;

use super::Hub;
use super::hello::{Proven, identify, validate_hint};
use super::inbound::{Inbound, Measured};
use super::server::Sender;
use super::session::{stopping, trailers};
use super::stopped;
use crate::decisions::Batches;
use crate::metrics::{DecisionLabel, ReasonLabel, WorkloadLabel};
use crate::transport::{StreamPass, VerifiedPeer};

/// Most records of a batch: one takes two bytes at least, and several hundred when it is read.
const MAX_RECORDS: usize = 1_024;
/// How many batches wait for who takes them.
const MAX_WAITING: usize = 64;

/// A batch of decision records of a workload.
#[derive(Debug, Clone, PartialEq)]
pub struct Reported {
    /// `namespace/name`: the workload that the peer is, not one that it says.
    pub workload: String,
    /// Whose certificate it was; absent where nobody was asked.
    pub peer: Option<Arc<VerifiedPeer>>,
    /// What the filter says, about itself and about requests.
    pub batch: pb::ReportRequest,
}

/// Where batches go. Nobody has to take them.
#[derive(Debug, Default)]
pub struct Records {
    taker: OnceLock<mpsc::Sender<Reported>>,
}

// === impl Records ===

impl Records {
    /// From now on every batch comes here, and is acknowledged when there is a place for it: filters keep what is not.
    /// `None`: somebody takes them already.
    pub fn take(&self) -> Option<mpsc::Receiver<Reported>> {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        self.taker.set(sender).ok().map(|()| receiver)
    }

    /// Resolves when the batch has a place, or when nobody takes any.
    async fn hand_on(&self, reported: Reported) {
        if let Some(taker) = self.taker.get() {
            // An error means that who took them has ended, and with it the process does.
            let _ = taker.send(reported).await;
        }
    }
}

/// Runs a stream of records as the body of its response, which acknowledges them.
pub(super) fn body(
    hub: Arc<Hub>,
    sender: Sender,
    inbound: Inbound<pb::ReportRequest>,
) -> impl http_body::Body<Data = Bytes, Error = Infallible> {
    let reporting = Reporting { hub, sender: Some(sender), inbound, from: None };
    StreamBody::new(futures_util::stream::unfold(Some(reporting), |reporting| async move {
        let mut reporting = reporting?;
        match reporting.next().await {
            Ok(taken) => Some((Ok(Frame::data(taken)), Some(reporting))),
            Err(status) => Some((Ok(Frame::trailers(trailers(&status))), None)),
        }
    }))
}

/// A stream of records.
struct Reporting {
    hub: Arc<Hub>,
    /// Until the first batch.
    sender: Option<Sender>,
    inbound: Inbound<pb::ReportRequest>,
    /// From the first batch on.
    from: Option<Reporter>,
}

/// Whose records come.
struct Reporter {
    /// `namespace/name`, of the peer.
    workload: String,
    /// Absent where nobody was asked.
    proven: Option<Proven>,
    identified_until: Instant,
    pass: Option<StreamPass>,
    batches: Batches,
}

// === impl Reporting ===

impl Reporting {
    /// The next acknowledgement.
    async fn next(&mut self) -> Result<Bytes, Status> {
        let batch = self.batch().await?;
        if batch.message.records.len() > MAX_RECORDS {
            return Err(self.refuse("too_many_records", Status::invalid_argument("`records`: at most 1024")));
        }
        if let Some(sender) = self.sender.take() {
            let from = Reporter::begin(&self.hub, &batch.message, sender);
            self.from = Some(from.map_err(|status| self.refuse_stranger(status))?);
        }
        let Some(from) = &mut self.from else {
            return Err(Status::internal("nobody said whose records these are"));
        };
        let paid = from.pay(&self.hub, batch.bytes);
        let own = from.check(&self.hub, &batch.message);
        paid?;
        own.map_err(|status| self.refuse_stranger(status))?;
        let sequence = batch.message.sequence;
        if let Some(from) = &mut self.from {
            from.count(&self.hub, &batch.message);
            self.hub.decided(&mut from.batches, &batch.message);
            let reported = from.reported(batch.message);
            let mut stop = self.hub.stopping();
            tokio::select! {
                () = self.hub.records.hand_on(reported) => {}
                () = stopped(&mut stop) => return Err(stopping()),
            }
        }
        let taken = pb::ReportResponse { sequence }.encode_to_vec();
        let length = u32::try_from(taken.len()).unwrap_or(u32::MAX).to_be_bytes();
        Ok([&[0], &length[..], &taken].concat().into())
    }

    async fn batch(&mut self) -> Result<Measured<pb::ReportRequest>, Status> {
        let mut stop = self.hub.stopping();
        loop {
            // Until the first batch it is nobody's stream; it is opened before there is anything to say.
            let proven = self.from.as_ref().filter(|from| from.proven.is_some());
            let until = proven.map(|from| from.identified_until);
            tokio::select! {
                batch = self.inbound.message() => {
                    return batch?.ok_or_else(|| Status::ok("the filter ended the stream"));
                }
                () = stopped(&mut stop) => return Err(stopping()),
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                    let again = self.from.as_mut().map_or(Ok(()), |from| from.identify_again(&self.hub));
                    again.map_err(|status| self.refuse_stranger(status))?;
                }
            }
        }
    }

    fn refuse_stranger(&self, status: Status) -> Status {
        let reason = if status.code() == tonic::Code::PermissionDenied { "not_its_own" } else { "invalid" };
        self.refuse(reason, status)
    }

    fn refuse(&self, reason: &'static str, status: Status) -> Status {
        self.hub.metrics.refused_reports.get_or_create(&ReasonLabel::new(reason)).inc();
        warn!(reason, "decision records are refused: {}", status.message());
        status
    }
}

// === impl Reporter ===

impl Reporter {
    fn begin(hub: &Hub, first: &pb::ReportRequest, sender: Sender) -> Result<Self, Status> {
        validate_hint(first.workload.as_ref())?;
        let (workload, proven) = identify(hub, first.workload.as_ref(), sender.caller)?;
        let batches = hub.decisions.batches(&workload);
        Ok(Self { workload, proven, identified_until: hub.identified_until(), pass: sender.pass, batches })
    }

    /// Meters a batch.
    fn pay(&mut self, hub: &Hub, bytes: usize) -> Result<(), Status> {
        let Some(pass) = &mut self.pass else { return Ok(()) };
        pass.message(bytes).map_err(|exceeded| hub.exceeded(exceeded, &self.workload))
    }

    /// Whether a batch says nothing else than the first one.
    fn check(&self, hub: &Hub, batch: &pb::ReportRequest) -> Result<(), Status> {
        if hub.distributor.release(&self.workload).is_none() {
            return Err(Status::not_found(
                "the workload has no Bundle; `workload` must be the one of this filter",
            ));
        }
        match &batch.workload {
            Some(hint) if !hint.workload.is_empty() && hint.workload != self.workload => {
                Err(Status::permission_denied(format!(
                    "these records are of workload `{}`, as the certificate and the first batch say; a batch that names another \
                 one is not taken",
                    self.workload
                )))
            }
            _ => Ok(()),
        }
    }

    fn identify_again(&mut self, hub: &Hub) -> Result<(), Status> {
        self.identified_until = hub.identified_until();
        self.proven.as_ref().map_or(Ok(()), |proven| proven.again(hub, &self.workload))
    }

    fn reported(&self, batch: pb::ReportRequest) -> Reported {
        let peer = self.proven.as_ref().map(|proven| proven.peer().clone());
        Reported { workload: self.workload.clone(), peer, batch }
    }

    fn count(&self, hub: &Hub, batch: &pb::ReportRequest) {
        for record in &batch.records {
            let outcome = match record.outcome() {
                pb::Outcome::Allow => "allow",
                pb::Outcome::Deny => "deny",
                pb::Outcome::Unspecified => "unspecified",
            };
            let label = DecisionLabel { workload: self.workload.clone(), outcome };
            hub.metrics.decisions.get_or_create(&label).inc();
        }
        if batch.dropped > 0 {
            let label = WorkloadLabel { workload: self.workload.clone() };
            hub.metrics.decisions_dropped.get_or_create(&label).inc_by(batch.dropped);
        }
    }
}
