//! Makes what filters say fit to be kept and shown.
//!
//! INVARIANT: what comes out is at most as long as was asked, holds nothing that a terminal obeys or hides, and nothing
//! that looks like a signed token.

use std::borrow::Cow;

/// What stands for a token that should not have been there.
pub const REMOVED: &str = "[token removed]";
/// A JSON object in base64url begins so: `{"`.
const JWT: &str = "eyJ";
/// Nothing that begins so and is shorter is a JOSE header.
const SHORTEST_JWT: usize = 16;
/// How opaque tokens of Google, GitLab and GitHub begin.
const OPAQUE: [&str; 9] =
    ["ya29.", "glpat-", "glcbt-", "gldt-", "ghp_", "gho_", "ghs_", "ghu_", "github_pat_"];

/// A text of at most `most` bytes.
pub fn text(raw: &str, most: usize) -> String {
    // Cut first: nobody pays for what is thrown away. A token that is cut is still one.
    let cut = raw.get(..raw.floor_char_boundary(most)).unwrap_or_default();
    let is_plain = cut.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let shown = match is_plain {
        true => Cow::Borrowed(cut),
        false => cut.chars().map(|c| if is_hidden(c) { char::REPLACEMENT_CHARACTER } else { c }).collect(),
    };
    let mut shown = without_tokens(&shown).into_owned();
    if shown.contains('%') {
        let decoded = decoded(&shown);
        if find(&decoded).is_some() {
            shown = text(&decoded, most);
        }
    }
    shown.truncate(shown.floor_char_boundary(most));
    shown
}

/// Percent-decoded (RFC 3986 §2.1), as far as it is text.
pub fn decoded(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Characters that terminals obey, and those that nobody sees.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// What a token may consist of; `%` for what is encoded in a path.
fn is_of_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '=' | '%' | '~' | '+')
}

/// Replaces everything from where a token may begin to where it must end.
fn without_tokens(text: &str) -> Cow<'_, str> {
    let Some((start, end)) = find(text) else { return Cow::Borrowed(text) };
    let mut clean = String::with_capacity(text.len());
    let (mut rest, mut at) = (text, (start, end));
    loop {
        let (before, after) = (rest.get(..at.0).unwrap_or_default(), rest.get(at.1..).unwrap_or_default());
        clean.push_str(before);
        clean.push_str(REMOVED);
        rest = after;
        match find(rest) {
            Some(next) => at = next,
            None => break,
        }
    }
    clean.push_str(rest);
    Cow::Owned(clean)
}

/// Whether a token may begin somewhere: most texts are too short, or have nothing with which one begins.
fn may_begin(text: &str) -> bool {
    let begins = |three: &[u8]| {
        matches!(
            three,
            b"eyJ" | b"ya2" | b"glp" | b"glc" | b"gld" | b"ghp" | b"gho" | b"ghs" | b"ghu" | b"git"
        )
    };
    text.len() >= SHORTEST_JWT && text.as_bytes().windows(3).any(begins)
}

/// The first token: where it begins and ends.
fn find(text: &str) -> Option<(usize, usize)> {
    if !may_begin(text) {
        return None;
    }
    let end_of = |start: usize| {
        let rest = text.get(start..).unwrap_or_default();
        start + rest.find(|c| !is_of_token(c)).unwrap_or(rest.len())
    };
    let jwt = text
        .match_indices(JWT)
        .map(|(start, _)| (start, end_of(start)))
        .find(|(start, end)| end - start >= SHORTEST_JWT);
    let is_start = |start: usize| {
        !text.get(..start).is_some_and(|before| before.ends_with(|c: char| c.is_ascii_alphanumeric()))
    };
    let opaque = OPAQUE.iter().flat_map(|prefix| text.match_indices(prefix)).filter_map(|(start, prefix)| {
        let end = end_of(start);
        (is_start(start) && end - start >= prefix.len() + SHORTEST_JWT).then_some((start, end))
    });
    jwt.into_iter().chain(opaque).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl";

    #[test]
    fn tokens_are_replaced_wherever_they_are() {
        for (raw, expected) in [
            (TOKEN.to_owned(), REMOVED.to_owned()),
            (format!("/v1/{TOKEN}/x"), format!("/v1/{REMOVED}/x")),
            (format!("/v1/a;t={TOKEN},{TOKEN}"), format!("/v1/a;t={REMOVED},{REMOVED}")),
            (format!("Bearer%20{TOKEN}"), format!("Bearer%20{REMOVED}")),
            (format!("x{TOKEN}"), format!("x{REMOVED}")),
            (TOKEN.replace('.', "%2E"), REMOVED.to_owned()),
            (format!("/a%2Fb/{}", TOKEN.replace("eyJ", "%65%79%4a")), format!("/a/b/{REMOVED}")),
            (TOKEN.split('.').next().unwrap().to_owned(), REMOVED.to_owned()),
            ("/a/ya29.A0ARrdaM-0123456789abcdef/b".to_owned(), format!("/a/{REMOVED}/b")),
            ("glpat-0123456789abcdefghij".to_owned(), REMOVED.to_owned()),
        ] {
            assert_eq!(text(&raw, 1_000), expected, "{raw}");
        }
    }

    #[test]
    fn a_token_that_is_cut_off_is_still_replaced() {
        for most in 0..TOKEN.len() + 4 {
            let shown = text(&format!("/a/{TOKEN}"), most);
            assert!(shown.len() <= most && !shown.contains("eyJhbGciOiJSUzI1"), "{most}: {shown}");
        }
    }

    #[test]
    fn everything_with_which_a_token_begins_is_looked_at() {
        for begin in OPAQUE.into_iter().chain([JWT]) {
            assert!(may_begin(&format!("/{begin}{}", "x".repeat(SHORTEST_JWT))), "{begin}");
            let whole = format!("{begin}{}", "x".repeat(SHORTEST_JWT));
            assert_eq!(text(&whole, 100), REMOVED, "{begin}");
        }
        assert!(!may_begin("/v1/projects/acme/topics/orders:publish"));
    }

    #[test]
    fn what_is_no_token_stays() {
        for raw in
            ["", "/v1/orders/7", "eyJ", "/keyJar/a", "ghp_", "highs_and_lows_of_everything_here", "größe"]
        {
            assert_eq!(text(raw, 100), raw);
        }
    }

    #[test]
    fn what_terminals_obey_is_replaced_and_everything_is_cut_at_a_character() {
        assert_eq!(text("a\u{1b}[2J\u{202e}\n\u{0}b", 100), "a\u{fffd}[2J\u{fffd}\u{fffd}\u{fffd}b");
        assert_eq!(text("ééé", 3), "é");
        assert!(text(&"\u{1}".repeat(50), 50).len() <= 50);
    }
}
