//! The keys section as it is written, and what it may say.

use serde::Serialize;

use super::revoked::Revoked;
use super::{
    DEFAULT_SKEW_S, InvalidKeys, MAX_ISS, MAX_ISSUERS, MAX_LIFETIME_S, MAX_REVOKED, MAX_SKEW_S, VERSION,
    field, read,
};
use crate::jose::{self, media_type};
use crate::json;
use crate::keys::{Algorithm, Jwk, MAX_KEYS};
use crate::pack::{PackKind, is_visible};

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
    /// The exact `iss`, any of them; 1 to [`MAX_ISS`]. Of the pack for JWT-SVIDs exactly one, `spiffe://TRUST_DOMAIN`,
    /// which stands for the tokens whose `sub` is of this trust domain.
    pub iss: Vec<String>,
    /// How its tokens look.
    pub pack: PackKind,
    /// Accepted `typ`, lower case; empty: the pack's.
    pub types: Vec<String>,
    /// Tokens must be for one of these; empty: nothing is demanded here. The Guard's audience comes on top.
    pub audiences: Vec<String>,
    /// Tokens must have exactly one audience.
    pub single_audience: bool,
    /// Tokens must be bound to the client certificate (`cnf`).
    pub require_cnf: bool,
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
    /// Unix seconds from which on no token of it is accepted; 0: no end.
    pub retire_at: i64,
    /// What is accepted no more; to [`MAX_REVOKED`].
    pub revoked: Vec<Revoked>,
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
    /// When [`super::IssuerSet::decode`] would refuse it.
    pub fn encode(&self) -> Result<Vec<u8>, InvalidKeys> {
        self.validate()?;
        serde_json::to_vec(self).map_err(|error| field("issuers", error.to_string()))
    }

    /// Reads a section's bytes.
    ///
    /// # Errors
    ///
    /// See [`InvalidKeys`].
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidKeys> {
        let text = str::from_utf8(bytes).map_err(|_| InvalidKeys::Encoding)?;
        let spec = read::section(&json::parse(text, json::Limits::SECTION)?)?;
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
            for (index, iss) in issuer.iss.iter().enumerate() {
                // Whose keys would verify the token?
                if earlier.iter().any(|other| other.iss.contains(iss)) {
                    return Err(at_field(
                        &format!("iss[{index}]"),
                        format!("two issuers have the `iss` `{iss}`"),
                    ));
                }
            }
        }
        Ok(())
    }
}

// === impl IssuerSpec ===

impl IssuerSpec {
    /// An issuer with its pack's defaults, read from `Authorization: Bearer`, without keys.
    pub fn new(name: impl Into<String>, iss: impl Into<String>, pack: PackKind) -> Self {
        Self {
            name: name.into(),
            iss: vec![iss.into()],
            pack,
            types: Vec::new(),
            audiences: Vec::new(),
            single_audience: pack.pack().single_audience,
            require_cnf: false,
            algorithms: pack.pack().algorithms.to_vec(),
            headers: vec![TokenHeader::authorization_bearer()],
            forward: true,
            allow_unbound: false,
            max_lifetime_s: pack.pack().max_lifetime_s,
            skew_s: DEFAULT_SKEW_S,
            retire_at: 0,
            revoked: Vec::new(),
            valid_until: 0,
            keys: Vec::new(),
        }
    }

    fn validate(&self, invalid: &dyn Fn(&str, String) -> InvalidKeys) -> Result<(), InvalidKeys> {
        if !is_text(&self.name) {
            return Err(invalid("name", PLAIN.to_owned()));
        }
        self.validate_iss(invalid)?;
        self.validate_types(invalid)?;
        self.validate_audiences(invalid)?;
        if self.algorithms.is_empty() || repeats(&self.algorithms).is_some() {
            return Err(invalid("algorithms", "must name one or more algorithms, each once".to_owned()));
        }
        self.validate_headers(invalid)?;
        if !(1..=MAX_LIFETIME_S).contains(&self.max_lifetime_s) {
            return Err(invalid("max_lifetime_s", format!("must be 1 to {MAX_LIFETIME_S} seconds")));
        }
        if self.skew_s > MAX_SKEW_S {
            return Err(invalid("skew_s", format!("must be at most {MAX_SKEW_S} seconds")));
        }
        for (name, date) in [("retire_at", self.retire_at), ("valid_until", self.valid_until)] {
            if date < 0 {
                return Err(invalid(name, "must not be negative".to_owned()));
            }
        }
        self.validate_revoked(invalid)?;
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

    fn validate_iss(&self, invalid: &dyn Fn(&str, String) -> InvalidKeys) -> Result<(), InvalidKeys> {
        let most = if self.pack.pack().strict_header { 1 } else { MAX_ISS };
        if !(1..=most).contains(&self.iss.len()) {
            return Err(invalid("iss", format!("must name 1 to {most} issuers")));
        }
        if let Some(at) = repeats(&self.iss) {
            return Err(invalid(&format!("iss[{at}]"), "is named twice".to_owned()));
        }
        for (at, iss) in self.iss.iter().enumerate() {
            let name = format!("iss[{at}]");
            if !is_text(iss) {
                return Err(invalid(&name, PLAIN.to_owned()));
            }
            if let Some(why) = self.pack.refuses_issuer(iss) {
                return Err(invalid(&name, why.to_owned()));
            }
        }
        Ok(())
    }

    fn validate_types(&self, invalid: &dyn Fn(&str, String) -> InvalidKeys) -> Result<(), InvalidKeys> {
        if self.types.len() > MAX_LIST {
            return Err(invalid("types", format!("more than {MAX_LIST}")));
        }
        for (at, kind) in self.types.iter().enumerate() {
            let why = if !is_text(kind) || kind.bytes().any(|b| b.is_ascii_uppercase()) {
                "must be printable ASCII in lower case, not empty"
            } else if jose::is_never_bearer(kind) {
                "tokens of this type are proofs or statements to somebody; none of them says who calls"
            } else if self.types.iter().take(at).any(|other| media_type(other) == media_type(kind)) {
                "is named twice"
            } else {
                continue;
            };
            return Err(invalid(&format!("types[{at}]"), why.to_owned()));
        }
        Ok(())
    }

    fn validate_audiences(&self, invalid: &dyn Fn(&str, String) -> InvalidKeys) -> Result<(), InvalidKeys> {
        if self.audiences.len() > MAX_LIST {
            return Err(invalid("audiences", format!("more than {MAX_LIST}")));
        }
        for (at, audience) in self.audiences.iter().enumerate() {
            let name = format!("audiences[{at}]");
            if !is_text(audience) {
                return Err(invalid(&name, PLAIN.to_owned()));
            }
            if let Some(party) = crate::pack::another_party(audience) {
                return Err(invalid(
                    &name,
                    format!("tokens with this audience are for {party}, never for you"),
                ));
            }
        }
        Ok(())
    }

    fn validate_headers(&self, invalid: &dyn Fn(&str, String) -> InvalidKeys) -> Result<(), InvalidKeys> {
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
        Ok(())
    }

    fn validate_revoked(&self, invalid: &dyn Fn(&str, String) -> InvalidKeys) -> Result<(), InvalidKeys> {
        if self.revoked.len() > MAX_REVOKED {
            return Err(invalid("revoked", format!("more than {MAX_REVOKED}")));
        }
        let mut seen = std::collections::BTreeSet::new();
        for (at, revoked) in self.revoked.iter().enumerate() {
            let why = if !(1..=MAX_TEXT_BYTES).contains(&revoked.value.len()) || !is_visible(&revoked.value) {
                "`value` must be a text without invisible characters, not empty"
            } else if revoked.until < 0 {
                "`until` must not be negative"
            } else if !seen.insert((revoked.kind, revoked.value.as_str())) {
                "is named twice"
            } else {
                continue;
            };
            return Err(invalid(&format!("revoked[{at}]"), why.to_owned()));
        }
        Ok(())
    }
}

const PLAIN: &str = "must be printable ASCII, not empty";

fn is_text(text: &str) -> bool {
    (1..=MAX_TEXT_BYTES).contains(&text.len()) && text.bytes().all(|b| (0x21..0x7f).contains(&b))
}

/// The position of the first element that is there before.
fn repeats<T: PartialEq>(list: &[T]) -> Option<usize> {
    list.iter()
        .enumerate()
        .find(|(at, one)| list.iter().take(*at).any(|other| other == *one))
        .map(|(at, _)| at)
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
