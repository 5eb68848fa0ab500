//! What a decision is taken from.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::experiments::statistics::{Cell, Sampling, Units};

/// The evidence at one moment. It holds all that the verdict depends on besides the rules, so that a stored
/// decision can be checked later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// Hours since the test began.
    pub hours_elapsed: f64,
    /// Whether the horizon has come: only then is anything but harm decided.
    pub horizon_reached: bool,
    /// Whether outcomes depend on each other.
    pub sampling: Sampling,
    /// The primary metric. Pinned units, and what was served under the kill switch, are not in it.
    pub cells: Vec<Cell>,
    /// Distinct units per epoch.
    pub units: Vec<Units>,
    /// Cost per engagement (dollars over engagements), where costs are known. Only a policy asks for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cost: Vec<Cell>,
    /// The standard error planned at the horizon; else the one frozen at the first look at harm that had
    /// enough data ([`HarmLook::planned_standard_error`](super::HarmLook)), which the caller keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned_standard_error: Option<f64>,
}

impl Evidence {
    /// The same evidence in one order, and with times and errors that JSON can hold, so that it has one
    /// digest.
    #[must_use]
    pub(super) fn canonical(mut self) -> Self {
        self.cells.sort_by(Cell::order);
        self.cost.sort_by(Cell::order);
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
        self.planned_standard_error = self.planned_standard_error.filter(|error| error.is_finite());
        self
    }

    /// Cells of epochs in which both arms had a weight. Where one had none, whatever it served was a
    /// straggler of another epoch, and nobody was assigned at random.
    pub(super) fn randomised<'a>(&self, cells: &'a [Cell]) -> Cow<'a, [Cell]> {
        let barred: Vec<i64> = self
            .units
            .iter()
            .filter(|row| !row.weights.both(|weight| *weight > 0))
            .map(|row| row.epoch)
            .collect();
        if barred.is_empty() {
            return Cow::Borrowed(cells);
        }
        cells.iter().filter(|cell| !barred.contains(&cell.epoch)).cloned().collect()
    }
}
