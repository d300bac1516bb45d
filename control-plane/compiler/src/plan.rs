//! Checked objects to what each workload enforces.
//!
//! INVARIANT: deterministic. What a workload gets depends on the objects, not on the order of files, documents or entries
//! of maps; rules are ordered by id, issuers, claims and directories by name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidegate_engine::model::{
    ClaimPath, Condition, Effect, FromModel, GuardModel, IssuerModel, Mode, Operand, PolicyModel, RuleModel,
};

use tidegate_identity::issuer::MAX_ISSUERS;

use crate::callers::Entry;
use crate::demand::Positions;
use crate::diagnostic::{Code, Diagnostic};
use crate::directory::DirectoryQuery;
use crate::issuers::TrustedIssuer;
use crate::mesh::{Mesh, WorkloadId};
use crate::parallel;
use crate::place::Findings;
use crate::rules::{Guard, Rule};
use crate::suggest;
use crate::when::{self, Tree};

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
    let mut claims: BTreeMap<String, BTreeSet<ClaimPath>> = BTreeMap::new();
    let mut directories = BTreeSet::new();
    for rule in rules {
        for token in rule.from.iter().flat_map(|entry| &entry.tokens) {
            token.demands.collect(rule.effect, &token.issuer, &mut claims, &mut directories);
        }
        for entry in &rule.from {
            each_condition(rule, entry, |tree| when::collect(tree, &mut claims));
        }
    }
    if claims.len() > MAX_ISSUERS {
        return Err(format!("they need {} issuers, and filters accept {MAX_ISSUERS}", claims.len()));
    }
    let issuers: Vec<IssuerModel> = claims
        .iter()
        .map(|(name, claims)| IssuerModel { name: name.clone(), slots: claims.iter().cloned().collect() })
        .collect();
    let tcp_ports: BTreeSet<u16> = guards
        .iter()
        .filter(|guard| guard.mode == Mode::Enforce)
        .flat_map(|guard| guard.tcp_ports.iter().copied())
        .collect();
    let directory_list: Vec<DirectoryQuery> = directories.iter().cloned().collect();
    let positions = Positions::new(claims, directories)
        .map_err(|_| "it has more than 65535 issuers, claims or directories".to_owned())?;
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
    let mut rules = parallel::map_within(rules, |rule| rule_model(rule, id, mesh, &positions))
        .into_iter()
        .collect::<Result<Vec<_>, String>>()?;
    rules.sort_by(|a, b| a.id.cmp(&b.id));
    let model = PolicyModel {
        issuers,
        guards,
        directories: directory_list.iter().map(DirectoryQuery::to_string).collect(),
        rules,
    };
    let rules = tidegate_engine::encode(&model).map_err(|error| error.to_string())?;
    Ok(WorkloadPolicy {
        covered: !model.guards.is_empty(),
        tcp_ports: tcp_ports.into_iter().collect(),
        issuers: model.issuers.iter().map(|issuer| issuer.name.clone()).collect(),
        directories: directory_list,
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

fn rule_model(rule: &Rule, id: &WorkloadId, mesh: &Mesh, positions: &Positions) -> Result<RuleModel, String> {
    let mut from: Vec<FromModel> = Vec::new();
    for entry in &rule.from {
        let (issuers, condition) = condition(rule, entry, positions)
            .ok_or_else(|| format!("{} refers to something that the policy lacks", rule.source.id))?;
        for peer in entry.who.peers(id, mesh) {
            let one = FromModel { peer, issuers: issuers.clone(), condition: condition.clone() };
            if !from.contains(&one) {
                from.push(one);
            }
        }
    }
    Ok(RuleModel {
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
    })
}

/// What an entry demands besides peer and tokens: its own conditions, its tokens' age, and the rule's time.
fn each_condition(rule: &Rule, entry: &Entry, mut visit: impl FnMut(&Tree)) {
    rule.when.iter().chain(&entry.when).for_each(&mut visit);
    if rule.effect == Effect::Allow {
        entry.ages().for_each(|age| visit(&age));
    }
}

/// All tokens of an entry: their issuers, and what must hold.
fn condition(rule: &Rule, entry: &Entry, positions: &Positions) -> Option<(Vec<u16>, Condition)> {
    let effect = rule.effect;
    let mut issuers = Vec::new();
    let mut all = Vec::new();
    let mut tokens: Vec<_> = entry.tokens.iter().collect();
    tokens.sort_by(|a, b| a.issuer.cmp(&b.issuer));
    for token in tokens {
        let (issuer, slots) = positions.issuers.get(&token.issuer)?;
        issuers.push(*issuer);
        all.extend(token.demands.conditions(effect, *issuer, slots, positions)?);
    }
    let mut whole = true;
    each_condition(rule, entry, |tree| match tree.condition(effect, positions) {
        Some(condition) => all.push(condition),
        None => whole = false,
    });
    if !whole {
        return None;
    }
    let condition = match all.len() {
        0 => Condition::True,
        1 => all.pop()?,
        _ => Condition::All(all),
    };
    Some((issuers, condition))
}

/// An issuer whose ceiling has none of a Guard's audiences is never accepted there.
fn warn_audiences(
    guards: &[Arc<Guard>],
    rules: &[Arc<Rule>],
    issuers: &BTreeMap<String, Option<TrustedIssuer>>,
    findings: &mut Findings,
) {
    let used: BTreeSet<&str> = rules
        .iter()
        .flat_map(|rule| &rule.from)
        .flat_map(|entry| &entry.tokens)
        .map(|token| token.issuer.as_str())
        .collect();
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
