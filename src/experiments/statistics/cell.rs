//! What an analysis is made from: sums per epoch, arm and cluster, and counts of units.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Arm, PerArm};

/// The sums of one metric over the outcomes of one epoch, arm and cluster. Cells with the same three are
/// added up, and their order does not matter.
///
/// Numbers that are not finite are written to JSON as `null` and read back as NaN; an estimate refuses them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// The traffic revision under which the outcomes were served.
    pub epoch: i64,
    /// The arm that served them.
    pub arm: Arm,
    /// The persona or, where there is none, the unit.
    pub cluster: String,
    /// Outcomes that have the metric.
    pub n: u64,
    /// ΣS.
    #[serde(with = "number")]
    pub numerator: f64,
    /// ΣN.
    #[serde(with = "number")]
    pub denominator: f64,
    /// ΣS².
    #[serde(with = "number")]
    pub numerator_sq: f64,
    /// ΣSN.
    #[serde(with = "number")]
    pub cross: f64,
    /// ΣN².
    #[serde(with = "number")]
    pub denominator_sq: f64,
}

impl Cell {
    /// The cell of an average, whose N is 1 in every outcome: from Σy and Σy².
    #[must_use]
    pub fn average(epoch: i64, arm: Arm, cluster: &str, n: u64, sum: f64, sum_sq: f64) -> Self {
        let count = n as f64;
        Self {
            epoch,
            arm,
            cluster: cluster.to_owned(),
            n,
            numerator: sum,
            denominator: count,
            numerator_sq: sum_sq,
            cross: sum,
            denominator_sq: count,
        }
    }

    /// Whether these can be sums of real outcomes: finite, with a denominator that does not fall below zero.
    pub(super) fn is_usable(&self) -> bool {
        self.sums().iter().all(|sum| sum.is_finite())
            && self.denominator >= 0.0
            && self.numerator_sq >= 0.0
            && self.denominator_sq >= 0.0
    }

    /// A total order, so that sums do not depend on the order in which a database returned the rows.
    pub(crate) fn order(&self, other: &Self) -> Ordering {
        (self.epoch, self.arm, &self.cluster, self.n)
            .cmp(&(other.epoch, other.arm, &other.cluster, other.n))
            .then_with(|| {
                let pairs = self.sums().into_iter().zip(other.sums());
                pairs
                    .map(|(mine, theirs)| mine.total_cmp(&theirs))
                    .find(|o| o.is_ne())
                    .unwrap_or(Ordering::Equal)
            })
    }

    fn sums(&self) -> [f64; 5] {
        [self.numerator, self.denominator, self.numerator_sq, self.cross, self.denominator_sq]
    }
}

/// Distinct units of one epoch, for the sample-ratio check. A unit counts once in the whole experiment, in
/// the epoch of its first outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = EpochUnits)]
pub struct Units {
    /// The traffic revision.
    pub epoch: i64,
    /// The weights it gave, in basis points. Other versions may hold what is missing to 10,000.
    pub weights: PerArm<u32>,
    /// The units that were first seen in it.
    pub counts: PerArm<u64>,
}

/// JSON has no NaN and no infinity: both are `null`.
mod number {
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
    pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if value.is_finite() { serializer.serialize_f64(*value) } else { serializer.serialize_none() }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
    }
}
