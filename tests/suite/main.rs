//! The tests that need a database or the whole service, in one program, so that one private cluster serves
//! them all.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

mod access;
mod api_plumbing;
mod assignment;
mod connections;
mod datasets;
mod decisions;
mod evaluation;
mod experiments;
mod experiments_plan;
mod following;
mod judged;
mod model_check;
mod model_versions;
mod original;
mod outcomes;
mod overtaken;
mod pipelines;
mod places;
mod preflight;
mod promotion;
mod pulled;
mod ramp;
mod real_posts;
mod rollback;
mod rollout;
mod rules;
mod schedule;
mod schema;
mod tracking;
mod traffic;
mod traffic_history;
mod training;
mod validation;
mod whole_way;
