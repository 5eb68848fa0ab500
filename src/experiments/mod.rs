//! The A/B test of a candidate against its baseline: who is assigned to what, what was observed, what it says,
//! what is decided.

pub mod assignment;
pub mod decision;
mod observations;
pub mod outcomes;
pub mod statistics;
mod store;
mod sums;

pub use observations::{Phase, evidence, harm_look};
pub use store::{
    Experiment, ExperimentStatus, StoredDecision, by_id, decision_of, end, extend, freeze_planned_errors,
    insert, record_decision, spend_look,
};
