//! Chooses by which shapes rules are looked up.
//!
//! Each shape costs a request one look-up, and each candidate a check. So every rule is first filed under everything that
//! it demands literally; then parts are left away as long as few rules share a key; then shapes of few rules are merged
//! into more general ones. What is left are the parts that tell rules apart, whichever these are in a policy: callers that
//! differ for the same paths, or paths that differ for the same caller.

use std::collections::{BTreeMap, BTreeSet};

use crate::index::Shape;
use crate::layout::{NONE, code, size};

use super::clauses::Item;
use super::counts::{Counts, FEW};

/// Most shapes that a policy may have.
const MAX_SHAPES: usize = 16;

/// The shape that finds a rule for every request.
const EMPTY: Shape =
    Shape { subject: code::SUBJECT_NONE, claim: NONE, claim_kind: 0, host: 0, segments: 0, beginning: 0 };

/// What an entry of the index points to, and which item says what it demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    pub target: u32,
    pub item: u32,
}

/// How many targets share a key, by the shape that has all that they demand and by one that has less: those shapes that were found
/// to tell them apart. It goes on being counted as rules come and go.
#[derive(Debug, Default)]
pub(super) struct Known {
    counts: BTreeMap<Shape, Vec<(Shape, Counts)>>,
}

/// Targets by shape, those of a shape in order: what belongs to one target is next to each other.
type Groups = BTreeMap<Shape, Vec<Target>>;

/// Chooses shapes.
pub(super) struct Shapes<'i> {
    items: &'i [Item],
    groups: Groups,
}

// === impl Known ===

impl Known {
    /// What a rule is filed under comes or goes.
    pub fn change(&mut self, items: &[Item], comes: bool) {
        if self.counts.is_empty() {
            return;
        }
        for of_target in items.chunk_by(|a, b| a.clause == b.clause) {
            let told = || of_target.iter().filter(|item| !item.is_untellable());
            let full: BTreeSet<Shape> = told().map(Item::shape).collect();
            for full in full {
                for (shape, counts) in self.counts.get_mut(&full).into_iter().flatten() {
                    let salt = shape.salt();
                    let keys = told().filter(|item| item.shape() == full).map(|item| item.key(*shape, salt));
                    for key in keys.collect::<BTreeSet<u64>>() {
                        if comes {
                            counts.add(key);
                        } else {
                            counts.remove(key);
                        }
                    }
                }
            }
        }
    }
}

// === impl Shapes ===

impl<'i> Shapes<'i> {
    /// `full`: everything under all that it demands literally.
    pub fn new(items: &'i [Item], full: Groups, known: &mut Known) -> Self {
        let mut shapes = Self { items, groups: Groups::new() };
        known.counts.retain(|shape, _| full.contains_key(shape));
        for (shape, targets) in full {
            let lessened = shapes.lessened(shape, &targets, known.counts.entry(shape).or_default());
            shapes.add(lessened, targets);
        }
        shapes.merge();
        shapes
    }

    /// The shapes that were chosen.
    pub fn shapes(&self) -> impl Iterator<Item = Shape> {
        self.groups.keys().copied()
    }

    /// Keys and targets: every entry of the index.
    pub fn entries(&self) -> Vec<(u64, u32)> {
        let mut entries = Vec::with_capacity(self.groups.values().map(Vec::len).sum());
        for (shape, targets) in &self.groups {
            self.each_key(*shape, targets, |key, target| {
                entries.push((key, target));
                true
            });
        }
        entries
    }

    fn add(&mut self, shape: Shape, targets: Vec<Target>) {
        let known = self.groups.entry(shape).or_default();
        if known.is_empty() {
            *known = targets;
        } else {
            known.extend(targets);
            // Two ordered runs, which is quick.
            known.sort_by_key(|one| one.target);
        }
    }

    /// Visits every key of every target once, as long as `visit` wants more.
    fn each_key(&self, shape: Shape, targets: &[Target], mut visit: impl FnMut(u64, u32) -> bool) {
        let salt = shape.salt();
        let key = |one: &Target| self.items.get(size(one.item)).map_or(0, |item| item.key(shape, salt));
        let mut several = Vec::new();
        for of_target in targets.chunk_by(|a, b| a.target == b.target) {
            let goes_on = match of_target {
                [one] => visit(key(one), one.target),
                all => {
                    several.clear();
                    several.extend(all.iter().map(key));
                    several.sort_unstable();
                    several.dedup();
                    let target = all.first().map_or(NONE, |one| one.target);
                    several.iter().all(|key| visit(*key, target))
                }
            };
            if !goes_on {
                return;
            }
        }
    }

    fn counts(&self, shape: Shape, targets: &[Target]) -> Counts {
        let mut counts = Counts::with_capacity(targets.len());
        self.each_key(shape, targets, |key, _| {
            counts.add(key);
            true
        });
        counts
    }

    /// The same, but for keys that come after one that many share.
    fn counts_unless_crowded(&self, shape: Shape, targets: &[Target]) -> Counts {
        let mut counts = Counts::with_capacity(targets.len());
        self.each_key(shape, targets, |key, _| {
            counts.add(key);
            !counts.is_crowded()
        });
        counts
    }

    /// The shape without the parts that are not needed to tell these apart. `known`: of the same targets.
    fn lessened(&self, full: Shape, targets: &[Target], known: &mut Vec<(Shape, Counts)>) -> Shape {
        // For what cannot be told rules are not told apart anyway.
        let is_told = |one: &Target| self.items.get(size(one.item)).is_some_and(|item| !item.is_untellable());
        let mut told: Option<Vec<Target>> = None;
        let mut is_selective = |shape: Shape| {
            if let Some((_, counts)) = known.iter().find(|(known, _)| *known == shape) {
                return counts.is_selective();
            }
            let told = told.get_or_insert_with(|| targets.iter().copied().filter(is_told).collect());
            let counts = self.counts_unless_crowded(shape, told);
            let is_selective = counts.is_selective();
            if is_selective {
                known.push((shape, counts));
            }
            is_selective
        };
        if !is_selective(full) {
            return full;
        }
        let mut shape = full;
        let mut attempt = |change: &dyn Fn(&mut Shape)| {
            let mut lesser = shape;
            change(&mut lesser);
            if lesser != shape && lesser != EMPTY && is_selective(lesser) {
                shape = lesser;
            }
        };
        attempt(&|shape| shape.beginning = 0);
        attempt(&|shape| shape.host = 0);
        for bit in (0..u32::BITS).rev() {
            attempt(&|shape| shape.segments &= !(1 << bit));
        }
        attempt(&|shape| (shape.claim, shape.claim_kind) = (NONE, 0));
        attempt(&|shape| shape.subject = code::SUBJECT_NONE);
        shape
    }

    /// Merges shapes of few targets into more general ones: where these stay selective, and until there are not too many.
    fn merge(&mut self) {
        let pairs = |shape: &Shape, targets: &[Target]| {
            let mut pairs = 0_usize;
            self.each_key(*shape, targets, |_, _| {
                pairs += 1;
                true
            });
            pairs
        };
        let mut shapes: Vec<(usize, Shape)> =
            self.groups.iter().map(|(shape, targets)| (pairs(shape, targets), *shape)).collect();
        // The smallest first.
        shapes.sort_unstable();
        // Of those that something was compared with.
        let mut counted: BTreeMap<Shape, Counts> = BTreeMap::new();
        for (_, shape) in shapes {
            let Some(targets) = self.groups.get(&shape) else { continue };
            let forced = self.groups.len() > MAX_SHAPES;
            let mut best: Option<(u32, Shape)> = None;
            // A candidate for every request costs more than a look-up.
            let empty = forced.then_some(EMPTY);
            let known = self.groups.keys().copied().filter(|general| forced || *general != EMPTY);
            for general in known.chain(empty).filter(|general| generalises(*general, shape)) {
                let added = self.counts(general, targets);
                let there = self
                    .groups
                    .get(&general)
                    .map(|there| &*counted.entry(general).or_insert_with(|| self.counts(general, there)));
                let most = added.most_with(there);
                let allowed = general != EMPTY && most <= FEW;
                if (allowed || forced) && best.is_none_or(|(least, _)| most < least) {
                    best = Some((most, general));
                }
            }
            let Some((_, general)) = best else { continue };
            let targets = self.groups.remove(&shape).unwrap_or_default();
            self.add(general, targets);
            counted.remove(&general);
            counted.remove(&shape);
        }
    }
}

/// Whether every key of `shape` tells all that is needed for one of `general`.
fn generalises(general: Shape, shape: Shape) -> bool {
    general != shape
        && (general.subject == code::SUBJECT_NONE || general.subject == shape.subject)
        && (general.claim == NONE || (general.claim, general.claim_kind) == (shape.claim, shape.claim_kind))
        && (general.host == 0 || general.host == shape.host)
        && general.segments & !shape.segments == 0
        && (general.beginning == 0 || general.beginning == shape.beginning)
}
