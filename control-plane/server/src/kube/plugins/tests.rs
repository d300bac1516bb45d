use serde_json::json;
use tidegate_compiler::{Inputs, SourceFile};

use super::super::owned::Live;
use super::*;
use crate::bundle::{Contents, Keyring, Publisher, SectionStore};
use crate::istio::{ModuleDigests, ModuleSource};
use crate::state::StateDir;

const MESH: &str = "
kind: Mesh
metadata: {name: m}
spec: {trustDomain: td, rootNamespace: root, workloads: [{namespace: sales, name: orders, labels: {app: orders}}]}
---
kind: Guard
metadata: {name: g, namespace: sales}
spec: {mode: Enforce, audience: a}
";
const NOW: i64 = 1_800_000_000;

fn rule(name: &str, effect: &str) -> String {
    format!(
        "---\nkind: AccessRule\nmetadata: {{name: {name}, namespace: sales}}\nspec: {{owner: a, effect: {effect}, mode: Enforce, from: \
         [{{peer: {{namespace: etl}}}}], to: [{{http: {{methods: [GET], paths: [/{name}]}}}}]}}\n"
    )
}

/// A control plane.
struct Scene {
    publisher: Publisher,
    attachments: Attachments,
    _state: tempfile::TempDir,
}

fn id() -> WorkloadId {
    WorkloadId { namespace: "sales".into(), name: "orders".into() }
}

impl Scene {
    fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let publisher = Publisher::open(Arc::new(StateDir::open(state.path()).unwrap()), NOW).unwrap();
        let attachments = Self::attachments(state.path(), &publisher);
        Self { publisher, attachments, _state: state }
    }

    fn attachments(state: &std::path::Path, publisher: &Publisher) -> Attachments {
        let digests = ModuleDigests { headers: "a".repeat(64), bodies: "b".repeat(64) };
        let plan = PluginPlan {
            modules: Rollout::only(ModuleSource::served("http://t", digests).unwrap()),
            control_plane: Address { host: "t.svc".into(), port: 1 },
            attach: Attach::Dormant,
            fips: false,
        };
        let folder = tempfile::tempdir().unwrap();
        let secrets = Interlocks::open(&StateDir::open(folder.path()).unwrap()).unwrap();
        assert!(Keyring::peek(state).unwrap().is_some());
        Attachments::new(&plan, IstioVersion::V1_30, publisher.keys().trusted(), secrets)
    }

    /// Publishes these rules, and says what the object is to begin with.
    fn publish(&mut self, rules: &str, live: &Lives, now: i64) -> (Compiled, Option<i64>, Option<Vec<u8>>) {
        let sources = [SourceFile { path: "r".into(), text: format!("{MESH}{rules}") }];
        let compilation =
            tidegate_compiler::compile(&Inputs { sources: &sources, env: BTreeMap::new(), now: None });
        let compiled = compilation.output.unwrap_or_else(|| panic!("{:#?}", compilation.diagnostics));
        let mut store = SectionStore::default();
        let contents = Contents {
            coverage: pb::Coverage::Guarded,
            sections: vec![store.section(pb::SectionKind::Rules, &compiled.workloads[&id()].rules)],
            required_capabilities: vec![],
            used_capabilities: vec![],
            candidate: Vec::new(),
            suspended_until: 0,
        };
        let releases = self.publisher.publish([(id().to_string(), contents)].into(), now).unwrap();
        let again = self.attachments.warm_up(&compiled, (&releases, &Directories::default()), live, now);
        (compiled, again, self.attachments.options.warm_starts.get(&id()).cloned())
    }

    /// What the controller would have written.
    fn written(&mut self, compiled: &Compiled) -> Lives {
        let wanted = self.attachments.wanted(compiled, &Fence::default(), &Lives::new(), true);
        let (key, object) = wanted.objects.into_iter().next().unwrap();
        let mut object = object.to_json();
        object["metadata"]["managedFields"] = json!([{"manager": "tidegate", "operation": "Apply"}]);
        let object = serde_json::from_value(object).unwrap();
        let (_, live) = Live::new(("extensions.istio.io/v1alpha1", EXTENSION), &object).unwrap();
        [(key, Arc::new(live))].into()
    }
}

#[test]
fn what_lets_more_pass_waits_and_what_lets_less_pass_does_not() {
    let mut scene = Scene::new();
    let none = Lives::new();
    let (_, again, first) = scene.publish("", &none, NOW);
    assert!(again.is_none() && first.is_some());
    let (_, again, wider) = scene.publish(&rule("a", "Allow"), &none, NOW + 5);
    assert_eq!((again, &wider), (Some(NOW + 600), &first), "it waits");
    let (_, again, narrower) = scene.publish(&(rule("a", "Allow") + &rule("b", "Deny")), &none, NOW + 6);
    assert!(again.is_none() && narrower != first);
    let (_, _, wider) = scene.publish(&rule("a", "Allow"), &none, NOW + 7);
    assert_eq!(wider, narrower);
    let (_, again, late) = scene.publish(&rule("a", "Allow"), &none, NOW + 700);
    assert!(again.is_none() && late != narrower, "its time has come");
}

#[test]
fn what_is_there_is_taken_over_only_if_filters_would_take_it() {
    let mut scene = Scene::new();
    let (compiled, _, bundle) = scene.publish("", &Lives::new(), NOW);
    let live = scene.written(&compiled);
    // Another process with the same keys: what says the same stays.
    scene.attachments.forget();
    scene.publisher.begin_epoch(9_000_000_000).unwrap();
    let (_, again, kept) = scene.publish("", &live, NOW + 60);
    assert_eq!((again, &kept), (Some(NOW + crate::istio::RENEW_S), &bundle));
    // What says something else does not, though it may be wider: nobody remembers.
    scene.attachments.forget();
    let (_, again, changed) = scene.publish(&rule("a", "Allow"), &live, NOW + 61);
    assert!(again.is_none() && changed != bundle);
    // A day later no filter would install it.
    scene.attachments.forget();
    let (_, again, renewed) = scene.publish("", &live, NOW + 24 * 3600);
    assert!(again.is_none() && renewed.is_some() && renewed != bundle);
    // Signed with keys that are not trusted any more.
    let mut other = Scene::new();
    let (_, again, own) = other.publish("", &live, NOW + 60);
    assert!(again.is_none() && own.is_some() && own != bundle);
}

#[test]
fn without_anything_to_begin_with_there_is_no_object() {
    let mut scene = Scene::new();
    let (compiled, ..) = scene.publish("", &Lives::new(), NOW);
    assert_eq!(scene.attachments.wanted(&compiled, &Fence::default(), &Lives::new(), true).objects.len(), 1);
    scene.attachments.forget();
    let wanted = scene.attachments.wanted(&compiled, &Fence::default(), &Lives::new(), true);
    assert!(wanted.objects.is_empty() && wanted.refused.is_empty());
}

#[test]
fn while_a_change_is_on_its_way_nothing_is_taken_from_filters() {
    let mut scene = Scene::new();
    let (compiled, ..) = scene.publish("", &Lives::new(), NOW);
    let live = scene.written(&compiled);
    // An interlock that a policy may still demand, and a module that reads bodies.
    let (key, there) = live.first_key_value().unwrap();
    let mut there = there.as_ref().clone();
    let secret = scene.attachments.secrets.value(&id());
    there.spec["wasm"]["pluginConfig"]["interlock"] = secret.clone().into();
    there.spec["wasm"]["sha256"] = "b".repeat(64).into();
    let live: Lives = [(key.clone(), Arc::new(there))].into();
    let mut wanted = |is_steady| {
        let wanted = scene.attachments.wanted(&compiled, &Fence::default(), &live, is_steady);
        let wasm = wanted.objects[key].spec["wasm"].clone();
        (wasm["pluginConfig"]["interlock"].clone(), wasm["sha256"].clone(), wanted.is_in_between)
    };
    assert_eq!(wanted(false), (secret.into(), "b".repeat(64).into(), true));
    assert_eq!(wanted(true), (Value::Null, "a".repeat(64).into(), false));
    // Nor is the object, when its workload goes.
    let nobody = Compiled { workloads: BTreeMap::new(), ..compiled.clone() };
    let wanted = scene.attachments.wanted(&nobody, &Fence::default(), &live, false);
    assert_eq!(wanted.objects.len(), 1);
    let wanted = scene.attachments.wanted(&nobody, &Fence::default(), &live, true);
    assert!(wanted.objects.is_empty());
}
