//! A real Prometheus.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate::demo::client::{Call, Endpoint, Protocol};
use tokio::process::{Child, Command};

/// A server that scrapes every second. Dropping it ends it.
pub struct Prometheus {
    address: SocketAddr,
    _child: Child,
    _folder: TempDir,
}

impl Prometheus {
    /// Scrapes these: job, address, path. `None`: it is not installed.
    pub async fn start(targets: &[(&str, SocketAddr, &str)]) -> Result<Option<Self>> {
        let folder = tempfile::tempdir()?;
        let jobs: Vec<Value> = targets
            .iter()
            .map(|(job, address, path)| {
                json!({
                    "job_name": job,
                    "metrics_path": path,
                    "static_configs": [{"targets": [address.to_string()], "labels": {"pod": format!("{job}-0")}}],
                })
            })
            .collect();
        let config =
            json!({"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": jobs});
        std::fs::write(folder.path().join("prometheus.yml"), config.to_string())?;
        // It tells nobody which port it chose: one that is free now, and another one if somebody else was faster.
        for _ in 0..5 {
            let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
            let child = Command::new("prometheus")
                .arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()))
                .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
                .arg(format!("--web.listen-address={address}"))
                .stdout(Stdio::null())
                .stderr(std::fs::File::create(folder.path().join("log"))?)
                .kill_on_drop(true)
                .spawn();
            let Ok(mut child) = child else { return Ok(None) };
            let begin = Instant::now();
            while child.try_wait()?.is_none() {
                if get(address, "/-/ready").await.is_ok() {
                    return Ok(Some(Self { address, _child: child, _folder: folder }));
                }
                if begin.elapsed() > Duration::from_secs(60) {
                    bail!("prometheus does not become ready");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        bail!("prometheus ends: {}", std::fs::read_to_string(folder.path().join("log"))?)
    }

    /// Waits until every target was scraped.
    pub async fn until_scraped(&self) -> Result<()> {
        let begin = Instant::now();
        while self.query("min(up)").await?.first().is_none_or(|(_, up)| *up < 1.0) {
            if begin.elapsed() > Duration::from_secs(60) {
                bail!("not every target is scraped: {:?}", self.query("up").await?);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// What a query gives now: label sets and values.
    pub async fn query(&self, query: &str) -> Result<Vec<(Value, f64)>> {
        let encoded: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let text = get(self.address, &format!("/api/v1/query?query={encoded}")).await?;
        let answer: Value = serde_json::from_str(&text)?;
        let result = answer["data"]["result"].as_array().with_context(|| format!("{query}: {text}"))?;
        let row = |row: &Value| {
            let value = row["value"][1].as_str().and_then(|value| value.parse().ok());
            Ok((row["metric"].clone(), value.with_context(|| format!("{query}: {row}"))?))
        };
        result.iter().map(row).collect()
    }

    /// The sum of what a query gives; 0 where that is nothing.
    pub async fn sum(&self, query: &str) -> Result<f64> {
        Ok(self.query(query).await?.iter().map(|(_, value)| value).sum())
    }
}

async fn get(address: SocketAddr, path: &str) -> Result<String> {
    let call = Call::new(http::Method::GET, path).authority("localhost");
    let answer = Endpoint::plain(address).call(Protocol::Http1, call).await?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    if !answer.status.is_success() {
        bail!("{path}: {}: {text}", answer.status);
    }
    Ok(text)
}
