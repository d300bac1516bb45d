//! `TrustedIssuer` as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

/// Who may issue tokens.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TrustedIssuerSpec {
    /// The `iss` claim, exactly. For the pack `spiffe`: `spiffe://` and the trust domain.
    pub issuer: Option<String>,
    /// The same, where one issuer writes it in several ways. Exactly one of the two.
    pub issuers: Option<Vec<String>>,
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
    /// For the pack `generic`: accepted `typ` of tokens; absent: those of RFC 9068.
    pub token_types: Option<Vec<String>>,
    /// Whether a token may have only one audience; absent: as the pack says.
    pub single_audience: Option<bool>,
    /// Whether tokens must be bound to the client's certificate; absent: those that are bound are checked.
    pub require_cnf: Option<bool>,
    /// What is refused although it is signed and has not expired.
    pub revoked: Option<RevokedSpec>,
    /// The issuer is refused after this day or moment (RFC 3339).
    pub retire_after: Option<String>,
    /// How often its keys are meant to change, e.g. `90d`; somebody is reminded when they do not.
    pub rotate_every: Option<String>,
}

/// What is refused although it is signed and has not expired.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RevokedSpec {
    /// Tokens with these `sub`.
    pub subjects: Option<Vec<RevokedSubjectSpec>>,
    /// Tokens with these unique ids.
    pub tokens: Option<Vec<RevokedTokenSpec>>,
    /// Tokens signed with these keys.
    pub keys: Option<Vec<RevokedKeySpec>>,
}

/// A revoked subject.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RevokedSubjectSpec {
    /// The `sub` claim, exactly.
    pub subject: String,
    /// The end of the day or the moment (RFC 3339) from which it is accepted again; absent: never.
    pub until: Option<String>,
}

/// A revoked token.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RevokedTokenSpec {
    /// The claim that is the pack's unique id, e.g. `jti`.
    pub id: String,
    /// The end of the day or the moment (RFC 3339) from which it is accepted again; absent: never.
    pub until: Option<String>,
}

/// A revoked key.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RevokedKeySpec {
    /// The key's id.
    pub kid: String,
    /// The end of the day or the moment (RFC 3339) from which it is accepted again; absent: never.
    pub until: Option<String>,
}

/// A header that holds a token.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HeaderSpec {
    /// Name; case does not matter.
    pub name: String,
    /// Authentication scheme before the token, e.g. `Bearer`; absent: the whole value is the token.
    pub prefix: Option<String>,
}

/// Where keys come from: exactly one.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct KeysSpec {
    /// The key set itself, as JSON.
    pub jwks: Option<String>,
    /// Where the key set is.
    pub jwks_uri: Option<String>,
    /// From the issuer's `/.well-known/openid-configuration`.
    pub discovery: Option<bool>,
}
