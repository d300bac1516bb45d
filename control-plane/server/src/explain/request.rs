//! Why a request is allowed or refused: the decision, the rule behind it, and what the nearest rule lacks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidegate_compiler::explain::{
    AskedBody, AskedToken, Explanation, InvalidQuestion, MeshPeer, Prepared, Question, explain,
};
use tidegate_compiler::spec::ClaimJson;
use tidegate_compiler::{Compiled, TrustedIssuer, WorkloadId, split_url};
use tidegate_engine::model::{GuardModel, Mode};
use tidegate_engine::{Outcome, decide};

use super::curl::CurlRequest;
use super::reasons::{Advice, advice};
use super::report::{Decided, NearestReport, RuleReport};
use super::token::{Owner, owner};

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// What was decided.
    #[serde(flatten)]
    pub decided: Decided,
    /// What that means.
    pub advice: Advice,
    /// What was asked, with everything that was filled in.
    pub request: RequestReport,
    /// Guards of the port.
    pub guards: Vec<GuardReport>,
    /// The rule that decides, demand by demand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_report: Option<RuleReport>,
    /// The Shadow rule that would decide otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow_rule_report: Option<RuleReport>,
    /// Where nothing allows the request: the rule that lacks least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<NearestReport>,
    /// The rule lets the request in only because a directory is out of date and it says that it may be done without.
    pub degraded: bool,
    /// What is worth knowing besides.
    pub notes: Vec<String>,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestReport {
    /// Where it arrives.
    pub workload: String,
    /// As sent.
    pub method: String,
    /// As sent.
    pub host: String,
    /// As sent, with query.
    pub path: String,
    /// The workload's port.
    pub port: u16,
    /// Who calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Issuers of its tokens.
    pub tokens: Vec<String>,
    /// Unix seconds.
    pub time: i64,
}

/// A Guard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GuardReport {
    /// `namespace/name`.
    pub guard: String,
    /// Whether it is enforced, and not only reported.
    pub enforced: bool,
}

/// Explains a request. `now`: Unix seconds, if it does not say when.
///
/// # Errors
/// When it cannot be asked.
pub fn answer(compiled: &Compiled, question: &Question, now: i64) -> Result<Answer, InvalidQuestion> {
    let prepared = Prepared::new(compiled, question, now)?;
    let policy = prepared.decoded()?;
    let (decision, explanation) =
        prepared.with(|request| (decide(&policy, request), explain(&prepared.policy.model, request)));
    if explanation.enforced.outcome != decision.outcome || explanation.enforced.reason != decision.reason {
        let why = format!("the engine decides {decision:?}, its explanation {:?}", explanation.enforced);
        return Err(InvalidQuestion::Defect(why));
    }
    Ok(Answer {
        decided: Decided::new(&explanation),
        advice: advice(explanation.enforced.reason),
        request: RequestReport {
            workload: question.workload.to_string(),
            method: question.method.clone(),
            host: prepared.host.clone(),
            path: question.path.clone(),
            port: prepared.port,
            peer: question.peer.as_ref().map(shown_peer),
            tokens: question.tokens.iter().map(|token| token.issuer.clone()).collect(),
            time: prepared.now,
        },
        guards: explanation
            .guards
            .iter()
            .map(|(guard, mode)| GuardReport { guard: guard.clone(), enforced: *mode == Mode::Enforce })
            .collect(),
        rule_report: RuleReport::deciding(&explanation),
        shadow_rule_report: RuleReport::in_shadow(&explanation),
        nearest: NearestReport::of(&explanation),
        degraded: decision.degraded,
        notes: notes(&prepared, &explanation),
    })
}

fn shown_peer(peer: &MeshPeer) -> String {
    let MeshPeer { trust_domain, namespace, service_account } = peer;
    let domain = trust_domain.as_ref().map(|domain| format!(" of {domain}")).unwrap_or_default();
    format!("{namespace}/{service_account}{domain}")
}

fn notes(prepared: &Prepared<'_>, explanation: &Explanation) -> Vec<String> {
    let mut notes: Vec<String> = prepared
        .ignored
        .iter()
        .map(|issuer| {
            format!("no rule of this workload names `{issuer}`: its filter does not look at that token")
        })
        .collect();
    if explanation.rules.is_empty() && !explanation.guards.is_empty() {
        notes.push("no rule targets this workload, so its Guard refuses everything".to_owned());
    }
    let model = &prepared.policy.model;
    if !model.directories.is_empty() && explanation.enforced.outcome == Outcome::Deny {
        let names = model.directories.join("`, `");
        notes.push(format!("rules look up `{names}`; what is listed there is said with --directory FILE"));
    }
    notes
}

// === impl RequestReport ===

impl RequestReport {
    /// The same question again. What its tokens said is not recorded.
    ///
    /// # Errors
    /// What of it cannot be read.
    pub fn question(&self) -> Result<Question, String> {
        let (namespace, name) = self
            .workload
            .split_once('/')
            .ok_or_else(|| format!("the record's workload `{}` is not `namespace/name`", self.workload))?;
        let workload = WorkloadId { namespace: namespace.to_owned(), name: name.to_owned() };
        let peer = match &self.peer {
            None => None,
            Some(text) => {
                let (text, domain) = text
                    .split_once(" of ")
                    .map_or((text.as_str(), None), |(text, domain)| (text, Some(domain)));
                let peer =
                    MeshPeer::parse(text).ok_or_else(|| format!("the record's peer `{text}` is none"))?;
                Some(MeshPeer { trust_domain: domain.map(str::to_owned), ..peer })
            }
        };
        Ok(Question {
            peer,
            method: self.method.clone(),
            host: Some(self.host.clone()),
            path: self.path.clone(),
            port: Some(self.port),
            time: Some(self.time),
            ..blank(workload)
        })
    }
}

/// A question about what nobody has said yet.
pub fn blank(workload: WorkloadId) -> Question {
    Question {
        workload,
        peer: None,
        tokens: Vec::new(),
        method: "GET".to_owned(),
        host: None,
        path: "/".to_owned(),
        headers: Vec::new(),
        body: AskedBody::Unknown,
        port: None,
        time: None,
        directories: BTreeMap::new(),
    }
}

/// Host and path of a URL, or of a path alone.
///
/// # Errors
/// When it is neither.
pub fn place_of(url: &str) -> Result<(Option<String>, String), String> {
    if url.starts_with('/') {
        return Ok((None, url.to_owned()));
    }
    let (host, path) = split_url(url)
        .ok_or_else(|| format!("`{url}` is not a URL; write `https://host/path`, or `/path` alone"))?;
    Ok((Some(host), path))
}

/// The workload that a host is about: the only guarded one, or the one whose Guard or name has that host.
///
/// # Errors
/// What to say instead.
pub fn workload_of(compiled: &Compiled, host: Option<&str>) -> Result<WorkloadId, String> {
    let guarded: Vec<&WorkloadId> =
        compiled.workloads.iter().filter(|(_, policy)| policy.covered).map(|(id, _)| id).collect();
    if let [only] = guarded.as_slice() {
        return Ok((*only).clone());
    }
    let name = host.map(|host| host.rsplit_once(':').map_or(host, |(name, _)| name));
    let candidates: Vec<&WorkloadId> = match name {
        None => Vec::new(),
        Some(name) => {
            let by_name: Vec<_> = guarded.iter().copied().filter(|id| is_named(id, name)).collect();
            let by_audience = guarded.iter().copied().filter(|id| {
                compiled
                    .workloads
                    .get(id)
                    .is_some_and(|policy| policy.model.guards.iter().any(|guard| is_for(guard, name)))
            });
            if by_name.is_empty() { by_audience.collect() } else { by_name }
        }
    };
    if let [only] = candidates.as_slice() {
        return Ok((*only).clone());
    }
    let of = if candidates.is_empty() { &guarded } else { &candidates };
    let names: Vec<String> = of.iter().take(8).map(|id| id.to_string()).collect();
    Err(match (names.as_slice(), of.len() > names.len()) {
        ([], _) => "no workload is guarded; say with --workload which one is meant".to_owned(),
        (names, more) => format!(
            "it is not clear at which workload the request arrives; say --workload {}{}",
            names.join(" or "),
            if more { " or another" } else { "" }
        ),
    })
}

/// `orders-api.sales`, and that with a suffix of the cluster.
fn is_named(id: &WorkloadId, host: &str) -> bool {
    let name = format!("{}.{}", id.name, id.namespace);
    host == name || host.strip_prefix(&name).is_some_and(|rest| rest.starts_with(".svc"))
}

fn is_for(guard: &GuardModel, host: &str) -> bool {
    guard.audiences.iter().flatten().any(|audience| {
        let audience = audience.strip_prefix("https://").unwrap_or(audience);
        audience.split(['/', ':']).next() == Some(host)
    })
}

/// Takes what a `curl` command says; tokens in its headers are read, and never shown.
pub fn add_curl(question: &mut Question, curl: CurlRequest, compiled: &Compiled, notes: &mut Vec<String>) {
    notes.extend(curl.notes);
    for (name, value) in &curl.headers {
        let word = value.split_once(' ').map_or(value.as_str(), |(_, word)| word.trim());
        let Ok(Owner::Declared(issuer)) = owner(word, Some(compiled)) else {
            if name == "authorization" && !value.starts_with("Basic") {
                notes.push(format!(
                    "what `{name}` holds is no token of an issuer that the rules declare; say what it says with --token"
                ));
            }
            continue;
        };
        match claims_of(word).filter(|_| is_in_its_header(issuer, name, value)) {
            Some(claims) => question.tokens.push(AskedToken { issuer: issuer.name.clone(), claims, ..AskedToken::default() }),
            None => notes.push(format!(
                "the token of `{}` is in `{name}`, where its TrustedIssuer does not look for it: it counts as absent",
                issuer.name
            )),
        }
    }
    question.method = curl.method;
    question.body = match curl.data {
        None => AskedBody::None,
        Some(data) if serde_json::from_str::<serde_json::Value>(&data).is_ok() => AskedBody::Json(data),
        Some(_) => AskedBody::Unknown,
    };
    question.headers.extend(curl.headers.into_iter().filter(|(name, _)| name != "host"));
}

fn is_in_its_header(issuer: &TrustedIssuer, name: &str, value: &str) -> bool {
    issuer.headers.iter().any(|header| {
        let scheme = value.split_once(' ').map(|(scheme, _)| scheme);
        let fits = match (&header.prefix, scheme) {
            (Some(prefix), Some(scheme)) => prefix.eq_ignore_ascii_case(scheme),
            (None, None) => true,
            _ => false,
        };
        header.name == name && fits
    })
}

/// What a token says. Its signature is not looked at here.
pub(crate) fn claims_of(token: &str) -> Option<BTreeMap<String, ClaimJson>> {
    use base64::Engine;
    let payload = token.split('.').nth(1)?;
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).ok()?;
    match json_value(&serde_json::from_slice(&json).ok()?)? {
        ClaimJson::Map(claims) => Some(claims),
        _ => None,
    }
}

/// `None`: null, which is as good as absent.
fn json_value(value: &serde_json::Value) -> Option<ClaimJson> {
    use serde_json::Value as V;
    // What no rule can compare stays there, as something that no rule can compare.
    let other = || ClaimJson::Map(BTreeMap::new());
    Some(match value {
        V::Null => return None,
        V::Bool(boolean) => ClaimJson::Boolean(*boolean),
        V::Number(number) => number.as_i64().map_or_else(other, ClaimJson::Integer),
        V::String(text) => ClaimJson::String(text.clone()),
        V::Array(items) => {
            ClaimJson::List(items.iter().map(|item| json_value(item).unwrap_or_else(other)).collect())
        }
        V::Object(members) => {
            let known = members.iter().filter_map(|(name, value)| Some((name.clone(), json_value(value)?)));
            ClaimJson::Map(known.collect())
        }
    })
}
