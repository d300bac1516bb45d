use bytes::Buf;
use pb::SectionKind::{Keys, Rules};

use super::*;
use crate::bundle::{Keyring, Revision};
use crate::state::StateDir;

const NOW: i64 = 1_000;

type Taken = Option<(BTreeMap<String, Arc<Release>>, Arc<Members>)>;

fn keyring() -> Arc<Keyring> {
    let folder = tempfile::tempdir().unwrap();
    Arc::new(Keyring::open(&StateDir::open(folder.path()).unwrap()).unwrap())
}

fn who(account: &str) -> Arc<Members> {
    let id = |name: &str| WorkloadId { namespace: "sales".into(), name: name.into() };
    let accounts = BTreeMap::from([(id("orders"), Some(account.to_owned())), (id("bare"), None)]);
    Arc::new(Members { trust_domain: "td".into(), accounts })
}

/// A release of these contents, the last one a candidate's.
fn release(
    keys: &Keyring,
    workload: &str,
    counter: u64,
    contents: &[(pb::SectionKind, &[u8])],
) -> Arc<Release> {
    let mut store = SectionStore::default();
    let mut all: Vec<_> = contents.iter().map(|(kind, content)| store.section(*kind, content)).collect();
    let candidate = vec![all.pop().unwrap()];
    let manifest = pb::Manifest {
        format_version: 1,
        audience: workload.into(),
        revision: Some(Revision { epoch: 7, counter }.into()),
        coverage: pb::Coverage::Guarded.into(),
        sections: all.iter().map(|section| section.reference()).collect(),
        candidate: candidate.iter().map(|section| section.reference()).collect(),
        issued_at: NOW,
        not_after: NOW + 60,
        ..Default::default()
    };
    Arc::new(Release::relayed(manifest.clone(), signed(keys, &manifest), all, candidate))
}

fn signed(keys: &Keyring, manifest: &pb::Manifest) -> pb::SignedManifest {
    let manifest = manifest.encode_to_vec();
    pb::SignedManifest { signatures: vec![keys.sign(&manifest).unwrap()], manifest }
}

fn all(releases: &[&Arc<Release>]) -> BTreeMap<String, Arc<Release>> {
    releases.iter().map(|release| (release.workload().to_owned(), Arc::clone(release))).collect()
}

/// The messages in frames of gRPC.
fn messages(frames: &[Bytes]) -> Vec<Down> {
    let mut rest = Bytes::from(frames.concat());
    let mut messages = Vec::new();
    while rest.has_remaining() {
        assert_eq!(rest.get_u8(), 0);
        let length = rest.get_u32() as usize;
        messages.push(pb::FollowResponse::decode(rest.split_to(length)).unwrap().message.unwrap());
    }
    messages
}

fn take(assembler: &mut Assembler, messages: Vec<Down>) -> Result<Taken, Refused> {
    let mut taken = None;
    for message in messages {
        match message {
            Down::Round(round) => assembler.begin(round)?,
            Down::Release(signed) => assembler.release(signed, NOW)?,
            Down::Chunk(chunk) => assembler.chunk(&chunk)?,
            Down::RoundEnd(_) => taken = Some(assembler.end()?),
            other => panic!("{other:?}"),
        }
    }
    Ok(taken)
}

fn chunks(frames: &[Bytes]) -> usize {
    messages(frames).iter().filter(|message| matches!(message, Down::Chunk(_))).count()
}

/// The same bytes.
fn assert_same(taken: &BTreeMap<String, Arc<Release>>, releases: &BTreeMap<String, Arc<Release>>) {
    assert_eq!(taken.keys().collect::<Vec<_>>(), releases.keys().collect::<Vec<_>>());
    for (workload, release) in releases {
        let other = &taken[workload];
        assert_eq!(other.signed(), release.signed(), "{workload}");
        assert_eq!(
            (other.sections(), other.candidate()),
            (release.sections(), release.candidate()),
            "{workload}"
        );
        assert_eq!((other.sha256(), other.revision()), (release.sha256(), release.revision()), "{workload}");
    }
}

#[test]
fn the_other_end_has_byte_by_byte_what_was_signed_and_only_changes_travel() {
    let keys = keyring();
    let large = vec![7; 3 << 20];
    let a = release(
        &keys,
        "sales/orders",
        1,
        &[(Rules, b"rules of orders"), (Keys, &large), (Rules, b"candidate")],
    );
    let b = release(
        &keys,
        "sales/bare",
        2,
        &[(Rules, b"rules of bare"), (Keys, &large), (Rules, b"rules of bare")],
    );
    let mut sent = Sent::new([]);
    let mut assembler = Assembler::new(keys.clone(), &BTreeMap::new());
    let first = all(&[&a, &b]);
    let frames = sent.round(&first, who("orders")).unwrap();
    assert_eq!(chunks(&frames), 3 + 3, "each section once, the large one in three parts");
    let (releases, members) = take(&mut assembler, messages(&frames)).unwrap().unwrap();
    assert_same(&releases, &first);
    assert_eq!(members, who("orders"));
    assert!(sent.round(&first, who("orders")).is_none(), "nothing has changed");

    // One has other rules, the other one is no more.
    let next =
        release(&keys, "sales/orders", 3, &[(Rules, b"other rules"), (Keys, &large), (Rules, b"candidate")]);
    let frames = sent.round(&all(&[&next]), who("orders")).unwrap();
    assert_eq!(chunks(&frames), 1);
    let (releases, _) = take(&mut assembler, messages(&frames)).unwrap().unwrap();
    assert_same(&releases, &all(&[&next]));

    // What went with the old ones travels again.
    let frames = sent.round(&all(&[&next, &b]), who("another")).unwrap();
    assert_eq!(chunks(&frames), 1);
    let (releases, members) = take(&mut assembler, messages(&frames)).unwrap().unwrap();
    assert_same(&releases, &all(&[&next, &b]));
    assert_eq!(members, who("another"));

    // A stream begins anew, and nothing of it but manifests travels.
    let mut assembler = Assembler::new(keys, &releases);
    let mut sent = Sent::new(assembler.held());
    let frames = sent.round(&releases, who("another")).unwrap();
    assert_eq!(chunks(&frames), 0);
    let (again, _) = take(&mut assembler, messages(&frames)).unwrap().unwrap();
    assert_same(&again, &releases);
}

#[test]
fn an_empty_round_is_sent_once() {
    let mut sent = Sent::new([]);
    let frames = sent.round(&BTreeMap::new(), who("orders")).unwrap();
    let taken = take(&mut Assembler::new(keyring(), &BTreeMap::new()), messages(&frames)).unwrap();
    assert!(taken.unwrap().0.is_empty());
    assert!(sent.round(&BTreeMap::new(), who("orders")).is_none());
}

#[test]
fn one_content_under_two_kinds_travels_once() {
    let keys = keyring();
    let both = release(&keys, "a/a", 1, &[(Rules, b"same"), (Keys, b"same"), (Keys, b"same")]);
    let other = release(&keys, "b/b", 2, &[(Rules, b"more"), (Keys, b"more"), (Keys, b"same")]);
    let mut sent = Sent::new([]);
    let mut assembler = Assembler::new(keys, &BTreeMap::new());
    for releases in [all(&[&both]), all(&[&both, &other])] {
        let frames = sent.round(&releases, who("orders")).unwrap();
        assert_eq!(chunks(&frames), 1);
        let (taken, _) = take(&mut assembler, messages(&frames)).unwrap().unwrap();
        assert_same(&taken, &releases);
    }
}

#[test]
fn what_was_not_signed_by_a_key_that_is_here_is_refused() {
    let (keys, others) = (keyring(), keyring());
    let refused = |release: &Arc<Release>, change: &dyn Fn(&mut pb::SignedManifest)| {
        let mut signed = release.signed().clone();
        change(&mut signed);
        let mut assembler = Assembler::new(keys.clone(), &BTreeMap::new());
        assembler.begin(pb::Round::default()).unwrap();
        assembler.release(signed, NOW).unwrap_err()
    };
    let contents: &[(pb::SectionKind, &[u8])] = &[(Rules, b"rules"), (Rules, b"candidate")];
    let own = release(&keys, "a/a", 1, contents);
    let mut assembler = Assembler::new(keys.clone(), &BTreeMap::new());
    assembler.begin(pb::Round::default()).unwrap();
    assembler.release(own.signed().clone(), NOW).unwrap();
    let other = others.current().id;
    assert_eq!(refused(&release(&others, "a/a", 1, contents), &|_| {}), Refused::OtherKey(other));
    assert_eq!(refused(&own, &|signed| signed.signatures.clear()), Refused::Forged);
    assert_eq!(refused(&own, &|signed| signed.manifest.push(0)), Refused::Forged);
    assert_eq!(refused(&own, &|signed| signed.signatures[0].signature[5] ^= 1), Refused::Forged);
    // Another's signature under the name of ours.
    let forged = release(&others, "a/a", 1, contents);
    let ours = keys.current().id;
    assert_eq!(refused(&forged, &|signed| signed.signatures[0].key_id.clone_from(&ours)), Refused::Forged);
}

#[test]
fn what_is_signed_and_no_manifest_of_a_workload_is_refused() {
    let keys = keyring();
    let good = release(&keys, "a/a", 1, &[(Rules, b"rules"), (Rules, b"candidate")]);
    let check = |change: &dyn Fn(&mut pb::Manifest)| {
        let mut manifest = good.manifest().clone();
        change(&mut manifest);
        let mut assembler = Assembler::new(keys.clone(), &BTreeMap::new());
        assembler.begin(pb::Round::default()).unwrap();
        assembler.release(signed(&keys, &manifest), NOW)
    };
    assert_eq!(check(&|_| {}), Ok(()));
    let is_malformed = |result| matches!(result, Err(Refused::Malformed(_)));
    for audience in ["", "a", "a/", "/a", "a/a/a", "a/\n", &format!("a/{}", "a".repeat(400))] {
        assert!(is_malformed(check(&|manifest| manifest.audience = audience.into())), "{audience:?}");
    }
    assert!(is_malformed(check(&|manifest| manifest.format_version = 2)));
    assert!(is_malformed(check(&|manifest| manifest.revision = None)));
    assert!(is_malformed(check(&|manifest| manifest.coverage = 0)));
    assert!(is_malformed(check(&|manifest| manifest.coverage = 9)));
    assert!(is_malformed(check(&|manifest| manifest.sections[0].kind = 9)));
    assert!(is_malformed(check(&|manifest| manifest.sections[0].sha256 = vec![0; 31])));
    assert!(is_malformed(check(&|manifest| manifest.sections[0].size = MAX_SECTION + 1)));
    assert_eq!(check(&|manifest| manifest.not_after = NOW), Err(Refused::Expired("a/a".into())));
}

#[test]
fn a_round_that_does_not_hold_together_is_refused() {
    let keys = keyring();
    let one = release(&keys, "a/a", 1, &[(Rules, b"rules"), (Rules, b"candidate")]);
    let frames = Sent::new([]).round(&all(&[&one]), who("orders")).unwrap();
    let good = messages(&frames);
    assert_eq!(good.len(), 5);
    let run = |change: &dyn Fn(&mut Vec<Down>)| {
        let mut messages = good.clone();
        change(&mut messages);
        take(&mut Assembler::new(keys.clone(), &BTreeMap::new()), messages).map(|_| ())
    };
    let chunk = |messages: &mut Vec<Down>, change: &dyn Fn(&mut pb::SectionChunk)| {
        let Down::Chunk(chunk) = &mut messages[2] else { panic!() };
        change(chunk);
    };
    assert_eq!(run(&|_| {}), Ok(()));
    for (what, result) in [
        ("no beginning", run(&|messages| drop(messages.remove(0)))),
        ("two beginnings", run(&|messages| messages.insert(1, messages[0].clone()))),
        ("a release twice", run(&|messages| messages.insert(1, messages[1].clone()))),
        ("a section is missing", run(&|messages| drop(messages.remove(2)))),
        ("a chunk twice", run(&|messages| messages.insert(2, messages[2].clone()))),
        ("a chunk of nothing", run(&|messages| messages.insert(1, messages[2].clone()))),
        ("nobody's chunk", run(&|messages| chunk(messages, &|chunk| chunk.sha256[0] ^= 1))),
        ("no digest", run(&|messages| chunk(messages, &|chunk| chunk.sha256.truncate(31)))),
        ("a gap", run(&|messages| chunk(messages, &|chunk| chunk.offset = 1))),
        (
            "other content",
            run(&|messages| chunk(messages, &|chunk| chunk.content = Bytes::from_static(b"RULES"))),
        ),
        ("too short", run(&|messages| chunk(messages, &|chunk| chunk.content = Bytes::from_static(b"rule")))),
        (
            "too long",
            run(&|messages| chunk(messages, &|chunk| chunk.content = Bytes::from_static(b"rules!"))),
        ),
        ("who gets what", run(&|messages| messages[0] = Down::Round(pb::Round::default()))),
        ("an end of nothing", run(&|messages| messages.push(Down::RoundEnd(pb::RoundEnd {})))),
    ] {
        assert!(matches!(result, Err(Refused::Malformed(_))), "{what}: {result:?}");
    }
    let stranger = pb::Member { workload: "a".into(), service_account: "a".into() };
    let members = pb::Members { trust_domain: "td".into(), members: vec![stranger] };
    let round = pb::Round { gone: vec![], members: Some(members) };
    assert!(matches!(run(&|messages| messages[0] = Down::Round(round.clone())), Err(Refused::Malformed(_))));
}

#[test]
fn sections_beyond_those_that_are_told_travel_again() {
    let keys = keyring();
    let one = release(&keys, "a/a", 1, &[(Rules, b"one"), (Keys, b"two"), (Rules, b"three")]);
    let releases = all(&[&one]);
    for most in 0..=3 {
        let mut assembler = Assembler::with(keys.clone(), &releases, most);
        let mut sent = Sent::new(assembler.held());
        let frames = sent.round(&releases, who("orders")).unwrap();
        assert_eq!(chunks(&frames), 3 - most);
        let (taken, _) = take(&mut assembler, messages(&frames)).unwrap().unwrap();
        assert_same(&taken, &releases);
    }
}
