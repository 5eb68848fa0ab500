//! Tests of the engine's figures.

mod calibration;
mod degenerate;
mod plans;
mod properties;
mod reference;

use super::*;

/// The arms of the reference: independent outcomes in one epoch.
pub(crate) fn two_arms() -> Vec<Cell> {
    vec![
        Cell::average(1, Arm::Baseline, "", 9000, 540.0, 50.6),
        Cell::average(1, Arm::Candidate, "", 1000, 64.0, 6.2),
    ]
}

/// An outcome as the reference of the clustered methods gives it.
fn clustered(in_candidate: impl Fn(u64, u64) -> bool) -> Vec<Cell> {
    let mut cells = Vec::new();
    for g in 0..12_u64 {
        for j in 0..=(4 + g % 4) {
            let y = ((37 * g + 61 * j * j + 11 * j) % 101) as f64 / 101.0;
            let arm = if in_candidate(g, j) { Arm::Candidate } else { Arm::Baseline };
            cells.push(Cell::average(1, arm, &format!("persona {g}"), 1, y, y * y));
        }
    }
    cells
}

#[track_caller]
pub(crate) fn assert_close(actual: f64, expected: f64, tolerance: f64) {
    let error = (actual - expected).abs() / expected.abs().max(f64::MIN_POSITIVE);
    assert!(error <= tolerance, "{actual} is not {expected} (relative error {error:e})");
}

fn interchanged(cells: &[Cell]) -> Vec<Cell> {
    let other = |arm| if arm == Arm::Baseline { Arm::Candidate } else { Arm::Baseline };
    cells.iter().map(|cell| Cell { arm: other(cell.arm), ..cell.clone() }).collect()
}
