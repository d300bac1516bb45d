//! `google`: service accounts and virtual machines. `dataflowJob`: the workers of a job.

use super::{check_number, empty, malformed};
use crate::demand::{ClaimTest, Demand, Demands};
use crate::diagnostic::Code;
use crate::directory::{DirectoryQuery, is_job_name, is_project};
use crate::place::{Findings, Place};
use crate::spec::{DataflowJobSpec, GoogleSpec, IdSpec, OnStaleSpec};
use crate::syntax;

/// A Google service account, or a virtual machine that runs as one.
pub(super) fn check(place: &Place<'_>, spec: &GoogleSpec, demands: &mut Demands, findings: &mut Findings) {
    let GoogleSpec { service_account, subject, project, project_number, region } = spec;
    if service_account.is_none()
        && subject.is_none()
        && project.is_none()
        && project_number.is_none()
        && region.is_none()
    {
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
    if let Some(region) = region
        && check_region(&place.key("region"), region, findings)
    {
        demands.add(Demand::is(&["@region"], region));
    }
}

/// The workers of a Dataflow job.
///
/// No token names a job. The id of the virtual machine does, through the directory that the control plane keeps; the
/// project is demanded besides, so that an entry of the directory can never stand for a machine elsewhere.
pub(super) fn check_dataflow_job(
    place: &Place<'_>,
    spec: &DataflowJobSpec,
    demands: &mut Demands,
    findings: &mut Findings,
) {
    let DataflowJobSpec { name, project, region, on_stale } = spec;
    let before = findings.errors();
    check_project(&place.key("project"), project, findings);
    check_region(&place.key("region"), region, findings);
    if !is_job_name(name) {
        let fix =
            "use lower-case letters, digits and `-`, beginning with a letter; patterns are not supported";
        malformed(&place.key("name"), name, "the name of a Dataflow job", "no job has it", fix, findings);
    }
    let degrades = *on_stale == Some(OnStaleSpec::DegradeToServiceAccount);
    if degrades && !demands.ties_to(&[&["sub"], &["email"], &["@subject"]]) {
        findings.add(
            &place.key("onStale"),
            Code::MissingField,
            "there is no service account to degrade to",
            "while it is not known which machines the job has, every machine of the project would match",
            "add `google: {serviceAccount: …, subject: …}` to the token",
        );
    }
    if findings.errors() > before {
        return;
    }
    let directory =
        DirectoryQuery::DataflowJob { project: project.clone(), region: region.clone(), name: name.clone() };
    let instance = ["google", "compute_engine", "instance_id"];
    demands.add_implied(Demand::is(&["google", "compute_engine", "project_id"], project));
    // While the directory is stale, nobody knows whether a Deny concerns the machine: it does.
    let listed = Demand::claim(&instance, ClaimTest::Listed(directory.clone()));
    if degrades {
        demands.add_two(Demand::claim(&instance, ClaimTest::ListedOrStale(directory)), listed);
    } else {
        demands.add(listed);
    }
}

fn check_project(place: &Place<'_>, text: &str, findings: &mut Findings) -> bool {
    let well_formed = is_project(text);
    if !well_formed {
        let fix = "write the id, e.g. `acme-prod`; numbers go into `google.projectNumber`";
        malformed(place, text, "the id of a project", "it is compared byte for byte", fix, findings);
    }
    well_formed
}

fn check_region(place: &Place<'_>, text: &str, findings: &mut Findings) -> bool {
    let well_formed = syntax::is_label(text);
    if !well_formed {
        let fix = "write a region such as `europe-west4`";
        malformed(place, text, "a region", "nothing runs there", fix, findings);
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
