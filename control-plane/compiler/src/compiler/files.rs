//! What each file says, and what came of checking it.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::base::Unchanged;
use crate::context::Context;
use crate::diagnostic::Diagnostic;
use crate::mesh::WorkloadId;
use crate::objects::{Objects, read_file, refuse_duplicate};
use crate::parallel;
use crate::place::{FileText, Findings, ObjectId, Source};
use crate::plan::warn_unguarded;
use crate::rules::{Guard, Rule, check_guard, check_rule};
use crate::schedule::Ending;
use crate::warnings::warn_everything;

/// So many files are put where they belong one by one.
const FEW: usize = 64;

/// Path and text of a file.
pub(super) type Text<'s> = (&'s str, &'s str);

/// A file that was read, and not checked yet.
#[derive(Debug)]
pub(super) struct Unchecked {
    pub(super) text: Arc<FileText>,
    pub(super) objects: Objects,
    findings: Vec<Diagnostic>,
}

/// A file whose Guards and rules were checked. What they were written as is not kept.
///
/// INVARIANT: never changed once it is made.
#[derive(Debug)]
pub(super) struct File {
    pub(super) text: Arc<FileText>,
    /// Meshes, issuers, Callers, and what is broken.
    pub(super) base: Objects,
    pub(super) guards: Vec<Arc<Guard>>,
    pub(super) rules: Vec<Arc<Rule>>,
    sources: Vec<Arc<Source>>,
    /// Of reading and of checking.
    findings: Vec<Diagnostic>,
    /// What is said if there are no errors.
    late: Vec<Diagnostic>,
    endings: Vec<Ending>,
    asked_for_broken: bool,
    /// Whether all of its Guards and rules are usable.
    whole: bool,
}

/// All files.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// In the order of paths and texts.
    all: Vec<Known>,
    objects: HashSet<ById>,
    /// Objects with the id of another one, which is in `objects`.
    others: BTreeMap<ObjectId, Vec<Arc<Source>>>,
    /// Files about which there is something to do, so that the others need not be looked at.
    with_base: Part,
    with_guards: Part,
    with_findings: Part,
    with_late: Part,
    with_endings: Part,
    with_broken_references: Part,
    not_whole: Part,
    /// What is said of rules without a Guard, by file, and for which workloads with one.
    unguarded: HashMap<usize, Vec<Diagnostic>>,
    unguarded_pending: Part,
    covered: Option<BTreeSet<WorkloadId>>,
}

/// A file, and what it was read from: comparing that is most of what there is to do where little changed, so it is not far.
#[derive(Debug, Clone)]
struct Known {
    path: Arc<str>,
    text: Arc<str>,
    file: Arc<File>,
}

/// An object, to be found by its id.
#[derive(Debug)]
struct ById(Arc<Source>);

/// Files by where they are in memory.
type Part = BTreeMap<usize, Arc<File>>;

fn key(file: &Arc<File>) -> usize {
    Arc::as_ptr(file).addr()
}

// === impl Unchecked ===

impl Unchecked {
    pub(super) fn read(text: Arc<FileText>, env: &BTreeMap<String, String>) -> Self {
        let (objects, findings) = read_file(&text, env);
        Self { text, objects, findings: findings.into_found() }
    }

    /// What it was written as is given up here, where others do the same.
    pub(super) fn check(self, context: &Context<'_>) -> File {
        let mut findings = Findings::default();
        let mut late = Findings::default();
        let mut endings = Vec::new();
        let Self { text, objects, findings: mut all } = self;
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
        }
    }
}

// === impl Known ===

impl Known {
    fn new(file: &Arc<File>) -> Self {
        let FileText { path, text, .. } = &*file.text;
        Self { path: Arc::clone(path), text: Arc::clone(text), file: Arc::clone(file) }
    }

    fn source(&self) -> (&str, &str) {
        (&self.path, &self.text)
    }
}

// === impl ById ===

impl Borrow<ObjectId> for ById {
    fn borrow(&self) -> &ObjectId {
        &self.0.id
    }
}

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ById {}

// === impl Files ===

impl Files {
    /// The sources that are not here as they are, and the files here that are not in the sources. The latter are taken out.
    pub(super) fn compare<'s>(&mut self, sources: &[Text<'s>]) -> (Vec<Text<'s>>, Vec<Arc<File>>) {
        let (mut sources, known) = self.without_pairs(sources);
        sources.sort_unstable();
        let (mut new, mut gone) = (Vec::new(), Vec::new());
        let mut known = known.into_iter().peekable();
        for source in sources {
            // Texts are only compared where the paths are the same.
            while let Some(known) = known.next_if(|known| known.source() < source) {
                gone.push(Arc::clone(&known.file));
            }
            if known.next_if(|known| known.source() == source).is_none() {
                new.push(source);
            }
        }
        gone.extend(known.map(|known| Arc::clone(&known.file)));
        self.remove(&gone);
        (new, gone)
    }

    /// All but pairs of the same, one of the sources and one of the files here, that are found without sorting: most, if
    /// the sources are in the order of paths. What is left are the files in the order in which they are here.
    fn without_pairs<'s, 'f>(&'f self, sources: &[Text<'s>]) -> (Vec<Text<'s>>, Vec<&'f Known>) {
        // As many from the beginning as are the same, and the others counted from the end.
        let is_pair = |(source, known): (&Text<'s>, &Known)| known.source() == *source;
        let zipped = || sources.iter().zip(&self.all);
        let begin = if sources.len() == self.all.len() {
            0
        } else {
            zipped().position(|pair| !is_pair(pair)).unwrap_or_else(|| sources.len().min(self.all.len()))
        };
        let (sources, all) =
            (sources.get(begin..).unwrap_or_default(), self.all.get(begin..).unwrap_or_default());
        let end = sources.len().min(all.len());
        let (more_sources, sources) = sources.split_at(sources.len().saturating_sub(end));
        let (more_known, all) = all.split_at(all.len().saturating_sub(end));
        let pairs: Vec<(&Text<'s>, &Known)> = sources.iter().zip(all).collect();
        let same = parallel::map(&pairs, |pair| is_pair(*pair));
        let others = || pairs.iter().zip(&same).filter(|(_, same)| !**same).map(|(pair, _)| pair);
        (
            more_sources.iter().chain(others().map(|(source, _)| *source)).copied().collect(),
            more_known.iter().chain(others().map(|(_, known)| *known)).collect(),
        )
    }

    /// All files whose checks must be done again. They are taken out.
    pub(super) fn take_stale(&mut self, unchanged: Unchanged) -> Vec<Arc<File>> {
        let stale: Vec<Arc<File>> = match unchanged {
            Unchanged { values: true, broken: true } => return Vec::new(),
            Unchanged { values: true, broken: false } => {
                self.with_broken_references.values().cloned().collect()
            }
            Unchanged { values: false, .. } => self.all.iter().map(|known| Arc::clone(&known.file)).collect(),
        };
        self.remove(&stale);
        stale
    }

    fn remove(&mut self, gone: &[Arc<File>]) {
        if gone.is_empty() {
            return;
        }
        let mut keys: Vec<usize> = gone.iter().map(key).collect();
        keys.sort_unstable();
        self.all.retain(|known| keys.binary_search(&key(&known.file)).is_err());
        for file in gone {
            let key = key(file);
            for part in self.tables() {
                part.remove(&key);
            }
            self.unguarded.remove(&key);
            file.sources.iter().for_each(|source| self.remove_object(source));
        }
    }

    fn remove_object(&mut self, source: &Arc<Source>) {
        let others = self.others.get_mut(&source.id);
        if self.objects.get(&source.id).is_some_and(|known| Arc::ptr_eq(&known.0, source)) {
            self.objects.remove(&source.id);
            self.objects.extend(others.and_then(Vec::pop).map(ById));
        } else if let Some(others) = others {
            others.retain(|other| !Arc::ptr_eq(source, other));
        }
        if self.others.get(&source.id).is_some_and(Vec::is_empty) {
            self.others.remove(&source.id);
        }
    }

    fn add_object(&mut self, source: &Arc<Source>) {
        if self.objects.contains(&source.id) {
            self.others.entry(source.id.clone()).or_default().push(Arc::clone(source));
        } else {
            self.objects.insert(ById(Arc::clone(source)));
        }
    }

    fn tables(&mut self) -> [&mut Part; 8] {
        [
            &mut self.with_base,
            &mut self.with_guards,
            &mut self.with_findings,
            &mut self.with_late,
            &mut self.with_endings,
            &mut self.with_broken_references,
            &mut self.not_whole,
            &mut self.unguarded_pending,
        ]
    }

    pub(super) fn add(&mut self, files: &[Arc<File>]) {
        for file in files {
            let base = &file.base;
            let has_base = !base.meshes.is_empty() || !base.issuers.is_empty() || !base.callers.is_empty();
            let is_broken = base.broken.unknown || !base.broken.ids.is_empty();
            let belongs = [
                has_base || is_broken,
                !file.guards.is_empty(),
                !file.findings.is_empty(),
                !file.late.is_empty(),
                !file.endings.is_empty(),
                file.asked_for_broken,
                !file.whole,
                true,
            ];
            let tables = self.tables().into_iter().zip(belongs);
            for (part, _) in tables.filter(|(_, belongs)| *belongs) {
                part.insert(key(file), Arc::clone(file));
            }
            file.sources.iter().for_each(|source| self.add_object(source));
        }
        if files.len() <= FEW {
            for file in files {
                let known = Known::new(file);
                let at = self.all.partition_point(|other| other.source() < known.source());
                self.all.insert(at, known);
            }
        } else {
            self.all.extend(files.iter().map(Known::new));
            self.all.sort_by(|a, b| a.source().cmp(&b.source()));
        }
    }

    /// Meshes, issuers, Callers and what is broken, of all files that are checked.
    pub(super) fn base(&self) -> impl Iterator<Item = &Objects> {
        self.with_base.values().map(|file| &file.base)
    }

    /// All that was found in files, and whatever is there twice.
    pub(super) fn tell(&self, now: Option<i64>, findings: &mut Findings) {
        for file in self.with_findings.values() {
            findings.extend(file.findings.iter().cloned());
        }
        for file in self.with_endings.values() {
            for ending in &file.endings {
                findings.extend(now.iter().flat_map(|now| ending.told(*now)).cloned());
            }
        }
        for (id, others) in &self.others {
            let first = self.objects.get(id).map(|known| &known.0);
            let mut sources: Vec<&Arc<Source>> = first.into_iter().chain(others).collect();
            sources.sort_by(|a, b| a.order().cmp(&b.order()));
            for [first, second] in sources.array_windows::<2>() {
                refuse_duplicate(first, second, findings);
            }
        }
    }

    /// What is said of rules where there are no errors. `covered`: the workloads that have a Guard.
    pub(super) fn tell_late(&mut self, covered: BTreeSet<WorkloadId>, findings: &mut Findings) {
        for file in self.with_late.values() {
            findings.extend(file.late.iter().cloned());
        }
        if self.covered.as_ref() != Some(&covered) {
            self.unguarded.clear();
            let all = self.all.iter().map(|known| &known.file);
            self.unguarded_pending = all.map(|file| (key(file), Arc::clone(file))).collect();
        }
        for (key, file) in std::mem::take(&mut self.unguarded_pending) {
            let mut found = Findings::default();
            file.rules.iter().for_each(|rule| warn_unguarded(rule, &covered, &mut found));
            let found = found.into_found();
            if !found.is_empty() {
                self.unguarded.insert(key, found);
            }
        }
        self.covered = Some(covered);
        findings.extend(self.unguarded.values().flatten().cloned());
    }

    /// Whether every Guard and every rule is usable.
    pub(super) fn is_whole(&self) -> bool {
        self.not_whole.is_empty()
    }

    /// All Guards.
    pub(super) fn guards(&self) -> impl Iterator<Item = &Arc<Guard>> {
        self.with_guards.values().flat_map(|file| &file.guards)
    }

    /// Gives up all files, and with them what nobody else has of them.
    pub(super) fn discard(mut self) {
        let all = std::mem::take(&mut self.all);
        drop(self);
        parallel::map_owned(all, drop);
    }

    /// Gives back the memory of trees that were read again for places.
    pub(super) fn forget_trees(&self) {
        for part in [&self.with_base, &self.with_guards, &self.with_findings, &self.with_endings] {
            part.values().for_each(|file| file.text.forget());
        }
    }
}
