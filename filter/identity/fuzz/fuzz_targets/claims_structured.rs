//! A pack's golden token with claims bent, behind a signature that holds: at most one issuer accepts it, twice alike, and
//! the explanation comes to the same.
#![no_main]

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tidegate_identity::{At, PackKind, TokenOutcome, explain};
use tidegate_identity_fuzz::{Credulous, Json, all_issuers, encode, golden};

#[derive(Debug, Arbitrary)]
struct Input {
    pack: u8,
    changes: Vec<(u8, Json)>,
    removed: Option<u8>,
    offset: i16,
}

fuzz_target!(|input: Input| {
    let pack = PackKind::ALL[usize::from(input.pack) % PackKind::ALL.len()];
    let golden = golden::claims(pack);
    let names: Vec<_> = {
        let known = pack.claims().iter().map(|claim| claim.path[0]);
        let mut names: Vec<_> = known.chain(["cnf", "act", "unknown", "@subject"]).collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    let name = |at: u8| names[usize::from(at) % names.len()];
    let mut members: BTreeMap<_, _> = golden
        .as_object()
        .expect("an object")
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_string()))
        .collect();
    members.extend(input.changes.iter().map(|(at, value)| (name(*at), value.0.clone())));
    if let Some(at) = input.removed {
        members.remove(name(at));
    }
    let members: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    let claims = format!("{{{}}}", members.join(","));
    let header = br#"{"alg":"ES256","kid":"key-1","typ":"JWT"}"#;
    let token = format!("{}.{}.{}", encode(header), encode(claims.as_bytes()), encode(&[9; 64]));

    let at = At::now(golden::ISSUED + i64::from(input.offset));
    let mut authenticator = all_issuers();
    let value = format!("Bearer {token}");
    let [mut first, mut second] = [Vec::new(), Vec::new()];
    for out in [&mut first, &mut second] {
        authenticator.authenticate(&[(b"authorization", value.as_bytes())], at, &Credulous, out);
    }
    assert_eq!(first, second, "{claims}");
    let verified = |outcome: &&TokenOutcome| matches!(outcome, TokenOutcome::Verified(_));
    assert!(first.iter().filter(verified).count() <= 1, "{claims}");

    let position = PackKind::ALL.iter().position(|other| *other == pack).expect("one of them");
    let issuer = &authenticator.issuers()[position];
    let told = explain::verdict(&explain::explain(token.as_bytes(), issuer, at, &Credulous));
    match &first[position] {
        TokenOutcome::Verified(_) => assert_eq!(told, Ok(()), "{claims}"),
        // Not told from the token alone: a broken one is everybody's.
        TokenOutcome::Invalid(fault) => assert_eq!(told, Err(*fault), "{claims}"),
        TokenOutcome::Absent => assert!(told.is_err(), "{claims}"),
    }
});
