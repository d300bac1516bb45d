//! Which run a pod of Tekton is of: its labels, as the Kubernetes API shows them.
//!
//! Tokens of pods name the pod and nothing that runs in it. Tekton labels the pod with its TaskRun and PipelineRun; those are added
//! to records when they come, by the pod's uid, and marked: whoever may create pods in a namespace can label one so.
//!
//! INVARIANT: labels are never more than what is shown. No rule and no filter reads what is kept here, and it names nothing that a
//! token does: where a token says which run it is of, that stands.
//!
//! INVARIANT: it is bounded. Pods that were not seen for longest are forgotten first.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use super::clean;
use super::record::{Claim, Recorded};
use super::run::{POD_NAME, POD_UID, Run, RunKind};

/// Most pods of one cluster that are remembered: those that are there, and as many that have ended. Records come later.
const MAX_PODS: usize = 40_000;
/// Longest value of a label (Kubernetes, "Labels and Selectors": 63), and of a namespace.
const MAX_NAME: usize = 63;
/// Longest uid: those of Kubernetes have 36.
const MAX_UID: usize = 64;

/// What labels of a pod say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRun {
    namespace: String,
    pipeline_run: Option<String>,
    task_run: String,
}

/// The pods of Tekton, by cluster.
#[derive(Debug, Default)]
pub struct Pods(RwLock<HashMap<String, Cluster>>);

/// Pods of the cluster that a TrustedIssuer stands for.
#[derive(Debug, Default)]
struct Cluster {
    /// By uid, with when it was seen.
    pods: HashMap<String, (u64, Arc<PodRun>)>,
    /// By when they were seen.
    order: BTreeMap<u64, String>,
    seen: u64,
}

// === impl PodRun ===

impl PodRun {
    /// Of the labels of a pod; `None`: it is none of Tekton.
    pub fn new(namespace: &str, labels: &BTreeMap<String, String>) -> Option<Self> {
        let label = |name: &str| {
            let value = labels.get(name).filter(|value| !value.is_empty() && value.len() <= MAX_NAME)?;
            Some(clean::text(value, MAX_NAME))
        };
        Some(Self {
            namespace: clean::text(namespace, MAX_NAME),
            pipeline_run: label("tekton.dev/pipelineRun"),
            task_run: label("tekton.dev/taskRun")?,
        })
    }

    /// The run of a record whose caller is this pod of the issuer's.
    fn run(&self, issuer: &str, pod: Option<&str>, known: Option<Run>) -> Run {
        let (kind, id, job) = match &self.pipeline_run {
            Some(run) => (RunKind::PipelineRun, run.clone(), Some(self.task_run.clone())),
            None => (RunKind::TaskRun, self.task_run.clone(), pod.map(str::to_owned)),
        };
        let (agent, model) = known.map_or((None, None), |known| (known.agent, known.model));
        Run {
            kind,
            id,
            issuer: issuer.to_owned(),
            guessed: false,
            by_labels: true,
            attempt: None,
            job,
            project: Some(self.namespace.clone()),
            commit: None,
            reference: None,
            initiator: None,
            agent,
            model,
        }
    }
}

// === impl Pods ===

impl Pods {
    /// A pod of the issuer's cluster was seen.
    pub fn see(&self, issuer: &str, uid: &str, run: PodRun) {
        if uid.is_empty() || uid.len() > MAX_UID {
            return;
        }
        let mut clusters = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match clusters.get_mut(issuer) {
            Some(cluster) => cluster.see(uid, run),
            None => clusters.entry(issuer.to_owned()).or_default().see(uid, run),
        }
    }

    /// Adds the run of a pod to a record, where no token names one. What the pod's own token says of a run is no more than that
    /// it is a pod; what a token of another issuer says is of something else.
    pub fn complete(&self, recorded: &mut Recorded) {
        let is_of_pod = |run: &Run, issuer: &str| {
            run.issuer == issuer && matches!(run.kind, RunKind::Workload | RunKind::TaskRun)
        };
        let stands = |issuer: &str| recorded.run.as_ref().is_some_and(|run| !is_of_pod(run, issuer));
        let uids = recorded.claims.iter().filter(|claim| claim.claim == POD_UID && !stands(&claim.issuer));
        let mut found = uids.filter_map(|claim| {
            let run = self.of(&claim.issuer, claim.values.first()?)?;
            Some((claim.issuer.clone(), run))
        });
        let Some((issuer, run)) = found.next() else { return };
        let is_pod = |claim: &&Claim| claim.issuer == issuer && claim.claim == POD_NAME;
        let pod = recorded.claims.iter().find(is_pod).and_then(|claim| claim.values.first());
        recorded.run = Some(run.run(&issuer, pod.map(String::as_str), recorded.run.take()));
    }

    fn of(&self, issuer: &str, uid: &str) -> Option<Arc<PodRun>> {
        let clusters = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Some(clusters.get(issuer)?.pods.get(uid)?.1.clone())
    }
}

// === impl Cluster ===

impl Cluster {
    fn see(&mut self, uid: &str, run: PodRun) {
        self.seen = self.seen.saturating_add(1);
        let run = match self.pods.remove(uid) {
            Some((before, known)) => {
                self.order.remove(&before);
                if *known == run { known } else { Arc::new(run) }
            }
            None => Arc::new(run),
        };
        self.pods.insert(uid.to_owned(), (self.seen, run));
        self.order.insert(self.seen, uid.to_owned());
        while self.pods.len() > MAX_PODS {
            let Some((_, oldest)) = self.order.pop_first() else { return };
            self.pods.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Outcome;
    use super::super::testing::recorded;
    use super::*;

    const UID: &str = "5f2c8a1e-0b7d-4c7e-9a55-3d0c6f1f2a11";

    fn labels(all: &[(&str, &str)]) -> BTreeMap<String, String> {
        all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn of_pipeline() -> PodRun {
        let all = labels(&[
            ("tekton.dev/taskRun", "release-7xk2p-build"),
            ("tekton.dev/pipelineRun", "release-7xk2p"),
            ("tekton.dev/pipeline", "release"),
        ]);
        PodRun::new("ci", &all).unwrap()
    }

    fn called(claims: &[(&str, &str, &str)], run: Option<Run>) -> Recorded {
        let claim = |(issuer, claim, value): &(&str, &str, &str)| Claim {
            issuer: (*issuer).to_owned(),
            claim: (*claim).to_owned(),
            values: vec![(*value).to_owned()],
        };
        Recorded {
            claims: claims.iter().map(claim).collect(),
            run,
            ..recorded("7Q4K-M2XD-0001", Outcome::Allow, 0)
        }
    }

    fn guess() -> Run {
        let run = of_pipeline().run("pods", None, None);
        Run { kind: RunKind::TaskRun, guessed: true, by_labels: false, model: Some("m-1".into()), ..run }
    }

    fn completed(pods: &Pods, mut recorded: Recorded) -> Option<Run> {
        pods.complete(&mut recorded);
        recorded.run
    }

    #[test]
    fn a_record_of_a_pod_names_its_pipeline_run_and_says_that_labels_do() {
        let pods = Pods::default();
        pods.see("pods", UID, of_pipeline());
        let claims = [("pods", POD_UID, UID), ("pods", POD_NAME, "release-7xk2p-build-pod")];
        for known in [None, Some(guess()), Some(Run { kind: RunKind::Workload, ..guess() })] {
            let model = known.as_ref().and_then(|known| known.model.clone());
            let run = completed(&pods, called(&claims, known)).unwrap();
            assert_eq!((run.kind, run.id.as_str()), (RunKind::PipelineRun, "release-7xk2p"));
            assert_eq!(
                (run.job.as_deref(), run.project.as_deref()),
                (Some("release-7xk2p-build"), Some("ci"))
            );
            assert_eq!((run.source(), run.model), ("labels", model));
        }
        let alone = PodRun::new("ci", &labels(&[("tekton.dev/taskRun", "lint-2")])).unwrap();
        pods.see("pods", UID, alone);
        let run = completed(&pods, called(&claims, Some(guess()))).unwrap();
        assert_eq!((run.kind, run.id.as_str()), (RunKind::TaskRun, "lint-2"));
        assert_eq!((run.job.as_deref(), run.source()), (Some("release-7xk2p-build-pod"), "labels"));
    }

    #[test]
    fn what_a_token_says_stands_and_other_clusters_pods_are_others() {
        let pods = Pods::default();
        pods.see("pods", UID, of_pipeline());
        let gitlab = Run { kind: RunKind::GitlabPipeline, id: "91".into(), ..guess() };
        let uid = [("pods", POD_UID, UID)];
        assert_eq!(completed(&pods, called(&uid, Some(gitlab.clone()))), Some(gitlab));
        // Generic issuers, Okta and Entra ID state runs of the same kind as clusters do.
        let okta =
            Run { kind: RunKind::Workload, issuer: "okta".into(), commit: Some("3fa9c2".into()), ..guess() };
        let both = [("pods", POD_UID, UID), ("okta", "sub", "etl")];
        assert_eq!(completed(&pods, called(&both, Some(okta.clone()))), Some(okta));
        for claims in [
            &[][..],
            &[("other", POD_UID, UID)],
            &[("pods", POD_UID, "another")],
            &[("pods", POD_NAME, UID)],
            &[("pods", POD_UID, "")],
        ] {
            assert_eq!(completed(&pods, called(claims, Some(guess()))), Some(guess()), "{claims:?}");
        }
    }

    #[test]
    fn labels_that_are_none_of_tekton_say_nothing() {
        let long = "x".repeat(64);
        for all in [
            &[][..],
            &[("tekton.dev/pipelineRun", "release-7xk2p")],
            &[("tekton.dev/taskRun", "")],
            &[("tekton.dev/taskRun", &long)],
        ] {
            assert_eq!(PodRun::new("ci", &labels(all)), None, "{all:?}");
        }
    }

    #[test]
    fn those_that_were_not_seen_for_longest_are_forgotten() {
        let pods = Pods::default();
        for at in 0..MAX_PODS {
            pods.see("pods", &at.to_string(), of_pipeline());
        }
        pods.see("pods", "0", of_pipeline());
        pods.see("pods", "new", of_pipeline());
        pods.see("pods", &"u".repeat(65), of_pipeline());
        assert!(pods.of("pods", "0").is_some() && pods.of("pods", "new").is_some());
        assert!(pods.of("pods", "1").is_none() && pods.of("pods", "2").is_some());
        let clusters = pods.0.read().unwrap();
        let cluster = &clusters["pods"];
        assert_eq!((cluster.pods.len(), cluster.order.len()), (MAX_PODS, MAX_PODS));
    }
}
