//! A TrustedIssuer to be read, and put beside the rules.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use tidegate_identity::pack::is_shared_issuer;
use tidegate_identity::{Algorithm, Jwk, PackKind};
use url::Url;

use super::Found;
use crate::cli::text::visible;
use crate::clock;
use crate::keys::KeySource;

/// Longest name (RFC 1123 label).
const MAX_NAME: usize = 63;
/// How many key ids are told.
const MAX_TOLD: usize = 4;

pub(super) struct Draft {
    name: String,
    /// Only where tokens of the pack are not meant by default.
    algorithms: Vec<Algorithm>,
    found: Found,
}

// === impl Draft ===

impl Draft {
    /// Under this name, or one that is made of the issuer's.
    pub(super) fn new(found: Found, name: Option<String>) -> Self {
        let name = name.unwrap_or_else(|| name_of(&found.issuer, found.pack));
        let usual = found.pack.pack().algorithms;
        let meant: BTreeSet<Algorithm> =
            found.keys.keys.iter().filter_map(|key| algorithm(key, usual)).collect();
        let is_usual = meant.iter().all(|algorithm| usual.contains(algorithm));
        let algorithms = if is_usual { Vec::new() } else { meant.into_iter().collect() };
        Self { name, algorithms, found }
    }

    /// As programs read it.
    pub(super) fn object(&self) -> Value {
        let keys = match &self.found.source {
            KeySource::Inline(_) => json!({"jwks": self.jwks()}),
            KeySource::Url(url) => json!({"jwksUri": url}),
            KeySource::Discovery(_) => json!({"discovery": true}),
        };
        let mut spec = json!({"issuer": self.found.issuer, "pack": self.found.pack.name(), "keys": keys});
        if !self.algorithms.is_empty() {
            spec["algorithms"] = json!(self.algorithms);
        }
        json!({
            "apiVersion": "tidegate.dev/v1alpha1",
            "kind": "TrustedIssuer",
            "metadata": {"name": self.name},
            "spec": spec,
        })
    }

    /// As people read it. `now`: Unix seconds.
    pub(super) fn yaml(&self, now: i64) -> String {
        let Found { issuer, pack, source, keys, at, .. } = &self.found;
        let mut text = String::new();
        let mut line = |line: &str| {
            text.push_str(line);
            text.push('\n');
        };
        let how = match source {
            KeySource::Inline(_) | KeySource::Url(_) => format!("with the keys of {}", visible(at)),
            KeySource::Discovery(_) => "as it describes itself".to_owned(),
        };
        line(&format!("# {}, {how}, at {}.", visible(issuer), clock::rfc3339(now)));
        line(&format!("# Keys: {}", told(&keys.keys)));
        for (position, why) in &keys.refused {
            line(&format!("# Not used: key {position}: {}", visible(&why.to_string())));
        }
        line("apiVersion: tidegate.dev/v1alpha1");
        line("kind: TrustedIssuer");
        line(&format!("metadata: {{name: {}}}", self.name));
        line("spec:");
        line(&format!("  issuer: {}", quoted(issuer)));
        line(&format!("  pack: {}", pack.name()));
        if !self.algorithms.is_empty() {
            let names: Vec<&str> = self.algorithms.iter().map(|algorithm| algorithm.name()).collect();
            line(&format!("  algorithms: [{}]", names.join(", ")));
        }
        match source {
            KeySource::Inline(_) => {
                line("  keys:");
                line("    jwks: |");
                for keys in self.jwks().lines() {
                    line(&format!("      {keys}"));
                }
                line("  # Nobody fetches these keys. To be reminded when they get old:");
                line("  # rotateEvery: 90d");
            }
            KeySource::Url(url) => line(&format!("  keys: {{jwksUri: {}}}", quoted(url))),
            KeySource::Discovery(_) => {
                line(&format!("  # Found at {}", visible(at)));
                line("  keys: {discovery: true}");
            }
        }
        line("  # The most that any Guard may accept; without it, whatever a Guard asks for:");
        line("  # audiences: [\"https://orders.sales.example\"]");
        line("  # Whose rules may name it; without it, everybody's:");
        line("  # allowedNamespaces: [sales]");
        line("#");
        for said in self.next_steps() {
            line(&format!("# {said}"));
        }
        text
    }

    fn next_steps(&self) -> Vec<String> {
        let Found { issuer, pack, .. } = &self.found;
        let mut said = Vec::new();
        if *pack == PackKind::Generic {
            said.push(
                "No pack knows this issuer: its tokens must be access tokens of RFC 9068 (`typ: at+jwt`)."
                    .to_owned(),
            );
            said.push(
                "For others, write which `typ` they have, e.g. `tokenTypes: [JWT]` in `spec`.".to_owned(),
            );
        }
        if is_shared_issuer(*pack, issuer) {
            said.push(
                "Anybody gets tokens of this issuer: a rule must say of whom it accepts them.".to_owned(),
            );
        }
        said.push("In a rule, with your values:".to_owned());
        said.push(format!(
            "  from: [{{anyMesh: true, tokens: [{{issuer: {}, {}}}]}}]",
            self.name,
            example(*pack, issuer)
        ));
        said
    }

    /// The fit keys, as a JWKS document of what verifies and says what for.
    fn jwks(&self) -> String {
        const MEMBERS: [&str; 10] = ["alg", "crv", "e", "issuer", "kid", "kty", "n", "use", "x", "y"];
        let document: Value = serde_json::from_str(&self.found.document).unwrap_or_default();
        let is_fit = |position: &usize| !self.found.keys.refused.iter().any(|(unfit, _)| unfit == position);
        let published = document["keys"].as_array().into_iter().flatten().enumerate();
        let keys = published.filter(|(position, _)| is_fit(position)).filter_map(|(_, key)| {
            let members = key.as_object()?.iter().filter(|(name, _)| MEMBERS.contains(&name.as_str()));
            Some(members.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>())
        });
        let keys: Vec<String> = keys.map(|key| format!("  {}", ascii(&Value::from(key)))).collect();
        format!("{{\"keys\": [\n{}\n]}}", keys.join(",\n"))
    }
}

/// What a rule may demand of such a token.
fn example(pack: PackKind, issuer: &str) -> String {
    match pack {
        PackKind::Google => "google: {serviceAccount: \"etl@acme.iam.gserviceaccount.com\"}".to_owned(),
        PackKind::Kubernetes => "kubernetes: {namespace: etl, serviceAccount: orders}".to_owned(),
        PackKind::Gitlab => "gitlab: {project: 4711, protectedRef: true}".to_owned(),
        PackKind::Entra => "entra: {app: cccccccc-0000-4000-8000-000000000003, appOnly: true}".to_owned(),
        PackKind::Okta => "okta: {client: 0oa0example}".to_owned(),
        PackKind::Aws => "aws: {account: \"123456789012\", role: OrdersEtl}".to_owned(),
        PackKind::Github => "github: {repository: 456, owner: 123}".to_owned(),
        PackKind::Spiffe => format!("spiffe: {{id: \"{issuer}/ns/etl/sa/orders\"}}"),
        PackKind::Generic => "claims: {client_id: orders}".to_owned(),
    }
}

/// What a key is for: what it says, else what the pack's tokens usually have.
fn algorithm(key: &Jwk, usual: &[Algorithm]) -> Option<Algorithm> {
    let fitting = usual.iter().copied().chain(Algorithm::ALL).find(|algorithm| key.fits(*algorithm));
    key.algorithm().or(fitting)
}

fn told(keys: &[Jwk]) -> String {
    let key = |key: &Jwk| {
        let id = key.key_id().map_or("without id".to_owned(), visible);
        match key.algorithm() {
            Some(algorithm) => format!("{id} ({})", algorithm.name()),
            None => id,
        }
    };
    let mut told: Vec<String> = keys.iter().take(MAX_TOLD).map(key).collect();
    match keys.len().checked_sub(MAX_TOLD) {
        Some(more @ 1..) => told.push(format!("and {more} more")),
        _ if keys.is_empty() => told.push("none at present".to_owned()),
        _ => {}
    }
    told.join(", ")
}

/// What people call this issuer.
fn name_of(issuer: &str, pack: PackKind) -> String {
    let domain = |host: &str| sanitized(&host.replace('.', "-"));
    let url = Url::parse(issuer).ok();
    let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
    match pack {
        PackKind::Google => "google".to_owned(),
        PackKind::Gitlab => "gitlab".to_owned(),
        PackKind::Github => "github".to_owned(),
        PackKind::Entra => "entra".to_owned(),
        PackKind::Okta => "okta".to_owned(),
        PackKind::Aws => "aws".to_owned(),
        // GKE names the cluster last; nobody else names it so that people would know it.
        PackKind::Kubernetes if host == "container.googleapis.com" => {
            sanitized(issuer.rsplit('/').next().unwrap_or_default())
        }
        PackKind::Kubernetes => "cluster".to_owned(),
        PackKind::Spiffe => domain(issuer.trim_start_matches("spiffe://")),
        PackKind::Generic => domain(host),
    }
}

/// Made a name.
fn sanitized(text: &str) -> String {
    let allowed = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    let name: String = text.to_ascii_lowercase().chars().map(allowed).take(MAX_NAME).collect();
    match name.trim_matches('-') {
        "" => "issuer".to_owned(),
        name => name.to_owned(),
    }
}

/// A name for rules.
pub(super) fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || sanitized(text) != text {
        return Err(format!(
            "a name has lower-case letters, digits and `-` between them, at most {MAX_NAME}"
        ));
    }
    Ok(text.to_owned())
}

/// As YAML and JSON both read it.
fn quoted(text: &str) -> String {
    ascii(&Value::from(text))
}

/// As JSON without any character that ends a line of YAML (which NEL, LS and PS do for some readers), or that is not shown.
fn ascii(value: &Value) -> String {
    let mut text = String::new();
    for c in value.to_string().chars() {
        match c {
            ' '..='~' => text.push(c),
            // Outside of strings there are no others.
            _ => text.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}"))),
        }
    }
    text
}
