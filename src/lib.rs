//! tuneloop keeps a production language model improving by itself: posts people engaged with become a
//! dataset, a fine-tuned model, an A/B test, a decision, a promotion and a watch.
//!
//! The modules are named after the stages of that way; `ARCHITECTURE.md` draws the map.

pub mod api;
pub mod audit;
pub mod causes;
pub mod clock;
pub mod commands;
pub mod config;
pub mod database;
pub mod dataset;
pub mod demo;
pub mod embedded;
pub mod evaluation;
pub mod experiments;
mod halt;
mod housekeeping;
pub mod jobs;
mod model_check;
pub mod models;
pub mod notifications;
pub mod outbound;
mod outcome_judge;
mod outcome_pull;
pub mod pipelines;
pub mod preflight;
pub mod publication;
pub mod runs;
pub mod schedule;
pub mod service;
pub mod simulator;
pub mod standard_webhooks;
pub mod telemetry;
pub mod tracking;
pub mod traffic;
pub mod trainers;

/// Requests take dozens of small pieces of memory each, for which glibc needs longer: see `assignment` in docs/benchmarks.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
