//! A request that somebody asks about, made into what the engine decides on.
//!
//! Headers, paths and hosts are read by the engine's one normalisation; claims by the issuer's pack, as from a verified
//! token. Nothing is signed here, so nothing is verified: whoever asks says what tokens say.

use std::collections::BTreeMap;

use tidegate_engine::body::{FieldValue, Format, Scanner};
use tidegate_engine::directory::{DirectoryModel, encode_directories};
use tidegate_engine::model::{BodyField, GuardModel, Mode};
use tidegate_engine::{
    Body, ClaimValue, Directories, Peer, PolicySet, Request, TokenFault, TokenState, VerifiedToken, normal,
};
use tidegate_identity::{PackKind, explain};

use super::claims;
use crate::claim_path;
use crate::mesh::WorkloadId;
use crate::plan::WorkloadPolicy;
use crate::spec::{ClaimJson, write_members};
use crate::{Compiled, TrustedIssuer};

/// The port where nobody says one.
const DEFAULT_PORT: u16 = 8080;
/// For how long a token counts whose `exp` nobody wrote, in seconds.
const LIFE_S: i64 = 600;
/// How old a token is whose `iat` nobody wrote, in seconds.
const AGE_S: i64 = 30;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Where it arrives.
    pub workload: WorkloadId,
    /// Who calls over mTLS.
    pub peer: Option<MeshPeer>,
    /// What is sent along.
    pub tokens: Vec<AskedToken>,
    /// As sent.
    pub method: String,
    /// As sent; `None`: that of the Guard's audience, or the workload's name in the cluster.
    pub host: Option<String>,
    /// As sent, with query.
    pub path: String,
    /// Further headers; names in lower case.
    pub headers: Vec<(String, String)>,
    /// What is in the body.
    pub body: AskedBody,
    /// `None`: the first that a Guard names.
    pub port: Option<u16>,
    /// Unix seconds; `None`: whenever it is asked.
    pub time: Option<i64>,
    /// What directories list. One that is not here is out of date.
    pub directories: BTreeMap<String, Vec<String>>,
}

/// What is known of a request's body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AskedBody {
    /// There is none.
    #[default]
    None,
    /// Only the head of the request is known.
    Unknown,
    /// This JSON document.
    Json(String),
}

/// A workload of the mesh as a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshPeer {
    /// Trust domain; `None`: the mesh's own.
    pub trust_domain: Option<String>,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes service account.
    pub service_account: String,
}

/// A token.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AskedToken {
    /// Name of the TrustedIssuer.
    pub issuer: String,
    /// What it says.
    pub claims: BTreeMap<String, ClaimJson>,
    /// For whom it is meant; `None`: `aud` of the claims, or what the Guard demands.
    pub audiences: Option<Vec<String>>,
    /// Why a filter refuses it.
    pub fault: Option<TokenFault>,
    /// Only some of its claims are known: every test of another one is unknown.
    pub partial: bool,
}

/// Why a question cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvalidQuestion {
    /// There is no such workload.
    Workload(WorkloadId),
    /// There is no such TrustedIssuer.
    Issuer(String),
    /// Two tokens of one issuer: a filter refuses that as `token_several`.
    TwoTokens(String),
    /// Claims that no token can have: too many or too deep.
    Claims(String),
    /// The policy or the directories cannot be read: a defect.
    Defect(String),
}

/// A question with everything that its answer rests on.
#[derive(Debug)]
pub struct Prepared<'a> {
    /// What the workload enforces.
    pub policy: &'a WorkloadPolicy,
    /// Unix seconds.
    pub now: i64,
    /// As sent.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Issuers of tokens that no rule of the workload names: the filter does not look at them.
    pub ignored: Vec<String>,
    question: &'a Question,
    trust_domain: &'a str,
    tokens: Vec<Sent>,
    directories: Directories,
    /// The fields of the body that rules read, and their values.
    fields: Vec<BodyField>,
    values: Vec<FieldValue>,
}

#[derive(Debug)]
enum Sent {
    Absent,
    Invalid(TokenFault),
    Verified(VerifiedToken),
}

// === impl MeshPeer ===

impl MeshPeer {
    /// Reads `namespace/service-account` or a SPIFFE id.
    pub fn parse(text: &str) -> Option<Self> {
        if text.contains(':') {
            let id = tidegate_identity::SpiffeId::parse(text.as_bytes()).ok()?;
            return Some(Self {
                trust_domain: Some(id.trust_domain.to_owned()),
                namespace: id.namespace.to_owned(),
                service_account: id.service_account.to_owned(),
            });
        }
        let (namespace, account) = crate::syntax::qualified(text)?;
        Some(Self {
            trust_domain: None,
            namespace: namespace.to_owned(),
            service_account: account.to_owned(),
        })
    }
}

// === impl AskedToken ===

impl AskedToken {
    /// Sets a claim, whose path is written as in rules: `google.compute_engine.zone`. `false`: that is not a path.
    pub fn set(&mut self, path: &str, value: ClaimJson) -> bool {
        let path = claim_path::parse(path);
        path.iter().for_each(|path| claims::set(&mut self.claims, path, value.clone()));
        path.is_some()
    }

    /// The same with the steps of the path one by one.
    pub fn set_at(&mut self, path: &[String], value: ClaimJson) {
        claims::set(&mut self.claims, path, value);
    }

    /// The same as [`Self::set`] with a value as people type it: what the pack says that the claim is, else what it looks like.
    pub fn set_text(&mut self, pack: PackKind, path: &str, text: &str) -> bool {
        let kind = claim_path::parse(path).and_then(|path| pack.claim(&path)).map(|spec| spec.kind);
        self.set(path, typed(kind, text))
    }

    /// Removes a claim; says whether it was there.
    pub fn remove(&mut self, path: &str) -> bool {
        claim_path::parse(path).is_some_and(|path| claims::remove(&mut self.claims, &path))
    }

    /// Lays claims over those that are there.
    pub fn merge(&mut self, over: &BTreeMap<String, ClaimJson>) {
        claims::merge(&mut self.claims, over);
    }
}

/// A typed text as a claim's value.
fn typed(kind: Option<tidegate_identity::pack::ClaimKind>, text: &str) -> ClaimJson {
    use tidegate_identity::pack::ClaimKind as K;
    let string = || ClaimJson::String(text.to_owned());
    let boolean = || match text {
        "true" => Some(ClaimJson::Boolean(true)),
        "false" => Some(ClaimJson::Boolean(false)),
        _ => None,
    };
    let integer = || text.parse().ok().map(ClaimJson::Integer);
    let list = || ClaimJson::List(text.split(',').map(|one| ClaimJson::String(one.to_owned())).collect());
    match kind {
        Some(K::Integer) => integer().unwrap_or_else(string),
        Some(K::Boolean) => boolean().unwrap_or_else(string),
        Some(K::Strings) => list(),
        Some(_) => string(),
        None => boolean().or_else(integer).unwrap_or_else(string),
    }
}

// === impl Prepared ===

impl<'a> Prepared<'a> {
    /// Makes a question ready to be decided. `now`: Unix seconds, for questions that do not say when.
    ///
    /// # Errors
    /// See [`InvalidQuestion`].
    pub fn new(compiled: &'a Compiled, question: &'a Question, now: i64) -> Result<Self, InvalidQuestion> {
        let policy = compiled
            .workloads
            .get(&question.workload)
            .ok_or_else(|| InvalidQuestion::Workload(question.workload.clone()))?;
        let now = question.time.unwrap_or(now);
        let guard_ports = policy.model.guards.iter().filter_map(|guard| guard.ports.as_ref()?.first());
        let port = question.port.or_else(|| guard_ports.copied().next()).unwrap_or(DEFAULT_PORT);
        let audiences = audiences(&policy.model.guards, port);
        let host = question.host.clone().unwrap_or_else(|| default_host(&question.workload, audiences));
        let mut tokens: Vec<Sent> = policy.model.issuers.iter().map(|_| Sent::Absent).collect();
        let mut ignored = Vec::new();
        for asked in &question.tokens {
            let issuer = compiled
                .issuers
                .iter()
                .find(|issuer| issuer.name == asked.issuer)
                .ok_or_else(|| InvalidQuestion::Issuer(asked.issuer.clone()))?;
            let at = policy.model.issuers.iter().position(|known| known.name == asked.issuer);
            let Some((known, place)) = at.and_then(|at| policy.model.issuers.get(at).zip(tokens.get_mut(at)))
            else {
                ignored.push(asked.issuer.clone());
                continue;
            };
            if !matches!(place, Sent::Absent) {
                return Err(InvalidQuestion::TwoTokens(asked.issuer.clone()));
            }
            *place = match asked.fault {
                Some(fault) => Sent::Invalid(fault),
                None => Sent::Verified(verified(asked, issuer, &known.slots, audiences, &host, now)?),
            };
        }
        let listed = question.directories.iter().map(|(name, ids)| DirectoryModel {
            name: name.clone(),
            ids: ids.clone(),
            fresh_until: i64::MAX,
        });
        let directories = Directories::decode(&encode_directories(&listed.collect::<Vec<_>>()))
            .map_err(|error| InvalidQuestion::Defect(error.to_string()))?;
        let trust_domain = &compiled.mesh.trust_domain;
        let (fields, values) = match &question.body {
            AskedBody::Json(json) => read_body(policy, json)?,
            AskedBody::None | AskedBody::Unknown => (Vec::new(), Vec::new()),
        };
        Ok(Self {
            policy,
            now,
            host,
            port,
            ignored,
            question,
            trust_domain,
            tokens,
            directories,
            fields,
            values,
        })
    }

    /// The policy as the filter decodes it.
    ///
    /// # Errors
    /// When what was encoded cannot be decoded, which is a defect.
    pub fn decoded(&self) -> Result<PolicySet, InvalidQuestion> {
        decode(self.policy)
    }

    /// Calls `with` with the request as the filter would read it.
    pub fn with<T>(&self, with: impl FnOnce(&Request<'_>) -> T) -> T {
        let question = self.question;
        let tokens: Vec<TokenState<'_>> = self
            .tokens
            .iter()
            .map(|token| match token {
                Sent::Absent => TokenState::Absent,
                Sent::Invalid(fault) => TokenState::Invalid(*fault),
                Sent::Verified(token) => TokenState::Verified(token),
            })
            .collect();
        let pseudo = [(":method", &question.method), (":path", &question.path), (":authority", &self.host)];
        let sent = question.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let headers = pseudo.into_iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).chain(sent);
        let headers: Vec<(&[u8], &[u8])> = headers.collect();
        let path = normal::path(question.path.as_bytes());
        let host = normal::host(self.host.as_bytes());
        with(&Request {
            now: self.now,
            expiry_grace_s: 0,
            port: self.port,
            method: question.method.as_bytes(),
            host: host.as_deref(),
            path: &path,
            query: normal::query(question.path.as_bytes()),
            fields: &headers,
            body: match question.body {
                AskedBody::None => Body::Empty,
                AskedBody::Unknown => Body::Unread,
                AskedBody::Json(_) => Body::Read { fields: &self.fields, values: &self.values },
            },
            headers: normal::header_facts(headers.iter().copied()),
            peer: match &question.peer {
                None => Peer::Absent,
                Some(peer) => Peer::Mesh {
                    trust_domain: peer.trust_domain.as_deref().unwrap_or(self.trust_domain),
                    namespace: &peer.namespace,
                    service_account: &peer.service_account,
                },
            },
            tokens: &tokens,
            directories: &self.directories,
        })
    }
}

fn decode(policy: &WorkloadPolicy) -> Result<PolicySet, InvalidQuestion> {
    PolicySet::decode(&policy.rules).map_err(|error| InvalidQuestion::Defect(error.to_string()))
}

/// The fields that rules read in bodies, and what they are in this one.
fn read_body(
    policy: &WorkloadPolicy,
    json: &str,
) -> Result<(Vec<BodyField>, Vec<FieldValue>), InvalidQuestion> {
    let fields = decode(policy)?.body_fields().to_vec();
    let all: Vec<u16> = (0..).take(fields.len()).collect();
    let mut scanner = Scanner::new(Some(Format::Json), &fields, &all);
    scanner.feed(json.as_bytes());
    scanner.finish();
    let values = scanner.values().to_vec();
    Ok((fields, values))
}

/// What the first Guard of the port that counts demands of audiences.
fn audiences(guards: &[GuardModel], port: u16) -> Option<&[String]> {
    let covers = |guard: &&GuardModel| guard.ports.as_ref().is_none_or(|ports| ports.contains(&port));
    let covering = || guards.iter().filter(covers);
    let enforcing = covering().find(|guard| guard.mode == Mode::Enforce);
    enforcing.or_else(|| covering().next())?.audiences.as_deref()
}

fn default_host(workload: &WorkloadId, audiences: Option<&[String]>) -> String {
    let of_audience = |audience: &String| {
        let host = audience.strip_prefix("https://")?.split(['/', ':']).next()?;
        (!host.is_empty()).then(|| host.to_owned())
    };
    let known = audiences.and_then(|audiences| audiences.iter().find_map(of_audience));
    known.unwrap_or_else(|| format!("{}.{}.svc.cluster.local", workload.name, workload.namespace))
}

fn verified(
    asked: &AskedToken,
    issuer: &TrustedIssuer,
    paths: &[Vec<String>],
    demanded: Option<&[String]>,
    host: &str,
    now: i64,
) -> Result<VerifiedToken, InvalidQuestion> {
    let mut claims = asked.claims.clone();
    let mut missing = |name: &str, value: ClaimJson| {
        claims.entry(name.to_owned()).or_insert(value);
    };
    missing("exp", ClaimJson::Integer(now.saturating_add(LIFE_S)));
    missing("iat", ClaimJson::Integer(now.saturating_sub(AGE_S)));
    if let Some(iss) = issuer.issuers.first() {
        missing("iss", ClaimJson::String(iss.clone()));
    }
    let audiences = asked
        .audiences
        .clone()
        .or_else(|| texts(claims.get("aud")?))
        .or_else(|| Some(demanded?.get(..1)?.to_vec()))
        .unwrap_or_else(|| vec![format!("https://{host}")]);
    let list = audiences.iter().cloned().map(ClaimJson::String).collect();
    claims.insert("aud".to_owned(), ClaimJson::List(list));
    let expires_at = match claims.get("exp") {
        Some(ClaimJson::Integer(exp)) => *exp,
        _ => return Err(InvalidQuestion::Claims(asked.issuer.clone())),
    };
    let mut json = String::new();
    write_members(&claims, &mut json);
    let slots: Option<Vec<ClaimValue>> = explain::slots_of(&json, issuer.pack, paths);
    let mut slots = slots.ok_or_else(|| InvalidQuestion::Claims(asked.issuer.clone()))?;
    if asked.partial {
        for (slot, path) in slots.iter_mut().zip(paths) {
            if let Some(known) = claims::stated(&asked.claims, path) {
                // What is computed from claims cannot be computed from some of them; it may be stated.
                if path.first().is_some_and(|name| name.starts_with('@')) {
                    *slot = claim_value(known);
                }
            } else {
                *slot = ClaimValue::Unknown;
            }
        }
    }
    Ok(VerifiedToken { audiences, expires_at, slots })
}

/// A claim's value as tests read it.
fn claim_value(value: &ClaimJson) -> ClaimValue {
    match value {
        ClaimJson::Boolean(boolean) => ClaimValue::Boolean(*boolean),
        ClaimJson::Integer(integer) => ClaimValue::Integer(*integer),
        ClaimJson::String(text) => ClaimValue::String(text.clone()),
        ClaimJson::List(_) => texts(value).map_or(ClaimValue::Other, ClaimValue::Strings),
        ClaimJson::Map(_) => ClaimValue::Other,
    }
}

/// A string, or a list of strings.
fn texts(value: &ClaimJson) -> Option<Vec<String>> {
    match value {
        ClaimJson::String(text) => Some(vec![text.clone()]),
        ClaimJson::List(items) => items
            .iter()
            .map(|item| match item {
                ClaimJson::String(text) => Some(text.clone()),
                _ => None,
            })
            .collect(),
        _ => None,
    }
}
