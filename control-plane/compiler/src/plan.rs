//! Checked objects to what each workload enforces.
//!
//! INVARIANT: deterministic. What a workload gets depends on the objects, not on the order of files, documents or entries
//! of maps; rules are ordered by id, issuers, claims and directories by name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use tidegate_engine::Encoder;
use tidegate_engine::model::{FromModel, GuardModel, IssuerModel, Mode, PolicyModel, RuleModel, SharedRule};

use tidegate_identity::issuer::MAX_ISSUERS;

use crate::demand::Positions;
use crate::diagnostic::{Code, Diagnostic};
use crate::directory::DirectoryQuery;
use crate::entries::Entries;
use crate::issuers::TrustedIssuer;
use crate::mesh::{Mesh, WorkloadId};
use crate::moved::Moved;
use crate::parallel;
use crate::place::Findings;
use crate::rollout::{self, Rollout};
use crate::rules::{Guard, Rule};
use crate::suggest;
use crate::tally::{Change, MANY, Tally};

/// What one workload enforces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadPolicy {
    /// Whether at least one Guard covers it, in whatever mode.
    pub covered: bool,
    /// Ports that speak no HTTP and pass unguarded, as the Guards that are enforced declare them; sorted.
    pub tcp_ports: Vec<u16>,
    /// As data.
    pub model: PolicyModel,
    /// The same, as the rules section.
    pub rules: Vec<u8>,
    /// Names of the TrustedIssuers that its rules need, sorted.
    pub issuers: Vec<String>,
    /// Directories that its rules need, sorted.
    pub directories: Vec<DirectoryQuery>,
    /// Whether its rules read bodies: it needs the build of the module that does.
    pub reads_bodies: bool,
    /// How changed rules reach its proxies; `None`: all at once.
    pub rollout: Option<Rollout>,
    /// Whether a Guard of the root namespace asks for that: others hold back nothing of the root namespace.
    pub is_root_rollout: bool,
}

/// One workload's policy, and what it was made of.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    /// In the order of names.
    pub(crate) guards: Vec<Arc<Guard>>,
    /// In the order of names.
    pub(crate) rules: Vec<Arc<Rule>>,
    /// Or why it cannot be made, which is an error.
    pub(crate) policy: Result<Arc<WorkloadPolicy>, String>,
    pub(crate) findings: Vec<Diagnostic>,
    pub(crate) tally: Tally,
    /// What its rules section was written with, where that is kept for the next one.
    encoder: Option<Arc<Mutex<Encoder>>>,
}

/// A policy, and what it was made with.
struct Made {
    policy: WorkloadPolicy,
    tally: Tally,
    encoder: Option<Arc<Mutex<Encoder>>>,
    change: Option<Change>,
}

// === impl Planned ===

impl Planned {
    /// Makes a workload's policy of the Guards and rules that reach it. `before`: of others, for the same mesh and issuers; what
    /// is told beside it is how the rules differ, where that is known.
    pub(crate) fn new(
        id: &WorkloadId,
        mesh: &Mesh,
        issuers: &BTreeMap<String, Option<TrustedIssuer>>,
        guards: Vec<Arc<Guard>>,
        rules: Vec<Arc<Rule>>,
        before: Option<&Self>,
    ) -> (Self, Option<Change>) {
        match policy(id, mesh, &guards, &rules, before) {
            Ok(Made { policy, tally, encoder, change }) => {
                let planned = Self::of(id, issuers, guards, rules, Ok(Arc::new(policy)));
                (Self { tally, encoder, ..planned }, change)
            }
            Err(why) => (Self::of(id, issuers, guards, rules, Err(why)), None),
        }
    }

    /// The same policy, of Guards and rules that say the same from other places.
    pub(crate) fn moved(
        &self,
        id: &WorkloadId,
        issuers: &BTreeMap<String, Option<TrustedIssuer>>,
        guards: Vec<Arc<Guard>>,
        rules: Vec<Arc<Rule>>,
    ) -> Self {
        let moved = Self::of(id, issuers, guards, rules, self.policy.clone());
        Self { tally: self.tally, encoder: self.encoder.clone(), ..moved }
    }

    fn of(
        id: &WorkloadId,
        issuers: &BTreeMap<String, Option<TrustedIssuer>>,
        guards: Vec<Arc<Guard>>,
        rules: Vec<Arc<Rule>>,
        policy: Result<Arc<WorkloadPolicy>, String>,
    ) -> Self {
        let mut findings = Findings::default();
        if let Ok(policy) = &policy {
            warn_audiences(&guards, &policy.issuers, issuers, &mut findings);
        }
        rollout::refuse_two(&guards, &id.namespace, &mut findings);
        if let Err(why) = &policy {
            findings.push(Diagnostic {
                file: String::new(),
                line: 0,
                column: 0,
                code: Code::EncodingFailed,
                severity: Code::EncodingFailed.severity(),
                object: Some(format!("workload `{id}`")),
                field: String::new(),
                message: format!("its rules cannot be encoded: {why}"),
                why: "a policy that is incomplete is never delivered".to_owned(),
                fix: "write fewer or simpler rules for this workload".to_owned(),
                related: Vec::new(),
            });
        }
        let (tally, encoder) = (Tally::default(), None);
        Self { guards, rules, policy, findings: findings.into_found(), tally, encoder }
    }
}

/// Says so where a rule reaches workloads that no Guard covers.
pub(crate) fn warn_unguarded(rule: &Rule, covered: &BTreeSet<WorkloadId>, findings: &mut Findings) {
    if rule.reach.iter().all(|id| covered.contains(id)) {
        return;
    }
    let uncovered: Vec<String> =
        rule.reach.iter().filter(|id| !covered.contains(id)).map(WorkloadId::to_string).collect();
    findings.add(
        &rule.source.place(),
        Code::NotGuarded,
        format!("no Guard covers {}", suggest::some_of(&uncovered)),
        "without a Guard every request passes, whatever rules say",
        "add a Guard to the namespace, or to the root namespace for the whole mesh",
    );
}

fn policy(
    id: &WorkloadId,
    mesh: &Mesh,
    guards: &[Arc<Guard>],
    rules: &[Arc<Rule>],
    before: Option<&Planned>,
) -> Result<Made, String> {
    let names = names(rules);
    let positions = Positions::joint(names.values().copied())
        .map_err(|_| "it has more than 65535 issuers, claims or directories".to_owned())?;
    if positions.issuers.len() > MAX_ISSUERS {
        let issuers = positions.issuers.len();
        return Err(format!("they need {issuers} issuers, and filters accept {MAX_ISSUERS}"));
    }
    let moved: BTreeMap<usize, Moved> =
        names.into_iter().map(|(at, names)| (at, names.moved_to(&positions))).collect();
    let issuers: Vec<IssuerModel> = positions
        .issuers
        .iter()
        .map(|(name, (_, claims))| IssuerModel {
            name: name.clone(),
            slots: claims.keys().cloned().collect(),
        })
        .collect();
    let tcp_ports: BTreeSet<u16> = guards
        .iter()
        .filter(|guard| guard.mode == Mode::Enforce)
        .flat_map(|guard| guard.tcp_ports.iter().copied())
        .collect();
    let directories: Vec<DirectoryQuery> = positions.directories.into_keys().collect();
    // Where two differ, that is an error, and nothing is made of this.
    let rollout = rollout::of(guards.iter().map(|guard| &**guard)).unwrap_or_default();
    let is_root_rollout =
        guards.iter().any(|guard| guard.rollout.is_some() && rollout::is_in(guard, &mesh.root_namespace));
    let mut guards: Vec<GuardModel> = guards
        .iter()
        .map(|guard| GuardModel {
            id: guard.name.to_string(),
            mode: guard.mode,
            ports: guard.ports.clone(),
            audiences: guard.audiences.clone(),
        })
        .collect();
    guards.sort_by(|a, b| a.id.cmp(&b.id));
    let make = |rule: &Rule| SharedRule::from(rule_model(rule, id, mesh, &moved));
    // Of other issuers, claims or directories the same rule is another model.
    let same_names = |before: &&Planned| {
        before
            .policy
            .as_ref()
            .is_ok_and(|policy| policy.model.issuers == issuers && policy.directories == directories)
    };
    let before = before.filter(|_| rules.len() >= MANY).filter(same_names);
    let (models, change) = match before.map(|before| (before, &before.policy)) {
        Some((before, Ok(policy))) => {
            let (models, change) = again(&before.rules, &policy.model.rules, rules, make);
            (models, Some(change))
        }
        _ => {
            let mut models = parallel::map_within(rules, |rule| make(rule));
            models.sort_by(|a, b| a.id.cmp(&b.id));
            (models, None)
        }
    };
    let tally = match (&change, before) {
        (Some(change), Some(before)) => before.tally.after(change),
        _ => models.iter().map(|model| Tally::of(model)).sum(),
    };
    let model = PolicyModel {
        issuers,
        guards,
        directories: directories.iter().map(DirectoryQuery::to_string).collect(),
        rules: models,
    };
    let encoder = before.and_then(|before| before.encoder.clone()).unwrap_or_default();
    let section = encoder.lock().unwrap_or_else(PoisonError::into_inner).encode(&model);
    let policy = WorkloadPolicy {
        covered: !model.guards.is_empty(),
        tcp_ports: tcp_ports.into_iter().collect(),
        issuers: model.issuers.iter().map(|issuer| issuer.name.clone()).collect(),
        directories,
        reads_bodies: tally.reads_bodies(),
        rollout,
        is_root_rollout,
        rules: section.map_err(|error| error.to_string())?,
        model,
    };
    Ok(Made { policy, tally, encoder: Some(encoder).filter(|_| rules.len() >= MANY), change })
}

/// The models of these rules, both in the order of names: those that were made of rules that say the same, and new ones.
fn again(
    known: &[Arc<Rule>],
    models: &[SharedRule],
    rules: &[Arc<Rule>],
    make: impl Fn(&Rule) -> SharedRule,
) -> (Vec<SharedRule>, Change) {
    let mut change = Change::default();
    let mut made = Vec::with_capacity(rules.len());
    let mut known = known.iter().zip(models).peekable();
    for rule in rules {
        let is_same = |(known, _): &(&Arc<Rule>, &SharedRule)| Arc::ptr_eq(known, rule);
        // Names and all that rules say are compared only where something differs.
        if known.peek().is_some_and(|known| !is_same(known)) {
            while let Some((_, model)) = known.next_if(|(known, _)| known.name < rule.name) {
                change.gone.push(model.clone());
            }
        }
        let same = known.next_if(|one| is_same(one) || one.0.says_the_same(rule));
        made.push(match same {
            Some((_, model)) => model.clone(),
            None => {
                let gone = known.next_if(|(known, _)| known.name == rule.name);
                change.gone.extend(gone.map(|(_, model)| model.clone()));
                let model = make(rule);
                change.new.push(model.clone());
                model
            }
        });
    }
    change.gone.extend(known.map(|(_, model)| model.clone()));
    (made, change)
}

fn rule_model(rule: &Rule, id: &WorkloadId, mesh: &Mesh, moved: &BTreeMap<usize, Moved>) -> RuleModel {
    let moved = moved.get(&at(&rule.from));
    let mut from: Vec<FromModel> = Vec::with_capacity(rule.from.list.len());
    for entry in &rule.from.list {
        for peer in entry.who.peers(id, mesh) {
            let (issuers, condition) = (entry.issuers.clone(), entry.condition.clone());
            let mut one = FromModel { peer, issuers, condition };
            if let Some(moved) = moved {
                moved.entry(&mut one);
            }
            if !from.contains(&one) {
                from.push(one);
            }
        }
    }
    RuleModel {
        id: rule.name.to_string(),
        effect: rule.effect,
        mode: rule.mode,
        owner: rule.owner.clone(),
        contact: rule.contact.clone(),
        disclosure: rule.disclosure,
        audit: rule.audit,
        lease: rule.lease,
        revokes: rule.revokes,
        from,
        to: rule.to.clone(),
    }
}

/// What rules name, by where it is in memory: many share it.
fn names(rules: &[Arc<Rule>]) -> BTreeMap<usize, &Positions> {
    let mut names = BTreeMap::new();
    for rule in rules {
        names.entry(at(&rule.from)).or_insert(&*rule.from.names);
    }
    names
}

fn at(entries: &Entries) -> usize {
    Arc::as_ptr(&entries.names).addr()
}

/// An issuer whose ceiling has none of a Guard's audiences is never accepted there; where a Guard names none, the request's host
/// counts, which its sender chooses.
fn warn_audiences(
    guards: &[Arc<Guard>],
    used: &[String],
    issuers: &BTreeMap<String, Option<TrustedIssuer>>,
    findings: &mut Findings,
) {
    let known = || used.iter().filter_map(|name| Some((name.as_str(), issuers.get(name)?.as_ref()?)));
    for guard in guards {
        let Some(audiences) = &guard.audiences else {
            // A single audience leaves nothing to choose.
            let chosen = |issuer: &TrustedIssuer| issuer.audiences.as_ref().is_none_or(|all| all.len() > 1);
            let open: Vec<&str> =
                known().filter(|(_, issuer)| chosen(issuer)).map(|(name, _)| name).collect();
            if !open.is_empty() {
                findings.add(
                    &guard.source.place().key("spec"),
                    Code::AnyAudience,
                    format!(
                        "tokens of {} may be meant for whatever host the request names",
                        suggest::list(open)
                    ),
                    "without `audience` a token has to be meant for the request's host, and who sends the request chooses that: a token \
                     that another service was given can be used here",
                    "name the audience that callers ask their tokens for: `audience: \"https://…\"`",
                );
            }
            continue;
        };
        for (name, issuer) in known() {
            let Some(ceiling) = &issuer.audiences else { continue };
            if !audiences.iter().any(|audience| ceiling.contains(audience)) {
                findings.add(
                    &guard.source.place().key("spec").key("audience"),
                    Code::AudienceOutsideCeiling,
                    format!(
                        "tokens of `{name}` are never accepted for {}",
                        suggest::list(audiences.iter().map(String::as_str))
                    ),
                    "the TrustedIssuer's `audiences` are the most that any Guard may accept",
                    "add the audience to the TrustedIssuer, or correct it here",
                );
            }
        }
    }
}
