//! One plugin configuration in one VM: its state, and what happens on requests, ticks and messages.
//!
//! `NotReady` (no Bundle yet) and `Invalid` (there will never be one) refuse; `Ready` decides. A cold start may hold
//! requests for a moment, at most so many.

use std::mem;

use prost::Message as _;
use tidegate_engine::Reason;
use tidegate_proto::v1::{self as pb, subscribe_request};

use crate::bundle::{Installed, Trust};
use crate::config::Config;
use crate::counters::Counters;
use crate::enforcer::Enforcer;
use crate::host::{Host, Level, Metric};
use crate::reply::{Refusal, Telling, decision_id, refuse};
use crate::request::{Header, Received, Unreadable};
use crate::signature::{Path, Signatures};
use crate::stream::{Subscription, request};
use crate::{CAPABILITIES, VERSION};

/// How often a receipt is sent without anything new, in milliseconds.
const RECEIPT_PERIOD_MS: u64 = 30_000;

/// A plugin.
#[derive(Debug)]
pub struct Plugin {
    config: Config,
    /// Pod or process name, as the proxy's node metadata says.
    instance: String,
    /// Random per VM start.
    generation: u64,
    state: State,
    started_ms: u64,
    subscription: Subscription,
    signatures: Path,
    counters: Counters,
    held: Vec<Held>,
    receipt_due_ms: u64,
}

#[derive(Debug)]
enum State {
    NotReady,
    Ready(Box<Enforcer>),
    Invalid,
}

#[derive(Debug)]
struct Held {
    context: u32,
    received: Received,
    deadline_ms: u64,
}

/// What happens to a request now.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Continue,
    /// It is answered.
    Refuse(Refusal),
    /// It waits for the first Bundle.
    Hold,
}

// === impl Plugin ===

impl Plugin {
    /// Begins with what an earlier configuration in this VM enforced, if it still may, or with the warm start.
    pub fn new(config: Config, instance: String, host: &dyn Host, inherited: Option<Installed>) -> Self {
        let mut plugin = Self {
            config,
            instance,
            generation: host.random(),
            state: State::NotReady,
            started_ms: now_ms(host),
            subscription: Subscription::default(),
            signatures: Path::default(),
            counters: Counters::default(),
            held: Vec::new(),
            receipt_due_ms: 0,
        };
        if let Some(installed) = inherited {
            plugin.install(installed, host);
        }
        if let Some(bundle) = plugin.config.warm_start.take() {
            let signatures = Signatures::new(host, &plugin.signatures);
            match Installed::from_bundle(&bundle, plugin.trust(host), &signatures, plugin.installed()) {
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

    /// Whether ticks should come often.
    pub fn is_impatient(&self) -> bool {
        !matches!(self.state, State::Ready(_))
            || (self.config.control_plane.is_some() && self.subscription.token().is_none())
    }

    fn trust<'t>(&'t self, host: &dyn Host) -> Trust<'t> {
        Trust {
            workload: &self.config.workload,
            keys: &self.config.trusted_keys,
            enforced: self
                .installed()
                .map(|installed| (installed.manifest.revision, installed.manifest.digest)),
            now: now_s(host),
        }
    }

    /// What cannot be enforced leaves everything as it was. (`Assembly::install` has found that out before.)
    fn install(&mut self, installed: Installed, host: &dyn Host) {
        let done = match &mut self.state {
            State::Ready(enforcer) => enforcer.update(installed),
            State::NotReady | State::Invalid => {
                Enforcer::new(installed).map(|enforcer| self.state = State::Ready(Box::new(enforcer)))
            }
        };
        match done {
            Ok(()) => {
                self.counters.add(Metric::Installed);
                self.receipt_due_ms = 0;
            }
            Err(missing) => host.log(Level::Error, &format!("tidegate: Bundle not enforced: {missing}")),
        }
    }

    // Requests.

    /// Reads and decides a request. `context` is its id, in case it has to wait.
    pub fn on_request(&mut self, context: u32, host: &dyn Host) -> Verdict {
        let ask_port = match &self.state {
            State::Ready(enforcer) => enforcer.needs_port(),
            // Not known yet.
            State::NotReady => true,
            State::Invalid => return self.unavailable(Reason::ConfigurationInvalid, host),
        };
        let received = match Received::read(host, self.config.peers, ask_port) {
            Ok(received) => received,
            Err(unreadable) => return self.unreadable(unreadable, host),
        };
        let headers = match received.headers(Some(host)) {
            Ok(headers) => headers,
            Err(unreadable) => return self.unreadable(unreadable, host),
        };
        if matches!(self.state, State::NotReady) && self.held.len() < self.config.max_held {
            let deadline_ms = self.started_ms.saturating_add(self.config.hold_ms);
            if now_ms(host) < deadline_ms {
                self.held.push(Held { context, received, deadline_ms });
                return Verdict::Hold;
            }
        }
        self.decide(&received, &headers, host)
    }

    fn unreadable(&mut self, unreadable: Unreadable, host: &dyn Host) -> Verdict {
        host.log(Level::Error, &format!("tidegate: request refused: {unreadable}"));
        self.unavailable(Reason::NotReady, host)
    }

    fn decide(&mut self, received: &Received, headers: &[Header<'_>], host: &dyn Host) -> Verdict {
        let State::Ready(enforcer) = &mut self.state else { return self.unavailable(Reason::NotReady, host) };
        let signatures = Signatures::new(host, &self.signatures);
        let answer = match enforcer.decide(received, headers, now_s(host), &signatures, || host.random()) {
            Ok(answer) => answer,
            Err(unreadable) => return self.unreadable(unreadable, host),
        };
        if answer.decision.shadow.is_some() {
            self.counters.add(Metric::ShadowDifferences);
        }
        if let Some(refusal) = answer.refusal {
            self.counters.add(Metric::Denied);
            return Verdict::Refuse(refusal);
        }
        if answer.remove.iter().any(|name| !host.remove_request_header(name.as_bytes())) {
            return self.unavailable(Reason::NotReady, host);
        }
        self.counters.add(Metric::Allowed);
        Verdict::Continue
    }

    fn unavailable(&mut self, reason: Reason, host: &dyn Host) -> Verdict {
        self.counters.add(Metric::Unavailable);
        let telling = Telling { reason, rule: None, caller_is_verified: false, grpc: false };
        Verdict::Refuse(refuse(telling, decision_id(host.random())))
    }

    /// The caller has gone.
    pub fn forget(&mut self, context: u32) {
        self.held.retain(|held| held.context != context);
    }

    /// Requests that need not wait any longer, with what happens to them now. `select` is called before each, so that
    /// host calls are about that request.
    pub fn release(&mut self, host: &dyn Host, select: impl Fn(u32)) -> Vec<(u32, Verdict)> {
        let now_ms = now_ms(host);
        let ready = matches!(self.state, State::Ready(_));
        let (released, waiting) = mem::take(&mut self.held)
            .into_iter()
            .partition(|held: &Held| ready || now_ms >= held.deadline_ms);
        self.held = waiting;
        released
            .into_iter()
            .map(|held| {
                select(held.context);
                let verdict = match held.received.headers(None) {
                    Ok(headers) => self.decide(&held.received, &headers, host),
                    Err(unreadable) => self.unreadable(unreadable, host),
                };
                (held.context, verdict)
            })
            .collect()
    }

    // Ticks and the stream.

    /// Brings counts to the proxy; whether the stream is to be opened now.
    pub fn on_tick(&mut self, host: &dyn Host) -> bool {
        self.counters.flush(host);
        self.config.control_plane.is_some() && self.subscription.is_due(now_ms(host))
    }

    /// The stream was opened; what to send first.
    pub fn on_opened(&mut self, token: u32) -> Vec<u8> {
        self.subscription.opened(token);
        self.counters.add(Metric::StreamsOpened);
        let installed = self.installed();
        let hello = pb::Hello {
            protocol_version: tidegate_proto::VERSION,
            filter_version: VERSION.to_owned(),
            capabilities: CAPABILITIES.iter().map(|one| (*one).to_owned()).collect(),
            workload: Some(pb::WorkloadHint {
                workload: self.config.workload.clone(),
                instance: self.instance.clone(),
            }),
            vm: Some(self.vm()),
            held_sections: installed
                .map(Installed::held)
                .unwrap_or_default()
                .iter()
                .map(|sha| sha.to_vec())
                .collect(),
            enforced_manifest: installed
                .map(|installed| installed.manifest.digest.to_vec())
                .unwrap_or_default(),
        };
        request(subscribe_request::Message::Hello(hello)).encode_to_vec()
    }

    /// The stream could not be opened, or was closed.
    pub fn on_closed(&mut self, host: &dyn Host) {
        self.subscription.closed(now_ms(host), host.random());
    }

    /// The token of the open stream.
    pub fn stream(&self) -> Option<u32> {
        self.subscription.token()
    }

    /// Takes a message; what to send in return.
    pub fn on_message(&mut self, message: &[u8], host: &dyn Host) -> Vec<Vec<u8>> {
        let mut subscription = mem::take(&mut self.subscription);
        let signatures = Signatures::new(host, &self.signatures);
        let effect = subscription.receive(message, self.trust(host), &signatures, self.installed());
        self.subscription = subscription;
        if let Some(refused) = effect.refused {
            self.counters.add(Metric::Nacks);
            host.log(Level::Warn, &format!("tidegate: Bundle refused, what was enforced stays: {refused}"));
        }
        if let Some(installed) = effect.install {
            let (epoch, counter) = installed.manifest.revision;
            self.install(installed, host);
            host.log(Level::Info, &format!("tidegate: enforcing revision {epoch}.{counter}"));
        }
        let mut answers: Vec<Vec<u8>> =
            effect.answers.iter().map(pb::SubscribeRequest::encode_to_vec).collect();
        answers.extend(self.receipt(host));
        answers
    }

    /// A receipt, if one is due.
    pub fn receipt(&mut self, host: &dyn Host) -> Option<Vec<u8>> {
        let now_ms = now_ms(host);
        if now_ms < self.receipt_due_ms || self.subscription.token().is_none() {
            return None;
        }
        self.receipt_due_ms = now_ms.saturating_add(RECEIPT_PERIOD_MS);
        let installed = self.installed();
        let state = match &self.state {
            State::NotReady => pb::FilterState::NotReady,
            State::Ready(_) => pb::FilterState::Ready,
            State::Invalid => pb::FilterState::Invalid,
        };
        let total = |metric| self.counters.total(metric);
        let receipt = pb::Receipt {
            vm: Some(self.vm()),
            state: state.into(),
            manifest_sha256: installed
                .map(|installed| installed.manifest.digest.to_vec())
                .unwrap_or_default(),
            revision: installed.map(|installed| {
                let (epoch, counter) = installed.manifest.revision;
                pb::Revision { epoch, counter }
            }),
            filter_version: VERSION.to_owned(),
            now: now_s(host),
            counters: Some(pb::Counters {
                allowed: total(Metric::Allowed),
                denied: total(Metric::Denied),
                shadow_differences: total(Metric::ShadowDifferences),
                signature_checks_host: 0,
                signature_checks_fallback: 0,
                token_cache_hits: 0,
                nacks: total(Metric::Nacks),
            }),
        };
        Some(request(subscribe_request::Message::Receipt(receipt)).encode_to_vec())
    }

    fn vm(&self) -> pb::VmId {
        pb::VmId { instance: self.instance.clone(), generation: self.generation }
    }
}

fn now_ms(host: &dyn Host) -> u64 {
    host.now_ns() / 1_000_000
}

fn now_s(host: &dyn Host) -> i64 {
    i64::try_from(host.now_ns() / 1_000_000_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
