//! The rules that decisions rest on: which were in force when, where they are written, and who changed them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidegate_compiler::{Inputs, SourceFile, check_tests};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::git;
use super::read::Known;
use super::record::{Recorded, Revision, RuleSource};
use crate::bundle::{Release, hex};
use crate::push::{Hub, Wanted, stopped};
use crate::rules::{AcceptedRules, ObjectPath, SetName, read};
use crate::serve::InForce;
use crate::state::StateDir;

/// How many sets of rules are kept for decisions of before.
const ERAS: usize = 8;
/// Nothing was signed yet: which revisions there were before a restart is not known then.
const UNSIGNED: Revision = Revision { epoch: 0, counter: 0 };
/// Edits come in bursts; files are looked at when they are over.
const SETTLED: Duration = Duration::from_secs(1);
/// How often annotations of objects are looked at, should nothing else have changed.
const ANNOTATED: Duration = Duration::from_secs(30);
/// Where rules are larger, in bytes, nobody is told where they are written.
const MOST_TEXT: usize = 16 << 20;

/// Where rules are written.
#[derive(Debug)]
pub(crate) enum Place {
    /// In files below a folder.
    Folder(PathBuf),
    /// In objects of a cluster.
    Objects(Arc<dyn Authors>),
}

/// Knows who wrote objects, as they say themselves.
pub(crate) trait Authors: fmt::Debug + Send + Sync {
    /// AccessRules that say it.
    fn written(&self) -> Vec<Written>;
}

/// An object that says who wrote it.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    /// As it is called among the files of rules.
    pub(crate) path: String,
    /// As it is now, which need not be what counts.
    pub(crate) text: Arc<str>,
    /// Cleaned.
    pub(crate) commit: Option<String>,
    /// The same.
    pub(crate) author: Option<String>,
}

/// Rules that were in force, and while which Bundles were signed.
#[derive(Debug, Default)]
pub struct History {
    eras: Mutex<VecDeque<Era>>,
}

#[derive(Debug)]
struct Era {
    in_force: Arc<InForce>,
    /// The last revision before.
    after: Revision,
    /// The last revision so far.
    until: Revision,
    /// What was signed of them.
    signed: Signed,
}

/// Digests of Bundles, hexadecimal: what was signed before a restart may still be enforced, and its revision says little.
#[derive(Debug, Default)]
struct Signed {
    /// For all proxies of a workload but its canaries, when the era began: what is signed later is known by its revision.
    all: BTreeSet<String>,
    /// For canaries.
    canaries: BTreeSet<String>,
}

/// Rules for a decision.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub in_force: Arc<InForce>,
    /// They are those that decided.
    pub decided: bool,
}

// === impl History ===

impl History {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Era>> {
        self.eras.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These rules are on offer; `last` was signed last.
    fn offered(&self, in_force: &Arc<InForce>, last: Revision, signed: Signed) {
        let mut eras = self.lock();
        match eras.back_mut() {
            Some(era) if Arc::ptr_eq(&era.in_force, in_force) => {
                era.until = era.until.max(last);
                era.signed.canaries.extend(signed.canaries);
            }
            before => {
                // Of what was signed before the first era nobody knows any more by which rules.
                let after = before.map_or(last, |era| era.until);
                eras.push_back(Era { in_force: in_force.clone(), after, until: last, signed });
                if eras.len() > ERAS {
                    eras.pop_front();
                }
            }
        }
    }

    /// The rules that made this decision, or else those of now.
    pub(crate) fn of(&self, recorded: &Recorded, hub: &Hub) -> Option<Rules> {
        let eras = self.lock();
        let now = eras.back()?;
        let digest = recorded.digest.as_deref();
        let is = |release: &Release| digest == Some(hex(release.sha256()).as_str());
        let decided = |in_force: Arc<InForce>| Some(Rules { in_force, decided: true });
        let before =
            |in_force: &Arc<InForce>| in_force.before(&recorded.workload).map_or(in_force.clone(), Arc::new);
        if hub.distributor.canary(&recorded.workload).is_some_and(|canary| is(&canary.release)) {
            return decided(now.in_force.clone());
        }
        if hub.distributor.release(&recorded.workload).is_some_and(|release| is(&release)) {
            return decided(before(&now.in_force));
        }
        // What did not change between two eras says the same in both.
        let by_digest = digest.and_then(|digest| {
            let knows = |era: &&Era| era.signed.all.contains(digest) || era.signed.canaries.contains(digest);
            eras.iter().rev().find(knows)
        });
        let by_revision = || {
            let revision = recorded.revision?;
            let known = |era: &&Era| era.after != UNSIGNED && revision > era.after && revision <= era.until;
            eras.iter().find(known)
        };
        match by_digest.or_else(by_revision) {
            Some(era) if digest.is_some_and(|digest| era.signed.canaries.contains(digest)) => {
                decided(era.in_force.clone())
            }
            Some(era) => decided(before(&era.in_force)),
            None => Some(Rules { in_force: now.in_force.clone(), decided: false }),
        }
    }

    /// Whether no proxy of a workload is to enforce what its rules say now.
    pub(crate) fn is_aborted(&self, workload: &str) -> bool {
        let eras = self.lock();
        let staged = eras.back().into_iter().flat_map(|era| &era.in_force.staged);
        staged.into_iter().any(|(id, staged)| staged.canaries.is_none() && id.to_string() == workload)
    }
}

/// Follows the rules that are on offer until the server stops.
pub(crate) async fn follow(
    hub: Arc<Hub>,
    state: Arc<StateDir>,
    place: Place,
    mut offered: watch::Receiver<Option<Arc<InForce>>>,
) -> Result<(), std::convert::Infallible> {
    let mut stop = hub.stopping();
    // Reading it takes a moment, which no record should have to wait for.
    let _ = spawn_blocking(super::operation::warm).await;
    loop {
        tokio::select! {
            changed = offered.changed() => {
                if changed.is_err() {
                    // The publisher ended.
                    return Ok(());
                }
            }
            // Annotations alone make no new rules.
            () = sleep(ANNOTATED), if matches!(place, Place::Objects(_)) => {
                let current = offered.borrow().clone();
                if let (Place::Objects(authors), Some(in_force)) = (&place, current) {
                    let before = hub.decisions.known();
                    let rules = of_objects(&**authors, &in_force);
                    hub.decisions.know(Known { packs: before.packs.clone(), rules, until: before.until });
                }
                continue;
            }
            () = stopped(&mut stop) => return Ok(()),
        }
        let current = offered.borrow_and_update().clone();
        let Some(in_force) = current else { continue };
        let (last, signed) = signed(&hub);
        hub.decisions.history().offered(&in_force, last, signed);
        let packs: BTreeMap<_, _> =
            in_force.compiled.issuers.iter().map(|issuer| (issuer.name.clone(), issuer.pack)).collect();
        let before = hub.decisions.known();
        hub.decisions.know(Known { packs: packs.clone(), rules: before.rules.clone(), until: before.until });
        tokio::select! {
            () = sleep(SETTLED) => {}
            _ = offered.changed() => {
                offered.mark_changed();
                continue;
            }
            () = stopped(&mut stop) => return Ok(()),
        }
        let rules = match &place {
            Place::Folder(folder) => sources(state.clone(), folder.clone(), in_force).await,
            Place::Objects(authors) => of_objects(&**authors, &in_force),
        };
        hub.decisions.know(Known { packs, rules, until: Some(last) });
    }
}

/// The last revision that was signed, and what is on offer.
fn signed(hub: &Hub) -> (Revision, Signed) {
    let wanted = hub.distributor.wanted();
    let canaries: Vec<&Wanted> =
        wanted.values().filter_map(|wanted| Some(&*wanted.canary.as_ref()?.0)).collect();
    let revisions = wanted.values().chain(canaries.iter().copied()).map(|wanted| wanted.revision);
    let last = revisions
        .map(|revision| Revision { epoch: revision.epoch, counter: revision.counter })
        .max()
        .unwrap_or(UNSIGNED);
    let signed = Signed {
        all: wanted.values().map(|wanted| hex(&wanted.sha256)).collect(),
        canaries: canaries.into_iter().map(|canary| hex(&canary.sha256)).collect(),
    };
    (last, signed)
}

/// Who wrote rules that are objects, as far as these say so. What an object says now is about what is in force only where that is
/// its text: it may be broken, or what is in force may be pinned.
fn of_objects(authors: &dyn Authors, in_force: &InForce) -> BTreeMap<String, Arc<RuleSource>> {
    let files = &in_force.rules.files;
    let source = |written: Written| {
        let rule = ObjectPath::parse(&written.path)?;
        let name = format!("{}/{}", rule.namespace?, rule.name);
        files.get(&written.path).filter(|text| ***text == *written.text)?;
        let Written { path, commit, author, .. } = written;
        let source =
            RuleSource { file: path, line: 1, commit, author, committed: None, by_annotations: true };
        Some((name, Arc::new(source)))
    };
    authors.written().into_iter().filter_map(source).collect()
}

/// Where every rule is written, with the last change of its file.
async fn sources(
    state: Arc<StateDir>,
    folder: PathBuf,
    in_force: Arc<InForce>,
) -> BTreeMap<String, Arc<RuleSource>> {
    let located = spawn_blocking(move || locate(&state, &in_force)).await;
    let Ok(Some((files, places))) = located else { return BTreeMap::new() };
    let changes = git::last_changes(&folder, &files).await;
    let source = |(rule, (file, line)): (String, (String, u32))| {
        let change = changes.get(&file);
        let source = RuleSource {
            commit: change.map(|change| change.commit.clone()),
            author: change.map(|change| change.author.clone()),
            committed: change.map(|change| change.at),
            by_annotations: false,
            file,
            line,
        };
        (rule, Arc::new(source))
    };
    places.into_iter().map(source).collect()
}

type Located = (BTreeMap<String, String>, BTreeMap<String, (String, u32)>);

fn locate(state: &StateDir, in_force: &InForce) -> Option<Located> {
    let AcceptedRules { files, environment } = read(state.root(), SetName::Accepted).ok()??;
    if files.values().map(String::len).sum::<usize>() > MOST_TEXT {
        return None;
    }
    let sources: Vec<SourceFile> =
        files.iter().map(|(path, text)| SourceFile { path: path.clone(), text: text.clone() }).collect();
    let inputs = Inputs { sources: &sources, env: environment, now: None };
    let origins = check_tests(&inputs, &in_force.compiled).origins;
    let policies = in_force.compiled.workloads.values();
    let rules: BTreeSet<&str> =
        policies.flat_map(|policy| policy.model.rules.iter().map(|rule| rule.id.as_str())).collect();
    let place = |rule: &str| {
        let place = origins.get(&tidegate_compiler::rule_object(rule))?;
        Some((rule.to_owned(), place.clone()))
    };
    let places = rules.into_iter().filter_map(place).collect();
    Some((files, places))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::control::RuleSet;
    use crate::rules::Files;

    const MESH: &str = "kind: Mesh\nmetadata: {name: m}\nspec: {trustDomain: td, rootNamespace: root}\n";

    #[derive(Debug)]
    struct Said(Vec<Written>);

    impl Authors for Said {
        fn written(&self) -> Vec<Written> {
            self.0.clone()
        }
    }

    #[test]
    fn what_an_object_says_of_itself_is_about_its_own_text_only() {
        let path = |name: &str| format!("kube/AccessRule/sales/{name}.yaml");
        let files: Files = [("kube/Mesh/cluster.yaml".to_owned(), MESH.to_owned())].into();
        let compiled = crate::serve::compile_files(&files, &Default::default()).output.unwrap();
        let rules = ["same", "edited"].map(|name| (path(name), format!("as accepted: {name}"))).into();
        let rules = Arc::new(AcceptedRules { files: rules, environment: Default::default() });
        let set = RuleSet { number: 1, digest: "d".into(), at: 0, files: 2, bytes: 0 };
        let in_force = InForce::new(compiled, rules, set, Instant::now());
        let written = |name: &str, text: &str| Written {
            path: path(name),
            text: text.into(),
            commit: Some("3f2a".into()),
            author: Some(format!("who wrote {name}")),
        };
        let authors = Said(vec![
            written("same", "as accepted: same"),
            written("edited", "something broken"),
            written("new", "not accepted"),
        ]);
        let found = of_objects(&authors, &in_force);
        let [(name, source)] = found.iter().collect::<Vec<_>>()[..] else { panic!("{found:?}") };
        assert_eq!((name.as_str(), source.file.as_str()), ("sales/same", "kube/AccessRule/sales/same.yaml"));
        assert_eq!((source.author.as_deref(), source.by_annotations), (Some("who wrote same"), true));
    }
}
