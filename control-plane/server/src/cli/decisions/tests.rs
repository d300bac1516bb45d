use super::render;
use crate::admin::Line;
use crate::cli::paint::Style;
use crate::decisions::explain::{Explained, RulesUsed};
use crate::decisions::record::{
    Difference, Entry, Gap, GapCause, Moment, Operation, Outcome, RuleRef, RuleSource,
};
use crate::decisions::testing::recorded;
use crate::explain::report::{ConditionReport, NearestReport};

const AT: i64 = 1_795_203_600_000_000;

fn nearest() -> NearestReport {
    let condition = |demand: &str, holds, actual: Option<&str>| ConditionReport {
        depth: 0,
        demand: demand.into(),
        holds,
        actual: actual.map(str::to_owned),
    };
    NearestReport {
        rule: "sales/writers".into(),
        shadow: false,
        owner: "team-billing".into(),
        contact: "#billing".into(),
        held: 2,
        of: 3,
        conditions: vec![
            condition("peer etl/orders-worker", "yes", None),
            condition("gitlab.ref_protected is \"true\"", "no", Some("\"false\"")),
            condition("method POST", "yes", None),
        ],
    }
}

fn refused() -> Explained {
    let source = RuleSource {
        file: "sales/orders.yaml".into(),
        line: 14,
        commit: Some("3f2a1b4c5d6e7f80".into()),
        author: Some("Dana".into()),
        committed: None,
        by_annotations: false,
    };
    Explained {
        decision: recorded("7Q4K-M2XD-0001", Outcome::Deny, AT),
        rules: RulesUsed::Current,
        rule: None,
        nearest: Some(nearest()),
        nearest_source: Some(source),
        notes: vec!["a note".into()],
    }
}

/// Without what depends on when it is run.
fn shown(explained: &Explained) -> String {
    let text = render::explained(explained, Style::Plain);
    let line = |line: &str| {
        line.split_once(" (")
            .filter(|_| line.starts_with("  decision"))
            .map_or(line.to_owned(), |(a, _)| a.to_owned())
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_refusal_is_told_whole() {
    insta::assert_snapshot!(shown(&refused()));
}

#[test]
fn what_is_allowed_tells_what_the_service_itself_wants() {
    let mut decision = recorded("7Q4K-M2XD-0001", Outcome::Allow, AT);
    decision.rule = Some(RuleRef { name: "sales/writers".into(), source: refused().nearest_source });
    decision.host = "dataflow.googleapis.com".into();
    decision.operation = Some(Operation {
        service: "dataflow".into(),
        method: "dataflow.projects.locations.jobs.create".into(),
        action: "launch".into(),
        permissions: vec!["dataflow.jobs.create".into()],
    });
    decision.resource = Some("projects/acme/locations/europe-west4/jobs".into());
    let explained = Explained { decision, nearest: None, nearest_source: None, notes: vec![], ..refused() };
    insta::assert_snapshot!(shown(&explained));
}

#[test]
fn lists_and_tails_are_lines() {
    let gap = Gap {
        time: Moment(AT),
        workload: "sales/orders".into(),
        instance: "orders-7d9f".into(),
        cause: GapCause::FilterDropped,
        lost: Some(5),
        lost_in_full: 2,
    };
    let mut other = recorded("ABCD-0000-0002", Outcome::Allow, AT - 90_000_000_000);
    other.stands_for = 10;
    other.shadow = Some(Difference {
        outcome: Outcome::Deny,
        reason: "denied_by_rule".into(),
        rule: Some("sales/x".into()),
    });
    let entries =
        [Entry::Decision(refused().decision.into()), Entry::Gap(gap.clone()), Entry::Decision(other.into())];
    let mut text = render::list(&entries, true, Style::Plain);
    text.push_str("---\n");
    for line in [Line::Explained(Box::new(refused())), Line::Gap(gap), Line::Missed(7)] {
        text.push_str(&render::line(&line, Style::Plain));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn nothing_that_a_filter_says_reaches_the_terminal_as_it_is() {
    let mut explained = refused();
    let bad = "a\u{1b}]0;x\u{7}b\u{202e}";
    let one = &mut explained.decision;
    for text in [
        &mut one.id,
        &mut one.reason,
        &mut one.workload,
        &mut one.instance,
        &mut one.method,
        &mut one.host,
        &mut one.path,
    ] {
        *text = bad.to_owned();
    }
    one.peer = Some(bad.into());
    one.identities = vec![bad.into()];
    one.rule = Some(RuleRef {
        name: bad.into(),
        source: explained.nearest_source.clone().map(|source| RuleSource {
            file: bad.into(),
            author: Some(bad.into()),
            ..source
        }),
    });
    one.resource = Some(bad.into());
    if let Some(run) = &mut one.run {
        run.id = bad.into();
        run.initiator = Some(bad.into());
    }
    explained.nearest_source = one.rule.as_ref().unwrap().source.clone();
    let texts = [
        render::explained(&explained, Style::Plain),
        render::line(&Line::Explained(Box::new(explained.clone())), Style::Plain),
        render::list(&[Entry::Decision(explained.decision.into())], false, Style::Plain),
    ];
    for text in texts {
        assert!(!text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{text:?}");
    }
}
