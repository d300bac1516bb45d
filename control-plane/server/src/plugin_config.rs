//! What a filter is configured with: who it is, whom to believe, where the control plane is.

mod envoy;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::bundle::TrustedKey;

pub use envoy::{EnvoyProxy, HostPort, IDENTITY_FILES};

/// The JSON of Envoy's and Istio's `pluginConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PluginConfig {
    /// `namespace/name`: the audience of Bundles.
    pub workload: String,
    /// Where a peer is to be found.
    pub peers: Peers,
    /// Without it only the warm start is enforced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<ControlPlane>,
    /// Whose signature on a Bundle counts.
    pub keys: Vec<TrustedKey>,
    /// Serialized `tidegate.v1.Bundle` in base64: what is enforced before the control plane is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    /// What happens to requests before the first Bundle is there; absent: the filter's defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cold_start: Option<ColdStart>,
    /// Signatures are verified by the proxy's cryptography or not at all.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub fips: bool,
    /// What Istio's own policy for the workload may demand of requests that the filter lets through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interlock: Option<String>,
}

/// Where a peer is to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Peers {
    /// In the client certificate: the listener accepts those of the mesh's CA only.
    Mesh,
    /// Where Istio's waypoints keep it: the certificate there is the one of the node's proxy.
    Waypoint,
    /// Nowhere: the listener accepts certificates of other CAs, or none (a gateway).
    None,
}

/// How to reach the control plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ControlPlane {
    /// Name of the Envoy cluster.
    pub cluster: String,
    /// Authority of the gRPC stream.
    pub authority: String,
}

/// How long and how many requests wait for the first Bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ColdStart {
    /// Milliseconds; at most 1000.
    pub hold_ms: u32,
    /// Requests.
    pub max_held: u32,
}

// === impl PluginConfig ===

impl PluginConfig {
    /// For this workload, in the mesh, without control plane or warm start.
    pub fn new(workload: impl Into<String>, keys: Vec<TrustedKey>) -> Self {
        Self {
            workload: workload.into(),
            peers: Peers::Mesh,
            control_plane: None,
            keys,
            bundle: None,
            cold_start: None,
            fips: false,
            interlock: None,
        }
    }

    /// With a warm start: a serialized `tidegate.v1.Bundle`.
    pub fn with_bundle(mut self, bundle: &[u8]) -> Self {
        self.bundle = Some(STANDARD.encode(bundle));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_is_what_the_filter_reads() {
        let key = TrustedKey { id: "k1".into(), public_key: "MFkw".into() };
        let mut config = PluginConfig::new("sales/orders-api", vec![key]).with_bundle(b"bundle");
        config.peers = Peers::None;
        config.control_plane = Some(ControlPlane { cluster: "tidegate".into(), authority: "t.svc".into() });
        config.cold_start = Some(ColdStart { hold_ms: 500, max_held: 16 });
        config.fips = true;
        config.interlock = Some("i".into());
        assert_eq!(
            serde_json::to_value(&config).unwrap(),
            serde_json::json!({
                "workload": "sales/orders-api",
                "peers": "none",
                "controlPlane": {"cluster": "tidegate", "authority": "t.svc"},
                "keys": [{"id": "k1", "publicKey": "MFkw"}],
                "bundle": "YnVuZGxl",
                "coldStart": {"holdMs": 500, "maxHeld": 16},
                "fips": true,
                "interlock": "i",
            })
        );
    }
}
