//! Where Istio verifies tokens as well.

use super::*;
use serde_json::json;
use tidegate_compiler::{Inputs, SourceFile, compile};
use tidegate_engine::{ClaimValue, VerifiedToken};

const ISSUERS: &str = "\
kind: Mesh
metadata: {name: prod}
spec: {trustDomain: prod.example, rootNamespace: istio-system, workloads: [{namespace: a, name: b}]}
---
kind: TrustedIssuer
metadata: {name: a}
spec: {issuer: 'https://a.example', pack: generic, keys: {discovery: true}}
---
kind: TrustedIssuer
metadata: {name: b}
spec: {issuer: 'https://b.example', pack: generic, keys: {jwksUri: 'https://b.example/keys'}}
";

/// Every Allow demands one token, and every port is guarded.
pub fn tokens_only(mut model: PolicyModel, audiences: bool) -> PolicyModel {
    let audiences = audiences.then(|| vec!["https://orders.example".to_owned()]);
    model.guards = vec![GuardModel { id: "sales/g".into(), mode: Mode::Enforce, ports: None, audiences }];
    for (at, rule) in model.rules.iter_mut().enumerate() {
        let allows = rule.effect == Effect::Allow;
        for from in rule.from.iter_mut().filter(|_| allows) {
            from.issuers = vec![if at % 3 == 0 { 1 } else { 0 }];
            if from.issuers == [1] {
                from.condition = Condition::True;
            } else if at % 2 == 0 {
                let claim = |slot| ClaimRef { issuer: 0, slot };
                from.condition = Condition::All(vec![
                    Condition::Claim(claim(0), Test::OneOf(vec!["4711".into(), "etl".into()])),
                    Condition::Claim(
                        claim(1),
                        if at % 4 == 0 { Test::Contains("etl".into()) } else { Test::Present },
                    ),
                ]);
            }
        }
        for operation in rule.to.iter_mut().flatten() {
            operation.condition = Condition::True;
        }
    }
    model
}

pub fn with_issuers(model: &PolicyModel) -> Compiled {
    let sources = [SourceFile { path: "a.yaml".into(), text: ISSUERS.into() }];
    let compilation = compile(&Inputs { sources: &sources, env: BTreeMap::new(), now: None });
    let issuers = compilation.output.unwrap_or_else(|| panic!("{:?}", compilation.diagnostics)).issuers;
    Compiled { issuers, ..compiled(model, &[]) }
}

fn json_of(claim: &ClaimValue) -> Value {
    match claim {
        ClaimValue::Absent | ClaimValue::Unknown => Value::Null,
        ClaimValue::Boolean(value) => json!(value),
        ClaimValue::Integer(value) => json!(value),
        ClaimValue::String(value) => json!(value),
        ClaimValue::Strings(values) => json!(values),
        ClaimValue::Other => json!({}),
    }
}

/// As the token says it.
fn payload(issuer: usize, token: &VerifiedToken) -> Value {
    let slot = |at: usize| token.slots.get(at).map_or(Value::Null, json_of);
    let aud = if token.audiences.len() == 1 { json!(token.audiences[0]) } else { json!(token.audiences) };
    let iss = ["https://a.example", "https://b.example"][issuer];
    json!({"iss": iss, "aud": aud, "x": slot(0), "y": {"z": slot(1)}})
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn no_claim_is_demanded_that_an_allowed_token_lacks(model in models(), audiences in any::<bool>(), all in aims(12), values in any::<u8>()) {
        let model = tokens_only(model, audiences);
        let policy = decoded(&model);
        let made = fence(&with_issuers(&model), &FenceOptions { claims: true, ..FenceOptions::default() });
        let objects = objects(&made);
        for aim in &all {
            let mut call = aim.at(&[&model]);
            // One header, one token.
            let held = call.sent.tokens.iter().position(|token| matches!(token, Token::Verified(_)));
            for (at, token) in call.sent.tokens.iter_mut().enumerate() {
                match token {
                    Token::Verified(token) if Some(at) == held => {
                        if values & 1 == 0 && at == 0 {
                            token.slots = vec![ClaimValue::String("etl".into()), ClaimValue::Strings(vec!["a".into(), "etl".into()])];
                        }
                    }
                    other => *other = Token::Absent,
                }
            }
            let mut seen = call.seen(Normalization::Base, None);
            if let (Some(http), Some(at)) = (&mut seen.http, held)
                && let Token::Verified(token) = &call.sent.tokens[at]
            {
                http.claims = Some(payload(at, token));
                if call.sent.method == "OPTIONS" {
                    http.claims = None;
                }
            }
            if call.outcomes(&policy, Normalization::Base).contains(&Outcome::Allow) {
                prop_assert!(allows(&objects, &labels(), &seen), "{call:?}\n{seen:?}\n{objects:#?}");
            }
        }
    }
}

/// Without that, the property above says nothing.
#[test]
fn tokens_are_verified_by_istio_there() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut allowed, mut claims, mut refused) = (0, 0, 0);
    for _ in 0..128 {
        let model = tokens_only(models().new_tree(&mut runner).unwrap().current(), true);
        let policy = decoded(&model);
        let made = fence(&with_issuers(&model), &FenceOptions { claims: true, ..FenceOptions::default() });
        let objects = objects(&made);
        let text = serde_json::to_string(&objects).unwrap();
        assert!(text.contains("RequestAuthentication"), "{text}");
        claims += usize::from(text.contains("request.auth.claims[x]"));
        for aim in aims(8).new_tree(&mut runner).unwrap().current() {
            let call = aim.at(&[&model]);
            let seen = call.seen(Normalization::Base, None);
            allowed += usize::from(call.outcomes(&policy, Normalization::Base).contains(&Outcome::Allow));
            refused += usize::from(!allows(&objects, &labels(), &seen));
        }
    }
    println!("{allowed} allowed with a token; without, Istio refuses {refused}");
    assert!(allowed > 100 && claims > 30 && refused > 100, "{allowed} {claims} {refused}");
}
