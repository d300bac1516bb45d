//! Judging the objects of a cluster: one object is one file, and one team's mistake is not another's.
//!
//! A broken object with a last good form counts with that, as with files. One without any would stop everything; here it
//! stops its namespace: the rules of that namespace stay as they were accepted last, all of them, and the rest goes on.
//! "Nothing new is pushed to a workload until every rule that can target it compiles or has a last good form."
//!
//! INVARIANT: objects of the root namespace can target everything, so a broken new one there stops everything. A Caller or
//! TrustedIssuer that was deleted while rules still name it counts until they no longer do: those rules cannot be compiled
//! without it, and a Deny among them must not disappear.

use std::collections::BTreeSet;
use std::fmt;

use tidegate_compiler::{Diagnostic, Kind};

use super::{AcceptedRules, Environment, Files, Finding, Loaded, Origin, Verdict, judge};

/// What a cluster has, the Mesh that is made from its pods included.
const KINDS: [Kind; 5] = [Kind::Mesh, Kind::TrustedIssuer, Kind::Caller, Kind::Guard, Kind::AccessRule];
/// More rounds than there are reasons for.
const ROUNDS: usize = 64;

/// The path of an object: `kube/<Kind>/<namespace>/<name>.yaml`, without the namespace where there is none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectPath {
    /// Which kind.
    pub kind: Kind,
    /// Absent for kinds that belong to no namespace.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

// === impl ObjectPath ===

impl ObjectPath {
    /// The object that a path names.
    pub fn parse(path: &str) -> Option<Self> {
        let mut parts = path.strip_prefix("kube/")?.strip_suffix(".yaml")?.split('/');
        let kind = parts.next()?;
        let kind = KINDS.into_iter().find(|known| known.as_str() == kind)?;
        let namespace = if kind.is_namespaced() { Some(parts.next()?.to_owned()) } else { None };
        let name = parts.next()?.to_owned();
        parts.next().is_none().then_some(Self { kind, namespace, name })
    }

    /// Whether it acts on the workloads of one namespace only, and on which.
    fn confined_to(&self, root: &str) -> Option<&str> {
        let is_rule = matches!(self.kind, Kind::Guard | Kind::AccessRule);
        self.namespace.as_deref().filter(|namespace| is_rule && *namespace != root)
    }
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "kube/{}/{namespace}/{}.yaml", self.kind, self.name),
            None => write!(f, "kube/{}/{}.yaml", self.kind, self.name),
        }
    }
}

/// Judges the objects of a cluster whose root namespace is `root`.
///
/// [`Verdict::substituted`] has every object that does not count as it is, also those that are only held back.
pub fn judge_objects<T>(
    loaded: &Loaded,
    environment: &Environment,
    last_good: Option<&AcceptedRules>,
    root: &str,
    mut compile: impl FnMut(&Files, &Environment) -> (Vec<Diagnostic>, Option<T>),
) -> Verdict<T> {
    let first = judge(loaded, environment, last_good, Origin::Objects, &mut compile);
    let nothing = AcceptedRules::default();
    let good = last_good.unwrap_or(&nothing);
    let findings = first.findings;
    let mut outcome = first.accepted;
    let mut to_blame: BTreeSet<String> = broken(&findings);
    let mut candidate = loaded.clone();
    let mut frozen = BTreeSet::new();
    for _ in 0..ROUNDS {
        if outcome.is_some() {
            break;
        }
        if !step(&mut candidate, good, &to_blame, root, &mut frozen) {
            break;
        }
        let verdict = judge(&candidate, environment, last_good, Origin::Objects, &mut compile);
        to_blame = broken(&verdict.findings);
        outcome = verdict.accepted;
    }
    let Some((accepted, output)) = outcome else {
        return Verdict { findings, substituted: BTreeSet::new(), accepted: None };
    };
    let mut substituted: BTreeSet<String> = BTreeSet::new();
    for (path, text) in &loaded.files {
        if accepted.files.get(path) != Some(text) {
            substituted.insert(path.clone());
        }
    }
    substituted.extend(accepted.files.keys().filter(|path| !loaded.files.contains_key(*path)).cloned());
    substituted.extend(loaded.problems.iter().map(|problem| problem.file.clone()));
    Verdict { findings, substituted, accepted: Some((accepted, output)) }
}

/// The files with errors. One without a name stands for all.
fn broken(findings: &[Finding]) -> BTreeSet<String> {
    findings.iter().filter(|found| found.is_error()).map(|found| found.file().to_owned()).collect()
}

/// Holds something back because of broken files; `false`: there is nothing left to hold back.
fn step(
    candidate: &mut Loaded,
    good: &AcceptedRules,
    to_blame: &BTreeSet<String>,
    root: &str,
    frozen: &mut BTreeSet<String>,
) -> bool {
    let as_accepted = |path: &String| {
        let text = good.files.get(path);
        text.is_some() && text == candidate.files.get(path)
    };
    if to_blame.iter().any(as_accepted) && restore(candidate, good) {
        return true;
    }
    let mut is_changed = false;
    for path in to_blame {
        let Some(object) = ObjectPath::parse(path) else { continue };
        match (object.kind, object.confined_to(root)) {
            (Kind::Guard | Kind::AccessRule, Some(namespace)) if frozen.insert(namespace.to_owned()) => {
                freeze(candidate, good, namespace);
                is_changed = true;
            }
            (Kind::Caller | Kind::TrustedIssuer, _) if !good.files.contains_key(path) => {
                // Rules that name it are to blame next.
                is_changed |= candidate.files.remove(path).is_some();
                let known = candidate.problems.len();
                candidate.problems.retain(|problem| problem.file != *path);
                is_changed |= candidate.problems.len() < known;
            }
            _ => {}
        }
    }
    is_changed || restore(candidate, good)
}

/// What rules refer to counts as it was accepted last, where that is not what is there: first what is gone, then what was
/// edited, then the mesh.
fn restore(candidate: &mut Loaded, good: &AcceptedRules) -> bool {
    let kinds: [(&[Kind], bool); 3] = [
        (&[Kind::Caller, Kind::TrustedIssuer], false),
        (&[Kind::Caller, Kind::TrustedIssuer], true),
        (&[Kind::Mesh], true),
    ];
    for (kinds, edited) in kinds {
        let mut is_changed = false;
        for (path, text) in &good.files {
            let is_meant = ObjectPath::parse(path).is_some_and(|object| kinds.contains(&object.kind));
            let differs = match candidate.files.get(path) {
                Some(current) => edited && current != text,
                None => true,
            };
            if is_meant && differs {
                candidate.files.insert(path.clone(), text.clone());
                is_changed = true;
            }
        }
        if is_changed {
            return true;
        }
    }
    false
}

/// The rules of the namespace are those that were accepted last.
fn freeze(candidate: &mut Loaded, good: &AcceptedRules, namespace: &str) {
    let is_of_it = |path: &str| {
        ObjectPath::parse(path).is_some_and(|object| {
            matches!(object.kind, Kind::Guard | Kind::AccessRule)
                && object.namespace.as_deref() == Some(namespace)
        })
    };
    candidate.files.retain(|path, _| !is_of_it(path));
    candidate.problems.retain(|problem| !is_of_it(&problem.file));
    let before = good.files.iter().filter(|(path, _)| is_of_it(path));
    candidate.files.extend(before.map(|(path, text)| (path.clone(), text.clone())));
}

#[cfg(test)]
mod tests {
    use tidegate_compiler::{Code, Severity};

    use super::*;

    /// A stand-in: a file that says `bad` is wrong, and `needs PATH` demands that this file exists.
    fn compile(files: &Files, _: &Environment) -> (Vec<Diagnostic>, Option<Files>) {
        let error = |file: &str| Diagnostic {
            file: file.to_owned(),
            line: 1,
            column: 1,
            code: Code::UnknownReference,
            severity: Severity::Error,
            object: None,
            field: String::new(),
            message: "wrong".into(),
            why: String::new(),
            fix: String::new(),
            related: vec![],
        };
        let is_wrong = |text: &str| {
            text.contains("bad") || text.strip_prefix("needs ").is_some_and(|path| !files.contains_key(path))
        };
        let found: Vec<_> =
            files.iter().filter(|(_, text)| is_wrong(text)).map(|(path, _)| error(path)).collect();
        let output = found.is_empty().then(|| files.clone());
        (found, output)
    }

    fn files(all: &[(&str, &str)]) -> Files {
        all.iter().map(|(path, text)| (format!("kube/{path}.yaml"), text.to_string())).collect()
    }

    /// What counts, and what does not count as it is.
    fn judged(now: &[(&str, &str)], before: &[(&str, &str)]) -> Option<(Files, Vec<String>)> {
        let last_good = AcceptedRules { files: files(before), environment: Environment::new() };
        let loaded = Loaded { files: files(now), problems: vec![] };
        let verdict = judge_objects(&loaded, &Environment::new(), Some(&last_good), "root", compile);
        let names = verdict.substituted.iter().map(|path| path.trim_start_matches("kube/").into()).collect();
        verdict.accepted.map(|(_, output)| (output, names))
    }

    const MESH: (&str, &str) = ("Mesh/cluster", "mesh");
    const A: (&str, &str) = ("AccessRule/a/one", "fine");
    const B: (&str, &str) = ("AccessRule/b/one", "fine");

    #[test]
    fn a_broken_new_rule_holds_its_namespace_and_no_other() {
        let edited = [
            MESH,
            ("AccessRule/a/one", "edited"),
            ("AccessRule/a/new", "bad"),
            ("AccessRule/b/one", "edited"),
        ];
        let (output, held) = judged(&edited, &[MESH, A, B]).unwrap();
        assert_eq!(output, files(&[MESH, A, ("AccessRule/b/one", "edited")]));
        assert_eq!(held, ["AccessRule/a/new.yaml", "AccessRule/a/one.yaml"]);
    }

    #[test]
    fn a_broken_edit_counts_with_its_last_good_form_and_holds_nothing_else() {
        let edited = [MESH, ("AccessRule/a/one", "bad"), ("AccessRule/a/two", "new")];
        let (output, held) = judged(&edited, &[MESH, A, B]).unwrap();
        assert_eq!(output, files(&[MESH, A, ("AccessRule/a/two", "new")]));
        assert_eq!(held, ["AccessRule/a/one.yaml"], "a deleted rule of another namespace is gone");
    }

    #[test]
    fn a_broken_new_object_of_the_root_namespace_holds_everything() {
        assert!(judged(&[MESH, A, ("Guard/root/all", "bad")], &[MESH]).is_none());
        assert!(judged(&[("Mesh/cluster", "bad")], &[]).is_none());
    }

    #[test]
    fn a_caller_that_is_broken_and_new_holds_those_who_name_it() {
        let now = [MESH, ("Caller/c/x", "bad"), ("AccessRule/a/one", "needs kube/Caller/c/x.yaml"), B];
        let (output, held) = judged(&now, &[MESH, A]).unwrap();
        assert_eq!(output, files(&[MESH, A, B]));
        assert_eq!(held, ["AccessRule/a/one.yaml", "Caller/c/x.yaml"]);
    }

    #[test]
    fn a_caller_that_is_deleted_counts_while_a_rule_names_it() {
        let rule = ("AccessRule/a/one", "needs kube/Caller/c/x.yaml");
        let (output, held) = judged(&[MESH, rule, B], &[MESH, rule, ("Caller/c/x", "fine")]).unwrap();
        assert_eq!(output, files(&[MESH, rule, B, ("Caller/c/x", "fine")]));
        assert_eq!(held, ["Caller/c/x.yaml"]);
        let (output, held) = judged(&[MESH, B], &[MESH, rule, ("Caller/c/x", "fine")]).unwrap();
        assert_eq!((output, held), (files(&[MESH, B]), vec![]));
    }

    #[test]
    fn a_mesh_that_lost_what_a_rule_needs_waits() {
        let needs_mesh = ("AccessRule/a/one", "needs kube/Mesh/cluster.yaml");
        let (output, held) = judged(&[needs_mesh, B], &[MESH, needs_mesh]).unwrap();
        assert_eq!(output, files(&[MESH, needs_mesh, B]));
        assert_eq!(held, ["Mesh/cluster.yaml"]);
    }

    #[test]
    fn a_guard_that_is_deleted_is_gone_although_something_else_is_broken() {
        let before = [MESH, A, ("Guard/b/all", "fine")];
        let (output, _) = judged(&[MESH, ("AccessRule/a/one", "bad")], &before).unwrap();
        assert_eq!(output, files(&[MESH, A]));
    }

    #[test]
    fn paths_name_objects() {
        for path in ["kube/TrustedIssuer/google.yaml", "kube/AccessRule/sales/a.b.yaml"] {
            assert_eq!(ObjectPath::parse(path).unwrap().to_string(), path);
        }
        for path in ["kube/AccessRule/a.yaml", "kube/Mesh/a/b.yaml", "rules/a.yaml", "kube/Pod/a/b.yaml"] {
            assert_eq!(ObjectPath::parse(path), None, "{path}");
        }
    }
}
