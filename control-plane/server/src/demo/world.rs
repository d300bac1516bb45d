//! The demo's mesh, running: issuers, control plane, three Envoys, and the application behind them.
//!
//! ```text
//! worker ── plain ── workers' Envoy ── mTLS ──┐
//!                                             ├── service's Envoy + filter ── application
//! VM ── TLS ── gateway's Envoy + filter ─mTLS─┘
//! ```
//!
//! INVARIANT: when a [`World`] is dropped nothing of it runs on, and its folder is gone.

mod files;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::time::Instant;

use super::client::{Call, Endpoint, Protocol};
use super::envoy::{Envoy, EnvoyBinary, EnvoyOptions};
use super::exported::Exported;
use super::issuers::{GitLabJob, GoogleInstance, Issuers, KubernetesPod};
use super::mesh::{self, HttpListener, Limits, Node, UpstreamTls, WasmFilter, Worker};
use super::pki::{Authority, Credential};
use super::upstream::Upstream;
use crate::decisions;
use crate::export;
use crate::plugin_config::{ControlPlane, Peers, PluginConfig};
use crate::serve::{self, Options, Running};
use crate::transport::TransportOptions;

pub use files::WorldFiles;

/// For whom tokens must be meant.
pub const AUDIENCE: &str = "https://orders.sales.example";
/// The host of requests.
pub const HOST: &str = "orders.sales.example";
/// The guarded service, as rules name it.
pub const SERVICE: &str = "sales/orders-api";
/// The gateway, as rules name it.
pub const GATEWAY: &str = "ingress/dataflow-in";

const SERVICE_ID: &str = "spiffe://prod.example/ns/sales/sa/orders-api";
const CONTROL_PLANE_ID: &str = "spiffe://prod.example/ns/tidegate-system/sa/tidegate";
const GATEWAY_ID: &str = "spiffe://prod.example/ns/ingress/sa/dataflow-in";
/// Of the mesh.
const TRUST_DOMAIN: &str = "prod.example";
/// A valid host name for the gRPC stream; Envoy would take the cluster's name.
const CONTROL_PLANE_AUTHORITY: &str = "tidegate.tidegate-system.svc";
/// Rules, keys and streams are there within a second or two; a busy machine gets more.
const ENFORCED_WITHIN: Duration = Duration::from_secs(60);

/// How a caller reaches the service, and with that: as whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// As the pod of the pipeline (`etl/orders-worker`), by mTLS.
    OrdersWorker,
    /// The same, to the port for metrics.
    OrdersWorkerToMetrics,
    /// As another pod of the same namespace (`etl/reports-worker`), by mTLS.
    ReportsWorker,
    /// As the pod that runs CI jobs (`ci/runner`), by mTLS.
    CiRunner,
    /// From outside of the mesh, through the gateway.
    Gateway,
}

/// The running mesh.
#[derive(Debug)]
pub struct World {
    /// The three issuers.
    pub issuers: Issuers,
    /// The application.
    pub upstream: Upstream,
    /// The service's Envoy.
    pub service: Envoy,
    /// The gateway's Envoy.
    pub gateway: Envoy,
    /// The workers' Envoy.
    pub workers: Envoy,
    /// Who issued the gateway's certificate for callers outside of the mesh.
    pub edge_authority: Authority,
    /// Rules, and what else is on disk.
    pub files: WorldFiles,
    // Where it listens, also while it is stopped.
    control_plane_address: SocketAddr,
    control_plane: Option<Running>,
    export: Option<export::Options>,
}

/// How to run a [`World`].
#[derive(Debug, Clone, Default)]
pub struct WorldOptions {
    /// How to run the Envoys.
    pub envoy: EnvoyOptions,
    /// What service and gateway take.
    pub limits: Limits,
    /// Where the control plane exports to.
    pub export: Option<export::Options>,
}

// === impl Way ===

impl Way {
    /// Those that lead through the workers' Envoy.
    const MESH: [Self; 4] =
        [Self::OrdersWorker, Self::OrdersWorkerToMetrics, Self::ReportsWorker, Self::CiRunner];

    /// Name of the listener.
    pub fn listener(self) -> &'static str {
        match self {
            Self::OrdersWorker => "orders-worker",
            Self::OrdersWorkerToMetrics => "orders-worker-to-metrics",
            Self::ReportsWorker => "reports-worker",
            Self::CiRunner => "ci-runner",
            Self::Gateway => mesh::GATEWAY,
        }
    }

    /// The SPIFFE id that the service sees.
    pub fn spiffe_id(self) -> &'static str {
        match self {
            Self::OrdersWorker | Self::OrdersWorkerToMetrics => {
                "spiffe://prod.example/ns/etl/sa/orders-worker"
            }
            Self::ReportsWorker => "spiffe://prod.example/ns/etl/sa/reports-worker",
            Self::CiRunner => "spiffe://prod.example/ns/ci/sa/runner",
            Self::Gateway => GATEWAY_ID,
        }
    }
}

// === impl World ===

impl World {
    /// Starts everything and returns when the rules are enforced.
    pub async fn start(binary: &EnvoyBinary, options: &WorldOptions) -> Result<Self> {
        let issuers = Issuers::start().await?;
        let upstream = Upstream::start().await.context("the application cannot listen on loopback")?;
        let mesh_authority = Authority::new("mesh")?;
        let edge_authority = Authority::new("edge")?;
        let files = WorldFiles::create(&issuers, edge_authority.pem())?;
        files.write_identity(&mesh_authority.workload(CONTROL_PLANE_ID)?, mesh_authority.pem())?;
        let control_plane =
            start_control_plane(&files, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), options.export.clone())
                .await?;

        let filter = |workload: &str, peers| {
            let mut config = PluginConfig::new(workload, control_plane.trusted_keys.clone());
            config.peers = peers;
            config.control_plane = Some(ControlPlane {
                cluster: mesh::CONTROL_PLANE.to_owned(),
                authority: CONTROL_PLANE_AUTHORITY.to_owned(),
            });
            let config =
                serde_json::to_value(config).context("the filter's configuration cannot be written")?;
            anyhow::Ok(WasmFilter::tidegate(files.module(), &config))
        };
        let service_filter = filter(SERVICE, Peers::Mesh)?;
        // Each filter connects with the certificate of its own workload, and gets that workload's rules.
        let control_plane_tls = |credential: &Credential| UpstreamTls {
            credential: Some(credential.clone()),
            authority: mesh_authority.pem().to_owned(),
            server: Some(CONTROL_PLANE_ID.to_owned()),
            secrets: None,
        };
        let (service_credential, gateway_credential) =
            (mesh_authority.workload(SERVICE_ID)?, mesh_authority.workload(GATEWAY_ID)?);
        let config = mesh::service_side(
            Node::new("sales", "orders-api", "orders-api"),
            &service_credential,
            mesh_authority.pem(),
            upstream.address(),
            |http: HttpListener| http.filter(service_filter).limits(options.limits),
        )
        .control_plane_tls(control_plane.grpc_addr, control_plane_tls(&service_credential));
        let service = Envoy::start(binary, "service", &config.to_json(), &options.envoy).await?;

        let gateway_filter = filter(GATEWAY, Peers::None)?;
        let config = mesh::gateway(
            Node::new("ingress", "dataflow-in", "dataflow-in"),
            &edge_authority.loopback_server(&["dataflow-in.example"])?,
            &gateway_credential,
            mesh_authority.pem(),
            service.address(mesh::INBOUND)?,
            SERVICE_ID,
            |http| http.filter(gateway_filter).limits(options.limits),
        )
        .control_plane_tls(control_plane.grpc_addr, control_plane_tls(&gateway_credential))
        .to_json();
        let workers = workers(&mesh_authority, &service)?;
        let (gateway, workers) = tokio::try_join!(
            Envoy::start(binary, "gateway", &config, &options.envoy),
            Envoy::start(binary, "workers", &workers, &options.envoy),
        )?;

        files.write_rules(&issuers, service.address(mesh::INBOUND)?.port())?;
        let world = Self {
            issuers,
            upstream,
            service,
            gateway,
            workers,
            edge_authority,
            files,
            control_plane_address: control_plane.grpc_addr,
            control_plane: Some(control_plane),
            export: options.export.clone(),
        };
        world.wait_until_enforced().await?;
        Ok(world)
    }

    /// The control plane.
    ///
    /// # Errors
    /// While it is stopped.
    pub fn control_plane(&self) -> Result<&Running> {
        self.control_plane.as_ref().context("the control plane is stopped")
    }

    /// Stops the control plane; everything else runs on.
    pub async fn stop_control_plane(&mut self) -> Result<()> {
        match self.control_plane.take() {
            Some(running) => Ok(running.shutdown().await?),
            None => Ok(()),
        }
    }

    /// What became of what is exported; `None` where nothing is. It is all counted when everything has stopped.
    ///
    /// # Errors
    /// While the control plane is stopped.
    pub fn exported(&self) -> Result<Option<Exported>> {
        let metrics = self.control_plane()?.export_metrics();
        Ok(self.export.as_ref().map(|options| Exported::new(options, metrics)))
    }

    /// Starts the control plane again, with its state, where filters look for it.
    pub async fn restart_control_plane(&mut self) -> Result<()> {
        self.stop_control_plane().await?;
        self.control_plane =
            Some(start_control_plane(&self.files, self.control_plane_address, self.export.clone()).await?);
        Ok(())
    }

    /// Where to call for this way.
    pub fn endpoint(&self, way: Way) -> Result<Endpoint> {
        Ok(match way {
            Way::Gateway => {
                let address = self.gateway.address(mesh::GATEWAY)?;
                Endpoint::tls(address, self.edge_authority.pem(), "dataflow-in.example")
            }
            _ => Endpoint::plain(self.workers.address(way.listener())?),
        })
    }

    /// The service's port that a request on this way comes in at.
    pub fn service_port(&self, way: Way) -> Result<u16> {
        let listener = if way == Way::OrdersWorkerToMetrics { mesh::METRICS } else { mesh::INBOUND };
        Ok(self.service.address(listener)?.port())
    }

    /// Resolves when a part of it ends although nobody stopped it.
    pub async fn failed(&mut self) -> anyhow::Error {
        loop {
            for envoy in [&mut self.service, &mut self.gateway, &mut self.workers] {
                if let Some(status) = envoy.exited() {
                    let (name, log) = (envoy.name().to_owned(), envoy.log_tail(30));
                    return anyhow::anyhow!("Envoy `{name}` ended with {status}; the end of its log:\n{log}");
                }
            }
            let pause = tokio::time::sleep(Duration::from_millis(200));
            let control_plane = async {
                match &mut self.control_plane {
                    Some(running) => running.failed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                failure = control_plane => return failure.into(),
                () = pause => {}
            }
        }
    }

    /// Ends the control plane, then the Envoys.
    pub async fn stop(mut self) -> Result<()> {
        self.stop_control_plane().await?;
        let Self { service, gateway, workers, .. } = self;
        tokio::join!(service.stop(), gateway.stop(), workers.stop());
        Ok(())
    }

    /// Until one request of every kind passes: then rules, keys and directories are there, in every filter. Also until
    /// a request that nothing allows is refused: a workload without a Guard lets everything pass.
    async fn wait_until_enforced(&self) -> Result<()> {
        let post = |token: String| Call::new(http::Method::POST, "/v1/orders/1").bearer(&token);
        let pod = self.issuers.cluster.pod_token(&orders_pod(), AUDIENCE).sign()?;
        let machine = self.issuers.google.instance_token(&orders_machine(), AUDIENCE).sign()?;
        let job = self.issuers.gitlab.job_token(&release_job(), AUDIENCE).sign()?;
        let probes = [
            (Way::OrdersWorker, Call::new(http::Method::GET, "/not-allowed"), false),
            (Way::Gateway, Call::new(http::Method::GET, "/not-allowed"), false),
            (Way::OrdersWorker, post(pod), true),
            (Way::Gateway, post(machine), true),
            (Way::CiRunner, Call::new(http::Method::PUT, "/v1/schema").bearer(&job), true),
        ];
        let deadline = Instant::now() + ENFORCED_WITHIN;
        for (way, call, passes) in probes {
            let endpoint = self.endpoint(way)?;
            loop {
                let answer = endpoint.call(Protocol::Http1, call.clone().authority(HOST)).await?;
                let refused = matches!(answer.status.as_u16(), 401 | 403);
                if if passes { answer.status.is_success() } else { refused } {
                    break;
                }
                if Instant::now() >= deadline {
                    bail!(
                        "the rules were not enforced within {} s: {way:?} still gets {} {}; the control plane says: {}; \
                         the end of the service's log:\n{}",
                        ENFORCED_WITHIN.as_secs(),
                        answer.status,
                        String::from_utf8_lossy(&answer.body),
                        serde_json::to_value(self.control_plane()?.diagnosis()).unwrap_or_default(),
                        self.service.log_tail(20),
                    );
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }
}

async fn start_control_plane(
    files: &WorldFiles,
    listen: SocketAddr,
    export: Option<export::Options>,
) -> Result<Running> {
    let mut running = serve::start(Options {
        rules: files.rules().into(),
        candidate: None,
        state: files.state(),
        listen,
        admin: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        modules: None,
        secrets: None,
        directory: Some(files.directory()),
        directories: Default::default(),
        environment: Some(files.values()),
        issuer_ca: vec![files.issuer_authority()],
        allow_issuer_loopback: true,
        allow_issuer_networks: vec![],
        decisions: decisions::Options { folder: Some(files.decisions()), ..Default::default() },
        transport: TransportOptions::mutual(files.identity(), TRUST_DOMAIN),
        export,
    })
    .await?;
    running.ready().await?;
    Ok(running)
}

fn workers(authority: &Authority, service: &Envoy) -> Result<Value> {
    let mut credentials = Vec::new();
    for way in Way::MESH {
        credentials.push((way, authority.workload(way.spiffe_id())?));
    }
    let mut workers = Vec::new();
    for (way, credential) in &credentials {
        let port = if *way == Way::OrdersWorkerToMetrics { mesh::METRICS } else { mesh::INBOUND };
        workers.push(Worker { listener: way.listener(), credential, service: service.address(port)? });
    }
    Ok(mesh::worker_side(Node::new("etl", "workers", "workers"), &workers, authority.pem(), SERVICE_ID)
        .to_json())
}

/// A VM of the Dataflow job `orders-etl`.
pub fn orders_machine() -> GoogleInstance {
    GoogleInstance {
        email: "df-orders@acme.iam.gserviceaccount.com".to_owned(),
        subject: "100000000000000000001".to_owned(),
        project: "acme".to_owned(),
        project_number: 123_456_789_012,
        zone: "europe-west4-b".to_owned(),
        instance_id: "4570000000000000001".to_owned(),
        instance_name: "orders-etl-11210101-ab1c-harness-x9z0".to_owned(),
    }
}

/// A VM of another Dataflow job of the same project, which runs as the same account.
pub fn other_machine() -> GoogleInstance {
    GoogleInstance {
        instance_id: "4570000000000000002".to_owned(),
        instance_name: "reports-etl-11210101-cd2e-harness-k4m7".to_owned(),
        ..orders_machine()
    }
}

/// The job that releases orders.
pub fn release_job() -> GitLabJob {
    GitLabJob {
        project_id: "4711".to_owned(),
        project_path: "data/orders".to_owned(),
        namespace_id: "72".to_owned(),
        job_project_id: "4711".to_owned(),
        branch: "main".to_owned(),
        protected: true,
        source: "push".to_owned(),
        environment: Some("production".to_owned()),
        user_access_level: "maintainer".to_owned(),
    }
}

/// The pod of the pipeline.
pub fn orders_pod() -> KubernetesPod {
    KubernetesPod {
        namespace: "etl".to_owned(),
        service_account: "orders-worker".to_owned(),
        pod: "orders-worker-0".to_owned(),
    }
}
