//! What is no signed JWT: which credential it may be, by how it begins.

use super::Mistake;

/// Beginnings of well-known credentials, what they are, and what to use instead.
const KNOWN: [(&str, &str, &str); 16] = [
    (
        "ya29.",
        "a Google OAuth access token: it is for Google's APIs and says nothing that others can verify",
        "ask the metadata server for an identity token: `…/identity?audience=AUDIENCE&format=full`",
    ),
    (
        "ya29_",
        "a Google OAuth access token",
        "ask the metadata server for an identity token: `…/identity?audience=AUDIENCE&format=full`",
    ),
    ("1//", "a Google refresh token", "never send it anywhere but to Google; ask for an identity token"),
    ("AIza", "a Google API key", "ask the metadata server for an identity token"),
    (
        "ghp_",
        "a GitHub personal access token",
        "in a workflow ask for an OIDC token: `permissions: {id-token: write}`",
    ),
    ("gho_", "a GitHub OAuth token", "in a workflow ask for an OIDC token: `permissions: {id-token: write}`"),
    (
        "ghs_",
        "a GitHub installation token (`GITHUB_TOKEN`)",
        "in a workflow ask for an OIDC token: `permissions: {id-token: write}`",
    ),
    (
        "github_pat_",
        "a GitHub personal access token",
        "in a workflow ask for an OIDC token: `permissions: {id-token: write}`",
    ),
    (
        "glpat-",
        "a GitLab personal access token",
        "in a job declare `id_tokens: {NAME: {aud: AUDIENCE}}` and send `$NAME`",
    ),
    (
        "glcbt-",
        "a GitLab CI job token (`CI_JOB_TOKEN`)",
        "in the job declare `id_tokens: {NAME: {aud: AUDIENCE}}` and send `$NAME`",
    ),
    (
        "gldt-",
        "a GitLab deploy token",
        "in a job declare `id_tokens: {NAME: {aud: AUDIENCE}}` and send `$NAME`",
    ),
    ("AKIA", "an AWS access key id", "call `sts:GetWebIdentityToken` with your audience"),
    ("ASIA", "a temporary AWS access key id", "call `sts:GetWebIdentityToken` with your audience"),
    ("FwoG", "an AWS session token", "call `sts:GetWebIdentityToken` with your audience"),
    ("IQoJ", "an AWS session token", "call `sts:GetWebIdentityToken` with your audience"),
    (
        "-----BEGIN",
        "a PEM file",
        "a certificate or key is no token; certificates are presented in the TLS handshake",
    ),
];

/// What it is instead of a signed JWT.
pub(super) fn recognise(text: &str) -> Mistake {
    if text.is_empty() {
        return Mistake::new("empty", "the input is empty", "give a file with the token, or pipe it in");
    }
    if let Some((_, what, fix)) = KNOWN.into_iter().find(|(start, _, _)| text.starts_with(start)) {
        return Mistake::new("other_credential", format!("this looks like {what}"), fix);
    }
    if text.starts_with('{') {
        return Mistake::new(
            "json_without_token",
            "the input is JSON, and no member of it is known to hold a token",
            "give the token itself; a key set is given with `--keys`",
        );
    }
    if text.starts_with('<') {
        return Mistake::new(
            "web_page",
            "the input is a web page: somebody else than the provider's token endpoint answered",
            "look at the answer: a proxy, a sign-in page or an error",
        );
    }
    let parts = text.split('.').count();
    match parts {
        5 => Mistake::new(
            "encrypted",
            "five parts: this is an encrypted token (JWE); only whom it is encrypted for can read it",
            "ask the provider for a signed token (JWS) for your audience",
        ),
        3 if text.starts_with("eyJ") => Mistake::new(
            "cut_off",
            "three parts, but the first is no JSON object in base64url",
            "look whether the token was cut off or changed on its way",
        ),
        _ => Mistake::new(
            "opaque",
            format!(
                "{parts} part{} where a signed JWT has three: an opaque token",
                if parts == 1 { "" } else { "s" }
            ),
            "only its issuer can say what it means; ask the provider for a signed JWT for your audience",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_credentials_are_recognised_and_never_repeated() {
        for (start, what, fix) in KNOWN {
            let secret = "SECRETsecretSECRET";
            let mistake = recognise(&format!("{start}{secret}"));
            assert_eq!((mistake.code, mistake.fix.as_str()), ("other_credential", fix));
            assert!(mistake.what.ends_with(what));
            assert!(!format!("{mistake:?}").contains(secret));
        }
    }

    #[test]
    fn others_are_told_apart_by_their_form() {
        for (text, code) in [
            ("", "empty"),
            ("a.b.c.d.e", "encrypted"),
            ("eyJ!.b.c", "cut_off"),
            ("{\"keys\": []}", "json_without_token"),
            ("<!DOCTYPE html>", "web_page"),
            ("opaque", "opaque"),
            ("a.b", "opaque"),
        ] {
            assert_eq!(recognise(text).code, code, "{text}");
        }
    }
}
