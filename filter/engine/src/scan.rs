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
pub fn same(one: &[u8], other: &[u8]) -> bool {
    let ((words, rest), (other_words, other_rest)) = (one.as_chunks::<8>(), other.as_chunks::<8>());
    let equal = |(word, other): (&[u8; 8], &[u8; 8])| u64::from_le_bytes(*word) == u64::from_le_bytes(*other);
    one.len() == other.len()
        && words.iter().zip(other_words).all(equal)
        && rest.iter().zip(other_rest).all(|(byte, other)| byte == other)
}

/// Where this byte is first.
pub fn position(text: &[u8], byte: u8) -> Option<usize> {
    search(text, |word| zero_bytes(word ^ each(byte)), |other| other == byte)
}

#[cfg(test)]
mod tests {
    use super::{each, position, same, search, zero_bytes};
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
        assert!(same(b"", b"") && !same(b"", b"a") && !same(b"12345678", b"123456789"));
    }
}
