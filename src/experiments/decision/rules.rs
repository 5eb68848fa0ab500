//! How a decision is taken: the settings of a pipeline that an experiment starts with.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::policy::Policy;
use crate::experiments::statistics::{Assignment, Direction};

/// A metric of an experiment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// S = engagement rate of the post, N = 1.
    #[default]
    Engagement,
    /// S = dollars, N = engagements.
    CostPerEngagement,
    /// S = score, N = 1 where scored.
    Quality,
    /// S = 1 if failed, N = 1.
    ErrorRate,
    /// S = milliseconds, N = 1.
    Latency,
}

impl Metric {
    /// Which way it is better.
    #[must_use]
    pub fn direction(self) -> Direction {
        match self {
            Self::Engagement | Self::Quality => Direction::HigherIsBetter,
            Self::CostPerEngagement | Self::ErrorRate | Self::Latency => Direction::LowerIsBetter,
        }
    }

    /// Its name at the start of a sentence.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Engagement => "Engagement",
            Self::CostPerEngagement => "Cost per engagement",
            Self::Quality => "Quality",
            Self::ErrorRate => "The error rate",
            Self::Latency => "Latency",
        }
    }
}

/// The rules of a decision. Effects and tolerances are relative to the baseline: 0.05 is 5 %.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// The metric that decides.
    pub primary: Metric,
    /// How units are assigned.
    pub assignment: Assignment,
    /// One-sided level of the test for superiority.
    pub alpha: f64,
    /// Outcomes needed in each arm.
    pub minimum_outcomes: u64,
    /// Clusters needed in each arm.
    pub minimum_clusters: u64,
    /// Hours the test must have run.
    pub minimum_hours: f64,
    /// The smallest improvement of interest: when the interval ends below it, the candidate is rejected.
    pub minimum_effect: f64,
    /// A sample-ratio p-value below this makes the experiment invalid.
    pub sample_ratio_alpha: f64,
    /// The chance of a false stop for harm, over all looks together.
    pub harm_alpha: f64,
    /// A loss that is not yet harm.
    pub harm_tolerance: f64,
    /// Outcomes needed in each arm before harm is judged.
    pub harm_minimum_outcomes: u64,
    /// Clusters needed in each arm before harm is judged.
    pub harm_minimum_clusters: u64,
    /// What a promotion needs besides significance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            primary: Metric::default(),
            assignment: Assignment::default(),
            alpha: 0.025,
            minimum_outcomes: 100,
            minimum_clusters: 10,
            minimum_hours: 24.0,
            minimum_effect: 0.0,
            sample_ratio_alpha: 0.001,
            harm_alpha: 0.01,
            harm_tolerance: 0.0,
            harm_minimum_outcomes: 100,
            harm_minimum_clusters: 10,
            policy: None,
        }
    }
}

/// A rule that makes no sense.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("`{field}` must be {accepts}, but is {value}")]
pub struct InvalidRule {
    /// The field of [`Rules`] at fault.
    pub field: &'static str,
    /// What it accepts.
    pub accepts: &'static str,
    /// What it is.
    pub value: f64,
}

impl Rules {
    /// Checks every number. Settings are checked when they are stored; a decision by invalid rules is
    /// inconclusive.
    pub fn validate(&self) -> Result<(), InvalidRule> {
        let level = "above 0 and below 0.5";
        let share = "at least 0 and below 1";
        let is_level = |value: f64| value > 0.0 && value < 0.5;
        let is_share = |value: f64| (0.0..1.0).contains(&value);
        let policy = self.policy.unwrap_or_default();
        let lift = policy.minimum_engagement_lift.unwrap_or_default();
        let gain = policy.minimum_cost_gain.unwrap_or_default();
        let hours = self.minimum_hours;
        let checks = [
            ("alpha", self.alpha, is_level(self.alpha), level),
            ("sample_ratio_alpha", self.sample_ratio_alpha, is_level(self.sample_ratio_alpha), level),
            ("harm_alpha", self.harm_alpha, is_level(self.harm_alpha), level),
            ("minimum_effect", self.minimum_effect, is_share(self.minimum_effect), share),
            ("harm_tolerance", self.harm_tolerance, is_share(self.harm_tolerance), share),
            ("minimum_hours", hours, hours.is_finite() && hours >= 0.0, "0 or more"),
            ("policy.minimum_engagement_lift", lift, lift.is_finite() && lift >= 0.0, "0 or more"),
            ("policy.minimum_cost_gain", gain, is_share(gain), share),
        ];
        match checks.into_iter().find(|(_, _, accepted, _)| !accepted) {
            Some((field, value, _, accepts)) => Err(InvalidRule { field, accepts, value }),
            None => Ok(()),
        }
    }
}
