//! Worker processes that are killed, frozen and asked to end, at every place where a run could come to harm.
//!
//! The provider lives in the test's process and survives; each scenario has a database, a provider and worker
//! processes of its own. Workers are stopped at the points that `src/halt.rs` describes.

#![cfg(debug_assertions)]
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test")]

mod cancelled;
#[path = "../harness/database.rs"]
mod database;
mod expectations;
mod found;
mod gate;
mod harm;
mod late;
mod moved;
mod parallel;
mod points;
mod process;
mod ramp;
mod random;
mod rollout;
mod shutdown;
mod stale;
mod world;
