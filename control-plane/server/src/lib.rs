//! Tidegate's control plane: rules in, signed Bundles out to the filters; and the command line.
//!
//! The way of a rule: [`rules`] reads and judges files, the compiler turns them into policies, [`keys`] brings the
//! issuers' keys and [`directories`] the machines of jobs, [`bundle`] signs, [`push`] hands out and hears who enforces
//! what, [`transport`] tells who they are, [`admin`] shows it. [`serve`] wires them together, [`explain`] says why, [`ruletest`] tests rules before anybody
//! pushes them; [`cli`] is the command.
//!
//! INVARIANT: nothing is pushed that did not compile, is not signed, or is older than what was pushed before, across
//! restarts too.

pub mod admin;
pub mod align;
mod bucket;
pub mod bundle;
pub mod cli;
mod clock;
pub mod control;
pub mod decisions;
pub mod demo;
pub mod directories;
pub mod doctor;
pub mod evidence;
pub mod explain;
pub mod export;
pub mod install;
pub mod istio;
pub mod keys;
pub mod kube;
pub mod metrics;
pub mod module_server;
pub mod oci;
pub mod package;
pub mod plugin_config;
pub mod preflight;
pub mod push;
pub mod rollout;
pub mod rules;
pub mod ruletest;
pub mod serve;
pub mod state;
pub mod transport;
pub mod uses;

pub use package::{FILTER_BODIES_SHA256, FILTER_BODIES_WASM, FILTER_SHA256, FILTER_WASM};
