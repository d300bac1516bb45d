//! Which workloads have which labels, so that a selector is not compared with every workload of its namespace.

use std::collections::HashMap;

use crate::mesh::{Mesh, Workload, WorkloadId};

/// The workloads of a mesh by namespace and label.
#[derive(Debug)]
pub struct LabelIndex<'m> {
    /// In the order of names.
    namespaces: HashMap<&'m str, Vec<Member<'m>>>,
    /// By namespace, label and value; in the order of names.
    labels: HashMap<(&'m str, &'m str, &'m str), Vec<Member<'m>>>,
}

type Member<'m> = (&'m WorkloadId, &'m Workload);

// === impl LabelIndex ===

impl<'m> LabelIndex<'m> {
    /// Of all workloads of a mesh.
    pub fn new(mesh: &'m Mesh) -> Self {
        let mut index = Self { namespaces: HashMap::new(), labels: HashMap::new() };
        for member @ (id, workload) in &mesh.workloads {
            index.namespaces.entry(&id.namespace).or_default().push(member);
            for (label, value) in &workload.labels {
                index.labels.entry((&id.namespace, label, value)).or_default().push(member);
            }
        }
        index
    }

    /// The workloads of a namespace that have all of these labels, in the order of their names. Without any label: all of them.
    pub fn having<'l>(
        &self,
        namespace: &str,
        labels: impl Iterator<Item = (&'l String, &'l String)> + Clone,
    ) -> Vec<(&'m WorkloadId, &'m Workload)> {
        let none: &[Member<'m>] = &[];
        let of = |(label, value): (&'l String, &'l String)| {
            let key = (namespace, label.as_str(), value.as_str());
            self.labels.get(&key).map_or(none, Vec::as_slice)
        };
        // Where one of the labels is rare, whatever is common costs nothing.
        let rarest = labels.clone().map(of).min_by_key(|members| members.len());
        let members = rarest.unwrap_or_else(|| self.namespaces.get(namespace).map_or(none, Vec::as_slice));
        let has = |(_, workload): &Member<'m>| {
            labels.clone().all(|(label, value)| workload.labels.get(label) == Some(value))
        };
        members.iter().copied().filter(has).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
        let text = |all: &[&'static str]| select(all.to_vec()).prop_map(str::to_owned);
        prop::collection::btree_map(text(&["app", "tier", "zone"]), text(&["a", "b"]), 0..3)
    }

    proptest! {
        #[test]
        fn finds_what_a_comparison_with_every_workload_finds(
            all in prop::collection::vec((select(vec!["sales", "sale", "etl"]), labels()), 0..12),
            namespace in select(vec!["sales", "sale", "etl", "nowhere"]),
            wanted in labels(),
        ) {
            let workloads = all.into_iter().enumerate().map(|(number, (namespace, labels))| {
                let id = WorkloadId { namespace: namespace.to_owned(), name: format!("w{number}") };
                (id, Workload { labels, service_account: None, gateway: false })
            });
            let mesh = Mesh {
                trust_domain: "td".to_owned(),
                root_namespace: "root".to_owned(),
                workloads: workloads.collect(),
            };
            let has = |workload: &Workload| {
                wanted.iter().all(|(label, value)| workload.labels.get(label) == Some(value))
            };
            let expected: Vec<_> = mesh
                .workloads
                .iter()
                .filter(|(id, workload)| id.namespace == namespace && has(workload))
                .collect();
            let index = LabelIndex::new(&mesh);
            prop_assert_eq!(index.having(namespace, wanted.iter()), expected);
        }
    }
}
