//! Identity providers on loopback, shaped like the real ones: the same documents under the same paths, with keys that
//! are made at start.
//!
//! Each token is a [`Draft`] first, which a test may bend before it is signed.
//!
//! INVARIANT: private keys exist only in this process's memory.

mod draft;
mod keys;
mod payloads;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::pki::{Authority, CertificateError};
use super::server::{Body, Server};
use super::tls::{self, TlsError};

pub use draft::{Draft, MintError};
pub use keys::{KeyError, KeyKind, SigningKey};
pub use payloads::{GitLabJob, GoogleInstance, KubernetesPod};

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
}

/// One issuer with its HTTPS server; dropping it stops the server.
#[derive(Debug)]
pub struct Issuer {
    url: String,
    origin: String,
    published: Arc<Published>,
    server: Server,
}

/// The three issuers of the demo, and the authority behind their HTTPS certificates.
#[derive(Debug)]
pub struct Issuers {
    /// Shaped like Google.
    pub google: Issuer,
    /// Shaped like a GitLab instance.
    pub gitlab: Issuer,
    /// Shaped like a Kubernetes cluster.
    pub cluster: Issuer,
    authority: Authority,
}

/// What the server publishes, and how it behaves.
#[derive(Debug)]
struct Published {
    shape: Shape,
    // Known as soon as the port is, and nobody can ask before.
    origin: OnceLock<String>,
    keys: Mutex<KeyRing>,
    available: AtomicBool,
    fetches: AtomicU64,
}

#[derive(Debug)]
struct KeyRing {
    current: Arc<SigningKey>,
    // Published, newest first; they sign no more.
    others: Vec<Arc<SigningKey>>,
}

/// An issuer cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// Its HTTPS certificate cannot be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Its HTTPS server cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A key cannot be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It cannot listen.
    #[error("the {shape:?} issuer cannot listen on loopback: {source}")]
    Listen {
        /// Which one.
        shape: Shape,
        /// What came of it.
        source: io::Error,
    },
}

// === impl Issuers ===

impl Issuers {
    /// Starts all three.
    pub async fn start() -> Result<Self, IssuerError> {
        let authority = Authority::new("loopback issuers")?;
        Ok(Self {
            google: Issuer::start(Shape::Google, &authority).await?,
            gitlab: Issuer::start(Shape::GitLab, &authority).await?,
            cluster: Issuer::start(Shape::Kubernetes, &authority).await?,
            authority,
        })
    }

    /// The authority (PEM) that whoever fetches keys has to trust.
    pub fn authority_pem(&self) -> &str {
        self.authority.pem()
    }
}

// === impl Issuer ===

impl Issuer {
    /// Starts one on a free loopback port, with an HTTPS certificate of `authority`.
    pub async fn start(shape: Shape, authority: &Authority) -> Result<Self, IssuerError> {
        let credential = authority.loopback_server(&[])?;
        let published = Arc::new(Published {
            shape,
            origin: OnceLock::new(),
            keys: Mutex::new(shape.first_keys()?),
            available: AtomicBool::new(true),
            fetches: AtomicU64::new(0),
        });
        let handler = {
            let published = Arc::clone(&published);
            move |request| {
                let published = Arc::clone(&published);
                async move { published.answer(&request) }
            }
        };
        let server = Server::start(Some(tls::server(&credential)?), handler)
            .await
            .map_err(|source| IssuerError::Listen { shape, source })?;
        let origin = published.origin.get_or_init(|| format!("https://{}", server.address())).clone();
        Ok(Self { url: shape.issuer(&origin), origin, published, server })
    }

    /// Which provider it looks like.
    pub fn shape(&self) -> Shape {
        self.published.shape
    }

    /// The value of `iss`: Google's own for Google, whose tokens are never of another issuer; else where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where the key set is published.
    pub fn jwks_uri(&self) -> String {
        format!("{}{}", self.origin, self.shape().jwks_path())
    }

    /// Where the discovery document is published.
    pub fn discovery_uri(&self) -> String {
        format!("{}{DISCOVERY_PATH}", self.origin)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The published key set.
    pub fn jwks(&self) -> Value {
        self.published.jwks()
    }

    /// The key that signs now.
    pub fn signing_key(&self) -> Arc<SigningKey> {
        Arc::clone(&self.published.keys().current)
    }

    /// The newest published key of this kind, if there is one.
    pub fn key(&self, kind: KeyKind) -> Option<Arc<SigningKey>> {
        self.published.keys().all().find(|key| key.kind() == kind).map(Arc::clone)
    }

    /// Adds a key, which signs from now on; the earlier ones stay published.
    pub fn rotate(&self, kind: KeyKind) -> Result<Arc<SigningKey>, KeyError> {
        let key = Arc::new(self.shape().new_key(kind)?);
        let mut keys = self.published.keys();
        let before = std::mem::replace(&mut keys.current, Arc::clone(&key));
        keys.others.insert(0, before);
        Ok(key)
    }

    /// Publishes only the key that signs now.
    pub fn withdraw_old_keys(&self) {
        self.published.keys().others.clear();
    }

    /// Makes the server answer 503 to everything, or work again.
    pub fn set_available(&self, available: bool) {
        self.published.available.store(available, Ordering::Relaxed);
    }

    /// How often the key set has been fetched.
    pub fn fetches(&self) -> u64 {
        self.published.fetches.load(Ordering::Relaxed)
    }

    /// A token of this issuer with these claims, honestly signed unless it is bent first.
    pub fn draft(&self, claims: Value) -> Draft {
        Draft::new(self.signing_key(), self.shape() != Shape::Kubernetes, claims)
    }
}

// === impl Shape ===

impl Shape {
    fn jwks_path(self) -> &'static str {
        match self {
            Self::Google => "/oauth2/v3/certs",
            Self::GitLab => "/oauth/discovery/keys",
            Self::Kubernetes => "/openid/v1/jwks",
        }
    }

    fn cache_control(self) -> &'static str {
        match self {
            Self::Google => "public, max-age=19204, must-revalidate, no-transform",
            Self::GitLab => "max-age=86400, public, must-revalidate, no-transform",
            Self::Kubernetes => "public, max-age=3600",
        }
    }

    fn jwks_content_type(self) -> &'static str {
        match self {
            Self::Google => "application/json; charset=UTF-8",
            Self::GitLab => "application/json",
            Self::Kubernetes => "application/jwk-set+json",
        }
    }

    /// All sign with RSA; a cluster also publishes an elliptic-curve key.
    fn first_keys(self) -> Result<KeyRing, KeyError> {
        let others = match self {
            Self::Google | Self::GitLab => Vec::new(),
            Self::Kubernetes => vec![Arc::new(self.new_key(KeyKind::Es256)?)],
        };
        Ok(KeyRing { current: Arc::new(self.new_key(KeyKind::Rs256)?), others })
    }

    fn new_key(self, kind: KeyKind) -> Result<SigningKey, KeyError> {
        let key = SigningKey::generate(kind)?;
        let id = match self {
            Self::Google => key.fingerprint_hex(),
            Self::GitLab | Self::Kubernetes => key.fingerprint_base64(),
        };
        Ok(key.with_id(&id))
    }

    fn issuer(self, origin: &str) -> String {
        match self {
            Self::Google => "https://accounts.google.com".to_owned(),
            Self::GitLab | Self::Kubernetes => origin.to_owned(),
        }
    }

    fn discovery(self, origin: &str) -> Value {
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
        }
    }
}

// === impl Published ===

impl Published {
    fn keys(&self) -> MutexGuard<'_, KeyRing> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn jwks(&self) -> Value {
        let keys: Vec<Value> = self.keys().all().map(|key| key.jwk()).collect();
        json!({ "keys": keys })
    }

    fn discovery(&self) -> Value {
        self.shape.discovery(self.origin.get().map_or("", String::as_str))
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        if !self.available.load(Ordering::Relaxed) {
            return reply(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "the issuer is down".into());
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return reply(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET".into());
        }
        let mut response = if path == DISCOVERY_PATH {
            reply(StatusCode::OK, "application/json", self.discovery().to_string())
        } else if path == self.shape.jwks_path() {
            self.fetches.fetch_add(1, Ordering::Relaxed);
            reply(StatusCode::OK, self.shape.jwks_content_type(), self.jwks().to_string())
        } else {
            return reply(StatusCode::NOT_FOUND, "text/plain", format!("nothing at {path}"));
        };
        let cache_control = HeaderValue::from_static(self.shape.cache_control());
        response.headers_mut().insert(http::header::CACHE_CONTROL, cache_control);
        response
    }
}

impl KeyRing {
    fn all(&self) -> impl Iterator<Item = &Arc<SigningKey>> {
        std::iter::once(&self.current).chain(&self.others)
    }
}

fn reply(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests;
