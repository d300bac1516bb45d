//! A candidate: a second folder of rules, evaluated by filters beside those in force, and only ever compared with them.
//!
//! INVARIANT: nothing here touches what is in force. A candidate that cannot be read or does not compile, in any of its
//! files, is left out whole: there is no last good form of it, so that what is compared is what is on disk.
//!
//! INVARIANT: nothing is fetched or read for a candidate: keys and directories are those that the rules in force have.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tidegate_compiler::{Compilation, Compiled, Compiler};
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::judgement::{InForce, compile_again};
use super::key_sources;
use super::source::Considers;
use crate::clock;
use crate::keys::KeySources;
use crate::metrics::{Metrics, ReasonLabel};
use crate::push::{FleetReport, Hub};
use crate::rules::{Environment, Finding, Loaded};
use crate::state::StateError;

/// Rules that compiled, to be compared.
#[derive(Debug)]
pub(super) struct Candidate {
    pub compiled: Compiled,
    sources: KeySources,
}

/// What there is to say about a candidate.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CandidateReport {
    /// Whether filters get it.
    pub state: CandidateState,
    /// Where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// Why the folder cannot even be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Everything the compiler says.
    pub findings: Vec<Finding>,
    /// What of it cannot be compared, and why.
    pub limits: Vec<String>,
    /// Unix seconds of the last look at changed files.
    pub at: i64,
    /// What filters say, for every workload for which it says something else than the rules in force.
    pub workloads: std::collections::BTreeMap<String, ComparisonReport>,
}

/// Whether filters get a candidate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum CandidateState {
    /// There is none (`--candidate`).
    #[default]
    None,
    /// Filters compare it.
    Compared,
    /// It cannot be read or does not compile.
    LeftOut,
}

/// How a candidate compares at one workload. Totals of VMs since they started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ComparisonReport {
    /// Connected VMs.
    pub connected: usize,
    /// Connected VMs that have this candidate.
    pub comparing: usize,
    /// Decisions that were compared.
    pub compared: u64,
    /// Requests that were refused, and that the candidate would have allowed.
    pub would_allow: u64,
    /// Requests that were allowed, and that the candidate would have refused.
    pub would_deny: u64,
    /// Requests of which it cannot be told.
    pub unknown: u64,
}

/// Judges what is in a candidate's folder. Blocking.
pub(super) struct CandidateJudge {
    hub: Arc<Hub>,
    report: Arc<Mutex<CandidateReport>>,
    compiler: Compiler,
    candidate: watch::Sender<Option<Arc<Candidate>>>,
}

// === impl CandidateJudge ===

impl CandidateJudge {
    pub(super) fn new(
        folder: PathBuf,
        hub: Arc<Hub>,
        report: Arc<Mutex<CandidateReport>>,
        candidate: watch::Sender<Option<Arc<Candidate>>>,
    ) -> Self {
        let begun = CandidateReport {
            state: CandidateState::LeftOut,
            folder: Some(folder),
            error: Some("it was not read yet".to_owned()),
            ..CandidateReport::default()
        };
        *report.lock().unwrap_or_else(PoisonError::into_inner) = begun;
        Self { hub, report, compiler: Compiler::new(), candidate }
    }

    fn tell(&self, state: CandidateState, error: Option<String>, findings: Vec<Finding>) {
        let count = |is_error: bool| {
            let count = findings.iter().filter(|finding| finding.is_error() == is_error).count();
            i64::try_from(count).unwrap_or(i64::MAX)
        };
        let Metrics { candidate_diagnostics, .. } = &self.hub.metrics;
        candidate_diagnostics.get_or_create(&ReasonLabel::new("error")).set(count(true));
        candidate_diagnostics.get_or_create(&ReasonLabel::new("warning")).set(count(false));
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.state = state;
        report.error = error;
        report.findings = findings;
        report.at = clock::now();
        if state == CandidateState::LeftOut {
            report.limits.clear();
        }
    }

    fn leave_out(&self) {
        let was_there = self.candidate.send_replace(None).is_some();
        if was_there {
            warn!("the candidate is left out: filters compare nothing until it is mended");
        }
    }
}

impl Considers for CandidateJudge {
    fn consider(&mut self, loaded: &Loaded, environment: &Environment) -> Result<(), StateError> {
        let Compilation { diagnostics, output } =
            compile_again(&mut self.compiler, &loaded.files, environment);
        let problems = loaded.problems.iter().cloned().map(Finding::File);
        let findings: Vec<Finding> = problems.chain(diagnostics.into_iter().map(Finding::Rule)).collect();
        for finding in findings.iter().filter(|finding| finding.is_error()) {
            error!("candidate: {finding}");
        }
        match output.filter(|_| loaded.problems.is_empty()) {
            Some(compiled) => {
                info!(workloads = compiled.workloads.len(), "candidate compiled");
                self.tell(CandidateState::Compared, None, findings);
                let sources = key_sources(&compiled);
                self.candidate.send_replace(Some(Arc::new(Candidate { compiled, sources })));
            }
            None => {
                self.tell(CandidateState::LeftOut, None, findings);
                self.leave_out();
            }
        }
        Ok(())
    }

    fn fails(&mut self, error: Option<String>) {
        let Some(error) = error else { return };
        let is_new =
            self.report.lock().unwrap_or_else(PoisonError::into_inner).error.as_ref() != Some(&error);
        if is_new {
            error!("candidate: {error}");
        }
        self.tell(CandidateState::LeftOut, Some(error), Vec::new());
        self.leave_out();
    }
}

// === impl Candidate ===

impl Candidate {
    /// Issuers that its rules name, and whose keys nobody has for it.
    pub(super) fn without_keys(&self, in_force: &InForce) -> BTreeSet<&str> {
        let used = self.sources.iter().filter(|(_, source)| source.used);
        used.filter(|(name, source)| {
            !in_force
                .sources
                .get(*name)
                .is_some_and(|there| there.used && there.keys == source.keys && there.pack == source.pack)
        })
        .map(|(name, _)| name.as_str())
        .collect()
    }

    /// What of it cannot be compared with what is in force.
    pub(super) fn limits(&self, in_force: &InForce) -> Vec<String> {
        let mut limits = Vec::new();
        let (ours, theirs) = (&self.compiled.workloads, &in_force.compiled.workloads);
        for id in theirs.keys().filter(|id| !ours.contains_key(*id)) {
            limits.push(format!("`{id}` is not in the candidate's Mesh: nothing is compared there"));
        }
        for id in ours.keys().filter(|id| !theirs.contains_key(*id)) {
            limits.push(format!("`{id}` is in the candidate's Mesh only: no filter of it is known"));
        }
        for name in self.without_keys(in_force) {
            limits.push(format!(
                "no rule in force uses issuer `{name}` with these keys, and none are fetched for a candidate: what depends \
                 on its tokens is unknown"
            ));
        }
        for (id, policy) in ours {
            let there = theirs.get(id);
            if policy.reads_bodies && !there.is_some_and(|there| there.reads_bodies) {
                limits.push(format!(
                    "no rule in force reads bodies at `{id}`: what depends on them is unknown"
                ));
            }
        }
        let named: BTreeSet<String> =
            ours.values().flat_map(|policy| policy.directories.iter().map(ToString::to_string)).collect();
        for name in named.iter().filter(|name| !in_force.queries.contains_key(*name)) {
            limits.push(format!(
                "no rule in force names directory `{name}`, and none is read for a candidate: what depends on it is unknown, \
                 unless a file lists it (`--directory`)"
            ));
        }
        limits
    }
}

// === impl CandidateReport ===

impl CandidateReport {
    /// The same with what filters say. `compared`: the workloads for which it says something else.
    pub fn with_fleet(mut self, fleet: &FleetReport, compared: impl Iterator<Item = String>) -> Self {
        for id in compared {
            let mut report = ComparisonReport::default();
            let workload = fleet.workloads.get(&id);
            let canaries = workload.and_then(|workload| workload.canary.as_ref());
            for vm in workload.map(|workload| workload.vms.as_slice()).unwrap_or_default() {
                let knows = vm.capabilities.iter().any(|known| known == tidegate_proto::CANDIDATE);
                report.connected += usize::from(vm.connected);
                // A canary compares with something else: the rules before.
                if canaries.is_some_and(|canaries| canaries.instances.contains(&vm.instance)) {
                    continue;
                }
                report.comparing += usize::from(vm.connected && vm.up_to_date && knows);
                if let Some(counters) = vm.counters {
                    report.compared = report.compared.saturating_add(counters.candidate_compared);
                    report.would_allow = report.would_allow.saturating_add(counters.candidate_would_allow);
                    report.would_deny = report.would_deny.saturating_add(counters.candidate_would_deny);
                    report.unknown = report.unknown.saturating_add(counters.candidate_unknown);
                }
            }
            self.workloads.insert(id, report);
        }
        self
    }
}
