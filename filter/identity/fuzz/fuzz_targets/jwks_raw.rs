//! Any text as a key set, any bytes as a keys section: what is accepted is written back and read alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_identity::issuer::IssuerSetSpec;
use tidegate_identity::json::{Limits, parse};
use tidegate_identity::keys::{MAX_KEYS, select_for};
use tidegate_identity::{Jwk, KeyUse, PublicKey};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(spec) = IssuerSetSpec::decode(bytes) {
        let written = spec.encode().expect("what decodes encodes");
        assert_eq!(IssuerSetSpec::decode(&written).as_ref(), Ok(&spec));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for purpose in [KeyUse::Sig, KeyUse::JwtSvid] {
        let Ok(selection) = select_for(text, purpose) else { continue };
        assert!(selection.keys.len() + selection.refused.len() <= MAX_KEYS);
        for key in selection.keys {
            let written = serde_json::to_string(&key).expect("a key can be written");
            let value = parse(&written, Limits::KEYS).expect("as strict JSON");
            assert_eq!(Jwk::from_json(&value, KeyUse::Sig).as_ref(), Ok(&key));
            assert!(!PublicKey::from(key).spki_der().is_empty());
        }
    }
});
