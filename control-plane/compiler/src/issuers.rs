//! `TrustedIssuer`: who may issue tokens, checked.
//!
//! Keys are described here, never fetched: whoever uses this crate fetches them.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_identity::issuer::{DEFAULT_SKEW_S, MAX_LIFETIME_S, MAX_SKEW_S};
use tidegate_identity::pack::another_party;
use tidegate_identity::{Algorithm, IssuerSetSpec, IssuerSpec, Jwk, PackKind, TokenHeader};

use crate::diagnostic::{Code, Related};
use crate::mesh::{check_namespace, not_empty};
use crate::objects::Object;
use crate::operation::repeated;
use crate::place::{Findings, Place};
use crate::spec::{HeaderSpec, KeysSpec, TrustedIssuerSpec};
use crate::suggest;
use crate::syntax;

/// Who may issue tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedIssuer {
    /// What rules call it; unique.
    pub name: String,
    /// The `iss` claim, exactly.
    pub issuer: String,
    /// What its tokens look like.
    pub pack: PackKind,
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
}

/// Where keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// The key set itself, as JSON; every key of it is fit.
    Inline(String),
    /// An https URL of the key set.
    Uri(String),
    /// From the issuer's `/.well-known/openid-configuration`.
    Discovery,
}

/// Checks all issuers; those that are wrong are left out, and known to be.
pub(crate) fn check(
    objects: &[Object<TrustedIssuerSpec>],
    findings: &mut Findings,
) -> BTreeMap<String, Option<TrustedIssuer>> {
    let mut issuers = BTreeMap::new();
    for object in objects {
        let before = findings.errors();
        let checked = check_one(object, findings);
        let name = object.source.id.name.clone();
        issuers.insert(name, checked.filter(|_| findings.errors() == before));
    }
    refuse_conflicts(objects, findings);
    issuers
}

fn check_one(object: &Object<TrustedIssuerSpec>, findings: &mut Findings) -> Option<TrustedIssuer> {
    let root = object.source.place();
    let place = root.key("spec");
    let spec = &object.spec;
    let before = findings.errors();
    check_url(&place.key("issuer"), &spec.issuer, findings);
    if matches!(
        spec.issuer.as_str(),
        "https://kubernetes.default.svc" | "https://kubernetes.default.svc.cluster.local"
    ) {
        findings.add(
            &place.key("issuer"),
            Code::AmbiguousIssuer,
            format!("`{}` is the issuer of every cluster that keeps the default", spec.issuer),
            "namespaces and accounts of another such cluster have the same names",
            "give the cluster an issuer of its own (`--service-account-issuer`)",
        );
    }
    let audiences =
        spec.audiences.as_ref().map(|list| check_audiences(&place.key("audiences"), list, findings));
    let skew_s = duration(&place.key("skew"), spec.skew.as_deref(), DEFAULT_SKEW_S, MAX_SKEW_S, findings);
    let keys = check_keys(&place.key("keys"), &spec.keys, findings);
    let headers = check_headers(&place.key("headers"), spec.headers.as_deref(), findings);
    if let Some(list) = &spec.allowed_namespaces {
        let place = place.key("allowedNamespaces");
        strings(&place, list, findings);
        for (index, namespace) in list.iter().enumerate() {
            check_namespace(&place.index(index), namespace, findings);
        }
    }
    let pack = check_pack(&place.key("pack"), &spec.pack, findings)?;
    let algorithms = check_algorithms(&place.key("algorithms"), spec.algorithms.as_deref(), pack, findings);
    if let Some(why) = pack.refuses_issuer(&spec.issuer) {
        findings.add(
            &place.key("pack"),
            Code::WrongPack,
            format!("the pack `{}` does not fit the issuer `{}`", pack.name(), spec.issuer),
            why,
            "correct `issuer` or `pack`",
        );
    }
    let max_lifetime_s = duration(
        &place.key("maxLifetime"),
        spec.max_lifetime.as_deref(),
        pack.pack().max_lifetime_s,
        MAX_LIFETIME_S,
        findings,
    );
    if spec.require_pod_binding.is_some() && pack != PackKind::Kubernetes {
        findings.add(
            &place.key("requirePodBinding"),
            Code::WrongPack,
            "`requirePodBinding` is for issuers of the pack `kubernetes`",
            format!("tokens of the pack `{}` name no pod", pack.name()),
            "remove it",
        );
    }
    let (keys, fixed) = keys?;
    let issuer = TrustedIssuer {
        name: object.source.id.name.clone(),
        issuer: spec.issuer.clone(),
        pack,
        audiences,
        algorithms,
        forward: spec.forward.unwrap_or_else(|| headers.iter().all(|header| header.name == "authorization")),
        headers,
        keys,
        max_lifetime_s,
        skew_s,
        require_pod_binding: spec.require_pod_binding.unwrap_or(true),
        allowed_namespaces: spec.allowed_namespaces.clone(),
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

fn check_headers(
    place: &Place<'_>,
    headers: Option<&[HeaderSpec]>,
    findings: &mut Findings,
) -> Vec<TokenHeader> {
    let Some(headers) = headers else { return vec![TokenHeader::authorization_bearer()] };
    not_empty(place, headers, findings);
    let mut checked: Vec<TokenHeader> = Vec::new();
    for (index, header) in headers.iter().enumerate() {
        let place = place.index(index);
        let name = header.name.to_ascii_lowercase();
        let well_formed =
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let refused = match name.as_str() {
            _ if !well_formed => {
                Some("it consists of letters, digits and dashes; servers disagree about the rest")
            }
            "host" | "cookie" | "content-type" | "content-length" | "transfer-encoding" | "connection"
            | "te" => Some("the header means something else"),
            _ if name.starts_with("x-tidegate-") || name.starts_with("x-envoy-") => {
                Some("such headers are the mesh's own, and removed before anything is decided")
            }
            _ => None,
        };
        if let Some(why) = refused {
            findings.add(
                &place.key("name"),
                Code::MalformedValue,
                format!("`{}` is not a header for tokens", header.name),
                why,
                "write `authorization`, or a header of your own such as `x-job-token`",
            );
        }
        match &header.prefix {
            Some(prefix) if !syntax::is_scheme(prefix) => findings.add(
                &place.key("prefix"),
                Code::MalformedValue,
                format!("`{prefix}` is not an authentication scheme"),
                "scheme and token are separated by one space, which is not part of the prefix",
                "write the scheme alone, e.g. `Bearer`",
            ),
            None if name == "authorization" => findings.add(
                &place.key("prefix"),
                Code::MissingField,
                "`prefix` is missing",
                "the value of `Authorization` begins with a scheme",
                "write `prefix: Bearer`",
            ),
            _ => {}
        }
        if checked.iter().any(|other| other.name == name) {
            findings.add(
                &place.key("name"),
                Code::MalformedValue,
                format!("`{name}` is there twice"),
                "a token has exactly one source",
                "keep one of them",
            );
        }
        checked.push(TokenHeader { name, prefix: header.prefix.clone() });
    }
    checked.sort_by(|a, b| a.name.cmp(&b.name));
    checked
}

/// Where keys come from, and those that are written down.
fn check_keys(place: &Place<'_>, spec: &KeysSpec, findings: &mut Findings) -> Option<(KeySource, Vec<Jwk>)> {
    match (&spec.jwks, &spec.jwks_uri, spec.discovery) {
        (Some(jwks), None, None) => check_jwks(&place.key("jwks"), jwks, findings),
        (None, Some(uri), None) => {
            check_url(&place.key("jwksUri"), uri, findings);
            Some((KeySource::Uri(uri.clone()), Vec::new()))
        }
        (None, None, Some(true)) => Some((KeySource::Discovery, Vec::new())),
        (None, None, Some(false)) => {
            findings.add(
                &place.key("discovery"),
                Code::MalformedValue,
                "`discovery: false` says nothing",
                "keys must come from somewhere",
                "write `true`, or `jwks` or `jwksUri` instead",
            );
            None
        }
        _ => {
            findings.add(
                place,
                Code::NotExactlyOne,
                "keys must come from exactly one place",
                "with several sources it would be open which keys count",
                "write one of `jwks`, `jwksUri` and `discovery: true`",
            );
            None
        }
    }
}

fn check_jwks(place: &Place<'_>, jwks: &str, findings: &mut Findings) -> Option<(KeySource, Vec<Jwk>)> {
    let mut refused = |message: String| {
        findings.add(
            place,
            Code::MalformedKeys,
            message,
            "keys that are written down must all be fit; none is left out silently",
            "write a JSON Web Key Set (RFC 7517) of RSA keys of 2048 bits or more, or P-256 keys, public parts only",
        );
        None
    };
    match tidegate_identity::keys::select(jwks) {
        Err(problem) => refused(problem.to_string()),
        Ok(selection) => match selection.refused.first() {
            Some((index, problem)) => refused(format!("key {index}: {problem}")),
            None if selection.keys.is_empty() => refused("the key set is empty".to_owned()),
            None => Some((KeySource::Inline(jwks.to_owned()), selection.keys)),
        },
    }
}

/// Strings that are not empty, each once.
pub(crate) fn strings(place: &Place<'_>, list: &[String], findings: &mut Findings) -> Vec<String> {
    not_empty(place, list, findings);
    let mut checked = BTreeSet::new();
    for (index, text) in list.iter().enumerate() {
        let place = place.index(index);
        check_text(&place, text, findings);
        if !checked.insert(text.clone()) {
            repeated(&place, text, findings);
        }
    }
    checked.into_iter().collect()
}

/// A string that can be compared: not empty, no control characters.
pub(crate) fn check_text(place: &Place<'_>, text: &str, findings: &mut Findings) {
    if text.is_empty() {
        findings.add(
            place,
            Code::EmptyValue,
            "the string is empty",
            "an empty string is neither \"any\" nor \"none\"",
            "write a value, or remove the field",
        );
    } else if !syntax::is_plain_text(text) {
        findings.add(
            place,
            Code::MalformedValue,
            "the string has control or invisible characters",
            "values with such characters are never accepted from tokens or requests",
            "remove them; a line break at the end comes from `|`",
        );
    }
}

fn duration(
    place: &Place<'_>,
    text: Option<&str>,
    default_s: u32,
    longest_s: u32,
    findings: &mut Findings,
) -> u32 {
    let Some(text) = text else { return default_s };
    let longest = syntax::show_duration(longest_s);
    match syntax::duration(text) {
        Some(seconds) if seconds <= longest_s => seconds,
        Some(_) => {
            findings.add(
                place,
                Code::MalformedValue,
                format!("`{text}` is longer than is accepted"),
                "what is stolen works for that long",
                format!("write `{longest}` or less"),
            );
            default_s
        }
        None => {
            findings.add(
                place,
                Code::MalformedValue,
                format!("`{text}` is not a duration"),
                "a duration is a whole number with a unit",
                format!("write `30s`, `15m` or `1h`; at most `{longest}`"),
            );
            default_s
        }
    }
}

/// Two issuers with the same `iss`: whose keys verify a token would be open.
fn refuse_conflicts(objects: &[Object<TrustedIssuerSpec>], findings: &mut Findings) {
    let mut seen: BTreeMap<&str, &Object<TrustedIssuerSpec>> = BTreeMap::new();
    for object in objects {
        let Some(other) = seen.insert(&object.spec.issuer, object) else { continue };
        if other.source.id == object.source.id {
            // The same object twice is reported as that.
            continue;
        }
        let place = other.source.place();
        let at = place.position();
        findings.add_related(
            &object.source.place().key("spec").key("issuer"),
            Code::IssuerConflict,
            format!("{} has the same `issuer`", other.source.id),
            "whose keys verify a token, and which rules it counts for, would be open",
            "keep one of them; one TrustedIssuer can have several headers and audiences",
            vec![Related {
                file: place.file().to_owned(),
                line: at.line,
                column: at.column,
                message: "the other one".to_owned(),
            }],
        );
    }
}

// === impl TrustedIssuer ===

impl TrustedIssuer {
    /// As it goes into a keys section, with the keys that are in force and until when (Unix seconds).
    pub fn spec(&self, keys: Vec<Jwk>, valid_until: i64) -> IssuerSpec {
        IssuerSpec {
            audiences: self.audiences.clone().unwrap_or_default(),
            algorithms: self.algorithms.clone(),
            headers: self.headers.clone(),
            forward: self.forward,
            allow_unbound: !self.require_pod_binding,
            max_lifetime_s: self.max_lifetime_s,
            skew_s: self.skew_s,
            valid_until,
            keys,
            ..IssuerSpec::new(&self.name, &self.issuer, self.pack)
        }
    }
}
