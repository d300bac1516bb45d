//! Files to typed objects.
//!
//! INVARIANT: every document of every file becomes an object or at least one error; none is skipped.

mod caller;
mod reader;
mod shape;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::SourceFile;
use crate::diagnostic::{Code, Related};
use crate::parallel;
use crate::place::{FileText, Findings, Kind, ObjectId, Source};
use crate::spec::{AccessRuleSpec, CallerSpec, GuardSpec, MeshSpec, RuleTestSpec, TrustedIssuerSpec};

pub(crate) use reader::{Said, read_file};

/// A typed object and where it came from.
#[derive(Debug)]
pub(crate) struct Object<S> {
    pub(crate) source: Arc<Source>,
    pub(crate) spec: S,
}

/// All objects, in the order of their ids.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub(crate) meshes: Vec<Arc<Object<MeshSpec>>>,
    pub(crate) issuers: Vec<Arc<Object<TrustedIssuerSpec>>>,
    pub(crate) callers: Vec<Arc<Object<CallerSpec>>>,
    pub(crate) guards: Vec<Arc<Object<GuardSpec>>>,
    pub(crate) rules: Vec<Arc<Object<AccessRuleSpec>>>,
    pub(crate) tests: Vec<Arc<Object<RuleTestSpec>>>,
    pub(crate) broken: Broken,
}

/// What is there and cannot be used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Broken {
    /// References to these are not reported again.
    pub(crate) ids: BTreeSet<ObjectId>,
    /// A document was so broken that it is not known what it is.
    pub(crate) unknown: bool,
}

/// Reads all files.
pub(crate) fn read(files: &[SourceFile], env: &BTreeMap<String, String>, findings: &mut Findings) -> Objects {
    let mut files: Vec<&SourceFile> = files.iter().collect();
    files.sort_by(|a, b| (&a.path, &a.text).cmp(&(&b.path, &b.text)));
    let read = parallel::map(&files, |file| {
        let text = Arc::new(FileText::new(&file.path, &file.text));
        read_file(&text, env)
    });
    let mut objects = Objects::default();
    for said in read {
        objects.extend(said.objects);
        findings.extend(said.findings.into_found());
    }
    objects.sort();
    refuse_duplicates(&objects.meshes, findings);
    refuse_duplicates(&objects.issuers, findings);
    refuse_duplicates(&objects.callers, findings);
    refuse_duplicates(&objects.guards, findings);
    refuse_duplicates(&objects.rules, findings);
    refuse_duplicates(&objects.tests, findings);
    objects
}

fn refuse_duplicates<S>(list: &[Arc<Object<S>>], findings: &mut Findings) {
    for [first, second] in list.array_windows::<2>() {
        if first.source.id == second.source.id {
            refuse_duplicate(&first.source, &second.source, findings);
        }
    }
}

/// Two objects with the same id, one after the other in the order of places.
pub(crate) fn refuse_duplicate(first: &Source, second: &Source, findings: &mut Findings) {
    let place = first.place();
    let at = place.position();
    let file = place.file();
    findings.add_related(
        &second.place(),
        Code::DuplicateObject,
        format!("{} is there twice: also at {file}:{}:{}", first.id, at.line, at.column),
        "which of them counts would depend on the order of files",
        "rename or remove one of them",
        vec![Related {
            file: file.to_owned(),
            line: at.line,
            column: at.column,
            message: "the other one".to_owned(),
        }],
    );
}

// === impl Objects ===

impl Objects {
    fn extend(&mut self, more: Self) {
        self.meshes.extend(more.meshes);
        self.issuers.extend(more.issuers);
        self.callers.extend(more.callers);
        self.guards.extend(more.guards);
        self.rules.extend(more.rules);
        self.tests.extend(more.tests);
        self.broken.extend(more.broken);
    }

    /// In the order of ids, and those with the same id by place, so that reports do not depend on the order of reading.
    pub(crate) fn sort(&mut self) {
        fn by_id<S>(list: &mut [Arc<Object<S>>]) {
            list.sort_by(|a, b| a.source.order().cmp(&b.source.order()));
        }
        by_id(&mut self.meshes);
        by_id(&mut self.issuers);
        by_id(&mut self.callers);
        by_id(&mut self.guards);
        by_id(&mut self.rules);
        by_id(&mut self.tests);
    }

    /// Where all usable objects are.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &Arc<Source>> {
        fn of<S>(list: &[Arc<Object<S>>]) -> impl Iterator<Item = &Arc<Source>> {
            list.iter().map(|object| &object.source)
        }
        of(&self.meshes)
            .chain(of(&self.issuers))
            .chain(of(&self.callers))
            .chain(of(&self.guards))
            .chain(of(&self.rules))
            .chain(of(&self.tests))
    }

    /// File and line of all usable objects.
    pub(crate) fn origins(&self) -> BTreeMap<ObjectId, (String, u32)> {
        self.sources().map(|source| (source.id.clone(), (source.file().to_owned(), source.at.line))).collect()
    }

    /// All usable objects, sorted.
    pub(crate) fn ids(&self) -> Vec<ObjectId> {
        let mut ids: Vec<ObjectId> = self.sources().map(|source| source.id.clone()).collect();
        ids.sort();
        ids
    }
}

// === impl Broken ===

impl Broken {
    pub(crate) fn extend(&mut self, more: Self) {
        self.ids.extend(more.ids);
        self.unknown |= more.unknown;
    }

    /// Whether a reference to a missing object has a cause that is reported elsewhere.
    pub(crate) fn has(&self, id: &ObjectId, findings: &mut Findings) -> bool {
        findings.ask_for_broken();
        self.unknown || self.ids.contains(id)
    }

    /// Whether there is an object of this kind that cannot be used, or a document of which that is not known.
    pub(crate) fn has_any(&self, kind: Kind) -> bool {
        self.unknown || self.ids.iter().any(|id| id.kind == kind)
    }
}
