//! The hash of the index. Part of the format: it must give the same value on every machine, forever.
//!
//! It needs no strength against chosen input: the table is filled from rules, a request only probes it, and every
//! candidate is checked exactly.

/// Where a hash begins.
pub(crate) const SEED: u64 = 0x9E37_79B9_7F4A_7C15;

const MULTIPLIER: u64 = 0xD6E8_FEB8_6659_FD93;

/// Adds one number.
#[inline]
pub(crate) fn number(hash: u64, value: u64) -> u64 {
    let mixed = (hash ^ value).wrapping_mul(MULTIPLIER);
    mixed ^ (mixed >> 32)
}

/// Adds bytes; their length is part of it, so that `("ab", "c")` and `("a", "bc")` differ.
#[inline]
pub(crate) fn bytes(hash: u64, value: &[u8]) -> u64 {
    let mut hash = number(hash, u64::try_from(value.len()).unwrap_or(u64::MAX));
    let (words, tail) = value.as_chunks::<8>();
    for word in words {
        hash = number(hash, u64::from_le_bytes(*word));
    }
    if !tail.is_empty() {
        let mut last = 0u64;
        for byte in tail {
            last = (last << 8) | u64::from(*byte);
        }
        hash = number(hash, last);
    }
    hash
}
