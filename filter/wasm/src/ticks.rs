//! How often the proxy calls.
//!
//! Setting a period begins it anew, also where it is the same one. INVARIANT: callers cannot keep a tick from coming, however
//! often they make a request wait and be answered: between two ticks the period is only made shorter.

use std::cell::Cell;

/// The period of ticks as the proxy knows it.
#[derive(Debug, Default)]
pub struct Ticks {
    set_ms: Cell<u64>,
    has_come: Cell<bool>,
}

// === impl Ticks ===

impl Ticks {
    /// They begin, with this period in milliseconds.
    pub fn begin(&self, period_ms: u64) {
        self.set_ms.set(period_ms);
    }

    /// One comes.
    pub fn come(&self) {
        self.has_come.set(true);
    }

    /// The period to set, if another one is wanted and may be set now.
    pub fn change(&self, wanted_ms: u64) -> Option<u64> {
        let set_ms = self.set_ms.get();
        let has_come = self.has_come.take();
        if wanted_ms == set_ms || (wanted_ms > set_ms && !has_come) {
            return None;
        }
        self.set_ms.set(wanted_ms);
        Some(wanted_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_two_ticks_a_period_is_only_made_shorter() {
        let ticks = Ticks::default();
        ticks.begin(1_000);
        assert_eq!(ticks.change(1_000), None);
        assert_eq!(ticks.change(100), Some(100));
        for wanted in [100, 1_000, 100, 1_000] {
            assert_eq!(ticks.change(wanted), None, "not before a tick has come");
        }
        assert_eq!(ticks.change(1), Some(1));
        ticks.come();
        assert_eq!(ticks.change(1_000), Some(1_000));
        assert_eq!((ticks.change(100), ticks.change(1_000)), (Some(100), None), "one tick, one change");
        ticks.come();
        assert_eq!((ticks.change(100), ticks.change(1_000)), (None, None));
    }
}
