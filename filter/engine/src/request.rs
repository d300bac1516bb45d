//! What the engine is told about a request.
//!
//! Everything the decision depends on is a field here, the time included: [`crate::decide`] reads no clock, no
//! environment and no memory of earlier requests.

use crate::body::FieldValue;
use crate::directory::Directories;
use crate::model::BodyField;
use crate::normal::{Host, Path};
use crate::reason::TokenFault;

/// A request, normalised and with its identities established.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Unix seconds.
    pub now: i64,
    /// For how many seconds after `exp` tokens still count: 0 for a request that comes in, and what the rule's lease
    /// gives ([`crate::model::Lease::expiry_grace_s`]) for a stream that was let in earlier and is looked at again.
    pub expiry_grace_s: u32,
    /// The workload's port that accepted the connection. May be 0 where [`crate::PolicySet::needs_port`] is false.
    pub port: u16,
    /// The method, as sent.
    pub method: &'a [u8],
    /// See [`crate::normal::host`].
    pub host: Host<'a>,
    /// See [`crate::normal::path`].
    pub path: &'a Path<'a>,
    /// The query as sent, without `?`; see [`crate::normal::query`].
    pub query: &'a [u8],
    /// What the headers say besides.
    pub headers: HeaderFacts,
    /// The headers, names in lower case. May be empty where [`crate::PolicySet::needs_fields`] is false.
    pub fields: &'a [(&'a [u8], &'a [u8])],
    /// What was found in the body.
    pub body: Body<'a>,
    /// The workload at the other end of the mTLS connection.
    pub peer: Peer<'a>,
    /// One per issuer of the policy, in its order. A missing entry counts as [`TokenState::Absent`].
    pub tokens: &'a [TokenState<'a>],
    /// The ids that conditions look up.
    pub directories: &'a Directories,
}

impl Request<'_> {
    /// What tokens' age is compared with.
    pub(crate) fn token_clock(&self) -> i64 {
        self.now.saturating_sub(i64::from(self.expiry_grace_s))
    }
}

/// What the engine needs to know of the headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeaderFacts {
    /// Exactly one content type, and it is `application/grpc` or `application/grpc+…`.
    pub grpc: bool,
    /// A header is there that some servers take for the method, host or path (`X-HTTP-Method-Override`, …).
    pub overrides: bool,
    /// A header on which the decision depends is there more than once.
    pub duplicates: bool,
}

/// The other end of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer<'a> {
    /// No certificate of the mesh's CA: plain text, or a certificate of another CA (which is never a peer).
    Absent,
    /// A workload of the mesh.
    Mesh {
        /// Trust domain of its SPIFFE id.
        trust_domain: &'a str,
        /// Kubernetes namespace.
        namespace: &'a str,
        /// Kubernetes service account.
        service_account: &'a str,
    },
}

/// What is known of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// Nothing yet. See [`crate::Decision::awaits_body`].
    Unread,
    /// What was found; what is missing is unknown.
    Read {
        /// [`crate::PolicySet::body_fields`].
        fields: &'a [BodyField],
        /// Their values, in the same order.
        values: &'a [FieldValue],
    },
    /// There is none, so that every field is absent.
    Empty,
}

impl<'a> Peer<'a> {
    /// Trust domain, namespace and service account; empty without a mesh peer.
    pub(crate) fn parts(self) -> (&'a str, &'a str, &'a str) {
        match self {
            Self::Absent => ("", "", ""),
            Self::Mesh { trust_domain, namespace, service_account } => {
                (trust_domain, namespace, service_account)
            }
        }
    }
}

/// What is known of one issuer's token.
#[derive(Debug, Clone, Copy)]
pub enum TokenState<'a> {
    /// None was sent, or only opaque ones.
    Absent,
    /// One was sent that must not be accepted. Refuses the request, whoever the peer is.
    Invalid(TokenFault),
    /// Signature, time, type and the issuer's own checks hold. The audience is still to be compared.
    Verified(&'a VerifiedToken),
}

/// What a verified token says, as far as rules read it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifiedToken {
    /// `aud`, one or more.
    pub audiences: Vec<String>,
    /// `exp`, Unix seconds.
    pub expires_at: i64,
    /// One value per slot of the issuer ([`crate::PolicySet::issuers`]), in that order.
    pub slots: Vec<ClaimValue>,
}

/// A claim's value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ClaimValue {
    /// Not in the token, or null.
    #[default]
    Absent,
    /// The token says that it cannot say (group overage). Every test of it is unknown.
    Unknown,
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A string.
    String(String),
    /// An array of strings.
    Strings(Vec<String>),
    /// Present, but of a shape that no test reads (object, fraction, mixed array).
    Other,
}
