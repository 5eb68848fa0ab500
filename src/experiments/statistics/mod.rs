//! Effects, their uncertainty and the tests on them, from sums alone. No input or output, no database.
//!
//! Outcomes arrive as [`Cell`]s: sums per epoch, arm and cluster, so that an analysis costs the same for a
//! thousand outcomes as for a hundred million. An epoch is one traffic revision, in which the weights stand
//! still. A metric is a ratio ΣS / ΣN; an average is the ratio whose N is 1.
//!
//! | question | function |
//! |---|---|
//! | how large is the effect, and how sure is that? | [`estimate`] |
//! | did the split arrive as configured? | [`sample_ratio::p_value`] |
//! | may I look now, and again in an hour? | [`sequential`] |
//! | may I promote before the horizon? | [`group_sequential`] |
//! | how many outcomes and days does a test need? | [`planning`] |
//! | which of several metrics improved? | [`holm`] |

mod cell;
mod clustered;
mod distribution;
mod estimation;
pub mod group_sequential;
pub mod holm;
pub mod planning;
pub mod sample_ratio;
pub mod sequential;
mod strata;
mod variability;
mod welch;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use cell::{Cell, Units};
pub use estimation::{Counts, Estimate, Interval, NoEstimate, estimate};
pub use variability::Variability;

/// The two versions under comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Arm {
    /// The version that was live when the test began: the control.
    Baseline,
    /// The version under test: the treatment.
    Candidate,
}

/// One value for each arm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PerArm<T> {
    /// The baseline's.
    pub baseline: T,
    /// The candidate's.
    pub candidate: T,
}

impl<T> PerArm<T> {
    /// The value of one arm.
    pub fn get(&self, arm: Arm) -> &T {
        match arm {
            Arm::Baseline => &self.baseline,
            Arm::Candidate => &self.candidate,
        }
    }

    /// The value of one arm, to change it.
    pub fn get_mut(&mut self, arm: Arm) -> &mut T {
        match arm {
            Arm::Baseline => &mut self.baseline,
            Arm::Candidate => &mut self.candidate,
        }
    }

    /// Both values, each changed by `change`.
    pub fn map<U>(&self, mut change: impl FnMut(&T) -> U) -> PerArm<U> {
        PerArm { baseline: change(&self.baseline), candidate: change(&self.candidate) }
    }

    /// Whether both values satisfy `test`.
    pub fn both(&self, mut test: impl FnMut(&T) -> bool) -> bool {
        test(&self.baseline) && test(&self.candidate)
    }
}

/// How units are assigned to arms, a setting of the pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Assignment {
    /// The unit is the post or the request: a persona has outcomes in both arms.
    #[default]
    PerPost,
    /// The unit is the persona, which is in one arm at a time.
    Sticky,
}

/// Whether outcomes depend on each other. It comes with the data, because sums alone do not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// Outcomes of one cluster resemble each other. A cell's cluster is its persona or, where it has none,
    /// its unit.
    Clustered,
    /// There are no personas and each unit has one outcome. Clusters are not looked at, so that cells may be
    /// summed into one per epoch and arm.
    Independent,
}

impl Sampling {
    /// Reads it from cells that still have one cluster per unit: independent where there are no personas and
    /// no unit was observed twice.
    #[must_use]
    pub fn of(cells: &[Cell], has_personas: bool) -> Self {
        let mut units: Vec<&str> =
            cells.iter().filter(|cell| cell.n > 0).map(|cell| &*cell.cluster).collect();
        let observed = units.len();
        units.sort_unstable();
        units.dedup();
        let once = units.len() == observed && cells.iter().all(|cell| cell.n <= 1);
        if has_personas || !once { Self::Clustered } else { Self::Independent }
    }
}

/// The test that fits the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = TestMethod)]
pub enum Method {
    /// Welch's test on independent outcomes.
    Welch,
    /// Cluster-robust, with clusters that have outcomes in both arms.
    ClusteredPerPost,
    /// Cluster-robust, with clusters that belong to one arm at a time.
    ClusteredSticky,
}

impl Method {
    /// The method for a way of assignment and the dependence in the data.
    #[must_use]
    pub fn of(assignment: Assignment, sampling: Sampling) -> Self {
        match (sampling, assignment) {
            (Sampling::Independent, _) => Self::Welch,
            (Sampling::Clustered, Assignment::PerPost) => Self::ClusteredPerPost,
            (Sampling::Clustered, Assignment::Sticky) => Self::ClusteredSticky,
        }
    }
}

/// Which way a metric is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Such as engagement or quality.
    HigherIsBetter,
    /// Such as cost, errors or latency.
    LowerIsBetter,
}

impl Direction {
    /// A difference turned so that positive is better.
    #[must_use]
    pub fn better(self, difference: f64) -> f64 {
        match self {
            Self::HigherIsBetter => difference,
            Self::LowerIsBetter => -difference,
        }
    }

    /// The multiplier m of the control for which "the candidate is better than m times the baseline" means
    /// an improvement by more than `relative` (negative: a loss by less).
    #[must_use]
    pub fn multiplier(self, relative: f64) -> f64 {
        1.0 + self.better(relative)
    }
}
