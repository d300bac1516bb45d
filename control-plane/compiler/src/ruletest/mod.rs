//! `RuleTest`s, checked: requests with what must be decided about each.
//!
//! Tests never take part in a compilation: what is wrong with one is said by [`check`], to whoever runs tests or checks
//! files, and never stops rules.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidegate_engine::{Outcome, Reason};

use crate::context::Context;
use crate::diagnostic::{Code, Diagnostic};
use crate::explain::{AskedBody, AskedToken, MeshPeer, Question};
use crate::mesh::{Reaches, WorkloadId, not_empty};
use crate::objects::{self, Object, Objects};
use crate::place::{Findings, Kind, ObjectId, Place};
use crate::spec::{
    AccessRuleSpec, DecisionSpec, ExpectationSpec, OneOrMany, RequestSpec, RuleTestSpec, TestSpec,
    TestTokenSpec, write_members,
};
use crate::when::Cache;
use crate::{Compiled, Inputs, suggest, syntax};

mod tokens;

use tokens::{named_tokens, token, unknown_token};

/// What files hold for whoever tests rules.
#[derive(Debug, Clone, Default)]
pub struct RuleTests {
    /// All tests, ordered by the names of their RuleTests.
    pub tests: Vec<RuleTest>,
    /// What is wrong with RuleTests beyond their shape; those tests are left out.
    pub diagnostics: Vec<Diagnostic>,
    /// Where every object is written: file and line.
    pub origins: BTreeMap<ObjectId, (String, u32)>,
    /// Callers by `namespace/name`.
    pub callers: BTreeMap<String, CallerFacts>,
}

/// What is known of a Caller without looking at tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallerFacts {
    /// The peers that its forms name.
    pub peers: Vec<MeshPeer>,
    /// Rules that name it, `namespace/name`.
    pub rules: BTreeSet<String>,
}

/// One request, and what must be decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleTest {
    /// Name of the RuleTest.
    pub suite: String,
    /// A sentence.
    pub name: String,
    /// The file, as the caller of the compiler named it.
    pub file: String,
    /// Counted from 1.
    pub line: u32,
    /// What is asked.
    pub question: Question,
    /// What must be decided.
    pub expected: Expectation,
}

/// What must be decided. What is absent may be anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// Whether the request passes.
    pub outcome: Outcome,
    /// Why.
    pub reason: Option<Reason>,
    /// The rule that decides.
    pub rule: Option<String>,
    /// What Shadow rules and Guards would decide, and by which rule.
    pub shadow: Option<(Outcome, Option<String>)>,
}

/// Reads and checks the RuleTests of files that compile.
pub fn check(inputs: &Inputs<'_>, compiled: &Compiled) -> RuleTests {
    let mut shape = Findings::default();
    let objects = objects::read(inputs.sources, &inputs.env, &mut shape);
    let issuers = compiled.issuers.iter().map(|issuer| (issuer.name.clone(), Some(issuer.clone()))).collect();
    let (none, cache, reaches) = (BTreeMap::new(), Cache::default(), Reaches::default());
    let context = Context {
        mesh: Some(&compiled.mesh),
        broken: &objects.broken,
        issuers: &issuers,
        callers: &none,
        cache: &cache,
        reaches: &reaches,
    };
    let mut findings = Findings::default();
    let tests = objects
        .tests
        .iter()
        .flat_map(|object| suite(object, &objects.rules, &context, &mut findings))
        .collect();
    RuleTests {
        tests,
        diagnostics: findings.into_sorted(),
        origins: objects.origins(),
        callers: self::callers(&objects),
    }
}

fn callers(objects: &Objects) -> BTreeMap<String, CallerFacts> {
    let mut known = BTreeMap::new();
    for caller in &objects.callers {
        let mut facts = CallerFacts::default();
        for spec in caller.spec.any_of.iter().filter_map(|form| form.peer.as_ref()) {
            facts.peers.extend(spec.service_accounts.iter().flatten().map(|account| MeshPeer {
                trust_domain: spec.trust_domain.clone(),
                namespace: spec.namespace.clone(),
                service_account: account.clone(),
            }));
        }
        known.insert(caller.source.id.qualified_name(), facts);
    }
    for rule in &objects.rules {
        for name in rule.spec.from.iter().filter_map(|from| from.caller.as_ref()) {
            if let Some(facts) = known.get_mut(name) {
                facts.rules.insert(rule.source.id.qualified_name());
            }
        }
    }
    known
}

fn suite(
    object: &Object<RuleTestSpec>,
    rules: &[Arc<Object<AccessRuleSpec>>],
    context: &Context<'_>,
    findings: &mut Findings,
) -> Vec<RuleTest> {
    let root = object.source.place();
    let spec = root.key("spec");
    let place = spec.key("tests");
    not_empty(&place, &object.spec.tests, findings);
    let before = findings.errors();
    let tokens = named_tokens(&spec.key("tokens"), object.spec.tokens.as_ref(), context, findings);
    let suite = Suite { spec: &object.spec, root: &spec, tokens, rules, context };
    if findings.errors() > before {
        return Vec::new();
    }
    let mut names = BTreeSet::new();
    let mut tests = Vec::new();
    for (index, test) in object.spec.tests.iter().enumerate() {
        let place = place.index(index);
        if !names.insert(test.name.as_str()) {
            findings.add(
                &place.key("name"),
                Code::DuplicateObject,
                format!("another test is called `{}` as well", test.name),
                "reports tell tests by their names",
                "rename one of them",
            );
        }
        let before = findings.errors();
        let made = suite.question(&place, test, findings);
        let expected = suite.expectation(&place.key("expect"), &test.expect, findings);
        if let (Some(question), Some(expected)) = (made, expected)
            && findings.errors() == before
        {
            tests.push(RuleTest {
                suite: object.source.id.name.clone(),
                name: test.name.clone(),
                file: object.source.file().to_owned(),
                line: place.position().line,
                question,
                expected,
            });
        }
    }
    tests
}

/// The reason of this code.
fn reason(place: &Place<'_>, code: &str, findings: &mut Findings) -> Option<Reason> {
    let known = Reason::from_code(code);
    if known.is_none() {
        let codes = Reason::all().map(Reason::code);
        findings.add(
            place,
            Code::UnknownValue,
            format!("`{code}` is not a reason code"),
            "callers see one of a fixed set of codes",
            match suggest::closest(code, codes) {
                Some(close) => format!("did you mean `{close}`?"),
                None => "write the code of an error body's `reason`, e.g. `no_allow_matched`".to_owned(),
            },
        );
    }
    known
}

fn many(texts: &OneOrMany) -> Vec<String> {
    match texts {
        OneOrMany::One(one) => vec![one.clone()],
        OneOrMany::Many(many) => many.clone(),
    }
}

/// One RuleTest, with what its tests share.
struct Suite<'s> {
    spec: &'s RuleTestSpec,
    root: &'s Place<'s>,
    tokens: BTreeMap<String, AskedToken>,
    rules: &'s [Arc<Object<AccessRuleSpec>>],
    context: &'s Context<'s>,
}

// === impl Suite ===

impl Suite<'_> {
    fn question(&self, test_place: &Place<'_>, test: &TestSpec, findings: &mut Findings) -> Option<Question> {
        let none = RequestSpec::default();
        let own = (test_place.key("request"), test.request.as_ref().unwrap_or(&none));
        let defaults = (self.root.key("defaults"), self.spec.defaults.as_ref().unwrap_or(&none));
        // A field of the request itself, or of the defaults, with its place.
        macro_rules! field {
            ($name:ident) => {
                match &own.1.$name {
                    Some(value) => Some((&own.0, value)),
                    None => defaults.1.$name.as_ref().map(|value| (&defaults.0, value)),
                }
            };
        }
        let workload = match (field!(workload), &self.spec.workload) {
            (Some((place, text)), _) => self.workload(&place.key("workload"), text, findings),
            (None, Some(text)) => self.workload(&self.root.key("workload"), text, findings),
            (None, None) => {
                findings.add(
                    test_place,
                    Code::MissingField,
                    "`workload` is missing",
                    "each workload has its own rules",
                    "write `workload: namespace/name` in the request, in `defaults`, or beside `tests`",
                );
                None
            }
        };
        let peer = match field!(peer) {
            None => None,
            Some((_, text)) if text == "none" => None,
            Some((place, text)) => {
                let peer = MeshPeer::parse(text);
                if peer.is_none() {
                    findings.add(
                        &place.key("peer"),
                        Code::MalformedValue,
                        format!("`{text}` is no peer"),
                        "a peer is known by namespace and service account",
                        "write `namespace/service-account`, a SPIFFE id, or `none`",
                    );
                }
                peer
            }
        };
        let mut tokens = Vec::new();
        if let Some((place, list)) = field!(tokens) {
            let place = place.key("tokens");
            for (index, written) in list.iter().enumerate() {
                let place = place.index(index);
                tokens.extend(self.token(&place, written, findings));
            }
        }
        let mut question = Question {
            workload: workload?,
            peer,
            tokens,
            method: field!(method).map_or_else(|| "GET".to_owned(), |(_, method)| method.clone()),
            host: field!(host).map(|(_, host)| host.clone()),
            path: field!(path).map_or_else(|| "/".to_owned(), |(_, path)| path.clone()),
            headers: Vec::new(),
            body: AskedBody::None,
            port: field!(port).map(|(_, port)| *port),
            time: None,
            directories: self.spec.directories.clone().unwrap_or_default(),
        };
        if let Some((place, url)) = field!(url) {
            match split_url(url) {
                Some((host, path)) => (question.host, question.path) = (Some(host), path),
                None => findings.add(
                    &place.key("url"),
                    Code::MalformedValue,
                    format!("`{url}` is not a URL"),
                    "host and path are taken from it",
                    "write `https://host/path`, or write `host` and `path`",
                ),
            }
        }
        if let Some((_, call)) = field!(grpc) {
            question.method = "POST".to_owned();
            question.path = format!("/{}", call.trim_start_matches('/'));
            question.headers.push(("content-type".to_owned(), "application/grpc".to_owned()));
        }
        if let Some((place, body)) = field!(body) {
            if field!(grpc).is_some() {
                findings.add(
                    &place.key("body"),
                    Code::NotSupported,
                    "bodies of gRPC calls cannot be written in tests by this version",
                    "they are messages of Protocol Buffers, and a test knows no message types",
                    "test the same rule over HTTP and JSON, or leave `body` out",
                );
            }
            let mut json = String::new();
            write_members(body, &mut json);
            question.body = AskedBody::Json(json);
        }
        if let Some((_, headers)) = field!(headers) {
            for (name, values) in headers {
                let name = name.to_ascii_lowercase();
                question.headers.extend(many(values).into_iter().map(|value| (name.clone(), value)));
            }
        }
        let has_type = question.headers.iter().any(|(name, _)| name == "content-type");
        if !has_type && matches!(question.body, AskedBody::Json(_)) {
            question.headers.push(("content-type".to_owned(), "application/json".to_owned()));
        }
        if let Some((place, text)) = field!(time) {
            question.time = syntax::moment(text);
            if question.time.is_none() {
                findings.add(
                    &place.key("time"),
                    Code::MalformedValue,
                    format!("`{text}` is not a moment"),
                    "rules may hold at certain times only",
                    "write it as `2026-11-21T03:00:00Z`, in quotes",
                );
            }
        }
        Some(question)
    }

    fn token(
        &self,
        place: &Place<'_>,
        written: &TestTokenSpec,
        findings: &mut Findings,
    ) -> Option<AskedToken> {
        match written {
            TestTokenSpec::Named(name) => {
                let token = self.tokens.get(name);
                if token.is_none() {
                    unknown_token(place, name, self.tokens.keys(), findings);
                }
                token.cloned()
            }
            TestTokenSpec::Token(fields) => token(place, fields, &self.tokens, self.context, findings),
        }
    }

    fn workload(&self, place: &Place<'_>, text: &str, findings: &mut Findings) -> Option<WorkloadId> {
        let mesh = self.context.mesh?;
        let id = syntax::qualified(text)
            .map(|(namespace, name)| WorkloadId { namespace: namespace.to_owned(), name: name.to_owned() });
        if let Some(id) = id.filter(|id| mesh.workloads.contains_key(id)) {
            return Some(id);
        }
        let known: Vec<String> = mesh.workloads.keys().map(WorkloadId::to_string).collect();
        findings.add(
            place,
            Code::UnknownReference,
            format!("there is no workload `{text}`"),
            "each workload has its own rules",
            match suggest::closest(text, known.iter().map(String::as_str)) {
                Some(close) => format!("did you mean `{close}`?"),
                None => format!("write one of {}", suggest::some_of(&known)),
            },
        );
        None
    }

    fn expectation(
        &self,
        place: &Place<'_>,
        spec: &ExpectationSpec,
        findings: &mut Findings,
    ) -> Option<Expectation> {
        let known = match &spec.reason {
            Some(code) => Some(reason(&place.key("reason"), code, findings)?),
            None => None,
        };
        self.check_rule(&place.key("rule"), spec.rule.as_deref(), findings);
        let shadow = spec.shadow.as_ref().map(|shadow| {
            let place = place.key("shadow");
            self.check_rule(&place.key("rule"), shadow.rule.as_deref(), findings);
            (outcome(shadow.decision), shadow.rule.clone())
        });
        Some(Expectation { outcome: outcome(spec.decision), reason: known, rule: spec.rule.clone(), shadow })
    }

    fn check_rule(&self, place: &Place<'_>, text: Option<&str>, findings: &mut Findings) {
        let Some(text) = text else { return };
        let ids = || self.rules.iter().map(|rule| rule.source.id.qualified_name());
        if ids().any(|id| id == text) {
            return;
        }
        let known: Vec<String> = ids().collect();
        findings.add(
            place,
            Code::UnknownReference,
            format!("there is no AccessRule `{text}`"),
            "a rule that does not exist decides nothing",
            match suggest::closest(text, known.iter().map(String::as_str)) {
                Some(close) => format!("did you mean `{close}`?"),
                None => "write `namespace/name` of a rule".to_owned(),
            },
        );
    }
}

fn outcome(spec: DecisionSpec) -> Outcome {
    match spec {
        DecisionSpec::Allow => Outcome::Allow,
        DecisionSpec::Deny => Outcome::Deny,
    }
}

/// Host (with port) and path (with query).
pub fn split_url(url: &str) -> Option<(String, String)> {
    let (scheme, rest) = url.split_once("://")?;
    if !matches!(scheme, "https" | "http" | "grpc" | "grpcs") {
        return None;
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end)?;
    // Credentials before the host are nothing that `:authority` has.
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let path = path.split('#').next().unwrap_or_default();
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    (!host.is_empty()).then(|| (host.to_owned(), path))
}

/// The object of an AccessRule, by `namespace/name`.
pub fn rule_object(rule: &str) -> ObjectId {
    let (namespace, name) = rule.split_once('/').unwrap_or(("", rule));
    ObjectId { kind: Kind::AccessRule, namespace: Some(namespace.to_owned()), name: name.to_owned() }
}
