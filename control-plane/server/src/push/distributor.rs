//! What is on offer, per workload.
//!
//! INVARIANT: a workload's offer changes only when one of its manifests does, or who gets which, so streams wake only when there
//! is something new.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use super::{Offer, Wanted};
use crate::bundle::Release;
use crate::directories::Directories;

/// Hands releases to streams.
#[derive(Debug, Default)]
pub struct Distributor {
    published: RwLock<Published>,
    /// Announces that something else is on offer.
    rounds: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Published {
    /// Whether anything was ever published; before, an unknown workload may only not be known yet.
    any: bool,
    offers: HashMap<String, watch::Sender<Offered>>,
    lookups: Arc<Lookups>,
}

/// What is on offer to the proxies of a workload.
#[derive(Debug, Clone)]
pub struct Offered {
    all: Arc<Offer>,
    canaries: Option<CanaryOffer>,
}

#[derive(Debug, Clone)]
struct CanaryOffer {
    offer: Arc<Offer>,
    instances: Arc<BTreeSet<String>>,
}

/// What some proxies of a workload get instead of the others' release.
#[derive(Debug, Clone)]
pub struct CanaryRelease {
    /// What they get.
    pub release: Arc<Release>,
    /// Their names.
    pub instances: Arc<BTreeSet<String>>,
}

/// What `Lookup` is answered from.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lookups {
    /// The directories that a workload's rules read. It may ask for no others.
    pub readable: BTreeMap<String, BTreeSet<String>>,
    /// The issuers that a workload's rules name. It may ask for keys of no others.
    pub issuers: BTreeMap<String, BTreeSet<String>>,
    /// Every directory.
    pub directories: Arc<Directories>,
}

/// What a stream gets when it names its workload.
#[derive(Debug)]
pub enum Subscription {
    /// This workload's offers.
    To(watch::Receiver<Offered>),
    /// No such workload.
    Unknown,
    /// Nothing is published yet; ask again.
    NotReady,
}

// === impl Distributor ===

impl Distributor {
    /// Replaces everything that is on offer. Streams of workloads that are gone end; returns which these are.
    pub fn publish(&self, releases: &BTreeMap<String, Arc<Release>>, lookups: Lookups) -> Vec<String> {
        self.publish_staged(releases, BTreeMap::new(), lookups)
    }

    /// The same, with what canaries of some workloads get instead.
    pub fn publish_staged(
        &self,
        releases: &BTreeMap<String, Arc<Release>>,
        mut canaries: BTreeMap<String, CanaryRelease>,
        lookups: Lookups,
    ) -> Vec<String> {
        let mut published = self.published.write().unwrap_or_else(PoisonError::into_inner);
        published.any = true;
        published.lookups = Arc::new(lookups);
        let gone = published.offers.extract_if(|workload, _| !releases.contains_key(workload));
        let gone = gone.map(|(workload, _)| workload).collect();
        for (workload, release) in releases {
            let canary = canaries.remove(workload);
            match published.offers.get(workload) {
                Some(sender) => {
                    sender.send_if_modified(|current| current.replace(release, canary));
                }
                None => {
                    let mut offered = Offered { all: Arc::new(Offer::new(release.clone())), canaries: None };
                    offered.replace(release, canary);
                    published.offers.insert(workload.clone(), watch::Sender::new(offered));
                }
            }
        }
        drop(published);
        self.rounds.send_replace(());
        gone
    }

    /// Nothing is on offer any more. Streams end, and find the replica that has something.
    pub fn withdraw(&self) {
        let mut published = self.published.write().unwrap_or_else(PoisonError::into_inner);
        *published = Published::default();
        drop(published);
        self.rounds.send_replace(());
    }

    /// Resolves when this holds of what is on offer.
    pub async fn until(&self, holds: impl Fn(&Self) -> bool) {
        let mut rounds = self.rounds.subscribe();
        while !holds(self) {
            // The sender lives as long as `self`.
            let _ = rounds.changed().await;
        }
    }

    /// Becomes changed when something else is on offer.
    pub(super) fn rounds(&self) -> watch::Receiver<()> {
        self.rounds.subscribe()
    }

    /// The latest epoch of what is on offer.
    pub(super) fn highest_epoch(&self) -> u64 {
        let published = self.published.read().unwrap_or_else(PoisonError::into_inner);
        let epochs = published.offers.values().map(|offered| offered.borrow().all.release().revision().epoch);
        epochs.max().unwrap_or(0)
    }

    /// Whether one of these releases is older than what its workload is offered, or another one of the same revision.
    pub(crate) fn is_ahead_of(&self, releases: &BTreeMap<String, Arc<Release>>) -> bool {
        let published = self.published.read().unwrap_or_else(PoisonError::into_inner);
        releases.iter().any(|(workload, release)| {
            let offered = published.offers.get(workload);
            offered.is_some_and(|offered| {
                let offered = offered.borrow();
                let offered = offered.all.release();
                offered.revision() >= release.revision() && offered.sha256() != release.sha256()
            })
        })
    }

    /// The offers of a workload, from the current one on.
    pub fn subscribe(&self, workload: &str) -> Subscription {
        let published = self.published.read().unwrap_or_else(PoisonError::into_inner);
        match published.offers.get(workload) {
            Some(sender) => Subscription::To(sender.subscribe()),
            None if published.any => Subscription::Unknown,
            None => Subscription::NotReady,
        }
    }

    /// The current release of a workload, to all but canaries.
    pub fn release(&self, workload: &str) -> Option<Arc<Release>> {
        let published = self.published.read().unwrap_or_else(PoisonError::into_inner);
        published.offers.get(workload).map(|sender| sender.borrow().all.release().clone())
    }

    /// What canaries of a workload get, where there are any.
    pub fn canary(&self, workload: &str) -> Option<CanaryRelease> {
        let published = self.published.read().unwrap_or_else(PoisonError::into_inner);
        published.offers.get(workload)?.borrow().canary()
    }

    /// What is to be enforced by whom.
    pub fn wanted(&self) -> BTreeMap<String, Wanted> {
        let published = self.published.read().unwrap_or_else(PoisonError::into_inner);
        let offers = published.offers.iter();
        offers.map(|(workload, sender)| (workload.clone(), sender.borrow().wanted())).collect()
    }

    /// The current releases, to all but canaries.
    pub fn releases(&self) -> BTreeMap<String, Arc<Release>> {
        let published = self.published.read().unwrap_or_else(PoisonError::into_inner);
        let offers = published.offers.iter();
        offers.map(|(workload, sender)| (workload.clone(), sender.borrow().all.release().clone())).collect()
    }

    /// The current releases, and the directories that they were made with.
    pub fn on_offer(&self) -> (BTreeMap<String, Arc<Release>>, Arc<Directories>) {
        let published = self.published.read().unwrap_or_else(PoisonError::into_inner);
        let offers = published.offers.iter();
        let releases = offers
            .map(|(workload, sender)| (workload.clone(), sender.borrow().all.release().clone()))
            .collect();
        (releases, published.lookups.directories.clone())
    }

    /// Whether anything was published.
    pub fn is_ready(&self) -> bool {
        self.published.read().unwrap_or_else(PoisonError::into_inner).any
    }

    /// Whether the workload's rules read the directory.
    pub fn is_read(&self, workload: &str, directory: &str) -> bool {
        self.lookups().readable.get(workload).is_some_and(|names| names.contains(directory))
    }

    /// Whether the workload's rules name the issuer.
    pub fn uses(&self, workload: &str, issuer: &str) -> bool {
        self.lookups().issuers.get(workload).is_some_and(|names| names.contains(issuer))
    }

    /// Whether a directory that the workload's rules read lists the id.
    pub fn lists(&self, workload: &str, directory: &str, id: &str) -> bool {
        let lookups = self.lookups();
        lookups.readable.get(workload).is_some_and(|names| names.contains(directory))
            && lookups.directories.listings.get(directory).is_some_and(|listing| listing.ids.contains(id))
    }

    fn lookups(&self) -> Arc<Lookups> {
        self.published.read().unwrap_or_else(PoisonError::into_inner).lookups.clone()
    }
}

// === impl Offered ===

impl Offered {
    /// What this proxy gets.
    pub fn of(&self, instance: &str) -> &Arc<Offer> {
        let canary = self.canaries.as_ref().filter(|canary| canary.instances.contains(instance));
        canary.map_or(&self.all, |canary| &canary.offer)
    }

    /// Whether anything is another now. What stays the same stays encoded.
    fn replace(&mut self, release: &Arc<Release>, canary: Option<CanaryRelease>) -> bool {
        let known = |release: &Release| {
            let offers = std::iter::once(&self.all).chain(self.canaries.iter().map(|canary| &canary.offer));
            offers.into_iter().find(|offer| offer.release().sha256() == release.sha256()).cloned()
        };
        let offer =
            |release: &Arc<Release>| known(release).unwrap_or_else(|| Arc::new(Offer::new(release.clone())));
        let next = Self {
            all: offer(release),
            canaries: canary
                .map(|canary| CanaryOffer { offer: offer(&canary.release), instances: canary.instances }),
        };
        let is_same = Arc::ptr_eq(&next.all, &self.all)
            && match (&next.canaries, &self.canaries) {
                (None, None) => true,
                (Some(next), Some(known)) => {
                    Arc::ptr_eq(&next.offer, &known.offer) && next.instances == known.instances
                }
                _ => false,
            };
        *self = next;
        !is_same
    }

    fn canary(&self) -> Option<CanaryRelease> {
        let CanaryOffer { offer, instances } = self.canaries.as_ref()?;
        Some(CanaryRelease { release: offer.release().clone(), instances: instances.clone() })
    }

    fn wanted(&self) -> Wanted {
        let CanaryRelease { release, instances } = match self.canary() {
            Some(canary) => canary,
            None => return Wanted::of(self.all.release()),
        };
        let canary = Wanted::of(&release);
        Wanted { canary: Some((Box::new(canary), instances)), ..Wanted::of(self.all.release()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directories::Listing;

    #[test]
    fn a_lookup_is_answered_only_from_directories_that_the_workload_reads() {
        let distributor = Distributor::default();
        let set = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<BTreeSet<_>>();
        let listing = |ids: &[&str]| Listing { ids: Arc::new(set(ids)), fresh_until: None };
        let lookups = Lookups {
            readable: BTreeMap::from([("a/a".to_owned(), set(&["jobs"]))]),
            issuers: BTreeMap::from([("a/a".to_owned(), set(&["google"]))]),
            directories: Arc::new(Directories {
                listings: BTreeMap::from([
                    ("jobs".to_owned(), listing(&["1"])),
                    ("other".to_owned(), listing(&["1"])),
                ]),
                ..Default::default()
            }),
        };
        distributor.publish(&BTreeMap::new(), lookups);
        assert!(distributor.lists("a/a", "jobs", "1"));
        assert!(!distributor.lists("a/a", "jobs", "2"));
        assert!(!distributor.lists("a/a", "other", "1"));
        assert!(!distributor.lists("b/b", "jobs", "1"));
        let asks = |workload, issuer| distributor.uses(workload, issuer);
        assert!(asks("a/a", "google") && !asks("a/a", "gitlab") && !asks("b/b", "google"));
    }

    #[test]
    fn what_is_older_than_what_is_on_offer_is_known_for_it() {
        let release = |epoch, counter| {
            let revision = crate::bundle::Revision { epoch, counter };
            let manifest = tidegate_proto::v1::Manifest {
                audience: "a/a".into(),
                revision: Some(revision.into()),
                ..Default::default()
            };
            let bytes = format!("{epoch} {counter}").into_bytes();
            let signed = tidegate_proto::v1::SignedManifest { manifest: bytes, ..Default::default() };
            let release = Release::relayed(manifest, signed, Vec::new(), Vec::new());
            BTreeMap::from([("a/a".to_owned(), Arc::new(release))])
        };
        let distributor = Distributor::default();
        assert!(!distributor.is_ahead_of(&release(1, 1)), "nothing is on offer");
        distributor.publish(&release(2, 5), Lookups::default());
        let other = |epoch, counter| {
            let mut manifest = release(epoch, counter)["a/a"].manifest().clone();
            manifest.issued_at = 7;
            let signed = tidegate_proto::v1::SignedManifest { manifest: vec![7], ..Default::default() };
            BTreeMap::from([("a/a".to_owned(), Arc::new(Release::relayed(manifest, signed, vec![], vec![])))])
        };
        assert!(distributor.is_ahead_of(&other(2, 5)), "it has its revision, and says something else");
        assert!(!distributor.is_ahead_of(&other(2, 6)));
        for (epoch, counter, is_older) in
            [(1, 9, true), (2, 4, true), (2, 5, false), (2, 6, false), (3, 1, false)]
        {
            assert_eq!(distributor.is_ahead_of(&release(epoch, counter)), is_older, "{epoch} {counter}");
        }
    }

    #[test]
    fn before_anything_is_published_a_workload_is_not_unknown() {
        let distributor = Distributor::default();
        assert!(matches!(distributor.subscribe("a/a"), Subscription::NotReady));
        distributor.publish(&BTreeMap::new(), Lookups::default());
        assert!(matches!(distributor.subscribe("a/a"), Subscription::Unknown));
    }
}
