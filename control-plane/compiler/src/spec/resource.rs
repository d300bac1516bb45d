//! `to: [{resources: …}, {launch: …}]` as they are written.

use schemars::JsonSchema;
use serde::Deserialize;

/// Resources of a service of the catalogue: all parts must match.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ResourcesSpec {
    /// As the catalogue names it, e.g. `pubsub`.
    pub service: String,
    /// `read`, `write`, `admin`, `launch`, or the ends of methods' names, e.g. `publish`.
    pub actions: Vec<String>,
    /// Any of these; `*` inside of a segment, `**` at the end.
    pub names: Vec<String>,
    /// Where the service is; absent: everywhere that the catalogue lists.
    pub hosts: Option<Vec<String>>,
    /// Absent: every protocol that the methods have.
    pub protocols: Option<Vec<ProtocolSpec>>,
    /// What else requests may name as they like, by role; absent: nothing.
    pub unchecked: Option<Vec<String>>,
}

/// How a service is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ProtocolSpec {
    /// REST.
    Http,
    /// gRPC.
    Grpc,
}

/// What is started, where, and as whom: all parts must match.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LaunchSpec {
    /// What starts it.
    pub service: LaunchServiceSpec,
    /// The project; of GitLab its number.
    pub project: Option<String>,
    /// The region; only of Dataflow.
    pub region: Option<String>,
    /// The namespace; only of Tekton.
    pub namespace: Option<String>,
    /// The branch or tag; only of GitLab. Absent: any.
    pub r#ref: Option<String>,
    /// The name that it gets; absent: any.
    pub job_name: Option<String>,
    /// What is started: an object in Cloud Storage, or a Pipeline.
    pub template: Option<String>,
    /// The account that it runs as; `default`: requests name none.
    pub run_as: Option<String>,
    /// Where it puts files meanwhile; absent: requests do not say it. Only of Dataflow.
    pub temp: Option<String>,
    /// Which jobs; only of BigQuery.
    pub kinds: Option<Vec<JobKindSpec>>,
    /// What those jobs read: tables, and objects in Cloud Storage.
    pub sources: Option<Vec<String>>,
    /// What those jobs write: tables, and objects in Cloud Storage.
    pub destinations: Option<Vec<String>>,
    /// The ends of methods' names, e.g. `templates.launch`; absent: every method that starts something.
    pub methods: Option<Vec<String>>,
    /// Where the service is; absent: everywhere that the catalogue lists.
    pub hosts: Option<Vec<String>>,
    /// Absent: every protocol that the methods have.
    pub protocols: Option<Vec<ProtocolSpec>>,
    /// What else requests may name as they like, by role; absent: nothing.
    pub unchecked: Option<Vec<String>>,
}

/// What starts things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum LaunchServiceSpec {
    /// Dataflow: jobs, classic and flex templates.
    Dataflow,
    /// BigQuery: jobs and queries.
    Bigquery,
    /// GitLab: pipelines.
    Gitlab,
    /// Tekton: PipelineRuns and TaskRuns.
    Tekton,
}

/// What a job of BigQuery does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum JobKindSpec {
    /// Objects into a table.
    Load,
    /// A table into another.
    Copy,
    /// A table into objects.
    Extract,
}
