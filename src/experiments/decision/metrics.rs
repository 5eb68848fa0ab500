//! What is measured of an outcome, and the part a metric plays in a decision.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::experiments::statistics::Direction;

/// A metric of an experiment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
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

    /// Its name within a sentence.
    #[must_use]
    pub fn name(self) -> String {
        self.label().to_lowercase()
    }
}

/// A metric that a promotion must not make worse by more than a margin.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Guardrail {
    /// The metric.
    pub metric: Metric,
    /// The loss that is accepted, relative to the baseline: 0.02 is 2 %.
    pub margin: f64,
}

/// A metric that is watched for harm.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Watched {
    /// The metric.
    pub metric: Metric,
    /// A loss that is not yet harm, relative to the baseline; `harm_tolerance` of the rules where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<f64>,
}
