//! Chooses by which shapes rules are looked up.
//!
//! Each shape costs a request one look-up, and each candidate a check. So every rule is first filed under everything that
//! it demands literally; then parts are left away as long as few rules share a key; then shapes of few rules are merged
//! into more general ones. What is left are the parts that tell rules apart, whichever these are in a policy: callers that
//! differ for the same paths, or paths that differ for the same caller.

use std::collections::BTreeMap;

use crate::index::Shape;
use crate::layout::{NONE, Table, code};

use super::Writer;
use super::clauses::Item;

/// Most shapes that a policy may have.
const MAX_SHAPES: usize = 16;

/// So many rules may share a key before another part is worth its look-up.
const FEW: usize = 4;

/// The shape that finds a rule for every request.
const EMPTY: Shape =
    Shape { subject: code::SUBJECT_NONE, claim: NONE, claim_kind: 0, host: 0, segments: 0, beginning: 0 };

/// Items by shape.
type Groups = BTreeMap<Shape, Vec<Item>>;

/// Writes the shapes; returns every entry of the index.
pub(super) fn file(writer: &mut Writer<'_>, items: &[Item]) -> Vec<(u64, u32)> {
    let mut full = Groups::new();
    for item in items {
        full.entry(item.shape()).or_default().push(*item);
    }
    let mut groups = Groups::new();
    for (shape, items) in full {
        groups.entry(lessened(shape, &items)).or_default().extend(items);
    }
    merge(&mut groups);
    let mut entries = Vec::new();
    for (shape, items) in &groups {
        writer.push(Table::Shapes, &shape.words());
        entries.extend(keys(*shape, items));
    }
    entries
}

/// Keys and targets, in order, none twice.
fn keys<'i>(shape: Shape, items: impl IntoIterator<Item = &'i Item>) -> Vec<(u64, u32)> {
    let salt = shape.salt();
    let mut keys: Vec<(u64, u32)> =
        items.into_iter().map(|item| (item.key(shape, salt), item.target)).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Whether few targets share a key, at most and on the average.
fn is_selective(keys: &[(u64, u32)]) -> bool {
    let (mut most, mut squares) = (0, 0);
    for same in keys.chunk_by(|(a, _), (b, _)| a == b) {
        most = most.max(same.len());
        squares += same.len() * same.len();
    }
    // The average over those that look for something: a key of many targets is looked for more often.
    most <= FEW && 2 * squares <= 3 * keys.len()
}

/// The shape without the parts that are not needed to tell these items apart.
fn lessened(full: Shape, items: &[Item]) -> Shape {
    // For what cannot be told rules are not told apart anyway.
    let told = || items.iter().filter(|item| !item.untellable());
    if !is_selective(&keys(full, told())) {
        return full;
    }
    let mut shape = full;
    let mut attempt = |change: &dyn Fn(&mut Shape)| {
        let mut lesser = shape;
        change(&mut lesser);
        if lesser != shape && lesser != EMPTY && is_selective(&keys(lesser, told())) {
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

/// Whether every key of `shape` tells all that is needed for one of `general`.
fn generalises(general: Shape, shape: Shape) -> bool {
    general != shape
        && (general.subject == code::SUBJECT_NONE || general.subject == shape.subject)
        && (general.claim == NONE || (general.claim, general.claim_kind) == (shape.claim, shape.claim_kind))
        && (general.host == 0 || general.host == shape.host)
        && general.segments & !shape.segments == 0
        && (general.beginning == 0 || general.beginning == shape.beginning)
}

/// Merges shapes of few items into more general ones: where these stay selective, and until there are not too many.
fn merge(groups: &mut Groups) {
    let mut filed: BTreeMap<Shape, Vec<(u64, u32)>> =
        groups.iter().map(|(shape, items)| (*shape, keys(*shape, items))).collect();
    let mut shapes: Vec<Shape> = filed.keys().copied().collect();
    // The smallest first.
    shapes.sort_by_key(|shape| (filed.get(shape).map_or(0, Vec::len), *shape));
    for shape in shapes {
        let Some(items) = groups.get(&shape) else { continue };
        let forced = groups.len() > MAX_SHAPES;
        let mut best: Option<(usize, Shape)> = None;
        let candidates = groups.keys().copied().chain([EMPTY]).filter(|general| generalises(*general, shape));
        for general in candidates {
            let there = filed.get(&general).map_or(&[][..], Vec::as_slice);
            let most = most_shared(there, &keys(general, items));
            // A candidate for every request costs more than a look-up.
            let allowed = general != EMPTY && most <= FEW;
            if (allowed || forced) && best.is_none_or(|(least, _)| most < least) {
                best = Some((most, general));
            }
        }
        let Some((_, general)) = best else { continue };
        let items = groups.remove(&shape).unwrap_or_default();
        let target = groups.entry(general).or_default();
        target.extend(items);
        filed.insert(general, keys(general, &*target));
        filed.remove(&shape);
    }
}

/// How many targets would share a key, of those that `added` has.
fn most_shared(there: &[(u64, u32)], added: &[(u64, u32)]) -> usize {
    let shared = added.chunk_by(|(a, _), (b, _)| a == b).map(|same| {
        let Some((key, _)) = same.first() else { return 0 };
        let (low, high) =
            (there.partition_point(|(at, _)| at < key), there.partition_point(|(at, _)| at <= key));
        same.len() + high.saturating_sub(low)
    });
    shared.max().unwrap_or(0)
}
