//! Follows the pods of all Tekton runs of a cluster, so that records can name the run of whoever called.
//!
//! Rules need none of this, and nothing waits for it. Where it may not list pods of all namespaces, runs are known of those pods
//! only that directories list.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::follow::{Sources, in_time, permission};
use super::http::ReadError;
use super::kubernetes::{Cluster, Pods};
use super::pace::{Pace, jittered};
use crate::push::Hub;

/// Where it does not work, it is tried so often.
const SELDOM: Duration = Duration::from_secs(300);

/// Follows them for good.
pub(super) async fn follow(
    hub: Arc<Hub>,
    sources: Arc<Sources>,
    issuer: String,
    cluster: Arc<Cluster>,
) -> Infallible {
    let mut pods = Pods::of_runs(cluster, hub.decisions.pods().clone());
    let mut pace = Pace::new(SELDOM);
    let mut said: Option<String> = None;
    loop {
        let began = Instant::now();
        let permit = permission(&sources).await;
        let listed = in_time(pods.list()).await;
        drop(permit);
        let ended = match listed {
            Ok(_) => {
                if said.take().is_some() {
                    info!(issuer, "records name the runs of all Tekton pods again");
                }
                watch(&mut pods, &sources).await
            }
            Err(error) => Err(error),
        };
        match ended {
            Ok(()) => continue,
            // Part of the protocol.
            Err(ReadError::Gone { .. }) => {}
            Err(error) => {
                let error = error.to_string();
                if said.as_ref() != Some(&error) {
                    warn!(
                        issuer,
                        "which run a Tekton pod is of is known only where a rule names its pipeline or task: {error}; it takes `list` \
                         and `watch` on pods of all namespaces"
                    );
                    said = Some(error);
                }
            }
        }
        // What went well for long has not failed again and again.
        if began.elapsed() > SELDOM / 2 {
            pace.after_success();
        }
        sleep(pace.after_failure()).await;
    }
}

/// Takes up changes until the pods are to be listed anew.
async fn watch(pods: &mut Pods, sources: &Sources) -> Result<(), ReadError> {
    let until = Instant::now() + jittered(sources.watched_for);
    loop {
        tokio::select! {
            changed = pods.changed(sources.every) => changed?,
            () = tokio::time::sleep_until(until) => return Ok(()),
        }
    }
}
