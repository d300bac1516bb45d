//! What outlives the file that it is in.
//!
//! The store is bounded by removing its oldest file, so who writes most decides how long everybody's decisions are kept. That
//! is why, before a file is removed for want of room, what is precious in it (refusals, differences, gaps, and what rules want
//! in full) moves into the next one, of every workload that did not fill most of the file: those with least first, at most
//! half a file. It keeps its order, and is removed when it is too old.
//!
//! INVARIANT: what is to outlive a file is in the next one before that file is removed. (A question that is being answered
//! meanwhile may meet it twice or not at all; if the process ends meanwhile it stays in both until the file is removed.)

use std::collections::BTreeSet;
use std::sync::Arc;

use super::segment::{Segment, SegmentError, Tally};
use crate::decisions::filter;
use crate::decisions::record::{Entry, Moment};

/// Blocks that are moved at once: what comes meanwhile waits so long.
const AT_ONCE: usize = 16;

/// A move.
#[derive(Debug)]
pub struct Carry {
    from: Arc<Segment>,
    to: Arc<Segment>,
    whose: BTreeSet<String>,
    /// Numbers of blocks in which there may be something, the last first.
    left: Vec<u64>,
    /// What is older is not moved.
    oldest: Moment,
}

// === impl Carry ===

impl Carry {
    /// From a file that is to be removed to the one after it; at most about so many bytes.
    pub fn begin(
        from: Arc<Segment>,
        to: Arc<Segment>,
        room: u64,
        oldest: Moment,
    ) -> Result<Self, SegmentError> {
        let whose = chosen(from.tallies()?, room);
        let mut left = BTreeSet::new();
        for workload in &whose {
            let terms = [filter::workload_term(workload), filter::precious_term()].into();
            left.extend(from.blocks(&terms, &BTreeSet::new(), u64::MAX)?);
        }
        Ok(Self { from, to, whose, left: left.into_iter().rev().collect(), oldest })
    }

    /// Moves some more, and says whether that was all.
    pub fn step(&mut self) -> Result<bool, SegmentError> {
        let mut moved: Vec<(u64, Entry)> = Vec::new();
        for _ in 0..AT_ONCE {
            let Some(number) = self.left.pop() else { break };
            let block = self.from.block(number, self.oldest, Moment(i64::MAX))?;
            moved.extend(block.into_iter().filter(|(_, entry)| {
                entry.is_precious() && entry.time() >= self.oldest && self.whose.contains(entry.workload())
            }));
        }
        let numbers: Vec<u64> = moved.iter().map(|(number, _)| *number).collect();
        let entries: Vec<Entry> = moved.into_iter().map(|(_, entry)| entry).collect();
        self.to.prepend(&numbers, &entries)?;
        self.from.moved_until(self.left.last().copied().unwrap_or(u64::MAX));
        Ok(self.left.is_empty())
    }

    /// The file that is to be removed.
    pub fn from(&self) -> &Arc<Segment> {
        &self.from
    }
}

/// Whose are moved: of those who did not fill most of the file those with least, as many as there is room for.
fn chosen(tallies: Vec<(String, Tally)>, room: u64) -> BTreeSet<String> {
    let all = tallies.iter().fold(0_u64, |sum, (_, tally)| sum.saturating_add(tally.all));
    let mut quiet: Vec<(u64, String)> = tallies
        .into_iter()
        .filter(|(_, tally)| tally.precious > 0 && tally.all <= all / 2)
        .map(|(workload, tally)| (tally.precious, workload))
        .collect();
    quiet.sort();
    let mut taken = 0_u64;
    quiet
        .into_iter()
        .take_while(|(precious, _)| {
            taken = taken.saturating_add(*precious);
            taken <= room
        })
        .map(|(_, workload)| workload)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_with_least_are_moved_and_never_who_filled_the_file() {
        let of = |tallies: &[(&str, u64, u64)], room| -> Vec<String> {
            let tallies = tallies
                .iter()
                .map(|(name, all, precious)| ((*name).to_owned(), Tally { all: *all, precious: *precious }));
            chosen(tallies.collect(), room).into_iter().collect()
        };
        assert_eq!(of(&[("alone", 100, 10)], 1_000), [""; 0]);
        assert_eq!(of(&[("loud", 900, 900), ("a", 50, 40), ("b", 20, 0), ("c", 30, 30)], 100), ["a", "c"]);
        assert_eq!(of(&[("loud", 900, 900), ("a", 50, 40), ("c", 30, 30)], 60), ["c"]);
        assert_eq!(of(&[("a", 10, 1), ("b", 10, 2), ("c", 10, 3)], 3), ["a", "b"]);
        assert_eq!(of(&[], 3), [""; 0]);
    }
}
