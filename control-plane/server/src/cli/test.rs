//! `tidegate test`.

pub(super) mod render;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::paint::Style;
use super::{Ending, folder, junit, print, report, watch};
use crate::clock;
use crate::rules::Finding;
use crate::ruletest::{self, Report};

/// Run the tests beside the rules, and say what of the rules they cover
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate test rules
  tidegate test rules -v --run release
  tidegate test rules --fail-under 90
  tidegate test rules --candidate next-rules        # which of these requests would be decided otherwise
  tidegate test rules --watch                       # again after every change
  tidegate test rules -o junit > report.xml

Tests are objects of the kind RuleTest in any file of the folder, e.g. rules/orders.test.yaml:

  apiVersion: tidegate.dev/v1alpha1
  kind: RuleTest
  metadata: {name: orders}
  spec:
    workload: sales/orders-api
    tests:
    - name: the ETL job writes an order
      request: {peer: etl/orders-worker, method: POST, path: /v1/orders/7}
      expect: Allow
    - name: nobody else does
      request: {peer: etl/other, method: POST, path: /v1/orders/7}
      expect: {decision: Deny, reason: no_allow_matched}

Requests have `tokens: [{issuer: gitlab, claims: {project_id: \"4711\"}}]`, `headers`, `url` or `host`, `grpc: package.Service/Method`,
`port` and `time`. Nothing is signed: a token counts as verified unless it has `refused: token_expired` or the like. The same
compiler and engine decide as in `tidegate serve`.

Exit codes: 0 all tests pass; 1 a test fails, rules or tests do not compile, or less is covered than --fail-under demands;
2 the command line is wrong; 3 the folder cannot be read, or has no test. With --watch that of the last run counts.")]
pub(super) struct Arguments {
    /// Folder with rules and tests: every *.yaml and *.yml below it
    #[arg(value_name = "DIR")]
    rules: PathBuf,
    /// YAML or JSON file with values for ${env.name}
    #[arg(long, value_name = "FILE")]
    env: Option<PathBuf>,
    /// Folder with a whole other set of rules: say which tests it would decide otherwise. That fails nothing
    #[arg(long, value_name = "DIR")]
    candidate: Option<PathBuf>,
    /// Only tests with this in their name, or in that of their RuleTest or file
    #[arg(long, value_name = "TEXT")]
    run: Option<String>,
    /// Tell passing tests, and everything that no test covers
    #[arg(short, long)]
    verbose: bool,
    /// Fail if tests see less of the conditions than this, in percent
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    fail_under: Option<u8>,
    /// How results are written
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Again whenever the rules change, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// For programs
    Json,
    /// For CI systems
    Junit,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    if arguments.watch {
        return watch::repeat(&arguments.rules, arguments.env.as_deref(), || once(arguments));
    }
    once(arguments)
}

fn once(arguments: &Arguments) -> anyhow::Result<Ending> {
    let opened = match folder::open(&arguments.rules, arguments.env.as_deref())? {
        Ok(opened) => opened,
        Err(ending) => return Ok(ending),
    };
    let mut tests = opened.tests();
    let are_wrong = !tests.diagnostics.is_empty();
    for diagnostic in std::mem::take(&mut tests.diagnostics) {
        let finding = Finding::Rule(diagnostic);
        let text = report::render(&finding, &opened.files, &arguments.rules, report::Style::of_stderr());
        super::complain_text(&text);
    }
    if let Some(wanted) = &arguments.run {
        tests.tests.retain(|test| {
            [&test.name, &test.suite, &test.file].into_iter().any(|text| text.contains(wanted.as_str()))
        });
    }
    if tests.tests.is_empty() && !are_wrong {
        match &arguments.run {
            Some(wanted) => {
                anyhow::bail!("no test of `{}` has `{wanted}` in its name", arguments.rules.display())
            }
            None => anyhow::bail!(
                "`{}` holds no RuleTest; `tidegate test --help` shows one",
                arguments.rules.display()
            ),
        }
    }
    let now = clock::now();
    let mut report = ruletest::run(&opened.compiled, &tests, now);
    if let Some(candidate) = &arguments.candidate {
        match folder::open(candidate, arguments.env.as_deref())? {
            Ok(candidate) => ruletest::compare(&mut report, &candidate.compiled, &tests, now),
            Err(ending) => return Ok(ending),
        }
    }
    match arguments.output {
        Output::Json => folder::print_json(&report)?,
        Output::Junit => print(&junit::report(&suites(&report, &arguments.rules)))?,
        Output::Text => {
            let view = render::View {
                folder: &arguments.rules,
                verbose: arguments.verbose,
                fail_under: arguments.fail_under,
                is_partial: arguments.run.is_some(),
            };
            print(&render::text(&report, &view, Style::of_stdout()))?;
        }
    }
    let is_enough =
        arguments.fail_under.is_none_or(|least| report.coverage.conditions.percent() >= usize::from(least));
    Ok(if report.failed == 0 && is_enough && !are_wrong { Ending::Done } else { Ending::Refused })
}

fn suites(report: &Report, folder: &Path) -> Vec<junit::Suite> {
    let mut suites: Vec<junit::Suite> = Vec::new();
    for test in &report.tests {
        if suites.last().is_none_or(|suite| suite.name != test.suite) {
            suites.push(junit::Suite { name: test.suite.clone(), cases: Vec::new() });
        }
        let Some(suite) = suites.last_mut() else { continue };
        let failure = (!test.passed).then(|| junit::Failure {
            kind: test.actual.as_ref().map_or("error", |actual| actual.reason).to_owned(),
            message: render::difference(test),
            text: render::failure(test, Style::Plain),
        });
        suite.cases.push(junit::Case {
            name: test.name.clone(),
            file: folder::from_root(folder, &test.file),
            line: test.line,
            failure,
        });
    }
    suites
}

#[cfg(test)]
mod tests;
