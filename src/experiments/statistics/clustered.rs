//! The variance of a contrast when outcomes of one cluster resemble each other.
//!
//! Each cluster's influence on the estimate is summed over the epochs before it is squared, because epochs
//! share clusters: their variances may not simply be added.
//!
//! Sources: the delta method for a ratio of sums (Deng, Knoblich and Lu, arXiv 1803.06336); cluster-robust
//! influence functions (statsmodels' CR0 apart from the factor G/(G−1)).

use std::collections::BTreeMap;

use super::strata::Strata;
use super::{Arm, Counts, Method, PerArm};

/// The influence of every cluster, with m = 1.
#[derive(Debug)]
pub(super) struct Clustered {
    influences: Vec<PerArm<f64>>,
    degrees_of_freedom: f64,
}

impl Clustered {
    pub(super) fn of(strata: &Strata<'_>, counts: PerArm<Counts>, method: Method) -> Self {
        let mut influences: BTreeMap<&str, PerArm<f64>> = BTreeMap::new();
        for epoch in &strata.epochs {
            for arm in [Arm::Baseline, Arm::Candidate] {
                let group = epoch.groups.get(arm);
                let ratio = group.total.ratio();
                for (&cluster, sums) in &group.clusters {
                    let residual = sums.numerator - ratio * sums.denominator;
                    *influences.entry(cluster).or_default().get_mut(arm) +=
                        epoch.weight * residual / group.total.denominator;
                }
            }
        }

        let seen = influences.len() as f64;
        let (small_sample, degrees_of_freedom) = if method == Method::ClusteredSticky {
            let clusters = counts.map(|count| count.clusters as f64);
            let fewest = clusters.baseline.min(clusters.candidate);
            (clusters.map(|g| (g / (g - 1.0)).sqrt()), fewest - 1.0)
        } else {
            let factor = (seen / (seen - 1.0)).sqrt();
            (PerArm { baseline: factor, candidate: factor }, seen - 1.0)
        };
        let influences = influences
            .into_values()
            .map(|influence| PerArm {
                baseline: influence.baseline * small_sample.baseline,
                candidate: influence.candidate * small_sample.candidate,
            })
            .collect();
        Self { influences, degrees_of_freedom }
    }

    /// V of rT − m·rC.
    pub(super) fn variance(&self, multiplier: f64) -> f64 {
        self.influences
            .iter()
            .map(|influence| (influence.candidate - multiplier * influence.baseline).powi(2))
            .sum()
    }

    pub(super) fn degrees_of_freedom(&self) -> f64 {
        self.degrees_of_freedom
    }
}
