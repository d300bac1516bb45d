//! Finding again what was written already.
//!
//! INVARIANT: none of this is part of the format. What is found and what is not does not depend on hashes.

use std::hash::{BuildHasher, RandomState};

use crate::layout::{NONE, size};

/// The index's own hash is quick. Begun with a number that nobody knows, so that nobody writes rules that collide.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seed(u64);

/// Numbers of things by the things' hashes. The things are elsewhere.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// A part of the hash, and the number, which is [`NONE`] where there is nothing. As many as a power of two.
    slots: Vec<(u32, u32)>,
    count: usize,
}

/// Where something can be put that was not found.
#[derive(Debug)]
pub(super) struct Free {
    at: usize,
    tag: u32,
}

// === impl Seed ===

impl Default for Seed {
    fn default() -> Self {
        Self(RandomState::new().hash_one(0))
    }
}

impl Seed {
    pub fn number(self) -> u64 {
        self.0
    }
}

// === impl Found ===

impl Found {
    /// There may be about so many.
    pub fn with_capacity(count: usize) -> Self {
        let slots = count.saturating_mul(2).checked_next_power_of_two().unwrap_or(16);
        Self { slots: vec![(0, NONE); slots], count: 0 }
    }

    /// What has this hash and `is_it`, or where it can be put.
    #[inline]
    pub fn get_or_insert(&mut self, hash: u64, is_it: impl Fn(u32) -> bool) -> Result<u32, Free> {
        if self.slots.len() <= self.count.saturating_mul(2) {
            self.grow();
        }
        let (tag, mask) = (tag(hash), self.slots.len().wrapping_sub(1));
        let mut at = size(tag) & mask;
        // There are free ones.
        while let Some((known, number)) = self.slots.get(at) {
            if *number == NONE {
                break;
            }
            if *known == tag && is_it(*number) {
                return Ok(*number);
            }
            at = at.wrapping_add(1) & mask;
        }
        Err(Free { at, tag })
    }

    /// Nothing was put anywhere since it was looked for.
    #[inline]
    pub fn insert(&mut self, free: Free, number: u32) {
        if let Some(slot) = self.slots.get_mut(free.at) {
            *slot = (free.tag, number);
            self.count = self.count.saturating_add(1);
        }
    }

    fn grow(&mut self) {
        let more = self.slots.len().saturating_mul(2).max(16);
        let before = std::mem::replace(&mut self.slots, vec![(0, NONE); more]);
        let mask = more.wrapping_sub(1);
        for (tag, number) in before.into_iter().filter(|(_, number)| *number != NONE) {
            let mut at = size(tag) & mask;
            while self.slots.get(at).is_some_and(|(_, number)| *number != NONE) {
                at = at.wrapping_add(1) & mask;
            }
            if let Some(slot) = self.slots.get_mut(at) {
                *slot = (tag, number);
            }
        }
    }
}

/// The lower half: it depends on all of what was hashed.
fn tag(hash: u64) -> u32 {
    u32::try_from(hash & 0xFFFF_FFFF).unwrap_or(0)
}
