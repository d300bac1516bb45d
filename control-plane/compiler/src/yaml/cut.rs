//! Cuts files into pieces, each of which can be read without the others.
//!
//! INVARIANT: where every piece is written plainly (see [`super::plain`]), the documents of the pieces are those of the file, in
//! the same places: what is plain ends before a line of `---`, and nothing that is plain goes on behind one.

use super::parse::{MAX_DOCUMENTS, MAX_FILE_BYTES};

/// Documents of a piece.
const PER_PIECE: usize = 64;

/// A shorter text is not worth it.
const SHORT: usize = 32 << 10;

/// Pieces of a text, one behind the other, and how many lines there are before each. `None`: there would be one, or there is
/// more in all of them than a file may have.
pub(crate) fn cut(text: &str) -> Option<Vec<(u32, &str)>> {
    if !(SHORT..=MAX_FILE_BYTES).contains(&text.len()) {
        return None;
    }
    let mut pieces = Vec::new();
    let (mut begin, mut begin_line) = (0_usize, 0_u32);
    let (mut at, mut lines, mut documents) = (0_usize, 0_u32, 0_usize);
    for line in text.split_inclusive('\n') {
        if line == "---\n" && at > begin {
            documents = documents.saturating_add(1);
            if documents == PER_PIECE {
                pieces.push((begin_line, text.get(begin..at)?));
                (begin, begin_line, documents) = (at, lines, 0);
            }
        }
        at = at.saturating_add(line.len());
        lines = lines.saturating_add(1);
    }
    pieces.push((begin_line, text.get(begin..)?));
    (2..=MAX_DOCUMENTS / PER_PIECE).contains(&pieces.len()).then_some(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::{Document, parse_each};

    fn read(text: &str, lines: u32) -> (Vec<Document<'_>>, bool) {
        let mut documents = Vec::new();
        let read = parse_each(text, lines, |document| documents.push(document));
        (documents, read.is_plain && read.faults.is_empty())
    }

    /// What the pieces say, and whether all of them are plain.
    fn in_pieces(text: &str) -> Option<(Vec<Document<'_>>, bool)> {
        let mut all = (Vec::new(), true);
        let pieces = cut(text)?;
        assert_eq!(pieces.iter().map(|(_, piece)| *piece).collect::<String>(), text);
        for (lines, piece) in pieces {
            let (documents, is_plain) = read(piece, lines);
            all.0.extend(documents);
            all.1 &= is_plain;
        }
        Some(all)
    }

    fn many(first: &str, document: &str, between: &str) -> String {
        first.to_owned() + &vec![document; 500].join(between)
    }

    #[test]
    fn pieces_say_what_the_file_says_where_all_are_plain() {
        let long = format!("a: {}\nb:\n- c\n", "x".repeat(100));
        for (first, between) in [
            ("", "---\n"),
            ("---\n", "---\n"),
            ("# first\n\n", "# one more\n\n---\n# and one\n"),
            ("", "\n\n  # ---\n---\n"),
            ("a: '---'\n---\n", "---\n"),
        ] {
            let text = many(first, &long, between);
            let (documents, is_plain) = in_pieces(&text).expect("it is long enough");
            assert!(is_plain, "{first:?} {between:?}");
            assert!((documents, is_plain) == read(&text, 0), "{first:?} {between:?}");
        }
    }

    /// Whatever a line of `---` is in the middle of is no piece by itself.
    #[test]
    fn what_goes_on_behind_a_mark_is_not_plain() {
        let long = format!("a: {}\n", "x".repeat(100));
        for odd in [
            "a: |\n  b\n---\n",
            "a: \"b\n---\nc\"\n",
            "a: 'b\n---\nc'\n",
            "{a: b,\n---\nc: d}\n",
            "a: [b,\n---\nc]\n",
            "a: b\n...\n---\n",
            "---\n---\n",
            "# nothing\n---\n---\n",
            "a:\n---\n",
            "a: &b c\n---\nd: *b\n",
            "--- |\n---\n",
            "a: b\r\n---\n",
        ] {
            let text = many("", &long, "---\n") + "---\n" + odd + &long;
            let (_, is_plain) = in_pieces(&text).expect("it is long enough");
            assert!(!is_plain, "{odd:?}");
            let text = odd.to_owned() + "---\n" + &many("", &long, "---\n");
            let (_, is_plain) = in_pieces(&text).expect("it is long enough");
            assert!(!is_plain, "{odd:?} first");
        }
    }

    #[test]
    fn a_file_that_is_short_or_too_large_is_not_cut() {
        assert!(cut("").is_none());
        assert!(cut(&"a: b\n---\n".repeat(200)).is_none());
        assert!(cut(&format!("a: {}\n", "x".repeat(MAX_FILE_BYTES / 2))).is_none());
        assert!(cut(&format!("a: {}\n---\n", "x".repeat(100)).repeat(MAX_DOCUMENTS + 100)).is_none());
        assert!(cut(&"a: b\n---\n".repeat(MAX_DOCUMENTS + 100)).is_none());
        assert!(cut(&"a: b\n---\n".repeat(5_000)).is_some());
    }
}
