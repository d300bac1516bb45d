//! The interlock in a real Envoy: where callers are known by their tokens only, the Fence lets pass what the workload's own filter
//! has let through, and nothing else: not without the filter, nor with one that does nothing, nor with one that was told nothing or
//! another workload's value.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::Value;
use tidegate::bundle::Interlocks;
use tidegate::demo::client::{Call, Endpoint, Protocol};
use tidegate::demo::envoy::{Envoy, EnvoyOptions, EnvoyRelease, find_envoy};
use tidegate::demo::mesh::{
    Cluster, DownstreamTls, HttpListener, Listener, Node, ProxyConfig, UpstreamProtocol, WasmFilter,
};
use tidegate::istio::{interlock_secrets, interlocks_of};
use tidegate_compiler::fence::{FenceOptions, INTERLOCK_HEADER, fence};
use tidegate_compiler::{Compiled, WorkloadId};
use tidegate_tests::corpus::{Case, Place, Suite};
use tidegate_tests::rig::{Configured, GATEWAY, Rig, Setup};
use tidegate_tests::{objects, rbac};

#[path = "../../benches/envoy_overhead/module.rs"]
mod pass_through;

const HOST: &str = "orders.sales.example";

/// A filter: its module and its configuration.
type Filter = (PathBuf, Value);

/// What stands in front of the application.
struct Chain<'c> {
    name: &'c str,
    /// `None`: it is missing.
    filter: Option<&'c Filter>,
    /// What Istio enforces.
    policies: &'c [Value],
}

/// How many requests were refused.
#[derive(Debug, Default)]
struct Tally {
    requests: usize,
    /// Without the filter, by a Fence that demands nothing of it.
    by_fence: usize,
    /// Without the filter, by one that demands the interlock.
    by_interlock: usize,
    /// By the filter.
    by_filter: usize,
}

// === impl Tally ===

impl Tally {
    fn print(&self, what: &str) {
        let Self { requests, by_fence, by_interlock, by_filter } = *self;
        println!(
            "{what}: the filter refuses {by_filter} of {requests}; with the filter removed, the Fence refuses {by_fence} ({} %); with \
             the interlock, {by_interlock} ({} %)",
            by_fence * 100 / requests.max(1),
            by_interlock * 100 / requests.max(1)
        );
    }
}

fn gateway() -> Result<WorkloadId> {
    let (namespace, name) = GATEWAY.split_once('/').context("namespace/name")?;
    Ok(WorkloadId { namespace: namespace.to_owned(), name: name.to_owned() })
}

/// The gateway's policies, and the value that they demand.
fn policies(compiled: &Compiled, secret: Option<&Interlocks>) -> Result<(Vec<Value>, Option<String>)> {
    let interlock_secrets = secret.map(|secret| interlock_secrets(compiled, secret)).unwrap_or_default();
    let made = fence(compiled, &FenceOptions { interlock_secrets, ..FenceOptions::default() });
    let made = made.workloads.get(&gateway()?).context("the gateway has a Fence")?;
    let demanded = made.interlock.as_ref().map(|interlock| interlock.value.clone());
    Ok((made.objects.iter().map(|object| object.to_json()).collect(), demanded))
}

async fn start(rig: &Rig, release: EnvoyRelease, chains: &[Chain<'_>]) -> Result<Envoy> {
    let server = rig.server.as_ref().context("the control plane runs")?;
    let mut config = ProxyConfig::new(Node::new("ingress", "dataflow-in", "dataflow-in"))
        .cluster(Cluster::new("upstream", rig.upstream.address()))
        .cluster(
            Cluster::new(&objects::address().cluster(), server.grpc_addr).protocol(UpstreamProtocol::Http2),
        );
    for chain in chains {
        let mut http = HttpListener::forward_to("upstream");
        if let Some((module, configuration)) = chain.filter {
            http = http.filter(WasmFilter::tidegate(module, configuration));
        }
        for filter in rbac::filters(chain.policies)? {
            http = http.filter(filter);
        }
        let tls = DownstreamTls::Server(rig.mesh.loopback_server(&[HOST])?);
        config = config.listener(Listener::http(chain.name, http).tls(tls));
    }
    let options = EnvoyOptions { concurrency: 1, ..EnvoyOptions::default() };
    Ok(Envoy::start(&find_envoy(release, None).await?, "interlock", &config.to_json(), &options).await?)
}

/// A status; refusals of gRPC calls are answers: "200 + grpc-status".
async fn sent(rig: &Rig, envoy: &Envoy, chain: &str, protocol: Protocol, call: Call) -> Result<u16> {
    let endpoint = Endpoint::tls(envoy.address(chain)?, rig.mesh.pem(), HOST);
    let answer = endpoint.call(protocol, call).await?;
    Ok(match answer.grpc_status() {
        Some(status) if status != 0 => 403,
        _ => answer.status.as_u16(),
    })
}

fn written(folder: &Path, name: &str, module: &[u8]) -> Result<PathBuf> {
    let path = folder.join(name);
    std::fs::write(&path, module)?;
    Ok(path)
}

/// Every case of these suites at the gateway, by the objects that the control plane makes.
pub async fn nobody_passes_without_the_filter(release: EnvoyRelease, suites: &[(&str, &str)]) -> Result<()> {
    let istio = "1.31".parse()?;
    let setup = Setup { configured: Configured::ByObject(istio), ..Setup::new(release, 1) };
    let rig = Rig::start(setup).await?;
    let secret = Interlocks::peek(&rig.folder().join("state"))?.context("the state has a secret")?;
    let (id, mut seen) = (gateway()?, 0);
    for (name, text) in suites {
        let suite = Suite::parse(text)?;
        let cases: Vec<&Case> = suite.cases.iter().filter(|case| case.at == Place::Gateway).collect();
        let compiled = rig.compiled(&suite.rules)?;
        let told = interlocks_of(&compiled, &secret);
        let (open, nothing) = policies(&compiled, None)?;
        let (closed, demanded) = policies(&compiled, Some(&secret))?;
        ensure!(
            nothing.is_none() && told.get(&gateway()?) == demanded.as_ref(),
            "{name}: {told:?}, {demanded:?}"
        );
        let Some(value) = demanded.filter(|_| !cases.is_empty()) else { continue };
        rig.apply(&suite.rules).await?;
        let server = rig.server.as_ref().context("the control plane runs")?;
        let bundle = server.bundle(GATEWAY).context("the gateway has a Bundle")?;
        let filter = async |value: Option<String>| -> Result<Filter> {
            let mut options = objects::options(server, istio)?;
            options.warm_starts = [(id.clone(), bundle.clone())].into();
            options.interlocks = value.map(|value| (id.clone(), value)).into_iter().collect();
            let wasm = objects::wasm(&compiled, &options, GATEWAY)?;
            let module = written(rig.folder(), "interlock.wasm", &objects::module(&wasm).await?)?;
            Ok((module, objects::configuration(&wasm)))
        };
        let another = WorkloadId { namespace: "ingress".into(), name: "another".into() };
        let (own, untold, of_another) = (
            filter(Some(value.clone())).await?,
            filter(None).await?,
            filter(Some(secret.value(&another))).await?,
        );
        let nothing = (written(rig.folder(), "nothing.wasm", &pass_through::continue_always())?, Value::Null);
        let chain = |name, filter, policies| Chain { name, filter, policies };
        let chains = [
            chain("open", None, open.as_slice()),
            chain("removed", None, closed.as_slice()),
            chain("replaced", Some(&nothing), closed.as_slice()),
            chain("replaced-open", Some(&nothing), open.as_slice()),
            chain("untold", Some(&untold), closed.as_slice()),
            chain("of-another", Some(&of_another), closed.as_slice()),
            chain("filter", Some(&own), &[]),
            chain("both", Some(&own), closed.as_slice()),
        ];
        let envoy = start(&rig, release, &chains).await?;
        let mut tally = Tally::default();
        for case in &cases {
            let tokens = case.tokens.iter().map(|token| token.mint(&rig)).collect::<Result<Vec<_>>>()?;
            let at = async |chain: &str| -> Result<u16> {
                let (protocol, call) = case.call(&tokens)?;
                sent(&rig, &envoy, chain, protocol, call).await
            };
            for chain in ["removed", "replaced", "untold", "of-another"] {
                let status = at(chain).await?;
                let refused = status == 403 || (chain != "removed" && chain != "replaced" && status == 401);
                ensure!(refused, "{name}: {}: {status} at `{chain}`", case.name);
            }
            let (alone, both) = (at("filter").await?, at("both").await?);
            ensure!(
                (alone == 200) == (both == 200),
                "{name}: {}: {alone} alone, {both} with the Fence",
                case.name
            );
            ensure!([200, 401, 403].contains(&alone), "{name}: {}: {alone}", case.name);
            let fence = at("open").await?;
            ensure!(fence == at("replaced-open").await?, "{name}: {}: a filter that does nothing", case.name);
            tally.requests += 1;
            tally.by_filter += usize::from(alone != 200);
            tally.by_fence += usize::from(fence != 200);
            tally.by_interlock += 1;
        }
        tally.print(&format!("{name}, gateway"));
        ensure!(tally.by_filter > 0 && tally.by_filter < tally.requests, "{name}: {tally:?}");
        seen += tally.requests;
        what_callers_send_opens_nothing(&rig, &envoy, &value).await?;
    }
    ensure!(seen > 0, "no suite has cases at the gateway");
    Ok(())
}

async fn what_callers_send_opens_nothing(rig: &Rig, envoy: &Envoy, value: &str) -> Result<()> {
    let status = async |chain: &str, sent_value: &str| -> Result<u16> {
        let call =
            Call::new(Method::POST, "/v1/orders/7").authority(HOST).header(INTERLOCK_HEADER, sent_value);
        sent(rig, envoy, chain, Protocol::Http1, call).await
    };
    let (longer, upper) = (format!("{value}1"), value.to_uppercase());
    let shorter = value.get(1..).unwrap_or_default();
    for guessed in ["", "*", "secret", &longer, &upper, shorter, &format!("{value},{value}")] {
        for chain in ["removed", "replaced"] {
            let status = status(chain, guessed).await?;
            ensure!(status == 403, "{guessed:?} at `{chain}`: {status}");
        }
    }
    // The control: it is this value that opens it, and a filter takes it from whoever sends it.
    ensure!(status("removed", value).await? == 200, "what the filter sets opens it");
    ensure!(status("both", value).await? == 401, "what a caller sets is removed");
    Ok(())
}
