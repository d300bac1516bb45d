//! Compares and searches eight bytes at a time. In wasm32 the standard library takes them one by one, or four at a time with
//! much ado.

/// The same byte eight times.
pub const fn each(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// The highest bit of the first byte that is zero, and of some that follow it; nothing where no byte is.
pub const fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(each(1)) & !word & each(0x80)
}

/// Of the first byte whose highest bit is set.
fn first(bits: u64) -> Option<usize> {
    if bits == 0 { None } else { usize::try_from(bits.trailing_zeros() / 8).ok() }
}

/// Where the first byte is that `among` finds in words and `is` finds alone.
pub fn search(text: &[u8], among: impl Fn(u64) -> u64, is: impl Fn(u8) -> bool) -> Option<usize> {
    let (words, rest) = text.as_chunks::<8>();
    let mut at: usize = 0;
    for word in words {
        if let Some(within) = first(among(u64::from_le_bytes(*word))) {
            return Some(at.saturating_add(within));
        }
        at = at.saturating_add(8);
    }
    rest.iter().position(|byte| is(*byte)).map(|within| at.saturating_add(within))
}

/// Whether two texts are the same.
#[inline]
pub fn same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    // What is left over at the end is looked at together with some bytes before it.
    if let (Some(end), Some(other_end)) = (one.last_chunk::<8>(), other.last_chunk::<8>()) {
        let ((words, _), (other_words, _)) = (one.as_chunks::<8>(), other.as_chunks::<8>());
        return words
            .iter()
            .zip(other_words)
            .all(|(word, other)| u64::from_le_bytes(*word) == u64::from_le_bytes(*other))
            && u64::from_le_bytes(*end) == u64::from_le_bytes(*other_end);
    }
    if let (Some(start), Some(other_start), Some(end), Some(other_end)) =
        (one.first_chunk::<4>(), other.first_chunk::<4>(), one.last_chunk::<4>(), other.last_chunk::<4>())
    {
        return u32::from_le_bytes(*start) == u32::from_le_bytes(*other_start)
            && u32::from_le_bytes(*end) == u32::from_le_bytes(*other_end);
    }
    one.iter().zip(other).all(|(byte, other)| byte == other)
}

/// Where this byte is first.
pub fn position(text: &[u8], byte: u8) -> Option<usize> {
    search(text, |word| zero_bytes(word ^ each(byte)), |other| other == byte)
}

/// What stands before the first such byte, and what follows it; the whole text and nothing without one.
#[inline]
pub fn before(text: &[u8], byte: u8) -> (&[u8], &[u8]) {
    match position(text, byte).and_then(|at| text.split_at_checked(at)) {
        Some((before, rest)) => (before, rest.get(1..).unwrap_or_default()),
        None => (text, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::{before, each, position, same, search, zero_bytes};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// Every byte at every place of texts around the size of a word, among others that could be taken for it.
    #[test]
    fn finds_what_a_simple_search_finds() {
        for length in 0..20 {
            for at in 0..length {
                for byte in 0..=u8::MAX {
                    for filler in [b'a', 0x21, 0x80, 0xff, byte ^ 1, byte ^ 0x80] {
                        let mut text = vec![filler; length];
                        text[at] = byte;
                        let simple = text.iter().position(|other| *other == b'.');
                        assert_eq!(position(&text, b'.'), simple, "{text:?}");
                        let low = search(&text, |word| zero_bytes(word & each(0xe0)), |byte| byte < 0x20);
                        assert_eq!(low, text.iter().position(|other| *other < 0x20), "{text:?}");
                        let other = vec![filler; length];
                        assert_eq!(same(&text, &other), text == other, "{text:?}");
                    }
                }
            }
        }
        for length in 0..40 {
            let text: Vec<u8> = (0..length).collect();
            for at in 0..text.len() {
                let mut other = text.clone();
                assert!(same(&text, &other), "{length}");
                other[at] ^= 0x80;
                assert!(!same(&text, &other), "{length} bytes, which differ at {at}");
            }
        }
        assert_eq!(before(b"ab/c/d", b'/'), (&b"ab"[..], &b"c/d"[..]));
        assert_eq!(before(b"/", b'/'), (&b""[..], &b""[..]));
        assert_eq!(before(b"ab", b'/'), (&b"ab"[..], &b""[..]));
        assert!(same(b"", b"") && !same(b"", b"a") && !same(b"12345678", b"123456789"));
    }
}
