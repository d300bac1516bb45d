//! Nothing that anybody sends panics, and nothing that is read is read differently from how others read it.

#![cfg(not(target_arch = "wasm32"))]

/// The tokens that the unit tests of packs bend.
#[path = "../src/pack/golden.rs"]
#[allow(dead_code, unreachable_pub, missing_docs)]
mod golden;

use golden::ISSUED;
use proptest::prelude::*;
use tidegate_identity::issuer::{IssuerSetSpec, IssuerSpec, TokenHeader};
use tidegate_identity::json::{self, Limits, Value};
use tidegate_identity::{
    Algorithm, At, Authenticator, CacheLimits, Connection, IssuerSet, Jwk, KeyUse, PackKind, PublicKey,
    PureRust, SpiffeId, TokenOutcome, Verdict, VerifySignature, jose, keys,
};

/// Accepts every signature, so that what lies behind is reached.
struct Credulous;

impl VerifySignature for Credulous {
    fn verify(&self, _: Algorithm, _: &PublicKey, _: &[u8], _: &[u8]) -> Verdict {
        Verdict::Valid
    }
}

impl Connection for Credulous {
    fn certificate_sha256(&self) -> Option<[u8; 32]> {
        Some([0; 32])
    }
}

fn authenticator() -> Authenticator {
    // RFC 7515 appendix A.3.
    let key = json::parse(
        r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#,
        Limits::KEYS,
    );
    let key = Jwk::from_json(&key.unwrap(), KeyUse::Sig).unwrap();
    let specs: Vec<_> = PackKind::ALL
        .into_iter()
        .map(|pack| {
            let mut spec = IssuerSpec::new(pack.name(), golden::issuer(pack), pack);
            if pack == PackKind::Generic {
                spec.types = vec!["jwt".to_owned()];
            }
            spec.headers.push(TokenHeader { name: "x-token".to_owned(), prefix: None });
            spec.algorithms = vec![Algorithm::Es256];
            spec.valid_until = i64::MAX;
            spec.keys = vec![key.clone()];
            spec
        })
        .collect();
    // Rules read everything that there is to read.
    let policy: Vec<_> = specs
        .iter()
        .map(|spec| {
            let claims = spec.pack.claims().iter().map(|claim| claim.path.to_vec());
            let derived = spec.pack.derived_all().map(|derived| vec![derived.name]);
            let owned = |path: Vec<&str>| path.into_iter().map(str::to_owned).collect::<Vec<_>>();
            let unknown = [vec!["a"], vec!["a", "a"]];
            (spec.name.clone(), claims.chain(derived).chain(unknown).map(owned).collect::<Vec<_>>())
        })
        .collect();
    let set = IssuerSet::decode(&IssuerSetSpec::new(specs).encode().unwrap()).unwrap();
    Authenticator::new(set, policy, CacheLimits { max_entries: 3, max_bytes: 5000 }).unwrap()
}

fn encode(text: &str) -> String {
    let mut encoded = String::new();
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for chunk in text.as_bytes().chunks(3) {
        let word =
            chunk.iter().fold(0_u32, |word, byte| (word << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            encoded.push(char::from(ALPHABET[usize::try_from((word >> (18 - 6 * at)) & 63).unwrap()]));
        }
    }
    encoded
}

/// JSON and nearly JSON.
fn jsonish() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| format!("{n:?}")),
        "[-+0-9.eE]{1,12}",
        "\"([a-z]|\\\\[\"\\\\/bfnrtux]|\\\\u[0-9a-fA-F]{4}|\\\\ud[89ab][0-9a-f]{2}|[ -~\u{80}-\u{10ffff}]){0,6}\"",
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("nul".to_owned()),
        Just("\"\u{0}\"".to_owned()),
    ];
    leaf.prop_recursive(6, 40, 6, |inner| {
        let name = proptest::sample::select(vec![
            "iss",
            "sub",
            "aud",
            "exp",
            "iat",
            "nbf",
            "a",
            "\\u0061",
            "google",
            "compute_engine",
            "kubernetes.io",
        ]);
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(|v| format!("[{}]", v.join(","))),
            proptest::collection::vec((name, inner.clone()), 0..8).prop_map(|members| {
                let members: Vec<_> = members.into_iter().map(|(n, v)| format!("\"{n}\": {v}")).collect();
                format!("{{{}}}", members.join(" ,\n"))
            }),
            (inner.clone(), inner).prop_map(|(a, b)| format!("{a}{b}")),
        ]
    })
}

fn same(ours: &Value, theirs: &serde_json::Value) -> bool {
    match (ours, theirs) {
        (Value::Null, serde_json::Value::Null) => true,
        (Value::Boolean(a), serde_json::Value::Bool(b)) => a == b,
        (Value::Integer(a), serde_json::Value::Number(b)) => b.as_i64() == Some(*a),
        // Not a 64-bit integer: nothing is compared with it.
        (Value::Number(_), serde_json::Value::Number(_)) => true,
        (Value::String(a), serde_json::Value::String(b)) => a == b,
        (Value::Array(a), serde_json::Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), serde_json::Value::Object(b)) => {
            a.iter().count() == b.len()
                && a.iter().all(|(name, value)| b.get(name).is_some_and(|other| same(value, other)))
        }
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn json_is_read_as_serde_json_reads_it(text in jsonish()) {
        if let Ok(ours) = json::parse(&text, Limits::TOKEN) {
            // Numbers that no float can hold are errors there and bare text here.
            if let Err(error) = serde_json::from_str::<serde_json::Value>(&text) {
                prop_assert!(error.to_string().contains("number out of range"), "{text}: {error}");
            } else {
                let theirs: serde_json::Value = serde_json::from_str(&text).unwrap();
                prop_assert!(same(&ours, &theirs), "{text}");
            }
        }
    }

    #[test]
    fn json_never_panics(text in any::<String>(), bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = json::parse(&text, Limits::TOKEN);
        let _ = json::parse(&String::from_utf8_lossy(&bytes), Limits { depth: 2, members: 3, elements: 3 });
    }

    #[test]
    fn nothing_that_anybody_sends_panics(
        headers in proptest::collection::vec(
            (
                proptest::sample::select(vec!["authorization", "Authorization", "x-token", "host"]),
                prop_oneof![
                    proptest::collection::vec(any::<u8>(), 0..80),
                    "(Bearer|bearer|Basic)? ?[eyJ{}.,=; a-zA-Z0-9_-]{0,80}".prop_map(String::into_bytes),
                    (jsonish(), jsonish(), "[A-Za-z0-9_-]{0,90}", any::<bool>()).prop_map(|(header, claims, signature, bearer)| {
                        let prefix = if bearer { "Bearer " } else { "" };
                        format!("{prefix}{}.{}.{signature}", encode(&header), encode(&claims)).into_bytes()
                    }),
                ],
            ),
            0..4,
        ),
        now in any::<i64>(),
        grace in any::<u32>(),
    ) {
        let mut authenticator = authenticator();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())).collect();
        let mut out = Vec::new();
        for connection in [&PureRust as &dyn Connection, &Credulous] {
            authenticator.authenticate(&headers, At { now, expiry_grace_s: grace }, connection, &mut out);
            let _ = (authenticator.wanted_key(), authenticator.usage().count());
            prop_assert_eq!(out.len(), PackKind::ALL.len());
        }
    }

    /// Everything is right but what one claim says.
    #[test]
    fn no_claim_panics_behind_a_signature(
        claims in proptest::collection::vec((proptest::sample::select(claim_names()), jsonish()), 0..6),
        pack in proptest::sample::select(PackKind::ALL.to_vec()),
        now in prop_oneof![4 => Just(ISSUED), 1 => any::<i64>()],
    ) {
        let mut authenticator = authenticator();
        let golden = golden::claims(pack);
        let mut members: std::collections::BTreeMap<_, _> =
            golden.as_object().unwrap().iter().map(|(name, value)| (name.as_str(), value.to_string())).collect();
        members.extend(claims.iter().map(|(name, value)| (*name, value.clone())));
        let members: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        let text = format!("{{{}}}", members.join(","));
        let token = format!("Bearer {}.{}.{}", encode(r#"{"alg":"ES256"}"#), encode(&text), "A".repeat(86));
        let mut out = Vec::new();
        authenticator.authenticate(&[(b"authorization", token.as_bytes())], At::now(now), &Credulous, &mut out);
        prop_assert!(
            out.iter().filter(|outcome| matches!(outcome, TokenOutcome::Verified(_))).count() <= 1,
            "{out:?}"
        );
    }

    #[test]
    fn key_sets_and_sections_never_panic(text in jsonish(), bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for purpose in [KeyUse::Sig, KeyUse::JwtSvid] {
            let _ = keys::select_for(&text, purpose);
            let _ = keys::select_for(&format!("{{\"keys\":[{text}]}}"), purpose);
        }
        let _ = IssuerSet::decode(&bytes);
        let _ = IssuerSet::decode(format!("{{\"version\":2,\"issuers\":[{text}]}}").as_bytes());
        let _ = SpiffeId::parse(&bytes);
        let _ = jose::frame(&bytes);
        let _ = jose::Header::parse(&bytes);
        let _ = Jwk::rsa(None, None, &bytes, &bytes);
        let _ = Jwk::ed25519(None, None, &bytes);
        for curve in keys::Curve::ALL {
            let _ = Jwk::ec(None, None, curve, &bytes, &bytes);
        }
        let _ = tidegate_identity::signature::ecdsa_der(&bytes);
    }

    #[test]
    fn a_section_with_one_byte_changed_is_refused_or_still_consistent(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = section();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(spec) = IssuerSetSpec::decode(&bytes) {
            prop_assert!(spec.encode().is_ok());
        }
    }
}

fn section() -> Vec<u8> {
    IssuerSetSpec::new(
        PackKind::ALL.iter().map(|p| IssuerSpec::new(p.name(), golden::issuer(*p), *p)).collect(),
    )
    .encode()
    .unwrap()
}

fn claim_names() -> Vec<&'static str> {
    let mut names: Vec<_> =
        PackKind::ALL.iter().flat_map(|pack| pack.claims()).map(|spec| spec.path[0]).collect();
    names.extend(["cnf", "act", "unknown"]);
    names.sort_unstable();
    names.dedup();
    names
}
