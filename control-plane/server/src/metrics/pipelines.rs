//! Which pipeline did what to what, as filters recorded it.
//!
//! A pipeline is named by verified tokens, or by its mesh peer, in a form that stays the same from run to run: a repository, a
//! Dataflow job without what differs per start, a service account; otherwise by its issuer alone, because it may be a person.
//! A resource is named by the request, where the catalogue knows the service, down to a topic, a dataset, a bucket; ids that
//! live for one run are left out.
//!
//! INVARIANT: at most [`MAX_SERIES`] series, [`MAX_WORKLOAD_SERIES`] of one workload and [`MAX_PIPELINE_SERIES`] of one
//! pipeline at it, besides those that stand for the rest: whoever names many resources takes no room from other pipelines, and a
//! filter that invents pipelines none from other workloads. Workloads are verified.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::decisions::filter::short_peer;
use crate::decisions::record::Recorded;
use crate::decisions::run::RunKind;

/// How many series there are at most.
pub const MAX_SERIES: usize = 5_000;
/// How many of them are one workload's.
pub const MAX_WORKLOAD_SERIES: usize = 500;
/// How many of them are one pipeline's at one workload.
pub const MAX_PIPELINE_SERIES: usize = 50;
/// Stands for what is beyond.
const OTHER: &str = "other";
/// No name is longer, in bytes.
const MAX_NAME: usize = 200;
/// Collections whose ids live for one run, or less.
const SHORT_LIVED: [&str; 8] =
    ["jobs", "operations", "sessions", "pipelineruns", "taskruns", "pods", "pipelines", "objects"];

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct Pipelines {
    decisions: Family<PipelineLabel, Counter>,
    budget: Arc<Mutex<Budget>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PipelineLabel {
    workload: String,
    outcome: &'static str,
    pipeline: String,
    service: String,
    action: String,
    resource: String,
}

#[derive(Debug, Default)]
struct Budget {
    all: usize,
    by_workload: BTreeMap<String, usize>,
    by_pipeline: BTreeMap<(String, String), usize>,
}

// === impl Pipelines ===

impl Pipelines {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "pipeline_decisions",
            "Requests that filters recorded, by workload, outcome, pipeline, and what was to be done to which resource",
            self.decisions.clone(),
        );
    }

    /// Counts a decision.
    pub fn count(&self, recorded: &Recorded) {
        let operation = recorded.operation.as_ref();
        let label = self.within(PipelineLabel {
            workload: recorded.workload.clone(),
            outcome: recorded.outcome.word(),
            pipeline: short(pipeline(recorded)),
            service: operation.map(|operation| operation.service.clone()).unwrap_or_default(),
            action: operation.map(|operation| operation.action.clone()).unwrap_or_default(),
            resource: short(recorded.resource.as_deref().map(lasting).unwrap_or_default()),
        });
        self.decisions.get_or_create(&label).inc_by(u64::from(recorded.stands_for.max(1)));
    }

    /// The label, or the one that stands for it and others.
    fn within(&self, label: PipelineLabel) -> PipelineLabel {
        if self.decisions.get(&label).is_some() {
            return label;
        }
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        if budget.take(&label.workload, &label.pipeline, MAX_PIPELINE_SERIES) {
            return label;
        }
        let (service, action) = (String::new(), String::new());
        let rest = PipelineLabel { service, action, resource: OTHER.to_owned(), ..label };
        // One for each outcome.
        let most = MAX_PIPELINE_SERIES.saturating_add(3);
        if self.decisions.get(&rest).is_some() || budget.take(&rest.workload, &rest.pipeline, most) {
            return rest;
        }
        PipelineLabel { pipeline: OTHER.to_owned(), ..rest }
    }
}

fn short(mut name: String) -> String {
    name.truncate(name.floor_char_boundary(MAX_NAME));
    name
}

/// What called, by a name that stays; empty where nothing is known.
fn pipeline(recorded: &Recorded) -> String {
    let of_run = recorded.run.as_ref().and_then(|run| match run.kind {
        RunKind::GitlabPipeline | RunKind::GithubRun => run.project.clone(),
        RunKind::DataflowJob => Some(job_name(&run.id).to_owned()),
        _ => None,
    });
    let of_peer = || recorded.peer.as_deref().and_then(short_peer);
    of_run.or_else(of_peer).or_else(|| recorded.issuers.first().cloned()).unwrap_or_default()
}

/// A Dataflow job's name: `orders-etl` of `orders-etl-11201940-x7kq`, where the rest is when it began and a part of its id.
fn job_name(id: &str) -> &str {
    let mut parts = id.rsplitn(3, '-');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(began), Some(name))
            if began.len() == 8 && began.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            name
        }
        _ => id,
    }
}

/// A resource's name without ids that live for one run: two collections with their ids, three where the second one says where
/// it is.
fn lasting(resource: &str) -> String {
    let mut segments = resource.split('/');
    let (mut kept, mut left) = (Vec::new(), 2_u8);
    while let Some(collection) = segments.next().filter(|_| left > 0) {
        kept.push(collection);
        if SHORT_LIVED.contains(&collection) {
            break;
        }
        kept.extend(segments.next());
        left = if collection == "locations" { left } else { left.saturating_sub(1) };
    }
    kept.join("/")
}

// === impl Budget ===

impl Budget {
    /// Whether there is room for one more series of this pipeline at this workload, which may have so many.
    fn take(&mut self, workload: &str, pipeline: &str, most: usize) -> bool {
        let of_workload = self.by_workload.get(workload).copied().unwrap_or(0);
        if self.all >= MAX_SERIES || of_workload >= MAX_WORKLOAD_SERIES {
            return false;
        }
        let of_pipeline = self.by_pipeline.entry((workload.to_owned(), pipeline.to_owned())).or_default();
        if *of_pipeline >= most {
            return false;
        }
        *of_pipeline = of_pipeline.saturating_add(1);
        self.all = self.all.saturating_add(1);
        self.by_workload.insert(workload.to_owned(), of_workload.saturating_add(1));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::attributes::testing::recorded;
    use crate::metrics::Metrics;

    fn lines(metrics: &Metrics, part: &str) -> Vec<String> {
        let text = metrics.text();
        let ours = text.lines().filter(|line| line.starts_with("tidegate_pipeline_decisions_total{"));
        ours.filter(|line| line.contains(part)).map(str::to_owned).collect()
    }

    fn one() -> Recorded {
        let mut one = recorded();
        (one.shadow, one.candidate, one.stands_for) = (None, None, 1);
        one
    }

    #[test]
    fn a_pipeline_is_counted_with_what_it_did() {
        let metrics = Metrics::default();
        let mut one = one();
        one.stands_for = 10;
        metrics.decided.count(&one);
        assert_eq!(
            lines(&metrics, ""),
            [
                r#"tidegate_pipeline_decisions_total{workload="sales/orders",outcome="deny",pipeline="acme/orders",service="pubsub",action="write",resource="projects/acme/topics/orders"} 10"#
            ]
        );
    }

    #[test]
    fn names_stay_from_run_to_run() {
        for (id, name) in [
            ("orders-etl-11201940-x7kq", "orders-etl"),
            ("etl-11201940-x7kq", "etl"),
            ("orders-etl", "orders-etl"),
            ("a-1120194-x7kq", "a-1120194-x7kq"),
            ("etl", "etl"),
        ] {
            assert_eq!(job_name(id), name);
        }
        for (resource, kept) in [
            ("projects/acme/topics/orders", "projects/acme/topics/orders"),
            ("projects/_/buckets/lake/objects/raw/2026/a.parquet", "projects/_/buckets/lake"),
            ("projects/acme/datasets/sales/tables/orders", "projects/acme/datasets/sales"),
            ("projects/acme/jobs/job_7f3a", "projects/acme/jobs"),
            ("projects/acme/locations/europe-west4/jobs/7f3a", "projects/acme/locations/europe-west4/jobs"),
            (
                "projects/acme/locations/eu/repositories/images/dockerImages/a",
                "projects/acme/locations/eu/repositories/images",
            ),
            ("namespaces/ci/pipelineruns/run-7", "namespaces/ci/pipelineruns"),
            ("projects", "projects"),
            ("", ""),
        ] {
            assert_eq!(lasting(resource), kept);
        }
    }

    #[test]
    fn who_calls_without_a_run_is_its_peer_or_its_issuer() {
        let mut one = one();
        one.run = None;
        one.peer = Some("spiffe://prod.example/ns/etl/sa/orders-worker".to_owned());
        assert_eq!(pipeline(&one), "etl/orders-worker");
        (one.peer, one.identities) = (None, vec!["entra:upn=dana@acme.example".to_owned()]);
        one.issuers = vec!["entra".to_owned()];
        assert_eq!(pipeline(&one), "entra", "people are no labels");
        one.issuers.clear();
        assert_eq!(pipeline(&one), "");
    }

    #[test]
    fn whoever_names_many_resources_takes_no_room_from_others() {
        let metrics = Metrics::default();
        let mut one = one();
        for number in 0..MAX_PIPELINE_SERIES + 100 {
            one.resource = Some(format!("projects/acme/topics/t-{number}"));
            metrics.decided.count(&one);
        }
        assert_eq!(lines(&metrics, "").len(), MAX_PIPELINE_SERIES + 1);
        let rest = lines(&metrics, r#"service="",action="",resource="other"} 100"#);
        assert_eq!(rest.len(), 1, "{rest:?}");
        // Another pipeline, and one that invents pipelines.
        let of = |one: &mut Recorded, project: String| {
            one.run.as_mut().unwrap().project = Some(project);
            metrics.decided.count(one);
        };
        of(&mut one, "acme/other".to_owned());
        assert_eq!(lines(&metrics, r#"pipeline="acme/other",service="pubsub""#).len(), 1);
        for number in 0..MAX_WORKLOAD_SERIES {
            of(&mut one, format!("invented/{number}"));
        }
        assert_eq!(lines(&metrics, "").len(), MAX_WORKLOAD_SERIES + 1);
        let rest = lines(&metrics, r#"pipeline="other",service="",action="",resource="other"} 52"#);
        assert_eq!(rest.len(), 1, "{rest:?}");
        one.workload = "sales/ledger".to_owned();
        metrics.decided.count(&one);
        assert_eq!(lines(&metrics, r#"workload="sales/ledger",outcome="deny",pipeline="invented/"#).len(), 1);
    }
}
