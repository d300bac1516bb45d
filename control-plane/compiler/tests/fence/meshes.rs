//! Meshes of several workloads whose labels may be the same.

use super::*;

pub fn some_labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map(
        select(vec!["app", "tier", "gateway.networking.k8s.io/gateway-name"]).prop_map(str::to_owned),
        select(vec!["a", "b"]).prop_map(str::to_owned),
        0..3,
    )
}

proptest! {
    #![proptest_config(cases())]

    /// A policy that reaches other pods than its own takes nothing away from them.
    #[test]
    fn no_workload_loses_by_the_fence_of_another(
        all in prop::collection::vec((models(), some_labels(), select(vec!["sales", "ops", "root"])), 2..5),
        calls in aims(6),
    ) {
        let mut whole = compiled(&PolicyModel::default(), &[]);
        whole.mesh.root_namespace = "root".to_owned();
        whole.mesh.workloads.clear();
        whole.workloads.clear();
        for (number, (model, labels, namespace)) in all.iter().enumerate() {
            let id = WorkloadId { namespace: (*namespace).to_owned(), name: format!("w{number}") };
            let policy = compiled(model, &[]).workloads.into_values().next().unwrap();
            whole.mesh.workloads.insert(id.clone(), Workload { labels: labels.clone(), service_account: None, gateway: false });
            whole.workloads.insert(id, policy);
        }
        let models: Vec<&PolicyModel> = all.iter().map(|(model, ..)| model).collect();
        let calls: Vec<Call> = calls.iter().map(|aim| aim.at(&models)).collect();
        let made = fence(&whole, &FenceOptions::default());
        for (id, workload) in &whole.mesh.workloads {
            // Policies of the workload's namespace, and those of the root namespace that name no Gateway: "policy is not in the same
            // namespace" (istio `pilot/pkg/model/policyattachment.go`, `ShouldAttachPolicy`).
            let policies: Vec<Value> = made
                .workloads
                .values()
                .flat_map(|fence| &fence.objects)
                .filter(|object| {
                    object.namespace == id.namespace || (object.namespace == "root" && object.spec.get("targetRefs").is_none())
                })
                .map(|object| object.to_json())
                .collect();
            let policy = decoded(&whole.workloads[id].model);
            for call in &calls {
                if call.outcomes(&policy, Normalization::Base).contains(&Outcome::Allow) {
                    let seen = call.seen(Normalization::Base, None);
                    prop_assert!(allows(&policies, &workload.labels, &seen), "{id}: {call:?}\n{policies:#?}");
                }
            }
        }
        // A policy there would act on namespaces that nobody listed.
        let in_root = made.workloads.values().flat_map(|fence| &fence.objects).filter(|object| object.namespace == "root");
        for object in in_root {
            prop_assert!(object.spec.get("selector").is_none(), "{object:#?}");
        }
        for object in objects(&made) {
            let wrong = istio::schema::wrong_with(&object);
            prop_assert!(wrong.is_empty(), "{wrong:?}\n{object:#}");
        }
    }
}
