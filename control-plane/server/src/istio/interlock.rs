//! Which filters are told an interlock.
//!
//! A plugin's configuration can be read by whoever may read the object, or the proxy's `config_dump`: a value that no policy
//! demands is told nobody.
//!
//! INVARIANT: whatever value a Fence demands, the filter of its workload has been told. Which workloads these are follows
//! from the rules alone, not from the version of Istio, the mesh's paths, or whether Istio verifies tokens as well.

use std::collections::BTreeMap;

use tidegate_compiler::fence::{Fence, FenceOptions, fence};
use tidegate_compiler::{Compiled, WorkloadId};

use crate::bundle::Interlocks;

/// The value of every workload, for [`FenceOptions::interlock_secrets`]: the Fence takes those that it needs.
pub fn interlock_secrets(compiled: &Compiled, secret: &Interlocks) -> BTreeMap<WorkloadId, String> {
    compiled.workloads.keys().map(|id| (id.clone(), secret.value(id))).collect()
}

/// The values that a Fence demands, for [`super::PluginOptions::interlocks`].
///
/// Filters have to be told before the Fence is applied, and as long as it is: on the way from one Fence to the next, tell
/// what either demands.
pub fn interlocks(fence: &Fence) -> BTreeMap<WorkloadId, String> {
    let demanded = fence.workloads.iter();
    demanded.filter_map(|(id, fence)| Some((id.clone(), fence.interlock.as_ref()?.value.clone()))).collect()
}

/// The same without a Fence at hand: whatever the Fence of these rules is made for, it demands these values.
pub fn interlocks_of(compiled: &Compiled, secret: &Interlocks) -> BTreeMap<WorkloadId, String> {
    let interlock_secrets = interlock_secrets(compiled, secret);
    interlocks(&fence(compiled, &FenceOptions { interlock_secrets, ..FenceOptions::default() }))
}
