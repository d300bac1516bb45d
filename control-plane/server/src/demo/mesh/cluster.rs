//! Where requests go.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

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
    from: Option<IpAddr>,
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
    /// A folder with [`sds_secrets`]; takes the place of `credential` and `authority`, and is read again when something is
    /// renamed in it.
    pub secrets: Option<PathBuf>,
}

/// Files for the secrets of an [`UpstreamTls`], by name, as Envoy reads them: certificate and key, and the authority. To be
/// put in place by renaming.
pub fn sds_secrets(credential: &Credential, authority: &str) -> [(&'static str, String); 2] {
    let secret = |name: &str, kind: &str, value: Value| {
        let mut secret = json!({
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            "name": name,
        });
        secret[kind] = value;
        json!({ "resources": [secret] }).to_string()
    };
    [
        (CERTIFICATE, secret("certificate", "tls_certificate", certificate(credential))),
        (
            AUTHORITY,
            secret("authority", "validation_context", json!({"trusted_ca": {"inline_string": authority}})),
        ),
    ]
}

const CERTIFICATE: &str = "certificate.json";
const AUTHORITY: &str = "authority.json";

// === impl Cluster ===

impl Cluster {
    /// In plain text, with the version of HTTP that requests come in with.
    pub fn new(name: &str, address: SocketAddr) -> Self {
        Self {
            name: name.to_owned(),
            address,
            protocol: UpstreamProtocol::AsDownstream,
            tls: None,
            from: None,
        }
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

    /// From this address of the machine, as Istio's inbound connections come from 127.0.0.6.
    pub fn from_address(mut self, from: IpAddr) -> Self {
        self.from = Some(from);
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
        if let Some(from) = self.from {
            cluster["upstream_bind_config"] = json!({"source_address": {"address": from, "port_value": 0}});
        }
        if let Some(tls) = &self.tls {
            cluster["transport_socket"] = tls.to_json();
        }
        cluster
    }
}

// === impl UpstreamTls ===

impl UpstreamTls {
    fn to_json(&self) -> Value {
        let names = |server: &String| json!([{"san_type": "URI", "matcher": {"exact": server}}]);
        let common = match &self.secrets {
            Some(folder) => {
                let names = self.server.as_ref().map(names).unwrap_or_else(|| json!([]));
                json!({
                    "combined_validation_context": {
                        "default_validation_context": {"match_typed_subject_alt_names": names},
                        "validation_context_sds_secret_config": sds("authority", folder, AUTHORITY),
                    },
                    "tls_certificate_sds_secret_configs": [sds("certificate", folder, CERTIFICATE)],
                })
            }
            None => {
                let mut validation = json!({"trusted_ca": {"inline_string": self.authority}});
                if let Some(server) = &self.server {
                    validation["match_typed_subject_alt_names"] = names(server);
                }
                let mut common = json!({ "validation_context": validation });
                if let Some(credential) = &self.credential {
                    common["tls_certificates"] = json!([certificate(credential)]);
                }
                common
            }
        };
        json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": common,
            },
        })
    }
}

fn sds(name: &str, folder: &Path, file: &str) -> Value {
    json!({
        "name": name,
        "sds_config": {
            "resource_api_version": "V3",
            "path_config_source": {"path": folder.join(file), "watched_directory": {"path": folder}},
        },
    })
}
