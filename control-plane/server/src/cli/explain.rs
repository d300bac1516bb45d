//! `tidegate explain`.

mod render;
#[cfg(test)]
mod tests;

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::{Args, ValueEnum};
use tidegate_compiler::explain::{AskedBody, Question};
use tidegate_compiler::{Compiled, RuleTests};

use super::asking::{Who, workload};
use super::folder::{self, Folder};
use super::paint::Style;
use super::running::{AdminTls, DEFAULT_ADMIN};
use super::{Ending, complain, decisions, print};
use crate::clock;
use crate::decisions::read::is_id;
use crate::explain::cloud::{self, CloudRefusal};
use crate::explain::curl;
use crate::explain::reasons::advice;
use crate::explain::refusal::{NoRefusal, Refusal, recorded_request};
use crate::explain::request;
#[cfg(test)]
use crate::explain::request::Answer;
use crate::explain::request::RequestReport;

/// No error body or command line is longer.
const MAX_INPUT_BYTES: u64 = 1 << 20;
/// Where rules are if nobody says it.
const DEFAULT_RULES: &str = "rules";

/// Say why a request is allowed or refused, what the nearest rule lacks, and whose turn it is
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate explain 7Q4K-M2XD-0001                           # a decision, by the id in the caller's error
  tidegate explain POST https://orders.sales.example/v1/orders/7 --peer etl/orders-worker
  tidegate explain POST /v1/migrations --workload sales/orders-api --peer ci/runner \\
      --token gitlab:project_id=4711,ref_protected=true
  tidegate explain rules/orders.test.yaml:14                # a test, by its line
  tidegate explain rules/orders.test.yaml:14 --token gitlab:ref_protected=false
  pbpaste | tidegate explain -                              # a curl command line, or an error body
  tidegate explain - --rules rules < decision.json          # what `tidegate explain -o json` wrote, decided again
  tidegate explain token_wrong_audience                     # a reason code

What was decided is asked of the control plane at --admin, which knows it within seconds. Everything else asks nobody:

An error body is the problem document of an HTTP refusal or the message of a gRPC error, with whatever is around it; rules
are not needed for that. Of a curl command line tokens are read, never shown, and their signatures are not checked: for
that use `tidegate token explain`. A refusal of Google's own is told apart: then it names the permission that is missing.

Exit codes: 0 it was explained, and the request passes or nothing was asked about one; 1 the request would be refused, or the
rules do not compile; 2 the command line is wrong; 3 a file cannot be read, what was given cannot be understood, or the control
plane does not answer or does not know the id.")]
pub(super) struct Arguments {
    /// The id of a decision, METHOD URL, a URL, a test FILE:LINE, a reason code, or - for standard input [default: -]
    #[arg(value_name = "WHAT", num_args = 0..=2)]
    what: Vec<String>,
    /// Folder with rules: every *.yaml and *.yml below it [default: rules, if it is there]
    #[arg(long, value_name = "DIR", env = "TIDEGATE_RULES")]
    rules: Option<PathBuf>,
    /// YAML or JSON file with values for ${env.name}
    #[arg(long, value_name = "FILE")]
    env: Option<PathBuf>,
    /// Where the request arrives [default: the one that the URL's host is about]
    #[arg(long, value_name = "NAMESPACE/NAME")]
    workload: Option<String>,
    #[command(flatten)]
    who: Who,
    /// A header; more than once for several
    #[arg(short = 'H', long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// A JSON body
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
    /// The workload's port [default: the Guard's first]
    #[arg(long)]
    port: Option<u16>,
    /// Where the control plane is asked about the id of a decision
    #[arg(long, value_name = "URL", default_value = DEFAULT_ADMIN)]
    admin: String,
    #[command(flatten)]
    tls: AdminTls,
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

/// What is to be explained.
enum Subject {
    Refusal(Refusal),
    /// Somebody else's refusal.
    Cloud(CloudRefusal),
    Request {
        method: String,
        url: String,
    },
    Curl(curl::CurlRequest),
    Test {
        file: String,
        line: u32,
    },
    /// What was decided about a request, and the request.
    Record(Refusal, Box<RequestReport>),
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    if let [id] = arguments.what.as_slice()
        && is_id(id)
    {
        return decisions::explain(id, &arguments.admin, &arguments.tls, arguments.output == Output::Json);
    }
    let subject = subject(&arguments.what)?;
    let rules =
        arguments.rules.clone().or_else(|| Some(PathBuf::from(DEFAULT_RULES)).filter(|path| path.is_dir()));
    match &subject {
        Subject::Refusal(refusal) => return explain_refusal(refusal, rules.as_deref(), arguments),
        Subject::Cloud(refusal) => {
            match arguments.output {
                Output::Json => folder::print_json(refusal)?,
                Output::Text => print(&render::cloud(refusal, Style::of_stdout()))?,
            }
            return Ok(Ending::Done);
        }
        // Without rules there is only what was decided.
        Subject::Record(refusal, _) if rules.is_none() => return explain_refusal(refusal, None, arguments),
        _ => {}
    }
    let Some(rules) = rules else {
        bail!("say with --rules which rules decide; there is no folder `{DEFAULT_RULES}` here");
    };
    let opened = match folder::open(&rules, arguments.env.as_deref())? {
        Ok(opened) => opened,
        Err(ending) => return Ok(ending),
    };
    let mut notes = Vec::new();
    let mut question = question(&subject, &opened, &rules, arguments, &mut notes)?;
    add_flags(&mut question, arguments, &opened.compiled)?;
    let mut answer = request::answer(&opened.compiled, &question, clock::now())
        .map_err(|error| anyhow!(crate::ruletest::words(&error)))?;
    answer.notes.splice(0..0, notes);
    match arguments.output {
        Output::Json => folder::print_json(&answer)?,
        Output::Text => {
            let tests = opened.tests();
            print(&render::answer(&answer, &origins(&tests, &rules), &rules, Style::of_stdout()))?;
        }
    }
    Ok(match answer.decided.decision {
        tidegate_engine::Outcome::Allow => Ending::Done,
        tidegate_engine::Outcome::Deny => Ending::Refused,
    })
}

/// Where a rule is written.
fn origins(tests: &RuleTests, folder: &Path) -> impl Fn(&str) -> Option<String> {
    let places = tests.origins.clone();
    let folder = folder.to_owned();
    move |rule| {
        let (file, line) = places.get(&tidegate_compiler::rule_object(rule))?;
        Some(format!("{}:{line}", folder.join(file).display()))
    }
}

fn explain_refusal(refusal: &Refusal, rules: Option<&Path>, arguments: &Arguments) -> anyhow::Result<Ending> {
    let advice = advice(refusal.reason);
    // Where the rule is written is worth knowing; that rules do not compile is not the question.
    let place = match (rules, &refusal.rule) {
        (Some(folder), Some(rule)) => render::place_of(folder, arguments.env.as_deref(), rule),
        _ => None,
    };
    match arguments.output {
        Output::Json => {
            folder::print_json(&render::RefusalReport { refusal, advice: &advice, place: place.as_deref() })?
        }
        Output::Text => print(&render::refusal(refusal, &advice, place.as_deref(), Style::of_stdout()))?,
    }
    Ok(Ending::Done)
}

fn subject(what: &[String]) -> anyhow::Result<Subject> {
    match what {
        [] => from_stdin(),
        [one] if one == "-" => from_stdin(),
        [one] => match (test_place(one), Refusal::find(one)) {
            (Some((file, line)), _) => Ok(Subject::Test { file, line }),
            (None, Ok(refusal)) => Ok(Subject::Refusal(refusal)),
            (None, Err(_)) if one.contains("://") || one.starts_with('/') => {
                Ok(Subject::Request { method: "GET".to_owned(), url: one.clone() })
            }
            (None, Err(_)) => {
                let codes: Vec<&str> =
                    tidegate_engine::Reason::all().map(tidegate_engine::Reason::code).collect();
                let close = codes.into_iter().min_by_key(|code| strsim::damerau_levenshtein(code, one));
                let close = close.filter(|code| strsim::damerau_levenshtein(code, one) <= 4);
                let meant = close.map(|code| format!("; did you mean `{code}`?")).unwrap_or_default();
                bail!("`{one}` is no URL, no test file with a line, and no reason code{meant}")
            }
        },
        [method, url, ..] => Ok(Subject::Request { method: method.to_ascii_uppercase(), url: url.clone() }),
    }
}

/// `orders.test.yaml:14`
fn test_place(text: &str) -> Option<(String, u32)> {
    let (file, line) = text.rsplit_once(':').map_or((text, "1"), |(file, line)| (file, line));
    let is_yaml = file.ends_with(".yaml") || file.ends_with(".yml");
    Some((file.to_owned(), line.parse().ok()?)).filter(|_| is_yaml && !file.contains("://"))
}

fn from_stdin() -> anyhow::Result<Subject> {
    if std::io::stdin().is_terminal() {
        complain("paste an error body or a curl command line, then press Ctrl-D on a line of its own");
    }
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(MAX_INPUT_BYTES + 1)
        .read_to_end(&mut bytes)
        .context("cannot read standard input")?;
    if bytes.len() as u64 > MAX_INPUT_BYTES {
        bail!("more than {MAX_INPUT_BYTES} bytes were given; an error body has a few hundred");
    }
    understand(&String::from_utf8_lossy(&bytes))
}

fn understand(text: &str) -> anyhow::Result<Subject> {
    let ours = Refusal::find(text);
    if ours.is_err()
        && let Some(refusal) = cloud::find(text)
    {
        return Ok(Subject::Cloud(refusal));
    }
    if curl::is_curl(text) {
        return curl::parse(text)
            .map(Subject::Curl)
            .map_err(|why| anyhow!("the curl command cannot be read: {why}"));
    }
    match ours {
        Ok(refusal) => Ok(match recorded_request(text) {
            Some(request) => Subject::Record(refusal, Box::new(request)),
            None => Subject::Refusal(refusal),
        }),
        Err(NoRefusal::UnknownCode(code)) => {
            bail!("the reason `{code}` is not one of this version; it may be a newer filter's")
        }
        Err(NoRefusal::ByIstio) => bail!(
            "this is a refusal of Istio's or Envoy's own rules, not of Tidegate; look at the namespace's AuthorizationPolicies and RequestAuthentications"
        ),
        Err(NoRefusal::Nothing) => bail!(
            "there is no refusal of Tidegate in it, and it is no curl command line; its error bodies have a member `reason`, its gRPC errors the word `reason=`"
        ),
    }
}

fn question(
    subject: &Subject,
    opened: &Folder,
    rules: &Path,
    arguments: &Arguments,
    notes: &mut Vec<String>,
) -> anyhow::Result<Question> {
    let asked = |url: &str, host_header: Option<&str>| -> anyhow::Result<Question> {
        let (host, path) = request::place_of(url).map_err(anyhow::Error::msg)?;
        let host = host_header.map(str::to_owned).or(host);
        let workload = match &arguments.workload {
            Some(text) => workload(text)?,
            None => request::workload_of(&opened.compiled, host.as_deref()).map_err(anyhow::Error::msg)?,
        };
        Ok(Question { host, path, ..request::blank(workload) })
    };
    match subject {
        Subject::Request { method, url } => Ok(Question { method: method.clone(), ..asked(url, None)? }),
        Subject::Curl(curl) => {
            let host = curl.headers.iter().find(|(name, _)| name == "host").map(|(_, value)| value.as_str());
            let mut question = asked(&curl.url, host)?;
            request::add_curl(&mut question, curl.clone(), &opened.compiled, notes);
            Ok(question)
        }
        Subject::Test { file, line } => {
            let tests = opened.tests();
            // The test that the line is in: the last that begins there or before.
            let test = tests
                .tests
                .iter()
                .filter(|test| test.line <= *line && is_file(rules, &test.file, file))
                .max_by_key(|test| test.line);
            let test = test.ok_or_else(|| {
                anyhow!("no test of `{}` begins at line {line} of `{file}` or before", rules.display())
            })?;
            notes.push(format!(
                "the test \"{}\" expects {}",
                test.name,
                crate::explain::report::decision_word(test.expected.outcome)
            ));
            Ok(test.question.clone())
        }
        Subject::Record(refusal, request) => {
            notes.push(format!(
                "the record says `{}`; this is what these rules decide",
                refusal.reason.code()
            ));
            let of_tokens = request.tokens.iter().filter(|issuer| {
                !arguments.who.token.iter().any(|text| text.split(':').next() == Some(issuer.as_str()))
            });
            notes.extend(of_tokens.map(|issuer| {
                format!("what the token of `{issuer}` said is not in the record; say it with --token {issuer}:CLAIM=VALUE")
            }));
            request.question().map_err(anyhow::Error::msg)
        }
        Subject::Refusal(_) | Subject::Cloud(_) => bail!("a refusal is no request"),
    }
}

fn is_file(folder: &Path, relative: &str, written: &str) -> bool {
    let path = folder.join(relative);
    let same = |a: &Path, b: &Path| match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    };
    relative == written || same(&path, Path::new(written))
}

/// What flags say counts over what the test or the command line says.
fn add_flags(question: &mut Question, arguments: &Arguments, compiled: &Compiled) -> anyhow::Result<()> {
    if let Some(text) = &arguments.workload {
        question.workload = workload(text)?;
    }
    for text in &arguments.header {
        let (name, value) =
            text.split_once(':').ok_or_else(|| anyhow!("`--header {text}`: write `Name: value`"))?;
        question.headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    }
    if let Some(json) = &arguments.data {
        if let Err(error) = serde_json::from_str::<serde_json::Value>(json) {
            bail!("`--data` is not JSON: {error}");
        }
        question.body = AskedBody::Json(json.clone());
        if !question.headers.iter().any(|(name, _)| name == "content-type") {
            question.headers.push(("content-type".to_owned(), "application/json".to_owned()));
        }
    } else if matches!(question.method.as_str(), "GET" | "HEAD" | "DELETE" | "OPTIONS")
        && question.body == AskedBody::Unknown
    {
        question.body = AskedBody::None;
    }
    question.port = arguments.port.or(question.port);
    arguments.who.add_to(question, compiled)
}

/// For tests of what is printed.
#[cfg(test)]
fn shown(answer: &Answer) -> String {
    render::answer(answer, &|_| Some("rules/rules.yaml:7".to_owned()), Path::new("rules"), Style::Plain)
}
