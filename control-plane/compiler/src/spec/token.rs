//! `tokens` entries as they are written.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{self, MapAccess, SeqAccess, Visitor};

use super::IdSpec;

/// A verified token, and what it must say.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TokenSpec {
    /// Name of the `TrustedIssuer`.
    pub issuer: String,
    /// What conditions call it.
    #[serde(rename = "as")]
    pub alias: Option<String>,
    /// Claims by path, compared exactly; derived ones begin with `@`.
    pub claims: Option<BTreeMap<String, ClaimValueSpec>>,
    /// For issuers of the pack `aws`.
    pub aws: Option<Box<AwsSpec>>,
    /// For issuers of the pack `entra`.
    pub entra: Option<Box<EntraSpec>>,
    /// For issuers of the pack `github`.
    pub github: Option<Box<GithubSpec>>,
    /// For issuers of the pack `gitlab`.
    pub gitlab: Option<Box<GitlabSpec>>,
    /// For issuers of the pack `google`.
    pub google: Option<Box<GoogleSpec>>,
    /// For issuers of the pack `kubernetes`.
    pub kubernetes: Option<Box<KubernetesSpec>>,
    /// For issuers of the pack `okta`.
    pub okta: Option<Box<OktaSpec>>,
    /// For issuers of the pack `spiffe`.
    pub spiffe: Option<Box<SpiffeSpec>>,
    /// For issuers of the pack `google`: the workers of a Dataflow job.
    pub dataflow_job: Option<Box<DataflowJobSpec>>,
    /// For issuers of the pack `kubernetes`: the pods of a Tekton pipeline or task.
    pub tekton: Option<Box<TektonSpec>>,
    /// Whether a person takes part.
    pub human_in_loop: Option<bool>,
    /// Who acts for the subject.
    pub actor: Option<ActorSpec>,
    /// How long ago it may have been issued, e.g. `15m`; absent: as long as it has not expired. For an Allow.
    pub max_token_age: Option<String>,
    /// Acknowledges that callers, or strangers, choose some of what is demanded.
    pub caller_asserted: Option<bool>,
}

/// What a claim must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimValueSpec {
    /// This string.
    String(String),
    /// This number.
    Integer(i64),
    /// This boolean.
    Boolean(bool),
    /// One of these strings.
    OneOf(Vec<String>),
}

/// Who acts for the subject of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActorSpec {
    /// `none`: the subject acts itself.
    Nobody,
    /// `{subjects: […]}`: one of these.
    Subjects(Vec<String>),
}

/// An IAM role of AWS.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AwsSpec {
    /// Number of the account.
    pub account: Option<String>,
    /// ARN of the role, or its name in the account.
    pub role: Option<String>,
    /// Id of the organization.
    pub organization: Option<String>,
    /// Tags of the principal or its session; all of them.
    pub principal_tags: Option<BTreeMap<String, String>>,
    /// Tags that the caller chose itself; all of them. Only with `callerAsserted: true` beside `aws`.
    pub request_tags: Option<BTreeMap<String, String>>,
}

/// An application, or somebody through it, of Microsoft Entra ID.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EntraSpec {
    /// Id of the tenant.
    pub tenant: Option<String>,
    /// Id of the client application.
    pub app: Option<String>,
    /// Object id of the service principal or user.
    pub object: Option<String>,
    /// Whether the application acts for itself and for no user.
    pub app_only: Option<bool>,
    /// Any of these application roles.
    pub roles: Option<Vec<String>>,
    /// Any of these groups, by object id.
    pub groups: Option<Vec<String>>,
    /// Any of these delegated permissions.
    pub scopes: Option<Vec<String>>,
    /// Whether an agent identity acts.
    pub agent: Option<bool>,
}

/// A job of GitHub Actions.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GithubSpec {
    /// Numeric repository id.
    pub repository: Option<IdSpec>,
    /// Numeric id of the repository's owner.
    pub owner: Option<IdSpec>,
    /// Name of the environment.
    pub environment: Option<String>,
    /// The ref, e.g. `refs/heads/main`.
    #[serde(rename = "ref")]
    pub git_ref: Option<String>,
    /// Any of these events, e.g. `push`.
    pub events: Option<Vec<String>>,
    /// The workflow file that defines the job, with its ref.
    pub workflow: Option<String>,
    /// Whether the job runs for a pull request.
    pub pull_request: Option<bool>,
}

/// A GitLab CI job.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GitlabSpec {
    /// Numeric project id.
    pub project: Option<IdSpec>,
    /// Numeric id of the project's own group.
    pub namespace: Option<IdSpec>,
    /// Name of the branch or tag; only with `refType`.
    #[serde(rename = "ref")]
    pub git_ref: Option<String>,
    /// `branch` or `tag`.
    pub ref_type: Option<RefTypeSpec>,
    /// Whether the branch or tag is protected.
    pub protected_ref: Option<bool>,
    /// Name of the environment.
    pub environment: Option<String>,
    /// Whether the environment is protected.
    pub protected_environment: Option<bool>,
    /// Tier of the environment, e.g. `production`.
    pub tier: Option<String>,
    /// Any of these causes of the pipeline, e.g. `push`.
    pub pipeline_sources: Option<Vec<String>>,
}

/// What a ref of GitLab is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RefTypeSpec {
    /// A branch.
    Branch,
    /// A tag.
    Tag,
}

/// A Google service account, or a virtual machine that runs as one.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GoogleSpec {
    /// Its email address.
    pub service_account: Option<String>,
    /// Its numeric id, which is never given to another account.
    pub subject: Option<IdSpec>,
    /// Id of the project that the virtual machine is in.
    pub project: Option<String>,
    /// Number of the project that the virtual machine is in.
    pub project_number: Option<IdSpec>,
    /// Region that the virtual machine is in.
    pub region: Option<String>,
}

/// A Kubernetes service account.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct KubernetesSpec {
    /// Its namespace.
    pub namespace: Option<String>,
    /// Its name; only with a namespace.
    pub service_account: Option<String>,
}

/// A client or user of an Okta authorization server.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct OktaSpec {
    /// Id of the client application.
    pub client: Option<String>,
    /// Id of the user.
    pub user: Option<String>,
    /// Any of these scopes.
    pub scopes: Option<Vec<String>>,
}

/// A workload of a SPIFFE trust domain: exactly one of the two.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SpiffeSpec {
    /// Its SPIFFE id.
    pub id: Option<String>,
    /// Any of these.
    pub ids: Option<Vec<String>>,
}

/// A Dataflow job, by the name that is unique among the active ones of a project and region.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DataflowJobSpec {
    /// Name of the job.
    pub name: String,
    /// Id of the project.
    pub project: String,
    /// Region of the job.
    pub region: String,
    /// What holds while it is not known which machines the job has; absent: `deny`.
    pub on_stale: Option<OnStaleSpec>,
}

/// What holds while a directory is stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnStaleSpec {
    /// Nobody is let in by it.
    Deny,
    /// The service account that the entry demands is enough.
    DegradeToServiceAccount,
}

/// Pods of Tekton: exactly one of `pipeline` and `task`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TektonSpec {
    /// Of the runs of this Pipeline.
    pub pipeline: Option<String>,
    /// Of the runs of this Task.
    pub task: Option<String>,
    /// Namespace of the runs; absent: the one that the entry demands of the token or the peer.
    pub namespace: Option<String>,
}

// === impl ClaimValueSpec ===

impl<'de> Deserialize<'de> for ClaimValueSpec {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ClaimValueVisitor;
        impl<'de> Visitor<'de> for ClaimValueVisitor {
            type Value = ClaimValueSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a whole number, `true`, `false`, or a list of strings")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ClaimValueSpec, E> {
                Ok(ClaimValueSpec::String(text.to_owned()))
            }

            fn visit_bool<E: de::Error>(self, boolean: bool) -> Result<ClaimValueSpec, E> {
                Ok(ClaimValueSpec::Boolean(boolean))
            }

            fn visit_i64<E: de::Error>(self, integer: i64) -> Result<ClaimValueSpec, E> {
                Ok(ClaimValueSpec::Integer(integer))
            }

            fn visit_u64<E: de::Error>(self, integer: u64) -> Result<ClaimValueSpec, E> {
                i64::try_from(integer).map(ClaimValueSpec::Integer).map_err(|_| {
                    E::invalid_value(de::Unexpected::Unsigned(integer), &"a whole number of at most 63 bits")
                })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<ClaimValueSpec, A::Error> {
                let mut values = Vec::new();
                while let Some(item) = items.next_element::<String>()? {
                    values.push(item);
                }
                Ok(ClaimValueSpec::OneOf(values))
            }
        }
        deserializer.deserialize_any(ClaimValueVisitor)
    }
}

// === impl ActorSpec ===

impl<'de> Deserialize<'de> for ActorSpec {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "camelCase")]
        struct Subjects {
            subjects: Vec<String>,
        }

        struct ActorVisitor;
        impl<'de> Visitor<'de> for ActorVisitor {
            type Value = ActorSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`none`, or a mapping with `subjects`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ActorSpec, E> {
                match text {
                    "none" => Ok(ActorSpec::Nobody),
                    other => Err(E::unknown_variant(other, &["none"])),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ActorSpec, A::Error> {
                let Subjects { subjects } =
                    Subjects::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(ActorSpec::Subjects(subjects))
            }
        }
        deserializer.deserialize_any(ActorVisitor)
    }
}
