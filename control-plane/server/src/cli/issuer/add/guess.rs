//! Which pack an issuer has.

use tidegate_identity::PackKind;

use crate::keys::ProviderMetadata;

/// The pack of an issuer of this name, that says this of itself.
pub(super) fn pack_of(issuer: &str, metadata: Option<&ProviderMetadata>) -> PackKind {
    PackKind::detect(issuer).or_else(|| metadata.and_then(by_metadata)).unwrap_or(PackKind::Generic)
}

/// By what only this provider's documents have: servers may have any name.
fn by_metadata(metadata: &ProviderMetadata) -> Option<PackKind> {
    let keys_at =
        |path: &str| metadata.jwks_uri == format!("{}{path}", metadata.issuer.trim_end_matches('/'));
    let claims =
        |names: &[&str]| names.iter().all(|name| metadata.claims_supported.iter().any(|claim| claim == name));
    if keys_at("/oauth/discovery/keys") || claims(&["project_path", "ref_protected"]) {
        Some(PackKind::Gitlab)
    } else if metadata.jwks_uri.ends_with("/openid/v1/jwks") {
        Some(PackKind::Kubernetes)
    } else if claims(&["job_workflow_ref", "repository_owner_id"]) {
        Some(PackKind::Github)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(issuer: &str, jwks_uri: &str, claims: &[&str]) -> ProviderMetadata {
        ProviderMetadata {
            url: format!("{issuer}/.well-known/openid-configuration"),
            issuer: issuer.to_owned(),
            jwks_uri: jwks_uri.to_owned(),
            claims_supported: claims.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn names_of_providers_tell_their_pack() {
        for (issuer, pack) in [
            ("https://accounts.google.com", PackKind::Google),
            ("https://gitlab.com", PackKind::Gitlab),
            ("https://token.actions.githubusercontent.com", PackKind::Github),
            ("https://login.microsoftonline.com/bbbbbbbb-0000-4000-8000-000000000002/v2.0", PackKind::Entra),
            ("https://example.okta.com/oauth2/aus0example", PackKind::Okta),
            ("https://oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF", PackKind::Kubernetes),
            ("https://00000000-1111-2222-3333-444444444444.tokens.sts.global.api.aws", PackKind::Aws),
            ("spiffe://batch.example", PackKind::Spiffe),
            ("https://login.sales.example", PackKind::Generic),
        ] {
            assert_eq!(pack_of(issuer, None), pack, "{issuer}");
        }
    }

    #[test]
    fn documents_tell_the_pack_of_servers_with_names_of_their_own() {
        let issuer = "https://ci.corp.example";
        for (jwks_uri, claims, pack) in [
            ("https://ci.corp.example/oauth/discovery/keys", &[][..], PackKind::Gitlab),
            ("https://elsewhere.example/keys", &["ref_protected", "project_path", "sub"], PackKind::Gitlab),
            ("https://10.0.0.1:6443/openid/v1/jwks", &[], PackKind::Kubernetes),
            ("https://ci.corp.example/keys", &["repository_owner_id", "job_workflow_ref"], PackKind::Github),
            ("https://ci.corp.example/keys", &["sub", "project_path"], PackKind::Generic),
        ] {
            assert_eq!(pack_of(issuer, Some(&metadata(issuer, jwks_uri, claims))), pack, "{jwks_uri}");
        }
        // What the name says counts more.
        let google = metadata("https://accounts.google.com", "https://x.example/openid/v1/jwks", &[]);
        assert_eq!(pack_of(&google.issuer, Some(&google)), PackKind::Google);
    }
}
