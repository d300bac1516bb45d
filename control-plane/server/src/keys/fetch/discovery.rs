//! What issuers say of themselves (OpenID Connect Discovery 1.0 section 3).

use serde::Deserialize;

use super::{FetchError, MAX_SHOWN, cut, parse};

/// Stands for a tenant in what Microsoft Entra ID says of itself to several tenants at once.
const TENANT: &str = "{tenantid}";

/// The members that are used.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ProviderMetadata {
    /// Where this was found.
    #[serde(skip)]
    pub url: String,
    /// How it calls itself: the `iss` of its tokens.
    pub issuer: String,
    /// Where its keys are.
    pub jwks_uri: String,
    /// Claims that its tokens may have, as far as it says.
    #[serde(default)]
    pub claims_supported: Vec<String>,
}

// === impl ProviderMetadata ===

impl ProviderMetadata {
    pub(super) fn read(url: &str, text: &str) -> Result<Self, FetchError> {
        let read: Result<Self, _> = serde_json::from_str(text);
        let metadata = read.map_err(|error| FetchError::Document {
            url: url.to_owned(),
            why: format!("not provider metadata: {error}"),
        })?;
        parse(&metadata.jwks_uri)?;
        Ok(Self { url: url.to_owned(), ..metadata })
    }

    /// OpenID Connect Discovery 1.0 section 4.3: "The issuer value returned MUST be identical to the Issuer URL that was
    /// used as the prefix". Entra's template is such a value too: it is asked for as it is written.
    pub(super) fn check(&self, issuer: &str) -> Result<(), FetchError> {
        if self.issuer == issuer {
            return Ok(());
        }
        Err(FetchError::Document {
            url: self.url.clone(),
            why: format!(
                "says that the issuer is `{}`, and `{issuer}` was asked; write the issuer exactly as it does",
                cut(&self.issuer, MAX_SHOWN)
            ),
        })
    }
}

/// Where an issuer's metadata is. OpenID Connect Discovery 1.0 section 4: below the issuer. Microsoft Entra ID serves that of
/// all tenants under `organizations`, and that of its v1 issuers at the host of v2.
pub(super) fn document_url(issuer: &str) -> String {
    let base = issuer.trim_end_matches('/').replace(TENANT, "organizations");
    let base = match base.strip_prefix("https://sts.windows.net/") {
        Some(tenant) => format!("https://login.microsoftonline.com/{tenant}"),
        None => base,
    };
    format!("{base}/.well-known/openid-configuration")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_below_the_issuer_and_that_of_entra_where_entra_has_it() {
        for (issuer, below) in [
            ("https://gitlab.example", "https://gitlab.example"),
            ("https://gitlab.example/", "https://gitlab.example"),
            ("https://id.example/oauth2/aus0", "https://id.example/oauth2/aus0"),
            ("https://login.microsoftonline.com/t/v2.0", "https://login.microsoftonline.com/t/v2.0"),
            (
                "https://login.microsoftonline.com/{tenantid}/v2.0",
                "https://login.microsoftonline.com/organizations/v2.0",
            ),
            ("https://sts.windows.net/t/", "https://login.microsoftonline.com/t"),
            ("https://sts.windows.net/{tenantid}/", "https://login.microsoftonline.com/organizations"),
        ] {
            assert_eq!(document_url(issuer), format!("{below}/.well-known/openid-configuration"), "{issuer}");
        }
    }
}
