//! Outcomes and their stable reason codes.

use core::fmt;

/// What happens to the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It goes on.
    Allow,
    /// It is refused.
    Deny,
}

/// Why. [`Reason::code`] is stable; programs may rely on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A rule allows it, and none denies it.
    AllowedBy,
    /// A rule denies it.
    DeniedBy,
    /// The workload is guarded, and no rule allows it.
    NoAllowMatched,
    /// No verified token was sent, and this caller is let in only with one.
    TokenRequired,
    /// A token was sent that must not be accepted.
    TokenInvalid(TokenFault),
    /// The request can be read in more than one way.
    Ambiguous(Ambiguity),
    /// No Guard covers the workload's port.
    NotGuarded,
    /// Only Guards in Shadow mode cover the port; what they would have decided is in [`crate::Decision::shadow`].
    GuardInShadow,
    /// Whether it may pass depends on its body, which was not read.
    BodyUnread,
    /// The filter has no Bundle yet.
    NotReady,
    /// The filter's configuration is unusable.
    ConfigurationInvalid,
    /// The clock is behind the time at which the Bundle was issued: tokens that have expired would be accepted.
    ClockWrong,
    /// The rule that allows it demands that it is recorded, and it cannot be.
    AuditUnavailable,
}

/// Why a token must not be accepted. One word for people and programs per class; details stay in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenFault {
    /// More than one token, or one in more than one place.
    SeveralTokens,
    /// Longer than the limit, or nested too deep.
    TooLarge,
    /// Not a strictly formed JWS compact serialisation, or not strict JSON.
    Malformed,
    /// A header member that is never accepted (`crit`, `b64`, `jwk`, `jku`, `x5u`, `x5c`, `zip`, `cty`, `enc`).
    HeaderRefused,
    /// `alg` is not one of the issuer's.
    AlgorithmRefused,
    /// `typ` is not one of the pack's.
    TypeRefused,
    /// The issuer has no such key that fits the algorithm.
    KeyUnknown,
    /// The issuer's keys are older than their `valid_until`.
    KeysStale,
    /// The signature does not verify.
    BadSignature,
    /// `exp` has passed.
    Expired,
    /// `nbf` or `iat` lies ahead.
    NotYetValid,
    /// `exp - iat` is more than the issuer may give.
    LifetimeTooLong,
    /// Meant for somebody else.
    WrongAudience,
    /// Minted for a known other party (`sts.amazonaws.com`, a workload identity pool, Microsoft Graph, `istio-ca`).
    MintedForAnotherParty,
    /// A claim that the pack demands is missing.
    ClaimMissing,
    /// A claim has another type than the pack says, or forbidden characters.
    ClaimMalformed,
    /// Claims contradict each other.
    ClaimsContradict,
    /// The issuer sent this kind of token, but it is not one for workloads.
    WrongKind,
    /// The token is bound to a key (`cnf`) that the caller did not prove, or that cannot be checked.
    NotBound,
    /// `alg` is one of the issuer's, but nothing here can compute it.
    AlgorithmUnsupported,
    /// The signature was not looked at: too many were to be checked. The only fault that is not the token's.
    CheckBudget,
    /// The token, its subject or its key was revoked.
    Revoked,
    /// The issuer is not accepted any more.
    IssuerRetired,
    /// More than one audience, from an issuer that may give only one.
    SeveralAudiences,
}

/// Why a request can be read in more than one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ambiguity {
    /// The path: encoded slashes, dot segments, empty segments, backslashes, control bytes, broken or double encoding.
    Path,
    /// The host: missing, several, or with characters no host has.
    Host,
    /// The method: characters no method has.
    Method,
    /// A header that some servers take for the method, host or path.
    Override,
    /// A security-relevant header more than once.
    DuplicateHeader,
}

impl TokenFault {
    /// Every fault, for tables and tests.
    pub const ALL: [Self; 24] = [
        Self::SeveralTokens,
        Self::TooLarge,
        Self::Malformed,
        Self::HeaderRefused,
        Self::AlgorithmRefused,
        Self::TypeRefused,
        Self::KeyUnknown,
        Self::KeysStale,
        Self::BadSignature,
        Self::Expired,
        Self::NotYetValid,
        Self::LifetimeTooLong,
        Self::WrongAudience,
        Self::MintedForAnotherParty,
        Self::ClaimMissing,
        Self::ClaimMalformed,
        Self::ClaimsContradict,
        Self::WrongKind,
        Self::NotBound,
        Self::AlgorithmUnsupported,
        Self::CheckBudget,
        Self::Revoked,
        Self::IssuerRetired,
        Self::SeveralAudiences,
    ];

    /// The stable code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::SeveralTokens => "token_several",
            Self::TooLarge => "token_too_large",
            Self::Malformed => "token_malformed",
            Self::HeaderRefused => "token_header_refused",
            Self::AlgorithmRefused => "token_algorithm_refused",
            Self::TypeRefused => "token_type_refused",
            Self::KeyUnknown => "token_key_unknown",
            Self::KeysStale => "token_keys_stale",
            Self::BadSignature => "token_bad_signature",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::LifetimeTooLong => "token_lifetime_too_long",
            Self::WrongAudience => "token_wrong_audience",
            Self::MintedForAnotherParty => "token_minted_for_another_party",
            Self::ClaimMissing => "token_claim_missing",
            Self::ClaimMalformed => "token_claim_malformed",
            Self::ClaimsContradict => "token_claims_contradict",
            Self::WrongKind => "token_wrong_kind",
            Self::NotBound => "token_not_bound",
            Self::AlgorithmUnsupported => "token_algorithm_unsupported",
            Self::CheckBudget => "token_check_budget",
            Self::Revoked => "token_revoked",
            Self::IssuerRetired => "token_issuer_retired",
            Self::SeveralAudiences => "token_several_audiences",
        }
    }
}

impl Ambiguity {
    /// Every ambiguity, for tables and tests.
    pub const ALL: [Self; 5] = [Self::Path, Self::Host, Self::Method, Self::Override, Self::DuplicateHeader];

    /// The stable code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Path => "ambiguous_path",
            Self::Host => "ambiguous_host",
            Self::Method => "ambiguous_method",
            Self::Override => "override_header",
            Self::DuplicateHeader => "duplicate_header",
        }
    }
}

impl Reason {
    /// Every reason, for tables and tests.
    pub fn all() -> impl Iterator<Item = Self> {
        let plain = [
            Self::AllowedBy,
            Self::DeniedBy,
            Self::NoAllowMatched,
            Self::TokenRequired,
            Self::NotGuarded,
            Self::BodyUnread,
            Self::GuardInShadow,
            Self::NotReady,
            Self::ConfigurationInvalid,
            Self::ClockWrong,
            Self::AuditUnavailable,
        ];
        let ambiguous = Ambiguity::ALL.into_iter().map(Self::Ambiguous);
        plain.into_iter().chain(TokenFault::ALL.into_iter().map(Self::TokenInvalid)).chain(ambiguous)
    }

    /// The reason of this code.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::all().find(|reason| reason.code() == code)
    }

    /// The stable code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::AllowedBy => "allowed_by_rule",
            Self::DeniedBy => "denied_by_rule",
            Self::NoAllowMatched => "no_allow_matched",
            Self::TokenRequired => "token_required",
            Self::TokenInvalid(fault) => fault.code(),
            Self::Ambiguous(ambiguity) => ambiguity.code(),
            Self::NotGuarded => "not_guarded",
            Self::BodyUnread => "body_unread",
            Self::GuardInShadow => "guard_in_shadow",
            Self::NotReady => "not_ready",
            Self::ConfigurationInvalid => "configuration_invalid",
            Self::ClockWrong => "clock_wrong",
            Self::AuditUnavailable => "audit_unavailable",
        }
    }

    /// The HTTP status of a refusal for this reason; Envoy turns it into the gRPC status for gRPC callers
    /// (401 → `UNAUTHENTICATED`, 403 → `PERMISSION_DENIED`, 429 and 503 → `UNAVAILABLE`, 400 → `INTERNAL`).
    pub const fn http_status(self) -> u16 {
        match self {
            Self::TokenInvalid(TokenFault::CheckBudget) => 429,
            Self::TokenRequired | Self::TokenInvalid(_) => 401,
            Self::NotReady | Self::ConfigurationInvalid | Self::ClockWrong | Self::AuditUnavailable => 503,
            Self::AllowedBy
            | Self::DeniedBy
            | Self::NoAllowMatched
            | Self::Ambiguous(_)
            | Self::NotGuarded
            | Self::BodyUnread
            | Self::GuardInShadow => 403,
        }
    }

    /// One sentence for the caller, without any value from the request.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::AllowedBy => "a rule allows this request",
            Self::DeniedBy => "a rule denies this request",
            Self::NoAllowMatched => "no rule allows this request",
            Self::TokenRequired => "a token is required here, and none was sent",
            Self::TokenInvalid(fault) => match fault {
                TokenFault::SeveralTokens => "more than one token was sent; send exactly one",
                TokenFault::TooLarge => "the token is larger than is accepted",
                TokenFault::Malformed => "the token is not a well-formed signed JWT",
                TokenFault::HeaderRefused => "the token's header has a member that is never accepted",
                TokenFault::AlgorithmRefused => "the token's algorithm is not accepted from this issuer",
                TokenFault::TypeRefused => "the token's typ is not accepted from this issuer",
                TokenFault::KeyUnknown => "the token is signed with a key that its issuer does not publish",
                TokenFault::KeysStale => "the issuer's keys are out of date; tokens cannot be verified",
                TokenFault::BadSignature => "the token's signature does not verify",
                TokenFault::Expired => "the token has expired",
                TokenFault::NotYetValid => "the token is not valid yet; check the clocks",
                TokenFault::LifetimeTooLong => "the token is valid for longer than is accepted",
                TokenFault::WrongAudience => "the token is meant for another audience",
                TokenFault::MintedForAnotherParty => "the token was minted for another party",
                TokenFault::ClaimMissing => "the token lacks a claim that is required",
                TokenFault::ClaimMalformed => "a claim of the token is malformed",
                TokenFault::ClaimsContradict => "claims of the token contradict each other",
                TokenFault::WrongKind => "this kind of token does not identify a workload",
                TokenFault::NotBound => "the token is bound to a key that was not proven",
                TokenFault::AlgorithmUnsupported => "the token's algorithm cannot be computed here",
                TokenFault::CheckBudget => "too many tokens are being checked; try again",
                TokenFault::Revoked => "the token was revoked",
                TokenFault::IssuerRetired => "the token's issuer is not accepted any more",
                TokenFault::SeveralAudiences => "the token is meant for more than one audience",
            },
            Self::Ambiguous(ambiguity) => match ambiguity {
                Ambiguity::Path => "the path can be read in more than one way",
                Ambiguity::Host => "the host can be read in more than one way",
                Ambiguity::Method => "the method is malformed",
                Ambiguity::Override => "a header overrides the method, host or path",
                Ambiguity::DuplicateHeader => "a header that must be unique was sent more than once",
            },
            Self::NotGuarded => "no guard covers this port",
            Self::BodyUnread => "whether this may pass depends on the body, which this proxy does not read",
            Self::GuardInShadow => "the guard only observes",
            Self::NotReady => "the authorization filter has no rules yet; try again",
            Self::ConfigurationInvalid => "the authorization filter is misconfigured",
            Self::ClockWrong => "the clock of the authorization filter is wrong; try again later",
            Self::AuditUnavailable => "this must be recorded, and cannot be now; try again later",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Reason> {
        Reason::all().collect()
    }

    #[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
    #[test]
    fn every_reason_has_its_own_code_and_sentence() {
        for (position, reason) in all().iter().enumerate() {
            for earlier in &all()[..position] {
                assert_ne!(reason.code(), earlier.code());
                assert_ne!(reason.sentence(), earlier.sentence());
            }
            assert_eq!(Reason::from_code(reason.code()), Some(*reason));
        }
    }

    #[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
    #[test]
    fn only_what_may_pass_by_itself_asks_to_try_again() {
        for reason in all() {
            let status = reason.http_status();
            let passes = matches!(status, 429 | 503);
            let expected = matches!(
                reason,
                Reason::NotReady
                    | Reason::ConfigurationInvalid
                    | Reason::ClockWrong
                    | Reason::AuditUnavailable
                    | Reason::TokenInvalid(TokenFault::CheckBudget)
            );
            assert_eq!(passes, expected, "{reason} {status}");
        }
        assert_eq!(Reason::TokenInvalid(TokenFault::CheckBudget).http_status(), 429);
        assert_eq!(Reason::TokenInvalid(TokenFault::Revoked).http_status(), 401);
        assert_eq!(Reason::ClockWrong.http_status(), 503);
    }
}
