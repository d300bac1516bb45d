//! Which grants nobody needs.
//!
//! A grant is an Allow that is enforced. It is used by the requests that it decided: where two grants match, only the first
//! in order does, and removing the other would refuse nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ledger::{Away, Enforced, Heard, Kept, Ledger};
use crate::decisions::record::RuleSource;
use crate::push::{FleetReport, Standing};

/// How much of the time asked for may be without counts, in parts: more, and nothing is said to be unused.
const BLIND_PARTS: i64 = 100;
/// How many workloads are named of one rule.
const MAX_NAMED: usize = 8;

/// What is known of grants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnusedReport {
    /// Since when uses count. Unix seconds.
    pub since: i64,
    /// When this control plane began to count; absent: it has not. Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<i64>,
    /// When it heard of no filter since then.
    pub away: Vec<Away>,
    /// How many grants were used.
    pub used: usize,
    /// The others, and on demand all.
    pub rules: Vec<RuleUse>,
}

/// A grant, and what is known of its use. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleUse {
    /// `namespace/name`.
    pub rule: String,
    /// What can be said.
    pub verdict: Verdict,
    /// Why no more can be said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<String>,
    /// Since when it has been in force, as far as this control plane knows.
    pub first_seen: i64,
    /// Since when every use of it was counted, but for [`UnusedReport::away`]; absent: that cannot be said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_since: Option<i64>,
    /// When it decided last; absent: never, as far as known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<i64>,
    /// How often it decided, at least.
    pub count: u64,
    /// How many proxies there are that are to enforce it, and how many of them count.
    pub proxies: usize,
    /// See [`RuleUse::proxies`].
    pub counting: usize,
    /// How many workloads it is for.
    pub workloads: usize,
    /// Some of them, `namespace/name`.
    pub at: Vec<String>,
    /// Where it is written, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<RuleSource>,
}

/// What can be said of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It decided nothing, and everything was counted.
    Unused,
    /// It decided nothing, and has not been counted for long enough.
    TooEarly,
    /// Not everything can be counted.
    Unknown,
    /// It decided.
    Used,
}

/// The proxies of a workload that are there now.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Proxies {
    pub all: usize,
    pub counting: usize,
}

/// What is known of the grants in force. `since`, `now`: Unix seconds. `all`: those as well that were used.
pub fn unused(
    ledger: &Ledger,
    fleet: &FleetReport,
    sources: &BTreeMap<String, std::sync::Arc<RuleSource>>,
    (since, now): (i64, i64),
    all: bool,
) -> UnusedReport {
    let proxies: BTreeMap<&str, Proxies> =
        fleet.workloads.iter().map(|(name, found)| (name.as_str(), present(found))).collect();
    ledger.read(|kept, workloads| {
        let mut grants = BTreeMap::<&str, Vec<(&str, &Enforced)>>::new();
        for (workload, enforced) in workloads {
            for (rule, _) in enforced.rules.iter().filter(|(_, is_grant)| *is_grant) {
                grants.entry(rule).or_default().push((workload, enforced));
            }
        }
        let rules = grants.into_iter().map(|(rule, at)| {
            let of = |workload: &str| proxies.get(workload).copied().unwrap_or_default();
            let source = sources.get(rule).map(|source| RuleSource::clone(source));
            RuleUse { source, ..judge(kept, rule, &at, of, since, now) }
        });
        let (used, others): (Vec<_>, Vec<_>) = rules.partition(|rule| rule.verdict == Verdict::Used);
        let count = used.len();
        let mut rules: Vec<RuleUse> = others.into_iter().chain(used.into_iter().filter(|_| all)).collect();
        rules.sort_by(|a, b| (a.verdict, &a.rule).cmp(&(b.verdict, &b.rule)));
        UnusedReport {
            since,
            began: Some(kept.began).filter(|began| *began > 0),
            away: kept.away.iter().filter(|away| away.until > since).copied().collect(),
            used: count,
            rules,
        }
    })
}

pub(super) fn present(found: &crate::push::WorkloadReport) -> Proxies {
    // Each of its VMs has to count.
    let mut counts = BTreeMap::<&str, bool>::new();
    for vm in found.vms.iter().filter(|vm| vm.connected) {
        let is_able = vm.capabilities.iter().any(|known| known == tidegate_proto::USES);
        *counts.entry(&vm.instance).or_insert(true) &= is_able;
    }
    let mut proxies = Proxies::default();
    for proxy in found.proxies.iter().filter(|proxy| proxy.standing != Standing::Gone) {
        proxies.all += 1;
        proxies.counting += usize::from(counts.get(proxy.instance.as_str()).copied().unwrap_or(false));
    }
    proxies
}

fn judge(
    kept: &Kept,
    rule: &str,
    at: &[(&str, &Enforced)],
    proxies: impl Fn(&str) -> Proxies,
    since: i64,
    now: i64,
) -> RuleUse {
    let known = kept.rules.get(rule).copied().unwrap_or_default();
    let mut why = Vec::new();
    let mut counted_since = known.first_seen.max(kept.began);
    let mut present = Proxies::default();
    for (workload, enforced) in at {
        let here = proxies(workload);
        present.all += here.all;
        present.counting += here.counting;
        let heard = kept.workloads.get(*workload).copied().unwrap_or_default();
        let Heard { counting, not_counting, silent: _ } = heard;
        counted_since = counted_since.max(not_counting);
        if !enforced.is_covered {
            why.push(format!("no Guard covers `{workload}`, so nobody asks its rules"));
        } else if enforced.is_shadowed {
            why.push(format!(
                "a Guard of `{workload}` is in Shadow mode: which rule would have decided is not counted"
            ));
        } else if here.counting < here.all {
            why.push(format!(
                "{} of {} proxies of `{workload}` do not count: their filter is too old, or nothing is heard of it",
                here.all - here.counting,
                here.all
            ));
        } else if counting < known.first_seen.max(1) {
            why.push(format!("no proxy of `{workload}` was there that counts"));
        }
    }
    let away = kept.away.iter().map(|away| away.until.min(now).saturating_sub(away.from.max(since)).max(0));
    let blind = away.fold(0, i64::saturating_add);
    if blind.saturating_mul(BLIND_PARTS) > now.saturating_sub(since) {
        why.push(format!(
            "this control plane heard of no proxy for {} of that time",
            crate::clock::span(blind)
        ));
    }
    let is_counted = kept.began > 0 && known.first_seen > 0;
    let verdict = if known.last_used > 0 && known.last_used >= since {
        Verdict::Used
    } else if !why.is_empty() || !is_counted {
        Verdict::Unknown
    } else if counted_since > since {
        Verdict::TooEarly
    } else {
        Verdict::Unused
    };
    if verdict == Verdict::Used {
        why.clear();
    }
    let extra = why.len().saturating_sub(MAX_NAMED);
    why.truncate(MAX_NAMED);
    if extra > 0 {
        why.push(format!("and {extra} more reasons of this kind"));
    }
    RuleUse {
        rule: rule.to_owned(),
        verdict,
        why,
        first_seen: known.first_seen,
        counted_since: Some(counted_since).filter(|_| verdict != Verdict::Unknown && is_counted),
        last_used: Some(known.last_used).filter(|last| *last > 0),
        count: known.count,
        proxies: present.all,
        counting: present.counting,
        workloads: at.len(),
        at: at.iter().take(MAX_NAMED).map(|(workload, _)| (*workload).to_owned()).collect(),
        source: None,
    }
}

#[cfg(test)]
mod tests;
