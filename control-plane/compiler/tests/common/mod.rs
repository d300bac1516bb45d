//! A mesh, its issuers, and short ways to compile rules for it.
#![allow(dead_code, unused_imports, unused_macros, reason = "every test binary uses a part of it")]

pub mod calls;
pub mod documents;

use std::collections::BTreeMap;

use tidegate_compiler::{Compilation, Compiled, Inputs, SourceFile, WorkloadId, WorkloadPolicy, compile};
use tidegate_engine::model::{ClaimRef, Condition, PolicyModel, Test};

/// The mesh of the tests.
pub const MESH: &str = "\
kind: Mesh
metadata: {name: prod}
spec:
  trustDomain: prod.example
  rootNamespace: mesh-config
  workloads:
  - {namespace: sales, name: orders-api, labels: {app: orders-api}, serviceAccount: orders-api}
  - {namespace: sales, name: ledger, labels: {app: ledger}, serviceAccount: ledger}
  - {namespace: etl, name: orders-worker, labels: {app: orders-worker}, serviceAccount: orders-worker}
  - {namespace: kube-system, name: dns, labels: {app: dns}, serviceAccount: dns}
  gateways:
  - {namespace: ingress, name: dataflow-in, labels: {gateway: dataflow-in}, serviceAccount: dataflow-in}
  - {namespace: egress, name: external, labels: {gateway: external}, serviceAccount: external}
";

/// The issuers of the tests.
pub const ISSUERS: &str = "\
kind: TrustedIssuer
metadata: {name: prod-cluster}
spec: {issuer: 'https://kubernetes.prod.example', pack: kubernetes, keys: {discovery: true}, maxLifetime: 1h}
---
kind: TrustedIssuer
metadata: {name: google}
spec: {issuer: 'https://accounts.google.com', pack: google, keys: {jwksUri: 'https://www.googleapis.com/oauth2/v3/certs'}}
---
kind: TrustedIssuer
metadata: {name: gitlab}
spec:
  issuer: https://gitlab.com
  pack: gitlab
  keys: {discovery: true}
  headers: [{name: X-Job-Token}]
---
kind: TrustedIssuer
metadata: {name: corp}
spec: {issuer: 'https://login.corp.example/', pack: generic, keys: {discovery: true}, allowedNamespaces: [sales], audiences: ['https://orders.sales.example']}
";

/// Issuers of the other packs.
pub const PROVIDERS: &str = "\
kind: TrustedIssuer
metadata: {name: entra}
spec: {issuer: 'https://login.microsoftonline.com/bbbbbbbb-0000-4000-8000-000000000002/v2.0', pack: entra, keys: {discovery: true}}
---
kind: TrustedIssuer
metadata: {name: okta}
spec: {issuer: 'https://id.example.com/oauth2/aus0example', pack: okta, keys: {discovery: true}}
---
kind: TrustedIssuer
metadata: {name: aws}
spec: {issuer: 'https://00000000-1111-2222-3333-444444444444.tokens.sts.global.api.aws', pack: aws, keys: {discovery: true}}
---
kind: TrustedIssuer
metadata: {name: github}
spec: {issuer: 'https://token.actions.githubusercontent.com', pack: github, keys: {discovery: true}}
---
kind: TrustedIssuer
metadata: {name: batch}
spec: {issuer: 'spiffe://batch.example', pack: spiffe, keys: {jwksUri: 'https://bundle.batch.example'}}
---
kind: TrustedIssuer
metadata: {name: oauth}
spec: {issuer: 'https://oauth.example.com', pack: generic, keys: {discovery: true}}
";

/// A Guard of the namespace `sales`.
pub const GUARD: &str = "\
kind: Guard
metadata: {name: sales, namespace: sales}
spec: {mode: Enforce, audience: 'https://orders.sales.example'}
";

/// Files by name.
pub fn files(files: &[(&str, &str)]) -> Vec<SourceFile> {
    files
        .iter()
        .map(|(path, text)| SourceFile { path: (*path).to_owned(), text: (*text).to_owned() })
        .collect()
}

/// Compiles these files.
pub fn compile_files(sources: &[SourceFile]) -> Compilation {
    compile(&Inputs { sources, env: env(), now: None })
}

/// Values of the environment.
pub fn env() -> BTreeMap<String, String> {
    BTreeMap::from([("project".to_owned(), "acme".to_owned()), ("port".to_owned(), "8080".to_owned())])
}

/// Compiles a file of rules for the mesh of the tests.
pub fn compile_rules(rules: &str) -> Compilation {
    compile_files(&files(&[
        ("mesh.yaml", MESH),
        ("issuers.yaml", ISSUERS),
        ("providers.yaml", PROVIDERS),
        ("guard.yaml", GUARD),
        ("rules.yaml", rules),
    ]))
}

/// What a compilation says, one finding per line.
pub fn shown(compilation: &Compilation) -> String {
    let mut text = String::new();
    for diagnostic in &compilation.diagnostics {
        text.push_str(&diagnostic.to_string());
        text.push('\n');
    }
    text.push_str(if compilation.output.is_some() { "=> compiled\n" } else { "=> refused\n" });
    text
}

/// The codes that a compilation reports.
pub fn codes(compilation: &Compilation) -> Vec<&'static str> {
    compilation.diagnostics.iter().map(|diagnostic| diagnostic.code.as_str()).collect()
}

/// Compiles rules that must be fine.
pub fn compiled(rules: &str) -> Compiled {
    let compilation = compile_rules(rules);
    let said = shown(&compilation);
    compilation.output.unwrap_or_else(|| panic!("{said}"))
}

/// The policy of a workload.
pub fn policy<'c>(compiled: &'c Compiled, namespace: &str, name: &str) -> &'c WorkloadPolicy {
    &compiled.workloads[&WorkloadId { namespace: namespace.to_owned(), name: name.to_owned() }]
}

/// An AccessRule of the namespace `sales` for orders-api, with this `from` and `to` (indented by two).
pub fn rule(effect: &str, from: &str, to: &str) -> String {
    let to = if to.is_empty() { String::new() } else { format!("  to:\n{to}\n") };
    format!(
        "kind: AccessRule\nmetadata: {{name: r, namespace: sales}}\nspec:\n  owner: team-billing\n  target: {{selector: \
         {{matchLabels: {{app: orders-api}}}}}}\n  effect: {effect}\n  mode: Enforce\n  from:\n{from}\n{to}"
    )
}

/// A condition as text, by names.
pub fn said(model: &PolicyModel, condition: &Condition) -> String {
    // Order does not matter to `and` and `or`.
    let all = |parts: &[Condition]| {
        let mut parts: Vec<String> = parts.iter().map(|part| said(model, part)).collect();
        parts.sort_unstable();
        parts
    };
    match condition {
        Condition::True => "true".to_owned(),
        Condition::All(parts) => format!("({})", all(parts).join(" and ")),
        Condition::Any(parts) => format!("({})", all(parts).join(" or ")),
        Condition::Not(part) => format!("not {}", said(model, part)),
        Condition::Claim(claim_ref, test) => {
            let directory = |index: u16| &model.directories[usize::from(index)];
            let claim = |claim: &ClaimRef| {
                let issuer = &model.issuers[usize::from(claim.issuer)];
                format!("{}:{}", issuer.name, issuer.slots[usize::from(claim.slot)].join("/"))
            };
            let test = match test {
                Test::Listed(index) => format!("in {}", directory(*index)),
                Test::ListedOrStale(index) => format!("in {} or stale", directory(*index)),
                Test::Same(other) => format!("is {}", claim(other)),
                other => format!("{other:?}"),
            };
            format!("{} {test}", claim(claim_ref))
        }
        Condition::Compare(..) | Condition::Text(..) | Condition::Within(_) => format!("{condition:?}"),
    }
}

/// Snapshots of what is said about each of these rules.
macro_rules! refused {
    ($($name:ident: $rules:expr;)*) => {
        $(
            #[test]
            fn $name() {
                let compilation = $crate::common::compile_rules(&$rules);
                assert!(compilation.output.is_none(), "{}", $crate::common::shown(&compilation));
                insta::with_settings!({ description => $rules.to_string(), omit_expression => true }, {
                    insta::assert_snapshot!($crate::common::shown(&compilation));
                });
            }
        )*
    };
}
pub(crate) use refused;

/// The same for rules that compile with warnings.
macro_rules! warned {
    ($($name:ident: $rules:expr;)*) => {
        $(
            #[test]
            fn $name() {
                let compilation = $crate::common::compile_rules(&$rules);
                assert!(compilation.output.is_some(), "{}", $crate::common::shown(&compilation));
                assert!(!compilation.diagnostics.is_empty(), "nothing was said about\n{}", $rules);
                insta::with_settings!({ description => $rules.to_string(), omit_expression => true }, {
                    insta::assert_snapshot!($crate::common::shown(&compilation));
                });
            }
        )*
    };
}
pub(crate) use warned;
