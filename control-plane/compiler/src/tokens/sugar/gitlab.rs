//! `gitlab`: jobs of GitLab CI.

use super::{check_number, empty, exact_list, is_any, malformed};
use crate::demand::{ClaimTest, Demand, Demands};
use crate::diagnostic::Code;
use crate::place::{Findings, Place};
use crate::spec::{GitlabSpec, IdSpec, RefTypeSpec};
use crate::suggest;
use crate::text::check_exact;

/// A GitLab CI job.
///
/// In a merge-request pipeline of a fork, `project_id` names the fork and `job_project_id` the project where the job runs
/// (older versions: the other way round). So an Allow demands both, and a Deny either.
pub(super) fn check(place: &Place<'_>, spec: &GitlabSpec, demands: &mut Demands, findings: &mut Findings) {
    let GitlabSpec { project, namespace, protected_ref, environment, protected_environment, .. } = spec;
    let GitlabSpec { git_ref, ref_type, tier, pipeline_sources, .. } = spec;
    if project.is_none()
        && namespace.is_none()
        && git_ref.is_none()
        && ref_type.is_none()
        && protected_ref.is_none()
        && environment.is_none()
        && protected_environment.is_none()
        && tier.is_none()
        && pipeline_sources.is_none()
    {
        empty(place, findings);
    }
    let ids = [
        ("project", project, "project_id", "job_project_id"),
        ("namespace", namespace, "namespace_id", "job_namespace_id"),
    ];
    for (field, id, source, job) in ids {
        let Some(IdSpec(id)) = id else { continue };
        if check_number(&place.key(field), id, "paths can be renamed and given to others", findings) {
            let both = vec![Demand::is(&[source], id), Demand::is(&[job], id)];
            demands.add_two(Demand::All(both.clone()), Demand::Any(both));
        }
    }
    if let Some(protected) = protected_ref {
        let is_protected = Demand::is(&["ref_protected"], "true");
        let source = ["pipeline_source"];
        let trusted = Demand::All(vec![
            is_protected.clone(),
            Demand::claim(&source, ClaimTest::Present),
            Demand::is(&source, "merge_request_event").not(),
        ]);
        if *protected {
            demands.add_two(trusted, is_protected);
        } else {
            // "Not protected" in a Deny is whatever an Allow would not take for protected.
            demands.add_two(Demand::is(&["ref_protected"], "false"), trusted.not());
        }
    }
    if let Some(environment) = environment
        && check_exact(&place.key("environment"), environment, findings)
    {
        demands.add(Demand::is(&["environment"], environment));
        if *protected_ref != Some(true) && *protected_environment != Some(true) {
            findings.add(
                &place.key("environment"),
                Code::WiderThanItLooks,
                format!("any job of the project can name the environment `{environment}`"),
                "only a protected environment or ref says who may run the job",
                "add `protectedEnvironment: true` or `protectedRef: true`",
            );
        }
    }
    if let Some(protected) = protected_environment {
        let is_protected = Demand::is(&["environment_protected"], "true");
        if *protected {
            demands.add(is_protected);
        } else {
            demands.add_two(Demand::is(&["environment_protected"], "false"), is_protected.not());
        }
    }
    check_ref(place, spec, demands, findings);
    if let Some(tier) = tier {
        let known = ["production", "staging", "testing", "development", "other"];
        if !known.contains(&tier.as_str()) {
            findings.add(
                &place.key("tier"),
                Code::UnknownValue,
                format!("`{}` is not a tier of environments", tier.escape_debug()),
                "no job has it",
                format!("write one of {}", suggest::list(known)),
            );
        }
        demands.add(Demand::is(&["deployment_tier"], tier));
    }
    let mut of_forks = false;
    if let Some(sources) = pipeline_sources {
        let place = place.key("pipelineSources");
        let sources = exact_list(&place, sources, findings, |place, source, findings| {
            let is_source = source.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            if !is_source {
                let why = "it is compared byte for byte";
                malformed(place, source, "the source of a pipeline", why, "write e.g. `push`", findings);
            }
            is_source
        });
        of_forks = sources.iter().any(|source| REQUESTS.contains(&source.as_str()));
        demands.add(is_any(&["pipeline_source"], sources));
    }
    // Whoever forks the project names a branch or a tier as it likes.
    let named = git_ref.is_some() || ref_type.is_some() || tier.is_some() || pipeline_sources.is_some();
    if named && !of_forks {
        demands.add_implied(Demand::claim(&["@fork"], ClaimTest::Boolean(false)));
    }
}

/// Sources of pipelines that run what is not merged yet.
const REQUESTS: [&str; 2] = ["merge_request_event", "external_pull_request_event"];

/// A branch or tag.
fn check_ref(place: &Place<'_>, spec: &GitlabSpec, demands: &mut Demands, findings: &mut Findings) {
    if let Some(ref_type) = spec.ref_type {
        let ref_type = match ref_type {
            RefTypeSpec::Branch => "branch",
            RefTypeSpec::Tag => "tag",
        };
        demands.add(Demand::is(&["ref_type"], ref_type));
    }
    let Some(git_ref) = &spec.git_ref else { return };
    let place_of_type = place.key("refType");
    let place = place.key("ref");
    if !check_exact(&place, git_ref, findings) {
        return;
    }
    if git_ref.starts_with("refs/") {
        let why = "tokens name a branch or tag without the path that Git has for it";
        malformed(&place, git_ref, "the name of a branch or tag", why, "write the name alone", findings);
    }
    if spec.ref_type.is_none() {
        findings.add(
            &place_of_type,
            Code::MissingField,
            format!("it is open whether `{git_ref}` is a branch or a tag"),
            "a tag can have the name of a branch, and not the same people make both",
            "write `refType: branch` or `refType: tag`",
        );
    }
    if spec.protected_ref != Some(true) {
        findings.add(
            &place,
            Code::WiderThanItLooks,
            format!("any developer of the project can make `{git_ref}`"),
            "only a protected branch or tag says who may change it",
            "add `protectedRef: true`",
        );
    }
    demands.add(Demand::is(&["ref"], git_ref));
}
