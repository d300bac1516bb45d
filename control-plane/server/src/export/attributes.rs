//! What attributes there are, by which names.
//!
//! Semantic conventions where OpenTelemetry has them (<https://opentelemetry.io/docs/specs/semconv/>), `tidegate.*`
//! otherwise. [`TABLE`] is what is documented; a test compares it with what is sent.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::decisions::record::{Difference, Gap, Recorded};
use crate::decisions::run::RunKind;

/// An attribute: name, whether it is a semantic convention, and what it says.
pub type Row = (&'static str, bool, &'static str);

/// Every attribute of records and spans.
pub const TABLE: [Row; 52] = [
    ("tidegate.decision.id", false, "the id that the caller saw; `tidegate explain ID`"),
    ("tidegate.decision.outcome", false, "`allow`, `deny`, `unspecified`"),
    ("tidegate.decision.reason", false, "stable reason code, e.g. `no_allow_matched`"),
    (
        "tidegate.decision.audit",
        false,
        "how completely it is to be recorded: `sampled`, `full`, `required`; absent where an older filter does not say",
    ),
    ("tidegate.decision.duration_ns", false, "what deciding took, in nanoseconds"),
    (
        "tidegate.decision.stands_for",
        false,
        "requests that the record stands for; 100 or more where a rule asks for samples (on average: they are drawn by \
         chance), and in a flood of refusals of callers that have proven nothing (no mesh peer, no verified token): beyond \
         100 of one reason in a second and filter, one record stands for 64",
    ),
    (
        "tidegate.decision.degraded",
        false,
        "allowed without the answer of a directory, because the rule says so",
    ),
    ("tidegate.decision.ended", false, "a stream that had been allowed was ended"),
    ("tidegate.decision.self_reported", false, "always true: it is what the filter says of itself"),
    ("tidegate.decision.time_refused", false, "the filter told an absurd time; the record's is when it came"),
    ("tidegate.workload", false, "verified `namespace/name` of the workload that decided"),
    ("tidegate.instance", false, "pod or process that decided, as it says"),
    ("tidegate.rule.name", false, "`namespace/name` of the rule that decided"),
    ("tidegate.rule.file", false, "its file below the rules folder"),
    ("tidegate.rule.line", false, "the line at which it begins"),
    (
        "tidegate.rule.commit",
        false,
        "the commit that changed the file last; of an object in a cluster, what its annotation says",
    ),
    ("tidegate.rule.author", false, "who wrote that commit, or as an annotation says"),
    ("tidegate.peer.id", false, "SPIFFE id of the mesh peer"),
    ("tidegate.identities", false, "who called, in every form that is known"),
    ("tidegate.issuers", false, "TrustedIssuers whose tokens were verified"),
    ("tidegate.claims", false, "claims that are marked safe: `issuer:claim=value`"),
    (
        "tidegate.run.kind",
        false,
        "what called: `gitlabPipeline`, `githubRun`, `pipelineRun`, `taskRun`, `dataflowJob`, …",
    ),
    ("tidegate.run.id", false, "its id at the system that ran it"),
    ("tidegate.run.issuer", false, "the TrustedIssuer that says so"),
    (
        "tidegate.run.source",
        false,
        "where kind and id are from: a `token`, the `name` of what called, or `labels` of its pod",
    ),
    ("tidegate.run.project", false, "repository, project or namespace that it belongs to"),
    ("tidegate.run.initiator", false, "who or what started it"),
    ("cicd.pipeline.run.id", true, "the same as `tidegate.run.id` where that is a pipeline's"),
    ("cicd.pipeline.task.run.id", true, "the job or TaskRun"),
    ("vcs.ref.head.name", true, "the branch or tag that the run is for"),
    ("vcs.ref.head.revision", true, "the commit that the run is for"),
    ("gen_ai.agent.id", true, "the agent that acts, where a token says so"),
    ("gen_ai.request.model", true, "the agent's model, where a token says so"),
    ("http.request.method", true, "as sent; gRPC is `POST`"),
    ("server.address", true, "the host that was asked for, without its port"),
    ("server.port", true, "the port that took it; absent where no rule depends on it"),
    ("url.path", true, "as sent, without its query"),
    ("tidegate.operation.service", false, "service of the catalogue, e.g. `pubsub`"),
    ("tidegate.operation.method", false, "its method, e.g. `projects.topics.publish`"),
    ("tidegate.operation.action", false, "`read`, `write`, `admin`, `launch`"),
    ("tidegate.resource.name", false, "to what: `projects/acme/topics/orders`"),
    ("tidegate.bundle.revision", false, "revision of the rules in force: `epoch.counter`"),
    ("tidegate.bundle.digest", false, "SHA-256 of its manifest"),
    ("tidegate.shadow.outcome", false, "what Shadow rules would have decided, where that differs"),
    ("tidegate.shadow.reason", false, "why"),
    ("tidegate.shadow.rule", false, "by which rule"),
    ("tidegate.candidate.outcome", false, "what the candidate rules would have decided, where that differs"),
    ("tidegate.candidate.reason", false, "why"),
    ("tidegate.candidate.rule", false, "by which rule"),
    ("tidegate.gap.cause", false, "why there are no records: `filter_dropped`, `batches_missing`, …"),
    ("tidegate.gap.lost", false, "how many are missing; absent where nobody knows"),
    ("tidegate.gap.lost_in_full", false, "how many of them were to be kept in any case"),
];

/// Attributes of a decision.
pub fn decision(recorded: &Recorded) -> Vec<KeyValue> {
    let mut all = Attributes::default();
    all.text("tidegate.decision.id", &recorded.id);
    all.text("tidegate.decision.outcome", recorded.outcome.word());
    all.text("tidegate.decision.reason", &recorded.reason);
    all.maybe("tidegate.decision.audit", recorded.audit.word());
    all.number("tidegate.decision.duration_ns", recorded.decided_in_ns);
    all.number("tidegate.decision.stands_for", u64::from(recorded.stands_for));
    all.flag("tidegate.decision.degraded", recorded.degraded);
    all.flag("tidegate.decision.ended", recorded.ended);
    all.flag("tidegate.decision.self_reported", recorded.self_reported);
    all.flag("tidegate.decision.time_refused", recorded.time_refused);
    all.text("tidegate.workload", &recorded.workload);
    all.text("tidegate.instance", &recorded.instance);
    if let Some(rule) = &recorded.rule {
        all.text("tidegate.rule.name", &rule.name);
        if let Some(source) = &rule.source {
            all.text("tidegate.rule.file", &source.file);
            all.number("tidegate.rule.line", u64::from(source.line));
            all.maybe("tidegate.rule.commit", source.commit.as_deref());
            all.maybe("tidegate.rule.author", source.author.as_deref());
        }
    }
    all.maybe("tidegate.peer.id", recorded.peer.as_deref());
    all.texts("tidegate.identities", recorded.identities.iter().cloned());
    all.texts("tidegate.issuers", recorded.issuers.iter().cloned());
    let claims = recorded.claims.iter().flat_map(|claim| {
        claim.values.iter().map(move |value| format!("{}:{}={value}", claim.issuer, claim.claim))
    });
    all.texts("tidegate.claims", claims);
    run(&mut all, recorded);
    request(&mut all, recorded);
    if let Some(revision) = recorded.revision {
        all.text("tidegate.bundle.revision", &format!("{}.{}", revision.epoch, revision.counter));
    }
    all.maybe("tidegate.bundle.digest", recorded.digest.as_deref());
    let names = ["tidegate.shadow.outcome", "tidegate.shadow.reason", "tidegate.shadow.rule"];
    difference(&mut all, names, recorded.shadow.as_ref());
    let names = ["tidegate.candidate.outcome", "tidegate.candidate.reason", "tidegate.candidate.rule"];
    difference(&mut all, names, recorded.candidate.as_ref());
    all.0
}

/// Attributes of a gap.
pub fn gap(gap: &Gap) -> Vec<KeyValue> {
    let mut all = Attributes::default();
    all.text("tidegate.workload", &gap.workload);
    all.text("tidegate.instance", &gap.instance);
    all.text("tidegate.gap.cause", gap.cause.word());
    if let Some(lost) = gap.lost {
        all.number("tidegate.gap.lost", lost);
    }
    if gap.lost_in_full > 0 {
        all.number("tidegate.gap.lost_in_full", gap.lost_in_full);
    }
    all.0
}

/// What sends: `service.*`, and what the configuration adds or replaces.
pub fn resource(configured: &[(String, String)]) -> Resource {
    let mut random = [0; 16];
    // Without randomness two servers look like one.
    let _ = aws_lc_rs::rand::fill(&mut random);
    let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut all = Attributes::default();
    let own = [
        ("service.name", "tidegate"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", id.as_str()),
    ];
    for (name, value) in own {
        if configured.iter().all(|(known, _)| known != name) {
            all.text(name, value);
        }
    }
    for (name, value) in configured {
        all.text(name, value);
    }
    Resource { attributes: all.0, ..Resource::default() }
}

/// What makes the records and figures.
pub fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "tidegate".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

/// One attribute with a text.
pub fn text(name: &str, value: &str) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(string(value.to_owned())), ..KeyValue::default() }
}

/// A text as a value.
pub fn string(value: String) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(value)) }
}

fn run(all: &mut Attributes, recorded: &Recorded) {
    let Some(run) = &recorded.run else { return };
    all.text("tidegate.run.kind", kind(run.kind));
    all.text("tidegate.run.id", &run.id);
    all.text("tidegate.run.issuer", &run.issuer);
    all.text("tidegate.run.source", run.source());
    all.maybe("tidegate.run.project", run.project.as_deref());
    all.maybe("tidegate.run.initiator", run.initiator.as_deref());
    match run.kind {
        RunKind::GitlabPipeline | RunKind::GithubRun | RunKind::PipelineRun => {
            all.text("cicd.pipeline.run.id", &run.id);
            all.maybe("cicd.pipeline.task.run.id", run.job.as_deref());
        }
        RunKind::TaskRun => all.text("cicd.pipeline.task.run.id", &run.id),
        RunKind::DataflowJob | RunKind::AwsSession | RunKind::Agent | RunKind::Workload => {}
    }
    all.maybe("vcs.ref.head.name", run.reference.as_deref());
    all.maybe("vcs.ref.head.revision", run.commit.as_deref());
    all.maybe("gen_ai.agent.id", run.agent.as_deref());
    all.maybe("gen_ai.request.model", run.model.as_deref());
}

fn request(all: &mut Attributes, recorded: &Recorded) {
    all.text("http.request.method", &recorded.method);
    all.text("server.address", host(&recorded.host));
    if let Some(port) = recorded.port {
        all.number("server.port", u64::from(port));
    }
    all.text("url.path", &recorded.path);
    if let Some(operation) = &recorded.operation {
        all.text("tidegate.operation.service", &operation.service);
        all.text("tidegate.operation.method", &operation.method);
        all.text("tidegate.operation.action", &operation.action);
    }
    all.maybe("tidegate.resource.name", recorded.resource.as_deref());
}

fn difference(all: &mut Attributes, names: [&'static str; 3], difference: Option<&Difference>) {
    let ([outcome, reason, rule], Some(difference)) = (names, difference) else { return };
    all.text(outcome, difference.outcome.word());
    all.text(reason, &difference.reason);
    all.maybe(rule, difference.rule.as_deref());
}

/// Without a port: `[::1]:80` and `a:80`, but not `::1`.
fn host(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port))
            if port.bytes().all(|byte| byte.is_ascii_digit())
                && (!host.contains(':') || host.ends_with(']')) =>
        {
            host
        }
        _ => authority,
    }
}

/// As JSON has it.
const fn kind(kind: RunKind) -> &'static str {
    match kind {
        RunKind::GitlabPipeline => "gitlabPipeline",
        RunKind::GithubRun => "githubRun",
        RunKind::PipelineRun => "pipelineRun",
        RunKind::TaskRun => "taskRun",
        RunKind::DataflowJob => "dataflowJob",
        RunKind::AwsSession => "awsSession",
        RunKind::Agent => "agent",
        RunKind::Workload => "workload",
    }
}

/// Attributes; what says nothing is left out.
#[derive(Default)]
struct Attributes(Vec<KeyValue>);

// === impl Attributes ===

impl Attributes {
    fn push(&mut self, name: &str, value: Value) {
        let value = Some(AnyValue { value: Some(value) });
        self.0.push(KeyValue { key: name.to_owned(), value, ..KeyValue::default() });
    }

    fn text(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.push(name, Value::StringValue(value.to_owned()));
        }
    }

    fn maybe(&mut self, name: &str, value: Option<&str>) {
        self.text(name, value.unwrap_or_default());
    }

    fn number(&mut self, name: &str, value: u64) {
        self.push(name, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)));
    }

    fn flag(&mut self, name: &str, value: bool) {
        if value {
            self.push(name, Value::BoolValue(true));
        }
    }

    fn texts(&mut self, name: &str, values: impl Iterator<Item = String>) {
        let values: Vec<AnyValue> = values.map(string).collect();
        if !values.is_empty() {
            self.push(name, Value::ArrayValue(ArrayValue { values }));
        }
    }
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::testing::recorded;
    use super::*;
    use crate::decisions::record::{GapCause, Moment};

    #[test]
    fn what_is_sent_is_what_is_documented() {
        let mut sent: BTreeSet<String> =
            decision(&recorded()).into_iter().map(|attribute| attribute.key).collect();
        let missing = Gap {
            time: Moment(0),
            workload: "sales/orders".to_owned(),
            instance: "pod".to_owned(),
            cause: GapCause::FilterDropped,
            lost: Some(3),
            lost_in_full: 1,
        };
        sent.extend(gap(&missing).into_iter().map(|attribute| attribute.key));
        let documented: BTreeSet<String> = TABLE.iter().map(|(name, ..)| (*name).to_owned()).collect();
        assert_eq!(sent, documented);
        assert_eq!(documented.len(), TABLE.len(), "a name is there twice");
        for (name, is_convention, _) in TABLE {
            assert_eq!(is_convention, !name.starts_with("tidegate."), "{name}");
            // A name is no namespace of another one (naming rules of the semantic conventions).
            let inside = format!("{name}.");
            assert!(!TABLE.iter().any(|(other, ..)| other.starts_with(&inside)), "{name}");
        }
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let mut recorded = recorded();
        (recorded.rule, recorded.run, recorded.peer) = (None, None, None);
        (recorded.shadow, recorded.candidate, recorded.degraded) = (None, None, false);
        recorded.instance.clear();
        let names: Vec<String> = decision(&recorded).into_iter().map(|attribute| attribute.key).collect();
        for absent in ["rule", "run", "peer", "shadow", "degraded", "instance"] {
            assert!(!names.iter().any(|name| name.contains(absent)), "{absent}: {names:?}");
        }
    }

    #[test]
    fn hosts_are_without_ports() {
        for (authority, expected) in [
            ("orders.example:8443", "orders.example"),
            ("orders.example", "orders.example"),
            ("[::1]:80", "[::1]"),
            ("::1", "::1"),
            ("a:b", "a:b"),
        ] {
            assert_eq!(host(authority), expected, "{authority}");
        }
    }

    #[test]
    fn the_configuration_names_the_service() {
        let configured =
            [("service.name".to_owned(), "gate".to_owned()), ("env".to_owned(), "prod".to_owned())];
        let names: Vec<(String, String)> = resource(&configured)
            .attributes
            .into_iter()
            .map(|attribute| {
                let Some(Value::StringValue(value)) = attribute.value.and_then(|value| value.value) else {
                    panic!("{}", attribute.key)
                };
                (attribute.key, value)
            })
            .collect();
        assert!(names.contains(&configured[0]) && names.contains(&configured[1]), "{names:?}");
        assert_eq!(names.iter().filter(|(name, _)| name == "service.name").count(), 1);
        assert!(names.iter().any(|(name, value)| name == "service.instance.id" && value.len() == 32));
    }
}
