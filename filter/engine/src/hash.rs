//! The hash of the index. Part of the format: it must give the same value on every machine, forever.
//!
//! It needs no strength against chosen input: the table is filled from rules, a request only probes it, and every
//! candidate is checked exactly.

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
    let length = u64::try_from(value.len()).unwrap_or(u64::MAX);
    let mut hash = hash ^ length.rotate_left(56);
    let (words, tail) = value.as_chunks::<8>();
    for word in words {
        hash = number(hash, u64::from_le_bytes(*word));
    }
    let last = if tail.is_empty() && !words.is_empty() {
        return hash;
    } else if let Some(last) = value.last_chunk::<8>() {
        u64::from_le_bytes(*last)
    } else if let (Some(first), Some(last)) = (value.first_chunk::<4>(), value.last_chunk::<4>()) {
        u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32
    } else {
        tail.iter().fold(0, |last, byte| last << 8 | u64::from(*byte))
    };
    number(hash, last)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are part of the format.
    #[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
    #[test]
    fn gives_the_same_on_every_machine() {
        let text = b"abcdefghijklmnopqrst";
        let all: Vec<u64> =
            [0, 1, 3, 4, 7, 8, 9, 16, 20].iter().map(|length| bytes(1, &text[..*length])).collect();
        assert_eq!(all, EXPECTED);
        let mut different = all.clone();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), all.len());
    }

    const EXPECTED: [u64; 9] = [
        15485907387905278763,
        3053305471908745734,
        12939653023082920344,
        13632733497257586626,
        17793973484902857147,
        13032138790988228622,
        14162865816514367592,
        17898089511361979824,
        15758675334952997554,
    ];
}
