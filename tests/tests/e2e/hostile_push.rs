//! A control plane that lies to a real Envoy: what is not signed, not new, or damaged is refused, and the Bundle that is
//! enforced stays.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use http::Method;
use prost::Message as _;
use tidegate::bundle::sha256;
use tidegate::demo::client::{Call, Endpoint, Protocol};
use tidegate::demo::envoy::{Envoy, EnvoyOptions, EnvoyRelease, find_envoy};
use tidegate::demo::mesh::{CONTROL_PLANE, Cluster, HttpListener, Listener, Node, ProxyConfig, WasmFilter};
use tidegate::demo::upstream::Upstream;
use tidegate::plugin_config::{ControlPlane, PluginConfig};
use tidegate::serve::Options;
use tidegate_proto::v1::subscribe_request::Message as Up;
use tidegate_proto::v1::subscribe_response::Message as Down;
use tidegate_proto::v1::{self as pb, NackReason};
use tidegate_tests::hostile::Hostile;

const AUTHORITY: &str = "tidegate.tidegate-system.svc";

/// Anybody may GET this path.
fn rules(path: &str) -> String {
    format!(
        "
kind: Mesh
metadata: {{name: mesh}}
spec:
  trustDomain: prod.example
  rootNamespace: istio-system
  workloads: [{{namespace: sales, name: orders-api, serviceAccount: orders-api}}, {{namespace: sales, name: other, serviceAccount: other}}]
---
kind: Guard
metadata: {{name: sales, namespace: sales}}
spec: {{mode: Enforce, audience: x}}
---
kind: AccessRule
metadata: {{name: probes, namespace: sales}}
spec:
  owner: team
  effect: Allow
  mode: Enforce
  from: [{{anyone: true}}]
  to: [{{http: {{methods: [GET], paths: [\"{path}\"]}}}}]
"
    )
}

/// Bundles that an honest control plane signed, one after the other, and whom to trust.
async fn honest_bundles(
    paths: &[&str],
) -> Result<(Vec<pb::Bundle>, pb::Bundle, Vec<tidegate::bundle::TrustedKey>)> {
    let folder = tempfile::tempdir()?;
    let rules_folder = folder.path().join("rules");
    std::fs::create_dir(&rules_folder)?;
    std::fs::write(rules_folder.join("rules.yaml"), rules(paths[0]))?;
    let loopback = "127.0.0.1:0".parse()?;
    let mut server = tidegate::serve::start(Options {
        rules: rules_folder.clone().into(),
        candidate: None,
        state: folder.path().join("state"),
        listen: loopback,
        admin: loopback,
        modules: None,
        secrets: None,
        directory: None,
        directories: tidegate::directories::Options::default(),
        environment: None,
        issuer_ca: vec![],
        allow_issuer_loopback: false,
        allow_issuer_networks: vec![],
        decisions: Default::default(),
        transport: tidegate::transport::TransportOptions::insecure(),
        export: None,
    })
    .await?;
    server.ready().await?;
    let mut bundles: Vec<pb::Bundle> = Vec::new();
    let begin = Instant::now();
    for path in paths {
        std::fs::write(rules_folder.join("rules.yaml"), rules(path))?;
        loop {
            let bundle = server.bundle("sales/orders-api").context("there is a Bundle")?;
            let bundle = pb::Bundle::decode(bundle.as_slice())?;
            if bundle
                .sections
                .iter()
                .any(|section| contains(&section.content, path.trim_matches('/').as_bytes()))
            {
                bundles.push(bundle);
                break;
            }
            ensure!(begin.elapsed() < Duration::from_secs(30), "the rules for {path} are not on offer");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let other = server.bundle("sales/other").context("there is another Bundle")?;
    let keys = server.trusted_keys.clone();
    server.shutdown().await?;
    Ok((bundles, pb::Bundle::decode(other.as_slice())?, keys))
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

fn messages(nonce: u64, bundle: &pb::Bundle) -> Vec<pb::SubscribeResponse> {
    let wrap = |message| pb::SubscribeResponse { message: Some(message) };
    let manifest = bundle.manifest.clone().unwrap_or_default();
    // Chunks carry the digest that the manifest names, whatever the content is.
    let named = pb::Manifest::decode(manifest.manifest.as_slice())
        .map(|manifest| manifest.sections)
        .unwrap_or_default();
    let mut all = vec![wrap(Down::Push(pb::Push { nonce, manifest: Some(manifest), chunk_bytes: 1 }))];
    for (position, section) in bundle.sections.iter().enumerate() {
        let digest = named
            .get(position)
            .map_or_else(|| sha256(&section.content).to_vec(), |named| named.sha256.clone());
        all.push(wrap(Down::Chunk(pb::SectionChunk {
            sha256: digest,
            offset: 0,
            content: section.content.clone().into(),
        })));
    }
    all
}

/// Waits until every VM has answered this push.
async fn answers(hostile: &Hostile, nonce: u64, vms: usize) -> Result<Vec<Option<NackReason>>> {
    let begin = Instant::now();
    let mut answers = Vec::new();
    while answers.len() < vms {
        ensure!(
            begin.elapsed() < Duration::from_secs(20),
            "push {nonce}: {} of {vms} answers: {answers:?}",
            answers.len()
        );
        for message in hostile.received() {
            match message {
                Up::Ack(ack) if ack.nonce == nonce => answers.push(None),
                Up::Nack(nack) if nack.nonce == nonce => answers.push(Some(nack.reason())),
                _ => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(answers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lying_control_plane_changes_nothing() -> Result<()> {
    let (bundles, other, keys) = honest_bundles(&["/first", "/second", "/third", "/fourth"]).await?;
    let [first, second, third, fourth] = bundles.as_slice() else { bail!("four Bundles") };
    let hostile = Hostile::start().await?;
    hostile.greet_with(messages(1, second));

    let folder = tempfile::tempdir()?;
    let module = folder.path().join("filter.wasm");
    std::fs::write(&module, tidegate::FILTER_WASM)?;
    let upstream = Upstream::start().await?;
    let mut config = PluginConfig::new("sales/orders-api", keys);
    config.control_plane = Some(ControlPlane { cluster: CONTROL_PLANE.into(), authority: AUTHORITY.into() });
    let filter = WasmFilter::tidegate(&module, &serde_json::to_value(config)?);
    let proxy = ProxyConfig::new(Node::new("sales", "orders-api", "orders-api"))
        .listener(Listener::http("plain", HttpListener::forward_to("upstream").filter(filter)))
        .cluster(Cluster::new("upstream", upstream.address()))
        .control_plane(hostile.address);
    let binary = find_envoy(EnvoyRelease::Current, None).await?;
    let options = EnvoyOptions { concurrency: 1, ..EnvoyOptions::default() };
    let envoy = Envoy::start(&binary, "hostile", &proxy.to_json(), &options).await?;
    let endpoint = Endpoint::plain(envoy.address("plain")?);
    let status = async |path: &str| -> Result<u16> {
        let call = Call::new(Method::GET, path).authority("orders.sales.example");
        Ok(endpoint.call(Protocol::Http1, call).await?.status.as_u16())
    };
    // The worker and the main thread.
    let vms = 2;
    ensure!(answers(&hostile, 1, vms).await? == [None, None], "the first push is acknowledged");
    ensure!(status("/second").await? == 200 && status("/first").await? == 403);
    ensure!(
        hostile.authorities().iter().all(|authority| authority == AUTHORITY),
        "{:?}",
        hostile.authorities()
    );

    let manifest = |change: &dyn Fn(&mut pb::SignedManifest)| {
        let mut bundle = third.clone();
        change(bundle.manifest.as_mut().expect("there is a manifest"));
        bundle
    };
    let tampered = |change: &dyn Fn(&mut pb::Manifest)| {
        manifest(&|signed| {
            let mut manifest = pb::Manifest::decode(signed.manifest.as_slice()).expect("it decodes");
            change(&mut manifest);
            signed.manifest = manifest.encode_to_vec();
        })
    };
    let mut damaged = third.clone();
    damaged.sections[0].content[40] ^= 1;
    let mut swapped = third.clone();
    swapped.sections[0].content = first.sections[0].content.clone();
    let cases: Vec<(&str, pb::Bundle, NackReason)> = vec![
        ("unsigned", manifest(&|signed| signed.signatures.clear()), NackReason::BadSignature),
        (
            "a damaged signature",
            manifest(&|signed| signed.signatures[0].signature[9] ^= 1),
            NackReason::BadSignature,
        ),
        (
            "an unknown key",
            manifest(&|signed| signed.signatures[0].key_id = "other".into()),
            NackReason::BadSignature,
        ),
        (
            "a changed revision",
            tampered(&|manifest| manifest.revision = Some(pb::Revision { epoch: u64::MAX, counter: 1 })),
            NackReason::BadSignature,
        ),
        (
            "a statement that nothing is guarded",
            tampered(&|manifest| manifest.coverage = pb::Coverage::Unguarded.into()),
            NackReason::BadSignature,
        ),
        ("an older one", first.clone(), NackReason::StaleRevision),
        ("another workload's", other, NackReason::WrongAudience),
        ("a damaged section", damaged, NackReason::DigestMismatch),
        ("another section", swapped, NackReason::Malformed),
    ];
    for (position, (name, bundle, expected)) in cases.iter().enumerate() {
        let nonce = u64::try_from(position)? + 10;
        for message in messages(nonce, bundle) {
            hostile.send(message);
        }
        let answers = answers(&hostile, nonce, vms).await.with_context(|| (*name).to_owned())?;
        // A section of the same length is found out by its digest, one of another length before that.
        let fits = |answer: &Option<NackReason>| {
            *answer == Some(*expected)
                || (*name == "another section"
                    && matches!(answer, Some(NackReason::DigestMismatch | NackReason::Malformed)))
        };
        ensure!(answers.iter().all(fits), "{name}: {answers:?}, expected {expected:?}");
        ensure!(status("/second").await? == 200, "{name}: what was enforced stays");
        ensure!(status("/third").await? == 403 && status("/first").await? == 403, "{name}: nothing else is");
    }
    println!("{} lies refused by {vms} VMs", cases.len());

    // The same again is acknowledged, something newer is installed, and then the middle one is old.
    for (nonce, bundle, expected) in
        [(50, second, None), (51, fourth, None), (52, third, Some(NackReason::StaleRevision))]
    {
        for message in messages(nonce, bundle) {
            hostile.send(message);
        }
        let answers = answers(&hostile, nonce, vms).await?;
        ensure!(answers.iter().all(|answer| *answer == expected), "push {nonce}: {answers:?}");
    }
    ensure!(status("/fourth").await? == 200 && status("/second").await? == 403);
    Ok(())
}
