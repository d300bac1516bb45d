use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tidegate_compiler::TektonKind;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::super::kubernetes::tests::run_of;
use super::super::testing::{ClusterApi, GoogleApi, event, pod};
use super::super::{ApiOptions, ClusterOptions, GoogleOptions, Queries};
use super::*;

/// Longer than anything takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(30);
const JOB: &str = "dataflow/acme/europe-west4/orders";
const PIPELINE: &str = "tekton/prod/ci/pipeline/release";

fn job() -> DirectoryQuery {
    let [project, region, name] = ["acme", "europe-west4", "orders"].map(str::to_owned);
    DirectoryQuery::DataflowJob { project, region, name }
}

fn pipeline() -> DirectoryQuery {
    let [issuer, namespace, name] = ["prod", "ci", "release"].map(str::to_owned);
    DirectoryQuery::TektonRun { issuer, namespace, kind: TektonKind::Pipeline, name }
}

fn options(google: &GoogleApi, cluster: Option<&ClusterApi>) -> Options {
    let url = || google.url.clone();
    let api = |cluster: &ClusterApi| ApiOptions { url: cluster.url.clone(), token: None, ca: None };
    let cluster = cluster.map(|cluster| ClusterOptions { issuer: "prod".into(), api: Some(api(cluster)) });
    Options {
        // Whatever happens sooner happens for another reason.
        every: Duration::from_secs(3_600),
        fresh_for: Duration::from_secs(4 * 3_600),
        google: GoogleOptions { dataflow: url(), compute: url(), metadata: url() },
        clusters: cluster.into_iter().collect(),
    }
}

/// A running reader of directories.
struct Reader {
    hub: Arc<Hub>,
    folder: tempfile::TempDir,
    task: JoinHandle<Result<(), JoinError>>,
}

impl Reader {
    fn start(options: &Options, queries: &[DirectoryQuery]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), options, queries)
    }

    fn start_in(folder: tempfile::TempDir, options: &Options, queries: &[DirectoryQuery]) -> Self {
        Self::start_with(folder, options, Sources::new(options).unwrap(), queries)
    }

    fn start_with(
        folder: tempfile::TempDir,
        options: &Options,
        sources: Sources,
        queries: &[DirectoryQuery],
    ) -> Self {
        let state = Arc::new(StateDir::open(folder.path()).unwrap());
        let index = Index::new(options.fresh_for);
        restore(&index, &state).unwrap();
        let hub = Arc::new(Hub::new(index));
        let task = tokio::spawn(keep(hub.clone(), sources, state));
        let reader = Self { hub, folder, task };
        reader.set(queries);
        reader
    }

    fn set(&self, queries: &[DirectoryQuery]) {
        let queries: Queries = queries.iter().map(|query| (query.to_string(), query.clone())).collect();
        self.hub.directories.set_queries(Arc::new(queries));
    }

    /// Waits until the directory lists exactly these.
    async fn lists(&self, name: &str, ids: &[&str]) {
        let wanted: Ids = ids.iter().map(|id| id.to_string()).collect();
        let mut offered = self.hub.directories.offered();
        let is_listed = |directories: &Arc<Directories>| {
            directories.listings.get(name).is_some_and(|listing| *listing.ids == wanted)
        };
        if timeout(PATIENCE, offered.wait_for(is_listed)).await.is_err() {
            panic!("{name} never lists {ids:?}: {:#?}", self.hub.directories.report(0));
        }
    }

    /// Waits until the directory has an error that says this.
    async fn fails(&self, name: &str, why: &str) {
        let said = async {
            loop {
                let reports = self.hub.directories.report(0).into_iter();
                let error = reports.filter(|report| report.name == name).find_map(|report| report.error);
                if error.is_some_and(|error| error.contains(why)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if timeout(PATIENCE, said).await.is_err() {
            panic!("{name} never says {why}: {:#?}", self.hub.directories.report(0));
        }
    }

    async fn stop(self) -> tempfile::TempDir {
        self.hub.stop();
        timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
        self.folder
    }
}

async fn google() -> GoogleApi {
    let google = GoogleApi::start().await;
    google.state().job("2026-11-21_01", "orders", "JOB_STATE_RUNNING");
    google.state().instance("11", "2026-11-21_01", "RUNNING");
    google
}

#[tokio::test]
async fn directories_that_rules_name_are_read_and_no_others() {
    let google = google().await;
    let reader = Reader::start(&options(&google, None), &[]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(google.state().asked.len(), 0);
    reader.set(&[job()]);
    reader.lists(JOB, &["11"]).await;
    reader.set(&[]);
    reader.hub.directories.set_file(BTreeMap::from([(JOB.to_owned(), Ids::new())]));
    reader.set(&[job()]);
    reader.lists(JOB, &[]).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(google.count("/v1b3/"), 1, "the file stands for it");
    reader.stop().await;
}

#[tokio::test]
async fn who_asks_for_a_new_machine_has_it_read_at_once() {
    let google = google().await;
    let reader = Reader::start(&options(&google, None), &[job()]);
    reader.lists(JOB, &["11"]).await;
    google.state().instance("12", "2026-11-21_01", "STAGING");
    use super::super::Looked;
    let looked = |id: &'static str| timeout(PATIENCE, reader.hub.directories.refreshed("a/a", JOB, id));
    assert_eq!(looked("12").await, Ok(Looked::Listed));
    assert_eq!(looked("13").await, Ok(Looked::Unlisted));
    reader.lists(JOB, &["11", "12"]).await;
    assert_eq!(google.count("/v1b3/"), 3);
    reader.stop().await;
}

#[tokio::test]
async fn a_failure_keeps_what_is_known_and_is_retried_soon() {
    let google = google().await;
    let reader = Reader::start(&options(&google, None), &[job()]);
    reader.lists(JOB, &["11"]).await;
    google.state().instead.insert("/compute/", (503, "<html>".to_owned()));
    google.state().instances.clear();
    let looked = timeout(PATIENCE, reader.hub.directories.refreshed("a/a", JOB, "12")).await;
    assert_eq!(looked, Ok(super::super::Looked::Unlisted));
    reader.fails(JOB, "503").await;
    reader.lists(JOB, &["11"]).await;
    google.state().instead.clear();
    reader.lists(JOB, &[]).await;
    assert_eq!(reader.hub.directories.report(0)[0].error, None);
    let text = reader.hub.metrics.text();
    assert!(text.contains(r#"tidegate_directory_reads_total{reason="ok"} 2"#), "{text}");
    assert!(text.contains(&format!(r#"tidegate_directory_ids{{directory="{JOB}"}} 0"#)), "{text}");
    reader.stop().await;
}

#[tokio::test]
async fn a_restart_goes_on_with_what_was_known() {
    let google = google().await;
    let options = options(&google, None);
    let reader = Reader::start(&options, &[job()]);
    reader.lists(JOB, &["11"]).await;
    let is_written = async || {
        while !reader.folder.path().join(FILE).exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, is_written()).await.unwrap();
    let folder = reader.stop().await;
    google.state().instead.insert("/", (500, String::new()));
    let reader = Reader::start_in(folder, &options, &[job()]);
    reader.lists(JOB, &["11"]).await;
    reader.fails(JOB, "500").await;
    reader.lists(JOB, &["11"]).await;
    reader.stop().await;
}

#[tokio::test]
async fn pods_are_followed_by_a_watch_and_listed_anew_after_a_gap() {
    let (google, cluster) = (google().await, ClusterApi::start().await);
    let labels = json!({"tekton.dev/pipeline": "release"});
    cluster.state().pods = vec![pod("a", &labels)];
    let watch = cluster.hold_watch();
    let reader = Reader::start(&options(&google, Some(&cluster)), &[pipeline(), job()]);
    reader.lists(PIPELINE, &["a"]).await;
    watch.send(event("ADDED", 101, pod("b", &labels))).unwrap();
    reader.lists(PIPELINE, &["a", "b"]).await;
    watch.send(event("DELETED", 102, pod("a", &labels))).unwrap();
    reader.lists(PIPELINE, &["b"]).await;
    // What the watch said is gone with the list that follows the gap.
    cluster.state().pods = vec![pod("c", &labels)];
    watch.send("{}\n".to_owned()).unwrap();
    reader.lists(PIPELINE, &["c"]).await;
    reader.lists(JOB, &["11"]).await;
    let lists = cluster.state().asked.iter().filter(|asked| !asked.query.contains_key("watch")).count();
    assert_eq!(lists, 2);
    // A watch is open and says nothing; who asks does not wait for it.
    cluster.state().pods.push(pod("d", &labels));
    let looked = timeout(PATIENCE, reader.hub.directories.refreshed("a/a", PIPELINE, "d")).await;
    assert_eq!(looked, Ok(super::super::Looked::Listed));
    reader.stop().await;
}

#[tokio::test]
async fn runs_are_known_of_all_pods_where_they_may_be_listed_and_of_those_in_directories_where_not() {
    let of_run = |run: &str| json!({"tekton.dev/taskRun": "r", "tekton.dev/pipelineRun": run, "tekton.dev/pipeline": "release"});
    for everywhere in [true, false] {
        let (google, cluster) = (google().await, ClusterApi::start().await);
        cluster.state().everywhere = everywhere;
        cluster.state().pods = vec![pod("a", &of_run("release-1"))];
        // Nobody names the pipeline.
        let reader = Reader::start(&options(&google, Some(&cluster)), &[]);
        let runs = reader.hub.decisions.pods().clone();
        let knows = async {
            while run_of(&runs, "prod", "a").is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if everywhere {
            timeout(PATIENCE, knows).await.unwrap();
            assert_eq!(run_of(&runs, "prod", "a").as_deref(), Some("release-1"));
        } else {
            assert!(timeout(Duration::from_millis(300), knows).await.is_err());
            reader.set(&[pipeline()]);
            reader.lists(PIPELINE, &["a"]).await;
            assert_eq!(run_of(&runs, "prod", "a").as_deref(), Some("release-1"));
        }
        reader.stop().await;
    }
}

/// How often pods were listed, and watched.
fn asked(cluster: &ClusterApi) -> (usize, usize) {
    let state = cluster.state();
    let watches = state.asked.iter().filter(|asked| asked.query.contains_key("watch")).count();
    (state.asked.len() - watches, watches)
}

#[tokio::test]
async fn watches_that_end_at_once_are_opened_ever_less_often_and_after_a_list() {
    let (google, cluster) = (google().await, ClusterApi::start().await);
    cluster.state().watches = vec![(Vec::new(), true); 10_000].into();
    let reader = Reader::start(&options(&google, Some(&cluster)), &[pipeline()]);
    reader.fails(PIPELINE, "the watch ended after 0 s").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let (lists, watches) = asked(&cluster);
    // At 0 s, 1 s, 3 s, and 7 s.
    assert!((2..=3).contains(&watches) && lists == watches, "{lists} lists, {watches} watches");
    reader.stop().await;
}

#[tokio::test]
async fn pods_are_listed_anew_from_time_to_time() {
    let (google, cluster) = (google().await, ClusterApi::start().await);
    let options = options(&google, Some(&cluster));
    let sources = Sources { watched_for: Duration::from_millis(200), ..Sources::new(&options).unwrap() };
    let reader = Reader::start_with(tempfile::tempdir().unwrap(), &options, sources, &[pipeline()]);
    reader.lists(PIPELINE, &[]).await;
    // No watch ever says so.
    cluster.state().pods = vec![pod("a", &json!({"tekton.dev/pipeline": "release"}))];
    reader.lists(PIPELINE, &["a"]).await;
    reader.stop().await;
}

#[tokio::test]
async fn a_cluster_that_nobody_knows_is_named_with_the_remedy() {
    let google = google().await;
    let reader = Reader::start(&options(&google, None), &[pipeline()]);
    reader.fails(PIPELINE, "--tekton-cluster prod").await;
    let offered = reader.hub.directories.offered().borrow().clone();
    assert!(offered.pending.is_empty() && offered.listings.is_empty(), "{offered:?}");
    reader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_reading_that_takes_too_long_is_given_up() {
    let error = in_time(std::future::pending::<Result<Ids, ReadError>>()).await.unwrap_err();
    assert_eq!(error.to_string(), "no whole answer within 20 s");
}

#[tokio::test]
async fn options_that_cannot_work_are_refused() {
    let google = google().await;
    let good = options(&google, None);
    let cluster = |url: &str| ClusterOptions {
        issuer: "prod".into(),
        api: Some(ApiOptions { url: url.into(), token: None, ca: None }),
    };
    let short = Options { fresh_for: good.every * 3, ..good.clone() };
    let plain = Options {
        google: GoogleOptions { compute: "http://compute.example".into(), ..good.google.clone() },
        ..good.clone()
    };
    let twice = Options { clusters: vec![cluster("https://a"), cluster("https://b")], ..good.clone() };
    let missing = ApiOptions { url: "https://a".into(), token: None, ca: Some("/nowhere/ca.crt".into()) };
    let missing = ClusterOptions { issuer: "prod".into(), api: Some(missing) };
    let missing = Options { clusters: vec![missing], ..good.clone() };
    for (options, why) in [
        (short, "at least four times"),
        (plain, "https only"),
        (twice, "given twice"),
        (missing, "/nowhere/ca.crt"),
    ] {
        let error = Sources::new(&options).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    Sources::new(&good).unwrap();
}
