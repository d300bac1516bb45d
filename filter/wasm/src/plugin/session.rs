//! Ticks, and the stream to the control plane.

use std::mem;

use prost::Message as _;
use tidegate_proto::v1::{self as pb, subscribe_request};

use super::{Now, Plugin, State};
use crate::bundle::Installed;
use crate::host::{Host, Level, Metric};
use crate::signature::Signatures;
use crate::stream::request;
use crate::uses::Told;
use crate::{VERSION, capabilities};

/// How often a receipt is sent without anything new, in milliseconds.
const RECEIPT_PERIOD_MS: u64 = 30_000;

/// Most keys that are told of in one message: what a message may have, whatever their names.
const MOST_KEYS: usize = 64;

/// Longest text of the other side that is logged, in characters.
const MAX_DETAIL: usize = 512;

/// Whether a gRPC status says that the control plane does not want this stream, rather than that it is gone:
/// INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED, RESOURCE_EXHAUSTED, FAILED_PRECONDITION, UNAUTHENTICATED.
fn is_refusal(status: u32) -> bool {
    matches!(status, 3 | 5 | 7 | 8 | 9 | 16)
}

/// The text of a `grpc-message`, which Envoy hands on as it travels (gRPC over HTTP/2, `Percent-Encoded`). What is not
/// encoded as it should be stays as it is.
fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let hex = |digit: &u8| char::from(*digit).to_digit(16);
        let byte = match (first, after) {
            (b'%', [high, low, ..]) => {
                hex(high).zip(hex(low)).and_then(|(high, low)| u8::try_from(high * 16 + low).ok())
            }
            _ => None,
        };
        decoded.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    decoded
}

// === impl Plugin ===

impl Plugin {
    /// Whether ticks should come often.
    pub(super) fn is_impatient(&self) -> bool {
        !matches!(self.state, State::Ready(_))
            || (self.config.control_plane.is_some() && self.subscription.token().is_none())
    }

    /// Brings counts to the proxy; whether the stream is to be opened now.
    pub fn on_tick(&mut self, host: &dyn Host) -> bool {
        self.counters.flush(host);
        let now = Now::read(host);
        self.second = now.s();
        self.samples.on_tick(now.ms);
        self.report(now);
        self.tell_uses(now);
        self.config.control_plane.is_some() && self.subscription.is_due(now.ms)
    }

    /// The token of a stream on which nothing was heard for too long, which is to be cancelled: another one is opened soon.
    /// What is enforced stays.
    pub fn take_silent(&mut self, host: &dyn Host) -> Option<u32> {
        if !self.subscription.is_silent(Now::read(host).ms) {
            return None;
        }
        let token = self.subscription.token();
        self.counters.add(Metric::StreamsSilent);
        host.log(
            Level::Warn,
            "tidegate: the control plane is silent; the stream is given up and opened anew",
        );
        self.on_closed(host);
        token
    }

    /// The stream was opened: who this is goes out first.
    pub fn on_opened(&mut self, token: u32, host: &dyn Host) {
        self.subscription.opened(token, Now::read(host).ms);
        self.outbox.clear();
        self.uses.listened();
        self.counters.add(Metric::StreamsOpened);
        let installed = self.installed();
        let hello = pb::Hello {
            protocol_version: tidegate_proto::VERSION,
            filter_version: VERSION.to_owned(),
            capabilities: capabilities().map(str::to_owned).collect(),
            workload: Some(self.config.hint(&self.instance)),
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
        self.send(&request(subscribe_request::Message::Hello(hello)));
        self.report(Now::read(host));
    }

    /// The other side, or what is between, ended the stream. What is enforced stays, whatever the reason: it never says
    /// that something is not guarded.
    pub fn on_ended(&mut self, status: u32, detail: &[u8], host: &dyn Host) {
        let verb = if is_refusal(status) {
            self.counters.add(Metric::StreamsRefused);
            "refused"
        } else {
            "closed"
        };
        let detail: String = String::from_utf8_lossy(&percent_decoded(detail))
            .chars()
            .filter(|c| !c.is_control())
            .take(MAX_DETAIL)
            .collect();
        host.log(
            Level::Warn,
            &format!("tidegate: stream to the control plane {verb} (gRPC status {status}): {detail}"),
        );
        self.on_closed(host);
    }

    /// The stream could not be opened, or was closed. Nothing that was asked will be answered.
    pub fn on_closed(&mut self, host: &dyn Host) {
        self.subscription.closed(Now::read(host).ms, host.random());
        self.lookups.abandon();
    }

    /// The token of the open stream.
    pub fn stream(&self) -> Option<u32> {
        self.subscription.token()
    }

    /// What is to be sent on the open stream.
    pub fn take_messages(&mut self) -> Vec<Vec<u8>> {
        mem::take(&mut self.outbox)
    }

    pub(super) fn send(&mut self, message: &pb::SubscribeRequest) {
        self.outbox.push(message.encode_to_vec());
    }

    /// Takes a message.
    pub fn on_message(&mut self, message: &[u8], host: &dyn Host) {
        let now = Now::read(host);
        let mut subscription = mem::take(&mut self.subscription);
        subscription.heard(now.ms);
        let signatures = Signatures::new(host, &self.signatures, &self.counters);
        let effect = subscription.receive(message, self.trust(now), &signatures, self.installed());
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
        if let Some(pb::LookupResult { nonce, listed }) = effect.answered {
            self.lookups.answered(nonce, listed);
        }
        for answer in &effect.answers {
            self.send(answer);
        }
        self.report(now);
    }

    /// Whether the stream that takes decision records is to be opened now.
    pub fn wants_sink(&self, host: &dyn Host) -> bool {
        self.config.control_plane.is_some() && self.records.is_due(Now::read(host).ms)
    }

    /// The stream that takes decision records was opened.
    pub fn on_sink_opened(&mut self, token: u32) {
        self.records.opened(token);
    }

    /// It could not be opened, or was closed.
    pub fn on_sink_closed(&mut self, host: &dyn Host) {
        self.records.closed(Now::read(host).ms, host.random());
    }

    /// What came over it.
    pub fn on_acknowledged(&mut self, message: &[u8]) {
        self.records.acknowledged(message);
    }

    /// The token of the stream that takes decision records.
    pub fn sink(&self) -> Option<u32> {
        self.records.token()
    }

    /// Whether records should not wait for the next tick.
    pub fn is_pressing(&self) -> bool {
        self.records.is_pressing()
    }

    /// What is to be sent to who takes decision records.
    pub fn take_batches(&mut self) -> Vec<Vec<u8>> {
        let (vm, mut batches) = (self.vm(), Vec::new());
        while let Some(batch) = self.records.batch(&vm, || self.config.hint(&self.instance)) {
            batches.push(batch);
        }
        batches
    }

    /// Sends a receipt, if one is due.
    fn report(&mut self, now: Now) {
        if now.ms < self.receipt_due_ms || self.subscription.token().is_none() {
            return;
        }
        self.records.tell_counts();
        self.receipt_due_ms = now.ms.saturating_add(RECEIPT_PERIOD_MS);
        let receipt = self.receipt(now);
        self.send(&request(subscribe_request::Message::Receipt(receipt)));
    }

    /// Tells a part of what was used, if it is time.
    fn tell_uses(&mut self, now: Now) {
        let State::Ready(enforcer) = &mut self.state else { return };
        if self.subscription.token().is_none() {
            return;
        }
        let Some(Told { rules, begins }) = self.uses.tell(enforcer.installed().rules.as_deref(), now.ms)
        else {
            return;
        };
        let mut keys = begins.map(|all| enforcer.take_key_uses(all)).unwrap_or_default();
        let mut uses = pb::Uses { rules, keys: Vec::new() };
        while !uses.rules.is_empty() || !keys.is_empty() {
            uses.keys = keys.split_off(keys.len().saturating_sub(MOST_KEYS));
            self.send(&request(subscribe_request::Message::Uses(mem::take(&mut uses))));
        }
    }

    fn receipt(&self, now: Now) -> pb::Receipt {
        let (state, installed, issuers) = match &self.state {
            State::NotReady => (pb::FilterState::NotReady, None, Vec::new()),
            State::Invalid => (pb::FilterState::Invalid, None, Vec::new()),
            State::Ready(enforcer) => {
                let issuers = enforcer.usage().map(|(issuer, usage)| pb::IssuerUse {
                    issuer: issuer.to_owned(),
                    verified: usage.verified,
                    refused: usage.refused,
                    last_verified_at: usage.last_verified_at,
                    keys_valid_until: enforcer.keys_valid_until(issuer),
                });
                (pb::FilterState::Ready, Some(enforcer.installed()), issuers.collect())
            }
        };
        let total = |metric| self.counters.total(metric);
        pb::Receipt {
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
            now: now.s(),
            counters: Some(pb::Counters {
                allowed: total(Metric::Allowed),
                denied: total(Metric::Denied),
                shadow_differences: total(Metric::ShadowDifferences),
                signature_checks_host: total(Metric::HostSignatures),
                signature_checks_fallback: total(Metric::FallbackSignatures),
                token_cache_hits: total(Metric::TokensRemembered),
                nacks: total(Metric::Nacks),
                degraded: total(Metric::Degraded),
                leases_ended: total(Metric::LeasesEnded),
                over_budget: total(Metric::OverBudget),
                lookups: total(Metric::Lookups),
                held: total(Metric::Held),
                candidate_compared: total(Metric::CandidateCompared),
                candidate_would_allow: total(Metric::CandidateWouldAllow),
                candidate_would_deny: total(Metric::CandidateWouldDeny),
                candidate_unknown: total(Metric::CandidateUnknown),
                suspended: total(Metric::Suspended),
            }),
            issuers,
        }
    }

    fn vm(&self) -> pb::VmId {
        pb::VmId { instance: self.instance.clone(), generation: self.generation }
    }
}
