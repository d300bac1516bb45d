//! Events of YAML to trees: bounded, and without anything that YAML readers disagree about.
//!
//! Whoever reads the text, all that is refused for what it is, and not for how it is written, is refused here.

use std::borrow::Cow;
use std::collections::BTreeMap;

use granit_parser::{Event, ScalarStyle, ScanError};

use super::parse::{Document, MAX_DEPTH, MAX_NODES, YamlFault};
use super::{Entry, Node, Position, Step, Style, Value, scalar, show_path};
use crate::diagnostic::Code;

/// With no more entries than these, comparing all pairs is faster than sorting.
const FEW_ENTRIES: usize = 10;

enum Frame<'t> {
    List {
        at: Position,
        anchor: usize,
        items: Vec<Node<'t>>,
    },
    /// The key, once it is read, is `None` where it was refused: its value is read and thrown away.
    Map {
        at: Position,
        anchor: usize,
        entries: Vec<Entry<'t>>,
        key: Option<(Option<Cow<'t, str>>, Position)>,
    },
}

/// An anchored node.
struct Anchor<'t> {
    node: Node<'t>,
    nodes: usize,
    depth: usize,
}

#[derive(Default)]
pub(super) struct Builder<'t> {
    pub(super) faults: Vec<YamlFault>,
    /// The one that was just finished.
    pub(super) document: Option<Document<'t>>,
    /// Of the current document.
    frames: Vec<Frame<'t>>,
    root: Option<Node<'t>>,
    broken: bool,
    /// Of the current document.
    anchors: BTreeMap<usize, Anchor<'t>>,
    /// Of all documents.
    nodes: usize,
}

/// Why reading cannot go on.
pub(super) struct Stop;

/// How far it was before a document.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    faults: usize,
    nodes: usize,
}

// === impl Builder ===

impl<'t> Builder<'t> {
    /// Takes what a parser of YAML says next.
    pub(super) fn event(&mut self, event: Event<'t>, at: Position) -> Result<(), Stop> {
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
                self.scalar(text, style, anchor, at)?;
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open_list(anchor, at)?;
            }
            Event::MappingStart(_, anchor, _) => {
                self.open_map(anchor, at)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close()?,
            Event::Alias(id) => self.alias(id, at)?,
            // `StreamStart` and `StreamEnd`; comments and anchor metadata are not asked for.
            _ => {}
        }
        Ok(())
    }

    /// How many there are.
    pub(super) fn nodes(&self) -> usize {
        self.nodes
    }

    /// How far it is before the next document.
    pub(super) fn mark(&self) -> Mark {
        Mark { faults: self.faults.len(), nodes: self.nodes }
    }

    /// Whether nothing was refused since then.
    pub(super) fn is_clean_since(&self, mark: Mark) -> bool {
        self.faults.len() == mark.faults && !self.broken
    }

    /// Forgets all since then.
    pub(super) fn go_back(&mut self, mark: Mark) {
        self.faults.truncate(mark.faults);
        self.nodes = mark.nodes;
        self.document = None;
        self.reset();
    }

    fn reset(&mut self) {
        self.frames.clear();
        self.anchors.clear();
        self.root = None;
        self.broken = false;
    }

    pub(super) fn finish(&mut self) {
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

    pub(super) fn open_list(&mut self, anchor: usize, at: Position) -> Result<(), Stop> {
        self.open(Frame::List { at, anchor, items: Vec::new() }, at)
    }

    pub(super) fn open_map(&mut self, anchor: usize, at: Position) -> Result<(), Stop> {
        self.open(Frame::Map { at, anchor, entries: Vec::new(), key: None }, at)
    }

    fn open(&mut self, frame: Frame<'t>, at: Position) -> Result<(), Stop> {
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

    pub(super) fn close(&mut self) -> Result<(), Stop> {
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

    pub(super) fn scalar(
        &mut self,
        text: Cow<'t, str>,
        style: Style,
        anchor: usize,
        at: Position,
    ) -> Result<(), Stop> {
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
    fn keep(&mut self, anchor: usize, node: Node<'t>) -> Result<(), Stop> {
        let nodes = count_nodes(&node);
        self.count(nodes, node.at)?;
        let depth = depth(&node);
        self.anchors.insert(anchor, Anchor { node, nodes, depth });
        Ok(())
    }

    fn set_key(&mut self, name: Option<Cow<'t, str>>, at: Position) {
        if let Some(Frame::Map { key, .. }) = self.frames.last_mut() {
            *key = Some((name, at));
        }
    }

    /// Puts a finished node where it belongs.
    fn complete(&mut self, node: Node<'t>, anchor: usize) -> Result<(), Stop> {
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
    fn without_duplicates(&mut self, entries: Vec<Entry<'t>>) -> Vec<Entry<'t>> {
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
            entries.iter().map(|entry| (entry.key.as_ref(), entry.key_at)).collect();
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
                Frame::Map { key, .. } => {
                    key.as_ref().and_then(|(key, _)| key.as_deref()).map(|key| Step::Key(key.to_owned()))
                }
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

    pub(super) fn limit(&mut self, at: Position, message: String) {
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

    /// `at`: where it is.
    pub(super) fn malformed(&mut self, error: &ScanError, at: Position) {
        self.reset();
        self.faults.push(YamlFault {
            code: Code::MalformedYaml,
            at,
            field: String::new(),
            message: format!("not well-formed YAML: {}", error.info()),
            why: "a document that cannot be read completely is not used at all",
            fix: "correct the syntax here or in the lines above".to_owned(),
            related: None,
        });
    }
}

fn count_nodes(node: &Node<'_>) -> usize {
    let parts = match &node.value {
        Value::Scalar { .. } | Value::Hole => 0,
        Value::List(items) => items.iter().map(count_nodes).sum(),
        Value::Map(entries) => entries.iter().map(|entry| count_nodes(&entry.value)).sum(),
    };
    parts.saturating_add(1)
}

fn depth(node: &Node<'_>) -> usize {
    let parts = match &node.value {
        Value::Scalar { .. } | Value::Hole => return 0,
        Value::List(items) => items.iter().map(depth).max(),
        Value::Map(entries) => entries.iter().map(|entry| depth(&entry.value)).max(),
    };
    parts.unwrap_or(0).saturating_add(1)
}
