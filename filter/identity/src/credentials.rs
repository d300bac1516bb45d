//! Where tokens are in a request.
//!
//! One header value is one credential. The scheme is compared without case and followed by exactly one space
//! (RFC 9110 §11.4), the token reaches to the end. Other servers and Envoy's own JWT filter search more generously, so
//! a value that hides something like a JWT anywhere else is never taken for "no credential".

use crate::jose;

#[cfg(test)]
mod tests;

/// A header in which tokens are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Lower case.
    pub name: String,
    /// What may precede the token there.
    pub schemes: Vec<Scheme>,
    /// All issuers of `schemes`, by policy index, each once.
    pub issuers: Vec<usize>,
}

/// A scheme and the issuers whose tokens follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scheme {
    /// `None`: the whole value is the token.
    pub prefix: Option<String>,
    /// By policy index.
    pub issuers: Vec<usize>,
}

/// What a value holds that is not in the right form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hidden<'v> {
    /// Nothing like a JWT.
    Nothing,
    /// Something like a JWT, under another scheme or with other white space.
    One(&'v [u8]),
    /// A list, or more than one.
    Several,
}

// === impl Place ===

impl Place {
    /// The scheme that the value has, and what follows it. Whether that is one token remains to be seen: most are in the
    /// cache, and nothing that is not one gets there.
    pub fn token<'v>(&self, value: &'v [u8]) -> Option<(&Scheme, &'v [u8])> {
        let after = |scheme: &str| {
            let (start, rest) = value.split_at_checked(scheme.len())?;
            start.eq_ignore_ascii_case(scheme.as_bytes()).then_some(())?;
            rest.strip_prefix(b" ")
        };
        let prefixed =
            self.schemes.iter().find_map(|scheme| Some((scheme, after(scheme.prefix.as_deref()?)?)));
        prefixed.or_else(|| Some((self.schemes.iter().find(|scheme| scheme.prefix.is_none())?, value)))
    }
}

/// Whether this is one credential: the characters of `token68` (RFC 9110 §11.2), and at least one.
pub(crate) fn is_one(text: &[u8]) -> bool {
    !text.is_empty() && is_of_tokens(text)
}

/// Whether there is nothing in it but what is in credentials.
pub(crate) fn is_of_tokens(text: &[u8]) -> bool {
    // All of them rather than up to the first other one: that is nearly never there, and a loop without an end is faster.
    text.iter().fold(true, |all, byte| all & (class(*byte) != 0))
}

fn in_token(byte: u8) -> bool {
    class(byte) == IN_TOKEN
}

/// Characters of tokens, and the one that only ends them.
const IN_TOKEN: u8 = 1;
const PADDING: u8 = 2;
static CLASSES: [u8; 256] = classes();

fn class(byte: u8) -> u8 {
    CLASSES.get(usize::from(byte)).copied().unwrap_or_default()
}

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0u8;
    // A `const fn` has neither iterators nor `From`; indices are in range by the loop's bound and the table's size.
    #[allow(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)]
    while byte < 128 {
        table[byte as usize] = match byte {
            b'-' | b'.' | b'_' | b'~' | b'+' | b'/' => IN_TOKEN,
            b'=' => PADDING,
            _ if byte.is_ascii_alphanumeric() => IN_TOKEN,
            _ => 0,
        };
        byte += 1;
    }
    table
}

/// Of what is attached to something else, as many characters are looked at for the brace: white space before it can be
/// written with characters to which something may be attached, all of which would be read again and again.
const MAX_LEAD: usize = 64;

/// Looks for anything like a JWT in a value: text that begins like one at the start of the value or after any character
/// that no token has, with a dot somewhere behind. If there is none, also for three parts that are attached to a scheme
/// (`BearereyJ…`) or to something else by a character that tokens have. One pass, whatever the value.
pub(crate) fn hidden<'v>(value: &'v [u8], schemes: &[Scheme]) -> Hidden<'v> {
    let mut found = Hidden::Nothing;
    let mut attached = None;
    for piece in value.split(|b| b.is_ascii_whitespace() || matches!(b, b',' | b';' | b'"' | b'\'' | 0)) {
        let mut dots = piece.iter().filter(|b| **b == b'.').count();
        for (at, byte) in piece.iter().enumerate() {
            if dots == 0 {
                break;
            }
            let Some((before, text)) = piece.split_at_checked(at) else { break };
            if stands_apart(before) {
                if jose::begins_like_object(text) {
                    found = match found {
                        Hidden::Nothing if !value.contains(&b',') => Hidden::One(text),
                        Hidden::Nothing | Hidden::One(_) | Hidden::Several => return Hidden::Several,
                    };
                }
            } else if attached.is_none() && dots > 1 && is_attached(before, schemes) {
                let lead = text.get(..MAX_LEAD).unwrap_or(text);
                attached = jose::begins_like_object(lead).then_some(text);
            }
            if *byte == b'.' {
                dots = dots.saturating_sub(1);
            }
        }
    }
    match (found, attached) {
        (Hidden::Nothing, Some(_)) if value.contains(&b',') => Hidden::Several,
        (Hidden::Nothing, Some(text)) => Hidden::One(text),
        (found, _) => found,
    }
}

/// Whether no reader takes what follows for a part of the same token: it is at the start, or after a character that no
/// token has, written as it is or as `%20` and the like.
fn stands_apart(before: &[u8]) -> bool {
    match before {
        [.., b'%', high, low] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => true,
        [.., last] => !in_token(*last),
        [] => true,
    }
}

/// Whether a lax reader, which cuts off a scheme or searches for the token, could begin to read here.
fn is_attached(before: &[u8], schemes: &[Scheme]) -> bool {
    let prefixes = schemes.iter().filter_map(|scheme| scheme.prefix.as_deref()).chain(["Bearer"]);
    before.last().is_some_and(|last| !last.is_ascii_alphanumeric())
        || prefixes.into_iter().any(|prefix| before.eq_ignore_ascii_case(prefix.as_bytes()))
}
