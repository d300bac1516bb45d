use super::*;
use crate::keys::AddressGuard;
use crate::keys::testing::{Issuer as Server, key, key_set};
use crate::rules::{Environment, Files};
use crate::serve::compile_files;
use serde_json::json;
use tidegate_identity::PackKind;

const NOW: i64 = 1_800_000_000;

fn fetcher(server: &Server) -> Fetcher {
    Fetcher::new(std::slice::from_ref(&server.authority), AddressGuard::new(true, [])).unwrap()
}

fn describe(server: &Server, path: &str, issuer: &str, more: serde_json::Value) {
    let mut metadata = json!({"issuer": issuer, "jwks_uri": server.url("/keys")});
    metadata.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    server.answer(&format!("{path}/.well-known/openid-configuration"), &metadata.to_string());
}

async fn add(server: &Server, issuer: &str, jwks_uri: Option<&str>) -> anyhow::Result<Found> {
    from_network(&issuer.parse()?, jwks_uri, &fetcher(server)).await
}

async fn refusal(server: &Server, issuer: &str) -> String {
    match add(server, issuer, None).await {
        Err(error) => error.to_string(),
        Ok(found) => panic!("{issuer}: {}", found.issuer),
    }
}

#[test]
fn no_character_of_a_key_or_issuer_ends_a_line() {
    let breaks = "k\u{85}evil: 1\u{2028}evil: 2\u{2029}evil: 3\u{7f}";
    let keys = [key(breaks)];
    let document = json!({"keys": keys}).to_string();
    let yaml = |issuer: &str, source| {
        let yaml = Draft::new(found(issuer, PackKind::Generic, source, &keys), None).yaml(NOW);
        assert!(!yaml.contains(['\u{85}', '\u{2028}', '\u{2029}', '\u{7f}']), "{yaml}");
        serde_saphyr::from_str::<serde_json::Value>(&yaml).unwrap()
    };
    let read = yaml("https://a.example", KeySource::Inline(document));
    let jwks: serde_json::Value =
        serde_json::from_str(read["spec"]["keys"]["jwks"].as_str().unwrap()).unwrap();
    assert_eq!(jwks["keys"][0]["kid"], breaks);
    let url = "https://a.example/\u{2028}é";
    assert_eq!(yaml("https://a.example", KeySource::Url(url.into()))["spec"]["keys"]["jwksUri"], url);
}

/// Rules that compile only if the draft is a TrustedIssuer, and its example names what the pack's tokens have.
fn compiles(yaml: &str) {
    let from = yaml.lines().find_map(|line| line.strip_prefix("#   from: ")).unwrap();
    let rules = format!(
        r#"
apiVersion: tidegate.dev/v1alpha1
kind: Mesh
metadata: {{name: prod}}
spec:
  trustDomain: prod.example
  rootNamespace: mesh-config
  workloads: [{{namespace: sales, name: orders, labels: {{app: orders}}, serviceAccount: orders}}]
---
apiVersion: tidegate.dev/v1alpha1
kind: Guard
metadata: {{name: sales, namespace: sales}}
spec: {{mode: Enforce, audience: "https://orders.sales.example"}}
---
apiVersion: tidegate.dev/v1alpha1
kind: AccessRule
metadata: {{name: example, namespace: sales}}
spec:
  owner: billing
  effect: Allow
  mode: Enforce
  from: {from}
  to: [{{http: {{methods: [POST], paths: ["/v1/orders"]}}}}]
"#
    );
    let files = Files::from([("issuer.yaml".to_owned(), yaml.to_owned()), ("rules.yaml".to_owned(), rules)]);
    let compilation = compile_files(&files, &Environment::new());
    assert!(compilation.output.is_some(), "{yaml}\n{:#?}", compilation.diagnostics);
}

fn found(issuer: &str, pack: PackKind, source: KeySource, keys: &[serde_json::Value]) -> Found {
    let document = json!({"keys": keys}).to_string();
    let keys = fit_keys(&document, pack).unwrap();
    Found { issuer: issuer.into(), pack, source, document, keys, at: format!("{issuer}/keys") }
}

#[tokio::test]
async fn an_issuer_is_taken_as_it_describes_itself() {
    let server = Server::start().await;
    server.answer("/keys", &key_set("k1"));
    let name = server.url("");
    describe(&server, "", &name, json!({"claims_supported": ["project_path", "ref_protected"]}));
    for asked in [name.clone(), format!("{name}/"), format!("{name}/.well-known/openid-configuration")] {
        let found = add(&server, &asked, None).await.unwrap();
        assert_eq!((found.issuer.as_str(), found.pack), (name.as_str(), PackKind::Gitlab), "{asked}");
        let yaml = Draft::new(found, None).yaml(NOW);
        assert!(yaml.contains("# Keys: k1\n") && yaml.contains("keys: {discovery: true}"), "{yaml}");
        assert!(yaml.contains("at 2027-01-15T08:00Z"), "{yaml}");
        compiles(&yaml);
    }
}

#[tokio::test]
async fn an_issuer_that_calls_itself_otherwise_is_taken_under_its_own_name_if_it_says_so_there() {
    let server = Server::start().await;
    server.answer("/keys", &key_set("k1"));
    describe(&server, "/contoso.example", &server.url("/bbbb"), json!({}));
    let error = refusal(&server, &server.url("/contoso.example")).await;
    assert!(error.contains("where nothing says so"), "{error}");
    describe(&server, "/bbbb", &server.url("/bbbb"), json!({}));
    let found = add(&server, &server.url("/contoso.example"), None).await.unwrap();
    assert_eq!(found.issuer, server.url("/bbbb"));
    assert_eq!(other_host(&found.issuer, &server.url("/contoso.example")), None);
    // The same server under another name and another port.
    let other = Server::start().await;
    describe(&other, "", &server.url("/bbbb"), json!({}));
    let both = [server.authority.clone(), other.authority.clone()];
    let fetcher = Fetcher::new(&both, AddressGuard::new(true, [])).unwrap();
    let asked = other.url("").parse::<Asked>().unwrap();
    let found = from_network(&asked, None, &fetcher).await.unwrap();
    let warning = other_host(&asked.issuer, &found.issuer).unwrap();
    assert!(warning.contains(&other.url("")) && warning.contains(&server.url("/bbbb")), "{warning}");
    // Whoever answers for somebody else is not believed.
    describe(&server, "/evil", "https://accounts.google.invalid", json!({}));
    let error = refusal(&server, &server.url("/evil")).await;
    assert!(error.contains("`https://accounts.google.invalid`, where nothing says so"), "{error}");
}

#[tokio::test]
async fn what_goes_wrong_is_told_with_what_to_do() {
    let server = Server::start().await;
    let error = refusal(&server, &server.url("/nothing")).await;
    assert!(error.contains("answered 404") && error.contains("--jwks-uri or --keys"), "{error}");
    server.answer("/html/.well-known/openid-configuration", "<html>\u{1b}[31m");
    let error = refusal(&server, &server.url("/html")).await;
    assert!(error.contains("not provider metadata") && error.contains("token explain"), "{error}");
    describe(&server, "/empty", &server.url("/empty"), json!({}));
    server.answer("/keys", r#"{"keys": []}"#);
    assert!(refusal(&server, &server.url("/empty")).await.contains("the key set is empty"));
    let error = refusal(&server, "spiffe://batch.example").await;
    assert!(error.contains("--jwks-uri") && error.contains("--keys"), "{error}");
    let error = refusal(&server, "https://10.0.0.1").await;
    assert!(error.contains("--allow-issuer-network 10.0.0.0/24") && error.contains("--keys FILE"), "{error}");
    let error = refusal(&server, "https://169.254.169.254").await;
    assert!(error.contains("never asked") && !error.contains("--allow-issuer"), "{error}");
    let stranger = Server::start().await;
    let error = refusal(&stranger, &server.url("")).await;
    assert!(error.contains("--issuer-ca"), "{error}");
}

#[tokio::test]
async fn a_spiffe_bundle_is_taken_from_where_it_is_said_to_be() {
    let server = Server::start().await;
    let mut svid = key("k1");
    svid["use"] = "jwt-svid".into();
    let bundle = json!({"keys": [svid, {"kty": "RSA", "use": "x509-svid"}], "spiffe_sequence": 1});
    server.answer("/bundle", &bundle.to_string());
    let found = add(&server, "spiffe://batch.example", Some(&server.url("/bundle"))).await.unwrap();
    assert_eq!(found.pack, PackKind::Spiffe);
    let yaml = Draft::new(found, None).yaml(NOW);
    assert!(yaml.contains("metadata: {name: batch-example}"), "{yaml}");
    assert!(yaml.contains("# Not used: key 1"), "{yaml}");
    compiles(&yaml);
}

#[test]
fn keys_in_a_file_are_written_into_the_rules_without_what_is_not_needed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let mut one = key("k1");
    one["x5c"] = json!(["MIIB"]);
    std::fs::write(&file, json!({"keys": [one, {"kty": "oct", "k": "c2VjcmV0"}]}).to_string()).unwrap();
    let asked = "https://kubernetes.default.svc".parse::<Asked>().unwrap();
    let draft = Draft::new(from_file(&asked, &file).unwrap(), None);
    let yaml = draft.yaml(NOW);
    assert!(yaml.contains("pack: kubernetes") && yaml.contains("rotateEvery: 90d"), "{yaml}");
    assert!(!yaml.contains("x5c") && !yaml.contains("c2VjcmV0"), "{yaml}");
    compiles(&yaml);

    std::fs::write(&file, "[]").unwrap();
    let error = from_file(&asked, &file).err().unwrap().to_string();
    assert!(error.contains("JSON Web Key Set"), "{error}");
    assert!(
        from_file(&asked, &folder.path().join("missing")).err().unwrap().to_string().contains("cannot read")
    );
}

#[test]
fn every_pack_s_draft_compiles_with_its_example_and_as_json() {
    let issuers = [
        ("https://accounts.google.com", PackKind::Google, "google"),
        (
            "https://container.googleapis.com/v1/projects/p/locations/l/clusters/Prod_1",
            PackKind::Kubernetes,
            "prod-1",
        ),
        ("https://gitlab.com", PackKind::Gitlab, "gitlab"),
        (
            "https://login.microsoftonline.com/bbbbbbbb-0000-4000-8000-000000000002/v2.0",
            PackKind::Entra,
            "entra",
        ),
        ("https://id.example/oauth2/aus0example", PackKind::Okta, "okta"),
        ("https://00000000-1111-2222-3333-444444444444.tokens.sts.global.api.aws", PackKind::Aws, "aws"),
        ("spiffe://batch.example", PackKind::Spiffe, "batch-example"),
        ("https://token.actions.githubusercontent.com", PackKind::Github, "github"),
        ("https://login.sales.example:8443/x", PackKind::Generic, "login-sales-example"),
    ];
    assert_eq!(issuers.len(), PackKind::ALL.len());
    for (issuer, pack, name) in issuers {
        let source = match pack {
            PackKind::Spiffe => KeySource::Url("https://spire.example/bundle".into()),
            _ => KeySource::Discovery(issuer.into()),
        };
        let mut key = key("k1");
        key["use"] = if pack == PackKind::Spiffe { "jwt-svid".into() } else { "sig".into() };
        let draft = Draft::new(found(issuer, pack, source, &[key]), None);
        let object = draft.object();
        assert_eq!(
            (object["metadata"]["name"].as_str(), object["spec"]["pack"].as_str()),
            (Some(name), Some(pack.name()))
        );
        let yaml = draft.yaml(NOW);
        compiles(&yaml);
        let from_yaml: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(from_yaml, object);
    }
}

#[test]
fn an_issuer_of_another_host_is_told_apart() {
    for (asked, named, is_told) in [
        ("https://a.example", "https://a.example/", false),
        ("https://a.example/x", "https://A.example:443/y", false),
        ("spiffe://a.example", "spiffe://a.example", false),
        ("https://a.example", "https://b.example", true),
        ("https://a.example", "https://a.example.b.example", true),
        ("https://a.example", "https://a.example:8443", true),
        ("https://a.example", "a.example", true),
        ("https://a.example", "https://b.example\n\u{1b}[2J", true),
    ] {
        let told = other_host(asked, named);
        assert_eq!(told.is_some(), is_told, "{asked} {named}: {told:?}");
        assert!(!told.is_some_and(|told| told.contains(char::is_control)), "{named}");
    }
}

#[test]
fn names_are_checked_before_they_are_printed() {
    assert_eq!(draft::name("gitlab-2").unwrap(), "gitlab-2");
    for name in ["", "Gitlab", "git lab", "-a", "a-", "a}, x: {", &"x".repeat(64)] {
        let error = draft::name(name).unwrap_err();
        assert!(error.contains("lower-case"), "{name}: {error}");
    }
}

#[test]
fn what_an_issuer_writes_cannot_leave_its_comment_or_value() {
    let key = key("k1\n  evil: true # \u{1b}[31m");
    let source = KeySource::Url("https://a.example/\"}\nevil: true".into());
    let yaml = Draft::new(found("https://a.example", PackKind::Generic, source, &[key]), None).yaml(NOW);
    assert!(!yaml.contains("\nevil") && !yaml.contains("\n  evil") && !yaml.contains('\u{1b}'), "{yaml}");
}
