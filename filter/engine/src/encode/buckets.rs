//! The hash table of the index: open addressing, at most half full.

use std::collections::BTreeMap;

use crate::index::{self, Shape};
use crate::layout::{code, word};

use super::clauses::Keys;

pub(super) struct Buckets {
    /// Tag and value; a tag of 0 is an empty bucket.
    pub buckets: Vec<(u32, u32)>,
    /// Runs of clauses, each preceded by its length.
    pub postings: Vec<u32>,
}

impl Buckets {
    pub fn build(keys: &Keys) -> Self {
        // Keys with the same hash share a bucket: their clauses are checked exactly anyway.
        let mut by_hash: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        for ((_, key), clauses) in keys {
            by_hash.entry(*key).or_default().extend_from_slice(clauses);
        }
        let capacity = (by_hash.len() * 2).next_power_of_two().max(2);
        let mask = word(capacity - 1);
        let mut buckets = vec![(0, 0); capacity];
        let mut postings = Vec::new();
        for (key, mut clauses) in by_hash {
            clauses.sort_unstable();
            clauses.dedup();
            let value = match clauses.as_slice() {
                [one] if *one < code::BUCKET_INLINE => *one | code::BUCKET_INLINE,
                many => {
                    let at = word(postings.len());
                    postings.push(word(many.len()));
                    postings.extend_from_slice(many);
                    at
                }
            };
            let mut at = index::home(key, mask);
            // At most half of the buckets are taken: an empty one is found.
            for _ in 0..capacity {
                match usize::try_from(at).ok().and_then(|at| buckets.get_mut(at)) {
                    Some(bucket) if bucket.0 == 0 => {
                        *bucket = (index::tag(key), value);
                        break;
                    }
                    _ => at = at.wrapping_add(1) & mask,
                }
            }
        }
        Self { buckets, postings }
    }
}

/// Marks a key that has no clauses, only its presence.
pub(super) fn presence(keys: &mut Keys, subject: u64) {
    let shape: Shape = index::TOKEN_REQUIRED;
    keys.entry((shape, index::key(shape, subject, 0, 0))).or_default();
}
