//! gRPC: Bundles down, receipts and decisions up.
//!
//! One stream per filter VM. A stream is a response body that is polled by its connection, not a task of its own, and
//! holds little: ten thousand of them must fit.
//!
//! Of several replicas one leads; the others push what it signed (`relay`).
//!
//! INVARIANT: a stream carries only releases of the workload that its peer is, each at most once outstanding, never an older
//! one after a newer.

mod distributor;
mod fleet;
mod frames;
mod hello;
mod inbound;
mod presence;
mod questions;
mod relay;
mod server;
mod session;
mod sink;

pub use distributor::{CanaryRelease, Distributor, Lookups, Offered, Subscription};
pub use fleet::{
    CanaryReport, Compared, Fleet, FleetReport, IssuerUseReport, ProxyReport, Refusal, Standing, VmReport,
    VmSight, Wanted, WorkloadReport,
};
#[cfg(test)]
pub(crate) use fleet::{StreamId, VmKey};
pub use frames::Offer;
pub(crate) use relay::{FollowTask, Served};
pub use relay::{Followed, Following, RelayOptions};
pub(crate) use server::serve;
pub use server::{Hub, serve_insecure, stopped};
