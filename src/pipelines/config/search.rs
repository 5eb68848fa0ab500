//! Several trainings of one dataset with different hyperparameters.

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::checks::Checks;
use crate::trainers::Hyperparameters;

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

    /// What is tried, in the order in which it is trained: the same for the same settings. Where a hyperparameter has no values,
    /// it is as in `base`.
    #[must_use]
    pub fn trials(&self, base: Hyperparameters) -> Vec<Hyperparameters> {
        let all = self.combinations();
        let chosen = match self.strategy {
            SearchStrategy::Grid => (0..all).collect(),
            SearchStrategy::Random => {
                let amount = all.min(self.maximum_trainings as usize);
                let mut random = StdRng::seed_from_u64(self.seed.into());
                rand::seq::index::sample(&mut random, all, amount).into_vec()
            }
        };
        chosen.into_iter().map(|index| self.combination(index, base)).collect()
    }

    /// The combination in this place of the grid, of which the last hyperparameter changes fastest.
    fn combination(&self, mut index: usize, base: Hyperparameters) -> Hyperparameters {
        let mut pick = |values: usize| {
            let place = index % values.max(1);
            index /= values.max(1);
            place
        };
        let beta = pick(self.beta.len());
        let multiplier = pick(self.learning_rate_multiplier.len());
        let batch = pick(self.batch_size.len());
        let epochs = pick(self.n_epochs.len());
        Hyperparameters {
            n_epochs: self.n_epochs.get(epochs).copied().or(base.n_epochs),
            batch_size: self.batch_size.get(batch).copied().or(base.batch_size),
            learning_rate_multiplier: self
                .learning_rate_multiplier
                .get(multiplier)
                .copied()
                .or(base.learning_rate_multiplier),
            beta: self.beta.get(beta).copied().or(base.beta),
        }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(value: serde_json::Value) -> SearchSettings {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_grid_is_tried_whole_and_in_order_and_the_rest_is_as_set() {
        let search = settings(json!({"n_epochs": [1, 3], "learning_rate_multiplier": [0.5, 2.0]}));
        let base = Hyperparameters { n_epochs: Some(9), batch_size: Some(8), ..Hyperparameters::default() };
        let tried: Vec<_> = search
            .trials(base)
            .into_iter()
            .map(|trial| (trial.n_epochs, trial.batch_size, trial.learning_rate_multiplier))
            .collect();
        let expected = [(1, 0.5), (1, 2.0), (3, 0.5), (3, 2.0)];
        assert_eq!(tried, expected.map(|(epochs, rate)| (Some(epochs), Some(8), Some(rate))));
    }

    #[test]
    fn a_random_search_draws_different_combinations_the_same_ones_every_time() {
        let search = json!({
            "strategy": "random", "n_epochs": [1, 2, 3, 4], "batch_size": [1, 2, 4, 8], "maximum_trainings": 6, "seed": 5,
        });
        let tried = settings(search.clone()).trials(Hyperparameters::default());
        assert_eq!(tried, settings(search).trials(Hyperparameters::default()));
        assert_eq!(tried.len(), 6);
        for (place, trial) in tried.iter().enumerate() {
            assert!(trial.n_epochs.is_some() && trial.batch_size.is_some() && trial.beta.is_none());
            assert!(!tried[..place].contains(trial), "{trial:?} is trained and paid for twice");
        }
    }

    #[test]
    fn a_random_search_of_few_combinations_tries_them_all() {
        let search = settings(json!({"strategy": "random", "n_epochs": [1, 2], "maximum_trainings": 9}));
        assert_eq!(search.trials(Hyperparameters::default()).len(), 2);
    }
}
