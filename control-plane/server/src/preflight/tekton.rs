//! PipelineRuns and TaskRuns of Tekton.

use serde_json::Value;
use tidegate_compiler::explain::MeshPeer;

use super::command::Commands;
use super::{By, Hints, Implied, Plan, encoded, line_of};

/// As pods see the Kubernetes API.
pub(super) const HOST: &str = "kubernetes.default.svc";

/// Reads a manifest.
pub(super) fn read(
    document: &Value,
    version: &str,
    kind: &str,
    text: &str,
    hints: &Hints,
    plan: &mut Plan,
) -> Result<(), String> {
    let kinds = match kind {
        "PipelineRun" => "pipelineruns",
        "TaskRun" => "taskruns",
        _ => return Err(format!("a `{kind}` runs nothing by itself; give the PipelineRun or TaskRun")),
    };
    plan.what = format!("a {kind} of Tekton");
    let at = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
    let namespace = at("/metadata/namespace").or(hints.namespace.as_deref()).ok_or_else(|| {
        format!("the {kind} does not say in which namespace it runs: give --namespace, or write `metadata.namespace`")
    })?;
    let host = hints.kubernetes_host.as_deref().unwrap_or(HOST);
    let url = format!("https://{host}/apis/{version}/namespaces/{}/{kinds}", encoded(namespace));
    let mut request =
        Implied::new(&format!("create the {kind}"), By::Runner, "POST", url).with(document.clone());
    request.line = line_of(text, &format!("kind: {kind}"), 0);
    let account = at("/spec/taskRunTemplate/serviceAccountName").or_else(|| at("/spec/serviceAccountName"));
    for (role, name) in [
        ("name", at("/metadata/name")),
        ("generateName", at("/metadata/generateName")),
        ("pipeline", at("/spec/pipelineRef/name")),
        ("task", at("/spec/taskRef/name")),
        ("runAs", account),
    ] {
        if let Some(name) = name {
            request = request.naming(role, name);
        }
    }
    plan.requests.push(request);
    let pods = By::Pod(MeshPeer {
        trust_domain: None,
        namespace: namespace.to_owned(),
        service_account: account.unwrap_or("default").to_owned(),
    });
    if document.pointer("/spec/taskRunSpecs").is_some() {
        plan.not_understood(
            line_of(text, "taskRunSpecs", 0),
            "taskRunSpecs",
            "single tasks may run as other accounts; what they send is asked about for the run's own",
        );
    }
    for (pointer, what) in [("/spec/pipelineRef", "pipelineRef"), ("/spec/taskRef", "taskRef")] {
        if let Some(reference) = document.pointer(pointer) {
            let name = reference.get("name").and_then(Value::as_str).unwrap_or("a resolver");
            plan.not_understood(
                line_of(text, what, 0),
                &format!("{what}: {name}"),
                "what its steps send is written elsewhere; give a run with the steps in it to look at them",
            );
        }
    }
    let mut commands = Commands::new(plan, pods, hints);
    steps(document, text, &mut commands);
    commands.finish();
    Ok(())
}

/// Scripts and commands of steps, wherever they are.
fn steps(value: &Value, text: &str, commands: &mut Commands<'_>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| steps(item, text, commands)),
        Value::Object(members) => {
            for (name, member) in members {
                match (name.as_str(), member) {
                    ("steps" | "sidecars", Value::Array(all)) => {
                        all.iter().for_each(|step| one(step, text, commands))
                    }
                    _ => steps(member, text, commands),
                }
            }
        }
        _ => {}
    }
}

fn one(step: &Value, text: &str, commands: &mut Commands<'_>) {
    let mut known = Vec::new();
    for entry in step.get("env").and_then(Value::as_array).into_iter().flatten() {
        let of = |name: &str| entry.get(name).and_then(Value::as_str);
        if let (Some(name), Some(value)) = (of("name"), of("value")) {
            known.push((name.to_owned(), value.to_owned()));
        }
    }
    commands.set(known);
    if let Some(script) = step.get("script").and_then(Value::as_str) {
        commands.script(script, first_line(text, script));
    }
    let words: Vec<String> = ["command", "args"]
        .into_iter()
        .filter_map(|name| step.get(name)?.as_array())
        .flatten()
        .filter_map(|word| word.as_str().map(str::to_owned))
        .collect();
    if !words.is_empty() {
        // Where the last of its words first is: words such as `sh` are in many lines.
        let at = |word: &String| text.lines().position(|line| line.contains(word.as_str()));
        let line = words.iter().filter_map(at).max().and_then(|line| u32::try_from(line + 1).ok());
        commands.words(&words, line.unwrap_or(0));
    }
}

/// Where a script begins. Its first line is that of many; the first that is no comment is found again.
fn first_line(text: &str, script: &str) -> u32 {
    let mut lines = script.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let Some((before, line)) = lines.find(|(_, line)| !line.trim_start().starts_with('#')) else { return 0 };
    match line_of(text, line, 0) {
        0 => 0,
        found => found.saturating_sub(u32::try_from(before).unwrap_or(0)),
    }
}
