//! Credentials for Google's APIs, from the metadata server of the machine that this runs on.
//!
//! `GET /computeMetadata/v1/instance/service-accounts/default/token`, answered by
//! `{"access_token": …, "expires_in": …, "token_type": "Bearer"}`.
//!
//! INVARIANT: a token is in memory only, and in headers that are marked as sensitive.

use std::time::Duration;

use reqwest::Client;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderValue};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use super::http::{ReadError, SourceError, below, bytes, get, plain_base};

/// For the answer of the metadata server.
const TIMEOUT: Duration = Duration::from_secs(3);
/// A token is not used when less remains.
const MARGIN: Duration = Duration::from_secs(60);
/// A token is never kept for longer, whatever is said.
const LONGEST: Duration = Duration::from_secs(12 * 3600);

/// Gives tokens.
#[derive(Debug)]
pub(super) struct MetadataServer {
    client: Client,
    url: Url,
    current: Mutex<Option<Token>>,
}

#[derive(Debug)]
struct Token {
    /// `Bearer …`.
    authorization: HeaderValue,
    until: Instant,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    expires_in: u64,
    token_type: String,
}

// === impl MetadataServer ===

impl MetadataServer {
    pub(super) fn new(client: Client, base: &str) -> Result<Self, SourceError> {
        let path = ["computeMetadata", "v1", "instance", "service-accounts", "default", "token"];
        Ok(Self { client, url: below(&plain_base(base)?, &path, &[]), current: Mutex::default() })
    }

    /// The value of `Authorization`. Another one than `refused`, which was not accepted, if there is any.
    pub(super) async fn authorization(
        &self,
        refused: Option<&HeaderValue>,
    ) -> Result<HeaderValue, ReadError> {
        // Held while asking: everybody waits for one answer.
        let mut current = self.current.lock().await;
        let is_good = |token: &Token| token.until > Instant::now() && Some(&token.authorization) != refused;
        if let Some(token) = current.as_ref().filter(|token| is_good(token)) {
            return Ok(token.authorization.clone());
        }
        *current = None;
        let token = self.ask().await?;
        let authorization = token.authorization.clone();
        *current = Some(token);
        Ok(authorization)
    }

    async fn ask(&self) -> Result<Token, ReadError> {
        let failed = |why: &str| ReadError::Credentials(format!("{}: {why}", self.url));
        let mut headers = HeaderMap::new();
        headers.insert("metadata-flavor", HeaderValue::from_static("Google"));
        let asked = Instant::now();
        let response = get(&self.client, &self.url, headers, TIMEOUT).await.map_err(|error| {
            ReadError::Credentials(format!(
                "{error}; is this a machine of Google's, or a pod with an account of its own? elsewhere \
                 `--directory` lists the ids"
            ))
        })?;
        if response.status() != StatusCode::OK {
            let status = response.status();
            return Err(failed(&format!("answered {status}; has this machine or pod a service account?")));
        }
        if response.headers().get("metadata-flavor").is_none_or(|flavor| flavor != "Google") {
            return Err(failed("not a metadata server: it does not say `Metadata-Flavor: Google`"));
        }
        let body =
            bytes(&self.url, response).await.map_err(|error| ReadError::Credentials(error.to_string()))?;
        // What serde says may quote the token.
        let answer: Answer =
            serde_json::from_slice(&body).map_err(|_| failed("its answer is not an access token"))?;
        if !answer.token_type.eq_ignore_ascii_case("bearer") {
            return Err(failed("its answer is not a bearer token"));
        }
        let lifetime = Duration::from_secs(answer.expires_in).min(LONGEST);
        let authorization =
            sensitive(&answer.access_token).ok_or_else(|| failed("its answer is not an access token"))?;
        Ok(Token { authorization, until: asked + lifetime.saturating_sub(MARGIN) })
    }
}

/// `Bearer TOKEN`, not to be logged; `None` when it cannot be one.
pub(super) fn sensitive(token: &str) -> Option<HeaderValue> {
    if token.is_empty() {
        return None;
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}
