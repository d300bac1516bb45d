//! Plugin configurations and modules as an Istio object names them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::Value;
use tidegate::bundle::{hex, sha256};
use tidegate::demo::client::{Call, Endpoint, Protocol};
use tidegate::istio::{
    Address, Attach, IstioVersion, LAST, ModuleDigests, ModuleSource, PluginOptions, Rollout, plugin_objects,
};
use tidegate::serve::Running;
use tidegate_compiler::{Compiled, WorkloadId};

/// The control plane as Istio names it.
pub fn address() -> Address {
    Address { host: "tidegate.tidegate-system.svc.cluster.local".into(), port: 15080 }
}

/// For this Istio; the module is the one that the control plane serves.
pub fn options(server: &Running, istio: IstioVersion) -> Result<PluginOptions> {
    let modules = server.module_addr.context("the control plane serves no module")?;
    let digests = ModuleDigests::of_modules();
    Ok(PluginOptions {
        istio,
        modules: Rollout::only(ModuleSource::served(&format!("http://{modules}"), digests)?),
        control_plane: address(),
        keys: server.trusted_keys.clone(),
        attach: Attach::Dormant,
        without_filter: BTreeSet::new(),
        warm_starts: BTreeMap::new(),
        interlocks: BTreeMap::new(),
        priority: LAST,
        cold_start: None,
        fips: false,
    })
}

/// What the object of a workload says of module and configuration.
pub fn wasm(compiled: &Compiled, options: &PluginOptions, workload: &str) -> Result<Value> {
    let (namespace, name) = workload.split_once('/').context("not `namespace/name`")?;
    let id = WorkloadId { namespace: namespace.to_owned(), name: name.to_owned() };
    let plugins = plugin_objects(compiled, options);
    let object = plugins
        .objects
        .iter()
        .find(|object| object.namespace == id.namespace && object.name == format!("tidegate-{name}"))
        .with_context(|| format!("no object for {workload}: {:?}", plugins.notes))?;
    let spec = object.to_json()["spec"].clone();
    Ok(if object.kind == "TrafficExtension" { spec["wasm"].clone() } else { spec })
}

/// Its configuration as it arrives: through a protobuf `Struct`, where numbers are doubles and members have no order.
pub fn configuration(wasm: &Value) -> Value {
    fn through(value: &Value) -> Value {
        match value {
            Value::Number(number) => number.as_f64().filter(|number| number.fract() == 0.0).map_or_else(
                || value.clone(),
                |number| serde_json::from_str(&format!("{number}")).unwrap_or_default(),
            ),
            Value::Array(items) => items.iter().map(through).collect(),
            Value::Object(members) => {
                members.iter().rev().map(|(name, value)| (name.clone(), through(value))).collect()
            }
            other => other.clone(),
        }
    }
    through(&wasm["pluginConfig"])
}

/// Its module, fetched and checked as Istio's agent does.
pub async fn module(wasm: &Value) -> Result<Vec<u8>> {
    let url = wasm["url"].as_str().context("no url")?;
    let rest = url.strip_prefix("http://").with_context(|| format!("`{url}` is not HTTP"))?;
    let (address, path) = rest.split_at(rest.find('/').context("no path")?);
    let call = Call::new(Method::GET, path);
    let answer = Endpoint::plain(address.parse()?).call(Protocol::Http1, call).await?;
    ensure!(answer.status == 200, "{url}: status {}", answer.status);
    let digest = hex(&sha256(&answer.body));
    ensure!(
        wasm["sha256"] == digest.as_str(),
        "{url} has digest {digest}, and the object says {}",
        wasm["sha256"]
    );
    Ok(answer.body.to_vec())
}
