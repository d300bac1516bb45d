//! Where in the sources something is, and what was found there.
//!
//! A [`Place`] is a path into an object that costs nothing until there is something to say about it. Trees are not kept
//! either: the file is read again then.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::diagnostic::{Code, Diagnostic, Related};
use crate::yaml::{self, Document, Node, Position, Step, push_step};

/// The kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The inventory of workloads.
    Mesh,
    /// Who may issue tokens.
    TrustedIssuer,
    /// One named identity.
    Caller,
    /// A declaration that workloads are guarded.
    Guard,
    /// Allow or deny.
    AccessRule,
    /// Requests, and what must be decided.
    RuleTest,
}

/// Kind, namespace and name of an object; unique.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// Which kind.
    pub kind: Kind,
    /// `None` for kinds that belong to no namespace.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

/// A file or a piece of one, and its trees while places in it are asked for.
#[derive(Debug)]
pub(crate) struct FileText {
    pub(crate) path: Arc<str>,
    pub(crate) text: Arc<str>,
    /// How many there are before it in its file.
    pub(crate) lines: u32,
    trees: Mutex<Option<Arc<Vec<Document<'static>>>>>,
}

/// An object's place in the sources.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) id: ObjectId,
    file: Arc<FileText>,
    /// Which document of the file.
    document: usize,
    pub(crate) at: Position,
    /// Of `spec` and `spec.from`, or the nearest part that there is: many warnings are about these.
    spec_at: Position,
    from_at: Position,
}

/// A part of an object.
#[derive(Clone, Copy)]
pub(crate) struct Place<'p> {
    source: &'p Source,
    part: Option<(&'p Place<'p>, Part<'p>)>,
}

#[derive(Clone, Copy)]
enum Part<'p> {
    Key(&'p str),
    Index(usize),
}

/// Collects what is found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    found: Vec<Diagnostic>,
    errors: usize,
    asked_for_broken: bool,
}

// === impl Kind ===

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Mesh, Self::TrustedIssuer, Self::Caller, Self::Guard, Self::AccessRule, Self::RuleTest];

    /// As it is written in `kind`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mesh => "Mesh",
            Self::TrustedIssuer => "TrustedIssuer",
            Self::Caller => "Caller",
            Self::Guard => "Guard",
            Self::AccessRule => "AccessRule",
            Self::RuleTest => "RuleTest",
        }
    }

    /// Whether objects of this kind belong to a namespace.
    pub const fn is_namespaced(self) -> bool {
        match self {
            Self::Mesh | Self::TrustedIssuer | Self::RuleTest => false,
            Self::Caller | Self::Guard | Self::AccessRule => true,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl ObjectId ===

impl ObjectId {
    /// `namespace/name`, or the name alone.
    pub fn qualified_name(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{namespace}/{}", self.name),
            None => self.name.clone(),
        }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.kind, self.qualified_name())
    }
}

// === impl FileText ===

impl FileText {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self::piece(&path.into(), 0, text)
    }

    /// A piece of a file, behind so many lines.
    pub(crate) fn piece(path: &Arc<str>, lines: u32, text: &str) -> Self {
        Self { path: Arc::clone(path), text: text.into(), lines, trees: Mutex::new(None) }
    }

    fn trees(&self) -> Arc<Vec<Document<'static>>> {
        let mut trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(trees.get_or_insert_with(|| {
            Arc::new(
                yaml::parse_from(&self.text, self.lines).0.into_iter().map(Document::into_owned).collect(),
            )
        }))
    }

    /// Gives the memory of the trees back.
    pub(crate) fn forget(&self) {
        *self.trees.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

// === impl Source ===

impl Source {
    /// Of an object that was read from this document of a file.
    pub(crate) fn new(id: ObjectId, file: Arc<FileText>, document: usize, root: &Node<'_>) -> Self {
        let spec = [Step::Key("spec".to_owned()), Step::Key("from".to_owned())];
        let (spec_at, from_at) =
            (position_of(root, spec.get(..1).unwrap_or_default(), false), position_of(root, &spec, false));
        Self { id, file, document, at: root.at, spec_at, from_at }
    }

    /// Objects are in the order of their ids, and those with the same one in the order of places.
    pub(crate) fn order(&self) -> (&ObjectId, &str, Position, &str) {
        (&self.id, &self.file.path, self.at, &self.file.text)
    }

    /// As diagnostics name the file.
    pub(crate) fn file(&self) -> &str {
        &self.file.path
    }

    fn position(&self, steps: &[Step]) -> Position {
        match steps {
            [] => self.at,
            [Step::Key(spec)] if spec == "spec" => self.spec_at,
            [Step::Key(spec), Step::Key(from)] if spec == "spec" && from == "from" => self.from_at,
            // What the environment replaced is elsewhere in no tree.
            steps => match self.file.trees().get(self.document) {
                Some(document) => position_of(&document.root, steps, false),
                None => self.at,
            },
        }
    }

    pub(crate) fn place(&self) -> Place<'_> {
        Place { source: self, part: None }
    }

    /// The namespace; empty for kinds that have none.
    pub(crate) fn namespace(&self) -> &str {
        self.id.namespace.as_deref().unwrap_or_default()
    }
}

// === impl Place ===

impl<'p> Place<'p> {
    pub(crate) fn key<'c>(&'c self, key: &'c str) -> Place<'c> {
        Place { source: self.source, part: Some((self, Part::Key(key))) }
    }

    pub(crate) fn index(&self, index: usize) -> Place<'_> {
        Place { source: self.source, part: Some((self, Part::Index(index))) }
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut place = *self;
        while let Some((parent, part)) = place.part {
            steps.push(match part {
                Part::Key(key) => Step::Key(key.to_owned()),
                Part::Index(index) => Step::Index(index),
            });
            place = *parent;
        }
        steps.reverse();
        steps
    }

    pub(crate) fn position(&self) -> Position {
        self.source.position(&self.steps())
    }

    pub(crate) fn file(&self) -> &'p str {
        self.source.file()
    }
}

/// The position of a path, or of the nearest part of it that exists. A field's own position is that of its value, except
/// where the field itself is the finding.
pub(crate) fn position_of(root: &Node<'_>, steps: &[Step], of_key: bool) -> Position {
    let mut node = root;
    let mut at = root.at;
    for (number, step) in steps.iter().enumerate() {
        let last = number.saturating_add(1) == steps.len();
        match step {
            Step::Key(key) => match node.entry(key) {
                Some(entry) => {
                    at = if last && of_key { entry.key_at } else { entry.value.at };
                    node = &entry.value;
                }
                None => break,
            },
            Step::Index(index) => match node.item(*index) {
                Some(item) => {
                    at = item.at;
                    node = item;
                }
                None => break,
            },
        }
    }
    at
}

// === impl Findings ===

impl Findings {
    /// Notes a finding about a part of an object.
    pub(crate) fn add(
        &mut self,
        place: &Place<'_>,
        code: Code,
        message: impl Into<String>,
        why: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.add_related(place, code, message, why, fix, Vec::new());
    }

    /// The same, with other places that it is about.
    pub(crate) fn add_related(
        &mut self,
        place: &Place<'_>,
        code: Code,
        message: impl Into<String>,
        why: impl Into<String>,
        fix: impl Into<String>,
        related: Vec<Related>,
    ) {
        let steps = place.steps();
        let at = place.source.position(&steps);
        let mut field = String::new();
        for step in &steps {
            push_step(&mut field, step);
        }
        self.push(Diagnostic {
            file: place.source.file().to_owned(),
            line: at.line,
            column: at.column,
            code,
            severity: code.severity(),
            object: Some(place.source.id.to_string()),
            field,
            message: message.into(),
            why: why.into(),
            fix: fix.into(),
            related,
        });
    }

    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        if diagnostic.is_error() {
            self.errors = self.errors.saturating_add(1);
        }
        self.found.push(diagnostic);
    }

    /// Notes that what is said rests on which objects are there and broken.
    pub(crate) fn ask_for_broken(&mut self) {
        self.asked_for_broken = true;
    }

    pub(crate) fn asked_for_broken(&self) -> bool {
        self.asked_for_broken
    }

    /// All of these as well.
    pub(crate) fn extend(&mut self, more: impl IntoIterator<Item = Diagnostic>) {
        more.into_iter().for_each(|diagnostic| self.push(diagnostic));
    }

    /// Everything, in the order in which it was found.
    pub(crate) fn into_found(self) -> Vec<Diagnostic> {
        self.found
    }

    /// How many errors there are so far.
    pub(crate) fn errors(&self) -> usize {
        self.errors
    }

    /// Everything, by place; nothing twice.
    pub(crate) fn into_sorted(mut self) -> Vec<Diagnostic> {
        self.found.sort();
        self.found.dedup();
        self.found
    }
}
