//! Warnings about rules that compile and may not be what was meant: rules that another rule makes superfluous, rules that
//! never match, Allows of everything, and Denies that callers evade by leaving a token out.
//!
//! INVARIANT: never an error, and never a change of the output.
//!
//! INVARIANT: "wholly covered" is proven, not guessed: what is not understood covers nothing ([`cover`]).

mod cover;
mod never;
mod overlap;

use std::collections::{BTreeMap, BTreeSet};

use tidegate_engine::model::{Effect, Mode, PeerModel, PolicyModel, RuleModel};

use crate::diagnostic::{Code, Related};
use crate::mesh::WorkloadId;
use crate::place::Findings;
use crate::plan::WorkloadPolicy;
use crate::rules::Rule;
use crate::suggest;

pub(crate) use cover::{demands, glob_matches};
pub(crate) use overlap::may_meet;

/// Denies and Allows with the same callers that a rule is compared with, at most.
const MOST_COMPARED: usize = 24;

/// Pairs of Denies and Allows that are looked at for evasion, at most; with more, some evasions are not told.
const MOST_PAIRS: usize = 4_000_000;

/// Says what may not have been meant.
pub(crate) fn check(
    rules: &[Rule<'_>],
    workloads: &BTreeMap<WorkloadId, WorkloadPolicy>,
    findings: &mut Findings,
) {
    let sources: BTreeMap<String, &Rule<'_>> =
        rules.iter().map(|rule| (rule.source.id.qualified_name(), rule)).collect();
    for rule in rules {
        warn_everything(rule, findings);
    }
    // What is true of a rule at one of its workloads only is no finding about the rule.
    let mut superfluous: BTreeMap<&str, Covered<'_>> = BTreeMap::new();
    let mut evaded: BTreeMap<&str, Evaded<'_>> = BTreeMap::new();
    let mut never: BTreeSet<&str> = BTreeSet::new();
    let mut pairs = MOST_PAIRS;
    for policy in workloads.values() {
        let near = Near::new(&policy.model);
        for rule in &policy.model.rules {
            near.note_cover(rule, &mut superfluous);
            near.note_evasion(rule, &mut pairs, &mut evaded);
            never.extend(never::is_contradictory(rule).then_some(rule.id.as_str()));
        }
    }
    let reach = |id: &str| sources.get(id).map_or(0, |rule| rule.reach.len());
    for (id, covered) in superfluous {
        if covered.workloads == reach(id) {
            covered.tell(id, &sources, findings);
        }
    }
    for (id, evaded) in evaded {
        if evaded.workloads == reach(id) {
            evaded.tell(id, &sources, findings);
        }
    }
    for id in never {
        let Some(rule) = sources.get(id) else { continue };
        findings.add(
            &rule.source.place().key("spec").key("from"),
            Code::NeverMatches,
            "no token can have all that every entry demands",
            "its demands contradict each other, so the rule never matches",
            "write what may differ as a list, or as entries of their own",
        );
    }
}

fn warn_everything(rule: &Rule<'_>, findings: &mut Findings) {
    if rule.effect == Effect::Allow && rule.to.is_none() {
        findings.add(
            &rule.source.place().key("spec"),
            Code::WiderThanItLooks,
            "an Allow without `to` allows every request of its callers",
            "paths and methods that are added to the service later are allowed as well",
            "list what is called in `to`; if everything is meant, write `to: [{http: {paths: [\"/{**}\"]}}]`",
        );
    }
}

/// Rules that make another one superfluous wherever it applies.
#[derive(Default)]
struct Covered<'m> {
    by: BTreeSet<&'m str>,
    /// Whether a Deny does, at any workload.
    denied: bool,
    /// Whether the two are the same.
    same: bool,
    workloads: usize,
}

/// Allows that let callers in without the token that a Deny looks at.
#[derive(Default)]
struct Evaded<'m> {
    by: BTreeSet<&'m str>,
    issuers: BTreeSet<String>,
    workloads: usize,
}

/// Enforced rules of a workload by their callers.
struct Near<'m> {
    model: &'m PolicyModel,
    /// By namespace and account; without an account: those of the whole namespace.
    of: BTreeMap<(&'m str, Option<&'m str>), Sides<'m>>,
    /// Those with callers that no namespace limits.
    broad: Sides<'m>,
}

#[derive(Default)]
struct Sides<'m> {
    denies: Vec<&'m RuleModel>,
    allows: Vec<&'m RuleModel>,
}

// === impl Sides ===

impl<'m> Sides<'m> {
    fn add(&mut self, rule: &'m RuleModel) {
        let side = if rule.effect == Effect::Deny { &mut self.denies } else { &mut self.allows };
        if side.last().is_none_or(|last| last.id != rule.id) {
            side.push(rule);
        }
    }
}

// === impl Near ===

impl<'m> Near<'m> {
    fn new(model: &'m PolicyModel) -> Self {
        let mut near = Self { model, of: BTreeMap::new(), broad: Sides::default() };
        for rule in model.rules.iter().filter(|rule| rule.mode == Mode::Enforce) {
            for from in &rule.from {
                match &from.peer {
                    PeerModel::Mesh { namespace, service_accounts: None, .. } => {
                        near.of.entry((namespace, None)).or_default().add(rule);
                    }
                    PeerModel::Mesh { namespace, service_accounts: Some(accounts), .. } => {
                        for account in accounts {
                            near.of.entry((namespace, Some(account))).or_default().add(rule);
                        }
                    }
                    PeerModel::AnyMesh { .. } | PeerModel::NoPeer | PeerModel::Anyone => near.broad.add(rule),
                }
            }
        }
        near
    }

    /// Rules that may cover the rule's first entry, as many as are compared. Denies first: they matter more.
    fn candidates(&self, rule: &RuleModel) -> Vec<&'m RuleModel> {
        let mut sides = vec![&self.broad];
        if let Some(PeerModel::Mesh { namespace, service_accounts, .. }) =
            rule.from.first().map(|from| &from.peer)
        {
            sides.extend(self.of.get(&(namespace.as_str(), None)));
            let account = service_accounts.iter().flatten().next();
            sides.extend(
                account.and_then(|account| self.of.get(&(namespace.as_str(), Some(account.as_str())))),
            );
        }
        let denies = sides.iter().flat_map(|sides| &sides.denies).take(MOST_COMPARED);
        let allows = sides.iter().flat_map(|sides| &sides.allows).take(MOST_COMPARED);
        denies.chain(allows).copied().collect()
    }

    /// Notes an Allow that a Deny covers wholly, and a rule that another of its effect covers wholly.
    fn note_cover(&self, rule: &'m RuleModel, covered: &mut BTreeMap<&'m str, Covered<'m>>) {
        if rule.mode == Mode::Shadow {
            return;
        }
        let covers = |other: &&RuleModel| {
            other.id != rule.id
                && (other.effect == rule.effect || other.effect == Effect::Deny)
                && cover::covers(other, rule)
                // Of two that cover each other one must stay: the first.
                && (other.effect != rule.effect || other.id < rule.id || !cover::covers(rule, other))
        };
        let Some(other) = self.candidates(rule).into_iter().find(covers) else { return };
        let noted = covered.entry(&rule.id).or_default();
        noted.by.insert(&other.id);
        noted.denied |= other.effect != rule.effect;
        noted.same |= other.effect == rule.effect && cover::covers(rule, other);
        noted.workloads = noted.workloads.saturating_add(1);
    }

    /// Notes a Deny that looks at a token, where Allows let the same requests in and none of them demands it.
    fn note_evasion(
        &self,
        rule: &'m RuleModel,
        pairs: &mut usize,
        evaded: &mut BTreeMap<&'m str, Evaded<'m>>,
    ) {
        let looks = rule.from.iter().any(|from| !from.issuers.is_empty());
        if !looks || rule.effect == Effect::Allow || rule.mode == Mode::Shadow {
            return;
        }
        let Some(left) = pairs.checked_sub(self.model.rules.len()) else { return };
        *pairs = left;
        let allows = self.model.rules.iter();
        let allows = allows.filter(|other| other.effect == Effect::Allow && other.mode == Mode::Enforce);
        let allows: Vec<&RuleModel> = allows.filter(|other| overlap::operations(rule, other)).collect();
        let looking = rule.from.iter().filter(|from| !from.issuers.is_empty());
        let mut by = BTreeSet::new();
        let mut issuers = BTreeSet::new();
        for from in looking {
            let meeting = allows
                .iter()
                .flat_map(|other| other.from.iter().map(move |entry| (other, entry)))
                .filter(|(_, entry)| overlap::peers(&from.peer, &entry.peer));
            let demands = |entry: &tidegate_engine::model::FromModel| {
                from.issuers.iter().all(|issuer| entry.issuers.contains(issuer))
            };
            let meeting: Vec<_> = meeting.collect();
            if meeting.is_empty() || meeting.iter().any(|(_, entry)| demands(entry)) {
                return;
            }
            by.extend(meeting.iter().map(|(other, _)| other.id.as_str()));
            issuers.extend(from.issuers.iter().filter_map(|issuer| {
                self.model.issuers.get(usize::from(*issuer)).map(|issuer| issuer.name.clone())
            }));
        }
        if !by.is_empty() {
            let noted = evaded.entry(&rule.id).or_default();
            noted.by.extend(by);
            noted.issuers.extend(issuers);
            noted.workloads = noted.workloads.saturating_add(1);
        }
    }
}

fn names(by: &BTreeSet<&str>) -> String {
    let names: Vec<String> = by.iter().map(|name| (*name).to_owned()).collect();
    suggest::some_of(&names)
}

fn related(by: &BTreeSet<&str>, sources: &BTreeMap<String, &Rule<'_>>) -> Vec<Related> {
    let place = |name: &&str| {
        let source = sources.get(*name)?.source;
        let at = source.place().position();
        Some(Related {
            file: source.file.clone(),
            line: at.line,
            column: at.column,
            message: format!("{}", source.id),
        })
    };
    by.iter().take(5).filter_map(place).collect()
}

// === impl Covered ===

impl Covered<'_> {
    fn tell(&self, id: &str, sources: &BTreeMap<String, &Rule<'_>>, findings: &mut Findings) {
        let Some(rule) = sources.get(id) else { return };
        let by = names(&self.by);
        let (code, message, why, fix) = match (self.denied, self.same) {
            (true, _) => (
                Code::ShadowedRule,
                format!("{by} refuses every request that this rule allows"),
                "a Deny wins over every Allow, so this rule lets nobody in",
                "narrow the Deny, or remove this rule",
            ),
            (false, true) => (
                Code::DuplicateRule,
                format!("{by} matches exactly the same requests"),
                "two rules that say the same are changed apart from each other sooner or later",
                "remove one of them",
            ),
            (false, false) => (
                Code::DuplicateRule,
                format!("{by} matches every request that this rule matches"),
                "removing or narrowing this rule would change nothing",
                "remove it, or narrow the other one",
            ),
        };
        findings.add_related(&rule.source.place(), code, message, why, fix, related(&self.by, sources));
    }
}

// === impl Evaded ===

impl Evaded<'_> {
    fn tell(&self, id: &str, sources: &BTreeMap<String, &Rule<'_>>, findings: &mut Findings) {
        let Some(rule) = sources.get(id) else { return };
        let issuers = suggest::list(self.issuers.iter().map(String::as_str));
        findings.add_related(
            &rule.source.place().key("spec").key("from"),
            Code::EvadedDeny,
            format!("whoever leaves the token of {issuers} out evades this Deny"),
            format!("{} lets the same requests in without it", names(&self.by)),
            "demand the token in those Allows, or deny by the peer",
            related(&self.by, sources),
        );
    }
}
