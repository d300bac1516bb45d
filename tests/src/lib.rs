//! The harness of the end-to-end tests: one mesh of real processes, and one corpus of cases for all of them.
//!
//! Nothing on the path is a mock: the control plane serves over gRPC, Envoy runs the packaged module, connections are
//! mTLS, tokens are signed by issuers whose keys are fetched over HTTPS.

pub mod attacks;
pub mod controlled;
pub mod corpus;
pub mod evasions;
pub mod hostile;
pub mod kube_api;
pub mod native;
pub mod objects;
pub mod otlp;
pub mod raw;
pub mod rbac;
pub mod rig;
