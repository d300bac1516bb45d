//! What is counted is true, wherever one looks: Envoy's counters, Prometheus, the OTLP receiver. The dashboard shows something,
//! alerts fire, and what to do then is written down.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;
use serde_json::Value;

#[path = "../../control-plane/server/src/directories/testing.rs"]
#[allow(dead_code, missing_docs)]
mod google_api;

mod observability {
    pub mod dashboard;
    pub mod prometheus;
    pub mod reasons;
    pub mod three_sides;
}

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("manifests")
}

fn text(path: &str) -> String {
    let path = manifests().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every alert.
fn alerts() -> Vec<Value> {
    let rules: Value = serde_saphyr::from_str(&text("observability/alerts.yaml")).unwrap();
    let groups = rules["groups"].as_array().unwrap();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

#[test]
fn alerts_fire_where_they_should_and_are_silent_where_they_should_not() {
    let folder = manifests().join("observability");
    let run =
        Command::new("promtool").args(["test", "rules", "alerts.test.yaml"]).current_dir(folder).output();
    match run {
        Err(_) => println!("SKIPPED: no `promtool` here (Debian's package `prometheus` has it)"),
        Ok(output) => {
            let told = [output.stdout, output.stderr].concat();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&told));
        }
    }
    let tests = text("observability/alerts.test.yaml");
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        for what in ["fires", "is silent"] {
            assert!(tests.contains(&format!("- name: {name} {what}\n")), "no test in which {name} {what}");
        }
    }
}

#[test]
fn every_alert_has_a_page_that_says_what_to_do_and_every_page_an_alert() {
    let mut pages = BTreeSet::new();
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        let link = alert["annotations"]["runbook_url"].as_str().unwrap();
        assert_eq!(link, format!("manifests/runbook/alerts/{name}.md"));
        let page = text(&format!("runbook/alerts/{name}.md"));
        assert!(page.starts_with(&format!("# {name}\n")), "{name}");
        for heading in ["\n## What it means\n", "\n## What to do\n"] {
            assert!(page.contains(heading), "{name}: {heading}");
        }
        let severity = alert["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
        pages.insert(format!("{name}.md"));
    }
    assert_eq!(files("runbook/alerts"), pages);
}

fn files(folder: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(manifests().join(folder)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn alerts_and_panels_ask_for_metrics_that_are_documented() {
    let documented = text("../control-plane/docs/telemetry.md");
    let name = Regex::new(r"\b(tidegate|envoy)_[a-z_.+]+").unwrap();
    let of_alerts: Vec<String> =
        alerts().iter().map(|alert| alert["expr"].as_str().unwrap().to_owned()).collect();
    let panels = observability::dashboard::dashboard().panels;
    let of_panels = panels.into_iter().flat_map(|panel| panel.targets).map(|target| target.expr);
    for query in of_alerts.into_iter().chain(of_panels) {
        let names: Vec<&str> = name.find_iter(&query).map(|found| found.as_str()).collect();
        assert!(!names.is_empty(), "{query}");
        // A label of it, and the series of a histogram.
        for name in names.into_iter().filter(|name| *name != "tidegate_reason") {
            let name = name.trim_end_matches("_bucket").replace(".+", "<plugin>");
            assert!(documented.contains(&format!("`{name}`")), "{name} in {query} is not in telemetry.md");
        }
    }
}
