//! Options of a pipeline that a launch's `parameters` set besides: what the rule says of account, region, image and paths holds
//! there, too, where the rule leaves parameters open.
//!
//! The launcher of a flexible template hands parameters on as options of the pipeline, and these have names of their own for
//! what the request says elsewhere (`DataflowPipelineOptions`, `GcpOptions`; Python writes them with underscores).

use tidegate_engine::model::{Condition, TextTest};

use super::conditions::{all, if_present, member, none_of, not, present, spellings, text_like};
use super::message;
use super::name::Segment;
use super::stated::DEFAULT;
use super::{Name, Wanted};
use crate::catalogue::Also;

/// Options that say the same as something of the request, by its role. Of `impersonated` no rule says anything.
const OPTIONS: [(&str, &[&str]); 8] = [
    ("runAs", &["serviceAccount", "serviceAccountEmail"]),
    (IMPERSONATED, &["impersonateServiceAccount"]),
    ("workerRegion", &["region", "workerRegion"]),
    ("workerZone", &["zone", "workerZone"]),
    ("temp", &["tempLocation", "gcpTempLocation", "stagingLocation"]),
    ("jobName", &["jobName"]),
    ("workerImage", &["sdkContainerImage", "workerHarnessContainerImage"]),
    (PROJECT, &["project"]),
];

const IMPERSONATED: &str = "impersonated";
const PROJECT: &str = "project";

/// What an option has to be.
enum Demand {
    /// Whatever it likes.
    Any,
    /// Not there.
    Absent,
    /// Not there, or like this.
    Like(String),
}

/// Whether this is where options are, and the rule leaves them open.
pub(super) fn are_in(wanted: &Wanted<'_>, also: &Also) -> bool {
    wanted.service.name == "dataflow" && also.role == "parameters" && wanted.unchecked.contains("parameters")
}

fn demand(wanted: &Wanted<'_>, role: &str) -> Demand {
    match (role, wanted.stated.get(role)) {
        ("runAs", Some(account)) if account == DEFAULT => Demand::Absent,
        (_, Some(stated)) => Demand::Like(stated.clone()),
        (IMPERSONATED, None) if wanted.stated.contains_key("runAs") => Demand::Absent,
        ("workerImage", None) if !wanted.unchecked.contains("workerImage") => Demand::Absent,
        (PROJECT, None) => match wanted.names.as_slice() {
            [name] => project(name).map_or(Demand::Any, Demand::Like),
            _ => Demand::Any,
        },
        _ => Demand::Any,
    }
}

/// The project of a name, unless it is any.
fn project(name: &Name) -> Option<String> {
    match name.segments().get(1) {
        Some(Segment::Literal(text) | Segment::Glob(text)) => Some(text.clone()),
        _ => None,
    }
}

/// Of a JSON body.
pub(super) fn in_json(wanted: &Wanted<'_>, also: &Also) -> Condition {
    let mut parts = Vec::new();
    for (role, names) in OPTIONS {
        for name in names {
            let option = member(&wanted.service.name, &format!("{}.{name}", also.path));
            parts.push(match demand(wanted, role) {
                Demand::Any => Condition::True,
                Demand::Absent => not(present(option)),
                Demand::Like(glob) => if_present(option.clone(), text_like(option, &glob)),
            });
        }
    }
    all(parts)
}

/// Of a message, where a map is a list of keys and values: which value belongs to which key is not read, so none of the keys
/// is there.
pub(super) fn in_message(wanted: &Wanted<'_>, also: &Also) -> Condition {
    const KEY: u32 = 1;
    let is_demanded = |role: &str| !matches!(demand(wanted, role), Demand::Any);
    let demanded = OPTIONS.iter().filter(|(role, _)| is_demanded(role));
    let keys: Vec<String> = demanded.flat_map(|(_, names)| *names).flat_map(|name| spellings(name)).collect();
    if keys.is_empty() {
        return Condition::True;
    }
    let numbers: Vec<u32> = also.fields.iter().copied().chain([KEY]).collect();
    none_of(vec![Condition::Text(message::field(&numbers), TextTest::OneOf(keys))])
}
