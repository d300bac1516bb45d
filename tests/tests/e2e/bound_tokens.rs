//! Tokens that are bound to a client certificate (RFC 8705), and tokens that are revoked.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::Method;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tidegate::demo::client::{Call, Protocol};
use tidegate::demo::pki::Credential;
use tidegate_tests::corpus::{spiffe_id, token_of};
use tidegate_tests::rig::Rig;

const PATIENCE: Duration = Duration::from_secs(30);

const RULES: &str = "
kind: Guard
metadata: {name: sales, namespace: sales}
spec: {mode: Enforce, audience: \"https://orders.sales.example\"}
---
kind: AccessRule
metadata: {name: orders, namespace: sales}
spec:
  owner: team-billing
  effect: Allow
  mode: Enforce
  from:
  - peer: {namespace: etl, serviceAccounts: [orders-worker]}
    tokens: [{issuer: ISSUER}]
  to: [{http: {methods: [GET], paths: [\"/v1/orders\"]}}]
";

/// RFC 8705 §3.1: the SHA-256 of the certificate's DER, base64url.
fn thumbprint(credential: &Credential) -> Result<String> {
    let leaf = credential.chain_pem.split("-----").nth(2).context("a certificate")?;
    let der = STANDARD.decode(leaf.split_whitespace().collect::<String>())?;
    Ok(URL_SAFE_NO_PAD.encode(Sha256::digest(&der)))
}

async fn answer(rig: &Rig, credential: &Credential, token: &str) -> Result<(u16, String)> {
    let call = Call::new(Method::GET, "/v1/orders").authority("orders.sales.example").bearer(token);
    let answer = rig.service_with(credential)?.call(Protocol::Http2, call).await?;
    Ok((answer.status.as_u16(), String::from_utf8_lossy(&answer.body).into_owned()))
}

pub async fn bound_tokens_need_their_certificate(rig: &Rig) -> Result<()> {
    rig.apply(&RULES.replace("ISSUER", "prod-cluster")).await?;
    let own = rig.mesh.workload(&spiffe_id("etl/orders-worker"))?;
    let other = rig.mesh.workload(&spiffe_id("etl/orders-worker"))?;
    let bound = token_of(rig, "cluster")?.claim("cnf", json!({"x5t#S256": thumbprint(&own)?})).sign()?;
    // Twice each: the second time the token has been verified before.
    for (credential, expected, reason) in
        [(&own, 200, ""), (&other, 401, "token_not_bound"), (&own, 200, ""), (&other, 401, "token_not_bound")]
    {
        let (status, told) = answer(rig, credential, &bound).await?;
        ensure!(status == expected && told.contains(reason), "answered {status} {told}, expected {expected}");
    }
    println!(
        "a token bound to a certificate is accepted with it, and refused with another of the same workload"
    );
    Ok(())
}

/// A token that was accepted before, and is accepted no more once its subject is revoked.
pub async fn revocations_reach_tokens_that_were_accepted(rig: &Rig) -> Result<()> {
    const OWN_ISSUER: &str = "
---
kind: TrustedIssuer
metadata: {name: revoking}
spec:
  issuer: \"https://issuer.revoking.example\"
  pack: generic
  tokenTypes: [JWT]
  algorithms: [RS256]
  keys:
    jwks: 'JWKS'
";
    let issuer = &rig.issuers.gitlab;
    let declared = OWN_ISSUER.replace("JWKS", &issuer.jwks().to_string());
    let rules = format!("{}{declared}", RULES.replace("ISSUER", "revoking"));
    rig.apply(&rules).await?;
    let draft = issuer
        .other_token(json!({"aud": "https://orders.sales.example", "sub": "robot-7", "jti": "token-1"}), 600);
    let token = draft.claim("iss", "https://issuer.revoking.example").sign()?;
    let own = rig.mesh.workload(&spiffe_id("etl/orders-worker"))?;
    for revoked in ["subjects: [{subject: robot-7}]", "tokens: [{id: token-1}]"] {
        std::fs::write(rig.rules_file(), &rules)?;
        let begin = Instant::now();
        while answer(rig, &own, &token).await?.0 != 200 {
            ensure!(begin.elapsed() < PATIENCE, "a token that is not revoked is refused");
        }
        let begin = Instant::now();
        std::fs::write(rig.rules_file(), format!("{rules}  revoked: {{{revoked}}}\n"))?;
        loop {
            let (status, told) = answer(rig, &own, &token).await?;
            if status == 401 && told.contains("token_revoked") {
                break;
            }
            ensure!(status == 200, "answered {status} {told}");
            ensure!(begin.elapsed() < PATIENCE, "`{revoked}` is not enforced");
        }
        println!("`{revoked}` written to disk: refused after {:?}", begin.elapsed());
    }
    Ok(())
}
