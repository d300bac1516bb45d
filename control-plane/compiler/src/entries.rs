//! Entries of a rule as the engine reads them, and nothing of how they were written: most of what is kept of a rule.
//!
//! Their positions are those of the rule's own names; where it applies they are moved to those of the workload.
//!
//! INVARIANT: all that an entry demands is in its condition.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use tidegate_engine::model::{ClaimPath, Condition, Effect};

use crate::callers::{Entry, Who};
use crate::demand::Positions;
use crate::directory::DirectoryQuery;
use crate::when::Tree;

/// Most different names of rules that are kept for other rules.
const MAX_KEPT: usize = 4096;

/// An entry of a rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Admitted {
    pub(crate) who: Who,
    /// Of which a token must be there.
    pub(crate) issuers: Vec<u16>,
    pub(crate) condition: Condition,
}

/// All entries of a rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entries {
    /// What positions stand for.
    pub(crate) names: Arc<Positions>,
    pub(crate) list: Vec<Admitted>,
}

/// Issuers, claims and directories that many rules have alike.
#[derive(Debug, Default)]
pub(crate) struct KnownNames {
    hasher: RandomState,
    known: Mutex<HashMap<u64, Vec<Arc<Positions>>>>,
}

/// What a rule names, in the order of names.
#[derive(Debug, Default, Hash)]
struct Named<'n> {
    /// Every issuer without a claim, and with each of its claims.
    claims: Vec<(&'n str, Option<&'n ClaimPath>)>,
    directories: Vec<&'n DirectoryQuery>,
}

// === impl Entries ===

impl Entries {
    /// `when`: what must hold for the rule as a whole.
    ///
    /// # Errors
    /// Why there can be no such rule.
    pub(crate) fn new(
        effect: Effect,
        when: &[Tree],
        from: Vec<Entry>,
        known: &KnownNames,
    ) -> Result<Self, &'static str> {
        // Age is demanded by an Allow alone.
        let ages: Vec<Vec<Tree>> = match effect {
            Effect::Allow => from.iter().map(|entry| entry.ages().collect()).collect(),
            Effect::Deny => from.iter().map(|_| Vec::new()).collect(),
        };
        let trees = |entry| of_entry(when, entry);
        let mut named = Named::default();
        for (entry, ages) in from.iter().zip(&ages) {
            for token in &entry.tokens {
                named.claims.push((&token.issuer, None));
                token.demands.each_name(
                    effect,
                    &mut |issuer, path| named.claims.push((issuer.unwrap_or(&token.issuer), Some(path))),
                    &mut |directory| named.directories.push(directory),
                );
            }
            for tree in trees(entry).chain(ages) {
                tree.each_claim(&mut |claim| named.claims.push((&claim.issuer, Some(&claim.path))));
            }
        }
        let names = known.get(named).ok_or("it names more than 65535 issuers, claims or directories")?;
        let mut list = Vec::with_capacity(from.len());
        for (entry, ages) in from.iter().zip(&ages) {
            let demanded = demanded(effect, entry, trees(entry).chain(ages), &names);
            let (issuers, condition) = demanded.ok_or("it demands something without a name")?;
            list.push((issuers, condition));
        }
        let list = from
            .into_iter()
            .zip(list)
            .map(|(entry, (issuers, condition))| Admitted { who: entry.who, issuers, condition })
            .collect();
        Ok(Self { names, list })
    }
}

/// Conditions on an entry as a whole.
fn of_entry<'e>(when: &'e [Tree], entry: &'e Entry) -> impl Iterator<Item = &'e Tree> {
    when.iter().chain(&entry.when)
}

/// All tokens of an entry: their issuers, and what must hold.
fn demanded<'e>(
    effect: Effect,
    entry: &Entry,
    trees: impl Iterator<Item = &'e Tree>,
    names: &Positions,
) -> Option<(Vec<u16>, Condition)> {
    let mut tokens: Vec<_> = entry.tokens.iter().collect();
    tokens.sort_by(|a, b| a.issuer.cmp(&b.issuer));
    let mut issuers = Vec::with_capacity(tokens.len());
    let mut all = Vec::new();
    for token in tokens {
        let (issuer, slots) = names.issuers.get(&token.issuer)?;
        issuers.push(*issuer);
        all.extend(token.demands.conditions(effect, *issuer, slots, names)?);
    }
    for tree in trees {
        all.push(tree.condition(effect, names)?);
    }
    let condition = match all.len() {
        0 => Condition::True,
        1 => all.pop()?,
        _ => {
            all.shrink_to_fit();
            Condition::All(all)
        }
    };
    Some((issuers, condition))
}

// === impl KnownNames ===

impl KnownNames {
    /// `None`: there are too many.
    fn get(&self, mut named: Named<'_>) -> Option<Arc<Positions>> {
        named.claims.sort_unstable();
        named.claims.dedup();
        named.directories.sort_unstable();
        named.directories.dedup();
        let hash = self.hasher.hash_one(&named);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = known.get(&hash).into_iter().flatten().find(|known| named.is(known)) {
            return Some(Arc::clone(same));
        }
        let made = Arc::new(named.positions()?);
        if known.len() < MAX_KEPT {
            known.entry(hash).or_default().push(Arc::clone(&made));
        }
        Some(made)
    }
}

// === impl Named ===

impl Named<'_> {
    fn is(&self, positions: &Positions) -> bool {
        let claims = positions.issuers.iter().flat_map(|(issuer, (_, claims))| {
            let of_issuer = claims.keys().map(move |path| (issuer.as_str(), Some(path)));
            std::iter::once((issuer.as_str(), None)).chain(of_issuer)
        });
        claims.eq(self.claims.iter().copied())
            && positions.directories.keys().eq(self.directories.iter().copied())
    }

    fn positions(&self) -> Option<Positions> {
        let mut issuers: BTreeMap<String, BTreeSet<ClaimPath>> = BTreeMap::new();
        for (issuer, path) in &self.claims {
            issuers.entry((*issuer).to_owned()).or_default().extend(path.cloned());
        }
        Positions::new(issuers, self.directories.iter().map(|one| (*one).clone()).collect()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(claim: &str) -> ClaimPath {
        vec![claim.to_owned()]
    }

    #[test]
    fn rules_that_name_the_same_share_it_and_no_others_do() {
        let (sub, aud) = (path("sub"), path("aud"));
        let query = |name: &str| DirectoryQuery::DataflowJob {
            project: "acme".to_owned(),
            region: "europe-west4".to_owned(),
            name: name.to_owned(),
        };
        let (one, two) = (query("one"), query("two"));
        let all = [
            (vec![], vec![]),
            (vec![("a", None)], vec![]),
            (vec![("a", None), ("a", Some(&sub))], vec![]),
            (vec![("a", None), ("a", Some(&aud))], vec![]),
            (vec![("a", None), ("a", Some(&aud)), ("a", Some(&sub))], vec![]),
            (vec![("a", None), ("b", None), ("a", Some(&aud)), ("b", Some(&sub))], vec![]),
            (vec![("b", None), ("b", Some(&sub))], vec![]),
            (vec![("a", None)], vec![&one]),
            (vec![("a", None)], vec![&two]),
            (vec![("a", None)], vec![&two, &one]),
        ];
        let known = KnownNames::default();
        let get = |(claims, directories): &(Vec<_>, Vec<_>)| {
            known.get(Named { claims: claims.clone(), directories: directories.clone() }).unwrap()
        };
        let names: Vec<Arc<Positions>> = all.iter().map(get).collect();
        for (at, (claims, directories)) in all.iter().enumerate() {
            // In whatever order, and however often.
            let claims = claims.iter().rev().chain(claims).copied().collect();
            let again = get(&(claims, directories.iter().rev().chain(directories).copied().collect()));
            for (other, names) in names.iter().enumerate() {
                assert_eq!(Arc::ptr_eq(names, &again), at == other, "{at} {other}");
            }
        }
        let both = names.last().unwrap();
        assert_eq!(both.directories.iter().collect::<Vec<_>>(), [(&one, &0), (&two, &1)]);
    }

    #[test]
    fn more_names_than_positions_are_refused() {
        let paths: Vec<ClaimPath> = (0..=65_536).map(|at| path(&at.to_string())).collect();
        let named = |count: usize| Named {
            claims: paths.iter().take(count).map(|path| ("a", Some(path))).collect(),
            directories: Vec::new(),
        };
        assert!(KnownNames::default().get(named(65_536)).is_some());
        assert!(KnownNames::default().get(named(65_537)).is_none());
    }
}
