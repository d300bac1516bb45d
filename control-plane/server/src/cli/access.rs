//! `tidegate who-can` and `tidegate what-can`.

use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;
use tidegate_compiler::WorkloadId;
use tidegate_compiler::explain::{MeshPeer, Question};

use super::folder::{self, Folder};
use super::paint::{Color, Style};
use super::text::{count, hanging, visible};
use super::{Ending, print};
use crate::clock;
use crate::explain::access::{Grant, Who, WhoCan, what_can, who_can};
use crate::explain::request;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Where rules are.
#[derive(Debug, Args)]
struct Rules {
    /// Folder with rules: every *.yaml and *.yml below it
    #[arg(long, value_name = "DIR", env = "TIDEGATE_RULES", default_value = "rules")]
    rules: PathBuf,
    /// YAML or JSON file with values for ${env.name}
    #[arg(long, value_name = "FILE")]
    env: Option<PathBuf>,
    /// How it is written
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// List who may send a request: callers, what is demanded of them, and the rules
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate who-can POST https://orders.sales.example/v1/orders/7
  tidegate who-can DELETE /v1/orders/7 --workload sales/orders-api -o json

Denies are listed as well: one that matches wins over every Allow. Rules in Shadow mode are marked.

Exit codes: 0 somebody may; 1 nobody may, or the rules do not compile; 2 the command line is wrong; 3 the rules cannot be read,
or it is not clear which workload is meant.")]
pub(super) struct WhoArguments {
    /// E.g. POST
    method: String,
    /// A URL, or a path alone
    url: String,
    /// Only at this workload [default: the one that the URL's host is about]
    #[arg(long, value_name = "NAMESPACE/NAME")]
    workload: Option<String>,
    /// The workload's port [default: the Guard's first]
    #[arg(long)]
    port: Option<u16>,
    #[command(flatten)]
    rules: Rules,
}

/// List what a workload or a Caller may call, where, and under which conditions
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate what-can --peer etl/orders-worker
  tidegate what-can data/orders-etl                 # a Caller: all of its forms
  tidegate what-can --peer ci/runner --workload sales/orders-api -o json

Denies are listed as well: one that matches wins over every Allow. Rules in Shadow mode are marked.

Exit codes: 0 something; 1 nothing, or the rules do not compile; 2 the command line is wrong; 3 the rules cannot be read, or there
is no such Caller.")]
pub(super) struct WhatArguments {
    /// A Caller, namespace/name
    #[arg(value_name = "CALLER", required_unless_present = "peer", conflicts_with = "peer")]
    caller: Option<String>,
    /// A workload of the mesh: its service account, or a SPIFFE id
    #[arg(long, value_name = "NAMESPACE/ACCOUNT")]
    peer: Option<String>,
    /// Only at this workload
    #[arg(long, value_name = "NAMESPACE/NAME")]
    workload: Option<String>,
    #[command(flatten)]
    rules: Rules,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WhatCan<'a> {
    who: &'a str,
    grants: &'a [Grant],
}

pub(super) fn who(arguments: &WhoArguments) -> anyhow::Result<Ending> {
    let opened = match folder::open(&arguments.rules.rules, arguments.rules.env.as_deref())? {
        Ok(opened) => opened,
        Err(ending) => return Ok(ending),
    };
    let (host, path) = request::place_of(&arguments.url).map_err(anyhow::Error::msg)?;
    let workload = match &arguments.workload {
        Some(text) => known_workload(&opened, text)?,
        None => request::workload_of(&opened.compiled, host.as_deref()).map_err(anyhow::Error::msg)?,
    };
    let method = arguments.method.to_ascii_uppercase();
    let question = Question { method, host, path, port: arguments.port, ..request::blank(workload) };
    let answer = who_can(&opened.compiled, &question, clock::now())
        .map_err(|error| anyhow!(crate::ruletest::words(&error)))?;
    match arguments.rules.output {
        Output::Json => folder::print_json(&answer)?,
        Output::Text => print(&shown_who(&answer, &question, &arguments.rules.rules, Style::of_stdout()))?,
    }
    let anybody = answer.refused.is_none()
        && answer.grants.iter().any(|grant| grant.effect == "Allow" && grant.enforced);
    Ok(if anybody || !answer.guarded { Ending::Done } else { Ending::Refused })
}

pub(super) fn what(arguments: &WhatArguments) -> anyhow::Result<Ending> {
    let opened = match folder::open(&arguments.rules.rules, arguments.rules.env.as_deref())? {
        Ok(opened) => opened,
        Err(ending) => return Ok(ending),
    };
    let (name, who) = match (&arguments.caller, &arguments.peer) {
        (_, Some(text)) => {
            let peer = MeshPeer::parse(text).ok_or_else(|| {
                anyhow!("`--peer {text}`: write `namespace/service-account`, or a SPIFFE id")
            })?;
            (text, Who { peers: vec![peer], ..Who::default() })
        }
        (Some(name), None) => (name, caller(&opened, name)?),
        (None, None) => bail!("name a Caller, or a workload with --peer"),
    };
    let mut grants = what_can(&opened.compiled, &who);
    if let Some(text) = &arguments.workload {
        let workload = known_workload(&opened, text)?.to_string();
        grants.retain(|grant| grant.workload == workload);
    }
    match arguments.rules.output {
        Output::Json => folder::print_json(&WhatCan { who: name, grants: &grants })?,
        Output::Text => print(&shown_what(name, &grants, &arguments.rules.rules, Style::of_stdout()))?,
    }
    let anything = grants.iter().any(|grant| grant.effect == "Allow" && grant.enforced);
    Ok(if anything { Ending::Done } else { Ending::Refused })
}

fn caller(opened: &Folder, name: &str) -> anyhow::Result<Who> {
    let tests = opened.tests();
    let Some(known) = tests.callers.get(name) else {
        let all: Vec<&str> = tests.callers.keys().map(String::as_str).collect();
        let close = all.iter().min_by_key(|one| strsim::damerau_levenshtein(one, name));
        let close = close.filter(|one| strsim::damerau_levenshtein(one, name) <= 4);
        match close {
            Some(close) => bail!("there is no Caller `{name}`; did you mean `{close}`?"),
            None if all.is_empty() => bail!("there is no Caller; ask about a workload with --peer"),
            None => bail!("there is no Caller `{name}`; declared are: {}", all.join(", ")),
        }
    };
    Ok(Who { peers: known.peers.clone(), rules: known.rules.clone() })
}

fn known_workload(opened: &Folder, text: &str) -> anyhow::Result<WorkloadId> {
    let known = opened.compiled.workloads.keys().find(|id| id.to_string() == text);
    known.cloned().ok_or_else(|| {
        let all: Vec<String> = opened.compiled.workloads.keys().take(8).map(WorkloadId::to_string).collect();
        anyhow!("there is no workload `{text}`; there are {}", all.join(", "))
    })
}

fn shown_who(answer: &WhoCan, question: &Question, folder: &Path, style: Style) -> String {
    let host = question.host.as_ref().map(|host| format!("https://{host}")).unwrap_or_default();
    let what = visible(&format!("{} {host}{}", question.method, question.path));
    let mut text = format!("{} at {}\n", style.paint(Color::Bold, &what), answer.workload);
    if !answer.guarded {
        text.push_str("  everybody: no Guard covers the workload\n");
    } else if let Some(why) = answer.refused {
        text.push_str(&format!("  nobody: {why}\n"));
    } else if answer.grants.is_empty() {
        text.push_str("  nobody: no rule is about it, and the workload is guarded\n");
    } else {
        let rows: Vec<_> = answer.grants.iter().map(|grant| (grant.caller.as_str(), grant)).collect();
        text.push_str(&list(&rows, style));
    }
    let denies = answer.grants.iter().filter(|grant| grant.effect == "Deny").count();
    if denies > 0 {
        text.push_str(&format!(
            "{} may refuse it; a Deny that matches wins\n",
            count(denies, "Deny entry").replace("entrys", "entries")
        ));
    }
    let caller =
        answer.grants.iter().find(|grant| grant.caller.contains('/') && !grant.caller.contains([' ', '*']));
    let caller = caller.map_or("NAMESPACE/ACCOUNT", |grant| grant.caller.as_str());
    text.push_str(&format!(
        "next: tidegate explain {what} --workload {} --peer {caller} --rules {}\n",
        answer.workload,
        folder.display()
    ));
    text
}

fn shown_what(name: &str, grants: &[Grant], folder: &Path, style: Style) -> String {
    let mut text = format!("{}\n", style.paint(Color::Bold, &visible(name)));
    if grants.is_empty() {
        text.push_str("  nothing: no rule of a guarded workload lets it in\n");
    }
    let mut workload = "";
    let mut rows: Vec<(String, &Grant)> = Vec::new();
    for grant in grants {
        if workload != grant.workload {
            text.push_str(&listed(&rows, style));
            rows.clear();
            workload = &grant.workload;
            text.push_str(&format!("at {}\n", style.paint(Color::Bold, workload)));
        }
        rows.push((grant.operations.join(", "), grant));
    }
    text.push_str(&listed(&rows, style));
    text.push_str(&format!("next: tidegate test {} --verbose\n", folder.display()));
    text
}

fn listed(rows: &[(String, &Grant)], style: Style) -> String {
    let rows: Vec<(&str, &Grant)> = rows.iter().map(|(title, grant)| (title.as_str(), *grant)).collect();
    list(&rows, style)
}

/// A line per entry: effect, title, rule; what it demands besides below.
fn list(rows: &[(&str, &Grant)], style: Style) -> String {
    let width = rows.iter().map(|(title, _)| title.chars().count()).max().unwrap_or(0).min(44);
    let mut text = String::new();
    for (title, grant) in rows {
        let color = if grant.effect == "Allow" { Color::Good } else { Color::Bad };
        let effect = style.paint(color, &format!("{:<5}", grant.effect));
        let mode = if grant.enforced { "" } else { "  (Shadow)" };
        let title = visible(title);
        text.push_str(&match title.chars().count() <= width {
            true => format!("  {effect}  {title:<width$}  {}{mode}\n", grant.rule),
            false => format!("  {effect}  {}{:9}{}{mode}\n", hanging("", 9, &title), "", grant.rule),
        });
        for (position, demand) in grant.with.iter().enumerate() {
            let word = if position == 0 { "with" } else { "and" };
            let start = style.paint(Color::Dim, &format!("{:9}{word:<5}", ""));
            text.push_str(&hanging(&start, 14, demand));
        }
    }
    text
}
