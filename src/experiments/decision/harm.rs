//! One look at harm: valid as often as one likes, during the test and in the watch after promotion.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::wording::{percent_or_figure, thousands};
use super::{Metric, Observed, Rules};
use crate::experiments::statistics::{Counts, Estimate, Method, NoEstimate, PerArm, estimate, sequential};

/// What a look at harm found in one metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HarmLook {
    /// The metric.
    #[serde(default)]
    pub metric: Metric,
    /// Whether each arm had enough outcomes and clusters to judge.
    pub enough: bool,
    /// Whether the candidate does harm: E has reached its threshold.
    pub harmed: bool,
    /// The e-value against "not worse than tolerated".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub e_value: Option<f64>,
    /// 1/α, with the level of this metric.
    pub threshold: f64,
    /// Candidate − baseline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<f64>,
    /// Candidate / baseline − 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relative: Option<f64>,
    /// The standard error at this look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standard_error: Option<f64>,
    /// SE*, for which the e-value is tuned. Where none was given, this look's: the caller keeps it and gives
    /// it to every later look, because a tuning that moves with the data would not be valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planned_standard_error: Option<f64>,
    /// What the look rests on.
    pub counts: PerArm<Counts>,
    /// One sentence.
    pub reason: String,
}

/// A look at every watched metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HarmReport {
    /// Whether any metric was harmed.
    pub harmed: bool,
    /// Whether baseline and candidate served at the same time. Where not, whatever else changed in between counts for or
    /// against the candidate, and the look is weaker.
    #[serde(default = "concurrent")]
    pub concurrent: bool,
    /// Whether every metric of which there is anything could be judged.
    pub enough: bool,
    /// One sentence: of the metric that was harmed or, where none was, of each.
    pub reason: String,
    /// Each metric, in the order of the rules.
    pub looks: Vec<HarmLook>,
}

fn concurrent() -> bool {
    true
}

impl HarmReport {
    /// Looks at every watched metric.
    #[must_use]
    pub fn of(metrics: &BTreeMap<Metric, Observed>, rules: &Rules) -> Self {
        let look = |(metric, _)| look_for_harm(metric, metrics.get(&metric), rules);
        Self::from_looks(rules.watched_metrics().into_iter().map(look).collect())
    }

    /// The report of looks that were made.
    #[must_use]
    pub(crate) fn from_looks(looks: Vec<HarmLook>) -> Self {
        let harmed = looks.iter().find(|look| look.harmed);
        let seen = || looks.iter().filter(|look| look.counts != PerArm::default());
        let reason = harmed.map_or_else(
            || looks.iter().map(|look| &*look.reason).collect::<Vec<_>>().join(" "),
            |look| look.reason.clone(),
        );
        Self {
            harmed: harmed.is_some(),
            concurrent: true,
            enough: seen().count() > 0 && seen().all(|look| look.enough),
            reason,
            looks,
        }
    }

    /// The same report, of arms that served one after the other.
    #[must_use]
    pub(crate) fn before_after(mut self) -> Self {
        self.concurrent = false;
        self.reason = format!(
            "{} This compares with the baseline before the promotion, not beside it, and is weaker evidence.",
            self.reason
        );
        self
    }

    /// The standard errors that later looks are to be given, by metric.
    #[must_use]
    pub fn planned_standard_errors(&self) -> BTreeMap<Metric, f64> {
        let planned = |look: &HarmLook| Some((look.metric, look.planned_standard_error?));
        self.looks.iter().filter_map(planned).collect()
    }
}

/// Looks for harm in one metric, at its share of the level.
///
/// The tolerance is relative, so the harm beyond it is the contrast with m = 1 − tolerance (1 + tolerance
/// where lower is better), whose variance is used.
#[must_use]
pub fn look_for_harm(metric: Metric, observed: Option<&Observed>, rules: &Rules) -> HarmLook {
    let direction = metric.direction();
    let alpha = rules.harm_alpha_each();
    let tolerance = rules.watched_metrics().into_iter().find(|(watched, _)| *watched == metric);
    let tolerance = tolerance.map_or(rules.harm_tolerance, |(_, tolerance)| tolerance);
    let threshold = Some(1.0 / alpha).filter(|threshold| threshold.is_finite()).unwrap_or(f64::MAX);
    let found = observed.map_or(Err(NoEstimate::NothingToCompare), |observed| {
        let method = Method::of(rules.assignment, observed.sampling);
        estimate(&observed.cells, method, direction.multiplier(-tolerance), 1.0 - 2.0 * rules.alpha)
    });
    let contrast = match found {
        Ok(contrast) => contrast,
        Err(why) => return HarmLook::without_estimate(metric, why, threshold),
    };
    let enough = enough(&contrast, rules);
    let standard_error = contrast.standard_error;
    let given = observed.and_then(|observed| observed.planned_standard_error);
    let planned = planned_error(given, &contrast, rules);
    let excess = -direction.better(contrast.difference);
    let e_value = match planned {
        _ if !enough => None,
        // Every call of one arm fails and none of the other: no harm is plainer.
        _ if standard_error == 0.0 => {
            sequential::harm_e_value_without_variance(beyond_rounding(excess, &contrast))
        }
        Some(planned) => sequential::harm_e_value(excess, standard_error, planned, alpha),
        None => None,
    };
    let harmed = e_value.is_some_and(|e_value| e_value >= threshold);
    let reason = sentence(metric, &contrast, rules, enough, e_value, threshold);
    HarmLook {
        metric,
        enough,
        harmed,
        e_value,
        threshold,
        difference: Some(contrast.mean_candidate - contrast.mean_baseline)
            .filter(|number| number.is_finite()),
        relative: contrast.relative,
        standard_error: Some(standard_error),
        planned_standard_error: planned,
        counts: contrast.counts,
        reason,
    }
}

/// A difference, or none where it is as small as what rounding leaves between equal means.
pub(super) fn beyond_rounding(difference: f64, found: &Estimate) -> f64 {
    let largest = found.mean_candidate.abs().max(found.mean_baseline.abs());
    if difference.abs() <= 1e-9 * largest { 0.0 } else { difference }
}

/// Whether each arm has what a look may be judged by.
pub(super) fn enough(found: &Estimate, rules: &Rules) -> bool {
    found.counts.both(|count| {
        count.outcomes >= rules.harm_minimum_outcomes && count.clusters >= rules.harm_minimum_clusters
    })
}

/// SE*: what was given, else that of this look where it has enough data.
pub(super) fn planned_error(given: Option<f64>, found: &Estimate, rules: &Rules) -> Option<f64> {
    let is_error = |error: &f64| error.is_finite() && *error > 0.0;
    let own = Some(found.standard_error).filter(|_| enough(found, rules));
    given.filter(is_error).or(own.filter(is_error))
}

impl HarmLook {
    fn without_estimate(metric: Metric, why: NoEstimate, threshold: f64) -> Self {
        Self {
            metric,
            enough: false,
            harmed: false,
            e_value: None,
            threshold,
            difference: None,
            relative: None,
            standard_error: None,
            planned_standard_error: None,
            counts: PerArm::default(),
            reason: format!("Harm to {} cannot be judged: {why}.", metric.name()),
        }
    }
}

fn sentence(
    metric: Metric,
    contrast: &Estimate,
    rules: &Rules,
    enough: bool,
    e_value: Option<f64>,
    threshold: f64,
) -> String {
    let label = metric.label();
    let counts = contrast.counts;
    let Some(e_value) = e_value else {
        return if enough {
            format!("Harm to {} cannot be judged: its standard error is not a number.", metric.name())
        } else {
            format!(
                "Too early to judge harm to {}: {} baseline and {} candidate outcomes of {} and {} clusters, of \
                 at least {} and {} in each arm.",
                metric.name(),
                thousands(counts.baseline.outcomes),
                thousands(counts.candidate.outcomes),
                thousands(counts.baseline.clusters),
                thousands(counts.candidate.clusters),
                thousands(rules.harm_minimum_outcomes),
                thousands(rules.harm_minimum_clusters),
            )
        };
    };
    let change = percent_or_figure(contrast.relative, contrast.mean_candidate - contrast.mean_baseline);
    let against = format!("e-value {}, threshold {threshold:.0}", figure(e_value));
    if e_value >= threshold {
        format!("{label} changed by {change}, which is harm ({against}).")
    } else {
        format!("No harm shown: {} changed by {change} ({against}).", metric.name())
    }
}

fn figure(e_value: f64) -> String {
    if e_value >= f64::MAX {
        "beyond all numbers".into()
    } else if e_value >= 1e6 {
        format!("{e_value:.1e}")
    } else {
        format!("{e_value:.2}")
    }
}
