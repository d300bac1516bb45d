//! How much a file holds of each workload.

use std::collections::BTreeMap;

use crate::decisions::lanes::Worth;
use crate::decisions::record::Entry;

/// How much there is of a workload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// All of it, in bytes, roughly.
    pub all: u64,
    /// Of this what is precious, and what is required.
    pub precious: u64,
    /// Of this what is required.
    pub required: u64,
    /// How many entries are precious or required. A gap counts as the lost ones that it tells of.
    pub count: u64,
}

// === impl Tally ===

impl Tally {
    /// Of entries that are written together.
    pub fn by_workload<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> BTreeMap<&'a str, Self> {
        let mut tallies: BTreeMap<&str, Self> = BTreeMap::new();
        for entry in entries {
            tallies.entry(entry.workload()).or_default().add(entry);
        }
        tallies
    }

    fn add(&mut self, entry: &Entry) {
        let bytes = weight(entry);
        let only = |is_so: bool| if is_so { bytes } else { 0 };
        self.all = self.all.saturating_add(bytes);
        self.precious = self.precious.saturating_add(only(entry.is_precious()));
        self.required = self.required.saturating_add(only(entry.worth() == Worth::Required));
        self.count = self.count.saturating_add(count(entry));
    }

    /// With what is added.
    pub fn and(self, other: Self) -> Self {
        self.each(other, u64::saturating_add)
    }

    /// Without what is gone.
    pub fn without(self, other: Self) -> Self {
        self.each(other, u64::saturating_sub)
    }

    fn each(self, other: Self, change: fn(u64, u64) -> u64) -> Self {
        Self {
            all: change(self.all, other.all),
            precious: change(self.precious, other.precious),
            required: change(self.required, other.required),
            count: change(self.count, other.count),
        }
    }
}

/// Bytes of an entry, roughly.
pub fn weight(entry: &Entry) -> u64 {
    u64::try_from(entry.weight()).unwrap_or(u64::MAX)
}

/// How many precious decisions are missing when this is.
pub fn count(entry: &Entry) -> u64 {
    match entry {
        Entry::Gap(gap) => gap.lost_in_full.max(1),
        Entry::Decision(recorded) => u64::from(recorded.worth() != Worth::Ordinary),
    }
}
