//! What is kept of uses.
//!
//! Pure but for the lock: every change carries its time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tidegate_engine::model::{Effect, Mode};
use tidegate_identity::keys::MAX_KEY_ID_BYTES;
use tidegate_proto::v1 as pb;

use crate::keys::IssuerReport;
use crate::push::FleetReport;
use crate::serve::InForce;

/// Most entries that are taken from one message.
const MAX_TOLD: usize = 2_048;
/// How many rules are remembered that are not in force any more, and for how long, in seconds.
const MAX_GONE: usize = 10_000;
const GONE_FOR_S: i64 = 30 * 86_400;
/// A rule that was gone for longer is another one when it comes back, in seconds.
const ANOTHER_AFTER_S: i64 = 3_600;
/// How many keys are remembered of one workload, and for how long after they were used last, in seconds.
const MAX_KEYS: usize = 512;
const KEYS_FOR_S: i64 = 30 * 86_400;
/// Longest name of an issuer, in bytes (RFC 1123 DNS subdomain).
const MAX_NAME: usize = 253;
/// How many times are remembered at which nothing was heard.
const MAX_AWAY: usize = 256;
/// Two looks further apart than this mean that nothing was heard between, in seconds.
const AWAY_AFTER_S: i64 = 180;

/// What is known of uses.
#[derive(Debug, Default)]
pub struct Ledger {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    kept: Kept,
    is_changed: bool,
    offered: Option<Arc<InForce>>,
    /// What each workload is to enforce now.
    workloads: BTreeMap<String, Enforced>,
}

/// What a workload is to enforce, as far as uses are concerned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Enforced {
    /// Its rules, sorted, and whether each is a grant: an Allow that is enforced.
    pub rules: Vec<(String, bool)>,
    /// Some Guard covers it.
    pub is_covered: bool,
    /// Some Guard of it only reports: which rule would have decided is not told then.
    pub is_shadowed: bool,
    /// The TrustedIssuers that its rules name.
    pub issuers: Vec<String>,
}

/// What is written down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Kept {
    /// When counting began, in Unix seconds; 0: it has not.
    pub began: i64,
    /// Until when filters could be heard. Unix seconds.
    pub heard_until: i64,
    /// When they could not.
    pub away: Vec<Away>,
    /// Grants, by the rule's name.
    pub rules: BTreeMap<String, Used>,
    /// By workload.
    pub workloads: BTreeMap<String, Heard>,
    /// By workload, issuer and `kid`.
    pub keys: BTreeMap<String, BTreeMap<String, BTreeMap<String, UsedKey>>>,
}

/// A time during which no filter was heard. Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Away {
    /// From then.
    pub from: i64,
    /// Until then.
    pub until: i64,
}

/// What is known of one grant. Unix seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Used {
    /// Since when it has been in force.
    pub first_seen: i64,
    /// When it decided last; 0: never.
    #[serde(skip_serializing_if = "is_zero")]
    pub last_used: i64,
    /// How often, at least.
    #[serde(skip_serializing_if = "is_none")]
    pub count: u64,
    /// Since when it has not been in force as a grant any more; 0: it is.
    #[serde(skip_serializing_if = "is_zero")]
    pub gone: i64,
}

/// What is known of one workload. Unix seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", from = "WrittenHeard")]
pub(super) struct Heard {
    /// When a filter of it that counts was there last; 0: never.
    pub counting: i64,
    /// When one was there last that does not count, or its Guards did not make it count; 0: never.
    pub not_counting: i64,
    /// When a filter was there last that does not count, whatever its Guards are; 0: never.
    pub silent: i64,
}

/// [`Heard`], as earlier versions wrote it too: these did not tell a filter that does not count from a Guard that does not make it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WrittenHeard {
    counting: i64,
    not_counting: i64,
    silent: Option<i64>,
}

impl From<WrittenHeard> for Heard {
    fn from(written: WrittenHeard) -> Self {
        let WrittenHeard { counting, not_counting, silent } = written;
        Self { counting, not_counting, silent: silent.unwrap_or(not_counting) }
    }
}

/// What is known of one key at one workload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct UsedKey {
    /// Tokens that it had signed, at least.
    pub verified: u64,
    /// When the last one was verified. Unix seconds.
    pub last: i64,
    /// When it was gone from the issuer's set; 0: it is there. Unix seconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub left: i64,
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

fn is_none(value: &u64) -> bool {
    *value == 0
}

// === impl Ledger ===

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on where the last process stopped.
    pub(super) fn restore(&self, kept: Kept) {
        self.lock().kept = kept;
    }

    /// What is to be written down, if anything has changed.
    pub(super) fn take_changed(&self) -> Option<Kept> {
        let mut inner = self.lock();
        std::mem::take(&mut inner.is_changed).then(|| inner.kept.clone())
    }

    /// Everything that is known, and what is in force.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Kept, &BTreeMap<String, Enforced>) -> T) -> T {
        let inner = self.lock();
        read(&inner.kept, &inner.workloads)
    }

    /// These rules are about to be on offer: filters may tell of them at once. `now`: Unix seconds.
    pub(crate) fn offered(&self, in_force: &Arc<InForce>, now: i64) {
        if self.lock().offered.replace(in_force.clone()).is_some_and(|known| Arc::ptr_eq(&known, in_force)) {
            return;
        }
        let enforced = |policy: &tidegate_compiler::WorkloadPolicy| Enforced {
            rules: policy
                .model
                .rules
                .iter()
                .map(|rule| (rule.id.clone(), rule.effect == Effect::Allow && rule.mode == Mode::Enforce))
                .collect(),
            is_covered: policy.covered,
            is_shadowed: policy.model.guards.iter().any(|guard| guard.mode == Mode::Shadow),
            issuers: policy.issuers.clone(),
        };
        let workloads = in_force.compiled.workloads.iter();
        self.enforced(workloads.map(|(id, policy)| (id.to_string(), enforced(policy))).collect(), now);
    }

    /// This is to be enforced.
    pub(super) fn enforced(&self, workloads: BTreeMap<String, Enforced>, now: i64) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        if inner.workloads != workloads {
            inner.workloads = workloads;
            inner.kept.follow(&inner.workloads, now);
            inner.is_changed = true;
        }
    }

    /// These filters are there. `now`: Unix seconds.
    pub fn observe(&self, fleet: &FleetReport, now: i64) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        inner.is_changed = true;
        inner.kept.look(now);
        for (workload, enforced) in &inner.workloads {
            let heard = inner.kept.workloads.entry(workload.clone()).or_default();
            if !enforced.is_covered || enforced.is_shadowed {
                heard.not_counting = now;
            }
            let Some(found) = fleet.workloads.get(workload) else { continue };
            for vm in &found.vms {
                let at = if vm.connected { now } else { vm.seen_at.min(now) };
                let counts = vm.capabilities.iter().any(|known| known == tidegate_proto::USES);
                let last = if counts { &mut heard.counting } else { &mut heard.not_counting };
                *last = at.max(*last);
                if !counts {
                    heard.silent = at.max(heard.silent);
                }
            }
        }
    }

    /// These are the keys that issuers publish. `now`: Unix seconds.
    pub fn published(&self, issuers: &[IssuerReport], now: i64) {
        let mut inner = self.lock();
        let by_issuer = inner.kept.keys.values_mut().flat_map(|issuers| issuers.iter_mut());
        for (name, keys) in by_issuer {
            let Some(issuer) = issuers.iter().find(|issuer| issuer.name == *name) else { continue };
            for (id, key) in keys {
                let is_there = issuer.publishes(id);
                key.left = match key.left {
                    _ if is_there => 0,
                    0 => now,
                    left => left,
                };
            }
        }
    }

    /// A filter of this workload tells what was used. `now`: Unix seconds.
    pub fn told(&self, workload: &str, uses: &pb::Uses, now: i64) {
        let mut inner = self.lock();
        let Inner { kept, is_changed, workloads, .. } = &mut *inner;
        *is_changed = true;
        let rules = workloads.get(workload).map(|enforced| enforced.rules.as_slice()).unwrap_or_default();
        for used in uses.rules.iter().take(MAX_TOLD) {
            let is_its_own = rules.binary_search_by(|(name, _)| name.as_str().cmp(&used.rule)).is_ok();
            if let Some(known) = kept.rules.get_mut(&used.rule).filter(|_| is_its_own) {
                known.count = known.count.saturating_add(used.count);
                // The clock is the filter's own.
                known.last_used = used.last_used_at.min(now).max(known.last_used);
            }
        }
        let is_fit = |used: &&pb::KeyUse| {
            let is_name = |text: &str, most| text.len() <= most && !text.chars().any(char::is_control);
            is_name(&used.issuer, MAX_NAME) && is_name(&used.key_id, MAX_KEY_ID_BYTES)
        };
        if uses.keys.is_empty() || !workloads.contains_key(workload) {
            return;
        }
        let keys = kept.keys.entry(workload.to_owned()).or_default();
        let mut count: usize = keys.values().map(BTreeMap::len).sum();
        for used in uses.keys.iter().filter(is_fit).take(MAX_TOLD) {
            let is_known = keys.get(&used.issuer).is_some_and(|known| known.contains_key(&used.key_id));
            if !is_known && count >= MAX_KEYS {
                continue;
            }
            count = count.saturating_add(usize::from(!is_known));
            let known = keys.entry(used.issuer.clone()).or_default().entry(used.key_id.clone()).or_default();
            known.verified = known.verified.saturating_add(used.verified);
            known.last = used.last_verified_at.min(now).max(known.last);
        }
    }
}

// === impl Kept ===

impl Kept {
    /// Since when filters could be heard without a gap; `None`: they cannot. `now`: Unix seconds.
    pub fn heard_since(&self, now: i64) -> Option<i64> {
        let is_heard = self.began > 0 && now.saturating_sub(self.heard_until) <= AWAY_AFTER_S;
        let back = self.away.iter().map(|away| away.until).max().unwrap_or(0);
        is_heard.then(|| self.began.max(back))
    }

    /// Filters can be heard now.
    fn look(&mut self, now: i64) {
        if self.began == 0 || self.began > now {
            self.began = now;
        } else if self.heard_until > 0 && now.saturating_sub(self.heard_until) > AWAY_AFTER_S {
            self.away.push(Away { from: self.heard_until, until: now });
            let excess = self.away.len().saturating_sub(MAX_AWAY);
            if excess > 0 {
                // What is forgotten of it was longer, not shorter.
                let until = self.away.get(excess).map_or(now, |first| first.until);
                self.away.drain(..excess);
                if let Some(first) = self.away.first_mut() {
                    *first = Away { from: self.began, until };
                }
            }
        }
        self.heard_until = now;
        for issuers in self.keys.values_mut() {
            for keys in issuers.values_mut() {
                keys.retain(|_, key| now.saturating_sub(key.last) < KEYS_FOR_S);
            }
            issuers.retain(|_, keys| !keys.is_empty());
        }
    }

    /// Other rules are in force.
    fn follow(&mut self, workloads: &BTreeMap<String, Enforced>, now: i64) {
        let rules = workloads.values().flat_map(|enforced| &enforced.rules);
        let names: BTreeSet<&str> =
            rules.filter(|(_, is_grant)| *is_grant).map(|(name, _)| name.as_str()).collect();
        for name in &names {
            let new = Used { first_seen: now, ..Used::default() };
            let known = self.rules.entry((*name).to_owned()).or_insert(new);
            if known.gone > 0 && now.saturating_sub(known.gone) > ANOTHER_AFTER_S {
                known.first_seen = now;
            }
            known.gone = 0;
        }
        let mut gone = Vec::new();
        self.rules.retain(|name, known| {
            if names.contains(name.as_str()) {
                return true;
            }
            if known.gone == 0 {
                known.gone = now;
            }
            gone.push(known.gone);
            now.saturating_sub(known.gone) < GONE_FOR_S
        });
        if gone.len() > MAX_GONE {
            gone.sort_unstable_by(|a, b| b.cmp(a));
            let oldest = gone.get(MAX_GONE).copied().unwrap_or(i64::MAX);
            self.rules.retain(|_, known| known.gone == 0 || known.gone > oldest);
        }
        self.workloads.retain(|workload, _| workloads.contains_key(workload));
        self.keys.retain(|workload, _| workloads.contains_key(workload));
    }
}

#[cfg(test)]
mod tests;
