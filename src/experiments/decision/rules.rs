//! How a decision is taken: the settings of a pipeline that an experiment starts with.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::metrics::{Guardrail, Metric, Watched};
use super::policy::Policy;
use crate::experiments::statistics::Assignment;

/// Early promotion: looks at the primary metric before the horizon, which share the level of the test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EarlyPromotion {
    /// Looks in all, evenly spread over the test; the last is at the horizon.
    #[schema(minimum = 2, maximum = 20)]
    pub looks: u32,
}

impl Default for EarlyPromotion {
    fn default() -> Self {
        Self { looks: 5 }
    }
}

/// An inconclusive test goes on, once. A part of the level is kept for it from the start.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Extension {
    /// How much longer.
    pub hours: f64,
    /// The share of `alpha` that is reserved for the longer part, and missing at the horizon.
    pub reserve: f64,
}

impl Default for Extension {
    fn default() -> Self {
        Self { hours: 168.0, reserve: 0.2 }
    }
}

/// The rules of a decision. Effects and tolerances are relative to the baseline: 0.05 is 5 %.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// The metric that decides.
    pub primary: Metric,
    /// More metrics whose improvement is a success too: one of all is enough, by Holm's procedure.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub success: Vec<Metric>,
    /// What a promotion must not make worse by more than a margin.
    pub guardrails: Vec<Guardrail>,
    /// One-sided level of each guardrail.
    pub guardrail_alpha: f64,
    /// Whether a guardrail of which nothing is known stands in the way of a promotion.
    pub guardrails_need_data: bool,
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
    /// Metrics that are watched for harm; the primary where none is named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub watched: Vec<Watched>,
    /// The chance of a false stop for harm, over all looks and watched metrics together.
    pub harm_alpha: f64,
    /// A loss that is not yet harm, where the watched metric has no tolerance of its own.
    pub harm_tolerance: f64,
    /// Outcomes needed in each arm before harm is judged.
    pub harm_minimum_outcomes: u64,
    /// Clusters needed in each arm before harm is judged.
    pub harm_minimum_clusters: u64,
    /// Looks before the horizon at which a superior candidate is promoted; none where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_promotion: Option<EarlyPromotion>,
    /// How an inconclusive test goes on; a person decides at once where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extension: Option<Extension>,
    /// What a promotion needs besides significance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            primary: Metric::default(),
            success: Vec::new(),
            guardrails: vec![
                Guardrail { metric: Metric::Quality, margin: 0.02 },
                Guardrail { metric: Metric::CostPerEngagement, margin: 0.05 },
            ],
            guardrail_alpha: 0.05,
            guardrails_need_data: false,
            assignment: Assignment::default(),
            alpha: 0.025,
            minimum_outcomes: 100,
            minimum_clusters: 10,
            minimum_hours: 24.0,
            minimum_effect: 0.0,
            sample_ratio_alpha: 0.001,
            watched: Vec::new(),
            harm_alpha: 0.01,
            harm_tolerance: 0.0,
            harm_minimum_outcomes: 100,
            harm_minimum_clusters: 10,
            early_promotion: None,
            extension: None,
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
    /// The metrics one of which must improve, the primary first.
    #[must_use]
    pub fn success_metrics(&self) -> Vec<Metric> {
        let mut metrics = vec![self.primary];
        metrics.extend(&self.success);
        metrics
    }

    /// The metrics that are watched for harm, each with its tolerance.
    #[must_use]
    pub fn watched_metrics(&self) -> Vec<(Metric, f64)> {
        if self.watched.is_empty() {
            return vec![(self.primary, self.harm_tolerance)];
        }
        let tolerance = |watched: &Watched| watched.tolerance.unwrap_or(self.harm_tolerance);
        self.watched.iter().map(|watched| (watched.metric, tolerance(watched))).collect()
    }

    /// Every metric that a decision by these rules looks at, each once.
    #[must_use]
    pub fn metrics(&self) -> BTreeSet<Metric> {
        let asks_for_cost = self.policy.is_some_and(|policy| policy.minimum_cost_gain.is_some());
        self.success_metrics()
            .into_iter()
            .chain(self.guardrails.iter().map(|guardrail| guardrail.metric))
            .chain(self.watched_metrics().into_iter().map(|(metric, _)| metric))
            .chain(asks_for_cost.then_some(Metric::CostPerEngagement))
            .collect()
    }

    /// The level of one watched metric (Bonferroni).
    #[must_use]
    pub fn harm_alpha_each(&self) -> f64 {
        self.harm_alpha / self.watched_metrics().len() as f64
    }

    /// The one-sided level that is spent up to the horizon.
    #[must_use]
    pub fn horizon_alpha(&self) -> f64 {
        self.alpha * (1.0 - self.extension.map_or(0.0, |extension| extension.reserve))
    }

    /// The one-sided level kept for the extended part, of each success metric (Bonferroni).
    #[must_use]
    pub fn extension_alpha_each(&self) -> Option<f64> {
        let metrics = self.success_metrics().len() as f64;
        self.extension.map(|extension| self.alpha * extension.reserve / metrics)
    }

    /// Checks every number. Settings are checked when they are stored; a decision by invalid rules is
    /// inconclusive.
    pub fn validate(&self) -> Result<(), InvalidRule> {
        let (level, share) = ("above 0 and below 0.5", "at least 0 and below 1");
        let inner = "above 0 and below 1";
        let positive = "above 0 and not endless";
        let once = "a list in which each metric stands once and none is the primary";
        let each_once = "a list in which each metric stands once";
        let is_level = |value: f64| value > 0.0 && value < 0.5;
        let is_share = |value: f64| (0.0..1.0).contains(&value);
        let is_inner = |value: f64| value > 0.0 && value < 1.0;
        let policy = self.policy.unwrap_or_default();
        let lift = policy.minimum_engagement_lift.unwrap_or_default();
        let gain = policy.minimum_cost_gain.unwrap_or_default();
        let hours = self.minimum_hours;
        let extension = self.extension.unwrap_or_default();
        let early = self.early_promotion.unwrap_or_default();
        let worst = |values: Vec<f64>, accepted: fn(f64) -> bool| {
            values.into_iter().find(|value| !accepted(*value)).unwrap_or(0.5)
        };
        let margin = worst(self.guardrails.iter().map(|guardrail| guardrail.margin).collect(), |margin| {
            (0.0..1.0).contains(&margin)
        });
        let tolerances = self.watched.iter().filter_map(|watched| watched.tolerance).collect();
        let tolerance = worst(tolerances, |tolerance| (0.0..1.0).contains(&tolerance));
        let count =
            |metrics: &[Metric]| (metrics.len() - metrics.iter().collect::<BTreeSet<_>>().len()) as f64;
        let success = count(&self.success_metrics());
        let guarded: Vec<Metric> = self.guardrails.iter().map(|guardrail| guardrail.metric).collect();
        let watched: Vec<Metric> = self.watched.iter().map(|watched| watched.metric).collect();
        let alone = self.early_promotion.is_none() || self.success.is_empty();
        let checks = [
            ("alpha", self.alpha, is_level(self.alpha), level),
            ("sample_ratio_alpha", self.sample_ratio_alpha, is_level(self.sample_ratio_alpha), level),
            ("harm_alpha", self.harm_alpha, is_level(self.harm_alpha), level),
            ("guardrail_alpha", self.guardrail_alpha, is_level(self.guardrail_alpha), level),
            ("minimum_effect", self.minimum_effect, is_share(self.minimum_effect), share),
            ("harm_tolerance", self.harm_tolerance, is_share(self.harm_tolerance), share),
            ("watched", tolerance, is_share(tolerance), "metrics with a tolerance of at least 0 and below 1"),
            ("watched", count(&watched), count(&watched) == 0.0, each_once),
            ("guardrails", margin, is_share(margin), "metrics with a margin of at least 0 and below 1"),
            ("guardrails", count(&guarded), count(&guarded) == 0.0, each_once),
            ("success", success, success == 0.0, once),
            ("success", self.success.len() as f64, alone, "empty where early_promotion is set"),
            ("minimum_hours", hours, hours.is_finite() && hours >= 0.0, "0 or more"),
            ("early_promotion.looks", f64::from(early.looks), (2..=20).contains(&early.looks), "2 to 20"),
            ("extension.hours", extension.hours, extension.hours > 0.0 && extension.hours < 1e6, positive),
            ("extension.reserve", extension.reserve, is_inner(extension.reserve), inner),
            ("policy.minimum_engagement_lift", lift, lift.is_finite() && lift >= 0.0, "0 or more"),
            ("policy.minimum_cost_gain", gain, is_share(gain), share),
        ];
        match checks.into_iter().find(|(_, _, accepted, _)| !accepted) {
            Some((field, value, _, accepts)) => Err(InvalidRule { field, accepts, value }),
            None => Ok(()),
        }
    }
}
