//! Requests that a launch or a pipeline implies, read off its specification before it runs.
//!
//! INVARIANT: nothing is guessed. What would be sent is known from the text, or is listed as not understood, with the
//! reason. Nothing is run, fetched or expanded but variables that the text itself sets.

mod command;
mod dataflow;
mod gitlab;
mod shell;
mod tekton;

use serde::Serialize;
use serde_json::Value;
use tidegate_compiler::explain::MeshPeer;

use crate::explain::curl;

/// What a text implies.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// What it was taken for.
    pub what: String,
    /// Requests, in the order of the text.
    pub requests: Vec<Implied>,
    /// What may send requests as well, and cannot be told.
    pub not_understood: Vec<NotUnderstood>,
    /// For whom the tokens are meant that it asks for: audience and line.
    pub audiences: Vec<(String, u32)>,
}

/// A request that would be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Implied {
    /// In words: `launch a flexible template`.
    pub what: String,
    /// Who sends it.
    pub by: By,
    /// As sent.
    pub method: String,
    /// `https://host/path?query`, or a path alone.
    pub url: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// JSON; `None`: there is none.
    pub body: Option<Value>,
    /// There is a body, and what it says is not known.
    pub unknown_body: bool,
    /// Resources and accounts that it names, by role.
    pub names: Vec<(String, String)>,
    /// Where the text says it, counted from 1; 0: all of it.
    pub line: u32,
}

/// Who sends a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum By {
    /// Whoever runs the launch or pipeline.
    Runner,
    /// The workers of the job that is launched.
    Workers,
    /// A pod of this account.
    #[serde(serialize_with = "shown")]
    Pod(MeshPeer),
}

/// Something that may send requests and is not understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotUnderstood {
    /// Counted from 1; 0: all of it.
    pub line: u32,
    /// As written, shortened.
    pub text: String,
    /// Why.
    pub why: String,
}

/// What flags say beside the text.
#[derive(Debug, Clone, Default)]
pub struct Hints {
    /// Project of a launch.
    pub project: Option<String>,
    /// Region of a launch.
    pub region: Option<String>,
    /// Template of a classic launch, which its body does not name.
    pub template: Option<String>,
    /// Namespace of a run that does not say it.
    pub namespace: Option<String>,
    /// Host of the Kubernetes API.
    pub kubernetes_host: Option<String>,
}

fn shown<S: serde::Serializer>(peer: &MeshPeer, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{}/{}", peer.namespace, peer.service_account))
}

/// Reads a text.
///
/// # Errors
/// What it lacks, or that it is nothing that is known.
pub fn read(text: &str, hints: &Hints) -> Result<Plan, String> {
    let mut plan = Plan::default();
    if is_commands(text) {
        plan.what = "command lines".to_owned();
        let mut commands = command::Commands::new(&mut plan, By::Runner, hints);
        commands.script(text, 1);
        commands.finish();
        return Ok(plan);
    }
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)
        .map_err(|error| format!("it is no curl command, and neither YAML nor JSON: {error}"))?;
    let documents: Vec<Value> = documents.into_iter().filter(|document| !document.is_null()).collect();
    if documents.is_empty() {
        return Err("there is nothing in it".to_owned());
    }
    // A file of GitLab may begin with what its inputs are.
    let is_header = |document: &Value| {
        document.as_object().is_some_and(|members| members.len() == 1 && members.contains_key("spec"))
    };
    for document in documents.iter().filter(|document| documents.len() == 1 || !is_header(document)) {
        one(document, text, hints, &mut plan)?;
    }
    Ok(plan)
}

fn one(document: &Value, text: &str, hints: &Hints, plan: &mut Plan) -> Result<(), String> {
    let Value::Object(members) = document else {
        return Err("it is no launch and no pipeline: a mapping is expected".to_owned());
    };
    let member = |name: &str| members.get(name).and_then(Value::as_str);
    match (member("apiVersion"), member("kind")) {
        (Some(version), Some(kind)) if version.starts_with("tekton.dev/") => {
            tekton::read(document, version, kind, text, hints, plan)
        }
        (Some(version), Some(kind)) => Err(format!(
            "`{kind}` of `{version}` is no launch and no pipeline; PipelineRun and TaskRun of Tekton are"
        )),
        _ if dataflow::is_launch(members) => dataflow::read(members, hints, plan),
        _ if gitlab::is_pipeline(members) => {
            gitlab::read(members, text, hints, plan);
            Ok(())
        }
        _ => Err("it is no launch and no pipeline: known are bodies of Dataflow's launches (flexTemplates:launch, templates:launch, \
                  templates, jobs), PipelineRuns and TaskRuns of Tekton, .gitlab-ci.yml, and files of curl commands"
            .to_owned()),
    }
}

/// The first line that is neither empty nor a comment is a command.
fn is_commands(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.next().is_some_and(|line| {
        let first = line.strip_prefix("$ ").unwrap_or(line).split_whitespace().next().unwrap_or_default();
        curl::is_curl(line) || command::CLIENTS.contains(&first)
    })
}

/// The line from `from` on that something is written in, counted from 1; 0: not found. Folded lines begin like it.
fn line_of(text: &str, written: &str, from: u32) -> u32 {
    let first = written.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let mut words: Vec<&str> = first.split(' ').collect();
    while !words.is_empty() {
        let begin = words.join(" ");
        let from = usize::try_from(from.saturating_sub(1)).unwrap_or(0);
        let mut lines = text.lines().enumerate().skip(from);
        if let Some((at, _)) = lines.find(|(_, line)| !begin.is_empty() && line.contains(&begin)) {
            return u32::try_from(at + 1).unwrap_or(0);
        }
        words.pop();
    }
    0
}

/// A bucket and an object of `gs://bucket/object`.
fn object(text: &str) -> Option<(&str, &str)> {
    let (bucket, object) = text.strip_prefix("gs://")?.split_once('/')?;
    (!bucket.is_empty() && !object.is_empty()).then_some((bucket, object))
}

/// RFC 3986 §2.3: what is not unreserved is encoded.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte))
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

// === impl Implied ===

impl Implied {
    fn new(what: &str, by: By, method: &str, url: String) -> Self {
        Self {
            what: what.to_owned(),
            by,
            method: method.to_owned(),
            url,
            headers: Vec::new(),
            body: None,
            unknown_body: false,
            names: Vec::new(),
            line: 0,
        }
    }

    fn with(mut self, body: Value) -> Self {
        self.headers.push(("content-type".to_owned(), "application/json".to_owned()));
        self.body = Some(body);
        self
    }

    fn naming(mut self, role: &str, name: &str) -> Self {
        self.names.push((role.to_owned(), name.to_owned()));
        self
    }

    fn at(mut self, line: u32) -> Self {
        self.line = line;
        self
    }
}

// === impl Plan ===

impl Plan {
    fn not_understood(&mut self, line: u32, text: &str, why: impl Into<String>) {
        const MOST: usize = 80;
        let mut shown: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if shown.chars().count() > MOST {
            shown = shown.chars().take(MOST - 1).chain(['…']).collect();
        }
        self.not_understood.push(NotUnderstood { line, text: shown, why: why.into() });
    }
}

#[cfg(test)]
mod tests;
