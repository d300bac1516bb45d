//! How often each rule decided, and when last: what it takes to say which rules nobody needs.
//!
//! INVARIANT: a request costs an addition and no memory: there is a place for each rule that is installed. Nothing that is
//! decided depends on what is counted.

use tidegate_engine::{PolicySet, RuleIx};
use tidegate_proto::v1 as pb;

/// How often it is told, in milliseconds.
const PERIOD_MS: u64 = 60_000;

/// How many bytes are told at once, how many rules are looked at for that, and how long until the next part, in milliseconds:
/// a callback has little time, and all filters of a workload share what they may send.
const MOST_BYTES: usize = 4 << 10;
const MOST_SEEN: usize = 20_000;
const PART_MS: u64 = 4_000;

/// Bytes of an entry beside its name, roughly.
const ENTRY_BYTES: usize = 20;

/// The uses of the rules that are installed.
#[derive(Debug, Default)]
pub struct Uses {
    /// By position in the policy.
    rules: Vec<Use>,
    due_ms: u64,
    /// When the next round begins.
    round_ms: u64,
    /// Where the telling that is under way goes on.
    next: Option<usize>,
    /// Whether it is about everything that was ever used.
    all: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Use {
    /// Since it was told last.
    count: u32,
    /// Unix seconds of the last one; 0: there was none.
    last: u32,
}

/// A part of what there is to tell.
#[derive(Debug, Default)]
pub struct Told {
    /// What was used.
    pub rules: Vec<pb::RuleUse>,
    /// It is the first part, with which what else was used is told: of the whole time or since it was told last.
    pub begins: Option<bool>,
}

// === impl Uses ===

impl Uses {
    /// Other rules are installed. Those that stay keep what was counted of them.
    pub fn replace(&mut self, before: Option<&PolicySet>, after: Option<&PolicySet>) {
        if before.zip(after).is_some_and(|(before, after)| std::ptr::eq(before, after)) {
            return;
        }
        let mut rules = vec![Use::default(); after.map_or(0, PolicySet::rule_count)];
        if let (Some(before), Some(after)) = (before, after) {
            // Both are in the order of their ids.
            let mut old = self.rules.iter().zip(ids(before)).peekable();
            for (new, id) in rules.iter_mut().zip(ids(after)) {
                while old.next_if(|(_, other)| *other < id).is_some() {}
                if let Some((known, _)) = old.next_if(|(_, other)| *other == id) {
                    *new = *known;
                }
            }
        }
        self.rules = rules;
        if self.next.is_some() {
            self.next = Some(0);
        }
    }

    /// A rule decided. `now`: Unix seconds.
    #[inline]
    pub fn add(&mut self, rule: RuleIx, now: i64) {
        if let Some(rule) = usize::try_from(rule.0).ok().and_then(|rule| self.rules.get_mut(rule)) {
            rule.count = rule.count.saturating_add(1);
            rule.last = u32::try_from(now).unwrap_or(rule.last);
        }
    }

    /// Somebody listens, who may not know what was told before.
    pub fn listened(&mut self) {
        (self.next, self.all, self.due_ms) = (None, true, 0);
    }

    /// The next part of what there is to tell of these rules, if it is time.
    pub fn tell(&mut self, policy: Option<&PolicySet>, now_ms: u64) -> Option<Told> {
        let mut told = Told::default();
        if now_ms < self.due_ms {
            return None;
        }
        let begin = self.next.take().unwrap_or_else(|| {
            self.round_ms = now_ms.saturating_add(PERIOD_MS);
            told.begins = Some(self.all);
            0
        });
        let mut bytes: usize = 0;
        for (seen, (at, used)) in self.rules.iter_mut().enumerate().skip(begin).enumerate() {
            if seen >= MOST_SEEN || bytes >= MOST_BYTES {
                self.next = Some(at);
                break;
            }
            let is_news = used.count > 0 || (self.all && used.last > 0);
            let view = u32::try_from(at).ok().filter(|_| is_news).and_then(|at| policy?.rule(RuleIx(at)));
            if let Some(view) = view {
                bytes = bytes.saturating_add(view.id.len()).saturating_add(ENTRY_BYTES);
                told.rules.push(pb::RuleUse {
                    rule: view.id.to_owned(),
                    count: used.count.into(),
                    last_used_at: used.last.into(),
                });
                used.count = 0;
            }
        }
        self.all &= self.next.is_some();
        let part_ms = now_ms.saturating_add(PART_MS);
        self.due_ms = if self.next.is_some() { part_ms } else { part_ms.max(self.round_ms) };
        Some(told)
    }
}

/// The ids of all rules, in their order.
fn ids(policy: &PolicySet) -> impl Iterator<Item = &str> {
    let all = (0..policy.rule_count()).map_while(|at| u32::try_from(at).ok());
    all.map_while(|at| policy.rule(RuleIx(at))).map(|rule| rule.id)
}

#[cfg(test)]
mod tests;
