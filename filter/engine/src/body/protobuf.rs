//! The binary form of Protocol Buffers ("Encoding": keys, wire types, varints), in whatever pieces it comes.
//!
//! Only messages on the way to a field are entered; everything else is skipped by its length. A field that is entered twice
//! is merged by readers, which is the same as reading all of it.

use super::{MAX_VALUE_BYTES, Malformed, Values, Wanted};
use crate::model::BodyField;

const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED_32: u64 = 5;

/// What precedes a number where a text could be.
const NUMBER: u8 = b'#';

/// Reads one message after the other.
#[derive(Debug)]
pub(super) struct Reader {
    /// Where each field is: numbers from the outside in.
    paths: Vec<(u16, Vec<u32>)>,
    /// Messages that were entered, outermost first.
    within: Vec<Entered>,
    state: State,
    /// The varint that is being read.
    varint: Varint,
    /// The value that is being read.
    value: Vec<u8>,
}

/// A message on the way to fields.
#[derive(Debug)]
struct Entered {
    /// Bytes that are left of it; `None`: of the outermost one, which ends when its frame does.
    left: Option<u64>,
    /// The number of the field of which it is the value; 0 for the outermost.
    number: u32,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// At the key of a field.
    Key,
    /// At the value of a varint; its field's number.
    Varint(u32),
    /// At the length of a value; its field's number.
    Length(u32),
    /// In a value that nobody asks for: bytes that are left.
    Skip(u64),
    /// In a value: bytes that are left, its field's number, and whether it is short enough.
    Value(u64, u32, bool),
}

#[derive(Debug, Default)]
struct Varint {
    value: u64,
    bits: u32,
}

// === impl Varint ===

impl Varint {
    /// Takes the next byte; the value, once it is complete.
    fn push(&mut self, byte: u8) -> Result<Option<u64>, Malformed> {
        let low = u64::from(byte & 0x7f);
        // Ten bytes at most, of which the last has one bit.
        if self.bits > 63 || (self.bits == 63 && low > 1) {
            return Err(Malformed);
        }
        self.value |= low << self.bits;
        self.bits = self.bits.saturating_add(7);
        if byte & 0x80 != 0 {
            return Ok(None);
        }
        Ok(Some(core::mem::take(self).value))
    }

    fn is_empty(&self) -> bool {
        self.bits == 0
    }
}

// === impl Reader ===

impl Reader {
    pub fn new(fields: Wanted<'_>) -> Self {
        let paths = fields.map(|(field, path)| match path {
            BodyField::Protobuf(numbers) => Some((field, numbers.clone())),
            BodyField::Json(_) => None,
        });
        Self {
            paths: paths.flatten().collect(),
            within: Vec::new(),
            state: State::Key,
            varint: Varint::default(),
            value: Vec::new(),
        }
    }

    /// A message begins.
    pub fn begin(&mut self) {
        self.within.clear();
        self.within.push(Entered { left: None, number: 0 });
        self.state = State::Key;
        self.varint = Varint::default();
    }

    /// The message has ended.
    pub fn end(&mut self) -> Result<(), Malformed> {
        let whole = self.within.len() == 1 && matches!(self.state, State::Key) && self.varint.is_empty();
        if whole { Ok(()) } else { Err(Malformed) }
    }

    pub fn feed(&mut self, mut piece: &[u8], values: &mut Values) -> Result<(), Malformed> {
        while let Some((byte, rest)) = piece.split_first() {
            match self.state {
                State::Skip(left) => {
                    let (skipped, rest) = cut(piece, left);
                    self.pass(skipped)?;
                    self.state = match left.saturating_sub(count(skipped)) {
                        0 => State::Key,
                        left => State::Skip(left),
                    };
                    piece = rest;
                    self.leave()?;
                    continue;
                }
                State::Value(left, number, short) => {
                    let (taken, rest) = cut(piece, left);
                    self.pass(taken)?;
                    if short {
                        self.value.extend_from_slice(taken);
                    }
                    piece = rest;
                    match left.saturating_sub(count(taken)) {
                        0 => self.found(number, short, values),
                        left => self.state = State::Value(left, number, short),
                    }
                    self.leave()?;
                    continue;
                }
                State::Key | State::Varint(_) | State::Length(_) => {}
            }
            piece = rest;
            self.pass(&[*byte])?;
            let Some(number) = self.varint.push(*byte)? else { continue };
            match self.state {
                State::Key => self.key(number, values)?,
                State::Varint(field) => self.number(field, number, values),
                State::Length(field) => self.length(field, number, values)?,
                State::Skip(_) | State::Value(..) => return Err(Malformed),
            }
            self.leave()?;
        }
        Ok(())
    }

    /// So many bytes of the innermost message were read. (Those around it are counted when it is left.)
    fn pass(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        match self.within.last_mut() {
            Some(Entered { left: Some(left), .. }) => {
                *left = left.checked_sub(count(bytes)).ok_or(Malformed)?;
                Ok(())
            }
            Some(Entered { left: None, .. }) => Ok(()),
            None => Err(Malformed),
        }
    }

    /// Leaves messages that have ended.
    fn leave(&mut self) -> Result<(), Malformed> {
        while let Some(Entered { left: Some(0), .. }) = self.within.last() {
            if !matches!(self.state, State::Key) || !self.varint.is_empty() {
                return Err(Malformed);
            }
            self.within.pop();
        }
        Ok(())
    }

    fn key(&mut self, key: u64, values: &mut Values) -> Result<(), Malformed> {
        let number = u32::try_from(key >> 3).ok().filter(|number| (1..1 << 29).contains(number));
        let number = number.ok_or(Malformed)?;
        self.state = match key & 7 {
            VARINT => State::Varint(number),
            LENGTH => State::Length(number),
            FIXED_64 => self.fixed(number, 8, values)?,
            FIXED_32 => self.fixed(number, 4, values)?,
            // Groups are not written any more, and the other two do not exist.
            _ => return Err(Malformed),
        };
        Ok(())
    }

    /// Nobody asks for numbers of this kind; if a field is written so, it is not what it should be.
    fn fixed(&mut self, number: u32, size: u64, values: &mut Values) -> Result<State, Malformed> {
        self.each(number, |field, _| values.unknown(field));
        self.fits(size)?;
        Ok(State::Skip(size))
    }

    fn length(&mut self, number: u32, length: u64, values: &mut Values) -> Result<(), Malformed> {
        self.fits(length)?;
        let (mut value, mut within) = (false, false);
        self.each(number, |_, is_last| if is_last { value = true } else { within = true });
        self.state = if within {
            // Text for one and a message for the other: for one of them it is not what it should be.
            self.each(number, |field, is_last| {
                if is_last {
                    values.unknown(field)
                }
            });
            self.enter(number, length)?;
            State::Key
        } else if value {
            self.value.clear();
            State::Value(length, number, length <= u64::try_from(MAX_VALUE_BYTES).unwrap_or(u64::MAX))
        } else {
            State::Skip(length)
        };
        match self.state {
            State::Value(0, number, short) => self.found(number, short, values),
            State::Skip(0) => self.state = State::Key,
            _ => {}
        }
        Ok(())
    }

    /// Whether so many bytes are left of the innermost message.
    fn fits(&self, length: u64) -> Result<(), Malformed> {
        match self.within.last() {
            Some(Entered { left: Some(left), .. }) if length > *left => Err(Malformed),
            Some(_) => Ok(()),
            None => Err(Malformed),
        }
    }

    /// Goes into a message; its bytes are taken off what is left around it.
    fn enter(&mut self, number: u32, length: u64) -> Result<(), Malformed> {
        self.fits(length)?;
        if let Some(Entered { left: Some(left), .. }) = self.within.last_mut() {
            *left = left.checked_sub(length).ok_or(Malformed)?;
        }
        self.within.push(Entered { left: Some(length), number });
        Ok(())
    }

    /// A number or an enumeration's value. What readers may cut off cannot be told.
    fn number(&mut self, field: u32, value: u64, values: &mut Values) {
        let told = u32::try_from(value).ok().map(|value| format!("{}{value}", char::from(NUMBER)));
        let told = told.as_deref().map(str::as_bytes);
        self.each(field, |field, is_last| values.add(field, told.filter(|_| is_last)));
        self.state = State::Key;
    }

    /// A text: one that looks like a number is none, and no number is a text.
    fn found(&mut self, number: u32, short: bool, values: &mut Values) {
        let short = short && self.value.first() != Some(&NUMBER);
        let value = core::mem::take(&mut self.value);
        self.each(number, |field, is_last| values.add(field, (short && is_last).then_some(&value)));
        self.value = value;
        self.state = State::Key;
    }

    /// The rest of each field's way from here, if it leads through where we are.
    fn ways(&self) -> impl Iterator<Item = (u16, &[u32])> {
        self.paths.iter().filter_map(|(field, path)| {
            let entered = self.within.iter().skip(1);
            let mut rest = path.as_slice();
            for message in entered {
                let (first, after) = rest.split_first()?;
                if *first != message.number {
                    return None;
                }
                rest = after;
            }
            Some((*field, rest))
        })
    }

    /// Every field on whose way this number is next, and whether it is the last.
    fn each(&self, number: u32, mut act: impl FnMut(u16, bool)) {
        for (field, way) in self.ways() {
            if let [first, after @ ..] = way
                && *first == number
            {
                act(field, after.is_empty());
            }
        }
    }
}

fn count(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// At most so many bytes, and the rest.
fn cut(piece: &[u8], length: u64) -> (&[u8], &[u8]) {
    usize::try_from(length).ok().and_then(|length| piece.split_at_checked(length)).unwrap_or((piece, &[]))
}
