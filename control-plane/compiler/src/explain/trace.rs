//! One rule and one request: every demand, whether it holds, and what the request has instead.

use tidegate_engine::model::{Condition, Effect, FromModel, Mode, OperationModel, PolicyModel, RuleModel};
use tidegate_engine::{Request, TokenState, Truth, reference};

use super::{counts, shown_peer, words};

/// A rule, held against a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleTrace {
    /// `namespace/name`.
    pub rule: String,
    /// Allow or Deny.
    pub effect: Effect,
    /// Enforced or only reported.
    pub mode: Mode,
    /// Who answers for it.
    pub owner: String,
    /// How they are reached; may be empty.
    pub contact: String,
    /// Any of `from`, and any of `to`.
    pub holds: Truth,
    /// Who may call; any of them.
    pub from: Vec<PartTrace>,
    /// What may be called; any of them. Empty: anything.
    pub to: Vec<PartTrace>,
    /// The same with the body that is the best for the request, where none was read.
    pub(super) best: Truth,
}

/// An entry of `from` or `to`, held against a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartTrace {
    /// In one line.
    pub title: String,
    /// All of its demands.
    pub holds: Truth,
    /// Its demands, structures opened; those of depth 0 must all hold.
    pub checks: Vec<Check>,
}

/// One demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What it is about.
    pub subject: Subject,
    /// How deep it lies in "any of", "all of" and "not".
    pub depth: usize,
    /// What must hold.
    pub demand: String,
    /// What the request has; absent for "any of" and the like.
    pub actual: Option<String>,
    /// Whether it holds.
    pub holds: Truth,
    /// Whether it was looked at: what a token says is not, where the peer or the token itself is missing.
    pub reached: bool,
}

/// What a demand is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// The workload at the other end of the connection.
    Peer,
    /// That a token is there.
    Token,
    /// What a token or the request says.
    Condition,
    /// The port.
    Port,
    /// The method.
    Method,
    /// The host.
    Host,
    /// The path.
    Path,
    /// That it is a gRPC call.
    Grpc,
}

// === impl RuleTrace ===

impl RuleTrace {
    /// Whether the rule takes effect with the body that is the best for the request.
    pub(super) fn matches_at_best(&self) -> bool {
        counts(self.effect, self.best)
    }

    /// Whether the rule takes effect: "a Deny matches on true and unknown, an Allow on true only".
    pub fn matches(&self) -> bool {
        counts(self.effect, self.holds)
    }
}

// === impl PartTrace ===

impl PartTrace {
    fn of(title: String, checks: Vec<Check>) -> Self {
        let holds = checks.iter().filter(|check| check.depth == 0);
        // A demand that was not looked at rests on one that does not hold.
        let holds =
            holds.filter(|check| check.reached).map(|check| check.holds).fold(Truth::True, Truth::and);
        Self { title, holds, checks }
    }
}

/// Holds a rule against a request.
pub fn trace(model: &PolicyModel, rule: &RuleModel, request: &Request<'_>) -> RuleTrace {
    let from: Vec<PartTrace> = rule.from.iter().map(|from| entry(model, from, request)).collect();
    let mut to: Vec<PartTrace> = rule.to.iter().flatten().map(|to| operation(model, to, request)).collect();
    if rule.to.is_none() && request.path.keeps_slashes() {
        // "Any operation" does not say that encoded slashes are data.
        to.push(operation(model, &OperationModel::default(), request));
    }
    // What rests on the body and cannot be told without it turns out well for the request: an Allow holds, a Deny does not.
    let at_best = |(part, to): (&PartTrace, &OperationModel)| match part.holds {
        Truth::Unknown if reference::reads_body(&to.condition) => {
            let rest = OperationModel { condition: Condition::True, ..to.clone() };
            let told = match reference::condition_holds(model, &to.condition, request) {
                Truth::Unknown => Truth::from(rule.effect == Effect::Allow),
                told => told,
            };
            reference::operation_matches(model, &rest, request).and(told)
        }
        told => told,
    };
    let best = to.iter().zip(rule.to.iter().flatten()).map(at_best).fold(Truth::False, Truth::or);
    let any = |parts: &[PartTrace]| parts.iter().map(|part| part.holds).fold(Truth::False, Truth::or);
    let called = if to.is_empty() { Truth::True } else { any(&to) };
    RuleTrace {
        rule: rule.id.clone(),
        effect: rule.effect,
        mode: rule.mode,
        owner: rule.owner.clone(),
        contact: rule.contact.clone(),
        holds: any(&from).and(called),
        best: any(&from).and(if rule.to.is_none() { called } else { best }),
        from,
        to,
    }
}

/// The peer, all tokens, and the condition.
fn entry(model: &PolicyModel, from: &FromModel, request: &Request<'_>) -> PartTrace {
    let peer = reference::peer_matches(&from.peer, request.peer);
    let mut checks = vec![Check {
        subject: Subject::Peer,
        depth: 0,
        demand: words::describe_peer(&from.peer),
        actual: Some(shown_peer(request.peer, &from.peer)),
        holds: Truth::from(peer),
        reached: true,
    }];
    let mut reached = peer;
    for issuer in &from.issuers {
        let state = request.tokens.get(usize::from(*issuer)).unwrap_or(&TokenState::Absent);
        let holds = matches!(state, TokenState::Verified(_));
        checks.push(Check {
            subject: Subject::Token,
            depth: 0,
            demand: format!("a token of `{}`", words::issuer_name(model, *issuer)),
            actual: Some(
                match state {
                    TokenState::Absent => "none was sent",
                    TokenState::Invalid(fault) => fault.code(),
                    TokenState::Verified(_) => "verified",
                }
                .to_owned(),
            ),
            holds: Truth::from(holds),
            reached: true,
        });
        reached &= holds;
    }
    conditions(model, &from.condition, request, 0, reached, &mut checks);
    PartTrace::of(words::describe_entry(model, from), checks)
}

/// "All of" at the top is a list of demands; below, structures are opened.
fn conditions(
    model: &PolicyModel,
    condition: &Condition,
    request: &Request<'_>,
    depth: usize,
    reached: bool,
    checks: &mut Vec<Check>,
) {
    let mut note = |demand: String, actual: Option<String>| {
        let holds = reference::condition_holds(model, condition, request);
        checks.push(Check { subject: Subject::Condition, depth, demand, actual, holds, reached });
        holds
    };
    match condition {
        Condition::True => {}
        Condition::All(parts) if depth == 0 => {
            parts.iter().for_each(|part| conditions(model, part, request, depth, reached, checks));
        }
        Condition::All(parts) | Condition::Any(parts) => {
            let word = if matches!(condition, Condition::All(_)) { "all of" } else { "any of" };
            let holds = note(words::describe_group(model, word, parts), None);
            // What a group is made of matters only where the group does not hold.
            if holds != Truth::True {
                let below = depth.saturating_add(1);
                parts.iter().for_each(|part| conditions(model, part, request, below, reached, checks));
            }
        }
        Condition::Not(part) if words::is_leaf(part) => {
            note(words::describe_condition(model, condition), words::actual(model, part, request));
        }
        // Twice negated is what it was, in three-valued logic too.
        Condition::Not(inner) if matches!(inner.as_ref(), Condition::Not(_)) => {
            if let Condition::Not(inner) = inner.as_ref() {
                conditions(model, inner, request, depth, reached, checks);
            }
        }
        Condition::Not(inner) => {
            let (word, parts) = match inner.as_ref() {
                Condition::Any(parts) => ("none of", parts.as_slice()),
                Condition::All(parts) => ("not all of", parts.as_slice()),
                _ => ("not", &[][..]),
            };
            let holds = note(words::describe_group(model, word, parts), None);
            if holds != Truth::True {
                // Those that must not hold and may.
                let below = depth.saturating_add(1);
                let culprits = parts
                    .iter()
                    .filter(|part| reference::condition_holds(model, part, request) != Truth::False);
                for part in culprits {
                    let negated = Condition::Not(Box::new(part.clone()));
                    conditions(model, &negated, request, below, reached, checks);
                }
            }
        }
        leaf => {
            note(words::describe_condition(model, leaf), words::actual(model, leaf, request));
        }
    }
}

/// The port, the method, the host, the path, for gRPC the content type, and the condition; each judged by itself.
fn operation(model: &PolicyModel, operation: &OperationModel, request: &Request<'_>) -> PartTrace {
    let mut checks = Vec::new();
    let mut note = |subject: Subject, demand: String, actual: String, alone: OperationModel| {
        let holds = reference::operation_matches(model, &alone, request);
        checks.push(Check { subject, depth: 0, demand, actual: Some(actual), holds, reached: true });
    };
    let none = || OperationModel { encoded_slashes: true, ..OperationModel::default() };
    if let Some(ports) = &operation.ports {
        let alone = OperationModel { ports: Some(ports.clone()), ..none() };
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        note(Subject::Port, format!("port {}", ports.join(" or ")), request.port.to_string(), alone);
    }
    if let Some(methods) = &operation.methods {
        let alone = OperationModel { methods: Some(methods.clone()), ..none() };
        let method = words::safe(&String::from_utf8_lossy(request.method));
        note(Subject::Method, format!("method {}", methods.join(" or ")), method, alone);
    }
    if let Some(hosts) = &operation.hosts {
        let alone = OperationModel { hosts: Some(hosts.clone()), ..none() };
        let hosts: Vec<String> = hosts.iter().map(words::describe_host).collect();
        let host = words::safe(request.host.unwrap_or("none that can be read"));
        note(Subject::Host, format!("host {}", hosts.join(" or ")), host, alone);
    }
    if let Some(paths) = &operation.paths {
        let alone = OperationModel { paths: Some(paths.clone()), ..none() };
        let paths: Vec<String> = paths.iter().map(words::describe_path).collect();
        let path = words::safe(&request.path.display().to_string());
        note(Subject::Path, format!("path {}", paths.join(" or ")), path, alone);
    }
    if request.path.keeps_slashes() && !operation.encoded_slashes {
        let alone = OperationModel::default();
        note(Subject::Path, "no encoded slash in the path".to_owned(), "there is one".to_owned(), alone);
    }
    if operation.grpc {
        let actual = if request.headers.grpc { "it is" } else { "another content type, or none" };
        let alone = OperationModel { grpc: true, ..none() };
        note(Subject::Grpc, "content type application/grpc".to_owned(), actual.to_owned(), alone);
    }
    conditions(model, &operation.condition, request, 0, true, &mut checks);
    PartTrace::of(words::describe_operation(model, operation), checks)
}
