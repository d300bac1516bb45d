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
use crate::scan;

/// A normalised host: lower case, without port and without a trailing dot. `None`: it could be read in another way.
pub type Host<'a> = Option<&'a str>;

/// A normalised path, without query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path<'a> {
    /// With the leading slash and, if there is one, the trailing slash. Empty when it could not be read.
    whole: Cow<'a, str>,
    trailing_slash: bool,
    ambiguous: bool,
    slashes: Slashes,
}

/// Encoded slashes in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slashes {
    /// There are none.
    Plain,
    /// There are some: servers differ about what they separate.
    Encoded,
    /// They are data inside of segments. Only what says so may be allowed.
    Kept,
}

/// Headers that some servers take for the method, host or path of the request, by length.
const fn overrides(length: usize) -> &'static [&'static str] {
    match length {
        13 => &["x-http-method", "x-rewrite-url"],
        14 => &["x-original-url", "x-original-uri"],
        17 => &["x-method-override"],
        22 => &["x-http-method-override"],
        _ => &[],
    }
}

/// The header of this length that must not be there twice, and a bit for it. Envoy folds `host` into `:authority`.
const fn unique(length: usize) -> Option<(&'static str, u8)> {
    match length {
        4 => Some(("host", 1)),
        5 => Some((":path", 1 << 1)),
        7 => Some((":method", 1 << 2)),
        10 => Some((":authority", 1 << 3)),
        12 => Some(("content-type", 1 << 4)),
        13 => Some(("authorization", 1 << 5)),
        14 => Some(("content-length", 1 << 6)),
        _ => None,
    }
}

// === impl Path ===

impl<'a> Path<'a> {
    /// Whether the path can be read in more than one way.
    pub fn ambiguous(&self) -> bool {
        self.ambiguous || self.slashes == Slashes::Encoded
    }

    /// Whether it has encoded slashes that are read as data: see [`Path::readings`].
    pub fn keeps_slashes(&self) -> bool {
        self.slashes == Slashes::Kept
    }

    /// Both readings of a path that is ambiguous only because it has encoded slashes: as data inside of segments, and as
    /// what separates segments. No piece between slashes of either kind is empty or ends in a dot or a space.
    pub fn readings(&self) -> Option<(Path<'_>, Path<'static>)> {
        if self.ambiguous || self.slashes != Slashes::Encoded {
            return None;
        }
        let trailing_slash = self.trailing_slash;
        let whole = Cow::Borrowed(self.whole.as_ref());
        let data = Path { whole, trailing_slash, ambiguous: false, slashes: Slashes::Kept };
        let whole = Cow::Owned(self.whole.replace(ENCODED_SLASH, "/"));
        Some((data, Path { whole, trailing_slash, ambiguous: false, slashes: Slashes::Plain }))
    }

    /// What is between the leading and a trailing slash.
    pub(crate) fn inner(&self) -> &str {
        let inner = self.whole.strip_prefix('/').unwrap_or_default();
        if self.trailing_slash { inner.strip_suffix('/').unwrap_or(inner) } else { inner }
    }

    /// The segments between slashes; none for `/`. A trailing slash is not a segment.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        let mut rest = Some(self.inner()).filter(|inner| !inner.is_empty());
        core::iter::from_fn(move || {
            let text = rest.take()?;
            // Segments are short: searching in words, as `str::split` does, would take longer than looking at the bytes.
            let end = text.bytes().position(|byte| byte == b'/').unwrap_or(text.len());
            let (segment, after) = text.split_at_checked(end)?;
            rest = after.strip_prefix('/');
            Some(segment)
        })
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
/// are not UTF-8 (overlong spellings among them), broken encodings, and bytes that no URI has. Where nothing but encoded
/// slashes makes it so, [`Path::readings`] has both meanings.
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
    let slashes = if !plain && whole.contains(ENCODED_SLASH) { Slashes::Encoded } else { Slashes::Plain };
    let mut path = Path { whole, trailing_slash, ambiguous: false, slashes };
    // `//` alone leaves an empty inner part with a trailing slash.
    path.ambiguous = if inner.is_empty() {
        trailing_slash
    } else {
        path.segments().any(|segment| {
            let unsound = |piece: &str| matches!(piece.as_bytes(), [] | [.., b'.'] | [.., b'%', b'2', b'0']);
            if slashes == Slashes::Plain {
                unsound(segment)
            } else {
                segment.split(ENCODED_SLASH).any(unsound)
            }
        })
    };
    path
}

fn unreadable<'a>() -> Path<'a> {
    Path { whole: Cow::Borrowed(""), trailing_slash: false, ambiguous: true, slashes: Slashes::Plain }
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
    class(byte) & SEGMENT != 0
}

/// A slash, as it stays encoded.
const ENCODED_SLASH: &str = "%2F";

/// A byte of a segment.
const SEGMENT: u8 = 1;
/// A byte of a host's name.
const NAME: u8 = 2;
/// A byte of a method that has one reading.
const METHOD: u8 = 4;

/// What each byte is good for.
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
            b'A'..=b'Z' | b'0'..=b'9' => SEGMENT | NAME | METHOD,
            b'a'..=b'z' => SEGMENT | NAME,
            b'-' | b'.' | b'_' => SEGMENT | NAME | METHOD,
            b'~' | b'!' | b'$' | b'&' | b'\'' | b'*' | b'+' => SEGMENT | METHOD,
            b'(' | b')' | b',' | b'=' | b':' | b'@' => SEGMENT,
            b'#' | b'%' | b'^' | b'`' | b'|' => METHOD,
            _ => 0,
        };
        byte += 1;
    }
    table
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
            } else if decoded.is_ascii_control() || matches!(decoded, b'\\' | b'%' | b';' | b'?' | b'#') {
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
    let (name, port) = match raw.first() {
        Some(b'[') => {
            let end = raw.iter().position(|byte| *byte == b']')?;
            let (name, after) = raw.split_at_checked(end.checked_add(1)?)?;
            (name, Some(after).filter(|after| !after.is_empty()))
        }
        _ => match raw.iter().position(|byte| *byte == b':').and_then(|colon| raw.split_at_checked(colon)) {
            Some((name, after)) => (name, Some(after)),
            None => (raw, None),
        },
    };
    if port.is_some_and(|port| !is_port(port)) {
        return None;
    }
    let name = match name {
        [b'[', address @ .., b']'] => is_address(address).then_some(name)?,
        [name @ .., b'.'] | name => is_name(name).then_some(name)?,
    };
    // Every byte is ASCII, so this cannot fail; if it could, there would be no host.
    let text = core::str::from_utf8(name).ok()?;
    Some(if name.iter().any(u8::is_ascii_uppercase) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    })
}

/// A colon and up to five digits.
fn is_port(port: &[u8]) -> bool {
    matches!(port, [b':', digits @ ..] if (1..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit))
}

/// What is between the brackets.
fn is_address(address: &[u8]) -> bool {
    !address.is_empty() && address.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'))
}

/// Labels between dots, none of them empty.
fn is_name(name: &[u8]) -> bool {
    let mut before = b'.';
    for byte in name {
        if class(*byte) & NAME == 0 || (before == b'.' && *byte == b'.') {
            return false;
        }
        before = *byte;
    }
    before != b'.'
}

/// Whether these bytes are a method that has one reading: a token of RFC 9110 section 5.6.2 without lower-case letters.
/// Methods are case-sensitive, but there are servers that take `delete` for `DELETE`.
pub fn is_method(raw: &[u8]) -> bool {
    !raw.is_empty() && raw.iter().all(|byte| class(*byte) & METHOD != 0)
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
    let folded = |(byte, known): (&u8, u8)| *byte == known || (*byte == b'_' && known == b'-');
    name.len() == known.len()
        && (scan::same(name, known.as_bytes()) || name.iter().zip(known.bytes()).all(folded))
}

/// Whether only Tidegate sets such a header: `x-tidegate-…`, in either spelling.
pub fn is_own_header(name: &[u8]) -> bool {
    const PREFIX: &str = "x-tidegate-";
    matches!(name, [b'x', ..]) && name.get(..PREFIX.len()).is_some_and(|start| is_named(start, PREFIX))
}

/// Collects what the engine needs to know of the headers. Names must be lower case, as Envoy gives them.
pub fn header_facts<'h>(headers: impl IntoIterator<Item = (&'h [u8], &'h [u8])>) -> HeaderFacts {
    let mut facts = HeaderFacts::default();
    let mut seen = 0;
    for (name, value) in headers {
        // Cheap tests first: most headers end here.
        match name.first() {
            Some(b'x') => facts.overrides |= overrides(name.len()).iter().any(|known| is_named(name, known)),
            Some(b':' | b'h' | b'c' | b'a') => {
                let Some((known, bit)) = unique(name.len()).filter(|(known, _)| is_named(name, known)) else {
                    continue;
                };
                // The other spelling is a second one for servers that fold it.
                let folded = name.contains(&b'_');
                facts.duplicates |= seen & bit != 0 || folded;
                seen |= bit;
                // Envoy joins repeated values of headers that it knows with a comma. No media type has one (RFC 9110
                // section 8.3.1; a quoted parameter could, and is refused as well), and no bearer token or basic
                // credential either.
                match known {
                    _ if folded => {}
                    "content-type" => {
                        facts.grpc = is_grpc(value);
                        facts.duplicates |= value.contains(&b',');
                    }
                    "authorization" if is_plain_credential(value) => {
                        facts.duplicates |= scan::position(value, b',').is_some();
                    }
                    _ => {}
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
