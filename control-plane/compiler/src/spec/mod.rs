//! Objects as they are written: plain serde types, nothing checked but their shape.
//!
//! INVARIANT: every optional field is `None` only where nothing was written; unknown fields are refused. Fields that this
//! version does not support are in the types, so that they are refused as such and not as unknown.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{self, SeqAccess, Visitor};

mod issuer;
mod resource;
mod rollout;
mod rule;
mod shapes;
mod test;
mod token;

pub use issuer::{
    HeaderSpec, KeysSpec, RevokedKeySpec, RevokedSpec, RevokedSubjectSpec, RevokedTokenSpec,
    TrustedIssuerSpec,
};
pub use resource::{JobKindSpec, LaunchServiceSpec, LaunchSpec, ProtocolSpec, ResourcesSpec};
pub use rollout::{AbortOnSpec, AmountSpec, RolloutSpec};
pub use rule::{
    AccessRuleSpec, AuditSpec, DaySpec, DisclosureSpec, EffectSpec, FieldSpec, FromSpec, GrpcSpec, HttpSpec,
    OnExpirySpec, OperationSpec, PeerSpec, ScheduleSpec, TargetSpec, TokenOnlySpec, WindowSpec,
};
pub(crate) use test::write_members;
pub use test::{
    ClaimJson, DecisionSpec, ExpectationSpec, RequestSpec, RuleTestSpec, ShadowSpec, TestSpec,
    TestTokenFields, TestTokenSpec,
};
pub use token::{
    ActorSpec, AwsSpec, ClaimValueSpec, DataflowJobSpec, EntraSpec, GithubSpec, GitlabSpec, GoogleSpec,
    KubernetesSpec, OktaSpec, OnStaleSpec, RefTypeSpec, SpiffeSpec, TektonSpec, TokenSpec,
};

/// The one version of the objects.
pub const API_VERSION: &str = "tidegate.dev/v1alpha1";

/// An object of any kind.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Manifest<S> {
    /// [`API_VERSION`]; may be left out in files.
    pub api_version: Option<String>,
    /// Which kind.
    pub kind: String,
    /// Who it is.
    pub metadata: Metadata,
    /// What it says.
    pub spec: S,
}

/// Who an object is.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Metadata {
    /// A DNS label or subdomain.
    pub name: String,
    /// Where it belongs; not for `TrustedIssuer` and `Mesh`.
    pub namespace: Option<String>,
    /// Not looked at.
    pub labels: Option<BTreeMap<String, String>>,
    /// Not looked at.
    pub annotations: Option<BTreeMap<String, String>>,
}

/// The mesh that rules are for, where it is not read from Kubernetes.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MeshSpec {
    /// Of the SPIFFE ids of its workloads.
    pub trust_domain: String,
    /// Objects of this namespace act on the whole mesh.
    pub root_namespace: String,
    /// Workloads.
    pub workloads: Option<Vec<WorkloadSpec>>,
    /// Workloads that others reach the mesh through, or leave it.
    pub gateways: Option<Vec<WorkloadSpec>>,
}

/// One workload.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct WorkloadSpec {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Unique in its namespace.
    pub name: String,
    /// What selectors look at.
    pub labels: Option<BTreeMap<String, String>>,
    /// What its SPIFFE id names; must be written for gateways.
    pub service_account: Option<String>,
}

/// A declaration that workloads are guarded.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GuardSpec {
    /// Always written out.
    pub mode: ModeSpec,
    /// For whom tokens must be meant; absent: the request's host.
    pub audience: Option<OneOrMany>,
    /// Which workloads; absent: all of the namespace.
    pub selector: Option<SelectorSpec>,
    /// Which ports; absent: all.
    pub ports: Option<Vec<u16>>,
    /// Which ports speak no HTTP and pass unguarded; absent: none.
    pub tcp_ports: Option<Vec<u16>>,
    /// How changed rules reach proxies; absent: all at once.
    pub rollout: Option<RolloutSpec>,
}

/// Whether something is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ModeSpec {
    /// Evaluated and enforced.
    Enforce,
    /// Evaluated and reported, never enforced.
    Shadow,
}

/// Which workloads.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SelectorSpec {
    /// All of these labels.
    pub match_labels: BTreeMap<String, String>,
}

/// One named identity and its forms.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CallerSpec {
    /// Any of these forms is the caller.
    pub any_of: Vec<FormSpec>,
}

/// One form of a caller.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FormSpec {
    /// A workload of the mesh.
    pub peer: Option<PeerSpec>,
    /// Any workload of the mesh; only with tokens.
    pub any_mesh: Option<bool>,
    /// Known by its token only.
    pub token_only: Option<TokenOnlySpec>,
    /// All of these tokens.
    pub tokens: Option<Vec<TokenSpec>>,
    /// Conditions on tokens, peer, request and time: CEL, all of them.
    pub when: Option<Vec<String>>,
    /// Claims that must be equal to other claims or to what the peer is: CEL, all of them.
    pub bind: Option<Vec<String>>,
}

/// A string or a list of strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OneOrMany {
    /// `a`
    One(String),
    /// `[a, b]`
    Many(Vec<String>),
}

/// An id that people write as a number or as a string; kept as its digits and letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdSpec(pub String);

// === impl OneOrMany ===

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrManyVisitor;
        impl<'de> Visitor<'de> for OneOrManyVisitor {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<OneOrMany, A::Error> {
                let mut many = Vec::new();
                while let Some(item) = items.next_element::<String>()? {
                    many.push(item);
                }
                Ok(OneOrMany::Many(many))
            }
        }
        deserializer.deserialize_any(OneOrManyVisitor)
    }
}

// === impl IdSpec ===

impl<'de> Deserialize<'de> for IdSpec {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IdVisitor;
        impl Visitor<'_> for IdVisitor {
            type Value = IdSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id: a number or a string")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<IdSpec, E> {
                Ok(IdSpec(text.to_owned()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<IdSpec, E> {
                Ok(IdSpec(number.to_string()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<IdSpec, E> {
                Ok(IdSpec(number.to_string()))
            }
        }
        deserializer.deserialize_any(IdVisitor)
    }
}
