//! Explanations for people.

use std::path::Path;

use serde::Serialize;
use tidegate_engine::Outcome;

use crate::cli::folder;
use crate::cli::paint::{Color, Style};
use crate::cli::test::render::{condition_lines, nearest};
use crate::cli::text::{labelled, visible};
use crate::clock;
use crate::explain::cloud::CloudRefusal;
use crate::explain::reasons::{Advice, Turn};
use crate::explain::refusal::Refusal;
use crate::explain::report::{Decided, NearestReport, RuleReport};
use crate::explain::request::Answer;

/// A refusal that somebody saw, for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RefusalReport<'a> {
    #[serde(flatten)]
    pub refusal: &'a Refusal,
    pub advice: &'a Advice,
    /// Where the rule is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<&'a str>,
}

/// All of it. `place`: where a rule is written.
pub(super) fn answer(
    answer: &Answer,
    place: &dyn Fn(&str) -> Option<String>,
    folder: &Path,
    style: Style,
) -> String {
    let mut text = verdict(&answer.decided, &answer.advice, style);
    text.push_str(&request(answer));
    if let Some(rule) = &answer.rule_report {
        text.push('\n');
        text.push_str(&rule_report(rule, "rule", place, style));
    }
    if let Some(found) = &answer.nearest {
        text.push('\n');
        text.push_str(&nearest(found, 2, style));
        let of = [place(&found.rule), Some(owner(&found.owner, &found.contact))];
        text.push_str(&labelled("", &of.into_iter().flatten().collect::<Vec<_>>().join(", ")));
    }
    if let Some(shadow) = &answer.decided.shadow {
        text.push('\n');
        let word = if shadow.decision == Outcome::Allow { "would allow it" } else { "would refuse it" };
        text.push_str(&labelled("Shadow", &format!("{word}: {}", shadow.sentence)));
        if let Some(rule) = &answer.shadow_rule_report {
            text.push_str(&rule_report(rule, "", place, style));
        }
    }
    if answer.degraded {
        text.push_str(&labelled(
            "degraded",
            "a directory is out of date, and the rule says that the service account is enough then",
        ));
    }
    if answer.decided.decision == Outcome::Deny || answer.decided.rule.is_none() {
        text.push('\n');
        text.push_str(&advice(answer));
    }
    answer.notes.iter().for_each(|note| text.push_str(&labelled("note", note)));
    text.push_str(&next(answer, folder));
    text
}

fn verdict(decided: &Decided, advice: &Advice, style: Style) -> String {
    match decided.decision {
        Outcome::Allow => {
            let word = style.paint(Color::Good, "ALLOWED");
            format!("{word}  {}: {}\n", decided.reason, decided.sentence)
        }
        Outcome::Deny => {
            let word = style.paint(Color::Bad, "REFUSED");
            let codes = style.paint(Color::Dim, &format!("HTTP {}, gRPC {}", advice.http, advice.grpc));
            format!("{word}  {}: {}  {codes}\n", decided.reason, decided.sentence)
        }
    }
}

fn request(answer: &Answer) -> String {
    let request = &answer.request;
    let mut text =
        labelled("request", &format!("{} https://{}{}", request.method, request.host, request.path));
    let guards: Vec<String> = answer
        .guards
        .iter()
        .map(|guard| format!("{}{}", guard.guard, if guard.enforced { "" } else { " (Shadow)" }))
        .collect();
    let guarded = if guards.is_empty() {
        "not guarded".to_owned()
    } else {
        format!("guarded by {}", guards.join(" and "))
    };
    text.push_str(&labelled(
        "at",
        &format!("{} port {}, {guarded}, {}", request.workload, request.port, clock::rfc3339(request.time)),
    ));
    text.push_str(&labelled("peer", request.peer.as_deref().unwrap_or("none: no certificate of the mesh")));
    let tokens = if request.tokens.is_empty() { "none".to_owned() } else { request.tokens.join(", ") };
    text.push_str(&labelled("tokens", &tokens));
    text
}

fn rule_report(
    rule: &RuleReport,
    label: &str,
    place: &dyn Fn(&str) -> Option<String>,
    style: Style,
) -> String {
    let name = style.paint(Color::Bold, &visible(&rule.rule));
    let place =
        place(&rule.rule).map(|place| format!("  {}", style.paint(Color::Dim, &place))).unwrap_or_default();
    let mut text =
        format!("  {label:<10}{name} ({}), {}{place}\n", rule.effect, owner(&rule.owner, &rule.contact));
    text.push_str(&condition_lines(&rule.conditions, 4, style));
    text
}

fn owner(owner: &str, contact: &str) -> String {
    let contact = if contact.is_empty() { String::new() } else { format!(" ({contact})") };
    visible(&format!("owned by {owner}{contact}"))
}

fn advice(answer: &Answer) -> String {
    let Advice { meaning, fix, turn, .. } = &answer.advice;
    let mut text = labelled("means", meaning);
    match answer.nearest.as_ref().and_then(only_one) {
        Some(missing) => text.push_str(&labelled(
            "do",
            &format!("send what is asked for, or have the rule changed: {missing}"),
        )),
        None => text.push_str(&labelled("do", fix)),
    }
    let who = answer.rule_report.as_ref().map(|rule| (&rule.owner, &rule.contact));
    let who = who.or_else(|| answer.nearest.as_ref().map(|found| (&found.owner, &found.contact)));
    let named = who.filter(|_| *turn == Turn::Owner).map(|(name, contact)| owner(name, contact));
    let named = named.map(|named| format!(": {}", named.trim_start_matches("owned by "))).unwrap_or_default();
    text.push_str(&labelled("turn", &format!("{}{named}", turn.words())));
    text.push_str(&labelled("runbook", &answer.advice.runbook));
    text
}

/// Where a single demand does not hold: that.
fn only_one(nearest: &NearestReport) -> Option<&str> {
    let mut missing = nearest.conditions.iter().filter(|one| one.depth == 0 && one.holds != "yes");
    let only = missing.next()?;
    missing.next().is_none().then_some(only.demand.as_str())
}

fn next(answer: &Answer, folder: &Path) -> String {
    let rules = folder.display();
    let request = &answer.request;
    match answer.decided.decision {
        Outcome::Deny => {
            format!(
                "next: tidegate who-can {} https://{}{} --rules {rules}\n",
                request.method, request.host, request.path
            )
        }
        Outcome::Allow => match &request.peer {
            Some(peer) => format!("next: tidegate what-can --peer {peer} --rules {rules}\n"),
            None => format!("next: tidegate test {rules}\n"),
        },
    }
}

/// What somebody was told, and what to do about it.
pub(super) fn refusal(refusal: &Refusal, advice: &Advice, place: Option<&str>, style: Style) -> String {
    let codes = style.paint(Color::Dim, &format!("HTTP {}, gRPC {}", advice.http, advice.grpc));
    let mut text = format!(
        "{}  {}  {codes}\n",
        style.paint(Color::Bold, refusal.reason.code()),
        refusal.reason.sentence()
    );
    if let Some(decision) = &refusal.decision {
        text.push_str(&labelled("decision", decision));
    }
    if let Some(rule) = &refusal.rule {
        let place = place.map(|place| format!(", {place}")).unwrap_or_default();
        text.push_str(&labelled("rule", &format!("{rule}{place}")));
    }
    text.push_str(&labelled("means", advice.meaning));
    text.push_str(&labelled("do", advice.fix));
    let name = refusal.owner.as_deref().unwrap_or_default();
    let contact = refusal.contact.as_deref().unwrap_or_default();
    let named = match (advice.turn, name, contact) {
        (Turn::Owner, "", "") => {
            " (the refusal does not name the rule: no rule decided, or the caller was not verified)"
                .to_owned()
        }
        (Turn::Owner, name, "") => format!(": {name}"),
        (Turn::Owner, name, contact) => format!(": {name} ({contact})"),
        _ => String::new(),
    };
    text.push_str(&labelled("turn", &format!("{}{named}", advice.turn.words())));
    text.push_str(&labelled("runbook", &advice.runbook));
    let code = refusal.reason.code();
    text.push_str(match () {
        () if code.starts_with("token_") && code != "token_required" => {
            "next: tidegate token explain token.txt --rules rules\n"
        }
        () if code == "not_ready" => "next: tidegate keys status\n",
        () => "next: tidegate explain METHOD URL --peer NAMESPACE/ACCOUNT --rules rules\n",
    });
    text
}

/// What a cloud service refused, which no rule of ours changes.
pub(super) fn cloud(refusal: &CloudRefusal, style: Style) -> String {
    let mut text = format!(
        "{}  {}\n",
        style.paint(Color::Bold, "not Tidegate"),
        "Google refused the request itself: Tidegate had let it pass, or never saw it"
    );
    let on = refusal.resource.as_ref().map(|name| format!(" on {name}")).unwrap_or_default();
    if let Some(permission) = &refusal.permission {
        text.push_str(&labelled("lacks", &format!("`{permission}`{on}")));
    } else if let Some(resource) = &refusal.resource {
        text.push_str(&labelled("resource", resource));
    }
    if !refusal.operations.is_empty() {
        text.push_str(&labelled("needed by", &refusal.operations.join(", ")));
    }
    text.push_str(&labelled(
        "means",
        "the account whose credentials Google saw has no IAM role with that permission there; rules of Tidegate do not grant it",
    ));
    let grant = match &refusal.permission {
        Some(permission) => {
            format!("grant that account a role with `{permission}`{on}, or call as an account that has one")
        }
        None => "look at the IAM policy of the resource: the account needs a role for this call".to_owned(),
    };
    text.push_str(&labelled("do", &grant));
    text.push_str(&labelled("turn", "whoever administers the Google project"));
    text
}

/// Where a rule is written, if the folder can be read.
pub(super) fn place_of(folder: &Path, env: Option<&Path>, rule: &str) -> Option<String> {
    let opened = folder::open_quietly(folder, env)?;
    let tests = opened.tests();
    let (file, line) = tests.origins.get(&tidegate_compiler::rule_object(rule))?;
    Some(format!("{}:{line}", folder.join(file).display()))
}
