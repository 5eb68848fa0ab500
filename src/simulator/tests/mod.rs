//! Tests of the simulator over HTTP.

mod behaviour;
mod client;
mod conformance;
mod errors;
mod harness;
mod spec;
