//! The plugin configuration: who this workload is, whom to believe, where the control plane is.
//!
//! Istio carries it as JSON through a protobuf `Struct`, where numbers become doubles: what must be exact is a string.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use prost::Message as _;
use serde::Deserialize;
use tidegate_identity::{Jwk, PublicKey};
use tidegate_proto::v1 as pb;

/// Longest inner message of the gRPC service that can be handed to the proxy as text: a protobuf length of up to 127 is
/// one ASCII byte.
const MAX_TARGET_BYTES: usize = 120;

/// First bytes of the DER form of every P-256 public key with an uncompressed point (RFC 5480).
const P256_SPKI_PREFIX: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01, 0x06, 0x08, 0x2A, 0x86,
    0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];

/// Checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// `namespace/name`: the audience of Bundles.
    pub workload: String,
    /// Where a peer is to be found.
    pub peers: Peers,
    /// The control plane; without it only the warm start is enforced.
    pub control_plane: Option<ControlPlane>,
    /// Keys whose signature on a Bundle counts, by id.
    pub trusted_keys: Vec<(String, PublicKey)>,
    /// Bundle to begin with.
    pub warm_start: Option<pb::Bundle>,
    /// How long requests may wait for the first Bundle.
    pub hold_ms: u64,
    /// How many may wait at once.
    pub max_held: usize,
}

/// Where a peer is to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Peers {
    /// In the client certificate, which this listener accepts from the mesh's CA only.
    Mesh,
    /// Nowhere: this listener accepts certificates of other CAs, or none.
    None,
}

/// How to reach the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlane {
    /// Envoy's serialised `GrpcService`: cluster and authority.
    pub service: String,
}

/// Why a configuration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    /// Not the JSON that is expected.
    #[error("plugin configuration: {0}")]
    Json(String),
    /// A field's value cannot be used.
    #[error("plugin configuration: `{field}`: {why}")]
    Field {
        /// The field's path.
        field: String,
        /// What is wrong, and what would be right.
        why: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConfigSpec {
    workload: String,
    peers: Peers,
    control_plane: Option<ControlPlaneSpec>,
    keys: Vec<KeySpec>,
    bundle: Option<String>,
    cold_start: Option<ColdStartSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ControlPlaneSpec {
    cluster: String,
    authority: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KeySpec {
    id: String,
    public_key: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ColdStartSpec {
    hold_ms: u64,
    max_held: usize,
}

/// `envoy.config.core.v3.GrpcService`, as far as it is needed.
#[derive(Clone, PartialEq, prost::Message)]
struct GrpcService {
    #[prost(message, optional, tag = "1")]
    envoy_grpc: Option<EnvoyGrpc>,
}

/// `envoy.config.core.v3.GrpcService.EnvoyGrpc`.
#[derive(Clone, PartialEq, prost::Message)]
struct EnvoyGrpc {
    #[prost(string, tag = "1")]
    cluster_name: String,
    #[prost(string, tag = "2")]
    authority: String,
}

// === impl Config ===

impl Config {
    /// Reads the plugin configuration.
    ///
    /// # Errors
    /// With the field and the reason. Nothing is guessed: a configuration that is not understood is not used.
    pub fn parse(json: &[u8]) -> Result<Self, InvalidConfig> {
        let spec: ConfigSpec =
            serde_json::from_slice(json).map_err(|error| InvalidConfig::Json(error.to_string()))?;
        let field =
            |field: &str, why: &str| InvalidConfig::Field { field: field.to_owned(), why: why.to_owned() };
        if !spec
            .workload
            .split_once('/')
            .is_some_and(|(namespace, name)| !namespace.is_empty() && !name.is_empty() && !name.contains('/'))
        {
            return Err(field("workload", "must be `namespace/name`"));
        }
        if spec.keys.is_empty() {
            return Err(field(
                "keys",
                "must name at least one key; without any, no Bundle could be believed",
            ));
        }
        let trusted_keys = spec
            .keys
            .iter()
            .enumerate()
            .map(|(position, key)| match p256_key(&key.public_key) {
                Some(public) if !key.id.is_empty() => Ok((key.id.clone(), public)),
                _ => Err(field(
                    &format!("keys[{position}]"),
                    "needs an `id` and a `publicKey`: base64 of a P-256 SubjectPublicKeyInfo in DER form",
                )),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let control_plane = match spec.control_plane {
            None => None,
            Some(target) => Some(ControlPlane::new(&target.cluster, &target.authority)?),
        };
        let warm_start = match spec.bundle {
            None => None,
            Some(text) => Some(
                BASE64_STANDARD
                    .decode(text)
                    .ok()
                    .and_then(|bytes| pb::Bundle::decode(bytes.as_slice()).ok())
                    .ok_or_else(|| field("bundle", "is not base64 of a serialised Bundle"))?,
            ),
        };
        if control_plane.is_none() && warm_start.is_none() {
            return Err(field(
                "controlPlane",
                "is missing, and so is `bundle`: there would never be any rules",
            ));
        }
        let cold_start = spec.cold_start.unwrap_or(ColdStartSpec { hold_ms: 1000, max_held: 256 });
        if cold_start.hold_ms > 1000 {
            return Err(field("coldStart.holdMs", "must be 0 to 1000"));
        }
        if cold_start.max_held > 4096 {
            return Err(field("coldStart.maxHeld", "must be 0 to 4096"));
        }
        Ok(Self {
            workload: spec.workload,
            peers: spec.peers,
            control_plane,
            trusted_keys,
            warm_start,
            hold_ms: cold_start.hold_ms,
            max_held: cold_start.max_held,
        })
    }
}

impl ControlPlane {
    fn new(cluster: &str, authority: &str) -> Result<Self, InvalidConfig> {
        let refuse =
            |field: &str, why: &str| InvalidConfig::Field { field: field.to_owned(), why: why.to_owned() };
        let visible = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !visible(cluster) {
            return Err(refuse("controlPlane.cluster", "must be the name of an Envoy cluster"));
        }
        // A cluster's name such as `outbound|15080||host` is not a valid authority, and servers refuse it.
        if !visible(authority) || authority.contains(['|', '/', '@', '?', '#']) {
            return Err(refuse("controlPlane.authority", "must be a host name"));
        }
        if cluster.len() + authority.len() > MAX_TARGET_BYTES {
            return Err(refuse(
                "controlPlane",
                "cluster and authority together may have at most 120 characters",
            ));
        }
        let service = GrpcService {
            envoy_grpc: Some(EnvoyGrpc { cluster_name: cluster.to_owned(), authority: authority.to_owned() }),
        };
        let service = String::from_utf8(service.encode_to_vec())
            .map_err(|_| refuse("controlPlane", "cannot be expressed as text"))?;
        Ok(Self { service })
    }
}

fn p256_key(base64: &str) -> Option<PublicKey> {
    let der = BASE64_STANDARD.decode(base64).ok()?;
    let point = der.strip_prefix(&P256_SPKI_PREFIX)?;
    let (x, y) = point.split_at_checked(32)?;
    Jwk::p256(None, None, x.try_into().ok()?, y.try_into().ok()?).ok().map(PublicKey::from)
}
