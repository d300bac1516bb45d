//! `tokens` entries: which claims of which issuer must have which values.
//!
//! INVARIANT: a claim is compared only with values of its own type, and never with a pattern.

use std::collections::BTreeSet;

use tidegate_identity::PackKind;
use tidegate_identity::pack::{ClaimKind, ClaimSpec, Stability, is_shared_issuer, tenant_claims};

use crate::claim_path;
use crate::context::Context;
use crate::demand::{ClaimTest, Demand, Demands};
use crate::diagnostic::Code;
use crate::issuers::{TrustedIssuer, check_text};
use crate::mesh::not_empty;
use crate::operation::repeated;
use crate::place::{Findings, Place};
use crate::spec::{ClaimValueSpec, TokenSpec};
use crate::suggest;

mod sugar;

pub(crate) use sugar::warn_default_account;

/// A checked entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) issuer: String,
    pub(crate) pack: PackKind,
    pub(crate) demands: Demands,
}

/// Checks the `tokens` of an entry. `None` if anything is wrong with them.
pub(crate) fn check(
    place: &Place<'_>,
    tokens: Option<&[TokenSpec]>,
    namespace: &str,
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
        .map(|(index, token)| check_one(&place.index(index), token, namespace, context, findings))
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
        if !issuers.insert(&token.issuer) {
            findings.add(
                &place.key("issuer"),
                Code::TokenTwice,
                format!("the entry has two tokens of `{}`", token.issuer),
                "a request with two tokens of one issuer is refused",
                "write all claims in one token; for alternatives, write two entries",
            );
        }
        let Some(alias) = &token.alias else { continue };
        let well_formed =
            alias.bytes().next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
                && alias.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !well_formed {
            findings.add(
                &place.key("as"),
                Code::MalformedValue,
                format!("`{alias}` is not a name"),
                "conditions call the token by it",
                "use letters, digits and `_`, e.g. `job`",
            );
        }
        if !names.insert(alias) {
            findings.add(
                &place.key("as"),
                Code::TokenTwice,
                format!("the entry has two tokens with the name `{alias}`"),
                "conditions could not tell them apart",
                "give them different names",
            );
        }
    }
}

fn check_one(
    place: &Place<'_>,
    spec: &TokenSpec,
    namespace: &str,
    context: &Context<'_>,
    findings: &mut Findings,
) -> Option<Token> {
    let issuer = context.issuer(&place.key("issuer"), &spec.issuer, findings)?;
    context.may_use(&place.key("issuer"), namespace, issuer, findings);
    let mut demands = Demands::default();
    if let Some(claims) = &spec.claims {
        let place = place.key("claims");
        if claims.is_empty() {
            empty(&place, findings);
        }
        for (path, value) in claims {
            check_claim(&place.key(path), path, value, issuer, &mut demands, findings);
        }
    }
    let belongs = |field: &str, pack: PackKind, findings: &mut Findings| {
        if issuer.pack == pack {
            return true;
        }
        findings.add(
            &place.key(field),
            Code::WrongPack,
            format!("`{field}` is for issuers of the pack `{}`", pack.name()),
            format!("tokens of `{}` (pack `{}`) do not have these claims", issuer.name, issuer.pack.name()),
            "correct `issuer`, or write `claims`",
        );
        false
    };
    if let Some(gitlab) = &spec.gitlab
        && belongs("gitlab", PackKind::Gitlab, findings)
    {
        sugar::gitlab(&place.key("gitlab"), gitlab, &mut demands, findings);
    }
    if let Some(google) = &spec.google
        && belongs("google", PackKind::Google, findings)
    {
        sugar::google(&place.key("google"), google, &mut demands, findings);
    }
    if let Some(kubernetes) = &spec.kubernetes
        && belongs("kubernetes", PackKind::Kubernetes, findings)
    {
        sugar::kubernetes(&place.key("kubernetes"), kubernetes, &mut demands, findings);
    }
    if let Some(job) = &spec.dataflow_job
        && belongs("dataflowJob", PackKind::Google, findings)
    {
        sugar::dataflow_job(&place.key("dataflowJob"), job, &mut demands, findings);
    }
    Some(Token { issuer: issuer.name.clone(), pack: issuer.pack, demands })
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

fn check_claim(
    place: &Place<'_>,
    text: &str,
    value: &ClaimValueSpec,
    issuer: &TrustedIssuer,
    demands: &mut Demands,
    findings: &mut Findings,
) {
    let Some(path) = claim_path::parse(text) else {
        findings.add(
            place,
            Code::MalformedValue,
            format!("`{text}` is not the path of a claim"),
            "a path is names from the outside in",
            "write `a.b`; names with other characters in brackets: `[\"kubernetes.io\"].namespace`",
        );
        return;
    };
    if let [only] = path.as_slice()
        && let Some(checked_by) = reserved(only)
    {
        findings.add(
            place,
            Code::ReservedClaim,
            format!("`{only}` is not compared by rules"),
            format!("it is checked for every token, by {checked_by}"),
            "remove it",
        );
        return;
    }
    let Some(spec) = known_claim(place, text, &path, issuer, findings) else { return };
    if let Some(spec) = spec
        && spec.stable == Stability::Renameable
    {
        findings.add(
            place,
            Code::RenameableClaim,
            format!("`{text}` can be renamed, and its value given to somebody else"),
            "a rule on a name holds for whoever has it next",
            "compare an id, or compare an id as well",
        );
    }
    if let Some(test) = check_value(place, text, value, spec.map(|spec| spec.kind), findings) {
        demands.add(match test {
            ValueTest::One(test) => Demand::Claim(path, test),
            ValueTest::Any(tests) => {
                Demand::Any(tests.into_iter().map(|test| Demand::Claim(path.clone(), test)).collect())
            }
        });
    }
}

fn reserved(claim: &str) -> Option<&'static str> {
    match claim {
        "iss" => Some("`issuer` of the TrustedIssuer"),
        "aud" => Some("`audience` of the Guard"),
        "exp" | "nbf" | "iat" => Some("the filter's clock"),
        _ => None,
    }
}

/// The claim as the issuer's pack knows it; `Some(None)` where a pack lets unknown claims through. `None`: refused.
fn known_claim(
    place: &Place<'_>,
    text: &str,
    path: &[String],
    issuer: &TrustedIssuer,
    findings: &mut Findings,
) -> Option<Option<&'static ClaimSpec>> {
    match issuer.pack.claim(path) {
        Some(spec) => Some(Some(spec)),
        None if issuer.pack == PackKind::Generic => Some(None),
        None => {
            let known: Vec<String> =
                issuer.pack.claims().iter().map(|spec| claim_path::show(spec.path)).collect();
            findings.add(
                place,
                Code::UnknownClaim,
                format!("tokens of `{}` have no claim `{text}`", issuer.name),
                "a condition on a claim that is never there would never hold",
                match suggest::closest(text, known.iter().map(String::as_str)) {
                    Some(close) => format!("did you mean `{close}`?"),
                    None => format!("the pack `{}` knows {}", issuer.pack.name(), comparable(issuer.pack)),
                },
            );
            None
        }
    }
}

fn comparable(pack: PackKind) -> String {
    let names: Vec<String> = pack
        .claims()
        .iter()
        .filter(|spec| !matches!(spec.kind, ClaimKind::Structure | ClaimKind::StringOrStrings))
        .map(|spec| claim_path::show(spec.path))
        .filter(|name| reserved(name).is_none())
        .collect();
    suggest::list(names.iter().map(String::as_str))
}

enum ValueTest {
    One(ClaimTest),
    Any(Vec<ClaimTest>),
}

/// What a claim of this kind is compared with; `None` as kind: not known, so by the value's own type.
fn check_value(
    place: &Place<'_>,
    name: &str,
    value: &ClaimValueSpec,
    kind: Option<ClaimKind>,
    findings: &mut Findings,
) -> Option<ValueTest> {
    let mut wrong = |is: &str, fix: String| {
        findings.add(
            place,
            Code::ClaimType,
            format!("`{name}` is {is}, and is compared with {}", describe(value)),
            "a comparison of different types never holds",
            fix,
        );
        None
    };
    match (kind, value) {
        (Some(ClaimKind::Structure | ClaimKind::StringOrStrings), _) => {
            wrong("a structure", "compare another claim".to_owned())
        }
        (Some(ClaimKind::Integer), ClaimValueSpec::Integer(integer))
        | (None, ClaimValueSpec::Integer(integer)) => Some(ValueTest::One(ClaimTest::Integer(*integer))),
        (Some(ClaimKind::Integer), _) => wrong("a number", "write a whole number, without quotes".to_owned()),
        (Some(ClaimKind::Boolean), ClaimValueSpec::Boolean(boolean))
        | (None, ClaimValueSpec::Boolean(boolean)) => Some(ValueTest::One(ClaimTest::Boolean(*boolean))),
        (Some(ClaimKind::Boolean), _) => {
            wrong("a boolean", "write `true` or `false`, without quotes".to_owned())
        }
        (Some(ClaimKind::BooleanString), ClaimValueSpec::String(text))
            if text == "true" || text == "false" =>
        {
            Some(ValueTest::One(ClaimTest::OneOf(BTreeSet::from([text.clone()]))))
        }
        (Some(ClaimKind::BooleanString), ClaimValueSpec::Boolean(boolean)) => {
            wrong("a string", format!("write `\"{boolean}\"`"))
        }
        (Some(ClaimKind::BooleanString), _) => {
            wrong("the string `true` or `false`", "write `\"true\"` or `\"false\"`".to_owned())
        }
        (Some(ClaimKind::Strings), ClaimValueSpec::Integer(_) | ClaimValueSpec::Boolean(_)) => {
            wrong("a list of strings", "write a string that must be in it".to_owned())
        }
        (_, ClaimValueSpec::Integer(integer)) => wrong("a string", format!("write `\"{integer}\"`")),
        (_, ClaimValueSpec::Boolean(boolean)) => wrong("a string", format!("write `\"{boolean}\"`")),
        (Some(ClaimKind::Strings), ClaimValueSpec::String(text)) => {
            check_exact(place, text, findings).then(|| ValueTest::One(ClaimTest::Contains(text.clone())))
        }
        (Some(ClaimKind::Strings), ClaimValueSpec::OneOf(texts)) => {
            let texts = check_each(place, texts, findings)?;
            Some(ValueTest::Any(texts.into_iter().map(ClaimTest::Contains).collect()))
        }
        (_, ClaimValueSpec::String(text)) => check_exact(place, text, findings)
            .then(|| ValueTest::One(ClaimTest::OneOf(BTreeSet::from([text.clone()])))),
        (_, ClaimValueSpec::OneOf(texts)) => {
            let texts = check_each(place, texts, findings)?;
            Some(ValueTest::One(ClaimTest::OneOf(texts)))
        }
    }
}

fn check_each(place: &Place<'_>, texts: &[String], findings: &mut Findings) -> Option<BTreeSet<String>> {
    not_empty(place, texts, findings);
    let mut checked = BTreeSet::new();
    for (index, text) in texts.iter().enumerate() {
        let place = place.index(index);
        if check_exact(&place, text, findings) && !checked.insert(text.clone()) {
            repeated(&place, text, findings);
        }
    }
    (!checked.is_empty()).then_some(checked)
}

/// A value that is compared byte for byte.
pub(crate) fn check_exact(place: &Place<'_>, text: &str, findings: &mut Findings) -> bool {
    let before = findings.errors();
    check_text(place, text, findings);
    if text.contains('*') {
        findings.add(
            place,
            Code::PatternInExactValue,
            format!("`{text}` looks like a pattern"),
            "claims are compared exactly; a `*` stands for itself, and no token has it",
            "list the values",
        );
    }
    findings.errors() == before
}

fn describe(value: &ClaimValueSpec) -> String {
    match value {
        ClaimValueSpec::String(text) => format!("the string `{text}`"),
        ClaimValueSpec::Integer(integer) => format!("the number `{integer}`"),
        ClaimValueSpec::Boolean(boolean) => format!("the boolean `{boolean}`"),
        ClaimValueSpec::OneOf(_) => "a list of strings".to_owned(),
    }
}

/// Refuses an Allow that trusts every tenant of a shared issuer.
pub(crate) fn demand_tenant(
    place: &Place<'_>,
    token: &Token,
    context: &Context<'_>,
    findings: &mut Findings,
) {
    let Some(issuer) = context.usable_issuer(&token.issuer) else { return };
    let tenant = tenant_claims(issuer.pack);
    if !is_shared_issuer(issuer.pack, &issuer.issuer) || token.demands.ties_to(tenant) {
        return;
    }
    let claims: Vec<String> = tenant.iter().map(|claim| claim_path::show(claim)).collect();
    findings.add(
        place,
        Code::NoTenant,
        format!("nothing says which tenant of `{}` is meant", issuer.issuer),
        "anybody can get a token of this issuer; only its claims tell tenants apart",
        format!("demand one of {}", suggest::list(claims.iter().map(String::as_str))),
    );
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
