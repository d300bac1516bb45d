use std::cell::Cell;
use std::sync::Arc;

use tidegate_engine::{ClaimValue, TokenFault, TokenState};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{Authenticator, MissingIssuer, TokenOutcome};
use crate::issuer::IssuerSpec;
use crate::keys::{Algorithm, PublicKey};
use crate::testing::{Gate, NOW, Signer, generic, google, issuer, paths, set};
use crate::{CacheLimits, PackKind, PureRust, VerifySignature};

/// Counts the signatures that are checked.
#[derive(Default)]
struct Counting(Cell<usize>);

impl VerifySignature for Counting {
    fn verify(&self, algorithm: Algorithm, key: &PublicKey, input: &[u8], signature: &[u8]) -> bool {
        self.0.set(self.0.get() + 1);
        PureRust.verify(algorithm, key, input, signature)
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
        self.authenticator.authenticate(&headers, now, &self.verifier, &mut out);
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
    let changes: [(Change, Option<TokenFault>); 8] = [
        (|spec| spec.keys = vec![Signer::new(8).jwk(Some("key-1"))], Some(TokenFault::BadSignature)),
        (|spec| spec.keys = vec![Signer::new(7).jwk(Some("key-2"))], Some(TokenFault::KeyUnknown)),
        (|spec| spec.keys.clear(), Some(TokenFault::KeyUnknown)),
        (|spec| spec.algorithms = vec![Algorithm::Rs256], Some(TokenFault::AlgorithmRefused)),
        (|spec| spec.max_lifetime_s = 60, Some(TokenFault::LifetimeTooLong)),
        (|spec| spec.audiences = vec!["other".to_owned()], Some(TokenFault::WrongAudience)),
        (|spec| spec.pack = PackKind::Kubernetes, Some(TokenFault::ClaimMalformed)),
        (|spec| spec.issuer.push('x'), None),
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
    authenticator.authenticate(&[(b"authorization", bearer.as_bytes())], NOW, &PureRust, &mut out);
    assert!(matches!(out[..], [TokenOutcome::Verified(_), TokenOutcome::Absent]));
    assert_eq!(authenticator.issuers().len(), 2);
}
