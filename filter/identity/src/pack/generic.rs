//! Any OAuth issuer whose access tokens follow RFC 9068. Id tokens and others are refused by `typ`.
//!
//! Where a TrustedIssuer says itself which `typ` its tokens have, they are those of an issuer that does not follow that
//! RFC, and only what no token may lack is demanded: `iss`, `aud`, `exp`, and `iat` or `nbf`. Unknown claims are what they
//! are in the token.

use tidegate_engine::{ClaimValue, TokenFault};

use super::claim::{claims, extract_plain, text};
use super::derived::{DerivedSpec, words};
use super::{ClaimKind, ClaimSpec, LifetimeFrom, Pack, PackKind, SAME_ISSUER, TokenFacts};
use crate::json::{Object, Value};
use crate::keys::Algorithm;

pub(super) static PACK: Pack = Pack {
    claims: claims![
        ClaimSpec::new(&["iss"], ClaimKind::Identifier).required(),
        ClaimSpec::new(&["sub"], ClaimKind::String),
        ClaimSpec::new(&["aud"], ClaimKind::StringOrStrings).required(),
        ClaimSpec::new(&["client_id"], ClaimKind::Identifier),
        ClaimSpec::new(&["azp"], ClaimKind::Identifier),
        // RFC 8693 §4.2: separated by spaces. Some issuers write a list; `@scopes` is the same for both.
        ClaimSpec::new(&["scope"], ClaimKind::StringOrStrings),
        ClaimSpec::new(&["email"], ClaimKind::String).nullable().renameable(),
        ClaimSpec::new(&["name"], ClaimKind::String).nullable().renameable(),
        ClaimSpec::new(&["preferred_username"], ClaimKind::String).nullable().renameable(),
    ],
    derived: &[
        DerivedSpec::new("@scopes", ClaimKind::Strings, |claims| match claims.get("scope") {
            Some(Value::Array(_)) => extract_plain(claims, "scope"),
            _ => words(text(claims, &["scope"])),
        }),
        DerivedSpec::new("@human_in_loop", ClaimKind::Boolean, human_in_loop),
    ],
    open: true,
    // RFC 9068 §4: the resource server MUST "reject tokens carrying any other value".
    types: &["at+jwt", "application/at+jwt"],
    strict_header: false,
    algorithms: &[Algorithm::Rs256, Algorithm::Es256],
    max_lifetime_s: 3600,
    lifetime_from: LifetimeFrom::IssuedAt,
    token_id: Some(&["jti"]),
    single_audience: false,
    tenant: &[&["sub"], &["terraform_organization_id"], &["organization_id"]],
    shared: SHARED,
    // Its `sub` is what a repository's owner wants it to be, and ties a rule to nobody.
    refuses_issuer: |issuer| {
        (PackKind::detect(issuer) == Some(PackKind::Github))
            .then_some("tokens of GitHub Actions have the pack `github`")
    },
    key_may_sign: SAME_ISSUER,
    check,
};

/// Issuers that hand tokens to anybody who signs up, whichever pack a TrustedIssuer gives them.
pub(super) const SHARED: &[&str] = &[
    "https://accounts.google.com",
    "accounts.google.com",
    "https://gitlab.com",
    "https://token.actions.githubusercontent.com",
    super::entra::CONSUMERS_V2,
    "https://sts.windows.net/9188040d-6c67-4c5b-b112-36a304b66dad/",
    "https://app.terraform.io",
    "https://agent.buildkite.com",
    "https://appleid.apple.com",
];

/// RFC 9068 §2.2: these are required, besides those that every token needs.
const REQUIRED: [&str; 4] = ["sub", "client_id", "iat", "jti"];

fn check(token: &TokenFacts<'_>) -> Result<(), TokenFault> {
    if !token.types_overridden && REQUIRED.iter().any(|name| token.claims.get(name).is_none()) {
        return Err(TokenFault::ClaimMissing);
    }
    Ok(())
}

/// RFC 9068 §2.2: where no resource owner is involved, `sub` should be "an identifier the authorization server uses to
/// indicate the client application". Another `sub` may be a person's or not.
fn human_in_loop(claims: &Object) -> ClaimValue {
    let client = text(claims, &["client_id"]);
    match client.is_some() && client == text(claims, &["sub"]) {
        true => ClaimValue::Boolean(false),
        false => ClaimValue::Unknown,
    }
}
