//! The hash table of the index: entries by bucket, within a bucket by tag.

use crate::index;
use crate::layout::{size, word};
use crate::packed::Packed;

use super::link::Linker;

/// Writes the entries (keys and targets).
pub(super) fn write(linker: &mut Linker<'_>, entries: &[(u64, u32)]) {
    // Two entries to a bucket: half as many starts, and a look-up reads both at once.
    let buckets = word(entries.len() / 2).max(1);
    // How many entries are in buckets before each.
    let mut ends = vec![0_u32; size(buckets).saturating_add(1)];
    for (key, _) in entries {
        if let Some(end) = ends.get_mut(size(index::bucket(*key, buckets)).saturating_add(1)) {
            *end = end.saturating_add(1);
        }
    }
    let mut sum = 0_u32;
    for end in &mut ends {
        sum = sum.saturating_add(*end);
        *end = sum;
    }
    // Each begins where the one before ends, and grows to where it ends itself.
    let mut filed = vec![(0, 0); entries.len()];
    for (key, target) in entries {
        let Some(end) = ends.get_mut(size(index::bucket(*key, buckets))) else { continue };
        if let Some(place) = filed.get_mut(size(*end)) {
            *place = (index::tag(*key), *target);
        }
        *end = end.saturating_add(1);
    }
    let (mut begin, mut start) = (0, 0);
    linker.append(Packed::Starts, &[0]);
    for end in ends.iter().take(size(buckets)) {
        let here = filed.get_mut(begin..size(*end)).unwrap_or_default();
        begin = size(*end);
        here.sort_unstable();
        let mut before = None;
        for entry in here.iter().filter(|entry| before.replace(**entry) != Some(**entry)) {
            linker.append(Packed::Entries, &[entry.0, entry.1]);
            start += 1;
        }
        linker.append(Packed::Starts, &[start]);
    }
}
