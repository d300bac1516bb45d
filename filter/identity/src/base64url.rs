//! base64url (RFC 4648 §5), strict: no padding, no other alphabet, no white space, and unused bits zero, so that every
//! byte string has exactly one spelling.

/// Value of each character, or [`NONE`].
static VALUES: [u8; 256] = values();
const NONE: u8 = 0xff;

const fn values() -> [u8; 256] {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut table = [NONE; 256];
    let mut i = 0;
    // A `const fn` has neither iterators nor `From`; indices are in range by the loop's bound and the table's size.
    #[allow(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)]
    while i < 64 {
        table[ALPHABET[i as usize] as usize] = i;
        i += 1;
    }
    table
}

/// The bits of a value; [`NONE`] has others.
const SEXTET: u8 = 0x3f;

/// The value of one character, if it is of the alphabet.
pub(crate) fn value(byte: u8) -> Option<u8> {
    Some(sextet(byte)).filter(|value| *value != NONE)
}

/// The value of one character, or [`NONE`].
fn sextet(byte: u8) -> u8 {
    VALUES.get(usize::from(byte)).copied().unwrap_or(NONE)
}

/// Decodes the canonical spelling; `None` for any other.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let (quads, rest) = text.as_chunks::<4>();
    let whole = quads.len().saturating_mul(3);
    let mut bytes = vec![0; whole];
    bytes.reserve_exact(2);
    let (triples, _) = bytes.as_chunks_mut::<3>();
    // Most tokens are well-formed: whether all characters were is found out in the end.
    let mut seen = 0;
    for (quad, triple) in quads.iter().zip(triples) {
        let [a, b, c, d] = quad.map(sextet);
        seen |= a | b | c | d;
        *triple = [(a << 2) | (b >> 4), (b << 4) | (c >> 2), (c << 6) | d];
    }
    // The bits that no byte takes up must be zero.
    let unused = match *rest {
        [] => 0,
        [a, b] => {
            let [a, b] = [a, b].map(sextet);
            seen |= a | b;
            bytes.push((a << 2) | (b >> 4));
            b & 0x0f
        }
        [a, b, c] => {
            let [a, b, c] = [a, b, c].map(sextet);
            seen |= a | b | c;
            bytes.extend([(a << 2) | (b >> 4), (b << 4) | (c >> 2)]);
            c & 0x03
        }
        _ => return None,
    };
    (seen & !SEXTET == 0 && unused == 0).then_some(bytes)
}

/// The canonical spelling.
pub(crate) fn encode(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let character = |sextet: u8| ALPHABET.get(usize::from(sextet & 0x3f)).copied().map_or('A', char::from);
    let mut text = String::with_capacity((bytes.len() / 3).saturating_mul(4).saturating_add(4));
    for chunk in bytes.chunks(3) {
        match *chunk {
            [a] => text.extend([a >> 2, a << 4].map(character)),
            [a, b] => text.extend([a >> 2, (a << 4) | (b >> 4), b << 2].map(character)),
            [a, b, c] => text.extend([a >> 2, (a << 4) | (b >> 4), (b << 2) | (c >> 6), c].map(character)),
            _ => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn decodes_what_it_encodes() {
        for bytes in
            [&b""[..], b"f", b"fo", b"foo", b"foob", b"fooba", b"foobar", &[0xff, 0xfe, 0x00], &[0; 4]]
        {
            assert_eq!(decode(encode(bytes).as_bytes()).as_deref(), Some(bytes), "{bytes:?}");
        }
        assert_eq!(encode(b"\xfb\xff"), "-_8");
    }

    #[test]
    fn refuses_every_other_spelling() {
        for text in
            ["Zg==", "Zg=", "Z", "Zm9v\n", " Zm9v", "Zm 9v", "+/8", "Zh", "Zm9", "Zm9vYg==", "Zm9v.", "Zé"]
        {
            assert_eq!(decode(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(decode(b"Zg").as_deref(), Some(&b"f"[..]));
        assert_eq!(decode(b"Zm8").as_deref(), Some(&b"fo"[..]));
    }
}
