//! Until when a decision holds, as far as time alone can change it.
//!
//! Who lets a long request in must look at it again when a schedule ends, a rule ceases or a token becomes too old, and
//! when a Deny begins to hold.
//!
//! INVARIANT: up to the moment that is told, time alone makes no rule of the kinds that count come out otherwise. It may be
//! told too early, never too late.

use crate::condition::{self, Listing, Scope};
use crate::decision::Decision;
use crate::layout::NONE;
use crate::packed::Packed;
use crate::policy::PolicySet;
use crate::request::Request;

/// The first moment after [`Request::now`] at which conditions on the time may end what was allowed; `i64::MAX`: none.
/// Tokens, keys and directories end by themselves, and are not looked at here.
pub fn until(policy: &PolicySet, request: &Request<'_>, decision: &Decision) -> i64 {
    if !policy.reads_time() {
        return i64::MAX;
    }
    let scope = Scope { policy, request, listing: Listing::Lenient };
    let change = |condition: u32| condition::next_change(&scope, condition);
    let mut until = i64::MAX;
    if let Some(rule) = decision.rule {
        let [_, _, froms, operations] = policy.packed(Packed::Rules, rule.0);
        each_condition(policy, froms, operations, |condition| until = until.min(change(condition)));
    }
    for condition in policy.timed_denies() {
        until = until.min(change(*condition));
    }
    until
}

/// Calls with the condition of every from and operation of a rule. [`NONE`] stands for no operations.
pub(crate) fn each_condition(policy: &PolicySet, froms: u32, operations: u32, mut visit: impl FnMut(u32)) {
    let mut visit = |condition: u32| {
        if condition != NONE {
            visit(condition);
        }
        false
    };
    if froms != NONE {
        policy.each_of(froms, |from| {
            let [_, _, demand, _] = policy.packed(Packed::Froms, from);
            let [_, _, condition] = policy.packed(Packed::Demands, demand);
            visit(condition)
        });
    }
    if operations != NONE {
        policy.each_of(operations, |operation| {
            let [_, _, condition] = policy.packed(Packed::Operations, operation);
            visit(condition)
        });
    }
}
