//! Issuers for tests: a key set, and an HTTPS server that answers what it is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A key set with one new P-256 key.
pub fn key_set(kid: &str) -> String {
    serde_json::json!({"keys": [key(kid)]}).to_string()
}

/// A new P-256 key.
pub fn key(kid: &str) -> serde_json::Value {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = pair.public_key().as_ref();
    let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..65]));
    serde_json::json!({"kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "x": x, "y": y})
}

/// Answers HTTPS requests on loopback with what is set for their path, else 404.
pub struct Issuer {
    pub address: SocketAddr,
    /// To be trusted.
    pub authority: CertificateDer<'static>,
    /// Everything after the status line's version, by path. An empty one never comes.
    pub answers: Arc<Mutex<BTreeMap<String, String>>>,
    /// The head of every request.
    pub requests: Arc<Mutex<Vec<String>>>,
}

impl Issuer {
    pub async fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let authority = made.cert.der().clone();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![authority.clone()], key.into())
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers = Arc::new(Mutex::new(BTreeMap::<String, String>::new()));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let shared = (answers.clone(), requests.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, (answers, requests)) = (acceptor.clone(), shared.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        let mut byte = [0];
                        if stream.read_exact(&mut byte).await.is_err() {
                            return;
                        }
                        request.push(byte[0]);
                    }
                    let request = String::from_utf8(request).unwrap();
                    let path = request.split(' ').nth(1).unwrap();
                    requests.lock().unwrap().push(request.clone());
                    let answer = answers.lock().unwrap().get(path).cloned();
                    if answer.as_deref() == Some("") {
                        std::future::pending::<()>().await;
                    }
                    let answer =
                        answer.unwrap_or_else(|| "404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned());
                    let _ = stream.write_all(format!("HTTP/1.1 {answer}").as_bytes()).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self { address, authority, answers, requests }
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }

    pub fn answer(&self, path: &str, body: &str) {
        let answer = format!("200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        self.answer_raw(path, &answer);
    }

    /// A redirect from `path`.
    pub fn redirect(&self, path: &str, to: &str) {
        self.answer_raw(path, &format!("302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n"));
    }

    /// How often `path` was asked for.
    pub fn asked(&self, path: &str) -> usize {
        let start = format!("GET {path} ");
        self.requests.lock().unwrap().iter().filter(|request| request.starts_with(&start)).count()
    }

    pub fn answer_raw(&self, path: &str, answer: &str) {
        self.answers.lock().unwrap().insert(path.to_owned(), answer.to_owned());
    }
}
