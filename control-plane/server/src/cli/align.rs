//! `tidegate align`.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

use super::paint::{Color, Style};
use super::text::{count, hanging, visible};
use super::{Ending, complain, folder, print};
use crate::align::{Finding, ManifestFile, Report, align};
use crate::rules::load;

/// No output of kubectl that is read is longer.
const MAX_INPUT_BYTES: u64 = 64 << 20;

/// Say whether ServiceAccounts, their pods, Callers and TrustedIssuers agree
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate align deploy/                                       # manifests beside the rules in rules/
  tidegate align deploy/etl.yaml deploy/ci.yaml --rules rules
  kubectl get serviceaccounts,deployments,cronjobs,pods -A -o yaml | tidegate align -
  tidegate align deploy/ -o json | jq -r '.findings[] | \"\\(.file):\\(.line) \\(.code) \\(.what)\"'

Looked at are ServiceAccounts with the annotations iam.gke.io/gcp-service-account, eks.amazonaws.com/role-arn and
azure.workload.identity/client-id, and the pods of Pods, Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs and CronJobs with
the tokens that they project. A namespace of which there is no manifest is not judged, and named at the end.

  AL000  a manifest cannot be read                          AL005  projected tokens are for nobody's audience
  AL001  a Caller names an account that is not there        AL006  a projected token lives too long
  AL002  an annotation gives another identity than Callers  AL007  a Caller needs a token, and the pod has none
  AL003  an annotation's identity is nobody's (warning)     AL008  the pod has only the default token
  AL004  a Caller's identity is nobody's (warning)          AL009  two Callers are one account (warning)

Exit codes: 0 they agree, or there are only warnings; 1 an error, with --strict a warning too, or the rules do not compile; 2 the
command line is wrong; 3 a file cannot be read, or nothing in it is looked at.")]
pub(super) struct Arguments {
    /// Files and folders with Kubernetes manifests; - for standard input
    #[arg(value_name = "MANIFESTS", required = true)]
    manifests: Vec<PathBuf>,
    /// Folder with rules: every *.yaml and *.yml below it
    #[arg(long, value_name = "DIR", env = "TIDEGATE_RULES", default_value = "rules")]
    rules: PathBuf,
    /// YAML or JSON file with values for ${env.name}
    #[arg(long, value_name = "FILE")]
    env: Option<PathBuf>,
    /// Exit with 1 for warnings, too
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

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let mut manifests = Vec::new();
    for path in &arguments.manifests {
        manifests.extend(read(path)?);
    }
    let opened = match folder::open(&arguments.rules, arguments.env.as_deref())? {
        Ok(opened) => opened,
        Err(ending) => return Ok(ending),
    };
    let shown = |file: &str| arguments.rules.join(file).display().to_string();
    let report = align(&manifests, &opened.files, &opened.environment, &opened.compiled, shown);
    if report.service_accounts + report.workloads + report.findings.len() == 0 {
        bail!("there is no ServiceAccount and nothing with pods in the manifests");
    }
    match arguments.output {
        Output::Json => folder::print_json(&report)?,
        Output::Text => print(&text(&report, &arguments.rules, Style::of_stdout()))?,
    }
    let is_bad = report.errors > 0 || (arguments.strict && report.warnings > 0);
    Ok(if is_bad { Ending::Refused } else { Ending::Done })
}

/// A file, all files of a folder, or standard input.
fn read(path: &Path) -> anyhow::Result<Vec<ManifestFile>> {
    let shown = path.display().to_string();
    if path == Path::new("-") {
        if std::io::stdin().is_terminal() {
            complain("paste manifests, then press Ctrl-D on a line of its own");
        }
        let text = bounded(std::io::stdin().lock(), "standard input")?;
        return Ok(vec![ManifestFile { name: "(standard input)".to_owned(), text }]);
    }
    if path.is_dir() {
        let loaded = load(path)?;
        if let Some(problem) = loaded.problems.first() {
            bail!("`{shown}`: {}", crate::rules::Finding::File(problem.clone()));
        }
        let name = |file: &str| path.join(file).display().to_string();
        return Ok(loaded
            .files
            .into_iter()
            .map(|(file, text)| ManifestFile { name: name(&file), text })
            .collect());
    }
    let file = std::fs::File::open(path).with_context(|| format!("cannot read `{shown}`"))?;
    Ok(vec![ManifestFile { text: bounded(file, &shown)?, name: shown }])
}

fn bounded(input: impl Read, shown: &str) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    input
        .take(MAX_INPUT_BYTES + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {shown}"))?;
    if bytes.len() as u64 > MAX_INPUT_BYTES {
        bail!("{shown} has more than {MAX_INPUT_BYTES} bytes; give the namespaces one by one");
    }
    String::from_utf8(bytes).with_context(|| format!("{shown} is not UTF-8"))
}

fn text(report: &Report, rules: &Path, style: Style) -> String {
    let mut text: String = report.findings.iter().map(|found| finding(found, style)).collect();
    if !report.unseen.is_empty() {
        let names: Vec<&str> = report.unseen.iter().map(String::as_str).collect();
        let note = format!(
            "Callers name accounts of `{}`, of which there is no manifest: nothing was said about those",
            names.join("`, `")
        );
        text.push_str(&hanging("note: ", 6, &note));
    }
    let errors = count(report.errors, "error");
    let errors = if report.errors > 0 { style.paint(Color::Bad, &errors) } else { errors };
    text.push_str(&format!(
        "{}, {} with pods, {}: {errors}, {}\n",
        count(report.service_accounts, "service account"),
        count(report.workloads, "object"),
        count(report.callers, "Caller"),
        count(report.warnings, "warning")
    ));
    text.push_str(&format!("next: tidegate check {}\n", rules.display()));
    text
}

fn finding(finding: &Finding, style: Style) -> String {
    let color = if finding.severity == "error" { Color::Bad } else { Color::Warn };
    let head = style.paint(color, &format!("{}[{}]", finding.severity, finding.code.as_str()));
    let place = style.paint(Color::Bold, &visible(&format!("{}:{}", finding.file, finding.line)));
    format!(
        "{place}: {head}: {}\n{}{}",
        visible(&format!("{}: {}", finding.object, finding.what)),
        hanging("  why  ", 7, &finding.why),
        hanging("  fix  ", 7, &finding.fix)
    )
}

#[cfg(test)]
pub(super) fn shown(report: &Report) -> String {
    text(report, Path::new("rules"), Style::Plain)
}
