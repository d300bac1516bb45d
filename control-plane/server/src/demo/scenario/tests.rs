use std::process::Command;

use super::*;

/// One mesh for all of it: starting it takes longer than any part.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_decided_as_it_has_to_be_and_every_command_works() {
    let binary = find_envoy(EnvoyRelease::Current, None).await.unwrap();
    let mut world = World::start(&binary, &WorldOptions::default()).await.unwrap();

    let rows = rows(&world).unwrap();
    assert!(rows.len() >= 16, "{}", rows.len());
    let sent = send_all(&world, rows).await.unwrap();
    let shown = table(&sent, false);
    let faults: Vec<&String> = sent.iter().flat_map(|sent| &sent.outcome.faults).collect();
    assert!(faults.is_empty(), "{shown}");
    // The head, a line per request, and a line for the Shadow rule.
    assert_eq!(shown.lines().count(), 1 + sent.len() + 1, "{shown}");
    assert_eq!(shadow_differences(&world, 1).await.unwrap(), 1);

    let told = look_up(&world, &sent).await.unwrap();
    for said in ["tidegate explain ", "DELETE", "no_allow_matched", "sales/orders-etl-writes-orders"] {
        assert!(told.contains(said), "{said}: {told}");
    }

    let times = edit_a_rule(&world).await.unwrap();
    assert!(times.allowed_after > Duration::ZERO && times.refused_after > Duration::ZERO, "{times:?}");

    for (what, command) in commands(&world).unwrap() {
        let run = move || Command::new("sh").args(["-c", &command]).output().map(|output| (command, output));
        let (command, output) = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{command}: {output:?}");
        let expected = match what {
            _ if what.ends_with("allowed") => " 200",
            _ if what.ends_with("refused") => "problem+json",
            _ => "sales/orders-api",
        };
        assert!(said.contains(expected), "{what}: {command}: {said}");
    }

    // Without the control plane filters enforce what they have; with it back, the next edit is enforced.
    world.stop_control_plane().await.unwrap();
    let row = self::rows(&world).unwrap().swap_remove(0);
    let answer = world.endpoint(row.way).unwrap().call(row.protocol, row.call).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    world.restart_control_plane().await.unwrap();
    edit_a_rule(&world).await.unwrap();
    world.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_expectation_is_told() {
    let binary = find_envoy(EnvoyRelease::Current, None).await.unwrap();
    let world = World::start(&binary, &WorldOptions::default()).await.unwrap();
    let mut rows = rows(&world).unwrap();
    rows.truncate(1);
    rows[0].expected = Expected { reason: tidegate_engine::Reason::NoAllowMatched, rule: None, shadow: None };
    let sent = send_all(&world, rows).await.unwrap();
    let shown = table(&sent, false);
    assert!(shown.contains("NOT AS EXPECTED: status is 200, must be 403"), "{shown}");
    assert!(shown.contains("NOT AS EXPECTED: requests at the application is 1, must be 0"), "{shown}");
}
