//! The A/B test of a candidate against its baseline: what was observed, what it says, what is decided.

pub mod decision;
pub mod statistics;
