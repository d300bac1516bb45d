//! `tidegate fleet`.

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::paint::{Color, Style};
use super::running::{AdminTls, DEFAULT_ADMIN, ask};
use super::text::{self, count, hanging, labelled, span, visible};
use super::{Ending, print};
use crate::admin::ControlState;
use crate::clock;
use crate::control::{Broken, RuleSet, certain, short};
use crate::push::{FleetReport, Standing, WorkloadReport};
use crate::rollout::{RolloutReport, RolloutState};

/// Most proxies of a workload that are told one by one, unless all are asked for.
const MAX_TOLD: usize = 10;

/// Say what every filter enforces, as the filters themselves say
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate fleet
  tidegate fleet sales/orders-api --all
  tidegate fleet -o json | jq -r '.workloads[].proxies[] | select(.standing != \"enforcing\") | .instance'

A proxy counts as enforcing when every connected VM of it (each worker thread has one) enforces exactly what is on offer. One
that was not heard of for a while is silent: what it enforces is not known. Receipts are the filters' own word.

Exit codes: 0 every proxy enforces what it is to; 1 one does not; 2 the command line is wrong; 3 the control plane does not
answer, or does not know one of the workloads.")]
pub(super) struct Arguments {
    /// Only these workloads, namespace/name
    #[arg(value_name = "WORKLOAD")]
    workloads: Vec<String>,
    /// Tell every proxy, with its VMs and the age of its keys
    #[arg(long)]
    all: bool,
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
pub(super) enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

/// What is shown.
#[derive(Debug, Serialize)]
struct Shown<'s> {
    #[serde(flatten)]
    fleet: &'s FleetReport,
    control: &'s ControlState,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let control: ControlState = ask(&arguments.admin, &arguments.tls, "/control")?;
    let fleet: FleetReport = ask(&arguments.admin, &arguments.tls, "/fleet")?;
    let fleet = chosen(fleet, &arguments.workloads)?;
    match arguments.output {
        Output::Json => {
            let shown = Shown { fleet: &fleet, control: &control };
            print(&format!("{}\n", serde_json::to_string_pretty(&shown)?))?;
        }
        Output::Text => print(&describe(&fleet, &control, arguments.all, clock::now(), Style::of_stdout()))?,
    }
    let is_enforced = fleet.workloads.values().all(WorkloadReport::is_enforced);
    Ok(if is_enforced { Ending::Done } else { Ending::Refused })
}

/// Only what was asked for.
pub(super) fn chosen(mut fleet: FleetReport, names: &[String]) -> anyhow::Result<FleetReport> {
    if let Some(unknown) = names.iter().find(|name| !fleet.workloads.contains_key(*name)) {
        let known: Vec<&str> = fleet.workloads.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        anyhow::bail!("no workload `{unknown}` in the Mesh that is in force; there are: {known}");
    }
    fleet.workloads.retain(|name, _| names.is_empty() || names.contains(name));
    Ok(fleet)
}

/// A rule set as it is named everywhere.
pub(super) fn named(set: &RuleSet) -> String {
    format!("{} ({})", set.number, short(&set.digest))
}

/// `now`: Unix seconds.
fn describe(fleet: &FleetReport, control: &ControlState, all: bool, now: i64, style: Style) -> String {
    let mut told = about_control(control, now, style);
    if fleet.workloads.is_empty() {
        told.push_str("The Mesh that is in force has no workload.\n");
        return told;
    }
    told.push_str(&table(fleet, style));
    for (name, workload) in &fleet.workloads {
        told.push_str(&details(name, workload, all, now, style));
    }
    let present: usize = fleet.workloads.values().map(WorkloadReport::present).sum();
    let enforcing: usize = fleet.workloads.values().map(|one| one.count(Standing::Enforcing)).sum();
    told.push_str(&match (present, enforcing) {
        (0, _) => "\nNo filter is connected.\n".to_owned(),
        (present, enforcing) if present == enforcing => style.paint(
            Color::Good,
            &format!("\nEnforced on {}.\n", count(present, "proxy").replace("proxys", "proxies")),
        ),
        (present, enforcing) => {
            style.paint(Color::Warn, &format!("\nEnforced on {enforcing} of {present} proxies.\n"))
        }
    });
    told
}

/// What was done to what is in force, before anything else.
pub(super) fn about_control(control: &ControlState, now: i64, style: Style) -> String {
    let mut told = String::new();
    if let Some(set) = control.offered.as_ref().or(control.accepted.as_ref()) {
        let is_offered =
            if control.offered.is_some() { "on offer" } else { "accepted, and not on offer yet" };
        told.push_str(&format!("rules {}, accepted {} ago, {is_offered}\n", named(set), span(now - set.at)));
    }
    if !control.up_to_date {
        let errors = count(control.errors, "error");
        told.push_str(&hanging(
            &style.paint(Color::Bad, "refused     "),
            12,
            &format!("what is there now has {errors}, and does not count as it is; /diagnostics says which"),
        ));
    }
    if let Some(pin) = &control.pin {
        let newer = control.accepted.as_ref().filter(|set| set.digest != pin.digest);
        let newer = newer.map_or(String::new(), |set| format!("; {} are accepted and wait", named(set)));
        told.push_str(&hanging(
            &style.paint(Color::Warn, "PINNED      "),
            12,
            &format!(
                "to rules {} ({}) for {}: {} (by {}){newer}",
                pin.number,
                short(&pin.digest),
                span(now - pin.at),
                pin.reason,
                pin.by
            ),
        ));
    }
    for one in &control.rollouts {
        told.push_str(&about_rollout(one, now, style));
    }
    for one in &control.suspensions {
        told.push_str(&hanging(
            &style.paint(Color::Warn, "SUSPENDED   "),
            12,
            &format!(
                "{} for another {}: {}, {} (by {}, {})",
                one.workload,
                span(one.until - now),
                one.reason,
                one.ticket,
                one.by,
                one.id
            ),
        ));
    }
    for one in &control.revocations {
        let broken = control.broken.iter().find(|broken| broken.id == one.id);
        let (label, color) = match broken {
            Some(broken) if !broken.in_force => ("NOT REVOKED ", Color::Bad),
            // The newest rules wait for it.
            Some(_) => ("HOLDS BACK  ", Color::Bad),
            None => ("REVOKED     ", Color::Warn),
        };
        let broken = broken.map_or(String::new(), |broken| format!("; {}", broken.why));
        told.push_str(&hanging(
            &style.paint(color, label),
            12,
            &format!(
                "{} for another {}: {} (by {}, {}){broken}",
                one.target,
                span(one.until - now),
                one.reason,
                one.by,
                one.id
            ),
        ));
    }
    let is_told = |broken: &&Broken| control.revocations.iter().any(|one| one.id == broken.id);
    for broken in control.broken.iter().filter(|broken| !is_told(broken)) {
        let text = format!("{}: {}", broken.id, broken.why);
        told.push_str(&hanging(&style.paint(Color::Bad, "NOT BELIEVED "), 13, &text));
    }
    if !told.is_empty() {
        told.push('\n');
    }
    told
}

/// Changed rules that are held back.
fn about_rollout(one: &RolloutReport, now: i64, style: Style) -> String {
    let rules = format!("rules {} ({})", one.rules, certain(&one.digest));
    let before = format!("rules {} ({})", one.before, certain(&one.before_digest));
    let bound =
        one.most_new_refusals.as_ref().map_or(String::new(), |most| format!(", at most {most} may be"));
    let seen = match one.requests {
        0 => "no request was compared".to_owned(),
        requests => {
            format!("{} of {requests} requests are refused anew{bound}", one.new_refusals)
        }
    };
    let (label, color, text) = match one.state {
        RolloutState::Canary => {
            let held = i64::try_from(one.held_s).unwrap_or(i64::MAX);
            let left = match i64::from(one.hold_s).saturating_sub(held) {
                left if one.canaries.is_empty() => format!("{} when a proxy is there", span(left)),
                left => format!("{} left", span(left.max(0))),
            };
            let text = format!(
                "{}: {rules} on {} of {}, {left}, the others keep {before}; {seen}",
                one.workload,
                one.canaries.len(),
                count(one.proxies, "proxy").replace("proxys", "proxies"),
            );
            ("CANARY      ", Color::Warn, text)
        }
        RolloutState::Aborted => {
            let since = one.at.map_or(String::new(), |at| format!(" {} ago", span(now - at)));
            let by = one.by.as_ref().map_or(String::new(), |by| format!(" (by {by})"));
            let text = format!(
                "{}: {rules} were given up{since}, all proxies keep {before}: {}{by}; {seen}",
                one.workload,
                one.why.as_deref().unwrap_or("nobody said why"),
            );
            ("ABORTED     ", Color::Bad, text)
        }
    };
    hanging(&style.paint(color, label), 12, &text)
}

fn table(fleet: &FleetReport, style: Style) -> String {
    let head = ["WORKLOAD", "ENFORCING", "REVISION", "DIGEST", "STATE"].map(str::to_owned);
    let rows = fleet.workloads.iter().map(|(name, workload)| {
        let present = workload.present();
        [
            visible(name),
            if present == 0 {
                "-".to_owned()
            } else {
                format!("{} of {present}", workload.count(Standing::Enforcing))
            },
            workload.revision.map_or("-".to_owned(), |revision| revision.counter.to_string()),
            workload.manifest.as_deref().map_or("-", short).to_owned(),
            state(workload, style),
        ]
    });
    text::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

fn state(workload: &WorkloadReport, style: Style) -> String {
    let counted = [Standing::Refusing, Standing::Lagging, Standing::Silent, Standing::Gone];
    let mut words: Vec<String> = counted
        .into_iter()
        .filter_map(|standing| match workload.count(standing) {
            0 => None,
            number => {
                let color = if standing == Standing::Gone { Color::Dim } else { Color::Bad };
                Some(style.paint(color, &format!("{number} {}", standing.word())))
            }
        })
        .collect();
    if workload.lacking > 0 {
        words.push(style.paint(Color::Warn, &format!("{} lacking", count(workload.lacking, "VM"))));
    }
    if let Some(canary) = &workload.canary {
        let proxies = workload.proxies.iter().filter(|one| canary.instances.contains(&one.instance));
        let canaries = count(proxies.count(), "canary").replace("canarys", "canaries");
        words.push(style.paint(Color::Warn, &canaries));
    }
    if workload.suspended_until.is_some() {
        words.push(style.paint(Color::Warn, "suspended"));
    }
    match (words.is_empty(), workload.present(), &workload.manifest) {
        (true, 0, Some(_)) => style.paint(Color::Dim, "no filter connected"),
        (_, _, None) => style.paint(Color::Bad, "not in the Mesh any more"),
        (true, ..) => style.paint(Color::Good, "enforced"),
        (false, ..) => words.join(", "),
    }
}

fn details(name: &str, workload: &WorkloadReport, all: bool, now: i64, style: Style) -> String {
    let told: Vec<_> = workload
        .proxies
        .iter()
        .filter(|proxy| {
            all || proxy.canary
                || (proxy.standing != Standing::Enforcing && proxy.standing != Standing::Gone)
                || !proxy.detail.is_empty() && proxy.standing != Standing::Gone
        })
        .collect();
    if told.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{}\n", style.paint(Color::Bold, &visible(name)));
    let most = if all { usize::MAX } else { MAX_TOLD };
    for proxy in told.iter().take(most) {
        let vms = format!("{} of {}", proxy.enforcing, count(proxy.vms, "VM"));
        let detail = if proxy.detail.is_empty() { String::new() } else { format!("; {}", proxy.detail) };
        let detail = if proxy.canary { format!(", canary{detail}") } else { detail };
        let seen = format!("heard of {} ago", span(now - proxy.seen_at));
        text.push_str(&labelled(
            proxy.standing.word(),
            &format!("{}  {vms}, {seen}{detail}", proxy.instance),
        ));
        if all {
            for vm in workload.vms.iter().filter(|vm| vm.instance == proxy.instance) {
                text.push_str(&labelled("", &described(vm, now)));
            }
        }
    }
    if told.len() > most {
        text.push_str(&labelled("", &format!("and {} more (--all)", told.len() - most)));
    }
    text
}

fn described(vm: &crate::push::VmReport, now: i64) -> String {
    let mut words = vec![
        format!("VM {}", short(&vm.generation)),
        if vm.connected { vm.state.clone() } else { "disconnected".to_owned() },
        format!("filter {}", vm.filter_version),
        format!("digest {}", vm.manifest.as_deref().map_or("none", short)),
    ];
    if !vm.lacks.is_empty() {
        words.push(format!("lacks {}", vm.lacks.join(", ")));
    }
    for (issuer, until) in &vm.keys_valid_until {
        words.push(match until - now {
            left if left > 0 => format!("keys of {issuer} count for {}", span(left)),
            late => format!("keys of {issuer} are {} too old", span(-late)),
        });
    }
    if let Some(counters) = vm.counters {
        words.push(format!("{} allowed, {} denied", counters.allowed, counters.denied));
    }
    words.join(", ")
}

#[cfg(test)]
pub(super) mod tests;
