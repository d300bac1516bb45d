//! What became of an object, as its status says it. Pure.
//!
//! *Accepted*: it is well formed and compiles. *Compiled*: what is in force has it as it is. *Fenced*: Istio's policies
//! say the same. *Attached*: what brings filters is there. *Enforced*: how many proxies enforce it. *TokenHidden*: tokens do not
//! reach filters.
//!
//! INVARIANT: the same state gives the same status; nothing in it changes by itself with time.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tidegate_compiler::{Diagnostic, Kind, WorkloadId};

use super::index::RuleObject;
use super::pods::Workloads;
use super::source::Judged;
use super::view::FenceView;
use crate::push::FleetReport;
use crate::rules::{Finding, ObjectPath};

mod hidden;
mod kept;
mod looked;

pub(crate) use hidden::{Hidden, hidden};
pub(crate) use looked::Looked;

/// Longest message, in bytes; the API server allows 32 KiB.
const MAX_MESSAGE: usize = 4_096;
/// How many names are told.
const NAMED: usize = 5;

/// The conditions that are ours.
pub(crate) const CONDITIONS: [&str; 8] = [
    "Accepted",
    "Compiled",
    "Fenced",
    "Attached",
    "Enforced",
    "TokenHidden",
    "Bypassed",
    "ControlPlaneUnreachable",
];

/// Which rules and guards act on a workload.
pub(crate) type Reach = BTreeMap<(Kind, String), BTreeSet<WorkloadId>>;

/// What proxies of one workload do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Proxies {
    /// All that there should be.
    pub(crate) all: BTreeSet<String>,
    /// Those of which every VM enforces what it is to enforce.
    pub(crate) enforcing: BTreeSet<String>,
    /// Those with a VM that refused the last push, and why.
    pub(crate) refusing: BTreeMap<String, String>,
    /// Those that have no stream.
    pub(crate) silent: BTreeSet<String>,
    /// Pods without a proxy.
    pub(crate) bypassed: BTreeSet<String>,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) kind: &'static str,
    pub(crate) status: &'static str,
    pub(crate) reason: Cow<'static, str>,
    pub(crate) message: String,
}

/// What statuses are made from.
pub(crate) struct View<'v> {
    pub(crate) judged: &'v Judged,
    pub(crate) reach: &'v Reach,
    pub(crate) proxies: &'v BTreeMap<WorkloadId, Proxies>,
    /// Absent where no policies are kept.
    pub(crate) fence: Option<&'v FenceView>,
    /// Tokens that do not reach filters, by the object that needs them.
    pub(crate) hidden: &'v Hidden,
    /// Namespaces whose pods Istio is told to leave alone.
    pub(crate) opted_out: &'v BTreeSet<String>,
    /// Proxies that have had no stream for too long.
    pub(crate) unreachable: &'v BTreeSet<(WorkloadId, String)>,
    /// Whether filters are offered what was judged. Before, what they enforce says nothing about it.
    pub(crate) is_offered: bool,
}

/// Which objects act on which workloads.
pub(crate) fn reach(judged: &Judged) -> Reach {
    let mut reach = Reach::new();
    let policies = judged.in_force.iter().flat_map(|in_force| &in_force.compiled.workloads);
    for (id, policy) in policies {
        let guards = policy.model.guards.iter().map(|guard| (Kind::Guard, &guard.id));
        let rules = policy.model.rules.iter().map(|rule| (Kind::AccessRule, &rule.id));
        for (kind, name) in guards.chain(rules) {
            reach.entry((kind, name.clone())).or_default().insert(id.clone());
        }
    }
    reach
}

/// What the proxies of every workload do, from the pods and from what filters say.
pub(crate) fn proxies(workloads: &Workloads, fleet: &FleetReport) -> BTreeMap<WorkloadId, Proxies> {
    let mut all: BTreeMap<WorkloadId, Proxies> = BTreeMap::new();
    for (id, seen) in workloads {
        let proxies = Proxies {
            all: seen.proxies.clone(),
            // Until it says something.
            silent: seen.proxies.clone(),
            bypassed: seen.bypassed.clone(),
            ..Default::default()
        };
        all.insert(id.clone(), proxies);
    }
    for (workload, report) in &fleet.workloads {
        let Some((namespace, name)) = workload.split_once('/') else { continue };
        let id = WorkloadId { namespace: namespace.to_owned(), name: name.to_owned() };
        let proxies = all.entry(id).or_default();
        let mut behind = BTreeSet::new();
        for vm in report.vms.iter().filter(|vm| vm.connected) {
            proxies.all.insert(vm.instance.clone());
            // Every live VM of a proxy.
            if vm.up_to_date {
                proxies.enforcing.insert(vm.instance.clone());
            } else {
                behind.insert(vm.instance.clone());
            }
            if let Some(refusal) = &vm.refusal {
                proxies
                    .refusing
                    .insert(vm.instance.clone(), format!("{}: {}", refusal.reason, refusal.detail));
            }
        }
        proxies.enforcing.retain(|instance| !behind.contains(instance));
        proxies.silent = &proxies.all - &(&proxies.enforcing | &behind);
    }
    all
}

/// The conditions of one object, and how many proxies enforce it (`2/3`) where it is something that proxies enforce.
pub(crate) fn conditions(
    path: &str,
    object: &ObjectPath,
    live: &RuleObject,
    view: &View<'_>,
) -> (Vec<Condition>, Option<String>) {
    let own = view.judged.findings.get(path).map_or(&[][..], Vec::as_slice);
    let errors: Vec<&Finding> = own.iter().filter(|found| found.is_error()).collect();
    let is_counting = view.judged.counting.get(path) == view.judged.loaded.files.get(path);
    let has_last_good = view.judged.counting.contains_key(path);
    let what_counts =
        if has_last_good { "its last good form stays in force" } else { "nothing of it is in force" };
    let mut all = Vec::new();
    all.push(match errors.first() {
        None => {
            let warnings: Vec<String> = own.iter().map(told).collect();
            let (reason, message) = match warnings.as_slice() {
                [] => ("Accepted", "well formed, and everything that it names is there".to_owned()),
                warnings => ("AcceptedWithWarnings", warnings.join("\n")),
            };
            Condition { kind: "Accepted", status: "True", reason: reason.into(), message: shortened(message) }
        }
        Some(_) => {
            let told: Vec<String> = errors.iter().map(|found| told(found)).collect();
            Condition {
                kind: "Accepted",
                status: "False",
                reason: if has_last_good { "RefusedLastGoodStays" } else { "Refused" }.into(),
                message: shortened(told.join("\n")),
            }
        }
    });
    let (status, reason, message) = if is_counting {
        ("True", "Compiled", "it is in force as it is".to_owned())
    } else if !errors.is_empty() {
        ("False", "Refused", format!("it has errors; {what_counts}"))
    } else {
        let others = view.judged.findings.iter().filter(|(_, found)| found.iter().any(Finding::is_error));
        let named: BTreeSet<String> = others
            .map(|(file, _)| {
                ObjectPath::parse(file).map_or_else(|| "the whole".to_owned(), |path| shown(&path))
            })
            .collect();
        ("False", "HeldBack", format!("held back by errors of {}; {what_counts}", some_of(&named)))
    };
    all.push(Condition { kind: "Compiled", status, reason: reason.into(), message: shortened(message) });
    if !matches!(object.kind, Kind::Guard | Kind::AccessRule) {
        return (all, None);
    }
    if let Some(fence) = view.fence {
        all.push(kept::fenced(object, is_counting, view, fence));
        all.extend(kept::attached(object, is_counting, view, fence));
    }
    all.extend(hidden::condition(object, view));
    if view.is_offered {
        all.extend(enforced(object, is_counting, view));
        return (all, enforced_column(object, view));
    }
    // Of another form of it nothing is known; of this one what is known already still holds for most.
    let known = live.conditions().find(|known| {
        known["type"] == "Enforced" && known["observedGeneration"] == live.generation && is_counting
    });
    all.push(match known.and_then(Condition::of) {
        Some(known) => known,
        None if is_counting => Condition {
            kind: "Enforced",
            status: "False",
            reason: "BeingPushed".into(),
            message: "it is not on offer to filters yet".to_owned(),
        },
        None => not_compiled(),
    });
    all.extend(
        live.conditions()
            .filter(|known| known["type"] != "Enforced")
            .filter_map(Condition::of)
            .filter(|known| matches!(known.kind, "Bypassed" | "ControlPlaneUnreachable")),
    );
    (all, live.status.get("enforced").and_then(Value::as_str).map(str::to_owned))
}

fn not_compiled() -> Condition {
    Condition {
        kind: "Enforced",
        status: "False",
        reason: "NotCompiled".into(),
        message: "what proxies enforce does not have it as it is".to_owned(),
    }
}

fn qualified(object: &ObjectPath) -> String {
    format!("{}/{}", object.namespace.as_deref().unwrap_or_default(), object.name)
}

fn enforced(object: &ObjectPath, is_counting: bool, view: &View<'_>) -> Vec<Condition> {
    let nowhere = BTreeSet::new();
    let reached = view.reach.get(&(object.kind, qualified(object))).unwrap_or(&nowhere);
    let nothing = Proxies::default();
    let proxies: Vec<(&WorkloadId, &Proxies)> =
        reached.iter().map(|id| (id, view.proxies.get(id).unwrap_or(&nothing))).collect();
    let counted = |of: fn(&Proxies) -> usize| proxies.iter().map(|(_, proxies)| of(proxies)).sum::<usize>();
    let (enforcing, all) = (counted(|p| p.enforcing.len()), counted(|p| p.all.len()));
    let names = |of: fn(&Proxies) -> &BTreeSet<String>| -> BTreeSet<String> {
        let each = proxies
            .iter()
            .flat_map(|(id, proxies)| of(proxies).iter().map(move |pod| format!("{}/{pod}", id.namespace)));
        each.collect()
    };
    let condition = |status, reason: &'static str, message: String| Condition {
        kind: "Enforced",
        status,
        reason: reason.into(),
        message: shortened(message),
    };
    let summary = format!("{enforcing} of {all} proxies enforce it");
    let refusing: Vec<String> = proxies
        .iter()
        .flat_map(|(id, proxies)| {
            proxies.refusing.iter().map(move |(pod, why)| format!("{}/{pod}: {why}", id.namespace))
        })
        .collect();
    let silent = names(|proxies| &proxies.silent);
    let mut conditions = vec![if !is_counting {
        not_compiled()
    } else if reached.is_empty() {
        condition("False", "TargetsNothing", "no workload is reached by it".to_owned())
    } else if all == 0 {
        condition("Unknown", "NoProxies", format!("no pod of {} has a proxy", some_of(reached)))
    } else if enforcing == all {
        condition("True", "Enforced", summary)
    } else if !refusing.is_empty() {
        condition("False", "RefusedByProxies", format!("{summary}; refused: {}", some_of(&refusing)))
    } else if !silent.is_empty() {
        condition("False", "ProxiesNotConnected", format!("{summary}; not connected: {}", some_of(&silent)))
    } else {
        condition("False", "ProxiesBehind", summary)
    }];
    if object.kind == Kind::Guard {
        let bypassed = names(|proxies| &proxies.bypassed);
        if !bypassed.is_empty() {
            let opted_out: BTreeSet<String> = proxies
                .iter()
                .filter(|(_, proxies)| !proxies.bypassed.is_empty())
                .filter(|(id, _)| view.opted_out.contains(&id.namespace))
                .map(|(id, _)| format!("`{}`", id.namespace))
                .collect();
            let why = match opted_out.len() {
                0 => String::new(),
                _ => format!("; `istio-injection: disabled` is on the namespace {}", some_of(&opted_out)),
            };
            conditions.push(Condition {
                kind: "Bypassed",
                status: "True",
                reason: if opted_out.is_empty() { "NoProxy" } else { "InjectionDisabled" }.into(),
                message: shortened(format!(
                    "{} pods have no proxy that could refuse anything: {}{why}",
                    bypassed.len(),
                    some_of(&bypassed)
                )),
            });
        }
        let unreachable: Vec<String> = view
            .unreachable
            .iter()
            .filter(|(id, _)| reached.contains(id))
            .map(|(id, pod)| format!("{}/{pod}", id.namespace))
            .collect();
        if !unreachable.is_empty() {
            conditions.push(Condition {
                kind: "ControlPlaneUnreachable",
                status: "True",
                reason: "NeverSubscribed".into(),
                message: shortened(format!("no stream of {}", some_of(&unreachable))),
            });
        }
    }
    conditions
}

// === impl Condition ===

impl Condition {
    /// One that is written somewhere, if it is one of ours.
    fn of(written: &Value) -> Option<Self> {
        let text = |field: &str| written.get(field)?.as_str();
        Some(Self {
            kind: CONDITIONS.into_iter().find(|kind| Some(*kind) == text("type"))?,
            status: ["True", "False", "Unknown"]
                .into_iter()
                .find(|status| Some(*status) == text("status"))?,
            reason: text("reason")?.to_owned().into(),
            message: text("message")?.to_owned(),
        })
    }
}

/// The whole status, where it differs from what is written there; `now`: RFC 3339.
pub(crate) fn changed(
    object: &RuleObject,
    conditions: &[Condition],
    enforced: Option<String>,
    now: &str,
) -> Option<Value> {
    let before = |kind: &str| object.conditions().find(|condition| condition["type"] == kind);
    let wanted: Vec<Value> = conditions
        .iter()
        .map(|condition| {
            let known = before(condition.kind).filter(|known| known["status"] == condition.status);
            let since = known.and_then(|known| known["lastTransitionTime"].as_str()).unwrap_or(now);
            json!({
                "type": condition.kind,
                "status": condition.status,
                "reason": condition.reason,
                "message": condition.message,
                "observedGeneration": object.generation,
                "lastTransitionTime": since,
            })
        })
        .collect();
    let gone = CONDITIONS
        .iter()
        .any(|kind| before(kind).is_some() && !conditions.iter().any(|condition| condition.kind == *kind));
    let is_same = wanted.iter().all(|condition| object.conditions().any(|live| live == condition))
        && !gone
        && object.status["observedGeneration"] == object.generation
        && object.status.get("enforced").and_then(Value::as_str) == enforced.as_deref();
    if is_same {
        return None;
    }
    let mut status = json!({"observedGeneration": object.generation, "conditions": wanted});
    if let Some(enforced) = enforced {
        status["enforced"] = enforced.into();
    }
    Some(status)
}

/// `2/3`, for a column.
fn enforced_column(object: &ObjectPath, view: &View<'_>) -> Option<String> {
    let reached = view.reach.get(&(object.kind, qualified(object)))?;
    let proxies = reached.iter().filter_map(|id| view.proxies.get(id));
    let (enforcing, all) =
        proxies.fold((0, 0), |(some, all), one| (some + one.enforcing.len(), all + one.all.len()));
    Some(format!("{enforcing}/{all}"))
}

/// A finding in the words of the command line, without the place in a file that nobody wrote.
fn told(finding: &Finding) -> String {
    match finding {
        Finding::Rule(diagnostic) => {
            let related = Vec::new();
            Diagnostic { file: String::new(), line: 0, column: 0, related, ..diagnostic.clone() }.to_string()
        }
        Finding::File(_) => finding.to_string(),
    }
}

fn shown(path: &ObjectPath) -> String {
    match &path.namespace {
        Some(namespace) => format!("{} `{namespace}/{}`", path.kind, path.name),
        None => format!("{} `{}`", path.kind, path.name),
    }
}

fn some_of<T: ToString>(names: impl IntoIterator<Item = T>) -> String {
    let all: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
    match all.split_at_checked(NAMED) {
        Some((first, rest)) if !rest.is_empty() => format!("{} and {} more", first.join(", "), rest.len()),
        _ => all.join(", "),
    }
}

fn shortened(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}
