//! `tidegate decisions`, and what it shares with `tail` and `explain ID`.

mod by_id;
mod list;
mod render;
mod tail;
#[cfg(test)]
mod tests;

use anyhow::anyhow;
use clap::Args;

use super::running::{AdminTls, DEFAULT_ADMIN};
use super::text::seconds;
use crate::clock;
use crate::decisions::record::Moment;

pub use by_id::known;
pub(super) use by_id::run as explain;
pub(super) use list::{Arguments, run};
pub(super) use tail::{Arguments as TailArguments, run as run_tail};

/// The control plane that is asked.
#[derive(Debug, Args)]
pub(super) struct Asked {
    /// Admin address of a running control plane
    #[arg(long, value_name = "URL", default_value = DEFAULT_ADMIN)]
    pub admin: String,
    #[command(flatten)]
    pub tls: AdminTls,
}

/// Which decisions.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Only refusals, and streams that were ended
    #[arg(long)]
    denied: bool,
    /// Only where Shadow or candidate rules would decide otherwise
    #[arg(long)]
    differing: bool,
    /// Who called: a service account, a SPIFFE id, ISSUER:CLAIM=VALUE, or the value alone, e.g. a project or an address
    #[arg(long, value_name = "WHO")]
    identity: Option<String>,
    /// The peer: a namespace, a service account, or a SPIFFE id
    #[arg(long, value_name = "NAMESPACE[/ACCOUNT]")]
    from: Option<String>,
    /// The run of a pipeline, or a job of it, by its id
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// To what: a resource, or host and path; with * at its end everything that begins so
    #[arg(long, value_name = "NAME")]
    resource: Option<String>,
    /// Decided by the filters of this workload
    #[arg(long, value_name = "NAMESPACE/NAME")]
    workload: Option<String>,
    /// Decided by this rule
    #[arg(long, value_name = "NAMESPACE/NAME")]
    rule: Option<String>,
    /// With this reason code
    #[arg(long, value_name = "CODE")]
    reason: Option<String>,
    /// Of this trace (W3C Trace Context), 32 hexadecimal digits
    #[arg(long, value_name = "ID")]
    trace: Option<String>,
}

// === impl Which ===

impl Which {
    /// As the admin interface is asked.
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let flags = [("denied", self.denied), ("differing", self.differing)];
        let texts = [
            ("identity", &self.identity),
            ("from", &self.from),
            ("run", &self.run),
            ("resource", &self.resource),
            ("workload", &self.workload),
            ("rule", &self.rule),
            ("reason", &self.reason),
            ("trace", &self.trace),
        ];
        let flags =
            flags.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| (name, "true".to_owned()));
        flags.chain(texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?)))).collect()
    }
}

/// `PATH?NAME=VALUE&…`
pub(super) fn query(path: &str, pairs: &[(&str, String)]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs);
    format!("{path}?{}", query.finish())
}

/// A moment, or how long ago.
pub(super) fn moment(flag: &str, text: &str) -> anyhow::Result<Moment> {
    let ago = || i64::try_from(seconds(text)?).ok();
    let at = tidegate_compiler::moment(text).or_else(|| ago().map(|ago| clock::now().saturating_sub(ago)));
    at.map(Moment::of_seconds).ok_or_else(|| {
        anyhow!("`{flag} {text}`: write how long ago, e.g. 90s, 15m, 24h, 7d, or when: 2026-11-21T03:00:00Z")
    })
}
