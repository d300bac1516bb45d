//! What must hold of a verified token, by names instead of positions.
//!
//! Every demand has two forms. What readable notations and bindings imply beyond what is written narrows an Allow; it must
//! not narrow a Deny, where it would let requests pass that the author meant to refuse.
//!
//! INVARIANT: the Deny form holds wherever the Allow form does.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_engine::model::{ClaimPath, ClaimRef, Condition, Effect, Test};

use crate::directory::DirectoryQuery;
use crate::moved::Moved;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Demand {
    All(Vec<Demand>),
    Any(Vec<Demand>),
    Not(Box<Demand>),
    Claim(ClaimPath, ClaimTest),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ClaimTest {
    Present,
    OneOf(BTreeSet<String>),
    Integer(i64),
    Boolean(bool),
    Contains(String),
    PeerNamespace,
    PeerServiceAccount,
    /// Equal to this claim of the entry's token of this issuer.
    Same(String, ClaimPath),
    Listed(DirectoryQuery),
    /// The same, but true while the directory is stale.
    ListedOrStale(DirectoryQuery),
}

/// All demands on one token, in both forms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Demands {
    allow: Vec<Demand>,
    deny: Vec<Demand>,
}

/// Positions of issuers, claims and directories: of a rule, or in a workload's policy.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Positions {
    pub(crate) issuers: BTreeMap<String, (u16, BTreeMap<ClaimPath, u16>)>,
    pub(crate) directories: BTreeMap<DirectoryQuery, u16>,
}

/// More things than positions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TooMany;

// === impl Demand ===

impl Demand {
    /// A string claim that is this value.
    pub(crate) fn is(path: &[&str], value: impl Into<String>) -> Self {
        Self::Claim(owned(path), ClaimTest::OneOf(BTreeSet::from([value.into()])))
    }

    pub(crate) fn claim(path: &[&str], test: ClaimTest) -> Self {
        Self::Claim(owned(path), test)
    }

    /// A claim of which any of these tests holds.
    pub(crate) fn any(path: &[String], tests: Vec<ClaimTest>) -> Self {
        let mut any: Vec<Self> = tests.into_iter().map(|test| Self::Claim(path.to_vec(), test)).collect();
        match (any.pop(), any.is_empty()) {
            (Some(only), true) => only,
            (last, _) => {
                any.extend(last);
                Self::Any(any)
            }
        }
    }

    pub(crate) fn not(self) -> Self {
        Self::Not(Box::new(self))
    }

    /// Whether it holds only of tokens with certain values at one of these claims.
    fn ties_to(&self, claims: &[&[&str]]) -> bool {
        match self {
            Self::All(parts) => parts.iter().any(|part| part.ties_to(claims)),
            Self::Any(parts) => !parts.is_empty() && parts.iter().all(|part| part.ties_to(claims)),
            Self::Not(_) => false,
            Self::Claim(path, test) => {
                matches!(
                    test,
                    ClaimTest::OneOf(_)
                        | ClaimTest::Integer(_)
                        | ClaimTest::Contains(_)
                        | ClaimTest::Listed(_)
                ) && claims.iter().any(|claim| claim.iter().eq(path.iter()))
            }
        }
    }

    /// Calls for every claim that it reads.
    fn each_claim<'d>(&'d self, visit: &mut impl FnMut(&'d ClaimPath, &'d ClaimTest)) {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.each_claim(visit)),
            Self::Not(part) => part.each_claim(visit),
            Self::Claim(path, test) => visit(path, test),
        }
    }

    fn condition(
        &self,
        issuer: u16,
        slots: &BTreeMap<ClaimPath, u16>,
        positions: &Positions,
    ) -> Option<Condition> {
        let all = |parts: &[Self]| all(parts, |part| part.condition(issuer, slots, positions));
        Some(match self {
            Self::All(parts) => Condition::All(all(parts)?),
            Self::Any(parts) => Condition::Any(all(parts)?),
            Self::Not(part) => Condition::Not(Box::new(part.condition(issuer, slots, positions)?)),
            Self::Claim(path, test) => {
                let claim = ClaimRef { issuer, slot: *slots.get(path)? };
                let listed = |directory| positions.directories.get(directory).copied();
                let test = match test {
                    ClaimTest::Present => Test::Present,
                    ClaimTest::OneOf(values) => Test::OneOf(values.iter().cloned().collect()),
                    ClaimTest::Integer(integer) => Test::Integer(*integer),
                    ClaimTest::Boolean(boolean) => Test::Boolean(*boolean),
                    ClaimTest::Contains(value) => Test::Contains(value.clone()),
                    ClaimTest::PeerNamespace => Test::PeerNamespace,
                    ClaimTest::PeerServiceAccount => Test::PeerServiceAccount,
                    ClaimTest::Same(other, path) => {
                        let (issuer, slots) = positions.issuers.get(other)?;
                        Test::Same(ClaimRef { issuer: *issuer, slot: *slots.get(path)? })
                    }
                    ClaimTest::Listed(directory) => Test::Listed(listed(directory)?),
                    ClaimTest::ListedOrStale(directory) => Test::ListedOrStale(listed(directory)?),
                };
                Condition::Claim(claim, test)
            }
        })
    }
}

/// Takes no more room than is needed: these are kept.
fn all<T, R>(
    things: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
    make: impl Fn(T) -> Option<R>,
) -> Option<Vec<R>> {
    let things = things.into_iter();
    let mut made = Vec::with_capacity(things.len());
    for thing in things {
        made.push(make(thing)?);
    }
    Some(made)
}

fn owned(path: &[&str]) -> ClaimPath {
    path.iter().map(|name| (*name).to_owned()).collect()
}

// === impl Demands ===

impl Demands {
    /// What is written: the same for both effects.
    pub(crate) fn add(&mut self, demand: Demand) {
        self.deny.push(demand.clone());
        self.allow.push(demand);
    }

    /// What is only implied: for an Allow alone.
    pub(crate) fn add_implied(&mut self, demand: Demand) {
        self.allow.push(demand);
    }

    /// What is written, where it means different things. `deny` must hold wherever `allow` does.
    pub(crate) fn add_two(&mut self, allow: Demand, deny: Demand) {
        self.allow.push(allow);
        self.deny.push(deny);
    }

    /// Both of them.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.allow.extend(other.allow.iter().cloned());
        self.deny.extend(other.deny.iter().cloned());
    }

    /// Whether nothing is demanded but the token itself.
    pub(crate) fn is_empty(&self) -> bool {
        self.allow.is_empty()
    }

    /// Whether an Allow holds only of tokens with certain values at one of these claims.
    pub(crate) fn ties_to(&self, claims: &[&[&str]]) -> bool {
        self.allow.iter().any(|demand| demand.ties_to(claims))
    }

    /// Whether an Allow reads one of these claims.
    pub(crate) fn reads(&self, claims: &[&[&str]]) -> bool {
        let mut reads = false;
        for demand in &self.allow {
            demand.each_claim(&mut |path, _| {
                reads |= claims.iter().any(|claim| claim.iter().eq(path.iter()));
            });
        }
        reads
    }

    fn of(&self, effect: Effect) -> &[Demand] {
        match effect {
            Effect::Allow => &self.allow,
            Effect::Deny => &self.deny,
        }
    }

    /// Calls for every claim that is read, with its issuer where that is another one than the token's, and for every
    /// directory.
    pub(crate) fn each_name<'d>(
        &'d self,
        effect: Effect,
        claim: &mut impl FnMut(Option<&'d str>, &'d ClaimPath),
        directory: &mut impl FnMut(&'d DirectoryQuery),
    ) {
        for demand in self.of(effect) {
            demand.each_claim(&mut |path, test| {
                claim(None, path);
                match test {
                    ClaimTest::Same(issuer, path) => claim(Some(issuer), path),
                    ClaimTest::Listed(query) | ClaimTest::ListedOrStale(query) => directory(query),
                    _ => {}
                }
            });
        }
    }

    /// As the engine reads it: all of them. `None` if a position is missing.
    pub(crate) fn conditions(
        &self,
        effect: Effect,
        issuer: u16,
        slots: &BTreeMap<ClaimPath, u16>,
        positions: &Positions,
    ) -> Option<Vec<Condition>> {
        let mut demands: Vec<&Demand> = self.of(effect).iter().collect();
        demands.sort();
        demands.dedup();
        all(demands, |demand| demand.condition(issuer, slots, positions))
    }
}

// === impl Positions ===

impl Positions {
    /// Numbers everything in the order of names.
    pub(crate) fn new(
        issuers: BTreeMap<String, BTreeSet<ClaimPath>>,
        directories: BTreeSet<DirectoryQuery>,
    ) -> Result<Self, TooMany> {
        fn number<T: Ord>(things: impl IntoIterator<Item = T>) -> Result<BTreeMap<T, u16>, TooMany> {
            things
                .into_iter()
                .enumerate()
                .map(|(position, thing)| Ok((thing, u16::try_from(position).map_err(|_| TooMany)?)))
                .collect()
        }
        let issuers = issuers
            .into_iter()
            .enumerate()
            .map(|(position, (name, claims))| {
                Ok((name, (u16::try_from(position).map_err(|_| TooMany)?, number(claims)?)))
            })
            .collect::<Result<_, TooMany>>()?;
        Ok(Self { issuers, directories: number(directories)? })
    }

    /// Those of all of these.
    pub(crate) fn joint<'p>(all: impl IntoIterator<Item = &'p Self>) -> Result<Self, TooMany> {
        let mut issuers: BTreeMap<String, BTreeSet<ClaimPath>> = BTreeMap::new();
        let mut directories = BTreeSet::new();
        for one in all {
            for (issuer, (_, claims)) in &one.issuers {
                issuers.entry(issuer.clone()).or_default().extend(claims.keys().cloned());
            }
            directories.extend(one.directories.keys().cloned());
        }
        Self::new(issuers, directories)
    }

    /// What has which position in another one, which has everything.
    pub(crate) fn moved_to(&self, other: &Self) -> Moved {
        let issuers = self.issuers.iter().map(|(issuer, (_, claims))| match other.issuers.get(issuer) {
            Some((at, there)) => {
                (*at, claims.keys().map(|path| there.get(path).copied().unwrap_or(u16::MAX)).collect())
            }
            None => (u16::MAX, Vec::new()),
        });
        let directories = self.directories.keys();
        Moved {
            issuers: issuers.collect(),
            directories: directories
                .map(|query| other.directories.get(query).copied().unwrap_or(u16::MAX))
                .collect(),
        }
    }
}
