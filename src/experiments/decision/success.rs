//! Whether a success metric improved, at the level that this moment of the test allows.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::harm::planned_error;
use super::{EarlyLook, Evidence, Metric, Rules};
use crate::experiments::statistics::group_sequential::{Bound, bounds};
use crate::experiments::statistics::sequential::{Sequence, confidence_sequence};
use crate::experiments::statistics::{Estimate, Method, NoEstimate, estimate, holm};

/// One success metric with its figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SuccessResult {
    /// The metric.
    pub metric: Metric,
    /// The effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimate: Option<Estimate>,
    /// Why there is no estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_estimate: Option<NoEstimate>,
    /// The two-sided confidence sequence of the difference, at twice the level of the test, in the extended
    /// part at twice the level that was reserved for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<Sequence>,
    /// SE*, for which the sequence is tuned; kept by the caller as that of the looks at harm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planned_standard_error: Option<f64>,
    /// The one-sided p-value that is held against the level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p_value: Option<f64>,
    /// Whether the metric improved.
    pub superior: bool,
    /// How far the interval reaches beyond the minimum effect (absolute): below 0, no such effect is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_case: Option<f64>,
}

/// All success metrics, and the level they are held against.
pub(super) struct Success {
    pub(super) metrics: Vec<SuccessResult>,
    pub(super) level: f64,
    pub(super) look: Option<EarlyLook>,
    pub(super) bound: Option<Bound>,
}

impl Success {
    /// Estimates every success metric and judges it: at the horizon by Holm's procedure, at an early look by
    /// its bound, in the extended part by the confidence sequence. `enough` says whether a look before the
    /// horizon has the data to judge by.
    pub(super) fn of(evidence: &Evidence, rules: &Rules, enough: impl Fn(&Estimate) -> bool) -> Self {
        let mut metrics: Vec<SuccessResult> =
            rules.success_metrics().into_iter().map(|metric| result(metric, evidence, rules)).collect();
        let (look, bound) =
            early(metrics[0].estimate.as_ref().filter(|found| enough(found)), evidence, rules);
        let reserved = rules.extension_alpha_each().filter(|_| evidence.extended);
        // What earlier looks have spent is gone, also where no bound can be computed.
        let left = if evidence.early_looks.is_empty() { rules.horizon_alpha() } else { 0.0 };
        let level = reserved.or(bound.map(|bound| bound.level)).unwrap_or(left);
        for other in metrics.iter_mut().skip(1) {
            other.p_value = other.p_value.filter(|_| other.estimate.as_ref().is_some_and(&enough));
        }
        let p_values: Vec<Option<f64>> = metrics.iter().map(|metric| metric.p_value).collect();
        // In the extended part the reserved level was divided among the metrics.
        let adjusted = if evidence.extended { p_values } else { holm::adjusted(&p_values) };
        for (metric, p_value) in metrics.iter_mut().zip(adjusted) {
            metric.p_value = p_value;
            metric.superior = p_value.is_some_and(|p| p < level);
        }
        Self { metrics, level, look, bound }
    }
}

fn result(metric: Metric, evidence: &Evidence, rules: &Rules) -> SuccessResult {
    let mut result = SuccessResult {
        metric,
        estimate: None,
        no_estimate: None,
        sequence: None,
        planned_standard_error: None,
        p_value: None,
        superior: false,
        best_case: None,
    };
    let Some(observed) = evidence.randomised(metric) else {
        return SuccessResult { no_estimate: Some(NoEstimate::NothingToCompare), ..result };
    };
    let method = Method::of(rules.assignment, observed.sampling);
    let direction = metric.direction();
    let level = 1.0 - 2.0 * rules.horizon_alpha();
    let estimated = |multiplier| estimate(&observed.cells, method, multiplier, level);
    let found = match estimated(1.0) {
        Ok(found) => found,
        Err(why) => return SuccessResult { no_estimate: Some(why), ..result },
    };
    let reserved = rules.extension_alpha_each().filter(|_| evidence.extended);
    // The two-sided sequence has half of its level on each side.
    let two_sided = 2.0 * reserved.unwrap_or_else(|| rules.horizon_alpha());
    let planned = planned_error(observed.planned_standard_error, &found, rules);
    result.planned_standard_error = planned;
    result.sequence = sequence(&found, planned, two_sided);
    let beyond = estimated(direction.multiplier(rules.minimum_effect)).ok();
    if reserved.is_some() {
        // The sequence is symmetric: on the better side its one-sided p-value is half of the two-sided one.
        let half = |sequence: Sequence| {
            let better = direction.better(found.difference) > 0.0;
            if better { sequence.p_value / 2.0 } else { 1.0 }
        };
        result.p_value = result.sequence.map(half);
        let best = |sequence: Sequence| sequence.interval.best(direction);
        result.best_case = beyond.and_then(|contrast| sequence(&contrast, planned, two_sided)).map(best);
    } else {
        result.p_value = found.p_better(direction);
        result.best_case = beyond.and_then(|contrast| contrast.best_case(direction));
    }
    result.estimate = Some(found);
    result
}

fn sequence(found: &Estimate, planned: Option<f64>, two_sided: f64) -> Option<Sequence> {
    confidence_sequence(found.difference, found.standard_error, planned?, two_sided)
}

/// The look that is due, with its bound: before the horizon the next of the evenly spread looks, at the
/// horizon what the earlier ones have left.
fn early(
    primary: Option<&Estimate>,
    evidence: &Evidence,
    rules: &Rules,
) -> (Option<EarlyLook>, Option<Bound>) {
    let due = || {
        let settings = rules.early_promotion.filter(|_| !evidence.extended)?;
        let looks = f64::from(settings.looks);
        let before = evidence.early_looks.last().map_or(0.0, |look| look.fraction);
        let fraction = if evidence.horizon_reached {
            1.0
        } else {
            let passed = (evidence.hours_elapsed / evidence.horizon_hours?).min(1.0);
            // The next of the evenly spread looks must have come.
            (passed < 1.0 && (passed * looks).floor() > (before * looks).floor()).then_some(passed)?
        };
        let error = primary?.standard_error;
        Some(EarlyLook { fraction, information: error.powi(-2) }).filter(EarlyLook::is_usable)
    };
    let Some(look) = due() else { return (None, None) };
    let mut looks = evidence.early_looks.clone();
    looks.push(look);
    let bound = bounds(rules.horizon_alpha(), &looks).and_then(|bounds| bounds.last().copied());
    (bound.map(|_| look), bound)
}
