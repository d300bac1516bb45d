//! Checked objects to what each workload enforces.
//!
//! INVARIANT: deterministic. What a workload gets depends on the objects, not on the order of files, documents or entries
//! of maps; rules are ordered by id, issuers, claims and directories by name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidegate_engine::model::{
    Condition, FromModel, GuardModel, IssuerModel, Mode, Operand, PolicyModel, RuleModel,
};

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
use crate::rules::{Guard, Rule};
use crate::suggest;

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
}

// === impl Planned ===

impl Planned {
    /// Makes a workload's policy of the Guards and rules that reach it.
    pub(crate) fn new(
        id: &WorkloadId,
        mesh: &Mesh,
        issuers: &BTreeMap<String, Option<TrustedIssuer>>,
        guards: Vec<Arc<Guard>>,
        rules: Vec<Arc<Rule>>,
    ) -> Self {
        let policy = policy(id, mesh, &guards, &rules).map(Arc::new);
        Self::of(id, issuers, guards, rules, policy)
    }

    /// The same policy, of Guards and rules that say the same from other places.
    pub(crate) fn moved(
        &self,
        id: &WorkloadId,
        issuers: &BTreeMap<String, Option<TrustedIssuer>>,
        guards: Vec<Arc<Guard>>,
        rules: Vec<Arc<Rule>>,
    ) -> Self {
        Self::of(id, issuers, guards, rules, self.policy.clone())
    }

    fn of(
        id: &WorkloadId,
        issuers: &BTreeMap<String, Option<TrustedIssuer>>,
        guards: Vec<Arc<Guard>>,
        rules: Vec<Arc<Rule>>,
        policy: Result<Arc<WorkloadPolicy>, String>,
    ) -> Self {
        let mut findings = Findings::default();
        warn_audiences(&guards, &rules, issuers, &mut findings);
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
        Self { guards, rules, policy, findings: findings.into_found() }
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
) -> Result<WorkloadPolicy, String> {
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
    let mut rules = parallel::map_within(rules, |rule| rule_model(rule, id, mesh, &moved));
    rules.sort_by(|a, b| a.id.cmp(&b.id));
    let model = PolicyModel {
        issuers,
        guards,
        directories: directories.iter().map(DirectoryQuery::to_string).collect(),
        rules,
    };
    let rules = tidegate_engine::encode(&model).map_err(|error| error.to_string())?;
    Ok(WorkloadPolicy {
        covered: !model.guards.is_empty(),
        tcp_ports: tcp_ports.into_iter().collect(),
        issuers: model.issuers.iter().map(|issuer| issuer.name.clone()).collect(),
        directories,
        reads_bodies: reads_bodies(&model),
        rules,
        model,
    })
}

fn reads_bodies(model: &PolicyModel) -> bool {
    fn of(condition: &Condition) -> bool {
        match condition {
            Condition::All(parts) | Condition::Any(parts) => parts.iter().any(of),
            Condition::Not(part) => of(part),
            Condition::Compare(left, _, right) => operand(left) || operand(right),
            Condition::Text(read, _) => operand(read),
            Condition::True | Condition::Claim(..) | Condition::Within(_) => false,
        }
    }
    fn operand(read: &Operand) -> bool {
        match read {
            Operand::Body(_) => true,
            Operand::Length(inner) | Operand::Plus(inner, _) => operand(inner),
            _ => false,
        }
    }
    model.rules.iter().flat_map(|rule| rule.to.iter().flatten()).any(|operation| of(&operation.condition))
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
    rules.iter().map(|rule| (at(&rule.from), &*rule.from.names)).collect()
}

fn at(entries: &Entries) -> usize {
    Arc::as_ptr(&entries.names).addr()
}

/// An issuer whose ceiling has none of a Guard's audiences is never accepted there.
fn warn_audiences(
    guards: &[Arc<Guard>],
    rules: &[Arc<Rule>],
    issuers: &BTreeMap<String, Option<TrustedIssuer>>,
    findings: &mut Findings,
) {
    if guards.iter().all(|guard| guard.audiences.is_none()) {
        return;
    }
    let names = names(rules);
    let used: BTreeSet<&str> =
        names.values().flat_map(|names| names.issuers.keys()).map(String::as_str).collect();
    for guard in guards {
        let Some(audiences) = &guard.audiences else { continue };
        for name in &used {
            let Some(Some(issuer)) = issuers.get(*name) else { continue };
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
