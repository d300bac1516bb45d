//! What a rule says of further things that requests name: a template, an account, the state that a job is to have.

use tidegate_engine::model::{Condition, Operand, TextTest};

use super::conditions::{
    all, any, if_present, member, none_of, present, spellings, text_like, without_query,
};
use super::{Wanted, message};
use crate::catalogue::Method;

/// `runAs: default`: the account that counts where nobody names one.
pub(crate) const DEFAULT: &str = "default";

/// Roles of which nothing has to be said; what is said has to be as the rule says.
const MAY_BE_ABSENT: [&str; 4] = ["staging", "temp", "workerRegion", "workerZone"];

/// Roles that the rule says, and the method does not have.
pub(super) fn missing(wanted: &Wanted<'_>, method: &Method) -> Vec<&'static str> {
    wanted
        .stated
        .keys()
        .filter(|role| !MAY_BE_ABSENT.contains(role))
        .filter(|role| !method.also.iter().any(|also| also.role == **role))
        .copied()
        .collect()
}

/// Each of these is absent or as it is stated, and one is there.
pub(super) fn said(service: &str, role: &str, operands: &[Operand], stated: &str) -> Condition {
    let like = |operand: &Operand| text_like(operand.clone(), stated);
    let may_be = |operand: &Operand| if_present(operand.clone(), like(operand));
    match operands {
        [] => Condition::True,
        _ if role == "runAs" && stated == DEFAULT => {
            let there = operands.iter().map(|operand| present(operand.clone())).collect();
            // In Kubernetes the default account can be named.
            if service == "kubernetes" { all(operands.iter().map(may_be).collect()) } else { none_of(there) }
        }
        many if MAY_BE_ABSENT.contains(&role) => all(many.iter().map(may_be).collect()),
        [one] => like(one),
        many => {
            let mut parts: Vec<Condition> = many.iter().map(may_be).collect();
            parts.push(any(many.iter().map(like).collect()));
            all(parts)
        }
    }
}

/// A state that an update of a job can ask for, as JSON and as Protocol Buffers write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    names: &'static [&'static str],
    numbers: &'static [&'static str],
}

/// `cancel` and `drain`: updates of a Dataflow job. Source: google/dataflow/v1beta3/jobs.proto, `JobState`.
pub(super) fn state(action: &str) -> Option<State> {
    match action.strip_prefix("jobs.").unwrap_or(action) {
        "cancel" => Some(State { names: &["JOB_STATE_CANCELLED"], numbers: &["#5"] }),
        "drain" => {
            Some(State { names: &["JOB_STATE_DRAINED", "JOB_STATE_DRAINING"], numbers: &["#7", "#8"] })
        }
        _ => None,
    }
}

/// The update asks for one of these states, and for nothing else. None: for whatever it likes.
pub(super) fn in_state(method: &Method, states: &[State], in_message: bool) -> Condition {
    if states.is_empty() || !method.is_called("jobs.update") {
        return Condition::True;
    }
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<String>>();
    let (operand, texts) = if in_message {
        (message::field(&[3, 9]), states.iter().flat_map(|state| owned(state.numbers)).collect())
    } else {
        (member("dataflow", "requestedState"), states.iter().flat_map(|state| owned(state.names)).collect())
    };
    let other = if in_message {
        none_of(vec![present(message::field(&[5]))])
    } else {
        without_query(spellings("updateMask"))
    };
    all(vec![Condition::Text(operand, TextTest::OneOf(texts)), other])
}
