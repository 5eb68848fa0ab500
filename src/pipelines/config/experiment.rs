//! How a new model is tested and watched.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::checks::Checks;
use crate::experiments::decision::Rules;
use crate::traffic::WHOLE;

const DAY: f64 = 86_400.0;
/// Each step is one more epoch of the analysis.
const MOST_STEPS: usize = 20;

/// How a new model is tested against the live one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExperimentSettings {
    /// How long the test runs; the decision falls at its end. A whole weekly cycle by default.
    pub horizon_seconds: f64,
    /// The candidate's share of the traffic, in basis points; with a ramp, its weights hold instead.
    #[schema(minimum = 1, maximum = 9999)]
    pub candidate_weight: i32,
    /// Raises the candidate's share in steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ramp: Option<RampSettings>,
    /// Time between two looks for harm during the test.
    pub interval_seconds: f64,
    /// How long an inconclusive test waits for a person.
    pub approval_seconds: f64,
    /// What the decision asks for.
    pub rules: Rules,
}

impl Default for ExperimentSettings {
    fn default() -> Self {
        Self {
            horizon_seconds: 7.0 * DAY,
            candidate_weight: 1_000,
            ramp: None,
            interval_seconds: 300.0,
            approval_seconds: 7.0 * DAY,
            rules: Rules::default(),
        }
    }
}

impl ExperimentSettings {
    /// The share that the candidate begins its test with, in basis points.
    #[must_use]
    pub fn first_weight(&self) -> i32 {
        self.ramp.as_ref().and_then(|ramp| ramp.weights.first().copied()).unwrap_or(self.candidate_weight)
    }

    /// The candidate's mean share over the test as it is planned, between 0 and 1.
    #[must_use]
    pub fn mean_share(&self) -> f64 {
        let steps = self.ramp.as_ref().map_or(&[][..], |ramp| &ramp.weights);
        let step = self.ramp.as_ref().map_or(0.0, |ramp| ramp.step_seconds / self.horizon_seconds);
        let (&last, earlier) = steps.split_last().unwrap_or((&self.candidate_weight, &[]));
        let risen = earlier.iter().map(|&weight| f64::from(weight) * step).sum::<f64>();
        (risen + f64::from(last) * (1.0 - earlier.len() as f64 * step)) / f64::from(WHOLE)
    }

    /// The share that the candidate ends its test with, in basis points.
    pub(super) fn last_weight(&self) -> i32 {
        self.ramp.as_ref().and_then(|ramp| ramp.weights.last().copied()).unwrap_or(self.candidate_weight)
    }

    pub(super) fn check(&self, checks: &mut Checks<'_>) {
        checks.duration("horizon_seconds", self.horizon_seconds);
        let weight = (1..10_000).contains(&self.candidate_weight);
        checks.that("candidate_weight", weight, "must be between 1 and 9999 basis points");
        checks.interval("interval_seconds", self.interval_seconds);
        checks.duration("approval_seconds", self.approval_seconds);
        let reachable = self.rules.minimum_hours * 3600.0 <= self.horizon_seconds;
        let sentence = "must not be longer than the horizon, or no test could be decided";
        checks.that("rules/minimum_hours", reachable, sentence);
        if let Some(ramp) = &self.ramp {
            ramp.check(checks, self.horizon_seconds);
        }
    }
}

/// How the candidate's share rises during the test. Each step is an epoch of its own, which the analysis keeps apart, and
/// follows a look that found no harm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RampSettings {
    /// The candidate's share step by step, rising, in basis points. The last one stays until the horizon.
    #[schema(min_items = 2, max_items = 20)]
    pub weights: Vec<i32>,
    /// The least time between two steps.
    pub step_seconds: f64,
    /// What becomes of a step whose time is over while it cannot be judged, for want of outcomes.
    #[serde(default)]
    pub unjudged: Unjudged,
}

/// What becomes of a step whose time is over while it cannot be judged: a watched metric has too few outcomes, or this step has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unjudged {
    /// It stays until a look can judge and finds no harm.
    #[default]
    Wait,
    /// The next one follows all the same.
    Rise,
}

impl RampSettings {
    /// The share that follows one of `weight`, if the ramp goes further.
    #[must_use]
    pub fn above(&self, weight: i32) -> Option<i32> {
        self.weights.iter().copied().find(|&next| next > weight)
    }

    fn check(&self, checks: &mut Checks<'_>, horizon_seconds: f64) {
        let rising = self.weights.is_sorted_by(|before, after| before < after);
        let within = self.weights.iter().all(|weight| (1..10_000).contains(weight));
        let few = (2..=MOST_STEPS).contains(&self.weights.len());
        let sentence = "must be 2 to 20 rising shares between 1 and 9999 basis points";
        checks.that("ramp/weights", rising && within && few, sentence);
        checks.duration("ramp/step_seconds", self.step_seconds);
        let steps = self.weights.len().saturating_sub(1) as f64;
        if steps * self.step_seconds >= horizon_seconds {
            let sentence = "must leave time for the last share before the horizon";
            checks.that("ramp/step_seconds", false, sentence);
        }
    }
}

/// How a promoted model is watched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WatchSettings {
    /// How long; the next run's test ends it earlier.
    pub duration_seconds: f64,
    /// Time between two looks for harm.
    pub interval_seconds: f64,
    /// The share that stays on the former version meanwhile, in basis points. With 0 the model is compared with what its
    /// test saw of the former one, which is weaker: whatever changed since counts for or against it.
    #[schema(minimum = 0, maximum = 9999)]
    pub hold_back_weight: i32,
}

impl Default for WatchSettings {
    fn default() -> Self {
        Self { duration_seconds: 7.0 * DAY, interval_seconds: 300.0, hold_back_weight: 1_000 }
    }
}

impl WatchSettings {
    pub(super) fn check(&self, checks: &mut Checks<'_>) {
        checks.duration("duration_seconds", self.duration_seconds);
        checks.interval("interval_seconds", self.interval_seconds);
        let weight = (0..10_000).contains(&self.hold_back_weight);
        checks.that("hold_back_weight", weight, "must be between 0 and 9999 basis points");
    }
}

#[cfg(test)]
mod tests {
    use super::super::Faults;
    use super::*;

    fn faults(weights: &[i32], step_seconds: f64) -> Vec<String> {
        let mut faults = Faults::new();
        let unjudged = Unjudged::Wait;
        let ramp = Some(RampSettings { weights: weights.to_vec(), step_seconds, unjudged });
        let settings = ExperimentSettings { ramp, horizon_seconds: 100.0, ..ExperimentSettings::default() };
        settings.check(&mut Checks { section: "", faults: &mut faults });
        faults.remove("/rules/minimum_hours");
        faults.into_keys().collect()
    }

    #[test]
    fn the_mean_share_is_that_over_the_whole_test() {
        let plain = ExperimentSettings { candidate_weight: 2_000, ..ExperimentSettings::default() };
        assert!((plain.mean_share() - 0.2).abs() < 1e-12);
        let (weights, unjudged) = (vec![1_000, 2_500, 5_000], Unjudged::Wait);
        let ramp = Some(RampSettings { weights, step_seconds: 20.0, unjudged });
        let ramped = ExperimentSettings { ramp, horizon_seconds: 100.0, ..plain };
        assert!((ramped.mean_share() - (0.1 * 0.2 + 0.25 * 0.2 + 0.5 * 0.6)).abs() < 1e-12);
    }

    #[test]
    fn a_ramp_rises_and_reaches_its_last_share_before_the_horizon() {
        assert!(faults(&[1_000, 2_500, 5_000], 49.0).is_empty());
        assert_eq!(faults(&[1_000, 2_500, 5_000], 50.0), ["/ramp/step_seconds"]);
        assert_eq!(faults(&[1_000, 2_500], 0.0), ["/ramp/step_seconds"]);
        assert_eq!(faults(&[1_000, 2_500], f64::NAN), ["/ramp/step_seconds"]);
        for weights in [&[][..], &[1_000], &[1_000, 1_000], &[2_000, 1_000], &[0, 1_000], &[1_000, 10_000]] {
            assert_eq!(faults(weights, 1.0), ["/ramp/weights"], "{weights:?}");
        }
    }

    #[test]
    fn a_ramp_goes_on_from_the_share_in_force() {
        let weights = vec![1_000, 2_500, 5_000];
        let ramp = RampSettings { weights, step_seconds: 1.0, unjudged: Unjudged::Wait };
        assert_eq!(
            [0, 1_000, 2_499, 2_500, 5_000].map(|weight| ramp.above(weight)),
            [Some(1_000), Some(2_500), Some(2_500), Some(5_000), None]
        );
        let with =
            ExperimentSettings { ramp: Some(ramp), candidate_weight: 7, ..ExperimentSettings::default() };
        assert_eq!(with.first_weight(), 1_000);
        assert_eq!(ExperimentSettings { ramp: None, ..with }.first_weight(), 7);
    }
}
