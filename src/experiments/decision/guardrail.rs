//! Whether the candidate stays within the margin of each guardrail.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::harm::{beyond_rounding, enough};
use super::{Check, CheckCode, Evidence, Guardrail, Metric, Rules};
use crate::experiments::statistics::{Arm, Cell, Estimate, Method, estimate};

/// What is known of a guardrail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GuardrailStatus {
    /// The candidate is shown not to be worse than the margin allows.
    NonInferior,
    /// The candidate is shown to be worse than the margin allows: its interval is wholly beyond it.
    Worse,
    /// Neither is shown.
    NotShown,
    /// An arm has no data, or too little that does not vary at all: nothing can be tested.
    NoData,
}

/// A guardrail with its figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GuardrailResult {
    /// The metric.
    pub metric: Metric,
    /// The loss that is accepted, relative to the baseline.
    pub margin: f64,
    /// What is known.
    pub status: GuardrailStatus,
    /// The contrast with m = 1 − margin (1 + margin where lower is better), better than 0 where the candidate
    /// stays within the margin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contrast: Option<Estimate>,
}

impl GuardrailResult {
    /// Tests the contrast at the guardrails' one-sided level, unadjusted: all must hold (Schultzberg, Ankargren
    /// and Frånberg, arXiv 2402.11609).
    pub(super) fn of(guardrail: Guardrail, evidence: &Evidence, rules: &Rules) -> Self {
        let Guardrail { metric, margin } = guardrail;
        let direction = metric.direction();
        let observed = evidence.randomised(metric);
        let contrast = observed.as_ref().and_then(|observed| {
            let method = Method::of(rules.assignment, observed.sampling);
            let level = 1.0 - 2.0 * rules.guardrail_alpha;
            estimate(&observed.cells, method, direction.multiplier(-margin), level).ok()
        });
        let status = match &contrast {
            Some(found) => status(found, metric, rules),
            None if observed.is_some_and(|observed| is_spent_for_nothing(&observed.cells)) => {
                GuardrailStatus::NotShown
            }
            None => GuardrailStatus::NoData,
        };
        Self { metric, margin, status, contrast }
    }

    pub(super) fn check(&self, rules: &Rules) -> Check {
        let p = self.contrast.as_ref().and_then(|found| found.p_better(self.metric.direction()));
        let check = Check::new(CheckCode::Guardrail, p, rules.guardrail_alpha, |p, level| p < level);
        let passed =
            (self.status != GuardrailStatus::NoData).then_some(self.status == GuardrailStatus::NonInferior);
        Check { passed, ..check }.of(self.metric)
    }
}

fn status(found: &Estimate, metric: Metric, rules: &Rules) -> GuardrailStatus {
    let direction = metric.direction();
    match (found.p_better(direction), found.best_case(direction)) {
        (Some(p), _) if p < rules.guardrail_alpha => GuardrailStatus::NonInferior,
        (Some(_), Some(best)) if best < 0.0 => GuardrailStatus::Worse,
        (Some(_), _) => GuardrailStatus::NotShown,
        // Nothing varies: enough of that is as plain as it can be, in either direction.
        (None, _) if !enough(found, rules) => GuardrailStatus::NoData,
        (None, _) if direction.better(beyond_rounding(found.difference, found)) >= 0.0 => {
            GuardrailStatus::NonInferior
        }
        (None, _) => GuardrailStatus::Worse,
    }
}

/// Whether the candidate has something to divide and nothing to divide it by, such as costs without an engagement, and the
/// baseline has both. No ratio can be computed; but it is no missing one.
fn is_spent_for_nothing(cells: &[Cell]) -> bool {
    let total = |arm, of: fn(&Cell) -> f64| cells.iter().filter(|cell| cell.arm == arm).map(of).sum::<f64>();
    total(Arm::Candidate, |cell| cell.numerator) > 0.0
        && total(Arm::Candidate, |cell| cell.denominator) <= 0.0
        && total(Arm::Baseline, |cell| cell.denominator) > 0.0
}
