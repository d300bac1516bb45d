//! What a reason code means, what to do about it, and whose turn it is. The runbook has more: a page per code.

use serde::Serialize;
use tidegate_engine::{Ambiguity, Reason, TokenFault};

/// Advice about a reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// The stable code.
    pub reason: &'static str,
    /// The HTTP status that the caller sees.
    pub http: u16,
    /// The gRPC status that the caller sees.
    pub grpc: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What to do.
    pub fix: &'static str,
    /// Who can do it.
    pub turn: Turn,
    /// Where there is more: a page in Tidegate's repository.
    pub runbook: String,
}

/// Who can do something about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Turn {
    /// Nobody: it was allowed.
    Nobody,
    /// Whoever sent the request.
    Caller,
    /// The owner of the rule, or of the service where no rule is named.
    Owner,
    /// Whoever runs Tidegate and the mesh.
    Platform,
}

// === impl Turn ===

impl Turn {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Nobody => "nobody's",
            Self::Caller => "the caller's",
            Self::Owner => "the rule owner's",
            Self::Platform => "the platform team's",
        }
    }
}

/// Advice about a reason.
pub fn advice(reason: Reason) -> Advice {
    let (turn, meaning, fix) = words(reason);
    let http = reason.http_status();
    let grpc = match http {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        429 | 503 => "UNAVAILABLE",
        _ => "INTERNAL",
    };
    let runbook = format!("manifests/runbook/reasons/{}.md", reason.code());
    Advice { reason: reason.code(), http, grpc, meaning, fix, turn, runbook }
}

fn words(reason: Reason) -> (Turn, &'static str, &'static str) {
    match reason {
        Reason::AllowedBy => (
            Turn::Nobody,
            "a rule allows the request and none denies it; what the service itself answers is not Tidegate's",
            "nothing",
        ),
        Reason::DeniedBy => (
            Turn::Owner,
            "a Deny rule matches; it wins over every Allow, whatever the order",
            "ask the rule's owner whether it is meant for this request; another Allow will not help",
        ),
        Reason::NoAllowMatched => (
            Turn::Owner,
            "the workload is guarded, and no Allow rule matches this caller, operation and token together",
            "compare caller, method, path and claims with the rule that should allow it; have it changed, or send what it asks for",
        ),
        Reason::TokenRequired => (
            Turn::Caller,
            "a rule would let this caller in, but only with a token, and none arrived that the filter could attribute to a trusted issuer",
            "send the token in the header that its TrustedIssuer names; look whether a proxy or a redirect drops it",
        ),
        Reason::TokenInvalid(fault) => fault_words(fault),
        Reason::Ambiguous(ambiguity) => ambiguity_words(ambiguity),
        Reason::NotGuarded => (
            Turn::Platform,
            "no Guard covers this port, so every request passes, whatever rules say",
            "add a Guard to the namespace if the workload is to be guarded",
        ),
        Reason::GuardInShadow => (
            Turn::Owner,
            "the Guard is in Shadow mode or suspended: requests pass, and what would be refused is only counted",
            "look at what would be refused, then set the Guard's mode to Enforce; `tidegate fleet` shows what is suspended, and until when",
        ),
        Reason::BodyUnread => (
            Turn::Platform,
            "a rule depends on what the request's body says, and the body was not read: this proxy runs the build of the module that reads none, or only the head of the request is known here",
            "load the build of the module that reads bodies into this proxy (`tidegate module --bodies`)",
        ),
        Reason::NotReady => (
            Turn::Platform,
            "the filter has no rules yet; it refuses everything until they arrive",
            "try again in a second; if it stays, look whether the filter reaches the control plane and whether its rules compile",
        ),
        Reason::ConfigurationInvalid => (
            Turn::Platform,
            "the filter's own configuration cannot be used",
            "write it again with `tidegate plugin-config`; the proxy's log says what is wrong with it",
        ),
        Reason::ClockWrong => (
            Turn::Platform,
            "the clock of the proxy's machine is behind the time at which its rules were issued, so expired tokens would be accepted",
            "set the clock of that machine (NTP); requests pass as soon as it is right",
        ),
        Reason::AuditUnavailable => (
            Turn::Platform,
            "the rule that allows it says `audit: required`, and the filter has nobody to give the record to, or no room left for it",
            "look whether the filter reaches the control plane and whether the control plane takes records; requests pass as soon as it does",
        ),
    }
}

fn fault_words(fault: TokenFault) -> (Turn, &'static str, &'static str) {
    use TokenFault as F;
    let caller = |meaning, fix| (Turn::Caller, meaning, fix);
    let platform = |meaning, fix| (Turn::Platform, meaning, fix);
    match fault {
        F::SeveralTokens => caller(
            "more than one token of the same issuer arrived, or one in two places",
            "send exactly one; look whether a library and the code both add the header",
        ),
        F::TooLarge => caller(
            "the token is longer than filters accept",
            "ask the issuer for a token with fewer claims, e.g. without groups",
        ),
        F::Malformed => caller(
            "what arrived is not a whole, strictly formed JWT",
            "send it unchanged: no quotes, no line breaks, nothing cut off; `tidegate token explain` says what is wrong",
        ),
        F::HeaderRefused => caller(
            "the token's header has a member that lets the sender choose how it is verified",
            "use a token of the issuer itself; no honest issuer of workload tokens writes such members",
        ),
        F::AlgorithmRefused => platform(
            "the token is signed with an algorithm that the TrustedIssuer does not list",
            "if the issuer really signs so, add the algorithm to the TrustedIssuer's `algorithms`",
        ),
        F::TypeRefused => caller(
            "the token's `typ` is another kind of token: often an ID token where an access token is wanted",
            "send the kind of token that the TrustedIssuer is for, or have its `tokenTypes` extended",
        ),
        F::KeyUnknown => platform(
            "the token names a key that the issuer does not publish, or that the control plane has not fetched",
            "look at `tidegate keys status`; after a rotation it takes seconds. A token of another cluster or tenant looks the same",
        ),
        F::KeysStale => platform(
            "the issuer's keys could not be fetched for so long that they do not count any more",
            "look at `tidegate keys status` for what the last fetch failed with",
        ),
        F::BadSignature => caller(
            "the signature does not belong to the token: it was changed on the way, or somebody forged it",
            "fetch a new token and send it unchanged; if that fails as well, tell the security team",
        ),
        F::Expired => caller(
            "the token's time is over",
            "fetch a new one before it expires; long jobs must renew it. If it is fresh, compare the clocks",
        ),
        F::NotYetValid => caller(
            "the token counts only later: the clocks of issuer, caller and proxy differ",
            "compare the clocks (NTP), or wait",
        ),
        F::LifetimeTooLong => caller(
            "the token is valid for longer than its TrustedIssuer allows",
            "ask the issuer for a shorter one (for Kubernetes `expirationSeconds`), or have `maxLifetime` raised",
        ),
        F::WrongAudience => caller(
            "the token is meant for another service",
            "ask the issuer for a token with the audience that the service's Guard names",
        ),
        F::MintedForAnotherParty => caller(
            "the token was made for the mesh's CA, a cloud API or the like, and is not accepted by services",
            "ask for a token with the service's own audience",
        ),
        F::ClaimMissing => caller(
            "a claim that every token of this provider has is missing",
            "send another kind of token: for Google `format=full`, for Kubernetes a projected token",
        ),
        F::ClaimMalformed => platform(
            "a claim is not of the type that the provider documents",
            "look with `tidegate token explain` which; a TrustedIssuer with the wrong `pack` looks the same",
        ),
        F::ClaimsContradict => caller(
            "claims of the token contradict each other, as in a token that somebody put together",
            "fetch a new token; if that fails as well, tell the security team",
        ),
        F::WrongKind => caller(
            "it is a token of a person, a session or an event, not of a workload",
            "send the workload's own token",
        ),
        F::NotBound => caller(
            "the token is bound to a certificate or key that the connection has not proven",
            "use it from the client that it was issued to, over mTLS",
        ),
        F::AlgorithmUnsupported => platform(
            "the token's algorithm is allowed, and the filter cannot compute it",
            "have the issuer sign with RS256, ES256 or EdDSA",
        ),
        F::CheckBudget => caller(
            "too many new tokens came over this connection or through this proxy for all to be checked; the token itself was not looked at",
            "try again after a second, and reuse tokens instead of fetching one per request",
        ),
        F::Revoked => caller(
            "the token, its subject or its key was revoked by the TrustedIssuer",
            "fetch a new token; if the subject was revoked, ask the platform team why",
        ),
        F::IssuerRetired => caller(
            "the TrustedIssuer is past its `retireAfter`: none of its tokens counts any more",
            "send a token of the issuer that replaces it",
        ),
        F::SeveralAudiences => caller(
            "the token is meant for more than one service, which this issuer's tokens must not be",
            "ask for a token with this service's audience alone",
        ),
    }
}

fn ambiguity_words(ambiguity: Ambiguity) -> (Turn, &'static str, &'static str) {
    let (meaning, fix) = match ambiguity {
        Ambiguity::Path => (
            "the path has dot or empty segments, encoded slashes, `;` or the like: servers behind may read another path than the rules",
            "send the path as the service means it, e.g. `/v1/orders/7`; encode such characters in the query or the body",
        ),
        Ambiguity::Host => {
            ("the host is missing or has characters that no host has", "send the service's host name")
        }
        Ambiguity::Method => {
            ("the method is not upper case, or no method at all", "send it in upper case, e.g. `GET`")
        }
        Ambiguity::Override => (
            "a header such as `X-HTTP-Method-Override` or `X-Original-URL` tells servers another method or path than the rules see",
            "leave the header out and send the request as it is meant; look whether a proxy adds it",
        ),
        Ambiguity::DuplicateHeader => (
            "a header on which the decision depends arrived twice: two tokens, two hosts or two content types",
            "send it once; look whether a library and the code, or a proxy, both add it",
        ),
    };
    (Turn::Caller, meaning, fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_advice_of_its_own() {
        let all: Vec<Advice> = Reason::all().map(advice).collect();
        for (position, one) in all.iter().enumerate() {
            assert!(
                one.meaning.len() > 20 && !one.meaning.ends_with('.') && !one.fix.ends_with('.'),
                "{one:?}"
            );
            let repeats = all.iter().take(position).any(|other| other.meaning == one.meaning);
            assert!(!repeats, "{one:?}");
        }
        assert_eq!(advice(Reason::TokenRequired).grpc, "UNAUTHENTICATED");
        assert_eq!(advice(Reason::DeniedBy).turn, Turn::Owner);
    }
}
