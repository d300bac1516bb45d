//! The Grafana dashboard is one, and asks for what there is.

use std::collections::BTreeSet;

use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

/// A dashboard, as far as this one goes, in the words of Grafana's own schema (grafana-foundation-sdk
/// `jsonschema/dashboard.jsonschema.json`). What is not here is a member that Grafana would not know, or that nobody checks.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[allow(dead_code)]
pub struct Dashboard {
    uid: String,
    title: String,
    tags: Vec<String>,
    timezone: String,
    editable: bool,
    graph_tooltip: u8,
    schema_version: u16,
    version: u32,
    refresh: String,
    time: Value,
    templating: List<Variable>,
    annotations: List<Value>,
    pub panels: Vec<Panel>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List<T> {
    list: Vec<T>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[allow(dead_code)]
struct Variable {
    name: String,
    label: String,
    r#type: String,
    query: String,
    datasource: Option<Source>,
    definition: Option<String>,
    include_all: Option<bool>,
    all_value: Option<String>,
    multi: Option<bool>,
    refresh: Option<u8>,
    sort: Option<u8>,
    current: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[allow(dead_code)]
pub struct Panel {
    id: u32,
    r#type: String,
    pub title: String,
    description: String,
    datasource: Source,
    grid_pos: Place,
    field_config: FieldConfig,
    options: Value,
    #[serde(default)]
    transformations: Vec<Value>,
    pub targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Target {
    ref_id: String,
    datasource: Source,
    pub expr: String,
    legend_format: String,
    instant: Option<bool>,
    range: Option<bool>,
    format: Option<String>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Source {
    r#type: String,
    uid: String,
}

#[derive(Debug, Deserialize, Clone, Copy)]
#[serde(deny_unknown_fields)]
struct Place {
    x: u32,
    y: u32,
    w: u32,
    h: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct FieldConfig {
    defaults: Defaults,
    overrides: Vec<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Defaults {
    unit: String,
    decimals: Option<u8>,
    color: Option<Value>,
    thresholds: Option<Value>,
}

/// The file, if it is one.
pub fn dashboard() -> Dashboard {
    let text = crate::text("observability/dashboard.json");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("dashboard.json: {error}"))
}

// === impl Place ===

impl Place {
    fn overlaps(self, other: Self) -> bool {
        let apart = |at: u32, size: u32, other: u32, length: u32| at + size <= other || other + length <= at;
        !apart(self.x, self.w, other.x, other.w) && !apart(self.y, self.h, other.y, other.h)
    }
}

#[test]
fn the_dashboard_is_one_that_grafana_loads() {
    let dashboard = dashboard();
    let names: Vec<&str> = dashboard.templating.list.iter().map(|variable| variable.name.as_str()).collect();
    assert_eq!(names, ["datasource", "workload"]);
    let variable = Regex::new(r"\$\{?([a-zA-Z_]+)\}?").unwrap();
    let source = Source { r#type: "prometheus".to_owned(), uid: "${datasource}".to_owned() };
    let mut ids = BTreeSet::new();
    for (position, panel) in dashboard.panels.iter().enumerate() {
        let title = &panel.title;
        assert!(ids.insert(panel.id), "{title}: the id {} is there twice", panel.id);
        assert!(["stat", "timeseries", "table"].contains(&panel.r#type.as_str()), "{title}");
        // Grafana `packages/grafana-data/src/valueFormats/categories.ts`
        let units = ["short", "percentunit", "s", "reqps", "ops"];
        assert!(units.contains(&panel.field_config.defaults.unit.as_str()), "{title}");
        let place = panel.grid_pos;
        assert!(place.w > 0 && place.h > 0 && place.x + place.w <= 24, "{title}: {place:?}");
        for other in &dashboard.panels[..position] {
            assert!(!place.overlaps(other.grid_pos), "{title} lies on {}", other.title);
        }
        assert_eq!(panel.datasource, source, "{title}");
        assert!(!panel.targets.is_empty(), "{title}");
        for (target, name) in panel.targets.iter().zip("ABCDEF".chars()) {
            assert_eq!((target.ref_id.as_str(), &target.datasource), (name.to_string().as_str(), &source));
            let is_table = panel.r#type == "table";
            assert_eq!(target.instant == Some(true) && target.range == Some(false), is_table, "{title}");
            assert_eq!(target.format.as_deref() == Some("table"), is_table, "{title}");
            assert_eq!(target.legend_format.is_empty(), is_table, "{title}");
            for (_, [name]) in variable.captures_iter(&target.expr).map(|found| found.extract()) {
                assert!(["workload", "__range", "__rate_interval"].contains(&name), "{title}: ${name}");
            }
        }
        let page = panel.description.split_once("Runbook: ").map(|(_, page)| page);
        if let Some(page) = page {
            assert!(crate::manifests().join("runbook").join(page).exists(), "{title}: {page}");
        }
    }
}

/// What the issue of a dashboard is: nothing of it may be lost by an edit.
#[test]
fn the_dashboard_shows_what_people_look_for() {
    let dashboard = dashboard();
    for metric in [
        "tidegate_rule_decisions_total",
        "tidegate_refusals_by_reason_total",
        "tidegate_pipeline_decisions_total",
        "tidegate_rule_differences_total",
        "tidegate_enforcement_lag_seconds",
        "tidegate_bundle_issued_timestamp_seconds",
        "tidegate_issuer_fetched_timestamp_seconds",
        "tidegate_decision_duration_seconds",
        "tidegate_filter_restarts_total",
        "vm_reload_success",
    ] {
        let shown = dashboard.panels.iter().flat_map(|panel| &panel.targets);
        assert!(shown.into_iter().any(|target| target.expr.contains(metric)), "no panel shows {metric}");
    }
}
