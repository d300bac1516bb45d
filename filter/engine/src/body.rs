//! Values of fields in a request's body, found while the body passes.
//!
//! Nothing is kept but the values: a body may be longer than what a proxy holds. It is read once, in whatever pieces it
//! comes; who forwards it has to wait with the last byte of each message until [`Scanner::feed`] has seen it.
//!
//! Readers differ in which of several values they take. So all are found: of a field that occurs more than once (repeated,
//! in each element of an array, in another message of a stream) every value counts. A JSON member that is written twice, or
//! in another case, makes the body unreadable: there a reader could see none.
//!
//! INVARIANT: a value that a server could read in a field is among those found, or the field is [`FieldValue::Unknown`].
//! Where a body cannot be read to its end, all fields are unknown.

mod grpc;
mod json;
mod protobuf;

use core::fmt;
use core::str::FromStr;

use crate::model::BodyField;

/// Longer values are unknown. Bytes.
pub const MAX_VALUE_BYTES: usize = 2048;

/// Of a body with longer values altogether nothing is told. Bytes.
pub const MAX_BODY_VALUE_BYTES: usize = 16 * 1024;

/// Fields that a policy may read.
pub const MAX_BODY_FIELDS: usize = 1024;

/// Of a field with more values than so many that differ, the value is unknown.
pub const MAX_VALUES: usize = 64;

/// How a body is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON document (RFC 8259), UTF-8.
    Json,
    /// Messages of gRPC over HTTP/2, uncompressed: a flag, a length, and a message in the binary form of Protocol Buffers.
    Grpc,
}

/// What a field says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum FieldValue {
    /// It is not there, or null.
    #[default]
    Absent,
    /// Every value that it has, each once. Numbers and booleans as they are written in JSON; in Protocol Buffers numbers and
    /// values of enumerations as `#5`.
    Texts(Vec<String>),
    /// It cannot be told.
    Unknown,
}

/// Reads one body.
#[derive(Debug)]
pub struct Scanner {
    values: Values,
    state: State,
}

#[derive(Debug)]
enum State {
    Json(json::Reader),
    Grpc(grpc::Reader),
    /// It cannot be read; all fields are unknown.
    Broken,
}

/// How far a piece was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'c> {
    /// To its end.
    More,
    /// To the end of a message, on which the server may act once it has got it. What follows has not been read yet.
    Message(&'c [u8]),
    /// The body cannot be read, and all fields are unknown.
    Broken,
}

/// Fields that are looked for: position and place.
type Wanted<'f> = &'f mut dyn Iterator<Item = (u16, &'f BodyField)>;

/// A body is not what it claims to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Malformed;

/// The values found, by field.
#[derive(Debug, Clone, Default)]
struct Values {
    found: Vec<FieldValue>,
    /// Of all values together.
    bytes: usize,
    /// How often something new was found.
    changes: u32,
}

/// A text that names no field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no field of a body")]
pub struct NoField;

// === impl BodyField ===

/// `json:environment/serviceAccountEmail|service_account_email` and `grpc:2.5.10`: the way from the outside in.
impl fmt::Display for BodyField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(path) => {
                f.write_str("json:")?;
                for (at, names) in path.iter().enumerate() {
                    write!(f, "{}{}", if at == 0 { "" } else { "/" }, names.join("|"))?;
                }
            }
            Self::Protobuf(numbers) => {
                f.write_str("grpc:")?;
                for (at, number) in numbers.iter().enumerate() {
                    write!(f, "{}{number}", if at == 0 { "" } else { "." })?;
                }
            }
        }
        Ok(())
    }
}

impl FromStr for BodyField {
    type Err = NoField;

    fn from_str(text: &str) -> Result<Self, NoField> {
        let (format, path) = text.split_once(':').ok_or(NoField)?;
        match format {
            "json" => {
                let name = |name: &str| {
                    let fits = !name.is_empty()
                        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
                    fits.then(|| name.to_owned()).ok_or(NoField)
                };
                let step = |step: &str| step.split('|').map(name).collect();
                path.split('/').map(step).collect::<Result<_, _>>().map(Self::Json)
            }
            "grpc" => {
                let number = |number: &str| {
                    let known = number.parse().ok().filter(|known| (1..1 << 29).contains(known));
                    known.filter(|known: &u32| known.to_string() == number).ok_or(NoField)
                };
                path.split('.').map(number).collect::<Result<_, _>>().map(Self::Protobuf)
            }
            _ => Err(NoField),
        }
    }
}

// === impl Format ===

impl Format {
    /// The format that a content type stands for.
    pub fn of(content_type: &[u8]) -> Option<Self> {
        let (kind, parameters) = match content_type.iter().position(|byte| *byte == b';') {
            Some(end) => content_type.split_at_checked(end)?,
            None => (content_type, &[][..]),
        };
        let kind = kind.trim_ascii();
        if kind.eq_ignore_ascii_case(b"application/grpc")
            || kind.eq_ignore_ascii_case(b"application/grpc+proto")
        {
            return Some(Self::Grpc);
        }
        // JSON has no other encoding (RFC 8259 section 8.1), whatever a parameter says; but a server may believe it.
        let is_utf8 = match parameters.trim_ascii() {
            [] | [b';'] => true,
            [b';', rest @ ..] => {
                let rest = rest.trim_ascii();
                rest.eq_ignore_ascii_case(b"charset=utf-8") || rest.eq_ignore_ascii_case(b"charset=\"utf-8\"")
            }
            _ => false,
        };
        (kind.eq_ignore_ascii_case(b"application/json") && is_utf8).then_some(Self::Json)
    }
}

// === impl Scanner ===

impl Scanner {
    /// Before the first byte. `None`: nothing says how the body is to be read. Of `fields` those are looked for whose
    /// positions are `wanted`; the others, and those of the other format, are unknown.
    pub fn new(format: Option<Format>, fields: &[BodyField], wanted: &[u16]) -> Self {
        let mut values = Values { found: vec![FieldValue::Unknown; fields.len()], ..Values::default() };
        let mut wanted = wanted.iter().filter_map(|at| {
            let path = fields.get(usize::from(*at))?;
            let fits = matches!(
                (format, path),
                (Some(Format::Json), BodyField::Json(_)) | (Some(Format::Grpc), BodyField::Protobuf(_))
            );
            *values.found.get_mut(usize::from(*at)).filter(|_| fits)? = FieldValue::Absent;
            Some((*at, path))
        });
        let state = match format {
            Some(Format::Json) => State::Json(json::Reader::new(&mut wanted)),
            Some(Format::Grpc) => State::Grpc(grpc::Reader::new(&mut wanted)),
            None => State::Broken,
        };
        let mut scanner = Self { values, state };
        if matches!(scanner.state, State::Broken) {
            scanner.give_up();
        }
        scanner
    }

    /// Reads the next piece, up to the end of a message.
    pub fn feed<'c>(&mut self, piece: &'c [u8]) -> Step<'c> {
        let step = match &mut self.state {
            State::Json(reader) => reader.feed(piece, &mut self.values),
            State::Grpc(reader) => reader.feed(piece, &mut self.values),
            State::Broken => Err(Malformed),
        };
        let step = step.ok().filter(|_| self.values.bytes <= MAX_BODY_VALUE_BYTES);
        step.unwrap_or_else(|| {
            self.give_up();
            Step::Broken
        })
    }

    /// A piece was lost: what the body says cannot be told any more.
    pub fn lose(&mut self) {
        self.give_up();
    }

    /// Changes whenever [`Self::values`] do.
    pub fn changes(&self) -> u32 {
        self.values.changes
    }

    /// The body has ended; false: within a message.
    pub fn finish(&mut self) -> bool {
        let whole = match &self.state {
            State::Json(reader) => reader.is_whole(),
            State::Grpc(reader) => reader.is_whole(),
            State::Broken => false,
        };
        if !whole {
            self.give_up();
        }
        whole
    }

    /// What was found so far, by field.
    pub fn values(&self) -> &[FieldValue] {
        &self.values.found
    }

    fn give_up(&mut self) {
        self.state = State::Broken;
        self.values.found.fill(FieldValue::Unknown);
        self.values.bytes = 0;
        self.values.changes = self.values.changes.wrapping_add(1);
    }
}

// === impl Values ===

impl Values {
    /// A field has this value too.
    fn add(&mut self, field: u16, text: Option<&[u8]>) {
        let Some(value) = self.found.get_mut(usize::from(field)) else { return };
        if *value == FieldValue::Unknown {
            return;
        }
        // Some readers end a text at a NUL, and others do not.
        let text = text.filter(|text| text.len() <= MAX_VALUE_BYTES && !text.contains(&0));
        let text = text.and_then(|text| core::str::from_utf8(text).ok());
        match (value, text) {
            (FieldValue::Texts(texts), Some(text)) if texts.iter().any(|known| known == text) => return,
            (FieldValue::Texts(texts), Some(text)) if texts.len() < MAX_VALUES => texts.push(text.to_owned()),
            (value @ FieldValue::Absent, Some(text)) => *value = FieldValue::Texts(vec![text.to_owned()]),
            (value, _) => *value = FieldValue::Unknown,
        }
        self.changes = self.changes.wrapping_add(1);
        self.bytes = self.bytes.saturating_add(text.map_or(0, str::len));
    }

    /// What a field says cannot be told.
    fn unknown(&mut self, field: u16) {
        self.add(field, None);
    }
}

#[cfg(test)]
mod tests;
