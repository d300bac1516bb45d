//! Branches: what an ALLOW lets through, one combination at a time, and how they become fewer.
//!
//! A branch matches iff *all* of its parts match; a part matches iff *any* of its values does. A Fence lets through what any
//! branch matches.
//!
//! INVARIANT: nothing here makes a set of branches match less, and branches that demand the interlock are never merged with
//! branches that do not.

use std::collections::{BTreeMap, BTreeSet};

/// The most branches of a workload.
pub const MAX_BRANCHES: usize = 32;

/// The most values of one part of a branch.
pub const MAX_VALUES: usize = 256;

/// Above this many branches, neighbours are merged without a look at how much wider that is.
const MAX_COMPARED: usize = 256;

/// Values, any of which matches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Values {
    /// No constraint.
    Any,
    Of(BTreeSet<String>),
}

/// A condition on one attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct When {
    pub values: BTreeSet<String>,
    /// None of the values may match.
    pub not: bool,
}

/// One combination that is let through.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Branch {
    /// Only with the header that the filter alone sets.
    pub interlock: bool,
    pub principals: Values,
    pub hosts: Values,
    pub methods: Values,
    pub paths: Values,
    pub ports: Values,
    /// By attribute: all of them.
    pub when: BTreeMap<String, When>,
}

/// The parts of a branch that have values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Principals,
    Hosts,
    Methods,
    Paths,
    Ports,
}

/// What was given up, the first first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Widened {
    /// Conditions on headers and claims.
    Conditions,
    /// Which operations of one caller belong together.
    Operations,
    /// Which callers belong to which operations.
    Callers,
    /// Values of one part, where there are too many.
    Values,
}

/// Branches that fit, and what was given up for it.
pub(super) fn fit(branches: Vec<Branch>) -> (Vec<Branch>, BTreeSet<Widened>) {
    let mut widened = BTreeSet::new();
    let mut branches = merged(branches);
    if branches.len() > MAX_BRANCHES {
        widened.insert(Widened::Conditions);
        branches.iter_mut().for_each(|branch| branch.when.clear());
        branches = merged(branches);
    }
    if branches.len() > MAX_BRANCHES {
        widened.insert(Widened::Operations);
        let mut by_caller: BTreeMap<(bool, Values), Branch> = BTreeMap::new();
        for branch in branches {
            let key = (branch.interlock, branch.principals.clone());
            match by_caller.get_mut(&key) {
                Some(known) => known.widen_to(&branch),
                None => {
                    by_caller.insert(key, branch);
                }
            }
        }
        branches = merged(by_caller.into_values().collect());
    }
    if branches.len() > MAX_BRANCHES {
        widened.insert(Widened::Callers);
        branches = neighbours(branches);
    }
    for branch in &mut branches {
        if branch.limit_values() {
            widened.insert(Widened::Values);
        }
    }
    if widened.contains(&Widened::Values) {
        branches = merged(branches);
    }
    (branches, widened)
}

/// Branches that differ in one part become one, which matches what they match together.
fn merged(mut branches: Vec<Branch>) -> Vec<Branch> {
    loop {
        let before = branches.len();
        for part in Part::ALL {
            let mut groups: BTreeMap<Branch, Values> = BTreeMap::new();
            for mut branch in branches {
                let values = std::mem::replace(branch.part_mut(part), Values::Any);
                match groups.get_mut(&branch) {
                    Some(known) => known.add(&values),
                    None => {
                        groups.insert(branch, values);
                    }
                }
            }
            branches = groups
                .into_iter()
                .map(|(mut branch, mut values)| {
                    values.drop_covered();
                    *branch.part_mut(part) = values;
                    branch
                })
                .collect();
        }
        branches.sort();
        if branches.len() == before {
            return branches;
        }
    }
}

/// Merges neighbours until there are few enough, those first that lose least.
fn neighbours(mut branches: Vec<Branch>) -> Vec<Branch> {
    // In the order of branches, those that demand the interlock stand together, and after them callers of one namespace.
    let chunk = branches.len().div_ceil(MAX_COMPARED).max(1);
    if chunk > 1 {
        let mut fewer: Vec<Branch> = Vec::new();
        let mut inside = 0usize;
        for branch in branches {
            match fewer.last_mut() {
                Some(last) if inside < chunk && last.interlock == branch.interlock => {
                    last.widen_to(&branch);
                    inside = inside.saturating_add(1);
                }
                _ => {
                    fewer.push(branch);
                    inside = 1;
                }
            }
        }
        branches = fewer;
    }
    while branches.len() > MAX_BRANCHES {
        let cheapest = branches
            .windows(2)
            .enumerate()
            .filter_map(|(at, pair)| match pair {
                [a, b] if a.interlock == b.interlock => Some((a.cost_of_merging(b), at)),
                _ => None,
            })
            .min();
        let Some((_, at)) = cheapest else { break };
        if at.saturating_add(1) >= branches.len() {
            break;
        }
        let next = branches.remove(at.saturating_add(1));
        if let Some(branch) = branches.get_mut(at) {
            branch.widen_to(&next);
        }
    }
    branches
}

// === impl Values ===

impl Values {
    pub fn one(value: impl Into<String>) -> Self {
        Self::Of(BTreeSet::from([value.into()]))
    }

    fn add(&mut self, more: &Self) {
        match (&mut *self, more) {
            (Self::Of(values), Self::Of(more)) => values.extend(more.iter().cloned()),
            _ => *self = Self::Any,
        }
    }

    /// Drops what a prefix among them matches as well.
    fn drop_covered(&mut self) {
        let Self::Of(values) = self else { return };
        let prefixes: Vec<String> = values
            .iter()
            .filter_map(|value| Some(value.strip_suffix('*')?.to_owned()))
            .filter(|prefix| !prefix.is_empty() && !prefix.starts_with('*'))
            .collect();
        values.retain(|value| {
            !prefixes.iter().any(|prefix| {
                value.strip_prefix(prefix.as_str()).is_some_and(|rest| rest != "*") && !value.starts_with('*')
            })
        });
    }

    /// How many there are; what has no constraint counts as many.
    fn size(&self) -> u128 {
        match self {
            Self::Any => 4096,
            Self::Of(values) => u128::try_from(values.len()).unwrap_or(u128::MAX),
        }
    }
}

// === impl Part ===

impl Part {
    const ALL: [Self; 5] = [Self::Principals, Self::Hosts, Self::Methods, Self::Paths, Self::Ports];
}

// === impl Branch ===

impl Branch {
    fn part(&self, part: Part) -> &Values {
        match part {
            Part::Principals => &self.principals,
            Part::Hosts => &self.hosts,
            Part::Methods => &self.methods,
            Part::Paths => &self.paths,
            Part::Ports => &self.ports,
        }
    }

    fn part_mut(&mut self, part: Part) -> &mut Values {
        match part {
            Part::Principals => &mut self.principals,
            Part::Hosts => &mut self.hosts,
            Part::Methods => &mut self.methods,
            Part::Paths => &mut self.paths,
            Part::Ports => &mut self.ports,
        }
    }

    /// Matches what both match, and whatever lies between.
    fn widen_to(&mut self, other: &Self) {
        for part in Part::ALL {
            let values = self.part_mut(part);
            values.add(other.part(part));
            values.drop_covered();
        }
        self.when.retain(|key, when| other.when.get(key) == Some(when));
    }

    /// How many combinations of values match that neither matched before.
    fn cost_of_merging(&self, other: &Self) -> u128 {
        let mut both = self.clone();
        both.widen_to(other);
        both.size().saturating_sub(self.size()).saturating_sub(other.size())
    }

    fn size(&self) -> u128 {
        Part::ALL.into_iter().fold(1u128, |size, part| size.saturating_mul(self.part(part).size()))
    }

    /// Whether a part had too many values.
    fn limit_values(&mut self) -> bool {
        let mut limited = false;
        for part in Part::ALL {
            let too_many = |values: &Values| matches!(values, Values::Of(all) if all.len() > MAX_VALUES);
            let values = self.part_mut(part);
            if !too_many(values) {
                continue;
            }
            limited = true;
            if part != Part::Principals {
                *values = Values::Any;
                continue;
            }
            for cut in ["/sa/", "/ns/"] {
                if let Values::Of(all) = &*values
                    && too_many(values)
                {
                    let shorter = all.iter().map(|principal| match principal.split_once(cut) {
                        Some((before, _)) if cut == "/sa/" => format!("{before}/sa/*"),
                        Some((before, _)) => format!("{before}/*"),
                        None => principal.clone(),
                    });
                    *values = Values::Of(shorter.collect());
                    values.drop_covered();
                }
            }
            if too_many(values) {
                // Some principal of a certificate.
                *values = Values::one("*");
            }
        }
        limited
    }
}

#[cfg(test)]
mod tests;
