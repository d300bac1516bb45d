use serde_json::{Value, json};
use tidegate_engine::{ClaimValue, TokenFault};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{accepts, reads, refuses, string};
use crate::pack::PackKind::Google;
use crate::pack::golden::{ISSUED, google, with};

/// Without the machine: `format=standard`, or `generateIdToken`.
fn account() -> Value {
    with(&google(), &["google"], None)
}

#[test]
fn accepts_workloads_and_nobody_else() {
    let vm = google();
    let account = account();
    accepts(Google, &vm);
    accepts(Google, &account);
    // Without the address, and with the address as the authorized party.
    let nameless = with(&account, &["email"], None);
    accepts(Google, &nameless);
    accepts(Google, &with(&nameless, &["email_verified"], None));
    accepts(Google, &with(&account, &["azp"], Some(account["email"].clone())));
    accepts(Google, &with(&vm, &["azp"], None));
    // `organizationNumberIncluded`: an object without a machine, and null where there is no organisation.
    accepts(Google, &with(&account, &["google"], Some(json!({"organization_number": null}))));

    let client = json!("1234-abc.apps.googleusercontent.com");
    for person in [
        with(&account, &["azp"], Some(client.clone())),
        with(&vm, &["azp"], Some(client)),
        with(&account, &["azp"], None),
        with(&account, &["azp"], Some(json!("100000000000000000002"))),
        with(&account, &["email"], Some(json!("sam@example.com"))),
        with(&account, &["email"], Some(json!("sam@gserviceaccount.com"))),
        with(&account, &["email"], Some(json!("sam@evil.example/x.gserviceaccount.com@gmail.com"))),
        with(&account, &["email"], Some(json!("a@b@c.gserviceaccount.com"))),
        with(&account, &["email_verified"], Some(json!(false))),
        with(&account, &["email_verified"], None),
    ] {
        refuses(Google, &person, TokenFault::WrongKind);
    }
}

#[test]
fn checks_the_machine() {
    let vm = google();
    let at = |name: &'static str| ["google", "compute_engine", name];
    for optional in ["instance_creation_timestamp", "instance_confidentiality", "license_id"] {
        accepts(Google, &with(&vm, &at(optional), None));
    }
    for (name, wrong) in [
        ("project_number", json!(123_456_789_012.0)),
        ("project_number", json!("123456789012")),
        ("project_number", json!(0)),
        ("project_number", json!(-1)),
        ("instance_id", json!(4_570_000_000_000_000_001_i64)),
        ("instance_id", json!("i-457")),
        ("zone", json!("europe")),
        ("zone", json!("europe-west4")),
        ("zone", json!("europe-west4-")),
        ("zone", json!("-west4-b")),
        ("zone", json!("projects/1/zones/europe-west4-b")),
        ("zone", json!("Europe-west4-b")),
    ] {
        refuses(Google, &with(&vm, &at(name), Some(wrong)), TokenFault::ClaimMalformed);
    }
    refuses(Google, &with(&vm, &["google", "compute_engine"], Some(json!([]))), TokenFault::ClaimMalformed);
    refuses(Google, &with(&vm, &["google", "compute_engine"], Some(json!({}))), TokenFault::ClaimMissing);
    let created = |seconds: i64| with(&vm, &at("instance_creation_timestamp"), Some(json!(ISSUED + seconds)));
    accepts(Google, &created(30));
    refuses(Google, &created(31), TokenFault::ClaimsContradict);
}

#[test]
fn derives_the_region_from_the_zone() {
    let vm = google();
    for (zone, region) in [
        ("europe-west4-b", "europe-west4"),
        ("us-central1-a", "us-central1"),
        ("northamerica-northeast2-c", "northamerica-northeast2"),
        ("us-central1-ai1a", "us-central1"),
    ] {
        let claims = with(&vm, &["google", "compute_engine", "zone"], Some(json!(zone)));
        assert_eq!(reads(Google, &claims, &["@region"]), string(region));
    }
    assert_eq!(reads(Google, &vm, &["@on_vm"]), ClaimValue::Boolean(true));
    // Whoever asks for a thinner token does not thereby leave the machine or region that a Deny names.
    for path in [&["@region"][..], &["google", "compute_engine", "instance_id"]] {
        assert_eq!(reads(Google, &account(), path), ClaimValue::Unknown, "{path:?}");
    }
    assert_eq!(reads(Google, &account(), &["@on_vm"]), ClaimValue::Boolean(false));
    assert_eq!(reads(Google, &vm, &["@human_in_loop"]), ClaimValue::Boolean(false));
    assert_eq!(reads(Google, &vm, &["@subject"]), string("100000000000000000001"));
}

/// A caller that asks for `format=standard` must not get around what is denied to its machine.
#[test]
fn knows_nothing_of_a_machine_that_the_token_leaves_out() {
    let vm = google();
    let organisation = with(&account(), &["google"], Some(json!({"organization_number": 1})));
    for name in [
        "project_id",
        "project_number",
        "zone",
        "instance_id",
        "instance_name",
        "instance_creation_timestamp",
        "instance_confidentiality",
        "license_id",
    ] {
        let path = ["google", "compute_engine", name];
        for claims in [account(), organisation.clone()] {
            assert_eq!(reads(Google, &claims, &path), ClaimValue::Unknown, "{name}: {claims}");
        }
        assert!(!matches!(reads(Google, &vm, &path), ClaimValue::Unknown | ClaimValue::Absent), "{name}");
    }
    // Where the machine is told, what it has not is absent; licences are told only to who asks for them.
    let without = |name: &'static str| {
        let path = ["google", "compute_engine", name];
        reads(Google, &with(&vm, &path, None), &path)
    };
    assert_eq!(without("instance_confidentiality"), ClaimValue::Absent);
    assert_eq!(without("license_id"), ClaimValue::Unknown);
    assert_eq!(reads(Google, &with(&vm, &["hd"], None), &["hd"]), ClaimValue::Absent);
}
