use serde_json::{Value, json};
use tidegate_engine::{ClaimValue, TokenFault};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{accepts, reads, refuses, string};
use crate::pack::PackKind::Github;
use crate::pack::golden::{github, with};

fn subject(sub: &str) -> Value {
    with(&github(), &["sub"], Some(json!(sub)))
}

#[test]
fn compares_both_formats_of_the_subject_with_the_repository() {
    for sub in [
        "repo:acme/orders:environment:production",
        "repo:acme/orders:ref:refs/heads/main",
        "repo:acme/orders:pull_request",
        "repo:acme/orders:environment:a%3Ab",
        "repo:acme/orders",
        "repo:acme@123/orders@456:ref:refs/heads/main",
        "repo:acme@123/orders@456",
        // Templates of the owner's.
        "repository_owner:acme:repository_visibility:private",
        "job_workflow_ref:acme/orders/.github/workflows/release.yml@refs/heads/main",
        "repository_id:456",
    ] {
        accepts(Github, &subject(sub));
    }
    for sub in [
        "repo:acme/other:ref:refs/heads/main",
        "repo:evil/orders:ref:refs/heads/main",
        "repo:acme/orders2:environment:production",
        "repo:acme:orders:ref:refs/heads/main",
        "repo:acme@123/orders@457:ref:refs/heads/main",
        "repo:acme@124/orders@456:ref:refs/heads/main",
        "repo:acme@123/orders:ref:refs/heads/main",
        "repo:acme/orders@456:ref:refs/heads/main",
        "repo:acme@456/orders@123:ref:refs/heads/main",
        "repo:ACME/orders:ref:refs/heads/main",
        "repo:",
        "repo::ref:refs/heads/main",
    ] {
        refuses(Github, &subject(sub), TokenFault::ClaimsContradict);
    }
}

#[test]
fn compares_the_repository_with_its_owner() {
    let repository = |name: &str| with(&subject("x"), &["repository"], Some(json!(name)));
    accepts(Github, &repository("acme/orders"));
    refuses(Github, &repository("evil/orders"), TokenFault::ClaimsContradict);
    for name in ["acme", "acme/", "/orders", "acme/orders/x", ""] {
        refuses(Github, &repository(name), TokenFault::ClaimMalformed);
    }
    for (name, wrong) in [
        ("repository_id", json!(456)),
        ("repository_id", json!("R_abc")),
        ("repository_owner_id", json!(123)),
        ("ref_protected", json!(true)),
        ("run_attempt", json!(1)),
        ("repo_property_regions", json!(["us-east-1"])),
        ("repo_property_pci", json!(true)),
        ("repo_property_", json!(1)),
    ] {
        refuses(Github, &with(&github(), &[name], Some(wrong)), TokenFault::ClaimMalformed);
    }
    // Another name.
    accepts(Github, &with(&github(), &["repo_properties"], Some(json!(true))));
    let property = ["repo_property_regions"];
    assert_eq!(reads(Github, &github(), &property), string("us-east-1,eu-west-1"));
}

#[test]
fn compares_an_enterprises_own_issuer_with_the_enterprise() {
    let with_issuer = |iss: &str| with(&github(), &["iss"], Some(json!(iss)));
    accepts(Github, &with_issuer("https://token.actions.githubusercontent.com/acme-inc"));
    accepts(Github, &with_issuer("https://ghes.example.com/_services/token"));
    let other = with_issuer("https://token.actions.githubusercontent.com/evil-inc");
    refuses(Github, &other, TokenFault::ClaimsContradict);
    accepts(Github, &with(&other, &["enterprise"], None));
}

#[test]
fn knows_pull_requests_by_event_and_by_ref() {
    let pull_request = |event: Option<&str>, head: &str, reference: &str| {
        let claims = with(&github(), &["event_name"], event.map(|event| json!(event)));
        let claims = with(&claims, &["head_ref"], Some(json!(head)));
        reads(Github, &with(&claims, &["ref"], Some(json!(reference))), &["@pull_request"])
    };
    let (main, yes) = ("refs/heads/main", ClaimValue::Boolean(true));
    for event in ["pull_request", "pull_request_target", "pull_request_review", "pull_request_review_comment"]
    {
        assert_eq!(pull_request(Some(event), "", main), yes, "{event}");
    }
    assert_eq!(pull_request(Some("push"), "", "refs/pull/27/merge"), yes);
    assert_eq!(pull_request(Some("push"), "fix", main), yes);
    assert_eq!(pull_request(None, "fix", main), yes);
    for event in ["push", "workflow_dispatch", "schedule", "release", "merge_group"] {
        assert_eq!(pull_request(Some(event), "", main), ClaimValue::Boolean(false), "{event}");
    }
    // What started it is not said.
    assert_eq!(pull_request(Some("workflow_run"), "", main), ClaimValue::Unknown);
    assert_eq!(pull_request(None, "", main), ClaimValue::Unknown);
    assert_eq!(reads(Github, &github(), &["@human_in_loop"]), ClaimValue::Boolean(false));
}
