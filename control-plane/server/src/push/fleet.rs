//! Who enforces what, as the filters themselves say.
//!
//! Pure but for the lock: every change carries its time. Self-reported strings are bounded before they come here.
//!
//! INVARIANT: what is remembered of a workload's filters is bounded whatever they say and however often they come and go, and is
//! never taken from another one's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tidegate_proto::v1 as pb;

use crate::bundle::{Release, Revision, Sha256, hex};

mod proxies;
mod relayed;
mod report;
mod vm;

pub use proxies::{ProxyReport, Standing};
pub(super) use relayed::Mirrored;
pub use report::{CanaryReport, CountersReport, FleetReport, IssuerUseReport, VmReport, WorkloadReport};

/// How long a VM that went away is still shown, in seconds.
const SHOWN_AFTER_DISCONNECT_S: i64 = 600;
/// How many VMs that went away are shown at most, so that nobody fills the memory by coming and going.
const MAX_DISCONNECTED: usize = 10_000;
/// How many of them are one workload's, so that nobody pushes out the others' either.
const MAX_WORKLOAD_DISCONNECTED: usize = 1_000;
/// Most issuers that are taken from one receipt; a keys section has no more.
const MAX_ISSUERS: usize = 64;
/// Bytes of their names that are kept of one VM.
const MAX_ISSUER_BYTES: usize = 4 << 10;
/// How many pairs of workload and issuer are remembered, however long their VMs are gone.
const MAX_USES: usize = 100_000;
/// How many of them are one workload's: more than issuers that come and go, and too few to use up what there is.
const MAX_WORKLOAD_USES: usize = 2 * MAX_ISSUERS;
/// Longest name of an issuer, in bytes (RFC 1123 DNS subdomain).
const MAX_NAME: usize = 253;

/// The index of filter VMs.
#[derive(Debug, Default)]
pub struct Fleet {
    vms: Mutex<Vms>,
    /// When a token of an issuer was last verified, by workload and issuer. Unix seconds.
    last_verified: Mutex<BTreeMap<(String, String), i64>>,
    streams: AtomicU64,
    /// Changes that another replica is to be told.
    telling: relayed::Telling,
}

/// VMs by key, and how many of each workload went away.
#[derive(Debug, Default)]
struct Vms {
    all: BTreeMap<VmKey, Vm>,
    gone: BTreeMap<String, usize>,
}

/// One filter VM. A VM that was reloaded is another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VmKey {
    /// `namespace/name`.
    pub workload: String,
    /// Pod or process name.
    pub instance: String,
    /// Random per VM start.
    pub generation: u64,
}

/// Identifies one stream of a VM, so that the end of an old one does not end a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamId(u64);

#[derive(Debug, Clone)]
struct Vm {
    stream: Option<StreamId>,
    filter_version: String,
    capabilities: Vec<String>,
    state: pb::FilterState,
    enforced: Vec<u8>,
    revision: Option<Revision>,
    refusal: Option<Refusal>,
    seen_at: i64,
    counters: Option<pb::Counters>,
    /// The manifest that it enforced then, and its totals when it said so first.
    counted: (Vec<u8>, pb::Counters),
    issuers: Vec<pb::IssuerUse>,
    /// It was connected to another replica, which was lost sight of.
    is_lost: bool,
}

/// A push that a filter refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// What was refused.
    pub revision: Revision,
    /// Stable word.
    pub reason: String,
    /// What the filter says about it.
    pub detail: String,
    /// Unix seconds.
    pub at: i64,
}

/// What a workload is to enforce.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// SHA-256 of the manifest.
    pub sha256: Sha256,
    /// Its revision.
    pub revision: Revision,
    /// Capabilities that it uses.
    pub uses: Vec<String>,
    /// Until when its Guards only report, in Unix seconds; 0: they refuse.
    pub suspended_until: i64,
    /// What canaries are to enforce instead, and which proxies these are.
    pub canary: Option<(Box<Wanted>, Arc<BTreeSet<String>>)>,
}

/// What changed rules are judged by: a VM of a workload where some proxies have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmSight {
    /// Pod or process name.
    pub instance: String,
    /// Random per VM start.
    pub generation: u64,
    /// Whether a stream is open.
    pub connected: bool,
    /// Unix seconds of its last message.
    pub seen_at: i64,
    /// SHA-256 of the manifest that it enforces; empty: none.
    pub enforced: Vec<u8>,
    /// SHA-256 of the manifest that it enforced when it sent its counts.
    pub counted: Vec<u8>,
    /// The last push, if the filter refused it.
    pub refusal: Option<Refusal>,
    /// Whether it compares rules with a candidate.
    pub compares: bool,
    /// Its counts when it first said that it enforces that.
    pub first: Compared,
    /// Its last counts.
    pub now: Compared,
}

/// How a VM compares rules with a candidate, in totals since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compared {
    /// Requests that were compared.
    pub requests: u64,
    /// Those of them that were refused and that the candidate would have allowed.
    pub would_allow: u64,
}

// === impl Wanted ===

impl Wanted {
    /// What a release says.
    pub fn of(release: &Release) -> Self {
        let manifest = release.manifest();
        Self {
            sha256: *release.sha256(),
            revision: release.revision(),
            uses: manifest.used_capabilities.clone(),
            suspended_until: manifest.suspended_until,
            canary: None,
        }
    }
}

// === impl Fleet ===

impl Fleet {
    /// A VM opened a stream.
    pub fn connect(&self, key: &VmKey, hello: &pb::Hello, now: i64) -> StreamId {
        let stream = self.next_stream();
        let mut vms = self.lock();
        let known =
            vms.all.get(key).map(|vm| (vm.counters, vm.issuers.clone(), vm.revision, vm.enforced.clone()));
        let (counters, issuers, revision, before) = known.unwrap_or_default();
        let vm = Vm {
            stream: Some(stream),
            filter_version: hello.filter_version.clone(),
            capabilities: hello.capabilities.clone(),
            state: pb::FilterState::Unspecified,
            revision: revision.filter(|_| before == hello.enforced_manifest),
            enforced: hello.enforced_manifest.clone(),
            refusal: None,
            seen_at: now,
            counters,
            counted: Default::default(),
            issuers,
            is_lost: false,
        };
        if vms.all.insert(key.clone(), vm).is_some_and(|before| before.stream.is_none()) {
            vms.come_back(&key.workload);
        }
        drop(vms);
        self.telling.note(key);
        stream
    }

    /// A stream of a VM ended.
    pub fn disconnect(&self, key: &VmKey, stream: StreamId, now: i64) {
        let mut vms = self.lock();
        let Some(vm) = vms.all.get_mut(key) else { return };
        vm.seen_at = now;
        if vm.stream == Some(stream) {
            vm.stream = None;
            vms.go(&key.workload);
            drop(vms);
            self.telling.note(key);
        }
    }

    /// A VM says that it enforces this manifest now. `revision` is known when it is one that we pushed.
    pub fn enforces(&self, key: &VmKey, manifest: &[u8], revision: Option<Revision>, now: i64) {
        self.change(key, now, |vm| {
            vm.enforced = manifest.to_vec();
            vm.revision = revision;
            vm.refusal = None;
            vm.state = pb::FilterState::Ready;
        });
    }

    /// A VM refused a push.
    pub fn refused(&self, key: &VmKey, refusal: Refusal) {
        let now = refusal.at;
        self.change(key, now, |vm| vm.refusal = Some(refusal));
    }

    /// A VM states what it enforces.
    pub fn receipt(&self, key: &VmKey, receipt: &pb::Receipt, now: i64) {
        self.change(key, now, |vm| {
            vm.state = receipt.state();
            vm.enforced.clone_from(&receipt.manifest_sha256);
            vm.revision = receipt.revision.map(Revision::from);
            vm.counters = receipt.counters.or(vm.counters);
            if vm.counted.0 != receipt.manifest_sha256 {
                vm.counted = (receipt.manifest_sha256.clone(), vm.counters.unwrap_or_default());
            }
            vm.issuers = kept_issuers(&receipt.issuers);
        });
        self.verified(key, &receipt.issuers, now);
    }

    /// When tokens of these issuers were verified last.
    fn verified(&self, key: &VmKey, issuers: &[pb::IssuerUse], now: i64) {
        let mut last = self.last_verified.lock().unwrap_or_else(PoisonError::into_inner);
        let of_workload = |last: &BTreeMap<(String, String), i64>| {
            let first = (key.workload.clone(), String::new());
            last.range(first..).take_while(|((workload, _), _)| *workload == key.workload).count()
        };
        for issuer in issuers.iter().filter(is_taken).take(MAX_ISSUERS) {
            // The clock is the filter's own.
            let at = issuer.last_verified_at.min(now);
            let pair = (key.workload.clone(), issuer.issuer.clone());
            // One workload that invents names takes no room from the others.
            let has_room = |last: &_| of_workload(last) < MAX_WORKLOAD_USES;
            if at > 0 && (last.contains_key(&pair) || (last.len() < MAX_USES && has_room(&last))) {
                let known = last.entry(pair).or_default();
                *known = at.max(*known);
            }
        }
    }

    /// How much every workload uses the tokens of every issuer.
    pub fn usage(&self) -> Vec<IssuerUseReport> {
        let mut uses = BTreeMap::<(String, String), IssuerUseReport>::new();
        let entry = |(workload, issuer): &(String, String)| IssuerUseReport {
            workload: workload.clone(),
            issuer: issuer.clone(),
            verified: 0,
            refused: 0,
            last_verified_at: None,
        };
        for (key, vm) in &self.lock().all {
            for issuer in &vm.issuers {
                let pair = (key.workload.clone(), issuer.issuer.clone());
                let report = uses.entry(pair.clone()).or_insert_with(|| entry(&pair));
                report.verified = report.verified.saturating_add(issuer.verified);
                report.refused = report.refused.saturating_add(issuer.refused);
            }
        }
        for (pair, at) in self.last_verified.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            uses.entry(pair.clone()).or_insert_with(|| entry(pair)).last_verified_at = Some(*at);
        }
        uses.into_values().collect()
    }

    /// Forgets VMs that went away long ago, and the oldest when there are too many.
    pub fn prune(&self, now: i64) {
        let mut vms = self.lock();
        vms.all
            .retain(|_, vm| vm.stream.is_some() || now.saturating_sub(vm.seen_at) < SHOWN_AFTER_DISCONNECT_S);
        let gone = vms.all.iter().filter(|(_, vm)| vm.stream.is_none());
        let mut gone: Vec<(i64, VmKey)> = gone.map(|(key, vm)| (vm.seen_at, key.clone())).collect();
        if let Some(excess) = gone.len().checked_sub(MAX_DISCONNECTED) {
            gone.sort_unstable();
            for (_, key) in gone.drain(..excess) {
                vms.all.remove(&key);
            }
        }
        vms.gone.clear();
        for (_, key) in gone {
            *vms.gone.entry(key.workload).or_default() += 1;
        }
    }

    /// The index, compared with what each workload is to enforce. `now`: Unix seconds.
    pub fn report(&self, wanted: impl IntoIterator<Item = (String, Wanted)>, now: i64) -> FleetReport {
        let wanted: BTreeMap<String, Wanted> = wanted.into_iter().collect();
        let workloads = wanted.iter().map(|(workload, wanted)| {
            let canary = wanted.canary.as_ref().map(|(canary, instances)| CanaryReport {
                manifest: hex(&canary.sha256),
                revision: canary.revision,
                instances: BTreeSet::clone(instances),
            });
            let report = WorkloadReport {
                manifest: Some(hex(&wanted.sha256)),
                revision: Some(wanted.revision),
                uses: wanted.uses.clone(),
                suspended_until: Some(wanted.suspended_until).filter(|until| *until > now),
                canary,
                ..Default::default()
            };
            (workload.clone(), report)
        });
        let mut report = FleetReport { workloads: workloads.collect() };
        for (key, vm) in &self.lock().all {
            let workload = report.workloads.entry(key.workload.clone()).or_default();
            workload.lost +=
                usize::from(vm.is_lost && now.saturating_sub(vm.seen_at) <= proxies::GONE_AFTER_S);
            let wanted = wanted.get(&key.workload).map(|wanted| match &wanted.canary {
                Some((canary, instances)) if instances.contains(&key.instance) => canary,
                _ => wanted,
            });
            let vm = vm.report(key, wanted);
            workload.connected += usize::from(vm.connected);
            workload.enforcing += usize::from(vm.connected && vm.up_to_date);
            workload.lacking += usize::from(vm.connected && !vm.lacks.is_empty());
            workload.vms.push(vm);
        }
        for workload in report.workloads.values_mut() {
            workload.proxies = proxies::proxies(workload, now);
        }
        report
    }

    /// The VMs of a workload, also those that went away lately.
    pub fn sight(&self, workload: &str) -> Vec<VmSight> {
        let first = VmKey { workload: workload.to_owned(), instance: String::new(), generation: 0 };
        let vms = self.lock();
        let own = vms.all.range(first..).take_while(|(key, _)| key.workload == workload);
        own.map(|(key, vm)| vm.sight(key)).collect()
    }

    fn next_stream(&self) -> StreamId {
        StreamId(self.streams.fetch_add(1, Ordering::Relaxed))
    }

    fn change(&self, key: &VmKey, now: i64, change: impl FnOnce(&mut Vm)) {
        if let Some(vm) = self.lock().all.get_mut(key) {
            vm.seen_at = now;
            change(vm);
        }
        self.telling.note(key);
    }

    fn lock(&self) -> MutexGuard<'_, Vms> {
        self.vms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The issuers that are taken from one receipt.
fn kept_issuers(told: &[pb::IssuerUse]) -> Vec<pb::IssuerUse> {
    let mut left = MAX_ISSUER_BYTES;
    let fits = |issuer: &&pb::IssuerUse| {
        let rest = left.checked_sub(issuer.issuer.len());
        left = rest.unwrap_or(0);
        rest.is_some()
    };
    told.iter().filter(is_taken).take(MAX_ISSUERS).take_while(fits).cloned().collect()
}

fn is_taken(issuer: &&pb::IssuerUse) -> bool {
    issuer.issuer.len() <= MAX_NAME && !issuer.issuer.chars().any(char::is_control)
}

// === impl Vms ===

impl Vms {
    /// A VM of this workload went away. When too many have, the older half of them is forgotten: half, so that it is not
    /// counted through for each.
    fn go(&mut self, workload: &str) {
        let count = self.gone.entry(workload.to_owned()).or_default();
        *count += 1;
        if *count <= MAX_WORKLOAD_DISCONNECTED {
            return;
        }
        let first = VmKey { workload: workload.to_owned(), instance: String::new(), generation: 0 };
        let own = self.all.range(first..).take_while(|(key, _)| key.workload == workload);
        let gone = own.filter(|(_, vm)| vm.stream.is_none());
        let mut gone: Vec<(i64, VmKey)> = gone.map(|(key, vm)| (vm.seen_at, key.clone())).collect();
        gone.sort_unstable();
        let excess = gone.len().saturating_sub(MAX_WORKLOAD_DISCONNECTED / 2);
        for (_, key) in gone.drain(..excess) {
            self.all.remove(&key);
        }
        *count = gone.len();
    }

    /// One that had gone away is there again.
    fn come_back(&mut self, workload: &str) {
        if let Some(count) = self.gone.get_mut(workload) {
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests;
