//! What of the decisions is recorded.
//!
//! Always what is refused, differs in shadow or was allowed without a directory's answer; of what is allowed, what the rule
//! asks for. Nothing is recorded of a configuration without a control plane: nobody would take it.
//!
//! INVARIANT: what a rule demands to be recorded does not pass unless its record was kept.

use tidegate_engine::Reason;
use tidegate_engine::model::Audit;
use tidegate_proto::v1 as pb;

use super::{Now, Plugin, State};
use crate::enforcer::{Answer, undecided};
use crate::host::{Host, Metric};
use crate::records::SAMPLE;
use crate::reply::decision_id;
use crate::request::Received;

// === impl Plugin ===

impl Plugin {
    /// Whether the request may pass as far as its record goes.
    pub(super) fn can_record(&self, answer: &Answer) -> bool {
        answer.audit != Audit::Required || self.records.can_take()
    }

    /// Records what was decided last, if it is to be recorded. `began`: when deciding it did, where that is known. False: the
    /// record could not be kept, and without it the request must not pass.
    pub(super) fn record(
        &mut self,
        received: &Received,
        answer: &Answer,
        began: Option<Now>,
        host: &dyn Host,
    ) -> bool {
        if self.config.control_plane.is_none() {
            return true;
        }
        let says_all = answer.refusal.is_some()
            || answer.decision.shadow.is_some()
            || answer.decision.degraded
            || answer.audit != Audit::Sampled;
        if !says_all && !host.random().is_multiple_of(u64::from(SAMPLE)) {
            self.records.skip();
            return true;
        }
        let State::Ready(enforcer) = &self.state else { return true };
        let mut record = enforcer.record(received, &answer.decision);
        record.decision_id = match &answer.refusal {
            Some(refusal) => refusal.decision_id().to_owned(),
            None => decision_id(host.random()),
        };
        let now = Now::read(host);
        record.decided_in_ns = began.map_or(0, |began| now.ns.saturating_sub(began.ns));
        record.stands_for = if says_all { 1 } else { SAMPLE };
        self.keep(record, says_all, now) || answer.audit != Audit::Required
    }

    /// Records that a request is refused which no Bundle decided on.
    pub(super) fn record_undecided(
        &mut self,
        received: Option<&Received>,
        reason: Reason,
        id: &str,
        host: &dyn Host,
    ) {
        if self.config.control_plane.is_some() {
            let record = pb::DecisionRecord { decision_id: id.to_owned(), ..undecided(received, reason) };
            self.keep(record, true, Now::read(host));
        }
    }

    /// Records that a request that had been allowed is ended. It is the one that was decided on last.
    pub(super) fn record_end(&mut self, position: usize, answer: &Answer, host: &dyn Host) {
        let (State::Ready(enforcer), Some(lease), Some(refusal)) =
            (&self.state, self.leases.get(position), &answer.refusal)
        else {
            return;
        };
        if self.config.control_plane.is_some() {
            let record = pb::DecisionRecord {
                decision_id: refusal.decision_id().to_owned(),
                ended: true,
                ..enforcer.record(&lease.received, &answer.decision)
            };
            self.keep(record, true, Now::read(host));
        }
    }

    fn keep(&mut self, mut record: pb::DecisionRecord, in_full: bool, now: Now) -> bool {
        record.time_ns = i64::try_from(now.ns).unwrap_or(i64::MAX);
        let is_kept = self.records.push(&record, in_full);
        self.counters.add(if is_kept { Metric::Records } else { Metric::RecordsDropped });
        is_kept
    }
}
