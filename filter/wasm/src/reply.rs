//! Words a refusal.
//!
//! HTTP callers get a problem document (RFC 9457) and, with 401, a challenge (RFC 6750 section 3); gRPC callers get the
//! same as one line, which Envoy puts into `grpc-message` beside the status that it derives from the HTTP one.
//!
//! INVARIANT: nothing of the request is repeated, and a caller that has not proven who it is learns the reason but not
//! which rule, and not whose.

use core::fmt::Write as _;

use tidegate_engine::model::Disclosure;
use tidegate_engine::{Reason, RuleView};

/// A refusal, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Headers beside what the proxy sets.
    pub headers: Vec<(&'static str, String)>,
    /// Body; for gRPC the message.
    pub body: String,
}

/// What a refusal may tell, and how.
#[derive(Debug, Clone, Copy)]
pub struct Telling<'r> {
    /// Why.
    pub reason: Reason,
    /// The rule that decided.
    pub rule: Option<RuleView<'r>>,
    /// The caller has proven who it is: a mesh peer, or a verified token.
    pub caller_is_verified: bool,
    /// The caller speaks gRPC.
    pub grpc: bool,
}

/// The header that tells a refusal's id.
const DECISION: &str = "x-tidegate-decision";

// === impl Refusal ===

impl Refusal {
    /// The id that the caller sees.
    pub fn decision_id(&self) -> &str {
        let told = self.headers.iter().find(|(name, _)| *name == DECISION);
        told.map_or("", |(_, id)| id)
    }
}

/// An id that people can read to each other: 12 characters without the ones that look alike (Crockford's base 32).
pub fn decision_id(random: u64) -> String {
    const ALPHABET: [u8; 32] = *b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let mut id = String::with_capacity(14);
    for position in 0..12u32 {
        if position == 4 || position == 8 {
            id.push('-');
        }
        let digit = usize::try_from((random >> (position * 5)) & 31).unwrap_or_default();
        id.push(char::from(ALPHABET.get(digit).copied().unwrap_or(b'0')));
    }
    id
}

/// Words a refusal.
pub fn refuse(telling: Telling<'_>, decision: String) -> Refusal {
    let reason = telling.reason;
    let disclosure = telling.rule.map_or(Disclosure::Full, |rule| rule.disclosure);
    let mut headers = vec![(DECISION, decision.clone())];
    if disclosure == Disclosure::Opaque {
        return Refusal { status: 404, headers, body: String::new() };
    }
    let status = reason.http_status();
    match status {
        401 => headers.push(("www-authenticate", challenge(reason))),
        // RFC 6585 section 4; the budget fills all the time.
        429 => headers.push(("retry-after", "1".to_owned())),
        _ => {}
    }
    let rule = telling.rule.filter(|_| telling.caller_is_verified && disclosure == Disclosure::Full);
    let body = if telling.grpc {
        line(reason, rule, &decision)
    } else {
        headers.push(("content-type", "application/problem+json".to_owned()));
        headers.push(("cache-control", "no-store".to_owned()));
        problem(reason, rule, &decision, status)
    };
    Refusal { status, headers, body }
}

/// Without credentials no error code is given (RFC 6750 section 3.1).
fn challenge(reason: Reason) -> String {
    match reason {
        Reason::TokenInvalid(_) => [
            "Bearer realm=\"tidegate\", error=\"invalid_token\", error_description=\"",
            reason.sentence(),
            "\"",
        ]
        .concat(),
        _ => "Bearer realm=\"tidegate\"".to_owned(),
    }
}

fn line(reason: Reason, rule: Option<RuleView<'_>>, decision: &str) -> String {
    let mut line = [reason.sentence(), "; reason=", reason.code(), " decision=", decision].concat();
    if let Some(rule) = rule {
        for (name, value) in [(" rule=", rule.id), (" owner=", rule.owner), (" contact=", rule.contact)] {
            if !value.is_empty() {
                line.extend([name, value]);
            }
        }
    }
    line
}

/// A problem document (RFC 9457 section 3.1, with members of its own as section 3.2 allows).
fn problem(reason: Reason, rule: Option<RuleView<'_>>, decision: &str, status: u16) -> String {
    let (rule, owner, contact) = rule.map_or(("", "", ""), |rule| (rule.id, rule.owner, rule.contact));
    // Put together by hand: what is refused should cost little.
    let mut problem = String::with_capacity(384);
    let code = reason.code();
    problem.extend(["{\"status\":", &status.to_string(), ",\"type\":\"urn:tidegate:reason:", code, "\""]);
    let needed = [("title", reason.sentence()), ("reason", code), ("decision", decision)];
    let optional = [("rule", rule), ("owner", owner), ("contact", contact)];
    for (name, value) in needed.into_iter().chain(optional.into_iter().filter(|(_, value)| !value.is_empty()))
    {
        problem.extend([",\"", name, "\":\""]);
        escape(value, &mut problem);
        problem.push('"');
    }
    problem.push('}');
    problem
}

/// As in a JSON string (RFC 8259 section 7).
fn escape(value: &str, out: &mut String) {
    if !value.bytes().any(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)) {
        out.push_str(value);
        return;
    }
    for character in value.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\0'..='\u{1f}' => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_engine::TokenFault;
    use tidegate_engine::model::{Effect, Lease, Mode, OnExpiry};

    use super::*;

    const RULE: RuleView<'_> = RuleView {
        id: "sales/no-unprotected-ref",
        owner: "team-billing",
        contact: "#billing-oncall",
        effect: Effect::Deny,
        mode: Mode::Enforce,
        disclosure: Disclosure::Full,
        audit: tidegate_engine::model::Audit::Sampled,
        lease: Lease { on_expiry: OnExpiry::Reset, grace_s: 0 },
        revokes: false,
    };

    fn telling(reason: Reason) -> Telling<'static> {
        Telling { reason, rule: Some(RULE), caller_is_verified: true, grpc: false }
    }

    #[test]
    fn a_verified_caller_learns_rule_and_owner() {
        let refusal = refuse(telling(Reason::DeniedBy), "7Q4K-M2XD-0000".into());
        assert_eq!(refusal.status, 403);
        let body: serde_json::Value = serde_json::from_str(&refusal.body).unwrap();
        assert_eq!(body["rule"], "sales/no-unprotected-ref");
        assert_eq!(body["owner"], "team-billing");
        assert_eq!(body["decision"], "7Q4K-M2XD-0000");
        assert_eq!(body["reason"], "denied_by_rule");
    }

    #[test]
    fn whatever_an_owner_is_called_the_body_is_json() {
        let owner = "\"team\" \\ \u{0}\u{1f}\n\u{7f}é\u{2028}";
        let rule = RuleView { owner, ..RULE };
        let refusal = refuse(Telling { rule: Some(rule), ..telling(Reason::DeniedBy) }, "ID".into());
        let body: serde_json::Value = serde_json::from_str(&refusal.body).unwrap();
        assert_eq!(body["owner"], owner);
        assert_eq!(body["status"], 403);
        assert_eq!(body["type"], "urn:tidegate:reason:denied_by_rule");
    }

    #[test]
    fn an_unverified_caller_learns_neither_rule_nor_owner() {
        let refusal = refuse(Telling { caller_is_verified: false, ..telling(Reason::DeniedBy) }, "ID".into());
        assert!(!refusal.body.contains("sales") && !refusal.body.contains("billing"), "{}", refusal.body);
        assert!(refusal.body.contains("denied_by_rule"));
    }

    #[test]
    fn an_opaque_rule_answers_not_found_and_says_nothing() {
        let rule = RuleView { disclosure: Disclosure::Opaque, ..RULE };
        let refusal = refuse(Telling { rule: Some(rule), ..telling(Reason::DeniedBy) }, "ID".into());
        assert_eq!((refusal.status, refusal.body.as_str()), (404, ""));
        let code = RuleView { disclosure: Disclosure::Code, ..RULE };
        let refusal = refuse(Telling { rule: Some(code), ..telling(Reason::DeniedBy) }, "ID".into());
        assert!(!refusal.body.contains("sales"), "{}", refusal.body);
    }

    #[test]
    fn a_challenge_names_an_error_only_when_a_token_was_sent() {
        let challenge = |reason| {
            let refusal = refuse(telling(reason), "ID".into());
            assert_eq!(refusal.status, 401);
            refusal.headers.into_iter().find(|(name, _)| *name == "www-authenticate").unwrap().1
        };
        assert_eq!(challenge(Reason::TokenRequired), "Bearer realm=\"tidegate\"");
        for fault in TokenFault::ALL.into_iter().filter(|fault| *fault != TokenFault::CheckBudget) {
            let text = challenge(Reason::TokenInvalid(fault));
            assert!(text.contains("error=\"invalid_token\""), "{text}");
            // RFC 6750 section 3: error_description has no quote and no backslash.
            assert_eq!(text.matches('"').count(), 6, "{text}");
            assert!(!text.contains('\\') && text.is_ascii(), "{text}");
        }
    }

    #[test]
    fn a_token_that_was_not_looked_at_is_not_called_invalid() {
        let refusal = refuse(telling(Reason::TokenInvalid(TokenFault::CheckBudget)), "ID".into());
        assert_eq!(refusal.status, 429);
        let header =
            |name| refusal.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str());
        assert_eq!((header("retry-after"), header("www-authenticate")), (Some("1"), None));
    }

    #[test]
    fn grpc_callers_get_one_line() {
        let refusal = refuse(Telling { grpc: true, ..telling(Reason::DeniedBy) }, "ID".into());
        assert_eq!(
            refusal.body,
            "a rule denies this request; reason=denied_by_rule decision=ID rule=sales/no-unprotected-ref \
             owner=team-billing contact=#billing-oncall"
        );
    }

    #[test]
    fn ids_differ_and_are_readable() {
        assert_eq!(decision_id(0), "0000-0000-0000");
        assert_eq!(decision_id(u64::MAX), "ZZZZ-ZZZZ-ZZZZ");
        assert_ne!(decision_id(1), decision_id(1 << 55));
    }
}
