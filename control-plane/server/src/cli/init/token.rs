//! A rule for the caller that has this token.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_compiler::spec::ClaimJson;
use tidegate_compiler::{Inputs, SourceFile, compile};
use tidegate_identity::PackKind;

use crate::explain::request::claims_of;
use crate::explain::token::{Owner, Pasted, owner};

/// What is known of a token's owner.
#[derive(Debug)]
pub(super) struct Known {
    /// What rules call the issuer.
    pub issuer: String,
    /// The TrustedIssuer, as YAML.
    pub declaration: String,
    /// What rules demand of the token, as YAML on one line.
    pub demand: String,
    /// For whom the token is meant.
    pub audience: Option<String>,
    /// The workload that it names.
    pub peer: Option<String>,
    claims: BTreeMap<String, ClaimJson>,
}

/// Reads a token.
pub(super) fn read(bytes: &[u8]) -> Result<Known, String> {
    let Pasted { text, .. } = Pasted::read(bytes);
    let unusable = || "this is no signed JWT; `tidegate token explain` says more".to_owned();
    let claims = claims_of(&text).ok_or_else(unusable)?;
    let pack = match owner(&text, None) {
        Ok(Owner::Guessed(pack)) => pack,
        _ => PackKind::Generic,
    };
    let string = |name: &str| match claims.get(name) {
        Some(ClaimJson::String(text)) => Some(text.clone()),
        _ => None,
    };
    let subject = string("sub").unwrap_or_default();
    let iss = match pack {
        PackKind::Spiffe => subject
            .strip_prefix("spiffe://")
            .and_then(|rest| rest.split('/').next())
            .map(|domain| format!("spiffe://{domain}")),
        _ => string("iss"),
    };
    let iss = iss.ok_or("the token does not say who issued it")?;
    let issuer = if pack == PackKind::Generic { "issuer" } else { pack.name() };
    let keys = match pack {
        PackKind::Spiffe => "{jwksUri: \"https://FILL-IN/the-bundle-endpoint\"}",
        _ => "{discovery: true}",
    };
    let declaration = format!(
        "# Who issued the token. `tidegate issuer add URL` asks it, and says more.\napiVersion: tidegate.dev/v1alpha1\nkind: \
         TrustedIssuer\nmetadata: {{name: {issuer}}}\nspec: {{issuer: {}, pack: {}, keys: {keys}}}\n",
        quoted(&iss),
        pack.name()
    );
    let account = account_in(&subject);
    let audience = match claims.get("aud") {
        Some(ClaimJson::String(audience)) => Some(audience.clone()),
        Some(ClaimJson::List(list)) => list.iter().find_map(|one| match one {
            ClaimJson::String(audience) => Some(audience.clone()),
            _ => None,
        }),
        _ => None,
    };
    Ok(Known {
        issuer: issuer.to_owned(),
        declaration,
        demand: demand(pack, issuer, &string, account),
        audience: audience.filter(|audience| audience.starts_with("https://")),
        peer: account.map(|(namespace, account)| format!("{namespace}/{account}")),
        claims,
    })
}

fn account_in(subject: &str) -> Option<(&str, &str)> {
    subject.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'))
}

/// What rules demand of a token with these claims, as YAML on one line. `None`: they do not tell whose it is.
pub(super) fn demand_of(
    pack: PackKind,
    issuer: &str,
    claims: &BTreeMap<String, ClaimJson>,
) -> Option<String> {
    let string = |name: &str| match claims.get(name) {
        Some(ClaimJson::String(text)) => Some(text.clone()),
        Some(ClaimJson::Integer(number)) => Some(number.to_string()),
        _ => None,
    };
    let subject = string("sub");
    let account = subject.as_deref().and_then(account_in);
    let demand = demand(pack, issuer, &string, account);
    (subject.is_some() || !demand.contains("claims: {sub: ")).then_some(demand)
}

/// The stable things that tell this caller from others, as the pack's short form where there is one.
fn demand(
    pack: PackKind,
    issuer: &str,
    string: &dyn Fn(&str) -> Option<String>,
    account: Option<(&str, &str)>,
) -> String {
    let pairs = |pairs: &[(&str, Option<String>)]| -> Option<String> {
        let written: Option<Vec<String>> = pairs
            .iter()
            .map(|(field, value)| Some(format!("{field}: {}", quoted(value.as_ref()?))))
            .collect();
        written.map(|written| written.join(", "))
    };
    let short = match pack {
        PackKind::Gitlab => pairs(&[("project", string("project_id"))]).map(|project| {
            let protected = string("ref_protected").is_some_and(|protected| protected == "true");
            format!("gitlab: {{{project}{}}}", if protected { ", protectedRef: true" } else { "" })
        }),
        PackKind::Kubernetes => account.map(|(namespace, account)| {
            format!("kubernetes: {{namespace: {}, serviceAccount: {}}}", quoted(namespace), quoted(account))
        }),
        PackKind::Github => {
            pairs(&[("repository", string("repository_id"))]).map(|fields| format!("github: {{{fields}}}"))
        }
        PackKind::Google => {
            pairs(&[("subject", string("sub"))]).map(|fields| format!("google: {{{fields}}}"))
        }
        PackKind::Entra => {
            let app = string("azp").or_else(|| string("appid"));
            pairs(&[("tenant", string("tid")), ("app", app)])
                .map(|fields| format!("entra: {{{fields}, appOnly: true}}"))
        }
        PackKind::Okta => pairs(&[("client", string("cid"))]).map(|fields| format!("okta: {{{fields}}}")),
        PackKind::Spiffe => pairs(&[("id", string("sub"))]).map(|fields| format!("spiffe: {{{fields}}}")),
        PackKind::Aws | PackKind::Generic => None,
    };
    let by_subject = || format!("claims: {{sub: {}}}", quoted(&string("sub").unwrap_or_default()));
    format!("{{issuer: {issuer}, {}}}", short.unwrap_or_else(by_subject))
}

/// A YAML string in double quotes: JSON strings are.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

// === impl Known ===

impl Known {
    /// The claims that these rules read, as YAML on one line. No others: tokens say much that is nobody's business.
    pub(super) fn read_by(&self, files: &[(&'static str, String)]) -> String {
        let sources: Vec<SourceFile> = files
            .iter()
            .map(|(path, text)| SourceFile { path: (*path).to_owned(), text: text.clone() })
            .collect();
        let compiled = compile(&Inputs { sources: &sources, env: BTreeMap::new(), now: None }).output;
        let issuers = compiled.iter().flat_map(|compiled| compiled.workloads.values());
        let issuers = issuers.flat_map(|workload| &workload.model.issuers);
        let slots = issuers.filter(|issuer| issuer.name == self.issuer).flat_map(|issuer| &issuer.slots);
        let names: BTreeSet<&String> = slots.filter_map(|path| path.first()).collect();
        let mut json = String::new();
        let known = self.claims.iter().filter(|(name, _)| names.contains(name));
        ClaimJson::Map(known.map(|(name, value)| (name.clone(), value.clone())).collect()).write(&mut json);
        json
    }
}
