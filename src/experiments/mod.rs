//! The A/B test of a candidate against its baseline: what was observed, what it says,
//! what is decided.

pub mod decision;
mod epochs;
mod inputs;
mod looks;
mod observations;
pub mod outcomes;
mod planned;
pub mod statistics;
mod store;
mod sums;

pub use decision::Metric;
pub use epochs::{Epoch, epochs, outcomes_per_day};
pub use inputs::{DEFAULT_EFFECT, DEFAULT_POWER, History, HistorySource, default_effect, history, standing};
pub use looks::{Look, MetricLook, looks, newest_look, record_look};
pub use observations::{Phase, evidence, harm_look, harm_look_before_after};
pub use planned::{Planned, planned_errors};
pub use store::{
    Experiment, ExperimentStatus, NewExperiment, StoredDecision, abort, by_id, conclude, decision_of, extend,
    freeze_planned_errors, spend_look, start,
};
pub use sums::hold_still;
