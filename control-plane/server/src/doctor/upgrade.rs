//! What an upgrade of Istio changes for the objects that rules become.

use std::collections::BTreeMap;

use tidegate_compiler::Compiled;
use tidegate_compiler::fence::{FenceOptions, fence};

use super::{Code, Finding};
use crate::istio::{
    Address, Attach, InvalidSource, IstioObject, IstioVersion, LAST, ModuleDigests, ModuleSource,
    PluginOptions, Plugins, Rollout, plugin_objects,
};

/// How many objects are named.
const NAMED: usize = 3;

/// Compares the objects for two versions, and says which workloads have none in the later one.
///
/// # Errors
/// Never, as the digests are those of this binary.
pub fn upgrade(
    compiled: &Compiled,
    from: IstioVersion,
    to: IstioVersion,
) -> Result<Vec<Finding>, InvalidSource> {
    let (before, after) = (objects(compiled, from)?, objects(compiled, to)?);
    let source = format!("Istio {from} to {to}");
    let mut findings = compare(&before.objects, &after.objects, &source);
    for note in after.notes.iter().filter(|note| note.code.is_refusal() && !before.notes.contains(note)) {
        let (workload, message) = (note.workload.to_string(), note.message.clone());
        findings.push(Finding::new(Code::UpgradeLeavesUnguarded, &source, workload, "", message));
    }
    Ok(findings)
}

/// Of what is in one namespace under one name: what becomes of it.
pub(super) fn compare(before: &[IstioObject], after: &[IstioObject], source: &str) -> Vec<Finding> {
    let name = |object: &IstioObject| format!("{}/{}", object.namespace, object.name);
    let mut later: BTreeMap<String, Vec<&IstioObject>> = BTreeMap::new();
    for object in after {
        later.entry(name(object)).or_default().push(object);
    }
    let mut kinds: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    let (mut changed, mut gone) = (Vec::new(), Vec::new());
    for object in before {
        let then = later.get(&name(object)).map_or(&[][..], Vec::as_slice);
        match then.iter().find(|then| then.kind == object.kind) {
            Some(then) if **then == *object => {}
            Some(_) => changed.push(format!("{} {}", object.kind, name(object))),
            // Others of that name are of another group: a policy is not what becomes of a plugin.
            None => match then.iter().find(|then| then.api_version == object.api_version) {
                Some(then) => kinds.entry((object.kind, then.kind)).or_default().push(name(object)),
                None => gone.push(format!("{} {}", object.kind, name(object))),
            },
        }
    }
    let mut findings = Vec::new();
    let mut say = |code, message| findings.push(Finding::new(code, source, String::new(), "", message));
    for ((was, is), objects) in kinds {
        say(Code::UpgradeChangesKind, format!("{was} becomes {is}: {}", some(&objects)));
    }
    if !changed.is_empty() {
        say(Code::UpgradeChangesObject, format!("not as before: {}", some(&changed)));
    }
    if !gone.is_empty() {
        say(Code::UpgradeChangesObject, format!("no longer there: {}", some(&gone)));
    }
    findings
}

fn some(objects: &[String]) -> String {
    let shown: Vec<&str> = objects.iter().take(NAMED).map(String::as_str).collect();
    let more = objects.len().saturating_sub(NAMED);
    let shown = shown.join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// Everything that is written for these rules.
fn objects(compiled: &Compiled, istio: IstioVersion) -> Result<Plugins, InvalidSource> {
    let fence = fence(compiled, &FenceOptions { istio, ..FenceOptions::default() });
    let digests = ModuleDigests::of_modules();
    // Where modules and control plane are is the same in all versions.
    let options = PluginOptions {
        istio,
        modules: Rollout::only(ModuleSource::served("http://tidegate.tidegate-system:15082", digests)?),
        control_plane: Address { host: "tidegate.tidegate-system.svc.cluster.local".to_owned(), port: 15080 },
        keys: Vec::new(),
        attach: Attach::Guarded,
        without_filter: Default::default(),
        warm_starts: BTreeMap::new(),
        interlocks: BTreeMap::new(),
        priority: LAST,
        cold_start: None,
        fips: false,
    };
    let mut plugins = plugin_objects(compiled, &options);
    let policies = fence.workloads.values().flat_map(|fence| &fence.objects);
    plugins.objects.extend(policies.map(|object| IstioObject::clone(object)));
    Ok(plugins)
}
