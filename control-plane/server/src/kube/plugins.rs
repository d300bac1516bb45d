//! Which objects bring filters to workloads, and what filters begin with.
//!
//! Rules decide which objects there are, releases what a new pod begins with, and the Fence which filters set an interlock.
//! While a change is on its way nothing is taken from a filter that it may still need: not its object, not its interlock, not
//! the build of the module that reads bodies.
//!
//! INVARIANT: a warm start is what was signed and is on offer, or was before. One that lets less pass is written at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prost::Message;
use serde_json::Value;
use tidegate_compiler::fence::{Fence, INTERLOCK_HEADER, IstioObject, IstioVersion, object_name};
use tidegate_compiler::{Compiled, WorkloadId, WorkloadPolicy};
use tidegate_identity::IssuerSetSpec;
use tidegate_proto::v1 as pb;

use super::owned::{Desired, EXTENSION, Key, Lives, PLUGIN};
use crate::bundle::{Interlocks, Release, Sha256, TrustedKey, sha256};
use crate::directories::Directories;
use crate::istio::{
    Address, Attach, Change, LAST, PluginOptions, Plugins, Rollout, Terms, Write, change, next_write,
    plugin_objects,
};

/// How filters are brought to workloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginPlan {
    /// Which module, and where it is.
    pub modules: Rollout,
    /// Where filters reach the control plane.
    pub control_plane: Address,
    /// Which workloads get a filter.
    pub attach: Attach,
    /// Signatures are verified by the proxy's cryptography or not at all.
    pub fips: bool,
}

/// Keeps what objects are made with.
pub(crate) struct Attachments {
    options: PluginOptions,
    secrets: Interlocks,
    /// Of the warm starts in `options`, by workload.
    warm: BTreeMap<WorkloadId, Warm>,
    /// What there should be, as it was last.
    last: Desired,
}

/// What is known of a warm start.
struct Warm {
    /// Of its manifest.
    sha256: Sha256,
    /// When it was written, Unix seconds.
    written: i64,
    /// What it says; absent where another process wrote it.
    terms: Option<Terms>,
}

/// Objects, and what there is to say about workloads that have none.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) objects: Desired,
    /// The object of every workload that is to have one.
    pub(crate) keys: BTreeMap<WorkloadId, Key>,
    /// Why a workload can have none.
    pub(crate) refused: BTreeMap<WorkloadId, String>,
    /// Some of it is there only until nothing relies on it any more.
    pub(crate) is_in_between: bool,
}

// === impl Attachments ===

impl Attachments {
    pub(crate) fn new(
        plan: &PluginPlan,
        istio: IstioVersion,
        keys: Vec<TrustedKey>,
        secrets: Interlocks,
    ) -> Self {
        let options = PluginOptions {
            istio,
            modules: plan.modules.clone(),
            control_plane: plan.control_plane.clone(),
            keys,
            attach: plan.attach,
            // Istio refuses no headers that override, and nothing ambiguous: nobody goes without the filter by accident.
            without_filter: BTreeSet::new(),
            warm_starts: BTreeMap::new(),
            interlocks: BTreeMap::new(),
            priority: LAST,
            cold_start: None,
            fips: plan.fips,
        };
        Self { options, secrets, warm: BTreeMap::new(), last: Desired::new() }
    }

    /// Values for the Fence of workloads that can have an object: no others could be told.
    pub(crate) fn secrets(&self, compiled: &Compiled) -> BTreeMap<WorkloadId, String> {
        let known = &self.options;
        let bare = PluginOptions {
            istio: known.istio,
            modules: known.modules.clone(),
            control_plane: known.control_plane.clone(),
            keys: Vec::new(),
            attach: known.attach,
            without_filter: BTreeSet::new(),
            warm_starts: BTreeMap::new(),
            interlocks: BTreeMap::new(),
            priority: known.priority,
            cold_start: known.cold_start,
            fips: known.fips,
        };
        let plugins = plugin_objects(compiled, &bare);
        let keys = keys(compiled, &plugins);
        let value = |id: WorkloadId| {
            let value = self.secrets.value(&id);
            (id, value)
        };
        keys.into_keys().map(value).collect()
    }

    /// Another replica may have written meanwhile: what is there counts again.
    pub(crate) fn forget(&mut self) {
        self.warm.clear();
        self.options.warm_starts.clear();
    }

    /// Takes over what is on offer where it is time to; when to look again, in Unix seconds. `now`: Unix seconds.
    pub(crate) fn warm_up(
        &mut self,
        compiled: &Compiled,
        (releases, directories): (&BTreeMap<String, Arc<Release>>, &Directories),
        live: &Lives,
        now: i64,
    ) -> Option<i64> {
        self.warm.retain(|id, _| compiled.workloads.contains_key(id));
        self.options.warm_starts.retain(|id, _| compiled.workloads.contains_key(id));
        let mut again: Option<i64> = None;
        for (id, policy) in &compiled.workloads {
            if !self.warm.contains_key(id) {
                self.adopt(id, live, now);
            }
            // Of one that is about to come nothing can be said by these rules.
            let release = releases.get(&id.to_string());
            let Some(release) = release.filter(|release| is_of(release, policy)) else { continue };
            let known = self.warm.get(id);
            if known.is_some_and(|known| known.sha256 == *release.sha256()) {
                continue;
            }
            let serialized = release.bundle();
            let terms = terms(&serialized, policy, directories);
            let write = match known {
                None => Write::Now,
                Some(known) => {
                    let before = self.options.warm_starts.get(id).filter(|_| known.terms.is_none());
                    let before =
                        before.and_then(|before| same_rules(before, &serialized, policy, directories));
                    let change = match (before.as_ref().or(known.terms.as_ref()), &terms) {
                        (Some(before), Some(after)) => change(before, after),
                        // What is not known counts as narrower.
                        _ => Change::Narrower,
                    };
                    next_write(Some(known.written), change, now)
                }
            };
            match write {
                Write::Now => {
                    let warm = Warm { sha256: *release.sha256(), written: now, terms };
                    self.warm.insert(id.clone(), warm);
                    self.options.warm_starts.insert(id.clone(), serialized);
                }
                Write::At(time) => again = Some(again.map_or(time, |again| again.min(time))),
            }
        }
        again
    }

    /// Begins with what is in the workload's object, if filters would take it.
    fn adopt(&mut self, id: &WorkloadId, live: &Lives, now: i64) {
        let written = self.live_config(id, live).and_then(|config| config.get("bundle")?.as_str());
        let Some(bundle) = written.and_then(decode_base64) else { return };
        let decoded = pb::Bundle::decode(bundle.as_slice()).ok();
        let Some(signed) = decoded.and_then(|decoded| decoded.manifest) else { return };
        let Ok(manifest) = pb::Manifest::decode(signed.manifest.as_slice()) else { return };
        let is_trusted =
            signed.signatures.iter().any(|by| self.options.keys.iter().any(|key| key.id == by.key_id));
        if is_trusted && manifest.audience == id.to_string() && manifest.not_after > now {
            let warm = Warm { sha256: sha256(&signed.manifest), written: manifest.issued_at, terms: None };
            self.warm.insert(id.clone(), warm);
            self.options.warm_starts.insert(id.clone(), bundle);
        }
    }

    /// What there should be. `fence`: the one that these rules have in the end. `is_steady`: nothing is on its way any
    /// more, and proxies have had the time to learn it.
    pub(crate) fn wanted(
        &mut self,
        compiled: &Compiled,
        fence: &Fence,
        live: &Lives,
        is_steady: bool,
    ) -> Wanted {
        let mut interlocks = crate::istio::interlocks(fence);
        let mut without = BTreeSet::new();
        let demanded = interlocks.len();
        for id in compiled.workloads.keys() {
            let config = self.live_config(id, live);
            if config.is_none() && !self.warm.contains_key(id) {
                // A filter that had nothing to begin with would refuse what passes now.
                without.insert(id.clone());
            }
            if !interlocks.contains_key(id)
                && let Some(value) = config.and_then(|config| config.get("interlock")?.as_str())
                && value == self.secrets.value(id)
                && (!is_steady || is_demanded(id, live))
            {
                interlocks.insert(id.clone(), value.to_owned());
            }
        }
        let is_in_between = !is_steady || interlocks.len() > demanded;
        self.options.interlocks = interlocks;
        self.options.without_filter = without;
        let plugins = plugin_objects(compiled, &self.options);
        let keys = keys(compiled, &plugins);
        let mut objects: BTreeMap<Key, IstioObject> =
            plugins.objects.into_iter().map(|object| (Key::of(&object), object)).collect();
        if !is_steady {
            for (id, key) in &keys {
                let reads_bodies = compiled.workloads.get(id).is_some_and(|policy| policy.reads_bodies);
                if let (false, Some(object)) = (reads_bodies, objects.get_mut(key)) {
                    keep_module(object, key, live);
                }
            }
            let gone = live.iter().filter(|(key, _)| matches!(key.kind, PLUGIN | EXTENSION));
            for (key, there) in gone {
                if there.workload().is_some() && !objects.contains_key(key) {
                    objects.insert(key.clone(), there.to_object(key));
                }
            }
        }
        let refused = plugins.notes.into_iter().filter(|note| note.code.is_refusal());
        let refused = refused.map(|note| (note.workload, note.message)).collect();
        let shared = |(key, object): (Key, IstioObject)| {
            let known = self.last.get(&key).filter(|known| ***known == object);
            let object = known.cloned().unwrap_or_else(|| Arc::new(object));
            (key, object)
        };
        let objects: Desired = objects.into_iter().map(shared).collect();
        self.last.clone_from(&objects);
        Wanted { objects, keys, refused, is_in_between }
    }

    /// The workloads whose filters do not have yet what this Fence will demand.
    pub(crate) fn uninformed(&self, fence: &Fence, live: &Lives) -> BTreeSet<WorkloadId> {
        let knows = |id: &WorkloadId, value: &str| {
            let config = self.live_config(id, live);
            config.and_then(|config| config.get("interlock")?.as_str()) == Some(value)
        };
        let demanded = crate::istio::interlocks(fence).into_iter();
        demanded.filter(|(id, value)| !knows(id, value)).map(|(id, _)| id).collect()
    }

    fn live_config<'l>(&self, id: &WorkloadId, live: &'l Lives) -> Option<&'l Value> {
        let kind = if self.options.istio.minor() >= 30 { EXTENSION } else { PLUGIN };
        let there = live.get(&key(kind, id)).filter(|there| there.is_ours())?;
        module(kind, &there.spec)?.get("pluginConfig")
    }
}

fn key(kind: &'static str, id: &WorkloadId) -> Key {
    Key { kind, namespace: id.namespace.clone(), name: object_name(&id.name, "") }
}

/// Which object is of which workload.
fn keys(compiled: &Compiled, plugins: &Plugins) -> BTreeMap<WorkloadId, Key> {
    let known: BTreeMap<(&str, &str), Key> = plugins
        .objects
        .iter()
        .map(|object| ((object.namespace.as_str(), object.name.as_str()), Key::of(object)))
        .collect();
    let of = |id: &WorkloadId| {
        let name = object_name(&id.name, "");
        let key = known.get(&(id.namespace.as_str(), name.as_str()))?;
        Some((id.clone(), key.clone()))
    };
    compiled.workloads.keys().filter_map(of).collect()
}

/// The part of a spec that is about the module.
fn module<'s>(kind: &str, spec: &'s Value) -> Option<&'s Value> {
    if kind == EXTENSION { spec.get("wasm") } else { Some(spec) }
}

/// Leaves an object with the module that it has.
fn keep_module(object: &mut IstioObject, key: &Key, live: &Lives) {
    let Some(there) = live.get(key).filter(|there| there.is_ours()) else { return };
    let Some(there) = module(key.kind, &there.spec) else { return };
    let wasm = if key.kind == EXTENSION { object.spec.get_mut("wasm") } else { Some(&mut object.spec) };
    let Some(wasm) = wasm.and_then(Value::as_object_mut) else { return };
    for field in ["url", "sha256"] {
        if let Some(value) = there.get(field) {
            wasm.insert(field.to_owned(), value.clone());
        }
    }
}

/// Whether a policy of ours demands the workload's interlock now.
fn is_demanded(id: &WorkloadId, live: &Lives) -> bool {
    let policy = live.get(&key("AuthorizationPolicy", id)).filter(|there| there.is_ours());
    policy.is_some_and(|policy| mentions(&policy.spec, INTERLOCK_HEADER))
}

fn mentions(value: &Value, text: &str) -> bool {
    match value {
        Value::String(value) => value.contains(text),
        Value::Array(items) => items.iter().any(|item| mentions(item, text)),
        Value::Object(members) => members.values().any(|member| mentions(member, text)),
        _ => false,
    }
}

/// Whether a release says what this policy does.
fn is_of(release: &Release, policy: &WorkloadPolicy) -> bool {
    let mut rules = release.sections().iter().filter(|section| section.kind() == pb::SectionKind::Rules);
    let is_guarded = release.manifest().coverage() == pb::Coverage::Guarded;
    is_guarded == policy.covered && rules.any(|section| section.content().as_ref() == policy.rules.as_slice())
}

/// What a Bundle says, where its keys can be read.
fn terms(bundle: &[u8], policy: &WorkloadPolicy, directories: &Directories) -> Option<Terms> {
    let bundle = pb::Bundle::decode(bundle).ok()?;
    let ids = policy.model.directories.iter().filter_map(|name| {
        let listing = directories.listings.get(name)?;
        Some((name.clone(), listing.ids.as_ref().clone()))
    });
    Terms::new(&bundle, policy, ids.collect()).ok()
}

/// What a Bundle of another process says, where it differs from this one in its keys only.
fn same_rules(
    before: &[u8],
    after: &[u8],
    policy: &WorkloadPolicy,
    directories: &Directories,
) -> Option<Terms> {
    let (before, after) = (pb::Bundle::decode(before).ok()?, pb::Bundle::decode(after).ok()?);
    let of = |bundle: &pb::Bundle, kind: pb::SectionKind| {
        bundle.sections.iter().find(|section| section.kind() == kind).map(|section| section.content.clone())
    };
    let same = |kind| of(&before, kind) == of(&after, kind);
    let coverage = |bundle: &pb::Bundle| {
        let manifest = bundle.manifest.as_ref()?.manifest.as_slice();
        pb::Manifest::decode(manifest).ok().map(|manifest| manifest.coverage)
    };
    if !same(pb::SectionKind::Rules)
        || !same(pb::SectionKind::Directory)
        || coverage(&before) != coverage(&after)
    {
        return None;
    }
    let issuers = match of(&before, pb::SectionKind::Keys) {
        Some(keys) => IssuerSetSpec::decode(&keys).ok()?.issuers,
        None => Vec::new(),
    };
    Some(Terms { issuers, ..terms(&after.encode_to_vec(), policy, directories)? })
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests;
