use super::*;

const NOW: i64 = 1_800_000_000;
const JOB: &str = "dataflow/acme/europe-west4/orders";
const WORKLOAD: &str = "sales/orders";
const OTHER: &str = "dataflow/acme/europe-west4/other";

fn query(name: &str) -> DirectoryQuery {
    let [project, region] = ["acme", "europe-west4"].map(str::to_owned);
    DirectoryQuery::DataflowJob { project, region, name: name.to_owned() }
}

fn queries(names: &[&str]) -> Arc<Queries> {
    Arc::new(names.iter().map(|name| (query(name).to_string(), query(name))).collect())
}

fn ids(ids: &[&str]) -> Ids {
    ids.iter().map(|id| id.to_string()).collect()
}

fn index(names: &[&str]) -> Index {
    let index = Index::new(Duration::from_secs(120));
    index.set_queries(queries(names));
    index
}

fn read(index: &Index, name: &str, listed: &[&str], at: i64) {
    let reading = index.begin(name);
    index.end(name, reading, Ok(ids(listed)), at);
}

fn fail(index: &Index, name: &str, at: i64) {
    let reading = index.begin(name);
    index.end(name, reading, Err("down".to_owned()), at);
}

fn offered(index: &Index, name: &str) -> Option<(Ids, Option<i64>)> {
    let directories = index.offered().borrow().clone();
    directories.listings.get(name).map(|listing| ((*listing.ids).clone(), listing.fresh_until))
}

#[test]
fn a_directory_counts_from_when_its_reading_began() {
    let index = index(&["orders"]);
    assert_eq!(offered(&index, JOB), None);
    read(&index, JOB, &["1", "2"], NOW);
    assert_eq!(offered(&index, JOB), Some((ids(&["1", "2"]), Some(NOW + 120))));
    read(&index, "dataflow/unknown", &["1"], NOW);
    assert_eq!(offered(&index, "dataflow/unknown"), None, "nothing names it");
}

#[test]
fn what_is_on_offer_changes_with_the_ids_and_before_half_of_its_time_is_over_and_not_in_between() {
    let index = index(&["orders", "other"]);
    read(&index, JOB, &["1"], NOW);
    read(&index, OTHER, &["9"], NOW + 5);
    let mut offers = index.offered();
    offers.mark_unchanged();
    let mut changes = Vec::new();
    for at in (15..=300).step_by(15) {
        for (name, listed, at) in [(OTHER, "9", NOW + at - 10), (JOB, "1", NOW + at)] {
            read(&index, name, &[listed], at);
            let until = offered(&index, name).unwrap().1.unwrap();
            assert!(until - at > 60, "{name} {at}: more than half of its time is left");
            if offers.has_changed().unwrap() {
                offers.mark_unchanged();
                changes.push(at - NOW);
            }
        }
    }
    assert_eq!(changes, [45, 80, 120, 155, 195, 230, 270], "one push for both");
    // New ids at once, and only of that directory.
    let before = offered(&index, JOB);
    read(&index, OTHER, &["9", "10"], NOW + 301);
    assert_eq!(offered(&index, OTHER), Some((ids(&["10", "9"]), Some(NOW + 421))));
    assert_eq!(offered(&index, JOB), before);
}

#[test]
fn when_its_source_fails_a_directory_stays_as_it_was_and_runs_out() {
    let index = index(&["orders", "other"]);
    read(&index, JOB, &["1"], NOW);
    read(&index, OTHER, &["9"], NOW);
    for at in (15..=300).step_by(15) {
        fail(&index, JOB, NOW + at);
        read(&index, OTHER, &["9"], NOW + at);
        assert_eq!(offered(&index, JOB), Some((ids(&["1"]), Some(NOW + 120))), "{at}");
    }
    let report = |now| index.report(now).into_iter().find(|report| report.name == JOB).unwrap();
    assert!(!report(NOW + 120).stale);
    let stale = report(NOW + 121);
    assert!(stale.stale, "{stale:?}");
    assert_eq!((stale.error.as_deref(), stale.read_at, stale.ids), (Some("down"), Some(NOW), 1));
    read(&index, JOB, &["2"], NOW + 301);
    assert_eq!(offered(&index, JOB), Some((ids(&["2"]), Some(NOW + 421))));
    assert_eq!(report(NOW + 301).error, None);
}

#[test]
fn an_empty_reading_is_a_reading() {
    let index = index(&["orders"]);
    read(&index, JOB, &["1"], NOW);
    read(&index, JOB, &[], NOW + 1);
    assert_eq!(offered(&index, JOB), Some((Ids::new(), Some(NOW + 121))));
}

#[test]
fn a_clock_that_was_set_back_does_not_keep_a_directory_alive() {
    let index = index(&["orders"]);
    read(&index, JOB, &["1"], NOW + 86_400);
    read(&index, JOB, &["1"], NOW);
    assert_eq!(offered(&index, JOB), Some((ids(&["1"]), Some(NOW + 120))));
}

#[test]
fn a_clock_that_was_set_back_keeps_no_other_directory_alive() {
    for listed in ["1", "2"] {
        let index = index(&["orders", "other"]);
        read(&index, JOB, &["1"], NOW + 86_400);
        read(&index, OTHER, &["9"], NOW + 86_400);
        fail(&index, OTHER, NOW);
        read(&index, JOB, &[listed], NOW);
        assert_eq!(offered(&index, OTHER), Some((ids(&["9"]), Some(NOW + 120))), "{listed}");
    }
}

#[test]
fn readings_of_the_future_count_from_the_start_on() {
    let before = index(&["orders"]);
    read(&before, JOB, &["1"], NOW + 86_400);
    let index = Index::new(Duration::from_secs(120));
    index.restore(before.known(), NOW);
    index.set_queries(queries(&["orders"]));
    assert_eq!(offered(&index, JOB), Some((ids(&["1"]), Some(NOW + 120))));
}

#[test]
fn a_file_stands_for_what_it_lists() {
    let index = index(&["orders", "other"]);
    read(&index, JOB, &["1"], NOW);
    index.set_file([(JOB.to_owned(), ids(&["7"]))].into());
    assert_eq!(offered(&index, JOB), Some((ids(&["7"]), None)));
    assert_eq!(index.followed().keys().collect::<Vec<_>>(), [OTHER]);
    read(&index, JOB, &["1"], NOW);
    assert_eq!(offered(&index, JOB), Some((ids(&["7"]), None)), "a reading that was under way");
    let reports = index.report(NOW);
    let seen: Vec<_> = reports.iter().map(|it| (it.name.as_str(), it.source, it.ids, it.stale)).collect();
    assert_eq!(seen, [(JOB, "file", 1, false), (OTHER, "google", 0, true)]);
    index.set_file(BTreeMap::new());
    assert_eq!(offered(&index, JOB), None, "it is to be read anew");
    assert_eq!(index.followed().len(), 2);
}

#[test]
fn what_no_rule_names_is_forgotten_and_what_was_never_read_is_pending() {
    let index = index(&["orders", "other"]);
    let pending = || index.offered().borrow().pending.iter().cloned().collect::<Vec<_>>();
    assert_eq!(pending(), [JOB, OTHER]);
    read(&index, JOB, &["1"], NOW);
    fail(&index, OTHER, NOW);
    assert_eq!(pending(), [""; 0]);
    index.set_queries(queries(&["other"]));
    assert_eq!(offered(&index, JOB), None);
    assert_eq!(*index.offered().borrow().queries, *queries(&["other"]));
    index.set_queries(queries(&["orders", "other"]));
    assert_eq!(pending(), [JOB]);
}

#[test]
fn readings_from_before_the_start_count_as_long_as_they_would_have() {
    let before = index(&["orders", "other"]);
    read(&before, JOB, &["1"], NOW);
    let text = serde_json::to_string(&before.known()).unwrap();
    let index = Index::new(Duration::from_secs(120));
    index.restore(serde_json::from_str(&text).unwrap(), NOW + 60);
    assert_eq!(offered(&index, JOB), None, "nothing names it yet");
    index.set_queries(queries(&["orders", "other"]));
    assert_eq!(offered(&index, JOB), Some((ids(&["1"]), Some(NOW + 120))));
    assert_eq!(index.offered().borrow().pending.iter().collect::<Vec<_>>(), [OTHER]);
}

/// Asks, and polls once.
async fn ask(index: &Arc<Index>, id: &'static str) -> tokio::task::JoinHandle<Looked> {
    ask_for(WORKLOAD, index, id).await
}

async fn ask_for(
    workload: &'static str,
    index: &Arc<Index>,
    id: &'static str,
) -> tokio::task::JoinHandle<Looked> {
    let shared = index.clone();
    let asked = tokio::spawn(async move { shared.refreshed(workload, JOB, id).await });
    tokio::task::yield_now().await;
    asked
}

#[tokio::test(start_paused = true)]
async fn who_asks_is_answered_by_a_reading_that_began_afterwards() {
    let index = Arc::new(index(&["orders"]));
    let before = index.begin(JOB);
    let asked = ask(&index, "2").await;
    index.wanted(JOB).await;
    index.end(JOB, before, Ok(ids(&["1"])), NOW);
    tokio::task::yield_now().await;
    assert!(!asked.is_finished(), "it may have missed what was asked for");
    let after = index.begin(JOB);
    tokio::time::timeout(Duration::from_secs(60), index.wanted(JOB)).await.unwrap_err();
    index.end(JOB, after, Ok(ids(&["1", "2"])), NOW);
    assert_eq!(asked.await.unwrap(), Looked::Listed);
    assert_eq!(index.refreshed(WORKLOAD, JOB, "2").await, Looked::Listed);

    // What a reading or a watch brings early is taken.
    let asked = ask(&index, "3").await;
    index.note(JOB, &Arc::new(ids(&["3"])), NOW);
    assert_eq!(asked.await.unwrap(), Looked::Listed);
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_what_is_not_there_hears_so() {
    let index = Arc::new(index(&["orders"]));
    let asked = ask(&index, "2").await;
    read(&index, JOB, &["1"], NOW);
    assert_eq!(asked.await.unwrap(), Looked::Unlisted);
    let asked = ask(&index, "2").await;
    fail(&index, JOB, NOW);
    assert_eq!(asked.await.unwrap(), Looked::Unlisted);
    let asked = ask(&index, "2").await;
    index.set_queries(queries(&[]));
    assert_eq!(asked.await.unwrap(), Looked::Unknown);
    assert_eq!(index.refreshed(WORKLOAD, JOB, "2").await, Looked::Unknown);
}

#[tokio::test(start_paused = true)]
async fn questions_share_readings_and_readings_are_bounded() {
    let index = Arc::new(index(&["orders"]));
    let mut readings = 0;
    for _ in 0..10 {
        let (first, second) = (ask(&index, "2").await, ask(&index, "3").await);
        if first.is_finished() {
            assert_eq!((first.await.unwrap(), second.await.unwrap()), (Looked::Throttled, Looked::Throttled));
            continue;
        }
        readings += 1;
        read(&index, JOB, &["1"], NOW);
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (Looked::Unlisted, Looked::Unlisted));
    }
    assert_eq!(readings, ASKED_BURST);
    // One that runs already is better than nothing.
    let reading = index.begin(JOB);
    let asked = ask(&index, "2").await;
    index.end(JOB, reading, Ok(ids(&["2"])), NOW);
    assert_eq!(asked.await.unwrap(), Looked::Listed);
    tokio::time::advance(ASKED_EVERY).await;
    let asked = ask(&index, "4").await;
    read(&index, JOB, &["4"], NOW);
    assert_eq!(asked.await.unwrap(), Looked::Listed);
}

/// A workload whose filters invent ids.
#[tokio::test(start_paused = true)]
async fn a_workload_that_asks_without_end_leaves_readings_to_others() {
    let index = Arc::new(index(&["orders"]));
    for _ in 0..100 {
        let asked = ask_for("sales/greedy", &index, "invented").await;
        read(&index, JOB, &["1"], NOW);
        asked.await.unwrap();
    }
    let greedy = ask_for("sales/greedy", &index, "2").await;
    assert!(greedy.is_finished(), "it has used up its share");
    let asked = ask(&index, "2").await;
    assert!(!asked.is_finished(), "somebody else has theirs");
    read(&index, JOB, &["1", "2"], NOW);
    assert_eq!(asked.await.unwrap(), Looked::Listed);
}
