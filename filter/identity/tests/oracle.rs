//! Differential tests against `jsonwebtoken` on aws-lc: whatever this crate accepts, it accepts too.

#![cfg(not(target_arch = "wasm32"))]

mod support;

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, Validation};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};
use support::{KEYS, LikeTheHost, encode, key_id};
use tidegate_engine::{ClaimValue, TokenFault};
use tidegate_identity::issuer::{IssuerSetSpec, IssuerSpec};
use tidegate_identity::{
    Algorithm, At, Authenticator, CacheLimits, Connection, IssuerSet, PackKind, PureRust, TokenOutcome,
};

const ISSUER: &str = "https://issuer.example.com";
const AUDIENCE: &str = "https://ledger.svc.example.com";
const SKEW_S: u32 = 30;

/// What `jsonwebtoken` computes: all but ES512, which is compared with aws-lc alone.
fn known_to_the_oracle() -> impl Iterator<Item = Algorithm> {
    Algorithm::ALL.into_iter().filter(|algorithm| *algorithm != Algorithm::Es512)
}

fn connections() -> [&'static dyn Connection; 2] {
    [&PureRust, &LikeTheHost]
}

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

fn authenticator() -> Authenticator {
    let spec = IssuerSpec {
        audiences: vec![AUDIENCE.to_owned()],
        algorithms: Algorithm::ALL.to_vec(),
        skew_s: SKEW_S,
        valid_until: now() + 100_000,
        keys: KEYS.jwks(),
        types: vec!["jwt".to_owned()],
        ..IssuerSpec::new("issuer", ISSUER, PackKind::Generic)
    };
    let set = IssuerSet::decode(&IssuerSetSpec::new(vec![spec]).encode().unwrap()).unwrap();
    let policy = [("issuer", vec![vec!["sub".to_owned()]])];
    Authenticator::new(set, policy, CacheLimits { max_entries: 0, max_bytes: 0 }).unwrap()
}

fn ask(authenticator: &mut Authenticator, token: &str, connection: &dyn Connection) -> TokenOutcome {
    let value = format!("Bearer {token}");
    let mut out = Vec::new();
    authenticator.authenticate(&[(b"authorization", value.as_bytes())], At::now(now()), connection, &mut out);
    out.remove(0)
}

/// What `jsonwebtoken` says with all the strictness that it has.
fn oracle(token: &str) -> Option<Value> {
    known_to_the_oracle().find_map(|algorithm| {
        let name: jsonwebtoken::Algorithm = algorithm.name().parse().unwrap();
        let mut validation = Validation::new(name);
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "aud", "iss"]);
        validation.validate_nbf = true;
        validation.leeway = u64::from(SKEW_S);
        let key = KEYS.decoding_key(algorithm);
        jsonwebtoken::decode::<Value>(token, &key, &validation).ok().map(|data| data.claims)
    })
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "robot", "iat": now() - 100, "nbf": now() - 100, "exp": now() + 1000,
    })
}

#[test]
fn accepts_what_jsonwebtoken_mints() {
    let mut header = Header::new(jsonwebtoken::Algorithm::ES256);
    header.kid = Some(key_id(Algorithm::Es256).to_owned());
    let token =
        jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_ec_der(&KEYS.ec_pkcs8())).unwrap();
    let mut authenticator = authenticator();
    assert!(matches!(ask(&mut authenticator, &token, &PureRust), TokenOutcome::Verified(_)));
    assert!(oracle(&token).is_some());
}

#[test]
fn accepts_every_algorithm_natively_and_as_the_host_does() {
    let mut authenticator = authenticator();
    for algorithm in Algorithm::ALL {
        let token = |said: Algorithm| {
            let header = json!({"alg": said.name(), "kid": key_id(said)}).to_string();
            KEYS.token(algorithm, &header, &claims().to_string())
        };
        for connection in connections() {
            let outcome = ask(&mut authenticator, &token(algorithm), connection);
            assert!(matches!(outcome, TokenOutcome::Verified(_)), "{algorithm:?} {outcome:?}");
        }
        assert_eq!(oracle(&token(algorithm)).is_some(), algorithm != Algorithm::Es512);
        // Signed with this algorithm, said to be another one.
        for other in Algorithm::ALL.into_iter().filter(|other| *other != algorithm) {
            for connection in connections() {
                let outcome = ask(&mut authenticator, &token(other), connection);
                assert_eq!(
                    outcome,
                    TokenOutcome::Invalid(TokenFault::BadSignature),
                    "{algorithm:?} {other:?}"
                );
            }
            assert!(oracle(&token(other)).is_none());
        }
    }
}

/// RFC 9864 §2.2, which `jsonwebtoken` does not know.
#[test]
fn takes_the_new_name_of_ed25519_for_the_same_algorithm() {
    let mut authenticator = authenticator();
    let token = KEYS.token(Algorithm::EdDsa, r#"{"alg":"Ed25519","kid":"ed25519"}"#, &claims().to_string());
    for connection in connections() {
        assert!(matches!(ask(&mut authenticator, &token, connection), TokenOutcome::Verified(_)));
    }
    let token = KEYS.token(Algorithm::EdDsa, r#"{"alg":"Ed448","kid":"ed25519"}"#, &claims().to_string());
    let refused = TokenOutcome::Invalid(TokenFault::AlgorithmRefused);
    assert_eq!(ask(&mut authenticator, &token, &PureRust), refused);
}

#[test]
fn writes_the_spki_that_aws_lc_writes() {
    for algorithm in Algorithm::ALL {
        let key = tidegate_identity::PublicKey::from(KEYS.jwk(algorithm));
        assert_eq!(key.spki_der(), KEYS.spki(algorithm), "{algorithm:?}");
    }
}

#[test]
fn refuses_every_token_with_one_character_changed() {
    for algorithm in Algorithm::ALL {
        let header = json!({"alg": algorithm.name(), "kid": key_id(algorithm)}).to_string();
        refuses_with_one_character_changed(&KEYS.token(algorithm, &header, &claims().to_string()));
    }
}

fn refuses_with_one_character_changed(token: &str) {
    let mut authenticator = authenticator();
    for at in 0..token.len() {
        let old = token.as_bytes()[at];
        for new in [if old == b'A' { b'B' } else { b'A' }, old ^ 1, old ^ 0x20] {
            let mut bytes = token.to_owned().into_bytes();
            bytes[at] = new;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            for connection in connections() {
                let outcome = ask(&mut authenticator, &changed, connection);
                assert!(!matches!(outcome, TokenOutcome::Verified(_)), "{at}: {changed}");
            }
        }
    }
    assert!(matches!(ask(&mut authenticator, token, &PureRust), TokenOutcome::Verified(_)));
}

/// Mostly what is right, sometimes what is not.
fn mostly(good: Vec<&'static str>, bad: Vec<&'static str>) -> impl Strategy<Value = String> {
    prop_oneof![14 => select(good), 1 => select(bad)].prop_map(str::to_owned)
}

fn header() -> impl Strategy<Value = String> {
    let alg = mostly(
        vec![
            r#""RS256""#,
            r#""RS384""#,
            r#""RS512""#,
            r#""PS256""#,
            r#""PS384""#,
            r#""PS512""#,
            r#""ES256""#,
            r#""ES384""#,
            r#""EdDSA""#,
        ],
        vec![
            r#""none""#,
            r#""HS256""#,
            r#""ES256K""#,
            r#""Ed448""#,
            "null",
            "1",
            r#""rs256""#,
            r#""R\u00532""#,
        ],
    );
    let kid = mostly(
        vec![r#""kid":"rsa","#, r#""kid":"P-256","#, r#""k\u0069d":"rsa","#, "", "", ""],
        vec![r#""kid":"other","#, r#""kid":1,"#, r#""kid":"rsa","kid":"rsa","#, r#""kid":"","#],
    );
    let typ =
        mostly(vec![r#""typ":"JWT","#, ""], vec![r#""typ":"dpop+jwt","#, r#""typ":5,"#, r#""typ":null,"#]);
    let extra = mostly(
        vec!["", "", "", r#""x5t":"AA","#],
        vec![r#""crit":["b64"],"b64":false,"#, r#""jwk":{},"#, r#""cty":"JWT","#, r#""alg":"RS256","#],
    );
    (alg, kid, typ, extra).prop_map(|(alg, kid, typ, extra)| format!("{{{kid}{typ}{extra}\"alg\":{alg}}}"))
}

fn payload() -> impl Strategy<Value = String> {
    let offset = prop_oneof![
        8 => select(vec![-1000_i64, -100, -40, -20, 0]),
        1 => select(vec![20, 40, 100, i64::MIN / 2, 1 << 52])
    ];
    let lifetime =
        prop_oneof![8 => select(vec![60_i64, 600, 3600]), 1 => select(vec![-10, 0, 5, 100_000, 1 << 60])];
    let style = mostly(
        vec!["N", "N", "N"],
        vec!["N.0", "N.5", "\"N\"", "Ne0", "[N]", "null", "-N", "0N", "N0000000"],
    );
    let iss = mostly(
        vec![r#""https://issuer.example.com""#, r#""https:\/\/issuer.example.com""#],
        vec![r#"["https://issuer.example.com"]"#, r#""https://issuer.example.com/""#, "5", "null"],
    );
    let aud = mostly(
        vec![
            r#""https://ledger.svc.example.com""#,
            r#"["x","https://ledger.svc.example.com"]"#,
            r#"["https://ledger.svc.example.com"]"#,
        ],
        vec![
            r#""other""#,
            "[]",
            r#"["https://ledger.svc.example.com",5]"#,
            "{}",
            "null",
            r#""sts.amazonaws.com""#,
        ],
    );
    let sub = mostly(
        vec![r#""robot""#, r#""r\u00f6bot""#, r#""😀""#, r#""\ud83d\ude00""#],
        vec!["5", "null", r#""a\u0000""#, r#""\ud83d""#, r#"["robot"]"#, r#""robot","sub":"other""#],
    );
    let tail = mostly(
        vec!["", "", r#","x":{"y":[1,2.5,"z",null,true]}"#, r#","n":18446744073709551616"#],
        vec![
            r#","x":1,"x":1"#,
            r#","cnf":{}"#,
            ",",
            "}",
            "} {}",
            r#","x":01"#,
            "\u{feff}",
            r#","x":{"a":1,"a":2}"#,
        ],
    );
    let present = subsequence(vec!["iss", "aud", "sub", "iat", "nbf", "exp"], 4..=6);
    let most = prop_oneof![8 => Just(vec!["iss", "aud", "sub", "iat", "nbf", "exp"]), 1 => present];
    (offset, lifetime, style, iss, aud, sub, tail, most).prop_map(
        |(offset, lifetime, style, iss, aud, sub, tail, present)| {
            let issued = now().saturating_add(offset);
            let expires = issued.saturating_add(lifetime);
            let members: Vec<_> = present
                .into_iter()
                .map(|name| match name {
                    "iss" => format!("\"iss\":{iss}"),
                    "aud" => format!("\"aud\":{aud}"),
                    "sub" => format!("\"sub\":{sub}"),
                    "exp" => format!("\"exp\":{}", style.replace('N', &expires.to_string())),
                    name => format!("\"{name}\":{issued}"),
                })
                .collect();
            format!("{{{}{tail}}}", members.join(","))
        },
    )
}

/// What happens to a token on its way.
#[derive(Debug, Clone)]
enum Mischief {
    Nothing,
    Append(&'static str),
    Replace(usize, u8),
    Cut(usize),
    OtherSignature(Vec<u8>),
    Malleate,
}

fn mischief() -> impl Strategy<Value = Mischief> {
    prop_oneof![
        30 => Just(Mischief::Nothing),
        1 => select(vec!["=", "==", ".", "A", "\n", " "]).prop_map(Mischief::Append),
        2 => (0..900_usize, select(b"Az09-_.=+/ ".to_vec())).prop_map(|(at, byte)| Mischief::Replace(at, byte)),
        1 => (1..300_usize).prop_map(Mischief::Cut),
        1 => proptest::collection::vec(any::<u8>(), 0..260).prop_map(Mischief::OtherSignature),
        1 => Just(Mischief::Malleate),
    ]
}

fn token() -> impl Strategy<Value = String> {
    (
        header(),
        payload(),
        select(known_to_the_oracle().collect::<Vec<_>>()),
        prop::bool::weighted(0.85),
        mischief(),
    )
        .prop_map(|(header, payload, random, honest, mischief)| {
            // Signed with what the header says, where that can be.
            let said =
                Algorithm::ALL.into_iter().find(|a| header.ends_with(&format!("\"alg\":\"{}\"}}", a.name())));
            let algorithm = said.filter(|_| honest).unwrap_or(random);
            let token = KEYS.token(algorithm, &header, &payload);
            let (input, _) = token.rsplit_once('.').unwrap();
            match mischief {
                Mischief::Nothing => token,
                Mischief::Append(text) => token + text,
                Mischief::Replace(at, byte) => {
                    let mut bytes = token.into_bytes();
                    let at = at % bytes.len();
                    bytes[at] = byte;
                    String::from_utf8(bytes).unwrap()
                }
                Mischief::Cut(count) => token[..token.len().saturating_sub(count)].to_owned(),
                Mischief::OtherSignature(bytes) => format!("{input}.{}", encode(&bytes)),
                Mischief::Malleate => {
                    let bytes = KEYS.sign(Algorithm::Es256, input.as_bytes());
                    let honest = p256::ecdsa::Signature::from_slice(&bytes).unwrap();
                    let (r, s) = (honest.r(), honest.s());
                    let other = p256::ecdsa::Signature::from_scalars(r.to_bytes(), (-*s).to_bytes()).unwrap();
                    format!("{input}.{}", encode(&other.to_bytes()))
                }
            }
        })
}

#[test]
fn accepts_a_subset_of_what_jsonwebtoken_accepts() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(3000),
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let (accepted, stricter) = (Cell::new(0), Cell::new(0));
    let authenticator = std::cell::RefCell::new(authenticator());
    runner
        .run(&token(), |token| {
            let ours = ask(&mut authenticator.borrow_mut(), &token, &PureRust);
            let host = ask(&mut authenticator.borrow_mut(), &token, &LikeTheHost);
            prop_assert_eq!(&ours, &host, "{}", token);
            let theirs = oracle(&token);
            match (ours, theirs) {
                (TokenOutcome::Verified(ours), Some(theirs)) => {
                    accepted.set(accepted.get() + 1);
                    prop_assert_eq!(Some(ours.expires_at), theirs["exp"].as_i64());
                    let subject = match theirs.get("sub") {
                        Some(subject) => ClaimValue::String(subject.as_str().unwrap().to_owned()),
                        None => ClaimValue::Absent,
                    };
                    prop_assert_eq!(&ours.slots, &[subject]);
                }
                (TokenOutcome::Verified(_), None) => prop_assert!(false, "only we accept {}", token),
                (_, Some(_)) => stricter.set(stricter.get() + 1),
                (_, None) => {}
            }
            Ok(())
        })
        .unwrap();
    // Otherwise the test would show nothing.
    assert!(accepted.get() > 200 && stricter.get() > 100, "{} {}", accepted.get(), stricter.get());
}
