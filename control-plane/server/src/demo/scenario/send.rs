//! Sends the demo's requests, and compares what happened with what had to.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use anyhow::{Context, Result};
use tidegate_engine::Outcome;

use super::explain::{Explainer, Explanation};
use super::rows::Row;
use crate::demo::client::{Answer, Call, Connection, Protocol};
use crate::demo::world::{HOST, Way, World};

/// What came of a request.
#[derive(Debug, Clone)]
pub struct Outcomes {
    /// `200`, `403`, or the gRPC status.
    pub status: String,
    /// Whether the application has answered.
    pub passed: bool,
    /// The reason: the filter's own words for a refusal, the control plane's evaluation for what passed.
    pub reason: String,
    /// The rule, likewise.
    pub rule: Option<String>,
    /// What Shadow rules would have decided.
    pub shadow: Option<String>,
    /// The decision's id, where the caller is told one.
    pub decision: Option<String>,
    /// From sending the request to the last byte of the answer.
    pub latency: Duration,
    /// What is not as it has to be; empty when all is.
    pub faults: Vec<String>,
}

/// A row with what came of it.
#[derive(Debug, Clone)]
pub struct Sent {
    /// The request.
    pub row: Row,
    /// What came of it.
    pub outcome: Outcomes,
}

/// What a filter tells a caller that it refuses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Told {
    reason: Option<String>,
    rule: Option<String>,
}

/// Sends all requests, one after the other, over connections that are open already.
pub async fn send_all(world: &World, rows: Vec<Row>) -> Result<Vec<Sent>> {
    let mut explainer = Explainer::new(world)?;
    let mut connections = open(world, &rows).await?;
    let mut sent = Vec::with_capacity(rows.len());
    for row in rows {
        let connection = connections.get_mut(&(row.way, row.protocol == Protocol::Http2));
        let connection = connection.with_context(|| format!("no connection for {:?}", row.way))?;
        let before = world.upstream.requests();
        let answer =
            connection.call(row.call.clone()).await.with_context(|| format!("{}: {}", row.who, row.what))?;
        let reached = world.upstream.requests() - before;
        let explanation = explainer.explain(row.way, world.service_port(row.way)?, &row.call)?;
        let outcome = judge(&row, &answer, reached, explanation);
        sent.push(Sent { row, outcome });
    }
    Ok(sent)
}

/// One connection per way and version of HTTP, each used once, so that the latencies are those of warm connections
/// all the way.
async fn open(world: &World, rows: &[Row]) -> Result<HashMap<(Way, bool), Connection>> {
    let mut connections = HashMap::new();
    for row in rows {
        let key = (row.way, row.protocol == Protocol::Http2);
        if let Entry::Vacant(vacant) = connections.entry(key) {
            let mut connection = world.endpoint(row.way)?.connect(row.protocol).await?;
            connection.call(Call::new(http::Method::GET, "/healthz").authority(HOST)).await?;
            vacant.insert(connection);
        }
    }
    Ok(connections)
}

fn judge(row: &Row, answer: &Answer, reached: u64, explanation: Explanation) -> Outcomes {
    let is_grpc = row.what.starts_with("gRPC");
    let passed = reached > 0;
    let told = if is_grpc { told_in_line(answer) } else { told_in_problem(answer) };
    let expected = row.expected;
    let status = match answer.grpc_status() {
        Some(status) if is_grpc => format!("gRPC {status}"),
        _ => answer.status.as_u16().to_string(),
    };
    let expected_status = match (expected.passes(), expected.reason.http_status(), is_grpc) {
        (true, _, false) => "200".to_owned(),
        (true, _, true) => "gRPC 0".to_owned(),
        (false, 401, true) => "gRPC 16".to_owned(),
        (false, _, true) => "gRPC 7".to_owned(),
        (false, status, false) => status.to_string(),
    };
    let reason = told.reason.clone().unwrap_or_else(|| explanation.reason.code().to_owned());
    let rule = told.rule.clone().or_else(|| explanation.rule.clone());
    let decision = answer.header("x-tidegate-decision").map(str::to_owned);

    let mut faults = Vec::new();
    let mut compare = |what: &str, is: &str, must_be: &str| {
        if is != must_be {
            faults.push(format!("{what} is {is}, must be {must_be}"));
        }
    };
    let none = "none";
    compare("status", &status, &expected_status);
    compare("requests at the application", &reached.to_string(), if expected.passes() { "1" } else { "0" });
    compare("reason", &reason, expected.reason.code());
    compare("rule", rule.as_deref().unwrap_or(none), expected.rule.unwrap_or(none));
    compare("Shadow rule", explanation.shadow.as_deref().unwrap_or(none), expected.shadow.unwrap_or(none));
    let evaluated = if explanation.outcome == Outcome::Allow { "pass" } else { "refusal" };
    compare("the control plane's evaluation", evaluated, if passed { "pass" } else { "refusal" });
    compare("the control plane's reason", explanation.reason.code(), &reason);
    if !expected.passes() {
        compare("decision id", if decision.is_some() { "there" } else { "missing" }, "there");
        compare("reason in the answer", told.reason.as_deref().unwrap_or(none), expected.reason.code());
        compare("rule in the answer", told.rule.as_deref().unwrap_or(none), expected.rule.unwrap_or(none));
    }
    Outcomes {
        status,
        passed,
        reason,
        rule,
        shadow: explanation.shadow,
        decision,
        latency: answer.latency,
        faults,
    }
}

/// A problem document (RFC 9457).
fn told_in_problem(answer: &Answer) -> Told {
    if answer.header("content-type") != Some("application/problem+json") {
        return Told::default();
    }
    let problem = answer.json().unwrap_or_default();
    let member = |name: &str| problem.get(name).and_then(|value| value.as_str()).map(str::to_owned);
    Told { reason: member("reason"), rule: member("rule") }
}

/// `a sentence; reason=… decision=… rule=…`
fn told_in_line(answer: &Answer) -> Told {
    let (_, members) = answer.grpc_message().and_then(|message| message.split_once("; ")).unwrap_or_default();
    let member = |name: &str| {
        let pairs = members.split(' ').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(known, _)| *known == name).map(|(_, value)| value.to_owned()).next()
    };
    Told { reason: member("reason"), rule: member("rule") }
}
