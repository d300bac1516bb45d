use std::cell::Cell;
use std::sync::Arc;

use tidegate_engine::{ClaimValue, TokenFault, TokenState};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{Authenticator, KeyUsage, MissingIssuer, TokenOutcome, Usage, WantedKey};
use crate::issuer::{DEFAULT_SKEW_S, IssuerSpec, Revoked, RevokedKind};
use crate::keys::{Algorithm, PublicKey};
use serde_json::json;

use crate::testing::{Gate, KEY_ID, NOW, Signer, generic, google, issuer, paths, set, with};
use crate::{At, CacheLimits, Connection, PackKind, PureRust, Verdict, VerifySignature};

/// Counts the signatures that are checked.
#[derive(Default)]
struct Counting(Cell<usize>);

impl VerifySignature for Counting {
    fn verify(&self, algorithm: Algorithm, key: &PublicKey, input: &[u8], signature: &[u8]) -> Verdict {
        self.0.set(self.0.get() + 1);
        PureRust.verify(algorithm, key, input, signature)
    }
}

impl Connection for Counting {
    fn certificate_sha256(&self) -> Option<[u8; 32]> {
        None
    }
}

struct World {
    signer: Signer,
    authenticator: Authenticator,
    verifier: Counting,
}

impl World {
    fn new(slots: &[&[&str]]) -> Self {
        let signer = Signer::new(7);
        let set = set(vec![issuer(PackKind::Generic, &signer), issuer(PackKind::Google, &signer)]);
        let policy = [("generic", paths(slots))];
        let authenticator = Authenticator::new(set, policy, CacheLimits::default()).unwrap();
        Self { signer, authenticator, verifier: Counting::default() }
    }

    fn ask(&mut self, now: i64) -> (Vec<TokenOutcome>, usize) {
        let bearer = format!("Bearer {}", self.signer.token(&generic()));
        let before = self.verifier.0.get();
        let mut out = vec![TokenOutcome::Invalid(TokenFault::Malformed); 9];
        let headers = [(&b":path"[..], &b"/"[..]), (b"authorization", bearer.as_bytes())];
        self.authenticator.authenticate(&headers, At::now(now), &self.verifier, &mut out);
        (out, self.verifier.0.get() - before)
    }

    fn slots(&mut self) -> (Vec<ClaimValue>, usize) {
        let (out, checks) = self.ask(NOW);
        let TokenOutcome::Verified(token) = &out[0] else { panic!("{out:?}") };
        (token.slots.clone(), checks)
    }
}

fn text(text: &str) -> ClaimValue {
    ClaimValue::String(text.to_owned())
}

#[test]
fn checks_a_signature_once() {
    let mut world = World::new(&[&["sub"]]);
    assert_eq!(world.slots(), (vec![text("robot")], 1));
    assert_eq!(world.slots(), (vec![text("robot")], 0));
    assert_eq!(world.authenticator.cached(), 1);
    let (out, _) = world.ask(NOW);
    let TokenState::Verified(token) = out[0].state() else { panic!() };
    assert_eq!(token.slots, [text("robot")]);
}

#[test]
fn hands_out_the_same_token_without_copying_it() {
    let mut world = World::new(&[&["sub"]]);
    world.ask(NOW);
    let (one, two) = (world.ask(NOW).0, world.ask(NOW).0);
    let (TokenOutcome::Verified(one), TokenOutcome::Verified(two)) = (&one[0], &two[0]) else { panic!() };
    assert!(Arc::ptr_eq(one, two));
}

#[test]
fn checks_times_and_keys_at_each_use_of_a_cached_token() {
    let mut world = World::new(&[]);
    assert!(matches!(world.ask(NOW).0[0], TokenOutcome::Verified(_)));
    let expired = TokenOutcome::Invalid(TokenFault::Expired);
    assert_eq!(world.ask(1_795_203_630), (vec![expired], 0));
    assert_eq!(world.ask(NOW - 1000), (vec![TokenOutcome::Invalid(TokenFault::NotYetValid)], 0));
    assert!(matches!(world.ask(1_795_203_629).0[0], TokenOutcome::Verified(_)));

    let keys = IssuerSpec { valid_until: NOW - 1, ..issuer(PackKind::Generic, &world.signer) };
    world.authenticator.replace(Some(set(vec![keys])), [("generic", Vec::new())]).unwrap();
    assert_eq!(world.ask(NOW), (vec![TokenOutcome::Invalid(TokenFault::KeysStale)], 0));
    // The control plane is back and says how long the same keys are good.
    let keys = IssuerSpec { valid_until: NOW + 1, ..issuer(PackKind::Generic, &world.signer) };
    world.authenticator.replace(Some(set(vec![keys])), [("generic", Vec::new())]).unwrap();
    let (out, checks) = world.ask(NOW);
    assert!(matches!(out[0], TokenOutcome::Verified(_)));
    assert_eq!(checks, 0);
}

#[test]
fn reads_other_claims_of_a_cached_token_when_rules_change() {
    let mut world = World::new(&[&["sub"]]);
    world.slots();
    world.authenticator.replace(None, [("generic", paths(&[&["jti"], &["sub"]]))]).unwrap();
    assert_eq!(world.slots(), (vec![text("1"), text("robot")], 0));
    world.authenticator.replace(None, [("generic", paths(&[&["jti"], &["sub"]]))]).unwrap();
    assert_eq!(world.slots(), (vec![text("1"), text("robot")], 0));
    // Another position in the policy.
    let policy = [("google", Vec::new()), ("generic", paths(&[&["iss"]]))];
    world.authenticator.replace(None, policy).unwrap();
    let (out, checks) = world.ask(NOW);
    assert_eq!((&out[0], checks), (&TokenOutcome::Absent, 0));
    let TokenOutcome::Verified(token) = &out[1] else { panic!("{out:?}") };
    assert_eq!(token.slots, [text("https://issuer.example.com")]);
    // Out of the policy and in again.
    world.authenticator.replace(None, [("google", Vec::new())]).unwrap();
    assert_eq!(world.ask(NOW), (vec![TokenOutcome::Absent], 0));
    world.authenticator.replace(None, [("generic", Vec::new())]).unwrap();
    assert_eq!(world.ask(NOW).1, 1);
}

#[test]
fn forgets_tokens_whose_issuer_changed() {
    type Change = fn(&mut IssuerSpec);
    let changes: [(Change, Option<TokenFault>); 11] = [
        (|spec| spec.keys = vec![Signer::new(8).jwk(Some("key-1"))], Some(TokenFault::BadSignature)),
        (|spec| spec.keys = vec![Signer::new(7).jwk(Some("key-2"))], Some(TokenFault::KeyUnknown)),
        (|spec| spec.keys.clear(), Some(TokenFault::KeyUnknown)),
        (|spec| spec.algorithms = vec![Algorithm::Rs256], Some(TokenFault::AlgorithmRefused)),
        (|spec| spec.max_lifetime_s = 60, Some(TokenFault::LifetimeTooLong)),
        (|spec| spec.audiences = vec!["other".to_owned()], Some(TokenFault::WrongAudience)),
        (|spec| spec.types = vec!["at+jwt".to_owned()], Some(TokenFault::TypeRefused)),
        (|spec| spec.require_cnf = true, Some(TokenFault::NotBound)),
        (
            |spec| {
                spec.revoked =
                    vec![Revoked { kind: RevokedKind::Subject, value: "robot".to_owned(), until: 0 }]
            },
            Some(TokenFault::Revoked),
        ),
        (|spec| spec.pack = PackKind::Kubernetes, Some(TokenFault::ClaimMalformed)),
        (|spec| spec.iss[0].push('x'), None),
    ];
    for (at, (change, fault)) in changes.into_iter().enumerate() {
        let mut world = World::new(&[]);
        assert!(matches!(world.ask(NOW).0[0], TokenOutcome::Verified(_)));
        let mut changed = issuer(PackKind::Generic, &world.signer);
        change(&mut changed);
        world.authenticator.replace(Some(set(vec![changed])), [("generic", Vec::new())]).unwrap();
        let expected = fault.map_or(TokenOutcome::Absent, TokenOutcome::Invalid);
        assert_eq!(world.ask(NOW).0, [expected], "{at}");
        assert_eq!(world.authenticator.cached(), 0);
    }
}

#[test]
fn row_39_forgets_what_was_revoked_and_nothing_else() {
    let signer = Signer::new(7);
    let mut gate = Gate::new(vec![issuer(PackKind::Generic, &signer)]);
    let tokens = ["1", "2"].map(|id| signer.token(&with(&generic(), &["jti"], Some(json!(id)))));
    for token in &tokens {
        assert!(matches!(gate.bearer(token), TokenOutcome::Verified(_)));
    }
    let revoke = |gate: &mut Gate, revoked: &[(RevokedKind, &str, i64)]| {
        let one = |(kind, value, until): &(RevokedKind, &str, i64)| Revoked {
            kind: *kind,
            value: (*value).to_owned(),
            until: *until,
        };
        let revoked = revoked.iter().map(one).collect();
        let spec = IssuerSpec { revoked, ..issuer(PackKind::Generic, &signer) };
        gate.authenticator.replace(Some(set(vec![spec])), [("generic", Vec::new())]).unwrap();
        gate.authenticator.cached()
    };
    assert_eq!(revoke(&mut gate, &[(RevokedKind::Subject, "other", 0)]), 2);
    assert_eq!(revoke(&mut gate, &[(RevokedKind::Token, "2", NOW + 10)]), 1);
    let ask = |gate: &mut Gate, now| tokens.each_ref().map(|token| gate.bearer_at(token, now));
    let revoked = TokenOutcome::Invalid(TokenFault::Revoked);
    let [one, two] = ask(&mut gate, NOW);
    assert!(matches!(one, TokenOutcome::Verified(_)));
    assert_eq!(two, revoked);
    // The revocation ends, and begins anew for both by their key.
    let after = NOW + 10 + i64::from(DEFAULT_SKEW_S);
    assert!(ask(&mut gate, after - 1).contains(&revoked));
    assert!(ask(&mut gate, after).iter().all(|outcome| matches!(outcome, TokenOutcome::Verified(_))));
    assert_eq!(revoke(&mut gate, &[(RevokedKind::Key, KEY_ID, 0)]), 0);
    assert_eq!(ask(&mut gate, NOW), [revoked.clone(), revoked]);
    assert_eq!(gate.authenticator.cached(), 0);
}

#[test]
fn a_grace_extends_the_end_of_a_token_and_nothing_else() {
    let signer = Signer::new(7);
    let spec =
        IssuerSpec { valid_until: i64::MAX, retire_at: NOW + 90_000, ..issuer(PackKind::Generic, &signer) };
    let mut gate = Gate::new(vec![spec]);
    let bearer = format!("Bearer {}", signer.token(&generic()));
    let mut ask = |now, expiry_grace_s| {
        gate.over(&[("authorization", &bearer)], At { now, expiry_grace_s }, &PureRust).remove(0)
    };
    let expires = 1_795_203_600 + 30;
    // Not from the cache, and then from it.
    for _ in 0..2 {
        assert_eq!(ask(expires + 60, 60), TokenOutcome::Invalid(TokenFault::Expired));
        assert_eq!(ask(expires + 59, 0), TokenOutcome::Invalid(TokenFault::Expired));
        assert!(matches!(ask(expires + 59, 60), TokenOutcome::Verified(_)));
    }
    assert_eq!(ask(1_795_200_000 - 31, u32::MAX), TokenOutcome::Invalid(TokenFault::NotYetValid));
    assert_eq!(ask(NOW + 90_000, u32::MAX), TokenOutcome::Invalid(TokenFault::IssuerRetired));
    assert!(matches!(ask(NOW + 89_999, u32::MAX), TokenOutcome::Verified(_)));
}

#[test]
fn names_the_key_that_a_refused_token_wants() {
    let signer = Signer::new(7);
    let header = |kid: &str| json!({"alg": "ES256", "kid": kid});
    let mut gate = Gate::new(vec![issuer(PackKind::Generic, &signer), issuer(PackKind::Google, &signer)]);
    let wanted = |gate: &Gate| {
        gate.authenticator.wanted_key().map(|key| (key.issuer.to_owned(), key.key_id.map(str::to_owned)))
    };
    let generic_key = |kid: Option<&str>| Some(("generic".to_owned(), kid.map(str::to_owned)));

    gate.bearer(&signer.with_header(&header("key-2")));
    assert_eq!(wanted(&gate), generic_key(Some("key-2")));
    assert_eq!(gate.authenticator.wanted_key(), Some(WantedKey { issuer: "generic", key_id: Some("key-2") }));
    // The `kid` may have a new key.
    gate.bearer(&Signer::new(8).token(&generic()));
    assert_eq!(wanted(&gate), generic_key(Some(KEY_ID)));
    gate.bearer(&Signer::new(8).with_header(&json!({"alg": "ES256"})));
    assert_eq!(wanted(&gate), generic_key(None));
    // No key would help, or none is missing.
    let (huge, expired) = ("k".repeat(257), with(&generic(), &["exp"], Some(json!(1))));
    for token in [
        signer.token(&generic()),
        signer.token(&expired),
        signer.with_header(&header("")),
        signer.with_header(&header(&huge)),
        signer.with_header(&json!({"alg": "RS256", "kid": "key-2"})),
        signer.with_header(&json!({"alg": "ES256", "kid": "key-2", "typ": "dpop+jwt"})),
        signer.token(&with(&generic(), &["iss"], Some(json!("https://other.example.com")))),
        "opaque".to_owned(),
    ] {
        gate.bearer(&signer.with_header(&header("key-2")));
        gate.bearer(&token);
        assert_eq!(wanted(&gate), None, "{token}");
    }
    // The issuer's keys are too old: all of them are wanted, not one.
    gate.bearer_at(&signer.with_header(&header("key-2")), NOW + 200_000);
    assert_eq!(wanted(&gate), None);
    // A key that is published does away with it.
    gate.bearer(&signer.with_header(&header("key-2")));
    let spec = IssuerSpec { keys: vec![signer.jwk(Some("key-2"))], ..issuer(PackKind::Generic, &signer) };
    gate.authenticator.replace(Some(set(vec![spec])), [("generic", Vec::new())]).unwrap();
    assert_eq!(wanted(&gate), None);
    assert!(matches!(gate.bearer(&signer.with_header(&header("key-2"))), TokenOutcome::Verified(_)));
}

#[test]
fn counts_the_tokens_of_each_issuer() {
    let signer = Signer::new(7);
    let both = || vec![issuer(PackKind::Generic, &signer), issuer(PackKind::Google, &signer)];
    let mut gate = Gate::new(both());
    let usage = |gate: &Gate| {
        gate.authenticator.usage().map(|(name, usage)| (name.to_owned(), usage)).collect::<Vec<_>>()
    };
    let counts =
        |generic: Usage, google: Usage| vec![("generic".to_owned(), generic), ("google".to_owned(), google)];
    assert_eq!(usage(&gate), counts(Usage::default(), Usage::default()));
    gate.bearer(&signer.token(&generic()));
    gate.bearer_at(&signer.token(&generic()), NOW + 5);
    gate.bearer_at(&Signer::new(8).token(&generic()), NOW + 7);
    gate.bearer("opaque");
    gate.bearer(&signer.token(&with(&generic(), &["iss"], Some(json!("https://other.example.com")))));
    let generic_usage = Usage { verified: 2, refused: 1, last_verified_at: NOW + 5 };
    assert_eq!(usage(&gate), counts(generic_usage, Usage::default()));
    // Other keys and another order: the counters stay. Out of the policy: they go.
    let policy = [("google", Vec::new()), ("generic", Vec::new())];
    gate.authenticator.replace(Some(set(both())), policy).unwrap();
    gate.bearer(&Signer::new(8).token(&google()));
    let mut expected = counts(generic_usage, Usage { refused: 1, ..Usage::default() });
    expected.reverse();
    assert_eq!(usage(&gate), expected);
    gate.authenticator.replace(None, [("google", Vec::new())]).unwrap();
    gate.authenticator.replace(None, [("generic", Vec::new())]).unwrap();
    assert_eq!(usage(&gate), [("generic".to_owned(), Usage::default())]);
}

#[test]
fn does_not_cache_what_it_refuses() {
    let signer = Signer::new(7);
    let mut gate = Gate::new(vec![issuer(PackKind::Generic, &signer)]);
    gate.bearer(&Signer::new(8).token(&generic()));
    gate.bearer(&signer.token(&google()));
    gate.bearer_at(&signer.token(&generic()), NOW + 100_000);
    gate.bearer("opaque");
    assert_eq!(gate.authenticator.cached(), 0);
}

#[test]
fn refuses_a_policy_whose_issuer_is_missing_and_stays_as_it_was() {
    let mut world = World::new(&[&["sub"]]);
    let missing = |name: &str| MissingIssuer { name: name.to_owned() };
    let policy = [("generic", Vec::new()), ("gitlab", Vec::new())];
    let with = set(vec![issuer(PackKind::Generic, &world.signer)]);
    let refused = Authenticator::new(with, policy.clone(), CacheLimits::default());
    assert_eq!(refused.err(), Some(missing("gitlab")));
    assert_eq!(world.slots(), (vec![text("robot")], 1));
    assert_eq!(world.authenticator.replace(None, policy), Err(missing("gitlab")));
    let without = set(Vec::new());
    assert_eq!(
        world.authenticator.replace(Some(without), [("generic", Vec::new())]),
        Err(missing("generic"))
    );
    assert_eq!(world.slots(), (vec![text("robot")], 0));
}

#[test]
fn without_issuers_nothing_is_a_token() {
    let signer = Signer::new(7);
    let mut gate = Gate::new(Vec::new());
    assert_eq!(gate.all(&[("authorization", &format!("Bearer {}", signer.token(&generic())))], NOW), []);
}

#[test]
fn knows_one_outcome_per_issuer_of_the_policy() {
    let signer = Signer::new(7);
    let policy = [("google", Vec::new()), ("generic", Vec::new())];
    let set = set(vec![issuer(PackKind::Generic, &signer), issuer(PackKind::Google, &signer)]);
    let mut authenticator = Authenticator::new(set, policy, CacheLimits::default()).unwrap();
    let mut out = Vec::new();
    let bearer = format!("Bearer {}", signer.token(&google()));
    authenticator.authenticate(&[(b"authorization", bearer.as_bytes())], At::now(NOW), &PureRust, &mut out);
    assert!(matches!(out[..], [TokenOutcome::Verified(_), TokenOutcome::Absent]));
    assert_eq!(authenticator.issuers().len(), 2);
}

#[test]
fn row_39_forgets_what_a_revoked_key_signed_whether_the_token_names_it_or_not() {
    let signer = Signer::new(7);
    for header in [json!({"alg": "ES256"}), json!({"alg": "ES256", "kid": KEY_ID})] {
        let mut gate = Gate::new(vec![issuer(PackKind::Generic, &signer)]);
        let token = signer.with_header(&header);
        assert!(matches!(gate.bearer(&token), TokenOutcome::Verified(_)));
        for (key_id, left) in [("key-2", 1), (KEY_ID, 0)] {
            let revoked = vec![Revoked { kind: RevokedKind::Key, value: key_id.to_owned(), until: 0 }];
            let spec = IssuerSpec { revoked, ..issuer(PackKind::Generic, &signer) };
            gate.authenticator.replace(Some(set(vec![spec])), [("generic", Vec::new())]).unwrap();
            assert_eq!(gate.authenticator.cached(), left, "{header} {key_id}");
        }
        assert_eq!(gate.bearer(&token), TokenOutcome::Invalid(TokenFault::Revoked), "{header}");
    }
}

#[test]
fn uses_are_counted_by_the_key_that_signed_and_follow_it_to_another_place() {
    let mut world = World::new(&[]);
    let told = |world: &mut World, all| {
        let mut told = Vec::new();
        world.authenticator.tell_key_usage(all, |issuer, key, usage| {
            told.push((issuer.to_owned(), key.map(str::to_owned), usage));
        });
        told
    };
    let key = world.authenticator.issuers()[0].keys()[0].jwk().key_id().map(str::to_owned);
    let used = |verified, last_verified_at| {
        [("generic".to_owned(), key.clone(), KeyUsage { verified, last_verified_at })]
    };
    assert_eq!(told(&mut world, true), []);
    world.ask(NOW);
    world.ask(NOW + 1);
    assert_eq!(told(&mut world, false), used(2, NOW + 1), "the first, and one that was remembered");
    assert_eq!(told(&mut world, false), []);
    assert_eq!(told(&mut world, true), used(0, NOW + 1));
    // Refused tokens prove nothing about keys.
    assert!(matches!(world.ask(1_795_203_630).0[0], TokenOutcome::Invalid(_)));
    assert_eq!(told(&mut world, false), []);
    let mut two = issuer(PackKind::Generic, &world.signer);
    let other = Signer::new(8).jwk(Some("other"));
    two.keys.insert(0, other);
    world.ask(NOW + 2);
    world.authenticator.replace(Some(set(vec![two])), [("generic", Vec::new())]).unwrap();
    world.ask(NOW + 3);
    assert_eq!(told(&mut world, false), used(2, NOW + 3));
}
