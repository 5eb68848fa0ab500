//! Several trainings of one dataset with different hyperparameters.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::checks::Checks;

/// Which hyperparameters are tried. Those without values here are as the training sets them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SearchSettings {
    /// All combinations in their order, or some of them drawn by the seed.
    #[serde(default)]
    pub strategy: SearchStrategy,
    /// Values of `n_epochs`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub n_epochs: Vec<u32>,
    /// Values of `batch_size`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub batch_size: Vec<u32>,
    /// Values of `learning_rate_multiplier`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub learning_rate_multiplier: Vec<f64>,
    /// Values of `beta`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beta: Vec<f64>,
    /// Trainings at most, 2 to 16; each is paid for.
    #[serde(default = "maximum_trainings")]
    #[schema(minimum = 2, maximum = 16)]
    pub maximum_trainings: u32,
    /// Decides which combinations are drawn.
    #[serde(default)]
    pub seed: u32,
}

/// How combinations are chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SearchStrategy {
    /// All of them; there must not be more than `maximum_trainings`.
    #[default]
    Grid,
    /// As many as `maximum_trainings`, drawn without repetition.
    Random,
}

impl SearchSettings {
    /// How many different combinations the values make.
    #[must_use]
    pub fn combinations(&self) -> usize {
        let lengths = [
            self.n_epochs.len(),
            self.batch_size.len(),
            self.learning_rate_multiplier.len(),
            self.beta.len(),
        ];
        lengths.into_iter().map(|length| length.max(1)).fold(1, usize::saturating_mul)
    }

    pub(super) fn check(&self, checks: &mut Checks<'_>, preference: bool) {
        let whole = |values: &[u32], most| values.iter().all(|value| (1..=most).contains(value));
        checks.that("search/n_epochs", whole(&self.n_epochs, 50), "must all be between 1 and 50");
        checks.that("search/batch_size", whole(&self.batch_size, 256), "must all be between 1 and 256");
        let multipliers = self.learning_rate_multiplier.iter().all(|m| m.is_finite() && *m > 0.0);
        checks.that("search/learning_rate_multiplier", multipliers, "must all be above 0");
        let betas = self.beta.iter().all(|beta| *beta > 0.0 && *beta <= 2.0);
        checks.that("search/beta", betas, "must all be above 0 and at most 2");
        checks.that("search/beta", self.beta.is_empty() || preference, "needs the method preference");
        for (field, distinct) in [
            ("search/n_epochs", all_distinct(&self.n_epochs)),
            ("search/batch_size", all_distinct(&self.batch_size)),
            ("search/learning_rate_multiplier", all_distinct(&self.learning_rate_multiplier)),
            ("search/beta", all_distinct(&self.beta)),
        ] {
            checks.that(field, distinct, "must name each value once");
        }
        let most = (2..=16).contains(&self.maximum_trainings);
        checks.that("search/maximum_trainings", most, "must be between 2 and 16");
        checks.that("search", self.combinations() > 1, "must have at least two combinations of values");
        let fits =
            self.strategy == SearchStrategy::Random || self.combinations() <= self.maximum_trainings as usize;
        let sentence = "must not be smaller than the grid; name fewer values, or set the strategy random";
        checks.that("search/maximum_trainings", fits, sentence);
    }
}

fn all_distinct<T: PartialEq>(values: &[T]) -> bool {
    values.iter().enumerate().all(|(place, value)| !values[..place].contains(value))
}

fn maximum_trainings() -> u32 {
    4
}
