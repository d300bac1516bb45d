//! `github`: jobs of GitHub Actions.

use super::{check_number, empty, exact_list, is_any, malformed};
use crate::demand::{ClaimTest, Demand, Demands};
use crate::diagnostic::Code;
use crate::place::{Findings, Place};
use crate::spec::{GithubSpec, IdSpec};
use crate::text::check_exact;

pub(super) fn check(place: &Place<'_>, spec: &GithubSpec, demands: &mut Demands, findings: &mut Findings) {
    let GithubSpec { repository, owner, environment, git_ref, events, workflow, pull_request } = spec;
    let nothing = repository.is_none()
        && owner.is_none()
        && environment.is_none()
        && git_ref.is_none()
        && events.is_none()
        && workflow.is_none()
        && pull_request.is_none();
    if nothing {
        empty(place, findings);
    }
    for (field, id, claim) in
        [("repository", repository, "repository_id"), ("owner", owner, "repository_owner_id")]
    {
        let Some(IdSpec(id)) = id else { continue };
        if check_number(&place.key(field), id, "names can be given up and taken by others", findings) {
            demands.add(Demand::is(&[claim], id));
        }
    }
    if let Some(environment) = environment
        && check_exact(&place.key("environment"), environment, findings)
    {
        demands.add(Demand::is(&["environment"], environment));
    }
    if let Some(git_ref) = git_ref {
        let place = place.key("ref");
        let is_full = git_ref.starts_with("refs/heads/") || git_ref.starts_with("refs/tags/");
        if check_exact(&place, git_ref, findings) && !is_full {
            let why = "a branch and a tag can have the same name";
            let fix = "write `refs/heads/NAME` or `refs/tags/NAME`; for pull requests write `pullRequest`";
            malformed(&place, git_ref, "a ref", why, fix, findings);
        }
        demands.add(Demand::is(&["ref"], git_ref));
    }
    if let Some(events) = events {
        let events = exact_list(&place.key("events"), events, findings, |place, event, findings| {
            let is_event = event.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            if !is_event {
                let why = "it is compared byte for byte";
                malformed(place, event, "the name of an event", why, "write e.g. `push`", findings);
            }
            is_event
        });
        demands.add(is_any(&["event_name"], events));
    }
    if let Some(workflow) = workflow {
        let place = place.key("workflow");
        if check_exact(&place, workflow, findings) && !is_workflow(workflow) {
            let why = "only the file with its ref says which code runs";
            let fix = "write `OWNER/REPOSITORY/.github/workflows/FILE@refs/heads/BRANCH`";
            malformed(&place, workflow, "a workflow file with its ref", why, fix, findings);
        }
        demands.add(Demand::is(&["job_workflow_ref"], workflow));
    }
    if let Some(pull_request) = pull_request {
        demands.add(Demand::claim(&["@pull_request"], ClaimTest::Boolean(*pull_request)));
    }
    if !nothing && events.is_none() && pull_request.is_none() && environment.is_none() {
        findings.add(
            place,
            Code::WiderThanItLooks,
            "jobs that run for a pull request match as well",
            "`pull_request_target` runs as the repository, with its own ref, on what strangers wrote",
            "add `pullRequest: false`, `events`, or a protected `environment`",
        );
    }
}

/// `OWNER/REPOSITORY/.github/workflows/FILE@REF`
fn is_workflow(text: &str) -> bool {
    let Some((file, git_ref)) = text.split_once('@') else { return false };
    let parts: Vec<&str> = file.split('/').collect();
    matches!(
        *parts.as_slice(),
        [owner, repository, ".github", "workflows", name]
            if !owner.is_empty() && !repository.is_empty() && !name.is_empty()
    ) && !git_ref.is_empty()
}
