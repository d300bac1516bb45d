//! Access tokens of Okta custom authorization servers
//! (<https://developer.okta.com/docs/guides/validate-access-tokens/>).
//!
//! The org authorization server's tokens are for Okta's own API: their contents may change, and the keys that sign them
//! are not published. Which further claims a token has, groups among them, is what the customer configured.

use tidegate_engine::{ClaimValue, TokenFault};

use super::claim::{claims, extract_plain, text};
use super::derived::{DerivedSpec, string};
use super::detect::Url;
use super::{ClaimKind, ClaimSpec, LifetimeFrom, Pack, SAME_ISSUER, TokenFacts};
use crate::json::Object;
use crate::keys::Algorithm;

pub(super) static PACK: Pack = Pack {
    claims: claims![
        ClaimSpec::new(&["iss"], ClaimKind::Identifier).required(),
        // The login of a person, which can be renamed; of a client its id.
        ClaimSpec::new(&["sub"], ClaimKind::String).required().renameable(),
        ClaimSpec::new(&["aud"], ClaimKind::StringOrStrings).required(),
        ClaimSpec::new(&["ver"], ClaimKind::Integer),
        // The client.
        ClaimSpec::new(&["cid"], ClaimKind::Identifier),
        // The person; a client that acts for itself has none.
        ClaimSpec::new(&["uid"], ClaimKind::Identifier),
        ClaimSpec::new(&["scp"], ClaimKind::Strings),
        ClaimSpec::new(&["auth_time"], ClaimKind::Integer),
        // Of people, where the server is configured to say it.
        ClaimSpec::new(&["email"], ClaimKind::String).nullable().renameable(),
        ClaimSpec::new(&["name"], ClaimKind::String).nullable().renameable(),
        ClaimSpec::new(&["preferred_username"], ClaimKind::String).nullable().renameable(),
    ],
    derived: &[
        DerivedSpec::new("@scopes", ClaimKind::Strings, |claims| extract_plain(claims, "scp")),
        DerivedSpec::new("@subject", ClaimKind::String, |claims| string(subject(claims))),
        DerivedSpec::new("@human_in_loop", ClaimKind::Boolean, human_in_loop),
    ],
    open: true,
    types: &["jwt", "at+jwt", "application/at+jwt"],
    strict_header: false,
    algorithms: &[Algorithm::Rs256],
    // Up to 24 hours by the server's access policy.
    max_lifetime_s: 86_400,
    lifetime_from: LifetimeFrom::IssuedAt,
    token_id: Some(&["jti"]),
    single_audience: false,
    tenant: &[&["cid"], &["uid"], &["sub"]],
    shared: &[],
    refuses_issuer,
    key_may_sign: SAME_ISSUER,
    check,
};

/// `https://DOMAIN/oauth2/ID`, as Okta makes ids.
pub(super) fn is_custom_server(url: &Url<'_>) -> bool {
    matches!(*url.segments().as_slice(), ["oauth2", id] if id == "default" || id.starts_with("aus"))
}

fn refuses_issuer(issuer: &str) -> Option<&'static str> {
    let url = Url::parse(issuer);
    let segments = url.map(|url| url.segments()).unwrap_or_default();
    match *segments.as_slice() {
        [] | [""] | ["oauth2"] | ["oauth2", "" | "v1", ..] => Some(
            "this is Okta's org authorization server: its access tokens are for Okta alone, and the keys that sign them \
             are not published; make a custom authorization server, whose issuer is `https://DOMAIN/oauth2/ID`",
        ),
        ["oauth2", _] => None,
        _ => Some("the okta pack is for custom authorization servers: `https://DOMAIN/oauth2/ID`"),
    }
}

fn check(token: &TokenFacts<'_>) -> Result<(), TokenFault> {
    let present = |name| token.claims.get(name).is_some();
    let id_token = text(token.claims, &["jti"]).is_some_and(|jti| jti.starts_with("ID."));
    if id_token || !present("cid") || !present("scp") {
        return Err(TokenFault::WrongKind);
    }
    Ok(())
}

/// What is never given to somebody else.
fn subject(claims: &Object) -> Option<&str> {
    let client = text(claims, &["cid"]).filter(|client| text(claims, &["sub"]) == Some(client));
    text(claims, &["uid"]).or(client)
}

fn human_in_loop(claims: &Object) -> ClaimValue {
    let client = text(claims, &["cid"]);
    match text(claims, &["uid"]) {
        Some(_) => ClaimValue::Boolean(true),
        None if client.is_some() && client == text(claims, &["sub"]) => ClaimValue::Boolean(false),
        None => ClaimValue::Unknown,
    }
}
