//! Claims that decision records may carry: who called, for whom, and from which run of which job.
//!
//! A record leaves the mesh for whatever people keep logs in. So this is a list of what may, not of what may not: names and
//! ids of workloads, projects, pipelines and runs, and the id of the person who started them. No mail addresses of people,
//! no groups, nothing that the caller chose freely, nothing that is a credential.

use super::PackKind;

/// Claim paths, member names from the outside in; a name with `@` is a derived attribute.
type Paths = &'static [&'static [&'static str]];

/// Who acts for whom (RFC 8693 §4.1), of every pack.
const ACTOR: &[&str] = &["@actor"];

const KUBERNETES: &str = "kubernetes.io";
const STS: &str = "https://sts.amazonaws.com/";

// === impl PackKind ===

impl PackKind {
    /// Paths of claims and derived attributes that may be recorded.
    pub const fn recorded(self) -> Paths {
        match self {
            Self::Google => &[
                &["sub"],
                // Of a service account: the pack accepts no people's tokens as workloads'.
                &["email"],
                &["google", "compute_engine", "project_id"],
                &["google", "compute_engine", "zone"],
                &["google", "compute_engine", "instance_id"],
                &["google", "compute_engine", "instance_name"],
                ACTOR,
            ],
            Self::Kubernetes => &[
                &["sub"],
                &[KUBERNETES, "namespace"],
                &[KUBERNETES, "serviceaccount", "name"],
                &[KUBERNETES, "pod", "name"],
                &[KUBERNETES, "pod", "uid"],
                &[KUBERNETES, "node", "name"],
                ACTOR,
            ],
            Self::Gitlab => &[
                &["sub"],
                &["project_id"],
                &["project_path"],
                &["user_id"],
                &["user_login"],
                &["pipeline_id"],
                &["pipeline_source"],
                &["job_id"],
                &["ref"],
                &["ref_type"],
                &["ref_protected"],
                &["environment"],
                &["runner_id"],
                &["sha"],
                ACTOR,
            ],
            Self::Entra => {
                &[&["sub"], &["tid"], &["oid"], &["appid"], &["azp"], &["idtyp"], &["xms_mirid"], ACTOR]
            }
            Self::Okta => &[&["sub"], &["cid"], &["uid"], ACTOR],
            Self::Aws => &[
                &["sub"],
                &[STS, "aws_account"],
                &[STS, "org_id"],
                &[STS, "source_region"],
                &[STS, "principal_id"],
                &[STS, "ec2_source_instance_arn"],
                &[STS, "lambda_source_function_arn"],
                ACTOR,
            ],
            Self::Spiffe => &[&["sub"], ACTOR],
            Self::Github => &[
                &["sub"],
                &["repository"],
                &["repository_id"],
                &["actor"],
                &["actor_id"],
                &["event_name"],
                &["ref"],
                &["ref_protected"],
                &["environment"],
                &["job_workflow_ref"],
                &["run_id"],
                &["run_attempt"],
                &["sha"],
                ACTOR,
            ],
            Self::Generic => &[&["sub"], &["client_id"], &["azp"], ACTOR],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::claim::{ClaimKind, Stability};

    #[test]
    fn only_known_claims_of_plain_types_are_recorded_and_none_that_its_caller_made_up() {
        for pack in PackKind::ALL {
            for path in pack.recorded() {
                match path {
                    [name] if name.starts_with('@') => {
                        let kind = pack.derived(name).unwrap_or_else(|| panic!("{pack:?} {name}")).kind;
                        assert_eq!(kind, ClaimKind::String, "{pack:?} {name}");
                    }
                    path => {
                        let spec = pack.claim(path).unwrap_or_else(|| panic!("{pack:?} {path:?}"));
                        assert_ne!(spec.stable, Stability::CallerAsserted, "{pack:?} {path:?}");
                        assert!(
                            !matches!(spec.kind, ClaimKind::Structure | ClaimKind::Strings),
                            "{pack:?} {path:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_that_names_a_person_by_mail_or_is_a_credential_is_recorded() {
        for pack in PackKind::ALL {
            for path in pack.recorded() {
                let name = *path.last().unwrap();
                let is_mail = name.contains("mail") && pack != PackKind::Google;
                let is_other =
                    ["upn", "unique_name", "preferred_username", "name", "groups", "jti", "nonce", "cnf"];
                let nested = path.len() > 1;
                assert!(!is_mail && (nested || !is_other.contains(&name)), "{pack:?} {path:?}");
            }
        }
    }
}
