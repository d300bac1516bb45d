//! Records for tests.

use super::record::{Audit, Claim, Moment, Outcome, Recorded, Revision};
use super::run::{Run, RunKind};

/// A record with everything that most have.
pub fn recorded(id: &str, outcome: Outcome, at: i64) -> Recorded {
    let peer = "spiffe://prod.example/ns/etl/sa/orders-worker";
    Recorded {
        id: id.to_owned(),
        time: Moment(at),
        time_refused: false,
        workload: "sales/orders".to_owned(),
        instance: "orders-7d9f".to_owned(),
        outcome,
        audit: Audit::Unsaid,
        reason: if outcome == Outcome::Deny { "no_allow_matched" } else { "allowed_by_rule" }.to_owned(),
        rule: None,
        peer: Some(peer.to_owned()),
        identities: vec![peer.to_owned(), "gitlab:project_path=acme/etl".to_owned()],
        issuers: vec!["gitlab".to_owned()],
        claims: vec![Claim {
            issuer: "gitlab".to_owned(),
            claim: "project_path".to_owned(),
            values: vec!["acme/etl".to_owned()],
        }],
        run: Some(Run {
            kind: RunKind::GitlabPipeline,
            id: "91".to_owned(),
            issuer: "gitlab".to_owned(),
            guessed: false,
            by_labels: false,
            attempt: None,
            job: Some("7".to_owned()),
            project: Some("acme/etl".to_owned()),
            commit: Some("3f2a".to_owned()),
            reference: Some("main".to_owned()),
            initiator: Some("dana".to_owned()),
            agent: None,
            model: None,
        }),
        method: "POST".to_owned(),
        host: "orders.sales.example".to_owned(),
        path: "/v1/orders/7".to_owned(),
        port: Some(8080),
        operation: None,
        resource: None,
        revision: Some(Revision { epoch: 1, counter: 418 }),
        digest: Some("ab".repeat(32)),
        trace_id: None,
        span_id: None,
        trace_flags: None,
        decided_in_ns: 1_900,
        shadow: None,
        candidate: None,
        degraded: false,
        ended: false,
        stands_for: 1,
        self_reported: true,
    }
}
