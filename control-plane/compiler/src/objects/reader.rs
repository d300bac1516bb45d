//! One file to typed objects.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::caller::{self, TooLarge};
use super::{Object, Objects, shape};
use crate::diagnostic::{Code, Diagnostic, Related};
use crate::environment::substitute;
use crate::place::{FileText, Findings, Kind, ObjectId, Source, position_of};
use crate::revocation;
use crate::spec::{API_VERSION, Manifest};
use crate::suggest;
use crate::syntax;
use crate::yaml::{self, Decoded, Document, MAX_FILE_BYTES, Node, Position, show_path};

/// A file that is being read.
pub(super) struct FileReader<'f> {
    file: &'f Arc<FileText>,
    path: &'f str,
    env: &'f BTreeMap<String, String>,
}

/// What a file says, or a piece of one.
#[derive(Default)]
pub(crate) struct Said {
    pub(crate) objects: Objects,
    pub(crate) findings: Findings,
    /// Whether all of it is written plainly.
    pub(crate) is_plain: bool,
    /// How many values there are, aliases expanded.
    pub(crate) nodes: usize,
}

/// Reads one file, or a piece of one.
pub(crate) fn read_file(file: &Arc<FileText>, env: &BTreeMap<String, String>) -> Said {
    let Said { mut objects, mut findings, .. } = Said::default();
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
        return Said { objects, findings, is_plain: false, nodes: 0 };
    }
    let mut number = 0usize;
    let read = yaml::parse_each(&file.text, file.lines, |document| {
        reader.document(number, document, &mut objects, &mut findings);
        number = number.saturating_add(1);
    });
    for fault in read.faults {
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
    Said { objects, findings, is_plain: read.is_plain, nodes: read.nodes }
}

// === impl FileReader ===

impl FileReader<'_> {
    #[expect(clippy::too_many_arguments, reason = "a diagnostic has this many parts")]
    pub(super) fn diagnostic(
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
        let written = caller::written(&document.root, self.env);
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
            Kind::Caller => {
                broken |= self.is_too_large(root, written, findings);
                self.object(kind, number, root, broken, objects, |o| &mut o.callers, findings);
            }
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
                shape::drop_consequences(&mut faults);
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

    /// Whether this is more of a Caller than can be revoked. `written`: how many bytes it takes as it is written.
    fn is_too_large(&self, root: &Node<'_>, written: Option<usize>, findings: &mut Findings) -> bool {
        // What was revoked stays so, however large it was.
        if revocation::is_revocation(self.path) {
            return false;
        }
        let found = caller::too_large(root, written);
        let id = found.first().and_then(|_| self.id(Kind::Caller, root, &mut Findings::default()));
        for TooLarge { path, message, fix } in &found {
            findings.push(self.diagnostic(
                Code::CallerTooLarge,
                id.as_ref(),
                position_of(root, path, false),
                show_path(path),
                message.clone(),
                caller::WHY.to_owned(),
                (*fix).to_owned(),
            ));
        }
        !found.is_empty()
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
}
