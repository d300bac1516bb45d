//! Flags that say who calls and when, and what they make of a question.

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use tidegate_compiler::explain::{AskedToken, MeshPeer, Question};
use tidegate_compiler::{Compiled, WorkloadId};

use crate::explain::request::claims_of;
use crate::explain::token::{Owner, Pasted, owner};
use crate::rules::load_directory;

/// No token is longer.
const MAX_TOKEN_BYTES: u64 = 1 << 20;

/// Who calls, and when.
#[derive(Debug, Args)]
pub(super) struct Who {
    /// Who calls over mTLS: a service account, a SPIFFE id, or `none`
    #[arg(long, value_name = "NAMESPACE/ACCOUNT")]
    pub peer: Option<String>,
    /// What a verified token of a TrustedIssuer says; more than once for several
    #[arg(long, value_name = "ISSUER[:CLAIM=VALUE,…]")]
    pub token: Vec<String>,
    /// A file with a token: what it says counts, its signature is not checked; more than once for several
    #[arg(long, value_name = "FILE")]
    pub token_file: Vec<PathBuf>,
    /// When: RFC 3339 [default: now]
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// What directories list: a JSON object of directory names to lists of ids
    #[arg(long, value_name = "FILE")]
    pub directory: Option<PathBuf>,
}

// === impl Who ===

impl Who {
    /// Whether anybody is named.
    pub(super) fn is_somebody(&self) -> bool {
        self.peer.is_some() || !self.token.is_empty() || !self.token_file.is_empty()
    }

    /// Adds what the flags say.
    pub(super) fn add_to(&self, question: &mut Question, compiled: &Compiled) -> anyhow::Result<()> {
        match self.peer.as_deref() {
            None => {}
            Some("none") => question.peer = None,
            Some(text) => question.peer = Some(peer(text)?),
        }
        for file in &self.token_file {
            add_token_file(question, file, compiled)?;
        }
        for text in &self.token {
            add_token(question, text, compiled)?;
        }
        if let Some(text) = &self.at {
            let at = tidegate_compiler::moment(text).or_else(|| text.parse().ok());
            question.time =
                Some(at.ok_or_else(|| {
                    anyhow!("`--at {text}`: write `2026-11-21T03:00:00Z`, or Unix seconds")
                })?);
        }
        if let Some(file) = &self.directory {
            let listed = load_directory(file)?;
            question
                .directories
                .extend(listed.into_iter().map(|(name, ids)| (name, ids.into_iter().collect())));
        }
        Ok(())
    }
}

/// `--peer`, as somebody who is there.
pub(super) fn peer(text: &str) -> anyhow::Result<MeshPeer> {
    MeshPeer::parse(text)
        .ok_or_else(|| anyhow!("`--peer {text}`: write `namespace/service-account`, a SPIFFE id, or `none`"))
}

/// `--workload`.
pub(super) fn workload(text: &str) -> anyhow::Result<WorkloadId> {
    let (namespace, name) = text
        .split_once('/')
        .ok_or_else(|| anyhow!("`--workload {text}`: write `namespace/name`, e.g. `sales/orders-api`"))?;
    Ok(WorkloadId { namespace: namespace.to_owned(), name: name.to_owned() })
}

fn add_token_file(question: &mut Question, file: &PathBuf, compiled: &Compiled) -> anyhow::Result<()> {
    use std::io::Read;
    let shown = file.display();
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).with_context(|| format!("cannot read `{shown}`"))?;
    opened.take(MAX_TOKEN_BYTES).read_to_end(&mut bytes).with_context(|| format!("cannot read `{shown}`"))?;
    let Pasted { text, .. } = Pasted::read(&bytes);
    let claims = claims_of(&text).ok_or_else(|| {
        anyhow!(
            "`--token-file {shown}`: there is no signed JWT in it; `tidegate token explain {shown}` says more"
        )
    })?;
    match owner(&text, Some(compiled)) {
        Ok(Owner::Declared(issuer)) => {
            question.tokens.retain(|token| token.issuer != issuer.name);
            question.tokens.push(AskedToken { issuer: issuer.name.clone(), claims, ..AskedToken::default() });
            Ok(())
        }
        _ => bail!(
            "`--token-file {shown}`: no TrustedIssuer of the rules has issued it, so filters do not look at it; `tidegate token explain {shown}` says more"
        ),
    }
}

/// `--token issuer:claim=value`: laid over what is known of that issuer's token.
pub(super) fn add_token(question: &mut Question, text: &str, compiled: &Compiled) -> anyhow::Result<()> {
    let (name, claims) = text.split_once(':').map_or((text, ""), |(name, claims)| (name, claims));
    let issuer = compiled.issuers.iter().find(|issuer| issuer.name == name).ok_or_else(|| {
        let known: Vec<&str> = compiled.issuers.iter().map(|issuer| issuer.name.as_str()).collect();
        anyhow!("`--token {text}`: there is no TrustedIssuer `{name}`; declared are: {}", known.join(", "))
    })?;
    let at = question.tokens.iter().position(|token| token.issuer == name).unwrap_or_else(|| {
        question.tokens.push(AskedToken { issuer: name.to_owned(), ..AskedToken::default() });
        question.tokens.len() - 1
    });
    let Some(token) = question.tokens.get_mut(at) else { return Ok(()) };
    for (claim, value) in assignments(claims) {
        if !token.set_text(issuer.pack, &claim, &value) {
            bail!(
                "`--token {text}`: `{claim}` is no claim; write `issuer:claim=value`, e.g. `gitlab:project_id=4711`"
            );
        }
    }
    Ok(())
}

/// `a=1,b=2,3`: a part without `=` belongs to the value before.
pub(super) fn assignments(text: &str) -> Vec<(String, String)> {
    let mut assignments: Vec<(String, String)> = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        match (part.split_once('='), assignments.last_mut()) {
            (Some((claim, value)), _) => assignments.push((claim.to_owned(), value.to_owned())),
            (None, Some((_, value))) => value.push_str(&format!(",{part}")),
            (None, None) => assignments.push((part.to_owned(), String::new())),
        }
    }
    assignments
}
