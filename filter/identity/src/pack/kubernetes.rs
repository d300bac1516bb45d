//! Projected service-account tokens (`pkg/serviceaccount/claims.go` of Kubernetes): GKE, EKS, AKS and any other cluster.
//!
//! The same namespaces and accounts exist in every cluster, so the issuer is part of the identity. Deleted pods and
//! accounts cannot be seen without asking the API server; short lifetimes are the answer. Labels of the pod, such as
//! Tekton's, are not in the token.

use tidegate_engine::{ClaimValue, TokenFault};

use super::claim::{claims, present, text};
use super::derived::{self, DerivedSpec};
use super::{ClaimKind, ClaimSpec, LifetimeFrom, Overage, Pack, SAME_ISSUER, TokenFacts};
use crate::json::Value;
use crate::keys::Algorithm;

/// One member whose name has a dot.
const PRIVATE: &str = "kubernetes.io";

const fn id(path: &'static [&'static str]) -> ClaimSpec {
    ClaimSpec::new(path, ClaimKind::Identifier)
}

pub(super) static PACK: Pack = Pack {
    claims: claims![
        id(&["iss"]).required(),
        id(&["sub"]).required(),
        ClaimSpec::new(&["aud"], ClaimKind::Strings).required(),
        id(&[PRIVATE, "namespace"]).required(),
        id(&[PRIVATE, "serviceaccount", "name"]).required(),
        id(&[PRIVATE, "serviceaccount", "uid"]).required(),
        // Whoever asks for a token says whether it is bound to the pod, and older clusters name no node.
        id(&[PRIVATE, "pod", "name"]).renameable().overage(Overage::Silent),
        id(&[PRIVATE, "pod", "uid"]).overage(Overage::Silent),
        id(&[PRIVATE, "node", "name"]).renameable().overage(Overage::Silent),
        id(&[PRIVATE, "node", "uid"]).overage(Overage::Silent),
        id(&[PRIVATE, "secret", "name"]).renameable(),
        id(&[PRIVATE, "secret", "uid"]),
        ClaimSpec::new(&[PRIVATE, "warnafter"], ClaimKind::Integer),
    ],
    derived: &[
        DerivedSpec::new("@bound_to_pod", ClaimKind::Boolean, |claims| {
            ClaimValue::Boolean(present(claims, &[PRIVATE, "pod", "uid"]))
        }),
        derived::NO_HUMAN,
    ],
    open: false,
    types: &["jwt"],
    strict_header: false,
    // By the API server's `--service-account-signing-key-file`.
    algorithms: &[Algorithm::Rs256, Algorithm::Es256, Algorithm::Es384, Algorithm::Es512],
    // EKS mounts tokens of 24 h. Tokens for the API server, which may live for a year, are refused.
    max_lifetime_s: 86_400,
    lifetime_from: LifetimeFrom::IssuedAt,
    token_id: Some(&["jti"]),
    single_audience: false,
    tenant: &[&[PRIVATE, "namespace"], &["sub"]],
    shared: &[],
    refuses_issuer: |issuer| {
        (issuer == "kubernetes/serviceaccount")
            .then_some("tokens in Secrets neither expire nor name an audience; use projected tokens")
    },
    key_may_sign: SAME_ISSUER,
    check,
};

fn check(token: &TokenFacts<'_>) -> Result<(), TokenFault> {
    let claim = |path: &[&str]| text(token.claims, path).ok_or(TokenFault::ClaimMissing);
    // The flat claims of tokens in Secrets.
    if token.claims.iter().any(|(name, _)| name.starts_with("kubernetes.io/serviceaccount/")) {
        return Err(TokenFault::WrongKind);
    }
    // The API server's own audience is its issuer, unless it is started with another one (`--api-audiences`): what every
    // pod has by default, and what nobody else must get.
    let audiences = token.claims.get("aud").and_then(Value::as_array).unwrap_or_default();
    if audiences.iter().any(|audience| audience.as_str() == Some(token.iss)) {
        return Err(TokenFault::MintedForAnotherParty);
    }
    let namespace = claim(&[PRIVATE, "namespace"])?;
    let account = claim(&[PRIVATE, "serviceaccount", "name"])?;
    let subject =
        claim(&["sub"])?.strip_prefix("system:serviceaccount:").ok_or(TokenFault::ClaimsContradict)?;
    if subject.split_once(':') != Some((namespace, account)) {
        return Err(TokenFault::ClaimsContradict);
    }
    let bound_to = |what: &str| present(token.claims, &[PRIVATE, what]);
    if bound_to("pod") && bound_to("secret") {
        return Err(TokenFault::ClaimsContradict);
    }
    // `kubectl create token` makes tokens that belong to no pod: an operator's, not a workload's.
    if !token.allow_unbound && !present(token.claims, &[PRIVATE, "pod", "uid"]) {
        return Err(TokenFault::WrongKind);
    }
    Ok(())
}
