//! Asks a control plane that runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
pub(super) use reqwest::Method;
use reqwest::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::runtime;
use crate::keys::plain_client;
use crate::transport::{ClientTls, VerifiedPeer};

/// Where `tidegate serve` listens unless it is told otherwise.
pub(super) const DEFAULT_ADMIN: &str = "http://127.0.0.1:15081";

/// How long the control plane may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who is asking, and whom: for an admin interface that speaks TLS.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "TLS of the admin interface")]
pub(super) struct AdminTls {
    /// Who may have issued the certificate of the admin interface, PEM. Needed where its address begins with https
    #[arg(long, value_name = "FILE")]
    admin_ca: Option<PathBuf>,
    /// Our certificate, PEM: one of a principal that `tidegate serve --admin-principals` lists
    #[arg(long, value_name = "FILE", requires_all = ["admin_key", "admin_ca"])]
    admin_cert: Option<PathBuf>,
    /// Private key of our certificate, PEM
    #[arg(long, value_name = "FILE", requires = "admin_cert")]
    admin_key: Option<PathBuf>,
    /// SPIFFE id that the control plane's certificate must have [default: it must be for the host that is called]
    #[arg(long, value_name = "SPIFFE_ID", requires = "admin_ca")]
    admin_id: Option<VerifiedPeer>,
}

// === impl AdminTls ===

impl AdminTls {
    /// A client for this address.
    pub(super) fn client(&self, url: &str) -> anyhow::Result<reqwest::Client> {
        let read =
            |path: &Path| std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()));
        let Some(authorities) = &self.admin_ca else {
            if url.starts_with("https:") {
                bail!("{url} speaks TLS: say with --admin-ca who issued its certificate");
            }
            return plain_client().context("cannot set up HTTP");
        };
        if !url.starts_with("https:") {
            bail!(
                "{url} is in plain text, so --admin-ca and a certificate are of no use; write https://HOST:PORT"
            );
        }
        let credential = match (&self.admin_cert, &self.admin_key) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
            _ => None,
        };
        let tls =
            ClientTls { authorities: read(authorities)?, credential, server: self.admin_id.clone() }.config();
        let tls = tls.map_err(|why| anyhow!("--admin-ca, --admin-cert and --admin-key: {why}"))?;
        let client = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().timeout(PATIENCE);
        client.build().context("cannot set up HTTP")
    }
}

/// What came of something that was asked to be done.
pub(super) enum Answer<T> {
    /// It is done.
    Done(T),
    /// It is not, and why.
    Refused(String),
}

/// An admin address, as people write it (`host:port`), as a URL.
pub(super) fn base(admin: &str) -> String {
    let base = if admin.contains("://") { admin.to_owned() } else { format!("http://{admin}") };
    base.trim_end_matches('/').to_owned()
}

/// An answer that is none of refusal.
pub(super) async fn answered(answer: reqwest::Response) -> anyhow::Result<reqwest::Response> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let why = one_line(&answer.text().await.unwrap_or_default());
    bail!("it answered {status}{}{why}", if why.is_empty() { "" } else { ": " })
}

/// What the admin interface says at this path.
pub(super) fn ask<T: DeserializeOwned>(admin: &str, tls: &AdminTls, path: &str) -> anyhow::Result<T> {
    let url = url(admin, path);
    ask_for(admin, tls, path)?.map_err(|why| anyhow!("{}: it answered {why}", asked(&url)))
}

/// The same; `Err` inside: it was asked, and says why there is no answer.
pub(super) fn ask_for<T: DeserializeOwned>(
    admin: &str,
    tls: &AdminTls,
    path: &str,
) -> anyhow::Result<Result<T, String>> {
    let (url, status, text) = call::<()>(admin, tls, Method::GET, path, None)?;
    if !status.is_success() {
        let why = one_line(&text);
        return Ok(Err(format!("{status}{}{why}", if why.is_empty() { "" } else { ": " })));
    }
    understood(&url, &text).map(Ok)
}

/// Asks the admin interface to do something.
pub(super) fn tell<A: Serialize, T: DeserializeOwned>(
    admin: &str,
    tls: &AdminTls,
    method: Method,
    path: &str,
    what: Option<&A>,
) -> anyhow::Result<Answer<T>> {
    let (url, status, text) = call(admin, tls, method, path, what)?;
    if status.is_success() {
        return understood(&url, &text).map(Answer::Done);
    }
    // An old control plane has no such path, and says so in its own words.
    if status.is_client_error() && !text.starts_with("there is nothing here") {
        return Ok(Answer::Refused(one_line(&text)));
    }
    bail!("{}: it answered {status}: {}", asked(&url), one_line(&text))
}

fn one_line(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).take(600).collect()
}

fn understood<T: DeserializeOwned>(url: &str, text: &str) -> anyhow::Result<T> {
    serde_json::from_str(text)
        .with_context(|| format!("{url} answered something else; is the control plane another version?"))
}

fn call<A: Serialize>(
    admin: &str,
    tls: &AdminTls,
    method: Method,
    path: &str,
    what: Option<&A>,
) -> anyhow::Result<(String, StatusCode, String)> {
    let url = url(admin, path);
    let client = tls.client(&url)?;
    let body = what.map(serde_json::to_vec).transpose()?;
    runtime()?.block_on(async {
        let mut request = client.request(method, &url);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let answer = request.send().await.with_context(|| asked(&url))?;
        let status = answer.status();
        let text = answer.text().await.with_context(|| asked(&url))?;
        Ok((url.clone(), status, text))
    })
}

fn url(admin: &str, path: &str) -> String {
    format!("{}{path}", base(admin))
}

fn asked(url: &str) -> String {
    format!(
        "cannot ask the control plane at {url}; `--admin` must be the admin address of a running `tidegate serve` (not the one \
         where filters connect)"
    )
}
