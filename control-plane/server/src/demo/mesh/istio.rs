//! Parts of a proxy as Istio writes them: an inbound listener, which is HTTP for connections that say so in ALPN and bytes for
//! all others; and which statistics there are, with which labels.

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

/// Where Istio finds labels in names of statistics, before and behind `extraStatTags`
/// (`tools/packaging/common/envoy_bootstrap.json`).
const TAGS_BEFORE: [(&str, &str); 8] = [
    ("cluster_name", r"^cluster\.((.+?(\..+?\.svc\.cluster\.local)?)\.)"),
    ("tcp_prefix", r"^tcp\.((.*?)\.)\w+?$"),
    ("response_code", r"_rq(_(\d{3}))$"),
    ("response_code_class", r"_rq(_(\dxx))$"),
    (
        "http_conn_manager_listener_prefix",
        r"^listener(?=\.).*?\.http\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)",
    ),
    ("http_conn_manager_prefix", r"^http\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)"),
    ("listener_address", r"^listener\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)"),
    ("mongo_prefix", r"^mongo\.(.+?)\.(collection|cmd|cx_|op_|delays_|decoding_)(.*?)$"),
];
const TAGS_BEHIND: [(&str, &str); 7] = [
    ("cache", r"(cache\.(.+?)\.)"),
    ("component", r"(component\.(.+?)\.)"),
    ("tag", r"(tag\.(.+?);\.)"),
    ("wasm_filter", r"(wasm_filter\.(.+?)\.)"),
    ("authz_enforce_result", r"rbac(\.(allowed|denied))"),
    ("authz_dry_run_action", r"(\.istio_dry_run_(allow|deny)_)"),
    ("authz_dry_run_result", r"(\.shadow_(allowed|denied))"),
];

/// What statistics have to begin or end with, so that a proxy has them (`pkg/bootstrap/config.go`).
const STATISTICS: [&str; 8] = [
    "reporter=",
    "cluster_manager",
    "listener_manager",
    "server",
    "cluster.xds-grpc",
    "wasm",
    "component",
    "istio",
];
const STATISTICS_END: [&str; 4] = ["rbac.allowed", "rbac.denied", "shadow_allowed", "shadow_denied"];

/// `stats_config` of a bootstrap.
pub(super) fn statistics(extra: &[String]) -> Value {
    let tag = |(name, regex): (&str, &str)| json!({"tag_name": name, "regex": regex});
    let extra = extra.iter().map(|name| tag((name, &format!(r"({name}=\.=(.*?);\.;)"))));
    let tags: Vec<Value> =
        TAGS_BEFORE.into_iter().map(tag).chain(extra).chain(TAGS_BEHIND.into_iter().map(tag)).collect();
    let begin = STATISTICS.into_iter().map(|prefix| json!({"prefix": prefix}));
    let end = STATISTICS_END.into_iter().map(|suffix| json!({"suffix": suffix}));
    json!({
        "use_all_default_tags": false,
        "stats_tags": tags,
        "stats_matcher": {"inclusion_list": {"patterns": begin.chain(end).collect::<Vec<_>>()}},
    })
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
