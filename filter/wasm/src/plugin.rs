//! One plugin configuration in one VM: its state, and what happens to requests.
//!
//! `NotReady` (no Bundle yet) and `Invalid` (there will never be one) refuse; `Ready` decides. Requests may be held for a
//! moment, each at most once: until the first Bundle, or until a question is answered that would allow them. What is
//! allowed is decided again for as long as it lives. The stream to the control plane is served in `session`, what waits
//! or lives in `live`.

use std::cell::RefCell;

use tidegate_engine::{CandidateDifference, CandidateOutcome, Decision, Reason, TokenFault};
use tidegate_identity::{At, MissingIssuer};

use crate::alike::{Look, Standing};
use crate::budget::Budget;
use crate::bundle::{Installed, Trust};
use crate::candidate::Candidate;
use crate::config::Config;
use crate::counters::Counters;
use crate::downstream::Downstream;
use crate::enforcer::{Answer, Enforcer};
use crate::host::{Host, Level, Metric};
use crate::leases::{Lease, Leases};
use crate::lookups::Lookups;
use crate::records::Records;
use crate::reply::{Refusal, Telling, decision_id, refuse};
use crate::request::{Header, Received, Unreadable};
use crate::samples::{Drawn, Samples};
use crate::signature::{Path, Signatures};
use crate::strangers::Strangers;
use crate::stream::Subscription;
use crate::uses::Uses;
use bodies::Scans;
use live::Held;

mod audit;
mod bodies;
mod live;
mod session;

/// The header of [`Config::interlock`]. What callers send under this name is removed, as everything of ours is.
const INTERLOCK: &str = "x-tidegate-interlock";

/// A plugin.
#[derive(Debug)]
pub struct Plugin {
    config: Config,
    /// Pod or process name, as the proxy's node metadata says.
    instance: String,
    /// Random per VM start.
    generation: u64,
    state: State,
    /// What is evaluated beside what is enforced.
    candidate: Option<Box<Candidate>>,
    /// How many Bundles were installed.
    installs: u32,
    started_ms: u64,
    subscription: Subscription,
    signatures: Path,
    budget: RefCell<Budget>,
    counters: Counters,
    held: Vec<Held>,
    /// More of them than one callback can release need not wait any longer.
    is_behind: bool,
    leases: Leases,
    /// Requests whose bodies are read.
    scans: Scans,
    lookups: Lookups,
    records: Records,
    samples: Samples,
    strangers: Strangers,
    uses: Uses,
    /// Unix seconds, as of the last tick: near enough for when a rule was used.
    second: i64,
    /// To be sent to the control plane.
    outbox: Vec<Vec<u8>>,
    receipt_due_ms: u64,
}

#[derive(Debug)]
enum State {
    NotReady,
    Ready(Box<Enforcer>),
    Invalid,
}

/// What happens to a request now.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Continue,
    /// It is answered.
    Refuse(Refusal),
    /// It waits.
    Hold,
}

/// Wall clock.
#[derive(Debug, Clone, Copy)]
struct Now {
    ns: u64,
    ms: u64,
}

// === impl Now ===

impl Now {
    fn read(host: &dyn Host) -> Self {
        let ns = host.now_ns();
        Self { ns, ms: ns / 1_000_000 }
    }

    fn s(self) -> i64 {
        i64::try_from(self.ms / 1_000).unwrap_or(i64::MAX)
    }
}

// === impl Plugin ===

impl Plugin {
    /// Begins with what an earlier configuration in this VM enforced, if it still may, or with the warm start.
    pub fn new(config: Config, instance: String, host: &dyn Host, inherited: Option<Installed>) -> Self {
        let now = Now::read(host);
        let mut plugin = Self {
            signatures: Path::new(config.fips),
            config,
            instance,
            generation: host.random(),
            state: State::NotReady,
            candidate: None,
            installs: 0,
            started_ms: now.ms,
            subscription: Subscription::default(),
            budget: RefCell::new(Budget::new(now.ms)),
            counters: Counters::default(),
            held: Vec::new(),
            is_behind: false,
            leases: Leases::default(),
            scans: Scans::new(cfg!(feature = "bodies")),
            lookups: Lookups::default(),
            records: Records::default(),
            samples: Samples::default(),
            strangers: Strangers::default(),
            uses: Uses::default(),
            second: now.s(),
            outbox: Vec::new(),
            receipt_due_ms: 0,
        };
        if let Some(installed) = inherited {
            plugin.install(installed, host);
        }
        if let Some(bundle) = plugin.config.warm_start.take() {
            let signatures = Signatures::new(host, &plugin.signatures, &plugin.counters);
            match Installed::from_bundle(&bundle, plugin.trust(now), &signatures, plugin.installed()) {
                Ok(Some(installed)) => plugin.install(installed, host),
                Ok(None) => {}
                Err(refused) => {
                    // An older warm start beside something newer is how it should be.
                    if plugin.installed().is_none() {
                        host.log(Level::Error, &format!("tidegate: warm start refused: {refused}"));
                    }
                }
            }
        }
        if plugin.installed().is_none() && plugin.config.control_plane.is_none() {
            plugin.state = State::Invalid;
        }
        plugin
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What is enforced.
    pub fn installed(&self) -> Option<&Installed> {
        match &self.state {
            State::Ready(enforcer) => Some(enforcer.installed()),
            State::NotReady | State::Invalid => None,
        }
    }

    fn trust(&self, now: Now) -> Trust<'_> {
        Trust {
            workload: &self.config.workload,
            keys: &self.config.trusted_keys,
            enforced: self
                .installed()
                .map(|installed| (installed.manifest.revision, installed.manifest.digest)),
            lacks_candidate: self.installed().is_some_and(Installed::lacks_candidate),
            now: now.s(),
        }
    }

    /// What cannot be enforced leaves everything as it was. (`Assembly::install` has found that out before.)
    fn install(&mut self, installed: Installed, host: &dyn Host) {
        if let Some(lacks) = &installed.manifest.lacks {
            host.log(
                Level::Warn,
                &format!("tidegate: this build lacks `{lacks}`: requests are refused whose rules need it"),
            );
        }
        let lacks_candidate = installed.lacks_candidate();
        let candidate = installed.candidate.clone();
        let before = self.installed().and_then(|installed| installed.rules.clone());
        let done: Result<(), MissingIssuer> = match &mut self.state {
            State::Ready(enforcer) => enforcer.update(installed),
            State::NotReady | State::Invalid => {
                Enforcer::new(installed).map(|enforcer| self.state = State::Ready(Box::new(enforcer)))
            }
        };
        match done {
            Ok(()) => {
                let replaced =
                    Candidate::replace(&mut self.candidate, candidate.as_ref(), Now::read(host).ms);
                if lacks_candidate || replaced.is_err() {
                    host.log(
                        Level::Warn,
                        "tidegate: the candidate is not there or cannot be used: nothing is compared",
                    );
                }
                self.counters.add(Metric::Installed);
                self.installs = self.installs.wrapping_add(1);
                let rules = self.installed().and_then(|installed| installed.rules.clone());
                self.uses.replace(before.as_deref(), rules.as_deref());
                self.samples.forget();
                self.leases.question_all();
                self.receipt_due_ms = 0;
                if rules.is_some_and(|rules| rules.requires_audit()) {
                    self.records.want();
                }
            }
            Err(missing) => host.log(Level::Error, &format!("tidegate: Bundle not enforced: {missing}")),
        }
    }

    /// Reads and decides a request. `context` is its id, for as long as it lives.
    /// `is_whole`: nothing follows its headers.
    pub fn on_request(&mut self, context: u32, is_whole: bool, host: &dyn Host) -> Verdict {
        if matches!(self.state, State::Invalid) {
            return self.unavailable(None, Reason::ConfigurationInvalid, host);
        }
        let received = match Received::read(host, self.config.peers, is_whole) {
            Ok(received) => received,
            Err(unreadable) => return self.unreadable(None, unreadable, host),
        };
        let now = Now::read(host);
        let drawn = self.draw(host);
        let look = if drawn.is_some() { None } else { self.look(&received, now) };
        if let (Some(look), State::Ready(enforcer)) = (look, &mut self.state)
            && let Some(standing) = enforcer.recall(look, &received, now.s())
        {
            return self.pass(context, received, standing, host);
        }
        let answer = match received.headers(Some(host)) {
            Err(unreadable) => Err(unreadable),
            Ok(_) if matches!(self.state, State::NotReady) => {
                return self.hold_for_bundle(context, received, now, host);
            }
            Ok(headers) => self.decide(&received, &headers, now, host),
        };
        if let (Some(look), Ok(answer), State::Ready(enforcer)) = (look, &answer, &mut self.state) {
            enforcer.keep(look, &received, answer, now.s());
        }
        match answer {
            Ok(answer) => match self.hold_for_answer(&answer, now) {
                Some((awaits, deadline_ms)) => {
                    self.hold(context, received, awaits, deadline_ms, answer.unsettled)
                }
                None => self.conclude(context, received, answer, Some(now), drawn, host),
            },
            Err(unreadable) => self.unreadable(Some(&received), unreadable, host),
        }
    }

    /// Where to look for a request like this one. Nowhere while the budget of signature checks gets tight, for it is noted then
    /// over which connections known tokens come; nor while there is a candidate, with which each decision is compared.
    fn look(&mut self, received: &Received, now: Now) -> Option<Look> {
        let State::Ready(enforcer) = &mut self.state else { return None };
        if self.candidate.is_some() || self.budget.get_mut().is_strained(now.ms) {
            return None;
        }
        enforcer.look(received)
    }

    /// Lets a request go on as one like it did: what [`Plugin::conclude`] does, in its order, for one of which there is nothing
    /// to be said.
    fn pass(&mut self, context: u32, received: Received, standing: Standing, host: &dyn Host) -> Verdict {
        let Standing { rule, remembered, terms } = standing;
        if remembered {
            self.counters.add(Metric::TokensRemembered);
        }
        if let Some(rule) = rule {
            self.uses.add(rule, self.second);
        }
        if !self.leases.has_room(&received) {
            return self.unreadable(Some(&received), Unreadable::TooMany, host);
        }
        if !self.mark(&[], host) {
            return self.unreadable(Some(&received), Unreadable::NotRemoved, host);
        }
        if self.config.control_plane.is_some() {
            self.records.skip();
        }
        if !self.leases.admit(Lease { context, received, terms, told: 0 }) {
            return self.unreadable(None, Unreadable::TooMany, host);
        }
        self.counters.add(Metric::Allowed);
        Verdict::Continue
    }

    fn decide(
        &mut self,
        received: &Received,
        headers: &[Header<'_>],
        now: Now,
        host: &dyn Host,
    ) -> Result<Answer, Unreadable> {
        let State::Ready(enforcer) = &mut self.state else { return Err(Unreadable::NotReady) };
        let signatures = Signatures::new(host, &self.signatures, &self.counters);
        let downstream = Downstream::new(host, received, signatures, Some(&self.budget), now.ms);
        enforcer.decide(received, headers, At::now(now.s()), &downstream, || host.random())
    }

    /// Counts what was decided and does what it asks for. What goes on is kept for as long as it lives.
    /// `began`: when deciding it did, where nothing else came between. `drawn`: whether it [was](Self::draw).
    fn conclude(
        &mut self,
        context: u32,
        received: Received,
        answer: Answer,
        began: Option<Now>,
        drawn: Option<Drawn>,
        host: &dyn Host,
    ) -> Verdict {
        if answer.awaits.is_some() && self.scans.are_possible() {
            return self.read_body(context, received, answer, host);
        }
        let answer = match self.candidate {
            Some(_) => Answer { candidate: self.compare(&received, &answer.decision, host), ..answer },
            None => answer,
        };
        // What depends on a body that was not read is no difference yet.
        if answer.decision.shadow.is_some() && !answer.decision.awaits_body {
            self.counters.add(Metric::ShadowDifferences);
        }
        if answer.remembered {
            self.counters.add(Metric::TokensRemembered);
        }
        if answer.refusal.is_some() {
            self.record(&received, &answer, began, drawn, host);
        }
        if let Some(rule) = answer.decision.rule {
            self.uses.add(rule, self.second);
        }
        if let Some(refusal) = answer.refusal {
            let reason = answer.decision.reason;
            match reason {
                Reason::ClockWrong => {
                    self.counters.add(Metric::ClockWrong);
                    self.counters.refuse(Metric::Unavailable, reason);
                }
                Reason::TokenInvalid(TokenFault::CheckBudget) => {
                    self.counters.add(Metric::OverBudget);
                    self.counters.refuse(Metric::Denied, reason);
                }
                _ => self.counters.refuse(Metric::Denied, reason),
            }
            return Verdict::Refuse(refusal);
        }
        if !self.can_record(&answer) {
            return self.unavailable(Some(&received), Reason::AuditUnavailable, host);
        }
        if !self.leases.has_room(&received) {
            return self.unreadable(Some(&received), Unreadable::TooMany, host);
        }
        if !self.mark(&answer.remove, host) {
            return self.unreadable(Some(&received), Unreadable::NotRemoved, host);
        }
        if !self.record(&received, &answer, began, drawn, host) {
            return self.unavailable(Some(&received), Reason::AuditUnavailable, host);
        }
        let told = self.told(&answer);
        if !self.leases.admit(Lease { context, received, terms: answer.terms, told }) {
            return self.unreadable(None, Unreadable::TooMany, host);
        }
        if answer.decision.degraded {
            self.counters.add(Metric::Degraded);
        }
        if answer.suspended {
            self.counters.add(Metric::Suspended);
        }
        self.counters.add(Metric::Allowed);
        Verdict::Continue
    }

    /// What the candidate would have done otherwise. Nothing comes of it but counts and records.
    #[cold]
    fn compare(
        &mut self,
        received: &Received,
        decision: &Decision,
        host: &dyn Host,
    ) -> Option<CandidateDifference> {
        // Not by the rules, or unread because it was too much to read: so it stays.
        if matches!(decision.reason, Reason::ClockWrong | Reason::TokenInvalid(TokenFault::CheckBudget)) {
            return None;
        }
        let now = Now::read(host);
        let signatures = Signatures::new(host, &self.signatures, &self.counters);
        let difference =
            self.candidate.as_mut()?.compare(decision, received, host, signatures, (now.s(), now.ms)).ok()?;
        self.counters.add(Metric::CandidateCompared);
        match difference?.outcome {
            CandidateOutcome::Allow => self.counters.add(Metric::CandidateWouldAllow),
            CandidateOutcome::Deny => self.counters.add(Metric::CandidateWouldDeny),
            CandidateOutcome::Unknown => self.counters.add(Metric::CandidateUnknown),
        }
        difference
    }

    /// Readies a request's headers for what stands behind the filter: without credentials that are not to be forwarded, and
    /// with what tells Istio's own policy that the filter was there. Whether the proxy did.
    fn mark(&self, remove: &[String], host: &dyn Host) -> bool {
        remove.iter().all(|name| host.remove_request_header(name.as_bytes()))
            && self
                .config
                .interlock
                .as_ref()
                .is_none_or(|value| host.set_request_header(INTERLOCK.as_bytes(), value.as_bytes()))
    }

    fn unreadable(
        &mut self,
        received: Option<&Received>,
        unreadable: Unreadable,
        host: &dyn Host,
    ) -> Verdict {
        // Before the first Bundle this is how it should be.
        if unreadable != Unreadable::NotReady {
            host.log(Level::Error, &format!("tidegate: request refused: {unreadable}"));
        }
        self.unavailable(received, Reason::NotReady, host)
    }

    fn unavailable(&mut self, received: Option<&Received>, reason: Reason, host: &dyn Host) -> Verdict {
        self.counters.refuse(Metric::Unavailable, reason);
        let refusal = unavailable(reason, host);
        self.record_undecided(received, reason, refusal.decision_id(), host);
        Verdict::Refuse(refusal)
    }
}

/// Without a decision there is nothing to tell.
fn unavailable(reason: Reason, host: &dyn Host) -> Refusal {
    let telling = Telling { reason, rule: None, caller_is_verified: false, grpc: false };
    refuse(telling, decision_id(host.random()))
}

#[cfg(test)]
mod tests;
