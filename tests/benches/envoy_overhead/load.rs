//! The load: `wrk` on its own core.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use tokio::process::Command;

use super::machine::LOAD_CORE;
use super::rules::HOST;
use super::scenarios::{self, Scenario};

/// Headers of every request besides host and token. With what Envoy adds, and with pseudo headers, eleven.
pub const HEADERS: [(&str, &str); 4] = [
    ("user-agent", "orders-etl/2.7 (python 3.12)"),
    ("accept", "application/json"),
    ("accept-encoding", "gzip, deflate"),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
];

/// Prints what was counted as one line of JSON.
const DONE: &str = r#"
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\nRESULT {"requests":%d,"duration_us":%d,"statuses":%d,"broken":%d,"p50_us":%.0f,"p99_us":%.0f}\n',
    summary.requests, summary.duration, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"#;

/// Every request has the next token. Arguments: file with one token per line, and which one is the first.
const CYCLE: &str = r#"
local all, count, at = {}, 0, 0
init = function(args)
  for token in io.lines(args[1]) do
    wrk.headers["authorization"] = "Bearer " .. token
    all[count] = wrk.format()
    count = count + 1
  end
  at = tonumber(args[2])
end
request = function()
  at = at + 1
  return all[at % count]
end
"#;

/// Every request has a path that none had before. Arguments as for [`CYCLE`].
const UNLIKE: &str = r#"
local folder, at = "", 0
init = function(args)
  folder = wrk.path:match("^(.*/)")
  at = tonumber(args[2])
end
request = function()
  at = at + 1
  return wrk.format(nil, folder .. at)
end
"#;

/// The load of one scenario.
#[derive(Debug)]
pub struct Load {
    url: String,
    script: PathBuf,
    tokens: PathBuf,
    /// The token, where it is always the same.
    token: Option<String>,
    expects_success: bool,
}

/// How much and how long.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    /// Connections.
    pub connections: u32,
    /// Seconds.
    pub seconds: u32,
    /// The first request has this token, where tokens differ.
    pub first: u64,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Counted {
    /// Answers.
    pub requests: u64,
    /// Microseconds.
    pub duration_us: u64,
    /// Answers with a status of 400 and more.
    statuses: u64,
    /// Connections and requests that went wrong.
    pub broken: u64,
    /// Median latency, microseconds.
    pub p50_us: f64,
    /// 99th percentile, microseconds.
    pub p99_us: f64,
}

// === impl Load ===

impl Load {
    /// Writes what `wrk` needs into `folder`.
    pub fn prepare(
        scenario: &Scenario,
        address: SocketAddr,
        tokens: &[String],
        folder: &Path,
    ) -> Result<Self> {
        let token = match tokens {
            [only] => Some(only.clone()),
            _ => None,
        };
        let script = folder.join(format!("{}.lua", scenario.name));
        let listed = folder.join(format!("{}.tokens", scenario.name));
        let requests = match scenario.load {
            scenarios::Load::Unlike => UNLIKE,
            _ if token.is_some() => "",
            _ => CYCLE,
        };
        std::fs::write(&script, [DONE, requests].concat())?;
        std::fs::write(&listed, tokens.join("\n"))?;
        let url = format!("http://{address}{}", scenario.path());
        Ok(Self { url, script, tokens: listed, token, expects_success: scenario.status() < 400 })
    }

    /// Sends requests. Fails when any was answered with another status than it should be.
    pub async fn run(&self, amount: Amount) -> Result<Counted> {
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", LOAD_CORE, "wrk", "--threads", "1", "--latency"]);
        command.args(["--connections", &amount.connections.to_string()]);
        command.args(["--duration", &format!("{}s", amount.seconds), "--timeout", "5s"]);
        command.arg("--script").arg(&self.script);
        let mut header = |name: &str, value: &str| {
            command.args(["--header", &format!("{name}: {value}")]);
        };
        header("Host", HOST);
        for (name, value) in HEADERS {
            header(name, value);
        }
        if let Some(token) = &self.token {
            header("authorization", &format!("Bearer {token}"));
        }
        command.args([&self.url, "--"]).arg(&self.tokens).arg(amount.first.to_string());
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find_map(|line| line.strip_prefix("RESULT "));
        let line = line.with_context(|| {
            format!("wrk ended with {}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr))
        })?;
        let counted: Counted = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let wrong = if self.expects_success { counted.statuses } else { counted.requests - counted.statuses };
        ensure!(counted.requests > 0, "no request was answered");
        ensure!(wrong == 0, "{wrong} of {} answers had another status than expected", counted.requests);
        Ok(counted)
    }
}
