//! What `tidegate demo` and the end-to-end tests run against: a small mesh on loopback with nothing mocked.
//!
//! - [`envoy`] finds Envoy, downloads it if need be, and runs it; [`process`] sees to it that nothing is left behind.
//! - [`pki`] issues the mesh's certificates, [`mesh`] writes Envoy's configurations.
//! - [`issuers`] are identity providers that sign tokens, right ones and forged ones.
//! - [`upstream`] is the application, [`client`] its caller.
//! - [`world`] puts them together with the control plane, [`scenario`] sends the demo's requests through it.
//!
//! INVARIANT: everything listens on loopback on ports that are free, keys are made at start, and when the values are
//! dropped, or this process ends, nothing runs on.

pub mod client;
pub mod envoy;
pub mod exported;
pub mod issuers;
pub mod mesh;
pub mod pki;
pub mod process;
pub mod scenario;
mod server;
mod tls;
pub mod upstream;
pub mod world;

/// Tells people on standard error how far things are. When that is not there, nobody reads it.
fn say(line: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "tidegate: {line}");
}
