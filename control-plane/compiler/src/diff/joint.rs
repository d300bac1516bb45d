//! Two policies with the same positions of issuers, claims and directories, so that their rules can be compared.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_engine::model::{ClaimPath, IssuerModel, PolicyModel};

use crate::moved::{Moved, number};

/// Both policies, with joint issuers and directories.
pub(super) fn models(before: PolicyModel, after: PolicyModel) -> (PolicyModel, PolicyModel) {
    let mut issuers: BTreeMap<String, BTreeSet<ClaimPath>> = BTreeMap::new();
    for issuer in before.issuers.iter().chain(&after.issuers) {
        issuers.entry(issuer.name.clone()).or_default().extend(issuer.slots.iter().cloned());
    }
    let joint: Vec<IssuerModel> = issuers
        .into_iter()
        .map(|(name, slots)| IssuerModel { name, slots: slots.into_iter().collect() })
        .collect();
    let directories: BTreeSet<String> =
        before.directories.iter().chain(&after.directories).cloned().collect();
    let directories: Vec<String> = directories.into_iter().collect();
    (moved(before, &joint, &directories), moved(after, &joint, &directories))
}

fn moved(mut model: PolicyModel, joint: &[IssuerModel], directories: &[String]) -> PolicyModel {
    let moved = Moved {
        issuers: model
            .issuers
            .iter()
            .map(|issuer| {
                let at = joint.iter().position(|known| known.name == issuer.name).unwrap_or(usize::MAX);
                let slots = joint.get(at).map(|known| known.slots.as_slice()).unwrap_or_default();
                let slot = |path: &ClaimPath| number(slots.iter().position(|known| known == path));
                (number(Some(at)), issuer.slots.iter().map(slot).collect())
            })
            .collect(),
        directories: model
            .directories
            .iter()
            .map(|name| number(directories.iter().position(|known| known == name)))
            .collect(),
    };
    for rule in &mut model.rules {
        rule.from.iter_mut().for_each(|from| moved.entry(from));
        rule.to.iter_mut().flatten().for_each(|to| moved.condition(&mut to.condition));
    }
    PolicyModel { issuers: joint.to_vec(), directories: directories.to_vec(), ..model }
}
