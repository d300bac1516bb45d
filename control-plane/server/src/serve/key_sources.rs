//! Where the keys of issuers come from, as compiled rules say.

use std::collections::BTreeSet;

use tidegate_compiler::{Compiled, KeySource as Declared, TrustedIssuer};
use tidegate_identity::PackKind;

use crate::keys::{IssuerSource, KeySource, KeySources};

/// Where the keys of every issuer come from, and which issuers any rule names.
pub fn key_sources(compiled: &Compiled) -> KeySources {
    let policies = compiled.workloads.values();
    let used: BTreeSet<&str> =
        policies.flat_map(|policy| &policy.model.issuers).map(|issuer| issuer.name.as_str()).collect();
    let source = |issuer: &TrustedIssuer| IssuerSource {
        keys: match &issuer.keys {
            Declared::Inline(document) => KeySource::Inline(document.clone()),
            Declared::Uri(url) => KeySource::Url(url.clone()),
            Declared::Discovery(first) => {
                KeySource::Discovery(of_all_tenants(issuer).unwrap_or_else(|| first.clone()))
            }
        },
        issuers: issuer.issuers.clone(),
        pack: issuer.pack,
        used: used.contains(issuer.name.as_str()),
        rotate_every_s: issuer.rotate_every_s.map(i64::from),
        retire_at: issuer.retire_at.unwrap_or(0),
    };
    compiled.issuers.iter().map(|issuer| (issuer.name.clone(), source(issuer))).collect()
}

/// What Microsoft Entra ID calls itself where it describes itself for all tenants, if tokens of several are accepted: one
/// tenant's own document names keys that are for that tenant only.
fn of_all_tenants(issuer: &TrustedIssuer) -> Option<String> {
    if issuer.pack != PackKind::Entra {
        return None;
    }
    // `https://HOST/TENANT/v2.0` and `https://HOST/TENANT/`.
    let parts = |issuer: &'_ str| {
        let mut parts = issuer.splitn(5, '/').map(str::to_owned);
        Some((parts.nth(2)?, parts.next()?, parts.next()?))
    };
    let all: Vec<_> = issuer.issuers.iter().filter_map(|issuer| parts(issuer)).collect();
    let tenants: BTreeSet<&String> = all.iter().map(|(_, tenant, _)| tenant).collect();
    // The keys of v2 say whom they are for.
    let (host, _, version) = all.iter().find(|(_, _, version)| version == "v2.0").or(all.first())?;
    (tenants.len() > 1).then(|| format!("https://{host}/{{tenantid}}/{version}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Environment, Files};
    use crate::serve::compile_files;

    const RULES: &str = r#"
apiVersion: tidegate.dev/v1alpha1
kind: Mesh
metadata: {name: prod}
spec:
  trustDomain: prod.example
  rootNamespace: mesh-config
  workloads: [{namespace: sales, name: orders, labels: {app: orders}, serviceAccount: orders}]
---
apiVersion: tidegate.dev/v1alpha1
kind: Guard
metadata: {name: sales, namespace: sales}
spec: {mode: Enforce, audience: "https://orders.sales.example"}
---
apiVersion: tidegate.dev/v1alpha1
kind: AccessRule
metadata: {name: etl, namespace: sales}
spec:
  owner: billing
  effect: Allow
  mode: Enforce
  from: [{anyMesh: true, tokens: [{issuer: used, DEMAND}]}]
  to: [{http: {methods: [POST], paths: ["/v1/orders"]}}]
---
apiVersion: tidegate.dev/v1alpha1
kind: TrustedIssuer
metadata: {name: spare}
spec: {issuer: "https://gitlab.example", pack: gitlab, keys: {jwksUri: "https://gitlab.example/keys"}}
---
apiVersion: tidegate.dev/v1alpha1
kind: TrustedIssuer
metadata: {name: used}
"#;

    const ENTRA: &str = "entra: {app: cccccccc-0000-4000-8000-000000000003, appOnly: true}";

    fn sources(spec: &str, demand: &str) -> KeySources {
        let text = format!("{}spec: {spec}\n", RULES.replace("DEMAND", demand));
        let files = Files::from([("rules.yaml".to_owned(), text)]);
        let compilation = compile_files(&files, &Environment::new());
        key_sources(&compilation.output.unwrap_or_else(|| panic!("{:#?}", compilation.diagnostics)))
    }

    #[test]
    fn where_keys_come_from_is_taken_from_the_rules_and_whether_any_names_the_issuer() {
        let spec = r#"{issuer: "https://cluster.example", pack: kubernetes, keys: {discovery: true}, rotateEvery: 90d,
                       retireAfter: "2030-01-01"}"#;
        let sources = sources(spec, "kubernetes: {namespace: etl}");
        let used = &sources["used"];
        assert_eq!(used.keys, KeySource::Discovery("https://cluster.example".into()));
        assert_eq!((used.used, used.rotate_every_s), (true, Some(90 * 86_400)));
        assert!((1_893_456_000..=1_893_456_000 + 86_400).contains(&used.retire_at), "{}", used.retire_at);
        let spare = &sources["spare"];
        assert_eq!(spare.keys, KeySource::Url("https://gitlab.example/keys".into()));
        assert_eq!((spare.used, spare.rotate_every_s, spare.retire_at), (false, None, 0));
    }

    #[test]
    fn several_tenants_of_entra_are_described_by_the_document_for_all_of_them() {
        let (a, b) = ("aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002");
        let v1 = |tenant: &str| format!("https://sts.windows.net/{tenant}/");
        let v2 = |tenant: &str| format!("https://login.microsoftonline.com/{tenant}/v2.0");
        for (issuers, expected) in [
            (vec![v2(a)], v2(a)),
            (vec![v1(a)], v1(a)),
            (vec![v1(a), v2(a)], v1(a)),
            (vec![v2(a), v2(b)], v2("{tenantid}")),
            (vec![v1(a), v1(b)], v1("{tenantid}")),
            (vec![v1(a), v2(b)], v2("{tenantid}")),
        ] {
            let spec = format!(
                "{{issuers: {}, pack: entra, keys: {{discovery: true}}}}",
                serde_json::json!(issuers)
            );
            assert_eq!(sources(&spec, ENTRA)["used"].keys, KeySource::Discovery(expected), "{issuers:?}");
        }
    }
}
