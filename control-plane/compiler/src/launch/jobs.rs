//! `kinds`, `sources` and `destinations` of BigQuery's jobs.

use tidegate_engine::model::Effect;

use crate::diagnostic::Code;
use crate::mesh::not_empty;
use crate::place::{Findings, Place};
use crate::resources::{Data, Jobs, Kind};
use crate::spec::{JobKindSpec, LaunchServiceSpec, LaunchSpec};

/// What the entry says of jobs. `None`: nothing, or it is wrong, which is then reported.
pub(super) fn check(
    place: &Place<'_>,
    spec: &LaunchSpec,
    effect: Effect,
    findings: &mut Findings,
) -> Option<Jobs> {
    let before = findings.errors();
    let written = [
        ("kinds", spec.kinds.is_some()),
        ("sources", spec.sources.is_some()),
        ("destinations", spec.destinations.is_some()),
    ];
    if written.iter().all(|(_, written)| !written) {
        return None;
    }
    let is_meant = spec.service == LaunchServiceSpec::Bigquery && effect == Effect::Allow;
    for (field, written) in written {
        if written && !is_meant {
            findings.add(
                &place.key(field),
                Code::MalformedValue,
                format!("`{field}` is only there for Allows of BigQuery's jobs"),
                "a part of a rule that says nothing would look as if it limited something",
                "remove it",
            );
        } else if !written && is_meant {
            findings.add(
                place,
                Code::MissingField,
                format!("`{field}` is missing"),
                "a job is allowed by what it does, reads and writes",
                "write `kinds`, `sources` and `destinations`",
            );
        }
    }
    let kinds = spec.kinds.as_deref().unwrap_or_default();
    let kinds: Vec<Kind> = kinds
        .iter()
        .map(|kind| match kind {
            JobKindSpec::Load => Kind::Load,
            JobKindSpec::Copy => Kind::Copy,
            JobKindSpec::Extract => Kind::Extract,
        })
        .collect();
    let mut read = |field: &'static str, is_source: bool, texts: Option<&[String]>| {
        let place = place.key(field);
        let texts = texts?;
        not_empty(&place, texts, findings);
        let mut all = Vec::new();
        for (at, text) in texts.iter().enumerate() {
            match Data::parse(text) {
                Some(data) if kinds.iter().any(|kind| data.fits(*kind, is_source)) => all.push(data),
                found => findings.add(
                    &place.index(at),
                    Code::MalformedValue,
                    match found {
                        Some(_) => format!("no job of these kinds has `{text}` among its {field}"),
                        None => format!("`{text}` is neither a table nor an object"),
                    },
                    "loads read objects and write tables, extracts the other way round, and copies have tables only",
                    "write `projects/p/datasets/d/tables/t`, or `gs://bucket/object`",
                ),
            }
        }
        if let Some(kind) = kinds.iter().find(|kind| !all.iter().any(|data| data.fits(**kind, is_source))) {
            findings.add(
                &place,
                Code::MissingField,
                format!("jobs that {kind} have nothing in `{field}`"),
                "they would never be allowed",
                "write it, or leave that kind out",
            );
        }
        Some(all)
    };
    let sources = read("sources", true, spec.sources.as_deref());
    let destinations = read("destinations", false, spec.destinations.as_deref());
    if let Some(kinds) = &spec.kinds {
        not_empty(&place.key("kinds"), kinds, findings);
    }
    let project = spec.project.clone();
    let jobs = Jobs { project: project?, kinds, sources: sources?, destinations: destinations? };
    (findings.errors() == before).then_some(jobs)
}
