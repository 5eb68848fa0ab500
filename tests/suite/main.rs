//! The tests that need a database or the whole service, in one program, so that one private cluster serves
//! them all.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

mod access;
mod api_plumbing;
mod assignment;
mod datasets;
mod decisions;
mod evaluation;
mod experiments;
mod experiments_plan;
mod following;
mod judged;
mod original;
mod outcomes;
mod overtaken;
mod pipelines;
mod places;
mod preflight;
mod pulled;
mod ramp;
mod real_posts;
mod rollback;
mod schedule;
mod schema;
mod tracking;
mod traffic;
mod training;
mod validation;
mod whole_way;
