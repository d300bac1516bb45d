//! Runs RuleTests: each request is decided by the engine on the very section that a filter would get, and explained where
//! the decision is not what was expected.
//!
//! INVARIANT: what a test says is what a filter would do, given that the tokens verify. Where the explanation and the
//! engine disagree the test fails, whatever was expected.

mod coverage;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;

use serde::Serialize;
use tidegate_compiler::explain::{Check, Explanation, InvalidQuestion, Prepared, Subject, Verdict, explain};
use tidegate_compiler::{Compiled, Expectation, RuleTest, RuleTests};
use tidegate_engine::{Outcome, PolicySet, decide};

use crate::explain::report::{Decided, NearestReport, RuleReport, outcome};

pub use coverage::{ConditionKind, Count, Coverage, Gap, Part, Point, RuleCoverage};

/// What came of all tests.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// How many were as expected.
    pub passed: usize,
    /// How many were not.
    pub failed: usize,
    /// One by one.
    pub tests: Vec<TestReport>,
    /// What of the rules was tested.
    pub coverage: Coverage,
    /// Where a candidate decides otherwise; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Vec<CandidateReport>>,
}

/// A test whose request a candidate decides otherwise, or of which it cannot be asked.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CandidateReport {
    /// Name of the RuleTest.
    pub suite: String,
    /// Name of the test.
    pub name: String,
    /// Relative to the rules folder.
    pub file: String,
    /// Counted from 1.
    pub line: u32,
    /// What the rules decide.
    pub rules: Decided,
    /// What the candidate decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Decided>,
    /// Why it cannot be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What came of one test.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TestReport {
    /// Name of the RuleTest.
    pub suite: String,
    /// Name of the test.
    pub name: String,
    /// Relative to the rules folder.
    pub file: String,
    /// Counted from 1.
    pub line: u32,
    /// Whether all that was expected is so.
    pub passed: bool,
    /// What was expected.
    pub expected: Expected,
    /// What was decided; absent if it could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual: Option<Decided>,
    /// Why it could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Where no rule decides, and that was not expected: the rule that lacks least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<NearestReport>,
    /// The rule that decides otherwise than was expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleReport>,
    /// Issuers of tokens that no rule of the workload names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignored_tokens: Vec<String>,
}

/// What was expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Expected {
    /// `Allow` or `Deny`.
    #[serde(serialize_with = "outcome")]
    pub decision: Outcome,
    /// A reason code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// A rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What Shadow rules and Guards would decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ExpectedShadow>,
}

/// What Shadow rules and Guards were expected to decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExpectedShadow {
    /// `Allow` or `Deny`.
    #[serde(serialize_with = "outcome")]
    pub decision: Outcome,
    /// A rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// Runs tests. `now`: Unix seconds, for those that do not say when.
pub fn run(compiled: &Compiled, tests: &RuleTests, now: i64) -> Report {
    let mut runner =
        Runner { compiled, now, decoded: BTreeMap::new(), coverage: coverage::Recorder::default() };
    let reports: Vec<TestReport> = tests.tests.iter().map(|test| runner.test(test)).collect();
    let passed = reports.iter().filter(|report| report.passed).count();
    Report {
        passed,
        failed: reports.len() - passed,
        tests: reports,
        coverage: runner.coverage.finish(compiled, tests),
        candidate: None,
    }
}

/// Asks a candidate the same, and notes where something else happens to the request.
pub fn compare(report: &mut Report, candidate: &Compiled, tests: &RuleTests, now: i64) {
    let theirs = run(candidate, tests, now);
    let both = report.tests.iter().zip(theirs.tests);
    let differences = both.filter_map(|(ours, theirs)| {
        let rules = ours.actual.clone()?;
        let same = theirs.actual.as_ref().is_some_and(|actual| actual.decision == rules.decision);
        (!same).then(|| CandidateReport {
            suite: ours.suite.clone(),
            name: ours.name.clone(),
            file: ours.file.clone(),
            line: ours.line,
            rules,
            candidate: theirs.actual,
            error: theirs.error,
        })
    });
    report.candidate = Some(differences.collect());
}

struct Runner<'a> {
    compiled: &'a Compiled,
    now: i64,
    decoded: BTreeMap<String, PolicySet>,
    coverage: coverage::Recorder,
}

// === impl Runner ===

impl Runner<'_> {
    fn test(&mut self, test: &RuleTest) -> TestReport {
        let mut report = TestReport {
            suite: test.suite.clone(),
            name: test.name.clone(),
            file: test.file.clone(),
            line: test.line,
            passed: false,
            expected: Expected::from(&test.expected),
            actual: None,
            error: None,
            nearest: None,
            rule: None,
            ignored_tokens: Vec::new(),
        };
        match self.decide(test, &mut report) {
            Ok(()) => report,
            Err(error) => TestReport { error: Some(words(&error)), ..report },
        }
    }

    fn decide(&mut self, test: &RuleTest, report: &mut TestReport) -> Result<(), InvalidQuestion> {
        let prepared = Prepared::new(self.compiled, &test.question, self.now)?;
        let workload = test.question.workload.to_string();
        if !self.decoded.contains_key(&workload) {
            self.decoded.insert(workload.clone(), prepared.decoded()?);
        }
        let Some(policy) = self.decoded.get(&workload) else { return Ok(()) };
        let model = &prepared.policy.model;
        let (decision, explanation) =
            prepared.with(|request| (decide(policy, request), explain(model, request)));
        let rule = |ix: Option<tidegate_engine::RuleIx>| {
            ix.and_then(|ix| policy.rule(ix)).map(|rule| rule.id.to_owned())
        };
        let enforced =
            Verdict { outcome: decision.outcome, reason: decision.reason, rule: rule(decision.rule) };
        let shadow = decision.shadow.map(|shadow| Verdict {
            outcome: shadow.outcome,
            reason: shadow.reason,
            rule: rule(shadow.rule),
        });
        let agrees = explanation.enforced == enforced && explanation.shadow == shadow;
        if !agrees {
            let defect =
                format!("the engine decides {enforced:?}, its explanation {:?}", explanation.enforced);
            return Err(InvalidQuestion::Defect(defect));
        }
        self.coverage.note(&explanation);
        let actual = Decided::new(&explanation);
        report.passed = is_as_expected(&test.expected, &explanation);
        if !report.passed {
            report.rule = RuleReport::deciding(&explanation);
            report.nearest = NearestReport::of(&explanation);
        }
        report.ignored_tokens = prepared.ignored;
        report.actual = Some(actual);
        Ok(())
    }
}

/// "What is absent may be anything."
fn is_as_expected(expected: &Expectation, explanation: &Explanation) -> bool {
    let Explanation { enforced, shadow, .. } = explanation;
    // Without a difference, Shadow decides what is enforced.
    let candidate = shadow.as_ref().unwrap_or(enforced);
    expected.outcome == enforced.outcome
        && expected.reason.is_none_or(|reason| reason == enforced.reason)
        && (expected.rule.is_none() || expected.rule == enforced.rule)
        && expected.shadow.as_ref().is_none_or(|(outcome, rule)| {
            *outcome == candidate.outcome && (rule.is_none() || *rule == candidate.rule)
        })
}

/// Why a question cannot be asked, in words.
pub fn words(error: &InvalidQuestion) -> String {
    match error {
        InvalidQuestion::Workload(id) => format!("there is no workload `{id}`"),
        InvalidQuestion::Issuer(name) => format!("there is no TrustedIssuer `{name}`"),
        InvalidQuestion::TwoTokens(name) => {
            format!("two tokens of `{name}`: a filter refuses that as `token_several`; leave one out")
        }
        InvalidQuestion::Claims(name) => {
            format!(
                "the claims of the token of `{name}` are none: `exp` must be a whole number, and there may not be too many"
            )
        }
        InvalidQuestion::Defect(why) => format!("a defect of Tidegate, please report it: {why}"),
    }
}

// === impl From for what was expected ===

impl From<&Expectation> for Expected {
    fn from(expected: &Expectation) -> Self {
        Self {
            decision: expected.outcome,
            reason: expected.reason.map(|reason| reason.code()),
            rule: expected.rule.clone(),
            shadow: expected
                .shadow
                .as_ref()
                .map(|(decision, rule)| ExpectedShadow { decision: *decision, rule: rule.clone() }),
        }
    }
}

/// Whether a demand is one that coverage counts by itself: what a token or the request says. Parts of a group are not.
fn is_claim_test(check: &Check) -> bool {
    check.subject == Subject::Condition && check.depth == 0
}
