#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use tidegate_engine::TokenFault;

use super::{Framing, Header, MAX_TOKEN_BYTES, frame};
use crate::base64url;
use crate::keys::Algorithm;

fn header(text: &str) -> Result<Header, TokenFault> {
    Header::parse(base64url::encode(text.as_bytes()).as_bytes())
}

#[test]
fn finds_the_parts() {
    let Framing::Jws(jws) = frame(b"eyJ9.cGF5.c2ln") else { panic!() };
    assert_eq!((jws.header, jws.payload, jws.signature), (&b"eyJ9"[..], &b"cGF5"[..], &b"c2ln"[..]));
    assert_eq!(jws.signing_input, b"eyJ9.cGF5");
    let Framing::Jws(jws) = frame(b"eyJ9..") else { panic!() };
    assert_eq!((jws.payload, jws.signature, jws.signing_input), (&b""[..], &b""[..], &b"eyJ9."[..]));
}

#[test]
fn tells_opaque_from_broken() {
    for opaque in ["", "x", "eyJ9", "a.b.c", ".eyJ9.x", "ya29.a.b", "\u{e4}.b.c", "W10.e30.AA", "IiI.e30.AA"]
    {
        assert_eq!(frame(opaque.as_bytes()), Framing::Opaque, "{opaque}");
    }
    for broken in ["eyJ9.x", "eyJ9.x.y.z", "eyJ9.1.2.3.4", "eyJ9.1.2.3.4.5", "eyJ9."] {
        assert_eq!(frame(broken.as_bytes()), Framing::Broken(TokenFault::Malformed), "{broken}");
    }
    // What some readers leave out.
    for odd in ["e!yJ9.x", "e yJ9.x", "\u{e4}eyJ9.x", "=eyJ9.x", "eyJ\n9.x"] {
        assert_eq!(frame(odd.as_bytes()), Framing::Broken(TokenFault::Malformed), "{odd}");
    }
    let long = format!("eyJ9.{}.x", "A".repeat(MAX_TOKEN_BYTES));
    assert_eq!(frame(long.as_bytes()), Framing::Broken(TokenFault::TooLarge));
}

#[test]
fn reads_only_known_header_members() {
    let parsed = header(r#"{"alg":"RS256","kid":"k","typ":"JWT","x5t":"d","x5t#S256":"e"}"#).unwrap();
    assert_eq!(parsed.algorithm, Some(Algorithm::Rs256));
    assert_eq!((parsed.key_id.as_deref(), parsed.kind.as_deref()), (Some("k"), Some("JWT")));
    assert_eq!(
        header("{}").unwrap(),
        Header { algorithm: None, key_id: None, kind: None, thumbprint: false }
    );
    assert!(parsed.thumbprint && header(r#"{"x5t":"d"}"#).unwrap().thumbprint);
    assert_eq!(header(r#"{"alg":"none"}"#).unwrap().algorithm, None);
    for member in ["crit", "b64", "zip", "cty", "enc", "jwk", "jku", "x5u", "x5c", "nonce", "ALG", "alg "] {
        assert_eq!(
            header(&format!(r#"{{"alg":"RS256","{member}":"x"}}"#)),
            Err(TokenFault::HeaderRefused),
            "{member}"
        );
    }
    for text in
        ["", "[]", "null", "{", "{} {}", r#"{"alg":1}"#, r#"{"alg":"RS256","alg":"RS256"}"#, "\u{feff}{}"]
    {
        assert_eq!(header(text), Err(TokenFault::Malformed), "{text}");
    }
    assert_eq!(Header::parse(b"eyJ9="), Err(TokenFault::Malformed));
    assert_eq!(Header::parse(&[0xff]), Err(TokenFault::Malformed));
    let latin = base64url::encode(b"{\"alg\":\"\xe4\"}");
    assert_eq!(Header::parse(latin.as_bytes()), Err(TokenFault::Malformed));
}
