//! `entra`: applications, managed identities, people and agents of Microsoft Entra ID.

use super::{contains_any, empty, exact_list, malformed};
use crate::demand::{ClaimTest, Demand, Demands};
use crate::diagnostic::Code;
use crate::issuers::TrustedIssuer;
use crate::place::{Findings, Place};
use crate::spec::EntraSpec;
use crate::syntax;

pub(super) fn check(
    place: &Place<'_>,
    spec: &EntraSpec,
    human_in_loop: Option<bool>,
    issuer: &TrustedIssuer,
    demands: &mut Demands,
    findings: &mut Findings,
) {
    let EntraSpec { tenant, app, object, app_only, roles, groups, scopes, agent } = spec;
    let nothing = tenant.is_none()
        && app.is_none()
        && object.is_none()
        && app_only.is_none()
        && roles.is_none()
        && groups.is_none()
        && scopes.is_none()
        && agent.is_none();
    if nothing {
        empty(place, findings);
    }
    let ids = [
        ("tenant", tenant, "@tenant", "the id of a tenant"),
        ("app", app, "@client", "the client id of an application"),
        ("object", object, "oid", "the object id of a service principal or user"),
    ];
    for (field, id, claim, what) in ids {
        let Some(id) = id else { continue };
        check_id(&place.key(field), id, what, findings);
        demands.add(Demand::is(&[claim], id));
    }
    if let Some(tenant) = tenant
        && syntax::is_guid(tenant)
        && !issuer.issuers.iter().any(|name| name.split('/').any(|part| part == tenant))
    {
        let why = "tokens name their tenant in `iss`, and the TrustedIssuer has none of this one";
        let fix = "correct the id, or add the tenant to `issuers` of the TrustedIssuer";
        let what = format!("a tenant of `{}`", issuer.name);
        malformed(&place.key("tenant"), tenant, &what, why, fix, findings);
    }
    for (field, value, claim) in [("appOnly", app_only, "@app_only"), ("agent", agent, "@agent")] {
        let Some(value) = value else { continue };
        if field == "appOnly" && *value && scopes.is_some() {
            findings.add(
                &place.key("scopes"),
                Code::MalformedValue,
                "an application that acts for itself has no scopes",
                "scopes are what a person consented to; the two conditions never hold together",
                "demand `roles`, or remove `appOnly`",
            );
        }
        demands.add(Demand::claim(&[claim], ClaimTest::Boolean(*value)));
    }
    if let Some(roles) = roles {
        let roles = exact_list(&place.key("roles"), roles, findings, |_, _, _| true);
        demands.add(contains_any(&["roles"], roles));
    }
    if let Some(groups) = groups {
        let groups = exact_list(&place.key("groups"), groups, findings, |place, id, findings| {
            check_id(place, id, "the object id of a group", findings)
        });
        demands.add(contains_any(&["@groups"], groups));
    }
    if let Some(scopes) = scopes {
        let scopes = exact_list(&place.key("scopes"), scopes, findings, |place, scope, findings| {
            let is_scope = !scope.contains(' ');
            if !is_scope {
                let why = "the token's scopes are separated by spaces";
                malformed(place, scope, "one scope", why, "write them as a list", findings);
            }
            is_scope
        });
        demands.add(contains_any(&["@scopes"], scopes));
    }
    let whose = app_only.is_some() || object.is_some() || scopes.is_some() || human_in_loop.is_some();
    if app.is_some() && !whose {
        findings.add(
            &place.key("app"),
            Code::WiderThanItLooks,
            "whoever signs in through the application matches as well",
            "tokens of people name the application that they use just as its own tokens do",
            "add `appOnly: true`, or for people `scopes`",
        );
    }
}

fn check_id(place: &Place<'_>, id: &str, what: &str, findings: &mut Findings) -> bool {
    let is_id = syntax::is_guid(id);
    if !is_id {
        let why = "names can be changed and taken by others; ids are compared byte for byte";
        malformed(place, id, what, why, "write the id, in lower case", findings);
    }
    is_id
}
