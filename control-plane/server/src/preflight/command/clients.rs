//! `wget`, `kubectl create`, `kubectl apply` and `tkn pipeline start`.
//!
//! What `kubectl` and `tkn` ask the Kubernetes API about itself before depends on their cache and version. It is said, and not
//! guessed.

use serde_json::{Map, Value, json};

use super::{Commands, Line};
use crate::preflight::shell::Word;
use crate::preflight::{Implied, encoded, tekton};

/// Kinds in a namespace, and what URLs call them.
const KINDS: [(&str, &str, &str); 22] = [
    ("tekton.dev/v1", "PipelineRun", "pipelineruns"),
    ("tekton.dev/v1", "TaskRun", "taskruns"),
    ("tekton.dev/v1", "Pipeline", "pipelines"),
    ("tekton.dev/v1", "Task", "tasks"),
    ("tekton.dev/v1beta1", "PipelineRun", "pipelineruns"),
    ("tekton.dev/v1beta1", "TaskRun", "taskruns"),
    ("tekton.dev/v1beta1", "Pipeline", "pipelines"),
    ("tekton.dev/v1beta1", "Task", "tasks"),
    ("v1", "ConfigMap", "configmaps"),
    ("v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
    ("v1", "Pod", "pods"),
    ("v1", "Secret", "secrets"),
    ("v1", "Service", "services"),
    ("v1", "ServiceAccount", "serviceaccounts"),
    ("apps/v1", "DaemonSet", "daemonsets"),
    ("apps/v1", "Deployment", "deployments"),
    ("apps/v1", "StatefulSet", "statefulsets"),
    ("batch/v1", "CronJob", "cronjobs"),
    ("batch/v1", "Job", "jobs"),
    ("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    ("rbac.authorization.k8s.io/v1", "Role", "roles"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
];

/// What they ask about the API itself.
const DISCOVERY: &str = "what it asks the API server about itself before (GET below /api, /apis and /openapi) depends on its cache, and is not listed";

/// An object, and where it is created.
struct Object {
    document: Value,
    kind: String,
    /// `https://host/apis/GROUP/VERSION/namespaces/NAMESPACE/PLURAL`
    collection: String,
}

// === impl Commands ===

impl Commands<'_> {
    /// As `curl` would send it.
    pub(super) fn wget(&mut self, words: &[Word], line: u32) -> Result<(), String> {
        let word = |text: &str| Word { text: text.to_owned(), unknown: None };
        let mut asked = vec![word("curl")];
        let mut urls = 0;
        let mut rest = words.iter().skip(1);
        while let Some(one) = rest.next() {
            let (name, value) = match one.text.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value)),
                _ => (one.text.as_str(), None),
            };
            let mut value = || match value {
                // What is not known of the flag is not known of its value.
                Some(value) => Ok(Word { text: value.to_owned(), unknown: one.unknown.clone() }),
                None => rest.next().cloned().ok_or_else(|| format!("`{name}` lacks its value")),
            };
            match name {
                "-q" | "-nv" | "-v" | "-S" | "--quiet" | "--no-verbose" | "--verbose"
                | "--server-response" | "--show-progress" | "-nc" | "--no-clobber" | "--content-on-error" => {
                }
                "-O" | "-P" | "-o" | "-a" | "--output-document" | "--directory-prefix" | "--output-file"
                | "-T" | "--timeout" | "-t" | "--tries" => drop(value()?),
                "--header" => asked.extend([word("-H"), value()?]),
                "-U" | "--user-agent" => asked.extend([word("-A"), value()?]),
                "--method" => asked.extend([word("-X"), value()?]),
                "--post-data" | "--body-data" => asked.extend([word("--data-raw"), value()?]),
                // With what follows it in one word: `-O-`, `-qO-`.
                short if short.starts_with("-O") || short.starts_with("-qO") => {
                    if short == "-qO" {
                        value()?;
                    }
                }
                flag if flag.starts_with('-') && flag.len() > 1 => {
                    return Err(format!("what `{flag}` changes about the request is not known"));
                }
                _ if one.text.starts_with(['>', '<']) || one.text.starts_with("2>") => {
                    if one.text.ends_with('>') {
                        rest.next();
                    }
                }
                _ => {
                    urls += 1;
                    asked.push(one.clone());
                }
            }
        }
        if urls != 1 {
            return Err("exactly one URL is understood".to_owned());
        }
        let before = self.plan.requests.len();
        self.curl(&asked, line)?;
        self.plan.requests.iter_mut().skip(before).for_each(|request| request.what = "wget".to_owned());
        Ok(())
    }

    pub(super) fn kubectl(&mut self, words: &[Word], input: Option<&Word>, line: u32) -> Result<(), String> {
        let parsed = kubernetes_line(words)?;
        let all: Vec<&str> = parsed.words.iter().map(String::as_str).collect();
        let applies = match all.as_slice() {
            ["create"] => false,
            ["apply"] => true,
            ["version" | "config", ..] => return Ok(()),
            _ => {
                return Err("of kubectl only `create -f` and `apply -f` are understood".to_owned());
            }
        };
        known(&parsed, &["f", "filename", "n", "namespace", "o", "output"])?;
        let files: Vec<&str> = ["f", "filename"].into_iter().flat_map(|name| parsed.all(name)).collect();
        let [file] = files.as_slice() else { return Err("exactly one `-f` is understood".to_owned()) };
        if *file != "-" {
            return Err(format!(
                "what is in `{file}` is not looked at: give that file to `tidegate preflight`"
            ));
        }
        let input = input.ok_or("what is on its standard input is not known: only a here-document is")?;
        if let Some(unknown) = &input.unknown {
            return Err(format!("what `{unknown}` stands for is not known"));
        }
        let documents: Vec<Value> = serde_saphyr::from_multiple(&input.text)
            .map_err(|error| format!("the here-document is no YAML: {error}"))?;
        let namespace = parsed.flag("namespace").or_else(|| parsed.flag("n"));
        let objects = documents.into_iter().filter(|document| !document.is_null());
        let objects =
            objects.map(|document| self.object(document, namespace)).collect::<Result<Vec<_>, _>>()?;
        let names: Vec<_> = objects.iter().map(|object| object.name().map(str::to_owned)).collect();
        if applies && names.iter().any(Option::is_none) {
            return Err("what is applied needs `metadata.name`".to_owned());
        }
        for (object, name) in objects.into_iter().zip(names) {
            let Object { document, kind, collection } = object;
            let request = if applies {
                let url = format!("{collection}/{}", encoded(name.as_deref().unwrap_or_default()));
                let text = format!("kubectl apply, {kind}");
                let why = "it is created (POST) or changed (PATCH), which depends on whether it is there";
                self.plan.not_understood(line, &text, why);
                Implied::new(&format!("look whether the {kind} is there"), self.by.clone(), "GET", url)
            } else {
                Implied::new(&format!("create the {kind}"), self.by.clone(), "POST", collection)
                    .with(document)
            };
            let request = match &name {
                Some(name) => request.naming("name", name),
                None => request,
            };
            self.plan.requests.push(request.at(line));
        }
        self.plan.not_understood(line, "kubectl", DISCOVERY);
        Ok(())
    }

    /// `tkn pipeline start NAME`
    pub(super) fn tkn(&mut self, words: &[Word], line: u32) -> Result<(), String> {
        let parsed = kubernetes_line(words)?;
        let all: Vec<&str> = parsed.words.iter().map(String::as_str).collect();
        let name = match all.as_slice() {
            ["pipeline" | "pipelines" | "p", "start", name] => *name,
            ["version", ..] => return Ok(()),
            _ => return Err("of tkn only `pipeline start NAME` is understood".to_owned()),
        };
        known(&parsed, &["n", "namespace", "s", "serviceaccount", "p", "param", "prefix-name"])?;
        let namespace = parsed.flag("namespace").or_else(|| parsed.flag("n"));
        let collection = self.collection("tekton.dev/v1", "pipelineruns", namespace, None)?;
        let pipeline = collection.replace("/pipelineruns", &format!("/pipelines/{}", encoded(name)));
        let mut params = Vec::new();
        for param in ["p", "param"].into_iter().flat_map(|flag| parsed.all(flag)) {
            let (name, value) =
                param.split_once('=').ok_or_else(|| format!("the parameter `{param}` has no value"))?;
            if value.contains([',', ':']) {
                return Err(format!("whether `{param}` is a text or a list is for the pipeline to say"));
            }
            params.push(json!({"name": name, "value": value}));
        }
        let mut spec = Map::new();
        spec.insert("pipelineRef".to_owned(), json!({"name": name}));
        if !params.is_empty() {
            spec.insert("params".to_owned(), params.into());
        }
        let account = parsed.flag("serviceaccount").or_else(|| parsed.flag("s"));
        if let Some(account) = account {
            spec.insert("taskRunTemplate".to_owned(), json!({"serviceAccountName": account}));
        }
        let prefix = match parsed.flag("prefix-name") {
            Some(prefix) => format!("{prefix}-"),
            None => format!("{name}-run-"),
        };
        let body = json!({
            "apiVersion": "tekton.dev/v1",
            "kind": "PipelineRun",
            "metadata": {"generateName": prefix},
            "spec": spec,
        });
        let by = self.by.clone();
        self.plan.requests.push(Implied::new("read the Pipeline", by.clone(), "GET", pipeline).at(line));
        let mut request = Implied::new("create the PipelineRun", by, "POST", collection)
            .with(body)
            .naming("generateName", &prefix)
            .naming("pipeline", name);
        if let Some(account) = account {
            request = request.naming("runAs", account);
        }
        self.plan.requests.push(request.at(line));
        self.plan.not_understood(line, "tkn", DISCOVERY);
        let why = "what its steps send is written elsewhere, and it asks for parameters that are not given";
        self.plan.not_understood(line, &format!("pipeline {name}"), why);
        Ok(())
    }

    fn object(&self, document: Value, namespace: Option<&str>) -> Result<Object, String> {
        let at = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
        let (Some(version), Some(kind)) = (at("/apiVersion"), at("/kind")) else {
            return Err("a document has no `apiVersion` or `kind`".to_owned());
        };
        let plural = KINDS.iter().find(|(of, name, _)| *of == version && *name == kind);
        let (_, _, plural) =
            plural.ok_or_else(|| format!("what URLs call a `{kind}` of `{version}` is not known"))?;
        let collection = self.collection(version, plural, namespace, at("/metadata/namespace"))?;
        Ok(Object { kind: kind.to_owned(), collection, document })
    }

    fn collection(
        &self,
        version: &str,
        plural: &str,
        flag: Option<&str>,
        own: Option<&str>,
    ) -> Result<String, String> {
        let namespace = match (flag, own) {
            (Some(flag), Some(own)) if flag != own => {
                return Err(format!(
                    "it names two namespaces, `{flag}` and `{own}`, and is refused for that"
                ));
            }
            (flag, own) => flag.or(own).or(self.namespace.as_deref()),
        };
        let namespace = namespace.ok_or("in which namespace is not said: give --namespace")?;
        let host = self.kubernetes_host.as_deref().unwrap_or(tekton::HOST);
        let base = if version == "v1" { "api" } else { "apis" };
        Ok(format!("https://{host}/{base}/{version}/namespaces/{}/{plural}", encoded(namespace)))
    }
}

/// Words, and flags with their values.
fn kubernetes_line(words: &[Word]) -> Result<Line, String> {
    const SWITCHES: [&str; 2] = ["showlog", "use-param-defaults"];
    let mut line = Line::default();
    let mut rest = words.iter().skip(1).peekable();
    while let Some(word) = rest.next() {
        if word.text.starts_with('>') || word.text.starts_with("2>") {
            if word.text.ends_with('>') {
                rest.next();
            }
            continue;
        }
        // The here-document.
        if word.text == "<<" {
            continue;
        }
        if let Some(unknown) = &word.unknown {
            return Err(format!("what `{unknown}` stands for is not known"));
        }
        let long = word.text.strip_prefix("--");
        let flag = long.or_else(|| word.text.strip_prefix('-')).filter(|flag| !flag.is_empty());
        match flag {
            None => line.words.push(word.text.clone()),
            Some(flag) if SWITCHES.contains(&flag) => drop(line.switches.insert(flag.to_owned())),
            Some(flag) => {
                let (name, value) = match flag.split_once('=') {
                    Some((name, value)) => (name, value.to_owned()),
                    // A switch that is not known, and said so where flags are looked at.
                    None if rest
                        .peek()
                        .is_none_or(|next| next.text.len() > 1 && next.text.starts_with('-')) =>
                    {
                        (flag, String::new())
                    }
                    None => {
                        let value = rest.next().ok_or_else(|| format!("`{}` lacks its value", word.text))?;
                        if let Some(unknown) = &value.unknown {
                            return Err(format!("what `{unknown}` stands for is not known"));
                        }
                        (flag, value.text.clone())
                    }
                };
                line.flags.push((name.to_owned(), value));
            }
        }
    }
    Ok(line)
}

/// No other flags than these.
fn known(line: &Line, known: &[&str]) -> Result<(), String> {
    match line.flags.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        Some((name, _)) => Err(format!("what `--{name}` changes about the request is not known")),
        None => Ok(()),
    }
}

// === impl Object ===

impl Object {
    fn name(&self) -> Option<&str> {
        self.document.pointer("/metadata/name").and_then(Value::as_str)
    }
}
