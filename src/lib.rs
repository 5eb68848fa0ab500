//! tuneloop keeps a production language model improving by itself: posts people engaged with become a
//! dataset, a fine-tuned model, an A/B test, a decision, a promotion and a watch.
//!
//! The modules are named after the stages of that way; `ARCHITECTURE.md` draws the map.

pub mod clock;
pub mod embedded;
