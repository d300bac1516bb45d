//! GitHub Actions id tokens (<https://docs.github.com/en/actions/reference/security/oidc>): github.com, enterprises
//! with an issuer of their own, and GitHub Enterprise Server.
//!
//! Ids and booleans are strings. `sub` has two default formats, names only and, for repositories since July 2026, names
//! with ids, and every organisation and repository can replace it: rules compare the ids. `aud` is chosen by whoever
//! writes the job. A name can be given up and taken by somebody else.

use tidegate_engine::{ClaimValue, TokenFault};

use super::claim::{claims, text};
use super::derived::{self, DerivedSpec};
use super::detect::Url;
use super::{ClaimKind, ClaimSpec, LifetimeFrom, Pack, SAME_ISSUER, TokenFacts};
use crate::json::Object;
use crate::keys::Algorithm;

const ISSUER: &str = "https://token.actions.githubusercontent.com";

const fn id(path: &'static [&'static str]) -> ClaimSpec {
    ClaimSpec::new(path, ClaimKind::Digits)
}

/// Of repositories, people, branches and workflows. May be empty where it does not apply.
const fn name(path: &'static [&'static str]) -> ClaimSpec {
    ClaimSpec::new(path, ClaimKind::String).renameable()
}

const fn word(path: &'static [&'static str]) -> ClaimSpec {
    ClaimSpec::new(path, ClaimKind::String)
}

pub(super) static PACK: Pack = Pack {
    claims: claims![
        ClaimSpec::new(&["iss"], ClaimKind::Identifier).required(),
        name(&["sub"]).required(),
        ClaimSpec::new(&["aud"], ClaimKind::StringOrStrings).required(),
        name(&["repository"]).required(),
        id(&["repository_id"]).required(),
        name(&["repository_owner"]).required(),
        id(&["repository_owner_id"]).required(),
        word(&["repository_visibility"]),
        // What the organisation's properties say of the repository. Several values are joined with commas.
        name(&["repo_property_*"]),
        name(&["enterprise"]),
        id(&["enterprise_id"]),
        name(&["actor"]),
        id(&["actor_id"]),
        word(&["event_name"]),
        name(&["ref"]),
        word(&["ref_type"]),
        ClaimSpec::new(&["ref_protected"], ClaimKind::BooleanString),
        name(&["base_ref"]),
        name(&["head_ref"]),
        word(&["sha"]),
        name(&["environment"]),
        name(&["workflow"]),
        name(&["workflow_ref"]),
        word(&["workflow_sha"]),
        name(&["job_workflow_ref"]),
        word(&["job_workflow_sha"]),
        id(&["run_id"]),
        id(&["run_number"]),
        id(&["run_attempt"]),
        id(&["check_run_id"]),
        word(&["runner_environment"]),
    ],
    derived: &[
        DerivedSpec::new("@pull_request", ClaimKind::Boolean, pull_request),
        derived::SUBJECT_OF_NAMES,
        derived::NO_HUMAN,
    ],
    open: false,
    types: &["jwt"],
    strict_header: false,
    algorithms: &[Algorithm::Rs256],
    // Tokens of 5 minutes and, in 2025, of 6 hours have been seen; 6 hours is the longest job of a hosted runner.
    max_lifetime_s: 21_600,
    lifetime_from: LifetimeFrom::IssuedAt,
    token_id: Some(&["jti"]),
    single_audience: false,
    // `sub` is not among them: its template may leave out whose repository it is.
    tenant: &[&["repository_id"], &["repository_owner_id"], &["enterprise_id"]],
    shared: &[ISSUER],
    refuses_issuer,
    key_may_sign: SAME_ISSUER,
    check,
};

fn refuses_issuer(issuer: &str) -> Option<&'static str> {
    let url = Url::parse(issuer);
    let good = url.is_some_and(|url| {
        let of_enterprise = match url.segments().as_slice() {
            [] => true,
            [slug] => !slug.is_empty(),
            _ => false,
        };
        let residence =
            url.host.strip_prefix("token.actions.").and_then(|host| host.strip_suffix(".ghe.com"));
        match url.host {
            "token.actions.githubusercontent.com" => of_enterprise,
            _ if residence.is_some_and(|name| !name.is_empty()) => of_enterprise,
            _ => url.path == "/_services/token",
        }
    });
    (!good).then_some(
        "the github pack is for `https://token.actions.githubusercontent.com`, with `/ENTERPRISE` where the enterprise \
         has its own issuer, `https://token.actions.SUBDOMAIN.ghe.com` and `https://HOST/_services/token`",
    )
}

fn check(token: &TokenFacts<'_>) -> Result<(), TokenFault> {
    let claim = |name: &'static str| text(token.claims, &[name]).ok_or(TokenFault::ClaimMissing);
    let (owner, owner_id) = (claim("repository_owner")?, claim("repository_owner_id")?);
    let (repository, repository_id) = (claim("repository")?, claim("repository_id")?);
    let Some((of, name)) = repository.split_once('/') else { return Err(TokenFault::ClaimMalformed) };
    if of.is_empty() || name.is_empty() || name.contains('/') {
        return Err(TokenFault::ClaimMalformed);
    }
    if of != owner {
        return Err(TokenFault::ClaimsContradict);
    }
    // "Any `:` within the metadata values will be replaced with `%3A`", so the repository ends at the next one.
    if let Some(rest) = claim("sub")?.strip_prefix("repo:") {
        let named = rest.split(':').next().unwrap_or_default();
        let with_ids = format!("{of}@{owner_id}/{name}@{repository_id}");
        if named != repository && named != with_ids {
            return Err(TokenFault::ClaimsContradict);
        }
    }
    // An enterprise with an issuer of its own: its tokens only.
    let slug = Url::parse(token.iss).filter(|url| url.path != "/_services/token");
    if let Some([slug]) = slug.map(|url| url.segments()).as_deref()
        && text(token.claims, &["enterprise"]).is_some_and(|enterprise| enterprise != *slug)
    {
        return Err(TokenFault::ClaimsContradict);
    }
    Ok(())
}

/// Whether the run belongs to a pull request: `pull_request`, `pull_request_target`, `pull_request_review` and the like,
/// or the ref of one. What other runs start (`workflow_run`) says nothing of it.
fn pull_request(claims: &Object) -> ClaimValue {
    let claim = |name| text(claims, &[name]).unwrap_or_default();
    let event = claim("event_name");
    if event.starts_with("pull_request")
        || claim("ref").starts_with("refs/pull/")
        || !claim("head_ref").is_empty()
    {
        return ClaimValue::Boolean(true);
    }
    match event {
        "" | "workflow_run" => ClaimValue::Unknown,
        _ => ClaimValue::Boolean(false),
    }
}
