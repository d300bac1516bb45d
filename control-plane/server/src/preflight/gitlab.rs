//! `.gitlab-ci.yml`: command lines of its jobs, and the audiences of their tokens.

use serde_json::{Map, Value};

use super::command::Commands;
use super::{By, Hints, Plan, line_of};

/// Keys of the whole file that are no jobs: <https://docs.gitlab.com/ci/yaml/#keywords>.
const NO_JOBS: [&str; 13] = [
    "default",
    "include",
    "stages",
    "variables",
    "workflow",
    "spec",
    "image",
    "services",
    "cache",
    "before_script",
    "after_script",
    "types",
    "pages_options",
];
/// What refers to something that is not in the file.
const ELSEWHERE: [&str; 3] = ["extends", "trigger", "inherit"];

/// Whether it has a job with commands.
pub(super) fn is_pipeline(members: &Map<String, Value>) -> bool {
    members.values().any(|job| job.get("script").is_some() || job.get("trigger").is_some())
}

/// Reads all jobs.
pub(super) fn read(members: &Map<String, Value>, text: &str, hints: &Hints, plan: &mut Plan) {
    plan.what = "a pipeline of GitLab CI".to_owned();
    if members.contains_key("include") {
        plan.not_understood(line_of(text, "include:", 0), "include", "files that are included are not read");
    }
    let global = variables(members.get("variables"));
    let default = members.get("default");
    let inherited = |job: &Value, name: &str| {
        job.get(name).or_else(|| default?.get(name)).or_else(|| members.get(name)).cloned()
    };
    for (name, job) in members {
        // A job that begins with a dot is a template of others, which name it in `extends`.
        if NO_JOBS.contains(&name.as_str()) || !job.is_object() || name.starts_with('.') {
            continue;
        }
        let line = line_of(text, &format!("{name}:"), 0);
        for key in ELSEWHERE {
            if job.get(key).is_some() {
                plan.not_understood(line, &format!("{name}: {key}"), "what it stands for is not read");
            }
        }
        let tokens = inherited(job, "id_tokens");
        for token in tokens.as_ref().and_then(Value::as_object).into_iter().flat_map(Map::values) {
            let audiences = match token.get("aud") {
                Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
                Some(Value::String(one)) => vec![one.as_str()],
                _ => Vec::new(),
            };
            for audience in audiences {
                plan.audiences.push((audience.to_owned(), line_of(text, audience, line)));
            }
        }
        let mut known = global.clone();
        known.extend(variables(job.get("variables")));
        let mut commands = Commands::new(plan, By::Runner, hints);
        commands.set(known);
        for key in ["before_script", "script", "after_script"] {
            let script = if key == "script" { job.get(key).cloned() } else { inherited(job, key) };
            lines(script.as_ref(), text, if key == "script" { line } else { 0 }, &mut commands);
        }
        commands.finish();
    }
}

/// A string, or lists of them in each other.
fn lines(script: Option<&Value>, text: &str, from: u32, commands: &mut Commands<'_>) {
    match script {
        Some(Value::String(script)) => commands.script(script, line_of(text, script, from)),
        Some(Value::Array(all)) if is_reference(all) => {
            commands.not_understood(
                line_of(text, "!reference", from),
                "!reference",
                "what it stands for is not read",
            );
        }
        Some(Value::Array(all)) => all.iter().for_each(|one| lines(Some(one), text, from, commands)),
        _ => {}
    }
}

/// `!reference [.job, script]`, as it is without its tag.
fn is_reference(list: &[Value]) -> bool {
    let is_name = |part: &Value| {
        part.as_str().is_some_and(|part| !part.is_empty() && !part.contains(char::is_whitespace))
    };
    let begins =
        list.first().and_then(Value::as_str).is_some_and(|first| first.starts_with('.') && first.len() > 1);
    list.len() >= 2 && begins && list.iter().all(is_name)
}

/// `NAME: value`, or `NAME: {value: …}`.
fn variables(value: Option<&Value>) -> Vec<(String, String)> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Object(members) => members.get("value")?.as_str().map(str::to_owned),
        _ => None,
    };
    let members = value.and_then(Value::as_object).into_iter().flatten();
    members.filter_map(|(name, value)| Some((name.clone(), text(value)?))).collect()
}
