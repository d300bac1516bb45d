//! Signed tokens with any header and claims, terms of their issuer, and what may happen to a token on its way. What is
//! accepted holds by a second opinion: its signature, its times, its audience, its binding.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tidegate_identity::issuer::{Revoked, RevokedKind};
use tidegate_identity::{At, PackKind, TokenOutcome};
use tidegate_identity_fuzz::{Credulous, Honest, Json, authenticator, encode, golden, issuer, sign};

#[derive(Debug, Arbitrary)]
struct Input {
    header: Vec<(u8, Json)>,
    claims: Vec<(u8, Json)>,
    missing: Option<u8>,
    terms: Terms,
    offset: i16,
    grace: u8,
    certificate: Option<u8>,
    way: Way,
}

#[derive(Debug, Arbitrary)]
struct Terms {
    single_audience: bool,
    require_cnf: bool,
    audience: bool,
    retired: bool,
    revoked: Option<(u8, i8)>,
    skew: u8,
    lifetime: u16,
}

/// What happens to a token on its way.
#[derive(Debug, Arbitrary)]
enum Way {
    Straight,
    Byte { at: u16, byte: u8 },
    Cut(u16),
    Append(String),
    Twice,
    Bound(u8),
}

const HEADER: [&str; 8] = ["alg", "kid", "typ", "x5t", "crit", "b64", "jwk", "zip"];
const CLAIMS: [&str; 9] = ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "cnf", "act"];

/// The golden members with these in place of their own.
fn object(golden: &[(&str, String)], names: &[&str], changes: &[(u8, Json)], missing: Option<u8>) -> String {
    let mut members = golden.to_vec();
    for (at, value) in changes {
        let name = names[usize::from(*at) % names.len()];
        match members.iter_mut().find(|(other, _)| *other == name) {
            Some(member) => member.1 = value.0.clone(),
            None => members.push((name, value.0.clone())),
        }
    }
    if let Some(at) = missing {
        members.retain(|(name, _)| *name != names[usize::from(at) % names.len()]);
    }
    let members: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

fuzz_target!(|input: Input| {
    let Input { header, claims, missing, terms, offset, grace, certificate, way } = input;
    let header = object(
        &[("alg", "\"ES256\"".to_owned()), ("kid", "\"key-1\"".to_owned()), ("typ", "\"JWT\"".to_owned())],
        &HEADER,
        &header,
        None,
    );
    let golden = golden::generic();
    let golden: Vec<_> =
        golden.as_object().expect("an object").iter().map(|(n, v)| (n.as_str(), v.to_string())).collect();
    let mut claims = object(&golden, &CLAIMS, &claims, missing);
    if let Way::Bound(byte) = way {
        claims = claims.replacen('{', &format!("{{\"cnf\":{{\"x5t#S256\":\"{}\"}},", encode(&[byte; 32])), 1);
    }
    let signed = sign(&header, &claims);

    let mut spec = issuer(PackKind::Generic);
    spec.single_audience = terms.single_audience;
    spec.require_cnf = terms.require_cnf;
    spec.skew_s = u32::from(terms.skew) % 121;
    spec.max_lifetime_s = u32::from(terms.lifetime).max(1);
    let now = golden::ISSUED + i64::from(offset);
    if terms.retired {
        spec.retire_at = now;
    }
    if terms.audience {
        spec.audiences = vec![golden::AUDIENCE.to_owned()];
    }
    if let Some((kind, until)) = terms.revoked {
        let (kind, value) =
            [(RevokedKind::Subject, "robot"), (RevokedKind::Token, "1"), (RevokedKind::Key, "key-1")]
                [usize::from(kind) % 3];
        let until = if until == 0 { 0 } else { now + i64::from(until) };
        spec.revoked = vec![Revoked { kind, value: value.to_owned(), until }];
    }
    let skew = i64::from(spec.skew_s);
    let lifetime = i64::from(spec.max_lifetime_s);
    let (demands_audience, single) = (terms.audience, terms.single_audience);
    let revoked = spec.revoked.clone();

    let mut token = signed.clone().into_bytes();
    let length = token.len();
    match way {
        Way::Straight | Way::Twice | Way::Bound(_) => {}
        Way::Byte { at, byte } => token[usize::from(at) % length] = byte,
        Way::Cut(count) => token.truncate(length.saturating_sub(usize::from(count))),
        Way::Append(ref text) => token.extend(text.bytes()),
    }
    let value = [b"Bearer ", token.as_slice()].concat();
    let mut headers: Vec<(&[u8], &[u8])> = vec![(b"authorization", &value)];
    if matches!(way, Way::Twice) {
        headers.push((b"x-token", &token));
    }
    let at = At { now, expiry_grace_s: u32::from(grace) };
    let connection = Honest(certificate.map(|byte| [byte; 32]));
    let mut gate = authenticator(vec![spec.clone()]);
    let [mut first, mut second, mut credulous] = [Vec::new(), Vec::new(), Vec::new()];
    for out in [&mut first, &mut second] {
        gate.authenticate(&headers, at, &connection, out);
    }
    assert_eq!(first, second, "{header} {claims}");
    authenticator(vec![spec]).authenticate(&headers, at, &Credulous, &mut credulous);

    let [TokenOutcome::Verified(verified)] = &first[..] else { return };
    // What was accepted is what was signed, in its one spelling, once.
    assert_eq!(token, signed.as_bytes(), "{header} {claims}");
    assert!(!matches!(way, Way::Twice));
    let theirs: serde_json::Value = serde_json::from_str(&claims).expect("others read it too");
    let date = |name: &str| theirs.get(name).map(|date| date.as_i64().expect("a whole number"));
    let text = |name: &str| theirs.get(name).and_then(serde_json::Value::as_str);
    assert_eq!(text("iss"), Some(golden::issuer(PackKind::Generic)));
    let expires = date("exp").expect("every token ends");
    assert_eq!(verified.expires_at, expires);
    assert!(now < expires + skew + i64::from(grace), "{claims}");
    let begins = [date("iat"), date("nbf")].into_iter().flatten().max().expect("every token begins");
    assert!(now >= begins - skew, "{claims}");
    assert!(expires - date("iat").unwrap_or(begins) <= lifetime + skew, "{claims}");
    let audiences: Vec<&str> = match theirs.get("aud").expect("every token is for somebody") {
        serde_json::Value::Array(all) => all.iter().map(|one| one.as_str().expect("a string")).collect(),
        one => vec![one.as_str().expect("a string")],
    };
    assert_eq!(verified.audiences, audiences);
    assert!(!demands_audience || audiences.contains(&golden::AUDIENCE), "{claims}");
    assert!(!single || audiences.len() == 1, "{claims}");
    assert!(!terms.retired, "{claims}");
    if let Some(cnf) = theirs.get("cnf") {
        let certificate = certificate.expect("a bound token needs one");
        assert_eq!(*cnf, serde_json::json!({"x5t#S256": encode(&[certificate; 32])}), "{claims}");
    } else {
        assert!(!terms.require_cnf, "{claims}");
    }
    let read: serde_json::Value = serde_json::from_str(&header).expect("others read it too");
    for Revoked { kind, value, until } in revoked {
        let named = match kind {
            RevokedKind::Subject => text("sub"),
            RevokedKind::Token => text("jti"),
            RevokedKind::Key => read.get("kid").and_then(serde_json::Value::as_str),
        };
        assert!(named != Some(value.as_str()) || (until != 0 && until <= now), "{claims}");
    }
    assert_eq!(read.get("alg").and_then(serde_json::Value::as_str), Some("ES256"));
});
