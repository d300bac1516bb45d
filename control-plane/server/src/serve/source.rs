//! The rules in force: reads and judges what is on disk whenever it changes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tidegate_compiler::{Compilation, Compiled, Compiler, Inputs, SourceFile};
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::contents::queries;
use super::key_sources;
use crate::clock;
use crate::directories::Queries;
use crate::keys::KeySources;
use crate::metrics::{Metrics, ReasonLabel};
use crate::push::{Hub, stopped};
use crate::rules::{
    AcceptedRules, Environment, Files, Finding, Fingerprint, FolderWatch, LoadError, Loaded, fingerprint,
    judge, load, load_directory, load_environment,
};
use crate::state::{StateDir, StateError};

/// How often sizes and times are looked at, should an event have been missed (network file systems have none).
const POLL: Duration = Duration::from_secs(2);

/// Rules that compiled and are written down.
#[derive(Debug)]
pub(super) struct InForce {
    pub compiled: Compiled,
    pub sources: Arc<KeySources>,
    pub queries: Arc<Queries>,
    pub since: Instant,
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

/// Where files are.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub rules: PathBuf,
    pub environment: Option<PathBuf>,
    pub directory: Option<PathBuf>,
}

/// Reads and judges. Blocking.
pub(super) struct Source {
    places: Places,
    state: Arc<StateDir>,
    hub: Arc<Hub>,
    diagnosis: Arc<Mutex<Diagnosis>>,
    accepted: Option<AcceptedRules>,
    /// Keeps what did not change from one look to the next.
    compiler: Compiler,
    in_force: watch::Sender<Option<Arc<InForce>>>,
    seen: Option<(Loaded, Environment)>,
    fingerprint: Option<Fingerprint>,
    /// Whether it was said already that watching does not work.
    is_polling: bool,
}

/// Why nothing changed.
#[derive(Debug, thiserror::Error)]
enum SourceError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    State(#[from] StateError),
}

// === impl Places ===

impl Places {
    /// Reads everything once, to say at the start what cannot be read.
    pub(super) fn check(&self) -> Result<(), LoadError> {
        load(&self.rules)?;
        self.environment.as_deref().map(load_environment).transpose()?;
        self.directory.as_deref().map(load_directory).transpose()?;
        Ok(())
    }

    fn environment(&self) -> Result<Environment, LoadError> {
        Ok(self.environment.as_deref().map(load_environment).transpose()?.unwrap_or_default())
    }

    fn files(&self) -> impl Iterator<Item = &std::path::Path> {
        [&self.environment, &self.directory].into_iter().flatten().map(PathBuf::as_path)
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        fingerprint(&self.rules, self.files()).ok()
    }

    fn watch(&self) -> notify::Result<FolderWatch> {
        let mut watch = FolderWatch::new()?;
        watch.add_tree(&self.rules)?;
        // A folder that is watched as a tree must not be watched again as a folder.
        for file in self.files().filter(|file| !file.starts_with(&self.rules)) {
            watch.add_file(file)?;
        }
        Ok(watch)
    }
}

/// Compiles files.
pub(crate) fn compile_files(files: &Files, environment: &Environment) -> Compilation {
    compile_again(&mut Compiler::new(), files, environment)
}

fn compile_again(compiler: &mut Compiler, files: &Files, environment: &Environment) -> Compilation {
    let sources: Vec<SourceFile> =
        files.iter().map(|(path, text)| SourceFile { path: path.clone(), text: text.clone() }).collect();
    let now = Some(crate::clock::now());
    compiler.compile(&Inputs { sources: &sources, env: environment.clone(), now })
}

// === impl Source ===

impl Source {
    pub(super) fn new(
        places: Places,
        state: Arc<StateDir>,
        hub: Arc<Hub>,
        diagnosis: Arc<Mutex<Diagnosis>>,
        in_force: watch::Sender<Option<Arc<InForce>>>,
    ) -> Result<Self, StateError> {
        let accepted = AcceptedRules::load(&state)?;
        Ok(Self {
            places,
            state,
            hub,
            diagnosis,
            accepted,
            compiler: Compiler::new(),
            in_force,
            seen: None,
            fingerprint: None,
            is_polling: false,
        })
    }

    /// Watches until the server stops.
    pub(super) async fn run(mut self) -> Result<(), tokio::task::JoinError> {
        let mut stop = self.hub.stopping();
        let mut watch = self.start_watching();
        loop {
            self = tokio::task::spawn_blocking(move || {
                self.refresh();
                self
            })
            .await?;
            loop {
                let changed = async {
                    match &watch {
                        Some(watch) => watch.changed().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = changed => break,
                    () = tokio::time::sleep(POLL) => {
                        if watch.as_ref().is_some_and(FolderWatch::is_being_written) {
                            continue;
                        }
                        let places = self.places.clone();
                        let fingerprint = tokio::task::spawn_blocking(move || places.fingerprint()).await?;
                        if fingerprint != self.fingerprint || self.seen.is_none() {
                            // No event came. The folder may be another one of the same name.
                            watch = self.start_watching();
                            break;
                        }
                    }
                    () = stopped(&mut stop) => return Ok(()),
                }
            }
        }
    }

    fn start_watching(&mut self) -> Option<FolderWatch> {
        let watch = self.places.watch();
        if let Err(error) = &watch
            && !self.is_polling
        {
            warn!("changes are noticed within {} s instead of at once: {error}", POLL.as_secs());
        }
        self.is_polling = watch.is_err();
        watch.ok()
    }

    fn refresh(&mut self) {
        self.fingerprint = self.places.fingerprint();
        self.refresh_directories();
        let error = self.refresh_rules().err().map(|error| error.to_string());
        let mut diagnosis = self.diagnosis.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = &error {
            // It is looked at again with every poll.
            self.seen = None;
            if diagnosis.error.as_ref() != Some(error) {
                error!("nothing changes until this is mended: {error}");
            }
            diagnosis.up_to_date = false;
        }
        diagnosis.error = error;
    }

    fn refresh_directories(&self) {
        let Some(path) = &self.places.directory else { return };
        match load_directory(path) {
            Ok(loaded) => self.hub.directories.set_file(loaded),
            Err(error) => error!("the directories stay as they were: {error}"),
        }
    }

    fn refresh_rules(&mut self) -> Result<(), SourceError> {
        let now = (load(&self.places.rules)?, self.places.environment()?);
        if self.seen.as_ref() == Some(&now) {
            return Ok(());
        }
        let (loaded, environment) = &now;
        let started = Instant::now();
        let compiler = &mut self.compiler;
        let verdict = judge(loaded, environment, self.accepted.as_ref(), |files, environment| {
            let Compilation { diagnostics, output } = compile_again(compiler, files, environment);
            (diagnostics, output)
        });
        let metrics = &self.hub.metrics;
        metrics.compile_ms.set(i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX));
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
                if self.accepted.as_ref() != Some(&accepted) {
                    accepted.save(&self.state)?;
                    self.accepted = Some(accepted);
                }
                self.enforce(compiled);
            }
            None => {
                error!("the rules on disk are refused; {}", self.what_stays());
                self.enforce_last_accepted();
            }
        }
        self.seen = Some(now);
        Ok(())
    }

    fn what_stays(&self) -> &'static str {
        if self.accepted.is_some() {
            "those that were accepted last stay in force"
        } else {
            "there are no others"
        }
    }

    /// After a restart with broken rules: those that were in force before.
    fn enforce_last_accepted(&mut self) {
        let Some(accepted) = self.accepted.as_ref().filter(|_| self.in_force.borrow().is_none()) else {
            return;
        };
        let Compilation { diagnostics, output } =
            compile_again(&mut self.compiler, &accepted.files, &accepted.environment);
        match output {
            Some(compiled) => self.enforce(compiled),
            None => {
                error!("the rules that were accepted last no longer compile with this version");
                for found in diagnostics.iter().filter(|found| found.is_error()) {
                    error!("{found}");
                }
            }
        }
    }

    fn enforce(&self, compiled: Compiled) {
        let sources = Arc::new(key_sources(&compiled));
        let queries = Arc::new(queries(&compiled));
        self.hub.directories.set_queries(queries.clone());
        info!(workloads = compiled.workloads.len(), issuers = compiled.issuers.len(), "rules accepted");
        self.in_force.send_replace(Some(Arc::new(InForce {
            compiled,
            sources,
            queries,
            since: Instant::now(),
        })));
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
