//! Warnings about rules that compile and may not be what was meant: rules that another rule makes superfluous, rules that
//! never match, Allows of everything, and Denies that callers evade by leaving a token out.
//!
//! INVARIANT: never an error, and never a change of the output.
//!
//! INVARIANT: "wholly covered" is proven, not guessed: what is not understood covers nothing ([`cover`]).

mod cover;
mod near;
mod never;
mod overlap;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use tidegate_engine::model::{Effect, Mode, PolicyModel, RuleModel, SharedRule};

use crate::diagnostic::{Code, Related};
use crate::parallel;
use crate::place::Findings;
use crate::rules::Rule;
use crate::suggest;
use crate::tally::{Change, MANY, Tally, looks};

pub(crate) use cover::{demands, glob_matches};
use near::{Near, Places, callers, compared_with};
pub(crate) use overlap::may_meet;

/// Pairs of Denies and Allows that are looked at for evasion, at most; with more, some evasions are not told.
const MOST_PAIRS: usize = 4_000_000;

/// After more changes than these all rules are looked at.
const FEW: usize = 64;

/// What there is to say about the rules of one workload, if it is so at all workloads of a rule.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// How many Denies were looked at for evasion.
    compared: usize,
    /// By the name of the rule that it is about.
    covered: Vec<(String, Cover)>,
    evaded: Vec<(String, Evasion)>,
    never: Vec<String>,
    /// The Denies that were looked at for evasion.
    denies: Vec<SharedRule>,
    /// Where they are many, for the next notes.
    places: Option<Arc<Mutex<Places>>>,
}

/// A rule that makes another one superfluous.
#[derive(Debug, Clone)]
struct Cover {
    by: String,
    /// Whether it is a Deny that makes an Allow superfluous.
    denied: bool,
    /// Whether the two are the same.
    same: bool,
}

/// Allows that let callers in without the token that a Deny looks at.
#[derive(Debug, Clone)]
struct Evasion {
    by: BTreeSet<String>,
    issuers: BTreeSet<String>,
}

/// How many Denies of each workload are looked at for evasion, in the order of workloads: as many as the bound allows.
pub(crate) struct Budget {
    pairs: usize,
}

// === impl Budget ===

impl Budget {
    pub(crate) fn new() -> Self {
        Self { pairs: MOST_PAIRS }
    }

    /// How many Denies of the next workload.
    pub(crate) fn take(&mut self, tally: Tally) -> usize {
        let Tally { rules, denies, .. } = tally;
        let compared = self.pairs.checked_div(rules).unwrap_or(0).min(denies);
        self.pairs = self.pairs.saturating_sub(compared.saturating_mul(rules));
        compared
    }
}

// === impl Notes ===

impl Notes {
    /// Looks at the rules of a workload, and at so many of its Denies for evasion. `before`: what was noted of others, and how
    /// these differ from them.
    pub(crate) fn new(model: &PolicyModel, compared: usize, before: Option<(&Self, &Change)>) -> Self {
        let after = before.and_then(|(before, change)| before.after(model, compared, change));
        after.unwrap_or_else(|| Self::of(model, compared))
    }

    fn of(model: &PolicyModel, compared: usize) -> Self {
        let near = Near::new(model);
        let denies: Vec<SharedRule> = compared_denies(model, compared).cloned().collect();
        let covered =
            parallel::map_within(&model.rules, |rule| (near.cover(rule), never::is_contradictory(rule)));
        let evaded = parallel::map_among(model.rules.len(), &denies, |rule| evasion(model, rule));
        let mut notes = Self { compared, ..Self::default() };
        for (rule, (cover, is_contradictory)) in model.rules.iter().zip(covered) {
            notes.covered.extend(cover.map(|cover| (rule.id.clone(), cover)));
            notes.never.extend(is_contradictory.then(|| rule.id.clone()));
        }
        notes.evaded =
            denies.iter().zip(evaded).filter_map(|(rule, found)| Some((rule.id.clone(), found?))).collect();
        notes.denies = denies;
        notes.places = (model.rules.len() >= MANY).then(|| Arc::new(Mutex::new(Places::new(model))));
        notes
    }

    /// The same after a few rules have changed. `None`: most would have to be looked at.
    fn after(&self, model: &PolicyModel, compared: usize, change: &Change) -> Option<Self> {
        let changed = || change.gone.iter().chain(&change.new);
        if changed().count() > FEW {
            return None;
        }
        let mut touched = BTreeSet::new();
        for rule in changed().filter(|rule| rule.mode == Mode::Enforce) {
            for from in &rule.from {
                touched.extend(callers(&from.peer)?);
            }
        }
        let kept = self.places.clone()?;
        let mut places = kept.lock().unwrap_or_else(PoisonError::into_inner);
        places.change(change);
        // Whoever is compared with one of them: it has a caller of the same namespace.
        let namespaces: BTreeSet<&str> = touched.iter().map(|(namespace, _)| *namespace).collect();
        let is_touched = |rule: &&SharedRule| compared_with(rule).any(|key| touched.contains(&key));
        let affected: Vec<&SharedRule> =
            namespaces.iter().flat_map(|namespace| places.with(namespace)).filter(is_touched).collect();
        let wanted = affected.iter().flat_map(|rule| compared_with(rule)).collect();
        let near = Near::some(&places, &wanted);
        let names: BTreeSet<&str> =
            affected.iter().copied().chain(changed()).map(|rule| rule.id.as_str()).collect();
        let is_kept = |name: &str| !names.contains(name);
        let mut covered: Vec<(String, Cover)> =
            self.covered.iter().filter(|(name, _)| is_kept(name)).cloned().collect();
        covered.extend(affected.iter().filter_map(|rule| Some((rule.id.clone(), near.cover(rule)?))));
        covered.sort_by(|(a, _), (b, _)| a.cmp(b));
        covered.dedup_by(|(a, _), (b, _)| a == b);
        let mut never: Vec<String> = self.never.iter().filter(|name| is_kept(name)).cloned().collect();
        let again = affected.iter().copied().chain(&change.new).filter(|rule| never::is_contradictory(rule));
        never.extend(again.map(|rule| rule.id.clone()));
        never.sort();
        never.dedup();
        let denies: Vec<SharedRule> = compared_denies(model, compared).cloned().collect();
        let found =
            parallel::map_among(model.rules.len(), &denies, |rule| match self.evasion(rule, change) {
                Some(known) => known.cloned(),
                None => evasion(model, rule),
            });
        let evaded = denies.iter().zip(found).filter_map(|(rule, found)| Some((rule.id.clone(), found?)));
        let evaded = evaded.collect();
        drop(places);
        Some(Self { compared, covered, evaded, never, denies, places: Some(kept) })
    }

    /// What is noted of a Deny, if nothing of it has changed.
    fn evasion(&self, rule: &SharedRule, change: &Change) -> Option<Option<&Evasion>> {
        let at = self.denies.binary_search_by(|known| known.id.cmp(&rule.id)).ok()?;
        self.denies.get(at).filter(|known| known.is_same(rule))?;
        let mut changed = change.gone.iter().chain(&change.new).filter(|other| lets_in(other));
        if changed.any(|other| overlap::operations(rule, other)) {
            return None;
        }
        let at = self.evaded.binary_search_by(|(name, _)| name.cmp(&rule.id)).ok();
        Some(at.and_then(|at| self.evaded.get(at)).map(|(_, evasion)| evasion))
    }

    /// Whether as many Denies were looked at.
    pub(crate) fn compared(&self) -> usize {
        self.compared
    }
}

/// The Denies that are looked at for evasion: the first ones.
fn compared_denies(model: &PolicyModel, compared: usize) -> impl Iterator<Item = &SharedRule> {
    model.rules.iter().filter(|rule| looks(rule)).take(compared)
}

fn lets_in(rule: &RuleModel) -> bool {
    rule.effect == Effect::Allow && rule.mode == Mode::Enforce
}

/// The rules of a workload by their names.
#[derive(Clone, Copy)]
struct Named<'w>(&'w [Arc<Rule>]);

impl<'w> Named<'w> {
    fn get(self, name: &str) -> Option<&'w Rule> {
        let at = self.0.binary_search_by(|rule| rule.name.as_ref().cmp(name)).ok()?;
        self.0.get(at).map(AsRef::as_ref)
    }
}

/// Says what may not have been meant. What is true of a rule at one of its workloads only is no finding about the rule.
/// Of every workload its rules, in the order of names, and the notes on them.
pub(crate) fn tell<'w>(
    workloads: impl IntoIterator<Item = (&'w [Arc<Rule>], &'w Notes)>,
    findings: &mut Findings,
) {
    let mut superfluous: BTreeMap<&str, Covered<'_>> = BTreeMap::new();
    let mut evaded: BTreeMap<&str, Evaded<'_>> = BTreeMap::new();
    let mut never: BTreeMap<&str, &Rule> = BTreeMap::new();
    for (rules, notes) in workloads {
        let named = Named(rules);
        for (name, Cover { by, denied, same }) in &notes.covered {
            let (Some(rule), Some(by)) = (named.get(name), named.get(by)) else { continue };
            let covered = superfluous.entry(name).or_insert_with(|| Covered::new(rule));
            covered.by.insert(&by.name, by);
            covered.denied |= denied;
            covered.same |= same;
            covered.workloads = covered.workloads.saturating_add(1);
        }
        for (name, Evasion { by, issuers }) in &notes.evaded {
            let Some(rule) = named.get(name) else { continue };
            let evaded = evaded.entry(name).or_insert_with(|| Evaded::new(rule));
            evaded.by.extend(by.iter().filter_map(|by| named.get(by)).map(|by| (by.name.as_ref(), by)));
            evaded.issuers.extend(issuers.iter().map(String::as_str));
            evaded.workloads = evaded.workloads.saturating_add(1);
        }
        never.extend(notes.never.iter().filter_map(|name| Some((name.as_str(), named.get(name)?))));
    }
    superfluous.values().filter(|covered| covered.workloads == covered.rule.reach.len()).for_each(
        |covered| {
            covered.tell(findings);
        },
    );
    evaded.values().filter(|evaded| evaded.workloads == evaded.rule.reach.len()).for_each(|evaded| {
        evaded.tell(findings);
    });
    for rule in never.values() {
        findings.add(
            &rule.source.place().key("spec").key("from"),
            Code::NeverMatches,
            "no token can have all that every entry demands",
            "its demands contradict each other, so the rule never matches",
            "write what may differ as a list, or as entries of their own",
        );
    }
}

/// Says so of an Allow of everything.
pub(crate) fn warn_everything(rule: &Rule, findings: &mut Findings) {
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
struct Covered<'w> {
    rule: &'w Rule,
    by: BTreeMap<&'w str, &'w Rule>,
    /// Whether a Deny does, at any workload.
    denied: bool,
    /// Whether the two are the same.
    same: bool,
    workloads: usize,
}

/// Allows that let callers in without the token that a Deny looks at.
struct Evaded<'w> {
    rule: &'w Rule,
    by: BTreeMap<&'w str, &'w Rule>,
    issuers: BTreeSet<&'w str>,
    workloads: usize,
}

// === impl Near ===

impl Near<'_> {
    /// A Deny that covers an Allow wholly, or another rule of its effect that does.
    fn cover(&self, rule: &RuleModel) -> Option<Cover> {
        if rule.mode == Mode::Shadow {
            return None;
        }
        let covers = |other: &&RuleModel| {
            other.id != rule.id
                && (other.effect == rule.effect || other.effect == Effect::Deny)
                && cover::covers(other, rule)
                // Of two that cover each other one must stay: the first.
                && (other.effect != rule.effect || other.id < rule.id || !cover::covers(rule, other))
        };
        let other = self.candidates(rule).into_iter().find(covers)?;
        Some(Cover {
            by: other.id.clone(),
            denied: other.effect != rule.effect,
            same: other.effect == rule.effect && cover::covers(rule, other),
        })
    }
}

/// Whether Allows let the requests in that a Deny refuses by a token, and none of them demands it.
fn evasion(model: &PolicyModel, rule: &RuleModel) -> Option<Evasion> {
    let allows = model.rules.iter().map(|other| &**other).filter(|other| lets_in(other));
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
            return None;
        }
        by.extend(meeting.iter().map(|(other, _)| other.id.clone()));
        issuers.extend(
            from.issuers.iter().filter_map(|issuer| {
                model.issuers.get(usize::from(*issuer)).map(|issuer| issuer.name.clone())
            }),
        );
    }
    (!by.is_empty()).then_some(Evasion { by, issuers })
}

fn names(by: &BTreeMap<&str, &Rule>) -> String {
    let names: Vec<String> = by.keys().map(|name| (*name).to_owned()).collect();
    suggest::some_of(&names)
}

fn related(by: &BTreeMap<&str, &Rule>) -> Vec<Related> {
    let place = |rule: &&Rule| {
        let at = rule.source.at;
        Related {
            file: rule.source.file().to_owned(),
            line: at.line,
            column: at.column,
            message: format!("{}", rule.source.id),
        }
    };
    by.values().take(5).map(place).collect()
}

// === impl Covered ===

impl<'w> Covered<'w> {
    fn new(rule: &'w Rule) -> Self {
        Self { rule, by: BTreeMap::new(), denied: false, same: false, workloads: 0 }
    }

    fn tell(&self, findings: &mut Findings) {
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
        findings.add_related(&self.rule.source.place(), code, message, why, fix, related(&self.by));
    }
}

// === impl Evaded ===

impl<'w> Evaded<'w> {
    fn new(rule: &'w Rule) -> Self {
        Self { rule, by: BTreeMap::new(), issuers: BTreeSet::new(), workloads: 0 }
    }

    fn tell(&self, findings: &mut Findings) {
        let issuers = suggest::list(self.issuers.iter().copied());
        findings.add_related(
            &self.rule.source.place().key("spec").key("from"),
            Code::EvadedDeny,
            format!("whoever leaves the token of {issuers} out evades this Deny"),
            format!("{} lets the same requests in without it", names(&self.by)),
            "demand the token in those Allows, or deny by the peer",
            related(&self.by),
        );
    }
}
