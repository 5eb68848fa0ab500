//! The order of the decision, its boundaries and its record.

mod early;
mod extension;
mod guardrails;
mod harm;
mod order;
mod record;

use std::collections::BTreeMap;

use super::*;
use crate::experiments::statistics::{Arm, Cell, PerArm, Sampling, Units};

/// The cells of two arms in one epoch, with independent outcomes: (n, Σy, Σy²).
fn cells(baseline: (u64, f64, f64), candidate: (u64, f64, f64)) -> Vec<Cell> {
    let cell = |arm, (n, sum, sum_sq)| Cell::average(1, arm, "", n, sum, sum_sq);
    vec![cell(Arm::Baseline, baseline), cell(Arm::Candidate, candidate)]
}

fn units(baseline: u64, candidate: u64) -> Units {
    Units {
        epoch: 1,
        weights: PerArm { baseline: 9000, candidate: 1000 },
        counts: PerArm { baseline, candidate },
    }
}

/// The metrics of evidence that has one.
fn engagement(cells: Vec<Cell>, sampling: Sampling) -> BTreeMap<Metric, Observed> {
    BTreeMap::from([(Metric::Engagement, Observed { sampling, cells, planned_standard_error: None })])
}

impl Evidence {
    /// The same with other cells of its primary metric.
    fn with(mut self, cells: Vec<Cell>) -> Self {
        self.engagement_mut().cells = cells;
        self
    }

    /// The same with another metric's cells.
    fn and(mut self, metric: Metric, cells: Vec<Cell>) -> Self {
        let sampling = Sampling::Independent;
        self.metrics.insert(metric, Observed { sampling, cells, planned_standard_error: None });
        self
    }

    fn engagement_mut(&mut self) -> &mut Observed {
        self.metrics.get_mut(&Metric::Engagement).expect("engagement")
    }
}

/// The reference's arms at the horizon: a lift of 6.7 %, one-sided p = 0.00445.
fn better() -> Evidence {
    Evidence {
        hours_elapsed: 168.0,
        horizon_hours: Some(168.0),
        horizon_reached: true,
        extended: false,
        metrics: engagement(cells((9000, 540.0, 50.6), (1000, 64.0, 6.2)), Sampling::Independent),
        units: vec![units(9000, 1000)],
        early_looks: Vec::new(),
    }
}

/// The same with a candidate that is as much worse, and with its variance.
fn worse() -> Evidence {
    better().with(cells((9000, 540.0, 50.6), (1000, 56.0, 5.24)))
}

/// A candidate like its baseline.
fn alike() -> Evidence {
    better().with(cells((9000, 540.0, 50.6), (1000, 60.3, 5.74)))
}

fn decided(evidence: &Evidence, rules: &Rules) -> (Verdict, ReasonCode) {
    let decision = decide(evidence, rules);
    assert!(decision.reason.ends_with('.'), "{}", decision.reason);
    assert!(!decision.reason.contains("NaN") || rules.validate().is_err(), "{}", decision.reason);
    (decision.verdict, decision.reason_code)
}

/// Costs of both arms: dollars over ten engagements for each of 100 posts, with a coefficient of variation of
/// 10 %.
fn costs(baseline: f64, candidate: f64) -> Vec<Cell> {
    let cell = |arm, cost: f64| Cell {
        numerator: cost * 1000.0,
        denominator: 1000.0,
        numerator_sq: cost * cost * 100.0 * 101.0,
        cross: cost * 100.0 * 100.0,
        denominator_sq: 100.0 * 100.0,
        ..Cell::average(1, arm, "", 100, 0.0, 0.0)
    };
    vec![cell(Arm::Baseline, baseline), cell(Arm::Candidate, candidate)]
}
