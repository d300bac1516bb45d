//! `tidegate serve --kube` against the fake API server, and against the real one where `KUBEBUILDER_ASSETS` names a folder
//! with `kube-apiserver` and `etcd` (the envtest convention). The same cases for both; what cuts a server off is only done to
//! the fake one.

#[path = "kube/cluster.rs"]
mod cluster;
#[path = "kube/envoy.rs"]
mod envoy;
#[path = "kube/fence.rs"]
mod fence;
#[path = "kube/filter.rs"]
mod filter;
#[path = "kube/outages.rs"]
mod outages;
#[path = "kube/plugins.rs"]
mod plugins;
#[path = "kube/real.rs"]
mod real;
#[path = "kube/relay.rs"]
mod relay;
#[path = "kube/rules.rs"]
mod rules;
#[path = "kube/scale.rs"]
mod scale;
#[path = "kube/shared.rs"]
mod shared;
#[path = "kube/surroundings.rs"]
mod surroundings;
