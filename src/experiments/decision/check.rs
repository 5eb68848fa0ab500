//! The checks a decision went through, with their figures.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Metric;

/// What a decision is, seen from the experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The test goes on; nothing is decided.
    Collecting,
    /// The candidate becomes live.
    Promote,
    /// The candidate is not better by what is of interest.
    Reject,
    /// The evidence does not tell; a person decides.
    Inconclusive,
    /// The evidence does not tell yet, and there is a part of the level left to go on with: once.
    Extend,
    /// The candidate does harm; the test ends at once.
    StopForHarm,
    /// The experiment itself is faulty.
    Invalid,
}

/// Why, for machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// The primary metric is better.
    PrimarySuperior,
    /// The interval ends below no effect at all.
    NoLift,
    /// The interval ends below the minimum effect.
    EffectBelowMinimum,
    /// Neither an improvement nor its absence is shown.
    NotSignificant,
    /// A guardrail is worse by more than its margin.
    GuardrailWorse,
    /// Better, but a guardrail is not shown to stay within its margin.
    GuardrailNotShown,
    /// Better, but nothing is known of a guardrail and the rules ask for it.
    GuardrailUnknown,
    /// Better, but by less than the policy asks.
    LiftBelowPolicy,
    /// Better, but it saves less than the policy asks.
    CostGainBelowPolicy,
    /// Better, but costs are not known and the policy asks for them.
    CostGainUnknown,
    /// Too few outcomes, clusters or hours.
    InsufficientOutcomes,
    /// Nothing in the comparison varies, so nothing can be tested.
    NoVariance,
    /// The sums are not those of any outcomes.
    EvidenceUnusable,
    /// Units arrived in another proportion than configured.
    SampleRatioMismatch,
    /// No units were given, so that the proportion cannot be checked.
    SampleRatioUnknown,
    /// The candidate does harm.
    Harm,
    /// The horizon has not come.
    HorizonNotReached,
    /// A rule has an impossible value.
    RulesInvalid,
}

/// What was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckCode {
    /// The sample-ratio p-value against its level.
    SampleRatio,
    /// The e-value against harm, and the threshold it must stay below.
    Harm,
    /// Hours of the test.
    Hours,
    /// Outcomes of the smaller arm.
    Outcomes,
    /// Clusters of the arm that has fewer.
    Clusters,
    /// The one-sided p-value of superiority against its level: Holm's where there are several success metrics,
    /// that of the confidence sequence in the extended part of a test.
    Superiority,
    /// The one-sided p-value of a guardrail's non-inferiority against its level.
    Guardrail,
    /// How far the interval reaches beyond the minimum effect (absolute): below 0, the candidate is rejected.
    MinimumEffect,
    /// The engagement lift the policy asks for.
    PolicyLift,
    /// The cost gain the policy asks for.
    PolicyCostGain,
}

/// One check.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = DecisionCheck)]
pub struct Check {
    /// What was checked.
    pub code: CheckCode,
    /// The metric, where the check is of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<Metric>,
    /// Whether it holds; absent where there was no data to tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passed: Option<bool>,
    /// The figure found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual: Option<f64>,
    /// The figure it is held against.
    pub required: f64,
}

impl Check {
    /// A check of a figure that may be missing.
    pub(super) fn new(
        code: CheckCode,
        actual: Option<f64>,
        required: f64,
        holds: impl Fn(f64, f64) -> bool,
    ) -> Self {
        let passed = actual.map(|actual| holds(actual, required));
        Self { code, metric: None, passed, actual, required }
    }

    /// The same, of one metric.
    pub(super) fn of(self, metric: Metric) -> Self {
        Self { metric: Some(metric), ..self }
    }

    /// Whether the check is known to hold.
    pub(super) fn holds(&self) -> bool {
        self.passed == Some(true)
    }

    /// Whether the check is known not to hold.
    pub(super) fn fails(&self) -> bool {
        self.passed == Some(false)
    }
}
