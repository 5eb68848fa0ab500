//! A real MLflow server is told of runs and versions: whole, while it is stopped or killed in between, and by workers that are killed
//! between any two calls. What it holds afterwards is read with MLflow's own client.
//!
//! `TUNELOOP_MLFLOW_PYTHON` names the Python that has MLflow. Without it the tests are skipped, and fail where
//! `TUNELOOP_PEERS` is set.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
#[expect(dead_code, reason = "the suite uses all of it")]
mod harness;
#[cfg(debug_assertions)]
#[path = "../killed/process.rs"]
mod process;

mod access;
mod away;
mod deliveries;
#[cfg(debug_assertions)]
mod killed;
mod server;
mod whole;
