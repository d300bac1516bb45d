//! Workloads, filters and what they tell.

use std::collections::BTreeMap;

use tidegate_proto::v1 as pb;

use super::ledger::{Enforced, Ledger};
use crate::push::{FleetReport, ProxyReport, Standing, VmReport, WorkloadReport};

pub const DAY: i64 = 86_400;
pub const NOW: i64 = 1_800_000_000;
pub const ORDERS: &str = "sales/orders";

/// `sales/orders` with these grants.
pub fn enforce(ledger: &Ledger, rules: &[&str], now: i64) {
    let rules = rules.iter().map(|rule| ((*rule).to_owned(), true)).collect();
    let orders = Enforced { rules, is_covered: true, is_shadowed: false, issuers: vec!["gitlab".to_owned()] };
    ledger.enforced([(ORDERS.to_owned(), orders)].into(), now);
}

/// A proxy of `sales/orders` with one VM for each of these: whether it counts.
pub fn fleet(vms: &[(&str, bool)]) -> FleetReport {
    let vm = |(at, (instance, counts)): (usize, &(&str, bool))| VmReport {
        instance: (*instance).to_owned(),
        generation: format!("{at:016x}"),
        connected: true,
        filter_version: String::new(),
        capabilities: if *counts { vec![tidegate_proto::USES.to_owned()] } else { vec![] },
        lacks: vec![],
        state: "ready".to_owned(),
        manifest: None,
        revision: None,
        up_to_date: true,
        refusal: None,
        seen_at: 0,
        keys_valid_until: BTreeMap::new(),
        counters: None,
    };
    let vms: Vec<VmReport> = vms.iter().enumerate().map(vm).collect();
    let mut names: Vec<&str> = vms.iter().map(|vm| vm.instance.as_str()).collect();
    names.dedup();
    let proxy = |instance: &str| ProxyReport {
        canary: false,
        instance: instance.to_owned(),
        standing: Standing::Enforcing,
        vms: 1,
        enforcing: 1,
        seen_at: 0,
        detail: String::new(),
    };
    let proxies = names.into_iter().map(proxy).collect();
    FleetReport {
        workloads: [(ORDERS.to_owned(), WorkloadReport { vms, proxies, ..WorkloadReport::default() })].into(),
    }
}

/// The control plane is there from then until then, and looks once a minute.
pub fn look(ledger: &Ledger, fleet: &FleetReport, from: i64, until: i64) {
    for at in (from..=until).step_by(60) {
        ledger.observe(fleet, at);
    }
}

pub fn rule(rule: &str, count: u64, last_used_at: i64) -> pb::Uses {
    pb::Uses { rules: vec![pb::RuleUse { rule: rule.to_owned(), count, last_used_at }], keys: vec![] }
}

pub fn key(issuer: &str, key_id: &str, last_verified_at: i64) -> pb::Uses {
    let key =
        pb::KeyUse { issuer: issuer.to_owned(), key_id: key_id.to_owned(), verified: 1, last_verified_at };
    pb::Uses { rules: vec![], keys: vec![key] }
}
