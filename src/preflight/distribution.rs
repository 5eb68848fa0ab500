//! How a quantity is spread over the examples, exactly: each value with its count.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Values with their counts. Lengths of texts repeat, so that this stays small however many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally(BTreeMap<u64, u64>);

impl Tally {
    pub(super) fn add(&mut self, value: u64) {
        *self.0.entry(value).or_default() += 1;
    }

    pub(super) fn merge(&mut self, other: Self) {
        for (value, count) in other.0 {
            *self.0.entry(value).or_default() += count;
        }
    }

    /// The sum of the values, each at most `limit`.
    pub(super) fn sum(&self, limit: u64) -> u64 {
        self.0.iter().map(|(value, count)| value.min(&limit) * count).sum()
    }

    /// How many are above.
    pub(super) fn above(&self, limit: u64) -> u64 {
        self.0.range(limit.saturating_add(1)..).map(|(_, count)| count).sum()
    }

    pub(super) fn distribution(&self) -> Option<Distribution> {
        let count: u64 = self.0.values().sum();
        let (minimum, maximum) = (*self.0.first_key_value()?.0, *self.0.last_key_value()?.0);
        Some(Distribution {
            minimum,
            p50: self.quantile(count, 50),
            p90: self.quantile(count, 90),
            p95: self.quantile(count, 95),
            p99: self.quantile(count, 99),
            maximum,
            mean: self.sum(u64::MAX) as f64 / count as f64,
            total: self.sum(u64::MAX),
            histogram: self.histogram(),
        })
    }

    /// The smallest value that at least `percent` of all values do not exceed.
    fn quantile(&self, count: u64, percent: u64) -> u64 {
        let wanted = (count * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let reached = self.0.iter().find(|(_, count)| {
            seen += **count;
            seen >= wanted
        });
        reached.map_or(0, |(value, _)| *value)
    }

    /// Counts by powers of two.
    fn histogram(&self) -> Vec<Bin> {
        let mut bins = BTreeMap::new();
        for (value, count) in &self.0 {
            *bins.entry((value + 1).next_power_of_two()).or_default() += count;
        }
        bins.into_iter().map(|(below, count)| Bin { below, count }).collect()
    }
}

/// How a quantity is spread over the examples. Quantiles are values that occur: at least so many percent are not above.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Distribution {
    /// The smallest.
    pub minimum: u64,
    /// The median.
    pub p50: u64,
    /// Nine in ten are not above.
    pub p90: u64,
    /// 95 in 100 are not above.
    pub p95: u64,
    /// 99 in 100 are not above.
    pub p99: u64,
    /// The largest.
    pub maximum: u64,
    /// The mean.
    pub mean: f64,
    /// All together.
    pub total: u64,
    /// Counts by powers of two, the smallest first.
    #[schema(max_items = 65)]
    pub histogram: Vec<Bin>,
}

/// How many values are below a bound, and not below the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Bin {
    /// The bound: a power of two.
    pub below: u64,
    /// How many.
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tally(values: &[u64]) -> Tally {
        let mut tally = Tally::default();
        for value in values {
            tally.add(*value);
        }
        tally
    }

    #[test]
    fn nothing_has_no_distribution() {
        assert_eq!(Tally::default().distribution(), None);
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_sorted_values(mut values in prop::collection::vec(0_u64..3000, 1..200), cut in 0_usize..200) {
            let (left, right) = values.split_at(cut.min(values.len()));
            let mut merged = tally(left);
            merged.merge(tally(right));
            prop_assert_eq!(&merged, &tally(&values), "parts add up in any order");
            let found = merged.distribution().unwrap();
            values.sort_unstable();
            let at = |percent: usize| values[(values.len() * percent).div_ceil(100).max(1) - 1];
            prop_assert_eq!((found.minimum, found.maximum), (values[0], *values.last().unwrap()));
            prop_assert_eq!([found.p50, found.p90, found.p95, found.p99], [at(50), at(90), at(95), at(99)]);
            prop_assert_eq!(found.total, values.iter().sum::<u64>());
            prop_assert_eq!(merged.above(1000), values.iter().filter(|value| **value > 1000).count() as u64);
            prop_assert_eq!(merged.sum(1000), values.iter().map(|value| *value.min(&1000)).sum::<u64>());
            let mut lower = 0;
            for bin in &found.histogram {
                let inside = values.iter().filter(|value| (lower..bin.below).contains(*value)).count() as u64;
                prop_assert_eq!(bin.count, inside);
                lower = bin.below;
            }
            prop_assert_eq!(found.histogram.iter().map(|bin| bin.count).sum::<u64>(), values.len() as u64);
        }
    }
}
