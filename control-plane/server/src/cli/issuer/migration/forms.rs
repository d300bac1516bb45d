//! Which objects name an issuer, and in which of their forms.
//!
//! Reads rules that compile, so that what has another shape here is not there.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_saphyr::Spanned;

use crate::rules::{Environment, Files};

/// A Caller or an AccessRule that names the old issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mention {
    /// Relative to the rules folder.
    pub file: String,
    /// Of its first form that names the old one.
    pub line: u64,
    /// `Caller` or `AccessRule`.
    pub kind: String,
    /// `namespace/name`.
    pub name: String,
    /// Of an AccessRule: `Allow` or `Deny`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
    /// Paths of the forms that need a token of the old one, e.g. `anyOf[1]`.
    pub forms: Vec<String>,
    /// How far it has come.
    pub standing: Standing,
}

/// How far an object has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Standing {
    /// No form of it does with a token of the new one instead.
    OldOnly,
    /// One does.
    Both,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    effect: Option<String>,
    /// Of a Caller.
    any_of: Option<Vec<Spanned<Form>>>,
    /// Of an AccessRule.
    from: Option<Vec<Spanned<Form>>>,
}

#[derive(Deserialize)]
struct Form {
    tokens: Option<Vec<Token>>,
}

#[derive(Deserialize)]
struct Token {
    issuer: String,
}

/// Every object that names `old`.
///
/// # Errors
/// When a file is not YAML.
pub(super) fn mentions(
    files: &Files,
    environment: &Environment,
    old: &str,
    new: &str,
) -> anyhow::Result<Vec<Mention>> {
    let mut mentions = Vec::new();
    for (file, text) in files {
        let documents: Vec<Option<Document>> =
            serde_saphyr::from_multiple(text).map_err(|error| anyhow::anyhow!("`{file}`: {error}"))?;
        let of = |document: &Document| document.mention(file, environment, old, new);
        mentions.extend(documents.iter().flatten().filter_map(of));
    }
    Ok(mentions)
}

// === impl Document ===

impl Document {
    fn mention(&self, file: &str, environment: &Environment, old: &str, new: &str) -> Option<Mention> {
        let (field, forms) = match self.kind.as_str() {
            "Caller" => ("anyOf", self.spec.any_of.as_ref()?),
            "AccessRule" => ("from", self.spec.from.as_ref()?),
            _ => return None,
        };
        let issuers: Vec<BTreeSet<String>> =
            forms.iter().map(|form| form.value.issuers(environment)).collect();
        let needs_old = |issuers: &BTreeSet<String>| issuers.contains(old);
        let of_old: Vec<usize> = (0..forms.len()).filter(|ix| needs_old(&issuers[*ix])).collect();
        let has_new = issuers.iter().any(|issuers| issuers.contains(new) && !needs_old(issuers));
        Some(Mention {
            file: file.to_owned(),
            line: forms.get(*of_old.first()?)?.referenced.line(),
            kind: self.kind.clone(),
            name: format!("{}/{}", self.metadata.namespace, self.metadata.name),
            effect: self.spec.effect.clone(),
            forms: of_old.iter().map(|ix| format!("{field}[{ix}]")).collect(),
            standing: if has_new { Standing::Both } else { Standing::OldOnly },
        })
    }
}

// === impl Form ===

impl Form {
    /// All of whose tokens it needs.
    fn issuers(&self, environment: &Environment) -> BTreeSet<String> {
        let tokens = self.tokens.iter().flatten();
        tokens.map(|token| substituted(&token.issuer, environment)).collect()
    }
}

// === impl Mention ===

impl Mention {
    /// For people.
    pub(super) fn row(&self) -> [String; 3] {
        let effect = match self.effect.as_deref() {
            // It would let tokens of the new one pass.
            Some("Deny") => " (Deny)",
            _ => "",
        };
        [
            format!("{}:{}", self.file, self.line),
            format!("{} {}{effect}", self.kind, self.name),
            self.forms.join(", "),
        ]
    }
}

/// With the values of `${env.name}`.
fn substituted(text: &str, environment: &BTreeMap<String, String>) -> String {
    environment
        .iter()
        .fold(text.to_owned(), |text, (name, value)| text.replace(&format!("${{env.{name}}}"), value))
}
