//! A cluster as the source of rules.
//!
//! Every object is one file, named by what it is; the Mesh is one more, made from the pods. A workload whose pods are all
//! gone stays for a while (a rollout, a node that is drained), a gateway as long as a rule names it: what relies on it
//! could not be compiled without.
//!
//! INVARIANT: nothing is judged before everything was listed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tidegate_compiler::WorkloadId;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::{error, info, warn};

use super::Options;
use super::index::Index;
use super::pods::{Seen, Workloads, gateways_of, mesh};
use crate::push::{Hub, stopped};
use crate::rollout::refused_in_cluster;
use crate::rules::{Environment, Files, Finding, Loaded, judge_objects, load_directory, load_environment};
use crate::serve::{InForce, RuleJudgement};

/// This long nothing may change before objects are judged, so that what is applied together is judged together.
const QUIET: Duration = Duration::from_millis(50);
/// After this long they are judged although more changes.
const LONGEST: Duration = Duration::from_millis(200);
/// So long a cluster is waited for at the start; then what was accepted last is put in force.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a workload without pods stays.
const GRACE: Duration = Duration::from_secs(600);
/// How often files are looked at, and workloads that are gone.
const POLL: Duration = Duration::from_secs(2);

/// Where the Mesh is among the files.
const MESH: &str = "kube/Mesh/cluster.yaml";

/// Whether this file says what the cluster is, and is nobody's rule.
pub(crate) fn is_of_cluster(path: &str) -> bool {
    path == MESH
}

/// What became of the cluster's objects.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    /// What was judged.
    pub(crate) loaded: Loaded,
    /// What counts: each object with the text that is in force.
    pub(crate) counting: Files,
    /// What there is to say, by file; about none: under the empty name.
    pub(crate) findings: BTreeMap<String, Vec<Finding>>,
    /// What is enforced, where anything is.
    pub(crate) in_force: Option<Arc<InForce>>,
}

/// Judges objects whenever they change.
pub(crate) struct ClusterSource {
    pub(crate) index: Arc<Index>,
    pub(crate) options: Options,
    pub(crate) judgement: RuleJudgement,
    pub(crate) environment: Option<PathBuf>,
    pub(crate) directory: Option<PathBuf>,
    /// Where what is accepted can be seen.
    pub(crate) accepted: watch::Receiver<Option<Arc<InForce>>>,
    pub(crate) judged: watch::Sender<Arc<Judged>>,
}

struct State {
    source: ClusterSource,
    hub: Arc<Hub>,
    memory: Memory,
    seen: Option<(Loaded, Environment)>,
    /// Whether it was said that there is no root namespace.
    is_rootless: bool,
    directory_seen: Option<(u64, Option<SystemTime>)>,
}

/// Workloads that are gone and not forgotten.
#[derive(Debug, Default)]
struct Memory {
    gone: BTreeMap<WorkloadId, (Seen, Instant)>,
    last: Workloads,
}

// === impl Memory ===

impl Memory {
    /// What there is, and what was there lately or is still named.
    fn with(&mut self, mut present: Workloads, files: &Files, now: Instant) -> Workloads {
        for (id, seen) in std::mem::take(&mut self.last) {
            if !present.contains_key(&id) {
                self.gone.entry(id).or_insert_with(|| (seen.without_pods(), now));
            }
        }
        let is_named = |id: &WorkloadId| {
            let name = format!("\"{id}\"");
            files.values().any(|text| text.contains(&name))
        };
        self.gone.retain(|id, (seen, since)| {
            !present.contains_key(id) && (*since + GRACE > now || (seen.gateway && is_named(id)))
        });
        self.last.clone_from(&present);
        present.extend(self.gone.iter().map(|(id, (seen, _))| (id.clone(), seen.clone())));
        present
    }
}

// === impl ClusterSource ===

impl ClusterSource {
    /// Runs until the server stops.
    pub(crate) async fn run(self) -> Result<(), tokio::task::JoinError> {
        let hub = self.judgement.hub().clone();
        let mut stop = hub.stopping();
        let mut changes = self.index.inputs();
        let mut memory = Memory::default();
        if let Some(mesh) = self.judgement.accepted().and_then(|accepted| accepted.files.get(MESH)) {
            memory.last = gateways_of(mesh);
        }
        let patience = Instant::now() + PATIENCE;
        let mut was_patient = false;
        let mut state =
            State { source: self, hub, memory, seen: None, is_rootless: false, directory_seen: None };
        loop {
            let is_listed = state.source.index.is_listed();
            if is_listed || (!was_patient && Instant::now() >= patience) {
                was_patient |= !is_listed;
                state = tokio::task::spawn_blocking(move || {
                    state.refresh(is_listed);
                    state
                })
                .await?;
            }
            let next = if is_listed || was_patient { Instant::now() + POLL } else { patience };
            tokio::select! {
                // The index lives as long as this.
                _ = changes.changed() => {
                    let end = Instant::now() + LONGEST;
                    while Instant::now() < end && timeout_at(end.min(Instant::now() + QUIET), changes.changed()).await.is_ok() {}
                }
                () = sleep_until(next) => {}
                () = stopped(&mut stop) => return Ok(()),
            }
            if !state.source.index.is_listed() {
                sleep(QUIET).await;
            }
        }
    }
}

// === impl State ===

impl State {
    fn refresh(&mut self, is_listed: bool) {
        self.refresh_directory();
        if !is_listed {
            let missing = self.source.index.missing();
            let why = format!("the cluster was not listed yet, and nothing is known of {missing:?}");
            self.source.judgement.source_fails(Some(why));
            if self.source.judgement.accepted().is_some() {
                info!("what was accepted last is put in force until the cluster is reached");
                self.source.judgement.enforce_last_accepted();
            }
            return;
        }
        let environment = match self.source.environment.as_deref().map(load_environment).transpose() {
            Ok(environment) => environment.unwrap_or_default(),
            Err(error) => {
                self.seen = None;
                return self.source.judgement.source_fails(Some(error.to_string()));
            }
        };
        let root = &self.source.options.root_namespace;
        let is_rootless = !self.source.index.namespaces().contains_key(root);
        if is_rootless && !self.is_rootless {
            warn!(
                "the root namespace `{root}` is not in the cluster: nothing acts on the whole mesh; name Istio's own with \
                 `--root-namespace`"
            );
        }
        self.is_rootless = is_rootless;
        let mut files = self.source.index.files();
        let present = self.source.index.workloads();
        let workloads = self.memory.with(present, &files, Instant::now());
        let options = &self.source.options;
        let mesh = mesh(&options.trust_domain, &options.root_namespace, &workloads);
        files.insert(MESH.to_owned(), mesh.to_string());
        let now = (Loaded { files, problems: Vec::new() }, environment);
        if self.seen.as_ref() == Some(&now) {
            return self.source.judgement.source_fails(None);
        }
        let root = options.root_namespace.clone();
        let judgement = &mut self.source.judgement;
        let outcome = judgement.consider(&now.0, &now.1, |loaded, environment, last_good, compile| {
            judge_objects(loaded, environment, last_good, &root, |files, environment| {
                let (mut found, output) = compile(files, environment);
                let refused = refused_in_cluster(files, environment);
                let output = output.filter(|_| refused.is_empty());
                found.extend(refused);
                (found, output)
            })
        });
        judgement.source_fails(outcome.as_ref().err().map(ToString::to_string));
        let mut findings: BTreeMap<String, Vec<Finding>> = BTreeMap::new();
        for finding in judgement.diagnosis().findings {
            findings.entry(finding.file().to_owned()).or_default().push(finding);
        }
        let judged = Judged {
            loaded: now.0.clone(),
            counting: judgement.accepted().map(|accepted| accepted.files.clone()).unwrap_or_default(),
            findings,
            in_force: self.source.accepted.borrow().clone(),
        };
        self.source.judged.send_replace(Arc::new(judged));
        self.seen = outcome.is_ok().then_some(now);
    }

    fn refresh_directory(&mut self) {
        let Some(path) = &self.source.directory else { return };
        let stamp = std::fs::metadata(path).ok().map(|file| (file.len(), file.modified().ok()));
        if stamp.is_some() && self.directory_seen == stamp {
            return;
        }
        match load_directory(path) {
            Ok(loaded) => {
                self.hub.directories.set_file(loaded);
                self.directory_seen = stamp;
            }
            Err(error) => error!("the directories stay as they were: {error}"),
        }
    }
}
