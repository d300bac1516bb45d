//! What Callers say about accounts and cloud identities, with lines.

use tidegate_compiler::tree::{self, Tree};

use super::manifests::Spot;
use crate::rules::{Environment, Files};

/// A Caller.
#[derive(Debug)]
pub(super) struct Caller {
    /// `namespace/name`
    pub(super) name: String,
    pub(super) forms: Vec<Form>,
}

/// One of its forms.
#[derive(Debug)]
pub(super) struct Form {
    /// The accounts of its peer.
    pub(super) accounts: Vec<Named>,
    /// Its tokens.
    pub(super) tokens: Vec<Token>,
}

/// An account that a Caller names.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) namespace: String,
    pub(super) account: String,
    pub(super) spot: Spot,
}

/// A token that a Caller demands.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) issuer: String,
    /// `google.serviceAccount`, `aws.role`, `entra.app`: whichever it has, by the pack's name.
    pub(super) identities: Vec<(&'static str, String, Spot)>,
}

/// Reads the Callers of files that compile.
pub(super) fn read(files: &Files, environment: &Environment, shown: impl Fn(&str) -> String) -> Vec<Caller> {
    let mut callers = Vec::new();
    for (path, text) in files {
        let file = shown(path);
        let (documents, _) = tree::read(text, Some(environment));
        for document in &documents {
            let root = document.root();
            if root.get("kind").and_then(Tree::text) == Some("Caller") {
                callers.extend(caller(root, &file));
            }
        }
    }
    callers
}

fn caller(root: Tree<'_>, file: &str) -> Option<Caller> {
    let text = |path: &[&str]| root.at(path).and_then(Tree::text);
    let name = format!("{}/{}", text(&["metadata", "namespace"])?, text(&["metadata", "name"])?);
    let forms = root.at(&["spec", "anyOf"]).into_iter().flat_map(Tree::items);
    Some(Caller { name, forms: forms.map(|form| self::form(form, file)).collect() })
}

fn form(form: Tree<'_>, file: &str) -> Form {
    let spot = |tree: Tree<'_>| Spot { file: file.to_owned(), line: tree.line() };
    let mut accounts = Vec::new();
    // An account of another mesh is in no manifest of this one.
    let peer = form.get("peer").filter(|peer| peer.get("trustDomain").is_none());
    if let Some(namespace) = peer.and_then(|peer| peer.get("namespace")).and_then(Tree::text) {
        let named = peer.and_then(|peer| peer.get("serviceAccounts")).into_iter().flat_map(Tree::items);
        accounts.extend(named.filter_map(|account| {
            let name = account.text()?.to_owned();
            Some(Named { namespace: namespace.to_owned(), account: name, spot: spot(account) })
        }));
    }
    let tokens = form.get("tokens").into_iter().flat_map(Tree::items);
    let token = |token: Tree<'_>| {
        let identity = |pack: &'static str, field: &str| {
            let value = token.at(&[pack, field])?;
            Some((pack, value.text()?.to_owned(), spot(value)))
        };
        let role = identity("aws", "role").map(|(pack, role, at)| {
            // A name is that of a role of the account.
            let account = token.at(&["aws", "account"]).and_then(Tree::text);
            match account.filter(|_| !role.starts_with("arn:")) {
                Some(account) => (pack, format!("arn:aws:iam::{account}:role/{role}"), at),
                None => (pack, role, at),
            }
        });
        Some(Token {
            issuer: token.get("issuer")?.text()?.to_owned(),
            identities: [identity("google", "serviceAccount"), role, identity("entra", "app")]
                .into_iter()
                .flatten()
                .collect(),
        })
    };
    Form { accounts, tokens: tokens.filter_map(token).collect() }
}
