//! When a workload's warm start is written anew.
//!
//! A warm start lies in an object that istiod sends to every proxy of the workload whenever it changes, and the filters that
//! run have the new rules already. So it may lag behind, but not with what it would still allow: a pod that starts while the
//! control plane is away must not let in what was refused before.
//!
//! INVARIANT: what is not known to be only wider counts as narrower.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_compiler::WorkloadPolicy;
use tidegate_engine::model::{Effect, Mode, PolicyModel, SharedRule};
use tidegate_identity::{InvalidKeys, IssuerSetSpec, IssuerSpec};
use tidegate_proto::v1 as pb;

/// Most bytes of a serialized Bundle in a plugin configuration: 128 KiB of base64. Clients that apply objects keep a second
/// copy in an annotation, and annotations hold 256 KiB (Kubernetes `apimachinery/pkg/api/validation/objectmeta.go`).
pub const WARM_START_BUDGET: usize = 96 * 1024;

/// Seconds from one warm start of a workload to the next, unless it is narrower.
pub const DEBOUNCE_S: i64 = 600;

/// Seconds after which a warm start is written anew although it decides the same: its signature counts for a day and is
/// renewed after half of one, its keys for two days.
pub const RENEW_S: i64 = 6 * 3600;

/// What a Bundle says, as far as it matters whether another one lets less pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Whether the workload is guarded at all.
    pub guarded: bool,
    /// Its rules.
    pub model: PolicyModel,
    /// The issuers whose tokens it knows, with their keys.
    pub issuers: Vec<IssuerSpec>,
    /// What directories list, by name.
    pub directories: BTreeMap<String, BTreeSet<String>>,
}

/// From one Bundle to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Every request is decided as before; only signatures are newer, or keys count longer.
    Same,
    /// What passed before still passes.
    Wider,
    /// Something that passed before is refused, or might be.
    Narrower,
}

/// When to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// Now.
    Now,
    /// At this time, unless something narrower comes before. Unix seconds.
    At(i64),
}

/// When a warm start that differs from the written one is to be written. `written`: when that was, Unix seconds; `None`:
/// there is none yet.
pub fn next_write(written: Option<i64>, change: Change, now: i64) -> Write {
    let pause = match change {
        Change::Narrower => return Write::Now,
        Change::Wider => DEBOUNCE_S,
        Change::Same => RENEW_S,
    };
    match written {
        // A clock that was set back would make it wait for long.
        Some(written) if written <= now && written.saturating_add(pause) > now => {
            Write::At(written.saturating_add(pause))
        }
        _ => Write::Now,
    }
}

/// What changes for requests.
pub fn change(before: &Terms, after: &Terms) -> Change {
    let keep = issuers_keep(&before.issuers, &after.issuers);
    let same = Terms { issuers: after.issuers.clone(), ..before.clone() } == *after;
    if same && keep == Some(Change::Same) {
        return Change::Same;
    }
    let wider = match (before.guarded, after.guarded) {
        (_, false) => true,
        (false, true) => false,
        (true, true) => {
            keep.is_some() && rules_widen(&before.model, &after.model) && directories_widen(before, after)
        }
    };
    if wider { Change::Wider } else { Change::Narrower }
}

/// All but rules is the same, no Allow is gone, and no Deny has come; what is in Shadow decides nothing. What a rule means
/// depends on the order of issuers and directories, so these are compared as they stand.
fn rules_widen(before: &PolicyModel, after: &PolicyModel) -> bool {
    let of = |model: &PolicyModel, effect: Effect| -> BTreeMap<String, SharedRule> {
        let enforced = model.rules.iter().filter(|rule| rule.mode == Mode::Enforce && rule.effect == effect);
        enforced.map(|rule| (rule.id.clone(), rule.clone())).collect()
    };
    let all_in = |some: BTreeMap<String, SharedRule>, others: BTreeMap<String, SharedRule>| {
        some.iter().all(|(id, rule)| others.get(id) == Some(rule))
    };
    before.guards == after.guards
        && before.issuers == after.issuers
        && before.directories == after.directories
        && all_in(of(before, Effect::Allow), of(after, Effect::Allow))
        && all_in(of(after, Effect::Deny), of(before, Effect::Deny))
}

/// `None`: a key is gone, a date has come nearer, or something else differs.
fn issuers_keep(before: &[IssuerSpec], after: &[IssuerSpec]) -> Option<Change> {
    let keeps = |before: &IssuerSpec, after: &IssuerSpec| {
        let alike = IssuerSpec { keys: after.keys.clone(), valid_until: after.valid_until, ..before.clone() };
        alike == *after
            && after.valid_until >= before.valid_until
            && before.keys.iter().all(|key| after.keys.contains(key))
    };
    let pairs = || before.iter().zip(after);
    if before.len() != after.len() || !pairs().all(|(before, after)| keeps(before, after)) {
        return None;
    }
    let same = pairs().all(|(before, after)| before.keys.len() == after.keys.len());
    Some(if same { Change::Same } else { Change::Wider })
}

/// An id that is listed matches an Allow as well as a Deny, so only what only Allows read may grow.
fn directories_widen(before: &Terms, after: &Terms) -> bool {
    let denies = after.model.rules.iter().any(|rule| rule.effect == Effect::Deny);
    let grows = before.directories.iter().all(|(name, ids)| {
        after.directories.get(name).is_some_and(|now| if denies { now == ids } else { now.is_superset(ids) })
    });
    grows && before.directories.len() == after.directories.len()
}

// === impl Terms ===

impl Terms {
    /// Of a workload's Bundle and what it was made of.
    ///
    /// # Errors
    /// When the keys in it cannot be read.
    pub fn new(
        bundle: &pb::Bundle,
        policy: &WorkloadPolicy,
        directories: BTreeMap<String, BTreeSet<String>>,
    ) -> Result<Self, InvalidKeys> {
        let keys = bundle.sections.iter().find(|section| section.kind() == pb::SectionKind::Keys);
        let issuers = match keys {
            Some(section) => IssuerSetSpec::decode(&section.content)?.issuers,
            None => Vec::new(),
        };
        Ok(Self { guarded: policy.covered, model: policy.model.clone(), issuers, directories })
    }
}

#[cfg(test)]
mod tests;
