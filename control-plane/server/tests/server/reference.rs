//! `control-plane/docs/cli.md` is what `--help` says.

use std::path::Path;

use clap::Command;

const PREFACE: &str = "\
# The command line

What `tidegate COMMAND --help` says, in one page. Made by a test: after a change of a command run
`TIDEGATE_BLESS=1 cargo test -p tidegate --test server reference`.

| exit code | |
| --- | --- |
| 0 | it worked; what was asked about passes |
| 1 | refused: rules with errors, a test that fails, a request that would be refused, findings, … |
| 2 | the command line is wrong |
| 3 | the environment is: a missing folder, a port in use, input that is nothing that is known |

Commands that answer something say below what their codes mean. Text is for people and may change; `-o json` is for programs, and only grows. Messages are on
standard error, so that standard output can be piped. Colours are on terminals only, and not where `NO_COLOR` is set.
";

fn reference() -> String {
    let mut root = tidegate::cli::command_line();
    root.build();
    let mut text = PREFACE.to_owned();
    command(&root, &mut text);
    text
}

fn command(command: &Command, text: &mut String) {
    let is_group = command.get_subcommands().any(|one| one.get_name() != "help");
    // A group that does something by itself as well says what.
    let has_own = command.get_arguments().any(|one| one.is_required_set());
    if !is_group || has_own {
        let mut shown = command.clone().term_width(100);
        let name = shown.get_bin_name().unwrap_or(shown.get_name()).to_owned();
        let help: Vec<String> =
            shown.render_long_help().to_string().lines().map(|line| line.trim_end().to_owned()).collect();
        text.push_str(&format!("\n## {name}\n\n```text\n{}\n```\n", help.join("\n").trim_end()));
    }
    for inner in command.get_subcommands().filter(|one| one.get_name() != "help") {
        self::command(inner, text);
    }
}

#[test]
fn the_page_is_what_help_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    let wanted = reference();
    if std::env::var_os("TIDEGATE_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &wanted).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    let lines = there.lines().zip(wanted.lines());
    let differs = lines.filter(|(there, wanted)| there != wanted).take(3).collect::<Vec<_>>();
    assert!(
        there == wanted,
        "control-plane/docs/cli.md is out of date: TIDEGATE_BLESS=1 cargo test -p tidegate --test server reference\n{differs:#?}"
    );
}

/// They work, or they do not: the codes of all commands say enough.
const PLAIN: [&str; 6] = [
    "tidegate serve",
    "tidegate crds",
    "tidegate plugin-config",
    "tidegate module",
    "tidegate package oci",
    "tidegate completions",
];

#[test]
fn every_command_that_answers_something_says_its_exit_codes() {
    let lacks: Vec<String> = reference()
        .split("\n## ")
        .skip(1)
        .filter(|section| !section.contains("xit code") && !section.contains("xits with"))
        .filter_map(|section| section.lines().next().map(str::to_owned))
        .filter(|name| !PLAIN.contains(&name.as_str()))
        .collect();
    assert_eq!(lacks, Vec::<String>::new());
}
