//! Asks a control plane that runs.

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;

use super::runtime;
use crate::keys::plain_client;

/// Where `tidegate serve` listens unless it is told otherwise.
pub(super) const DEFAULT_ADMIN: &str = "http://127.0.0.1:15081";

/// What the admin interface says at this path.
pub(super) fn ask<T: DeserializeOwned>(admin: &str, path: &str) -> anyhow::Result<T> {
    // People write `host:port`.
    let base = if admin.contains("://") { admin.to_owned() } else { format!("http://{admin}") };
    let url = format!("{}{path}", base.trim_end_matches('/'));
    let asked = || {
        format!(
            "cannot ask the control plane at {url}; `--admin` must be the admin address of a running `tidegate serve` (not \
             the one where filters connect)"
        )
    };
    let client = plain_client().context("cannot set up HTTP")?;
    runtime()?.block_on(async {
        let answer = client.get(&url).send().await.with_context(asked)?;
        if !answer.status().is_success() {
            bail!("{}: it answered {}", asked(), answer.status());
        }
        let text = answer.text().await.with_context(asked)?;
        serde_json::from_str(&text)
            .with_context(|| format!("{url} answered something else; is the control plane another version?"))
    })
}
