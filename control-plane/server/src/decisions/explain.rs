//! Why something was decided, from its record: the nearest rule and what of it did not hold, by the rules that decided.
//!
//! Three-valued: what the record does not say (a claim that is not safe to keep, a header, a body) is unknown.

use serde::{Deserialize, Serialize};
use tidegate_compiler::explain::{AskedToken, MeshPeer, Prepared, Question, explain, nearest};
use tidegate_compiler::spec::ClaimJson;
use tidegate_compiler::{Compiled, TrustedIssuer, WorkloadId};
use tidegate_engine::Outcome as Decided;

use super::read::Known;
use super::record::{Outcome, Recorded, RuleSource};
use super::rules::Rules;
use crate::explain::report::{ConditionReport, NearestReport, RuleReport};
use crate::explain::request::blank;

/// An answer to "why?".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explained {
    /// What was decided.
    pub decision: Recorded,
    /// Which rules this explanation is by.
    pub rules: RulesUsed,
    /// The rule that decided, demand by demand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleReport>,
    /// Where nothing allowed the request: the rule that lacked least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest: Option<NearestReport>,
    /// Where that is written now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest_source: Option<RuleSource>,
    /// What is worth knowing besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// By which rules something is explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RulesUsed {
    /// Those that decided.
    Deciding,
    /// Those of now; the others are not kept any more.
    Current,
    /// None.
    None,
}

/// What a demand speaks of that no record has.
const UNRECORDED: [&str; 3] = ["request.headers[", "request.query[", "request.body["];

/// Explains a decision.
pub(crate) fn explained(decision: Recorded, rules: Option<&Rules>, known: &Known) -> Explained {
    let used = match rules {
        None => RulesUsed::None,
        Some(rules) if rules.decided => RulesUsed::Deciding,
        Some(_) => RulesUsed::Current,
    };
    let mut answer = Explained {
        decision,
        rules: used,
        rule: None,
        nearest: None,
        nearest_source: None,
        notes: Vec::new(),
    };
    if let Some(rules) = rules {
        by_rules(&mut answer, &rules.in_force.compiled);
    }
    let source = |name: &str| known.rules.get(name).map(|source| RuleSource::clone(source));
    answer.nearest_source = answer.nearest.as_ref().and_then(|nearest| source(&nearest.rule));
    if answer.decision.time_refused {
        answer.notes.push("the filter told an absurd time; what is shown is when the record came".to_owned());
    }
    if answer.decision.stands_for > 1 {
        let others = answer.decision.stands_for - 1;
        let why = match answer.decision.outcome {
            Outcome::Deny => "who sent them has proven nothing, and they were many",
            Outcome::Allow | Outcome::Unknown => "its rule asks for samples",
        };
        answer.notes.push(format!("it stands for {others} more requests that were decided alike: {why}"));
    }
    answer
}

fn by_rules(answer: &mut Explained, compiled: &Compiled) {
    let recorded = &answer.decision;
    let is_about_rules = matches!(
        recorded.reason.as_str(),
        "no_allow_matched" | "token_required" | "denied_by_rule" | "allowed_by_rule" | "body_unread"
    );
    // What is wrong with a token or a request itself rests on no rule.
    if !is_about_rules {
        return;
    }
    let Some(question) = question(recorded, compiled) else {
        answer
            .notes
            .push("the rules do not know the workload, so there is nothing to compare with".to_owned());
        return;
    };
    let prepared = match Prepared::new(compiled, &question, recorded.time.seconds()) {
        Ok(prepared) => prepared,
        Err(why) => {
            answer.notes.push(format!("it cannot be decided again: {}", crate::ruletest::words(&why)));
            return;
        }
    };
    let explanation = prepared.with(|request| explain(&prepared.policy.model, request));
    let named = |id: &str| explanation.rules.iter().find(|rule| rule.rule == id).map(RuleReport::from);
    answer.rule = recorded.rule_name().and_then(named);
    if recorded.outcome == Outcome::Deny && recorded.rule.is_none() {
        // What is unknown may have let an Allow in; what was decided is known.
        answer.nearest = nearest(&explanation).map(|found| NearestReport::from(&found));
    }
    let again = match explanation.enforced.outcome {
        Decided::Allow => Outcome::Allow,
        Decided::Deny => Outcome::Deny,
    };
    if again != recorded.outcome && answer.rules == RulesUsed::Current {
        let word = if again == Outcome::Allow { "allow" } else { "refuse" };
        answer
            .notes
            .push(format!("the rules of now would {word} it, as far as the record says what they read"));
    }
    let conditions = answer.nearest.iter_mut().flat_map(|one| &mut one.conditions);
    let conditions = conditions.chain(answer.rule.iter_mut().flat_map(|one| &mut one.conditions));
    let mut unrecorded = false;
    for condition in conditions {
        unrecorded |= leave_open(condition);
    }
    if unrecorded {
        answer.notes.push(
            "headers, queries, bodies and claims that are not marked safe are in no record: what rests on them is open"
                .to_owned(),
        );
    }
    if let Some(nearest) = &mut answer.nearest {
        let own = || nearest.conditions.iter().filter(|one| one.depth == 0);
        let held = own().filter(|one| one.holds == "yes").count();
        nearest.held = held;
    }
}

/// What rests on something that no record has is unknown. Says whether anything is.
fn leave_open(condition: &mut ConditionReport) -> bool {
    if UNRECORDED.iter().any(|word| condition.demand.contains(word)) && condition.holds != "notReached" {
        condition.holds = "unknown";
        condition.actual = Some("not recorded".to_owned());
    } else if condition.holds == "unknown" {
        condition.actual = Some("not recorded".to_owned());
    }
    condition.holds == "unknown"
}

/// The request, as far as the record says what it was.
fn question(recorded: &Recorded, compiled: &Compiled) -> Option<Question> {
    let (namespace, name) = recorded.workload.split_once('/')?;
    let workload = WorkloadId { namespace: namespace.to_owned(), name: name.to_owned() };
    let peer = recorded.peer.as_deref().and_then(MeshPeer::parse);
    let policy = compiled.workloads.get(&workload)?;
    let issuers = compiled.issuers.iter().filter(|issuer| recorded.issuers.contains(&issuer.name));
    let slots = |issuer: &TrustedIssuer| {
        let model = policy.model.issuers.iter().find(|model| model.name == issuer.name);
        model.map_or(&[][..], |model| model.slots.as_slice())
    };
    let is_grpc = recorded.method == "POST" && is_grpc_path(&recorded.path);
    let headers = is_grpc.then(|| ("content-type".to_owned(), "application/grpc".to_owned()));
    Some(Question {
        peer,
        tokens: issuers.map(|issuer| token(recorded, issuer, slots(issuer))).collect(),
        method: recorded.method.clone(),
        host: Some(recorded.host.clone()),
        path: recorded.path.clone(),
        headers: headers.into_iter().collect(),
        port: recorded.port,
        time: Some(recorded.time.seconds()),
        ..blank(workload)
    })
}

/// `/package.Service/Method`: what only gRPC calls look like.
fn is_grpc_path(path: &str) -> bool {
    let mut parts = path.strip_prefix('/').unwrap_or_default().split('/');
    let (service, method, rest) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    service.contains('.') && method.is_some_and(|method| !method.is_empty()) && rest.is_none()
}

/// `slots`: the claims that rules read.
fn token(recorded: &Recorded, issuer: &TrustedIssuer, slots: &[Vec<String>]) -> AskedToken {
    let mut token = AskedToken { issuer: issuer.name.clone(), partial: true, ..AskedToken::default() };
    for claim in recorded.claims.iter().filter(|claim| claim.issuer == issuer.name) {
        // The record joins names by dots, and some names have dots themselves: whoever reads the claim knows which.
        let read = slots.iter().find(|path| path.join(".") == claim.claim).cloned();
        let path = read.unwrap_or_else(|| claim.claim.split('.').map(str::to_owned).collect());
        token.set_at(&path, value(issuer, &path, &claim.values));
    }
    token
}

fn value(issuer: &TrustedIssuer, path: &[String], values: &[String]) -> ClaimJson {
    use tidegate_identity::pack::ClaimKind as K;
    let list = || ClaimJson::List(values.iter().cloned().map(ClaimJson::String).collect());
    let [only] = values else { return list() };
    let text = || ClaimJson::String(only.clone());
    let derived = path.first().and_then(|name| issuer.pack.derived(name)).map(|spec| spec.kind);
    match issuer.pack.claim(path).map(|spec| spec.kind).or(derived) {
        Some(K::Strings) => list(),
        Some(K::Integer) => only.parse().map_or_else(|_| text(), ClaimJson::Integer),
        Some(K::Boolean) => only.parse().map_or_else(|_| text(), ClaimJson::Boolean),
        _ => text(),
    }
}

#[cfg(test)]
mod tests;
