//! The Fence in a real Envoy: the policies as RBAC filters, alone and behind the filter, as Istio orders them.

use std::collections::BTreeMap;
use std::net::TcpListener;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tidegate::demo::client::{Call, Endpoint, Protocol};
use tidegate::demo::envoy::{Envoy, EnvoyOptions, EnvoyRelease, find_envoy};
use tidegate::demo::mesh::{
    Cluster, DownstreamTls, HttpListener, Listener, Node, Normalization, ProxyConfig, WasmFilter,
};
use tidegate::plugin_config::{Peers, PluginConfig};
use tidegate_compiler::fence::{
    Fence, FenceOptions, Normalization as OfMesh, Step, Surroundings, fence_in, transition,
};
use tidegate_compiler::{Compiled, WorkloadId};
use tidegate_tests::corpus::{Case, Expected, Place, Suite, spiffe_id};
use tidegate_tests::rbac;
use tidegate_tests::rig::{GATEWAY, Rig, SERVICE, SERVICE_ID};

use super::fence_scene::{Sent, by_chance, rules};
use crate::istio;

const HOST: &str = "orders.sales.example";

/// What stands in front of the application.
struct Chain<'c> {
    name: String,
    place: Place,
    /// What the filter enforces; `None`: it is missing.
    bundle: Option<&'c [u8]>,
    /// What Istio enforces.
    policies: &'c [Value],
}

/// How many requests the filter refuses, and how many of them the Fence refuses alone.
#[derive(Debug, Clone, Copy, Default)]
struct Tightness {
    allowed: usize,
    refused: usize,
    alone: usize,
}

fn at_service<'c>(name: &str, bundle: Option<&'c [u8]>, policies: &'c [Value]) -> Chain<'c> {
    Chain { name: name.to_owned(), place: Place::Service, bundle, policies }
}

// === impl Tightness ===

impl Tightness {
    fn count(&mut self, filter: u16, fence: u16) {
        if filter == 200 {
            self.allowed += 1;
        } else {
            self.refused += 1;
            self.alone += usize::from(fence == 403);
        }
    }

    fn print(&self, what: &str) {
        let Self { allowed, refused, alone } = *self;
        let share = (alone * 100).checked_div(refused).unwrap_or(100);
        println!(
            "{what}: {allowed} allowed, {refused} refused; the Fence alone refuses {alone} of them ({share} %)"
        );
    }
}

pub fn id(text: &str) -> Result<WorkloadId> {
    let (namespace, name) = text.split_once('/').context("namespace/name")?;
    Ok(WorkloadId { namespace: namespace.to_owned(), name: name.to_owned() })
}

fn objects(fence: &Fence, workload: &str) -> Result<Vec<Value>> {
    let made = fence.workloads.get(&id(workload)?).with_context(|| format!("no Fence for {workload}"))?;
    Ok(made.objects.iter().map(|object| object.to_json()).collect())
}

fn made(compiled: &Compiled, normalization: Normalization) -> Fence {
    let normalization = match normalization {
        Normalization::Base => OfMesh::Base,
        Normalization::Off => OfMesh::Off,
    };
    fence_in(compiled, &FenceOptions::default(), &Surroundings { normalization, ..Surroundings::default() })
}

/// Ports that nobody uses: rules name them before anything listens there.
pub fn free_ports(count: usize) -> Result<Vec<u16>> {
    let held = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<Vec<_>>>()?;
    Ok(held
        .iter()
        .map(|held| held.local_addr().map(|address| address.port()))
        .collect::<std::io::Result<_>>()?)
}

/// An Envoy with these chains.
async fn start(
    rig: &Rig,
    chains: &[Chain<'_>],
    normalization: Normalization,
    ports: &[u16],
) -> Result<Envoy> {
    let server = rig.server.as_ref().context("the control plane runs")?;
    let mut config = ProxyConfig::new(Node::new("sales", "orders-api", "orders-api"))
        .cluster(Cluster::new("upstream", rig.upstream.address()));
    for chain in chains {
        let (workload, peers) = match chain.place {
            Place::Service => (SERVICE, Peers::Mesh),
            Place::Gateway => (GATEWAY, Peers::None),
        };
        let mut http = HttpListener::forward_to("upstream").normalization(normalization);
        if let Some(bundle) = chain.bundle {
            let mut plugin = PluginConfig::new(workload, server.trusted_keys.clone()).with_bundle(bundle);
            plugin.peers = peers;
            let module = rig.folder().join("tidegate_filter.wasm");
            http = http.filter(WasmFilter::tidegate(&module, &serde_json::to_value(plugin)?));
        }
        for filter in rbac::filters(chain.policies)? {
            http = http.filter(filter);
        }
        let tls = match chain.place {
            Place::Service => DownstreamTls::Mutual {
                credential: rig.mesh.workload(SERVICE_ID)?,
                authorities: vec![rig.mesh.pem().to_owned()],
                required: true,
            },
            Place::Gateway => DownstreamTls::Server(rig.mesh.loopback_server(&[HOST])?),
        };
        config = config.listener(Listener::http(&chain.name, http).tls(tls));
    }
    let mut json = config.to_json();
    for (listener, port) in
        json["static_resources"]["listeners"].as_array_mut().into_iter().flatten().zip(ports)
    {
        listener["address"]["socket_address"]["port_value"] = (*port).into();
    }
    let binary = find_envoy(EnvoyRelease::Current, None).await?;
    let options = EnvoyOptions { concurrency: 1, ..EnvoyOptions::default() };
    Ok(Envoy::start(&binary, "fence", &json, &options).await?)
}

fn endpoint(rig: &Rig, envoy: &Envoy, chain: &str, peer: Option<&str>) -> Result<Endpoint> {
    let address = envoy.address(chain)?;
    Ok(match peer {
        Some(peer) => {
            Endpoint::mesh(address, rig.mesh.pem()).with_credential(&rig.mesh.workload(&spiffe_id(peer))?)
        }
        None => Endpoint::tls(address, rig.mesh.pem(), HOST),
    })
}

/// What a workload's filter gets.
fn bundle(rig: &Rig, workload: &str) -> Result<Vec<u8>> {
    let server = rig.server.as_ref().context("the control plane runs")?;
    server.bundle(workload).with_context(|| format!("no Bundle for {workload}"))
}

/// Every case of a suite at the filter, at the Fence alone, and at both.
pub async fn corpus(rig: &Rig, name: &str, suite: &Suite) -> Result<()> {
    rig.apply(&suite.rules).await?;
    let compiled = rig.compiled(&suite.rules)?;
    let bundles = [bundle(rig, SERVICE)?, bundle(rig, GATEWAY)?];
    for normalization in [Normalization::Base, Normalization::Off] {
        let fence = made(&compiled, normalization);
        let policies = [objects(&fence, SERVICE)?, objects(&fence, GATEWAY)?];
        let envoy = start(rig, &chains(&bundles, &policies), normalization, &[]).await?;
        let mut tallies =
            BTreeMap::from([("service", Tightness::default()), ("gateway", Tightness::default())]);
        for case in suite.cases.iter().filter(|case| case.expect != Expected::Handshake) {
            let place = if case.at == Place::Service { "service" } else { "gateway" };
            let peer = case.peer.as_deref().filter(|_| case.at == Place::Service);
            let [filter, fence, both] = statuses(rig, &envoy, place, peer, case).await?;
            ensure!(
                filter != 200 || fence == 200,
                "{}: the filter allows it, the Fence does not ({fence})",
                case.name
            );
            ensure!(
                (both == 200) == (filter == 200),
                "{}: {filter} at the filter, {both} behind both",
                case.name
            );
            if let Some(tally) = tallies.get_mut(place) {
                tally.count(filter, fence);
            }
        }
        for (place, tally) in tallies.into_iter().filter(|(_, tally)| tally.allowed + tally.refused > 0) {
            tally.print(&format!("{name}, {place}, paths {normalization:?}"));
        }
    }
    Ok(())
}

fn chains<'c>(bundles: &'c [Vec<u8>; 2], policies: &'c [Vec<Value>; 2]) -> Vec<Chain<'c>> {
    let places = [("service", Place::Service), ("gateway", Place::Gateway)];
    let mut chains = Vec::new();
    for ((name, place), (bundle, policies)) in places.into_iter().zip(bundles.iter().zip(policies)) {
        let chain =
            |kind: &str, bundle, policies| Chain { name: format!("{name}-{kind}"), place, bundle, policies };
        chains.push(chain("filter", Some(bundle.as_slice()), &[]));
        chains.push(chain("fence", None, policies.as_slice()));
        chains.push(chain("both", Some(bundle.as_slice()), policies));
    }
    chains
}

/// At the filter, at the Fence, and at both. The filter's own refusals are all the same here.
async fn statuses(
    rig: &Rig,
    envoy: &Envoy,
    place: &str,
    peer: Option<&str>,
    case: &Case,
) -> Result<[u16; 3]> {
    let tokens = case.tokens.iter().map(|token| token.mint(rig)).collect::<Result<Vec<_>>>()?;
    let mut statuses = [0; 3];
    for (status, kind) in statuses.iter_mut().zip(["filter", "fence", "both"]) {
        let (protocol, call) = case.call(&tokens)?;
        let answer = endpoint(rig, envoy, &format!("{place}-{kind}"), peer)?.call(protocol, call).await?;
        *status = answer.status.as_u16();
        // Refusals of gRPC calls are answers: "200 + grpc-status".
        if answer.grpc_status().is_some_and(|status| status != 0) {
            *status = 403;
        }
        ensure!([200, 401, 403].contains(status), "{}: status {status} at {kind}", case.name);
    }
    Ok(statuses)
}

/// The status of every request at a chain.
async fn answers(rig: &Rig, envoy: &Envoy, chain: &str, all: &[Sent]) -> Result<Vec<u16>> {
    let mut statuses = Vec::new();
    for of_peer in all.chunk_by(|a, b| a.peer == b.peer) {
        let mut connection =
            endpoint(rig, envoy, chain, Some(of_peer[0].peer))?.connect(Protocol::Http2).await?;
        for sent in of_peer {
            let mut call = Call::new(sent.method.parse()?, sent.path).authority(sent.host);
            for (name, value) in sent.headers {
                call = call.header(name, value.as_bytes());
            }
            statuses.push(connection.call(call).await?.status.as_u16());
        }
    }
    Ok(statuses)
}

/// Requests by chance: at the filter, at the Fence alone, at both, and as the other interpreter reads the policies.
pub async fn requests_by_chance(rig: &Rig) -> Result<()> {
    let all = by_chance(900);
    let labels = BTreeMap::from([("app".to_owned(), "orders-api".to_owned())]);
    for normalization in [Normalization::Base, Normalization::Off] {
        let ports = free_ports(3)?;
        let rules = rules(&ports, "GET");
        rig.apply(&rules).await?;
        let bundle = bundle(rig, SERVICE)?;
        let policies = objects(&made(&rig.compiled(&rules)?, normalization), SERVICE)?;
        ensure!(policies.len() == 2, "an ALLOW and a DENY");
        let chains = [
            at_service("filter", Some(bundle.as_slice()), &[]),
            at_service("fence", None, policies.as_slice()),
            at_service("both", Some(bundle.as_slice()), policies.as_slice()),
        ];
        let envoy = start(rig, &chains, normalization, &ports).await?;
        let filter = answers(rig, &envoy, "filter", &all).await?;
        let fence = answers(rig, &envoy, "fence", &all).await?;
        let both = answers(rig, &envoy, "both", &all).await?;
        let mut tally = Tightness::default();
        for (sent, ((filter, fence), both)) in all.iter().zip(filter.into_iter().zip(fence).zip(both)) {
            tally.count(filter, fence);
            ensure!(
                filter != 200 || fence == 200,
                "the filter allows it, the Fence says {fence}: {sent:?}\n{policies:#?}"
            );
            ensure!((both == 200) == (filter == 200), "{filter} at the filter, {both} behind both: {sent:?}");
            // What Envoy makes of a path before filters see it is not the interpreter's business.
            if normalization == Normalization::Off || !sent.path.contains(['%', '.']) {
                let seen = istio::Seen {
                    port: envoy.address("fence")?.port(),
                    principal: Some(spiffe_id(sent.peer)),
                    http: Some(istio::Http {
                        method: sent.method.to_owned(),
                        authority: sent.host.to_owned(),
                        path: sent.path.to_owned(),
                        headers: sent
                            .headers
                            .iter()
                            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
                            .collect(),
                        claims: None,
                    }),
                };
                let read = istio::allows(&policies, &labels, &seen);
                ensure!(
                    read == (fence == 200),
                    "read as {read}, Envoy says {fence}: {sent:?}\n{policies:#?}"
                );
            }
        }
        ensure!(tally.allowed > 40 && tally.alone > 200, "{tally:?}");
        tally.print(&format!("by chance, paths {normalization:?}"));
    }
    Ok(())
}

/// From one state to the next, through whatever stands in between: what a filter of either state allows, the Fence lets pass.
pub async fn no_order_of_updates_refuses_what_is_allowed(rig: &Rig) -> Result<()> {
    let all = by_chance(400);
    let ports = free_ports(3)?;
    let narrow = rules(&ports, "GET");
    let wide = rules(&ports, "GET, POST, DELETE");
    // Without the Denies, and the other way round.
    let undenied =
        narrow.replace("effect: Deny", "effect: Allow").replace("{anyone: true}", "{peer: {namespace: bi}}");
    let mut states = Vec::new();
    for rules in [&narrow, &wide, &undenied] {
        rig.apply(rules).await?;
        states.push((bundle(rig, SERVICE)?, made(&rig.compiled(rules)?, Normalization::Base)));
    }
    let filters: Vec<Chain<'_>> = states
        .iter()
        .zip(["narrow", "wide", "undenied"])
        .map(|((bundle, _), name)| at_service(name, Some(bundle.as_slice()), &[]))
        .collect();
    let envoy = start(rig, &filters, Normalization::Base, &ports).await?;
    let mut allowed = Vec::new();
    for name in ["narrow", "wide", "undenied"] {
        allowed.push(answers(rig, &envoy, name, &all).await?);
    }
    drop(envoy);
    let mut checked = 0;
    for (old, new) in [(0, 1), (1, 0), (0, 2), (2, 1), (1, 2)] {
        let steps = transition(&states[old].1, &states[new].1);
        let position = steps.iter().position(|step| *step == Step::Bundle).context("Bundles are pushed")?;
        let mut in_force = objects(&states[old].1, SERVICE)?;
        for (number, step) in steps.iter().enumerate() {
            if let Step::Fence(fence) = step {
                in_force = objects(fence, SERVICE)?;
            }
            let bundles: &[usize] = match number.cmp(&position) {
                std::cmp::Ordering::Less => &[old],
                std::cmp::Ordering::Equal => &[old, new],
                std::cmp::Ordering::Greater => &[new],
            };
            let chains = [at_service("fence", None, in_force.as_slice())];
            let envoy = start(rig, &chains, Normalization::Base, &ports[..1]).await?;
            let fence = answers(rig, &envoy, "fence", &all).await?;
            for bundle in bundles {
                for (sent, (filter, fence)) in all.iter().zip(allowed[*bundle].iter().zip(&fence)) {
                    checked += usize::from(*filter == 200);
                    if *filter == 200 && *fence != 200 {
                        bail!(
                            "from {old} to {new}, step {number}: filter {bundle} allows {sent:?}, the Fence says {fence}\n{in_force:#?}"
                        );
                    }
                }
            }
        }
    }
    ensure!(checked > 500, "only {checked} requests were allowed");
    println!("updates: {checked} allowed requests in every step, none refused by the Fence");
    Ok(())
}
