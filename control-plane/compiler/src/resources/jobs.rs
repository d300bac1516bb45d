//! Jobs of BigQuery that load, copy or extract: which tables and objects they read and write is in the body.
//!
//! "Told apart by which member of `configuration` is present": exactly one. Of a query the SQL says everything, and nobody
//! reads that.
//!
//! Source: the REST reference of BigQuery, `Job`.

use std::fmt;

use tidegate_engine::model::Condition;

use super::conditions::{all, any, if_present, member, none_of, not, present, text_like};
use super::name::Name;

const SERVICE: &str = "bigquery";

/// What a rule says of jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Jobs {
    /// In which project; a glob.
    pub(crate) project: String,
    /// Any of these.
    pub(crate) kinds: Vec<Kind>,
    /// What is read: any of these.
    pub(crate) sources: Vec<Data>,
    /// What is written: any of these.
    pub(crate) destinations: Vec<Data>,
}

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Objects into a table.
    Load,
    /// A table into another.
    Copy,
    /// A table into objects.
    Extract,
}

/// What is read or written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    /// `gs://bucket/object`, a glob.
    Object(String),
    /// Project, dataset and table; globs.
    Table([String; 3]),
}

// === impl Kind ===

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Load => "load",
            Self::Copy => "copy",
            Self::Extract => "extract",
        })
    }
}

// === impl Data ===

impl Data {
    /// `gs://bucket/object` or `projects/p/datasets/d/tables/t`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix("gs://") {
            let (bucket, object) = rest.split_once('/')?;
            return (!bucket.is_empty() && !object.is_empty()).then(|| Self::Object(text.to_owned()));
        }
        let name = Name::parse(text).ok()?;
        let globs: Vec<&str> = name.segments().iter().map(super::name::Segment::glob).collect();
        match globs.as_slice() {
            ["projects", project, "datasets", dataset, "tables", table] => {
                Some(Self::Table([project, dataset, table].map(|glob| (*glob).to_owned())))
            }
            _ => None,
        }
    }

    /// Whether a kind of job reads such, or writes such.
    pub(crate) fn fits(&self, kind: Kind, is_source: bool) -> bool {
        let of_object = matches!((kind, is_source), (Kind::Load, true) | (Kind::Extract, false));
        matches!(self, Self::Object(_)) == of_object
    }
}

// === impl Jobs ===

impl Jobs {
    /// The body of a job that the rule has.
    pub(super) fn condition(&self) -> Condition {
        let project = member(SERVICE, "jobReference.projectId");
        all(vec![
            if_present(project.clone(), text_like(project, &self.project)),
            any(self.kinds.iter().map(|kind| self.of_kind(*kind)).collect()),
        ])
    }

    fn of_kind(&self, kind: Kind) -> Condition {
        let (own, parts) = match kind {
            Kind::Load => (
                "load",
                vec![
                    objects("configuration.load.sourceUris", &self.sources),
                    tables("configuration.load.destinationTable", &self.destinations),
                    absent("configuration.load.referenceFileSchemaUri"),
                    absent("configuration.load.connectionProperties"),
                ],
            ),
            Kind::Copy => (
                "copy",
                vec![self.copied(), tables("configuration.copy.destinationTable", &self.destinations)],
            ),
            Kind::Extract => {
                let old = "configuration.extract.destinationUri";
                (
                    "extract",
                    vec![
                        tables("configuration.extract.sourceTable", &self.sources),
                        absent("configuration.extract.sourceModel"),
                        objects("configuration.extract.destinationUris", &self.destinations),
                        if_present(member(SERVICE, old), objects(old, &self.destinations)),
                    ],
                )
            }
        };
        let others = ["query", "load", "copy", "extract"].into_iter().filter(|other| *other != own);
        let others = others.map(|other| present(member(SERVICE, &format!("configuration.{other}"))));
        all([vec![none_of(others.collect())], parts].concat())
    }

    /// One table, or several, each of which is the same one of the rule's.
    fn copied(&self) -> Condition {
        let (one, many) = ("configuration.copy.sourceTable", "configuration.copy.sourceTables");
        let single = all(vec![tables(one, &self.sources), absent(many)]);
        // Of several tables one may leave its project out: then it is the job's.
        let is_here = |data: &&Data| matches!(data, Data::Table([project, ..]) if *project == self.project);
        let here: Vec<Data> = self.sources.iter().filter(is_here).cloned().collect();
        if here.is_empty() || self.project.contains('*') {
            return single;
        }
        any(vec![single, all(vec![tables(many, &here), absent(one)])])
    }
}

fn absent(path: &str) -> Condition {
    not(present(member(SERVICE, path)))
}

/// An object is one of these.
fn objects(path: &str, data: &[Data]) -> Condition {
    let like = |data: &Data| match data {
        Data::Object(glob) => Some(text_like(member(SERVICE, path), glob)),
        Data::Table(_) => None,
    };
    any(data.iter().filter_map(like).collect())
}

/// A table is one of these.
fn tables(path: &str, data: &[Data]) -> Condition {
    let like = |data: &Data| {
        let Data::Table(globs) = data else { return None };
        let parts = ["projectId", "datasetId", "tableId"].into_iter().zip(globs);
        Some(all(parts
            .map(|(name, glob)| text_like(member(SERVICE, &format!("{path}.{name}")), glob))
            .collect()))
    };
    any(data.iter().filter_map(like).collect())
}
