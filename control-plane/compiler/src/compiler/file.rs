//! One file, in pieces: of one that has changed, pieces that say the same from the same lines are not read and checked again.
//!
//! INVARIANT: what is said of a file does not depend on how it is cut. A file is in several pieces only where every piece was
//! read plainly ([`crate::yaml::cut`]) and no bound of files is exceeded by all of them together; any other is one piece.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::base::Unchanged;
use crate::context::Context;
use crate::diagnostic::Diagnostic;
use crate::objects::{Objects, Said, read_file};
use crate::place::{FileText, Findings, Source};
use crate::rules::{Guard, Rule, check_guard, check_rule};
use crate::schedule::Ending;
use crate::warnings::warn_everything;
use crate::yaml::{self, MAX_NODES};

/// Path and text of a file.
pub(super) type Text<'s> = (&'s str, &'s str);

/// A piece that was read, and not checked yet.
#[derive(Debug)]
pub(super) struct Unchecked {
    text: Arc<FileText>,
    objects: Objects,
    findings: Vec<Diagnostic>,
    nodes: u32,
}

/// A piece of a file whose Guards and rules were checked. What they were written as is not kept.
///
/// INVARIANT: never changed once it is made.
#[derive(Debug)]
pub(super) struct File {
    pub(super) text: Arc<FileText>,
    /// Meshes, issuers, Callers, and what is broken.
    pub(super) base: Objects,
    pub(super) guards: Vec<Arc<Guard>>,
    pub(super) rules: Vec<Arc<Rule>>,
    pub(super) sources: Vec<Arc<Source>>,
    /// Of reading and of checking.
    pub(super) findings: Vec<Diagnostic>,
    /// What is said if there are no errors.
    pub(super) late: Vec<Diagnostic>,
    pub(super) endings: Vec<Ending>,
    pub(super) asked_for_broken: bool,
    /// Whether all of its Guards and rules are usable.
    pub(super) whole: bool,
    /// How many values it has.
    nodes: u32,
}

/// A file, and what it was read from: comparing that is most of what there is to do where little changed, so it is not far.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) path: Arc<str>,
    first: Piece,
    others: Box<[Piece]>,
}

#[derive(Debug, Clone)]
struct Piece {
    text: Arc<str>,
    file: Arc<File>,
}

/// A file on its way.
#[derive(Debug)]
pub(super) struct Reading {
    path: Arc<str>,
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Kept(Arc<File>),
    New(Box<Unchecked>),
}

// === impl Unchecked ===

impl Unchecked {
    fn read(text: Arc<FileText>, env: &BTreeMap<String, String>) -> Self {
        let said = read_file(&text, env);
        Self::of(text, said)
    }

    /// `None`: it is not written plainly.
    fn read_plain(text: FileText, env: &BTreeMap<String, String>) -> Option<Self> {
        let text = Arc::new(text);
        let said = read_file(&text, env);
        said.is_plain.then(|| Self::of(text, said))
    }

    fn of(text: Arc<FileText>, said: Said) -> Self {
        let Said { objects, findings, nodes, .. } = said;
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
        Self { text, objects, findings: findings.into_found(), nodes }
    }

    /// What it was written as is given up here, where others do the same.
    fn check(self, context: &Context<'_>) -> File {
        let mut findings = Findings::default();
        let mut late = Findings::default();
        let mut endings = Vec::new();
        let Self { text, objects, findings: mut all, nodes } = self;
        let guards: Vec<Option<Guard>> =
            objects.guards.iter().map(|guard| check_guard(guard, context, &mut findings)).collect();
        let rules: Vec<Option<Rule>> =
            objects.rules.iter().map(|rule| check_rule(rule, context, &mut endings, &mut findings)).collect();
        rules.iter().flatten().for_each(|rule| warn_everything(rule, &mut late));
        let whole = guards.iter().all(Option::is_some) && rules.iter().all(Option::is_some);
        let asked_for_broken = findings.asked_for_broken();
        all.extend(findings.into_found());
        let sources = objects.sources().map(Arc::clone).collect();
        let Objects { meshes, issuers, callers, broken, .. } = objects;
        File {
            text,
            base: Objects { meshes, issuers, callers, broken, ..Objects::default() },
            guards: guards.into_iter().flatten().map(Arc::new).collect(),
            rules: rules.into_iter().flatten().map(Arc::new).collect(),
            sources,
            findings: all,
            late: late.into_found(),
            endings,
            asked_for_broken,
            whole,
            nodes,
        }
    }
}

// === impl File ===

impl File {
    fn is_stale(&self, unchanged: Unchanged) -> bool {
        !unchanged.values || (!unchanged.broken && self.asked_for_broken)
    }
}

// === impl Piece ===

impl Piece {
    fn new(file: Arc<File>) -> Self {
        Self { text: Arc::clone(&file.text.text), file }
    }
}

// === impl Known ===

impl Known {
    fn pieces(&self) -> impl Iterator<Item = &Piece> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Its pieces.
    pub(super) fn files(&self) -> impl Iterator<Item = &Arc<File>> {
        self.pieces().map(|piece| &piece.file)
    }

    /// Where its first piece is in memory.
    pub(super) fn key(&self) -> usize {
        Arc::as_ptr(&self.first.file).addr()
    }

    /// Whether it was read from this.
    pub(super) fn is_of(&self, (path, text): Text<'_>) -> bool {
        let rest = || self.pieces().try_fold(text, |rest, piece| rest.strip_prefix(&*piece.text));
        *self.path == *path && rest().is_some_and(str::is_empty)
    }

    /// Path and text. The text is put together, so it is not for where paths say enough.
    pub(super) fn source(&self) -> (&str, String) {
        (&self.path, self.pieces().map(|piece| &*piece.text).collect())
    }

    pub(super) fn is_stale(&self, unchanged: Unchanged) -> bool {
        self.files().any(|file| file.is_stale(unchanged))
    }

    /// The piece behind so many lines, if it says this and is written plainly.
    fn plain(&self, lines: u32, text: &str) -> Option<&Arc<File>> {
        let at_line = |piece: &Piece| piece.file.text.lines.cmp(&lines);
        let piece = match self.others.binary_search_by(at_line) {
            Ok(at) => self.others.get(at)?,
            Err(_) => &self.first,
        };
        let is_it = !self.others.is_empty() && piece.file.text.lines == lines && *piece.text == *text;
        is_it.then_some(&piece.file)
    }
}

// === impl Reading ===

impl Reading {
    /// Reads a file. `before`: what it said, which no other file goes on from.
    pub(super) fn new(
        (path, text): Text<'_>,
        before: Option<&Known>,
        env: &BTreeMap<String, String>,
    ) -> Self {
        let path: Arc<str> = path.into();
        let parts = Self::plain(&path, text, before, env).unwrap_or_else(|| {
            let text = FileText::piece(&path, 0, text);
            vec![Part::New(Box::new(Unchecked::read(Arc::new(text), env)))]
        });
        Self { path, parts }
    }

    /// In several pieces. `None`: it has to be read as a whole.
    fn plain(
        path: &Arc<str>,
        text: &str,
        before: Option<&Known>,
        env: &BTreeMap<String, String>,
    ) -> Option<Vec<Part>> {
        let pieces = yaml::cut(text)?.into_iter();
        let parts = pieces.map(|(lines, text)| match before.and_then(|before| before.plain(lines, text)) {
            Some(file) => Some(Part::Kept(Arc::clone(file))),
            None => {
                Unchecked::read_plain(FileText::piece(path, lines, text), env).map(Box::new).map(Part::New)
            }
        });
        let parts = parts.collect::<Option<Vec<_>>>()?;
        let nodes = parts.iter().map(Part::nodes).fold(0, u32::saturating_add);
        usize::try_from(nodes).is_ok_and(|nodes| nodes <= MAX_NODES).then_some(parts)
    }

    /// Nothing of it is read again so far.
    pub(super) fn again(known: &Known) -> Self {
        let parts = known.files().map(|file| Part::Kept(Arc::clone(file))).collect();
        Self { path: Arc::clone(&known.path), parts }
    }

    /// What is not checked yet.
    pub(super) fn objects(&self) -> impl Iterator<Item = &Objects> {
        self.parts.iter().filter_map(|part| match part {
            Part::Kept(_) => None,
            Part::New(unchecked) => Some(&unchecked.objects),
        })
    }

    /// The pieces that are kept.
    pub(super) fn kept(&self) -> impl Iterator<Item = &Arc<File>> {
        self.parts.iter().filter_map(|part| match part {
            Part::Kept(file) => Some(file),
            Part::New(_) => None,
        })
    }

    /// The pieces that are kept and must be checked again.
    pub(super) fn stale(&self, unchanged: Unchanged) -> impl Iterator<Item = &Arc<File>> {
        self.kept().filter(move |file| file.is_stale(unchanged))
    }

    /// Reads those again: what they were written as is not kept.
    pub(super) fn read_stale(self, unchanged: Unchanged, env: &BTreeMap<String, String>) -> Self {
        let parts = self.parts.into_iter().map(|part| match part {
            Part::Kept(file) if file.is_stale(unchanged) => {
                Part::New(Box::new(Unchecked::read(Arc::clone(&file.text), env)))
            }
            part => part,
        });
        Self { path: self.path, parts: parts.collect() }
    }

    /// The file, and which of its pieces are new. There is always one.
    pub(super) fn check(self, context: &Context<'_>) -> Option<(Known, Vec<Arc<File>>)> {
        let mut new = Vec::new();
        let mut pieces = self.parts.into_iter().map(|part| {
            Piece::new(match part {
                Part::Kept(file) => file,
                Part::New(unchecked) => {
                    let file = Arc::new(unchecked.check(context));
                    new.push(Arc::clone(&file));
                    file
                }
            })
        });
        let (first, others) = (pieces.next()?, pieces.collect());
        Some((Known { path: self.path, first, others }, new))
    }
}

// === impl Part ===

impl Part {
    fn nodes(&self) -> u32 {
        match self {
            Self::Kept(file) => file.nodes,
            Self::New(unchecked) => unchecked.nodes,
        }
    }
}
