//! Which rules demand a token of an issuer, and whether this one has what they demand.
//!
//! Each condition is decided by the engine, alone, on what the token says. Where it compares with the peer, the peer is one
//! that the entry lets in: the best case.

use std::collections::BTreeMap;

use serde::Serialize;
use tidegate_compiler::{Compiled, TrustedIssuer, WorkloadPolicy};
use tidegate_engine::model::{
    ClaimRef, Condition, Effect, FromModel, GuardModel, IssuerModel, Lease, Mode, PeerModel, PolicyModel,
    RuleModel, Test,
};
use tidegate_engine::{
    ClaimValue, Directories, HeaderFacts, Outcome, Peer, PolicySet, Request, TokenState, VerifiedToken,
    decide, encode, normal,
};
use tidegate_identity::explain;

use super::{Question, show};

/// Whether something holds. In their order: the least of all parts is that of "all of", the greatest that of "any of".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Holds {
    /// It does not.
    No,
    /// The token cannot tell: an Allow does not match then, a Deny does.
    Unknown,
    /// That depends on something else than the token.
    Depends,
    /// It does.
    Yes,
}

/// A Guard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GuardReport {
    /// `namespace/name`.
    pub guard: String,
    /// For whom tokens must be meant; `None`: the request's host.
    pub audiences: Option<Vec<String>>,
}

/// A rule that demands a token of the issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleReport {
    /// `namespace/name`.
    pub rule: String,
    /// Whether it is an Allow, and not a Deny.
    pub allows: bool,
    /// Whether it is enforced, and not only reported.
    pub enforced: bool,
    /// Where it applies: `namespace/name` of workloads.
    pub workloads: Vec<String>,
    /// Any of its entries.
    pub holds: Holds,
    /// Who it is for, one by one.
    pub entries: Vec<EntryReport>,
}

/// One of a rule's `from`, with one form of a Caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EntryReport {
    /// What is demanded of the connection.
    pub peer: String,
    /// Further issuers of which a token must be there, too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// All conditions together.
    pub holds: Holds,
    /// What is demanded of tokens.
    pub conditions: Vec<ConditionLine>,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConditionLine {
    /// How deep it lies in "any of", "all of" and "not".
    pub depth: usize,
    /// What must hold.
    pub demand: String,
    /// What the token has; absent for "any of" and the like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual: Option<String>,
    /// Whether it holds.
    pub holds: Holds,
}

/// Guards of all workloads, each once.
pub(super) fn guards(rules: &Compiled) -> Vec<GuardReport> {
    let guards = rules.workloads.values().flat_map(|workload| &workload.model.guards);
    let by_id: BTreeMap<&str, &GuardModel> = guards.map(|guard| (guard.id.as_str(), guard)).collect();
    let report =
        |guard: &GuardModel| GuardReport { guard: guard.id.clone(), audiences: guard.audiences.clone() };
    by_id.into_values().map(report).collect()
}

/// Rules that demand a token of this issuer.
pub(super) fn reports(rules: &Compiled, issuer: &TrustedIssuer, question: &Question<'_>) -> Vec<RuleReport> {
    // The same rule has the same entries at most workloads: at a gateway of its callers the peer is another.
    let mut reports: Vec<RuleReport> = Vec::new();
    for (workload, policy) in &rules.workloads {
        let Some(eye) = Eye::new(policy, issuer, question) else { continue };
        for rule in &policy.model.rules {
            let demanding = rule.from.iter().filter(|from| from.issuers.contains(&eye.issuer));
            let entries: Vec<_> = demanding.map(|from| eye.entry(from)).collect();
            if entries.is_empty() {
                continue;
            }
            match reports.iter_mut().find(|known| known.rule == rule.id && known.entries == entries) {
                Some(known) => known.workloads.push(workload.to_string()),
                None => reports.push(RuleReport {
                    rule: rule.id.clone(),
                    allows: rule.effect == Effect::Allow,
                    enforced: rule.mode == Mode::Enforce,
                    workloads: vec![workload.to_string()],
                    holds: entries.iter().map(|entry| entry.holds).max().unwrap_or(Holds::No),
                    entries,
                }),
            }
        }
    }
    reports.sort_by(|a, b| (&a.rule, &a.workloads).cmp(&(&b.rule, &b.workloads)));
    reports
}

/// A workload's policy, seen with one token.
struct Eye<'a> {
    model: &'a PolicyModel,
    /// The token's issuer, by index.
    issuer: u16,
    token: VerifiedToken,
    now: i64,
}

// === impl Eye ===

impl<'a> Eye<'a> {
    /// `None` if no rule of the workload names the issuer.
    fn new(policy: &'a WorkloadPolicy, issuer: &TrustedIssuer, question: &Question<'_>) -> Option<Self> {
        let model = &policy.model;
        let at = model.issuers.iter().position(|known| known.name == issuer.name)?;
        let paths = model.issuers.get(at).map(|issuer| issuer.slots.as_slice()).unwrap_or_default();
        let token = VerifiedToken {
            audiences: Vec::new(),
            expires_at: i64::MAX,
            slots: explain::slots(question.text.as_bytes(), issuer.pack, paths),
        };
        Some(Self { model, issuer: u16::try_from(at).ok()?, token, now: question.now })
    }

    fn entry(&self, from: &FromModel) -> EntryReport {
        let others = from.issuers.iter().filter(|issuer| **issuer != self.issuer);
        let also: Vec<_> = others.map(|issuer| self.issuer_name(*issuer).to_owned()).collect();
        let mut conditions = Vec::new();
        let demanded = demanded(&from.condition);
        let holds = demanded.into_iter().map(|part| self.condition(part, &from.peer, 0, &mut conditions));
        let holds = holds.min().unwrap_or(Holds::Yes);
        EntryReport { peer: peer(&from.peer), also, holds, conditions }
    }

    fn condition(
        &self,
        condition: &Condition,
        peer: &PeerModel,
        depth: usize,
        lines: &mut Vec<ConditionLine>,
    ) -> Holds {
        let place = lines.len();
        let mut inner = |parts: &[Condition]| -> Vec<Holds> {
            parts.iter().map(|part| self.condition(part, peer, depth + 1, lines)).collect()
        };
        let (demand, actual, holds) = match condition {
            Condition::True => return Holds::Yes,
            Condition::All(parts) => {
                ("all of".to_owned(), None, inner(parts).into_iter().min().unwrap_or(Holds::Yes))
            }
            Condition::Any(parts) => {
                ("any of".to_owned(), None, inner(parts).into_iter().max().unwrap_or(Holds::No))
            }
            Condition::Not(part) => match part.as_ref() {
                Condition::Claim(claim, test) => {
                    let (demand, actual, holds) = self.claim(*claim, test, peer);
                    (format!("not: {demand}"), actual, holds.negate())
                }
                part => ("not".to_owned(), None, self.condition(part, peer, depth + 1, lines).negate()),
            },
            Condition::Claim(claim, test) => self.claim(*claim, test, peer),
            // Of these the request decides, of which nothing is known here.
            Condition::Compare(..) | Condition::Text(..) => {
                ("what the rule says in `when`".to_owned(), None, Holds::Depends)
            }
            Condition::Within(schedule) => {
                (format!("the hours of the schedule, in {}", schedule.zone.name), None, Holds::Depends)
            }
        };
        lines.insert(place, ConditionLine { depth, demand, actual, holds });
        holds
    }

    /// What is demanded of a claim, what it is, and whether that holds.
    fn claim(&self, claim: ClaimRef, test: &Test, peer: &PeerModel) -> (String, Option<String>, Holds) {
        let demand = format!("{} {}", self.claim_name(claim), self.demand(test, peer));
        match claim.issuer == self.issuer {
            true => (demand, Some(show::claim(self.value(claim))), self.test(claim, test, peer)),
            false => (demand, None, Holds::Depends),
        }
    }

    fn value(&self, claim: ClaimRef) -> &ClaimValue {
        self.token.slots.get(usize::from(claim.slot)).unwrap_or(&ClaimValue::Absent)
    }

    fn issuer_name(&self, issuer: u16) -> &str {
        self.model.issuers.get(usize::from(issuer)).map_or("", |issuer| &issuer.name)
    }

    /// A claim of this token by its path, of another with its issuer before.
    fn claim_name(&self, claim: ClaimRef) -> String {
        let issuer = self.model.issuers.get(usize::from(claim.issuer));
        let path = issuer.and_then(|issuer| issuer.slots.get(usize::from(claim.slot)));
        let path = path.map(|path| show::path(path)).unwrap_or_default();
        match claim.issuer == self.issuer {
            true => path,
            false => format!("{} of the token of `{}`", path, self.issuer_name(claim.issuer)),
        }
    }

    fn demand(&self, test: &Test, peer: &PeerModel) -> String {
        let directory = |at: &u16| self.model.directories.get(usize::from(*at)).map_or("", String::as_str);
        match test {
            Test::Present => "is there".to_owned(),
            Test::OneOf(values) => format!("is {}", show::list(values)),
            Test::Integer(number) => format!("is {number}"),
            Test::Boolean(boolean) => format!("is {boolean}"),
            Test::Glob(pattern) => format!("is like {}", show::text(pattern)),
            Test::Contains(value) => format!("contains {}", show::text(value)),
            Test::PeerNamespace => match peer {
                PeerModel::Mesh { namespace, .. } => {
                    format!("is the caller's namespace, {}", show::text(namespace))
                }
                _ => "is the caller's namespace".to_owned(),
            },
            Test::PeerServiceAccount => match peer {
                PeerModel::Mesh { service_accounts: Some(accounts), .. } => {
                    format!("is the caller's service account, {}", show::list(accounts))
                }
                _ => "is the caller's service account".to_owned(),
            },
            Test::Same(other) => format!("is the same as {}", self.claim_name(*other)),
            Test::Listed(at) => format!("is listed in `{}`", directory(at)),
            Test::ListedOrStale(at) => format!("is listed in `{}`, or that is out of date", directory(at)),
        }
    }

    /// One test, decided by the engine.
    fn test(&self, claim: ClaimRef, test: &Test, peer: &PeerModel) -> Holds {
        let value = self.value(claim);
        let (test, other) = match test {
            // Who is listed is known to the control plane, and another token's claim to whoever has that token.
            Test::Listed(_) | Test::ListedOrStale(_) if matches!(value, ClaimValue::String(_)) => {
                return Holds::Depends;
            }
            Test::Same(other) if other.issuer != self.issuer && matches!(value, ClaimValue::String(_)) => {
                return Holds::Depends;
            }
            Test::Same(other) => (Test::Same(ClaimRef { issuer: 0, slot: 1 }), self.value(*other)),
            Test::Listed(_) | Test::ListedOrStale(_) => (Test::Listed(0), &ClaimValue::Absent),
            test => (test.clone(), &ClaimValue::Absent),
        };
        let slots = vec![value.clone(), other.clone()];
        let peer = self.assumed(peer, value);
        let allowed = self.decides(Effect::Allow, &test, slots.clone(), peer);
        match (allowed, self.decides(Effect::Deny, &test, slots, peer)) {
            (Some(true), _) => Holds::Yes,
            (Some(false), Some(false)) => Holds::No,
            _ => Holds::Unknown,
        }
    }

    /// Whether a rule of nothing but this test of the first slot matches.
    fn decides(&self, effect: Effect, test: &Test, slots: Vec<ClaimValue>, peer: Peer<'_>) -> Option<bool> {
        let rule = |id: &str, effect, from| RuleModel {
            id: id.to_owned(),
            effect,
            mode: Mode::Enforce,
            owner: String::new(),
            contact: String::new(),
            disclosure: tidegate_engine::model::Disclosure::Full,
            audit: Default::default(),
            lease: Lease::default(),
            revokes: false,
            from: vec![from],
            to: None,
        };
        let demanding = FromModel {
            peer: PeerModel::Anyone,
            issuers: vec![0],
            condition: Condition::Claim(ClaimRef { issuer: 0, slot: 0 }, test.clone()),
        };
        let anyone = FromModel { peer: PeerModel::Anyone, issuers: Vec::new(), condition: Condition::True };
        let rules = match effect {
            Effect::Allow => vec![rule("a/a", Effect::Allow, demanding)],
            Effect::Deny => vec![rule("a/a", Effect::Allow, anyone), rule("a/b", Effect::Deny, demanding)],
        };
        let model = PolicyModel {
            issuers: vec![IssuerModel {
                name: "issuer".to_owned(),
                slots: SLOTS.map(|name| vec![name.to_owned()]).to_vec(),
            }],
            guards: vec![GuardModel {
                id: "a/a".to_owned(),
                mode: Mode::Enforce,
                ports: None,
                audiences: Some(vec![AUDIENCE.to_owned()]),
            }],
            directories: vec!["directory".to_owned()],
            rules: rules.into_iter().map(Into::into).collect(),
        };
        let policy = PolicySet::decode(&encode(&model).ok()?).ok()?;
        let token = VerifiedToken { audiences: vec![AUDIENCE.to_owned()], expires_at: i64::MAX, slots };
        let path = normal::path(b"/");
        let request = Request {
            now: self.now,
            expiry_grace_s: 0,
            port: 0,
            method: b"GET",
            host: Some("host"),
            path: &path,
            query: &[],
            headers: HeaderFacts::default(),
            fields: &[],
            body: tidegate_engine::Body::Unread,
            peer,
            tokens: &[TokenState::Verified(&token)],
            directories: &Directories::default(),
        };
        let allowed = decide(&policy, &request).outcome == Outcome::Allow;
        Some(allowed == (effect == Effect::Allow))
    }

    /// A peer that the entry lets in; of several service accounts the one that the token names.
    fn assumed<'p>(&self, peer: &'p PeerModel, named: &'p ClaimValue) -> Peer<'p> {
        let named = match named {
            ClaimValue::String(named) => named.as_str(),
            _ => "",
        };
        match peer {
            PeerModel::Mesh { trust_domain, namespace, service_accounts } => {
                let accounts = service_accounts.as_deref();
                let known =
                    accounts.and_then(|all| all.iter().find(|account| *account == named).or(all.first()));
                Peer::Mesh { trust_domain, namespace, service_account: known.map_or(named, String::as_str) }
            }
            PeerModel::AnyMesh { trust_domain } => {
                Peer::Mesh { trust_domain, namespace: named, service_account: named }
            }
            PeerModel::NoPeer | PeerModel::Anyone => Peer::Absent,
        }
    }
}

/// Of the policies that are decided here.
const AUDIENCE: &str = "audience";
const SLOTS: [&str; 2] = ["claim", "other"];

/// The parts of a condition all of which must hold.
fn demanded(condition: &Condition) -> Vec<&Condition> {
    match condition {
        Condition::All(parts) => parts.iter().flat_map(demanded).collect(),
        other => vec![other],
    }
}

fn peer(peer: &PeerModel) -> String {
    match peer {
        PeerModel::Mesh { namespace, service_accounts: Some(accounts), .. } => {
            let accounts: Vec<_> = accounts.iter().map(|account| format!("{namespace}/{account}")).collect();
            format!("mesh peer {}", accounts.join(" or "))
        }
        PeerModel::Mesh { namespace, service_accounts: None, .. } => {
            format!("any mesh peer of the namespace {namespace}")
        }
        PeerModel::AnyMesh { .. } => "any mesh peer".to_owned(),
        PeerModel::NoPeer => "no mesh peer: the token alone".to_owned(),
        PeerModel::Anyone => "anyone".to_owned(),
    }
}

// === impl Holds ===

impl Holds {
    fn negate(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Yes => Self::No,
            Self::Unknown | Self::Depends => self,
        }
    }
}
