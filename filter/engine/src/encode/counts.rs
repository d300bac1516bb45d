//! How many targets share a key.

/// So many may share a key before another part is worth its look-up.
pub(super) const FEW: u32 = 4;

/// Keys, and how often each was added.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// A key, and how often it is there. As many as a power of two.
    slots: Vec<Slot>,
    /// How many slots were ever used.
    used: usize,
    pairs: usize,
    squares: usize,
    /// How many keys are there more than [`FEW`] times.
    many: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    key: u64,
    often: u32,
    /// Whether there was ever a key here: what was put behind it is looked for behind it.
    is_used: bool,
}

// === impl Counts ===

impl Counts {
    /// There will be about so many.
    pub fn with_capacity(pairs: usize) -> Self {
        let slots = pairs.saturating_mul(2).checked_next_power_of_two().unwrap_or(16).max(16);
        Self { slots: vec![Slot::default(); slots], ..Self::default() }
    }

    /// One more.
    #[inline]
    pub fn add(&mut self, key: u64) {
        if self.used.saturating_mul(4) >= self.slots.len().saturating_mul(3) {
            self.grow();
        }
        let at = self.find(key);
        let Some(slot) = self.slots.get_mut(at) else { return };
        self.used += usize::from(!slot.is_used);
        let often = slot.often.saturating_add(1);
        *slot = Slot { key, often, is_used: true };
        self.pairs += 1;
        // The square of one more.
        self.squares += 2 * wide(often) - 1;
        self.many += usize::from(often == FEW + 1);
    }

    /// One fewer of those that were added.
    pub fn remove(&mut self, key: u64) {
        let at = self.find(key);
        let Some(slot) = self.slots.get_mut(at).filter(|slot| slot.often > 0) else { return };
        self.pairs = self.pairs.saturating_sub(1);
        self.squares = self.squares.saturating_sub(2 * wide(slot.often) - 1);
        self.many = self.many.saturating_sub(usize::from(slot.often == FEW + 1));
        slot.often -= 1;
    }

    fn grow(&mut self) {
        let there = std::mem::take(&mut self.slots);
        // Without those that are there no more.
        *self = Self::with_capacity(there.iter().filter(|slot| slot.often > 0).count());
        for slot in there.into_iter().filter(|slot| slot.often > 0) {
            (0..slot.often).for_each(|_| self.add(slot.key));
        }
    }

    #[inline]
    fn find(&self, key: u64) -> usize {
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = usize::try_from(key & 0xFFFF_FFFF).unwrap_or(0) & mask;
        while let Some(slot) = self.slots.get(at) {
            if !slot.is_used || slot.key == key {
                break;
            }
            at = at.wrapping_add(1) & mask;
        }
        at
    }

    /// Whether many share any key.
    pub fn is_crowded(&self) -> bool {
        self.many > 0
    }

    /// Whether few share a key, at most and on the average over those that look for something: a key of many is looked for more
    /// often.
    pub fn is_selective(&self) -> bool {
        self.many == 0 && 2 * self.squares <= 3 * self.pairs
    }

    /// How often one of these would be there at most, together with others.
    pub fn most_with(&self, others: Option<&Self>) -> u32 {
        let all = self.slots.iter().filter(|slot| slot.often > 0);
        let together = all.map(|slot| {
            let there = others.and_then(|others| others.slots.get(others.find(slot.key)));
            slot.often.saturating_add(there.map_or(0, |there| there.often))
        });
        together.max().unwrap_or(0)
    }
}

fn wide(often: u32) -> usize {
    usize::try_from(often.max(1)).unwrap_or(usize::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
    #[test]
    fn what_comes_and_goes_counts_as_what_is_there() {
        let sums = |counts: &Counts| (counts.pairs, counts.squares, counts.many, counts.most_with(None));
        let mut counts = Counts::with_capacity(0);
        for round in 0..5_u64 {
            // Keys that lie in the same place, and ever more of them.
            for key in 0..200 {
                (0..=key % 7).for_each(|_| counts.add((round * 200 + key) << 40));
            }
            for key in 0..200 {
                (0..=key % 7).filter(|_| key % 3 != 0).for_each(|_| counts.remove((round * 200 + key) << 40));
            }
            counts.remove(u64::MAX);
        }
        let mut other = Counts::with_capacity(10_000);
        for key in (0..1000).filter(|key| key % 200 % 3 == 0) {
            (0..=key % 200 % 7).for_each(|_| other.add(key << 40));
        }
        assert_eq!(sums(&counts), sums(&other));
        assert_eq!(counts.most_with(Some(&other)), 14);
        assert!(counts.is_crowded() && !counts.is_selective());
    }
}
