//! Which run of a pipeline called, by what its tokens say: one table per pack.

use serde::{Deserialize, Serialize};
use tidegate_identity::PackKind;

use super::record::Claim;

/// What ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RunKind {
    /// A pipeline of GitLab CI.
    GitlabPipeline,
    /// A run of a workflow of GitHub Actions.
    GithubRun,
    /// A run of a Tekton Pipeline.
    PipelineRun,
    /// A run of a Tekton Task.
    TaskRun,
    /// A worker of a Dataflow job.
    DataflowJob,
    /// A session of an AWS role.
    AwsSession,
    /// An agent that an identity provider knows as such.
    Agent,
    /// Anything else: a service account, a pod, an application.
    Workload,
}

/// The run of a pipeline, or whatever else called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// What ran.
    pub kind: RunKind,
    /// Its id at the system that ran it.
    pub id: String,
    /// The system: name of the TrustedIssuer.
    pub issuer: String,
    /// The kind is guessed by a naming convention, not stated by the issuer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub guessed: bool,
    /// Kind and id are the control plane's own addition, from labels of the caller's pod: no token says so, and whoever may create
    /// pods in that namespace can label one so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_labels: bool,
    /// Which attempt of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<String>,
    /// A part of it: a job, a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// The repository, project or namespace that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The commit that it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The branch or tag.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Who or what started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initiator: Option<String>,
    /// The agent that acts, where a token says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The model that the agent uses, where a token says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// Where the tokens of a pack say what; of several claims the first that is there.
struct Columns {
    kind: RunKind,
    id: &'static [&'static str],
    attempt: &'static [&'static str],
    job: &'static [&'static str],
    project: &'static [&'static str],
    commit: &'static [&'static str],
    reference: &'static [&'static str],
    initiator: &'static [&'static str],
    /// Who the token is about, in the forms that people look for.
    identities: &'static [&'static str],
}

const NOTHING: Columns = Columns {
    kind: RunKind::Workload,
    id: &[],
    attempt: &[],
    job: &[],
    project: &[],
    commit: &[],
    reference: &[],
    initiator: &[],
    identities: &[],
};

const GITLAB: Columns = Columns {
    kind: RunKind::GitlabPipeline,
    id: &["pipeline_id"],
    job: &["job_id"],
    project: &["project_path", "project_id"],
    commit: &["sha"],
    reference: &["ref"],
    initiator: &["user_login", "user_id", "user_email"],
    identities: &["project_id", "project_path", "user_login", "user_id"],
    ..NOTHING
};
const GITHUB: Columns = Columns {
    kind: RunKind::GithubRun,
    id: &["run_id"],
    attempt: &["run_attempt"],
    job: &["check_run_id", "workflow"],
    project: &["repository", "repository_id"],
    commit: &["sha"],
    reference: &["ref"],
    initiator: &["actor", "actor_id"],
    identities: &["repository_id", "repository", "actor"],
};
/// How a token names its pod.
pub const POD_NAME: &str = "kubernetes.io.pod.name";
/// The same, for good.
pub const POD_UID: &str = "kubernetes.io.pod.uid";

const KUBERNETES: Columns = Columns {
    id: &[POD_NAME, POD_UID, "sub"],
    project: &["kubernetes.io.namespace"],
    identities: &["sub", "kubernetes.io.serviceaccount.name"],
    ..NOTHING
};
const GOOGLE: Columns = Columns {
    id: &["google.compute_engine.instance_name", "google.compute_engine.instance_id", "email", "sub"],
    job: &["google.compute_engine.instance_id"],
    project: &["google.compute_engine.project_id"],
    identities: &["email", "sub"],
    ..NOTHING
};
const ENTRA: Columns = Columns {
    id: &["azp", "appid", "@client", "oid", "sub"],
    project: &["tid"],
    initiator: &["upn", "preferred_username", "@subject"],
    identities: &["oid", "azp", "appid", "@client", "@subject", "upn", "preferred_username"],
    ..NOTHING
};
const OKTA: Columns = Columns {
    id: &["cid", "sub"],
    initiator: &["uid", "@subject"],
    identities: &["cid", "sub", "uid", "@subject"],
    ..NOTHING
};
const AWS: Columns = Columns {
    kind: RunKind::AwsSession,
    id: &["https://sts.amazonaws.com/.principal_id", "sub"],
    project: &["https://sts.amazonaws.com/.aws_account", "@account"],
    initiator: &["https://sts.amazonaws.com/.source_identity"],
    identities: &["sub", "@role_name", "https://sts.amazonaws.com/.principal_id"],
    ..NOTHING
};
const SPIFFE: Columns = Columns { id: &["sub"], identities: &["sub"], ..NOTHING };
const GENERIC: Columns = Columns {
    id: &["run_id", "pipeline_id", "build_id", "client_id", "azp", "sub"],
    commit: &["sha", "commit", "build_commit"],
    initiator: &["preferred_username", "email"],
    identities: &["sub", "client_id", "azp", "email"],
    ..NOTHING
};

/// Who acts for somebody else, in any pack.
const AGENT: &[&str] = &["agent", "agent_id", "agent_name", "act.sub", "act.client_id", "@actor"];
const MODEL: &[&str] = &["model", "model_id", "agent_model"];

/// Tekton names the pod of a TaskRun so.
const TASK_RUN_POD: &str = "-pod";
/// Dataflow names its workers so.
const DATAFLOW_WORKER: &str = "-harness-";

const fn columns(pack: PackKind) -> &'static Columns {
    match pack {
        PackKind::Gitlab => &GITLAB,
        PackKind::Github => &GITHUB,
        PackKind::Kubernetes => &KUBERNETES,
        PackKind::Google => &GOOGLE,
        PackKind::Entra => &ENTRA,
        PackKind::Okta => &OKTA,
        PackKind::Aws => &AWS,
        PackKind::Spiffe => &SPIFFE,
        PackKind::Generic => &GENERIC,
    }
}

/// What one issuer's token says.
struct Said<'c> {
    issuer: &'c str,
    claims: &'c [Claim],
}

// === impl Said ===

impl Said<'_> {
    fn first(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| self.of(name)).map(str::to_owned)
    }

    fn of(&self, name: &str) -> Option<&str> {
        let claim = self.claims.iter().find(|claim| claim.issuer == self.issuer && claim.claim == name)?;
        claim.values.first().map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// The run that tokens of these issuers, each with its pack, speak of: the one of a pipeline before any other.
pub fn of<'i>(claims: &[Claim], issuers: impl Iterator<Item = (&'i str, PackKind)>) -> Option<Run> {
    let mut best: Option<Run> = None;
    let (mut agent, mut model) = (None, None);
    for (issuer, pack) in issuers {
        let said = Said { issuer, claims };
        agent = agent.or_else(|| said.first(AGENT));
        model = model.or_else(|| said.first(MODEL));
        let Some(run) = one(&said, pack) else { continue };
        let is_better = best.as_ref().is_none_or(|best| best.kind == RunKind::Workload);
        if is_better && (best.is_none() || run.kind != RunKind::Workload) {
            best = Some(run);
        }
    }
    best.map(|run| Run { agent: run.agent.clone().or(agent), model, ..run })
}

/// Who tokens are about: `issuer:claim=value`.
pub fn identities<'i>(claims: &[Claim], issuers: impl Iterator<Item = (&'i str, PackKind)>) -> Vec<String> {
    let of_issuer = |(issuer, pack): (&'i str, PackKind)| {
        let said = Said { issuer, claims };
        let names = columns(pack).identities.iter();
        names.filter_map(|name| Some(format!("{issuer}:{name}={}", said.of(name)?))).collect::<Vec<_>>()
    };
    issuers.flat_map(of_issuer).collect()
}

fn one(said: &Said<'_>, pack: PackKind) -> Option<Run> {
    let columns = columns(pack);
    let run = Run {
        kind: columns.kind,
        id: said.first(columns.id)?,
        issuer: said.issuer.to_owned(),
        guessed: false,
        by_labels: false,
        attempt: said.first(columns.attempt),
        job: said.first(columns.job),
        project: said.first(columns.project),
        commit: said.first(columns.commit),
        reference: said.first(columns.reference),
        initiator: said.first(columns.initiator),
        agent: None,
        model: None,
    };
    Some(match pack {
        PackKind::Kubernetes => match run.id.strip_suffix(TASK_RUN_POD) {
            Some(task) => {
                let (id, pod) = (task.to_owned(), run.id.clone());
                Run { kind: RunKind::TaskRun, id, job: Some(pod), guessed: true, ..run }
            }
            None => run,
        },
        // `orders-etl-11201940-x7kq-harness-2b4n`: the job's name, when it began, and which worker.
        PackKind::Google => match run.id.split_once(DATAFLOW_WORKER) {
            Some((job, _)) => {
                let (id, worker) = (job.to_owned(), run.id.clone());
                Run { kind: RunKind::DataflowJob, id, job: Some(worker), guessed: true, ..run }
            }
            None => run,
        },
        PackKind::Entra if said.of("@agent") == Some("true") => {
            Run { kind: RunKind::Agent, agent: Some(run.id.clone()), ..run }
        }
        _ => run,
    })
}

// === impl Run ===

impl Run {
    /// Where kind and id are from, in one of few words: a `token`, the `name` of what called, or `labels` of the pod.
    pub const fn source(&self) -> &'static str {
        match (self.by_labels, self.guessed) {
            (true, _) => "labels",
            (false, true) => "name",
            (false, false) => "token",
        }
    }
}

// === impl RunKind ===

impl RunKind {
    /// For people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::GitlabPipeline => "GitLab pipeline",
            Self::GithubRun => "GitHub run",
            Self::PipelineRun => "Tekton PipelineRun",
            Self::TaskRun => "Tekton TaskRun",
            Self::DataflowJob => "Dataflow job",
            Self::AwsSession => "AWS session",
            Self::Agent => "agent",
            Self::Workload => "workload",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(issuer: &str, claim: &str, value: &str) -> Claim {
        Claim { issuer: issuer.into(), claim: claim.into(), values: vec![value.into()] }
    }

    fn run(claims: &[(&str, &str)], pack: PackKind) -> Option<Run> {
        let claims: Vec<Claim> = claims.iter().map(|(name, value)| claim("i", name, value)).collect();
        of(&claims, [("i", pack)].into_iter())
    }

    #[test]
    fn every_pack_says_what_ran() {
        use PackKind as P;
        for (pack, claims, kind, id) in [
            (P::Gitlab, &[("pipeline_id", "91"), ("job_id", "7")][..], RunKind::GitlabPipeline, "91"),
            (P::Github, &[("run_id", "12"), ("run_attempt", "2")], RunKind::GithubRun, "12"),
            (P::Kubernetes, &[("kubernetes.io.pod.name", "build-x1-pod")], RunKind::TaskRun, "build-x1"),
            (P::Kubernetes, &[("kubernetes.io.pod.name", "api-7d9f")], RunKind::Workload, "api-7d9f"),
            (
                P::Google,
                &[("google.compute_engine.instance_name", "etl-1120-ab-harness-9")],
                RunKind::DataflowJob,
                "etl-1120-ab",
            ),
            (
                P::Google,
                &[("email", "a@b.iam.gserviceaccount.com")],
                RunKind::Workload,
                "a@b.iam.gserviceaccount.com",
            ),
            (P::Entra, &[("azp", "app"), ("@agent", "true")], RunKind::Agent, "app"),
            (P::Entra, &[("azp", "app")], RunKind::Workload, "app"),
            (P::Okta, &[("cid", "c1")], RunKind::Workload, "c1"),
            (P::Aws, &[("sub", "arn:aws:iam::1:role/r")], RunKind::AwsSession, "arn:aws:iam::1:role/r"),
            (P::Spiffe, &[("sub", "spiffe://a/b")], RunKind::Workload, "spiffe://a/b"),
            (P::Generic, &[("client_id", "c")], RunKind::Workload, "c"),
        ] {
            let found = run(claims, pack).unwrap_or_else(|| panic!("{pack:?}"));
            assert_eq!((found.kind, found.id.as_str()), (kind, id), "{pack:?}");
        }
    }

    #[test]
    fn without_an_id_there_is_no_run() {
        assert_eq!(run(&[("sha", "abc")], PackKind::Gitlab), None);
        assert_eq!(run(&[("pipeline_id", "")], PackKind::Gitlab), None);
        assert_eq!(of(&[claim("other", "pipeline_id", "1")], [("i", PackKind::Gitlab)].into_iter()), None);
    }

    #[test]
    fn a_pipeline_counts_before_the_pod_that_it_runs_in_whichever_comes_first() {
        let claims = [
            claim("k8s", "kubernetes.io.pod.name", "runner-1"),
            claim("gitlab", "pipeline_id", "91"),
            claim("gitlab", "act.sub", "agent-7"),
            claim("gitlab", "model", "m-1"),
        ];
        let issuers = [("k8s", PackKind::Kubernetes), ("gitlab", PackKind::Gitlab)];
        for issuers in [issuers, [issuers[1], issuers[0]]] {
            let run = of(&claims, issuers.into_iter()).unwrap();
            assert_eq!((run.kind, run.issuer.as_str()), (RunKind::GitlabPipeline, "gitlab"));
            assert_eq!((run.agent.as_deref(), run.model.as_deref()), (Some("agent-7"), Some("m-1")));
        }
    }

    #[test]
    fn identities_name_issuer_and_claim() {
        let claims = [claim("gitlab", "project_path", "acme/etl"), claim("x", "sub", "y")];
        assert_eq!(
            identities(&claims, [("gitlab", PackKind::Gitlab)].into_iter()),
            ["gitlab:project_path=acme/etl"]
        );
    }
}
