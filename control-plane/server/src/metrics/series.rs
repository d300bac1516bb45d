//! How many time series rules make, before they are in force.
//!
//! Proxies count without rules as labels, whatever the rules are. In the control plane `rule_decisions` and
//! `rule_differences` have the rule as a label ([`super::decisions`]); what is beyond their budget counts as `other`, and
//! nobody sees which rule it was. What is said here is the most that can come of it, without a candidate and while no Guard
//! is suspended.

use std::collections::BTreeMap;

use serde::Serialize;
use tidegate_compiler::{Code, Compiled, Diagnostic, WorkloadPolicy};
use tidegate_engine::Reason;
use tidegate_engine::model::{Effect, Mode};

use super::decisions::{MAX_SERIES, MAX_WORKLOAD_SERIES};
use super::pipelines;

/// Causes of gaps, each with a series per workload.
const GAPS: usize = 4;

/// The time series that rules make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Series {
    /// In a proxy: none, for its labels are not of rules.
    pub per_proxy: usize,
    /// In the control plane, at most.
    pub control_plane: usize,
    /// How many there may be.
    pub budget: usize,
    /// The workload that has most, and how many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most: Option<(String, usize)>,
    /// How many one workload may have.
    pub workload_budget: usize,
    /// How many come besides by pipeline and resource at most, whatever the rules are.
    pub by_pipeline: usize,
    /// Workloads that have more.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub over: BTreeMap<String, usize>,
}

/// The time series that these rules make, against this budget.
pub fn series(compiled: &Compiled, budget: usize) -> Series {
    let of: BTreeMap<String, usize> =
        compiled.workloads.iter().map(|(id, policy)| (id.to_string(), of_workload(policy))).collect();
    let most = of.iter().max_by_key(|(id, count)| (**count, std::cmp::Reverse(id.as_str())));
    Series {
        per_proxy: 0,
        control_plane: of.values().sum(),
        budget,
        most: most.map(|(id, count)| (id.clone(), *count)),
        workload_budget: MAX_WORKLOAD_SERIES,
        by_pipeline: of.len().saturating_mul(pipelines::MAX_WORKLOAD_SERIES).min(pipelines::MAX_SERIES),
        over: of.into_iter().filter(|(_, count)| *count > MAX_WORKLOAD_SERIES).collect(),
    }
}

fn of_workload(policy: &WorkloadPolicy) -> usize {
    let rules = &policy.model.rules;
    let is_shadowed = policy.model.guards.iter().any(|guard| guard.mode == Mode::Shadow);
    // An enforced rule decides with one outcome for one reason.
    let decisions = rules.iter().filter(|rule| rule.mode == Mode::Enforce).count();
    let other_reasons =
        Reason::all().filter(|reason| !matches!(reason, Reason::AllowedBy | Reason::DeniedBy)).count();
    // A Shadow rule, or a Deny that a Guard only reports, would decide with one outcome.
    let differences = rules
        .iter()
        .filter(|rule| rule.mode == Mode::Shadow || (is_shadowed && rule.effect == Effect::Deny))
        .count();
    // What no rule allows.
    let refusals = usize::from(is_shadowed);
    [decisions, other_reasons, differences, refusals, GAPS].into_iter().fold(0, usize::saturating_add)
}

// === impl Series ===

impl Series {
    /// The budget of the control plane.
    pub const BUDGET: usize = MAX_SERIES;

    /// Warnings where there are too many.
    pub fn findings(&self) -> Vec<Diagnostic> {
        let finding = |object: Option<String>, message: String, fix: &str| Diagnostic {
            file: String::new(),
            line: 0,
            column: 0,
            code: Code::ManySeries,
            severity: Code::ManySeries.severity(),
            object,
            field: String::new(),
            message,
            why: "what is beyond counts as `rule=\"other\"`, and no panel or alert tells which rule it was"
                .to_owned(),
            fix: fix.to_owned(),
            related: Vec::new(),
        };
        let of_workload = self.over.iter().map(|(workload, count)| {
            finding(
                Some(format!("workload `{workload}`")),
                format!("its rules make up to {count} time series, and {MAX_WORKLOAD_SERIES} have room"),
                "let one rule name several callers or paths instead of one rule for each; every decision is recorded all the same",
            )
        });
        let mut findings: Vec<Diagnostic> = of_workload.collect();
        if self.control_plane > self.budget {
            findings.push(finding(
                None,
                format!(
                    "the rules make up to {} time series in the control plane, and the budget is {}",
                    self.control_plane, self.budget
                ),
                "let rules be about fewer workloads, or let one rule name several callers or paths; every decision is recorded \
                 all the same",
            ));
        }
        findings
    }

    /// A line for people.
    pub fn summary(&self) -> String {
        let most = match &self.most {
            Some((workload, count)) => format!(", at most {count} of {} at {workload}", self.workload_budget),
            None => String::new(),
        };
        format!(
            "time series by rule: up to {} of {} in the control plane{most}; none per proxy\n\
             time series by pipeline and resource: at most {}, whatever the rules are\n",
            self.control_plane, self.budget, self.by_pipeline
        )
    }
}

#[cfg(test)]
mod tests;
