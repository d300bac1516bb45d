//! The server as filters and people meet it: real gRPC and HTTP on free ports, real files.

mod admin;
mod asking;
mod candidate;
mod ci;
mod commands;
mod control;
mod decisions;
mod directories;
mod evidence;
mod export;
mod fixture;
mod fleet;
mod installing;
#[path = "../../src/keys/testing.rs"]
#[allow(dead_code, reason = "the library's own tests use the rest")]
mod issuer;
mod keys;
mod last_good;
#[path = "../../../../tests/src/otlp.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod otlp;
mod otlp_tls;
mod push;
mod reference;
mod rollout;
mod startup;
mod telemetry;
mod token;
mod transport;
mod uses;
// Servers that speak as Google's APIs do.
#[path = "../../src/directories/testing.rs"]
mod testing;
