//! What a refused request would need a directory to say.
//!
//! A directory lags behind what it describes: a worker that has just started calls before its id is listed. Who knows
//! which id is missing can ask for it instead of refusing.
//!
//! Where the body is still to come it is taken to be the best that there could be: whether it is will be seen when it has been
//! read, and that is only begun for a request that may be allowed.
//!
//! INVARIANT: this only names a question. Nothing is allowed here; whoever gets an answer decides again.

use crate::condition::{self, Listing};
use crate::decide::decide;
use crate::layout::{NONE, Table, code};
use crate::packed::Packed;
use crate::policy::PolicySet;
use crate::reason::Reason;
use crate::request::Request;
use crate::search::Search;
use crate::truth::Truth;

/// An id that a directory does not list, with everything else right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unlisted<'a> {
    /// The directory's name.
    pub directory: &'a str,
    /// The id.
    pub id: &'a str,
}

/// For a request that no Allow matches: the id that one directory does not list, or of which it cannot tell, and with
/// which the request would be allowed. `None` where no single id would do, and for requests with any other decision.
///
/// Of several the one that the first rule in order would need; within a rule the first directory of the policy, and the
/// least id in byte order.
pub fn unlisted<'a>(policy: &'a PolicySet, request: &Request<'a>) -> Option<Unlisted<'a>> {
    if policy.count(Table::Directories) == 0
        || request.path.ambiguous()
        || decide(policy, request).reason != Reason::NoAllowMatched
    {
        return None;
    }
    let mut first: Option<Missing<'a>> = None;
    let search = Search::new(policy, request, Listing::Lenient).hopeful();
    search.each_candidate(|candidate| {
        let rule = candidate.rule;
        let [_, head, froms, operations] = policy.packed(Packed::Rules, rule);
        let [flags, _, _] = policy.packed(Packed::Heads, head);
        if flags & (code::RULE_DENY | code::RULE_SHADOW) != 0
            || first.is_some_and(|first| first.rule < rule)
            || search.operation_of(candidate.operation, operations, false) != Truth::True
        {
            return;
        }
        policy.each_of(if candidate.from == NONE { froms } else { candidate.from << 1 }, |from| {
            let [_, _, demand, _] = policy.packed(Packed::Froms, from);
            let [_, _, condition] = policy.packed(Packed::Demands, demand);
            condition::each_unlisted(policy, condition, request, &mut |directory, id| {
                let missing = Missing { rule, directory, id };
                if first.is_none_or(|first| missing < first)
                    && missing.assumed(policy, request).from(from) == Truth::True
                {
                    first = Some(missing);
                }
            });
            false
        });
    });
    let first = first?;
    // A Deny may look in the same directory.
    if first.assumed(policy, request).matches().deny.is_some() {
        return None;
    }
    Some(Unlisted { directory: policy.directory(first.directory), id: first.id })
}

/// What one rule lacks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Missing<'a> {
    rule: u32,
    directory: u32,
    id: &'a str,
}

// === impl Missing ===

impl<'a> Missing<'a> {
    /// A search in which it is not missing.
    fn assumed<'p>(self, policy: &'p PolicySet, request: &'p Request<'a>) -> Search<'p, 'a>
    where
        'a: 'p,
    {
        Search::new(policy, request, Listing::Assuming(self.directory, self.id)).hopeful()
    }
}
