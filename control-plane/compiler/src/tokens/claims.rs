//! `claims`: values by the path of the claim.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_engine::model::ClaimPath;
use tidegate_identity::PackKind;
use tidegate_identity::pack::{ClaimKind, Stability};

use crate::claim_path;
use crate::demand::{ClaimTest, Demand, Demands};
use crate::diagnostic::Code;
use crate::issuers::TrustedIssuer;
use crate::mesh::not_empty;
use crate::operation::repeated;
use crate::place::{Findings, Place};
use crate::spec::{ClaimValueSpec, TokenSpec};
use crate::suggest;
use crate::syntax;
use crate::text::check_exact;

/// A claim or derived attribute that rules may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownClaim {
    pub(crate) path: ClaimPath,
    /// `None` where a pack lets claims through that it does not know.
    pub(crate) kind: Option<ClaimKind>,
    pub(crate) stable: Stability,
}

/// Of Entra's claims those that people read, and that another tenant's administrator can set to anything ("nOAuth").
const MUTABLE: [&str; 5] = ["email", "upn", "preferred_username", "unique_name", "name"];

/// Checks all claims. Says whether callers or strangers choose any of them.
pub(super) fn check(
    place: &Place<'_>,
    spec: &TokenSpec,
    claims: &BTreeMap<String, ClaimValueSpec>,
    issuer: &TrustedIssuer,
    demands: &mut Demands,
    findings: &mut Findings,
) -> bool {
    let mut asserted = false;
    for (text, value) in claims {
        let place = place.key(text);
        let Some(claim) = known_claim(&place, text, claim_path::parse(text), issuer, findings) else {
            continue;
        };
        asserted |= check_stability(&place, text, &claim, spec, issuer, findings);
        let Some(tests) = check_value(&place, text, value, claim.kind, findings) else { continue };
        demands.add(Demand::any(&claim.path, tests));
    }
    asserted
}

/// Reports a claim that does not keep naming the same thing. Says whether it is the caller's or a stranger's to choose.
pub(crate) fn check_stability(
    place: &Place<'_>,
    text: &str,
    claim: &KnownClaim,
    spec: &TokenSpec,
    issuer: &TrustedIssuer,
    findings: &mut Findings,
) -> bool {
    let acknowledged = spec.caller_asserted == Some(true);
    let is_mutable = issuer.pack == PackKind::Entra
        && matches!(claim.path.as_slice(), [only] if MUTABLE.contains(&only.as_str()));
    let verified = spec.claims.as_ref().and_then(|claims| claims.get("xms_edov"));
    let is_owned = claim.path == ["email"] && verified == Some(&ClaimValueSpec::Boolean(true));
    if is_mutable && !(acknowledged && is_owned) {
        findings.add(
            place,
            Code::AssertedClaim,
            format!("`{text}` can be set to anything by the administrator of another tenant"),
            "whoever sets it to the address of one of your people would be let in as them",
            "compare `oid`, or write `entra: {object: …}`; `email` only with `xms_edov: true` and, beside `claims`, \
             `callerAsserted: true`",
        );
        return true;
    }
    match claim.stable {
        Stability::Stable => {}
        Stability::Renameable => findings.add(
            place,
            Code::RenameableClaim,
            format!("`{text}` can be renamed, and its value given to somebody else"),
            "a rule on a name holds for whoever has it next",
            "compare an id, or compare an id as well",
        ),
        Stability::CallerAsserted if acknowledged => {}
        Stability::CallerAsserted => refuse_asserted(place, text, findings),
    }
    is_mutable || claim.stable == Stability::CallerAsserted
}

/// Refuses what the caller chooses.
pub(super) fn refuse_asserted(place: &Place<'_>, what: &str, findings: &mut Findings) {
    findings.add(
        place,
        Code::AssertedClaim,
        format!("the caller itself chooses `{what}`"),
        "the issuer signs what the caller asks for; that proves nothing about the caller",
        "compare another claim; if what else is demanded suffices, write `callerAsserted: true` beside `issuer`",
    );
}

/// The claim or derived attribute at a path, as the issuer's pack knows it. `None`: refused.
pub(crate) fn known_claim(
    place: &Place<'_>,
    text: &str,
    path: Option<ClaimPath>,
    issuer: &TrustedIssuer,
    findings: &mut Findings,
) -> Option<KnownClaim> {
    let Some(path) = path else {
        findings.add(
            place,
            Code::MalformedValue,
            format!("`{text}` is not the path of a claim"),
            "a path is names from the outside in",
            "write `a.b`; names with other characters in brackets: `[\"kubernetes.io\"].namespace`",
        );
        return None;
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
        return None;
    }
    let pack = issuer.pack;
    if let [first, _, ..] = path.as_slice()
        && first == "act"
    {
        findings.add(
            place,
            Code::ReservedClaim,
            format!("`{text}` is not compared by rules"),
            "whose name it is says another member of `act`, and a name alone could be that of somebody else",
            "write `actor: {subjects: […]}` beside `issuer`, or compare `@actor` or `@actor_chain`",
        );
        return None;
    }
    if path.first().is_some_and(|first| first.starts_with('@')) {
        // Names with `@` are never members of a token.
        if let [only] = path.as_slice()
            && let Some(spec) = pack.derived(only)
        {
            return Some(KnownClaim { kind: Some(spec.kind), stable: spec.stable, path });
        }
    } else if let Some(spec) = pack.claim(&path) {
        return Some(KnownClaim { kind: Some(spec.kind), stable: spec.stable, path });
    } else if pack.pack().open && !is_within_a_value(pack, &path) {
        return Some(KnownClaim { path, kind: None, stable: Stability::Stable });
    }
    let claims = pack.claims().iter().map(|spec| claim_path::show(spec.path));
    let derived = pack.derived_all().map(|spec| spec.name.to_owned());
    let known: Vec<String> = claims.chain(derived).collect();
    findings.add(
        place,
        Code::UnknownClaim,
        format!("tokens of `{}` have no claim `{text}`", issuer.name),
        "a condition on a claim that is never there would never hold",
        match suggest::closest(text, known.iter().map(String::as_str)) {
            Some(close) => format!("did you mean `{close}`?"),
            None => format!("the pack `{}` knows {}", pack.name(), comparable(pack)),
        },
    );
    None
}

/// Whether the path goes on behind a claim that is no structure.
fn is_within_a_value(pack: PackKind, path: &[String]) -> bool {
    let before = (1..path.len()).filter_map(|length| path.get(..length));
    before.filter_map(|path| pack.claim(path)).any(|spec| spec.kind != ClaimKind::Structure)
}

fn reserved(claim: &str) -> Option<&'static str> {
    match claim {
        "iss" => Some("`issuer` of the TrustedIssuer"),
        "aud" => Some("`audience` of the Guard"),
        "exp" | "nbf" | "iat" => Some("the filter's clock"),
        _ => None,
    }
}

fn comparable(pack: PackKind) -> String {
    let claims = pack
        .claims()
        .iter()
        .filter(|spec| !matches!(spec.kind, ClaimKind::Structure | ClaimKind::StringOrStrings))
        .map(|spec| claim_path::show(spec.path))
        .filter(|name| reserved(name).is_none());
    let names: Vec<String> = claims.chain(pack.derived_all().map(|spec| spec.name.to_owned())).collect();
    suggest::list(names.iter().map(String::as_str))
}

/// What a claim of this kind is compared with, any of these; `None` as kind: not known, so by the value's own type.
fn check_value(
    place: &Place<'_>,
    name: &str,
    value: &ClaimValueSpec,
    kind: Option<ClaimKind>,
    findings: &mut Findings,
) -> Option<Vec<ClaimTest>> {
    let mut wrong = |is: &str, fix: String| {
        refuse_type(place, name, is, &describe(value), fix, findings);
        None
    };
    match (kind, value) {
        (Some(ClaimKind::Structure | ClaimKind::StringOrStrings), _) => {
            wrong("a structure", "compare another claim".to_owned())
        }
        (Some(ClaimKind::Integer) | None, ClaimValueSpec::Integer(integer)) => {
            Some(vec![ClaimTest::Integer(*integer)])
        }
        (Some(ClaimKind::Integer), _) => wrong("a number", "write a whole number, without quotes".to_owned()),
        (Some(ClaimKind::Boolean) | None, ClaimValueSpec::Boolean(boolean)) => {
            Some(vec![ClaimTest::Boolean(*boolean)])
        }
        (Some(ClaimKind::Boolean), _) => {
            wrong("a boolean", "write `true` or `false`, without quotes".to_owned())
        }
        (Some(ClaimKind::BooleanString), ClaimValueSpec::String(text))
            if text == "true" || text == "false" =>
        {
            Some(vec![ClaimTest::OneOf(BTreeSet::from([text.clone()]))])
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
        (_, ClaimValueSpec::String(text)) => {
            check_string(place, name, text, kind, findings).then(|| tests(kind, [text.clone()]))
        }
        (_, ClaimValueSpec::OneOf(texts)) => {
            not_empty(place, texts, findings);
            let mut checked = BTreeSet::new();
            for (index, text) in texts.iter().enumerate() {
                let place = place.index(index);
                if check_string(&place, name, text, kind, findings) && !checked.insert(text.clone()) {
                    repeated(&place, text, findings);
                }
            }
            (!checked.is_empty()).then(|| tests(kind, checked))
        }
    }
}

fn tests(kind: Option<ClaimKind>, texts: impl IntoIterator<Item = String>) -> Vec<ClaimTest> {
    match kind {
        Some(ClaimKind::Strings) => texts.into_iter().map(ClaimTest::Contains).collect(),
        _ => vec![ClaimTest::OneOf(texts.into_iter().collect())],
    }
}

/// A text that a claim of this kind can have.
pub(crate) fn check_string(
    place: &Place<'_>,
    name: &str,
    text: &str,
    kind: Option<ClaimKind>,
    findings: &mut Findings,
) -> bool {
    if !check_exact(place, text, findings) {
        return false;
    }
    let (is, fix) = match kind {
        Some(ClaimKind::Digits) if !text.bytes().all(|byte| byte.is_ascii_digit()) => {
            ("a string of digits", "write the numeric id, in quotes")
        }
        Some(ClaimKind::Guid) if !syntax::is_guid(text) => {
            ("an id of the form `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`", "write it so, in lower case")
        }
        _ => return true,
    };
    refuse_type(place, name, is, &format!("the string `{text}`"), fix.to_owned(), findings);
    false
}

fn refuse_type(place: &Place<'_>, name: &str, is: &str, value: &str, fix: String, findings: &mut Findings) {
    findings.add(
        place,
        Code::ClaimType,
        format!("`{name}` is {is}, and is compared with {value}"),
        "a comparison of different types never holds",
        fix,
    );
}

fn describe(value: &ClaimValueSpec) -> String {
    match value {
        ClaimValueSpec::String(text) => format!("the string `{text}`"),
        ClaimValueSpec::Integer(integer) => format!("the number `{integer}`"),
        ClaimValueSpec::Boolean(boolean) => format!("the boolean `{boolean}`"),
        ClaimValueSpec::OneOf(_) => "a list of strings".to_owned(),
    }
}
