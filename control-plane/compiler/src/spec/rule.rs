//! `AccessRule` as it is written.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, IgnoredAny, SeqAccess, Visitor};

use super::{IdSpec, ModeSpec, SelectorSpec};

/// Who may, or must not, do what.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AccessRuleSpec {
    /// Whose turn it is when a caller is refused.
    pub owner: String,
    /// Where to ask.
    pub contact: Option<String>,
    /// Which workloads; absent: all of the namespace.
    pub target: Option<TargetSpec>,
    /// Always written out.
    pub effect: EffectSpec,
    /// Always written out.
    pub mode: ModeSpec,
    /// How decisions of this rule are recorded.
    pub audit: Option<AuditSpec>,
    /// How much a refusal tells its caller.
    pub disclosure: Option<DisclosureSpec>,
    /// Any of these.
    pub from: Vec<FromSpec>,
    /// Any of these; absent: any operation.
    pub to: Option<Vec<OperationSpec>>,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum EffectSpec {
    /// Lets pass.
    Allow,
    /// Refuses, whatever else matches.
    Deny,
}

/// How decisions are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AuditSpec {
    /// Every decision.
    Full,
    /// Some of them.
    Sampled,
    /// Every decision, and no request passes unrecorded. Not supported yet.
    Required,
}

/// How much a refusal tells its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DisclosureSpec {
    /// Reason, rule and owner.
    Full,
    /// The reason code only.
    Code,
    /// An opaque 404.
    Opaque,
}

/// Which workloads: exactly one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TargetSpec {
    /// By labels.
    pub selector: Option<SelectorSpec>,
    /// A gateway, `namespace/name`.
    pub gateway: Option<String>,
}

/// Who: exactly one of the first five, and all tokens.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FromSpec {
    /// A Caller, `namespace/name`.
    pub caller: Option<String>,
    /// A workload of the mesh.
    pub peer: Option<PeerSpec>,
    /// Any workload of the mesh.
    pub any_mesh: Option<bool>,
    /// Known by its token only.
    pub token_only: Option<TokenOnlySpec>,
    /// Whoever it is.
    pub anyone: Option<bool>,
    /// All of these tokens.
    pub tokens: Option<Vec<TokenSpec>>,
    /// Not supported yet.
    pub when: Option<IgnoredAny>,
    /// Not supported yet.
    pub bind: Option<IgnoredAny>,
}

/// A workload of the mesh.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PeerSpec {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Any of these; absent: any of the namespace.
    pub service_accounts: Option<Vec<String>>,
    /// Absent: the mesh's own.
    pub trust_domain: Option<String>,
}

/// A caller without a mesh certificate.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TokenOnlySpec {
    /// The gateways it comes through, `namespace/name`.
    pub via: Vec<String>,
}

/// A verified token, and what it must say.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TokenSpec {
    /// Name of the `TrustedIssuer`.
    pub issuer: String,
    /// What conditions call it.
    #[serde(rename = "as")]
    pub alias: Option<String>,
    /// Claims by path, compared exactly.
    pub claims: Option<BTreeMap<String, ClaimValueSpec>>,
    /// For issuers of the pack `gitlab`.
    pub gitlab: Option<GitlabSpec>,
    /// For issuers of the pack `google`.
    pub google: Option<GoogleSpec>,
    /// For issuers of the pack `kubernetes`.
    pub kubernetes: Option<KubernetesSpec>,
    /// For issuers of the pack `google`: the workers of a Dataflow job.
    pub dataflow_job: Option<DataflowJobSpec>,
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

/// A GitLab CI job.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GitlabSpec {
    /// Numeric project id.
    pub project: Option<IdSpec>,
    /// Numeric id of the project's own group.
    pub namespace: Option<IdSpec>,
    /// Whether the branch or tag is protected.
    pub protected_ref: Option<bool>,
    /// Name of the environment.
    pub environment: Option<String>,
    /// Whether the environment is protected.
    pub protected_environment: Option<bool>,
}

/// A Google service account, or a virtual machine that runs as one.
#[derive(Debug, Clone, Deserialize)]
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
}

/// A Kubernetes service account.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct KubernetesSpec {
    /// Its namespace.
    pub namespace: Option<String>,
    /// Its name; only with a namespace.
    pub service_account: Option<String>,
}

/// A Dataflow job, by the name that is unique among the active ones of a project and region.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DataflowJobSpec {
    /// Name of the job.
    pub name: String,
    /// Id of the project.
    pub project: String,
    /// Region of the job.
    pub region: String,
}

/// What is called: exactly one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct OperationSpec {
    /// Plain HTTP.
    pub http: Option<HttpSpec>,
    /// gRPC methods.
    pub grpc: Option<GrpcSpec>,
    /// Not supported yet.
    pub launch: Option<IgnoredAny>,
    /// Not supported yet.
    pub resources: Option<IgnoredAny>,
}

/// HTTP requests: all parts must match.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HttpSpec {
    /// Any of these; absent: any.
    pub methods: Option<Vec<String>>,
    /// Any of these templates; absent: any.
    pub paths: Option<Vec<String>>,
    /// Any of these; absent: any.
    pub hosts: Option<Vec<String>>,
    /// Any of these ports of the workload; absent: any.
    pub ports: Option<Vec<u16>>,
}

/// gRPC calls: all parts must match.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GrpcSpec {
    /// Full names, e.g. `google.pubsub.v1.Publisher`.
    pub services: Vec<String>,
    /// Any of these; absent: any.
    pub methods: Option<Vec<String>>,
    /// Any of these; absent: any.
    pub hosts: Option<Vec<String>>,
    /// Any of these ports of the workload; absent: any.
    pub ports: Option<Vec<u16>>,
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
