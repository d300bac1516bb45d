//! Tokens that were verified before.
//!
//! Only verified tokens get in, so nobody without a trusted issuer's signature can fill or steer the cache. A hit means
//! that the *whole* text is the same: neither the signature (ECDSA signatures have two spellings) nor a digest stands
//! for the token. What else has to hold at each use (time, keys, header, binding) is checked by the caller.
//!
//! INVARIANT: at most [`CacheLimits::max_entries`] entries and [`CacheLimits::max_bytes`] bytes; `index` and `entries`
//! name each other. What does not fit is not cached.

use core::fmt;
use core::hash::{BuildHasherDefault, Hasher};
use std::collections::HashMap;
use std::sync::Arc;

use tidegate_engine::scan::same;
use tidegate_engine::{ClaimValue, VerifiedToken};

#[cfg(test)]
mod tests;

/// Bounds of the cache of verified tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimits {
    /// Tokens.
    pub max_entries: usize,
    /// Bytes of tokens and of what is kept of them.
    pub max_bytes: usize,
}

pub(crate) struct TokenCache {
    limits: CacheLimits,
    index: HashMap<u64, usize, BuildHasherDefault<Identity>>,
    entries: Vec<Entry>,
    bytes: usize,
    /// Where the search for a victim goes on (second chance).
    hand: usize,
}

pub(crate) struct Entry {
    hash: u64,
    text: Box<[u8]>,
    used: bool,
    weight: usize,
    pub kept: Kept,
}

/// What is kept of a verified token.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    /// Policy index of its issuer.
    pub issuer: usize,
    /// Which list of slots `verified` follows.
    pub layout: u32,
    /// See [`crate::token::VerifiedClaims`].
    pub not_before: i64,
    /// See [`crate::token::VerifiedClaims`].
    pub certificate: Option<[u8; 32]>,
    /// See [`crate::token::VerifiedClaims`].
    pub key: usize,
    /// For the engine.
    pub verified: Arc<VerifiedToken>,
}

/// Bytes of an entry besides its text and strings, roughly.
const ENTRY_BYTES: usize = 256;

// === impl CacheLimits ===

impl Default for CacheLimits {
    /// 1024 tokens, 1 MiB.
    fn default() -> Self {
        Self { max_entries: 1024, max_bytes: 1 << 20 }
    }
}

// === impl TokenCache ===

impl TokenCache {
    pub fn new(limits: CacheLimits) -> Self {
        Self { limits, index: HashMap::default(), entries: Vec::new(), bytes: 0, hand: 0 }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entry of exactly this text.
    pub fn get(&mut self, text: &[u8]) -> Option<&mut Kept> {
        let at = *self.index.get(&hash(text))?;
        let entry = self.entries.get_mut(at).filter(|entry| same(&entry.text, text))?;
        entry.used = true;
        Some(&mut entry.kept)
    }

    pub fn insert(&mut self, text: &[u8], kept: Kept) {
        self.remove(text);
        let hash = hash(text);
        if let Some(at) = self.index.get(&hash) {
            // Another token with this hash: one of them has to go.
            self.remove_at(*at);
        }
        let weight = weight(text, &kept.verified);
        if weight > self.limits.max_bytes || self.limits.max_entries == 0 {
            return;
        }
        let mut freed = None;
        while self.entries.len() >= self.limits.max_entries
            || self.bytes.saturating_add(weight) > self.limits.max_bytes
        {
            freed = self.evict();
            if freed.is_none() {
                return;
            }
        }
        let last = self.entries.len();
        self.index.insert(hash, last);
        self.entries.push(Entry { hash, text: text.into(), used: false, weight, kept });
        self.bytes = self.bytes.saturating_add(weight);
        // The newest entry takes the place of the one that went, behind the hand: it is the last to be asked again.
        if let Some(at) = freed.filter(|at| *at <= last) {
            self.entries.swap(at, last);
            for position in [at, last] {
                if let Some(entry) = self.entries.get(position) {
                    self.index.insert(entry.hash, position);
                }
            }
            self.hand = at.saturating_add(1);
        }
    }

    pub fn remove(&mut self, text: &[u8]) {
        if let Some(at) = self.index.get(&hash(text))
            && self.entries.get(*at).is_some_and(|entry| same(&entry.text, text))
        {
            self.remove_at(*at);
        }
    }

    /// Gives entries the issuer that `map` says for their issuer and text, and drops those for which it says none.
    pub fn retain(&mut self, map: impl Fn(usize, &[u8]) -> Option<usize>) {
        self.entries.retain_mut(|entry| match map(entry.kept.issuer, &entry.text) {
            Some(issuer) => {
                entry.kept.issuer = issuer;
                true
            }
            None => false,
        });
        self.index = self.entries.iter().enumerate().map(|(at, entry)| (entry.hash, at)).collect();
        self.bytes = self.entries.iter().fold(0, |sum: usize, entry| sum.saturating_add(entry.weight));
        self.hand = 0;
    }

    /// Drops the next entry that was not used since the hand last came by; returns its place. Two rounds always find one.
    fn evict(&mut self) -> Option<usize> {
        for _ in 0..=self.entries.len().saturating_mul(2) {
            if self.hand >= self.entries.len() {
                self.hand = 0;
            }
            match self.entries.get_mut(self.hand) {
                None => return None,
                Some(entry) if entry.used => {
                    entry.used = false;
                    self.hand = self.hand.saturating_add(1);
                }
                Some(_) => {
                    self.remove_at(self.hand);
                    return Some(self.hand);
                }
            }
        }
        None
    }

    fn remove_at(&mut self, at: usize) {
        if at >= self.entries.len() {
            return;
        }
        let entry = self.entries.swap_remove(at);
        self.index.remove(&entry.hash);
        self.bytes = self.bytes.saturating_sub(entry.weight);
        if let Some(moved) = self.entries.get(at) {
            self.index.insert(moved.hash, at);
        }
    }
}

/// Tokens are not for logs.
impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limits, entries, bytes, .. } = self;
        f.debug_struct("TokenCache")
            .field("limits", limits)
            .field("entries", &entries.len())
            .field("bytes", bytes)
            .finish_non_exhaustive()
    }
}

fn weight(text: &[u8], token: &VerifiedToken) -> usize {
    let string = |string: &String| string.len().saturating_add(size_of::<String>());
    let strings = |strings: &[String]| strings.iter().map(string).fold(0, usize::saturating_add);
    let slots = token.slots.iter().map(|slot| {
        size_of::<ClaimValue>().saturating_add(match slot {
            ClaimValue::String(value) => value.len(),
            ClaimValue::Strings(values) => strings(values),
            ClaimValue::Absent
            | ClaimValue::Unknown
            | ClaimValue::Boolean(_)
            | ClaimValue::Integer(_)
            | ClaimValue::Other => 0,
        })
    });
    [ENTRY_BYTES, text.len(), strings(&token.audiences)]
        .into_iter()
        .chain(slots)
        .fold(0, usize::saturating_add)
}

/// A hash of the last 64 bytes, which belong to the signature: only an issuer chooses them, and they differ wherever
/// tokens do. Collisions cost a verification, never a wrong answer.
fn hash(text: &[u8]) -> u64 {
    let tail = text.get(text.len().saturating_sub(64)..).unwrap_or_default();
    let mut hash = 0x243f_6a88_85a3_08d3;
    for chunk in tail.chunks(8) {
        let word = match <[u8; 8]>::try_from(chunk) {
            Ok(bytes) => u64::from_le_bytes(bytes),
            Err(_) => chunk.iter().fold(0, |word, byte| (word << 8) | u64::from(*byte)),
        };
        hash = (u64::rotate_left(hash, 5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
    hash ^ (hash >> 32)
}

/// The key is a hash already.
#[derive(Debug, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) | u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
