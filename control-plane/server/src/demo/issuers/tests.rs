use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::json;

use super::super::client::{Answer, Call, Endpoint, Protocol};
use super::*;

const AUDIENCE: &str = "https://orders.sales.example";

fn worker() -> GoogleInstance {
    GoogleInstance {
        email: "df-worker@acme.iam.gserviceaccount.com".into(),
        subject: "100000000000000000001".into(),
        project: "acme".into(),
        project_number: 123_456_789_012,
        zone: "europe-west4-b".into(),
        instance_id: "4570000000000000001".into(),
        instance_name: "orders-etl-11210101-ab1c-harness-x9z0".into(),
    }
}

fn job() -> GitLabJob {
    GitLabJob {
        project_id: "4711".into(),
        project_path: "data/orders".into(),
        namespace_id: "72".into(),
        job_project_id: "4711".into(),
        branch: "main".into(),
        protected: true,
        source: "push".into(),
        environment: Some("production".into()),
        user_access_level: "maintainer".into(),
    }
}

fn pod() -> KubernetesPod {
    KubernetesPod { namespace: "etl".into(), service_account: "orders-worker".into(), pod: "orders-0".into() }
}

async fn get(issuers: &Issuers, issuer: &Issuer, path: &str) -> Answer {
    let endpoint = Endpoint::tls(issuer.address(), issuers.authority_pem(), "127.0.0.1");
    endpoint.call(Protocol::Http1, Call::new(Method::GET, path)).await.unwrap()
}

async fn published(issuers: &Issuers, issuer: &Issuer) -> JwkSet {
    let origin = format!("https://{}", issuer.address());
    let path = |uri: &str| uri.strip_prefix(&origin).unwrap().to_owned();
    let discovery = get(issuers, issuer, &path(&issuer.discovery_uri())).await.json().unwrap();
    assert_eq!(discovery["issuer"], issuer.url());
    assert_eq!(discovery["jwks_uri"], issuer.jwks_uri());
    let path = path(&issuer.jwks_uri());
    serde_json::from_slice(&get(issuers, issuer, &path).await.body).unwrap()
}

/// An independent, ordinary verifier.
fn verify(set: &JwkSet, token: &str) -> Result<Value, jsonwebtoken::errors::Error> {
    let header = decode_header(token)?;
    let jwk = set.find(header.kid.as_deref().unwrap()).unwrap();
    let mut validation = Validation::new(header.alg);
    validation.set_audience(&[AUDIENCE]);
    validation.leeway = 0;
    assert!(matches!(header.alg, Algorithm::RS256 | Algorithm::ES256));
    Ok(decode::<Value>(token, &DecodingKey::from_jwk(jwk)?, &validation)?.claims)
}

#[tokio::test]
async fn honest_tokens_verify_with_the_published_keys() {
    let issuers = Issuers::start().await.unwrap();
    for (issuer, draft) in [
        (&issuers.google, issuers.google.instance_token(&worker(), AUDIENCE)),
        (&issuers.google, issuers.google.service_account_token(&worker(), AUDIENCE)),
        (&issuers.gitlab, issuers.gitlab.job_token(&job(), AUDIENCE)),
        (&issuers.cluster, issuers.cluster.pod_token(&pod(), AUDIENCE)),
        (
            &issuers.cluster,
            issuers
                .cluster
                .pod_token(&pod(), AUDIENCE)
                .signed_by(&issuers.cluster.key(KeyKind::Es256).expect("a cluster has both kinds")),
        ),
    ] {
        let set = published(&issuers, issuer).await;
        let claims = verify(&set, &draft.sign().unwrap()).unwrap();
        assert_eq!(claims, draft.claims);
        assert_eq!(claims["iss"], issuer.url());
    }
    assert_eq!(issuers.google.fetches(), 2);
}

#[tokio::test]
async fn every_bent_token_is_refused_by_an_ordinary_verifier() {
    let issuers = Issuers::start().await.unwrap();
    let set = published(&issuers, &issuers.google).await;
    let draft = issuers.google.instance_token(&worker(), AUDIENCE);
    verify(&set, &draft.sign().unwrap()).unwrap();
    let other = Arc::new(SigningKey::generate(KeyKind::Rs256).unwrap());
    for (name, bent) in [
        ("expired", draft.clone().expired()),
        ("audience", draft.clone().audience("https://elsewhere.example")),
        ("damaged", draft.clone().damaged()),
        ("other key, same kid", draft.clone().forged_with(&other)),
    ] {
        assert_eq!(
            decode_header(bent.sign().unwrap()).unwrap().kid.as_deref(),
            Some(issuers.google.signing_key().id())
        );
        assert!(verify(&set, &bent.sign().unwrap()).is_err(), "{name}");
    }
    // The ordinary verifier does not even read this header.
    let unsigned = draft.clone().unsigned().sign().unwrap();
    assert!(unsigned.ends_with('.') && decode_header(&unsigned).is_err(), "{unsigned}");
}

#[tokio::test]
async fn algorithm_confusion_is_a_valid_signature_for_whoever_takes_the_public_key_for_a_secret() {
    let issuers = Issuers::start().await.unwrap();
    let token = issuers.google.instance_token(&worker(), AUDIENCE).hmac_with_public_key().sign().unwrap();
    assert_eq!(decode_header(&token).unwrap().alg, Algorithm::HS256);
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_audience(&[AUDIENCE]);
    let secret = DecodingKey::from_secret(issuers.google.signing_key().public_pem().as_bytes());
    decode::<Value>(&token, &secret, &validation).unwrap();
}

#[tokio::test]
async fn claims_have_the_shapes_of_the_real_issuers() {
    let issuers = Issuers::start().await.unwrap();
    let google = issuers.google.instance_token(&worker(), AUDIENCE);
    let compute = &google.claims["google"]["compute_engine"];
    assert!(compute["instance_id"].is_string() && compute["project_number"].is_u64(), "{compute}");
    assert_eq!(google.header["typ"], "JWT");

    let gitlab = issuers.gitlab.job_token(&job(), AUDIENCE);
    assert_eq!(gitlab.claims["ref_protected"], "true");
    assert_eq!(gitlab.claims["project_id"], "4711");
    assert_eq!(gitlab.claims["environment"], "production");
    let without = issuers.gitlab.job_token(&GitLabJob { environment: None, ..job() }, AUDIENCE);
    assert_eq!(without.claims.get("environment"), None);

    let pod = issuers.cluster.pod_token(&pod(), AUDIENCE);
    assert_eq!(pod.claims["aud"], json!([AUDIENCE]));
    assert_eq!(pod.claims["sub"], "system:serviceaccount:etl:orders-worker");
    assert_eq!(pod.claims["kubernetes.io"]["serviceaccount"]["name"], "orders-worker");
    assert_eq!(pod.header.get("typ"), None);
    assert_eq!(pod.clone().audience("x").claims["aud"], json!(["x"]));
}

#[tokio::test]
async fn a_draft_can_be_changed_in_every_part() {
    let issuers = Issuers::start().await.unwrap();
    let token = issuers
        .gitlab
        .job_token(&job(), AUDIENCE)
        .header(|header| header["crit"] = json!(["b64"]))
        .claims(|claims| claims["exp"] = json!("soon"))
        .claim("extra", 1)
        .without("sub")
        .sign()
        .unwrap();
    let part = |index: usize| -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(index).unwrap()).unwrap())
            .unwrap()
    };
    assert_eq!(part(0)["crit"], json!(["b64"]));
    let claims = part(1);
    assert_eq!((&claims["exp"], &claims["extra"], claims.get("sub")), (&json!("soon"), &json!(1), None));
}

#[tokio::test]
async fn rotation_publishes_both_keys_until_the_old_one_is_withdrawn() {
    let issuers = Issuers::start().await.unwrap();
    let before = issuers.google.instance_token(&worker(), AUDIENCE).sign().unwrap();
    let key = issuers.google.rotate(KeyKind::Rs256).unwrap();
    let after = issuers.google.instance_token(&worker(), AUDIENCE).sign().unwrap();
    assert_eq!(decode_header(&after).unwrap().kid.as_deref(), Some(key.id()));
    let both = published(&issuers, &issuers.google).await;
    verify(&both, &before).unwrap();
    verify(&both, &after).unwrap();
    issuers.google.withdraw_old_keys();
    let one = published(&issuers, &issuers.google).await;
    assert_eq!(one.keys.len(), 1);
    verify(&one, &after).unwrap();
}

#[tokio::test]
async fn the_documents_carry_the_headers_of_the_real_issuers_and_the_server_can_be_down() {
    let issuers = Issuers::start().await.unwrap();
    let answer = get(&issuers, &issuers.cluster, "/openid/v1/jwks").await;
    assert_eq!(answer.header("content-type"), Some("application/jwk-set+json"));
    assert_eq!(answer.header("cache-control"), Some("public, max-age=3600"));
    assert_eq!(get(&issuers, &issuers.cluster, "/oauth2/v3/certs").await.status, 404);
    issuers.cluster.behave(Behaviour::Down);
    assert_eq!(get(&issuers, &issuers.cluster, "/openid/v1/jwks").await.status, 503);
    issuers.cluster.behave(Behaviour::Normal);
    assert_eq!(get(&issuers, &issuers.cluster, "/openid/v1/jwks").await.status, 200);
}

#[tokio::test]
async fn tokens_of_every_provider_and_kind_of_key_verify() {
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
        RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
    };
    let issuers = Issuers::start().await.unwrap();
    let all = issuers.providers().await.unwrap();
    let drafts = [
        (&all.entra, all.entra.entra_app_token("cccccccc-0000-4000-8000-000000000003", AUDIENCE)),
        (&all.okta, all.okta.okta_client_token("0oa0example", AUDIENCE)),
        (&all.aws, all.aws.aws_role_token("OrdersEtl", AUDIENCE)),
        (&all.github, all.github.github_job_token(AUDIENCE)),
        (&all.spiffe, all.spiffe.jwt_svid("/ns/etl/sa/orders", AUDIENCE)),
        (&all.oauth, all.oauth.access_token("orders", AUDIENCE)),
    ];
    for (issuer, draft) in drafts {
        let origin = format!("https://{}", issuer.address());
        let set =
            get(&issuers, issuer, issuer.jwks_uri().strip_prefix(&origin).unwrap()).await.json().unwrap();
        assert_eq!(set["keys"][0]["kid"], issuer.signing_key().id());
        for kind in KeyKind::ALL {
            let key = Arc::new(SigningKey::generate(kind).unwrap());
            let token = draft.clone().signed_by(&key).sign().unwrap();
            let (input, signature) = token.rsplit_once('.').unwrap();
            let algorithm: &'static dyn VerificationAlgorithm = match kind {
                KeyKind::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
                KeyKind::Ps256 => &RSA_PSS_2048_8192_SHA256,
                KeyKind::Es256 => &ECDSA_P256_SHA256_FIXED,
                KeyKind::Es384 => &ECDSA_P384_SHA384_FIXED,
                KeyKind::Es512 => &ECDSA_P521_SHA512_FIXED,
                KeyKind::EdDsa => &ED25519,
            };
            let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
            let public = UnparsedPublicKey::new(algorithm, key.public_der());
            public.verify(input.as_bytes(), &signature).unwrap_or_else(|_| panic!("{kind:?}"));
        }
    }
}

#[tokio::test]
async fn an_issuer_can_misbehave() {
    let issuers = Issuers::start().await.unwrap();
    let path = "/openid/v1/jwks";
    let answer = |behaviour| {
        issuers.cluster.behave(behaviour);
        get(&issuers, &issuers.cluster, path)
    };
    assert!(answer(Behaviour::Huge).await.body.len() > 10_000_000);
    assert_eq!(answer(Behaviour::Elsewhere).await.header("location"), Some("https://localhost:1/keys"));
    assert!(answer(Behaviour::Garbage).await.json().is_none());
    assert_eq!(answer(Behaviour::Empty).await.json().unwrap()["keys"], json!([]));
    issuers.cluster.behave(Behaviour::Silent);
    let silent = get(&issuers, &issuers.cluster, path);
    assert!(tokio::time::timeout(std::time::Duration::from_millis(300), silent).await.is_err());
}
