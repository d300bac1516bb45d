//! The plugin configuration: who this workload is, whom to believe, where the control plane is.
//!
//! Istio carries it as JSON through a protobuf `Struct`, where numbers become doubles: what must be exact is a string.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use prost::Message as _;
use tidegate_identity::json::{self, InvalidJson, Limits, Value};
use tidegate_identity::keys::Curve;
use tidegate_identity::{Jwk, PublicKey};
use tidegate_proto::v1 as pb;

/// Longest inner message of the gRPC service that can be handed to the proxy as text: a protobuf length of up to 127 is
/// one ASCII byte.
const MAX_TARGET_BYTES: usize = 120;

/// The longest interlock.
const MAX_INTERLOCK_BYTES: usize = 128;

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
    /// Signatures are verified by the proxy's cryptography or not at all.
    pub fips: bool,
    /// The value of the header by which Istio's own policy knows that this filter let a request through.
    pub interlock: Option<String>,
}

/// Where a peer is to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peers {
    /// In the client certificate, which this listener accepts from the mesh's CA only.
    Mesh,
    /// Where Istio's waypoints keep it: the certificate there is the one of the node's proxy.
    Waypoint,
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
    /// Not UTF-8.
    #[error("plugin configuration: not UTF-8")]
    Encoding,
    /// Not JSON, or with a member twice.
    #[error("plugin configuration: {0}")]
    Json(#[from] InvalidJson),
    /// A field's value cannot be used.
    #[error("plugin configuration: `{field}`: {why}")]
    Field {
        /// The field's path.
        field: String,
        /// What is wrong, and what would be right.
        why: String,
    },
}

/// The members of one object of the configuration.
struct Fields<'j> {
    value: &'j Value,
    /// Where it is, with a dot at the end; empty at the top.
    path: String,
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
    /// Who this is, as told to the control plane.
    pub fn hint(&self, instance: &str) -> pb::WorkloadHint {
        pb::WorkloadHint { workload: self.workload.clone(), instance: instance.to_owned() }
    }

    /// Reads the plugin configuration.
    ///
    /// # Errors
    /// With the field and the reason. Nothing is guessed: a configuration that is not understood is not used.
    pub fn parse(json: &[u8]) -> Result<Self, InvalidConfig> {
        let text = str::from_utf8(json).map_err(|_| InvalidConfig::Encoding)?;
        let document = json::parse(text, Limits::TOKEN)?;
        let fields = Fields::new(
            &document,
            String::new(),
            &["workload", "peers", "controlPlane", "keys", "bundle", "coldStart", "fips", "interlock"],
        )?;
        let workload = fields.needed_text("workload")?;
        if !workload
            .split_once('/')
            .is_some_and(|(namespace, name)| !namespace.is_empty() && !name.is_empty() && !name.contains('/'))
        {
            return Err(fields.refuse("workload", "must be `namespace/name`"));
        }
        let peers = match fields.needed_text("peers")? {
            "mesh" => Peers::Mesh,
            "waypoint" => Peers::Waypoint,
            "none" => Peers::None,
            _ => return Err(fields.refuse("peers", "must be `mesh`, `waypoint` or `none`")),
        };
        let control_plane = match fields.object("controlPlane", &["cluster", "authority"])? {
            None => None,
            Some(target) => {
                Some(ControlPlane::new(target.needed_text("cluster")?, target.needed_text("authority")?)?)
            }
        };
        let warm_start = match fields.text("bundle")? {
            None => None,
            Some(text) => Some(
                BASE64_STANDARD
                    .decode(text)
                    .ok()
                    .and_then(|bytes| pb::Bundle::decode(bytes.as_slice()).ok())
                    .ok_or_else(|| fields.refuse("bundle", "is not base64 of a serialised Bundle"))?,
            ),
        };
        if control_plane.is_none() && warm_start.is_none() {
            return Err(fields
                .refuse("controlPlane", "is missing, and so is `bundle`: there would never be any rules"));
        }
        let (mut hold_ms, mut max_held) = (1_000, 256);
        if let Some(cold_start) = fields.object("coldStart", &["holdMs", "maxHeld"])? {
            hold_ms = cold_start.needed_number("holdMs", 1_000)?;
            max_held = cold_start.needed_number("maxHeld", 4_096)?;
        }
        Ok(Self {
            workload: workload.to_owned(),
            peers,
            control_plane,
            trusted_keys: trusted_keys(&fields)?,
            warm_start,
            hold_ms: u64::from(hold_ms),
            max_held: usize::from(max_held),
            fips: fields.boolean("fips")?.unwrap_or_default(),
            interlock: interlock(&fields)?,
        })
    }
}

/// Istio takes a star at either end for a wildcard.
fn interlock(fields: &Fields<'_>) -> Result<Option<String>, InvalidConfig> {
    let Some(text) = fields.text("interlock")? else { return Ok(None) };
    let sound = (1..=MAX_INTERLOCK_BYTES).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && !text.starts_with('*')
        && !text.ends_with('*');
    if !sound {
        let why = "must be 1 to 128 visible characters of ASCII, without `*` at either end";
        return Err(fields.refuse("interlock", why));
    }
    Ok(Some(text.to_owned()))
}

fn trusted_keys(fields: &Fields<'_>) -> Result<Vec<(String, PublicKey)>, InvalidConfig> {
    let keys = match fields.get("keys") {
        Some(Value::Array(keys)) if !keys.is_empty() => keys,
        _ => {
            let why = "must be a list of at least one key; without any, no Bundle could be believed";
            return Err(fields.refuse("keys", why));
        }
    };
    let key = |(position, key)| {
        let key = Fields::new(key, format!("keys[{position}]."), &["id", "publicKey"])?;
        let id = key.needed_text("id")?;
        let why = "must be base64 of a P-256 SubjectPublicKeyInfo in DER form";
        let public = p256_key(key.needed_text("publicKey")?);
        Ok((id.to_owned(), public.ok_or_else(|| key.refuse("publicKey", why))?))
    };
    keys.iter().enumerate().map(key).collect()
}

// === impl Fields ===

impl<'j> Fields<'j> {
    /// `known` are all members that there may be.
    fn new(value: &'j Value, path: String, known: &[&str]) -> Result<Self, InvalidConfig> {
        let fields = Self { value, path };
        let Some(object) = value.as_object() else {
            let field = fields.path.trim_end_matches('.').to_owned();
            return Err(InvalidConfig::Field { field, why: "must be an object".to_owned() });
        };
        match object.iter().find(|(name, _)| !known.contains(name)) {
            Some((name, _)) => Err(fields.refuse(name, "is not a field that there is")),
            None => Ok(fields),
        }
    }

    fn refuse(&self, name: &str, why: &str) -> InvalidConfig {
        InvalidConfig::Field { field: format!("{}{name}", self.path), why: why.to_owned() }
    }

    /// `null` is as good as nothing.
    fn get(&self, name: &str) -> Option<&'j Value> {
        self.value.as_object()?.get(name).filter(|value| **value != Value::Null)
    }

    fn text(&self, name: &str) -> Result<Option<&'j str>, InvalidConfig> {
        let text = |value: &'j Value| value.as_str().ok_or_else(|| self.refuse(name, "must be text"));
        self.get(name).map(text).transpose()
    }

    fn needed_text(&self, name: &str) -> Result<&'j str, InvalidConfig> {
        let text = self.text(name)?.filter(|text| !text.is_empty());
        text.ok_or_else(|| self.refuse(name, "is missing"))
    }

    fn needed_number(&self, name: &str, most: u16) -> Result<u16, InvalidConfig> {
        let number = self.get(name).and_then(Value::as_integer).and_then(|number| u16::try_from(number).ok());
        number
            .filter(|number| *number <= most)
            .ok_or_else(|| self.refuse(name, &format!("must be a number from 0 to {most}")))
    }

    fn boolean(&self, name: &str) -> Result<Option<bool>, InvalidConfig> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Boolean(boolean)) => Ok(Some(*boolean)),
            Some(_) => Err(self.refuse(name, "must be true or false")),
        }
    }

    fn object(&self, name: &str, known: &[&str]) -> Result<Option<Self>, InvalidConfig> {
        self.get(name).map(|value| Self::new(value, format!("{}{name}.", self.path), known)).transpose()
    }
}

// === impl ControlPlane ===

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
    Jwk::ec(None, None, Curve::P256, x, y).ok().map(PublicKey::from)
}
