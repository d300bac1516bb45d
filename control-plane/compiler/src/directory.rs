//! Directories that conditions look ids up in, and their names.
//!
//! INVARIANT: a name says everything that is needed to fill the directory, and reads back as what it was made of.

use std::fmt;
use std::str::FromStr;

use crate::syntax;

/// What a directory lists.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DirectoryQuery {
    /// Ids of the instances of a Dataflow job's workers: `dataflow/PROJECT/REGION/NAME`.
    DataflowJob {
        /// Id of the project.
        project: String,
        /// Region of the job.
        region: String,
        /// Name of the job.
        name: String,
    },
    /// UIDs of the pods of Tekton's runs: `tekton/ISSUER/NAMESPACE/pipeline/NAME`, or `task` instead of `pipeline`.
    TektonRun {
        /// Name of the cluster's TrustedIssuer.
        issuer: String,
        /// Namespace of the runs.
        namespace: String,
        /// What runs.
        kind: TektonKind,
        /// Name of the Pipeline or Task.
        name: String,
    },
}

/// What runs in Tekton.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TektonKind {
    /// A Pipeline.
    Pipeline,
    /// A Task, of a pipeline or alone.
    Task,
}

/// Not the name of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidDirectoryName(String);

/// `[a-z]([-a-z0-9]{0,1022}[a-z0-9])?` (Dataflow REST reference, `projects.jobs`).
pub(crate) fn is_job_name(text: &str) -> bool {
    text.len() <= 1024
        && text.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.ends_with('-')
}

/// The id of a Google project, which may be scoped to a domain (`example.com:acme`).
pub(crate) fn is_project(text: &str) -> bool {
    text.len() <= 128
        && text.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.:".contains(&byte))
}

/// The name of a Pipeline or Task: it is the value of a label, so it has at most 63 characters.
pub(crate) fn is_tekton_name(text: &str) -> bool {
    text.len() <= 63 && syntax::is_object_name(text)
}

// === impl DirectoryQuery ===

impl fmt::Display for DirectoryQuery {
    /// Its name in the directory section.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DataflowJob { project, region, name } => write!(f, "dataflow/{project}/{region}/{name}"),
            Self::TektonRun { issuer, namespace, kind, name } => {
                write!(f, "tekton/{issuer}/{namespace}/{kind}/{name}")
            }
        }
    }
}

impl FromStr for DirectoryQuery {
    type Err = InvalidDirectoryName;

    fn from_str(text: &str) -> Result<Self, InvalidDirectoryName> {
        let parts: Vec<&str> = text.split('/').collect();
        let query = match *parts.as_slice() {
            ["dataflow", project, region, name]
                if is_project(project) && syntax::is_label(region) && is_job_name(name) =>
            {
                Some(Self::DataflowJob {
                    project: project.to_owned(),
                    region: region.to_owned(),
                    name: name.to_owned(),
                })
            }
            ["tekton", issuer, namespace, kind, name]
                if syntax::is_object_name(issuer) && syntax::is_label(namespace) && is_tekton_name(name) =>
            {
                TektonKind::from_name(kind).map(|kind| Self::TektonRun {
                    issuer: issuer.to_owned(),
                    namespace: namespace.to_owned(),
                    kind,
                    name: name.to_owned(),
                })
            }
            _ => None,
        };
        query.ok_or_else(|| InvalidDirectoryName(text.to_owned()))
    }
}

// === impl TektonKind ===

impl TektonKind {
    /// `pipeline` or `task`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pipeline => "pipeline",
            Self::Task => "task",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Pipeline, Self::Task].into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for TektonKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

// === impl InvalidDirectoryName ===

impl fmt::Display for InvalidDirectoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is not the name of a directory: write `dataflow/PROJECT/REGION/NAME`, or \
             `tekton/ISSUER/NAMESPACE/pipeline/NAME` or `…/task/NAME`",
            self.0.escape_debug()
        )
    }
}

impl std::error::Error for InvalidDirectoryName {}

#[cfg(test)]
mod tests {
    use super::{DirectoryQuery, TektonKind};

    #[test]
    fn names_read_back_as_what_they_were_made_of() {
        let job = DirectoryQuery::DataflowJob {
            project: "example.com:acme".to_owned(),
            region: "europe-west4".to_owned(),
            name: "orders-etl".to_owned(),
        };
        let run = |kind| DirectoryQuery::TektonRun {
            issuer: "prod-cluster".to_owned(),
            namespace: "ci".to_owned(),
            kind,
            name: "release.v2".to_owned(),
        };
        for (query, name) in [
            (job, "dataflow/example.com:acme/europe-west4/orders-etl"),
            (run(TektonKind::Pipeline), "tekton/prod-cluster/ci/pipeline/release.v2"),
            (run(TektonKind::Task), "tekton/prod-cluster/ci/task/release.v2"),
        ] {
            assert_eq!(query.to_string(), name);
            assert_eq!(name.parse(), Ok(query));
        }
    }

    #[test]
    fn other_texts_are_no_names_of_directories() {
        for text in [
            "",
            "dataflow",
            "dataflow/acme/europe-west4",
            "dataflow/acme/europe-west4/orders/etl",
            "dataflow//europe-west4/orders",
            "dataflow/acme/europe-west4/Orders",
            "dataflow/acme/europe-west4/orders-",
            "dataflow/ACME/europe-west4/orders",
            "Dataflow/acme/europe-west4/orders",
            "tekton/prod-cluster/ci/release",
            "tekton/prod-cluster/ci/run/release",
            "tekton/prod-cluster/ci/pipeline/",
            "tekton/prod-cluster/a.b/pipeline/release",
            "tekton/prod cluster/ci/pipeline/release",
            "tekton/prod-cluster/ci/pipeline/../release",
        ] {
            let refused = text.parse::<DirectoryQuery>().unwrap_err().to_string();
            assert!(refused.contains(text), "{refused}");
        }
        let long = format!("tekton/prod-cluster/ci/task/{}", "a".repeat(64));
        assert!(long.parse::<DirectoryQuery>().is_err());
    }
}
