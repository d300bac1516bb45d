//! Every claim of every pack in wrong type, missing, null, duplicated, under something that is no object, and beside
//! claims that nobody knows.

use serde_json::{Value, json};
use tidegate_engine::TokenFault;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{Terms, judge, judge_text};
use crate::pack::golden::{self, with};
use crate::pack::{ClaimKind, ClaimSpec, PackKind, Presence, extract};

/// Missing claims that a pack's check demands though its table does not.
const DEMANDED: [(PackKind, &[&str], TokenFault); 19] = [
    (PackKind::Google, &["email_verified"], TokenFault::WrongKind),
    (PackKind::Google, &["google", "compute_engine", "project_id"], TokenFault::ClaimMissing),
    (PackKind::Google, &["google", "compute_engine", "project_number"], TokenFault::ClaimMissing),
    (PackKind::Google, &["google", "compute_engine", "zone"], TokenFault::ClaimMissing),
    (PackKind::Google, &["google", "compute_engine", "instance_id"], TokenFault::ClaimMissing),
    (PackKind::Google, &["google", "compute_engine", "instance_name"], TokenFault::ClaimMissing),
    (PackKind::Kubernetes, &["kubernetes.io", "pod", "uid"], TokenFault::WrongKind),
    (PackKind::Entra, &["azp"], TokenFault::WrongKind),
    (PackKind::Okta, &["cid"], TokenFault::WrongKind),
    (PackKind::Okta, &["scp"], TokenFault::WrongKind),
    (PackKind::Generic, &["sub"], TokenFault::ClaimMissing),
    (PackKind::Generic, &["client_id"], TokenFault::ClaimMissing),
    // It cannot be told how long the token lives: there is no `nbf` either, or `iat` is something else.
    (PackKind::Entra, &["nbf"], TokenFault::ClaimMissing),
    (PackKind::Google, &["iat"], TokenFault::ClaimMissing),
    (PackKind::Okta, &["iat"], TokenFault::ClaimMissing),
    (PackKind::Aws, &["iat"], TokenFault::ClaimMissing),
    (PackKind::Spiffe, &["iat"], TokenFault::ClaimMissing),
    (PackKind::Generic, &["iat"], TokenFault::ClaimMissing),
    (PackKind::Generic, &["jti"], TokenFault::ClaimMissing),
];

#[derive(Default)]
struct Count {
    tried: usize,
    refused: usize,
    terms: Terms,
}

impl Count {
    #[track_caller]
    fn refuses(&mut self, pack: PackKind, text: &str, fault: TokenFault, what: &str) {
        self.tried += 1;
        let outcome = judge_text(pack, text, &self.terms).map(|_| ());
        assert_eq!(outcome, Err(fault), "{pack:?} {what}: {text}");
        self.refused += 1;
    }

    #[track_caller]
    fn accepts(&mut self, pack: PackKind, claims: &Value, what: &str) {
        self.tried += 1;
        assert_eq!(self.judge(pack, claims), Ok(()), "{pack:?} {what}: {claims}");
    }

    fn judge(&self, pack: PackKind, claims: &Value) -> Result<(), TokenFault> {
        judge_text(pack, &claims.to_string(), &self.terms).map(|_| ())
    }

    fn print(&self, pack: PackKind) {
        let accepted = self.tried - self.refused;
        println!(
            "{:<10} {:>2} claims: {:>4} cases tried, {:>4} refused, {accepted:>3} accepted",
            pack.name(),
            pack.claims().len(),
            self.tried,
            self.refused
        );
    }
}

/// The path with a name in place of `*`.
fn sample_path(spec: &ClaimSpec) -> Vec<String> {
    spec.path.iter().map(|name| name.replace('*', "sample")).collect()
}

/// The golden claims, with an object on the way to this claim and a good value there.
fn base(pack: PackKind, spec: &ClaimSpec, path: &[&str]) -> Value {
    let mut base = golden::claims(pack);
    if path.contains(&"secret") {
        // Of a pod or of a Secret.
        base = with(&base, &["kubernetes.io", "pod"], None);
    }
    for depth in 1..path.len() {
        let way = &path[..depth];
        if way.iter().fold(&base, |value, name| &value[*name]).is_null() {
            base = with(&base, way, Some(json!({})));
        }
    }
    let there = path.iter().fold(&base, |value, name| &value[*name]);
    let good = match path {
        _ if !there.is_null() => there.clone(),
        ["act"] => json!({"sub": "proxy"}),
        // The same client as `azp`; a version that fits `iss`.
        ["appid"] => base["azp"].clone(),
        ["iss"] => json!(golden::issuer(pack)),
        ["xms_act_fct" | "xms_sub_fct" | "xms_tnt_fct" | "xms_idrel"] => json!("3 9 11"),
        _ => good_value(spec.kind),
    };
    with(&base, path, Some(good))
}

fn good_value(kind: ClaimKind) -> Value {
    match kind {
        ClaimKind::String | ClaimKind::Identifier => json!("text"),
        ClaimKind::Digits => json!("7"),
        ClaimKind::Guid => json!("11111111-2222-4333-8444-555555555555"),
        ClaimKind::BooleanString => json!("true"),
        ClaimKind::Integer => json!(7),
        ClaimKind::Boolean => json!(true),
        ClaimKind::Strings | ClaimKind::StringOrStrings => json!(["a"]),
        ClaimKind::Structure => json!({"a": "b"}),
    }
}

/// Values that a claim must not have, as JSON.
fn wrong_values(spec: &ClaimSpec) -> Vec<&'static str> {
    let strings = ["\"text\""];
    let hidden = ["\"a\\u202eb\"", "\"a\\u0000\"", "\"a\\n\""];
    let numbers = ["7", "0", "-1", "1.0", "1e3", "18446744073709551616"];
    let booleans = ["true", "false"];
    let lists = ["[\"a\"]", "[]"];
    let mixed = ["[1]", "[\"a\", null]", "[[\"a\"]]", "[\"a\\u200b\"]"];
    let objects = ["{\"a\": \"b\"}", "{}"];
    let mut wrong: Vec<&str> = Vec::new();
    let kind = spec.kind;
    let takes_text = match kind {
        ClaimKind::String | ClaimKind::Identifier | ClaimKind::StringOrStrings => true,
        ClaimKind::Strings => spec.loose,
        _ => false,
    };
    if !takes_text {
        wrong.extend(strings);
    }
    wrong.extend(hidden);
    match kind {
        ClaimKind::Integer => wrong.extend(["1.0", "1e3", "18446744073709551616", "\"7\""]),
        ClaimKind::Boolean if spec.loose => wrong.extend(["7", "-1", "1.0", "\"yes\"", "\"TRUE\"", "\"\""]),
        ClaimKind::Boolean => wrong.extend(["\"true\"", "1", "\"1\""]),
        ClaimKind::BooleanString => wrong.extend(["\"TRUE\"", "\"1\"", "\"\""]),
        ClaimKind::Identifier => wrong.extend(["\"\"", "\"gr\u{f6}\u{df}e\""]),
        ClaimKind::Digits => wrong.extend(["\"\"", "\"-1\"", "\"1.0\"", "\" 1\"", "\"\u{661}\""]),
        ClaimKind::Guid => wrong.extend([
            "\"\"",
            "\"11111111-2222-4333-8444-55555555555\"",
            "\"AAAAAAAA-2222-4333-8444-555555555555\"",
            "\"{11111111-2222-4333-8444-555555555555}\"",
            "\"11111111222243338444555555555555\"",
            "\"1111111g-2222-4333-8444-555555555555\"",
        ]),
        ClaimKind::String | ClaimKind::Strings | ClaimKind::StringOrStrings | ClaimKind::Structure => {}
    }
    let takes_numbers = match kind {
        ClaimKind::Integer => true,
        ClaimKind::Boolean => spec.loose,
        _ => false,
    };
    if !takes_numbers {
        wrong.extend(numbers);
    }
    if kind != ClaimKind::Boolean {
        wrong.extend(booleans);
    }
    if !matches!(kind, ClaimKind::Strings | ClaimKind::StringOrStrings | ClaimKind::Structure) {
        wrong.extend(lists);
    }
    if kind != ClaimKind::Structure {
        wrong.extend(mixed);
        wrong.extend(objects);
    }
    wrong
}

/// The claims as text, with another text for the value at the path.
fn replaced(claims: &Value, path: &[&str], value: &str) -> String {
    let marked = with(claims, path, Some(json!("the-value"))).to_string();
    let text = marked.replace("\"the-value\"", value);
    assert_ne!(marked, text);
    text
}

/// The claims as text, with the member at the path once more.
fn duplicated(claims: &Value, path: &[&str], name: &str, value: &str) -> String {
    let (last, way) = path.split_last().unwrap();
    let original = path.iter().fold(claims, |value, name| &value[*name]).to_string();
    let object = way.iter().fold(claims, |value, name| &value[*name]);
    let own = format!("{}:{original}", json!(last));
    let twice = object.to_string().replacen(&own, &format!("{own},\"{name}\":{value}"), 1);
    let text = claims.to_string().replacen(&object.to_string(), &twice, 1);
    assert_ne!(text, claims.to_string(), "{path:?}");
    text
}

#[test]
fn refuses_every_known_claim_in_every_wrong_form() {
    for pack in PackKind::ALL {
        let mut count = Count::default();
        for spec in pack.claims() {
            let path = sample_path(spec);
            let path: Vec<_> = path.iter().map(String::as_str).collect();
            let base = base(pack, spec, &path);
            count.terms.allow_unbound = path.contains(&"secret");
            count.accepts(pack, &base, "is good as it is");

            for wrong in wrong_values(spec) {
                count.refuses(
                    pack,
                    &replaced(&with(&base, &path, Some(json!(0))), &path, wrong),
                    TokenFault::ClaimMalformed,
                    "has a wrong type",
                );
            }

            let null = with(&base, &path, Some(json!(null)));
            if spec.presence == Presence::Nullable {
                count.accepts(pack, &null, "may be null");
            } else {
                count.refuses(pack, &null.to_string(), TokenFault::ClaimMalformed, "is null");
            }

            let missing = with(&base, &path, None);
            let demanded = DEMANDED.iter().find(|(of, at, _)| (*of, *at) == (pack, path.as_slice()));
            match (spec.presence, demanded) {
                (Presence::Required, _) => {
                    count.refuses(pack, &missing.to_string(), TokenFault::ClaimMissing, "is missing");
                }
                (_, Some((_, _, fault))) => {
                    count.refuses(pack, &missing.to_string(), *fault, "is missing, which the check sees");
                }
                _ => count.accepts(pack, &missing, "may be missing"),
            }

            // Twice the same, twice with another value, and once with an escape in the name.
            if !path.iter().fold(&base, |value, name| &value[*name]).is_null() {
                let last = path.last().unwrap();
                let own = path.iter().fold(&base, |value, name| &value[*name]).to_string();
                let escaped = format!("\\u{:04x}{}", u32::from(last.as_bytes()[0]), &last[1..]);
                for (name, value) in [(*last, own.as_str()), (last, "\"other\""), (&escaped, own.as_str())] {
                    let text = duplicated(&base, &path, name, value);
                    count.refuses(pack, &text, TokenFault::Malformed, "is there twice");
                }
            }

            for depth in 1..path.len() {
                for wrong in ["\"x\"", "7", "true", "[]"] {
                    let text = replaced(&base, &path[..depth], wrong);
                    count.refuses(pack, &text, TokenFault::ClaimMalformed, "lies below no object");
                }
            }
        }
        count.print(pack);
    }
}

#[test]
fn takes_no_notice_of_claims_that_it_does_not_know() {
    for pack in PackKind::ALL {
        let golden = golden::claims(pack);
        let plain = judge(pack, &golden).unwrap();
        for extra in [json!("x"), json!(7), json!(null), json!([1, {"a": null}]), json!({"b": true})] {
            // Beside the claims, in each object among them, and with names that look like others.
            let mut texts = vec![
                with(&golden, &["x-unknown"], Some(extra.clone())),
                with(&golden, &["Sub"], Some(extra.clone())),
                with(&golden, &["sub "], Some(extra.clone())),
                with(&golden, &["@subject"], Some(extra.clone())),
            ];
            for (name, value) in golden.as_object().unwrap() {
                // The members of tags are all known.
                if value.is_object() {
                    texts.push(with(&golden, &[name, "x-unknown"], Some(extra.clone())));
                }
            }
            for claims in texts {
                let judged = judge(pack, &claims).unwrap_or_else(|fault| panic!("{fault:?}: {claims}"));
                let derived = pack.derived_all().map(|spec| vec![spec.name.to_owned()]);
                for path in pack.claims().iter().map(sample_path).chain(derived) {
                    let (before, after) = (extract(pack, &plain, &path), extract(pack, &judged, &path));
                    assert_eq!(before, after, "{pack:?} {path:?}: {claims}");
                }
            }
        }
    }
}

#[test]
fn knows_every_claim_once() {
    for pack in PackKind::ALL {
        for (at, spec) in pack.claims().iter().enumerate() {
            let path = sample_path(spec);
            assert_eq!(pack.claim(&path), Some(spec), "{pack:?} {path:?}");
            assert!(pack.claims()[..at].iter().all(|other| other.path != spec.path), "{pack:?} {path:?}");
            assert!(!path[0].starts_with('@'), "{pack:?} {path:?}");
        }
        let derived: Vec<_> = pack.derived_all().map(|spec| spec.name).collect();
        for (at, name) in derived.iter().enumerate() {
            assert!(name.starts_with('@') && !derived[..at].contains(name), "{pack:?} {name}");
            assert_eq!(pack.derived(name).map(|spec| spec.name), Some(*name), "{pack:?}");
        }
        for name in ["@subject", "@actor", "@actor_chain", "@actors", "@human_in_loop"] {
            assert!(derived.contains(&name), "{pack:?} {name}");
        }
        assert!(pack.derived("subject").is_none() && pack.derived("@nothing").is_none());
    }
}
