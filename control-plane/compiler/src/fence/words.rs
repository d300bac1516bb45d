//! What Istio can say of a host, a peer or a header.
//!
//! Istio reads a value as exact, `x*` as a prefix, `*x` as a suffix and `*` as "there"; a star anywhere else is itself.
//!
//! INVARIANT: what is said *containing* something matches at least that, what is said *within* it at most that. What the engine
//! refuses as ambiguous may be in either.

use std::collections::BTreeSet;

use tidegate_engine::model::{Condition, HostPattern, Operand, PeerModel, Relation, TextTest};

use super::branch::When;

/// What is said of something, and whether it is all that there is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub values: BTreeSet<String>,
    /// Why more matches than what was asked for.
    pub wider: Option<&'static str>,
}

/// A value that Istio compares as it is.
pub(super) fn exact(text: &str) -> Option<String> {
    let plain = !text.is_empty() && !text.starts_with('*') && !text.ends_with('*');
    (plain && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())).then(|| text.to_owned())
}

/// Principals of a peer; `None`: Istio has no word for it, and anybody may be it.
///
/// Always with the trust domain, which `namespaces` and `serviceAccounts` leave open.
pub(super) fn principals(peer: &PeerModel) -> Option<BTreeSet<String>> {
    match peer {
        PeerModel::Mesh { trust_domain, namespace, service_accounts: Some(accounts) } => Some(
            accounts.iter().map(|account| format!("{trust_domain}/ns/{namespace}/sa/{account}")).collect(),
        ),
        PeerModel::Mesh { trust_domain, namespace, service_accounts: None } => {
            Some(BTreeSet::from([format!("{trust_domain}/ns/{namespace}/sa/*")]))
        }
        PeerModel::AnyMesh { trust_domain } => Some(BTreeSet::from([format!("{trust_domain}/*")])),
        PeerModel::NoPeer | PeerModel::Anyone => None,
    }
}

/// The trust domain that Istio takes for a pointer to the mesh's own, whichever that is.
const POINTER: &str = "cluster.local";

/// Whether Istio would read a principal of this peer as one of the mesh's own trust domain.
pub(super) fn is_pointer(peer: &PeerModel, own: &str) -> bool {
    match peer {
        PeerModel::Mesh { trust_domain, .. } => trust_domain == POINTER && own != POINTER,
        PeerModel::AnyMesh { .. } | PeerModel::NoPeer | PeerModel::Anyone => false,
    }
}

/// [`principals`] for an ALLOW of a mesh of this trust domain.
///
/// Istio replaces `cluster.local` by the mesh's own trust domain where a principal has five parts, so that the peer itself would
/// no longer match (istio `pilot/pkg/security/trustdomain/bundle.go`); one with four parts stays as it is.
pub(super) fn principals_containing(peer: &PeerModel, own: &str) -> Option<BTreeSet<String>> {
    match peer {
        PeerModel::Mesh { trust_domain, namespace, .. } if is_pointer(peer, own) => {
            Some(BTreeSet::from([format!("{trust_domain}/ns/{namespace}/*")]))
        }
        _ => principals(peer),
    }
}

/// All spellings of a host: with and without a dot at the end, and with any port, which Istio does not cut off.
fn spellings(name: &str) -> impl Iterator<Item = String> {
    let dotted = (!name.starts_with('[')).then(|| [format!("{name}."), format!("{name}.:*")]);
    [name.to_owned(), format!("{name}:*")].into_iter().chain(dotted.into_iter().flatten())
}

/// At least these hosts; `None`: any host, because a suffix cannot be followed by a port.
pub(super) fn hosts_containing(hosts: &[HostPattern]) -> Option<BTreeSet<String>> {
    let mut values = BTreeSet::new();
    for host in hosts {
        match host {
            HostPattern::Exact(name) => values.extend(spellings(name)),
            HostPattern::Suffix(_) => return None,
        }
    }
    Some(values)
}

/// At most these hosts.
pub(super) fn hosts_within(hosts: &[HostPattern]) -> BTreeSet<String> {
    hosts
        .iter()
        .flat_map(|host| match host {
            HostPattern::Exact(name) => spellings(name).collect::<Vec<_>>(),
            HostPattern::Suffix(suffix) => vec![format!("*{suffix}")],
        })
        .collect()
}

/// What can be said of the headers that a condition demands, and whether that is the whole condition.
pub(super) fn headers(condition: &Condition, said: &mut Vec<(String, When)>) -> bool {
    match condition {
        Condition::True => true,
        Condition::All(parts) => {
            let mut whole = true;
            for part in parts {
                whole &= headers(part, said);
            }
            whole
        }
        Condition::Not(part) => match test_of(part).and_then(|(name, test)| Some((name, values(&test)?))) {
            Some((name, Said { values, wider: None })) => {
                said.push((key(name), When { values, not: true }));
                true
            }
            _ => false,
        },
        other => match test_of(other).and_then(|(name, test)| Some((name, values(&test)?))) {
            Some((name, Said { values, wider })) => {
                said.push((key(name), When { values, not: false }));
                wider.is_none()
            }
            None => false,
        },
    }
}

fn key(name: &str) -> String {
    format!("request.headers[{name}]")
}

/// A test of one header.
fn test_of(condition: &Condition) -> Option<(&str, TextTest)> {
    match condition {
        Condition::Text(Operand::Header(name), test) => Some((name, test.clone())),
        Condition::Compare(Operand::Header(name), Relation::Equal, Operand::Text(text))
        | Condition::Compare(Operand::Text(text), Relation::Equal, Operand::Header(name)) => {
            Some((name, TextTest::OneOf(vec![text.clone()])))
        }
        _ => None,
    }
}

/// Values that contain what passes the test: at least that the header is there.
fn values(test: &TextTest) -> Option<Said> {
    let said = |values: Vec<String>, wider| Some(Said { values: values.into_iter().collect(), wider });
    let there = |wider| said(vec!["*".to_owned()], wider);
    let fits = |part: &str| exact(part).is_some() && !part.contains('*');
    const NO_WORD: Option<&str> = Some("Istio has no such test of a header");
    match test {
        TextTest::Present => there(None),
        TextTest::OneOf(texts) => match texts.iter().map(|text| exact(text)).collect::<Option<Vec<_>>>() {
            Some(values) => said(values, None),
            None => there(NO_WORD),
        },
        TextTest::Prefix(prefix) if fits(prefix) => said(vec![format!("{prefix}*")], None),
        TextTest::Suffix(suffix) if fits(suffix) => said(vec![format!("*{suffix}")], None),
        TextTest::Glob(glob) => match glob.split_once('*') {
            None => exact(glob).map_or_else(|| there(NO_WORD), |value| said(vec![value], None)),
            Some((prefix, "")) if fits(prefix) => said(vec![format!("{prefix}*")], None),
            Some(("", suffix)) if fits(suffix) => said(vec![format!("*{suffix}")], None),
            Some((prefix, _)) if fits(prefix) => said(vec![format!("{prefix}*")], NO_WORD),
            Some(_) => there(NO_WORD),
        },
        TextTest::Prefix(_) | TextTest::Suffix(_) | TextTest::Infix(_) | TextTest::Pattern(_) => {
            there(NO_WORD)
        }
    }
}
