//! Whether Kubernetes manifests, Callers and TrustedIssuers agree: accounts that exist, cloud identities that annotations
//! give them, and tokens that pods project.
//!
//! INVARIANT: what the manifests do not show is no finding. A namespace of which there is no manifest is said to be unseen.

mod callers;
mod checks;
mod manifests;

use std::collections::BTreeSet;

use serde::Serialize;
use tidegate_compiler::Compiled;

use crate::rules::{Environment, Files};

pub use checks::Code;

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// How many findings are errors.
    pub errors: usize,
    /// How many are not.
    pub warnings: usize,
    /// By file and line.
    pub findings: Vec<Finding>,
    /// Service accounts that were seen.
    pub service_accounts: usize,
    /// Pods and what makes them.
    pub workloads: usize,
    /// Callers that were seen.
    pub callers: usize,
    /// Namespaces that Callers name and no manifest is of.
    pub unseen: BTreeSet<String>,
}

/// Something that does not agree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// As it was given.
    pub file: String,
    /// Counted from 1.
    pub line: u32,
    /// Stable.
    pub code: Code,
    /// `error` or `warning`.
    pub severity: &'static str,
    /// `ServiceAccount etl/orders-worker`
    pub object: String,
    /// What is so.
    pub what: String,
    /// Why that matters.
    pub why: String,
    /// What to do.
    pub fix: String,
}

/// A manifest file.
#[derive(Debug, Clone)]
pub struct ManifestFile {
    /// As findings name it.
    pub name: String,
    /// One or more YAML documents.
    pub text: String,
}

/// Compares. Rules are those of a folder that compiles. `shown`: how findings name a file of the rules.
pub fn align(
    manifests: &[ManifestFile],
    rules: &Files,
    environment: &Environment,
    compiled: &Compiled,
    shown: impl Fn(&str) -> String,
) -> Report {
    let seen = manifests::read(manifests);
    let callers = callers::read(rules, environment, shown);
    let mut findings = checks::check(&seen, &callers, compiled);
    findings.extend(seen.unreadable.iter().cloned());
    findings.sort();
    findings.dedup();
    let errors = findings.iter().filter(|finding| finding.severity == "error").count();
    let unseen = callers.iter().flat_map(|caller| &caller.forms).flat_map(|form| &form.accounts);
    let unseen = unseen.map(|account| account.namespace.clone());
    Report {
        errors,
        warnings: findings.len() - errors,
        service_accounts: seen.accounts.len(),
        workloads: seen.workloads.len(),
        callers: callers.len(),
        unseen: unseen.filter(|namespace| !seen.namespaces.contains(namespace)).collect(),
        findings,
    }
}

#[cfg(test)]
mod tests;
