//! Rows about where in a request a token is.

use tidegate_engine::TokenFault;
use tidegate_identity::Algorithm;
use tidegate_identity::issuer::{IssuerSpec, TokenHeader};

use crate::{Case, Expected, case, good, refused, twin};

pub(crate) fn cases() -> Vec<Case> {
    [several(), schemes()].into_iter().flatten().collect()
}

fn several() -> Vec<Case> {
    let token = good(Algorithm::Es256);
    let bearer = format!("Bearer {token}");
    let second = |spec: &mut IssuerSpec| {
        spec.headers.push(TokenHeader { name: "x-token".to_owned(), prefix: None });
    };
    let several = |attack, headers: Vec<(&'static str, String)>| {
        refused(33, attack, "", TokenFault::SeveralTokens).headers(headers).with(second)
    };
    let one = |value: String| vec![("authorization", value)];
    vec![
        twin(33, token.as_str()).with(second),
        twin(33, "").headers(vec![("x-token", token.clone())]).with(second),
        twin(33, "")
            .headers(vec![("x-token", token.clone()), ("authorization", "Bearer ya29.opaque".to_owned())])
            .with(second),
        several("two headers", vec![("authorization", bearer.clone()), ("Authorization", bearer.clone())]),
        several(
            "two headers, one empty",
            vec![("authorization", bearer.clone()), ("authorization", String::new())],
        ),
        several(
            "two headers, one basic",
            vec![("authorization", "Basic eDp5".to_owned()), ("authorization", bearer.clone())],
        ),
        several("two places", vec![("authorization", bearer.clone()), ("x-token", token.clone())]),
        several(
            "two places, one broken",
            vec![("authorization", format!("{bearer}=")), ("x-token", token.clone())],
        ),
        several("a list", one(format!("{bearer}, {bearer}"))),
        several("a list without space", one(format!("{bearer},{bearer}"))),
        several("a list with an end", one(format!("{bearer},"))),
        several("after basic", one(format!("Basic eDp5, {bearer}"))),
        several("after an opaque one", one(format!("Bearer opaque, {bearer}"))),
        several("two after one scheme", one(format!("{bearer} {token}"))),
        several("two with a semicolon", one(format!("{bearer};{token}"))),
        case(33, "a cookie", "", Expected::Absent).headers(vec![("cookie", format!("token={token}"))]),
        case(33, "a query", "", Expected::Absent).headers(vec![(":path", format!("/?access_token={token}"))]),
    ]
}

fn schemes() -> Vec<Case> {
    let token = good(Algorithm::Es256);
    let value = |value: String| vec![("authorization", value)];
    let mut cases: Vec<_> = ["Bearer", "bearer", "BEARER", "bEaReR"]
        .into_iter()
        .map(|scheme| twin(34, "").headers(value(format!("{scheme} {token}"))))
        .collect();
    for odd in [
        format!("Bearer  {token}"),
        format!("Bearer\t{token}"),
        format!(" Bearer {token}"),
        format!("Bearer {token} "),
        format!("Bearer {token}\0"),
        format!("Bearer \"{token}\""),
        format!("Bearer:{token}"),
        format!("Bearer={token}"),
        format!("Bearer Bearer {token}"),
        format!("Bearer token={token}"),
        format!("JWT {token}"),
        format!("DPoP {token}"),
        format!("Basic {token}"),
        token.clone(),
    ] {
        cases.push(refused(34, "another scheme", "", TokenFault::Malformed).headers(value(odd)));
    }
    // Nobody could read a token out of these.
    for none in
        [format!("Bearer{token}").replace('.', ""), "Bearer".to_owned(), "Bearer ".to_owned(), String::new()]
    {
        cases.push(case(34, "no token", "", Expected::Absent).headers(value(none)));
    }
    cases
}
