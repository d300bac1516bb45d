//! GitLab CI id tokens (<https://docs.gitlab.com/ci/secrets/id_token_authentication/>, `Gitlab::Ci::JwtV2`).
//!
//! Ids and booleans are strings. The audience is chosen by whoever writes the job, and `sub` by the project's
//! maintainers, so neither is an authorization fact. In a merge-request pipeline of a fork `project_*` names the fork
//! and `job_project_*` (from 18.4) the project where the job runs: a rule must compare both, which the compiler's sugar
//! does.

use tidegate_engine::ClaimValue;

use super::claim::{claims, text};
use super::derived::{self, DerivedSpec};
use super::{ClaimKind, ClaimSpec, LifetimeFrom, Overage, Pack, SAME_ISSUER};
use crate::json::Object;
use crate::keys::Algorithm;

const fn id(path: &'static [&'static str]) -> ClaimSpec {
    ClaimSpec::new(path, ClaimKind::Digits).nullable()
}

const fn name(path: &'static [&'static str]) -> ClaimSpec {
    ClaimSpec::new(path, ClaimKind::String).nullable().renameable()
}

const fn word(path: &'static [&'static str]) -> ClaimSpec {
    ClaimSpec::new(path, ClaimKind::String).nullable()
}

const fn boolean(path: &'static [&'static str]) -> ClaimSpec {
    ClaimSpec::new(path, ClaimKind::BooleanString).nullable()
}

pub(super) static PACK: Pack = Pack {
    claims: claims![
        ClaimSpec::new(&["iss"], ClaimKind::Identifier).required(),
        ClaimSpec::new(&["sub"], ClaimKind::String).required().renameable(),
        ClaimSpec::new(&["aud"], ClaimKind::StringOrStrings).required(),
        id(&["namespace_id"]).required(),
        name(&["namespace_path"]),
        id(&["project_id"]).required(),
        name(&["project_path"]).required(),
        word(&["project_visibility"]),
        id(&["job_project_id"]),
        name(&["job_project_path"]),
        id(&["job_namespace_id"]),
        name(&["job_namespace_path"]),
        id(&["user_id"]),
        name(&["user_login"]),
        name(&["user_email"]),
        word(&["user_access_level"]),
        ClaimSpec::new(&["user_identities"], ClaimKind::Structure).nullable(),
        // Left out above 200 groups.
        ClaimSpec::new(&["groups_direct"], ClaimKind::Strings)
            .nullable()
            .renameable()
            .overage(Overage::Silent),
        id(&["pipeline_id"]),
        word(&["pipeline_source"]),
        id(&["job_id"]),
        word(&["job_source"]),
        ClaimSpec::new(&["job_config"], ClaimKind::Structure).nullable(),
        name(&["ref"]),
        word(&["ref_type"]),
        name(&["ref_path"]),
        boolean(&["ref_protected"]),
        name(&["environment"]),
        boolean(&["environment_protected"]),
        word(&["deployment_tier"]),
        word(&["environment_action"]),
        ClaimSpec::new(&["runner_id"], ClaimKind::Integer).nullable(),
        word(&["runner_environment"]),
        word(&["sha"]),
        name(&["ci_config_ref_uri"]),
        word(&["ci_config_sha"]),
    ],
    derived: &[
        DerivedSpec::new("@fork", ClaimKind::Boolean, fork),
        derived::SUBJECT_OF_NAMES,
        derived::NO_HUMAN,
    ],
    open: false,
    types: &["jwt"],
    strict_header: false,
    algorithms: &[Algorithm::Rs256],
    // The job's timeout, one hour by default; longer ones are declared at the TrustedIssuer.
    max_lifetime_s: 3600,
    lifetime_from: LifetimeFrom::IssuedAt,
    token_id: Some(&["jti"]),
    single_audience: false,
    tenant: &[&["namespace_id"], &["project_id"], &["job_namespace_id"], &["job_project_id"]],
    shared: &["https://gitlab.com"],
    refuses_issuer: |issuer| {
        (!issuer.contains("://")).then_some(
            "only the removed `CI_JOB_JWT` named a bare host, and no audience; use `id_tokens`, whose issuer is a URL",
        )
    },
    key_may_sign: SAME_ISSUER,
    check: |_| Ok(()),
};

/// Whether the job runs code that the project's members may not have seen: that of another project, or of a merge
/// request. Unknown before GitLab 18.4, which does not say where the job runs.
fn fork(claims: &Object) -> ClaimValue {
    let claim = |name| text(claims, &[name]);
    let requested =
        matches!(claim("pipeline_source"), Some("merge_request_event" | "external_pull_request_event"));
    match (claim("project_id"), claim("job_project_id")) {
        _ if requested => ClaimValue::Boolean(true),
        (Some(source), Some(job)) => ClaimValue::Boolean(source != job),
        _ => ClaimValue::Unknown,
    }
}
