//! Whether two rules may be about the same request. Where that is not known, they may.

use tidegate_engine::model::{
    HostPattern, OperationModel, PathPattern, PeerModel, RuleModel, SegmentPattern,
};

use super::cover::{glob_matches, peer};

/// Whether a request may match both.
pub(crate) fn may_meet(a: &RuleModel, b: &RuleModel) -> bool {
    operations(a, b) && a.from.iter().any(|a| b.from.iter().any(|b| peers(&a.peer, &b.peer)))
}

/// Whether a peer may be both.
pub(super) fn peers(a: &PeerModel, b: &PeerModel) -> bool {
    let accounts = |peer: &PeerModel| match peer {
        PeerModel::Mesh { trust_domain, namespace, service_accounts } => {
            Some((trust_domain.clone(), namespace.clone(), service_accounts.clone()))
        }
        _ => None,
    };
    match (accounts(a), accounts(b)) {
        (Some((domain, namespace, a)), Some((other_domain, other_namespace, b))) => {
            domain == other_domain
                && namespace == other_namespace
                && meet(a.as_deref(), b.as_deref(), |a, b| a == b)
        }
        _ => peer(a, b) || peer(b, a),
    }
}

/// Whether a request may be an operation of both.
pub(super) fn operations(a: &RuleModel, b: &RuleModel) -> bool {
    meet(a.to.as_deref(), b.to.as_deref(), operation)
}

/// `None` is everything.
fn meet<T>(a: Option<&[T]>, b: Option<&[T]>, same: impl Fn(&T, &T) -> bool) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.iter().any(|a| b.iter().any(|b| same(a, b))),
        _ => true,
    }
}

fn operation(a: &OperationModel, b: &OperationModel) -> bool {
    meet(a.ports.as_deref(), b.ports.as_deref(), |a, b| a == b)
        && meet(a.methods.as_deref(), b.methods.as_deref(), |a, b| a == b)
        && meet(a.hosts.as_deref(), b.hosts.as_deref(), host)
        && meet(a.paths.as_deref(), b.paths.as_deref(), path)
}

fn host(a: &HostPattern, b: &HostPattern) -> bool {
    match (a, b) {
        (HostPattern::Exact(a), HostPattern::Exact(b)) => a == b,
        (HostPattern::Suffix(suffix), HostPattern::Exact(name))
        | (HostPattern::Exact(name), HostPattern::Suffix(suffix)) => {
            name.len() > suffix.len() && name.ends_with(suffix.as_str())
        }
        (HostPattern::Suffix(a), HostPattern::Suffix(b)) => {
            a.ends_with(b.as_str()) || b.ends_with(a.as_str())
        }
    }
}

pub(super) fn path(a: &PathPattern, b: &PathPattern) -> bool {
    fn within(a: &[SegmentPattern], b: &[SegmentPattern]) -> bool {
        match (a, b) {
            ([SegmentPattern::Rest], _) | (_, [SegmentPattern::Rest]) | ([], []) => true,
            ([a, a_rest @ ..], [b, b_rest @ ..]) => segment(a, b) && within(a_rest, b_rest),
            _ => false,
        }
    }
    within(&a.segments, &b.segments)
}

fn segment(a: &SegmentPattern, b: &SegmentPattern) -> bool {
    use SegmentPattern as S;
    match (a, b) {
        (S::Literal(a), S::Literal(b)) => a == b,
        (S::Literal(text), S::Glob(glob)) | (S::Glob(glob), S::Literal(text)) => glob_matches(glob, text),
        (S::Literal(text), S::One) | (S::One, S::Literal(text)) => !text.is_empty(),
        _ => true,
    }
}
