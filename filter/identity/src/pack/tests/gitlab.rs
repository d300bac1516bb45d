use serde_json::{Value, json};
use tidegate_engine::{ClaimValue, TokenFault};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{accepts, reads, refuses, string, strings};
use crate::pack::PackKind::Gitlab;
use crate::pack::golden::{gitlab, with};

#[test]
fn types_its_claims() {
    let token = gitlab();
    for (name, wrong) in [
        ("ref_protected", json!(true)),
        ("ref_protected", json!("TRUE")),
        ("environment_protected", json!("1")),
        ("project_id", json!(20)),
        ("project_id", json!("data/orders")),
        ("job_project_id", json!(20)),
        ("runner_id", json!("1")),
        ("groups_direct", json!("a,b")),
    ] {
        refuses(Gitlab, &with(&token, &[name], Some(wrong)), TokenFault::ClaimMalformed);
    }
    // Branches may have any name, unless it hides something.
    accepts(Gitlab, &with(&token, &["ref"], Some(json!("größe/ü"))));
    refuses(Gitlab, &with(&token, &["ref"], Some(json!("main\u{200b}"))), TokenFault::ClaimMalformed);
    refuses(Gitlab, &with(&token, &["aud"], None), TokenFault::ClaimMissing);
}

#[test]
fn says_unknown_where_absence_says_nothing() {
    let groups =
        |value: Option<Value>| reads(Gitlab, &with(&gitlab(), &["groups_direct"], value), &["groups_direct"]);
    assert_eq!(groups(Some(json!(["data"]))), strings(&["data"]));
    assert_eq!(groups(Some(json!([]))), strings(&[]));
    assert_eq!(groups(None), ClaimValue::Unknown);
    assert_eq!(groups(Some(json!(null))), ClaimValue::Unknown);
    assert_eq!(reads(Gitlab, &with(&gitlab(), &["environment"], None), &["environment"]), ClaimValue::Absent);
    let null = with(&gitlab(), &["job_project_id"], Some(json!(null)));
    assert_eq!(reads(Gitlab, &null, &["job_project_id"]), ClaimValue::Absent);
}

#[test]
fn knows_forks_by_both_projects_and_by_the_pipeline() {
    let fork = |changes: &[(&str, Option<Value>)]| {
        let claims =
            changes.iter().fold(gitlab(), |claims, (name, value)| with(&claims, &[name], value.clone()));
        reads(Gitlab, &claims, &["@fork"])
    };
    let (yes, no) = (ClaimValue::Boolean(true), ClaimValue::Boolean(false));
    assert_eq!(fork(&[]), no);
    // A merge request of a fork that runs in the target project: `project_*` is the fork.
    assert_eq!(fork(&[("project_id", Some(json!("99")))]), yes);
    assert_eq!(
        fork(&[("project_id", Some(json!("99"))), ("pipeline_source", Some(json!("parent_pipeline")))]),
        yes
    );
    for source in ["merge_request_event", "external_pull_request_event"] {
        assert_eq!(fork(&[("pipeline_source", Some(json!(source)))]), yes);
        assert_eq!(fork(&[("pipeline_source", Some(json!(source))), ("job_project_id", None)]), yes);
    }
    for source in ["push", "web", "schedule", "api", "trigger", "pipeline"] {
        assert_eq!(fork(&[("pipeline_source", Some(json!(source)))]), no);
    }
    // Before 18.4.
    assert_eq!(fork(&[("job_project_id", None)]), ClaimValue::Unknown);
    assert_eq!(fork(&[("job_project_id", Some(json!(null)))]), ClaimValue::Unknown);
    assert_eq!(reads(Gitlab, &gitlab(), &["@human_in_loop"]), ClaimValue::Boolean(false));
    let subject = "project_path:data/orders:ref_type:branch:ref:main";
    assert_eq!(reads(Gitlab, &gitlab(), &["@subject"]), string(subject));
}
