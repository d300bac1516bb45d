//! The last rule sets that were accepted, to go back to.
//!
//! INVARIANT: numbers only grow, and a number always means the same rules. The newest is always there.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bundle::{hex, sha256};
use crate::rules::{AcceptedRules, RuleStore, SetName};
use crate::state::{StateDir, StateError};

const FILE: &str = "history.json";
/// How many are kept at most.
const MAX_SETS: usize = 20;
/// How many bytes of text they have at most together; the two newest are kept whatever they have.
const MAX_BYTES: u64 = 128 << 20;
const FEWEST: usize = 2;
/// So many digits of a digest name a rule set at least, among those that are kept.
const FEWEST_DIGITS: usize = 6;
/// Digits of a digest that are shown.
const SHORT: usize = 8;
/// So many name it at least where other rules that begin alike may have come since, and are shown there: rules can be written so that
/// few digits are the same.
const CERTAIN: usize = 16;

/// A rule set that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleSet {
    /// Counts what was accepted.
    pub number: u64,
    /// SHA-256 of the files' digests and their environment, hexadecimal.
    pub digest: String,
    /// When it was accepted last, in Unix seconds.
    pub at: i64,
    /// How many files it has.
    pub files: usize,
    /// Bytes of text.
    pub bytes: u64,
}

/// All of them, oldest first.
#[derive(Debug)]
pub(super) struct History {
    state: Arc<StateDir>,
    store: Arc<RuleStore>,
    sets: Vec<RuleSet>,
}

/// Digests of rule sets, each of which differs little from the one before.
#[derive(Debug, Default)]
pub(super) struct Digests {
    /// What was asked for last, and the digest of each of its files.
    last: Option<(Arc<AcceptedRules>, Vec<[u8; 32]>)>,
}

/// The digest of a rule set. `is_own`: files that are not of the rules' authors.
pub fn digest(rules: &AcceptedRules, is_own: impl Fn(&str) -> bool) -> String {
    let files: Vec<[u8; 32]> = rules.files.iter().map(|(path, text)| of_file(path, text)).collect();
    of_files(rules, &files, is_own)
}

fn add(content: &mut Vec<u8>, text: &str) {
    content.extend_from_slice(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
    content.extend_from_slice(text.as_bytes());
}

/// Whether somebody means this rule set and no other: by its number, or by the first [`CERTAIN`] digits of its digest or more.
pub(crate) fn names(asked: &str, number: u64, digest: &str) -> bool {
    asked.parse() == Ok(number) || begins(asked, digest, CERTAIN)
}

fn begins(asked: &str, digest: &str, fewest: usize) -> bool {
    asked.len() >= fewest && digest.starts_with(asked)
}

/// A digest as it is shown.
pub(crate) fn short(digest: &str) -> &str {
    digest.get(..SHORT).unwrap_or(digest)
}

/// A digest as it is shown where somebody has to say which rules are meant.
pub(crate) fn certain(digest: &str) -> &str {
    digest.get(..CERTAIN).unwrap_or(digest)
}

fn of_file(path: &str, text: &str) -> [u8; 32] {
    let mut content = Vec::with_capacity(path.len().saturating_add(text.len()).saturating_add(16));
    add(&mut content, path);
    add(&mut content, text);
    sha256(&content)
}

/// Of digests of files, so that those need not be read again that have not changed.
fn of_files(rules: &AcceptedRules, files: &[[u8; 32]], is_own: impl Fn(&str) -> bool) -> String {
    let files = rules.files.keys().zip(files).filter(|(path, _)| !is_own(path)).map(|(_, digest)| digest);
    let files: Vec<u8> = files.flatten().copied().collect();
    let mut content = Vec::with_capacity(files.len().saturating_add(8));
    content.extend_from_slice(&u64::try_from(files.len()).unwrap_or(u64::MAX).to_be_bytes());
    content.extend(files);
    for (name, value) in &rules.environment {
        add(&mut content, name);
        add(&mut content, value);
    }
    hex(&sha256(&content))
}

// === impl Digests ===

impl Digests {
    /// As [`digest`] gives it.
    pub(super) fn of(&mut self, rules: &Arc<AcceptedRules>, is_own: impl Fn(&str) -> bool) -> String {
        let last = self.last.take();
        let before = last.iter().flat_map(|(before, files)| before.files.iter().zip(files));
        let mut before = before.peekable();
        let of = |(path, text): (&String, &String)| {
            while before.next_if(|((known, _), _)| *known < path).is_some() {}
            // Comparing what is there twice is quicker than hashing it once.
            match before.next_if(|((known, _), _)| *known == path) {
                Some(((_, known), digest)) if known == text => *digest,
                _ => of_file(path, text),
            }
        };
        let files: Vec<[u8; 32]> = rules.files.iter().map(of).collect();
        let digest = of_files(rules, &files, is_own);
        self.last = Some((Arc::clone(rules), files));
        digest
    }
}

// === impl History ===

impl History {
    pub(super) fn open(state: Arc<StateDir>) -> Result<Self, StateError> {
        let sets = state.read_json(FILE)?.unwrap_or_default();
        let store = Arc::new(RuleStore::open(state.clone())?);
        Ok(Self { state, store, sets })
    }

    /// Where they are, and what is in force.
    pub(super) fn store(&self) -> &Arc<RuleStore> {
        &self.store
    }

    pub(super) fn sets(&self) -> &[RuleSet] {
        &self.sets
    }

    /// The entry for what was accepted: a new one, unless it is the newest already.
    pub(super) fn next(&self, rules: &AcceptedRules, digest: String, now: i64) -> RuleSet {
        if let Some(last) = self.sets.last().filter(|last| last.digest == digest) {
            return last.clone();
        }
        let bytes: usize = rules.files.iter().map(|(path, text)| path.len() + text.len()).sum();
        RuleSet {
            number: self.sets.last().map_or(1, |last| last.number.saturating_add(1)),
            digest,
            at: now,
            files: rules.files.len(),
            bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
        }
    }

    /// Writes it down, unless it is there. `keep`: numbers of those that stay, however old they are.
    pub(super) fn add(
        &mut self,
        set: &RuleSet,
        rules: &Arc<AcceptedRules>,
        keep: &BTreeSet<u64>,
    ) -> Result<(), StateError> {
        if self.sets.last().is_some_and(|last| last.number >= set.number) {
            return Ok(());
        }
        self.store.write(SetName::Earlier(set.number), rules)?;
        self.sets.push(set.clone());
        let mut gone = Vec::new();
        while self.sets.len() > FEWEST
            && (self.sets.len() > MAX_SETS || self.sets.iter().map(|set| set.bytes).sum::<u64>() > MAX_BYTES)
        {
            let earlier = self.sets.split_last().map(|(_, earlier)| earlier).unwrap_or_default();
            let Some(at) = earlier.iter().position(|set| !keep.contains(&set.number)) else { break };
            gone.push(self.sets.remove(at).number);
        }
        self.state.write_json(FILE, &self.sets)?;
        gone.into_iter().try_for_each(|number| self.store.remove(SetName::Earlier(number)))
    }

    /// The rules of an entry.
    pub(super) fn rules(&self, number: u64) -> Result<Option<Arc<AcceptedRules>>, StateError> {
        self.store.read(SetName::Earlier(number))
    }

    /// The entry that somebody means: by its number, or by how its digest begins.
    pub(super) fn find(&self, asked: &str) -> Result<RuleSet, String> {
        let by_number = asked.parse::<u64>().ok();
        if let Some(set) = self.sets.iter().find(|set| Some(set.number) == by_number) {
            return Ok(set.clone());
        }
        match self.sets.iter().rev().find(|set| begins(asked, &set.digest, FEWEST_DIGITS)) {
            Some(set) => Ok(set.clone()),
            None => {
                let known: Vec<String> = self.sets.iter().map(|set| set.number.to_string()).collect();
                Err(format!(
                    "no rule set `{asked}` is kept; there are: {}; a number or the first six or more digits of a digest name \
                     one",
                    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> AcceptedRules {
        AcceptedRules {
            files: [("a.yaml".to_owned(), text.to_owned())].into(),
            environment: Default::default(),
        }
    }

    fn add(history: &mut History, text: &str, keep: Option<u64>) -> RuleSet {
        let rules = Arc::new(rules(text));
        let set = history.next(&rules, digest(&rules, |_| false), 7);
        history.add(&set, &rules, &keep.into_iter().collect()).unwrap();
        set
    }

    #[test]
    fn the_last_ones_are_kept_and_numbers_go_on_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let state = Arc::new(StateDir::open(folder.path()).unwrap());
        let mut history = History::open(state.clone()).unwrap();
        for n in 1..=30_u64 {
            assert_eq!(add(&mut history, &format!("{n}"), Some(3)).number, n);
        }
        assert_eq!(add(&mut history, "30", Some(3)).number, 30, "the same again is the same");
        let numbers: Vec<_> = history.sets().iter().map(|set| set.number).collect();
        assert_eq!((numbers.len(), numbers[0], numbers[1]), (MAX_SETS, 3, 12), "the pinned one stays");
        assert_eq!(history.rules(12).unwrap().as_deref(), Some(&rules("12")));
        assert_eq!(history.rules(11).unwrap(), None);
        let mut history = History::open(state).unwrap();
        assert_eq!(add(&mut history, "31", None).number, 31);
    }

    #[test]
    fn a_rule_set_is_named_by_number_or_digest() {
        let folder = tempfile::tempdir().unwrap();
        let mut history = History::open(Arc::new(StateDir::open(folder.path()).unwrap())).unwrap();
        let first = add(&mut history, "a", None);
        let second = add(&mut history, "b", None);
        assert_eq!(history.find("1").unwrap(), first);
        assert_eq!(history.find(&second.digest[..8]).unwrap(), second);
        for unknown in ["3", "", "abc", "zzzzzz"] {
            assert!(history.find(unknown).unwrap_err().contains("1, 2"), "{unknown}");
        }
    }

    #[test]
    fn what_is_tried_is_named_by_number_or_sixteen_digits_and_no_fewer() {
        let digest = hex(&sha256(b"x"));
        for asked in ["12", &digest[..16], &digest[..17], &digest] {
            assert!(names(asked, 12, &digest), "{asked}");
        }
        for asked in
            ["", "13", &digest[..6], &digest[..8], &digest[..15], &digest[1..17], &format!("{digest}0")]
        {
            assert!(!names(asked, 12, &digest), "{asked}");
        }
        assert_eq!((certain(&digest), certain("ab")), (&digest[..16], "ab"));
    }

    #[test]
    fn a_digest_is_of_names_texts_and_values_and_of_nothing_else() {
        let one = rules("a");
        let all = [
            one.clone(),
            rules("b"),
            AcceptedRules { files: [("b.yaml".to_owned(), "a".to_owned())].into(), ..one.clone() },
            AcceptedRules { environment: [("a".to_owned(), "a".to_owned())].into(), ..one.clone() },
        ];
        let digests: std::collections::BTreeSet<_> = all.iter().map(|one| digest(one, |_| false)).collect();
        assert_eq!(digests.len(), all.len());
        let mut with_mesh = one.clone();
        with_mesh.files.insert("mesh".to_owned(), "x".to_owned());
        assert_eq!(digest(&with_mesh, |path| path == "mesh"), digest(&one, |_| false));
    }
    #[test]
    fn what_was_asked_before_changes_no_digest() {
        let mut digests = Digests::default();
        let set = |files: &[(&str, &str)]| {
            let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
            Arc::new(AcceptedRules { files, environment: Default::default() })
        };
        let sets = [
            set(&[("b", "1"), ("d", "1"), ("mesh", "1")]),
            set(&[("b", "2"), ("d", "1"), ("mesh", "2")]),
            set(&[("a", "1"), ("c", "1"), ("d", "1")]),
            set(&[]),
            set(&[("d", "1")]),
            set(&[("c", "1"), ("d", "1"), ("e", "1")]),
            set(&[("c", "d1"), ("e", "1")]),
        ];
        for set in sets.iter().chain(&sets[..2]) {
            let is_own = |path: &str| path == "mesh";
            assert_eq!(digests.of(set, is_own), digest(set, is_own), "{set:?}");
        }
    }
}
