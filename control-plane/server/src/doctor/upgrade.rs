//! What an upgrade of Istio changes for the objects that rules become.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_compiler::Compiled;

use super::{Code, Finding};
use crate::istio::{
    Address, Attach, InvalidSource, IstioObject, IstioVersion, LAST, ModuleDigests, ModuleSource, NoteCode,
    PluginOptions, Rollout, plugin_objects,
};

/// How many objects are named.
const NAMED: usize = 3;

/// Compares the objects for two versions, and says which workloads have none in the later one.
///
/// # Errors
/// Never; the type says that modules are named as they must be.
pub fn upgrade(
    compiled: &Compiled,
    from: IstioVersion,
    to: IstioVersion,
) -> Result<Vec<Finding>, InvalidSource> {
    let (before, after) =
        (plugin_objects(compiled, &options(from)?), plugin_objects(compiled, &options(to)?));
    let source = format!("Istio {from} to {to}");
    let mut findings = Vec::new();
    let name = |object: &IstioObject| (object.namespace.clone(), object.name.clone());
    let later: BTreeMap<_, _> = after.objects.iter().map(|object| (name(object), object)).collect();
    let mut kinds: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for object in &before.objects {
        let Some(then) = later.get(&name(object)) else { continue };
        if object.kind != then.kind {
            let named = format!("{}/{}", object.namespace, object.name);
            kinds.entry((object.kind, then.kind)).or_default().push(named);
        }
    }
    for ((was, is), objects) in kinds {
        let message = format!("{} of kind {was} become {is}: {}", count(objects.len()), some(&objects));
        findings.push(Finding::new(Code::UpgradeChangesKind, &source, String::new(), "", message));
    }
    let refused = |note: &&crate::istio::Note| note.code.is_refusal();
    let told: BTreeSet<_> =
        before.notes.iter().filter(refused).map(|note| (&note.workload, note.code)).collect();
    for note in after.notes.iter().filter(refused) {
        if !told.contains(&(&note.workload, note.code)) && note.code != NoteCode::AddressTooLong {
            findings.push(Finding::new(
                Code::NoProxy,
                &source,
                note.workload.to_string(),
                "",
                note.message.clone(),
            ));
        }
    }
    Ok(findings)
}

fn count(objects: usize) -> String {
    if objects == 1 { "1 object".to_owned() } else { format!("{objects} objects") }
}

fn some(objects: &[String]) -> String {
    let shown: Vec<&str> = objects.iter().take(NAMED).map(String::as_str).collect();
    let more = objects.len().saturating_sub(NAMED);
    let shown = shown.join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// Where modules and control plane are is the same in all versions.
fn options(istio: IstioVersion) -> Result<PluginOptions, InvalidSource> {
    let digests = ModuleDigests {
        headers: crate::FILTER_SHA256.to_owned(),
        bodies: crate::FILTER_BODIES_SHA256.to_owned(),
    };
    Ok(PluginOptions {
        istio,
        modules: Rollout::only(ModuleSource::served("http://tidegate.tidegate-system:15082", digests)?),
        control_plane: Address { host: "tidegate.tidegate-system.svc.cluster.local".to_owned(), port: 15080 },
        keys: Vec::new(),
        attach: Attach::Guarded,
        without_filter: BTreeSet::new(),
        warm_starts: BTreeMap::new(),
        priority: LAST,
        cold_start: None,
        fips: false,
    })
}
