//! What will break when an issuer's keys change.
//!
//! An issuer that rotates publishes the new key beside the old one, signs with the new one, and withdraws the old one some
//! time later. Whoever still brings tokens of the old one then is refused. Who that would be is known here before.
//!
//! INVARIANT: that nobody uses a key is said only where whoever used it would have been heard: every proxy of the workloads whose
//! rules name its issuer tells, and this control plane has heard of them for as long as is said.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ledger::{Enforced, Kept, Ledger};
use super::unused::{Proxies, present};
use crate::clock;
use crate::keys::{IssuerReport, KeyReport};
use crate::push::FleetReport;

/// A key that was used so long before it was gone, in seconds, was in use: most tokens live no longer.
const IN_USE_S: i64 = 3_600;
/// A key counts as used for so long after its last token, in seconds: longer than most tokens live, as long as most jobs
/// take to come again.
const LATELY_S: i64 = 24 * 3_600;
/// Keys that are gone are told of for so long after their last token, in seconds.
const GONE_FOR_S: i64 = 7 * 86_400;
/// How many workloads are named of one key.
const MAX_NAMED: usize = 8;

/// What is known of the use of keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forecast {
    /// Since when it is counted which keys are used; absent: it is not. Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<i64>,
    /// Since when filters could be heard without a gap, which another replica's term is; absent: they cannot now. Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_since: Option<i64>,
    /// How many filters are connected, and how many of them count.
    pub filters: usize,
    /// See [`Forecast::filters`].
    pub counting: usize,
    /// Those first whose keys cease to count first.
    pub issuers: Vec<IssuerForecast>,
}

/// The keys of one TrustedIssuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IssuerForecast {
    /// Its name.
    pub name: String,
    /// Until when its keys count if they cannot be fetched any more. Unix seconds; absent: always, or there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<i64>,
    /// Why its keys could not be fetched last, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How many proxies there are of the workloads whose rules name it, and how many of them tell which keys they see.
    #[serde(default)]
    pub proxies: usize,
    /// See [`IssuerForecast::proxies`].
    #[serde(default)]
    pub counting: usize,
    /// Why it cannot be said of any of its keys that nobody uses it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<String>,
    /// Its keys, and those that are gone from its set.
    pub keys: Vec<KeyForecast>,
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyForecast {
    /// `kid`; absent: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// What is to be expected.
    pub state: KeyState,
    /// Since when the issuer has published it, as far as known. Unix seconds; absent: it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
    /// When a token of it was verified last. Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verified: Option<i64>,
    /// Tokens that were verified with it, at least.
    pub verified: u64,
    /// How many workloads had tokens of it within the last day.
    pub workloads: usize,
    /// Some of them, `namespace/name`.
    pub at: Vec<String>,
}

/// What is to be expected of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum KeyState {
    /// It is gone from the issuer's set since less than a day, and there were tokens of it until then: those that have not
    /// expired are refused now.
    GoneInUse,
    /// There were tokens of it within the last day, and a younger key is there: the issuer may withdraw it.
    Leaving,
    /// There were tokens of it within the last day, and no younger key is there.
    InUse,
    /// None were heard of, and not everything could be heard.
    Unknown,
    /// There were none within the last day.
    Idle,
    /// It is gone, and hardly anybody misses it.
    Gone,
}

// === impl KeyState ===

impl KeyState {
    /// Whether somebody should look.
    pub fn wants_attention(self) -> bool {
        self == Self::GoneInUse
    }
}

/// What is known of the use of these issuers' keys. `now`: Unix seconds.
pub fn forecast(ledger: &Ledger, issuers: &[IssuerReport], fleet: &FleetReport, now: i64) -> Forecast {
    let vms = || fleet.workloads.values().flat_map(|found| &found.vms).filter(|vm| vm.connected);
    let counts = |known: &[String]| known.iter().any(|one| one == tidegate_proto::USES);
    let (began, heard_since, uses, heard) = ledger.read(|kept, workloads| {
        let mut uses = BTreeMap::<(String, String), Use>::new();
        for (workload, of_workload) in &kept.keys {
            for (issuer, keys) in of_workload {
                for (key, used) in keys {
                    let all = uses.entry((issuer.clone(), key.clone())).or_default();
                    all.last = all.last.max(used.last);
                    all.left = all.left.max(used.left);
                    all.verified = all.verified.saturating_add(used.verified);
                    if now.saturating_sub(used.last) < LATELY_S {
                        all.workloads.push(workload.clone());
                    }
                }
            }
        }
        let used = issuers.iter().filter(|issuer| issuer.used);
        let heard: Vec<Hearing> =
            used.map(|issuer| Hearing::of(&issuer.name, kept, workloads, fleet, now)).collect();
        (kept.began, kept.heard_since(now), uses, heard)
    });
    let used = issuers.iter().filter(|issuer| issuer.used);
    let mut issuers: Vec<IssuerForecast> =
        used.zip(heard).map(|(issuer, heard)| of_issuer(issuer, &uses, heard, now)).collect();
    issuers.sort_by_key(|issuer| (issuer.valid_until.unwrap_or(i64::MAX), issuer.name.clone()));
    Forecast {
        began: Some(began).filter(|began| *began > 0),
        heard_since,
        filters: vms().count(),
        counting: vms().filter(|vm| counts(&vm.capabilities)).count(),
        issuers,
    }
}

/// What all workloads together had of a key.
#[derive(Debug, Default)]
struct Use {
    last: i64,
    left: i64,
    verified: u64,
    workloads: Vec<String>,
}

/// Whether it would have been heard that somebody uses keys of an issuer.
#[derive(Debug)]
struct Hearing {
    proxies: Proxies,
    /// Since when everybody would have been heard; `None`: not now.
    since: Option<i64>,
    /// Why not for the last day.
    why: Vec<String>,
}

impl Hearing {
    fn of(
        issuer: &str,
        kept: &Kept,
        workloads: &BTreeMap<String, Enforced>,
        fleet: &FleetReport,
        now: i64,
    ) -> Self {
        let mut hearing = Self { proxies: Proxies::default(), since: kept.heard_since(now), why: Vec::new() };
        for (workload, _) in workloads.iter().filter(|(_, one)| one.issuers.iter().any(|name| name == issuer))
        {
            let here = fleet.workloads.get(workload).map(present).unwrap_or_default();
            hearing.proxies.all += here.all;
            hearing.proxies.counting += here.counting;
            // One that did not tell may have seen anything.
            let silent = kept.workloads.get(workload).map_or(0, |heard| heard.silent);
            hearing.since = hearing.since.map(|since| since.max(silent));
        }
        let Proxies { all, counting } = hearing.proxies;
        if counting < all {
            hearing.since = None;
            hearing.why.push(format!(
                "{} of {all} proxies do not tell which keys they see: their filter is too old, or nothing is heard of it",
                all - counting
            ));
        }
        match hearing.since {
            None if hearing.why.is_empty() => {
                hearing.why.push("this control plane hears of no proxy now".to_owned())
            }
            None => {}
            Some(since) if now.saturating_sub(since) >= LATELY_S => {}
            Some(since) => hearing.why.push(format!(
                "all proxies have been heard without a gap for {} only, and tokens may come once a day",
                clock::span(now.saturating_sub(since))
            )),
        }
        hearing
    }

    /// Whether everybody has been heard from then on.
    fn is_complete_since(&self, time: i64) -> bool {
        self.since.is_some_and(|since| since <= time)
    }
}

fn of_issuer(
    issuer: &IssuerReport,
    uses: &BTreeMap<(String, String), Use>,
    heard: Hearing,
    now: i64,
) -> IssuerForecast {
    let is_late = |last: i64| last > 0 && now.saturating_sub(last) < LATELY_S;
    let none = Use::default();
    let of = |key: &KeyReport| {
        let key = (issuer.name.clone(), key.key_id.clone().unwrap_or_default());
        uses.get(&key).unwrap_or(&none)
    };
    let told = |key_id: Option<String>, state, since, used: &Use| KeyForecast {
        key_id,
        state,
        since,
        last_verified: Some(used.last).filter(|last| *last > 0),
        verified: used.verified,
        workloads: used.workloads.len(),
        at: used.workloads.iter().take(MAX_NAMED).cloned().collect(),
    };
    let present = issuer.keys.iter().map(|key| {
        let used = of(key);
        let is_succeeded = issuer.keys.iter().any(|other| other.since > key.since);
        let state = match (is_late(used.last), is_succeeded) {
            (true, true) => KeyState::Leaving,
            (true, false) => KeyState::InUse,
            (false, _) if heard.is_complete_since(now.saturating_sub(LATELY_S)) => KeyState::Idle,
            (false, _) => KeyState::Unknown,
        };
        told(key.key_id.clone(), state, Some(key.since), used)
    });
    let gone = uses.iter().filter(|((name, key), used)| {
        *name == issuer.name && !issuer.publishes(key) && now.saturating_sub(used.last) < GONE_FOR_S
    });
    let gone = gone.map(|((_, key), used)| {
        let left = if used.left > 0 { used.left } else { now };
        let is_history = now.saturating_sub(left) >= LATELY_S;
        let state = match left.saturating_sub(used.last) < IN_USE_S {
            _ if is_history => KeyState::Gone,
            true => KeyState::GoneInUse,
            false if heard.is_complete_since(left.saturating_sub(IN_USE_S)) => KeyState::Gone,
            false => KeyState::Unknown,
        };
        told(Some(key.clone()).filter(|key| !key.is_empty()), state, None, used)
    });
    let mut keys: Vec<KeyForecast> = present.chain(gone).collect();
    keys.sort_by(|a, b| (a.state, &a.key_id).cmp(&(b.state, &b.key_id)));
    IssuerForecast {
        name: issuer.name.clone(),
        valid_until: issuer.valid_until,
        error: issuer.error.clone(),
        proxies: heard.proxies.all,
        counting: heard.proxies.counting,
        why: heard.why,
        keys,
    }
}

#[cfg(test)]
mod tests;
