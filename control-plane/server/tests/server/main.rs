//! The server as filters and people meet it: real gRPC and HTTP on free ports, real files.

mod admin;
mod fixture;
mod last_good;
mod push;
mod startup;
