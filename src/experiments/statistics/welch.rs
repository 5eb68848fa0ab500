//! The variance of a contrast between independent outcomes, stratified by epoch.
//!
//! Sources: Welch (1947) and Satterthwaite (1946) for the degrees of freedom; the delta method for a ratio
//! (Deng, Knoblich and Lu, arXiv 1803.06336), which for an average is the ordinary s²/n.

use super::strata::{Strata, Sums};
use super::{Arm, NoEstimate};

/// Sums of squares are differences of large numbers: what is smaller than this share of them is rounding.
const ROUNDING: f64 = 1e-12;

/// One arm in one epoch.
#[derive(Debug)]
struct Part {
    arm: Arm,
    /// w² · Var(r).
    variance: f64,
    freedom: f64,
}

/// The variances of all arms and epochs, with m = 1.
#[derive(Debug)]
pub(super) struct Welch {
    parts: Vec<Part>,
}

impl Welch {
    pub(super) fn of(strata: &Strata<'_>) -> Result<Self, NoEstimate> {
        let mut parts = Vec::with_capacity(strata.epochs.len() * 2);
        for epoch in &strata.epochs {
            for arm in [Arm::Baseline, Arm::Candidate] {
                let sums = &epoch.groups.get(arm).total;
                let n = sums.n as f64;
                let spread = squared_residuals(sums)? / sums.denominator / sums.denominator;
                parts.push(Part {
                    arm,
                    variance: epoch.weight.powi(2) * spread * n / (n - 1.0),
                    freedom: n - 1.0,
                });
            }
        }
        Ok(Self { parts })
    }

    /// V of rT − m·rC.
    pub(super) fn variance(&self, multiplier: f64) -> f64 {
        self.scaled(multiplier).map(|(variance, _)| variance).sum()
    }

    /// Satterthwaite's: V² / Σ (v² / (n − 1)).
    pub(super) fn degrees_of_freedom(&self, multiplier: f64) -> f64 {
        let largest = self.scaled(multiplier).fold(0.0, |max, (variance, _)| f64::max(max, variance));
        // As shares of the largest part, because squares of tiny variances underflow.
        let share = |variance: f64| variance / largest;
        let total: f64 = self.scaled(multiplier).map(|(variance, _)| share(variance)).sum();
        let spread: f64 =
            self.scaled(multiplier).map(|(variance, freedom)| share(variance).powi(2) / freedom).sum();
        total.powi(2) / spread
    }

    fn scaled(&self, multiplier: f64) -> impl Iterator<Item = (f64, f64)> {
        self.parts.iter().map(move |part| match part.arm {
            Arm::Baseline => (part.variance * multiplier.powi(2), part.freedom),
            Arm::Candidate => (part.variance, part.freedom),
        })
    }
}

/// Σ(S − rN)², which for an average is Σy² − (Σy)²/n.
fn squared_residuals(sums: &Sums) -> Result<f64, NoEstimate> {
    let ratio = sums.ratio();
    let squares = sums.numerator_sq + ratio * ratio * sums.denominator_sq;
    let residual = squares - 2.0 * ratio * sums.cross;
    if residual.abs() <= ROUNDING * squares {
        Ok(0.0)
    } else if residual < 0.0 {
        // No outcomes have such sums (Cauchy–Schwarz).
        Err(NoEstimate::Unusable)
    } else {
        Ok(residual)
    }
}
