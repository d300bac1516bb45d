//! Filters that are configured as the workload's WasmPlugin or TrafficExtension says, with the module that it names.

use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::json;
use tidegate::demo::client::{Call, Endpoint, Protocol};
use tidegate::demo::envoy::{Envoy, EnvoyOptions, EnvoyRelease, find_envoy};
use tidegate::demo::mesh::{
    Cluster, DownstreamTls, HttpFilter, HttpListener, Listener, Node, ProxyConfig, WasmFilter,
};
use tidegate::istio::IstioVersion;
use tidegate_compiler::{Inputs, SourceFile, WorkloadId};
use tidegate_tests::corpus::spiffe_id;
use tidegate_tests::objects;
use tidegate_tests::rig::{Configured, Rig, SERVICE, SERVICE_ID, Setup};

fn version(text: &str) -> Result<IstioVersion> {
    Ok(text.parse()?)
}

async fn rig(istio: &str) -> Result<Rig> {
    let setup =
        Setup { configured: Configured::ByObject(version(istio)?), ..Setup::new(EnvoyRelease::Current, 1) };
    Rig::start(setup).await
}

/// Both kinds, the whole corpus each.
pub async fn the_corpus_passes_by_objects() -> Result<()> {
    for istio in ["1.29", "1.31"] {
        let rig = rig(istio).await?;
        println!("as objects of Istio {istio} say:");
        crate::corpus(&rig).await?;
        ensure!(rig.stat("wasm.*vm_reload").await? == 0, "a VM failed");
    }
    Ok(())
}

/// `GET /v1/orders` as this workload of the mesh, by status.
async fn get(endpoint: &Endpoint) -> Result<u16> {
    let call = Call::new(Method::GET, "/v1/orders").authority("orders.sales.example");
    Ok(endpoint.call(Protocol::Http2, call).await?.status.as_u16())
}

/// The control plane is gone when the pod starts, and the first request is decided all the same.
pub async fn a_pod_begins_with_the_warm_start() -> Result<()> {
    let mut rig = rig("1.31").await?;
    rig.apply(&crate::rules("GET")).await?;
    let server = rig.server.as_ref().context("the control plane runs")?;
    let mut options = objects::options(server, version("1.31")?)?;
    let id = WorkloadId { namespace: "sales".into(), name: "orders-api".into() };
    options.warm_starts = [(id, server.bundle(SERVICE).context("there is a Bundle")?)].into();
    let compiled = rig.compiled(&crate::rules("GET"))?;
    let wasm = objects::wasm(&compiled, &options, SERVICE)?;
    let file = rig.folder().join("warm.wasm");
    std::fs::write(&file, objects::module(&wasm).await?)?;
    let configuration = objects::configuration(&wasm);
    ensure!(configuration["bundle"].is_string(), "there is no warm start: {configuration}");
    let nowhere = server.grpc_addr;
    rig.stop_server().await?;

    let tls = DownstreamTls::Mutual {
        credential: rig.mesh.workload(SERVICE_ID)?,
        authorities: vec![rig.mesh.pem().to_owned()],
        required: true,
    };
    let http = HttpListener::forward_to("upstream").filter(WasmFilter::tidegate(&file, &configuration));
    let config = ProxyConfig::new(Node::new("sales", "orders-api", "orders-api"))
        .listener(Listener::http("service", http).tls(tls))
        .cluster(Cluster::new("upstream", rig.upstream.address()))
        .cluster(Cluster::new(&objects::address().cluster(), nowhere));
    let binary = find_envoy(EnvoyRelease::Current, None).await?;
    let envoy = Envoy::start(&binary, "warm", &config.to_json(), &EnvoyOptions::default()).await?;
    let endpoint = Endpoint::mesh(envoy.address("service")?, rig.mesh.pem());
    for (peer, expected) in [("ops/admin", 200), ("etl/orders-worker", 403)] {
        let status = get(&endpoint.clone().with_credential(&rig.mesh.workload(&spiffe_id(peer))?)).await?;
        ensure!(status == expected, "{peer}: status {status}, expected {expected}\n{}", envoy.log_tail(20));
    }
    Ok(())
}

/// A waypoint's inner listener has no certificate: the peer is in the filter state, which no request can write.
pub async fn a_waypoint_knows_who_opened_the_tunnel() -> Result<()> {
    let rig = rig("1.31").await?;
    let text = crate::rules("GET");
    rig.apply(&text).await?;
    let server = rig.server.as_ref().context("the control plane runs")?;
    let sources = [SourceFile {
        path: "mesh.yaml".into(),
        text: "kind: Mesh\nmetadata: {name: m}\nspec: {trustDomain: prod.example, rootNamespace: istio-system, workloads: [{namespace: \
               sales, name: orders-api, labels: {gateway.networking.k8s.io/gateway-name: w, \
               gateway.networking.k8s.io/gateway-class-name: istio-waypoint}}]}\n"
            .into(),
    }];
    let inputs = Inputs { sources: &sources, env: Default::default(), now: None };
    let waypoint = tidegate_compiler::compile(&inputs).output.context("the mesh compiles")?;
    let wasm = objects::wasm(&waypoint, &objects::options(server, version("1.31")?)?, SERVICE)?;
    let configuration = objects::configuration(&wasm);
    ensure!(configuration["peers"] == "waypoint", "{configuration}");
    let file = rig.folder().join("waypoint.wasm");
    std::fs::write(&file, objects::module(&wasm).await?)?;
    // What Istio does where the tunnel ends, from the verified certificate.
    let tunnel = HttpFilter::Other(json!({
        "name": "envoy.filters.http.set_filter_state",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config",
            "on_request_headers": [{
                "object_key": "io.istio.peer_principal",
                "factory_key": "envoy.hashable_string",
                "format_string": {"text_format_source": {"inline_string": "%REQ(tunnel)%"}},
                "skip_if_empty": true,
            }],
        },
    }));
    let http = HttpListener::forward_to("upstream")
        .filter(tunnel)
        .filter(WasmFilter::tidegate(&file, &configuration));
    let config = ProxyConfig::new(Node::new("sales", "orders-api", "orders-api"))
        .listener(Listener::http("waypoint", http))
        .cluster(Cluster::new("upstream", rig.upstream.address()))
        .cluster(
            Cluster::new(&objects::address().cluster(), server.grpc_addr)
                .protocol(tidegate::demo::mesh::UpstreamProtocol::Http2),
        );
    let binary = find_envoy(EnvoyRelease::Current, None).await?;
    let envoy = Envoy::start(&binary, "waypoint", &config.to_json(), &EnvoyOptions::default()).await?;
    let endpoint = Endpoint::plain(envoy.address("waypoint")?);
    let other = "spiffe://other.example/ns/ops/sa/admin";
    for (peer, expected) in [
        (spiffe_id("ops/admin").as_str(), 200),
        (&spiffe_id("etl/orders-worker"), 403),
        (other, 403),
        ("", 403),
    ] {
        let mut call = Call::new(Method::GET, "/v1/orders").authority("orders.sales.example");
        if !peer.is_empty() {
            call = call.header("tunnel", peer);
        }
        // The application's own header of that name is no tunnel.
        call = call.header("io.istio.peer_principal", spiffe_id("ops/admin"));
        let status = endpoint.call(Protocol::Http1, call).await?.status.as_u16();
        ensure!(status == expected, "{peer:?}: status {status}, expected {expected}\n{}", envoy.log_tail(20));
    }
    Ok(())
}
