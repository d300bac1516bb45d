//! What is usually behind a token that is refused.
//!
//! These are hints, read from what the token says and from how it compares with what is declared. They decide nothing.

use serde_json::Value;
use tidegate_compiler::{Compiled, TrustedIssuer};
use tidegate_identity::PackKind;

use super::checks::Facts;
use super::rules::GuardReport;
use super::{Mistake, show};

/// Texts that differ by at most so many characters are probably meant to be the same.
const TYPO: usize = 3;

/// An issuer with so many digits has an id in it.
const MANY_DIGITS: usize = 8;

/// The audiences of tokens for Microsoft Graph.
const GRAPH: [&str; 2] = ["https://graph.microsoft.com", "00000003-0000-0000-c000-000000000000"];

/// Everything that is recognised, the likeliest cause first.
pub(super) fn find(
    facts: &Facts<'_>,
    rules: Option<&Compiled>,
    audience: Option<&str>,
    guards: &[GuardReport],
) -> Vec<Mistake> {
    let declared = rules.map(|rules| rules.issuers.as_slice()).unwrap_or_default();
    let mut found: Vec<_> = of_provider(facts).into_iter().chain(id_token(facts)).collect();
    if !facts.declared {
        found.extend(undeclared(facts, declared, rules.is_some(), found.is_empty()));
    }
    found.extend(of_audience(facts, audience, guards));
    found
}

/// What is behind a token of which cannot be told whose it is.
pub(super) fn of_form(facts: &Facts<'_>) -> Option<Mistake> {
    let parts = facts.text.split('.').count();
    (parts < 3 || facts.text.ends_with('.')).then(|| {
        Mistake::new(
            "cut_off",
            "the token was cut off: its end is missing",
            "copy or send all of it; terminals, logs and variables of CI systems cut long lines",
        )
    })
}

/// `alone`: nothing else was recognised.
fn undeclared(
    facts: &Facts<'_>,
    declared: &[TrustedIssuer],
    has_rules: bool,
    alone: bool,
) -> Option<Mistake> {
    let Some(iss) = facts.said.text("iss").map(str::to_owned).or_else(|| facts.said.trust_domain()) else {
        return Some(Mistake::new(
            "no_issuer",
            "the token has no `iss`: nobody can know whose keys verify it",
            "ask the provider for a token with `iss`",
        ));
    };
    let iss = iss.as_str();
    let pack = facts.issuer.pack();
    let known = declared.iter().flat_map(|issuer| issuer.issuers.iter().map(move |theirs| (issuer, theirs)));
    if let Some((issuer, theirs)) = known.into_iter().find(|(_, theirs)| almost(iss, theirs)) {
        return Some(Mistake::new(
            "issuer_typo",
            format!(
                "the token's issuer is {}, that of the TrustedIssuer `{}` is {}: almost the same",
                show::text(iss),
                issuer.name,
                show::text(theirs)
            ),
            "find out which of them is the provider's, and correct the other; issuers are compared character by character",
        ));
    }
    if let Some(mistake) = other_version(iss, declared) {
        return Some(mistake);
    }
    if let Some(why) = pack.refuses_issuer(iss) {
        let what = format!("this issuer cannot be trusted with the pack `{}`", pack.name());
        return alone.then(|| Mistake::new("issuer_refused", what, why));
    }
    let add = match (pack, shell(iss)) {
        (PackKind::Spiffe, Some(iss)) => {
            format!("`tidegate issuer add {iss} --jwks-uri URL` prints a TrustedIssuer")
        }
        (_, Some(iss)) => format!("`tidegate issuer add {iss}` prints a TrustedIssuer"),
        (_, None) => "`tidegate issuer add URL` prints a TrustedIssuer".to_owned(),
    };
    let (what, fix) = match has_rules {
        true => (
            format!("no TrustedIssuer of the rules has the issuer {}", show::text(iss)),
            format!("if you trust it, declare it: {add}"),
        ),
        false => (
            "no rules were given, so the checks are those of a TrustedIssuer that says nothing but its pack"
                .to_owned(),
            format!("give them with `--rules DIR`; where they lack the issuer: {add}"),
        ),
    };
    Some(Mistake::new(
        "issuer_not_declared",
        format!("{what}; its tokens look like the pack `{}`", pack.name()),
        fix,
    ))
}

/// Whether one of two issuers is probably a slip of the other. Ids differ by little and mean somebody else.
fn almost(iss: &str, other: &str) -> bool {
    let letters = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let slip = digits(iss) == digits(other) && digits(iss).len() < MANY_DIGITS;
    same_but_for_form(iss, other) || (slip && strsim::osa_distance(&letters(iss), &letters(other)) <= TYPO)
}

/// Equal without case, scheme and the slash at the end.
fn same_but_for_form(one: &str, other: &str) -> bool {
    let bare = |text: &str| {
        let text = text.to_ascii_lowercase();
        let text = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"))
            .unwrap_or(&text)
            .to_owned();
        text.trim_end_matches('/').to_owned()
    };
    bare(one) == bare(other)
}

/// A URL if it can be pasted into a shell.
fn shell(url: &str) -> Option<&str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:/@%+,=".contains(&b);
    url.bytes().all(plain).then_some(url)
}

/// The tenant of an Entra issuer, and the version of its tokens.
fn entra(iss: &str) -> Option<(&str, &'static str)> {
    if let Some(tenant) = iss.strip_prefix("https://sts.windows.net/") {
        return Some((tenant.trim_end_matches('/'), "1.0"));
    }
    let rest = iss.strip_prefix("https://login.microsoftonline.com/")?;
    let tenant = rest.trim_end_matches('/').trim_end_matches("/v2.0");
    Some((tenant, if rest.contains("/v2.0") { "2.0" } else { "1.0" }))
}

/// Entra's other issuer of the same tenant.
fn other_version(iss: &str, declared: &[TrustedIssuer]) -> Option<Mistake> {
    let (tenant, version) = entra(iss)?;
    let same_tenant = |theirs: &&String| entra(theirs).is_some_and(|(other, _)| other == tenant);
    let (issuer, theirs) =
        declared.iter().find_map(|issuer| Some((issuer, issuer.issuers.iter().find(same_tenant)?)))?;
    let wanted = if version == "1.0" { "2" } else { "1" };
    Some(Mistake::new(
        "entra_version",
        format!(
            "this is a version {version} token of the tenant; `{}` is for the other version ({})",
            issuer.name,
            show::text(theirs)
        ),
        format!(
            "the version is the resource's choice: set `requestedAccessTokenVersion: {wanted}` in its manifest, or put this \
             issuer into `issuers`, too"
        ),
    ))
}

/// Mistakes that only one provider's tokens have.
fn of_provider(facts: &Facts<'_>) -> Option<Mistake> {
    let said = facts.said;
    let audiences = said.texts("aud");
    let has = |name: &str| said.claims.get(name).is_some_and(|value| *value != Value::Null);
    match facts.issuer.pack() {
        PackKind::Google if !has("google") && said.text("azp") == said.text("sub") => Some(Mistake::new(
            "google_standard_format",
            "the token does not say on which VM it was made (no `google.compute_engine`)",
            "ask the metadata server with `format=full`; without it no rule can demand a VM or a Dataflow job (in a GKE pod \
             there is none: use a projected service account token)",
        )),
        PackKind::Kubernetes if !has("kubernetes.io") => Some(Mistake::new(
            "kubernetes_secret_token",
            "this is the token of a Secret: it never ends",
            "mount a projected service account token with the service's audience",
        )),
        PackKind::Kubernetes if audiences.iter().any(|audience| is_api_server(audience)) => {
            Some(Mistake::new(
                "kubernetes_default_token",
                "this token is for the API server: the one that every pod gets at \
             `/var/run/secrets/kubernetes.io/serviceaccount/token`",
                "mount a second one: a projected volume `serviceAccountToken` with the service's `audience`",
            ))
        }
        PackKind::Gitlab if audiences.is_empty() => Some(Mistake::new(
            "gitlab_job_jwt",
            "this looks like the `CI_JOB_JWT` of older GitLab, which is for nobody in particular",
            "declare `id_tokens: {NAME: {aud: AUDIENCE}}` in the job",
        )),
        PackKind::Entra
            if audiences.iter().any(|audience| GRAPH.contains(&audience.trim_end_matches('/'))) =>
        {
            Some(Mistake::new(
                "entra_graph_token",
                "this token is for Microsoft Graph: nobody else can verify it",
                "ask for one with the scope `api://YOUR-APP/.default`; without a scope of yours Entra gives Graph's",
            ))
        }
        _ if audiences.iter().any(|audience| is_federation(audience)) => Some(Mistake::new(
            "workload_identity_federation",
            "this token is for Google workload identity federation: it is there to be exchanged at Google",
            "ask the same provider for a second token, with the audience of the service",
        )),
        PackKind::Entra if has("hasgroups") || said.claims.pointer("/_claim_names/groups").is_some() => {
            Some(Mistake::new(
                "entra_group_overage",
                "the groups are left out, as of everybody who is in more than 200: no Allow on a group matches, every Deny \
                 does",
                "have Entra send only groups that are assigned to the application, or write rules on app roles (`roles`)",
            ))
        }
        PackKind::Okta if said.text("iss").and_then(|iss| PackKind::Okta.refuses_issuer(iss)).is_some() => {
            Some(Mistake::new(
                "okta_org_server",
                "this token is of Okta's org authorization server, whose tokens are for Okta alone and cannot be verified",
                "make a custom authorization server, whose issuer is `https://DOMAIN/oauth2/ID`, and get the token there",
            ))
        }
        PackKind::Aws if audiences.len() > 1 => Some(Mistake::new(
            "aws_several_audiences",
            "the token is for several audiences: each of them could use it at the others",
            "call `sts:GetWebIdentityToken` with one `Audience`",
        )),
        _ => None,
    }
}

fn is_federation(audience: &str) -> bool {
    tidegate_identity::pack::another_party(audience) == Some("Google workload identity federation")
}

fn is_api_server(audience: &str) -> bool {
    let name = audience.trim_start_matches("https://").trim_end_matches('/');
    matches!(
        name.split(':').next().unwrap_or_default(),
        "kubernetes.default.svc"
            | "kubernetes.default"
            | "kubernetes"
            | "kubernetes.default.svc.cluster.local"
    ) || audience == "k3s"
}

/// OpenID Connect Core 1.0 §2: what only ID tokens have.
fn id_token(facts: &Facts<'_>) -> Option<Mistake> {
    let said = facts.said;
    let has = |name: &str| said.claims.get(name).is_some();
    let by_claims = ["nonce", "at_hash", "c_hash", "s_hash"].into_iter().find(|name| has(name));
    let by_number = said.text("jti").filter(|jti| jti.starts_with("ID."));
    // CI systems and clouds give ID tokens to workloads, and these are meant.
    let is_person_s = matches!(facts.issuer.pack(), PackKind::Entra | PackKind::Okta | PackKind::Generic);
    let sign = match (by_claims, by_number) {
        (Some(name), _) => format!("`{name}`"),
        (None, Some(_)) => "a `jti` that begins with `ID.`".to_owned(),
        (None, None) => return None,
    };
    is_person_s.then(|| {
        Mistake::new(
            "id_token",
            format!("it has {sign}, as ID tokens have: they tell a client who logged in, and are for that client alone"),
            "send the access token of the same answer, for the service's audience",
        )
    })
}

/// Almost the right audience.
fn of_audience(facts: &Facts<'_>, audience: Option<&str>, guards: &[GuardReport]) -> Option<Mistake> {
    let theirs = facts.said.texts("aud");
    let wanted: Vec<&str> = match audience {
        Some(audience) => vec![audience],
        None => guards
            .iter()
            .flat_map(|guard| guard.audiences.iter().flatten())
            .chain(facts.issuer.audiences())
            .map(String::as_str)
            .collect(),
    };
    if theirs.iter().any(|audience| wanted.contains(audience)) {
        return None;
    }
    let pairs = theirs.iter().flat_map(|audience| wanted.iter().map(move |wanted| (*audience, *wanted)));
    let near = |(audience, wanted): &(&str, &str)| {
        strsim::osa_distance(audience, wanted) <= TYPO || same_but_for_form(audience, wanted)
    };
    let (audience, wanted) =
        pairs.filter(near).min_by_key(|(audience, wanted)| strsim::osa_distance(audience, wanted))?;
    Some(Mistake::new(
        "audience_typo",
        format!("the token is for {}, almost what is demanded: {}", show::text(audience), show::text(wanted)),
        "correct the audience where the token is asked for; a slash at the end, the case and the port count",
    ))
}
