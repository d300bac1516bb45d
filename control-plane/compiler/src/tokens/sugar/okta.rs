//! `okta`: clients and users of an Okta authorization server.

use super::{contains_any, empty, exact_list, malformed};
use crate::demand::{Demand, Demands};
use crate::diagnostic::Code;
use crate::place::{Findings, Place};
use crate::spec::OktaSpec;
use crate::text::check_exact;

pub(super) fn check(
    place: &Place<'_>,
    spec: &OktaSpec,
    human_in_loop: Option<bool>,
    demands: &mut Demands,
    findings: &mut Findings,
) {
    let OktaSpec { client, user, scopes } = spec;
    if client.is_none() && user.is_none() && scopes.is_none() {
        empty(place, findings);
    }
    // Clients may have ids of the customer's choice.
    if let Some(client) = client
        && check_exact(&place.key("client"), client, findings)
    {
        demands.add(Demand::is(&["cid"], client));
    }
    if let Some(user) = user {
        if !(user.starts_with("00u") && user.bytes().all(|byte| byte.is_ascii_alphanumeric())) {
            let why = "logins and addresses can be given to somebody else";
            let fix = "write the id, which begins with `00u`";
            malformed(&place.key("user"), user, "the id of a user", why, fix, findings);
        }
        demands.add(Demand::is(&["uid"], user));
    }
    if let Some(scopes) = scopes {
        let scopes = exact_list(&place.key("scopes"), scopes, findings, |_, _, _| true);
        demands.add(contains_any(&["@scopes"], scopes));
    }
    if client.is_some() && user.is_none() && scopes.is_none() && human_in_loop.is_none() {
        findings.add(
            &place.key("client"),
            Code::WiderThanItLooks,
            "whoever signs in through the client matches as well",
            "tokens of people name the client that they use just as its own tokens do",
            "add `humanInLoop: false` beside `okta`, or for people `user` or `scopes`",
        );
    }
}
