use std::sync::Arc;

use tidegate_engine::VerifiedToken;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{CacheLimits, Kept, TokenCache};

fn kept(expires_at: i64) -> Kept {
    let verified = Arc::new(VerifiedToken { expires_at, ..VerifiedToken::default() });
    Kept { issuer: 0, layout: 1, not_before: 0, certificate: None, key: 0, verified }
}

fn cache(max_entries: usize, max_bytes: usize) -> TokenCache {
    TokenCache::new(CacheLimits { max_entries, max_bytes })
}

fn expiry(cache: &mut TokenCache, text: &[u8]) -> Option<i64> {
    cache.get(text).map(|kept| kept.verified.expires_at)
}

/// What the invariant says.
fn sound(cache: &TokenCache) {
    assert_eq!(cache.index.len(), cache.entries.len());
    for (at, entry) in cache.entries.iter().enumerate() {
        assert_eq!(cache.index.get(&entry.hash), Some(&at));
        assert_eq!(super::hash(&entry.text), entry.hash);
    }
    assert_eq!(cache.bytes, cache.entries.iter().map(|entry| entry.weight).sum::<usize>());
    assert!(cache.entries.len() <= cache.limits.max_entries && cache.bytes <= cache.limits.max_bytes);
}

#[test]
fn finds_only_the_whole_text() {
    let mut cache = cache(10, 100_000);
    let text = [b"header.payload.".as_slice(), &[b's'; 80]].concat();
    cache.insert(&text, kept(1));
    assert_eq!(expiry(&mut cache, &text), Some(1));
    // The same tail, hence the same hash.
    let mut other = text.clone();
    other[0] = b'H';
    assert_eq!(super::hash(&other), super::hash(&text));
    assert_eq!(expiry(&mut cache, &other), None);
    cache.remove(&other);
    assert_eq!(expiry(&mut cache, &text), Some(1));
    cache.insert(&other, kept(2));
    assert_eq!((expiry(&mut cache, &text), expiry(&mut cache, &other)), (None, Some(2)));
    sound(&cache);
    for short in [&b""[..], b"s", &text[..79], &text[1..]] {
        assert_eq!(expiry(&mut cache, short), None);
    }
}

#[test]
fn replaces_and_removes() {
    let mut cache = cache(10, 100_000);
    for i in 0..5_u8 {
        cache.insert(&[i; 9], kept(i64::from(i)));
    }
    cache.insert(&[2; 9], kept(22));
    cache.remove(&[0; 9]);
    cache.remove(&[7; 9]);
    sound(&cache);
    let found: Vec<_> = (0..5_u8).map(|i| expiry(&mut cache, &[i; 9])).collect();
    assert_eq!(found, [None, Some(1), Some(22), Some(3), Some(4)]);
}

#[test]
fn evicts_what_was_not_used_lately() {
    let mut cache = cache(3, 100_000);
    for i in 0..3_u8 {
        cache.insert(&[i; 9], kept(0));
    }
    cache.get(&[0; 9]);
    cache.get(&[2; 9]);
    cache.insert(&[3; 9], kept(0));
    sound(&cache);
    assert!(cache.get(&[1; 9]).is_none());
    assert!(cache.get(&[0; 9]).is_some() && cache.get(&[2; 9]).is_some() && cache.get(&[3; 9]).is_some());
    for i in 0..200_u8 {
        cache.insert(&[i; 9], kept(0));
        sound(&cache);
        assert!(cache.get(&[i; 9]).is_some());
    }
    assert_eq!(cache.len(), 3);
}

#[test]
fn stays_within_its_bytes() {
    let mut cache = cache(1000, 5_000);
    for i in 0..100_u8 {
        cache.insert(&vec![i; 700], kept(0));
        sound(&cache);
    }
    assert!((3..=7).contains(&cache.len()), "{}", cache.len());
    let before = cache.len();
    cache.insert(&vec![200; 6_000], kept(0));
    assert!(cache.get(&vec![200; 6_000]).is_none());
    assert_eq!(cache.len(), before);
    let mut none = super::TokenCache::new(CacheLimits { max_entries: 0, max_bytes: 1000 });
    none.insert(b"x", kept(0));
    assert_eq!(none.len(), 0);
}

#[test]
fn keeps_the_entries_of_issuers_that_stay() {
    let mut cache = cache(100, 100_000);
    for i in 0..10_u8 {
        cache.insert(&[i; 9], Kept { issuer: usize::from(i % 3), ..kept(0) });
    }
    cache.retain(|issuer, text| match issuer {
        _ if text != [text[0]; 9] => panic!("{text:?}"),
        0 => Some(5),
        1 => None,
        other => Some(other),
    });
    sound(&cache);
    let issuers: Vec<_> = (0..10_u8).map(|i| cache.get(&[i; 9]).map(|kept| kept.issuer)).collect();
    let (zero, two) = (Some(5), Some(2));
    assert_eq!(issuers, [zero, None, two, zero, None, two, zero, None, two, zero]);
}

#[test]
fn a_full_cache_keeps_the_newest_and_not_the_oldest() {
    let mut cache = cache(16, 1_000_000);
    let text = |i: u32| [&i.to_be_bytes()[..], b"signature", &i.to_be_bytes()].concat();
    for i in 0..100 {
        cache.insert(&text(i), kept(i64::from(i)));
        sound(&cache);
    }
    for i in 0..100 {
        assert_eq!(expiry(&mut cache, &text(i)).is_some(), i >= 84, "token {i}");
    }
}

#[test]
fn takes_texts_for_the_same_only_if_every_byte_is() {
    for length in 0..40 {
        let text = vec![7_u8; length];
        assert!(super::same(&text, &text.clone()), "{length}");
        for at in 0..length {
            let mut other = text.clone();
            other[at] ^= 0x80;
            assert!(!super::same(&text, &other), "{length} {at}");
        }
        assert!(!super::same(&text, &vec![7; length + 1]) && !super::same(&vec![7; length + 1], &text));
        assert!(!super::same(&text, &vec![7; length + 8]) && !super::same(&vec![7; length + 8], &text));
    }
}
