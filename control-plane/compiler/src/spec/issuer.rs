//! `TrustedIssuer` as it is written.

use serde::Deserialize;

/// Who may issue tokens.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TrustedIssuerSpec {
    /// The `iss` claim, exactly.
    pub issuer: String,
    /// What its tokens look like.
    pub pack: String,
    /// The most that any Guard may accept; absent: no ceiling.
    pub audiences: Option<Vec<String>>,
    /// Signature algorithms; absent: the pack's.
    pub algorithms: Option<Vec<String>>,
    /// Where its tokens are; absent: `Authorization: Bearer`.
    pub headers: Option<Vec<HeaderSpec>>,
    /// Where its keys come from.
    pub keys: KeysSpec,
    /// The most that `exp - iat` may be, e.g. `1h`; absent: the pack's.
    pub max_lifetime: Option<String>,
    /// How far clocks may differ, e.g. `30s`.
    pub skew: Option<String>,
    /// For the pack `kubernetes`: whether tokens must be bound to a pod; absent: they must.
    pub require_pod_binding: Option<bool>,
    /// Whose rules may use it; absent: everybody's.
    pub allowed_namespaces: Option<Vec<String>>,
    /// Whether the token goes on to the workload.
    pub forward: Option<bool>,
}

/// A header that holds a token.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HeaderSpec {
    /// Name; case does not matter.
    pub name: String,
    /// Authentication scheme before the token, e.g. `Bearer`; absent: the whole value is the token.
    pub prefix: Option<String>,
}

/// Where keys come from: exactly one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct KeysSpec {
    /// The key set itself, as JSON.
    pub jwks: Option<String>,
    /// Where the key set is.
    pub jwks_uri: Option<String>,
    /// From the issuer's `/.well-known/openid-configuration`.
    pub discovery: Option<bool>,
}
