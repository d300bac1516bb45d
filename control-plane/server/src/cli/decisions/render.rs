//! Decisions for people.

use tidegate_engine::Reason;

use crate::admin::Line;
use crate::cli::paint::{Color, Style};
use crate::cli::test::render::{condition_lines, nearest};
use crate::cli::text::{hanging, labelled, visible};
use crate::clock::{self, span};
use crate::decisions::explain::{Explained, RulesUsed};
use crate::decisions::filter::short_peer;
use crate::decisions::record::{Difference, Entry, Gap, Outcome, Recorded, RuleSource};
use crate::explain::reasons::{Turn, advice};
use crate::explain::report::{ConditionReport, NearestReport, RuleReport};

/// Digits of a commit or digest that are shown.
const SHORT: usize = 10;

/// A line per entry.
pub(super) fn list(entries: &[Entry], more: bool, style: Style) -> String {
    let mut text = String::new();
    let mut day = String::new();
    for entry in entries {
        let at = entry.time().to_string();
        let (date, _) = at.split_once('T').unwrap_or((&at, ""));
        if date != day {
            date.clone_into(&mut day);
            text.push_str(&format!("{}\n", style.paint(Color::Bold, date)));
        }
        text.push_str(&match entry {
            Entry::Decision(recorded) => decision(recorded, style),
            Entry::Gap(gap) => missing(gap, style),
        });
    }
    if entries.is_empty() {
        text.push_str("no decision that is kept is like that\n");
    }
    if more {
        text.push_str("and more: --limit 0 shows all, --since and --until narrow it down\n");
    }
    let refused = entries.iter().find_map(|entry| match entry {
        Entry::Decision(one) if one.outcome != Outcome::Allow => Some(one.id.clone()),
        _ => None,
    });
    if let Some(id) = refused {
        text.push_str(&format!("next: tidegate explain {}\n", visible(&id)));
    }
    text
}

/// A line of a tail.
pub(super) fn line(line: &Line, style: Style) -> String {
    match line {
        Line::Decision(recorded) => decision(recorded, style),
        Line::Explained(explained) => {
            let mut text = decision(&explained.decision, style);
            text.push_str(&why(explained, style));
            text
        }
        Line::Gap(gap) => missing(gap, style),
        Line::Missed(count) => {
            let told = format!("          {count} decisions came too fast to be shown; narrow it down");
            format!("{}\n", style.paint(Color::Warn, &told))
        }
    }
}

fn clock_of(at: &str) -> &str {
    at.split_once('T').and_then(|(_, time)| time.get(..8)).unwrap_or(at)
}

fn word(recorded: &Recorded, style: Style) -> String {
    match recorded.outcome {
        _ if recorded.ended => style.paint(Color::Bad, "ENDED  "),
        Outcome::Allow => style.paint(Color::Good, "allowed"),
        Outcome::Deny => style.paint(Color::Bad, "REFUSED"),
        Outcome::Unknown => style.paint(Color::Warn, "unknown"),
    }
}

fn decision(recorded: &Recorded, style: Style) -> String {
    let at = recorded.time.to_string();
    let request = format!("{} {}{}", recorded.method, recorded.host, recorded.path);
    let told = format!(
        "{} → {request}  {}",
        who(recorded),
        recorded.rule_name().map_or(recorded.reason.clone(), |rule| format!("{} {rule}", recorded.reason))
    );
    let differs = [("Shadow", &recorded.shadow), ("candidate", &recorded.candidate)];
    let differs =
        differs.into_iter().filter_map(|(what, one)| Some(format!("  {what}: {}", would(one.as_ref()?))));
    let told = format!("{told}{}", differs.collect::<String>());
    let times = if recorded.stands_for > 1 { format!(" ×{}", recorded.stands_for) } else { String::new() };
    let start = format!(
        "{}  {}{times}  {}  ",
        style.paint(Color::Dim, clock_of(&at)),
        word(recorded, style),
        style.paint(Color::Dim, &visible(&recorded.id))
    );
    hanging(&start, 35, &told)
}

fn missing(gap: &Gap, style: Style) -> String {
    let lost = match gap.lost {
        Some(1) => "1 decision is missing".to_owned(),
        Some(lost) => format!("{lost} decisions are missing"),
        None => "decisions are missing, nobody knows how many".to_owned(),
    };
    let precious = match gap.lost_in_full {
        0 => String::new(),
        count => format!(", {count} of them refusals or others that were to be kept in any case"),
    };
    let of = match (gap.workload.as_str(), gap.instance.as_str()) {
        ("", _) => String::new(),
        (workload, "") => format!(" of {workload}"),
        (workload, instance) => format!(" of {workload} ({instance})"),
    };
    let at = gap.time.to_string();
    let start =
        format!("{}  {}  ", style.paint(Color::Dim, clock_of(&at)), style.paint(Color::Warn, "GAP    "));
    hanging(&start, 19, &format!("{lost}{precious}{of}: {}", gap.cause.words()))
}

/// Who called, in few words.
fn who(recorded: &Recorded) -> String {
    let peer = recorded.peer.as_deref().map(|peer| short_peer(peer).unwrap_or_else(|| peer.to_owned()));
    let run = recorded.run.as_ref().map(|run| format!("{} {}", run.kind.words(), run.id));
    match (peer, run) {
        (Some(peer), Some(run)) => format!("{peer} ({run})"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => recorded.identities.first().cloned().unwrap_or_else(|| "nobody known".to_owned()),
    }
}

fn would(difference: &Difference) -> String {
    let word = match difference.outcome {
        Outcome::Allow => "would allow it",
        Outcome::Deny => "would refuse it",
        Outcome::Unknown => "would decide otherwise",
    };
    let by = difference.rule.as_ref().map(|rule| format!(" ({rule})")).unwrap_or_default();
    format!("{word}: {}{by}", difference.reason)
}

/// What a refusal rests on, in few lines.
fn why(explained: &Explained, style: Style) -> String {
    let Some(nearest) = &explained.nearest else { return String::new() };
    let name = style.paint(Color::Bold, &visible(&nearest.rule));
    let mut text = format!("{:19}nearest {name}, {} of {} conditions hold\n", "", nearest.held, nearest.of);
    let lacking: Vec<ConditionReport> =
        nearest.conditions.iter().filter(|one| one.holds != "yes").cloned().collect();
    text.push_str(&condition_lines(&lacking, 21, style));
    text
}

/// All of one decision.
pub(super) fn explained(explained: &Explained, style: Style) -> String {
    let one = &explained.decision;
    let reason = Reason::from_code(&one.reason);
    let mut text = verdict(one, reason, style);
    let at = one.time.seconds();
    let ago = span(clock::now().saturating_sub(at));
    text.push_str(&labelled(
        "decision",
        &format!("{}, {} ({ago} ago)", one.id, second(&one.time.to_string())),
    ));
    text.push_str(&labelled("request", &format!("{} https://{}{}", one.method, one.host, one.path)));
    text.push_str(&labelled("at", &place(one)));
    text.push_str(&caller(one));
    text.push_str(&operation(one));
    if let Some(rule) = &explained.rule {
        text.push('\n');
        let source = one.rule.as_ref().and_then(|rule| rule.source.as_ref());
        text.push_str(&deciding(rule, source, style));
    } else if let Some(rule) = &one.rule {
        text.push_str(&labelled("rule", &rule.name));
        text.push_str(&rule.source.iter().map(|source| labelled("", &written(source))).collect::<String>());
    }
    if let Some(found) = &explained.nearest {
        text.push('\n');
        text.push_str(&nearest(found, 2, style));
        let of = [explained.nearest_source.as_ref().map(written), Some(owner(&found.owner, &found.contact))];
        text.push_str(&labelled("", &of.into_iter().flatten().collect::<Vec<_>>().join(", ")));
    }
    for (label, difference) in [("Shadow", &one.shadow), ("candidate", &one.candidate)] {
        text.push_str(&difference.iter().map(|one| labelled(label, &would(one))).collect::<String>());
    }
    text.push('\n');
    text.push_str(&todo(explained, reason));
    text.push_str(&labelled("enforced", &enforced(one)));
    if explained.rules == RulesUsed::Current {
        text.push_str(&labelled(
            "note",
            "the rules that decided are not kept any more; what is said about rules is by those of now",
        ));
    }
    explained.notes.iter().for_each(|note| text.push_str(&labelled("note", note)));
    text.push_str(&next(one));
    text
}

fn second(at: &str) -> String {
    at.split_once('.').map_or(at.to_owned(), |(whole, _)| format!("{}Z", whole.replace('T', " ")))
}

fn verdict(one: &Recorded, reason: Option<Reason>, style: Style) -> String {
    let sentence = reason.map_or("a reason of a newer filter", Reason::sentence);
    let codes = reason.filter(|_| one.outcome != Outcome::Allow).map(|reason| {
        let advice = advice(reason);
        style.paint(Color::Dim, &format!("  HTTP {}, gRPC {}", advice.http, advice.grpc))
    });
    let word = match one.outcome {
        _ if one.ended => style.paint(Color::Bad, "ENDED"),
        Outcome::Allow => style.paint(Color::Good, "ALLOWED"),
        Outcome::Deny => style.paint(Color::Bad, "REFUSED"),
        Outcome::Unknown => style.paint(Color::Warn, "UNKNOWN"),
    };
    format!("{word}  {}: {sentence}{}\n", visible(&one.reason), codes.unwrap_or_default())
}

fn place(one: &Recorded) -> String {
    let port = one.port.map(|port| format!(" port {port}")).unwrap_or_default();
    let instance = if one.instance.is_empty() { String::new() } else { format!(", by {}", one.instance) };
    format!("{}{port}{instance}", one.workload)
}

fn caller(one: &Recorded) -> String {
    let mut text = labelled("peer", one.peer.as_deref().unwrap_or("none: no certificate of the mesh"));
    for issuer in &one.issuers {
        let of = one.claims.iter().filter(|claim| claim.issuer == *issuer);
        let claims: Vec<String> =
            of.map(|claim| format!("{}={}", claim.claim, claim.values.join(","))).collect();
        let claims =
            if claims.is_empty() { "no claim that is marked safe".to_owned() } else { claims.join("  ") };
        text.push_str(&labelled("token", &format!("{issuer}: {claims}")));
    }
    if one.issuers.is_empty() {
        text.push_str(&labelled("tokens", "none that was verified"));
    }
    if let Some(run) = &one.run {
        let parts = [
            Some(format!("{} {}", run.kind.words(), run.id)),
            run.project.as_ref().map(|project| format!("of {project}")),
            run.attempt.as_ref().map(|attempt| format!("attempt {attempt}")),
            run.job.as_ref().map(|job| format!("job {job}")),
            run.reference.as_ref().map(|reference| format!("ref {reference}")),
            run.commit.as_ref().map(|commit| format!("commit {}", short(commit))),
            run.initiator.as_ref().map(|who| format!("started by {who}")),
            run.agent.as_ref().map(|agent| format!("agent {agent}")),
            run.model.as_ref().map(|model| format!("model {model}")),
            run.guessed.then(|| "by its name".to_owned()),
            run.by_labels.then(|| "by labels of its pod, which no token confirms".to_owned()),
        ];
        text.push_str(&labelled("run", &parts.into_iter().flatten().collect::<Vec<_>>().join(", ")));
    }
    text
}

fn operation(one: &Recorded) -> String {
    let Some(operation) = &one.operation else {
        return one.resource.iter().map(|name| labelled("resource", name)).collect();
    };
    let on = one.resource.as_ref().map(|name| format!(" on {name}")).unwrap_or_default();
    let mut text = labelled("does", &format!("{} ({}){on}", operation.method, operation.action));
    if one.outcome == Outcome::Allow && !operation.permissions.is_empty() {
        let needs = operation.permissions.join("`, `");
        text.push_str(&labelled(
            "then",
            &format!(
                "the service decides, too. If it refused the request, that was not Tidegate: the account that called lacks \
                 `{needs}`{on}"
            ),
        ));
    }
    text
}

fn deciding(rule: &RuleReport, source: Option<&RuleSource>, style: Style) -> String {
    let name = style.paint(Color::Bold, &visible(&rule.rule));
    let mut text = format!(
        "  {:<10}{name} ({}), {}\n",
        "rule",
        rule.effect,
        visible(&owner(&rule.owner, &rule.contact))
    );
    text.push_str(&source.iter().map(|source| labelled("", &written(source))).collect::<String>());
    text.push_str(&condition_lines(&rule.conditions, 4, style));
    text
}

fn owner(owner: &str, contact: &str) -> String {
    let contact = if contact.is_empty() { String::new() } else { format!(" ({contact})") };
    format!("owned by {owner}{contact}")
}

/// Where a rule is written, and who changed it last.
fn written(source: &RuleSource) -> String {
    let mut text = format!("{}:{}", source.file, source.line);
    if let Some(commit) = &source.commit {
        text.push_str(&format!(", commit {}", short(commit)));
    }
    if let Some(author) = &source.author {
        text.push_str(&format!(" by {author}"));
    }
    if let Some(at) = source.committed {
        text.push_str(&format!(", {} ago", span(clock::now().saturating_sub(at.seconds()))));
    }
    if source.by_annotations {
        text.push_str(", as the object says of itself");
    }
    text
}

fn short(hex: &str) -> &str {
    hex.get(..SHORT).unwrap_or(hex)
}

fn todo(explained: &Explained, reason: Option<Reason>) -> String {
    let Some(reason) = reason else {
        return labelled(
            "means",
            "this version does not know the reason; ask with the version of the control plane",
        );
    };
    let advice = advice(reason);
    let mut text = labelled("means", advice.meaning);
    if explained.decision.outcome == Outcome::Allow && !explained.decision.ended {
        return text;
    }
    match explained.nearest.as_ref().and_then(only_one) {
        Some(missing) => text.push_str(&labelled(
            "do",
            &format!("send what is asked for, or have the rule changed: {missing}"),
        )),
        None => text.push_str(&labelled("do", advice.fix)),
    }
    let owned = explained.rule.as_ref().map(|rule| (&rule.owner, &rule.contact));
    let owned = owned.or_else(|| explained.nearest.as_ref().map(|found| (&found.owner, &found.contact)));
    let named = owned.filter(|_| advice.turn == Turn::Owner).map(|(name, contact)| {
        let contact = if contact.is_empty() { String::new() } else { format!(" ({contact})") };
        format!(": {name}{contact}")
    });
    text.push_str(&labelled("turn", &format!("{}{}", advice.turn.words(), named.unwrap_or_default())));
    text.push_str(&labelled("runbook", &advice.runbook));
    text
}

/// Where a single demand does not hold: that.
fn only_one(nearest: &NearestReport) -> Option<&str> {
    let mut missing = nearest.conditions.iter().filter(|one| one.depth == 0 && one.holds != "yes");
    let only = missing.next()?;
    missing.next().is_none().then_some(only.demand.as_str())
}

fn enforced(one: &Recorded) -> String {
    let mut parts = Vec::new();
    parts.extend(one.revision.map(|revision| format!("revision {}:{}", revision.epoch, revision.counter)));
    parts.extend(one.digest.as_ref().map(|digest| format!("bundle {}", short(digest))));
    if one.decided_in_ns > 0 {
        parts.push(format!(
            "decided in {:.1} µs",
            std::time::Duration::from_nanos(one.decided_in_ns).as_secs_f64() * 1e6
        ));
    }
    if one.degraded {
        parts.push("without the answer of a directory, as the rule says".to_owned());
    }
    parts.extend(one.trace_id.as_ref().map(|id| format!("trace {id}")));
    parts.push("as the filter says".to_owned());
    parts.join(", ")
}

fn next(one: &Recorded) -> String {
    let id = match &one.run {
        Some(run) => format!("--run {}", visible(&run.id)),
        None => match one.peer.as_deref().and_then(short_peer) {
            Some(peer) => format!("--identity {}", visible(&peer)),
            None => format!("--workload {}", visible(&one.workload)),
        },
    };
    format!("next: tidegate decisions {id} --since 1h\n")
}
