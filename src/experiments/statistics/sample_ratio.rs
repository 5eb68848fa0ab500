//! Whether units arrived in the proportion of the configured weights.
//!
//! Source: Fabijan et al., "Diagnosing Sample Ratio Mismatch in Online Controlled Experiments", KDD 2019.

use std::collections::BTreeMap;

use super::distribution::chi_squared_greater;
use super::{PerArm, Units};

/// The p-value of Pearson's χ² on distinct units, summed over epochs with one degree of freedom each.
///
/// Rows of the same epoch and weights are added up. An epoch without units, or in which an arm had no
/// weight, has no ratio to check and is passed over; `None` if that leaves none.
#[must_use]
pub fn p_value(units: &[Units]) -> Option<f64> {
    let mut epochs: BTreeMap<(i64, u32, u32), PerArm<u64>> = BTreeMap::new();
    for row in units.iter().filter(|row| row.weights.both(|weight| *weight > 0)) {
        let counts = epochs.entry((row.epoch, row.weights.baseline, row.weights.candidate)).or_default();
        counts.baseline = counts.baseline.saturating_add(row.counts.baseline);
        counts.candidate = counts.candidate.saturating_add(row.counts.candidate);
    }
    let mut degrees_of_freedom = 0;
    let mut chi_squared = 0.0;
    for ((_, baseline_weight, candidate_weight), counts) in epochs {
        let (baseline, candidate) = (counts.baseline as f64, counts.candidate as f64);
        let total = baseline + candidate;
        if total > 0.0 {
            let weight = f64::from(baseline_weight) + f64::from(candidate_weight);
            let expected = total * f64::from(candidate_weight) / weight;
            // Both arms miss their expectation by the same amount.
            let miss = candidate - expected;
            chi_squared += miss * miss * (1.0 / expected + 1.0 / (total - expected));
            degrees_of_freedom += 1;
        }
    }
    chi_squared_greater(chi_squared, degrees_of_freedom)
}
