use serde_json::{Value, json};
use tidegate_engine::{ClaimValue, TokenFault};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{accepts, reads, refuses, string, strings};
use crate::pack::PackKind::Entra;
use crate::pack::golden::{entra, entra_app, with};

const TENANT: &str = "bbbbbbbb-0000-4000-8000-000000000002";
const OTHER: &str = "bbbbbbbb-0000-4000-8000-00000000000f";
const APP: &str = "cccccccc-0000-4000-8000-000000000003";

/// With these changes, where null removes.
fn bend(claims: &Value, changes: &Value) -> Value {
    changes.as_object().unwrap().iter().fold(claims.clone(), |claims, (name, value)| {
        with(&claims, &[name], (!value.is_null()).then(|| value.clone()))
    })
}

/// The vendor's table of agents.
fn agent_for_a_person() -> Value {
    bend(&entra(), &json!({"xms_act_fct": "11 9 3", "xms_sub_fct": "2 3", "xms_idrel": "1 8"}))
}

fn agent_on_its_own() -> Value {
    bend(
        &entra_app(),
        &json!({"xms_act_fct": "3 9 11", "xms_sub_fct": "9 3 11", "xms_tnt_fct": "3 9", "xms_idrel": "7 10", "scp": "/",
            "sub": "88888888-0000-4000-8000-000000000008"}),
    )
}

fn agent_through_its_user() -> Value {
    bend(&agent_for_a_person(), &json!({"xms_sub_fct": "13"}))
}

#[test]
fn accepts_both_versions_and_agents() {
    for claims in [entra(), entra_app(), agent_for_a_person(), agent_on_its_own(), agent_through_its_user()] {
        accepts(Entra, &claims);
        // The tenant is in the issuer already.
        accepts(Entra, &with(&claims, &["tid"], None));
        accepts(Entra, &with(&claims, &["idtyp"], None));
    }
}

#[test]
fn demands_that_version_and_tenant_agree_with_the_issuer() {
    for (claims, wrong) in [
        (entra(), json!({"ver": "1.0"})),
        (entra(), json!({"ver": "2"})),
        (entra(), json!({"tid": OTHER})),
        (entra_app(), json!({"ver": "2.0"})),
        (entra_app(), json!({"tid": OTHER})),
        (entra_app(), json!({"iss": entra()["iss"]})),
        (entra(), json!({"iss": format!("https://login.microsoftonline.com/{OTHER}/v2.0")})),
        (entra(), json!({"iss": format!("https://sts.windows.net/{TENANT}/")})),
    ] {
        refuses(Entra, &bend(&claims, &wrong), TokenFault::ClaimsContradict);
    }
    refuses(Entra, &bend(&entra(), &json!({"ver": 2})), TokenFault::ClaimMalformed);
    refuses(Entra, &bend(&entra(), &json!({"tid": TENANT.to_uppercase()})), TokenFault::ClaimMalformed);
    refuses(Entra, &bend(&entra(), &json!({"aud": ["a"]})), TokenFault::ClaimMalformed);
}

#[test]
fn refuses_id_tokens() {
    // They are for the client and name none.
    refuses(Entra, &bend(&entra(), &json!({"azp": null, "scp": null, "nonce": "n"})), TokenFault::WrongKind);
    refuses(Entra, &bend(&entra_app(), &json!({"appid": null})), TokenFault::WrongKind);
    // The other version's member does not count, and must not name another client.
    refuses(Entra, &bend(&entra(), &json!({"azp": null, "appid": APP})), TokenFault::WrongKind);
    accepts(Entra, &bend(&entra(), &json!({"appid": APP})));
    refuses(Entra, &bend(&entra(), &json!({"appid": OTHER})), TokenFault::ClaimsContradict);
}

#[test]
fn tells_applications_from_people() {
    let app_only = |claims: &Value| reads(Entra, claims, &["@app_only"]);
    assert_eq!(app_only(&entra()), ClaimValue::Boolean(false));
    assert_eq!(app_only(&entra_app()), ClaimValue::Boolean(true));
    assert_eq!(app_only(&bend(&entra_app(), &json!({"idtyp": null}))), ClaimValue::Unknown);
    assert_eq!(app_only(&bend(&entra(), &json!({"idtyp": "device"}))), ClaimValue::Boolean(false));
    assert_eq!(app_only(&bend(&entra(), &json!({"idtyp": "App"}))), ClaimValue::Unknown);
    // A person's scopes in an application's token.
    refuses(Entra, &bend(&entra_app(), &json!({"scp": "ledger.read"})), TokenFault::ClaimsContradict);
    for empty in ["", "/", " "] {
        let claims = bend(&entra_app(), &json!({"scp": empty}));
        assert_eq!(reads(Entra, &claims, &["@scopes"]), strings(&[]));
    }
    assert_eq!(reads(Entra, &entra(), &["@scopes"]), strings(&["ledger.read", "ledger.write"]));
    assert_eq!(reads(Entra, &entra_app(), &["@scopes"]), strings(&[]));
    assert_eq!(reads(Entra, &entra(), &["roles"]), strings(&["Ledger.Admin"]));
}

#[test]
fn names_tenant_client_and_subject_alike_in_both_versions() {
    for claims in [entra(), entra_app(), with(&entra(), &["tid"], None)] {
        assert_eq!(reads(Entra, &claims, &["@tenant"]), string(TENANT));
        assert_eq!(reads(Entra, &claims, &["@client"]), string(APP));
    }
    assert_eq!(reads(Entra, &entra(), &["@subject"]), string("dddddddd-0000-4000-8000-000000000004"));
    assert_eq!(
        reads(Entra, &bend(&entra(), &json!({"oid": null})), &["@subject"]),
        string("pairwise-opaque-value")
    );
}

#[test]
fn says_unknown_where_the_groups_are_elsewhere() {
    let groups = |changes: Value| {
        let claims = bend(&entra(), &changes);
        let (raw, derived) = (reads(Entra, &claims, &["groups"]), reads(Entra, &claims, &["@groups"]));
        assert_eq!(raw, derived, "{claims}");
        raw
    };
    let group = "eeeeeeee-0000-4000-8000-000000000005";
    let sources = json!({"src1": {"endpoint": "https://graph.windows.net/x/getMemberObjects"}});
    assert_eq!(groups(json!({})), strings(&[group]));
    // Not configured, or in no group.
    assert_eq!(groups(json!({"groups": null})), ClaimValue::Absent);
    let overage = json!({"groups": null, "_claim_names": {"groups": "src1"}, "_claim_sources": sources});
    assert_eq!(groups(overage), ClaimValue::Unknown);
    for marker in [json!(true), json!("true"), json!("1"), json!(1)] {
        assert_eq!(groups(json!({"groups": null, "hasgroups": marker})), ClaimValue::Unknown);
    }
    // Both: the list may not be all of it.
    assert_eq!(groups(json!({"hasgroups": true})), ClaimValue::Unknown);
    assert_eq!(groups(json!({"_claim_names": {"groups": "src1"}})), ClaimValue::Unknown);
    assert_eq!(groups(json!({"hasgroups": false})), strings(&[group]));
    assert_eq!(groups(json!({"_claim_names": {"roles": "src1"}})), strings(&[group]));
    refuses(Entra, &bend(&entra(), &json!({"hasgroups": "yes"})), TokenFault::ClaimMalformed);
}

#[test]
fn knows_agents_by_their_facets_in_any_order() {
    let agent = |claims: &Value| reads(Entra, claims, &["@agent"]);
    let human = |claims: &Value| reads(Entra, claims, &["@human_in_loop"]);
    let actor = |claims: &Value| reads(Entra, claims, &["@actor"]);
    let (yes, no) = (ClaimValue::Boolean(true), ClaimValue::Boolean(false));
    for (claims, is_agent, is_human) in [
        (bend(&entra(), &json!({"xms_act_fct": "99", "xms_sub_fct": "99"})), &no, &yes),
        (bend(&entra_app(), &json!({"xms_act_fct": "99"})), &no, &no),
        (agent_for_a_person(), &yes, &yes),
        (agent_on_its_own(), &yes, &no),
        (agent_through_its_user(), &yes, &no),
    ] {
        assert_eq!((&agent(&claims), &human(&claims)), (is_agent, is_human), "{claims}");
        let is_actor = if *is_agent == yes { string(APP) } else { ClaimValue::Absent };
        assert_eq!(actor(&claims), is_actor, "{claims}");
        let count = if *is_agent == yes { 1 } else { 0 };
        assert_eq!(reads(Entra, &claims, &["@actors"]), ClaimValue::Integer(count), "{claims}");
        assert_eq!(human(&with(&claims, &["idtyp"], None)), ClaimValue::Unknown, "{claims}");
    }
    // Facets are there only if the resource asks for them: without, nothing is known of a person's token.
    for claims in
        [entra(), bend(&entra(), &json!({"_claim_names": {"xms_act_fct": "s", "xms_sub_fct": "s"}}))]
    {
        for attribute in ["@agent", "@human_in_loop", "@actor", "@actor_chain", "@actors"] {
            assert_eq!(reads(Entra, &claims, &[attribute]), ClaimValue::Unknown, "{attribute}: {claims}");
        }
    }
    // An agent's own user would look the same.
    let actor_only = bend(&entra(), &json!({"xms_act_fct": "11"}));
    assert_eq!((agent(&actor_only), human(&actor_only)), (yes.clone(), ClaimValue::Unknown));
    assert_eq!((agent(&entra_app()), human(&entra_app())), (ClaimValue::Unknown, no.clone()));
    // 113 and 11 among others, in any order.
    for (facets, is_agent) in
        [("113", no.clone()), ("1 1", no.clone()), ("99 11", yes.clone()), ("11 99 3", yes)]
    {
        assert_eq!(agent(&bend(&entra(), &json!({"xms_act_fct": facets}))), is_agent, "{facets}");
    }
    let user = |facets: &str| human(&bend(&entra(), &json!({"xms_sub_fct": facets})));
    assert_eq!(user("3 13 9"), no);
    assert_eq!(user("113 131"), ClaimValue::Boolean(true));
    for name in ["xms_act_fct", "xms_sub_fct", "xms_tnt_fct", "xms_idrel"] {
        for wrong in ["11,13", "eleven", "-11", "11\u{a0}13", "1.1"] {
            refuses(Entra, &bend(&entra(), &json!({name: wrong})), TokenFault::ClaimMalformed);
        }
        accepts(Entra, &bend(&entra(), &json!({name: ""})));
    }
    // An agent that a chain of actors goes through.
    let chained = bend(&agent_for_a_person(), &json!({"act": {"sub": "proxy"}}));
    assert_eq!(actor(&chained), string(APP));
    assert_eq!(reads(Entra, &chained, &["@actor_chain"]), strings(&[APP, "proxy"]));
    assert_eq!(reads(Entra, &chained, &["@actors"]), ClaimValue::Integer(2));
}

#[test]
fn reads_the_verified_domain_in_both_spellings() {
    let verified = |value: Value| reads(Entra, &bend(&entra(), &json!({"xms_edov": value})), &["xms_edov"]);
    for spelling in [json!(true), json!("true"), json!("1"), json!(1)] {
        assert_eq!(verified(spelling), ClaimValue::Boolean(true));
    }
    for spelling in [json!(false), json!("false"), json!("0"), json!(0)] {
        assert_eq!(verified(spelling), ClaimValue::Boolean(false));
    }
    assert_eq!(verified(json!(null)), ClaimValue::Absent);
    for wrong in [json!("yes"), json!(2), json!(1.0), json!([true])] {
        refuses(Entra, &bend(&entra(), &json!({"xms_edov": wrong})), TokenFault::ClaimMalformed);
    }
}
