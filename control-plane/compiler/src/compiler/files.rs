//! All files: which are there, and what there is to do about them.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::base::Unchanged;
use super::file::{File, Known, Reading, Text};
use crate::diagnostic::Diagnostic;
use crate::mesh::WorkloadId;
use crate::objects::{Objects, refuse_duplicate};
use crate::parallel;
use crate::place::{Findings, ObjectId, Source};
use crate::plan::warn_unguarded;
use crate::rules::Guard;

/// So many files are put where they belong one by one.
const FEW: usize = 64;

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

/// An object, to be found by its id.
#[derive(Debug)]
struct ById(Arc<Source>);

/// Pieces of files by where they are in memory.
type Part = BTreeMap<usize, Arc<File>>;

fn key(file: &Arc<File>) -> usize {
    Arc::as_ptr(file).addr()
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
    /// The sources that are not here as they are, in the order of paths, and the files here that are not in the sources. The
    /// latter are taken out; what was made of them is still there.
    pub(super) fn compare<'s>(&mut self, sources: &[Text<'s>]) -> (Vec<Text<'s>>, Vec<Known>) {
        let (mut sources, known) = self.without_pairs(sources);
        sources.sort_unstable();
        let (mut new, mut gone) = (Vec::new(), Vec::new());
        let mut known = known.into_iter().peekable();
        for source in sources {
            // Texts are only compared where the paths are the same.
            let is_before = |known: &&Known| {
                *known.path < *source.0 || (*known.path == *source.0 && *known.source().1 < *source.1)
            };
            while let Some(known) = known.next_if(is_before) {
                gone.push(known.clone());
            }
            if known.next_if(|known| known.is_of(source)).is_none() {
                new.push(source);
            }
        }
        gone.extend(known.cloned());
        self.take(&gone);
        (new, gone)
    }

    /// All but pairs of the same, one of the sources and one of the files here, that are found without sorting: most, if
    /// the sources are in the order of paths. What is left are the files in the order in which they are here.
    fn without_pairs<'s, 'f>(&'f self, sources: &[Text<'s>]) -> (Vec<Text<'s>>, Vec<&'f Known>) {
        // As many from the beginning as are the same, and the others counted from the end.
        let is_pair = |(source, known): (&Text<'s>, &Known)| known.is_of(*source);
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

    /// All files of which a piece must be checked again. They are taken out; what was made of them is still there.
    pub(super) fn take_stale(&mut self, unchanged: Unchanged) -> Vec<Reading> {
        if unchanged.values && unchanged.broken {
            return Vec::new();
        }
        let stale: Vec<Known> = self.all.iter().filter(|known| known.is_stale(unchanged)).cloned().collect();
        self.take(&stale);
        stale.iter().map(Reading::again).collect()
    }

    fn take(&mut self, gone: &[Known]) {
        if gone.is_empty() {
            return;
        }
        let mut keys: Vec<usize> = gone.iter().map(Known::key).collect();
        keys.sort_unstable();
        self.all.retain(|known| keys.binary_search(&known.key()).is_err());
    }

    /// These pieces do not count any more.
    pub(super) fn forget(&mut self, gone: &[Arc<File>]) {
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

    /// These pieces count.
    pub(super) fn remember(&mut self, new: &[Arc<File>]) {
        for file in new {
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
    }

    /// These files are there.
    pub(super) fn add(&mut self, files: Vec<Known>) {
        let order = |a: &Known, b: &Known| a.path.cmp(&b.path).then_with(|| a.source().cmp(&b.source()));
        if files.len() <= FEW {
            for known in files {
                let at = self.all.partition_point(|other| order(other, &known).is_lt());
                self.all.insert(at, known);
            }
        } else {
            self.all.extend(files);
            self.all.sort_by(order);
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
            let all = self.all.iter().flat_map(Known::files);
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
