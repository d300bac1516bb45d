//! Which pack a token of an issuer that nobody declared would need.

use serde_json::Value;
use tidegate_identity::PackKind;

use super::Said;

/// By the issuer, or by claims that only this provider's tokens have.
pub(super) fn pack(said: &Said) -> PackKind {
    if let Some(pack) = said.text("iss").and_then(PackKind::detect) {
        return pack;
    }
    let has = |name: &str| said.claims.get(name).is_some_and(|value| *value != Value::Null);
    if said.text("sub").is_some_and(|subject| subject.starts_with("spiffe://")) {
        PackKind::Spiffe
    } else if has("kubernetes.io") || has("kubernetes.io/serviceaccount/namespace") {
        PackKind::Kubernetes
    } else if has("https://sts.amazonaws.com/") {
        PackKind::Aws
    } else if has("job_workflow_ref") || (has("repository") && has("run_id")) {
        PackKind::Github
    } else if has("project_path") && has("pipeline_id") {
        PackKind::Gitlab
    } else if has("tid") && has("ver") {
        PackKind::Entra
    } else if has("cid") && has("scp") {
        PackKind::Okta
    } else {
        PackKind::Generic
    }
}
