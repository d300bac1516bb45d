//! Puts rules in force: judges what a source says, writes down what is accepted, and hands it on.
//!
//! A folder of files and a cluster's objects are two sources of the same thing.
//!
//! INVARIANT: what is handed on was written down before.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;
use tidegate_compiler::{Compilation, Compiled, Compiler, Diagnostic};
use tracing::{error, info, warn};

use super::contents::queries;
use super::key_sources;
use super::source::Considers;
use crate::clock;
use crate::control::{Control, RuleSet};
use crate::directories::Queries;
use crate::keys::KeySources;
use crate::metrics::{Metrics, ReasonLabel};
use crate::push::Hub;
use crate::rollout::Staged;
use crate::rules::{
    AcceptedRules, Environment, Files, Finding, Loaded, Origin, RuleStore, SetName, Verdict, judge,
};
use crate::state::StateError;

/// Rules that compiled and are written down.
#[derive(Debug, Clone)]
pub(crate) struct InForce {
    pub compiled: Compiled,
    pub sources: Arc<KeySources>,
    pub queries: Arc<Queries>,
    pub since: Instant,
    /// What it was compiled from, as far as people wrote it.
    pub rules: Arc<AcceptedRules>,
    /// What that is called.
    pub set: RuleSet,
    /// Ids of the revocations that it was compiled for, as far as these are rules.
    pub revoking: BTreeSet<String>,
    /// Those of them that it lacks, because they do not go together with it.
    pub left_out: BTreeSet<String>,
    /// Workloads whose proxies keep rules before, but for canaries.
    pub staged: Staged,
}

impl InForce {
    pub(crate) fn new(compiled: Compiled, rules: Arc<AcceptedRules>, set: RuleSet, since: Instant) -> Self {
        let sources = Arc::new(key_sources(&compiled));
        let queries = Arc::new(queries(&compiled));
        let (revoking, left_out, staged) = Default::default();
        Self { compiled, sources, queries, since, rules, set, revoking, left_out, staged }
    }

    /// The same while some proxies keep rules before, with the keys and directories that those need as well.
    pub(crate) fn with_staged(&self, staged: Staged) -> Self {
        let (mut sources, mut queries) = (key_sources(&self.compiled), queries(&self.compiled));
        for before in staged.values().map(|staged| &staged.before) {
            queries.extend(before.directories.iter().map(|one| (one.to_string(), one.clone())));
            for issuer in &before.model.issuers {
                if let Some(source) = sources.get_mut(&issuer.name) {
                    source.used = true;
                }
            }
        }
        Self { sources: Arc::new(sources), queries: Arc::new(queries), staged, ..self.clone() }
    }

    /// The same, with the rules before as those of this workload.
    pub(crate) fn before(&self, workload: &str) -> Option<Self> {
        let (id, staged) = self.staged.iter().find(|(id, _)| id.to_string() == workload)?;
        let mut before = self.clone();
        before.compiled.workloads.insert(id.clone(), staged.before.clone());
        Some(before)
    }
}

/// What there is to say about what is on disk.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnosis {
    /// Whether what is on disk is in force, every file as it is.
    pub up_to_date: bool,
    /// Why the files cannot even be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Files that count with their last good text.
    pub substituted: BTreeSet<String>,
    /// Everything the compiler says.
    pub findings: Vec<Finding>,
    /// Unix seconds of the last look at changed files.
    pub at: i64,
}

/// What compiles files.
pub(crate) type Compile<'c> = &'c mut dyn FnMut(&Files, &Environment) -> (Vec<Diagnostic>, Option<Compiled>);

/// Judges and puts in force. Blocking.
pub(crate) struct Judgement {
    store: Arc<RuleStore>,
    hub: Arc<Hub>,
    diagnosis: Arc<Mutex<Diagnosis>>,
    accepted: Option<Arc<AcceptedRules>>,
    /// Keeps what did not change from one look to the next.
    compiler: Compiler,
    control: Arc<Control>,
}

/// Compiles files.
pub(crate) fn compile_files(files: &Files, environment: &Environment) -> Compilation {
    let mut compiler = Compiler::new();
    let compilation = compile_again(&mut compiler, files, environment);
    compiler.discard();
    compilation
}

pub(crate) fn compile_again(
    compiler: &mut Compiler,
    files: &Files,
    environment: &Environment,
) -> Compilation {
    let texts = files.iter().map(|(path, text)| (path.as_str(), text.as_str()));
    compiler.compile_texts(texts, environment, Some(crate::clock::now()))
}

// === impl Judgement ===

impl Judgement {
    pub(super) fn new(
        hub: Arc<Hub>,
        diagnosis: Arc<Mutex<Diagnosis>>,
        control: Arc<Control>,
    ) -> Result<Self, StateError> {
        let store = control.rule_store();
        let accepted = store.read(SetName::Accepted)?;
        Ok(Self { store, hub, diagnosis, accepted, compiler: Compiler::new(), control })
    }

    /// What was accepted last.
    pub(crate) fn accepted(&self) -> Option<&AcceptedRules> {
        self.accepted.as_deref()
    }

    /// What every part of the server shares.
    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Judges what a source says as `how` does, and puts it in force if it is accepted.
    pub(crate) fn consider(
        &mut self,
        loaded: &Loaded,
        environment: &Environment,
        how: impl FnOnce(&Loaded, &Environment, Option<&AcceptedRules>, Compile<'_>) -> Verdict<Compiled>,
    ) -> Result<(), StateError> {
        let started = Instant::now();
        let compiler = &mut self.compiler;
        let verdict = how(loaded, environment, self.accepted.as_deref(), &mut |files, environment| {
            let Compilation { diagnostics, output } = compile_again(compiler, files, environment);
            (diagnostics, output)
        });
        let metrics = &self.hub.metrics;
        metrics.compile_seconds.set(started.elapsed().as_secs_f64());
        let result = match &verdict.accepted {
            None => "refused",
            Some(_) if verdict.substituted.is_empty() => "accepted",
            Some(_) => "accepted_in_part",
        };
        metrics.compilations.get_or_create(&ReasonLabel::new(result)).inc();
        report(&verdict.findings, &verdict.substituted, metrics);
        let up_to_date = verdict.accepted.is_some() && verdict.substituted.is_empty();
        let diagnosis = Diagnosis {
            up_to_date,
            error: None,
            substituted: verdict.substituted,
            findings: verdict.findings,
            at: clock::now(),
        };
        *self.diagnosis.lock().unwrap_or_else(PoisonError::into_inner) = diagnosis;
        match verdict.accepted {
            Some((accepted, compiled)) => {
                let known = self.accepted.take_if(|known| **known == accepted);
                let accepted = match known {
                    Some(known) => known,
                    None => {
                        let accepted = Arc::new(accepted);
                        self.store.write(SetName::Accepted, &accepted)?;
                        accepted
                    }
                };
                self.accepted = Some(accepted.clone());
                self.enforce(compiled, accepted);
            }
            None => {
                error!("the rules are refused; {}", self.what_stays());
                self.enforce_last_accepted();
            }
        }
        Ok(())
    }

    /// Shows why what the source says is not even known; `None`: it is.
    pub(crate) fn source_fails(&self, error: Option<String>) {
        let mut diagnosis = self.diagnosis.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = &error {
            if diagnosis.error.as_ref() != Some(error) {
                error!("nothing changes until this is mended: {error}");
            }
            diagnosis.up_to_date = false;
        }
        diagnosis.error = error;
    }

    /// What there is to say.
    pub(crate) fn diagnosis(&self) -> Diagnosis {
        self.diagnosis.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn what_stays(&self) -> &'static str {
        if self.accepted.is_some() {
            "those that were accepted last stay in force"
        } else {
            "there are no others"
        }
    }

    /// After a restart with broken rules: those that were in force before.
    pub(crate) fn enforce_last_accepted(&mut self) {
        let Some(accepted) = self.accepted.clone().filter(|_| self.control.is_idle()) else {
            return;
        };
        let Compilation { diagnostics, output } =
            compile_again(&mut self.compiler, &accepted.files, &accepted.environment);
        match output {
            Some(compiled) => self.enforce(compiled, accepted),
            None => {
                error!("the rules that were accepted last no longer compile with this version");
                for found in diagnostics.iter().filter(|found| found.is_error()) {
                    error!("{found}");
                }
            }
        }
    }

    fn enforce(&self, compiled: Compiled, rules: Arc<AcceptedRules>) {
        info!(workloads = compiled.workloads.len(), issuers = compiled.issuers.len(), "rules accepted");
        let set = self.control.name(&rules);
        self.control.put(Arc::new(InForce::new(compiled, rules, set, Instant::now())));
    }
}

impl Considers for Judgement {
    fn consider(&mut self, loaded: &Loaded, environment: &Environment) -> Result<(), StateError> {
        Self::consider(self, loaded, environment, |loaded, environment, last_good, compile| {
            judge(loaded, environment, last_good, Origin::Files, compile)
        })
    }

    fn fails(&mut self, error: Option<String>) {
        self.source_fails(error);
    }
}

fn report(findings: &[Finding], substituted: &BTreeSet<String>, metrics: &Metrics) {
    for finding in findings {
        if finding.is_error() {
            error!("{finding}");
        } else {
            warn!("{finding}");
        }
    }
    for file in substituted {
        warn!("{file}: counts with its last good text");
    }
    let errors = findings.iter().filter(|finding| finding.is_error()).count();
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    metrics.diagnostics.get_or_create(&ReasonLabel::new("error")).set(count(errors));
    metrics.diagnostics.get_or_create(&ReasonLabel::new("warning")).set(count(findings.len() - errors));
    metrics.substituted_files.set(count(substituted.len()));
}
