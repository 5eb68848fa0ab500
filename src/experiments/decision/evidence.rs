//! What a decision is taken from.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{EarlyLook, Metric};
use crate::experiments::statistics::{Cell, Sampling, Units};

/// What was observed of one metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Observed {
    /// Whether outcomes depend on each other.
    pub sampling: Sampling,
    /// Sums. Pinned units, and what was served under the kill switch, are not in them.
    pub cells: Vec<Cell>,
    /// The standard error planned at the horizon; else the one frozen at the first look at harm that had
    /// enough data ([`HarmLook::planned_standard_error`](super::HarmLook)), which the caller keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned_standard_error: Option<f64>,
}

/// The evidence at one moment. It holds all that the verdict depends on besides the rules, so that a stored
/// decision can be checked later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(from = "Stored")]
pub struct Evidence {
    /// Hours since the test began.
    pub hours_elapsed: f64,
    /// Hours from the beginning to the horizon of the test, without its extension.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub horizon_hours: Option<f64>,
    /// Whether the horizon has come (that of the extension, where the test was extended): only then is
    /// anything but harm and early promotion decided.
    pub horizon_reached: bool,
    /// Whether the test was extended. It can be extended once.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub extended: bool,
    /// What was observed, by metric.
    pub metrics: BTreeMap<Metric, Observed>,
    /// Distinct units per epoch.
    pub units: Vec<Units>,
    /// Looks that have spent a part of the level, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub early_looks: Vec<EarlyLook>,
}

/// The forms that evidence was stored in.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Current(Current),
    First(First),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Current {
    hours_elapsed: f64,
    #[serde(default)]
    horizon_hours: Option<f64>,
    horizon_reached: bool,
    #[serde(default)]
    extended: bool,
    metrics: BTreeMap<Metric, Observed>,
    units: Vec<Units>,
    #[serde(default)]
    early_looks: Vec<EarlyLook>,
}

/// Engine version 1 knew one metric, whose name stood in the rules only, and costs for its policy.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct First {
    hours_elapsed: f64,
    horizon_reached: bool,
    sampling: Sampling,
    cells: Vec<Cell>,
    units: Vec<Units>,
    #[serde(default)]
    cost: Vec<Cell>,
    #[serde(default)]
    planned_standard_error: Option<f64>,
}

impl From<Stored> for Evidence {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Current(now) => Self {
                hours_elapsed: now.hours_elapsed,
                horizon_hours: now.horizon_hours,
                horizon_reached: now.horizon_reached,
                extended: now.extended,
                metrics: now.metrics,
                units: now.units,
                early_looks: now.early_looks,
            },
            Stored::First(first) => first.into(),
        }
    }
}

impl From<First> for Evidence {
    fn from(first: First) -> Self {
        let sampling = first.sampling;
        let mut metrics = BTreeMap::new();
        if !first.cost.is_empty() {
            let cost = Observed { sampling, cells: first.cost, planned_standard_error: None };
            metrics.insert(Metric::CostPerEngagement, cost);
        }
        let planned_standard_error = first.planned_standard_error;
        metrics.insert(Metric::default(), Observed { sampling, cells: first.cells, planned_standard_error });
        Self {
            hours_elapsed: first.hours_elapsed,
            horizon_hours: None,
            horizon_reached: first.horizon_reached,
            extended: false,
            metrics,
            units: first.units,
            early_looks: Vec::new(),
        }
    }
}

impl Evidence {
    /// The same evidence in one order, and with times and errors that JSON can hold, so that it has one
    /// digest.
    #[must_use]
    pub(super) fn canonical(mut self) -> Self {
        for observed in self.metrics.values_mut() {
            observed.cells.sort_by(Cell::order);
            observed.planned_standard_error =
                observed.planned_standard_error.filter(|error| error.is_finite());
        }
        self.units.sort_by_key(|row| {
            (
                row.epoch,
                row.weights.baseline,
                row.weights.candidate,
                row.counts.baseline,
                row.counts.candidate,
            )
        });
        // Time that cannot be told has not passed.
        self.hours_elapsed = if self.hours_elapsed.is_finite() { self.hours_elapsed } else { 0.0 };
        self.horizon_hours = self.horizon_hours.filter(|hours| hours.is_finite());
        self.early_looks.retain(EarlyLook::is_usable);
        self
    }

    /// What was observed of a metric in the epochs in which both arms had a weight. Where one had none,
    /// whatever it served was a straggler of another epoch, and nobody was assigned at random.
    pub(super) fn randomised(&self, metric: Metric) -> Option<Cow<'_, Observed>> {
        let observed = self.metrics.get(&metric)?;
        let barred: Vec<i64> = self
            .units
            .iter()
            .filter(|row| !row.weights.both(|weight| *weight > 0))
            .map(|row| row.epoch)
            .collect();
        if barred.is_empty() {
            return Some(Cow::Borrowed(observed));
        }
        let cells = observed.cells.iter().filter(|cell| !barred.contains(&cell.epoch)).cloned().collect();
        Some(Cow::Owned(Observed { cells, ..observed.clone() }))
    }
}
