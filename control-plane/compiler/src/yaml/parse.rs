//! Text to trees: one per document, bounded.
//!
//! A document that is not well formed costs itself only: reading goes on at the next `---`.

use std::collections::BTreeMap;

use granit_parser::{Event, Parser, ScalarStyle, ScanError};

use super::{Entry, Node, Position, Step, Style, Value, scalar, show_path};
use crate::diagnostic::Code;

/// A rule file is written by people; one that is larger is refused unread.
pub(crate) const MAX_FILE_BYTES: usize = 1 << 20;
/// Documents in a file.
pub(super) const MAX_DOCUMENTS: usize = 10_000;
/// Levels of lists and mappings in a document.
pub(super) const MAX_DEPTH: usize = 48;
/// Nodes of a file after aliases are expanded.
pub(super) const MAX_NODES: usize = 500_000;

/// With no more entries than these, comparing all pairs is faster than sorting.
const FEW_ENTRIES: usize = 10;

/// One document.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) root: Node,
    /// Something in it was refused while the tree was built; it must not be used.
    pub(crate) broken: bool,
}

/// Something that is wrong with the YAML itself.
#[derive(Debug)]
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

enum Frame {
    List {
        at: Position,
        anchor: usize,
        items: Vec<Node>,
    },
    /// The key, once it is read, is `None` where it was refused: its value is read and thrown away.
    Map {
        at: Position,
        anchor: usize,
        entries: Vec<Entry>,
        key: Option<(Option<String>, Position)>,
    },
}

/// An anchored node.
struct Anchor {
    node: Node,
    nodes: usize,
    depth: usize,
}

#[derive(Default)]
struct Builder {
    faults: Vec<YamlFault>,
    /// The one that was just finished.
    document: Option<Document>,
    /// Of the current document.
    frames: Vec<Frame>,
    root: Option<Node>,
    broken: bool,
    /// Of the current document.
    anchors: BTreeMap<usize, Anchor>,
    nodes: usize,
}

/// Why reading cannot go on.
struct Stop;

/// Reads every document of a file.
pub(crate) fn parse(text: &str) -> (Vec<Document>, Vec<YamlFault>) {
    let mut documents = Vec::new();
    let faults = parse_each(text, |document| documents.push(document));
    (documents, faults)
}

/// The same. Each document is handed over as soon as it is read, so that no more than one is in memory.
pub(crate) fn parse_each(text: &str, mut visit: impl FnMut(Document)) -> Vec<YamlFault> {
    let mut options = granit_parser::options! {
        disallow_directives: true,
    };
    options.set_emit_comments(false);
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut builder = Builder::default();
    let mut started = 0usize;
    loop {
        let (event, span) = match parser.next_event() {
            None => break,
            Some(Ok(event)) => event,
            Some(Err(error)) => {
                builder.malformed(&error);
                match parser.proceed_next_document() {
                    Ok(true) => continue,
                    Ok(false) => break,
                    Err(error) => {
                        builder.malformed(&error);
                        break;
                    }
                }
            }
        };
        let at = position(span.start.line(), span.start.col());
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
    builder.faults
}

fn position(line: usize, column_from_zero: usize) -> Position {
    Position {
        line: u32::try_from(line).unwrap_or(u32::MAX),
        column: u32::try_from(column_from_zero).unwrap_or(u32::MAX).saturating_add(1),
    }
}

// === impl Builder ===

impl Builder {
    fn event(&mut self, event: Event<'_>, at: Position) -> Result<(), Stop> {
        if let Some(tag) = event.tag() {
            let written = tag.original();
            self.refuse(
                at,
                format!("the tag `{written}` is not supported"),
                "tags make YAML readers disagree about a value",
                "remove the tag; put a value that must be a string in quotes".to_owned(),
            );
        }
        match event {
            Event::DocumentStart(..) => self.reset(),
            Event::DocumentEnd => self.finish(),
            Event::Scalar(text, style, anchor, _) => {
                let style = if style == ScalarStyle::Plain { Style::Plain } else { Style::Quoted };
                self.scalar(text.into_owned(), style, anchor, at)?;
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open(Frame::List { at, anchor, items: Vec::new() }, at)?;
            }
            Event::MappingStart(_, anchor, _) => {
                self.open(Frame::Map { at, anchor, entries: Vec::new(), key: None }, at)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close()?,
            Event::Alias(id) => self.alias(id, at)?,
            // `StreamStart` and `StreamEnd`; comments and anchor metadata are not asked for.
            _ => {}
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.frames.clear();
        self.anchors.clear();
        self.root = None;
        self.broken = false;
    }

    fn finish(&mut self) {
        let broken = std::mem::take(&mut self.broken);
        if let Some(root) = self.root.take() {
            // A document without any content is nothing; an explicit null is something, and refused later.
            let empty = matches!(&root.value, Value::Scalar { text, style: Style::Plain } if text.is_empty());
            if !empty {
                self.document = Some(Document { root, broken });
            }
        }
        self.reset();
    }

    fn count(&mut self, nodes: usize, at: Position) -> Result<(), Stop> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            self.limit(at, format!("more than {MAX_NODES} values, aliases expanded"));
            return Err(Stop);
        }
        Ok(())
    }

    fn open(&mut self, frame: Frame, at: Position) -> Result<(), Stop> {
        self.count(1, at)?;
        if self.frames.len() >= MAX_DEPTH {
            self.limit(at, format!("more than {MAX_DEPTH} levels"));
            return Err(Stop);
        }
        if self.expects_key() {
            self.key_refused(at);
        }
        self.frames.push(frame);
        Ok(())
    }

    fn close(&mut self) -> Result<(), Stop> {
        let (node, anchor) = match self.frames.pop() {
            Some(Frame::List { at, anchor, items }) => (Node { at, value: Value::List(items) }, anchor),
            Some(Frame::Map { at, anchor, entries, .. }) => {
                let entries = self.without_duplicates(entries);
                (Node { at, value: Value::Map(entries) }, anchor)
            }
            None => return Err(Stop),
        };
        self.complete(node, anchor)
    }

    fn scalar(&mut self, text: String, style: Style, anchor: usize, at: Position) -> Result<(), Stop> {
        self.count(1, at)?;
        if self.expects_key() {
            let refused = if style == Style::Plain && text == "<<" {
                self.refuse(
                    at,
                    "the merge key `<<` is not supported".to_owned(),
                    "merge keys make YAML readers disagree about which value counts",
                    "write the fields out".to_owned(),
                );
                true
            } else if style == Style::Plain && scalar::classify(&text) == scalar::Plain::Null {
                self.key_refused(at);
                true
            } else {
                false
            };
            if anchor != 0 {
                self.keep(anchor, Node { at, value: Value::Scalar { text: text.clone(), style } })?;
            }
            self.set_key(if refused { None } else { Some(text) }, at);
            return Ok(());
        }
        self.complete(Node { at, value: Value::Scalar { text, style } }, anchor)
    }

    fn alias(&mut self, id: usize, at: Position) -> Result<(), Stop> {
        if self.expects_key() {
            self.key_refused(at);
            self.set_key(None, at);
            return Ok(());
        }
        let (nodes, depth) = match self.anchors.get(&id) {
            Some(anchor) => (anchor.nodes, anchor.depth),
            None => {
                self.refuse(
                    at,
                    "an alias refers to the value that it is part of".to_owned(),
                    "such a value never ends",
                    "write the value out".to_owned(),
                );
                return self.complete(Node { at, value: Value::Hole }, 0);
            }
        };
        self.count(nodes, at)?;
        if self.frames.len().saturating_add(depth) > MAX_DEPTH {
            self.limit(at, format!("more than {MAX_DEPTH} levels, aliases expanded"));
            return Err(Stop);
        }
        let value = self.anchors.get(&id).map_or(Value::Hole, |anchor| anchor.node.value.clone());
        self.complete(Node { at, value }, 0)
    }

    /// Keeps an anchored node for the aliases that refer to it. The copy costs memory like any other node.
    fn keep(&mut self, anchor: usize, node: Node) -> Result<(), Stop> {
        let nodes = count_nodes(&node);
        self.count(nodes, node.at)?;
        let depth = depth(&node);
        self.anchors.insert(anchor, Anchor { node, nodes, depth });
        Ok(())
    }

    fn set_key(&mut self, name: Option<String>, at: Position) {
        if let Some(Frame::Map { key, .. }) = self.frames.last_mut() {
            *key = Some((name, at));
        }
    }

    /// Puts a finished node where it belongs.
    fn complete(&mut self, node: Node, anchor: usize) -> Result<(), Stop> {
        if anchor != 0 {
            self.keep(anchor, node.clone())?;
        }
        match self.frames.last_mut() {
            None => self.root = Some(node),
            Some(Frame::List { items, .. }) => items.push(node),
            Some(Frame::Map { entries, key, .. }) => match key.take() {
                Some((Some(key), key_at)) => entries.push(Entry { key, key_at, value: node }),
                Some((None, _)) => {}
                // A list or mapping as a key: refused when it was opened.
                None => *key = Some((None, node.at)),
            },
        }
        Ok(())
    }

    fn expects_key(&self) -> bool {
        matches!(self.frames.last(), Some(Frame::Map { key: None, .. }))
    }

    /// Reports keys that are there twice and keeps the first of each.
    fn without_duplicates(&mut self, entries: Vec<Entry>) -> Vec<Entry> {
        if entries.len() <= FEW_ENTRIES {
            let mut rest = entries.as_slice();
            let mut differ = true;
            while let [first, others @ ..] = rest {
                differ &= others.iter().all(|other| other.key != first.key);
                rest = others;
            }
            if differ {
                return entries;
            }
        }
        let mut order: Vec<(&str, Position)> =
            entries.iter().map(|entry| (entry.key.as_str(), entry.key_at)).collect();
        order.sort_unstable();
        let mut twice: Vec<(String, Position, Position)> = Vec::new();
        for [(first, first_at), (second, second_at)] in order.array_windows::<2>() {
            if first == second {
                twice.push(((*second).to_owned(), *first_at, *second_at));
            }
        }
        if twice.is_empty() {
            return entries;
        }
        self.broken = true;
        let prefix = self.path();
        for (key, first, second) in &twice {
            let mut path = prefix.clone();
            path.push(Step::Key(key.clone()));
            self.faults.push(YamlFault {
                code: Code::DuplicateKey,
                at: *second,
                field: show_path(&path),
                message: format!("`{key}` is there twice"),
                why: "YAML readers disagree about which one counts",
                fix: format!("keep one of them (the other is in line {})", first.line),
                related: Some((*first, "the first one")),
            });
        }
        let mut seen = std::collections::BTreeSet::new();
        let mut kept = Vec::with_capacity(entries.len());
        for entry in entries {
            if seen.insert(entry.key.clone()) {
                kept.push(entry);
            }
        }
        kept
    }

    /// Where in the document the open frames are.
    fn path(&self) -> Vec<Step> {
        self.frames
            .iter()
            .filter_map(|frame| match frame {
                Frame::List { items, .. } => Some(Step::Index(items.len())),
                Frame::Map { key, .. } => key.as_ref().and_then(|(key, _)| key.clone()).map(Step::Key),
            })
            .collect()
    }

    fn key_refused(&mut self, at: Position) {
        self.refuse(
            at,
            "a key is not a string".to_owned(),
            "fields have names",
            "write the name of a field, in quotes if need be".to_owned(),
        );
    }

    fn refuse(&mut self, at: Position, message: String, why: &'static str, fix: String) {
        self.broken = true;
        let field = show_path(&self.path());
        self.faults.push(YamlFault { code: Code::YamlFeature, at, field, message, why, fix, related: None });
    }

    fn limit(&mut self, at: Position, message: String) {
        self.faults.push(YamlFault {
            code: Code::LimitExceeded,
            at,
            field: String::new(),
            message,
            why: "what is read is bounded, so that no file can exhaust the compiler",
            fix: "split the file, or write less in it".to_owned(),
            related: None,
        });
    }

    fn malformed(&mut self, error: &ScanError) {
        self.reset();
        let marker = error.marker();
        self.faults.push(YamlFault {
            code: Code::MalformedYaml,
            at: position(marker.line(), marker.col()),
            field: String::new(),
            message: format!("not well-formed YAML: {}", error.info()),
            why: "a document that cannot be read completely is not used at all",
            fix: "correct the syntax here or in the lines above".to_owned(),
            related: None,
        });
    }
}

fn count_nodes(node: &Node) -> usize {
    let parts = match &node.value {
        Value::Scalar { .. } | Value::Hole => 0,
        Value::List(items) => items.iter().map(count_nodes).sum(),
        Value::Map(entries) => entries.iter().map(|entry| count_nodes(&entry.value)).sum(),
    };
    parts.saturating_add(1)
}

fn depth(node: &Node) -> usize {
    let parts = match &node.value {
        Value::Scalar { .. } | Value::Hole => return 0,
        Value::List(items) => items.iter().map(depth).max(),
        Value::Map(entries) => entries.iter().map(|entry| depth(&entry.value)).max(),
    };
    parts.unwrap_or(0).saturating_add(1)
}

#[cfg(test)]
mod tests;
