//! A mesh: issuers, control plane, one Envoy with a guarded service and a gateway, and what callers hold.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use prost::Message as _;
use tidegate::demo::client::Endpoint;
use tidegate::demo::envoy::{Envoy, EnvoyOptions, EnvoyRelease, find_envoy};
use tidegate::demo::issuers::{Issuers, Providers};
use tidegate::demo::mesh::{
    AccessLog, Cluster, DownstreamTls, HttpListener, Limits, Listener, Node, Normalization, ProxyConfig,
    UpstreamProtocol, WasmFilter,
};
use tidegate::demo::pki::{Authority, Credential};
use tidegate::demo::upstream::Upstream;
use tidegate::istio::IstioVersion;
use tidegate::plugin_config::{ControlPlane, Peers, PluginConfig};
use tidegate::serve::{Options, RuleSource, Running};
use tidegate_compiler::{Compiled, Inputs, SourceFile, WorkloadPolicy};
use tidegate_proto::v1 as pb;

use crate::controlled::Controlled;
use crate::objects;

/// The guarded service.
pub const SERVICE: &str = "sales/orders-api";
/// The gateway through which workers come that have no mesh certificate.
pub const GATEWAY: &str = "ingress/dataflow-in";
/// The SPIFFE id that the service's certificate has.
pub const SERVICE_ID: &str = "spiffe://prod.example/ns/sales/sa/orders-api";

/// Everything that is there in every case: the mesh and the issuers.
const BASE: &str = include_str!("../corpus/base.yaml");

/// The file of the access log. Not beside files that the control plane watches: it would wait until nobody writes to it any more.
const ACCESS_LOG: &str = "envoy/access.log";

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a mesh is set up.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// Which Envoy.
    pub release: EnvoyRelease,
    /// Its worker threads.
    pub concurrency: u32,
    /// Header limits of the listeners; `None`: Envoy's own.
    pub limits: Option<Limits>,
    /// Where filters have their configuration from.
    pub configured: Configured,
    /// Whether the module is the build that reads bodies, where it is configured by hand.
    pub bodies: bool,
}

/// Where filters have their configuration from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Configured {
    /// As `tidegate plugin-config` prints it, with the module of the binary.
    ByHand,
    /// As the workload's object for this Istio says, with the module that the object names.
    ByObject(IstioVersion),
    /// As the object says that the controller wrote for this Istio; rules are a cluster's objects.
    ByController(IstioVersion),
}

impl Setup {
    /// This Envoy with so many workers.
    pub fn new(release: EnvoyRelease, concurrency: u32) -> Self {
        Self { release, concurrency, limits: None, configured: Configured::ByHand, bodies: false }
    }
}

/// What is looked at.
pub struct Observed {
    /// Where directories are read.
    pub directories: tidegate::directories::Options,
    /// Where the control plane exports to.
    pub export: tidegate::export::Options,
    /// Istio's `extraStatTags`.
    pub stat_tags: Vec<String>,
    /// Istio's format of access logs.
    pub format: String,
}

/// A mesh that runs. Dropping it stops everything.
pub struct Rig {
    /// The mesh's certificate authority.
    pub mesh: Authority,
    /// Another one.
    pub foreign: Authority,
    /// Token issuers.
    pub issuers: Issuers,
    /// Token issuers of further providers.
    pub providers: Providers,
    /// The application behind the service's proxy.
    pub upstream: Upstream,
    /// The proxy.
    pub envoy: Envoy,
    /// The control plane; `None` while it is down.
    pub server: Option<Running>,
    /// Where it serves; the same after a restart.
    options: Options,
    /// Where rules are, unless they are files.
    pub cluster: Option<Controlled>,
    folder: tempfile::TempDir,
    /// Threads of the proxy that run VMs: its workers and the main one.
    threads: usize,
}

/// What is in force after [`Rig::apply`].
pub struct Applied {
    /// As the compiler made it, by workload.
    pub service: WorkloadPolicy,
    /// As the compiler made it, by workload.
    pub gateway: WorkloadPolicy,
    /// From writing the file until every VM enforced it.
    pub after: Duration,
}

/// Values for `${env.…}` in `base.yaml`.
fn environment(issuers: &Issuers, providers: &Providers) -> BTreeMap<String, String> {
    [
        ("googleKeys", issuers.google.jwks_uri()),
        ("gitlab", issuers.gitlab.url().to_owned()),
        ("cluster", issuers.cluster.url().to_owned()),
        ("entraKeys", providers.entra.jwks_uri()),
        ("okta", providers.okta.url().to_owned()),
        ("awsKeys", providers.aws.jwks_uri()),
        ("githubKeys", providers.github.jwks_uri()),
        ("spiffeBundle", providers.spiffe.jwks_uri()),
        ("oauth", providers.oauth.url().to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// The mesh and the issuers, without rules.
pub fn compile_base(environment: BTreeMap<String, String>) -> Result<Compiled> {
    let sources = [SourceFile { path: "base.yaml".into(), text: BASE.into() }];
    let compilation = tidegate_compiler::compile(&Inputs { sources: &sources, env: environment, now: None });
    compilation.output.with_context(|| format!("base.yaml does not compile: {:#?}", compilation.diagnostics))
}

// === impl Rig ===

impl Rig {
    /// Starts everything; rules are only those that a case applies.
    pub async fn start(setup: Setup) -> Result<Self> {
        Self::start_with(setup, tidegate::directories::Options::default()).await
    }

    /// The same, with other sources of directories.
    pub async fn start_with(setup: Setup, directories: tidegate::directories::Options) -> Result<Self> {
        Self::start_all(setup, directories, None).await
    }

    /// A mesh that is looked at: its control plane exports, its proxy has Istio's statistics with these `extraStatTags` and an
    /// access log ([`Rig::access_log`]) whose lines have what `format` says.
    pub async fn start_observed(setup: Setup, observed: Observed) -> Result<Self> {
        Self::start_all(setup, observed.directories.clone(), Some(observed)).await
    }

    async fn start_all(
        setup: Setup,
        directories: tidegate::directories::Options,
        observed: Option<Observed>,
    ) -> Result<Self> {
        let (export, watch) = observed.map(|one| (one.export, (one.stat_tags, one.format))).unzip();
        let folder = tempfile::tempdir()?;
        let (mesh, foreign) = (Authority::new("mesh")?, Authority::new("foreign")?);
        let issuers = Issuers::start().await?;
        let providers = issuers.providers().await?;
        let upstream = Upstream::start().await?;
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("rules"))?;
        std::fs::create_dir(path("envoy"))?;
        std::fs::write(path("issuer-ca.pem"), issuers.authority_pem())?;
        std::fs::write(path("directory.json"), include_str!("../corpus/directory.json"))?;
        let environment = environment(&issuers, &providers);
        std::fs::write(path("env.json"), serde_json::to_string(&environment)?)?;
        std::fs::write(path("rules").join("base.yaml"), BASE)?;
        let loopback = "127.0.0.1:0".parse()?;
        let mut options = Options {
            rules: path("rules").into(),
            candidate: None,
            state: path("state"),
            secrets: None,
            listen: loopback,
            admin: loopback,
            modules: matches!(setup.configured, Configured::ByObject(_)).then_some(loopback),
            directory: Some(path("directory.json")),
            directories,
            environment: Some(path("env.json")),
            issuer_ca: vec![path("issuer-ca.pem")],
            allow_issuer_loopback: true,
            allow_issuer_networks: Vec::new(),
            decisions: Default::default(),
            transport: tidegate::transport::TransportOptions::insecure(),
            export,
        };
        let cluster = match setup.configured {
            Configured::ByController(istio) => Some(Controlled::start(istio, BASE).await?),
            Configured::ByHand | Configured::ByObject(_) => None,
        };
        if let Some(cluster) = &cluster {
            options.rules = RuleSource::Cluster(cluster.options(folder.path())?);
            options.modules = Some(cluster.modules);
        }
        let server = tidegate::serve::start(options.clone()).await?;
        options.listen = server.grpc_addr;
        options.admin = server.admin_addr;

        let binary = find_envoy(setup.release, None).await?;
        let module = path("tidegate_filter.wasm");
        let packaged = if setup.bodies { tidegate::FILTER_BODIES_WASM } else { tidegate::FILTER_WASM };
        std::fs::write(&module, packaged)?;
        let mut by_object = BTreeMap::new();
        if let Configured::ByObject(istio) = setup.configured {
            let compiled = compile_base(environment)?;
            let options = objects::options(&server, istio)?;
            for workload in [SERVICE, GATEWAY] {
                let wasm = objects::wasm(&compiled, &options, workload)?;
                std::fs::write(&module, objects::module(&wasm).await?)?;
                by_object.insert(workload, objects::configuration(&wasm));
            }
        }
        if let Some(cluster) = &cluster {
            for workload in [SERVICE, GATEWAY] {
                let wasm = cluster.wasm(workload).await?;
                std::fs::write(&module, objects::module(&wasm).await?)?;
                by_object.insert(workload, objects::configuration(&wasm));
            }
        }
        let filter = |workload: &str, peers| -> Result<WasmFilter> {
            if let Some(configuration) = by_object.get(workload) {
                return Ok(WasmFilter::tidegate(&module, configuration));
            }
            let mut config = PluginConfig::new(workload, server.trusted_keys.clone());
            config.peers = peers;
            config.control_plane = Some(ControlPlane {
                cluster: tidegate::demo::mesh::CONTROL_PLANE.into(),
                authority: "tidegate.tidegate-system.svc".into(),
            });
            Ok(WasmFilter::tidegate(&module, &serde_json::to_value(config)?))
        };
        let http = |filter: WasmFilter| {
            let mut listener =
                HttpListener::forward_to("upstream").normalization(Normalization::Off).filter(filter);
            if let Some((_, format)) = &watch {
                let fields = vec![("told".to_owned(), format.clone())];
                listener = listener.access_log(AccessLog { path: path(ACCESS_LOG), fields });
            }
            match setup.limits {
                Some(limits) => listener.limits(limits),
                None => listener,
            }
        };
        let mutual = DownstreamTls::Mutual {
            credential: mesh.workload(SERVICE_ID)?,
            authorities: vec![mesh.pem().to_owned()],
            required: true,
        };
        // One configuration twice in one chain, as two overlapping plugins of a mesh would have it.
        let twice = http(filter(SERVICE, Peers::Mesh)?).filter(filter(SERVICE, Peers::Mesh)?);
        let edge = DownstreamTls::Server(mesh.loopback_server(&["orders.sales.example"])?);
        let config = ProxyConfig::new(Node::new("sales", "orders-api", "orders-api"))
            .listener(Listener::http("service", http(filter(SERVICE, Peers::Mesh)?)).tls(mutual.clone()))
            .listener(Listener::http("twice", twice).tls(mutual))
            .listener(Listener::http("gateway", http(filter(GATEWAY, Peers::None)?)).tls(edge))
            .listener(Listener::http("plain", http(filter(SERVICE, Peers::Mesh)?)))
            .cluster(Cluster::new("upstream", upstream.address()))
            .cluster(
                Cluster::new(&objects::address().cluster(), server.grpc_addr)
                    .protocol(UpstreamProtocol::Http2),
            )
            .control_plane(server.grpc_addr);
        let config = match &watch {
            Some((tags, _)) => config.istio_statistics(&tags.iter().map(String::as_str).collect::<Vec<_>>()),
            None => config,
        };
        let envoy_options = EnvoyOptions { concurrency: setup.concurrency, ..EnvoyOptions::default() };
        let envoy = Envoy::start(&binary, "service", &config.to_json(), &envoy_options).await?;
        let threads = usize::try_from(setup.concurrency)? + 1;
        Ok(Self {
            mesh,
            foreign,
            issuers,
            providers,
            upstream,
            envoy,
            server: Some(server),
            options,
            cluster,
            folder,
            threads,
        })
    }

    /// The file with the rules of the case.
    pub fn rules_file(&self) -> PathBuf {
        self.folder.path().join("rules").join("case.yaml")
    }

    /// Compiles these rules as the control plane does.
    pub fn compiled(&self, rules: &str) -> Result<Compiled> {
        let compilation = tidegate_compiler::compile(&Inputs {
            sources: &[
                SourceFile { path: "base.yaml".into(), text: BASE.into() },
                SourceFile { path: "case.yaml".into(), text: rules.into() },
            ],
            env: environment(&self.issuers, &self.providers),
            now: None,
        });
        let Some(output) = compilation.output else {
            bail!("rules do not compile: {:#?}", compilation.diagnostics);
        };
        Ok(output)
    }

    /// What is to be in force with these rules.
    pub fn compile(&self, rules: &str) -> Result<Applied> {
        let output = self.compiled(rules)?;
        let policy = |workload: &str| {
            output
                .workloads
                .iter()
                .find(|(id, _)| id.to_string() == workload)
                .map(|(_, policy)| policy.as_ref().clone())
                .with_context(|| format!("nothing was compiled for {workload}"))
        };
        Ok(Applied { service: policy(SERVICE)?, gateway: policy(GATEWAY)?, after: Duration::ZERO })
    }

    /// Writes the rules of a case to disk and waits until every VM enforces them.
    pub async fn apply(&self, rules: &str) -> Result<Applied> {
        let mut applied = self.compile(rules)?;
        let begin = Instant::now();
        match &self.cluster {
            Some(cluster) => cluster.replace(rules)?,
            None => std::fs::write(self.rules_file(), rules)?,
        }
        self.wait("every VM to enforce the rules", || {
            Ok(self.lags(SERVICE, &applied.service)?.or(self.lags(GATEWAY, &applied.gateway)?))
        })
        .await?;
        applied.after = begin.elapsed();
        Ok(applied)
    }

    /// What is still missing until a workload's VMs all enforce a policy.
    fn lags(&self, workload: &str, policy: &WorkloadPolicy) -> Result<Option<String>> {
        let server = self.server.as_ref().context("the control plane is down")?;
        let rules = self.section(workload, pb::SectionKind::Rules)?;
        if rules.as_deref() != Some(policy.rules.as_slice()) {
            return Ok(Some(format!("{workload}: other rules are on offer")));
        }
        let keys = self.section(workload, pb::SectionKind::Keys)?;
        if keys.map_or(!policy.issuers.is_empty(), |keys| self.lacks_keys(&keys)) {
            return Ok(Some(format!("{workload}: keys are missing")));
        }
        // Listeners with the same plugin configuration share a root context, and so a stream.
        let fleet = server.fleet();
        let (connected, enforcing) =
            fleet.workloads.get(workload).map_or((0, 0), |report| (report.connected, report.enforcing));
        let wanted = self.threads;
        Ok((connected != wanted || enforcing != wanted)
            .then(|| format!("{workload}: {connected} connected, {enforcing} enforcing, {wanted} wanted")))
    }

    /// Keys are fetched after the rules that need them are known.
    fn lacks_keys(&self, section: &[u8]) -> bool {
        tidegate_identity::IssuerSet::decode(section)
            .map_or(true, |set| set.issuers().iter().any(|issuer| issuer.keys().is_empty()))
    }

    /// A section of what is offered to a workload.
    pub fn section(&self, workload: &str, kind: pb::SectionKind) -> Result<Option<Vec<u8>>> {
        let server = self.server.as_ref().context("the control plane is down")?;
        let Some(bundle) = server.bundle(workload) else { return Ok(None) };
        let bundle = pb::Bundle::decode(bundle.as_slice())?;
        Ok(bundle.sections.into_iter().find(|section| section.kind() == kind).map(|section| section.content))
    }

    /// Waits until nothing is missing any more.
    pub async fn wait(&self, what: &str, mut missing: impl FnMut() -> Result<Option<String>>) -> Result<()> {
        let begin = Instant::now();
        while let Some(missing) = missing()? {
            if begin.elapsed() > PATIENCE {
                let fleet = self.server.as_ref().map(Running::fleet);
                let findings = self.server.as_ref().map(|server| server.diagnosis().findings);
                bail!(
                    "waited {PATIENCE:?} for {what}: {missing}\n{findings:#?}\n{fleet:#?}\n{}",
                    self.envoy.log_tail(20)
                );
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Stops the control plane; filters keep what they have.
    pub async fn stop_server(&mut self) -> Result<()> {
        self.server.take().context("the control plane is down")?.shutdown().await?;
        Ok(())
    }

    /// Starts it again at the same address, from the same state.
    pub async fn start_server(&mut self) -> Result<()> {
        ensure!(self.server.is_none(), "the control plane runs");
        self.server = Some(tidegate::serve::start(self.options.clone()).await?);
        Ok(())
    }

    /// From the next start of the control plane on, these rules are compared with those in force.
    pub fn set_candidate(&mut self, rules: &str) -> Result<()> {
        let folder = self.folder.path().join("candidate");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("base.yaml"), BASE)?;
        std::fs::write(folder.join("case.yaml"), rules)?;
        self.options.candidate = Some(folder);
        Ok(())
    }

    /// How many VMs the proxy runs per plugin configuration.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The guarded service, as this workload of the mesh.
    pub fn service_as(&self, spiffe_id: &str) -> Result<Endpoint> {
        self.service_with(&self.mesh.workload(spiffe_id)?)
    }

    /// The guarded service, with this certificate.
    pub fn service_with(&self, credential: &Credential) -> Result<Endpoint> {
        self.mesh_endpoint("service", credential)
    }

    /// The guarded service behind two filters of one configuration, as this workload of the mesh.
    pub fn service_twice_as(&self, spiffe_id: &str) -> Result<Endpoint> {
        self.mesh_endpoint("twice", &self.mesh.workload(spiffe_id)?)
    }

    fn mesh_endpoint(&self, listener: &str, credential: &Credential) -> Result<Endpoint> {
        let address = self.envoy.address(listener)?;
        Ok(Endpoint::mesh(address, self.mesh.pem()).with_credential(credential))
    }

    /// The gateway, without a certificate.
    pub fn gateway(&self) -> Result<Endpoint> {
        let address = self.envoy.address("gateway")?;
        Ok(Endpoint::tls(address, self.mesh.pem(), "orders.sales.example"))
    }

    /// The proxy's statistics whose names match, added up.
    pub async fn stat(&self, pattern: &str) -> Result<u64> {
        Ok(self.envoy.stats(pattern).await?.values().sum())
    }

    /// What the access log of [`Rig::start_observed`] says so far, request by request.
    pub fn access_log(&self) -> Result<Vec<String>> {
        let text = std::fs::read_to_string(self.folder.path().join(ACCESS_LOG))?;
        let told = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line)?;
            Ok(line["told"].as_str().with_context(|| line.to_string())?.trim_end().to_owned())
        };
        // The last one may be half written.
        text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(told).collect()
    }

    /// Where files of this mesh are.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }
}
