//! Whether one rule matches every request that another one matches.
//!
//! INVARIANT: `true` is a proof. Patterns and conditions that are not compared here cover only what is equal to them.

use tidegate_engine::model::{
    Condition, Effect, FromModel, HostPattern, OperationModel, PathPattern, PeerModel, RuleModel,
    SegmentPattern,
};

/// Whether `wide` matches wherever `narrow` does: every entry of `narrow` lies in one of `wide`, and so does every operation.
pub(super) fn covers(wide: &RuleModel, narrow: &RuleModel) -> bool {
    let from = narrow.from.iter().all(|narrow| wide.from.iter().any(|wide| entry(wide, narrow)));
    let keeps_slashes = narrow.to.iter().flatten().any(|narrow| narrow.encoded_slashes);
    let to = match (&wide.to, &narrow.to) {
        // "Without it no Allow matches a path that has some."
        (None, _) => wide.effect == Effect::Deny || !keeps_slashes,
        (Some(_), None) => false,
        (Some(all), Some(narrow)) => {
            narrow.iter().all(|narrow| all.iter().any(|one| operation(wide.effect, one, narrow)))
        }
    };
    from && to
}

fn entry(wide: &FromModel, narrow: &FromModel) -> bool {
    peer(&wide.peer, &narrow.peer)
        && wide.issuers.iter().all(|issuer| narrow.issuers.contains(issuer))
        && condition(&wide.condition, &narrow.condition)
}

pub(super) fn peer(wide: &PeerModel, narrow: &PeerModel) -> bool {
    match (wide, narrow) {
        (PeerModel::Anyone, _) | (PeerModel::NoPeer, PeerModel::NoPeer) => true,
        (PeerModel::AnyMesh { trust_domain: wide }, PeerModel::AnyMesh { trust_domain: narrow })
        | (PeerModel::AnyMesh { trust_domain: wide }, PeerModel::Mesh { trust_domain: narrow, .. }) => {
            wide == narrow
        }
        (
            PeerModel::Mesh { trust_domain, namespace, service_accounts },
            PeerModel::Mesh {
                trust_domain: narrow_domain,
                namespace: narrow_namespace,
                service_accounts: narrow_accounts,
            },
        ) => {
            trust_domain == narrow_domain
                && namespace == narrow_namespace
                && subset(service_accounts.as_deref(), narrow_accounts.as_deref())
        }
        _ => false,
    }
}

/// `None` is everything.
fn subset<T: PartialEq>(wide: Option<&[T]>, narrow: Option<&[T]>) -> bool {
    match (wide, narrow) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => narrow.iter().all(|one| wide.contains(one)),
    }
}

/// Whether all that `wide` demands is demanded by `narrow` as well.
fn condition(wide: &Condition, narrow: &Condition) -> bool {
    let narrow = demands(narrow);
    demands(wide).iter().all(|demand| narrow.contains(demand))
}

/// The parts all of which must hold.
pub(crate) fn demands(condition: &Condition) -> Vec<&Condition> {
    match condition {
        Condition::True => Vec::new(),
        Condition::All(parts) => parts.iter().flat_map(demands).collect(),
        other => vec![other],
    }
}

fn operation(effect: Effect, wide: &OperationModel, narrow: &OperationModel) -> bool {
    subset(wide.ports.as_deref(), narrow.ports.as_deref())
        && subset(wide.methods.as_deref(), narrow.methods.as_deref())
        && all_in(wide.hosts.as_deref(), narrow.hosts.as_deref(), host)
        && all_in(wide.paths.as_deref(), narrow.paths.as_deref(), path)
        // "An Allow demands a gRPC content type, a Deny does not."
        && (!wide.grpc || narrow.grpc || effect == Effect::Deny)
        && (wide.encoded_slashes || !narrow.encoded_slashes || effect == Effect::Deny)
        && condition(&wide.condition, &narrow.condition)
}

fn all_in<T>(wide: Option<&[T]>, narrow: Option<&[T]>, covers: fn(&T, &T) -> bool) -> bool {
    match (wide, narrow) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => {
            narrow.iter().all(|narrow| wide.iter().any(|wide| covers(wide, narrow)))
        }
    }
}

fn host(wide: &HostPattern, narrow: &HostPattern) -> bool {
    match (wide, narrow) {
        (HostPattern::Exact(wide), HostPattern::Exact(narrow)) => wide == narrow,
        (HostPattern::Exact(_), HostPattern::Suffix(_)) => false,
        (HostPattern::Suffix(wide), HostPattern::Exact(narrow)) => {
            narrow.len() > wide.len() && narrow.ends_with(wide.as_str())
        }
        (HostPattern::Suffix(wide), HostPattern::Suffix(narrow)) => narrow.ends_with(wide.as_str()),
    }
}

/// Segment by segment. A trailing slash is a last, empty literal, and lies only in what has one or in `{**}`.
pub(super) fn path(wide: &PathPattern, narrow: &PathPattern) -> bool {
    fn within(wide: &[SegmentPattern], narrow: &[SegmentPattern]) -> bool {
        match (wide, narrow) {
            ([SegmentPattern::Rest], _) | ([], []) => true,
            ([wide, wide_rest @ ..], [narrow, narrow_rest @ ..]) => {
                segment(wide, narrow) && within(wide_rest, narrow_rest)
            }
            _ => false,
        }
    }
    within(&wide.segments, &narrow.segments)
}

fn segment(wide: &SegmentPattern, narrow: &SegmentPattern) -> bool {
    use SegmentPattern as S;
    match (wide, narrow) {
        (S::One, S::One) => true,
        (S::One, S::Literal(text)) => !text.is_empty(),
        // A glob that stands for nothing but what may be empty matches what `{…}` does not.
        (S::One, S::Glob(glob)) => glob.bytes().any(|byte| byte != b'*'),
        (S::Glob(wide), S::Literal(text)) => glob_matches(wide, text),
        (wide, narrow) => wide == narrow,
    }
}

/// Whether a glob with `*` for zero or more characters matches a text as a whole.
pub(crate) fn glob_matches(glob: &str, text: &str) -> bool {
    match glob.split_once('*') {
        None => glob == text,
        Some((prefix, rest)) => text.strip_prefix(prefix).is_some_and(|text| {
            let starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            starts.filter_map(|at| text.get(at..)).any(|text| glob_matches(rest, text))
        }),
    }
}

#[cfg(test)]
mod tests {
    use tidegate_engine::model::SegmentPattern as S;

    use super::*;

    fn pattern(text: &str) -> PathPattern {
        let segment = |segment: &str| match segment {
            "{}" => S::One,
            "{**}" => S::Rest,
            glob if glob.contains('*') => S::Glob(glob.to_owned()),
            literal => S::Literal(literal.to_owned()),
        };
        PathPattern { segments: text.strip_prefix('/').unwrap_or(text).split('/').map(segment).collect() }
    }

    #[test]
    fn a_path_covers_what_lies_in_it_and_nothing_else() {
        for (wide, narrow, expected) in [
            ("/{**}", "/a/b", true),
            ("/{**}", "/a/{**}", true),
            ("/a/{**}", "/a/b/c", true),
            ("/a/{**}", "/a", true),
            ("/a/{**}", "/b", false),
            ("/a/{}", "/a/b", true),
            ("/a/{}", "/a/b/c", false),
            ("/a/{}", "/a/", false),
            ("/a/{}", "/a/{**}", false),
            ("/a/{}", "/a/x-*", true),
            ("/a/{}", "/a/*", false),
            ("/a/x-*", "/a/x-1", true),
            ("/a/x-*", "/a/y-1", false),
            ("/a/x-*", "/a/{}", false),
            ("/a/b", "/a/b", true),
            ("/a", "/a/", false),
            ("/", "/", true),
        ] {
            assert_eq!(path(&pattern(wide), &pattern(narrow)), expected, "{wide} {narrow}");
        }
    }
}
