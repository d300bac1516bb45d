//! Which rules were decisive in tests, and which of their conditions were seen both ways.
//!
//! A condition counts as seen only where it mattered: an entry of `from` where the operation matched, an operation where
//! the caller matched, a claim where its entry's peer and tokens were there and the operation matched.

use std::collections::BTreeMap;

use serde::Serialize;
use tidegate_compiler::explain::{Check, Explanation, PartTrace, RuleTrace, Subject, describe_peer, trace};
use tidegate_compiler::{Compiled, RuleTests, rule_object};
use tidegate_engine::model::PeerModel;
use tidegate_engine::{Directories, HeaderFacts, Peer, Request, Truth, normal};

use super::is_claim_test;

/// What of the rules was tested.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Coverage {
    /// Rules that matched in at least one test.
    pub rules: Count,
    /// Conditions that were seen true, and those that were seen false.
    pub conditions: Count,
    /// Rule by rule, in the order of their ids.
    pub by_rule: Vec<RuleCoverage>,
}

/// So many of so many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Seen.
    pub covered: usize,
    /// All.
    pub total: usize,
}

/// What of a rule was tested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleCoverage {
    /// `namespace/name`.
    pub rule: String,
    /// Where it is written.
    pub file: String,
    /// Counted from 1.
    pub line: u32,
    /// Whether it matched in at least one test.
    pub matched: bool,
    /// Its conditions.
    pub conditions: Vec<Point>,
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Point {
    /// What it is about.
    pub kind: ConditionKind,
    /// What must hold.
    pub demand: String,
    /// Whether a test saw it hold.
    pub seen_true: bool,
    /// Whether a test saw it not hold.
    pub seen_false: bool,
    /// Whether it can be false at all.
    pub can_be_false: bool,
    /// Of an operation what must hold besides method, host and path, as of a launch its template, its region and its account. Shown
    /// beside the operation, which counts as a whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
}

/// A part of a condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// What must hold.
    pub demand: String,
    /// Whether a test saw it hold.
    pub seen_true: bool,
    /// Whether a test saw it not hold.
    pub seen_false: bool,
}

/// What no test has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// In one line.
    pub text: String,
    /// What it is made of and was not seen both ways, each in a line of its own; what never held first.
    pub parts: Vec<String>,
}

/// What a condition is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ConditionKind {
    /// An entry of `from`.
    From,
    /// What a token or the request says.
    When,
    /// An operation.
    To,
}

/// Collects what tests see.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    rules: BTreeMap<String, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    matched: bool,
    points: Vec<Point>,
}

// === impl Recorder ===

impl Recorder {
    /// Notes what a request shows of every rule of its workload.
    pub(super) fn note(&mut self, explanation: &Explanation) {
        for rule in &explanation.rules {
            let seen = self.rules.entry(rule.rule.clone()).or_default();
            seen.matched |= rule.matches();
            seen.note(rule, true);
        }
    }

    /// All rules, those that no test came near included.
    pub(super) fn finish(mut self, compiled: &Compiled, tests: &RuleTests) -> Coverage {
        for model in compiled.workloads.values().map(|workload| &workload.model) {
            for rule in &model.rules {
                if !self.rules.contains_key(&rule.id) {
                    let seen = self.rules.entry(rule.id.clone()).or_default();
                    with_nothing(|request| seen.note(&trace(model, rule, request), false));
                }
            }
        }
        let mut coverage = Coverage::default();
        for (id, seen) in self.rules {
            let (file, line) = tests.origins.get(&rule_object(&id)).cloned().unwrap_or_default();
            coverage.rules.total += 1;
            coverage.rules.covered += usize::from(seen.matched);
            for point in &seen.points {
                coverage.conditions.total += 1 + usize::from(point.can_be_false);
                coverage.conditions.covered +=
                    usize::from(point.seen_true) + usize::from(point.can_be_false && point.seen_false);
            }
            coverage.by_rule.push(RuleCoverage {
                rule: id,
                file,
                line,
                matched: seen.matched,
                conditions: seen.points,
            });
        }
        coverage
    }
}

/// Calls `with` with a request that nobody sent.
fn with_nothing<T>(with: impl FnOnce(&Request<'_>) -> T) -> T {
    let path = normal::path(b"/");
    with(&Request {
        now: 0,
        expiry_grace_s: 0,
        port: 0,
        method: b"",
        host: None,
        path: &path,
        query: &[],
        fields: &[],
        body: tidegate_engine::Body::Unread,
        headers: HeaderFacts::default(),
        peer: Peer::Absent,
        tokens: &[],
        directories: &Directories::default(),
    })
}

// === impl Seen ===

impl Seen {
    /// `counts`: whether it is a test that the rule was held against.
    fn note(&mut self, rule: &RuleTrace, counts: bool) {
        let any = |parts: &[PartTrace]| parts.iter().any(|part| part.holds == Truth::True);
        let called = counts && (rule.to.is_empty() || any(&rule.to));
        let is_caller = counts && any(&rule.from);
        let anyone = describe_peer(&PeerModel::Anyone);
        for entry in &rule.from {
            let can_be_false = entry.title != anyone;
            self.see(ConditionKind::From, &entry.title, entry.holds, called, can_be_false);
            for check in entry.checks.iter().filter(|check| is_claim_test(check)) {
                self.see(ConditionKind::When, &check.demand, check.holds, called && check.reached, true);
            }
        }
        for operation in &rule.to {
            let (parts, others): (Vec<&Check>, Vec<&Check>) =
                operation.checks.iter().partition(|check| check.subject == Subject::Condition);
            let called = others.iter().all(|check| check.holds == Truth::True);
            let point = self.see(ConditionKind::To, &operation.title, operation.holds, is_caller, true);
            let Some(point) = point else { continue };
            for check in parts.into_iter().filter(|check| is_claim_test(check)) {
                point.part(&check.demand, check.holds, is_caller && called);
            }
        }
    }

    fn see(
        &mut self,
        kind: ConditionKind,
        demand: &str,
        holds: Truth,
        matters: bool,
        can_be_false: bool,
    ) -> Option<&mut Point> {
        let at = self.points.iter().position(|point| point.kind == kind && point.demand == demand);
        let at = at.unwrap_or_else(|| {
            let demand = demand.to_owned();
            let (seen_true, seen_false, parts) = (false, false, Vec::new());
            self.points.push(Point { kind, demand, seen_true, seen_false, can_be_false, parts });
            self.points.len() - 1
        });
        let point = self.points.get_mut(at)?;
        point.seen_true |= matters && holds == Truth::True;
        point.seen_false |= matters && holds == Truth::False;
        Some(point)
    }
}

// === impl Point ===

impl Point {
    fn part(&mut self, demand: &str, holds: Truth, matters: bool) {
        let at = self.parts.iter().position(|part| part.demand == demand).unwrap_or_else(|| {
            self.parts.push(Part { demand: demand.to_owned(), seen_true: false, seen_false: false });
            self.parts.len() - 1
        });
        if let Some(part) = self.parts.get_mut(at) {
            part.seen_true |= matters && holds == Truth::True;
            part.seen_false |= matters && holds == Truth::False;
        }
    }

    /// What of it no test has seen.
    fn gap(&self) -> Option<Gap> {
        let never = match (self.seen_true, self.seen_false || !self.can_be_false) {
            (true, true) => return None,
            (true, false) => "never false",
            (false, true) => "never true",
            (false, false) => "never seen",
        };
        if self.parts.len() < 2 {
            return Some(Gap { text: format!("{never}: {}", self.demand), parts: Vec::new() });
        }
        // The parts say what comes then.
        let operation = self.demand.split(" where ").next().unwrap_or_default();
        // What never held is why the operation did not; what held and did not is no gap.
        let lacking = self.parts.iter().filter(|part| !part.seen_true);
        let others = self.parts.iter().filter(|part| part.seen_true && !part.seen_false);
        let lacking = lacking.map(|part| {
            let never = if part.seen_false { "never true" } else { "never seen" };
            format!("{never}: {}", part.demand)
        });
        let parts = lacking.chain(others.map(|part| format!("never false: {}", part.demand))).collect();
        Some(Gap { text: format!("{never}: {operation} where all of these hold"), parts })
    }
}

// === impl Count ===

impl Count {
    /// In percent, rounded down, so that only all is 100.
    pub fn percent(self) -> usize {
        (self.covered * 100).checked_div(self.total).unwrap_or(100)
    }
}

// === impl RuleCoverage ===

impl RuleCoverage {
    /// What no test has seen, in words.
    pub fn gaps(&self) -> Vec<Gap> {
        if !self.conditions.iter().any(|point| point.seen_true || point.seen_false) {
            return vec![Gap { text: "no test comes near it".to_owned(), parts: Vec::new() }];
        }
        self.conditions.iter().filter_map(Point::gap).collect()
    }
}
