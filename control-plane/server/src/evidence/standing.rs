//! Tables of what stands: rules and their history, who can do what, and what is not as the rules would have it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use tidegate_engine::model::{Audit, Condition, Effect, Mode, OnExpiry, RuleModel, Test};

use super::decided::{Decided, Tally};
use super::{Inputs, Rules, Writer, row};
use crate::control::{Broken, Intervention, RuleSet};
use crate::decisions::record::Moment;
use crate::explain::access;
use crate::push::Standing;
use crate::rollout::RolloutState;
use crate::uses::Verdict;

/// How many workloads are named of one rule.
const MAX_NAMED: usize = 16;

/// Writes them.
pub(super) fn write(inputs: &Inputs, decided: &Decided, out: &mut Writer<'_>) -> io::Result<()> {
    out.file("rules-in-force.csv", |out| rules(inputs, out))?;
    out.file("rule-history.csv", |out| history(inputs, out))?;
    out.file("who-can.csv", |out| who_can(inputs, out))?;
    out.file("exceptions.csv", |out| exceptions(inputs, decided, out))?;
    out.file("interventions.csv", |out| interventions(inputs, out))
}

fn at(seconds: i64) -> String {
    Moment::of_seconds(seconds).to_string()
}

fn rules(inputs: &Inputs, out: &mut Writer<'_>) -> io::Result<()> {
    out.line(&row(&[
        "rule",
        "effect",
        "mode",
        "audit",
        "owner",
        "contact",
        "workloads",
        "at",
        "file",
        "line",
        "commit",
        "author",
        "committed",
        "lastUsed",
        "decided",
        "use",
        "countedSince",
    ]))?;
    let Some(Rules { compiled, .. }) = &inputs.rules else { return Ok(()) };
    let mut rules = BTreeMap::<&str, (&RuleModel, Vec<String>)>::new();
    for (workload, policy) in &compiled.workloads {
        for rule in &policy.model.rules {
            rules.entry(&rule.id).or_insert((rule, Vec::new())).1.push(workload.to_string());
        }
    }
    let uses: BTreeMap<&str, _> = inputs.uses.rules.iter().map(|used| (used.rule.as_str(), used)).collect();
    for (name, (rule, workloads)) in rules {
        let source = inputs.sources.get(name);
        let used = uses.get(name);
        let verdict = match used.map(|used| used.verdict) {
            None => "",
            Some(Verdict::Used) => "used",
            Some(Verdict::Unused) => "unused",
            Some(Verdict::TooEarly) => "not counted for long enough",
            Some(Verdict::Unknown) => "not known",
        };
        let audit = match rule.audit {
            Audit::Sampled => "sampled",
            Audit::Full => "full",
            Audit::Required => "required",
        };
        out.line(&row(&[
            name.to_owned(),
            crate::explain::report::effect_word(rule.effect).to_owned(),
            mode(rule.mode).to_owned(),
            audit.to_owned(),
            rule.owner.clone(),
            rule.contact.clone(),
            workloads.len().to_string(),
            named(&workloads),
            source.map(|source| source.file.clone()).unwrap_or_default(),
            source.map(|source| source.line.to_string()).unwrap_or_default(),
            source.and_then(|source| source.commit.clone()).unwrap_or_default(),
            source.and_then(|source| source.author.clone()).unwrap_or_default(),
            source.and_then(|source| source.committed).map(|at| at.to_string()).unwrap_or_default(),
            used.and_then(|used| used.last_used).map(at).unwrap_or_default(),
            used.map(|used| used.count.to_string()).unwrap_or_default(),
            verdict.to_owned(),
            used.and_then(|used| used.counted_since).map(at).unwrap_or_default(),
        ]))?;
    }
    Ok(())
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "Enforce",
        Mode::Shadow => "Shadow",
    }
}

fn named(workloads: &[String]) -> String {
    let more = if workloads.len() > MAX_NAMED { " …" } else { "" };
    let first: Vec<&str> = workloads.iter().take(MAX_NAMED).map(String::as_str).collect();
    format!("{}{more}", first.join(" "))
}

/// Each rule set that was accepted in the time, and the one before it: which files changed.
fn history(inputs: &Inputs, out: &mut Writer<'_>) -> io::Result<()> {
    out.line(&row(&["accepted", "number", "digest", "change", "file", "before", "after", "note"]))?;
    let sets = &inputs.control.history;
    let of = |set: &RuleSet| [at(set.at), set.number.to_string(), set.digest.clone()];
    let from = inputs.from.0.div_euclid(1_000_000);
    let is_in_time = |set: &RuleSet| set.at >= from && Moment::of_seconds(set.at) < inputs.to;
    if sets.first().is_none_or(|first| first.at > from) {
        let words = match sets.first() {
            Some(first) => format!("which rules were accepted before {} is not kept", at(first.at)),
            None => "no rule set is kept".to_owned(),
        };
        out.line(&row(&[inputs.from.to_string().as_str(), "", "", "unknown", "", "", "", &words]))?;
    }
    for (position, set) in sets.iter().enumerate() {
        let before = position.checked_sub(1).and_then(|before| sets.get(before));
        // What was in force when the time began.
        let was_there = set.at < from && sets.get(position + 1).is_none_or(|next| next.at >= from);
        if !is_in_time(set) && !was_there {
            continue;
        }
        let none = BTreeMap::new();
        let files = inputs.files.get(&set.number);
        let known = before.map(|before| inputs.files.get(&before.number));
        let [accepted, number, digest] = of(set);
        let mut line = |change: &str, file: &str, before: &str, after: &str, note: &str| {
            out.line(&row(&[accepted.as_str(), &number, &digest, change, file, before, after, note]))
        };
        let Some(files) = files else {
            line("unknown", "", "", "", "its files are not kept")?;
            continue;
        };
        if was_there {
            for (name, hash) in files {
                line("in force before", name, hash, hash, "accepted before the time that is asked for")?;
            }
            continue;
        }
        let (before, note) = match known {
            Some(Some(before)) => (before, ""),
            Some(None) => (&none, "the files of the rule set before are not kept"),
            None => (&none, "the first rule set that is kept"),
        };
        let names: BTreeSet<&String> = before.keys().chain(files.keys()).collect();
        for name in names {
            match (before.get(name), files.get(name)) {
                (None, Some(after)) => line("added", name, "", after, note)?,
                (Some(before), None) => line("removed", name, before, "", note)?,
                (Some(before), Some(after)) if before != after => line("changed", name, before, after, note)?,
                _ => {}
            }
        }
    }
    Ok(())
}

fn who_can(inputs: &Inputs, out: &mut Writer<'_>) -> io::Result<()> {
    out.line(&row(&["workload", "operation", "effect", "mode", "caller", "with", "rule"]))?;
    let Some(Rules { compiled, .. }) = &inputs.rules else { return Ok(()) };
    let mut lines = BTreeSet::new();
    for grant in access::all(compiled) {
        let with = grant.with.join(" and ");
        let mode = if grant.enforced { "Enforce" } else { "Shadow" };
        for operation in &grant.operations {
            let cells = [&grant.workload, operation, grant.effect, mode, &grant.caller, &with, &grant.rule];
            lines.insert(cells.map(str::to_owned));
        }
    }
    for (workload, _) in compiled.workloads.iter().filter(|(_, policy)| !policy.covered) {
        let cells = [&workload.to_string(), "anything", "Allow", "Enforce", "everybody", "", ""];
        lines.insert(cells.map(str::to_owned));
    }
    lines.iter().try_for_each(|cells| out.line(&row(cells)))
}

/// A line of the table of exceptions.
#[derive(Debug, Default)]
struct Exception<'a> {
    kind: &'a str,
    workload: &'a str,
    what: &'a str,
    from: String,
    until: String,
    by: &'a str,
    why: &'a str,
    ticket: &'a str,
    tally: Option<Tally>,
}

impl Exception<'_> {
    const HEAD: [&'static str; 8] = ["kind", "workload", "what", "from", "until", "by", "why", "ticket"];

    fn line(&self) -> String {
        let Self { kind, workload, what, from, until, by, why, ticket, tally } = self;
        let cells =
            [*kind, *workload, *what, from.as_str(), until.as_str(), *by, *why, *ticket].map(str::to_owned);
        let tally = tally.map_or_else(Default::default, |tally| tally.cells());
        row(&cells.into_iter().chain(tally).collect::<Vec<String>>())
    }
}

fn exceptions(inputs: &Inputs, decided: &Decided, out: &mut Writer<'_>) -> io::Result<()> {
    out.line(&row(&Exception::HEAD.into_iter().chain(Tally::HEAD).collect::<Vec<_>>()))?;
    for ([kind, workload, rule, why], tally) in decided.exceptions.rows() {
        let one = Exception { kind, workload, what: rule, why, tally: Some(*tally), ..Exception::default() };
        out.line(&one.line())?;
    }
    if let Some(rules) = &inputs.rules {
        of_rules(rules, out)?;
    }
    by_people(inputs, out)?;
    of_proxies(inputs, out)
}

fn of_rules(rules: &Rules, out: &mut Writer<'_>) -> io::Result<()> {
    for (workload, policy) in &rules.compiled.workloads {
        let workload = workload.to_string();
        let mut tell = |kind: &str, what: &str, why: &str| {
            out.line(&Exception { kind, workload: &workload, what, why, ..Exception::default() }.line())
        };
        if !policy.covered {
            tell("unguarded", "", "no Guard covers it: everything passes")?;
        }
        for port in &policy.tcp_ports {
            tell(
                "unguarded-port",
                &port.to_string(),
                "a Guard declares that it speaks no HTTP: everything passes",
            )?;
        }
        for guard in policy.model.guards.iter().filter(|guard| guard.mode == Mode::Shadow) {
            tell("guard-in-shadow", &guard.id, "what it would refuse passes and is reported")?;
        }
        for rule in &policy.model.rules {
            if rule.mode == Mode::Shadow {
                tell("rule-in-shadow", &rule.id, "it is evaluated and reported, never enforced")?;
            }
            if rule.effect == Effect::Allow && rule.lease.on_expiry == OnExpiry::Keep {
                tell(
                    "outlives-token",
                    &rule.id,
                    "streams go on when their token has expired (`onExpiry: keep`)",
                )?;
            }
            if rule.effect == Effect::Allow && may_be_stale(rule) {
                tell(
                    "fail-open",
                    &rule.id,
                    "it allows while a directory cannot be asked, because it says so",
                )?;
            }
        }
    }
    Ok(())
}

/// Whether it matches without the answer of a directory.
fn may_be_stale(rule: &RuleModel) -> bool {
    fn of(condition: &Condition) -> bool {
        match condition {
            Condition::All(parts) | Condition::Any(parts) => parts.iter().any(of),
            Condition::Not(part) => of(part),
            Condition::Claim(_, test) => matches!(test, Test::ListedOrStale(_)),
            Condition::True | Condition::Compare(..) | Condition::Text(..) | Condition::Within(_) => false,
        }
    }
    let operations = rule.to.iter().flatten().map(|to| &to.condition);
    rule.from.iter().map(|from| &from.condition).chain(operations).any(of)
}

/// What is done by hand now. What has ended is in a table of its own.
fn by_people(inputs: &Inputs, out: &mut Writer<'_>) -> io::Result<()> {
    for one in &inputs.control.suspensions {
        let exception = Exception {
            kind: "suspended",
            workload: &one.workload,
            what: &one.id,
            from: at(one.at),
            until: at(one.until),
            by: &one.by,
            why: &one.reason,
            ticket: &one.ticket,
            tally: None,
        };
        out.line(&exception.line())?;
    }
    for one in &inputs.control.revocations {
        // What they say of themselves is not marked safe.
        let what = format!("{}: {}", one.id, one.target.without_names_of_tokens());
        let exception = Exception {
            kind: "revoked",
            what: &what,
            from: at(one.at),
            until: at(one.until),
            by: &one.by,
            why: &one.reason,
            ..Exception::default()
        };
        out.line(&exception.line())?;
    }
    for Broken { id, why, in_force } in &inputs.control.broken {
        let kind = if *in_force { "rules-held-back-by-revocation" } else { "revocation-not-in-force" };
        out.line(&Exception { kind, what: id, why, ..Exception::default() }.line())?;
    }
    for one in &inputs.control.rollouts {
        let (kind, from, why) = match one.state {
            RolloutState::Canary => ("changed-rules-held-back", one.since, "canaries try them first"),
            RolloutState::Aborted => (
                "changed-rules-given-up",
                one.at.unwrap_or(one.since),
                one.why.as_deref().unwrap_or_default(),
            ),
        };
        let what = format!("rule set {} (those of {} are enforced)", one.rules, one.before);
        let exception = Exception {
            kind,
            workload: &one.workload,
            what: &what,
            from: at(from),
            by: one.by.as_deref().unwrap_or_default(),
            why,
            ..Exception::default()
        };
        out.line(&exception.line())?;
    }
    if let Some(pin) = &inputs.control.pin {
        let what = format!("rule set {}", pin.number);
        let exception = Exception {
            kind: "pinned",
            what: &what,
            from: at(pin.at),
            by: &pin.by,
            why: &pin.reason,
            ..Exception::default()
        };
        out.line(&exception.line())?;
    }
    Ok(())
}

/// What people did to what was in force at some moment of the time: what began in it, what ended in it, and what went on.
fn interventions(inputs: &Inputs, out: &mut Writer<'_>) -> io::Result<()> {
    out.line(&row(&[
        "kind", "id", "what", "from", "by", "why", "ticket", "until", "ended", "how", "endedBy", "note",
    ]))?;
    let (from, to) = (inputs.from, inputs.to);
    let since = Moment::of_seconds(inputs.control.interventions_since);
    if since > from {
        let note = format!("what ended before {since} is not all kept");
        out.line(&row(&["unknown", "", "", &from.to_string(), "", "", "", "", "", "", "", &note]))?;
    }
    let is_in_time = |one: &&Intervention| {
        let ended = one.end.as_ref().map(|end| Moment::of_seconds(end.at));
        Moment::of_seconds(one.at) < to && ended.is_none_or(|ended| ended >= from)
    };
    for one in inputs.control.interventions.iter().filter(is_in_time) {
        // What happened after the time is told, too: it says how the same thing ended.
        let (ended, how, ended_by) = match &one.end {
            Some(end) => (at(end.at), end.how.word(), end.by.as_deref().unwrap_or_default()),
            None => (String::new(), "in force", ""),
        };
        let until = one.until.map(at).unwrap_or_default();
        let from = at(one.at);
        let kind = one.kind.word();
        out.line(&row(&[
            kind,
            &one.id,
            &one.what,
            &from,
            &one.by,
            &one.reason,
            &one.ticket,
            &until,
            &ended,
            how,
            ended_by,
            "",
        ]))?;
    }
    Ok(())
}

/// Proxies that do not enforce what they are to, and pods without any.
fn of_proxies(inputs: &Inputs, out: &mut Writer<'_>) -> io::Result<()> {
    for (workload, found) in &inputs.fleet.workloads {
        for proxy in &found.proxies {
            if !matches!(proxy.standing, Standing::Enforcing | Standing::Gone) {
                let why = format!("{}: {}", proxy.standing.word(), proxy.detail);
                let from = at(proxy.seen_at);
                let one = Exception {
                    kind: "not-enforcing",
                    workload,
                    what: &proxy.instance,
                    from,
                    why: &why,
                    ..Exception::default()
                };
                out.line(&one.line())?;
            }
        }
        let is_wanted = inputs.rules.as_ref().is_some_and(|rules| {
            rules.compiled.workloads.iter().any(|(id, policy)| policy.covered && id.to_string() == *workload)
        });
        if is_wanted && found.present() == 0 {
            let why = "no proxy of it is connected: whether anything refuses there is not known here";
            out.line(&Exception { kind: "no-proxy-known", workload, why, ..Exception::default() }.line())?;
        }
    }
    match &inputs.bypassed {
        None => {
            let why = "this control plane does not see pods: whether some have no proxy is not known here";
            out.line(&Exception { kind: "bypassed-not-known", why, ..Exception::default() }.line())
        }
        Some(bypassed) => bypassed.iter().try_for_each(|(workload, pods)| {
            pods.iter().try_for_each(|pod| {
                let why = "it has no proxy that could refuse anything";
                out.line(
                    &Exception { kind: "bypassed", workload, what: pod, why, ..Exception::default() }.line(),
                )
            })
        }),
    }
}
