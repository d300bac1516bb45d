//! `control-plane/docs/telemetry.md` says what is exported, and README how.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tidegate::export::attributes::TABLE;
use tidegate::metrics::Metrics;

use crate::fixture::PATIENCE;
use crate::otlp::Receiver;

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/telemetry.md")
}

#[test]
fn every_attribute_is_documented() {
    let (begin, end) = ("<!-- attributes -->\n", "<!-- /attributes -->");
    let text = std::fs::read_to_string(page()).unwrap();
    let (before, rest) = text.split_once(begin).unwrap();
    let (there, after) = rest.split_once(end).unwrap();
    let mut wanted = "| attribute | says |\n| --- | --- |\n".to_owned();
    for (name, _, says) in TABLE {
        wanted.push_str(&format!("| `{name}` | {says} |\n"));
    }
    if std::env::var_os("TIDEGATE_BLESS").is_some() {
        std::fs::write(page(), format!("{before}{begin}{wanted}{end}{after}")).unwrap();
        return;
    }
    assert_eq!(there, wanted, "TIDEGATE_BLESS=1 cargo test -p tidegate --test server telemetry");
}

#[test]
fn every_metric_of_the_control_plane_is_documented_and_says_what_it_is() {
    let text = std::fs::read_to_string(page()).unwrap();
    let metrics = Metrics::default().text();
    let (mut seen, mut kinds) = (0, std::collections::BTreeMap::new());
    for line in metrics.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            kinds.insert(name.to_owned(), kind.to_owned());
        }
    }
    for line in metrics.lines() {
        let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        seen += 1;
        let is_counter = kinds.get(name).is_some_and(|kind| kind == "counter");
        let name = if is_counter { format!("{name}_total") } else { name.to_owned() };
        assert!(text.contains(&format!("`{name}`")), "{name} is not in telemetry.md");
        assert!(help.len() > 10, "{name}: {help}");
        // Base units, and no unit that is not one (Prometheus, "Metric and label naming").
        for unit in ["_milliseconds", "_ms", "_kilobytes", "_minutes", "_percent"] {
            assert!(!name.ends_with(unit), "{name}");
        }
        assert!(!name.ends_with("_total_total") && !name.contains("__"), "{name}");
    }
    assert!(seen > 10, "{metrics}");
}

/// What README writes: its first rules, and the command by which they are served and exported, word for word but for addresses.
#[tokio::test]
async fn the_command_of_the_readme_reaches_a_collector() {
    let readme = include_str!("../../../../README.md");
    let rules = readme.split("```yaml\n").nth(1).and_then(|block| block.split("```").next()).unwrap();
    let command =
        readme.lines().find(|line| line.starts_with("tidegate serve") && line.contains("--otlp-endpoint"));
    let command = command.unwrap().split('#').next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("rules")).unwrap();
    std::fs::write(folder.path().join("rules/orders.yaml"), rules).unwrap();
    let receiver = Receiver::start().await.unwrap();
    let arguments = command
        .split_whitespace()
        .skip(1)
        .map(|word| word.replace("http://127.0.0.1:4317", &format!("http://{}", receiver.grpc)));
    let _serve = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(arguments)
        // At another port than 4317 it is said.
        .args(["--otlp-protocol", "grpc", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .env("OTEL_METRIC_EXPORT_INTERVAL", "200")
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let arrived =
        receiver.until(PATIENCE, |taken| taken.figure("tidegate.workloads", &[]) == Some(1.0)).await;
    let taken = receiver.taken();
    assert!(arrived, "{} requests came: {:?}", taken.requests, taken.metrics);
}
