use crate::fixture::*;

const BROKEN: &str = "kind: AccessRule\n  bad: [indentation\n";

#[tokio::test]
async fn a_broken_file_keeps_its_last_good_form_while_others_change() {
    let place = Place::new(&[
        ("mesh.yaml", MESH),
        ("deny.yaml", &rule("deny", "Deny", "/v1/secret")),
        ("allow.yaml", &rule("one", "Allow", "/v1/one")),
    ]);
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    filter.install().await;
    place.write("deny.yaml", BROKEN);
    let broken = |found: &serde_json::Value| found["substituted"] == serde_json::json!(["deny.yaml"]);
    let diagnosis = get_until(&running, "/diagnostics", broken).await;
    assert_eq!(diagnosis["upToDate"], false);
    assert_eq!(diagnosis["findings"][0]["file"], "deny.yaml");
    assert!(diagnosis["findings"][0]["line"].as_u64().unwrap() > 0, "{diagnosis}");
    filter.expect_silence().await;
    place.write("allow.yaml", &rule("two", "Allow", "/v1/two"));
    let second = filter.install().await;
    assert!(second.rules_mention("sales/deny") && second.rules_mention("sales/two"));
    assert!(!second.rules_mention("sales/one"));
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_broken_deny_does_not_disappear_in_a_restart() {
    let place = Place::new(&[
        ("mesh.yaml", MESH),
        ("deny.yaml", &rule("deny", "Deny", "/v1/secret")),
        ("allow.yaml", &rule("one", "Allow", "/v1/one")),
    ]);
    place.start().await.shutdown().await.unwrap();
    place.write("deny.yaml", BROKEN);
    place.write("allow.yaml", &rule("two", "Allow", "/v1/two"));
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    let first = filter.install().await;
    assert!(first.rules_mention("sales/deny") && first.rules_mention("sales/two"));
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_new_broken_file_stops_everything_until_it_is_mended() {
    let place = Place::new(&[("mesh.yaml", MESH), ("allow.yaml", &rule("one", "Allow", "/v1/one"))]);
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    filter.install().await;
    place.write("deny.yaml", BROKEN);
    get_until(&running, "/diagnostics", |found| found["findings"][0]["file"] == "deny.yaml").await;
    place.write("allow.yaml", &rule("two", "Allow", "/v1/two"));
    filter.expect_silence().await;
    assert!(running.is_ready(), "what was accepted is still in force");
    place.write("deny.yaml", &rule("deny", "Deny", "/v1/secret"));
    let second = filter.install().await;
    assert!(second.rules_mention("sales/deny") && second.rules_mention("sales/two"));
    get_until(&running, "/diagnostics", |found| found["upToDate"] == true).await;
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn all_rules_broken_after_a_restart_leaves_those_in_force_that_were() {
    let place = Place::new(&[("mesh.yaml", MESH), ("allow.yaml", &rule("one", "Allow", "/v1/one"))]);
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    let before = filter.install().await;
    running.shutdown().await.unwrap();
    place.write("new.yaml", BROKEN);
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    assert_eq!(filter.install().await.digest(), before.digest());
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_deleted_file_takes_its_rules_with_it() {
    let place = Place::new(&[
        ("mesh.yaml", MESH),
        ("a.yaml", &rule("one", "Allow", "/v1/one")),
        ("b.yaml", &rule("two", "Allow", "/v1/two")),
    ]);
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    filter.install().await;
    place.delete("b.yaml");
    let second = filter.install().await;
    assert!(second.rules_mention("sales/one") && !second.rules_mention("sales/two"));
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_emptied_file_and_an_emptied_folder_delete_nothing() {
    let place = Place::new(&[("mesh.yaml", MESH), ("a.yaml", &rule("one", "Allow", "/v1/one"))]);
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    filter.install().await;
    place.write("a.yaml", "");
    get_until(&running, "/diagnostics", |found| found["findings"][0]["code"] == "TG1003").await;
    place.delete("a.yaml");
    place.delete("mesh.yaml");
    let empty =
        |found: &serde_json::Value| found["error"].as_str().is_some_and(|error| error.contains("no *.yaml"));
    get_until(&running, "/diagnostics", empty).await;
    filter.expect_silence().await;
    place.write("mesh.yaml", MESH);
    place.write("a.yaml", &rule("two", "Allow", "/v1/two"));
    assert!(filter.install().await.rules_mention("sales/two"));
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn broken_rules_at_the_first_start_leave_the_server_up_and_not_ready() {
    let place = Place::new(&[("mesh.yaml", MESH), ("a.yaml", BROKEN)]);
    let running = place.try_start().await.unwrap();
    get_until(&running, "/diagnostics", |found| found["findings"][0]["file"] == "a.yaml").await;
    assert_eq!(get(&running, "/readyz").await.0, 503);
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    assert_eq!(filter.end().await.0, tonic::Code::Unavailable);
    place.write("a.yaml", &rule("one", "Allow", "/v1/one"));
    let mut running = running;
    tokio::time::timeout(PATIENCE, running.ready()).await.unwrap().unwrap();
    assert_eq!(get(&running, "/readyz").await.0, 200);
    running.shutdown().await.unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn a_kubernetes_volume_that_swaps_its_links_is_noticed() {
    let place = Place::new(&[]);
    let volume = |name: &str, rule: &str| {
        let folder = place.rules().join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("mesh.yaml"), MESH).unwrap();
        std::fs::write(folder.join("a.yaml"), rule).unwrap();
        std::os::unix::fs::symlink(name, place.rules().join("..data_tmp")).unwrap();
        std::fs::rename(place.rules().join("..data_tmp"), place.rules().join("..data")).unwrap();
    };
    volume("..1", &rule("one", "Allow", "/v1/one"));
    for file in ["mesh.yaml", "a.yaml"] {
        std::os::unix::fs::symlink(format!("..data/{file}"), place.rules().join(file)).unwrap();
    }
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    filter.install().await;
    volume("..2", &rule("two", "Allow", "/v1/two"));
    assert!(filter.install().await.rules_mention("sales/two"));
    running.shutdown().await.unwrap();
}
