//! Reads YAML that is written plainly, which rules are nearly always, several times as fast as all of YAML can be read.
//!
//! Plain are: block mappings of unquoted names, block lists, lists and mappings in brackets on one line, scalars on one line,
//! comments, `---`; and a document that is one mapping in braces, on any lines: JSON. In ASCII, without tabs. There are no
//! anchors, tags, blocks of text or values on several lines, and nothing is empty.
//!
//! INVARIANT: gives exactly what the parser of all of YAML gives, places included, or nothing: whatever is not known here,
//! and whatever is refused, is left to it. A property tells the two apart.

use std::borrow::Cow;

use super::builder::{Builder, Stop};
use super::{Position, Style};

/// Longer names are left to the parser of all of YAML, which has a bound for them.
const MAX_NAME: usize = 256;

/// Reads one document after another.
#[derive(Clone, Copy)]
pub(super) struct PlainReader<'t> {
    text: &'t str,
    /// The next byte, which is a character.
    at: usize,
    /// The first byte of its line.
    line_start: usize,
    /// Lines before that.
    lines: u32,
}

/// Something is not plain.
struct Declined;

impl From<Stop> for Declined {
    fn from(Stop: Stop) -> Self {
        Self
    }
}

// === impl PlainReader ===

impl<'t> PlainReader<'t> {
    /// Of a text behind so many lines of its file.
    pub(super) fn new(text: &'t str, lines: u32) -> Self {
        Self { text, at: 0, line_start: 0, lines }
    }

    /// Whether all was read.
    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.text.len()
    }

    /// What was not read, and how many lines are before it.
    pub(super) fn rest(&self) -> (&'t str, u32) {
        (self.text.get(self.at..).unwrap_or_default(), self.lines)
    }

    /// Reads a document. Otherwise it is not plain, or there is none, and nothing was done.
    pub(super) fn read(&mut self, builder: &mut Builder<'t>) -> bool {
        let (before, mark) = (*self, builder.mark());
        let read = self.document(builder).is_ok() && builder.is_clean_since(mark);
        if read {
            builder.finish();
        } else {
            *self = before;
            builder.go_back(mark);
        }
        read
    }

    fn document(&mut self, builder: &mut Builder<'t>) -> Result<(), Declined> {
        if self.content()?.is_none() {
            self.marker()?;
        }
        if self.content()? != Some(0) {
            return Err(Declined);
        }
        if self.peek() == Some(b'{') {
            self.flow(true, builder)?;
            self.end_of_line()?;
        } else {
            self.mapping(0, builder)?;
        }
        if self.content()?.is_none() { Ok(()) } else { Err(Declined) }
    }

    /// `---` on a line of its own.
    fn marker(&mut self) -> Result<(), Declined> {
        if !self.rest().0.starts_with("---\n") {
            return Err(Declined);
        }
        self.at = self.at.saturating_add(3);
        self.line_break();
        Ok(())
    }

    /// From the beginning of a line to that of the next one with content: how many spaces it begins with. `None`: that is
    /// `---`, or there is none.
    fn content(&mut self) -> Result<Option<usize>, Declined> {
        loop {
            self.spaces();
            match self.peek() {
                None => return Ok(None),
                Some(b'\n' | b'#') => self.end_of_line()?,
                Some(_) => break,
            }
        }
        let indent = self.column();
        self.at = self.line_start;
        if indent == 0 {
            let rest = self.rest().0;
            if rest.starts_with("...") {
                return Err(Declined);
            }
            if let Some(behind) = rest.strip_prefix("---") {
                let alone = behind.is_empty() || behind.starts_with('\n');
                return if alone { Ok(None) } else { Err(Declined) };
            }
        }
        Ok(Some(indent))
    }

    /// From its first name. `indent`: spaces before each.
    fn mapping(&mut self, indent: usize, builder: &mut Builder<'t>) -> Result<(), Declined> {
        builder.open_map(0, self.position())?;
        loop {
            self.name(false, builder)?;
            self.spaces();
            match self.peek() {
                None | Some(b'\n' | b'#') => {
                    self.end_of_line()?;
                    match self.content()? {
                        Some(deeper) if deeper > indent => {
                            self.skip(deeper);
                            if self.peek() == Some(b'-') {
                                self.list(deeper, false, builder)?;
                            } else {
                                self.mapping(deeper, builder)?;
                            }
                        }
                        Some(same) if same == indent => {
                            self.skip(same);
                            self.list(same, true, builder)?;
                        }
                        _ => return Err(Declined),
                    }
                }
                Some(_) => self.inline(builder)?,
            }
            match self.content()? {
                Some(next) if next == indent => self.skip(next),
                Some(deeper) if deeper > indent => return Err(Declined),
                _ => break,
            }
        }
        Ok(builder.close()?)
    }

    /// From its first `-`. `flush`: the list is a mapping's value and not further in than its name.
    fn list(&mut self, indent: usize, flush: bool, builder: &mut Builder<'t>) -> Result<(), Declined> {
        let mut at = Some(self.position());
        loop {
            if !self.rest().0.starts_with("- ") {
                return Err(Declined);
            }
            self.skip(1);
            self.spaces();
            if let Some(at) = at.take() {
                // Such a list is where its first entry is.
                builder.open_list(0, if flush { self.position() } else { at })?;
            }
            if self.name_length().is_some() {
                self.mapping(self.column(), builder)?;
            } else {
                self.inline(builder)?;
            }
            match self.content()? {
                Some(next) if next == indent => {
                    self.skip(next);
                    if flush && self.peek() != Some(b'-') {
                        // The mapping's next name.
                        self.at = self.line_start;
                        break;
                    }
                }
                Some(deeper) if deeper > indent => return Err(Declined),
                _ => break,
            }
        }
        Ok(builder.close()?)
    }

    /// A value that ends in its line.
    fn inline(&mut self, builder: &mut Builder<'t>) -> Result<(), Declined> {
        match self.peek() {
            Some(b'{' | b'[') => self.flow(false, builder)?,
            Some(b'"' | b'\'') => self.quoted(builder)?,
            _ => self.scalar(false, builder)?,
        }
        self.end_of_line()
    }

    /// From a bracket to the other one. `broken`: there may be line breaks.
    fn flow(&mut self, broken: bool, builder: &mut Builder<'t>) -> Result<(), Declined> {
        let is_map = self.peek() == Some(b'{');
        let end = if is_map { b'}' } else { b']' };
        if is_map {
            builder.open_map(0, self.position())?;
        } else {
            builder.open_list(0, self.position())?;
        }
        self.skip(1);
        self.space_within(broken);
        let mut is_done = self.peek() == Some(end);
        while !is_done {
            if is_map {
                self.name(true, builder)?;
                self.space_within(broken);
            }
            match self.peek() {
                Some(b'{' | b'[') => self.flow(broken, builder)?,
                Some(b'"' | b'\'') => self.quoted(builder)?,
                _ => self.scalar(true, builder)?,
            }
            self.space_within(broken);
            match self.peek() {
                Some(b',') => {
                    self.skip(1);
                    self.space_within(broken);
                }
                Some(byte) if byte == end => is_done = true,
                _ => return Err(Declined),
            }
        }
        self.skip(1);
        Ok(builder.close()?)
    }

    /// A name with its `:`. Behind a quoted one its value may follow at once in brackets (YAML 1.2, section 7.4.2), and nowhere
    /// else.
    fn name(&mut self, in_brackets: bool, builder: &mut Builder<'t>) -> Result<(), Declined> {
        if self.peek() == Some(b'"') {
            let start = self.at;
            self.quoted(builder)?;
            if self.peek() != Some(b':') || self.at.saturating_sub(start) > MAX_NAME {
                return Err(Declined);
            }
            self.skip(1);
            if !in_brackets && !matches!(self.peek(), None | Some(b' ' | b'\n')) {
                return Err(Declined);
            }
            return Ok(());
        }
        let (at, length) = (self.position(), self.name_length().ok_or(Declined)?);
        let text = self.text.get(self.at..self.at.saturating_add(length)).ok_or(Declined)?;
        self.skip(length.saturating_add(1));
        Ok(builder.scalar(Cow::Borrowed(text), Style::Plain, 0, at)?)
    }

    /// Of an unquoted name with a `:` behind it.
    fn name_length(&self) -> Option<usize> {
        let rest = self.rest().0.as_bytes();
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/');
        let length = rest.iter().position(|byte| !is_name(byte))?;
        let begins_well = rest.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_');
        let ends_well = matches!(rest.get(length..)?, [b':'] | [b':', b' ' | b'\n', ..]);
        (begins_well && ends_well && length <= MAX_NAME).then_some(length)
    }

    /// A scalar without quotes. `within`: in brackets.
    fn scalar(&mut self, within: bool, builder: &mut Builder<'t>) -> Result<(), Declined> {
        let (start, at) = (self.at, self.position());
        let begins_well = match self.peek() {
            Some(b'-') => self.behind().is_some_and(|byte| byte.is_ascii_digit()),
            Some(byte) => byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_' | b'$' | b'('),
            None => false,
        };
        if !begins_well {
            return Err(Declined);
        }
        let mut end = start;
        loop {
            match self.peek() {
                None | Some(b'\n') => break,
                Some(b' ') if self.behind() == Some(b'#') => break,
                Some(b',' | b']' | b'}') if within => break,
                Some(b'[' | b'{') if within => return Err(Declined),
                Some(b':') => match self.behind() {
                    Some(byte) if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b':') => {}
                    _ => return Err(Declined),
                },
                Some(b' '..=b'~') => {}
                Some(_) => return Err(Declined),
            }
            let is_space = self.peek() == Some(b' ');
            self.skip(1);
            if !is_space {
                end = self.at;
            }
        }
        let text = self.text.get(start..end).ok_or(Declined)?;
        Ok(builder.scalar(Cow::Borrowed(text), Style::Plain, 0, at)?)
    }

    fn quoted(&mut self, builder: &mut Builder<'t>) -> Result<(), Declined> {
        let at = self.position();
        let quote = self.peek();
        self.skip(1);
        let mut start = self.at;
        let mut text = Cow::Borrowed("");
        loop {
            let escaped = match (self.peek(), self.behind()) {
                (Some(b'\''), Some(b'\'')) if quote == Some(b'\'') => '\'',
                (Some(b'\\'), Some(escaped)) if quote == Some(b'"') => match escaped {
                    b'"' => '"',
                    b'\\' => '\\',
                    b'/' => '/',
                    b'n' => '\n',
                    b't' => '\t',
                    _ => return Err(Declined),
                },
                (byte, _) if byte == quote => break,
                (Some(b' '..=b'~'), _) => {
                    self.skip(1);
                    continue;
                }
                _ => return Err(Declined),
            };
            let text = text.to_mut();
            text.push_str(self.text.get(start..self.at).ok_or(Declined)?);
            text.push(escaped);
            self.skip(2);
            start = self.at;
        }
        let last = self.text.get(start..self.at).ok_or(Declined)?;
        self.skip(1);
        // Borrowed where nothing is escaped.
        text += last;
        Ok(builder.scalar(text, Style::Quoted, 0, at)?)
    }

    /// To the next line, past nothing but a comment.
    fn end_of_line(&mut self) -> Result<(), Declined> {
        self.spaces();
        if self.peek() == Some(b'#') && self.is_behind_space() {
            while matches!(self.peek(), Some(b' '..=b'~')) {
                self.skip(1);
            }
        }
        match self.peek() {
            None => Ok(()),
            Some(b'\n') => {
                self.line_break();
                Ok(())
            }
            Some(_) => Err(Declined),
        }
    }

    /// What may stand between the parts of a list or mapping in brackets.
    fn space_within(&mut self, broken: bool) {
        self.spaces();
        while broken && self.peek() == Some(b'\n') {
            self.line_break();
            self.spaces();
        }
    }

    fn spaces(&mut self) {
        while self.peek() == Some(b' ') {
            self.skip(1);
        }
    }

    fn line_break(&mut self) {
        self.skip(1);
        self.line_start = self.at;
        self.lines = self.lines.saturating_add(1);
    }

    fn skip(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes);
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The byte behind the next one.
    fn behind(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at.saturating_add(1)).copied()
    }

    /// Or at the beginning of its line.
    fn is_behind_space(&self) -> bool {
        self.column() == 0
            || self.at.checked_sub(1).and_then(|before| self.text.as_bytes().get(before)) == Some(&b' ')
    }

    /// Bytes before the next one in its line.
    fn column(&self) -> usize {
        self.at.saturating_sub(self.line_start)
    }

    fn position(&self) -> Position {
        Position {
            line: self.lines.saturating_add(1),
            column: u32::try_from(self.column()).unwrap_or(u32::MAX).saturating_add(1),
        }
    }
}

#[cfg(test)]
mod tests;
