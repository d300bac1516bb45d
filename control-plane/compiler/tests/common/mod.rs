//! A mesh, its issuers, and short ways to compile rules for it.
#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::collections::BTreeMap;

use tidegate_compiler::{Compilation, Compiled, Inputs, SourceFile, WorkloadId, WorkloadPolicy, compile};

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
    compile(&Inputs { sources, env: env() })
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
