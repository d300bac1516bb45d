//! Trusted issuers as the filter holds them, and the keys section that carries them.
//!
//! The section is JSON: `{"version":2,"issuers":[…]}`, written by [`IssuerSetSpec::encode`] with members in a fixed order
//! and read by this crate's own strict reader. Unknown members and values are refused: a newer control plane's
//! restriction must not get lost in an older filter.
//!
//! INVARIANT: an [`IssuerSet`] is consistent: names and `iss` values are unique over the whole set, every issuer has
//! algorithms and headers, tolerances are bounded, and no `kid` names two keys that fit the same token.
//! [`IssuerSetSpec::encode`] checks the same, so what encodes also decodes.

use crate::json::InvalidJson;
use crate::keys::{Algorithm, InvalidKey, PublicKey};
use crate::pack::PackKind;

mod read;
mod revoked;
mod spec;
#[cfg(test)]
mod tests;

pub(crate) use revoked::Revocations;
pub use revoked::{Revoked, RevokedKind};
pub use spec::{IssuerSetSpec, IssuerSpec, TokenHeader};

/// Version of the keys section.
pub const VERSION: u32 = 2;
/// Issuers in one section.
pub const MAX_ISSUERS: usize = 64;
/// Values of `iss` that one issuer may have.
pub const MAX_ISS: usize = 64;
/// Revocations of one issuer.
pub const MAX_REVOKED: usize = 4096;
/// Largest clock tolerance in seconds.
pub const MAX_SKEW_S: u32 = 120;
/// Largest lifetime in seconds that a TrustedIssuer may accept: 30 days, GitLab's longest job.
pub const MAX_LIFETIME_S: u32 = 30 * 24 * 3600;
/// Clock tolerance in seconds where nothing else is said.
pub const DEFAULT_SKEW_S: u32 = 30;

/// Decoded issuers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IssuerSet {
    issuers: Vec<Issuer>,
}

/// A decoded issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    terms: Terms,
    revocations: Revocations,
    retire_at: i64,
    valid_until: i64,
}

/// All of an issuer that says which tokens verify, whenever that is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Terms {
    name: String,
    iss: Vec<String>,
    pack: PackKind,
    types: Vec<String>,
    audiences: Vec<String>,
    single_audience: bool,
    require_cnf: bool,
    algorithms: Vec<Algorithm>,
    headers: Vec<TokenHeader>,
    forward: bool,
    allow_unbound: bool,
    max_lifetime_s: u32,
    skew_s: u32,
    keys: Vec<PublicKey>,
}

/// Why a keys section is not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeys {
    /// Not UTF-8.
    #[error("the keys section is not UTF-8")]
    Encoding,
    /// Not strict JSON.
    #[error("the keys section is {0}")]
    Json(#[from] InvalidJson),
    /// Of another version.
    #[error("`version`: the keys section has version {found}; this reader knows {VERSION}")]
    Version {
        /// What it says.
        found: i64,
    },
    /// A field is missing, unknown, or has a value that it must not have.
    #[error("`{field}`: {why}")]
    Field {
        /// Path of the field.
        field: String,
        /// What is wrong.
        why: String,
    },
    /// A key is not fit.
    #[error("`{field}`: {why}")]
    Key {
        /// Path of the key.
        field: String,
        /// What is wrong.
        why: InvalidKey,
    },
}

fn field(path: &str, why: String) -> InvalidKeys {
    InvalidKeys::Field { field: path.to_owned(), why }
}

// === impl IssuerSet ===

impl IssuerSet {
    /// Reads a keys section.
    ///
    /// # Errors
    ///
    /// See [`InvalidKeys`]. One unfit key or one bad field refuses the whole section; nothing is dropped from a list.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidKeys> {
        let spec = IssuerSetSpec::decode(bytes)?;
        Ok(Self { issuers: spec.issuers.into_iter().map(Issuer::from).collect() })
    }

    /// The issuers in the order of the section.
    pub fn issuers(&self) -> &[Issuer] {
        &self.issuers
    }

    /// The one issuer whose token this would be, by what it says of itself. Exact comparison of `iss`, no
    /// normalisation; only where it names nobody, the trust domain of `sub` tells, for issuers of JWT-SVIDs.
    pub(crate) fn owner(&self, iss: Option<&str>, sub: Option<&str>) -> Option<usize> {
        let by_iss = iss.and_then(|iss| self.issuers.iter().position(|issuer| issuer.iss_is(iss)));
        by_iss.or_else(|| {
            let domain = trust_domain(sub?)?;
            let of_domain = |own: &str| own.eq_ignore_ascii_case(domain);
            self.issuers.iter().position(|issuer| issuer.trust_domain().is_some_and(of_domain))
        })
    }
}

/// The trust domain of a SPIFFE id, of which nothing else is known. SPIFFE-ID §2.1 and RFC 3986 §3: scheme and trust
/// domain are compared without case.
pub(crate) fn trust_domain(id: &str) -> Option<&str> {
    let (scheme, rest) = id.split_at_checked("spiffe://".len())?;
    scheme.eq_ignore_ascii_case("spiffe://").then(|| rest.split_once('/').map_or(rest, |(domain, _)| domain))
}

// === impl Issuer ===

impl Issuer {
    /// Name of the `TrustedIssuer`.
    pub fn name(&self) -> &str {
        &self.terms.name
    }

    /// The exact `iss`, any of them.
    pub fn iss(&self) -> &[String] {
        &self.terms.iss
    }

    fn iss_is(&self, iss: &str) -> bool {
        self.iss().iter().any(|own| own == iss)
    }

    /// Of an issuer of JWT-SVIDs, the trust domain whose ids it may give.
    pub fn trust_domain(&self) -> Option<&str> {
        let iss = self.iss().first().filter(|_| self.pack().pack().strict_header)?;
        trust_domain(iss)
    }

    /// How its tokens look.
    pub fn pack(&self) -> PackKind {
        self.terms.pack
    }

    /// Accepted `typ`, lower case; empty: the pack's.
    pub fn types(&self) -> &[String] {
        &self.terms.types
    }

    /// Tokens must be for one of these; empty: nothing is demanded.
    pub fn audiences(&self) -> &[String] {
        &self.terms.audiences
    }

    /// Whether tokens must have exactly one audience.
    pub fn single_audience(&self) -> bool {
        self.terms.single_audience
    }

    /// Whether tokens must be bound to the client certificate.
    pub fn require_cnf(&self) -> bool {
        self.terms.require_cnf
    }

    /// Accepted algorithms.
    pub fn algorithms(&self) -> &[Algorithm] {
        &self.terms.algorithms
    }

    /// Where its tokens are read.
    pub fn headers(&self) -> &[TokenHeader] {
        &self.terms.headers
    }

    /// Whether the token goes on to the upstream.
    pub fn forward(&self) -> bool {
        self.terms.forward
    }

    /// Whether Kubernetes tokens that are bound to no pod are accepted.
    pub fn allow_unbound(&self) -> bool {
        self.terms.allow_unbound
    }

    /// Longest accepted life of a token in seconds.
    pub fn max_lifetime_s(&self) -> i64 {
        i64::from(self.terms.max_lifetime_s)
    }

    /// Clock tolerance in seconds.
    pub fn skew_s(&self) -> i64 {
        i64::from(self.terms.skew_s)
    }

    /// Unix seconds from which on no token of it is accepted; 0: no end.
    pub fn retire_at(&self) -> i64 {
        self.retire_at
    }

    /// Unix seconds after which the keys verify nothing.
    pub fn valid_until(&self) -> i64 {
        self.valid_until
    }

    /// Whether any token, subject or key of it is revoked, or was.
    pub fn revokes(&self) -> bool {
        self.revocations != Revocations::default()
    }

    pub(crate) fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// Its keys.
    pub fn keys(&self) -> &[PublicKey] {
        &self.terms.keys
    }

    /// The one key that a token with this header and `iss` must be signed with. Without `kid` it is the key that fits the
    /// algorithm, if there is exactly one; keys are never tried one after the other.
    pub fn key(&self, key_id: Option<&str>, algorithm: Algorithm, iss: &str) -> Option<&PublicKey> {
        let may_sign = |issuer: &str| self.pack().key_may_sign(issuer, iss);
        let mut fit = self.keys().iter().filter(|key| {
            let jwk = key.jwk();
            jwk.fits(algorithm)
                && (key_id.is_none() || jwk.key_id() == key_id)
                && jwk.issuer().is_none_or(may_sign)
        });
        let key = fit.next()?;
        fit.next().is_none().then_some(key)
    }

    /// Whether what was verified for the other issuer is as well verified for this one: everything but what is checked at
    /// each use ([`Issuer::retire_at`], [`Issuer::valid_until`]) and what is revoked is the same.
    pub fn same_terms(&self, other: &Self) -> bool {
        self.terms == other.terms
    }
}

impl From<IssuerSpec> for Issuer {
    fn from(spec: IssuerSpec) -> Self {
        Self {
            terms: Terms {
                name: spec.name,
                iss: spec.iss,
                pack: spec.pack,
                types: spec.types,
                audiences: spec.audiences,
                single_audience: spec.single_audience,
                require_cnf: spec.require_cnf,
                algorithms: spec.algorithms,
                headers: spec.headers,
                forward: spec.forward,
                allow_unbound: spec.allow_unbound,
                max_lifetime_s: spec.max_lifetime_s,
                skew_s: spec.skew_s,
                keys: spec.keys.into_iter().map(PublicKey::from).collect(),
            },
            revocations: spec.revoked.into_iter().collect(),
            retire_at: spec.retire_at,
            valid_until: spec.valid_until,
        }
    }
}
