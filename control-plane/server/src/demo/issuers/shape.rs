//! What the documents and keys of each provider look like.

use std::sync::Arc;

use serde_json::{Value, json};

use super::KeyRing;
use super::keys::{KeyError, KeyKind, SigningKey};

/// OpenID Connect Discovery 1.0, section 4.
const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";

/// Which provider an issuer looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `https://accounts.google.com`: service-account and Compute Engine identity tokens.
    Google,
    /// A GitLab instance: ID tokens of CI jobs.
    GitLab,
    /// A Kubernetes cluster: projected service-account tokens.
    Kubernetes,
    /// One tenant of Microsoft Entra ID: v2 access tokens.
    Entra,
    /// A custom authorization server of Okta: access tokens.
    Okta,
    /// An AWS account with outbound identity federation.
    Aws,
    /// `https://token.actions.githubusercontent.com`: tokens of workflow jobs.
    GitHub,
    /// A SPIFFE trust domain: JWT-SVIDs, and the bundle of its keys.
    Spiffe,
    /// An OAuth authorization server: access tokens as RFC 9068 has them.
    OAuth,
}

impl Shape {
    /// The tenant that [`Shape::Entra`] has.
    pub const ENTRA_TENANT: &str = "bbbbbbbb-0000-4000-8000-000000000002";

    pub(super) fn discovery_path(self) -> &'static str {
        match self {
            Self::Entra => "/bbbbbbbb-0000-4000-8000-000000000002/v2.0/.well-known/openid-configuration",
            Self::Okta => "/oauth2/aus0example/.well-known/openid-configuration",
            _ => DISCOVERY_PATH,
        }
    }

    pub(super) fn jwks_path(self) -> &'static str {
        match self {
            Self::Google => "/oauth2/v3/certs",
            Self::GitLab => "/oauth/discovery/keys",
            Self::Kubernetes => "/openid/v1/jwks",
            Self::Entra => "/bbbbbbbb-0000-4000-8000-000000000002/discovery/v2.0/keys",
            Self::Okta => "/oauth2/aus0example/v1/keys",
            Self::Aws => "/.well-known/jwks.json",
            Self::GitHub => "/.well-known/jwks",
            Self::Spiffe => "/bundle",
            Self::OAuth => "/jwks",
        }
    }

    pub(super) fn cache_control(self) -> &'static str {
        match self {
            Self::Google => "public, max-age=19204, must-revalidate, no-transform",
            Self::GitLab => "max-age=86400, public, must-revalidate, no-transform",
            Self::Kubernetes => "public, max-age=3600",
            Self::Entra => "max-age=86400, private",
            Self::Okta => "max-age=5184000, must-revalidate",
            Self::Aws | Self::GitHub | Self::Spiffe | Self::OAuth => "no-cache",
        }
    }

    pub(super) fn jwks_content_type(self) -> &'static str {
        match self {
            Self::Google => "application/json; charset=UTF-8",
            Self::Kubernetes => "application/jwk-set+json",
            _ => "application/json",
        }
    }

    /// The value of `typ`, where tokens have one.
    pub(super) fn token_type(self) -> Option<&'static str> {
        match self {
            Self::Kubernetes | Self::Okta => None,
            Self::OAuth => Some("at+jwt"),
            _ => Some("JWT"),
        }
    }

    /// Most sign with RSA; a cluster also publishes an elliptic-curve key.
    pub(super) fn first_keys(self) -> Result<KeyRing, KeyError> {
        let others = match self {
            Self::Kubernetes => vec![Arc::new(self.new_key(KeyKind::Es256)?)],
            _ => Vec::new(),
        };
        let kind = match self {
            Self::Aws => KeyKind::Es384,
            Self::Spiffe => KeyKind::Es512,
            Self::OAuth => KeyKind::EdDsa,
            _ => KeyKind::Rs256,
        };
        Ok(KeyRing { current: Arc::new(self.new_key(kind)?), others, sequence: 1 })
    }

    pub(super) fn new_key(self, kind: KeyKind) -> Result<SigningKey, KeyError> {
        let key = SigningKey::generate(kind)?;
        let id = match self {
            Self::Google => key.fingerprint_hex(),
            _ => key.fingerprint_base64(),
        };
        let key = key.with_id(&id);
        Ok(match self {
            Self::Entra => key.with_member("issuer", &self.issuer("")),
            // SPIFFE Trust Domain and Bundle, section 4.2.2.
            Self::Spiffe => key.with_member("use", "jwt-svid"),
            _ => key,
        })
    }

    /// The issuer of its tokens. Some are what they are wherever the server listens.
    pub(super) fn issuer(self, origin: &str) -> String {
        match self {
            Self::Google => "https://accounts.google.com".to_owned(),
            Self::Entra => format!("https://login.microsoftonline.com/{}/v2.0", Self::ENTRA_TENANT),
            Self::Aws => "https://00000000-1111-2222-3333-444444444444.tokens.sts.global.api.aws".to_owned(),
            Self::GitHub => "https://token.actions.githubusercontent.com".to_owned(),
            Self::Spiffe => "spiffe://batch.example".to_owned(),
            Self::Okta => format!("{origin}/oauth2/aus0example"),
            Self::GitLab | Self::Kubernetes | Self::OAuth => origin.to_owned(),
        }
    }

    pub(super) fn key_set(self, keys: Vec<Value>, sequence: u64) -> Value {
        match self {
            Self::Spiffe => json!({"keys": keys, "spiffe_sequence": sequence, "spiffe_refresh_hint": 300}),
            _ => json!({"keys": keys}),
        }
    }

    pub(super) fn discovery(self, origin: &str) -> Value {
        let issuer = self.issuer(origin);
        let jwks_uri = format!("{origin}{}", self.jwks_path());
        match self {
            Self::Google => json!({
                "issuer": issuer,
                "authorization_endpoint": format!("{issuer}/o/oauth2/v2/auth"),
                "token_endpoint": format!("{issuer}/token"),
                "jwks_uri": jwks_uri,
                "response_types_supported": ["code", "token", "id_token", "none"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "scopes_supported": ["openid", "email", "profile"],
                "claims_supported": ["aud", "email", "email_verified", "exp", "iat", "iss", "sub"],
            }),
            Self::GitLab => json!({
                "issuer": issuer,
                "authorization_endpoint": format!("{issuer}/oauth/authorize"),
                "token_endpoint": format!("{issuer}/oauth/token"),
                "jwks_uri": jwks_uri,
                "scopes_supported": ["api", "openid", "profile", "email"],
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "claims_supported": ["iss", "sub", "aud", "exp", "iat", "project_path", "ref", "ref_protected"],
            }),
            Self::Kubernetes => json!({
                "issuer": issuer,
                "jwks_uri": jwks_uri,
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256", "ES256"],
            }),
            Self::Entra | Self::Okta | Self::Aws | Self::GitHub | Self::Spiffe | Self::OAuth => json!({
                "issuer": issuer,
                "jwks_uri": jwks_uri,
                "response_types_supported": ["code", "id_token"],
                "subject_types_supported": ["public"],
            }),
        }
    }
}
