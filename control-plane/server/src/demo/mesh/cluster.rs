//! Where requests go.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::certificate;
use crate::demo::pki::Credential;

/// Where requests are forwarded to.
#[derive(Debug, Clone)]
pub struct Cluster {
    name: String,
    address: SocketAddr,
    protocol: UpstreamProtocol,
    tls: Option<UpstreamTls>,
}

/// The version of HTTP towards a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// The one that the request came in with.
    AsDownstream,
    /// HTTP/2, as gRPC needs.
    Http2,
}

/// TLS towards a cluster.
#[derive(Debug, Clone)]
pub struct UpstreamTls {
    /// The proxy's own certificate.
    pub credential: Option<Credential>,
    /// Who must have issued the server's certificate, PEM.
    pub authority: String,
    /// The SPIFFE id that the server's certificate must have.
    pub server: Option<String>,
}

// === impl Cluster ===

impl Cluster {
    /// In plain text, with the version of HTTP that requests come in with.
    pub fn new(name: &str, address: SocketAddr) -> Self {
        Self { name: name.to_owned(), address, protocol: UpstreamProtocol::AsDownstream, tls: None }
    }

    /// The version of HTTP.
    pub fn protocol(mut self, protocol: UpstreamProtocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// Over TLS.
    pub fn tls(mut self, tls: UpstreamTls) -> Self {
        self.tls = Some(tls);
        self
    }

    pub(super) fn to_json(&self) -> Value {
        let unlimited = u32::MAX;
        let address =
            json!({"socket_address": {"address": self.address.ip(), "port_value": self.address.port()}});
        let http2 = json!({"connection_keepalive": {"interval": "10s", "timeout": "5s"}});
        let protocol = match self.protocol {
            UpstreamProtocol::AsDownstream => {
                json!({"use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": http2}})
            }
            UpstreamProtocol::Http2 => json!({"explicit_http_config": {"http2_protocol_options": http2}}),
        };
        let mut options = protocol;
        options["@type"] =
            "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions".into();
        let mut cluster = json!({
            "name": self.name,
            "type": "STATIC",
            "connect_timeout": "5s",
            "load_assignment": {
                "cluster_name": self.name,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
            },
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options,
            },
            // As Istio; Envoy's own of 1024 are for other purposes.
            "circuit_breakers": {"thresholds": [{
                "max_connections": unlimited,
                "max_pending_requests": unlimited,
                "max_requests": unlimited,
                "max_retries": unlimited,
            }]},
        });
        if let Some(tls) = &self.tls {
            cluster["transport_socket"] = tls.to_json();
        }
        cluster
    }
}

// === impl UpstreamTls ===

impl UpstreamTls {
    fn to_json(&self) -> Value {
        let mut validation = json!({"trusted_ca": {"inline_string": self.authority}});
        if let Some(server) = &self.server {
            validation["match_typed_subject_alt_names"] =
                json!([{"san_type": "URI", "matcher": {"exact": server}}]);
        }
        let mut common = json!({ "validation_context": validation });
        if let Some(credential) = &self.credential {
            common["tls_certificates"] = json!([certificate(credential)]);
        }
        json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": common,
            },
        })
    }
}
