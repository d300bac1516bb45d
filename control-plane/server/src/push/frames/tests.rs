use std::collections::BTreeMap;

use bytes::Buf;
use pb::subscribe_response::Message as Down;

use super::*;
use crate::bundle::{Contents, Publisher, SectionStore, sha256};
use crate::state::StateDir;

fn offer(sections: &[&[u8]]) -> Offer {
    let folder = tempfile::tempdir().unwrap();
    let mut publisher =
        Publisher::open(Arc::new(StateDir::open(folder.path()).unwrap()), 1_800_000_000).unwrap();
    let mut store = SectionStore::default();
    let sections = sections.iter().map(|content| store.section(pb::SectionKind::Rules, content)).collect();
    let contents = Contents {
        candidate: vec![],
        coverage: pb::Coverage::Guarded,
        sections,
        required_capabilities: vec![],
        used_capabilities: vec![],
        suspended_until: 0,
    };
    let releases = publisher.publish(BTreeMap::from([("a/a".to_owned(), contents)]), 1_800_000_000).unwrap();
    Offer::new(releases["a/a"].clone())
}

/// Decodes what a gRPC client would see.
fn messages(frames: &[Bytes]) -> Vec<Down> {
    let mut wire = Bytes::from(frames.concat());
    let mut messages = Vec::new();
    while wire.has_remaining() {
        assert_eq!(wire.get_u8(), 0, "not compressed");
        let length = wire.get_u32() as usize;
        messages.push(pb::SubscribeResponse::decode(wire.split_to(length)).unwrap().message.unwrap());
    }
    messages
}

/// The push, and per section what its chunks add up to.
fn received(frames: &[Bytes]) -> (pb::Push, BTreeMap<Vec<u8>, Vec<u8>>) {
    let mut messages = messages(frames).into_iter();
    let Some(Down::Push(push)) = messages.next() else { panic!("the push comes first") };
    let mut sections = BTreeMap::<_, Vec<u8>>::new();
    for message in messages {
        let Down::Chunk(chunk) = message else { panic!("{message:?}") };
        assert!(chunk.content.len() <= MAX_CHUNK_BYTES);
        let section = sections.entry(chunk.sha256).or_default();
        assert_eq!(section.len() as u64, chunk.offset, "chunks arrive in order");
        section.extend(chunk.content);
    }
    (push, sections)
}

#[test]
fn sections_of_every_size_arrive_whole() {
    for size in [1, 127, 128, COALESCED_BYTES, COALESCED_BYTES + 1, MAX_CHUNK_BYTES, MAX_CHUNK_BYTES * 2 + 1]
    {
        let big: Vec<u8> = (0..size).map(|ix| (ix % 251) as u8).collect();
        let offer = offer(&[b"small", &big]);
        let (push, sections) = received(&offer.frames(&[], true));
        assert_eq!(push.manifest.as_ref(), Some(offer.release().signed()));
        assert_eq!(push.nonce, offer.nonce());
        assert_eq!(push.chunk_bytes, 5 + size as u64);
        assert_eq!(sections.len(), 2, "{size}");
        for (digest, content) in sections {
            assert_eq!(digest, sha256(&content), "{size}");
        }
    }
}

#[test]
fn only_sections_that_are_not_held_travel() {
    let offer = offer(&[b"one", b"two", b"three"]);
    let (push, sections) =
        received(&offer.frames(&[sha256(b"one"), sha256(b"three"), sha256(b"unrelated")], true));
    assert_eq!(push.chunk_bytes, 3);
    assert_eq!(sections.into_values().collect::<Vec<_>>(), [b"two".to_vec()]);
    let everything = [sha256(b"one"), sha256(b"two"), sha256(b"three")];
    let (push, sections) = received(&offer.frames(&everything, true));
    assert_eq!(push.chunk_bytes, 0);
    assert!(sections.is_empty());
}

#[test]
fn streams_share_the_encoded_bytes() {
    let offer = offer(&[b"one", b"two"]);
    let first = offer.frames(&[], true);
    assert_eq!(first.len(), 1, "small sections travel with their push");
    assert!(Arc::ptr_eq(&first, &offer.frames(&[], true)));
    assert!(!Arc::ptr_eq(&first, &offer.frames(&[sha256(b"one")], true)));
}

#[test]
fn large_sections_are_not_copied() {
    let big = vec![7; MAX_CHUNK_BYTES + 1];
    let offer = offer(&[&big]);
    let content = offer.release().sections()[0].content().clone();
    let frames = offer.frames(&[], true);
    assert!(frames.iter().any(|frame| frame.as_ptr() == content.as_ptr() && frame.len() == MAX_CHUNK_BYTES));
}
