//! Any OpenID Connect or OAuth issuer of which nothing more is known: the registered claims (RFC 7519) and those of
//! RFC 9068 are typed, the others are what they are in the token.

use super::{ClaimKind, ClaimSpec, Pack, claims};
use crate::keys::Algorithm;

pub(super) static PACK: Pack = Pack {
    claims: claims![
        sub: ClaimKind::String, aud: ClaimKind::StringOrStrings;
        ClaimSpec::new(&["azp"], ClaimKind::Identifier),
        ClaimSpec::new(&["client_id"], ClaimKind::Identifier),
        ClaimSpec::new(&["email"], ClaimKind::String).nullable().renameable(),
        ClaimSpec::new(&["name"], ClaimKind::String).nullable().renameable(),
        ClaimSpec::new(&["preferred_username"], ClaimKind::String).nullable().renameable(),
    ],
    // RFC 9068 §2.1 for the last two.
    types: &["jwt", "application/jwt", "at+jwt", "application/at+jwt"],
    algorithms: &[Algorithm::Rs256, Algorithm::Es256],
    max_lifetime_s: 3600,
    tenant: &[&["sub"], &["repository_id"], &["repository_owner_id"]],
    shared: SHARED,
    refuses_issuer: |_| None,
    check: |_| Ok(()),
};

/// Issuers that hand tokens to anybody who signs up, whichever pack a TrustedIssuer gives them.
pub(super) const SHARED: &[&str] = &[
    "https://accounts.google.com",
    "https://gitlab.com",
    "https://token.actions.githubusercontent.com",
    // Microsoft's tenant of personal accounts.
    "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0",
];
