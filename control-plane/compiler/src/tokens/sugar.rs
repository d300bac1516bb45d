//! Readable notations for the claims of a pack, and what they imply.

use crate::demand::{ClaimTest, Demand, Demands, DirectoryRef};
use crate::diagnostic::Code;
use crate::mesh::{check_account, check_namespace};
use crate::place::{Findings, Place};
use crate::spec::{DataflowJobSpec, GitlabSpec, GoogleSpec, IdSpec, KubernetesSpec};
use crate::syntax;

use super::{check_exact, empty};

/// A GitLab CI job.
///
/// In a merge-request pipeline of a fork, `project_id` names the fork and `job_project_id` the project where the job runs
/// (older versions: the other way round). So an Allow demands both, and a Deny either.
pub(super) fn gitlab(place: &Place<'_>, spec: &GitlabSpec, demands: &mut Demands, findings: &mut Findings) {
    let GitlabSpec { project, namespace, protected_ref, environment, protected_environment } = spec;
    if project.is_none()
        && namespace.is_none()
        && protected_ref.is_none()
        && environment.is_none()
        && protected_environment.is_none()
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
}

/// A Google service account, or a virtual machine that runs as one.
pub(super) fn google(place: &Place<'_>, spec: &GoogleSpec, demands: &mut Demands, findings: &mut Findings) {
    let GoogleSpec { service_account, subject, project, project_number } = spec;
    if service_account.is_none() && subject.is_none() && project.is_none() && project_number.is_none() {
        empty(place, findings);
    }
    if let Some(email) = service_account {
        let place = place.key("serviceAccount");
        if check_email(&place, email, findings) {
            demands.add(Demand::is(&["email"], email));
            demands.add_implied(Demand::claim(&["email_verified"], ClaimTest::Boolean(true)));
            if subject.is_none() {
                findings.add(
                    &place,
                    Code::RenameableClaim,
                    format!("`{email}` can be deleted and made again by somebody else"),
                    "the numeric id is never given to another account",
                    "add `subject`: the account's unique id",
                );
            }
        }
    }
    if let Some(IdSpec(subject)) = subject
        && check_number(
            &place.key("subject"),
            subject,
            "the `sub` of Google's accounts is a number",
            findings,
        )
    {
        demands.add(Demand::is(&["sub"], subject));
    }
    if let Some(project) = project
        && check_project(&place.key("project"), project, findings)
    {
        demands.add(Demand::is(&["google", "compute_engine", "project_id"], project));
    }
    if let Some(IdSpec(number)) = project_number {
        let place = place.key("projectNumber");
        if check_number(&place, number, "project numbers are numbers", findings) {
            match number.parse() {
                Ok(number) => demands.add(Demand::claim(
                    &["google", "compute_engine", "project_number"],
                    ClaimTest::Integer(number),
                )),
                Err(_) => findings.add(
                    &place,
                    Code::MalformedValue,
                    format!("`{number}` is not a project number"),
                    "project numbers have at most 63 bits",
                    "write the number that `gcloud projects describe` shows",
                ),
            }
        }
    }
}

/// A Kubernetes service account.
pub(super) fn kubernetes(
    place: &Place<'_>,
    spec: &KubernetesSpec,
    demands: &mut Demands,
    findings: &mut Findings,
) {
    if let Some(namespace) = &spec.namespace {
        check_namespace(&place.key("namespace"), namespace, findings);
        demands.add(Demand::is(&["kubernetes.io", "namespace"], namespace));
    }
    match (&spec.namespace, &spec.service_account) {
        (None, None) => empty(place, findings),
        (None, Some(account)) => findings.add(
            &place.key("serviceAccount"),
            Code::MissingField,
            format!("the namespace of `{account}` is missing"),
            "other namespaces have accounts of the same name",
            "write `namespace` as well",
        ),
        (Some(_), Some(account)) => {
            let place = place.key("serviceAccount");
            check_account(&place, account, findings);
            warn_default_account(&place, account, findings);
            demands.add(Demand::is(&["kubernetes.io", "serviceaccount", "name"], account));
        }
        (Some(_), None) => {}
    }
}

/// The workers of a Dataflow job.
///
/// No token names a job. The id of the virtual machine does, through the directory that the control plane keeps; the
/// project is demanded besides, so that an entry of the directory can never stand for a machine elsewhere.
pub(super) fn dataflow_job(
    place: &Place<'_>,
    spec: &DataflowJobSpec,
    demands: &mut Demands,
    findings: &mut Findings,
) {
    let before = findings.errors();
    check_project(&place.key("project"), &spec.project, findings);
    let refused = |field: &str, text: &str, what: &str, fix: &str, findings: &mut Findings| {
        findings.add(
            &place.key(field),
            Code::MalformedValue,
            format!("`{text}` is not {what}"),
            "no job has it",
            fix,
        );
    };
    if !syntax::is_label(&spec.region) {
        refused("region", &spec.region, "a region", "write a region such as `europe-west4`", findings);
    }
    if !is_job_name(&spec.name) {
        let fix =
            "use lower-case letters, digits and `-`, beginning with a letter; patterns are not supported";
        refused("name", &spec.name, "the name of a Dataflow job", fix, findings);
    }
    if findings.errors() > before {
        return;
    }
    let DataflowJobSpec { name, project, region } = spec.clone();
    demands.add_implied(Demand::is(&["google", "compute_engine", "project_id"], &project));
    demands.add(Demand::claim(
        &["google", "compute_engine", "instance_id"],
        ClaimTest::Listed(DirectoryRef::DataflowJob { project, region, job: name }),
    ));
}

/// `[a-z]([-a-z0-9]{0,1022}[a-z0-9])?` (Dataflow REST reference, `projects.jobs`).
fn is_job_name(text: &str) -> bool {
    text.len() <= 1024
        && text.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.ends_with('-')
}

fn check_number(place: &Place<'_>, text: &str, why: &str, findings: &mut Findings) -> bool {
    let well_formed =
        !text.is_empty() && !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    if !well_formed {
        findings.add(
            place,
            Code::MalformedValue,
            format!("`{text}` is not a numeric id"),
            why,
            "write the number",
        );
    }
    well_formed
}

fn check_project(place: &Place<'_>, text: &str, findings: &mut Findings) -> bool {
    let well_formed = text.len() <= 128
        && text.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.:".contains(&byte));
    if !well_formed {
        findings.add(
            place,
            Code::MalformedValue,
            format!("`{text}` is not the id of a project"),
            "it is compared byte for byte",
            "write the id, e.g. `acme-prod`; numbers go into `google.projectNumber`",
        );
    }
    well_formed
}

fn check_email(place: &Place<'_>, text: &str, findings: &mut Findings) -> bool {
    let well_formed = text.split_once('@').is_some_and(|(name, domain)| {
        !name.is_empty()
            && domain.ends_with(".gserviceaccount.com")
            && !domain.contains('@')
            && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'*')
    });
    if !well_formed {
        findings.add(
            place,
            Code::MalformedValue,
            format!("`{text}` is not the address of a service account"),
            "tokens of people are never accepted, and patterns are not supported here",
            "write `name@project.iam.gserviceaccount.com`",
        );
        return false;
    }
    let default = text.ends_with("-compute@developer.gserviceaccount.com")
        || text.ends_with("@appspot.gserviceaccount.com");
    if default {
        findings.add(
            place,
            Code::DefaultAccount,
            format!("`{text}` is the default account of its project"),
            "everything in the project that names no account runs as it",
            "run the workload as an account of its own",
        );
    }
    true
}

/// Reports the account that pods without one of their own run as.
pub(crate) fn warn_default_account(place: &Place<'_>, account: &str, findings: &mut Findings) {
    if account == "default" {
        findings.add(
            place,
            Code::DefaultAccount,
            "`default` is the account of every pod that names none",
            "unrelated workloads share it",
            "run the workload as an account of its own",
        );
    }
}
