//! Readable notations for the claims of a pack, and what they imply.
//!
//! INVARIANT: a mapping that says nothing is refused, and what is written twice in different ways is demanded twice.

use tidegate_identity::PackKind;

use crate::demand::{ClaimTest, Demand, Demands};
use crate::diagnostic::Code;
use crate::issuers::TrustedIssuer;
use crate::mesh::not_empty;
use crate::operation::repeated;
use crate::place::{Findings, Place};
use crate::spec::{ActorSpec, TokenSpec};
use crate::text::check_exact;

use super::{Entry, empty};

mod aws;
mod entra;
mod github;
mod gitlab;
mod google;
mod kubernetes;
mod okta;
mod spiffe;

pub(crate) use kubernetes::warn_default_account;

/// Checks every notation of a token. Says whether callers choose anything of what is demanded.
pub(super) fn check(
    place: &Place<'_>,
    spec: &TokenSpec,
    issuer: &TrustedIssuer,
    entry: Entry<'_>,
    demands: &mut Demands,
    findings: &mut Findings,
) -> bool {
    let belongs = |field: &str, pack: PackKind, findings: &mut Findings| {
        if issuer.pack == pack {
            return true;
        }
        findings.add(
            &place.key(field),
            Code::WrongPack,
            format!("`{field}` is for issuers of the pack `{}`", pack.name()),
            format!("tokens of `{}` (pack `{}`) do not have these claims", issuer.name, issuer.pack.name()),
            "correct `issuer`, or write `claims`",
        );
        false
    };
    let mut asserted = false;
    if let Some(aws) = &spec.aws
        && belongs("aws", PackKind::Aws, findings)
    {
        let acknowledged = spec.caller_asserted == Some(true);
        asserted |= aws::check(&place.key("aws"), aws, acknowledged, demands, findings);
    }
    if let Some(entra) = &spec.entra
        && belongs("entra", PackKind::Entra, findings)
    {
        entra::check(&place.key("entra"), entra, spec.human_in_loop, issuer, demands, findings);
    }
    if let Some(github) = &spec.github
        && belongs("github", PackKind::Github, findings)
    {
        github::check(&place.key("github"), github, demands, findings);
    }
    if let Some(gitlab) = &spec.gitlab
        && belongs("gitlab", PackKind::Gitlab, findings)
    {
        gitlab::check(&place.key("gitlab"), gitlab, demands, findings);
    }
    if let Some(google) = &spec.google
        && belongs("google", PackKind::Google, findings)
    {
        google::check(&place.key("google"), google, demands, findings);
    }
    if let Some(kubernetes) = &spec.kubernetes
        && belongs("kubernetes", PackKind::Kubernetes, findings)
    {
        kubernetes::check(&place.key("kubernetes"), kubernetes, demands, findings);
    }
    if let Some(okta) = &spec.okta
        && belongs("okta", PackKind::Okta, findings)
    {
        okta::check(&place.key("okta"), okta, spec.human_in_loop, demands, findings);
    }
    if let Some(spiffe) = &spec.spiffe
        && belongs("spiffe", PackKind::Spiffe, findings)
    {
        spiffe::check(&place.key("spiffe"), spiffe, issuer, demands, findings);
    }
    // After what it may have to rest on.
    if let Some(job) = &spec.dataflow_job
        && belongs("dataflowJob", PackKind::Google, findings)
    {
        google::check_dataflow_job(&place.key("dataflowJob"), job, demands, findings);
    }
    if let Some(tekton) = &spec.tekton
        && belongs("tekton", PackKind::Kubernetes, findings)
    {
        let of_token = spec.kubernetes.as_ref().and_then(|kubernetes| kubernetes.namespace.as_deref());
        let namespace = of_token.or(entry.peer_namespace);
        kubernetes::check_tekton(&place.key("tekton"), tekton, issuer, namespace, demands, findings);
    }
    check_actors(place, spec, issuer, demands, findings);
    asserted
}

/// Who acts, and whether a person takes part; the same for all packs.
fn check_actors(
    place: &Place<'_>,
    spec: &TokenSpec,
    issuer: &TrustedIssuer,
    demands: &mut Demands,
    findings: &mut Findings,
) {
    if let Some(human) = spec.human_in_loop {
        if human && is_for_workloads_only(issuer.pack) {
            findings.add(
                &place.key("humanInLoop"),
                Code::MalformedValue,
                format!("tokens of the pack `{}` are never those of people", issuer.pack.name()),
                "the condition would never hold",
                "remove it, or correct `issuer`",
            );
        }
        demands.add(Demand::claim(&["@human_in_loop"], ClaimTest::Boolean(human)));
    }
    match &spec.actor {
        None => {}
        Some(ActorSpec::Nobody) => demands.add(Demand::claim(&["@actor"], ClaimTest::Present).not()),
        Some(ActorSpec::Subjects(subjects)) => {
            let place = place.key("actor");
            let subjects = exact_list(&place.key("subjects"), subjects, findings, |_, _, _| true);
            demands.add(Demand::claim(&["@actor"], ClaimTest::OneOf(subjects.into_iter().collect())));
        }
    }
}

fn is_for_workloads_only(pack: PackKind) -> bool {
    match pack {
        PackKind::Google | PackKind::Kubernetes | PackKind::Gitlab | PackKind::Spiffe | PackKind::Github => {
            true
        }
        PackKind::Entra | PackKind::Okta | PackKind::Aws | PackKind::Generic => false,
    }
}

/// Values that are compared exactly, each once; `fits` reports what is wrong with one besides.
fn exact_list(
    place: &Place<'_>,
    list: &[String],
    findings: &mut Findings,
    fits: impl Fn(&Place<'_>, &str, &mut Findings) -> bool,
) -> Vec<String> {
    not_empty(place, list, findings);
    let mut checked = Vec::new();
    for (index, text) in list.iter().enumerate() {
        let place = place.index(index);
        if !check_exact(&place, text, findings) || !fits(&place, text, findings) {
            continue;
        }
        if checked.contains(text) {
            repeated(&place, text, findings);
        } else {
            checked.push(text.clone());
        }
    }
    checked
}

/// A list claim that contains any of these.
fn contains_any(path: &[&str], values: Vec<String>) -> Demand {
    let path: Vec<String> = path.iter().map(|name| (*name).to_owned()).collect();
    Demand::any(&path, values.into_iter().map(ClaimTest::Contains).collect())
}

/// A claim that is any of these.
fn is_any(path: &[&str], values: Vec<String>) -> Demand {
    Demand::claim(path, ClaimTest::OneOf(values.into_iter().collect()))
}

/// Says that a text is not what it must be.
fn malformed(place: &Place<'_>, text: &str, what: &str, why: &str, fix: &str, findings: &mut Findings) {
    findings.add(place, Code::MalformedValue, format!("`{}` is not {what}", text.escape_debug()), why, fix);
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
