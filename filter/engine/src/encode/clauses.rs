//! Cuts rules into clauses and files each under its keys.

use std::collections::BTreeMap;

use crate::hash;
use crate::index::{self, Shape};
use crate::layout::{MAX_DEPTH, NONE, code, word};
use crate::model::{
    Condition, Effect, FromModel, Mode, OperationModel, PeerModel, RuleModel, SegmentPattern, Test,
};

use super::{buckets, claim_word};

/// Most clauses that one rule is cut into.
const MAX_CLAUSES_PER_RULE: usize = 256;

/// Most keys that one clause is filed under.
const MAX_KEYS_PER_CLAUSE: usize = 64;

/// Most shapes that a policy may have: each costs a request one look-up.
const MAX_SHAPES: usize = 24;

/// One from and one operation of a rule; [`NONE`] stands for any of the rule's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clause {
    pub rule: u32,
    pub from: u32,
    pub operation: u32,
}

/// Clauses by shape and key.
pub(super) type Keys = BTreeMap<(Shape, u64), Vec<u32>>;

#[derive(Default)]
pub(super) struct ClauseIndex {
    clauses: Vec<Clause>,
    filed: Vec<Vec<Parts>>,
    token_required: Vec<u64>,
}

/// What one key is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Parts {
    subject: (u32, u64),
    claim: (u32, u64),
    depth: u32,
    prefix: u64,
}

// === impl ClauseIndex ===

impl ClauseIndex {
    /// Files a rule whose froms and operations were written at these positions.
    pub fn add(&mut self, position: u32, rule: &RuleModel, froms: &[u32], operations: &Option<Vec<u32>>) {
        if rule.effect == Effect::Allow && rule.mode == Mode::Enforce {
            for from in rule.from.iter().filter(|from| !from.issuers.is_empty()) {
                self.token_required.extend(token_required_subjects(from));
            }
        }
        let froms: Vec<(u32, Option<&FromModel>)> =
            froms.iter().copied().zip(rule.from.iter().map(Some)).collect();
        let to: Vec<(u32, Option<&OperationModel>)> = match (operations, &rule.to) {
            (Some(positions), Some(models)) => {
                positions.iter().copied().zip(models.iter().map(Some)).collect()
            }
            _ => vec![(NONE, None)],
        };
        let any_from = [(NONE, None)];
        let any_to = [(NONE, None)];
        // Every pair if these are few; else the longer side only, which is the more selective one; else one clause.
        let (froms, to) = if froms.len() * to.len() <= MAX_CLAUSES_PER_RULE {
            (froms.as_slice(), to.as_slice())
        } else if froms.len() <= MAX_CLAUSES_PER_RULE {
            (froms.as_slice(), any_to.as_slice())
        } else if to.len() <= MAX_CLAUSES_PER_RULE {
            (any_from.as_slice(), to.as_slice())
        } else {
            (any_from.as_slice(), any_to.as_slice())
        };
        for (from, from_model) in froms {
            for (operation, operation_model) in to {
                self.clauses.push(Clause { rule: position, from: *from, operation: *operation });
                self.filed.push(parts(rule.effect, *from_model, *operation_model));
            }
        }
    }

    /// All clauses, and under which keys they are.
    pub fn finish(self) -> (Vec<Clause>, Keys) {
        // Fewer parts make fewer shapes: first without claims, then with shorter prefixes.
        let mut with_claims = true;
        let mut depth = word(MAX_DEPTH);
        let keys = loop {
            let keys = self.keys(with_claims, depth);
            let shapes = keys.keys().map(|(shape, _)| shape).collect::<std::collections::BTreeSet<_>>().len();
            if shapes <= MAX_SHAPES || (!with_claims && depth == 0) {
                break keys;
            }
            if with_claims {
                with_claims = false;
            } else {
                depth = depth.saturating_sub(1);
            }
        };
        let mut keys = keys;
        for subject in self.token_required {
            buckets::presence(&mut keys, subject);
        }
        (self.clauses, keys)
    }

    fn keys(&self, with_claims: bool, max_depth: u32) -> Keys {
        let mut keys = Keys::new();
        for (position, filed) in self.filed.iter().enumerate() {
            for parts in filed {
                let (claim, value) = if with_claims { parts.claim } else { (NONE, 0) };
                let (depth, prefix) =
                    if parts.depth <= max_depth { (parts.depth, parts.prefix) } else { (0, hash::SEED) };
                let shape = Shape { subject: parts.subject.0, claim, depth };
                let key = index::key(shape, parts.subject.1, value, prefix);
                keys.entry((shape, key)).or_default().push(word(position));
            }
        }
        keys
    }
}

fn parts(effect: Effect, from: Option<&FromModel>, operation: Option<&OperationModel>) -> Vec<Parts> {
    let mut prefixes: Vec<(u32, u64)> = match operation.and_then(|operation| operation.paths.as_ref()) {
        None => vec![(0, hash::SEED)],
        Some(paths) => paths.iter().map(|path| literal_prefix(&path.segments)).collect(),
    };
    prefixes.sort_unstable();
    prefixes.dedup();
    if prefixes.len() > MAX_KEYS_PER_CLAUSE {
        prefixes = vec![(0, hash::SEED)];
    }
    let mut subjects = from.map_or_else(|| vec![(code::SUBJECT_NONE, 0)], subjects);
    if subjects.len() * prefixes.len() > MAX_KEYS_PER_CLAUSE {
        subjects = vec![(code::SUBJECT_NONE, 0)];
    }
    // A claim that cannot be told makes a Deny match, so a Deny must be found without it.
    let claim = match (effect, from) {
        (Effect::Allow, Some(from)) => demanded_claim(&from.condition).unwrap_or((NONE, 0)),
        _ => (NONE, 0),
    };
    let mut parts = Vec::with_capacity(subjects.len() * prefixes.len());
    for subject in subjects {
        for (depth, prefix) in &prefixes {
            parts.push(Parts { subject, claim, depth: *depth, prefix: *prefix });
        }
    }
    parts.sort_unstable();
    parts.dedup();
    parts
}

fn literal_prefix(segments: &[SegmentPattern]) -> (u32, u64) {
    let mut prefix = hash::SEED;
    let mut depth = 0;
    for segment in segments.iter().take(MAX_DEPTH) {
        match segment {
            SegmentPattern::Literal(text) if !text.is_empty() => {
                prefix = index::extend_prefix(prefix, text);
                depth += 1;
            }
            _ => break,
        }
    }
    (depth, prefix)
}

fn subjects(from: &FromModel) -> Vec<(u32, u64)> {
    match &from.peer {
        PeerModel::Mesh { trust_domain, namespace, service_accounts: None } => {
            vec![(code::SUBJECT_NAMESPACE, index::namespace_subject(trust_domain, namespace))]
        }
        PeerModel::Mesh { trust_domain, namespace, service_accounts: Some(accounts) } => accounts
            .iter()
            .map(|account| (code::SUBJECT_ACCOUNT, index::account_subject(trust_domain, namespace, account)))
            .collect(),
        PeerModel::AnyMesh { .. } | PeerModel::NoPeer | PeerModel::Anyone => vec![(code::SUBJECT_NONE, 0)],
    }
}

/// A claim without whose exact value the condition does not hold.
fn demanded_claim(condition: &Condition) -> Option<(u32, u64)> {
    match condition {
        Condition::Claim(claim, Test::OneOf(values)) => match values.as_slice() {
            [value] => Some((claim_word(*claim), index::claim_value(value))),
            _ => None,
        },
        Condition::All(parts) => parts.iter().find_map(demanded_claim),
        _ => None,
    }
}

fn token_required_subjects(from: &FromModel) -> Vec<u64> {
    match &from.peer {
        PeerModel::Mesh { .. } => subjects(from).into_iter().map(|(_, subject)| subject).collect(),
        PeerModel::AnyMesh { trust_domain } => vec![index::any_mesh_subject(trust_domain)],
        PeerModel::NoPeer => vec![index::WITHOUT_PEER],
        PeerModel::Anyone => vec![index::ANYONE],
    }
}
