//! Google service-account tokens and Compute Engine instance identity tokens
//! (<https://cloud.google.com/compute/docs/instances/verifying-instance-identity>).
//!
//! The same issuer and keys sign tokens of people. This pack accepts workloads only: a token with the
//! `google.compute_engine` object, which only the VM's metadata server gives, or one that a service account obtained
//! for itself. No token names a Dataflow job.

use tidegate_engine::{ClaimValue, TokenFault};

use super::claim::{claims, present, text};
use super::derived::{self, DerivedSpec, string};
use super::{ClaimKind, ClaimSpec, LifetimeFrom, Overage, Pack, SAME_ISSUER, TokenFacts};
use crate::json::{Object, Value};
use crate::keys::Algorithm;

const ISSUER: &str = "https://accounts.google.com";
const VM: [&str; 2] = ["google", "compute_engine"];

/// Whoever asks the metadata server says whether the machine is in the token: by default (`format=standard`) it is not.
const fn vm(path: &'static [&'static str], kind: ClaimKind) -> ClaimSpec {
    ClaimSpec::new(path, kind).overage(Overage::Beneath)
}

pub(super) static PACK: Pack = Pack {
    claims: claims![
        ClaimSpec::new(&["iss"], ClaimKind::Identifier).required(),
        // The number of the account.
        ClaimSpec::new(&["sub"], ClaimKind::Digits).required(),
        ClaimSpec::new(&["aud"], ClaimKind::Identifier).required(),
        ClaimSpec::new(&["azp"], ClaimKind::Identifier),
        // An account that is deleted and made again has the same address and another `sub`.
        ClaimSpec::new(&["email"], ClaimKind::Identifier).renameable(),
        ClaimSpec::new(&["email_verified"], ClaimKind::Boolean),
        ClaimSpec::new(&["hd"], ClaimKind::Identifier).renameable(),
        vm(&["google", "compute_engine", "project_id"], ClaimKind::Identifier),
        vm(&["google", "compute_engine", "project_number"], ClaimKind::Integer),
        vm(&["google", "compute_engine", "zone"], ClaimKind::Identifier),
        // 64 bits as a string.
        vm(&["google", "compute_engine", "instance_id"], ClaimKind::Digits),
        vm(&["google", "compute_engine", "instance_name"], ClaimKind::Identifier).renameable(),
        vm(&["google", "compute_engine", "instance_creation_timestamp"], ClaimKind::Integer),
        vm(&["google", "compute_engine", "instance_confidentiality"], ClaimKind::Integer),
        // Only with `licenses=TRUE`.
        vm(&["google", "compute_engine", "license_id"], ClaimKind::Strings).overage(Overage::Silent),
    ],
    derived: &[
        DerivedSpec::new("@region", ClaimKind::String, |claims| {
            region(claims).map_or(ClaimValue::Unknown, |region| string(Some(region)))
        }),
        DerivedSpec::new("@on_vm", ClaimKind::Boolean, |claims| ClaimValue::Boolean(present(claims, &VM))),
        derived::NO_HUMAN,
    ],
    open: false,
    types: &["jwt"],
    strict_header: false,
    algorithms: &[Algorithm::Rs256],
    max_lifetime_s: 3600,
    lifetime_from: LifetimeFrom::IssuedAt,
    token_id: None,
    single_audience: false,
    tenant: &[
        &["sub"],
        &["email"],
        &["google", "compute_engine", "project_id"],
        &["google", "compute_engine", "project_number"],
        &["google", "compute_engine", "instance_id"],
    ],
    shared: &[ISSUER],
    refuses_issuer: |issuer| {
        (issuer != ISSUER).then_some("the google pack is only for the issuer `https://accounts.google.com`")
    },
    key_may_sign: SAME_ISSUER,
    check,
};

fn check(token: &TokenFacts<'_>) -> Result<(), TokenFault> {
    let claim = |path: &[&str]| text(token.claims, path);
    let subject = claim(&["sub"]).ok_or(TokenFault::ClaimMissing)?;
    let on_vm = present(token.claims, &VM);
    let email = claim(&["email"]);
    // The authorized party is the account itself, by number or by address; of people's tokens it is an OAuth client.
    let by_itself = match claim(&["azp"]) {
        Some(party) => party == subject || Some(party) == email,
        None => on_vm,
    };
    let verified = token.claims.get("email_verified") == Some(&Value::Boolean(true));
    let of_account = email.is_none_or(|address| is_service_account(address) && verified);
    if !(by_itself && of_account) {
        return Err(TokenFault::WrongKind);
    }
    if on_vm { check_vm(token) } else { Ok(()) }
}

fn check_vm(token: &TokenFacts<'_>) -> Result<(), TokenFault> {
    let [google, vm] = VM;
    let machine = token.claims.get(google).and_then(Value::as_object).and_then(|object| object.get(vm));
    let machine = machine.and_then(Value::as_object).ok_or(TokenFault::ClaimMalformed)?;
    for name in ["project_id", "project_number", "zone", "instance_id", "instance_name"] {
        if machine.get(name).is_none() {
            return Err(TokenFault::ClaimMissing);
        }
    }
    let number = machine.get("project_number").and_then(Value::as_integer);
    if number.is_none_or(|number| number <= 0) || region(token.claims).is_none() {
        return Err(TokenFault::ClaimMalformed);
    }
    let created = machine.get("instance_creation_timestamp").and_then(Value::as_integer);
    if created.is_some_and(|created| created > token.issued_at.saturating_add(token.skew)) {
        return Err(TokenFault::ClaimsContradict);
    }
    Ok(())
}

/// The zone without its suffix: `europe-west4` of `europe-west4-b`.
fn region(claims: &Object) -> Option<&str> {
    let [google, vm] = VM;
    let (region, zone) = text(claims, &[google, vm, "zone"])?.rsplit_once('-')?;
    let (area, number) = region.split_once('-')?;
    let lower = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase());
    let numbered = number.ends_with(|c: char| c.is_ascii_digit())
        && number.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let suffix = !zone.is_empty() && zone.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (lower(area) && numbered && suffix).then_some(region)
}

/// `NAME@PROJECT.iam.gserviceaccount.com`, `NUMBER-compute@developer.gserviceaccount.com` and the like.
fn is_service_account(address: &str) -> bool {
    address.split_once('@').is_some_and(|(name, domain)| {
        !name.is_empty() && !domain.contains('@') && domain.ends_with(".gserviceaccount.com")
    })
}
