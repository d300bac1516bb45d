//! `tidegate doctor`.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use tidegate_compiler::{Compiled, Inputs, SourceFile};

use super::paint::{Color, Style};
use super::running::{AdminTls, answered, base};
use super::text::{count, hanging};
use super::{Ending, folder, print, runtime};
use crate::bundle::{Keyring, TrustedKey};
use crate::clock;
use crate::doctor::{self, Against, Asked, Finding, Severity};
use crate::istio::IstioVersion;
use crate::rules::{Finding as RuleFinding, load, load_environment};

/// Look for what keeps rules from being enforced: in rules, in manifests, and in a control plane that runs
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate doctor rules --manifests deploy/
  kubectl get pods,services,envoyfilters,wasmplugins,sidecars -A -o yaml | tidegate doctor rules --manifests -
  tidegate doctor rules --istio 1.29 --target-istio 1.31
  tidegate doctor --admin http://127.0.0.1:15081 -o json

Found are settings that fail open, pods and ports that no proxy guards, ports that do not say what they speak, tokens that are
taken away, keys that a plugin does not trust, rules that do not compile or come to an end, what an upgrade of Istio changes,
filters that are behind, and clocks that differ. Codes are explained in control-plane/docs/doctor.md.

Exit codes: 0 no error (with --strict: no warning either); 1 there are some; 2 the command line is wrong; 3 something cannot be
read or asked.")]
pub(super) struct Arguments {
    /// Folder with rules
    #[arg(value_name = "DIR")]
    rules: Option<PathBuf>,
    /// YAML or JSON file with values for ${env.name}
    #[arg(long, value_name = "FILE", requires = "rules")]
    env: Option<PathBuf>,
    /// File or folder with manifests; - for standard input
    #[arg(long, value_name = "PATH")]
    manifests: Option<PathBuf>,
    /// State folder of `tidegate serve`: are its keys those that plugins among the manifests trust?
    #[arg(long, value_name = "DIR", requires = "manifests")]
    state: Option<PathBuf>,
    /// The version of Istio that there is
    #[arg(long, value_name = "VERSION", requires = "target_istio", default_value = "1.29")]
    istio: IstioVersion,
    /// The version of Istio that is to come: what changes?
    #[arg(long, value_name = "VERSION", requires = "rules")]
    target_istio: Option<IstioVersion>,
    /// Admin address of a running control plane
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    #[command(flatten)]
    tls: AdminTls,
    /// Warnings fail as well
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
    if arguments.rules.is_none() && arguments.manifests.is_none() && arguments.admin.is_none() {
        bail!(
            "nothing to look at: name a folder with rules, `--manifests`, or `--admin` of a running control plane"
        );
    }
    let mut findings = Vec::new();
    let mut compiled = None;
    if let Some(rules) = &arguments.rules {
        compiled = look_at_rules(rules, arguments.env.as_deref(), &mut findings)?;
    }
    if let (Some(compiled), Some(target)) = (&compiled, arguments.target_istio) {
        findings.extend(doctor::upgrade(compiled, arguments.istio, target)?);
    }
    if let Some(manifests) = &arguments.manifests {
        let objects = doctor::read(manifests)?;
        let keys = arguments.state.as_deref().map(keys).transpose()?;
        let against = Against { rules: compiled.as_ref(), keys: keys.as_deref() };
        findings.extend(doctor::manifests(&objects, &against));
    }
    if let Some(admin) = &arguments.admin {
        findings.extend(doctor::server(&runtime()?.block_on(ask(admin, &arguments.tls))?));
    }
    // The worst first; else as they were found.
    findings.sort_by_key(|finding| finding.severity);
    match arguments.output {
        Output::Json => folder::print_json(&findings)?,
        Output::Text => print(&text(&findings, Style::of_stdout()))?,
    }
    let worst = if arguments.strict { Severity::Warning } else { Severity::Error };
    let refused = findings.iter().any(|finding| finding.severity <= worst);
    Ok(if refused { Ending::Refused } else { Ending::Done })
}

fn look_at_rules(
    rules: &Path,
    env: Option<&Path>,
    findings: &mut Vec<Finding>,
) -> anyhow::Result<Option<Compiled>> {
    let loaded = load(rules)?;
    let environment = env.map(load_environment).transpose()?.unwrap_or_default();
    if let Some(problem) = loaded.problems.first() {
        bail!("{}", RuleFinding::File(problem.clone()));
    }
    let source = |(path, text): (&String, &String)| SourceFile { path: path.clone(), text: text.clone() };
    let sources: Vec<SourceFile> = loaded.files.iter().map(source).collect();
    // With the time: what comes to an end is told.
    let inputs = Inputs { sources: &sources, env: environment, now: Some(clock::now()) };
    let compilation = tidegate_compiler::compile(&inputs);
    findings.extend(compilation.diagnostics.iter().map(doctor::diagnostic));
    Ok(compilation.output)
}

fn keys(state: &Path) -> anyhow::Result<Vec<TrustedKey>> {
    Keyring::peek(state)?.with_context(|| {
        format!("state folder `{}` holds no signing keys; name the one of `tidegate serve`", state.display())
    })
}

/// What a control plane says, and what time it is there.
async fn ask(admin: &str, tls: &AdminTls) -> anyhow::Result<Asked> {
    let base = base(admin);
    let client = tls.client(&base)?;
    let get = async |path: &str| {
        let url = format!("{base}{path}");
        client.get(&url).send().await.with_context(|| {
            format!("cannot ask the control plane at {url}; `--admin` must be the admin address of a running `tidegate serve`")
        })
    };
    let ready = get("/readyz").await?;
    let here = clock::now();
    let date = ready.headers().get("date").and_then(|date| date.to_str().ok()).map(str::to_owned);
    let there = date.and_then(|date| httpdate::parse_http_date(&date).ok());
    let there = there.and_then(|there| i64::try_from(there.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok());
    let mut asked = Asked {
        admin: base.clone(),
        ready: ready.status().is_success(),
        clock_ahead_s: there.map(|there| there.saturating_sub(here)),
        ..Asked::default()
    };
    let json = async |path: &str| {
        let answer = answered(get(path).await?).await;
        let answer = answer.with_context(|| format!("cannot ask the control plane at {base}{path}"))?;
        anyhow::Ok(answer.text().await?)
    };
    let other =
        |path: &str| format!("{base}{path} answered something else; is the control plane another version?");
    asked.fleet = serde_json::from_str(&json("/fleet").await?).with_context(|| other("/fleet"))?;
    asked.issuers = serde_json::from_str(&json("/issuers").await?).with_context(|| other("/issuers"))?;
    Ok(asked)
}

fn text(findings: &[Finding], style: Style) -> String {
    let mut text = String::new();
    for finding in findings {
        let (mark, color) = match finding.severity {
            Severity::Error => ("✗", Color::Bad),
            Severity::Warning => ("‼", Color::Warn),
            Severity::Note => ("·", Color::Dim),
        };
        let about: Vec<&str> =
            [&*finding.object, &*finding.field].into_iter().filter(|part| !part.is_empty()).collect();
        text.push_str(&style.paint(color, mark));
        text.push(' ');
        let begin = if about.is_empty() {
            finding.code.clone()
        } else {
            format!("{} {}", finding.code, about.join(" "))
        };
        text.push_str(&hanging("", 2, &format!("{begin}: {}", finding.message)));
        for (label, what) in [("in", &finding.source), ("why", &finding.why), ("fix", &finding.fix)] {
            text.push_str(&hanging(&format!("    {label:<4}"), 8, what));
        }
    }
    let of = |severity: Severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings, notes) = (of(Severity::Error), of(Severity::Warning), of(Severity::Note));
    if findings.is_empty() {
        return "nothing found\n".to_owned();
    }
    let (errors, warnings, notes) =
        (count(errors, "error"), count(warnings, "warning"), count(notes, "note"));
    text.push_str(&format!("{errors}, {warnings}, {notes}\n"));
    text
}

#[cfg(test)]
mod tests;
