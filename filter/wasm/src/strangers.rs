//! Refusals of callers that have proven nothing: how many of them get records of their own.
//!
//! Anybody can make a filter refuse, as fast as connections allow, and a record costs the proxy more than the refusal
//! does. Where nobody can be named (no mesh peer, no verified token), records beyond some of each second stand for many.
//! Who is known is recorded each time.
//!
//! INVARIANT: memory is bounded, as reasons are a closed set. Each refusal is in exactly one record's count, or in that of
//! one that is still to come.

use tidegate_engine::Reason;

/// Of one reason, so many in a second are recorded one by one.
pub const ONE_BY_ONE: u32 = 100;

/// Of those beyond, one record is made of so many.
pub const TOGETHER: u32 = 64;

/// By reason, what was recorded and what was not.
#[derive(Debug, Default)]
pub struct Strangers(Vec<Told>);

#[derive(Debug)]
struct Told {
    reason: Reason,
    /// Unix seconds.
    second: i64,
    /// In this second, one by one.
    recorded: u32,
    /// Since the last record.
    untold: u32,
}

// === impl Strangers ===

impl Strangers {
    /// For how many refusals a record of this one stands, itself included. `None`: none is made, and a later one stands for
    /// it too.
    pub fn refuse(&mut self, reason: Reason, second: i64) -> Option<u32> {
        let told = match self.0.iter().position(|told| told.reason == reason) {
            Some(position) => self.0.get_mut(position)?,
            None => {
                self.0.push(Told { reason, second, recorded: 0, untold: 0 });
                self.0.last_mut()?
            }
        };
        if told.second != second {
            (told.second, told.recorded) = (second, 0);
        }
        told.untold = told.untold.saturating_add(1);
        if told.recorded < ONE_BY_ONE {
            told.recorded = told.recorded.saturating_add(1);
        } else if told.untold < TOGETHER {
            return None;
        }
        Some(std::mem::take(&mut told.untold))
    }
}

#[cfg(test)]
mod tests {
    use tidegate_engine::TokenFault;

    use super::*;

    #[test]
    fn a_second_s_first_are_told_one_by_one_and_all_are_counted() {
        let mut strangers = Strangers::default();
        let mut stood_for = 0;
        for refused in 1..=1_000u32 {
            let told = strangers.refuse(Reason::TokenRequired, 7);
            if refused <= ONE_BY_ONE {
                assert_eq!(told, Some(1), "{refused}");
            } else {
                assert_eq!(told.is_some(), (refused - ONE_BY_ONE).is_multiple_of(TOGETHER), "{refused}");
            }
            stood_for += told.unwrap_or(0);
        }
        // 14 records of 64; four are still to be told, by the first one of the next second.
        assert_eq!(stood_for, 996);
        assert_eq!(strangers.refuse(Reason::TokenRequired, 8), Some(5));
        assert_eq!(strangers.refuse(Reason::TokenRequired, 8), Some(1));
    }

    #[test]
    fn one_reason_hides_no_other() {
        let mut strangers = Strangers::default();
        for _ in 0..1_000 {
            strangers.refuse(Reason::TokenRequired, 7);
        }
        assert_eq!(strangers.refuse(Reason::TokenInvalid(TokenFault::Expired), 7), Some(1));
        assert_eq!(strangers.refuse(Reason::NoAllowMatched, 7), Some(1));
    }
}
