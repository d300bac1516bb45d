//! Enforced rules of a workload by their callers.
//!
//! INVARIANT: rules are in the order of ids wherever they are, so that as many as are compared are always the same ones.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_engine::model::{Effect, Mode, PeerModel, PolicyModel, RuleModel, SharedRule};

use crate::tally::Change;

/// Denies and Allows with the same callers that a rule is compared with, at most.
const MOST_COMPARED: usize = 24;

/// Rules by their callers, for as long as they are looked at.
pub(super) struct Near<'m> {
    of: BTreeMap<CallerKey<'m>, Sides<'m>>,
    /// Those with callers that no namespace limits.
    broad: Sides<'m>,
}

#[derive(Default)]
struct Sides<'m> {
    denies: Vec<&'m RuleModel>,
    allows: Vec<&'m RuleModel>,
}

/// Rules by the namespaces of their callers, to be kept as they come and go.
#[derive(Debug, Default)]
pub(super) struct Places {
    of: BTreeMap<String, Vec<SharedRule>>,
    /// Those with callers that no namespace limits.
    broad: Vec<SharedRule>,
}

/// Namespace and account of a peer; without an account: all of the namespace.
pub(super) type CallerKey<'m> = (&'m str, Option<&'m str>);

/// `None`: no namespace limits it.
pub(super) fn callers(peer: &PeerModel) -> Option<impl Iterator<Item = CallerKey<'_>>> {
    match peer {
        PeerModel::Mesh { namespace, service_accounts, .. } => {
            let whole = service_accounts.is_none().then_some((namespace.as_str(), None));
            let accounts = service_accounts.iter().flatten();
            Some(
                whole.into_iter().chain(accounts.map(|account| (namespace.as_str(), Some(account.as_str())))),
            )
        }
        PeerModel::AnyMesh { .. } | PeerModel::NoPeer | PeerModel::Anyone => None,
    }
}

/// Where those are that a rule is compared with, besides those that no namespace limits.
pub(super) fn compared_with(rule: &RuleModel) -> impl Iterator<Item = CallerKey<'_>> {
    let first = match rule.from.first().map(|from| &from.peer) {
        Some(PeerModel::Mesh { namespace, service_accounts, .. }) => {
            Some((namespace.as_str(), service_accounts.iter().flatten().next().map(String::as_str)))
        }
        _ => None,
    };
    let of_namespace = first.filter(|(_, account)| account.is_some()).map(|(namespace, _)| (namespace, None));
    of_namespace.into_iter().chain(first)
}

/// The namespaces of a rule's callers; `None`: no namespace limits one of them.
fn namespaces(rule: &RuleModel) -> BTreeSet<Option<&str>> {
    fn of(peer: &PeerModel) -> Option<&str> {
        match peer {
            PeerModel::Mesh { namespace, .. } => Some(namespace),
            PeerModel::AnyMesh { .. } | PeerModel::NoPeer | PeerModel::Anyone => None,
        }
    }
    rule.from.iter().map(|from| of(&from.peer)).collect()
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
    pub(super) fn new(model: &'m PolicyModel) -> Self {
        let mut near = Self { of: BTreeMap::new(), broad: Sides::default() };
        for rule in model.rules.iter().filter(|rule| rule.mode == Mode::Enforce) {
            for from in &rule.from {
                match callers(&from.peer) {
                    Some(keys) => keys.for_each(|key| near.of.entry(key).or_default().add(rule)),
                    None => near.broad.add(rule),
                }
            }
        }
        near
    }

    /// Only those with these callers, and those that no namespace limits.
    pub(super) fn some(places: &'m Places, wanted: &BTreeSet<CallerKey<'_>>) -> Self {
        let mut near = Self { of: BTreeMap::new(), broad: Sides::default() };
        places.broad.iter().for_each(|rule| near.broad.add(rule));
        let namespaces: BTreeSet<&str> = wanted.iter().map(|(namespace, _)| *namespace).collect();
        for namespace in namespaces {
            for rule in places.with(namespace) {
                let keys = rule.from.iter().filter_map(|from| callers(&from.peer)).flatten();
                let keys = keys.filter(|key| key.0 == namespace && wanted.contains(key));
                keys.for_each(|key| near.of.entry(key).or_default().add(rule));
            }
        }
        near
    }

    /// Rules that may cover the rule's first entry, as many as are compared. Denies first: they matter more.
    pub(super) fn candidates(&self, rule: &RuleModel) -> Vec<&'m RuleModel> {
        let mut sides = vec![&self.broad];
        sides.extend(compared_with(rule).filter_map(|key| self.of.get(&key)));
        let denies = sides.iter().flat_map(|sides| &sides.denies).take(MOST_COMPARED);
        let allows = sides.iter().flat_map(|sides| &sides.allows).take(MOST_COMPARED);
        denies.chain(allows).copied().collect()
    }
}

// === impl Places ===

impl Places {
    pub(super) fn new(model: &PolicyModel) -> Self {
        let mut places = Self::default();
        for rule in model.rules.iter().filter(|rule| rule.mode == Mode::Enforce) {
            for namespace in namespaces(rule) {
                places.of_mut(namespace).push(rule.clone());
            }
        }
        places
    }

    /// Those with a caller of this namespace.
    pub(super) fn with(&self, namespace: &str) -> &[SharedRule] {
        self.of.get(namespace).map_or(&[], Vec::as_slice)
    }

    fn of_mut(&mut self, namespace: Option<&str>) -> &mut Vec<SharedRule> {
        match namespace {
            None => &mut self.broad,
            Some(namespace) => self.of.entry(namespace.to_owned()).or_default(),
        }
    }

    pub(super) fn change(&mut self, change: &Change) {
        for rule in change.gone.iter().filter(|rule| rule.mode == Mode::Enforce) {
            for namespace in namespaces(rule) {
                let rules = self.of_mut(namespace);
                if let Ok(at) = rules.binary_search_by(|known| known.id.cmp(&rule.id)) {
                    rules.remove(at);
                }
            }
        }
        for rule in change.new.iter().filter(|rule| rule.mode == Mode::Enforce) {
            for namespace in namespaces(rule) {
                let rules = self.of_mut(namespace);
                if let Err(at) = rules.binary_search_by(|known| known.id.cmp(&rule.id)) {
                    rules.insert(at, rule.clone());
                }
            }
        }
        self.of.retain(|_, rules| !rules.is_empty());
    }
}
