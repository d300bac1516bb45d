//! What every pack accepts and refuses. Claims are judged as after a good signature; `whole` has tokens.

mod aws;
mod derived;
mod entra;
mod github;
mod gitlab;
mod google;
mod issuers;
mod kubernetes;
mod okta;
mod others;
mod table;
mod whole;

use serde_json::Value;
use tidegate_engine::{ClaimValue, TokenFault};

use super::{LifetimeFrom, PackKind, TokenFacts, check, check_types, extract, golden};
use crate::json::{self, Limits, Object};

/// How a TrustedIssuer may differ.
#[derive(Default)]
struct Terms {
    allow_unbound: bool,
    types_overridden: bool,
}

/// The claims, if a token of the pack may have them.
fn judge_text(pack: PackKind, text: &str, terms: &Terms) -> Result<Object, TokenFault> {
    let claims = match json::parse(text, Limits::TOKEN) {
        Ok(json::Value::Object(claims)) => claims,
        _ => return Err(TokenFault::Malformed),
    };
    check_types(pack, &claims)?;
    let date = |name: &str| claims.get(name).and_then(json::Value::as_integer);
    let iss = claims.get("iss").and_then(json::Value::as_str).unwrap_or(golden::issuer(pack)).to_owned();
    let issued_at = match pack.pack().lifetime_from {
        LifetimeFrom::IssuedAt => date("iat").or(date("nbf")),
        LifetimeFrom::NotBefore => date("nbf"),
    };
    let issued_at = issued_at.ok_or(TokenFault::ClaimMissing)?;
    let facts = TokenFacts {
        claims: &claims,
        iss: &iss,
        issued_at,
        skew: 30,
        allow_unbound: terms.allow_unbound,
        types_overridden: terms.types_overridden,
    };
    check(pack, &facts).map(|()| claims)
}

fn judge(pack: PackKind, claims: &Value) -> Result<Object, TokenFault> {
    judge_text(pack, &claims.to_string(), &Terms::default())
}

#[track_caller]
fn accepts(pack: PackKind, claims: &Value) {
    assert_eq!(judge(pack, claims).map(|_| ()), Ok(()), "{claims}");
}

#[track_caller]
fn refuses(pack: PackKind, claims: &Value, fault: TokenFault) {
    assert_eq!(judge(pack, claims).map(|_| ()), Err(fault), "{claims}");
}

/// What a rule reads of accepted claims.
#[track_caller]
fn reads(pack: PackKind, claims: &Value, path: &[&str]) -> ClaimValue {
    let path: Vec<_> = path.iter().map(|name| (*name).to_owned()).collect();
    match judge(pack, claims) {
        Ok(claims) => extract(pack, &claims, &path),
        Err(fault) => panic!("{fault:?}: {claims}"),
    }
}

fn string(text: &str) -> ClaimValue {
    ClaimValue::String(text.to_owned())
}

fn strings(texts: &[&str]) -> ClaimValue {
    ClaimValue::Strings(texts.iter().map(|text| (*text).to_owned()).collect())
}
