//! Packs: what each identity provider's tokens look like. Typed claims, which of them are stable, `typ`, algorithms,
//! lifetimes, and the checks that only make sense for this provider.
//!
//! A pack is a table ([`Pack`]) and one function. The filter verifies by it, the compiler types rules by it, so that
//! a rule cannot read a claim as something that verification would not have let pass.
//!
//! INVARIANT: no token is verified in which a known claim has another type than its [`ClaimSpec::kind`].

use serde::{Deserialize, Serialize};
use tidegate_engine::TokenFault;

use crate::json::Object;
use crate::keys::Algorithm;

mod audience;
mod aws;
mod claim;
mod derived;
mod detect;
mod entra;
mod generic;
mod github;
mod gitlab;
#[cfg(test)]
pub(crate) mod golden;
mod google;
mod kubernetes;
mod okta;
mod recorded;
mod spiffe;
#[cfg(test)]
mod tests;

pub use audience::another_party;
pub use claim::{ClaimKind, ClaimSpec, Overage, Presence, Stability};
pub(crate) use claim::{check_claim, check_types, extract, is_visible, text};
pub use derived::{DerivedSpec, MAX_ACTORS};
pub use spiffe::in_trust_domain;

/// Which pack an issuer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PackKind {
    /// Google service-account and Compute Engine instance identity tokens.
    Google,
    /// Projected service-account tokens of a Kubernetes cluster: GKE, EKS, AKS and others.
    Kubernetes,
    /// GitLab CI id tokens.
    Gitlab,
    /// Microsoft Entra ID access tokens, v1 and v2.
    Entra,
    /// Access tokens of an Okta custom authorization server.
    Okta,
    /// AWS IAM outbound identity federation.
    Aws,
    /// SPIFFE JWT-SVIDs.
    Spiffe,
    /// GitHub Actions id tokens.
    Github,
    /// Any other OAuth issuer whose access tokens are JWTs (RFC 9068).
    Generic,
}

/// What is known of an identity provider's tokens.
#[derive(Debug)]
pub struct Pack {
    /// Known claims, the registered ones (RFC 7519 §4.1) included.
    pub claims: &'static [ClaimSpec],
    /// Attributes of this pack; see [`PackKind::derived_all`].
    pub derived: &'static [DerivedSpec],
    /// Whether its tokens also have claims of the customer's choice, which rules may read as what they are.
    pub open: bool,
    /// Accepted `typ`, lower case. RFC 7515 §4.1.9: a media type, compared without case. A token without one counts as a
    /// `jwt`.
    pub types: &'static [&'static str],
    /// Its tokens are JWT-SVIDs: the header has `alg`, `kid` and `typ` and nothing else, and whose token it is tells the
    /// trust domain of `sub`.
    pub strict_header: bool,
    /// Algorithms that a TrustedIssuer accepts unless it says otherwise.
    pub algorithms: &'static [Algorithm],
    /// Longest life of a token in seconds unless the TrustedIssuer says otherwise.
    pub max_lifetime_s: u32,
    /// Where the life of a token begins.
    pub lifetime_from: LifetimeFrom,
    /// Where a token has its own id; none: such tokens cannot be revoked one by one.
    pub token_id: Option<&'static [&'static str]>,
    /// Tokens for more than one audience are refused unless the TrustedIssuer says otherwise.
    pub single_audience: bool,
    /// Claims any of which ties a rule to one tenant of a shared issuer.
    tenant: &'static [&'static [&'static str]],
    /// Issuers that many unrelated tenants share.
    shared: &'static [&'static str],
    /// Why the issuer cannot be one of this pack's, if so.
    refuses_issuer: fn(&str) -> Option<&'static str>,
    /// Whether a key that is published for an issuer may sign tokens of this `iss`.
    key_may_sign: fn(key_issuer: &str, iss: &str) -> bool,
    /// Checks across claims.
    check: fn(&TokenFacts<'_>) -> Result<(), TokenFault>,
}

/// Where the life of a token begins, for its longest life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LifetimeFrom {
    /// At `iat`, or at `nbf` where there is none.
    IssuedAt,
    /// At `nbf`, which must be there: `iat` is when somebody signed in.
    NotBefore,
}

/// What a pack's own check sees. The types of all known claims hold.
pub(crate) struct TokenFacts<'a> {
    /// Verified claims.
    pub claims: &'a Object,
    /// Which of the TrustedIssuer's strings the token is accepted for.
    pub iss: &'a str,
    /// `iat`, or `nbf` where there is none.
    pub issued_at: i64,
    /// The issuer's clock tolerance in seconds.
    pub skew: i64,
    /// Kubernetes tokens that are bound to no pod are accepted.
    pub allow_unbound: bool,
    /// The TrustedIssuer says itself which `typ` it accepts.
    pub types_overridden: bool,
}

// === impl PackKind ===

impl PackKind {
    /// Every pack.
    pub const ALL: [Self; 9] = [
        Self::Google,
        Self::Kubernetes,
        Self::Gitlab,
        Self::Entra,
        Self::Okta,
        Self::Aws,
        Self::Spiffe,
        Self::Github,
        Self::Generic,
    ];

    /// The name in rules and in the keys section.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Google => "google",
            Self::Kubernetes => "kubernetes",
            Self::Gitlab => "gitlab",
            Self::Entra => "entra",
            Self::Okta => "okta",
            Self::Aws => "aws",
            Self::Spiffe => "spiffe",
            Self::Github => "github",
            Self::Generic => "generic",
        }
    }

    /// The pack of this exact name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|pack| pack.name() == name)
    }

    /// The pack of an issuer that is known by its name alone. A guess for people to confirm, never a decision: a
    /// self-managed issuer may have any name.
    pub fn detect(issuer: &str) -> Option<Self> {
        detect::by_issuer(issuer)
    }

    /// What is known of its tokens.
    pub const fn pack(self) -> &'static Pack {
        match self {
            Self::Google => &google::PACK,
            Self::Kubernetes => &kubernetes::PACK,
            Self::Gitlab => &gitlab::PACK,
            Self::Entra => &entra::PACK,
            Self::Okta => &okta::PACK,
            Self::Aws => &aws::PACK,
            Self::Spiffe => &spiffe::PACK,
            Self::Github => &github::PACK,
            Self::Generic => &generic::PACK,
        }
    }

    /// The claims that it knows.
    pub const fn claims(self) -> &'static [ClaimSpec] {
        self.pack().claims
    }

    /// What it knows of one claim.
    pub fn claim(self, path: &[impl AsRef<str>]) -> Option<&'static ClaimSpec> {
        self.claims().iter().find(|spec| spec.is(path))
    }

    /// The attributes that it computes: its own, and those of all packs that it does not define otherwise.
    pub fn derived_all(self) -> impl Iterator<Item = &'static DerivedSpec> {
        derived::all(self)
    }

    /// The attribute of this name, `@` included. Rules read it as a claim whose path is this name alone.
    pub fn derived(self, name: &str) -> Option<&'static DerivedSpec> {
        self.derived_all().find(|spec| spec.name == name)
    }

    /// Why an issuer cannot have this pack, if so.
    pub fn refuses_issuer(self, issuer: &str) -> Option<&'static str> {
        (self.pack().refuses_issuer)(issuer)
    }

    /// Whether a key with this `issuer` member may sign tokens of this `iss`. Entra publishes the keys of all tenants in
    /// one set, some of which are for one tenant only.
    pub fn key_may_sign(self, key_issuer: &str, iss: &str) -> bool {
        (self.pack().key_may_sign)(key_issuer, iss)
    }
}

/// For packs whose keys have no `issuer` member of their own: it means what it says.
const SAME_ISSUER: fn(&str, &str) -> bool = |key_issuer, iss| key_issuer == iss;

/// Whether unrelated tenants get tokens of this issuer, so that a rule without a condition on one of
/// [`tenant_claims`] would trust all of them.
pub fn is_shared_issuer(pack: PackKind, issuer: &str) -> bool {
    pack.pack().shared.contains(&issuer) || generic::SHARED.contains(&issuer)
}

/// Claims any of which ties a rule to one tenant of a shared issuer.
pub fn tenant_claims(pack: PackKind) -> &'static [&'static [&'static str]] {
    pack.pack().tenant
}

/// The checks across claims: of the chain of actors, and the pack's own.
pub(crate) fn check(kind: PackKind, facts: &TokenFacts<'_>) -> Result<(), TokenFault> {
    // RFC 8417 §2.2: what has `events` is a Security Event Token, a statement between servers. One that logs a person out
    // (OpenID Connect Back-Channel Logout §2.4) need not say so in its `typ`.
    if facts.claims.get("events").is_some() {
        return Err(TokenFault::WrongKind);
    }
    derived::check_actors(facts.claims)?;
    (kind.pack().check)(facts)
}
