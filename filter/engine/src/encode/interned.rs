//! Finding again what was written already.
//!
//! INVARIANT: none of this is part of the format. What is found and what is not does not depend on hashes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use crate::hash;

/// The index's own hash is quick. Begun with a number that nobody knows, so that nobody writes rules that collide.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seed(u64);

pub(super) struct QuickHasher(u64);

/// A map of the writer.
pub(super) type Map<K, V> = HashMap<K, V, Seed>;

/// Texts and where they are.
pub(super) type Texts<'m> = Map<Cow<'m, str>, u32>;

// === impl Seed ===

impl Default for Seed {
    fn default() -> Self {
        Self(RandomState::new().hash_one(0))
    }
}

impl BuildHasher for Seed {
    type Hasher = QuickHasher;

    fn build_hasher(&self) -> QuickHasher {
        QuickHasher(self.0)
    }
}

// === impl QuickHasher ===

impl Hasher for QuickHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash::bytes(self.0, bytes);
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(u64::from(number));
    }

    fn write_u16(&mut self, number: u16) {
        self.write_u64(u64::from(number));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = hash::number(self.0, number);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(u64::try_from(number).unwrap_or(u64::MAX));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
