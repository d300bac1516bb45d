//! One request of every class that a rule may match.
//!
//! Two requests are of the same class if no literal and no pattern of any rule in question tells them apart. For each
//! part of a request there is a list of values, one per class of that part; requests are all combinations.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_engine::model::{
    ClaimRef, Condition, FromModel, HostPattern, OperationModel, PeerModel, PolicyModel, RuleModel, Test,
};
use tidegate_engine::{ClaimValue, Truth, reference};

use super::counts;

mod paths;

/// Requests that are tried for one rule, at most.
const MOST: usize = 100_000;

/// Stands for any host that no rule names.
pub const ANY_HOST: &str = "host.example";

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Trust domain, namespace and service account of the peer.
    pub peer: Option<(String, String, String)>,
    /// The method.
    pub method: String,
    /// The host; [`ANY_HOST`]: any that no rule names.
    pub host: String,
    /// The path.
    pub path: String,
    /// The port; where no rule names 1, that stands for any that no rule names.
    pub port: u16,
    /// Whether it is a gRPC call.
    pub grpc: bool,
    /// What tokens say.
    pub tokens: Vec<ExampleToken>,
    /// By issuer of the joint policy: values by slot; `None`: no token.
    pub(super) slots: Vec<Option<Vec<ClaimValue>>>,
}

/// What a token says, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExampleToken {
    /// Name of the TrustedIssuer.
    pub issuer: String,
    /// Paths of claims and their values, in words.
    pub claims: Vec<(String, String)>,
}

/// Requests of all classes that `rule` may match. `rules`: all that may meet it, itself included.
///
/// # Errors
/// Why they cannot be listed, in words.
pub(super) fn of(
    rule: &RuleModel,
    rules: &[&RuleModel],
    joint: &PolicyModel,
) -> Result<Vec<Example>, String> {
    let words = Words::read(rules)?;
    let mut examples = Vec::new();
    let any = OperationModel::default();
    let operations: Vec<&OperationModel> = match &rule.to {
        None => vec![&any],
        Some(to) => to.iter().collect(),
    };
    for from in &rule.from {
        let peers = words.peers(&from.peer);
        let tokens = words.tokens(rule, from, joint)?;
        for operation in &operations {
            let calls = words.calls(rule, operation, joint)?;
            let combinations = peers.len().saturating_mul(tokens.len()).saturating_mul(calls.len());
            if combinations.saturating_add(examples.len()) > MOST {
                return Err(format!("more than {MOST} classes of requests would have to be tried"));
            }
            for peer in &peers {
                for slots in &tokens {
                    for call in &calls {
                        let (peer, slots) = (peer.clone(), slots.clone());
                        examples.push(Example { peer, tokens: shown(joint, &slots), slots, ..call.clone() });
                    }
                }
            }
        }
    }
    Ok(examples)
}

fn shown(joint: &PolicyModel, tokens: &[Option<Vec<ClaimValue>>]) -> Vec<ExampleToken> {
    let token = |(issuer, slots): (&tidegate_engine::model::IssuerModel, &Option<Vec<ClaimValue>>)| {
        let values = slots.as_ref()?;
        let claims = issuer.slots.iter().zip(values).filter(|(_, value)| **value != ClaimValue::Absent);
        let claims =
            claims.map(|(path, value)| (crate::claim_path::show(path), crate::explain::show_value(value)));
        Some(ExampleToken { issuer: issuer.name.clone(), claims: claims.collect() })
    };
    joint.issuers.iter().zip(tokens).filter_map(token).collect()
}

/// All that tells requests apart.
#[derive(Default)]
struct Words<'m> {
    peers: BTreeSet<(String, String, String)>,
    domains: BTreeSet<String>,
    issuers: BTreeSet<u16>,
    claims: BTreeMap<(u16, u16), Vec<&'m Test>>,
    methods: BTreeSet<&'m str>,
    hosts: BTreeSet<&'m HostPattern>,
    paths: BTreeSet<&'m tidegate_engine::model::PathPattern>,
    ports: BTreeSet<u16>,
    grpc: bool,
}

/// A name that no rule has.
const OTHER: &str = "other";

// === impl Words ===

impl<'m> Words<'m> {
    fn read(rules: &[&'m RuleModel]) -> Result<Self, String> {
        let mut words = Self::default();
        for rule in rules {
            for from in &rule.from {
                words.note_peer(&from.peer);
                words.issuers.extend(&from.issuers);
                words.note_condition(&from.condition, &rule.id)?;
            }
            for to in rule.to.iter().flatten() {
                if to.encoded_slashes {
                    return Err(format!(
                        "`{}` takes encoded slashes for data, which are not enumerated",
                        rule.id
                    ));
                }
                words.methods.extend(to.methods.iter().flatten().map(String::as_str));
                words.hosts.extend(to.hosts.iter().flatten());
                words.paths.extend(to.paths.iter().flatten());
                words.ports.extend(to.ports.iter().flatten());
                words.grpc |= to.grpc;
                words.note_condition(&to.condition, &rule.id)?;
            }
        }
        Ok(words)
    }

    fn note_peer(&mut self, peer: &PeerModel) {
        match peer {
            PeerModel::Mesh { trust_domain, namespace, service_accounts } => {
                self.domains.insert(trust_domain.clone());
                let accounts = service_accounts.iter().flatten().map(String::as_str).chain([OTHER]);
                for account in accounts {
                    self.peers.insert((trust_domain.clone(), namespace.clone(), account.to_owned()));
                }
            }
            PeerModel::AnyMesh { trust_domain } => {
                self.domains.insert(trust_domain.clone());
            }
            PeerModel::NoPeer | PeerModel::Anyone => {}
        }
    }

    fn note_condition(&mut self, condition: &'m Condition, rule: &str) -> Result<(), String> {
        match condition {
            Condition::True => Ok(()),
            Condition::All(parts) | Condition::Any(parts) => {
                parts.iter().try_for_each(|part| self.note_condition(part, rule))
            }
            Condition::Not(part) => self.note_condition(part, rule),
            Condition::Claim(ClaimRef { issuer, slot }, test) => {
                if matches!(test, Test::Same(_) | Test::PeerNamespace | Test::PeerServiceAccount) {
                    self.bind(test, (*issuer, *slot));
                }
                if matches!(test, Test::Listed(_) | Test::ListedOrStale(_)) {
                    return Err(format!("`{rule}` looks up a directory, whose content is not known here"));
                }
                self.claims.entry((*issuer, *slot)).or_default().push(test);
                Ok(())
            }
            Condition::Compare(..) | Condition::Text(..) | Condition::Within(_) => Err(format!(
                "`{rule}` has conditions on texts, numbers or the time, which are not enumerated"
            )),
        }
    }

    /// A claim that is compared with another claim must be able to have its values.
    fn bind(&mut self, test: &'m Test, claim: (u16, u16)) {
        if let Test::Same(other) = test {
            self.claims.entry((other.issuer, other.slot)).or_default();
        }
        self.claims.entry(claim).or_default();
    }

    /// Peers of every class that an entry lets in.
    fn peers(&self, entry: &PeerModel) -> Vec<Option<(String, String, String)>> {
        let mut all: Vec<Option<(String, String, String)>> = self.peers.iter().cloned().map(Some).collect();
        let others = self.domains.iter().map(String::as_str).chain(["other.example"]);
        all.extend(others.map(|domain| Some((domain.to_owned(), OTHER.to_owned(), OTHER.to_owned()))));
        all.push(None);
        all.retain(|peer| {
            let peer = match peer {
                None => tidegate_engine::Peer::Absent,
                Some((trust_domain, namespace, service_account)) => {
                    tidegate_engine::Peer::Mesh { trust_domain, namespace, service_account }
                }
            };
            reference::peer_matches(entry, peer)
        });
        all
    }

    /// Tokens of every class with which an entry may match.
    fn tokens(
        &self,
        rule: &RuleModel,
        from: &FromModel,
        joint: &PolicyModel,
    ) -> Result<Vec<Vec<Option<Vec<ClaimValue>>>>, String> {
        let demands = crate::warnings::demands(&from.condition);
        let mut all: Vec<Vec<Option<Vec<ClaimValue>>>> = vec![Vec::new()];
        for (position, issuer) in joint.issuers.iter().enumerate() {
            let at = u16::try_from(position).unwrap_or(u16::MAX);
            let is_demanded = from.issuers.contains(&at);
            let mut tokens: Vec<Option<Vec<ClaimValue>>> = Vec::new();
            if !is_demanded {
                tokens.push(None);
            }
            if self.issuers.contains(&at) {
                let mut slots: Vec<Vec<ClaimValue>> = vec![Vec::new()];
                for slot in 0..issuer.slots.len() {
                    let claim = (at, u16::try_from(slot).unwrap_or(u16::MAX));
                    let values = self.values(rule, claim, &demands, is_demanded)?;
                    slots = product(slots, &values)?;
                }
                tokens.extend(slots.into_iter().map(Some));
            }
            all = product(all, &tokens)?;
        }
        Ok(all)
    }

    /// Values of every class of a claim; those only with which the entry may match.
    fn values(
        &self,
        rule: &RuleModel,
        claim: (u16, u16),
        demands: &[&Condition],
        is_demanded: bool,
    ) -> Result<Vec<ClaimValue>, String> {
        let mut values = vec![ClaimValue::Absent];
        let tests = self.claims.get(&claim).map(Vec::as_slice).unwrap_or_default();
        if !self.claims.contains_key(&claim) {
            return Ok(values);
        }
        let mut texts: BTreeSet<String> = BTreeSet::from([OTHER.to_owned()]);
        // What is compared with each other may be anything that any claim or peer is.
        let is_compared = self.claims.values().flatten().any(|test| matches!(test, Test::Same(_)));
        let all = self.claims.values().flatten();
        let globs: BTreeSet<&String> = tests
            .iter()
            .filter_map(|test| if let Test::Glob(glob) = test { Some(glob) } else { None })
            .collect();
        if globs.len() > 1 {
            return Err(format!("several patterns of one claim meet `{}`", rule.id));
        }
        let told = if is_compared { all.copied().collect::<Vec<_>>() } else { tests.to_vec() };
        let mut lists: BTreeSet<&str> = BTreeSet::new();
        for test in told {
            match test {
                Test::OneOf(known) => texts.extend(known.iter().cloned()),
                Test::Glob(glob) => {
                    texts.insert(glob.replace('*', ""));
                    texts.insert(glob.replace('*', OTHER));
                }
                Test::Integer(integer) => {
                    values.extend([*integer, integer.wrapping_add(1)].map(ClaimValue::Integer));
                }
                Test::Boolean(_) => values.extend([false, true].map(ClaimValue::Boolean)),
                Test::Contains(text) => {
                    lists.insert(text);
                }
                Test::PeerNamespace => {
                    texts.extend(self.peers.iter().map(|(_, namespace, _)| namespace.clone()))
                }
                Test::PeerServiceAccount => {
                    texts.extend(self.peers.iter().map(|(_, _, account)| account.clone()))
                }
                Test::Present | Test::Same(_) | Test::Listed(_) | Test::ListedOrStale(_) => {}
            }
        }
        if lists.len() > 8 {
            return Err(format!("`{}` meets rules that look for more than 8 items in one list", rule.id));
        }
        values.extend(texts.into_iter().map(ClaimValue::String));
        if !lists.is_empty() {
            let mut subsets: Vec<Vec<String>> = vec![Vec::new()];
            for item in lists {
                let with: Vec<Vec<String>> =
                    subsets.iter().map(|set| [set.as_slice(), &[item.to_owned()]].concat()).collect();
                subsets.extend(with);
            }
            values.extend(subsets.into_iter().map(ClaimValue::Strings));
        }
        // "Every test of it is unknown": what a Deny matches on.
        values.push(ClaimValue::Unknown);
        let mut unique: Vec<ClaimValue> = Vec::new();
        for value in values {
            let fits = !is_demanded || demands.iter().all(|demand| may_hold(rule, demand, claim, &value));
            if fits && !unique.contains(&value) {
                unique.push(value);
            }
        }
        Ok(unique)
    }

    /// Calls of every class that an operation may be.
    fn calls(
        &self,
        rule: &RuleModel,
        operation: &OperationModel,
        joint: &PolicyModel,
    ) -> Result<Vec<Example>, String> {
        let methods: Vec<String> =
            self.methods.iter().map(|method| (*method).to_owned()).chain(["OTHER".to_owned()]).collect();
        let host = |host: &&HostPattern| match host {
            HostPattern::Exact(name) => name.clone(),
            HostPattern::Suffix(suffix) => format!("{OTHER}{suffix}"),
        };
        let hosts: BTreeSet<String> = self.hosts.iter().map(host).chain([ANY_HOST.to_owned()]).collect();
        let ports: Vec<u16> = (1..=u16::MAX)
            .find(|port| !self.ports.contains(port))
            .into_iter()
            .chain(self.ports.iter().copied())
            .collect();
        let patterns: Vec<_> = self.paths.iter().copied().collect();
        let paths = paths::classes(&patterns)
            .ok_or_else(|| format!("several patterns of one path segment meet `{}`", rule.id))?;
        let kinds: &[bool] = if self.grpc { &[false, true] } else { &[false] };
        // Each part by itself first: most do not fit, and so there are fewer combinations.
        let alone = |call: &Example, part: OperationModel| {
            call.with("", |request| counts(rule.effect, reference::operation_matches(joint, &part, request)))
        };
        let blank = Example {
            peer: None,
            method: "GET".to_owned(),
            host: ANY_HOST.to_owned(),
            path: "/".to_owned(),
            port: 1,
            grpc: false,
            tokens: Vec::new(),
            slots: Vec::new(),
        };
        let none = OperationModel::default;
        let methods = methods.into_iter().map(|method| Example { method, ..blank.clone() });
        let part = OperationModel { methods: operation.methods.clone(), ..none() };
        let methods: Vec<Example> = methods.filter(|call| alone(call, part.clone())).collect();
        let hosts = hosts.into_iter().map(|host| Example { host, ..blank.clone() });
        let part = OperationModel { hosts: operation.hosts.clone(), ..none() };
        let hosts: Vec<Example> = hosts.filter(|call| alone(call, part.clone())).collect();
        let paths = paths.into_iter().map(|path| Example { path, ..blank.clone() });
        let part = OperationModel { paths: operation.paths.clone(), ..none() };
        let paths: Vec<Example> = paths.filter(|call| alone(call, part.clone())).collect();
        let ports = ports.into_iter().map(|port| Example { port, ..blank.clone() });
        let part = OperationModel { ports: operation.ports.clone(), ..none() };
        let ports: Vec<Example> = ports.filter(|call| alone(call, part.clone())).collect();
        let count = [methods.len(), hosts.len(), paths.len(), ports.len(), kinds.len()];
        if count.into_iter().fold(1, usize::saturating_mul) > MOST {
            return Err(format!("more than {MOST} classes of requests would have to be tried"));
        }
        let mut calls = Vec::new();
        for Example { method, .. } in &methods {
            for Example { host, .. } in &hosts {
                for Example { path, .. } in &paths {
                    for Example { port, .. } in &ports {
                        for grpc in kinds {
                            let (method, host, path) = (method.clone(), host.clone(), path.clone());
                            calls.push(Example {
                                method,
                                host,
                                path,
                                port: *port,
                                grpc: *grpc,
                                ..blank.clone()
                            });
                        }
                    }
                }
            }
        }
        Ok(calls)
    }
}

/// Whether a demand may hold where a claim has a value: `false` only if it is about this claim alone and does not.
fn may_hold(rule: &RuleModel, demand: &Condition, claim: (u16, u16), value: &ClaimValue) -> bool {
    let (inner, negated) = match demand {
        Condition::Not(inner) => (inner.as_ref(), true),
        other => (other, false),
    };
    let Condition::Claim(ClaimRef { issuer, slot }, test) = inner else { return true };
    if (*issuer, *slot) != claim {
        return true;
    }
    let truth = match (value, test) {
        (_, Test::Same(_) | Test::PeerNamespace | Test::PeerServiceAccount | Test::Glob(_)) => return true,
        (_, Test::Listed(_) | Test::ListedOrStale(_)) => return true,
        (ClaimValue::Absent, _) => Truth::False,
        (ClaimValue::Unknown, _) => Truth::Unknown,
        (_, Test::Present) => Truth::True,
        (ClaimValue::String(text), Test::OneOf(known)) => Truth::from(known.contains(text)),
        (ClaimValue::Integer(integer), Test::Integer(known)) => Truth::from(integer == known),
        (ClaimValue::Boolean(boolean), Test::Boolean(known)) => Truth::from(boolean == known),
        (ClaimValue::Strings(items), Test::Contains(known)) => Truth::from(items.contains(known)),
        _ => Truth::Unknown,
    };
    counts(rule.effect, if negated { truth.negate() } else { truth })
}

/// Every list with every value at its end.
fn product<T: Clone>(lists: Vec<Vec<T>>, values: &[T]) -> Result<Vec<Vec<T>>, String> {
    if lists.len().saturating_mul(values.len()) > MOST {
        return Err(format!("more than {MOST} classes of tokens would have to be tried"));
    }
    let with = |list: &Vec<T>| {
        let list = list.clone();
        values
            .iter()
            .map(move |value| [list.as_slice(), std::slice::from_ref(value)].concat())
            .collect::<Vec<_>>()
    };
    Ok(lists.iter().flat_map(with).collect())
}
