use super::*;
use crate::keys::testing::{Issuer as Server, key_set};
use crate::keys::{AddressGuard, IssuerSource, KeySource};
use tidegate_identity::PackKind;

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn an_issuer_is_asked_as_soon_as_it_is_configured_and_again_when_a_filter_asks() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    server.answer("/keys", &key_set("k1"));
    let fetcher = Fetcher::new(std::slice::from_ref(&server.authority), AddressGuard::new(true, [])).unwrap();
    let state = Arc::new(StateDir::open(folder.path()).unwrap());
    let hub = Arc::new(Hub::new(crate::directories::Index::new(PATIENCE)));
    let (sources_in, sources_out) = watch::channel(Arc::default());
    let (ring_in, mut ring) = watch::channel(Arc::default());
    let task = tokio::spawn(refresh(fetcher, state, sources_out, ring_in, Arc::default(), hub.clone()));
    let source = IssuerSource {
        keys: KeySource::Url(server.url("/keys")),
        issuers: vec![server.url("")],
        pack: PackKind::Generic,
        used: true,
        rotate_every_s: None,
        retire_at: 0,
    };
    sources_in.send_replace(Arc::new(KeySources::from([("local".to_owned(), source)])));
    let there = ring.wait_for(|ring| ring.get("local").is_some());
    tokio::time::timeout(PATIENCE, there).await.unwrap().unwrap();

    server.answer("/keys", &key_set("k2"));
    let offering = tokio::spawn({
        let hub = hub.clone();
        async move {
            while ring.changed().await.is_ok() {
                hub.key_desk.offers(ring.borrow_and_update().version);
            }
        }
    });
    let ask = |key_id: &str| hub.key_desk.has_key("a/a".to_owned(), "local".to_owned(), key_id.to_owned());
    assert!(ask("k2").await);
    assert!(!ask("k3").await);
    assert!(!ask("k4").await, "the bucket is empty");
    assert_eq!(server.asked("/keys"), 3);
    drop(sources_in);
    tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap().unwrap();
    tokio::time::timeout(PATIENCE, offering).await.unwrap().unwrap();
}
