//! Texts of others, made fit to be recorded: visible, short, without what looks like a token.
//!
//! A JWT is the base64url form of a JSON object, a dot, and more (RFC 7515, section 3.1). So what is looked for is base64 in
//! which such an object begins, wherever in a text it does: after white space that JSON allows, with its characters escaped for
//! a URL, or encoded once more.
//!
//! INVARIANT: what is told apart is left out as a whole; what merely looks like a token is, too.

/// Stands for what looks like a token.
const REDACTED: &[u8] = b"(token)";

/// Shortest run of letters of a token that is taken for one.
const MIN_TOKEN: usize = 16;

/// How often a URL's escapes are undone.
const MAX_ESCAPES: usize = 3;

/// How much of a run is looked at to see what begins there, in letters: a refused request costs little, whatever its path.
const LOOK: usize = 24;

/// Visible ASCII, not longer than this; anything else becomes `?`. Without what looks like a token.
pub fn safe(text: &[u8], most: usize) -> Vec<u8> {
    let text = text.get(..text.len().min(most)).unwrap_or_default();
    let mut safe = Vec::with_capacity(text.len());
    // Segments of a path, labels of a host, parts of an id.
    for piece in text.split_inclusive(|byte| matches!(byte, b'/' | b':' | b',' | b';' | b'=' | b'&' | b' ')) {
        if looks_like_token(piece) {
            safe.extend_from_slice(REDACTED);
            if piece.last() == Some(&b'/') {
                safe.push(b'/');
            }
            continue;
        }
        let visible = |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { *byte } else { b'?' };
        safe.extend(piece.iter().map(visible));
    }
    safe
}

fn looks_like_token(piece: &[u8]) -> bool {
    let mut text = piece.to_vec();
    for _ in 0..=MAX_ESCAPES {
        if holds_token(&text) {
            return true;
        }
        if !text.contains(&b'%') {
            break;
        }
        text = unescaped(&text);
    }
    false
}

/// Whether the base64 form of a JSON object begins anywhere in it, or the base64 form of that.
fn holds_token(text: &[u8]) -> bool {
    let mut run = 0;
    // From the end, so that the length of each run is known where it begins.
    (0..text.len()).rev().any(|at| {
        let rest = text.get(at..).unwrap_or_default();
        run = if rest.first().is_some_and(|byte| sextet(*byte).is_some()) { run + 1 } else { 0 };
        let letters = || rest.iter().copied().take(run.min(LOOK));
        run >= MIN_TOKEN && (begins_object(decoded(letters())) || begins_object(decoded(decoded(letters()))))
    })
}

/// White space, a brace, white space, and the first name: RFC 8259, section 4.
fn begins_object(json: impl Iterator<Item = u8>) -> bool {
    let mut letters = json.filter(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
    letters.next() == Some(b'{') && letters.next() == Some(b'"')
}

/// The bytes of base64 or base64url as far as it goes (RFC 4648, sections 4 and 5).
fn decoded(text: impl Iterator<Item = u8>) -> impl Iterator<Item = u8> {
    let bytes = text.map_while(sextet).scan((0_u16, 0_u8), |(bits, count), sextet| {
        *bits = *bits << 6 | u16::from(sextet);
        *count += 6;
        let [_, byte] = (*bits >> count.saturating_sub(8)).to_be_bytes();
        let is_whole = *count >= 8;
        *count -= if is_whole { 8 } else { 0 };
        Some(is_whole.then_some(byte))
    });
    bytes.flatten()
}

fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'-' | b'+' => Some(62),
        b'_' => Some(63),
        _ => None,
    }
}

/// With the escapes of a URL undone once (RFC 3986, section 2.1).
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let escaped = match rest {
            [b'%', high, low, ..] => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { rest.get(3..).unwrap_or_default() } else { after };
    }
    bytes
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};

    use super::*;

    const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl";

    fn redacted(text: &str) -> String {
        String::from_utf8(safe(text.as_bytes(), 1024)).unwrap()
    }

    #[test]
    fn what_looks_like_a_token_is_left_out_wherever_it_stands() {
        for (text, expected) in [
            (format!("/v1/{TOKEN}/rest"), "/v1/(token)/rest"),
            (format!("/v1/x={TOKEN}"), "/v1/x=(token)"),
            (format!("{TOKEN}.example"), "(token)"),
            (format!("/v1/a{TOKEN}"), "/v1/(token)"),
        ] {
            assert_eq!(redacted(&text), expected);
        }
        assert_eq!(safe(b"/abc", 2), b"/a");
    }

    #[test]
    fn no_other_form_of_a_token_gets_through() {
        let escaped = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
        for header in [
            "{\"alg\":\"RS256\"}",
            "{ \"alg\" : \"RS256\"}",
            " \n{\"alg\":\"RS256\"}",
            "\t{\r\n\t\"alg\":\"none\"}",
        ] {
            let token = format!("{}.e30.c2ln", BASE64_URL_SAFE_NO_PAD.encode(header));
            for form in [
                token.clone(),
                escaped(&token),
                escaped(&escaped(&token)),
                token.replacen("J", "%4A", 1),
                BASE64_STANDARD.encode(&token),
                BASE64_URL_SAFE_NO_PAD.encode(&token),
            ] {
                for before in ["", "a", "ab", "abc", "x."] {
                    let text = redacted(&format!("/v1/{before}{form}"));
                    assert!(text.starts_with("/v1/(token)"), "{header}: {before}{form} is told as {text}");
                }
            }
        }
    }

    #[test]
    fn what_is_none_is_told() {
        for (text, expected) in [
            ("/v1/eyJ/orders", "/v1/eyJ/orders"),
            ("/v1/\u{e9}\u{7}", "/v1/???"),
            (
                "/v1/projects/tidegate-production/topics/orders-2026-eu_west-1.changes",
                "/v1/projects/tidegate-production/topics/orders-2026-eu_west-1.changes",
            ),
            ("/v1/b/bucket/o/folder%2Fobject%zz%", "/v1/b/bucket/o/folder%2Fobject%zz%"),
            (
                "/4bf92f3577b34da6a3ce929d0e0e4736/0f067aa0ba902b7",
                "/4bf92f3577b34da6a3ce929d0e0e4736/0f067aa0ba902b7",
            ),
        ] {
            assert_eq!(redacted(text), expected);
        }
    }
}
