//! `tidegate check`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::text::count;
use super::{Ending, folder, formats, print, report, watch};
use crate::metrics::{Series, series};
use crate::rules::{Finding, load, load_environment};
use crate::serve::compile_files;

/// Say what is wrong with the rules below a folder
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate check rules
  tidegate check rules --env values/prod.yaml
  tidegate check rules --watch                      # again after every change
  tidegate check rules -o gitlab > gl-code-quality-report.json
  tidegate check rules -o sarif > tidegate.sarif
  tidegate check rules -o json | jq -r '.findings[] | \"\\(.file):\\(.line) \\(.message)\"'

Exit codes: 0 everything compiles (warnings included); 1 anything does not; 2 the command line is wrong; 3 the folder cannot be
read. With --watch that of the last run counts.")]
pub(super) struct Arguments {
    /// Folder with rules: every *.yaml and *.yml below it
    #[arg(value_name = "DIR")]
    rules: PathBuf,
    /// YAML or JSON file with values for ${env.name}
    #[arg(long, value_name = "FILE")]
    env: Option<PathBuf>,
    /// Warn where rules make more time series than this in the control plane
    #[arg(long, value_name = "COUNT", default_value_t = Series::BUDGET)]
    series_budget: usize,
    /// How findings are written
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Again whenever the rules change, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people: with the lines they are about on a terminal, else one line each
    Text,
    /// For programs
    Json,
    /// For CI systems: a test case per file
    Junit,
    /// For merge requests of GitLab: a Code Quality report
    Gitlab,
    /// For code scanning, e.g. of GitHub: SARIF 2.1.0
    Sarif,
}

#[derive(Serialize)]
struct Report {
    errors: usize,
    warnings: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    series: Option<Series>,
    findings: Vec<Finding>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    if arguments.watch {
        return watch::repeat(&arguments.rules, arguments.env.as_deref(), || once(arguments));
    }
    once(arguments)
}

fn once(arguments: &Arguments) -> anyhow::Result<Ending> {
    let loaded = load(&arguments.rules)?;
    let environment = arguments.env.as_deref().map(load_environment).transpose()?.unwrap_or_default();
    let compilation = compile_files(&loaded.files, &environment);
    let mut findings: Vec<Finding> = loaded.problems.iter().cloned().map(Finding::File).collect();
    findings.extend(compilation.diagnostics.into_iter().map(Finding::Rule));
    let series = compilation.output.as_ref().map(|compiled| series(compiled, arguments.series_budget));
    findings.extend(series.iter().flat_map(Series::findings).map(Finding::Rule));
    if let Some(compiled) = compilation.output {
        let folder = folder::Folder { files: loaded.files.clone(), environment, compiled };
        findings.extend(folder.tests().diagnostics.into_iter().map(Finding::Rule));
    }
    let errors = findings.iter().filter(|finding| finding.is_error()).count();
    let warnings = findings.len() - errors;
    match arguments.output {
        Output::Json => {
            let report = Report { errors, warnings, series, findings };
            print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?;
        }
        Output::Junit => print(&formats::junit(&findings, &loaded.files, &arguments.rules))?,
        Output::Gitlab => folder::print_json(&formats::gitlab(&findings, &arguments.rules))?,
        Output::Sarif => folder::print_json(&formats::sarif(&findings, &arguments.rules))?,
        Output::Text => {
            let style = report::Style::of_stdout();
            for finding in &findings {
                print(&report::render(finding, &loaded.files, &arguments.rules, style))?;
            }
            print(&summary(loaded.files.len() + loaded.problems.len(), errors, warnings))?;
            if let Some(series) = &series {
                print(&series.summary())?;
            }
            if errors == 0 && report::Style::of_stdout() != report::Style::Lines {
                print(&format!("next: tidegate test {}\n", arguments.rules.display()))?;
            }
        }
    }
    Ok(if errors == 0 { Ending::Done } else { Ending::Refused })
}

fn summary(files: usize, errors: usize, warnings: usize) -> String {
    format!("{}: {}, {}\n", count(files, "file"), count(errors, "error"), count(warnings, "warning"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts() {
        assert_eq!(summary(1, 0, 2), "1 file: 0 errors, 2 warnings\n");
        assert_eq!(summary(3, 1, 1), "3 files: 1 error, 1 warning\n");
    }
}
