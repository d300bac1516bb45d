//! Every way around rules on data, through the packaged module in Envoy: nothing that is tried gets through, and what is
//! allowed does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use http::Method;
use tidegate::bundle::{Contents, Publisher, SectionStore};
use tidegate::demo::client::{Answer, Call, Endpoint, Protocol};
use tidegate::demo::envoy::{Envoy, EnvoyOptions, EnvoyRelease, find_envoy};
use tidegate::demo::mesh::{
    Cluster, DownstreamTls, HttpListener, Listener, Node, Normalization, ProxyConfig, WasmFilter,
};
use tidegate::demo::pki::Authority;
use tidegate::demo::upstream::Upstream;
use tidegate::plugin_config::PluginConfig;
use tidegate::state::StateDir;
use tidegate_compiler::{Inputs, SourceFile, WorkloadPolicy};
use tidegate_proto::v1 as pb;
use tidegate_tests::evasions::{Attempt, Expected, Scene, TEXT, Table};

/// What came of all attempts.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Tally {
    /// Requests that must not pass.
    tried: u32,
    /// Those that the filter refused.
    refused: u32,
    /// Those that the proxy refused before the filter saw them.
    before: u32,
    /// Requests that must pass, and did.
    allowed: u32,
}

fn compile(table: &Table, scene: &Scene) -> Result<WorkloadPolicy> {
    let source = |path: &str, text: String| SourceFile { path: path.into(), text };
    let sources = [source("mesh.yaml", table.mesh.clone()), source("rules.yaml", scene.rules())];
    let compilation =
        tidegate_compiler::compile(&Inputs { sources: &sources, env: BTreeMap::new(), now: None });
    let Some(output) = compilation.output else { bail!("{:#?}", compilation.diagnostics) };
    let external = output.workloads.into_iter().find(|(id, _)| id.to_string() == "egress/external");
    Ok(Arc::unwrap_or_clone(external.context("the gateway has a policy")?.1))
}

/// One listener per scene, each with rules of its own in its configuration. Where bodies decide it has the build that reads
/// them.
async fn proxy(
    folder: &std::path::Path,
    release: EnvoyRelease,
    policies: &[WorkloadPolicy],
    mesh: &Authority,
    upstream: &Upstream,
) -> Result<Envoy> {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    let mut publisher = Publisher::open(Arc::new(StateDir::open(&folder.join("state"))?), now)?;
    let mut store = SectionStore::default();
    // Each is a workload of its own: what one VM enforces for a workload is handed on to its next configuration.
    let name = |scene: usize| format!("egress/scene-{scene}");
    let contents = policies.iter().enumerate().map(|(scene, policy)| {
        let rules = store.section(pb::SectionKind::Rules, &policy.rules);
        let contents = Contents {
            coverage: pb::Coverage::Guarded,
            sections: vec![rules],
            candidate: Vec::new(),
            required_capabilities: Vec::new(),
            used_capabilities: Vec::new(),
            suspended_until: 0,
        };
        (name(scene), contents)
    });
    let releases = publisher.publish(contents.collect(), now)?;
    let modules = [("headers.wasm", tidegate::FILTER_WASM), ("bodies.wasm", tidegate::FILTER_BODIES_WASM)];
    let modules = modules.map(|(file, module)| (folder.join(file), module));
    for (path, module) in &modules {
        std::fs::write(path, module)?;
    }
    let tls = DownstreamTls::Mutual {
        credential: mesh.workload("spiffe://prod.example/ns/egress/sa/external")?,
        authorities: vec![mesh.pem().to_owned()],
        required: true,
    };
    let mut proxy = ProxyConfig::new(Node::new("egress", "external", "external"))
        .cluster(Cluster::new("upstream", upstream.address()));
    for (scene, policy) in policies.iter().enumerate() {
        let bundle = releases.get(&name(scene)).context("there is a Bundle")?.bundle();
        let config = PluginConfig::new(name(scene), publisher.keys().trusted()).with_bundle(&bundle);
        let module = &modules[usize::from(policy.reads_bodies)].0;
        let filter = WasmFilter::tidegate(module, &serde_json::to_value(config)?);
        let http = HttpListener::forward_to("upstream").normalization(Normalization::Off).filter(filter);
        proxy = proxy.listener(Listener::http(&format!("scene-{scene}"), http).tls(tls.clone()));
    }
    let binary = find_envoy(release, None).await?;
    let options = EnvoyOptions { concurrency: 1, ..EnvoyOptions::default() };
    Ok(Envoy::start(&binary, "evasions", &proxy.to_json(), &options).await?)
}

async fn send(endpoint: &Endpoint, attempt: &Attempt) -> Result<Answer> {
    let mut lines = attempt.call.lines();
    let (method, url) = lines.next().and_then(|line| line.split_once(' ')).context("a method and a URL")?;
    let (host, path) = url.split_at(url.find('/').context("a path")?);
    let mut call = Call::new(Method::from_bytes(method.as_bytes())?, path).authority(host);
    let mut protocol = Protocol::Http1;
    for line in lines {
        let (name, value) = line.split_once(": ").context("a header")?;
        if (name, value.starts_with("application/grpc")) == ("content-type", true) {
            protocol = Protocol::Http2;
        }
        call = call.header(name, value);
    }
    Ok(endpoint.call(protocol, call.body(attempt.body.clone())).await?)
}

/// Whether it passed: the filter's refusals have an id, those of the proxy are no successes, and the upstream always is one.
fn judge(attempt: &Attempt, answer: Result<Answer>, tally: &mut Tally) -> Result<()> {
    let answer = match (answer, attempt.expected) {
        // The proxy may close the connection on what it takes for no request.
        (Err(_), Expected::Refused) => {
            tally.before += 1;
            return Ok(());
        }
        (answer, _) => answer?,
    };
    let by_filter = answer.header("x-tidegate-decision").is_some();
    let passed = answer.status.is_success() && matches!(answer.grpc_status(), None | Some(0)) && !by_filter;
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    let told = answer.grpc_message().unwrap_or(&body);
    match attempt.expected {
        Expected::Allowed => {
            ensure!(passed, "is refused: {} {told}", answer.status);
            tally.allowed += 1;
        }
        _ if passed => bail!("passes: {} {told}", answer.status),
        Expected::Denied => {
            ensure!(by_filter, "is refused by somebody else: {} {told}", answer.status);
            // An answer to HEAD has no body.
            let is_told = attempt.call.starts_with("HEAD") || told.contains("denied_by_rule");
            ensure!(is_told, "is refused for another reason: {told}");
            tally.refused += 1;
        }
        Expected::Refused if by_filter => tally.refused += 1,
        Expected::Refused => tally.before += 1,
    }
    Ok(())
}

async fn tried(release: EnvoyRelease, table: &Table) -> Result<Tally> {
    let folder = tempfile::tempdir()?;
    let (mesh, upstream) = (Authority::new("mesh")?, Upstream::start().await?);
    let scenes: Vec<&Scene> = table.ways.iter().flat_map(|way| &way.scenes).collect();
    let policies = scenes.iter().map(|scene| compile(table, scene)).collect::<Result<Vec<_>>>()?;
    let envoy = proxy(folder.path(), release, &policies, &mesh, &upstream).await?;
    let worker = mesh.workload("spiffe://prod.example/ns/etl/sa/worker")?;
    let (mut tally, mut wrong) = (Tally::default(), Vec::new());
    for (at, scene) in scenes.iter().enumerate() {
        let address = envoy.address(&format!("scene-{at}"))?;
        let endpoint = Endpoint::mesh(address, mesh.pem()).with_credential(&worker);
        for attempt in scene.attempts() {
            tally.tried += u32::from(attempt.expected != Expected::Allowed);
            let answer = send(&endpoint, &attempt).await;
            if let Err(error) = judge(&attempt, answer, &mut tally) {
                let body = String::from_utf8_lossy(&attempt.body).into_owned();
                wrong.push(format!("{}\n{body}\n{error:#}", attempt.call));
            }
        }
    }
    ensure!(wrong.is_empty(), "{release:?}: {} wrong:\n{}", wrong.len(), wrong.join("\n\n"));
    ensure!(envoy.stats("wasm.*vm_reload").await?.values().sum::<u64>() == 0, "a VM failed");
    Ok(tally)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_way_leads_around_a_rule() -> Result<()> {
    let table: Table = serde_saphyr::from_str(TEXT)?;
    for release in [EnvoyRelease::Current, EnvoyRelease::Oldest] {
        let Tally { tried, refused, before, allowed } = tried(release, &table).await?;
        println!(
            "evasions, {release:?}: {tried} tried, {refused} refused by the filter, {before} by the proxy before it, 0 passed; \
             {allowed} controls allowed"
        );
        ensure!(tried == refused + before && before < tried / 10, "{release:?}");
        ensure!(tried >= 390 && allowed >= 80, "{release:?}: {tried} {allowed}");
    }
    Ok(())
}
