//! What two sets of rules decide differently, with an example of each difference.
//!
//! A request is decided by the rules that match it. Rules that are the same in both sets match the same requests, so every
//! request that is decided differently matches a rule that differs. For each of those, one request of every class is tried:
//! classes are told apart by all literals and patterns of the rules that may meet it (`classes`). Both decisions are the
//! reference interpreter's.
//!
//! INVARIANT: every example is decided differently. Where the classes are too many, or a condition cannot be enumerated,
//! that is said ([`Undecided`]), and nothing is claimed.

mod classes;
mod joint;

use std::collections::{BTreeMap, BTreeSet};

use tidegate_engine::model::{Effect, GuardModel, Mode, PolicyModel, RuleModel, SharedRule};
use tidegate_engine::{
    Body, ClaimValue, Directories, HeaderFacts, Outcome, Peer, Request, TokenState, VerifiedToken, normal,
    reference,
};

use crate::Compiled;
use crate::mesh::WorkloadId;
use crate::warnings::may_meet;

pub use classes::{ANY_HOST, Example, ExampleToken};

/// For whom the tokens of examples are meant.
const AUDIENCE: &str = "audience";

/// What differs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// What is decided differently.
    pub changes: Vec<Change>,
    /// Workloads whose Guards differ.
    pub guards: Vec<GuardChange>,
    /// Of what is not known whether it is decided differently.
    pub undecided: Vec<Undecided>,
}

/// Requests that are decided differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where they arrive; all workloads of which this is true.
    pub workloads: Vec<WorkloadId>,
    /// Whether they pass now and did not before; else they are refused now.
    pub wider: bool,
    /// The rule behind it: the Deny that refuses them, now or before; without one the Allow.
    pub rule: String,
    /// How many classes of requests, at the first workload.
    pub classes: usize,
    /// One of them.
    pub example: Example,
}

/// A workload whose Guards differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardChange {
    /// Which.
    pub workload: WorkloadId,
    /// Before, in words.
    pub before: String,
    /// Now, in words.
    pub after: String,
    /// Whether both enforce, so that rules were compared.
    pub compared: bool,
}

/// Something that was not decided.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Undecided {
    /// The rule that differs.
    pub rule: String,
    /// Why.
    pub why: String,
}

/// Compares two sets of rules.
pub fn diff(before: &Compiled, after: &Compiled) -> Difference {
    let ids: BTreeSet<&WorkloadId> = before.workloads.keys().chain(after.workloads.keys()).collect();
    let none = PolicyModel::default();
    let mut difference = Difference::default();
    for id in ids {
        let of = |compiled: &'_ Compiled| compiled.workloads.get(id).map(|policy| policy.model.clone());
        let (before, after) =
            (of(before).unwrap_or_else(|| none.clone()), of(after).unwrap_or_else(|| none.clone()));
        let (words_before, words_after) = (guarding(&before.guards), guarding(&after.guards));
        let compared = enforces(&before) && enforces(&after);
        if words_before != words_after {
            difference.guards.push(GuardChange {
                workload: id.clone(),
                before: words_before,
                after: words_after,
                compared,
            });
        }
        // Without a Guard that enforces, rules decide nothing.
        if compared {
            workload(id, before, after, &mut difference);
        }
    }
    difference.undecided.sort();
    difference.undecided.dedup();
    difference
}

/// Compares the policies of one workload, as [`diff`] does.
pub fn diff_models(id: &WorkloadId, before: &PolicyModel, after: &PolicyModel) -> Difference {
    let mut difference = Difference::default();
    workload(id, before.clone(), after.clone(), &mut difference);
    difference
}

fn enforces(model: &PolicyModel) -> bool {
    model.guards.iter().any(|guard| guard.mode == Mode::Enforce)
}

fn guarding(guards: &[GuardModel]) -> String {
    if guards.is_empty() {
        return "not guarded".to_owned();
    }
    let one = |guard: &GuardModel| {
        let mode = if guard.mode == Mode::Enforce { "Enforce" } else { "Shadow" };
        let ports = guard.ports.as_ref().map(|ports| {
            let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
            format!(", ports {}", ports.join(", "))
        });
        let audiences = guard.audiences.as_ref().map(|audiences| format!(", for {}", audiences.join(", ")));
        format!("{} ({mode}{}{})", guard.id, ports.unwrap_or_default(), audiences.unwrap_or_default())
    };
    guards.iter().map(one).collect::<Vec<_>>().join(" and ")
}

fn workload(id: &WorkloadId, before: PolicyModel, after: PolicyModel, difference: &mut Difference) {
    let (before, after) = joint::models(before, after);
    let by_id = |model: &PolicyModel| -> BTreeMap<String, SharedRule> {
        let enforced = model.rules.iter().filter(|rule| rule.mode == Mode::Enforce);
        enforced.map(|rule| (rule.id.clone(), rule.clone())).collect()
    };
    let (old, new) = (by_id(&before), by_id(&after));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        let (old_rule, new_rule) = (old.get(name), new.get(name));
        if old_rule.zip(new_rule).is_some_and(|(old, new)| same(old, new)) {
            continue;
        }
        for rule in old_rule.into_iter().chain(new_rule) {
            let meeting = |rules: &BTreeMap<String, SharedRule>| -> Vec<SharedRule> {
                rules.values().filter(|other| may_meet(rule, other)).cloned().collect()
            };
            let pair = Pair::new(&before, meeting(&old), meeting(&new));
            pair.try_rule(id, rule, difference);
        }
    }
}

/// Whether two rules match the same requests and do the same.
fn same(a: &RuleModel, b: &RuleModel) -> bool {
    a.effect == b.effect && a.from == b.from && a.to == b.to
}

/// Both sets, with only those rules that may meet the one in question.
struct Pair {
    before: PolicyModel,
    after: PolicyModel,
}

// === impl Pair ===

impl Pair {
    fn new(joint: &PolicyModel, before: Vec<SharedRule>, after: Vec<SharedRule>) -> Self {
        let guard = GuardModel {
            id: String::new(),
            mode: Mode::Enforce,
            ports: None,
            audiences: Some(vec![AUDIENCE.to_owned()]),
        };
        let model = |rules| PolicyModel {
            issuers: joint.issuers.clone(),
            guards: vec![guard.clone()],
            directories: joint.directories.clone(),
            rules,
        };
        Self { before: model(before), after: model(after) }
    }

    /// Tries a request of every class that the rule may match.
    ///
    /// A request that matches several rules that differ is found with each of them, and noted under the one behind it.
    fn try_rule(&self, id: &WorkloadId, rule: &RuleModel, difference: &mut Difference) {
        let rules = self.before.rules.iter().chain(&self.after.rules);
        let rules: Vec<&RuleModel> = rules.map(|rule| &**rule).collect();
        let examples = match classes::of(rule, &rules, &self.before) {
            Ok(examples) => examples,
            Err(why) => {
                difference.undecided.push(Undecided { rule: rule.id.clone(), why });
                return;
            }
        };
        let mut first: BTreeMap<(bool, String), (usize, Example)> = BTreeMap::new();
        for example in examples {
            let (before, after) = example.with(AUDIENCE, |request| {
                (Decided::of(&self.before, request), Decided::of(&self.after, request))
            });
            if before.outcome != after.outcome {
                let wider = after.outcome == Outcome::Allow;
                // The Deny, where there is one; else the Allow.
                let refusing = if wider { &before } else { &after };
                let allowing = if wider { &after } else { &before };
                let name = refusing.rule.or(allowing.rule).unwrap_or(&rule.id).to_owned();
                let noted = first.entry((wider, name)).or_insert_with(|| (0, example));
                noted.0 = noted.0.saturating_add(1);
            }
        }
        for ((wider, name), (classes, example)) in first {
            let same = |change: &&mut Change| change.rule == name && change.wider == wider;
            let known = difference.changes.iter_mut().find(same);
            match known {
                // Both forms of a rule that changed may show the same difference.
                Some(change) if change.workloads.contains(id) => change.classes = change.classes.max(classes),
                Some(change) => change.workloads.push(id.clone()),
                None => difference.changes.push(Change {
                    workloads: vec![id.clone()],
                    wider,
                    rule: name,
                    classes,
                    example,
                }),
            }
        }
    }
}

/// What a policy decides, and by which rule.
struct Decided<'m> {
    outcome: Outcome,
    rule: Option<&'m str>,
}

// === impl Decided ===

impl<'m> Decided<'m> {
    fn of(model: &'m PolicyModel, request: &Request<'_>) -> Self {
        let decision = reference::decide(model, request);
        // The rules are in the order of their ids.
        let rule = decision.rule.and_then(|at| model.rules.get(usize::try_from(at.0).ok()?));
        Self { outcome: decision.outcome, rule: rule.map(|rule| rule.id.as_str()) }
    }
}

/// Whether a rule may be looked at by effect alone: a Deny matches on what cannot be told as well.
fn counts(effect: Effect, truth: tidegate_engine::Truth) -> bool {
    match truth {
        tidegate_engine::Truth::True => true,
        tidegate_engine::Truth::Unknown => effect == Effect::Deny,
        tidegate_engine::Truth::False => false,
    }
}

// === impl Example ===

impl Example {
    /// Calls `with` with the request.
    fn with<T>(&self, audience: &str, with: impl FnOnce(&Request<'_>) -> T) -> T {
        let verified = |slots: &Vec<ClaimValue>| VerifiedToken {
            audiences: vec![audience.to_owned()],
            expires_at: i64::MAX,
            slots: slots.clone(),
        };
        let tokens: Vec<Option<VerifiedToken>> =
            self.slots.iter().map(|slots| slots.as_ref().map(verified)).collect();
        let states: Vec<TokenState<'_>> = tokens
            .iter()
            .map(|token| token.as_ref().map_or(TokenState::Absent, TokenState::Verified))
            .collect();
        let path = normal::path(self.path.as_bytes());
        let facts = HeaderFacts { grpc: self.grpc, ..HeaderFacts::default() };
        with(&Request {
            now: 0,
            expiry_grace_s: 0,
            port: self.port,
            method: self.method.as_bytes(),
            host: Some(&self.host),
            path: &path,
            query: &[],
            fields: &[],
            headers: facts,
            body: Body::Empty,
            peer: match &self.peer {
                None => Peer::Absent,
                Some((trust_domain, namespace, service_account)) => {
                    Peer::Mesh { trust_domain, namespace, service_account }
                }
            },
            tokens: &states,
            directories: &Directories::default(),
        })
    }
}
