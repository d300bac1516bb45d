//! VMs that are connected to another replica: what it tells of them, and what it is told of.
//!
//! INVARIANT: of two replicas that both say that a VM is connected to them, the one that heard of it last is believed. What a
//! replica tells counts until its stream ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use tidegate_proto::v1 as pb;
use tokio::sync::Notify;

use super::{Fleet, MAX_NAME, Refusal, StreamId, Vm, VmKey, kept_issuers};
use crate::bundle::Revision;

/// Most VMs that are taken from one replica.
const MAX_MIRRORED: usize = 65_536;
/// Longest name of a workload: a DNS label, a slash and a DNS subdomain (RFC 1123).
const MAX_WORKLOAD: usize = 63 + 1 + MAX_NAME;
/// Longest word and text that are taken.
const MAX_WORD: usize = 64;
const MAX_TEXT: usize = 2 << 10;
/// Most capabilities that are taken.
const MAX_CAPABILITIES: usize = 16;

/// VMs that another replica is to be told of.
#[derive(Debug, Default)]
pub(super) struct Telling {
    /// `None`: nobody is to be told.
    untold: Mutex<Option<BTreeSet<VmKey>>>,
    changed: Notify,
}

/// VMs that one other replica tells of: the number of their stream there, and the one that it has here.
#[derive(Debug, Default)]
pub(in crate::push) struct Mirrored {
    streams: BTreeMap<VmKey, (u64, StreamId)>,
}

// === impl Telling ===

impl Telling {
    pub(super) fn note(&self, key: &VmKey) {
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(untold) = untold.as_mut() {
            untold.insert(key.clone());
            self.changed.notify_one();
        }
    }
}

// === impl Fleet ===

impl Fleet {
    /// Somebody is to be told of everything that is connected, and of what changes from now on.
    pub(in crate::push) fn begin_telling(&self) {
        let mut untold = self.telling.untold.lock().unwrap_or_else(PoisonError::into_inner);
        *untold = Some(BTreeSet::new());
        drop(untold);
        let connected: BTreeSet<VmKey> = {
            let vms = self.lock();
            vms.all.iter().filter(|(_, vm)| vm.stream.is_some()).map(|(key, _)| key.clone()).collect()
        };
        let mut untold = self.telling.untold.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(untold) = untold.as_mut() {
            untold.extend(connected);
        }
        self.telling.changed.notify_one();
    }

    /// Nobody is to be told any more.
    pub(in crate::push) fn end_telling(&self) {
        *self.telling.untold.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// At most so many that were not told yet; waits for the first. `now`: Unix seconds.
    pub(in crate::push) async fn untold(&self, most: usize, now: impl Fn() -> i64) -> Vec<pb::FilterReport> {
        loop {
            let keys: Vec<VmKey> = {
                let mut untold = self.telling.untold.lock().unwrap_or_else(PoisonError::into_inner);
                let taken = |untold: &mut BTreeSet<VmKey>| {
                    std::iter::from_fn(|| untold.pop_first()).take(most).collect()
                };
                untold.as_mut().map(taken).unwrap_or_default()
            };
            if !keys.is_empty() {
                let vms = self.lock();
                return keys.iter().map(|key| told(key, vms.all.get(key), now())).collect();
            }
            self.telling.changed.notified().await;
        }
    }

    /// A VM at another replica is so. `known`: its stream, if it was told of before. Returns its stream if that replica is
    /// believed.
    fn mirror(&self, key: &VmKey, known: Option<StreamId>, mut vm: Vm) -> Option<StreamId> {
        let mut vms = self.lock();
        let before = vms.all.get(key);
        let stream = match (known, before.and_then(|before| before.stream)) {
            (Some(known), Some(current)) if known == current => known,
            // It has gone elsewhere since.
            (Some(_), _) => return None,
            // In the same second the new stream is the later one, as a rule.
            (None, Some(_)) if before.is_some_and(|before| before.seen_at > vm.seen_at) => return None,
            (None, _) => self.next_stream(),
        };
        vm.stream = Some(stream);
        let was_gone = before.is_some_and(|before| before.stream.is_none());
        if was_gone {
            vms.come_back(&key.workload);
        }
        vms.all.insert(key.clone(), vm);
        Some(stream)
    }

    /// The replica that it is connected to was lost sight of.
    fn lose(&self, key: &VmKey, stream: StreamId, now: i64) {
        let mut vms = self.lock();
        let Some(vm) = vms.all.get_mut(key).filter(|vm| vm.stream == Some(stream)) else { return };
        vm.seen_at = now;
        vm.stream = None;
        vm.is_lost = true;
        vms.go(&key.workload);
    }
}

// === impl Mirrored ===

impl Mirrored {
    /// Takes what the replica tells, but of no more VMs than any replica has. False: it is nothing that a replica tells. `now`: Unix seconds.
    pub(in crate::push) fn take(&mut self, fleet: &Fleet, report: pb::FilterReport, now: i64) -> bool {
        let vm = report.vm.clone().unwrap_or_default();
        let key =
            VmKey { workload: report.workload.clone(), instance: vm.instance, generation: vm.generation };
        if report.gone {
            if let Some((_, stream)) = self.streams.remove(&key) {
                fleet.disconnect(&key, stream, now);
            }
            return true;
        }
        if !is_bounded(&key, &report) {
            return false;
        }
        let known =
            self.streams.get(&key).filter(|(there, _)| *there == report.stream).map(|(_, here)| *here);
        if known.is_none() && self.streams.len() >= MAX_MIRRORED {
            // It counts as not connected.
            return true;
        }
        let (there, issuers) = (report.stream, report.issuers.clone());
        match fleet.mirror(&key, known, heard(report, now)) {
            Some(here) => {
                self.streams.insert(key.clone(), (there, here));
                fleet.verified(&key, &issuers, now);
            }
            None => {
                self.streams.remove(&key);
            }
        }
        true
    }

    /// Nothing more is heard of the replica.
    pub(in crate::push) fn lose(&mut self, fleet: &Fleet, now: i64) {
        for (key, (_, stream)) in std::mem::take(&mut self.streams) {
            fleet.lose(&key, stream, now);
        }
    }
}

/// What there is to tell of a VM.
fn told(key: &VmKey, vm: Option<&Vm>, now: i64) -> pb::FilterReport {
    let id = pb::VmId { instance: key.instance.clone(), generation: key.generation };
    let report =
        pb::FilterReport { workload: key.workload.clone(), vm: Some(id), ..pb::FilterReport::default() };
    let Some((vm, StreamId(stream))) = vm.and_then(|vm| Some((vm, vm.stream?))) else {
        return pb::FilterReport { gone: true, ..report };
    };
    let ago = |at: i64| u64::try_from(now.saturating_sub(at)).unwrap_or(0);
    pb::FilterReport {
        stream,
        heard_s_ago: ago(vm.seen_at),
        filter_version: vm.filter_version.clone(),
        capabilities: vm.capabilities.clone(),
        state: vm.state.into(),
        enforced_manifest: vm.enforced.clone(),
        revision: vm.revision.map(Into::into),
        refusal: vm.refusal.as_ref().map(|refusal| pb::RelayedRefusal {
            revision: Some(refusal.revision.into()),
            reason: refusal.reason.clone(),
            detail: refusal.detail.clone(),
            s_ago: ago(refusal.at),
        }),
        counters: vm.counters,
        issuers: vm.issuers.clone(),
        ..report
    }
}

/// What was told of a VM.
fn heard(report: pb::FilterReport, now: i64) -> Vm {
    let at = |ago: u64| now.saturating_sub(i64::try_from(ago).unwrap_or(i64::MAX));
    let refusal = |told: pb::RelayedRefusal| Refusal {
        revision: told.revision.map(Revision::from).unwrap_or(Revision { epoch: 0, counter: 0 }),
        reason: told.reason,
        detail: told.detail,
        at: at(told.s_ago),
    };
    Vm {
        stream: None,
        state: report.state(),
        filter_version: report.filter_version,
        capabilities: report.capabilities,
        enforced: report.enforced_manifest,
        revision: report.revision.map(Revision::from),
        refusal: report.refusal.map(refusal),
        seen_at: at(report.heard_s_ago),
        counters: report.counters,
        counted: Default::default(),
        issuers: kept_issuers(&report.issuers),
        is_lost: false,
    }
}

/// Whether it is no more than what a replica takes from filters.
fn is_bounded(key: &VmKey, report: &pb::FilterReport) -> bool {
    let is_word = |word: &String| word.len() <= MAX_WORD && !word.chars().any(char::is_control);
    let is_text = |text: &String| text.len() <= MAX_TEXT && !text.chars().any(char::is_control);
    !key.workload.is_empty()
        && key.workload.len() <= MAX_WORKLOAD
        && !key.workload.chars().any(char::is_control)
        && key.instance.len() <= MAX_NAME
        && !key.instance.chars().any(char::is_control)
        && is_word(&report.filter_version)
        && report.capabilities.len() <= MAX_CAPABILITIES
        && report.capabilities.iter().all(is_word)
        && matches!(report.enforced_manifest.len(), 0 | 32)
        && report.refusal.iter().all(|refusal| is_word(&refusal.reason) && is_text(&refusal.detail))
}

#[cfg(test)]
mod tests {
    use super::super::{Standing, Wanted};
    use super::*;

    const REVISION: Revision = Revision { epoch: 1, counter: 7 };

    fn key(generation: u64) -> VmKey {
        VmKey { workload: "a/a".into(), instance: "pod-1".into(), generation }
    }

    fn hello() -> pb::Hello {
        pb::Hello { filter_version: "1.2".into(), ..pb::Hello::default() }
    }

    fn counts(fleet: &Fleet, now: i64) -> (usize, usize, usize) {
        let wanted = Wanted {
            sha256: [9; 32],
            revision: REVISION,
            uses: Vec::new(),
            suspended_until: 0,
            canary: None,
        };
        let report = fleet.report([("a/a".to_owned(), wanted)], now).workloads.remove("a/a").unwrap();
        (report.connected, report.enforcing, report.lost)
    }

    /// Tells one fleet what there is to tell of another.
    async fn tell(here: &Fleet, there: &Fleet, mirrored: &mut Mirrored, now: i64) {
        for report in here.untold(64, || now).await {
            assert!(mirrored.take(there, report, now));
        }
    }

    #[tokio::test]
    async fn a_vm_elsewhere_is_as_it_is_there_and_unknown_when_its_replica_is_lost() {
        let (here, there, mut mirrored) = (Fleet::default(), Fleet::default(), Mirrored::default());
        here.connect(&key(1), &hello(), 10);
        here.begin_telling();
        let stream = here.connect(&key(2), &hello(), 10);
        tell(&here, &there, &mut mirrored, 12).await;
        assert_eq!(counts(&there, 12), (2, 0, 0));
        let receipt = pb::Receipt {
            manifest_sha256: vec![9; 32],
            revision: Some(REVISION.into()),
            counters: Some(pb::Counters { allowed: 5, ..Default::default() }),
            issuers: vec![pb::IssuerUse {
                issuer: "gitlab".into(),
                last_verified_at: 12,
                ..Default::default()
            }],
            ..Default::default()
        };
        here.receipt(&key(1), &receipt, 13);
        let refusal = Refusal { revision: REVISION, reason: "expired".into(), detail: "late".into(), at: 13 };
        here.refused(&key(2), refusal.clone());
        tell(&here, &there, &mut mirrored, 15).await;
        assert_eq!(counts(&there, 15), (2, 1, 0));
        let same = |fleet: &Fleet| {
            let wanted = Wanted {
                sha256: [9; 32],
                revision: REVISION,
                uses: Vec::new(),
                suspended_until: 0,
                canary: None,
            };
            (fleet.report([("a/a".to_owned(), wanted)], 15), fleet.usage())
        };
        assert_eq!(same(&here), same(&there), "the leader sees what the replica sees");
        here.disconnect(&key(2), stream, 16);
        tell(&here, &there, &mut mirrored, 16).await;
        assert_eq!(counts(&there, 16), (1, 1, 0));
        mirrored.lose(&there, 20);
        assert_eq!(counts(&there, 20), (0, 0, 1), "it may enforce what it did, and nobody knows");
        let report = there.report([], 20).workloads.remove("a/a").unwrap();
        assert_eq!(report.proxies[0].standing, Standing::Silent);
        assert_eq!(counts(&there, 81), (0, 0, 0));
    }

    #[tokio::test]
    async fn whoever_heard_of_a_vm_last_is_believed() {
        let (here, there, mut mirrored) = (Fleet::default(), Fleet::default(), Mirrored::default());
        here.connect(&key(1), &hello(), 10);
        here.begin_telling();
        // It came to the leader since, and the replica has not noticed that it went.
        let own = there.connect(&key(1), &hello(), 11);
        there.enforces(&key(1), &[9; 32], Some(REVISION), 11);
        tell(&here, &there, &mut mirrored, 12).await;
        assert_eq!(counts(&there, 12), (1, 1, 0));
        // It is back at the replica.
        here.receipt(&key(1), &pb::Receipt::default(), 20);
        tell(&here, &there, &mut mirrored, 20).await;
        assert_eq!(counts(&there, 20), (1, 0, 0));
        there.disconnect(&key(1), own, 21);
        assert_eq!(counts(&there, 21).0, 1, "that was an old stream");
        // And gone to the leader again: what the replica says of the old stream changes nothing.
        there.connect(&key(1), &hello(), 22);
        here.receipt(&key(1), &pb::Receipt { manifest_sha256: vec![9; 32], ..Default::default() }, 21);
        tell(&here, &there, &mut mirrored, 23).await;
        assert_eq!(counts(&there, 23), (1, 0, 0));
        mirrored.lose(&there, 24);
        assert_eq!(counts(&there, 24), (1, 0, 0));
    }

    #[test]
    fn what_no_replica_tells_is_refused() {
        let (fleet, mut mirrored) = (Fleet::default(), Mirrored::default());
        let vm = Some(pb::VmId { instance: "pod-1".into(), generation: 1 });
        let good = pb::FilterReport { workload: "a/a".into(), vm, ..Default::default() };
        assert!(mirrored.take(&fleet, good.clone(), 10));
        let refused = |change: &dyn Fn(&mut pb::FilterReport)| {
            let mut report = good.clone();
            change(&mut report);
            assert!(!Mirrored::default().take(&fleet, report.clone(), 10), "{report:?}");
        };
        refused(&|report| report.workload = String::new());
        refused(&|report| report.workload = "a".repeat(400));
        refused(&|report| report.enforced_manifest = vec![1; 31]);
        refused(&|report| report.filter_version = "a\nb".into());
        refused(&|report| report.capabilities = vec!["a".into(); 17]);
        refused(&|report| report.vm = Some(pb::VmId { instance: "a".repeat(254), generation: 1 }));
        refused(&|report| {
            report.refusal = Some(pb::RelayedRefusal { detail: "a".repeat(3_000), ..Default::default() });
        });
        assert_eq!(counts(&fleet, 10).0, 1);
    }
}
