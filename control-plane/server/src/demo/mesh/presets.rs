//! The roles of the demo's proxies.

use std::net::SocketAddr;

use super::{
    Cluster, Direction, DownstreamTls, HttpListener, Listener, Node, Normalization, ProxyConfig, UpstreamTls,
};
use crate::demo::pki::Credential;

/// Name of the service's main listener.
pub const INBOUND: &str = "inbound";
/// Name of the service's second listener, which rules may leave unguarded.
pub const METRICS: &str = "metrics";
/// Name of the service's listener that bytes pass without any HTTP filter.
pub const RAW: &str = "raw";
/// Name of the gateway's listener.
pub const GATEWAY: &str = "gateway";

const UPSTREAM: &str = "upstream";
const SERVICE: &str = "service";

/// The service's own proxy, in front of the application at `upstream`: [`INBOUND`] and [`METRICS`], both with mTLS by
/// certificates of `mesh_authority` and with the same filters, and [`RAW`], which forwards bytes in plain text, past
/// every HTTP filter.
///
/// `configure` gets the HTTP part, which forwards to the application, to add filters and limits.
pub fn service_side(
    node: Node,
    credential: &Credential,
    mesh_authority: &str,
    upstream: SocketAddr,
    configure: impl FnOnce(HttpListener) -> HttpListener,
) -> ProxyConfig {
    let mutual = DownstreamTls::Mutual {
        credential: credential.clone(),
        authorities: vec![mesh_authority.to_owned()],
        required: true,
    };
    let http = configure(HttpListener::forward_to(UPSTREAM));
    ProxyConfig::new(node)
        .listener(Listener::http(INBOUND, http.clone()).tls(mutual.clone()))
        .listener(Listener::http(METRICS, http).tls(mutual))
        .listener(Listener::tcp(RAW, UPSTREAM))
        .cluster(Cluster::new(UPSTREAM, upstream))
}

/// A caller with a proxy.
#[derive(Debug, Clone, Copy)]
pub struct Worker<'a> {
    /// Name of its listener.
    pub listener: &'a str,
    /// Its certificate.
    pub credential: &'a Credential,
    /// Which port of the service it calls.
    pub service: SocketAddr,
}

/// The callers' proxy: for each worker a listener in plain text that forwards to the service by mTLS as that worker.
/// Paths are left as they are, so that the service's proxy sees them.
///
/// `service_id` is the SPIFFE id that the service's certificate must have.
pub fn worker_side(
    node: Node,
    workers: &[Worker<'_>],
    mesh_authority: &str,
    service_id: &str,
) -> ProxyConfig {
    workers.iter().fold(ProxyConfig::new(node), |config, worker| {
        let http = HttpListener::forward_to(worker.listener).normalization(Normalization::Off);
        let tls = towards(service_id, mesh_authority, worker.credential);
        config
            .listener(Listener::http(worker.listener, http).direction(Direction::Outbound))
            .cluster(Cluster::new(worker.listener, worker.service).tls(tls))
    })
}

/// A gateway: [`GATEWAY`], TLS without a client certificate for callers outside the mesh, then `http`'s filters, then
/// `service` by mTLS as the gateway's own workload.
pub fn gateway(
    node: Node,
    server: &Credential,
    workload: &Credential,
    mesh_authority: &str,
    service: SocketAddr,
    service_id: &str,
    configure: impl FnOnce(HttpListener) -> HttpListener,
) -> ProxyConfig {
    let listener = Listener::http(GATEWAY, configure(HttpListener::forward_to(SERVICE)))
        .tls(DownstreamTls::Server(server.clone()))
        .direction(Direction::Outbound);
    ProxyConfig::new(node).listener(listener).cluster(Cluster::new(SERVICE, service).tls(towards(
        service_id,
        mesh_authority,
        workload,
    )))
}

fn towards(service_id: &str, mesh_authority: &str, credential: &Credential) -> UpstreamTls {
    UpstreamTls {
        credential: Some(credential.clone()),
        authority: mesh_authority.to_owned(),
        server: Some(service_id.to_owned()),
        secrets: None,
    }
}
