//! Epochs that can be compared, with their weights.

use std::collections::{BTreeMap, BTreeSet};

use super::{Arm, Cell, Counts, Method, NoEstimate, PerArm};

/// Sums over cells.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    pub(super) n: u64,
    pub(super) numerator: f64,
    pub(super) denominator: f64,
    pub(super) numerator_sq: f64,
    pub(super) cross: f64,
    pub(super) denominator_sq: f64,
}

impl Sums {
    fn add(&mut self, cell: &Cell) {
        self.n = self.n.saturating_add(cell.n);
        self.numerator += cell.numerator;
        self.denominator += cell.denominator;
        self.numerator_sq += cell.numerator_sq;
        self.cross += cell.cross;
        self.denominator_sq += cell.denominator_sq;
    }

    /// r = ΣS / ΣN.
    pub(super) fn ratio(&self) -> f64 {
        self.numerator / self.denominator
    }
}

/// One arm in one epoch.
#[derive(Debug, Default)]
pub(super) struct Group<'a> {
    pub(super) total: Sums,
    pub(super) clusters: BTreeMap<&'a str, Sums>,
}

/// One epoch with both arms.
#[derive(Debug)]
pub(super) struct Stratum<'a> {
    /// w, the epoch's share of ΣN over both arms.
    pub(super) weight: f64,
    pub(super) groups: PerArm<Group<'a>>,
}

/// The epochs that can be compared.
#[derive(Debug)]
pub(super) struct Strata<'a> {
    pub(super) epochs: Vec<Stratum<'a>>,
    /// Epochs that have outcomes and could not be compared.
    pub(super) left_out: u64,
}

impl<'a> Strata<'a> {
    /// Groups cells by epoch and arm. An epoch is left out unless each arm has a positive denominator and two
    /// independent observations (clusters, or outcomes under Welch): with one, its variance cannot be told,
    /// and would be counted as none.
    pub(super) fn of(cells: &'a [Cell], method: Method) -> Result<Self, NoEstimate> {
        if !cells.iter().all(Cell::is_usable) {
            return Err(NoEstimate::Unusable);
        }
        let mut sorted: Vec<&Cell> = cells.iter().filter(|cell| cell.n > 0).collect();
        sorted.sort_by(|a, b| a.order(b));

        let mut by_epoch: BTreeMap<i64, PerArm<Group<'a>>> = BTreeMap::new();
        for cell in sorted {
            let group = by_epoch.entry(cell.epoch).or_default().get_mut(cell.arm);
            group.total.add(cell);
            group.clusters.entry(&cell.cluster).or_default().add(cell);
        }

        let seen = by_epoch.len();
        let mut epochs: Vec<Stratum<'a>> = by_epoch
            .into_values()
            .filter(|groups| groups.both(|group| group.is_comparable(method)))
            .map(|groups| Stratum {
                weight: groups.baseline.total.denominator + groups.candidate.total.denominator,
                groups,
            })
            .collect();
        let total: f64 = epochs.iter().map(|epoch| epoch.weight).sum();
        for epoch in &mut epochs {
            epoch.weight /= total;
        }
        Ok(Self { left_out: (seen - epochs.len()) as u64, epochs })
    }

    /// Σ w r of one arm.
    pub(super) fn mean(&self, arm: Arm) -> f64 {
        self.epochs.iter().map(|epoch| epoch.weight * epoch.groups.get(arm).total.ratio()).sum()
    }

    /// Outcomes and distinct clusters of each arm. Independent outcomes are their own clusters.
    pub(super) fn counts(&self, method: Method) -> PerArm<Counts> {
        PerArm { baseline: Arm::Baseline, candidate: Arm::Candidate }.map(|&arm| {
            let groups = || self.epochs.iter().map(move |epoch| epoch.groups.get(arm));
            let outcomes = groups().fold(0_u64, |sum, group| sum.saturating_add(group.total.n));
            let clusters = match method {
                Method::Welch => outcomes,
                _ => groups().flat_map(|group| group.clusters.keys()).collect::<BTreeSet<_>>().len() as u64,
            };
            Counts { outcomes, clusters }
        })
    }
}

impl Group<'_> {
    fn is_comparable(&self, method: Method) -> bool {
        let independent = match method {
            Method::Welch => self.total.n,
            Method::ClusteredPerPost | Method::ClusteredSticky => self.clusters.len() as u64,
        };
        self.total.denominator > 0.0 && independent >= 2
    }
}
