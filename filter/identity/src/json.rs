//! Strict JSON (RFC 8259) for data that anybody may have written.
//!
//! Stricter than the grammar where readers of the same bytes differ: a member name that occurs twice in one object
//! (after escapes are resolved) is refused at every depth, nothing may follow the value, lone surrogates are refused,
//! and depth and numbers of members and elements are bounded.
//!
//! INVARIANT: no number passes through a float. A whole number that fits is an [`Value::Integer`]; every other number
//! keeps its text and equals nothing.

use std::collections::HashSet;

use tidegate_engine::scan::{self, each, zero_bytes};

#[cfg(test)]
mod tests;

/// Up to so many members of an object each name is compared with those before it. The names of larger ones are put into a
/// set in the end, so that the work does not grow with the square of their number.
const FEW: usize = 64;

/// What a document may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Nesting of objects and arrays.
    pub depth: usize,
    /// Members of all objects together.
    pub members: usize,
    /// Elements of all arrays together.
    pub elements: usize,
}

impl Limits {
    /// For the header and the claims of a token.
    pub const TOKEN: Self = Self { depth: 16, members: 256, elements: 1024 };
    /// For key sets.
    pub const KEYS: Self = Self { depth: 16, members: 65_536, elements: 16_384 };
    /// For the keys section, which comes from the control plane: all issuers that it may have, each with all that one may
    /// have.
    pub const SECTION: Self = Self { depth: 16, members: 1 << 20, elements: 1 << 19 };
}

/// A JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number, written without fraction and exponent, that fits.
    Integer(i64),
    /// Any other number, as written.
    Number(Box<str>),
    /// A string, escapes resolved.
    String(String),
    /// An array.
    Array(Vec<Value>),
    /// An object; names are unique.
    Object(Object),
}

/// Members of an object in the order of the document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Object {
    members: Vec<Member>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    /// Makes searches cheap: names are compared only where it is equal.
    fingerprint: u64,
    name: String,
    value: Value,
}

/// Why a text is not an acceptable document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJson {
    /// Not JSON, or more than one document.
    #[error("not JSON at byte {0}")]
    Syntax(usize),
    /// A member name occurs twice in one object.
    #[error("duplicate member before byte {0}")]
    Duplicate(usize),
    /// Deeper or larger than [`Limits`].
    #[error("too deep or too many members at byte {0}")]
    TooLarge(usize),
}

/// Reads one document.
///
/// # Errors
///
/// See [`InvalidJson`].
pub fn parse(text: &str, limits: Limits) -> Result<Value, InvalidJson> {
    let mut parser = Parser { text, at: 0, limits };
    parser.space();
    let value = parser.value(limits.depth)?;
    parser.space();
    if parser.at == text.len() { Ok(value) } else { Err(InvalidJson::Syntax(parser.at)) }
}

// === impl Object ===

impl Object {
    /// The value of the member with exactly this name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let fingerprint = fingerprint(name);
        self.members.iter().find(|m| m.fingerprint == fingerprint && m.name == name).map(|m| &m.value)
    }

    /// All members in the order of the document.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.members.iter().map(|m| (m.name.as_str(), &m.value))
    }

    /// Returns whether there is no member of this name yet, as far as it is looked for now: where there are more than a
    /// few, [`Self::is_unique`] tells.
    fn insert(&mut self, name: String, value: Value) -> bool {
        let fingerprint = fingerprint(&name);
        let is_few = self.members.len() < FEW;
        if is_few && self.members.iter().any(|m| m.fingerprint == fingerprint && m.name == name) {
            return false;
        }
        self.members.push(Member { fingerprint, name, value });
        true
    }

    /// Whether no name occurs twice.
    fn is_unique(&self) -> bool {
        if self.members.len() <= FEW {
            return true;
        }
        let mut names = HashSet::with_capacity(self.members.len());
        self.members.iter().all(|m| names.insert(m.name.as_str()))
    }
}

/// Length, beginning and end of a name: tells nearly all apart that one document has, without reading all of it.
fn fingerprint(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let ends = match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(first), Some(last)) => u64::from_le_bytes(*first) ^ u64::from_be_bytes(*last),
        _ => bytes.iter().fold(0, |word, byte| (word << 8) | u64::from(*byte)),
    };
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    ends ^ length.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

// === impl Value ===

impl Value {
    /// The object, if it is one.
    pub fn as_object(&self) -> Option<&Object> {
        if let Self::Object(object) = self { Some(object) } else { None }
    }

    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(string) = self { Some(string) } else { None }
    }

    /// The whole number, if it is one.
    pub fn as_integer(&self) -> Option<i64> {
        if let Self::Integer(integer) = self { Some(*integer) } else { None }
    }

    /// The elements, if it is an array.
    pub fn as_array(&self) -> Option<&[Self]> {
        if let Self::Array(elements) = self { Some(elements) } else { None }
    }
}

/// How many bytes precede the first one that does not stand for itself in a string: a quote, a backslash, or a control
/// character (RFC 8259 §7).
fn plain(text: &[u8]) -> usize {
    // Below 0x20: exactly those of which the three highest bits are zero.
    let among = |word: u64| {
        zero_bytes(word ^ each(b'"')) | zero_bytes(word ^ each(b'\\')) | zero_bytes(word & each(0xe0))
    };
    scan::search(text, among, |byte| matches!(byte, b'"' | b'\\' | 0..0x20)).unwrap_or(text.len())
}

// === impl Parser ===

struct Parser<'t> {
    text: &'t str,
    at: usize,
    /// What is left of them.
    limits: Limits,
}

impl<'t> Parser<'t> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn advance(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    fn eat(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        if there {
            self.advance();
        }
        there
    }

    fn expect(&mut self, byte: u8) -> Result<(), InvalidJson> {
        if self.eat(byte) { Ok(()) } else { Err(self.syntax()) }
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.advance();
        }
    }

    fn syntax(&self) -> InvalidJson {
        InvalidJson::Syntax(self.at)
    }

    /// What was read since `start`, which is a character boundary.
    fn since(&self, start: usize) -> &'t str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn value(&mut self, depth: usize) -> Result<Value, InvalidJson> {
        match self.peek() {
            Some(b'{') => self.object(self.deeper(depth)?),
            Some(b'[') => self.array(self.deeper(depth)?),
            Some(b'"') => self.string().map(Value::String),
            Some(b't') => self.word("true", Value::Boolean(true)),
            Some(b'f') => self.word("false", Value::Boolean(false)),
            Some(b'n') => self.word("null", Value::Null),
            _ => self.number(),
        }
    }

    fn deeper(&self, depth: usize) -> Result<usize, InvalidJson> {
        depth.checked_sub(1).ok_or(InvalidJson::TooLarge(self.at))
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, InvalidJson> {
        for byte in word.bytes() {
            self.expect(byte)?;
        }
        Ok(value)
    }

    fn object(&mut self, depth: usize) -> Result<Value, InvalidJson> {
        let mut object = Object::default();
        self.expect(b'{')?;
        self.space();
        if self.eat(b'}') {
            return Ok(Value::Object(object));
        }
        loop {
            self.limits.members = self.limits.members.checked_sub(1).ok_or(InvalidJson::TooLarge(self.at))?;
            self.space();
            let name = self.string()?;
            self.space();
            self.expect(b':')?;
            self.space();
            let value = self.value(depth)?;
            if !object.insert(name, value) {
                return Err(InvalidJson::Duplicate(self.at));
            }
            self.space();
            if self.eat(b'}') {
                let duplicate = InvalidJson::Duplicate(self.at);
                return if object.is_unique() { Ok(Value::Object(object)) } else { Err(duplicate) };
            }
            self.expect(b',')?;
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, InvalidJson> {
        let mut elements = Vec::new();
        self.expect(b'[')?;
        self.space();
        if self.eat(b']') {
            return Ok(Value::Array(elements));
        }
        loop {
            self.limits.elements =
                self.limits.elements.checked_sub(1).ok_or(InvalidJson::TooLarge(self.at))?;
            self.space();
            elements.push(self.value(depth)?);
            self.space();
            if self.eat(b']') {
                return Ok(Value::Array(elements));
            }
            self.expect(b',')?;
        }
    }

    fn string(&mut self) -> Result<String, InvalidJson> {
        self.expect(b'"')?;
        let mut string = self.plain().to_owned();
        loop {
            if self.eat(b'"') {
                return Ok(string);
            }
            self.expect(b'\\')?;
            string.push(self.escape()?);
            string.push_str(self.plain());
        }
    }

    /// Characters of a string that stand for themselves.
    fn plain(&mut self) -> &'t str {
        let start = self.at;
        let rest = self.text.as_bytes().get(start..).unwrap_or_default();
        self.at = start.saturating_add(plain(rest));
        self.since(start)
    }

    fn escape(&mut self) -> Result<char, InvalidJson> {
        let byte = self.peek().ok_or(self.syntax())?;
        self.advance();
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(),
            _ => return Err(self.syntax()),
        })
    }

    fn unicode(&mut self) -> Result<char, InvalidJson> {
        let first = self.four_hex()?;
        if !(0xd800..0xdc00).contains(&first) {
            // A low surrogate alone is no character.
            return char::from_u32(first).ok_or(self.syntax());
        }
        self.expect(b'\\')?;
        self.expect(b'u')?;
        let second = self.four_hex()?;
        if !(0xdc00..0xe000).contains(&second) {
            return Err(self.syntax());
        }
        let high = (first & 0x3ff) << 10;
        char::from_u32((high | (second & 0x3ff)).saturating_add(0x1_0000)).ok_or(self.syntax())
    }

    fn four_hex(&mut self) -> Result<u32, InvalidJson> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|b| char::from(b).to_digit(16)).ok_or(self.syntax())?;
            self.advance();
            code = (code << 4) | digit;
        }
        Ok(code)
    }

    fn digits(&mut self) -> Result<(), InvalidJson> {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.advance();
        }
        if self.at == start { Err(self.syntax()) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<Value, InvalidJson> {
        let start = self.at;
        let negative = self.eat(b'-');
        let zero = self.eat(b'0');
        if !zero {
            self.digits()?;
        }
        let mut whole = !(negative && zero);
        if self.eat(b'.') {
            whole = false;
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            whole = false;
            if !self.eat(b'+') {
                self.eat(b'-');
            }
            self.digits()?;
        }
        let text = self.since(start);
        Ok(match text.parse() {
            Ok(integer) if whole => Value::Integer(integer),
            _ => Value::Number(text.into()),
        })
    }
}
