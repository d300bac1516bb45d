//! Files to typed objects.
//!
//! INVARIANT: every document of every file becomes an object or at least one error; none is skipped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::SourceFile;
use crate::diagnostic::{Code, Diagnostic, Related};
use crate::environment::substitute;
use crate::parallel;
use crate::place::{FileText, Findings, Kind, ObjectId, Source, position_of};
use crate::revocation;
use crate::spec::{
    API_VERSION, AccessRuleSpec, CallerSpec, GuardSpec, Manifest, MeshSpec, RuleTestSpec, TrustedIssuerSpec,
};
use crate::suggest;
use crate::syntax;
use crate::yaml::{
    self, DecodeFault, Decoded, Document, Fault, MAX_FILE_BYTES, Node, Position, Step, show_path,
};

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
    for (more, found) in read {
        objects.extend(more);
        findings.extend(found.into_found());
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

/// Reads one file.
pub(crate) fn read_file(file: &Arc<FileText>, env: &BTreeMap<String, String>) -> (Objects, Findings) {
    let mut objects = Objects::default();
    let mut findings = Findings::default();
    let reader = FileReader { file, path: &file.path, env };
    if file.text.len() > MAX_FILE_BYTES {
        objects.broken.unknown = true;
        findings.push(reader.diagnostic(
            Code::FileTooLarge,
            None,
            Position::default(),
            String::new(),
            format!("the file has {} bytes", file.text.len()),
            format!("files of more than {MAX_FILE_BYTES} bytes are not read"),
            "split it".to_owned(),
        ));
        return (objects, findings);
    }
    let mut number = 0usize;
    let faults = yaml::parse_each(&file.text, |document| {
        reader.document(number, document, &mut objects, &mut findings);
        number = number.saturating_add(1);
    });
    for fault in faults {
        objects.broken.unknown |= matches!(fault.code, Code::MalformedYaml | Code::LimitExceeded);
        let mut diagnostic = reader.diagnostic(
            fault.code,
            None,
            fault.at,
            fault.field,
            fault.message,
            fault.why.to_owned(),
            fault.fix,
        );
        if let Some((at, message)) = fault.related {
            diagnostic.related.push(Related {
                file: file.path.to_string(),
                line: at.line,
                column: at.column,
                message: message.to_owned(),
            });
        }
        findings.push(diagnostic);
    }
    (objects, findings)
}

/// A misspelt field is missing as well: one mistake, one finding.
fn drop_consequences(faults: &mut Vec<DecodeFault>) {
    let misspelt: Vec<(Vec<Step>, &str)> = faults
        .iter()
        .filter_map(|DecodeFault { path, fault }| match fault {
            Fault::UnknownField { name, expected } => {
                let meant = suggest::closest(name, expected.iter().copied())?;
                path.split_last().map(|(_, parent)| (parent.to_vec(), meant))
            }
            _ => None,
        })
        .collect();
    faults.retain(|DecodeFault { path, fault }| match fault {
        Fault::MissingField { name } => {
            !misspelt.iter().any(|(parent, meant)| parent == path && meant == name)
        }
        _ => true,
    });
}

struct FileReader<'f> {
    file: &'f Arc<FileText>,
    path: &'f str,
    env: &'f BTreeMap<String, String>,
}

// === impl FileReader ===

impl FileReader<'_> {
    #[expect(clippy::too_many_arguments, reason = "a diagnostic has this many parts")]
    fn diagnostic(
        &self,
        code: Code,
        id: Option<&ObjectId>,
        at: Position,
        field: String,
        message: String,
        why: String,
        fix: String,
    ) -> Diagnostic {
        Diagnostic {
            file: self.path.to_owned(),
            line: at.line,
            column: at.column,
            code,
            severity: code.severity(),
            object: id.map(ObjectId::to_string),
            field,
            message,
            why,
            fix,
            related: Vec::new(),
        }
    }

    fn document(
        &self,
        number: usize,
        mut document: Document<'_>,
        objects: &mut Objects,
        findings: &mut Findings,
    ) {
        let faults = substitute(&mut document.root, self.env);
        let mut broken = document.broken || !faults.is_empty();
        for fault in faults {
            findings.push(self.diagnostic(
                fault.code,
                None,
                fault.at,
                fault.field,
                fault.message,
                fault.why.to_owned(),
                fault.fix,
            ));
        }
        let Some(kind) = self.kind(&document.root, findings) else {
            objects.broken.unknown = true;
            return;
        };
        broken |= self.api_version(&document.root, findings);
        let root = &document.root;
        match kind {
            Kind::Mesh => self.object(kind, number, root, broken, objects, |o| &mut o.meshes, findings),
            Kind::TrustedIssuer => {
                self.object(kind, number, root, broken, objects, |o| &mut o.issuers, findings);
            }
            Kind::Caller => self.object(kind, number, root, broken, objects, |o| &mut o.callers, findings),
            Kind::Guard => self.object(kind, number, root, broken, objects, |o| &mut o.guards, findings),
            Kind::AccessRule => self.object(kind, number, root, broken, objects, |o| &mut o.rules, findings),
            Kind::RuleTest => self.object(kind, number, root, broken, objects, |o| &mut o.tests, findings),
        }
    }

    fn kind(&self, root: &Node<'_>, findings: &mut Findings) -> Option<Kind> {
        let kinds = || Kind::ALL.map(Kind::as_str);
        let known = suggest::list(kinds());
        let (at, message, fix) = match (&root.value, root.entry("kind")) {
            (yaml::Value::Map(_), Some(entry)) => {
                let written = entry.value.text().unwrap_or_default();
                if let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.as_str() == written) {
                    return Some(kind);
                }
                let fix = match suggest::closest(written, kinds()) {
                    Some(kind) => format!("did you mean `{kind}`?"),
                    None => format!("write one of {known}"),
                };
                (entry.value.at, format!("`{written}` is not a kind of Tidegate"), fix)
            }
            (yaml::Value::Map(_), None) => (
                root.at,
                "the document does not say what `kind` it is".to_owned(),
                format!("write one of {known}"),
            ),
            _ => (
                root.at,
                "the document is not an object".to_owned(),
                "write `kind`, `metadata` and `spec`".to_owned(),
            ),
        };
        let field = if root.entry("kind").is_some() { "kind" } else { "" };
        findings.push(self.diagnostic(
            Code::UnknownKind,
            None,
            at,
            field.to_owned(),
            message,
            "a document that nobody reads would be a rule that nobody enforces".to_owned(),
            fix,
        ));
        None
    }

    /// Whether the version is one that cannot be read.
    fn api_version(&self, root: &Node<'_>, findings: &mut Findings) -> bool {
        let Some(entry) = root.entry("apiVersion") else { return false };
        let Some(written) = entry.value.text() else { return false };
        if written == API_VERSION {
            return false;
        }
        findings.push(self.diagnostic(
            Code::UnknownKind,
            None,
            entry.value.at,
            "apiVersion".to_owned(),
            format!("`{written}` is not a version that can be read"),
            "fields mean different things in different versions".to_owned(),
            format!("write `{API_VERSION}`"),
        ));
        true
    }

    #[expect(clippy::too_many_arguments, reason = "what is read, and where it goes")]
    fn object<S: DeserializeOwned>(
        &self,
        kind: Kind,
        number: usize,
        root: &Node<'_>,
        broken: bool,
        objects: &mut Objects,
        list: fn(&mut Objects) -> &mut Vec<Arc<Object<S>>>,
        findings: &mut Findings,
    ) {
        let decoded = yaml::decode::<Manifest<S>>(root);
        let id = self.id(kind, root, findings);
        match (decoded, id) {
            (Decoded::Value(manifest), Some(id)) if !broken => {
                let source = Arc::new(Source::new(id, Arc::clone(self.file), number, root));
                list(objects).push(Arc::new(Object { source, spec: manifest.spec }));
            }
            (decoded, id) => {
                let mut faults = match decoded {
                    Decoded::Value(_) => Vec::new(),
                    Decoded::Faults(faults) => faults,
                };
                drop_consequences(&mut faults);
                for fault in faults {
                    findings.push(self.shape(root, id.as_ref(), fault.path, fault.fault));
                }
                match id {
                    Some(id) => {
                        objects.broken.ids.insert(id);
                    }
                    None => objects.broken.unknown = true,
                }
            }
        }
    }

    /// Who the object is, if that can be read. What is wrong with the name is reported here, what is missing by shape.
    fn id(&self, kind: Kind, root: &Node<'_>, findings: &mut Findings) -> Option<ObjectId> {
        let metadata = &root.entry("metadata")?.value;
        let name = &metadata.entry("name")?.value;
        let name_text = name.text()?;
        let namespace = metadata.entry("namespace").map(|entry| &entry.value);
        let mut well_formed = true;
        let mut wrong = |code: Code, at: Position, field: &str, message: String, why: &str, fix: String| {
            well_formed = false;
            findings.push(self.diagnostic(code, None, at, field.to_owned(), message, why.to_owned(), fix));
        };
        if !syntax::is_object_name(name_text) {
            wrong(
                Code::MalformedValue,
                name.at,
                "metadata.name",
                format!("`{name_text}` is not a name"),
                "names are DNS subdomains, as everywhere in Kubernetes",
                "use lower-case letters, digits, `-` and `.`; begin and end with a letter or digit"
                    .to_owned(),
            );
        }
        if name_text.starts_with(revocation::NAMES) && !revocation::is_revocation(self.path) {
            wrong(
                Code::ReservedName,
                name.at,
                "metadata.name",
                format!("names that begin with `{}` are those of revocations", revocation::NAMES),
                "the control plane adds what `tidegate revoke` takes back under such names, and could not beside this",
                "choose another name".to_owned(),
            );
        }
        match (kind.is_namespaced(), namespace) {
            (true, None) => wrong(
                Code::WrongNamespace,
                metadata.at,
                "metadata.namespace",
                format!("{kind} `{name_text}` does not say to which namespace it belongs"),
                "an object acts in its own namespace",
                "write `metadata.namespace`".to_owned(),
            ),
            (true, Some(namespace)) => {
                let text = namespace.text()?;
                if !syntax::is_label(text) {
                    wrong(
                        Code::MalformedValue,
                        namespace.at,
                        "metadata.namespace",
                        format!("`{text}` is not a namespace"),
                        "namespaces are DNS labels, as everywhere in Kubernetes",
                        "use lower-case letters, digits and `-`".to_owned(),
                    );
                }
            }
            (false, Some(namespace)) => wrong(
                Code::WrongNamespace,
                namespace.at,
                "metadata.namespace",
                format!("a {kind} belongs to no namespace"),
                "it counts for the whole mesh",
                "remove `metadata.namespace`".to_owned(),
            ),
            (false, None) => {}
        }
        well_formed.then(|| ObjectId {
            kind,
            namespace: namespace.and_then(Node::text).map(str::to_owned),
            name: name_text.to_owned(),
        })
    }

    /// Says what is wrong with the shape of an object.
    fn shape(&self, root: &Node<'_>, id: Option<&ObjectId>, mut path: Vec<Step>, fault: Fault) -> Diagnostic {
        let of_key = matches!(fault, Fault::UnknownField { .. });
        let at = position_of(root, &path, of_key);
        let (code, message, why, fix) = match fault {
            Fault::UnknownField { name, expected } => {
                let fix = match suggest::closest(&name, expected.iter().copied()) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => format!("known here: {}", suggest::list(expected.iter().copied())),
                };
                let why = "a field that nobody reads would be a condition that nobody checks";
                (Code::UnknownField, format!("unknown field `{name}`"), why, fix)
            }
            Fault::MissingField { name } => {
                path.push(Step::Key(name.to_owned()));
                let why = "it has no default";
                (Code::MissingField, format!("`{name}` is missing"), why, format!("write `{name}`"))
            }
            Fault::WrongType { expected, found } => {
                let fix = match expected.as_str() {
                    "a string" if !found.starts_with("a ") => "put the value in quotes".to_owned(),
                    "a whole number" if found.starts_with("the string") => "remove the quotes".to_owned(),
                    "a list" => "write a list: `[…]`, or lines that begin with `-`".to_owned(),
                    "`true` or `false`" => "write `true` or `false`, without quotes".to_owned(),
                    _ => format!("write {expected}"),
                };
                (
                    Code::WrongType,
                    format!("{expected} is expected here, not {found}"),
                    "nothing is converted",
                    fix,
                )
            }
            Fault::UnknownValue { value, expected } => {
                let fix = match suggest::closest(&value, expected.iter().copied()) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => format!("write one of {}", suggest::list(expected.iter().copied())),
                };
                (
                    Code::UnknownValue,
                    format!("`{value}` is not a value of this field"),
                    "nothing is guessed",
                    fix,
                )
            }
            Fault::Ambiguous { text, meaning } => (
                Code::AmbiguousScalar,
                format!("`{text}` without quotes is {meaning} to some YAML readers"),
                "the same file must mean the same everywhere",
                format!("write `\"{text}\"`"),
            ),
            Fault::Null => (
                Code::NullValue,
                "nothing is written here".to_owned(),
                "an empty field is neither \"any\" nor \"none\"",
                "write a value, or remove the field".to_owned(),
            ),
            Fault::Other(message) => {
                (Code::WrongType, message, "nothing is guessed", "correct the value".to_owned())
            }
        };
        self.diagnostic(code, id, at, show_path(&path), message, why.to_owned(), fix)
    }
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
