//! Projected service-account tokens (`pkg/serviceaccount/claims.go` of Kubernetes).
//!
//! The same namespaces and accounts exist in every cluster, so the issuer is part of the identity. Deleted pods and
//! accounts cannot be seen without asking the API server; short lifetimes are the answer.

use tidegate_engine::TokenFault;

use super::{ClaimKind, ClaimSpec, Pack, TokenFacts, claims, present, text};
use crate::keys::Algorithm;

/// One member whose name has a dot.
const PRIVATE: &str = "kubernetes.io";

const fn id(path: &'static [&'static str]) -> ClaimSpec {
    ClaimSpec::new(path, ClaimKind::Identifier)
}

pub(super) static PACK: Pack = Pack {
    claims: claims![
        sub: ClaimKind::Identifier, aud: ClaimKind::Strings;
        id(&[PRIVATE, "namespace"]).required(),
        id(&[PRIVATE, "serviceaccount", "name"]).required(),
        id(&[PRIVATE, "serviceaccount", "uid"]).required(),
        id(&[PRIVATE, "pod", "name"]).renameable(),
        id(&[PRIVATE, "pod", "uid"]),
        id(&[PRIVATE, "node", "name"]).renameable(),
        id(&[PRIVATE, "node", "uid"]),
        id(&[PRIVATE, "secret", "name"]).renameable(),
        id(&[PRIVATE, "secret", "uid"]),
        ClaimSpec::new(&[PRIVATE, "warnafter"], ClaimKind::Integer),
    ],
    types: &["jwt"],
    algorithms: &[Algorithm::Rs256, Algorithm::Es256],
    // EKS mounts tokens of 24 h. Tokens for the API server, which may live for a year, are refused.
    max_lifetime_s: 86_400,
    tenant: &[&[PRIVATE, "namespace"], &["sub"]],
    shared: &[],
    refuses_issuer: |issuer| {
        (issuer == "kubernetes/serviceaccount")
            .then_some("tokens in Secrets neither expire nor name an audience; use projected tokens")
    },
    check,
};

fn check(token: &TokenFacts<'_>) -> Result<(), TokenFault> {
    let claim = |path: &[&str]| text(token.claims, path).ok_or(TokenFault::ClaimMissing);
    // The flat claims of tokens in Secrets.
    if token.claims.iter().any(|(name, _)| name.starts_with("kubernetes.io/serviceaccount/")) {
        return Err(TokenFault::WrongKind);
    }
    let namespace = claim(&[PRIVATE, "namespace"])?;
    let account = claim(&[PRIVATE, "serviceaccount", "name"])?;
    let subject =
        claim(&["sub"])?.strip_prefix("system:serviceaccount:").ok_or(TokenFault::ClaimsContradict)?;
    if subject.split_once(':') != Some((namespace, account)) {
        return Err(TokenFault::ClaimsContradict);
    }
    // `kubectl create token` makes tokens that belong to no pod: an operator's, not a workload's.
    if !token.allow_unbound && !present(token.claims, &[PRIVATE, "pod", "uid"]) {
        return Err(TokenFault::WrongKind);
    }
    Ok(())
}
