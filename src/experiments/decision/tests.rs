//! The order of the decision, its boundaries and its record.

mod harm;
mod order;
mod record;

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

/// The reference's arms at the horizon: a lift of 6.7 %, one-sided p = 0.00445.
fn better() -> Evidence {
    Evidence {
        hours_elapsed: 168.0,
        horizon_reached: true,
        sampling: Sampling::Independent,
        cells: cells((9000, 540.0, 50.6), (1000, 64.0, 6.2)),
        units: vec![units(9000, 1000)],
        cost: Vec::new(),
        planned_standard_error: None,
    }
}

/// The same with a candidate that is as much worse, and with its variance.
fn worse() -> Evidence {
    Evidence { cells: cells((9000, 540.0, 50.6), (1000, 56.0, 5.24)), ..better() }
}

/// A candidate like its baseline.
fn alike() -> Evidence {
    Evidence { cells: cells((9000, 540.0, 50.6), (1000, 60.3, 5.74)), ..better() }
}

fn decided(evidence: &Evidence, rules: &Rules) -> (Verdict, ReasonCode) {
    let decision = decide(evidence, rules);
    assert!(decision.reason.ends_with('.'), "{}", decision.reason);
    assert!(!decision.reason.contains("NaN") || rules.validate().is_err(), "{}", decision.reason);
    (decision.verdict, decision.reason_code)
}

/// Costs of both arms: dollars over engagements.
fn costs(baseline: f64, candidate: f64) -> Vec<Cell> {
    let cell = |arm, cost: f64| Cell {
        numerator: cost * 1000.0,
        denominator: 1000.0,
        ..Cell::average(1, arm, "", 100, 0.0, 1.0)
    };
    vec![cell(Arm::Baseline, baseline), cell(Arm::Candidate, candidate)]
}
