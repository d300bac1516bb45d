//! The Envoy that `tidegate plugin-config --envoy` prints.

use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::Value;
use tidegate::demo::client::{Call, Endpoint, Protocol};
use tidegate::demo::envoy::{Envoy, EnvoyOptions, EnvoyRelease, find_envoy};
use tidegate::plugin_config::{ControlPlane, EnvoyProxy, IDENTITY_FILES, Peers, PluginConfig};
use tidegate_tests::rig::{GATEWAY, Rig, SERVICE, SERVICE_ID};

const HOST: &str = "orders.sales.example";

const RULES: &str = "kind: Guard\nmetadata: {name: sales, namespace: sales}\nspec: {mode: Enforce, audience: a}\n---\nkind: \
    Guard\nmetadata: {name: edge, namespace: ingress}\nspec: {mode: Enforce, audience: a}\n---\nkind: AccessRule\nmetadata: {name: etl, \
    namespace: sales}\nspec: {owner: a, effect: Allow, mode: Enforce, from: [{peer: {namespace: etl, serviceAccounts: [worker]}}], to: \
    [{http: {methods: [GET], paths: [/v1/orders]}}]}\n---\nkind: AccessRule\nmetadata: {name: anyone, namespace: ingress}\nspec: {owner: a, \
    target: {gateway: ingress/dataflow-in}, effect: Allow, mode: Enforce, from: [{anyone: true}], to: [{http: {methods: [GET], paths: \
    [/healthz]}}]}\n";

pub async fn is_one_that_enforces(rig: &Rig, release: EnvoyRelease) -> Result<()> {
    rig.apply(RULES).await?;
    let server = rig.server.as_ref().context("the control plane runs")?;
    let folder = rig.folder().join("identity of the 'proxy'");
    std::fs::create_dir_all(&folder)?;
    let own = rig.mesh.workload(SERVICE_ID)?;
    let texts = [&own.chain_pem, &own.key_pem, rig.mesh.pem()];
    for (file, text) in IDENTITY_FILES.into_iter().zip(texts) {
        std::fs::write(folder.join(file), text)?;
    }
    let upstream = format!("localhost:{}", rig.upstream.address().port());
    let mut proxy = EnvoyProxy {
        module: rig.folder().join("tidegate_filter.wasm"),
        listen: "127.0.0.1:0".parse()?,
        upstream: upstream.parse().map_err(anyhow::Error::msg)?,
        control_plane: server.grpc_addr.to_string().parse().map_err(anyhow::Error::msg)?,
        identity: None,
        control_plane_id: None,
        is_enforced: true,
    };
    let printed = |proxy: &EnvoyProxy, workload: &str, peers| -> Result<Value> {
        let mut config = PluginConfig::new(workload, server.trusted_keys.clone());
        config.peers = peers;
        config.control_plane =
            Some(ControlPlane { cluster: "our-tidegate".into(), authority: "tidegate.svc".into() });
        let yaml = proxy.yaml(&config, "our-tidegate")?;
        serde_saphyr::from_str(&yaml).with_context(|| yaml)
    };
    let binary = find_envoy(release, None).await?;
    let options = EnvoyOptions { concurrency: 1, ..EnvoyOptions::default() };
    let status = async |envoy: &Envoy, to: &Endpoint, path: &str, expected: u16| {
        let call = Call::new(Method::GET, path).authority(HOST);
        let status = to.call(Protocol::Http1, call).await?.status.as_u16();
        ensure!(status == expected, "{path}: {status}, expected {expected}\n{}", envoy.log_tail(20));
        Ok(())
    };

    let envoy = Envoy::start(&binary, "plain", &printed(&proxy, GATEWAY, Peers::None)?, &options).await?;
    let to = Endpoint::plain(envoy.address("inbound")?);
    status(&envoy, &to, "/healthz", 200).await?;
    status(&envoy, &to, "/v1/orders", 403).await?;
    envoy.stop().await;

    proxy.identity = Some(folder);
    let envoy = Envoy::start(&binary, "mutual", &printed(&proxy, SERVICE, Peers::Mesh)?, &options).await?;
    let mesh = |credential: Option<&str>| -> Result<Endpoint> {
        let to = Endpoint::mesh(envoy.address("inbound")?, rig.mesh.pem());
        Ok(match credential {
            Some(id) => to.with_credential(&rig.mesh.workload(id)?),
            None => to,
        })
    };
    status(&envoy, &mesh(Some("spiffe://prod.example/ns/etl/sa/worker"))?, "/v1/orders", 200).await?;
    status(&envoy, &mesh(Some("spiffe://prod.example/ns/etl/sa/other"))?, "/v1/orders", 403).await?;
    let foreign = rig.foreign.workload("spiffe://prod.example/ns/etl/sa/worker")?;
    let strangers =
        [mesh(None)?, Endpoint::mesh(envoy.address("inbound")?, rig.mesh.pem()).with_credential(&foreign)];
    for stranger in strangers {
        let call = Call::new(Method::GET, "/v1/orders").authority(HOST);
        ensure!(
            stranger.call(Protocol::Http1, call).await.is_err(),
            "whoever has no certificate of the mesh got through"
        );
    }
    envoy.stop().await;

    // The control plane over TLS: this one speaks plain text, so nothing is ever enforced, and nothing passes.
    proxy.control_plane_id = Some("spiffe://prod.example/ns/tidegate-system/sa/tidegate".parse()?);
    let envoy = Envoy::start(&binary, "closed", &printed(&proxy, SERVICE, Peers::Mesh)?, &options).await?;
    let to = Endpoint::mesh(envoy.address("inbound")?, rig.mesh.pem())
        .with_credential(&rig.mesh.workload("spiffe://prod.example/ns/etl/sa/worker")?);
    status(&envoy, &to, "/v1/orders", 503).await?;
    envoy.stop().await;
    Ok(())
}
