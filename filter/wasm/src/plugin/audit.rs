//! What of the decisions is recorded.
//!
//! Always what is refused, differs in shadow or was allowed without a directory's answer; of what is allowed, what the rule
//! asks for. Nothing is recorded of a configuration without a control plane: nobody would take it.
//!
//! What a candidate would have decided otherwise is recorded as well, in the room of samples; but not where a rule demands
//! records, so that a candidate never takes the room without which a request is refused.
//!
//! What is recorded is told the proxy's access log as well ([`Host::tell`]), and so is every refusal: one call to the proxy each.
//! A request of which no record is made pays none.
//!
//! INVARIANT: what a rule demands to be recorded does not pass unless its record was kept.

use std::borrow::Cow;

use tidegate_engine::Reason;
use tidegate_engine::model::Audit;

use super::{Now, Plugin, State};
use crate::enforcer::{Answer, Made, candidate_told, undecided};
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
            if let Some(refusal) = &answer.refusal {
                self.tell("deny", answer, refusal.decision_id(), host);
            }
            return true;
        }
        let says_all = answer.refusal.is_some()
            || answer.decision.shadow.is_some()
            || answer.decision.degraded
            || answer.audit != Audit::Sampled;
        let State::Ready(enforcer) = &self.state else { return true };
        let demands = || enforcer.installed().rules.as_ref().is_some_and(|rules| rules.requires_audit());
        let differs = answer.candidate.as_ref().filter(|_| self.records.has_room(false) && !demands());
        let is_sample = !says_all && host.random().is_multiple_of(u64::from(SAMPLE));
        if !says_all && !is_sample && differs.is_none() {
            self.records.skip();
            return true;
        }
        let (outcome, id) = match &answer.refusal {
            Some(refusal) => ("deny", Cow::Borrowed(refusal.decision_id())),
            None => ("allow", Cow::Owned(decision_id(host.random()))),
        };
        self.tell(outcome, answer, &id, host);
        if !self.records.has_room(says_all) {
            self.drop_record(says_all);
            return answer.audit != Audit::Required;
        }
        let now = Now::read(host);
        let mut record = enforcer.record(
            received,
            &answer.decision,
            Made {
                decided_in_ns: began.map_or(0, |began| now.ns.saturating_sub(began.ns)),
                stands_for: if is_sample { SAMPLE } else { 1 },
                ..made(&id, now)
            },
        );
        if let (Some(difference), Some(candidate)) = (differs, &self.candidate) {
            candidate_told(&mut record, difference, candidate.rule(difference).map_or("", |rule| rule.id));
        }
        self.keep(record);
        true
    }

    /// Leaves a decision for the proxy's access log. What is recorded of it is more.
    fn tell(&self, outcome: &str, answer: &Answer, id: &str, host: &dyn Host) {
        let rule = match &self.state {
            State::Ready(enforcer) => enforcer.rule_name(&answer.decision),
            State::NotReady | State::Invalid => None,
        };
        host.tell(&words(outcome, answer.decision.reason, rule, id));
    }

    /// Records that a request is refused which no Bundle decided on.
    pub(super) fn record_undecided(
        &mut self,
        received: Option<&Received>,
        reason: Reason,
        id: &str,
        host: &dyn Host,
    ) {
        host.tell(&words("deny", reason, None, id));
        if self.config.control_plane.is_none() {
            return;
        }
        if self.records.has_room(true) {
            self.keep(undecided(received, reason, made(id, Now::read(host))));
        } else {
            self.drop_record(true);
        }
    }

    /// Records that a request that had been allowed is ended. It is the one that was decided on last.
    pub(super) fn record_end(&mut self, position: usize, answer: &Answer, host: &dyn Host) {
        let (State::Ready(enforcer), Some(lease), Some(refusal)) =
            (&self.state, self.leases.get(position), &answer.refusal)
        else {
            return;
        };
        self.tell("ended", answer, refusal.decision_id(), host);
        if self.config.control_plane.is_none() {
            return;
        }
        if self.records.has_room(true) {
            let made = Made { ended: true, ..made(refusal.decision_id(), Now::read(host)) };
            let record = enforcer.record(&lease.received, &answer.decision, made);
            self.keep(record);
        } else {
            self.drop_record(true);
        }
    }

    fn keep(&mut self, record: Vec<u8>) {
        self.records.push(record);
        self.counters.add(Metric::Records);
    }

    fn drop_record(&mut self, in_full: bool) {
        self.records.drop_one(in_full);
        self.counters.add(Metric::RecordsDropped);
    }
}

/// As access logs have it: outcome, reason, rule or `-`, id.
fn words(outcome: &str, reason: Reason, rule: Option<&str>, id: &str) -> String {
    [outcome, " ", reason.code(), " ", rule.unwrap_or("-"), " ", id].concat()
}

fn made(id: &str, now: Now) -> Made<'_> {
    Made { id, time_ns: now.ns, decided_in_ns: 0, stands_for: 1, ended: false }
}
