//! Everything on a real Envoy: one mesh for all of it, one after the other.

use anyhow::Result;
use tidegate::demo::envoy::EnvoyRelease;
use tidegate_tests::corpus::Suite;
use tidegate_tests::rig::{Rig, Setup};

const CORPUS: [(&str, &str); 1] = [("main.yaml", include_str!("../corpus/main.yaml"))];

fn setup(release: EnvoyRelease) -> Setup {
    Setup { release, concurrency: 1, limits: None }
}

async fn corpus(rig: &Rig) -> Result<()> {
    for (name, text) in CORPUS {
        let tally = Suite::parse(text)?.run(rig).await?;
        println!("{name}: {} allowed, {} refused", tally.allowed, tally.denied);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_corpus_on_the_newest_envoy() -> Result<()> {
    let rig = Rig::start(setup(EnvoyRelease::Current)).await?;
    corpus(&rig).await
}
