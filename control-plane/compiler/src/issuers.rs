//! `TrustedIssuer`: who may issue tokens, checked.
//!
//! Keys are described here, never fetched: whoever uses this crate fetches them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidegate_identity::issuer::{DEFAULT_SKEW_S, MAX_ISS, MAX_LIFETIME_S, MAX_SKEW_S, Revoked};
use tidegate_identity::pack::another_party;
use tidegate_identity::{Algorithm, IssuerSetSpec, IssuerSpec, Jwk, PackKind, TokenHeader};

use crate::diagnostic::{Code, Related};
use crate::mesh::{check_namespace, not_empty};
use crate::objects::Object;
use crate::operation::repeated;
use crate::place::{Findings, Place};
use crate::spec::TrustedIssuerSpec;
use crate::suggest;
use crate::syntax;
use crate::text::{check_duration, strings};

mod headers;
mod keys;
mod terms;

/// The longest time between two reminders that keys should change.
const MAX_ROTATION_S: u32 = 3650 * 86_400;

/// Who may issue tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedIssuer {
    /// What rules call it; unique.
    pub name: String,
    /// The `iss` claim, exactly one of these; at least one. Of the pack `spiffe`: `spiffe://` and the trust domain.
    pub issuers: Vec<String>,
    /// What its tokens look like.
    pub pack: PackKind,
    /// Accepted `typ`, in lower case; empty: the pack's.
    pub token_types: Vec<String>,
    /// Whether a token may have only one audience.
    pub single_audience: bool,
    /// Whether tokens must be bound to the client's certificate.
    pub require_cnf: bool,
    /// The most that any Guard may accept; `None`: no ceiling.
    pub audiences: Option<Vec<String>>,
    /// Signature algorithms that are accepted; at least one.
    pub algorithms: Vec<Algorithm>,
    /// Where its tokens are; at least one.
    pub headers: Vec<TokenHeader>,
    /// Where its keys come from.
    pub keys: KeySource,
    /// The most that `exp - iat` may be, in seconds.
    pub max_lifetime_s: u32,
    /// How far clocks may differ, in seconds.
    pub skew_s: u32,
    /// Whether Kubernetes tokens must be bound to a pod.
    pub require_pod_binding: bool,
    /// Whose rules may use it; `None`: everybody's. The root namespace's always may.
    pub allowed_namespaces: Option<Vec<String>>,
    /// Whether the token goes on to the workload. Without a statement: from `authorization` yes, from other headers no.
    pub forward: bool,
    /// What is refused although it is signed and has not expired.
    pub revoked: Vec<Revoked>,
    /// From then on (Unix seconds) every token of it is refused.
    pub retire_at: Option<i64>,
    /// How often its keys are meant to change, in seconds. Nothing is refused when they do not.
    pub rotate_every_s: Option<u32>,
}

/// Where keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// The key set itself, as JSON; every key of it is fit.
    Inline(String),
    /// An https URL of the key set.
    Uri(String),
    /// From `/.well-known/openid-configuration` of this issuer, the first of [`TrustedIssuer::issuers`].
    Discovery(String),
}

/// Checks all issuers; those that are wrong are left out, and known to be.
pub(crate) fn check(
    objects: &[Arc<Object<TrustedIssuerSpec>>],
    now: Option<i64>,
    findings: &mut Findings,
) -> BTreeMap<String, Option<TrustedIssuer>> {
    let mut issuers = BTreeMap::new();
    for object in objects {
        let before = findings.errors();
        let checked = check_one(object, now, findings);
        let name = object.source.id.name.clone();
        issuers.insert(name, checked.filter(|_| findings.errors() == before));
    }
    refuse_conflicts(objects, findings);
    issuers
}

fn check_one(
    object: &Object<TrustedIssuerSpec>,
    now: Option<i64>,
    findings: &mut Findings,
) -> Option<TrustedIssuer> {
    let root = object.source.place();
    let place = root.key("spec");
    let spec = &object.spec;
    let before = findings.errors();
    let issuers = check_issuers(&place, spec, findings);
    let audiences =
        spec.audiences.as_ref().map(|list| check_audiences(&place.key("audiences"), list, findings));
    let skew_s = stolen(&place.key("skew"), spec.skew.as_deref(), MAX_SKEW_S, findings);
    let keys = keys::check(&place.key("keys"), &spec.keys, &issuers, findings);
    let headers = headers::check(&place.key("headers"), spec.headers.as_deref(), findings);
    if let Some(list) = &spec.allowed_namespaces {
        let place = place.key("allowedNamespaces");
        strings(&place, list, findings);
        for (index, namespace) in list.iter().enumerate() {
            check_namespace(&place.index(index), namespace, findings);
        }
    }
    let rotate_every_s = spec.rotate_every.as_deref().and_then(|text| {
        let why = "nobody is there to be reminded then";
        check_duration(&place.key("rotateEvery"), text, MAX_ROTATION_S, why, findings)
    });
    let retire_at =
        terms::check_retirement(&place.key("retireAfter"), spec.retire_after.as_deref(), now, findings);
    let pack = check_pack(&place.key("pack"), &spec.pack, findings)?;
    let algorithms = check_algorithms(&place.key("algorithms"), spec.algorithms.as_deref(), pack, findings);
    refuse_wrong_pack(&place, spec, &issuers, pack, findings);
    let max_lifetime_s =
        stolen(&place.key("maxLifetime"), spec.max_lifetime.as_deref(), MAX_LIFETIME_S, findings);
    let token_types = terms::check_types(&place.key("tokenTypes"), spec.token_types.as_deref(), findings);
    let revoked = terms::check_revoked(&place.key("revoked"), spec.revoked.as_ref(), pack, findings);
    let (keys, fixed) = keys?;
    let issuer = TrustedIssuer {
        name: object.source.id.name.clone(),
        issuers,
        pack,
        token_types,
        single_audience: spec.single_audience.unwrap_or(pack.pack().single_audience),
        require_cnf: spec.require_cnf.unwrap_or(false),
        audiences,
        algorithms,
        forward: spec.forward.unwrap_or_else(|| headers.iter().all(|header| header.name == "authorization")),
        headers,
        keys,
        max_lifetime_s: max_lifetime_s.unwrap_or(pack.pack().max_lifetime_s),
        skew_s: skew_s.unwrap_or(DEFAULT_SKEW_S),
        require_pod_binding: spec.require_pod_binding.unwrap_or(true),
        allowed_namespaces: spec.allowed_namespaces.clone(),
        revoked,
        retire_at,
        rotate_every_s,
    };
    // What filters would refuse is refused here, whatever the checks above may have missed.
    if findings.errors() == before
        && let Err(problem) = IssuerSetSpec::new(vec![issuer.spec(fixed, 0)]).encode()
    {
        findings.add(
            &place,
            Code::MalformedValue,
            format!("filters would refuse this issuer: {problem}"),
            "what cannot be delivered cannot be enforced",
            "correct the field that it names",
        );
    }
    Some(issuer)
}

/// A duration for which stolen tokens work.
fn stolen(place: &Place<'_>, text: Option<&str>, longest_s: u32, findings: &mut Findings) -> Option<u32> {
    check_duration(place, text?, longest_s, "what is stolen works for that long", findings)
}

/// What tokens may have as `iss`, each once, in the order in which it is written.
fn check_issuers(place: &Place<'_>, spec: &TrustedIssuerSpec, findings: &mut Findings) -> Vec<String> {
    let list = place.key("issuers");
    match (&spec.issuer, &spec.issuers) {
        (Some(issuer), None) => {
            check_issuer(&place.key("issuer"), issuer, &spec.pack, findings);
            vec![issuer.clone()]
        }
        (None, Some(issuers)) => {
            not_empty(&list, issuers, findings);
            if issuers.len() > MAX_ISS {
                findings.add(
                    &list,
                    Code::MalformedValue,
                    format!("{} issuers are more than filters accept", issuers.len()),
                    "every token is compared with all of them",
                    format!("write at most {MAX_ISS}, or several TrustedIssuers"),
                );
            }
            if spec.pack == PackKind::Spiffe.name() && issuers.len() > 1 {
                findings.add(
                    &list,
                    Code::MalformedValue,
                    "a TrustedIssuer of the pack `spiffe` is one trust domain",
                    "a trust domain's keys verify its own ids only",
                    "write a TrustedIssuer for each of them",
                );
            }
            let mut checked: Vec<String> = Vec::new();
            for (index, issuer) in issuers.iter().enumerate() {
                let place = list.index(index);
                check_issuer(&place, issuer, &spec.pack, findings);
                if checked.contains(issuer) {
                    repeated(&place, issuer, findings);
                } else {
                    checked.push(issuer.clone());
                }
            }
            checked
        }
        (None, None) | (Some(_), Some(_)) => {
            findings.add(
                place,
                Code::NotExactlyOne,
                "a TrustedIssuer has either `issuer` or `issuers`",
                "tokens say in `iss` whose they are, and that is compared byte for byte",
                "write `issuer`, or `issuers` where one issuer writes its name in several ways",
            );
            Vec::new()
        }
    }
}

fn check_issuer(place: &Place<'_>, issuer: &str, pack: &str, findings: &mut Findings) {
    // Trust domains are no URLs; the pack checks them.
    if pack != PackKind::Spiffe.name() {
        check_url(place, issuer, findings);
    }
    if matches!(issuer, "https://kubernetes.default.svc" | "https://kubernetes.default.svc.cluster.local") {
        findings.add(
            place,
            Code::AmbiguousIssuer,
            format!("`{issuer}` is the issuer of every cluster that keeps the default"),
            "namespaces and accounts of another such cluster have the same names",
            "give the cluster an issuer of its own (`--service-account-issuer`)",
        );
    }
}

/// What is written, and does not fit the pack.
fn refuse_wrong_pack(
    place: &Place<'_>,
    spec: &TrustedIssuerSpec,
    issuers: &[String],
    pack: PackKind,
    findings: &mut Findings,
) {
    for issuer in issuers {
        if let Some(why) = pack.refuses_issuer(issuer) {
            findings.add(
                &place.key("pack"),
                Code::WrongPack,
                format!("the pack `{}` does not fit the issuer `{issuer}`", pack.name()),
                why,
                "correct `issuer` or `pack`",
            );
        } else if pack == PackKind::Generic
            && let Some(known) = PackKind::detect(issuer)
            && known != pack
        {
            findings.add(
                &place.key("pack"),
                Code::WrongPack,
                format!("`{issuer}` is an issuer of the pack `{}`", known.name()),
                "the pack `generic` knows neither its kinds of tokens nor which of its claims can be trusted",
                format!("use `pack: {}`", known.name()),
            );
        }
    }
    if spec.require_pod_binding.is_some() && pack != PackKind::Kubernetes {
        findings.add(
            &place.key("requirePodBinding"),
            Code::WrongPack,
            "`requirePodBinding` is for issuers of the pack `kubernetes`",
            format!("tokens of the pack `{}` name no pod", pack.name()),
            "remove it",
        );
    }
    if spec.token_types.is_some() && pack != PackKind::Generic {
        findings.add(
            &place.key("tokenTypes"),
            Code::WrongPack,
            "`tokenTypes` is for issuers of the pack `generic`",
            format!("of the tokens of the pack `{}` it is known which types they have", pack.name()),
            "remove it",
        );
    }
}

/// Audiences: each once, printable, and none that belongs to a known other party.
pub(crate) fn check_audiences(place: &Place<'_>, list: &[String], findings: &mut Findings) -> Vec<String> {
    for (index, audience) in list.iter().enumerate() {
        check_audience(&place.index(index), audience, findings);
    }
    strings(place, list, findings)
}

/// An audience that is for us.
pub(crate) fn check_audience(place: &Place<'_>, audience: &str, findings: &mut Findings) {
    if let Some(party) = another_party(audience) {
        findings.add(
            place,
            Code::MalformedValue,
            format!("tokens for `{audience}` are meant for {party}"),
            "such a token is somebody's credential there; who presents it here has got it by mistake or by theft",
            "choose an audience of your own, e.g. the URL of the service",
        );
    } else if !audience.bytes().all(|byte| byte.is_ascii_graphic()) {
        findings.add(
            place,
            Code::MalformedValue,
            format!("`{}` is not an audience", audience.escape_debug()),
            "audiences are compared byte for byte and have no spaces",
            "write a URL or a name, in printable ASCII",
        );
    }
}

fn check_url(place: &Place<'_>, url: &str, findings: &mut Findings) {
    if !syntax::is_https_url(url) {
        findings.add(
            place,
            Code::MalformedValue,
            format!("`{url}` is not an https URL"),
            "keys and issuers are only as good as the connection that vouches for them",
            "write `https://`, a host and perhaps a path, without user, query and fragment",
        );
    }
}

fn check_pack(place: &Place<'_>, name: &str, findings: &mut Findings) -> Option<PackKind> {
    if let Some(pack) = PackKind::from_name(name) {
        return Some(pack);
    }
    let known = PackKind::ALL.map(PackKind::name);
    findings.add(
        place,
        Code::UnknownValue,
        format!("`{name}` is not a pack of this version"),
        "a pack says which claims there are and what they prove",
        match suggest::closest(name, known) {
            Some(close) => format!("did you mean `{close}`?"),
            None => format!("write one of {}", suggest::list(known)),
        },
    );
    None
}

fn check_algorithms(
    place: &Place<'_>,
    names: Option<&[String]>,
    pack: PackKind,
    findings: &mut Findings,
) -> Vec<Algorithm> {
    let Some(names) = names else { return pack.pack().algorithms.to_vec() };
    not_empty(place, names, findings);
    let mut algorithms = BTreeSet::new();
    for (index, name) in names.iter().enumerate() {
        match Algorithm::from_name(name) {
            Some(algorithm) => {
                if !algorithms.insert(algorithm) {
                    repeated(&place.index(index), name, findings);
                }
            }
            None => findings.add(
                &place.index(index),
                Code::UnknownValue,
                format!("`{name}` is not an algorithm that is accepted"),
                "only asymmetric signatures prove who signed",
                format!("write one of {}", suggest::list(Algorithm::ALL.map(Algorithm::name))),
            ),
        }
    }
    algorithms.into_iter().collect()
}

/// Two issuers with the same `iss`: whose keys verify a token would be open.
fn refuse_conflicts(objects: &[Arc<Object<TrustedIssuerSpec>>], findings: &mut Findings) {
    let mut seen: BTreeMap<&str, &Object<TrustedIssuerSpec>> = BTreeMap::new();
    for object in objects {
        let root = object.source.place();
        let spec = root.key("spec");
        let list = spec.key("issuers");
        let one = object.spec.issuer.as_deref().map(|issuer| (spec.key("issuer"), issuer));
        let many = object.spec.issuers.iter().flatten().enumerate();
        let many = many.map(|(index, issuer)| (list.index(index), issuer.as_str()));
        for (place, issuer) in one.into_iter().chain(many) {
            let Some(other) = seen.insert(issuer, object) else { continue };
            if other.source.id == object.source.id {
                // The same object, or the same issuer in one object, twice is reported as that.
                continue;
            }
            let other_place = other.source.place();
            let at = other_place.position();
            findings.add_related(
                &place,
                Code::IssuerConflict,
                format!("{} has the same `issuer`", other.source.id),
                "whose keys verify a token, and which rules it counts for, would be open",
                "keep one of them; one TrustedIssuer can have several headers and audiences",
                vec![Related {
                    file: other_place.file().to_owned(),
                    line: at.line,
                    column: at.column,
                    message: "the other one".to_owned(),
                }],
            );
        }
    }
}

// === impl TrustedIssuer ===

impl TrustedIssuer {
    /// As it goes into a keys section, with the keys that are in force and until when (Unix seconds).
    pub fn spec(&self, keys: Vec<Jwk>, valid_until: i64) -> IssuerSpec {
        IssuerSpec {
            name: self.name.clone(),
            iss: self.issuers.clone(),
            pack: self.pack,
            types: self.token_types.clone(),
            audiences: self.audiences.clone().unwrap_or_default(),
            single_audience: self.single_audience,
            require_cnf: self.require_cnf,
            algorithms: self.algorithms.clone(),
            headers: self.headers.clone(),
            forward: self.forward,
            allow_unbound: !self.require_pod_binding,
            max_lifetime_s: self.max_lifetime_s,
            skew_s: self.skew_s,
            retire_at: self.retire_at.unwrap_or(0),
            revoked: self.revoked.clone(),
            valid_until,
            keys,
        }
    }
}
