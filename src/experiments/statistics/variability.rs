//! How much outcomes vary, and how much of that lies between clusters: what planning starts from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Cell;

/// The mean of a metric and its spread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Variability {
    /// μ = ΣS / ΣN.
    pub mean: f64,
    /// σ, the standard deviation of one outcome (of a ratio: of its residual S − μN over the mean N).
    pub deviation: f64,
    /// ρ, the share of the variance that lies between clusters, 0 to 1.
    pub intra_cluster: f64,
    /// Clusters at hand.
    pub clusters: u64,
}

impl Variability {
    /// Estimates it from cells of any epochs and arms, as one sample.
    ///
    /// ρ is the ANOVA estimate of the intra-class correlation with clusters of unequal size (Donner, "A
    /// review of inference procedures for the intraclass correlation coefficient in the one-way random effects
    /// model", International Statistical Review 1986), on the residuals of the ratio; below 0 it is 0. `None`
    /// where there are fewer than two outcomes, the denominator is not positive, or a number is not finite.
    #[must_use]
    pub fn of(cells: &[Cell]) -> Option<Self> {
        let usable = || cells.iter().filter(|cell| cell.n > 0);
        let sum = |of: fn(&Cell) -> f64| usable().map(of).sum::<f64>();
        let outcomes = sum(|cell| cell.n as f64);
        let denominator = sum(|cell| cell.denominator);
        let mean = sum(|cell| cell.numerator) / denominator;
        let size = denominator / outcomes;
        // By cluster: outcomes, and the sum of the residuals.
        let mut clusters: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
        let mut squares = 0.0;
        for cell in usable() {
            let cluster = clusters.entry(&cell.cluster).or_default();
            cluster.0 += cell.n as f64;
            cluster.1 += (cell.numerator - mean * cell.denominator) / size;
            squares += cell.numerator_sq - 2.0 * mean * cell.cross + mean * mean * cell.denominator_sq;
        }
        squares /= size * size;
        let groups = clusters.len() as f64;
        let between: f64 = clusters.values().map(|(n, residual)| residual * residual / n).sum();
        let within = (squares - between).max(0.0);
        let (deviation, intra_cluster) = if groups > 1.0 && outcomes > groups {
            let (among, inside) = (between / (groups - 1.0), within / (outcomes - groups));
            let effective = outcomes - clusters.values().map(|(n, _)| n * n).sum::<f64>() / outcomes;
            let component = ((among - inside) * (groups - 1.0) / effective).max(0.0);
            let total = component + inside;
            (total.sqrt(), if total > 0.0 { component / total } else { 0.0 })
        } else {
            ((squares / (outcomes - 1.0)).max(0.0).sqrt(), 0.0)
        };
        let found = Self { mean, deviation, intra_cluster, clusters: clusters.len() as u64 };
        (found.mean.is_finite() && found.deviation.is_finite() && found.intra_cluster.is_finite())
            .then_some(found)
    }
}
