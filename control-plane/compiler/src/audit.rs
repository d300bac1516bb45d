//! What is recorded of the requests that a rule allows, where it does not say.
//!
//! INVARIANT: what is not known to be only read is recorded in full.

use tidegate_engine::model::Audit;

use crate::catalogue::{self, Action};
use crate::spec::{AccessRuleSpec, AuditSpec, OperationSpec, ResourcesSpec};

/// As the rule says; otherwise in full where something is launched, written or administered, and samples of the rest.
pub(crate) fn of(spec: &AccessRuleSpec) -> Audit {
    match spec.audit {
        Some(AuditSpec::Full) => Audit::Full,
        Some(AuditSpec::Sampled) => Audit::Sampled,
        Some(AuditSpec::Required) => Audit::Required,
        None if spec.to.iter().flatten().any(changes_something) => Audit::Full,
        None => Audit::Sampled,
    }
}

/// Whether what the entry allows is known to change something. Of HTTP and gRPC that the catalogue does not list nothing
/// is known; a rule on them says what it wants.
fn changes_something(entry: &OperationSpec) -> bool {
    entry.launch.is_some() || entry.resources.as_deref().is_some_and(writes)
}

fn writes(resources: &ResourcesSpec) -> bool {
    let Some(Ok(service)) = catalogue::service(&resources.service) else { return true };
    resources.actions.iter().any(|action| {
        let mut methods = service.methods_of(action).peekable();
        // States of a job, which are no methods' names, are asked for to change it.
        methods.peek().is_none() || methods.any(|method| method.action != Action::Read)
    })
}
