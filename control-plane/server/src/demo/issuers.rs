//! Identity providers on loopback, shaped like the real ones: the same documents under the same paths, with keys that
//! are made at start.
//!
//! Each token is a [`Draft`] first, which a test may bend before it is signed.
//!
//! INVARIANT: private keys exist only in this process's memory.

mod draft;
mod keys;
mod payloads;
mod providers;
mod shape;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::Value;

use super::pki::{Authority, CertificateError};
use super::server::{Body, Server};
use super::tls::{self, TlsError};

pub use draft::Draft;
pub use keys::{KeyError, KeyKind, SigningKey};
pub use payloads::{GitLabJob, GoogleInstance, KubernetesPod};
pub use shape::Shape;

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

/// Issuers of further providers, for tests.
#[derive(Debug)]
pub struct Providers {
    /// Shaped like an Entra tenant.
    pub entra: Issuer,
    /// Shaped like a custom authorization server of Okta.
    pub okta: Issuer,
    /// Shaped like an AWS account with outbound identity federation.
    pub aws: Issuer,
    /// Shaped like GitHub Actions.
    pub github: Issuer,
    /// Shaped like the JWT bundle of a SPIFFE trust domain.
    pub spiffe: Issuer,
    /// Shaped like an OAuth authorization server that follows RFC 9068.
    pub oauth: Issuer,
}

/// How an issuer's server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Behaviour {
    /// As it should.
    #[default]
    Normal,
    /// 503 to everything.
    Down,
    /// Not at all: the connection stays open.
    Silent,
    /// 10 MB.
    Huge,
    /// With a redirect to another host.
    Elsewhere,
    /// With something that is no JSON.
    Garbage,
    /// With a key set without keys.
    Empty,
}

/// What the server publishes, and how it behaves.
#[derive(Debug)]
struct Published {
    shape: Shape,
    // Known as soon as the port is, and nobody can ask before.
    origin: OnceLock<String>,
    keys: Mutex<KeyRing>,
    behaviour: Mutex<Behaviour>,
    fetches: AtomicU64,
}

#[derive(Debug)]
struct KeyRing {
    current: Arc<SigningKey>,
    // Published, newest first; they sign no more.
    others: Vec<Arc<SigningKey>>,
    // How often this has changed.
    sequence: u64,
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

    /// Starts the others, under the same authority.
    pub async fn providers(&self) -> Result<Providers, IssuerError> {
        Ok(Providers {
            entra: Issuer::start(Shape::Entra, &self.authority).await?,
            okta: Issuer::start(Shape::Okta, &self.authority).await?,
            aws: Issuer::start(Shape::Aws, &self.authority).await?,
            github: Issuer::start(Shape::GitHub, &self.authority).await?,
            spiffe: Issuer::start(Shape::Spiffe, &self.authority).await?,
            oauth: Issuer::start(Shape::OAuth, &self.authority).await?,
        })
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
            behaviour: Mutex::default(),
            fetches: AtomicU64::new(0),
        });
        let handler = {
            let published = Arc::clone(&published);
            move |request| {
                let published = Arc::clone(&published);
                async move { published.answer(&request).await }
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
        format!("{}{}", self.origin, self.shape().discovery_path())
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
        keys.sequence += 1;
        Ok(key)
    }

    /// Publishes only the key that signs now.
    pub fn withdraw_old_keys(&self) {
        let mut keys = self.published.keys();
        keys.others.clear();
        keys.sequence += 1;
    }

    /// Replaces the key that signs by another one under the same id, as an issuer does that lost its key.
    pub fn replace_key(&self) -> Result<Arc<SigningKey>, KeyError> {
        let mut keys = self.published.keys();
        let key = self.shape().new_key(keys.current.kind())?.with_id(keys.current.id());
        keys.current = Arc::new(key);
        keys.sequence += 1;
        Ok(Arc::clone(&keys.current))
    }

    /// Makes the server answer like this from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.published.behaviour.lock().unwrap_or_else(PoisonError::into_inner) = behaviour;
    }

    /// How often the key set has been fetched.
    pub fn fetches(&self) -> u64 {
        self.published.fetches.load(Ordering::Relaxed)
    }

    /// A token of this issuer with these claims, honestly signed unless it is bent first.
    pub fn draft(&self, claims: Value) -> Draft {
        Draft::new(self.signing_key(), self.shape().token_type(), claims)
    }
}

// === impl Published ===

impl Published {
    fn keys(&self) -> MutexGuard<'_, KeyRing> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn jwks(&self) -> Value {
        let keys = self.keys();
        self.shape.key_set(keys.all().map(|key| key.jwk()).collect(), keys.sequence)
    }

    fn discovery(&self) -> Value {
        self.shape.discovery(self.origin.get().map_or("", String::as_str))
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        let behaviour = *self.behaviour.lock().unwrap_or_else(PoisonError::into_inner);
        let content = match behaviour {
            Behaviour::Normal => None,
            Behaviour::Down => {
                return reply(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "the issuer is down".into());
            }
            Behaviour::Silent => std::future::pending().await,
            Behaviour::Elsewhere => {
                let mut response = reply(StatusCode::FOUND, "text/plain", String::new());
                let target = HeaderValue::from_static("https://localhost:1/keys");
                response.headers_mut().insert(http::header::LOCATION, target);
                return response;
            }
            Behaviour::Huge => Some(format!("{{\"keys\": [\"{}\"]}}", "x".repeat(10_000_000))),
            Behaviour::Garbage => Some("<html>it works!</html>".to_owned()),
            Behaviour::Empty => Some("{\"keys\": []}".to_owned()),
        };
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return reply(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET".into());
        }
        let mut response = if path == self.shape.discovery_path() {
            reply(StatusCode::OK, "application/json", self.discovery().to_string())
        } else if path == self.shape.jwks_path() {
            self.fetches.fetch_add(1, Ordering::Relaxed);
            let content = content.unwrap_or_else(|| self.jwks().to_string());
            reply(StatusCode::OK, self.shape.jwks_content_type(), content)
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
