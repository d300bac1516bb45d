//! What people type for an issuer.

use std::str::FromStr;

use anyhow::bail;
use url::Url;

const WELL_KNOWN: &str = "/.well-known/";

/// An issuer as somebody named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// Without what cannot belong to an issuer.
    pub issuer: String,
}

// === impl Asked ===

impl FromStr for Asked {
    type Err = anyhow::Error;

    /// Takes what is unmistakable, and says of everything else what to type. A password is taken, too, since what is refused
    /// here is printed; see [`Self::check_password`].
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let taken = |issuer: &str| Ok(Self { issuer: issuer.to_owned() });
        if text.starts_with("spiffe://") {
            return taken(text.trim_end_matches('/'));
        }
        // The address of the document instead of the issuer.
        let issuer = text.split_once(WELL_KNOWN).map_or(text, |(issuer, _)| issuer);
        if !issuer.contains("://") {
            bail!("not a URL; an issuer is written as in `iss` of its tokens: `https://{issuer}`?");
        }
        let url = Url::parse(issuer).map_err(|error| anyhow::anyhow!("not a URL: {error}"))?;
        if has_password(&url) {
            return taken(issuer);
        }
        match url.scheme() {
            "https" => {}
            "http" => bail!(
                "an issuer is trusted by its https URL only, since whoever changes keys on the way makes tokens of his own; \
                 ask for `https{}`",
                issuer.trim_start_matches("http")
            ),
            _ => bail!("an issuer is an https URL, or spiffe://TRUST-DOMAIN"),
        }
        // OpenID Connect Core 1.0 section 2: "a case-sensitive URL … that contains scheme, host, and optionally, port number
        // and path components and no query or fragment components".
        if url.query().is_some() || url.fragment().is_some() {
            bail!("an issuer has no query and no fragment");
        }
        taken(issuer)
    }
}

impl Asked {
    /// Refuses a password in the URL without repeating it.
    pub(super) fn check_password(&self) -> anyhow::Result<()> {
        if Url::parse(&self.issuer).is_ok_and(|url| has_password(&url)) {
            bail!("an issuer has no user and no password");
        }
        Ok(())
    }

    /// Whether there is a document about it at all.
    pub(super) fn has_metadata(&self) -> anyhow::Result<()> {
        if self.issuer.starts_with("spiffe://") {
            bail!(
                "`{}`: a trust domain's name does not tell where its keys are; give the address of its bundle endpoint with \
                 --jwks-uri, or the bundle itself with --keys FILE",
                self.issuer
            );
        }
        Ok(())
    }
}

fn has_password(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        text.parse::<Asked>().unwrap_err().to_string()
    }

    #[test]
    fn what_is_unmistakable_is_taken() {
        for (text, issuer) in [
            ("https://gitlab.example", "https://gitlab.example"),
            (" https://gitlab.example/\n", "https://gitlab.example/"),
            ("https://a.example/oauth2/x/.well-known/openid-configuration", "https://a.example/oauth2/x"),
            ("https://a.example/.well-known/jwks.json", "https://a.example"),
            ("spiffe://batch.example/", "spiffe://batch.example"),
        ] {
            let asked: Asked = text.parse().unwrap();
            assert_eq!(asked.issuer, issuer);
            asked.check_password().unwrap();
        }
    }

    #[test]
    fn what_is_not_an_issuer_is_told_with_what_to_type() {
        assert!(refusal("gitlab.example").contains("`https://gitlab.example`?"));
        assert!(refusal("http://gitlab.example").contains("ask for `https://gitlab.example`"));
        for text in
            ["https://a.example?x=1", "https://a.example#x", "ftp://a.example", "https://", "https://a b"]
        {
            refusal(text);
        }
    }

    #[test]
    fn a_password_is_refused_without_being_repeated() {
        for text in ["https://user:c2VjcmV0@a.example", "https://c2VjcmV0@a.example/"] {
            let asked: Asked = text.parse().unwrap();
            let error = asked.check_password().unwrap_err().to_string();
            assert!(!error.contains("c2VjcmV0"), "{error}");
        }
    }
}
