//! Revisions that never go back.
//!
//! INVARIANT: every counter that [`Revisions::take`] hands out was on disk before, so a crash may skip counters but
//! never repeats one.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidegate_proto::v1 as pb;

use crate::state::{StateDir, StateError};

const FILE: &str = "revision.json";

/// Totally ordered: by epoch, then by counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Revision {
    /// Unix seconds at which the state was created, so that state created anew is newer than what was lost.
    pub epoch: u64,
    /// Grows with every signed manifest, from 1.
    pub counter: u64,
}

/// Hands out revisions.
#[derive(Debug)]
pub struct Revisions {
    state: Arc<StateDir>,
    last: Revision,
}

// === impl Revision ===

impl From<Revision> for pb::Revision {
    fn from(revision: Revision) -> Self {
        Self { epoch: revision.epoch, counter: revision.counter }
    }
}

impl From<pb::Revision> for Revision {
    fn from(revision: pb::Revision) -> Self {
        Self { epoch: revision.epoch, counter: revision.counter }
    }
}

// === impl Revisions ===

impl Revisions {
    /// Continues after the last revision on disk; without one a new epoch begins at `now` (Unix seconds).
    pub fn open(state: Arc<StateDir>, now: i64) -> Result<Self, StateError> {
        let last = match state.read_json(FILE)? {
            Some(last) => last,
            None => {
                let first = Revision { epoch: u64::try_from(now).unwrap_or(0).max(1), counter: 0 };
                state.write_json(FILE, &first)?;
                first
            }
        };
        Ok(Self { state, last })
    }

    /// The last revision that was handed out, or may have been.
    pub fn last(&self) -> Revision {
        self.last
    }

    /// Makes sure that nothing at or below `seen` is handed out again.
    pub fn at_least(&mut self, seen: Revision) -> Result<(), StateError> {
        if seen > self.last {
            self.state.write_json(FILE, &seen)?;
            self.last = seen;
        }
        Ok(())
    }

    /// The next `count` revisions, in order.
    pub fn take(&mut self, count: u64) -> Result<impl Iterator<Item = Revision> + use<>, StateError> {
        let Revision { epoch, counter } = self.last;
        let last = Revision { epoch, counter: counter.saturating_add(count) };
        self.state.write_json(FILE, &last)?;
        self.last = last;
        Ok((counter + 1..=last.counter).map(move |counter| Revision { epoch, counter }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &std::path::Path, now: i64) -> Revisions {
        Revisions::open(Arc::new(StateDir::open(folder).unwrap()), now).unwrap()
    }

    #[test]
    fn revisions_grow_and_continue_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut revisions = open(folder.path(), 1_000);
        let first: Vec<_> = revisions.take(2).unwrap().collect();
        assert_eq!(first, [Revision { epoch: 1_000, counter: 1 }, Revision { epoch: 1_000, counter: 2 }]);
        // Handed out but not used before the crash.
        let unused: Vec<_> = revisions.take(3).unwrap().collect();
        drop(revisions);
        let mut revisions = open(folder.path(), 5_000);
        let next: Vec<_> = revisions.take(1).unwrap().collect();
        assert_eq!(next, [Revision { epoch: 1_000, counter: 6 }]);
        assert!(next[0] > unused[2]);
    }

    #[test]
    fn state_created_anew_is_newer_than_what_was_lost() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let lost = open(old.path(), 1_000).take(1_000_000).unwrap().last().unwrap();
        let first = open(new.path(), 1_001).take(1).unwrap().next().unwrap();
        assert!(first > lost);
    }

    #[test]
    fn a_revision_that_was_seen_in_use_is_not_handed_out_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut revisions = open(folder.path(), 1_000);
        let seen = Revision { epoch: 1_000, counter: 40 };
        revisions.at_least(seen).unwrap();
        revisions.at_least(Revision { epoch: 999, counter: 99 }).unwrap();
        drop(revisions);
        assert_eq!(open(folder.path(), 2_000).take(1).unwrap().next().unwrap().counter, 41);
    }

    #[test]
    fn a_damaged_revision_is_an_error_and_not_a_new_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        state.write(FILE, b"{\"epoch\":1").unwrap();
        assert!(Revisions::open(Arc::new(state), 1_000).is_err());
    }
}
