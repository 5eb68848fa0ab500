//! Gathering what is wrong with a configuration.

use std::collections::BTreeMap;

/// What is wrong with a configuration: field (as a JSON pointer) and sentence.
pub type Faults = BTreeMap<String, String>;

/// Ten years: nothing in a pipeline takes longer.
const LONGEST_SECONDS: f64 = 3650.0 * 86_400.0;
/// Each look is a call of the provider or a write of the database.
const SHORTEST_INTERVAL: f64 = 0.05;

/// Notes the faults of one section.
pub(super) struct Checks<'a> {
    pub(super) section: &'static str,
    pub(super) faults: &'a mut Faults,
}

impl Checks<'_> {
    pub(super) fn that(&mut self, field: &str, good: bool, sentence: &str) {
        if !good {
            self.faults.insert(format!("{}/{field}", self.section), sentence.to_owned());
        }
    }

    pub(super) fn duration(&mut self, field: &str, seconds: f64) {
        let good = seconds > 0.0 && seconds <= LONGEST_SECONDS;
        self.that(field, good, "must be a number of seconds above 0 and at most ten years");
    }

    pub(super) fn interval(&mut self, field: &str, seconds: f64) {
        let good = (SHORTEST_INTERVAL..=LONGEST_SECONDS).contains(&seconds);
        self.that(field, good, "must be a number of seconds of at least 0.05 and at most ten years");
    }

    pub(super) fn model(&mut self, field: &str, id: &str) {
        let good = !id.trim().is_empty() && id.len() <= 256;
        self.that(field, good, "must be the id of a model, up to 256 characters");
    }

    /// A sum of money; absent is no limit.
    pub(super) fn money(&mut self, field: &str, amount: Option<f64>) {
        let good = amount.is_none_or(|amount| amount.is_finite() && amount >= 0.0);
        self.that(field, good, "must be an amount of at least 0, in the currency of the price table");
    }
}
