//! A Fencer that keeps what did not change makes exactly what one makes that has just begun.

use std::sync::Arc;

use super::meshes::some_labels;
use super::tokens::{tokens_only, with_issuers};
use super::*;
use tidegate_compiler::fence::Fencer;

const WORKLOADS: usize = 4;

/// One thing that somebody does.
#[derive(Debug, Clone)]
enum Edit {
    Policy(usize, PolicyModel),
    /// The same rules, compiled once more.
    Same(usize),
    Labels(usize, BTreeMap<String, String>),
    Gateway(usize),
    Move(usize, &'static str),
    /// It is gone, or there again.
    Hide(usize),
    Secret(usize, Option<&'static str>),
    Ports(usize, Option<PortProtocol>),
    Domain(&'static str),
    Root(&'static str),
    Istio(IstioVersion),
    Around(Normalization, Aliases),
    Claims(bool),
    Issuers(bool),
    Nothing,
}

/// A mesh, and all that its Fence is made of.
struct Scene {
    whole: Compiled,
    workloads: Vec<(WorkloadId, Workload, Arc<WorkloadPolicy>, bool)>,
    options: FenceOptions,
    around: Surroundings,
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = || 0..WORKLOADS;
    let tokens = (models(), any::<bool>()).prop_map(|(model, audiences)| tokens_only(model, audiences));
    let protocols = vec![None, Some(PortProtocol::Tcp), Some(PortProtocol::Http)];
    let aliases = select(vec![Aliases::Unknown, Aliases::Absent]);
    prop_oneof![
        4 => (at(), prop_oneof![models(), tokens]).prop_map(|(at, model)| Edit::Policy(at, model)),
        1 => at().prop_map(Edit::Same),
        3 => (at(), some_labels()).prop_map(|(at, labels)| Edit::Labels(at, labels)),
        1 => at().prop_map(Edit::Gateway),
        2 => (at(), select(vec!["sales", "ops", "root"])).prop_map(|(at, to)| Edit::Move(at, to)),
        2 => at().prop_map(Edit::Hide),
        2 => (at(), select(vec![None, Some("abc"), Some("a*"), Some("def")])).prop_map(|(at, one)| Edit::Secret(at, one)),
        1 => (at(), select(protocols)).prop_map(|(at, one)| Edit::Ports(at, one)),
        1 => select(vec!["prod.example", "other.example"]).prop_map(Edit::Domain),
        1 => select(vec!["root", "istio-system"]).prop_map(Edit::Root),
        1 => select(IstioVersion::ALL.to_vec()).prop_map(Edit::Istio),
        1 => (normalization(), aliases).prop_map(|(paths, aliases)| Edit::Around(paths, aliases)),
        1 => any::<bool>().prop_map(Edit::Claims),
        1 => any::<bool>().prop_map(Edit::Issuers),
        1 => Just(Edit::Nothing),
    ]
}

fn policy_of(model: &PolicyModel) -> Arc<WorkloadPolicy> {
    compiled(model, &[]).workloads.into_values().next().unwrap()
}

impl Scene {
    fn new(models: &[PolicyModel], labels: &[BTreeMap<String, String>]) -> Self {
        let workloads = models.iter().zip(labels).enumerate().map(|(number, (model, labels))| {
            let id = WorkloadId { namespace: "sales".to_owned(), name: format!("w{number}") };
            let workload = Workload { labels: labels.clone(), service_account: None, gateway: false };
            (id, workload, policy_of(model), true)
        });
        let mut whole = with_issuers(&PolicyModel::default());
        whole.mesh.root_namespace = "root".to_owned();
        let workloads = workloads.collect();
        Self { whole, workloads, options: FenceOptions::default(), around: Surroundings::default() }
    }

    fn apply(&mut self, edit: &Edit) {
        match edit.clone() {
            Edit::Policy(at, model) => self.workloads[at].2 = policy_of(&model),
            Edit::Same(at) => self.workloads[at].2 = Arc::new(WorkloadPolicy::clone(&self.workloads[at].2)),
            Edit::Labels(at, labels) => self.workloads[at].1.labels = labels,
            Edit::Gateway(at) => self.workloads[at].1.gateway ^= true,
            Edit::Move(at, to) => self.workloads[at].0.namespace = to.to_owned(),
            Edit::Hide(at) => self.workloads[at].3 ^= true,
            Edit::Secret(at, secret) => {
                let id = self.workloads[at].0.clone();
                self.options.interlock_secrets.remove(&id);
                self.options.interlock_secrets.extend(secret.map(|secret| (id, secret.to_owned())));
            }
            Edit::Ports(at, protocol) => {
                let id = self.workloads[at].0.clone();
                self.around.declared_ports.remove(&id);
                let ports = protocol.map(|protocol| (id, BTreeMap::from([(8080, protocol)])));
                self.around.declared_ports.extend(ports);
            }
            Edit::Domain(domain) => self.whole.mesh.trust_domain = domain.to_owned(),
            Edit::Root(root) => self.whole.mesh.root_namespace = root.to_owned(),
            Edit::Istio(istio) => self.options.istio = istio,
            Edit::Around(normalization, aliases) => {
                (self.around.normalization, self.around.aliases) = (normalization, aliases);
            }
            Edit::Claims(claims) => self.options.claims = claims,
            Edit::Issuers(is_first) => {
                let all = with_issuers(&PolicyModel::default()).issuers;
                self.whole.issuers = if is_first { all.into_iter().take(1).collect() } else { all };
            }
            Edit::Nothing => {}
        }
        self.whole.mesh.workloads.clear();
        self.whole.workloads.clear();
        for (id, workload, policy, _) in self.workloads.iter().filter(|(.., is_there)| *is_there) {
            self.whole.mesh.workloads.insert(id.clone(), workload.clone());
            self.whole.workloads.insert(id.clone(), Arc::clone(policy));
        }
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn after_any_changes_the_fence_is_the_one_that_is_made_at_once(
        models in prop::collection::vec(models(), WORKLOADS),
        labels in prop::collection::vec(some_labels(), WORKLOADS),
        edits in prop::collection::vec(edit(), 1..12),
    ) {
        let mut scene = Scene::new(&models, &labels);
        let mut fencer = Fencer::new();
        for edit in std::iter::once(&Edit::Nothing).chain(&edits) {
            scene.apply(edit);
            let again = fencer.fence_in(&scene.whole, &scene.options, &scene.around);
            let at_once = fence_in(&scene.whole, &scene.options, &scene.around);
            prop_assert_eq!(&again, &at_once, "{:?}", edit);
            let unchanged = fencer.fence_in(&scene.whole, &scene.options, &scene.around);
            for (id, fence) in &again.workloads {
                prop_assert!(Arc::ptr_eq(fence, &unchanged.workloads[id]), "{id}");
            }
        }
    }

    /// What a rule's change does not reach is not made anew.
    #[test]
    fn a_changed_rule_makes_its_own_workload_anew_and_no_other(models in prop::collection::vec(models(), 3), other in models()) {
        let labels: Vec<BTreeMap<String, String>> =
            ["a", "b", "c"].map(|app| BTreeMap::from([("app".to_owned(), app.to_owned())])).into();
        let mut scene = Scene::new(&models, &labels);
        let mut fencer = Fencer::new();
        scene.apply(&Edit::Nothing);
        let before = fencer.fence_in(&scene.whole, &scene.options, &scene.around);
        scene.apply(&Edit::Policy(1, other));
        let after = fencer.fence_in(&scene.whole, &scene.options, &scene.around);
        for at in [0, 2] {
            let id = &scene.workloads[at].0;
            prop_assert!(Arc::ptr_eq(&before.workloads[id], &after.workloads[id]), "{id}");
        }
    }
}
