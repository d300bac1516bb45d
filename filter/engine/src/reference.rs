//! The naive interpreter: what a policy means, written to be read, not to be fast.
//!
//! It goes through all rules, looks at everything, and knows neither the flat form nor the index. Tests hold the engine
//! against it; who explains a decision asks it about single conditions and operations; nothing else uses it. It shares
//! with the engine only what happens before and after the rules (normalisation, and how matches settle into a decision).

use crate::decide::{refused_before_rules, token_revoked, with_body};
use crate::decision::{Decision, Guarding, Matches, RuleIx, ShadowDifference, enforce};
use crate::layout::{size, word};
use crate::model::{
    ClaimRef, Condition, Effect, FromModel, GuardModel, HostPattern, Mode, Operand, OperationModel,
    PathPattern, PeerModel, PolicyModel, RuleModel, SegmentPattern, Test,
};
use crate::normal::Path;
use crate::reason::{Outcome, Reason};
use crate::request::{Body, ClaimValue, Peer, Request, TokenState};
use crate::truth::Truth;
use crate::unlisted::Unlisted;

mod values;

pub use values::operand_value;

/// The Guards of the request's port, and what they make of it.
fn guards<'m>(model: &'m PolicyModel, request: &Request<'_>) -> (Vec<&'m GuardModel>, Guarding) {
    let guards: Vec<&GuardModel> = model
        .guards
        .iter()
        .filter(|guard| guard.ports.as_ref().is_none_or(|ports| ports.contains(&request.port)))
        .collect();
    let guarding = if guards.iter().any(|guard| guard.mode == Mode::Enforce) {
        Guarding::Enforce
    } else if guards.is_empty() {
        Guarding::None
    } else {
        Guarding::Shadow
    };
    (guards, guarding)
}

/// Decides a request as [`crate::decide_suspended`] must.
pub fn decide_suspended(model: &PolicyModel, request: &Request<'_>, revoking: &[bool]) -> Decision {
    let (_, guarding) = guards(model, request);
    if guarding == Guarding::Enforce {
        if let Some(refused) = token_revoked(request, revoking) {
            return refused;
        }
        let mut rules: Vec<&RuleModel> = model.rules.iter().map(|rule| &**rule).collect();
        rules.sort_by(|a, b| a.id.cmp(&b.id));
        // Any from, whatever is called; a token that is not accepted may be anybody's.
        let is_about = |from: &FromModel| {
            let of = |issuer: &u16| request.tokens.get(usize::from(*issuer)).unwrap_or(&TokenState::Absent);
            let is_sent = from.issuers.iter().all(|issuer| !matches!(of(issuer), TokenState::Absent));
            let is_unknown = from.issuers.iter().any(|issuer| matches!(of(issuer), TokenState::Invalid(_)));
            peer_matches(&from.peer, request.peer)
                && is_sent
                && (is_unknown || from_matches(model, from, request) != Truth::False)
        };
        if let Some(rule) = rules.iter().position(|rule| rule.revokes && rule.from.iter().any(is_about)) {
            return Decision::revoked(Reason::DeniedBy, Some(RuleIx(word(rule))));
        }
    }
    decide(model, request).unless_suspended()
}

/// Decides a request as [`crate::decide`] must.
pub fn decide(model: &PolicyModel, request: &Request<'_>) -> Decision {
    let (guards, guarding) = guards(model, request);
    if guarding == Guarding::None {
        return Decision {
            outcome: Outcome::Allow,
            reason: Reason::NotGuarded,
            rule: None,
            degraded: false,
            awaits_body: false,
            shadow: None,
        };
    }
    let meant_for = |audiences: &[String]| {
        let counting =
            guards.iter().filter(|guard| guarding == Guarding::Shadow || guard.mode == Mode::Enforce);
        counting.into_iter().any(|guard| match (&guard.audiences, request.host) {
            (Some(accepted), _) => audiences.iter().any(|audience| accepted.contains(audience)),
            (None, Some(host)) => {
                audiences.iter().any(|audience| *audience == host || *audience == format!("https://{host}"))
            }
            (None, None) => false,
        })
    };
    // Both readings of encoded slashes, where some operation takes them for data.
    let readings = readings(model, request.path);
    let data = readings.as_ref().map(|(data, _)| Request { path: data, ..*request });
    let separated = readings.as_ref().map(|(_, separated)| Request { path: separated, ..*request });
    let request = data.as_ref().unwrap_or(request);
    if let Some(reason) = refused_before_rules(request, meant_for) {
        let refusal = ShadowDifference { outcome: Outcome::Deny, reason, rule: None };
        return enforce(guarding, refusal, refusal);
    }
    let mut rules: Vec<&RuleModel> = model.rules.iter().map(|rule| &**rule).collect();
    rules.sort_by(|a, b| a.id.cmp(&b.id));
    // The first rule of a kind that matches; `best`: with a body that is the best for the request, where none was read.
    let first = |effect: Effect, mode: Mode, best: bool| {
        rules
            .iter()
            .position(|rule| {
                rule.effect == effect
                    && rule.mode == mode
                    && match (effect, rule_matches(model, rule, request, best)) {
                        (Effect::Allow, holds) => holds == Truth::True,
                        (Effect::Deny, Truth::False) => separated
                            .as_ref()
                            .is_some_and(|other| rule_matches(model, rule, other, best) != Truth::False),
                        (Effect::Deny, _) => true,
                    }
            })
            .map(|position| RuleIx(word(position)))
    };
    let matches = |best: bool| Matches {
        deny: first(Effect::Deny, Mode::Enforce, best),
        allow: first(Effect::Allow, Mode::Enforce, best),
        shadow_deny: first(Effect::Deny, Mode::Shadow, best),
        shadow_allow: first(Effect::Allow, Mode::Shadow, best),
    };
    let mut decision = matches(false).settle(guarding, || {
        !request.tokens.iter().any(|token| matches!(token, TokenState::Verified(_)))
            && rules.iter().any(|rule| {
                rule.effect == Effect::Allow
                    && rule.mode == Mode::Enforce
                    && rule
                        .from
                        .iter()
                        .any(|from| !from.issuers.is_empty() && peer_matches(&from.peer, request.peer))
            })
    });
    // The rule that allows, had it demanded its directories' answers.
    decision.degraded = decision.outcome == Outcome::Allow
        && decision.rule.and_then(|rule| rules.get(size(rule.0))).is_some_and(|rule| {
            let strict = with_tests(rule, &|claim, test| match test {
                Test::ListedOrStale(directory) => Condition::Claim(claim, Test::Listed(*directory)),
                other => Condition::Claim(claim, other.clone()),
            });
            rule_matches(model, &strict, request, false) != Truth::True
        });
    if request.body == Body::Unread {
        with_body(decision, matches(true).settle(guarding, || false))
    } else {
        decision
    }
}

/// Both readings of a path, as data and as separated, where some operation takes encoded slashes for data.
pub fn readings<'p>(model: &PolicyModel, path: &'p Path<'_>) -> Option<(Path<'p>, Path<'static>)> {
    let keeps = |rule: &RuleModel| rule.to.iter().flatten().any(|operation| operation.encoded_slashes);
    if model.rules.iter().any(|rule| keeps(rule)) { path.readings() } else { None }
}

/// Finds what is missing as [`crate::unlisted`] must: rule by rule, directory by directory, every id that any token has.
pub fn unlisted<'a>(model: &'a PolicyModel, request: &Request<'a>) -> Option<Unlisted<'a>> {
    if request.path.ambiguous() || decide(model, request).reason != Reason::NoAllowMatched {
        return None;
    }
    let mut ids: Vec<&'a str> = request
        .tokens
        .iter()
        .flat_map(|token| match token {
            TokenState::Verified(token) => token.slots.as_slice(),
            _ => &[],
        })
        .filter_map(|claim| if let ClaimValue::String(id) = claim { Some(id.as_str()) } else { None })
        .collect();
    ids.sort_unstable();
    let rules = model.rules.iter().map(|rule| &**rule);
    let mut rules: Vec<&RuleModel> = rules.filter(|rule| rule.mode == Mode::Enforce).collect();
    rules.sort_by(|a, b| a.id.cmp(&b.id));
    let (allows, denies): (Vec<&RuleModel>, Vec<&RuleModel>) =
        rules.into_iter().partition(|rule| rule.effect == Effect::Allow);
    for rule in allows {
        for (position, directory) in model.directories.iter().enumerate() {
            for id in &ids {
                // What the rule would be if the directory listed the id.
                let assumed = |rule: &RuleModel| {
                    let rule = with_tests(rule, &|claim, test| match test {
                        Test::Listed(at) | Test::ListedOrStale(at)
                            if usize::from(*at) == position
                                && *value(claim, request) == ClaimValue::String((*id).to_owned()) =>
                        {
                            Condition::True
                        }
                        other => Condition::Claim(claim, other.clone()),
                    });
                    // With a body that is the best for the request, where none was read.
                    rule_matches(model, &rule, request, request.body == Body::Unread)
                };
                if request.directories.lists(directory, id, request.now) != Truth::True
                    && assumed(rule) == Truth::True
                {
                    let denied = denies.iter().any(|deny| assumed(deny) != Truth::False);
                    return (!denied).then_some(Unlisted { directory, id });
                }
            }
        }
    }
    None
}

/// The rule with every test of a claim replaced.
fn with_tests(rule: &RuleModel, replace: &dyn Fn(ClaimRef, &Test) -> Condition) -> RuleModel {
    fn condition(from: &Condition, replace: &dyn Fn(ClaimRef, &Test) -> Condition) -> Condition {
        let all = |parts: &[Condition]| parts.iter().map(|part| condition(part, replace)).collect();
        match from {
            Condition::True => Condition::True,
            Condition::All(parts) => Condition::All(all(parts)),
            Condition::Any(parts) => Condition::Any(all(parts)),
            Condition::Not(part) => Condition::Not(Box::new(condition(part, replace))),
            Condition::Claim(claim, test) => replace(*claim, test),
            other => other.clone(),
        }
    }
    let mut rule = rule.clone();
    for from in &mut rule.from {
        from.condition = condition(&from.condition, replace);
    }
    rule
}

/// Any from matches, and any operation matches.
fn rule_matches(model: &PolicyModel, rule: &RuleModel, request: &Request<'_>, best: bool) -> Truth {
    let from = rule.from.iter().map(|from| from_matches(model, from, request)).fold(Truth::False, Truth::or);
    let to = match &rule.to {
        None if request.path.keeps_slashes() => Truth::Unknown,
        None => Truth::True,
        Some(to) => to
            .iter()
            .map(|one| {
                let condition = match condition_holds(model, &one.condition, request) {
                    Truth::Unknown if best && reads_body(&one.condition) => {
                        Truth::from(rule.effect == Effect::Allow)
                    }
                    told => told,
                };
                bare_operation_matches(one, request).and(condition)
            })
            .fold(Truth::False, Truth::or),
    };
    from.and(to)
}

/// The peer, all tokens, and the condition.
fn from_matches(model: &PolicyModel, from: &FromModel, request: &Request<'_>) -> Truth {
    let tokens = from
        .issuers
        .iter()
        .all(|issuer| matches!(request.tokens.get(usize::from(*issuer)), Some(TokenState::Verified(_))));
    if peer_matches(&from.peer, request.peer) && tokens {
        condition_holds(model, &from.condition, request)
    } else {
        Truth::False
    }
}

/// Whether a peer is one that an entry names.
pub fn peer_matches(peer: &PeerModel, request: Peer<'_>) -> bool {
    match (peer, request) {
        (PeerModel::Anyone, _) | (PeerModel::NoPeer, Peer::Absent) => true,
        (PeerModel::AnyMesh { trust_domain }, Peer::Mesh { trust_domain: theirs, .. }) => {
            trust_domain == theirs
        }
        (
            PeerModel::Mesh { trust_domain, namespace, service_accounts },
            Peer::Mesh { trust_domain: their_domain, namespace: their_namespace, service_account },
        ) => {
            trust_domain == their_domain
                && namespace == their_namespace
                && service_accounts
                    .as_ref()
                    .is_none_or(|accounts| accounts.iter().any(|account| account == service_account))
        }
        _ => false,
    }
}

/// Whether a condition of the policy holds, for who explains decisions part by part.
pub fn condition_holds(model: &PolicyModel, condition: &Condition, request: &Request<'_>) -> Truth {
    let holds = |part: &Condition| condition_holds(model, part, request);
    match condition {
        Condition::True => Truth::True,
        Condition::All(parts) => parts.iter().map(holds).fold(Truth::True, Truth::and),
        Condition::Any(parts) => parts.iter().map(holds).fold(Truth::False, Truth::or),
        Condition::Not(part) => holds(part).negate(),
        Condition::Claim(claim, test) => test_holds(model, value(*claim, request), test, request),
        Condition::Compare(left, relation, right) => values::compare(left, *relation, right, request),
        Condition::Text(operand, test) => values::test(operand, test, request),
        Condition::Within(schedule) => values::within(schedule, request.now),
    }
}

fn value<'a>(claim: ClaimRef, request: &Request<'a>) -> &'a ClaimValue {
    match request.tokens.get(usize::from(claim.issuer)) {
        Some(TokenState::Verified(token)) => {
            token.slots.get(usize::from(claim.slot)).unwrap_or(&ClaimValue::Absent)
        }
        _ => &ClaimValue::Absent,
    }
}

fn test_holds(model: &PolicyModel, claim: &ClaimValue, test: &Test, request: &Request<'_>) -> Truth {
    use ClaimValue as V;
    match (claim, test) {
        (V::Absent, _) => Truth::False,
        (V::Unknown, _) => Truth::Unknown,
        (_, Test::Present) => Truth::True,
        (V::String(text), Test::OneOf(values)) => Truth::from(values.contains(text)),
        (V::Integer(number), Test::Integer(expected)) => Truth::from(number == expected),
        (V::Boolean(flag), Test::Boolean(expected)) => Truth::from(flag == expected),
        (V::String(text), Test::Glob(pattern)) => Truth::from(glob_matches(pattern, text)),
        (V::Strings(texts), Test::Contains(text)) => Truth::from(texts.contains(text)),
        (V::String(text), Test::PeerNamespace) => {
            Truth::from(matches!(request.peer, Peer::Mesh { namespace, .. } if namespace == text))
        }
        (V::String(text), Test::PeerServiceAccount) => {
            Truth::from(matches!(request.peer, Peer::Mesh { service_account, .. } if service_account == text))
        }
        (V::String(text), Test::Same(other)) => match value(*other, request) {
            V::String(other) => Truth::from(text == other),
            V::Absent => Truth::False,
            _ => Truth::Unknown,
        },
        (V::String(text), Test::Listed(directory)) => match model.directories.get(usize::from(*directory)) {
            Some(name) => request.directories.lists(name, text, request.now),
            None => Truth::Unknown,
        },
        // "As `Listed`, but true where the directory is stale or missing."
        (V::String(_), Test::ListedOrStale(directory)) => {
            match test_holds(model, claim, &Test::Listed(*directory), request) {
                Truth::Unknown => Truth::True,
                known => known,
            }
        }
        _ => Truth::Unknown,
    }
}

/// A glob matches if what stands before its first star is a prefix and the rest matches some remainder.
fn glob_matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((prefix, rest)) => text.strip_prefix(prefix).is_some_and(|text| {
            text.char_indices()
                .map(|(at, _)| at)
                .chain([text.len()])
                .filter_map(|at| text.get(at..))
                .any(|remainder| glob_matches(rest, remainder))
        }),
    }
}

/// Whether a condition is about the body.
pub fn reads_body(condition: &Condition) -> bool {
    fn is_body(operand: &Operand) -> bool {
        match operand {
            Operand::Body(_) => true,
            Operand::Length(of) | Operand::Plus(of, _) => is_body(of),
            _ => false,
        }
    }
    match condition {
        Condition::All(parts) | Condition::Any(parts) => parts.iter().any(reads_body),
        Condition::Not(part) => reads_body(part),
        Condition::Compare(left, _, right) => is_body(left) || is_body(right),
        Condition::Text(operand, _) => is_body(operand),
        Condition::True | Condition::Claim(..) | Condition::Within(_) => false,
    }
}

/// The port, the method, the host, the path, for gRPC the content type, and the condition.
pub fn operation_matches(model: &PolicyModel, operation: &OperationModel, request: &Request<'_>) -> Truth {
    let condition = condition_holds(model, &operation.condition, request);
    bare_operation_matches(operation, request).and(condition)
}

/// All but the condition.
fn bare_operation_matches(operation: &OperationModel, request: &Request<'_>) -> Truth {
    let port = operation.ports.as_ref().is_none_or(|ports| ports.contains(&request.port));
    let method = operation
        .methods
        .as_ref()
        .is_none_or(|methods| methods.iter().any(|method| method.as_bytes() == request.method));
    let host = operation.hosts.as_ref().is_none_or(|hosts| {
        hosts.iter().any(|pattern| match (pattern, request.host) {
            (HostPattern::Exact(name), Some(host)) => name == host,
            (HostPattern::Suffix(suffix), Some(host)) => {
                host.len() > suffix.len() && host.ends_with(suffix.as_str())
            }
            (_, None) => false,
        })
    });
    let path = match &operation.paths {
        None => Truth::True,
        Some(paths) => {
            paths.iter().map(|pattern| path_matches(pattern, request)).fold(Truth::False, Truth::or)
        }
    };
    let path = if request.path.keeps_slashes() && !operation.encoded_slashes {
        path.and(Truth::Unknown)
    } else {
        path
    };
    let content_type = if operation.grpc && !request.headers.grpc { Truth::Unknown } else { Truth::True };
    Truth::from(port && method && host).and(path).and(content_type)
}

fn path_matches(pattern: &PathPattern, request: &Request<'_>) -> Truth {
    let empty = SegmentPattern::Literal(String::new());
    let (pattern, pattern_slash) = match pattern.segments.as_slice() {
        [only] if *only == empty => (&[][..], false),
        [inner @ .., last] if *last == empty => (inner, true),
        all => (all, false),
    };
    let path: Vec<&str> = request.path.segments().collect();
    let fixed = match pattern.split_last() {
        Some((SegmentPattern::Rest, fixed)) => {
            return Truth::from(path.get(..fixed.len()).is_some_and(|path| segments_match(fixed, path)));
        }
        _ => pattern,
    };
    if !segments_match(fixed, &path) {
        Truth::False
    } else if pattern_slash == request.path.trailing_slash() {
        Truth::True
    } else {
        Truth::Unknown
    }
}

fn segments_match(pattern: &[SegmentPattern], path: &[&str]) -> bool {
    pattern.len() == path.len()
        && pattern.iter().zip(path).all(|(pattern, segment)| match pattern {
            SegmentPattern::Literal(text) => text == segment,
            SegmentPattern::One => !segment.is_empty(),
            SegmentPattern::Glob(glob) => glob_matches(glob, segment),
            SegmentPattern::Rest => false,
        })
}
