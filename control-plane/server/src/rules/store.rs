//! Rule sets on disk: the one that was accepted last, and earlier ones to go back to.
//!
//! A set is an index, which is a small file of its own name, and pieces, which sets share: each has all files of one part of
//! the paths and is named by the SHA-256 of its content. So an edit writes one piece and an index, however many rules there
//! are, and a rule set that is kept twice takes the room of one.
//!
//! INVARIANT: an index is written only when all of its pieces are on disk, and a piece is removed only when no index on disk
//! names it. A crash leaves the old set or the new one, and perhaps pieces that nobody names; the next write removes them.
//!
//! INVARIANT: what is read is what was written. A piece that is missing, or is not what its name says, is an error, never a
//! smaller set.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{AcceptedRules, Environment, Files};
use crate::bundle::{hex, sha256};
use crate::state::{self, StateDir, StateError, StateFolder};

const FOLDER: &str = "pieces";
/// Version 1 had all files in the index.
const FORMAT: u32 = 2;
/// Into how many parts paths are divided, at most as many pieces a set has: more of them are smaller, and fewer are quicker
/// to write all at once.
const PARTS: u64 = 128;
/// How often a set is read that another process replaces meanwhile.
const ATTEMPTS: usize = 8;

/// Which set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SetName {
    /// The one that was accepted last.
    Accepted,
    /// An earlier one, by its number.
    Earlier(u64),
}

/// All sets of a state folder.
#[derive(Debug)]
pub struct RuleStore {
    state: Arc<StateDir>,
    folder: StateFolder,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Of all sets on disk.
    indexes: BTreeMap<SetName, Index>,
    /// Pieces that are on disk and whole: they were written or read by this process, and some index names them.
    whole: BTreeSet<String>,
    /// What an index on disk names is not known: it cannot be read, or replacing it failed. No piece is removed then.
    keeps_all: bool,
    /// The set that was read or written last: the next one differs little from it.
    last: Option<(Arc<AcceptedRules>, Index)>,
}

/// By part of the paths the name of its piece.
type Index = BTreeMap<u64, String>;

/// An index as it is written.
#[derive(Serialize)]
struct Written<'r> {
    format: u32,
    environment: &'r Environment,
    pieces: &'r Index,
}

/// What is found under a set's name: an index, or all files.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Found<F> {
    format: Option<u32>,
    environment: Environment,
    pieces: Option<Index>,
    files: Option<F>,
}

/// What that says.
enum Content<F> {
    Index(Index),
    /// As version 1 wrote it.
    Files(F),
}

/// Which part a path belongs to: FNV-1a of its bytes. Part of the format.
fn part(path: &str) -> u64 {
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    path.bytes().fold(0xcbf2_9ce4_8422_2325, hash) % PARTS
}

fn damaged(root: &Path, name: SetName, why: impl Into<String>) -> StateError {
    StateError::Damaged { path: root.join(name.to_string()), why: why.into() }
}

/// Reads a set of a state folder that another process may own; `None` when it is not there.
pub fn read(root: &Path, name: SetName) -> Result<Option<AcceptedRules>, StateError> {
    Ok(read_with_index(root, name)?.map(|(rules, _)| rules))
}

/// The index is `None` where there is none.
fn read_with_index(root: &Path, name: SetName) -> Result<Option<(AcceptedRules, Option<Index>)>, StateError> {
    let mut before = None;
    for attempt in 1.. {
        let Some((environment, content)) = read_content::<Files>(root, name)? else { break };
        let index = match content {
            Content::Files(files) => return Ok(Some((AcceptedRules { files, environment }, None))),
            Content::Index(index) => index,
        };
        match gather(root, name, &index) {
            Ok(files) => return Ok(Some((AcceptedRules { files, environment }, Some(index)))),
            // Its owner has replaced the set since, and removed what nobody needs any more.
            Err(_) if attempt < ATTEMPTS && before.as_ref() != Some(&index) => before = Some(index),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn read_content<F: DeserializeOwned>(
    root: &Path,
    name: SetName,
) -> Result<Option<(Environment, Content<F>)>, StateError> {
    let Some(found) = state::read_json::<Found<F>>(root, &name.to_string())? else { return Ok(None) };
    let content = match found {
        Found { format: None, pieces: None, files: Some(files), .. } => Content::Files(files),
        Found { format: Some(FORMAT), pieces: Some(pieces), files: None, .. } => Content::Index(pieces),
        Found { format: Some(other), .. } if other != FORMAT => {
            return Err(damaged(
                root,
                name,
                format!("it has the format {other}, and this version reads {FORMAT}"),
            ));
        }
        _ => return Err(damaged(root, name, "it is neither an index nor a set of files")),
    };
    Ok(Some((found.environment, content)))
}

/// All files of a set.
fn gather(root: &Path, name: SetName, index: &Index) -> Result<Files, StateError> {
    let folder = root.join(FOLDER);
    let mut files = Files::new();
    for (number, piece) in index {
        let wrong = |why: &str| damaged(root, name, format!("its piece `{FOLDER}/{piece}` {why}"));
        // Before it becomes part of a path.
        if piece.len() != 64 || !piece.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong("has a name that no piece has"));
        }
        let content = state::read(&folder, piece)?.ok_or_else(|| wrong("is missing"))?;
        if hex(&sha256(&content)) != *piece {
            return Err(wrong("is not what was written"));
        }
        let of_piece: Files =
            serde_json::from_slice(&content).map_err(|error| wrong(&format!("cannot be read: {error}")))?;
        if of_piece.keys().any(|path| part(path) != *number) {
            return Err(wrong("has files of another part"));
        }
        files.extend(of_piece);
    }
    Ok(files)
}

// === impl SetName ===

impl SetName {
    fn of_file(file: &str) -> Option<Self> {
        if file == Self::Accepted.to_string() {
            return Some(Self::Accepted);
        }
        let name = Self::Earlier(file.strip_prefix("rules-")?.strip_suffix(".json")?.parse().ok()?);
        (name.to_string() == file).then_some(name)
    }
}

/// The file of its index.
impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.write_str("accepted.json"),
            Self::Earlier(number) => write!(f, "rules-{number}.json"),
        }
    }
}

// === impl RuleStore ===

impl RuleStore {
    /// Opens the sets of a state folder. What was accepted last is brought into the form that is written now.
    pub fn open(state: Arc<StateDir>) -> Result<Self, StateError> {
        let folder = state.folder(FOLDER)?;
        let mut known = Known::default();
        let mut is_old = false;
        for name in state.names()?.iter().filter_map(|file| SetName::of_file(file)) {
            match read_content::<IgnoredAny>(state.root(), name) {
                Ok(Some((_, Content::Index(index)))) => drop(known.indexes.insert(name, index)),
                Ok(Some((_, Content::Files(_)))) => is_old |= name == SetName::Accepted,
                Ok(None) => {}
                Err(error) if name == SetName::Accepted => return Err(error),
                // It is told where somebody wants to go back to it.
                Err(_) => known.keeps_all = true,
            }
        }
        let store = Self { state, folder, known: Mutex::new(known) };
        if is_old && let Some(rules) = store.read(SetName::Accepted)? {
            store.write(SetName::Accepted, &rules)?;
        }
        Ok(store)
    }

    /// Reads a set; `None` when it is not there.
    pub fn read(&self, name: SetName) -> Result<Option<Arc<AcceptedRules>>, StateError> {
        let mut known = self.lock();
        let Some((rules, index)) = read_with_index(self.state.root(), name)? else { return Ok(None) };
        let rules = Arc::new(rules);
        known.whole.extend(index.iter().flat_map(Index::values).cloned());
        known.last = index.map(|index| (Arc::clone(&rules), index));
        Ok(Some(rules))
    }

    /// Replaces a set. It is on disk when this returns `Ok`, and the old one is still there whole otherwise.
    pub fn write(&self, name: SetName, rules: &Arc<AcceptedRules>) -> Result<(), StateError> {
        let mut known = self.lock();
        let index = self.write_pieces(&known, rules)?;
        let written = Written { format: FORMAT, environment: &rules.environment, pieces: &index };
        if let Err(error) = self.state.write_json(&name.to_string(), &written) {
            known.keeps_all = true;
            return Err(error);
        }
        known.whole.extend(index.values().cloned());
        known.indexes.insert(name, index.clone());
        known.last = Some((Arc::clone(rules), index));
        self.collect(&mut known);
        Ok(())
    }

    /// Removes a set, if it is there.
    pub fn remove(&self, name: SetName) -> Result<(), StateError> {
        let mut known = self.lock();
        self.state.remove(&name.to_string())?;
        known.indexes.remove(&name);
        self.collect(&mut known);
        Ok(())
    }

    /// Writes the pieces that may not be on disk.
    fn write_pieces(&self, known: &Known, rules: &AcceptedRules) -> Result<Index, StateError> {
        let mut parts: BTreeMap<u64, Vec<(&str, &str)>> = BTreeMap::new();
        for (path, text) in &rules.files {
            parts.entry(part(path)).or_default().push((path, text));
        }
        let changed = known.last.as_ref().map(|(before, _)| changed_parts(&before.files, &rules.files));
        let mut index = Index::new();
        let mut is_new = false;
        for (number, files) in parts {
            let same = match (&changed, &known.last) {
                (Some(changed), Some((_, before))) if !changed.contains(&number) => before.get(&number),
                _ => None,
            };
            let piece = match same.filter(|piece| known.whole.contains(*piece)) {
                Some(piece) => piece.clone(),
                None => {
                    let files: BTreeMap<&str, &str> = files.into_iter().collect();
                    let content = serde_json::to_vec(&files).map_err(|error| {
                        self.state.damaged(FOLDER, format!("a piece cannot be written as JSON: {error}"))
                    })?;
                    let piece = hex(&sha256(&content));
                    if !known.whole.contains(&piece) {
                        self.folder.write(&piece, &content)?;
                        is_new = true;
                    }
                    piece
                }
            };
            index.insert(number, piece);
        }
        if is_new {
            self.folder.sync()?;
        }
        Ok(index)
    }

    /// Removes pieces that no index names. What cannot be removed takes room and does no harm.
    fn collect(&self, known: &mut Known) {
        if known.keeps_all {
            return;
        }
        let Known { indexes, whole, .. } = known;
        let needed: BTreeSet<&str> = indexes.values().flat_map(Index::values).map(String::as_str).collect();
        whole.retain(|piece| needed.contains(piece.as_str()));
        let removed = self.folder.names().and_then(|names| {
            let mut unneeded = names.iter().filter(|name| !needed.contains(name.as_str()));
            unneeded.try_for_each(|name| self.folder.remove(name))
        });
        if let Err(error) = removed {
            warn!("rules that nobody needs any more cannot be removed: {error}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The parts in which files came, went or changed.
fn changed_parts(before: &Files, after: &Files) -> BTreeSet<u64> {
    let changed = after.iter().filter(|(path, text)| before.get(*path) != Some(*text)).map(|(path, _)| path);
    let gone = before.keys().filter(|path| !after.contains_key(*path));
    changed.chain(gone).map(|path| part(path)).collect()
}

#[cfg(test)]
mod tests;
