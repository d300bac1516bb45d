//! One object.

use serde_json::{Map, Value, json};
use tidegate_compiler::fence::IstioVersion;
use tidegate_compiler::{LabelIndex, Mesh, WorkloadId, WorkloadPolicy};

use super::warm::WARM_START_BUDGET;
use super::{IstioObject, NoteCode, Place, PluginOptions};
use crate::plugin_config::{ControlPlane, Peers, PluginConfig};

/// Of both kinds.
const API: &str = "extensions.istio.io/v1alpha1";

type Said = (NoteCode, String);

/// The object of a workload, and what there is to say about it.
pub(super) fn object(
    id: &WorkloadId,
    policy: &WorkloadPolicy,
    (mesh, index): (&Mesh, &LabelIndex<'_>),
    options: &PluginOptions,
) -> Result<(IstioObject, Vec<Said>), Said> {
    let Some(workload) = mesh.workloads.get(id) else {
        return Err((NoteCode::NotSelectable, format!("`{id}` is not in the mesh")));
    };
    if options.control_plane.is_too_long() {
        let host = &options.control_plane.host;
        return Err((
            NoteCode::AddressTooLong,
            format!("the filter cannot be told to connect to `{host}`; use a Service with a shorter name"),
        ));
    }
    let mut notes = Vec::new();
    let place = Place::of(workload);
    let mut spec = place.reach(id, workload, (mesh, index))?;
    let peers = place.peers(workload);
    if peers == Peers::None {
        notes.push((
            NoteCode::NoPeers,
            format!(
                "at the gateway `{id}` no caller is a peer, so rules with peers never match there; if all its listeners \
                 accept certificates of the mesh's authority only, label its pods `{}: mesh`",
                super::PEERS_LABEL
            ),
        ));
    }
    let config = config(id, peers, options, &mut notes);
    spec.insert("phase".to_owned(), json!("AUTHZ"));
    spec.insert("priority".to_owned(), json!(options.priority));
    let wasm = wasm(id, policy, &config, options);
    let is_extension = has_traffic_extension(options.istio);
    if is_extension {
        spec.insert("wasm".to_owned(), Value::Object(wasm));
    } else {
        spec.extend(wasm);
    }
    let kind = if is_extension { "TrafficExtension" } else { "WasmPlugin" };
    let object = IstioObject::new(API, kind, id, ("plugin", ""), Value::Object(spec));
    Ok((object, notes))
}

/// Whether there are TrafficExtensions. Until then there are only WasmPlugins.
fn has_traffic_extension(istio: IstioVersion) -> bool {
    istio.minor() >= 30
}

/// What both kinds say of the module.
fn wasm(
    id: &WorkloadId,
    policy: &WorkloadPolicy,
    config: &PluginConfig,
    options: &PluginOptions,
) -> Map<String, Value> {
    let source = options.modules.of(id);
    let (url, sha256) = source.module(policy.reads_bodies);
    let mut wasm = Map::new();
    let mut say = |name: &str, value: Value| wasm.insert(name.to_owned(), value);
    say("url", json!(url));
    say("sha256", json!(sha256));
    // A digest never means something else.
    say("imagePullPolicy", json!("IfNotPresent"));
    if let Some(secret) = source.pull_secret() {
        say("imagePullSecret", json!(secret));
    }
    say("type", json!("HTTP"));
    // Every version that is known replaces a VM that failed; until then it is closed.
    say("failStrategy", json!("FAIL_RELOAD"));
    say("pluginName", json!("tidegate"));
    // A structure of texts, numbers and booleans is always JSON.
    say("pluginConfig", serde_json::to_value(config).unwrap_or_default());
    wasm
}

fn config(id: &WorkloadId, peers: Peers, options: &PluginOptions, notes: &mut Vec<Said>) -> PluginConfig {
    let mut config = PluginConfig::new(id.to_string(), options.keys.clone());
    config.peers = peers;
    config.fips = options.fips;
    config.cold_start = options.cold_start;
    config.interlock = options.interlocks.get(id).cloned();
    config.control_plane = Some(ControlPlane {
        cluster: options.control_plane.cluster(),
        authority: options.control_plane.host.clone(),
    });
    match options.warm_starts.get(id) {
        None => {}
        Some(bundle) if bundle.len() <= WARM_START_BUDGET => config = config.with_bundle(bundle),
        Some(bundle) => notes.push((
            NoteCode::WarmStartTooLarge,
            format!(
                "the Bundle of `{id}` has {} KiB, and a plugin configuration carries {} KiB at most: new pods begin with what \
                 the control plane sends, and refuse requests until then",
                bundle.len().div_ceil(1024),
                WARM_START_BUDGET / 1024
            ),
        )),
    }
    config
}
