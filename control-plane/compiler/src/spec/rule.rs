//! `AccessRule` as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{LaunchSpec, ModeSpec, ResourcesSpec, SelectorSpec, TokenSpec};

/// Who may, or must not, do what.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
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
    /// What becomes of a stream when a token that it was let in with expires; absent: it is reset.
    pub on_expiry: Option<OnExpirySpec>,
    /// How long after expiry it may still go on, e.g. `30s`; absent: not at all.
    pub expiry_grace: Option<String>,
    /// How much a refusal tells its caller.
    pub disclosure: Option<DisclosureSpec>,
    /// Any of these.
    pub from: Vec<FromSpec>,
    /// Any of these; absent: any operation.
    pub to: Option<Vec<OperationSpec>>,
    /// The rule begins to hold then: a moment, or a day, of which the beginning counts, in UTC.
    pub not_before: Option<String>,
    /// The rule holds no more then: a moment, or a day, of which the end counts, in UTC.
    pub not_after: Option<String>,
    /// The rule holds only in these hours.
    pub schedule: Option<ScheduleSpec>,
}

/// Weekly hours.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ScheduleSpec {
    /// A name of the IANA time zone database, e.g. `Europe/Berlin`.
    pub time_zone: String,
    /// Any of these.
    pub windows: Vec<WindowSpec>,
}

/// Some hours on some days.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct WindowSpec {
    /// Any of these; absent: every day.
    pub days: Option<Vec<DaySpec>>,
    /// `HH:MM`.
    pub from: String,
    /// `HH:MM`, at most `24:00`; not later than `from`: on the next day.
    pub to: String,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum DaySpec {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum EffectSpec {
    /// Lets pass.
    Allow,
    /// Refuses, whatever else matches.
    Deny,
}

/// How decisions are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum AuditSpec {
    /// Every decision.
    Full,
    /// Some of them.
    Sampled,
    /// Every decision, and no request passes that cannot be recorded.
    Required,
}

/// What becomes of a stream when a token that it was let in with expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnExpirySpec {
    /// It is ended.
    Reset,
    /// It may go on for as long as it lasts.
    Keep,
}

/// How much a refusal tells its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TargetSpec {
    /// By labels.
    pub selector: Option<SelectorSpec>,
    /// A gateway, `namespace/name`.
    pub gateway: Option<String>,
}

/// Who: exactly one of the first five, and all tokens.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
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
    /// Conditions on tokens, peer, request and time: CEL, all of them.
    pub when: Option<Vec<String>>,
    /// Claims that must be equal to other claims or to what the peer is: CEL, all of them.
    pub bind: Option<Vec<String>>,
}

/// A workload of the mesh.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TokenOnlySpec {
    /// The gateways it comes through, `namespace/name`.
    pub via: Vec<String>,
}

/// What is called: exactly one.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct OperationSpec {
    /// Plain HTTP.
    pub http: Option<Box<HttpSpec>>,
    /// gRPC methods.
    pub grpc: Option<Box<GrpcSpec>>,
    /// Something that is started.
    pub launch: Option<Box<LaunchSpec>>,
    /// Resources of a known service.
    pub resources: Option<Box<ResourcesSpec>>,
}

/// HTTP requests: all parts must match.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
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
    /// All of these headers.
    pub headers: Option<Vec<FieldSpec>>,
    /// All of these parameters of the query.
    pub query: Option<Vec<FieldSpec>>,
}

/// A header or a query parameter, and what it must be: exactly one of the others.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FieldSpec {
    /// A header's name in whatever case, or a parameter's, decoded.
    pub name: String,
    /// This value.
    pub exact: Option<String>,
    /// It begins with this.
    pub prefix: Option<String>,
    /// It is like this: `*` stands for zero or more characters.
    pub glob: Option<String>,
    /// `true`: it is there, whatever it is.
    pub present: Option<bool>,
    /// `true`: it is not there.
    pub absent: Option<bool>,
}

/// gRPC calls: all parts must match.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
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
