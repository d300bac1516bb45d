use tidegate_proto::v1 as pb;

use super::*;
use crate::metrics::Metrics;
use crate::push::{VmReport, WorkloadReport};

fn vm(instance: &str, generation: u64, up_to_date: bool, allowed: u64, denied: u64) -> VmReport {
    VmReport {
        instance: instance.to_owned(),
        generation: format!("{generation:016x}"),
        connected: true,
        filter_version: String::new(),
        capabilities: Vec::new(),
        lacks: Vec::new(),
        state: "ready".to_owned(),
        manifest: None,
        revision: None,
        up_to_date,
        refusal: None,
        seen_at: 0,
        keys_valid_until: BTreeMap::new(),
        counters: Some(pb::Counters { allowed, denied, ..pb::Counters::default() }.into()),
    }
}

fn fleet(vms: Vec<VmReport>) -> FleetReport {
    let orders = WorkloadReport { vms, ..WorkloadReport::default() };
    FleetReport { workloads: [("sales/orders".to_owned(), orders)].into() }
}

fn issued(at: i64) -> BTreeMap<String, i64> {
    [("sales/orders".to_owned(), at)].into()
}

#[track_caller]
fn has(metrics: &Metrics, line: &str) {
    let text = metrics.text();
    assert!(text.lines().any(|found| found == line), "{line} in {text}");
}

#[test]
fn totals_of_vms_that_went_still_count() {
    let metrics = Metrics::default();
    metrics.fleet.observe(&fleet(vec![vm("a", 1, true, 5, 2), vm("a", 2, true, 1, 0)]), &issued(100), 100);
    metrics.fleet.observe(&fleet(vec![vm("a", 1, true, 7, 2), vm("a", 2, true, 1, 0)]), &issued(100), 105);
    has(&metrics, r#"tidegate_filter_requests_total{workload="sales/orders",outcome="allow"} 8"#);
    // Another pod replaces them.
    metrics.fleet.observe(&fleet(vec![vm("b", 3, true, 4, 4)]), &issued(100), 110);
    has(&metrics, r#"tidegate_filter_requests_total{workload="sales/orders",outcome="allow"} 12"#);
    has(&metrics, r#"tidegate_filter_requests_total{workload="sales/orders",outcome="deny"} 6"#);
    has(&metrics, "tidegate_filter_restarts_total 0");
}

#[test]
fn a_bundle_that_is_not_enforced_grows_old() {
    let metrics = Metrics::default();
    metrics.fleet.observe(&fleet(vec![vm("a", 1, true, 0, 0), vm("a", 2, false, 0, 0)]), &issued(100), 130);
    has(&metrics, "tidegate_enforcement_behind_seconds 30");
    has(&metrics, r#"tidegate_filter_vms{workload="sales/orders",state="behind"} 1"#);
    has(&metrics, r#"tidegate_bundle_issued_timestamp_seconds{workload="sales/orders"} 100"#);
    metrics.fleet.observe(&fleet(vec![vm("a", 1, true, 0, 0), vm("a", 2, true, 0, 0)]), &issued(100), 140);
    has(&metrics, "tidegate_enforcement_behind_seconds 0");
    has(&metrics, r#"tidegate_filter_vms{workload="sales/orders",state="behind"} 0"#);
    // One that is gone is not waited for.
    let mut gone = vm("a", 2, false, 0, 0);
    gone.connected = false;
    metrics.fleet.observe(&fleet(vec![gone]), &issued(100), 150);
    has(&metrics, "tidegate_enforcement_behind_seconds 0");
    has(&metrics, r#"tidegate_filter_vms{workload="sales/orders",state="gone"} 1"#);
    metrics.fleet.observe(&FleetReport::default(), &BTreeMap::new(), 160);
    assert!(!metrics.text().contains("filter_vms{"), "a workload that went leaves no gauge behind");
}

#[test]
fn a_vm_that_comes_later_than_its_proxy_was_restarted() {
    let metrics = Metrics::default();
    metrics.fleet.observe(&fleet(vec![vm("a", 1, true, 0, 0)]), &issued(1), 100);
    metrics.fleet.observe(&fleet(vec![vm("a", 1, true, 0, 0), vm("a", 2, true, 0, 0)]), &issued(1), 110);
    has(&metrics, "tidegate_filter_restarts_total 0");
    metrics.fleet.observe(&fleet(vec![vm("a", 1, true, 0, 0), vm("a", 3, true, 0, 0)]), &issued(1), 300);
    has(&metrics, "tidegate_filter_restarts_total 1");
    metrics.fleet.observe(&fleet(vec![vm("a", 1, true, 0, 0), vm("a", 3, true, 0, 0)]), &issued(1), 310);
    has(&metrics, "tidegate_filter_restarts_total 1");
}

#[test]
fn workloads_beyond_the_budget_share_one_series() {
    let metrics = Metrics::default();
    let many = (0..MAX_WORKLOADS + 7).map(|number| {
        let one = WorkloadReport { vms: vec![vm("a", 1, true, 1, 0)], ..WorkloadReport::default() };
        (format!("sales/{number:05}"), one)
    });
    metrics.fleet.observe(&FleetReport { workloads: many.collect() }, &BTreeMap::new(), 1);
    has(&metrics, r#"tidegate_filter_requests_total{workload="other",outcome="allow"} 7"#);
    has(&metrics, r#"tidegate_filter_vms{workload="other",state="enforcing"} 7"#);
}
