//! `tidegate diff`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;
use tidegate_compiler::diff::{ANY_HOST, Change, Difference, Example, diff};

use super::paint::{Color, Style};
use super::text::{count, hanging, visible};
use super::{Ending, folder, print};

/// Say what two folders of rules decide differently, with an example request each
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate diff main-rules rules
  tidegate diff main-rules rules --fail-on wider
  tidegate diff main-rules rules -o json | jq '.changes[] | select(.wider)'

  git worktree add --detach ../main origin/main && tidegate diff ../main/rules rules

Every class of requests that the literals and patterns of both sets tell apart is tried for every rule that differs, and decided by
both. What is wider lets requests pass that were refused, what is narrower refuses requests that passed. Where the classes are
too many, or a rule has conditions on texts, numbers, the time or directories, that is said, and nothing is claimed. Only what
is enforced is compared.

Exit codes: 0 both were compared (see --fail-on); 1 --fail-on says so, or rules do not compile; 2 the command line is wrong; 3 a
folder cannot be read.")]
pub(super) struct Arguments {
    /// Folder with the rules before
    #[arg(value_name = "BEFORE")]
    before: PathBuf,
    /// Folder with the rules after
    #[arg(value_name = "AFTER")]
    after: PathBuf,
    /// YAML or JSON file with values for ${env.name}, for both
    #[arg(long, value_name = "FILE")]
    env: Option<PathBuf>,
    /// Exit with 1 on what
    #[arg(long, value_enum, default_value_t = FailOn::Never)]
    fail_on: FailOn,
    /// How it is written
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// Nothing
    Never,
    /// Something passes that was refused, or that is not known
    Wider,
    /// Anything is decided differently, or that is not known
    Any,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    wider: usize,
    narrower: usize,
    changes: Vec<ChangeReport>,
    guards: Vec<GuardReport>,
    undecided: Vec<UndecidedReport>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChangeReport {
    wider: bool,
    rule: String,
    workloads: Vec<String>,
    classes: usize,
    example: ExampleReport,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExampleReport {
    peer: Option<String>,
    method: String,
    /// Absent: any that no rule names.
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    path: String,
    /// Absent: any that no rule names.
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    grpc: bool,
    tokens: Vec<TokenReport>,
}

#[derive(Serialize)]
struct TokenReport {
    issuer: String,
    claims: Vec<(String, String)>,
}

#[derive(Serialize)]
struct GuardReport {
    workload: String,
    before: String,
    after: String,
    /// Whether its rules were compared.
    compared: bool,
}

#[derive(Serialize)]
struct UndecidedReport {
    rule: String,
    why: String,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let opened = |path: &Path| folder::open(path, arguments.env.as_deref());
    let (before, after) = match (opened(&arguments.before)?, opened(&arguments.after)?) {
        (Ok(before), Ok(after)) => (before, after),
        (Err(ending), _) | (_, Err(ending)) => return Ok(ending),
    };
    let difference = diff(&before.compiled, &after.compiled);
    match arguments.output {
        Output::Json => folder::print_json(&report(&difference))?,
        Output::Text => print(&text(&difference, &arguments.after, Style::of_stdout()))?,
    }
    let may_widen = difference.changes.iter().any(|change| change.wider)
        || !difference.guards.is_empty()
        || !difference.undecided.is_empty();
    let refused = match arguments.fail_on {
        FailOn::Never => false,
        FailOn::Wider => may_widen,
        FailOn::Any => may_widen || !difference.changes.is_empty(),
    };
    Ok(if refused { Ending::Refused } else { Ending::Done })
}

fn report(difference: &Difference) -> Report {
    let Difference { changes, guards, undecided } = difference;
    let wider = changes.iter().filter(|change| change.wider).count();
    Report {
        wider,
        narrower: changes.len() - wider,
        changes: changes
            .iter()
            .map(|change| ChangeReport {
                wider: change.wider,
                rule: change.rule.clone(),
                workloads: change.workloads.iter().map(ToString::to_string).collect(),
                classes: change.classes,
                example: example_report(&change.example),
            })
            .collect(),
        guards: guards
            .iter()
            .map(|guard| GuardReport {
                workload: guard.workload.to_string(),
                before: guard.before.clone(),
                after: guard.after.clone(),
                compared: guard.compared,
            })
            .collect(),
        undecided: undecided
            .iter()
            .map(|one| UndecidedReport { rule: one.rule.clone(), why: one.why.clone() })
            .collect(),
    }
}

fn example_report(example: &Example) -> ExampleReport {
    ExampleReport {
        peer: example
            .peer
            .as_ref()
            .map(|(domain, namespace, account)| format!("spiffe://{domain}/ns/{namespace}/sa/{account}")),
        method: example.method.clone(),
        host: Some(example.host.clone()).filter(|host| host != ANY_HOST),
        path: example.path.clone(),
        port: Some(example.port).filter(|port| *port != 1),
        grpc: example.grpc,
        tokens: example
            .tokens
            .iter()
            .map(|token| TokenReport { issuer: token.issuer.clone(), claims: token.claims.clone() })
            .collect(),
    }
}

fn text(difference: &Difference, after: &Path, style: Style) -> String {
    let mut text = String::new();
    for guard in &difference.guards {
        let word = style.paint(Color::Warn, "GUARD");
        let line = format!("{}: {}  →  {}", guard.workload, guard.before, guard.after);
        text.push_str(&hanging(&format!("{word}     "), 10, &line));
        if !guard.compared {
            let note = "its rules are not compared: one of the two lets everything pass";
            text.push_str(&hanging("          ", 10, note));
        }
    }
    // What lets more pass comes first.
    let (wider, narrower): (Vec<&Change>, Vec<&Change>) =
        difference.changes.iter().partition(|change| change.wider);
    wider.iter().chain(&narrower).for_each(|one| text.push_str(&change(one, style)));
    for one in &difference.undecided {
        let word = style.paint(Color::Warn, "UNDECIDED");
        text.push_str(&hanging(&format!("{word} "), 10, &format!("{}: {}", one.rule, one.why)));
    }
    if text.is_empty() {
        text.push_str("both decide every request alike\n");
    } else {
        let classes = |changes: &[&Change]| count(changes.len(), "rule");
        text.push_str(&format!(
            "{} wider, {} narrower, {} undecided\n",
            classes(&wider),
            classes(&narrower),
            difference.undecided.len()
        ));
    }
    text.push_str(&format!("next: tidegate test {}\n", after.display()));
    text
}

fn change(change: &Change, style: Style) -> String {
    let Change { workloads, wider, rule, classes, example } = change;
    let (word, color, does) = match wider {
        true => ("WIDER    ", Color::Bad, "newly allows"),
        false => ("NARROWER ", Color::Good, "newly refuses"),
    };
    let classes = match classes {
        1 => "1 class of requests".to_owned(),
        many => format!("{many} classes of requests"),
    };
    let first = workloads.first().map(ToString::to_string).unwrap_or_default();
    let at = match workloads.len() {
        0 | 1 => first,
        many => format!("{first} and {} more", many - 1),
    };
    let mut text = format!(
        "{} {}  {does} {classes} at {at}\n",
        style.paint(color, word),
        style.paint(Color::Bold, &visible(rule))
    );
    let peer = match &example.peer {
        Some((_, namespace, account)) => format!("{namespace}/{account}"),
        None => "no mesh peer".to_owned(),
    };
    let kind = if example.grpc { "gRPC " } else { "" };
    let host = match example.host.as_str() {
        ANY_HOST => String::new(),
        host => format!("https://{host}"),
    };
    let mut words = format!("{peer}  {kind}{} {host}{}", example.method, example.path);
    if example.port != 1 {
        words.push_str(&format!(" at port {}", example.port));
    }
    text.push_str(&hanging("          e.g. ", 15, &words));
    for token in &example.tokens {
        let claims: Vec<String> =
            token.claims.iter().map(|(claim, value)| format!("{claim}={value}")).collect();
        let claims = if claims.is_empty() { "nothing else matters".to_owned() } else { claims.join("  ") };
        text.push_str(&hanging("               ", 15, &format!("token of {}: {claims}", token.issuer)));
    }
    text
}

#[cfg(test)]
mod tests {
    use tidegate_compiler::{Compiled, Inputs, SourceFile, compile};

    use super::*;
    use crate::ruletest::tests::RULES;

    fn compiled(rules: &str) -> Compiled {
        let sources = [SourceFile { path: "rules.yaml".into(), text: rules.into() }];
        let compilation = compile(&Inputs { sources: &sources, env: Default::default(), now: None });
        compilation.output.unwrap_or_else(|| panic!("{:#?}", compilation.diagnostics))
    }

    #[test]
    fn wider_and_narrower_come_with_an_example() {
        let after = RULES
            .replace(
                "methods: [POST], paths: ['/v1/orders/{id}']",
                "methods: [POST, PUT], paths: ['/v1/orders/{id}']",
            )
            .replace("project: 4711, protectedRef: true", "project: 4711")
            .replace("archive-*", "{**}");
        let difference = diff(&compiled(RULES), &compiled(&after));
        insta::assert_snapshot!(text(&difference, Path::new("rules"), Style::Plain));
        let report = serde_json::to_value(report(&difference)).expect("it serialises");
        assert_eq!(report["changes"].as_array().map(Vec::len), Some(difference.changes.len()));
        let same = diff(&compiled(RULES), &compiled(RULES));
        assert!(text(&same, Path::new("rules"), Style::Plain).starts_with("both decide every request alike"));
    }
}
