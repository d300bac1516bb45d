use super::*;
use crate::keys::testing::Issuer;

fn fetcher(issuer: &Issuer) -> Fetcher {
    Fetcher::new(std::slice::from_ref(&issuer.authority), AddressGuard { allow_loopback: true }).unwrap()
}

#[tokio::test]
async fn a_key_set_is_fetched_over_https() {
    let issuer = Issuer::start().await;
    issuer.answer("/keys", "the document");
    assert_eq!(fetcher(&issuer).key_set(&issuer.url("/keys")).await.unwrap(), "the document");
}

#[tokio::test]
async fn discovery_finds_the_key_set_of_exactly_this_issuer() {
    let issuer = Issuer::start().await;
    let answer = |named: &str| {
        let metadata = serde_json::json!({"issuer": named, "jwks_uri": issuer.url("/keys"), "more": []});
        issuer.answer("/.well-known/openid-configuration", &metadata.to_string());
    };
    let fetcher = fetcher(&issuer);
    let name = issuer.url("");
    answer(&name);
    assert_eq!(fetcher.discover(&name).await.unwrap(), issuer.url("/keys"));
    for other in ["https://issuer.example".to_owned(), format!("{name}/"), name.to_uppercase()] {
        answer(&other);
        let error = fetcher.discover(&name).await.unwrap_err().to_string();
        assert!(error.contains(&other) && error.contains("exactly"), "{error}");
    }
}

#[tokio::test]
async fn discovery_that_points_to_plain_http_is_refused() {
    let issuer = Issuer::start().await;
    let metadata = serde_json::json!({"issuer": issuer.url(""), "jwks_uri": "http://issuer.example/keys"});
    issuer.answer("/.well-known/openid-configuration", &metadata.to_string());
    let error = fetcher(&issuer).discover(&issuer.url("")).await.unwrap_err();
    assert!(matches!(error, FetchError::Url { .. }), "{error}");
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let issuer = Issuer::start().await;
    issuer.answer("/keys", "moved here");
    let location = issuer.url("/keys");
    issuer.answer_raw("/old", &format!("302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"));
    let error = fetcher(&issuer).key_set(&issuer.url("/old")).await.unwrap_err();
    assert!(matches!(error, FetchError::Status { status: 302, .. }), "{error}");
}

#[tokio::test]
async fn a_document_is_read_up_to_its_limit_and_no_further() {
    let issuer = Issuer::start().await;
    let fetcher = fetcher(&issuer);
    issuer.answer("/keys", &"k".repeat(MAX_JWKS_BYTES));
    assert_eq!(fetcher.key_set(&issuer.url("/keys")).await.unwrap().len(), MAX_JWKS_BYTES);
    issuer.answer("/keys", &"k".repeat(MAX_JWKS_BYTES + 1));
    let error = fetcher.key_set(&issuer.url("/keys")).await.unwrap_err();
    assert!(matches!(error, FetchError::TooLarge { .. }), "{error}");
    // Without a length, as a stream that does not end.
    issuer.answer_raw("/keys", &format!("200 OK\r\n\r\n{}", "k".repeat(MAX_JWKS_BYTES + 1)));
    let error = fetcher.key_set(&issuer.url("/keys")).await.unwrap_err();
    assert!(matches!(error, FetchError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn loopback_is_refused_as_a_name_and_as_an_address() {
    let issuer = Issuer::start().await;
    issuer.answer("/keys", "secret");
    let guarded = Fetcher::new(std::slice::from_ref(&issuer.authority), AddressGuard::default()).unwrap();
    for host in ["localhost", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0x7f.1", "2130706433"] {
        let url = format!("https://{host}:{}/keys", issuer.address.port());
        let error = guarded.key_set(&url).await.unwrap_err().to_string();
        assert!(error.contains("no address that keys may be fetched from"), "{url}: {error}");
    }
}

#[tokio::test]
async fn an_issuer_with_a_certificate_of_an_unknown_authority_is_refused() {
    let (issuer, other) = (Issuer::start().await, Issuer::start().await);
    issuer.answer("/keys", "the document");
    let error = fetcher(&other).key_set(&issuer.url("/keys")).await.unwrap_err().to_string();
    assert!(error.to_lowercase().contains("certificate"), "{error}");
}

#[tokio::test]
async fn urls_that_are_not_plain_https_are_refused() {
    let issuer = Issuer::start().await;
    let fetcher = fetcher(&issuer);
    for url in [
        "http://issuer.example/keys",
        "file:///etc/passwd",
        "https://user@issuer.example/",
        "keys",
        "https://a/#b",
    ] {
        let error = fetcher.key_set(url).await.unwrap_err();
        assert!(matches!(error, FetchError::Url { .. }), "{url}: {error}");
    }
}
