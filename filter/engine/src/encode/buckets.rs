//! The hash table of the index: entries by bucket, within a bucket by tag.

use crate::index;
use crate::layout::word;
use crate::packed::Packed;

use super::Writer;

/// Writes the entries (keys and targets).
pub(super) fn write(writer: &mut Writer<'_>, entries: &[(u64, u32)]) {
    // Two entries to a bucket: half as many starts, and a look-up reads both at once.
    let buckets = word(entries.len() / 2).max(1);
    let mut filed: Vec<(u32, u32, u32)> = entries
        .iter()
        .map(|(key, target)| (index::bucket(*key, buckets), index::tag(*key), *target))
        .collect();
    filed.sort_unstable();
    filed.dedup();
    let mut rest = filed.as_slice();
    let mut start = 0;
    writer.put(Packed::Starts, &[0]);
    for bucket in 0..buckets {
        let (here, behind) = rest.split_at(rest.partition_point(|(at, _, _)| *at <= bucket));
        for (_, tag, target) in here {
            writer.put(Packed::Entries, &[*tag, *target]);
        }
        rest = behind;
        start += word(here.len());
        writer.put(Packed::Starts, &[start]);
    }
}
