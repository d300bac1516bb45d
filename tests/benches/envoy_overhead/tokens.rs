//! RS256 tokens of a GitLab issuer, about 760 bytes each.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use tidegate::demo::issuers::Issuer;

use super::rules::{AUDIENCE, CLAIM};
use super::scenarios::{Load, Scenario};

/// Longest life that GitLab's tokens have, in seconds; longer than a run of the benchmark.
const LIFETIME_S: i64 = 3600;

/// More than the filter's cache of 1024 entries holds, whatever it drops first: no token comes again before it is gone.
const DISTINCT: usize = 4096;

/// The tokens of a scenario's requests, one after the other and over again.
pub fn mint(issuer: &Issuer, scenario: &Scenario) -> Result<Vec<String>> {
    let draft = |job: usize| {
        let claims = json!({
            "aud": AUDIENCE,
            "sub": "project_path:data/orders:ref_type:branch:ref:main",
            CLAIM: scenario.last().to_string(),
            "project_path": "data/orders",
            "namespace_id": "72",
            "ref_protected": "true",
            "job_id": (1_000_000 + job).to_string(),
        });
        issuer.other_token(claims, LIFETIME_S)
    };
    let tokens = match scenario.load {
        Load::Warm | Load::Unlike => vec![draft(0).sign()?],
        Load::FirstSight => (0..DISTINCT).map(|job| draft(job).sign()).collect::<Result<_, _>>()?,
        Load::Malformed => vec![malformed(&draft(0).sign()?)?],
        Load::BadSignature => vec![draft(0).damaged().sign()?],
    };
    Ok(tokens)
}

/// The claims lack their last brace: what is found out last of all that can be wrong with their form.
fn malformed(token: &str) -> Result<String> {
    let mut parts = token.split('.');
    let (header, claims, signature) = (parts.next(), parts.next(), parts.next());
    let (header, claims, signature) =
        header.zip(claims).zip(signature).map(|((h, c), s)| (h, c, s)).context("a token has three parts")?;
    let mut claims = URL_SAFE_NO_PAD.decode(claims)?;
    claims.pop();
    Ok(format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(claims)))
}
