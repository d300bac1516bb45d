//! Who can do something, and what somebody can do: the compiled rules, read in both directions.
//!
//! Nothing is decided here: every entry that could matter is listed with what it demands, Denies included, so that nobody
//! is overlooked. `tidegate explain` decides one request.

use std::collections::BTreeSet;

use serde::Serialize;
use tidegate_compiler::explain::{
    InvalidQuestion, MeshPeer, Prepared, Question, Verdict, describe_condition, describe_operation,
    describe_peer, explain, trace,
};
use tidegate_compiler::{Compiled, WorkloadId};
use tidegate_engine::model::{Condition, FromModel, Mode, PeerModel, PolicyModel, RuleModel};
use tidegate_engine::{Ambiguity, Peer, Reason, Truth, reference};

use super::report::effect_word;

/// An entry of a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// Where it applies.
    pub workload: String,
    /// `Allow` or `Deny`.
    pub effect: &'static str,
    /// Whether it is enforced, and not only reported.
    pub enforced: bool,
    /// Who is let in or refused, as a peer.
    pub caller: String,
    /// What is demanded of tokens and of the request besides.
    pub with: Vec<String>,
    /// What may be called, or may not.
    pub operations: Vec<String>,
    /// `namespace/name`.
    pub rule: String,
}

/// Who can send a request to a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WhoCan {
    /// Where it arrives.
    pub workload: String,
    /// Whether anybody is refused at all.
    pub guarded: bool,
    /// Why nobody can, whatever rules say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<&'static str>,
    /// Entries of rules whose operations match.
    pub grants: Vec<Grant>,
}

/// Who can send this request to its workload. Peer and tokens of the question are not looked at.
///
/// # Errors
/// When it cannot be asked.
pub fn who_can(compiled: &Compiled, question: &Question, now: i64) -> Result<WhoCan, InvalidQuestion> {
    let nobody = Question { peer: None, tokens: Vec::new(), ..question.clone() };
    // The same as a gRPC call: rules for those demand its content type.
    let mut call = nobody.clone();
    call.headers.retain(|(name, _)| name != "content-type");
    call.headers.push(("content-type".to_owned(), "application/grpc".to_owned()));
    let (plain, call) = (Prepared::new(compiled, &nobody, now)?, Prepared::new(compiled, &call, now)?);
    let model = &plain.policy.model;
    let mut grants = Vec::new();
    for rule in &model.rules {
        let called = |prepared: &Prepared<'_>| {
            prepared.with(|request| {
                let to = trace(model, rule, request).to;
                let of = |truth| to.iter().position(|part| part.holds == truth);
                (to.is_empty(), of(Truth::True).or_else(|| of(Truth::Unknown)))
            })
        };
        let (is_any, at) = called(&plain);
        let at = at.or_else(|| called(&call).1);
        if is_any || at.is_some() {
            let operation =
                at.and_then(|at| rule.to.as_ref()?.get(at)).map(|to| describe_operation(model, to));
            grants.extend(
                rule.from
                    .iter()
                    .map(|from| grant(question, model, rule, from, operation.clone().into_iter().collect())),
            );
        }
    }
    grants.sort();
    grants.dedup();
    let reason = plain.with(|request| explain(model, request).enforced);
    let refused = match reason {
        Verdict {
            reason: reason @ Reason::Ambiguous(Ambiguity::Path | Ambiguity::Host | Ambiguity::Method),
            ..
        } => Some(reason.sentence()),
        _ => None,
    };
    Ok(WhoCan { workload: question.workload.to_string(), guarded: plain.policy.covered, refused, grants })
}

/// Everything that anybody can do, at every guarded workload.
pub fn all(compiled: &Compiled) -> Vec<Grant> {
    let covered = compiled.workloads.iter().filter(|(_, policy)| policy.covered);
    let rules = covered
        .flat_map(|(workload, policy)| policy.model.rules.iter().map(move |rule| (workload, policy, rule)));
    let mut grants: Vec<Grant> = rules
        .flat_map(|(workload, policy, rule)| {
            let model = &policy.model;
            let operations: Vec<String> =
                rule.to.iter().flatten().map(|to| describe_operation(model, to)).collect();
            rule.from.iter().map(move |from| of(workload, model, rule, from, operations.clone()))
        })
        .collect();
    grants.sort();
    grants.dedup();
    grants
}

/// Whom `what_can` is asked about.
#[derive(Debug, Clone, Default)]
pub struct Who {
    /// Peers that they are.
    pub peers: Vec<MeshPeer>,
    /// Rules that name them.
    pub rules: BTreeSet<String>,
}

/// What somebody can do, at every guarded workload.
pub fn what_can(compiled: &Compiled, who: &Who) -> Vec<Grant> {
    let mut grants = Vec::new();
    for (workload, policy) in compiled.workloads.iter().filter(|(_, policy)| policy.covered) {
        for rule in &policy.model.rules {
            let operations: Vec<String> =
                rule.to.iter().flatten().map(|to| describe_operation(&policy.model, to)).collect();
            let named = who.rules.contains(&rule.id);
            for from in rule.from.iter().filter(|from| named || matches(compiled, who, &from.peer)) {
                grants.push(of(workload, &policy.model, rule, from, operations.clone()));
            }
        }
    }
    grants.sort();
    grants.dedup();
    grants
}

fn matches(compiled: &Compiled, who: &Who, entry: &PeerModel) -> bool {
    who.peers.iter().any(|peer| {
        reference::peer_matches(
            entry,
            Peer::Mesh {
                trust_domain: peer.trust_domain.as_deref().unwrap_or(&compiled.mesh.trust_domain),
                namespace: &peer.namespace,
                service_account: &peer.service_account,
            },
        )
    })
}

fn grant(
    question: &Question,
    model: &PolicyModel,
    rule: &RuleModel,
    from: &FromModel,
    operations: Vec<String>,
) -> Grant {
    of(&question.workload, model, rule, from, operations)
}

fn of(
    workload: &WorkloadId,
    model: &PolicyModel,
    rule: &RuleModel,
    from: &FromModel,
    operations: Vec<String>,
) -> Grant {
    let issuers = from.issuers.iter().filter_map(|issuer| model.issuers.get(usize::from(*issuer)));
    let mut with: Vec<String> = issuers.map(|issuer| format!("a token of `{}`", issuer.name)).collect();
    with.extend(demands(&from.condition).into_iter().map(|part| describe_condition(model, part)));
    let operations = if operations.is_empty() { vec!["anything".to_owned()] } else { operations };
    let caller = describe_peer(&from.peer);
    Grant {
        workload: workload.to_string(),
        effect: effect_word(rule.effect),
        enforced: rule.mode == Mode::Enforce,
        caller: caller.strip_prefix("peer ").unwrap_or(&caller).to_owned(),
        with,
        operations,
        rule: rule.id.clone(),
    }
}

/// The parts all of which must hold.
fn demands(condition: &Condition) -> Vec<&Condition> {
    match condition {
        Condition::True => Vec::new(),
        Condition::All(parts) => parts.iter().flat_map(demands).collect(),
        other => vec![other],
    }
}
