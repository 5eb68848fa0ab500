//! How a promoted model gets its traffic, and what a promotion by hand is held to.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::checks::Checks;
use super::experiment::{ExperimentSettings, Unjudged, WatchSettings};

const WHOLE: i32 = 10_000;
/// Each step is one more epoch of the watch.
const MOST_STEPS: usize = 20;

/// How a promoted model gets its traffic, and what a promotion by hand is held to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeploymentSettings {
    /// How a candidate that has earned its promotion gets from its test's share to its last one.
    pub strategy: DeploymentStrategy,
    /// A promotion by hand asks for a decision that is no older.
    pub decision_max_age_seconds: f64,
}

/// How a candidate that has earned its promotion gets from its test's share to its last one: all but the hold-back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentStrategy {
    /// At once.
    #[default]
    Immediate,
    /// In steps, each after a look for harm.
    Ramp(RolloutSettings),
}

/// The steps of a promoted model. It is live from the first one; the former version has the rest meanwhile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutSettings {
    /// The promoted model's share step by step, rising, in basis points. The last step follows by itself: all but the
    /// hold-back.
    #[schema(min_items = 1, max_items = 20)]
    pub weights: Vec<i32>,
    /// The least time between two steps.
    pub step_seconds: f64,
    /// What becomes of a step whose time is over while it cannot be judged, for want of outcomes. At the end of the watch the
    /// promoted version gets everything either way.
    #[serde(default)]
    pub unjudged: Unjudged,
}

impl Default for DeploymentSettings {
    fn default() -> Self {
        Self { strategy: DeploymentStrategy::default(), decision_max_age_seconds: 7.0 * 86_400.0 }
    }
}

impl DeploymentSettings {
    /// The share that a promotion gives a candidate which has `weight` at that moment: no unit is taken from it.
    #[must_use]
    pub fn first_weight(&self, weight: i32, hold_back: i32) -> i32 {
        let end = WHOLE - hold_back;
        match &self.strategy {
            DeploymentStrategy::Immediate => end,
            DeploymentStrategy::Ramp(rollout) => rollout.next(end, |next| next >= weight),
        }
    }

    /// The share that follows one of `weight`, if the rollout goes further.
    #[must_use]
    pub fn above(&self, weight: i32, hold_back: i32) -> Option<i32> {
        let rollout = self.rollout()?;
        let end = WHOLE - hold_back;
        (weight < end).then(|| rollout.next(end, |next| next > weight))
    }

    /// The steps, where there are any.
    #[must_use]
    pub fn rollout(&self) -> Option<&RolloutSettings> {
        match &self.strategy {
            DeploymentStrategy::Immediate => None,
            DeploymentStrategy::Ramp(rollout) => Some(rollout),
        }
    }

    pub(super) fn check(&self, checks: &mut Checks<'_>, test: &ExperimentSettings, watch: &WatchSettings) {
        checks.duration("decision_max_age_seconds", self.decision_max_age_seconds);
        if let Some(rollout) = self.rollout() {
            rollout.check(checks, test, watch);
        }
    }
}

impl RolloutSettings {
    fn next(&self, end: i32, follows: impl Fn(i32) -> bool) -> i32 {
        self.weights.iter().copied().find(|&next| next < end && follows(next)).unwrap_or(end)
    }

    fn check(&self, checks: &mut Checks<'_>, test: &ExperimentSettings, watch: &WatchSettings) {
        let (weights, seconds) = ("strategy/ramp/weights", "strategy/ramp/step_seconds");
        let end = WHOLE - watch.hold_back_weight;
        let rising = self.weights.is_sorted_by(|before, after| before < after);
        let within = self.weights.iter().all(|weight| (1..end).contains(weight));
        let few = (1..=MOST_STEPS).contains(&self.weights.len());
        if !(rising && within && few) {
            let sentence = format!(
                "must be 1 to {MOST_STEPS} rising shares between 1 and {} basis points: all but the watch's hold-back \
                 follows as the last one",
                end - 1
            );
            checks.that(weights, false, &sentence);
        } else if self.weights.first().is_some_and(|&first| first < test.last_weight()) {
            let sentence =
                "must not begin below the candidate's last share in its test, or units would move back";
            checks.that(weights, false, sentence);
        }
        checks.duration(seconds, self.step_seconds);
        if self.weights.len() as f64 * self.step_seconds >= watch.duration_seconds {
            checks.that(seconds, false, "must leave time for the last share before the watch ends");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Faults;
    use super::*;

    fn ramp(weights: &[i32], step_seconds: f64) -> DeploymentSettings {
        let rollout = RolloutSettings { weights: weights.to_vec(), step_seconds, unjudged: Unjudged::Wait };
        let strategy = DeploymentStrategy::Ramp(rollout);
        DeploymentSettings { strategy, ..DeploymentSettings::default() }
    }

    fn faults(weights: &[i32], step_seconds: f64, hold_back_weight: i32) -> Vec<String> {
        let mut faults = Faults::new();
        let test = ExperimentSettings { candidate_weight: 1_000, ..ExperimentSettings::default() };
        let watch = WatchSettings { duration_seconds: 100.0, hold_back_weight, ..WatchSettings::default() };
        ramp(weights, step_seconds).check(&mut Checks { section: "", faults: &mut faults }, &test, &watch);
        faults.into_keys().collect()
    }

    #[test]
    fn a_rollout_rises_from_the_tests_share_and_ends_within_the_watch() {
        assert!(faults(&[1_000, 5_000, 8_999], 33.0, 1_000).is_empty());
        assert!(faults(&[1_000], 99.0, 0).is_empty());
        assert!(faults(&[9_999], 99.0, 0).is_empty());
        for weights in [&[][..], &[5_000, 5_000], &[5_000, 2_000], &[9_000], &[999], &[0, 2_000]] {
            assert_eq!(faults(weights, 1.0, 1_000), ["/strategy/ramp/weights"], "{weights:?}");
        }
        for seconds in [0.0, -1.0, f64::NAN, 50.0, 1e300] {
            assert_eq!(faults(&[2_000, 5_000], seconds, 0), ["/strategy/ramp/step_seconds"], "{seconds}");
        }
    }

    #[test]
    fn it_goes_on_from_the_share_in_force_and_never_back() {
        let rollout = ramp(&[2_500, 5_000], 1.0);
        let first = |weight| rollout.first_weight(weight, 1_000);
        assert_eq!(
            [0, 1_000, 2_500, 2_501, 5_001, 9_500].map(first),
            [2_500, 2_500, 2_500, 5_000, 9_000, 9_000]
        );
        let above = |weight| rollout.above(weight, 1_000);
        assert_eq!(
            [1_000, 2_500, 3_000, 5_000, 9_000, 9_500].map(above),
            [Some(2_500), Some(5_000), Some(5_000), Some(9_000), None, None]
        );
        assert_eq!(rollout.above(9_000, 0), Some(10_000));
        let immediate = DeploymentSettings::default();
        assert_eq!((immediate.first_weight(1_000, 1_000), immediate.above(1_000, 1_000)), (9_000, None));
    }

    #[test]
    fn both_strategies_are_read_as_they_are_written() {
        let read = |text: &str| serde_json::from_str::<DeploymentSettings>(text);
        assert_eq!(read("{}").unwrap(), DeploymentSettings::default());
        assert_eq!(read(r#"{"strategy": "immediate"}"#).unwrap(), DeploymentSettings::default());
        let given = r#"{"strategy": {"ramp": {"weights": [2500, 5000], "step_seconds": 1.0}}}"#;
        assert_eq!(read(given).unwrap(), ramp(&[2_500, 5_000], 1.0));
        assert!(
            read(r#"{"strategy": {"ramp": {"weights": [2500], "step_seconds": 1, "until": 2}}}"#).is_err()
        );
    }
}
