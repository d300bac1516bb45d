//! Rows about signatures that are none, and texts that are nearly base64url.

use tidegate_engine::TokenFault;
use tidegate_identity::Algorithm;
use tidegate_identity::signature::ecdsa_der;

use crate::support::{KEYS, encode};
use crate::{Case, NOW, authenticator, claims, good, header, issuer, refused, twin};

pub(crate) fn cases() -> Vec<Case> {
    [signatures(), spellings()].into_iter().flatten().collect()
}

fn input(algorithm: Algorithm) -> String {
    format!(
        "{}.{}",
        encode(header(algorithm).to_string().as_bytes()),
        encode(claims().to_string().as_bytes())
    )
}

fn signatures() -> Vec<Case> {
    let mut cases = Vec::new();
    for algorithm in Algorithm::ALL {
        let input = input(algorithm);
        let right = KEYS.sign(algorithm, input.as_bytes());
        let (first, second) = right.split_at(right.len() / 2);
        let (zeros, ones) = (vec![0; first.len()], vec![0xff; first.len()]);
        let mut wrong = vec![
            ("zero", vec![0; right.len()]),
            ("all ones", vec![0xff; right.len()]),
            ("first half zero", [&zeros, second].concat()),
            ("second half zero", [first, &zeros].concat()),
            ("first half too large", [&ones, second].concat()),
            ("second half too large", [first, &ones].concat()),
            ("halves swapped", [second, first].concat()),
            ("cut", right[1..].to_vec()),
            ("cut", right[..right.len() - 1].to_vec()),
            ("longer", [&right[..], &[0]].concat()),
            ("longer", [&[0], &right[..]].concat()),
            ("of something else", KEYS.sign(algorithm, b"something else")),
            ("one byte", vec![0]),
            ("huge", vec![1; 4096]),
        ];
        wrong.extend(ecdsa_der(&right).map(|der| ("DER", der)));
        cases.push(twin(15, format!("{input}.{}", encode(&right))));
        for (attack, signature) in wrong {
            let token = format!("{input}.{}", encode(&signature));
            cases.push(refused(15, attack, token, TokenFault::BadSignature));
        }
    }
    // The other spelling of an ECDSA signature, (r, n - s), is as good. See below for what must not follow from that.
    let token = good(Algorithm::Es256);
    cases.push(twin(16, malleated(&token)));
    let other = crate::with_claims(&crate::claims_with(serde_json::json!({"sub": "other"})));
    let cut = token.rsplit_once('.').unwrap().0;
    cases.push(refused(
        16,
        "another token's signature",
        format!("{cut}.{}", malleated_part(&other)),
        TokenFault::BadSignature,
    ));
    cases
}

/// The signature (r, n - s).
fn malleated_part(token: &str) -> String {
    let input = token.rsplit_once('.').unwrap().0;
    let honest = p256::ecdsa::Signature::from_slice(&KEYS.sign(Algorithm::Es256, input.as_bytes())).unwrap();
    let (r, s) = (honest.r(), honest.s());
    let other = p256::ecdsa::Signature::from_scalars(r.to_bytes(), (-*s).to_bytes()).unwrap();
    encode(&other.to_bytes())
}

fn malleated(token: &str) -> String {
    format!("{}.{}", token.rsplit_once('.').unwrap().0, malleated_part(token))
}

fn spellings() -> Vec<Case> {
    // Parts whose length leaves unused bits and room for padding.
    let token = good(Algorithm::EdDsa);
    let [head, payload, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let other = |text: &str| {
        let last = text.chars().last().unwrap();
        let next = char::from_u32(u32::from(last) + 1).unwrap();
        format!("{}{next}", &text[..text.len() - 1])
    };
    let malformed = |attack, text: String| refused(22, attack, text, TokenFault::Malformed);
    let mut cases = vec![
        twin(22, token.as_str()),
        malformed("unused bits", format!("{head}.{payload}.{}", other(signature))),
        malformed("padding", format!("{head}.{payload}.{signature}==")),
        malformed("padding", format!("{head}.{payload}.{signature}=")),
        malformed("padding inside", format!("{head}.{payload}=.{signature}")),
        malformed("padding inside", format!("{head}=.{payload}.{signature}")),
        malformed("percent", format!("{head}.{payload}.{signature}%3D")),
    ];
    for odd in ["+", "/", "~", "\n", " ", "\t", "\r\n", "\u{0}", "\u{e4}"] {
        for (attack, text) in [
            ("a character in the header", format!("{}{odd}{}.{payload}.{signature}", &head[..8], &head[8..])),
            (
                "a character in the payload",
                format!("{head}.{}{odd}{}.{signature}", &payload[..8], &payload[8..]),
            ),
            (
                "a character in the signature",
                format!("{head}.{payload}.{}{odd}{}", &signature[..8], &signature[8..]),
            ),
            ("a character at the end", format!("{token}{odd}")),
        ] {
            cases.push(malformed(attack, text));
        }
    }
    cases
}

/// Row 16: the two spellings of a signature are two tokens. Row 40: a cached token stands for nothing but itself.
#[test]
fn row_40_takes_nothing_but_the_whole_token_for_a_cached_one() {
    let mut authenticator = authenticator(vec![issuer()]);
    let mut ask = |token: &str| {
        let value = format!("Bearer {token}");
        let mut out = Vec::new();
        let at = tidegate_identity::At::now(NOW);
        let headers: [(&[u8], &[u8]); 1] = [(b"authorization", value.as_bytes())];
        authenticator.authenticate(&headers, at, &tidegate_identity::PureRust, &mut out);
        (matches!(out[0], tidegate_identity::TokenOutcome::Verified(_)), authenticator.cached())
    };
    let token = good(Algorithm::Es256);
    assert_eq!(ask(&token), (true, 1));
    assert_eq!(ask(&malleated(&token)), (true, 2));
    // Another header or payload with the same tail, and the same header and payload with another tail.
    let [head, payload, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let claims = encode(crate::claims_with(serde_json::json!({"sub": "root"})).as_bytes());
    let mut refused = 0;
    for forged in [
        format!("{head}.{claims}.{signature}"),
        format!("{}.{payload}.{signature}", encode(br#"{"alg":"ES256"}"#)),
        format!("{head}.{payload}.{}", encode(&[7; 64])),
        format!("{head}.{payload}.{}", &signature[..signature.len() - 2]),
        format!("{head}.{payload}"),
    ] {
        assert_eq!(ask(&forged), (false, 2), "{forged}");
        refused += 1;
    }
    assert_eq!(ask(&token), (true, 2));
    println!("row 40: {} tried, {refused} refused, 3 accepted", refused + 3);
}

/// Row 45: what people print for debugging has no signature in it.
#[test]
fn row_45_shows_no_token_where_it_is_printed() {
    let token = good(Algorithm::Es256);
    let [_, _, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let mut authenticator = authenticator(vec![issuer()]);
    let value = format!("Bearer {token}");
    let mut out = Vec::new();
    let at = tidegate_identity::At::now(NOW);
    authenticator.authenticate(
        &[(b"authorization", value.as_bytes())],
        at,
        &tidegate_identity::PureRust,
        &mut out,
    );
    assert_eq!(authenticator.cached(), 1);
    let read = tidegate_identity::token::read(token.as_bytes());
    let bytes = format!("{:?}", &signature.as_bytes()[..8]);
    let bytes = bytes.trim_matches(['[', ']']);
    for shown in [format!("{out:?}"), format!("{authenticator:?}"), format!("{read:?}")] {
        assert!(!shown.contains(signature) && !shown.contains(bytes), "{shown}");
    }
}
