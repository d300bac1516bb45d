//! Why nothing is held back where rules are a cluster's objects.

use tidegate_compiler::{Code, Diagnostic, tree};

use crate::rules::{Environment, Files};

/// Where Guards are among the files.
const GUARDS: &str = "kube/Guard/";

/// Guards of a cluster that ask for what is not done there.
pub(crate) fn refused_in_cluster(files: &Files, environment: &Environment) -> Vec<Diagnostic> {
    let guards = files.iter().filter(|(path, text)| path.starts_with(GUARDS) && text.contains("rollout"));
    let refused = guards.filter_map(|(path, text)| {
        let (documents, _) = tree::read(text, Some(environment));
        let line = documents.iter().find_map(|one| one.root().at(&["spec", "rollout"]))?.line();
        let name = path.strip_prefix(GUARDS).and_then(|path| path.strip_suffix(".yaml")).unwrap_or(path);
        Some(Diagnostic {
            file: path.clone(),
            line,
            column: 1,
            code: Code::NotSupported,
            severity: Code::NotSupported.severity(),
            object: Some(format!("Guard `{name}`")),
            field: "spec.rollout".to_owned(),
            message: "rollouts are not supported where the control plane reads rules from a cluster".to_owned(),
            why: "Istio's policies would have to allow what either rules do for as long as the rollout takes, and another replica \
                  that takes over would have to know which proxies are canaries"
                .to_owned(),
            fix: "remove the field; apply a changed rule beside the one that is enforced first, under another name and with `mode: \
                  Shadow`, and look at `tidegate decisions --differing` before it takes the other one's place; `tidegate rollback` \
                  is there for all proxies at once. Or serve the rules from a folder (`tidegate serve --rules`)"
                .to_owned(),
            related: Vec::new(),
        })
    });
    refused.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_that_asks_for_it_is_named_and_no_other() {
        let guard = |more: &str| format!("kind: Guard\nspec:\n  mode: Enforce\n{more}");
        let files: Files = [
            ("kube/Guard/a/tried.yaml", guard("  rollout: {canary: 1, hold: 5m}\n")),
            ("kube/Guard/a/plain.yaml", guard("")),
            ("kube/Guard/a/rollout.yaml", guard("  selector: {matchLabels: {rollout: a}}\n")),
            ("kube/AccessRule/a/rollout.yaml", "spec: {rollout: {}}".to_owned()),
        ]
        .map(|(path, text)| (path.to_owned(), text))
        .into();
        let refused = refused_in_cluster(&files, &Environment::new());
        let [one] = refused.as_slice() else { panic!("{refused:?}") };
        assert_eq!((one.file.as_str(), one.line, one.is_error()), ("kube/Guard/a/tried.yaml", 4, true));
        assert_eq!(one.object.as_deref(), Some("Guard `a/tried`"));
    }
}
