//! Any bytes as a token and as its header: what is read as a header is base64url of an object that others read alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_identity::jose::{Framing, Header, frame, looks_like_jwt};
use tidegate_identity_fuzz::encode;

fuzz_target!(|bytes: &[u8]| {
    match frame(bytes) {
        Framing::Opaque => {}
        Framing::Broken(_) | Framing::Jws(_) => assert!(looks_like_jwt(bytes)),
    }
    let _ = Header::parse(bytes);
    if let Ok(header) = Header::parse(encode(bytes).as_bytes()) {
        let theirs: serde_json::Value = serde_json::from_slice(bytes).expect("others read it too");
        let text = |name: &str| theirs.get(name).and_then(serde_json::Value::as_str);
        assert_eq!(header.key_id.as_deref(), text("kid"));
        assert_eq!(header.kind.as_deref(), text("typ"));
        if let Some(algorithm) = header.algorithm {
            let name = text("alg").expect("it has one");
            assert!(name == algorithm.name() || name == "Ed25519");
        }
        assert!(theirs.get("crit").is_none() && theirs.get("jwk").is_none() && theirs.get("b64").is_none());
    }
});
