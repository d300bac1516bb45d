use super::*;
use crate::keys::plain_client;
use crate::push::Hub;

fn own(content: &[&'static str]) -> BTreeMap<String, Bytes> {
    let bytes = |text: &&'static str| (hex(&sha256(text.as_bytes())), Bytes::from_static(text.as_bytes()));
    content.iter().map(bytes).collect()
}

fn digest(content: &str) -> String {
    hex(&sha256(content.as_bytes()))
}

fn open(folder: &std::path::Path, content: &[&'static str]) -> BTreeSet<String> {
    let state = StateDir::open(folder).unwrap();
    let modules = Modules::open_with(&state, own(content)).unwrap();
    for (digest, content) in &modules.0 {
        assert_eq!(*digest, hex(&sha256(content)));
    }
    modules.0.into_keys().collect()
}

fn stored(folder: &std::path::Path) -> usize {
    let names =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".wasm")).count()
}

#[test]
fn the_modules_of_the_version_before_stay() {
    let folder = tempfile::tempdir().unwrap();
    let set = |names: &[&str]| names.iter().map(|name| digest(name)).collect::<BTreeSet<_>>();
    assert_eq!(open(folder.path(), &["h1", "b1"]), set(&["h1", "b1"]));
    assert_eq!(open(folder.path(), &["h1", "b1"]), set(&["h1", "b1"]), "a restart is no new version");
    assert_eq!(open(folder.path(), &["h2", "b1"]), set(&["h1", "b1", "h2"]));
    assert_eq!(open(folder.path(), &["h2", "b1"]), set(&["h1", "b1", "h2"]));
    assert_eq!(
        open(folder.path(), &["h3", "b3"]),
        set(&["h2", "b1", "h3", "b3"]),
        "two versions back is gone"
    );
    assert_eq!(stored(folder.path()), 4);
    assert_eq!(open(folder.path(), &["h2", "b1"]), set(&["h2", "b1", "h3", "b3"]), "back again");
}

#[test]
fn a_damaged_module_is_not_served() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path(), &["h1"]);
    open(folder.path(), &["h2"]);
    std::fs::write(folder.path().join(file(&digest("h1"))), "something else").unwrap();
    assert_eq!(open(folder.path(), &["h2"]), [digest("h2")].into());
    std::fs::remove_file(folder.path().join(file(&digest("h1")))).unwrap();
    assert_eq!(open(folder.path(), &["h2"]), [digest("h2")].into());
}

#[test]
fn a_damaged_record_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path(), &["h1"]);
    std::fs::write(folder.path().join(FILE), "{").unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    assert!(matches!(Modules::open_with(&state, own(&["h1"])), Err(StateError::Damaged { .. })));
}

#[tokio::test]
async fn a_module_is_there_under_its_digest_and_nothing_else() {
    let (stop, stopping) = watch::channel(false);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let hub = Hub::new(crate::directories::Index::new(std::time::Duration::from_secs(1)));
    let options = Arc::new(crate::transport::TransportOptions::insecure());
    let acceptor = Acceptor::anybody(listener, &options, Arc::new(hub)).unwrap();
    let server = tokio::spawn(serve(Modules(own(&["wasm"])), acceptor, stopping));
    let client = plain_client().unwrap();
    let url = |path: &str| format!("{base}{path}");
    let answer = client.get(url(&path(&digest("wasm")))).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "application/wasm");
    assert_eq!(header("content-length"), "4");
    assert_eq!(header("cache-control"), "public, max-age=31536000, immutable");
    assert_eq!(header("etag"), format!("\"{}\"", digest("wasm")));
    assert_eq!(answer.bytes().await.unwrap(), "wasm");
    let head = client.head(url(&path(&digest("wasm")))).send().await.unwrap();
    assert_eq!(
        (head.status(), head.headers()["content-length"].to_str().unwrap()),
        (200.try_into().unwrap(), "4")
    );
    let upper = path(&digest("wasm").to_uppercase());
    let bare = path(&digest("wasm")).replace(".wasm", "");
    for path in [
        "/",
        "/healthz",
        "/metrics",
        "/module/sha256/",
        "/module/sha256/..%2f..%2fstate.wasm",
        &path(&digest("other")),
        &upper,
        &bare,
    ] {
        assert_eq!(client.get(url(path)).send().await.unwrap().status(), 404, "{path}");
    }
    let post = client.post(url(&path(&digest("wasm")))).send().await.unwrap();
    assert_eq!(post.status(), 405);
    stop.send(true).unwrap();
    server.await.unwrap().unwrap();
}
