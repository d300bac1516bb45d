//! Microsoft Entra ID access tokens, v1 and v2: of people through an application, of applications and managed
//! identities, and of agents (<https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference>).
//!
//! The resource's manifest decides on the version, not the endpoint that the client called. Addresses and names can be
//! set by another tenant's administrator. Above 200 groups `groups` is missing and the token says so; where it says the
//! list is to be fetched is never asked.

use tidegate_engine::{ClaimValue, TokenFault};

use super::claim::{claims, extract, is_elsewhere, is_guid, text};
use super::derived::{Actors, DerivedSpec, string, words};
use super::detect::Url;
use super::{ClaimKind, ClaimSpec, LifetimeFrom, Overage, Pack, PackKind, TokenFacts};
use crate::json::Object;
use crate::keys::Algorithm;

const fn id(path: &'static [&'static str]) -> ClaimSpec {
    ClaimSpec::new(path, ClaimKind::Guid)
}

const fn word(path: &'static [&'static str]) -> ClaimSpec {
    ClaimSpec::new(path, ClaimKind::String)
}

const fn name(path: &'static [&'static str]) -> ClaimSpec {
    ClaimSpec::new(path, ClaimKind::String).renameable()
}

const fn list(path: &'static [&'static str]) -> ClaimSpec {
    ClaimSpec::new(path, ClaimKind::Strings)
}

pub(super) static PACK: Pack = Pack {
    claims: claims![
        ClaimSpec::new(&["iss"], ClaimKind::Identifier).required(),
        // Another one per application; `oid` is the same in the whole tenant.
        ClaimSpec::new(&["sub"], ClaimKind::Identifier).required(),
        ClaimSpec::new(&["aud"], ClaimKind::Identifier).required(),
        ClaimSpec::new(&["ver"], ClaimKind::Identifier).required(),
        id(&["tid"]),
        id(&["oid"]),
        // The client: v1 and v2.
        id(&["appid"]),
        id(&["azp"]),
        // How it authenticated: `0` not at all, `1` by a secret, `2` by a certificate.
        word(&["appidacr"]),
        word(&["azpacr"]),
        // `app`, `user` or `device`; there if the resource asks for it.
        word(&["idtyp"]),
        // What a person consented to, separated by spaces.
        word(&["scp"]),
        list(&["roles"]),
        list(&["groups"]).overage(Overage::Marked("hasgroups")),
        list(&["wids"]),
        list(&["acrs"]).loose(),
        list(&["amr"]).loose(),
        ClaimSpec::new(&["hasgroups"], ClaimKind::Boolean).loose(),
        ClaimSpec::new(&["uti"], ClaimKind::Identifier),
        // 1 for a guest.
        ClaimSpec::new(&["acct"], ClaimKind::Integer),
        name(&["idp"]),
        name(&["email"]),
        name(&["upn"]),
        name(&["preferred_username"]),
        name(&["unique_name"]),
        name(&["name"]),
        // Whether `email` is of a domain that its tenant has proved to own. Seen as `true` and as `"1"`.
        ClaimSpec::new(&["xms_edov"], ClaimKind::Boolean).loose(),
        // The path of a managed identity, made of names.
        name(&["xms_mirid"]),
        // Numbers separated by spaces, in any order.
        word(&["xms_act_fct"]),
        word(&["xms_sub_fct"]),
        word(&["xms_tnt_fct"]),
        word(&["xms_idrel"]),
    ],
    derived: &[
        DerivedSpec::new("@tenant", ClaimKind::Guid, |claims| string(tenant(claims))),
        DerivedSpec::new("@client", ClaimKind::Guid, |claims| string(client(claims))),
        DerivedSpec::new("@app_only", ClaimKind::Boolean, app_only),
        DerivedSpec::new("@scopes", ClaimKind::Strings, |claims| words(scopes(claims))),
        DerivedSpec::new("@groups", ClaimKind::Strings, |claims| {
            extract(PackKind::Entra, claims, &["groups".to_owned()])
        }),
        DerivedSpec::new("@agent", ClaimKind::Boolean, |claims| {
            has_facet(claims, "xms_act_fct", AGENT).map_or(ClaimValue::Unknown, ClaimValue::Boolean)
        }),
        DerivedSpec::new("@subject", ClaimKind::String, |claims| {
            string(text(claims, &["oid"]).or_else(|| text(claims, &["sub"])))
        }),
        DerivedSpec::new("@actor", ClaimKind::String, |claims| {
            of_actors(claims, |actors| actors.outermost())
        }),
        DerivedSpec::new("@actor_chain", ClaimKind::Strings, |claims| {
            of_actors(claims, |actors| actors.chain())
        }),
        DerivedSpec::new("@actors", ClaimKind::Integer, |claims| of_actors(claims, |actors| actors.count())),
        DerivedSpec::new("@human_in_loop", ClaimKind::Boolean, human_in_loop),
    ],
    open: false,
    types: &["jwt"],
    strict_header: false,
    algorithms: &[Algorithm::Rs256],
    // 60 to 90 minutes, up to 28 hours with continuous access evaluation, 24 hours for managed identities.
    max_lifetime_s: 28 * 3600,
    lifetime_from: LifetimeFrom::NotBefore,
    token_id: Some(&["uti"]),
    single_audience: false,
    // Of the tenant of personal accounts, which everybody is in.
    tenant: &[&["oid"], &["sub"]],
    shared: &[CONSUMERS_V2, "https://sts.windows.net/9188040d-6c67-4c5b-b112-36a304b66dad/"],
    refuses_issuer,
    key_may_sign,
    check,
};

/// Microsoft's tenant of personal accounts.
pub(super) const CONSUMERS_V2: &str =
    "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0";

/// What a facet says of an actor or a subject. Others are to be ignored.
const AGENT: &str = "11";
const AGENT_USER: &str = "13";

const FACETS: [&str; 4] = ["xms_act_fct", "xms_sub_fct", "xms_tnt_fct", "xms_idrel"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// A tenant's issuer.
struct Authority<'i> {
    version: Version,
    host: &'i str,
    tenant: &'i str,
}

// === impl Authority ===

impl<'i> Authority<'i> {
    /// Of exactly one of the forms that tokens have. The tenant is not checked.
    fn parse(issuer: &'i str) -> Option<Self> {
        let url = Url::parse(issuer).filter(|url| url.scheme == "https")?;
        let (version, tenant) = match *url.segments().as_slice() {
            [tenant, "v2.0"] => (Version::V2, tenant),
            [tenant, ""] => (Version::V1, tenant),
            _ => return None,
        };
        let known = match version {
            Version::V1 => matches!(url.host, "sts.windows.net" | "sts.chinacloudapi.cn"),
            Version::V2 => {
                let domain = "login.partner.microsoftonline.cn";
                matches!(url.host, "login.microsoftonline.com" | "login.microsoftonline.us")
                    || url.host == domain
                    || url.host.strip_suffix(".ciamlogin.com") == Some(tenant)
            }
        };
        known.then_some(Self { version, host: url.host, tenant })
    }

    /// Whether a key that is published for `host` is one of this cloud's. The v1 issuer is the same in the global and
    /// in the US Government cloud, and v1 key sets have no `issuer`.
    fn is_of_cloud(&self, host: &str) -> bool {
        match self.host {
            "sts.windows.net" => {
                matches!(host, "sts.windows.net" | "login.microsoftonline.com" | "login.microsoftonline.us")
            }
            "sts.chinacloudapi.cn" => {
                matches!(host, "sts.chinacloudapi.cn" | "login.partner.microsoftonline.cn")
            }
            own => own == host,
        }
    }
}

fn refuses_issuer(issuer: &str) -> Option<&'static str> {
    match Authority::parse(issuer) {
        Some(authority) if is_guid(authority.tenant) => None,
        Some(_) => Some(
            "tokens name their tenant by its id, in lower case, whatever endpoint the client called; list the ids of \
             the tenants that you trust in `issuers` instead of `common`, `organizations`, `{tenantid}` or a domain",
        ),
        None => Some(
            "the entra pack is for `https://login.microsoftonline.com/TENANT-ID/v2.0` (v2 tokens, without a slash at \
             the end) and `https://sts.windows.net/TENANT-ID/` (v1 tokens, with one), and their national clouds",
        ),
    }
}

/// "Keys that have an issuer value like `https://login.microsoftonline.com/{tenantid}/v2.0` may be used with any matching
/// token issuer"; those that name a tenant "should only be used with exact match".
fn key_may_sign(key_issuer: &str, iss: &str) -> bool {
    let (Some(key), Some(token)) = (Authority::parse(key_issuer), Authority::parse(iss)) else {
        return key_issuer == iss;
    };
    let version = key.version == token.version || token.version == Version::V1;
    let tenant = key.tenant == token.tenant || (key.tenant == "{tenantid}" && is_guid(token.tenant));
    version && tenant && token.is_of_cloud(key.host)
}

fn check(token: &TokenFacts<'_>) -> Result<(), TokenFault> {
    let claim = |name: &'static str| text(token.claims, &[name]);
    let authority = Authority::parse(token.iss).ok_or(TokenFault::WrongKind)?;
    let (version, client, other) = match authority.version {
        Version::V1 => ("1.0", "appid", "azp"),
        Version::V2 => ("2.0", "azp", "appid"),
    };
    if claim("ver") != Some(version) || claim("tid").is_some_and(|tid| tid != authority.tenant) {
        return Err(TokenFault::ClaimsContradict);
    }
    // Id tokens, which are for the client itself, have neither.
    let Some(client) = claim(client) else { return Err(TokenFault::WrongKind) };
    if claim(other).is_some_and(|other| other != client) {
        return Err(TokenFault::ClaimsContradict);
    }
    // "Only included for user tokens"; those of agents may have an empty one.
    if claim("idtyp") == Some("app") && scopes(token.claims).is_some() {
        return Err(TokenFault::ClaimsContradict);
    }
    let is_number = |word: &str| word.bytes().all(|b| b.is_ascii_digit());
    if FACETS.iter().any(|name| !claim(name).unwrap_or_default().split(' ').all(is_number)) {
        return Err(TokenFault::ClaimMalformed);
    }
    Ok(())
}

fn tenant(claims: &Object) -> Option<&str> {
    Authority::parse(text(claims, &["iss"])?).map(|authority| authority.tenant)
}

fn client(claims: &Object) -> Option<&str> {
    text(claims, &["azp"]).or_else(|| text(claims, &["appid"]))
}

/// "Empty or `/` for app-only scenarios."
fn scopes(claims: &Object) -> Option<&str> {
    text(claims, &["scp"]).filter(|scopes| !scopes.bytes().all(|b| matches!(b, b'/' | b' ')))
}

/// `None`: the token does not say. Facets are optional claims, there only if the resource asks for them.
fn has_facet(claims: &Object, name: &'static str, facet: &str) -> Option<bool> {
    let facets = text(claims, &[name]).filter(|_| !is_elsewhere(claims, &[name]))?;
    Some(facets.split(' ').any(|own| own == facet))
}

/// "This claim is the most accurate way for an API to determine if a token is an app token or an app+user token."
fn app_only(claims: &Object) -> ClaimValue {
    match text(claims, &["idtyp"]) {
        Some("app") => ClaimValue::Boolean(true),
        Some("user" | "device") => ClaimValue::Boolean(false),
        _ => ClaimValue::Unknown,
    }
}

/// An agent also has users of its own: a token for one of them names a user, and nobody is there.
fn human_in_loop(claims: &Object) -> ClaimValue {
    match text(claims, &["idtyp"]) {
        // A person's token has the claim too where the resource asks for it.
        Some("user") => has_facet(claims, "xms_sub_fct", AGENT_USER)
            .map_or(ClaimValue::Unknown, |of_agent| ClaimValue::Boolean(!of_agent)),
        Some("app" | "device") => ClaimValue::Boolean(false),
        _ => ClaimValue::Unknown,
    }
}

/// An agent is the actor: it is the client and not, as other clients are, what a person uses.
fn of_actors<'c>(claims: &'c Object, what: fn(&Actors<'c>) -> ClaimValue) -> ClaimValue {
    let actors = Actors::of(claims);
    match has_facet(claims, "xms_act_fct", AGENT) {
        Some(true) => what(&actors.under(client(claims))),
        Some(false) => what(&actors),
        None => ClaimValue::Unknown,
    }
}
