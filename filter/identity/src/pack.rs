//! Packs: what each identity provider's tokens look like. Typed claims, which of them are stable, `typ`, algorithms,
//! lifetimes, and the checks that only make sense for this provider.
//!
//! A pack is a table ([`Pack`]) and one function. The filter verifies by it, the compiler types rules by it, so that
//! a rule cannot read a claim as something that verification would not have let pass.
//!
//! INVARIANT: no token is verified in which a known claim has another type than its [`ClaimSpec::kind`].

use serde::{Deserialize, Serialize};
use tidegate_engine::{ClaimValue, TokenFault};

use crate::json::{Object, Value};
use crate::keys::Algorithm;

mod generic;
mod gitlab;
mod google;
mod kubernetes;
#[cfg(test)]
mod tests;

/// Which pack an issuer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PackKind {
    /// Google service-account and Compute Engine instance identity tokens.
    Google,
    /// Projected service-account tokens of a Kubernetes cluster.
    Kubernetes,
    /// GitLab CI id tokens.
    Gitlab,
    /// Any other OpenID Connect or OAuth issuer.
    Generic,
}

/// What is known of an identity provider's tokens.
#[derive(Debug)]
pub struct Pack {
    /// Known claims, the registered ones (RFC 7519 §4.1) included.
    pub claims: &'static [ClaimSpec],
    /// Accepted `typ`, lower case. RFC 7515 §4.1.9: a media type, compared without case; absent is accepted, since
    /// Kubernetes and others send none.
    pub types: &'static [&'static str],
    /// Algorithms that a TrustedIssuer accepts unless it says otherwise.
    pub algorithms: &'static [Algorithm],
    /// Longest life of a token in seconds unless the TrustedIssuer says otherwise.
    pub max_lifetime_s: u32,
    /// Claims any of which ties a rule to one tenant of a shared issuer.
    tenant: &'static [&'static [&'static str]],
    /// Issuers that many unrelated tenants share.
    shared: &'static [&'static str],
    /// Why the issuer cannot be one of this pack's, if so.
    refuses_issuer: fn(&str) -> Option<&'static str>,
    /// Checks across claims.
    check: fn(&TokenFacts<'_>) -> Result<(), TokenFault>,
}

/// A claim that a pack knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimSpec {
    /// Member names from the outside in.
    pub path: &'static [&'static str],
    /// Its type.
    pub kind: ClaimKind,
    /// Whether it keeps naming the same thing.
    pub stable: Stability,
    /// Whether it must be there.
    pub presence: Presence,
    /// Whether its absence says nothing, because the issuer leaves it out when it is too long.
    pub overage: bool,
}

/// The type of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClaimKind {
    /// A string without control or invisible characters.
    String,
    /// A string of printable ASCII, not empty.
    Identifier,
    /// The string `true` or the string `false`.
    BooleanString,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// An array of strings.
    Strings,
    /// A string, or an array of strings.
    StringOrStrings,
    /// An object or another structure that rules cannot compare as a whole.
    Structure,
}

/// Whether a claim keeps naming the same thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stability {
    /// Assigned by the issuer and never given to somebody else.
    Stable,
    /// A name that people choose, change or re-use.
    Renameable,
}

/// Whether a claim must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Presence {
    /// In every token.
    Required,
    /// May be missing; null is a wrong type.
    Optional,
    /// May be missing or null.
    Nullable,
}

/// What a pack's own check sees. The types of all known claims hold.
pub(crate) struct TokenFacts<'a> {
    /// Verified claims.
    pub claims: &'a Object,
    /// `iat`, or `nbf` where there is none.
    pub issued_at: i64,
    /// The issuer's clock tolerance in seconds.
    pub skew: i64,
    /// Kubernetes tokens that are bound to no pod are accepted.
    pub allow_unbound: bool,
}

// === impl PackKind ===

impl PackKind {
    /// Every pack.
    pub const ALL: [Self; 4] = [Self::Google, Self::Kubernetes, Self::Gitlab, Self::Generic];

    /// The name in rules and in the keys section.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Google => "google",
            Self::Kubernetes => "kubernetes",
            Self::Gitlab => "gitlab",
            Self::Generic => "generic",
        }
    }

    /// The pack of this exact name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|pack| pack.name() == name)
    }

    /// What is known of its tokens.
    pub const fn pack(self) -> &'static Pack {
        match self {
            Self::Google => &google::PACK,
            Self::Kubernetes => &kubernetes::PACK,
            Self::Gitlab => &gitlab::PACK,
            Self::Generic => &generic::PACK,
        }
    }

    /// The claims that it knows.
    pub const fn claims(self) -> &'static [ClaimSpec] {
        self.pack().claims
    }

    /// What it knows of one claim.
    pub fn claim(self, path: &[impl AsRef<str>]) -> Option<&'static ClaimSpec> {
        self.claims().iter().find(|spec| same(spec.path, path))
    }

    /// Why an issuer cannot have this pack, if so.
    pub fn refuses_issuer(self, issuer: &str) -> Option<&'static str> {
        (self.pack().refuses_issuer)(issuer)
    }
}

/// Whether unrelated tenants get tokens of this issuer, so that a rule without a condition on one of
/// [`tenant_claims`] would trust all of them.
pub fn is_shared_issuer(pack: PackKind, issuer: &str) -> bool {
    pack.pack().shared.contains(&issuer) || generic::SHARED.contains(&issuer)
}

/// Claims any of which ties a rule to one tenant of a shared issuer.
pub fn tenant_claims(pack: PackKind) -> &'static [&'static [&'static str]] {
    pack.pack().tenant
}

/// Whom else tokens with this audience are for, if they are for a known other party. Such a token is a credential for
/// that party, and it is misdirected or stolen when it arrives here.
pub fn another_party(audience: &str) -> Option<&'static str> {
    match audience {
        "istio-ca" => Some("the mesh's certificate authority"),
        "sts.amazonaws.com" | "sts.amazonaws.com.cn" => Some("AWS STS"),
        "api://AzureADTokenExchange" => Some("Microsoft Entra workload identity federation"),
        _ => {
            let path = audience
                .strip_prefix("https:")
                .unwrap_or(audience)
                .strip_prefix("//iam.googleapis.com/")
                .is_some_and(|path| path.contains("/workloadIdentityPools/"));
            // The pool of a GKE cluster: `PROJECT.svc.id.goog`.
            (path || audience.ends_with(".svc.id.goog")).then_some("Google workload identity federation")
        }
    }
}

/// The pack's own checks across claims.
pub(crate) fn check(kind: PackKind, facts: &TokenFacts<'_>) -> Result<(), TokenFault> {
    (kind.pack().check)(facts)
}

/// Whether all known claims have their types.
pub(crate) fn check_types(kind: PackKind, claims: &Object) -> Result<(), TokenFault> {
    for spec in kind.claims() {
        match (find(claims, spec.path.iter().copied()), spec.presence) {
            (Found::Missing, Presence::Required) => return Err(TokenFault::ClaimMissing),
            (Found::Missing, Presence::Optional | Presence::Nullable) => {}
            (Found::Value(Value::Null), Presence::Nullable) => {}
            (Found::Value(value), _) if spec.kind.admits(value) => {}
            (Found::Value(_) | Found::Unreachable, _) => return Err(TokenFault::ClaimMalformed),
        }
    }
    Ok(())
}

/// The value that rules read at a path.
pub(crate) fn extract(kind: PackKind, claims: &Object, path: &[String]) -> ClaimValue {
    match find(claims, path.iter().map(String::as_str)) {
        Found::Missing | Found::Value(Value::Null) => match kind.claim(path) {
            Some(spec) if spec.overage => ClaimValue::Unknown,
            _ => ClaimValue::Absent,
        },
        Found::Unreachable => ClaimValue::Other,
        Found::Value(value) => comparable(value),
    }
}

fn comparable(value: &Value) -> ClaimValue {
    match value {
        Value::Null => ClaimValue::Absent,
        Value::Boolean(boolean) => ClaimValue::Boolean(*boolean),
        Value::Integer(integer) => ClaimValue::Integer(*integer),
        Value::String(string) if is_visible(string) => ClaimValue::String(string.clone()),
        Value::Array(elements) => elements
            .iter()
            .map(|element| element.as_str().filter(|s| is_visible(s)).map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .map_or(ClaimValue::Other, ClaimValue::Strings),
        Value::String(_) | Value::Number(_) | Value::Object(_) => ClaimValue::Other,
    }
}

enum Found<'v> {
    Missing,
    /// Something on the way is there and no object.
    Unreachable,
    Value(&'v Value),
}

fn find<'v, 'p>(claims: &'v Object, path: impl Iterator<Item = &'p str>) -> Found<'v> {
    let mut members = Some(claims);
    let mut found = None;
    for name in path {
        let Some(object) = members else { return Found::Unreachable };
        match object.get(name) {
            None => return Found::Missing,
            Some(value) => {
                members = value.as_object();
                found = Some(value);
                if *value == Value::Null {
                    // Whatever lies below null is as missing as null is.
                    break;
                }
            }
        }
    }
    found.map_or(Found::Missing, Found::Value)
}

/// The string at a path, if there is one.
pub(crate) fn text<'v>(claims: &'v Object, path: &[&str]) -> Option<&'v str> {
    match find(claims, path.iter().copied()) {
        Found::Value(value) => value.as_str(),
        Found::Missing | Found::Unreachable => None,
    }
}

/// Whether something other than null is at a path.
pub(crate) fn present(claims: &Object, path: &[&str]) -> bool {
    match find(claims, path.iter().copied()) {
        Found::Value(value) => *value != Value::Null,
        Found::Unreachable => true,
        Found::Missing => false,
    }
}

fn same(path: &[&str], other: &[impl AsRef<str>]) -> bool {
    path.len() == other.len() && path.iter().zip(other).all(|(a, b)| *a == b.as_ref())
}

/// No control characters (C0, DEL, C1), and none that are invisible or change the direction of text: such a string
/// looks like another one in logs and rules.
pub(crate) fn is_visible(text: &str) -> bool {
    !text.chars().any(|c| {
        c.is_control()
            || matches!(c,
                '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    })
}

// === impl ClaimKind ===

impl ClaimKind {
    fn admits(self, value: &Value) -> bool {
        let visible = |value: &Value| value.as_str().is_some_and(is_visible);
        match self {
            Self::String => visible(value),
            Self::Identifier => value
                .as_str()
                .is_some_and(|text| !text.is_empty() && text.bytes().all(|b| (0x20..0x7f).contains(&b))),
            Self::BooleanString => matches!(value.as_str(), Some("true" | "false")),
            Self::Integer => matches!(value, Value::Integer(_)),
            Self::Boolean => matches!(value, Value::Boolean(_)),
            Self::Strings => value.as_array().is_some_and(|elements| elements.iter().all(visible)),
            Self::StringOrStrings => visible(value) || Self::Strings.admits(value),
            Self::Structure => matches!(value, Value::Object(_) | Value::Array(_)),
        }
    }
}

// === impl ClaimSpec ===

impl ClaimSpec {
    /// A stable, optional claim.
    const fn new(path: &'static [&'static str], kind: ClaimKind) -> Self {
        Self { path, kind, stable: Stability::Stable, presence: Presence::Optional, overage: false }
    }

    const fn required(self) -> Self {
        Self { presence: Presence::Required, ..self }
    }

    const fn nullable(self) -> Self {
        Self { presence: Presence::Nullable, ..self }
    }

    const fn renameable(self) -> Self {
        Self { stable: Stability::Renameable, ..self }
    }

    const fn with_overage(self) -> Self {
        Self { overage: true, ..self }
    }
}

/// A pack's claims after the registered ones. RFC 7519 §4.1.1 to §4.1.7 give their types.
macro_rules! claims {
    (sub: $sub:expr, aud: $aud:expr; $($spec:expr),* $(,)?) => {
        &[
            $crate::pack::ClaimSpec::new(&["iss"], $crate::pack::ClaimKind::Identifier).required(),
            $crate::pack::ClaimSpec::new(&["sub"], $sub).required(),
            $crate::pack::ClaimSpec::new(&["aud"], $aud).required(),
            $crate::pack::ClaimSpec::new(&["exp"], $crate::pack::ClaimKind::Integer).required(),
            $crate::pack::ClaimSpec::new(&["nbf"], $crate::pack::ClaimKind::Integer),
            $crate::pack::ClaimSpec::new(&["iat"], $crate::pack::ClaimKind::Integer),
            $crate::pack::ClaimSpec::new(&["jti"], $crate::pack::ClaimKind::Identifier),
            $($spec),*
        ]
    };
}
use claims;
