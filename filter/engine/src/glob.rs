//! Globs: `*` stands for zero or more bytes, everything else for itself.

/// Whether the whole of `text` matches `pattern`. Time is bounded by the product of the lengths; there is no recursion
/// and no exponential case (the leftmost place for each literal piece is always as good as any other).
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let mut pieces = pattern.split(|byte| *byte == b'*');
    let Some(prefix) = pieces.next() else { return text.is_empty() };
    let Some(mut rest) = text.strip_prefix(prefix) else { return false };
    let Some(mut piece) = pieces.next() else { return rest.is_empty() };
    for next in pieces {
        match find(rest, piece) {
            Some(after) => rest = after,
            None => return false,
        }
        piece = next;
    }
    // The last piece is anchored at the end.
    rest.ends_with(piece)
}

/// Whether `needle` is somewhere in `text`.
pub(crate) fn contains(text: &[u8], needle: &[u8]) -> bool {
    find(text, needle).is_some()
}

/// What follows the leftmost occurrence of `needle`.
fn find<'t>(text: &'t [u8], needle: &[u8]) -> Option<&'t [u8]> {
    let mut rest = text;
    loop {
        if let Some(after) = rest.strip_prefix(needle) {
            return Some(after);
        }
        rest = rest.get(1..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
    #[test]
    fn matches_the_whole_text_and_nothing_less() {
        let table: [(&str, &str, bool); 16] = [
            ("orders", "orders", true),
            ("orders", "orders-2", false),
            ("orders-*", "orders-etl", true),
            ("orders-*", "orders-", true),
            ("orders-*", "orders", false),
            ("*-etl", "orders-etl", true),
            ("*-etl", "orders-etl2", false),
            ("a*b*c", "a--b--c", true),
            ("a*b*c", "a--c--b", false),
            ("a*b", "ab", true),
            ("a*a", "a", false),
            ("*", "", true),
            ("*", "anything", true),
            ("**", "anything", true),
            ("", "", true),
            ("", "x", false),
        ];
        for (pattern, text, expected) in table {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} on {text}");
        }
    }
}
