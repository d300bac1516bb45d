//! What packs say of issuers, keys and audiences, without a token.

use serde_json::json;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use crate::pack::{
    ClaimKind, LifetimeFrom, PackKind, Stability, another_party, generic, golden, is_shared_issuer,
    tenant_claims,
};

const TENANT: &str = "bbbbbbbb-0000-4000-8000-000000000002";
const OTHER: &str = "bbbbbbbb-0000-4000-8000-00000000000f";
const CONSUMERS: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";

#[track_caller]
fn takes(pack: PackKind, issuer: &str) {
    assert_eq!(pack.refuses_issuer(issuer), None, "{pack:?} {issuer}");
}

#[track_caller]
fn turns_down(pack: PackKind, issuer: &str, why: &str) {
    let said = pack.refuses_issuer(issuer).unwrap_or_else(|| panic!("{pack:?} takes {issuer}"));
    assert!(said.contains(why), "{issuer}: {said}");
}

#[test]
fn every_pack_takes_its_own_issuer() {
    for pack in PackKind::ALL {
        takes(pack, golden::issuer(pack));
    }
    for other in ["accounts.google.com", "https://accounts.google.com/", "https://issuer.example.com"] {
        turns_down(PackKind::Google, other, "https://accounts.google.com");
    }
    turns_down(PackKind::Kubernetes, "kubernetes/serviceaccount", "projected");
    takes(PackKind::Kubernetes, "https://kubernetes.default.svc");
    turns_down(PackKind::Gitlab, "gitlab.example.com", "id_tokens");
    takes(PackKind::Gitlab, "https://gitlab.example.com:8443/gitlab/");
    turns_down(PackKind::Generic, "https://token.actions.githubusercontent.com", "github");
}

#[test]
fn entra_takes_tenants_by_their_ids_only() {
    for issuer in [
        format!("https://login.microsoftonline.com/{TENANT}/v2.0"),
        format!("https://sts.windows.net/{TENANT}/"),
        format!("https://login.microsoftonline.us/{TENANT}/v2.0"),
        format!("https://login.partner.microsoftonline.cn/{TENANT}/v2.0"),
        format!("https://sts.chinacloudapi.cn/{TENANT}/"),
        format!("https://{TENANT}.ciamlogin.com/{TENANT}/v2.0"),
    ] {
        takes(PackKind::Entra, &issuer);
    }
    let upper = TENANT.to_uppercase();
    for tenant in ["common", "organizations", "consumers", "{tenantid}", "contoso.onmicrosoft.com", &upper] {
        turns_down(PackKind::Entra, &format!("https://login.microsoftonline.com/{tenant}/v2.0"), "by its id");
        turns_down(PackKind::Entra, &format!("https://sts.windows.net/{tenant}/"), "by its id");
    }
    for issuer in [
        format!("https://login.microsoftonline.com/{TENANT}/v2.0/"),
        format!("https://login.microsoftonline.com/{TENANT}/"),
        format!("https://login.microsoftonline.com/{TENANT}"),
        format!("https://sts.windows.net/{TENANT}"),
        format!("https://sts.windows.net/{TENANT}/v2.0"),
        format!("http://login.microsoftonline.com/{TENANT}/v2.0"),
        format!("https://login.microsoftonline.com.evil.example/{TENANT}/v2.0"),
        format!("https://evilsts.windows.net/{TENANT}/"),
        format!("https://{OTHER}.ciamlogin.com/{TENANT}/v2.0"),
        format!("https://contoso.b2clogin.com/{TENANT}/v2.0/"),
        "https://login.microsoftonline.com".to_owned(),
    ] {
        turns_down(PackKind::Entra, &issuer, "TENANT-ID");
    }
}

#[test]
fn entra_keys_sign_only_for_whom_they_are_published() {
    let may = |key: &str, iss: &str| PackKind::Entra.key_may_sign(key, iss);
    let v2 = |tenant: &str| format!("https://login.microsoftonline.com/{tenant}/v2.0");
    let v1 = |tenant: &str| format!("https://sts.windows.net/{tenant}/");
    let any = v2("{tenantid}");
    assert!(may(&any, &v2(TENANT)) && may(&any, &v2(OTHER)));
    assert!(may(&v2(TENANT), &v2(TENANT)));
    // Keys of the v1 endpoint have no issuer; those of v2 sign for both.
    assert!(may(&any, &v1(TENANT)) && may(&v2(TENANT), &v1(TENANT)));
    assert!(may(&v1("{tenantid}"), &v1(TENANT)));
    // A consumer key for an enterprise's token: the Storm-0558 class.
    assert!(!may(&v2(CONSUMERS), &v2(TENANT)) && !may(&v2(CONSUMERS), &v1(TENANT)));
    assert!(may(&v2(CONSUMERS), &v2(CONSUMERS)));
    assert!(!may(&v2(OTHER), &v2(TENANT)) && !may(&v2(OTHER), &v1(TENANT)));
    assert!(!may(&v1("{tenantid}"), &v2(TENANT)));
    // Another cloud's.
    for cloud in [
        "https://login.microsoftonline.us/{tenantid}/v2.0",
        "https://login.partner.microsoftonline.cn/{tenantid}/v2.0",
    ] {
        assert!(!may(cloud, &v2(TENANT)), "{cloud}");
    }
    assert!(may("https://login.microsoftonline.us/{tenantid}/v2.0", &v1(TENANT)));
    assert!(!may("https://login.partner.microsoftonline.cn/{tenantid}/v2.0", &v1(TENANT)));
    // The template is filled by a tenant's id only, and nothing else is one.
    for (key, iss) in [
        (any.as_str(), v2("{tenantid}x").as_str()),
        (&any, "https://login.microsoftonline.com/a/b/v2.0"),
        (&v2("{tenantId}"), &v2(TENANT)),
        ("", &v2(TENANT)),
        ("{tenantid}", TENANT),
        ("https://evil.example/{tenantid}/v2.0", &v2(TENANT)),
    ] {
        assert!(!may(key, iss), "{key} {iss}");
    }
    for pack in PackKind::ALL {
        let issuer = golden::issuer(pack);
        assert!(pack.key_may_sign(issuer, issuer), "{pack:?}");
        assert!(!pack.key_may_sign("https://other.example.com", issuer), "{pack:?}");
    }
}

#[test]
fn okta_takes_custom_authorization_servers_only() {
    for issuer in [
        "https://dev-1.okta.com/oauth2/default",
        "https://id.example.com/oauth2/ausocqn9bk00KaKbZ0h7",
        "https://127.0.0.1:8443/oauth2/aus0example",
    ] {
        takes(PackKind::Okta, issuer);
    }
    for issuer in [
        "https://dev-1.okta.com",
        "https://dev-1.okta.com/",
        "https://id.example.com/oauth2/v1",
        "https://id.example.com/oauth2",
    ] {
        turns_down(PackKind::Okta, issuer, "org authorization server");
    }
    for issuer in [
        "https://id.example.com/oauth2/aus0example/",
        "https://id.example.com/oauth2/a/b",
        "https://id.example.com/x",
    ] {
        turns_down(PackKind::Okta, issuer, "custom authorization servers");
    }
}

#[test]
fn aws_takes_accounts_own_issuers_only() {
    takes(PackKind::Aws, "https://a1ebc705-cd4d-42b4-93b5-96e93acfb431.tokens.sts.global.api.aws");
    takes(PackKind::Aws, "https://a1ebc705.tokens.sts.global.api.amazonwebservices.com.cn");
    for issuer in [
        "https://.tokens.sts.global.api.aws",
        "https://tokens.sts.global.api.aws",
        "https://a.b.tokens.sts.global.api.aws",
        "https://a.tokens.sts.global.api.aws/",
        "https://a.tokens.sts.global.api.aws.evil.example",
        "http://a.tokens.sts.global.api.aws",
        "https://sts.amazonaws.com",
        "https://oidc.eks.eu-west-1.amazonaws.com/id/ABC",
    ] {
        turns_down(PackKind::Aws, issuer, "outbound");
    }
}

#[test]
fn spiffe_takes_trust_domains_only() {
    takes(PackKind::Spiffe, "spiffe://prod_1.example-x");
    for issuer in [
        "spiffe://",
        "spiffe://prod.example/",
        "spiffe://prod.example/ns/a",
        "spiffe://Prod.example",
        "spiffe://prod.example:443",
        "https://prod.example",
        "prod.example",
    ] {
        turns_down(PackKind::Spiffe, issuer, "spiffe://TRUST-DOMAIN");
    }
}

#[test]
fn github_takes_its_own_and_enterprises_issuers() {
    for issuer in [
        "https://token.actions.githubusercontent.com/acme-inc",
        "https://token.actions.octocorp.ghe.com",
        "https://token.actions.octocorp.ghe.com/octocorp",
        "https://ghes.example.com/_services/token",
    ] {
        takes(PackKind::Github, issuer);
    }
    for issuer in [
        "https://token.actions.githubusercontent.com/",
        "https://token.actions.githubusercontent.com/a/b",
        "https://token.actions.githubusercontent.com.evil.example",
        "https://token.actions..ghe.com",
        "https://token.actions.ghe.com",
        "https://github.com/acme",
        "token.actions.githubusercontent.com",
    ] {
        turns_down(PackKind::Github, issuer, "https://token.actions.githubusercontent.com");
    }
}

#[test]
fn detects_packs_by_issuers() {
    for pack in PackKind::ALL {
        let known = !matches!(pack, PackKind::Kubernetes | PackKind::Generic);
        assert_eq!(PackKind::detect(golden::issuer(pack)), known.then_some(pack), "{pack:?}");
    }
    for (issuer, pack) in [
        ("https://container.googleapis.com/v1/projects/p/locations/l/clusters/c", PackKind::Kubernetes),
        ("https://oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF", PackKind::Kubernetes),
        ("https://oidc.eks.cn-north-1.amazonaws.com.cn/id/0123456789ABCDEF", PackKind::Kubernetes),
        ("https://westeurope.oic.prod-aks.azure.com/t/c/", PackKind::Kubernetes),
        ("https://kubernetes.default.svc.cluster.local", PackKind::Kubernetes),
        ("https://gitlab.com", PackKind::Gitlab),
        ("https://gitlab.corp.example", PackKind::Gitlab),
        ("https://login.microsoftonline.com/common/v2.0", PackKind::Entra),
        ("https://sts.windows.net/x/", PackKind::Entra),
        ("https://contoso.ciamlogin.com/x/v2.0", PackKind::Entra),
        // Also where the pack then says what is wrong with it.
        ("https://dev-1.okta.com", PackKind::Okta),
        ("https://login.corp.example/oauth2/default", PackKind::Okta),
        ("https://token.actions.octocorp.ghe.com", PackKind::Github),
        ("https://ghes.example.com/_services/token", PackKind::Github),
        ("https://x.tokens.sts.global.api.amazonwebservices.com.cn", PackKind::Aws),
        ("spiffe://prod.example", PackKind::Spiffe),
    ] {
        assert_eq!(PackKind::detect(issuer), Some(pack), "{issuer}");
    }
    for issuer in [
        "https://issuer.example.com",
        "https://evil.example/accounts.google.com",
        "https://accounts.google.com.evil.example",
        "https://notokta.com",
        "https://okta.com.evil.example",
        "https://mygitlab.com",
        "accounts.google.com",
        "https://",
        "",
    ] {
        assert_eq!(PackKind::detect(issuer), None, "{issuer}");
    }
}

#[test]
fn knows_shared_issuers_and_what_tells_their_tenants_apart() {
    for (pack, issuer) in [
        (PackKind::Gitlab, "https://gitlab.com"),
        (PackKind::Google, "https://accounts.google.com"),
        (PackKind::Github, "https://token.actions.githubusercontent.com"),
        (PackKind::Entra, "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0"),
        (PackKind::Entra, "https://sts.windows.net/9188040d-6c67-4c5b-b112-36a304b66dad/"),
        (PackKind::Generic, "https://accounts.google.com"),
        (PackKind::Generic, "https://app.terraform.io"),
    ] {
        assert!(is_shared_issuer(pack, issuer), "{issuer}");
    }
    for (pack, issuer) in [
        (PackKind::Gitlab, "https://gitlab.example.com"),
        (PackKind::Github, "https://token.actions.githubusercontent.com/acme-inc"),
        (PackKind::Kubernetes, "https://kubernetes.default.svc"),
        (PackKind::Entra, golden::issuer(PackKind::Entra)),
        (PackKind::Okta, golden::issuer(PackKind::Okta)),
        (PackKind::Aws, golden::issuer(PackKind::Aws)),
        (PackKind::Spiffe, golden::issuer(PackKind::Spiffe)),
    ] {
        assert!(!is_shared_issuer(pack, issuer), "{issuer}");
    }
    for pack in PackKind::ALL {
        assert!(pack.pack().shared.iter().all(|issuer| generic::SHARED.contains(issuer)), "{pack:?}");
        assert!(!tenant_claims(pack).is_empty(), "{pack:?}");
        for path in tenant_claims(pack) {
            assert!(pack.claim(path).is_some() || pack.pack().open, "{pack:?} {path:?}");
        }
    }
    // Everybody is in the tenant of personal accounts, and a repository's owner writes `sub`.
    assert!(!tenant_claims(PackKind::Entra).contains(&["tid"].as_slice()));
    assert!(!tenant_claims(PackKind::Github).contains(&["sub"].as_slice()));
}

#[test]
fn names_other_parties() {
    let wif = "iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q";
    let (https, scheme_less) = (format!("https://{wif}"), format!("//{wif}"));
    for audience in [
        "istio-ca",
        "sts.amazonaws.com",
        "sts.amazonaws.com.cn",
        "pods.eks.amazonaws.com",
        "api://AzureADTokenExchange",
        "api://AzureADTokenExchangeUSGov",
        "api://AzureADTokenExchangeChina",
        "https://graph.microsoft.com",
        "https://graph.microsoft.com/",
        "00000003-0000-0000-c000-000000000000",
        "https://graph.windows.net/",
        "https://management.azure.com/",
        "https://kubernetes.default.svc",
        "https://kubernetes.default.svc.cluster.local",
        "p.svc.id.goog",
        &https,
        &scheme_less,
    ] {
        assert!(another_party(audience).is_some(), "{audience}");
    }
    for audience in [
        "https://ledger.example.com",
        "istio-ca.example.com",
        "https://iam.googleapis.com/projects/1",
        "sts.amazonaws.com.example",
        "https://graph.microsoft.com.evil.example",
        "https://graph.microsoft.com/orders",
        "api://default",
        "00000003-0000-0000-c000-000000000001",
        "https://kubernetes.example.com",
        "",
    ] {
        assert!(another_party(audience).is_none(), "{audience}");
    }
}

#[test]
fn tells_the_compiler_what_it_must_know() {
    for pack in PackKind::ALL {
        assert_eq!(PackKind::from_name(pack.name()), Some(pack));
        assert_eq!(serde_json::to_value(pack).unwrap(), json!(pack.name()));
        let unique = pack.pack().token_id;
        assert!(unique.is_none_or(|path| pack.claim(path).is_some()), "{pack:?}");
        assert!(!pack.pack().algorithms.is_empty() && !pack.pack().types.is_empty(), "{pack:?}");
        assert!(pack.pack().types.iter().all(|kind| *kind == kind.to_lowercase()), "{pack:?}");
    }
    assert_eq!(PackKind::from_name("Google"), None);
    let claim = |path: &[&str]| PackKind::Gitlab.claim(path).unwrap();
    assert_eq!(claim(&["ref_protected"]).kind, ClaimKind::BooleanString);
    assert_eq!(claim(&["project_path"]).stable, Stability::Renameable);
    assert_eq!(claim(&["project_id"]).stable, Stability::Stable);
    assert!(PackKind::Gitlab.claim(&["projectid"]).is_none());
    for name in ["email", "upn", "preferred_username", "unique_name", "name"] {
        assert_eq!(PackKind::Entra.claim(&[name]).unwrap().stable, Stability::Renameable, "{name}");
    }
    assert_eq!(PackKind::Okta.claim(&["sub"]).unwrap().stable, Stability::Renameable);
    assert_eq!(PackKind::Okta.derived("@subject").unwrap().stable, Stability::Stable);
    assert_eq!(PackKind::Github.derived("@subject").unwrap().stable, Stability::Renameable);
    assert_eq!(PackKind::Entra.pack().lifetime_from, LifetimeFrom::NotBefore);
    assert_eq!(PackKind::Entra.pack().token_id, Some(["uti"].as_slice()));
    assert_eq!(PackKind::Google.pack().token_id, None);
    let single = PackKind::ALL.into_iter().filter(|pack| pack.pack().single_audience);
    assert_eq!(single.collect::<Vec<_>>(), [PackKind::Aws, PackKind::Spiffe]);
    let strict = PackKind::ALL.into_iter().filter(|pack| pack.pack().strict_header);
    assert_eq!(strict.collect::<Vec<_>>(), [PackKind::Spiffe]);
    let open = PackKind::ALL.into_iter().filter(|pack| pack.pack().open);
    assert_eq!(open.collect::<Vec<_>>(), [PackKind::Okta, PackKind::Generic]);
}
