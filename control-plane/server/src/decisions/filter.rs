//! Which decisions somebody wants to see.
//!
//! INVARIANT: a record matches a filter only if it has every term of it; the index is made of the same terms.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::lanes::Worth;
use super::read;
use super::record::{Claim, Entry, Gap, Moment, Outcome, Recorded};
use super::run::POD_NAME;
use crate::bundle::sha256;

/// What is asked for; all of it must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Filter {
    /// The id that the caller saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Only refusals, and streams that were ended.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub denied: bool,
    /// Only what Shadow or candidate rules would decide otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub differing: bool,
    /// Who called, in any form: a SPIFFE id, `namespace/account`, `issuer:claim=value`, or the value alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// The peer: `namespace`, `namespace/account`, or a SPIFFE id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Id of the run, or of a job of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Resource, or host and path; with `*` at its end everything that begins so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// `namespace/name` of the workload that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// The rule that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Reason code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Trace id, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// Decided then or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Moment>,
    /// Decided before then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Moment>,
}

/// A word that is looked up in the index.
pub type Term = u64;

/// Blocks with gaps have it.
pub fn gap_term() -> Term {
    term("gap", "")
}

/// Blocks with something precious of a workload have this and [`workload_term`].
pub fn precious_term() -> Term {
    term("precious", "")
}

/// Blocks with something required of a workload have this and [`workload_term`].
pub fn required_term() -> Term {
    term("required", "")
}

/// Blocks with decisions of a workload have it.
pub fn workload_term(workload: &str) -> Term {
    term("workload", workload)
}

fn term(kind: &str, value: &str) -> Term {
    let digest = sha256(format!("{kind}\0{value}").as_bytes());
    digest.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// Every form in which somebody may ask for who called.
fn identity_forms(recorded: &Recorded) -> BTreeSet<String> {
    let mut forms: BTreeSet<String> = recorded.identities.iter().cloned().collect();
    let values = recorded.identities.iter().filter_map(|one| Some(one.split_once('=')?.1.to_owned()));
    forms.extend(values);
    forms.extend(recorded.peer.as_deref().and_then(short_peer));
    forms
}

/// `namespace/account` of a SPIFFE id as Istio writes it: `spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
pub fn short_peer(peer: &str) -> Option<String> {
    let (_, path) = peer.strip_prefix("spiffe://")?.split_once("/ns/")?;
    let (namespace, account) = path.split_once("/sa/")?;
    Some(format!("{namespace}/{account}"))
}

fn peer_forms(recorded: &Recorded) -> Vec<String> {
    let Some(peer) = &recorded.peer else { return Vec::new() };
    let short = short_peer(peer);
    let namespace = short.as_ref().and_then(|short| short.split_once('/')).map(|(name, _)| name.to_owned());
    [Some(peer.clone()), short, namespace].into_iter().flatten().collect()
}

fn resource_forms(recorded: &Recorded) -> Vec<String> {
    let place = format!("{}{}", recorded.host, recorded.path);
    let url = format!("https://{place}");
    recorded.resource.iter().cloned().chain([place, url]).collect()
}

fn run_forms(recorded: &Recorded) -> impl Iterator<Item = &str> {
    let run = recorded.run.iter();
    // The pod's name was what it was called by before labels said more.
    let pod = run.clone().filter(|run| run.by_labels).flat_map(|run| {
        let of_pod = |claim: &&Claim| claim.issuer == run.issuer && claim.claim == POD_NAME;
        recorded.claims.iter().filter(of_pod).flat_map(|claim| &claim.values).map(String::as_str)
    });
    run.flat_map(|run| [Some(run.id.as_str()), run.job.as_deref()]).flatten().chain(pod)
}

/// What an entry can be looked up by and many others share.
pub fn terms(entry: &Entry) -> BTreeSet<Term> {
    let recorded = match entry {
        Entry::Gap(_) => return [gap_term()].into(),
        Entry::Decision(recorded) => recorded,
    };
    let mut terms: BTreeSet<Term> =
        [workload_term(&recorded.workload), term("reason", &recorded.reason)].into();
    if recorded.worth() != Worth::Ordinary {
        terms.insert(precious_term());
    }
    if recorded.worth() == Worth::Required {
        terms.insert(required_term());
    }
    if is_denied(recorded) {
        terms.insert(term("denied", ""));
    }
    if is_differing(recorded) {
        terms.insert(term("differing", ""));
    }
    terms.extend(identity_forms(recorded).iter().map(|form| term("identity", form)));
    terms.extend(peer_forms(recorded).iter().map(|form| term("from", form)));
    terms.extend(run_forms(recorded).map(|form| term("run", form)));
    terms.extend(recorded.resource.iter().map(|name| term("resource", name)));
    terms.extend(recorded.rule_name().map(|name| term("rule", name)));
    terms
}

/// What it can be looked up by besides, and hardly another one has.
pub fn rare_terms(entry: &Entry) -> impl Iterator<Item = Term> {
    let recorded = match entry {
        Entry::Gap(_) => None,
        Entry::Decision(recorded) => Some(recorded),
    };
    let id = recorded.map(|recorded| term("id", &recorded.id));
    id.into_iter().chain(recorded.and_then(|recorded| Some(term("trace", recorded.trace_id.as_ref()?))))
}

fn is_denied(recorded: &Recorded) -> bool {
    recorded.outcome != Outcome::Allow || recorded.ended
}

fn is_differing(recorded: &Recorded) -> bool {
    recorded.shadow.is_some() || recorded.candidate.is_some()
}

// === impl Filter ===

impl Filter {
    /// Brings what people typed into the form in which it is kept.
    pub fn normalized(self) -> Self {
        Self {
            id: self.id.map(|id| read::id(&id)),
            trace: self.trace.map(|id| id.to_ascii_lowercase()),
            ..self
        }
    }

    /// What must be in the index for any record to match. Empty: everything has to be looked at.
    pub fn terms(&self) -> BTreeSet<Term> {
        let of = |kind: &str, value: &Option<String>| value.as_ref().map(|value| term(kind, value));
        let mut terms: BTreeSet<Term> = [
            of("id", &self.id),
            of("identity", &self.identity),
            of("from", &self.from),
            of("run", &self.run),
            of("workload", &self.workload),
            of("rule", &self.rule),
            of("reason", &self.reason),
            of("trace", &self.trace),
        ]
        .into_iter()
        .flatten()
        .collect();
        // Names of the catalogue are indexed; paths at other hosts have to be looked at.
        let is_whole = |name: &&String| !name.ends_with('*') && name.starts_with("projects/");
        terms.extend(self.resource.iter().filter(is_whole).map(|name| term("resource", name)));
        if self.denied {
            terms.insert(term("denied", ""));
        }
        if self.differing {
            terms.insert(term("differing", ""));
        }
        terms
    }

    /// Those of [`Self::terms`] that hardly more than one record has.
    pub fn rare_terms(&self) -> BTreeSet<Term> {
        let id = self.id.iter().map(|id| term("id", id));
        id.chain(self.trace.iter().map(|trace| term("trace", trace))).collect()
    }

    /// Whether it is one of those that are asked for.
    pub fn takes(&self, entry: &Entry) -> bool {
        match entry {
            Entry::Decision(recorded) => self.matches(recorded),
            Entry::Gap(gap) => self.may_miss(gap),
        }
    }

    fn is_then(&self, at: Moment) -> bool {
        self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at < until)
    }

    fn matches(&self, recorded: &Recorded) -> bool {
        let is = |wanted: &Option<String>, value: Option<&str>| {
            wanted.as_ref().is_none_or(|wanted| Some(wanted.as_str()) == value)
        };
        is(&self.id, Some(&recorded.id))
            && is(&self.workload, Some(&recorded.workload))
            && is(&self.reason, Some(&recorded.reason))
            && is(&self.rule, recorded.rule_name())
            && is(&self.trace, recorded.trace_id.as_deref())
            && (!self.denied || is_denied(recorded))
            && (!self.differing || is_differing(recorded))
            && self.is_then(recorded.time)
            && self.from.as_ref().is_none_or(|from| peer_forms(recorded).contains(from))
            && self.run.as_ref().is_none_or(|run| run_forms(recorded).any(|one| one == run))
            && self.identity.as_ref().is_none_or(|wanted| identity_forms(recorded).contains(wanted))
            && self.resource.as_ref().is_none_or(|wanted| match wanted.strip_suffix('*') {
                Some(begin) => resource_forms(recorded).iter().any(|name| name.starts_with(begin)),
                None => resource_forms(recorded).contains(wanted),
            })
    }

    /// Whether decisions that are asked for may be among the missing.
    fn may_miss(&self, gap: &Gap) -> bool {
        let is_there = gap.workload.is_empty()
            || self.workload.as_ref().is_none_or(|workload| *workload == gap.workload);
        self.id.is_none() && self.trace.is_none() && is_there && self.is_then(gap.time)
    }
}

#[cfg(test)]
mod tests;
