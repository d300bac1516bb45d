//! Revocations as rules: Denies of the root namespace, beside those that people wrote, that nothing suspends.
//!
//! A Caller is revoked as what it was when somebody revoked it, and as what its object says now: whoever may write the object
//! can add to that, and take nothing away.
//!
//! INVARIANT: what is added only refuses. Each has its end in it, so filters end it by their own clocks.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tidegate_compiler::revocation::REFERENCE;
use tidegate_compiler::{Compiled, revocation, tree};
use tidegate_identity::PackKind;

use super::kept::{Frozen, Revocation, Target};
use crate::clock;
use crate::rules::AcceptedRules;

/// The path of the rule of a revocation.
pub(super) fn path(id: &str) -> String {
    format!("{}{id}.yaml", revocation::PATHS)
}

/// The path of a frozen form, from 0.
pub(super) fn form_path(id: &str, form: usize) -> String {
    format!("{}{id}, form {form}.yaml", revocation::PATHS)
}

/// Files with the rule and what it refers to, without those of its entries. `compiled`: what is in force, for the mesh and the
/// issuers that it names. Nothing where no entry is left.
///
/// # Errors
/// With words where there is no rule that does it.
pub(super) fn files(
    revocation: &Revocation,
    compiled: &Compiled,
    without: &BTreeSet<usize>,
) -> Result<Vec<(String, String)>, String> {
    let Revocation { id, target, frozen, .. } = revocation;
    let root = &compiled.mesh.root_namespace;
    let name = format!("{}{id}", revocation::NAMES);
    let mut files = Vec::new();
    let mut from = Vec::new();
    match target {
        Target::Caller { name: caller } => {
            from.push(json!({"caller": caller}));
            for (at, form) in frozen.iter().flat_map(|frozen| &frozen.forms).enumerate() {
                let form_name = format!("{name}-{at}");
                from.push(json!({"caller": format!("{root}/{form_name}")}));
                if !without.contains(&(at + 1)) {
                    let form = form.replace(REFERENCE, &format!("{REFERENCE}{name}-"));
                    let text = format!(
                        "kind: Caller\nmetadata: {{name: {form_name}, namespace: {root}}}\nspec:\n  anyOf:\n  -\n{form}"
                    );
                    files.push((form_path(id, at), text));
                }
            }
        }
        Target::Instance { issuer, id } => from.push(instance(issuer, id, compiled)?),
        Target::Token { .. } | Target::Subject { .. } | Target::Key { .. } => {
            return Err("it is part of the keys, and of no rule".to_owned());
        }
    }
    let from: Vec<Value> =
        (0..).zip(from).filter(|(at, _)| !without.contains(at)).map(|(_, entry)| entry).collect();
    if from.is_empty() {
        return Ok(Vec::new());
    }
    let rule = json!({
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "AccessRule",
        "metadata": {"name": name, "namespace": root},
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
    files.push((path(id), format!("{rule:#}\n")));
    Ok(files)
}

/// What the frozen forms of a revocation refer to.
pub(super) fn environment(revocation: &Revocation) -> impl Iterator<Item = (String, String)> {
    let values = revocation.frozen.iter().flat_map(|frozen| &frozen.environment);
    values.map(|(name, value)| (format!("{}{}-{name}", revocation::NAMES, revocation.id), value.clone()))
}

/// Who a Caller (`namespace/name`) is, as these rules say. `None`: they do not.
///
/// # Errors
/// With words where they do, and it cannot be written down.
pub(super) fn freeze(caller: &str, rules: &AcceptedRules) -> Result<Option<Frozen>, String> {
    let Some((namespace, name)) = caller.split_once('/') else { return Ok(None) };
    let is_it = |root: tree::Tree<'_>| {
        let text = |path: &[&str]| root.at(path).and_then(tree::Tree::text);
        text(&["kind"]) == Some("Caller")
            && text(&["metadata", "namespace"]) == Some(namespace)
            && text(&["metadata", "name"]) == Some(name)
    };
    // A kind may be a reference to the environment, or written with escapes.
    let may_be = |text: &&String| text.contains("Caller") || text.contains("${") || text.contains('\\');
    for (path, text) in rules.files.iter().filter(|(_, text)| may_be(text)) {
        let (with_values, _) = tree::read(text, Some(&rules.environment));
        let Some(at) = with_values.iter().position(|document| is_it(document.root())) else { continue };
        let (as_written, _) = tree::read(text, None);
        let frozen =
            as_written.get(at).and_then(|written| revocation::freeze(written.root(), &rules.environment));
        let (forms, environment) = frozen.ok_or_else(|| {
            format!(
                "Caller `{caller}` (`{path}`) cannot be written down as it is now, so that a change of it could free whoever is \
                 revoked; write its `anyOf` as a list of plain maps, or revoke its tokens, subjects or keys"
            )
        })?;
        return Ok(Some(Frozen { forms, environment }));
    }
    Ok(None)
}

/// Whoever brings a token of that machine or pod, from whichever trust domain and through whichever gateway.
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
    let when = format!("{claim} == {}", Value::from(id));
    Ok(json!({"anyone": true, "tokens": [{"issuer": name, "as": "token"}], "when": [when]}))
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

    /// Its token is taken back from whoever brings it: peers of any trust domain, none, and through gateways.
    #[test]
    fn an_instance_is_revoked_whatever_its_peer_is() {
        let rules = "kind: Mesh\nmetadata: {name: prod}\nspec:\n  trustDomain: prod.example\n  rootNamespace: root\n  workloads: \
                     [{namespace: sales, name: orders}]\n---\nkind: TrustedIssuer\nmetadata: {name: pods}\nspec: {issuer: \
                     \"https://pods.example\", pack: kubernetes, keys: {jwksUri: \"https://pods.invalid/keys\"}}\n";
        let mut files: crate::rules::Files = [("rules.yaml".to_owned(), rules.to_owned())].into();
        let before = crate::serve::compile_files(&files, &Default::default()).output.unwrap();
        let revocation = Revocation {
            id: "r-1".into(),
            target: Target::Instance { issuer: "pods".into(), id: "uid-7".into() },
            reason: "x".into(),
            by: "me".into(),
            at: 0,
            until: 4_000_000_000,
            frozen: None,
        };
        files.extend(super::files(&revocation, &before, &BTreeSet::new()).unwrap());
        let compiled = crate::serve::compile_files(&files, &Default::default());
        let compiled = compiled.output.unwrap_or_else(|| panic!("{:?}", compiled.diagnostics));
        let rule = &compiled.workloads.values().next().unwrap().model.rules[0];
        assert!(rule.revokes && rule.to.is_none());
        let [from] = rule.from.as_slice() else { panic!("{:?}", rule.from) };
        assert_eq!((&from.peer, from.issuers.len()), (&tidegate_engine::model::PeerModel::Anyone, 1));
        // Nobody else can write that.
        let forged = files.remove(&path("r-1")).unwrap();
        files.insert("forged.yaml".to_owned(), forged.replace("tidegate-revoked-r-1", "forged"));
        assert!(crate::serve::compile_files(&files, &Default::default()).output.is_none());
    }

    #[test]
    fn a_caller_is_frozen_with_the_values_that_it_refers_to() {
        let text = "kind: Guard\n---\nkind: Caller\nmetadata: {name: etl, namespace: data}\nspec:\n  anyOf:\n  \
                    - {peer: {namespace: \"${env.space}\"}}\n  - tokenOnly: {via: [a/b]}\n    tokens:\n    - issuer: x\n      \
                    gitlab:\n        project: ${env.number}\n";
        let environment = [("space", "etl"), ("number", "7"), ("other", "z")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let rules = AcceptedRules { files: [("a.yaml".to_owned(), text.to_owned())].into(), environment };
        assert_eq!(freeze("data/other", &rules), Ok(None));
        let frozen = freeze("data/etl", &rules).unwrap().unwrap();
        let names: Vec<&str> = frozen.environment.keys().map(String::as_str).collect();
        assert_eq!((frozen.forms.len(), names), (2, vec!["number", "space"]));
        assert_eq!(frozen.forms[0], "    \"peer\":\n      \"namespace\": \"${env.space}\"\n");
    }
    #[test]
    fn a_caller_is_found_however_its_kind_is_written_and_never_left_unfrozen() {
        let environment = [("kind".to_owned(), "Caller".to_owned())].into();
        let text = |kind: &str, spec: &str| {
            format!("kind: {kind}\nmetadata: {{name: etl, namespace: data}}\nspec: {spec}\n")
        };
        let mut rules = AcceptedRules { files: Default::default(), environment };
        for kind in ["Caller", "\"${env.kind}\"", "\"Call\\x65r\""] {
            rules.files.insert("a.yaml".to_owned(), text(kind, "{anyOf: [{peer: {namespace: etl}}]}"));
            assert!(freeze("data/etl", &rules).unwrap().is_some(), "{kind}");
        }
        rules.files.insert("a.yaml".to_owned(), text("Caller", "{}"));
        let why = freeze("data/etl", &rules).unwrap_err();
        assert!(why.contains("`data/etl` (`a.yaml`) cannot be written down"), "{why}");
    }
}
