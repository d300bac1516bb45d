//! GitLab CI id tokens (<https://docs.gitlab.com/ci/secrets/id_token_authentication/>).
//!
//! Ids and booleans are strings. The audience is chosen by whoever writes the job, and `sub` by the project's
//! maintainers, so neither is an authorization fact. In a merge-request pipeline of a fork `project_*` names the fork
//! and `job_project_*` the project where the job runs: a rule must compare both, which the compiler's sugar does.

use super::{ClaimKind, ClaimSpec, Pack, claims};
use crate::keys::Algorithm;

const fn id(path: &'static [&'static str]) -> ClaimSpec {
    ClaimSpec::new(path, ClaimKind::Identifier).nullable()
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
        sub: ClaimKind::String, aud: ClaimKind::StringOrStrings;
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
        ClaimSpec::new(&["groups_direct"], ClaimKind::Strings).nullable().renameable().with_overage(),
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
    types: &["jwt"],
    algorithms: &[Algorithm::Rs256],
    // The job's timeout, one hour by default; longer ones are declared at the TrustedIssuer.
    max_lifetime_s: 3600,
    tenant: &[&["namespace_id"], &["project_id"], &["job_namespace_id"], &["job_project_id"]],
    shared: &["https://gitlab.com"],
    refuses_issuer: |_| None,
    check: |_| Ok(()),
};
