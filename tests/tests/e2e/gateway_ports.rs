//! A connection that has no port: what a waypoint opens inside of itself. Where a Guard names ports, the filter refuses what it
//! cannot tell the port of; to Istio's policies it is at none of the Guard's ports, and so unguarded.

use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::{Value, json};
use tidegate::demo::client::{Call, Endpoint, Protocol};
use tidegate::demo::envoy::{Envoy, EnvoyOptions, EnvoyRelease, find_envoy};
use tidegate::demo::mesh::{Cluster, HttpListener, Listener, Node, ProxyConfig, WasmFilter};
use tidegate::plugin_config::{Peers, PluginConfig};
use tidegate_compiler::fence::{Aliases, FenceOptions, Surroundings, fence_in};
use tidegate_tests::rbac;
use tidegate_tests::rig::{GATEWAY, Rig};

use super::fence::{free_ports, id};

const HOST: &str = "orders.sales.example";

/// Everybody may GET one path of the gateway, at these ports.
fn rules(ports: &[u16]) -> String {
    format!(
        "kind: Guard\nmetadata: {{name: ports, namespace: ingress}}\nspec: {{mode: Enforce, ports: {ports:?}, audience: a}}\n---\nkind: \
         AccessRule\nmetadata: {{name: anyone, namespace: ingress}}\nspec: {{owner: a, target: {{gateway: {GATEWAY}}}, effect: Allow, mode: \
         Enforce, from: [{{anyone: true}}], to: [{{http: {{methods: [GET], paths: [/healthz]}}}}]}}\n"
    )
}

/// The listener inside of the proxy instead, and one before it that leads there.
fn inside(listener: &Value, cluster: &str) -> [Value; 2] {
    let mut inner = listener.clone();
    let name = format!("inner-{cluster}");
    inner["name"] = name.as_str().into();
    inner["internal_listener"] = json!({});
    if let Some(members) = inner.as_object_mut() {
        members.remove("address");
    }
    let mut outer = listener.clone();
    outer["filter_chains"] = json!([{"filters": [{
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "tunnel",
            "cluster": name,
        },
    }]}]);
    if let Some(members) = outer.as_object_mut() {
        members.remove("listener_filters");
    }
    [inner, outer]
}

pub async fn what_has_no_port_is_the_filters_to_refuse(rig: &Rig, release: EnvoyRelease) -> Result<()> {
    let ports = free_ports(2)?;
    let rules = rules(&ports);
    rig.apply(&rules).await?;
    let around = Surroundings { aliases: Aliases::Absent, ..Surroundings::default() };
    let made = fence_in(&rig.compiled(&rules)?, &FenceOptions::default(), &around);
    let made = made.workloads.get(&id(GATEWAY)?).context("the gateway has a Fence")?;
    ensure!(made.needs_filter, "the Fence alone is not what the rules say: {:?}", made.notes);
    let policies: Vec<Value> = made.objects.iter().map(|object| object.to_json()).collect();

    let server = rig.server.as_ref().context("the control plane runs")?;
    let bundle = server.bundle(GATEWAY).context("the gateway has a Bundle")?;
    let mut plugin = PluginConfig::new(GATEWAY, server.trusted_keys.clone()).with_bundle(&bundle);
    plugin.peers = Peers::None;
    let module = rig.folder().join("tidegate_filter.wasm");
    let filter = WasmFilter::tidegate(&module, &serde_json::to_value(plugin)?);
    let mut fenced = HttpListener::forward_to("upstream");
    for filter in rbac::filters(&policies)? {
        fenced = fenced.filter(filter);
    }
    let config = ProxyConfig::new(Node::new("ingress", "dataflow-in", "dataflow-in"))
        .cluster(Cluster::new("upstream", rig.upstream.address()))
        .listener(Listener::http("fence", fenced))
        .listener(Listener::http("filter", HttpListener::forward_to("upstream").filter(filter)));
    let mut json = config.to_json();
    let listeners = json["static_resources"]["listeners"].as_array_mut().context("listeners")?;
    let mut more = Vec::new();
    for (listener, port) in listeners.iter_mut().zip(&ports) {
        let name = listener["name"].as_str().unwrap_or_default().to_owned();
        let [inner, mut outer] = inside(listener, &name);
        outer["name"] = format!("{name}-inside").into();
        more.extend([inner, outer]);
        listener["address"]["socket_address"]["port_value"] = (*port).into();
    }
    listeners.extend(more);
    let clusters = json["static_resources"]["clusters"].as_array_mut().context("clusters")?;
    for name in ["inner-fence", "inner-filter"] {
        clusters.push(json!({
            "name": name,
            "type": "STATIC",
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {
                "address": {"envoy_internal_address": {"server_listener_name": name}},
            }}]}]},
        }));
    }
    json["bootstrap_extensions"] = json!([{
        "name": "envoy.bootstrap.internal_listener",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
        },
    }]);
    let options = EnvoyOptions { concurrency: 1, ..EnvoyOptions::default() };
    let envoy = Envoy::start(&find_envoy(release, None).await?, "ports", &json, &options).await?;
    for (listener, path, expected) in [
        // At a port of the Guard both say the same.
        ("fence", "/healthz", 200),
        ("filter", "/healthz", 200),
        ("fence", "/v1/orders", 403),
        ("filter", "/v1/orders", 403),
        // Inside only the filter refuses.
        ("fence-inside", "/v1/orders", 200),
        ("filter-inside", "/v1/orders", 503),
        ("filter-inside", "/healthz", 503),
    ] {
        let call = Call::new(Method::GET, path).authority(HOST);
        let status =
            Endpoint::plain(envoy.address(listener)?).call(Protocol::Http1, call).await?.status.as_u16();
        ensure!(
            status == expected,
            "{listener} {path}: {status}, expected {expected}\n{}",
            envoy.log_tail(20)
        );
    }
    Ok(())
}
