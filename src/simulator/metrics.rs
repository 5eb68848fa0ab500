//! The loss of a training, made up: it falls to a floor, with a little noise from the job's seed.

use serde::Serialize;

use super::ids;

const FLOOR: f64 = 0.85;
const DROP: f64 = 1.6;
const NOISE: f64 = 0.04;

/// What is known after one step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Metrics {
    pub(super) step: u64,
    pub(super) train_loss: f64,
    pub(super) train_mean_token_accuracy: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) valid_loss: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) valid_mean_token_accuracy: Option<f64>,
    /// On all of the validation file: at the end of each epoch, without the noise of a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) full_valid_loss: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) full_valid_mean_token_accuracy: Option<f64>,
}

/// The made-up curves of one job.
#[derive(Debug, Clone, Copy)]
pub(super) struct Curve {
    /// The job's seed.
    pub(super) seed: i64,
    /// The number of its last step.
    pub(super) steps: u64,
    /// How many of them make an epoch.
    pub(super) steps_per_epoch: u64,
    /// Whether there is a validation file.
    pub(super) validated: bool,
    /// How much the validation loss is above that of the best hyperparameters.
    pub(super) penalty: f64,
}

impl Curve {
    /// Whether `step` is the last of an epoch.
    pub(super) fn ends_epoch(self, step: u64) -> bool {
        step.is_multiple_of(self.steps_per_epoch.max(1))
    }

    /// The metrics after `step`, from 1 to the number of steps.
    pub(super) fn at(self, step: u64) -> Metrics {
        let decay = (-3.2 * step as f64 / self.steps.max(1) as f64).exp();
        let noise = |what: &str| {
            NOISE * (2.0 * ids::fraction(&[&self.seed.to_string(), &step.to_string(), what]) - 1.0)
        };
        let loss = |what: &str, floor: f64| round(floor + DROP * decay + noise(what));
        let accuracy = |what: &str, ceiling: f64| round(ceiling - 0.38 * decay + noise(what) / 2.0);
        let full = self.validated && self.ends_epoch(step);
        Metrics {
            step,
            train_loss: loss("loss", FLOOR),
            train_mean_token_accuracy: accuracy("accuracy", 0.82),
            valid_loss: self.validated.then(|| loss("valid loss", FLOOR + 0.1 + self.penalty)),
            valid_mean_token_accuracy: self.validated.then(|| accuracy("valid accuracy", 0.79)),
            full_valid_loss: full.then(|| round(FLOOR + 0.1 + self.penalty + DROP * decay)),
            full_valid_mean_token_accuracy: full.then(|| round(0.79 - 0.38 * decay)),
        }
    }

    /// The result file: a CSV with one line per step.
    pub(super) fn csv(self) -> String {
        let optional = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
        let line = |step| {
            let metrics = self.at(step);
            format!(
                "{step},{},{},{},{}\n",
                metrics.train_loss,
                metrics.train_mean_token_accuracy,
                optional(metrics.valid_loss),
                optional(metrics.valid_mean_token_accuracy),
            )
        };
        let header = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n".to_owned();
        std::iter::once(header).chain((1..=self.steps).map(line)).collect()
    }
}

fn round(value: f64) -> f64 {
    (value * 1e5).round() / 1e5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_falls_and_the_accuracy_rises() {
        for seed in 0..50 {
            let curve = Curve { seed, steps: 300, steps_per_epoch: 100, validated: true, penalty: 0.0 };
            let (first, middle, last) = (curve.at(1), curve.at(100), curve.at(300));
            assert!(first.train_loss > middle.train_loss && middle.train_loss > last.train_loss, "{seed}");
            assert!(first.valid_loss > last.valid_loss, "{seed}");
            let full = |step| curve.at(step).full_valid_loss;
            assert!(full(100) > full(200) && full(200) > full(300) && full(300).is_some(), "{seed}");
            assert_eq!((full(99), full(250)), (None, None), "it is measured at the end of an epoch");
            assert!(first.train_mean_token_accuracy < last.train_mean_token_accuracy, "{seed}");
            assert!((0.0..=1.0).contains(&last.train_mean_token_accuracy));
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_curve() {
        let curve =
            |seed| Curve { seed, steps: 10, steps_per_epoch: 5, validated: false, penalty: 0.0 }.csv();
        assert_eq!(curve(1), curve(1));
        assert_ne!(curve(1), curve(2));
        assert_eq!(curve(1).lines().count(), 11);
        assert!(curve(1).lines().nth(1).unwrap().starts_with("1,"));
        assert!(curve(1).lines().nth(1).unwrap().ends_with(",,"));
    }
}
