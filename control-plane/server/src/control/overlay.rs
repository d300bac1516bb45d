//! Revocations as rules: Deny rules of the root namespace, beside those that people wrote.
//!
//! INVARIANT: what is added only refuses. Each has its end in it, so filters end it by their own clocks.

use serde_json::{Value, json};
use tidegate_compiler::Compiled;
use tidegate_engine::REVOKING_RULES;
use tidegate_identity::PackKind;

use super::kept::{Revocation, Target};
use crate::clock;

/// The file that a revocation's rule is in.
pub(super) fn file(revocation: &Revocation) -> String {
    format!("(revocation {}).yaml", revocation.id)
}

/// The rule. `compiled`: what is in force, for the mesh and the issuers that it names.
///
/// # Errors
/// With words where there is none that does it.
pub(super) fn rule(revocation: &Revocation, compiled: &Compiled) -> Result<String, String> {
    let from = match &revocation.target {
        Target::Caller { name } => json!([{"caller": name}]),
        Target::Instance { issuer, id } => instance(issuer, id, compiled)?,
        Target::Token { .. } | Target::Subject { .. } | Target::Key { .. } => {
            return Err("it is part of the keys, and of no rule".to_owned());
        }
    };
    let rule = json!({
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "AccessRule",
        "metadata": {
            "name": format!("{REVOKING_RULES}{}", revocation.id),
            "namespace": compiled.mesh.root_namespace,
        },
        "spec": {
            "owner": "whoever revoked it",
            // Whoever is revoked learns neither why nor by whom.
            "disclosure": "code",
            "effect": "Deny",
            "mode": "Enforce",
            "from": from,
            "notAfter": moment(revocation.until),
        },
    });
    // JSON is YAML.
    Ok(format!("{rule:#}\n"))
}

fn instance(name: &str, id: &str, compiled: &Compiled) -> Result<Value, String> {
    let issuer = compiled.issuers.iter().find(|issuer| issuer.name == name);
    let claim = match issuer.map(|issuer| issuer.pack) {
        Some(PackKind::Google) => "token.google.compute_engine.instance_id",
        Some(PackKind::Kubernetes) => "token[\"kubernetes.io\"].pod.uid",
        _ => {
            return Err(format!(
                "tokens of `{name}` name no instance: those of the packs google (Compute Engine's instance id) and kubernetes \
                 (the pod's uid) do; revoke the Caller, or the token"
            ));
        }
    };
    let tokens = json!([{"issuer": name, "as": "token"}]);
    let when = json!([format!("{claim} == {}", Value::from(id))]);
    let gateways: Vec<String> = compiled.mesh.gateway_names();
    let mut from = vec![json!({"anyMesh": true, "tokens": tokens, "when": when})];
    if !gateways.is_empty() {
        from.push(json!({"tokenOnly": {"via": gateways}, "tokens": tokens, "when": when}));
    }
    Ok(Value::Array(from))
}

/// RFC 3339 to the second.
fn moment(at: i64) -> String {
    let minutes = clock::rfc3339(at);
    format!("{}:{:02}Z", minutes.trim_end_matches('Z'), at.rem_euclid(60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_one_to_the_second() {
        for at in [0, 1_795_203_599, 1_795_203_600, 1_795_203_661] {
            assert_eq!(tidegate_compiler::moment(&moment(at)), Some(at), "{}", moment(at));
        }
    }
}
