//! A control plane that runs, and its filters.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Code, Finding, Severity};
use crate::keys::IssuerReport;

/// Seconds that clocks may differ: answers tell whole seconds, and take their time.
const SKEW_NOTED_S: u64 = 5;
/// Seconds beyond which tokens are refused that are good: less than the filter's own limit of 300.
const SKEW_BAD_S: u64 = 60;

/// What a control plane said.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Where it was asked.
    pub admin: String,
    /// Whether `/readyz` answered with 200.
    pub ready: bool,
    /// Its clock less this one's, in seconds.
    pub clock_ahead_s: Option<i64>,
    /// `/fleet`
    pub fleet: Value,
    /// `/issuers`
    pub issuers: Vec<IssuerReport>,
}

/// Looks at what a control plane said.
pub fn server(asked: &Asked) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut say = |code, object: &str, message: String| {
        findings.push(Finding::new(code, &asked.admin, object.to_owned(), "", message));
    };
    if !asked.ready {
        say(Code::NotReady, "", "it is not ready".to_owned());
    }
    for issuer in asked.issuers.iter().filter(|issuer| issuer.used) {
        for raised in &issuer.alerts {
            say(
                Code::IssuerAlert,
                &format!("TrustedIssuer {}", issuer.name),
                format!("{}: {}", raised.alert.name(), raised.text),
            );
        }
    }
    fleet(&asked.fleet, &mut say);
    if let Some(skew) = asked.clock_ahead_s.filter(|skew| skew.unsigned_abs() >= SKEW_NOTED_S) {
        let direction = if skew > 0 { "ahead of" } else { "behind" };
        let message = format!("its clock is {} s {direction} this machine's", skew.unsigned_abs());
        let mut finding = Finding::new(Code::ClockSkew, &asked.admin, String::new(), "", message);
        if skew.unsigned_abs() >= SKEW_BAD_S {
            finding.severity = Severity::Error;
        }
        findings.push(finding);
    }
    findings
}

fn fleet(fleet: &Value, say: &mut impl FnMut(Code, &str, String)) {
    let mut versions: BTreeMap<String, usize> = BTreeMap::new();
    for (workload, report) in fleet["workloads"].as_object().into_iter().flatten() {
        let vms = report["vms"].as_array().map_or(&[][..], Vec::as_slice);
        let connected = || vms.iter().filter(|vm| vm["connected"] == true);
        for vm in connected() {
            let version = vm["filterVersion"].as_str().unwrap_or("unknown").to_owned();
            *versions.entry(version).or_default() += 1;
        }
        let refusals: BTreeSet<String> = connected()
            .filter(|vm| vm["upToDate"] == false)
            .filter_map(|vm| vm.get("refusal").filter(|refusal| !refusal.is_null()))
            .map(|refusal| {
                let text = |name: &str| refusal[name].as_str().unwrap_or("?").to_owned();
                format!("{}: {}", text("reason"), text("detail"))
            })
            .collect();
        for refusal in &refusals {
            say(Code::Refusing, workload, format!("a filter refused the last push: {refusal}"));
        }
        let behind = connected().filter(|vm| vm["upToDate"] == false).count();
        if behind > 0 && refusals.is_empty() {
            say(
                Code::Behind,
                workload,
                format!("{behind} of {} connected VMs are behind", connected().count()),
            );
        }
    }
    if versions.len() > 1 {
        let all: Vec<String> =
            versions.iter().map(|(version, vms)| format!("{version}: {vms} VMs")).collect();
        say(Code::MixedVersions, "", all.join(", "));
    }
}
