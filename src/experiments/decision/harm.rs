//! One look at harm: valid as often as one likes, during the test and in the watch after promotion.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Rules;
use super::wording::{percent_or_figure, thousands};
use crate::experiments::statistics::{
    Cell, Counts, Estimate, Method, NoEstimate, PerArm, Sampling, estimate, sequential,
};

/// What a look at harm found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HarmLook {
    /// Whether each arm had enough outcomes and clusters to judge.
    pub enough: bool,
    /// Whether the candidate does harm: E has reached its threshold.
    pub harmed: bool,
    /// The e-value against "not worse than tolerated".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub e_value: Option<f64>,
    /// 1/α.
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

/// Looks for harm on the primary metric.
///
/// The tolerance is relative, so the harm beyond it is the contrast with m = 1 − tolerance (1 + tolerance
/// where lower is better), whose variance is used. `planned_standard_error` is SE*, see
/// [`HarmLook::planned_standard_error`].
#[must_use]
pub fn look_for_harm(
    cells: &[Cell],
    sampling: Sampling,
    rules: &Rules,
    planned_standard_error: Option<f64>,
) -> HarmLook {
    let direction = rules.primary.direction();
    let multiplier = direction.multiplier(-rules.harm_tolerance);
    let method = Method::of(rules.assignment, sampling);
    let found = estimate(cells, method, multiplier, 1.0 - 2.0 * rules.alpha);
    let threshold =
        Some(1.0 / rules.harm_alpha).filter(|threshold| threshold.is_finite()).unwrap_or(f64::MAX);
    let contrast = match found {
        Ok(contrast) => contrast,
        Err(why) => return HarmLook::without_estimate(why, threshold),
    };
    let enough = contrast.counts.both(|count| {
        count.outcomes >= rules.harm_minimum_outcomes && count.clusters >= rules.harm_minimum_clusters
    });
    let standard_error = contrast.standard_error;
    let given = planned_standard_error.filter(|error| error.is_finite() && *error > 0.0);
    let planned = given.or_else(|| (enough && standard_error > 0.0).then_some(standard_error));
    let e_value = planned.filter(|_| enough).and_then(|planned| {
        let excess = -direction.better(contrast.difference);
        sequential::harm_e_value(excess, standard_error, planned, rules.harm_alpha)
    });
    let harmed = e_value.is_some_and(|e_value| e_value >= 1.0 / rules.harm_alpha);
    let reason = sentence(&contrast, rules, enough, e_value, harmed);
    HarmLook {
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

impl HarmLook {
    fn without_estimate(why: NoEstimate, threshold: f64) -> Self {
        Self {
            enough: false,
            harmed: false,
            e_value: None,
            threshold,
            difference: None,
            relative: None,
            standard_error: None,
            planned_standard_error: None,
            counts: PerArm::default(),
            reason: format!("Harm cannot be judged: {why}."),
        }
    }
}

fn sentence(contrast: &Estimate, rules: &Rules, enough: bool, e_value: Option<f64>, harmed: bool) -> String {
    let label = rules.primary.label();
    let counts = contrast.counts;
    let Some(e_value) = e_value else {
        return if enough {
            "Harm cannot be judged: the outcomes do not vary at all.".to_owned()
        } else {
            format!(
                "Too early to judge harm: {} baseline and {} candidate outcomes of {} and {} clusters, of at \
                 least {} and {} in each arm.",
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
    let against = format!("e-value {}, threshold {:.0}", figure(e_value), 1.0 / rules.harm_alpha);
    if harmed {
        format!("{label} changed by {change}, which is harm ({against}).")
    } else {
        format!("No harm shown: {label} changed by {change} ({against}).", label = label.to_lowercase())
    }
}

fn figure(e_value: f64) -> String {
    if e_value >= 1e6 { format!("{e_value:.1e}") } else { format!("{e_value:.2}") }
}
