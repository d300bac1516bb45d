//! Whole tokens: header, signature and claims.

use serde_json::json;
use tidegate_engine::TokenFault;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use crate::TokenOutcome;
use crate::issuer::IssuerSpec;
use crate::keys::Algorithm;
use crate::pack::{PackKind, golden};
use crate::testing::{Gate, KEY_ID, NOW, Signer};

/// The outcome for the golden token with this `typ`, of an issuer with the pack's defaults.
fn outcome(pack: PackKind, kind: Option<&str>) -> TokenOutcome {
    let signer = Signer::new(7);
    let spec = IssuerSpec {
        algorithms: vec![Algorithm::Es256],
        valid_until: NOW + 1000,
        keys: vec![signer.jwk(Some(KEY_ID))],
        ..IssuerSpec::new(pack.name(), golden::issuer(pack), pack)
    };
    let mut header = json!({"alg": "ES256", "kid": KEY_ID});
    if let Some(kind) = kind {
        header["typ"] = json!(kind);
    }
    let token = signer.sign(&header.to_string(), &golden::claims(pack).to_string());
    Gate::new(vec![spec]).bearer(&token)
}

#[test]
fn accepts_what_each_issuer_really_sends() {
    for pack in PackKind::ALL {
        let outcome = outcome(pack, golden::header_type(pack));
        assert!(matches!(outcome, TokenOutcome::Verified(_)), "{pack:?}: {outcome:?}");
    }
}

#[test]
fn tells_kinds_of_tokens_apart_by_their_type() {
    for pack in PackKind::ALL {
        // Generic tokens are those of RFC 9068; no type at all is that of a plain JWT.
        let plain = pack != PackKind::Generic;
        for kind in [Some("JWT"), None] {
            let accepted = matches!(outcome(pack, kind), TokenOutcome::Verified(_));
            assert_eq!(accepted, plain, "{pack:?} {kind:?}");
        }
        for kind in ["wit+jwt", "dpop+jwt", "secevent+jwt", "txntoken+jwt", "logout+jwt", "JWT ", "", "a.b"] {
            let refused = TokenOutcome::Invalid(TokenFault::TypeRefused);
            assert_eq!(outcome(pack, Some(kind)), refused, "{pack:?} {kind:?}");
        }
    }
    for kind in ["at+jwt", "AT+JWT", "application/at+jwt"] {
        assert!(matches!(outcome(PackKind::Generic, Some(kind)), TokenOutcome::Verified(_)), "{kind}");
    }
}
