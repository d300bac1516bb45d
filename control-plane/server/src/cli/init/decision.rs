//! A Shadow rule that would allow what was refused.
//!
//! INVARIANT: nothing is written that does not do what it is for: rule and test are compiled with the folder's rules and
//! decided by the engine before a file is made.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tidegate_compiler::explain::{AskedToken, MeshPeer, Question};
use tidegate_compiler::spec::ClaimJson;
use tidegate_compiler::{Compiled, Inputs, SourceFile, check_tests};
use tidegate_engine::{Outcome, Reason};

use super::token;
use crate::cli::asking::{self, Who};
use crate::cli::folder::Folder;
use crate::clock;
use crate::explain::curl;
use crate::explain::reasons::advice;
use crate::explain::refusal::{NoRefusal, Refusal, recorded_request};
use crate::explain::request::{self, add_curl};
use crate::rules::Files;
use crate::ruletest;
use crate::serve::compile_files;

/// What somebody was told, and what is known besides.
pub(super) struct Given<'a> {
    /// The error body, or a record of the decision, with whatever is around it.
    pub told: &'a str,
    /// A `curl` command line.
    pub request: Option<&'a str>,
    /// Method and URL, where no command line says them.
    pub method: Option<&'a str>,
    pub url: Option<&'a str>,
    pub workload: Option<&'a str>,
    pub who: &'a Who,
}

/// Files to write, and what to say about them.
#[derive(Debug)]
pub(super) struct Draft {
    pub files: Vec<(String, String)>,
    pub notes: Vec<String>,
}

/// Rule and test. `Err`: why there are none, and what else to give.
pub(super) fn draft(
    given: &Given<'_>,
    opened: &Folder,
    folder: &Path,
) -> anyhow::Result<Result<Draft, String>> {
    let refusal = match Refusal::find(given.told) {
        Ok(refusal) => refusal,
        Err(NoRefusal::UnknownCode(code)) => {
            return Ok(Err(format!(
                "the reason `{code}` is not one of this version; it may be a newer filter's"
            )));
        }
        Err(NoRefusal::ByIstio) => {
            return Ok(Err(
                "this is a refusal of Istio's or Envoy's own rules; no rule of Tidegate changes it"
                    .to_owned(),
            ));
        }
        Err(NoRefusal::Nothing) => {
            return Ok(Err(
                "there is no refusal of Tidegate in it; its error bodies have a member `reason`".to_owned()
            ));
        }
    };
    if refusal.reason != Reason::NoAllowMatched {
        return Ok(Err(no_rule_helps(&refusal)));
    }
    let mut notes = Vec::new();
    let question = match question(given, opened, &mut notes)? {
        Ok(question) => question,
        Err(why) => return Ok(Err(why)),
    };
    let compiled = &opened.compiled;
    let answer = request::answer(compiled, &question, clock::now())
        .map_err(|error| anyhow::anyhow!(ruletest::words(&error)))?;
    let now = &answer.decided;
    if now.decision == Outcome::Allow {
        return Ok(Err(format!(
            "the rules of `{}` do not refuse this request: {} ({}). It is another one, or the rules have changed since",
            folder.display(),
            now.reason,
            now.sentence
        )));
    }
    if now.reason != Reason::NoAllowMatched.code() {
        return Ok(Err(format!(
            "the error says `no_allow_matched`, but the rules of `{}` refuse what is described here with `{}` ({}): it is not the \
             request that was refused; say who sent it with --peer, and what its token says with --token or --token-file",
            folder.display(),
            now.reason,
            now.sentence
        )));
    }
    let owner = refusal.owner.clone().or_else(|| answer.nearest.as_ref().map(|near| near.owner.clone()));
    let contact =
        refusal.contact.clone().or_else(|| answer.nearest.as_ref().map(|near| near.contact.clone()));
    let wanted = Wanted { refusal: &refusal, question: &question, compiled, owner, contact };
    Ok(wanted
        .written(opened)
        .and_then(|files| proven(&wanted, files, opened))
        .map(|files| Draft { files, notes }))
}

/// For refusals that another Allow would not change.
fn no_rule_helps(refusal: &Refusal) -> String {
    let advice = advice(refusal.reason);
    let by = refusal.rule.as_ref().map(|rule| format!(" by `{rule}`")).unwrap_or_default();
    let whom = match (&refusal.owner, &refusal.contact) {
        (Some(owner), Some(contact)) => format!(" Ask {owner} ({contact})."),
        (Some(owner), None) => format!(" Ask {owner}."),
        _ => String::new(),
    };
    format!(
        "no Allow rule changes a refusal with `{}`{by}: {}. To do: {}.{whom}",
        advice.reason, advice.meaning, advice.fix
    )
}

/// The request that was refused. `Err`: what is missing.
fn question(
    given: &Given<'_>,
    opened: &Folder,
    notes: &mut Vec<String>,
) -> anyhow::Result<Result<Question, String>> {
    let compiled = &opened.compiled;
    let curl_text = given.request.or_else(|| command_line(given.told));
    let recorded = recorded_request(given.told);
    let mut question = match (curl_text, given.url, &recorded) {
        (Some(text), None, _) => {
            let curl = match curl::parse(text) {
                Ok(curl) => curl,
                Err(why) => return Ok(Err(format!("the curl command cannot be read: {why}"))),
            };
            let host = curl.headers.iter().find(|(name, _)| name == "host").map(|(_, value)| value.clone());
            let mut question = match place(given, &curl.url, compiled)? {
                Ok(question) => question,
                Err(why) => return Ok(Err(why)),
            };
            question.host = host.or(question.host);
            add_curl(&mut question, curl, compiled, notes);
            question
        }
        (_, Some(url), _) => match place(given, url, compiled)? {
            Ok(question) => {
                Question { method: given.method.unwrap_or("GET").to_ascii_uppercase(), ..question }
            }
            Err(why) => return Ok(Err(why)),
        },
        (None, None, Some(record)) => {
            let question = record.question().map_err(anyhow::Error::msg)?;
            // A rule for one moment is none.
            Question { time: None, ..question }
        }
        (None, None, None) => {
            return Ok(Err("an error body says why, and not what was asked. Give the request as well: --request FILE with the curl \
                 command line, or --method METHOD --url URL; and who sent it: --peer NAMESPACE/ACCOUNT, --token-file FILE"
                .to_owned()));
        }
    };
    given.who.add_to(&mut question, compiled)?;
    let said: Vec<&String> = recorded.iter().flat_map(|record| &record.tokens).collect();
    if let Some(issuer) =
        said.iter().find(|issuer| !question.tokens.iter().any(|token| token.issuer == ***issuer))
    {
        return Ok(Err(format!(
            "the caller had a token of `{issuer}`, and what it said is not recorded: give it with --token-file FILE, or say it with \
             --token {issuer}:CLAIM=VALUE"
        )));
    }
    if question.peer.is_none() && question.tokens.is_empty() {
        return Ok(Err(
            "nothing says who sent the request, and a rule has to name somebody: give --peer NAMESPACE/ACCOUNT, --token-file FILE, or \
             --token ISSUER:CLAIM=VALUE"
                .to_owned(),
        ));
    }
    Ok(Ok(question))
}

/// A command line that was pasted together with what it printed.
fn command_line(told: &str) -> Option<&str> {
    let mut from = 0;
    for line in told.split_inclusive('\n') {
        let rest = told.get(from..)?;
        if curl::is_curl(line) {
            return Some(rest);
        }
        from += line.len();
    }
    None
}

fn place(given: &Given<'_>, url: &str, compiled: &Compiled) -> anyhow::Result<Result<Question, String>> {
    let (host, path) = match request::place_of(url) {
        Ok(place) => place,
        Err(why) => return Ok(Err(why)),
    };
    let workload = match given.workload {
        Some(text) => asking::workload(text)?,
        None => match request::workload_of(compiled, host.as_deref()) {
            Ok(workload) => workload,
            Err(why) => return Ok(Err(why)),
        },
    };
    Ok(Ok(Question { host, path, ..request::blank(workload) }))
}

/// Everything that the files are made of.
struct Wanted<'a> {
    refusal: &'a Refusal,
    question: &'a Question,
    compiled: &'a Compiled,
    owner: Option<String>,
    contact: Option<String>,
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

// === impl Wanted ===

impl Wanted<'_> {
    /// What rule, test and files are called.
    fn name(&self) -> String {
        let id = self.refusal.decision.as_deref().unwrap_or("decision").to_ascii_lowercase();
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let id: String = id.chars().filter(|c| fits(*c)).take(40).collect();
        format!("from-{}", id.trim_matches('-'))
    }

    fn rule_id(&self) -> String {
        format!("{}/{}", self.question.workload.namespace, self.name())
    }

    fn written(&self, opened: &Folder) -> Result<Vec<(String, String)>, String> {
        let name = self.name();
        let mut files = vec![(format!("{name}.yaml"), self.rule()?)];
        let (_, compiled) = compiled_with(opened, &files)?;
        files.push((format!("{name}.test.yaml"), self.test(&read_by(self.question, &compiled))));
        Ok(files)
    }

    fn rule(&self) -> Result<String, String> {
        let Question { workload, method, .. } = self.question;
        let known = self.compiled.mesh.workloads.get(workload);
        let known = known.ok_or_else(|| format!("there is no workload `{workload}`"))?;
        let target = match known.gateway {
            true => format!("{{gateway: {workload}}}"),
            false if known.labels.is_empty() => {
                return Err(format!(
                    "the workload `{workload}` has no labels that a rule could select it by; write them into the Mesh"
                ));
            }
            false => {
                let labels =
                    known.labels.iter().map(|(name, value)| format!("{}: {}", quoted(name), quoted(value)));
                format!("{{selector: {{matchLabels: {{{}}}}}}}", labels.collect::<Vec<_>>().join(", "))
            }
        };
        let who = match &self.question.peer {
            Some(MeshPeer { trust_domain, namespace, service_account }) => {
                let domain = trust_domain.iter().filter(|domain| **domain != self.compiled.mesh.trust_domain);
                let domain: String =
                    domain.map(|domain| format!(", trustDomain: {}", quoted(domain))).collect();
                format!(
                    "peer: {{namespace: {namespace}, serviceAccounts: [{}]{domain}}}",
                    quoted(service_account)
                )
            }
            None if known.gateway => format!("tokenOnly: {{via: [{workload}]}}"),
            None => {
                return Err(format!(
                    "nobody is at the other end of the connection to `{workload}`, which is no gateway: say with --peer who it was (of what \
                     came through a gateway, the gateway's account)"
                ));
            }
        };
        let tokens: Vec<String> =
            self.question.tokens.iter().map(|token| self.demand(token)).collect::<Result<_, _>>()?;
        let tokens =
            if tokens.is_empty() { String::new() } else { format!("\n    tokens: [{}]", tokens.join(", ")) };
        let (path, _) = self.question.path.split_once('?').unwrap_or((&self.question.path, ""));
        if path.contains(['{', '}', '*']) {
            return Err(format!(
                "the path `{path}` has characters that mean something in templates; write the rule by hand"
            ));
        }
        let is_grpc = self
            .question
            .headers
            .iter()
            .any(|(name, value)| name == "content-type" && value.starts_with("application/grpc"));
        let operation = match path.trim_start_matches('/').split_once('/') {
            Some((service, call)) if is_grpc => {
                format!("grpc: {{services: [{}], methods: [{}]}}", quoted(service), quoted(call))
            }
            _ => format!("http: {{methods: [{method}], paths: [{}]}}", quoted(path)),
        };
        let decision = self.refusal.decision.as_ref().map(|id| format!(" of {id}")).unwrap_or_default();
        let contact = self.contact.iter().filter(|contact| !contact.is_empty());
        let contact: String = contact.map(|contact| format!("  contact: {}\n", quoted(contact))).collect();
        Ok(format!(
            "\
# Made of the refusal{decision}: it would allow exactly that request. Write `{{id}}` for what differs from one request to the
# next, and Enforce when its owner agrees and its test and its reports are as you want them.
apiVersion: tidegate.dev/v1alpha1
kind: AccessRule
metadata: {{name: {}, namespace: {}}}
spec:
  owner: {}
{contact}  target: {target}
  effect: Allow
  mode: Shadow
  from:
  - {who}{tokens}
  to:
  - {operation}
",
            self.name(),
            workload.namespace,
            quoted(self.owner.as_deref().unwrap_or("FILL-IN")),
        ))
    }

    fn demand(&self, token: &AskedToken) -> Result<String, String> {
        let issuer = self.compiled.issuers.iter().find(|issuer| issuer.name == token.issuer);
        let issuer = issuer.ok_or_else(|| format!("there is no TrustedIssuer `{}`", token.issuer))?;
        token::demand_of(issuer.pack, &issuer.name, &token.claims).ok_or_else(|| {
            format!(
                "what is known of the token of `{0}` does not tell its owner from others: give the token itself with --token-file FILE, or \
                 say who it is about with --token {0}:sub=…",
                issuer.name
            )
        })
    }

    fn test(&self, claims: &BTreeMap<String, String>) -> String {
        let Question { workload, peer, method, host, path, headers, .. } = self.question;
        let name = self.name();
        let peer = match peer {
            None => "none".to_owned(),
            Some(MeshPeer { trust_domain: Some(domain), namespace, service_account }) => {
                quoted(&format!("spiffe://{domain}/ns/{namespace}/sa/{service_account}"))
            }
            Some(MeshPeer { namespace, service_account, .. }) => format!("{namespace}/{service_account}"),
        };
        let host = host.as_ref().map(|host| format!(", host: {}", quoted(host))).unwrap_or_default();
        let is_grpc = |(name, value): &(String, String)| {
            name == "content-type" && value.starts_with("application/grpc")
        };
        let headers =
            if headers.iter().any(is_grpc) { ", headers: {content-type: application/grpc}" } else { "" };
        let tokens: String = claims
            .iter()
            .map(|(issuer, claims)| format!("    {issuer}: {{issuer: {issuer}, claims: {claims}}}\n"))
            .collect();
        let (tokens, sent) = match claims.is_empty() {
            true => (String::new(), String::new()),
            false => {
                let names: Vec<&str> = claims.keys().map(String::as_str).collect();
                (format!("  tokens:\n{tokens}"), format!(", tokens: [{}]", names.join(", ")))
            }
        };
        let id = self.refusal.decision.as_deref().unwrap_or("the refusal");
        let other = match &self.question.peer {
            Some(peer) => format!("{{peer: {}/somebody-else}}", peer.namespace),
            None => "{tokens: []}".to_owned(),
        };
        let other_name =
            if self.question.peer.is_some() { "another account" } else { "nobody without the token" };
        format!(
            "\
apiVersion: tidegate.dev/v1alpha1
kind: RuleTest
metadata: {{name: {name}}}
spec:
  workload: {workload}
  defaults: {{peer: {peer}, method: {method}{host}, path: {}{headers}{sent}}}
{tokens}  tests:
  # Refused still, and what the rule would do is in `shadow`. When it is enforced, expect Allow.
  - name: the request of {id} would pass
    expect: {{decision: Deny, shadow: {{decision: Allow, rule: {}}}}}
  - name: {other_name} would not
    request: {other}
    expect: Deny
",
            quoted(path),
            self.rule_id(),
        )
    }
}

/// Compiles the folder's files and these.
fn compiled_with(opened: &Folder, files: &[(String, String)]) -> Result<(Files, Compiled), String> {
    let mut all = opened.files.clone();
    all.extend(files.iter().cloned());
    let compilation = compile_files(&all, &opened.environment);
    let said = || compilation.diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    match &compilation.output {
        Some(compiled) => Ok((all, compiled.clone())),
        None => Err(format!(
            "a rule for this request does not compile beside the others; write it by hand:\n{}",
            said()
        )),
    }
}

/// By issuer: those claims of its token that rules read, as YAML on one line. No others: tokens say much that is nobody's
/// business.
fn read_by(question: &Question, compiled: &Compiled) -> BTreeMap<String, String> {
    let model = compiled.workloads.get(&question.workload).map(|workload| &workload.model);
    let issuers = || model.into_iter().flat_map(|model| &model.issuers);
    let claims_of = |token: &AskedToken| {
        let slots = issuers().filter(|issuer| issuer.name == token.issuer).flat_map(|issuer| &issuer.slots);
        let names: BTreeSet<&String> = slots.filter_map(|path| path.first()).collect();
        let known = token.claims.iter().filter(|(name, _)| names.contains(name));
        let mut json = String::new();
        ClaimJson::Map(known.map(|(name, value)| (name.clone(), value.clone())).collect()).write(&mut json);
        (token.issuer.clone(), json)
    };
    question.tokens.iter().map(claims_of).collect()
}

/// Nothing else may come of it than what is wanted.
fn proven(
    wanted: &Wanted<'_>,
    files: Vec<(String, String)>,
    opened: &Folder,
) -> Result<Vec<(String, String)>, String> {
    let (all, compiled) = compiled_with(opened, &files)?;
    let sources: Vec<SourceFile> =
        all.iter().map(|(path, text)| SourceFile { path: path.clone(), text: text.clone() }).collect();
    let mut tests =
        check_tests(&Inputs { sources: &sources, env: opened.environment.clone(), now: None }, &compiled);
    let name = wanted.name();
    tests.tests.retain(|test| test.suite == name);
    let report = ruletest::run(&compiled, &tests, clock::now());
    if !tests.diagnostics.is_empty() || report.failed > 0 || report.passed != 2 {
        let failed = report.tests.iter().filter(|test| !test.passed);
        let told: Vec<String> = failed
            .map(|test| match (&test.actual, &test.error) {
                (Some(actual), _) => format!("\"{}\": {} ({})", test.name, actual.reason, actual.sentence),
                (None, error) => format!("\"{}\": {}", test.name, error.clone().unwrap_or_default()),
            })
            .chain(tests.diagnostics.iter().map(ToString::to_string))
            .collect();
        return Err(format!(
            "a rule that names only caller, method and path does not let exactly this request pass, so nothing was written: {}",
            told.join("; ")
        ));
    }
    Ok(files)
}
