//! Takes decision records from filters.
//!
//! Who sends more than its share waits ([`crate::transport`]): its stream is not read on and nothing is acknowledged, so that
//! its filters keep what they cannot send, and say what they had to drop. A batch that waits is not decoded yet.
//!
//! A replica that follows another one keeps none: they go to the leader, and are acknowledged when it has taken them.
//!
//! INVARIANT: records are those of the workload that their peer is, whatever they say. Nothing else a record says is trusted,
//! and no label comes from it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::future::{BoxFuture, OptionFuture};
use futures_util::stream::{FuturesOrdered, StreamExt};
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message as _;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use tidegate_proto::v1 as pb;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::Status;
use tracing::warn;

use super::Hub;
use super::hello::{Proven, identify, validate_hint};
use super::inbound::Inbound;
use super::relay::Role;
use super::server::Sender;
use super::session::{stopping, trailers};
use super::stopped;
use crate::decisions::{Batches, Written};
use crate::metrics::{DecisionLabel, ReasonLabel, WorkloadLabel};
use crate::transport::{Caller, MAX_RECORDS, StreamPass, Unfinished};

/// First and longest pause before it is tried again to keep what is required.
const AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(8));
/// How long a stream whose end is decided waits for what was taken to be written: what is not acknowledged comes again.
const AT_THE_END: Duration = Duration::from_secs(10);
/// Batches of a stream that are read while earlier ones are not written: as many as a filter sends ahead.
const MAX_PENDING: usize = 4;
/// `ReportRequest.records`.
const RECORDS_TAG: u32 = 3;

/// Runs a stream of records as the body of its response, which acknowledges them.
pub(super) fn body(
    hub: Arc<Hub>,
    sender: Sender,
    inbound: Inbound<pb::ReportRequest>,
) -> impl http_body::Body<Data = Bytes, Error = Infallible> {
    let Sender { caller, pass } = sender;
    let reader = Reader { hub: hub.clone(), inbound, pass };
    let reporting = Reporting {
        hub,
        caller,
        reader: Some(reader),
        reading: None,
        pending: FuturesOrdered::new(),
        from: None,
        end: None,
    };
    StreamBody::new(futures_util::stream::unfold(Some(reporting), |reporting| async move {
        let mut reporting = reporting?;
        match reporting.next().await {
            Ok(sequence) => Some((Ok(Frame::data(acknowledgement(sequence))), Some(reporting))),
            Err(status) => Some((Ok(Frame::trailers(trailers(&status))), None)),
        }
    }))
}

fn acknowledgement(sequence: u64) -> Bytes {
    let taken = pb::ReportResponse { sequence }.encode_to_vec();
    let length = u32::try_from(taken.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[0], &length[..], &taken].concat().into()
}

/// A stream of records.
struct Reporting {
    hub: Arc<Hub>,
    /// Until the first batch.
    caller: Option<Caller>,
    /// While nothing is read.
    reader: Option<Reader>,
    reading: Option<BoxFuture<'static, (Reader, ReadBatch)>>,
    /// Batches that are taken and not acknowledged yet, by their sequence.
    pending: FuturesOrdered<BoxFuture<'static, Result<u64, Status>>>,
    /// From the first batch on.
    from: Option<Reporter>,
    /// How it ends, when what was taken is acknowledged, or then at the latest: nothing more is read.
    end: Option<(Status, Instant)>,
}

/// A batch; `None`: the caller has ended the stream.
type ReadBatch = Result<Option<Batch>, Status>;

/// Reads batches.
struct Reader {
    hub: Arc<Hub>,
    inbound: Inbound<pb::ReportRequest>,
    /// Absent where nobody was asked.
    pass: Option<StreamPass>,
}

/// Whose records come.
struct Reporter {
    /// Absent where nobody was asked.
    proven: Option<Proven>,
    identified_until: Instant,
    batches: Batches,
}

/// A batch that is paid for.
struct Batch {
    message: pb::ReportRequest,
    raw: Bytes,
    /// It had to wait.
    waited: bool,
    /// Until it is acknowledged, others of the same principal may have to wait, and what was sent is held.
    held: Option<(OwnedSemaphorePermit, Unfinished)>,
}

// === impl Reporting ===

impl Reporting {
    /// The next batch that is to be acknowledged. Meanwhile it is looked at whether the stream may go on.
    async fn next(&mut self) -> Result<u64, Status> {
        let mut stop = self.hub.stopping();
        loop {
            if self.pending.len() < MAX_PENDING
                && let Some(reader) = self.reader.take()
            {
                self.reading = Some(Box::pin(reader.read()));
            }
            if let Some((end, _)) = self.end.take_if(|_| self.pending.is_empty()) {
                return Err(end);
            }
            let latest = self.end.as_ref().map(|(_, latest)| *latest);
            // Until the first batch it is nobody's stream; it is opened before there is anything to say.
            let proven = self.from.as_ref().filter(|from| from.proven.is_some());
            let until = proven.map(|from| from.identified_until);
            let read = OptionFuture::from(self.reading.as_mut());
            tokio::select! {
                Some(written) = self.pending.next() => return written,
                Some((reader, batch)) = read => {
                    self.reading = None;
                    let taken = match batch {
                        Ok(Some(batch)) => self.take(batch),
                        Ok(None) => Err(Status::ok("the filter ended the stream")),
                        Err(status) => Err(status),
                    };
                    match taken {
                        Ok(()) => self.reader = Some(reader),
                        Err(end) => self.end = Some((end, Instant::now() + AT_THE_END)),
                    }
                }
                () = stopped(&mut stop) => return Err(stopping()),
                () = sleep_until(latest.unwrap_or_else(Instant::now)), if latest.is_some() => {
                    // Its end is due now.
                    self.pending = FuturesOrdered::new();
                }
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                    let again = self.from.as_mut().map_or(Ok(()), |from| from.identify_again(&self.hub));
                    again.map_err(|status| refuse_stranger(&self.hub, status))?;
                }
            }
        }
    }

    fn take(&mut self, batch: Batch) -> Result<(), Status> {
        let from = match &mut self.from {
            Some(from) => from,
            None => {
                let from = Reporter::begin(&self.hub, &batch.message, self.caller.take());
                self.from.insert(from.map_err(|status| refuse_stranger(&self.hub, status))?)
            }
        };
        from.check(&self.hub, &batch.message).map_err(|status| refuse_stranger(&self.hub, status))?;
        from.count(&self.hub, &batch);
        let Batch { message, raw, held, .. } = batch;
        if let Role::Follower(leader) = self.hub.relay.role() {
            let leader = leader.ok_or_else(|| {
                Status::unavailable(
                    "the replica that leads, which keeps records, cannot be reached; send them again",
                )
            })?;
            let (workload, sequence) = (from.workload().to_owned(), message.sequence);
            let after = from.batches.pass(sequence);
            self.pending.push_back(Box::pin(async move {
                leader.record(&workload, after, raw).await?;
                drop(held);
                Ok(sequence)
            }));
            return Ok(());
        }
        let written = self.hub.decided(&mut from.batches, &message);
        let (hub, workload, sequence) = (self.hub.clone(), from.workload().to_owned(), message.sequence);
        self.pending.push_back(Box::pin(async move {
            if let Some(written) = written {
                until_written(&hub, &workload, &raw, written).await?;
            }
            drop(held);
            Ok(sequence)
        }));
        Ok(())
    }
}

/// Resolves when all that is required of a batch is written. What could not be is tried again: it is not acknowledged before,
/// and the filter lets nothing pass for which it has no room.
pub(super) async fn until_written(
    hub: &Hub,
    workload: &str,
    raw: &Bytes,
    mut written: Written,
) -> Result<(), Status> {
    let (first, longest) = AGAIN;
    let mut pause = first;
    loop {
        let unwritten = written.unwritten().await;
        if unwritten.is_empty() {
            return Ok(());
        }
        sleep(pause).await;
        pause = (pause * 2).min(longest);
        let batch = pb::ReportRequest::decode(raw.clone())
            .map_err(|error| Status::internal(format!("what was read cannot be read again: {error}")))?;
        match hub.decided_again(workload, &batch, &unwritten) {
            Some(again) => written = again,
            None => return Ok(()),
        }
    }
}

// === impl Reader ===

impl Reader {
    async fn read(mut self) -> (Self, ReadBatch) {
        let batch = self.next().await;
        (self, batch)
    }

    /// The next batch, when it is its turn and paid for.
    async fn next(&mut self) -> ReadBatch {
        let Self { hub, inbound, pass } = self;
        if !inbound.begins().await? {
            return Ok(None);
        }
        let turn = match pass {
            Some(pass) => pass.turn().await,
            None => None,
        };
        inbound.go_on();
        let Some(raw) = inbound.raw().await? else { return Ok(None) };
        let malformed = |error| Status::invalid_argument(format!("malformed message: {error}"));
        let records = records(&raw).map_err(malformed)?;
        if records > MAX_RECORDS {
            let status = Status::invalid_argument("`records`: at most 1024");
            return Err(refuse(hub, "too_many_records", status));
        }
        let exceeded = |exceeded| hub.exceeded(exceeded, "decision records");
        let (mut wait, mut held) = (Duration::ZERO, None);
        if let (Some(pass), Some(turn)) = (pass, turn) {
            let mut unfinished = pass.unfinished();
            unfinished.hold(raw.len()).map_err(exceeded)?;
            wait = pass.batch(records, raw.len()).map_err(exceeded)?;
            held = Some((turn, unfinished));
        }
        if !wait.is_zero() {
            sleep(wait).await;
        }
        let raw = raw.freeze();
        let message = pb::ReportRequest::decode(raw.clone()).map_err(malformed)?;
        // "A batch with one that the control plane does not know is refused."
        if let Some(record) = message.records.iter().find(|one| pb::Audit::try_from(one.audit).is_err()) {
            let what = format!("`records.audit`: unknown value {}; install matching versions", record.audit);
            return Err(refuse(hub, "unknown_audit", Status::invalid_argument(what)));
        }
        Ok(Some(Batch { message, raw, waited: !wait.is_zero(), held }))
    }
}

/// How many records a batch has: one takes two bytes at least, and several hundred when it is decoded.
fn records(mut batch: &[u8]) -> Result<usize, prost::DecodeError> {
    let mut records = 0_usize;
    while batch.has_remaining() {
        let (tag, wire_type) = decode_key(&mut batch)?;
        records = records.saturating_add(usize::from(tag == RECORDS_TAG));
        skip_field(wire_type, tag, &mut batch, DecodeContext::default())?;
    }
    Ok(records)
}

fn refuse_stranger(hub: &Hub, status: Status) -> Status {
    let reason = if status.code() == tonic::Code::PermissionDenied { "not_its_own" } else { "invalid" };
    refuse(hub, reason, status)
}

fn refuse(hub: &Hub, reason: &'static str, status: Status) -> Status {
    hub.metrics.refused_reports.get_or_create(&ReasonLabel::new(reason)).inc();
    warn!(reason, "decision records are refused: {}", status.message());
    status
}

// === impl Reporter ===

impl Reporter {
    fn begin(hub: &Hub, first: &pb::ReportRequest, caller: Option<Caller>) -> Result<Self, Status> {
        validate_hint(first.workload.as_ref())?;
        let (workload, proven) = identify(hub, first.workload.as_ref(), caller)?;
        let batches = hub.decisions.batches(&workload);
        Ok(Self { proven, identified_until: hub.identified_until(), batches })
    }

    /// `namespace/name`, of the peer.
    fn workload(&self) -> &str {
        self.batches.workload()
    }

    /// Whether a batch says nothing else than the first one.
    fn check(&self, hub: &Hub, batch: &pb::ReportRequest) -> Result<(), Status> {
        let workload = self.workload();
        if hub.distributor.release(workload).is_none() {
            return Err(Status::not_found(
                "the workload has no Bundle; `workload` must be the one of this filter",
            ));
        }
        match &batch.workload {
            Some(hint) if !hint.workload.is_empty() && hint.workload != workload => {
                Err(Status::permission_denied(format!(
                    "these records are of workload `{workload}`, as the certificate and the first batch say; a batch that \
                     names another one is not taken"
                )))
            }
            _ => Ok(()),
        }
    }

    fn identify_again(&mut self, hub: &Hub) -> Result<(), Status> {
        self.identified_until = hub.identified_until();
        self.proven.as_ref().map_or(Ok(()), |proven| proven.again(hub, self.workload()))
    }

    fn count(&self, hub: &Hub, batch: &Batch) {
        let workload = || self.workload().to_owned();
        for (outcome, word) in [
            (pb::Outcome::Allow, "allow"),
            (pb::Outcome::Deny, "deny"),
            (pb::Outcome::Unspecified, "unspecified"),
        ] {
            let count = batch.message.records.iter().filter(|record| record.outcome() == outcome).count();
            if count > 0 {
                let label = DecisionLabel { workload: workload(), outcome: word };
                let count = u64::try_from(count).unwrap_or(u64::MAX);
                hub.metrics.decisions.get_or_create(&label).inc_by(count);
            }
        }
        let label = || WorkloadLabel { workload: workload() };
        if batch.message.dropped > 0 {
            hub.metrics.decisions_dropped.get_or_create(&label()).inc_by(batch.message.dropped);
        }
        if batch.waited {
            hub.metrics.reports_delayed.get_or_create(&label()).inc();
        }
    }
}
