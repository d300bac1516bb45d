//! Which rules are in force: the last good form of every file.
//!
//! INVARIANT: a file that was accepted once never stops counting because of what is wrong with it now; only its deletion
//! removes its rules. And as long as any file counts with its last good text, no object that was in force may be missing
//! from the mixture if a broken file may declare it: one that moves into a broken file would otherwise be in neither. A
//! Guard is never missed in such a mixture, whatever broken files say. "Nothing new is pushed … until every rule that can target it compiles or has a last good form,
//! which is kept across restarts: a broken Deny never disappears."

use std::collections::{BTreeMap, BTreeSet};

use tidegate_compiler::{Diagnostic, Inputs, Kind, ObjectId, SourceFile};

use super::{FileProblem, Finding, Loaded};

/// Text by path relative to the rules folder.
pub type Files = BTreeMap<String, String>;

/// Values for `${env.name}`.
pub type Environment = BTreeMap<String, String>;

/// Rules that compiled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AcceptedRules {
    /// The files.
    pub files: Files,
    /// The values they were compiled with.
    pub environment: Environment,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// One of a folder: objects may move from one to another.
    Files,
    /// One object of a cluster, which its path names: it cannot be anywhere else, and where it is not, it was deleted.
    Objects,
}

/// What became of what is on disk.
#[derive(Debug)]
pub struct Verdict<T> {
    /// What there is to say about the files on disk.
    pub findings: Vec<Finding>,
    /// Files that count with their last good text.
    pub substituted: BTreeSet<String>,
    /// What is to be in force; `None`: what was in force stays.
    pub accepted: Option<(AcceptedRules, T)>,
}

/// Judges what is on disk.
///
/// Files in which an error lies are replaced by their last good text, until everything compiles or nothing is left to
/// replace. In the latter case nothing is accepted, and all of what was in force stays.
pub fn judge<T>(
    loaded: &Loaded,
    environment: &Environment,
    last_good: Option<&AcceptedRules>,
    origin: Origin,
    mut compile: impl FnMut(&Files, &Environment) -> (Vec<Diagnostic>, Option<T>),
) -> Verdict<T> {
    let last_good_text = |file: &str| last_good.and_then(|accepted| accepted.files.get(file));
    let mut candidate = loaded.files.clone();
    let mut findings: Vec<Finding> = loaded.problems.iter().cloned().map(Finding::File).collect();
    let mut substituted = BTreeSet::new();
    let mut is_complete = true;
    for problem in &loaded.problems {
        match last_good_text(&problem.file) {
            Some(text) => {
                candidate.insert(problem.file.clone(), text.clone());
                substituted.insert(problem.file.clone());
            }
            None => is_complete = false,
        }
    }
    let mut is_first = true;
    loop {
        let (diagnostics, output) = compile(&candidate, environment);
        let broken: BTreeSet<String> =
            diagnostics.iter().filter(|found| found.is_error()).map(|found| found.file.clone()).collect();
        // The first round is about what is on disk. Later ones are about mixtures that nobody wrote; they are told only
        // where they are the reason why nothing is accepted.
        if std::mem::take(&mut is_first) {
            findings.extend(diagnostics.iter().cloned().map(Finding::Rule));
        }
        if let Some(output) = output {
            let missing = match last_good {
                Some(before) if !substituted.is_empty() && origin == Origin::Files => {
                    let now = objects(&candidate, environment);
                    let was = objects(&before.files, &before.environment);
                    was.into_iter()
                        .filter(|object| !now.contains(object))
                        .filter(|object| {
                            object.kind == Kind::Guard || may_declare(loaded, &substituted, object)
                        })
                        .collect()
                }
                _ => Vec::new(),
            };
            if !missing.is_empty() {
                let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
                findings.push(Finding::File(FileProblem::would_vanish(&names)));
                return Verdict { findings, substituted: BTreeSet::new(), accepted: None };
            }
            let accepted = AcceptedRules { files: candidate, environment: environment.clone() };
            return Verdict { findings, substituted, accepted: is_complete.then_some((accepted, output)) };
        }
        let mut is_changed = false;
        for file in broken {
            if let Some(text) = last_good_text(&file)
                && candidate.get(&file).is_some_and(|current| current != text)
            {
                candidate.insert(file.clone(), text.clone());
                substituted.insert(file);
                is_changed = true;
            }
        }
        if !is_changed {
            let unsaid = diagnostics.into_iter().map(Finding::Rule).filter(|found| !findings.contains(found));
            let unsaid: Vec<_> = unsaid.collect();
            findings.extend(unsaid);
            return Verdict { findings, substituted: BTreeSet::new(), accepted: None };
        }
    }
}

/// Whether one of these files, which cannot be understood, may declare the object: it has its name somewhere, or no text.
fn may_declare(loaded: &Loaded, broken: &BTreeSet<String>, object: &ObjectId) -> bool {
    broken.iter().any(|file| loaded.files.get(file).is_none_or(|text| text.contains(&object.name)))
}

/// The objects that these files declare.
fn objects(files: &Files, environment: &Environment) -> BTreeSet<ObjectId> {
    let sources: Vec<SourceFile> =
        files.iter().map(|(path, text)| SourceFile { path: path.clone(), text: text.clone() }).collect();
    tidegate_compiler::parse(&Inputs { sources: &sources, env: environment.clone(), now: None })
        .objects
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests;
