//! Publication to a ConfigMap, a file and an application: in a program of its own, since every test has a Kubernetes API or
//! an application to itself.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "the harness has what other programs of tests need as well")]
#[path = "../harness/mod.rs"]
mod harness;

mod application;
mod config_map;
mod drift;
mod files;
mod http;
#[cfg(debug_assertions)]
mod killed;
mod kubernetes;
mod ordered;
#[cfg(debug_assertions)]
#[path = "../killed/process.rs"]
mod process;
mod restarts;
mod service;
