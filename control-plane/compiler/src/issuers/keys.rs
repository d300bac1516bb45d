//! Where an issuer's keys come from.

use tidegate_identity::keys::select_for;
use tidegate_identity::{Jwk, KeyUse};

use super::{KeySource, check_url};
use crate::diagnostic::Code;
use crate::place::{Findings, Place};
use crate::spec::KeysSpec;

/// Where keys come from, and those that are written down.
pub(super) fn check(
    place: &Place<'_>,
    spec: &KeysSpec,
    issuers: &[String],
    findings: &mut Findings,
) -> Option<(KeySource, Vec<Jwk>)> {
    match (&spec.jwks, &spec.jwks_uri, spec.discovery) {
        (Some(jwks), None, None) => {
            let is_bundle = issuers.iter().any(|issuer| issuer.starts_with("spiffe://"));
            let purpose = if is_bundle { KeyUse::JwtSvid } else { KeyUse::Sig };
            check_jwks(&place.key("jwks"), jwks, purpose, findings)
        }
        (None, Some(uri), None) => {
            check_url(&place.key("jwksUri"), uri, findings);
            Some((KeySource::Uri(uri.clone()), Vec::new()))
        }
        (None, None, Some(true)) => {
            // What is wrong with an empty list of issuers is said elsewhere.
            let issuer = issuers.first()?;
            if issuer.starts_with("spiffe://") {
                findings.add(
                    &place.key("discovery"),
                    Code::MalformedValue,
                    format!("`{issuer}` has no discovery document"),
                    "a trust domain's keys are in its bundle, whose address its name does not tell",
                    "write `jwksUri` with the address of the bundle endpoint, or `jwks` with the bundle",
                );
                return None;
            }
            Some((KeySource::Discovery(issuer.clone()), Vec::new()))
        }
        (None, None, Some(false)) => {
            findings.add(
                &place.key("discovery"),
                Code::MalformedValue,
                "`discovery: false` says nothing",
                "keys must come from somewhere",
                "write `true`, or `jwks` or `jwksUri` instead",
            );
            None
        }
        _ => {
            findings.add(
                place,
                Code::NotExactlyOne,
                "keys must come from exactly one place",
                "with several sources it would be open which keys count",
                "write one of `jwks`, `jwksUri` and `discovery: true`",
            );
            None
        }
    }
}

fn check_jwks(
    place: &Place<'_>,
    jwks: &str,
    purpose: KeyUse,
    findings: &mut Findings,
) -> Option<(KeySource, Vec<Jwk>)> {
    let mut refused = |message: String| {
        findings.add(
            place,
            Code::MalformedKeys,
            message,
            "keys that are written down must all be fit; none is left out silently",
            "write a JSON Web Key Set (RFC 7517) of RSA keys of 2048 bits or more, or of P-256, P-384, P-521 or Ed25519 \
             keys, public parts only; for the pack `spiffe` with `use: jwt-svid`",
        );
        None
    };
    match select_for(jwks, purpose) {
        Err(problem) => refused(problem.to_string()),
        Ok(selection) => match selection.refused.first() {
            Some((index, problem)) => refused(format!("key {index}: {problem}")),
            None if selection.keys.is_empty() => refused("the key set is empty".to_owned()),
            None => Some((KeySource::Inline(jwks.to_owned()), selection.keys)),
        },
    }
}
