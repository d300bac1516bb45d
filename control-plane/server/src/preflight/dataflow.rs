//! Bodies of Dataflow's launches.
//!
//! Shapes as the API's discovery document has them: `LaunchFlexTemplateRequest`, `LaunchTemplateParameters`,
//! `CreateJobFromTemplateRequest` and `Job`, in camelCase or snake_case.

use serde_json::{Map, Value, json};

use super::{By, Hints, Implied, Plan, encoded, object};

const HOST: &str = "https://dataflow.googleapis.com";

/// Members of `LaunchTemplateParameters`, and beside them those of `CreateJobFromTemplateRequest`.
const CLASSIC: [&str; 7] =
    ["jobName", "parameters", "environment", "update", "transformNameMapping", "gcsPath", "location"];

/// A member by its name in camelCase, or the same in snake_case.
fn member<'v>(members: &'v Map<String, Value>, name: &str) -> Option<&'v Value> {
    members.get(name).or_else(|| members.get(&snake(name)))
}

fn text<'v>(members: &'v Map<String, Value>, name: &str) -> Option<&'v str> {
    member(members, name)?.as_str()
}

fn snake(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// Whether it looks like one of the four.
pub(super) fn is_launch(members: &Map<String, Value>) -> bool {
    member(members, "launchParameter").is_some() || is_job(members) || is_classic(members)
}

fn is_job(members: &Map<String, Value>) -> bool {
    text(members, "type").is_some_and(|kind| kind.starts_with("JOB_TYPE_"))
        || (member(members, "steps").is_some_and(Value::is_array) && text(members, "name").is_some())
}

fn is_classic(members: &Map<String, Value>) -> bool {
    text(members, "jobName").is_some()
        && members.keys().all(|name| CLASSIC.iter().any(|known| known == name || snake(known) == *name))
}

/// Where something is launched.
struct Place<'p> {
    project: &'p str,
    region: &'p str,
}

fn place<'p>(members: &'p Map<String, Value>, hints: &'p Hints) -> Result<Place<'p>, String> {
    let project = hints.project.as_deref().or_else(|| text(members, "projectId"));
    let region = hints.region.as_deref().or_else(|| text(members, "location"));
    match (project, region) {
        (Some(project), Some(region)) => Ok(Place { project, region }),
        (None, None) => Err(
            "the body does not say in which project and region it is launched: give --project and --region"
                .to_owned(),
        ),
        (None, _) => Err("the body does not say in which project it is launched: give --project".to_owned()),
        (_, None) => Err("the body does not say in which region it is launched: give --region".to_owned()),
    }
}

/// Reads a body.
pub(super) fn read(members: &Map<String, Value>, hints: &Hints, plan: &mut Plan) -> Result<(), String> {
    let body = Value::Object(members.clone());
    if let Some(launch) = member(members, "launchParameter") {
        let Value::Object(launch) = launch else {
            return Err("`launchParameter` is no mapping".to_owned());
        };
        let Place { project, region } = place(members, hints)?;
        plan.what = "a launch of a flexible template of Dataflow".to_owned();
        flex(plan, By::Runner, 0, (project, region), launch, body);
        return Ok(());
    }
    if is_job(members) {
        let Place { project, region } = place(members, hints)?;
        plan.what = "a job of Dataflow with its own steps".to_owned();
        let path = format!("{HOST}/v1b3/projects/{}/locations/{}/jobs", encoded(project), encoded(region));
        let empty = Map::new();
        let environment = member(members, "environment").and_then(Value::as_object).unwrap_or(&empty);
        let mut request = Implied::new("create a job", By::Runner, "POST", path).with(body);
        request.names =
            [("jobName", text(members, "name")), ("runAs", text(environment, "serviceAccountEmail"))]
                .into_iter()
                .filter_map(|(role, name)| Some((role.to_owned(), name?.to_owned())))
                .collect();
        plan.requests.push(request);
        if let Some(temp) = text(environment, "tempStoragePrefix") {
            let temp = temp
                .strip_prefix("storage.googleapis.com/")
                .map_or(temp.to_owned(), |rest| format!("gs://{rest}"));
            folder(plan, 0, "temp", &temp);
        }
        plan.not_understood(0, "steps", "what the steps of a job read and write is not looked into");
        return Ok(());
    }
    let Place { project, region } = place(members, hints)?;
    plan.what = "a launch of a classic template of Dataflow".to_owned();
    let in_body = text(members, "gcsPath");
    match (in_body, hints.template.as_deref()) {
        (Some(template), None) => {
            classic(plan, By::Runner, 0, (project, region), (template, true), members, body)
        }
        (None, Some(template)) => {
            classic(plan, By::Runner, 0, (project, region), (template, false), members, body)
        }
        (Some(_), Some(_)) => {
            return Err("the body names its template itself (`gcsPath`); leave --template out".to_owned());
        }
        (None, None) => {
            return Err("this body does not say which template is launched (the request's query does): give --template gs://…".to_owned());
        }
    }
    Ok(())
}

/// `flexTemplates:launch`. `launch`: the launch parameter in `body`.
pub(super) fn flex(
    plan: &mut Plan,
    by: By,
    line: u32,
    (project, region): (&str, &str),
    launch: &Map<String, Value>,
    body: Value,
) {
    let url = format!(
        "{HOST}/v1b3/projects/{}/locations/{}/flexTemplates:launch",
        encoded(project),
        encoded(region)
    );
    let mut request = Implied::new("launch a flexible template", by, "POST", url).with(body).at(line);
    if let Some(template) = text(launch, "containerSpecGcsPath") {
        request = request.naming("template", template);
    } else if member(launch, "containerSpec").is_some() {
        request = request.naming("template", "written out in containerSpec");
    }
    say(&mut request, launch);
    plan.requests.push(request);
    beside(plan, line, launch);
}

/// `templates:launch`, or `templates` where the body names the template.
pub(super) fn classic(
    plan: &mut Plan,
    by: By,
    line: u32,
    (project, region): (&str, &str),
    (template, in_body): (&str, bool),
    launch: &Map<String, Value>,
    body: Value,
) {
    let base = format!("{HOST}/v1b3/projects/{}/locations/{}/templates", encoded(project), encoded(region));
    let url = if in_body { base } else { format!("{base}:launch?gcsPath={}", encoded(template)) };
    let mut request = Implied::new("launch a classic template", by, "POST", url)
        .with(body)
        .at(line)
        .naming("template", template);
    say(&mut request, launch);
    plan.requests.push(request);
    beside(plan, line, launch);
}

/// A job is cancelled or drained.
pub(super) fn stop(
    plan: &mut Plan,
    by: By,
    line: u32,
    (project, region): (&str, &str),
    job: &str,
    drain: bool,
) {
    let (what, state) =
        if drain { ("drain a job", "JOB_STATE_DRAINED") } else { ("cancel a job", "JOB_STATE_CANCELLED") };
    let url = format!(
        "{HOST}/v1b3/projects/{}/locations/{}/jobs/{}",
        encoded(project),
        encoded(region),
        encoded(job)
    );
    let request = Implied::new(what, by, "PUT", url).with(json!({"requestedState": state})).at(line);
    plan.requests.push(request.naming("job", job));
}

fn say(request: &mut Implied, launch: &Map<String, Value>) {
    let empty = Map::new();
    let environment = member(launch, "environment").and_then(Value::as_object).unwrap_or(&empty);
    let stated = [
        ("jobName", text(launch, "jobName")),
        ("runAs", text(environment, "serviceAccountEmail")),
        ("temp", text(environment, "tempLocation")),
        ("staging", text(environment, "stagingLocation")),
        ("workerImage", text(environment, "sdkContainerImage")),
    ];
    let stated = stated.into_iter().filter_map(|(role, name)| Some((role.to_owned(), name?.to_owned())));
    request.names.extend(stated);
}

/// What the workers do, as far as parameters and places say it.
fn beside(plan: &mut Plan, line: u32, launch: &Map<String, Value>) {
    let environment = member(launch, "environment").and_then(Value::as_object);
    for (role, name) in [("temp", "tempLocation"), ("staging", "stagingLocation")] {
        if let Some(place) = environment.and_then(|environment| text(environment, name)) {
            folder(plan, line, role, place);
        }
    }
    let Some(Value::Object(parameters)) = member(launch, "parameters") else { return };
    for (name, value) in parameters {
        match value {
            Value::String(value) => parameter(plan, line, name, value),
            _ => plan.not_understood(line, name, "a parameter is a string"),
        }
    }
}

/// Workers put files into a folder.
fn folder(plan: &mut Plan, line: u32, role: &str, place: &str) {
    match place.strip_prefix("gs://").map(|rest| rest.split_once('/').unwrap_or((rest, ""))) {
        Some((bucket, folder)) if !bucket.is_empty() => {
            let folder = folder.trim_end_matches('/');
            let file = if folder.is_empty() { "preflight".to_owned() } else { format!("{folder}/preflight") };
            let request = upload(By::Workers, bucket, &file, line);
            plan.requests.push(Implied { what: format!("put a file into the {role} folder"), ..request });
        }
        _ => plan.not_understood(line, place, format!("the {role} folder is not in Cloud Storage")),
    }
}

/// An object is written.
pub(super) fn upload(by: By, bucket: &str, name: &str, line: u32) -> Implied {
    let url = format!(
        "https://storage.googleapis.com/upload/storage/v1/b/{}/o?uploadType=media&name={}",
        encoded(bucket),
        encoded(name)
    );
    let mut request = Implied::new("write an object", by, "POST", url)
        .naming("object", &format!("gs://{bucket}/{name}"))
        .at(line);
    request.headers.push(("content-type".to_owned(), "application/octet-stream".to_owned()));
    request.unknown_body = true;
    request
}

/// An object is read.
pub(super) fn download(by: By, bucket: &str, name: &str, line: u32) -> Implied {
    let url = format!(
        "https://storage.googleapis.com/storage/v1/b/{}/o/{}?alt=media",
        encoded(bucket),
        encoded(name)
    );
    Implied::new("read an object", by, "GET", url).naming("object", &format!("gs://{bucket}/{name}")).at(line)
}

/// A message is published.
pub(super) fn publish(by: By, topic: &str, line: u32) -> Implied {
    let url = format!("https://pubsub.googleapis.com/v1/{topic}:publish");
    let body = json!({"messages": [{"data": ""}]});
    Implied::new("publish", by, "POST", url).with(body).naming("topic", topic).at(line)
}

/// What a parameter's name says that its value is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

fn way(name: &str) -> Option<Way> {
    let name = name.to_ascii_lowercase().replace(['_', '-', '.'], "");
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    match (
        has(&["input", "source", "read"]),
        has(&["output", "sink", "write", "destination", "deadletter", "dlq"]),
    ) {
        (true, false) => Some(Way::In),
        (false, true) => Some(Way::Out),
        _ => None,
    }
}

/// A parameter that names a topic, subscription, table or object.
fn parameter(plan: &mut Plan, line: u32, name: &str, value: &str) {
    let written = format!("{name}={value}");
    let way = way(name);
    let unclear = "whether it is read or written is not said by the parameter's name";
    let pieces: Vec<&str> = value.split('/').collect();
    match (pieces.as_slice(), way) {
        (["projects", _, "topics", _], Some(Way::Out)) => {
            plan.requests.push(publish(By::Workers, value, line));
        }
        (["projects", _, "topics", _], Some(Way::In)) => plan.not_understood(
            line,
            &written,
            "the workers make a subscription of the topic, whose name they choose",
        ),
        (["projects", _, "topics", _], None) => plan.not_understood(line, &written, unclear),
        (["projects", _, "subscriptions", _], Some(Way::In) | None) => {
            let url = format!("https://pubsub.googleapis.com/v1/{value}:pull");
            let body = json!({"maxMessages": 1});
            plan.requests.push(
                Implied::new("pull", By::Workers, "POST", url)
                    .with(body)
                    .naming("subscription", value)
                    .at(line),
            );
        }
        (["gs:", "", _, _, ..], _) if value.contains(['*', '?', '[', '{']) => {
            plan.not_understood(line, &written, "which objects a pattern stands for is not known");
        }
        (["gs:", "", _, ..], Some(way)) => match (object(value), way) {
            (Some((bucket, object)), Way::In) => {
                plan.requests.push(download(By::Workers, bucket, object, line))
            }
            (Some((bucket, object)), Way::Out) => {
                // What Beam writes begins with this, and goes on with the number of the shard.
                plan.requests.push(upload(By::Workers, bucket, object, line));
            }
            (None, _) => plan.not_understood(line, &written, "it names a bucket and no object"),
        },
        (["gs:", "", ..], None) => plan.not_understood(line, &written, unclear),
        _ => match (table(value), way) {
            (Some(table), Some(way)) => {
                plan.requests.push(table_request(By::Workers, &table, way == Way::Out, line))
            }
            (Some(_), None) => plan.not_understood(line, &written, unclear),
            (None, _) => {}
        },
    }
}

/// Project, dataset and table of `project:dataset.table` or `project.dataset.table`.
pub(super) fn table(text: &str) -> Option<[String; 3]> {
    let is_name = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    };
    let (project, rest) = text.split_once(':').or_else(|| text.split_once('.'))?;
    let (dataset, table) = rest.split_once('.')?;
    // Hosts and files have dots as well; ids of projects have 6 letters or more, and datasets no hyphen.
    let fits = is_name(project)
        && project.len() >= 4
        && is_name(dataset)
        && !dataset.contains('-')
        && is_name(table);
    fits.then(|| [project, dataset, table].map(str::to_owned))
}

fn table_request(by: By, [project, dataset, table]: &[String; 3], write: bool, line: u32) -> Implied {
    let base = format!(
        "https://bigquery.googleapis.com/bigquery/v2/projects/{project}/datasets/{dataset}/tables/{table}"
    );
    let request = match write {
        true => Implied::new("insert rows", by, "POST", format!("{base}/insertAll"))
            .with(json!({"rows": [{"json": {}}]})),
        false => Implied::new("read rows", by, "GET", format!("{base}/data")),
    };
    request.naming("table", &format!("projects/{project}/datasets/{dataset}/tables/{table}")).at(line)
}
