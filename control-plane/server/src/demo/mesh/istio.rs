//! An inbound listener as Istio writes it: HTTP for connections that say so in ALPN, bytes for all others.

use serde_json::{Value, json};

/// What a client has to offer in ALPN for its connection to be HTTP
/// (`pilot/pkg/networking/core/listener_inbound.go`, `mtlsHTTPALPNs` and `plaintextHTTPALPNs`).
const HTTP_ALPN: [&str; 6] = ["istio-http/1.0", "istio-http/1.1", "istio-h2", "http/1.0", "http/1.1", "h2"];

/// What becomes of connections that are not HTTP. No HTTP filter sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tcp {
    /// They are forwarded: there is no AuthorizationPolicy.
    Unfenced,
    /// An AuthorizationPolicy allows what it can only say of HTTP. For TCP, Istio leaves such rules out, and an ALLOW policy
    /// without rules allows nothing.
    Fenced,
    /// An AuthorizationPolicy allows the port, as `tcpPorts` of a Guard make it.
    Allowed,
}

/// The filter chains. `http` is the HTTP part, `socket` the transport socket of both.
pub(super) fn filter_chains(name: &str, http: Value, cluster: &str, tcp: Tcp, socket: &Value) -> Value {
    let policies = match tcp {
        Tcp::Unfenced => None,
        Tcp::Fenced => Some(json!({})),
        Tcp::Allowed => {
            Some(json!({"tcp-ports": {"permissions": [{"any": true}], "principals": [{"any": true}]}}))
        }
    };
    let fence = policies.map(|policies| {
        json!({
            "name": "envoy.filters.network.rbac",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC",
                "stat_prefix": "tcp.",
                "rules": {"action": "ALLOW", "policies": policies},
            },
        })
    });
    let proxy = json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": name,
            "cluster": cluster,
        },
    });
    let bytes: Vec<Value> = fence.into_iter().chain([proxy]).collect();
    json!([
        {
            "name": format!("{name}-http"),
            "filter_chain_match": {"transport_protocol": "tls", "application_protocols": HTTP_ALPN},
            "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": http}],
            "transport_socket": socket,
        },
        {
            "name": format!("{name}-tcp"),
            "filter_chain_match": {"transport_protocol": "tls"},
            "filters": bytes,
            "transport_socket": socket,
        },
    ])
}

/// What tells TLS and ALPN before a chain is chosen.
pub(super) fn listener_filters() -> Value {
    json!([{
        "name": "envoy.filters.listener.tls_inspector",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
        },
    }])
}
