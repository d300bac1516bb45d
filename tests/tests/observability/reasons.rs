//! A page per reason code: what it means, what to look at, how to fix it. People write them; what `tidegate explain` says of the
//! code stands in them word for word, and their commands exist.

use std::collections::BTreeSet;

use regex::Regex;
use tidegate::explain::reasons::advice;
use tidegate_engine::Reason;

use crate::{files, manifests, text};

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

/// Without line breaks, which are where the page is full.
fn flowing(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The commands of a page, without what is said about them.
fn commands(page: &str) -> Vec<String> {
    let block = page.split("```sh\n").nth(1).and_then(|block| block.split("```").next()).unwrap();
    let lines = block.lines().map(|line| line.split('#').next().unwrap_or_default().trim().to_owned());
    lines.filter(|command| !command.is_empty()).collect()
}

#[test]
fn every_reason_has_a_page_and_every_page_a_reason() {
    let mut pages = BTreeSet::new();
    for reason in Reason::all() {
        let code = reason.code();
        let page = text(&format!("runbook/reasons/{code}.md"));
        let parts: Vec<&str> = page.split("\n## ").collect();
        let [head, means, look, fix] = parts[..] else { panic!("{code}: {} parts", parts.len()) };
        let advice = advice(reason);
        assert_eq!(advice.runbook, format!("manifests/runbook/reasons/{code}.md"));
        let passes = matches!(reason, Reason::AllowedBy | Reason::NotGuarded | Reason::GuardInShadow);
        let seen = if passes {
            "The request passes.".to_owned()
        } else {
            let (http, grpc) = (advice.http, advice.grpc);
            format!("HTTP {http}, gRPC `{grpc}`, problem type `urn:tidegate:reason:{code}`.")
        };
        let turn = advice.turn.words();
        assert_eq!(head, format!("# {code}\n\n> {}\n\n{seen} It is {turn} turn.\n", reason.sentence()));
        let meaning = format!("What it means {}.", capital(advice.meaning));
        assert!(flowing(means).starts_with(&meaning), "{code}: the page does not say: {meaning}");
        let todo = format!("How to fix it {}.", capital(advice.fix));
        assert!(flowing(fix).starts_with(&todo), "{code}: the page does not say: {todo}");
        assert!(look.starts_with("What to look at\n\n```sh\n"), "{code}");
        let asks = |command: &str| commands(look).iter().any(|found| found == command);
        assert!(asks(&format!("tidegate decisions --reason {code} --since 1h")), "{code}");
        assert_eq!(asks("tidegate explain 7Q4K-M2XD-0001"), !passes, "{code}");
        pages.insert(format!("{code}.md"));
    }
    assert_eq!(files("runbook/reasons"), pages);
}

/// What an on-call engineer copies has to run.
#[test]
fn commands_of_pages_exist() {
    let mut seen = 0;
    for name in files("runbook/reasons") {
        for command in commands(&text(&format!("runbook/reasons/{name}"))) {
            if let Err(error) = tidegate::cli::command_line().try_get_matches_from(command.split_whitespace())
            {
                panic!("{name}: `{command}`: {error}");
            }
            seen += 1;
        }
    }
    assert!(seen > 100, "only {seen} commands were found");
}

#[test]
fn links_of_pages_lead_somewhere() {
    let link = Regex::new(r"\]\(([^)#]+)[^)]*\)").unwrap();
    for folder in ["runbook/reasons", "runbook/alerts"] {
        for name in files(folder) {
            let page = text(&format!("{folder}/{name}"));
            for (_, [target]) in link.captures_iter(&page).map(|found| found.extract()) {
                assert!(manifests().join(folder).join(target).exists(), "{folder}/{name}: {target}");
            }
        }
    }
}
