use tidegate_compiler::{Code, Severity};

use super::*;

/// A stand-in for the compiler: a file that says `bad` is wrong, `needs X` demands that some file says `has X`, and a
/// set without any file that says `mesh` is wrong as a whole.
fn compile(files: &Files, _: &Environment) -> (Vec<Diagnostic>, Option<Files>) {
    let error = |file: &str, message: &str| Diagnostic {
        file: file.to_owned(),
        line: 1,
        column: 1,
        code: Code::UnknownReference,
        severity: Severity::Error,
        object: None,
        field: String::new(),
        message: message.to_owned(),
        why: String::new(),
        fix: String::new(),
        related: vec![],
    };
    let mut found = Vec::new();
    for (file, text) in files {
        if text.contains("bad") {
            found.push(error(file, "bad"));
        }
        if let Some(needed) = text.strip_prefix("needs ")
            && !files.values().any(|text| text == &format!("has {needed}"))
        {
            found.push(error(file, "dangling"));
        }
    }
    if !files.values().any(|text| text == "mesh") {
        found.push(error("", "no mesh"));
    }
    let output = found.is_empty().then(|| files.clone());
    (found, output)
}

fn files(entries: &[(&str, &str)]) -> Files {
    entries.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect()
}

fn judge_files(current: &[(&str, &str)], last_good: Option<&[(&str, &str)]>) -> Verdict<Files> {
    let loaded = Loaded { files: files(current), problems: vec![] };
    let last_good =
        last_good.map(|entries| AcceptedRules { files: files(entries), environment: Environment::new() });
    judge(&loaded, &Environment::new(), last_good.as_ref(), Origin::Files, compile)
}

fn accepted(verdict: &Verdict<Files>) -> Option<Files> {
    verdict.accepted.as_ref().map(|(rules, output)| {
        assert_eq!(&rules.files, output, "what is in force is what was compiled");
        rules.files.clone()
    })
}

#[test]
fn good_files_are_accepted_as_they_are() {
    let verdict = judge_files(&[("m", "mesh"), ("a", "one")], None);
    assert_eq!(accepted(&verdict), Some(files(&[("m", "mesh"), ("a", "one")])));
    assert!(verdict.findings.is_empty() && verdict.substituted.is_empty());
}

#[test]
fn a_broken_file_counts_with_its_last_good_text_and_the_others_as_they_are() {
    let verdict = judge_files(
        &[("m", "mesh"), ("a", "bad"), ("b", "new")],
        Some(&[("m", "mesh"), ("a", "deny"), ("b", "old")]),
    );
    assert_eq!(accepted(&verdict), Some(files(&[("m", "mesh"), ("a", "deny"), ("b", "new")])));
    assert_eq!(verdict.substituted, BTreeSet::from(["a".to_owned()]));
    assert_eq!(verdict.findings.len(), 1);
}

#[test]
fn a_broken_file_that_was_never_good_stops_everything() {
    let last_good: &[_] = &[("m", "mesh"), ("b", "old")];
    let verdict = judge_files(&[("m", "mesh"), ("a", "bad"), ("b", "new")], Some(last_good));
    assert_eq!(accepted(&verdict), None);
    assert!(verdict.substituted.is_empty());
    let verdict = judge_files(&[("m", "mesh"), ("a", "bad")], None);
    assert_eq!(accepted(&verdict), None);
}

#[test]
fn a_deleted_file_takes_its_rules_with_it() {
    let verdict = judge_files(&[("m", "mesh")], Some(&[("m", "mesh"), ("a", "one")]));
    assert_eq!(accepted(&verdict), Some(files(&[("m", "mesh")])));
}

#[test]
fn deleting_what_an_unchanged_file_needs_stops_everything() {
    let last_good: &[_] = &[("m", "mesh"), ("a", "has x"), ("b", "needs x")];
    let verdict = judge_files(&[("m", "mesh"), ("b", "needs x")], Some(last_good));
    assert_eq!(accepted(&verdict), None);
    assert_eq!(verdict.findings[0].file(), "b");
}

#[test]
fn a_broken_file_drags_along_those_that_need_its_new_form_only() {
    // `a` was to get `y` instead of `x`, and `b` to need it; `a` has another mistake.
    let verdict = judge_files(
        &[("m", "mesh"), ("a", "bad has y"), ("b", "needs y"), ("c", "new")],
        Some(&[("m", "mesh"), ("a", "has x"), ("b", "needs x"), ("c", "old")]),
    );
    assert_eq!(
        accepted(&verdict),
        Some(files(&[("m", "mesh"), ("a", "has x"), ("b", "needs x"), ("c", "new")]))
    );
    assert_eq!(verdict.substituted, BTreeSet::from(["a".to_owned(), "b".to_owned()]));
}

#[test]
fn an_error_about_no_file_is_overcome_when_the_cause_has_a_last_good_text() {
    let verdict = judge_files(&[("m", "bad mesh"), ("a", "one")], Some(&[("m", "mesh"), ("a", "one")]));
    assert_eq!(accepted(&verdict), Some(files(&[("m", "mesh"), ("a", "one")])));
    let verdict = judge_files(&[("a", "one")], Some(&[("m", "mesh"), ("a", "one")]));
    assert_eq!(accepted(&verdict), None, "a deleted mesh is a deletion, and without one nothing compiles");
}

#[test]
fn an_unreadable_file_counts_with_its_last_good_text_or_stops_everything() {
    let loaded = Loaded {
        files: files(&[("m", "mesh"), ("b", "needs x")]),
        problems: vec![super::super::FileProblem::empty("a")],
    };
    let last_good = AcceptedRules { files: files(&[("m", "mesh"), ("a", "has x")]), ..Default::default() };
    let verdict = judge(&loaded, &Environment::new(), Some(&last_good), Origin::Files, compile);
    assert_eq!(accepted(&verdict), Some(files(&[("m", "mesh"), ("a", "has x"), ("b", "needs x")])));
    assert_eq!(verdict.findings.len(), 1, "only what is on disk is talked about: {:?}", verdict.findings);
    let loaded = Loaded { files: files(&[("m", "mesh")]), ..loaded };
    let verdict = judge(&loaded, &Environment::new(), None, Origin::Files, compile);
    assert_eq!(accepted(&verdict), None, "what it says is unknown");
}

/// A Guard as the compiler reads it, in a file that the stand-in finds `bad` or not.
fn guard(name: &str, comment: &str) -> String {
    format!(
        "# {comment}\nkind: Guard\nmetadata: {{name: {name}, namespace: sales}}\nspec: {{mode: Enforce, audience: x}}\n"
    )
}

#[test]
fn an_object_that_moves_into_a_broken_file_does_not_disappear() {
    let (one, two) = (guard("one", "fine"), guard("two", "fine"));
    let before = [("m", "mesh"), ("a", one.as_str()), ("b", two.as_str())];
    // `two` moves from `b` to `a`, and `a` has an error.
    let moved = format!("{one}---\n{}", guard("two", "bad"));
    let verdict = judge_files(&[("m", "mesh"), ("a", &moved)], Some(&before));
    assert!(verdict.accepted.is_none(), "{:?}", verdict.substituted);
    let told = verdict.findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(told.contains("TG1005") && told.contains("sales/two"), "{told}");
    // Without the error the move is what it is, and a real deletion is one.
    let moved = format!("{one}---\n{two}");
    assert!(judge_files(&[("m", "mesh"), ("a", &moved)], Some(&before)).accepted.is_some());
    assert!(judge_files(&[("m", "mesh"), ("a", &one)], Some(&before)).accepted.is_some());
    // An error elsewhere puts a deletion off.
    let broken = guard("one", "bad");
    assert!(judge_files(&[("m", "mesh"), ("a", &broken)], Some(&before)).accepted.is_none());
}
