//! A record that has everything.

use crate::decisions::record::{
    Audit, Claim, Difference, Moment, Operation, Outcome, Recorded, Revision, RuleRef, RuleSource,
};
use crate::decisions::run::{Run, RunKind};

/// A refusal about which everything is known.
pub(crate) fn recorded() -> Recorded {
    let some = |text: &str| Some(text.to_owned());
    let difference = |rule: &str| Difference {
        outcome: Outcome::Allow,
        reason: "allowed_by_rule".to_owned(),
        rule: some(rule),
    };
    Recorded {
        id: "7Q4K-M2XD-0001".to_owned(),
        time: Moment(1_795_203_600_000_000),
        time_refused: true,
        workload: "sales/orders".to_owned(),
        instance: "orders-7d9f".to_owned(),
        outcome: Outcome::Deny,
        audit: Audit::Full,
        reason: "denied_by_rule".to_owned(),
        rule: Some(RuleRef {
            name: "sales/no-launches".to_owned(),
            source: Some(RuleSource {
                file: "sales/rules.yaml".to_owned(),
                line: 12,
                commit: some("0123abcd"),
                author: some("Ada"),
                committed: None,
                by_annotations: false,
            }),
        }),
        peer: some("spiffe://prod.example/ns/etl/sa/worker"),
        identities: vec!["spiffe://prod.example/ns/etl/sa/worker".to_owned()],
        issuers: vec!["gitlab".to_owned()],
        claims: vec![Claim {
            issuer: "gitlab".to_owned(),
            claim: "ref".to_owned(),
            values: vec!["main".to_owned()],
        }],
        run: Some(Run {
            kind: RunKind::GitlabPipeline,
            id: "4711".to_owned(),
            issuer: "gitlab".to_owned(),
            guessed: false,
            by_labels: false,
            attempt: None,
            job: some("12"),
            project: some("acme/orders"),
            commit: some("beef"),
            reference: some("main"),
            initiator: some("ada"),
            agent: some("agent-7"),
            model: some("large"),
        }),
        method: "POST".to_owned(),
        host: "pubsub.googleapis.com:443".to_owned(),
        path: "/v1/projects/acme/topics/orders:publish".to_owned(),
        port: Some(8443),
        operation: Some(Operation {
            service: "pubsub".to_owned(),
            method: "projects.topics.publish".to_owned(),
            action: "write".to_owned(),
            permissions: vec!["pubsub.topics.publish".to_owned()],
        }),
        resource: some("projects/acme/topics/orders"),
        revision: Some(Revision { epoch: 3, counter: 41 }),
        digest: some("9f3c"),
        trace_id: some("4bf92f3577b34da6a3ce929d0e0e4736"),
        span_id: some("00f067aa0ba902b7"),
        trace_flags: Some(1),
        decided_in_ns: 42_000,
        shadow: Some(difference("sales/shadow")),
        candidate: Some(difference("sales/candidate")),
        degraded: true,
        ended: true,
        stands_for: 1,
        self_reported: true,
    }
}
