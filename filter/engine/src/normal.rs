//! One reading of what was sent: the only place where paths, hosts, methods and headers are normalised.
//!
//! A request that could be read in another way by the server behind is not guessed at: it is [`Ambiguity`], and refused
//! wherever a Guard enforces. That is stricter than matching both readings, and it needs no knowledge of the server.
//!
//! Sources: RFC 3986 sections 2.3, 3.3 and 6.2.2 (unreserved characters, segments, equivalence); RFC 9110 sections 5.6.2
//! and 9.1 (tokens, methods); Istio's normalisation levels, which run before this one and may have done part of it.

use std::borrow::Cow;

use crate::reason::Ambiguity;
use crate::request::HeaderFacts;

/// A normalised host: lower case, without port and without a trailing dot. `None`: it could be read in another way.
pub type Host<'a> = Option<&'a str>;

/// A normalised path, without query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path<'a> {
    /// With the leading slash and, if there is one, the trailing slash. Empty when it could not be read.
    whole: Cow<'a, str>,
    trailing_slash: bool,
    ambiguous: bool,
}

/// Headers that some servers take for the method, host or path of the request.
const OVERRIDES: [&str; 6] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
    "x-original-uri",
];

/// Headers that must not be there twice. Envoy folds `host` into `:authority`.
const UNIQUE: [&str; 7] =
    [":method", ":path", ":authority", "host", "content-type", "authorization", "content-length"];

// === impl Path ===

impl<'a> Path<'a> {
    /// Whether the path can be read in more than one way.
    pub fn ambiguous(&self) -> bool {
        self.ambiguous
    }

    /// The segments between slashes; none for `/`. A trailing slash is not a segment.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        let inner = self.whole.strip_prefix('/').unwrap_or_default();
        let inner = if self.trailing_slash { inner.strip_suffix('/').unwrap_or(inner) } else { inner };
        let empty = inner.is_empty();
        inner.split('/').filter(move |_| !empty)
    }

    /// The whole path, as it is compared.
    pub fn text(&self) -> &str {
        &self.whole
    }

    /// Whether the path ends with a slash (`/` alone does not count).
    pub fn trailing_slash(&self) -> bool {
        self.trailing_slash
    }

    /// As it is compared, e.g. for records.
    pub fn display(&self) -> impl core::fmt::Display + '_ {
        struct Shown<'p>(&'p Path<'p>);
        impl core::fmt::Display for Shown<'_> {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(if self.0.whole.is_empty() { "/" } else { &self.0.whole })
            }
        }
        Shown(self)
    }
}

/// Reads `:path`: cuts the query off, decodes what is equivalent to its decoded form, and finds what is ambiguous.
///
/// Decoded are encoded unreserved characters (RFC 3986 6.2.2.2: equivalent) and the encoded forms of `:@!$&'()*+,=`,
/// which clients encode or not as they please. Other encoded bytes stay encoded, with upper-case digits. Ambiguous are:
/// no leading slash, `.` and `..` segments, segments that end in a dot or a space (which some file systems cut off), empty
/// segments, `;`, backslash, `#`, encoded slash, backslash, percent, semicolon and control characters, encoded bytes that
/// are not UTF-8 (overlong spellings among them), broken encodings, and bytes that no URI has.
pub fn path(raw: &[u8]) -> Path<'_> {
    let raw = raw.split(|byte| *byte == b'?').next().unwrap_or_default();
    let Some(inner) = raw.strip_prefix(b"/") else { return unreadable() };
    let (inner, trailing_slash) = match inner.strip_suffix(b"/") {
        Some(stripped) => (stripped, true),
        None => (inner, false),
    };
    let plain = inner.iter().all(|byte| is_segment_byte(*byte) || *byte == b'/');
    let whole = if plain {
        // Every byte is ASCII, so this cannot fail; if it could, the path would be unreadable, not accepted.
        match core::str::from_utf8(raw) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => return unreadable(),
        }
    } else {
        match decode(raw) {
            Some(text) => Cow::Owned(text),
            None => return unreadable(),
        }
    };
    let mut path = Path { whole, trailing_slash, ambiguous: false };
    // `//` alone leaves an empty inner part with a trailing slash.
    path.ambiguous = if inner.is_empty() {
        trailing_slash
    } else {
        path.segments()
            .any(|segment| segment.is_empty() || segment.ends_with('.') || segment.ends_with("%20"))
    };
    path
}

fn unreadable<'a>() -> Path<'a> {
    Path { whole: Cow::Borrowed(""), trailing_slash: false, ambiguous: true }
}

/// The query of `:path` as sent: what follows the first `?`; empty without one.
pub fn query(raw: &[u8]) -> &[u8] {
    raw.iter()
        .position(|byte| *byte == b'?')
        .and_then(|at| raw.get(at..))
        .and_then(|rest| rest.get(1..))
        .unwrap_or_default()
}

/// What a query says of one parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parameter<'a> {
    Absent,
    /// It is there several times, or readers differ about it.
    Unknown,
    /// The value as sent, without its encoding being looked at.
    Once(&'a [u8]),
}

/// Finds a parameter. Names and values stand between `&`, as HTML forms have it (WHATWG URL section 5.1).
///
/// Where readers differ about what is a parameter, it is unknown: `;`, which some take for `&`, `#`, and names with a
/// broken encoding, of which some drop a part.
pub(crate) fn parameter<'a>(query: &'a [u8], name: &[u8]) -> Parameter<'a> {
    let mut found = Parameter::Absent;
    for piece in query.split(|byte| *byte == b'&') {
        if piece.iter().any(|byte| matches!(byte, b';' | b'#')) {
            return Parameter::Unknown;
        }
        let at = piece.iter().position(|byte| *byte == b'=').unwrap_or(piece.len());
        let (there, value) = piece.split_at_checked(at).unwrap_or_default();
        let mut decoded = decoded(there);
        let mut same = true;
        let mut expected = name.iter();
        loop {
            match decoded.next() {
                None => break,
                Some(None) => return Parameter::Unknown,
                Some(Some(byte)) => same &= expected.next() == Some(&byte),
            }
        }
        if same && expected.next().is_none() && !piece.is_empty() {
            if found != Parameter::Absent {
                return Parameter::Unknown;
            }
            found = Parameter::Once(value.get(1..).unwrap_or_default());
        }
    }
    found
}

/// The bytes of a percent-encoded text; `None` in place of one that is broken.
pub(crate) fn decoded(raw: &[u8]) -> impl Iterator<Item = Option<u8>> {
    let mut bytes = raw.iter().copied();
    core::iter::from_fn(move || {
        Some(match bytes.next()? {
            b'%' => match (bytes.next().and_then(hex), bytes.next().and_then(hex)) {
                (Some(high), Some(low)) => Some(high << 4 | low),
                _ => None,
            },
            byte => Some(byte),
        })
    })
}

/// What headers say of one name.
pub(crate) fn field<'a>(fields: &[(&'a [u8], &'a [u8])], name: &[u8]) -> Parameter<'a> {
    let mut found = Parameter::Absent;
    for (there, value) in fields {
        // Servers with a CGI-like interface fold `-` and `_`.
        let folded = |byte: u8| if byte == b'_' { b'-' } else { byte };
        if there.len() == name.len() && there.iter().zip(name).all(|(a, b)| folded(*a) == folded(*b)) {
            if found != Parameter::Absent || *there != name {
                return Parameter::Unknown;
            }
            found = Parameter::Once(value);
        }
    }
    found
}

/// Bytes that stand for themselves in a segment: `pchar` of RFC 3986 without percent and without `;`, which some servers
/// cut off together with what follows.
fn is_segment_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&byte)
}

fn decode(inner: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(inner.len());
    let mut plain = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let decoded = hex(bytes.next()?)? << 4 | hex(bytes.next()?)?;
            plain.push(decoded);
            if is_segment_byte(decoded) {
                text.push(char::from(decoded));
            } else if decoded.is_ascii_control()
                || matches!(decoded, b'/' | b'\\' | b'%' | b';' | b'?' | b'#')
            {
                return None;
            } else {
                text.push('%');
                text.push(upper_hex(decoded >> 4));
                text.push(upper_hex(decoded & 15));
            }
        } else if is_segment_byte(byte) || byte == b'/' {
            plain.push(byte);
            text.push(char::from(byte));
        } else {
            return None;
        }
    }
    core::str::from_utf8(&plain).is_ok().then_some(text)
}

fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

fn upper_hex(nibble: u8) -> char {
    char::from(if nibble < 10 { b'0' + nibble } else { b'A' + nibble - 10 })
}

/// Reads `:authority`: lower case, port and trailing dot cut off. `None` when it is empty or not a host
/// (letters, digits, `-`, `.`, `_`, or an address in brackets, and at most one port of digits).
pub fn host(raw: &[u8]) -> Option<Cow<'_, str>> {
    let text = core::str::from_utf8(raw).ok()?;
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']')?;
            if address.is_empty()
                || !address.bytes().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(&byte))
            {
                return None;
            }
            let port = if after.is_empty() { None } else { Some(after.strip_prefix(':')?) };
            (text.strip_suffix(after)?, port)
        }
        None => match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    if port.is_some_and(|port| {
        port.is_empty() || port.len() > 5 || !port.bytes().all(|byte| byte.is_ascii_digit())
    }) {
        return None;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let bracketed = name.starts_with('[');
    let well_formed = bracketed
        || (!name.is_empty()
            && !name.starts_with('.')
            && !name.ends_with('.')
            && !name.contains("..")
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)));
    if !well_formed {
        return None;
    }
    Some(if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    })
}

/// Whether these bytes are a method that has one reading: a token of RFC 9110 section 5.6.2 without lower-case letters.
/// Methods are case-sensitive, but there are servers that take `delete` for `DELETE`.
pub fn is_method(raw: &[u8]) -> bool {
    !raw.is_empty()
        && raw.iter().all(|byte| {
            byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(byte)
        })
}

/// Whether a header has such a name, in lower case (RFC 9110 section 5.1). Not those that begin with a colon: what they
/// say is normalised, and read as that.
pub fn is_field_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.iter().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(byte)
        })
}

/// Whether a header has this name, or one that servers with a CGI-like interface make the same of: they fold `-` and `_`.
fn is_named(name: &[u8], known: &str) -> bool {
    name.len() == known.len()
        && name
            .iter()
            .zip(known.bytes())
            .all(|(byte, known)| *byte == known || (*byte == b'_' && known == b'-'))
}

/// Whether only Tidegate sets such a header: `x-tidegate-…`, in either spelling.
pub fn is_own_header(name: &[u8]) -> bool {
    const PREFIX: &str = "x-tidegate-";
    name.get(..PREFIX.len()).is_some_and(|start| is_named(start, PREFIX))
}

/// Collects what the engine needs to know of the headers. Names must be lower case, as Envoy gives them.
pub fn header_facts<'h>(headers: impl IntoIterator<Item = (&'h [u8], &'h [u8])>) -> HeaderFacts {
    let mut facts = HeaderFacts::default();
    let mut seen = [false; UNIQUE.len()];
    for (name, value) in headers {
        // Cheap tests first: most headers end here.
        match name.first() {
            Some(b'x') => facts.overrides |= OVERRIDES.iter().any(|known| is_named(name, known)),
            Some(b':' | b'h' | b'c' | b'a') => {
                for (known, seen) in UNIQUE.iter().zip(seen.iter_mut()) {
                    if is_named(name, known) {
                        // The other spelling is a second one for servers that fold it.
                        facts.duplicates |= *seen || name.contains(&b'_');
                        *seen = true;
                    }
                }
                // Envoy joins repeated values of headers that it knows with a comma. No media type has one (RFC 9110
                // section 8.3.1; a quoted parameter could, and is refused as well), and no bearer token or basic
                // credential either.
                if name == b"content-type" {
                    facts.grpc = is_grpc(value);
                    facts.duplicates |= value.contains(&b',');
                } else if name == b"authorization" {
                    facts.duplicates |= value.contains(&b',') && is_plain_credential(value);
                }
            }
            _ => {}
        }
    }
    facts.grpc &= !facts.duplicates;
    facts
}

/// Credentials without parameters, unlike `Digest` or AWS signatures.
fn is_plain_credential(value: &[u8]) -> bool {
    ["bearer ", "basic "].iter().any(|scheme| {
        value.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme.as_bytes()))
    })
}

/// `application/grpc`, alone or followed by `+` or `;`. Not `application/grpc-web`, which is another protocol.
fn is_grpc(content_type: &[u8]) -> bool {
    let Some((kind, rest)) = content_type.split_at_checked(16) else { return false };
    kind.eq_ignore_ascii_case(b"application/grpc") && matches!(rest.first(), None | Some(b'+' | b';'))
}

/// The first way in which the request is ambiguous, if any.
pub(crate) fn ambiguity(request: &crate::request::Request<'_>) -> Option<Ambiguity> {
    if request.path.ambiguous() {
        Some(Ambiguity::Path)
    } else if request.host.is_none() {
        Some(Ambiguity::Host)
    } else if !is_method(request.method) {
        Some(Ambiguity::Method)
    } else if request.headers.overrides {
        Some(Ambiguity::Override)
    } else if request.headers.duplicates {
        Some(Ambiguity::DuplicateHeader)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
