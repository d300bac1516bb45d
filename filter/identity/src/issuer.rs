//! Trusted issuers as the filter holds them, and the keys section that carries them.
//!
//! The section is JSON: `{"version":1,"issuers":[…]}`, written by [`IssuerSetSpec::encode`] with members in a fixed order
//! and read by this crate's own strict reader. Unknown members and values are refused: a newer control plane's
//! restriction must not get lost in an older filter.
//!
//! INVARIANT: an [`IssuerSet`] is consistent: names and `iss` values are unique, every issuer has algorithms and
//! headers, tolerances are bounded, and no `kid` names two keys that fit the same token. [`IssuerSetSpec::encode`]
//! checks the same, so what encodes also decodes.

use serde::Serialize;

use crate::json::{self, InvalidJson};
use crate::keys::{Algorithm, InvalidKey, Jwk, MAX_KEYS, PublicKey};
use crate::pack::PackKind;

mod read;
#[cfg(test)]
mod tests;

/// Version of the keys section.
pub const VERSION: u32 = 1;
/// Issuers in one section.
pub const MAX_ISSUERS: usize = 64;
/// Largest clock tolerance in seconds.
pub const MAX_SKEW_S: u32 = 120;
/// Largest lifetime in seconds that a TrustedIssuer may accept: 30 days, GitLab's longest job.
pub const MAX_LIFETIME_S: u32 = 30 * 24 * 3600;
/// Clock tolerance in seconds where nothing else is said.
pub const DEFAULT_SKEW_S: u32 = 30;

const MAX_TEXT_BYTES: usize = 2048;
const MAX_LIST: usize = 64;

/// The keys section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IssuerSetSpec {
    /// [`VERSION`].
    pub version: u32,
    /// The issuers.
    pub issuers: Vec<IssuerSpec>,
}

/// One trusted issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IssuerSpec {
    /// Name of the `TrustedIssuer`.
    pub name: String,
    /// The exact `iss`.
    pub issuer: String,
    /// How its tokens look.
    pub pack: PackKind,
    /// Tokens must be for one of these; empty: nothing is demanded here. The Guard's audience comes on top.
    pub audiences: Vec<String>,
    /// Accepted algorithms, not empty.
    pub algorithms: Vec<Algorithm>,
    /// Where its tokens are read, not empty.
    pub headers: Vec<TokenHeader>,
    /// Whether the token goes on to the upstream.
    pub forward: bool,
    /// Accept Kubernetes tokens that are bound to no pod.
    pub allow_unbound: bool,
    /// Longest accepted life of a token in seconds, to [`MAX_LIFETIME_S`].
    pub max_lifetime_s: u32,
    /// Clock tolerance in seconds, to [`MAX_SKEW_S`].
    pub skew_s: u32,
    /// Unix seconds after which the keys verify nothing.
    pub valid_until: i64,
    /// Its keys; empty: every token of it is invalid.
    pub keys: Vec<Jwk>,
}

/// A header in which tokens travel.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct TokenHeader {
    /// Lower case.
    pub name: String,
    /// The scheme before the token, e.g. `Bearer`; `None`: the whole value is the token.
    pub prefix: Option<String>,
}

/// Decoded issuers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IssuerSet {
    issuers: Vec<Issuer>,
}

/// A decoded issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    terms: Terms,
    valid_until: i64,
}

/// All of an issuer but for how long its keys are good.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Terms {
    name: String,
    issuer: String,
    pack: PackKind,
    audiences: Vec<String>,
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

// === impl IssuerSetSpec ===

impl IssuerSetSpec {
    /// A section with these issuers.
    pub fn new(issuers: Vec<IssuerSpec>) -> Self {
        Self { version: VERSION, issuers }
    }

    /// The section's bytes; the same issuers give the same bytes.
    ///
    /// # Errors
    ///
    /// When [`IssuerSet::decode`] would refuse it.
    pub fn encode(&self) -> Result<Vec<u8>, InvalidKeys> {
        self.validate()?;
        serde_json::to_vec(self)
            .map_err(|error| InvalidKeys::Field { field: "issuers".to_owned(), why: error.to_string() })
    }

    /// Reads a section's bytes.
    ///
    /// # Errors
    ///
    /// See [`InvalidKeys`].
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidKeys> {
        let text = str::from_utf8(bytes).map_err(|_| InvalidKeys::Encoding)?;
        let spec = read::section(&json::parse(text, json::Limits::KEYS)?)?;
        spec.validate()?;
        Ok(spec)
    }

    fn validate(&self) -> Result<(), InvalidKeys> {
        if self.version != VERSION {
            return Err(InvalidKeys::Version { found: i64::from(self.version) });
        }
        if self.issuers.len() > MAX_ISSUERS {
            return Err(field("issuers", format!("more than {MAX_ISSUERS} issuers")));
        }
        for (at, issuer) in self.issuers.iter().enumerate() {
            let at_field = |name: &str, why: String| field(&format!("issuers[{at}].{name}"), why);
            issuer.validate(&at_field)?;
            let earlier = self.issuers.get(..at).unwrap_or_default();
            if earlier.iter().any(|other| other.name == issuer.name) {
                return Err(at_field("name", format!("two issuers have the name `{}`", issuer.name)));
            }
            // Whose keys would verify the token?
            if earlier.iter().any(|other| other.issuer == issuer.issuer) {
                return Err(at_field("issuer", format!("two issuers have the `iss` `{}`", issuer.issuer)));
            }
        }
        Ok(())
    }
}

// === impl IssuerSpec ===

impl IssuerSpec {
    /// An issuer with its pack's defaults, read from `Authorization: Bearer`, without keys.
    pub fn new(name: impl Into<String>, issuer: impl Into<String>, pack: PackKind) -> Self {
        Self {
            name: name.into(),
            issuer: issuer.into(),
            pack,
            audiences: Vec::new(),
            algorithms: pack.pack().algorithms.to_vec(),
            headers: vec![TokenHeader::authorization_bearer()],
            forward: true,
            allow_unbound: false,
            max_lifetime_s: pack.pack().max_lifetime_s,
            skew_s: DEFAULT_SKEW_S,
            valid_until: 0,
            keys: Vec::new(),
        }
    }

    fn validate(&self, invalid: &dyn Fn(&str, String) -> InvalidKeys) -> Result<(), InvalidKeys> {
        let text = |text: &str| {
            (1..=MAX_TEXT_BYTES).contains(&text.len()) && text.bytes().all(|b| (0x21..0x7f).contains(&b))
        };
        if !text(&self.name) {
            return Err(invalid("name", "must be printable ASCII, not empty".to_owned()));
        }
        if !text(&self.issuer) {
            return Err(invalid("issuer", "must be printable ASCII, not empty".to_owned()));
        }
        if let Some(why) = self.pack.refuses_issuer(&self.issuer) {
            return Err(invalid("issuer", why.to_owned()));
        }
        if self.audiences.len() > MAX_LIST {
            return Err(invalid("audiences", format!("more than {MAX_LIST}")));
        }
        for (at, audience) in self.audiences.iter().enumerate() {
            let name = format!("audiences[{at}]");
            if !text(audience) {
                return Err(invalid(&name, "must be printable ASCII, not empty".to_owned()));
            }
            if let Some(party) = crate::pack::another_party(audience) {
                return Err(invalid(
                    &name,
                    format!("tokens with this audience are for {party}, never for you"),
                ));
            }
        }
        let once = |algorithm| self.algorithms.iter().filter(|other| *other == algorithm).count() == 1;
        if self.algorithms.is_empty() || !self.algorithms.iter().all(once) {
            return Err(invalid("algorithms", "must name one or more algorithms, each once".to_owned()));
        }
        if self.headers.is_empty() || self.headers.len() > MAX_LIST {
            return Err(invalid("headers", format!("must name 1 to {MAX_LIST} headers")));
        }
        for (at, header) in self.headers.iter().enumerate() {
            let earlier = self.headers.get(..at).unwrap_or_default();
            let why = if earlier.iter().any(|other| other.name == header.name) {
                Some("the header is named twice")
            } else {
                header.fault()
            };
            if let Some(why) = why {
                return Err(invalid(&format!("headers[{at}]"), why.to_owned()));
            }
        }
        if !(1..=MAX_LIFETIME_S).contains(&self.max_lifetime_s) {
            return Err(invalid("max_lifetime_s", format!("must be 1 to {MAX_LIFETIME_S} seconds")));
        }
        if self.skew_s > MAX_SKEW_S {
            return Err(invalid("skew_s", format!("must be at most {MAX_SKEW_S} seconds")));
        }
        if self.valid_until < 0 {
            return Err(invalid("valid_until", "must not be negative".to_owned()));
        }
        if self.keys.len() > MAX_KEYS {
            return Err(invalid("keys", format!("more than {MAX_KEYS} keys")));
        }
        for (at, key) in self.keys.iter().enumerate() {
            if self.keys.get(..at).unwrap_or_default().iter().any(|other| other.collides(key)) {
                return Err(invalid(
                    &format!("keys[{at}]"),
                    "two keys have this `kid` and algorithm".to_owned(),
                ));
            }
        }
        Ok(())
    }
}

fn field(path: &str, why: String) -> InvalidKeys {
    InvalidKeys::Field { field: path.to_owned(), why }
}

// === impl TokenHeader ===

impl TokenHeader {
    /// `Authorization: Bearer TOKEN` (RFC 6750 §2.1).
    pub fn authorization_bearer() -> Self {
        Self { name: "authorization".to_owned(), prefix: Some("Bearer".to_owned()) }
    }

    /// What is wrong with it, if anything.
    fn fault(&self) -> Option<&'static str> {
        // Letters, digits and dashes only: underscores are dashes to some servers.
        let name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !(1..=MAX_TEXT_BYTES).contains(&self.name.len()) || !self.name.bytes().all(name) {
            return Some("`name` must consist of lower-case letters, digits and dashes");
        }
        if self.name.starts_with("x-tidegate-") {
            return Some("headers that begin with `x-tidegate-` are removed from requests");
        }
        match &self.prefix {
            Some(scheme)
                if scheme.is_empty()
                    || scheme.len() > MAX_TEXT_BYTES
                    || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') =>
            {
                Some("`prefix` must consist of letters, digits and dashes")
            }
            _ => None,
        }
    }
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
}

// === impl Issuer ===

impl Issuer {
    /// Name of the `TrustedIssuer`.
    pub fn name(&self) -> &str {
        &self.terms.name
    }

    /// The exact `iss`.
    pub fn issuer(&self) -> &str {
        &self.terms.issuer
    }

    /// How its tokens look.
    pub fn pack(&self) -> PackKind {
        self.terms.pack
    }

    /// Tokens must be for one of these; empty: nothing is demanded.
    pub fn audiences(&self) -> &[String] {
        &self.terms.audiences
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

    /// Unix seconds after which the keys verify nothing.
    pub fn valid_until(&self) -> i64 {
        self.valid_until
    }

    /// Its keys.
    pub fn keys(&self) -> &[PublicKey] {
        &self.terms.keys
    }

    /// The one key that a token with this header must be signed with. Without `kid` it is the key that fits the
    /// algorithm, if there is exactly one; keys are never tried one after the other.
    pub fn key(&self, key_id: Option<&str>, algorithm: Algorithm) -> Option<&PublicKey> {
        let mut fit = self
            .keys()
            .iter()
            .filter(|key| key.jwk().fits(algorithm) && (key_id.is_none() || key.jwk().key_id() == key_id));
        let key = fit.next()?;
        fit.next().is_none().then_some(key)
    }

    /// Whether what was verified for the other issuer is as well verified for this one: everything but
    /// [`Issuer::valid_until`], which is checked at each use, is the same.
    pub fn same_terms(&self, other: &Self) -> bool {
        self.terms == other.terms
    }
}

impl From<IssuerSpec> for Issuer {
    fn from(spec: IssuerSpec) -> Self {
        Self {
            terms: Terms {
                name: spec.name,
                issuer: spec.issuer,
                pack: spec.pack,
                audiences: spec.audiences,
                algorithms: spec.algorithms,
                headers: spec.headers,
                forward: spec.forward,
                allow_unbound: spec.allow_unbound,
                max_lifetime_s: spec.max_lifetime_s,
                skew_s: spec.skew_s,
                keys: spec.keys.into_iter().map(PublicKey::from).collect(),
            },
            valid_until: spec.valid_until,
        }
    }
}
