//! A mesh whose control plane asks who calls.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use http::Method;
use tidegate::demo::client::{Answer, Call, Endpoint, Protocol};
use tidegate::demo::envoy::{Envoy, EnvoyBinary, EnvoyOptions, EnvoyRelease, find_envoy};
use tidegate::demo::mesh::{
    CONTROL_PLANE, Cluster, DownstreamTls, HttpListener, Listener, Node, ProxyConfig, Tcp, UpstreamProtocol,
    UpstreamTls, WasmFilter,
};
use tidegate::demo::pki::{Authority, Credential};
use tidegate::demo::upstream::Upstream;
use tidegate::plugin_config::{ControlPlane, PluginConfig};
use tidegate::serve::{Options, Running};
use tidegate::transport::{TlsOptions, TransportOptions};

pub const AUTHORITY: &str = "tidegate.tidegate-system.svc";
pub const SERVER_ID: &str = "spiffe://prod.example/ns/tidegate-system/sa/tidegate";
pub const ORDERS_ID: &str = "spiffe://prod.example/ns/sales/sa/orders-api";
pub const LEDGER_ID: &str = "spiffe://prod.example/ns/sales/sa/ledger";
pub const CALLER_ID: &str = "spiffe://prod.example/ns/etl/sa/orders-worker";
pub const STRANGER_ID: &str = "spiffe://prod.example/ns/etl/sa/stranger";
pub const PATIENCE: Duration = Duration::from_secs(30);

/// One caller may GET one path of each workload.
pub fn rules(path: &str) -> String {
    format!(
        "
kind: Mesh
metadata: {{name: mesh}}
spec:
  trustDomain: prod.example
  rootNamespace: istio-system
  workloads: [{{namespace: sales, name: orders-api, serviceAccount: orders-api}}, {{namespace: sales, name: ledger, serviceAccount: ledger}}]
---
kind: Guard
metadata: {{name: sales, namespace: sales}}
spec: {{mode: Enforce, audience: x}}
---
kind: AccessRule
metadata: {{name: worker, namespace: sales}}
spec:
  owner: team
  effect: Allow
  mode: Enforce
  from: [{{peer: {{namespace: etl, serviceAccounts: [orders-worker]}}}}]
  to: [{{http: {{methods: [GET], paths: [\"{path}\"]}}}}]
"
    )
}

/// A mesh with a control plane that asks who calls.
pub struct Mesh {
    pub folder: tempfile::TempDir,
    pub authority: Authority,
    pub binary: EnvoyBinary,
    pub upstream: Upstream,
    pub server: Running,
}

// === impl Mesh ===

impl Mesh {
    pub async fn start(
        release: EnvoyRelease,
        transport: impl FnOnce(&Path) -> TransportOptions,
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name);
        let authority = Authority::new("mesh")?;
        std::fs::create_dir(path("rules"))?;
        std::fs::write(path("rules").join("rules.yaml"), rules("/first"))?;
        std::fs::write(path("filter.wasm"), tidegate::FILTER_WASM)?;
        write_identity(folder.path(), &authority.workload(SERVER_ID)?, authority.pem())?;
        let loopback = "127.0.0.1:0".parse()?;
        let mut server = tidegate::serve::start(Options {
            rules: path("rules").into(),
            candidate: None,
            state: path("state"),
            listen: loopback,
            admin: loopback,
            modules: None,
            secrets: None,
            directory: None,
            directories: tidegate::directories::Options::default(),
            environment: None,
            issuer_ca: vec![],
            allow_issuer_loopback: false,
            allow_issuer_networks: vec![],
            decisions: Default::default(),
            transport: transport(folder.path()),
            export: None,
        })
        .await?;
        server.ready().await?;
        let binary = find_envoy(release, None).await?;
        Ok(Self { folder, authority, binary, upstream: Upstream::start().await?, server })
    }

    pub async fn mutual(release: EnvoyRelease) -> Result<Self> {
        Self::start(release, |folder| TransportOptions::mutual(identity(folder), "prod.example")).await
    }

    pub fn filter(&self, workload: &str) -> Result<WasmFilter> {
        let mut config = PluginConfig::new(workload, self.server.trusted_keys.clone());
        config.control_plane =
            Some(ControlPlane { cluster: CONTROL_PLANE.into(), authority: AUTHORITY.into() });
        let module = self.folder.path().join("filter.wasm");
        Ok(WasmFilter::tidegate(module, &serde_json::to_value(config)?))
    }

    pub fn tls(&self, id: &str) -> Result<UpstreamTls> {
        Ok(UpstreamTls {
            credential: Some(self.authority.workload(id)?),
            authority: self.authority.pem().to_owned(),
            server: Some(SERVER_ID.to_owned()),
            secrets: None,
        })
    }

    pub fn mutual_listener(&self, id: &str) -> Result<DownstreamTls> {
        Ok(DownstreamTls::Mutual {
            credential: self.authority.workload(id)?,
            authorities: vec![self.authority.pem().to_owned()],
            required: true,
        })
    }

    /// The proxy of the service, whose filter says that it is `workload`.
    pub async fn service(&self, name: &str, workload: &str, control_plane: Cluster) -> Result<Envoy> {
        let tls = self.mutual_listener(ORDERS_ID)?;
        let http =
            || Ok::<_, anyhow::Error>(HttpListener::forward_to("upstream").filter(self.filter(workload)?));
        let config = ProxyConfig::new(Node::new("sales", "orders-api", "orders-api"))
            .listener(Listener::istio("declared", http()?, Tcp::Fenced).tls(tls.clone()))
            .listener(Listener::istio("undeclared", http()?, Tcp::Fenced).tls(tls.clone()))
            .listener(Listener::istio("tcp-port", http()?, Tcp::Allowed).tls(tls.clone()))
            .listener(Listener::istio("unfenced", http()?, Tcp::Unfenced).tls(tls))
            .cluster(Cluster::new("upstream", self.upstream.address()))
            .cluster(control_plane);
        let options = EnvoyOptions { concurrency: 1, ..EnvoyOptions::default() };
        Ok(Envoy::start(&self.binary, name, &config.to_json(), &options).await?)
    }

    pub fn direct(&self, tls: UpstreamTls) -> Cluster {
        Cluster::new(CONTROL_PLANE, self.server.grpc_addr).protocol(UpstreamProtocol::Http2).tls(tls)
    }

    pub fn endpoint(&self, envoy: &Envoy, listener: &str, credential: &Credential) -> Result<Endpoint> {
        Ok(Endpoint::mesh(envoy.address(listener)?, self.authority.pem()).with_credential(credential))
    }

    pub async fn get(&self, envoy: &Envoy, path: &str) -> Result<u16> {
        let endpoint = self.endpoint(envoy, "declared", &self.authority.workload(CALLER_ID)?)?;
        Ok(endpoint.call(Protocol::Http2, get(path)).await?.status.as_u16())
    }

    pub async fn until(&self, envoy: &Envoy, path: &str, wanted: u16) -> Result<()> {
        let begin = Instant::now();
        loop {
            let status = self.get(envoy, path).await?;
            if status == wanted {
                return Ok(());
            }
            if begin.elapsed() > PATIENCE {
                bail!("{path} still answers {status}, not {wanted}\n{}", envoy.log_tail(30));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How many VMs of a workload are connected.
    pub fn connected(&self, workload: &str) -> usize {
        self.server.fleet().workloads.get(workload).map_or(0, |report| report.connected)
    }

    pub async fn metric(&self, line: &str) -> Result<u64> {
        let call = Call::new(Method::GET, "/metrics").authority("localhost");
        let answer = Endpoint::plain(self.server.admin_addr).call(Protocol::Http1, call).await?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let value = text.lines().find_map(|found| found.strip_prefix(line));
        Ok(value.and_then(|value| value.trim().parse().ok()).unwrap_or(0))
    }
}

pub fn identity(folder: &Path) -> TlsOptions {
    let at = |name: &str| -> PathBuf { folder.join(name) };
    TlsOptions { certificate: at("cert.pem"), key: at("key.pem"), authorities: at("ca.pem") }
}

pub fn write_identity(folder: &Path, credential: &Credential, authorities: &str) -> Result<()> {
    let files = identity(folder);
    std::fs::write(files.certificate, &credential.chain_pem)?;
    std::fs::write(files.key, &credential.key_pem)?;
    Ok(std::fs::write(files.authorities, authorities)?)
}

pub fn get(path: &str) -> Call {
    Call::new(Method::GET, path).authority("orders.sales.example")
}

/// The headers of this name that reached the application.
pub fn received(answer: &Answer, name: &str) -> Result<Vec<String>> {
    let said = answer.json().context("the application answers in JSON")?;
    let headers = said["headers"].as_array().context("with headers")?.clone();
    let named =
        headers.iter().filter(|header| header[0].as_str().is_some_and(|known| known.starts_with(name)));
    Ok(named.filter_map(|header| header[1].as_str().map(str::to_owned)).collect())
}
