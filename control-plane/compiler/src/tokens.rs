//! `tokens` entries: which claims of which issuer must have which values.
//!
//! INVARIANT: a claim is compared only with values of its own type, and never with a pattern.

use std::collections::BTreeSet;

use tidegate_identity::PackKind;
use tidegate_identity::pack::{is_shared_issuer, tenant_claims};

use crate::claim_path;
use crate::context::Context;
use crate::demand::{ClaimTest, Demand, Demands};
use crate::diagnostic::Code;
use crate::mesh::not_empty;
use crate::place::{Findings, Place};
use crate::spec::TokenSpec;
use crate::suggest;
use crate::text::check_duration;
use crate::when::Tree;

mod claims;
mod sugar;

pub(crate) use claims::{check_stability, check_string, known_claim};
pub(crate) use sugar::warn_default_account;

/// The longest `maxTokenAge`, in seconds.
const MAX_AGE_S: u32 = 7 * 86_400;

/// A checked entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) issuer: String,
    pub(crate) pack: PackKind,
    pub(crate) demands: Demands,
    /// The most seconds since it was issued.
    pub(crate) max_age_s: Option<u32>,
}

/// Where tokens are written.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'e> {
    /// Namespace of the object.
    pub(crate) namespace: &'e str,
    /// Namespace that the entry demands of the peer, where the peer is the caller.
    pub(crate) peer_namespace: Option<&'e str>,
    /// Issuers of whose tokens `bind` and `when` compare what callers choose.
    pub(crate) asserted: &'e BTreeSet<String>,
}

/// Checks the `tokens` of an entry. `None` if anything is wrong with them.
pub(crate) fn check(
    place: &Place<'_>,
    tokens: Option<&[TokenSpec]>,
    entry: Entry<'_>,
    context: &Context<'_>,
    findings: &mut Findings,
) -> Option<Vec<Token>> {
    let Some(tokens) = tokens else { return Some(Vec::new()) };
    not_empty(place, tokens, findings);
    let before = findings.errors();
    refuse_twins(place, tokens, findings);
    let checked: Vec<Option<Token>> = tokens
        .iter()
        .enumerate()
        .map(|(index, token)| check_one(&place.index(index), token, entry, context, findings))
        .collect();
    let checked: Option<Vec<Token>> = checked.into_iter().collect();
    checked.filter(|_| findings.errors() == before && !tokens.is_empty())
}

/// Two tokens of one issuer are never accepted together, and two of one name could not be told apart.
fn refuse_twins(place: &Place<'_>, tokens: &[TokenSpec], findings: &mut Findings) {
    let mut issuers = BTreeSet::new();
    let mut names = BTreeSet::new();
    for (index, token) in tokens.iter().enumerate() {
        let place = place.index(index);
        let is_first = issuers.insert(&token.issuer);
        if !is_first {
            findings.add(
                &place.key("issuer"),
                Code::TokenTwice,
                format!("the entry has two tokens of `{}`", token.issuer),
                "a request with two tokens of one issuer is refused",
                "write all claims in one token; for alternatives, write two entries",
            );
        }
        if let Some(alias) = &token.alias {
            check_alias(&place.key("as"), alias, findings);
        }
        if !names.insert(token.name()) && (is_first || token.alias.is_some()) {
            findings.add(
                &place.key("as"),
                Code::TokenTwice,
                format!("the entry has two tokens with the name `{}`", token.name()),
                "conditions could not tell them apart",
                "give them different names",
            );
        }
    }
}

fn check_alias(place: &Place<'_>, alias: &str, findings: &mut Findings) {
    if !is_identifier(alias) {
        findings.add(
            place,
            Code::MalformedValue,
            format!("`{alias}` is not a name"),
            "conditions call the token by it",
            "use letters, digits and `_`, e.g. `job`",
        );
    } else if alias == "peer" || RESERVED.contains(&alias) {
        findings.add(
            place,
            Code::MalformedValue,
            format!("`{alias}` means something else in conditions"),
            "conditions call the token by its name",
            "choose another name, e.g. `job`",
        );
    }
}

/// What CEL does not take for an identifier (language definition, "Syntax").
const RESERVED: [&str; 20] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
];

fn is_identifier(text: &str) -> bool {
    text.bytes().next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn check_one(
    place: &Place<'_>,
    spec: &TokenSpec,
    entry: Entry<'_>,
    context: &Context<'_>,
    findings: &mut Findings,
) -> Option<Token> {
    let issuer = context.issuer(&place.key("issuer"), &spec.issuer, findings)?;
    context.may_use(&place.key("issuer"), entry.namespace, issuer, findings);
    let mut demands = Demands::default();
    // What is acknowledged must be there: a leftover would acknowledge what somebody adds later.
    let mut asserted = entry.asserted.contains(&issuer.name);
    if let Some(written) = &spec.claims {
        let place = place.key("claims");
        if written.is_empty() {
            empty(&place, findings);
        }
        asserted |= claims::check(&place, spec, written, issuer, &mut demands, findings);
    }
    asserted |= sugar::check(place, spec, issuer, entry, &mut demands, findings);
    if spec.caller_asserted == Some(false) || (spec.caller_asserted == Some(true) && !asserted) {
        findings.add(
            &place.key("callerAsserted"),
            Code::MalformedValue,
            "there is nothing to acknowledge",
            "`callerAsserted: true` says that callers may choose some of what the entry demands",
            "remove it",
        );
    }
    let max_age_s = spec.max_token_age.as_deref().and_then(|text| {
        let why = "no token lives longer, whatever its age";
        check_duration(&place.key("maxTokenAge"), text, MAX_AGE_S, why, findings)
    });
    Some(Token { issuer: issuer.name.clone(), pack: issuer.pack, demands, max_age_s })
}

/// An empty mapping.
pub(crate) fn empty(place: &Place<'_>, findings: &mut Findings) {
    findings.add(
        place,
        Code::EmptyValue,
        "nothing is written here",
        "an empty mapping is neither \"any\" nor \"none\"",
        "write what the token must say, or remove the field",
    );
}

/// What every project of a GitLab says of its own jobs. Whoever has a project, which may be a personal one, protects
/// its branches and names its environments.
const OF_ANY_PROJECT: [&[&str]; 7] = [
    &["ref"],
    &["ref_type"],
    &["ref_path"],
    &["ref_protected"],
    &["environment"],
    &["environment_protected"],
    &["deployment_tier"],
];

/// Refuses an Allow that trusts every tenant of a shared issuer, or every project of a GitLab.
pub(crate) fn demand_tenant(
    place: &Place<'_>,
    token: &Token,
    when: &[Tree],
    context: &Context<'_>,
    findings: &mut Findings,
) {
    let Some(issuer) = context.usable_issuer(&token.issuer) else { return };
    let tenant = tenant_claims(issuer.pack);
    let shared = issuer.issuers.iter().find(|name| is_shared_issuer(issuer.pack, name));
    let (message, why) = if let Some(shared) = shared {
        (
            format!("nothing says which tenant of `{shared}` is meant"),
            "anybody can get a token of this issuer; only its claims tell tenants apart",
        )
    } else if issuer.pack == PackKind::Gitlab
        && (token.demands.reads(&OF_ANY_PROJECT) || reads_any_project(when, &token.issuer))
    {
        (
            format!("nothing says which project of `{}` is meant", issuer.name),
            "every user can protect a branch and name an environment in a project of their own",
        )
    } else {
        return;
    };
    let of_subject: &[&[&str]] = if tenant.contains(&["sub"].as_slice()) { &[&["@subject"]] } else { &[] };
    let tied =
        |claims| token.demands.ties_to(claims) || when.iter().any(|tree| tree.ties_to(&token.issuer, claims));
    if tied(tenant) || tied(of_subject) {
        return;
    }
    let claims: Vec<String> = tenant.iter().map(|claim| claim_path::show(claim)).collect();
    findings.add(
        place,
        Code::NoTenant,
        message,
        why,
        format!("demand one of {}", suggest::list(claims.iter().map(String::as_str))),
    );
}

fn reads_any_project(when: &[Tree], issuer: &str) -> bool {
    let mut reads = false;
    for tree in when {
        tree.each_claim(&mut |claim| {
            reads |= claim.issuer == issuer
                && OF_ANY_PROJECT.iter().any(|known| known.iter().eq(claim.path.iter()));
        });
    }
    reads
}

// === impl TokenSpec ===

impl TokenSpec {
    /// What conditions call it: its alias, or the name of its issuer.
    pub(crate) fn name(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.issuer)
    }
}

// === impl Token ===

impl Token {
    /// Demands that the token names the workload that sent it. Only where the peer is the caller.
    pub(crate) fn bind_to_peer(&mut self) {
        if self.pack == PackKind::Kubernetes {
            self.demands
                .add_implied(Demand::claim(&["kubernetes.io", "namespace"], ClaimTest::PeerNamespace));
            self.demands.add_implied(Demand::claim(
                &["kubernetes.io", "serviceaccount", "name"],
                ClaimTest::PeerServiceAccount,
            ));
        }
    }
}
