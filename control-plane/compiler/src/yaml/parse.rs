//! Text to trees: one per document, bounded.
//!
//! Most documents are written plainly, and read by [`PlainReader`]; the first that is not, and all behind it, by a parser of
//! all of YAML.
//!
//! A document that is not well formed costs itself only: reading goes on at the next `---`.

use granit_parser::{Event, Marker, Parser, ScalarStyle};

use super::builder::Builder;
use super::plain::PlainReader;
use super::{Node, Position};
use crate::diagnostic::Code;

/// A rule file is written by people; one that is larger is refused unread.
pub(crate) const MAX_FILE_BYTES: usize = 1 << 20;
/// Documents in a file.
pub(super) const MAX_DOCUMENTS: usize = 10_000;
/// Levels of lists and mappings in a document.
pub(super) const MAX_DEPTH: usize = 48;
/// Nodes of a file after aliases are expanded.
pub(crate) const MAX_NODES: usize = 500_000;

/// One document.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Document<'t> {
    pub(crate) root: Node<'t>,
    /// Something in it was refused while the tree was built; it must not be used.
    pub(crate) broken: bool,
}

impl Document<'_> {
    /// The same, on its own.
    pub(crate) fn into_owned(self) -> Document<'static> {
        Document { root: self.root.into_owned(), broken: self.broken }
    }
}

/// Something that is wrong with the YAML itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct YamlFault {
    pub(crate) code: Code,
    pub(crate) at: Position,
    pub(crate) field: String,
    pub(crate) message: String,
    pub(crate) why: &'static str,
    pub(crate) fix: String,
    /// Another place that it is about, and what is there.
    pub(crate) related: Option<(Position, &'static str)>,
}

/// What there is to say of what was read.
pub(crate) struct Read {
    pub(crate) faults: Vec<YamlFault>,
    /// Whether all of it is written plainly.
    pub(crate) is_plain: bool,
    /// How many there are, aliases expanded.
    pub(crate) nodes: usize,
}

/// Reads every document of a file.
pub(crate) fn parse(text: &str) -> (Vec<Document<'_>>, Vec<YamlFault>) {
    parse_from(text, 0)
}

/// Reads every document of a text, behind so many lines of its file.
pub(crate) fn parse_from(text: &str, lines: u32) -> (Vec<Document<'_>>, Vec<YamlFault>) {
    let mut documents = Vec::new();
    let read = parse_each(text, lines, |document| documents.push(document));
    (documents, read.faults)
}

/// The same. Each document is handed over as soon as it is read, so that no more than one is in memory.
pub(crate) fn parse_each<'t>(text: &'t str, lines: u32, mut visit: impl FnMut(Document<'t>)) -> Read {
    let mut builder = Builder::default();
    let mut plain = PlainReader::new(text, lines);
    let mut started = 0usize;
    while started < MAX_DOCUMENTS && plain.read(&mut builder) {
        started = started.saturating_add(1);
        builder.document.take().into_iter().for_each(&mut visit);
    }
    let is_plain = plain.is_at_end();
    if !is_plain {
        let (rest, lines) = plain.rest();
        read_rest(rest, lines, started, &mut builder, visit);
    }
    Read { is_plain, nodes: builder.nodes(), faults: builder.faults }
}

/// Reads whatever YAML there is. `lines`: how many there are before it; `started`: documents before it.
pub(super) fn read_rest<'t>(
    text: &'t str,
    lines: u32,
    mut started: usize,
    builder: &mut Builder<'t>,
    mut visit: impl FnMut(Document<'t>),
) {
    let mut options = granit_parser::options! {
        disallow_directives: true,
    };
    options.set_emit_comments(false);
    let position = |marker: Marker| position(lines, marker);
    let mut parser = Parser::new_from_str_with_options(text, options);
    loop {
        let (event, span) = match parser.next_event() {
            None => break,
            Some(Ok(event)) => event,
            Some(Err(error)) => {
                builder.malformed(&error, position(*error.marker()));
                match parser.proceed_next_document() {
                    Ok(true) => continue,
                    Ok(false) => break,
                    Err(error) => {
                        builder.malformed(&error, position(*error.marker()));
                        break;
                    }
                }
            }
        };
        let at = position(span.start);
        let event = match event {
            // Where nothing is written the parser says `~`.
            Event::Scalar(_, ScalarStyle::Plain, anchor, tag) if span.is_empty() => {
                Event::Scalar("".into(), ScalarStyle::Plain, anchor, tag)
            }
            event => event,
        };
        if matches!(event, Event::DocumentStart(..)) {
            started = started.saturating_add(1);
            if started > MAX_DOCUMENTS {
                builder.limit(at, format!("more than {MAX_DOCUMENTS} documents"));
                break;
            }
        }
        if builder.event(event, at).is_err() {
            break;
        }
        if let Some(document) = builder.document.take() {
            visit(document);
        }
    }
}

fn position(lines: u32, marker: Marker) -> Position {
    Position {
        line: u32::try_from(marker.line()).unwrap_or(u32::MAX).saturating_add(lines),
        column: u32::try_from(marker.col()).unwrap_or(u32::MAX).saturating_add(1),
    }
}

#[cfg(test)]
mod tests;
