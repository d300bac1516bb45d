//! What was seen of the proxies of a workload while some of them try changed rules.
//!
//! Filters tell totals since they started, with every receipt; the first one after they enforce the changed rules is where it
//! begins to count. All of it is the filters' own word.

use std::collections::{BTreeMap, BTreeSet};

use crate::bundle::Sha256;
use crate::push::{Compared, VmSight};

/// VMs of a proxy that start within so many seconds of each other are one start: there is one per worker.
const AT_ONCE_S: i64 = 10;

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// What each VM had compared when it was counted last.
    counted: BTreeMap<(String, u64), Compared>,
    /// The VMs of every proxy.
    known: BTreeMap<String, BTreeSet<u64>>,
    /// When a filter of the proxy started anew last. Unix seconds.
    restarted: BTreeMap<String, i64>,
    /// How often filters of canaries started anew, and those of others.
    pub(super) restarts: (u32, u32),
    /// Whether the proxies were looked at before.
    is_begun: bool,
    /// Whether it began while proxies were there: nobody has to come back before one of them is chosen.
    pub(super) is_settled: bool,
    /// For how long there has been no proxy, in milliseconds. Not kept: after a start proxies have as long again to come back.
    pub(super) absent_ms: u64,
}

/// What came since the last look.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct More {
    pub(super) requests: u64,
    pub(super) new_refusals: u64,
}

// === impl Tally ===

impl Tally {
    /// Nothing was seen yet.
    pub(super) fn new(is_settled: bool) -> Self {
        Self { is_settled, ..Self::default() }
    }

    /// Takes what the proxies are now. `tried`: the manifest of the changed rules. `now`: Unix seconds.
    pub(super) fn look(
        &mut self,
        vms: &[VmSight],
        canaries: &BTreeSet<String>,
        tried: &Sha256,
        now: i64,
    ) -> More {
        let mut more = More::default();
        for vm in vms.iter().filter(|vm| vm.counted == tried && canaries.contains(&vm.instance)) {
            let before =
                self.counted.insert((vm.instance.clone(), vm.generation), vm.now).unwrap_or(vm.first);
            let requests = vm.now.requests.saturating_sub(before.requests);
            let refusals = vm.now.would_allow.saturating_sub(before.would_allow);
            more.requests = more.requests.saturating_add(requests);
            more.new_refusals = more.new_refusals.saturating_add(refusals);
        }
        // Who comes and goes again and again is not remembered for longer than the fleet does.
        let vm = |one: &VmSight| (one.instance.clone(), one.generation);
        let there: BTreeSet<(String, u64)> = vms.iter().map(vm).collect();
        self.counted.retain(|vm, _| there.contains(vm));
        self.count_restarts(vms, canaries, now);
        self.is_begun = true;
        more
    }

    /// A VM that comes where another one went is a filter that started anew.
    fn count_restarts(&mut self, vms: &[VmSight], canaries: &BTreeSet<String>, now: i64) {
        let mut proxies = BTreeMap::<&str, Vec<&VmSight>>::new();
        for vm in vms {
            proxies.entry(&vm.instance).or_default().push(vm);
        }
        self.known.retain(|name, _| proxies.contains_key(name.as_str()));
        self.restarted.retain(|name, _| proxies.contains_key(name.as_str()));
        for (name, vms) in proxies {
            let is_new = !self.known.contains_key(name);
            let known = self.known.entry(name.to_owned()).or_default();
            let is_gone = vms.iter().any(|vm| !vm.connected && known.contains(&vm.generation));
            let newcomers = vms.iter().filter(|vm| vm.connected && !known.contains(&vm.generation)).count();
            *known = vms.iter().map(|vm| vm.generation).collect();
            if is_new || newcomers == 0 || !is_gone || !self.is_begun {
                continue;
            }
            let last = self.restarted.insert(name.to_owned(), now);
            if last.is_some_and(|last| now.saturating_sub(last) < AT_ONCE_S) {
                continue;
            }
            let (of_canaries, of_others) = &mut self.restarts;
            let count = if canaries.contains(name) { of_canaries } else { of_others };
            *count = count.saturating_add(1);
        }
    }
}
