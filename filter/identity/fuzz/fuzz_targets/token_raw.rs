//! Any bytes as the values of headers that issuers read: nobody without a key gets in, and twice the same is twice alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_identity::{At, PackKind, PureRust, TokenOutcome};
use tidegate_identity_fuzz::{Credulous, all_issuers, golden};

fuzz_target!(|bytes: &[u8]| {
    let mut authenticator = all_issuers();
    let at = At::now(golden::ISSUED);
    let mut values = bytes.split(|byte| *byte == b'\n');
    let headers: Vec<(&[u8], &[u8])> = [&b"authorization"[..], b"x-token", b"Authorization"]
        .into_iter()
        .filter_map(|name| Some((name, values.next()?)))
        .collect();
    let [mut honest, mut first, mut second] = [Vec::new(), Vec::new(), Vec::new()];
    authenticator.authenticate(&headers, at, &PureRust, &mut honest);
    assert_eq!(honest.len(), PackKind::ALL.len());
    assert!(honest.iter().all(|outcome| !matches!(outcome, TokenOutcome::Verified(_))));
    assert_eq!(authenticator.cached(), 0);
    for out in [&mut first, &mut second] {
        authenticator.authenticate(&headers, at, &Credulous, out);
    }
    assert_eq!(first, second);
});
