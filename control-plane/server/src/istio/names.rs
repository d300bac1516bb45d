//! Names and labels of our objects.
//!
//! INVARIANT: different workloads of a namespace have different names and labels, however long they are.

use std::collections::BTreeMap;

use tidegate_compiler::WorkloadId;

use crate::bundle::{hex, sha256};

/// Longest value of a label, in characters; and the longest name that every tool takes.
const LONGEST: usize = 63;
/// Hexadecimal digits of what stands for the rest of a name.
const HASH: usize = 10;

/// `tidegate-<workload>`.
pub(super) fn object(workload: &WorkloadId) -> String {
    shortened(format!("tidegate-{}", workload.name))
}

/// The labels of an object that brings the filter.
pub(super) fn labels(workload: &WorkloadId) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/managed-by", "tidegate".to_owned()),
        ("tidegate.dev/part", "plugin".to_owned()),
        ("tidegate.dev/workload", shortened(workload.name.clone())),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// Names are ASCII: the compiler refuses others.
fn shortened(name: String) -> String {
    if name.len() <= LONGEST {
        return name;
    }
    let mut hash = hex(&sha256(name.as_bytes()));
    hash.truncate(HASH);
    let kept: String = name.chars().take(LONGEST - HASH - 1).collect();
    // Neither a label nor a name may have a dot or a dash before its end.
    format!("{}-{hash}", kept.trim_end_matches(['.', '-']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_short_enough_and_differ() {
        let name = |end: &str| object(&WorkloadId { namespace: "n".into(), name: "w".repeat(60) + end });
        let (a, b) = (name("a"), name("b"));
        assert_ne!(a, b);
        assert!(a.len() <= 63 && b.len() <= 63, "{a} {b}");
        assert_eq!(a, name("a"));
        let short = object(&WorkloadId { namespace: "n".into(), name: "orders-api".into() });
        assert_eq!(short, "tidegate-orders-api");
    }

    #[test]
    fn a_shortened_name_is_a_label() {
        for cut in [".", "-", "-.", "a"] {
            let name = shortened("x".repeat(52 - cut.len()) + cut + &"y".repeat(20));
            assert!(name.len() <= 63 && !name.contains(".-") && !name.contains("--"), "{name}");
        }
    }
}
