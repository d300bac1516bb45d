//! `tidegate preflight`.

mod render;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;
use tidegate_compiler::WorkloadId;
use tidegate_compiler::explain::{AskedBody, Question};
use tidegate_engine::Outcome;

use super::asking::{self, Who, workload};
use super::folder::{self, Folder};
use super::paint::Style;
use super::{Ending, complain, print};
use crate::clock;
use crate::explain::persona::{Persona, personas};
use crate::explain::request::{self, Answer};
use crate::preflight::{By, Hints, Implied, NotUnderstood, Plan, read};

/// No specification is longer.
const MAX_INPUT_BYTES: u64 = 4 << 20;

/// Say what a launch or pipeline would be refused, before it runs
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate preflight launch.json --project acme --region europe-west4 --peer ci/runner --token-file token.txt
  tidegate preflight .gitlab-ci.yml --peer ci/runner --token gitlab:project_id=4711,ref_protected=true
  tidegate preflight run.yaml --as ci/release               # a Caller: its peer, with tokens as its forms demand
  tidegate preflight launch.json --as ci/release --worker-as data/orders-etl -o json

FILE is the body of a launch of Dataflow (flexTemplates:launch, templates:launch, templates, jobs) as JSON or YAML, a PipelineRun or
TaskRun of Tekton, a .gitlab-ci.yml, a file of command lines, or - for standard input. Of command lines curl, wget, `gcloud dataflow`,
`gcloud pubsub topics publish`, `gcloud storage cp`, `gsutil cp`, `bq load`, `bq query`, `tkn pipeline start`, and `kubectl create -f -` and
`kubectl apply -f -` with a here-document are understood. What is not is listed, and never guessed. Nothing is run, and nothing is
sent anywhere.

What workers do is asked about as --worker-as or --worker-peer says. Managed workers that call Google directly pass no filter.

Exit codes: 0 what was asked would pass; 1 a request would be refused, something was not understood or not asked and --strict is
given, or the rules do not compile; 2 the command line is wrong; 3 a file cannot be read, is nothing that is known, or does not say
enough to ask about any request.")]
pub(super) struct Arguments {
    /// The specification; - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Folder with rules: every *.yaml and *.yml below it
    #[arg(long, value_name = "DIR", env = "TIDEGATE_RULES", default_value = "rules")]
    rules: PathBuf,
    /// YAML or JSON file with values for ${env.name}
    #[arg(long, value_name = "FILE")]
    env: Option<PathBuf>,
    /// Where requests arrive [default: the one that the host is about, or the only guarded gateway]
    #[arg(long, value_name = "NAMESPACE/NAME")]
    workload: Option<String>,
    #[command(flatten)]
    who: Who,
    /// Runs it as this Caller: its peer, and tokens that say what it demands
    #[arg(long = "as", value_name = "CALLER")]
    caller: Option<String>,
    /// The workers, or the pods of a run, are this Caller
    #[arg(long, value_name = "CALLER", conflicts_with = "worker_peer")]
    worker_as: Option<String>,
    /// The workers are pods of this account
    #[arg(long, value_name = "NAMESPACE/ACCOUNT")]
    worker_peer: Option<String>,
    /// Project of a launch
    #[arg(long)]
    project: Option<String>,
    /// Region of a launch
    #[arg(long)]
    region: Option<String>,
    /// Template of a launch whose body does not name it
    #[arg(long, value_name = "gs://…")]
    template: Option<String>,
    /// Namespace of a run that does not say it
    #[arg(long)]
    namespace: Option<String>,
    /// Host of the Kubernetes API [default: kubernetes.default.svc]
    #[arg(long, value_name = "HOST")]
    kubernetes_host: Option<String>,
    /// Exit with 1 also where something was not understood, or not asked
    #[arg(long)]
    strict: bool,
    /// How it is written
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

/// What came of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    what: String,
    passed: usize,
    refused: usize,
    not_asked: usize,
    requests: Vec<RequestReport>,
    not_understood: Vec<NotUnderstood>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestReport {
    what: String,
    by: By,
    line: u32,
    method: String,
    url: String,
    names: Vec<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<Answer>,
    /// Why nothing was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_asked: Option<String>,
}

#[derive(Debug, Serialize)]
struct Name {
    role: String,
    name: String,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let text = input(&arguments.file)?;
    let hints = Hints {
        project: arguments.project.clone(),
        region: arguments.region.clone(),
        template: arguments.template.clone(),
        namespace: arguments.namespace.clone(),
        kubernetes_host: arguments.kubernetes_host.clone(),
    };
    let plan = read(&text, &hints).map_err(|why| anyhow!("`{}`: {why}", arguments.file.display()))?;
    if plan.requests.is_empty() && plan.not_understood.is_empty() {
        bail!("`{}`: it sends nothing that is known", arguments.file.display());
    }
    let opened = match folder::open(&arguments.rules, arguments.env.as_deref())? {
        Ok(opened) => opened,
        Err(ending) => return Ok(ending),
    };
    let report = Asker { opened: &opened, arguments }.report(plan)?;
    match arguments.output {
        Output::Json => folder::print_json(&report)?,
        Output::Text => print(&render::report(&report, &arguments.rules, Style::of_stdout()))?,
    }
    if report.passed + report.refused == 0 {
        complain("no request could be asked about");
        return Ok(Ending::Failed);
    }
    let is_open = report.not_asked > 0 || !report.not_understood.is_empty();
    Ok(if report.refused > 0 || (arguments.strict && is_open) { Ending::Refused } else { Ending::Done })
}

fn input(file: &Path) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let shown = file.display();
    if file == Path::new("-") {
        if std::io::stdin().is_terminal() {
            complain("paste a launch or command lines, then press Ctrl-D on a line of its own");
        }
        let stdin = std::io::stdin().lock();
        stdin.take(MAX_INPUT_BYTES + 1).read_to_end(&mut bytes).context("cannot read standard input")?;
    } else {
        let opened = std::fs::File::open(file).with_context(|| format!("cannot read `{shown}`"))?;
        opened
            .take(MAX_INPUT_BYTES + 1)
            .read_to_end(&mut bytes)
            .with_context(|| format!("cannot read `{shown}`"))?;
    }
    if bytes.len() as u64 > MAX_INPUT_BYTES {
        bail!("`{shown}` has more than {MAX_INPUT_BYTES} bytes");
    }
    String::from_utf8(bytes).map_err(|_| anyhow!("`{shown}` is not UTF-8"))
}

struct Asker<'a> {
    opened: &'a Folder,
    arguments: &'a Arguments,
}

/// What is asked about a request, once per form of its sender; or why nothing is.
enum Asked {
    Questions(Vec<Question>, Vec<Vec<String>>),
    Not(String),
}

// === impl Asker ===

impl Asker<'_> {
    fn report(&self, plan: Plan) -> anyhow::Result<Report> {
        let mut requests = Vec::new();
        let mut asked_at = BTreeSet::new();
        for implied in &plan.requests {
            let (answer, not_asked) = match self.questions(implied)? {
                Asked::Not(why) => (None, Some(why)),
                Asked::Questions(questions, notes) => {
                    asked_at.extend(questions.first().map(|question| question.workload.clone()));
                    (Some(self.best(&questions, &notes)?), None)
                }
            };
            requests.push(RequestReport {
                what: implied.what.clone(),
                by: implied.by.clone(),
                line: implied.line,
                method: implied.method.clone(),
                url: implied.url.clone(),
                names: implied
                    .names
                    .iter()
                    .map(|(role, name)| Name { role: role.clone(), name: name.clone() })
                    .collect(),
                answer,
                not_asked,
            });
        }
        let count = |outcome: Outcome| {
            let answers = requests.iter().filter_map(|request| request.answer.as_ref());
            answers.filter(|answer| answer.decided.decision == outcome).count()
        };
        Ok(Report {
            passed: count(Outcome::Allow),
            refused: count(Outcome::Deny),
            not_asked: requests.iter().filter(|request| request.not_asked.is_some()).count(),
            notes: self.audiences(&plan, &asked_at),
            what: plan.what,
            requests,
            not_understood: plan.not_understood,
        })
    }

    /// The first form that is allowed, else the first.
    fn best(&self, questions: &[Question], notes: &[Vec<String>]) -> anyhow::Result<Answer> {
        let mut first = None;
        for (question, notes) in questions.iter().zip(notes) {
            let answer = request::answer(&self.opened.compiled, question, clock::now());
            let mut answer = answer.map_err(|error| anyhow!(crate::ruletest::words(&error)))?;
            answer.notes.splice(0..0, notes.iter().cloned());
            if answer.decided.decision == Outcome::Allow {
                return Ok(answer);
            }
            first.get_or_insert(answer);
        }
        first.ok_or_else(|| anyhow!("the caller has no form"))
    }

    fn questions(&self, implied: &Implied) -> anyhow::Result<Asked> {
        let (host, path) = match request::place_of(&implied.url) {
            Ok(place) => place,
            Err(why) => return Ok(Asked::Not(why)),
        };
        let workload = match &self.arguments.workload {
            Some(text) => workload(text)?,
            None => match self.workload_of(host.as_deref()) {
                Ok(workload) => workload,
                Err(why) => return Ok(Asked::Not(why)),
            },
        };
        let body = match (&implied.body, implied.unknown_body) {
            (Some(body), _) => AskedBody::Json(body.to_string()),
            (None, true) => AskedBody::Unknown,
            (None, false) => AskedBody::None,
        };
        let question = Question {
            method: implied.method.clone(),
            host,
            path,
            headers: implied.headers.clone(),
            body,
            ..request::blank(workload)
        };
        match &implied.by {
            By::Runner => self.as_runner(question),
            By::Workers | By::Pod(_) => self.as_workers(question, &implied.by),
        }
    }

    /// As `explain` finds it; for hosts outside of the mesh the only guarded gateway.
    fn workload_of(&self, host: Option<&str>) -> Result<WorkloadId, String> {
        let compiled = &self.opened.compiled;
        request::workload_of(compiled, host).or_else(|why| {
            let is_gateway =
                |id: &WorkloadId| compiled.mesh.workloads.get(id).is_some_and(|known| known.gateway);
            let mut gateways = compiled
                .workloads
                .iter()
                .filter(|(id, policy)| policy.covered && is_gateway(id))
                .map(|(id, _)| id);
            match (gateways.next(), gateways.next()) {
                (Some(only), None) => Ok(only.clone()),
                _ => Err(why),
            }
        })
    }

    fn as_runner(&self, question: Question) -> anyhow::Result<Asked> {
        let who = &self.arguments.who;
        if self.arguments.caller.is_none() && !who.is_somebody() {
            bail!("say who runs it: --peer NAMESPACE/ACCOUNT and --token-file FILE, or --as CALLER");
        }
        let (mut questions, notes) = self.in_form(question, self.arguments.caller.as_deref())?;
        for question in &mut questions {
            who.add_to(question, &self.opened.compiled)?;
        }
        Ok(Asked::Questions(questions, notes))
    }

    fn as_workers(&self, question: Question, by: &By) -> anyhow::Result<Asked> {
        if let Some(caller) = &self.arguments.worker_as {
            let (questions, notes) = self.in_form(question, Some(caller))?;
            return Ok(Asked::Questions(questions, notes));
        }
        let peer = match (&self.arguments.worker_peer, by) {
            (Some(text), _) => asking::peer(text)?,
            (None, By::Pod(peer)) => peer.clone(),
            (None, _) => {
                return Ok(Asked::Not(
                    "who the workers are is not said: give --worker-as CALLER or --worker-peer".to_owned(),
                ));
            }
        };
        Ok(Asked::Questions(vec![Question { peer: Some(peer), ..question }], vec![Vec::new()]))
    }

    /// The question in every form of a Caller.
    fn in_form(
        &self,
        question: Question,
        caller: Option<&str>,
    ) -> anyhow::Result<(Vec<Question>, Vec<Vec<String>>)> {
        let Some(caller) = caller else { return Ok((vec![question], vec![Vec::new()])) };
        let Folder { files, environment, .. } = self.opened;
        let forms: Vec<Persona> =
            personas(files, environment, &question.workload, caller).map_err(anyhow::Error::msg)?;
        Ok(forms
            .into_iter()
            .map(|form| {
                let mut question = question.clone();
                form.add_to(&mut question);
                (question, form.notes)
            })
            .unzip())
    }

    /// Tokens that a pipeline asks for, of which none is meant for the places that it calls.
    fn audiences(&self, plan: &Plan, asked_at: &BTreeSet<WorkloadId>) -> Vec<String> {
        let policies = asked_at.iter().filter_map(|id| self.opened.compiled.workloads.get(id));
        let guards = policies.flat_map(|policy| &policy.model.guards);
        let accepted: BTreeSet<&String> =
            guards.filter_map(|guard| guard.audiences.as_ref()).flatten().collect();
        let fits = plan.audiences.iter().any(|(audience, _)| accepted.contains(audience));
        if plan.audiences.is_empty() || accepted.is_empty() || fits {
            return Vec::new();
        }
        let wanted: Vec<String> =
            plan.audiences.iter().map(|(audience, line)| format!("`{audience}` (line {line})")).collect();
        let accepted: Vec<&str> = accepted.into_iter().map(String::as_str).collect();
        vec![format!(
            "tokens are asked for whose audience is {}; the Guards of what is called accept `{}`: such a token is refused with \
             token_wrong_audience",
            wanted.join(", "),
            accepted.join("`, `")
        )]
    }
}
