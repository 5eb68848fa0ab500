//! The job table and its worker on a real PostgreSQL.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test")]

mod claims;
#[path = "../harness/database.rs"]
mod database;
mod errors;
mod interruptions;
mod leases;
mod support;
mod wakes;
