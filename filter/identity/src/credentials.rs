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
    !text.is_empty() && text.iter().all(|b| in_token(*b) || *b == b'=')
}

fn in_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/')
}

/// Looks for anything like a JWT in a value: text that begins like one at the start of the value or after any character
/// that no token has, with a dot somewhere behind. One pass, whatever the value.
pub(crate) fn hidden(value: &[u8]) -> Hidden<'_> {
    let mut found = Hidden::Nothing;
    for piece in value.split(|b| b.is_ascii_whitespace() || matches!(b, b',' | b';' | b'"' | b'\'' | 0)) {
        let Some(last_dot) = piece.iter().rposition(|b| *b == b'.') else { continue };
        let mut fresh = true;
        for (at, byte) in piece.iter().enumerate().take(last_dot) {
            let text = piece.get(at..).unwrap_or_default();
            if fresh && jose::begins_like_object(text) {
                found = match found {
                    Hidden::Nothing if !value.contains(&b',') => Hidden::One(text),
                    Hidden::Nothing | Hidden::One(_) | Hidden::Several => return Hidden::Several,
                };
            }
            fresh = !in_token(*byte);
        }
    }
    found
}
