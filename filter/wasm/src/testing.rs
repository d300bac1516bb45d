//! Bundles and tokens for tests, signed with fixed keys.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use prost::Message as _;
use tidegate_engine::encode;
use tidegate_engine::model::*;
use tidegate_identity::keys::Curve;
use tidegate_identity::{Algorithm, IssuerSetSpec, IssuerSpec, Jwk, PackKind, PublicKey};
use tidegate_proto::v1 as pb;

use crate::bundle::sha256;

/// The fake host's clock.
pub const NOW: i64 = 1_800_000_000;

pub const WORKLOAD: &str = "sales/orders-api";

pub fn signing_key(seed: u8) -> SigningKey {
    SigningKey::from_slice(&[seed; 32]).unwrap()
}

/// The point without its leading 4.
fn point(seed: u8) -> Vec<u8> {
    signing_key(seed).verifying_key().to_sec1_point(false).as_bytes()[1..].to_vec()
}

pub fn public_key(seed: u8) -> PublicKey {
    let point = point(seed);
    PublicKey::from(Jwk::ec(None, None, Curve::P256, &point[..32], &point[32..]).unwrap())
}

pub fn trusted() -> Vec<(String, PublicKey)> {
    vec![("k1".into(), public_key(1)), ("k2".into(), public_key(2))]
}

/// GET /v1/{id} is allowed to account `worker` of namespace `etl`, and POST to a token of `gitlab` if `issuers`.
pub fn model() -> PolicyModel {
    let from = FromModel {
        peer: PeerModel::Mesh {
            trust_domain: "prod.example".into(),
            namespace: "etl".into(),
            service_accounts: Some(vec!["worker".into()]),
        },
        issuers: vec![],
        condition: Condition::True,
    };
    let path = PathPattern { segments: vec![SegmentPattern::Literal("v1".into()), SegmentPattern::One] };
    PolicyModel {
        issuers: vec![],
        guards: vec![GuardModel { id: "sales/g".into(), mode: Mode::Enforce, ports: None, audiences: None }],
        directories: vec![],
        rules: vec![
            RuleModel {
                id: "sales/read".into(),
                effect: Effect::Allow,
                mode: Mode::Enforce,
                owner: "team".into(),
                contact: String::new(),
                disclosure: Disclosure::Full,
                audit: Default::default(),
                lease: Lease::default(),
                revokes: false,
                from: vec![from],
                to: Some(vec![OperationModel {
                    methods: Some(vec!["GET".into()]),
                    paths: Some(vec![path]),
                    ..OperationModel::default()
                }]),
            }
            .into(),
        ],
    }
}

/// The issuer `oauth` with these keys, by id and seed.
pub fn oauth(keys: &[(&str, u8)]) -> IssuerSpec {
    let mut issuer = IssuerSpec::new("oauth", "https://id.example", PackKind::Generic);
    issuer.algorithms = vec![Algorithm::Es256, Algorithm::Ps256, Algorithm::EdDsa];
    issuer.skew_s = 0;
    issuer.valid_until = NOW + 100_000;
    let key = |(key_id, seed): &(&str, u8)| {
        let point = point(*seed);
        Jwk::ec(Some((*key_id).to_owned()), None, Curve::P256, &point[..32], &point[32..]).unwrap()
    };
    issuer.keys = keys.iter().map(key).collect();
    issuer
}

pub fn keys_section(issuer: IssuerSpec) -> pb::Section {
    section(pb::SectionKind::Keys, IssuerSetSpec::new(vec![issuer]).encode().unwrap())
}

/// As [`model`], but for accounts that bring a token of `oauth` as well. `change` sees the one rule.
pub fn token_model(change: impl FnOnce(&mut RuleModel)) -> PolicyModel {
    let mut model = model();
    model.issuers.push(IssuerModel { name: "oauth".into(), slots: vec![vec!["sub".into()]] });
    model.guards[0].audiences = Some(vec!["https://orders.example".into()]);
    model.rules[0].from[0].issuers = vec![0];
    change(&mut model.rules[0]);
    model
}

/// A token of `oauth`, signed with this key, that expires then; `id` makes it differ.
pub fn token(key_id: &str, seed: u8, expires_at: i64, id: &str) -> String {
    let header = format!("{{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"{key_id}\"}}");
    let input = unsigned(&header, expires_at, id);
    let signature: Signature = signing_key(seed).sign(input.as_bytes());
    format!("{input}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature.to_bytes()))
}

/// What is signed, with this header.
pub fn unsigned(header: &str, expires_at: i64, id: &str) -> String {
    let issued_at = expires_at - 600;
    let claims = format!(
        "{{\"iss\":\"https://id.example\",\"aud\":\"https://orders.example\",\"sub\":\"worker-1\",\"client_id\":\"etl\",\
         \"jti\":\"{id}\",\"iat\":{issued_at},\"exp\":{expires_at}}}"
    );
    format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(header), BASE64_URL_SAFE_NO_PAD.encode(claims))
}

pub fn section(kind: pb::SectionKind, content: Vec<u8>) -> pb::Section {
    pb::Section { kind: kind.into(), content }
}

pub fn rules_section() -> pb::Section {
    rules_of(&model())
}

pub fn rules_of(model: &PolicyModel) -> pb::Section {
    section(pb::SectionKind::Rules, encode(model).unwrap())
}

pub fn manifest(counter: u64, sections: &[pb::Section]) -> pb::Manifest {
    pb::Manifest {
        format_version: 1,
        audience: WORKLOAD.into(),
        revision: Some(pb::Revision { epoch: 1, counter }),
        coverage: pb::Coverage::Guarded.into(),
        sections: sections
            .iter()
            .map(|section| pb::SectionRef {
                kind: section.kind,
                sha256: sha256(&section.content).to_vec(),
                size: u64::try_from(section.content.len()).unwrap(),
            })
            .collect(),
        issued_at: NOW - 10,
        not_after: NOW + 3600,
        required_capabilities: vec![],
        used_capabilities: vec![],
        candidate: vec![],
        suspended_until: 0,
    }
}

/// A Bundle with a candidate of these sections, all of which are in it.
pub fn bundle_with_candidate(
    counter: u64,
    enforced: Vec<pb::Section>,
    candidate: Vec<pb::Section>,
) -> pb::Bundle {
    let named = manifest(counter, &candidate).sections;
    let manifest = pb::Manifest { candidate: named, ..manifest(counter, &enforced) };
    let mut sections = enforced;
    sections.extend(candidate);
    let mut known = Vec::new();
    sections.retain(|section| {
        let is_new = !known.contains(&section.content);
        known.push(section.content.clone());
        is_new
    });
    pb::Bundle { manifest: Some(signed(&manifest, 1, "k1")), sections }
}

pub fn signed(manifest: &pb::Manifest, seed: u8, key_id: &str) -> pb::SignedManifest {
    let manifest = manifest.encode_to_vec();
    let signature: Signature = signing_key(seed).sign(&tidegate_proto::manifest_signing_input(&manifest));
    pb::SignedManifest {
        manifest,
        signatures: vec![pb::Signature { key_id: key_id.into(), signature: signature.to_bytes().to_vec() }],
    }
}

pub fn bundle(counter: u64) -> pb::Bundle {
    bundle_of(counter, vec![rules_section()])
}

pub fn bundle_of(counter: u64, sections: Vec<pb::Section>) -> pb::Bundle {
    pb::Bundle { manifest: Some(signed(&manifest(counter, &sections), 1, "k1")), sections }
}

/// A plugin configuration with these members beside workload, peers and keys.
pub fn config(more: &str) -> Vec<u8> {
    let mut spki = vec![
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01, 0x06, 0x08, 0x2A, 0x86,
        0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
    ];
    spki.extend_from_slice(&point(1));
    let key = BASE64_STANDARD.encode(spki);
    format!(
        "{{\"workload\": \"{WORKLOAD}\", \"peers\": \"mesh\", \"keys\": [{{\"id\": \"k1\", \"publicKey\": \"{key}\"}}] \
         {more}}}"
    )
    .into_bytes()
}

pub fn warm(bundle: &pb::Bundle) -> String {
    format!(", \"bundle\": \"{}\"", BASE64_STANDARD.encode(bundle.encode_to_vec()))
}
