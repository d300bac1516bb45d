//! Keys of the index: what a clause demands literally, and what a request offers.
//!
//! A clause is filed under one *shape* — which subject it names, which claim it demands, how many literal segments its
//! path begins with — and under the hash of these values. A request is looked up once per shape that occurs. However many
//! rules there are, a request meets the clauses of its own subject, claim and path prefix, and those that name none.
//!
//! INVARIANT: a clause that matches a request, or may match it, is found: every part of its key is something that the
//! request must offer for the clause not to be false.

use crate::hash;
use crate::layout::{MAX_DEPTH, code};

/// Which parts a key has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Shape {
    /// `code::SUBJECT_*`.
    pub subject: u32,
    /// Issuer and slot of a demanded claim, as `issuer << 16 | slot`; `NONE` without.
    pub claim: u32,
    /// How many literal segments the path begins with.
    pub depth: u32,
}

/// The key's first part: it differs from shape to shape.
#[inline]
pub(crate) fn key(shape: Shape, subject: u64, claim: u64, prefix: u64) -> u64 {
    let shape_word = u64::from(shape.subject) << 40 | u64::from(shape.depth) << 32 | u64::from(shape.claim);
    hash::number(hash::number(hash::number(hash::number(hash::SEED, shape_word), subject), claim), prefix)
}

pub(crate) fn account_subject(trust_domain: &str, namespace: &str, account: &str) -> u64 {
    hash::bytes(namespace_subject(trust_domain, namespace), account.as_bytes())
}

pub(crate) fn namespace_subject(trust_domain: &str, namespace: &str) -> u64 {
    hash::bytes(hash::bytes(hash::SEED, trust_domain.as_bytes()), namespace.as_bytes())
}

pub(crate) fn claim_value(value: &str) -> u64 {
    hash::bytes(hash::SEED, value.as_bytes())
}

/// Extends the hash of a path prefix by one segment.
#[inline]
pub(crate) fn extend_prefix(prefix: u64, segment: &str) -> u64 {
    hash::bytes(prefix, segment.as_bytes())
}

/// Hashes of the path's prefixes by depth, up to [`MAX_DEPTH`] segments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prefixes {
    hashes: [u64; MAX_DEPTH + 1],
    depth: u32,
}

impl Prefixes {
    #[inline]
    pub fn of<'s>(segments: impl Iterator<Item = &'s str>) -> Self {
        let mut hashes = [hash::SEED; MAX_DEPTH + 1];
        let mut depth = 0;
        let mut prefix = hash::SEED;
        for (slot, segment) in hashes.iter_mut().skip(1).zip(segments) {
            prefix = extend_prefix(prefix, segment);
            *slot = prefix;
            depth += 1;
        }
        Self { hashes, depth }
    }

    /// `None` when the path has fewer segments.
    #[inline]
    pub fn at(&self, depth: u32) -> Option<u64> {
        if depth > self.depth {
            return None;
        }
        usize::try_from(depth).ok().and_then(|depth| self.hashes.get(depth)).copied()
    }
}

/// The tag that a bucket carries for a key: its upper half, never 0 (which marks an empty bucket).
pub(crate) fn tag(key: u64) -> u32 {
    u32::try_from(key >> 32).unwrap_or(0) | 1
}

/// Where the search for a key begins, in a table of `mask + 1` buckets.
pub(crate) fn home(key: u64, mask: u32) -> u32 {
    u32::try_from(key & u64::from(mask)).unwrap_or(0)
}

/// The subject that marks peers which are let in only with a token.
pub(crate) const TOKEN_REQUIRED: Shape =
    Shape { subject: code::SUBJECT_TOKEN_REQUIRED, claim: crate::layout::NONE, depth: 0 };

/// Subjects under [`TOKEN_REQUIRED`] that are no account or namespace.
pub(crate) const WITHOUT_PEER: u64 = 1;
pub(crate) const ANYONE: u64 = 2;

pub(crate) fn any_mesh_subject(trust_domain: &str) -> u64 {
    hash::bytes(hash::number(hash::SEED, 3), trust_domain.as_bytes())
}
