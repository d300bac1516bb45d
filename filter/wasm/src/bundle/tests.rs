use tidegate_identity::PureRust;

use super::*;
use crate::testing::*;

fn trust(keys: &[(String, PublicKey)]) -> Trust<'_> {
    Trust { workload: WORKLOAD, keys, enforced: None, lacks_candidate: false, now: NOW }
}

fn refusal(signed: &pb::SignedManifest, change: impl FnOnce(&mut Trust<'_>)) -> NackReason {
    let keys = trusted();
    let mut trust = trust(&keys);
    change(&mut trust);
    accept(signed, trust, &PureRust).expect_err("the manifest must be refused").reason
}

fn changed(change: impl FnOnce(&mut pb::Manifest)) -> pb::SignedManifest {
    let mut manifest = manifest(5, &[rules_section()]);
    change(&mut manifest);
    signed(&manifest, 1, "k1")
}

#[test]
fn a_bundle_signed_by_any_trusted_key_is_installed() {
    let keys = trusted();
    for (seed, id) in [(1, "k1"), (2, "k2")] {
        let sections = vec![rules_section()];
        let bundle = pb::Bundle { manifest: Some(signed(&manifest(5, &sections), seed, id)), sections };
        let installed = Installed::from_bundle(&bundle, trust(&keys), &PureRust, None).unwrap().unwrap();
        assert_eq!(installed.manifest.revision, (1, 5));
        assert_eq!(installed.rules.unwrap().rule_count(), 1);
    }
}

#[test]
fn signatures_that_do_not_count_are_refused() {
    let good = changed(|_| {});
    let untrusted = [
        pb::SignedManifest { signatures: vec![], ..good.clone() },
        signed(&manifest(5, &[rules_section()]), 3, "k1"),
        signed(&manifest(5, &[rules_section()]), 1, "k2"),
        signed(&manifest(5, &[rules_section()]), 1, "unknown"),
        pb::SignedManifest { manifest: changed(|m| m.issued_at += 1).manifest, ..good.clone() },
    ];
    for (case, signed) in untrusted.iter().enumerate() {
        assert_eq!(refusal(signed, |_| {}), NackReason::BadSignature, "case {case}");
    }
    for position in 0..good.manifest.len() {
        let mut damaged = good.clone();
        damaged.manifest[position] ^= 1;
        assert_eq!(refusal(&damaged, |_| {}), NackReason::BadSignature, "byte {position}");
    }
    // A signature over the manifest without the context that says what it is.
    use p256::ecdsa::signature::Signer as _;
    let bare: p256::ecdsa::Signature = signing_key(1).sign(&good.manifest);
    let mut bare_signed = good;
    bare_signed.signatures[0].signature = bare.to_bytes().to_vec();
    assert_eq!(refusal(&bare_signed, |_| {}), NackReason::BadSignature);
}

/// "A filter that lacks one enforces it so, and both say so."
#[test]
fn what_it_cannot_do_is_told_and_no_reason_to_refuse() {
    let keys = trusted();
    let lacks = |used: &[&str]| {
        let signed = changed(|m| m.used_capabilities = used.iter().map(|&one| one.to_owned()).collect());
        accept(&signed, trust(&keys), &PureRust).unwrap().unwrap().lacks
    };
    assert_eq!(lacks(&[]), None);
    assert_eq!(lacks(&["rules/1", "leases/1"]), None);
    assert_eq!(lacks(&["rules/1", "time-travel/1"]).as_deref(), Some("time-travel/1"));
    let bodies = lacks(&[tidegate_proto::BODIES]);
    assert_eq!(bodies.is_none(), cfg!(feature = "bodies"));
}

#[test]
fn what_is_signed_but_not_for_here_or_now_is_refused() {
    use NackReason as R;
    let digest = sha256(b"other");
    let cases: Vec<(pb::SignedManifest, R)> = vec![
        (changed(|m| m.audience = "sales/other".into()), R::WrongAudience),
        (changed(|m| m.format_version = 2), R::MissingCapability),
        (changed(|m| m.required_capabilities = vec!["time-travel".into()]), R::MissingCapability),
        (changed(|m| m.revision = None), R::Malformed),
        (changed(|m| m.not_after = NOW - 1), R::Expired),
        (changed(|m| m.issued_at = NOW + MAX_CLOCK_DIFFERENCE + 1), R::Expired),
        (changed(|m| m.coverage = 0), R::Malformed),
        (changed(|m| m.coverage = 77), R::Malformed),
        (changed(|m| m.sections[0].kind = 0), R::MissingCapability),
        (changed(|m| m.sections[0].kind = 77), R::MissingCapability),
        (changed(|m| m.sections[0].sha256 = vec![0; 31]), R::Malformed),
        (changed(|m| m.sections[0].size = 0), R::Malformed),
        (changed(|m| m.sections.push(m.sections[0].clone())), R::Malformed),
        (changed(|m| m.sections[0].size = MAX_BUNDLE_BYTES + 1), R::TooLarge),
        (changed(|m| m.sections.clear()), R::MissingSection),
    ];
    for (case, (signed, expected)) in cases.iter().enumerate() {
        assert_eq!(refusal(signed, |_| {}), *expected, "case {case}");
    }
    for older in [(1, 5), (1, 6), (2, 0)] {
        let stale = refusal(&changed(|_| {}), |trust| trust.enforced = Some((older, digest)));
        assert_eq!(stale, R::StaleRevision, "{older:?}");
    }
}

#[test]
fn the_bundle_that_is_enforced_is_acknowledged_again() {
    let keys = trusted();
    let signed = changed(|m| m.not_after = NOW - 1);
    let mut trust = trust(&keys);
    trust.enforced = Some(((1, 5), sha256(&signed.manifest)));
    // Even after `not_after`, which bounds installing and never enforcing.
    assert_eq!(accept(&signed, trust, &PureRust), Ok(None));
}

fn assembly(sections: &[pb::Section], change: impl FnOnce(&mut pb::Manifest)) -> Assembly {
    let mut manifest = manifest(5, sections);
    change(&mut manifest);
    let keys = trusted();
    Assembly::new(accept(&signed(&manifest, 1, "k1"), trust(&keys), &PureRust).unwrap().unwrap(), None)
}

#[test]
fn sections_arrive_in_parts_and_in_order() {
    let rules = rules_section();
    let digest = sha256(&rules.content);
    let (first, second) = rules.content.split_at(10);
    let mut good = assembly(std::slice::from_ref(&rules), |_| {});
    good.add(&digest, 0, first).unwrap();
    assert!(!good.is_complete());
    good.add(&digest, 10, second).unwrap();
    assert!(good.is_complete());
    assert!(good.install(None).is_ok());

    let wrong: [(&[u8], u64, &[u8]); 5] = [
        (&digest, 10, second),
        (&digest, 0, &[]),
        (&[0; 32], 0, first),
        (&[0; 3], 0, first),
        (&digest, 0, &[0; 100_000]),
    ];
    for (case, (digest, offset, content)) in wrong.into_iter().enumerate() {
        let error = assembly(std::slice::from_ref(&rules), |_| {}).add(digest, offset, content).unwrap_err();
        assert_eq!(error.reason, NackReason::Malformed, "case {case}");
    }
    let mut damaged = rules.content.clone();
    damaged[20] ^= 1;
    let error = assembly(&[rules], |_| {}).add(&digest, 0, &damaged).unwrap_err();
    assert_eq!(error.reason, NackReason::DigestMismatch);
}

fn install(sections: Vec<pb::Section>, change: impl FnOnce(&mut pb::Manifest)) -> Result<Installed, Refused> {
    let mut assembly = assembly(&sections, change);
    for section in &sections {
        assembly.add(&sha256(&section.content), 0, &section.content)?;
    }
    assembly.install(None)
}

#[test]
fn sections_that_do_not_decode_or_do_not_agree_are_refused() {
    use pb::SectionKind as K;
    let reason = |result: Result<Installed, Refused>| result.map(|_| ()).unwrap_err().reason;
    assert_eq!(
        reason(install(vec![section(K::Rules, b"junk".to_vec())], |_| {})),
        NackReason::InvalidSection
    );
    let with = |kind, content: &[u8]| vec![rules_section(), section(kind, content.to_vec())];
    assert_eq!(reason(install(with(K::Keys, b"junk"), |_| {})), NackReason::InvalidSection);
    assert_eq!(reason(install(with(K::Directory, b"junk"), |_| {})), NackReason::InvalidSection);
    // Rules that guard under a statement that nothing is guarded, and the other way round.
    let unguarded = |m: &mut pb::Manifest| m.coverage = pb::Coverage::Unguarded.into();
    assert_eq!(reason(install(vec![rules_section()], unguarded)), NackReason::InvalidSection);
    let mut open = model();
    open.guards.clear();
    let open = section(K::Rules, tidegate_engine::encode(&open).unwrap());
    assert_eq!(reason(install(vec![open], |_| {})), NackReason::InvalidSection);
    // Rules that name an issuer without keys.
    let mut named = model();
    named.issuers.push(tidegate_engine::model::IssuerModel { name: "gitlab".into(), slots: vec![] });
    let named = section(K::Rules, tidegate_engine::encode(&named).unwrap());
    assert_eq!(reason(install(vec![named], |_| {})), NackReason::InvalidSection);
    // What never arrived.
    assert_eq!(reason(assembly(&[rules_section()], |_| {}).install(None)), NackReason::MissingSection);
}

#[test]
fn sections_that_are_installed_need_not_arrive_again() {
    let keys = trusted();
    let first = Installed::from_bundle(&bundle(5), trust(&keys), &PureRust, None).unwrap().unwrap();
    let next = pb::Bundle { sections: vec![], ..bundle(6) };
    let second = Installed::from_bundle(&next, trust(&keys), &PureRust, Some(&first)).unwrap().unwrap();
    assert_eq!(second.manifest.revision, (1, 6));
    assert!(Rc::ptr_eq(first.rules.as_ref().unwrap(), second.rules.as_ref().unwrap()));
}
