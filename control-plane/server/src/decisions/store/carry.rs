//! What outlives the file that it is in.
//!
//! The store is bounded by removing its oldest file, so who writes most decides how long everybody's decisions are kept. That
//! is why, before a file is removed for want of room, some of it moves into the next one. It keeps its order, and is removed
//! when it is too old. Of every file moves:
//!
//! - What is required, of every workload, however much else there is of it: at most half a file. Where that is too little,
//!   everybody has the same share, what some do not need is for the others, and of who has more the latest moves.
//! - Besides, what else is precious (refusals, differences, gaps, and what rules want in full), of every workload that did not
//!   fill most of the file: those with least first, at most half a file.
//!
//! INVARIANT: what is to outlive a file is in the next one before that file is removed. (A question that is being answered
//! meanwhile may meet it twice or not at all; if the process ends meanwhile it stays in both until the file is removed.)
//!
//! INVARIANT: what is required never makes room for what is not, neither of its own workload nor of others. What is precious and
//! does not move is counted ([`Carry::lost`]), and told as a gap of its workload.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::segment::{Segment, SegmentError};
use super::tally::{self, Tally};
use crate::decisions::filter;
use crate::decisions::lanes::Worth;
use crate::decisions::record::{Entry, Moment};

/// Blocks that are moved at once: what comes meanwhile waits so long.
const AT_ONCE: usize = 16;

/// A move.
#[derive(Debug)]
pub struct Carry {
    from: Arc<Segment>,
    to: Arc<Segment>,
    whose: BTreeMap<String, Chosen>,
    /// Numbers of blocks in which there may be something, the last first.
    left: Vec<u64>,
    /// What is older is not moved.
    oldest: Moment,
    /// By workload, how many are precious and neither moved nor too old.
    lost: BTreeMap<String, u64>,
}

/// What moves of a workload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Chosen {
    /// What is precious and not required.
    precious: bool,
    /// Bytes of what is required, the latest; how many there are before that are left out.
    required: Option<u64>,
}

// === impl Carry ===

impl Carry {
    /// From a file that is to be removed to the one after it; at most about so many bytes of what is required, and as many of
    /// what else is precious.
    pub fn begin(
        from: Arc<Segment>,
        to: Arc<Segment>,
        room: u64,
        oldest: Moment,
    ) -> Result<Self, SegmentError> {
        let tallies = from.tallies()?;
        let lost = tallies.iter().map(|(workload, tally)| (workload.clone(), tally.count)).collect();
        let whose = chosen(&tallies, room);
        let mut left = BTreeSet::new();
        for (workload, chosen) in &whose {
            let what = if chosen.precious { filter::precious_term() } else { filter::required_term() };
            let terms = [filter::workload_term(workload), what].into();
            left.extend(from.blocks(&terms, &BTreeSet::new(), u64::MAX)?);
        }
        Ok(Self { from, to, whose, left: left.into_iter().rev().collect(), oldest, lost })
    }

    /// Moves some more, and says whether that was all.
    pub fn step(&mut self) -> Result<bool, SegmentError> {
        let (mut numbers, mut entries) = (Vec::new(), Vec::new());
        let mut settled: BTreeMap<String, u64> = BTreeMap::new();
        for _ in 0..AT_ONCE {
            let Some(number) = self.left.pop() else { break };
            for (number, entry) in self.from.block(number, Moment(i64::MIN), Moment(i64::MAX))? {
                let is_due = entry.time() < self.oldest;
                let moves = self.whose.get_mut(entry.workload()).is_some_and(|chosen| chosen.takes(&entry));
                if !entry.is_precious() || !(is_due || moves) {
                    continue;
                }
                let count = settled.entry(entry.workload().to_owned()).or_default();
                *count = count.saturating_add(tally::count(&entry));
                if !is_due {
                    numbers.push(number);
                    entries.push(entry);
                }
            }
        }
        self.to.prepend(&numbers, &entries)?;
        for (workload, count) in settled {
            self.lost.entry(workload).and_modify(|lost| *lost = lost.saturating_sub(count));
        }
        self.from.moved_until(self.left.last().copied().unwrap_or(u64::MAX));
        Ok(self.left.is_empty())
    }

    /// The file that is to be removed.
    pub fn from(&self) -> &Arc<Segment> {
        &self.from
    }

    /// By workload, how many precious ones go with the file, as far as it has moved.
    pub fn lost(self) -> BTreeMap<String, u64> {
        self.lost
    }
}

// === impl Chosen ===

impl Chosen {
    /// Whether something moves. What is required is asked for in order, also where it is too old.
    fn takes(&mut self, entry: &Entry) -> bool {
        match (entry.worth(), &mut self.required) {
            (Worth::Required, Some(before)) => {
                let is_left_out = *before > 0;
                *before = before.saturating_sub(tally::weight(entry));
                !is_left_out
            }
            // A file of before does not say what is required.
            (Worth::Required | Worth::Precious, _) => self.precious,
            (Worth::Ordinary, _) => false,
        }
    }
}

/// Whose are moved: what is required of everybody, and what else is precious of those who did not fill most of the file, those
/// with least first, as many as there is room for.
fn chosen(tallies: &[(String, Tally)], room: u64) -> BTreeMap<String, Chosen> {
    let mut chosen: BTreeMap<String, Chosen> = BTreeMap::new();
    let mut required: Vec<(u64, &String)> = tallies
        .iter()
        .filter(|(_, tally)| tally.required > 0)
        .map(|(workload, tally)| (tally.required, workload))
        .collect();
    required.sort();
    let (mut left, mut others) = (room, u64::try_from(required.len()).unwrap_or(u64::MAX));
    for (bytes, workload) in required {
        let taken = bytes.min(left / others.max(1));
        (left, others) = (left.saturating_sub(taken), others.saturating_sub(1));
        chosen.entry(workload.clone()).or_default().required = Some(bytes.saturating_sub(taken));
    }
    let all = tallies.iter().fold(0_u64, |sum, (_, tally)| sum.saturating_add(tally.all));
    let mut quiet: Vec<(u64, &String)> = tallies
        .iter()
        .filter(|(_, tally)| tally.all.saturating_sub(tally.required) <= all / 2)
        .map(|(workload, tally)| (tally.precious.saturating_sub(tally.required), workload))
        .filter(|(precious, _)| *precious > 0)
        .collect();
    quiet.sort();
    let mut taken = 0_u64;
    for (precious, workload) in quiet {
        taken = taken.saturating_add(precious);
        if taken > room {
            break;
        }
        chosen.entry(workload.clone()).or_default().precious = true;
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tallies(of: &[(&str, u64, u64, u64)]) -> Vec<(String, Tally)> {
        let tally = |(name, all, precious, required): &(&str, u64, u64, u64)| {
            let tally = Tally { all: *all, precious: precious + required, required: *required, count: 1 };
            ((*name).to_owned(), tally)
        };
        of.iter().map(tally).collect()
    }

    #[test]
    fn those_with_least_are_moved_and_never_who_filled_the_file() {
        let of = |of: &[(&str, u64, u64)], room| -> Vec<String> {
            let of: Vec<_> = of.iter().map(|(name, all, precious)| (*name, *all, *precious, 0)).collect();
            chosen(&tallies(&of), room).into_keys().collect()
        };
        assert_eq!(of(&[("alone", 100, 10)], 1_000), [""; 0]);
        assert_eq!(of(&[("loud", 900, 900), ("a", 50, 40), ("b", 20, 0), ("c", 30, 30)], 100), ["a", "c"]);
        assert_eq!(of(&[("loud", 900, 900), ("a", 50, 40), ("c", 30, 30)], 60), ["c"]);
        assert_eq!(of(&[("a", 10, 1), ("b", 10, 2), ("c", 10, 3)], 3), ["a", "b"]);
        assert_eq!(of(&[], 3), [""; 0]);
    }

    #[test]
    fn what_is_required_is_moved_of_everybody_and_everybody_has_a_share() {
        let of = |of: &[(&str, u64, u64, u64)], room| -> Vec<(String, bool, Option<u64>)> {
            let chosen = chosen(&tallies(of), room);
            chosen.into_iter().map(|(name, one)| (name, one.precious, one.required)).collect()
        };
        let all = |name: &str| (name.to_owned(), false, Some(0));
        assert_eq!(of(&[("alone", 100, 80, 20)], 50), [all("alone")], "who is flooded keeps it");
        assert_eq!(
            of(&[("loud", 900, 0, 900), ("a", 500, 460, 40), ("b", 20, 20, 0)], 100),
            // 60 are left for who has most: 840 are before them.
            [
                ("a".to_owned(), false, Some(0)),
                ("b".to_owned(), true, None),
                ("loud".to_owned(), false, Some(840))
            ]
        );
        assert_eq!(
            of(&[("a", 90, 0, 90), ("b", 90, 0, 90), ("c", 10, 0, 10)], 100),
            [("a".to_owned(), false, Some(45)), ("b".to_owned(), false, Some(45)), all("c")]
        );
    }
}
