//! What a leader has on offer, as it travels: only what has changed, and only sections that the other end lacks.
//!
//! Pure. What comes is believed only as far as it is signed.
//!
//! INVARIANT: what is put together is what was signed, byte by byte: every section has the digest that its manifest names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use pb::follow_response::Message as Down;
use prost::Message;
use tidegate_compiler::WorkloadId;
use tidegate_proto::v1 as pb;

use crate::bundle::{Keyring, Release, Section, SectionStore, Sha256};
use crate::push::frames::Wire;
use crate::push::hello::MAX_WORKLOAD;
use crate::transport::Members;

/// Most sections that the leader is told are here already; others travel again.
const MAX_HELD: usize = 28_000;
/// Largest section, in bytes.
const MAX_SECTION: u64 = 128 << 20;
/// Most bytes of sections in one round.
const MAX_ROUND: u64 = 1 << 30;

/// What the other end has.
#[derive(Debug, Default)]
pub(super) struct Sent {
    is_begun: bool,
    releases: BTreeMap<String, Sha256>,
    sections: BTreeSet<Sha256>,
    members: Option<Arc<Members>>,
}

/// Sections by their names.
type Held = BTreeMap<(Sha256, pb::SectionKind), Arc<Section>>;

/// By workload.
pub(super) type Releases = BTreeMap<String, Arc<Release>>;

/// Puts rounds together.
#[derive(Debug)]
pub(super) struct Assembler {
    keys: Arc<Keyring>,
    store: SectionStore,
    /// Sections that need not travel.
    held: Held,
    releases: BTreeMap<String, Arc<Release>>,
    members: Option<Arc<Members>>,
    building: Option<Building>,
}

/// A round that has begun.
#[derive(Debug, Default)]
struct Building {
    gone: Vec<String>,
    members: Option<Arc<Members>>,
    manifests: BTreeMap<String, (pb::Manifest, pb::SignedManifest)>,
    /// How large the sections are that have to come, and what has.
    wanted: BTreeMap<Sha256, (u64, BytesMut)>,
    bytes: u64,
}

/// Why a leader is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("the leader signs with key `{0}`, which is not here; give all replicas the same `--secrets`")]
    OtherKey(String),
    #[error("a manifest has a signature that does not hold")]
    Forged,
    #[error("what the leader sent is malformed: {0}")]
    Malformed(String),
    #[error("the manifest of `{0}` ended before it came; look at the clocks")]
    Expired(String),
}

// === impl Sent ===

impl Sent {
    /// The other end has these sections, and nothing else.
    pub(super) fn new(held: impl IntoIterator<Item = Sha256>) -> Self {
        Self { sections: held.into_iter().collect(), ..Self::default() }
    }

    /// What travels so that the other end has this; `None`: it has.
    pub(super) fn round(
        &mut self,
        releases: &BTreeMap<String, Arc<Release>>,
        members: Arc<Members>,
    ) -> Option<Arc<[Bytes]>> {
        let gone: Vec<String> =
            self.releases.keys().filter(|workload| !releases.contains_key(*workload)).cloned().collect();
        let is_new = |(workload, release): &(&String, &Arc<Release>)| {
            self.releases.get(*workload) != Some(release.sha256())
        };
        let changed: Vec<&Arc<Release>> =
            releases.iter().filter(is_new).map(|(_, release)| release).collect();
        let members = Some(members).filter(|members| self.members.as_ref() != Some(members));
        if self.is_begun && gone.is_empty() && changed.is_empty() && members.is_none() {
            return None;
        }
        let mut wire = Wire::default();
        wire.message(&response(Down::Round(pb::Round {
            gone,
            members: members.as_ref().map(|members| members_message(members)),
        })));
        for release in &changed {
            wire.message(&response(Down::Release(release.signed().clone())));
        }
        for section in changed.iter().flat_map(|release| sections(release)) {
            if self.sections.insert(*section.sha256()) {
                wire.section(section);
            }
        }
        wire.message(&response(Down::RoundEnd(pb::RoundEnd {})));
        self.is_begun = true;
        self.members = members.or(self.members.take());
        self.releases =
            releases.iter().map(|(workload, release)| (workload.clone(), *release.sha256())).collect();
        // The other end keeps no others.
        self.sections = releases
            .values()
            .flat_map(|release| sections(release))
            .map(|section| *section.sha256())
            .collect();
        Some(wire.finish())
    }
}

// === impl Assembler ===

impl Assembler {
    /// Takes what one of these keys signed. `held`: releases whose sections are here.
    pub(super) fn new(keys: Arc<Keyring>, held: &BTreeMap<String, Arc<Release>>) -> Self {
        Self::with(keys, held, MAX_HELD)
    }

    /// The same, where at most so many sections need not travel.
    fn with(keys: Arc<Keyring>, held: &BTreeMap<String, Arc<Release>>, most: usize) -> Self {
        Self {
            keys,
            store: SectionStore::default(),
            held: by_name(held).into_iter().take(most).collect(),
            releases: BTreeMap::new(),
            members: None,
            building: None,
        }
    }

    /// The sections that are here.
    pub(super) fn held(&self) -> BTreeSet<Sha256> {
        self.held.keys().map(|(sha256, _)| *sha256).collect()
    }

    pub(super) fn begin(&mut self, round: pb::Round) -> Result<(), Refused> {
        if self.building.is_some() {
            return Err(malformed("a round begins in another one"));
        }
        let members = round.members.map(members).transpose()?.map(Arc::new);
        self.building = Some(Building { gone: round.gone, members, ..Building::default() });
        Ok(())
    }

    /// `now`: Unix seconds.
    pub(super) fn release(&mut self, signed: pb::SignedManifest, now: i64) -> Result<(), Refused> {
        let manifest = self.check(&signed, now)?;
        let Some(building) = &mut self.building else { return Err(malformed("a release of no round")) };
        for named in manifest.sections.iter().chain(&manifest.candidate) {
            let (sha256, kind) = name(named)?;
            if self.held.contains_key(&(sha256, kind)) || building.wanted.contains_key(&sha256) {
                continue;
            }
            // One content under two kinds travels once.
            let known = self.held.range((sha256, pb::SectionKind::Unspecified)..).next();
            if let Some((_, known)) = known.filter(|((known, _), _)| *known == sha256) {
                let same = self.store.section(kind, known.content());
                self.held.insert((sha256, kind), same);
                continue;
            }
            building.bytes = building.bytes.saturating_add(named.size);
            if named.size > MAX_SECTION || building.bytes > MAX_ROUND {
                return Err(malformed("sections that are larger than any"));
            }
            building.wanted.insert(sha256, (named.size, BytesMut::new()));
        }
        if building.manifests.insert(manifest.audience.clone(), (manifest, signed)).is_some() {
            return Err(malformed("two releases of one workload"));
        }
        Ok(())
    }

    pub(super) fn chunk(&mut self, chunk: &pb::SectionChunk) -> Result<(), Refused> {
        let building = self.building.as_mut().ok_or_else(|| malformed("a chunk of no round"))?;
        let sha256 =
            Sha256::try_from(chunk.sha256.as_slice()).map_err(|_| malformed("a digest has 32 bytes"))?;
        let (size, content) = building
            .wanted
            .get_mut(&sha256)
            .ok_or_else(|| malformed("a chunk of a section that nobody names"))?;
        let end = length(content.len()).saturating_add(length(chunk.content.len()));
        if chunk.offset != length(content.len()) || end > *size {
            return Err(malformed("a chunk that does not follow the one before"));
        }
        content.extend_from_slice(&chunk.content);
        Ok(())
    }

    /// Everything that the leader has on offer now, and who gets it.
    pub(super) fn end(&mut self) -> Result<(Releases, Arc<Members>), Refused> {
        let building = self.building.take().ok_or_else(|| malformed("a round ends that has not begun"))?;
        let mut fresh = Held::new();
        for (manifest, _) in building.manifests.values() {
            for named in manifest.sections.iter().chain(&manifest.candidate) {
                let (sha256, kind) = name(named)?;
                if self.held.contains_key(&(sha256, kind)) || fresh.contains_key(&(sha256, kind)) {
                    continue;
                }
                let (size, content) =
                    building.wanted.get(&sha256).ok_or_else(|| malformed("a section is missing"))?;
                let section = self.store.section(kind, content);
                if length(content.len()) != *size || *section.sha256() != sha256 {
                    return Err(malformed("a section is not what its manifest names"));
                }
                fresh.insert((sha256, kind), section);
            }
        }
        self.held.extend(fresh);
        for workload in &building.gone {
            self.releases.remove(workload);
        }
        for (workload, (manifest, signed)) in building.manifests {
            let of = |named: &[pb::SectionRef]| -> Result<Vec<Arc<Section>>, Refused> {
                let find = |named| {
                    self.held.get(&name(named)?).cloned().ok_or_else(|| malformed("a section is missing"))
                };
                named.iter().map(find).collect()
            };
            let (sections, candidate) = (of(&manifest.sections)?, of(&manifest.candidate)?);
            let release = Release::relayed(manifest, signed, sections, candidate);
            self.releases.insert(workload, Arc::new(release));
        }
        self.members = building.members.or(self.members.take());
        let members = self.members.clone().ok_or_else(|| malformed("it does not say who gets what"))?;
        self.held = by_name(&self.releases);
        self.store.sweep();
        Ok((self.releases.clone(), members))
    }

    fn check(&self, signed: &pb::SignedManifest, now: i64) -> Result<pb::Manifest, Refused> {
        if !self.keys.has_signed(signed) {
            let known = self.keys.trusted();
            let other = signed.signatures.iter().find(|by| known.iter().all(|key| key.id != by.key_id));
            return Err(match other {
                Some(by) => {
                    Refused::OtherKey(by.key_id.chars().filter(|c| !c.is_control()).take(64).collect())
                }
                None => Refused::Forged,
            });
        }
        let manifest = pb::Manifest::decode(signed.manifest.as_slice())
            .map_err(|error| malformed(&format!("a manifest: {error}")))?;
        if manifest.format_version != tidegate_proto::VERSION {
            let why = format!("manifests of version {}; install matching versions", manifest.format_version);
            return Err(malformed(&why));
        }
        if manifest.audience.len() > MAX_WORKLOAD || workload(&manifest.audience).is_none() {
            return Err(malformed("a manifest's audience is no workload"));
        }
        if manifest.revision.is_none() || matches!(manifest.coverage(), pb::Coverage::Unspecified) {
            return Err(malformed("a manifest without revision or coverage"));
        }
        if manifest.not_after <= now {
            return Err(Refused::Expired(manifest.audience));
        }
        Ok(manifest)
    }
}

fn response(message: Down) -> pb::FollowResponse {
    pb::FollowResponse { message: Some(message) }
}

fn sections(release: &Release) -> impl Iterator<Item = &Arc<Section>> {
    release.sections().iter().chain(release.candidate())
}

fn by_name(releases: &BTreeMap<String, Arc<Release>>) -> Held {
    let all = releases.values().flat_map(|release| sections(release));
    all.map(|section| ((*section.sha256(), section.kind()), section.clone())).collect()
}

fn name(named: &pb::SectionRef) -> Result<(Sha256, pb::SectionKind), Refused> {
    let sha256 = Sha256::try_from(named.sha256.as_slice()).map_err(|_| malformed("a digest has 32 bytes"))?;
    match pb::SectionKind::try_from(named.kind) {
        Ok(kind) if kind != pb::SectionKind::Unspecified => Ok((sha256, kind)),
        _ => Err(malformed("a section of an unknown kind; install matching versions")),
    }
}

fn workload(text: &str) -> Option<WorkloadId> {
    let (namespace, name) = text.split_once('/')?;
    let is_part = |part: &str| !part.is_empty() && !part.contains('/') && !part.chars().any(char::is_control);
    (is_part(namespace) && is_part(name))
        .then(|| WorkloadId { namespace: namespace.to_owned(), name: name.to_owned() })
}

fn members_message(members: &Members) -> pb::Members {
    let member = |(id, account): (&WorkloadId, &Option<String>)| pb::Member {
        workload: id.to_string(),
        service_account: account.clone().unwrap_or_default(),
    };
    pb::Members {
        trust_domain: members.trust_domain.clone(),
        members: members.accounts.iter().map(member).collect(),
    }
}

fn members(message: pb::Members) -> Result<Members, Refused> {
    let member = |one: pb::Member| {
        let id = workload(&one.workload).ok_or_else(|| malformed("a member that is no workload"))?;
        Ok((id, Some(one.service_account).filter(|account| !account.is_empty())))
    };
    let accounts = message.members.into_iter().map(member).collect::<Result<_, Refused>>()?;
    Ok(Members { trust_domain: message.trust_domain, accounts })
}

fn malformed(why: &str) -> Refused {
    Refused::Malformed(why.to_owned())
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
