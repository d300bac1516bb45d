//! Cuts rules into clauses, and tells what each demands literally.

use crate::index::{self, MAX_BEGINNING, MAX_LABELS, MAX_SEGMENTS, Shape};
use crate::layout::{NONE, code, word};
use crate::model::{
    Condition, Effect, FromModel, HostPattern, Mode, Operand, OperationModel, PathPattern, PeerModel,
    Relation, RuleModel, SegmentPattern, Test, TextTest,
};

use super::claim_word;

/// Up to so many pairs of a from and an operation each is a clause; of more, each from or each operation.
const MAX_PAIRS: usize = 256;

/// Up to so many clauses are not told apart: the index points to the rule.
const FEW_CLAUSES: usize = 16;

/// Most keys that one clause is filed under. Of longer lists only what all items share tells it from others.
const MAX_KEYS: usize = 64;

/// Most values of a claim that a clause is filed under.
pub(super) const MAX_VALUES: usize = 8;

/// What a path demands of its segments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct PathParts {
    /// Which segments are literal.
    literal: u32,
    segments: [u64; MAX_SEGMENTS],
    /// As [`Shape::beginning`], and its part.
    beginning: (u32, u64),
}

/// A clause with one of each of what it demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Item {
    /// Which of the rule's clauses it is of; 0 where these are not told apart.
    pub clause: u32,
    subject: (u32, u64),
    claim: Claim,
    value: u64,
    host: (u32, u64),
    path: PathParts,
}

/// A claim, and of which kind its values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Claim {
    pub word: u32,
    pub kind: u32,
}

/// A claim without one of whose values a condition does not hold.
pub(super) struct Demanded {
    pub claim: Claim,
    pub values: Values,
}

/// Nearly always there is one.
pub(super) enum Values {
    One([u64; 1]),
    /// In order, none twice.
    Some(Vec<u64>),
}

/// What a rule is filed under.
#[derive(Debug, Default)]
pub(super) struct Filed {
    /// Which of the rule's froms and operations each clause is of, where they are told apart; [`NONE`] for any.
    pub clauses: Vec<[u32; 2]>,
    pub items: Vec<Item>,
}

/// Whom a from is for.
pub(super) struct Subject<'m> {
    pub kind: u32,
    pub trust_domain: &'m str,
    pub namespace: &'m str,
    pub account: &'m str,
    /// What it is in the index.
    pub part: u64,
}

/// What a rule is filed under. `chosen`: of each from, which of the claims that its condition demands.
pub(super) fn file(rule: &RuleModel, chosen: &[Option<(Claim, Vec<u64>)>]) -> Filed {
    let mut filed = Filed::default();
    let froms = || (0..).zip(rule.from.iter().zip(chosen)).map(|(at, from)| (at, Some(from)));
    let to = || (0..).zip(rule.to.iter().flatten()).map(|(at, one)| (at, Some(one)));
    let froms: Vec<(u32, Option<_>)> = froms().collect();
    let to: Vec<(u32, Option<&OperationModel>)> =
        if rule.to.is_some() { to().collect() } else { vec![(NONE, None)] };
    let any_from = [(NONE, None)];
    let any_to = [(NONE, None)];
    let few = froms.len() * to.len() <= FEW_CLAUSES;
    // Every pair if these are few; else the longer side only, which is the more selective one.
    let (froms, to) = if froms.len() * to.len() <= MAX_PAIRS {
        (froms.as_slice(), to.as_slice())
    } else if froms.len() >= to.len() {
        (froms.as_slice(), any_to.as_slice())
    } else {
        (any_from.as_slice(), to.as_slice())
    };
    for (from, from_model) in froms {
        for (operation, operation_model) in to {
            let clause = if few {
                0
            } else {
                filed.clauses.push([*from, *operation]);
                word(filed.clauses.len() - 1)
            };
            let claim = from_model.and_then(|(_, chosen)| chosen.clone());
            let from = from_model.map(|(from, _)| from);
            filed.file(clause, rule.effect, from, claim, *operation_model);
        }
    }
    filed
}

/// Who needs a token where a rule lets them in: by position of the from that says so.
pub(super) fn token_required(rule: &RuleModel) -> Vec<(u32, Subject<'_>)> {
    if rule.effect != Effect::Allow || rule.mode != Mode::Enforce {
        return Vec::new();
    }
    let froms = (0..).zip(&rule.from).filter(|(_, from)| !from.issuers.is_empty());
    froms.flat_map(|(at, from)| subjects_of(from).into_iter().map(move |subject| (at, subject))).collect()
}

fn subjects_of(from: &FromModel) -> Vec<Subject<'_>> {
    let one = |kind, trust_domain, namespace, account, part| {
        vec![Subject { kind, trust_domain, namespace, account, part }]
    };
    match &from.peer {
        PeerModel::Mesh { trust_domain, namespace, service_accounts } => {
            let part = index::namespace_part(namespace);
            match service_accounts {
                None => one(code::SUBJECT_NAMESPACE, trust_domain, namespace, "", part),
                Some(accounts) => {
                    let of = |account| Subject {
                        kind: code::SUBJECT_ACCOUNT,
                        trust_domain,
                        namespace,
                        account,
                        part: index::account_part(part, account),
                    };
                    accounts.iter().map(|account| of(account.as_str())).collect()
                }
            }
        }
        PeerModel::AnyMesh { trust_domain } => {
            one(code::SUBJECT_NONE, trust_domain, "", "", index::any_mesh_part(trust_domain))
        }
        PeerModel::NoPeer => one(code::PEER_NONE, "", "", "-", index::WITHOUT_PEER),
        PeerModel::Anyone => one(code::PEER_ANYONE, "", "", "*", index::ANYONE),
    }
}

// === impl Filed ===

impl Filed {
    fn file(
        &mut self,
        clause: u32,
        effect: Effect,
        from: Option<&FromModel>,
        claim: Option<(Claim, Vec<u64>)>,
        operation: Option<&OperationModel>,
    ) {
        let mut subjects = from.map_or_else(|| vec![(code::SUBJECT_NONE, 0)], subjects);
        let mut paths: Vec<PathParts> = operation
            .and_then(|operation| operation.paths.as_ref())
            .map_or_else(|| vec![PathParts::default()], |paths| paths.iter().map(path_parts).collect());
        let mut hosts: Vec<(u32, u64)> = operation
            .and_then(|operation| operation.hosts.as_ref())
            .and_then(|hosts| hosts.iter().map(host_part).collect::<Option<_>>())
            .unwrap_or_else(|| vec![(0, 0)]);
        let none = (Claim { word: NONE, kind: 0 }, vec![0]);
        let (mut claim, mut values) = claim.unwrap_or_else(|| none.clone());
        // A claim that cannot be told makes a Deny match: such a request looks there.
        if effect == Effect::Deny && claim.word != NONE {
            values.push(index::UNTELLABLE);
        }
        for parts in [&mut subjects, &mut hosts] {
            parts.sort_unstable();
            parts.dedup();
        }
        paths.sort_unstable();
        paths.dedup();
        let most = MAX_KEYS;
        if subjects.len() * paths.len() * values.len() * hosts.len() > most {
            hosts = vec![(0, 0)];
        }
        if subjects.len() * paths.len() * values.len() > most {
            (claim, values) = none;
        }
        if subjects.len() * paths.len() > most {
            // The longer one of the two first.
            if subjects.len() > paths.len() || paths.len() == 1 {
                subjects = namespace(from);
            } else {
                paths = vec![common(&paths)];
            }
        }
        if subjects.len() * paths.len() > most {
            (subjects, paths) = (namespace(from), vec![common(&paths)]);
        }
        for subject in &subjects {
            for path in &paths {
                for value in &values {
                    for host in &hosts {
                        let (subject, value, host, path) = (*subject, *value, *host, *path);
                        self.items.push(Item { clause, subject, claim, value, host, path });
                    }
                }
            }
        }
    }
}

// === impl Item ===

impl Item {
    /// Everything that it demands.
    pub fn shape(&self) -> Shape {
        Shape {
            subject: self.subject.0,
            claim: self.claim.word,
            claim_kind: self.claim.kind,
            host: self.host.0,
            segments: self.path.literal,
            beginning: self.path.beginning.0,
        }
    }

    /// Its key under a shape that has some of what it demands.
    pub fn key(&self, shape: Shape, salt: u64) -> u64 {
        let mut parts = 0;
        if shape.subject != code::SUBJECT_NONE {
            parts ^= self.subject.1;
        }
        if shape.claim != NONE {
            parts ^= self.value;
        }
        if shape.host != 0 {
            parts ^= self.host.1;
        }
        for (position, segment) in self.path.segments.iter().enumerate() {
            if shape.segments >> position & 1 != 0 {
                parts ^= segment;
            }
        }
        if shape.beginning != 0 {
            parts ^= self.path.beginning.1;
        }
        index::key(salt, parts)
    }

    /// Whether it is only there for claims that cannot be told.
    pub fn is_untellable(&self) -> bool {
        self.claim.word != NONE && self.value == index::UNTELLABLE
    }
}

fn subjects(from: &FromModel) -> Vec<(u32, u64)> {
    match &from.peer {
        PeerModel::Mesh { namespace, service_accounts: None, .. } => {
            vec![(code::SUBJECT_NAMESPACE, index::namespace_part(namespace))]
        }
        PeerModel::Mesh { namespace, service_accounts: Some(accounts), .. } => {
            let namespace = index::namespace_part(namespace);
            let account = |account: &String| (code::SUBJECT_ACCOUNT, index::account_part(namespace, account));
            accounts.iter().map(account).collect()
        }
        PeerModel::AnyMesh { .. } | PeerModel::NoPeer | PeerModel::Anyone => vec![(code::SUBJECT_NONE, 0)],
    }
}

/// What all accounts of a from share.
fn namespace(from: Option<&FromModel>) -> Vec<(u32, u64)> {
    match from.map(|from| &from.peer) {
        Some(PeerModel::Mesh { namespace, .. }) => {
            vec![(code::SUBJECT_NAMESPACE, index::namespace_part(namespace))]
        }
        _ => vec![(code::SUBJECT_NONE, 0)],
    }
}

/// What all these paths demand.
fn common(paths: &[PathParts]) -> PathParts {
    let mut common = paths.first().copied().unwrap_or_default();
    for path in paths {
        for (position, (part, other)) in common.segments.iter_mut().zip(path.segments).enumerate() {
            if *part != other || path.literal >> position & 1 == 0 {
                *part = 0;
                common.literal &= !(1 << position);
            }
        }
        if common.beginning != path.beginning {
            common.beginning = (0, 0);
        }
    }
    common
}

/// `None` for a suffix of more labels than the index uses.
fn host_part(host: &HostPattern) -> Option<(u32, u64)> {
    match host {
        HostPattern::Exact(name) => Some((1, index::host_part(name))),
        HostPattern::Suffix(suffix) => {
            let labels = word(suffix.bytes().filter(|byte| *byte == b'.').count());
            (1..=MAX_LABELS).contains(&labels).then(|| (labels + 1, index::host_part(suffix)))
        }
    }
}

fn path_parts(path: &PathPattern) -> PathParts {
    let mut parts = PathParts::default();
    for (position, segment) in path.segments.iter().enumerate().take(MAX_SEGMENTS) {
        match segment {
            SegmentPattern::Literal(text) if !text.is_empty() => {
                parts.literal |= 1 << position;
                if let Some(part) = parts.segments.get_mut(position) {
                    *part = index::segment_part(position, text.as_bytes());
                }
            }
            SegmentPattern::Glob(pattern) if parts.beginning.0 == 0 => {
                let start = pattern.split('*').next().unwrap_or_default().as_bytes();
                let length = word(start.len()).min(MAX_BEGINNING);
                let start = start.get(..start.len().min(64)).unwrap_or_default();
                if length > 0 {
                    let at = word(position);
                    parts.beginning = (at << 8 | length, index::beginning_part(at, start));
                }
            }
            _ => {}
        }
    }
    parts
}

/// What a condition demands: it is false where such a claim is absent, or of this kind and has none of the values.
pub(super) fn demanded(condition: &Condition, all: &mut Vec<Demanded>) {
    let one = |claim, kind, values| Demanded { claim: Claim { word: claim_word(claim), kind }, values };
    match condition {
        Condition::Claim(claim, Test::OneOf(values))
        | Condition::Text(Operand::Claim(claim), TextTest::OneOf(values)) => {
            let values = Values::new(values.iter().map(|value| index::text_part(value)));
            all.push(one(*claim, code::CLAIM_TEXT, values));
        }
        Condition::Compare(Operand::Claim(claim), Relation::Equal, Operand::Text(value))
        | Condition::Compare(Operand::Text(value), Relation::Equal, Operand::Claim(claim)) => {
            all.push(one(*claim, code::CLAIM_TEXT, Values::One([index::text_part(value)])));
        }
        Condition::Claim(claim, Test::Integer(value))
        | Condition::Compare(Operand::Claim(claim), Relation::Equal, Operand::Integer(value))
        | Condition::Compare(Operand::Integer(value), Relation::Equal, Operand::Claim(claim)) => {
            all.push(one(*claim, code::CLAIM_INTEGER, Values::One([index::integer_part(*value)])));
        }
        Condition::Claim(claim, Test::Contains(value)) => {
            all.push(one(*claim, code::CLAIM_LIST, Values::One([index::text_part(value)])));
        }
        // Every part must hold, so what any of them demands is demanded.
        Condition::All(parts) => parts.iter().for_each(|part| demanded(part, all)),
        // Some part must hold, so what all of them demand is demanded.
        Condition::Any(parts) => {
            let mut each = parts.iter().map(|part| {
                let mut all = Vec::new();
                demanded(part, &mut all);
                all
            });
            let mut common = each.next().unwrap_or_default();
            for other in each {
                common.retain_mut(|demanded| {
                    let same = other.iter().find(|other| other.claim == demanded.claim);
                    if let Some(same) = same {
                        let values = [demanded.values.as_slice(), same.values.as_slice()];
                        demanded.values = Values::new(values.into_iter().flatten().copied());
                    }
                    same.is_some()
                });
            }
            all.extend(common);
        }
        _ => {}
    }
}

// === impl Values ===

impl Values {
    fn new(values: impl Iterator<Item = u64>) -> Self {
        let mut values: Vec<u64> = values.collect();
        values.sort_unstable();
        values.dedup();
        match values.as_slice() {
            [one] => Self::One([*one]),
            _ => Self::Some(values),
        }
    }

    pub fn as_slice(&self) -> &[u64] {
        match self {
            Self::One(one) => one,
            Self::Some(values) => values,
        }
    }
}
