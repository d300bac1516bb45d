//! A rule is changed on disk: how long until the filter enforces it?

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use http::Method;

use crate::demo::client::{Call, Protocol};
use crate::demo::world::{AUDIENCE, HOST, Way, World, orders_pod};

/// Slower than this is a failure, whatever the machine is busy with.
const LIMIT: Duration = Duration::from_secs(30);

/// What the edit changes: the methods of the first rule.
const NARROW: &str = "methods: [POST]";
const WIDE: &str = "methods: [POST, DELETE]";

/// From the file's being in its place to the first request that is decided by the new rule.
#[derive(Debug, Clone, Copy)]
pub struct EditTimes {
    /// `DELETE` added to the rule's methods.
    pub allowed_after: Duration,
    /// `DELETE` removed again.
    pub refused_after: Duration,
}

/// Adds a method to a rule and removes it again.
pub async fn edit_a_rule(world: &World) -> Result<EditTimes> {
    let token = world.issuers.cluster.pod_token(&orders_pod(), AUDIENCE).sign()?;
    let call = Call::new(Method::DELETE, "/v1/orders/7").authority(HOST).bearer(&token);
    Ok(EditTimes {
        allowed_after: edit(world, &call, (NARROW, WIDE), 403, 200).await?,
        refused_after: edit(world, &call, (WIDE, NARROW), 200, 403).await?,
    })
}

async fn edit(world: &World, call: &Call, change: (&str, &str), before: u16, after: u16) -> Result<Duration> {
    let mut connection = world.endpoint(Way::OrdersWorker)?.connect(Protocol::Http1).await?;
    let first = connection.call(call.clone()).await?.status.as_u16();
    if first != before {
        bail!("before the edit {} {} gets {first}, not {before}", call.method(), call.path());
    }
    world.files.edit_orders(change.0, change.1)?;
    let begun = Instant::now();
    loop {
        let status = connection.call(call.clone()).await?.status.as_u16();
        if status == after {
            return Ok(begun.elapsed());
        }
        if status != before {
            bail!(
                "during the edit {} {} gets {status}, neither {before} nor {after}",
                call.method(),
                call.path()
            );
        }
        if begun.elapsed() > LIMIT {
            bail!(
                "the edited rule was not enforced within {} s; the control plane says: {}",
                LIMIT.as_secs(),
                serde_json::to_value(world.control_plane()?.diagnosis()).unwrap_or_default()
            );
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
