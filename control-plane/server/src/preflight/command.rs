//! Command lines of scripts: `curl`, and those of `gcloud`, `gsutil`, `bq`, `wget`, `kubectl` and `tkn` that are understood.
//!
//! INVARIANT: a command is understood with all of its flags, or not at all.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::dataflow::{classic, flex, publish, stop};
use super::shell::{self, Simple, Word};
use super::{By, Hints, Implied, Plan};
use crate::explain::curl;

mod clients;
mod storage;

/// Programs that send requests.
pub(super) const CLIENTS: [&str; 10] =
    ["curl", "gcloud", "gsutil", "bq", "kubectl", "tkn", "wget", "http", "https", "grpcurl"];

/// Reads commands one after the other.
pub(super) struct Commands<'p> {
    plan: &'p mut Plan,
    by: By,
    known: BTreeMap<String, String>,
    project: Option<String>,
    region: Option<String>,
    /// Where the Kubernetes API is asked.
    namespace: Option<String>,
    kubernetes_host: Option<String>,
    /// Programs of which it is not known whether they send anything.
    others: BTreeSet<String>,
}

/// A command of `gcloud` and the like: words, flags with values, flags without.
#[derive(Debug, Default)]
struct Line {
    words: Vec<String>,
    flags: Vec<(String, String)>,
    switches: BTreeSet<String>,
}

/// Flags that say nothing about the request.
const ANYWHERE: [&str; 5] = ["format", "verbosity", "configuration", "filter", "log-http"];
const SWITCHES: [&str; 10] = [
    "quiet",
    "q",
    "async",
    "disable-public-ips",
    "enable-streaming-engine",
    "update",
    "no-user-output-enabled",
    "m",
    "r",
    "recursive",
];

// === impl Commands ===

impl<'p> Commands<'p> {
    pub(super) fn new(plan: &'p mut Plan, by: By, hints: &Hints) -> Self {
        let (project, region) = (hints.project.clone(), hints.region.clone());
        // A pod's own, unless it says another.
        let namespace = match &by {
            By::Pod(peer) => Some(peer.namespace.clone()),
            By::Runner | By::Workers => hints.namespace.clone(),
        };
        let kubernetes_host = hints.kubernetes_host.clone();
        let known = BTreeMap::new();
        Self { plan, by, known, project, region, namespace, kubernetes_host, others: BTreeSet::new() }
    }

    /// Variables that are set from outside.
    pub(super) fn set(&mut self, known: Vec<(String, String)>) {
        let known: BTreeMap<String, String> = known.into_iter().collect();
        // A variable may stand in another one.
        let put_in = |value: &String| {
            let mut seen = known.clone();
            let quoted =
                format!("X=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('`', "\\`"));
            seen.remove("X");
            match shell::commands(&quoted, &mut seen) {
                Ok(_) => seen.get("X").cloned(),
                Err(_) => None,
            }
        };
        self.known = known.iter().filter_map(|(name, value)| Some((name.clone(), put_in(value)?))).collect();
    }

    /// `line`: where the script begins; 0: not known.
    pub(super) fn script(&mut self, script: &str, line: u32) {
        let all = match shell::commands(script, &mut self.known) {
            Ok(all) => all,
            Err(why) => return self.plan.not_understood(line, script, why),
        };
        for simple in all {
            let at = match line {
                0 => 0,
                first => first.saturating_add(u32::try_from(simple.line).unwrap_or(u32::MAX)),
            };
            self.simple(&simple, at);
        }
    }

    /// A command whose words are known one by one.
    pub(super) fn words(&mut self, words: &[String], line: u32) {
        let is_shell =
            words.first().is_some_and(|first| matches!(first.rsplit('/').next(), Some("sh" | "bash")));
        if let (true, Some(script)) = (is_shell, words.iter().skip_while(|word| *word != "-c").nth(1)) {
            return self.script(script, line);
        }
        let word = |text: &String| {
            let unknown = text.contains("$(").then(|| text.clone());
            Word { text: text.clone(), unknown }
        };
        self.simple(&Simple { words: words.iter().map(word).collect(), line: 0, input: None }, line);
    }

    /// Something that may stand for commands.
    pub(super) fn not_understood(&mut self, line: u32, text: &str, why: &str) {
        self.plan.not_understood(line, text, why);
    }

    /// Says which programs were not looked at.
    pub(super) fn finish(self) {
        if !self.others.is_empty() {
            let names: Vec<&str> = self.others.iter().map(String::as_str).collect();
            let text = names.join(", ");
            if !self.plan.not_understood.iter().any(|one| one.text == text) {
                self.plan.not_understood(0, &text, "whether these programs send requests is not known");
            }
        }
    }

    fn simple(&mut self, simple: &Simple, line: u32) {
        const HARMLESS: [&str; 22] = [
            "echo", "cd", "set", "true", "false", "test", "[", "[[", "fi", "done", "esac", "}", "mkdir",
            "cat", "ls", "sleep", "exit", "source", ".", "shift", "jq", "printf",
        ];
        // As people paste it.
        let words = match simple.words.as_slice() {
            [prompt, rest @ ..] if prompt.text == "$" => rest,
            all => all,
        };
        let Some(first) = words.first() else { return };
        let program = first.text.rsplit('/').next().unwrap_or_default().to_owned();
        let shown = words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
        if !CLIENTS.contains(&program.as_str()) {
            if !HARMLESS.contains(&program.as_str()) {
                self.others.insert(program);
            }
            return;
        }
        let outcome = match program.as_str() {
            "curl" => self.curl(words, line),
            "gcloud" => self.gcloud(words, line),
            "gsutil" => self.copy(words, line),
            "bq" => self.bq(words, line),
            "wget" => self.wget(words, line),
            "kubectl" => self.kubectl(words, simple.input.as_ref(), line),
            "tkn" => self.tkn(words, line),
            other => Err(format!("command lines of `{other}` are not understood")),
        };
        if let Err(why) = outcome {
            self.plan.not_understood(line, &shown, why);
        }
    }

    fn curl(&mut self, words: &[Word], line: u32) -> Result<(), String> {
        // Tokens come from flags: what they say is not in the text anyway.
        let is_open = |word: &&Word| !is_token_header(&word.text);
        let unknown = words.iter().filter(is_open).find_map(|word| word.unknown.as_ref());
        if let Some(unknown) = unknown {
            return Err(format!("what `{unknown}` stands for is not known"));
        }
        let quoted: Vec<String> =
            words.iter().map(|word| format!("'{}'", word.text.replace('\'', "'\\''"))).collect();
        let curl = curl::parse(&quoted.join(" ").replacen("'curl'", "curl", 1))?;
        let mut request = Implied::new("curl", self.by.clone(), &curl.method, curl.url).at(line);
        let is_known = |(name, _): &(String, String)| !is_token_header(&format!("{name}:"));
        request.headers = curl.headers.into_iter().filter(is_known).collect();
        match curl.data {
            None => {}
            Some(data) => match serde_json::from_str(&data) {
                Ok(body) => request.body = Some(body),
                Err(_) => request.unknown_body = true,
            },
        }
        self.plan.requests.push(request);
        Ok(())
    }

    fn gcloud(&mut self, words: &[Word], line: u32) -> Result<(), String> {
        // What is only set or shown sends nothing that rules are about.
        let plain: Vec<&str> = words
            .iter()
            .skip(1)
            .map(|word| word.text.as_str())
            .filter(|word| !word.starts_with('-'))
            .collect();
        match plain.as_slice() {
            ["config", "set", "project" | "core/project", project, ..] => {
                self.project = Some((*project).to_owned()).filter(|project| !project.contains('$'));
                return Ok(());
            }
            ["config", "set", "dataflow/region", region, ..] => {
                self.region = Some((*region).to_owned()).filter(|region| !region.contains('$'));
                return Ok(());
            }
            ["config" | "version" | "info" | "components" | "auth", ..] => return Ok(()),
            _ => {}
        }
        let parsed = parse(words)?;
        let all: Vec<&str> = parsed.words.iter().map(String::as_str).collect();
        match all.as_slice() {
            ["dataflow", "flex-template", "run", name] => self.flex_run(&parsed, name, line),
            ["dataflow", "jobs", "run", name] => self.classic_run(&parsed, name, line),
            ["dataflow", "jobs", how @ ("cancel" | "drain"), jobs @ ..] if !jobs.is_empty() => {
                let (project, region) = self.place(&parsed)?;
                parsed.only(&["project", "region"])?;
                jobs.iter().for_each(|job| {
                    stop(self.plan, self.by.clone(), line, (&project, &region), job, *how == "drain");
                });
                Ok(())
            }
            ["pubsub", "topics", "publish", topic] => {
                parsed.only(&["project", "message", "attribute", "ordering-key"])?;
                let topic = match topic.contains('/') {
                    true => (*topic).to_owned(),
                    false => format!("projects/{}/topics/{topic}", self.project(&parsed)?),
                };
                self.plan.requests.push(publish(self.by.clone(), &topic, line));
                Ok(())
            }
            ["storage", "cp", ..] => self.cp(&parsed, 2, line),
            _ => Err("this command of gcloud is not understood".to_owned()),
        }
    }

    fn project(&self, line: &Line) -> Result<String, String> {
        let environment = self.known.get("CLOUDSDK_CORE_PROJECT").cloned();
        let project =
            line.flag("project").map(str::to_owned).or(environment).or_else(|| self.project.clone());
        project.ok_or_else(|| "in which project is not said: give --project".to_owned())
    }

    fn place(&self, line: &Line) -> Result<(String, String), String> {
        let region = line.flag("region").map(str::to_owned);
        let region = region
            .or_else(|| self.known.get("CLOUDSDK_DATAFLOW_REGION").cloned())
            .or_else(|| self.region.clone());
        Ok((self.project(line)?, region.ok_or("in which region is not said: give --region")?))
    }

    fn flex_run(&mut self, line: &Line, name: &str, at: u32) -> Result<(), String> {
        let (project, region) = self.place(line)?;
        let environment = line.environment("temp-location")?;
        let mut launch = Map::new();
        launch.insert("jobName".to_owned(), name.into());
        let template =
            line.flag("template-file-gcs-location").ok_or("`--template-file-gcs-location` is missing")?;
        launch.insert("containerSpecGcsPath".to_owned(), template.into());
        line.more(&mut launch, environment)?;
        let body = json!({"launchParameter": launch});
        flex(self.plan, self.by.clone(), at, (&project, &region), &launch, body);
        Ok(())
    }

    fn classic_run(&mut self, line: &Line, name: &str, at: u32) -> Result<(), String> {
        let (project, region) = self.place(line)?;
        // This command calls the temporary folder so.
        let environment = line.environment("staging-location")?;
        let template = line.flag("gcs-location").ok_or("`--gcs-location` is missing")?;
        let mut launch = Map::new();
        launch.insert("jobName".to_owned(), name.into());
        launch.insert("gcsPath".to_owned(), template.into());
        line.more(&mut launch, environment)?;
        let body = Value::Object(launch.clone());
        classic(self.plan, self.by.clone(), at, (&project, &region), (template, true), &launch, body);
        Ok(())
    }
}

/// A header that holds a token.
fn is_token_header(text: &str) -> bool {
    let name = text.split(':').next().filter(|_| text.contains(':')).unwrap_or_default().to_ascii_lowercase();
    !name.contains(char::is_whitespace) && (name.contains("token") || name.contains("authorization"))
}

/// Words and flags. `Err`: something of it is not known.
fn parse(words: &[Word]) -> Result<Line, String> {
    let mut line = Line::default();
    let mut rest = words.iter().skip(1);
    while let Some(word) = rest.next() {
        // Where output goes.
        if word.text.starts_with(['>', '<']) || word.text.starts_with("2>") {
            if word.text.ends_with('>') {
                rest.next();
            }
            continue;
        }
        if let Some(unknown) = &word.unknown {
            return Err(format!("what `{unknown}` stands for is not known"));
        }
        let flag = word
            .text
            .strip_prefix("--")
            .or_else(|| word.text.strip_prefix('-'))
            .filter(|flag| !flag.is_empty());
        let Some(flag) = flag else {
            line.words.push(word.text.clone());
            continue;
        };
        if let Some((name, value)) = flag.split_once('=') {
            line.flags.push((name.to_owned(), value.to_owned()));
        } else if SWITCHES.contains(&flag) || flag.starts_with("nouse_") {
            line.switches.insert(flag.to_owned());
        } else {
            let value = rest.next().ok_or_else(|| format!("`--{flag}` lacks its value"))?;
            if let Some(unknown) = &value.unknown {
                return Err(format!("what `{unknown}` stands for is not known"));
            }
            line.flags.push((flag.to_owned(), value.text.clone()));
        }
    }
    if line.flag("impersonate-service-account").is_some() || line.flag("account").is_some() {
        return Err("it is sent as another account than the job's own".to_owned());
    }
    Ok(line)
}

// === impl Line ===

impl Line {
    fn flag(&self, name: &str) -> Option<&str> {
        self.flags.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Every value of a flag.
    fn all<'l>(&'l self, name: &'l str) -> impl Iterator<Item = &'l str> {
        self.flags.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// No other flags than these.
    fn only(&self, known: &[&str]) -> Result<(), String> {
        let other = self.flags.iter().map(|(name, _)| name.as_str());
        let mut other = other.filter(|name| !known.contains(name) && !ANYWHERE.contains(name));
        other
            .next()
            .map_or(Ok(()), |name| Err(format!("what `--{name}` changes about the request is not known")))
    }

    /// The environment of a launch. `temp`: the flag with the temporary folder.
    fn environment(&self, temp: &str) -> Result<Map<String, Value>, String> {
        let texts = [
            ("service-account-email", "serviceAccountEmail"),
            (temp, "tempLocation"),
            ("staging-location", "stagingLocation"),
            ("worker-machine-type", "machineType"),
            ("network", "network"),
            ("subnetwork", "subnetwork"),
            ("worker-zone", "workerZone"),
            ("worker-region", "workerRegion"),
            ("dataflow-kms-key", "kmsKeyName"),
        ];
        let numbers = [("max-workers", "maxWorkers"), ("num-workers", "numWorkers")];
        let others = [
            "project",
            "region",
            "parameters",
            "template-file-gcs-location",
            "gcs-location",
            "additional-experiments",
        ];
        let known: Vec<&str> = texts.iter().chain(&numbers).map(|(flag, _)| *flag).chain(others).collect();
        self.only(&known)?;
        let mut environment = Map::new();
        for (flag, name) in texts {
            let is_temp_under_another_name = name == "stagingLocation" && flag == temp;
            if let Some(value) = self.flag(flag).filter(|_| !is_temp_under_another_name) {
                environment.insert(name.to_owned(), value.into());
            }
        }
        for (flag, name) in numbers {
            if let Some(value) = self.flag(flag) {
                let number: i64 = value.parse().map_err(|_| format!("`--{flag} {value}` is no number"))?;
                environment.insert(name.to_owned(), number.into());
            }
        }
        if let Some(list) = self.flag("additional-experiments") {
            let list: Vec<&str> = list.split(',').collect();
            environment.insert("additionalExperiments".to_owned(), list.into());
        }
        if self.switches.contains("disable-public-ips") {
            environment.insert("ipConfiguration".to_owned(), "WORKER_IP_PRIVATE".into());
        }
        if self.switches.contains("enable-streaming-engine") {
            environment.insert("enableStreamingEngine".to_owned(), true.into());
        }
        Ok(environment)
    }

    /// Parameters, environment, and whether a running job is replaced.
    fn more(&self, launch: &mut Map<String, Value>, environment: Map<String, Value>) -> Result<(), String> {
        let mut parameters = Map::new();
        for (_, list) in self.flags.iter().filter(|(name, _)| name == "parameters") {
            if list.starts_with('^') {
                return Err("parameters with a separator of their own are not understood".to_owned());
            }
            for part in list.split(',') {
                let (name, value) =
                    part.split_once('=').ok_or_else(|| format!("the parameter `{part}` has no value"))?;
                parameters.insert(name.to_owned(), value.into());
            }
        }
        if !parameters.is_empty() {
            launch.insert("parameters".to_owned(), Value::Object(parameters));
        }
        if !environment.is_empty() {
            launch.insert("environment".to_owned(), Value::Object(environment));
        }
        if self.switches.contains("update") {
            launch.insert("update".to_owned(), true.into());
        }
        Ok(())
    }
}
