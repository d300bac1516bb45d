//! Envoy configurations of a small mesh, as Istio would write them where that matters.
//!
//! A [`ProxyConfig`] is one Envoy: listeners that forward to clusters. Presets give the roles of the demo and the
//! tests: [`service_side`], [`worker_side`], [`gateway`]; whoever needs another mix composes it from the parts.
//!
//! INVARIANT: everything listens on loopback, on ports that Envoy chooses; certificates and keys are inline, so that
//! a configuration needs no file but the filter module.

mod cluster;
mod filters;
mod istio;
mod presets;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::pki::Credential;

pub use cluster::{Cluster, UpstreamProtocol, UpstreamTls, sds_secrets};
pub use filters::{HttpFilter, OnFailure, WasmFilter};
pub use istio::Tcp;
pub use presets::{GATEWAY, INBOUND, METRICS, RAW, Worker, gateway, service_side, worker_side};

/// The name of the cluster by which a filter reaches the control plane.
pub const CONTROL_PLANE: &str = "tidegate";

/// One Envoy.
#[derive(Debug, Clone)]
pub struct ProxyConfig {
    node: Node,
    listeners: Vec<Listener>,
    clusters: Vec<Cluster>,
    /// Istio's `extraStatTags`, where statistics are as Istio configures them.
    stat_tags: Option<Vec<String>>,
}

/// Who the proxy says it is, in Istio's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Workload name; the pod is its first.
    pub workload: String,
    /// Kubernetes service account.
    pub service_account: String,
}

/// A port that is listened on.
#[derive(Debug, Clone)]
pub struct Listener {
    name: String,
    direction: Direction,
    tls: DownstreamTls,
    kind: ListenerKind,
}

/// Which way requests go, seen from the proxy's workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To it.
    Inbound,
    /// From it, or through it.
    Outbound,
}

/// What a listener demands before HTTP.
#[derive(Debug, Clone, Default)]
pub enum DownstreamTls {
    /// Nothing.
    #[default]
    Plain,
    /// TLS, without asking for a client certificate.
    Server(Credential),
    /// TLS with a client certificate of one of these authorities (PEM).
    Mutual {
        /// The listener's own.
        credential: Credential,
        /// Who may have issued the client's.
        authorities: Vec<String>,
        /// Whether callers without one are refused.
        required: bool,
    },
}

#[derive(Debug, Clone)]
enum ListenerKind {
    Http(Box<HttpListener>),
    Tcp { cluster: String },
    Istio { http: Box<HttpListener>, tcp: Tcp },
}

/// How HTTP is handled.
#[derive(Debug, Clone)]
pub struct HttpListener {
    filters: Vec<HttpFilter>,
    cluster: String,
    limits: Limits,
    normalization: Normalization,
    access_log: Option<AccessLog>,
}

/// How much a listener takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// All request headers together, KiB.
    pub headers_kib: u32,
    /// Number of request headers.
    pub headers: u32,
}

/// What is done to a path before filters see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Normalization {
    /// Nothing.
    Off,
    /// Istio's `BASE`, its default: RFC 3986 normalisation without merging slashes or decoding `%2F`.
    Base,
}

/// One JSON object per request, in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// The file.
    pub path: PathBuf,
    /// Member names and Envoy's format strings.
    pub fields: Vec<(String, String)>,
}

// === impl ProxyConfig ===

impl ProxyConfig {
    /// Without listeners.
    pub fn new(node: Node) -> Self {
        Self { node, listeners: Vec::new(), clusters: Vec::new(), stat_tags: None }
    }

    /// One more listener.
    pub fn listener(mut self, listener: Listener) -> Self {
        self.listeners.push(listener);
        self
    }

    /// One more cluster.
    pub fn cluster(mut self, cluster: Cluster) -> Self {
        self.clusters.push(cluster);
        self
    }

    /// Statistics, their names and labels are those that Istio's proxies have; `extra` is its `extraStatTags`.
    pub fn istio_statistics(mut self, extra: &[&str]) -> Self {
        self.stat_tags = Some(extra.iter().map(|tag| (*tag).to_owned()).collect());
        self
    }

    /// The cluster [`CONTROL_PLANE`]: gRPC in plain text, with pings that notice a dead control plane.
    pub fn control_plane(self, address: SocketAddr) -> Self {
        self.cluster(Cluster::new(CONTROL_PLANE, address).protocol(UpstreamProtocol::Http2))
    }

    /// The same by mutual TLS.
    pub fn control_plane_tls(self, address: SocketAddr, tls: UpstreamTls) -> Self {
        self.cluster(Cluster::new(CONTROL_PLANE, address).protocol(UpstreamProtocol::Http2).tls(tls))
    }

    /// The bootstrap. Envoy adds the admin interface that [`super::envoy::Envoy::start`] puts in.
    pub fn to_json(&self) -> Value {
        let statistics = self.stat_tags.as_ref().map(|tags| istio::statistics(tags));
        json!({
            "node": self.node.to_json(),
            "stats_config": statistics.unwrap_or_else(|| json!({})),
            "static_resources": {
                "listeners": self.listeners.iter().map(Listener::to_json).collect::<Vec<_>>(),
                "clusters": self.clusters.iter().map(Cluster::to_json).collect::<Vec<_>>(),
            },
            // Envoy warns about a missing limit at every start.
            "overload_manager": {"resource_monitors": [{
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                    "max_active_downstream_connections": 100_000,
                },
            }]},
        })
    }
}

// === impl Node ===

impl Node {
    /// A workload with its service account.
    pub fn new(namespace: &str, workload: &str, service_account: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            workload: workload.to_owned(),
            service_account: service_account.to_owned(),
        }
    }

    fn to_json(&self) -> Value {
        let Self { namespace, workload, service_account } = self;
        json!({
            "id": format!("sidecar~127.0.0.1~{workload}-0.{namespace}~{namespace}.svc.cluster.local"),
            "cluster": format!("{workload}.{namespace}"),
            "metadata": {
                "NAME": format!("{workload}-0"),
                "NAMESPACE": namespace,
                "WORKLOAD_NAME": workload,
                "SERVICE_ACCOUNT": service_account,
            },
        })
    }
}

// === impl Listener ===

impl Listener {
    /// An inbound HTTP listener in plain text.
    pub fn http(name: &str, http: HttpListener) -> Self {
        Self::of(name, ListenerKind::Http(Box::new(http)))
    }

    /// An inbound listener that forwards bytes, past every HTTP filter.
    pub fn tcp(name: &str, cluster: &str) -> Self {
        Self::of(name, ListenerKind::Tcp { cluster: cluster.to_owned() })
    }

    /// An inbound listener as Istio writes it: HTTP where the connection says so, bytes to the same cluster otherwise.
    /// Needs [`DownstreamTls::Mutual`].
    pub fn istio(name: &str, http: HttpListener, tcp: Tcp) -> Self {
        Self::of(name, ListenerKind::Istio { http: Box::new(http), tcp })
    }

    fn of(name: &str, kind: ListenerKind) -> Self {
        Self { name: name.to_owned(), direction: Direction::Inbound, tls: DownstreamTls::Plain, kind }
    }

    /// Which way its requests go.
    pub fn direction(mut self, direction: Direction) -> Self {
        self.direction = direction;
        self
    }

    /// What it demands before HTTP.
    pub fn tls(mut self, tls: DownstreamTls) -> Self {
        self.tls = tls;
        self
    }

    fn to_json(&self) -> Value {
        let direction = match self.direction {
            Direction::Inbound => "INBOUND",
            Direction::Outbound => "OUTBOUND",
        };
        let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": 0}});
        let filter = match &self.kind {
            ListenerKind::Istio { http, tcp } => {
                let socket = self.tls.to_json().unwrap_or_default();
                let http_part = http.to_json(&self.name, self.direction);
                return json!({
                    "name": self.name,
                    "address": address,
                    "traffic_direction": direction,
                    "listener_filters": istio::listener_filters(),
                    "filter_chains": istio::filter_chains(&self.name, http_part, &http.cluster, *tcp, &socket),
                });
            }
            ListenerKind::Http(http) => json!({
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": http.to_json(&self.name, self.direction),
            }),
            ListenerKind::Tcp { cluster } => json!({
                "name": "envoy.filters.network.tcp_proxy",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                    "stat_prefix": self.name,
                    "cluster": cluster,
                },
            }),
        };
        let mut chain = json!({ "filters": [filter] });
        if let Some(socket) = self.tls.to_json() {
            chain["transport_socket"] = socket;
        }
        json!({
            "name": self.name,
            "address": address,
            "traffic_direction": direction,
            "filter_chains": [chain],
        })
    }
}

// === impl DownstreamTls ===

impl DownstreamTls {
    fn to_json(&self) -> Option<Value> {
        let (credential, validation, required) = match self {
            Self::Plain => return None,
            Self::Server(credential) => (credential, None, false),
            Self::Mutual { credential, authorities, required } => {
                (credential, Some(json!({"trusted_ca": {"inline_string": authorities.concat()}})), *required)
            }
        };
        let mut common = json!({
            "tls_certificates": [certificate(credential)],
            "alpn_protocols": ["h2", "http/1.1"],
        });
        if let Some(validation) = validation {
            common["validation_context"] = validation;
        }
        Some(json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "require_client_certificate": required,
                "common_tls_context": common,
            },
        }))
    }
}

// === impl HttpListener ===

impl HttpListener {
    /// Forwards everything to `cluster`, with Envoy's own limits and Istio's path normalisation.
    pub fn forward_to(cluster: &str) -> Self {
        Self {
            filters: Vec::new(),
            cluster: cluster.to_owned(),
            limits: Limits::default(),
            normalization: Normalization::Base,
            access_log: None,
        }
    }

    /// One more filter, behind those before.
    pub fn filter(mut self, filter: impl Into<HttpFilter>) -> Self {
        self.filters.push(filter.into());
        self
    }

    /// How much it takes.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// What is done to paths.
    pub fn normalization(mut self, normalization: Normalization) -> Self {
        self.normalization = normalization;
        self
    }

    /// Where requests are written down.
    pub fn access_log(mut self, access_log: AccessLog) -> Self {
        self.access_log = Some(access_log);
        self
    }

    fn to_json(&self, name: &str, direction: Direction) -> Value {
        let router = json!({
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        });
        let filters: Vec<Value> =
            self.filters.iter().map(HttpFilter::to_json).chain(std::iter::once(router)).collect();
        let mut manager = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": name,
            "codec_type": "AUTO",
            "http_filters": filters,
            "route_config": {
                "name": name,
                "virtual_hosts": [{
                    "name": "all",
                    "domains": ["*"],
                    // Without a time limit: streams may last.
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": self.cluster, "timeout": "0s"}}],
                }],
                // A route that names a cluster that does not exist is a mistake of ours.
                "validate_clusters": true,
            },
            "stream_idle_timeout": "0s",
            // As Istio: the remote address is what X-Forwarded-For says.
            "use_remote_address": false,
            "normalize_path": self.normalization == Normalization::Base,
            "merge_slashes": false,
            "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
            "max_request_headers_kb": self.limits.headers_kib,
            "common_http_protocol_options": {"max_headers_count": self.limits.headers},
            "upgrade_configs": [{"upgrade_type": "websocket"}],
        });
        if direction == Direction::Inbound {
            manager["forward_client_cert_details"] = "APPEND_FORWARD".into();
            manager["set_current_client_cert_details"] = json!({"subject": true, "uri": true, "dns": true});
        }
        if let Some(log) = &self.access_log {
            manager["access_log"] = json!([log.to_json()]);
        }
        manager
    }
}

// === impl Limits ===

impl Limits {
    /// All that Envoy can be told to take, for hostile requests.
    pub const HIGHEST: Self = Self { headers_kib: 8192, headers: 32_768 };
}

impl Default for Limits {
    /// Envoy's.
    fn default() -> Self {
        Self { headers_kib: 60, headers: 100 }
    }
}

// === impl AccessLog ===

impl AccessLog {
    fn to_json(&self) -> Value {
        let format: Map<String, Value> =
            self.fields.iter().map(|(name, format)| (name.clone(), format.as_str().into())).collect();
        json!({
            "name": "envoy.access_loggers.file",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                "path": self.path,
                "log_format": {"json_format": format},
            },
        })
    }
}

fn certificate(credential: &Credential) -> Value {
    json!({
        "certificate_chain": {"inline_string": credential.chain_pem},
        "private_key": {"inline_string": credential.key_pem},
    })
}

#[cfg(test)]
mod tests;
