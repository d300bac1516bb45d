//! What somebody revokes by the control plane's admin interface ends at once: open streams, and tokens that are remembered.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::{Value, json};
use tidegate::demo::client::{Call, Protocol};
use tidegate_tests::corpus::spiffe_id;
use tidegate_tests::rig::Rig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::leases::{Speaks, declared, ended, token};

/// How much later than it should something may end here. (What it takes is printed.)
const TOLERANCE: Duration = Duration::from_secs(5);

/// A Caller that the rules name, beside those that they name by what they are.
const CALLER: &str = "
kind: Caller
metadata: {name: worker, namespace: data}
spec: {anyOf: [{peer: {namespace: etl, serviceAccounts: [orders-worker]}}]}
";

async fn admin(rig: &Rig, method: &str, path: &str, body: &str) -> Result<Value> {
    let address = rig.server.as_ref().context("the control plane is down")?.admin_addr;
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: \
         {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{method} {path}: {answer}");
    Ok(serde_json::from_str(body)?)
}

/// A request of the worker: its status, and what is said.
async fn once(rig: &Rig, token: &str) -> Result<(u16, String)> {
    let call = Call::new(Method::GET, "/v1/reset/orders").authority("orders.sales.example").bearer(token);
    let answer = rig.service_as(&spiffe_id("etl/orders-worker"))?.call(Protocol::Http2, call).await?;
    Ok((answer.status.as_u16(), String::from_utf8_lossy(&answer.body).into_owned()))
}

/// A subject, then a Caller.
pub async fn what_is_revoked_by_hand_ends_at_once(rig: &Rig) -> Result<()> {
    rig.apply(&format!("{}---{CALLER}", declared(rig))).await?;
    for what in ["a subject", "a Caller"] {
        for speaks in Speaks::ALL {
            let subject = format!("by hand {what} {speaks:?}");
            let (revoked, other) = (token(rig, 300, &subject)?, token(rig, 300, "somebody else")?);
            // Warm from here on.
            ensure!(once(rig, &revoked).await?.0 == 200 && once(rig, &other).await?.0 == 200);
            let before = rig.upstream.requests();
            let stream = speaks.begin(rig, speaks.stream("keep", &revoked))?;
            rig.wait("the stream to reach the application", || {
                Ok((rig.upstream.requests() == before).then(|| "it has not".to_owned()))
            })
            .await?;
            tokio::time::sleep(Duration::from_millis(300)).await;
            ensure!(!stream.is_finished(), "{what}: ended too early");
            let (target, status, reason) = match what {
                "a subject" => {
                    (json!({"kind": "subject", "issuer": "leasing", "id": subject}), 401, "token_revoked")
                }
                _ => (json!({"kind": "caller", "name": "data/worker"}), 403, "denied_by_rule"),
            };
            let asked = json!({"target": target, "seconds": 600, "reason": "a test"}).to_string();
            let begun = Instant::now();
            let entry = admin(rig, "POST", "/control/revocations", &asked).await?;
            let answered = begun.elapsed();
            let refused = loop {
                let (now, said) = once(rig, &revoked).await?;
                if now != 200 {
                    ensure!(now == status && said.contains(reason), "{what}: answered {now}: {said}");
                    break begun.elapsed();
                }
                ensure!(begun.elapsed() < TOLERANCE, "{what}: still allowed");
            };
            let went = ended(stream, what).await?;
            ensure!(went.status == 200, "{what}: answered {}", went.status);
            let heard = went.heard_at.saturating_duration_since(begun);
            ensure!(heard < TOLERANCE, "{what}: heard of {heard:?} later");
            println!(
                "{speaks:?}: {what} revoked: answered after {answered:?}, a warm token refused after {refused:?}, the open stream \
                 heard of last after {heard:?}"
            );
            if what == "a subject" {
                ensure!(once(rig, &other).await?.0 == 200, "others are not revoked");
            }
            let id = entry["id"].as_str().context("no id")?;
            admin(rig, "DELETE", &format!("/control/entries/{id}"), "").await?;
            while once(rig, &revoked).await?.0 != 200 {
                ensure!(begun.elapsed() < TOLERANCE * 2, "{what}: still refused after it was lifted");
            }
        }
    }
    Ok(())
}
