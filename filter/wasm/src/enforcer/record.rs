//! What a decision record says.
//!
//! INVARIANT: no token, no signature, no header's value but method, host, path and trace, nothing of a query; of claims only
//! what [`tidegate_identity::Authenticator::recorded`] gives. What looks like a token wherever it stands is left out.

use tidegate_engine::{Decision, Outcome, Peer, Reason, ShadowDifference};
use tidegate_identity::TokenOutcome;
use tidegate_proto::v1 as pb;

use super::Enforcer;
use crate::request::{Header, Received, header, hex};

/// Longest texts, in bytes.
const MAX_METHOD: usize = 32;
const MAX_HOST: usize = 253;
const MAX_PATH: usize = 1024;

/// Stands for what looks like a token.
const REDACTED: &str = "(token)";

/// Shortest run of letters of a token that is taken for one, after the `eyJ` with which the base64 form of a JSON object
/// begins.
const MIN_TOKEN: usize = 16;

// === impl Enforcer ===

impl Enforcer {
    /// What is said of the request that was decided last, but for id, time and how it came to this record.
    pub fn record(&self, received: &Received, decision: &Decision) -> pb::DecisionRecord {
        let headers = received.headers(None).unwrap_or_default();
        let rules = self.installed.rules.as_ref();
        let name = |rule| rules.and_then(|rules| rules.rule(rule)).map(|rule| rule.id.to_owned());
        let difference = |shadow: ShadowDifference| pb::ShadowDifference {
            outcome: outcome(shadow.outcome).into(),
            reason: shadow.reason.code().to_owned(),
            rule: shadow.rule.and_then(name).unwrap_or_default(),
        };
        let verified = rules.iter().flat_map(|rules| rules.issuers()).zip(&self.outcomes);
        let claims = self.authenticator.iter().flat_map(|known| known.recorded(&headers, &self.outcomes));
        let (epoch, counter) = self.installed.manifest.revision;
        pb::DecisionRecord {
            rule: decision.rule.and_then(name).unwrap_or_default(),
            issuers: verified
                .filter(|(_, outcome)| matches!(outcome, TokenOutcome::Verified(_)))
                .map(|((issuer, _), _)| issuer.to_owned())
                .collect(),
            revision: Some(pb::Revision { epoch, counter }),
            manifest_sha256: self.installed.manifest.digest.to_vec(),
            shadow: decision.shadow.map(difference),
            degraded: decision.degraded,
            claims: claims
                .map(|claim| pb::RecordedClaim {
                    issuer: claim.issuer.to_owned(),
                    claim: claim.path.join("."),
                    values: vec![safe(claim.value.as_bytes(), usize::MAX)],
                })
                .collect(),
            port: received.known_port().map_or(0, u32::from),
            ..of_request(&headers, received.peer(), decision.outcome, decision.reason)
        }
    }
}

/// What is said of a request that no Bundle decided on.
pub fn undecided(received: Option<&Received>, reason: Reason) -> pb::DecisionRecord {
    let headers = received.map(|received| received.headers(None).unwrap_or_default()).unwrap_or_default();
    of_request(&headers, received.map_or(Peer::Absent, Received::peer), Outcome::Deny, reason)
}

fn of_request(
    headers: &[Header<'_>],
    peer: Peer<'_>,
    outcome_: Outcome,
    reason: Reason,
) -> pb::DecisionRecord {
    let path = header(headers, b":path");
    let path = path.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
    let (trace_id, span_id) = trace(header(headers, b"traceparent")).unwrap_or_default();
    pb::DecisionRecord {
        outcome: outcome(outcome_).into(),
        reason: reason.code().to_owned(),
        peer: match peer {
            Peer::Mesh { trust_domain, namespace, service_account } => {
                ["spiffe://", trust_domain, "/ns/", namespace, "/sa/", service_account].concat()
            }
            Peer::Absent => String::new(),
        },
        method: safe(header(headers, b":method"), MAX_METHOD),
        host: safe(header(headers, b":authority"), MAX_HOST),
        path: safe(path, MAX_PATH),
        trace_id,
        span_id,
        stands_for: 1,
        ..pb::DecisionRecord::default()
    }
}

const fn outcome(outcome: Outcome) -> pb::Outcome {
    match outcome {
        Outcome::Allow => pb::Outcome::Allow,
        Outcome::Deny => pb::Outcome::Deny,
    }
}

/// Visible ASCII, not longer than this; anything else becomes `?`. Without what looks like a token.
fn safe(text: &[u8], most: usize) -> String {
    let text = text.get(..text.len().min(most)).unwrap_or_default();
    let mut safe = String::with_capacity(text.len());
    // Segments of a path, labels of a host, parts of an id.
    for piece in text.split_inclusive(|byte| matches!(byte, b'/' | b':' | b',' | b';' | b'=' | b'&' | b' ')) {
        if looks_like_token(piece) {
            safe.push_str(REDACTED);
            if piece.last() == Some(&b'/') {
                safe.push('/');
            }
            continue;
        }
        let visible =
            |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '?' };
        safe.extend(piece.iter().map(visible));
    }
    safe
}

/// Whether the base64 form of a JSON object begins in it, as it does in every JWT.
fn looks_like_token(piece: &[u8]) -> bool {
    let in_token = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'+');
    let mut begins = piece.windows(3).enumerate().filter(|(_, three)| *three == b"eyJ");
    begins.any(|(at, _)| {
        piece.get(at..).is_some_and(|rest| rest.iter().take_while(|byte| in_token(byte)).count() >= MIN_TOKEN)
    })
}

/// Trace and parent span of a `traceparent` (W3C Trace Context, section 3.2).
fn trace(value: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut parts = value.split(|byte| *byte == b'-');
    let (version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
    let version: [u8; 1] = hex(version)?;
    let (trace, span): ([u8; 16], [u8; 8]) = (hex(trace)?, hex(span)?);
    let is_told = version != [0xFF] && trace != [0; 16] && span != [0; 8];
    is_told.then(|| (trace.to_vec(), span.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_token_is_left_out_wherever_it_stands() {
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl";
        for (text, expected) in [
            (format!("/v1/{token}/rest"), "/v1/(token)/rest".to_owned()),
            (format!("/v1/x={token}"), "/v1/x=(token)".to_owned()),
            (format!("{token}.example"), "(token)".to_owned()),
            (format!("/v1/a{token}"), "/v1/(token)".to_owned()),
            ("/v1/eyJ/orders".to_owned(), "/v1/eyJ/orders".to_owned()),
            ("/v1/é\u{7}".to_owned(), "/v1/???".to_owned()),
        ] {
            assert_eq!(safe(text.as_bytes(), 1024), expected);
        }
        assert_eq!(safe(b"/abc", 2), "/a");
    }

    #[test]
    fn only_a_well_formed_trace_is_recorded() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let (trace_id, span_id) = trace(good.as_bytes()).unwrap();
        assert_eq!((trace_id[0], span_id[7]), (0x4B, 0xB7));
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
