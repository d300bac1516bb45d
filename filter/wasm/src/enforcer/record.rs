//! What a decision record says.
//!
//! INVARIANT: no token, no signature, no header's value but method, host, path and trace, nothing of a query; of claims only
//! what [`tidegate_identity::Authenticator::recorded`] gives. What looks like a token wherever it stands is left out.

use prost::encoding::{WireType, encode_key, encode_varint};
use tidegate_engine::{
    CandidateDifference, CandidateOutcome, Decision, Outcome, Peer, Reason, ShadowDifference,
};
use tidegate_identity::TokenOutcome;
use tidegate_proto::v1 as pb;

use super::Enforcer;
use crate::records::Class;
use crate::redact::safe;
use crate::request::{Header, Received, header, hex};

/// Longest texts, in bytes.
const MAX_METHOD: usize = 32;
const MAX_HOST: usize = 253;
const MAX_PATH: usize = 1024;

/// Fields of `DecisionRecord`, `ShadowDifference`, `RecordedClaim` and `Revision`.
mod tag {
    pub const ID: u32 = 1;
    pub const TIME: u32 = 2;
    pub const OUTCOME: u32 = 3;
    pub const REASON: u32 = 4;
    pub const RULE: u32 = 5;
    pub const PEER: u32 = 6;
    pub const ISSUERS: u32 = 7;
    pub const METHOD: u32 = 8;
    pub const HOST: u32 = 9;
    pub const PATH: u32 = 10;
    pub const REVISION: u32 = 11;
    pub const MANIFEST: u32 = 12;
    pub const SHADOW: u32 = 13;
    pub const DEGRADED: u32 = 14;
    pub const CLAIMS: u32 = 15;
    pub const TRACE: u32 = 16;
    pub const SPAN: u32 = 17;
    pub const DECIDED_IN: u32 = 18;
    pub const STANDS_FOR: u32 = 19;
    pub const ENDED: u32 = 20;
    pub const PORT: u32 = 21;
    pub const CANDIDATE: u32 = 22;
    pub const AUDIT: u32 = 23;
    pub const TRACE_FLAGS: u32 = 24;

    pub mod shadow {
        pub const OUTCOME: u32 = 1;
        pub const REASON: u32 = 2;
        pub const RULE: u32 = 3;
    }

    pub mod claim {
        pub const ISSUER: u32 = 1;
        pub const NAME: u32 = 2;
        pub const VALUES: u32 = 3;
    }

    pub mod revision {
        pub const EPOCH: u32 = 1;
        pub const COUNTER: u32 = 2;
    }
}

/// How a record came about.
#[derive(Debug, Clone, Copy)]
pub struct Made<'i> {
    /// The decision's id.
    pub id: &'i str,
    /// Unix nanoseconds.
    pub time_ns: u64,
    /// What deciding took, in nanoseconds; 0 where that is not known.
    pub decided_in_ns: u64,
    /// For how many requests it stands.
    pub stands_for: u32,
    /// The request had been allowed.
    pub ended: bool,
    /// How completely it is to be recorded.
    pub class: Class,
}

/// A message of Protocol Buffers, written field by field: a record is made of every refusal, and built once. What has its
/// default value is left out.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

// === impl Enforcer ===

impl Enforcer {
    /// What is said of the request that was decided last: a `DecisionRecord`.
    pub fn record(&self, received: &Received, decision: &Decision, made: Made<'_>) -> Vec<u8> {
        let headers = received.headers(None).unwrap_or_default();
        let rules = self.installed.rules.as_deref();
        let name = |rule| rules.and_then(|rules| rules.rule(rule)).map_or("", |rule| rule.id);
        let mut record = of_request(&headers, received.peer(), decision.outcome, decision.reason, made);
        record.text(tag::RULE, decision.rule.map_or("", name));
        let issuers = rules.into_iter().flat_map(|rules| rules.issuers());
        for ((issuer, _), outcome) in issuers.zip(&self.outcomes) {
            if matches!(outcome, TokenOutcome::Verified(_)) {
                record.text(tag::ISSUERS, issuer);
            }
        }
        let (epoch, counter) = self.installed.manifest.revision;
        record.message(tag::REVISION, |revision| {
            revision.number(tag::revision::EPOCH, epoch);
            revision.number(tag::revision::COUNTER, counter);
        });
        record.bytes(tag::MANIFEST, &self.installed.manifest.digest);
        if let Some(ShadowDifference { outcome, reason, rule }) = decision.shadow {
            record.message(tag::SHADOW, |shadow| {
                shadow.outcome(tag::shadow::OUTCOME, outcome);
                shadow.text(tag::shadow::REASON, reason.code());
                shadow.text(tag::shadow::RULE, rule.map_or("", name));
            });
        }
        record.number(tag::DEGRADED, u64::from(decision.degraded));
        for known in self.authenticator.iter().flat_map(|known| known.recorded(&headers, &self.outcomes)) {
            record.message(tag::CLAIMS, |claim| {
                claim.text(tag::claim::ISSUER, known.issuer);
                claim.text(tag::claim::NAME, &known.path.join("."));
                claim.safe(tag::claim::VALUES, known.value.as_bytes(), usize::MAX);
            });
        }
        record.number(tag::PORT, received.known_port().map_or(0, u64::from));
        record.0
    }
}

/// Adds to a `DecisionRecord` what a candidate would have done otherwise. Without an outcome: it cannot be told.
pub fn candidate_told(record: &mut Vec<u8>, difference: &CandidateDifference, rule: &str) {
    let mut told = Message(std::mem::take(record));
    told.message(tag::CANDIDATE, |candidate| {
        match difference.outcome {
            CandidateOutcome::Allow => candidate.outcome(tag::shadow::OUTCOME, Outcome::Allow),
            CandidateOutcome::Deny => candidate.outcome(tag::shadow::OUTCOME, Outcome::Deny),
            CandidateOutcome::Unknown => {}
        }
        candidate.text(tag::shadow::REASON, difference.reason.code());
        candidate.text(tag::shadow::RULE, rule);
    });
    *record = told.0;
}

/// What is said of a request that no Bundle decided on: a `DecisionRecord`.
pub fn undecided(received: Option<&Received>, reason: Reason, made: Made<'_>) -> Vec<u8> {
    let headers = received.map(|received| received.headers(None).unwrap_or_default()).unwrap_or_default();
    of_request(&headers, received.map_or(Peer::Absent, Received::peer), Outcome::Deny, reason, made).0
}

fn of_request(
    headers: &[Header<'_>],
    peer: Peer<'_>,
    outcome: Outcome,
    reason: Reason,
    made: Made<'_>,
) -> Message {
    let path = header(headers, b":path");
    let path = path.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
    let mut record = Message(Vec::with_capacity(512));
    record.text(tag::ID, made.id);
    record.number(tag::TIME, made.time_ns);
    record.outcome(tag::OUTCOME, outcome);
    record.text(tag::REASON, reason.code());
    if let Peer::Mesh { trust_domain, namespace, service_account } = peer {
        let id = ["spiffe://", trust_domain, "/ns/", namespace, "/sa/", service_account].concat();
        record.text(tag::PEER, &id);
    }
    record.safe(tag::METHOD, header(headers, b":method"), MAX_METHOD);
    record.safe(tag::HOST, header(headers, b":authority"), MAX_HOST);
    record.safe(tag::PATH, path, MAX_PATH);
    if let Some((trace, span, flags)) = trace(header(headers, b"traceparent")) {
        record.bytes(tag::TRACE, &trace);
        record.bytes(tag::SPAN, &span);
        if let Some(flags) = flags {
            record.also_zero(tag::TRACE_FLAGS, flags.into());
        }
    }
    record.number(tag::DECIDED_IN, made.decided_in_ns);
    record.number(tag::STANDS_FOR, made.stands_for.into());
    record.number(tag::ENDED, u64::from(made.ended));
    record.choice(
        tag::AUDIT,
        match made.class {
            Class::Sample => pb::Audit::Sampled.into(),
            Class::Full => pb::Audit::Full.into(),
            Class::Required => pb::Audit::Required.into(),
        },
    );
    record
}

// === impl Message ===

impl Message {
    fn number(&mut self, tag: u32, number: u64) {
        if number != 0 {
            self.also_zero(tag, number);
        }
    }

    /// A number that says something else than none where it is 0.
    fn also_zero(&mut self, tag: u32, number: u64) {
        encode_key(tag, WireType::Varint, &mut self.0);
        encode_varint(number, &mut self.0);
    }

    fn outcome(&mut self, tag: u32, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Allow => pb::Outcome::Allow,
            Outcome::Deny => pb::Outcome::Deny,
        };
        self.choice(tag, outcome.into());
    }

    /// A value of an enum.
    fn choice(&mut self, tag: u32, value: i32) {
        self.number(tag, u64::try_from(value).unwrap_or_default());
    }

    fn bytes(&mut self, tag: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            encode_key(tag, WireType::LengthDelimited, &mut self.0);
            encode_varint(u64::try_from(bytes.len()).unwrap_or(u64::MAX), &mut self.0);
            self.0.extend_from_slice(bytes);
        }
    }

    fn text(&mut self, tag: u32, text: &str) {
        self.bytes(tag, text.as_bytes());
    }

    /// A text of others, without what looks like a token.
    fn safe(&mut self, tag: u32, text: &[u8], most: usize) {
        self.bytes(tag, &safe(text, most));
    }

    fn message(&mut self, tag: u32, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(tag, &inner.0);
    }
}

/// Trace, parent span and flags of a `traceparent` (W3C Trace Context, section 3.2).
fn trace(value: &[u8]) -> Option<([u8; 16], [u8; 8], Option<u8>)> {
    let mut parts = value.split(|byte| *byte == b'-');
    let (version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
    let version: [u8; 1] = hex(version)?;
    let (trace, span): ([u8; 16], [u8; 8]) = (hex(trace)?, hex(span)?);
    let is_told = version != [0xFF] && trace != [0; 16] && span != [0; 8];
    let flags = parts.next().and_then(hex::<1>).map(|[flags]| flags);
    is_told.then_some((trace, span, flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_trace_is_recorded() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let (trace_id, span_id, flags) = trace(good.as_bytes()).unwrap();
        assert_eq!((trace_id[0], span_id[7], flags), (0x4B, 0xB7, Some(1)));
        let flags = |end: &str| trace(good.replace("-01", end).as_bytes()).unwrap().2;
        assert_eq!([flags("-00"), flags("-0A"), flags("")], [Some(0), None, None]);
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            assert_eq!(trace(bad.as_bytes()), None, "{bad}");
        }
    }
}
