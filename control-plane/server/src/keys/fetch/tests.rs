use super::*;
use crate::keys::testing::Issuer;

fn fetcher(issuer: &Issuer) -> Fetcher {
    Fetcher::new(std::slice::from_ref(&issuer.authority), AddressGuard::new(true, [])).unwrap()
}

fn at(issuer: &Issuer, path: &str) -> KeySource {
    KeySource::Url(issuer.url(path))
}

async fn text(fetcher: &Fetcher, source: &KeySource) -> Result<String, FetchError> {
    Ok(fetcher.keys(source, None).await?.document.unwrap())
}

/// What happens to somebody who asks for `/keys`.
async fn refused(issuer: &Issuer) -> FetchError {
    text(&fetcher(issuer), &at(issuer, "/keys")).await.unwrap_err()
}

#[tokio::test]
async fn a_key_set_is_fetched_over_https() {
    let issuer = Issuer::start().await;
    issuer.answer("/keys", "the document");
    let keys = fetcher(&issuer).keys(&at(&issuer, "/keys"), None).await.unwrap();
    let expected = KeySet {
        url: issuer.url("/keys"),
        document: Some("the document".into()),
        etag: None,
        fresh_for: None,
    };
    assert_eq!(keys, expected);
}

#[tokio::test]
async fn discovery_finds_the_key_set_of_exactly_this_issuer() {
    let issuer = Issuer::start().await;
    issuer.answer("/keys", "the document");
    let answer = |named: &str| {
        let metadata = serde_json::json!({"issuer": named, "jwks_uri": issuer.url("/keys"), "more": []});
        issuer.answer("/.well-known/openid-configuration", &metadata.to_string());
    };
    let fetcher = fetcher(&issuer);
    let name = issuer.url("");
    let source = KeySource::Discovery(name.clone());
    answer(&name);
    assert_eq!(text(&fetcher, &source).await.unwrap(), "the document");
    for other in ["https://issuer.example".to_owned(), format!("{name}/"), name.to_uppercase()] {
        answer(&other);
        let error = text(&fetcher, &source).await.unwrap_err().to_string();
        assert!(error.contains(&other) && error.contains("exactly"), "{error}");
        // Whoever configures an issuer is told what it calls itself.
        assert_eq!(fetcher.discover(&name).await.unwrap().issuer, other);
    }
}

#[tokio::test]
async fn the_template_of_entra_is_asked_for_under_organizations_and_taken_as_it_is_written() {
    let issuer = Issuer::start().await;
    issuer.answer("/common/keys", "the keys of all tenants");
    let template = issuer.url("/{tenantid}/v2.0");
    let answer = |named: &str| {
        let metadata = serde_json::json!({"issuer": named, "jwks_uri": issuer.url("/common/keys")});
        issuer.answer("/organizations/v2.0/.well-known/openid-configuration", &metadata.to_string());
    };
    let (fetcher, source) = (fetcher(&issuer), KeySource::Discovery(template.clone()));
    answer(&template);
    assert_eq!(text(&fetcher, &source).await.unwrap(), "the keys of all tenants");
    for other in [issuer.url("/organizations/v2.0"), issuer.url("/{tenant}/v2.0"), issuer.url("/common/v2.0")]
    {
        answer(&other);
        assert!(matches!(text(&fetcher, &source).await, Err(FetchError::Document { .. })), "{other}");
    }
    // One tenant's issuer is never a template.
    let one = KeySource::Discovery(issuer.url("/bbbb/v2.0"));
    let metadata = serde_json::json!({"issuer": template, "jwks_uri": issuer.url("/common/keys")});
    issuer.answer("/bbbb/v2.0/.well-known/openid-configuration", &metadata.to_string());
    assert!(matches!(text(&fetcher, &one).await, Err(FetchError::Document { .. })));
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
async fn what_an_issuer_writes_is_shown_bounded_and_on_a_line() {
    let issuer = Issuer::start().await;
    let (fetcher, name) = (fetcher(&issuer), issuer.url(""));
    let evil =
        |start: &str| format!("{start}\n2026 INFO all is well\r\u{1b}[2J\u{85}{}", "x".repeat(100_000));
    let keys = issuer.url("/missing");
    for (named, jwks_uri) in [
        (evil(""), keys.clone()),
        (name.clone(), evil("http://issuer.example/")),
        (name.clone(), evil("no url")),
        (name.clone(), evil(&keys)),
        (name.clone(), format!("{keys}/{}", "x".repeat(10_000))),
    ] {
        let metadata = serde_json::json!({"issuer": named, "jwks_uri": jwks_uri});
        issuer.answer("/.well-known/openid-configuration", &metadata.to_string());
        let error = text(&fetcher, &KeySource::Discovery(name.clone())).await.unwrap_err().to_string();
        assert!(!error.contains(char::is_control) && error.chars().count() < 1_500, "{error}");
    }
    let metadata = serde_json::json!({"issuer": name, "jwks_uri": [], "claims_supported": evil("")});
    issuer.answer("/.well-known/openid-configuration", &metadata.to_string());
    let error = fetcher.discover(&name).await.unwrap_err().to_string();
    assert!(error.contains("not provider metadata") && error.chars().count() < 1_500, "{error}");
    let wrong = FetchError::Document { url: evil(""), why: evil("") }.to_string();
    assert!(!wrong.contains(char::is_control) && wrong.chars().count() < 1_500, "{wrong}");
}

#[tokio::test]
async fn redirects_on_the_same_host_are_followed_three_times() {
    let issuer = Issuer::start().await;
    issuer.answer("/3", "the document");
    issuer.redirect("/keys", &issuer.url("/1"));
    issuer.redirect("/1", "/2");
    issuer.redirect("/2", "3");
    assert_eq!(text(&fetcher(&issuer), &at(&issuer, "/keys")).await.unwrap(), "the document");
    issuer.redirect("/3", "/4");
    issuer.answer("/4", "the document");
    let error = refused(&issuer).await;
    assert!(matches!(error, FetchError::Redirect { .. }), "{error}");
    assert_eq!(issuer.asked("/4"), 0);
    issuer.redirect("/keys", "/keys");
    assert!(matches!(refused(&issuer).await, FetchError::Redirect { .. }));
}

#[tokio::test]
async fn redirects_to_anywhere_else_are_not_followed() {
    let (issuer, other) = (Issuer::start().await, Issuer::start().await);
    other.answer("/keys", "of somebody else");
    let port = issuer.address.port();
    for to in [
        other.url("/keys"),
        format!("https://127.0.0.1:{port}/other"),
        format!("http://localhost:{port}/other"),
        format!("//127.0.0.1:{port}/other"),
        "https://localhost/other".to_owned(),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "https://metadata.google.internal/computeMetadata/v1/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "https://".to_owned(),
    ] {
        issuer.redirect("/keys", &to);
        let error = refused(&issuer).await;
        assert!(matches!(error, FetchError::Redirect { .. }), "{to}: {error}");
    }
    assert!(other.requests.lock().unwrap().is_empty());
    assert_eq!(issuer.asked("/other"), 0);
    issuer.redirect("/keys", &format!("https://user:password@localhost:{port}/other"));
    assert!(matches!(refused(&issuer).await, FetchError::Url { .. }));
    issuer.answer_raw("/keys", "302 Found\r\ncontent-length: 0\r\n\r\n");
    assert!(matches!(refused(&issuer).await, FetchError::Status { status: 302, .. }));
}

#[tokio::test]
async fn a_document_that_is_known_does_not_come_again() {
    let issuer = Issuer::start().await;
    let (fetcher, source) = (fetcher(&issuer), at(&issuer, "/keys"));
    issuer.answer_raw(
        "/keys",
        "200 OK\r\netag: \"v1\"\r\ncache-control: max-age=600\r\ncontent-length: 1\r\nconnection: close\r\n\r\nk",
    );
    let first = fetcher.keys(&source, None).await.unwrap();
    assert_eq!((first.etag.as_deref(), first.fresh_for), (Some("\"v1\""), Some(Duration::from_secs(600))));
    issuer.answer_raw("/keys", "304 Not Modified\r\ncache-control: max-age=60\r\nconnection: close\r\n\r\n");
    let known = Known { url: first.url, etag: first.etag.unwrap() };
    let second = fetcher.keys(&source, Some(&known)).await.unwrap();
    assert_eq!(second.document, None);
    assert_eq!((second.etag.as_deref(), second.fresh_for), (Some("\"v1\""), Some(Duration::from_secs(60))));
    let asked = issuer.requests.lock().unwrap().last().unwrap().to_lowercase();
    assert!(asked.contains("if-none-match: \"v1\""), "{asked}");
    // Nobody asked, or about another document.
    for known in [None, Some(Known { url: issuer.url("/other"), ..known })] {
        let error = fetcher.keys(&source, known.as_ref()).await.unwrap_err();
        assert!(matches!(error, FetchError::Status { status: 304, .. }), "{error}");
    }
}

#[tokio::test]
async fn an_issuer_that_does_not_answer_is_given_up_whatever_it_sends_meanwhile() {
    let issuer = Issuer::start().await;
    let fetcher = fetcher(&issuer).with_patience(Duration::from_millis(300));
    issuer.answer_raw("/keys", "");
    // A document that begins and does not end, and metadata that comes in time for keys that do not.
    issuer.answer_raw("/begun", "200 OK\r\ncontent-length: 9\r\n\r\n");
    let metadata = serde_json::json!({"issuer": issuer.url(""), "jwks_uri": issuer.url("/keys")});
    issuer.answer("/.well-known/openid-configuration", &metadata.to_string());
    for source in [at(&issuer, "/keys"), KeySource::Discovery(issuer.url(""))] {
        let error = text(&fetcher, &source).await.unwrap_err().to_string();
        assert!(error.contains("no complete answer within 0.3 s"), "{error}");
    }
    let error = text(&fetcher, &at(&issuer, "/begun")).await.unwrap_err();
    assert!(matches!(error, FetchError::Transport { .. }), "{error}");
}

#[tokio::test]
async fn a_document_is_read_up_to_its_limit_and_no_further() {
    let issuer = Issuer::start().await;
    let (fetcher, source) = (fetcher(&issuer), at(&issuer, "/keys"));
    issuer.answer("/keys", &"k".repeat(MAX_JWKS_BYTES));
    assert_eq!(text(&fetcher, &source).await.unwrap().len(), MAX_JWKS_BYTES);
    issuer.answer("/keys", &"k".repeat(MAX_JWKS_BYTES + 1));
    let error = text(&fetcher, &source).await.unwrap_err();
    assert!(matches!(error, FetchError::TooLarge { .. }), "{error}");
    // Without a length, as a stream that does not end.
    issuer.answer_raw("/keys", &format!("200 OK\r\n\r\n{}", "k".repeat(MAX_JWKS_BYTES + 1)));
    let error = text(&fetcher, &source).await.unwrap_err();
    assert!(matches!(error, FetchError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn loopback_is_refused_as_a_name_and_as_an_address() {
    let issuer = Issuer::start().await;
    issuer.answer("/keys", "secret");
    let guarded = Fetcher::new(std::slice::from_ref(&issuer.authority), AddressGuard::default()).unwrap();
    for host in ["localhost", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0x7f.1", "2130706433"] {
        let url = format!("https://{host}:{}/keys", issuer.address.port());
        let error = text(&guarded, &KeySource::Url(url.clone())).await.unwrap_err().to_string();
        assert!(error.contains("no address that keys may be fetched from"), "{url}: {error}");
    }
}

#[tokio::test]
async fn an_issuer_with_a_certificate_of_an_unknown_authority_is_refused() {
    let (issuer, other) = (Issuer::start().await, Issuer::start().await);
    issuer.answer("/keys", "the document");
    let error = text(&fetcher(&other), &at(&issuer, "/keys")).await.unwrap_err().to_string();
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
        let error = text(&fetcher, &KeySource::Url(url.to_owned())).await.unwrap_err();
        assert!(matches!(error, FetchError::Url { .. }), "{url}: {error}");
    }
}
