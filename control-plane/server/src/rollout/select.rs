//! Which proxies are canaries.
//!
//! By a hash of their names and of the rules that are tried: the same ones whoever asks and however often they come back, and
//! others for other rules. A proxy that was chosen stays one until the rollout ends. Others are chosen only where none is left,
//! so that a proxy that comes late keeps the rules before; one that comes back after it was replaced is a canary still.

use std::collections::BTreeSet;

use crate::bundle::{Sha256, sha256};

/// So many of the proxies there are, those first that can compare.
pub(super) fn choose<'p>(
    proxies: impl Iterator<Item = (&'p str, bool)>,
    count: usize,
    (workload, rules): (&str, &str),
) -> BTreeSet<String> {
    let mut ranked: Vec<(bool, Sha256, &str)> = proxies
        .map(|(name, compares)| {
            let hash = sha256(format!("{workload}\0{rules}\0{name}").as_bytes());
            (!compares, hash, name)
        })
        .collect();
    ranked.sort_unstable();
    ranked.into_iter().take(count).map(|(_, _, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_are_chosen_whatever_the_order_and_others_for_other_rules() {
        let names: Vec<String> = (0..20).map(|at| format!("pod-{at}")).collect();
        let chosen = |names: Vec<&String>, rules: &str| {
            choose(names.into_iter().map(|name| (name.as_str(), true)), 2, ("a/a", rules))
        };
        let first = chosen(names.iter().collect(), "r1");
        assert_eq!(first.len(), 2);
        assert_eq!(first, chosen(names.iter().rev().collect(), "r1"));
        assert!((2..20).any(|rules| chosen(names.iter().collect(), &format!("r{rules}")) != first));
    }

    #[test]
    fn those_that_can_compare_come_first() {
        let proxies = || (0..20).map(|at| (["a", "b", "c", "d"][at % 4], at % 4 == 2));
        for rules in ["r1", "r2", "r3"] {
            assert_eq!(choose(proxies().take(4), 1, ("a/a", rules)), ["c".to_owned()].into());
        }
    }
}
