//! Demands and values in words.

use tidegate_engine::model::{
    ClaimRef, Condition, FromModel, HostPattern, OperationModel, PathPattern, PeerModel, PolicyModel,
    Relation, SegmentPattern, Test,
};
use tidegate_engine::{ClaimValue, Request, TokenState};
use tidegate_identity::jose;

use crate::claim_path;

mod values;

/// Characters of a value that are shown.
const MAX_CHARS: usize = 120;

/// Text without anything that a terminal obeys or hides.
pub(super) fn safe(text: &str) -> String {
    let quoted = quoted(text);
    quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(&quoted).to_owned()
}

/// A string in quotes, shortened; never a signed token.
fn quoted(text: &str) -> String {
    if text
        .split(|c: char| c.is_whitespace() || matches!(c, ',' | '"'))
        .any(|word| jose::looks_like_jwt(word.as_bytes()))
    {
        return "(a token)".to_owned();
    }
    let mut shown: String = text.chars().take(MAX_CHARS).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

fn list<'t>(texts: impl IntoIterator<Item = &'t String>) -> String {
    let texts: Vec<String> = texts.into_iter().map(|text| quoted(text)).collect();
    match texts.split_last() {
        None => "nothing".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
    }
}

pub(super) fn issuer_name(model: &PolicyModel, issuer: u16) -> &str {
    model.issuers.get(usize::from(issuer)).map_or("?", |issuer| issuer.name.as_str())
}

/// `gitlab.ref_protected`
fn claim_name(model: &PolicyModel, claim: ClaimRef) -> String {
    let issuer = model.issuers.get(usize::from(claim.issuer));
    let path = issuer.and_then(|issuer| issuer.slots.get(usize::from(claim.slot)));
    let path = path.map(|path| claim_path::show(path)).unwrap_or_default();
    let dot = if path.starts_with('[') { "" } else { "." };
    format!("{}{dot}{path}", issuer_name(model, claim.issuer))
}

/// Whom an entry lets in as a peer.
pub fn describe_peer(peer: &PeerModel) -> String {
    match peer {
        PeerModel::Mesh { namespace, service_accounts: Some(accounts), .. } => {
            let accounts: Vec<String> =
                accounts.iter().map(|account| format!("{namespace}/{account}")).collect();
            format!("peer {}", accounts.join(" or "))
        }
        PeerModel::Mesh { namespace, service_accounts: None, .. } => format!("peer {namespace}/*"),
        PeerModel::AnyMesh { .. } => "any mesh peer".to_owned(),
        PeerModel::NoPeer => "no mesh peer".to_owned(),
        PeerModel::Anyone => "anyone".to_owned(),
    }
}

/// An entry of `from` in one line.
pub(super) fn describe_entry(model: &PolicyModel, from: &FromModel) -> String {
    let issuers: Vec<&str> = from.issuers.iter().map(|issuer| issuer_name(model, *issuer)).collect();
    let peer = describe_peer(&from.peer);
    if issuers.is_empty() { peer } else { format!("{peer} with {}", issuers.join(" and ")) }
}

/// An operation in one line, e.g. `POST /v1/orders/{id}`.
pub fn describe_operation(model: &PolicyModel, operation: &OperationModel) -> String {
    let mut words: Vec<String> = Vec::new();
    words.extend(operation.grpc.then(|| "gRPC".to_owned()));
    words.extend(operation.methods.as_ref().filter(|_| !operation.grpc).map(|methods| methods.join("|")));
    words.extend(
        operation.hosts.as_ref().map(|hosts| hosts.iter().map(describe_host).collect::<Vec<_>>().join("|")),
    );
    words.extend(
        operation.paths.as_ref().map(|paths| paths.iter().map(describe_path).collect::<Vec<_>>().join("|")),
    );
    words.extend(
        operation
            .ports
            .as_ref()
            .map(|ports| format!("port {}", ports.iter().map(u16::to_string).collect::<Vec<_>>().join("|"))),
    );
    if operation.condition != Condition::True {
        words.push(format!("where {}", describe_condition(model, &operation.condition)));
    }
    if words.is_empty() { "anything".to_owned() } else { words.join(" ") }
}

pub(super) fn describe_host(host: &HostPattern) -> String {
    match host {
        HostPattern::Exact(name) => name.clone(),
        HostPattern::Suffix(suffix) => format!("*{suffix}"),
    }
}

pub(super) fn describe_path(path: &PathPattern) -> String {
    let mut text = String::new();
    for segment in &path.segments {
        text.push('/');
        text.push_str(match segment {
            SegmentPattern::Literal(literal) => literal,
            SegmentPattern::One => "{…}",
            SegmentPattern::Rest => "{**}",
            SegmentPattern::Glob(glob) => glob,
        });
    }
    text
}

/// Whether a condition has no parts.
pub(super) fn is_leaf(condition: &Condition) -> bool {
    !matches!(condition, Condition::True | Condition::All(_) | Condition::Any(_) | Condition::Not(_))
}

/// Several conditions in a few words.
pub(super) fn describe_group(model: &PolicyModel, word: &str, parts: &[Condition]) -> String {
    match parts {
        [] => format!("{word} nothing"),
        [only] => format!("{word}: {}", describe_condition(model, only)),
        [first, ..] => {
            format!("{word} {} conditions, the first: {}", parts.len(), describe_condition(model, first))
        }
    }
}

/// A condition in one line.
pub fn describe_condition(model: &PolicyModel, condition: &Condition) -> String {
    let joined = |parts: &[Condition], word: &str| {
        let parts: Vec<String> = parts.iter().map(|part| describe_condition(model, part)).collect();
        if parts.len() == 1 { parts.concat() } else { format!("({})", parts.join(word)) }
    };
    match condition {
        Condition::True => "nothing".to_owned(),
        Condition::All(parts) => joined(parts, " and "),
        Condition::Any(parts) => joined(parts, " or "),
        Condition::Not(part) => format!("not: {}", describe_condition(model, part)),
        Condition::Claim(claim, test) => {
            format!("{} {}", claim_name(model, *claim), describe_test(model, test))
        }
        Condition::Compare(left, relation, right) => {
            let relation = match relation {
                Relation::Equal => "is",
                Relation::Less => "<",
                Relation::LessOrEqual => "<=",
            };
            format!("{} {relation} {}", values::name(model, left), values::name(model, right))
        }
        Condition::Text(operand, test) => {
            format!("{} {}", values::name(model, operand), values::describe(test))
        }
        Condition::Within(schedule) => values::hours(schedule),
    }
}

fn describe_test(model: &PolicyModel, test: &Test) -> String {
    let directory = |at: &u16| model.directories.get(usize::from(*at)).map_or("?", String::as_str);
    match test {
        Test::Present => "is there".to_owned(),
        Test::OneOf(values) => format!("is {}", list(values)),
        Test::Integer(number) => format!("is {number}"),
        Test::Boolean(boolean) => format!("is {boolean}"),
        Test::Glob(pattern) => format!("is like {}", quoted(pattern)),
        Test::Contains(value) => format!("contains {}", quoted(value)),
        Test::PeerNamespace => "is the peer's namespace".to_owned(),
        Test::PeerServiceAccount => "is the peer's service account".to_owned(),
        Test::Same(other) => format!("is the same as {}", claim_name(model, *other)),
        Test::Listed(at) => format!("is listed in `{}`", directory(at)),
        Test::ListedOrStale(at) => format!("is listed in `{}`, or that is out of date", directory(at)),
    }
}

/// What the request has where a condition without parts is about something of it.
pub(super) fn actual(model: &PolicyModel, condition: &Condition, request: &Request<'_>) -> Option<String> {
    match condition {
        Condition::True | Condition::All(_) | Condition::Any(_) | Condition::Not(_) => None,
        Condition::Compare(left, _, right) => values::compared(model, left, right, request),
        Condition::Text(operand, _) => values::actual(operand, request),
        Condition::Within(schedule) => Some(values::clock(schedule, request.now)),
        Condition::Claim(claim, test) => {
            let value = show_value(claim_value(*claim, request));
            Some(match test {
                Test::Same(other) => {
                    let other = (claim_name(model, *other), show_value(claim_value(*other, request)));
                    format!("{value}; {} is {}", other.0, other.1)
                }
                Test::Listed(at) | Test::ListedOrStale(at) => {
                    let name = model.directories.get(usize::from(*at)).map_or("", String::as_str);
                    let known = request.directories.lists(name, "", request.now);
                    let stale = known == tidegate_engine::Truth::Unknown;
                    if stale {
                        format!("{value}, and the directory is missing or out of date")
                    } else {
                        value
                    }
                }
                _ => value,
            })
        }
    }
}

fn claim_value<'a>(claim: ClaimRef, request: &Request<'a>) -> &'a ClaimValue {
    match request.tokens.get(usize::from(claim.issuer)) {
        Some(TokenState::Verified(token)) => {
            token.slots.get(usize::from(claim.slot)).unwrap_or(&ClaimValue::Absent)
        }
        _ => &ClaimValue::Absent,
    }
}

pub(crate) fn show_value(value: &ClaimValue) -> String {
    match value {
        ClaimValue::Absent => "missing".to_owned(),
        ClaimValue::Unknown => "not told by the issuer".to_owned(),
        ClaimValue::Boolean(boolean) => boolean.to_string(),
        ClaimValue::Integer(integer) => integer.to_string(),
        ClaimValue::String(text) => quoted(text),
        ClaimValue::Strings(texts) => {
            let texts: Vec<String> = texts.iter().take(8).map(|text| quoted(text)).collect();
            format!("[{}]", texts.join(", "))
        }
        ClaimValue::Other => "a structure that rules cannot compare".to_owned(),
    }
}
