//! What of the decisions is recorded.
//!
//! Always what is refused, differs in shadow or was allowed without a directory's answer; of what is allowed, what the rule
//! asks for. Where many refusals of [`Strangers`](crate::strangers::Strangers) come in a second, a record stands for several.
//! Nothing is recorded of a configuration without a control plane: nobody would take it.
//!
//! What a candidate would have decided otherwise is recorded as well, in the room of samples; but not where a rule demands
//! records, so that a candidate never takes the room without which a request is refused.
//!
//! What goes on is decided again when rules change and when its body says something new. Where that says something else that
//! has to be recorded (another rule, say), it is recorded as well; a change of rules needs room for it, not an open stream.
//!
//! What is recorded is told the proxy's access log as well ([`Host::tell`]): one call to the proxy each. A request of which no
//! record is made pays none. Where nobody takes records, refusals are told.
//!
//! INVARIANT: what a rule demands to be recorded does not pass, and does not go on, unless its record was kept.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

use tidegate_engine::model::Audit;
use tidegate_engine::{Decision, Reason};

use super::live::Ended;
use super::{Now, Plugin, State};
use crate::enforcer::{Answer, Made, candidate_told, undecided};
use crate::host::{Host, Metric};
use crate::records::Class;
use crate::reply::decision_id;
use crate::request::Received;
use crate::samples::Drawn;

// === impl Plugin ===

impl Plugin {
    /// Whether the request may pass as far as its record goes.
    pub(super) fn can_record(&self, answer: &Answer) -> bool {
        answer.audit != Audit::Required || self.records.can_take()
    }

    /// Whether the next request may be recorded as one of many, if its rule asks for no more. (Ids of refusals do not tell:
    /// nobody can choose which of their requests are recorded.)
    pub(super) fn draw(&self, host: &dyn Host) -> Option<Drawn> {
        self.config.control_plane.as_ref()?;
        Drawn::new(host.draw())
    }

    /// Records what was decided last, if it is to be recorded. `began`: when deciding it did, where that is known. False: the
    /// record could not be kept, and without it the request must not pass.
    pub(super) fn record(
        &mut self,
        received: &Received,
        answer: &Answer,
        began: Option<Now>,
        drawn: Option<Drawn>,
        host: &dyn Host,
    ) -> bool {
        if self.config.control_plane.is_none() {
            if let Some(refusal) = &answer.refusal {
                self.tell("deny", answer, refusal.decision_id(), host);
            }
            return true;
        }
        let class = class(answer);
        let says_all = class != Class::Sample;
        let State::Ready(enforcer) = &self.state else { return true };
        let demands = || enforcer.installed().rules.as_ref().is_some_and(|rules| rules.requires_audit());
        let differs =
            answer.candidate.as_ref().filter(|_| self.records.has_room(Class::Sample) && !demands());
        // What is recorded in any case stands for itself alone.
        let drawn = drawn.filter(|_| !says_all && differs.is_none());
        let sample = drawn.and_then(|drawn| self.samples.keep(drawn, answer.decision.rule));
        if !says_all && sample.is_none() && differs.is_none() {
            self.records.skip();
            return true;
        }
        let mut stands_for = sample.unwrap_or(1);
        if answer.is_stranger && differs.is_none() && answer.decision.shadow.is_none() {
            let second = began.map_or(self.second, Now::s);
            let Some(refusals) = self.strangers.refuse(answer.decision.reason, second) else { return true };
            stands_for = refusals;
        }
        let (outcome, id) = match &answer.refusal {
            Some(refusal) => ("deny", Cow::Borrowed(refusal.decision_id())),
            None => ("allow", Cow::Owned(decision_id(host.random()))),
        };
        self.tell(outcome, answer, &id, host);
        if !self.records.has_room(class) {
            self.drop_record(class);
            return class != Class::Required;
        }
        let now = Now::read(host);
        let mut record = enforcer.record(
            received,
            &answer.decision,
            Made {
                decided_in_ns: began.map_or(0, |began| now.ns.saturating_sub(began.ns)),
                stands_for,
                class,
                ..made(&id, now)
            },
        );
        if let (Some(difference), Some(candidate)) = (differs, &self.candidate) {
            candidate_told(&mut record, difference, candidate.rule(difference).map_or("", |rule| rule.id));
        }
        self.keep(record, class);
        true
    }

    /// What has to be recorded of a request that is allowed, to be compared; 0: nothing has to.
    pub(super) fn told(&self, answer: &Answer) -> u64 {
        let State::Ready(enforcer) = &self.state else { return 0 };
        if class(answer) == Class::Sample {
            return 0;
        }
        let rules = enforcer.installed().rules.as_deref();
        let name = |rule| rules.and_then(|rules| rules.rule(rule)).map(|rule| rule.id);
        let Decision { reason, rule, degraded, shadow, .. } = answer.decision;
        let mut hasher = DefaultHasher::new();
        (reason.code(), rule.map(name), degraded, answer.suspended).hash(&mut hasher);
        (answer.audit == Audit::Required).hash(&mut hasher);
        shadow.map(|shadow| (shadow.reason.code(), shadow.rule.map(name))).hash(&mut hasher);
        hasher.finish().max(1)
    }

    /// Records what a request that was allowed goes on by, where that is something else than before. It is the one that was
    /// decided on last. False: the record could not be kept, and without it the request must not go on.
    pub(super) fn record_again(&mut self, position: usize, answer: &Answer, host: &dyn Host) -> bool {
        let told = self.told(answer);
        let (State::Ready(enforcer), Some(lease)) = (&self.state, self.leases.get(position)) else {
            return false;
        };
        if told == 0 || told == lease.told {
            return true;
        }
        let class = class(answer);
        if self.config.control_plane.is_none() {
            return class != Class::Required;
        }
        if !self.records.has_room(class) {
            self.drop_record(class);
            return class != Class::Required;
        }
        let id = decision_id(host.random());
        self.tell("allow", answer, &id, host);
        let made = Made { class, ..made(&id, Now::read(host)) };
        let record = enforcer.record(&lease.received, &answer.decision, made);
        self.leases.set_told(position, told);
        self.keep(record, class);
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
        if self.records.has_room(Class::Full) {
            self.keep(undecided(received, reason, made(id, Now::read(host))), Class::Full);
        } else {
            self.drop_record(Class::Full);
        }
    }

    /// Records that a request that had been allowed is ended. It is the one that was decided on last.
    pub(super) fn record_end(&mut self, position: usize, ended: &Ended, host: &dyn Host) {
        let id = ended.refusal.decision_id();
        let Some(answer) = &ended.answer else { return host.tell(&words("ended", ended.reason, None, id)) };
        self.tell("ended", answer, id, host);
        let (State::Ready(enforcer), Some(lease)) = (&self.state, self.leases.get(position)) else { return };
        if self.config.control_plane.is_none() {
            return;
        }
        if self.records.has_room(Class::Full) {
            let made = Made { ended: true, ..made(id, Now::read(host)) };
            let record = enforcer.record(&lease.received, &answer.decision, made);
            self.keep(record, Class::Full);
        } else {
            self.drop_record(Class::Full);
        }
    }

    fn keep(&mut self, record: Vec<u8>, class: Class) {
        self.records.push(record, class);
        self.counters.add(Metric::Records);
    }

    fn drop_record(&mut self, class: Class) {
        self.records.drop_one(class);
        self.counters.add(Metric::RecordsDropped);
    }
}

/// Of what is refused, differs or lacks a directory's answer, and of what the rule says so of, each is recorded.
fn class(answer: &Answer) -> Class {
    let says_all = answer.refusal.is_some() || answer.decision.shadow.is_some() || answer.decision.degraded;
    match answer.audit {
        Audit::Required if answer.refusal.is_none() => Class::Required,
        Audit::Sampled if !says_all => Class::Sample,
        Audit::Sampled | Audit::Full | Audit::Required => Class::Full,
    }
}

/// As access logs have it: outcome, reason, rule or `-`, id.
fn words(outcome: &str, reason: Reason, rule: Option<&str>, id: &str) -> String {
    [outcome, " ", reason.code(), " ", rule.unwrap_or("-"), " ", id].concat()
}

fn made(id: &str, now: Now) -> Made<'_> {
    Made { id, time_ns: now.ns, decided_in_ns: 0, stands_for: 1, ended: false, class: Class::Full }
}
