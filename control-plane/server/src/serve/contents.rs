//! What every workload is to enforce: from compiled rules, keys and directories to sections.
//!
//! Pure. The same inputs give the same sections, whatever the order of anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidegate_compiler::{Compiled, TrustedIssuer, WorkloadId, WorkloadPolicy};
use tidegate_engine::directory::{DirectoryModel, encode_directories};
use tidegate_identity::{InvalidKeys, IssuerSetSpec, IssuerSpec};
use tidegate_proto::v1 as pb;

use crate::bundle::{Contents, Section, SectionStore};
use crate::clock;
use crate::control::Kept;
use crate::directories::{Directories, Queries};
use crate::keys::{IssuerKeys, KeyRing};
use crate::push::Lookups;
use crate::rollout::Staged;

/// Puts sections together; keeps those that exist already.
#[derive(Debug, Default)]
pub struct Assembler {
    store: SectionStore,
    /// Of the last round the policies and their rules sections: a policy that is still the same in memory is not hashed again.
    /// Policies never change.
    made: BTreeMap<WorkloadId, (Arc<WorkloadPolicy>, Arc<Section>)>,
}

/// Sections that several workloads share are made once per round.
struct Round<'a> {
    store: &'a mut SectionStore,
    issuers: BTreeMap<&'a str, &'a TrustedIssuer>,
    keys: &'a KeyRing,
    /// Issuers whose keys these are not, although they may have their name.
    without_keys: BTreeSet<&'a str>,
    directories: &'a Directories,
    kept: &'a Kept,
    now: i64,
    /// Until when directories count that are written in a file. Unix seconds.
    file_until: i64,
    keys_sections: BTreeMap<BTreeSet<&'a str>, Arc<Section>>,
    directory_sections: BTreeMap<&'a [String], Arc<Section>>,
}

// === impl Assembler ===

impl Assembler {
    /// The contents of every workload, by `namespace/name`. `now`: Unix seconds.
    ///
    /// # Errors
    /// When keys cannot be encoded.
    pub fn contents(
        &mut self,
        compiled: &Compiled,
        keys: &KeyRing,
        directories: &Directories,
        kept: &Kept,
        now: i64,
    ) -> Result<BTreeMap<String, Contents>, InvalidKeys> {
        let before = std::mem::take(&mut self.made);
        let mut made = BTreeMap::new();
        let mut round = self.round(compiled, keys, directories, kept, now);
        let workloads = compiled.workloads.iter();
        let contents = workloads
            .map(|(id, policy)| {
                let name = id.to_string();
                let rules = match before.get(id) {
                    Some((known, section)) if Arc::ptr_eq(known, policy) => section.clone(),
                    _ => round.rules(policy),
                };
                made.insert(id.clone(), (policy.clone(), rules.clone()));
                let contents = round.workload(&name, policy, rules)?;
                Ok((name, contents))
            })
            .collect::<Result<BTreeMap<_, _>, InvalidKeys>>()?;
        drop(before);
        self.made = made;
        self.store.sweep();
        Ok(contents)
    }

    /// Puts what is kept of rules before in the place of the contents of those workloads where changed rules are tried first, or
    /// were given up. Returns what their canaries get: the changed rules, compared with those before.
    ///
    /// # Errors
    /// When keys cannot be encoded; nothing has changed then.
    pub fn stage(
        &mut self,
        contents: &mut BTreeMap<String, Contents>,
        (compiled, staged): (&Compiled, &Staged),
        keys: &KeyRing,
        directories: &Directories,
        kept: &Kept,
        now: i64,
    ) -> Result<BTreeMap<String, Contents>, InvalidKeys> {
        let mut round = self.round(compiled, keys, directories, kept, now);
        let before = staged
            .iter()
            .map(|(id, staged)| {
                let name = id.to_string();
                let rules = round.rules(&staged.before);
                let before = round.workload(&name, &staged.before, rules)?;
                Ok((name, before, staged.canaries.is_some()))
            })
            .collect::<Result<Vec<_>, InvalidKeys>>()?;
        let mut canaries = BTreeMap::new();
        for (name, before, is_tried) in before {
            let candidate = before.sections.clone();
            if let Some(changed) = contents.insert(name.clone(), before)
                && is_tried
            {
                canaries.insert(name, Contents { candidate, ..changed });
            }
        }
        Ok(canaries)
    }

    /// Puts a candidate beside the contents of those workloads for which it says something else.
    ///
    /// `without_keys`: issuers of the candidate whose keys nobody has.
    ///
    /// # Errors
    /// When keys cannot be encoded; nothing has changed then.
    pub fn add_candidate(
        &mut self,
        contents: &mut BTreeMap<String, Contents>,
        (candidate, without_keys): (&Compiled, BTreeSet<&str>),
        keys: &KeyRing,
        directories: &Directories,
        kept: &Kept,
        now: i64,
    ) -> Result<(), InvalidKeys> {
        let mut round = Round { without_keys, ..self.round(candidate, keys, directories, kept, now) };
        let both = candidate.workloads.iter().filter(|(id, _)| contents.contains_key(&id.to_string()));
        let sections = both
            .map(|(id, policy)| {
                let name = id.to_string();
                let rules = round.rules(policy);
                let sections = round.workload(&name, policy, rules)?.sections;
                Ok((name, sections))
            })
            .collect::<Result<Vec<_>, InvalidKeys>>()?;
        for (id, sections) in sections {
            if let Some(contents) = contents.get_mut(&id).filter(|contents| contents.sections != sections) {
                contents.candidate = sections;
            }
        }
        Ok(())
    }

    fn round<'a>(
        &'a mut self,
        compiled: &'a Compiled,
        keys: &'a KeyRing,
        directories: &'a Directories,
        kept: &'a Kept,
        now: i64,
    ) -> Round<'a> {
        Round {
            store: &mut self.store,
            issuers: compiled.issuers.iter().map(|issuer| (issuer.name.as_str(), issuer)).collect(),
            keys,
            without_keys: BTreeSet::new(),
            directories,
            kept,
            now,
            file_until: clock::half_a_day_to_a_day_after(now),
            keys_sections: BTreeMap::new(),
            directory_sections: BTreeMap::new(),
        }
    }
}

// === impl Round ===

impl<'a> Round<'a> {
    fn rules(&mut self, policy: &WorkloadPolicy) -> Arc<Section> {
        self.store.section(pb::SectionKind::Rules, &policy.rules)
    }

    fn workload(
        &mut self,
        name: &str,
        policy: &'a WorkloadPolicy,
        rules: Arc<Section>,
    ) -> Result<Contents, InvalidKeys> {
        let mut sections = vec![rules];
        if !policy.model.issuers.is_empty() {
            sections.push(self.keys(policy)?);
        }
        if !policy.model.directories.is_empty() {
            sections.push(self.directories(&policy.model.directories));
        }
        let coverage = if policy.covered { pb::Coverage::Guarded } else { pb::Coverage::Unguarded };
        let suspended_until = self.kept.suspended_until(name, self.now).filter(|_| policy.covered);
        let used_capabilities = [
            policy.reads_bodies.then_some(tidegate_proto::BODIES),
            suspended_until.map(|_| tidegate_proto::SUSPENSION),
        ];
        Ok(Contents {
            coverage,
            sections,
            candidate: Vec::new(),
            required_capabilities: Vec::new(),
            used_capabilities: used_capabilities.into_iter().flatten().map(str::to_owned).collect(),
            suspended_until: suspended_until.unwrap_or(0),
        })
    }

    fn keys(&mut self, policy: &'a WorkloadPolicy) -> Result<Arc<Section>, InvalidKeys> {
        let names: BTreeSet<&str> = policy.model.issuers.iter().map(|issuer| issuer.name.as_str()).collect();
        if let Some(section) = self.keys_sections.get(&names) {
            return Ok(section.clone());
        }
        let issuers = names.iter().filter_map(|name| self.issuers.get(name));
        let specs = issuers
            .map(|issuer| {
                let is_known = !self.without_keys.contains(issuer.name.as_str());
                let mut spec = issuer_spec(issuer, self.keys.get(&issuer.name).filter(|_| is_known));
                spec.revoked = self.kept.revoked(&issuer.name, spec.revoked, self.now);
                spec
            })
            .collect();
        let section = self.store.section(pb::SectionKind::Keys, &IssuerSetSpec::new(specs).encode()?);
        self.keys_sections.insert(names, section.clone());
        Ok(section)
    }

    fn directories(&mut self, names: &'a [String]) -> Arc<Section> {
        if let Some(section) = self.directory_sections.get(names) {
            return section.clone();
        }
        // A directory that nobody provides is missing, and every answer about it is unknown.
        let models: Vec<DirectoryModel> = names
            .iter()
            .filter_map(|name| {
                let listing = self.directories.listings.get(name)?;
                Some(DirectoryModel {
                    name: name.clone(),
                    ids: listing.ids.iter().cloned().collect(),
                    fresh_until: listing.fresh_until.unwrap_or(self.file_until),
                })
            })
            .collect();
        let section = self.store.section(pb::SectionKind::Directory, &encode_directories(&models));
        self.directory_sections.insert(names, section.clone());
        section
    }
}

/// What directories are to list.
pub fn queries(compiled: &Compiled) -> Queries {
    let refs = compiled.workloads.values().flat_map(|policy| &policy.directories);
    refs.map(|directory| (directory.to_string(), directory.clone())).collect()
}

/// What lookups are answered from.
pub fn lookups(compiled: &Compiled, staged: &Staged, directories: &Arc<Directories>) -> Lookups {
    let policies = compiled.workloads.iter();
    let staged = staged.iter().map(|(id, staged)| (id, &staged.before));
    let mut lookups = Lookups { directories: directories.clone(), ..Lookups::default() };
    for (id, policy) in policies.chain(staged) {
        let model = &policy.model;
        if !model.directories.is_empty() {
            let readable = lookups.readable.entry(id.to_string()).or_default();
            readable.extend(model.directories.iter().cloned());
        }
        if !model.issuers.is_empty() {
            let issuers = lookups.issuers.entry(id.to_string()).or_default();
            issuers.extend(model.issuers.iter().map(|issuer| issuer.name.clone()));
        }
    }
    lookups
}

fn issuer_spec(issuer: &TrustedIssuer, known: Option<&IssuerKeys>) -> IssuerSpec {
    // Keys that were never there are too old.
    let (keys, valid_until) = known.map_or((Vec::new(), 0), |known| (known.keys.clone(), known.valid_until));
    issuer.spec(keys, valid_until)
}

#[cfg(test)]
mod tests;
