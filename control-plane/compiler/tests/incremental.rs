//! A compiler that keeps what did not change says exactly what one says that has just begun.
//!
//! `TIDEGATE_CASES` sets the number of cases (default 96), each of up to twelve changes.

mod common;

use std::collections::BTreeMap;

use common::documents::{DOCUMENTS, MISTAKES};
use common::{GUARD, MESH, compile_files, env, files, shown};
use proptest::prelude::*;
use proptest::sample::Index;
use tidegate_compiler::{Compiler, Inputs, SourceFile, compile};

/// What changes documents into others that may compile as well.
const CHANGES: [(&str, &str); 22] = [
    ("app: orders-api", "app: orders-two"),
    ("name: ledger,", "name: journal,"),
    ("trustDomain: prod.example", "trustDomain: other.example"),
    ("rootNamespace: mesh-config", "rootNamespace: sales"),
    ("gateway: external}", "gateway: outside}"),
    ("serviceAccount: dataflow-in", "serviceAccount: dataflow-two"),
    ("issuer: https://gitlab.com", "issuer: https://gitlab.example.com"),
    ("pack: generic", "pack: gitlab"),
    ("allowedNamespaces: [sales]", "allowedNamespaces: [etl]"),
    ("audiences: ['https://orders.sales.example']", "audiences: ['https://other.example']"),
    ("pack: okta, keys", "pack: okta, retireAfter: '2026-11-30', keys"),
    ("peer: {namespace: etl}, tokens", "peer: {namespace: ci}, tokens"),
    ("dataflowJob: {name: etl,", "dataflowJob: {name: elt,"),
    ("caller: data/etl", "anyMesh: true"),
    ("effect: Allow", "effect: Deny"),
    ("mode: Enforce", "mode: Shadow"),
    ("owner: x", "owner: y"),
    ("owner: x", "owner: x, notAfter: '2026-11-20'"),
    ("owner: x", "owner: '${env.team}'"),
    ("metadata: {name: a,", "metadata: {name: b,"),
    ("namespace: sales}", "namespace: etl}"),
    ("kind: ", "# a line more\nkind: "),
];

/// One thing that somebody does to the files.
#[derive(Debug, Clone)]
enum Edit {
    /// Puts a document into a file, also where it is already.
    Add(Index, usize),
    /// Takes one out again.
    Remove(Index),
    /// Changes one, always from what it was at first.
    Change(Index, Index),
    /// Breaks one, always from what it was at first.
    Break(Index, Index),
    /// Everything is as it was at first.
    Mend,
    /// Moves the file to another path, before or behind the others.
    Rename(usize, usize),
    /// Two files of one path.
    Twin(usize, usize),
    /// Text that is no YAML, or what is mended again.
    Garble(usize),
    /// The file is not there, or is there again.
    Hide(usize),
    /// The files are told in another order.
    Order(usize),
    /// So many more documents are in front of those of a file: enough of them make it a file that is read in pieces.
    Pad(usize, usize),
    Environment(Option<&'static str>),
    Time(Option<i64>),
}

const FILES: usize = 5;

fn edit() -> impl Strategy<Value = Edit> {
    let at = any::<Index>;
    prop_oneof![
        3 => (at(), 0..FILES).prop_map(|(document, file)| Edit::Add(document, file)),
        2 => at().prop_map(Edit::Remove),
        8 => (at(), at()).prop_map(|(at, to)| Edit::Change(at, to)),
        2 => (at(), at()).prop_map(|(at, to)| Edit::Break(at, to)),
        2 => Just(Edit::Mend),
        1 => (0..FILES, 0..9usize).prop_map(|(file, path)| Edit::Rename(file, path)),
        1 => (0..FILES, 0..FILES).prop_map(|(file, path)| Edit::Twin(file, path)),
        1 => (0..FILES).prop_map(Edit::Garble),
        2 => (0..FILES).prop_map(Edit::Hide),
        1 => (0..FILES).prop_map(Edit::Order),
        2 => (0..FILES, proptest::sample::select(vec![0, 63, 64, 65, 128])).prop_map(|(file, many)| Edit::Pad(file, many)),
        1 => proptest::option::of(proptest::sample::select(vec!["one", "two"])).prop_map(Edit::Environment),
        1 => proptest::option::of(proptest::sample::select(vec![1_763_000_000, 1_795_000_000])).prop_map(Edit::Time),
    ]
}

/// A text, and what stands there instead.
type Replaced = (&'static str, &'static str);

/// The files as they are, and all that is compiled with them.
struct Folder {
    paths: [String; FILES],
    garbled: [bool; FILES],
    hidden: [bool; FILES],
    padded: [usize; FILES],
    /// Which is told first.
    first: usize,
    /// Each document as it was at first, what was done to it, and its file.
    documents: Vec<(String, Option<Replaced>, usize)>,
    env: BTreeMap<String, String>,
    now: Option<i64>,
}

impl Folder {
    fn new(files: &[usize]) -> Self {
        Self {
            paths: std::array::from_fn(|file| format!("{file}.yaml")),
            garbled: [false; FILES],
            hidden: [false; FILES],
            padded: [0; FILES],
            first: 0,
            documents: DOCUMENTS.iter().cloned().zip(files).map(|(text, file)| (text, None, *file)).collect(),
            env: env(),
            now: None,
        }
    }

    fn apply(&mut self, edit: &Edit) {
        match edit {
            Edit::Add(at, file) => {
                self.documents.push((DOCUMENTS[at.index(DOCUMENTS.len())].clone(), None, *file))
            }
            Edit::Remove(at) if !self.documents.is_empty() => {
                self.documents.remove(at.index(self.documents.len()));
            }
            Edit::Change(at, to) => self.change(at, to, &CHANGES),
            Edit::Break(at, to) => self.change(at, to, &MISTAKES),
            Edit::Mend => {
                self.garbled = [false; FILES];
                self.hidden = [false; FILES];
                self.documents.truncate(DOCUMENTS.len());
                for ((text, change, _), first) in self.documents.iter_mut().zip(&*DOCUMENTS) {
                    text.clone_from(first);
                    *change = None;
                }
                let there = self.documents.len();
                self.documents.extend(DOCUMENTS.iter().skip(there).map(|text| (text.clone(), None, 0)));
            }
            Edit::Remove(_) => {}
            Edit::Rename(file, path) => self.paths[*file] = format!("{path}-more.yaml"),
            Edit::Twin(file, path) => self.paths[*file] = self.paths[*path].clone(),
            Edit::Garble(file) => self.garbled[*file] ^= true,
            Edit::Hide(file) => self.hidden[*file] ^= true,
            Edit::Order(first) => self.first = *first,
            Edit::Pad(file, many) => self.padded[*file] = *many,
            Edit::Environment(team) => {
                self.env = env();
                self.env.extend(team.map(|team| ("team".to_owned(), team.to_owned())));
            }
            Edit::Time(now) => self.now = *now,
        }
    }

    fn change(&mut self, at: &Index, to: &Index, to_what: &[Replaced]) {
        if self.documents.is_empty() {
            return;
        }
        let at = at.index(self.documents.len());
        let (text, change, _) = &mut self.documents[at];
        let fitting: Vec<_> = to_what.iter().filter(|(from, _)| text.contains(from)).collect();
        if !fitting.is_empty() {
            *change = Some(*fitting[to.index(fitting.len())]);
        }
    }

    fn files(&self) -> Vec<SourceFile> {
        let text = |file: usize| {
            let documents = self.documents.iter().filter(|(_, _, at)| *at == file);
            let documents = documents.map(|(text, change, _)| match change {
                Some((from, to)) => text.replacen(from, to, 1),
                None => text.clone(),
            });
            let padding = (0..self.padded[file]).map(|at| padding(file, at));
            let mut text = padding.chain(documents).collect::<Vec<_>>().join("---\n");
            if self.garbled[file] {
                text.push_str("---\nkind: [\n");
            }
            text
        };
        let files = (0..FILES).map(|at| (at + self.first) % FILES).filter(|file| !self.hidden[*file]);
        files.map(|file| SourceFile { path: self.paths[file].clone(), text: text(file) }).collect()
    }
}

/// A rule about which there is something to say, wherever it is.
fn padding(file: usize, at: usize) -> String {
    format!(
        "# {}\nkind: AccessRule\nmetadata: {{name: pad-{file}-{at}, namespace: ci}}\nspec: {{owner: x, effect: Allow, mode: \
         Enforce, from: [{{anyMesh: true}}], to: [{{http: {{paths: ['/{at}']}}}}]}}\n",
        "x".repeat(400)
    )
}

fn config() -> ProptestConfig {
    let cases = std::env::var("TIDEGATE_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(96);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    /// Nothing that was made of what is not there any more is ever said or enforced.
    #[test]
    fn after_any_changes_it_says_what_a_new_one_says(
        files in prop::collection::vec(0..FILES, DOCUMENTS.len()),
        edits in prop::collection::vec(edit(), 1..12),
        reversed in any::<bool>(),
    ) {
        let mut folder = Folder::new(&files);
        let mut compiler = Compiler::new();
        let mut done = Vec::new();
        for edit in std::iter::once(None).chain(edits.iter().map(Some)) {
            if let Some(edit) = edit {
                folder.apply(edit);
            }
            done.push(edit);
            let mut sources = folder.files();
            if reversed {
                sources.reverse();
            }
            let inputs = Inputs { sources: &sources, env: folder.env.clone(), now: folder.now };
            let (kept, new) = (compiler.compile(&inputs), compile(&inputs));
            prop_assert_eq!(shown(&kept), shown(&new), "{:?}", done);
            prop_assert_eq!(&kept.diagnostics, &new.diagnostics, "{:?}", done);
            prop_assert!(kept.output == new.output, "{done:?}");
        }
    }
}

/// What is made again is only what could be another: the rest is the same in memory.
#[test]
fn an_edited_rule_leaves_other_workloads_alone() {
    let mut folder = Folder::new(&vec![0; DOCUMENTS.len()]);
    for (at, document) in folder.documents.iter_mut().enumerate() {
        document.2 = if at < 2 { 0 } else { 1 + at % 4 };
    }
    let mut compiler = Compiler::new();
    let mut run = |folder: &Folder| {
        let sources = folder.files();
        let inputs = Inputs { sources: &sources, env: folder.env.clone(), now: folder.now };
        compiler.compile(&inputs).output.expect("the documents compile")
    };
    let before = run(&folder);
    let rule = folder
        .documents
        .iter_mut()
        .find(|document| document.0.contains("name: d, namespace: egress"))
        .unwrap();
    rule.1 = Some(("a.B", "a.C"));
    let after = run(&folder);
    for (id, policy) in &after.workloads {
        let same = std::sync::Arc::ptr_eq(policy, &before.workloads[id]);
        assert_eq!(same, id.to_string() != "egress/external", "{id}");
    }
}

/// A file that is read in pieces says what the same file says that has to be read as a whole.
#[test]
fn how_a_file_is_read_does_not_show() {
    let plain = |at: usize| {
        padding(0, at).replace("owner: x", if at % 7 == 5 { "owner: no, efect: a" } else { "owner: x" })
    };
    let last = padding(0, 200);
    // The same to whoever reads all of YAML, and as long.
    let other = last.replace("owner: x", "owner: \"\\x78\"").replacen("xxxxx", "", 1);
    assert_eq!(last.len(), other.len());
    let documents = || (0..130).map(plain);
    for (name, there) in [("twice", padding(0, 3)), ("once", padding(0, 300))] {
        let said = [&last, &other].map(|last| {
            let mut documents: Vec<String> = documents().chain([there.clone(), last.clone()]).collect();
            documents.splice(
                40..40,
                [GUARD.replace("sales", "etl"), "kind: Guard\nmetadata: {name: a}\n".to_owned()],
            );
            let rules = documents.join("---\n");
            let compilation = compile_files(&files(&[("mesh.yaml", MESH), ("rules.yaml", &rules)]));
            shown(&compilation)
        });
        assert_eq!(said[0], said[1], "{name}");
        assert_eq!(said[0].contains("TG0301"), name == "twice", "{}", said[0]);
    }
}

#[test]
fn every_change_is_one_of_the_documents_as_they_are() {
    let text = DOCUMENTS.join("---\n");
    for (from, to) in CHANGES {
        assert!(text.contains(from), "{from} → {to}");
    }
}
