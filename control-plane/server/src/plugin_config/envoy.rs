//! A whole Envoy configuration around a filter, for those who run Envoy without a mesh or want to try the filter.
//!
//! INVARIANT: a listener without TLS knows no peers ([`Peers::None`]): what a caller there says of itself proves nothing.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{Peers, PluginConfig};
use crate::transport::VerifiedPeer;

/// One Envoy with one listener.
#[derive(Debug, Clone)]
pub struct EnvoyProxy {
    /// The filter module's file.
    pub module: PathBuf,
    /// Where it listens.
    pub listen: SocketAddr,
    /// What it guards.
    pub upstream: HostPort,
    /// Where filters connect to the control plane.
    pub control_plane: HostPort,
    /// Folder with certificate, key and authorities; absent: everything is in plain text.
    pub identity: Option<PathBuf>,
    /// The SPIFFE id of the control plane, where it is called by mutual TLS; needs `identity`.
    pub control_plane_id: Option<VerifiedPeer>,
    /// Whether a Guard in Enforce mode covers where it listens, for who reads it.
    pub is_enforced: bool,
}

/// A host name or address, with its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    host: String,
    port: u16,
}

/// The files of [`EnvoyProxy::identity`], as Istio's agent writes them (`OUTPUT_CERTS`).
pub const IDENTITY_FILES: [&str; 3] = ["cert-chain.pem", "key.pem", "root-cert.pem"];

// === impl HostPort ===

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no HOST:PORT, e.g. 127.0.0.1:8081 or orders.internal:8081");
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { host: address.ip().to_string(), port: address.port() });
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let is_name =
            host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
        match port.parse() {
            Ok(port @ 1..) if is_name && !host.is_empty() => Ok(Self { host: host.to_owned(), port }),
            _ => Err(wrong()),
        }
    }
}

// === impl EnvoyProxy ===

impl EnvoyProxy {
    /// What Envoy's `--config-path` reads, YAML. `cluster`: the name by which `config` calls the control plane.
    ///
    /// # Errors
    /// When `config` cannot be written as JSON.
    pub fn yaml(&self, config: &PluginConfig, cluster: &str) -> serde_json::Result<String> {
        let (namespace, name) = config.workload.split_once('/').unwrap_or(("", &config.workload));
        let node = quoted(format!("{name}.{namespace}"));
        let plugin = serde_json::to_string(config)?.replace('\'', "''");
        let whom = match config.peers {
            Peers::None => "it knows no mesh peers; callers prove who they are with tokens",
            Peers::Mesh => "callers need a certificate of the mesh's CA",
            Peers::Waypoint => "the peer is the one whose tunnel ended here",
        };
        let now = if self.is_enforced {
            ""
        } else {
            "\n# NOW EVERY REQUEST PASSES: its Guard is in Shadow mode, and only reports."
        };
        Ok(format!(
            "\
# Envoy with Tidegate's filter for {workload}: {whom}.{now}
node:
  id: {node}
  cluster: {node}
  metadata: {{NAME: {node}, NAMESPACE: {namespace}, WORKLOAD_NAME: {name}}}

# How many connections it takes at once.
overload_manager:
  resource_monitors:
  - name: envoy.resource_monitors.global_downstream_max_connections
    typed_config:
      \"@type\": type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig
      max_active_downstream_connections: 50000

admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}

static_resources:
  listeners:
  - name: inbound
    address: {listen}
    traffic_direction: INBOUND
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: inbound
          codec_type: AUTO
          # Rules are about paths: both sides must mean the same one.
          normalize_path: true
          # What callers say of their certificates is not believed.
          forward_client_cert_details: SANITIZE
          # Callers come directly: what they say of who called them is not believed either.
          use_remote_address: true
          # Streams may last; sending headers may not.
          stream_idle_timeout: 0s
          request_headers_timeout: 10s
          http_filters:
          - name: envoy.filters.http.wasm
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
              config:
                name: tidegate
                root_id: tidegate
                # Requests are refused until a failed VM is replaced. FAIL_OPEN would let them pass unguarded.
                failure_policy: FAIL_RELOAD
                vm_config:
                  runtime: envoy.wasm.runtime.v8
                  code: {{local: {{filename: {module}}}}}
                configuration:
                  \"@type\": type.googleapis.com/google.protobuf.StringValue
                  value: '{plugin}'
          - name: envoy.filters.http.router
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          route_config:
            virtual_hosts:
            - name: all
              domains: [\"*\"]
              routes:
              - match: {{prefix: /}}
                route: {{cluster: upstream, timeout: 0s}}
          access_log:
          - name: envoy.access_loggers.stdout
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
              log_format:
                text_format_source:
                  inline_string: \"%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %FILTER_STATE(wasm.tidegate.decision:PLAIN)%\\n\"
{downstream_tls}
  clusters:
  - name: upstream
{upstream}    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        use_downstream_protocol_config: {{http_protocol_options: {{}}, http2_protocol_options: {{}}}}
  - name: {cluster}
{control_plane}    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config:
          # Notices a control plane that has silently gone.
          http2_protocol_options: {{connection_keepalive: {{interval: 10s, timeout: 5s}}}}
{upstream_tls}",
            workload = config.workload,
            namespace = quoted(namespace),
            name = quoted(name),
            listen = socket_address(&self.listen.ip().to_string(), self.listen.port()),
            module = quoted(self.module.display()),
            downstream_tls = self.downstream_tls(),
            upstream = endpoint("upstream", &self.upstream),
            cluster = quoted(cluster),
            control_plane = endpoint(cluster, &self.control_plane),
            upstream_tls = self.upstream_tls(),
        ))
    }

    fn downstream_tls(&self) -> String {
        let Some(folder) = &self.identity else { return String::new() };
        format!(
            "      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
{}",
            certificates(folder, "            ", None)
        )
    }

    fn upstream_tls(&self) -> String {
        let (Some(folder), Some(server)) = (&self.identity, &self.control_plane_id) else {
            return String::new();
        };
        format!(
            "    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context:
{}",
            certificates(folder, "          ", Some(server))
        )
    }
}

/// A text as YAML and JSON write it.
fn quoted(text: impl Display) -> String {
    serde_json::Value::from(text.to_string()).to_string()
}

fn socket_address(host: &str, port: u16) -> String {
    format!("{{socket_address: {{address: {}, port_value: {port}}}}}", quoted(host))
}

/// Where a cluster is.
fn endpoint(cluster: &str, at: &HostPort) -> String {
    let kind = match at.host.parse::<IpAddr>() {
        Ok(_) => "STATIC",
        // Envoy would try IPv6 first, also where the machine has none.
        Err(_) => "STRICT_DNS\n    dns_lookup_family: V4_PREFERRED",
    };
    format!(
        "    type: {kind}
    connect_timeout: 5s
    load_assignment:
      cluster_name: {}
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {}}}}}]}}]
",
        quoted(cluster),
        socket_address(&at.host, at.port),
    )
}

/// Own certificate and the authorities that are believed, from the files of `folder`. Envoy reads them when it starts.
fn certificates(folder: &Path, indent: &str, server: Option<&VerifiedPeer>) -> String {
    let [chain, key, authorities] = IDENTITY_FILES.map(|file| quoted(folder.join(file).display()));
    let names = server.map_or_else(String::new, |server| {
        format!(
            "{indent}  match_typed_subject_alt_names: [{{san_type: URI, matcher: {{exact: {}}}}}]\n",
            quoted(server)
        )
    });
    format!(
        "{indent}tls_certificates: [{{certificate_chain: {{filename: {chain}}}, private_key: {{filename: {key}}}}}]
{indent}validation_context:
{indent}  trusted_ca: {{filename: {authorities}}}
{names}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_a_port() {
        let parsed = |text: &str| text.parse::<HostPort>().map(|at| (at.host, at.port));
        assert_eq!(parsed("127.0.0.1:8081"), Ok(("127.0.0.1".into(), 8081)));
        assert_eq!(parsed("[::1]:8081"), Ok(("::1".into(), 8081)));
        assert_eq!(parsed("orders.internal:8081"), Ok(("orders.internal".into(), 8081)));
        for wrong in
            ["", "orders", ":80", "orders:", "orders:0", "orders:65536", "a b:80", "http://a:80", "a\"}:80"]
        {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn whatever_a_file_is_called_it_stays_one_text() {
        let mut proxy = EnvoyProxy {
            module: PathBuf::from("a \"b\": {'c'}\n# d"),
            listen: "127.0.0.1:0".parse().unwrap(),
            upstream: "127.0.0.1:8081".parse().unwrap(),
            control_plane: "tidegate.internal:15080".parse().unwrap(),
            identity: Some(PathBuf::from("/e: f")),
            control_plane_id: Some("spiffe://prod.example/ns/tidegate-system/sa/tidegate".parse().unwrap()),
            is_enforced: false,
        };
        let mut config = PluginConfig::new("sales/orders-api", Vec::new());
        config.interlock = Some("it's".into());
        let yaml = proxy.yaml(&config, "tidegate").unwrap();
        let value: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
        let listener = &value["static_resources"]["listeners"][0]["filter_chains"][0];
        let wasm = &listener["filters"][0]["typed_config"]["http_filters"][0]["typed_config"]["config"];
        assert_eq!(wasm["vm_config"]["code"]["local"]["filename"], "a \"b\": {'c'}\n# d");
        let plugin = wasm["configuration"]["value"].as_str().unwrap();
        let plugin: serde_json::Value = serde_json::from_str(plugin).unwrap();
        assert_eq!(plugin, serde_json::to_value(&config).unwrap());
        let tls = &listener["transport_socket"]["typed_config"];
        assert_eq!(tls["require_client_certificate"], true);
        assert_eq!(
            tls["common_tls_context"]["validation_context"]["trusted_ca"]["filename"],
            "/e: f/root-cert.pem"
        );
        let cluster = &value["static_resources"]["clusters"][1];
        assert_eq!(cluster["type"], "STRICT_DNS");
        assert!(cluster["transport_socket"].is_object());
        assert!(yaml.contains("# NOW EVERY REQUEST PASSES"), "{yaml}");

        proxy.is_enforced = true;
        proxy.identity = None;
        let yaml = proxy.yaml(&config, "tidegate").unwrap();
        assert!(!yaml.contains("transport_socket:") && !yaml.contains("PASSES"), "{yaml}");
    }
}
