//! The workers of Dataflow jobs.
//!
//! Two links, and both must hold: the Dataflow API says which job of this name runs
//! (`projects.locations.jobs.list?filter=ACTIVE`), the Compute Engine API which machines carry its id
//! (`instances.aggregatedList?filter=labels.goog-dataflow-job-id=ID`). Workers may be in another region than their job
//! (`worker_region`), so a machine's zone says nothing. Who may set labels of instances in the project can add a machine;
//! nothing in these APIs tells.
//!
//! INVARIANT: all pages or an error; an answer in which a location did not respond is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap};
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::credentials::MetadataServer;
use super::http::{ReadError, SourceError, base, below, client, get, json, system_roots};
use super::{GoogleOptions, Ids};

/// For one page.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Most pages of one answer.
const MAX_PAGES: usize = 200;
/// Most ids of one directory. A job has at most 4 000 workers.
const MAX_IDS: usize = 20_000;
const JOB_LABEL: &str = "goog-dataflow-job-id";

/// States of a job that has workers or is about to. The others are final, or nothing of the job runs any more.
const RUNNING: [&str; 5] = [
    "JOB_STATE_PENDING",
    "JOB_STATE_QUEUED",
    "JOB_STATE_RUNNING",
    "JOB_STATE_DRAINING",
    "JOB_STATE_CANCELLING",
];
/// States of a machine that can send a request, or will.
const ALIVE: [&str; 3] = ["PROVISIONING", "STAGING", "RUNNING"];

/// Reads Google's APIs.
#[derive(Debug)]
pub(super) struct Google {
    client: Client,
    dataflow: Url,
    compute: Url,
    credentials: MetadataServer,
}

/// `ListJobsResponse`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JobsPage {
    #[serde(default)]
    jobs: Vec<Job>,
    #[serde(default)]
    failed_location: Vec<FailedLocation>,
    next_page_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Job {
    id: String,
    name: String,
    project_id: String,
    location: String,
    current_state: String,
}

#[derive(Deserialize)]
struct FailedLocation {
    #[serde(default)]
    name: String,
}

/// `InstanceAggregatedList`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InstancesPage {
    #[serde(default)]
    items: BTreeMap<String, Scope>,
    #[serde(default)]
    unreachables: Vec<String>,
    warning: Option<Warning>,
    next_page_token: Option<String>,
}

/// One zone.
#[derive(Deserialize)]
struct Scope {
    #[serde(default)]
    instances: Vec<Instance>,
    warning: Option<Warning>,
}

#[derive(Deserialize)]
struct Instance {
    id: String,
    status: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Warning {
    code: String,
}

trait Page: DeserializeOwned {
    fn next(&mut self) -> Option<String>;
}

// === impl Google ===

impl Google {
    pub(super) fn new(options: &GoogleOptions) -> Result<Self, SourceError> {
        let client = client(system_roots())?;
        Ok(Self {
            dataflow: base(&options.dataflow)?,
            compute: base(&options.compute)?,
            credentials: MetadataServer::new(client.clone(), &options.metadata)?,
            client,
        })
    }

    /// The instance ids of the workers of every job of this name that runs there; at most one does, unless it is just
    /// being replaced.
    pub(super) async fn workers(&self, project: &str, region: &str, name: &str) -> Result<Ids, ReadError> {
        let mut ids = Ids::new();
        for job in self.jobs(project, region, name).await? {
            self.instances(project, &job, &mut ids).await?;
        }
        Ok(ids)
    }

    async fn jobs(&self, project: &str, region: &str, name: &str) -> Result<BTreeSet<String>, ReadError> {
        let path = ["v1b3", "projects", project, "locations", region, "jobs"];
        let query = [
            ("filter", "ACTIVE"),
            ("fields", "jobs(id,name,projectId,location,currentState),failedLocation,nextPageToken"),
        ];
        let mut found = BTreeSet::new();
        self.pages(&below(&self.dataflow, &path, &query), |url, page: &mut JobsPage| {
            if let Some(failed) = page.failed_location.first() {
                return Err(ReadError::answer(
                    url,
                    format_args!("location `{}` did not respond", failed.name),
                ));
            }
            for job in page.jobs.drain(..).filter(|job| job.name == name) {
                if job.project_id != project || job.location != region {
                    return Err(ReadError::answer(
                        url,
                        format_args!("a job of `{}` in `{}` was not asked for", job.project_id, job.location),
                    ));
                }
                if !is_job_id(&job.id) {
                    return Err(ReadError::answer(url, format_args!("`{}` is not the id of a job", job.id)));
                }
                if RUNNING.contains(&job.current_state.as_str()) {
                    found.insert(job.id);
                }
            }
            Ok(())
        })
        .await?;
        Ok(found)
    }

    async fn instances(&self, project: &str, job: &str, ids: &mut Ids) -> Result<(), ReadError> {
        let path = ["compute", "v1", "projects", project, "aggregated", "instances"];
        let filter = format!("labels.{JOB_LABEL}={job}");
        let query = [
            ("filter", filter.as_str()),
            ("maxResults", "500"),
            (
                "fields",
                "items/*/instances(id,status,labels),items/*/warning,unreachables,warning,nextPageToken",
            ),
        ];
        self.pages(&below(&self.compute, &path, &query), |url, page: &mut InstancesPage| {
            let zones = page.items.iter();
            let warnings = zones.map(|(zone, scope)| (zone.as_str(), &scope.warning));
            let warnings = warnings.chain([("the project", &page.warning)]);
            let missing =
                warnings.filter(|(_, warning)| warning.as_ref().is_some_and(|it| it.code == "UNREACHABLE"));
            let mut missing =
                missing.map(|(place, _)| place).chain(page.unreachables.iter().map(String::as_str));
            if let Some(place) = missing.next() {
                return Err(ReadError::answer(url, format_args!("{place} did not respond")));
            }
            for instance in page.items.values().flat_map(|zone| &zone.instances) {
                if instance.labels.get(JOB_LABEL).is_none_or(|label| label != job) {
                    let why = format_args!("instance `{}` has not the label that was asked for", instance.id);
                    return Err(ReadError::answer(url, why));
                }
                if instance.id.is_empty() || !instance.id.bytes().all(|byte| byte.is_ascii_digit()) {
                    let why = format_args!("`{}` is not the id of an instance", instance.id);
                    return Err(ReadError::answer(url, why));
                }
                if ALIVE.contains(&instance.status.as_str()) {
                    ids.insert(instance.id.clone());
                }
                if ids.len() > MAX_IDS {
                    return Err(ReadError::answer(url, format_args!("more than {MAX_IDS} instances")));
                }
            }
            Ok(())
        })
        .await
    }

    /// Every page of an answer.
    async fn pages<P: Page>(
        &self,
        first: &Url,
        mut take: impl FnMut(&Url, &mut P) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let mut url = first.clone();
        for _ in 0..MAX_PAGES {
            let mut page: P = self.page(&url).await?;
            take(&url, &mut page)?;
            let Some(token) = page.next().filter(|token| !token.is_empty()) else { return Ok(()) };
            url = below(first, &[], &[("pageToken", &token)]);
        }
        Err(ReadError::answer(first, format_args!("more than {MAX_PAGES} pages")))
    }

    async fn page<P: Page>(&self, url: &Url) -> Result<P, ReadError> {
        let mut refused = None;
        loop {
            let authorization = self.credentials.authorization(refused.as_ref()).await?;
            let headers = HeaderMap::from_iter([(AUTHORIZATION, authorization.clone())]);
            let response = get(&self.client, url, headers, TIMEOUT).await?;
            if response.status() == StatusCode::UNAUTHORIZED && refused.is_none() {
                // Revoked, or another account's since.
                refused = Some(authorization);
                continue;
            }
            return json(url, response).await;
        }
    }
}

// === impl Page ===

impl Page for JobsPage {
    fn next(&mut self) -> Option<String> {
        self.next_page_token.take()
    }
}

impl Page for InstancesPage {
    fn next(&mut self) -> Option<String> {
        self.next_page_token.take()
    }
}

/// Such as `2024-06-19_09_43_07-14927685200167458422`. It becomes part of a filter.
fn is_job_id(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests;
