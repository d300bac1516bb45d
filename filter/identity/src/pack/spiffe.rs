//! SPIFFE JWT-SVIDs (<https://github.com/spiffe/spiffe/blob/main/standards/JWT-SVID.md>).
//!
//! `iss` is optional: the trust domain of `sub` says whose keys verify the token, and the TrustedIssuer's own name is
//! `spiffe://TRUST-DOMAIN`. "Any header not described here, registered or private, MUST NOT be included."

use tidegate_engine::TokenFault;

use super::claim::{claims, text};
use super::{ClaimKind, ClaimSpec, LifetimeFrom, Pack, SAME_ISSUER, TokenFacts, derived};
use crate::keys::Algorithm;

pub(super) static PACK: Pack = Pack {
    claims: claims![
        ClaimSpec::new(&["iss"], ClaimKind::Identifier),
        ClaimSpec::new(&["sub"], ClaimKind::Identifier).required(),
        ClaimSpec::new(&["aud"], ClaimKind::StringOrStrings).required(),
    ],
    derived: &[derived::NO_HUMAN],
    open: false,
    types: &["jwt", "jose"],
    strict_header: true,
    // JWT-SVID §2.1.
    algorithms: &[
        Algorithm::Rs256,
        Algorithm::Rs384,
        Algorithm::Rs512,
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::Es512,
        Algorithm::Ps256,
        Algorithm::Ps384,
        Algorithm::Ps512,
    ],
    // Minutes are usual, five by default in SPIRE.
    max_lifetime_s: 3600,
    lifetime_from: LifetimeFrom::IssuedAt,
    token_id: Some(&["jti"]),
    // JWT-SVID §6.2: "Tokens sent to one audience can be replayed to another audience should more than one be present."
    single_audience: true,
    tenant: &[&["sub"]],
    shared: &[],
    refuses_issuer: |issuer| {
        let domain = issuer.strip_prefix("spiffe://").filter(|domain| is_trust_domain(domain));
        domain.is_none().then_some(
            "the spiffe pack is for a trust domain: `spiffe://TRUST-DOMAIN`, in lower case, without port and path",
        )
    },
    key_may_sign: SAME_ISSUER,
    check,
};

/// Whether this is a workload's SPIFFE id, one with a path, of the issuer `spiffe://TRUST-DOMAIN`.
///
/// Stricter than SPIFFE-ID §2, which compares scheme and trust domain without case: an id has one spelling.
pub fn in_trust_domain(id: &str, issuer: &str) -> bool {
    trust_domain(id).is_some_and(|domain| issuer.strip_prefix("spiffe://") == Some(domain))
}

fn trust_domain(id: &str) -> Option<&str> {
    let rest = id.strip_prefix("spiffe://")?;
    let (domain, path) = rest.split_once('/')?;
    (id.len() <= 2048 && is_trust_domain(domain) && path.split('/').all(is_segment)).then_some(domain)
}

fn check(token: &TokenFacts<'_>) -> Result<(), TokenFault> {
    let subject = text(token.claims, &["sub"]).ok_or(TokenFault::ClaimMissing)?;
    if trust_domain(subject).is_none() {
        return Err(TokenFault::ClaimMalformed);
    }
    if !in_trust_domain(subject, token.iss) {
        return Err(TokenFault::ClaimsContradict);
    }
    Ok(())
}

/// SPIFFE-ID §2.1: lower-case letters, digits, dots, dashes and underscores; at most 255 bytes.
fn is_trust_domain(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_'))
}

/// SPIFFE-ID §2.2: letters, digits, dots, dashes and underscores; not empty, and neither `.` nor `..`.
fn is_segment(segment: &str) -> bool {
    !matches!(segment, "" | "." | "..")
        && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}
