//! The jobs of CI systems, as their YAML states them, and a service that they call.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};
use std::thread::JoinHandle;

use serde::Deserialize;

use super::client::recipes;

/// What the Tekton recipe uses of `tekton.dev/v1` and the Kubernetes API. Unknown members are errors, so that a misspelt
/// one is none that the API server drops.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Object<S> {
    pub api_version: String,
    pub kind: String,
    pub metadata: Metadata,
    pub spec: S,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ServiceAccount {
    pub api_version: String,
    pub kind: String,
    pub metadata: Metadata,
    pub automount_service_account_token: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Metadata {
    pub name: Option<String>,
    pub generate_name: Option<String>,
    pub namespace: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Task {
    pub params: Vec<Param>,
    pub volumes: Vec<Volume>,
    pub steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TaskRun {
    pub service_account_name: String,
    pub task_ref: Named,
    pub params: Vec<Variable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Param {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    pub name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variable {
    pub name: String,
    pub value: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    pub name: String,
    pub projected: Projected,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Projected {
    pub sources: Vec<Source>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Source {
    pub service_account_token: ServiceAccountToken,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ServiceAccountToken {
    pub audience: String,
    pub expiration_seconds: i64,
    pub path: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Step {
    pub name: String,
    pub image: String,
    pub env: Vec<Variable>,
    pub volume_mounts: Vec<Mount>,
    pub script: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Mount {
    pub name: String,
    pub mount_path: String,
    pub read_only: bool,
}

/// What the GitLab recipe uses of a job.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    pub stage: String,
    pub image: Image,
    pub timeout: String,
    pub environment: String,
    pub rules: Vec<BTreeMap<String, String>>,
    pub id_tokens: BTreeMap<String, IdToken>,
    pub variables: BTreeMap<String, String>,
    pub script: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    pub name: String,
    pub entrypoint: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdToken {
    pub aud: String,
}

pub fn tekton() -> (ServiceAccount, Object<Task>, Object<TaskRun>) {
    let text = std::fs::read_to_string(recipes().join("tekton/task.yaml")).unwrap();
    let documents: Vec<&str> = text.split("\n---\n").collect();
    let [account, task, run] = documents[..] else { panic!("{} documents", documents.len()) };
    (
        serde_saphyr::from_str(account).unwrap(),
        serde_saphyr::from_str(task).unwrap(),
        serde_saphyr::from_str(run).unwrap(),
    )
}

pub fn gitlab() -> BTreeMap<String, Job> {
    let text = std::fs::read_to_string(recipes().join("gitlab/gitlab-ci.yml")).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

/// A service that takes one request and answers it with this status and body.
pub struct Service {
    pub address: SocketAddr,
    request: JoinHandle<String>,
}

impl Service {
    pub fn start(status: u16, body: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let request = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert_ne!(reader.read_line(&mut head).unwrap(), 0, "the request ends early: {head}");
            }
            let length = head
                .lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            let mut content = vec![0; length.unwrap_or(0)];
            reader.read_exact(&mut content).unwrap();
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            )
            .unwrap();
            head + &String::from_utf8(content).unwrap()
        });
        Self { address, request }
    }

    /// The request that came: head and body.
    pub fn request(self) -> String {
        self.request.join().unwrap()
    }
}

/// Runs a script as the CI systems do: a shell, these variables, nothing else.
pub fn run(script: &str, environment: &[(&str, &str)]) -> Output {
    let path = std::env::var_os("PATH").unwrap();
    Command::new("sh")
        .args(["-e", "-c", script])
        .env_clear()
        .env("PATH", path)
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}
