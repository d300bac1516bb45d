//! `tidegate rollout`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::duration::Span;
use super::fleet::{Output, about_control, chosen, named};
use super::paint::Style;
use super::rollback::refused;
use super::running::{AdminTls, Answer, DEFAULT_ADMIN, Method, ask, tell};
use super::text::{count, labelled};
use super::{Ending, complain, print};
use crate::admin::ControlState;
use crate::clock;
use crate::control::{AskedRollout, RolloutAction, RolloutDone, certain, digest, short};
use crate::push::{FleetReport, Standing};
use crate::rollout::RolloutState;
use crate::rules::{AcceptedRules, load, load_environment};

/// How often it is asked.
const EVERY: Duration = Duration::from_millis(250);
/// Most proxies that are told.
const MAX_TOLD: usize = 20;

/// Say how far rules have come, and end what canaries try
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate rollout status
  tidegate rollout status --wait enforced --rules rules --timeout 5m
  tidegate rollout promote sales/orders-api 18 --reason 'looked at it, OPS-7'
  tidegate rollout abort sales/orders-api 18 --reason 'the month-end close is refused'")]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Status(StatusArguments),
    Promote(PromoteArguments),
    Abort(AbortArguments),
}

/// Give the rules that canaries try to every proxy now
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate rollout promote sales/orders-api 18 --reason 'a Deny that must not wait, OPS-7'
  tidegate rollout promote sales/orders-api 3fa9c25e07d1b846 --reason OPS-7

A Guard with `rollout` gives changed rules to some proxies first. This ends the wait; it also puts rules in force that were given
up (aborted). REV is as `tidegate rollout status` shows it: where other rules have come since, it is refused and nothing changes.
It asks who does it (`tidegate serve --admin-writers`).

Exit codes: 0 it worked; 1 refused: nothing or something else is held back there, or you may not; 2 the command line is wrong; 3 the
control plane does not answer.")]
struct PromoteArguments {
    #[command(flatten)]
    end: EndArguments,
}

/// Take changed rules back from the canaries that try them
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate rollout abort sales/orders-api 18 --reason 'the month-end close is refused'

All proxies enforce the rules before again, until the rules change or somebody promotes these. REV is as `tidegate rollout status`
shows it: where other rules have come since, it is refused and nothing changes. It asks who does it (`tidegate serve
--admin-writers`).

Exit codes: 0 it worked; 1 refused: no canary tries anything there, or something else, or you may not; 2 the command line is
wrong; 3 the control plane does not answer.")]
struct AbortArguments {
    #[command(flatten)]
    end: EndArguments,
}

#[derive(Debug, Args)]
struct EndArguments {
    /// The workload, namespace/name
    #[arg(value_name = "WORKLOAD")]
    workload: String,
    /// Which changed rules: number of the rule set, or the first 16 or more digits of its digest
    #[arg(value_name = "REV")]
    rev: String,
    /// Why; it is kept and shown
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Admin address of a running control plane
    #[arg(long, value_name = "URL", default_value = DEFAULT_ADMIN)]
    admin: String,
    #[command(flatten)]
    tls: AdminTls,
}

/// Say on how many proxies what is in force is enforced, and wait for it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate rollout status
  tidegate rollout status --wait enforced --rules rules --env values/prod.yaml --timeout 5m
  tidegate rollout status --wait enforced --workload sales/orders-api --admin http://127.0.0.1:15081 -o json

With --rules it waits until exactly these rules are on offer, before it looks at filters: right after a deployment the control
plane may not have seen them; it has to read a folder with the same files. Proxies that went away more than a minute ago are not waited for, and neither are workloads
without any filter; both are told.

Where a Guard has changed rules tried by canaries first (`rollout`), they are enforced when all proxies have them: wait for longer
than `hold`. With -o json, `progress` is enforced, pending, canary, aborted, refusedByFilters, rulesRefused or pinned, and
`control.rollouts` has every workload that holds changed rules back: `state` (canary, aborted), `canaries`, `proxies`, `heldS`, `holdS`,
`requests`, `newRefusals`, `why`.

Exit codes: 0 every proxy enforces what is on offer; 1 a filter refused it, the rules were given up after canaries had tried them,
the control plane refused the rules, or earlier rules are pinned, so that waiting is of no use; 2 the command line is wrong; 3 the
control plane does not answer; 4 it did not happen in time, or, without --wait, has not yet: canaries try the rules, or filters
have not answered.")]
struct StatusArguments {
    /// Wait for this
    #[arg(long, value_enum)]
    wait: Option<Wait>,
    /// How long, e.g. 90s or 5m
    #[arg(long, value_name = "DURATION", default_value = "5m", requires = "wait")]
    timeout: Span,
    /// Only these workloads, namespace/name. May be given several times
    #[arg(long, value_name = "WORKLOAD")]
    workload: Vec<String>,
    /// Folder with the rules that are to be on offer
    #[arg(long, value_name = "DIR")]
    rules: Option<PathBuf>,
    /// YAML or JSON file with values for ${env.name}, as the control plane has it
    #[arg(long, value_name = "FILE", requires = "rules")]
    env: Option<PathBuf>,
    /// Admin address of a running control plane
    #[arg(long, value_name = "URL", default_value = DEFAULT_ADMIN)]
    admin: String,
    #[command(flatten)]
    tls: AdminTls,
    /// How it is written
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Wait {
    /// Every proxy enforces what is on offer
    Enforced,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Progress {
    /// Every proxy enforces it.
    Enforced,
    /// It may still come.
    Pending,
    /// Canaries enforce it, and the others will.
    Canary,
    /// Canaries tried it, and it was given up.
    Aborted,
    /// A filter has refused it.
    RefusedByFilters,
    /// The control plane refused the rules.
    RulesRefused,
    /// Earlier rules are pinned.
    Pinned,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    progress: Progress,
    /// Proxies that are not gone.
    proxies: usize,
    enforcing: usize,
    refusing: usize,
    lagging: usize,
    silent: usize,
    /// Workloads of which no filter is connected.
    without_filters: Vec<String>,
    control: ControlState,
    workloads: FleetReport,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    match &arguments.command {
        Command::Status(arguments) => status(arguments),
        Command::Promote(arguments) => end(&arguments.end, RolloutAction::Promote),
        Command::Abort(arguments) => end(&arguments.end, RolloutAction::Abort),
    }
}

fn end(arguments: &EndArguments, action: RolloutAction) -> anyhow::Result<Ending> {
    let EndArguments { workload, rev, reason, admin, tls } = arguments;
    let (workload, rules, reason) = (workload.clone(), rev.clone(), reason.clone());
    let asked = AskedRollout { workload, rules, action, reason };
    match tell::<_, RolloutDone>(admin, tls, Method::POST, "/control/rollouts", Some(&asked))? {
        Answer::Refused(why) => refused(&why),
        Answer::Done(RolloutDone { workload, rules, digest }) => {
            let digest = certain(&digest);
            print(&format!(
                "All proxies of {workload} get rules {rules} ({digest}).\nNext: `tidegate rollout status --workload {workload}`.\n"
            ))?;
            Ok(Ending::Done)
        }
    }
}

fn status(arguments: &StatusArguments) -> anyhow::Result<Ending> {
    let wanted = match &arguments.rules {
        None => None,
        Some(folder) => {
            let loaded = load(folder)?;
            let environment = arguments.env.as_deref().map(load_environment).transpose()?.unwrap_or_default();
            Some(digest(&AcceptedRules { files: loaded.files, environment }, |_| false))
        }
    };
    let deadline = arguments.wait.map(|_| Instant::now() + arguments.timeout.0);
    let ends_line = arguments.output == Output::Text && std::io::stderr().is_terminal();
    let mut shown = String::new();
    let mut last = look(arguments, wanted.as_deref());
    // Somebody who mistypes an address does not want to wait for it.
    if last.is_err() {
        return last.map(|_| Ending::Failed);
    }
    while let Some(deadline) = deadline.filter(|deadline| Instant::now() < *deadline) {
        match &last {
            Ok(status) if !matches!(status.progress, Progress::Pending | Progress::Canary) => break,
            Ok(status) => {
                let line = format!("{} of {} proxies enforce it", status.enforcing, status.proxies);
                if ends_line && line != shown {
                    // A terminal that is gone changes nothing.
                    let _ = write!(std::io::stderr(), "\r\u{1b}[K{line}");
                    shown = line;
                }
            }
            Err(_) => {}
        }
        std::thread::sleep(EVERY.min(deadline.saturating_duration_since(Instant::now())));
        last = look(arguments, wanted.as_deref());
    }
    if !shown.is_empty() {
        let _ = write!(std::io::stderr(), "\r\u{1b}[K");
    }
    let status = last?;
    match arguments.output {
        Output::Json => print(&format!("{}\n", serde_json::to_string_pretty(&status)?))?,
        Output::Text => print(&describe(&status, wanted.as_deref(), clock::now(), Style::of_stdout()))?,
    }
    Ok(match status.progress {
        Progress::Enforced => Ending::Done,
        Progress::RefusedByFilters | Progress::RulesRefused | Progress::Pinned | Progress::Aborted => {
            Ending::Refused
        }
        Progress::Pending | Progress::Canary => {
            if arguments.wait.is_some() {
                complain(&format!("not enforced within {}", arguments.timeout));
            }
            Ending::Late
        }
    })
}

/// First what is on offer, then who enforces it: so it can only be more than was on offer.
fn look(arguments: &StatusArguments, wanted: Option<&str>) -> anyhow::Result<Status> {
    let control: ControlState = ask(&arguments.admin, &arguments.tls, "/control")?;
    let fleet: FleetReport = ask(&arguments.admin, &arguments.tls, "/fleet")?;
    let fleet = match chosen(fleet.clone(), &arguments.workload) {
        // A workload that the awaited rules declare is not there before them.
        Err(_) if wanted.is_some() && !is_offered(&control, wanted) => fleet,
        chosen => chosen?,
    };
    Ok(judge(control, fleet, wanted))
}

fn is_offered(control: &ControlState, wanted: Option<&str>) -> bool {
    control.offered.as_ref().is_some_and(|offered| wanted.is_none_or(|wanted| offered.digest == wanted))
}

fn judge(control: ControlState, workloads: FleetReport, wanted: Option<&str>) -> Status {
    let sum = |standing| workloads.workloads.values().map(|one| one.count(standing)).sum::<usize>();
    let proxies = workloads.workloads.values().map(|one| one.present()).sum();
    let (enforcing, refusing) = (sum(Standing::Enforcing), sum(Standing::Refusing));
    let is_offered = is_offered(&control, wanted)
        // Without a wish it is the newest that is meant, or what is pinned.
        && (wanted.is_some()
            || control.pin.is_some()
            || control.offered.as_ref().map(|set| &set.digest) == control.accepted.as_ref().map(|set| &set.digest));
    let is_any = |state: RolloutState| {
        let mut rollouts =
            control.rollouts.iter().filter(|one| workloads.workloads.contains_key(&one.workload));
        rollouts.any(|one| one.state == state)
    };
    let waits = |wanted: &str| control.pin.as_ref().is_some_and(|pin| pin.digest != wanted);
    let progress = if !is_offered && wanted.is_some_and(waits) {
        Progress::Pinned
    } else if !is_offered && !control.up_to_date && control.errors > 0 {
        Progress::RulesRefused
    } else if !is_offered {
        Progress::Pending
    } else if refusing > 0 {
        Progress::RefusedByFilters
    } else if is_any(RolloutState::Aborted) {
        Progress::Aborted
    } else if is_any(RolloutState::Canary) {
        Progress::Canary
    } else if enforcing == proxies {
        Progress::Enforced
    } else {
        Progress::Pending
    };
    let without = workloads
        .workloads
        .iter()
        .filter(|(_, one)| one.present() == 0)
        .map(|(name, _)| name.clone())
        .collect();
    Status {
        progress,
        proxies,
        enforcing,
        refusing,
        lagging: sum(Standing::Lagging),
        silent: sum(Standing::Silent),
        without_filters: without,
        control,
        workloads,
    }
}

fn describe(status: &Status, wanted: Option<&str>, now: i64, style: Style) -> String {
    let mut text = about_control(&status.control, now, style);
    let Status { proxies, enforcing, .. } = status;
    text.push_str(&labelled("enforced", &format!("{enforcing} of {proxies} proxies")));
    if let Some(wanted) = wanted.filter(|wanted| !is_offered(&status.control, Some(wanted))) {
        let offered = status.control.offered.as_ref().map_or("nothing".to_owned(), named);
        let wanted = short(wanted);
        text.push_str(&labelled("rules", &format!("those of --rules are {wanted}; on offer is {offered}")));
    }
    let others = status.workloads.workloads.iter().flat_map(|(name, workload)| {
        let proxies = workload
            .proxies
            .iter()
            .filter(|proxy| !matches!(proxy.standing, Standing::Enforcing | Standing::Gone));
        proxies.map(move |proxy| (name, proxy))
    });
    let others: Vec<_> = others.collect();
    for (name, proxy) in others.iter().take(MAX_TOLD) {
        text.push_str(&labelled(
            proxy.standing.word(),
            &format!("{name} {}: {}", proxy.instance, proxy.detail),
        ));
    }
    if others.len() > MAX_TOLD {
        text.push_str(&labelled(
            "",
            &format!("and {} more; `tidegate fleet` lists them", others.len() - MAX_TOLD),
        ));
    }
    if !status.without_filters.is_empty() {
        let number = count(status.without_filters.len(), "workload");
        text.push_str(&labelled("no filter", &format!("{number}: {}", status.without_filters.join(", "))));
    }
    text.push_str(match status.progress {
        Progress::Enforced => "\nEnforced.\n",
        Progress::Pending => "\nNot enforced everywhere yet.\n",
        Progress::Canary => "\nCanaries enforce the changed rules, the other proxies those before.\n",
        Progress::Aborted => "\nThe changed rules were given up: those before are enforced. Change the rules, or `tidegate rollout promote`.\n",
        Progress::RefusedByFilters => "\nRefused by filters: they keep what they had. The rules have to change, or the filters.\n",
        Progress::RulesRefused => "\nThe rules are refused by the control plane; `tidegate check` says why.\n",
        Progress::Pinned => "\nThese rules are not offered: earlier ones are pinned. `tidegate rollback --release` lets them through.\n",
    });
    text
}

#[cfg(test)]
mod tests;
