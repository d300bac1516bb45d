//! One JSON document (RFC 8259), in whatever pieces it comes.
//!
//! Strict: what only lax readers take for JSON is [`Malformed`], and so are names that some readers could take for another
//! name. Strings and numbers that nobody asks for are passed over.

use super::{MAX_VALUE_BYTES, Malformed, Step, Values, Wanted};
use crate::model::BodyField;

/// Nesting of objects and arrays.
const MAX_DEPTH: usize = 64;

/// Reads one document.
#[derive(Debug)]
pub(super) struct Reader {
    /// Each field, and its members' names from the outside in.
    paths: Vec<(u16, Vec<Vec<String>>)>,
    /// Objects and arrays that are open, outermost first.
    open: Vec<Open>,
    /// For whom the value is that comes next.
    next: Vec<Way>,
    expects: Expects,
    token: Token,
    /// What was read of a name or a value, escapes resolved.
    text: Vec<u8>,
    /// The first half of a character that is written as two.
    surrogate: Option<u32>,
    /// Of a character of several bytes: how many are left, and between what the next one lies (Unicode, table 3-7).
    rest: (u8, u8, u8),
}

/// An object or an array.
#[derive(Debug)]
struct Open {
    is_object: bool,
    /// For whom its members or elements are.
    ways: Vec<Way>,
    /// The paths (by position) whose member was there.
    seen: Vec<usize>,
}

/// A field (by position in `paths`), and how many members of its path lead here.
#[derive(Debug, Clone, Copy)]
struct Way {
    path: usize,
    depth: usize,
}

/// What may come next, white space aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    Value,
    /// A value, or the end of the array.
    First,
    /// A name, or the end of the object.
    FirstName,
    Name,
    Colon,
    /// A comma, or the end of the object or array.
    More,
    Nothing,
}

/// What is being read.
#[derive(Debug, Clone, Copy)]
enum Token {
    None,
    /// A string: a name or a value, and whether anybody asks for it.
    String {
        is_name: bool,
        kept: bool,
    },
    /// Behind a backslash in such a string.
    Escape {
        is_name: bool,
        kept: bool,
    },
    /// Digits of `\u`: how many are left, and what those before were.
    Unicode {
        is_name: bool,
        kept: bool,
        left: u8,
        code: u32,
    },
    /// A number or a word.
    Word,
}

// === impl Reader ===

impl Reader {
    pub fn new(fields: Wanted<'_>) -> Self {
        let paths: Vec<_> = fields
            .filter_map(|(field, path)| match path {
                BodyField::Json(names) => Some((field, names.clone())),
                BodyField::Protobuf(_) => None,
            })
            .collect();
        Self {
            next: (0..paths.len()).map(|path| Way { path, depth: 0 }).collect(),
            paths,
            open: Vec::new(),
            expects: Expects::Value,
            token: Token::None,
            text: Vec::new(),
            surrogate: None,
            rest: (0, 0, 0),
        }
    }

    pub fn is_whole(&self) -> bool {
        self.expects == Expects::Nothing
    }

    pub fn feed<'c>(&mut self, mut piece: &'c [u8], values: &mut Values) -> Result<Step<'c>, Malformed> {
        while let Some((byte, rest)) = piece.split_first() {
            match self.token {
                Token::None => {
                    piece = rest;
                    let was_whole = self.is_whole();
                    self.structure(*byte, values)?;
                    if self.is_whole() && !was_whole {
                        return Ok(Step::Message(rest));
                    }
                }
                Token::Word => {
                    if matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',' | b']' | b'}') {
                        self.word(values)?;
                    } else {
                        // No number is that long, and no word.
                        if self.text.len() > MAX_VALUE_BYTES {
                            return Err(Malformed);
                        }
                        self.text.push(*byte);
                        piece = rest;
                    }
                }
                Token::String { .. } | Token::Escape { .. } | Token::Unicode { .. } => {
                    piece = rest;
                    self.string(*byte, values)?;
                }
            }
        }
        Ok(Step::More)
    }

    fn structure(&mut self, byte: u8, values: &mut Values) -> Result<(), Malformed> {
        match (byte, self.expects) {
            (b' ' | b'\t' | b'\n' | b'\r', _) => {}
            (b'"', Expects::FirstName | Expects::Name) => self.begin_string(true, true),
            (b'}', Expects::FirstName) => self.close(true)?,
            (b':', Expects::Colon) => self.expects = Expects::Value,
            (b',', Expects::More) => {
                let open = self.open.last().ok_or(Malformed)?;
                self.expects = if open.is_object { Expects::Name } else { Expects::Value };
                if !open.is_object {
                    self.next.clone_from(&open.ways);
                }
            }
            (b'}', Expects::More) => self.close(true)?,
            (b']', Expects::More | Expects::First) => self.close(false)?,
            (b'{', Expects::Value | Expects::First) => self.open(true, values)?,
            // The outermost value has to be an object.
            _ if self.open.is_empty() => return Err(Malformed),
            (b'[', Expects::Value | Expects::First) => self.open(false, values)?,
            (b'"', Expects::Value | Expects::First) => {
                let kept = !self.next.is_empty();
                self.begin_string(false, kept);
            }
            (_, Expects::Value | Expects::First) => {
                self.text.clear();
                self.text.push(byte);
                self.token = Token::Word;
            }
            _ => return Err(Malformed),
        }
        Ok(())
    }

    fn begin_string(&mut self, is_name: bool, kept: bool) {
        self.text.clear();
        self.token = Token::String { is_name, kept };
    }

    fn open(&mut self, is_object: bool, values: &mut Values) -> Result<(), Malformed> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Malformed);
        }
        let mut ways = core::mem::take(&mut self.next);
        if is_object {
            // Where a text should be there is an object.
            ways.retain(|way| match self.steps(*way) {
                (field, []) => {
                    values.unknown(field);
                    false
                }
                _ => true,
            });
        }
        self.open.push(Open { is_object, ways, seen: Vec::new() });
        self.expects = if is_object { Expects::FirstName } else { Expects::First };
        if !is_object {
            self.next = self.open.last().map(|open| open.ways.clone()).unwrap_or_default();
        }
        Ok(())
    }

    fn close(&mut self, is_object: bool) -> Result<(), Malformed> {
        let open = self.open.pop().filter(|open| open.is_object == is_object);
        open.ok_or(Malformed)?;
        self.value_ended();
        Ok(())
    }

    fn value_ended(&mut self) {
        self.next.clear();
        self.expects = if self.open.is_empty() { Expects::Nothing } else { Expects::More };
    }

    fn string(&mut self, byte: u8, values: &mut Values) -> Result<(), Malformed> {
        match self.token {
            Token::String { is_name, kept } => match byte {
                // A reader that makes something else of broken characters sees the string end elsewhere.
                _ if self.rest.0 > 0 || byte >= 0x80 => {
                    self.rest = character(self.rest, byte)?;
                    self.keep(kept, &[byte]);
                }
                // Control characters have to be escaped; no half of a character may stand alone.
                0..0x20 => return Err(Malformed),
                b'\\' => self.token = Token::Escape { is_name, kept },
                _ if self.surrogate.is_some() => return Err(Malformed),
                b'"' => {
                    self.token = Token::None;
                    if is_name { self.name()? } else { self.text(kept, values) }
                }
                _ => self.keep(kept, &[byte]),
            },
            Token::Escape { is_name, kept } => {
                self.token = Token::String { is_name, kept };
                let character = match byte {
                    b'"' | b'\\' | b'/' => byte,
                    b'b' => 8,
                    b'f' => 12,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'u' => {
                        self.token = Token::Unicode { is_name, kept, left: 4, code: 0 };
                        return Ok(());
                    }
                    _ => return Err(Malformed),
                };
                if self.surrogate.is_some() {
                    return Err(Malformed);
                }
                self.keep(kept, &[character]);
            }
            Token::Unicode { is_name, kept, left, code } => {
                let digit = char::from(byte).to_digit(16).ok_or(Malformed)?;
                let (left, code) = (left.saturating_sub(1), (code << 4) | digit);
                self.token = Token::Unicode { is_name, kept, left, code };
                if left == 0 {
                    self.token = Token::String { is_name, kept };
                    self.unit(code, kept)?;
                }
            }
            Token::None | Token::Word => return Err(Malformed),
        }
        Ok(())
    }

    /// A unit of UTF-16.
    fn unit(&mut self, code: u32, kept: bool) -> Result<(), Malformed> {
        let code = match (self.surrogate.take(), code) {
            (None, 0xd800..0xdc00) => {
                self.surrogate = Some(code);
                return Ok(());
            }
            (None, _) => code,
            (Some(high), 0xdc00..0xe000) => {
                (((high & 0x3ff) << 10) | (code & 0x3ff)).checked_add(0x1_0000).ok_or(Malformed)?
            }
            (Some(_), _) => return Err(Malformed),
        };
        // The second half alone is no character.
        let character = char::from_u32(code).ok_or(Malformed)?;
        self.keep(kept, character.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    /// One byte more than fits shows that it is too long.
    fn keep(&mut self, kept: bool, bytes: &[u8]) {
        if kept && self.text.len() <= MAX_VALUE_BYTES {
            self.text.extend_from_slice(bytes);
        }
    }

    /// The name of a member: who asks for its value?
    fn name(&mut self) -> Result<(), Malformed> {
        let name = core::str::from_utf8(&self.text).map_err(|_| Malformed)?;
        // Some readers end texts at a zero.
        if name.len() > MAX_VALUE_BYTES || name.chars().any(char::is_control) {
            return Err(Malformed);
        }
        let Open { ways, seen, .. } = self.open.last_mut().ok_or(Malformed)?;
        // Some readers fold letters beyond ASCII into those within: `ſ` is `s` to them.
        if !ways.is_empty() && !name.is_ascii() {
            return Err(Malformed);
        }
        self.next.clear();
        for way in ways {
            let Some((_, [step, ..])) = self
                .paths
                .get(way.path)
                .map(|(field, names)| (field, names.get(way.depth..).unwrap_or_default()))
            else {
                continue;
            };
            if step.iter().any(|known| known == name) {
                // Of two some readers take the first, some the last, and one of them may say "none".
                if seen.contains(&way.path) {
                    return Err(Malformed);
                }
                seen.push(way.path);
                self.next.push(Way { path: way.path, depth: way.depth.saturating_add(1) });
            } else if step.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                // Some readers ignore case, others ignore the member.
                return Err(Malformed);
            }
        }
        self.expects = Expects::Colon;
        Ok(())
    }

    /// A string that is a value.
    fn text(&mut self, kept: bool, values: &mut Values) {
        if kept {
            for way in &self.next {
                match self.steps(*way) {
                    (field, []) => values.add(field, Some(&self.text)),
                    (field, _) => values.unknown(field),
                }
            }
        }
        self.value_ended();
    }

    /// A number or a word has ended.
    fn word(&mut self, values: &mut Values) -> Result<(), Malformed> {
        self.token = Token::None;
        let is_null = self.text == b"null";
        if !is_null && !matches!(&*self.text, b"true" | b"false") && !is_number(&self.text) {
            return Err(Malformed);
        }
        if is_null {
            self.value_ended();
        } else {
            self.text(true, values);
        }
        Ok(())
    }

    /// The field of a way, and the names that are still to come.
    fn steps(&self, way: Way) -> (u16, &[Vec<String>]) {
        self.paths
            .get(way.path)
            .map_or((u16::MAX, &[]), |(field, names)| (*field, names.get(way.depth..).unwrap_or_default()))
    }
}

/// Takes a byte of a character of several.
fn character((left, low, high): (u8, u8, u8), byte: u8) -> Result<(u8, u8, u8), Malformed> {
    match (left, byte) {
        (0, 0xc2..=0xdf) => Ok((1, 0x80, 0xbf)),
        (0, 0xe0) => Ok((2, 0xa0, 0xbf)),
        (0, 0xed) => Ok((2, 0x80, 0x9f)),
        (0, 0xe1..=0xef) => Ok((2, 0x80, 0xbf)),
        (0, 0xf0) => Ok((3, 0x90, 0xbf)),
        (0, 0xf4) => Ok((3, 0x80, 0x8f)),
        (0, 0xf1..=0xf3) => Ok((3, 0x80, 0xbf)),
        (1.., _) if (low..=high).contains(&byte) => Ok((left.saturating_sub(1), 0x80, 0xbf)),
        _ => Err(Malformed),
    }
}

/// RFC 8259 section 6.
fn is_number(text: &[u8]) -> bool {
    fn digits(text: &[u8]) -> Option<&[u8]> {
        let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 { None } else { text.get(count..) }
    }
    fn rest(text: &[u8]) -> Option<&[u8]> {
        let text = text.strip_prefix(b"-").unwrap_or(text);
        let text = text.strip_prefix(b"0").map_or_else(|| digits(text), Some)?;
        let text = text.strip_prefix(b".").map_or(Some(text), digits)?;
        match text {
            [b'e' | b'E', b'+' | b'-', exponent @ ..] | [b'e' | b'E', exponent @ ..] => digits(exponent),
            _ => Some(text),
        }
    }
    rest(text).is_some_and(<[u8]>::is_empty)
}
